"""What a person sees while a search runs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.cells import cell_len

from sweeper.search import progress
from sweeper.search.progress import Progress, describe, summarize
from sweeper.search.search import Search
from sweeper.search.study import Study
from tests.foreign_app import App
from tests.program import Terminal, run, until

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

Direction = Literal["minimize", "maximize"]

BEGAN = datetime(2026, 1, 1)
WORDS = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def with_long_names(app: App) -> App:
    """As many parameters as fit no terminal."""
    keys = [f"a_parameter_of_some_length_{i}" for i in range(9)]
    app.configure("x: 0.0\n", "x: 0.0\n" + "".join(f"{key}: 0.0\n" for key in keys))
    ranges = "".join(f"\n      {key}: interval(0, 1)" for key in keys)
    app.configure("x: interval(0, 2)", f"x: interval(0, 2){ranges}")
    return app


def a_study(*directions: Direction, metrics: tuple[str, ...] | None = None) -> Study:
    search = Search(
        study_name="s",
        storage="memory",
        folder=Path.cwd() / "outputs" / "s",
        directions=directions or ("maximize",),
        metrics=metrics,
        sampler={},
        pruner={"max_resource": 20},
        seed=0,
        n_trials=40,
        deadline=None,
        max_retries=1,
        max_failure_rate=0.25,
        custom_search_space=None,
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Study(search, optuna.create_study(directions=directions or ("maximize",)))


def a_trial(
    state: TrialState, *values: float, seconds: float = 1.5, step: int = 7, **attributes: object
) -> FrozenTrial:
    """A trial of a second and a half, or one that is running, after some steps."""
    kinds = ("adam", "日本語の長い値です" * 3, "naïve 🎉🎉🎉 and more")
    trial = create_trial(
        state=state,
        values=values if state == TrialState.COMPLETE else None,
        params={"optimizer.lr": 0.00123456, "optimizer.name": kinds[int(seconds * 2) % 3]},
        distributions={
            "optimizer.lr": FloatDistribution(1e-5, 1),
            "optimizer.name": CategoricalDistribution(kinds),
        },
        user_attrs=attributes,
        intermediate_values={step: values[0]} if values and state != TrialState.COMPLETE else {},
    )
    trial.datetime_start = BEGAN if state.is_finished() else datetime.now()
    trial.datetime_complete = BEGAN + timedelta(seconds=seconds) if state.is_finished() else None
    return trial


def add(study: Study, *trials: FrozenTrial) -> None:
    for trial in trials:
        study.optuna.add_trial(trial)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]


# ----------------------------------------------------------------------------------- without a terminal


def test_without_a_terminal_each_ended_trial_is_a_line(tmp_path: Path) -> None:
    """A log gets the whole of one line for each trial when it has ended, and nothing twice."""
    app = with_long_names(App(tmp_path, THREE_ENDINGS))
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=4")

    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    trials = app.trials()
    assert [int(line.split()[1]) for line in told] == [trial.number for trial in trials]
    assert [line.split()[2] for line in told] == [WORDS[trial.state] for trial in trials]
    assert re.match(rf"trial   0 done    value {trials[0].value:.5f} +\d+\.\d s  best so far  x=", told[0])
    assert "ValueError: broken" in told[2]
    assert all(line.endswith(describe(trial.params)) for line, trial in zip(told, trials, strict=True))


def test_scores_have_names_and_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """All objectives of a trial are told by their names; one without a score leaves their room."""
    study = a_study("maximize", "minimize", metrics=("val_accuracy", "seconds"))
    progress = Progress(study)
    add(
        study,
        a_trial(TrialState.COMPLETE, 0.5, 123.456),
        a_trial(TrialState.FAIL, reason="ValueError: it\nbroke\t\x1b[31m"),
        a_trial(TrialState.COMPLETE, 0.98765, 7.0, seconds=10),
    )
    progress.update(study.trials())
    told = lines(capsys)
    assert [line.partition("lr=")[0] for line in told] == [
        "trial   0 done    val_accuracy 0.50000  seconds 123.45600   1.5 s  best so far  ",
        "trial   1 failed                                            1.5 s  ValueError: it broke [31m  ",
        "trial   2 done    val_accuracy 0.98765  seconds   7.00000  10.0 s  best so far  ",
    ]


def test_the_mark_is_right_when_several_end_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Best so far is what was better than all that had ended before it, in the order in which they ended."""
    study = a_study("minimize")
    progress = Progress(study)
    ended = [(0.5, 3), (0.4, 1), (0.4, 2), (0.6, 4), (0.3, 5)]
    add(study, *(a_trial(TrialState.COMPLETE, value, seconds=seconds) for value, seconds in ended))
    progress.update(study.trials())
    assert [(line.split()[1], "best so far" in line) for line in lines(capsys)] == [
        ("1", True),
        ("2", False),
        ("0", False),
        ("3", False),
        ("4", True),
    ]


def test_a_tie_that_is_won_makes_the_best_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    """Of equal value the lower loss is better, and the live total and the summary show the same trial."""
    study = a_study("maximize")
    progress = Progress(study)
    losses = [0.3, 0.2, 0.4]
    add(study, *(a_trial(TrialState.COMPLETE, 0.5, seconds=i, val_loss=x) for i, x in enumerate(losses)))
    progress.update(study.trials())
    assert ["best so far" in line for line in lines(capsys)] == [True, True, False]
    summarize(study)
    assert "Best trial: number 1, value 0.5" in capsys.readouterr().out


def test_one_word_for_one_ending(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines and counts call a trial the same; one that was stopped or lost has not failed by itself."""
    study = a_study()
    progress = Progress(study)
    add(
        study,
        a_trial(TrialState.COMPLETE, 0.5),
        a_trial(TrialState.PRUNED, 0.25),
        a_trial(TrialState.FAIL, reason="its worker ended"),
        a_trial(TrialState.FAIL, reason="interrupted (SIGTERM)", interrupted=True),
        a_trial(TrialState.FAIL, reason="its process is gone", lost=True),
    )
    progress.update(study.trials())
    told = lines(capsys)
    assert [line.split()[2] for line in told] == ["done", "pruned", "failed", "stopped", "lost"]
    assert "SIGTERM" not in "".join(told)  # how the pool stops a worker is nobody's concern
    summarize(study)
    assert "Study s: 1 done, 1 pruned, 1 failed, 1 lost, 1 stopped." in capsys.readouterr().out


def test_a_log_says_once_a_minute_that_a_worker_lives(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for a trial that runs on: its step, its value and its seconds; none for one that ends before."""
    study = a_study(metrics=("val_accuracy",))
    times = iter([0.0, 59.0, 60.0, 61.0, 119.0, 120.5])
    progress = Progress(study, now_s=lambda: next(times))
    add(study, a_trial(TrialState.RUNNING, 0.5), a_trial(TrialState.RUNNING))
    told = []
    for _ in range(6):
        progress.update(study.trials())
        told.append(lines(capsys))
    assert list(map(len, told)) == [0, 0, 2, 0, 0, 2]
    assert re.match(r"trial   0 running val_accuracy 0\.50000 +\d+\.\d s  step  7 of 20  lr=", told[2][0])
    assert re.match(r"trial   1 running {24}\d+\.\d s  lr=", told[2][1])


def test_a_log_says_once_that_jobs_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are on their way are not worth a line, nor is it said again."""
    study = a_study()
    times = iter([0.0, 9.0, 10.0, 20.0])
    progress = Progress(study, now_s=lambda: next(times, 20.0))
    progress.n_jobs_waiting = 2
    for _ in range(8):
        progress.update(study.trials())
    told = capsys.readouterr().out.splitlines()
    assert told == ["2 jobs have not begun"]


# ---------------------------------------------------------------------------------------- on a terminal


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_each_worker_and_a_total(tmp_path: Path, columns: int) -> None:
    """A line for each running trial, one for all, and one for each ended trial: none is wider than it."""
    app = with_long_names(App(tmp_path, HELD))
    settings = ("hydra.sweeper.n_trials=10", "hydra.sweeper.pruner.max_resource=20")
    terminal = Terminal(tmp_path, "app.py", "-m", *settings, columns=columns)
    until(lambda: re.search("trial 3 +step  3 of 20", "\n".join(terminal.lines())))
    best = app.study().best_value
    app.touch("go")
    told = terminal.finish()

    assert terminal.process.returncode == 0, told
    assert max(len(line) for line in told if not line.startswith("  python ")) <= columns  # it is whole
    for number in (2, 3):
        row = rf"trial {number} +step  3 of 20  [━─]+ +0\.50000 +\d+ s  x="
        assert any(re.match(row, line) for line in told), told
    total = rf"2/10  [━─]+  best {best:.5f} · \d:\d\d:\d\d left · 2 done · 0 pruned"
    assert any(re.match(total, line) for line in told), told
    for number in range(10):
        assert sum(re.match(rf"trial +{number} done ", line) is not None for line in told) == 1


SHOW = """
import fcntl, struct, sys, termios
from optuna.trial import TrialState
from sweeper.search.progress import Progress
from tests.test_progress import a_study, a_trial, add

states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE, TrialState.RUNNING]
for columns in map(int, sys.argv[1:]):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    for names in (("val_accuracy",), ("val_mean_average_precision", "peak_memory_mb"), None):
        study = a_study(*["maximize"] * len(names or "1"), metrics=names)
        with Progress(study) as progress:
            progress.n_jobs_waiting = 2
            for i, state in enumerate(states):
                values = [0.5 + i] * len(study.search.directions)
                add(study, a_trial(state, *values, seconds=i, reason="a long story of\\na failure " * 9))
                progress.update(study.trials())
        print(f"was {columns}", flush=True)
"""


@pytest.mark.parametrize(
    "environment",
    [{}, {"COLUMNS": "300"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}],
    ids=["plain", "columns", "dumb", "no color"],
)
def test_an_ended_trial_is_one_line_at_any_width(environment: dict[str, str]) -> None:
    """Also of a terminal that was resized, whatever the environment says of it, and with wide characters."""
    widths = (60, 80, 120, 200, 40)
    root = Path(__file__).parents[1]
    terminal = Terminal(root, "-c", SHOW, *widths, columns=60, environment=environment)
    told = terminal.finish()
    assert terminal.process.returncode == 0, told
    pieces = "\n".join(told).split("was ")
    assert len(pieces) == 1 + 3 * len(widths)
    for position, piece in enumerate(pieces[:-1]):
        columns = widths[position // 3]
        shown = piece.splitlines()[position > 0 :]
        assert max(map(cell_len, shown)) <= columns, piece
        for number, word in enumerate(["done", "pruned", "failed", "done"]):
            ended = [line for line in shown if re.match(rf"trial +{number} {word} ", line)]
            assert len(ended) == 1, piece
        if position % 3 == 0:
            assert re.search(r"trial   0 done    val_accuracy 0\.5000", piece)
        if "TERM" not in environment:
            assert re.search(r"^trial 4 +step  7 of 20", piece, re.MULTILINE), piece
            assert re.search(r"^2 jobs have not begun$", piece, re.MULTILINE), piece
            assert re.search(r"^3/40  ", piece, re.MULTILINE), piece


CLUSTER = """
import fcntl, struct, termios
from optuna.trial import TrialState
from sweeper.search.progress import Progress
from tests.test_progress import a_study, a_trial, add

fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
study = a_study()
with Progress(study) as progress:
    workers = [f"node{i % 100:02}-{1000 + i}-0a1b2c3d" for i in range(1000)]
    add(study, *(a_trial(TrialState.RUNNING, 0.5, worker=worker) for worker in workers))
    progress.update(study.trials())
"""


@pytest.mark.slow
def test_a_picture_of_a_thousand_workers_fits_the_screen() -> None:
    """As many rows as it has room for, how many more there are, and on how many machines."""
    told = Terminal(Path(__file__).parents[1], "-c", CLUSTER, columns=80).finish()
    rows = [re.match(r"trial (\d+) +step  7 of 20", line) for line in told]
    assert len({row[1] for row in rows if row}) == 20
    assert "… 980 more" in told
    assert next(line for line in told if line.startswith("0/40")).endswith("0 failed · 100 hosts"), told


def test_a_pipe_gets_lines_and_no_pictures() -> None:
    """Nothing is painted into a file, even where colours are forced, and nothing is cut."""
    code = SHOW.replace("fcntl.ioctl", "(lambda *_: None)")  # which a pipe refuses
    done = run(Path(__file__).parents[1], "-c", code, "1", env={"FORCE_COLOR": "1", "COLUMNS": "40"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("trial ")]) == 12


@pytest.mark.parametrize("signs", [5, "diverged", [{"a": 1}, ["diverged"]], None])
def test_an_app_may_have_signs_of_its_own(signs: object) -> None:
    """An attribute of that name that is no list of names is none of ours."""
    assert progress._signs(create_trial(state=TrialState.RUNNING, user_attrs={"signs": signs})) == []


def test_names_are_shortened_where_they_stay_distinct() -> None:
    """``optimizer.lr`` is lr, unless another key ends so as well."""
    assert describe({"optimizer.lr": 0.00123456, "training.batch_size": 32}) == "lr=0.001235 batch_size=32"
    assert describe({"a.x": 1, "b.x": 2, "c.y": 3}) == "a.x=1 b.x=2 y=3"
    assert describe({"x": "two\nlines"}) == "x=two lines"
