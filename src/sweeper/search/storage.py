"""Where studies are kept: a URL becomes an Optuna storage. The default journal survives kill -9."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation

from sweeper.errors import BadInput
from sweeper.lock import locked

_DURABLE = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.DELETE_STUDY,
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_STATE_VALUES,
)
"""What a power cut must not take back: that a study or a trial is there, and how the trial ended."""


class JournalBackend(BaseJournalBackend):
    """A journal file in Optuna's format, read by Optuna's own backend and appended to under our lock.

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
        if self._reader._log_number_offset.get(log_number_from) == self._path.stat().st_size:
            return []
        return self._reader.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with (
            locked(self._path.with_name(self._path.name + ".flock")),
            os.fdopen(os.open(self._path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file,
        ):
            _cut_torn_tail(file)
            if file.write(lines) < len(lines):
                raise OSError(f"no space left to write {self._path}")
            if any(log.get("op_code") in _DURABLE for log in logs):
                os.fsync(file.fileno())


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


def open_storage(url: str) -> BaseStorage:
    """Open the storage that ``url`` names, creating it where it does not exist.

    ``memory``, a path (a journal file), ``sqlite:///…``, ``postgresql+psycopg://…`` and the like, or
    ``grpc://host:port`` (``optuna.storages.run_grpc_proxy_server``).

    Raises:
        BadInput: if it cannot be opened.
    """
    try:
        if url == "memory":
            return InMemoryStorage()
        if url.startswith("grpc://"):
            host, _, port = url.removeprefix("grpc://").partition(":")
            storage = optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
            storage.wait_server_ready(timeout=10)
            return storage
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        if "://" in url:
            kwargs = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            return RDBStorage(url, engine_kwargs=kwargs)
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalBackend(Path(url)))
    except Exception as error:  # a driver may raise anything here, and all of it is about the URL
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            "hydra.sweeper.storage",
            url,
            f"cannot be opened ({reason})",
            "write a path for a journal file, sqlite:///FILE, postgresql+psycopg://…, grpc://HOST:PORT "
            "or memory",
        ) from error
