"""What samplers and pruners are shown of a study: all of a small one, and a bounded part of a large one.

Optuna's go through all trials whenever they draw or judge. Above ``LARGEST`` finished trials they are shown
every trial whose number is a multiple of a power of two, which grows with the study, and all that run; and
samplers the best besides. What that means for each:

* TPE sets the best 10 % of the trials, 25 at most, against all others. The best ones are shown, so it is the
  same 25. The others are some thousands of evenly spaced ones instead of all: their density is a mean over
  them, in which older ones weigh less by their rank alone, and each kernel is as wide as the gap to the next,
  but at least a hundredth of the range; beyond some hundred trials nearly all are that narrow. So the density
  is the same but for the noise of the sample. Of several objectives it takes the best 10 % without an upper
  limit: those of the sample, of which the front is part.
* GP fits a Gaussian process to all trials, in cubic time: a subset of the data is the usual remedy, and what
  is told of the best points matters most.
* CMA-ES and the genetic ones (NSGA-II, NSGA-III) look for their last generation: they are shown all.
* Random, quasi-random and grid search look at no trials.
* Pruners compare a trial with a quantile of the others at the same step: of an even sample it is the same
  but for its noise; the best ones besides would shift it.
"""

from __future__ import annotations

import math
import time
from bisect import insort
from collections.abc import Callable, Container, Sequence
from copy import copy
from copy import deepcopy as copied

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    NopPruner,
    PercentilePruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.delegate import Delegate
from sweeper.search.ledger import Ledger

LARGEST = 1024
"""Finished trials of which samplers and pruners are shown all; of more, half as many at least. What TPE's
draw takes grows with them: half of it is Optuna's look for the parameters that all trials have."""
_N_BEST = 25
"""Of one objective; TPE takes no more for good ones (``optuna.samplers._tpe.sampler.default_gamma``)."""
_MOST_OF_FRONT = 200
"""Of several: a front may grow with the study."""
_DRAW_S = 1.0
"""A trial draws all of its parameters in view of the same others, if that takes no longer: TPE looks at them
anew for each, and each time asks the storage."""
_TAKE_A_PART = (TPESampler, GPSampler)
_JUDGE_BY_THE_ENDED = (NopPruner, PercentilePruner, ThresholdPruner, WilcoxonPruner)
"""Pruners that compare a trial with none that still runs."""


class Window:
    """The part of a study's trials that samplers and pruners are shown.

    Args:
        bracket: of a trial, where the pruner has brackets: samplers are then shown one of them.
        largest: see ``LARGEST``.
        sees_running: whether samplers look at what running trials have drawn, and pruners at what they have
            reported, which takes long to read where many run.
    """

    def __init__(
        self,
        ledger: Ledger,
        directions: Sequence[str],
        bracket: Callable[[FrozenTrial], int] = lambda trial: 0,
        largest: int = LARGEST,
        sees_running: tuple[bool, bool] = (True, True),
    ) -> None:
        self._ledger, self._bracket, self._largest = ledger, bracket, largest
        self._sampler_sees, self._pruner_sees = sees_running
        self._is_single, self._sign = len(directions) == 1, -1 if directions[0] == "maximize" else 1
        self._forget()

    def _forget(self) -> None:
        self._n_read, self._step = 0, 1
        self._even: list[int] = []
        """The numbers of the finished trials that are shown, ascending."""
        self._best: dict[int, list[tuple[float, int]]] = {}
        """Of one objective, for each bracket: values, the best first, and numbers."""

    def of_all(self) -> list[FrozenTrial]:
        self._ledger.read()
        return list(self._ledger.trials)

    def of_pruner(self) -> list[FrozenTrial]:
        """An even part of the finished trials, and all that have not ended, by number."""
        self._read(self._ledger.read if self._pruner_sees else self._ledger.read_ends)
        return self._with([])

    def of_sampler(self) -> list[FrozenTrial]:
        """The same, with the best ones."""
        self._read(self._ledger.read_drawn if self._sampler_sees else self._ledger.read_ends)
        if self._is_single:
            return self._with([number for best in self._best.values() for _, number in best])
        front = self._ledger.best
        return self._with([trial.number for trial in front[:: 1 + len(front) // _MOST_OF_FRONT]])

    def _with(self, best: Sequence[int]) -> list[FrozenTrial]:
        ledger = self._ledger
        if self._step == 1:
            return list(ledger.trials)
        return [ledger.trials[n] for n in sorted({*self._even, *best, *ledger.running, *ledger.waiting})]

    def _read(self, read: Callable[[], object]) -> None:
        read()
        self._take_in()

    def _take_in(self) -> None:
        """Take in what the ledger has read since."""
        finished = self._ledger.finished
        if len(finished) < self._n_read:  # it has lost its end
            self._forget()
        for number in finished[self._n_read :]:
            if number % self._step == 0:
                insort(self._even, number)
            self._rank(self._ledger.trials[number])
            if len(self._even) > self._largest:
                self._step *= 2
                self._even = [n for n in self._even if n % self._step == 0]
        self._n_read = len(finished)

    def _rank(self, trial: FrozenTrial) -> None:
        if self._is_single and trial.state is TrialState.COMPLETE:
            best = self._best.setdefault(self._bracket(trial), [])
            insort(best, (self._sign * trial.values[0], trial.number))
            del best[_N_BEST:]


def window_for(
    ledger: Ledger, directions: Sequence[str], sampler: BaseSampler, pruner: BasePruner, study: optuna.Study
) -> Window:
    """A window that is large enough for the startup phases of both."""
    names = ("_n_startup_trials", "_n_min_trials", "_bootstrap_count")
    startup = max(getattr(each, name, 0) for each in (sampler, pruner) for name in names)
    largest = max(LARGEST, 2 * startup)
    sees_running = (
        not isinstance(sampler, TPESampler) or sampler._constant_liar,
        not isinstance(pruner, _JUDGE_BY_THE_ENDED),
    )

    def bracket(trial: FrozenTrial) -> int:
        return pruner._get_bracket_id(study, trial) if isinstance(pruner, HyperbandPruner) else 0

    return Window(ledger, directions, bracket, largest, sees_running)


class WindowedTrial(optuna.Trial):
    """A trial whose sampler and pruner see the study through its window.

    Args:
        trial: as the storage has just given it; None reads it.
    """

    def __init__(
        self, study: optuna.Study, trial_id: int, window: Window, trial: FrozenTrial | None = None
    ) -> None:
        takes_part = isinstance(study.sampler, _TAKE_A_PART)
        trials = _for_a_draw(window.of_sampler) if takes_part else window.of_all
        part = _Part(study._storage, trials, trial)  # type: ignore[abstract]
        self._for_pruner = seen(study, _Part(study._storage, window.of_pruner))  # type: ignore[abstract]
        super().__init__(seen(study, part), trial_id)
        part.known = None

    def should_prune(self) -> bool:
        return self.study.pruner.prune(self._for_pruner, self._get_latest_trial())


def _for_a_draw(read: Callable[[], list[FrozenTrial]]) -> Callable[[], list[FrozenTrial]]:
    """The same, which reads again when some time has passed."""
    found: list[FrozenTrial] = []
    until_s = -math.inf

    def trials() -> list[FrozenTrial]:
        nonlocal found, until_s
        if time.monotonic() > until_s:
            found, until_s = read(), time.monotonic() + _DRAW_S
        return found

    return trials


def tell(study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
    """As ``study.tell``, which reads the trial before and after.

    Raises:
        UpdateFinishedTrialError: if others have ended it meanwhile.
    """
    known = _Part(study._storage, lambda: study._storage.get_all_trials(study._study_id), trial)  # type: ignore[abstract]
    seen(study, known).tell(trial.number, None if values is None else list(values), state=state)


def seen(study: optuna.Study, storage: BaseStorage) -> optuna.Study:
    """The study as this storage shows it."""
    shown = copy(study)
    shown._storage = storage
    return shown


class _Part(Delegate):
    """Lists some trials; all else is read from the storage, and what is written goes to it.

    Args:
        known: a trial that need not be read.
    """

    def __init__(
        self, storage: BaseStorage, trials: Callable[[], list[FrozenTrial]], known: FrozenTrial | None = None
    ) -> None:
        super().__init__(storage)
        self._trials, self.known = trials, known

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._trials() if states is None or trial.state in states]
        return copied(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self.known is not None and self.known._trial_id == trial_id:
            return copied(self.known)
        return self._storage.get_trial(trial_id)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        if self.known is not None and self.known.number == trial_number:
            return self.known._trial_id
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
