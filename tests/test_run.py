"""The main job, end to end: a search over real images, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

from sweeper import record
from sweeper.record import RunFiles
from tests.journal import load_study
from tests.program import IN_PROCESS, sweeper


@pytest.fixture(scope="module")
def study(searched: Path) -> optuna.Study:
    """The searched study, opened by plain Optuna."""
    return load_study(searched, "digits")


def test_the_default_search_finds_a_good_model(study: optuna.Study) -> None:
    """40 trials over the default ranges reach 97 % validation accuracy, and bad ones are pruned."""
    states = [trial.state for trial in study.trials]
    assert len(states) == 40
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_value >= 0.97


def test_the_default_search_draws_from_the_documented_ranges(study: optuna.Study) -> None:
    """Learning rate, weight decay, batch size and dropout for all; momentum where there is one."""
    for trial in study.trials:
        params = dict(trial.params)
        assert params.pop("optimizer") in ("adam", "sgd")
        assert 1e-4 <= params.pop("optimizer.lr") <= 1e-2
        assert 1e-4 <= params.pop("optimizer.weight_decay") <= 1e-2
        assert params.pop("training.batch_size") in (16, 32, 64, 128)
        assert 0.3 <= params.pop("model.dropout") <= 0.5
        if trial.params["optimizer"] == "sgd":
            assert 0.8 <= params.pop("optimizer.momentum") <= 0.99
        assert params == {}


def test_each_trial_leaves_its_config_history_and_result(searched: Path, study: optuna.Study) -> None:
    """Every trial's folder has the complete config, one row an epoch as reported, and the result."""
    for trial in study.trials:
        folder = searched / "outputs" / "digits" / str(trial.number)
        assert trial.user_attrs["folder"] == str(folder)
        history = RunFiles(folder).read_history()
        assert {int(row["epoch"]): row["val_accuracy"] for row in history} == trial.intermediate_values
        config = yaml.safe_load((folder / "trial.yaml").read_text())
        assert config["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert config["training"]["batch_size"] == trial.params["training.batch_size"]
        result = json.loads((folder / "result.json").read_text())
        assert result["trial"] == trial.number
        assert result["epochs"] == len(history)
        assert trial.user_attrs["val_accuracy"] == result["val_accuracy"]
        assert {"seconds", "peak_memory_mb", "images_per_second"} <= trial.user_attrs.keys()
        assert (folder / ".hydra" / "config.yaml").exists()


def test_the_best_model_is_kept_and_tested_once(searched: Path, study: optuna.Study) -> None:
    """``best/`` holds the best trial's files and the test accuracy of that model; no other has weights."""
    folder = searched / "outputs" / "digits"
    result = json.loads((folder / "best" / "result.json").read_text())
    assert result["trial"] == study.best_trial.number
    assert result["val_accuracy"] == study.best_value
    assert 0.9 < result["test_accuracy"] <= 1
    tested = [path for path in folder.glob("*/result.json") if "test_accuracy" in path.read_text()]
    assert tested == [folder / "best" / "result.json"]
    weights = torch.load(folder / "best" / "weights.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert {path.parent.name for path in folder.glob("*/weights.pt")} == {
        "best",
        str(study.best_trial.number),
    }


def test_the_summary_file_names_the_best_trial(searched: Path, study: optuna.Study) -> None:
    """``optimization_results.yaml`` has the best trial's number, value and parameters, and the counts."""
    summary = yaml.safe_load((searched / "outputs" / "digits" / "optimization_results.yaml").read_text())
    assert summary["best_trial"] == study.best_trial.number
    assert summary["best_value"] == study.best_value
    assert summary["best_params"] == study.best_params
    assert sum(summary["trials"].values()) == 40


def test_the_overrides_of_a_trial_give_its_config(searched: Path, study: optuna.Study) -> None:
    """The override list that is kept with a trial composes the config it ran with."""
    trial = study.best_trial
    composed = yaml.safe_load(sweeper(searched, *trial.user_attrs["overrides"], "--cfg", "job"))
    ran = yaml.safe_load(
        (searched / "outputs" / "digits" / str(trial.number) / ".hydra" / "config.yaml").read_text()
    )
    assert composed == ran


@pytest.mark.slow
def test_several_objectives_are_searched_without_a_pruner(tmp_path: Path) -> None:
    """Accuracy and seconds together: a front of solutions, and each direction follows from its objective."""
    shown = sweeper(
        *(tmp_path, "-m", "objective=[val_accuracy,seconds]", "hydra/sweeper/pruner=none", "study=front"),
        *("hydra.sweeper.n_trials=3", "training.epochs=2", "optimizer=adam"),
        *IN_PROCESS,
    )
    assert "val_accuracy" in shown
    assert "seconds" in shown
    summary = yaml.safe_load((tmp_path / "outputs" / "front" / "optimization_results.yaml").read_text())
    assert summary["solutions"]
    assert all(len(solution["values"]) == 2 for solution in summary["solutions"])
    assert "Best trial: number" in sweeper(tmp_path, "best", "front")


@pytest.mark.slow
def test_a_diverging_trial_is_pruned_and_marked(tmp_path: Path) -> None:
    """An infinite loss ends the trial as PRUNED and diverged, and the search goes on."""
    sweeper(
        *(
            tmp_path,
            "-m",
            "study=wild",
            "optimizer.lr=1e30,1e-3",
            "hydra/sweeper/sampler=grid",
            "training.epochs=2",
        ),
        *("optimizer.weight_decay=0", "training.batch_size=32", "model.dropout=0.5", "optimizer=adam"),
        *("hydra/sweeper/pruner=none", *IN_PROCESS),
    )
    trials = load_study(tmp_path, "wild").trials
    by_lr = {trial.params["optimizer.lr"]: trial for trial in trials}
    assert by_lr[1e30].state == TrialState.PRUNED
    assert by_lr[1e30].user_attrs["diverged"] is True
    assert by_lr[1e-3].state == TrialState.COMPLETE


@pytest.mark.slow
def test_200_trials_do_not_grow_the_worker(tmp_path: Path) -> None:
    """After each trial the memory is back where it was, though networks, batches and optimizers change."""
    search = [
        "-m",
        "optimizer=adam,sgd,rmsprop",
        "model.filters=choice([4],[8,8])",
        "hydra/sweeper/sampler=random",
    ]
    settings = ["training.epochs=1", "training.n_threads=1", "hydra/sweeper/pruner=none", "study=grow"]
    sweeper(tmp_path, *search, *settings, "hydra.sweeper.n_trials=200", "hydra.sweeper.n_jobs=1")
    folder = tmp_path / "outputs" / "grow"
    peak_mb = [record.read_json(RunFiles(folder / str(n)).result)["peak_memory_mb"] for n in range(200)]
    assert peak_mb[0] > 100  # of the one process that ran them all
    assert peak_mb[-1] - peak_mb[20] < 0.02 * peak_mb[20]
