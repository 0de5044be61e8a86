"""Which trials of a study have changed, read without going through all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.patience import PatientStorage
from sweeper.search.proxy import Proxy

log = logging.getLogger(__name__)

IsSettled = Callable[[FrozenTrial], bool]


def changed_trials(
    storage: BaseStorage,
    study_id: int,
    n_known: int,
    unfinished: Iterable[int],
    is_settled: IsSettled | None = None,
) -> tuple[int, list[FrozenTrial]]:
    """The trials of a study that may have changed, without going through all: Optuna's storages know them,
    but give only copies of the whole list.

    Args:
        n_known: how many trials the caller knows.
        unfinished: the numbers of those among them that had not ended.
        is_settled: whether a running trial has all that the caller looks at. Where it is given, a database is
            asked of such a trial only whether it still runs, which takes far less.

    Returns:
        how many trials there are, and the unfinished and new ones; the latter by number.
    """
    known = list(unfinished)

    def read(inside: BaseStorage) -> tuple[int, list[FrozenTrial]]:
        return _changed(inside, study_id, n_known, known, is_settled)

    return storage.read(study_id, read) if isinstance(storage, PatientStorage) else read(storage)


def _changed(
    storage: BaseStorage, study_id: int, n_known: int, unfinished: Sequence[int], is_settled: IsSettled | None
) -> tuple[int, list[FrozenTrial]]:
    try:
        found = _changed_inside(storage, study_id, n_known, unfinished, is_settled)
    except (AttributeError, ImportError):  # another Optuna than this was written for
        found = None
    if found is None:
        trials = storage.get_all_trials(study_id, deepcopy=False)
        found = (
            len(trials),
            [trials[n] for n in chain(unfinished, range(n_known, len(trials))) if n < len(trials)],
        )
    return found


def _changed_inside(
    storage: BaseStorage, study_id: int, n_known: int, unfinished: Sequence[int], is_settled: IsSettled | None
) -> tuple[int, list[FrozenTrial]] | None:
    """The same from the private members of Optuna's storages; None for a storage of somebody else."""
    match storage:
        case JournalStorage():
            with storage._thread_lock:
                storage._sync_with_backend()
                replayed = storage._replay_result
                replayed.get_study(study_id)  # or it was deleted
                ids = replayed._study_id_to_trial_ids[study_id]
                numbers = chain(unfinished, range(n_known, len(ids)))
                return len(ids), [replayed._trials[ids[n]] for n in numbers if n < len(ids)]
        case InMemoryStorage():
            with storage._lock:
                storage._check_study_id(study_id)
                trials = storage._studies[study_id].trials
                numbers = chain(unfinished, range(n_known, len(trials)))
                return len(trials), [trials[n] for n in numbers if n < len(trials)]
        case _CachedStorage():
            if not _read_changed(storage, study_id, n_known, unfinished, is_settled):
                storage._read_trials_from_remote_storage(study_id)
            with storage._lock:
                return _of_cache(storage._studies[study_id].trials, n_known, unfinished)
        case GrpcStorageProxy():
            with storage._cache.lock:
                if is_settled is None or not _ask_changed(storage, study_id, unfinished, is_settled):
                    storage._cache._read_trials_from_remote_storage(study_id)
                return _of_cache(storage._cache.studies[study_id].trials, n_known, unfinished)
    return None


def _read_changed(
    storage: _CachedStorage,
    study_id: int,
    n_known: int,
    unfinished: Iterable[int],
    is_settled: IsSettled | None,
) -> bool:
    """Read the new trials of a database, and those that may have changed, into Optuna's cache of it.

    Optuna's own reading asks for all that all unfinished trials have, which takes most of the time of an ask
    where hundreds run.

    Returns:
        False where all must be read: at first, and by another Optuna than this was written for.
    """
    from sweeper.search.database import Database

    asked = {*unfinished}

    def is_known(trial: FrozenTrial) -> bool:
        """Whether nothing but another state makes it worth reading."""
        if is_settled is None:
            return trial.number < n_known and trial.number not in asked
        return trial.state is not TrialState.RUNNING or is_settled(trial)

    with storage._lock:
        if (study := storage._studies.get(study_id)) is None or not isinstance(storage._backend, Database):
            return False
        numbers = storage._trial_id_to_study_id_and_number
        cached = {i: study.trials[numbers[i][1]] for i in study.unfinished_trial_ids}
        until = max(study.last_finished_trial_id, max(cached, default=-1))
        known = {i: trial.state if is_known(trial) else None for i, trial in cached.items()}
        trials = storage._backend.read_changed(study_id, known, until)
        if trials is None:
            return False
        storage._add_trials_to_cache(study_id, trials)
        for trial in trials:
            if trial.state.is_finished():
                study.unfinished_trial_ids.discard(trial._trial_id)
                study.last_finished_trial_id = max(study.last_finished_trial_id, trial._trial_id)
            else:
                study.unfinished_trial_ids.add(trial._trial_id)
    return True


def _ask_changed(
    storage: GrpcStorageProxy, study_id: int, unfinished: Iterable[int], is_settled: IsSettled
) -> bool:
    """The same from ``sweeper serve``; False also where the proxy is Optuna's own."""
    study = storage._cache.studies.get(study_id)
    if study is None or not isinstance(storage, Proxy) or not storage.tells_ends:
        return False
    known = {t._trial_id: t for n in unfinished if (t := study.trials.get(n)) is not None}
    if known.keys() != study.unfinished_trial_ids:
        return False
    until = max(study.last_finished_trial_id, max(known, default=-1))
    settled = [i for i, t in known.items() if t.state is TrialState.RUNNING and is_settled(t)]
    found = storage.ends(study_id, settled, until)
    if found is not None and len(settled) < len(known):
        found += storage.whole(study_id, [*known.keys() - settled], until)
    for trial in found or ():
        storage._cache._add_trial_to_cache(study_id, trial)
    return found is not None


def _of_cache(
    trials: Mapping[int, FrozenTrial], n_known: int, unfinished: Iterable[int]
) -> tuple[int, list[FrozenTrial]]:
    """What a cache has of them. Another thread may just have begun a trial, before whose number some lack."""
    n_there = n_known if n_known - 1 in trials or not n_known else len(trials)
    while n_there in trials:
        n_there += 1
    numbers = chain(unfinished, range(n_known, n_there))
    return n_there, [trials[n] for n in numbers if n in trials]
