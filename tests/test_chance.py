"""What somebody would reach who has not seen the images."""

from __future__ import annotations

from math import log

import pytest
import torch

from sweeper.training.chance import chance_accuracy, chance_loss


def test_equal_classes() -> None:
    """With k classes of equal size, the loss is log k and the accuracy 1 / k."""
    labels = torch.arange(5).repeat(20)
    assert chance_loss(labels, labels, 5) == pytest.approx(log(5))
    assert chance_accuracy(labels, labels, 5) == pytest.approx(0.2)


def test_unequal_classes() -> None:
    """Who knows how frequent the classes are does better; what val alone has is not impossible."""
    train, val = torch.tensor([0] * 90 + [1] * 9), torch.tensor([0] * 9 + [1])
    assert chance_loss(train, val, 2) < log(2) / 2
    assert chance_accuracy(train, val, 2) == pytest.approx(0.9)
    assert chance_loss(train, torch.tensor([2]), 3) == pytest.approx(log(102))


def test_several_labels() -> None:
    """The mean binary cross entropy of the labels' frequencies; there is no accuracy."""
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]] * 50)
    rates = (51 / 102, 1 / 102)
    expected = -(log(rates[0]) + log(1 - rates[1])) / 2
    assert chance_loss(labels, labels, 2) == pytest.approx(expected, rel=1e-5)
    assert chance_accuracy(labels, labels, 2) is None
