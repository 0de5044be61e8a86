"""The plan of a certificate: which configurations of a search are trained again, and how often.

A study whose folder holds a plan is no search: each of its trials is one of the plan's candidates, with a
seed, or a fold, of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeper import record
from sweeper.fault import Fault
from sweeper.record import FORMAT, StudyFiles, check_format

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
    """Trainings of each candidate, if none drops out; what those who do leave goes to the others."""
    n_folds: int | None
    seed: int
    """What the seeds of the trainings follow from; none is one of the search's."""

    @property
    def n_trainings(self) -> int:
        """The budget."""
        return self.n_seeds * len(self.candidates)

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
        except (KeyError, TypeError) as error:
            raise Fault(
                files.plan, "is no plan: the file is damaged", "remove the certificate's folder"
            ) from error
        return cls(candidates=candidates, **rest)
