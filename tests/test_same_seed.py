"""The same seed gives the same search, whatever the study is called and wherever it stands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.search.sampler import Hyperband, build_pruner
from sweeper.search.trial import Interruption, StudyTrial, first_try, seed_of
from tests.foreign_app import App
from tests.program import IN_PROCESS

BODY = """
for step in range(1, 10):
    sweeper.trial().report((cfg.x - 1) ** 2 + cfg.n / step, step)
return (cfg.x - 1) ** 2 + cfg.n
"""

HYPERBAND = {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 9}


def searched(folder: Path, *arguments: str, name: str) -> list[tuple[Any, ...]]:
    """What a search of 16 trials draws, reports and decides."""
    folder.mkdir(parents=True)
    app = App(folder, BODY)
    app.configure("x: 0.0\n", "x: 0.0\nn: 1\ntraining:\n  epochs: 9\n")
    app.configure("      x: interval(0, 2)\n", "      x: range(0, 2, step=0.25)\n      n: range(1, 4)\n")
    app.configure("study_name: s\n", f"study_name: {name}\n")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=16", "hydra.sweeper.seed=7", *arguments)
    assert done.returncode == 0, done.stderr
    storage = f"sqlite:///{folder}/studies.db"
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [(t.number, t.state, t.params, t.intermediate_values, t.values) for t in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "cmaes", "grid", "bruteforce", "nsgaii"])
def test_the_same_seed_gives_the_same_search(tmp_path: Path, sampler: str) -> None:
    """With one worker and the default pruner: the same points, reports and pruned trials."""
    arguments = [f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.storage=sqlite:///studies.db"]
    if sampler == "nsgaii":
        arguments.append("hydra.sweeper.sampler.population_size=4")
    first = searched(tmp_path / "a", *arguments, name="one")
    second = searched(tmp_path / "b" / "deeper", *arguments, name="another-name")
    assert first == second
    assert {state for _, state, *_ in first} == {TrialState.COMPLETE, TrialState.PRUNED}


def study_with(pruner: optuna.pruners.BasePruner, name: str, retries: dict[int, int]) -> optuna.Study:
    study = optuna.create_study(study_name=name, pruner=pruner)
    for number in range(300):
        attributes = {"retry_of": retries[number]} if number in retries else {}
        study.add_trial(create_trial(value=1.0, user_attrs=attributes))
    pruner.prune(study, study.trials[0])
    return study


def brackets(seed: int | None, name: str = "s", retries: dict[int, int] | None = None) -> list[int]:
    pruner = build_pruner(HYPERBAND, seed)
    assert isinstance(pruner, Hyperband)
    study = study_with(pruner, name, retries or {})
    return [pruner._get_bracket_id(study, trial) for trial in study.trials]


def test_brackets_follow_seed_and_number() -> None:
    """A study's name has no part in it, another seed has."""
    assert brackets(0, "one") == brackets(0, "two")
    assert brackets(None, "one") == brackets(None, "two")
    assert brackets(0) != brackets(1)


def test_brackets_have_the_shares_that_optuna_gives_them() -> None:
    """Each has about as many trials as its budget says."""
    pruner = build_pruner(HYPERBAND, 0)
    assert isinstance(pruner, Hyperband)
    study_with(pruner, "s", {})
    budgets = pruner._trial_allocation_budgets
    counted = Counter(brackets(0))
    shares = [counted[bracket] / 300 for bracket in range(len(budgets))]
    assert shares == pytest.approx([budget / sum(budgets) for budget in budgets], abs=0.06)


def test_a_retry_has_the_bracket_of_its_first_try() -> None:
    """Also the retry of a retry, and where the pruner looks at a bracket's own trials."""
    plain = brackets(0)
    other = next(n for n in range(299) if plain[n] != plain[-1])
    found = brackets(0, retries={200: other, 299: 200})
    assert (found[200], found[299]) == (plain[other], plain[other])
    pruner = build_pruner(HYPERBAND, 0)
    assert isinstance(pruner, Hyperband)
    study = study_with(pruner, "s", {200: other, 299: 200})
    bracket = pruner._create_bracket_study(study, plain[other])
    assert {200, 299} <= {t.number for t in bracket.get_trials(deepcopy=False)}


def test_a_patient_hyperband_follows_seed_and_number_too() -> None:
    """A pruner within a pruner is the same."""
    patient = build_pruner(
        {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": HYPERBAND}, seed=3
    )
    assert isinstance(patient, optuna.pruners.PatientPruner)
    assert isinstance(patient._wrapped_pruner, Hyperband)


def trials(*retries: int | None) -> list[FrozenTrial]:
    found = [
        create_trial(value=1.0, user_attrs={} if retry_of is None else {"retry_of": retry_of})
        for retry_of in retries
    ]
    for number, trial in enumerate(found):
        trial.number = number
    return found


@pytest.mark.parametrize(("number", "first"), [(0, 0), (1, 1), (2, 0), (3, 0), (4, 1), (5, 5)])
def test_the_first_try_is_found_through_all_retries(number: int, first: int) -> None:
    """A trial that repeats none is its own first try, also one that is still to be asked for."""
    assert first_try(number, trials(None, None, 0, 2, 1)) == first


def test_a_retry_has_the_seed_of_its_first_try() -> None:
    """``sweeper.trial().seed`` gives the same, so that the same training is tried again."""
    study = optuna.create_study()
    first = StudyTrial(study.ask(), Interruption())
    study.enqueue_trial({}, user_attrs={"retry_of": 0})
    again = StudyTrial(study.ask(), Interruption())
    study.enqueue_trial({}, user_attrs={"retry_of": 1})
    once_more = StudyTrial(study.ask(), Interruption())
    assert (again.number, once_more.number) == (1, 2)
    assert first.seed(5) == again.seed(5) == once_more.seed(5)


EXTEND = """
def extend(config, trial):
    if trial.number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    trial.suggest_float("later", 0, 1)
"""


def test_a_killed_trial_draws_as_its_first_try(tmp_path: Path) -> None:
    """What the first try had not come to draw, its retry draws with the first try's seed."""
    app = App(tmp_path, top=EXTEND)
    app.configure("x: 0.0\n", "x: 0.0\nlater: 0.0\n")
    app.configure("    n_jobs: 2\n", "    n_jobs: 1\n    custom_search_space: app.extend\n    seed: 4\n")
    done = app.run("hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=random")
    assert done.returncode == 0, done.stderr
    first = app.trials()[0]
    (again,) = (trial for trial in app.trials() if trial.user_attrs.get("retry_of") == 0)
    assert again.params["x"] == first.params["x"]
    same = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed_of(4, 0))).ask()
    assert again.params["later"] == same.suggest_float("later", 0, 1)
