"""The pool as it runs a certificate: whom it trains, with which seeds, and what kills cost."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.results.plan import CANDIDATE, DEFAULTS, REPEAT, Candidate, Plan
from sweeper.search import look
from tests import planned
from tests.foreign_app import App, assert_exactly, worker_pid
from tests.planned import ARGUMENTS, assert_trained, of_trials, put
from tests.program import IN_PROCESS, Program, finish, is_running, kill_group, run, until

NOISY = """
started()
print(cfg.seed)
return cfg.x + 0.001 * (cfg.seed % 7)
"""

UNDECIDED = """
started()
print(cfg.seed)
return cfg.x, cfg.seed % 7
"""

HOLD = f"""
if number < 3:
    started()
    wait_for("go")
{UNDECIDED}
"""


def noisy(folder: Path, body: str = NOISY) -> App:
    """An app with a seed in its config."""
    app = App(folder, body)
    app.configure("x: 0.0", "x: 0.25\nseed: 3")
    return app


def undecided(folder: Path, body: str = UNDECIDED, n_seeds: int = 3) -> App:
    """One with two objectives, where nobody drops out, and a plan of trials 0 and 1 and the defaults."""
    app = noisy(folder, body)
    app.configure("    study_name: s", "    direction: [minimize, maximize]\n    study_name: s")
    put(app, of_trials({"x": 0.5}, {"x": 0.5}, n_seeds=n_seeds))
    return app


def seeds(trials: list[FrozenTrial]) -> dict[int, set[int]]:
    """What the app printed of its seed, by repeat."""
    found: dict[int, set[int]] = {}
    for trial in (t for t in trials if t.state == TrialState.COMPLETE):
        printed = TrialFiles(Path(trial.user_attrs["folder"])).output.read_text()
        found.setdefault(trial.user_attrs[REPEAT], set()).add(int(printed))
    return found


def test_certificate_trains_each_candidate_as_often_as_planned(tmp_path: Path) -> None:
    """A folder with a plan makes the search's command train its candidates, whatever its own budget: each
    with the same new seeds, and the defaults with the config's own values."""
    app = noisy(tmp_path)
    put(app, of_trials({"x": 0.2505}, {"x": 0.251}, n_seeds=2))
    done = app.run(*ARGUMENTS, "hydra.sweeper.n_trials=2", "hydra.sweeper.timeout_s=0", "seed=3")
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    assert assert_trained(trials, 6) == {"trial 0": 2, "trial 1": 2, DEFAULTS: 2}
    by_repeat = seeds(trials)
    assert [len(same) for same in by_repeat.values()] == [1, 1]
    assert len(set.union(*by_repeat.values()) | {3}) == 3
    xs = {"trial 0": 0.2505, "trial 1": 0.251, DEFAULTS: 0.25}
    for trial in trials:
        (seed,) = by_repeat[trial.user_attrs[REPEAT]]
        assert trial.value == xs[trial.user_attrs[CANDIDATE]] + 0.001 * (seed % 7)
        assert f"seed={seed}" in trial.user_attrs["overrides"]
        assert "seed=3" not in trial.user_attrs["overrides"]
        assert trial.params == ({} if trial.user_attrs[CANDIDATE] == DEFAULTS else {"x": trial.params["x"]})
    assert f"Study {planned.NAME}: a certificate of s: 6 trainings of 3 candidates, in" in done.stdout
    assert "trial 1, 2 of 2" in done.stdout
    assert "best" not in done.stdout.lower()


# --- kills --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_training_runs_again_as_it_was(tmp_path: Path) -> None:
    """kill -9 of a worker: the same candidate, with the same number and seed; also the defaults, which have
    no parameters."""
    app = undecided(tmp_path, HOLD)
    process = app.start(*ARGUMENTS, "hydra.sweeper.n_jobs=3")
    until(lambda: app.has_started(0, 1, 2))
    for trial in planned.trials(app):
        os.kill(worker_pid(trial), signal.SIGKILL)
    until(lambda: app.has_started(3))
    app.touch("go")
    done = finish(process)
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    assert set(assert_trained(trials, 9).values()) == {3}
    again = [t for t in trials if "retry_of" in t.user_attrs]
    assert sorted(t.user_attrs["retry_of"] for t in again) == [0, 1, 2]
    for one in again:
        first = trials[one.user_attrs["retry_of"]]
        for name in (CANDIDATE, REPEAT):
            assert one.user_attrs[name] == first.user_attrs[name]
    assert [len(same) for same in seeds(trials).values()] == [1, 1, 1]


@pytest.mark.slow
def test_a_stopped_certificate_goes_on_also_with_a_longer_plan(tmp_path: Path) -> None:
    """Ctrl-C: exit code 130, the command that a person types, and the same command goes on where it was, up
    to what is planned by then."""
    app = undecided(tmp_path, HOLD, n_seeds=2)
    process = app.start(*ARGUMENTS)
    until(lambda: app.has_started(0, 1))
    kill_group(process, signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130
    (last,) = [line for line in done.stdout.splitlines() if "To go on" in line]
    assert last.endswith(" certify out")
    app.touch("go")
    put(app, of_trials({"x": 0.5}, {"x": 0.5}, n_seeds=3))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "9 trainings of 3 candidates, in" in done.stdout
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


def size(app: App) -> int:
    return app.journal.stat().st_size if app.journal.exists() else 0


def at_a_random_moment(app: App, process: Program, dice: random.Random) -> None:
    """After a trial more has begun, and the journal has grown by some bytes."""
    goal = len(planned.trials(app)) + 1
    until(lambda: len(planned.trials(app)) >= goal or process.poll() is not None)
    n_bytes = size(app) + dice.choice([0, dice.randrange(3000), dice.randrange(1000)])
    until(lambda: size(app) >= n_bytes or process.poll() is not None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [31])
def test_random_kills_cost_no_training(tmp_path: Path, seed: int) -> None:
    """Of a worker, of the pool alone, of everything, at any moment: exactly the plan, and none twice."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    app = undecided(tmp_path, f"time.sleep(0.1)\n{UNDECIDED}", n_seeds=4)
    command = (*ARGUMENTS, "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.max_retries=100")
    n_killed = 0
    for _ in range(4):
        process = app.start(*command)
        at_a_random_moment(app, process, dice)
        n_killed += process.poll() is None
        kind = dice.choice(["worker", "pool", "all", "all"])
        running = [t for t in planned.trials(app) if t.state == TrialState.RUNNING]
        if kind == "worker":
            for trial in running[:1]:
                if "worker" in trial.user_attrs and is_running(pid := worker_pid(trial)):
                    os.kill(pid, signal.SIGKILL)
            at_a_random_moment(app, process, dice)
        if kind == "pool":
            process.kill()
        else:
            kill_group(process)
        finish(process)
    assert n_killed >= 2
    done = app.run(*command)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    trials = planned.trials(app)
    assert set(assert_trained(trials, 12).values()) == {4}
    assert [len(same) for same in seeds(trials).values()] == [1] * 4


@pytest.mark.slow
def test_two_commands_share_a_certificate(tmp_path: Path) -> None:
    """Begun twice at the same time, it trains what was planned once."""
    app = undecided(tmp_path)
    for process in [app.start(*ARGUMENTS) for _ in range(2)]:
        done = finish(process)
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


# --- the race -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_who_is_worse_drops_out(tmp_path: Path) -> None:
    """Who is shown to be worse is told and gets no more trainings; a race that is decided ends well, before
    its budget is spent."""
    app = noisy(tmp_path)
    app.configure("x: 0.25", "x: 1.0")
    put(app, of_trials({"x": 0.5}, {"x": 2.0}, n_seeds=10))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = planned.trials(app)
    counts = assert_trained(trials, len(trials))
    assert len(trials) < 25
    assert max(counts.values()) <= counts["trial 0"] + 1
    assert "trial 1 is out: worse than trial 0 by 1.5" in done.stdout
    assert "the defaults are out: worse than trial 0 by 0.5" in done.stdout


@pytest.mark.slow
def test_a_candidate_that_diverges_is_out(tmp_path: Path) -> None:
    """Its training counts, and the others get the rest."""
    app = noisy(tmp_path, f"if cfg.x > 1:\n    return float('nan')\n{NOISY}")
    put(app, of_trials({"x": 0.2505}, {"x": 1.5}, n_seeds=2))
    done = app.run(*ARGUMENTS, *IN_PROCESS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert assert_trained(planned.trials(app), 6) in ({"trial 0": 3, "trial 1": 1, DEFAULTS: 2},)


@pytest.mark.slow
def test_trainings_that_fail_end_a_certificate_as_they_end_a_search(tmp_path: Path) -> None:
    """The traceback, the reason, and exit code 1; who fails is not tried again before its turn."""
    app = undecided(tmp_path, f"if number in (0, 3, 6):\n    raise ValueError('broken')\n{UNDECIDED}")
    done = app.run(*ARGUMENTS, *IN_PROCESS)
    assert done.returncode == 1
    assert "ValueError: broken" in done.stderr
    names = ["trial 0", "trial 1", DEFAULTS]
    assert [t.user_attrs[CANDIDATE] for t in planned.trials(app)] == [*names, *names, "trial 0"]


# --- whatever the app ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_settings_of_a_search_do_not_matter(tmp_path: Path) -> None:
    """No sampler draws, no pruner prunes, folders have their own names, and one process does, too."""
    app = noisy(tmp_path, f"for step in range(3):\n    sweeper.trial().report(step, step)\n{NOISY}")
    put(app, of_trials({"x": 0.25}, {"x": 0.2505}, n_seeds=2))
    grid = ("hydra/sweeper/sampler=grid", "x=0.25,0.2505")
    pruner = ("hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.upper=0.0")
    done = app.run(
        *ARGUMENTS, *IN_PROCESS, *grid, *pruner, "hydra.sweep.subdir=${hydra.job.override_dirname}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = planned.trials(app)
    assert set(assert_trained(trials, 6).values()) == {2}
    assert len({t.user_attrs["folder"] for t in trials}) == 6


@pytest.mark.slow
def test_spawned_workers_certify(tmp_path: Path) -> None:
    """Where the command cannot be forked the plan goes with the orders; the certificate is in the storage
    that its folder remembers."""
    app = undecided(tmp_path)
    url, files = f"sqlite:///{tmp_path}/studies.db", StudyFiles(tmp_path / planned.NAME)
    files.mark(planned.NAME, url)
    thread = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    app.write(UNDECIDED, top=f"import threading\n{thread}")
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Workers are spawned" in done.stdout
    assert not app.journal.exists()
    assert set(assert_trained(look.look(files), 9).values()) == {3}


@pytest.mark.slow
def test_parameters_of_a_custom_search_space_are_taken(tmp_path: Path) -> None:
    """What the person's own function suggested in the search is taken again; the defaults have the config's
    own value. An app without a seed runs as it is."""
    (tmp_path / "extra.py").write_text("def extend(config, trial):\n    trial.suggest_int('y', 5, 9)\n")
    app = App(tmp_path, "return cfg.y")
    app.configure("x: 0.0\n", "x: 0.0\ny: 2\n")
    put(app, of_trials({"x": 0.5, "y": 7}, n_seeds=1))
    done = app.run(*ARGUMENTS, *IN_PROCESS, "hydra.sweeper.custom_search_space=extra.extend")
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    assert assert_trained(trials, 2) == {"trial 0": 1, DEFAULTS: 1}
    assert {t.value for t in trials} == {2, 7}
    assert trials[0].params == {"x": 0.5, "y": 7}


@pytest.mark.slow
def test_seeds_are_new_wherever_the_app_has_them(tmp_path: Path) -> None:
    """They are put into the key that the search's own seed follows, and into what interpolates it; an app
    that mixes its seed with the trial's number gets none that the search had."""
    body = "assert cfg.noise.seed == cfg.other\nprint(cfg.other)\nreturn cfg.x, sweeper.trial().seed(7)"
    app = App(tmp_path, body)
    app.configure("x: 0.0", "x: 0.0\nnoise:\n  seed: 3\nother: ${noise.seed}")
    app.configure("    study_name: s", "    direction: [minimize, maximize]\n    study_name: s")
    app.configure("    study_name: s", "    study_name: s\n    seed: ${noise.seed}")
    assert app.run(*IN_PROCESS).returncode == 0
    put(app, of_trials({"x": 0.5}, {"x": 0.6}))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    searched = {t.values[1] for t in assert_exactly(app, 6)}
    trials = planned.trials(app)
    again = Counter(t.values[1] for t in trials)
    assert len(searched) == 6
    assert list(again.values()) == [3, 3, 3]
    assert not searched & again.keys()
    in_config = set.union(*seeds(trials).values())
    assert len(in_config | {3}) == 4


@pytest.mark.slow
def test_without_a_value_in_the_config_there_is_no_baseline(tmp_path: Path) -> None:
    """It is told, the plan has no defaults any more, and the others are trained."""
    app = App(tmp_path)
    app.configure("x: 0.0", "x: ???")
    files = put(app, of_trials({"x": 0.5}, {"x": 0.6}, n_seeds=1))
    done = app.run(*ARGUMENTS, *IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert "There is no baseline: x=interval(0, 2): the config has no value of its own for it" in done.stdout
    plan = Plan.read(files)
    assert plan is not None
    assert plan.names == ("trial 0", "trial 1")
    assert assert_trained(planned.trials(app), 2) == {"trial 0": 1, "trial 1": 1}


@pytest.mark.slow
def test_a_candidate_of_another_search_is_refused(tmp_path: Path) -> None:
    """One line and exit code 2, before anything is trained."""
    app = App(tmp_path)
    put(app, of_trials({"x": 0.5, "y": 1}))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == "y=1: trial 0 has it, and this command does not search it; write the search's own command"
    assert planned.trials(app) == []


# --- our own app --------------------------------------------------------------------------------------------

SEARCH = ("-m", "sweeper", "-m", "training.epochs=1", "optimizer=adam,sgd", "hydra.sweeper.n_jobs=2")


@pytest.mark.slow
def test_our_own_certificate(tmp_path: Path) -> None:
    """Folds of the same train and validation parts, new seeds, no test scores and no best/; the weights of
    each candidate's first training; and each can be trained again to the last bit."""
    done = run(
        tmp_path, *SEARCH, "study=s", "hydra.sweeper.n_trials=2", "hydra/sweeper/pruner=none", limit_s=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    searched = look.read(StudyFiles(tmp_path / "outputs" / "s"))
    candidates = [Candidate(t.number, t.params, tuple(t.values), 1.0) for t in searched.trials]
    files = StudyFiles(tmp_path / "outputs" / planned.NAME)
    files.mark(planned.NAME, searched.files.read_storage() or "")
    folds = tuple({"dataset.n_folds": 2, "dataset.fold": fold} for fold in range(2))
    defaults = Candidate(None, None, None, None)
    Plan("s", str(searched.files.folder), (*candidates, defaults), 2, 2, 7, folds).write(files)
    done = run(tmp_path, *SEARCH, f"study={planned.NAME}", limit_s=100)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = look.look(files)
    n_trained = sum(t.state == TrialState.COMPLETE for t in trials)
    assert_trained(trials, n_trained)
    before = {
        yaml.safe_load(files_of.config.read_text())["seed"] for files_of in map(searched.run, searched.trials)
    }
    with_weights = set()
    for trial in trials:
        one = files.run(trial.number)
        config, repeat = yaml.safe_load(one.config.read_text()), trial.user_attrs[REPEAT]
        assert (config["dataset"]["n_folds"], config["dataset"]["fold"]) == (2, repeat % 2)
        assert config["seed"] not in before
        assert not any(name.startswith("test_") for name in json.loads(one.result.read_text()))
        if one.has_weights:
            with_weights.add((trial.user_attrs[CANDIDATE], repeat))
    assert with_weights <= {("trial 0", 0), ("trial 1", 0), (DEFAULTS, 0)}
    assert with_weights
    left = {path.name for path in files.folder.iterdir() if not path.name.isdecimal()}
    assert left <= {".sweeper", "multirun.yaml", "optimization_results.yaml"}
    last = run(
        tmp_path, "-m", "sweeper", "reproduce", planned.NAME, "--trial", trials[-1].number, limit_s=100
    )
    assert last.returncode == 0, last.stdout + last.stderr
    assert "identical" in last.stdout
