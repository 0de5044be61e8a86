"""The race of a certificate: who is shown to be worse, by how much, and who is trained next.

Pure functions of scores. When each of those still in has n trainings, for n = 2, 3, …, the best of them is
compared with each other one, by a t test of the first n trainings of each. Whoever is worse at the level of
``level(candidates, n)`` drops out. These levels sum to ``ALPHA`` over all looks, without an end, and over all
candidates that the best one may lose against: it stays in with at least 95 %, whenever and however often one
looks. (To spend the error over the looks: Lan and DeMets 1983, Biometrika 70; as a plain sum over looks and
arms: successive elimination, Even-Dar, Mannor and Mansour 2006, JMLR 7.) ``benchmarks/replay.py`` measures
it. The Bayes factor of Lindon, Ham, Tingley and Bojinov 2022 (arXiv 2210.08589), valid at any look as well,
found fewer of those that are worse with as few trainings as these.

How much trainings vary is told from a candidate's own and, by the weight of ``PRIOR_DF`` of them, from those
still in (Smyth 2004, doi 10.2202/1544-6115.1027): three trainings alone say too little of it, and those who
are out, often erratic ones, say nothing about the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
"""How often the best candidate of all may be called worse than another, over all looks."""

PRIOR_DF = 4.0
"""How many degrees of freedom the pooled variance has in each candidate's own."""

FIRST = 0.05
"""Share of the error that the look at two trainings may spend: they say little of how much they vary."""

HOPE = 0.2
"""The race ends when none of those still in is likelier than that to be told apart from the best of them by
what is left of the budget; 0 would always spend it."""

N_LEAST = 3
"""Trainings that each of those still in has before the race ends for want of hope."""

POWER = 0.8
"""With what probability as many trainings more as are told would tell two apart."""

MANY = 1000
"""More trainings than that nobody makes: how many more it is is not said."""

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
    """Whether the interval leaves out 0, or did when one of them dropped out."""
    n_more: int | None
    """About how many trainings more, of both together, would tell them apart with a probability of 80 %
    (POWER) if the difference is as it seems; 0 if they are told apart, None if more than MANY."""


@dataclass(frozen=True)
class Race:
    """The trainings so far, and what they show."""

    candidates: tuple[str, ...]
    """In the order that breaks ties."""
    trainings: tuple[Training, ...]
    """In the order in which they ended; those of candidates that are out count, too."""
    direction: str | None
    """MAXIMIZE or MINIMIZE; None if there are several objectives, where nobody drops out."""
    resolution: float | None = None
    """The smallest step of the metric, as 1 / pictures of an accuracy; None if unknown."""

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
        look, n_candidates = self._look, len(self.candidates)
        value = look.means[of] - look.means[to]
        half = look.contrast(of, to).half_width(level(n_candidates, min(look.n[of], look.n[to])))
        before = any(one in self.out and self.out[one].than == other for one, other in ((of, to), (to, of)))
        told = before or abs(value) > half
        more = 0 if told else look.n_more(of, to, n_candidates)
        return Difference(of, to, value, value - half, value + half, told, more)

    def luck(self, candidate: str, value: float) -> float | None:
        """By how much the search's value is better than the mean; None if it has no score."""
        found = self.mean(candidate)
        return None if found is None else self._sign * (value - found.value)

    def cheapest(self, costs: Mapping[str, float]) -> str | None:
        """Of those not worse; unknown costs are the highest, and ties go by the candidates' order."""
        return _cheapest(self.not_worse, costs)

    def choice(self, costs: Mapping[str, float], defaults: str | None) -> str | None:
        """The cheapest of those not worse that are shown to be better than the defaults; else the defaults.

        Shown by a t test, on one side, at 5 %: where little is known a cheap candidate is often lucky enough
        to look no worse than the best. Without defaults, or if they diverged, the cheapest of those not
        worse; None if nobody has a score.
        """
        able = self.not_worse
        out = None if defaults is None else self.out.get(defaults)
        if defaults in self._look.means and (out is None or out.reason == WORSE):
            better = tuple(one for one in able if one != defaults and self._beats(one, defaults))
            able = better or tuple(one for one in able if one == defaults) or able
        return _cheapest(able, costs)

    def _beats(self, one: str, other: str) -> bool:
        by = self._sign * (self._look.means[one] - self._look.means[other])
        return bool(by > self._look.contrast(one, other).half_width(ALPHA))

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
            look.chance(best, one, n, len(self.candidates)) < HOPE for one in inside if one != best
        )

    @cached_property
    def _look(self) -> _Look:
        return _Look(self.trainings, self.inside, self.resolution)

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
    resolution: float | None = None,
) -> str | None:
    """Who is trained next: of those still in the one with the fewest trainings, by the candidates' order.

    None if the race is over: the budget is spent (by what has ended and what runs), one of several is left,
    or the rest of the budget would hardly tell those left apart. The same arguments give the same answer in
    every process; `trainings` are in the order in which they ended.
    """
    race = Race(tuple(candidates), tuple(trainings), direction, resolution)
    if len(trainings) + running.total() >= budget or race.settled(budget):
        return None
    n = Counter(t.candidate for t in trainings) + running
    if direction is not None and len(race.inside) < 2 <= len(candidates):
        # Where all others have diverged, the last one may hardly have been trained.
        return next((one for one in race.inside if n[one] < 2), None)
    return min(race.inside, key=lambda one: n[one], default=None)


def level(n_candidates: int, n: int) -> float:
    """The error of one comparison, on one side, when each of the two has n trainings; 0 below two.

    The shares of the looks are FIRST, and from the third training on the rest by 2 / (n (n - 1)), whose sum
    is 1.
    """
    if n < 2:
        return 0.0
    share = FIRST if n == 2 else (1 - FIRST) * 2 / (n * (n - 1))
    return share * ALPHA / max(n_candidates - 1, 1)


def _cheapest(among: Sequence[str], costs: Mapping[str, float]) -> str | None:
    return min(among, key=lambda one: costs.get(one, math.inf), default=None)


def _best(means: Mapping[str, float], among: Sequence[str], sign: int) -> str | None:
    return max((one for one in among if one in means), key=lambda one: sign * means[one], default=None)


# ------------------------------------------------------------------------------------------- look after look


@dataclass(frozen=True)
class _Course:
    out: Mapping[str, Out]
    look: _Look | None
    """The last one; it has those who were in before it."""


def _run(race: Race) -> _Course:
    """The trainings in their order, with a look as soon as all those still in have one training more."""
    out: dict[str, Out] = {}
    look: _Look | None = None
    diverged: dict[str, Out] = {}
    ended: dict[str, list[Training]] = {one: [] for one in race.candidates}
    if race.direction is None:
        return _Course(out, look)
    n = 2
    for at, training in enumerate(race.trainings, 1):
        one = training.candidate
        if one not in ended:
            continue
        if math.isfinite(training.score):
            ended[one].append(training)
        elif one not in out:
            diverged.setdefault(one, Out(one, DIVERGED, at, None, None, None))
        while len(inside := _inside(race.candidates, out, diverged)) > 1:
            if min(len(ended[one]) for one in inside) < n:
                break
            look, worse = _looked([t for one in inside for t in ended[one][:n]], inside, race, n)
            out |= {one: Out(one, WORSE, at, than, by, n) for one, than, by in worse}
            n += 1
    still = _inside(race.candidates, out, diverged)
    out |= {one: why for one, why in diverged.items() if one not in still and one not in out}
    return _Course(dict(sorted(out.items(), key=lambda item: item[1].at)), look)


def _inside(candidates: Sequence[str], out: Mapping[str, Out], diverged: Mapping[str, Out]) -> list[str]:
    """Those not shown to be worse, without those that diverged, unless that is all of them."""
    able = [one for one in candidates if one not in out]
    return [one for one in able if one not in diverged] or able


def _looked(
    trainings: Sequence[Training], inside: Sequence[str], race: Race, n: int
) -> tuple[_Look, list[tuple[str, str, float]]]:
    """A look at those still in, and who is worse than whom, by how much.

    Who is out no longer says how the others vary, so one looks again without it.
    """
    found: list[tuple[str, str, float]] = []
    still = list(inside)
    while True:
        look = _Look(trainings, still, race.resolution)
        worse = _worse(look, still, race._sign, level(len(race.candidates), n))
        if not worse:
            return look, found
        found += worse
        still = [one for one in still if one not in {name for name, _, _ in worse}]


def _worse(look: _Look, inside: Sequence[str], sign: int, at_level: float) -> list[tuple[str, str, float]]:
    """Those shown to be worse than the one with the best mean, that one, and by how much."""
    best = _best(look.means, inside, sign)
    if best is None:
        return []
    by = {one: sign * (look.means[best] - look.means[one]) for one in inside if one != best}
    return [
        (one, best, more) for one, more in by.items() if more > look.contrast(best, one).half_width(at_level)
    ]


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
        self, trainings: Sequence[Training], inside: Sequence[str], resolution: float | None
    ) -> None:
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
        pooled = np.array([name in inside for name in self._names], bool)
        self._variance, self._df = _moderated(
            _sums(self._of, rest**2, n_names), _sums(self._of, free, n_names), pooled
        )
        self._variance = np.maximum(self._variance, _floor(scores, resolution) ** 2)

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

    def n_more(self, of: str, to: str, n_candidates: int) -> int | None:
        """Of both together, until they would be told apart; None if more than MANY."""
        value = abs(self.means[of] - self.means[to])
        low, high = 1, MANY // 2
        if not self._enough(of, to, value, high, n_candidates):
            return None
        while low < high:
            middle = (low + high) // 2
            enough = self._enough(of, to, value, middle, n_candidates)
            low, high = (low, middle) if enough else (middle + 1, high)
        return 2 * low

    def _enough(self, of: str, to: str, value: float, more: int, n_candidates: int) -> bool:
        n = (self.n[of] + more, self.n[to] + more)
        known = self._foreseen(of, to, *n)
        hoped = known.half_width(level(n_candidates, min(n))) + special.ndtri(POWER) * known.error
        return value > float(hoped)

    def _foreseen(self, of: str, to: str, n_of: int, n_to: int) -> _Known:
        """How well their difference will be known after as many trainings of each."""
        i, j = self._names.index(of), self._names.index(to)
        error = math.sqrt(self._variance[i] / n_of + self._variance[j] / n_to)
        more = n_of - self.n[of] + n_to - self.n[to]
        return _Known(error, float(self._df[i] + self._df[j]) + more)

    def chance(self, best: str, other: str, n: int, n_candidates: int) -> float:
        """How likely they are told apart when each has n trainings; nothing is known beforehand."""
        if n <= self.least:
            return 0.0
        by = abs(self.means[best] - self.means[other])
        then = self._foreseen(best, other, n, n)
        now = self._foreseen(best, other, self.n[best], self.n[other])
        spread = math.sqrt(max(now.error**2 - then.error**2, 0.0))
        lacking = then.half_width(level(n_candidates, n)) - by
        return float(special.ndtr(-lacking / spread)) if spread > 0 else float(lacking < 0)


def _sums(of: NDArray[np.int_], values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return np.bincount(of, values, n).astype(np.float64)


def _moderated(
    squares: NDArray[np.float64], df: NDArray[np.float64], pooled: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances and their degrees of freedom: of `pooled` ones drawn to what these have in common."""
    df = df.clip(0)
    df_pooled = df[pooled].sum()
    common = squares[pooled].sum() / df_pooled if df_pooled > 1e-9 else 0.0
    prior = np.where(pooled, min(PRIOR_DF, df_pooled), 0.0)
    return (squares + prior * common) / np.maximum(df + prior, 1e-9), df + prior


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


def _floor(scores: NDArray[np.float64], resolution: float | None) -> float:
    """The least standard deviation that is believed: the metric's step, as equal scores say no more.

    Where that is unknown, half of the least that two scores differ by; a thousandth where all are equal.
    """
    if resolution:
        return resolution
    steps = np.diff(np.unique(scores))
    if len(steps):
        return float(steps.min()) / 2
    return 0.001 * max(1.0, float(np.abs(scores).max(initial=0.0)))
