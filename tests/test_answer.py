"""What logits say of images whose labels are known: by hand, and as training measures it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sweeper.results.answer import (
    Bin,
    Mistake,
    calibration_error,
    confusion,
    doubtful,
    losses,
    margins,
    most_confused,
    picked,
    probabilities,
    reliability,
    wilson,
    worst,
)
from sweeper.training import metric

LABELS = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 1, 1, 1, 0, 1])
PETS = ("cats", "dogs", "owls")
HAS = np.array([[1, 0], [1, 0], [0, 0], [0, 1]], dtype=np.uint8)
SEEN = np.array([[2, -1], [-1, 3], [0, -2], [-3, 1]], dtype=np.float32)


def logits_of(said: np.ndarray, sure: float = 2.0) -> np.ndarray:
    """The class that is said has the logit ``sure``, others have 0."""
    logits: np.ndarray = np.float32(sure) * np.eye(3, dtype=np.float32)[said]
    return logits


def drawn(multi_label: bool, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """500 images of 6 classes or labels."""
    rng = np.random.default_rng(int(scale))
    logits = (rng.normal(size=(500, 6)) * scale).astype(np.float32)
    labels = rng.integers(0, 2, (500, 6)).astype(np.uint8) if multi_label else rng.integers(0, 6, 500)
    return labels, logits


def test_a_matrix_counts_what_is_taken_for_what() -> None:
    """Rows are true, columns said."""
    assert confusion(LABELS, logits_of(SAID)).tolist() == [[1, 2, 0], [1, 1, 0], [0, 1, 0]]


def test_mistakes_are_told_from_the_most_frequent_on() -> None:
    """With their counts; of equally frequent ones the rarer class comes first, as more of it is lost."""
    assert most_confused(LABELS, logits_of(SAID), PETS) == [
        Mistake("cats", "dogs", 2, 3),
        Mistake("owls", "dogs", 1, 1),
        Mistake("dogs", "cats", 1, 2),
    ]
    assert len(most_confused(LABELS, logits_of(SAID), PETS, most=1)) == 1
    assert most_confused(LABELS, logits_of(LABELS), PETS) == []


def test_a_label_may_be_missed_or_made_up() -> None:
    """Of several labels each has both mistakes; a logit of 0 says the label, as it does in training."""
    assert most_confused(HAS, SEEN, ("fur", "wings")) == [
        Mistake("fur", "no fur", 1, 2),
        Mistake("no fur", "fur", 1, 2),
        Mistake("no wings", "wings", 1, 3),
    ]


@pytest.mark.parametrize("multi_label", [False, True])
def test_losses_are_those_of_training(multi_label: bool) -> None:
    """Their mean is the loss that training measures on the same images."""
    labels, logits = drawn(multi_label, 3)
    given = torch.from_numpy(labels)
    measured = metric.measure(torch.from_numpy(logits), given.float() if multi_label else given, ())
    assert losses(labels, logits).mean() == pytest.approx(measured["loss"], rel=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("scale", [1, 5, 40])
def test_the_calibration_error_is_that_of_training(multi_label: bool, scale: float) -> None:
    """The diagram shows what the metric of the same name adds up, also where answers are sure to the bit."""
    labels, logits = drawn(multi_label, scale)
    given = torch.from_numpy(labels)
    measured = metric.measure(
        torch.from_numpy(logits), given.float() if multi_label else given, ("calibration_error",)
    )
    bins = reliability(labels, logits)
    assert calibration_error(bins) == pytest.approx(measured["calibration_error"], abs=1e-6)
    assert sum(each.n for each in bins) == labels.size


def test_answers_of_about_the_same_probability_stand_together() -> None:
    """Four answers of 2/3, of which one is right: a point below the line, with the interval of so few."""
    labels, logits = np.array([0, 1, 1, 1]), np.tile(np.log([2, 1]).astype(np.float32), (4, 1))
    (only,) = reliability(labels, logits)
    assert only == Bin(only.said, 0.25, 4, *wilson(1, 4))
    assert only.said == pytest.approx(2 / 3)
    assert calibration_error([only]) == pytest.approx(2 / 3 - 1 / 4)


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1)]
)
def test_an_interval_holds_for_few(n_right: int, n: int, low: float, high: float) -> None:
    """As published for Wilson's score interval, which none and all leave inside 0 … 1."""
    assert list(wilson(n_right, n)) == pytest.approx([low, high], abs=1e-4)


def test_the_worst_are_sure_and_wrong() -> None:
    """By loss, so that the surest mistake comes first; NaN is worse than all."""
    logits = np.stack(
        [logits_of(np.array([said]), sure)[0] for said, sure in [(0, 1), (1, 1), (1, 9), (0, 9)]]
    )
    labels = np.zeros(4, dtype=np.int64)
    assert worst(labels, logits, 2).tolist() == [2, 1]
    logits[3] = np.nan
    assert worst(labels, logits, 2).tolist() == [3, 2]


def test_the_doubtful_might_as_well_have_been_another() -> None:
    """By the distance between the two likeliest classes; of several labels the one nearest to 0.5 counts."""
    logits = np.array([[5, 0, 0], [2, 1.9, -9], [1, 0, 0]], dtype=np.float32)
    assert doubtful(np.zeros(3, dtype=np.int64), logits, 2).tolist() == [1, 2]
    assert doubtful(HAS, SEEN, 1).tolist() == [2]
    assert margins(HAS, SEEN)[2] == 0


def test_pictures_are_picked_once() -> None:
    """One that is both among the worst and the most doubtful is kept once, and few images are all kept."""
    assert picked(LABELS, logits_of(SAID)).tolist() == list(range(6))
    labels, logits = drawn(False, 2)
    chosen = picked(labels, logits)
    assert set(chosen) == set(worst(labels, logits)) | set(doubtful(labels, logits))
    assert len(set(chosen)) == len(chosen)


@pytest.mark.parametrize("multi_label", [False, True])
def test_large_logits_are_probabilities_too(multi_label: bool) -> None:
    """No overflow, no warning: 0 and 1."""
    labels = np.array([[1, 0]], dtype=np.uint8) if multi_label else np.array([0])
    assert probabilities(labels, np.array([[900, -900]], dtype=np.float32)).tolist() == [[1, 0]]
