"""``hydra.sweeper``, checked: folder, storage, workers and GPUs. What is refused stands in test_pool.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper.errors import BadInput
from sweeper.search.search import Search
from sweeper.search.settings import read_settings
from tests.conftest import MakeSpace
from tests.foreign_app import App
from tests.program import IN_PROCESS


def test_an_app_without_folders_has_its_studies_under_outputs(tmp_path: Path) -> None:
    """``outputs/STUDY``, beside the journal, unless the app sets hydra.sweep.dir."""
    app = App(tmp_path)
    app.configure("  sweep:\n    dir: out\n", "")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "s" / "0" / ".hydra").is_dir()
    assert app.journal.exists()


@pytest.mark.slow
def test_a_relative_storage_is_a_file_beside_the_app(tmp_path: Path) -> None:
    """A path and a sqlite URL are made absolute: a worker may run in another folder."""
    app = App(tmp_path)
    app.configure("hydra:\n", "hydra:\n  job:\n    chdir: true\n")
    done = app.run("hydra.sweeper.storage=sqlite:///some/studies.db", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/some/studies.db")
    assert len(study.trials) == 2


def test_a_study_without_a_name_is_named_by_the_time(tmp_path: Path) -> None:
    """Date and time, so that two searches are never mixed."""
    app = App(tmp_path)
    app.configure("  sweep:\n    dir: out\n", "")
    app.configure("study_name: s\n", "study_name: null\n")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert len(folder.name) == len("2026-11-25_17-00-00")


def pruner_of(make_space: MakeSpace, *overrides: str, **sweeper: Any) -> dict[str, Any]:
    """The pruner of an app with these ``hydra.sweeper`` settings of its own."""
    space = make_space({"config": {"x": 0, "n_steps": 7, "hydra": {"sweeper": sweeper}}}, *overrides)
    master = space._master
    return read_settings(dict(master.hydra.sweeper.items()), master)[0].pruner


HYPERBAND = "optuna.pruners.HyperbandPruner"


def test_hyperband_knows_the_longest_training(make_space: MakeSpace) -> None:
    """The largest step is what the app hands in, for the default and the chosen one; else it is found out."""
    handed_in = {"max_resource": "${n_steps}"}
    expected = {"_target_": HYPERBAND, "max_resource": 7}
    assert pruner_of(make_space, **handed_in) == expected
    assert pruner_of(make_space, "hydra/sweeper/pruner=hyperband", **handed_in) == expected
    assert pruner_of(make_space, "hydra.sweeper.pruner.max_resource=9", **handed_in)["max_resource"] == 9
    assert pruner_of(make_space) == {"_target_": HYPERBAND, "max_resource": "auto"}


def test_an_apps_own_pruner_replaces_the_default(make_space: MakeSpace) -> None:
    """Nothing of the default is left where an app names a class, or sets an argument alone."""
    own = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}
    assert pruner_of(make_space, pruner=own) == own
    assert pruner_of(make_space, "hydra.sweeper.pruner.reduction_factor=4") == {
        "_target_": HYPERBAND,
        "max_resource": "auto",
        "reduction_factor": 4,
    }


@pytest.mark.parametrize(
    "chosen",
    [
        ["hydra/sweeper/pruner=hyperband"],
        ["hydra/sweeper/pruner=median"],
        ["hydra.sweeper.pruner.reduction_factor=4"],
        ["hydra.sweeper.pruner._target_=optuna.pruners.MedianPruner"],
    ],
    ids=str,
)
def test_several_objectives_turn_off_only_the_default_pruner(
    make_space: MakeSpace, chosen: list[str]
) -> None:
    """What nobody chose is off; what somebody chose is refused."""
    directions = "hydra.sweeper.direction=[minimize,minimize]"
    assert pruner_of(make_space, directions) == {"_target_": "optuna.pruners.NopPruner"}
    with pytest.raises(BadInput, match=r"^hydra/sweeper/pruner=\w+: .*there are 2 objectives; leave it out"):
        pruner_of(make_space, directions, *chosen)


def read(make_space: MakeSpace, *overrides: str, **sweeper: Any) -> Search:
    """What an app with these ``hydra.sweeper`` settings of its own has of them."""
    space = make_space({"config": {"x": 0, "hydra": {"sweeper": sweeper}}}, *overrides)
    return read_settings(dict(space._master.hydra.sweeper.items()), space._master)[0]


def test_settings_are_converted_as_hydra_would(
    make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment variable gives a text where a number is wanted, and a name may look like a number."""
    monkeypatch.setenv("N", "7")
    search = read(make_space, n_trials="${oc.env:N}", timeout_s="${oc.env:N}", study_name=5, seed="3")
    assert (search.n_trials, search.study_name, search.seed) == (7, "5", 3)
    assert search.deadline is not None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("hydra.sweeper.n_trials=many", r"^hydra\.sweeper\.n_trials=many: must be a whole number; write for"),
        ("hydra.sweeper.n_trials=1.5", r"^hydra\.sweeper\.n_trials=1\.5: must be a whole number"),
        ("hydra.sweeper.timeout_s=nan", r"^hydra\.sweeper\.timeout_s=nan: must be .* finite"),
        ("hydra.sweeper.n_jobs=100000", r"^hydra\.sweeper\.n_jobs=100000: must be at most 1024: no machine"),
        ("hydra.sweeper.in_process=maybe", r"^hydra\.sweeper\.in_process=maybe: is neither true nor false"),
        ("hydra.sweeper.study_name=''", r"^hydra\.sweeper\.study_name=: .* empty"),
        ("hydra.sweeper.study_name=[a]", r"^hydra\.sweeper\.study_name=\['a'\]: must be a text"),
        ("hydra.sweeper.max_resource=0", r"^hydra\.sweeper\.max_resource=0: must be at least 1"),
        ("hydra.sweeper.metric_names=''", r"^hydra\.sweeper\.metric_names=: is empty"),
        (
            "hydra.sweeper.sampler=null",
            r"^hydra\.sweeper\.sampler=null: is not a sampler; write hydra/",
        ),
        ("hydra.sweeper.pruner=3", r"^hydra\.sweeper\.pruner=3: is not a pruner"),
        ("+hydra.sweeper.foo=1", r"^hydra\.sweeper\.foo=1: there is no such key"),
        (
            "+hydra.sweeper.n_trial=1",
            r"^hydra\.sweeper\.n_trial=1: .*did you mean .*n_trials\?",
        ),
        (f"hydra.sweep.dir={'x' * 300}", r"^hydra\.sweep\.dir=.*a name of 300 bytes"),
    ],
)
def test_a_wrong_setting_is_one_line_in_any_app(make_space: MakeSpace, override: str, line: str) -> None:
    """Hydra leaves the types to us, as it would tell them in five lines; the key to change is named."""
    with pytest.raises(BadInput, match=line):
        read(make_space, override)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("max_resource", 0), ("n_trials", 0)])
def test_a_wrong_setting_is_told_under_the_key_that_the_app_keeps_it_in(
    make_space: MakeSpace, name: str, value: int
) -> None:
    """That key was typed, and the value of the other is only filled in from it."""
    space = make_space({"config": {"mine": value, "hydra": {"sweeper": {name: "${mine}"}}}})
    line = (
        rf"^mine={value}: must be at least \d; write another value: .* hydra\.sweeper\.{name} of the search"
    )
    with pytest.raises(BadInput, match=line):
        read_settings(dict(space._master.hydra.sweeper.items()), space._master)


def test_a_grace_without_effect_is_told(make_space: MakeSpace, caplog: pytest.LogCaptureFixture) -> None:
    """No pool is taken for dead before it has missed two of its heartbeats."""
    read(make_space, grace_s=60)
    assert caplog.messages == []
    read(make_space, grace_s=5)
    assert caplog.messages == [
        "hydra.sweeper.grace_s=5: with hydra.sweeper.heartbeat_s=30 no pool is taken for dead before two "
        "heartbeats, 60 s; lower that, too"
    ]


def test_a_wrong_type_is_one_line_at_the_command_of_a_foreign_app(tmp_path: Path) -> None:
    """Exit code 2 and nothing else, where Hydra alone would exit with 1 and tell of a stack trace."""
    app = App(tmp_path)
    done = app.run("hydra.sweeper.n_trials=many")
    assert (done.returncode, done.stdout) == (2, "")
    expected = (
        "hydra.sweeper.n_trials=many: must be a whole number; write for example hydra.sweeper.n_trials=20\n"
    )
    assert done.stderr == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.py", "app.yaml"]
