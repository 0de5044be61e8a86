"""The plan of a certificate: which configurations of a search are trained again, and how often.

A study whose folder holds a plan is no search: each of its trials is one of the plan's candidates, with a
seed, or a fold, of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from sweeper import filesystem
from sweeper.fault import Fault
from sweeper.record.mark import FORMAT, check_format
from sweeper.record.study_files import StudyFiles
from sweeper.structure import structured

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
    def searched(self) -> tuple[Candidate, ...]:
        """The candidates that the search found."""
        return tuple(one for one in self.candidates if one.trial is not None)

    @property
    def defaults(self) -> Candidate | None:
        return next((one for one in self.candidates if one.trial is None), None)

    def named(self, name: str) -> Candidate:
        return self.candidates[self.names.index(name)]

    def overrides(self, repeat: int) -> Mapping[str, Any]:
        """What the trainings with this number have in their configs, whoever is trained."""
        return self.by_repeat[repeat % len(self.by_repeat)] if self.by_repeat else {}

    def without_defaults(self) -> Plan:
        return replace(self, candidates=self.searched)

    # ---------------------------------------------------------------------------------------- the race

    def trained(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The trainings that count, also those that diverged, in the order in which they ended."""
        ended = [t for t in trials if t.state in _TRAINED and t.user_attrs.get(CANDIDATE) in self.names]
        return sorted(ended, key=lambda trial: (trial.datetime_complete or datetime.max, trial.number))

    def fold(self, trial: FrozenTrial) -> int | None:
        """Over which a training was; None where there are none."""
        return None if self.n_folds is None else trial.user_attrs[REPEAT] % self.n_folds

    def race(self, trials: Iterable[FrozenTrial], directions: Sequence[str]) -> Race:
        """What the trainings show, and who is out; of several objectives nobody is."""
        return self._race(trials, 0, directions[0] if len(directions) == 1 else None)

    def races(self, trials: Iterable[FrozenTrial], directions: Sequence[str]) -> list[Race]:
        """The race by each objective alone."""
        return [self._race(trials, i, direction) for i, direction in enumerate(directions)]

    def _race(self, trials: Iterable[FrozenTrial], objective: int, direction: str | None) -> Race:
        from sweeper.results.race import Race, Training  # it imports scipy

        scored = [(trial, scores(trial)) for trial in self.trained(trials)]
        trainings = tuple(
            Training(t.user_attrs[CANDIDATE], math.nan if found is None else found[objective], self.fold(t))
            for t, found in scored
        )
        return Race(self.names, trainings, direction, DEFAULTS if DEFAULTS in self.names else None)

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
        filesystem.write_json(files.plan, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, files: StudyFiles) -> Plan | None:
        """That of a certificate's folder; None for a search.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.plan.exists():
            return None
        found = filesystem.read_json(files.plan)
        check_format("STUDY", str(files.folder), found)
        try:
            plan = structured(cls, found)
            plan._check()
        except ValueError as error:
            raise Fault(
                files.plan, "is no plan: the file is damaged", "remove the certificate's folder"
            ) from error
        return plan

    def _check(self) -> None:
        """Raises ValueError unless its parts go together."""
        is_folded = self.n_folds is None or (self.n_folds > 0 and len(self.by_repeat) == self.n_folds)
        n_objectives = {len(one.values) for one in self.candidates if one.values is not None}
        is_known = all((one.trial is None) == (one.params is None) for one in self.candidates)
        if not (self.candidates and self.n_seeds > 0 and self.seed >= 0 and is_folded and is_known):
            raise ValueError("a part is missing")
        if len(n_objectives) > 1 or 0 in n_objectives or len(set(self.names)) < len(self.names):
            raise ValueError("its candidates do not go together")


_TRAINED = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states of a training that counts: nothing prunes one, so one of those has diverged."""


def scores(training: FrozenTrial) -> tuple[float, ...] | None:
    """For each objective; None if it diverged."""
    values = training.values if training.state == TrialState.COMPLETE else None
    return tuple(values) if values and all(map(math.isfinite, values)) else None


def first_trainings(trials: Sequence[FrozenTrial]) -> dict[str, FrozenTrial]:
    """Of each candidate the training with the smallest number that is done."""
    done = [t for t in trials if t.state == TrialState.COMPLETE and CANDIDATE in t.user_attrs]
    done.sort(key=lambda t: t.user_attrs[REPEAT], reverse=True)
    return {t.user_attrs[CANDIDATE]: t for t in done}
