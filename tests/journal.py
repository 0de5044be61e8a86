"""Journals as plain Optuna opens them: what anybody else finds in them."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from sweeper import outcome


def open_journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def load_study(folder: Path, name: str) -> optuna.Study:
    """A study from the default journal of whoever ran it in ``folder``."""
    return optuna.load_study(study_name=name, storage=open_journal(folder / "outputs" / "studies.journal"))


def best_of(study: optuna.Study) -> FrozenTrial:
    """The best trial; of several that are as good, which Optuna's ``best_trial`` has by number, ours."""
    best = outcome.best_trials(study)[0]
    assert best.value == study.best_value
    return best
