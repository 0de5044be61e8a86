"""Loss and metrics on images that are not trained on.

The metrics are torchmetrics'; means are over the classes (or labels) that the images have: one that no image
shows does not count. n images of C classes; p is the softmax of the logits, or the sigmoid for several
labels; "said" are the class with the largest logit, or the labels with p ≥ 0.5; TP, FP, FN, TN count them.

======================  ==========================================  =====================================
metric                  one label each                              several labels
======================  ==========================================  =====================================
accuracy                share of images whose class is said         not measured
mean_average_precision  mean over classes of Σ (Rₖ − Rₖ₋₁) Pₖ, one  the same over labels
                        class against the rest, ranked by p
f1                      not measured                                macro_f1, by its older name
macro_f1                mean over classes of                        the same over labels
                        2 TP / (2 TP + FP + FN)
balanced_accuracy       mean over classes of TP / (TP + FN)         mean over labels of the mean of
                                                                    TP / (TP + FN) and TN / (TN + FP)
auroc                   mean over classes of the area under the     the same over labels
                        ROC curve, one class against the rest
top5_accuracy           share of images whose class has one of the  not measured
                        five largest logits
cohen_kappa             (pₒ − pₑ) / (1 − pₑ): said and true         mean over labels of the same
                        classes agree beyond chance
calibration_error       Σ (nᵦ / n) |share right − mean p| over 15   the same over all n C probabilities,
                        equal bins of the said class's p            with the share that have the label
======================  ==========================================  =====================================

auroc and cohen_kappa, and for several labels balanced_accuracy, compare images with and without a class, and
are over those that have both. Sources: Brodersen et al. 2010 (balanced accuracy), Cohen 1960 (kappa), Guo et
al. 2017 (calibration error); scikit-learn says the same of all but the last, which it has not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sweeper import schema

PerClass = dict[str, dict[str, int | float | None]]
"""Scores by the name of the class."""

_WORST = {name: 1.0 if metric.minimize else 0.0 for name, metric in schema.METRICS.items()}
"""Of a network that diverged."""


def load(names: Collection[str]) -> None:
    """Import what these metrics need, if any does: so no epoch waits for it."""
    if not set(names).isdisjoint(schema.BY_LIBRARY):
        _library()


@torch.inference_mode()
def measure(logits: Tensor, labels: Tensor, names: Collection[str] | None = None) -> dict[str, float]:
    """The ``loss`` and the metrics, by name; those that these labels leave undefined are not there.

    The loss is cross entropy for labels (n,), and binary cross entropy for labels (n, n_labels) of 0 and 1;
    it has no smoothing or weights, so that trials compare.

    Args:
        names: of the metrics; by default the usual ones for this kind of labels.
    """
    multi_label = labels.ndim == 2
    names = schema.USUAL[multi_label] if names is None else names
    loss = (binary_cross_entropy_with_logits if multi_label else cross_entropy)(logits, labels)
    answers = _Answers(logits, labels)
    measured = {"loss": loss} | ({"accuracy": answers.accuracy} if "accuracy" in names else {})
    others = [name for name in schema.BY_LIBRARY if name in names]
    if others:
        counts = count(labels, logits.shape[1])
        others = [name for name in others if not schema.undefined(name, counts, len(labels), multi_label)]
        if not bool(torch.isfinite(logits).all()):
            return _told(measured) | {name: _WORST[name] for name in others}  # diverged
        measured |= {name: _MEASURES[name](answers) for name in others}
    return _told(measured)


def _told(measured: dict[str, Tensor]) -> dict[str, float]:
    """All numbers at once, as each by itself would wait for the device."""
    return dict(
        zip(measured, torch.stack([value.double() for value in measured.values()]).tolist(), strict=True)
    )


def count(labels: Tensor, n_classes: int) -> list[int]:
    """The images of each class."""
    return _truths(labels, n_classes).sum(0).tolist()


@torch.inference_mode()
def by_class(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> PerClass:
    """For each class its ``n_images``, ``precision``, ``recall`` and ``f1``, for several labels also its
    ``average_precision``; None where no image has it.

    The precision of a class that is never said is 0, as scikit-learn and torchmetrics have it.
    """
    answers = _Answers(logits, labels)
    rows = [answers.truths.sum(0), answers.said.sum(0), (answers.truths & answers.said).sum(0)]
    found: PerClass = {}
    for name, n, n_said, n_right in zip(classes, *torch.stack(rows).tolist(), strict=True):
        found[name] = {
            "n_images": n,
            "precision": (n_right / n_said if n_said else 0.0) if n else None,
            "recall": n_right / n if n else None,
            "f1": 2 * n_right / (n + n_said) if n else None,
        }
    if labels.ndim == 2:
        there = answers.there.tolist()
        precisions = (
            _average_precision(answers).tolist() if there and bool(torch.isfinite(logits).all()) else []
        )
        known = dict(zip(there, precisions, strict=False))
        for i, row in enumerate(found.values()):
            row["average_precision"] = known.get(i, 0.0 if row["n_images"] else None)
    return found


# ----------------------------------------------------------------------------------------- by torchmetrics


class _Answers:
    """What metrics compare, for either kind of labels as columns: a class against the rest, or a label."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.logits, self.labels = logits, labels

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def answer(self) -> Tensor:
        """Of images with one label, the class (n,) that is said."""
        return self.logits.argmax(1)

    @property
    def accuracy(self) -> Tensor:
        return (self.answer == self.labels).sum().double() / len(self.labels)

    @cached_property
    def truths(self) -> Tensor:
        return _truths(self.labels, self.logits.shape[1])

    @cached_property
    def said(self) -> Tensor:
        return self.logits >= 0 if self.multi_label else _truths(self.answer, self.logits.shape[1])

    @cached_property
    def probabilities(self) -> Tensor:
        """In double, as float32 would round large logits to 1, and so make ties of them."""
        logits = self.logits.double()
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    @cached_property
    def scores(self) -> Tensor:
        """By which images are ranked: those of labels are ranks, which no sigmoid can round."""
        if not self.multi_label:
            return self.probabilities
        by_label = self.logits.T.contiguous()
        return torch.searchsorted(by_label.sort(1).values, by_label).T.double() / len(self.logits)

    @cached_property
    def there(self) -> Tensor:
        """The columns that some image has."""
        return self.truths.any(0).nonzero().flatten()

    @cached_property
    def contrasted(self) -> Tensor:
        """The columns that some image has and another has not."""
        return (self.truths.any(0) & ~self.truths.all(0)).nonzero().flatten()


def _truths(labels: Tensor, n_classes: int) -> Tensor:
    """Whether each image is of each class: bool (n, n_classes)."""
    if labels.ndim == 2:
        return labels > 0
    return labels[:, None] == torch.arange(n_classes, device=labels.device)


def _library() -> Any:
    return importlib.import_module(schema.METRIC_LIBRARY)


def _ranked(metric: str, answers: _Answers, columns: Tensor) -> Tensor:
    """A metric of torchmetrics for each of the columns, from the ranking of the images."""
    return _of_columns(metric, answers.scores, answers.truths, columns)


def _decided(metric: str, answers: _Answers, columns: Tensor) -> Tensor:
    """A metric of torchmetrics for each of the columns, from what is said."""
    return _of_columns(metric, answers.said.int(), answers.truths, columns)


def _of_columns(metric: str, given: Tensor, truths: Tensor, columns: Tensor) -> Tensor:
    function = getattr(_library(), f"multilabel_{metric}")
    given, truths = given[:, columns], truths[:, columns].int()
    values: Tensor = function(given, truths, len(columns), average="none", validate_args=False)
    return values.reshape(-1)  # of one column there is only a number


def _average_precision(answers: _Answers) -> Tensor:
    return _ranked("average_precision", answers, answers.there)


def _macro_f1(answers: _Answers) -> Tensor:
    return _decided("f1_score", answers, answers.there).mean()


def _balanced_accuracy(answers: _Answers) -> Tensor:
    if not answers.multi_label:
        return _decided("recall", answers, answers.there).mean()
    sides = [_decided(side, answers, answers.contrasted) for side in ("recall", "specificity")]
    return torch.stack(sides).mean()


def _top5_accuracy(answers: _Answers) -> Tensor:
    return _library().multiclass_accuracy(  # type: ignore[no-any-return]
        answers.logits,
        answers.labels,
        answers.logits.shape[1],
        top_k=5,
        average="micro",
        validate_args=False,
    )


def _cohen_kappa(answers: _Answers) -> Tensor:
    """On the CPU: on a GPU its matrix product would be rounded to TF32 where that is allowed."""
    with _counting():
        if not answers.multi_label:
            given, truths = answers.answer.cpu(), answers.labels.cpu()
            kappa = _library().multiclass_cohen_kappa
            value: Tensor = kappa(given, truths, answers.logits.shape[1], validate_args=False)
            return value.to(answers.logits.device)
        kappa, columns = _library().binary_cohen_kappa, answers.contrasted
        given, truths = answers.said[:, columns].int().cpu(), answers.truths[:, columns].int().cpu()
        values = [kappa(*column, validate_args=False) for column in zip(given.T, truths.T, strict=True)]
        return torch.stack(values).mean().to(answers.logits.device)


@contextmanager
def _counting() -> Iterator[None]:
    """Let torchmetrics count with ``bincount``, which is deterministic for integers.

    Where torch is told to be deterministic it makes a table of images × cells instead: 800 MB for 10,000
    images of 100 classes.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _calibration_error(answers: _Answers) -> Tensor:
    given = answers.probabilities
    if answers.multi_label:
        function, given, truths = (
            _library().binary_calibration_error,
            given.flatten(),
            answers.truths.flatten(),
        )
        return function(given, truths.int(), n_bins=15, validate_args=False)  # type: ignore[no-any-return]
    return _library().multiclass_calibration_error(  # type: ignore[no-any-return]
        given, answers.labels, given.shape[1], n_bins=15, validate_args=False
    )


_MEASURES: dict[str, Callable[[_Answers], Tensor]] = {
    "mean_average_precision": lambda answers: _average_precision(answers).mean(),
    "f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "auroc": lambda answers: _ranked("auroc", answers, answers.contrasted).mean(),
    "top5_accuracy": _top5_accuracy,
    "cohen_kappa": _cohen_kappa,
    "calibration_error": _calibration_error,
}
