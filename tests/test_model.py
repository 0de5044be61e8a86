"""The networks that the settings describe."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sweeper.schema import Model
from sweeper.training.model import build, outline


def layers(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("filters", [[6, 16], [16, 32], [16, 32, 64], [32, 64, 128], [4] * 7])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("side", [4, 8, 33])
def test_any_filters_fit_any_image(filters: list[int], kernel_size: int, side: int) -> None:
    """Every documented combination of filters, kernel and image size gives a logit for each class."""
    model = build(Model(filters=filters, kernel_size=kernel_size), 3, side, 5)
    assert model(torch.rand(2, 3, side, side)).shape == (2, 5)


def test_network_is_as_described() -> None:
    """Filters, kernel, hidden units and dropout are the ones that were asked for, in that order."""
    model = build(Model(filters=[4, 8], kernel_size=5, hidden_units=[20, 10], dropout=0.3), 1, 16, 3)
    convolutions = layers(model, nn.Conv2d)
    assert [layer.weight.shape for layer in convolutions] == [(4, 1, 5, 5), (8, 4, 5, 5)]
    linear = layers(model, nn.Linear)
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (8 * 4 * 4, 20),
        (20, 10),
        (10, 3),
    ]
    assert [layer.p for layer in layers(model, nn.Dropout)] == [0.3, 0.3]
    assert not layers(model, nn.BatchNorm2d)
    assert model.head is linear[-1]


def test_no_hidden_layer() -> None:
    """Without hidden units the head follows the convolutions."""
    model = build(Model(hidden_units=[]), 1, 8, 10)
    assert layers(model, nn.Linear) == [model.head]
    assert not layers(model, nn.Dropout)


def test_batch_norm_follows_each_convolution() -> None:
    """With ``batch_norm`` every convolution is normalised."""
    assert len(layers(build(Model(batch_norm=True, filters=[2, 3, 4]), 1, 8, 10), nn.BatchNorm2d)) == 3


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU)])
def test_activation_is_used_throughout(name: str, kind: type[nn.Module]) -> None:
    """The activation stands after every convolution and every hidden layer."""
    assert len(layers(build(Model(activation=name), 1, 8, 10), kind)) == 3


def test_pooling_before_the_activation_changes_nothing() -> None:
    """The network equals the usual one, in which the activation stands before the pooling."""
    torch.manual_seed(0)
    model = build(Model(filters=[4, 8], batch_norm=True, activation="leaky_relu"), 1, 16, 3).eval()
    usual = nn.Sequential()
    for pair in pairwise(model.features):
        usual.extend(reversed(pair) if isinstance(pair[0], nn.MaxPool2d) else [])
        usual.extend(pair if isinstance(pair[0], nn.Conv2d) else [])
    assert [type(layer).__name__ for layer in usual[:4]] == [
        "Conv2d",
        "BatchNorm2d",
        "LeakyReLU",
        "MaxPool2d",
    ]
    images = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(model.features(images), usual(images), rtol=0, atol=0)


def test_seed_decides_the_weights() -> None:
    """The same seed of torch gives the same weights."""
    first, second = [], []
    for weights in (first, second):
        torch.manual_seed(3)
        weights.extend(build(Model(init="kaiming_uniform"), 1, 8, 10).parameters())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_weights_are_drawn_as_asked(activation: str) -> None:
    """Xavier and He initialisation have their bounds, with the activation's gain, and biases of zero."""
    slope = 0.01 if activation == "leaky_relu" else 0.0
    gain = math.sqrt(2 / (1 + slope**2))
    for init in ("xavier_uniform", "kaiming_uniform"):
        model = build(Model(init=init, activation=activation, filters=[32, 64]), 3, 32, 10)
        for layer in [*layers(model, nn.Conv2d), *layers(model, nn.Linear)]:
            fan_out, fan_in = nn.init._calculate_fan_in_and_fan_out(layer.weight)[::-1]
            fan = (fan_in + fan_out) / 2 if init == "xavier_uniform" else fan_in
            bound = (1.0 if layer is model.head else gain) * math.sqrt(3 / fan)
            assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert not layer.bias.any()


def test_default_init_is_torchs_own() -> None:
    """``default`` leaves the weights as PyTorch draws them, biases included."""
    model = build(Model(), 1, 8, 10)
    assert all(layer.bias.any() for layer in [*layers(model, nn.Conv2d), *layers(model, nn.Linear)])


def test_outline_of_the_cnn() -> None:
    """An outline has the network's layers and shapes, and no numbers; both say what images they take."""
    settings = Model(init="xavier_uniform", batch_norm=True)
    built, outlined = build(settings, 1, 16, 3), outline(settings, 1, 16, 3)
    assert str(built) == str(outlined)
    assert built.probe == outlined.probe == (1, 16)
    for name, tensor in outlined.state_dict().items():
        assert tensor.is_meta
        assert tensor.shape == built.state_dict()[name].shape


@pytest.mark.parametrize(("activation", "lowest"), [("relu", 0.0), ("leaky_relu", -0.01)])
def test_activation_lets_through_what_it_should(activation: str, lowest: float) -> None:
    """ReLU cuts what is negative; LeakyReLU lets a hundredth of it through, so that no unit dies."""
    torch.manual_seed(0)
    model = build(Model(activation=activation, filters=[8], hidden_units=[]), 1, 8, 10)
    images = torch.randn(64, 1, 8, 8)
    before = torch.nn.functional.max_pool2d(model.features[0](images), 2)
    after = model.features(images)
    assert after.min().item() == pytest.approx(lowest * -before.min().item())
    torch.testing.assert_close(after, torch.where(before > 0, before, before * -lowest))


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dropout_silences_that_share_of_the_hidden_units(p: float) -> None:
    """In training, after each hidden layer, and the others are scaled up; in evaluation none."""
    torch.manual_seed(0)
    model = build(Model(dropout=p, hidden_units=[400, 300]), 1, 8, 10)
    images = torch.randn(100, 1, 8, 8)
    for first, n_units in ((0, 400), (3, 300)):
        inputs = torch.randn(100, model.hidden[first].in_features)
        alive = model.hidden[first : first + 2](inputs)
        dropped = model.hidden[first : first + 3].train()(inputs)
        assert alive.shape == (100, n_units)
        was_alive = alive > 0
        silenced = (dropped[was_alive] == 0).float().mean().item()
        assert silenced == pytest.approx(p, abs=0.02)
        kept = was_alive & (dropped > 0)
        torch.testing.assert_close(dropped[kept], alive[kept] / (1 - p))
    model.eval()
    assert torch.equal(model(images), model(images))
