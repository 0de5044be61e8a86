"""What a storage or its server raised: whether waiting helps, and what is said of it in one line."""

from __future__ import annotations

import errno
import logging
import re

from optuna.exceptions import (
    StorageInternalError,
)

from sweeper.errors import BadInput
from sweeper.fault import Fault, find_fault, of_disk
from sweeper.program import storage_option

log = logging.getLogger(__name__)


def key() -> str:
    """What has named the storage: an option of this command, or else the key."""
    return storage_option[0] if storage_option else "hydra.sweeper.storage"


class StudyDeleted(Fault, KeyError):
    """What a search says in one line, and optuna-dashboard knows as Optuna's own error."""

    def __init__(self, url: str) -> None:
        super().__init__(named(url), "the study was deleted meanwhile", "start another study")


class Away(Fault):
    """A server could not be reached for as long as one waited."""


class Unreachable(Away):
    """The same before anything began: as any other storage that cannot be opened."""

    exit_code = BadInput.exit_code


class Unwritable(Fault):
    """A storage that its user may not write, or a file of one that cannot be opened: it was the wrong one."""

    exit_code = BadInput.exit_code


_REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)

_HOPELESS = re.compile(r"disk|readonly|no space|unable to open", re.IGNORECASE)
"""What servers and drivers say where waiting is no use."""

WRONG = re.compile(
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


def is_away(error: BaseException, hopeless: re.Pattern[str] = _HOPELESS) -> bool:
    """Whether a server is not there, or too busy, and may be back in a while."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if (code := _grpc_code(error)) is not None:
        return code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED", "ABORTED")
    if is_sqlalchemys(error, "PendingRollbackError", "TimeoutError"):
        return True  # Optuna asked again in the transaction that the server had broken off, or all are taken
    if is_sqlalchemys(error, "DBAPIError"):
        if "sqlite3" in str(error):
            return "locked" in str(error)
        if code := _sqlstate(error):
            return code.startswith(_PASSING)
        is_of_server = is_sqlalchemys(error, "OperationalError", "InterfaceError")
        may_end = is_of_server and not hopeless.search(reason_of(error))
        return may_end or bool(getattr(error, "connection_invalidated", False))
    if isinstance(error, ValueError):
        return "closed channel" in str(error)  # another thread has found the proxy away
    return (
        isinstance(error, StorageInternalError)
        and error.__cause__ is not None
        and is_away(error.__cause__, hopeless)
    )


def is_refused(error: BaseException | None) -> bool:
    """Whether the system lets nobody, or not this user, write there; a full disk is no such case."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _sqlstate(error: BaseException) -> str | None:
    """The code of an error of PostgreSQL, of which psycopg and psycopg2 speak by different names."""
    told = getattr(error, "orig", None)
    return getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)


def is_sqlalchemys(error: BaseException, *names: str) -> bool:
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


def fault_of(error: Exception, url: str) -> Fault | None:
    if isinstance(error, OSError):
        return of_disk(error, url)
    is_servers = isinstance(error, StorageInternalError) or is_sqlalchemys(error, "SQLAlchemyError")
    if is_servers or _grpc_code(error) is not None:
        if _DENIED.search(said := reason_of(error)):
            return Unwritable(named(url), said, "let this user write there, or take another storage")
        remedy = (
            "make room on the disk, or let it be written to"
            if "sqlite" in url
            else "see what the server says"
        )
        return Fault(named(url), said, remedy)
    return find_fault(error)


def reason_of(error: BaseException) -> str:
    """What the driver said, in one line."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return reason_of(error.__cause__)
    details = getattr(error, "details", None) if _grpc_code(error) is not None else None
    text = details() if callable(details) else str(getattr(error, "orig", None) or error)
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def named(url: str) -> str:
    """The storage as a message names it: a file by itself, a server as it was set."""
    return f"{key()}={url}" if "://" in url else url


def cannot_be_opened(url: str, reason: str, remedy: str | None = None) -> BadInput:
    kinds = (
        "write a path for a journal file, sqlite:///FILE, postgresql+psycopg://…, grpc://HOST:PORT or memory"
    )
    return BadInput(key(), url, f"cannot be opened ({reason})", remedy or kinds)


def remedy_of(url: str, error: Exception) -> str | None:
    """What to do about it, where that is not another URL."""
    if (missing := missing_package(error)) is not None:
        if url.startswith("grpc"):
            return 'python -m pip install "sweeper[grpc]"'
        if not url.startswith("postgres"):
            return f"python -m pip install {_PACKAGES.get(missing, missing)}"
        is_ours = url.startswith("postgresql+psycopg:")
        other = "" if is_ours else "write postgresql+psycopg://…, and "
        return f'{other}python -m pip install "sweeper[postgresql]"'
    said = reason_of(error)
    if re.search("too many (connections|clients)|connection slots", said, re.IGNORECASE):
        return "let it have more connections, one for each worker and pool, or put sweeper serve before it"
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


def missing_package(error: BaseException | None) -> str | None:
    """The package of a driver that is not installed."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return None
