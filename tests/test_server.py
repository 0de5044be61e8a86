"""Studies on a real server: two that begin at once, a server that is down or restarted, passwords."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.foreign_app import FINISHED, App
from tests.program import Done, Program, finish, until
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
    until(lambda: app.has_started(0, 1))
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
    until(lambda: app.has_started(0, 1))
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
    until(lambda: app.has_started(0, 1))
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
    until(lambda: app.has_started(0, 1))
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
    until(lambda: app.has_started(0, 1))
    grpc.stop()
    app.touch("go")
    for done in (
        finish(process, 60),
        app.run("hydra.sweeper.storage_wait_s=1", env={"STORAGE": grpc.url}, limit_s=60),
    ):
        assert done.returncode == 1, done.stdout + done.stderr
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
