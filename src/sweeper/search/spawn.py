"""Workers that begin as a new Python, where this process must not be forked: they read a pickle."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from io import BytesIO
from multiprocessing import process as mp_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any

import cloudpickle

from sweeper.errors import BadInput
from sweeper.search.process import Body, blocked, die_with, for_the_pool, name_prefix


class SpawnedProcess(SpawnProcess):
    """A worker that began as a new Python."""

    index: int
    n_told = 0

    def is_named(self, name: str) -> bool:
        return name.startswith(name_prefix(self.pid))


class SpawningCrew:
    """New processes, each of which reads a pickle.

    Raises:
        BadInput: where the app cannot be sent to them.
    """

    def __init__(self, body: Body, reason: str) -> None:
        _check_guard(reason)
        # A pipe would hold us up until the worker has imported the script, for ever if it cannot.
        pickled = _pickled(body, reason)
        self._folder = TemporaryDirectory(prefix="sweeper-")
        self._path = Path(self._folder.name, "app.pickle")
        self._path.write_bytes(pickled)

    def start(self, orders: Any, index: int, environment: Mapping[str, str]) -> SpawnedProcess:
        method = multiprocessing.get_start_method(allow_none=True)
        arguments = (self._path, orders, index, dict(environment), os.getpid(), method)
        process = SpawnedProcess(target=_spawned, args=arguments, name=f"worker-{index}")
        process.index = index
        with _environment(environment), blocked(*for_the_pool()):  # what is imported there reads it
            process.start()
        return process

    def close(self) -> None:
        """Remove the pickle; nothing serves the workers, and the pool has ended them."""
        self._folder.cleanup()


def _check_guard(reason: str) -> None:
    """A spawned worker imports the app's script. One that never asks for its name would begin all again.

    Raises:
        BadInput: for such a script.
    """
    script = _script()
    if script is not None and "__name__" not in script.read_text(encoding="utf-8", errors="replace"):
        remedy = "write if __name__ == '__main__': before the call that begins it"
        raise _cannot_be_sent(reason, f"{script.name} would start the search again in each worker", remedy)


def _script() -> Path | None:
    """The file of the app's script, which a spawned process imports."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file) if file is not None and Path(file).is_file() else None


def _cannot_be_sent(reason: str, why: str, remedy: str) -> BadInput:
    return BadInput(
        "hydra.sweeper.in_process",
        "false",
        f"{why}; workers must be spawned, as {reason}",
        f"{remedy}, or write hydra.sweeper.n_jobs=1 hydra.sweeper.in_process=true",
    )


# ------------------------------------------------------------------------------------------------ pickles


def _pickled(body: Body, reason: str) -> bytes:
    stream = BytesIO()
    try:
        _Pickler(stream).dump(body)
    except Exception as error:  # pickling calls the app's own classes
        why = f"the app cannot be sent to its workers ({type(error).__name__}: {error})"
        remedy = "move that into a module that the script imports, or into the task function"
        raise _cannot_be_sent(reason, why, remedy) from error
    return stream.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
    """Names what stands in the script, which the worker imports; only where that cannot be, it goes by value.

    A copy by value would be another class than the worker's own of that name, and its pickles would fail.
    """

    def reducer_override(self, value: Any) -> Any:
        if (
            isinstance(value, FunctionType | type)
            and value.__module__ == "__main__"
            and _script() is not None
        ):
            with contextlib.suppress(AttributeError):
                found, depth = reduce(getattr, value.__qualname__.split("."), sys.modules["__main__"]), 0
                while found is not value:  # hydra.main wraps the task
                    found, depth = found.__wrapped__, depth + 1
                return _find, (value.__qualname__, depth)
        return super().reducer_override(value)


def _find(qualified_name: str, depth: int) -> Any:
    """What has that name in the script, so many decorators below."""
    found: Any = reduce(getattr, qualified_name.split("."), sys.modules["__main__"])
    return reduce(lambda wrapper, _: wrapper.__wrapped__, range(depth), found)


def _spawned(
    path: Path, orders: Any, index: int, environment: Mapping[str, str], command: int, method: str | None
) -> None:
    """The beginning of a spawned worker."""
    if sys.platform == "linux":
        die_with(command)
    else:
        threading.Thread(target=_watch_parent, args=(mp_process.parent_process(),), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, for_the_pool())
    body = cloudpickle.loads(path.read_bytes())
    # As in a process that was started by hand.
    multiprocessing.set_start_method(method, force=True)
    mp_process._parent_process = None  # type: ignore[attr-defined]
    mp_process.current_process().name = "MainProcess"
    body(orders, index, environment)


def _watch_parent(parent: Any) -> None:
    """Other systems do not kill a process with its parent."""
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
