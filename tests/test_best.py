"""``best``: the best trial of a study, from its files."""

from __future__ import annotations

from pathlib import Path

from tests.foreign_app import App
from tests.journal import load_study
from tests.program import IN_PROCESS, sweeper


def test_best_prints_the_best_trial(searched: Path) -> None:
    """``best`` without a name takes the newest study, and shows score, parameters and test accuracy."""
    study = load_study(searched, "digits")
    shown = sweeper(searched, "best")
    assert f"best trial: {study.best_trial.number}" in shown
    assert "optimizer.lr" in shown
    assert "test_accuracy" in shown
    assert shown == sweeper(searched, "best", "outputs/digits")


def test_a_study_of_another_app_is_shown_too(tmp_path: Path) -> None:
    """By the folder where the app put it: counts, number, value and parameters."""
    app = App(tmp_path, "if number == 0:\n    raise optuna.TrialPruned\nreturn cfg.x")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=3").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    trial = app.study().best_trial
    assert shown.startswith("Study s: ")
    assert "1 pruned" in shown
    assert f"best trial: {trial.number}, {trial.value:.5g}" in shown
    assert f"{trial.params['x']:.5g}" in shown
    assert "reproduce" not in shown  # it has no run of ours


def test_several_objectives_show_the_front(tmp_path: Path) -> None:
    """One table for each solution that no other beats."""
    app = App(tmp_path, "return cfg.x, -cfg.x")
    directions = ("hydra.sweeper.direction=[minimize,minimize]", "hydra/sweeper/pruner=none")
    assert app.run(*IN_PROCESS, *directions, "hydra.sweeper.n_trials=3").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    for trial in app.trials():
        assert f"trial {trial.number}: {trial.values[0]:.5g}, {trial.values[1]:.5g}" in shown


def test_a_study_without_a_completed_trial_says_so(tmp_path: Path) -> None:
    """No table, no error."""
    app = App(tmp_path, "raise optuna.TrialPruned")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    assert "Study s: 2 pruned" in shown
    assert "No trial has completed yet." in shown
