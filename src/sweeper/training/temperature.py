"""One number by which logits are divided, so that probabilities mean what they say (Guo et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0
"""Beyond these the fit follows a handful of pictures."""
_MOST_STEPS = 60
_PRECISION = 1e-9
_MOST_LOGITS = 2**22
"""Of so many one number is known to a percent or two: the rest would cost seconds a trial."""


@torch.no_grad()
def fit(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which the mean loss is least; labels are (n,), or (n, n_labels) of 0 and 1.

    1 where there is no such thing: nothing is known, the network diverged, or all is right, so that the loss
    would fall for ever.
    """
    every = -(-logits.numel() // _MOST_LOGITS) or 1
    logits, labels = logits.detach()[::every].float().cpu(), labels[::every].cpu()
    if not logits.numel() or not bool(logits.isfinite().all()) or _is_all_right(logits, labels):
        return 1.0
    return 1 / _best_factor(logits, labels)


def _is_all_right(logits: Tensor, labels: Tensor) -> bool:
    if labels.ndim == 2:
        return bool((torch.where(labels > 0, logits, -logits) > 0).all())
    return bool((logits.argmax(1) == labels).all())


def _best_factor(logits: Tensor, labels: Tensor) -> float:
    """Where the slope of the loss is zero: it only grows, as the loss is convex in the factor on the logits.

    Newton's steps, or halves of what is left where such a step leads out of that.
    """
    low, high, factor = 1 / HIGHEST, 1 / LOWEST, 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = _slope_and_curvature(logits, labels, factor)
        if slope == 0:
            break
        low, high = (factor, high) if slope < 0 else (low, factor)
        step = factor - slope / curvature if curvature > 0 else low
        before, factor = factor, step if low < step < high else (low + high) / 2
        if abs(factor - before) < _PRECISION * factor:
            break
    return factor


def _slope_and_curvature(logits: Tensor, labels: Tensor, factor: float) -> tuple[float, float]:
    """Of the summed loss by the factor on the logits."""
    logits = logits.double()
    if labels.ndim == 2:
        p = (logits * factor).sigmoid()
        return float(((p - labels.double()) * logits).sum()), float((p * (1 - p) * logits**2).sum())
    p = (logits * factor).softmax(1)
    mean = (p * logits).sum(1, keepdim=True)
    slope = float((mean - logits.gather(1, labels[:, None])).sum())
    return slope, float((p * (logits - mean) ** 2).sum())
