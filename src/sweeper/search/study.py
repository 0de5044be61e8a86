"""One study, opened or resumed: its sampler and pruner, its budget, and the trials of the dead."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import origin, outcome
from sweeper.fault import Fault
from sweeper.filesystem import sweep_up
from sweeper.lock import forget_the_dead, locked
from sweeper.outcome import shown
from sweeper.record.study_files import StudyFiles
from sweeper.results import study_record
from sweeper.results.plan import CANDIDATE, REPEAT
from sweeper.results.study_record import StudyRecord
from sweeper.search import engine, life, window
from sweeper.search.arrival import Arrival
from sweeper.search.beginning import (
    as_begun,
    check_hosts,
    check_same,
    create,
    nothing_to_join,
    with_its_budget,
)
from sweeper.search.grid import Points, key_of_point
from sweeper.search.ledger import Ledger
from sweeper.search.life import Told
from sweeper.search.locked_study import LockedStudy, Worker
from sweeper.search.sampler import build_pruner, build_sampler, is_grid
from sweeper.search.search import Search
from sweeper.search.sender import Sender
from sweeper.search.space import Space
from sweeper.search.storage import opening_lock
from sweeper.search.window import Window, WindowedTrial, window_for

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MOST_TURNS = 100
"""How often an ask begins a trial that does not hold, and tries again, before its worker ends."""


_USUAL = 0.9
"""The part of the trials that took no longer than a trial is given."""


class NameTaken(Exception):
    """A study has the name that nobody wrote."""


class _ComputedOnce(Generic[_T]):
    """A property that asks the storage once; that of Python 3.11 holds up all other threads meanwhile."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute, self._name = compute, f"_{compute.__name__}"

    def __get__(self, study: Study, kind: type[Study]) -> _T:
        if self._name not in study.__dict__:
            study.__dict__[self._name] = self._compute(study)
        found: _T = study.__dict__[self._name]
        return found


class Study:
    """A handle on one study: asks, tells and reaps.

    Workers of one machine decide one by one, under its lock, so that they never meet. That those of several
    spend the budget exactly is the ledger's rule.
    """

    def __init__(self, search: Search, study: optuna.Study) -> None:
        self.search = search
        self.optuna = study
        self.files = StudyFiles(search.folder)
        key = _key_of_training if search.plan else key_of_point if is_grid(search.sampler) else _no_key
        directions = outcome.directions(study)
        self.ledger = Ledger(study._storage, study._study_id, directions, search.n_trials, key)
        self._points = Points()
        self._window: Window | None = None

    def bring(self) -> None:
        """Bring the folder up to date with what other machines have sent, if there are any.

        Raises:
            Fault: if a disk, or the artifact store, fails.
        """
        if self.sender is not None:
            Arrival(self.files, self.optuna._storage).bring()

    def read_id(self) -> str | None:
        """What tells it from others of its name; None before it was begun."""
        found = origin.read(self.optuna._storage, self.optuna._study_id).get("id")
        return found if isinstance(found, str) else None

    @_ComputedOnce
    def sender(self) -> Sender | None:
        """What sends the results of trials to other machines; None where these see the folder."""
        return Sender.of(self.optuna, self.files)

    @classmethod
    def load(cls, search: Search, storage: BaseStorage) -> Study:
        """The study that exists, with its own pruner; without one, Optuna would prune by the median."""
        study = optuna.load_study(
            study_name=search.study_name,
            storage=storage,
            sampler=RandomSampler(),  # takes no part: each trial gets its own in `ask`
            pruner=build_pruner(search.pruner) if search.plan is None else optuna.pruners.NopPruner(),
        )
        return cls(search, study)

    @classmethod
    def open(cls, search: Search, storage: BaseStorage, space: Space, fixed: Sequence[str]) -> Study:
        """Create the study, or go on with it where it exists.

        Raises:
            BadInput: if it was begun with another direction, metric or other choices, or is to be joined and
                does not exist.
            NameTaken: if nobody wrote its name, and there is such a study or folder.
        """
        begun = as_begun(search, space, fixed)
        files = StudyFiles(search.folder)
        if search.is_joined and search.study_name not in [s.study_name for s in storage.get_all_studies()]:
            raise nothing_to_join(search)  # before anything is made here
        living = _heard(search, storage, files) if search.take_over else ()
        with opening_lock(search.storage), locked(files.lock):
            names = [study.study_name for study in storage.get_all_studies()]
            if search.is_unnamed and (files.is_ours or search.study_name in names):
                raise NameTaken
            files.refuse_others(search.study_name, search.storage)
            if search.study_name not in names:
                with suppress(DuplicatedStudyError):  # another machine was faster: go on with its study
                    create(search, storage)
            if search.is_joined:
                search = with_its_budget(search, storage)
            study = cls.load(search, storage)
            check_same(search, study.optuna, begun)
            check_hosts(search, study.optuna)
            locked_study = study._under_lock()
            locked_study.reap(take_over=search.take_over, living=living)
            study.ledger.read()
            running = list(study.ledger.running.values())
            sweep_up(files.folder, depth=2)
            forget_the_dead(files.heartbeats, kept=[life.worker_of(t) for t in running])
            if not search.is_joined:
                # The first who opens it gives it its id.
                begun |= {"id": study_id} if (study_id := study.read_id()) else {}
                origin.write(storage, study.optuna._study_id, begun)
            files.mark(search.study_name, search.storage, study.read_id(), search.travels)
            locked_study.write_results()
        if files.best.choice.exists():
            what = (
                "best/ holds what sweeper certify has chosen; when a trial ends, it is the best trial's again"
            )
            log.warning("%s", what)
        return study

    @contextmanager
    def locked(self) -> Iterator[LockedStudy]:
        """What may only be done while nobody else decides.

        Raises:
            Fault: if the study's folder was removed.
        """
        if not self.files.is_ours:
            remedy = "leave it there while a search runs: the trials are still in the storage"
            raise Fault(self.files.folder, "the folder of the study was removed", remedy)
        with locked(self.files.lock):
            yield self._under_lock()

    def _under_lock(self) -> LockedStudy:
        search = self.search
        return LockedStudy(self.optuna, self.files, search.max_retries, search.plan, self.ledger)

    def trials(self) -> Sequence[FrozenTrial]:
        """All trials, by number, as they are now; it is one list, which grows."""
        self.ledger.read()
        return self.ledger.trials

    def record(self) -> StudyRecord:
        """What is known of it now."""
        return study_record.of(self.optuna, self.files)

    # ------------------------------------------------------------------------------- asking and telling

    def ask(self, space: Space, worker: Worker) -> optuna.Trial | None:
        """The next trial to run, or None when the budget is spent, taken or out of time."""
        n_ahead = 0
        with self.locked() as study:
            for _ in range(_MOST_TURNS):
                self.ledger.read_ends()
                study.give_back_lost(worker)
                trial = self._take(study, space, worker, n_ahead)
                if trial is None:
                    return None
                if study.is_kept(trial):
                    worker.asked.add(trial.number)
                    return self._handle(trial, space)
                n_ahead = self.ledger.n_ahead(trial)
                study.give_back(trial)
        return None

    def _take(self, study: LockedStudy, space: Space, worker: Worker, n_ahead: int) -> FrozenTrial | None:
        """A trial for this worker, one that waits or a new one; other machines may take the same."""
        plan = self.search.plan
        if plan is not None and not study.withdraw_waiting(plan):
            return None
        if (trial := study.pop_waiting(worker)) is not None:
            return trial
        if not self.ledger.has_room:
            return None
        if plan is not None:
            return study.begin_training(plan, worker, n_ahead)
        if not is_grid(self.search.sampler):
            return study.begin(worker)
        point = self._points.next_free(space, self.ledger, n_ahead)
        return None if point is None else study.begin(worker, point)

    def _handle(self, trial: FrozenTrial, space: Space) -> optuna.Trial:
        """What draws the parameters of a trial, with a sampler of its own."""
        search = self.search
        number = self.ledger.first_try(trial.number)
        study = self.optuna
        study.sampler = build_sampler(search.sampler, search.seed, space, number)
        if self._window is None:
            directions = outcome.directions(study)
            self._window = window_for(self.ledger, directions, study.sampler, study.pruner, study)
        return WindowedTrial(study, trial._trial_id, self._window, trial)

    def tell(
        self,
        number: int,
        state: TrialState,
        values: list[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """End a trial and bring the files of the study up to date.

        Returns:
            whether it was this call that has ended it: others may have taken its worker for dead.
        """
        storage, trial_id = self.optuna._storage, self._id_of(number)
        try:
            for name, value in (attributes or {}).items():
                storage.set_trial_user_attr(trial_id, name, value)
            trial = storage.get_trial(trial_id)
            if trial.state.is_finished():
                return False
            is_sent = self._send(trial, values)
            with self.locked() as study:
                window.tell(self.optuna, trial, state, values)
                study.write_results(ended=number)
        except UpdateFinishedTrialError:
            return False
        if is_sent and self.sender is not None:
            self.sender.tidy(self.ledger.trials)
        return True

    def _send(self, trial: FrozenTrial, values: Sequence[float] | None) -> bool:
        """Let what a trial has left go with the study; whether its model was sent."""
        if self.sender is None:
            return False
        if self.search.artifacts is not None:  # only of the best ones models are sent
            self.ledger.read_ends()
        ended = self.ledger.best if self.search.plan is None else self.ledger.trials
        return self.sender.send(trial, values, ended)

    def _id_of(self, number: int) -> int:
        if number >= len(self.ledger.trials):
            self.ledger.read_ends()
        return self.ledger.trials[number]._trial_id

    def tell_interrupted(self, number: int, reason: str) -> bool:
        """End a trial that was asked to stop, and queue its parameters for whoever goes on.

        Returns:
            whether it was this call that has ended it.
        """
        with self.locked() as study:
            trial = self.trials()[number]
            return study.fail_and_queue(trial, reason, is_retry=False, interrupted=True)

    def has_ended(self, number: int) -> bool:
        """Whether a trial was told, by this process or by others; asked of the storage itself."""
        return self.optuna._storage.get_trial(self._id_of(number)).state.is_finished()

    def awaited(self) -> list[FrozenTrial]:
        """The running trials, as they were read last, that take room in the budget."""
        return [trial for trial in shown(list(self.ledger.running.values())) if self.ledger.holds(trial)]

    def unseen(self) -> list[FrozenTrial]:
        """Those of them of which nothing that is here can tell whether their process lives."""
        self.ledger.read()
        running = self.awaited()
        told = self.told() if running else life.NOBODY
        return [trial for trial in running if life.is_unseen(trial, self.files, told)]

    def told(self) -> Told:
        """What the pools of the study have told of themselves."""
        return life.read(self.optuna._storage, self.optuna._study_id)

    # -------------------------------------------------------------------------------------- the budget

    def has_work(self) -> bool:
        """Whether there is a trial to run, or room for another one, as the study was read last."""
        waits = any(self.ledger.may_hold(trial) for trial in self.ledger.waiting.values())
        return waits or self.ledger.has_room

    def is_decided(self) -> bool:
        """Whether this is a certificate whose race has ended before its budget."""
        plan = self.search.plan
        return plan is not None and plan.next_training(shown(self.trials()), self.search.directions) is None

    def is_over(self) -> bool:
        """Whether no trial should begin any more, as the study was read last: no time, or too many failed."""
        if self.search.deadline is not None and time.time() >= self.search.deadline:
            return True
        return self.has_failed() or not self.has_time()

    def has_time(self) -> bool:
        """Whether a trial that begins now would end before this job does, for all that others took.

        Nine of ten trials took no longer than the time that must be left. One that is cut off costs the study
        no more than the machine's time, which would have been idle: so the longest of all is no measure. The
        median would be none either, where a pruner ends most trials early.
        """
        ends_at = engine.ends_at()
        if ends_at is None:
            return True
        took_s = self.ledger.durations_s
        usual_s = took_s[int(_USUAL * (len(took_s) - 1))] if took_s else 0.0
        return time.time() + usual_s < ends_at

    def has_failed(self) -> bool:
        """Whether more trials failed than ``max_failure_rate`` admits of all, as the study was read last."""
        n_trials, rate = self.search.n_trials, self.search.max_failure_rate
        whole = max(10, self.ledger.counts.total()) if n_trials is None else n_trials
        return len(self.ledger.failed) > rate * whole


def _heard(search: Search, storage: BaseStorage, files: StudyFiles) -> set[str]:
    """The pools of other hosts that live, of those whose trials run; it takes two of their heartbeats."""
    if search.study_name not in [study.study_name for study in storage.get_all_studies()]:
        return set()
    study_id = storage.get_study_id_from_name(search.study_name)
    running = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
    pools = {life.pool_of(trial) for trial in running}
    say = partial(print, flush=True)
    return {name for name, _ in life.heard(storage, study_id, files, say, among=pools)}


def _no_key(trial: FrozenTrial) -> None:
    return None


def _key_of_training(trial: FrozenTrial) -> tuple[Any, Any] | None:
    names = trial.user_attrs.get(CANDIDATE), trial.user_attrs.get(REPEAT)
    return None if None in names else names
