"""What is kept of the best model's answers, and what a person is shown of them."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from sweeper import filesystem, schema
from sweeper.fault import Fault
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results import markup
from sweeper.results.answer import answers, confusion, losses, most_confused
from sweeper.results.panel import Panel
from sweeper.results.prediction import MOST_CELLS, Predictions, panels
from sweeper.results.study_record import StudyRecord
from sweeper.run import test_best as try_best
from sweeper.run import train
from sweeper.search.look import look
from sweeper.search.trial import Trial
from sweeper.training.data import Data, load
from sweeper.training.prediction import MOST_BYTES, thumbnails
from tests.device import CPU
from tests.pictures import write_classes
from tests.program import IN_PROCESS, finish, kill_group, start, sweeper, until

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "<img src=x onerror=alert(1)>"


def of_two(
    n_images: int = 6, name: str = "cats/{}.jpg", classes: tuple[str, ...] = ("cats", "dogs")
) -> Predictions:
    """Cats, of which the first is taken for a dog, and is a gray gradient; all have thumbnails."""
    logits = np.tile(np.array([[2, 0]], dtype=np.float32), (n_images, 1))
    logits[0] = (0, 3)
    pixels = np.arange(n_images * 16 * 16, dtype=np.uint8).reshape(n_images, 16, 16, 1)
    names = tuple(name.format(i) for i in range(n_images))
    labels, shown = np.zeros(n_images, dtype=np.int64), np.arange(n_images)
    return Predictions(logits, labels, classes, shown, pixels, names)


def study_of(
    folder: Path, predictions: Predictions | None = None, result: dict[str, Any] | None = None
) -> StudyRecord:
    """A study of one completed trial whose best/ holds these predictions."""
    files = StudyFiles(folder)
    files.best.mark()
    filesystem.write_json(files.best.result, {"trial": 0, **(result or {})})
    if predictions is not None:
        predictions.write(files.best)
    trial = optuna.create_trial(value=0.9)
    words = ("sweeper", "-m", "study=pets")
    attributes = {"named_by": "study"}
    return StudyRecord("pets", files, ("maximize",), ("val_accuracy",), [trial], words, attributes=attributes)


def figure_of(panel: Panel) -> Any:
    assert panel.figure is not None
    return panel.figure


def html_of(found: list[Panel]) -> str:
    """As the report shows them, without figures."""
    return "".join(panel.html + (markup.table(panel.table) if panel.table else "") for panel in found)


def rows_of(panel: Panel) -> list[tuple[object, ...]]:
    assert panel.table is not None
    return [tuple(row) for row in panel.table.rows]


def texts(html: str) -> list[str]:
    """What a reader of the page sees."""
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_data = seen.append  # type: ignore[method-assign, assignment]
    parser.feed(html)
    return seen


# ------------------------------------------------------------------------------------------ what is kept


def test_a_search_keeps_what_its_best_model_says(searched: Path) -> None:
    """The last worker leaves it in best/ alone; it says the same as the result, to the last image."""
    study = searched / "outputs" / "digits"
    found, result = Predictions.read(RunFiles(study / "best")), RunFiles(study / "best").read_result()
    assert [path.parent.name for path in study.rglob("predictions.npz")] == ["best"]
    assert found is not None
    assert (answers(found.logits) == found.labels).mean() == result["val_accuracy"]
    assert found.classes == tuple(map(str, range(10)))
    assert found.thumbnails.shape[1:] == (8, 8, 1)
    data = load(schema.Dataset(), CPU)
    assert found.labels.tolist() == data.val_y.tolist()
    seen = torch.as_tensor(data.val_x[:])[found.shown].permute(0, 2, 3, 1)
    assert found.thumbnails.tolist() == seen.tolist()
    assert set(found.names) == {""}


def test_what_a_search_did_not_keep_is_made_up_for(searched: Path, tmp_path: Path) -> None:
    """An older study, or one whose last worker was killed: the end of the next command writes it, and tests
    nothing again.
    """
    shutil.copytree(searched / "outputs" / "digits" / "best", tmp_path / "best")
    files = StudyFiles(tmp_path).best
    before, result = Predictions.read(files), files.result.read_text()
    files.predictions.unlink()
    try_best(tmp_path)
    after = Predictions.read(files)
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.logits, before.logits)
    assert files.result.read_text() == result


def test_a_best_model_that_cannot_run_here_is_told(
    searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One trained on a GPU, resumed where there is none: a line, and nothing breaks at the search's end."""
    shutil.copytree(searched / "outputs" / "digits" / "best", tmp_path / "best")
    files = StudyFiles(tmp_path).best
    files.predictions.unlink()
    filesystem.write_whole(files.config, files.config.read_text().replace("device: cpu", "device: cuda:63"))
    try_best(tmp_path)
    assert not files.predictions.exists()
    assert "the best model is not tested: device=cuda:63: " in caplog.text


def quick_run(path: Path, **changes: Any) -> schema.Run:
    dataset = schema.Dataset(name="image_folder", path=str(path), image_size=16, **changes)
    training = schema.Training(epochs=2, batch_size=8, n_threads=1)
    model = schema.Model(filters=[4], hidden_units=[8])
    return schema.Run(device="cpu", dataset=dataset, model=model, training=training)


def test_a_single_run_keeps_the_names_of_its_pictures(tmp_path: Path) -> None:
    """Paths below ``dataset.path``, whatever characters they have, and the accuracy of the result."""
    pets = write_classes(tmp_path / "pets", {"cats": 20, "dogs": 20}, size=(20, 20))
    for path in sorted(pets.rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}\n{EVIL.replace('/', '')}.png"))
    train(quick_run(pets, margin=1.25), tmp_path / "one", Trial())
    files = RunFiles(tmp_path / "one")
    found, result = Predictions.read(files), files.read_result()
    assert found is not None
    assert (answers(found.logits) == found.labels).mean() == result["val_accuracy"]
    assert found.names
    assert all((pets / name).is_file() for name in found.names)
    labels = [found.classes[label] for label in found.labels[found.shown]]
    assert [name.split("/")[0] for name in found.names] == labels
    assert found.thumbnails.shape[1:] == (16, 16, 3)


class Numbered(Trial):
    """The first trial of a search."""

    number = 0


def test_a_trial_keeps_nothing_and_no_run_keeps_anothers(tmp_path: Path) -> None:
    """Only the best trial's are made, at the end of a search; what lay there before is gone at the start."""
    pets = write_classes(tmp_path / "pets", {"cats": 12, "dogs": 12})
    files = RunFiles(tmp_path / "0")
    of_two().write(files)
    train(quick_run(pets), files.folder, Numbered())
    assert files.result.exists()
    assert not files.predictions.exists()


@pytest.mark.parametrize(
    ("n_channels", "side", "stored"), [(1, 64, 64), (3, 32, 32), (3, 224, 256), (1, 96, 110), (3, 300, 300)]
)
def test_thumbnails_are_the_centre_and_take_little(n_channels: int, side: int, stored: int) -> None:
    """What the network sees, without the margin: white inside, black outside; at most 100 kB for 16."""
    first = (stored - side) // 2
    pixels = torch.zeros(20, n_channels, stored, stored, dtype=torch.uint8)
    pixels[:, :, first : first + side, first : first + side] = 255
    pixels[7] //= 5
    found = thumbnails(data_of(pixels, side), np.array([7, *range(15)]))
    assert found.shape[0] == 16
    assert found.shape[1] == found.shape[2] <= min(side, 64)
    assert found.nbytes <= MOST_BYTES
    assert (found[0] == 51).all()
    assert (found[1] == 255).all()


def data_of(val_x: torch.Tensor, side: int) -> Data:
    """Validation images alone."""
    none, labels = val_x[:0], torch.zeros(len(val_x), dtype=torch.int64)
    parts = (none, labels[:0], val_x, labels, none, labels[:0])
    return Data(*parts, torch.zeros(1), torch.ones(1), ("a", "b"), "", image_size=side)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Float for float, without the dataset; nothing is read where no run of ours is."""
    files, written = RunFiles(tmp_path), of_two(classes=("katzen\u00e4", "\U0001f415"))
    written.write(files)
    assert Predictions.read(files) is None
    files.mark()
    read = Predictions.read(files)
    assert read is not None
    assert (read.classes, read.names) == (written.classes, written.names)
    for name in ("logits", "labels", "shown", "thumbnails"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert files.predictions not in files.room()
    files.remove()
    assert not files.predictions.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b"PK\x03\x04 and then nothing"),
        lambda path: path.write_bytes(b""),
        lambda path: spoilt(path, classes=np.array(["cats"])),
        lambda path: spoilt(path, labels=np.full(6, 7)),
        lambda path: spoilt(path, shown=np.full(6, 6)),
        lambda path: spoilt(path, names=np.array([object()] * 6)),
        lambda path: spoilt(path, thumbnails=np.zeros((6, 4, 4, 2), np.uint8)),
        lambda path: spoilt(path, logits=np.zeros(3, np.float32)),
        lambda path: spoilt(path, logits=np.zeros((6, 2), complex)),
        lambda path: spoilt(path, labels=np.zeros(6)),
        lambda path: spoilt(path, shown=np.zeros(6)),
        lambda path: spoilt(path, thumbnails=np.zeros((6, 0, 0, 1), np.uint8)),
        lambda path: path.write_bytes(huge_claim()),
        lambda path: path.write_bytes(other_arrays()),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Half a file, another program's, or one made to run code: one line that names it."""
    files = RunFiles(tmp_path)
    files.mark()
    of_two().write(files)
    spoil(files.predictions)
    with pytest.raises(Fault, match=r"predictions\.npz: holds no predictions: the file is damaged; restore"):
        Predictions.read(files)


def other_arrays() -> bytes:
    content = io.BytesIO()
    np.savez(content, other=np.zeros(3))
    return content.getvalue()


def huge_claim() -> bytes:
    """An array of 36 TB, of which the file holds nothing."""
    header, content = io.BytesIO(), io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 10)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("logits.npy", header.getvalue())
    return content.getvalue()


def spoilt(path: Path, **changes: Any) -> None:
    """The file, with other arrays in it."""
    with np.load(path) as found:
        arrays = {**found, **changes}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)


@pytest.mark.slow
def test_a_kill_while_writing_leaves_whole_or_nothing(tmp_path: Path) -> None:
    """However often the writer is killed, what can be read is whole."""
    code = (
        "import sys; from pathlib import Path; from tests.test_prediction import of_two; "
        "from sweeper.record.run_files import RunFiles\n"
        "while True: of_two(20_000).write(RunFiles(Path(sys.argv[1])))"
    )
    files = RunFiles(tmp_path)
    files.mark()
    for _ in range(3):
        writer = start(Path.cwd(), "-c", code, tmp_path)
        until(lambda: any(tmp_path.glob(".predictions.npz.*")), limit_s=60)
        kill_group(writer)
        finish(writer)
        found = Predictions.read(files)
        assert found is None or len(found.logits) == 20_000
    assert all(path in files.room() for path in tmp_path.glob(".predictions*"))


# ------------------------------------------------------------------------------------------ what is shown


def test_the_panels_of_a_best_model(tmp_path: Path) -> None:
    """Matrix, mistakes, scores, calibration, and both kinds of pictures, with numbers that are theirs."""
    scores = {
        "cats": {"n_images": 6, "precision": 1.0, "recall": 0.8333333, "f1": 0.909},
        "dogs": {"n_images": 0, "precision": None, "recall": None, "f1": None},
    }
    found = panels(study_of(tmp_path, of_two(), {"per_class": {"val": scores}}))
    assert [panel.title for panel in found] == [
        *("Confusion matrix", "Most frequent mistakes", "Scores of each class", "How sure, how right"),
        *("Worst pictures", "Most doubtful pictures"),
    ]
    matrix, mistakes, per_class, sure, bad, _ = found
    assert "right on 5 of 6 validation images (83.3%)" in matrix.says
    (cells,) = figure_of(matrix).data
    assert [list(row) for row in cells.text] == [["5", "1"], ["", ""]]
    assert cells.z[0][0] == pytest.approx(5 / 6)
    assert cells.hovertext[0][1] == "cats said to be dogs:<br>1 of 6 images (16.7%)"
    assert rows_of(matrix) == [("cats", 5, 1), ("dogs", 0, 0)]
    assert rows_of(mistakes) == [("cats", "dogs", "1 of 6 (17%)")]
    assert rows_of(per_class) == [("cats", 6, "1.000", "0.833", "0.909")]
    assert "No validation image is of dogs." in per_class.html
    _, points = figure_of(sure).data
    assert sorted(points.x) == pytest.approx([0.880797, 0.952574])
    assert list(points.y) == [1.0, 0.0]
    assert rows_of(sure)[0] == ("0.881", "1.000", "0.566", "1.000", 5)
    assert 'alt="true cats, said dogs with 0.95; cats/0.jpg"' in bad.html
    assert bad.html.index("said dogs with 0.95") < bad.html.index("cats, said with 0.88")
    assert all(panel.says for panel in found if panel.figure is not None)


def test_figures_leave_their_looks_to_the_page(tmp_path: Path) -> None:
    """No colours of text or background, no fonts, no sizes: the page sets them, for dark and light."""
    for panel in panels(study_of(tmp_path, of_two())):
        if panel.figure is not None:
            layout = panel.figure.to_plotly_json()["layout"]
            assert layout.keys() <= {"template", "xaxis", "yaxis", "showlegend"}
            assert "font" not in str({key: value for key, value in layout.items() if key != "template"})


def test_pictures_can_be_left_out_and_their_names_stay(tmp_path: Path) -> None:
    """Without images no byte of them is in the page, and each is still named and told."""
    study = study_of(tmp_path, of_two())
    with_images, without = (html_of(panels(study, with_images=which)) for which in (True, False))
    assert with_images.count("<img ") == 12
    assert "<img" not in without
    assert "base64" not in without
    assert "".join(texts(without)).count("cats/0.jpg") == 2
    assert without.count("<figure") == 12


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    """What is code in a file's or a class's name runs nowhere, and breaks no line."""
    names = (f"{EVIL}\n{{}}", ("<b>\n\u202ecats", EVIL))
    result = {"per_class": {"val": {EVIL: {"n_images": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0}}}}
    study = study_of(tmp_path, of_two(2, *names), result)
    found = panels(study)
    html = html_of(found)
    assert "<img src=x" not in html
    assert "<b>" not in html
    assert f"{EVIL}\\n0" in "".join(texts(html))
    assert "\u202e" not in html
    assert html.count("<img ") == html.count('<img src="data:image/png;base64,')
    matrix = figure_of(found[0]).to_json()
    assert "<b>" not in matrix
    assert "<img" not in matrix


def test_an_image_without_a_name_has_its_number(tmp_path: Path) -> None:
    """Arrays have no files."""
    assert "validation image 0" in texts(html_of(panels(study_of(tmp_path, of_two(name="")))))


def test_of_many_classes_the_most_confused_are_shown(tmp_path: Path) -> None:
    """Of 100 a matrix of 20, a table of the worst 20, and the rest is counted."""
    n = 100
    labels = np.arange(n).repeat(3)
    said = labels.copy()
    said[3 * 42 : 3 * 42 + 2] = 77
    logits = np.eye(n, dtype=np.float32)[said] * 9
    names = tuple(f"c{i}" for i in range(n))
    shown, pixels = np.array([0]), np.zeros((1, 4, 4, 3), dtype=np.uint8)
    row = {"n_images": 3, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    scores = {name: {**row, "f1": 0.5 if name == "c42" else 1.0} for name in names}
    predictions = Predictions(logits, labels, names, shown, pixels, ("a.png",))
    found = {
        panel.title: panel
        for panel in panels(study_of(tmp_path, predictions, {"per_class": {"val": scores}}))
    }
    matrix = found["Confusion matrix"]
    (cells,) = figure_of(matrix).data
    assert len(cells.z) == MOST_CELLS
    assert {"c42", "c77"} <= set(figure_of(matrix).layout.yaxis.ticktext)
    assert "the 20 classes of 100 that are confused most, with 2 of the 2 mistakes" in matrix.html
    scores_shown = found["Scores of each class"]
    assert len(rows_of(scores_shown)) == MOST_CELLS
    assert rows_of(scores_shown)[0][0] == "c42"
    assert "80 more classes at least as good." in scores_shown.html


def test_several_labels_have_mistakes_and_pictures_but_no_matrix(tmp_path: Path) -> None:
    """Which labels were missed or made up, and which are doubtful, of each picture."""
    logits = np.array([[4, -4, 3], [5, -5, -0.1]], dtype=np.float32)
    labels = np.array([[1, 1, 0], [1, 0, 0]], dtype=np.uint8)
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    found = panels(
        study_of(
            tmp_path, Predictions(logits, labels, ("fur", "tail", "wings"), np.arange(2), pixels, ("a", "b"))
        )
    )
    assert [panel.title for panel in found] == [
        *("Most frequent mistakes", "How sure, how right", "Worst pictures", "Most doubtful pictures"),
    ]
    assert "true fur, tail, missed tail (0.02), made up wings (0.95)" in texts(found[2].html)[1]
    assert "true fur, doubtful about wings (0.48), fur (0.99)" in texts(found[3].html)[1]
    assert rows_of(found[0])[0] == ("tail", "no tail", "1 of 1 (100%)")


def test_an_app_of_somebody_else_has_no_panels(tmp_path: Path) -> None:
    """Its folders may hold a file of any name: none of it is read."""
    files = StudyFiles(tmp_path)
    of_two().write(files.best)
    trial = optuna.create_trial(value=0.9)
    assert panels(StudyRecord("s", files, ("minimize",), ("value",), [trial])) == []


@pytest.mark.parametrize(
    ("changes", "weights", "says"),
    [
        ({}, True, "<code>sweeper -m study=pets</code>"),
        ({}, False, "--config-name trial</code>"),
        ({"directions": ("maximize", "minimize")}, True, "best pets</code>"),
        (
            {"trials": [optuna.create_trial(state=TrialState.RUNNING)]},
            True,
            "is written when the search ends",
        ),
    ],
)
def test_where_nothing_was_kept_a_sentence_says_why(
    tmp_path: Path, changes: dict[str, Any], weights: bool, says: str
) -> None:
    """And what to type, where that helps; scores that the result has are shown all the same."""
    scores = {"cats": {"n_images": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0}}
    study = replace(study_of(tmp_path, None, {"per_class": {"val": scores}}), **changes)
    if weights:
        study.files.best.weights.write_bytes(b"")
    why, per_class = panels(study)
    assert says in why.html
    assert per_class.title == "Scores of each class"


def test_a_model_that_diverged_is_told(tmp_path: Path) -> None:
    """NaN says nothing of any image, and draws nothing."""
    predictions = of_two()
    predictions.logits[:] = np.nan
    (only,) = panels(study_of(tmp_path, predictions))
    assert "diverged" in only.html


# ------------------------------------------------------------------------------------------- end to end


def best_of(folder: Path, study: str) -> tuple[Predictions, dict[str, Any]]:
    files = StudyFiles(folder / "outputs" / study).best
    found = Predictions.read(files)
    assert found is not None
    return found, files.read_result()


@pytest.mark.slow
@pytest.mark.parametrize("how", [IN_PROCESS, ("hydra.sweeper.n_jobs=2",)])
def test_a_search_over_a_folder_of_pictures(tmp_path: Path, how: tuple[str, ...]) -> None:
    """With and without workers, also without a test part; the panels name the files."""
    write_classes(tmp_path / "pets", {"cats": 30, "dogs": 30}, size=(24, 20))
    asked = ("dataset=image_folder", "dataset.path=pets", "dataset.image_size=16", "dataset.margin=1.25")
    settings = ("dataset.test_fraction=0", "training.epochs=2", "hydra.sweeper.n_trials=2", "study=pets")
    sweeper(tmp_path, "-m", *asked, *settings, *how)
    found, result = best_of(tmp_path, "pets")
    assert (answers(found.logits) == found.labels).mean() == result["val_accuracy"]
    assert all((tmp_path / "pets" / name).is_file() for name in found.names)
    study = StudyFiles(tmp_path / "outputs" / "pets")
    shown = panels(StudyRecord("pets", study, ("maximize",), ("val_accuracy",), look(study)))
    assert found.names[0] in "".join(texts(html_of(shown)))
    assert sum(int(text) for row in figure_of(shown[0]).data[0].text for text in row if text) == len(
        found.labels
    )
    assert confusion(found.labels, found.logits).sum() == len(found.labels)


@pytest.mark.slow
def test_a_search_behind_frozen_stages(searched: Path, tmp_path: Path) -> None:
    """Where training read the features of frozen stages, the whole network says the same of each image."""
    weights = searched / "outputs" / "digits" / "best" / "weights.safetensors"
    asked = (f"model.weights={weights}", "freezing=head", "optimizer=adam", "training.epochs=2", "study=head")
    sweeper(tmp_path, "-m", *asked, "hydra.sweeper.n_trials=2", *IN_PROCESS)
    found, result = best_of(tmp_path, "head")
    assert (answers(found.logits) == found.labels).mean() == result["val_accuracy"]


@pytest.mark.slow
def test_a_search_over_a_table_of_several_labels(tmp_path: Path) -> None:
    """Names as the table writes them; which label is most often missed follows from the result, too."""
    write_classes(tmp_path / "pictures", {"a": 40})
    rows = [f"pictures/a/{n}.png,{n % 2},{n % 3 // 2}" for n in range(40)]
    (tmp_path / "pets.csv").write_text("\n".join(["path,fur,wings", *rows, ""]))
    asked = ("dataset=csv", "dataset.path=pets.csv", "dataset.image_size=12", "loss=bce_with_logits")
    settings = ("objective=val_loss", "training.epochs=2", "hydra.sweeper.n_trials=2", "study=labels")
    sweeper(tmp_path, "-m", *asked, *settings, *IN_PROCESS)
    found, result = best_of(tmp_path, "labels")
    assert found.classes == ("fur", "wings")
    assert losses(found.labels, found.logits).mean() == pytest.approx(result["val_loss"], rel=1e-5)
    assert all(name.startswith("pictures/a/") for name in found.names)
    for name, has, said in zip(found.classes, found.labels.T > 0, found.logits.T >= 0, strict=True):
        recall = result["per_class"]["val"][name]["recall"]
        missed = [
            mistake
            for mistake in most_confused(found.labels, found.logits, found.classes)
            if mistake.true == name
        ]
        assert sum(mistake.n for mistake in missed) == (has & ~said).sum()
        assert 1 - sum(mistake.n / mistake.of for mistake in missed) == pytest.approx(recall)


@pytest.mark.slow
def test_the_pictures_suit_a_phone_and_a_desktop(tmp_path: Path, browser: Browser) -> None:
    """In a browser no picture is broken, all have a text, and no name makes the page wider than that."""
    study = study_of(tmp_path, of_two(40, name="averylongnamewithoutaplacetobreakit" * 4))
    page = browser.new_page()
    page.set_content(f'<meta name="viewport" content="width=device-width">{html_of(panels(study))}')
    images = page.locator("img")
    assert images.count() == 16
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert len(set(images.evaluate_all("all => all.map(one => one.getBoundingClientRect().x)"))) >= 2
    assert images.evaluate_all("all => all.every(one => one.naturalWidth === 16 && one.alt)")
    page.close()
