"""Optimizers and learning-rate schedules: torch's own, set up from the settings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from sweeper import schema
from sweeper.training.freeze import Stage

log = logging.getLogger(__name__)

# ------------------------------------------------------------------------------------------- optimizer


@dataclass(frozen=True)
class OptimizerInfo:
    """One of torch's optimizers: how to construct it, and whether it takes ``momentum``."""

    constructor: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any]
    has_momentum: bool = False


# These options are the fastest for small networks. On one CPU thread a step of SGD takes 58 µs fused, 96
# foreach, 99 in a loop; a step of Adam 123, 324 and 344. RMSprop has no fused form.
OPTIMIZERS = {
    "sgd": OptimizerInfo(torch.optim.SGD, {"fused": True}, has_momentum=True),
    "adam": OptimizerInfo(torch.optim.Adam, {"fused": True}),
    "adamw": OptimizerInfo(torch.optim.AdamW, {"fused": True}),
    "rmsprop": OptimizerInfo(torch.optim.RMSprop, {"foreach": True}, has_momentum=True),
}


def build_optimizer(settings: schema.Optimizer, stages: Sequence[Stage]) -> torch.optim.Optimizer:
    """An optimizer of all parameters that ever train; those that are still frozen wait in it.

    A frozen parameter has no gradient and is skipped, so that a stage that thaws joins with the learning rate
    to which the schedule has brought its group by then. ``momentum=null`` is 0.
    """
    info = OPTIMIZERS[settings.name]
    momentum = {"momentum": settings.momentum or 0.0} if info.has_momentum else {}
    if settings.momentum is not None and not info.has_momentum:
        log.warning("optimizer.momentum=%s has no effect: %s has none", settings.momentum, settings.name)
    return info.constructor(_parameter_groups(settings, stages), lr=settings.lr, **info.options, **momentum)


def lr_factors(settings: schema.Optimizer, n_stages: int) -> list[float]:
    """What each stage's learning rate is a multiple of ``lr`` by, from the image to the head.

    The head has ``head_lr_factor``, the last stage of the body 1, each one before ``stage_lr_decay`` times
    the next one's (as in Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2).
    """
    body = [settings.stage_lr_decay**distance for distance in range(n_stages - 1)]
    return [*reversed(body), settings.head_lr_factor]


def lr_of(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the last stage of the body, of which the others' are multiples."""
    plain = [group["lr"] for group in optimizer.param_groups if group["lr_factor"] == 1]
    first = optimizer.param_groups[0]
    return float(plain[0] if plain else first["lr"] / first["lr_factor"])


def _parameter_groups(settings: schema.Optimizer, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Groups by learning rate, weight decay and first epoch, in the order of the stages.

    What thaws later is in a group of its own: torch's fused SGD wants a group's momenta to begin together.
    """
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for factor, stage in zip(lr_factors(settings, len(stages)), stages, strict=True):
        if stage.first_epoch is None:
            continue
        for parameter in stage.parameters:
            # Biases and the scales and shifts of norm layers are the parameters of one dimension.
            decays = parameter.ndim > 1 or settings.decay_norm_and_bias
            key = (factor, settings.weight_decay if decays else 0.0, stage.first_epoch)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": own, "lr": settings.lr * factor, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay, _), own in groups.items()
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
        # eps=0: else small rates stop falling, while the other groups' go on.
        mode = {"minimize": "min", "maximize": "max"}[schema.DIRECTIONS[monitor]]
        return lr_scheduler.ReduceLROnPlateau(optimizer, mode, settings.factor, settings.patience, eps=0)  # type: ignore[arg-type]

    def cosine(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        # torch's CosineAnnealingLR brings every group down to the same eta_min; here each keeps its multiple.
        t_max = settings.t_max or max(1, epochs - settings.warmup_epochs)
        lowest = settings.eta_min / lr_of(optimizer)
        return lr_scheduler.LambdaLR(
            optimizer, lambda epoch: lowest + (1 - lowest) * (1 + math.cos(math.pi * epoch / t_max)) / 2
        )

    schedulers = {"none": None, "step": step, "plateau": plateau, "cosine": cosine}
    return Schedule(schedulers[settings.name], optimizer, settings.warmup_epochs)
