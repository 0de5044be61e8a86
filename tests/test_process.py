"""A worker's process: what it inherits from the fork server, and what happens when that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sweeper import run
from sweeper.search import process
from tests import program
from tests.foreign_app import App, assert_exactly, worker_pid
from tests.program import finish, is_running, parent_pid, until

BOTH_AT_ONCE = """
started()
wait_for("started-0", "started-1")
"""


def preloads(folder: Path, body: str, module: str) -> App:
    """An app whose search imports ``module`` once for all workers."""
    app = App(folder, body, f"preload = sweeper.hooks(preload=[{module!r}])")
    app.decorate("preload")
    return app


def test_a_preloaded_module_is_imported_once(tmp_path: Path) -> None:
    """All workers find it as it was imported, in the process that they were forked from."""
    (tmp_path / "heavy.py").write_text("import os\npid = os.getpid()\n")
    body = (
        "import heavy\nsweeper.trial().set_user_attr('imported_in', heavy.pid)\n"
        + BOTH_AT_ONCE
        + "return cfg.x"
    )
    app = preloads(tmp_path, body, "heavy")
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 4)
    assert len({worker_pid(t) for t in trials}) == 2
    assert len({t.user_attrs["imported_in"] for t in trials}) == 1
    assert trials[0].user_attrs["imported_in"] not in {worker_pid(t) for t in trials}


def test_workers_draw_different_numbers(tmp_path: Path) -> None:
    """Numpy's global generator is not the fork server's in all of them."""
    body = (
        "import numpy\n"
        + BOTH_AT_ONCE
        + "sweeper.trial().set_user_attr('drawn', numpy.random.random())\nreturn cfg.x"
    )
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    first, second = assert_exactly(app, 2)
    assert first.user_attrs["drawn"] != second.user_attrs["drawn"]


def test_workers_have_the_environment_of_the_sweep(tmp_path: Path) -> None:
    """Theirs is that of the command; what is set for the fork server alone does not reach them."""
    seen = "{k: os.environ.get(k) for k in ('MINE', 'PYTHONPATH')}"
    body = f"sweeper.trial().set_user_attr('seen', {seen})\nreturn cfg.x"
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_trials=1", env={"MINE": "here", "PYTHONPATH": "some/where"})
    assert done.returncode == 0, done.stderr
    assert app.trials()[0].user_attrs["seen"] == {"MINE": "here", "PYTHONPATH": "some/where"}


def test_killed_fork_server_costs_its_trials(tmp_path: Path) -> None:
    """kill -9 of the server: its workers are killed too, before others run their trials again."""
    app = App(tmp_path, "started()\nif number < 2:\n    wait_for('never')\nreturn cfg.x")
    sweep = app.start()
    until(lambda: app.has_started(0, 1))
    victims = [worker_pid(t) for t in app.trials()]
    (server,) = {parent_pid(pid) for pid in victims}
    assert server != sweep.pid
    os.kill(server, signal.SIGKILL)
    done = finish(sweep)
    assert done.returncode == 0, done.stderr
    assert not any(is_running(pid) for pid in victims)
    trials = app.trials()
    assert [t.state for t in trials[:2]] == [TrialState.FAIL] * 2
    assert {t.params["x"] for t in trials[2:4]} == {t.params["x"] for t in trials[:2]}
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 6
    assert not set(victims) & {worker_pid(t) for t in trials[2:]}


def test_fork_server_ends_with_the_sweep(tmp_path: Path) -> None:
    """Neither the end of a search nor kill -9 of its process leaves the server behind."""
    app = App(tmp_path, "started()\nif number >= 2:\n    wait_for('go')\nreturn cfg.x")
    sweep = app.start()
    until(lambda: app.has_started(2, 3))
    server = parent_pid(worker_pid(app.trials(TrialState.RUNNING)[0]))
    sweep.kill()
    sweep.communicate()
    until(lambda: not is_running(server))
    sweep = app.start()
    until(lambda: app.has_started(4, 5))
    server = parent_pid(worker_pid(app.trials(TrialState.RUNNING)[0]))
    app.touch("go")
    assert finish(sweep).returncode == 0
    until(lambda: not is_running(server))


def test_preloading_that_ends_the_server_is_told(tmp_path: Path) -> None:
    """A module that cannot be imported there ends the search with a reason, not with a traceback of ours."""
    (tmp_path / "broken.py").write_text("import os\nif __name__ == 'broken':\n    os._exit(7)\n")
    app = preloads(tmp_path, "return cfg.x", "broken")
    done = app.run()
    assert done.returncode == 1
    assert "forked from ended: killed, or by what it imports" in done.stderr
    assert "Traceback" not in done.stderr
    assert not app.trials()


NO_GPU_WHILE_IMPORTING = """
import importlib, sys

def watch(frame, event, argument):
    if event == "c_call" and "cuda" in argument.__name__.lower():
        print(argument.__name__)

sys.setprofile(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
sys.setprofile(None)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("modules", "asks"), [(run.PRELOAD, False), (["asks_for_gpu"], True)])
def test_what_is_preloaded_asks_for_no_gpu(tmp_path: Path, modules: Sequence[str], asks: bool) -> None:
    """CUDA works only where it was first used after the fork: torch's C functions for it are not called."""
    (tmp_path / "asks_for_gpu.py").write_text("import torch\ntorch.cuda.is_available()\n")
    done = program.run(tmp_path, "-c", NO_GPU_WHILE_IMPORTING, *modules)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("_cuda") for line in done.stdout.split()) == asks


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [(-9, "SIGKILL (out of memory, or kill -9)"), (-11, "SIGSEGV"), (3, "exit code 3")],
)
def test_how_a_worker_ended(exitcode: int, words: str) -> None:
    """A signal by its name, with what it usually means."""
    assert words in process.ending(exitcode)
