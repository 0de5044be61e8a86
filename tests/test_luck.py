"""How much of the best value is luck."""

from __future__ import annotations

import numpy as np
import pytest

from sweeper.results import luck


def told(truths: np.ndarray, n_searches: int, noise: float = 0.01) -> tuple[float, float]:
    """What is told of many searches and what is true, in the mean."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(n_searches):
        values = truths + noise * rng.normal(size=len(truths))
        best = int(np.argmax(values))
        rows.append((luck.expected(values, noise), values[best] - truths[best]))
    found, true = np.mean(rows, axis=0)
    return float(found), float(true)


def test_the_luck_of_equal_trials_is_all_that_they_differ() -> None:
    """The best of 40 equal trials is told to be lucky by what it is above them."""
    found, true = told(np.full(40, 0.9), 20)
    assert true > 0.02
    assert found == pytest.approx(true, abs=0.002)


def test_one_far_winner_has_no_luck() -> None:
    """Who is far better than all others was not lucky."""
    found, _ = told(np.array([0.99, *[0.7] * 39]), 4)
    assert found == pytest.approx(0, abs=0.001)


def test_bad_trials_change_nothing() -> None:
    """A search that began badly has the luck of its good trials."""
    few, _ = told(np.full(20, 0.9), 8)
    many, _ = told(np.array([*[0.9] * 20, *np.linspace(-9, 0.6, 60)]), 8)
    assert many == pytest.approx(few, rel=0.15)


def test_two_heaps_are_two() -> None:
    """Many mediocre trials do not make a luckless winner of the best of several good ones."""
    found, true = told(np.array([*[0.9] * 12, *[0.8] * 30]), 8)
    assert true / 3 < found < true


def test_truths_that_differ_leave_less_luck() -> None:
    """Where trials differ by more than the noise, what is told is about the luck that there is."""
    truths = 0.95 - 0.02 * np.random.default_rng(2).exponential(size=40)
    found, true = told(truths, 20)
    assert found == pytest.approx(true, abs=0.003)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_one_trial_has_no_luck(noise: float) -> None:
    """Nobody was chosen."""
    assert luck.expected(np.array([0.9]), noise) == 0


def test_answers_that_are_equal_have_no_luck() -> None:
    """Where all say the same of all pictures, there is no noise."""
    assert luck.expected(np.full(5, 0.9), 0.0) == 0
