"""What the end of a search can say of its best trial at no cost: how sure its value is, who is not worse,
and how much of it is luck.

All of it follows from what the trials say of the validation pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sweeper.results.study_record import StudyRecord
from sweeper.words import counted, sentence

BROKEN_BY = {
    "val_loss": "has the lowest validation loss",
    "seconds": "took the least time",
    "number": "was the first",
}
"""What a tie is broken by, and how it is told of who won it."""


@dataclass(frozen=True)
class Estimate:
    """A value that was measured on a sample of pictures, with its 95 % interval."""

    metric: str
    trial: int
    value: float
    low: float | None
    """None where nothing is known of the pictures."""
    high: float | None

    def told(self) -> str:
        """``val_accuracy 0.983 ± 0.007``."""
        if self.low is None or self.high is None:
            return f"{self.metric} {_told(self.value)}"
        half = (self.high - self.low) / 2
        n = _digits(half)
        return f"{self.metric} {_told(self.value, n)} ± {_told(half, n)}"


@dataclass(frozen=True)
class Difference:
    """What another trial reached less what the best did, on the same pictures."""

    trial: int
    value: float
    low: float
    """Of the 95 % interval, corrected for looking at all trials."""
    high: float


@dataclass(frozen=True)
class Belief:
    """What can be said of the best trial; None stands for what cannot be said."""

    best: tuple[Estimate, ...]
    """Of the best trial; of several objectives one each, of the trial that is the best by it."""
    n_pictures: int | None
    """Validation pictures behind the intervals."""
    tied: tuple[int, ...]
    """Other trials that reached the same value."""
    tie_broken_by: str | None
    """A key of ``BROKEN_BY``; None where nobody tied."""
    not_worse: tuple[int, ...] | None
    """Other trials that are not shown to be worse, the best first; None where none could be compared."""
    differences: tuple[Difference, ...]
    """To the best, of the other trials that were compared, the best first."""
    n_compared: int
    """Other trials whose answers to the same pictures are known."""
    n_others: int
    """Other trials that completed."""
    cheapest: int | None
    """Of those not worse, the one that took the least time; None where none took less than the best."""
    cheapest_cost: float | None
    """Its time, as a share of the best trial's."""
    luck: float | None
    """By how much the best trial's value is better than what its configuration reaches in the mean: what was
    won by choosing the best of so many."""

    @property
    def metric(self) -> str:
        return self.best[0].metric

    @property
    def trial(self) -> int:
        return self.best[0].trial

    @property
    def value(self) -> float:
        return self.best[0].value

    @property
    def low(self) -> float | None:
        return self.best[0].low

    @property
    def high(self) -> float | None:
        return self.best[0].high

    @property
    def has_winner(self) -> bool:
        """Whether there is one objective, by which one trial is the best."""
        return len(self.best) == 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(found: object) -> Belief | None:
    """What ``to_json`` wrote; None for anything else, as another version may have written it."""
    if not isinstance(found, Mapping) or found.keys() != {field.name for field in fields(Belief)}:
        return None
    try:
        best = tuple(Estimate(**one) for one in found["best"])
        tied, not_worse = found["tied"], found["not_worse"]
        rest = {name: found[name] for name in found.keys() - {"best", "tied", "not_worse"}}
        belief = Belief(
            best=best, tied=tuple(tied), not_worse=None if not_worse is None else tuple(not_worse), **rest
        )
    except TypeError:
        return None
    return belief if best else None


def of(record: StudyRecord) -> Belief | None:
    """What can be said of a study's best trial; None while no trial has completed."""
    raise NotImplementedError


# ------------------------------------------------------------------------------------------------ in words


def lines(belief: Belief) -> list[str]:
    """One or two lines for a terminal."""
    if not belief.has_winner:
        told = "; ".join(f"{one.told()} (trial {one.trial})" for one in belief.best)
        return [f"best of each: {told}{_pictures(belief)}"]
    first = [f"{belief.best[0].told()}{_pictures(belief)}", *_luck(belief)]
    second = [*_ties(belief), *_others(belief)]
    return ["; ".join(part) for part in (first, second) if part]


def sentences(belief: Belief) -> list[str]:
    """The same lines as sentences; a metric keeps the letters of its name."""
    return [f"{line}." if line.startswith(belief.metric) else sentence(line) for line in lines(belief)]


def _pictures(belief: Belief) -> str:
    if belief.n_pictures is None or all(one.low is None for one in belief.best):
        return ""
    return f" ({counted(belief.n_pictures, 'picture')}; ± is half of a 95 % interval)"


def _luck(belief: Belief) -> list[str]:
    if belief.luck is None or belief.low is None or belief.high is None:
        return []
    n = _digits((belief.high - belief.low) / 2)
    told = _told(abs(belief.luck), n)
    if float(told) == 0:
        return [f"less than {10.0**-n:.{n}f} of it is luck"]
    return [f"about {told} of it is luck"]


def _ties(belief: Belief) -> list[str]:
    if not belief.tied or belief.tie_broken_by is None:
        return []
    n = counted(1 + len(belief.tied), "trial")
    return [f"{n} reached it; trial {belief.trial} {BROKEN_BY[belief.tie_broken_by]}"]


def _others(belief: Belief) -> list[str]:
    if belief.not_worse is None:
        return []
    n, told = len(belief.not_worse), counted(len(belief.not_worse), "other trial")
    left = belief.n_others - belief.n_compared
    how = "paired over the pictures, 95 %, corrected for looking at all of them" + (
        f"; {left} could not be compared" if left else ""
    )
    if not n:
        return [f"{_all(belief.n_compared)} worse ({how})"]
    found = [f"{told} {'is' if n == 1 else 'are'} not worse ({how})"]
    if belief.cheapest is not None and belief.cheapest_cost is not None:
        who = "it is" if n == 1 else "the cheapest of them is"
        at = f"at {max(1, round(100 * belief.cheapest_cost))} % of the time"
        found.append(f"{who} trial {belief.cheapest}, {at}")
    return found


def _all(n: int) -> str:
    return "the other trial is" if n == 1 else f"all {n:,} other trials are"


def _digits(half: float) -> int:
    """Behind the point: enough for one of an interval's half."""
    return 3 if not half > 0 else min(8, max(3, -math.floor(math.log10(half))))


def _told(value: float, n_digits: int = 3) -> str:
    return f"{value:.{n_digits}f}"


def told(belief: Belief) -> str:
    """All of it in one paragraph."""
    return ". ".join(line[:1].upper() + line[1:] for line in lines(belief)) + "."
