"""A model in use: what it takes, what it says, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sweeper import run
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.inference.classifier import Classifier, Predictions, load
from sweeper.record.run_files import RunFiles
from sweeper.search.trial import trial
from sweeper.training import data
from sweeper.training.image_format import suffixes
from tests.conftest import RunWith
from tests.modelled import CNN, write_model
from tests.pictures import write_classes, write_picture
from tests.program import run as run_program
from tests.program import somebody
from tests.studied import on_disk
from tests.studied import trial as made_trial

OWN = """
from torch import nn

def make(n_classes, in_channels):
    convolution = nn.Conv2d(in_channels, 4, 3)
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes))
"""


@pytest.fixture
def model(tmp_path: Path) -> Classifier:
    """Of three classes, for RGB."""
    write_model(tmp_path / "model")
    return load(tmp_path / "model")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture (height, width, 3) that is not square."""
    return np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)


def _png(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


# ------------------------------------------------------------------------------------------- what it says


@pytest.mark.slow
def test_it_says_what_the_training_said(run_with: RunWith, tmp_path: Path) -> None:
    """The probabilities of a run's validation files are those of its logits, divided by the temperature."""
    root = write_classes(tmp_path / "data", {"a": 12, "b": 12, "c": 12}, size=(40, 30))
    settings = ["dataset=image_folder", f"dataset.path={root}", "dataset.image_size=16", "device=cpu"]
    settings += ["dataset.margin=1.25", "training.epochs=1", "training.precision=float32"]
    settings += ["dataset.background='#ff0000'", "dataset.normalization=data"]
    config = run_with(*settings)
    files = RunFiles(tmp_path / "run")
    run.train(config, files.folder, trial())
    loaded = data.load(config.dataset, torch.device("cpu"))
    assert loaded.val_names is not None
    model = load(files.folder)
    said = model.predict([root / name for name in loaded.val_names])
    logits = torch.from_numpy(np.load(files.predictions)["logits"])
    torch.testing.assert_close(
        torch.from_numpy(said.probabilities), (logits / model.card.temperature).softmax(1)
    )
    seen = [model.transform(root / name) for name in loaded.val_names]
    start = (loaded.val_x.shape[-1] - 16) // 2
    assert torch.equal(torch.stack(seen), loaded.val_x[:][..., start : start + 16, start : start + 16])


def test_a_prediction_names_the_likeliest(model: Classifier, pixels: Any) -> None:
    """Class, probability, and all classes in order; a part of the predictions is of the same kind."""
    said = model.predict([pixels, pixels[::-1]])
    assert said.classes == model.classes == ("cat", "dog", "fish")
    assert said.probabilities.dtype == np.float32
    assert np.allclose(said.probabilities.sum(1), 1)
    first, row = said[0], said.probabilities[0]
    assert first.classes == (said.classes[row.argmax()],)
    assert first.probability == pytest.approx(row.max())
    assert list(first.probabilities.values()) == sorted(map(float, row), reverse=True)
    assert first.top(2) == tuple(first.probabilities.items())[:2]
    assert said.names == ("0", "1")
    part = said[1:]
    assert isinstance(part, Predictions)
    assert (len(part), part[0], list(said)[-1]) == (1, said[1], said[-1])
    with pytest.raises(IndexError, match="out of range"):
        said[2]


def test_predictions_can_be_sent_elsewhere(model: Classifier, pixels: Any) -> None:
    """To another process, and as JSON."""
    said = model.predict([pixels, b"x"], skip_unreadable=True)
    again = pickle.loads(pickle.dumps(said))
    assert (list(again), again.unreadable) == (list(said), {"1": "it is no picture"})
    assert json.loads(json.dumps(asdict(said[0])))["probabilities"] == said[0].probabilities


def test_several_labels_are_those_that_reach_their_thresholds(tmp_path: Path, pixels: Any) -> None:
    """Each against its own; there may be none."""
    write_model(tmp_path, labels="several", thresholds=(0.5, 0.5, 0.5))
    (row,) = load(tmp_path).predict(pixels).probabilities
    low, middle, high = np.argsort(row)
    thresholds = np.zeros(3)
    thresholds[[low, middle, high]] = row[low], min(1, row[middle] + 0.01), row[high]
    write_model(tmp_path, labels="several", thresholds=tuple(map(float, thresholds)))
    model = load(tmp_path)
    (said,) = model.predict(pixels)
    assert said.classes == (model.classes[high], model.classes[low])
    assert said.probability == pytest.approx(row[high])
    write_model(tmp_path, labels="several", thresholds=(1.0, 1.0, 1.0))
    assert load(tmp_path).predict(pixels)[0].classes == ()


def test_the_size_of_the_batches_changes_nothing(model: Classifier, pixels: Any) -> None:
    """Neither one that leaves a rest nor one larger than all."""
    pictures = [np.roll(pixels, i, axis=0) for i in range(7)]
    said = model.predict(pictures).probabilities
    for size in (1, 3, 7, 100):
        np.testing.assert_allclose(model.predict(pictures, batch_size=size).probabilities, said, rtol=1e-5)
    with pytest.raises(BadInput, match="batch_size=0: is no number of pictures"):
        model.predict(pictures, batch_size=0)
    size_of_numpy: Any = np.int64(2)
    assert len(model.predict(pictures, batch_size=size_of_numpy)) == len(said)


def test_a_module_that_was_trained_on_predicts_as_one_that_is_done(model: Classifier, pixels: Any) -> None:
    """Dropout is off, whatever mode the module was left in."""
    before = model.predict(pixels).probabilities
    model.module.train()
    assert np.array_equal(model.predict(pixels).probabilities, before)


# --------------------------------------------------------------------------------------- what it is given


def _kinds(pixels: Any, folder: Path) -> dict[str, Any]:
    """The same picture in all the ways that people have it."""
    file = folder / "x.png"
    file.write_bytes(_png(pixels))
    first = torch.from_numpy(pixels).permute(2, 0, 1)
    opened, loaded = Image.open(file), Image.open(file)
    loaded.load()
    return {
        "a path as text": str(file),
        "a path": file,
        "a folder": folder,
        "an array": pixels,
        "floats": pixels / 255,
        "32-bit floats": (pixels / 255).astype(np.float32),
        "an array of several": pixels[None],
        "a tensor": first,
        "a tensor of floats": first / 255,
        "a tensor of several": first[None],
        "an opened image": opened,
        "a loaded image": loaded,
        "an image": Image.fromarray(pixels),
        "bytes": file.read_bytes(),
        "a file in memory": io.BytesIO(file.read_bytes()),
        "with transparency": np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        "a tuple in a list": [pixels],
        "an array of paths": np.array([str(file)]),
        "a generator": (path for path in [file]),
    }


def test_the_same_picture_in_any_form_is_said_to_be_the_same(
    model: Classifier, pixels: Any, tmp_path: Path
) -> None:
    """Paths, folders, arrays, tensors, PIL images, bytes and files, and iterables of these."""
    (tmp_path / "one").mkdir()
    kinds = _kinds(pixels, tmp_path / "one")
    expected = model.predict(pixels).probabilities
    for kind, picture in kinds.items():
        if kind not in ("a generator", "a file in memory"):  # which are used up
            assert torch.equal(model.transform(picture), model.transform(pixels)), kind
        said = model.predict(picture)
        assert np.array_equal(said.probabilities, expected), kind
    with (tmp_path / "one" / "x.png").open("rb") as file:
        assert np.array_equal(model.predict(file).probabilities, expected)
    kinds["an opened image"].load()  # it is left as it was


def test_gray_pictures_are_seen_in_gray(tmp_path: Path) -> None:
    """By a model of gray ones: files, (n, height, width) and (n, 1, height, width); colours as Pillow's."""
    write_model(tmp_path / "m", in_channels=1, pixel_channels=1, mean=(0.5,), std=(0.2,), image_size=8)
    model = load(tmp_path / "m")
    gray = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    expected = model.predict(gray)
    assert len(expected) == 5
    assert torch.equal(model.transform(gray[0]), torch.from_numpy(gray[:1]))
    for form in (gray[..., None], torch.from_numpy(gray)[:, None], torch.from_numpy(gray), gray / 255):
        assert np.array_equal(model.predict(form).probabilities, expected.probabilities)
    assert np.array_equal(model.predict([_png(g) for g in gray]).probabilities, expected.probabilities)
    colour = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    assert np.array_equal(model.transform(colour)[0].numpy(), np.asarray(colour.convert("L")))


def test_gray_pictures_are_seen_by_a_model_of_colours(model: Classifier) -> None:
    """Their channel three times; masks are black and white, and 16 bits are read as those of a file."""
    gray = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    seen = torch.from_numpy(np.broadcast_to(gray, (3, 12, 12)).copy())
    for form in (gray, gray[..., None], torch.from_numpy(gray), gray.astype(np.uint16) * 257):
        assert torch.equal(model.transform(form), seen)
    assert torch.equal(model.transform(gray > 99), 255 * (seen > 99))


def test_files_are_shown_as_in_training(tmp_path: Path) -> None:
    """Upright, by the EXIF data, and transparent pixels over the background of the training."""
    write_model(tmp_path / "m", background=(255, 0, 0))
    model = load(tmp_path / "m")
    clear = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
    assert model.transform(clear).float().mean((1, 2)).tolist() == [255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, image = io.BytesIO(), Image.linear_gradient("L").resize((12, 12)).convert("RGB")
    image.save(turned, "png", exif=exif)
    assert torch.equal(model.transform(turned.getvalue()), model.transform(image.rotate(-90)))
    assert torch.equal(model.transform(Image.open(turned)), model.transform(image.rotate(-90)))


def test_a_folder_is_all_that_is_below_it(model: Classifier, tmp_path: Path, monkeypatch: Any) -> None:
    """Sorted, named as from where it was typed, without hidden files and folders, nor what is no picture."""
    for name in (
        "b/2.png",
        "b/10.png",
        "a.png",
        ".hidden.png",
        ".git/x.png",
        "b/c/deep.PNG",
        "__MACOSX/x.png",
    ):
        write_picture(tmp_path / "pics" / name)
    (tmp_path / "pics" / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    expected = ("pics/a.png", "pics/b/10.png", "pics/b/2.png", "pics/b/c/deep.PNG")
    assert model.predict("pics").names == expected
    assert model.predict([Path("pics"), "pics/a.png"]).names == (*expected, "pics/a.png")
    monkeypatch.chdir(tmp_path / "pics")
    assert model.predict(".").names == tuple(name.removeprefix("pics/") for name in expected)


def test_no_pictures_are_no_error(model: Classifier) -> None:
    """A list that is empty has no predictions; they have columns all the same."""
    assert model.predict([]).probabilities.shape == (0, 3)


def test_any_number_is_read_as_it_is_needed(model: Classifier, pixels: Any) -> None:
    """Of a generator, only few pictures are held at a time."""
    held, most = 0, 0

    class Held(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            nonlocal held
            held -= self.base is not None

    def pictures() -> Iterator[Any]:
        nonlocal held, most
        for _ in range(300):
            held, most = held + 1, max(most, held + 1)
            yield pixels.copy().view(Held)

    seen = list[int]()
    assert len(model.predict(pictures(), batch_size=10, progress=seen.append)) == 300
    assert most <= 3 * min(16, os.cpu_count() or 1) + 2
    assert seen == list(range(10, 301, 10))


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "channels first": (lambda x: x.transpose(2, 0, 1), r"ndarray \(3, 15, 20\).*write .transpose\(1, 2, 0\)"),
    "several, channels first": (lambda x: x.transpose(2, 0, 1)[None], r"write .transpose\(0, 2, 3, 1\)"),
    "channels last": (lambda x: torch.from_numpy(x), r"write .permute\(2, 0, 1\)"),
    "several, channels last": (lambda x: torch.from_numpy(x)[None], r"write .permute\(0, 3, 1, 2\)"),
    "several in gray": (lambda x: np.stack([x[..., 0]] * 9), r"write pictures\[..., None\]"),
    "a row": (lambda x: x[0, 0], r"give arrays of"),
    "whole numbers": (lambda x: x.astype(int), r"array of int64; write .astype\('uint8'\)"),
    "normalised": (lambda x: x / 127.5 - 1, r"values of -1 … 1; give values of 0 … 1 before"),
    "up to 255": (lambda x: x * 1.0, r"values of 0 … 255; give values of 0 … 1"),
    "no number": (lambda x: x * np.nan, r"values of nan"),
    "of a dataset": (lambda x: [(x, 3)], r"give the pictures alone"),
    "a batch of a loader": (lambda x: [torch.rand(2, 3, 9, 9), torch.zeros(2)], r"give the pictures alone"),
    "a table": (
        lambda x: pd.DataFrame({"path": ["0.png"]}),
        r'is a table; .*column of paths: table\["path"\]',
    ),
    "a number": (lambda x: 3, r"pictures=int: is no picture"),
    "a mapping": (lambda x: {"x": x}, r"pictures=dict: is no picture"),
    "a file of text": (lambda x: io.StringIO("x"), r"gives str, no bytes; open it with mode 'rb'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_in_one_line(model: Classifier, pixels: Any, name: str) -> None:
    """It says what to write instead, and is never guessed."""
    change, told = BAD[name]
    with pytest.raises(BadInput, match=told):
        model.predict(change(pixels), skip_unreadable=True)


# ------------------------------------------------------------------------------------- what cannot be read


def test_pictures_that_cannot_be_read_are_named_all(model: Classifier, tmp_path: Path) -> None:
    """Each with its reason; or they are left out, and the others predicted in order."""
    write_picture(good := tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(good.read_bytes()[:-25])
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d").mkdir()
    (tmp_path / "link.png").symlink_to("nothing")
    write_picture(last := tmp_path / "z.png")
    given: list[Any] = [good, tmp_path / "b.png", tmp_path / "c.png", tmp_path / "d", tmp_path / "no.png"]
    given += [tmp_path / "link.png", b"no picture", "nul\0", last]
    with pytest.raises(BadInput, match=r"pictures=7 pictures: cannot be read: .*b.png \(it is cut short\)"):
        model.predict(given)
    with pytest.raises(BadInput, match=r"c.png: it is empty: 0 bytes; leave it out, or write skip_unreadab"):
        model.predict([tmp_path / "c.png"])
    for alone in (str(tmp_path / "c.png"), str(tmp_path / "*.png"), "https://example.org/a.png"):
        with pytest.raises(BadInput, match=r"; write the path of a picture, or of a folder of them$"):
            model.predict(alone)
    with pytest.raises(BadInput, match="a folder without pictures"):
        model.predict(tmp_path / "d")
    said = model.predict(given, skip_unreadable=True, batch_size=1)
    assert said.names == (str(good), str(last))
    reasons = ["it is cut short", "it is empty: 0 bytes", "it is a folder without pictures"]
    reasons += ["it is not there", "a link to nothing", "it is no picture", "it is not there"]
    assert list(said.unreadable.values()) == reasons
    assert list(said.unreadable)[-2:] == ["6", "nul\0"]


@pytest.mark.skipif(".heic" in suffixes(), reason="pillow-heif is installed")
def test_pictures_in_a_format_that_cannot_be_read_are_named(model: Classifier, tmp_path: Path) -> None:
    """With what helps, also where only their folder was given; files that are no pictures are none of it."""
    (folder := tmp_path / "phone").mkdir()
    write_picture(folder / "0.png")
    shutil.copy(folder / "0.png", folder / "named wrong.heic")
    for name in ("1.heic", "2.CR2", "notes.txt"):
        (folder / name).write_bytes(b"of another kind")
    reasons = {
        "1.heic": "Pillow cannot read it; pip install pillow-heif",
        "2.CR2": "raw of a camera; save it as .tif or .jpg",
    }
    said = model.predict(folder, skip_unreadable=True)
    assert said.names == (str(folder / "0.png"), str(folder / "named wrong.heic"))
    assert said.unreadable == {str(folder / name): why for name, why in reasons.items()}
    for name, why in reasons.items():
        with pytest.raises(BadInput, match=why):
            model.predict(folder / name)


def test_a_picture_larger_than_the_training_allowed_is_not_read(tmp_path: Path) -> None:
    """A file of few bytes may hold any number of pixels; so may an image in memory."""
    write_model(tmp_path / "m", max_megapixels=0.001)
    write_picture(tmp_path / "x.png", size=(100, 100))
    model = load(tmp_path / "m")
    for picture in (tmp_path / "x.png", Image.new("RGB", (100, 100))):
        with pytest.raises(BadInput, match=r"0.01 megapixels, more than dataset.max_megapixels=0.001"):
            model.transform(picture)


def test_an_image_whose_file_is_closed_says_so(model: Classifier, tmp_path: Path) -> None:
    """Pillow reads a file only when it is needed."""
    write_picture(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        pass
    with pytest.raises(BadInput, match=r"x.png: its file is closed"):
        model.predict(image)


# ---------------------------------------------------------------------------------------------- loading


def test_a_model_is_found_by_study_folder_or_file(tmp_path: Path, pixels: Any, monkeypatch: Any) -> None:
    """The name or folder of a study, of a run, of a copy without its study, one of its two files, and one
    file of all.
    """
    monkeypatch.chdir(tmp_path)
    files = on_disk(tmp_path, made_trial(0.5), name="mine")
    card = write_model(files.best.folder)
    copy = shutil.copytree(files.best.folder, tmp_path / "copy")
    save_file(load_file(files.best.weights), tmp_path / "m.safetensors", {"model.json": card.to_json()})
    (tmp_path / "runs").mkdir()
    expected = load("mine").predict(pixels).probabilities
    for path in ("outputs/mine", files.best.folder, copy, copy / "model.json", "copy/weights.safetensors"):
        assert np.array_equal(load(path).predict(pixels).probabilities, expected), path
    assert np.array_equal(load("m.safetensors").predict(pixels).probabilities, expected)


def test_where_there_is_no_model_it_says_what_to_write(tmp_path: Path, monkeypatch: Any) -> None:
    """For a study without a finished trial or with several objectives, weights that are gone, other files."""
    monkeypatch.chdir(tmp_path)
    on_disk(tmp_path, name="young")
    on_disk(tmp_path, made_trial(0.5), name="foreign")
    lost = on_disk(tmp_path, made_trial(0.5), name="without")
    write_model(lost.run(0).folder)
    on_disk(tmp_path, made_trial((1.0, 2.0)), name="front", directions=("maximize", "maximize"))
    write_model(tmp_path / "lost")
    RunFiles(tmp_path / "lost").weights.unlink()
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "plain")
    save_file(load_file(RunFiles(tmp_path / "plain").weights), tmp_path / "alone.safetensors")
    for name in ("model.onnx", "model.pt2", "model.pkl"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "torn.safetensors").write_bytes(b"x" * 99)
    told = {
        "young": "no trial of this study is done",
        "foreign": "has no model of sweeper's own: another app has trained it",
        "without": "has lost its best/; write another folder, as outputs/without/0",
        "front": "several objectives.*outputs/front/0",
        "yong": "^model=yong: .*did you mean young",
        "lost": r"has lost its weights \(weights.safetensors\)",
        "empty": "has no model.json",
        "alone.safetensors": "holds weights alone, and no model.json",
        "model.onnx": "is for onnxruntime, .*; --format safetensors exports one for sweeper",
        "model.pt2": "is for torch.export.load, .*; --format safetensors exports one for sweeper",
        "model.pkl": "is no file that holds a model",
    }
    for name, match in told.items():
        with pytest.raises(BadInput, match=match):
            load(name)
    nothing: Any
    for nothing in (None, 3, b"m"):
        with pytest.raises(BadInput, match="is no name of a study, and no path"):
            load(nothing)
    with pytest.raises(Fault, match=r"torn.safetensors: cannot be read as safetensors"):
        load("torn.safetensors")


def test_what_is_closed_says_so(model: Classifier, tmp_path: Path) -> None:
    """Pictures and models below a folder that may not be looked into."""
    write_picture(tmp_path / "closed" / "x.png")
    write_model(tmp_path / "closed" / "m")
    (tmp_path / "closed").chmod(0)
    with somebody():
        with pytest.raises(BadInput, match=r"x.png: no permission to read it"):
            model.predict(tmp_path / "closed" / "x.png")
        with pytest.raises(BadInput, match=r"closed: no permission to read it"):
            model.predict(tmp_path / "closed")
        with pytest.raises(BadInput, match=r"model=.*m: no permission to read it; give yourself"):
            load(tmp_path / "closed" / "m")
    (tmp_path / "closed").chmod(0o700)


def test_a_network_of_ones_own_is_imported_only_where_it_is_trusted(
    tmp_path: Path, pixels: Any, monkeypatch: Any
) -> None:
    """Its code does not run otherwise; what torch has needs no trust."""
    (tmp_path / "own_net.py").write_text(f"open('was_run', 'w').close()\n{OWN}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m", network=replace(CNN, source="custom", target="own_net.make"))
    (tmp_path / "was_run").unlink()
    monkeypatch.delitem(sys.modules, "own_net")
    with pytest.raises(BadInput, match=r"own_net.make: .*; read that code, then add --trust .*trust=True"):
        load("m")
    assert not (tmp_path / "was_run").exists()
    assert len(load("m", trust=True).predict(pixels)) == 1
    assert (tmp_path / "was_run").exists()


@pytest.mark.slow
def test_networks_of_libraries_need_no_trust(tmp_path: Path, pixels: Any) -> None:
    """Also where a custom one is named by its function in torchvision."""
    by_name = {"target": "torchvision.models.squeezenet1_1", "arguments": {"num_classes": 3}}
    known: list[dict[str, Any]] = [{"source": "custom", **by_name}]
    known += [{"source": "torchvision", "name": "resnet18"}, {"source": "timm", "name": "resnet10t"}]
    for i, values in enumerate(known):
        write_model(tmp_path / str(i), network=replace(CNN, **values), image_size=32)
        assert len(load(tmp_path / str(i)).predict(pixels)) == 1


def test_weights_that_do_not_fit_the_network_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    """As where code of one's own has changed since: the tensor is named."""
    (tmp_path / "changing.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m", network=replace(CNN, source="custom", target="changing.make"))
    monkeypatch.delitem(sys.modules, "changing")
    (tmp_path / "changing.py").write_text(OWN.replace("4", "5 "))
    with pytest.raises(
        Fault, match=r"0.weight is \[4, 3, 3, 3\], in the network \[5, 3, 3, 3\] \(and 2 more\)"
    ):
        load("m", trust=True)


@pytest.mark.parametrize(
    "claims",
    [
        {"filters": [65_536] * 8},
        {"hidden_units": [65_536] * 64},
        {
            "source": "custom",
            "target": "torch.nn.Conv3d",
            "arguments": {"in_channels": 1000, "out_channels": 1000, "kernel_size": 1000},
        },
    ],
)
def test_a_card_that_claims_a_huge_network_is_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    """Before any of it is allocated: the weights beside it are smaller."""
    write_model(tmp_path)
    card = json.loads(RunFiles(tmp_path).card.read_text())
    card["network"] |= claims
    RunFiles(tmp_path).card.write_text(json.dumps(card | {"image_size": 4096}))
    with pytest.raises(Fault, match=r"does not fit its network: "):
        load(tmp_path)


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("torchvision.models.resnet18", {"weights": "DEFAULT"}),
        ("torchvision.models.resnet18", {"pretrained": True}),
        ("torchvision.models.resnet50", {"width_per_group": 10**6}),
        ("torch.nn.Transformer", {"d_model": 8, "nhead": 1, "num_encoder_layers": 10**8}),
        ("torch.nn.AvgPool2d", {"kernel_size": [1, 10**12]}),
    ],
)
def test_a_card_asks_a_library_neither_for_downloads_nor_for_more_than_it_has(
    tmp_path: Path, target: str, arguments: dict[str, Any]
) -> None:
    """Whoever wrote it: without trust, nothing is called with that."""
    write_model(tmp_path)
    card = json.loads(RunFiles(tmp_path).card.read_text())
    card["network"] |= {"source": "custom", "target": target, "arguments": arguments}
    RunFiles(tmp_path).card.write_text(json.dumps(card))
    with pytest.raises(BadInput, match=r"^model.arguments=.*: the model asks for other weights, or for more"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_pipe_or_a_device_is_no_model(tmp_path: Path, name: str) -> None:
    """It would never end."""
    write_model(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadInput, match=rf"^model=.*{name}: is a pipe or a device, and no file"):
        load(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(BadInput, match=rf"^model=.*{name}: is a pipe or a device, and no file"):
        load(tmp_path)


@pytest.mark.parametrize("path", [None, 5, b"m", ["m"], "a" * 5000])
def test_what_is_no_path_of_a_model_is_bad_input(path: Any) -> None:
    """Of any type or length."""
    with pytest.raises(BadInput, match=r"^model="):
        load(path)


def test_pictures_without_values_or_names_are_bad_input(model: Classifier) -> None:
    """Tensors that are sparse or on the meta device, and paths that no file can have."""
    for tensor in (torch.zeros(3, 8, 8, device="meta"), torch.zeros(3, 8, 8).to_sparse()):
        with pytest.raises(BadInput, match="is no dense tensor with values"):
            model.predict(tensor)
    with pytest.raises(BadInput, match="it is not there"):
        model.predict("\ud800")


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    """A program's own seeds give what they gave."""
    write_model(tmp_path)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load(tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_a_device_that_is_not_there_is_refused(model: Classifier, tmp_path: Path) -> None:
    """When it is loaded, and when it is moved."""
    with pytest.raises(BadInput, match="device=cuda:99: this machine has"):
        load(tmp_path / "model", device="cuda:99")
    with pytest.raises(BadInput, match="device=abacus: there is no such device"):
        model.to("abacus")
    assert model.to("cpu") is model
    assert model.device == torch.device("cpu")


def test_other_defaults_of_torch_change_nothing(model: Classifier, tmp_path: Path) -> None:
    """A program may have set float64 or another device: the model is as it was trained, and they stay set."""
    picture = np.full((14, 12, 3), 90, np.uint8)
    expected = model.predict(picture).probabilities
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loaded = load(tmp_path / "model")
            said = loaded.predict(picture).probabilities
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in loaded.module.parameters()} == {torch.float32}
    np.testing.assert_array_equal(said, expected)


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hydra", "omegaconf", "optuna", "scipy", "sklearn", "torchvision"):
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
from sweeper.inference.classifier import load
print(len(load(sys.argv[1]).predict(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_model_needs_nothing_that_only_a_search_or_a_training_needs(tmp_path: Path) -> None:
    """It is loaded and predicts in a process where Hydra, Optuna and SciPy, which takes a second, cannot be
    imported, nor a library of networks that is not its own."""
    write_model(tmp_path / "m")
    write_classes(tmp_path / "pics", {"a": 2})
    done = run_program(tmp_path, "-c", WITHOUT, "m", "pics", limit_s=120)
    assert done.stdout == "2\n", done.stderr
