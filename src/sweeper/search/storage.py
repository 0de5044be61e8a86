"""Where studies are kept: a URL becomes an Optuna storage. The default journal survives kill -9."""

from __future__ import annotations

import abc
import hashlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import (
    DuplicatedStudyError,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial

from sweeper.errors import BadInput
from sweeper.fault import Fault, find_fault, of_disk
from sweeper.lock import locked
from sweeper.secret import hide_secrets, remember_secrets

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a search tries again to reach a server."""
LOOK_WAIT_S = 5.0
"""The same for somebody who only looks."""

_RETRY_S = 1.0
_MAX_MET = 50

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
        try:
            return list(self._reader.read_logs(log_number_from))
        except ValueError as error:
            n_line = len(self._reader._log_number_offset)
            if n_line == 1:
                raise ValueError("it is not an Optuna journal") from error
            remedy = "remove that line, or restore an intact copy"
            raise Fault(self._path, f"line {n_line} cannot be read", remedy) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with (
            locked(self._path.with_name(self._path.name + ".flock")),
            os.fdopen(os.open(self._path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file,
        ):
            _cut_torn_tail(file)
            while lines:  # what was not written is tried again, and then raises the reason
                lines = lines[file.write(lines) :]
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


# ------------------------------------------------------------------------------------------------ patience


class StudyDeleted(Fault, KeyError):
    """What a search says in one line, and optuna-dashboard knows as Optuna's own error."""

    def __init__(self, url: str) -> None:
        super().__init__(_named(url), "the study was deleted meanwhile", "start another study")


class PatientStorage(BaseStorage):
    """A storage whose faults are one line each, and whose server is tried again while it cannot be reached.

    What Optuna itself raises (a parameter of another kind, a trial that has ended) passes.

    Raises:
        Fault: from every method, where the disk fails, the server stays away, or the study was deleted.
    """

    def __init__(self, storage: BaseStorage, url: str, wait_s: float) -> None:
        self._storage = storage
        self._url = url
        self.wait_s = wait_s
        """How long a server is tried again; may be changed at any time."""

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        waiting = _Waiting(self._url, self)
        while True:
            try:
                return _bound(self._storage, name)(*arguments, **named)
            except UpdateFinishedTrialError:
                if waiting.has_begun and name == "set_trial_state_values":
                    return True  # the server had done it when its answer was lost
                raise
            except DuplicatedStudyError:
                if waiting.has_begun:
                    return self._call("get_study_id_from_name", arguments[1])
                raise
            except KeyError as error:
                raise StudyDeleted(self._url) from error
            except Exception as error:
                if _is_away(error):
                    waiting.go_on(error)
                    _connect_again(self._storage)
                elif (fault := _fault_of(error, self._url)) is not None:
                    raise fault from error
                else:
                    raise

    def changed_trials(
        self, study_id: int, n_known: int, unfinished: Iterable[int]
    ) -> tuple[int, list[FrozenTrial]]:
        """As the function of that name."""
        found: tuple[int, list[FrozenTrial]] = self._call("changed_trials", study_id, n_known, unfinished)
        return found


def _bound(storage: BaseStorage, name: str) -> Callable[..., Any]:
    if name == "changed_trials":
        return partial(changed_trials, storage)
    method: Callable[..., Any] = getattr(storage, name)
    return method


def _method(name: str) -> Any:
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    return call


for _name in [name for name in vars(BaseStorage) if not name.startswith("_")]:
    setattr(PatientStorage, _name, _method(_name))
abc.update_abstractmethods(PatientStorage)  # type: ignore[type-abstract]


# -------------------------------------------------------------------------------------------------- reading


def changed_trials(
    storage: BaseStorage, study_id: int, n_known: int, unfinished: Iterable[int]
) -> tuple[int, list[FrozenTrial]]:
    """The trials of a study that may have changed, without going through all: Optuna's storages know them,
    but give only copies of the whole list.

    Args:
        n_known: how many trials the caller knows.
        unfinished: the numbers of those among them that had not ended.

    Returns:
        how many trials there are, and the unfinished and new ones; the latter by number.
    """
    match storage:
        case PatientStorage():
            return storage.changed_trials(study_id, n_known, unfinished)
        case JournalStorage():
            with storage._thread_lock:
                storage._sync_with_backend()
                replayed = storage._replay_result
                replayed.get_study(study_id)  # or it was deleted
                ids = replayed._study_id_to_trial_ids[study_id]
                numbers = chain(unfinished, range(n_known, len(ids)))
                return len(ids), [replayed._trials[ids[n]] for n in numbers if n < len(ids)]
        case InMemoryStorage():
            with storage._lock:
                storage._check_study_id(study_id)
                trials = storage._studies[study_id].trials
                numbers = chain(unfinished, range(n_known, len(trials)))
                return len(trials), [trials[n] for n in numbers if n < len(trials)]
        case _CachedStorage():
            storage._read_trials_from_remote_storage(study_id)
            with storage._lock:
                return _of_cache(storage._studies[study_id].trials, n_known, unfinished)
        case GrpcStorageProxy():
            with storage._cache.lock:
                storage._cache._read_trials_from_remote_storage(study_id)
                return _of_cache(storage._cache.studies[study_id].trials, n_known, unfinished)
        case _:
            trials = storage.get_all_trials(study_id, deepcopy=False)
            numbers = chain(unfinished, range(n_known, len(trials)))
            return len(trials), [trials[n] for n in numbers if n < len(trials)]


def _of_cache(
    trials: Mapping[int, FrozenTrial], n_known: int, unfinished: Iterable[int]
) -> tuple[int, list[FrozenTrial]]:
    """What a cache has of them. Another thread may just have begun a trial, before whose number some lack."""
    n_there = n_known if n_known - 1 in trials or not n_known else len(trials)
    while n_there in trials:
        n_there += 1
    numbers = chain(unfinished, range(n_known, n_there))
    return n_there, [trials[n] for n in numbers if n in trials]


class _Waiting:
    """Waits for a server that cannot be reached, says so once, and gives up in time."""

    def __init__(self, url: str, patience: Any) -> None:
        self._url, self._patience = url, patience
        self._began_s: float | None = None

    @property
    def has_begun(self) -> bool:
        return self._began_s is not None

    def go_on(self, error: Exception) -> None:
        """Wait a moment.

        Raises:
            Fault: when that was long enough.
        """
        wait_s, now = self._patience.wait_s, time.monotonic()
        if self._began_s is None:
            self._began_s = now
            if wait_s:
                what = f"{_named(self._url)} cannot be reached ({_reason(error)})"
                log.warning("%s: trying again for up to %.0f s", hide_secrets(what), wait_s)
        if now - self._began_s >= wait_s:
            waited = f", for {wait_s:.0f} s" if wait_s else ""
            raise Fault(
                _named(self._url),
                f"cannot be reached{waited} ({_reason(error)})",
                "start it, or check its address and the network",
            ) from error
        time.sleep(min(_RETRY_S, wait_s))


def _named(url: str) -> str:
    """The storage as a message names it: a file by itself, a server as it was set."""
    return f"hydra.sweeper.storage={url}" if "://" in url else url


def _connect_again(storage: BaseStorage) -> None:
    """gRPC tries a server that was away again after ever longer pauses; a new channel tries at once."""
    if isinstance(storage, GrpcStorageProxy):
        storage.close()
        storage.__setstate__(storage.__getstate__())


_NOT_A_MATTER_OF_TIME = re.compile(
    r"authentication|password|access denied|does not exist|unknown database|translate host name"
    r"|name or service|name resolution|nodename|no such host|disk|readonly|unable to open",
    re.IGNORECASE,
)
"""What servers and drivers say where waiting is no use."""


def _is_away(error: BaseException) -> bool:
    """Whether a server is not there, or too busy, and may be back in a while."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if (code := _grpc_code(error)) is not None:
        return code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")
    if _is_sqlalchemys(error, "PendingRollbackError"):
        return True  # Optuna asked again in the transaction that the server had broken off
    if _is_sqlalchemys(error, "DBAPIError"):
        if "sqlite3" in str(error):
            return "locked" in str(error)
        is_of_server = _is_sqlalchemys(error, "OperationalError", "InterfaceError")
        may_end = is_of_server and not _NOT_A_MATTER_OF_TIME.search(_reason(error))
        return may_end or bool(getattr(error, "connection_invalidated", False))
    return (
        isinstance(error, StorageInternalError) and error.__cause__ is not None and _is_away(error.__cause__)
    )


def _is_sqlalchemys(error: BaseException, *names: str) -> bool:
    """Whether it is one of SQLAlchemy's exceptions, without importing it: most studies are in a journal."""
    return any(kind.__module__ == "sqlalchemy.exc" and kind.__name__ in names for kind in type(error).__mro__)


def _grpc_code(error: BaseException) -> str | None:
    """The status of what gRPC raised, without importing gRPC."""
    if type(error).__module__.partition(".")[0] != "grpc":
        return None
    code = getattr(error, "code", lambda: None)()
    return getattr(code, "name", None)


def _fault_of(error: Exception, url: str) -> Fault | None:
    if isinstance(error, OSError):
        return of_disk(error, url)
    is_servers = isinstance(error, StorageInternalError) or _is_sqlalchemys(error, "SQLAlchemyError")
    if is_servers or _grpc_code(error) is not None:
        remedy = (
            "make room on the disk, or let it be written to"
            if "sqlite" in url
            else "see what the server says"
        )
        return Fault(_named(url), _reason(error), remedy)
    return find_fault(error)


def _reason(error: BaseException) -> str:
    """What the driver said, in one line."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    details = getattr(error, "details", None) if _grpc_code(error) is not None else None
    text = details() if callable(details) else str(getattr(error, "orig", None) or error)
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# ------------------------------------------------------------------------------------------------- opening


def file_of(url: str) -> Path | None:
    """The file that a storage is; None for a server, or the memory of a process."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///").partition("?")[0])
    return None if url == "memory" or "://" in url else Path(url)


def opening_lock(url: str) -> AbstractContextManager[None]:
    """Lets one process of this machine at a time create tables or a study in the storage."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return locked(Path(tempfile.gettempdir(), f"sweeper-{os.getuid()}-{name}.lock"))


def open_storage(url: str, wait_s: float = WAIT_S) -> BaseStorage:
    """Open the storage that ``url`` names, creating it where it does not exist.

    ``memory``, a path (a journal file), ``sqlite:///…``, ``postgresql+psycopg://…`` and the like, or
    ``grpc://host:port`` (``optuna.storages.run_grpc_proxy_server``).

    Args:
        wait_s: how long a server that cannot be reached is tried again, now and later.

    Raises:
        BadInput: if it cannot be opened.
        Fault: if its server stays away, or the disk fails.
    """
    remember_secrets(url)
    if url == "memory":
        return InMemoryStorage()
    return _patient(_patiently(partial(_create, url), url, wait_s), url, wait_s)


def look_into_storage(url: str, wait_s: float = LOOK_WAIT_S) -> BaseStorage:
    """The same storage for somebody who only looks: nothing is created.

    Raises:
        BadInput: if it cannot be opened, or there is none.
        Fault: as ``open_storage``.
    """
    remember_secrets(url)
    if url == "memory":
        raise _cannot_be_opened(url, "it is gone with the process whose memory it was")
    if (path := file_of(url)) is not None and not path.is_file():
        raise _cannot_be_opened(url, "there is no such file")
    return _patient(_patiently(partial(_find, url), url, wait_s), url, wait_s)


def _patient(storage: BaseStorage, url: str, wait_s: float) -> BaseStorage:
    return PatientStorage(storage, url, wait_s)  # type: ignore[abstract]  # its methods were made in a loop


class _Patience:
    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s


def _patiently(opening: Callable[[], BaseStorage], url: str, wait_s: float) -> BaseStorage:
    waiting, n_met = _Waiting(url, _Patience(wait_s)), 0
    while True:
        try:
            return opening()
        except Exception as error:  # a driver may raise anything here, and all of it is about the URL
            n_met += 1
            if _is_away(error):
                waiting.go_on(error)
            elif _has_met_another(error) and n_met < _MAX_MET:
                time.sleep(_RETRY_S / 10)
            elif (fault := find_fault(error)) is not None:
                raise fault from error
            else:
                raise _cannot_be_opened(url, _reason(error)) from error


def _has_met_another(error: Exception) -> bool:
    """Whether another process, of another machine, was creating the same tables."""
    said = re.search("already exists|duplicate|unique", str(error), re.IGNORECASE)
    return _is_sqlalchemys(error, "DBAPIError") and said is not None


def _create(url: str) -> BaseStorage:
    if url.startswith("grpc://"):
        return _grpc(url)
    with opening_lock(url):
        if (path := file_of(url)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if "://" in url:
            return _cached(RDBStorage(url, engine_kwargs=_engine(url)))
        return JournalStorage(JournalBackend(Path(url)))


def _find(url: str) -> BaseStorage:
    if url.startswith("grpc://"):
        return _grpc(url)
    if "://" in url:
        return _cached(RDBStorage(url, engine_kwargs=_engine(url), skip_table_creation=True))
    return JournalStorage(JournalBackend(Path(url)))


def _engine(url: str) -> dict[str, Any]:
    # A connection that the server has closed meanwhile is replaced before it is used.
    return {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}


def _cached(storage: RDBStorage) -> BaseStorage:
    return optuna.storages.get_storage(storage)  # as Optuna itself wraps it


def _grpc(url: str) -> BaseStorage:
    host, _, port = url.removeprefix("grpc://").partition(":")
    if not host or not 0 < (number := int(port or 13000)) < 1 << 16:
        raise ValueError("there is no such host or port")
    with warnings.catch_warnings():  # gRPC storages are still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = GrpcStorageProxy(host=host, port=number)
    storage.wait_server_ready(timeout=_RETRY_S)
    return storage


def _cannot_be_opened(url: str, reason: str) -> BadInput:
    return BadInput(
        "hydra.sweeper.storage",
        url,
        f"cannot be opened ({reason})",
        "write a path for a journal file, sqlite:///FILE, postgresql+psycopg://…, grpc://HOST:PORT or memory",
    )
