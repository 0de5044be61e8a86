"""File locks that the kernel lets go of when their process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``, waiting for it; threads and processes of one machine exclude each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing would not do where a child was forked meanwhile: it has the file too
            fcntl.flock(file, fcntl.LOCK_UN)


class Heartbeat:
    """Shows other processes that this one is alive, for as long as it is.

    A record lock is used because children that a worker forks do not inherit it, so none of them
    keeps a dead worker looking alive. It also survives process numbers being used again.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._path = _life_path(folder, worker)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self._path.open("ab")
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


def is_alive(folder: Path, worker: str) -> bool:
    """Whether the worker of that name still holds its heartbeat in ``folder``. Never ask about yourself."""
    try:
        file = os.open(_life_path(folder, worker), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def forget(folder: Path, worker: str) -> None:
    """Remove what a dead worker left of its heartbeat."""
    _life_path(folder, worker).unlink(missing_ok=True)


def _life_path(folder: Path, worker: str) -> Path:
    return folder / f"{worker}.alive"
