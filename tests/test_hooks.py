"""What an app gives a search beyond its task function: when each of its hooks is called, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.foreign_app import App, assert_exactly, worker_pid

HOOKS = """
def check(cfg):
    if cfg.x > 1:
        raise sweeper.BadInput("x", cfg.x, "it is too large", "take 1 at most")

def conclude(folder):
    (HERE / f"concluded-{os.getpid()}").touch()
    if (HERE / "troubled").exists():
        raise ValueError("trouble")

def finish(folder):
    print("finished", folder.name, os.getpid(), *sorted(path.name for path in HERE.glob("concluded-*")))

hooks = sweeper.hooks(check=check, on_last_worker=conclude, on_finish=finish)
"""
BELOW_1 = "hydra.sweeper.params={x: 'interval(0, 1)'}"


def hooked(folder: Path, body: str) -> App:
    """An app with all of them, decorated as docs/own-app.md says."""
    app = App(folder, body, HOOKS)
    app.decorate("hooks")
    return app


def test_check_refuses_before_anything_is_written(tmp_path: Path) -> None:
    """It sees both ends of a range; what it refuses is one line and exit code 2."""
    app = hooked(tmp_path, "return cfg.x")
    done = app.run()
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["x=2.0: it is too large; take 1 at most"]
    assert not app.journal.exists()
    assert not app.out.exists()


@pytest.mark.slow
def test_the_last_worker_concludes_and_the_command_finishes(tmp_path: Path) -> None:
    """``conclude`` runs where the last trial ran, once all have ended; ``finish`` in the first process."""
    app = hooked(tmp_path, "if number == 0:\n    wait_for('started-3')\nstarted()\nreturn cfg.x")
    done = app.run(BELOW_1, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 4)
    last = max(trials, key=lambda t: str(t.datetime_complete))
    word, name, pid, *concluded = done.stdout.splitlines()[-1].split()
    assert (word, name) == ("finished", "out")
    assert f"concluded-{worker_pid(last)}" in concluded
    assert int(pid) not in {worker_pid(t) for t in trials}


@pytest.mark.slow
def test_what_conclude_raises_is_left_to_finish(tmp_path: Path) -> None:
    """It is a chance to be early, so that its failure costs nothing."""
    app = hooked(tmp_path, "return cfg.x")
    app.touch("troubled")
    done = app.run(BELOW_1)
    assert done.returncode == 0, done.stderr
    assert "finished out" in done.stdout
    assert "concluded-" in done.stdout


@pytest.mark.slow
def test_a_search_that_failed_does_not_conclude(tmp_path: Path) -> None:
    """Neither hook is called after too many failures."""
    app = hooked(tmp_path, "raise ValueError('always')")
    done = app.run(BELOW_1, "hydra.sweeper.max_failure_rate=0")
    assert done.returncode == 1
    assert {t.state for t in app.trials()} == {TrialState.FAIL}
    assert not list(tmp_path.glob("concluded-*"))
    assert "finished" not in done.stdout
