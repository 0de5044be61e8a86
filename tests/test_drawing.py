"""A run's loss by epoch, as a picture."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from sweeper.results.drawing import loss_by_epoch

FALLING = [{"train_loss": 2.0 / epoch, "val_loss": 2.2 / epoch} for epoch in range(1, 21)]


def texts(svg: str) -> list[str]:
    return ["".join(found.itertext()) for found in ElementTree.fromstring(svg).iter() if found.text]


def curves(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]
        for points in re.findall('points="([^"]+)"', svg)
    ]


def test_both_losses_are_drawn_and_named() -> None:
    """Training and validation loss fall from left to right over all epochs, and the best epoch is marked."""
    svg = loss_by_epoch(FALLING, best_epoch=19)
    assert [len(curve) for curve in curves(svg)] == [20, 20]
    for curve in curves(svg):
        assert curve == sorted(curve)  # to the right, and down, where y grows
    assert {"training", "validation", "loss", "1", "20", "epoch (dotted: the best, 19)"} <= {
        told.strip() for told in texts(svg)
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_leaves_a_gap(bad: float) -> None:
    """What diverged is no point of the curve, and hides no other."""
    losses = [2.0, 3.0, bad, 2.5, 2.0]
    svg = loss_by_epoch([{"train_loss": loss, "val_loss": 1.0} for loss in losses])
    assert [len(curve) for curve in curves(svg)] == [2, 2, 5]
    assert "nan" not in svg
    assert "inf" not in svg


def test_losses_of_several_magnitudes_get_a_logarithmic_axis() -> None:
    """A loss that falls by a factor each epoch is a straight line, down to its end."""
    svg = loss_by_epoch([{"train_loss": 10.0**-epoch, "val_loss": 10.0**-epoch} for epoch in range(5)])
    steps = [b[1] - a[1] for a, b in zip(curves(svg)[0], curves(svg)[0][1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.2)
    assert "loss (logarithmic)" in svg


@pytest.mark.parametrize(
    "history",
    [
        [{"train_loss": 2.3, "val_loss": 2.3}],
        [{"train_loss": 0.0, "val_loss": 0.0}] * 3,
        [{"train_loss": -1.0, "val_loss": 5.0}, {"train_loss": 1e300, "val_loss": -1e300}],
        [{"train_loss": math.nan, "val_loss": math.inf}],
        [{"epoch": 1.0}],
        [],
    ],
)
def test_whatever_was_measured_can_be_drawn(history: list[dict[str, float]]) -> None:
    """One epoch, no loss at all, and losses that no network should have give a picture, too."""
    svg = loss_by_epoch(history, best_epoch=1)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "nan" not in svg
