"""Loss and metrics on images that are not trained on."""

from __future__ import annotations

from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def measure(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The ``loss`` and the metrics for this kind of labels, by name.

    For labels (n,): cross entropy and ``accuracy`` in 0 … 1. For labels (n, n_labels) of 0 and 1: binary
    cross entropy, ``mean_average_precision`` and ``f1``. The loss has no smoothing or weights, so that trials
    compare.
    """
    if labels.ndim == 1:
        n_correct = (logits.argmax(1) == labels).sum()
        return {"loss": cross_entropy(logits, labels).item(), "accuracy": n_correct.item() / len(labels)}
    loss = binary_cross_entropy_with_logits(logits, labels)
    return {"loss": loss.item(), **_measure_labels(logits.cpu(), labels.cpu())}


def _measure_labels(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Means over the labels that some image has, as both are undefined for others; f1's threshold is 0.5."""
    from sklearn.metrics import average_precision_score, f1_score

    if not bool(torch.isfinite(logits).all()):
        return {"mean_average_precision": 0.0, "f1": 0.0}  # diverged
    columns = [(truth.numpy(), score.numpy()) for truth, score in zip(labels.T, logits.T, strict=True)]
    columns = [(truth, score) for truth, score in columns if truth.any()]
    if not columns:
        return {}
    return {
        "mean_average_precision": fmean(average_precision_score(truth, score) for truth, score in columns),
        "f1": fmean(f1_score(truth, score >= 0, zero_division=0.0) for truth, score in columns),
    }
