"""File locks that the kernel lets go of when their process dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path

from sweeper.fault import Fault, disk


def _open_and_lock(path: Path, lock: Callable[[int], object], mode: int = 0o666) -> int:
    """Open a file, create it where there is none, and lock it; its descriptor is the caller's to close.

    Whoever waits for a lock may get that of a file which was removed meanwhile, and which no one else would
    ever find locked: then the one that is there now is locked instead.
    """
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, mode)
        try:
            lock(file)
            if _is_there(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_there(file: int, path: Path) -> bool:
    """Whether an open file still has its path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))  # noqa: PTH116  # for each file of each trial
    except FileNotFoundError:
        return False


def _wait(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_EX)


def _do_not_wait(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``, waiting for it; threads and processes of one machine exclude each other.

    Raises:
        Fault: if the disk fails.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open_and_lock(path, _wait)
    with _unlocked_at_end(file):
        yield


_REFUSALS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems say that have no locks, as some shared ones are mounted."""


@contextmanager
def locked_here(path: Path) -> Iterator[None]:
    """As ``locked``; where the file system refuses locks, processes of this machine exclude each other.

    Raises:
        Fault: if the disk fails.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except Fault as fault:
            if not is_refusal(fault.__cause__):
                raise
            stack.enter_context(locked(of_machine(str(path))))
        yield


def is_refusal(error: BaseException | None) -> bool:
    """Whether a file system says that it has no locks."""
    return isinstance(error, OSError) and error.errno in _REFUSALS


def of_machine(key: str) -> Path:
    """A file to lock that is this machine's own, for what each machine does once."""
    return Path(tempfile.gettempdir(), f"sweeper-{os.getuid()}-{sha256(key.encode()).hexdigest()[:16]}.lock")


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock of ``path`` if nobody has it; whether that is so.

    Raises:
        Fault: if the disk fails.
    """
    with disk(path):
        try:
            file: int | None = _open_and_lock(path, _do_not_wait)
        except BlockingIOError:
            file = None
    with nullcontext() if file is None else _unlocked_at_end(file):
        yield file is not None


@contextmanager
def _unlocked_at_end(file: int) -> Iterator[None]:
    """Closing alone would not do where a child was forked meanwhile: it has the file too."""
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


@contextmanager
def open_locked(path: Path, mode: int) -> Iterator[None]:
    """Create a file, and hold its lock."""
    with _unlocked_at_end(_open_and_lock(path, _wait, mode)):
        yield


def remove_unlocked(path: Path) -> None:
    """Remove a file whose lock nobody holds; only a process that is gone can have left it."""
    with suppress(OSError), path.open("r+b") as file:
        _do_not_wait(file.fileno())
        if _is_there(file.fileno(), path):
            path.unlink()


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of ``path``; it is neither waited for nor created."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Heartbeat:
    """Shows other processes that this one is alive, for as long as it is.

    A record lock is used because children that a worker forks do not inherit it, so none of them
    keeps a dead worker looking alive. It also survives process numbers being used again.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._path = _life_path(folder, worker)
        with disk(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A record lock; `forget_the_dead` may remove the file before it is held.
            self._file = _open_and_lock(self._path, lambda file: fcntl.lockf(file, fcntl.LOCK_EX))

    def end(self) -> None:
        with disk(self._path):
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_alive(folder: Path, worker: str) -> bool:
    """Whether the worker of that name still holds its heartbeat in ``folder``. Never ask about yourself.

    Raises:
        Fault: if the disk fails, which says nothing about the worker.
    """
    path = _life_path(folder, worker)
    try:
        with disk(path):
            file = os.open(path, os.O_RDONLY)
    except Fault as fault:
        if isinstance(fault.__cause__, PermissionError):
            return True  # another user's, and nobody can tell
        if isinstance(fault.__cause__, FileNotFoundError | NotADirectoryError):
            return False
        raise
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def forget(folder: Path, worker: str) -> None:
    """Remove what a dead worker left of its heartbeat."""
    path = _life_path(folder, worker)
    with disk(path):
        path.unlink(missing_ok=True)


def forget_the_dead(folder: Path, kept: Collection[str] = ()) -> None:
    """Remove what all dead workers left of their heartbeats, but for those that are ``kept``."""
    for path in folder.glob(f"*{_ALIVE}"):
        if path.name.removesuffix(_ALIVE) not in kept:
            with suppress(OSError), path.open("r+b") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)  # while it is held: nobody can begin to hold it meanwhile


_ALIVE = ".alive"


def living(folder: Path) -> list[str]:
    """The workers that hold their heartbeat in ``folder``. Not for a process that may be one of them."""
    names = [path.name.removesuffix(_ALIVE) for path in folder.glob(f"*{_ALIVE}")]
    return [name for name in names if is_alive(folder, name)]


def _life_path(folder: Path, worker: str) -> Path:
    return folder / f"{worker}{_ALIVE}"
