"""What a person sees of one training run."""

from __future__ import annotations

import csv
import json
import re
import threading
from math import inf, nan
from pathlib import Path

import pytest

from sweeper import schema
from sweeper.commands.show import SingleRun, metrics
from sweeper.training.fit import Epoch
from tests.program import Terminal, sweeper, until

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


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80])
def test_a_terminal_shows_a_bar_and_keeps_the_epochs(tmp_path: Path, columns: int) -> None:
    """Epoch, bar and numbers below, and above a line for each epoch, the best marked: none is wrapped."""
    terminal = Terminal(tmp_path, "-m", "sweeper", *RUN, columns=columns)
    lines = terminal.finish(60)
    assert terminal.process.returncode == 0, lines
    texts = [line for line in lines if "python -m sweeper" not in line]  # a command is whole
    assert max(map(len, texts)) <= columns
    bar = r"epoch \d/3  [━─]{10,}  (val_accuracy 0\.\d{4} · )?\d:\d\d:\d\d"
    assert any(re.match(bar, line) for line in lines), lines
    (head,) = {line.rstrip() for line in lines if line.startswith("epoch   ")}
    assert head.split()[:3] == ["epoch", "val_loss", "val_accuracy"]
    assert ("images/s" in head) == (columns == 80)
    history = (tmp_path / "outputs" / "once" / "history.csv").read_text().splitlines()
    for row in csv.DictReader(history):
        (line,) = (line for line in lines if re.match(rf" *{row['epoch']}/3 ", line))
        value = f"{float(row['val_accuracy']):.4f}"
        assert line.index(value) + len(value) == head.index("val_accuracy") + len("val_accuracy")
    best = json.loads((tmp_path / "outputs" / "once" / "result.json").read_text())["best_epoch"]
    marked = [line for line in lines if re.match(r" *\d/3  best ", line)]
    assert marked[-1].split()[0] == f"{best}/3"


@pytest.mark.slow
def test_a_terminal_shows_of_many_metrics_those_that_decide(tmp_path: Path) -> None:
    """All have no room in a line: the objective and what is monitored come first, and nothing is cut."""
    names = (
        "mean_average_precision,balanced_accuracy,macro_f1,auroc,top5_accuracy,cohen_kappa,calibration_error"
    )
    asked = (
        "objective=val_auroc",
        "training.early_stopping.monitor=val_macro_f1",
        f"training.metrics=[{names}]",
    )
    terminal = Terminal(tmp_path, "-m", "sweeper", *RUN, *asked, columns=80)
    lines = terminal.finish(60)
    assert terminal.process.returncode == 0, lines
    texts = [line for line in lines if "python -m sweeper" not in line]  # a command is whole
    assert max(map(len, texts)) <= 80
    (head,) = {line.rstrip() for line in lines if line.startswith("epoch   ")}
    assert head.split()[:4] == ["epoch", "val_loss", "val_macro_f1", "val_auroc"]
    assert not any("…" in line for line in lines)
    assert any(
        re.match(r"epoch \d/3  [━─]{10,}  val_macro_f1 0\.\d{4} .*\d:\d\d:\d\d", line) for line in lines
    )


def test_the_best_epoch_so_far_is_marked() -> None:
    """By what early stopping monitors; one that diverged never is, but the first."""
    run = schema.Run(training=schema.Training(epochs=5))
    shown = SingleRun(run)
    values = [(inf, 0.1), (0.5, 0.2), (0.5, 0.9), (0.4, 0.3), (nan, 0.3)]
    epochs = [an_epoch(i, loss, accuracy) for i, (loss, accuracy) in enumerate(values, start=1)]
    assert [epoch.epoch for epoch in epochs if shown.is_best(epoch)] == [1, 2, 4]


def test_a_log_says_that_a_long_epoch_is_running(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each interval in which no epoch has ended, and none after the run."""
    run = schema.Run(training=schema.Training(epochs=5))
    out, n_threads = "", threading.active_count()

    def is_told() -> bool:
        nonlocal out
        out += capsys.readouterr().out
        return "epoch 2/5: running for 0 s\n" in out

    with SingleRun(run, silence_s=0.01) as shown:
        shown.epoch(an_epoch(1, 0.5, 0.5))
        until(is_told)
    assert out.startswith(("epoch 1/5: train loss ", "epoch 1/5: running for 0 s\n"))
    assert threading.active_count() == n_threads


def an_epoch(number: int, val_loss: float, val_accuracy: float) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        lr=0.1,
        seconds=1.0,
        images_per_second=1000.0,
        peak_memory_mb=1.0,
    )


def test_metrics_are_told_in_words() -> None:
    """Those of one part of the data, without its loss."""
    measured = {"val_loss": 1.0, "val_mean_average_precision": 0.5, "test_accuracy": 0.25, "lr": 3.0}
    assert metrics(measured, "val_") == {"mean average precision": 0.5}
    assert metrics(measured, "test_") == {"accuracy": 0.25}
