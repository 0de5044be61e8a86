"""Studies on a real server: two that begin at once, a server that is down or restarted, passwords."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.errors import BadInput
from sweeper.search.storage import look_into_storage, open_storage
from sweeper.search.storage_error import Unreachable
from tests.foreign_app import FINISHED, App
from tests.program import Done, Program, finish, free_port, until
from tests.server import PASSWORD, Postgres, Proxy, opened, trials

pytestmark = pytest.mark.slow

HOLD = """
started()
if number in (0, 1):
    wait_for("go")
return cfg.x
"""


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App(tmp_path, HOLD)
    app.configure("study_name: s", "study_name: s\n    storage: ${oc.env:STORAGE}")
    return app


def assert_all_done(url: str) -> None:
    assert sum(t.state in FINISHED for t in trials(url)) == 6
    assert not [t for t in trials(url) if not t.state.is_finished()]


def assert_no_password(app: App, done: Done) -> None:
    """In nothing that was printed, and in no file but the one that its owner alone can read."""
    assert PASSWORD not in done.stdout + done.stderr
    for path in app.folder.rglob("*"):
        if path.is_file() and PASSWORD.encode() in path.read_bytes():
            assert path.name == "storage"
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_search_on_a_server_shows_no_password(postgres: Postgres, app: App) -> None:
    """Neither one that came from the environment nor one that was typed is printed or written."""
    app.touch("go")
    done = app.run(env={"STORAGE": postgres.url}, limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_done(postgres.url)
    assert_no_password(app, done)
    for wrong in (postgres.url.replace("psycopg", "nodriver"), f"{postgres.url}/none"):
        done = app.run(
            "hydra.sweeper.storage_wait_s=0", f"hydra.sweeper.storage='{wrong}'", env={"STORAGE": "x"}
        )
        assert done.returncode in (1, 2), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert_no_password(app, done)


WRONG = {
    "password": (
        f":{PASSWORD}@",
        ":wrongwrong@",
        r"password authentication failed.*; check user and password",
    ),
    "user": ("//searcher:", "//nobody:", r"password authentication failed.*; check user and password"),
    "database": ("/studies", "/nothing", r"does not exist\); create that database"),
    "host": ("127.0.0.1", "nohost.invalid", r"nohost\.invalid.*\); check the name of the host"),
    "TLS": ("/studies", "/studies?sslmode=require", r"SSL.*\); let both ends agree on TLS"),
    "driver": ("+psycopg:", "+psycopg2:", r"\(psycopg2 is not installed\); write postgresql\+psycopg://"),
    "kind": ("postgresql+psycopg:", "mysql+pymysql:", r"pymysql is not installed\); .*pip install pymysql"),
}


def test_what_is_wrong_with_a_url_is_one_line_at_once(postgres: Postgres) -> None:
    """Bad input: nobody waits, and neither password nor query is shown."""
    for what, (before, after, says) in WRONG.items():
        assert before in postgres.url
        began_s = time.monotonic()
        with pytest.raises(BadInput, match=rf"^hydra\.sweeper\.storage=.*{says}") as raised:
            open_storage(postgres.url.replace(before, after))
        assert raised.value.exit_code == 2
        assert PASSWORD not in str(raised.value), what
        assert "wrongwrong" not in str(raised.value)
        assert time.monotonic() - began_s < 5


def test_what_is_no_server_of_studies_is_told_so(postgres: Postgres) -> None:
    """Another server at that port, or none: the same exit code, after as long as one waits for a server."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"grpc://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"what listens there does not answer as a gRPC proxy"):
            open_storage(url, wait_s=0)
    with pytest.raises(Unreachable, match=r"cannot be reached \(connection refused\); start it") as raised:
        open_storage(f"grpc://127.0.0.1:{free_port()}", wait_s=0)
    assert raised.value.exit_code == 2
    with pytest.raises(Unreachable, match=r"cannot be reached \(.*[Cc]onnection refused"):
        open_storage(postgres.url.replace(str(postgres.port), str(free_port())), wait_s=0)


def test_a_server_without_a_free_connection_is_told_so(postgres: Postgres) -> None:
    """As one that is away, with a remedy of its own."""
    with opened(postgres.url) as other:
        assert other.get_all_studies() == []
        postgres.sql("alter user searcher connection limit 1")
        try:
            with pytest.raises(Unreachable, match=r"too many connections.*; let it have more connections"):
                open_storage(postgres.url, wait_s=0)
        finally:
            postgres.sql("alter user searcher connection limit -1")


def test_whoever_looks_at_an_empty_database_makes_no_tables(postgres: Postgres) -> None:
    """Only a search does."""
    with pytest.raises(BadInput, match=r"cannot be opened \(there are no studies in it\)"):
        look_into_storage(postgres.url)
    assert postgres.sql("select count(*) from pg_tables where schemaname = 'public'") == "0"


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        (
            "v3.0.0.a",
            r"optuna 2\.10\.1 has made its tables.*; when nobody .* write: optuna .* storage upgrade$",
        ),
        (
            "v9.9.9.a",
            r"optuna 2\.10\.1 has made its tables.*; write: python -m pip install --upgrade optuna$",
        ),
    ],
)
def test_tables_of_another_optuna_are_refused_and_left_alone(
    postgres: Postgres, revision: str, says: str
) -> None:
    """One line says what to run; nothing is upgraded or added on the way."""
    with opened(postgres.url):
        pass
    postgres.sql(f"update alembic_version set version_num = '{revision}'; drop table trial_heartbeats;")
    postgres.sql("update version_info set library_version = '2.10.1'")
    for opening in (open_storage, look_into_storage):
        with pytest.raises(BadInput, match=says):
            opening(postgres.url)
    tables = postgres.sql("select tablename from pg_tables where schemaname = 'public'").split()
    assert "trial_heartbeats" not in tables
    assert postgres.sql("select version_num from alembic_version") == revision


def test_each_process_has_one_connection(postgres: Postgres, app: App) -> None:
    """A pool of four workers has five, while all run trials."""
    app.write("started()\nwait_for('go')\nreturn cfg.x")
    process = app.start("hydra.sweeper.n_jobs=4", env={"STORAGE": postgres.url})
    until(lambda: app.has_started(0, 1, 2, 3), limit_s=60)
    until(lambda: postgres.n_connections() == 5)
    app.touch("go")
    done = finish(process, 60)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: postgres.n_connections() == 0)


def test_servers_that_are_away_for_20_s_cost_nothing(proxy: Proxy, postgres: Postgres, app: App) -> None:
    """PostgreSQL and a proxy crash in the midst of a search on each: nothing is lost, and none done twice."""
    app.write("started()\nif number == 3: wait_for('go')\nreturn cfg.x")
    app.configure("dir: out", "dir: out/${hydra.sweeper.study_name}")
    both = {"direct": postgres.url, "proxied": proxy.url}
    searches = [
        app.start(f"hydra.sweeper.study_name={name}", "hydra.sweeper.n_trials=30", env={"STORAGE": url})
        for name, url in both.items()
    ]
    until(lambda: all((app.out / name / "5").exists() for name in both), limit_s=60)
    proxy.kill()
    postgres.kill()
    app.touch("go")
    end_s = time.monotonic() + 20
    until(lambda: time.monotonic() > end_s, limit_s=30)
    postgres.start()
    proxy.start()
    for search, name in zip(searches, both, strict=True):
        done = finish(search, 60)
        assert done.returncode == 0, done.stdout + done.stderr
        told = trials(postgres.url, name)
        assert len({t.params["x"] for t in told}) == len(told) == 30
        assert all(t.state in FINISHED for t in told)
        folder = app.out / name
        assert "Caught an error" not in "".join(path.read_text() for path in folder.rglob("*.log"))


def test_a_task_that_prints_its_config_and_fails_shows_no_password(postgres: Postgres, app: App) -> None:
    """Neither its output, nor its traceback, nor what the study keeps of it has the password."""
    app.configure("storage: ${oc.env:STORAGE}", "storage: ${database}")
    app.configure("x: 0.0", "x: 0.0\ndatabase: null")
    app.write("print(cfg)\nraise ValueError(str(cfg))")
    done = app.run(f"database='{postgres.url}'", "hydra.sweeper.max_failure_rate=0", limit_s=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ValueError: {'x'" in done.stderr
    assert_no_password(app, done)
    assert "***" in (app.out / "0" / "sweeper_output.log").read_text()
    assert PASSWORD not in repr([trial.user_attrs for trial in trials(postgres.url)])


@pytest.mark.parametrize("names", [("s", "s"), ("a", "b")], ids=["one study", "two studies"])
def test_two_searches_that_begin_on_an_empty_server_both_work(
    postgres: Postgres, app: App, names: tuple[str, str]
) -> None:
    """Neither the tables nor the study are created twice; searches on one study share its budget."""
    app.touch("go")
    app.configure("dir: out", "dir: out/${hydra.sweeper.study_name}")
    environment = {"STORAGE": postgres.url}
    both = [app.start(f"hydra.sweeper.study_name={name}", env=environment) for name in names]
    for process in both:
        done = finish(process, 60)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in set(names):
        assert sum(t.state in FINISHED for t in trials(postgres.url, name)) == 6


def test_a_restarted_server_costs_nothing(postgres: Postgres, app: App) -> None:
    """While it is down everybody waits, with one line that says so; then all goes on."""
    process = app.start(env={"STORAGE": postgres.url})
    until(lambda: app.has_started(0, 1), limit_s=60)
    postgres.stop()
    app.touch("go")
    said = wait_for_line(process, "trying again")
    postgres.start()
    done = finish(process, 60)
    assert done.returncode == 0, said + done.stdout + done.stderr
    assert (said + done.stdout + done.stderr).count("trying again") == 1
    assert_all_done(postgres.url)
    assert not [t for t in trials(postgres.url) if t.state == TrialState.FAIL]


def test_a_server_that_stays_away_ends_the_search_in_one_line(postgres: Postgres, app: App) -> None:
    """After a while: exit code 1, what to do, and the command to go on, which leaves the password out."""
    process = app.start("hydra.sweeper.storage_wait_s=2", env={"STORAGE": postgres.url})
    until(lambda: app.has_started(0, 1), limit_s=60)
    postgres.stop()
    app.touch("go")
    done = finish(process, 60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "to go on" in line]
    assert "cannot be reached" in line
    assert "storage=" not in line.partition("to go on")[2]
    assert_no_password(app, done)
    postgres.start()
    done = app.run(env={"STORAGE": postgres.url}, limit_s=60)
    assert done.returncode == 0, done.stderr
    assert_all_done(postgres.url)


def test_the_folder_remembers_the_server(postgres: Postgres, app: App) -> None:
    """The command to go on works without the storage; what was typed is in no file and in no attribute."""
    app.touch("go")
    app.configure("storage: ${oc.env:STORAGE}", "storage: ${database}")
    app.configure("x: 0.0", "x: 0.0\ndatabase: null")
    done = app.run("hydra.sweeper.n_trials=3", f"database='{postgres.url}'", limit_s=60)
    assert done.returncode == 0, done.stderr
    assert_no_password(app, done)
    assert PASSWORD not in repr([trial.user_attrs for trial in trials(postgres.url)])
    done = app.run(limit_s=60)
    assert done.returncode == 0, done.stderr
    assert_all_done(postgres.url)


def test_a_study_that_is_deleted_meanwhile_ends_the_search_in_one_line(postgres: Postgres, app: App) -> None:
    """Somebody deletes it in the dashboard: exit code 1 and a line, no traceback."""
    process = app.start(env={"STORAGE": postgres.url})
    until(lambda: app.has_started(0, 1), limit_s=60)
    with opened(postgres.url) as storage:
        optuna.delete_study(study_name="s", storage=storage)
    app.touch("go")
    done = finish(process, 60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "the study was deleted" in done.stderr


@pytest.fixture
def grpc(tmp_path: Path) -> Iterator[Proxy]:
    """A gRPC proxy of a database file."""
    server = Proxy(tmp_path, f"sqlite:///{tmp_path}/grpc.db")
    server.start()
    yield server
    server.stop()


def test_a_restarted_grpc_server_costs_nothing(grpc: Proxy, app: App) -> None:
    """As with a database server: one line, and all goes on."""
    process = app.start(env={"STORAGE": grpc.url})
    until(lambda: app.has_started(0, 1), limit_s=60)
    grpc.stop()
    app.touch("go")
    wait_for_line(process, "trying again")
    grpc.start()
    done = finish(process, 90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_done(grpc.database)


def test_a_grpc_server_that_stays_away_ends_the_search_in_one_line(grpc: Proxy, app: App) -> None:
    """Exit code 1 and the command to go on, while a search runs and before one begins."""
    process = app.start("hydra.sweeper.storage_wait_s=2", env={"STORAGE": grpc.url})
    until(lambda: app.has_started(0, 1), limit_s=60)
    grpc.stop()
    app.touch("go")
    again = app.start("hydra.sweeper.storage_wait_s=1", env={"STORAGE": grpc.url})
    for done, code in ((finish(process, 60), 1), (finish(again, 60), 2)):
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "to go on: python app.py -m" in done.stderr


def wait_for_line(process: Program, text: str) -> str:
    """Read what a program prints until a line has the text; gives all that was read."""
    read = ""
    for line in process.stdout or ():
        read += line
        if text in line:
            return read
    raise AssertionError(read + finish(process).stderr)
