"""The metrics as functions of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sweeper import schema
from sweeper.results import score
from sweeper.training import metric as measured

ONE_LABEL = [name for name, metric in schema.METRICS.items() if metric.one_label is not None]
SEVERAL = [name for name, metric in schema.METRICS.items() if metric.several_labels is not None]
CASES = [*((False, name) for name in ("loss", *ONE_LABEL)), *((True, name) for name in ("loss", *SEVERAL))]


def pictures(multi_label: bool, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits with ties, and with one class that no picture has."""
    rng = np.random.default_rng(3)
    logits = np.round(rng.normal(0, 2, (n, 7)), 1).astype(np.float32)
    logits[5] = logits[4]
    if multi_label:
        labels = (rng.random((n, 7)) < 0.4).astype(np.int64)
        labels[:, 2] = 0
        logits[0, 0] = 0
    else:
        labels = np.where(rng.random(n) < 0.6, logits.argmax(1), rng.integers(0, 7, n))
        labels[labels == 2] = 3
    return labels, logits


def told(name: str, labels: np.ndarray, logits: np.ndarray) -> float:
    """As training measures it."""
    names = [] if name == "loss" else [name]
    given = torch.from_numpy(labels).float() if labels.ndim == 2 else torch.from_numpy(labels)
    return measured.measure(torch.from_numpy(logits), given, names).get(name, float("nan"))


@pytest.mark.parametrize(("multi_label", "name"), CASES)
def test_weights_count_pictures(multi_label: bool, name: str) -> None:
    """With weights of 1 a metric is that of training, and with others that of so many copies of a picture."""
    labels, logits = pictures(multi_label)
    weights = np.random.default_rng(4).integers(0, 4, (5, len(labels)))
    weights[0] = 1
    found = score.weighted(name, labels, logits, weights.astype(float))
    expected = [told(name, np.repeat(labels, w, axis=0), np.repeat(logits, w, axis=0)) for w in weights]
    assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("multi_label", "name"), CASES)
def test_pictures_of_one_kind_leave_a_metric_undefined(multi_label: bool, name: str) -> None:
    """Where a weighting leaves no contrast, the metric is as training has it, or NaN where it has none."""
    labels, logits = pictures(multi_label)
    weights = np.zeros((1, len(labels)))
    weights[0, 7] = 2
    found = score.weighted(name, labels, logits, weights)
    expected = told(name, labels[[7, 7]], logits[[7, 7]])
    assert found[0] == pytest.approx(expected, abs=2e-6, nan_ok=True)


@pytest.mark.parametrize("name", ["auroc", "calibration_error", "macro_f1"])
def test_a_network_that_diverged_has_the_worst_value(name: str) -> None:
    """NaN logits give what training tells of them."""
    labels, logits = pictures(multi_label=False)
    logits[3, 1] = np.nan
    assert score.weighted(name, labels, logits, np.ones((2, len(labels)))) == pytest.approx(
        told(name, labels, logits)
    )
