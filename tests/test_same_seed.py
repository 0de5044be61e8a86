"""The same seed gives the same search, whatever the study is called and wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.foreign_app import App
from tests.program import IN_PROCESS

BODY = """
for step in range(1, 10):
    sweeper.trial().report((cfg.x - 1) ** 2 + cfg.n / step, step)
return (cfg.x - 1) ** 2 + cfg.n
"""


def searched(folder: Path, *arguments: str, name: str) -> list[tuple[Any, ...]]:
    """What a search of 16 trials draws, reports and decides."""
    folder.mkdir(parents=True)
    app = App(folder, BODY)
    app.configure("x: 0.0\n", "x: 0.0\nn: 1\n")
    app.configure("      x: interval(0, 2)\n", "      x: range(0, 2, step=0.25)\n      n: range(1, 4)\n")
    app.configure("study_name: s\n", f"study_name: {name}\n    max_resource: 9\n")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=16", "hydra.sweeper.seed=7", *arguments)
    assert done.returncode == 0, done.stderr
    storage = f"sqlite:///{folder}/studies.db"
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [(t.number, t.state, t.params, t.intermediate_values, t.values) for t in trials]


OTHERS = ["random", "qmc", "gp", "cmaes", "grid", "nsgaii"]


@pytest.mark.parametrize("sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_same_seed_gives_the_same_search(tmp_path: Path, sampler: str) -> None:
    """With one worker and the default pruner: the same points, reports and pruned trials."""
    arguments = [f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.storage=sqlite:///studies.db"]
    if sampler == "nsgaii":
        arguments.append("hydra.sweeper.sampler.population_size=4")
    first = searched(tmp_path / "a", *arguments, name="one")
    second = searched(tmp_path / "b" / "deeper", *arguments, name="another-name")
    assert first == second
    assert {state for _, state, *_ in first} == {TrialState.COMPLETE, TrialState.PRUNED}
