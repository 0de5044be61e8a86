"""Several hosts on one study: what each knows of the others, and what becomes of their trials."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.search import life
from tests.foreign_app import FINISHED, App, assert_exactly
from tests.journal import open_journal
from tests.program import Done, Program, finish, kill_group, start, until

pytestmark = pytest.mark.slow

HOLD = """
started()
if number in (0, 1):
    wait_for("go")
return cfg.x
"""

STEPWISE = """
started()
if number in (0, 1):
    wait_for("go")
sweeper.trial().report(cfg.x, 1)
wait_for(f"allow-{number}")
return cfg.x
"""

QUICK = ("hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=3")
"""Signs of life that come as often as a test needs them."""


_begun: list[Program] = []


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """What a failed test has begun ends with it."""
    yield
    for process in _begun:
        kill_group(process)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    _begun.clear()


def begin(process: Program) -> Program:
    _begun.append(process)
    return process


def on_host(name: str, app: App, *arguments: str, hides: bool = True) -> Program:
    """The app's search on a host of that name, where the first host's locks may be out of reach."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another host name needs unshare and root")
    folder = app.out / ".sweeper"
    steps = [f"hostname {name}"]
    if hides:
        steps += [f"mount -t tmpfs none {folder}", f"cp -r {app.folder}/marks/. {folder}"]
    command = " && ".join([*steps, f"exec {sys.executable} app.py -m {' '.join(arguments)}"])
    code = "import os, sys; os.execvp('unshare', ['unshare', '--mount', '--uts', 'sh', '-c', sys.argv[1]])"
    return begin(start(app.folder, "-c", code, command))


def run_on_host(name: str, app: App, *arguments: str, hides: bool = True) -> Done:
    return finish(on_host(name, app, *arguments, hides=hides), limit_s=60)


def hold(app: App, *arguments: str) -> Program:
    """A search of the first host, in the middle of two trials; what marks its folder is copied aside."""
    process = begin(app.start(*arguments))
    until(lambda: app.has_started(0, 1), limit_s=30)
    marks = shutil.ignore_patterns("*.alive")
    shutil.copytree(app.out / ".sweeper", app.folder / "marks", ignore=marks)
    return process


def n_done(app: App) -> int:
    return len(app.trials(*FINISHED))


def hosts_of(app: App) -> set[str]:
    """Those on which trials ended well."""
    return {life.host_of(trial.user_attrs["worker"]) for trial in app.trials(*FINISHED)}


def test_two_hosts_share_a_search(tmp_path: Path) -> None:
    """A second host joins while the first one runs, takes no trial away, and both end it to the trial."""
    app = App(tmp_path, HOLD)
    first = hold(app, *QUICK, "hydra.sweeper.n_trials=12")
    second = on_host("other", app, *QUICK, "hydra.sweeper.n_trials=12", "hydra.sweeper.join=true")
    until(lambda: n_done(app) == 10, limit_s=30)
    app.touch("go")
    for process in (first, second):
        done = finish(process, limit_s=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(t.state in FINISHED for t in assert_exactly(app, 12))
    assert hosts_of(app) == {os.uname().nodename, "other"}


@pytest.mark.parametrize("n_before", [0, 4])
def test_a_host_that_is_killed_is_repeated_by_the_other(tmp_path: Path, n_before: int) -> None:
    """kill -9 of everything on one host costs none of the budget, whether the other has work left or not."""
    app = App(tmp_path, STEPWISE)
    first = hold(app, *QUICK)
    second = on_host("other", app, *QUICK, "hydra.sweeper.join=true")
    until(lambda: app.has_started(2, 3), limit_s=30)
    for number in range(2, 2 + n_before):
        app.touch(f"allow-{number}")
    until(lambda: n_done(app) == n_before)
    kill_group(first)
    finish(first)
    app.touch("go")
    for number in range(20):
        app.touch(f"allow-{number}")
    done = finish(second, limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = assert_exactly(app, 6)
    lost = [t for t in trials if t.state == TrialState.FAIL]
    assert [t.number for t in lost] == [0, 1]
    assert all(os.uname().nodename in t.user_attrs["reason"] for t in lost)
    assert {t.user_attrs.get("retry_of") for t in trials} == {None, 0, 1}
    assert hosts_of(app) == {"other"}


def test_a_host_that_was_stopped_for_too_long_drops_its_results(tmp_path: Path) -> None:
    """SIGSTOP for longer than the grace: the other repeats its trials, and it goes on with new ones."""
    app = App(tmp_path, STEPWISE)
    n_trials = "hydra.sweeper.n_trials=8"
    first = hold(app, *QUICK, n_trials)
    second = on_host("other", app, *QUICK, n_trials, "hydra.sweeper.join=true")
    until(lambda: app.has_started(2, 3), limit_s=30)
    kill_group(first, signal.SIGSTOP)
    until(lambda: [t.number for t in app.trials(TrialState.FAIL)] == [0, 1], limit_s=20)
    app.touch("go")
    kill_group(first, signal.SIGCONT)
    own = os.uname().nodename

    def new() -> set[str]:
        workers = [t.user_attrs.get("worker", "") for t in app.trials(TrialState.RUNNING) if t.number > 3]
        return set(map(life.host_of, workers))

    until(lambda: own in new())
    for number in range(20):
        app.touch(f"allow-{number}")
    for process in (first, second):
        done = finish(process, limit_s=60)
        assert done.returncode == 0, done.stdout + done.stderr
    trials = assert_exactly(app, 8)
    assert [t.number for t in trials if t.user_attrs.get("lost")] == [0, 1]
    dropped = "".join(path.read_text() for path in app.out.glob(".sweeper/worker-*.log"))
    assert dropped.count("its result is dropped") == 2


def test_a_stop_reaches_all_hosts(tmp_path: Path) -> None:
    """The mark in the study ends each pool as SIGTERM does: its trials are queued, at no cost of a retry."""
    app = App(tmp_path, "started()\nwait_for('go')\nreturn cfg.x")
    first = hold(app, *QUICK)
    second = on_host("other", app, *QUICK, "hydra.sweeper.join=true")
    until(lambda: app.has_started(2, 3), limit_s=30)
    study = app.study()
    life.stop(study._storage, study._study_id)
    for process in (first, second):
        done = finish(process, limit_s=60)
        assert done.returncode == 128 + signal.SIGTERM, done.stdout + done.stderr
    trials = app.trials()
    assert sorted(t.state.name for t in trials) == ["FAIL"] * 4 + ["WAITING"] * 4
    assert {t.user_attrs.get("n_retries") for t in trials if t.state == TrialState.WAITING} == {0}


def test_who_waits_for_nothing_ends(tmp_path: Path) -> None:
    """A host without work waits for trials of others no longer than the grace, and then leaves them be."""
    app = App(tmp_path, HOLD)
    first = hold(app, *QUICK)
    done = run_on_host("other", app, *QUICK, "hydra.sweeper.join=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert n_done(app) == 4
    app.touch("go")
    done = finish(first)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [t.user_attrs.get("reason") for t in assert_exactly(app, 6)] == [None] * 6


def test_a_study_that_does_not_exist_is_not_joined(tmp_path: Path) -> None:
    """Whoever joins has made a mistake where there is nothing to join: one line, and nothing is left."""
    app = App(tmp_path)
    done = app.run("hydra.sweeper.join=true")
    assert done.returncode == 2
    assert (len(done.stderr.splitlines()), "there is no such file" in done.stderr) == (1, True), done.stderr
    assert not app.journal.exists()
    app.journal.parent.mkdir(exist_ok=True)
    optuna.create_study(study_name="another", storage=open_journal(app.journal))
    done = app.run("hydra.sweeper.join=true")
    assert done.returncode == 2
    assert (len(done.stderr.splitlines()), "there is no such study in" in done.stderr) == (1, True)
    assert not app.out.exists()
    assert app.trials() == []


def test_a_container_that_came_back_under_another_name_goes_on(tmp_path: Path) -> None:
    """After a kill the trials are repeated after the grace, or at once when the person says so."""
    app = App(tmp_path, HOLD)
    process = hold(app, "hydra.sweeper.heartbeat_s=1", "hydra.sweeper.grace_s=100")
    kill_group(process, signal.SIGKILL)
    finish(process)
    app.touch("go")
    done = run_on_host("other", app, "hydra.sweeper.take_over=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_what_an_engine_sends_to_all_of_a_job_stops_it(tmp_path: Path, signum: signal.Signals) -> None:
    """The pool, the workers and what forks them get it alike: trials are queued, at no cost of a retry."""
    app = App(tmp_path, HOLD)
    process = begin(app.start(env={"SLURM_JOB_ID": "7"}))
    until(lambda: app.has_started(0, 1), limit_s=30)
    kill_group(process, signum)
    done = finish(process)
    assert done.returncode == 128 + signum, done.stdout + done.stderr
    trials = app.trials()
    assert [t.state.name for t in trials] == ["FAIL"] * 2 + ["WAITING"] * 2
    assert [t.user_attrs["n_retries"] for t in trials[2:]] == [0, 0]
    assert all(t.user_attrs["interrupted"] for t in trials[:2])


def test_a_database_file_is_for_one_host(tmp_path: Path) -> None:
    """While one host works on a study in SQLite, another one is refused in a line, and disturbs nothing."""
    app = App(tmp_path, HOLD)
    app.configure("study_name: s", f"study_name: s\n    storage: sqlite:///{tmp_path}/studies.db")
    process = begin(app.start())
    until(lambda: app.has_started(0, 1), limit_s=60)
    done = finish(on_host("other", app, "hydra.sweeper.join=true", hides=False), 60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "a database file of SQLite is for one machine; write postgresql+psycopg://" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    app.touch("go")
    done = finish(process, 60)
    assert done.returncode == 0, done.stderr


# --- trials about which nobody can tell who lives -----------------------------------------------------------

SCRIPT = """
import sys, time
from pathlib import Path
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

storage = JournalStorage(JournalFileBackend("outputs/studies.journal"))
study = optuna.load_study(study_name="s", storage=storage)
trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 2)})
Path("asked").touch()
while not Path("tell").exists():
    time.sleep(0.005)
study.tell(trial, trial.params["x"])
"""
"""What anybody may write who knows Optuna, and not this search."""


def test_another_program_asks_and_tells_in_the_study(tmp_path: Path) -> None:
    """Its trial is left alone, counts, is waited for, and ends the search when it is told."""
    app = App(tmp_path, HOLD)
    first = begin(app.start(*QUICK, "hydra.sweeper.grace_s=60"))
    until(lambda: app.has_started(0, 1), limit_s=30)
    script = begin(start(app.folder, "-c", SCRIPT))
    until(lambda: (app.folder / "asked").exists(), limit_s=30)
    app.touch("go")
    until(lambda: n_done(app) == 5, limit_s=30)
    app.touch("tell")
    assert finish(script).returncode == 0
    done = finish(first, limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(assert_exactly(app, 6)) == 6


def test_nobody_can_see_who_lives(tmp_path: Path) -> None:
    """A search without a beat and another program were killed: one line says so, take_over repeats them."""
    app = App(tmp_path, HOLD)
    alone = begin(app.start("hydra.sweeper.n_jobs=1", "hydra.sweeper.in_process=true"))
    until(lambda: app.has_started(0), limit_s=30)
    script = begin(start(app.folder, "-c", SCRIPT))
    until(lambda: (app.folder / "asked").exists(), limit_s=30)
    shutil.copytree(app.out / ".sweeper", app.folder / "marks", ignore=shutil.ignore_patterns("*.alive"))
    for process in (alone, script):
        kill_group(process)
        finish(process)
    app.touch("go")
    quick = ("hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=1", "hydra.sweeper.join=true")
    done = run_on_host("other", app, *quick)
    own = os.uname().nodename
    assert done.returncode == 1, done.stdout + done.stderr
    there = f"trial 0 on {own} and trial 1 in another program"
    assert f"Waiting up to 2 s for {there}" in done.stdout, done.stdout
    last = done.stderr.splitlines()[-1]
    assert f"Only 4 of 6 trials ended: {there} still count as running" in last, last
    assert last.endswith("hydra.sweeper.study_name=s hydra.sweeper.take_over=true"), last
    again = run_on_host("other", app, *quick, "hydra.sweeper.take_over=true")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [t.user_attrs.get("retry_of") for t in assert_exactly(app, 6)] == [None] * 6 + [0, 1]
