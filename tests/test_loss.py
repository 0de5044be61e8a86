"""Losses, on batches that are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn.functional import cross_entropy

from sweeper.errors import BadInput
from sweeper.schema import Loss
from sweeper.training.loss import build_loss


def loss_of(settings: Loss, labels: Tensor, logits: Tensor, trained_on: Tensor | None = None) -> float:
    of = build_loss(
        settings, labels if trained_on is None else trained_on, logits.shape[1], torch.device("cpu")
    )
    return of(logits, labels).item()


def softmax(*logits: float) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


LOGITS, LABELS = [[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]], [0, 2]
LABEL_LOGITS, LABEL_TRUTH = [[2.0, -1.0], [0.0, 3.0], [1.0, -2.0]], [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]


def test_cross_entropy() -> None:
    """The mean of minus the logarithm of what the softmax gives the label."""
    by_hand = -(math.log(softmax(2.0, 0.0, -1.0)[0]) + math.log(softmax(0.5, 1.5, 0.0)[2])) / 2
    assert loss_of(Loss(), torch.tensor(LABELS), torch.tensor(LOGITS)) == pytest.approx(by_hand)


def test_label_smoothing() -> None:
    """With smoothing s the label has 1 - s, and s is spread evenly over all classes."""
    by_hand = 0.0
    for logits, label in zip(LOGITS, LABELS, strict=True):
        for j, probability in enumerate(softmax(*logits)):
            by_hand -= ((0.8 if j == label else 0.0) + 0.2 / 3) * math.log(probability) / 2
    smoothed = loss_of(Loss(label_smoothing=0.2), torch.tensor(LABELS), torch.tensor(LOGITS))
    assert smoothed == pytest.approx(by_hand)


def test_class_weights() -> None:
    """A weight for each class: the mean is weighted."""
    losses = -math.log(softmax(*LOGITS[0])[0]), -math.log(softmax(*LOGITS[1])[2])
    by_hand = (3 * losses[0] + 0.5 * losses[1]) / 3.5
    given = loss_of(Loss(class_weights=[3, 1, 0.5]), torch.tensor(LABELS), torch.tensor(LOGITS))
    assert given == pytest.approx(by_hand)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    """``balanced`` weighs classes by how rare they are among the images to train on."""
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy()))
    balanced = loss_of(Loss(class_weights="balanced"), labels, logits)
    assert balanced == pytest.approx(cross_entropy(logits, labels, expected.float()).item())


def test_bce_with_logits() -> None:
    """The mean over images and labels of the binary cross entropy of the sigmoid."""
    by_hand = 0.0
    for logits, truth in zip(LABEL_LOGITS, LABEL_TRUTH, strict=True):
        for logit, is_there in zip(logits, truth, strict=True):
            by_hand -= math.log(sigmoid(logit) if is_there else 1 - sigmoid(logit)) / 6
    given = loss_of(Loss(name="bce_with_logits"), torch.tensor(LABEL_TRUTH), torch.tensor(LABEL_LOGITS))
    assert given == pytest.approx(by_hand)


@pytest.mark.parametrize("pos_weight", [[2.0, 5.0], "balanced"])
def test_pos_weight(pos_weight: list[float] | str) -> None:
    """What is there counts by its label's weight; ``balanced`` is absent by present images."""
    weights = [1 / 2, 2 / 1] if pos_weight == "balanced" else [2.0, 5.0]
    by_hand = 0.0
    for logits, truth in zip(LABEL_LOGITS, LABEL_TRUTH, strict=True):
        for logit, is_there, weight in zip(logits, truth, weights, strict=True):
            by_hand -= weight * math.log(sigmoid(logit)) / 6 if is_there else math.log(1 - sigmoid(logit)) / 6
    settings = Loss(name="bce_with_logits", pos_weight=pos_weight)
    assert loss_of(settings, torch.tensor(LABEL_TRUTH), torch.tensor(LABEL_LOGITS)) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", ["class_weights", "pos_weight"])
@pytest.mark.parametrize("weights", [[1.0], "blanced", [1, 2, 0], [True, True, True], [1, 2, math.inf]])
def test_weights_must_suit_the_classes(name: str, weights: list[float] | str) -> None:
    """There is one weight above 0 for each class, or a line that says so."""
    settings = Loss("bce_with_logits" if name == "pos_weight" else "cross_entropy", **{name: weights})
    with pytest.raises(BadInput, match=rf"loss\.{name}=.* a weight above 0 for each of the 3 classes"):
        build_loss(settings, torch.zeros(4, dtype=torch.int64), 3, torch.device("cpu"))
