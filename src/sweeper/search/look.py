"""A study as somebody sees it who only looks: nothing is changed by that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.lock import is_locked
from sweeper.outcome import shown
from sweeper.record.study_files import StudyFiles
from sweeper.results import study_record
from sweeper.results.study_record import StudyRecord
from sweeper.search import life
from sweeper.search.life import Told, is_lost, pool_of, worker_of
from sweeper.search.storage import look_into_storage


def seen(
    trials: Sequence[FrozenTrial],
    files: StudyFiles | None,
    read_again: Callable[[], Sequence[FrozenTrial]],
    read_told: Callable[[], Told] = Told,
) -> list[FrozenTrial]:
    """The trials as somebody sees them who only looks: those whose process is gone as lost.

    The study stays as it is: the next search on it fails them, and tries their parameters again. Who takes a
    trial from the queue holds the study's lock until it has its worker's name: one of ours that has none,
    before and after the lock was free, has lost its process too.

    Args:
        files: of the study, where its folder is here.
        read_told: gives what its pools tell of themselves; one that is silent is not waited for.
    """
    trials = shown(trials)
    nameless = _without_worker(trials)
    if nameless and files is not None and not is_locked(files.lock):
        trials = shown(read_again())
        nameless = _without_worker(trials) - nameless
    running = [t for t in trials if t.state == TrialState.RUNNING and t.number not in nameless]
    told = read_told() if running else Told()
    lost = {t.number for t in running if is_lost(t, files, told)}
    return [_lost(t, told) if t.number in lost else t for t in trials] if lost else trials


def _without_worker(trials: Sequence[FrozenTrial]) -> set[int]:
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return {trial.number for trial in running if pool_of(trial) and not worker_of(trial)}


def load(files: StudyFiles) -> optuna.Study:
    """The study whose folder this is, for somebody who only looks.

    Raises:
        BadInput: if there is no such storage, or its trials were in the memory of a process.
        Fault: if the storage cannot be read.
    """
    storage = look_into_storage(files.read_storage() or "memory")
    return optuna.load_study(study_name=files.read_name(), storage=storage, sampler=RandomSampler())


def look(files: StudyFiles) -> list[FrozenTrial]:
    """The trials of the study whose folder this is, as ``seen`` shows them; raises what ``load`` does."""
    return _trials(load(files), files)


def read(files: StudyFiles) -> StudyRecord:
    """The record of the study whose folder this is, with the trials of ``look``; raises as ``load``."""
    study = load(files)
    return study_record.of(study, files, _trials(study, files))


def _trials(study: optuna.Study, files: StudyFiles) -> list[FrozenTrial]:
    read_trials = partial(study.get_trials, deepcopy=False)
    return seen(read_trials(), files, read_trials, partial(life.read, study._storage, study._study_id))


def _lost(trial: FrozenTrial, told: Told) -> FrozenTrial:
    shown = copy(trial)
    shown.state = TrialState.FAIL
    shown.datetime_complete = trial.datetime_start  # nobody knows when it ended, but a failed trial has
    shown.user_attrs = {**trial.user_attrs, "lost": True, "reason": told.why_lost(trial)}
    return shown
