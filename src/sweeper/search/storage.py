"""Where studies are kept: a URL becomes an Optuna storage. The default journal survives kill -9."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from sweeper.errors import BadInput
from sweeper.lock import locked


class JournalBackend(BaseJournalBackend):
    """A journal file in Optuna's format, read by Optuna's own backend and appended to under our lock.

    Two things differ in writing. A torn last line (killed or out of disk while writing) is cut off first:
    otherwise the next record is glued to the half line and the study cannot be read any more. And the
    kernel frees the lock of a killed process, where Optuna's lock file stalls everybody for 30 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = JournalFileBackend(str(path))

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._reader.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with locked(self._path.with_name(self._path.name + ".flock")):
            _cut_torn_tail(self._path)
            with self._path.open("ab", buffering=0) as file:
                if file.write(lines.encode()) < len(lines.encode()):
                    raise OSError(f"no space left to write {self._path}")
                os.fsync(file.fileno())


def _cut_torn_tail(path: Path) -> None:
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read()
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
