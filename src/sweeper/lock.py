"""File locks that the kernel lets go of when their process dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
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
    _lock(file, _EXCLUSIVE, waits=True)


def _do_not_wait(file: int) -> None:
    _lock(file, _EXCLUSIVE, waits=False)


_EXCLUSIVE, _SHARED, _NONE = (
    (fcntl.F_WRLCK, fcntl.LOCK_EX),
    (fcntl.F_RDLCK, fcntl.LOCK_SH),
    (fcntl.F_UNLCK, fcntl.LOCK_UN),
)


def _lock(file: int, kind: tuple[int, int], waits: bool) -> None:
    """Lock the whole of an open file, for this opening of it: until it is closed, by forked children, too.

    It is a lock of an "open file description" on all bytes. On one machine it does what flock does. On NFS
    both become locks of bytes at the server; but a machine that serves the folder itself sees those of its
    clients only as such, and its own flock would be another matter. Where the system has none, it is flock.

    Source: https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html and flock(2).
    """
    of_bytes, of_file = kind
    if _HAS_OFD:
        command = fcntl.F_OFD_SETLKW if waits else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(file, command, struct.pack("hhqqi4x", of_bytes, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return
    fcntl.flock(file, of_file | (0 if waits else fcntl.LOCK_NB))


_HAS_OFD = hasattr(fcntl, "F_OFD_SETLKW") and struct.calcsize("l") == 8
"""Linux, of which a process of 32 bits has another structure."""

_REFUSED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def is_refused(error: BaseException | None) -> bool:
    """Whether a file system has no locks, as NFS without its lock service, or Lustre without flock."""
    return isinstance(error, OSError) and error.errno in _REFUSED


_LOCAL = {
    "nfs": ("local_lock=all", "local_lock=flock", "local_lock=posix", "nolock"),
    "nfs4": ("local_lock=all", "local_lock=flock", "local_lock=posix", "nolock"),
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    "fuse.sshfs": ("",),
}
"""With which of their options file systems of several machines keep locks to one; with "" always."""


def why_locks_are_local(path: Path, mounts: str = "/proc/self/mountinfo") -> str | None:
    """Why a lock in this folder, or of this file, holds on this machine alone; None if that is not known.

    Source of the options: nfs(5), mount.lustre(8), mount.cifs(8); of the format: proc_pid_mountinfo(5).
    """
    try:
        lines = Path(mounts).read_text(errors="surrogateescape").splitlines()
    except OSError:  # not on macOS
        return None
    path, deepest, found = path.resolve(), Path(), None
    for line in lines:
        mount, _, source = line.partition(" - ")
        place = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount.split()[4]))
        if path.is_relative_to(place) and len(place.parts) >= len(deepest.parts):
            kind, _, options = source.split(" ", 2)
            words = {"", *mount.split()[5].split(","), *options.split(",")}
            deepest = place
            found = next(((kind, word) for word in _LOCAL.get(kind, ()) if word in words), None)
    if found is None:
        return None
    return f"{deepest} is {found[0]}{' with ' * bool(found[1])}{found[1]}: its locks hold on one machine only"


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
            if not is_refused(fault.__cause__):
                raise
            stack.enter_context(locked_on_machine(str(path)))
        yield


@contextmanager
def locked_on_machine(key: str) -> Iterator[None]:
    """As ``locked``, by a file of the machine's own that is gone afterwards: for what each machine does once.

    Raises:
        Fault: if the disk fails.
    """
    digest = sha256(key.encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"sweeper-{os.getuid()}-{digest}.lock")
    try:
        with locked(path):
            yield
    finally:
        remove_unlocked(path)


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
        _lock(file, _NONE, waits=False)
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
            _lock(file.fileno(), _SHARED, waits=False)
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
    """Remove what dead workers of this host left of their heartbeats, but for those that are ``kept``.

    In a folder that several hosts share, locks may be seen by the host alone that holds them.
    """
    for path in folder.glob(f"*{socket.gethostname()}-*{_ALIVE}"):
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
