"""What was found is told in a few lines: before a run, before a search, and by describe."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from sweeper.schema import Dataset
from sweeper.training import images
from sweeper.training.dataset import Images
from sweeper.training.summary import left_out, lines, summarise
from tests import program
from tests.conftest import Said
from tests.pictures import write_classes


def told(dataset: Dataset) -> list[str]:
    found = images.read(dataset)
    return lines(summarise(found, images.split(found, dataset), dataset))


def pets(root: Path) -> Path:
    """Parts of two classes, one of which test lacks, and some files that are no pictures."""
    write_classes(root / "pets" / "Training", {"cat": 6, "dog": 12}, seed=1)
    write_classes(root / "pets" / "valid", {"cat": 2, "dog": 3}, seed=2)
    write_classes(root / "pets" / "Testing", {"dog": 2}, seed=3)
    for name in ("a.txt", "b.txt", ".c"):
        (root / "pets" / "valid" / name).write_text("")
    return root / "pets"


LINES = [
    "Data: image_folder pets, 25 images of 2 classes: 18 train, 5 val, 2 test",
    "       train  val  test",
    "  cat      6    2     0",
    "  dog     12    3     2",
    "3 files left out: 2 .txt (no pictures), 1 hidden",
]


def test_part_by_class_by_images(tmp_path: Path) -> None:
    """A small table, and what was left out."""
    assert told(Dataset(name="image_folder", path=str(pets(tmp_path)), image_size=8))[:5] == LINES


def test_arrays_are_told_too() -> None:
    """Ten digits with a row each."""
    train, val, test = map(len, images.split(images.read(Dataset()), Dataset()))
    head, _, *rows = told(Dataset())[:12]
    assert head == f"Data: digits, 1,797 images of 10 classes: {train:,} train, {val} val, {test} test"
    counts = np.array([[int(n) for n in row.split()] for row in rows])
    assert counts[:, 0].tolist() == list(range(10))
    assert counts[:, 1:].sum(0).tolist() == [train, val, test]


def made(n_classes: int, *, multi_label: bool = False, **more: object) -> list[str]:
    """The lines for classes of long names, of which one has fewer images."""
    n = 4 * n_classes - 1
    labels = np.sort(np.arange(n) % n_classes)
    classes = tuple(f"the {i}th of the very many species of animals\n" for i in range(n_classes))
    given = np.eye(n_classes, dtype=np.uint8)[labels] if multi_label else labels
    found = Images(np.zeros((n, 4, 4, 1), np.uint8), given, classes, **more)  # type: ignore[arg-type]
    parts = (np.arange(n), np.arange(0), np.arange(0))
    return lines(summarise(found, parts, Dataset(path="/a/very/long/path/" + "to/my/pictures" * 9)))


@pytest.mark.parametrize("n_classes", [2, 10, 11, 1000, 20000])
@pytest.mark.parametrize("multi_label", [False, True])
def test_many_classes_and_long_names_stay_short(n_classes: int, multi_label: bool) -> None:
    """At most thirteen lines that a narrow terminal holds."""
    if multi_label and n_classes > 1000:
        pytest.skip("would be a matrix of gigabytes")
    shown = made(n_classes, multi_label=multi_label)
    assert len(shown) <= 13
    assert max(map(len, shown)) <= 80
    if 10 < n_classes < 20000:
        assert re.fullmatch(r"  train: 3 … 4 of each; fewest of the .*", shown[1])


def test_columns_stand_below_each_other_whatever_the_script() -> None:
    """Wide letters take two columns of a terminal."""
    from rich.cells import cell_len

    classes = ("短い" * 30, "é", "a")
    found = Images(np.zeros((6, 4, 4, 1), np.uint8), np.arange(6) % 3, classes)
    _, *rows = lines(summarise(found, (np.arange(6), np.arange(0), np.arange(0)), Dataset()))[:5]
    assert len({cell_len(row) for row in rows}) == 1
    assert cell_len(rows[0]) < 45


def test_remarks_are_told(tmp_path: Path) -> None:
    """Those of the reader and those of the split, a line each."""
    shown = told(Dataset(name="image_folder", path=str(pets(tmp_path) / "Training"), image_size=8))
    assert shown[-1].startswith("Note: Testing, valid beside Training are not read; dataset.path=")
    assert "Note: 1 image is a copy of another" in made(2, pictures=np.array([0, 1, 1, 3, 4, 5, 6]))


def test_the_line_of_the_files_left_out_counts_all() -> None:
    """Also where there are more reasons than a line should hold."""
    reasons = {f".x{i} (no pictures)": i + 1 for i in range(30)}
    found = Images(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), ("a", "b"), left_out=reasons)
    line = left_out(summarise(found, (np.arange(2), np.arange(0), np.arange(0)), Dataset()))
    assert line.startswith("465 files left out: 30 .x29 (no pictures), 29 .x28")
    assert sum(int(n) for n in re.findall(r"(?:: |, )(\d+) ", line)) == 465
    assert line.endswith(" others")


def test_a_run_says_it_first_and_keeps_it_in_its_log(said: Said, tmp_path: Path) -> None:
    """Once, in the words of describe."""
    pets(tmp_path)
    code, printed = said(
        "dataset=image_folder", "dataset.path=pets", "dataset.image_size=8", "training.epochs=1", "study=a"
    )
    assert code == 0
    assert printed.splitlines()[:5] == LINES
    assert printed.count("left out") == 1
    log = (tmp_path / "outputs" / "a" / "sweeper.log").read_text()
    assert "\n".join(LINES) in log
    code, printed = said("describe", "dataset=image_folder", "dataset.path=pets", "dataset.image_size=8")
    assert code == 0
    for line in LINES[1:]:
        assert line.strip() in printed


@pytest.mark.slow
def test_any_name_is_told_and_logged_in_any_locale(tmp_path: Path) -> None:
    """Old archives hold names that are no UTF-8, and old machines know ASCII alone."""
    root = write_classes(tmp_path / "pets", {"cat": 6, "d\u00f6g": 6, os.fsdecode(b"caf\xe9"): 6})
    (root / "cat" / os.fsdecode(b"\xff.jpg")).write_bytes(b"no picture")
    command = ("dataset=image_folder", "dataset.path=pets", "training.epochs=1", "study=a")
    done = program.run(
        *(tmp_path, "-m", "sweeper", *command, "dataset.skip_unreadable=true"),
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    log = (tmp_path / "outputs" / "a" / "sweeper.log").read_text()
    for line in (r"  caf\xe9      4    1     1", "1 file left out: 1 that cannot be read"):
        assert line in done.stdout
        assert line in log


@pytest.mark.slow
def test_a_search_says_it_once(tmp_path: Path) -> None:
    """For each dataset in it, before it begins; no worker does."""
    pets(tmp_path)
    command = ("dataset=image_folder", "dataset.path=pets", "dataset.image_size=8,12", "training.epochs=1")
    done = program.run(
        *(tmp_path, "-m", "sweeper", "-m", *command, "optimizer=adam,sgd", "hydra.sweeper.n_trials=3")
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[:5] == LINES
    assert done.stdout.count("left out") == 1


@pytest.mark.slow
def test_several_splits_of_one_dataset_show_each_class_once(tmp_path: Path) -> None:
    """A search over folds tells how many images each has, and lists the classes of the first alone."""
    folds = ("dataset.n_folds=3", "dataset.fold=0,1,2")
    printed = program.sweeper(
        tmp_path, "-m", *folds, "experiment=quick", "hydra.sweeper.n_trials=1", "study=s"
    )
    assert (
        2 <= len(re.findall(r"^Data: digits, 1,797 images", printed, re.M)) <= 3
    )  # equal counts are told once
    assert len(re.findall(r"^ +train +val +test$", printed, re.M)) == 1
