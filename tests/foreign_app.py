"""A small Hydra app such as somebody else might write, and the study that its sweep leaves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from tests.journal import load_study
from tests.program import LIMIT_S, Done, Program, finish, start

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


def indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip("\n").splitlines())


CLEAN = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": ""}
"""What a worker gets is for the search to say."""


class App:
    """An app in ``folder`` whose task function is ``body``; it reads ``cfg`` and ``number``."""

    def __init__(self, folder: Path, body: str = "return cfg.x", top: str = "", after: str = "") -> None:
        self.folder = folder
        (folder / "app.yaml").write_text(_CONFIG)
        self.write(body, top, after)

    def write(self, body: str, top: str = "", after: str = "") -> None:
        source = _SOURCE.format(top=top, body=indent(body), after=indent(after) if after else "")
        (self.folder / "app.py").write_text(source)

    def decorate(self, name: str) -> None:
        """Put ``@name`` below ``@hydra.main``."""
        text = (self.folder / "app.py").read_text()
        (self.folder / "app.py").write_text(text.replace("def main(cfg)", f"@{name}\ndef main(cfg)"))

    def drop_guard(self) -> None:
        """Leave out ``if __name__ == "__main__"``."""
        text = (self.folder / "app.py").read_text()
        (self.folder / "app.py").write_text(text.replace('if __name__ == "__main__":\n    main()', "main()"))

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

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Program:
        """Begin the sweep."""
        return start(self.folder, "app.py", "-m", *arguments, env={**CLEAN, **(env or {})})

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, limit_s: float = LIMIT_S) -> Done:
        """The whole sweep."""
        return finish(self.start(*arguments, env=env), limit_s)

    def study(self) -> optuna.Study:
        """Loaded by plain Optuna."""
        return load_study(self.folder, "s")

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

    def has_written_study(self, name: str) -> bool:
        """Whether the folder of a study of that name, or pattern, is there below ``out``."""
        return any(self.out.glob(f"{name}/.sweeper/storage"))

    def remove_outputs(self) -> None:
        """Everything that the searches of this app have left."""
        for folder in (self.out, self.journal.parent):
            shutil.rmtree(folder, ignore_errors=True)

    def touch(self, name: str) -> None:
        (self.folder / name).touch()


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
