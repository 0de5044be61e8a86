"""What a model's logits say of images whose labels are known: losses, mistakes, and how sure it is.

Labels are (n,), indices of classes; or (n, n_labels) of 0 and 1 if images may have several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

N_WORST = 8
N_DOUBTFUL = 8
"""Pictures of each kind that a person is shown."""
N_BINS = 15
"""As in ``training.metric``: Guo et al. 2017."""
Z = 1.959964
"""Of the interval that holds 95 %."""

_QUIET = np.errstate(invalid="ignore")
"""The logits of a training that diverged are NaN or infinite, as what follows from them is."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Labels = NDArray[np.integer]
Logits = NDArray[np.float32]


# --------------------------------------------------------------------------------------- of each image


@_QUIET
def probabilities(labels: Labels, logits: Logits) -> Floats:
    """The softmax (n, n_classes) of the logits; for several labels their sigmoid."""
    exact = logits.astype(np.float64)
    if labels.ndim == 2:
        sigmoid: Floats = np.exp(-np.logaddexp(0, -exact))
        return sigmoid
    shifted = np.exp(exact - exact.max(1, keepdims=True))
    softmax: Floats = shifted / shifted.sum(1, keepdims=True)
    return softmax


@_QUIET
def losses(labels: Labels, logits: Logits) -> Floats:
    """The cross entropy (n,) of each image; for several labels the mean over them of the binary one."""
    exact = logits.astype(np.float64)
    if labels.ndim == 2:
        loss: Floats = (np.logaddexp(0, exact) - labels * exact).mean(1)
        return loss
    of_class: Floats = np.logaddexp.reduce(exact, 1) - exact[np.arange(len(labels)), labels]
    return of_class


def margins(labels: Labels, logits: Logits) -> Floats:
    """How far (n,) each answer is from another: between the two likeliest classes' probabilities, or from
    0.5 for the least certain of several labels.
    """
    said = probabilities(labels, logits)
    if labels.ndim == 2:
        nearest: Floats = np.abs(said - 0.5).min(1)
        return nearest
    if said.shape[1] < 2:
        return np.ones(len(said))
    two = np.partition(said, -2, axis=1)[:, -2:]
    margin: Floats = two[:, 1] - two[:, 0]
    return margin


def worst(labels: Labels, logits: Logits, n: int = N_WORST) -> Indices:
    """The images of the highest loss, the worst first."""
    return first(-np.nan_to_num(losses(labels, logits), nan=np.inf), n)


def doubtful(labels: Labels, logits: Logits, n: int = N_DOUBTFUL) -> Indices:
    """The images whose answers were nearest to another, the nearest first."""
    return first(margins(labels, logits), n)


def picked(labels: Labels, logits: Logits) -> Indices:
    """The images that are kept as thumbnails, each once."""
    return np.unique(np.concatenate([worst(labels, logits), doubtful(labels, logits)]))


def first(values: Floats | Indices, n: int) -> Indices:
    """The positions of the n smallest values; of equal ones the first."""
    order: Indices = np.argsort(values, kind="stable")[:n].astype(np.int64)
    return order


# ---------------------------------------------------------------------------------------- of each class


def answers(logits: Logits) -> Indices:
    """The class (n,) that is said of images with one label."""
    said: Indices = logits.argmax(1).astype(np.int64)
    return said


def confusion(labels: Labels, logits: Logits) -> Indices:
    """How many images of each class (row) were taken for each (column): (n_classes, n_classes)."""
    n_classes = logits.shape[1]
    cells = labels.astype(np.int64) * n_classes + answers(logits)
    table: Indices = np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)
    return table


@dataclass(frozen=True)
class Mistake:
    """So many of all images that are ``true`` were said to be ``said``."""

    true: str
    said: str
    n: int
    of: int


def most_confused(
    labels: Labels, logits: Logits, classes: Sequence[str], most: int | None = None
) -> list[Mistake]:
    """The mistakes that were made, the most frequent first, and of equal ones those of rarer classes.

    Of several labels each has two: said of images without it, and not said of images that have it.
    """
    found = _of_labels(labels, logits, classes) if labels.ndim == 2 else _of_classes(labels, logits, classes)
    return sorted(found, key=lambda mistake: (-mistake.n, mistake.of))[:most]


def _of_classes(labels: Labels, logits: Logits, classes: Sequence[str]) -> Iterator[Mistake]:
    table = confusion(labels, logits)
    of = table.sum(1)
    np.fill_diagonal(table, 0)
    for true, said in np.argwhere(table):
        yield Mistake(classes[true], classes[said], int(table[true, said]), int(of[true]))


def _of_labels(labels: Labels, logits: Logits, classes: Sequence[str]) -> Iterator[Mistake]:
    has, said = labels.astype(bool), logits >= 0
    for name, of_label, of_answer in zip(classes, has.T, said.T, strict=True):
        for true, other, there in ((name, f"no {name}", of_label), (f"no {name}", name, ~of_label)):
            wrong = int((there & (of_answer != of_label)).sum())
            if wrong:
                yield Mistake(true, other, wrong, int(there.sum()))


# -------------------------------------------------------------------------------------------- how sure


@dataclass(frozen=True)
class Bin:
    """Answers of about the same probability: its mean, and the share that was right, with the 95 % interval
    of Wilson 1927.
    """

    said: float
    right: float
    n: int
    low: float
    high: float


def binned(labels: Labels, logits: Logits) -> tuple[Floats, NDArray[np.bool_], Indices]:
    """How sure each answer is, whether it is right, and in which of ``N_BINS`` + 1 bins it stands.

    They are equal in width, but as in torchmetrics answers of exactly 1 are a bin of their own. For several
    labels each label of each image is an answer, "right" if the image has it.
    """
    said = probabilities(labels, logits)
    if labels.ndim == 2:
        sure, right = said.ravel(), labels.ravel() > 0
    else:
        sure = said.max(1).astype(np.float32).astype(np.float64)
        right = answers(logits) == labels
    where = np.searchsorted(np.linspace(0, 1, N_BINS + 1).astype(np.float32), sure, side="right") - 1
    return sure, np.asarray(right), where


def reliability(labels: Labels, logits: Logits) -> list[Bin]:
    """Answers in the bins of ``training.metric``'s calibration error, whose empty ones are left out.

    They are equal in width, so that the figure shows what the error adds up: the intervals say where few
    answers stand behind a point.
    """
    sure, right, where = binned(labels, logits)
    bins = []
    for each in np.unique(where):
        of_bin = where == each
        n, n_right = int(of_bin.sum()), int(right[of_bin].sum())
        bins.append(Bin(float(sure[of_bin].mean()), n_right / n, n, *wilson(n_right, n)))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """By how much the probabilities differ from the shares that are right, in the mean over all answers."""
    return sum(each.n * abs(each.right - each.said) for each in bins) / sum(each.n for each in bins)


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927), which also holds for few, and for none or all."""
    share, z2 = n_right / n, Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)
