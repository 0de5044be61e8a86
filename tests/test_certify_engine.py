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

from sweeper.record import StudyFiles, TrialFiles
from sweeper.search import study
from sweeper.search.plan import CANDIDATE, DEFAULTS, REPEAT, Candidate, Plan
from tests import planned
from tests.foreign_app import App, assert_exactly, worker_pid
from tests.planned import ARGUMENTS, assert_trained, of_trials, put
from tests.program import IN_PROCESS, Program, finish, kill_group, run, until

NOISY = """
started()
print(cfg.seed)
return cfg.x + 0.001 * (cfg.seed % 7)
"""

HOLD = f"""
if number < 3:
    started()
    wait_for("go")
{NOISY}
"""


def noisy(folder: Path, body: str = NOISY, n_seeds: int = 3) -> App:
    """An app with a seed in its config, and a plan of trials 0 and 1, which are alike, and the defaults."""
    app = App(folder, body)
    app.configure("x: 0.0", "x: 0.5\nseed: 3")
    put(app, of_trials({"x": 0.5}, {"x": 0.5}, n_seeds=n_seeds))
    return app


def seeds(trials: list[FrozenTrial]) -> dict[int, set[int]]:
    """What ``NOISY`` printed of its seed, by repeat."""
    found: dict[int, set[int]] = {}
    for trial in (t for t in trials if t.state == TrialState.COMPLETE):
        printed = TrialFiles(Path(trial.user_attrs["folder"])).output.read_text()
        found.setdefault(trial.user_attrs[REPEAT], set()).add(int(printed))
    return found


def test_certificate_trains_each_candidate_as_often_as_planned(tmp_path: Path) -> None:
    """A folder with a plan makes the search's command train its candidates, whatever its own budget: each
    with the same new seeds, and the defaults with the config's own values."""
    app = App(tmp_path, NOISY)
    app.configure("x: 0.0", "x: 0.25\nseed: 3")
    put(app, of_trials({"x": 0.2505}, {"x": 0.251}))
    done = app.run(*ARGUMENTS, "hydra.sweeper.n_trials=2", "hydra.sweeper.timeout_s=0", "seed=3")
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    assert assert_trained(trials, 9) == {"trial 0": 3, "trial 1": 3, DEFAULTS: 3}
    by_repeat = seeds(trials)
    assert [len(same) for same in by_repeat.values()] == [1, 1, 1]
    assert len(set.union(*by_repeat.values()) | {3}) == 4
    xs = {"trial 0": 0.2505, "trial 1": 0.251, DEFAULTS: 0.25}
    for trial in trials:
        (seed,) = by_repeat[trial.user_attrs[REPEAT]]
        assert trial.value == xs[trial.user_attrs[CANDIDATE]] + 0.001 * (seed % 7)
        assert f"seed={seed}" in trial.user_attrs["overrides"]
        assert "seed=3" not in trial.user_attrs["overrides"]
        assert trial.params == ({} if trial.user_attrs[CANDIDATE] == DEFAULTS else {"x": trial.params["x"]})
    assert f"Study {planned.NAME}: a certificate of s: 9 trainings of 3 candidates, in" in done.stdout
    assert "trial 1, 3 of 3" in done.stdout
    assert "best" not in done.stdout.lower()


# --- kills --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_training_runs_again_as_it_was(tmp_path: Path) -> None:
    """kill -9 of a worker: the same candidate, with the same number and seed; also the defaults, which have
    no parameters."""
    app = noisy(tmp_path, HOLD)
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
def test_a_stopped_certificate_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C: exit code 130, the command that a person types, and the same command goes on where it was."""
    app = noisy(tmp_path, HOLD)
    process = app.start(*ARGUMENTS)
    until(lambda: app.has_started(0, 1))
    kill_group(process, signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130
    (last,) = [line for line in done.stdout.splitlines() if "To go on" in line]
    assert last.endswith(" certify out")
    app.touch("go")
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


def size(app: App) -> int:
    return app.journal.stat().st_size if app.journal.exists() else 0


def at_a_random_moment(app: App, process: Program, dice: random.Random) -> None:
    goal = size(app) + dice.choice([0, dice.randrange(6000), dice.randrange(2000)])
    until(lambda: size(app) >= goal or process.poll() is not None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [31, 32])
def test_random_kills_cost_no_training(tmp_path: Path, seed: int) -> None:
    """Of a worker, of the pool alone, of everything, at any moment: exactly the plan, and none twice."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    app = noisy(tmp_path, n_seeds=6)
    command = (*ARGUMENTS, "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.max_retries=100")
    for _ in range(7):
        process = app.start(*command)
        at_a_random_moment(app, process, dice)
        kind = dice.choice(["worker", "pool", "all", "all"])
        running = [t for t in planned.trials(app) if t.state == TrialState.RUNNING]
        if kind == "worker":
            for trial in running[:1]:
                if "worker" in trial.user_attrs and process.poll() is None:
                    os.kill(worker_pid(trial), signal.SIGKILL)
        if kind == "pool":
            process.kill()
        else:
            at_a_random_moment(app, process, dice)
            kill_group(process)
        finish(process)
    done = app.run(*command)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    trials = planned.trials(app)
    assert set(assert_trained(trials, 18).values()) == {6}
    assert [len(same) for same in seeds(trials).values()] == [1] * 6


@pytest.mark.slow
def test_two_commands_share_a_certificate(tmp_path: Path) -> None:
    """Begun twice at the same time, it trains what was planned once."""
    app = noisy(tmp_path)
    processes = [app.start(*ARGUMENTS) for _ in range(2)]
    for process in processes:
        done = finish(process)
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


@pytest.mark.slow
def test_a_plan_that_was_extended_goes_on_with_more(tmp_path: Path) -> None:
    """More seeds in the plan: the same command trains the rest, with numbers of its own."""
    app = noisy(tmp_path, n_seeds=1)
    assert app.run(*ARGUMENTS).returncode == 0
    assert_trained(planned.trials(app), 3)
    put(app, of_trials({"x": 0.5}, {"x": 0.5}, n_seeds=3))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "9 trainings of 3 candidates, 3 of them ended before" in done.stdout
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


# --- the race -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_who_is_worse_drops_out(tmp_path: Path) -> None:
    """Who is shown to be worse is told and gets no more trainings; a race that is decided ends well, before
    its budget is spent."""
    app = App(tmp_path, NOISY)
    app.configure("x: 0.0", "x: 1.0\nseed: 3")
    put(app, of_trials({"x": 0.5}, {"x": 0.5}, {"x": 2.0}, n_seeds=5))
    done = app.run(*ARGUMENTS, "hydra.sweeper.n_jobs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = assert_trained(planned.trials(app), 20)  # the rest goes to those still in
    assert counts["trial 0"] == counts["trial 1"] > 5
    assert counts["trial 2"] < 5 > counts[DEFAULTS]
    assert "trial 2 is out: worse than trial" in done.stdout
    assert "defaults is out: worse than trial" in done.stdout
    put(app, of_trials({"x": 0.5}, n_seeds=50))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(planned.trials(app)) == 20  # the defaults are out: there is nobody to compare with


@pytest.mark.slow
def test_a_candidate_that_diverges_is_out(tmp_path: Path) -> None:
    """Its training counts, and the others get the rest."""
    app = App(tmp_path, f"if cfg.x > 1:\n    return float('nan')\n{NOISY}")
    app.configure("x: 0.0", "x: 0.5\nseed: 3")
    put(app, of_trials({"x": 0.5}, {"x": 1.5}))
    done = app.run(*ARGUMENTS, "hydra.sweeper.n_jobs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert assert_trained(planned.trials(app), 9) == {"trial 0": 4, "trial 1": 1, DEFAULTS: 4}
    assert "trial 1 is out: a training of it diverged" in done.stdout


@pytest.mark.slow
def test_trainings_that_fail_end_a_certificate_as_they_end_a_search(tmp_path: Path) -> None:
    """The traceback, the reason, and exit code 1; who fails is not tried again before its turn."""
    app = noisy(
        tmp_path, f"if cfg.seed != 3 and number in (0, 3, 6):\n    raise ValueError('broken')\n{NOISY}"
    )
    done = app.run(*ARGUMENTS, "hydra.sweeper.n_jobs=1")
    assert done.returncode == 1
    assert "ValueError: broken" in done.stderr
    assert [t.user_attrs[CANDIDATE] for t in planned.trials(app)] == ["trial 0", "trial 1", DEFAULTS] * 2 + [
        "trial 0"
    ]


@pytest.mark.slow
def test_several_objectives_are_trained_without_a_race(tmp_path: Path) -> None:
    """Each candidate as often as the others, and nobody is out."""
    app = noisy(tmp_path, "return cfg.x, cfg.seed % 7")
    app.configure("    study_name: s", "    direction: [minimize, maximize]\n    study_name: s")
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


# --- whatever the app ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(IN_PROCESS, id="in process"),
        pytest.param(("hydra/sweeper/sampler=grid", "x=0.5,0.6"), id="grid"),
        pytest.param(("hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.upper=0.0"), id="pruner"),
        pytest.param((f"hydra.sweep.subdir={'${hydra.job.override_dirname}'}",), id="folders"),
    ],
)
def test_settings_of_a_search_do_not_matter(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """No sampler draws, no pruner prunes, and one process does as well as several."""
    body = "sweeper.trial().report(1.0, 1)\nsweeper.trial().report(2.0, 2)\nreturn cfg.x + 0.001 * (cfg.seed % 7)"
    app = noisy(tmp_path, body)
    done = app.run(*ARGUMENTS, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = planned.trials(app)
    assert set(assert_trained(trials, 9).values()) == {3}
    assert len({t.user_attrs["folder"] for t in trials}) == 9 or "folders" not in str(arguments)


@pytest.mark.slow
def test_spawned_workers_certify(tmp_path: Path) -> None:
    """Where the command cannot be forked the plan goes with the orders."""
    app = noisy(tmp_path)
    app.write(
        NOISY, top="import threading\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Workers are spawned" in done.stdout
    assert set(assert_trained(planned.trials(app), 9).values()) == {3}


@pytest.mark.slow
def test_a_database_certifies(tmp_path: Path) -> None:
    """The certificate is in the storage that its folder remembers."""
    app = noisy(tmp_path)
    url = f"sqlite:///{tmp_path}/studies.db"
    StudyFiles(tmp_path / planned.NAME).mark(planned.NAME, url)
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not app.journal.exists()
    assert set(assert_trained(study.look(StudyFiles(tmp_path / planned.NAME)), 9).values()) == {3}


@pytest.mark.slow
def test_parameters_of_a_custom_search_space_are_taken(tmp_path: Path) -> None:
    """What the person's own function suggested in the search is suggested again, whatever its range is now;
    the defaults have the config's own value."""
    (tmp_path / "extra.py").write_text("def extend(config, trial):\n    trial.suggest_int('y', 5, 9)\n")
    app = App(tmp_path, "return cfg.y")
    app.configure("x: 0.0\n", "x: 0.0\ny: 2\n")
    put(app, of_trials({"x": 0.5, "y": 7}, n_seeds=1))
    done = app.run(*ARGUMENTS, *IN_PROCESS, "hydra.sweeper.custom_search_space=extra.extend")
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    assert assert_trained(trials, 2) == {"trial 0": 1, DEFAULTS: 1}
    assert sorted(t.value for t in trials) == [2, 7]
    assert trials[0].params == {"x": 0.5, "y": 7}


@pytest.mark.slow
def test_the_seed_is_put_where_the_app_has_it(tmp_path: Path) -> None:
    """Into the key that the search's own seed follows, and into what interpolates it."""
    app = App(tmp_path, "assert cfg.noise.seed == cfg.other\nreturn cfg.noise.seed")
    app.configure("x: 0.0", "x: 0.0\nnoise:\n  seed: 3\nother: ${noise.seed}")
    app.configure("    study_name: s", "    study_name: s\n    seed: ${noise.seed}")
    put(app, of_trials({"x": 0.5}, n_seeds=2))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    values = Counter(t.value for t in planned.trials(app))
    assert set(values.values()) == {2}
    assert 3 not in values


@pytest.mark.slow
def test_an_app_without_a_seed_runs_as_it_is(tmp_path: Path) -> None:
    """There is nothing to set."""
    app = App(tmp_path)
    put(app, of_trials({"x": 0.5}, n_seeds=1))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert sorted(t.value for t in planned.trials(app)) == [0, 0.5]


@pytest.mark.slow
def test_seeds_of_trials_are_none_of_the_search(tmp_path: Path) -> None:
    """An app that mixes its seed with the trial's number trains with none of the search's seeds."""
    app = App(tmp_path, "return sweeper.trial().seed(7)")
    assert app.run().returncode == 0
    put(app, of_trials({"x": 0.5}))
    done = app.run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    searched = {t.value for t in assert_exactly(app, 6)}
    again = Counter(t.value for t in planned.trials(app))
    assert len(searched) == 6
    assert list(again.values()) == [2, 2, 2]
    assert not searched & again.keys()


@pytest.mark.slow
def test_without_a_value_in_the_config_there_is_no_baseline(tmp_path: Path) -> None:
    """It is told, the plan has no defaults any more, and the others are trained."""
    app = App(tmp_path)
    app.configure("x: 0.0", "x: ???")
    files = put(app, of_trials({"x": 0.5}, {"x": 0.6}, n_seeds=1))
    done = app.run(*ARGUMENTS)
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
    searched = study.read(StudyFiles(tmp_path / "outputs" / "s"))
    candidates = [Candidate(t.number, t.params, tuple(t.values), 1.0) for t in searched.trials]
    files = StudyFiles(tmp_path / "outputs" / planned.NAME)
    files.mark(planned.NAME, searched.files.read_storage() or "")
    folds = tuple({"dataset.n_folds": 2, "dataset.fold": fold} for fold in range(2))
    defaults = Candidate(None, None, None, None)
    Plan("s", str(searched.files.folder), (*candidates, defaults), 2, 2, 7, folds).write(files)
    done = run(tmp_path, *SEARCH, f"study={planned.NAME}", limit_s=100)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = study.look(files)
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
