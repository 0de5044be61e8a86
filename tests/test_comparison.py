"""Trials compared on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from sweeper import schema
from sweeper.results.comparison import Comparison, compared


def answers(right: np.ndarray) -> list[np.ndarray]:
    """Logits of two classes that are right, or wrong, of pictures of class 0: (n_trials, n)."""
    return [np.stack([row, 1 - row], axis=1).astype(np.float32) for row in right]


def by_accuracy(right: np.ndarray) -> Comparison:
    return compared("accuracy", np.zeros(right.shape[1], dtype=np.int64), answers(right), len(right))


def drawn(rng: np.random.Generator, n_trials: int, n: int, better: float = 0.0) -> np.ndarray:
    """Right and wrong answers of equally good trials, to pictures that are easy or hard for all of them;
    the first may be better."""
    easy = rng.beta(4, 0.6, n)
    right = rng.random((n_trials, n)) < easy
    right[0] |= rng.random(n) < better
    return np.asarray(right, dtype=np.float64)


def worse(found: Comparison) -> np.ndarray:
    """Who is shown to be worse than the best."""
    best = int(np.argmax(found.values))
    return np.asarray(found.values[best] - found.values > found.halves(best))


def test_equal_trials_are_rarely_called_worse() -> None:
    """Of searches among trials that are equally good, at most 5 % call anybody worse than the winner."""
    rng = np.random.default_rng(1)
    wrong = sum(worse(by_accuracy(drawn(rng, 12, 150))).any() for _ in range(200))
    assert wrong <= 10


def test_one_that_is_really_worse_is_found() -> None:
    """Where the best answers most of what others do not, they are shown to be worse."""
    rng = np.random.default_rng(2)
    right = drawn(rng, 12, 400, better=0.95)
    assert worse(by_accuracy(right))[1:].all()


def test_equal_answers_are_never_worse() -> None:
    """Who says the same as the best is not worse, and who differs in few pictures is not, either."""
    right = np.ones((30, 300))
    right[1:20, :6] = 0
    right[20:, :150] = 0
    found = worse(by_accuracy(right))
    assert not found[:20].any()
    assert found[20:].all()


def test_pairs_are_told_apart_that_intervals_do_not() -> None:
    """Two trials that err on the same pictures are compared by where they differ alone."""
    right = np.ones((2, 1000))
    right[:, :400] = 0
    right[1, 400:430] = 0
    found = by_accuracy(right)
    assert found.values[0] - found.values[1] < 1.96 * found.spread(0)
    assert worse(found).tolist() == [False, True]


def test_the_spread_is_that_of_a_share() -> None:
    """A value's standard deviation is √(p (1 − p) / n), and that of a difference is of the pictures that
    differ."""
    right = np.ones((2, 200))
    right[0, :20] = 0
    right[1, 10:40] = 0
    found = by_accuracy(right)
    assert found.spread(0) == pytest.approx(np.sqrt(0.1 * 0.9 / 200))
    assert found.spreads[0, 1] == pytest.approx(np.sqrt((30 / 200 - 0.05**2) / 200), rel=1e-4)


def test_seeds_that_differ_by_pictures_tell_their_noise() -> None:
    """The noise of a training's value is found from how the answers of equally good ones differ."""
    rng = np.random.default_rng(3)
    easy = rng.beta(4, 0.6, 500)
    right = (rng.random((20, 500)) < easy).astype(np.float64)
    noise = np.sqrt((easy * (1 - easy)).sum()) / 500
    assert by_accuracy(right).noise(0) == pytest.approx(noise, rel=0.1)


@pytest.mark.parametrize(
    "metric", ["loss", *(n for n, m in schema.METRICS.items() if m.one_label is not None)]
)
def test_any_metric_can_be_compared(metric: str) -> None:
    """By each metric the better of two is found, and a copy of it is not worse."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 7, 600)
    logits = rng.normal(0, 1, (600, 7)).astype(np.float32)
    good = logits + 3 * (labels[:, None] == np.arange(7)).astype(np.float32)
    bad = 30 * logits
    found = compared(metric, labels, [good, bad, good], 3)
    assert worse(found).tolist() == [False, True, False]
    assert (found.values < 0).all() == schema.DIRECTIONS[f"val_{metric}"].startswith("min")


@pytest.mark.slow
def test_equal_trials_are_rarely_called_worse_by_other_metrics() -> None:
    """Neither by metrics whose spread is found by weightings."""
    rng, wrong = np.random.default_rng(5), 0
    labels = rng.integers(0, 4, 150)
    for _ in range(200):
        logits = [rng.normal(0, 1, (150, 4)).astype(np.float32) for _ in range(8)]
        for one in logits:
            one[np.arange(150), labels] += 2
        wrong += int(worse(compared("macro_f1", labels, logits, 8)).any())
    assert wrong <= 16  # 5 %, and what 200 draws of it may have more
