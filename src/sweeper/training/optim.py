"""torch's optimizers, set up from the settings, and the learning rate of each epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, inf, pi, prod
from typing import Any

import torch
from torch import nn

from sweeper import schema
from sweeper.training.freeze import Stage

log = logging.getLogger(__name__)

THRESHOLD = 1e-4
"""Smallest relative improvement that plateau notices; torch's default."""

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
    """An optimizer of all parameters that ever train, the frozen ones among them.

    A frozen parameter has no gradient and is skipped; when its stage unfreezes, it joins at the learning rate
    that the schedule has reached by then. ``momentum=null`` is 0.
    """
    info = OPTIMIZERS[settings.name]
    momentum = {"momentum": settings.momentum or 0.0} if info.has_momentum else {}
    if settings.momentum is not None and not info.has_momentum:
        log.warning("optimizer.momentum=%s has no effect: %s has none", settings.momentum, settings.name)
    return info.constructor(_parameter_groups(settings, stages), lr=settings.lr, **info.options, **momentum)


def lr_factors(settings: schema.Optimizer, n_stages: int) -> list[float]:
    """Each stage's factor on ``lr``, from input to head.

    The head has ``head_lr_factor``, the last stage of the body 1, and each earlier stage ``stage_lr_decay``
    times the factor of the next (as in Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2).
    """
    body = [settings.stage_lr_decay**distance for distance in range(n_stages - 1)]
    return [*reversed(body), settings.head_lr_factor]


def _parameter_groups(settings: schema.Optimizer, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Groups by highest learning rate, weight decay and first epoch, in the order of the stages.

    Parameters that unfreeze later have a group of their own: torch's fused SGD wants all momenta of a group
    to begin together.
    """
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for factor, stage in zip(lr_factors(settings, len(stages)), stages, strict=True):
        if stage.first_epoch is None:
            continue
        for parameter in stage.parameters:
            # Biases and the scales and shifts of norm layers are the parameters of one dimension.
            decays = parameter.ndim > 1 or settings.decay_norm_and_bias
            key = (settings.lr * factor, settings.weight_decay if decays else 0.0, stage.first_epoch)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak_lr": peak, "weight_decay": decay}
        for (peak, decay, _), parameters in groups.items()
    ]


# ------------------------------------------------------------------------------------------- scheduler


def lr_in(epoch: int, peak: float, run: schema.Run, n_reductions: int) -> float:
    """The learning rate of a parameter group in an epoch, counted from 1.

    All groups keep the ratios of their peaks.

    Args:
        peak: the group's highest rate.
        n_reductions: how often ``Plateau`` has reduced the rates.
    """
    settings = run.scheduler
    # 1) Warm-up: linear, from 1 / (warmup_epochs + 1) of the peak.
    if epoch <= settings.warmup_epochs:
        return peak * epoch / (settings.warmup_epochs + 1)
    n_done = epoch - settings.warmup_epochs - 1
    # 2) Reduced factor by factor, as torch does: a power would differ in the last bit.
    if settings.name == "step":
        return prod([settings.gamma] * (n_done // (settings.step_size or run.training.epochs)), start=peak)
    if settings.name == "plateau":
        return prod([settings.factor] * n_reductions, start=peak)
    # 3) Half a cosine, down to the group's multiple of eta_min; torch's would end at eta_min in every group.
    if settings.name == "cosine":
        t_max = settings.t_max or max(1, run.training.epochs - settings.warmup_epochs)
        lowest = settings.eta_min / run.optimizer.lr
        return peak * (lowest + (1 - lowest) * (1 + cos(pi * n_done / t_max)) / 2)
    # 4) Constant.
    return peak


class Plateau:
    """Counts how often the monitored quantity stopped improving, by the rules of torch's ReduceLROnPlateau.

    The epochs of the warm-up do not count.
    """

    def __init__(self, settings: schema.Scheduler, monitor: str) -> None:
        self._settings = settings
        self._minimizes = schema.DIRECTIONS[monitor] == "minimize"
        self._best = inf if self._minimizes else -inf
        self._n_waited = 0
        self.n_reductions = 0

    def see(self, epoch: int, value: float) -> None:
        """Take in the monitored quantity after an epoch, counted from 1."""
        if epoch <= self._settings.warmup_epochs:
            return
        if self._improves(value):
            self._best, self._n_waited = value, 0
        else:
            self._n_waited += 1
        if self._n_waited > self._settings.patience:
            self.n_reductions, self._n_waited = self.n_reductions + 1, 0

    def _improves(self, value: float) -> bool:
        if self._minimizes:
            return value < self._best * (1 - THRESHOLD)
        return value > self._best * (1 + THRESHOLD)
