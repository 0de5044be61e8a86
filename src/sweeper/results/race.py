"""The race of a certificate: who is shown to be worse, by how much, and who is trained next.

Pure functions of scores. Two candidates are compared by the t statistic of the difference of their means,
which a Bayes factor with the right-Haar prior on means and scale turns into a test that is valid at any look
(Lindon, Ham, Tingley and Bojinov 2022, arXiv 2210.08589, theorem 2.3; Pérez-Ortiz, Lardy, de Heide and
Grünwald 2024, arXiv 2208.07610): whenever one looks, and however often, two equal ones are told apart with a
probability of at most ``ALPHA``. That level is shared by the pairs of one candidate, so that the best of all
stays in with 95 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
"""How often the best candidate of all may be called worse than another, over all looks."""

EFFECT = 1.0
"""Variance of the differences that the test expects, in units of the variance of trainings (Lindon's g)."""

PRIOR_DF = 4.0
"""How many trainings' worth the pooled variance counts in each candidate's own (Smyth 2004)."""

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
    """The 95 % interval of the mean of fresh trainings; infinite if nothing says how they vary."""


@dataclass(frozen=True)
class Difference:
    """Of the means of two candidates, in the metric's own direction: positive if `of` scores higher."""

    of: str
    to: str
    value: float
    low: float
    high: float
    """Holds at any look, for all pairs of a candidate at once, in 95 %."""
    told_apart: bool
    """Whether the interval leaves out 0."""
    n_more: int | None
    """About how many trainings more, of both together, would tell them apart with a probability of 80 % if
    the difference is as it seems; 0 if they are told apart, None if more than MANY."""


@dataclass(frozen=True)
class Race:
    """The trainings so far, and what they show."""

    candidates: tuple[str, ...]
    """In the order that breaks ties."""
    trainings: tuple[Training, ...]
    """In the order in which they ended."""
    direction: str | None
    """MAXIMIZE or MINIMIZE; None if there are several objectives, where nobody drops out."""
    resolution: float | None = None
    """The smallest step of the metric; None if unknown."""

    @cached_property
    def out(self) -> Mapping[str, Out]:
        """Those who dropped out, in that order: who was shown to be worse once stays out."""
        found: dict[str, Out] = {}
        if self.direction is None:
            return found
        for n in range(1, len(self.trainings) + 1):
            look = _Look(self.trainings[:n], self.resolution)
            for one in _diverged(self.candidates, self.trainings[:n]):
                found.setdefault(one, Out(one, DIVERGED, n, None, None))
            inside = [one for one in self.candidates if one not in found]
            for worse in _worse(look, inside, self._sign, self._level):
                found[worse.candidate] = Out(worse.candidate, WORSE, n, worse.than, worse.by)
        return found

    @property
    def inside(self) -> tuple[str, ...]:
        """Those still in."""
        return tuple(one for one in self.candidates if one not in self.out)

    @cached_property
    def leader(self) -> str | None:
        """The one with the best mean of those still in; None if nobody scored."""
        known = [one for one in self.inside if one in self._look.means]
        return max(known, key=lambda one: self._sign * self._look.means[one], default=None)

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
        look, level = self._look, self._level
        value = look.means[of] - look.means[to]
        half = look.contrast(of, to).half_width(level)
        told = abs(value) > half
        return Difference(of, to, value, value - half, value + half, told, look.n_more(of, to, level))

    def luck(self, candidate: str, value: float) -> float | None:
        """By how much the search's value is better than the mean; None if it has no score."""
        found = self.mean(candidate)
        return None if found is None else self._sign * (value - found.value)

    def choice(self, costs: Mapping[str, float], defaults: str | None) -> str | None:
        """The cheapest of those not worse whose mean is not below the defaults'; None if nobody scored."""
        means, sign = self._look.means, self._sign
        able = self.not_worse
        if defaults in means:
            able = tuple(one for one in able if sign * (means[one] - means[defaults]) >= 0)
        order = {one: i for i, one in enumerate(self.candidates)}
        return min(able, key=lambda one: (costs.get(one, math.inf), order[one]), default=None)

    @cached_property
    def _look(self) -> _Look:
        return _Look(self.trainings, self.resolution)

    @property
    def _sign(self) -> int:
        return -1 if self.direction == MINIMIZE else 1

    @property
    def _level(self) -> float:
        return ALPHA / max(len(self.candidates) - 1, 1)


def next_candidate(
    candidates: Sequence[str],
    trainings: Sequence[Training],
    running: Counter[str],
    budget: int,
    direction: str | None,
    resolution: float | None = None,
) -> str | None:
    """Who is trained next: of those still in the one with the fewest trainings, by the candidates' order.

    None if the race is over: the budget is spent (by what has ended and what runs), or one is left. The same
    arguments give the same answer in every process; `trainings` are in the order in which they ended.
    """
    race = Race(tuple(candidates), tuple(trainings), direction, resolution)
    if len(trainings) + running.total() >= budget or (len(race.inside) <= 1 and direction is not None):
        return None
    n = Counter(t.candidate for t in trainings) + running
    return min(race.inside, key=lambda one: n[one])


# ------------------------------------------------------------------------------------------- one look at them


@dataclass(frozen=True)
class _Contrast:
    """How well a difference of two means is known."""

    error: float
    """Its standard error; infinite if they share nothing."""
    df: float
    factor: float
    """Its variance in units of one training's."""

    def half_width(self, level: float) -> float:
        """Of the interval that holds at any look."""
        return threshold(level, self.df, self.factor) * self.error if math.isfinite(self.error) else math.inf


def threshold(level: float, df: float, factor: float) -> float:
    """The t from which on two means differ, at any look: where the Bayes factor is 1 / level.

    Bayes factor: (1+r)^(-1/2) · [(1+t²/ν) / (1+t²/(ν(1+r)))]^((ν+1)/2), ν = df, r = EFFECT / factor.
    Infinite where there is too little to tell anything.
    """
    if df <= 0:
        return math.inf
    ratio = 1 + EFFECT / factor
    least = (math.sqrt(ratio) / level) ** (2 / (df + 1))
    return math.sqrt(df * (least - 1) / (1 - least / ratio)) if least < ratio else math.inf


class _Look:
    """The means of the candidates and how they vary, by least squares: candidates, and blocks."""

    def __init__(self, trainings: Sequence[Training], resolution: float | None) -> None:
        finite = [t for t in trainings if math.isfinite(t.score)]
        self.n = Counter(t.candidate for t in finite)
        self.names = list(self.n)
        scores = np.array([t.score for t in finite])
        self._of = np.array([self.names.index(t.candidate) for t in finite], int)
        design, n_blocks = _design(self._of, len(self.names), [t.block for t in finite])
        self._design = design
        self._weights = np.linalg.pinv(design)  # (effects, trainings): what each training adds to an effect
        effects = self._weights @ scores
        self._rows = np.zeros((len(self.names), design.shape[1]))
        self._rows[:, : len(self.names)] = np.eye(len(self.names))
        if n_blocks:
            self._rows[:, len(self.names) :] = 1 / n_blocks
        self.means = dict(zip(self.names, (self._rows @ effects).tolist(), strict=True))
        rest = scores - design @ effects
        free = 1 - np.einsum("ij,ji->i", design, self._weights)
        self._variances(rest, free, _floor(scores, resolution))

    def _variances(self, rest: NDArray[np.float64], free: NDArray[np.float64], floor: float) -> None:
        own_df = np.bincount(self._of, free, len(self.names)).clip(0)
        own = np.bincount(self._of, rest**2, len(self.names))
        pooled_df = own_df.sum()
        pooled = own.sum() / pooled_df if pooled_df > 1e-9 else 0.0
        prior = min(PRIOR_DF, pooled_df)
        self._df = own_df + prior
        with np.errstate(invalid="ignore", divide="ignore"):
            moderated = np.where(self._df > 1e-9, (own + prior * pooled) / self._df, 0.0)
        self._variance = np.maximum(moderated, floor**2)

    def contrast(self, of: str, to: str) -> _Contrast:
        row = self._rows[self.names.index(of)] - self._rows[self.names.index(to)]
        return self._known(row)

    def _known(self, row: NDArray[np.float64]) -> _Contrast:
        weights = row @ self._weights
        if not np.allclose(weights @ self._design, row, atol=1e-6):
            return _Contrast(math.inf, 0.0, math.inf)
        parts = np.bincount(self._of, weights**2, len(self.names)) * self._variance
        with np.errstate(invalid="ignore", divide="ignore"):
            df = parts.sum() ** 2 / (parts**2 / self._df).sum()
        return _Contrast(math.sqrt(parts.sum()), float(df), float((weights**2).sum()))

    def half_width(self, name: str) -> float:
        """Of the 95 % interval of a mean."""
        known = self._known(self._rows[self.names.index(name)])
        if known.df <= 0 or not math.isfinite(known.error):
            return math.inf
        return float(stats.t.ppf(1 - ALPHA / 2, known.df)) * known.error

    def n_more(self, of: str, to: str, level: float) -> int | None:
        value = abs(self.means[of] - self.means[to])
        if value > self.contrast(of, to).half_width(level):
            return 0
        i, j = self.names.index(of), self.names.index(to)
        for n in range(2, MANY + 1):
            a, b = self.n[of] + n // 2, self.n[to] + n - n // 2
            error = math.sqrt(self._variance[i] / a + self._variance[j] / b)
            df = float(self._df[i] + self._df[j]) + n
            if value > (threshold(level, df, 1 / a + 1 / b) + stats.norm.ppf(0.8)) * error:
                return n
        return None


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
    """The least standard deviation that is believed: equal scores say no more than the metric's step does."""
    if resolution is not None:
        return resolution / 2
    steps = np.diff(np.unique(scores))
    steps = steps[steps > 0]
    if len(steps):
        return float(steps.min()) / 2
    return 0.001 * max(1.0, float(np.abs(scores).max(initial=0.0)))


# ---------------------------------------------------------------------------------------------- who drops out


def _diverged(candidates: Sequence[str], trainings: Sequence[Training]) -> list[str]:
    """Those of whom a training diverged; nobody if that is everybody."""
    found = {t.candidate for t in trainings if not math.isfinite(t.score)}
    return [one for one in candidates if one in found] if found < set(candidates) else []


@dataclass(frozen=True)
class _Worse:
    candidate: str
    than: str
    by: float


def _worse(look: _Look, inside: Sequence[str], sign: int, level: float) -> list[_Worse]:
    """Those shown to be worse than the one with the best mean."""
    known = [one for one in inside if one in look.means]
    best = max(known, key=lambda one: sign * look.means[one], default=None)
    found = []
    for one in known:
        if best is None or one == best:
            continue
        by = sign * (look.means[best] - look.means[one])
        if by > look.contrast(best, one).half_width(level):
            found.append(_Worse(one, best, by))
    return found
