"""Transfer learning, end to end: what was learned on other pictures helps where there are few."""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from sweeper.schema import Dataset, Freezing, Model, Optimizer, Run, Training
from sweeper.training.data import Data, load
from sweeper.training.fit import evaluate, fit
from sweeper.training.model import build
from tests.journal import load_study
from tests.program import dashboard, sweeper

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# ------------------------------------------------------------- from the digits 0 … 4 to the digits 5 … 9


def scattered(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A digit, twice its size, somewhere on a black square of 28 pixels and turned by up to 20 degrees.

    So a network has to learn that a digit is the same everywhere: 5 images do not teach that.
    """
    digit = Image.fromarray(np.uint8(np.rint(image * (255 / 16)))).resize((16, 16), Image.Resampling.BILINEAR)
    digit = digit.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (28, 28))
    canvas.paste(digit, tuple(rng.integers(0, 13, 2).tolist()))
    return canvas


def write_digits(folder: Path, digits: Sequence[int], n_train: int) -> Data:
    """A folder of pictures with ``n_train`` of each digit to train on, 30 to validate and 50 to test."""
    rng, everything = np.random.default_rng(0), load_digits()
    for digit in digits:
        images = everything.images[everything.target == digit]
        ends = {"test": images[:50], "val": images[50:80], "train": images[80 : 80 + n_train]}
        for part, chosen in ends.items():
            (folder / part / str(digit)).mkdir(parents=True)
            for i, image in enumerate(chosen):
                scattered(image, rng).save(folder / part / str(digit) / f"{i}.png")
    return load(Dataset(name="image_folder", path=str(folder), image_size=28), torch.device("cpu"))


def run_of(model: Model, freezing: str, seed: int, lr: float, epochs: int, batch_size: int) -> Run:
    training = Training(epochs=epochs, batch_size=batch_size, n_threads=1, precision="float32")
    training.early_stopping.patience = None
    run = Run(seed=seed, device="cpu", model=model, training=training)
    run.freezing = Freezing(freezing, every=10 if freezing == "gradual" else None)
    run.optimizer = Optimizer(name="adam", lr=lr, head_lr_factor=10 if freezing != "head" else 1)
    return run


@pytest.mark.slow
def test_what_was_learned_on_other_digits_helps(tmp_path: Path) -> None:
    """Pretrained on 0 … 4, the frozen body with a new head tells 5 … 9 apart from 5 images of each.

    On average over 5 seeds it does so clearly better than the same from random weights, frozen or not; and so
    do the other ways of freezing.
    """
    model = Model(filters=[16, 32, 64, 64], hidden_units=[], batch_norm=True, dropout=0.3)
    others = write_digits(tmp_path / "others", range(5), n_train=90)
    before = fit(run_of(model, "none", 0, 3e-4, epochs=25, batch_size=32), others)
    assert evaluate(before.model, others)["accuracy"] > 0.8  # a CPU's last bits decide on some points
    torch.save(before.model.state_dict(), tmp_path / "weights.pt")
    pretrained = replace(model, weights=str(tmp_path / "weights.pt"))

    few = write_digits(tmp_path / "few", range(5, 10), n_train=5)
    assert len(few.train_y) == 25
    ways = {
        "head": (pretrained, "head", 1e-2),
        "head of random weights": (model, "head", 1e-2),
        "everything from random weights": (model, "none", 3e-3),
        "full": (pretrained, "full", 1e-3),
        "last_block": (pretrained, "last_block", 1e-3),
        "gradual": (pretrained, "gradual", 1e-3),
    }
    means = {}
    for way, (start, freezing, lr) in ways.items():
        runs = [run_of(start, freezing, seed, lr, epochs=40, batch_size=25) for seed in range(5)]
        means[way] = fmean(evaluate(fit(run, few).model, few)["accuracy"] for run in runs)
        print(f"{way}: {means[way]:.3f}")
    from_random = max(means["head of random weights"], means["everything from random weights"])
    for way in ("head", "full", "last_block", "gradual"):
        assert means[way] > from_random + 0.1, means


# ------------------------------------------------------------------------- searches over ways of freezing

RANGES = {"head": (1e-4, 1e-3), "last_block": (1e-5, 1e-3), "full": (1e-6, 1e-5)}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search over three ways of freezing, from the weights of a file."""
    folder = tmp_path_factory.mktemp("frozen")
    quick = ("training.epochs=1", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none")
    torch.save(build(Model(), 1, 8, 10).state_dict(), folder / "weights.pt")
    weights = "model.weights=weights.pt"
    options = ("freezing=head,last_block,full", weights, "hydra.sweeper.n_trials=12")
    sweeper(folder, "-m", *options, *quick, "study=frozen")
    return folder


@pytest.mark.slow
def test_each_way_of_freezing_draws_from_its_own_range(frozen: Path) -> None:
    """One study, three ways: each trial's learning rate is in its own option's range, under its own name."""
    trials = load_study(frozen, "frozen").trials
    assert len(trials) == 12
    assert {trial.params["freezing"] for trial in trials} == set(RANGES)
    for trial in trials:
        rates = {name: value for name, value in trial.params.items() if name.startswith("optimizer.lr")}
        way = trial.params["freezing"]
        assert list(rates) == [f"optimizer.lr[freezing={way}]"]
        low, high = RANGES[way]
        assert low <= rates[f"optimizer.lr[freezing={way}]"] <= high
        config = (frozen / "outputs" / "frozen" / str(trial.number) / "trial.yaml").read_text()
        assert f"lr: {rates[f'optimizer.lr[freezing={way}]']!r}" in config
        assert f"weights: {frozen}/weights.pt" in config


@pytest.mark.slow
def test_the_best_trial_is_told_with_the_names_of_its_parameters(frozen: Path) -> None:
    """The option in a parameter's name is printed with it."""
    assert re.search(r"optimizer\.lr\[freezing=\w+\]", sweeper(frozen, "best", "frozen"))


@pytest.mark.slow
def test_the_dashboard_shows_the_rates_as_separate_parameters(frozen: Path, browser: Browser) -> None:
    """Whoever looks at a trial sees the learning rate under its option's name."""
    with dashboard(frozen) as address:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(address)
        page.get_by_role("link", name=re.compile("frozen")).first.click()
        for way in RANGES:
            page.get_by_text(f"optimizer.lr[freezing={way}]").first.wait_for(state="attached")
        page.close()


@pytest.mark.slow
def test_a_transferred_trial_is_reproduced(frozen: Path) -> None:
    """The best trial trains again from the same weights, to the last bit; from others, the tool says so."""
    assert "identical: 1 epoch to" in sweeper(frozen, "reproduce", "frozen")
    weights = frozen / "weights.pt"
    before = weights.read_bytes()
    state = torch.load(weights, weights_only=True)
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, weights)
    try:
        assert "  weights: then " in sweeper(frozen, "reproduce", "frozen", code=3)
    finally:
        weights.write_bytes(before)


# ------------------------------------------------------------------------------- the experiment, on JPEGs


SHAPES = ("circle", "square", "triangle", "cross", "ring", "stripes")


def draw(shape: str, rng: random.Random) -> Image.Image:
    """A shape of any colour, size and place on a ground of another colour."""
    ground = tuple(rng.randrange(0, 110) for _ in range(3))
    ink = tuple(rng.randrange(145, 256) for _ in range(3))
    image = Image.new("RGB", (96, 80), ground)
    pen, r = ImageDraw.Draw(image), rng.randrange(16, 28)
    x, y = rng.randrange(r + 2, 94 - r), rng.randrange(r + 2, 78 - r)
    box, width = (x - r, y - r, x + r, y + r), r // 3
    if shape == "circle":
        pen.ellipse(box, ink)
    elif shape == "square":
        pen.rectangle(box, ink)
    elif shape == "ring":
        pen.ellipse(box, outline=ink, width=width)
    elif shape == "triangle":
        pen.polygon([(x + r * math.sin(a), y - r * math.cos(a)) for a in (0, 2.1, 4.2)], ink)
    elif shape == "cross":
        pen.line((x - r, y, x + r, y), ink, width)
        pen.line((x, y - r, x, y + r), ink, width)
    else:
        for offset in range(-r, r, 2 * width):
            pen.rectangle((x - r, y + offset, x + r, y + offset + width), ink)
    return image


@pytest.mark.slow
def test_the_transfer_experiment_end_to_end(tmp_path: Path) -> None:
    """On a folder of JPEGs, with weights from a file, on the CPU, in less than 3 minutes.

    All that the guide tunes is among the parameters, and the best trial is tested and reproduced.
    """
    rng = random.Random(0)
    for shape in SHAPES:
        (tmp_path / "shapes" / shape).mkdir(parents=True)
        for number in range(25):
            draw(shape, rng).save(tmp_path / "shapes" / shape / f"{number}.jpg", quality=90)
    body = ("model=mobilenet_v3_small", "dataset.image_size=64")
    sweeper(tmp_path, *body, "optimizer=adam", "training.epochs=2", "study=pretraining")

    started = time.monotonic()
    printed = sweeper(
        tmp_path,
        *("-m", "experiment=transfer", "dataset.path=shapes", *body, "study=shapes"),
        *(
            "model.weights=outputs/pretraining/weights.safetensors",
            "training.epochs=3",
            "hydra.sweeper.n_trials=12",
        ),
    )
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s")
    assert seconds < 180
    study = load_study(tmp_path, "shapes")
    assert len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])) == 12
    drawn = {name.partition("[")[0] for trial in study.trials for name in trial.params}
    assert drawn == {
        *("freezing", "optimizer", "scheduler", "augmentation", "model.dropout"),
        *("optimizer.lr", "optimizer.weight_decay", "training.batch_size"),
    }
    result = json.loads((tmp_path / "outputs" / "shapes" / "best" / "result.json").read_text())
    assert result["val_accuracy"] == study.best_value
    assert 0 <= result["test_accuracy"] <= 1
    assert "Test accuracy of the best trial" in printed
    assert "identical" in sweeper(tmp_path, "reproduce", "shapes")
