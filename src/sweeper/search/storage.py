"""Where studies are kept: a URL becomes an Optuna storage. The default journal survives kill -9."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage

from sweeper.errors import BadInput
from sweeper.fault import find_fault
from sweeper.lock import locked_on_machine, why_locks_are_local
from sweeper.record.mark import default_journal
from sweeper.search.journal import check_lock, open_journal
from sweeper.search.patience import Waiting, patient
from sweeper.search.proxy import open_proxy
from sweeper.search.storage_error import (
    WRONG,
    Unreachable,
    Unwritable,
    cannot_be_opened,
    is_away,
    is_refused,
    is_sqlalchemys,
    key,
    missing_package,
    reason_of,
    remedy_of,
)
from sweeper.secret import remember_secrets

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a search tries again to reach a server."""
LOOK_WAIT_S = 5.0
"""The same for somebody who only looks."""

_SQLITE_IN_MEMORY = re.compile(r"sqlite(\+\w+)?:///?(\?|$|.*:memory:|.*[?&]mode=memory)", re.IGNORECASE)
_WITHOUT_SLASHES = re.compile(r"[A-Za-z][\w+.-]*:/?[^/]*@")
_MAX_MET, _MET_S = 50, 0.1


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
    return patient(_patiently(partial(_create, url, n_connections), url, wait_s), url, wait_s)


def look_into_storage(url: str, wait_s: float = LOOK_WAIT_S) -> BaseStorage:
    """The same storage for somebody who only looks: nothing is created.

    Raises:
        BadInput: if it cannot be opened, or there is none.
        Fault: as ``open_storage``.
    """
    remember_secrets(url)
    if url == "memory":
        raise cannot_be_opened(url, "it is gone with the process whose memory it was")
    if (path := file_of(url)) is not None and not path.is_file():
        raise cannot_be_opened(url, "there is no such file")
    return patient(_patiently(partial(_find, url), url, wait_s), url, wait_s)


def _patiently(opening: Callable[[], BaseStorage], url: str, wait_s: float) -> BaseStorage:
    waiting, n_met = Waiting(url, lambda: wait_s, Unreachable), 0
    while True:
        try:
            return opening()
        except BadInput:
            raise
        except Exception as error:  # a driver may raise anything here, and all of it is about the URL
            n_met += 1
            if is_away(error, WRONG):
                waiting.go_on(error)
            elif _has_met_another(error) and n_met < _MAX_MET:
                time.sleep(_MET_S)
            elif (fault := find_fault(error)) is not None:
                if is_refused(error):
                    raise Unwritable(*fault.args) from error
                raise
            else:
                raise cannot_be_opened(url, _why(error), remedy_of(url, error)) from error


def _why(error: Exception) -> str:
    missing = missing_package(error)
    return reason_of(error) if missing is None else f"{missing} is not installed"


def _has_met_another(error: Exception) -> bool:
    """Whether another process, of another machine, was creating the same tables."""
    said = re.search("already exists|duplicate|unique", str(error), re.IGNORECASE)
    return is_sqlalchemys(error, "DBAPIError") and said is not None


def _create(url: str, n_connections: int) -> BaseStorage:
    if url.startswith("grpc://"):
        return open_proxy(url)
    with opening_lock(url):
        if "://" not in url:
            check_lock(Path(url))
            return open_journal(Path(url))
        if (path := file_of(url)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        from sweeper.search.database import open_database

        return open_database(url, n_connections, creates=True)


def _find(url: str) -> BaseStorage:
    if url.startswith("grpc://"):
        return open_proxy(url)
    if "://" in url:
        from sweeper.search.database import open_database

        return open_database(url, n_connections=1, creates=False)
    return open_journal(Path(url))


def absolute(url: str | None) -> str:
    """What a person wrote, or the default journal; paths become absolute: a worker may run elsewhere.

    Raises:
        BadInput: for what no other process sees, or what is neither a path nor a URL.
    """
    if url is None:
        return str(default_journal())
    if _SQLITE_IN_MEMORY.match(url):
        reason = "is a database that no other process sees"
        raise BadInput(key(), url, reason, "write sqlite:///FILE, or memory")
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        return f"sqlite:///{Path(url.removeprefix('sqlite:///')).absolute()}"
    if url == "memory" or "://" in url:
        return url
    if _WITHOUT_SLASHES.match(url):
        reason = "is neither a path nor a URL"
        raise BadInput(key(), url, reason, "write a URL with :// in it")
    return str(Path(url).absolute())


def file_of(url: str) -> Path | None:
    """The file that a storage is; None for a server, or the memory of a process."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///").partition("?")[0])
    return None if url == "memory" or "://" in url else Path(url)


def opening_lock(url: str) -> AbstractContextManager[None]:
    """Lets one process of this machine at a time create tables or a study in the storage."""
    return locked_on_machine(url)


def check_many_machines(url: str) -> None:
    """Whether machines that reach this storage can work on one study.

    Raises:
        BadInput: where they cannot: it is the memory of a process, a database file, or a journal in a file
            system that keeps its locks to one machine.
    """
    remedy = "write postgresql+psycopg://…, grpc://HOST:PORT (sweeper serve), or a journal that all share"
    if url == "memory":
        raise BadInput(key(), url, "is the memory of one process", remedy)
    if url.startswith("sqlite"):
        raise BadInput(key(), url, "a database file of SQLite is for one machine", remedy)
    if (path := file_of(url)) is not None and (why := why_locks_are_local(path)) is not None:
        raise BadInput(key(), url, why, "mount it so that locks are shared, or write postgresql+psycopg://…")
