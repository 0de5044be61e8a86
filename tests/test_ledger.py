"""The ledger of a study: what it says of the trials, and which of them hold."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, get_storage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState, create_trial

from sweeper import ranking
from sweeper.outcome import is_surplus, word
from sweeper.search.ledger import POOL, QUEUED, Ledger
from sweeper.search.locked_study import Worker
from sweeper.search.look import seen
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Study

RANDOM = {"_target_": "optuna.samplers.RandomSampler"}


def a_search(folder: Path, **changed: Any) -> Search:
    search = Search(
        study_name="name",
        storage="memory",
        folder=folder,
        directions=("minimize",),
        metrics=None,
        sampler=RANDOM,
        pruner={"_target_": "optuna.pruners.NopPruner"},
        seed=0,
        n_trials=6,
        deadline=None,
        max_retries=1,
        max_failure_rate=1.0,
        custom_search_space=None,
    )
    return replace(search, **changed)


# ------------------------------------------------------------------------------------------------- reading


class Lines(BaseJournalBackend):
    """A journal in memory, which several hosts share."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._lines = lines

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines.extend(logs)


def storages(tmp_path: Path) -> dict[str, BaseStorage]:
    return {
        "memory": InMemoryStorage(),
        "journal": open_storage(str(tmp_path / "a.journal")),
        "sqlite": open_storage(f"sqlite:///{tmp_path / 'a.db'}"),
        "plain sqlite": get_storage(f"sqlite:///{tmp_path / 'b.db'}"),
    }


@pytest.mark.parametrize("kind", ["memory", "journal", "sqlite", "plain sqlite"])
def test_a_ledger_says_what_the_whole_list_says(tmp_path: Path, kind: str) -> None:
    """After each step of a search that somebody else runs, its sums are those of all trials."""
    storage = storages(tmp_path)[kind]
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    ledger = Ledger(storage, study._study_id, ["maximize"])
    rng = random.Random(0)
    for step in range(25):
        match rng.choice(["ask", "tell", "tell", "fail", "queue", "report"]):
            case "ask":
                study.ask().suggest_float("x", 0, 1)
            case "queue":
                study.enqueue_trial({"x": rng.random()})
            case what:
                running = [t for t in study.trials if t.state == TrialState.RUNNING]
                if not running:
                    continue
                number = rng.choice(running).number
                if what == "report":
                    optuna.Trial(study, running[0]._trial_id).report(rng.random(), step)
                elif what == "tell":
                    study.tell(number, rng.random())
                else:
                    study.tell(number, state=TrialState.FAIL)
        changed = ledger.read()
        check_sums(ledger, study)
        assert ledger.read() == []
        assert {t.number for t in changed} <= set(range(len(ledger.trials)))


def check_sums(ledger: Ledger, study: optuna.Study) -> None:
    trials = study.get_trials(deepcopy=False)
    assert ledger.trials == trials
    assert list(ledger.running) == [t.number for t in trials if t.state == TrialState.RUNNING]
    assert sorted(ledger.waiting) == [t.number for t in trials if t.state == TrialState.WAITING]
    assert ledger.counts == Counter(t.state for t in trials)
    assert ledger.words == Counter(word(t) for t in trials if t.state.is_finished())
    assert ledger.n_finished == sum(t.state == TrialState.COMPLETE for t in trials)
    assert ledger.best == ranking.best(trials, ["maximize"])
    assert len(ledger.durations_s) == ledger.n_finished
    assert ledger.total_s == pytest.approx(sum(ledger.durations_s))


def test_a_study_that_has_lost_its_end_is_read_anew() -> None:
    """Where a torn journal lost a trial, the ledger forgets it, too."""
    lines: list[dict[str, Any]] = []
    study = optuna.create_study(storage=JournalStorage(Lines(lines)))
    study.tell(study.ask(), 1.0)
    n_lines = len(lines)
    study.tell(study.ask(), 2.0)
    ledger = Ledger(storage := JournalStorage(Lines(lines)), study._study_id, ["minimize"])
    ledger.read()
    assert ledger.n_finished == 2
    del lines[n_lines:]
    storage.__setstate__({"_backend": Lines(lines)})  # as another process opens it
    ledger.read()
    assert (len(ledger.trials), ledger.n_finished) == (1, 1)


# ------------------------------------------------------------------------------------------------ the rule


def begin(study: optuna.Study, state: TrialState = TrialState.RUNNING, **attributes: Any) -> int:
    """A trial as a worker of now begins it; its number."""
    made = create_trial(
        state=state,
        value=0.0 if state == TrialState.COMPLETE else None,
        user_attrs=attributes,
        system_attrs={POOL: "pool"},
    )
    study.add_trial(made)
    return len(study.trials) - 1


def end(study: optuna.Study, number: int, is_queued: bool) -> None:
    """End it as FAIL, with the mark that its copy is queued or without."""
    trial_id = study.trials[number]._trial_id
    if is_queued:
        study._storage.set_trial_system_attr(trial_id, QUEUED, True)
    study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def read(study: optuna.Study, n_trials: int) -> Ledger:
    ledger = Ledger(study._storage, study._study_id, ["minimize"], n_trials)
    ledger.read()
    return ledger


def test_a_copy_that_comes_after_the_end_is_none() -> None:
    """A reaper that was slow cannot revive a trial whose place another has taken."""
    study = optuna.create_study()
    first = begin(study)
    end(study, first, is_queued=False)  # by its own worker
    other = begin(study)
    late = begin(study, TrialState.WAITING, retry_of=first)
    ledger = read(study, 1)
    assert ledger.holds(ledger.trials[other])
    assert not ledger.may_hold(ledger.trials[late])
    assert ledger.is_void(ledger.trials[late])
    assert not ledger.has_room


def test_of_two_copies_the_smaller_number_holds() -> None:
    """Two reapers queue the same trial, and it is run once."""
    study = optuna.create_study()
    first = begin(study)
    one, two = (begin(study, TrialState.WAITING, retry_of=first) for _ in range(2))
    end(study, first, is_queued=True)
    ledger = read(study, 1)
    assert [ledger.holds(ledger.trials[n]) for n in (one, two)] == [True, False]
    assert not ledger.has_room


def test_a_retry_of_what_ended_well_does_not_hold() -> None:
    """A trial that was queued again and ends well after all is the one that counts."""
    study = optuna.create_study()
    first = begin(study)
    copied = begin(study, TrialState.WAITING, retry_of=first)
    assert read(study, 1).may_hold(study.trials[copied])
    study.tell(first, 1.0)
    assert not read(study, 1).may_hold(study.trials[copied])


def test_what_an_earlier_version_queued_is_run() -> None:
    """It wrote no marks: the copy of a failed trial holds."""
    study = optuna.create_study()
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({}, user_attrs={"retry_of": 0, "n_retries": 1})
    ledger = read(study, 1)
    assert ledger.holds(ledger.trials[1])


def test_an_attribute_of_an_app_is_no_retry() -> None:
    """Whatever an app calls retry_of, its trial is a first try."""
    study = optuna.create_study()
    for value in (True, "0", -1, 7, 1.0):
        begin(study, retry_of=value)
    ledger = read(study, 9)
    assert [ledger.first_try(n) for n in range(5)] == [0, 1, 2, 3, 4]


def test_what_is_given_back_is_shown_to_nobody(tmp_path: Path, plain: Space) -> None:
    """Of hosts that ask in one moment, those that find no room leave nothing that anybody reads."""
    search = a_search(tmp_path / "first", n_trials=1)
    lines: list[dict[str, Any]] = []
    first = Study.open(search, JournalStorage(Lines(lines)), plain, [])
    both_have_read = threading.Barrier(2)

    class Meeting(Lines):
        """Waits for the other host before it writes for the first time."""

        has_met = False

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            if not self.has_met:
                both_have_read.wait(60)
                self.has_met = True
            super().append_logs(logs)

    studies = [Study.load(search, JournalStorage(Meeting(lines))) for _ in range(2)]
    for index, study in enumerate(studies):
        study.files = replace_folder(study, tmp_path / str(index))
    given: list[int] = []

    def ask(study: Study) -> None:
        worker = Worker(study.search)
        if (trial := study.ask(plain, worker)) is not None:
            given.append(trial.number)
        worker.end()

    threads = [threading.Thread(target=ask, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == [0]
    assert [is_surplus(t) for t in first.trials()] == [False, True]
    looked = seen(first.trials(), first.files, first.trials)
    assert [t.number for t in looked] == [0]
    assert [t.number for t in first.record().trials] == [0]
    first.tell(0, TrialState.COMPLETE, [1.0])
    assert "COMPLETE: 1\n" in first.files.results.read_text()
    assert "FAIL" not in first.files.results.read_text()
    assert not first.ledger.failed


def replace_folder(study: Study, folder: Path) -> Any:
    files = type(study.files)(folder)
    files.mark("name", "memory")
    return files
