"""What a job is told, and what it tells the app's own command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.search import engine, launched
from sweeper.search.engine import Order
from sweeper.search.launched import Orders, run_pool

SHOW = """\
import json, os, sys
from pathlib import Path
Path("told.json").write_text(json.dumps([os.environ["SWEEPER_JOB"], sys.argv[1:], dict(os.environ)]))
"""

WAIT = """\
import signal, sys, time
from pathlib import Path
def stop(signum, frame):
    Path("heard").write_text(str(signum))
    sys.exit(128 + signum)
for signum in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(signum, stop)
Path("ready").touch()
time.sleep(30)
"""


@pytest.fixture(autouse=True)
def _without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("SLURM_", "SWEEPER_J", "SUBMITIT")):
            monkeypatch.delenv(name)


def orders(folder: Path, script: str, **changes: Any) -> Orders:
    (folder / "app.py").write_text(script)
    told: dict[str, Any] = {
        "batch": "ab12",
        "words": ("app.py", "-m", "study=s"),
        "folder": str(folder),
        "environment": {},
        "machine": engine.machine(),
        "slurm_job": "",
        "n_jobs": 1,
    }
    return Orders(**told | changes)


def told(folder: Path) -> tuple[Order, list[str], dict[str, str]]:
    said, words, variables = json.loads((folder / "told.json").read_text())
    return Order(**json.loads(said)), words, variables


def test_a_job_starts_the_apps_own_command(tmp_path: Path) -> None:
    """With its words, in its folder, with the variables that matter; and says how it ended."""
    end = run_pool(orders(tmp_path, SHOW, environment={"PYTHONPATH": "/mine"}, stops=3))
    assert (end["code"], end["again"], end["error"]) == (0, False, None)
    ordered, words, variables = told(tmp_path)
    assert words == ["-m", "study=s"]
    assert ordered.job == end["job"]
    assert ordered.stops == 3
    assert variables["PYTHONPATH"] == "/mine"


def test_jobs_on_one_machine_share_its_cores_and_gpus(tmp_path: Path) -> None:
    """Where the engine gives none: a GPU is never two jobs', as long as there are enough."""
    shared = orders(tmp_path, SHOW, n_jobs=2, gpus=("0", "1", "2", "3"))
    assert [list(launched._dealt(shared, n)) for n in (0, 1)] == [["0", "2"], ["1", "3"]]
    own = orders(tmp_path, SHOW, n_jobs=2, gpus=("0", "1", "2", "3"), gpus_per_job=1)
    assert [list(launched._dealt(own, n)) for n in (0, 1, 5)] == [["0"], ["1"], ["1"]]
    run_pool(shared)
    assert told(tmp_path)[0].n_cores == max(1, engine.n_cores() // 2)


def test_the_storage_with_its_password_is_in_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes by a variable, and goes on by one: words can be read by everybody."""
    monkeypatch.setenv(launched.STORAGE, "postgresql+psycopg://me:geheim@db/x")
    run_pool(orders(tmp_path, SHOW))
    ordered, words, variables = told(tmp_path)
    assert ordered.storage == "postgresql+psycopg://me:geheim@db/x"
    assert variables[launched.STORAGE] == ordered.storage
    assert "geheim" not in " ".join(words)
    assert "geheim" not in repr(orders(tmp_path, SHOW, storage="postgresql+psycopg://me:geheim@db/x"))


@pytest.fixture
def usr2() -> Iterator[list[int]]:
    """The engine's own handler of SIGUSR2, and the signals for which it was called."""
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: called.append(signum))
    yield called
    signal.signal(signal.SIGUSR2, before)


def test_the_engines_signal_reaches_the_pool_first(tmp_path: Path, usr2: list[int]) -> None:
    """The pool ends and gives its trials back; only then the engine's handler may queue the job again."""
    told = orders(tmp_path, WAIT)
    pid = os.fork()
    if pid == 0:  # sends the signal when the command is ready
        while not (tmp_path / "ready").exists():
            signal.sigtimedwait([], 0.01)
        os.kill(os.getppid(), signal.SIGUSR2)
        os._exit(0)
    end = run_pool(told)
    os.waitpid(pid, 0)
    assert (tmp_path / "heard").read_text() == str(int(signal.SIGUSR2))
    assert usr2 == [signal.SIGUSR2]
    assert (end["code"], end["again"]) == (128 + signal.SIGUSR2, True)


def test_what_the_command_cannot_do_is_said_in_its_own_line(tmp_path: Path) -> None:
    """Who has asked for the job is told it too."""
    script = (
        "from sweeper import caller\nfrom sweeper.errors import BadInput\ncaller.meet()\n"
        "caller.say_error(BadInput('hydra.sweeper.storage', 'x', 'is not there', 'put it there'))\n"
        "raise SystemExit(2)\n"
    )
    end = run_pool(orders(tmp_path, script))
    from sweeper import caller

    assert end["code"] == 2
    assert str(caller.read(end["error"])) == "hydra.sweeper.storage=x: is not there; put it there"
