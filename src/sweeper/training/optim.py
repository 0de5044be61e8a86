"""Optimizers and learning-rate schedules: torch's own, set up from the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from sweeper import schema

log = logging.getLogger(__name__)

# ------------------------------------------------------------------------------------------- optimizer

# The fastest for small networks. On one CPU thread a step of SGD takes 58 µs fused, 96 foreach, 99 in a loop;
# one of Adam 123, 324 and 344. RMSprop has no fused form.
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "rmsprop": (torch.optim.RMSprop, {"foreach": True}),
}
HAVE_MOMENTUM = frozenset({"sgd", "rmsprop"})


def build_optimizer(settings: schema.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of the model's parameters that train; the head learns at ``head_lr_factor`` times ``lr``.

    The first parameter group has ``lr`` itself. ``momentum=null`` is 0.
    """
    constructor, options = OPTIMIZERS[settings.name]
    if settings.name in HAVE_MOMENTUM:
        options = options | {"momentum": settings.momentum or 0.0}
    elif settings.momentum is not None:
        log.warning("optimizer.momentum=%s has no effect: %s has none", settings.momentum, settings.name)
    return constructor(_parameter_groups(settings, model), lr=settings.lr, **options)


def _parameter_groups(settings: schema.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """Groups by learning rate and weight decay, those of the body before those of the head."""
    head = {id(parameter) for parameter in model.get_submodule("head").parameters()}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Biases and the scales and shifts of norm layers are the parameters of one dimension.
            decays = parameter.ndim > 1 or settings.decay_norm_and_bias
            in_head = settings.head_lr_factor != 1 and id(parameter) in head
            groups.setdefault((in_head, settings.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.lr * (settings.head_lr_factor if in_head else 1),
            "weight_decay": decay,
        }
        for (in_head, decay), parameters in sorted(groups.items(), key=lambda group: group[0][0])
    ]


# ------------------------------------------------------------------------------------------- scheduler


class Schedule:
    """A linear warmup, then one of torch's schedulers; ``step`` once at the end of every epoch.

    torch's SequentialLR cannot pass a metric on to ReduceLROnPlateau.
    """

    def __init__(
        self,
        main: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler] | None,
        optimizer: torch.optim.Optimizer,
        warmup_epochs: int,
    ) -> None:
        # The main one is built first: it must see the full learning rates, not those of the warmup.
        self._main = None if main is None else main(optimizer)
        self._n_warmup_left = warmup_epochs
        self._warmup = None
        if warmup_epochs > 0:
            start = 1 / (warmup_epochs + 1)
            self._warmup = lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=warmup_epochs)

    def step(self, metric: float) -> None:
        """Set the learning rates of the next epoch, knowing the monitored quantity of this one."""
        if self._warmup is not None and self._n_warmup_left > 0:
            self._n_warmup_left -= 1
            self._warmup.step()
        elif isinstance(self._main, lr_scheduler.ReduceLROnPlateau):
            self._main.step(metric)
        elif self._main is not None:
            self._main.step()


def build_scheduler(
    settings: schema.Scheduler, optimizer: torch.optim.Optimizer, epochs: int, monitor: str = "val_loss"
) -> Schedule:
    """The schedule of the learning rates over ``epochs``; ``plateau`` waits for ``monitor`` to improve.

    The warmup begins at 1 / (warmup_epochs + 1) of the rate and reaches it after ``warmup_epochs``.
    """

    def step(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.StepLR(optimizer, settings.step_size or epochs, settings.gamma)

    def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        mode = "max" if monitor == "val_accuracy" else "min"
        return lr_scheduler.ReduceLROnPlateau(optimizer, mode, settings.factor, settings.patience)  # type: ignore[arg-type]

    def cosine(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        t_max = settings.t_max or max(1, epochs - settings.warmup_epochs)
        return lr_scheduler.CosineAnnealingLR(optimizer, t_max, settings.eta_min)

    schedulers = {"none": None, "step": step, "plateau": plateau, "cosine": cosine}
    return Schedule(schedulers[settings.name], optimizer, settings.warmup_epochs)
