"""Studies with trials that are made up: as records, and on disk as a search leaves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import origin
from sweeper.record import FORMAT, StudyFiles
from sweeper.results import study_record
from sweeper.results.study_record import StudyRecord
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
    files.write_results(study)
    return files


def _directions(names: Sequence[str]) -> list[StudyDirection]:
    return [StudyDirection[name.upper()] for name in names]


def many(n: int, make: Callable[[int], FrozenTrial]) -> list[FrozenTrial]:
    return [make(i) for i in range(n)]
