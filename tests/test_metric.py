"""Metrics, on answers that are counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sweeper.training.metric import measure


def test_accuracy_counts_the_largest_logit() -> None:
    """One label each: the share of images whose largest logit is the label's, and the plain cross entropy."""
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    measured = measure(logits, torch.tensor([0, 1, 1, 1]))
    assert measured["accuracy"] == 0.75
    losses = [math.log(1 + math.exp(-gap)) for gap in (2, 2, -1, 1)]
    assert measured["loss"] == pytest.approx(sum(losses) / 4)


def test_mean_average_precision_and_f1() -> None:
    """Several labels each: means over the labels, a probability of 0.5 being a yes.

    First label: by score the truths stand 1, 0, 1, 0, so precision is 1 at the first hit and 2/3 at the
    second: 5/6; three yeses, two of them right, none missed: F1 4/5. Second label: 0, 1, 0, 0, so 1/2; one
    yes, which is wrong: F1 0.
    """
    logits = torch.tensor([[3.0, -1.0], [2.0, 1.0], [1.0, -2.0], [-1.0, -3.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    measured = measure(logits, labels)
    assert measured["mean_average_precision"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert measured["f1"] == pytest.approx((4 / 5 + 0) / 2)
    assert "accuracy" not in measured


def test_a_label_that_no_image_has_does_not_count() -> None:
    """Neither metric is defined for it, so the means are those of the other labels."""
    logits = torch.tensor([[3.0, 1.0], [-2.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    measured = measure(logits, labels)
    assert (measured["mean_average_precision"], measured["f1"]) == (1.0, 1.0)


def test_where_no_image_has_any_label_nothing_but_the_loss_is_measured() -> None:
    """A part of the data may be like that."""
    assert set(measure(torch.zeros(3, 2), torch.zeros(3, 2))) == {"loss"}


def test_a_network_that_diverged_finds_nothing() -> None:
    """Logits that are no numbers end in a loss that is none, not in an error."""
    measured = measure(torch.full((2, 2), math.nan), torch.eye(2))
    assert math.isnan(measured["loss"])
    assert (measured["mean_average_precision"], measured["f1"]) == (0.0, 0.0)
