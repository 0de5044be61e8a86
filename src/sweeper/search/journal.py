"""A study in a file: Optuna's journal, which survives kill -9."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation

from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import is_refused, locked
from sweeper.search.storage_error import key

log = logging.getLogger(__name__)

_DURABLE = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.DELETE_STUDY,
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_STATE_VALUES,
)
"""What a power cut must not take back: that a study or a trial is there, and how the trial ended."""


_BEGIN = b'{"op_code"'
"""Of each journal."""
_NO_JOURNAL = "it is not an Optuna journal"


def open_journal(path: Path) -> BaseStorage:
    """Raises ValueError for what is none."""
    _check_begin(path)
    try:
        return JournalStorage(JournalBackend(path))
    except (AssertionError, LookupError, TypeError, AttributeError) as error:  # Optuna's, for other records
        raise ValueError(f"{_NO_JOURNAL}, or one of another version") from error


def _check_begin(path: Path) -> None:
    """Raises ValueError for a file of somebody else, which would be taken for a torn line, and cut off."""
    if path.is_dir() or not path.exists():  # which say so themselves
        return
    if not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        begin = file.read(len(_BEGIN))
    if begin != _BEGIN[: len(begin)]:
        raise ValueError(_NO_JOURNAL)


class JournalBackend(BaseJournalBackend):
    """A journal file in Optuna's format, read by Optuna's own backend and appended to under our lock.

    In reading, the file is opened each time, also to see that nothing was appended: on NFS only that asks the
    server how long it is; what ``stat`` says may be a minute old.

    Three things differ in writing. A torn last line (killed or out of disk while writing) is cut off first:
    otherwise the next record is glued to the half line and the study cannot be read any more. The kernel
    frees the lock of a killed process, where Optuna's lock file stalls everybody for 30 s. And only what
    begins or ends a study or a trial waits for the disk. All else (parameters, attributes, reported values)
    survives any kill too, because the kernel has it; only a power cut takes the latest of it, and the next
    line that waits for the disk takes all lines before it along.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = JournalFileBackend(str(path))

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        # Optuna asks some thirty times a trial, and mostly nothing was appended meanwhile.
        if self._reader._log_number_offset.get(log_number_from) == self._size():
            return []
        try:
            return list(self._reader.read_logs(log_number_from))
        except ValueError as error:
            n_line = len(self._reader._log_number_offset)
            if n_line == 1:
                raise ValueError(_NO_JOURNAL) from error
            remedy = "remove that line, or restore an intact copy"
            raise Fault(self._path, f"line {n_line} cannot be read", remedy) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with (
            locked(lock_of(self._path)),
            os.fdopen(os.open(self._path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file,
        ):
            self._check_whole(file.fileno())
            _cut_torn_tail(file)
            while lines:  # what was not written is tried again, and then raises the reason
                lines = lines[file.write(lines) :]
            if any(log.get("op_code") in _DURABLE for log in logs):
                os.fsync(file.fileno())

    def _size(self) -> int:
        file = os.open(self._path, os.O_RDONLY)
        try:
            self._check_whole(file)
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def _check_whole(self, file: int) -> None:
        """Raises Fault where what this process has read is gone: it would write on in another history."""
        offsets = self._reader._log_number_offset
        read_until = offsets[len(offsets) - 1]
        if read_until and os.pread(file, 1, read_until - 1) != b"\n":
            remedy = "restore an intact copy, or go on with what is left"
            raise Fault(self._path, "it was cut off while it was used", remedy)


def lock_of(journal: Path) -> Path:
    """The file whose lock is held by whoever appends to a journal."""
    return journal.with_name(journal.name + ".flock")


def _cut_torn_tail(file: FileIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    whole = file.readall()
    file.truncate(whole.rfind(b"\n") + 1)
    os.fsync(file.fileno())


def check_lock(journal: Path) -> None:
    """Make the folder of a journal. Raises BadInput where nobody could append alone; nothing is left then."""
    _check_begin(journal)
    lock, had_folder, had_journal = lock_of(journal), journal.parent.exists(), journal.exists()
    journal.parent.mkdir(parents=True, exist_ok=True)
    if had_journal and not os.access(journal, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(journal))
    try:
        with locked(lock):
            pass
    except Fault as fault:
        if not is_refused(error := fault.__cause__):
            raise error or fault from None
        if not had_journal:
            lock.unlink(missing_ok=True)
        if not had_folder:
            journal.parent.rmdir()
        remedy = f"{fault.remedy}, or write postgresql+psycopg://…"
        raise BadInput(key(), journal, f"the file system refuses locks ({fault.reason})", remedy) from fault
