"""How much of the best value is luck: by how much the maximum of many noisy values exceeds its truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# All of these in units of the noise.
_CEILINGS = np.linspace(0, 3, 25)
"""How far below the best value the ceiling of the truths may be, besides at one of the first values."""
_N_FIRST = 4
"""So that up to three may be far better than all others."""
_BELOW = 2.0 ** np.arange(-1, 8)
"""The widths of ranges of truths below the ceiling."""
_ABOVE = np.array([16.0, 64.0, 256.0])
"""Of those above it, for the few."""
_FAR = 100.0
"""How far below the best a value says nothing of it; the widest range reaches that."""
_N_STEPS = 100
"""Of expectation and maximization; more change nothing that is told."""


def expected(values: Floats, noise: float) -> float:
    """By how much the best of the values (n,) is expected to exceed its own mean over fresh trainings.

    What a maximum hides is found from how the others lie: where values spread no more than the noise makes
    them, all of their spread is luck, and one far above all others has none. The truths are taken to be the
    denser the closer to a ceiling, as a search finds them, with few above it: a mixture of ranges that all
    end there (Stephens 2017, False discovery rates: a new deal), whose weights and ceiling are the likeliest.
    The answer is the posterior mean of the best one's noise, which is the same whoever chose it (Efron 2011,
    Tweedie's formula and selection bias). A plain bootstrap takes the values for the truths, though they are
    spread wider, and so tells too little: by a factor of √2 where all are equal
    (``benchmarks/believe.py --luck``).

    Args:
        values: greater is better.
        noise: the standard deviation of a training's value around its configuration's mean.
    """
    if not noise > 0 or len(values) < 2:
        return 0.0
    # Rounded, as shares of pictures have few values, and many are the same.
    below = np.sort(np.round((values.max() - values) / noise, 2))
    ceilings = np.unique(np.concatenate([_CEILINGS, below[:_N_FIRST]]))
    below, counts = np.unique(below[below <= _FAR], return_counts=True)
    likely = _likely(ceilings[:, None] - below)  # as far above the ceiling as that is below the best
    weights = np.full((len(ceilings), 1, likely.shape[2]), 1 / likely.shape[2])
    for _ in range(_N_STEPS):
        shares = likely * weights
        shares /= shares.sum(2, keepdims=True)
        weights = np.average(shares, axis=1, weights=counts, keepdims=True)
    first = int((np.log((likely * weights).sum(2)) @ counts).argmax())
    return noise * float(np.average(_noises(ceilings[first]), weights=likely[first, 0] * weights[first, 0]))


def _likely(gaps: Floats) -> Floats:
    """How likely a value is that lies so far above the ceiling: at it, in each range below, in each above."""
    from scipy.special import ndtr

    gaps = gaps[..., None]
    within = (ndtr(gaps + _BELOW) - ndtr(gaps)) / _BELOW, (ndtr(gaps) - ndtr(gaps - _ABOVE)) / _ABOVE
    likely: Floats = np.maximum(np.concatenate([_density(gaps), *within], axis=-1), 1e-300)
    return likely


def _noises(gap: float) -> Floats:
    """The mean noise of a value so far above the ceiling, by where its truth is, as in ``_likely``."""
    from scipy.special import ndtr

    low = np.concatenate([np.full_like(_BELOW, gap), gap - _ABOVE])
    high = np.concatenate([gap + _BELOW, np.full_like(_ABOVE, gap)])
    chances = np.maximum(ndtr(high) - ndtr(low), 1e-300)
    within = np.clip((_density(low) - _density(high)) / chances, low, high)
    return np.concatenate([[gap], within])


def _density(at: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi)
    return density
