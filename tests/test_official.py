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
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import sweeper
from sweeper.conf import VERSION_BASE
from tests.program import IN_PROCESS

Task = Callable[[DictConfig], Any]
Sweep = Callable[..., optuna.Study]
Refused = Callable[..., str]

OLD = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
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
        fixed = [] if any(OLD in argument for argument in arguments) else [*IN_PROCESS]
        if fixed and not any("n_trials" in argument for argument in [*arguments, str(files)]):
            fixed.append("hydra.sweeper.n_trials=3")
        with initialize_config_dir(str(tmp_path / "conf"), job_name="app", **VERSION_BASE):
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


# --- ranges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [None, {}])
def test_no_params(sweep: Sweep, params: object) -> None:
    """``params: null`` is a search of what the command line sweeps, or of nothing."""
    files = {"config": {"x": 0, "hydra": {"sweeper": {"params": params}}}}
    assert [t.params for t in sweep(files).trials] == [{}] * 3
    study = sweep(files, "x=interval(0,1)", "hydra.sweeper.study_name=other")
    assert [set(t.params) for t in study.trials] == [{"x"}] * 3


@pytest.mark.parametrize(
    "argument",
    [
        "+hydra.sweeper.params.x='choice(2,3)'",
        "++hydra.sweeper.params.x='choice(2,3)'",
    ],
)
def test_params_on_the_command_line(sweep: Sweep, argument: str) -> None:
    """The ranges of the config can be written on the command line, in quotes."""
    assert {t.params["x"] for t in sweep({"config": {"x": 0}}, argument).trials} <= {2, 3}


def test_params_are_nested_or_added(sweep: Sweep) -> None:
    """A key with dots may be written as nested keys; ``+`` adds a key that the config has not."""
    params = {"a": {"b": "choice(1,2)"}, "a.c": "3", "+new": "choice(4,5)"}
    seen = []

    def task(config: DictConfig) -> float:
        seen.append(config)
        return 0.0

    study = sweep({"config": {"a": {"b": 0, "c": 0}, "hydra": {"sweeper": {"params": params}}}}, task=task)
    assert all(config.a.c == 3 and config.a.b in (1, 2) and config.new in (4, 5) for config in seen)
    assert {name for t in study.trials for name in t.params} == {"a.b", "new"}


@pytest.mark.parametrize(
    ("node", "expression"),
    [
        ({"type": "categorical", "choices": [1, "b c", True]}, r"choice(1, b\ c, True)"),
        ({"type": "int", "low": 0, "high": 10}, "int(interval(0, 10))"),
        ({"type": "int", "low": 0, "high": 10, "step": 2}, "range(0, 12, step=2)"),
        ({"type": "int", "low": 1, "high": 100, "log": True}, "tag(log, int(interval(1, 100)))"),
        ({"type": "float", "low": 0, "high": 1}, "interval(0.0, 1.0)"),
        ({"type": "float", "low": 0, "high": 1, "step": 0.25}, "range(0.0, 1.25, step=0.25)"),
        ({"type": "float", "low": 1e-05, "high": 1, "log": True}, "tag(log, interval(1e-05, 1.0))"),
    ],
)
def test_the_old_search_space_is_translated(
    refused: Refused, sweep: Sweep, node: dict[str, Any], expression: str
) -> None:
    """``search_space`` of before Hydra 1.2 is refused with what to write instead, which means the same."""
    line = refused({"config": {"x": 0, "hydra": {"sweeper": {"search_space": {"x": node}}}}})
    assert line == (
        f"hydra.sweeper.search_space=x: is called params since Hydra 1.2; write params: {{x: '{expression}'}}"
    )
    sweep({"config": {"x": 0, "hydra": {"sweeper": {"params": {"x": expression}}}}}, task=lambda config: 0.0)


def test_an_empty_search_space_says_nothing(sweep: Sweep) -> None:
    """Nor does null."""
    sweep({"config": {"x": 0, "hydra": {"sweeper": {"search_space": {}}}}}, "x=interval(0,1)")


# --- the official sweeper's names ---------------------------------------------------------------------------


def test_the_official_name_is_this_sweeper(sweep: Sweep) -> None:
    """``override hydra/sweeper: optuna`` needs no change where the official sweeper is not installed."""
    defaults = ["_self_", {"override hydra/sweeper": "optuna"}, {"override hydra/sweeper/sampler": "random"}]
    study = sweep({"config": {"defaults": defaults, "x": 0}}, "x=interval(0,1)")
    assert "folder" in study.trials[0].user_attrs


@pytest.mark.parametrize("name", ["optuna", "sweeper_optuna"])
def test_an_old_target_is_this_sweeper(sweep: Sweep, name: str) -> None:
    """A config that names the official class runs here."""
    defaults = ["_self_", {"override hydra/sweeper": name}]
    sweep({"config": {"defaults": defaults, "x": 0, "hydra": {"sweeper": {"_target_": OLD}}}}, "x=1,2")


def test_a_target_alone_is_refused(refused: Refused) -> None:
    """Without the sweeper in the defaults list there are none of its settings."""
    line = refused({"config": {"defaults": ["_self_"], "x": 0}}, "x=1,2", f"hydra.sweeper._target_={OLD}")
    assert line.startswith("hydra/sweeper=basic: brings no pruner, sampler, search_space, study_name; write")


# --- launchers ----------------------------------------------------------------------------------------------


@pytest.fixture
def launcher() -> Callable[[str, str], str]:
    """Store a launcher as another plugin does; its override."""

    def store(name: str, target: str) -> str:
        node = {"_target_": target, "n_jobs": 4}
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="test")
        return f"hydra/launcher={name}"

    return store


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"),
        ("at_home", "hydra_plugins.mine.LocalLauncher"),
        ("processes", "hydra_plugins.mine.Launcher"),
    ],
)
def test_a_local_launcher_has_no_effect(
    sweep: Sweep,
    launcher: Callable[[str, str], str],
    caplog: pytest.LogCaptureFixture,
    name: str,
    target: str,
) -> None:
    """The search starts its own workers, and says so in a line."""
    sweep({"config": {"x": 0}}, "x=1,2", launcher(name, target), "hydra.launcher.n_jobs=2")
    (line,) = [message for message in caplog.messages if "hydra/launcher" in message]
    assert line.startswith(f"hydra/launcher={name}: has no effect; ")


def test_the_basic_launcher_has_no_effect(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    """Hydra's own is not worth a word, unless somebody asks for it."""
    sweep({"config": {"x": 0}}, "x=1,2")
    assert "launcher" not in caplog.text


def test_the_basic_launcher_that_is_asked_for_is_told_so(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    """Who writes it may expect its order of the trials."""
    sweep({"config": {"x": 0}}, "x=1,2", "hydra/launcher=basic")
    assert "hydra/launcher=basic: has no effect" in caplog.text


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("submitit_slurm", "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"),
        ("ray", "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"),
        ("rq", "hydra_plugins.hydra_rq_launcher.rq_launcher.RQLauncher"),
        ("mine", "hydra_plugins.mine.Launcher"),
    ],
)
def test_a_launcher_of_a_cluster_is_refused(
    refused: Refused, launcher: Callable[[str, str], str], name: str, target: str
) -> None:
    """Whoever asks for other machines does not want all trials on this one."""
    line = refused({"config": {"x": 0}}, "x=1,2", launcher(name, target))
    assert line.startswith(f"hydra/launcher={name}: ")
    assert line.endswith("leave it out: the search starts its own workers on this machine")
