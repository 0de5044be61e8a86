"""The plan of a certificate: its file, who is trained next, and with what."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.fault import Fault
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import CANDIDATE, DEFAULTS, REPEAT, Plan, first_trainings
from sweeper.search.locked_study import LockedStudy
from tests.planned import of_trials
from tests.studied import trial

MANY = ("minimize", "minimize")
"""Directions where nobody drops out."""


def training(candidate: str, repeat: int, state: TrialState = TrialState.COMPLETE, **attributes: Any) -> Any:
    values = [1.0, 2.0] if state == TrialState.COMPLETE else None
    return trial(values, state, **{CANDIDATE: candidate, REPEAT: repeat, **attributes})


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    for number, one in enumerate(trials):
        one.number = number
    return list(trials)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    """What is read is what was written; a folder without a plan is a search's."""
    files = StudyFiles(tmp_path)
    assert Plan.read(files) is None
    plan = of_trials({"x": 0.5, "y": "a"}, n_folds=2, by_repeat=({"d.fold": 0}, {"d.fold": 1}))
    plan.write(files)
    assert Plan.read(files) == plan
    assert plan.n_trainings == 6
    assert plan.names == ("trial 0", DEFAULTS)
    assert [plan.overrides(repeat) for repeat in range(3)] == [{"d.fold": 0}, {"d.fold": 1}, {"d.fold": 0}]


def _candidate(**changes: object) -> dict[str, Any]:
    return {"candidates": [{"trial": 0, "params": {}, "values": None, "seconds": None, **changes}]}


CHANGES: tuple[dict[str, Any], ...] = (
    {"study": None},
    {"candidates": []},
    {"n_seeds": 0},
    {"n_seeds": "3"},
    {"n_folds": 2},
    {"seed": -1},
    _candidate(trial=[]),
    _candidate(params=None),
    _candidate(values=[]),
)
BAD_PLANS = (
    *("{", "[" * 100_000, "[]", '{"format": 1}', '{"format": 1, "candidates": [1]}'),
    *(json.dumps({"format": 1, **asdict(of_trials({"x": 0.5})), **changes}) for changes in CHANGES),
)


@pytest.mark.parametrize("text", BAD_PLANS, ids=range(len(BAD_PLANS)))
def test_a_damaged_plan_is_a_fault(tmp_path: Path, text: str) -> None:
    """It names the file."""
    files = StudyFiles(tmp_path)
    files.plan.parent.mkdir()
    files.plan.write_text(text)
    with pytest.raises(Fault, match=r"plan\.json"):
        Plan.read(files)


def test_fewest_trainings_first() -> None:
    """Counting those that run; each with a number of its own."""
    plan = of_trials({}, {}, n_seeds=2)
    trials: list[FrozenTrial] = []
    order = []
    while (following := plan.next_training(trials, MANY)) is not None:
        order.append(following)
        state = TrialState.RUNNING if len(trials) % 2 else TrialState.COMPLETE
        trials = numbered(*trials, training(*following, state))
    names = ["trial 0", "trial 1", DEFAULTS]
    assert order == [(name, repeat) for repeat in range(2) for name in names]


def test_who_has_failed_waits_for_its_turn() -> None:
    """A training that failed costs nothing of the budget, and its number is not used again; one that was
    interrupted, or is tried again, is as if it had never been."""
    plan = of_trials({}, n_seeds=2)
    failed = training("trial 0", 0, TrialState.FAIL)
    assert plan.next_training(numbered(failed), MANY) == (DEFAULTS, 0)
    rest = [training(DEFAULTS, 0), training("trial 0", 1), training(DEFAULTS, 1)]
    assert plan.next_training(numbered(failed, *rest), MANY) == ("trial 0", 2)
    assert plan.next_training(numbered(failed, *rest, training("trial 0", 2)), MANY) is None
    stopped = training("trial 0", 0, TrialState.FAIL, interrupted=True)
    assert plan.next_training(numbered(stopped), MANY) == ("trial 0", 1)
    again = training("trial 0", 0, TrialState.RUNNING, retry_of=0)
    assert plan.next_training(numbered(failed, again), MANY) == (DEFAULTS, 0)


@pytest.fixture
def certificate(tmp_path: Path) -> LockedStudy:
    """A certificate in which trial 1 is shown to be worse, and all three wait to be tried again."""
    study = optuna.create_study()
    plan = of_trials({"x": 1}, {"x": 2}, n_seeds=9)
    scores = {"trial 0": 0.0, "trial 1": 5.0, DEFAULTS: 0.15}
    for repeat in range(3):
        for name in plan.names:
            score = scores[name] + 0.1 * repeat
            study.add_trial(create_trial(value=score, user_attrs={CANDIDATE: name, REPEAT: repeat}))
    for name in plan.names:
        study.enqueue_trial({}, user_attrs={CANDIDATE: name, REPEAT: 3})
    assert list(plan.race(study.trials, ["minimize"]).out) == ["trial 1"]
    return LockedStudy(study, StudyFiles(tmp_path), max_retries=1, plan=plan)


def test_who_is_out_is_not_tried_again(certificate: LockedStudy) -> None:
    """What waits of it is withdrawn; the others are still waited for, and nobody else is queued."""
    study, plan = certificate._study, certificate._plan
    assert plan is not None
    assert certificate.withdraw_waiting(plan)
    waiting = [t.user_attrs[CANDIDATE] for t in study.trials if t.state == TrialState.WAITING]
    assert waiting == ["trial 0", DEFAULTS]
    (withdrawn,) = [t for t in study.trials if t.state == TrialState.FAIL]
    assert withdrawn.user_attrs[CANDIDATE] == "trial 1"
    assert withdrawn.user_attrs["reason"] == "nothing more is to be learned from it"
    assert withdrawn.duration is not None
    assert not certificate.ledger.failed


def test_a_decided_race_leaves_nothing_to_wait_for(certificate: LockedStudy) -> None:
    """Whoever goes on with a certificate whose plan is fulfilled withdraws what was queued."""
    study, plan = certificate._study, replace(of_trials({"x": 1}, {"x": 2}), n_seeds=3)
    assert not certificate.withdraw_waiting(plan)
    assert not [t for t in study.trials if t.state == TrialState.WAITING]


def test_weights_are_kept_of_first_trainings() -> None:
    """The one with the smallest number that is done, in whatever order they ended."""
    plan = of_trials({})
    trials = numbered(
        training("trial 0", 1),
        training("trial 0", 0),
        training(DEFAULTS, 0, TrialState.FAIL),
        training(DEFAULTS, 2),
        training(DEFAULTS, 1, TrialState.RUNNING),
    )
    assert {name: first.number for name, first in first_trainings(trials).items()} == {
        "trial 0": 1,
        DEFAULTS: 3,
    }
    assert plan.kept(trials, MANY) == {1, 3}


def test_who_is_out_keeps_no_weights() -> None:
    """Of a candidate that diverged nothing is kept."""
    plan = of_trials({}, {})
    diverged = training("trial 0", 1, TrialState.PRUNED, diverged=True)
    scored = [trial(0.5, candidate=name, repeat=0) for name in plan.names]
    assert plan.kept(numbered(*scored, diverged), ["minimize"]) == {1, 2}
