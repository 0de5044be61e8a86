"""Where studies are kept: a URL becomes an Optuna storage. The default journal survives kill -9."""

from __future__ import annotations

import abc
import errno
import json
import logging
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path
from random import SystemRandom
from typing import Any

import optuna
from optuna.exceptions import (
    DuplicatedStudyError,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import BadInput
from sweeper.fault import Fault, find_fault, of_disk
from sweeper.lock import is_refused, locked, locked_on_machine, why_locks_are_local
from sweeper.secret import hide_secrets, remember_secrets

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a search tries again to reach a server."""
LOOK_WAIT_S = 5.0
"""The same for somebody who only looks."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
"""Between two attempts to reach a server: a thousand workers come back over this time, not at once."""
_READY_S = 1.0
"""How long one attempt waits for a gRPC proxy to answer."""
_MAX_MET, _MET_S = 50, 0.1

_DURABLE = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.DELETE_STUDY,
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_STATE_VALUES,
)
"""What a power cut must not take back: that a study or a trial is there, and how the trial ended."""


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


# ------------------------------------------------------------------------------------------------ patience


class StudyDeleted(Fault, KeyError):
    """What a search says in one line, and optuna-dashboard knows as Optuna's own error."""

    def __init__(self, url: str) -> None:
        super().__init__(_named(url), "the study was deleted meanwhile", "start another study")


class Away(Fault):
    """A server could not be reached for as long as one waited."""


class Unreachable(Away):
    """The same before anything began: as any other storage that cannot be opened."""

    exit_code = BadInput.exit_code


class Unwritable(Fault):
    """A storage that its user may not write, or a file of one that cannot be opened: it was the wrong one."""

    exit_code = BadInput.exit_code


class PatientStorage(BaseStorage):
    """A storage whose faults are one line each, and whose server is tried again while it cannot be reached.

    What Optuna itself raises (a parameter of another kind, a trial that has ended) passes. A server may have
    done what it was told when its answer was lost, so that all is done again in a way that does no harm:

    - Attributes, parameters and reported values are the same the second time.
    - A study is not created twice.
    - A trial that has ended just as it was told has been told; one that somebody else ended has not.
    - A trial may be created twice: who asked finds that it has one more than it knows, and gives it back.

    Raises:
        Fault: from every method, where the disk fails, the server stays away, or the study was deleted.
    """

    def __init__(self, storage: BaseStorage, url: str, wait_s: float) -> None:
        self._storage = storage
        self._url = url
        self.wait_s = wait_s
        """How long a server is tried again; may be changed at any time."""
        self._study_id = -1
        """That of the trials that were read or begun last."""

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        waiting, has_read = _Waiting(self._url, self), False
        if name in _OF_A_STUDY:
            self._study_id = arguments[0]
        while True:
            try:
                return _bound(self._storage, name)(*arguments, **named)
            except UpdateFinishedTrialError:
                if waiting.has_begun and name == "set_trial_state_values" and self._is_told(*arguments):
                    return True
                raise
            except DuplicatedStudyError:
                if waiting.has_begun:
                    return self._call("get_study_id_from_name", arguments[1])
                raise
            except KeyError as error:
                if waiting.has_begun and name == "delete_study":
                    return None
                if has_read or name != "set_trial_param":
                    raise StudyDeleted(self._url) from error
                # A proxy that was restarted knows no trial whose study nobody has read since.
                has_read = bool(self._call("get_all_trials", self._study_id, deepcopy=False))
            except Exception as error:
                if _is_away(error):
                    waiting.go_on(error)
                    _connect_again(self._storage)
                elif (fault := _fault_of(error, self._url)) is not None:
                    raise fault from error
                else:
                    raise

    def changed_trials(
        self, study_id: int, n_known: int, unfinished: Iterable[int], last_attribute: str | None = None
    ) -> tuple[int, list[FrozenTrial]]:
        """As the function of that name."""
        found: tuple[int, list[FrozenTrial]] = self._call(
            "changed_trials", study_id, n_known, unfinished, last_attribute
        )
        return found

    def _is_told(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Whether a trial has ended with this state and these values."""
        trial = self.get_trial(trial_id)
        return trial.state == state and (values is None or list(values) == trial.values)


def _bound(storage: BaseStorage, name: str) -> Callable[..., Any]:
    if name == "changed_trials":
        return partial(changed_trials, storage)
    method: Callable[..., Any] = getattr(storage, name)
    return method


_OF_A_STUDY = ("create_new_trial", "get_all_trials", "changed_trials")
"""What is asked with the number of a study."""


def _method(name: str) -> Any:
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    return call


for _name in [name for name in vars(BaseStorage) if not name.startswith("_")]:
    setattr(PatientStorage, _name, _method(_name))
abc.update_abstractmethods(PatientStorage)  # type: ignore[type-abstract]


# -------------------------------------------------------------------------------------------------- reading


def changed_trials(
    storage: BaseStorage,
    study_id: int,
    n_known: int,
    unfinished: Iterable[int],
    last_attribute: str | None = None,
) -> tuple[int, list[FrozenTrial]]:
    """The trials of a study that may have changed, without going through all: Optuna's storages know them,
    but give only copies of the whole list.

    Args:
        n_known: how many trials the caller knows.
        unfinished: the numbers of those among them that had not ended.
        last_attribute: the system attribute that a trial gets last when it begins to run. Where it is given,
            a database is not asked what trials have reported that have it, and still run.

    Returns:
        how many trials there are, and the unfinished and new ones; the latter by number.
    """
    if isinstance(storage, PatientStorage):
        return storage.changed_trials(study_id, n_known, unfinished, last_attribute)
    unfinished = list(unfinished)
    try:
        found = _changed_inside(storage, study_id, n_known, unfinished, last_attribute)
    except (AttributeError, ImportError):  # another Optuna than this was written for
        found = None
    if found is None:
        trials = storage.get_all_trials(study_id, deepcopy=False)
        found = (
            len(trials),
            [trials[n] for n in chain(unfinished, range(n_known, len(trials))) if n < len(trials)],
        )
    return found


def _changed_inside(
    storage: BaseStorage, study_id: int, n_known: int, unfinished: Iterable[int], last_attribute: str | None
) -> tuple[int, list[FrozenTrial]] | None:
    """The same from the private members of Optuna's storages; None for a storage of somebody else."""
    match storage:
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
            if last_attribute is None or not _read_ends(storage, study_id, last_attribute):
                storage._read_trials_from_remote_storage(study_id)
            with storage._lock:
                return _of_cache(storage._studies[study_id].trials, n_known, unfinished)
        case GrpcStorageProxy():
            with storage._cache.lock:
                unfinished = list(unfinished)
                if last_attribute is None or not _ask_ends(storage, study_id, unfinished, last_attribute):
                    storage._cache._read_trials_from_remote_storage(study_id)
                return _of_cache(storage._cache.studies[study_id].trials, n_known, unfinished)
    return None


def _read_ends(storage: _CachedStorage, study_id: int, last_attribute: str) -> bool:
    """Read the new trials of a database, and those whose state has changed, into Optuna's cache of it.

    Optuna's own reading asks for all that unfinished trials have, which takes most of the time of an ask
    where hundreds run.

    Returns:
        False where all must be read: at first, and when the study was deleted.
    """
    from sweeper.search.database import Database

    with storage._lock:
        if (study := storage._studies.get(study_id)) is None or not isinstance(storage._backend, Database):
            return False
        numbers = storage._trial_id_to_study_id_and_number
        cached = {i: study.trials[numbers[i][1]] for i in study.unfinished_trial_ids}
        until = max(study.last_finished_trial_id, max(cached, default=-1))
        known = {
            i: TrialState.WAITING if _is_beginning(trial, last_attribute) else trial.state
            for i, trial in cached.items()
        }
        trials = storage._backend.read_changed(study_id, known, until)
        if trials is None:
            return False
        storage._add_trials_to_cache(study_id, trials)
        for trial in trials:
            if trial.state.is_finished():
                study.unfinished_trial_ids.discard(trial._trial_id)
                study.last_finished_trial_id = max(study.last_finished_trial_id, trial._trial_id)
            else:
                study.unfinished_trial_ids.add(trial._trial_id)
    return True


def _ask_ends(
    storage: GrpcStorageProxy, study_id: int, unfinished: Iterable[int], last_attribute: str
) -> bool:
    """The same from ``sweeper serve``; False also where the proxy is Optuna's own, or a trial waits."""
    study = storage._cache.studies.get(study_id)
    if study is None or not isinstance(storage, _Proxy) or not storage.tells_ends:
        return False
    known = {t._trial_id: t for n in unfinished if (t := study.trials.get(n)) is not None}
    if known.keys() != study.unfinished_trial_ids:
        return False
    if any(t.state is not TrialState.RUNNING or _is_beginning(t, last_attribute) for t in known.values()):
        return False
    until = max(study.last_finished_trial_id, max(known, default=-1))
    for trial in storage.ends(study_id, list(known), until) or ():
        storage._cache._add_trial_to_cache(study_id, trial)
    return storage.tells_ends


def _is_beginning(trial: FrozenTrial, last_attribute: str) -> bool:
    """Whether a running trial was read before all was there that it begins with."""
    return trial.state is TrialState.RUNNING and last_attribute not in trial.system_attrs


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

    def __init__(self, url: str, patience: Any, kind: type[Away] = Away) -> None:
        self._url, self._patience, self._kind = url, patience, kind
        self._began_s: float | None = None
        self._n_pauses = 0

    @property
    def has_begun(self) -> bool:
        return self._began_s is not None

    def go_on(self, error: Exception) -> None:
        """Wait a moment.

        Raises:
            Away: when that was long enough.
        """
        wait_s, now = self._patience.wait_s, time.monotonic()
        if self._began_s is None:
            self._began_s = now
            if wait_s:
                what = f"{_named(self._url)} cannot be reached ({_reason(error)})"
                log.warning("%s: trying again for up to %.0f s", hide_secrets(what), wait_s)
        if now - self._began_s >= wait_s:
            waited = f", for {wait_s:.0f} s" if wait_s else ""
            raise self._kind(
                _named(self._url),
                f"cannot be reached{waited} ({_reason(error)})",
                _remedy(self._url, error) or "start it, or check its address and the network",
            ) from error
        self._pause(min(now + pause_s(self._n_pauses), self._began_s + wait_s))
        self._n_pauses += 1

    def _pause(self, end: float) -> None:
        """In short steps: a stop signal ends the patience."""
        while (left := end - time.monotonic()) > 0 and self._patience.wait_s:
            time.sleep(min(left, _FIRST_PAUSE_S))


def pause_s(n_pauses: int) -> float:
    """How long to wait for a server after so many pauses: anything up to a limit that doubles each time.

    Workers that have lost their server in one moment so come back one by one. Source: M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """
    # Not the global generator, which an app seeds alike in all of its processes.
    return _random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(n_pauses, 16)))


_random = SystemRandom()


def _named(url: str) -> str:
    """The storage as a message names it: a file by itself, a server as it was set."""
    return f"hydra.sweeper.storage={url}" if "://" in url else url


def _connect_again(storage: BaseStorage) -> None:
    """gRPC tries a server that was away again after ever longer pauses; a new channel tries at once."""
    if isinstance(storage, _Proxy):
        storage.connect_again()


_HOPELESS = re.compile(r"disk|readonly|no space|unable to open", re.IGNORECASE)
"""What servers and drivers say where waiting is no use."""

_WRONG = re.compile(
    _HOPELESS.pattern + r"|authentication|password|access denied|pg_hba|does not exist|unknown database"
    r"|translate host name|resolve|name or service|name resolution|nodename|no such host"
    r"|support SSL|SSL negotiation|no encryption|certificate|invalid|expected|unsupported|not permitted",
    re.IGNORECASE,
)
"""The same of one that was never reached: its address, its user or its kind is wrong."""

_PASSING = (
    "08",
    "40",
    "25006",
    "25P",
    "53300",
    "53400",
    "55P03",
    "57014",
    "57P01",
    "57P02",
    "57P03",
    "57P05",
)
"""How the codes of errors of PostgreSQL begin that end by themselves: a broken connection, a deadlock, a
replica that is not yet the primary, too many connections, a lock, a timeout, a server that stops or starts.
Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""


def _is_away(error: BaseException, hopeless: re.Pattern[str] = _HOPELESS) -> bool:
    """Whether a server is not there, or too busy, and may be back in a while."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if (code := _grpc_code(error)) is not None:
        return code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED", "ABORTED")
    if _is_sqlalchemys(error, "PendingRollbackError", "TimeoutError"):
        return True  # Optuna asked again in the transaction that the server had broken off, or all are taken
    if _is_sqlalchemys(error, "DBAPIError"):
        if "sqlite3" in str(error):
            return "locked" in str(error)
        if code := _sqlstate(error):
            return code.startswith(_PASSING)
        is_of_server = _is_sqlalchemys(error, "OperationalError", "InterfaceError")
        may_end = is_of_server and not hopeless.search(_reason(error))
        return may_end or bool(getattr(error, "connection_invalidated", False))
    if isinstance(error, ValueError):
        return "closed channel" in str(error)  # another thread has found the proxy away
    return (
        isinstance(error, StorageInternalError)
        and error.__cause__ is not None
        and _is_away(error.__cause__, hopeless)
    )


def _sqlstate(error: BaseException) -> str | None:
    """The code of an error of PostgreSQL, of which psycopg and psycopg2 speak by different names."""
    told = getattr(error, "orig", None)
    return getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)


def _is_sqlalchemys(error: BaseException, *names: str) -> bool:
    """Whether it is one of SQLAlchemy's exceptions, without importing it: most studies are in a journal."""
    return any(kind.__module__ == "sqlalchemy.exc" and kind.__name__ in names for kind in type(error).__mro__)


def _grpc_code(error: BaseException) -> str | None:
    """The status of what gRPC raised, without importing gRPC."""
    if type(error).__module__.partition(".")[0] != "grpc":
        return None
    code = getattr(error, "code", lambda: None)()
    return getattr(code, "name", None)


_DENIED = re.compile("permission denied|command denied|readonly database", re.IGNORECASE)
"""What databases say to somebody who may only read: PostgreSQL, MySQL, SQLite."""


def _fault_of(error: Exception, url: str) -> Fault | None:
    if isinstance(error, OSError):
        return of_disk(error, url)
    is_servers = isinstance(error, StorageInternalError) or _is_sqlalchemys(error, "SQLAlchemyError")
    if is_servers or _grpc_code(error) is not None:
        if _DENIED.search(said := _reason(error)):
            return Unwritable(_named(url), said, "let this user write there, or take another storage")
        remedy = (
            "make room on the disk, or let it be written to"
            if "sqlite" in url
            else "see what the server says"
        )
        return Fault(_named(url), said, remedy)
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
    return locked_on_machine(url)


def open_storage(url: str, wait_s: float = WAIT_S, n_connections: int = 1) -> BaseStorage:
    """Open the storage that ``url`` names, creating it where it does not exist.

    ``memory``, a path (a journal file), ``sqlite:///…``, ``postgresql+psycopg://…`` and the like, or
    ``grpc://host:port`` (``optuna.storages.run_grpc_proxy_server``).

    Args:
        wait_s: how long a server that cannot be reached is tried again, now and later.

        n_connections: how many threads use it at the same time.

    Raises:
        BadInput: if it cannot be opened.
        Fault: if its server stays away, or the disk fails.
    """
    remember_secrets(url)
    if url == "memory":
        return InMemoryStorage()
    return _patient(_patiently(partial(_create, url, n_connections), url, wait_s), url, wait_s)


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


def aside(storage: BaseStorage) -> BaseStorage:
    """The same storage for another thread of this process, which does not wait for a server that is away."""
    if not isinstance(storage, PatientStorage):
        return storage
    inner, url = storage._storage, storage._url
    # A channel is closed and opened again by whoever finds the server away.
    return _patient(copy(inner) if isinstance(inner, GrpcStorageProxy) else inner, url, 0.0)


class _Patience:
    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s


def _patiently(opening: Callable[[], BaseStorage], url: str, wait_s: float) -> BaseStorage:
    waiting, n_met = _Waiting(url, _Patience(wait_s), Unreachable), 0
    while True:
        try:
            return opening()
        except BadInput:
            raise
        except Exception as error:  # a driver may raise anything here, and all of it is about the URL
            n_met += 1
            if _is_away(error, _WRONG):
                waiting.go_on(error)
            elif _has_met_another(error) and n_met < _MAX_MET:
                time.sleep(_MET_S)
            elif (fault := find_fault(error)) is not None:
                raise Unwritable(*fault.args) from error
            else:
                raise _cannot_be_opened(url, _why(error), _remedy(url, error)) from error


def _why(error: Exception) -> str:
    missing = _missing_package(error)
    return _reason(error) if missing is None else f"{missing} is not installed"


def _has_met_another(error: Exception) -> bool:
    """Whether another process, of another machine, was creating the same tables."""
    said = re.search("already exists|duplicate|unique", str(error), re.IGNORECASE)
    return _is_sqlalchemys(error, "DBAPIError") and said is not None


def _create(url: str, n_connections: int) -> BaseStorage:
    if url.startswith("grpc://"):
        return _grpc(url)
    with opening_lock(url):
        if "://" not in url:
            _check_begin(Path(url))
            _check_lock(Path(url))
            return _journal(Path(url))
        if (path := file_of(url)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        return _database(url, n_connections, creates=True)


def _find(url: str) -> BaseStorage:
    if url.startswith("grpc://"):
        return _grpc(url)
    if "://" in url:
        return _database(url, n_connections=1, creates=False)
    _check_begin(Path(url))
    return _journal(Path(url))


_BEGIN = b'{"op_code"'
"""Of each journal."""
_NO_JOURNAL = "it is not an Optuna journal"


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


def _journal(path: Path) -> BaseStorage:
    try:
        return JournalStorage(JournalBackend(path))
    except (AssertionError, LookupError, TypeError, AttributeError) as error:  # Optuna's, for other records
        raise ValueError(f"{_NO_JOURNAL}, or one of another version") from error


def _check_lock(journal: Path) -> None:
    """Make the folder of a journal. Raises BadInput where nobody could append alone; nothing is left then."""
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
        raise BadInput(_KEY, journal, f"the file system refuses locks ({fault.reason})", remedy) from fault


def _database(url: str, n_connections: int, creates: bool) -> BaseStorage:
    """A database, cached as Optuna itself would. Tables are made where there are none, and never changed."""
    from sweeper.search.database import Database

    _quieten()
    has_tables = _has_tables(url)
    if not (has_tables or creates):
        raise _cannot_be_opened(url, "there are no studies in it")
    engine = _engine(url, n_connections)
    written = url.replace("{", "{{").replace("}", "}}")  # Optuna fills templates, and a password is none
    storage = Database(
        written, engine_kwargs=engine, skip_compatibility_check=True, skip_table_creation=has_tables
    )
    try:
        storage._version_manager.check_table_schema_compatibility()
    except RuntimeError as error:
        storage.remove_session()
        storage.engine.dispose()
        if made := re.search(r"table schema \(set up by optuna ([\w.]+)\)", str(error)):
            raise _other_schema(url, made[1], is_older="storage upgrade" in str(error)) from error
        raise
    return optuna.storages.get_storage(storage)


def _has_tables(url: str) -> bool:
    """Whether all of Optuna's tables are there, or those of another version of it."""
    from optuna.storages._rdb.models import BaseModel
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, connect_args=_engine(url, 1)["connect_args"])
    try:
        there = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    return "alembic_version" in there or there >= set(BaseModel.metadata.tables)


def _other_schema(url: str, made_by: str, is_older: bool) -> BadInput:
    remedy = (
        'when nobody uses it, write: optuna --storage "URL" storage upgrade'
        if is_older
        else "write: python -m pip install --upgrade optuna"
    )
    reason = f"optuna {made_by} has made its tables, and {optuna.__version__} has others"
    return BadInput(_KEY, url, reason, remedy)


_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "sweeper",
}
"""A machine that is gone without a word is missed within a minute, instead of in two hours.
Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS.
"""


def _engine(url: str, n_connections: int) -> dict[str, Any]:
    """The arguments of SQLAlchemy's engine: a connection for each thread is kept, and no more."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    is_libpq = re.match(r"postgres(ql)?(\+psycopg2?)?://", url) is not None
    written = set(re.findall(r"[?&](\w+)=", url))
    arguments = {name: value for name, value in _LIBPQ.items() if is_libpq and name not in written}
    # A connection that the server has closed meanwhile is replaced before it is used.
    return {"pool_pre_ping": True, "pool_size": n_connections, "connect_args": arguments}


def _quieten() -> None:
    """Of a server that is away we say one line; SQLAlchemy's pool and Optuna have tracebacks and queries."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    logging.getLogger("optuna.storages._rdb.storage").addFilter(_is_no_query)


def _is_no_query(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Caught an error from sqlalchemy")


_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),
)
"""A machine that is gone without a word is missed within a minute, and a proxy of the web is none of studies.
Source: https://github.com/grpc/grpc/blob/master/doc/keepalive.md.
"""


SERVICE, ENDS = "sweeper.Storage", "GetEnds"
"""What ``sweeper serve`` answers besides Optuna's own: what ended, without all that still runs."""


class _Proxy(GrpcStorageProxy):
    """Optuna's client of a gRPC proxy, which notices a server that is gone, and keeps what it has read."""

    def _setup(self) -> None:
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.client import GrpcClientCache

        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=_CHANNEL)
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        if hasattr(self, "_cache"):
            self._cache.grpc_client = self._stub
        else:
            self._cache = GrpcClientCache(self._stub)

    tells_ends = True
    """Whether the proxy is one of ours, for all that is known."""

    def ends(self, study_id: int, running: list[int], until: int) -> list[FrozenTrial] | None:
        """The trials after one, and which of the running ones have ended; None if it cannot tell them."""
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2
        from optuna.storages._grpc.servicer import _from_proto_trial

        ask = self._channel.unary_unary(
            f"/{SERVICE}/{ENDS}",
            request_serializer=api_pb2.GetTrialsRequest.SerializeToString,
            response_deserializer=api_pb2.GetTrialsReply.FromString,
        )
        try:
            reply = ask(
                api_pb2.GetTrialsRequest(
                    study_id=study_id, included_trial_ids=running, trial_id_greater_than=until
                )
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self.tells_ends = False
                return None
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise KeyError(study_id) from error
            raise
        return [_from_proto_trial(trial) for trial in reply.trials]

    def connect_again(self) -> None:
        self.close()
        self._setup()


def _grpc(url: str) -> BaseStorage:
    host, port = host_and_port(url)
    with warnings.catch_warnings():  # gRPC storages are still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = _Proxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=_READY_S)
    except ConnectionError as error:
        storage.close()
        raise ConnectionError(_why_not_ready(host, port)) from error
    return storage


def host_and_port(url: str) -> tuple[str, int]:
    """Of ``grpc://HOST:PORT``; an address of IPv6 stands in brackets.

    Raises:
        ValueError: if no machine has them.
    """
    host, colon, port = url.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not colon or port.endswith("]"):
        host, port = f"{host}{colon}{port}", str(PORT)
    if not host or not 0 < (number := int(port)) < 1 << 16:
        raise ValueError("there is no such host or port")
    return host, number


PORT = 13000
"""Of Optuna's gRPC proxy, where nobody says another."""


def _why_not_ready(host: str, port: int) -> str:
    """What keeps a gRPC proxy from answering, which gRPC does not say."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=_READY_S):
            return "what listens there does not answer as a gRPC proxy"
    except OSError as error:
        return (error.strerror or str(error)).lower()


_KEY = "hydra.sweeper.storage"


def _cannot_be_opened(url: str, reason: str, remedy: str | None = None) -> BadInput:
    kinds = (
        "write a path for a journal file, sqlite:///FILE, postgresql+psycopg://…, grpc://HOST:PORT or memory"
    )
    return BadInput(_KEY, url, f"cannot be opened ({reason})", remedy or kinds)


def _remedy(url: str, error: Exception) -> str | None:
    """What to do about it, where that is not another URL."""
    if (missing := _missing_package(error)) is not None:
        if url.startswith("grpc"):
            return 'python -m pip install "sweeper[grpc]"'
        if not url.startswith("postgres"):
            return f"python -m pip install {_PACKAGES.get(missing, missing)}"
        is_ours = url.startswith("postgresql+psycopg:")
        other = "" if is_ours else "write postgresql+psycopg://…, and "
        return f'{other}python -m pip install "sweeper[postgresql]"'
    said = _reason(error)
    if re.search("password|authentication|access denied|pg_hba", said, re.IGNORECASE):
        return "check user and password in it, and what the server admits"
    if re.search(r"database .* does not exist|unknown database", said, re.IGNORECASE):
        return "create that database, or write the name of another"
    if re.search("resolve|translate host|name or service|no such host|nodename", said, re.IGNORECASE):
        return "check the name of the host"
    if re.search("SSL|certificate|encryption", said):
        return "let both ends agree on TLS: sslmode=require or sslmode=disable at the end of the URL"
    return None


_PACKAGES = {"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python"}
"""What installs a driver of SQLAlchemy's, where its module has another name."""


def _missing_package(error: BaseException | None) -> str | None:
    """The package of a driver that is not installed."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return None


# ---------------------------------------------------------------------------------------------- many machines


def check_many_machines(url: str) -> None:
    """Whether machines that reach this storage can work on one study.

    Raises:
        BadInput: where they cannot: it is the memory of a process, a database file, or a journal in a file
            system that keeps its locks to one machine.
    """
    remedy = "write postgresql+psycopg://…, grpc://HOST:PORT (sweeper serve), or a journal that all share"
    if url == "memory":
        raise BadInput(_KEY, url, "is the memory of one process", remedy)
    if url.startswith("sqlite"):
        raise BadInput(_KEY, url, "a database file of SQLite is for one machine", remedy)
    if (path := file_of(url)) is not None and (why := why_locks_are_local(path)) is not None:
        raise BadInput(_KEY, url, why, "mount it so that locks are shared, or write postgresql+psycopg://…")
