"""One study, opened or resumed: its sampler and pruner, its budget, and the trials of the dead."""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from optuna.trial import FrozenTrial, TrialState

from sweeper import origin, outcome
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.filesystem import sweep_up
from sweeper.lock import forget_the_dead, locked
from sweeper.outcome import shown
from sweeper.record.mark import FORMAT, check_format
from sweeper.record.study_files import StudyFiles
from sweeper.results import study_record
from sweeper.results.plan import CANDIDATE, REPEAT
from sweeper.results.study_record import StudyRecord
from sweeper.search import engine, life, window
from sweeper.search.arrival import ASK_BYTES, Arrival
from sweeper.search.ledger import Ledger
from sweeper.search.locked_study import LockedStudy, Worker
from sweeper.search.sampler import build_pruner, build_sampler, is_grid
from sweeper.search.search import Search
from sweeper.search.sender import Sender
from sweeper.search.space import Space
from sweeper.search.storage import check_many_machines, opening_lock
from sweeper.search.window import Window, WindowedTrial, window_for
from sweeper.secret import hide_secrets

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
        begun = _as_begun(search, space, fixed)
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


# --- opening ------------------------------------------------------------------------------------------------


def _as_begun(search: Search, space: Space, fixed: Sequence[str]) -> dict[str, Any]:
    """What a study remembers of how it was begun; see ``origin``."""
    return {
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
