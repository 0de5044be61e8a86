"""Trials compared on the same validation pictures: who is not shown to be worse than the best.

Two values of one sample of pictures differ by less than each of them is unsure, as most pictures are easy, or
hard, for both. So differences are compared with their own spread over samples of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.results import score
from sweeper.results.answer import Floats, Labels, Logits

_LEVEL = 0.95
_N_DRAWS = 1000
"""Of the maximum; their 95 % point then errs by 0.02 of a standard deviation."""
_N_WEIGHTINGS = 400
_LEAST_WEIGHTINGS = 100
_N_SUMS = 2e7
"""Of weights: what all weightings of all trials should add up, half a second for the slowest metrics."""
_NEAR = 3.0
"""Standard deviations of a difference up to which trials say how noisy the best one's value is."""
_N_NEAR = 20

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """Values of several trials on the same pictures."""

    values: Floats
    """(n_trials,), those of the logits; greater is better."""
    deviations: Singles
    """(n_trials, m): its product with m independent standard normal numbers is how values deviate together on
    other samples of pictures."""
    granularity: float
    """By about how much a value jumps if one picture changes; 0 where it does not jump."""

    @cached_property
    def spreads(self) -> Floats:
        """The standard deviations (n_trials, n_trials) of the differences."""
        common = (self.deviations @ self.deviations.T).astype(np.float64)
        own = np.diag(common)
        spreads: Floats = np.sqrt(np.maximum(own[:, None] + own - 2 * common, 0))
        spreads[spreads < 1e-4 * math.sqrt(own.max(initial=0.0))] = 0  # of equal answers: rounded
        return spreads

    def spread(self, trial: int) -> float:
        """The standard deviation of one value."""
        return float(np.linalg.norm(self.deviations[trial].astype(np.float64)))

    @cached_property
    def critical(self) -> float:
        """By how many standard deviations some two of equally good trials differ in 5 of 100 samples.

        The maximum over all ordered pairs, as nobody knows beforehand who will be the best; so the trials
        that are not shown to be worse contain the best one of all with 95 % (Hansen, Lunde, Nason 2011, The
        model confidence set, by its range statistic). Its distribution is that of normal numbers with the
        same covariances (Chernozhukov, Chetverikov, Kato 2013, Gaussian multiplier bootstrap).
        """
        n, m = self.deviations.shape
        n_draws = _N_DRAWS if n <= 300 else _N_DRAWS // 4
        drawn = np.random.default_rng(0).standard_normal((n_draws, m), dtype=np.float32)
        together = np.ascontiguousarray((drawn @ self.deviations.T).T)
        with np.errstate(divide="ignore"):
            inverse = np.where(self.spreads > 0, 1 / self.spreads, 0).astype(np.float32)
        highest = np.zeros(n_draws, dtype=np.float32)
        for i in range(n - 1):
            apart = np.abs(together[i + 1 :] - together[i])
            apart *= inverse[i, i + 1 :, None]
            np.maximum(highest, apart.max(0), out=highest)
        return float(np.quantile(highest, _LEVEL))

    def halves(self, best: int) -> Floats:
        """Half of the 95 % interval (n_trials,) of each one's difference to the best, for all at once.

        Metrics that count pictures jump from one to the next, which normal numbers do not: so a picture is
        added (Edwards 1948, for the test of McNemar).
        """
        halves: Floats = self.critical * self.spreads[best] + self.granularity
        return halves

    def noise(self, best: int) -> float:
        """The standard deviation of a training's value around its configuration's mean, on these pictures.

        Two trainings of one configuration answer some pictures differently; as far as they do so
        independently from picture to picture, the spread of their difference over samples is that of their
        difference over seeds, and half of its variance is each one's own. Trials about as good as the best
        stand for its other seeds.
        """
        behind = self.values[best] - self.values
        near = np.flatnonzero(behind <= _NEAR * self.spreads[best])
        near = near[np.argsort(behind[near], kind="stable")][: _N_NEAR + 1]
        if len(near) < 2:
            near = np.argsort(behind, kind="stable")[:2]
        pairs = self.spreads[np.ix_(near, near)][np.triu_indices(len(near), 1)]
        return float(np.sqrt(np.mean(pairs**2) / 2)) if len(pairs) else 0.0


def compared(metric: str, labels: Labels, logits: Iterable[Logits], n_trials: int) -> Comparison:
    """The comparison of trials by one of the metrics of ``score``.

    Args:
        logits: of each trial; one is read at a time.
        n_trials: about how many those are.
    """
    sign = -1.0 if schema.DIRECTIONS[f"val_{metric}"] == "minimize" else 1.0
    rows = _of_means if metric in score.MEANS else _of_weightings
    values, deviations = rows(metric, labels, logits, n_trials)
    return Comparison(sign * values, deviations, 0.0 if metric == score.LOSS else 1 / len(labels))


def _of_means(metric: str, labels: Labels, logits: Iterable[Logits], n_trials: int) -> tuple[Floats, Singles]:
    """Exactly, without weightings: a mean deviates by what each picture adds."""
    each = np.stack([score.each(metric, labels, one).astype(np.float32) for one in logits])
    values = each.mean(1, dtype=np.float64)
    each -= values[:, None].astype(np.float32)
    each /= len(labels)
    return values, each


def _of_weightings(
    metric: str, labels: Labels, logits: Iterable[Logits], n_trials: int
) -> tuple[Floats, Singles]:
    """By the Bayesian bootstrap (Rubin 1981): all pictures keep some weight, and so no class is lost."""
    values, rows = list[float](), list[Floats]()
    weights = np.empty(0)
    for one in logits:
        if not rows:
            n_sums = len(labels) * one.shape[1] * max(n_trials, 1)
            n = int(np.clip(_N_SUMS / n_sums, _LEAST_WEIGHTINGS, _N_WEIGHTINGS))
            weights = np.random.default_rng(0).standard_exponential((1 + n, len(labels)))
            weights[0] = 1
        found = score.weighted(metric, labels, one, weights)
        values.append(found[0])
        rows.append((found[1:] - found[1:].mean()) / math.sqrt(len(found) - 1))
    return np.array(values), np.array(rows, dtype=np.float32)
