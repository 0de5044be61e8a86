"""The trial as a training run sees it. Outside a sweep it does nothing."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


class Interrupted(BaseException):
    """The person, or the system, asked the sweep to stop while a trial was running."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Interruption:
    """Turns a stop signal into ``Interrupted``, raised in the task but never inside a storage operation.

    Args:
        second_kills: whether a second signal ends the process at once, for one that has no pool to kill it.
        is_asked: whether somebody who may has asked this process to stop. A signal that nobody asked for
            ends the process, as it would any other.
    """

    def __init__(self, second_kills: bool = False, is_asked: Callable[[], bool] = lambda: True) -> None:
        self._second_kills = second_kills
        self._is_asked = is_asked
        self._signum: int | None = None
        self._may_raise = False
        self._pid = os.getpid()

    def install(self, *signums: int) -> None:
        self._pid = os.getpid()
        for signum in signums:
            signal.signal(signum, self.hear)

    def check(self) -> None:
        if self._signum is not None:
            raise Interrupted(self._signum)

    @contextmanager
    def allowed(self, may_raise: bool = True) -> Iterator[None]:
        """A stretch in which a stop signal leaves at once (or, with False, waits for the stretch's end)."""
        before, self._may_raise = self._may_raise, may_raise
        try:
            if may_raise:
                self.check()
            yield
        finally:
            self._may_raise = before
        if before:
            self.check()

    def hear(self, signum: int, frame: FrameType | None) -> None:
        """The handler of a stop signal."""
        if signum == signal.SIGHUP and self._signum is not None:
            return  # the system and the shell both say that the terminal is gone
        is_childs = os.getpid() != self._pid  # that of a process which the app has just forked
        if is_childs or (self._signum is not None and self._second_kills) or not self._is_asked():
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._signum = signum
        if self._may_raise:
            self._may_raise = False
            raise Interrupted(signum)


def seed_of(seed: int, *numbers: int) -> int:
    """A seed for one trial, unrelated to its neighbours' (numpy's SeedSequence): 0 … 2³²−1."""
    import numpy as np

    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])


def first_try(trial: FrozenTrial, storage: BaseStorage, study_id: int) -> int:
    """The number of the trial that this one repeats, directly or through others; else its own."""
    from sweeper.outcome import FIRST_TRY

    while (number := trial.user_attrs.get("retry_of")) is not None:
        if (first := trial.system_attrs.get(FIRST_TRY)) is not None:
            return int(first)
        # An earlier version has queued it.
        trial = storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number))
    return trial.number


class Trial:
    """What ``sweeper.trial()`` gives outside a sweep; inside one, ``StudyTrial`` stands in its place."""

    number: int | None = None
    """The trial's number in its study, or None outside a sweep."""

    def seed(self, seed: int) -> int:
        """A seed that ``seed`` and the trial's number decide; outside a sweep ``seed`` itself.

        A retry has the seed of its first try.
        """
        return seed

    def report(self, value: float, step: int) -> None:
        """Tell the pruner how the trial stands after ``step`` (an epoch, counted from 1).

        A NaN or infinite value marks the trial as diverged and ends it.

        Raises:
            optuna.TrialPruned: when the trial should stop, also because another host has taken this one for
                dead and repeats the trial; let it pass.
        """

    def set_user_attr(self, name: str, value: Any) -> None:
        """Keep a JSON value with the trial; the dashboard shows it."""


class StudyTrial(Trial):
    """A trial that is running in a study.

    Args:
        seeded_by: the numbers that its seeds follow from; by default that of its first try.
    """

    def __init__(
        self, trial: optuna.Trial, interruption: Interruption, seeded_by: Sequence[int] = ()
    ) -> None:
        self._trial = trial
        self._interruption = interruption
        self._can_prune = len(trial.study.directions) == 1
        self.number = trial.number
        self._seeded_by = seeded_by or (
            first_try(trial._cached_frozen_trial, trial.storage, trial.study._study_id),
        )

    def seed(self, seed: int) -> int:
        return seed_of(seed, *self._seeded_by)

    def report(self, value: float, step: int) -> None:
        import optuna

        value = float(value)
        with self._interruption.allowed(False), _dropped_where_ended():
            if not math.isfinite(value):
                self._trial.set_user_attr("diverged", True)
            if self._can_prune:
                self._trial.report(value, step)
            stop = not math.isfinite(value) or (self._can_prune and self._trial.should_prune())
        if stop:
            raise optuna.TrialPruned(f"pruned after step {step} with {value}")

    def set_user_attr(self, name: str, value: Any) -> None:
        with self._interruption.allowed(False), _dropped_where_ended():
            self._trial.set_user_attr(name, value)


@contextmanager
def _dropped_where_ended() -> Iterator[None]:
    """A trial that others have ended is left by its app as one that is pruned: it has not failed."""
    from optuna.exceptions import TrialPruned, UpdateFinishedTrialError

    try:
        yield
    except UpdateFinishedTrialError as error:
        raise TrialPruned("others have ended it, who took this worker for dead") from error


_outside = Trial()
_running: Trial | None = None


def trial() -> Trial:
    """The trial that this process is running, or one that does nothing outside a sweep."""
    return _running or _outside


@contextmanager
def running(current: Trial) -> Iterator[None]:
    """Make ``current`` what ``trial()`` returns."""
    global _running
    _running = current
    try:
        yield
    finally:
        _running = None
