"""One study, opened or resumed: its sampler and pruner, its budget, and the trials of the dead."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from optuna.trial import FrozenTrial, TrialState

from sweeper import origin, record
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import Heartbeat, forget, forget_the_dead, is_alive, is_locked, locked
from sweeper.record import FORMAT, StudyFiles, check_format, sweep_up
from sweeper.results import study_record, val_logits
from sweeper.results.plan import CANDIDATE, REPEAT, Plan
from sweeper.results.study_record import StudyRecord
from sweeper.search import life
from sweeper.search.life import POOL, Told, is_lost
from sweeper.search.sampler import build_pruner, build_sampler, is_grid
from sweeper.search.space import Space
from sweeper.search.storage import WAIT_S, look_into_storage, opening_lock
from sweeper.search.trial import first_try
from sweeper.secret import hide_secrets

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states that the budget counts."""

_TAKEN = (*FINISHED, TrialState.RUNNING)


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

    def of_plan(self, plan: Plan) -> Search:
        """The certificate in place of the search: nothing is sampled, and the budget is the plan's."""
        sampler = {"_target_": "optuna.samplers.RandomSampler"}  # takes no part
        return replace(self, plan=plan, sampler=sampler, n_trials=plan.n_trainings, deadline=None)

    def in_its_folder(self, storage: BaseStorage) -> Search:
        """In the folder where the study was begun, also if the app's folders are named by the time."""
        for study in storage.get_all_studies():
            if study.study_name == self.study_name and not StudyFiles(self.folder).is_ours:
                begun = Path(origin.read(storage, study._study_id).get("folder", self.folder))
                moved = replace(self, folder=begun) if begun.is_dir() else self
                plan = Plan.read(StudyFiles(moved.folder))
                return moved if plan is None else moved.of_plan(plan)
        return self


class NameTaken(Exception):
    """A study has the name that nobody wrote."""


class Worker:
    """A process that runs trials: its name, that of its pool, and the heartbeat that others see."""

    def __init__(self, search: Search, pool: str = "") -> None:
        self.pool = pool
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._heartbeat = Heartbeat(StudyFiles(search.folder).heartbeats, self.name)

    def end(self) -> None:
        self._heartbeat.end()


class Study:
    """A handle on one study: asks, tells and reaps. What may change is decided under its lock.

    Workers of one machine decide one by one, so that together they spend the budget exactly.
    """

    def __init__(self, search: Search, study: optuna.Study) -> None:
        self.search = search
        self.optuna = study
        self.files = StudyFiles(search.folder)

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
            study = cls.load(search, storage)
            _check_same(search, study.optuna, begun)
            locked_study = LockedStudy(study.optuna, files, search.max_retries, search.plan)
            locked_study.reap(take_over=search.take_over)
            running = study.trials(TrialState.RUNNING)
            sweep_up(files.folder, depth=2)
            forget_the_dead(files.heartbeats, kept=[t.user_attrs.get("worker", "") for t in running])
            if not search.is_joined:
                origin.write(storage, study.optuna._study_id, begun)
            files.mark(search.study_name, search.storage)
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
            yield LockedStudy(self.optuna, self.files, self.search.max_retries, self.search.plan)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def record(self) -> StudyRecord:
        """What is known of it now."""
        return study_record.of(self.optuna, self.files)

    # ------------------------------------------------------------------------------- asking and telling

    def ask(self, space: Space, worker: Worker) -> optuna.Trial | None:
        """The next trial to run, or None when the budget is spent, taken or out of time."""
        search = self.search
        with self.locked() as study:
            trials = self.trials()
            if not self.has_room(trials):
                return None
            if is_grid(search.sampler) and not study.queue_next_point(space, trials):
                return None
            if search.plan is not None and not study.queue_next_training(search.plan, trials):
                return None
            queued = [t for t in trials if t.state == TrialState.WAITING]
            number = first_try(queued[0], trials) if queued else len(trials)
            self.optuna.sampler = build_sampler(search.sampler, search.seed, space, number)
            trial = self.optuna.ask()
            if worker.pool:
                self.optuna._storage.set_trial_system_attr(trial._trial_id, POOL, worker.pool)
            trial.set_user_attr("worker", worker.name)
            return trial

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
        try:
            for name, value in (attributes or {}).items():
                _set_attribute(self.optuna, number, name, value)
            with self.locked() as study:
                if self.has_ended(number):
                    return False
                self.optuna.tell(number, values, state=state)
                study.write_results(ended=number)
        except UpdateFinishedTrialError:
            return False
        return True

    def tell_interrupted(self, number: int, reason: str) -> bool:
        """End a trial that was asked to stop, and queue its parameters for whoever goes on.

        Returns:
            whether it was this call that has ended it.
        """
        with self.locked() as study:
            if self.has_ended(number):
                return False
            _set_attribute(self.optuna, number, "interrupted", True)
            study.fail_and_queue(self.trials()[number], reason, is_retry=False)
        return True

    def has_ended(self, number: int) -> bool:
        """Whether a trial was told, by this process or by others; asked of the storage itself."""
        storage = self.optuna._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        return storage.get_trial(trial_id).state.is_finished()

    # -------------------------------------------------------------------------------------- the budget

    def has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether another trial may begin: counting those that run, n_trials would not be passed."""
        n_taken = sum(t.state in _TAKEN for t in trials)
        return self.search.n_trials is None or n_taken < self.search.n_trials

    def is_decided(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether this is a certificate whose race has ended before its budget."""
        plan = self.search.plan
        return plan is not None and plan.next_training(trials, self.search.directions) is None

    def is_over(self) -> bool:
        """Whether no trial should begin any more: out of time, or too many failed."""
        if self.search.deadline is not None and time.time() >= self.search.deadline:
            return True
        return self.has_failed(self.trials())

    def has_failed(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether more trials failed than ``max_failure_rate`` of the whole study admits."""
        n_failed, search = len(failed(trials)), self.search
        if search.n_trials is None:
            return n_failed > search.max_failure_rate * max(10, len(trials))
        return n_failed > search.max_failure_rate * search.n_trials


class LockedStudy:
    """What may be done to a study while its lock is held; ``Study.locked`` gives it."""

    def __init__(
        self, study: optuna.Study, files: StudyFiles, max_retries: int, plan: Plan | None = None
    ) -> None:
        self._study = study
        self._files = files
        self._max_retries = max_retries
        self._plan = plan

    def write_results(self, ended: int | None = None) -> None:
        """Bring the files of the study up to date; see ``StudyFiles.write_results``."""
        trials, directions = self._study.get_trials(deepcopy=False), record.directions(self._study)
        kept = None if self._plan is None else self._plan.kept(trials, directions)
        self._files.write_results(self._study, ended, kept)
        val_logits.keep_best(self._files, trials, directions, ended)

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
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker") or ""
            if worker in spared:
                continue
            told = told or life.read(self._study._storage, self._study._study_id)
            if take_over:
                if is_alive(self._files.heartbeats, worker):
                    continue
            elif not is_lost(trial, self._files, told, dead):
                continue
            reason = (reasons or {}).get(worker)
            if reason is None:
                reason = told.why_lost(trial)
                _set_attribute(self._study, trial.number, "lost", True)
            if is_interrupted:
                _set_attribute(self._study, trial.number, "interrupted", True)
            self.fail_and_queue(trial, reason, is_retry=not is_interrupted)
            forget(self._files.heartbeats, worker)
            reaped.append(trial.number)
        if reaped:
            self.write_results()
        return reaped

    def fail_and_queue(self, trial: FrozenTrial, reason: str, is_retry: bool) -> None:
        """Queue first, then fail: killed in between, the next one finds it RUNNING and its queued copy."""
        n_retries = trial.user_attrs.get("n_retries", 0) + is_retry
        trials = self._study.get_trials(deepcopy=False)
        copies = [t for t in trials if t.user_attrs.get("retry_of") == trial.number]
        # A trial that was itself queued may have died before it drew all of its parameters.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        names = () if self._plan is None else (CANDIDATE, REPEAT)
        training = {name: trial.user_attrs[name] for name in names if name in trial.user_attrs}
        is_known = bool(params or training)  # the defaults draw nothing
        if n_retries <= self._max_retries and is_known and not copies:
            attributes = {"retry_of": trial.number, "n_retries": n_retries, **training}
            self._study.enqueue_trial(params, user_attrs=attributes)
        _set_attribute(self._study, trial.number, "reason", reason)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def queue_next_training(self, plan: Plan, trials: Sequence[FrozenTrial]) -> bool:
        """Queue the next training of a certificate, and nobody who has dropped out; False if it is over."""
        directions = record.directions(self._study)
        following = plan.next_training(trials, directions)
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        inside = plan.race(trials, directions).inside if waiting and following is not None else ()
        is_queued = False
        for trial in waiting:
            if trial.user_attrs.get(CANDIDATE) in inside:
                is_queued = True
            else:
                self._withdraw(trial, "nothing more is to be learned from it")
        if following is not None and not is_queued:
            name, repeat = following
            params = plan.named(name).params or {}
            self._study.enqueue_trial(dict(params), user_attrs={CANDIDATE: name, REPEAT: repeat})
        return following is not None

    def _withdraw(self, trial: FrozenTrial, reason: str) -> None:
        """End a trial that waits."""
        _set_attribute(self._study, trial.number, "interrupted", True)
        _set_attribute(self._study, trial.number, "reason", reason)
        self._study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def queue_next_point(self, space: Space, trials: Sequence[FrozenTrial]) -> bool:
        """Queue the first point of the grid that no trial has, or had; False when there is none left."""
        if any(t.state == TrialState.WAITING for t in trials):
            return True
        # A trial that was just asked for has its point as fixed_params before it has drawn it.
        taken = {
            _point_key(t.system_attrs.get("fixed_params", t.params))
            for t in trials
            if not t.user_attrs.get("interrupted")
        }
        for point in space.points():
            if _point_key(point) not in taken:
                self._study.enqueue_trial(point)
                return True
        return False


def failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count against max_failure_rate.

    Interrupted or lost trials do not count: they might have succeeded. Nor do those that died before their
    config was composed, nor those whose parameters are tried again: the last try counts.
    """
    failures = [t for t in trials if t.state == TrialState.FAIL and was_composed(t)]
    tried_again = {t.user_attrs.get("retry_of") for t in trials} if failures else set()
    return [
        t
        for t in failures
        if t.number not in tried_again and not (t.user_attrs.get("interrupted") or t.user_attrs.get("lost"))
    ]


def was_composed(trial: FrozenTrial) -> bool:
    """Whether the app's own code may have run: not where the worker died while it drew the parameters."""
    return "folder" in trial.user_attrs or "traceback" in trial.user_attrs


def seen(
    trials: list[FrozenTrial],
    files: StudyFiles | None,
    read_again: Callable[[], list[FrozenTrial]],
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
    nameless = _without_worker(trials)
    if nameless and files is not None and not is_locked(files.lock):
        trials = read_again()
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


def _nothing_to_join(search: Search) -> BadInput:
    reason = f"there is no such study in {search.storage}"
    remedy = "begin it without hydra.sweeper.join=true, or name the storage in which it is"
    return BadInput(search.named_by, search.study_name, hide_secrets(reason), remedy)


def _check_same(search: Search, study: optuna.Study, now: dict[str, Any]) -> None:
    directions = record.directions(study)
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


def _set_attribute(study: optuna.Study, number: int, name: str, value: Any) -> None:
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_user_attr(trial_id, name, value)


def _point_key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
