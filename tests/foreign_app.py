"""A small Hydra app such as somebody else might write, and the commands that sweep it in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_SOURCE = """\
import ctypes, math, multiprocessing, os, signal, sys, time
from pathlib import Path

import hydra
import optuna

import sweeper
from sweeper.conf import VERSION_BASE

HERE = Path(__file__).parent


def started():
    (HERE / f"started-{{sweeper.trial().number}}").touch()


def wait_for(*names):
    limit = time.monotonic() + 60
    while not all((HERE / name).exists() for name in names):
        if time.monotonic() > limit:
            raise TimeoutError(str(names))
        time.sleep(0.005)


{top}


@hydra.main(config_path=".", config_name="app", **VERSION_BASE)
def main(cfg):
    number = sweeper.trial().number
{body}


if __name__ == "__main__":
    main()
{after}
"""

_CONFIG = """\
defaults:
  - _self_
  - override hydra/sweeper: sweeper_optuna
x: 0.0
hydra:
  sweep:
    dir: out
  sweeper:
    study_name: s
    n_trials: 6
    n_jobs: 2
    params:
      x: interval(0, 2)
"""


def until(condition: Callable[[], Any], limit_s: float = 15) -> None:
    """Wait for the thing itself, with a limit."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process is there and no mere zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip("\n").splitlines())


class App:
    """An app in ``folder`` whose task function is ``body``; it reads ``cfg`` and ``number``."""

    def __init__(self, folder: Path, body: str = "return cfg.x", top: str = "", after: str = "") -> None:
        self.folder = folder
        (folder / "app.yaml").write_text(_CONFIG)
        self.write(body, top, after)

    def write(self, body: str, top: str = "", after: str = "") -> None:
        source = _SOURCE.format(top=top, body=indent(body), after=indent(after) if after else "")
        (self.folder / "app.py").write_text(source)

    def configure(self, before: str, after: str) -> None:
        """Replace a piece of the config file."""
        text = (self.folder / "app.yaml").read_text()
        assert before in text
        (self.folder / "app.yaml").write_text(text.replace(before, after))

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def journal(self) -> Path:
        return self.folder / "outputs" / "studies.journal"

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Begin the sweep in a process group of its own, as a terminal does."""
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
        return subprocess.Popen(
            [sys.executable, "app.py", "-m", *arguments],
            cwd=self.folder,
            env={**clean, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, limit_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """The whole sweep; nothing of it is left when it takes too long."""
        return finish(self.start(*arguments, env=env), limit_s)

    def study(self) -> optuna.Study:
        """Loaded by plain Optuna."""
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.journal)))
        return optuna.load_study(study_name="s", storage=storage)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Of the study, or none while there is no study."""
        if not self.journal.exists():
            return []
        try:
            return self.study().get_trials(states=states or None)
        except KeyError:
            return []

    def has_started(self, *numbers: int) -> bool:
        """Whether the task functions of these trials are running or have run."""
        return all((self.folder / f"started-{number}").exists() for number in numbers)

    def touch(self, name: str) -> None:
        (self.folder / name).touch()


def finish(process: subprocess.Popen[str], limit_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a sweep, and kill all of it if it does not end."""
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        kill_group(process)
        stdout, stderr = process.communicate()
        raise AssertionError(f"it did not end in {limit_s} s:\n{stdout}\n{stderr}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def kill_group(process: subprocess.Popen[str], signum: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to the sweep and all its workers."""
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        assert process.poll() is not None


def worker_pid(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["worker"].split("-")[-2])


def assert_exactly(app: App, n_trials: int) -> list[FrozenTrial]:
    """The budget was spent to the trial, and no trial is in two minds or in another's folder."""
    trials = app.trials()
    assert sum(t.state in FINISHED for t in trials) == n_trials
    assert [t.number for t in trials] == list(range(len(trials)))
    assert not [t.number for t in trials if not t.state.is_finished()]
    folders = [t.user_attrs["folder"] for t in trials if "folder" in t.user_attrs]
    assert len(set(folders)) == len(folders)
    return trials
