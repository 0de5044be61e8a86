"""``python -m sweeper`` without the three seconds in which a new process imports torch and its compiler.

A process that has imported them, and has done nothing else, forks one for each command: that has its own
session, folder, environment, arguments and output, and begins where ``python -m sweeper`` does. What a start
itself promises (what it imports, how fast it is, how it ends at Ctrl-C) is tried with ``program.run``.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = ("hydra", "optuna", "sweeper.run", "sweeper.search.pool")
"""Besides what the trials of a search find imported."""
_MOST_BYTES = 2**17
"""Of a message."""


class Sweeper:
    """Runs one command after the other."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(
        self, folder: Path, *arguments: str, env: Mapping[str, str], limit_s: float
    ) -> subprocess.CompletedProcess[str]:
        """``python -m sweeper ARGUMENTS`` in a folder, to its end."""
        words = json.dumps({"folder": str(folder), "arguments": arguments, "env": dict(env)}).encode()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                self._socket.settimeout(60)
                socket.send_fds(self._socket, [words], [out.fileno(), err.fileno()])
                pid = int(self._socket.recv(_MOST_BYTES))
                self._socket.settimeout(limit_s)
                try:
                    code = int(self._socket.recv(_MOST_BYTES))
                except TimeoutError:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    raise AssertionError(f"it did not end in {limit_s} s: {arguments}") from None
            except BaseException:  # who knows what it does now
                self.end()
                raise
            printed = []
            for file in (out, err):
                file.seek(0)
                printed.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, code, *printed)

    def end(self) -> None:
        """It ends by itself when this process does."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _serve(caller: socket.socket) -> bool:
    """Fork a process for each command.

    Returns:
        whether this process is one of those; the other ends with its caller.
    """
    while True:
        words, fds, *_ = socket.recv_fds(caller, _MOST_BYTES, 2)
        if not words:
            return False
        out, err = fds
        pid = os.fork()
        if pid == 0:
            os.setsid()
            caller.close()
            for own, fd in ((out, 1), (err, 2)):
                os.dup2(own, fd)
                os.close(own)
            _take(**json.loads(words))
            return True
        os.close(out)
        os.close(err)
        caller.send(str(pid).encode())
        ended = os.pidfd_open(pid)
        if ended not in select.select([ended, caller.fileno()], [], [])[0]:  # the caller is gone
            os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what it has started
            return False
        os.close(ended)
        caller.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _take(folder: str, arguments: list[str], env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = arguments
    sys.orig_argv = [sys.executable, "-m", "sweeper", *arguments]
    sys.path[0] = folder


if __name__ == "__main__":
    from sweeper.run import PRELOAD

    for name in (*IMPORTED, *PRELOAD):
        importlib.import_module(name)
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        runpy.run_module("sweeper", run_name="__main__", alter_sys=True)
