"""A storage as it is shown to somebody who only looks."""

from __future__ import annotations

from collections.abc import Container
from copy import deepcopy as copied
from functools import partial
from typing import TYPE_CHECKING

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import origin
from sweeper.outcome import shown
from sweeper.record.study_files import StudyFiles
from sweeper.search import life
from sweeper.search.delegate import Delegate
from sweeper.search.look import seen
from sweeper.search.storage import look_into_storage

if TYPE_CHECKING:
    import pandas as pd


def view(storage: BaseStorage) -> BaseStorage:
    """The storage as it is shown: no trial of a dead process looks as if it were running."""
    return _View(storage)  # type: ignore[abstract]


def frame(files: StudyFiles) -> pd.DataFrame:
    """A row for each trial of the study whose folder this is, under Optuna's own names.

    Raises:
        BadInput: if there is no such storage, or its trials were in the memory of a process.
        Fault: if the storage cannot be read.
    """
    storage = view(look_into_storage(files.read_storage() or "memory"))
    study = optuna.load_study(study_name=files.read_name(), storage=storage, sampler=RandomSampler())
    return study.trials_dataframe()


class _View(Delegate):
    """Nothing is written for that: the search itself ends such trials, when it goes on. All else is read from
    the storage, and what is written goes to it.
    """

    # Optuna's own, which ask for all trials: so they are of those that are shown.
    get_n_trials, get_best_trial = BaseStorage.get_n_trials, BaseStorage.get_best_trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = shown(self._storage.get_all_trials(study_id, deepcopy=False))
        if any(trial.state == TrialState.RUNNING for trial in trials):
            trials = self._judged(study_id, trials)
        found = [trial for trial in trials if states is None or trial.state in states]
        return copied(found) if deepcopy else found

    def _judged(self, study_id: int, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The trials, lost where their process is gone, so far as that can be known here."""
        folder = origin.folder(origin.read(self._storage, study_id))
        files = None if folder is None else StudyFiles(folder)
        read_again = partial(self._storage.get_all_trials, study_id, deepcopy=False)
        return seen(trials, files, read_again, partial(life.read, self._storage, study_id))
