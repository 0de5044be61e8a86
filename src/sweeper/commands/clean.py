"""``sweeper clean [STUDY] --keep-top N``: less on disk, and the same record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sweeper import outcome, ranking
from sweeper.commands.arrival import find_study
from sweeper.commands.studies import is_gone, told_storage
from sweeper.errors import BadInput
from sweeper.lock import locked
from sweeper.program import program
from sweeper.words import counted, disk_space

if TYPE_CHECKING:
    import optuna


def clean(name: str | None, keep_top: int) -> None:
    """Remove the weights of all ended trials but the best, and the folders of trials that the storage lost.

    Raises:
        BadInput: if there is no such study, or its storage does not say which trials are best.
    """
    files = find_study(name)
    study = _load(files.read_name(), files.read_storage() or "")
    where = os.path.relpath(files.folder)
    with locked(files.lock):
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        best = ranking.ranked(trials, outcome.directions(study))
        keep = {trial.number for trial in best[:keep_top]}
        n, n_bytes = files.clean([trial for trial in trials if trial.number not in keep])
    if n:
        print(f"{disk_space(n_bytes)} freed, of {counted(n, 'trial')} in {where}")
    else:
        print(f"Nothing to free in {where}")


def _load(name: str, url: str) -> optuna.Study:
    import optuna

    from sweeper.search.storage import look_into_storage

    if is_gone(url):
        reason = f"its storage {told_storage(url)} is gone, so the best trials are unknown"
        raise BadInput("STUDY", name, reason, f"{program()} studies --delete {name} removes all of it")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=name, storage=look_into_storage(url))
