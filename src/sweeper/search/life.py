"""Who lives: what the pools of a study tell of themselves there, and whom another host takes for dead.

On one machine the system says at once that a worker is gone. For others, each pool counts up in the study,
and who has seen no change for long enough takes it for dead. No two clocks are compared.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweeper import __version__
from sweeper.lock import is_alive
from sweeper.record.study_files import StudyFiles
from sweeper.search.engine import machine
from sweeper.search.ledger import POOL
from sweeper.words import listed

POOLS = f"{POOL}:"
"""Of the study, with a pool's name behind it: what that pool has told of itself. All of these are system
attributes."""
BEAT = "sweeper:beat:"
"""With a pool's name behind it: 1, 2, 3 … while it lives, null when it has ended, 0 when others have taken it
for dead, and have repeated its trials."""
STOPS = "sweeper:stops"
"""How often somebody has asked all pools of the study to stop."""

LEFT = "sweeper:left:"
"""System attribute of a trial, with a pool's name behind it: that pool wanted to take it from the queue, and
somebody else was faster."""

LOST = "its process is gone (killed, or the machine went down)"
ANOTHER = "another program"
"""What people read instead of a host where a trial is none of ours: plain Optuna has asked for it."""

_NAME = re.compile(r".+-\d+-[0-9a-f]{8}")
"""Of our workers; what other programs call theirs says nothing of ours."""

MIN_GRACE = 2
"""Heartbeats for which nobody takes a pool for dead, however short the grace of others: one may be late."""
_LATE = 1.5
"""Heartbeats after which a beat is missed."""


@dataclass(frozen=True)
class Entry:
    """What a pool tells of itself, once."""

    host: str
    place: str
    """Of the locks that its workers hold: who is in the same place sees them."""
    heartbeat_s: float | None
    """How often it counts up; None for a search in its own process, about which only locks tell."""
    n_workers: int = 1
    job: str | None = None
    """Of the launcher that started it."""
    version: str = ""
    """Of what the workers' trials depend on."""
    folder: str = ""
    """Of the study, there."""
    began: str = ""
    """When, by that host's clock, for people."""

    @classmethod
    def here(cls, files: StudyFiles, n_workers: int, heartbeat_s: float | None, job: str | None) -> Entry:
        """That of a pool of this process."""
        return cls(
            host=socket.gethostname(),
            place=place_of(files),
            heartbeat_s=heartbeat_s,
            n_workers=n_workers,
            job=job,
            version=version(),
            folder=str(files.folder),
            began=datetime.now().isoformat(timespec="seconds"),
        )

    @classmethod
    def read(cls, said: Any) -> Entry | None:
        """What stands in a study; None for what no pool has written."""
        try:
            known = {f.name: said[f.name] for f in fields(cls) if f.name in said}
            entry = cls(**known)
            float(entry.heartbeat_s or 0)
        except (TypeError, KeyError, ValueError):
            return None
        return entry


@dataclass(frozen=True)
class Told:
    """What stands in a study about its pools."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    beats: Mapping[str, int | None] = field(default_factory=dict)
    n_stops: int = 0

    def has_ended(self, pool: str) -> bool:
        """Whether it has said so."""
        return pool in self.beats and self.beats[pool] is None

    def why_lost(self, trial: FrozenTrial) -> str:
        """The reason of a trial that nobody runs any more; it names another host."""
        host = self.host_of(trial)
        if not host:
            return f"{ANOTHER} ran it, and is said to be gone"
        if host == socket.gethostname():
            return LOST
        return f"nothing is heard any more of the host {host}, which ran it (gone, stopped or cut off)"

    @property
    def open(self) -> dict[str, Entry]:
        """The pools that live, for all that stands there; one without a beat never says that it does."""
        return {name: entry for name, entry in self.entries.items() if self.beats.get(name, 1)}

    def counts(self, trial: FrozenTrial) -> bool:
        """Whether the pool of a trial counts up while it lives."""
        entry = self.entries.get(trial.system_attrs.get(POOL, ""))
        return entry is not None and entry.heartbeat_s is not None

    def host_of(self, trial: FrozenTrial) -> str:
        """Where a trial runs, or ran; empty for that of another program."""
        entry = self.entries.get(pool_of(trial))
        return entry.host if entry is not None else host_of(worker_of(trial) or pool_of(trial))


NOBODY = Told()
"""Of a study whose pools have told nothing."""


_WATCH_S = 0.2
"""How often ``watch`` looks."""


def new_name() -> str:
    """A name for a pool, or a worker, of this process: HOST-PID-HEX."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def host_of(name: str) -> str:
    """That of a worker's or a pool's name."""
    return name.rsplit("-", 2)[0]


def worker_of(trial: FrozenTrial) -> str:
    """The name of the worker that runs a trial; empty where another program does, whatever it notes there."""
    name = trial.user_attrs.get("worker")
    return name if isinstance(name, str) and (POOL in trial.system_attrs or _NAME.fullmatch(name)) else ""


def pool_of(trial: FrozenTrial) -> str:
    """The name of the pool that has begun a trial; empty for that of another program.

    A trial of ours is made with its worker, or has its pool before it is taken from the queue. Others may be
    faster than the pool that wants it: then it says so.
    """
    name = trial.system_attrs.get(POOL)
    return name if isinstance(name, str) and f"{LEFT}{name}" not in trial.system_attrs else ""


# --- what stands in the study -------------------------------------------------------------------------------


def read(storage: BaseStorage, study_id: int) -> Told:
    """What the pools of a study tell: one question, whose answer has some 300 bytes a pool."""
    said = storage.get_study_system_attrs(study_id)
    entries = {
        name.removeprefix(POOLS): Entry.read(each) for name, each in said.items() if name.startswith(POOLS)
    }
    beats = {name.removeprefix(BEAT): each for name, each in said.items() if name.startswith(BEAT)}
    n_stops = said.get(STOPS)
    return Told(
        {name: entry for name, entry in entries.items() if entry is not None},
        beats,
        n_stops if isinstance(n_stops, int) else 0,
    )


def register(storage: BaseStorage, study_id: int, pool: str, entry: Entry) -> None:
    """Say that there is a pool, before it begins a trial."""
    storage.set_study_system_attr(study_id, f"{POOLS}{pool}", asdict(entry))
    if entry.heartbeat_s is not None:
        beat(storage, study_id, pool, 1)


def beat(storage: BaseStorage, study_id: int, pool: str, n: int) -> None:
    storage.set_study_system_attr(study_id, f"{BEAT}{pool}", n)


def end(storage: BaseStorage, study_id: int, pool: str) -> None:
    """Say that a pool has ended, and has left no trial."""
    storage.set_study_system_attr(study_id, f"{BEAT}{pool}", None)


def bury(storage: BaseStorage, study_id: int, pool: str) -> None:
    """Say of a pool that it is dead, for whoever comes later; if it lives, its next beat takes that back."""
    storage.set_study_system_attr(study_id, f"{BEAT}{pool}", 0)


def stop(storage: BaseStorage, study_id: int) -> None:
    """Ask all pools of a study to stop, wherever they are; what is started later may begin."""
    storage.set_study_system_attr(study_id, STOPS, read(storage, study_id).n_stops + 1)


# --- who is dead --------------------------------------------------------------------------------------------


class Observer:
    """Tells from what it saw of the pools' beats, and when, which of them are dead.

    Between two looks at most one heartbeat counts: while this process was stopped, or the server was away,
    nobody could have been seen to live.

    Args:
        heartbeat_s, grace_s: of this process's search.
    """

    def __init__(self, heartbeat_s: float, grace_s: float) -> None:
        self._heartbeat_s, self._grace_s = heartbeat_s, grace_s
        self._looked_s: float | None = None
        self._beats: dict[str, int | None] = {}
        self._silent_s: dict[str, float] = {}

    def see(self, told: Told, now_s: float) -> frozenset[str]:
        """Take in what stands there now.

        Args:
            now_s: the time on this process's own clock, from any beginning.

        Returns:
            the pools that are dead: they have been silent for ``grace_s``.
        """
        passed_s = 0.0 if self._looked_s is None else min(now_s - self._looked_s, self._heartbeat_s)
        self._looked_s = now_s
        # Also those that others have buried: one that was only cut off goes on, maybe before its next beat.
        rest = {name: entry for name, entry in told.entries.items() if not told.has_ended(name)}
        watched = {name: entry for name, entry in rest.items() if entry.heartbeat_s is not None}
        self._silent_s = {
            name: self._silent_s[name] + passed_s
            if name in self._beats and self._beats[name] == told.beats.get(name)
            else 0.0
            for name in watched
        }
        self._beats = {name: told.beats.get(name) for name in watched}
        return frozenset(
            name for name, entry in watched.items() if self._silent_s[name] >= self.patience_s(entry)
        )

    def is_silent(self, pool: str, entry: Entry) -> bool:
        """Whether a pool has missed a beat: it will be heard soon, or be known to be dead."""
        heartbeat_s = entry.heartbeat_s
        return heartbeat_s is not None and self._silent_s.get(pool, 0.0) > _LATE * heartbeat_s

    def patience_s(self, entry: Entry) -> float:
        """How long that pool may be silent."""
        return max(self._grace_s, MIN_GRACE * (entry.heartbeat_s or 0.0))


def watch(storage: BaseStorage, study_id: int, files: StudyFiles | None, say: Callable[[str], None]) -> str:
    """A host elsewhere whose pool lives, looking on for two of its heartbeats; empty where there is none."""
    return next((entry.host for _, entry in heard(storage, study_id, files, say)), "")


def heard(
    storage: BaseStorage,
    study_id: int,
    files: StudyFiles | None,
    say: Callable[[str], None],
    among: Collection[str] | None = None,
) -> Iterator[tuple[str, Entry]]:
    """The pools elsewhere that live, as they are heard, looking on for two of their heartbeats.

    Args:
        among: the names of those that matter; None for all.
    """
    before, waited_s = read(storage, study_id), 0.0
    place = "" if files is None else place_of(files)
    silent = {n: e for n, e in before.open.items() if e.heartbeat_s is not None and e.place != place}
    if among is not None:
        silent = {name: entry for name, entry in silent.items() if name in among}
    limit_s = max((MIN_GRACE * (entry.heartbeat_s or 0.0) for entry in silent.values()), default=0.0)
    if silent:
        hosts = sorted({entry.host for entry in silent.values()})
        say(f"Looking for up to {limit_s:.0f} s whether {' or '.join(hosts)} still runs it …")
    while silent and waited_s < limit_s:
        time.sleep(_WATCH_S)
        waited_s += _WATCH_S
        now = read(storage, study_id)
        for name in [n for n in silent if now.beats.get(n) != before.beats.get(n)]:
            entry = silent.pop(name)
            if name in now.open:
                yield name, entry


def is_lost(
    trial: FrozenTrial, files: StudyFiles | None, told: Told = NOBODY, dead: Collection[str] = ()
) -> bool:
    """Whether nobody runs a running trial any more, for all that can be known here.

    One that has a pool and no worker was being taken from the queue under the lock of its pool's place. One
    that has neither is another program's, of which nothing can be known.

    Args:
        files: of the study, where its folder is here.
        dead: pools that were seen to be silent.
    """
    pool = pool_of(trial)
    name = worker_of(trial) or pool
    entry = told.entries.get(pool)
    if entry is not None and (files is None or entry.place != place_of(files)):
        return told.has_ended(pool) or pool in dead
    is_left = not pool and POOL in trial.system_attrs
    if files is None or not name or is_left:
        return False
    is_elsewhere = entry is None and host_of(name) != socket.gethostname()  # begun when pools told nothing
    return not is_elsewhere and not is_alive(files.heartbeats, name)


def is_unseen(trial: FrozenTrial, files: StudyFiles | None, told: Told) -> bool:
    """Whether nothing that is here, or stands in the study, can tell whether a running trial's process lives.

    It is another program's, or that of a search in its own process on another host.
    """
    pool = pool_of(trial)
    entry = told.entries.get(pool)
    if entry is None:
        host = host_of(worker_of(trial) or pool)
        return files is None or host != socket.gethostname()
    is_here = files is not None and entry.place == place_of(files)
    return not is_here and entry.heartbeat_s is None and not told.has_ended(pool)


def told_running(trials: Iterable[FrozenTrial], told: Told, noun: str = "trial") -> str:
    """``trial 7 on b and trials 8 and 9 in another program``."""
    numbers = dict[str, list[str]]()
    for trial in trials:
        host = told.host_of(trial)
        numbers.setdefault(f"on {host}" if host else f"in {ANOTHER}", []).append(str(trial.number))
    return listed([f"{noun}{'s' * (len(n) > 1)} {listed(n)} {where}" for where, n in numbers.items()])


def told_unseen(trials: Sequence[FrozenTrial], told: Told, noun: str = "trial") -> str:
    """A sentence about running trials that are unseen."""
    still, do = ("still counts", "it does") if len(trials) == 1 else ("still count", "they do")
    running = told_running(trials, told, noun)
    return f"{running} {still} as running, and nobody can see from here whether {do}"


def place_of(files: StudyFiles) -> str:
    """What names the place of workers' locks: only who has the same machine and the same folder sees them.

    A host's name would not do: containers and clones may share it. Nor would the folder: it may be shared.
    """
    try:
        folder = files.heartbeats.stat()
    except OSError:
        return ""
    return hashlib.sha256(f"{machine()} {folder.st_dev} {folder.st_ino}".encode()).hexdigest()[:16]


@cache
def version() -> str:
    """What trials depend on and may differ between hosts: the versions, and a digest of the app's script."""
    told = [f"sweeper {__version__}", f"optuna {metadata.version('optuna')}"]
    told.append(f"Python {platform.python_version()}")
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script.suffix == ".py" and getattr(sys.modules["__main__"], "__spec__", None) is None:
        digest = hashlib.sha256(script.read_bytes()).hexdigest()[:8]
        told.append(f"{script.name} {digest}")
    return ", ".join(told)


def strangers(told: Told, own: Entry) -> list[str]:
    """A line for each version that other pools have, and this one has not."""
    others = {entry.version: entry.host for entry in told.open.values() if entry.version != own.version}
    return [f"the host {host} runs {other}, this one {own.version}" for other, host in others.items()]
