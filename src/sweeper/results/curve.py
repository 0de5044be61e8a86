"""One curve, a value for each epoch: its noise, its course, and where it went flat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_TO_SIGMA = 1.4826
"""The standard deviation of normal numbers, in units of their median absolute deviation."""


def noise(values: Sequence[float] | Values) -> float:
    """The standard deviation of single values around their own course.

    By the median of the second differences, which a straight course leaves at 0, and which an outlier does
    not move (Rousseeuw & Croux 1993). 0 for fewer than four values.
    """
    if len(values) < 4:
        return 0.0
    bends = np.diff(np.asarray(values, dtype=float), 2)
    # Of independent numbers the second differences have 6 times the variance.
    return float(np.median(np.abs(bends)) * _TO_SIGMA / np.sqrt(6))


def smooth(values: Sequence[float] | Values, width: int = 3) -> Values:
    """Medians of each value and its neighbours; at the ends of those that there are."""
    half = width // 2
    padded = np.asarray(values, dtype=float)
    return np.array([np.median(padded[max(0, i - half) : i + half + 1]) for i in range(len(padded))])


def last(values: Sequence[float] | Values, share: float = 0.25) -> float:
    """The median of the last quarter, or of another share, of at least one value."""
    n = max(1, round(len(values) * share))
    return float(np.median(np.asarray(values, dtype=float)[-n:]))


def fall(values: Sequence[float] | Values, share: float = 0.25) -> float:
    """By how much the last quarter lies below the quarter before, as the difference of their means.

    Between two epochs for the shortest curves; 0 for one value.
    """
    n = len(values)
    if n < 2:
        return 0.0
    k = min(max(1, round(n * share)), n // 2)
    some = np.asarray(values, dtype=float)
    return float(some[-2 * k : -k].mean() - some[-k:].mean())


def fall_noise(values: Sequence[float] | Values, share: float = 0.25) -> float:
    """The standard deviation that ``fall`` has by noise alone."""
    n = len(values)
    k = min(max(1, round(n * share)), max(1, n // 2))
    return noise(values) * float(np.sqrt(2 / k))


def is_falling(values: Sequence[float] | Values, share: float = 0.25) -> bool:
    """Whether the last quarter lies below the one before by more than twice the noise.

    A bend counts as noise in a short curve, so that one of which each value is lower falls, too.
    """
    drop = fall(values, share)
    if 1 < len(values) < 8 and bool((np.diff(np.asarray(values, dtype=float)) < 0).all()):
        return True
    return drop > 0 and drop > 2 * fall_noise(values, share)


def rises(values: Sequence[float] | Values) -> Values:
    """The steps upward, 0 where the curve falls."""
    return np.maximum(np.diff(np.asarray(values, dtype=float)), 0)


def flat_since(values: Sequence[float] | Values, tolerance: float) -> int:
    """The first epoch, counted from 1, whose smoothed value no later one is below by more than this."""
    course = smooth(values)
    lowest = np.minimum.accumulate(course[::-1])[::-1]
    return int(np.argmax(course - lowest <= tolerance)) + 1


def first_below(values: Sequence[float] | Values, level: float) -> int | None:
    """The first epoch, counted from 1, whose value is below a level; None if there is none."""
    below = np.flatnonzero(np.asarray(values, dtype=float) < level)
    return int(below[0]) + 1 if len(below) else None


def ahead(values: Sequence[float] | Values) -> float:
    """Where the curve would be after as many epochs again, if it keeps the speed of its second half.

    Speeds are relative: what halved in the second half will halve twice.
    """
    course = smooth(values)
    n = len(course)
    if n < 2 or course[-1] <= 0 or course[(n - 1) // 2] <= 0:
        return float(course[-1])
    factor = float(course[-1] / course[(n - 1) // 2])
    return float(course[-1] * min(1.0, factor) ** ((n - 1) / max(1, n - 1 - (n - 1) // 2)))
