"""One study, opened or resumed: its sampler and pruner, its budget, and the trials of the dead."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import origin, outcome
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.filesystem import sweep_up
from sweeper.lock import Heartbeat, forget, forget_the_dead, is_alive, is_locked, locked
from sweeper.outcome import FIRST_TRY, SURPLUS, Outcome, is_surplus, shown
from sweeper.record import FORMAT, StudyFiles, check_format
from sweeper.results import study_record, val_logits
from sweeper.results.plan import CANDIDATE, REPEAT, Plan
from sweeper.results.study_record import StudyRecord
from sweeper.search import engine, life, window
from sweeper.search.ledger import POOL, QUEUED, Ledger
from sweeper.search.life import Told, is_lost
from sweeper.search.sampler import build_pruner, build_sampler, is_grid
from sweeper.search.space import Space
from sweeper.search.storage import WAIT_S, check_many_machines, look_into_storage, opening_lock
from sweeper.search.travel import ASK_BYTES, Arrival, Sender, travels
from sweeper.search.window import Window, WindowedTrial, window_for
from sweeper.secret import hide_secrets

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MOST_TURNS = 100
"""How often an ask begins a trial that does not hold, and tries again, before its worker ends."""


_USUAL = 0.9
"""The part of the trials that took no longer than a trial is given."""


@dataclass(frozen=True)
class Search:
    """The settings of a sweep, checked; what every worker is given."""

    study_name: str
    storage: str
    folder: Path
    """Of the study, absolute."""
    directions: tuple[str, ...]
    metrics: tuple[str, ...] | None
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    seed: int | None
    n_trials: int | None
    deadline: float | None
    """Seconds since the epoch after which no new trial starts."""
    max_retries: int
    max_failure_rate: float
    custom_search_space: str | None
    metrics_key: str = "hydra.sweeper.metric_names"
    """Where the app names the metrics."""
    is_unnamed: bool = False
    """Whether nobody wrote the name: then it is never that of another study."""
    take_over: bool = False
    """Whether trials that another host may still run are taken for lost when the study is opened."""
    storage_wait_s: float = WAIT_S
    """How long the storage's server is tried again while it cannot be reached."""
    command: tuple[str, ...] = ()
    """The words of the command, without secrets: what the next commands are made of."""
    named_by: str = "hydra.sweeper.study_name"
    """The key that names the study."""
    stored_by: str = "hydra.sweeper.storage"
    """The key that names the storage."""
    folder_by: str = "name"
    """What names the study's folder: its ``name``, the ``time``, or ``nobody``."""
    plan: Plan | None = None
    """Whom to train again, where this is a certificate and no search."""
    is_joined: bool = False
    """Whether it takes part in a study that exists, and begins none."""
    heartbeat_s: float = 30.0
    """How often a pool tells the storage that its workers live."""
    grace_s: float = 120.0
    """How long a pool of another machine may be silent before its trials are repeated."""
    artifacts: str | None = None
    """The folder, absolute, or ``s3://bucket/prefix``, where the weights of the best trials go."""
    pool: str = ""
    """The name of the pool whose workers run it, as the study knows it."""

    @property
    def travels(self) -> bool:
        """Whether others may read the study who do not see its folder."""
        return travels(self.storage, self.folder, self.artifacts)

    def of_plan(self, plan: Plan) -> Search:
        """The certificate in place of the search: nothing is sampled, and the budget is the plan's."""
        sampler = {"_target_": "optuna.samplers.RandomSampler"}  # takes no part
        return replace(self, plan=plan, sampler=sampler, n_trials=plan.n_trainings, deadline=None)

    def with_its_artifacts(self, storage: BaseStorage) -> Search:
        """With the artifact store that the study was begun with, where none is named now."""
        for study in storage.get_all_studies() if self.artifacts is None else ():
            if study.study_name == self.study_name:
                return replace(self, artifacts=origin.read(storage, study._study_id).get("artifacts"))
        return self

    def in_its_folder(self, storage: BaseStorage) -> Search:
        """In the folder where the study was begun, also if the app's folders are named by the time."""
        for study in storage.get_all_studies():
            if study.study_name == self.study_name and not StudyFiles(self.folder).is_ours:
                begun = origin.read(storage, study._study_id)
                folder = origin.folder(begun)
                moved = self if folder is None else replace(self, folder=folder)
                plan = Plan.read(StudyFiles(moved.folder))
                return moved if plan is None else moved.of_plan(plan)
        return self


class NameTaken(Exception):
    """A study has the name that nobody wrote."""


class Worker:
    """A process that runs trials: its name, and the heartbeat that others see.

    Args:
        pool: the name of the pool that watches it.
    """

    def __init__(self, search: Search, pool: str | None = None) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.pool = pool or self.name
        self.asked: set[int] = set()
        """The numbers of the trials that it was given."""
        self._heartbeat = Heartbeat(StudyFiles(search.folder).heartbeats, self.name)

    def end(self) -> None:
        self._heartbeat.end()


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
        key = _key_of_training if search.plan else _key_of_point if is_grid(search.sampler) else _no_key
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
            arrival = Arrival(self.files, self.optuna._storage)
            arrival.bring(lambda n_bytes: n_bytes <= ASK_BYTES)

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
        begun = {
            "format": FORMAT,
            "folder": str(search.folder),
            "directions": list(search.directions),
            "metrics": list(search.metrics or ()),
            "space": {name: distribution_to_json(p.distribution) for name, p in space.parameters().items()},
            "fixed": list(fixed),
            "max_retries": search.max_retries,
            "n_trials": search.n_trials,
            "sampler": search.sampler.get("_target_"),
            "command": list(search.command),
            "named_by": search.named_by,
            "stored_by": search.stored_by,
            "folder_by": search.folder_by,
            "id": uuid.uuid4().hex,
            "artifacts": search.artifacts,
            "travels": search.travels,
        }
        files = StudyFiles(search.folder)
        if search.is_joined and search.study_name not in [s.study_name for s in storage.get_all_studies()]:
            raise _nothing_to_join(search)  # before anything is made here
        with opening_lock(search.storage), locked(files.lock):
            names = [study.study_name for study in storage.get_all_studies()]
            if search.is_unnamed and (files.is_ours or search.study_name in names):
                raise NameTaken
            files.refuse_others(search.study_name, search.storage)
            if search.study_name not in names:
                with suppress(DuplicatedStudyError):  # another machine was faster: go on with its study
                    _create(search, storage)
            if search.is_joined:
                search = _with_its_budget(search, storage)
            study = cls.load(search, storage)
            _check_same(search, study.optuna, begun)
            _check_hosts(search, study)
            locked_study = study._under_lock()
            locked_study.reap(take_over=search.take_over)
            study.ledger.read()
            running = list(study.ledger.running.values())
            sweep_up(files.folder, depth=2)
            forget_the_dead(files.heartbeats, kept=[t.user_attrs.get("worker", "") for t in running])
            if not search.is_joined:
                # The first who opens it gives it its id.
                begun |= {"id": study_id} if (study_id := study.read_id()) else {}
                origin.write(storage, study.optuna._study_id, begun)
            files.mark(search.study_name, search.storage, study.read_id(), search.travels)
            locked_study.write_results()
        if files.choice.exists():
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
        """Whether no trial should begin any more: out of time, or too many failed."""
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
        self.ledger.read()
        took_s = self.ledger.durations_s
        usual_s = took_s[int(_USUAL * (len(took_s) - 1))] if took_s else 0.0
        return time.time() + usual_s < ends_at

    def has_failed(self) -> bool:
        """Whether more trials failed than ``max_failure_rate`` of the whole study admits."""
        self.ledger.read_ends()
        n_trials, rate = self.search.n_trials, self.search.max_failure_rate
        whole = max(10, self.ledger.counts.total()) if n_trials is None else n_trials
        return len(self.ledger.failed) > rate * whole


class LockedStudy:
    """What may be done to a study while its lock is held; ``Study.locked`` gives it."""

    def __init__(
        self,
        study: optuna.Study,
        files: StudyFiles,
        max_retries: int,
        plan: Plan | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._study = study
        self._storage = study._storage
        self._files = files
        self._max_retries = max_retries
        self._plan = plan
        self.ledger = ledger or Ledger(study._storage, study._study_id, outcome.directions(study))

    def write_results(self, ended: int | None = None) -> None:
        """Bring the files of the study up to date; see ``StudyFiles.write_results``."""
        self.ledger.read_ends()
        found = self._outcome()
        kept = None if self._plan is None else self._plan.kept(found.trials, found.directions)
        best = [trial.number for trial in found.best]
        is_last = not self.ledger.running and not self.ledger.waiting
        self._files.write_results(found, ended, kept, ended is None or is_last or best != self.ledger.told)
        self.ledger.told = best
        val_logits.keep_best(self._files, found, ended)

    def _outcome(self) -> Outcome:
        ledger = self.ledger
        counts = {state.name: n for state, n in ledger.counts.items()}
        name, directions = self._study.study_name, outcome.directions(self._study)
        return Outcome(name, directions, ledger.trials, counts, ledger.best)

    def reap(
        self,
        reasons: Mapping[str, str] | None = None,
        spared: Collection[str] = (),
        is_interrupted: bool = False,
        take_over: bool = False,
        dead: Collection[str] = (),
    ) -> list[int]:
        """Fail the trials whose process is gone, and queue their parameters again.

        Args:
            reasons: why a worker died, by its name, where somebody knows.
            spared: workers whose pool will say it when they die.
            is_interrupted: whether their pool has killed them, because somebody asked it to stop.
            take_over: whether those whose life no lock shows are taken for lost.
            dead: pools of other hosts that were silent for too long.

        Returns:
            the numbers of the trials.
        """
        reaped, told = [], None
        self.ledger.read()
        for trial in list(self.ledger.running.values()):
            worker = trial.user_attrs.get("worker") or ""
            if worker in spared:
                continue
            told = told or life.read(self._storage, self._study._study_id)
            if take_over:
                if is_alive(self._files.heartbeats, worker):
                    continue
            elif not is_lost(trial, self._files, told, dead):
                continue
            reason = (reasons or {}).get(worker)
            says = {"interrupted": is_interrupted, "lost": reason is None}
            if self.fail_and_queue(
                trial, reason or told.why_lost(trial), is_retry=not is_interrupted, **says
            ):
                reaped.append(trial.number)
            forget(self._files.heartbeats, worker)
        if reaped:
            self.write_results()
        return reaped

    def fail_and_queue(self, trial: FrozenTrial, reason: str, is_retry: bool, **says: bool) -> bool:
        """Queue first, then mark, then fail: killed in between, the next one finds it RUNNING and its copy.

        Args:
            says: attributes that it gets where they are true.

        Returns:
            whether it was this call that has ended it.
        """
        self.ledger.read()
        trial = self.ledger.trials[trial.number]
        if trial.state.is_finished():
            return False
        if not self.ledger.copies(trial.number):
            self._queue_copy(trial, is_retry)
        try:
            if self.ledger.copies(trial.number):
                self._storage.set_trial_system_attr(trial._trial_id, QUEUED, True)
            for name in (name for name, is_said in says.items() if is_said):
                self._storage.set_trial_user_attr(trial._trial_id, name, True)
            return self._fail(trial, reason)
        except UpdateFinishedTrialError:  # another machine was faster, or its worker lives
            return False
        finally:
            self.ledger.read()

    def _queue_copy(self, trial: FrozenTrial, is_retry: bool) -> None:
        """Queue the parameters of a trial again, if they are known and may be retried."""
        n_retries = trial.user_attrs.get("n_retries", 0) + is_retry
        # A trial that was itself queued may have died before it drew all of its parameters.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        names = () if self._plan is None else (CANDIDATE, REPEAT)
        training = {name: trial.user_attrs[name] for name in names if name in trial.user_attrs}
        is_known = bool(params or training)  # the defaults draw nothing
        if n_retries > self._max_retries or not is_known or is_surplus(trial):
            return
        attributes = {"retry_of": trial.number, "n_retries": n_retries, **training}
        system = {"fixed_params": params, FIRST_TRY: self.ledger.first_try(trial.number)}
        copied = create_trial(state=TrialState.WAITING, user_attrs=attributes, system_attrs=system)
        self._storage.create_new_trial(self._study._study_id, copied)
        self.ledger.read()

    def _fail(self, trial: FrozenTrial, reason: str) -> bool:
        self._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        return self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    # ----------------------------------------------------------------------------------------- beginning

    def begin(
        self,
        worker: Worker,
        params: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """A new trial, which runs; nobody sees it without its worker.

        Args:
            params: those that are no longer drawn.
            attributes: the user's attributes that it has besides.
        """
        fixed = {} if params is None else {"fixed_params": dict(params)}
        made = create_trial(
            state=TrialState.RUNNING,
            user_attrs={"worker": worker.name, **(attributes or {})},
            system_attrs={POOL: worker.pool, **fixed},
        )
        trial_id = self._storage.create_new_trial(self._study._study_id, made)
        self.ledger.read_ends()
        return self.ledger.with_id(trial_id)

    def pop_waiting(self, worker: Worker) -> FrozenTrial | None:
        """Take the first trial that waits and may hold; those that never will are given back."""
        for n_lost in count():
            for trial in [t for t in self.ledger.waiting.values() if self.ledger.is_void(t)]:
                self.give_back(trial)
            waiting = (t for t in self.ledger.waiting.values() if self.ledger.may_hold(t))
            # Where others were faster it may be by chance that they are not again.
            found = list(islice(waiting, n_lost + 1))
            if not found:
                return None
            if self._pop(trial := random.choice(found), worker):
                self.ledger.read_ends()
                return self.ledger.trials[trial.number]
            self.ledger.read_ends()
        raise AssertionError

    def _pop(self, trial: FrozenTrial, worker: Worker) -> bool:
        """Let a trial that waits run; whether nobody else has.

        Its pool stands there before it runs: other hosts take a running trial of nobody for lost.
        """
        try:
            self._storage.set_trial_system_attr(trial._trial_id, POOL, worker.pool)
            if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return False
            self._storage.set_trial_user_attr(trial._trial_id, "worker", worker.name)
            self._storage.set_trial_system_attr(trial._trial_id, POOL, worker.pool)
        except UpdateFinishedTrialError:
            return False
        return True

    def is_kept(self, trial: FrozenTrial) -> bool:
        """Whether a trial holds, of which the ledger has read that it has begun; what it repeats is ended."""
        if trial.number != self.ledger.first_try(trial.number):
            before = self.ledger.trials[trial.user_attrs["retry_of"]]
            if not before.state.is_finished():  # whoever has queued this one could not end that
                self.fail_and_queue(before, life.LOST, is_retry=True, lost=True)
        return self.ledger.holds(trial)

    def give_back(self, trial: FrozenTrial) -> None:
        """End a trial that does not hold; nobody is shown it."""
        with suppress(UpdateFinishedTrialError):  # by another machine
            self._storage.set_trial_user_attr(trial._trial_id, SURPLUS, True)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        self.ledger.read_ends()

    def give_back_lost(self, worker: Worker) -> None:
        """End what has this worker's name and was never given to it: an answer of the server was lost."""
        for trial in [t for t in self.ledger.running.values() if t.user_attrs.get("worker") == worker.name]:
            if trial.number in worker.asked:
                continue
            if self.ledger.first_try(trial.number) == trial.number:
                self.give_back(trial)
            else:
                self.fail_and_queue(trial, ANSWER_LOST, is_retry=False, interrupted=True)

    # ----------------------------------------------------------------------------- trainings of a certificate

    def withdraw_waiting(self, plan: Plan) -> bool:
        """Withdraw what waits of those who have dropped out; False if nobody is trained any more."""
        self.ledger.read()
        trials, directions = shown(self.ledger.trials), outcome.directions(self._study)
        is_on = plan.next_training(trials, directions) is not None
        waiting = list(self.ledger.waiting.values())
        inside = plan.race(trials, directions).inside if waiting and is_on else ()
        for trial in waiting:
            if trial.user_attrs.get(CANDIDATE) not in inside:
                self._withdraw(trial, "nothing more is to be learned from it")
        self.ledger.read()
        return is_on

    def begin_training(self, plan: Plan, worker: Worker, n_ahead: int = 0) -> FrozenTrial | None:
        """A training of the candidate that is next.

        Args:
            n_ahead: how many others are about to begin the ones before.
        """
        trials, directions = shown(self.ledger.trials), outcome.directions(self._study)
        while (following := plan.next_training(trials, directions)) is not None:
            name, repeat = following
            training = {CANDIDATE: name, REPEAT: repeat}
            if not n_ahead:
                return self.begin(worker, plan.named(name).params or {}, training)
            n_ahead -= 1
            trials.append(create_trial(state=TrialState.RUNNING, user_attrs=training))
        return None

    def _withdraw(self, trial: FrozenTrial, reason: str) -> None:
        """End a trial that waits."""
        with suppress(UpdateFinishedTrialError):
            if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):  # nobody was faster
                self._storage.set_trial_user_attr(trial._trial_id, "interrupted", True)
                self._fail(trial, reason)


class Points:
    """The points of a grid, one after the other."""

    def __init__(self) -> None:
        self._rest: Iterator[Mapping[str, Any]] | None = None
        self._n_freed = -1
        self._free: list[Mapping[str, Any]] = []
        """Those that were free when they were come across."""

    def next_free(self, space: Space, ledger: Ledger, n_ahead: int = 0) -> Mapping[str, Any] | None:
        """The first point that no trial has, or had; None when there is none left.

        Args:
            n_ahead: how many others are about to take the ones before.
        """
        if self._rest is None or self._n_freed != ledger.n_freed:  # or go on where it was
            self._rest, self._n_freed, self._free = space.points(), ledger.n_freed, []
        self._free = [point for point in self._free if not ledger.is_taken(_point_key(point))]
        while len(self._free) <= n_ahead and (point := next(self._rest, None)) is not None:
            if not ledger.is_taken(_point_key(point)):
                self._free.append(point)
        return self._free[min(n_ahead, len(self._free) - 1)] if self._free else None


ANSWER_LOST = "an answer of the storage was lost"


def seen(
    trials: Sequence[FrozenTrial],
    files: StudyFiles | None,
    read_again: Callable[[], Sequence[FrozenTrial]],
    read_told: Callable[[], Told] = Told,
) -> list[FrozenTrial]:
    """The trials as somebody sees them who only looks: those whose process is gone as lost.

    The study stays as it is: the next search on it fails them, and tries their parameters again. Whoever asks
    for a trial holds the study's lock until the trial has its worker's name: one that has none, before and
    after the lock was free, has lost its process too.

    Args:
        files: of the study, where its folder is here.
        read_told: gives what its pools tell of themselves; one that is silent is not waited for.
    """
    trials = shown(trials)
    nameless = _without_worker(trials)
    if nameless and files is not None and not is_locked(files.lock):
        trials = shown(read_again())
        nameless = _without_worker(trials) - nameless
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number not in nameless]
    told = read_told() if running else Told()
    lost = {t.number for t in running if is_lost(t, files, told)}
    return [_lost(t, told) if t.number in lost else t for t in trials] if lost else trials


def _without_worker(trials: Sequence[FrozenTrial]) -> set[int]:
    return {t.number for t in trials if t.state == TrialState.RUNNING and "worker" not in t.user_attrs}


def look(files: StudyFiles) -> list[FrozenTrial]:
    """The trials of the study whose folder this is, as ``seen`` shows them.

    Raises:
        BadInput: if there is no such storage, or its trials were in the memory of a process.
        Fault: if the storage cannot be read.
    """
    storage = look_into_storage(files.read_storage() or "memory")
    study_id = storage.get_study_id_from_name(files.read_name())
    read = partial(storage.get_all_trials, study_id, deepcopy=False)
    return seen(read(), files, read, partial(life.read, storage, study_id))


def read(files: StudyFiles) -> StudyRecord:
    """The record of the study whose folder this is, with the trials that ``look`` shows.

    Raises:
        BadInput: if there is no such storage, or its trials were in the memory of a process.
        Fault: if the storage cannot be read.
    """
    storage = look_into_storage(files.read_storage() or "memory")
    study = optuna.load_study(study_name=files.read_name(), storage=storage, sampler=RandomSampler())
    read_trials = partial(study.get_trials, deepcopy=False)
    read_told = partial(life.read, storage, study._study_id)
    return study_record.of(study, files, seen(read_trials(), files, read_trials, read_told))


def _lost(trial: FrozenTrial, told: Told) -> FrozenTrial:
    shown = copy(trial)
    shown.state = TrialState.FAIL
    shown.datetime_complete = trial.datetime_start  # nobody knows when it ended, but a failed trial has
    shown.user_attrs = {**trial.user_attrs, "lost": True, "reason": told.why_lost(trial)}
    return shown


# --- opening ------------------------------------------------------------------------------------------------


def _create(search: Search, storage: BaseStorage) -> None:
    study = optuna.create_study(
        study_name=search.study_name,
        storage=storage,
        directions=[StudyDirection[name.upper()] for name in search.directions],
    )
    if search.metrics:
        with warnings.catch_warnings():  # metric names are still called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(search.metrics))


def _with_its_budget(search: Search, storage: BaseStorage) -> Search:
    """The search with the budget that the study has: all who take part must mean the same."""
    study_id = storage.get_study_id_from_name(search.study_name)
    begun = origin.read(storage, study_id)
    joined = replace(
        search,
        n_trials=begun.get("n_trials", search.n_trials) if search.plan is None else search.n_trials,
        max_retries=begun.get("max_retries", search.max_retries),
    )
    if joined.n_trials != search.n_trials:
        log.warning("hydra.sweeper.n_trials is %s, as the study has it.", joined.n_trials)
    return joined


def _nothing_to_join(search: Search) -> BadInput:
    reason = f"there is no such study in {search.storage}"
    remedy = "begin it without hydra.sweeper.join=true, or name the storage in which it is"
    return BadInput(search.named_by, search.study_name, hide_secrets(reason), remedy)


def _check_hosts(search: Search, study: Study) -> None:
    """Raises BadInput where another host works on a study in a storage that is for one."""
    pools = life.read(study.optuna._storage, study.optuna._study_id).open.values()
    if not search.take_over and any(pool.host != socket.gethostname() for pool in pools):
        check_many_machines(search.storage)


def _check_same(search: Search, study: optuna.Study, now: dict[str, Any]) -> None:
    directions = outcome.directions(study)
    # Plain Optuna, or the official sweeper, may have begun it.
    before = origin.read(study._storage, study._study_id) or now
    check_format("study", search.study_name, before)
    remedy = f"write it as before, or start another study than {search.study_name}"
    before = {**now, **before}  # of damaged entries nothing is known
    before["fixed"] = list(map(hide_secrets, before["fixed"]))  # an earlier version kept passwords
    if before["metrics"] and before["metrics"] != now["metrics"]:
        was = f"the study was started with {', '.join(before['metrics'])}"
        raise BadInput(search.metrics_key, ", ".join(now["metrics"]), was, remedy)
    if directions != now["directions"]:
        was = f"the study was started with {', '.join(directions)}"
        raise BadInput("hydra.sweeper.direction", ", ".join(now["directions"]), was, remedy)
    space = before["space"]
    for name in {**space, **now["space"]}:
        _check_same_range(name, space.get(name), now["space"].get(name), remedy)
    if before["fixed"] != now["fixed"]:
        values = (" ".join(fixed["fixed"]) or "none" for fixed in (now, before))
        log.warning("%s goes on with other values: %s; before: %s", study.study_name, *values)


def _check_same_range(name: str, before: str | None, now: str | None, remedy: str) -> None:
    if before is None:
        raise BadInput(name, _show(now), "the study was started without searching it", remedy)
    if now is None:
        raise BadInput(name, "not searched", f"the study was started with {_show(before)}", remedy)
    if before == now:
        return
    a, b = json_to_distribution(before), json_to_distribution(now)
    if (
        type(a) is not type(b)
        or isinstance(a, CategoricalDistribution)
        or getattr(a, "log", 0) != getattr(b, "log", 0)
    ):
        raise BadInput(name, _show(now), f"the study was started with {_show(before)}", remedy)
    log.warning("%s: the bounds are now %s, before: %s", name, _show(now), _show(before))


def _show(distribution_json: str | None) -> str:
    """A distribution as one writes it."""
    assert distribution_json is not None
    match json_to_distribution(distribution_json):
        case CategoricalDistribution(choices=choices):
            return f"choice({', '.join(json.dumps(c) if not isinstance(c, str) else c for c in choices)})"
        case FloatDistribution(low=low, high=high, log=log, step=step):
            text = f"interval({low}, {high})" if step is None else f"range({low} … {high}, step={step})"
            return f"tag(log, {text})" if log else text
        case IntDistribution(low=low, high=high, log=log, step=step):
            text = f"range({low} … {high}, step={step})"
            return f"tag(log, {text})" if log else text
        case other:
            return str(other)


def _no_key(trial: FrozenTrial) -> None:
    return None


def _key_of_training(trial: FrozenTrial) -> tuple[Any, Any] | None:
    names = trial.user_attrs.get(CANDIDATE), trial.user_attrs.get(REPEAT)
    return None if None in names else names


def _key_of_point(trial: FrozenTrial) -> str:
    # A trial that was just asked for has its point as fixed_params before it has drawn it.
    return _point_key(trial.system_attrs.get("fixed_params", trial.params))


def _point_key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
