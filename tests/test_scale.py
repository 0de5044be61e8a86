"""What a trial costs beyond its training does not depend on how many were before it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Engine, event

from sweeper import filesystem
from sweeper.record import study_files
from sweeper.search import progress
from sweeper.search.ledger import POOL
from sweeper.search.locked_study import Worker
from sweeper.search.parameter import suggest
from sweeper.search.progress import Progress
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Study

MakeSpace = Callable[..., Space]


@pytest.fixture(scope="module")
def space(make_space: MakeSpace) -> Space:
    return make_space({"config": {"x": 0.5}}, "x=interval(0,1)")


def search(folder: Path) -> Search:
    return Search(
        study_name=folder.name,
        storage="memory",
        folder=folder,
        directions=("maximize",),
        metrics=None,
        sampler={"_target_": "optuna.samplers.RandomSampler"},
        pruner={"_target_": "optuna.pruners.NopPruner"},
        seed=0,
        n_trials=10**6,
        deadline=None,
        max_retries=1,
        max_failure_rate=0.25,
        custom_search_space=None,
    )


def begin(folder: Path, space: Space, n_done: int) -> Study:
    """A study of so many equal trials, opened again."""
    storage = InMemoryStorage()
    study = Study.open(search(folder), storage, space, ())
    fill(storage, study, n_done)
    return study


def fill(storage: BaseStorage, study: Study, n: int) -> None:
    done = create_trial(
        value=1.0, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, user_attrs={"folder": "f"}
    )
    for _ in range(n):
        storage.create_new_trial(study.optuna._study_id, done)


def run_one(study: Study, space: Space, worker: Worker, value: float = 1.0) -> None:
    """Ask for a trial, draw it and tell it."""
    trial = study.ask(space, worker)
    assert trial is not None
    space.draw(suggest(trial))
    study.tell(trial.number, TrialState.COMPLETE, [value])


def n_steps(do: Callable[[], object]) -> int:
    """How many of Python's instructions are run."""
    n = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal n
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        n += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        do()
    finally:
        sys.settrace(before)
    return n


def steps_after(n_done: int, folder: Path, space: Space) -> int:
    """What asking, telling and a picture take after so many trials."""
    study = begin(folder, space, n_done)
    worker, shown = Worker(study.search), Progress(study)

    def turn() -> None:
        run_one(study, space, worker)
        shown.update(study.trials())

    for _ in range(3):  # some is only done at first
        turn()
    n = n_steps(turn)
    worker.end()
    return n


def test_a_trial_costs_the_same_after_many(tmp_path: Path, space: Space) -> None:
    """Asking, telling and a picture run as many instructions after 2,000 equal trials as after 100."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    few, many = (steps_after(n_done, tmp_path / str(n_done), space) for n_done in (100, 2000))
    assert many < 1.2 * few


def test_only_the_counts_of_the_results_may_wait(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new best is there at once, and so is the end; of other trials the count may be a second old."""
    monkeypatch.setattr(study_files, "RESULTS_S", 3600.0)  # as long as this test may take
    study = begin(tmp_path / "s", space, 0)
    worker = Worker(study.search)

    def read() -> tuple[int, int]:
        found = filesystem.read_yaml(study.files.results)
        return found["best_trial"], found["trials"]["COMPLETE"]

    run_one(study, space, worker, 0.5)
    assert read() == (0, 1)
    other = study.ask(space, worker)
    assert other is not None
    for value, told in [(0.25, (0, 1)), (0.75, (3, 3)), (0.5, (3, 3))]:
        run_one(study, space, worker, value)
        assert read() == told
    os.utime(study.files.results, (1, 1))
    run_one(study, space, worker, 0.5)
    assert read() == (3, 5)
    study.tell(other.number, TrialState.COMPLETE, [0.0])  # nothing runs any more
    assert read() == (3, 6)
    worker.end()


def test_what_ended_is_read_as_all_is(tmp_path: Path, space: Space) -> None:
    """On a database: the trials that another process began and ended, whole; those that run on later."""
    url = f"sqlite:///{tmp_path}/studies.db"
    here = Study.open(search(tmp_path / "s"), open_storage(url), space, ())
    there = Study.load(here.search, open_storage(url))
    worker = Worker(there.search)
    asked = [there.ask(space, worker) for _ in range(3)]
    here.ledger.read_ends()
    assert sorted(here.ledger.running) == [0, 1, 2]
    for trial in asked:
        assert trial is not None
        space.draw(suggest(trial))
    there.tell(1, TrialState.COMPLETE, [0.5])
    changed = here.ledger.read_ends()
    assert [(trial.number, trial.state, trial.values) for trial in changed] == [
        (1, TrialState.COMPLETE, [0.5])
    ]
    assert here.ledger.trials[1].params == there.trials()[1].params
    assert here.ledger.trials[0].params == {}
    here.ledger.read()
    assert here.ledger.trials == there.trials()
    assert here.ledger.read_ends() == []
    worker.end()


def test_what_runs_is_read_once_it_has_drawn(tmp_path: Path, space: Space) -> None:
    """TPE sees what others have drawn that still run; of those that have begun to train it asks no more."""
    url = f"sqlite:///{tmp_path}/studies.db"
    here = Study.open(search(tmp_path / "s"), open_storage(url), space, ())
    there = Study.load(here.search, open_storage(url))
    worker = Worker(there.search)
    asked = [there.ask(space, worker) for _ in range(2)]
    assert None not in asked
    assert [(t.number, t.params) for t in here.ledger.read_drawn()] == [(0, {}), (1, {})]
    first, second = (trial for trial in asked if trial is not None)
    space.draw(suggest(first))
    space.draw(suggest(second))
    first.set_user_attr("folder", "0")
    changed = here.ledger.read_drawn()
    assert [(t.number, t.params) for t in changed] == [(0, first.params), (1, second.params)]
    first.report(0.5, step=0)
    second.set_user_attr("folder", "1")
    assert [t.number for t in here.ledger.read_drawn()] == [1]
    assert [t.number for t in here.ledger.read()] == [0]
    worker.end()


def test_what_runs_on_is_compared_once(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running trials that were read whole, and are as before, are not compared again at each later read."""
    url = f"sqlite:///{tmp_path}/studies.db"
    study = Study.open(search(tmp_path / "s"), open_storage(url), space, ())
    worker = Worker(study.search)
    for _ in range(2):
        assert study.ask(space, worker) is not None
    study.trials()
    assert study.ledger.read() == []

    def compare(*trials: object) -> bool:
        raise AssertionError(trials)

    monkeypatch.setattr(FrozenTrial, "__eq__", compare)
    study.ledger.read_ends()
    worker.end()


def test_what_many_report_is_read_less_often_than_drawn(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where many trials run, each picture shows what has ended, and not each what they have reported."""
    monkeypatch.setattr(progress, "_SHOWN_AT_ONCE", 1)
    url = f"sqlite:///{tmp_path}/studies.db"
    study = Study.open(search(tmp_path / "s"), open_storage(url), space, ())
    there, now_s = optuna.storages.RDBStorage(url), 0.0
    running = create_trial(state=TrialState.RUNNING, system_attrs={POOL: "another"})
    ids = [there.create_new_trial(study.optuna._study_id, running) for _ in range(3)]
    shown = Progress(study, now_s=lambda: now_s)
    seen = []
    for step in range(4):
        there.set_trial_intermediate_value(ids[0], step, 0.5)
        if step == 1:
            there.set_trial_state_values(ids[2], TrialState.COMPLETE, [0.5])
        shown.read(tick_s=1.0)
        seen.append((study.ledger.trials[0].last_step, study.ledger.n_finished))
        now_s += 1.0
    assert seen == [(0, 0), (0, 1), (0, 1), (3, 1)]


def test_an_ask_and_a_tell_read_no_more_than_the_budget_needs(tmp_path: Path, space: Space) -> None:
    """An ask reads before it begins a trial and after; a tell reads its trial, and then what ended."""
    url = f"sqlite:///{tmp_path}/studies.db"
    study = Study.open(search(tmp_path / "s"), open_storage(url), space, ())
    worker = Worker(study.search)
    run_one(study, space, worker)
    reads: list[str] = []

    def read(connection: Any, cursor: Any, statement: str, *others: object) -> None:
        reads.extend([statement] * ("FROM trials " in " ".join(statement.split())))

    event.listen(Engine, "before_cursor_execute", read)
    try:
        trial = study.ask(space, worker)
        assert trial is not None
        n_of_ask = len(reads)
        study.tell(trial.number, TrialState.COMPLETE, [1.0])
    finally:
        event.remove(Engine, "before_cursor_execute", read)
    assert n_of_ask == 3, reads  # and the number of the last trial
    assert len(reads) == 6, reads  # and whether it runs, when it is ended
    worker.end()


def test_numbers_go_on(tmp_path: Path, space: Space) -> None:
    """On a database each trial of a study has the number after that of the one before, whoever begins it."""
    url = f"sqlite:///{tmp_path}/studies.db"
    storage, plain = open_storage(url), optuna.storages.RDBStorage(url)
    study = Study.open(search(tmp_path / "s"), storage, space, ())
    other = Study.open(search(tmp_path / "other"), storage, space, ())
    worker = Worker(study.search)
    for _ in range(2):
        asked = study.ask(space, worker), other.ask(space, worker)
        assert None not in asked
        plain.create_new_trial(study.optuna._study_id)
        fill(storage, other, 1)
    assert [trial.number for trial in study.trials()] == list(range(4))
    assert [trial.number for trial in other.trials()] == list(range(4))
    worker.end()
