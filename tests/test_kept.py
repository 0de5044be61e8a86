"""What a run keeps of its model: weights and card, which say what training said, without the dataset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sweeper import run, schema
from sweeper.card import Card
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results.prediction import Predictions
from sweeper.search.trial import Trial
from sweeper.training import data, freeze, state
from sweeper.training.model import build
from tests.conftest import RunWith, mostly_slow
from tests.journal import best_of, load_study
from tests.pictures import write_classes
from tests.program import IN_PROCESS, sweeper

QUICK = ("training.epochs=2", "training.n_threads=1", "device=cpu", "training.precision=float32")

OF_NUMBERS = "{mean: [0.5,0.5,0.5], std: [0.25,0.25,0.25]}"

NETS = """\
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, n_classes, in_channels, width=4):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        pool = torch.ones(2 * width)
        self.register_buffer("a", pool[:width])
        self.register_buffer("b", pool[1 : width + 1])
        self.register_buffer("same", torch.ones(1).expand(width))
        self.register_buffer("turned", torch.ones(3, 2).T)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.fc((self.first(images) + self.second(images)).mean((2, 3)) * self.a * self.same)
"""


def kept(files: RunFiles) -> tuple[Card, nn.Module]:
    """The card and the network, from the two files alone."""
    card = Card.read(files.card)
    network = build(card.network.settings(), card.in_channels, card.image_size, len(card.classes))
    state.put(network, state.read(files.weights, card.weights_digest))
    return card, network.eval()


@torch.inference_mode()
def probabilities(files: RunFiles, pixels: Tensor, divide: bool = True) -> NDArray[Any]:
    """What they say of pictures of the size that the network sees: uint8 (n, channels, side, side)."""
    card, network = kept(files)
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    logits = network((pixels / 255 - mean) / std) / (card.temperature if divide else 1)
    found: NDArray[Any] = (logits.sigmoid() if card.several_labels else logits.softmax(1)).numpy()
    return found


def trained(asked: schema.Run, folder: Path) -> RunFiles:
    run.train(asked, folder, Trial())
    return RunFiles(folder)


def val_pixels(asked: schema.Run) -> Tensor:
    loaded = data.load(asked.dataset, torch.device("cpu"))
    pixels = loaded.val_x[0 : len(loaded.val_x)]
    first = (pixels.shape[-1] - loaded.side) // 2
    return pixels[..., first : first + loaded.side, first : first + loaded.side]


def assert_says_the_same(files: RunFiles, asked: schema.Run, within: float = 1e-4) -> Card:
    """As training did of the validation pictures; the temperature alone comes on top."""
    known = Predictions.read(files)
    assert known is not None
    found = probabilities(files, val_pixels(asked), divide=False)
    assert np.abs(found - known.probabilities).max() < within
    card = Card.read(files.card)
    assert card.classes == known.classes
    result = files.read_result()
    assert card.scores == {n: v for n, v in result.items() if n.startswith(("val_", "test_"))}
    return card


def test_weights_and_card_say_what_training_said(run_with: RunWith, tmp_path: Path) -> None:
    """Of the digits, whose size is their own; the temperature makes no answer another, and the loss less."""
    asked = run_with("optimizer=adam", "optimizer.lr=0.003", *QUICK)
    files = trained(asked, tmp_path / "one")
    card = assert_says_the_same(files, asked)
    assert (card.classes, card.image_size, card.margin) == (tuple("0123456789"), 8, 1.0)
    assert (card.in_channels, card.pixel_channels, card.bits) == (1, 1, 8)
    assert {"val_accuracy", "val_loss", "test_accuracy", "test_loss"} <= set(card.scores)
    known = Predictions.read(files)
    assert known is not None
    divided = probabilities(files, val_pixels(asked))
    assert (divided.argmax(1) == known.probabilities.argmax(1)).all()
    rows = np.arange(len(divided))
    assert -np.log(divided[rows, known.labels]).mean() < card.scores["val_loss"]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Gray pictures of 12 bits in files of 16, and colours, some of them transparent."""
    rng = np.random.default_rng(0)
    for name, white in (("dark", 1000), ("bright", 4095)):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for n in range(12):
            values = rng.integers(0, white, (20, 24), dtype=np.uint16)
            values[0, 0] = white
            Image.fromarray(values).save(tmp_path / "deep" / name / f"{n}.png")
    return tmp_path / "deep"


@pytest.mark.parametrize("normalization", mostly_slow(["data", "imagenet", "none", OF_NUMBERS], every=4))
def test_normalisation_and_pictures_are_in_numbers(
    run_with: RunWith, tmp_path: Path, deep: Path, normalization: str
) -> None:
    """How files become pixels, and these become what the network sees, whatever the setting was called."""
    of_data = ("dataset=image_folder", f"dataset.path={deep}", "dataset.image_size=16", "dataset.margin=1.25")
    look = (
        f"dataset.normalization={normalization}",
        "dataset.background=[1,2,3]",
        "dataset.max_megapixels=9",
    )
    asked = run_with(*of_data, *look, *QUICK)
    files = trained(asked, tmp_path / "one")
    card = assert_says_the_same(files, asked)
    assert (card.classes, card.image_size, card.margin) == (("bright", "dark"), 16, 1.25)
    assert (card.in_channels, card.pixel_channels, card.bits) == (3, 3, 12)
    assert (card.background, card.max_megapixels) == ((1, 2, 3), 9)
    assert len(card.mean) == len(card.std) == 3


@pytest.mark.slow
def test_gray_pictures_in_three_channels(run_with: RunWith, tmp_path: Path) -> None:
    """With ImageNet's statistics the digits are seen in three equal channels."""
    asked = run_with("dataset.normalization=imagenet", "training.epochs=1", *QUICK[1:])
    card = assert_says_the_same(trained(asked, tmp_path / "one"), asked)
    assert (card.in_channels, card.pixel_channels) == (3, 1)


@pytest.mark.slow
def test_several_labels_have_thresholds(run_with: RunWith, tmp_path: Path) -> None:
    """Each at which the scores were measured."""
    write_classes(tmp_path, {"pets": 24})
    rows = [f"pets/{n}.png,{n % 2},{n % 3 // 2},{1 if n % 5 else 0}" for n in range(24)]
    (tmp_path / "pets.csv").write_text("\n".join(["path,cat,dog,tail", *rows, ""]))
    of_data = ("dataset=csv", f"dataset.path={tmp_path / 'pets.csv'}", "dataset.image_size=8")
    asked = run_with(*of_data, "loss=bce_with_logits", "objective=val_loss", *QUICK)
    card = assert_says_the_same(trained(asked, tmp_path / "one"), asked)
    assert (card.labels, card.thresholds) == ("several", (0.5, 0.5, 0.5))


def test_a_network_of_ones_own(run_with: RunWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights that are tied, and buffers that share their memory or repeat it."""
    monkeypatch.chdir(tmp_path)
    Path("nets_kept.py").write_text(NETS)
    asked = run_with("model=custom", "model.target=nets_kept.Odd", "+model.arguments.width=6", *QUICK)
    card = assert_says_the_same(trained(asked, tmp_path / "one"), asked)
    assert (card.network.target, card.network.arguments) == ("nets_kept.Odd", {"width": 6})


@pytest.mark.slow
def test_a_head_on_cached_features(run_with: RunWith, tmp_path: Path) -> None:
    """Where training read the features of frozen stages, the whole network is kept; weights of a run are read
    again as any file.
    """
    first = trained(run_with("training.epochs=1", *QUICK[1:]), tmp_path / "first")
    asked = run_with(f"model.weights={first.weights}", "freezing=head", *QUICK)
    second = trained(asked, tmp_path / "second")
    assert_says_the_same(second, asked)
    before, after = (state.read(files.weights) for files in (first, second))
    head = freeze.head_name(kept(first)[1])
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        f"{head}.weight",
        f"{head}.bias",
    }


@pytest.mark.slow
def test_bfloat16_is_kept_in_float32(run_with: RunWith, tmp_path: Path) -> None:
    """The weights have float32, and say what training said to within what bfloat16 rounds."""
    asked = run_with(*QUICK[:3], "training.precision=bfloat16", "optimizer=adam")
    files = trained(asked, tmp_path / "one")
    assert_says_the_same(files, asked, within=0.02)
    assert {tensor.dtype for tensor in state.read(files.weights).values()} == {torch.float32}


def test_a_run_that_diverged_has_a_card(run_with: RunWith, tmp_path: Path) -> None:
    """Without a temperature, and with no score that is no number."""
    asked = run_with("optimizer.lr=1000000", *QUICK)
    files = trained(asked, tmp_path / "one")
    assert files.read_result()["ending"] == "diverged"
    card = Card.read(files.card)
    assert card.temperature == 1
    assert not {"val_loss", "test_loss"} & set(card.scores)
    kept(files)


@pytest.mark.slow
def test_a_run_in_the_place_of_another_has_its_own(run_with: RunWith, tmp_path: Path) -> None:
    """Weights and card are always of one run."""
    cards = []
    for filters in ("[4]", "[8,8]"):
        asked = run_with(f"model.filters={filters}", "training.epochs=1", *QUICK[1:])
        cards.append(assert_says_the_same(trained(asked, tmp_path / "one"), asked))
    assert cards[0].weights_digest != cards[1].weights_digest


# ------------------------------------------------------------------------------------------- of a search


def test_the_best_of_a_search_is_complete(searched: Path) -> None:
    """``best/`` and the trial that it is of have the model, and no other; test scores are with the best."""
    folder = StudyFiles(searched / "outputs" / "digits")
    study = load_study(searched, "digits")
    have = {path.parent.name for path in folder.folder.glob("*/model.json")}
    assert have == {path.parent.name for path in folder.folder.glob("*/weights.safetensors")}
    assert have == {"best", str(best_of(study).number)}
    card, _ = kept(folder.best)
    assert (card.study, card.trial) == ("digits", best_of(study).number)
    assert card.scores["val_accuracy"] == study.best_value
    assert card.scores["test_accuracy"] == folder.best.read_result()["test_accuracy"]
    own, _ = kept(folder.run(best_of(study).number))
    assert own.weights_digest == card.weights_digest


def test_weights_of_an_earlier_version_get_a_card(searched: Path, tmp_path: Path) -> None:
    """The end of a search adds it to ``best/``; what is known stays, and what the weights have seen."""
    study = StudyFiles(tmp_path / "digits")
    shutil.copytree(searched / "outputs" / "digits" / "best", study.best.folder)
    before, seen = Card.read(study.best.card), study.best.read_trained_on()
    torch.save(state.read(study.best.weights), study.best.old_weights)
    study.best.weights.unlink()
    study.best.card.unlink()
    assert study.best.has_weights
    run.test_best(study.folder)
    after, _ = kept(study.best)
    assert after.temperature == pytest.approx(before.temperature, rel=1e-3)
    assert (after.scores, after.weights_digest) == (before.scores, before.weights_digest)
    assert not study.best.old_weights.exists()
    assert np.array_equal(study.best.read_trained_on(), seen)  # type: ignore[arg-type]


@pytest.mark.slow
def test_each_solution_of_several_objectives_is_complete(tmp_path: Path) -> None:
    """There is no single best model; those on the front keep theirs, and no other does."""
    asked = ("objective=[val_accuracy,seconds]", "hydra/sweeper/pruner=none", "study=front")
    sweeper(tmp_path, "-m", *asked, "hydra.sweeper.n_trials=4", *QUICK, *IN_PROCESS)
    study = StudyFiles(tmp_path / "outputs" / "front")
    front = {trial.number for trial in load_study(tmp_path, "front").best_trials}
    assert {int(path.parent.name) for path in study.folder.glob("*/model.json")} == front
    for number in front:
        card, _ = kept(study.run(number))
        assert card.trial == number
    assert not study.best.folder.exists()
