"""Workers that begin as a new Python, where this process must not be forked: they read a pickle."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import process as mp_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cloudpickle

from sweeper.search.process import FOR_THE_POOL, Body, NotStarted, blocked, die_with, name_prefix


class SpawnedProcess(SpawnProcess):
    """A worker that began as a new Python."""

    index: int
    n_told = 0

    def is_named(self, name: str) -> bool:
        return name.startswith(name_prefix(self.pid))


class SpawningCrew:
    """New processes, each of which reads a pickle."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._folder = TemporaryDirectory(prefix="sweeper-")
        self._n_started = 0

    def start(self, orders: Any, index: int, environment: Mapping[str, str]) -> SpawnedProcess:
        _check_guard()
        # A pipe would hold us up until the worker has imported the script, for ever if it cannot.
        path = Path(self._folder.name, f"{self._n_started}.pickle")
        path.write_bytes(self._pickled((self._body, orders)))
        self._n_started += 1
        arguments = (path, index, dict(environment), os.getpid())
        process = SpawnedProcess(target=_spawned, args=arguments, name=f"worker-{index}")
        process.index = index
        with _environment(environment), blocked(*FOR_THE_POOL):  # what is imported there reads it
            process.start()
        return process

    def close(self) -> None:
        """Remove the pickles; nothing serves the workers, and the pool has ended them."""
        self._folder.cleanup()

    def _pickled(self, content: Any) -> bytes:
        try:
            return bytes(cloudpickle.dumps(content))
        except Exception as error:  # pickling calls the app's own classes
            raise NotStarted(
                f"the app cannot be sent to them ({type(error).__name__}: {error}); "
                "move what cannot be pickled into a module that the script imports, or into the task function"
            ) from error


def _check_guard() -> None:
    """A spawned worker imports the app's script. One that never asks for its name would begin all again.

    Raises:
        NotStarted: for such a script.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    source = Path(script) if script is not None else None
    if source is None or not source.is_file() or "__name__" in source.read_text(errors="replace"):
        return
    raise NotStarted(
        f"{source.name} would begin the search again in each; write if __name__ == '__main__': before the "
        "call that begins it"
    )


def _spawned(pickle: Path, index: int, environment: Mapping[str, str], command: int) -> None:
    """The beginning of a spawned worker."""
    if sys.platform == "linux":
        die_with(command)
    else:
        threading.Thread(target=_watch_parent, daemon=True, name="parent watch").start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_POOL)
    body, orders = cloudpickle.loads(pickle.read_bytes())
    body(orders, index, environment)


def _watch_parent() -> None:
    """Other systems do not kill a process with its parent."""
    parent = mp_process.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


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
