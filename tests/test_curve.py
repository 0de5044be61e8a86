"""One curve: its noise, its course, and where it went flat."""

from __future__ import annotations

import numpy as np
import pytest

from sweeper.results import curve


def test_noise_is_that_of_single_values() -> None:
    """Whatever the slope, the noise is the spread of the values around their course; one outlier is none."""
    shaken = np.random.default_rng(0).normal(0, 0.1, 400)
    for slope in (0.0, 0.05):
        values = slope * np.arange(400) + shaken
        assert curve.noise(values) == pytest.approx(0.1, rel=0.2)
        values[200] += 50
        assert curve.noise(values) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
def test_a_straight_or_short_curve_has_no_noise(values: list[float]) -> None:
    """A line, and what is too short to tell, counts as exact."""
    assert curve.noise(values) == pytest.approx(0, abs=1e-12)


def test_smoothing_drops_a_single_jump() -> None:
    """One value out of line does not move the course, and a line stays as it is."""
    assert curve.smooth([5, 4, 9, 3, 2]).tolist() == [4.5, 5, 4, 3, 2.5]
    assert curve.smooth([1]).tolist() == [1]


def test_a_fall_counts_above_its_noise() -> None:
    """A curve falls if its last quarter lies clearly below the one before."""
    down, flat = np.linspace(1, 0, 20), np.ones(20)
    shaken = np.random.default_rng(1).normal(0, 0.05, 20)
    assert curve.is_falling(down + shaken)
    assert not curve.is_falling(flat + shaken)
    assert not curve.is_falling(down[::-1])
    assert curve.is_falling([0.5, 0.3, 0.25, 0.24])
    assert not curve.is_falling([1.0])
    assert curve.fall([1.0]) == 0


def test_where_a_curve_went_flat() -> None:
    """The first epoch that no later one is below by more than the tolerance."""
    values = [1.0, 0.6, 0.3, 0.2, 0.2, 0.201, 0.199, 0.2]
    assert curve.flat_since(values, 0.01) == 4
    assert curve.flat_since(np.linspace(1, 0, 10), 0.01) == 10
    assert curve.flat_since([1.0, 1.0], 0.01) == 1


def test_the_first_epoch_below_a_level() -> None:
    """Counted from 1; None where none is."""
    assert curve.first_below([1.0, 0.8, 0.4], 0.9) == 2
    assert curve.first_below([1.0, 0.95], 0.9) is None


def test_what_lies_ahead() -> None:
    """A curve that halved twice will halve twice again; one that rises is not carried on."""
    assert curve.ahead([0.8 * 0.8**i for i in range(9)]) == pytest.approx(0.8**17, rel=0.5)
    assert curve.ahead([1.0, 1.1, 1.2]) == pytest.approx(1.15)
    assert curve.ahead([0.5]) == 0.5


def test_the_last_quarter() -> None:
    """Its median, of at least one value."""
    assert curve.last([9, 9, 9, 9, 9, 9, 1, 3]) == 2
    assert curve.last([4]) == 4
