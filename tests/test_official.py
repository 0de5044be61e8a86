"""What an app of the official Optuna sweeper, or of any of Hydra's, writes means the same here.

Most searches run in this process, through Hydra itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import sweeper

Task = Callable[[DictConfig], Any]
Sweep = Callable[..., optuna.Study]
Refused = Callable[..., str]

SWEEPER = {"override hydra/sweeper": "sweeper_optuna"}


def x(config: DictConfig) -> float:
    return float(config.x)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """``sweep(files, *arguments, task=…)``: the study of ``app.py -m ARGUMENTS``; ``config`` is app.yaml.

    A ``config`` without defaults list gets the sweeper, and a search of three trials.
    """
    monkeypatch.chdir(tmp_path)

    def run(files: Mapping[str, Any], *arguments: str, task: Task = x) -> optuna.Study:
        for name, content in files.items():
            if name == "config" and "defaults" not in content:
                content = {"defaults": ["_self_", SWEEPER], **content}
            path = tmp_path / "conf" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        fixed = ["hydra.sweeper.n_jobs=1", "hydra.sweeper.in_process=true"]
        if not any("n_trials" in argument for argument in [*arguments, str(files)]):
            fixed.append("hydra.sweeper.n_trials=3")
        with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3", job_name="app"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            study = hydra.multirun("config", task, [*fixed, *arguments], with_log_configuration=False)
        assert isinstance(study, optuna.Study)
        return study

    return run


@pytest.fixture
def refused(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line of a search that is refused before anything starts."""

    def run(files: Mapping[str, Any], *arguments: str, task: Task = x) -> str:
        with pytest.raises(SystemExit, match=r"^2$"):
            sweep(files, *arguments, task=task)
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "outputs").exists()
        return line

    return run


# --- keys of hydra.sweeper ----------------------------------------------------------------------------------


def test_the_official_config_runs(sweep: Sweep) -> None:
    """The keys of the official sweeper's own example, all written out, search as they say."""
    keys = {
        "sampler": {"seed": 123},
        "direction": "minimize",
        "study_name": "sphere",
        "storage": None,
        "n_trials": 4,
        "n_jobs": 1,
        "max_failure_rate": 0.0,
        "params": {"x": "range(-5.5, 5.5, step=0.5)", "y": "choice(-5, 0, 5)"},
    }
    study = sweep({"config": {"x": 1, "y": 1, "z": "foo", "hydra": {"sweeper": keys}}}, "z=bar")
    assert study.study_name == "sphere"
    assert [set(t.params) for t in study.trials] == [{"x", "y"}] * 4
    assert all(-5.5 <= t.params["x"] <= 5.0 and t.params["y"] in (-5, 0, 5) for t in study.trials)


def test_null_as_storage_is_the_journal(sweep: Sweep, tmp_path: Path) -> None:
    """``storage: null`` means what leaving it out means: workers could not share a study in memory."""
    sweep({"config": {"x": 0}}, "x=interval(0,1)", "hydra.sweeper.storage=null")
    assert (tmp_path / "outputs" / "studies.journal").exists()


@pytest.mark.parametrize("direction", ["maximize", "MAXIMIZE", "Maximize", "[maximize]", "[MAXIMIZE]"])
def test_a_direction_in_any_case(sweep: Sweep, direction: str) -> None:
    """Optuna's enum spells it in capitals, its functions in small letters; a list may have one member."""
    study = sweep({"config": {"x": 0}}, "x=interval(0,1)", f"hydra.sweeper.direction={direction}")
    assert study.direction.name == "MAXIMIZE"


def test_metrics_are_named(sweep: Sweep) -> None:
    """``metric_names`` are Optuna's."""
    study = sweep(
        {"config": {"x": 0}},
        "x=interval(0,1)",
        "hydra.sweeper.direction=[minimize,maximize]",
        "hydra.sweeper.metric_names=[loss,accuracy]",
        task=lambda config: (config.x, -config.x),
    )
    assert study.metric_names == ["loss", "accuracy"]


@pytest.mark.parametrize("names", ["loss", "[loss,accuracy,seconds]", "[]", "[1,2]", "3"])
def test_metrics_that_do_not_suit_the_directions_are_refused(refused: Refused, names: str) -> None:
    """There is one name for each direction; the error names the key in which the app keeps them."""
    files = {"config": {"x": 0, "scores": names, "hydra": {"sweeper": {"metric_names": "${scores}"}}}}
    line = refused(files, "x=interval(0,1)", f"scores={names}", "hydra.sweeper.direction=[minimize,maximize]")
    assert line.startswith("scores=")


def test_all_trials_of_a_study_have_the_same_metrics(refused: Refused) -> None:
    """An option that would rename what is measured is refused, by the key of the app."""
    files = {"config": {"x": 0, "score": "loss", "hydra": {"sweeper": {"metric_names": "${score}"}}}}
    line = refused(files, "score=loss,accuracy", task=checked)
    assert line.startswith("score=several: ")
    assert line.endswith("write score=[loss,accuracy] for several at once")


@sweeper.hooks(check=lambda config: None)
def checked(config: DictConfig) -> float:
    return 0.0


# --- several objectives and the pruner ----------------------------------------------------------------------

TWO = ("hydra.sweeper.direction=[minimize,maximize]", "x=interval(0,1)")


def two(config: DictConfig) -> list[float]:
    sweeper.trial().report(config.x, 1)
    return [config.x, config.x]


def test_the_default_pruner_is_off_with_several_objectives(sweep: Sweep) -> None:
    """Who chose no pruner can search for several objectives, as with the official sweeper."""
    assert len(sweep({"config": {"x": 0}}, *TWO, task=two).best_trials) >= 1


@pytest.mark.parametrize(
    "argument",
    [
        "hydra/sweeper/pruner=hyperband",
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.reduction_factor=2",
        "hydra.sweeper.pruner._target_=optuna.pruners.MedianPruner",
    ],
)
def test_a_chosen_pruner_is_refused_with_several_objectives(refused: Refused, argument: str) -> None:
    """On the command line."""
    line = refused({"config": {"x": 0}}, *TWO, argument, task=two)
    assert line.startswith("hydra/sweeper/pruner=")
    assert "hydra/sweeper/pruner=none" in line


@pytest.mark.parametrize(
    "content",
    [
        {"defaults": ["_self_", SWEEPER, {"override hydra/sweeper/pruner": "hyperband"}]},
        {"hydra": {"sweeper": {"pruner": {"_target_": "optuna.pruners.MedianPruner"}}}},
        {"hydra": {"sweeper": {"pruner": {"min_resource": 2}}}},
    ],
    ids=["defaults list", "target", "argument"],
)
def test_a_pruner_chosen_by_the_app_is_refused_too(refused: Refused, content: dict[str, Any]) -> None:
    """In its defaults list or in its config, also where it is the one that would have been the default."""
    assert refused({"config": {"x": 0, **content}}, *TWO, task=two).startswith("hydra/sweeper/pruner=")


def test_no_pruner_can_be_chosen_with_several_objectives(sweep: Sweep) -> None:
    """``hydra/sweeper/pruner=none`` says what then is so anyway."""
    sweep({"config": {"x": 0}}, *TWO, "hydra/sweeper/pruner=none", task=two)
