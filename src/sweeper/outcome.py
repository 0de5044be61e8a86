"""What a study has come to: which of its trials count, and in which words people read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper import ranking

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


WORDS = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
"""What people read of Optuna's states."""


@dataclass(frozen=True)
class Outcome:
    """What a study has come to, as its files tell it."""

    study: str
    directions: Sequence[str]
    trials: Sequence[FrozenTrial]
    """All, by number."""
    counts: Mapping[str, int]
    """How many there are, by the names of their states."""
    best: Sequence[FrozenTrial]
    """As ``ranking.best``."""

    @classmethod
    def of(cls, study: optuna.Study) -> Outcome:
        """That of a study which nobody keeps the sums of."""
        trials = study.get_trials(deepcopy=False)
        counted = shown(trials)
        counts = Counter(trial.state.name for trial in counted)
        return cls(
            study.study_name, directions(study), trials, counts, ranking.best(counted, directions(study))
        )

    @property
    def n_finished(self) -> int:
        return sum(self.counts.get(state, 0) for state in _FINISHED)

    def told(self) -> dict[str, Any]:
        """As it is written for people."""
        told: dict[str, Any] = {"name": "optuna", "study": self.study, "trials": dict(self.counts)}
        if len(self.directions) > 1:
            told["solutions"] = [
                {"trial": t.number, "values": t.values, "params": t.params} for t in self.best
            ]
            return told
        best = self.best[0] if self.best else None
        return told | {
            "best_trial": best and best.number,
            "best_value": best and best.value,
            "best_params": best.params if best else {},
        }


_FINISHED = ("COMPLETE", "PRUNED")
"""The states that the budget counts."""


def word(trial: FrozenTrial) -> str:
    """What people read of a trial: a stopped one, or one lost with its machine, has not failed by itself."""
    if trial.user_attrs.get("interrupted"):
        return "stopped"
    return "lost" if trial.user_attrs.get("lost") else WORDS[trial.state.name]


FIRST_TRY = "sweeper:first_try"
"""System attribute of a retry: the number of the trial that it repeats, directly or through others."""


SURPLUS = "surplus"
"""User attribute of a trial that the budget had no room for, and which was given back: nobody is shown it."""


def is_surplus(trial: FrozenTrial) -> bool:
    """Whether a trial did not hold, and was given back: no failure, no point of a grid, nothing to show."""
    return bool(trial.user_attrs.get(SURPLUS))


def shown(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials without those that were given back."""
    return [trial for trial in trials if not is_surplus(trial)]


def told_counts(words: Iterable[str] | Mapping[str, int]) -> str:
    """How many trials there are of each word; done, pruned and failed are always told.

    Args:
        words: the word of each trial, or how many have each.
    """
    found = Counter(words)
    always = [WORDS[state] for state in ("COMPLETE", "PRUNED", "FAIL")]
    return ", ".join(f"{found[told]} {told}" for told in [*always, *sorted(found.keys() - set(always))])


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or all on the Pareto front (see ``ranking``); empty while none has completed."""
    return ranking.best(study.get_trials(deepcopy=False), directions(study))


def directions(study: optuna.Study) -> list[str]:
    """``minimize`` or ``maximize``, for each objective."""
    return [direction.name.lower() for direction in study.directions]


def n_finished(trials: Iterable[FrozenTrial]) -> int:
    """How many of these trials the budget counts."""
    return sum(trial.state.name in _FINISHED for trial in trials)
