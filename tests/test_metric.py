"""Metrics, on answers that are counted by hand, and beside scikit-learn's."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn.functional import one_hot

from sweeper import schema
from sweeper.training.fit import Epoch
from sweeper.training.metric import by_class, count, measure
from tests.program import run

ONE_LABEL = [name for name, metric in schema.METRICS.items() if metric.one_label]
SEVERAL_LABELS = [name for name, metric in schema.METRICS.items() if metric.several_labels]


def test_accuracy_counts_the_largest_logit() -> None:
    """One label each: the share of images whose largest logit is the label's, and the plain cross entropy."""
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    measured = measure(logits, torch.tensor([0, 1, 1, 1]))
    assert measured["accuracy"] == 0.75
    losses = [math.log(1 + math.exp(-gap)) for gap in (2, 2, -1, 1)]
    assert measured["loss"] == pytest.approx(sum(losses) / 4)


def test_mean_average_precision_and_f1() -> None:
    """Several labels each: means over the labels, a probability of 0.5 being a yes.

    First label: by score the truths stand 1, 0, 1, 0, so precision is 1 at the first hit and 2/3 at the
    second: 5/6; three yeses, two of them right, none missed: F1 4/5. Second label: 0, 1, 0, 0, so 1/2; one
    yes, which is wrong: F1 0.
    """
    logits = torch.tensor([[3.0, -1.0], [2.0, 1.0], [1.0, -2.0], [-1.0, -3.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    measured = measure(logits, labels)
    assert measured["mean_average_precision"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert measured["f1"] == pytest.approx((4 / 5 + 0) / 2)
    assert "accuracy" not in measured


def test_a_label_that_no_image_has_does_not_count() -> None:
    """Neither metric is defined for it, so the means are those of the other labels."""
    logits = torch.tensor([[3.0, 1.0], [-2.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    measured = measure(logits, labels)
    assert (measured["mean_average_precision"], measured["f1"]) == (1.0, 1.0)


def test_where_no_image_has_any_label_nothing_but_the_loss_is_measured() -> None:
    """A part of the data may be like that."""
    assert set(measure(torch.zeros(3, 2), torch.zeros(3, 2))) == {"loss"}


def test_a_network_that_diverged_finds_nothing() -> None:
    """Logits that are no numbers end in a loss that is none, not in an error."""
    measured = measure(torch.full((2, 2), math.nan), torch.eye(2))
    assert math.isnan(measured["loss"])
    assert (measured["mean_average_precision"], measured["f1"]) == (0.0, 0.0)


def drawn(n: int, n_classes: int, ties: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Logits and labels (n,) that agree more often than chance; the last two classes are on no image."""
    torch.manual_seed(n)
    labels = torch.randint(0, max(1, n_classes - 2), (n,))
    logits = (torch.randn(n, n_classes) + 2 * one_hot(labels, n_classes)) * scale
    return logits.round() if ties else logits, labels


CASES = [(200, 10, False, 1), (200, 10, True, 1), (1, 8, False, 1), (60, 7, False, 100), (5000, 12, False, 1)]


@pytest.mark.parametrize(("n", "n_classes", "ties", "scale"), CASES)
def test_one_label_as_scikit_learn_has_it(n: int, n_classes: int, ties: bool, scale: float) -> None:
    """Means over the classes that images have, to six decimals; a single image has no auroc and no kappa."""
    logits, labels = drawn(n, n_classes, ties, scale)
    p, truths, said = logits.double().softmax(1).numpy(), labels.numpy(), logits.argmax(1).numpy()
    there = np.unique(truths)
    options = {"labels": there, "average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": metrics.accuracy_score(truths, said),
        "mean_average_precision": np.mean(
            [metrics.average_precision_score(truths == i, p[:, i]) for i in there]
        ),
        "balanced_accuracy": metrics.recall_score(truths, said, **options),
        "macro_f1": metrics.f1_score(truths, said, **options),
        "calibration_error": calibration_error(p.max(1), said == truths),
    }
    if not ties:  # which of two equal logits is among the five is nobody's promise
        expected["top5_accuracy"] = metrics.top_k_accuracy_score(truths, p, k=5, labels=range(n_classes))
    if len(there) > 1:
        expected["auroc"] = np.mean([metrics.roc_auc_score(truths == i, p[:, i]) for i in there])
        expected["cohen_kappa"] = metrics.cohen_kappa_score(truths, said)
    measured = measure(logits, labels, ONE_LABEL)
    assert {"loss", "top5_accuracy", *expected} == measured.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize(("n", "n_labels", "ties", "scale"), CASES)
def test_several_labels_as_scikit_learn_has_it(n: int, n_labels: int, ties: bool, scale: float) -> None:
    """Means over the labels, to six decimals, however large the logits are; the first is on no image, the
    last on all. A logit of 0 is a yes.
    """
    torch.manual_seed(n)
    labels = (torch.rand(n, n_labels) < torch.linspace(0, 1, n_labels)).float()
    logits = (torch.randn(n, n_labels) + labels) * scale
    logits = logits.round() if ties else logits
    columns = [(truth.numpy(), score.numpy()) for truth, score in zip(labels.T, logits.T, strict=True)]
    there = [(truth, score) for truth, score in columns if truth.any()]
    both = [(truth, score) for truth, score in there if not truth.all()]
    p = logits.double().sigmoid().numpy()
    f1 = np.mean([metrics.f1_score(truth, score >= 0, zero_division=0.0) for truth, score in there])
    expected = {
        "mean_average_precision": np.mean([metrics.average_precision_score(*column) for column in there]),
        "f1": f1,
        "macro_f1": f1,
        "calibration_error": calibration_error(p.ravel(), labels.numpy().ravel()),
    }
    if both:
        expected |= {
            "auroc": np.mean([metrics.roc_auc_score(*column) for column in both]),
            "cohen_kappa": np.mean([metrics.cohen_kappa_score(truth, s >= 0) for truth, s in both]),
            "balanced_accuracy": np.mean(
                [metrics.balanced_accuracy_score(truth, s >= 0) for truth, s in both]
            ),
        }
    measured = measure(logits, labels, SEVERAL_LABELS)
    assert measured.keys() == {"loss", *expected}
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=1e-6), name


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Of 15 equal bins, as Guo et al. define it; the last has only p = 1, as torchmetrics has it."""
    bins = np.floor(p.astype(np.float32) * np.float32(15)).astype(int)
    parts = [bins == i for i in np.unique(bins)]
    return float(sum(part.mean() * abs(right[part].mean() - p[part].mean()) for part in parts))


@pytest.mark.parametrize("several", [False, True])
def test_the_scores_of_each_class(several: bool) -> None:
    """As scikit-learn's; None where no image has a class; the precision of what is never said is 0."""
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (50,))
    logits = torch.randn(50, 5) + one_hot(labels, 5)
    logits[:, 2] = -9
    labels = one_hot(labels, 5).float() if several else labels
    truths = labels.numpy() if several else one_hot(labels, 5).numpy()
    said = logits.numpy() >= 0 if several else one_hot(logits.argmax(1), 5).numpy()
    scores = metrics.precision_recall_fscore_support(truths, said, zero_division=0.0)
    told = by_class(logits, labels, "abcde")
    assert list(told) == list("abcde")
    for i, (name, row) in enumerate(told.items()):
        expected = [float(score[i]) if i < 3 else None for score in scores[:3]]
        assert row["n_images"] == scores[3][i]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(expected), name
        if several and i < 3:
            precision = metrics.average_precision_score(truths[:, i], logits[:, i].numpy())
            assert row["average_precision"] == pytest.approx(precision)
        else:
            assert row.get("average_precision") is None


@pytest.mark.parametrize("several", [False, True])
def test_a_class_for_all_leaves_contrasts_undefined(several: bool) -> None:
    """What cannot be told of such images is not there, instead of NaN, and the line says why."""
    labels = torch.tensor([[1.0, 0.0]] * 3) if several else torch.zeros(3, dtype=torch.int64)
    measured = measure(torch.randn(3, 2), labels, SEVERAL_LABELS if several else ONE_LABEL[:-3])
    undefined = {"auroc", "cohen_kappa"} | ({"balanced_accuracy"} if several else set())
    assert not measured.keys() & undefined
    assert all(math.isfinite(value) for value in measured.values())
    counts = count(labels, 2)
    reason = "each label is on all or none of them" if several else "all are of one class"
    for name in undefined:
        assert schema.undefined(name, counts, 3, several) == reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("several", [False, True])
def test_a_network_that_diverged_has_the_worst_of_all_metrics(bad: float, several: bool) -> None:
    """Numbers all the same, and those of the epochs before: what is undefined is not there."""
    labels = torch.eye(8) if several else torch.arange(8)
    logits = torch.zeros(8, 8)
    logits[3, 3] = bad
    names = SEVERAL_LABELS if several else ONE_LABEL
    measured = measure(logits, labels, names)
    assert measured.keys() == {"loss", *names}
    worst = {name: measured[name] for name in names if name != "accuracy"}
    assert worst == {name: 1.0 if name == "calibration_error" else 0.0 for name in worst}
    assert by_class(logits, labels, "abcdefgh").keys() == set("abcdefgh")


def test_metrics_are_the_same_where_torch_is_told_to_be_deterministic() -> None:
    """Which a training does; and it stays told."""
    logits, labels = drawn(300, 10, False, 1)
    before = measure(logits, labels, ONE_LABEL)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert measure(logits, labels, ONE_LABEL) == before
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_epoch_has_a_place_for_each_metric() -> None:
    """In the order in which they are told."""
    names = [field.name for field in fields(Epoch) if field.name.startswith("val_")]
    assert names == ["val_loss", *(f"val_{name}" for name in schema.METRICS)]


WITHOUT_LIBRARY = """
import sys, torch
from sweeper import run
from sweeper.training import fit, metric
metric.measure(torch.zeros(2, 2), torch.tensor([0, 1]))
metric.by_class(torch.zeros(2, 2), torch.tensor([0, 1]), "ab")
assert "torchmetrics" not in sys.modules
metric.load(["auroc"])
assert "torchmetrics" in sys.modules
"""


@pytest.mark.slow
def test_nobody_waits_for_a_library_that_is_not_needed(tmp_path: Path) -> None:
    """Importing torchmetrics takes a second: loss, accuracy and the scores of classes do without."""
    done = run(tmp_path, "-c", WITHOUT_LIBRARY)
    assert done.returncode == 0, done.stderr
