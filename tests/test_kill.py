"""Kills: of workers, of the pool and of whole sweeps, at any moment."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.foreign_app import App, assert_exactly, worker_pid
from tests.program import IN_PROCESS, Program, finish, is_running, kill_group, until

HOLD = """
started()
if number < 2:
    wait_for("go")
return cfg.x
"""

STEPS = """
for step in range(5):
    sweeper.trial().report(cfg.x + step, step)
    time.sleep(0.01)
return cfg.x
"""


def worker_pids(app: App) -> set[int]:
    return {worker_pid(t) for t in app.trials(TrialState.RUNNING) if "worker" in t.user_attrs}


def test_killed_worker_is_replaced_and_its_parameters_run_again(tmp_path: Path) -> None:
    """kill -9 of a worker costs nothing but the trial: FAIL with the signal's name, queued again, and run."""
    app = App(tmp_path, HOLD)
    process = app.start()
    until(lambda: app.has_started(0, 1))
    victim = app.trials()[0]
    os.kill(worker_pid(victim), signal.SIGKILL)
    until(lambda: app.has_started(2))  # by the new worker: the other one still holds its trial
    assert app.trials()[0].state == TrialState.FAIL
    app.touch("go")
    done = finish(process)
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert "SIGKILL" in trials[0].user_attrs["reason"]
    (copy,) = [t for t in trials if t.user_attrs.get("retry_of") == 0]
    assert copy.state == TrialState.COMPLETE
    assert copy.params == trials[0].params
    assert len({worker_pid(t) for t in trials}) == 3


@pytest.mark.slow
def test_each_dead_worker_is_given_its_own_reason(tmp_path: Path) -> None:
    """Two workers that die at once, each in its way, leave two trials with two reasons."""
    app = App(
        tmp_path,
        """
started()
if number < 2:
    wait_for("started-0", "started-1")
    os.kill(os.getpid(), signal.SIGKILL if number else signal.SIGABRT)
return cfg.x
""",
    )
    done = app.run()
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert "SIGABRT" in trials[0].user_attrs["reason"]
    assert "SIGKILL" in trials[1].user_attrs["reason"]
    lines = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if "queued again" in line]
    assert sorted("SIGKILL" in line for line in lines) == [False, True]


def test_killed_sweep_resumes_to_the_exact_budget(tmp_path: Path) -> None:
    """After kill -9 of everything the same command finishes the rest: none lost, none twice, none RUNNING."""
    app = App(tmp_path, HOLD + STEPS)
    process = app.start()
    until(lambda: app.has_started(0, 1))
    kill_group(process)
    finish(process)
    assert len(app.trials(TrialState.RUNNING)) == 2
    app.touch("go")
    done = app.run()
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert {t.user_attrs.get("retry_of") for t in trials} == {None, 0, 1}


@pytest.mark.slow
def test_workers_go_when_their_pool_is_killed(tmp_path: Path) -> None:
    """kill -9 of the pool alone leaves no orphan at work, and the next run finds the trials dead."""
    app = App(tmp_path, HOLD)
    process = app.start()
    until(lambda: app.has_started(0, 1))
    pids = worker_pids(app)
    assert len(pids) == 2
    process.kill()
    process.wait(10)
    until(lambda: not any(is_running(pid) for pid in pids))
    finish(process)
    app.touch("go")
    done = app.run(*IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_torn_journal_resumes_to_the_exact_budget(tmp_path: Path, seed: int) -> None:
    """A journal cut at any byte is a study that was killed a little earlier."""
    app = App(tmp_path, STEPS)
    process = app.start()
    until(lambda: len(app.trials()) >= 4)
    kill_group(process)
    finish(process)
    cut(app, random.Random(seed))
    done = app.run(*IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_max_retries_limits_the_copies(tmp_path: Path) -> None:
    """Parameters that kill their worker each time are tried max_retries times again, and then left alone."""
    app = App(tmp_path, "if number == 0 or cfg.x == 0.5:\n    os._exit(3)\nreturn cfg.x")
    app.configure("params:\n      x: interval(0, 2)", "params:\n      x: choice(0.5, 1.5)")
    done = app.run(
        "hydra.sweeper.max_retries=2", "hydra/sweeper/sampler=grid", "hydra.sweeper.max_failure_rate=1"
    )
    trials = app.trials()
    assert done.returncode == 0, done.stderr
    killers = [t for t in trials if t.params == {"x": 0.5}]
    assert [t.state for t in killers] == [TrialState.FAIL] * 3
    assert [t.user_attrs.get("n_retries", 0) for t in killers] == [0, 1, 2]
    assert all("exit code 3" in t.user_attrs["reason"] for t in killers)
    assert not app.trials(TrialState.RUNNING, TrialState.WAITING)


STUBBORN = """
while True:
    try:
        started()
        wait_for("go")
        return cfg.x
    except BaseException:
        (HERE / f"told-{number}").touch()
"""


@pytest.mark.slow
def test_trials_that_the_pool_kills_are_interrupted(tmp_path: Path) -> None:
    """After a second Ctrl-C the command that is printed goes on: nothing counts as failed."""
    app = App(tmp_path, STUBBORN)
    strict = ("hydra.sweeper.max_failure_rate=0", "hydra.sweeper.max_retries=0")
    process = app.start(*strict)
    until(lambda: app.has_started(0, 1))
    kill_group(process, signal.SIGINT)
    until(lambda: len(list(tmp_path.glob("told-*"))) == 2)
    kill_group(process, signal.SIGINT)
    assert finish(process).returncode == 130
    assert [t.state for t in app.trials()[:2]] == [TrialState.FAIL] * 2
    app.touch("go")
    done = app.run(*strict)
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.parametrize(
    ("crash", "reason"),
    [("ctypes.string_at(0)", "SIGSEGV"), pytest.param("os._exit(0)", "exit code 0", marks=pytest.mark.slow)],
)
def test_app_that_always_crashes_ends_the_sweep(tmp_path: Path, crash: str, reason: str) -> None:
    """An app that takes its process along is tried until max_failure_rate, and no longer."""
    app = App(tmp_path, crash)
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.max_failure_rate=0")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "max_failure_rate" in done.stderr
    assert [t.state for t in app.trials()] == [TrialState.FAIL] * 2  # the first, and its retry


def test_worker_killed_before_its_first_trial_is_replaced(tmp_path: Path) -> None:
    """Workers that somebody kills while they start are replaced."""
    (tmp_path / "deadly.py").write_text("""
import os, signal
from __main__ import HERE

def die():
    if len(list(HERE.glob("death-*"))) < 2:
        (HERE / f"death-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

os.register_at_fork(after_in_child=die)
""")
    app = App(tmp_path, "return cfg.x", top="preload = sweeper.hooks(preload=['deadly'])")
    app.decorate("preload")
    done = app.run("hydra.sweeper.n_jobs=1")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert_exactly(app, 6)


@pytest.mark.slow
def test_a_server_killed_before_all_first_trials_is_replaced(tmp_path: Path) -> None:
    """One kill of the process that forks the workers is one death, however many it takes along."""
    (tmp_path / "deadly.py").write_text("""
import os, signal
from __main__ import HERE

def die():
    if not (HERE / "death").exists():
        (HERE / "death").touch()
        os.kill(os.getpid(), signal.SIGKILL)

os.register_at_fork(after_in_parent=die)
""")
    app = App(tmp_path, "return cfg.x", top="preload = sweeper.hooks(preload=['deadly'])")
    app.decorate("preload")
    done = app.run("hydra.sweeper.n_jobs=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "death").exists()
    assert_exactly(app, 6)


def test_ctrl_c_while_the_search_is_imported_shows_no_traceback(tmp_path: Path) -> None:
    """Also in an app of somebody else: nothing has begun, so it just ends."""
    app = App(
        tmp_path,
        top="""
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "sweeper.search.sweep":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
""",
    )
    done = app.run()
    assert (done.returncode, done.stderr) == (130, "")


# --- random moments -----------------------------------------------------------------------------------------


def size(app: App) -> int:
    return app.journal.stat().st_size if app.journal.exists() else 0


def at_a_random_moment(app: App, process: Program, dice: random.Random) -> None:
    """Wait for a random growth of the journal, or now and then for none; or until the sweep has ended."""
    goal = size(app) + dice.choice([0, dice.randrange(6000), dice.randrange(2000)])
    until(lambda: size(app) >= goal or process.poll() is not None)


def cut(app: App, dice: random.Random) -> None:
    """Cut the journal at a random byte: mostly of its last quarter, now and then of the whole."""
    length = size(app)
    if length > 0:
        os.truncate(app.journal, length - dice.randrange(1 + length // dice.choice([4, 4, 4, 1])))


def resume_until_done(app: App, *arguments: str) -> None:
    done = app.run(*arguments)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_random_kills_of_workers(tmp_path: Path, seed: int) -> None:
    """Workers killed one after the other at random moments: exactly n_trials finish."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    app = App(tmp_path, STEPS)
    arguments = ["hydra.sweeper.n_trials=30", "hydra.sweeper.n_jobs=3", "hydra.sweeper.max_failure_rate=1"]
    process = app.start(*arguments)
    for _ in range(12):
        at_a_random_moment(app, process, dice)
        if pids := sorted(worker_pids(app)):
            pid = dice.choice(pids)
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    done = finish(process, 100)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert_exactly(app, 30)


@pytest.mark.slow
@pytest.mark.parametrize("tears", [False, True])
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_random_kills_of_the_whole_sweep(tmp_path: Path, seed: int, tears: bool) -> None:
    """Killed and resumed many times, also with the journal cut at random bytes: exactly n_trials finish."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    app = App(tmp_path, STEPS)
    for _ in range(8):
        process = app.start("hydra.sweeper.n_trials=20")
        at_a_random_moment(app, process, dice)
        if dice.random() < 0.3:
            process.kill()  # the workers are on their own
        else:
            kill_group(process)
        finish(process)
        if tears:
            cut(app, dice)
    resume_until_done(app, "hydra.sweeper.n_trials=20")
    assert_exactly(app, 20)
