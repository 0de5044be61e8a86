"""The losses to train with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sweeper import schema


def build_loss(
    settings: schema.Loss, labels: Tensor, n_classes: int, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean loss of logits (n, n_classes) and labels: (n,), or (n, n_classes) of 0 and 1.

    ``labels`` are the training labels, from which ``balanced`` weights follow: for a class
    len(labels) / (n_classes * its count), as in scikit-learn; for the presence of a label the number of
    images without it divided by the number with it, as PyTorch recommends for BCEWithLogitsLoss.

    Raises:
        BadInput: unless there is one weight per class.
    """
    schema.check_weights("class_weights", settings.class_weights, n_classes)
    schema.check_weights("pos_weight", settings.pos_weight, n_classes)
    return LOSSES[settings.name](settings, labels, n_classes, device)


def part_of(loss_of: Callable[[Tensor, Tensor], Tensor], some: Tensor, labels: Tensor) -> Tensor | float:
    """Share (0 … 1) of some of a batch's images in the mean loss of the whole batch.

    All images count alike, except that cross entropy's mean is weighted by their classes.
    """
    weight = getattr(loss_of, "weight", None)
    if weight is None:
        return len(some) / len(labels)
    share: Tensor = weight[some].sum() / weight[labels].sum()
    return share


def _cross_entropy(
    settings: schema.Loss, labels: Tensor, n_classes: int, device: torch.device
) -> nn.CrossEntropyLoss:
    counts = torch.bincount(labels, minlength=n_classes) if settings.class_weights == "balanced" else None
    balanced = None if counts is None else len(labels) / (n_classes * counts)
    weight = _weights(settings.class_weights, balanced, device)
    return nn.CrossEntropyLoss(weight, label_smoothing=settings.label_smoothing)


def _bce_with_logits(
    settings: schema.Loss, labels: Tensor, n_classes: int, device: torch.device
) -> nn.BCEWithLogitsLoss:
    n_with = labels.sum(0)
    n_without = len(labels) - n_with
    # A label that all images have would weigh 0 and never be learnt.
    balanced = torch.where(n_without > 0, n_without / n_with, 1.0)
    return nn.BCEWithLogitsLoss(pos_weight=_weights(settings.pos_weight, balanced, device))


def _weights(setting: Any, balanced: Tensor | None, device: torch.device) -> Tensor | None:
    if setting is None:
        return None
    weights = balanced if setting == "balanced" else torch.tensor(setting)
    assert weights is not None
    return weights.to(device, torch.float32)


LOSSES: dict[str, Callable[[schema.Loss, Tensor, int, torch.device], nn.Module]] = {
    "cross_entropy": _cross_entropy,
    "bce_with_logits": _bce_with_logits,
}
