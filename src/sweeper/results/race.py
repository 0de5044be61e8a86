"""The race of a certificate: who is shown to be worse, by how much, and who is trained next.

Pure functions of scores. When each of those still in has n trainings, n one of LOOKS, the best of them is
compared with each other one, by a t test of the first n trainings of each. Whoever is worse at the level of
``level(those in, n)`` drops out. The best one of all stays in with at least 95 %, whenever and however often
one looks: the error is spent over the looks, as ``spent(n)`` says, and never all of it (Lan and DeMets 1983,
doi 10.1093/biomet/70.3.659). No look depends on the budget, so that a budget may be extended and who is out
stays out. The levels follow from the joint distribution of all comparisons at all looks, and are those of the
ones still in: who is out is no longer one that the best may lose against (a step-down test: Marcus, Peritz
and Gabriel 1976, doi 10.1093/biomet/63.3.655). ``benchmarks/replay.py`` measures it.

How much trainings vary is told from a candidate's own and, by the weight of ``PRIOR_DF`` of them, from those
still in (Smyth 2004, doi 10.2202/1544-6115.1027): three trainings alone say too little of it, and those who
are out, often erratic ones, say nothing about the others.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
"""How often the best candidate of all may be called worse than another, over all looks."""

PRIOR_DF = 4.0
"""How many degrees of freedom the pooled variance has in each candidate's own."""

FIRST = 0.1
"""Share of the error that the look at two trainings may spend: they say little of how much they vary."""

LOOKS = (2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36)
"""With so many trainings of each one looks, and with each more of them beyond."""

N_DRAWN = 60_000
"""Scores drawn at each of LOOKS, from which the levels follow: each to about a tenth, all together to a
fiftieth."""

HOPE = 0.2
"""The race ends when none of those still in is likelier than that to be told apart from the best of them by
what is left of the budget; 0 would always spend it."""

N_LEAST = 3
"""Trainings that each of those still in has before the race ends for want of hope."""

POWER = 0.8
"""With what probability as many trainings more as are told would tell two apart."""

MANY = 1000
"""More trainings than that nobody makes: how many more it is is not said."""

SAME_COST = 0.1
"""Who takes so much more time than the quickest is as cheap: times vary with what else the machine does."""

MAXIMIZE, MINIMIZE = "maximize", "minimize"

WORSE, DIVERGED = "worse", "diverged"
"""Why a candidate is out."""


@dataclass(frozen=True)
class Training:
    """One that ended."""

    candidate: str
    score: float
    """NaN if it diverged."""
    block: int | None = None
    """What it shares with others, as the fold of its data; None if nothing."""


@dataclass(frozen=True)
class Out:
    """A candidate that gets no more trainings, and why."""

    candidate: str
    reason: str
    """WORSE or DIVERGED."""
    at: int
    """After how many trainings of all candidates together."""
    than: str | None
    """The one it is worse than."""
    by: float | None
    """By how much it was worse then; positive."""
    n: int | None
    """How many trainings of each were compared."""


@dataclass(frozen=True)
class Mean:
    """What a training of a candidate is expected to score."""

    candidate: str
    n: int
    """Trainings that did not diverge."""
    n_diverged: int
    value: float
    low: float
    high: float
    """The 95 % interval of the mean of fresh trainings; infinite if nothing says yet how they vary."""


@dataclass(frozen=True)
class Difference:
    """Of the means of two candidates, in the metric's own direction: positive if `of` scores higher."""

    of: str
    to: str
    value: float
    low: float
    high: float
    """The 95 % interval, at any look and for all differences to one candidate at once; infinite before each
    has two trainings."""
    told_apart: bool
    """Whether the interval leaves out 0."""
    n_more: int | None
    """About how many trainings more, of both together, would tell them apart with a probability of 80 %
    (POWER) if the difference is as it seems; 0 if they are told apart, None if more than MANY."""

    @property
    def turned(self) -> Difference:
        return Difference(self.to, self.of, -self.value, -self.high, -self.low, self.told_apart, self.n_more)


@dataclass(frozen=True)
class Race:
    """The trainings so far, and what they show."""

    candidates: tuple[str, ...]
    """In the order that breaks ties."""
    trainings: tuple[Training, ...]
    """In the order in which they ended; those of candidates that are out count, too."""
    direction: str | None
    """MAXIMIZE or MINIMIZE; None if there are several objectives, where nobody drops out."""
    defaults: str | None = None
    """The candidate that nobody searched; None if there is none."""

    @property
    def out(self) -> Mapping[str, Out]:
        """Those who dropped out, in that order: who was shown to be worse once stays out."""
        return self._course.out

    @property
    def inside(self) -> tuple[str, ...]:
        """Those still in; nobody is only where there are no candidates."""
        return tuple(one for one in self.candidates if one not in self.out)

    @cached_property
    def leader(self) -> str | None:
        """The one with the best mean of those still in; None if nobody has a score."""
        return _best(self._look.means, self.inside, self._sign)

    @cached_property
    def not_worse(self) -> tuple[str, ...]:
        """The leader, and those still in who are not told apart from it."""
        leader = self.leader
        if leader is None:
            return ()
        known = [one for one in self.inside if one in self._look.means]
        return tuple(one for one in known if one == leader or not self.difference(one, leader).told_apart)

    def mean(self, candidate: str) -> Mean | None:
        """None if it has no score."""
        look = self._look
        if candidate not in look.means:
            return None
        value, half = look.means[candidate], look.half_width(candidate)
        n_diverged = sum(t.candidate == candidate and not math.isfinite(t.score) for t in self.trainings)
        return Mean(candidate, look.n[candidate], n_diverged, value, value - half, value + half)

    def difference(self, of: str, to: str) -> Difference:
        """
        Raises:
            KeyError: if one of them has no score.
        """
        n_inside = max(self._course.sizes.get(one, len(self.inside)) for one in (of, to))
        found = self._compared.difference(of, to, n_inside)
        if not found.told_apart:
            # What was shown once stays: the interval of that look holds together with all others.
            found = self._course.apart.get((of, to), found)
        return found

    def luck(self, candidate: str, value: float) -> float | None:
        """By how much the search's value is better than the mean; None if it has no score."""
        found = self.mean(candidate)
        return None if found is None else self._sign * (value - found.value)

    def choice(self, costs: Mapping[str, float]) -> str | None:
        """The cheapest of those that are about as good as the leader and better than the defaults.

        About as good is who is not shown to be worse, with a mean within one standard error of the leader's;
        better than the defaults whose mean is above theirs by more than that. (The one standard error rule:
        Breiman, Friedman, Olshen, Stone 1984.) Where none is better, the defaults. Unknown costs are the
        highest, of equal ones the best mean decides; None if nobody has a score.
        """
        leader = self.leader
        if leader is None:
            return None
        able = [one for one in self.not_worse if self._errors_above(leader, one) <= 1]
        defaults = self.defaults if self.defaults in self.not_worse else None
        if defaults is not None:
            able = [one for one in able if self._errors_above(one, defaults) > 1] or [defaults]
        able.sort(key=lambda one: -self._sign * self._compared.means[one])
        return cheapest(able, costs)

    def _errors_above(self, one: str, other: str) -> float:
        """By how many standard errors of the difference a mean is better than another."""
        look = self._compared
        by = self._sign * (look.means[one] - look.means[other])
        return by / look.contrast(one, other).error if one != other else 0.0

    def settled(self, budget: int) -> bool:
        """Whether the rest of the budget would hardly tell those still in apart, as the last look shows."""
        look = self._course.look
        if self.direction is None or look is None or look.least < N_LEAST or len(self.inside) < 2:
            return False
        inside = [one for one in self.inside if one in look.means]
        best = _best(look.means, inside, self._sign)
        spent = sum(t.candidate in self.out for t in self.trainings)
        n = (budget - spent) // len(self.inside)
        return best is None or all(
            look.chance(best, one, n, len(self.inside)) < HOPE for one in inside if one != best
        )

    @cached_property
    def _look(self) -> _Look:
        return _Look(self.trainings, self.inside)

    @cached_property
    def _compared(self) -> _Look:
        """As `_look`, with the spread of who is out as it was known when that was shown."""
        return _Look(self.trainings, self.inside, self._course.spreads)

    @cached_property
    def _course(self) -> _Course:
        return _run(self)

    @property
    def _sign(self) -> int:
        return -1 if self.direction == MINIMIZE else 1


def next_candidate(
    candidates: Sequence[str],
    trainings: Sequence[Training],
    running: Counter[str],
    budget: int,
    direction: str | None,
) -> str | None:
    """Who is trained next: of those still in the one with the fewest trainings, by the candidates' order.

    None if the race is over: the budget is spent (by what has ended and what runs), one of several is left,
    or the rest of the budget would hardly tell those left apart. The same arguments give the same answer in
    every process; `trainings` are in the order in which they ended.
    """
    race = Race(tuple(candidates), tuple(trainings), direction)
    if len(trainings) + running.total() >= budget or race.settled(budget):
        return None
    if direction is not None and len(race.inside) < 2 <= len(candidates):
        return None
    n = Counter(t.candidate for t in trainings) + running
    return min(race.inside, key=lambda one: n[one], default=None)


def level(n_inside: int, n: int) -> float:
    """The error of one comparison, on one side, where so many are in and have n trainings each; 0 below two.

    Between two looks it is that of the last one.
    """
    at = bisect_right(LOOKS, n) - 1
    if at < 0 or n_inside < 2:
        return 0.0
    if at < len(LOOKS) - 1 or n == LOOKS[-1]:
        return _levels(n_inside)[at]
    # Beyond, as a plain sum over looks and comparisons: each n is a look.
    return (spent(n) - spent(n - 1)) * ALPHA / max(n_inside - 1, 2)


def cheapest(among: Sequence[str], costs: Mapping[str, float]) -> str | None:
    """The first, and so the best, of those that cost no more than the least but for SAME_COST."""
    least = min((costs.get(one, math.inf) for one in among), default=math.inf)
    return next((one for one in among if costs.get(one, math.inf) <= least * (1 + SAME_COST)), None)


def spent(n: int) -> float:
    """The share of the error that the looks up to n trainings of each may spend; 1 without an end."""
    return 0.0 if n < LOOKS[0] else 1 - (1 - FIRST) * LOOKS[0] / n


@cache
def _levels(n_inside: int) -> tuple[float, ...]:
    """The level of a comparison at each of LOOKS, where so many equal candidates are in.

    Under normal scores with one spread the chance that one of them is called worse follows from no unknown
    number. So they are drawn: at each look the level is the one at which as many more are called worse as
    may be. Of two, either may be called worse than the other, and both of it is at most ALPHA.
    """
    rng = np.random.default_rng(n_inside)
    shape = max(N_DRAWN // n_inside, 100), n_inside
    total, squares = np.zeros(shape), np.zeros(shape)
    lost = np.zeros(shape, bool)
    found, before = [], 0
    for n in LOOKS:
        more = n - before
        added = rng.normal(0, math.sqrt(more), shape)
        total += added
        squares += added**2 / more + (rng.chisquare(more - 1, shape) if more > 1 else 0)
        p = np.where(lost, 1.0, _p_worse(total / n, squares - total**2 / n, n, lost))
        share = (spent(n) - spent(before)) * ALPHA * (0.5 if n_inside == 2 else 1)
        at_level = float(np.partition(p, int(share * p.size), axis=None)[int(share * p.size)])
        lost |= p < at_level
        found.append(at_level)
        before = n
    return tuple(found)


def _p_worse(
    means: NDArray[np.float64], squares: NDArray[np.float64], n: int, lost: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Of each candidate against the best of its row, as a look compares them."""
    rows = np.arange(len(means))
    best = np.where(lost, -np.inf, means).argmax(1)
    prior = min(PRIOR_DF, means.shape[1] * (n - 1))
    df = n - 1 + prior
    variances = (squares + prior * squares.mean(1, keepdims=True) / (n - 1)) / df
    both = variances + variances[rows, best][:, None]
    joint = both**2 * df / (variances**2 + variances[rows, best][:, None] ** 2)
    t = (means - means[rows, best][:, None]) / np.sqrt(both / n)
    p = special.stdtr(joint, t)
    p[rows, best] = 1.0
    return np.asarray(p)


def _best(means: Mapping[str, float], among: Sequence[str], sign: int) -> str | None:
    return max((one for one in among if one in means), key=lambda one: sign * means[one], default=None)


# ------------------------------------------------------------------------------------------- look after look


@dataclass(frozen=True)
class _Spread:
    """What several have in common of how much their scores vary."""

    variance: float
    df: float


@dataclass
class _Course:
    out: dict[str, Out] = field(default_factory=dict)
    look: _Look | None = None
    """The last one; it has those who were in before it."""
    sizes: dict[str, int] = field(default_factory=dict)
    """How many were in when somebody was shown to be worse."""
    spreads: dict[str, _Spread] = field(default_factory=dict)
    """What its variance was drawn to then."""
    apart: dict[tuple[str, str], Difference] = field(default_factory=dict)
    """What was shown then, both ways round."""


def _run(race: Race) -> _Course:
    """The trainings in their order, with a look as soon as all those still in have enough of them."""
    course = _Course()
    diverged: dict[str, Out] = {}
    ended: dict[str, list[Training]] = {one: [] for one in race.candidates}
    if race.direction is None:
        return course
    n = LOOKS[0]
    for at, training in enumerate(race.trainings, 1):
        one = training.candidate
        if one not in ended:
            continue
        if math.isfinite(training.score):
            ended[one].append(training)
        elif one not in course.out:
            diverged.setdefault(one, Out(one, DIVERGED, at, None, None, None))
        while len(inside := _inside(race.candidates, course.out, diverged)) > 1:
            if min(len(ended[one]) for one in inside) < n:
                break
            _look_at(course, [t for one in inside for t in ended[one][:n]], inside, race._sign, n, at)
            n = next((look for look in LOOKS if look > n), n + 1)
    still = _inside(race.candidates, course.out, diverged)
    course.out |= {one: why for one, why in diverged.items() if one not in still and one not in course.out}
    course.out = dict(sorted(course.out.items(), key=lambda item: item[1].at))
    return course


def _inside(candidates: Sequence[str], out: Mapping[str, Out], diverged: Mapping[str, Out]) -> list[str]:
    """Those not shown to be worse, without those that diverged, unless that is all of them."""
    able = [one for one in candidates if one not in out]
    return [one for one in able if one not in diverged] or able


def _look_at(
    course: _Course, trainings: Sequence[Training], inside: Sequence[str], sign: int, n: int, at: int
) -> None:
    """Look at those still in, and note who is worse than the one with the best mean.

    Who is out no longer says how the others vary, so one looks again without it.
    """
    still = list(inside)
    while True:
        course.look = look = _Look(trainings, still)
        best = _best(look.means, still, sign)
        if best is None:
            return
        gaps = [look.difference(best, one, len(still)) for one in still if one != best]
        worse = [gap for gap in gaps if gap.told_apart]
        if not worse:
            return
        for gap in worse:
            one = gap.to
            course.out[one] = Out(one, WORSE, at, best, abs(gap.value), n)
            course.sizes[one] = len(still)
            course.spreads[one] = look.common
            course.apart |= {(best, one): gap, (one, best): gap.turned}
        still = [one for one in still if one not in course.out]


# ------------------------------------------------------------------------------------------- one look at them


@dataclass(frozen=True)
class _Known:
    """How well a mean, or a difference of two, is known."""

    error: float
    """Its standard error; infinite if it cannot be told from the blocks."""
    df: float

    def half_width(self, at_level: float) -> float:
        """Of the interval that leaves out more than that on each side."""
        if at_level <= 0 or self.df < 1e-6 or not math.isfinite(self.error):
            return math.inf
        return -float(special.stdtrit(self.df, at_level)) * self.error


class _Look:
    """The means of candidates and how they vary, by least squares: candidates, and blocks."""

    def __init__(
        self,
        trainings: Sequence[Training],
        inside: Sequence[str],
        spreads: Mapping[str, _Spread] | None = None,
    ) -> None:
        """Of those not inside the variances are drawn to what `spreads` says, if at all."""
        finite = [t for t in trainings if math.isfinite(t.score)]
        self.n = Counter(t.candidate for t in finite)
        self.least = min((self.n[one] for one in inside), default=0)
        self._names = list(self.n)
        n_names = len(self._names)
        scores = np.array([t.score for t in finite], float)
        self._of = np.array([self._names.index(t.candidate) for t in finite], int)
        self._design, n_blocks = _design(self._of, n_names, [t.block for t in finite])
        self._weights = np.linalg.pinv(self._design)  # (effects, trainings): each one's part in an effect
        effects = self._weights @ scores
        # A mean is that over all blocks.
        self._rows = np.hstack([np.eye(n_names), np.full((n_names, n_blocks), 1 / max(n_blocks, 1))])
        self.means = dict(zip(self._names, (self._rows @ effects).tolist(), strict=True))
        rest = scores - self._design @ effects
        free = 1 - np.einsum("ij,ji->i", self._design, self._weights)
        squares, df = (_sums(self._of, values, n_names) for values in (rest**2, free))
        pooled = np.array([name in inside for name in self._names], bool)
        self.common = _common(squares[pooled], df[pooled])
        drawn_to = [
            self.common if name in inside else (spreads or {}).get(name, _Spread(0.0, 0.0))
            for name in self._names
        ]
        variance, prior = (np.array([getattr(to, of) for to in drawn_to]) for of in ("variance", "df"))
        self._df = df.clip(0) + prior
        self._variance = (squares + prior * variance) / np.maximum(self._df, 1e-9)
        self._variance = np.maximum(self._variance, _floor(scores) ** 2)

    def difference(self, of: str, to: str, n_inside: int) -> Difference:
        """As it is told where so many are in."""
        value = self.means[of] - self.means[to]
        half = self.contrast(of, to).half_width(level(n_inside, min(self.n[of], self.n[to])))
        told = abs(value) > half
        more = 0 if told else self.n_more(of, to, n_inside)
        return Difference(of, to, value, value - half, value + half, told, more)

    def contrast(self, of: str, to: str) -> _Known:
        return self._known(self._rows[self._names.index(of)] - self._rows[self._names.index(to)])

    def half_width(self, name: str) -> float:
        """Of the 95 % interval of a mean."""
        return self._known(self._rows[self._names.index(name)]).half_width(ALPHA / 2)

    def _known(self, row: NDArray[np.float64]) -> _Known:
        weights = row @ self._weights
        if np.abs(weights @ self._design - row).max() > 1e-6:
            return _Known(math.inf, 0.0)
        parts = _sums(self._of, weights**2, len(self._names)) * self._variance
        if not parts.any():
            return _Known(0.0, 1.0)  # of one to itself
        shares = parts[parts > 0] ** 2 / np.maximum(self._df[parts > 0], 1e-9)
        # Welch and Satterthwaite's.
        return _Known(math.sqrt(parts.sum()), float(parts.sum() ** 2 / shares.sum()))

    def n_more(self, of: str, to: str, n_inside: int) -> int | None:
        """Of both together, until they would be told apart; None if more than MANY."""
        value = abs(self.means[of] - self.means[to])
        low, high = 1, MANY // 2
        if not self._enough(of, to, value, high, n_inside):
            return None
        while low < high:
            middle = (low + high) // 2
            enough = self._enough(of, to, value, middle, n_inside)
            low, high = (low, middle) if enough else (middle + 1, high)
        return 2 * low

    def _enough(self, of: str, to: str, value: float, more: int, n_inside: int) -> bool:
        n = (self.n[of] + more, self.n[to] + more)
        known = self._foreseen(of, to, *n)
        hoped = known.half_width(level(n_inside, min(n))) + special.ndtri(POWER) * known.error
        return value > float(hoped)

    def _foreseen(self, of: str, to: str, n_of: int, n_to: int) -> _Known:
        """How well their difference will be known after as many trainings of each."""
        i, j = self._names.index(of), self._names.index(to)
        error = math.sqrt(self._variance[i] / n_of + self._variance[j] / n_to)
        more = n_of - self.n[of] + n_to - self.n[to]
        return _Known(error, float(self._df[i] + self._df[j]) + more)

    def chance(self, best: str, other: str, n: int, n_inside: int) -> float:
        """How likely they are told apart when each has n trainings; nothing is known beforehand."""
        if n <= self.least:
            return 0.0
        by = abs(self.means[best] - self.means[other])
        then = self._foreseen(best, other, n, n)
        now = self._foreseen(best, other, self.n[best], self.n[other])
        spread = math.sqrt(max(now.error**2 - then.error**2, 0.0))
        lacking = then.half_width(level(n_inside, n)) - by
        return float(special.ndtr(-lacking / spread)) if spread > 0 else float(lacking < 0)


def _sums(of: NDArray[np.int_], values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return np.bincount(of, values, n).astype(np.float64)


def _common(squares: NDArray[np.float64], df: NDArray[np.float64]) -> _Spread:
    whole = float(df.clip(0).sum())
    return _Spread(float(squares.sum()) / whole if whole > 1e-9 else 0.0, min(PRIOR_DF, whole))


def _design(
    of: NDArray[np.int_], n_names: int, blocks: Sequence[int | None]
) -> tuple[NDArray[np.float64], int]:
    known = sorted({block for block in blocks if block is not None})
    design = np.zeros((len(of), n_names + len(known)))
    design[np.arange(len(of)), of] = 1
    for row, block in enumerate(blocks):
        if block is not None:
            design[row, n_names + known.index(block)] = 1
    return design, len(known)


def _floor(scores: NDArray[np.float64]) -> float:
    """The least standard deviation that is believed, as equal scores say no more than a step of the metric.

    Half of the least that two scores differ by; a thousandth where all are equal.
    """
    steps = np.diff(np.unique(scores))
    if len(steps):
        return float(steps.min()) / 2
    return 0.001 * max(1.0, float(np.abs(scores).max(initial=0.0)))
