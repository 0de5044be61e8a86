"""Dead units of our own CNN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sweeper import schema
from sweeper.training.data import load
from sweeper.training.dead_unit import dead_units
from sweeper.training.model import build

DATA = load(schema.Dataset(), torch.device("cpu"))


def network(activation: str = "relu") -> nn.Module:
    torch.manual_seed(0)
    model = schema.Model(filters=[4, 4], hidden_units=[8], activation=activation)
    return build(model, DATA.channels, DATA.side, len(DATA.classes))


def test_silenced_units_are_counted() -> None:
    """A feature map and a hidden unit whose bias lets nothing through are 2 of the network's 16 units."""
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
            if parameter.ndim == 1:
                parameter.add_(1e3)  # whatever the image, each unit is active
    assert dead_units(model, DATA) == 0
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        parameters["features.0.bias"][0] = -1e6
        parameters["hidden.0.bias"][0] = -1e6
    assert dead_units(model, DATA) == pytest.approx(2 / 16)


def test_other_networks_have_none_to_count() -> None:
    """LeakyReLU has no dead units, and of networks of others nothing is said."""
    assert dead_units(network("leaky_relu"), DATA) is None
    assert dead_units(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()), DATA) is None


def test_counting_changes_nothing() -> None:
    """Weights, mode and random numbers are as before."""
    model = network().train()
    state = torch.random.get_rng_state()
    weights = [parameter.clone() for parameter in model.parameters()]
    dead_units(model, DATA)
    assert all(module.training for module in model.modules())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert not any(module._forward_hooks for module in model.modules())
