"""Who lives on other hosts, for all that the study tells; and who is taken for dead."""

from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.record.study_files import StudyFiles
from sweeper.search import life
from sweeper.search.heart import Heart
from sweeper.search.ledger import POOL
from sweeper.search.life import BEAT, LEFT, Entry, Observer, Told, is_lost, is_unseen
from sweeper.search.storage import open_storage
from tests.program import run, until

ELSEWHERE = Entry(host="other", place="another place", heartbeat_s=10.0, version="sweeper 1")


def told(**beats: int | None) -> Told:
    """What pools of another host say that count so far."""
    return Told(dict.fromkeys(beats, ELSEWHERE), beats)


# --- the observer -------------------------------------------------------------------------------------------


def test_who_counts_up_lives_and_who_is_silent_for_the_grace_is_dead() -> None:
    """Only what this process saw counts: the first look says nothing about anybody."""
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    assert observer.see(told(a=5, b=700), 1000.0) == frozenset()
    for n in range(1, 3):
        assert observer.see(told(a=5 + n, b=700), 1000.0 + 10 * n) == frozenset()
    assert observer.see(told(a=8, b=700), 1030.0) == {"b"}
    assert observer.see(told(a=8, b=701), 1040.0) == frozenset()  # it was only cut off
    assert observer.see(told(a=8, b=702), 1060.0) == frozenset()  # 10 s count of these 20
    assert observer.see(told(a=8, b=703), 1070.0) == {"a"}


@pytest.mark.parametrize("away_s", [100.0, 10**6])
def test_who_was_stopped_or_cut_off_itself_kills_nobody(away_s: float) -> None:
    """Between two looks at most one heartbeat counts, however long the observer saw nothing."""
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    observer.see(told(a=1), 0.0)
    observer.see(told(a=1), 10.0)
    assert observer.see(told(a=1), 10.0 + away_s) == frozenset()
    assert observer.see(told(a=2), 15.0 + away_s) == frozenset()
    assert observer.see(told(a=2), 16.0 + away_s) == frozenset()


def test_a_missed_beat_is_noticed_before_the_grace_ends() -> None:
    """Who has no work waits beside a host that may be dying, and not beside one that beats."""
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    silent = []
    for now in range(40):
        observer.see(told(a=1, b=now // 10), float(now))
        silent += [now] if observer.is_silent("a", ELSEWHERE) else []
        assert not observer.is_silent("b", ELSEWHERE)
    assert silent == list(range(16, 40))


def test_looking_often_counts_the_same() -> None:
    """A pool is dead after the grace, whether it was looked at once a second or once a heartbeat."""
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    dead = [now for now in range(60) if observer.see(told(a=1), float(now))]
    assert dead[0] == 30


def test_a_slow_heart_is_no_dead_one() -> None:
    """A pool that beats every 100 s is not dead after a grace of 30: that is its own beat's time."""
    slow = Told({"a": replace(ELSEWHERE, heartbeat_s=100.0)}, {"a": 1})
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    dead = [now for now in range(0, 300, 10) if observer.see(slow, float(now))]
    assert dead[0] == 200


def test_who_has_ended_or_has_no_beat_is_never_silent() -> None:
    """An end is no death, and nobody waits for the beat of a search in its own process."""
    quiet = Told({"ended": ELSEWHERE, "in process": replace(ELSEWHERE, heartbeat_s=None)}, {"ended": None})
    observer = Observer(heartbeat_s=10.0, grace_s=30.0)
    assert not any(observer.see(quiet, 10.0 * n) for n in range(100))


# --- what stands in the study -------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "journal", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    url = {"memory": "memory", "journal": str(tmp_path / "j"), "sqlite": f"sqlite:///{tmp_path / 's.db'}"}
    return optuna.create_study(storage=open_storage(url[request.param]))


def test_a_pool_registers_beats_and_ends(study: optuna.Study) -> None:
    """Others read all that it said, and that it has ended."""
    storage, study_id = study._storage, study._study_id
    life.register(storage, study_id, "a", ELSEWHERE)
    life.register(storage, study_id, "b", replace(ELSEWHERE, heartbeat_s=None))
    life.beat(storage, study_id, "a", 2)
    found = life.read(storage, study_id)
    assert found == Told({"a": ELSEWHERE, "b": replace(ELSEWHERE, heartbeat_s=None)}, {"a": 2})
    life.end(storage, study_id, "a")
    life.end(storage, study_id, "b")
    assert life.read(storage, study_id).open == {}
    life.beat(storage, study_id, "a", 3)  # it was only taken for dead
    assert life.read(storage, study_id).open == {"a": ELSEWHERE}


def test_stops_are_counted(study: optuna.Study) -> None:
    """Who begins after a stop can tell it from one that is meant for it, too."""
    assert life.read(study._storage, study._study_id).n_stops == 0
    life.stop(study._storage, study._study_id)
    life.stop(study._storage, study._study_id)
    assert life.read(study._storage, study._study_id).n_stops == 2


@pytest.mark.parametrize("said", [1, "x", None, [], {}, {"host": "x"}, {"host": 1, "heartbeat_s": "often"}])
def test_what_no_pool_has_written_is_left_out(said: Any) -> None:
    """Another program may have an attribute of that name."""
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage)
    storage.set_study_system_attr(study._study_id, f"{POOL}:a", said)
    storage.set_study_system_attr(study._study_id, f"{BEAT}a", said)
    storage.set_study_system_attr(study._study_id, life.STOPS, said)
    found = life.read(storage, study._study_id)
    assert (found.entries, found.n_stops) == ({}, 1 if said == 1 else 0)


def test_a_day_of_beats_is_less_than_a_megabyte(tmp_path: Path) -> None:
    """A beat takes few bytes of a journal."""
    journal = tmp_path / "journal"
    study = optuna.create_study(storage=open_storage(str(journal)))
    name = life.new_name()
    before = journal.stat().st_size
    for n in range(100):
        life.beat(study._storage, study._study_id, name, 1000 + n)
    assert (journal.stat().st_size - before) / 100 * (24 * 60 * 60 / 30) < 0.6 * 10**6


def test_other_code_is_named() -> None:
    """Who joins is told whose trials may not compare."""
    own = replace(ELSEWHERE, host="here", version="sweeper 2")
    (line,) = life.strangers(told(a=1, b=2), own)
    assert line == "the host other runs sweeper 1, this one sweeper 2"
    assert life.strangers(told(a=None), own) == []
    assert life.strangers(told(a=1), ELSEWHERE) == []


# --- whose trials are lost ----------------------------------------------------------------------------------


def running(worker: Any, pool: str | None = None) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING,
        user_attrs={} if worker is None else {"worker": worker},
        system_attrs={} if pool is None else {POOL: pool},
    )


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    files = StudyFiles(tmp_path)
    files.heartbeats.mkdir()
    return files


def test_elsewhere_only_the_study_tells(files: StudyFiles) -> None:
    """No lock of another place says anything: neither a host's name that is the same nor the folder's."""
    trial = running(f"{socket.gethostname()}-1-aa", "a")
    assert not is_lost(trial, files, told(a=7))
    assert is_lost(trial, files, told(a=7), dead={"a"})
    assert is_lost(trial, files, told(a=None))
    assert is_lost(trial, None, told(a=None))
    assert not is_lost(trial, None, told(a=7))


def test_in_one_place_the_lock_tells(files: StudyFiles) -> None:
    """A pool that beats, and whose worker is gone, has lost that worker's trial; and none that is there."""
    here = Told({"a": Entry.here(files, 1, 10.0, None)}, {"a": 7})
    assert is_lost(running(f"{socket.gethostname()}-1-aa", "a"), files, here)
    assert is_lost(running("renamed-1-aa", "a"), files, here)


def test_of_older_trials_the_hosts_name_tells(files: StudyFiles) -> None:
    """A study of an earlier version has no pools: it is judged as that version did."""
    own = f"{socket.gethostname()}-1-0123abcd"
    assert is_lost(running(own), files)
    assert not is_lost(running("other-1-0123abcd"), files)
    assert not is_lost(running(own), None)


@pytest.mark.parametrize("noted", [None, 3, "", "gpu-0", socket.gethostname(), f"{socket.gethostname()}-1-2"])
def test_a_trial_of_another_program_is_never_lost(files: StudyFiles, noted: Any) -> None:
    """Plain Optuna leaves nothing that tells who runs a trial; what its script notes as worker is its own."""
    trial = running(noted)
    assert (life.worker_of(trial), life.pool_of(trial)) == ("", "")
    assert not is_lost(trial, files, Told({"a": Entry.here(files, 1, 10.0, None)}, {"a": None}), dead={"a"})
    assert is_unseen(trial, files, life.NOBODY)
    assert is_unseen(trial, None, life.NOBODY)


def test_a_trial_just_taken_from_the_queue_is_its_pools(files: StudyFiles) -> None:
    """Its worker was killed before it gave its name; one whose pool was too late is not."""
    here = Told({"a": Entry.here(files, 1, 10.0, None)}, {"a": 7})
    taken = running(None, "a")
    assert is_lost(taken, files, here)
    assert not is_unseen(taken, files, here)
    taken.system_attrs[f"{LEFT}a"] = True
    assert not is_lost(taken, files, here)
    assert is_unseen(taken, files, here)
    taken.user_attrs["worker"] = "other-1-0123abcd"  # another host's, which is about to say its pool
    assert not is_lost(taken, files, here)


def test_who_looks_on_hears_those_that_live(files: StudyFiles) -> None:
    """Of those that are asked about, and no longer than a dead one takes to miss its beats."""
    study = optuna.create_study(storage=InMemoryStorage())
    storage, study_id = study._storage, study._study_id
    for name in ("lives", "gone", "not asked about"):
        life.register(storage, study_id, name, replace(ELSEWHERE, heartbeat_s=0.1))
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        life.beat(storage, study_id, "lives", 2)
        life.beat(storage, study_id, "not asked about", 2)

    heard = life.heard(storage, study_id, files, say, among={"lives", "gone"})
    assert [name for name, _ in heard] == ["lives"]
    assert said == ["Looking for up to 0 s whether other still runs it …"]


def test_nobody_sees_who_has_no_beat_elsewhere(files: StudyFiles) -> None:
    """A search in its own process is seen by its lock, from where that is; unless it has said its end."""
    elsewhere, here = replace(ELSEWHERE, heartbeat_s=None), Entry.here(files, 1, None, None)
    trial = running("other-1-0123abcd", "a")
    assert is_unseen(trial, files, Told({"a": elsewhere}))
    assert is_unseen(trial, None, Told({"a": here}))
    assert not is_unseen(trial, files, Told({"a": here}))
    assert not is_unseen(trial, files, Told({"a": elsewhere}, {"a": None}))
    assert not is_unseen(trial, files, told(a=7))


def test_trials_are_told_by_where_they_run() -> None:
    """Each host with its trials, and those of another program, in one sentence."""
    trials = [running("other-1-0123abcd", "a"), running(None), running(None)]
    for number, trial in enumerate(trials):
        trial.number = number
    there = "trial 0 on other and trials 1 and 2 in another program"
    assert life.told_running(trials, told(a=7)) == there
    whether = "as running, and nobody can see from here whether"
    assert life.told_unseen(trials, told(a=7)) == f"{there} still count {whether} they do"
    assert life.told_unseen(trials[1:2], told()) == (
        f"trial 1 in another program still counts {whether} it does"
    )


def test_a_place_is_a_machine_and_a_folder(tmp_path: Path) -> None:
    """Two folders are two places, and another process of this machine is in the same one."""
    one, other = StudyFiles(tmp_path / "1"), StudyFiles(tmp_path / "2")
    for each in (one, other):
        each.heartbeats.mkdir(parents=True)
    assert life.place_of(one) != life.place_of(other)
    code = (
        "import sys; from pathlib import Path; from sweeper.record.study_files import StudyFiles;"
        "from sweeper.search.life import place_of; print(place_of(StudyFiles(Path(sys.argv[1]))))"
    )
    assert run(tmp_path, "-c", code, one.folder).stdout.strip() == life.place_of(one)


# --- the heart ----------------------------------------------------------------------------------------------


def heart(study: optuna.Study, files: StudyFiles, n_stops: int | None = None) -> Heart:
    entry = Entry.here(files, 1, 0.1, None)
    return Heart(study._storage, study._study_id, life.new_name(), entry, 0.3, n_stops)


def beats(study: optuna.Study, name: str) -> int | None:
    return life.read(study._storage, study._study_id).beats[name]


def test_a_heart_beats_until_it_ends(study: optuna.Study, files: StudyFiles) -> None:
    """Whatever the pool does, the study shows that it lives; in the end it shows that it has ended."""
    with heart(study, files) as own:
        until(lambda: (beats(study, own.name) or 0) > 2)
        assert own.dead == frozenset()
    assert beats(study, own.name) is None
    assert "heart" not in [thread.name for thread in threading.enumerate()]


def test_a_heart_sees_who_died(study: optuna.Study, files: StudyFiles) -> None:
    """A pool of another host that fell silent is known by its name, and no other."""
    with heart(study, files) as other, heart(study, files) as own:
        life.register(study._storage, study._study_id, "silent", replace(ELSEWHERE, heartbeat_s=0.1))
        until(lambda: own.dead == other.dead == {"silent"})


def test_who_is_dead_is_buried_and_may_come_back(study: optuna.Study, files: StudyFiles) -> None:
    """Who comes later is told, and waits for nobody; one that was only cut off lives again by its beat."""
    storage, study_id = study._storage, study._study_id
    with heart(study, files) as own:
        for name in ("silent", "back"):
            life.register(storage, study_id, name, replace(ELSEWHERE, heartbeat_s=0.1))
        until(lambda: own.dead == {"silent", "back"})
        life.beat(storage, study_id, "back", 2)
        assert own.still_dead() <= {"silent"}
        own.bury()
        now = life.read(storage, study_id)
        assert now.open.keys() == {own.name, "back"}
        assert not now.has_ended("silent"), "a trial that it begins now is not lost at once"
        life.beat(storage, study_id, "silent", 2)
        own.bury()
        assert life.read(storage, study_id).open.keys() == {own.name, "back", "silent"}


def n_tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_pause_leaves_no_thread_and_may_be_forked(study: optuna.Study, files: StudyFiles) -> None:
    """The system counts one task: a fork of it has no lock that nobody will let go of."""
    with heart(study, files) as own:
        before = n_tasks()
        with own.paused():
            assert n_tasks() == before - 1
            n = beats(study, own.name)
        until(lambda: beats(study, own.name) != n)


def test_a_stop_is_heeded_once(study: optuna.Study, files: StudyFiles) -> None:
    """What is asked of all pools reaches one that runs, one that was asked for before, and no later one."""
    heard: list[str] = []
    with heart(study, files) as own, own.heeding(lambda: heard.append("running")):
        life.stop(study._storage, study._study_id)
        until(lambda: heard)
        until(lambda: beats(study, own.name) != 1)
    with heart(study, files, n_stops=0) as own, own.heeding(lambda: heard.append("asked for before")):
        assert own.is_stopped
    with heart(study, files) as own, own.heeding(lambda: heard.append("later")):
        assert not own.is_stopped
    assert heard == ["running", "asked for before"]


def test_signals_are_for_the_main_thread(study: optuna.Study, files: StudyFiles) -> None:
    """The heart takes none: a write that a terminal holds up is interrupted by the request to stop."""
    with heart(study, files):
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "heart")
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked & (1 << (signal.SIGTERM - 1))
    assert blocked & (1 << (signal.SIGINT - 1))


class Away(InMemoryStorage):
    """A storage that is away for a while."""

    is_away = False
    n_refused = 0

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if self.is_away:
            self.n_refused += 1
            raise ConnectionError("away")
        super().set_study_system_attr(study_id, key, value)


def test_a_storage_that_comes_back_is_told_again(files: StudyFiles) -> None:
    """No storage that was away lets a pool look dead for ever."""
    storage: BaseStorage = Away()
    study = optuna.create_study(storage=storage)
    assert isinstance(storage, Away)
    with heart(study, files) as own:
        storage.is_away = True
        n = beats(study, own.name)
        until(lambda: storage.n_refused > 2)
        storage.is_away = False
        until(lambda: (beats(study, own.name) or 0) > (n or 0))


def test_a_storage_that_is_away_is_not_stormed(files: StudyFiles) -> None:
    """It is asked again once in a look, not as fast as it can refuse."""
    storage: BaseStorage = Away()
    study = optuna.create_study(storage=storage)
    assert isinstance(storage, Away)
    with heart(study, files) as own:
        storage.is_away = True
        until(lambda: storage.n_refused)
        before, began_s = storage.n_refused, time.monotonic()
        until(lambda: storage.n_refused >= before + 3)
        assert time.monotonic() - began_s > 2 * own.look_s
        storage.is_away = False
