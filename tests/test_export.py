"""``export``: a model as one file that says the same without sweeper."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from sweeper.card import Network
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.inference.classifier import Classifier, Predictions, load
from sweeper.inference.export import FORMATS, export
from sweeper.record.run_files import CARD, RunFiles
from tests.conftest import Cli
from tests.modelled import write_model
from tests.models import CNN, made
from tests.pictures import write_classes
from tests.program import run, somebody, sweeper

EXAMPLES = Path(__file__).parents[1] / "examples"
ORIENTATION = 0x0112

WITHOUT_SWEEPER = "import sys; sys.modules['sweeper'] = None\n"
"""Begins the code of a process that knows nothing of ours."""


class Own(nn.Module):
    """A network of one's own: attention over patches, then a head."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, stride=8)
        self.mix = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
        self.head = nn.Linear(24, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.mix(self.patches(images).flatten(2).mT)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class Fickle(Own):
    """Its layers depend on what is in the pictures."""

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(int(images.abs().sum().item()) % 3):
            images = images * 2
        return super().forward(images)


class TwoFaced(Own):
    """It computes something else while it is exported."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 2 if torch.compiler.is_exporting() else images)


NETWORKS = {
    "cnn": CNN,
    "resnet18": Network(source="torchvision", name="resnet18", filters=(8,)),
    "timm": Network(source="timm", name="test_efficientnet", filters=(8,)),
    "custom": Network(source="custom", name="custom", target="tests.test_export.Own"),
}


def different_pictures(n: int) -> list[NDArray[np.uint8]]:
    """Of many sizes."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(8, 90, (n, 2))
    blots = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in sizes]
    resized = [Image.fromarray(b).resize((int(w), int(h))) for b, (h, w) in zip(blots, sizes, strict=True)]
    return [np.array(image) for image in resized]


Runs = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def by_onnx(file: Path) -> Runs:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda pictures: np.asarray(session.run(["probabilities"], {"pictures": pictures})[0])


def by_pt2(file: Path) -> Runs:
    program = torch.export.load(file).module()
    return lambda pictures: np.asarray(program(torch.from_numpy(pictures)).numpy())


RUNNERS: dict[str, Callable[[Path], Runs]] = {
    "onnx": by_onnx,
    "pt2": by_pt2,
}


# ------------------------------------------------------------------------------------------ says the same


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_all_formats_say_what_predict_says(name: str, tmp_path: Path) -> None:
    """To 1e-4 on 100 pictures of many sizes, for one label and several; names are beside the program."""
    labels = "several" if name == "cnn" else "one"
    model = made(NETWORKS[name], image_size=64 if name == "timm" else 32, margin=1.143, labels=labels)
    pictures = different_pictures(100)
    expected = model.predict(pictures).probabilities
    for format, runner in RUNNERS.items():
        written = export(model, format, tmp_path / f"m.{format}")
        assert written.difference < 1e-4
        assert written.n_bytes == (tmp_path / f"m.{format}").stat().st_size
        runs = runner(written.file)
        said = [runs(picture.transpose(2, 0, 1)[None].copy())[0] for picture in pictures]
        assert np.allclose(np.stack(said), expected, rtol=0, atol=1e-4)
    check_texts(tmp_path, model)
    if name != "custom":
        export(model, "safetensors", tmp_path / "m.safetensors")
        assert np.array_equal(load(tmp_path / "m.safetensors").predict(pictures).probabilities, expected)


def test_one_file_of_safetensors_is_a_model(tmp_path: Path) -> None:
    """It holds the card, and says the same to the last bit; it is the same, too, after a change in Python."""
    model = made()
    with torch.no_grad():
        model.module.head.bias[0] += 1  # type: ignore[union-attr, index, operator]
    written = export(model, "safetensors", tmp_path / "m.safetensors")
    again = load(written.file)
    pictures = different_pictures(9)
    assert again.classes == model.classes
    assert np.array_equal(again.predict(pictures).probabilities, model.predict(pictures).probabilities)


def check_texts(folder: Path, model: Classifier) -> None:
    """Classes and, for several labels, thresholds are there as JSON, beside the whole card."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "m.onnx")
    thresholds = {} if model.card.thresholds is None else {"thresholds": ""}
    found = {"classes": "", CARD: "", **thresholds}
    torch.export.load(folder / "m.pt2", extra_files=found)
    assert session.get_modelmeta().custom_metadata_map == found
    assert tuple(json.loads(found["classes"])) == model.classes
    assert found[CARD] == model.card.to_json()
    if model.card.thresholds is not None:
        assert tuple(json.loads(found["thresholds"])) == model.card.thresholds
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("pictures", ["n", 3, "height", "width"])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("probabilities", ["n", 5])]


@pytest.mark.slow
def test_gray_models_take_gray_and_colours(tmp_path: Path) -> None:
    """In any number, without sweeper as with it; transparency is an error. Models before change nothing."""
    export(made(), "pt2", tmp_path / "colours.pt2")
    model = made(pixel_channels=1, in_channels=1)
    pictures = np.random.default_rng(0).integers(0, 256, (17, 40, 33, 3), dtype=np.uint8)
    for format, runner in RUNNERS.items():
        runs = runner(export(model, format, tmp_path / f"m.{format}").file)
        for n in (1, 2, 17):
            gray, colours = pictures[:n, ..., :1], pictures[:n]
            for shown in (gray, colours):
                said = runs(shown.transpose(0, 3, 1, 2).copy())
                assert np.allclose(said, model.predict(list(shown)).probabilities, atol=1e-5)
        with pytest.raises(Exception, match=r"index|out of bounds|Guard"):
            runs(np.zeros((1, 4, 9, 9), np.uint8))


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.slow
def test_a_network_that_cannot_be_traced_is_told_in_one_line(tmp_path: Path) -> None:
    """It names the reason of torch, and the format that is left; nothing is written."""
    own = Network(source="custom", name="custom", target="tests.test_export.Fickle")
    with pytest.raises(BadInput, match=r"^--format=pt2: its network cannot be traced .*safetensors") as told:
        export(made(own), "pt2", tmp_path / "m.pt2")
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """A training that diverged leaves no model, in any format."""
    model = made()
    with torch.no_grad():
        model.module.head.bias[0] = float("nan")  # type: ignore[union-attr, operator]
    for format in FORMATS:
        with pytest.raises(BadInput, match=r"its training diverged; export another"):
            export(model, format, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    """A folder is bad input; what the system forbids is a fault."""
    with pytest.raises(BadInput, match=r"^--out=.*: is a folder; write the name of a file in it"):
        export(made(), "safetensors", tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with somebody(), pytest.raises(Fault, match=r"permission denied"):
        export(made(), "safetensors", closed / "m.safetensors")


@pytest.mark.slow
def test_a_wrong_file_is_not_left(tmp_path: Path) -> None:
    """Where it would say something else than PyTorch, it is refused, and the file before it stays."""
    out, own = tmp_path / "m", Network(source="custom", name="custom", target="tests.test_export.TwoFaced")
    out.write_text("of before")
    with pytest.raises(BadInput, match=r"its probabilities differ from PyTorch's by .*, more than 0.0001"):
        export(made(own), "pt2", out)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"]


def test_missing_packages_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings them, before anything is loaded."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        BadInput, match=r'^--format=onnx: onnxscript is not installed; pip install "sweeper\[onnx\]"'
    ):
        export(made(), "onnx", Path("m.onnx"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--format"),
        (("--format", "onxx"), "'onxx' is not one of 'onnx', 'pt2', 'safetensors'"),
        (("--format", "onnx", "nothing"), "there is no such study"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    """With exit code 2."""
    code, error = cli("export", *arguments)
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_no_file_of_a_model_or_a_study_is_replaced(cli: Cli, tmp_path: Path) -> None:
    """Those of the model that is read, and of others."""
    for name in ("m", "another"):
        write_model(tmp_path / name)
        RunFiles(tmp_path / name).mark()
    for out, told in (("m/model.json", "is what it reads"), ("another/model.json", "belongs to a study")):
        code, error = cli("export", "m", "--format", "safetensors", "--out", out)
        assert (code, error.startswith(f"--out={out}: {told}")) == (2, True)
    assert [len(load(tmp_path / name).classes) for name in ("m", "another")] == [3, 3]


# ---------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def exported(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the best model of the digits in each format, and what was printed."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(searched / "outputs", folder / "outputs")
    printed = {format: sweeper(folder, "export", "digits", "--format", format) for format in FORMATS}
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a phone that was held upright
    Image.fromarray(different_pictures(1)[0]).save(folder / "picture.jpg", exif=exif)
    return folder, printed


@pytest.mark.slow
def test_the_command_says_what_it_wrote(exported: tuple[Path, dict[str, str]]) -> None:
    """Three lines, of which the last is a command that works; torch is quiet."""
    folder, printed = exported
    for format, text in printed.items():
        wrote, compared, use = text.splitlines()
        assert wrote.startswith(f"digits.{format}: 0.")
        assert wrote.endswith(" MB, 10 classes")
        assert compared.startswith("Compared: ")
        program, *arguments = shlex.split(use.removeprefix("Use it:   "))
        assert Path(program).stem == "python"
        done = run(folder, *arguments, limit_s=120)
        assert done.returncode == 0, done.stderr
        if format != "safetensors":
            said = [float(number) for number in re.findall(r"\d\.\d*(?:e-?\d+)?", done.stdout)]
            assert said == pytest.approx(whole(folder).probabilities[0], abs=1e-4)


def whole(folder: Path) -> Predictions:
    """What the model says of the picture when it is decoded whole: predict lets a file be halved."""
    with Image.open(folder / "picture.jpg") as image:
        upright = ImageOps.exif_transpose(image)
    assert upright.size != image.size
    return load(folder / "outputs" / "digits" / "best").predict(np.array(upright))


@pytest.mark.slow
def test_the_examples_run_without_sweeper(exported: tuple[Path, dict[str, str]]) -> None:
    """onnxruntime and FastAPI say what ``predict`` says, in processes where sweeper cannot be imported."""
    folder, _ = exported
    (folder / "digits.onnx").replace(folder / "model.onnx")
    expected = whole(folder)
    code = f"{WITHOUT_SWEEPER}import runpy; runpy.run_path({str(EXAMPLES / 'onnx_predict.py')!r})"
    done = run(folder, "-c", code, limit_s=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('["0", "1", "2"')
    numbers = np.fromstring(done.stdout.partition("] [[")[2].strip(" ]\n"), sep=" ")
    assert np.allclose(numbers, expected.probabilities[0], atol=1e-4)
    code = f"""{WITHOUT_SWEEPER}
sys.path.insert(0, {str(EXAMPLES)!r})
import warnings; warnings.simplefilter("ignore")
from fastapi.testclient import TestClient
import serve
print(TestClient(serve.app).post("/predict", files={{"picture": open("picture.jpg", "rb")}}).text)
"""
    done = run(folder, "-c", code, limit_s=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(dict(expected[0].probabilities), abs=1e-4)


@pytest.mark.slow
def test_pt2_needs_no_sweeper(exported: tuple[Path, dict[str, str]]) -> None:
    """torch.export.load alone gives the program."""
    folder, _ = exported
    code = f"""{WITHOUT_SWEEPER}
import torch
print(torch.export.load("digits.pt2").module()(torch.zeros(2, 3, 40, 30, dtype=torch.uint8)).sum(1).tolist())
"""
    done = run(folder, "-c", code, limit_s=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([1, 1])


@pytest.mark.slow
def test_a_network_of_ones_own_needs_trust(tmp_path: Path) -> None:
    """Its code runs when the person says so, and the file needs it no more."""
    write_classes(tmp_path / "photos", {"a": 12, "b": 12})
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\n\ndef net(n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, n_classes))\n"
    )
    data = (
        "dataset=image_folder",
        "dataset.path=photos",
        "dataset.image_size=12",
        "training.epochs=1",
        "study=mine",
    )
    sweeper(tmp_path, *data, "model=custom", "model.target=own.net")
    refused = sweeper(tmp_path, "export", "outputs/mine", "--format", "pt2", code=2)
    assert "add --trust" in refused
    assert refused.count("\n") == 1
    sweeper(tmp_path, "export", "outputs/mine", "--format", "pt2", "--trust")
    (tmp_path / "own.py").unlink()
    assert by_pt2(tmp_path / "mine.pt2")(np.zeros((2, 3, 20, 30), np.uint8)).shape == (2, 2)
