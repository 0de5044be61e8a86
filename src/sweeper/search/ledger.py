"""A study's trials as this process has read them, and what follows from them.

Only trials that may have changed are read again, and all that is asked here takes the same time in a study of
a hundred trials and of a hundred thousand.

Trials form chains: a first try, and its retries. Whether a trial holds is decided by what any process can
read once the trial has its number, without a lock that all share:

* Numbers are given one by one, and a chain has that of its first try. A first try holds if fewer than
  ``n_trials`` chains that live have smaller numbers. Chains only die, and new ones have larger numbers: of
  those that hold, never more than ``n_trials`` can end well.
* A chain goes on with the copy of a trial that has the smallest number. A copy is queued, and its trial is
  marked, before that trial is ended as FAIL: an end without the mark is the end of the chain, and a copy that
  comes later is none. So a dead chain stays dead, and two reapers queue one retry.
* Of two first tries of one point, or of one training of a certificate, the smaller number holds.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import outcome, ranking
from sweeper.outcome import FIRST_TRY, is_surplus
from sweeper.ranking import seconds_of
from sweeper.search.change import IsSettled, changed_trials

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states that the budget counts."""

QUEUED = "sweeper:queued"
"""System attribute of a trial whose copy is queued; it is written before the trial is ended."""
POOL = "sweeper:pool"
"""System attribute: the pool whose worker runs the trial."""


class Ledger:
    """The trials of a study, and their sums. One for each process: threads may share it.

    Args:
        directions: ``minimize`` or ``maximize``, for each objective.
        n_trials: the budget; None is no limit.
        key: what no two chains may have: the point of a grid, a training of a certificate; None for none.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        directions: Sequence[str],
        n_trials: int | None = None,
        key: Callable[[FrozenTrial], Hashable | None] = lambda trial: None,
    ) -> None:
        self._storage, self._study_id = storage, study_id
        self._directions, self._n_trials, self._key = directions, n_trials, key
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self.trials: list[FrozenTrial] = []
        """All, by number; it grows as the ledger is read."""
        self.waiting: dict[int, FrozenTrial] = {}
        self.running: dict[int, FrozenTrial] = {}
        """By number."""
        self.failed: dict[int, FrozenTrial] = {}
        """By number, those that count against max_failure_rate.

        Interrupted or lost trials do not: they might have succeeded. Nor do those that died before their
        config was composed, nor those whose parameters are tried again: the last try counts.
        """
        self.best: list[FrozenTrial] = []
        """As ``ranking.best``: the best one, or the Pareto front."""
        self.told: list[int] = []
        """The numbers of the best, as this process has written them into the results last."""
        self.words: Counter[str] = Counter()
        """How many ended trials people read as done, failed, and so on: see ``outcome.word``."""
        self.durations_s: list[float] = []
        """How long the finished trials took, ascending."""
        self.finished: list[int] = []
        """The numbers of the finished trials, in the order in which they were read."""
        self.total_s = 0.0
        """The sum of durations_s."""
        self.n_freed = 0
        """How often a key became free again: before that, whoever had gone through the keys need not look."""
        self._ended: Counter[TrialState] = Counter()
        self._copies: dict[int, list[int]] = {}
        self._first: dict[int, int] = {}
        """Of retries only."""
        self._idle: list[int] = []
        """The numbers, ascending, that are not those of living chains: retries, and dead first tries."""
        self._holders: dict[Hashable, list[int]] = {}
        """The chains, ascending, that have a key or had it."""
        self._askers: dict[Hashable, list[int]] = {}
        """Those, and the ones that let go of it."""

    # ----------------------------------------------------------------------------------------- reading

    def read(self) -> list[FrozenTrial]:
        """Read what may have changed, and return the trials that are new or have changed."""
        return self._read()

    def read_ends(self) -> list[FrozenTrial]:
        """As ``read``, but what trials have drawn and reported that still run may be older.

        It takes far less from a database: whoever asks and tells need not know that.
        """
        return self._read(has_begun)

    def read_drawn(self) -> list[FrozenTrial]:
        """As ``read``, but only what trials have reported that still run may be older."""
        return self._read(has_drawn)

    def _read(self, is_settled: IsSettled | None = None) -> list[FrozenTrial]:
        with self._lock:
            unfinished, n_known = [*self.waiting, *self.running], len(self.trials)
            n_there, found = changed_trials(self._storage, self._study_id, n_known, unfinished, is_settled)
            if n_there < len(self.trials):  # a journal has lost its end
                self._forget()
                _, found = changed_trials(self._storage, self._study_id, 0, ())
            changed = [trial for trial in found if self._is_news(trial)]
            for trial in changed:
                self._place(trial)
            for trial in changed:  # a chain is judged with all of its trials
                self._take_in(trial)
            for first in {self.first_try(trial.number) for trial in changed}:  # once all copies are known
                self._judge(first)
            done = [trial for trial in changed if trial.state is TrialState.COMPLETE]
            if done:
                self.best = ranking.best([*self.best, *done], self._directions)
            return changed

    def _is_news(self, trial: FrozenTrial) -> bool:
        if trial.number >= len(self.trials):
            return True
        known = self.trials[trial.number]
        if trial is known:
            return False
        if trial != known:
            return True
        for trials in (self.trials, self.running, self.waiting):  # the next time it is the same object
            if trials is self.trials or trial.number in trials:
                trials[trial.number] = trial
        return False

    def _take_in(self, trial: FrozenTrial) -> None:
        number = trial.number
        for state, trials in ((TrialState.WAITING, self.waiting), (TrialState.RUNNING, self.running)):
            if trial.state is state:
                trials[number] = trial
            else:
                trials.pop(number, None)
        if trial.state.is_finished():
            self._count(trial)

    def _place(self, trial: FrozenTrial) -> None:
        """Keep a trial, and find the chain of a new one."""
        number, before = trial.number, _repeats(trial)
        if number < len(self.trials):
            self.trials[number] = trial
            return
        self.trials.append(trial)
        if before is None:
            if (key := self._key(trial)) is not None:
                self._askers.setdefault(key, []).append(number)
            return
        self._copies.setdefault(before, []).append(number)
        self._first[number] = self.first_try(before)
        self._idle.append(number)
        if self._goes_on(before):
            self.failed.pop(before, None)

    def _count(self, trial: FrozenTrial) -> None:
        if is_surplus(trial):
            return
        self._ended[trial.state] += 1
        self.words[outcome.word(trial)] += 1
        if trial.state in FINISHED:
            self.finished.append(trial.number)
            if (took_s := seconds_of(trial)) is not None:
                insort(self.durations_s, took_s)
                self.total_s += took_s
        elif _counts_as_failed(trial) and not self._goes_on(trial.number):
            self.failed[trial.number] = trial

    def _judge(self, first: int) -> None:
        """Note whether a chain lives, and let go of its key if all of it was only interrupted."""
        line = self._line(first)
        is_dead = self.trials[line[-1]].state is TrialState.FAIL
        place = bisect_left(self._idle, first)
        was_dead = self._idle[place : place + 1] == [first]
        if is_dead and not was_dead:
            self._idle.insert(place, first)
        elif was_dead and not is_dead:
            self._idle.pop(place)
        if (key := self._key(self.trials[first])) is None:
            return
        tries = [self.trials[number] for number in line]
        is_free = is_dead and all(t.user_attrs.get("interrupted") or is_surplus(t) for t in tries)
        held = self._holders.setdefault(key, [])
        if is_free and first in held:
            held.remove(first)
            self.n_freed += not held
        elif not is_free and first not in held:
            insort(held, first)

    # ------------------------------------------------------------------------------------------ chains

    def first_try(self, number: int) -> int:
        """The number of the trial that this one repeats, directly or through others; else its own."""
        return self._first.get(number, number)

    def copies(self, number: int) -> list[int]:
        """The trials that were queued to repeat this one, whether they hold or not."""
        return self._copies.get(number, [])

    def _goes_on(self, number: int) -> bool:
        """Whether a trial has failed and is tried again."""
        trial = self.trials[number]
        if trial.state is not TrialState.FAIL or number not in self._copies:
            return False
        # An earlier version wrote no marks; it ran on one host, under one lock.
        is_of_now = POOL in trial.system_attrs or FIRST_TRY in trial.system_attrs
        return bool(trial.system_attrs.get(QUEUED)) or not is_of_now

    def _line(self, first: int) -> list[int]:
        """The tries of a chain that count, one after the other."""
        line = [first]
        while self._goes_on(line[-1]):
            line.append(self._copies[line[-1]][0])
        return line

    # ---------------------------------------------------------------------------------------- the rule

    def holds(self, trial: FrozenTrial) -> bool:
        """Whether a trial is one of those that the study asks for: see above. It has been read."""
        first = self.first_try(trial.number)
        is_next = first == trial.number or trial.number in self._line(first)
        return is_next and self._has_its_key(first) and self._is_within(first)

    def may_hold(self, trial: FrozenTrial) -> bool:
        """Whether a waiting trial holds, or will as soon as the one that it repeats is ended."""
        before = self._trial_before(trial)
        if before is not None and not before.state.is_finished():
            return not self.is_void(trial) and self._is_within(self.first_try(trial.number))
        return self.holds(trial)

    def is_void(self, trial: FrozenTrial) -> bool:
        """Whether a trial is a copy that never will hold; a copy of one that does not hold is none either."""
        if not self._has_its_key(self.first_try(trial.number)):
            return trial.number in self._first
        while (before := self._trial_before(trial)) is not None:
            is_ended = before.state.is_finished() and not self._goes_on(before.number)
            if is_ended or self._copies[before.number][0] != trial.number:
                return True
            trial = before
        return False

    def _has_its_key(self, first: int) -> bool:
        """Whether no other chain had the key of this one before."""
        key = self._key(self.trials[first])
        return key is None or self._holders.get(key, [])[:1] == [first]

    def _trial_before(self, trial: FrozenTrial) -> FrozenTrial | None:
        before = _repeats(trial)
        return None if before is None else self.trials[before]

    def _is_within(self, first: int) -> bool:
        """Whether fewer than n_trials chains that live have smaller numbers than this one."""
        return self._n_trials is None or first - bisect_left(self._idle, first) < self._n_trials

    @property
    def has_room(self) -> bool:
        """Whether a trial may begin that nobody has asked for yet."""
        return self._is_within(len(self.trials))

    def n_ahead(self, trial: FrozenTrial) -> int:
        """How many others have, before this one, lost the same key to the first that had it."""
        askers = self._askers.get(self._key(trial), [])
        return max(0, bisect_left(askers, trial.number) - 1)

    def is_taken(self, key: Hashable) -> bool:
        """Whether a chain has a key, or had it."""
        return bool(self._holders.get(key))

    # ------------------------------------------------------------------------------------------- sums

    @property
    def n_finished(self) -> int:
        return sum(self._ended[state] for state in FINISHED)

    @property
    def counts(self) -> Counter[TrialState]:
        """How many trials there are in each state, but for those that were given back."""
        unfinished = {TrialState.RUNNING: self.running, TrialState.WAITING: self.waiting}
        found = Counter(
            {state: sum(not is_surplus(t) for t in ts.values()) for state, ts in unfinished.items()}
        )
        return +(self._ended + found)

    def with_id(self, trial_id: int) -> FrozenTrial:
        """A trial that is new, or runs, by its identity in the storage."""
        unfinished = chain(reversed(self.running.values()), reversed(self.waiting.values()))
        for trial in chain(unfinished, reversed(self.trials)):
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(trial_id)


def has_begun(trial: FrozenTrial) -> bool:
    """Whether a running trial was read when all was there that it begins with."""
    return POOL in trial.system_attrs


def has_drawn(trial: FrozenTrial) -> bool:
    """Whether a running trial was read when it had all of its parameters."""
    return has_begun(trial) and was_composed(trial)


def was_composed(trial: FrozenTrial) -> bool:
    """Whether the app's own code may have run: not where the worker died while it drew the parameters."""
    return "folder" in trial.user_attrs or "traceback" in trial.user_attrs


def _counts_as_failed(trial: FrozenTrial) -> bool:
    attributes = trial.user_attrs
    return was_composed(trial) and not (attributes.get("interrupted") or attributes.get("lost"))


def _repeats(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one repeats; an app may have an attribute of that name."""
    before = trial.user_attrs.get("retry_of")
    if not isinstance(before, int) or isinstance(before, bool):
        return None
    return before if 0 <= before < trial.number else None
