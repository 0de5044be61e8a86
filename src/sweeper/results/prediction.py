"""What the best model says of the validation images: where it errs, how sure it is, and on which pictures."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from sweeper.fault import Fault, disk
from sweeper.record import RunFiles, whole

N_WORST = 8
N_DOUBTFUL = 8
"""Pictures that are kept as thumbnails: a screen each on a phone, and 100 kB in all (see ``thumbnail``)."""
N_BINS = 15
"""As in ``training.metric``: Guo et al. 2017."""
_Z = 1.959964
"""Of the interval that holds 95 %."""

_DAMAGES = (ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is none of ours, or half of one."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Labels = NDArray[np.integer]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """The logits of a model on the validation images, in their order, and thumbnails of some of these.

    ``labels`` are int64 (n,), or uint8 (n, n_labels) of 0 and 1 if images may have several.
    ``shown`` (k,) are the positions of the worst and the most doubtful images; ``thumbnails`` is uint8
    (k, side, side, 1 or 3), and ``names`` are those of their files within the dataset, empty where the data
    have none.
    """

    logits: Logits
    labels: Labels
    classes: tuple[str, ...]
    shown: Indices
    thumbnails: NDArray[np.uint8]
    names: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def probabilities(self) -> Floats:
        return probabilities(self.labels, self.logits)

    def write(self, files: RunFiles) -> None:
        """Write ``predictions.npz``, which can be read without the dataset.

        Logits are float32, as they were measured: float16 would make ties, and another accuracy.
        """
        with whole(files.predictions) as path, path.open("wb") as file:
            np.savez_compressed(
                file,
                logits=self.logits,
                labels=self.labels,
                classes=np.array(self.classes, dtype=np.str_),
                shown=self.shown,
                thumbnails=self.thumbnails,
                names=np.array(self.names, dtype=np.str_),
            )

    @classmethod
    def read(cls, files: RunFiles) -> Predictions | None:
        """Those of a run of ours; None where it has left none.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.is_ours or not files.predictions.exists():
            return None
        try:
            with disk(files.predictions), np.load(files.predictions, allow_pickle=False) as found:
                read = cls(
                    logits=found["logits"],
                    labels=found["labels"],
                    classes=tuple(map(str, found["classes"])),
                    shown=found["shown"],
                    thumbnails=found["thumbnails"],
                    names=tuple(map(str, found["names"])),
                )
                read._check()
        except _DAMAGES as error:
            reason = "holds no predictions: the file is damaged"
            raise Fault(files.predictions, reason, "restore an intact copy, or remove it") from error
        return read

    def _check(self) -> None:
        """Raises ValueError unless all parts fit together."""
        n, n_classes = self.logits.shape
        labels, shown, pixels = self.labels, self.shown, self.thumbnails
        fits = (
            labels.shape == ((n, n_classes) if self.multi_label else (n,))
            and len(self.classes) == n_classes > 0
            and len(shown) == len(pixels) == len(self.names)
            and pixels.ndim == 4
            and pixels.dtype == np.uint8
            and pixels.shape[-1] in (1, 3)
            and all(array.size == 0 or 0 <= array.min() <= array.max() for array in (labels, shown))
            and shown.max(initial=-1) < n
            and labels.max(initial=0) < (2 if self.multi_label else n_classes)
        )
        if not fits:
            raise ValueError("its parts do not fit together")


# --------------------------------------------------------------------------------------- of each image


def probabilities(labels: Labels, logits: Logits) -> Floats:
    """The softmax (n, n_classes) of the logits; for several labels their sigmoid."""
    exact = logits.astype(np.float64)
    if labels.ndim == 2:
        sigmoid: Floats = np.exp(-np.logaddexp(0, -exact))
        return sigmoid
    shifted = np.exp(exact - exact.max(1, keepdims=True))
    softmax: Floats = shifted / shifted.sum(1, keepdims=True)
    return softmax


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
    return _first(-np.nan_to_num(losses(labels, logits), nan=np.inf), n)


def doubtful(labels: Labels, logits: Logits, n: int = N_DOUBTFUL) -> Indices:
    """The images whose answers were nearest to another, the nearest first."""
    return _first(margins(labels, logits), n)


def picked(labels: Labels, logits: Logits) -> Indices:
    """The images that are kept as thumbnails, each once."""
    return np.unique(np.concatenate([worst(labels, logits), doubtful(labels, logits)]))


def _first(values: Floats, n: int) -> Indices:
    first: Indices = np.argsort(values, kind="stable")[:n].astype(np.int64)
    return first


# ---------------------------------------------------------------------------------------- of each class


def answers(logits: Logits) -> Indices:
    """The class (n,) that is said of images with one label."""
    return logits.argmax(1).astype(np.int64)


def confusion(labels: Labels, logits: Logits) -> Indices:
    """How many images of each class (row) were taken for each (column): (n_classes, n_classes)."""
    n_classes = logits.shape[1]
    cells = labels.astype(np.int64) * n_classes + answers(logits)
    counts: Indices = np.bincount(cells, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


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


def reliability(labels: Labels, logits: Logits) -> list[Bin]:
    """Answers in the bins of ``training.metric``'s calibration error, whose empty ones are left out.

    They are equal in width, so that the figure shows what the error adds up: the intervals say where few
    answers stand behind a point. As in torchmetrics, answers of exactly 1 are a bin of their own. For several
    labels each label of each image is an answer, "right" if the image has it.
    """
    said = probabilities(labels, logits)
    if labels.ndim == 2:
        sure, right = said.ravel(), labels.ravel() > 0
    else:
        sure = said.max(1).astype(np.float32).astype(np.float64)
        right = answers(logits) == labels
    where = np.searchsorted(np.linspace(0, 1, N_BINS + 1).astype(np.float32), sure, side="right") - 1
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
    share, z2 = n_right / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)
