"""The metrics of ``training.metric`` as functions of weights, so that one may ask what other pictures of the
same kind would have given: a picture of weight 2 counts as if it were there twice, and one of weight 0 as if
it were not.

All weightings are measured at once, in numpy. Labels are (n,), indices of classes; or (n, n_labels) of 0 and
1 if images may have several. A metric that the pictures left by a weighting leave undefined is NaN there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.results import answer
from sweeper.results.answer import Floats, Labels, Logits

LOSS = "loss"
"""The name of the metric that is in no table."""


def weighted(metric: str, labels: Labels, logits: Logits, weights: Floats) -> Floats:
    """The metric (B,) for each row of weights (B, n). With weights of 1 it is that of ``training.metric``.

    Args:
        metric: ``loss``, or one of ``schema.METRICS``.
        weights: not negative; in each row one is above 0.
    """
    if metric in MEANS:
        mean: Floats = weights @ each(metric, labels, logits) / weights.sum(1)
        return mean
    if not np.isfinite(logits).all():  # diverged
        return np.full(len(weights), 1.0 if schema.METRICS[metric].minimize else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _MEASURES[metric](_Answers(labels, logits, weights))


def each(metric: str, labels: Labels, logits: Logits) -> Floats:
    """What each picture (n,) adds to a metric that is a mean over pictures, one of ``MEANS``."""
    return MEANS[metric](labels, logits)


def _right(labels: Labels, logits: Logits) -> Floats:
    return np.asarray(logits.argmax(1) == labels, dtype=np.float64)


def _right_of_five(labels: Labels, logits: Logits) -> Floats:
    five = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return np.asarray((five == labels[:, None]).any(1), dtype=np.float64)


MEANS: dict[str, Callable[[Labels, Logits], Floats]] = {
    LOSS: answer.losses,
    "accuracy": _right,
    "top5_accuracy": _right_of_five,
}
"""The metrics that are means over the pictures; the others compare pictures with each other."""


@dataclass(frozen=True)
class _Answers:
    """What metrics compare, for either kind of labels as columns: a class against the rest, or a label."""

    labels: Labels
    logits: Logits
    weights: Floats

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def truths(self) -> NDArray[np.bool_]:
        if self.multi_label:
            return np.asarray(self.labels > 0)
        return np.asarray(self.labels[:, None] == np.arange(self.logits.shape[1]))

    @cached_property
    def said(self) -> NDArray[np.bool_]:
        if self.multi_label:
            return np.asarray(self.logits >= 0)
        return np.asarray(self.logits.argmax(1)[:, None] == np.arange(self.logits.shape[1]))

    def summed(self, what: NDArray[Any]) -> Floats:
        """The weights (B, m) of what is true in the columns of (n, m)."""
        from scipy.sparse import csr_array  # most searches need none of it

        found: Floats = (csr_array(what.T.astype(np.float64)) @ self.weights.T).T
        return found

    @cached_property
    def n(self) -> Floats:
        """(B, 1)."""
        return np.asarray(self.weights.sum(1, keepdims=True))

    @cached_property
    def n_true(self) -> Floats:
        return self.summed(self.truths)

    @cached_property
    def n_said(self) -> Floats:
        return self.summed(self.said)

    @cached_property
    def n_right(self) -> Floats:
        """The true positives."""
        return self.summed(self.truths & self.said)

    @property
    def there(self) -> NDArray[np.bool_]:
        """The columns (B, m) that some image has."""
        return np.asarray(self.n_true > 0)

    @property
    def contrasted(self) -> NDArray[np.bool_]:
        """The columns that some image has and another has not."""
        return np.asarray((self.n_true > 0) & (self.summed(~self.truths) > 0))


def _mean_where(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """Over the columns that count, for each row; NaN where none does."""
    mean: Floats = np.where(where, values, 0).sum(1) / where.sum(1)
    return mean


def _macro_f1(answers: _Answers) -> Floats:
    return _mean_where(2 * answers.n_right / (answers.n_true + answers.n_said), answers.there)


def _balanced_accuracy(answers: _Answers) -> Floats:
    recall = answers.n_right / answers.n_true
    if not answers.multi_label:
        return _mean_where(recall, answers.there)
    n_false = answers.n - answers.n_true
    specificity = (n_false - answers.n_said + answers.n_right) / n_false
    return _mean_where((recall + specificity) / 2, answers.contrasted)


def _cohen_kappa(answers: _Answers) -> Floats:
    n, true, said = answers.n, answers.n_true, answers.n_said
    if answers.multi_label:
        agreed = (2 * answers.n_right + n - true - said) / n
        chance = (true * said + (n - true) * (n - said)) / n**2
        return _mean_where((agreed - chance) / (1 - chance), answers.contrasted)
    agreed = answers.n_right.sum(1) / n[:, 0]
    chance = (true * said).sum(1) / n[:, 0] ** 2
    kappa: Floats = (agreed - chance) / (1 - chance)
    return kappa


def _calibration_error(answers: _Answers) -> Floats:
    from scipy.sparse import csr_array

    sure, right, where = answer.binned(answers.labels, answers.logits)
    gaps, n_each = right - sure, 1
    images = np.arange(len(answers.labels))
    if answers.multi_label:
        n_each = answers.labels.shape[1]
        images = np.repeat(images, n_each)
    shape = (answer.N_BINS + 1, len(answers.labels))
    of_bins = csr_array((gaps, (where, images)), shape=shape)  # those of one image and bin add up
    error: Floats = np.abs(of_bins @ answers.weights.T).sum(0) / (n_each * answers.n[:, 0])
    return error


# --------------------------------------------------------------------------------------------- by ranking


@dataclass(frozen=True)
class _Ranking:
    """The images that are of one column's class, by its score, the highest first: sums of weights (m, B) of
    other images and of them. Those of equal score are one step of the ranking.
    """

    weights: Floats
    true_to_end: Floats
    """Of the class, from the first to the last of the image's step."""
    all_to_end: Floats
    false_to_middle: Floats
    """Not of the class, and half of those in the image's step."""

    @classmethod
    def of(cls, scores: Floats, truths: NDArray[np.bool_], weights: Floats) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        ordered, where = -scores[order], np.flatnonzero(truths[order])
        of_all, of_true = _summed(weights[order]), _summed(weights[order[where]])
        begin = np.searchsorted(ordered, ordered[where], side="left")
        end = np.searchsorted(ordered, ordered[where], side="right")
        true_to_begin = of_true[np.searchsorted(where, begin)]
        true_to_end, all_to_end = of_true[np.searchsorted(where, end)], of_all[end]
        false = of_all[begin] - true_to_begin + all_to_end - true_to_end
        return cls(weights[order[where]], true_to_end, all_to_end, false / 2)


def _summed(weights: Floats) -> Floats:
    """Up to each row, from 0 on."""
    return np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(weights, axis=0)])


def _rankings(answers: _Answers) -> list[_Ranking]:
    weights = np.ascontiguousarray(answers.weights.T)
    scores = answers.logits.astype(np.float64) if answers.multi_label else _probabilities(answers)
    columns = zip(scores.T, answers.truths.T, strict=True)
    return [_Ranking.of(column, truths, weights) for column, truths in columns]


def _probabilities(answers: _Answers) -> Floats:
    return answer.probabilities(answers.labels, answers.logits)


def _mean_average_precision(answers: _Answers) -> Floats:
    found = []
    for one in _rankings(answers):
        precision = np.where(one.all_to_end > 0, one.true_to_end / one.all_to_end, 0)
        found.append((one.weights * precision).sum(0) / one.weights.sum(0))
    return _mean_where(np.stack(found, 1), answers.there)


def _auroc(answers: _Answers) -> Floats:
    """Of each class, how many of the others stand below its images: that is the area under the curve."""
    found = []
    for one in _rankings(answers):
        true = one.weights.sum(0)
        above = (one.weights * one.false_to_middle).sum(0)
        found.append(1 - above / (true * (answers.n[:, 0] - true)))
    return _mean_where(np.stack(found, 1), answers.contrasted)


_MEASURES: dict[str, Callable[[_Answers], Floats]] = {
    "mean_average_precision": _mean_average_precision,
    "f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "auroc": _auroc,
    "cohen_kappa": _cohen_kappa,
    "calibration_error": _calibration_error,
}

NAMES = frozenset({*MEANS, *_MEASURES})
"""All of them."""
