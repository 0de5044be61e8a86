"""The process of a worker, as the pool sees it, whichever way it was started; and how it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

Body = Callable[[Any, int, Mapping[str, str]], None]
"""What a worker runs: of its orders, its place among the workers, and the environment to set."""

LOST = 255
"""The exit code of a worker whose server was killed: nobody could say how it ended, or if it did."""
FOR_THE_POOL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that reach the whole group; only the pool handles them."""
_PR_SET_PDEATHSIG = 1
"""From prctl(2)."""


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


def die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


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
def blocked(*signums: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
