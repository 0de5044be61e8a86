"""Frozen stages are run once: with the same results, for all trials, and only where that is so."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sweeper.schema import Augmentation, Dataset, Freezing, Model, Optimizer, Run, Training
from sweeper.training import cache, features
from sweeper.training.data import Data, load
from sweeper.training.fit import Fitted, fit
from sweeper.training.freeze import find_stages, plan
from sweeper.training.model import build
from tests.device import CPU

SMALL = Model(filters=[4, 6, 8], hidden_units=[16], batch_norm=True, dropout=0.3)
WAYS = [Freezing("head"), Freezing("last_block"), Freezing("gradual", every=1)]


@pytest.fixture(scope="module")
def few() -> Data:
    """150 digits of 16 pixels."""
    digits = load(Dataset(image_size=16), CPU)
    return replace(digits, train_x=digits.train_x[:150], train_y=digits.train_y[:150])


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pretrained(tmp_path: Path) -> Model:
    return saved(SMALL, tmp_path / "weights.pt")


def saved(settings: Model, path: Path, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    torch.save(build(settings, 1, 16, 10).state_dict(), path)
    return replace(settings, weights=str(path))


def run_of(model: Model, freezing: Freezing, precision: str = "float32", epochs: int = 4) -> Run:
    training = Training(epochs=epochs, batch_size=50, n_threads=1, precision=precision)
    return Run(
        device="cpu",
        model=model,
        freezing=freezing,
        training=training,
        optimizer=Optimizer(name="adam", lr=1e-3, head_lr_factor=3),
    )


def losses(fitted: Fitted) -> list[tuple[float, float]]:
    return [(epoch.train_loss, epoch.val_loss) for epoch in fitted.history]


def kept() -> list[cache.Entry]:
    return [entry for entry in cache.entries() if entry.kind == "features"]


NETWORKS = {
    "cnn": SMALL,
    "resnet18": Model(source="torchvision", name="resnet18"),
    "mobilenet_v3_small": Model(source="torchvision", name="mobilenet_v3_small"),
}
LARGE_NETWORKS = {
    "vit_b_32": Model(source="torchvision", name="vit_b_32"),
    "densenet121": Model(source="torchvision", name="densenet121"),
    "swin_t": Model(source="torchvision", name="swin_t"),
    "googlenet": Model(source="torchvision", name="googlenet"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_can_be_cut_behind_each_stage(name: str) -> None:
    """What is before the cut and what is behind it are together the network, to the last bit."""
    assert_can_be_cut(NETWORKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_NETWORKS)
def test_a_large_network_can_be_cut_behind_each_stage(name: str) -> None:
    """The same for those that take long to run."""
    assert_can_be_cut(LARGE_NETWORKS[name])


def assert_can_be_cut(settings: Model) -> None:
    torch.manual_seed(0)
    model = build(settings, 1, 64, 7).eval()
    stages, images = find_stages(model), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        logits = model(images)
        for n in (1, len(stages) // 2, len(stages) - 1):
            cut = features.cut(model, stages, n)
            assert cut is not None
            assert torch.equal(cut.trained(cut.frozen(images)), logits)


def test_the_parts_are_the_networks_own_layers() -> None:
    """So what trains behind the cut is trained in the network."""
    model = build(SMALL, 1, 16, 10)
    stages = plan(Freezing("last_block"), model)
    cut = features.cut(model, stages, features.n_frozen(stages, 1))
    assert cut is not None
    own = {id(parameter) for parameter in model.parameters()}
    frozen, trained = ({id(p) for p in part.parameters()} for part in (cut.frozen, cut.trained))
    assert frozen | trained == own
    assert not frozen & trained


def test_a_network_that_cannot_be_looked_into_is_not_cut(caplog: pytest.LogCaptureFixture) -> None:
    """It trains as ever, and the log says why."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.probe = nn.Linear(4, 4), nn.Linear(4, 2), (1, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.body(images.flatten(1))
            return self.head(x if x.sum() > 0 else -x)

    model = Odd()
    with caplog.at_level(logging.INFO):
        assert features.cut(model, plan(Freezing("head"), model), 1) is None
    assert "frozen stages are not computed once: the network cannot be traced" in caplog.text


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("freezing", WAYS, ids=lambda freezing: freezing.name)
def test_the_history_is_the_same_without_the_cache(
    few: Data, pretrained: Model, freezing: Freezing, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: without room for features, with new ones, and with those of an earlier trial."""
    run = run_of(pretrained, freezing, precision)
    monkeypatch.setenv("SWEEPER_CACHE_GB", "0")
    without = fit(run, few)
    assert kept() == []
    monkeypatch.delenv("SWEEPER_CACHE_GB")
    made = fit(run, few)
    entries = kept()
    assert entries
    again = fit(run, few)
    assert {entry.path for entry in kept()} == {entry.path for entry in entries}
    assert losses(without) == losses(made) == losses(again)
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_features_of_an_earlier_trial_are_read(few: Data, pretrained: Model) -> None:
    """Other numbers in the cache give another history: nothing is computed a second time."""
    run = run_of(pretrained, Freezing("head"))
    before = losses(fit(run, few))
    for entry in kept():
        entry.path.chmod(0o644)
        np.lib.format.open_memmap(entry.path, mode="r+")[:] = 0
    assert losses(fit(run, few)) != before


@pytest.mark.parametrize("other", ["weights", "cut", "precision", "normalization", "split"])
def test_what_features_depend_on_tells_them_apart(
    few: Data, pretrained: Model, tmp_path: Path, other: str
) -> None:
    """Other weights, another cut, precision, preprocessing or division of the images: other features."""
    run, data = run_of(pretrained, Freezing("head"), epochs=1), few
    fit(run, data)
    before = {entry.path for entry in kept()}
    assert len(before) == 2  # the training and the validation images
    if other == "weights":
        run.model = saved(SMALL, tmp_path / "others.pt", seed=1)
    elif other == "cut":
        run.freezing = Freezing("last_block")
    elif other == "precision":
        run.training.precision = "bfloat16"
    elif other == "normalization":
        data = replace(few, mean=few.mean + 0.1)
    else:
        data = replace(few, split="another")
    fit(run, data)
    assert len({entry.path for entry in kept()} - before) == 2


def test_random_images_have_no_features_to_keep(few: Data, pretrained: Model) -> None:
    """With augmentation the frozen stages see other images in each epoch."""
    run = run_of(pretrained, Freezing("head"), epochs=1)
    run.augmentation = Augmentation(rotation_deg=10)
    fit(run, few)
    assert kept() == []


def test_some_views_of_each_image_may_be_kept(few: Data, pretrained: Model) -> None:
    """With ``feature_views`` so many variations of each image are kept, and each epoch draws from them."""
    run = run_of(pretrained, Freezing("head"))
    run.augmentation, run.training.feature_views = Augmentation(rotation_deg=30), 3
    first = losses(fit(run, few))
    assert {len(np.load(entry.path)) for entry in kept()} == {3 * len(few.train_x), len(few.val_x)}
    assert losses(fit(run, few)) == first
    run.training.feature_views = 1
    assert losses(fit(run, few)) != first
    plain = run_of(pretrained, Freezing("head"))
    assert losses(fit(plain, few)) != first


def test_random_weights_have_no_features_to_share(few: Data) -> None:
    """Each trial draws its own."""
    fit(run_of(SMALL, Freezing("head"), epochs=1), few)
    assert kept() == []
