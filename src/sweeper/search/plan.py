"""The plan of a certificate: which configurations of a search are trained again, and how often.

A study whose folder holds a plan is no search: each of its trials is one of the plan's candidates, with a
seed, or a fold, of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from sweeper import record
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.record import FORMAT, StudyFiles, check_format
from sweeper.search.parameter import Suggest
from sweeper.search.trial import seed_of

if TYPE_CHECKING:
    from sweeper.results.race import Race

DEFAULTS = "defaults"
"""The name of the candidate that nobody searched."""

CANDIDATE, REPEAT = "candidate", "repeat"
"""User attributes of a trial of a certificate: the name of its candidate, and which of its trainings it is,
counted from 0."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that is trained again."""

    trial: int | None
    """Its number in the search; None for the defaults, as they would run without a search."""
    params: Mapping[str, Any] | None
    """By Optuna's names; None for the defaults."""
    values: tuple[float, ...] | None
    """What the search measured of it, for each objective."""
    seconds: float | None
    """How long it took there."""

    @property
    def name(self) -> str:
        return DEFAULTS if self.trial is None else f"trial {self.trial}"

    def taken_by(self, suggest: Suggest) -> Suggest:
        """Lets its own parameters be suggested, also where a range has other bounds by now."""
        return partial(_take, self.params or {}, suggest)


@dataclass(frozen=True)
class Plan:
    study: str
    """The name of the search."""
    folder: str
    """Of the search, absolute."""
    candidates: tuple[Candidate, ...]
    """The best first, the defaults last."""
    n_seeds: int
    """Trainings of each candidate, if none drops out; what those who do leave goes to the others, as long as
    that may tell them apart: else the race ends, and leaves some of the trainings."""
    n_folds: int | None
    seed: int
    """What the seeds of the trainings follow from; none is one of the search's."""
    by_repeat: tuple[Mapping[str, Any], ...] = ()
    """What else the trainings of each candidate have in their configs, one after the other and from the
    start again: ``dataset.fold``, say. The keys are the app's."""

    @property
    def n_trainings(self) -> int:
        """The budget."""
        return self.n_seeds * len(self.candidates)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self.candidates)

    @property
    def defaults(self) -> str | None:
        """Their name, if they take part."""
        return DEFAULTS if DEFAULTS in self.names else None

    def candidate(self, trial: FrozenTrial | Any) -> Candidate:
        """Whom a trial of the certificate trains again."""
        return self.candidates[self.names.index(trial.user_attrs[CANDIDATE])]

    def overrides(self, repeat: int) -> Mapping[str, Any]:
        """What the trainings with this number have in their configs, whoever is trained."""
        return self.by_repeat[repeat % len(self.by_repeat)] if self.by_repeat else {}

    def seeded_by(self, repeat: int) -> tuple[int, int, int]:
        """What an app's own seed is mixed with, in place of the number of a search's trial.

        The same for all candidates. A search mixes it with one number; the last one here is not 0, which
        numpy's SeedSequence would not tell from nothing.
        """
        return repeat, self.seed, 1

    def seed_in_config(self, repeat: int) -> int:
        """A seed for an app that reads it from its config. Below 2³¹: some libraries take no larger one."""
        return seed_of(self.seed, repeat, 1) >> 1

    def without_defaults(self) -> Plan:
        return replace(self, candidates=tuple(one for one in self.candidates if one.trial is not None))

    # ---------------------------------------------------------------------------------------- the race

    def race(self, trials: Sequence[FrozenTrial], directions: Sequence[str]) -> Race:
        """What the trainings that ended show."""
        from sweeper.results import race  # it imports scipy

        return race.of_trials(trials, self, directions)

    def next_training(
        self, trials: Sequence[FrozenTrial], directions: Sequence[str]
    ) -> tuple[str, int] | None:
        """Who is trained next, and with which number: one that it never had. None if the race is over.

        Trainings that failed cost nothing of the budget; but who has failed waits until the others have
        been trained as often.
        """
        from sweeper.results.race import next_candidate

        race = self.race(trials, directions)
        tried_again = {t.user_attrs.get("retry_of") for t in trials}
        failed = [
            t
            for t in trials
            if t.state == TrialState.FAIL
            and t.number not in tried_again
            and not (t.user_attrs.get("interrupted") or t.user_attrs.get("lost"))
        ]
        running = [t for t in trials if t.state == TrialState.RUNNING]
        others = Counter(t.user_attrs[CANDIDATE] for t in (*running, *failed) if CANDIDATE in t.user_attrs)
        budget = self.n_trainings + others.total() - len(running)
        name = next_candidate(race.candidates, race.trainings, others, budget, race.direction)
        if name is None:
            return None
        repeats = [t.user_attrs[REPEAT] for t in trials if t.user_attrs.get(CANDIDATE) == name]
        return name, max(repeats, default=-1) + 1

    def kept(self, trials: Sequence[FrozenTrial], directions: Sequence[str]) -> set[int]:
        """The trials whose weights are kept: of each candidate that is still in, its first training."""
        inside = self.race(trials, directions).inside
        return {first.number for name, first in first_trainings(trials).items() if name in inside}

    # ---------------------------------------------------------------------------------------- its file

    def write(self, files: StudyFiles) -> None:
        record.write_json(files.plan, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, files: StudyFiles) -> Plan | None:
        """That of a certificate's folder; None for a search.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.plan.exists():
            return None
        found = record.read_json(files.plan)
        check_format("STUDY", str(files.folder), found)
        try:
            candidates = tuple(
                Candidate(
                    trial=one["trial"],
                    params=one["params"],
                    values=None if one["values"] is None else tuple(one["values"]),
                    seconds=one["seconds"],
                )
                for one in found["candidates"]
            )
            rest = {name: found[name] for name in ("study", "folder", "n_seeds", "n_folds", "seed")}
            rest["by_repeat"] = tuple(found["by_repeat"])
        except (KeyError, TypeError) as error:
            raise Fault(
                files.plan, "is no plan: the file is damaged", "remove the certificate's folder"
            ) from error
        return cls(candidates=candidates, **rest)


def first_trainings(trials: Sequence[FrozenTrial]) -> dict[str, FrozenTrial]:
    """Of each candidate the training with the smallest number that is done."""
    done = [t for t in trials if t.state == TrialState.COMPLETE and CANDIDATE in t.user_attrs]
    done.sort(key=lambda t: t.user_attrs[REPEAT], reverse=True)
    return {t.user_attrs[CANDIDATE]: t for t in done}


def _take(params: Mapping[str, Any], suggest: Suggest, name: str, distribution: BaseDistribution) -> Any:
    if name not in params:
        remedy = "certify the search anew, from its own command"
        raise BadInput(name, "not in the plan", "the search has no value for it", remedy)
    return suggest(name, _widened(name, distribution, params[name]))


def _widened(name: str, distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """The distribution, or one like it that has the value, too."""
    match distribution:
        case CategoricalDistribution(choices=choices) if value not in choices:
            raise BadInput(name, value, "is no choice any more", "certify the search anew")
        case FloatDistribution(low=low, high=high, log=log) if not distribution._contains(value):
            return FloatDistribution(min(low, value), max(high, value), log=log)
        case IntDistribution(low=low, high=high, log=log) if not distribution._contains(value):
            return IntDistribution(min(low, value), max(high, value), log=log)
    return distribution
