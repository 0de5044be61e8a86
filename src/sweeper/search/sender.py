"""Sending what goes with a study (see ``travel``): before a trial is told, and at the end of a search."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import filesystem, origin, outcome, ranking
from sweeper.fault import Fault
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.results.plan import Plan
from sweeper.search.artifact import Artifacts
from sweeper.search.travel import (
    BEST,
    FILES,
    LOGITS_ROOM,
    attribute,
    best_name,
    filename,
    left_out,
    logits_name,
    logits_sizes,
    model_name,
    pack,
    within,
)
from sweeper.words import listed

log = logging.getLogger(__name__)


class Sender:
    """Lets what the trials of one process leave go with their study.

    What an artifact store cannot take stays where it is, with a line in the log: the search goes on.
    """

    def __init__(self, study: optuna.Study, files: StudyFiles, study_id: str, artifacts: str | None) -> None:
        self._study = study
        self._files = files
        self._id = study_id
        self._artifacts = None if artifacts is None else Artifacts(artifacts)
        self._removed = set[str]()

    @classmethod
    def of(cls, study: optuna.Study, files: StudyFiles) -> Sender | None:
        """That of a study which travels; None for another."""
        begun = origin.read(study._storage, study._study_id)
        if not begun.get("travels") or "id" not in begun:
            return None
        return cls(study, files, begun["id"], begun.get("artifacts"))

    def send(self, trial: FrozenTrial, values: Sequence[float] | None, ended: Sequence[FrozenTrial]) -> bool:
        """Send what a trial has left, before it is told.

        Args:
            trial: as it is now.
            values: those of a trial that is complete.
            ended: the trials that were so far, or the best of them.

        Returns:
            whether it is the best, and has sent its model.
        """
        number, files = trial.number, self._files.trial(trial)
        if not files.is_of(number):
            return False
        packed = pack(files.read_texts())
        self._study._storage.set_trial_system_attr(trial._trial_id, FILES, packed)
        if names := left_out(packed):
            what = "is too long to go with the study, and stays" if len(names) == 1 else "are too long"
            log.warning("trial %d: %s %s in %s", number, listed(names), what, files.folder)
        if self._artifacts is None or values is None:
            return False
        told = copy(trial)
        told.state, told.values = TrialState.COMPLETE, list(values)
        with self._logged(f"what trial {number} has learned stays in {files.folder}"):
            self._send_logits(told, files)
            if files.run.has_model and self._is_kept(told, ended):
                with self._zipped(files.run) as path:
                    self._put(told, model_name(self._id, number), path)
                return True
        return False

    def _is_kept(self, told: FrozenTrial, ended: Sequence[FrozenTrial]) -> bool:
        """Whether others want its model: it is the best, or a certificate keeps it."""
        return told.number in self._kept([*(t for t in ended if t.number != told.number), told])

    def _kept(self, trials: Sequence[FrozenTrial]) -> set[int]:
        directions = outcome.directions(self._study)
        plan = Plan.read(self._files)
        if plan is not None:
            return plan.kept(trials, directions)
        return {trial.number for trial in ranking.best(trials, directions)}

    def _put(self, trial: FrozenTrial, name: str, path: Path, n_bytes: int | None = None) -> None:
        """First say what there is, as Optuna's tools read it: then it can be removed, whoever is killed."""
        assert self._artifacts is not None
        known = {"artifact_id": self._artifacts.id_of(name), "filename": filename(name), "encoding": None}
        known |= {"mimetype": "application/zip" if name.endswith(".zip") else "application/octet-stream"}
        if n_bytes is not None:
            known["n_bytes"] = n_bytes  # type: ignore[assignment]
        key = attribute(self._artifacts, name)
        self._study._storage.set_trial_system_attr(trial._trial_id, key, json.dumps(known))
        self._artifacts.put(name, path)

    def _send_logits(self, told: FrozenTrial, files: TrialFiles) -> None:
        """Send what the trial says of the validation pictures, while the best of all have room."""
        path = files.run.val_logits
        if n_bytes := filesystem.size(path):
            self._put(told, logits_name(self._id, told.number), path, n_bytes)

    def tidy(self, trials: Sequence[FrozenTrial]) -> None:
        """Remove what trials have sent that nobody wants: after the best one was told, and at the end.

        Whoever is told last sees all others: so nobody's model is left, and none is removed that is wanted.
        """
        if self._artifacts is None:
            return
        kept = self._kept([trial for trial in trials if trial.state == TrialState.COMPLETE])
        over = {trial.number for trial in trials if trial.state.is_finished()}
        unwanted = self._sent(model_name, trials, over - kept)
        unwanted |= self._sent(logits_name, trials, self._mute(trials))
        with self._logged("a model that is not the best any more is still there"):
            self._artifacts.remove(*sorted(unwanted - self._removed))
            self._removed |= unwanted  # a second time nobody is asked

    def _sent(
        self, name_of: Callable[[str, int], str], trials: Sequence[FrozenTrial], numbers: Collection[int]
    ) -> set[str]:
        """What these trials have sent, or have begun to send."""
        assert self._artifacts is not None
        return {
            name
            for trial in trials
            if trial.number in numbers
            and attribute(self._artifacts, name := name_of(self._id, trial.number)) in trial.system_attrs
        }

    def _mute(self, trials: Sequence[FrozenTrial]) -> set[int]:
        """The trials whose logits nobody reads: they have failed, or there is no room for those."""
        mute = {trial.number for trial in trials if trial.state == TrialState.FAIL}
        sizes = self._sizes(trials)
        if sum(sizes.values()) > LOGITS_ROOM:
            mute |= sizes.keys() - {t.number for t in within(trials, sizes, outcome.directions(self._study))}
        return mute

    def _sizes(self, trials: Iterable[FrozenTrial]) -> dict[int, int]:
        assert self._artifacts is not None
        return logits_sizes(trials, self._id, self._artifacts)

    def send_study(self) -> None:
        """Send what the search itself has found: its signs, how sure the best is, how it was tested.

        Call without the study's lock.
        """
        if self._artifacts is not None:
            self.tidy(self._study.get_trials(deepcopy=False))
        storage, study_id = self._study._storage, self._study._study_id
        attributes = storage.get_study_system_attrs(study_id)
        if (packed := pack(self._files.read_texts())) != attributes.get(FILES):
            storage.set_study_system_attr(study_id, FILES, packed)
        best = self._files.best
        if not best.is_ours or not (best.has_model or self._files.best.choice.exists()):
            return  # another machine has the model, and has tested it
        content = {"files": pack(best.read_all_texts()), "trial": best.read_result().get("trial")}
        content |= {"model": self._send_best(attributes.get(BEST)), "arrays": best.array_names()}
        if content != attributes.get(BEST):
            storage.set_study_system_attr(study_id, BEST, content)

    def _send_best(self, before: Any) -> str | None:
        """Send the model with all that ``best/`` holds; gives a digest of it."""
        if self._artifacts is None:
            return None
        known = before.get("model") if isinstance(before, dict) else None
        with (
            self._logged(f"the best model stays in {self._files.best.folder}"),
            self._zipped(self._files.best) as path,
        ):
            digest = _digest(path)
            if digest != known or self._artifacts.size(best_name(self._id)) is None:
                self._artifacts.put(best_name(self._id), path)
            return digest
        return None

    @contextmanager
    def _zipped(self, run: RunFiles) -> Iterator[Path]:
        with filesystem.temporary(self._files.heartbeats / "model.zip") as path:
            run.zip_model(path)
            yield path

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            log.warning("%s: %s", what, fault)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def forget(storage: BaseStorage, study_id: int) -> None:
    """Remove what a study has in its artifact store.

    Raises:
        Fault: if that cannot be.
    """
    begun = origin.read(storage, study_id)
    if "id" not in begun or (place := begun.get("artifacts")) is None:
        return
    artifacts, names = Artifacts(place), [best_name(begun["id"])]
    for trial in storage.get_all_trials(study_id, deepcopy=False):
        for name in (model_name(begun["id"], trial.number), logits_name(begun["id"], trial.number)):
            if attribute(artifacts, name) in trial.system_attrs:
                names.append(name)
    artifacts.remove(*names)
