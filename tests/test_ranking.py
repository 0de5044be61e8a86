"""The order of a study's trials."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper import ranking
from tests.studied import trial

ONE, TWO = ["maximize"], ["maximize", "minimize"]


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    for number, each in enumerate(trials):
        each.number = number
    return list(trials)


def numbers(trials: Sequence[FrozenTrial]) -> list[int]:
    return [each.number for each in trials]


def test_the_best_value_comes_first_in_both_directions() -> None:
    """Only completed trials have a place."""
    failed, pruned = trial(state=TrialState.FAIL), trial(state=TrialState.PRUNED, curve=[9.0])
    trials = numbered(trial(0.5), failed, trial(0.9), pruned, trial(-math.inf))
    assert numbers(ranking.ranked(trials, ONE)) == [2, 0, 4]
    assert numbers(ranking.ranked(trials, ["minimize"])) == [4, 0, 2]
    assert numbers(ranking.best(trials, ONE)) == [2]
    assert ranking.best([failed, pruned], ONE) == ranking.ranked([], ONE) == ranking.tied([], ONE) == []


def measured(value: float, **attributes: Any) -> FrozenTrial:
    """A trial of a second, with attributes that may say something else."""
    made = trial(value)
    made.user_attrs = attributes
    return made


def test_ties_go_by_loss_then_cost_then_number() -> None:
    """Also where the loss is itself the objective: the next one decides."""
    trials = numbered(
        measured(0.9, val_loss=0.3, seconds=1.0),
        measured(0.9, val_loss=0.2, seconds=9.0),
        measured(0.9, val_loss=0.2, seconds=8.0),
        measured(0.8, val_loss=0.1),
        measured(0.9, val_loss=0.2, seconds=8.0),
    )
    assert numbers(ranking.ranked(trials, ONE)) == [2, 4, 1, 0, 3]
    assert numbers(ranking.tied(trials, ONE)) == [2, 4, 1, 0]
    by_loss = numbered(*(measured(0.2, val_loss=0.2, seconds=seconds) for seconds in (3, 2)))
    assert numbers(ranking.best(by_loss, ["minimize"])) == [1]


def test_where_no_seconds_are_told_the_duration_counts() -> None:
    """As of another app, which tells none."""
    trials = numbered(trial(1.0, seconds=3.0), trial(1.0, seconds=2.0), measured(1.0, seconds=2.5))
    assert numbers(ranking.ranked(trials, ONE)) == [1, 2, 0]


def test_a_clock_that_went_back_makes_no_trial_quick() -> None:
    """How long it took is not known, so it stands behind those of which it is."""
    trials = numbered(trial(1.0, seconds=-3600.0), trial(1.0, seconds=2.0))
    assert numbers(ranking.ranked(trials, ONE)) == [1, 0]
    assert [ranking.seconds_of(each) for each in trials] == [None, 2.0]


@pytest.mark.parametrize(
    ("attributes", "by"),
    [
        ([{"val_loss": 0.1}, {"val_loss": 0.2}], "val_loss"),
        ([{"val_loss": 0.1, "seconds": 1}, {"val_loss": 0.1, "seconds": 2}], "seconds"),
        ([{"val_loss": 0.1}, {"val_loss": 0.1}], "number"),
        ([{"val_loss": 0.1}], None),
        ([], None),
    ],
)
def test_what_broke_a_tie_is_known(attributes: list[dict[str, Any]], by: str | None) -> None:
    """The key that sets the first before the second; None where nobody is tied."""
    trials = numbered(*(measured(0.5, **each) for each in attributes))
    assert ranking.broken_by(ranking.tied(trials, ONE)) == by


STRANGE: list[Any] = [None, "low", True, math.nan, math.inf, -math.inf, [0.1], {}, 10**400]


def test_another_apps_attributes_may_be_anything() -> None:
    """Only finite numbers count; who has none stands behind those who have, in one order, however asked."""
    trials = numbered(*(trial(0.5, val_loss=value) for value in STRANGE), trial(0.5, val_loss=3))
    for order in itertools.islice(itertools.permutations(trials), 0, None, 99_991):
        assert numbers(ranking.ranked(order, ONE)) == [9, *range(9)]
        assert numbers(ranking.best(order, ONE)) == [9]
    of_seconds = numbered(*(measured(0.5, seconds=seconds) for seconds in [*STRANGE, 0.5]))
    assert numbers(ranking.ranked(of_seconds, ONE)) == [9, *range(9)]


def test_the_best_is_the_first_of_the_ranked() -> None:
    """Whoever asks for one gets the first of all, also where nearly all are tied."""
    draw = random.Random(3)
    for _ in range(100):
        made = [
            trial(float(draw.randint(0, 1)), val_loss=draw.choice([None, 1, 2]), seconds=draw.randint(1, 2))
            for _ in range(draw.randint(1, 9))
        ]
        trials = numbered(*made)
        direction = [draw.choice(["minimize", "maximize"])]
        first = ranking.ranked(trials, direction)[:1]
        assert ranking.best(draw.sample(trials, len(trials)), direction) == first
        assert ranking.tied(trials, direction)[:1] == first


@pytest.mark.parametrize("n_objectives", [2, 3])
def test_several_objectives_have_the_front_that_optuna_has(n_objectives: int) -> None:
    """Equal trials are on it together, by their numbers; the others come behind."""
    draw = random.Random(n_objectives)
    directions = ["minimize", "maximize", "minimize"][:n_objectives]
    for _ in range(30):
        study = optuna.create_study(directions=[StudyDirection[name.upper()] for name in directions])
        study.add_trials(
            [trial([float(draw.randint(0, 4)) for _ in directions]) for _ in range(draw.randint(1, 30))]
        )
        trials = study.get_trials()
        front = numbers(ranking.best(trials, directions))
        assert front == numbers(study.best_trials)
        behind = [number for number in range(len(trials)) if number not in front]
        assert numbers(ranking.ranked(trials, directions)) == front + behind
    assert ranking.best([], directions) == ranking.tied(trials, directions) == []
