"""The trial as a training run sees it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import sweeper
from sweeper.search.storage import open_storage
from sweeper.search.trial import (
    Interrupted,
    Interruption,
    StudyTrial,
    Trial,
    first_try,
    running,
    seed_of,
    trial,
)

SIGNAL = f"^{int(signal.SIGUSR1)}$"


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    """Listens to SIGUSR1, as a worker does to SIGTERM."""
    before = signal.getsignal(signal.SIGUSR1)
    interruption = Interruption()
    interruption.install(signal.SIGUSR1)
    yield interruption
    signal.signal(signal.SIGUSR1, before)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def study_with(pruner: optuna.pruners.BasePruner, n_objectives: int = 1) -> optuna.Study:
    return optuna.create_study(directions=["minimize"] * n_objectives, pruner=pruner)


def test_outside_a_sweep_nothing_happens() -> None:
    """Without a sweep there is a trial too: no number, and its reports go nowhere."""
    alone = sweeper.trial()
    assert alone.number is None
    alone.report(math.nan, 1)
    alone.set_user_attr("name", 1)
    assert alone.seed(7) == 7


def test_inside_a_sweep_it_is_the_study_s_trial(interruption: Interruption) -> None:
    """``sweeper.trial()`` is the running trial while it runs, and nothing after it, also after an error."""
    study = study_with(optuna.pruners.NopPruner())
    study.ask()
    current = StudyTrial(study.ask(), interruption)
    with running(current):
        assert trial() is current
        assert trial().number == 1
    assert type(trial()) is Trial
    with pytest.raises(KeyError, match="of the task"), running(current):
        raise KeyError("of the task")
    assert type(trial()) is Trial


def test_reports_and_attributes_reach_the_study(interruption: Interruption) -> None:
    """Values reported per step, and attributes, are found in the study."""
    study = study_with(optuna.pruners.NopPruner())
    current = StudyTrial(study.ask(), interruption)
    current.report(0.5, 1)
    current.report(0.25, 2)
    current.set_user_attr("accuracy", [0.9, {"deep": None}])
    (frozen,) = study.trials
    assert frozen.intermediate_values == {1: 0.5, 2: 0.25}
    assert frozen.user_attrs == {"accuracy": [0.9, {"deep": None}]}


def test_the_pruner_ends_a_trial(interruption: Interruption) -> None:
    """``report`` raises TrialPruned when the pruner says stop, and not before."""
    current = StudyTrial(study_with(optuna.pruners.ThresholdPruner(upper=1.0)).ask(), interruption)
    current.report(0.9, 1)
    with pytest.raises(optuna.TrialPruned, match=r"pruned after step 2 with 1\.5"):
        current.report(1.5, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_ends_a_trial_as_diverged(interruption: Interruption, value: float) -> None:
    """NaN and infinity are reported, marked, and end the trial without asking the pruner."""
    study = study_with(optuna.pruners.NopPruner())
    current = StudyTrial(study.ask(), interruption)
    with pytest.raises(optuna.TrialPruned, match=f"with {value}"):
        current.report(value, 1)
    (frozen,) = study.trials
    assert frozen.user_attrs == {"diverged": True}
    assert str(frozen.intermediate_values[1]) == str(value)


def test_several_objectives_are_not_pruned(interruption: Interruption) -> None:
    """With several objectives a report goes nowhere; divergence still ends the trial."""
    current = StudyTrial(study_with(optuna.pruners.NopPruner(), n_objectives=2).ask(), interruption)
    current.report(1.0, 1)
    with pytest.raises(optuna.TrialPruned, match="with nan"):
        current.report(math.nan, 2)


def test_seeds_follow_the_number(interruption: Interruption) -> None:
    """The seed and the trial's number decide a trial's seed; neighbours and other seeds differ."""
    study = study_with(optuna.pruners.NopPruner())
    numbers = [StudyTrial(study.ask(), interruption) for _ in range(3)]
    seeds = [t.seed(s) for s in (0, 1) for t in numbers]
    assert len(set(seeds)) == 6
    assert seeds == [seed_of(s, n) for s in (0, 1) for n in range(3)]
    assert seed_of(0, 0) == 2968811710  # for ever: a study that is resumed goes on as it began


def test_a_retry_has_the_seed_of_its_first_try(interruption: Interruption) -> None:
    """A trial that repeats another, which itself repeated one, trains with the seed of the first."""
    study = study_with(optuna.pruners.NopPruner())
    study.ask()
    for number in (0, 1, 2):
        study.enqueue_trial({}, user_attrs={"retry_of": number})
    tries = [StudyTrial(study.ask(), interruption) for _ in range(3)]
    assert [t.number for t in tries] == [1, 2, 3]
    assert {t.seed(5) for t in tries} == {seed_of(5, 0)}
    assert [first_try(t, study._storage, study._study_id) for t in study.trials] == [0, 0, 0, 0]


def test_a_stop_signal_ends_the_task_at_once(interruption: Interruption) -> None:
    """In the task, the signal raises where it comes in."""
    done = []

    def task() -> None:
        with interruption.allowed():
            stop()
            done.append("more")

    with pytest.raises(Interrupted, match=SIGNAL) as error:
        task()
    assert (done, error.value.signum) == ([], signal.SIGUSR1)


def test_a_stop_signal_waits_for_the_storage(interruption: Interruption) -> None:
    """In a storage operation the signal waits, and raises as soon as that is done."""
    written = []

    def task() -> None:
        with interruption.allowed():
            with interruption.allowed(False):
                stop()
                written.append("first")
            written.append("second")

    with pytest.raises(Interrupted, match=SIGNAL):
        task()
    assert written == ["first"]


def test_a_stop_signal_between_tasks_waits_for_a_check(interruption: Interruption) -> None:
    """Between trials a signal is only remembered; the next check, or the next task, raises."""
    interruption.check()
    stop()
    with pytest.raises(Interrupted, match=SIGNAL):
        interruption.check()
    with pytest.raises(Interrupted, match=SIGNAL), interruption.allowed():
        pytest.fail("the task has begun")


def test_what_cleans_up_is_not_interrupted_again(interruption: Interruption) -> None:
    """While a task cleans up after the first signal, a second one is only remembered."""
    done = []

    def task() -> None:
        with interruption.allowed():
            try:
                stop()
            finally:
                stop()
                done.append("cleaned")

    with pytest.raises(Interrupted, match=SIGNAL):
        task()
    assert done == ["cleaned"]


def test_a_stopped_task_reports_no_more(interruption: Interruption) -> None:
    """What was reported before the stop signal is kept whole; nothing is reported after it."""
    study = study_with(optuna.pruners.NopPruner())
    current = StudyTrial(study.ask(), interruption)

    def task() -> None:
        with interruption.allowed():
            current.report(0.5, 1)
            stop()
            current.report(0.4, 2)

    with pytest.raises(Interrupted, match=SIGNAL):
        task()
    assert study.trials[0].intermediate_values == {1: 0.5}


@pytest.mark.parametrize("kind", ["memory", "journal", "sqlite"])
def test_a_trial_that_others_have_ended_is_left(
    interruption: Interruption, tmp_path: Path, kind: str
) -> None:
    """An app that reports, or keeps a value, meets what ends a pruned trial: no error of its own."""
    urls = {"memory": "memory", "journal": str(tmp_path / "j"), "sqlite": f"sqlite:///{tmp_path / 's.db'}"}
    study = optuna.create_study(storage=open_storage(urls[kind]))
    trial = study.ask()
    study.tell(trial.number, state=TrialState.FAIL)
    ours = StudyTrial(trial, interruption)
    with pytest.raises(optuna.TrialPruned, match="others have ended it"):
        ours.report(1.0, 1)
    with pytest.raises(optuna.TrialPruned, match="others have ended it"):
        ours.set_user_attr("a", 1)
