"""``sweeper serve``: studies for machines that reach nothing but a port."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from sweeper.commands import serve
from sweeper.fault import Fault
from sweeper.search.ledger import POOL, Ledger
from sweeper.search.patience import aside
from sweeper.search.proxy import address
from sweeper.search.storage import open_storage
from sweeper.search.storage_error import Away, StudyDeleted
from tests.conftest import Cli
from tests.journal import open_journal
from tests.program import Program, finish, free_port, kill_group, start
from tests.server import PASSWORD, Postgres

pytest.importorskip("grpc")


_begun: list[Program] = []


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """What a failed test has begun ends with it."""
    yield
    for process in _begun:
        if process.poll() is None:
            kill_group(process)
            finish(process)
    _begun.clear()


def serving(folder: Path, *words: object) -> tuple[Program, list[str]]:
    """A server, and what it says when it answers."""
    server = start(folder, "-m", "sweeper", "serve", *words)
    _begun.append(server)
    assert server.stdout is not None
    lines = [server.stdout.readline() for _ in range(3)]
    assert lines[-1], finish(server).stderr
    return server, [line.rstrip() for line in lines]


def test_ctrl_c_ends_a_server_and_clients_go_on_with_the_next(tmp_path: Path) -> None:
    """It says what it serves and how to join; a study goes on in the journal when it is started again."""
    port = free_port()
    server, lines = serving(tmp_path, "--port", port)
    assert lines[0].endswith("outputs/studies.journal (0 studies)")
    assert lines[1] == f"Serving it at grpc://127.0.0.1:{port}  (Ctrl-C ends it)"
    assert lines[2].endswith(f"hydra.sweeper.join=true hydra.sweeper.storage=grpc://127.0.0.1:{port}")
    storage = open_storage(f"grpc://127.0.0.1:{port}")
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    kill_group(server, signal.SIGINT)
    done = finish(server)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    again, lines = serving(tmp_path, "--port", port)
    assert lines[0].endswith("(1 study)")
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 1.0)
    kill_group(again)
    finish(again)
    (told,) = optuna.load_study(
        study_name="s", storage=open_journal(tmp_path / "outputs" / "studies.journal")
    ).trials
    assert (told.state, told.values, list(told.params)) == (TrialState.COMPLETE, [1.0], ["x"])


def test_a_taken_port_is_bad_input(cli: Cli, tmp_path: Path) -> None:
    """Also where another server of the kind has it; nothing is written."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = cli("serve", "--port", str(port))
    assert code == 2
    assert f"--port={port}: cannot be used (address already in use); write another, as --port" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "--port=70000: no machine has such a port; write --port 13000"),
        (["--host", "192.0.2.1"], "--host=192.0.2.1: cannot be used (cannot assign requested address)"),
        (["--storage", "memory"], "--storage=memory: is the memory of one process; write --storage"),
        (["--storage", "grpc://x:1"], "--storage=grpc://x:1: is a proxy already; write --storage"),
        (
            ["--storage", "redis://x"],
            "--storage=redis://x: cannot be opened (Can't load plugin: sqlalchemy.dialects:redis)",
        ),
        (["nothing"], "STUDY=nothing: "),
    ],
)
def test_what_cannot_be_served_is_bad_input(cli: Cli, tmp_path: Path, words: list[str], says: str) -> None:
    """One line, and nothing is left behind."""
    port = [] if "--port" in words else ["--port", str(free_port())]
    code, said = cli("serve", *words, *port)
    assert code == 2
    assert says in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_for_other_machines_warns(tmp_path: Path) -> None:
    """Whoever reaches it may delete everything: it says so, and how this machine is called."""
    server, lines = serving(tmp_path, "--port", free_port(), "--host", "0.0.0.0")
    assert f"grpc://{socket.gethostname()}:" in lines[2]
    kill_group(server, signal.SIGINT)
    done = finish(server)
    assert done.returncode == 0, done.stderr
    assert "Warning: keep this port to machines that you trust: it has no password" in done.stderr


@pytest.mark.slow
def test_a_server_of_a_database_shows_no_password(postgres: Postgres, tmp_path: Path) -> None:
    """Neither when it starts, nor when the database goes away; then its clients wait, and go on."""
    server, lines = serving(tmp_path, "--port", (port := free_port()), "--storage", postgres.url)
    assert "searcher:***@" in lines[0]
    storage = open_storage(f"grpc://127.0.0.1:{port}")
    study = optuna.create_study(storage=storage, study_name="s")
    postgres.kill()
    storage.wait_s = 0.5  # type: ignore[attr-defined]
    with pytest.raises(Fault, match=r"cannot be reached, for 0 s \(cannot be reached \(connection") as raised:
        study.ask()
    assert "searcher" not in str(raised.value), "the proxy's own user is nobody's business"
    postgres.start()
    storage.wait_s = 30  # type: ignore[attr-defined]
    study.tell(study.ask(), 1.0)
    kill_group(server, signal.SIGINT)
    done = finish(server)
    assert done.returncode == 0
    assert PASSWORD not in "".join(lines) + done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    """As in any URL."""
    assert [address(host, 1) for host in ("h", "::1", "[::1]")] == ["h:1", "[::1]:1", "[::1]:1"]


def _running(study: optuna.Study, pool: str) -> int:
    """A new trial, by its id, as a worker begins it."""
    made = create_trial(state=TrialState.RUNNING, system_attrs={POOL: pool})
    return study._storage.create_new_trial(study._study_id, made)


@pytest.mark.parametrize("is_ours", [True, False])
def test_who_asks_what_ended_is_not_told_what_runs(tmp_path: Path, is_ours: bool) -> None:
    """A client of ours reads ended and new trials from any proxy; ours tells it nothing of those that run."""
    from optuna.storages._grpc.server import make_server

    port, served = free_port(), open_journal(tmp_path / "studies.journal")
    server = serve._take_port(2, "127.0.0.1", port) if is_ours else make_server(served, "127.0.0.1", port)
    if is_ours:
        serve._answer(server, served)
    else:
        server.start()
    try:
        storage = open_storage(f"grpc://127.0.0.1:{port}")
        study = optuna.create_study(storage=served, study_name="s")
        first, second = _running(study, "a"), _running(study, "b")
        ledger = Ledger(storage, study._study_id, ["minimize"])
        assert [t.number for t in ledger.read_ends()] == [0, 1]
        served.set_trial_user_attr(first, "epoch", 1)
        served.set_trial_state_values(second, TrialState.COMPLETE, [0.5])
        _running(study, "c")
        found = [(t.number, t.values) for t in ledger.read_ends()]
        assert found == ([(1, [0.5]), (2, None)] if is_ours else [(0, None), (1, [0.5]), (2, None)])
        assert sorted(ledger.running) == [0, 2]
        ledger.read()
        assert ledger.trials == study.get_trials()
        served.delete_study(study._study_id)
        with pytest.raises(StudyDeleted, match="was deleted"):
            ledger.read_ends()
    finally:
        server.stop(None).wait()


def test_who_found_a_server_away_meets_the_next_at_once(tmp_path: Path) -> None:
    """Also the heart of a pool, which never waits, and after attempts at which gRPC itself would pause."""
    port, served = free_port(), open_journal(tmp_path / "studies.journal")
    url = f"grpc://127.0.0.1:{port}"
    with _serving(served, port):
        clients = [open_storage(url, wait_s=0)]
        clients.append(aside(clients[0]))
    for client in clients * 3:
        with pytest.raises(Away, match="cannot be reached"):
            client.get_all_studies()
    with _serving(served, port):
        assert [client.get_all_studies() for client in clients] == [[], []]


@contextmanager
def _serving(storage: BaseStorage, port: int) -> Iterator[None]:
    server = serve._take_port(2, "127.0.0.1", port)
    serve._answer(server, storage)
    try:
        yield
    finally:
        server.stop(None).wait()
