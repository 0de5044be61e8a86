"""A study goes to another storage: what one machine has begun, a database lets many go on with."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweeper import origin
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.record.study_files import StudyFiles
from sweeper.search import launch, life
from sweeper.search.travel import FILES, pack
from sweeper.words import counted

_UNFINISHED = "sweeper:unfinished"
"""The system attribute of a copy in which trials may be missing yet."""
_ABOUT_PROCESSES = (life.POOLS, life.BEAT, launch.JOB)
"""Attributes of those that work on a study, and have ended."""


def put(
    source: optuna.Study, files: StudyFiles, target: BaseStorage, travels: bool, shown: Callable[[], object]
) -> None:
    """Let another storage have a study with all that belongs to it; nobody may work on it meanwhile.

    Whoever is killed in the midst can do it again. What another program has copied before is taken as it is,
    where it is the same study.

    Args:
        files: of the study, whose trials' records go along if it travels.
        travels: whether machines will take part that need not see this folder.
        shown: is called once a trial.

    Raises:
        BadInput: if the storage has another study of that name.
        Fault: if a trial is not in it as it was.
    """
    trials = source.get_trials(deepcopy=False)
    begun = {**origin.read(source._storage, source._study_id), "travels": travels}
    study_id = _found(source, target, begun.get("id"), len(trials))
    if study_id is None:
        study_id = target.create_new_study(source.directions, source.study_name)
    target.set_study_system_attr(study_id, _UNFINISHED, True)
    attributes = source._storage.get_study_system_attrs(source._study_id)
    mine = {k: v for k, v in attributes.items() if not k.startswith((*_ABOUT_PROCESSES, _UNFINISHED))}
    for name, value in mine.items():
        target.set_study_system_attr(study_id, name, value)
    for name, value in source.user_attrs.items():
        target.set_study_user_attr(study_id, name, value)
    for trial in trials[target.get_n_trials(study_id) :]:
        target.create_new_trial(study_id, template_trial=_with_files(trial, files) if travels else trial)
        shown()
    _check_same(trials, target.get_all_trials(study_id, deepcopy=False), source.study_name)
    if origin.KEY in mine:  # an earlier version has told it otherwise
        target.set_study_system_attr(study_id, origin.KEY, begun)
    target.set_study_system_attr(study_id, _UNFINISHED, False)


def _found(source: optuna.Study, target: BaseStorage, source_id: str | None, n_trials: int) -> int | None:
    """The same study in the other storage, if somebody has begun to copy it, or has copied it."""
    if source.study_name not in (study.study_name for study in target.get_all_studies()):
        return None
    study_id = target.get_study_id_from_name(source.study_name)
    attributes, n_there = target.get_study_system_attrs(study_id), target.get_n_trials(study_id)
    its_id = origin.read(target, study_id).get("id")
    is_whole = its_id == source_id is not None and n_there >= n_trials
    is_begun = its_id in (None, source_id) and (attributes.get(_UNFINISHED) or not (attributes or n_there))
    if not (is_whole or is_begun):
        reason = f"that storage has another study of that name, of {counted(n_there, 'trial')}"
        raise BadInput("STUDY", source.study_name, reason, "delete that one first")
    return study_id


def _with_files(trial: FrozenTrial, files: StudyFiles) -> FrozenTrial:
    its = files.trial(trial)
    if not trial.state.is_finished() or not its.is_of(trial.number):
        return trial
    told = copy(trial)
    told.system_attrs = {**trial.system_attrs, FILES: pack(its.read_texts())}
    return told


def _check_same(before: list[FrozenTrial], there: list[FrozenTrial], name: str) -> None:
    """Raises Fault unless each trial is there, with its number, state, values and parameters."""
    for trial, its in zip(before, there, strict=False):
        if _identity(trial) != _identity(its):
            what = f"trial {trial.number} is not there as it was"
            raise Fault(name, what, "delete that copy; the study itself is as before")
    if len(there) < len(before):
        missing = counted(len(before) - len(there), "trial")
        raise Fault(name, f"{missing} did not arrive", "try again: the study itself is as before")


def _identity(trial: FrozenTrial) -> str:
    return repr((trial.number, trial.state, trial.values, sorted(trial.params.items())))
