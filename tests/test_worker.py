"""A worker's trials: Hydra jobs, what they return, and what other workers see of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from tests.conftest import mostly_slow
from tests.foreign_app import App, assert_exactly, worker_pid
from tests.program import IN_PROCESS, run
from tests.test_spawn import A_THREAD


def test_trial_is_a_hydra_job(tmp_path: Path) -> None:
    """A trial leaves what a Hydra job leaves, and its overrides run it again by hand."""
    body = "import logging\nlogging.getLogger('app').info('hello')\nprint('printed')\nreturn cfg.x"
    app = App(tmp_path, body)
    app.configure("x: 0.0\n", "x: 0.0\ny: e\n")
    done = app.run("y='a b','c,d'", "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    for trial in assert_exactly(app, 2):
        folder = app.out / str(trial.number)
        assert trial.user_attrs["folder"] == str(folder)
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        assert config == trial.params
        overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        assert overrides == trial.user_attrs["overrides"]
        hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert hydra["job"]["num"] == trial.number
        assert hydra["runtime"]["output_dir"] == str(folder)
        assert "hello" in (folder / "app.log").read_text()
        assert "printed" in (folder / "sweeper_output.log").read_text()
        again = run(tmp_path, "app.py", *trial.user_attrs["overrides"], f"hydra.run.dir=again/{trial.number}")
        assert again.returncode == 0, again.stderr
        composed = tmp_path / "again" / str(trial.number) / ".hydra" / "config.yaml"
        assert yaml.safe_load(composed.read_text()) == config


def test_job_callbacks_fire_in_the_worker(tmp_path: Path) -> None:
    """Hydra's on_job_start and on_job_end are called around each trial, with its result."""
    (tmp_path / "callbacks.py").write_text("""
import os
from pathlib import Path
from hydra.experimental.callback import Callback

class Note(Callback):
    def on_job_start(self, config, **kwargs):
        Path(config.hydra.runtime.output_dir, "start").write_text(str(os.getpid()))

    def on_job_end(self, config, job_return, **kwargs):
        Path(config.hydra.runtime.output_dir, "end").write_text(str(job_return.return_value))
""")
    app = App(tmp_path)
    app.configure("hydra:\n", "hydra:\n  callbacks:\n    note:\n      _target_: callbacks.Note\n")
    done = app.run("hydra.sweeper.n_trials=2", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    for trial in assert_exactly(app, 2):
        folder = app.out / str(trial.number)
        assert int((folder / "start").read_text()) == worker_pid(trial)
        assert float((folder / "end").read_text()) == trial.value


def test_results_are_kept_up_to_date(tmp_path: Path) -> None:
    """When a trial begins, optimization_results.yaml knows the best of those before it."""
    body = """
shown = HERE / "out" / "optimization_results.yaml"
(HERE / f"seen-{number}").write_text(shown.read_text())
return abs(number - 3)
"""
    app = App(tmp_path, body)
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    seen = [yaml.safe_load((tmp_path / f"seen-{number}").read_text()) for number in range(5)]
    assert [s["best_trial"] for s in seen] == [None, 0, 1, 2, 3]
    last = yaml.safe_load((app.out / "optimization_results.yaml").read_text())
    assert (last["best_trial"], last["best_value"], last["trials"]) == (3, 0.0, {"COMPLETE": 5})
    assert last["best_params"] == app.trials()[3].params


def test_result_that_is_no_score_fails_the_trial(tmp_path: Path) -> None:
    """A task that returns something else than a float is told so; its worker lives on."""
    returned = [None, "good", "12", b"12", [None], ["a"], {"loss": 1.0}, 1j, 10**400]
    n_bad = len(returned) + 4
    bad = [*map(repr, returned), "[1.0, 2.0]", "itertools.count()", "Unshown()", "[]"]
    classes = "class Unshown:\n    def __repr__(self):\n        raise ValueError"
    app = App(
        tmp_path,
        f"return [{', '.join(bad)}][number] if number < {n_bad} else cfg.x",
        f"import itertools\n{classes}",
    )
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=14", "hydra.sweeper.max_failure_rate=1")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 14)
    assert [t.state for t in trials[:n_bad]] == [TrialState.FAIL] * n_bad
    reasons = [t.user_attrs["reason"] for t in trials[:n_bad]]
    for reason, value in zip(reasons[:-1], [*map(repr, returned[:-1])], strict=False):
        assert f"returned {value}; return the score" in reason
    assert "returned a int; return the score" in reasons[len(returned) - 1]
    more, endless, unshown, empty = reasons[-4:]
    assert "returned more values than 1; return as many as" in more
    assert "returned more values than 1; return as many as" in endless
    assert "returned a Unshown; return the score" in unshown
    assert "returned fewer values than 1; return as many as" in empty


NUMBERS = """
import decimal, fractions
import numpy as np

class Score:
    def __float__(self):
        return 3.0

numbers = [3, True + 2, decimal.Decimal(3), fractions.Fraction(3), np.float32(3), np.int64(3)]
numbers += [np.array(3.0), np.array([3.0]), [3], (3.0,), {3.0}, (3 for _ in range(1)), {3: "a"}.keys()]
numbers += [Score(), [Score()]]
"""


def test_anything_like_a_number_is_a_value(tmp_path: Path) -> None:
    """Decimals, fractions, numpy's, an own class with ``__float__``, and whatever holds one such value."""
    app = App(tmp_path, "return numbers[number]", NUMBERS)
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=15")
    assert done.returncode == 0, done.stderr
    assert [t.values for t in assert_exactly(app, 15)] == [[3.0]] * 15


def test_anything_iterable_is_several_objectives(tmp_path: Path) -> None:
    """Tuples, arrays, generators, sets' views, an own class: as many values as there are directions."""
    classes = "class Pair:\n    def __iter__(self):\n        return iter((1, 2))"
    pairs = (
        "[(1, 2), np.array([1, 2]), iter([1, 2]), {1: 0, 2: 0}.keys(), range(1, 3), Pair(), map(float, '12')]"
    )
    app = App(tmp_path, f"return {pairs}[number]", f"import numpy as np\n{classes}")
    done = app.run(
        *IN_PROCESS,
        "hydra.sweeper.direction=[minimize,maximize]",
        "hydra/sweeper/pruner=none",
        "hydra.sweeper.n_trials=7",
    )
    assert done.returncode == 0, done.stderr
    assert [t.values for t in assert_exactly(app, 7)] == [[1.0, 2.0]] * 7


RAISED = """
import asyncio

class Own(BaseException):
    pass

class Unshown(Exception):
    def __str__(self):
        raise ValueError("no")

raised = [Own("mine"), GeneratorExit(), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(0)]
raised += [Unshown(), ValueError("\\udcff and \\0"), RecursionError()]
"""


def test_whatever_a_task_raises_fails_its_trial_alone(tmp_path: Path) -> None:
    """Exceptions of any base class are told; none kills the worker, and none is tried again."""
    app = App(tmp_path, "if number < 8:\n    raise raised[number]\nreturn cfg.x", RAISED)
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=10", "hydra.sweeper.max_failure_rate=1")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 10)
    assert [t.state for t in trials[:8]] == [TrialState.FAIL] * 8
    assert len(trials) == 18
    assert len({worker_pid(t) for t in trials}) == 1
    assert not any("retry_of" in t.user_attrs for t in trials)
    names = ["Own", "GeneratorExit", "KeyboardInterrupt", "CancelledError", "SystemExit", "Unshown"]
    assert [t.user_attrs["reason"].partition(":")[0] for t in trials[:6]] == names


@pytest.mark.parametrize(
    "top", [pytest.param("", marks=pytest.mark.slow), A_THREAD], ids=["forked", "spawned"]
)
def test_last_words_of_a_worker_do_not_reach_the_terminal(tmp_path: Path, top: str) -> None:
    """What libraries print when their process ends goes to the worker's own file."""
    app = App(
        tmp_path, "atexit.register(os.system, 'echo last words')\nreturn cfg.x", "import atexit\n" + top
    )
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    assert "last words" not in done.stdout + done.stderr
    assert any("last words" in path.read_text() for path in app.out.glob("**/.sweeper/worker-*.log"))


def test_a_process_that_the_task_forked_is_no_second_worker(tmp_path: Path) -> None:
    """A child that comes back from the task, or exits from it, ends there; the trial is its parent's."""
    body = """
child = os.fork()
if child == 0:
    if number == 0:
        sys.exit(3)
    return 17.0
sweeper.trial().set_user_attr("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
return cfg.x
"""
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 2)
    assert [t.user_attrs["code"] for t in trials] == [3, 0]
    assert [t.value for t in trials] == [t.params["x"] for t in trials]


def test_processes_of_the_task_have_the_handlers_of_the_script(tmp_path: Path) -> None:
    """SIGINT and SIGTERM are the worker's own affair: what the app starts ends by them as ever."""
    body = """
told = [multiprocessing.Process(target=rest) for _ in range(2)]
for process, signum in zip(told, (signal.SIGTERM, signal.SIGINT)):
    process.start()
    wait_for(f"up-{process.pid}")
    os.kill(process.pid, signum)
    process.join(20)
sweeper.trial().set_user_attr("codes", [process.exitcode for process in told])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
return cfg.x
"""
    rest = "def rest():\n    (HERE / f'up-{os.getpid()}').touch()\n    time.sleep(60)"
    app = App(tmp_path, body, rest)
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    assert assert_exactly(app, 1)[0].user_attrs["codes"] == [-signal.SIGTERM, 1]


def test_diverged_trial_is_pruned_and_marked(tmp_path: Path) -> None:
    """NaN or infinity, returned or reported, ends the trial as PRUNED with the mark diverged."""
    app = App(
        tmp_path,
        """
value = [math.nan, math.inf, -math.inf][number % 3]
if number < 3:
    return value
if number < 6:
    sweeper.trial().report(value, 3)
return cfg.x
""",
    )
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=8")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 8)
    assert [t.state for t in trials] == [TrialState.PRUNED] * 6 + [TrialState.COMPLETE] * 2
    assert [t.user_attrs.get("diverged") for t in trials] == [True] * 6 + [None] * 2
    assert [list(t.intermediate_values) for t in trials] == [[0]] * 3 + [[3]] * 3 + [[]] * 2


def test_several_objectives(tmp_path: Path) -> None:
    """A list of directions takes a list of values; a diverged one is pruned; the solutions are written."""
    app = App(tmp_path, "return [math.nan, 1.0] if number == 1 else (cfg.x, -cfg.x)")
    done = app.run(
        "hydra.sweeper.direction=[minimize,maximize]", "hydra/sweeper/pruner=none", "hydra.sweeper.n_trials=4"
    )
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 4)
    assert (trials[1].state, trials[1].user_attrs["diverged"]) == (TrialState.PRUNED, True)
    results = yaml.safe_load((app.out / "optimization_results.yaml").read_text())
    best = app.study().best_trials
    assert sorted(s["trial"] for s in results["solutions"]) == sorted(t.number for t in best)


@pytest.mark.parametrize("sampler", mostly_slow(["random", "qmc"], 2))
def test_number_of_workers_does_not_change_the_points(tmp_path: Path, sampler: str) -> None:
    """Seed and trial number decide the point, whichever worker asks: one worker and three draw the same."""
    points = []
    for n_jobs in (1, 3):
        folder = tmp_path / str(n_jobs)
        folder.mkdir()
        app = App(folder)
        app.configure("x: 0.0\n", "x: 0.0\nk: a\nn: 1\n")
        app.configure(
            "x: interval(0, 2)", "x: interval(0, 2)\n      k: choice(a, b, c)\n      n: range(1, 9)"
        )
        settings = [
            f"hydra.sweeper.n_jobs={n_jobs}",
            f"hydra/sweeper/sampler={sampler}",
            "hydra.sweeper.seed=7",
        ]
        done = app.run(*settings)
        assert done.returncode == 0, done.stderr
        points.append([t.params for t in assert_exactly(app, 6)])
    assert points[0] == points[1]
    assert len({p["x"] for p in points[0]}) == 6


@pytest.mark.parametrize(
    "pruner",
    [
        ["median", "hydra.sweeper.pruner.n_startup_trials=3"],
        pytest.param(
            ["asha", "hydra.sweeper.pruner.min_resource=1", "hydra.sweeper.pruner.reduction_factor=2"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["median", "asha"],
)
def test_worker_prunes_on_what_the_others_reported(tmp_path: Path, pruner: list[str]) -> None:
    """A worker with a bad trial stops it because of trials that only other workers ran."""
    body = """
started()
if number == 0:
    wait_for("started-5")
sweeper.trial().report(10.0 if number == 0 else 1.0, 1)
return 1.0
"""
    app = App(tmp_path, body)
    done = app.run(f"hydra/sweeper/pruner={pruner[0]}", *pruner[1:])
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert trials[0].state == TrialState.PRUNED
    assert all(worker_pid(t) != worker_pid(trials[0]) for t in trials[1:5])
    assert [t.state for t in trials[1:]] == [TrialState.COMPLETE] * 5


def test_exit_in_the_task_fails_the_trial(tmp_path: Path) -> None:
    """sys.exit in the task is a failed trial, not the end of the worker."""
    app = App(tmp_path, "if number == 1:\n    sys.exit('enough')\nreturn cfg.x")
    done = app.run("hydra.sweeper.n_jobs=1")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert "enough" in trials[1].user_attrs["reason"]
    assert "SystemExit: enough" in (app.out / "1" / "sweeper_traceback.txt").read_text()
    assert len({worker_pid(t) for t in trials}) == 1


def test_custom_search_space_suggests_further_parameters(tmp_path: Path) -> None:
    """A function of the person's own adds parameters to the trial, its config and its overrides."""
    (tmp_path / "extra.py").write_text("def extend(config, trial):\n    trial.suggest_int('y', 5, 9)\n")
    app = App(tmp_path, "return cfg.y")
    app.configure("x: 0.0\n", "x: 0.0\ny: 0\n")
    done = app.run(*IN_PROCESS, "hydra.sweeper.custom_search_space=extra.extend", "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    for trial in assert_exactly(app, 3):
        assert trial.value == trial.params["y"] >= 5
        assert f"y={trial.params['y']}" in trial.user_attrs["overrides"]


@pytest.mark.slow
def test_custom_search_space_suggests_overrides(tmp_path: Path) -> None:
    """It is composed: an option of a group with what its file brings, a dotted key, a new key."""
    (tmp_path / "extra.py").write_text("""
def extend(config, trial):
    option = trial.suggest_categorical("model", ["small", "large"])
    trial.suggest_categorical("sizes.first", ["[1,2]", "[3]"])
    trial.suggest_float("+fresh", 0, 1)
    config.model.width = -1  # what it does to the config stays there
""")
    for option, width in (("small", 1), ("large", 100)):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / f"{option}.yaml").write_text(f"width: {width}\nname: {option}\n")
    app = App(tmp_path, "return cfg.model.width + len(cfg.sizes.first) + cfg.fresh")
    app.configure("  - _self_\n", "  - _self_\n  - model: small\n")
    app.configure("x: 0.0\n", "x: 0.0\nsizes:\n  first: []\n")
    done = app.run("hydra.sweeper.custom_search_space=extra.extend", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    widths = {"small": 1, "large": 100}
    for trial in assert_exactly(app, 6):
        params = trial.params
        n_sizes = 2 if params["sizes.first"] == "[1,2]" else 1
        assert trial.value == widths[params["model"]] + n_sizes + params["+fresh"]
        assert f"model={params['model']}" in trial.user_attrs["overrides"]


@pytest.mark.parametrize(
    "path", mostly_slow(["nowhere.extend", "extra.nothing", "extra.number", "extra", ""], 3)
)
def test_a_custom_search_space_that_is_not_there_is_told(tmp_path: Path, path: str) -> None:
    """One line and exit code 2, before anything is written."""
    (tmp_path / "extra.py").write_text("number = 3\n")
    app = App(tmp_path)
    done = app.run(f"hydra.sweeper.custom_search_space={path}", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith(f"hydra.sweeper.custom_search_space={path}: ")
    assert len(done.stderr.splitlines()) == 1
    assert not app.out.exists()


ENDED_BY_OTHERS = """
from optuna.storages import JournalStorage
from sweeper.record.run_files import RunFiles
from sweeper.search.storage import open_storage
run = RunFiles(HERE / "out" / str(number))
if number < 5:
    run.mark()
    run.weights.write_text("weights")
    study = optuna.load_study(study_name="s", storage=open_storage(str(HERE / "outputs" / "studies.journal")))
    study._storage.set_trial_user_attr(study.trials[number]._trial_id, "lost", True)
    study.tell(number, state=optuna.trial.TrialState.FAIL)
if number in (1, 2):
    sweeper.trial().report(cfg.x, 1)
if number == 3:
    try:
        sweeper.trial().set_user_attr("a", 1)
    except Exception as error:
        raise ValueError("it failed") from error
if number == 4:
    return math.inf
return cfg.x
"""


def test_the_result_of_a_trial_that_others_have_ended_is_dropped(tmp_path: Path) -> None:
    """However its app goes on or ends: the trial and its folder stay as they are, without weights."""
    app = App(tmp_path, ENDED_BY_OTHERS)
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2", "hydra.sweeper.max_retries=0")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = app.trials()
    assert [t.state.name for t in trials] == ["FAIL"] * 5 + ["COMPLETE"] * 2
    assert not [
        name for t in trials[:5] for name in ("reason", "traceback", "diverged") if name in t.user_attrs
    ]
    assert not list(app.out.glob("*/weights.safetensors"))
    assert not list(app.out.glob("*/sweeper_traceback.txt"))
    assert not (app.out / "best").exists()
    log = app.out.glob(".sweeper/worker*")
    assert sum(path.read_text().count("its result is dropped") for path in log) == 5
