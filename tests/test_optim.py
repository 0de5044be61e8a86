"""Optimizers and schedules."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from sweeper.schema import Freezing, Model, Optimizer, Run, Scheduler, Training
from sweeper.training import optim
from sweeper.training.freeze import plan
from sweeper.training.model import build
from sweeper.training.optim import Plateau, lr_in


def network() -> nn.Module:
    torch.manual_seed(0)
    return build(Model(batch_norm=True), 1, 8, 10)


def build_optimizer(
    settings: Optimizer, model: nn.Module, freezing: str = "none", by_stage: bool = False
) -> torch.optim.Optimizer:
    return optim.build_optimizer(settings, plan(Freezing(freezing), model, by_stage))


def rates(
    scheduler: Scheduler,
    epochs: int,
    metrics: list[float] | None = None,
    monitor: str = "val_loss",
    peak: float = 1.0,
) -> list[float]:
    """The learning rate of each epoch, where it is at most ``peak``."""
    run = Run(optimizer=Optimizer(lr=peak), scheduler=scheduler, training=Training(epochs=epochs))
    plateau, seen = Plateau(scheduler, monitor), []
    for epoch, metric in enumerate(metrics or [0.0] * epochs, start=1):
        seen.append(lr_in(epoch, peak, run, plateau.n_reductions))
        plateau.see(epoch, metric)
    return seen


def rates_of_torch(
    build: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], peak: float, metrics: list[float]
) -> list[float]:
    """The learning rate of each epoch with one of torch's own schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler, seen = build(optimizer), []
    for metric in metrics:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([metric] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return seen


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (Optimizer(name="sgd", momentum=0.9), torch.optim.SGD),
        (Optimizer(name="adam"), torch.optim.Adam),
        (Optimizer(name="adamw"), torch.optim.AdamW),
        (Optimizer(name="rmsprop", momentum=0.8), torch.optim.RMSprop),
    ],
)
def test_optimizer_is_torchs_own(settings: Optimizer, kind: type[torch.optim.Optimizer]) -> None:
    """A step changes the weights to just what torch's plain optimizer makes of them."""
    settings.weight_decay, settings.lr = 0.01, 0.003
    models = network(), network()
    momentum = {} if settings.momentum is None else {"momentum": settings.momentum}
    plain = kind(models[1].parameters(), lr=0.003, weight_decay=0.01, foreach=False, **momentum)
    optimizer = build_optimizer(settings, models[0])
    assert type(optimizer) is kind
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model, stepper in zip(models, (optimizer, plain), strict=True):
            model.eval()
            stepper.zero_grad()
            model(images).logsumexp(1).sum().backward()
            stepper.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_momentum_is_zero_unless_asked() -> None:
    """``momentum=null`` is none."""
    for name in ("sgd", "rmsprop"):
        assert build_optimizer(Optimizer(name=name), network()).param_groups[0]["momentum"] == 0


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_momentum_without_effect_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Momentum for an optimizer that has none is said to have no effect."""
    with caplog.at_level(logging.WARNING):
        build_optimizer(Optimizer(name=name, momentum=0.9), network())
    assert f"optimizer.momentum=0.9 has no effect: {name} has none" in caplog.text


def test_every_parameter_is_in_one_group() -> None:
    """All parameters train exactly once, whatever the groups; those that never train are in none."""
    for factor in (1.0, 10.0):
        for decays in (True, False):
            for freezing in ("none", "head"):
                model = network()
                settings = Optimizer(head_lr_factor=factor, decay_norm_and_bias=decays, weight_decay=0.1)
                groups = build_optimizer(settings, model, freezing).param_groups
                ids = [id(parameter) for group in groups for parameter in group["params"]]
                trained = model if freezing == "none" else model.get_submodule("head")
                assert sorted(ids) == sorted(id(p) for p in trained.parameters())


def test_head_has_its_own_rate() -> None:
    """The head learns at ``head_lr_factor`` times the rate; the first group is the body's."""
    model = network()
    body, head = build_optimizer(Optimizer(lr=0.01, head_lr_factor=100), model).param_groups
    assert (body["lr"], head["lr"]) == (0.01, 1.0)
    assert {id(p) for p in head["params"]} == {id(p) for p in model.head.parameters()}


def test_earlier_stages_learn_more_slowly() -> None:
    """Each stage before the last learns at ``stage_lr_decay`` times the next one's rate."""
    settings = Optimizer(lr=0.01, head_lr_factor=5, stage_lr_decay=0.5)
    groups = build_optimizer(settings, network(), by_stage=True).param_groups
    assert [group["lr"] for group in groups] == [0.005, 0.01, 0.05]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_decay_is_coupled_but_in_adamw(name: str) -> None:
    """Without a gradient AdamW shrinks weights by lr · decay; Adam and SGD take the decay for a gradient."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    model = nn.Module()
    model.head = weight
    optimizer = build_optimizer(Optimizer(name=name, lr=0.1, weight_decay=0.01), model)
    weight.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    # Adam's first step is lr in the direction of its gradient, here the decay's, however small it is.
    expected = {"sgd": 2 - 0.1 * 0.01 * 2, "adamw": 2 * (1 - 0.1 * 0.01), "adam": 2 - 0.1}
    assert weight.weight.item() == pytest.approx(expected[name], rel=1e-5)


def test_biases_and_norms_are_spared_decay() -> None:
    """Without ``decay_norm_and_bias`` a step without gradient shrinks layers' weights, and only these."""
    model = network()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(Optimizer(lr=0.5, weight_decay=0.1, decay_norm_and_bias=False), model).step()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            torch.testing.assert_close(layer.weight, torch.full_like(layer.weight, 0.95))
            assert torch.equal(layer.bias, torch.ones_like(layer.bias))
        if isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
            assert torch.equal(layer.bias, torch.ones_like(layer.bias))


def test_constant_rate() -> None:
    """``none`` never changes the rate."""
    assert rates(Scheduler(), 4) == [1.0] * 4


def test_step_falls_every_step_size() -> None:
    """``step`` multiplies the rate by gamma after every ``step_size`` epochs."""
    assert rates(Scheduler(name="step", step_size=2, gamma=0.5), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("t_max", [None, 4])
def test_cosine_falls_to_its_minimum(t_max: int | None) -> None:
    """``cosine`` follows its curve over ``t_max`` epochs, by default all of them."""
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates(Scheduler(name="cosine", t_max=t_max, eta_min=0.1), 4) == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    """For one group the curve is torch's own CosineAnnealingLR, past its end too."""
    settings = Scheduler(name="cosine", t_max=5, eta_min=0.1)
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=0.1), 1.0, [0.0] * 8
    )
    assert rates(settings, 8) == pytest.approx(expected)


@pytest.mark.parametrize("peak", [1.0, 0.013, 3e-5])
@pytest.mark.parametrize("gamma", [0.1, 0.3, 0.7])
def test_step_is_torchs_to_the_last_bit(peak: float, gamma: float) -> None:
    """``step`` gives the rates of torch's StepLR, which multiplies again and again."""
    expected = rates_of_torch(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma), peak, [0.0] * 40)
    assert rates(Scheduler(name="step", step_size=2, gamma=gamma), 40, peak=peak) == expected


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs_to_the_last_bit(monitor: str, patience: int) -> None:
    """``plateau`` gives the rates of torch's ReduceLROnPlateau, whatever it sees."""
    generator = torch.Generator().manual_seed(0)
    metrics = torch.rand(60, generator=generator, dtype=torch.float64).tolist()
    metrics[20:24] = [metrics[19] * (1 - 5e-5), metrics[19] * (1 + 5e-5), math.nan, math.inf]
    mode = "min" if monitor == "val_loss" else "max"
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.3, patience, eps=0),
        0.013,
        metrics,
    )
    settings = Scheduler(name="plateau", factor=0.3, patience=patience)
    assert rates(settings, len(metrics), metrics, monitor, peak=0.013) == expected


@pytest.mark.parametrize(("monitor", "sign"), [("val_loss", 1.0), ("val_accuracy", -1.0)])
def test_plateau_follows_the_monitored_quantity(monitor: str, sign: float) -> None:
    """``plateau`` falls after more than ``patience`` epochs without a lower loss, or a higher accuracy."""
    scheduler = Scheduler(name="plateau", factor=0.1, patience=1)
    improving = [sign * metric for metric in (9.0, 8.0, 7.0, 6.0, 5.0, 4.0)]
    assert rates(scheduler, 6, improving, monitor) == [1.0] * 6
    stuck = [sign * metric for metric in (4.0, 5.0, 5.0, 5.0, 5.0, 5.0)]
    assert rates(scheduler, 6, stuck, monitor) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({"name": "none"}, [1.0, 1.0, 1.0, 1.0]),
        ({"name": "step", "step_size": 2, "gamma": 0.5}, [1.0, 1.0, 0.5, 0.5]),
        ({"name": "plateau", "patience": 0, "factor": 0.5}, [1.0, 1.0, 0.5, 0.25]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]),
    ],
)
def test_warmup_comes_before_any_schedule(given: dict[str, Any], after: list[float]) -> None:
    """The rate grows linearly to its full height, and from there the schedule runs as without a warmup."""
    assert rates(Scheduler(warmup_epochs=3, **given), 7) == pytest.approx([0.25, 0.5, 0.75, *after])


@pytest.mark.parametrize(
    "given",
    [
        {"name": "none"},
        {"name": "step", "step_size": 1},
        {"name": "plateau", "patience": 0},
        {"name": "cosine"},
        {"name": "cosine", "eta_min": 2e-6},
    ],
)
def test_schedule_keeps_the_heads_factor(given: dict[str, Any]) -> None:
    """The head's rate stays its multiple of the body's throughout, down to the lowest."""
    optimizer = build_optimizer(
        Optimizer(lr=1e-5, head_lr_factor=100, stage_lr_decay=0.1), network(), by_stage=True
    )
    run = Run(
        optimizer=Optimizer(lr=1e-5),
        scheduler=Scheduler(warmup_epochs=2, **given),
        training=Training(epochs=6),
    )
    for epoch in range(1, 10):
        first, last, head = (lr_in(epoch, g["peak_lr"], run, epoch // 3) for g in optimizer.param_groups)
        assert (first, head) == pytest.approx((last / 10, last * 100))
