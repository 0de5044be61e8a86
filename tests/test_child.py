"""``sweeper.train`` and ``sweeper.sweep`` in real programs: what they show, what stops them, what is left."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.program import Terminal, finish, is_running, parent_pid, run, start, until

ONE_THREAD = {"OMP_NUM_THREADS": "1"}

SEARCH = """
import json, os, sys
import sweeper

LONG = {"training.epochs": 2000, "training.early_stopping.patience": 2000, "hydra/sweeper/pruner": "none"}
try:
    keys = {"hydra.sweeper.n_trials": 2, "hydra.sweeper.n_jobs": 1}
    study = sweeper.sweep("optimizer=adam,sgd", study="mine", **keys, **({} if sys.argv[1:] else LONG))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    study = sweeper.open_study("mine")
print(json.dumps([[trial.state.name, trial.user_attrs.get("reason")] for trial in study.trials]))
"""
"""A search that somebody has to stop; with an argument, a short one that goes on with it."""

ON_TERMINAL = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + SEARCH
"""The same, to which a terminal sends the signals of its keys."""


def trains(folder: Path) -> bool:
    """Whether a trial of the search has come through its first epoch."""
    return any((folder / "outputs" / "mine").glob("*/history.csv"))


def child_of(pid: int) -> int:
    """The command that a program has started."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    (child,) = [each for each in pids if is_running(each) and parent_pid(each) == pid]
    return child


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def goes_on(folder: Path) -> list[list[Any]]:
    """The trials, after the same study has been gone on with to its end."""
    done = run(folder, "search.py", "short", env=ONE_THREAD, limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    trials: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return trials


@pytest.mark.slow
def test_a_search_is_shown_and_stopped_at_a_terminal(tmp_path: Path) -> None:
    """A script has the bar of the command line; Ctrl-C stops the search in order, once, and it goes on."""
    (tmp_path / "terminal.py").write_text(ON_TERMINAL)
    terminal = Terminal(tmp_path, "terminal.py", columns=120)
    until(lambda: terminal.lines() and trains(tmp_path), limit_s=60)
    terminal.type("\x03")
    lines = terminal.finish(60)
    assert terminal.process.returncode == 0, lines
    assert any("0/2  ──" in line for line in lines)
    assert any(line.startswith("Stopped. To go on: ") for line in lines)
    assert lines.index("interrupted") < lines.index(next(line for line in lines if line.startswith("[[")))
    # A worker that is told twice is killed, and does not say this.
    assert '["FAIL", "interrupted (SIGTERM)"]' in "\n".join(lines)

    (tmp_path / "search.py").write_text(SEARCH.replace("else LONG", "else {}"))
    assert [name for name, _ in goes_on(tmp_path)].count("COMPLETE") >= 1


@pytest.mark.slow
def test_a_search_stops_in_order_when_its_program_is_killed(tmp_path: Path) -> None:
    """``kill -9`` leaves no process behind and no trial that seems to run; the same call goes on."""
    (tmp_path / "search.py").write_text(SEARCH)
    program = start(tmp_path, "search.py", env=ONE_THREAD)
    until(lambda: trains(tmp_path), limit_s=60)
    command = child_of(program.pid)
    program.kill()
    until(lambda: not is_running(command), limit_s=30)
    finish(program)
    trials = goes_on(tmp_path)
    assert trials[0] == ["FAIL", "interrupted (SIGTERM)"]
    assert {name for name, _ in trials[1:]} <= {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_a_search_rests_with_its_program(tmp_path: Path) -> None:
    """Ctrl-Z stops the command with the script, and ``fg`` continues both; SIGINT ends both."""
    (tmp_path / "search.py").write_text("import os\nos.setpgid(0, 0)\n" + SEARCH)
    program = start(tmp_path, "-c", "import subprocess, sys; subprocess.run([sys.executable, 'search.py'])")
    until(lambda: trains(tmp_path), limit_s=60)
    script = child_of(program.pid)  # whose group has a parent outside of it: only such a group can be stopped
    command = child_of(script)
    os.kill(script, signal.SIGTSTP)
    until(lambda: state(script) == state(command) == "T")
    os.kill(script, signal.SIGCONT)
    until(lambda: "T" not in (state(script), state(command)))
    os.kill(script, signal.SIGINT)
    done = finish(program, 60)
    assert "interrupted" in done.stdout.splitlines(), done.stdout + done.stderr


USE = """
import concurrent.futures, contextlib, io, json, logging, sys
import sweeper

before = logging.getLogger().handlers[:]
short = {"model": "custom", "model.target": "nets.tiny", "training.epochs": 2}
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    first = sweeper.train(study="one", **short)
with concurrent.futures.ThreadPoolExecutor() as threads:
    others = [threads.submit(sweeper.train, study=name, **short) for name in ("two", "three")]
failures = []
for call in (sweeper.train, sweeper.sweep):
    try:
        call(["model=custom", "model.target=nets.broken", f"study={call.__name__}", "hydra.sweeper.n_trials=2"])
    except sweeper.Failed as failed:
        failures.append([str(failed), str(failed.folder)])
print(json.dumps({
    "shown": shown.getvalue(), "history": first.history, "result": first.result,
    "folders": [str(each.result().folder) for each in others], "failures": failures,
    "classes": first.model.classes, "heavy": [name for name in ("hydra._internal",) if name in sys.modules],
    "handlers": logging.getLogger().handlers == before, "repr": repr(first), "html": first._repr_html_(),
}))
"""

NETS = """
from torch import nn

def tiny(n_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, n_classes))

class broken(nn.Module):
    def __init__(self, n_classes, in_channels, image_size):
        super().__init__()
        self.head = nn.Linear(in_channels * image_size**2, n_classes)

    def forward(self, images):
        if len(images) > 20:  # more than are tried out before
            raise RuntimeError("it breaks here")
        return self.head(images.flatten(1))
"""


@pytest.mark.slow
def test_a_program_trains_again_and_again(tmp_path: Path) -> None:
    """In one process: output that somebody catches, two threads at once, failures that say what failed."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "use.py").write_text(USE)
    done = run(tmp_path, "use.py", env=ONE_THREAD, limit_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])

    lines = said["shown"].splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "Folder: outputs/one" in lines
    assert "Folder: outputs/one" not in done.stdout.splitlines()
    assert [row["epoch"] for row in said["history"]] == [1, 2]
    assert said["result"]["val_accuracy"] > 0.3
    assert said["folders"] == [str(tmp_path / "outputs" / name) for name in ("two", "three")]
    assert said["classes"] == list("0123456789")
    assert said["handlers"]
    assert said["repr"].startswith("<Run outputs/one: val_accuracy 0.")
    assert "<th>test_accuracy</th>" in said["html"]
    (of_run, _), (of_search, folder) = said["failures"]
    assert of_run == "sweeper: RuntimeError: it breaks here; its output says where"
    assert re.match(r"study sweep: \d trials? failed, the last is number \d; fix the cause", of_search)
    assert folder == str(tmp_path / "outputs" / "sweep")

    code = "import sweeper; print(sweeper.Run('outputs/one').model)"
    other = run(tmp_path, "-c", code, limit_s=60)
    assert "BadInput: model.target=nets.tiny: the model names it, and its code would run" in other.stderr


@pytest.mark.slow
def test_a_notebook_shows_a_search_and_interrupts_it(tmp_path: Path) -> None:
    """Lines come as they are printed, the interrupt button stops in order, and the next cell goes on."""
    manager = pytest.importorskip("jupyter_client.manager")
    (tmp_path / "search.py").write_text(SEARCH)
    kernels, kernel = manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    printed, displayed = "", list[dict[str, str]]()

    def hear(message: dict[str, Any]) -> None:
        nonlocal printed
        content = message["content"]
        printed += content.get("text", "")
        displayed.extend([content["data"]] if "data" in content else [])
        if "Study mine: a search of 2 trials" in content.get("text", ""):
            until(lambda: trains(tmp_path), limit_s=60)
            kernels.interrupt_kernel()

    try:
        code = "import sys; sys.argv = ['search.py']; exec(open('search.py').read())"
        assert kernel.execute_interactive(code, output_hook=hear, timeout=120)["content"]["status"] == "ok"
        assert "\ninterrupted\n" in printed
        assert '["FAIL", "interrupted (SIGTERM)"]' in printed
        kernel.execute_interactive("sweeper.open_study('mine')", output_hook=hear, timeout=60)
        assert "<p>Study mine: " in displayed[-1]["text/html"]
        assert "IProgress" not in printed
    finally:
        kernel.stop_channels()
        kernels.shutdown_kernel(now=True)
