"""The process of a worker, as the pool sees it, whichever way it was started; and how it ended."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from typing import Any, Protocol

from sweeper.caller import end_with
from sweeper.search import engine

Body = Callable[[Any, int, Mapping[str, str]], None]
"""What a worker runs: of its orders, its place among the workers, and the environment to set."""

LOST = 255
"""The exit code of a worker whose server was killed: nobody could say how it ended, or if it did."""
FOR_THE_POOL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that reach the whole group; only the pool handles them."""


def for_the_pool() -> tuple[signal.Signals, ...]:
    """Those, and in a job what its engine may send to all its processes."""
    return (*FOR_THE_POOL, *(signum for signum in engine.stop_signals() if signum not in FOR_THE_POOL))


_ASKED_S = 0.5
"""How long a request to stop may be on its way to the pool: some send it to one process after the other."""
_SAID = 2000
"""Bytes that a worker can say."""


class Board:
    """Memory that a pool shares with its workers, for what a signal or an exit code cannot tell."""

    def __init__(self, n_workers: int, is_forked: bool) -> None:
        self._n_bytes = 1 + n_workers * _SAID
        # A process that was not forked finds it by the name of a file.
        self._file = None if is_forked else tempfile.NamedTemporaryFile(prefix="sweeper-")  # noqa: SIM115
        if self._file is not None:
            self._file.truncate(self._n_bytes)
        self._memory = mmap(-1 if self._file is None else self._file.fileno(), self._n_bytes)

    def __getstate__(self) -> tuple[str, int]:
        assert self._file is not None
        return self._file.name, self._n_bytes

    def __setstate__(self, state: tuple[str, int]) -> None:
        self._file = None
        path, self._n_bytes = state
        file = os.open(path, os.O_RDWR)
        self._memory = mmap(file, self._n_bytes)
        os.close(file)

    def close(self) -> None:
        self._memory.close()
        if self._file is not None:
            self._file.close()

    def ask_to_stop(self) -> None:
        """Tell the workers that the signal which they are sent comes from the pool."""
        self._memory[0] = 1

    def is_asked_to_stop(self) -> bool:
        """Whether the pool has asked, or was about to."""
        limit = time.monotonic() + _ASKED_S
        while not self._memory[0] and time.monotonic() < limit:
            time.sleep(0.01)
        return bool(self._memory[0])

    def say(self, index: int, text: str) -> None:
        """Leave the last words of a worker."""
        place = 1 + index * _SAID
        self._memory[place : place + _SAID] = text.encode(errors="replace")[:_SAID].ljust(_SAID, b"\0")

    def take(self, index: int) -> str:
        """The last words of the worker that had this place, once; mostly none."""
        place = 1 + index * _SAID
        said = self._memory[place : place + _SAID].rstrip(b"\0").decode(errors="ignore")
        if said:
            self.say(index, "")
        return said


class NotStarted(Exception):
    """A worker could not be started."""


class Process(Protocol):
    """The process of one worker."""

    index: int
    """Its place among the workers; a replacement takes the place, and with it the GPU."""
    n_told: int
    """How many of the pool's stop signals it has been told."""

    @property
    def sentinel(self) -> Any:
        """Ready, for ``multiprocessing.connection.wait``, when something may have happened to it."""

    @property
    def exitcode(self) -> int | None:
        """As multiprocessing's: None while it runs, a negative signal, or the code."""

    def is_alive(self) -> bool: ...

    def is_named(self, name: str) -> bool:
        """Whether this is the worker of that name."""

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def join(self) -> None: ...


class Crew(Protocol):
    """Starts workers."""

    def start(self, orders: Any, index: int, environment: Mapping[str, str]) -> Process:
        """Start one. Raises NotStarted where that cannot be."""

    def close(self) -> None:
        """End what serves the workers, and with it those that are left."""


def is_heard(signum: signal.Signals) -> bool:
    """Whether a signal is for us: under ``nohup``, the end of a terminal is not."""
    return signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN


def die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends."""
    end_with(parent, signal.SIGKILL)


def ending(exitcode: int | None) -> str:
    """How a worker ended, for people."""
    if exitcode == LOST:
        return "the process that its worker was forked from ended: killed, or by what it imports"
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory, or kill -9)" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{hint}"
    return f"its worker ended with exit code {exitcode}"


def name_prefix(pid: int | None) -> str:
    return f"{socket.gethostname()}-{pid}-"


@contextmanager
def handling(handler: Callable[[int, Any], object], *signums: int) -> Iterator[None]:
    """Let this handle these signals for a while; then they are handled as before."""
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def blocked(*signums: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
