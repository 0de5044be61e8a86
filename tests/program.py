"""Programs as a person starts them: processes of their own, waited for with a limit, and ended whole."""

from __future__ import annotations

import atexit
import fcntl
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import warm

Program = subprocess.Popen[str]
Done = subprocess.CompletedProcess[str]

IN_PROCESS = ("hydra.sweeper.n_jobs=1", "hydra.sweeper.in_process=true")
"""A search without worker processes."""


LIMIT_S = 90.0
"""How long a program may take that should take a second or two: a machine may be busy."""


def start(folder: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Program:
    """``python ARGUMENTS`` in a folder, in a process group of its own, as a terminal does.

    Args:
        env: changes of this process's environment; an empty text removes the variable.
    """
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={name: value for name, value in {**os.environ, **(env or {})}.items() if value},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: Program, limit_s: float = LIMIT_S, stdin: str | None = None) -> Done:
    """Wait for the end of a program, and kill all of it if it does not end."""
    try:
        stdout, stderr = process.communicate(stdin, timeout=limit_s)
    except subprocess.TimeoutExpired:
        kill_group(process)
        stdout, stderr = process.communicate()
        raise AssertionError(f"it did not end in {limit_s} s:\n{stdout}\n{stderr}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run(
    folder: Path,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
    stdin: str | None = None,
) -> Done:
    """``python ARGUMENTS`` to its end; nothing of it is left when it takes too long."""
    return finish(start(folder, *arguments, env=env), limit_s, stdin)


_warm: list[warm.Sweeper] = []
"""The one of this process, once it was needed."""


def sweeper(folder: Path, *arguments: str, code: int = 0) -> str:
    """``python -m sweeper ARGUMENTS`` in a folder; gives what it printed.

    One thread: on a machine that does other things too, two that wait for each other take far longer.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        if not _warm or not _warm[0].is_alive:
            _warm[:] = [warm.Sweeper()]
            atexit.register(_warm[0].end)
        done = _warm[0].run(folder, *arguments, env=env, limit_s=280)
    else:
        done = run(folder, "-m", "sweeper", *arguments, env=env, limit_s=280)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def start_holding(code: str, *arguments: object) -> Program:
    """A Python process that has printed "ready": it holds what the code takes, until it may go on."""
    process = start(Path.cwd(), "-c", code, *arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", finish(process).stderr
    return process


def go_on(process: Program) -> None:
    """Let a process that waits in ``input()`` go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: Program) -> None:
    """Let a process that waits in ``input()`` go on to its end."""
    done = finish(process, stdin="\n")
    assert done.returncode == 0, done.stderr


def kill_group(process: Program, signum: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a program and all its children."""
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        assert process.poll() is not None


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Wait for the thing itself, with a limit."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process is there and no mere zombie."""
    try:
        return _status(pid)[0] != "Z"
    except OSError:
        return False


def parent_pid(pid: int) -> int:
    """The process that a process was forked from."""
    return int(_status(pid)[1])


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class Terminal:
    """``python ARGUMENTS`` on a terminal of so many columns.

    Its process group is its own, and everything that it printed is kept.
    """

    def __init__(
        self, folder: Path, *arguments: object, columns: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._screen, keyboard = pty.openpty()
        fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env={**inherited, "OMP_NUM_THREADS": "1", "TERM": "xterm", **(environment or {})},
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            text=True,
            start_new_session=True,
        )
        os.close(keyboard)
        self._printed = b""

    def lines(self) -> list[str]:
        """What was printed so far, also what was painted over since, without colours."""
        while select.select([self._screen], [], [], 0)[0] and (piece := self._read()):
            self._printed += piece
        return re.split(
            r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._printed.decode(errors="ignore"))
        )  # a character may be half read

    def finish(self, limit_s: float = LIMIT_S) -> list[str]:
        """Wait for the end, and give all that was printed; kill all of it if it does not end."""
        limit = time.monotonic() + limit_s
        try:
            while self.process.poll() is None:
                lines = self.lines()
                assert time.monotonic() < limit, "\n".join(lines)
                select.select([self._screen], [], [], 0.1)
            return self.lines()
        finally:
            kill_group(self.process)
            self.process.wait()
            os.close(self._screen)

    def type(self, keys: str) -> None:
        """Press these keys; a program that has made it its controlling terminal gets signals by it."""
        os.write(self._screen, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal, as its window or ssh does."""
        os.close(self._screen)
        kill_group(self.process, signal.SIGHUP)  # the system tells only a terminal's own session

    def _read(self) -> bytes:
        try:
            return os.read(self._screen, 65536)
        except OSError:  # nobody has the other end any more
            return b""


@contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """The address of a running ``python -m sweeper dashboard`` on the studies of a folder."""
    port = free_port()
    server = start(folder, "-m", "sweeper", "dashboard", "--port", port)
    try:
        until(lambda: listens(port) or server.poll() is not None, limit_s=60)
        assert server.poll() is None, finish(server).stderr
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_group(server, signal.SIGTERM)
        finish(server)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has; none of those that the system gives to who asks for any.

    Those may be another program's by the time a server begins to listen, or while it is away.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether somebody answers at a port of 127.0.0.1."""
    with socket.socket() as visitor:
        return visitor.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def somebody() -> Iterator[None]:
    """As a user whom permissions hold back: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
