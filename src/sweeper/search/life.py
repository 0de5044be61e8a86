"""Who lives: what the pools of a study tell of themselves there, and whom another host takes for dead.

On one machine the system says at once that a worker is gone. For others, each pool counts up in the study,
and who has seen no change for long enough takes it for dead. No two clocks are compared.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection, Mapping
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

POOLS = f"{POOL}:"
"""Of the study, with a pool's name behind it: what that pool has told of itself. All of these are system
attributes."""
BEAT = "sweeper:beat:"
"""With a pool's name behind it: 1, 2, 3 … while it lives, null when it has ended, 0 when others have taken it
for dead, and have repeated its trials."""
STOPS = "sweeper:stops"
"""How often somebody has asked all pools of the study to stop."""

LOST = "its process is gone (killed, or the machine went down)"

_MIN_GRACE = 2
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
        if not host or host == socket.gethostname():
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
        """Where a trial runs, or ran; empty where nobody has said."""
        entry = self.entries.get(trial.system_attrs.get(POOL, ""))
        return entry.host if entry is not None else host_of(trial.user_attrs.get("worker", ""))


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
        return max(self._grace_s, _MIN_GRACE * (entry.heartbeat_s or 0.0))


def watch(storage: BaseStorage, study_id: int, files: StudyFiles | None, say: Callable[[str], None]) -> str:
    """A host elsewhere whose pool lives, looking on for two of its heartbeats; empty where there is none."""
    before, waited_s = read(storage, study_id), 0.0
    place = "" if files is None else place_of(files)
    beating = {n: e for n, e in before.open.items() if e.heartbeat_s is not None and e.place != place}
    limit_s = max((_MIN_GRACE * (entry.heartbeat_s or 0.0) for entry in beating.values()), default=0.0)
    if beating:
        hosts = sorted({entry.host for entry in beating.values()})
        say(f"Looking for up to {limit_s:.0f} s whether {' or '.join(hosts)} still runs it …")
    while waited_s < limit_s:
        time.sleep(_WATCH_S)
        waited_s += _WATCH_S
        now = read(storage, study_id)
        for name in beating.keys() & now.open.keys():
            if now.beats.get(name) != before.beats.get(name):
                return beating[name].host
    return ""


def is_lost(
    trial: FrozenTrial, files: StudyFiles | None, told: Told = NOBODY, dead: Collection[str] = ()
) -> bool:
    """Whether nobody runs a running trial any more, for all that can be known here.

    Args:
        files: of the study, where its folder is here.
        dead: pools that were seen to be silent.
    """
    worker, pool = trial.user_attrs.get("worker"), trial.system_attrs.get(POOL)
    entry = told.entries.get(pool or "")
    if entry is not None and (files is None or entry.place != place_of(files)):
        return told.has_ended(str(pool)) or pool in dead
    if files is None:
        return False
    if worker is None:  # it was being asked for, under a lock that those of other places do not see
        rest = (other for name, other in told.open.items() if name not in dead)
        return all(other.place == place_of(files) for other in rest)
    is_elsewhere = entry is None and host_of(worker) != socket.gethostname()  # begun when pools told nothing
    return not is_elsewhere and not is_alive(files.heartbeats, worker)


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
