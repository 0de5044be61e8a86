"""What a person sees while a search runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sweeper.search.progress import describe
from tests.foreign_app import App
from tests.program import Terminal, until

THREE_ENDINGS = """
if number == 1:
    raise optuna.TrialPruned
if number == 2:
    raise ValueError("broken")
return cfg.x
"""

HELD = """
sweeper.trial().report(0.5, 3)
started()
if number >= 2:
    wait_for("go")
return cfg.x
"""


def with_long_names(app: App) -> App:
    """As many parameters as fit no terminal."""
    keys = [f"a_parameter_of_some_length_{i}" for i in range(9)]
    app.configure("x: 0.0\n", "x: 0.0\n" + "".join(f"{key}: 0.0\n" for key in keys))
    ranges = "".join(f"\n      {key}: interval(0, 1)" for key in keys)
    app.configure("x: interval(0, 2)", f"x: interval(0, 2){ranges}")
    return app


def test_without_a_terminal_each_ended_trial_is_a_line(tmp_path: Path) -> None:
    """A log gets the whole of one line for each trial when it has ended, and nothing twice."""
    app = with_long_names(App(tmp_path, THREE_ENDINGS))
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=4")

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    trials = app.trials()
    assert [int(line.split()[1]) for line in lines] == [trial.number for trial in trials]
    words = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    assert [line.split()[2] for line in lines] == [words[trial.state] for trial in trials]
    assert re.match(rf"trial   0 done   {trials[0].value:.5g}  best so far  \d+\.\d s  x=", lines[0])
    assert "ValueError: broken" in lines[2]
    assert all(line.endswith(describe(trial.params)) for line, trial in zip(lines, trials, strict=True))


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_each_worker_and_a_total(tmp_path: Path, columns: int) -> None:
    """A line for each running trial, one for all, and one for each ended trial: none is wider than it."""
    app = with_long_names(App(tmp_path, HELD))
    settings = ("hydra.sweeper.n_trials=10", "hydra.sweeper.pruner.max_resource=20")
    terminal = Terminal(tmp_path, "app.py", "-m", *settings, columns=columns)
    until(lambda: re.search("trial 3 +step 3 of 20", "\n".join(terminal.lines())))
    best = app.study().best_value
    app.touch("go")
    lines = terminal.finish()

    assert terminal.process.returncode == 0, lines
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= columns  # a path is whole
    for number in (2, 3):
        assert any(re.match(rf"trial {number} +step 3 of 20 +0\.5 +\d+ s  x=", line) for line in lines)
    total = f"2 done · 0 pruned · 0 failed · best {best:.5g}"
    assert any(re.match(rf"s ━*.* 2/10 +{total}", line) for line in lines), lines
    for number in range(10):
        assert sum(re.match(rf"trial +{number} done ", line) is not None for line in lines) == 1


def test_names_are_shortened_where_they_stay_distinct() -> None:
    """``optimizer.lr`` is lr, unless another key ends so as well."""
    assert describe({"optimizer.lr": 0.00123456, "training.batch_size": 32}) == "lr=0.001235 batch_size=32"
    assert describe({"a.x": 1, "b.x": 2, "c.y": 3}) == "a.x=1 b.x=2 y=3"
