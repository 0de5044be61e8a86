"""Storages: URLs, and a journal that survives being torn and shared."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.search import change, database
from sweeper.search.change import changed_trials
from sweeper.search.database import Database
from sweeper.search.journal import JournalBackend
from sweeper.search.patience import PatientStorage, pause_s
from sweeper.search.storage import check_many_machines, open_storage
from sweeper.search.storage_error import Unwritable
from tests.conftest import mostly_slow
from tests.journal import open_journal
from tests.program import finish, go_on, kill_group, run, start, start_holding, until
from tests.shim import Shim, compile_shim


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


@pytest.mark.parametrize("n_lost", [1, 200, 700])
def test_who_uses_a_journal_that_is_cut_off_says_so(tmp_path: Path, n_lost: int) -> None:
    """Nobody goes on with what it knows and the file does not: what it wrote would be of another history."""
    path = tmp_path / "j"
    writer, reader = (open_storage(str(path)) for _ in range(2))
    run_study(writer, "s", n_trials=3)
    study_id = reader.get_study_id_from_name("s")
    os.truncate(path, path.stat().st_size - n_lost)
    for storage in (writer, reader):
        for use in (storage.create_new_trial, storage.get_all_trials, storage.get_study_user_attrs):
            with pytest.raises(Fault, match="cut off while it was used"):
                use(study_id)


def test_a_journal_that_was_cut_off_and_grew_is_not_read_on(tmp_path: Path) -> None:
    """Where no line begins any more, none of its lines is at fault."""
    path = tmp_path / "j"
    study = optuna.create_study(study_name="s", storage=open_storage(str(path)))
    reader = open_storage(str(path))
    study_id, n_bytes = reader.get_study_id_from_name("s"), path.stat().st_size
    study._storage.set_study_user_attr(study_id, "some", "x" * 30)
    reader.get_study_user_attrs(study_id)
    os.truncate(path, n_bytes)
    open_storage(str(path)).set_study_user_attr(study_id, "other", "y" * 300)
    with pytest.raises(Fault, match="cut off while it was used"):
        reader.get_study_user_attrs(study_id)


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


def test_a_database_is_read_as_optuna_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a trial can have, of few trials and of many, of all and of the new ones."""
    url = f"sqlite:///{tmp_path}/studies.db"
    plain = RDBStorage(url)
    study = optuna.create_study(storage=plain, directions=["minimize", "maximize"], study_name="s")
    kinds = {
        "x": FloatDistribution(0, 1),
        "n": IntDistribution(1, 9, step=2),
        "c": CategoricalDistribution([None, "ü", 1.5, True]),
    }
    for state, values in ((TrialState.COMPLETE, [1.0, -math.inf]), (TrialState.FAIL, None)):
        study.add_trial(
            create_trial(
                state=state,
                values=values,
                params={"c": "ü", "x": 0.5, "n": 3},
                distributions=kinds,
                user_attrs={"word": "ü", "list": [1, None]},
                system_attrs={"a": {"b": 1}},
                intermediate_values={3: math.nan, 1: -math.inf, 2: 0.5},
            )
        )
    study.enqueue_trial({"x": 1})
    study.ask()
    study.ask().suggest_float("x", 0, 1)
    ours = Database(url)
    study_id = study._study_id
    cases: list[Any] = [
        (None, set(), -1),
        (None, {1, 3}, 3),
        (None, set(), 99),
        ((TrialState.RUNNING,), set(), -1),
    ]
    for case in cases:
        assert repr(ours._get_trials(study_id, *case)) == repr(plain._get_trials(study_id, *case))
    monkeypatch.setattr(database, "_FEW", 2)
    assert repr(ours.get_all_trials(study_id)) == repr(plain.get_all_trials(study_id))
    assert repr(ours._get_trials(study_id, *cases[1])) == repr(plain._get_trials(study_id, *cases[1]))
    with pytest.raises(KeyError):
        ours.get_all_trials(99)
    for storage in (plain, ours):
        storage.remove_session()
        storage.engine.dispose()


def opened(tmp_path: Path, kind: str) -> tuple[BaseStorage, optuna.Study]:
    """A storage as Optuna has it, in which a trial runs, one waits and one is done."""
    url = {
        "memory": "memory",
        "journal": str(tmp_path / "a.journal"),
        "sqlite": f"sqlite:///{tmp_path / 'a.db'}",
    }
    patient = open_storage(url[kind])
    storage = patient if kind == "memory" else vars(patient)["_storage"]
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 1.0)
    study.ask()
    study.enqueue_trial({"x": 1})
    return storage, study


KINDS = ["memory", "journal", "sqlite"]


@pytest.mark.parametrize("kind", KINDS)
def test_this_optuna_has_the_members_that_make_an_ask_cheap(tmp_path: Path, kind: str) -> None:
    """A release that renames them fails here, and not by asks that read the whole study each."""
    storage, study = opened(tmp_path, kind)
    found = change._changed_inside(storage, study._study_id, 1, [0], None)
    assert found == (3, study.get_trials(deepcopy=False))


@pytest.mark.parametrize("kind", KINDS)
def test_an_optuna_with_other_members_costs_time_but_no_trials(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its private members have other names, the whole list of trials says the same."""
    storage, study = opened(tmp_path, kind)

    def renamed(*arguments: object) -> None:
        raise AttributeError("_studies")

    monkeypatch.setattr(change, "_changed_inside", renamed)
    trials = study.get_trials(deepcopy=False)
    assert changed_trials(storage, study._study_id, 2, [1]) == (3, trials[1:])


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
        "{}/pipe",
        "{}/newer",
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
    (tmp_path / "newer").write_text('{"op_code":99}\n')
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to
    expected = r"^hydra\.sweeper\.storage=.*cannot be opened \(.+\); write a path for a journal file"
    with pytest.raises(BadInput, match=expected) as error:
        open_storage(url.format(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b'{"a": 1}', b"{", b"one line", b"\x00\x01"])
def test_a_file_of_somebody_else_is_no_torn_journal(tmp_path: Path, content: bytes) -> None:
    """Without an end of line in it, too, it stays as it is; the first bytes of a journal alone are one."""
    file = tmp_path / "theirs"
    file.write_bytes(content)
    if content == b"{":
        run_study(open_storage(str(file)), "s")
        assert len(optuna.load_study(study_name="s", storage=open_journal(file)).trials) == 1
        return
    with pytest.raises(BadInput, match="it is not an Optuna journal"):
        open_storage(str(file))
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


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


class EndedByAnother(InMemoryStorage):
    """A server that another host told that the trial is lost, just when the connection broke."""

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state == TrialState.COMPLETE and self.get_trial(trial_id).state == TrialState.RUNNING:
            super().set_trial_state_values(trial_id, TrialState.FAIL)
            raise ConnectionResetError
        return super().set_trial_state_values(trial_id, state, values)


def test_a_trial_that_another_host_ended_meanwhile_was_not_told() -> None:
    """After a lost answer only what was told counts as told: a lost trial is no success."""
    study = optuna.create_study(storage=patient(EndedByAnother()))
    trial = study.ask()
    with pytest.raises(UpdateFinishedTrialError):
        study.tell(trial, 1.0)
    assert study.trials[0].state == TrialState.FAIL


class Restarted(InMemoryStorage):
    """A proxy that was restarted: it knows a trial again when somebody has read its study."""

    has_read = False

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        self.has_read = True
        return super().get_all_trials(*args, **kwargs)

    def set_trial_param(self, *args: Any, **kwargs: Any) -> None:
        if not self.has_read:
            raise KeyError(args[0])
        super().set_trial_param(*args, **kwargs)


def test_a_restarted_proxy_forgets_no_trial() -> None:
    """Optuna's proxy knows a trial's study only after it was read: no reason to think that it was deleted."""
    study = optuna.create_study(storage=patient(Restarted()))
    assert study.ask().suggest_float("x", 0, 1) >= 0


def test_a_thousand_workers_come_back_one_by_one() -> None:
    """The first retry is quick; after 20 s without a server no second has over a third of all retries."""
    first = [pause_s(0) for _ in range(1000)]
    assert max(first) <= 0.25
    returned = [min(t for t in accumulate(map(pause_s, range(200))) if t >= 20) for _ in range(1000)]
    assert max(returned) < 20 + 8
    assert max(Counter(int(t) for t in returned).values()) < 350


def test_an_app_that_seeds_everything_does_not_bring_its_workers_back_at_once() -> None:
    """They would all draw the same pauses, and the app other numbers than without a fault."""
    random.seed(1)
    state = random.getstate()
    assert pause_s(5) != pause_s(5)
    assert random.getstate() == state


class BreaksOff(InMemoryStorage):
    """A server with an error that ends by itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = [error]

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        if self._errors:
            raise self._errors.pop()
        return super().get_all_trials(*args, **kwargs)


PASSES = {
    "a transaction that was broken off": PendingRollbackError("Can't reconnect until invalid transaction"),
    "a deadlock": psycopg.errors.DeadlockDetected("deadlock detected"),
    "what happened at once": psycopg.errors.SerializationFailure("could not serialize access"),
    "a replica that is about to take over": psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"),
    "too many connections": psycopg.errors.TooManyConnections("sorry, too many clients already"),
    "a start": psycopg.errors.CannotConnectNow("the database system is starting up"),
    "a stop": psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
    "a connection without an answer": psycopg.OperationalError("server closed the connection unexpectedly"),
}


@pytest.mark.parametrize("error", PASSES.values(), ids=PASSES.keys())
def test_what_passes_at_a_server_is_waited_for(error: Exception) -> None:
    """It costs nothing, at whatever step of Optuna's it came."""
    if isinstance(error, psycopg.Error):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "psycopg")
        error = getattr(sqlalchemy.exc, kind.__name__)("SELECT 1", None, error)
    study = optuna.create_study(storage=patient(BreaksOff(error)))
    assert study.trials == []


def test_what_does_not_pass_is_told_at_once() -> None:
    """A full disk of the server is its fault; a permission that it does not give was never there."""
    denied = "permission denied for table studies"
    for error, kind, remedy in (
        (psycopg.errors.DiskFull("no space"), Fault, "see what the server says"),
        (psycopg.errors.InsufficientPrivilege(denied), Unwritable, "let this user write there"),
        (sqlite3.OperationalError("attempt to write a readonly database"), Unwritable, "let this user"),
    ):
        study = optuna.create_study(storage=patient(BreaksOff(DBAPIError("SELECT 1", None, error))))
        with pytest.raises(kind, match=f"grpc://host: {error}; {remedy}") as raised:
            _ = study.trials
        assert raised.value.exit_code == (2 if kind is Unwritable else 1)


@pytest.mark.parametrize("error", mostly_slow([errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], 3))
def test_a_file_system_without_locks_is_refused_before_anything_is_written(
    tmp_path: Path, error: int
) -> None:
    """Two processes that append at once would tear the journal: one line says how to mount it."""
    shim = Shim(tmp_path / "outputs", compile_shim(tmp_path))
    code = "from sweeper.search.storage import open_storage; open_storage('outputs/studies.journal')"
    done = run(tmp_path, "-c", code, env=shim.env(at=1, error=error))
    expected = r"outputs/studies\.journal: the file system refuses locks \(.+\); mount that disk with locks"
    assert re.search(rf"BadInput: hydra\.sweeper\.storage={expected}", done.stderr)
    assert not (tmp_path / "outputs").exists()


HOST = """
import os, sys
words = ["sh", "-c", 'hostname other && exec "$@"', "sh", sys.executable, "-c", *sys.argv[1:]]
os.execvp("unshare", ["unshare", "--mount", "--uts", *words])
"""


@pytest.mark.slow
def test_hosts_that_share_only_a_journal_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Three append at the same time, and one is killed: all that was told is there, and no line is torn."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another host needs unshare and root")
    path = tmp_path / "studies.journal"
    optuna.create_study(study_name="shared", storage=open_storage(str(path)))
    endless = ADD_TRIALS.replace("range(30)", "iter(int, 1)")
    both = [start(tmp_path, "-c", HOST, ADD_TRIALS, path) for _ in range(2)]
    killed = start(tmp_path, "-c", HOST, endless, path)
    for process in (*both, killed):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", finish(process).stderr
    for process in (*both, killed):
        go_on(process)
    until(lambda: path.read_bytes().count(b'"op_code":6') >= 20, limit_s=60)
    kill_group(killed)
    finish(killed)
    for process in both:
        done = finish(process, 60)
        assert done.returncode == 0, done.stderr
    trials = optuna.load_study(study_name="shared", storage=open_journal(path)).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) >= 60
    assert sum(trial.state == TrialState.RUNNING for trial in trials) <= 1
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_study_for_one_machine_is_not_for_many(tmp_path: Path) -> None:
    """Memory and SQLite are refused where other machines take part; servers and journals are not."""
    with pytest.raises(BadInput, match=r"storage=memory: is the memory of one process; write"):
        check_many_machines("memory")
    with pytest.raises(BadInput, match=r"db: a database file of SQLite is for one machine; write postgresql"):
        check_many_machines(f"sqlite:///{tmp_path}/studies.db")
    for url in ("postgresql+psycopg://host/db", "grpc://host:1", str(tmp_path / "studies.journal")):
        check_many_machines(url)


def test_a_deleted_study_is_a_fault_and_a_key_error() -> None:
    """The search says it in one line; optuna-dashboard answers 404, as for Optuna's own storages."""
    storage = patient(InMemoryStorage())
    with pytest.raises(Fault, match=r"grpc://host: the study was deleted meanwhile; start another study$"):
        storage.get_study_name_from_id(7)
    with pytest.raises(KeyError):
        optuna.load_study(study_name="gone", storage=storage)
