"""The budget without a shared lock: hosts that meet in every order, die, are slow, and lose answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import CANDIDATE, REPEAT
from sweeper.search.life import LOST
from sweeper.search.locked_study import Worker
from sweeper.search.parameter import suggest
from sweeper.search.sampler import is_grid
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.study import Study
from tests import planned
from tests.turns import Connection, Host, Server, Turns

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))]
"""Orders of each kind."""


@pytest.fixture(scope="module")
def space(make_space: Callable[..., Space]) -> Space:
    return make_space({"config": {"x": 0.0}}, "x=interval(0,1)")


@pytest.fixture(scope="module")
def grid(make_space: Callable[..., Space]) -> Space:
    return make_space({"config": {"x": 0}}, "x=0,1,2,3,4,5,6")


class Round:
    """One study, and hosts that go through it at once, in the order of a seed."""

    def __init__(self, folder: Path, seed: int, space: Space, **settings: Any) -> None:
        self.random = random = Random(seed)
        self.space, self.folder = space, folder
        self.server = Server()
        self.turns = Turns(random)
        given: dict[str, Any] = {
            "study_name": "s",
            "storage": "memory",
            "folder": folder,
            "directions": ("minimize",),
            "metrics": None,
            "sampler": {"_target_": "optuna.samplers.RandomSampler"},
            "pruner": {"_target_": "optuna.pruners.NopPruner"},
            "seed": 0,
            "n_trials": random.choice((1, 3, 7)),
            "deadline": None,
            "max_retries": 1,
            "max_failure_rate": 1.0,
            "custom_search_space": None,
        }
        self.search = Search(**{**given, **settings})
        optuna.create_study(study_name="s", storage=self.server, directions=["minimize"])
        self.suspects = random.choice((0.0, 0.0, 0.1, 0.5))
        """How often a reaper takes a host for dead that is only slow."""
        self.raises = random.choice((0.0, 0.1, 0.3))
        self.loses = random.choice((0.0, 0.1))
        self.hosts: list[Host] = []
        self.workers: dict[str, Host] = {}
        """By the name of what works there."""
        n_hosts = random.choice((2, 3, 5))
        mortal = random.randrange(n_hosts)
        for i in range(n_hosts):
            host = self.turns.add(f"host {i}", self._work)
            self.hosts.append(host)
            host.is_slow = random.random() < 0.3
            if i != mortal and random.random() < 0.5:
                host.dies_after = random.randrange(150)
        for i in range(2):
            self.turns.add(f"reaper {i}", self._reap)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.server.get_all_trials(0, deepcopy=False)

    @property
    def n_finished(self) -> int:
        return sum(t.state in FINISHED for t in self.trials)

    def run(self) -> list[FrozenTrial]:
        random.seed(0)
        self.turns.run()
        return self.trials

    def _study(self, host: Host) -> Study:
        """As its own process on a host of its own sees it."""
        files = StudyFiles(self.folder / host.name)
        files.mark("s", "memory")
        search = replace(self.search, folder=files.folder)
        connection = Connection(self.server, host, self.random, self.loses)  # type: ignore[abstract]
        host.is_opening = True
        study = Study.load(search, connection)
        assert study.sender is None
        host.is_opening = False
        return study

    def _work(self, host: Host) -> None:
        study = self._study(host)
        worker = Worker(study.search)
        self.workers[worker.name] = host
        for _ in range(1000):
            trial = study.ask(self.space, worker)
            if trial is None:
                if self.ends(study):
                    return
                continue
            for _ in range(self.random.randrange(8)):
                host.step()
            self._end(study, trial)
        raise AssertionError("it does not come to an end")

    def ends(self, study: Study) -> bool:
        """Whether nothing runs, and nothing waits that might: there was nothing to ask for."""
        ledger = study.ledger
        ledger.read()
        waits = any(ledger.may_hold(trial) for trial in ledger.waiting.values())
        is_spent = not ledger.has_room or is_grid(study.search.sampler) or study.is_decided()
        return not ledger.running and not waits and is_spent

    def _end(self, study: Study, trial: optuna.Trial) -> None:
        try:
            if study.search.plan is None:
                self.space.draw(suggest(trial), {"num": trial.number, "id": str(trial.number)})
        except UpdateFinishedTrialError:  # somebody took it for lost
            return
        chance = self.random.random()
        if chance < self.raises:
            study.tell(trial.number, TrialState.FAIL, attributes={"reason": "raised", "traceback": "…"})
        elif chance < self.raises + 0.1:
            study.tell_interrupted(trial.number, "interrupted")
        else:
            study.tell(trial.number, TrialState.COMPLETE, [0.5])

    def _reap(self, host: Host) -> None:
        """Take those for dead that are, and others that are only slow; by what was read some time ago."""
        study = self._study(host)
        seen_nameless: dict[int, int] = {}
        for _ in range(3000):
            study.ledger.read()
            running = list(study.ledger.running.values())
            if not any(other.is_alive() and not other.is_dead for other in self.hosts):
                return
            for trial in running:
                name = trial.user_attrs.get("worker")
                if name is None:
                    seen_nameless[trial.number] = n = seen_nameless.get(trial.number, 0) + 1
                    is_dead = n > 40
                else:
                    is_dead = self.workers[name].is_dead or self.random.random() < self.suspects / 10
                if is_dead:
                    with study.locked() as locked:
                        locked.fail_and_queue(trial, LOST, is_retry=True, lost=True)
            host.step()
        raise AssertionError("it does not come to an end")


def first(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    while (before := trial.user_attrs.get("retry_of")) is not None:
        trial = trials[before]
    return trial.number


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    assert not [t.number for t in trials if t.state == TrialState.RUNNING]
    done = [t for t in trials if t.state in FINISHED]
    firsts = [first(t, trials) for t in done]
    assert len(set(firsts)) == len(firsts), "the parameters of a trial were finished twice"
    assert not [t.number for t in done if t.user_attrs.get("surplus")]
    return done


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_spends_the_budget_exactly(tmp_path: Path, space: Space, seed: int) -> None:
    """Hosts ask, tell, die, are taken for dead and come back: n_trials are finished, none of them twice."""
    the_round = Round(tmp_path, seed, space)
    trials = the_round.run()
    assert len(finished(trials)) == the_round.search.n_trials


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_goes_through_a_grid_once(tmp_path: Path, grid: Space, seed: int) -> None:
    """Each point is finished once, or has failed for good; never twice."""
    sampler = {"_target_": "optuna.samplers.GridSampler"}
    the_round = Round(tmp_path, seed, grid, sampler=sampler, n_trials=100)
    trials = the_round.run()
    points = [t.system_attrs["fixed_params"]["x"] for t in finished(trials)]
    assert len(set(points)) == len(points)
    failed = {
        t.system_attrs["fixed_params"]["x"]
        for t in trials
        if t.state == TrialState.FAIL and not t.user_attrs.get("surplus")
    }
    assert {*points, *failed} == set(range(7))
    assert len(points) >= 7 - len(failed)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_trains_each_repeat_once(tmp_path: Path, space: Space, seed: int) -> None:
    """A certificate's trainings are exactly the plan's, each candidate's numbered without a gap."""
    plan = planned.of_trials({"x": 0.1}, {"x": 0.2}, n_seeds=3)
    the_round = Round(tmp_path, seed, space)
    the_round.search = the_round.search.of_plan(plan)
    done = finished(the_round.run())
    trainings = [(t.user_attrs[CANDIDATE], t.user_attrs[REPEAT]) for t in done]
    assert len(set(trainings)) == len(trainings)
    assert len(done) <= plan.n_trainings
    assert the_round.n_finished == len(done)
