"""A search and its certificate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

from sweeper import filesystem, ranking
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.program import program
from sweeper.ranking import seconds_of
from sweeper.record.study_files import CERTIFICATE, StudyFiles
from sweeper.results import certificate as certificate_of
from sweeper.results.certificate import Certificate
from sweeper.results.plan import Candidate, Plan
from sweeper.results.study_record import StudyRecord

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Pair:
    """A search and its certificate, which need not be there."""

    def __init__(self, seen: StudyRecord, trust: bool) -> None:
        self.seen = seen
        self.trust = trust
        self.name = f"{seen.name}{CERTIFICATE}"
        self.files = seen.files.certified_by

    @property
    def search(self) -> StudyFiles:
        return self.seen.files

    @property
    def is_ours(self) -> bool:
        """Whether sweeper itself has trained, and no other app."""
        return self.seen.files.has_our_runs

    @property
    def typed(self) -> str:
        return self.seen.files.typed

    @property
    def to_begin_anew(self) -> str:
        return f"{program()} studies --delete {self.files.typed}"

    def record(self) -> StudyRecord | None:
        """Of the certificate's study; None while there is none."""
        from sweeper.search.look import read

        try:
            return read(self.files) if self.files.is_ours else None
        except KeyError:  # it is not in the storage, and the file of the error says so at greater length
            return None

    def known(self, plan: Plan) -> Certificate | None:
        """What the trainings say by now; None while there are none."""
        seen = self.record()
        return None if seen is None else certificate_of.of(seen, plan)

    def made(self, plan: Plan) -> Certificate | None:
        """What the trainings say, after they began: defaults that cannot run are not in the plan any more."""
        return self.known(Plan.read(self.files) or plan)

    def best(self, n: int) -> list[Candidate]:
        """The best n of the search, by its own order; those with the same parameters are one."""
        seen = self.seen
        pick = ranking.best if len(seen.directions) > 1 else ranking.ranked
        distinct: dict[str, FrozenTrial] = {}
        for trial in pick(seen.trials, seen.directions):
            distinct.setdefault(json.dumps(trial.params, sort_keys=True, default=str), trial)
        return [
            Candidate(trial.number, dict(trial.params), tuple(trial.values), seconds_of(trial))
            for trial in islice(distinct.values(), n)
        ]

    def defaults(self) -> Candidate:
        """As long as a trial takes in the middle."""
        known = [seconds_of(trial) for trial in self.seen.trials if trial.state.name == "COMPLETE"]
        times = [seconds for seconds in known if seconds is not None]
        return Candidate(None, None, None, median(times) if times else None)


def hydra_of(files: StudyFiles) -> Mapping[str, Any]:
    """Hydra's part of the config of the sweep; empty where it cannot be read."""
    try:
        found = filesystem.read_yaml(files.sweep_config).get("hydra")
    except (BadInput, Fault):
        return {}
    return found if isinstance(found, dict) else {}
