"""What an app of the official Optuna sweeper, or of any of Hydra's, writes means the same here.

Most searches run in this process, through Hydra itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

import sweeper
from sweeper.conf import VERSION_BASE
from sweeper.search.parameter import parse
from tests.conftest import mostly_slow
from tests.program import IN_PROCESS

pytestmark = pytest.mark.hydra

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


@pytest.mark.parametrize("direction", ["maximize", "MAXIMIZE", "[Maximize]"])
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
    ("node", "expression", "distribution"),
    [
        (
            {"type": "categorical", "choices": [1, "b c", True]},
            r"choice(1, b\ c, True)",
            CategoricalDistribution([1, "b c", "True"]),
        ),
        ({"type": "int", "low": 0, "high": 10}, "int(interval(0, 10))", IntDistribution(0, 10)),
        (
            {"type": "int", "low": 0, "high": 9, "step": 3},
            "range(0, 12, step=3)",
            IntDistribution(0, 9, step=3),
        ),
        (
            {"type": "int", "low": 1, "high": 100, "log": True},
            "tag(log, int(interval(1, 100)))",
            IntDistribution(1, 100, log=True),
        ),
        ({"type": "float", "low": 0, "high": 1}, "interval(0.0, 1.0)", FloatDistribution(0, 1)),
        (
            {"type": "float", "low": 0, "high": 1, "step": 0.25},
            "range(0.0, 1.25, step=0.25)",
            FloatDistribution(0, 1, step=0.25),
        ),
        (
            {"type": "float", "low": 1e-05, "high": 1, "log": True},
            "tag(log, interval(1e-05, 1.0))",
            FloatDistribution(1e-05, 1, log=True),
        ),
    ],
)
def test_the_old_search_space_is_translated(
    refused: Refused, node: dict[str, Any], expression: str, distribution: BaseDistribution
) -> None:
    """``search_space`` of before Hydra 1.2 is refused with what to write instead, which means the same."""
    line = refused({"config": {"x": 0, "hydra": {"sweeper": {"search_space": {"x": node}}}}})
    assert line == (
        f"hydra.sweeper.search_space=x: is called params since Hydra 1.2; write params: {{x: '{expression}'}}"
    )
    override = OverridesParser.create().parse_override(f"x={expression}")
    assert parse(override).distribution == distribution


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
def launcher() -> Iterator[Callable[[str, str], str]]:
    """Store a launcher as another plugin does, for one test; its override."""
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    before = dict(stored)

    def store(name: str, target: str) -> str:
        node = {"_target_": target, "n_jobs": 4}
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="test")
        return f"hydra/launcher={name}"

    yield store
    stored.clear()
    stored.update(before)


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
    ("override", "line"),
    [
        (
            "hydra.sweeper.in_process=true",
            r"^hydra\.sweeper\.in_process=True: the jobs of hydra/launcher=mine",
        ),
        ("hydra.sweeper.storage=memory", r"^hydra\.sweeper\.storage=memory: worker processes do not share"),
        (
            "hydra.sweeper.storage=sqlite:///a.db",
            r"^hydra\.sweeper\.storage=sqlite.*: a database file of SQLite is for one machine",
        ),
    ],
)
def test_what_the_jobs_of_a_launcher_could_not_do_is_refused(
    refused: Refused, launcher: Callable[[str, str], str], override: str, line: str
) -> None:
    """Before one of them is started."""
    mine = launcher("mine", "hydra_plugins.mine.Launcher")
    processes = "hydra.sweeper.in_process=false"  # these tests search in their own otherwise
    said = refused({"config": {"x": 0}}, "x=1,2", mine, processes, "hydra.sweeper.n_jobs=1", override)
    assert re.match(line, said)


# --- groups, missing values, deletions ----------------------------------------------------------------------

DB = {
    "config": {"defaults": ["_self_", {"db": "mysql"}, SWEEPER], "x": 0},
    "db/mysql": {"name": "mysql"},
    "db/sqlite": {"name": "sqlite"},
}


class Seen:
    """A task that keeps what it was given."""

    def __init__(self) -> None:
        self.configs: list[DictConfig] = []

    def __call__(self, config: DictConfig) -> float:
        self.configs.append(config)
        return 0.0


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.mark.parametrize("in_config", [False, True])
def test_a_mandatory_group_is_swept(sweep: Sweep, seen: Seen, in_config: bool) -> None:
    """``- db: ???`` in the defaults list, where the command line or the params say which there are."""
    params = {"db": "choice(mysql,sqlite)"} if in_config else {}
    config = {
        "defaults": ["_self_", {"db": "???"}, SWEEPER],
        "hydra": {"sweeper": {"params": params, "n_trials": 4}},
    }
    arguments = ["hydra/sweeper/sampler=grid"] + ["db=mysql,sqlite"] * (not in_config)
    sweep({**DB, "config": config}, *arguments, task=seen)
    assert [config.db.name for config in seen.configs] == ["mysql", "sqlite"]


def test_a_mandatory_group_that_nobody_chooses_is_refused(refused: Refused) -> None:
    """In one line that names it."""
    line = refused({**DB, "config": {"defaults": ["_self_", {"db": "???"}, SWEEPER], "x": 0}}, "x=1,2")
    assert line == "db=???: the defaults list leaves it open; write one of mysql, sqlite"


def test_missing_values_are_filled(sweep: Sweep, seen: Seen) -> None:
    """A key that is ``???`` may be swept, or derived from one that is."""
    files = {"config": {"x": "???", "y": "${x}", "hydra": {"sweeper": {"params": {"x": "choice(7,7)"}}}}}
    sweep(files, task=seen)
    assert [(config.x, config.y) for config in seen.configs] == [(7, 7)] * 3


def test_a_group_in_a_package_is_swept(sweep: Sweep, seen: Seen) -> None:
    """``db@source`` puts the group elsewhere, and is swept by that name."""
    config = {"defaults": ["_self_", {"db@source": "mysql"}, SWEEPER]}
    sweep({**DB, "config": config}, "db@source=mysql,sqlite", "hydra/sweeper/sampler=grid", task=seen)
    assert [config.source.name for config in seen.configs] == ["mysql", "sqlite"]


def test_a_group_is_added(sweep: Sweep, seen: Seen) -> None:
    """``+db`` takes a group that is not in the defaults list."""
    config = {"defaults": ["_self_", SWEEPER]}
    sweep({**DB, "config": config}, "+db=mysql,sqlite", "hydra/sweeper/sampler=grid", task=seen)
    assert [config.db.name for config in seen.configs] == ["mysql", "sqlite"]


def test_an_experiment_is_swept(sweep: Sweep, seen: Seen) -> None:
    """``experiment=a,b`` where each overrides other groups, and sets values of its own."""
    experiment = "# @package _global_\ndefaults:\n  - override /db: {db}\nx: {x}\n"
    config = {"defaults": ["_self_", {"db": "mysql"}, {"experiment": None}, SWEEPER], "x": 0}
    files = {f"experiment/{name}": experiment.format(db=db, x=x) for name, db, x in EXPERIMENTS}
    sweep({**DB, "config": config, **files}, "experiment=a,b", "hydra/sweeper/sampler=grid", task=seen)
    assert [(config.db.name, config.x) for config in seen.configs] == [("mysql", 1), ("sqlite", 2)]


EXPERIMENTS = [("a", "mysql", 1), ("b", "sqlite", 2)]


def test_deletions_hold_in_every_trial(sweep: Sweep, seen: Seen) -> None:
    """``~key`` and ``~group`` take away, as in a single run, and a range of a deleted key with it."""
    params = {"x": "interval(0,1)", "y": "choice(1,2)"}
    defaults = DB["config"]["defaults"]  # type: ignore[index]
    config = {"defaults": defaults, "x": 0, "y": 0, "hydra": {"sweeper": {"params": params}}}
    study = sweep({**DB, "config": config}, "~x", "~db", task=seen)
    assert [set(config) for config in seen.configs] == [{"y"}] * 3
    assert [set(t.params) for t in study.trials] == [{"y"}] * 3
    assert study.trials[0].user_attrs["overrides"][:2] == ["~x", "~db"]


@pytest.mark.parametrize(
    ("argument", "values"),
    mostly_slow(
        [
            ("x='a b',\"c,d\"", ["a b", "c,d"]),
            ("x='1',1,true,null", ["1", 1, True, None]),
            ("x=range(3,0,-1)", [1, 2, 3]),
            ("x=range(0,1,0.25)", [0.0, 0.25, 0.5, 0.75]),
            ("x=str(choice(1,2))", ["1", "2"]),
            ("x=float(choice(1,2))", [1.0, 2.0]),
            ("x=int(choice(1.9,2.9))", [1, 2]),
            ("x=bool(choice(0,1))", [False, True]),
            ("x=[1,2],[3]", [[1, 2], [3]]),
            ("x={a:1},{a:2}", [{"a": 1}, {"a": 2}]),
            ("x=sort(3,1,2)", [1, 2, 3]),
            ("x=shuffle(1,2,3)", [1, 2, 3]),
        ],
        3,
    ),
)
def test_values_are_what_hydra_makes_of_them(
    sweep: Sweep, seen: Seen, argument: str, values: list[Any]
) -> None:
    """Quotes, casts, lists, dicts and ranges that count down give the values of a plain sweep."""
    sweep(
        {"config": {"x": None}},
        argument,
        "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=9",
        task=seen,
    )
    found = [OmegaConf.to_container(config)["x"] for config in seen.configs]  # type: ignore[call-overload,index]
    assert sorted(map(repr, found)) == sorted(map(repr, values))


def test_options_are_found_by_glob(sweep: Sweep, seen: Seen) -> None:
    """``glob(*)`` is all options of a group."""
    sweep(DB, "db=glob(*)", "hydra/sweeper/sampler=grid", task=seen)
    assert {config.db.name for config in seen.configs} == {"mysql", "sqlite"}


@pytest.mark.filterwarnings("ignore:extend_list:UserWarning")  # Hydra 1.4 is to drop it
def test_a_list_is_extended(sweep: Sweep, seen: Seen) -> None:
    """``extend_list`` is a plain override, where this Hydra has it."""
    try:
        OverridesParser.create().parse_override("y=extend_list(3)")
    except HydraException as error:
        pytest.skip(f"this Hydra has no extend_list: {error.__cause__}")
    sweep({"config": {"x": 0, "y": [1, 2]}}, "x=1,2", "y=extend_list(3)", task=seen)
    assert [config.y for config in seen.configs] == [[1, 2, 3]] * 3


# --- Hydra's own keys ---------------------------------------------------------------------------------------


def folders(study: optuna.Study) -> list[Path]:
    return [Path(trial.user_attrs["folder"]) for trial in study.trials]


def test_the_folder_of_a_trial_is_hydras(sweep: Sweep, tmp_path: Path) -> None:
    """``hydra.sweep.dir`` and ``subdir``, relative to the working folder, with the number of the job."""
    hydra = {"sweep": {"dir": "here/${hydra.job.name}", "subdir": "trial_${hydra.job.num}"}}
    study = sweep({"config": {"x": 0, "hydra": hydra}}, "x=interval(0,1)")
    assert folders(study) == [tmp_path / "here" / "app" / f"trial_{n}" for n in range(3)]
    assert all((folder / ".hydra" / "config.yaml").exists() for folder in folders(study))
    assert (tmp_path / "here" / "app" / "optimization_results.yaml").exists()


def test_a_folder_is_named_by_the_overrides(sweep: Sweep, tmp_path: Path) -> None:
    """``hydra.job.override_dirname``, with its separators and without the keys that it leaves out."""
    override_dirname = {"kv_sep": "-", "item_sep": "__", "exclude_keys": ["y"]}
    hydra = {
        "sweep": {"dir": "out", "subdir": "${hydra.job.override_dirname}"},
        "job": {"config": {"override_dirname": override_dirname}},
    }
    config = {"x": 0, "y": 0, "z": 0, "hydra": hydra}
    study = sweep({"config": config}, "x=1,2", "y=3", "z=4", "hydra/sweeper/sampler=grid")
    assert [folder.relative_to(tmp_path / "out").as_posix() for folder in folders(study)] == [
        "x-1__z-4",
        "x-2__z-4",
    ]


def test_the_sweep_folder_may_be_absolute_and_hold_the_time(sweep: Sweep, tmp_path: Path) -> None:
    """All trials of a search are in one folder, though each is composed at another time."""
    hydra = {"sweep": {"dir": f"{tmp_path}/elsewhere/${{now:%H-%M-%S-%f}}"}}
    study = sweep({"config": {"x": 0, "hydra": hydra}}, "x=interval(0,1)")
    (folder,) = {folder.parent for folder in folders(study)}
    assert folder.parent == tmp_path / "elsewhere"


@pytest.mark.parametrize("chdir", [True, False])
def test_a_job_runs_in_its_folder_if_it_is_asked_to(sweep: Sweep, tmp_path: Path, chdir: bool) -> None:
    """``hydra.job.chdir``."""
    places = []

    def task(config: DictConfig) -> float:
        places.append(Path.cwd())
        return 0.0

    study = sweep({"config": {"x": 0}}, "x=interval(0,1)", f"hydra.job.chdir={chdir}", task=task)
    assert places == (folders(study) if chdir else [tmp_path] * 3)
    assert Path.cwd() == tmp_path


@pytest.mark.skipif(VERSION_BASE == {}, reason="Hydra 1.4 has no older ways")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Hydra 1.3 announces what it has changed since
def test_an_app_of_hydra_1_1_runs_in_its_folder(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app whose ``version_base`` is 1.1 is in the job's folder, unless it says otherwise."""
    monkeypatch.setitem(VERSION_BASE, "version_base", "1.1")
    places = []

    def task(config: DictConfig) -> float:
        places.append(Path.cwd())
        return 0.0

    study = sweep({"config": {"x": 0}}, "x=interval(0,1)", task=task)
    assert places == folders(study)


def test_the_number_of_the_job_reaches_the_config(sweep: Sweep) -> None:
    """``hydra.job.num`` and ``hydra.job.id`` are the trial's, where a job asks for them."""
    numbers = []

    def task(config: DictConfig) -> float:
        job = HydraConfig.get().job
        numbers.append((job.num, job.id, config.number))
        return 0.0

    sweep({"config": {"x": 0, "number": "${hydra:job.num}"}}, "x=interval(0,1)", task=task)
    assert numbers == [(n, str(n), n) for n in range(3)]


# --- custom_search_space ------------------------------------------------------------------------------------

CUSTOM = """
class Spaces:
    @staticmethod
    def within(config, trial):
        trial.suggest_float("x", 0, 1)

def extend(config, trial):
    x = trial.params["x"]
    assert config.hydra.sweeper.n_trials == 3
    trial.suggest_float("z", x - config.max_difference, x + config.max_difference)
    trial.suggest_float("+w", 0, 1)

def choose(config, trial):
    trial.suggest_categorical("db", ["sqlite"])
    trial.suggest_categorical("deep.text", ["a b, c"])
    trial.suggest_categorical("++flag", [True])

def fixed(config, trial):
    trial.suggest_float("x", 0, 1)

nothing = 3
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of search spaces; its name has a dash, as the official example's."""
    (tmp_path / "custom-space.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "custom-space", raising=False)
    return "hydra.sweeper.custom_search_space=custom-space"


def test_a_custom_search_space_depends_on_what_was_drawn(sweep: Sweep, seen: Seen, custom: str) -> None:
    """The function is given config and trial; what it suggests is written into the config, ``+`` added."""
    config = {"x": 0, "z": 0, "max_difference": 0.3}
    study = sweep({"config": config}, "x=interval(0,1)", f"{custom}.extend", task=seen)
    assert all(abs(config.x - config.z) <= 0.3 and 0 <= config.w <= 1 for config in seen.configs)
    assert [set(t.params) for t in study.trials] == [{"x", "z", "+w"}] * 3


def test_what_it_suggests_is_composed(sweep: Sweep, seen: Seen, custom: str) -> None:
    """Its suggestions are overrides: a group's option, a key with dots, a text with a comma, a new key."""
    config = {**DB["config"], "deep": {"text": ""}}  # type: ignore[dict-item]
    study = sweep({**DB, "config": config}, f"{custom}.choose", task=seen)
    for given in seen.configs:
        assert (given.db.name, given.deep.text, given.flag) == ("sqlite", "a b, c", True)
    again = yaml.safe_load((folders(study)[0] / ".hydra" / "overrides.yaml").read_text())
    assert "db=sqlite" in again


def test_a_custom_search_space_may_be_a_method(sweep: Sweep, custom: str) -> None:
    """A dotted path may lead into a class."""
    study = sweep({"config": {"x": 0}}, f"{custom}.Spaces.within")
    assert [set(t.params) for t in study.trials] == [{"x"}] * 3


@pytest.mark.parametrize("path", ["missing", "nothing"])
def test_a_custom_search_space_that_is_none_is_refused(refused: Refused, custom: str, path: str) -> None:
    """What is not there, or is not a function."""
    assert refused({"config": {"x": 0}}, f"{custom}.{path}").startswith("hydra.sweeper.custom_search_space=")


def test_a_fixed_key_cannot_be_suggested(sweep: Sweep, custom: str) -> None:
    """As in the official sweeper, what the command line fixes and the function suggests is a mistake."""
    with pytest.raises(SystemExit, match=r"^1$"):
        sweep({"config": {"x": 0}}, "x=1", f"{custom}.fixed")


# --- failures -----------------------------------------------------------------------------------------------


def fails(config: DictConfig) -> float:
    raise RuntimeError("as it was told to")


def test_no_failure_is_admitted(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """``max_failure_rate: 0.0``, the official default, ends with the first failure and its traceback."""
    with pytest.raises(SystemExit, match=r"^1$"):
        sweep({"config": {"x": 0}}, "x=1,2", "hydra.sweeper.max_failure_rate=0.0", task=fails)
    assert "RuntimeError: as it was told to" in capsys.readouterr().err


def test_every_failure_is_admitted(sweep: Sweep) -> None:
    """``max_failure_rate: 1.0`` goes on whatever fails, as long as some trials do not."""
    seen: list[int] = []

    def task(config: DictConfig) -> float:
        seen.append(0)
        if len(seen) % 2:
            raise RuntimeError("now and then")
        return 0.0

    study = sweep({"config": {"x": 0}}, "x=interval(0,1)", "hydra.sweeper.max_failure_rate=1.0", task=task)
    states = [t.state.name for t in study.trials]
    assert states == ["FAIL", "COMPLETE"] * 3
