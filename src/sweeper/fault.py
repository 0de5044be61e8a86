"""Faults of disks and servers, told in one line: no input was wrong, and a search can go on later."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import BadInput
from sweeper.secret import hide_secrets

_NO_LOCKS = "mount that disk with locks (NFS without nolock, Lustre with flock)"

_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EFBIG: "raise the limit (ulimit -f), or take another disk",
    errno.EROFS: "mount that disk so that it can be written to",
    errno.EIO: "check that disk and its cables (dmesg)",
    errno.EMFILE: "raise the limit (ulimit -n), or take fewer workers",
    errno.ENFILE: "close other programs: the whole machine has too many files open",
    errno.ESTALE: "mount that disk again",
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOTSUP: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.ENOENT: "it was removed: put it back, or start another study",
    errno.EACCES: "run it where you may write, or set hydra.run.dir or hydra.sweep.dir",
    errno.EPERM: "run it where you may write, or set hydra.run.dir or hydra.sweep.dir",
    errno.ENOTDIR: "move the file that is in the place of a folder",
    errno.EISDIR: "move the folder that is in the place of a file",
}
_OF_A_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),
    *([errno.EREMOTEIO] if hasattr(errno, "EREMOTEIO") else []),  # not on macOS
}
"""What says that a disk or the system is at fault, whoever raised it."""


class Fault(Exception):
    """A disk or a server failed outside of a task. Shown as one line without a traceback; exit code 1.

    Args:
        place: what failed: a path, or the setting that names the storage.
        reason: how.
        remedy: what to do before the command is repeated.
    """

    exit_code = 1

    def __init__(self, place: object, reason: str, remedy: str) -> None:
        super().__init__(place, reason, remedy)
        self.place, self.reason, self.remedy = place, reason, remedy

    def __str__(self) -> str:
        return hide_secrets(" ".join(f"{self.place}: {self.reason}; {self.remedy}".split()))


class FaultElsewhere(Fault):
    """A fault that another process met, in its own words."""

    def __init__(self, told: str) -> None:
        super().__init__(told, "", "")

    def __str__(self) -> str:
        return str(self.place)


def of_disk(error: OSError, place: object) -> Fault:
    """What the system said about a file, with a remedy."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return Fault(place, reason, _REMEDIES.get(error.errno or 0, "fix that"))


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """A stretch that reads or writes ``path``, or what is below it.

    Raises:
        Fault: for any ``OSError`` in it.
    """
    try:
        yield
    except OSError as error:
        raise of_disk(error, error.filename or path) from error


def find_fault(error: BaseException | None) -> Fault | None:
    """The fault that an exception is, or was raised for; None where no disk or server is to blame."""
    while error is not None:
        if isinstance(error, Fault):
            return error
        if isinstance(error, OSError) and error.errno in _OF_A_DISK:
            return of_disk(error, error.filename or "a file")
        error = error.__cause__ or error.__context__
    return None


def find_told(error: BaseException | None) -> BadInput | Fault | None:
    """What can be told in one line of an exception, and ends the program with its exit code."""
    return error if isinstance(error, BadInput) else find_fault(error)
