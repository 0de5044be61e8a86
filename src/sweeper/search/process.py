"""A worker's process: forked from one server, which has imported what they all need; and how it ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess

from sweeper.search import worker

_LOST = 255
"""The exit code of a worker whose fork server was killed: nobody could say how it ended, or if it did."""
_MAX_ATTEMPTS = 3
_DYING_S = 0.1
"""In which a server that was killed may still be found alive."""


class NotStarted(Exception):
    """The fork server died: it was killed, or what it imports ended it."""


class Process(ForkServerProcess):
    """The process of one worker.

    The workers are forked from multiprocessing's fork server, a child of this process. It imports the
    modules of a search, and those that the task names, once for all of them: torch alone takes two seconds.
    Nothing else happens in it, so there are no threads and no GPU that a fork would break.
    """

    index: int
    """Its place among the workers; a replacement takes the place, and with it the GPU."""
    n_told = 0
    """How many of the pool's stop signals it has been told."""

    def is_alive(self) -> bool:
        if super().is_alive():
            return True
        if self.exitcode == _LOST:
            _end(self.pid)
        return False

    def is_named(self, name: str) -> bool:
        """Whether this is the worker of that name."""
        return name.startswith(f"{socket.gethostname()}-{self.pid}-")


def start(pickled: bytes, index: int, environment: Mapping[str, str], preload: Sequence[str]) -> Process:
    """Start a worker.

    Args:
        pickled: its assignment.
        index: its place among the workers.
        environment: set there, on top of this process's own.
        preload: modules that the fork server imports when it starts, with the first worker. On Linux alone:
            elsewhere the system's own libraries may not survive a fork.

    Raises:
        NotStarted: where the fork server died.
    """
    shared = [worker.__name__, *preload] if sys.platform == "linux" else []
    multiprocessing.set_forkserver_preload(["sweeper.search.fork_server", *shared])
    arguments = (pickled, index, {**os.environ, **environment})
    for _ in range(_MAX_ATTEMPTS):
        process = Process(target=worker.main, args=arguments, name=f"worker-{index}")
        process.index = index
        try:
            _ensure_server(environment)
            process.start()
        except (EOFError, ConnectionError):
            time.sleep(_DYING_S)
        else:
            return process
    raise NotStarted("their fork server died")


def _ensure_server(environment: Mapping[str, str]) -> None:
    """Start the fork server, if there is none."""
    resource_tracker.ensure_running()  # or the server's start would, and unblock the signals
    environment = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    # A Ctrl-C is for the pool alone, and so is a SIGTERM to the whole group; the server is born without ears.
    with _environment(environment), _blocked(signal.SIGINT, signal.SIGTERM):
        forkserver.ensure_running()


def _end(pid: int | None) -> None:
    """Kill a worker that may have lost its server, and wait for its end, before its trial is queued again."""
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "pidfd_open"):  # Linux: it is no child of ours, which the system would tell us about
            process = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            wait([process])
            os.close(process)
        else:
            os.kill(pid, signal.SIGKILL)


def ending(exitcode: int | None) -> str:
    """How a worker ended, for people."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory, or kill -9)" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{hint}"
    return f"its worker ended with exit code {exitcode}"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _blocked(*signums: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
