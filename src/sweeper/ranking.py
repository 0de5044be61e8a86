"""The order of a study's trials: one idea of the best, for whoever asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial


def ranked(trials: Iterable[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The completed trials, the best first.

    Of equal value the one with the lower ``val_loss`` comes first, then the one that took fewer ``seconds``,
    then the one with the smaller number. Both are attributes; only finite numbers count, as another app may
    call anything so. Who lacks one stands behind those who have it, but the duration takes the place of
    ``seconds``.

    Of several objectives the Pareto front comes first, then the others, each by their numbers.

    Args:
        directions: ``minimize`` or ``maximize``, for each objective.
    """
    done = _completed(trials)
    if len(directions) > 1:
        front = best(done, directions)
        ahead = {trial.number for trial in front}
        return front + sorted((trial for trial in done if trial.number not in ahead), key=_number)
    signed = _signed(directions[0])
    return sorted(done, key=lambda trial: (signed(trial), *_breakers(trial)))


def best(trials: Iterable[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The first of ``ranked``; of several objectives the Pareto front. Empty while no trial has completed.

    It takes time in proportion to the number of trials, where there is one objective.
    """
    done = _completed(trials)
    if len(directions) > 1:
        return _front(done, directions)
    for key in (_signed(directions[0]), *_BREAKERS.values()):
        done = _lowest(done, key)
    return done


def tied(trials: Iterable[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The trials that have the best value, in their order; empty for several objectives, which have none."""
    if len(directions) > 1:
        return []
    return sorted(_lowest(_completed(trials), _signed(directions[0])), key=_breakers)


def broken_by(tied: Sequence[FrozenTrial]) -> str | None:
    """What sets the first of the tied before the second: ``val_loss``, ``seconds`` or ``number``."""
    if len(tied) < 2:
        return None
    return next(name for name, key in _BREAKERS.items() if key(tied[0]) != key(tied[1]))


def _completed(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    complete = TrialState.COMPLETE  # asking for its name takes ten times as long
    return [trial for trial in trials if trial.state is complete]


def _lowest(trials: list[FrozenTrial], key: Callable[[FrozenTrial], float]) -> list[FrozenTrial]:
    if len(trials) < 2:
        return trials
    keys = list(map(key, trials))
    lowest = min(keys)
    return [trial for trial, value in zip(trials, keys, strict=True) if value == lowest]


def _signed(direction: str) -> Callable[[FrozenTrial], float]:
    """The value, to be minimized."""
    sign = -1 if direction == "maximize" else 1
    return lambda trial: sign * trial.values[0]


def _breakers(trial: FrozenTrial) -> tuple[float, ...]:
    return tuple(key(trial) for key in _BREAKERS.values())


def _val_loss(trial: FrozenTrial) -> float:
    return _finite(trial.user_attrs.get("val_loss"))


def _seconds(trial: FrozenTrial) -> float:
    told = _finite(trial.user_attrs.get("seconds"))
    if told < math.inf or (took_s := seconds_of(trial)) is None:
        return told
    return took_s


def seconds_of(trial: FrozenTrial) -> float | None:
    """How long a trial took; None while it runs, and where its two times are of clocks that disagree."""
    took = trial.duration
    return None if took is None or took.total_seconds() < 0 else took.total_seconds()


def _number(trial: FrozenTrial) -> int:
    return trial.number


_BREAKERS: dict[str, Callable[[FrozenTrial], float]] = {
    "val_loss": _val_loss,
    "seconds": _seconds,
    "number": _number,
}


def _finite(value: Any) -> float:
    """A number; infinity for what is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else math.inf
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and abs(value) < _MOST else math.inf


_MOST = 1 << 63
"""Of a whole number: those who read attributes take none that is larger (see ``study_record``)."""


def _front(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The trials than which no other is as good in all objectives and better in one, by their numbers."""
    import numpy as np

    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    values = np.array([trial.values for trial in trials], dtype=np.float64).reshape(-1, len(signs)) * signs
    different, which = np.unique(values, axis=0, return_inverse=True)
    is_unbeaten = _unbeaten(different)[which]
    return sorted((trials[i] for i in np.flatnonzero(is_unbeaten).tolist()), key=_number)


def _unbeaten(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row beats: (n, n_objectives), to be minimized, all different and sorted, so that no
    row beats one before it.
    """
    import numpy as np

    found = np.zeros(len(values), dtype=np.bool_)
    if values.shape[1] == 2:  # nearly all may be unbeaten
        lowest = np.minimum.accumulate(values[:, 1])
        found[:1], found[1:] = True, lowest[1:] < lowest[:-1]
        return found
    left = np.arange(len(values))
    while len(left):
        found[left[0]] = True
        left = left[(values[left] < values[left[0]]).any(axis=1)]
    return found
