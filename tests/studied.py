"""Studies with trials that are made up: as records, and on disk as a search leaves them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import origin
from sweeper.outcome import Outcome
from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.results import certificate, study_record
from sweeper.results.plan import DEFAULTS, Candidate, Plan
from sweeper.results.study_record import StudyRecord
from sweeper.search.look import read
from tests.journal import open_journal

BEGUN = datetime(2026, 1, 1)

LR: Mapping[str, BaseDistribution] = {"optimizer.lr": FloatDistribution(1e-5, 1e-1, log=True)}
OPTIMIZER: Mapping[str, BaseDistribution] = {"optimizer": CategoricalDistribution(["adam", "sgd"])}


def trial(
    values: float | Sequence[float] | None = None,
    state: TrialState = TrialState.COMPLETE,
    params: Mapping[str, Any] | None = None,
    space: Mapping[str, BaseDistribution] | None = None,
    curve: Sequence[float] = (),
    begin_s: float = 0.0,
    seconds: float = 1.0,
    **attributes: Any,
) -> FrozenTrial:
    """A trial as it stands in a study; it began so many seconds after ``BEGUN``."""
    made = create_trial(
        state=state,
        values=None if values is None else [values] if isinstance(values, float) else list(values),
        params=dict(params or {}),
        distributions={name: (space or {**LR, **OPTIMIZER})[name] for name in params or {}},
        user_attrs=attributes,
        intermediate_values=dict(enumerate(curve, start=1)),
    )
    is_over = made.state.is_finished()
    made.datetime_start = None if state == TrialState.WAITING else BEGUN + timedelta(seconds=begin_s)
    made.datetime_complete = BEGUN + timedelta(seconds=begin_s + seconds) if is_over else None
    return made


def record_of(
    folder: Path,
    *trials: FrozenTrial,
    name: str = "s",
    directions: Sequence[str] = ("maximize",),
    metrics: Sequence[str] = ("score",),
    attributes: Mapping[str, Any] | None = None,
) -> StudyRecord:
    """The record of a study with these trials, in that order."""
    study = optuna.create_study(
        study_name=name, directions=[StudyDirection[name.upper()] for name in directions]
    )
    study.add_trials(trials)
    begun = {"format": FORMAT, "folder": str(folder), "metrics": list(metrics), **(attributes or {})}
    study._storage.set_study_system_attr(study._study_id, origin.KEY, begun)
    return study_record.of(study, StudyFiles(folder))


def on_disk(
    top: Path,
    *trials: FrozenTrial,
    name: str = "s",
    directions: Sequence[str] = ("maximize",),
    attributes: Mapping[str, Any] | None = None,
) -> StudyFiles:
    """A study with these trials in the journal of ``top``, and the folder that a search makes for it."""
    files, journal = StudyFiles(top / "outputs" / name), top / "outputs" / "studies.journal"
    files.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        directions=[StudyDirection[d.upper()] for d in directions],
        storage=open_journal(journal),
        load_if_exists=True,
    )
    study.add_trials(trials)
    if attributes is not None:
        begun = {"format": FORMAT, "folder": str(files.folder), **attributes}
        study._storage.set_study_system_attr(study._study_id, origin.KEY, begun)
    files.mark(name, str(journal))
    files.write_results(Outcome.of(study))
    return files


def _directions(names: Sequence[str]) -> list[StudyDirection]:
    return [StudyDirection[name.upper()] for name in names]


def many(n: int, make: Callable[[int], FrozenTrial]) -> list[FrozenTrial]:
    return [make(i) for i in range(n)]


def certificate_of(
    top: Path,
    scores: Mapping[str, Sequence[float]],
    searched: Mapping[str, float] | None = None,
    name: str = "s",
    directions: Sequence[str] = ("maximize",),
    metrics: Sequence[str] = ("score",),
) -> StudyFiles:
    """The certificate of the study ``name``: each candidate is trained in turn.

    Args:
        scores: by the name of the candidate, ``trial 3`` or ``defaults``; NaN is a training that diverged.
        searched: what the search measured of it.
    """
    candidates = tuple(
        Candidate(
            trial=None if each == DEFAULTS else int(each.removeprefix("trial ")),
            params=None if each == DEFAULTS else {"optimizer.lr": 1e-3},
            values=None if each not in (searched or {}) else ((searched or {})[each],) * len(directions),
            seconds=None if each == DEFAULTS else 1.0,
        )
        for each in scores
    )
    n_seeds = max(map(len, scores.values()))
    turns = [(each, i) for i in range(n_seeds) for each in scores if i < len(scores[each])]
    trials = [
        trial(
            state=TrialState.PRUNED if math.isnan(scores[each][i]) else TrialState.COMPLETE,
            values=None if math.isnan(scores[each][i]) else [scores[each][i]] * len(directions),
            begin_s=number,
            seconds=0.5 + number % len(scores),
            candidate=each,
            repeat=i,
        )
        for number, (each, i) in enumerate(turns)
    ]
    files = on_disk(
        top,
        *trials,
        name=f"{name}-certificate",
        directions=directions,
        attributes={"metrics": list(metrics), "n_trials": n_seeds * len(scores)},
    )
    plan = Plan(name, str(top / "outputs" / name), candidates, n_seeds, None, seed=1)
    plan.write(files)
    certificate.of(read(files), plan).write(files)
    return files
