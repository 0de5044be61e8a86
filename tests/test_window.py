"""What samplers and pruners are shown of a large study."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from sweeper.search.ledger import Ledger
from sweeper.search.window import Window, WindowedTrial, window_for


def study_of(n: int) -> optuna.Study:
    """A study of so many trials, of which one still runs; x is drawn where it is best, too."""
    rng = random.Random(0)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0), pruner=MedianPruner())
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    for _ in range(n):
        x = rng.random()
        trial = create_trial(
            value=-((x - 0.3) ** 2), params={"x": x}, distributions=space, intermediate_values={1: x}
        )
        study._storage.create_new_trial(study._study_id, trial)
    study.ask()
    return study


def window_of(study: optuna.Study, largest: int) -> Window:
    ledger = Ledger(study._storage, study._study_id, ["maximize"])
    return Window(ledger, ["maximize"], largest=largest)


def test_a_small_study_is_shown_whole() -> None:
    """Up to its limit a window shows all trials, and a sampler draws what it would without one."""
    study = study_of(200)
    window = window_of(study, largest=200)
    assert window.of_sampler() == window.of_pruner() == study.trials
    study.sampler = TPESampler(seed=1)
    drawn = WindowedTrial(study, study.ask()._trial_id, window).suggest_float("x", 0, 1)
    study.sampler = TPESampler(seed=1)
    assert optuna.Trial(study, 201).suggest_float("x", 0, 1) == drawn


def test_a_large_study_is_shown_in_part() -> None:
    """Evenly spaced trials, all that run, and for samplers the best 25; the same to whoever reads later."""
    study = study_of(1000)
    window = window_of(study, largest=100)
    even = [t.number for t in window.of_pruner()]
    assert even == [*range(0, 1000, 16), 1000]
    best = sorted(study.trials[:1000], key=lambda t: -t.values[0])[:25]
    seen = [t.number for t in window.of_sampler()]
    assert seen == sorted({*even, *(t.number for t in best)})
    study.tell(1000, 1.0)
    assert 1000 in [t.number for t in window.of_sampler()]
    assert window.of_sampler() == window_of(study, largest=100).of_sampler()


@pytest.mark.slow
def test_tpe_draws_alike_from_a_part() -> None:
    """Around a best point that all trials show, TPE draws as near with a part of them."""
    study = study_of(2000)
    distances = {}
    for largest in (10_000, 300):
        window = window_of(study, largest)
        drawn = []
        for seed in range(15):
            study.sampler = TPESampler(seed=seed)
            trial = WindowedTrial(study, study.ask()._trial_id, window)
            drawn.append(abs(trial.suggest_float("x", 0, 1) - 0.3))
            study.tell(trial, state=TrialState.FAIL)
        distances[largest] = sorted(drawn)[len(drawn) // 2]
    assert distances[300] < 0.05
    assert distances[300] == pytest.approx(distances[10_000], abs=0.03)


def test_a_long_startup_has_a_larger_window() -> None:
    """A sampler that begins by chance for longer than the window is large still begins to search."""
    study = study_of(0)
    ledger = Ledger(study._storage, study._study_id, ["maximize"])
    sampler = TPESampler(n_startup_trials=5000)
    assert window_for(ledger, ["maximize"], sampler, study.pruner, study)._largest == 10_000


def test_a_pruner_judges_by_the_part() -> None:
    """The median of an even part is that of all."""
    study = study_of(2000)
    window = window_of(study, largest=200)
    for value, is_pruned in ((0.8, False), (0.2, True)):
        trial = WindowedTrial(study, study.ask()._trial_id, window)
        trial.report(value, 1)
        assert trial.should_prune() == is_pruned
