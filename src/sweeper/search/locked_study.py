"""What is done to a study under its lock: trials are begun, failed, queued again and given back."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import count, islice
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import outcome
from sweeper.lock import Heartbeat, forget, is_alive
from sweeper.outcome import FIRST_TRY, SURPLUS, Outcome, is_surplus, shown
from sweeper.record.study_files import StudyFiles
from sweeper.results import val_logits
from sweeper.results.plan import CANDIDATE, REPEAT, Plan
from sweeper.search import life
from sweeper.search.ledger import POOL, QUEUED, Ledger
from sweeper.search.life import is_lost, pool_of, worker_of
from sweeper.search.search import Search


class Worker:
    """A process that runs trials: its name, and the heartbeat that others see.

    Args:
        pool: the name of the pool that watches it.
    """

    def __init__(self, search: Search, pool: str | None = None) -> None:
        self.name = life.new_name()
        self.pool = pool or self.name
        self.asked: set[int] = set()
        """The numbers of the trials that it was given."""
        self._heartbeat = Heartbeat(StudyFiles(search.folder).heartbeats, self.name)

    def end(self) -> None:
        self._heartbeat.end()


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
        living: Collection[str] = (),
    ) -> list[int]:
        """Fail the trials whose process is gone, and queue their parameters again.

        Args:
            reasons: why a worker died, by its name, where somebody knows.
            spared: workers whose pool will say it when they die.
            is_interrupted: whether their pool has killed them, because somebody asked it to stop.
            take_over: whether those whose life no lock shows are taken for lost.
            dead: pools of other hosts that were silent for too long.
            living: pools of other hosts that were heard just now.

        Returns:
            the numbers of the trials.
        """
        reaped, told = [], None
        self.ledger.read()
        for trial in list(self.ledger.running.values()):
            worker = worker_of(trial)
            if worker in spared or pool_of(trial) in living:
                continue
            told = told or life.read(self._storage, self._study._study_id)
            if take_over:
                if worker and is_alive(self._files.heartbeats, worker):
                    continue
            elif not is_lost(trial, self._files, told, dead):
                continue
            reason = (reasons or {}).get(worker)
            says = {"interrupted": is_interrupted, "lost": reason is None}
            if self.fail_and_queue(
                trial, reason or told.why_lost(trial), is_retry=not is_interrupted, **says
            ):
                reaped.append(trial.number)
            if worker:
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

        Its pool stands there before it runs: a running trial of nobody is another program's. That may be
        faster, and says nothing; so who is too late says so.
        """
        try:
            self._storage.set_trial_system_attr(trial._trial_id, POOL, worker.pool)
            if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                self._storage.set_trial_system_attr(trial._trial_id, f"{life.LEFT}{worker.pool}", True)
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
        for trial in [t for t in self.ledger.running.values() if worker_of(t) == worker.name]:
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


ANSWER_LOST = "an answer of the storage was lost"
