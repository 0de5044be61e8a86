"""Storages: URLs, and a journal that survives being torn and shared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import PendingRollbackError

from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.search.storage import JournalBackend, PatientStorage, open_storage
from tests.journal import open_journal
from tests.program import finish, go_on, start_holding


def run_study(storage: optuna.storages.BaseStorage, name: str, n_trials: int = 1) -> None:
    study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
    for _ in range(n_trials):
        trial = study.ask()
        trial.suggest_categorical("word", ["ü", "x"])
        trial.report(0.5, 1)
        study.tell(trial, 1.0)


def test_a_torn_journal_is_repaired_by_the_next_append(tmp_path: Path) -> None:
    """Cut at any byte, a journal loses the torn record alone: appending works, plain Optuna reads it."""
    whole = tmp_path / "whole.journal"
    backend = JournalBackend(whole)
    backend.append_logs([{"n": 1, "word": "ü"}])
    backend.append_logs([{"n": 2, "loss": 0.25}, {"n": 3}])
    content = whole.read_bytes()
    logs = [json.loads(line) for line in content.splitlines()]
    path = tmp_path / "torn.journal"
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        backend = JournalBackend(path)
        list(backend.read_logs(0))  # as a process that goes on has read before it appends
        backend.append_logs([{"next": size}])
        n_left = content[:size].count(b"\n")
        assert list(JournalFileBackend(str(path)).read_logs(0)) == [*logs[:n_left], {"next": size}]
        assert list(backend.read_logs(n_left)) == [{"next": size}]


@pytest.mark.parametrize("n_lost", [1, 5, 20, 60, 100, 200])
def test_a_study_goes_on_in_a_torn_journal(tmp_path: Path, n_lost: int) -> None:
    """After bytes are lost a study is run on, and plain Optuna sees every trial of it."""
    path = tmp_path / "studies.journal"
    run_study(open_storage(str(path)), "name", n_trials=3)
    content = path.read_bytes()
    path.write_bytes(content[:-n_lost])
    storage = open_storage(str(path))
    run_study(storage, "name", n_trials=2)
    trials = optuna.load_study(study_name="name", storage=open_journal(path)).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) >= 4


def test_an_open_storage_goes_on_after_somebody_elses_torn_write(tmp_path: Path) -> None:
    """A process that has the journal open is not disturbed by the half line of one that was killed."""
    path = tmp_path / "studies.journal"
    storage = open_storage(str(path))
    run_study(storage, "name")
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"study_id":0,"dat')
    run_study(storage, "name")
    assert len(optuna.load_study(study_name="name", storage=open_journal(path)).trials) == 2


def test_a_power_cut_takes_back_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has of a journal holds each trial that began or ended, with all that was told before."""
    path, durable, fsync = tmp_path / "studies.journal", [0], os.fsync

    def fsync_and_note(fd: int) -> None:
        fsync(fd)
        durable.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fsync", fsync_and_note)
    storage = open_storage(str(path))
    study = optuna.create_study(study_name="name", storage=storage)
    for number in range(3):
        trial = study.ask()
        trial.set_user_attr("worker", "w")
        trial.suggest_float("x", 0, 1)
        trial.report(0.5, 1)
        path_after_a_cut = tmp_path / f"cut-{number}"
        path_after_a_cut.write_bytes(path.read_bytes()[: durable[-1]])
        assert open_journal(path_after_a_cut).get_all_trials(0)[-1].state == TrialState.RUNNING
        study.tell(trial, 1.0)
        path_after_a_cut.write_bytes(path.read_bytes()[: durable[-1]])
        assert open_journal(path_after_a_cut).get_all_trials(0) == storage.get_all_trials(0)
    assert len(durable[1:]) == 1 + 2 * 3  # nothing else makes a trial wait for the disk


def test_a_line_as_long_as_the_half_line_before_it_is_read(tmp_path: Path) -> None:
    """A file of the same size may be news: a torn line has made way for a whole one."""
    path = tmp_path / "studies.journal"
    reader, writer = JournalBackend(path), JournalBackend(path)
    writer.append_logs([{"n": 1}])
    assert list(reader.read_logs(0)) == [{"n": 1}]
    with path.open("ab") as file:
        file.write(b'{"n":200')
    assert list(reader.read_logs(1)) == []
    writer.append_logs([{"n": 2}])
    assert path.stat().st_size == len(b'{"n":1}\n{"n":200')
    assert list(reader.read_logs(1)) == [{"n": 2}]


def test_a_journal_that_was_deleted_is_not_begun_anew(tmp_path: Path) -> None:
    """Whoever removes the journal of a running sweep stops it; the rest of its lines would be no study."""
    path = tmp_path / "studies.journal"
    backend = JournalBackend(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"studies\.journal"):
        backend.append_logs([{"n": 1}])
    assert not path.exists()


ADD_TRIALS = """
import sys, optuna
from sweeper.search.storage import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="shared", storage=open_storage(sys.argv[1]))
print("ready", flush=True)
input()
for _ in range(30):
    study.tell(study.ask(), 1.0)
"""


def test_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Two processes that append at the same time leave a journal with all trials of both."""
    path = tmp_path / "studies.journal"
    optuna.create_study(study_name="shared", storage=open_storage(str(path)))
    processes = [start_holding(ADD_TRIALS, path) for _ in range(2)]
    for process in processes:
        go_on(process)
    for process in processes:
        done = finish(process, 60)
        assert done.returncode == 0, done.stderr
    trials = optuna.load_study(study_name="shared", storage=open_journal(path)).trials
    assert [trial.number for trial in trials] == list(range(60))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


HOLD = """
import sys
from pathlib import Path
from sweeper.lock import locked
with locked(Path(sys.argv[1] + ".flock")):
    with open(sys.argv[1], "ab") as file:
        file.write(b'{"half a li')
    print("ready", flush=True)
    input()
"""


@pytest.mark.timeout(10)  # Optuna's own lock would stall for 30 s
def test_a_writer_killed_while_it_holds_the_lock_stalls_nobody(tmp_path: Path) -> None:
    """SIGKILL in the middle of a write: the next process appends at once, over the half line."""
    path = tmp_path / "studies.journal"
    run_study(open_storage(str(path)), "name")
    holder = start_holding(HOLD, path)
    holder.kill()
    finish(holder)
    run_study(open_storage(str(path)), "name")
    assert len(optuna.load_study(study_name="name", storage=open_journal(path)).trials) == 2


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("{}/some/where/studies.journal", lambda url: open_journal(Path(url))),
        ("sqlite:///{}/some/where/studies.db", RDBStorage),
    ],
)
def test_a_url_names_a_storage(tmp_path: Path, url: str, plain: Callable[[str], BaseStorage]) -> None:
    """A path and a database URL each give the storage they name, and plain Optuna finds the same in it."""
    url = url.format(tmp_path)
    run_study(open_storage(url), "name", n_trials=2)
    trials = optuna.load_study(study_name="name", storage=plain(url)).trials
    assert [trial.values for trial in trials] == [[1.0]] * 2


def test_memory_is_gone_with_its_process() -> None:
    """``memory`` is a storage of this process, ready to use."""
    storage = open_storage("memory")
    run_study(storage, "name", n_trials=2)
    assert len(storage.get_all_trials(0)) == 2


@pytest.mark.parametrize(
    "url",
    [
        "{}",
        "{}/file/studies.journal",
        "{}/broken",
        "sqlite:///{}/file/studies.db",
        "sqlite:///{}/broken",
        "nonsense://x",
        "postgresql+nodriver://localhost/x",
        "grpc://localhost:port",
    ],
)
def test_what_cannot_be_opened_is_bad_input(tmp_path: Path, url: str) -> None:
    """A storage that cannot be opened is one line with the URL, the reason and what to write instead."""
    (tmp_path / "file").touch()
    (tmp_path / "broken").write_text("this is not a study\n" * 100)
    expected = r"^hydra\.sweeper\.storage=.*cannot be opened \(.+\); write a path for a journal file"
    with pytest.raises(BadInput, match=expected) as error:
        open_storage(url.format(tmp_path))
    assert "\n" not in str(error.value)


class LosesAnswers(InMemoryStorage):
    """A server that does what it is told, and whose connection breaks before it says so, once each."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = set[str]()

    def _lose(self, name: str, answer: Any) -> Any:
        if name in self._lost:
            return answer
        self._lost.add(name)
        raise ConnectionResetError

    def create_new_study(self, directions: Any, study_name: str | None = None) -> int:
        return self._lose("create_new_study", super().create_new_study(directions, study_name))  # type: ignore[no-any-return]

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        return self._lose("set_trial_state_values", super().set_trial_state_values(trial_id, state, values))  # type: ignore[no-any-return]


def patient(storage: BaseStorage) -> PatientStorage:
    return PatientStorage(storage, "grpc://host", wait_s=0.05)  # type: ignore[abstract]


def test_what_the_server_had_done_when_its_answer_was_lost_is_done_once() -> None:
    """A study is not created twice, and the end of a trial is no error."""
    storage = patient(LosesAnswers())
    study = optuna.create_study(study_name="name", storage=storage)
    study.tell(study.ask(), 1.0)
    assert [trial.value for trial in study.trials] == [1.0]
    assert len(storage.get_all_studies()) == 1


class BreaksOff(InMemoryStorage):
    """A server that is restarted while Optuna reads trials in two steps: the second finds no transaction."""

    is_back = False

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        if self.is_back:
            return super().get_all_trials(*args, **kwargs)
        self.is_back = True
        raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")


def test_a_transaction_that_was_broken_off_is_begun_again() -> None:
    """A restarted server costs nothing, at whatever step of Optuna's it went down."""
    study = optuna.create_study(storage=patient(BreaksOff()))
    assert study.trials == []


def test_a_deleted_study_is_a_fault_and_a_key_error() -> None:
    """The search says it in one line; optuna-dashboard answers 404, as for Optuna's own storages."""
    storage = patient(InMemoryStorage())
    with pytest.raises(Fault, match=r"grpc://host: the study was deleted meanwhile; start another study$"):
        storage.get_study_name_from_id(7)
    with pytest.raises(KeyError):
        optuna.load_study(study_name="gone", storage=storage)
