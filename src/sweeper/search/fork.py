"""Workers that are copies of the command's own process.

A worker is the process that the app's script would have been, so it is a copy of it: one server is forked
from the command before that has opened anything, imports what is slow, and forks the workers.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import IOBase
from multiprocessing import process as mp_process
from multiprocessing import util as mp_util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from sweeper.search.process import (
    LOST,
    Body,
    NotStarted,
    blocked,
    die_with,
    for_the_pool,
    name_prefix,
)

T = TypeVar("T")

_THROW_AWAY_S = 2.0
"""How long a fork that does nothing may take; one that hangs says that this process must not be forked."""


def why_not_fork() -> str | None:
    """What keeps this process from being forked safely, or None."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return "only Linux is known to survive that"
    if _uses_gpu():
        return "it uses a GPU"
    if _n_tasks() > 1 and not _survives_fork():
        return "a fork of it hangs"
    if (n_tasks := _n_tasks()) > 1:
        own = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return f"it has {n_tasks} threads ({', '.join(own) or 'those of a C library, such as OpenMP'})"
    return None


def _n_tasks() -> int:
    """The threads of this process, those of C libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def _uses_gpu() -> bool:
    opened = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
    return any(path.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/render")) for path in opened)


def _survives_fork() -> bool:
    """Fork a process that ends at once. OpenBLAS ends its threads at a fork, so count them afterwards."""
    pid = _fork()
    if pid == 0:
        os._exit(0)
    done = os.pidfd_open(pid)
    survives = bool(wait([done], timeout=_THROW_AWAY_S))
    if not survives:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(done)
    return survives


_files: WeakSet[Any] = WeakSet()
"""The app's open files, so far as they were found."""


def flush_files() -> None:
    """Write what the app's open files hold, as Python does at its end; a forked child would write it too.

    Of what was frozen (``gc.freeze``) only those are known that were found before.
    """
    for value in gc.get_objects():
        if issubclass(type(value), IOBase):  # by its type: some objects warn when asked for their class
            _files.add(value)
    for file in list(_files):
        with contextlib.suppress(Exception):
            if not file.closed and file.writable():
                file.flush()
    ctypes.CDLL(None).fflush(None)


def _fork() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child has the same text to write
    with warnings.catch_warnings():  # of threads: they are counted here
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@dataclass
class _Start:
    """Asks the server for a worker, which has this number from then on."""

    number: int
    orders: Any
    index: int
    environment: Mapping[str, str]


@dataclass
class _Signal:
    """Asks the server to signal a worker, which nobody else could without a race for its process number."""

    number: int
    signum: int


class ForkedProcess:
    """A worker that the server forks, as soon as it has imported what it should."""

    n_told = 0

    def __init__(self, crew: ForkingCrew, number: int, index: int) -> None:
        self.index = index
        self._crew, self._number = crew, number
        self._connection = crew.connection

    @property
    def sentinel(self) -> Connection[Any, Any]:
        return self._connection

    @property
    def exitcode(self) -> int | None:
        self._crew.listen()
        return self._crew.exitcodes.get(self._number)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def is_named(self, name: str) -> bool:
        return name.startswith(name_prefix(self._crew.pids.get(self._number)))

    def terminate(self) -> None:
        self._crew.signal(self._number, signal.SIGTERM)

    def kill(self) -> None:
        self._crew.signal(self._number, signal.SIGKILL)

    def join(self) -> None:
        while self.is_alive():
            wait([self._connection])


class ForkingCrew:
    """A server forked from this process, which forks the workers."""

    def __init__(self, body: Body, preload: Sequence[str], environment: Mapping[str, str]) -> None:
        self._body, self._preload, self._environment = body, preload, environment
        self.pids: dict[int, int] = {}
        """Process numbers of the workers that began, by the worker's number."""
        self.exitcodes: dict[int, int] = {}
        """Of the workers that ended, likewise."""
        self._running: set[int] = set()
        self._n_asked = 0
        self._listens = False
        """Whether the server has imported everything."""
        self.connection, self._pid = self._fork_server()

    def start(self, orders: Any, index: int, environment: Mapping[str, str]) -> ForkedProcess:
        self.listen()
        if self._pid is None:
            if (reason := why_not_fork()) is not None:
                raise NotStarted(f"the process that forks them was killed, and {reason}")
            self.connection, self._pid = self._fork_server()
        number, self._n_asked = self._n_asked, self._n_asked + 1
        self._running.add(number)
        self._send(_Start(number, orders, index, environment))
        return ForkedProcess(self, number, index)

    def listen(self) -> None:
        """Take in what the server has said. If it was killed, so are its workers."""
        try:
            while self._pid is not None and self.connection.poll():
                number, pid, exitcode = self.connection.recv()
                self._listens = True
                self.pids[number] = pid
                if exitcode is not None:
                    self._running.discard(number)
                    self.exitcodes[number] = exitcode
        except (EOFError, OSError):
            self._end_of_server()

    def signal(self, number: int, signum: int) -> None:
        if not self._listens:
            self.close()  # it still imports, and nothing runs that could be lost
        elif number in self._running:
            self._send(_Signal(number, signum))

    def close(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # the system then kills its workers
            self._end_of_server()

    def _send(self, message: _Start | _Signal) -> None:
        with contextlib.suppress(OSError):  # it was killed, which `listen` finds out
            self.connection.send(message)

    def _end_of_server(self) -> None:
        """Wait until the server and its workers are gone: only then may their trials be queued again."""
        assert self._pid is not None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._pid = None
        for number in self._running:
            if number in self.pids:
                _end(self.pids[number])
            self.exitcodes[number] = LOST
        self._running.clear()
        self._listens = False

    def _fork_server(self) -> tuple[Connection[Any, Any], int | None]:
        ours, theirs = multiprocessing.Pipe()
        flush_files()
        with blocked(*for_the_pool()):  # until the server ignores them
            command, pid = os.getpid(), _fork()
            if pid == 0:
                _run_and_exit(lambda: self._serve(ours, theirs, command))
        theirs.close()
        return ours, pid

    def _serve(self, ours: Connection[Any, Any], theirs: Connection[Any, Any], command: int) -> None:
        die_with(command)
        ours.close()
        handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in for_the_pool()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, for_the_pool())
        os.environ.update(self._environment)
        collects = gc.isenabled()
        gc.disable()  # an import makes objects that stay: looking for garbage takes a fifth of its time
        for name in self._preload:
            with contextlib.suppress(ImportError):  # the task will say so
                importlib.import_module(name)
        gc.freeze()  # what all workers share stays shared: a collection would write to it
        server, numbers, sentinels = os.getpid(), dict[int, int](), dict[int, int]()
        while True:
            ready = wait([theirs, *sentinels])
            for sentinel in [fd for fd in sentinels if fd in ready]:
                pid = sentinels.pop(sentinel)
                os.close(sentinel)
                exitcode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                theirs.send((numbers.pop(pid), pid, exitcode))
            if theirs not in ready:
                continue
            try:
                message = theirs.recv()
            except EOFError:  # the command ended
                return
            if isinstance(message, _Signal):
                for pid in [pid for pid, number in numbers.items() if number == message.number]:
                    os.kill(pid, message.signum)
                continue
            pid = _fork()
            if pid == 0:
                die_with(server)
                theirs.close()
                for sentinel in sentinels:
                    os.close(sentinel)
                for signum, handler in handlers.items():
                    signal.signal(signum, handler)
                if collects:
                    gc.enable()
                _as_a_main_process()
                _run_and_exit(partial(self._body, message.orders, message.index, message.environment))
            numbers[pid] = message.number
            sentinels[os.pidfd_open(pid)] = pid
            theirs.send((message.number, pid, None))


def _as_a_main_process() -> None:
    """Forget what the command would do at its exit, and the processes that are its children, not ours."""
    atexit._clear()
    atexit.register(logging.shutdown)
    atexit.register(mp_util._exit_function)  # type: ignore[attr-defined]
    mp_process._children.clear()  # type: ignore[attr-defined]
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]


def call_here(task: Callable[[T], Any], config: T) -> Any:
    """Call the task; a process that it forked, and that comes back from it, ends as it would by itself."""
    own = os.getpid()
    try:
        returned = task(config)
    except BaseException as error:
        if os.getpid() != own:
            _run_and_exit(partial(_throw, error))
        raise
    if os.getpid() != own:
        _run_and_exit(lambda: None)
    return returned


def _throw(error: BaseException) -> None:
    raise error


def _run_and_exit(function: Callable[[], None]) -> None:
    """Run to the end of this process, without going back into the app's own code, of which this is a copy."""
    exitcode = 1
    try:
        exitcode = _run(function)
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the app's threads, as Python does
        atexit._run_exitfuncs()
    finally:
        flush_files()
        os._exit(exitcode)


def _run(function: Callable[[], None]) -> int:
    """Call it, and give the exit code that Python would end with."""
    try:
        function()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(pid: int) -> None:
    """Kill a worker that may have lost its server, and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)  # it is no child of ours, which the system would tell us about
        os.kill(pid, signal.SIGKILL)
        wait([process])
        os.close(process)
