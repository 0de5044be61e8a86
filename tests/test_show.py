"""What a person sees of one training run."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from sweeper.commands.show import metrics
from tests.program import Terminal, sweeper

RUN = ("optimizer=adam", "optimizer.lr=0.01", "training.epochs=3", "study=once")


def test_one_training_run_says_both_accuracies(tmp_path: Path) -> None:
    """Without -m it trains once, and says validation and test accuracy and where the files are."""
    shown = sweeper(tmp_path, *RUN)
    assert "epoch 3/3: train loss " in shown
    assert "Validation accuracy: 0." in shown
    assert "Test accuracy: 0." in shown
    history = (tmp_path / "outputs" / "once" / "history.csv").read_text()
    rows = list(csv.DictReader(history.splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]) == {
        *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"),
        *("seconds", "images_per_second", "peak_memory_mb"),
    }


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_a_terminal_shows_one_bar(tmp_path: Path, columns: int) -> None:
    """It stands on one line, however narrow the terminal, and counts to the last epoch."""
    terminal = Terminal(tmp_path, "-m", "sweeper", *RUN, columns=columns)
    lines = terminal.finish(60)
    assert terminal.process.returncode == 0, lines
    bars = [line for line in lines if line.startswith("epoch")]
    assert any(re.match(r"epoch +3/3 ━+.* train loss \d", line) for line in bars), lines
    assert max(map(len, bars)) <= columns
    before = lines.index(next(line for line in lines if line.startswith("Best epoch: ")))
    assert all(line.startswith("epoch") or not line.strip() for line in lines[:before]), lines


def test_metrics_are_told_in_words() -> None:
    """Those of one part of the data, without its loss."""
    measured = {"val_loss": 1.0, "val_mean_average_precision": 0.5, "test_accuracy": 0.25, "lr": 3.0}
    assert metrics(measured, "val_") == {"mean average precision": 0.5}
    assert metrics(measured, "test_") == {"accuracy": 0.25}
