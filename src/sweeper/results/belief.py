"""What the end of a search can say of its best trial at no cost: how sure its value is, who is not worse,
and how much of it is luck.

All of it follows from what the trials say of the validation pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper import ranking
from sweeper.fault import Fault
from sweeper.results import answer
from sweeper.results.study_record import StudyRecord
from sweeper.structure import structured
from sweeper.words import counted, digits, measured, sentence, some, whole

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeper.results.answer import Logits
    from sweeper.results.comparison import Comparison
    from sweeper.results.val_logits import ValLogits

BROKEN_BY = {
    "val_loss": "has the lowest validation loss",
    "seconds": "took the least time",
    "number": "was the first",
}
"""What a tie is broken by, and how it is told of who won it."""

MOST_NAMED = 10
"""Trials that are named one by one; more are counted."""

_SHARES = frozenset({"val_accuracy", "val_top5_accuracy"})
"""Metrics that are shares of the pictures."""
_BOUNDS = {"val_loss": (0.0, math.inf), "val_cohen_kappa": (-1.0, 1.0)}
"""Of the metrics that are not within 0 and 1."""


@dataclass(frozen=True)
class Estimate:
    """A value that was measured on a sample of pictures, with its 95 % interval."""

    metric: str
    trial: int
    value: float
    low: float | None
    """None where nothing is known of the pictures."""
    high: float | None

    @property
    def half(self) -> float | None:
        """What stands behind ±."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def told(self) -> str:
        """``val_accuracy 0.983 ± 0.007``."""
        return f"{self.metric} {measured(self.value, self.half)}"


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
    n_others: int
    """Other trials that completed."""
    n_pictures: int | None = None
    """Validation pictures behind the intervals."""
    tied: tuple[int, ...] = ()
    """Other trials that reached the same value."""
    tie_broken_by: str | None = None
    """A key of ``BROKEN_BY``; None where nobody tied."""
    not_worse: tuple[int, ...] | None = None
    """Other trials that are not shown to be worse, the best first; None where none could be compared."""
    differences: tuple[Difference, ...] = ()
    """To the best, of the other trials that were compared, the best first."""
    n_compared: int = 0
    """Other trials whose answers to the same pictures are known."""
    cheapest: int | None = None
    """Of those not worse, the one that took the least time; None where none took less than the best."""
    cheapest_cost: float | None = None
    """Its time, as a share of the best trial's."""
    luck: float | None = None
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
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def from_json(found: object) -> Belief | None:
    """What ``to_json`` wrote; None for anything else, as another version may have written it."""
    try:
        belief = structured(Belief, found)
    except ValueError:
        return None
    is_known = belief.tie_broken_by is None or belief.tie_broken_by in BROKEN_BY
    return belief if belief.best and is_known else None


def of(record: StudyRecord) -> Belief | None:
    """What can be said of a study's best trial; None while no trial has completed.

    Only trials whose answers to the best one's validation pictures are kept can be compared with it. Where
    some are gone by now, as after ``sweeper clean``, what was written of the same trials is still true.
    """
    found = _of_now(record)
    if found is None or (found.low is not None and found.n_compared == found.n_others):
        return found
    try:
        written = from_json(record.files.read_belief())
    except Fault:  # damaged
        return found
    if written is None or written.n_others != found.n_others or _values(written) != _values(found):
        return found
    return max(found, written, key=lambda belief: (belief.low is not None, belief.n_compared))


def _values(belief: Belief) -> list[tuple[str, int, float]]:
    return [(one.metric, one.trial, one.value) for one in belief.best]


def _of_now(record: StudyRecord) -> Belief | None:
    done = ranking.ranked(record.trials, record.directions)
    if not done:
        return None
    if len(record.directions) > 1:
        return _of_front(record)
    tied = ranking.tied(record.trials, record.directions)
    found = _compare(record, record.metrics[0], done)
    belief = Belief(
        best=(_estimate(record.metrics[0], done[0], done[0].values[0], found),),
        n_others=len(done) - 1,
        n_pictures=None if found is None else found.n_pictures,
        tied=tuple(trial.number for trial in tied if trial.number != done[0].number),
        tie_broken_by=ranking.broken_by(tied),
    )
    return belief if found is None or len(found.trials) < 2 else _of_others(belief, record, found, done)


@dataclass(frozen=True)
class _Compared:
    """Trials on the same pictures, the best first."""

    trials: list[FrozenTrial]
    comparison: Comparison
    n_pictures: int


def _of_front(record: StudyRecord) -> Belief:
    """Of several objectives: nobody wins all of them, so only their values are told."""
    front, best, n_pictures = ranking.best(record.trials, record.directions), [], None
    for i, (metric, direction) in enumerate(zip(record.metrics, record.directions, strict=True)):
        sign = -1 if direction == "maximize" else 1
        first = min(front, key=lambda trial: (sign * trial.values[i], trial.number))  # is called here
        found = _compare(record, metric, [first])
        best.append(_estimate(metric, first, first.values[i], found))
        n_pictures = n_pictures if found is None else found.n_pictures
    n_others = sum(trial.state.name == "COMPLETE" for trial in record.trials) - 1
    return Belief(tuple(best), n_others, n_pictures)


def _of_others(belief: Belief, record: StudyRecord, found: _Compared, done: Sequence[FrozenTrial]) -> Belief:
    from sweeper.results import luck

    sign = -1 if record.directions[0] == "minimize" else 1
    comparison = found.comparison
    behind = comparison.values - comparison.values[0]
    halves = comparison.halves(0)
    others = range(1, len(found.trials))
    not_worse = tuple(found.trials[i].number for i in others if behind[i] + halves[i] >= 0)
    values = np.array([sign * trial.values[0] for trial in done])
    cheapest, cost = _cheapest(record, belief.trial, not_worse)
    return replace(
        belief,
        not_worse=not_worse,
        differences=tuple(
            Difference(
                found.trials[i].number,
                float(sign * behind[i]),
                float(sign * behind[i] - halves[i]),
                float(sign * behind[i] + halves[i]),
            )
            for i in others
        ),
        n_compared=len(others),
        cheapest=cheapest,
        cheapest_cost=cost,
        luck=luck.expected(values[np.isfinite(values)], comparison.noise(0)),
    )


def _cheapest(record: StudyRecord, best: int, others: Iterable[int]) -> tuple[int | None, float | None]:
    """Who of the others took less time than the best, and the least; and its share of that."""
    from sweeper.results import standing

    seconds = {price.number: price.cost for price in standing.prices(record, "seconds")}
    known = [number for number in others if number in seconds]
    if best not in seconds or not known:
        return None, None
    cheapest = min(known, key=lambda number: (seconds[number], number))
    if seconds[cheapest] >= seconds[best]:
        return None, None
    return cheapest, seconds[cheapest] / seconds[best]


def _compare(record: StudyRecord, metric: str, trials: Sequence[FrozenTrial]) -> _Compared | None:
    """The trials whose answers to the first one's pictures are kept; None where its own are not."""
    from sweeper.results import comparison, score

    name = metric.removeprefix("val_")
    first = _kept(record, trials[0])
    if name == metric or name not in score.NAMES or first is None or not len(first.labels):
        return None
    known = [trials[0]]

    def read() -> Iterator[Logits]:
        yield first.logits.astype(np.float32)
        for trial in trials[1:]:
            kept = _kept(record, trial)
            if kept is not None and kept.pictures == first.pictures:
                known.append(trial)
                yield kept.logits.astype(np.float32)

    found = comparison.compared(name, first.labels, read(), len(trials))
    is_finite = np.isfinite(found.values) & np.isfinite(found.deviations).all(1)
    if not is_finite[0]:
        return None
    kept = [trial for trial, finite in zip(known, is_finite, strict=True) if finite]
    found = replace(found, values=found.values[is_finite], deviations=found.deviations[is_finite])
    return _Compared(kept, found, len(first.labels))


def _kept(record: StudyRecord, trial: FrozenTrial) -> ValLogits | None:
    from sweeper.results.val_logits import ValLogits

    try:
        return ValLogits.read(record.run(trial))
    except Fault:  # the others can be compared
        return None


def _estimate(metric: str, trial: FrozenTrial, value: float, found: _Compared | None) -> Estimate:
    """With the interval of Wilson 1927 for shares of pictures, which also holds for none or all of them; for
    other metrics by the spread over samples of pictures. Those that have a highest value get no interval
    narrower than a share would have there.
    """
    if found is None or not math.isfinite(value):
        return Estimate(metric, trial.number, value, None, None)
    n = found.n_pictures
    if metric in _SHARES:
        low, high = answer.wilson(round(value * n), n)
    else:
        lowest, highest = _BOUNDS.get(metric, (0.0, 1.0))
        least = 0.0 if math.isinf(highest) else answer.Z**2 / (n + answer.Z**2)
        half = max(least, answer.Z * found.comparison.spread(0))
        low, high = max(lowest, value - half), min(highest, value + half)
    return Estimate(metric, trial.number, value, low, high)


# ------------------------------------------------------------------------------------------------ in words


def lines(belief: Belief) -> list[str]:
    """One or two lines for a terminal."""
    if not belief.has_winner:
        told = "; ".join(f"{one.told()} (trial {one.trial})" for one in belief.best)
        return [f"best of each: {told}{_pictures(belief)}"]
    first = [f"{belief.best[0].told()}{_pictures(belief)}", *_alone(belief), *_luck(belief)]
    second = [*_ties(belief), *_others(belief)]
    return ["; ".join(part) for part in (first, second) if part]


def sentences(belief: Belief) -> list[str]:
    """The same lines as sentences; a metric keeps the letters of its name."""
    return [f"{line}." if line.startswith(belief.metric) else sentence(line) for line in lines(belief)]


def named(numbers: Sequence[int]) -> str:
    """``trial 7``, ``trials 7, 12``; of many the first."""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {some(map(str, numbers), MOST_NAMED)}"


def _pictures(belief: Belief) -> str:
    if belief.n_pictures is None or all(one.low is None for one in belief.best):
        return ""
    return f" ({counted(belief.n_pictures, 'picture')}; ± is half of a 95 % interval)"


def _alone(belief: Belief) -> list[str]:
    return [] if belief.low is not None else ["measured once: nothing says how much it varies"]


def _luck(belief: Belief) -> list[str]:
    if belief.luck is None or (half := belief.best[0].half) is None:
        return []
    n = digits(half)
    told = f"{max(0.0, belief.luck):.{n}f}"
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
    told = f"{told}, {belief.not_worse[0]}," if n == 1 else told
    left = belief.n_others - belief.n_compared
    how = "paired over the pictures, 95 %, corrected for looking at all of them" + (
        f"; {left} could not be compared" if left else ""
    )
    if not n:
        are = "is" if belief.n_compared == 1 else "are"
        return [f"{whole(belief.n_compared, 'other trial')} {are} worse ({how})"]
    found = [f"{told} {'is' if n == 1 else 'are'} not worse ({how})"]
    if belief.cheapest is not None and belief.cheapest_cost is not None:
        share = f"{max(1, round(100 * belief.cheapest_cost))} % of the time"
        who = f"the cheapest of them is trial {belief.cheapest}, at {share}"
        found.append(f"it takes {share}" if n == 1 else who)
    return found
