"""The heart of a pool: it tells the study that this pool lives, and learns there who else does."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from optuna.storages import BaseStorage

from sweeper.fault import Fault
from sweeper.search import life
from sweeper.search.life import Entry, Observer
from sweeper.search.patience import aside
from sweeper.search.process import blocked

log = logging.getLogger(__name__)

_READS_A_S = 20
"""How often all pools of a study together look at it in a second: those of 20 hosts once each."""
_LOOK_S = 1.0
_PAUSE_S = 2.0
"""How long a pause waits for a storage that does not answer."""


class Heart:
    """Beats in a thread of its own: a terminal that takes no output holds up the pool, but not its workers.

    Args:
        storage: of the study. The thread asks a server that is away again at each look.
        entry: of the pool; without a ``heartbeat_s`` it has no beat, and no thread.
        n_stops: how often the study had been stopped when this pool was asked for; None for now.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        name: str,
        entry: Entry,
        grace_s: float,
        n_stops: int | None = None,
    ) -> None:
        self.name, self.entry = name, entry
        self.told = life.NOBODY
        """What the pools of the study have told, this one among them."""
        self.dead: frozenset[str] = frozenset()
        """The others that were silent for too long."""
        self._storage, self._aside, self._study_id = storage, aside(storage), study_id
        self._observer = Observer(entry.heartbeat_s or 0.0, grace_s)
        self._n_stops = n_stops
        self._on_stop: Callable[[], None] | None = None
        self._n_beats = 1
        self._buried: set[tuple[str, int | None]] = set()
        """Those that this pool has told to be dead, with the beat that was their last."""
        self._next_beat_s = self._next_look_s = 0.0
        self._is_ending = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Heart:
        """Register the pool.

        Raises:
            Fault: if that cannot be stored.
        """
        before = life.read(self._storage, self._study_id)
        for stranger in life.strangers(before, self.entry):
            log.warning("Other code on another host: %s. Their trials may not compare.", stranger)
        if self._n_stops is None:
            self._n_stops = before.n_stops
        life.register(self._storage, self._study_id, self.name, self.entry)
        self._next_beat_s = time.monotonic() + (self.entry.heartbeat_s or 0.0)
        self._look(self._storage)
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that the pool has ended; where that cannot be stored, the others find out."""
        self._pause()
        with contextlib.suppress(Fault):
            life.end(self._aside, self._study_id, self.name)

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has asked all pools to stop, or had before this one began."""
        return self.told.n_stops > (self._n_stops or 0)

    @property
    def look_s(self) -> float:
        """Seconds between two looks at the study, such that many pools do not wear out its storage."""
        n_living = len(self.told.open.keys() - self.dead)
        shared_s = max(_LOOK_S, n_living / _READS_A_S)
        return min(shared_s, self.entry.heartbeat_s or shared_s)

    def patience_s(self, pool: str) -> float:
        """How long to wait for another pool: as long as it may be silent, also for one that has no beat.

        No name is that of another program, which is waited for as long.
        """
        entry = self.told.entries.get(pool)
        return self._observer.patience_s(entry or self.entry)

    def still_dead(self) -> frozenset[str]:
        """Those of the dead that have not come back since this pool looked last."""
        told, dead = self.told, self.dead
        now = life.read(self._storage, self._study_id)
        return frozenset(name for name in dead if now.beats.get(name) == told.beats.get(name))

    def bury(self) -> None:
        """Tell the study who is dead, once their trials are repeated, for whoever comes later."""
        told, dead = self.told, self.dead
        found = {(name, told.beats.get(name)) for name in dead if told.beats.get(name)} - self._buried
        if found:
            gone = self.still_dead()
            for name in sorted(name for name, _ in found if name in gone):
                life.bury(self._storage, self._study_id, name)
            self._buried |= found

    def is_silent(self, pool: str) -> bool:
        """Whether another pool has missed a beat."""
        entry = self.told.open.get(pool)
        return entry is not None and self._observer.is_silent(pool, entry)

    @contextmanager
    def heeding(self, on_stop: Callable[[], None]) -> Iterator[None]:
        """Call this, in the heart's thread, when all pools are asked to stop; at once where they were."""
        self._on_stop = on_stop
        self._tell_stop()
        try:
            yield
        finally:
            self._on_stop = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A stretch without the thread, in which this process may be forked."""
        self._pause()
        try:
            yield
        finally:
            self._begin()

    def _begin(self) -> None:
        self._is_ending.clear()
        if self.entry.heartbeat_s is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
            with blocked(*signal.valid_signals()):  # they are for the main thread, also while it writes
                self._thread.start()

    def _pause(self) -> None:
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join(_PAUSE_S)
            if not self._thread.is_alive():
                _wait_for_end_of(self._thread)
                self._thread = None

    def _run(self) -> None:
        while not self._is_ending.wait(self._due_s()):
            try:
                self._turn()
            except Exception as error:  # whatever a driver raises: the storage may be back at the next look
                log.debug("the study could not be told that this pool lives: %s", error)
                self._next_look_s = time.monotonic() + self.look_s
                self._next_beat_s = max(self._next_beat_s, self._next_look_s)

    def _due_s(self) -> float:
        return max(0.0, min(self._next_beat_s, self._next_look_s) - time.monotonic())

    def _turn(self) -> None:
        if time.monotonic() >= self._next_beat_s:
            life.beat(self._aside, self._study_id, self.name, self._n_beats + 1)
            self._n_beats += 1
            self._next_beat_s = time.monotonic() + (self.entry.heartbeat_s or 0.0)
        if time.monotonic() >= self._next_look_s:
            self._look(self._aside)

    def _look(self, storage: BaseStorage) -> None:
        self.told = life.read(storage, self._study_id)
        self.dead = self._observer.see(self.told, time.monotonic()) - {self.name}
        self._next_look_s = time.monotonic() + self.look_s
        self._tell_stop()

    def _tell_stop(self) -> None:
        on_stop = self._on_stop
        if self.is_stopped and on_stop is not None:
            self._on_stop = None
            on_stop()


def _wait_for_end_of(thread: threading.Thread) -> None:
    """Wait until the system, too, knows no more of a thread that has ended."""
    limit = time.monotonic() + _PAUSE_S
    while Path(f"/proc/self/task/{thread.native_id}").exists() and time.monotonic() < limit:
        time.sleep(0.001)
