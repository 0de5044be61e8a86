"""The points of a grid, which are gone through one by one, instead of sampled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from sweeper.search.ledger import Ledger
from sweeper.search.space import Space


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


def key_of_point(trial: FrozenTrial) -> str:
    # A trial that was just asked for has its point as fixed_params before it has drawn it.
    return _point_key(trial.system_attrs.get("fixed_params", trial.params))


def _point_key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
