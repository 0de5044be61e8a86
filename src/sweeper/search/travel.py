"""What goes with a study to machines that do not see its folder, and how it arrives there.

The small files of a trial are put into the study itself, as a system attribute of the trial. What is too
large for that goes to an artifact store, where the person has named one: the model of the best trial, what
``best/`` holds besides, and what the trials say of the validation pictures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import filesystem, origin, outcome, ranking, record
from sweeper.fault import Fault
from sweeper.lock import living, locked
from sweeper.outcome import Outcome
from sweeper.record import StudyFiles, TrialFiles
from sweeper.results.plan import Plan
from sweeper.results.val_logits import LOGITS_BYTES
from sweeper.search.artifact import Artifacts
from sweeper.search.storage import file_of
from sweeper.secret import hide_known_secrets
from sweeper.words import listed

log = logging.getLogger(__name__)

FILES = "sweeper:files"
"""The system attribute of a trial, or of a study, with its small files."""
BEST = "sweeper:best"
"""The system attribute of a study with what ``best/`` holds at the end, which a trial did not leave."""

MOST = 60_000
"""Characters of such an attribute: MySQL has room for 65,535, and every process that opens the study reads
it. Measured: 4,900 of 20 epochs on the digits, 24,000 of 200 epochs, 29,000 of 500 classes, 47,000 of
both."""
_MOST_UNPACKED = 8 * 10**6
"""Bytes: what claims to be larger was not written by a trial."""

ASK_BYTES = 100 * 10**6
"""From here on somebody is asked before it is downloaded."""
_LOGITS_BYTES = LOGITS_BYTES - 4 * 10**6
"""Of the logits that a study sends, those that a folder has room for (see ``results.val_logits``)."""
_AT_ONCE = 8
"""Downloads of small files, each of which mostly waits for an answer."""


def travels(storage: str, folder: Path, artifacts: str | None) -> bool:
    """Whether others may read the study without seeing its folder: not where both are on one disk."""
    if storage == "memory":
        return False
    path = file_of(storage)
    return artifacts is not None or path is None or _disk(path) != _disk(folder)


def _disk(path: Path) -> int:
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    return there.stat().st_dev


# ---------------------------------------------------------------------------------------------- attributes


def pack(texts: Mapping[str, str]) -> str:
    """Texts by their names, in few characters; of those that are too long only the names are left."""
    kept: dict[str, str | None] = {name: hide_known_secrets(text) for name, text in texts.items()}
    while len(packed := _packed(kept)) > MOST:
        longest = max(kept, key=lambda name: len(kept[name] or ""))
        kept[longest] = None
    return packed


def _packed(texts: Mapping[str, str | None]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(texts).encode(), 9)).decode()


def unpack(packed: object) -> dict[str, str]:
    """The texts that ``pack`` was given, without those that were too long; nothing of what is none of it."""
    return {name: text for name, text in _unpacked(packed).items() if isinstance(text, str)}


def left_out(packed: object) -> list[str]:
    """The names of those that were too long."""
    return [name for name, text in _unpacked(packed).items() if text is None]


def _unpacked(packed: object) -> dict[str, Any]:
    if not isinstance(packed, str) or len(packed) > 2 * MOST:
        return {}
    with suppress(ValueError, binascii.Error, zlib.error, RecursionError):
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(packed, validate=True), _MOST_UNPACKED)
        found = json.loads(content) if not unzip.unconsumed_tail else None
        return found if isinstance(found, dict) else {}
    return {}


# ------------------------------------------------------------------------------------------------- sending


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
                    self._put(told, _model(self._id, number), path)
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
        known = {"artifact_id": self._artifacts.id_of(name), "filename": _shown(name), "encoding": None}
        known |= {"mimetype": "application/zip" if name.endswith(".zip") else "application/octet-stream"}
        if n_bytes is not None:
            known["n_bytes"] = n_bytes  # type: ignore[assignment]
        key = _key(self._artifacts, name)
        self._study._storage.set_trial_system_attr(trial._trial_id, key, json.dumps(known))
        self._artifacts.put(name, path)

    def _send_logits(self, told: FrozenTrial, files: TrialFiles) -> None:
        """Send what the trial says of the validation pictures, while the best of all have room."""
        path = files.run.val_logits
        if n_bytes := filesystem.size(path):
            self._put(told, _logits(self._id, told.number), path, n_bytes)

    def tidy(self, trials: Sequence[FrozenTrial]) -> None:
        """Remove what trials have sent that nobody wants: after the best one was told, and at the end.

        Whoever is told last sees all others: so nobody's model is left, and none is removed that is wanted.
        """
        if self._artifacts is None:
            return
        kept = self._kept([trial for trial in trials if trial.state == TrialState.COMPLETE])
        over = {trial.number for trial in trials if trial.state.is_finished()}
        unwanted = self._sent(_model, trials, over - kept) | self._sent(_logits, trials, self._mute(trials))
        with self._logged("a model that is not the best any more is still there"):
            self._artifacts.remove(*sorted(unwanted - self._removed))
            self._removed |= unwanted

    def _sent(
        self, name_of: Callable[[str, int], str], trials: Sequence[FrozenTrial], numbers: Collection[int]
    ) -> set[str]:
        """What these trials have sent, or have begun to send."""
        assert self._artifacts is not None
        return {
            name
            for trial in trials
            if trial.number in numbers
            and _key(self._artifacts, name := name_of(self._id, trial.number)) in trial.system_attrs
        }

    def _mute(self, trials: Sequence[FrozenTrial]) -> set[int]:
        """The trials whose logits nobody reads: they have failed, or there is no room for those."""
        mute = {trial.number for trial in trials if trial.state == TrialState.FAIL}
        sizes = self._sizes(trials)
        if sum(sizes.values()) > _LOGITS_BYTES:
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
        if not best.is_ours or not (best.has_model or self._files.choice.exists()):
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
            if digest != known or self._artifacts.size(_best(self._id)) is None:
                self._artifacts.put(_best(self._id), path)
            return digest
        return None

    @contextmanager
    def _zipped(self, run: record.RunFiles) -> Iterator[Path]:
        with filesystem.temporary(self._files.heartbeats / "model.zip") as path:
            run.zip_model(path)
            yield path

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            log.warning("%s: %s", what, fault)


def forget(storage: BaseStorage, study_id: int) -> None:
    """Remove what a study has in its artifact store.

    Raises:
        Fault: if that cannot be.
    """
    begun = origin.read(storage, study_id)
    if "id" not in begun or (place := begun.get("artifacts")) is None:
        return
    artifacts, names = Artifacts(place), [_best(begun["id"])]
    for trial in storage.get_all_trials(study_id, deepcopy=False):
        for name in (_model(begun["id"], trial.number), _logits(begun["id"], trial.number)):
            if _key(artifacts, name) in trial.system_attrs:
                names.append(name)
    artifacts.remove(*names)


_ARTIFACT = "artifacts:"
"""What Optuna's tools look for among system attributes."""


def _key(artifacts: Artifacts, name: str) -> str:
    return f"{_ARTIFACT}{artifacts.id_of(name)}"


def _model(study_id: str, number: int) -> str:
    return f"{study_id}-trial-{number}.zip"


def _logits(study_id: str, number: int) -> str:
    return f"{study_id}-trial-{number}-val_logits.npz"


def _best(study_id: str) -> str:
    return f"{study_id}-best.zip"


def _shown(name: str) -> str:
    """``trial-3.zip``."""
    return name.partition("-")[2]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def logits_sizes(trials: Iterable[FrozenTrial], study_id: str, artifacts: Artifacts) -> dict[int, int]:
    """Of the trials that have sent their logits, by their numbers, the bytes."""
    sizes = {}
    for trial in trials:
        key = _key(artifacts, _logits(study_id, trial.number))
        if trial.state == TrialState.COMPLETE and key in trial.system_attrs:
            with suppress(ValueError, TypeError, KeyError):
                sizes[trial.number] = int(json.loads(trial.system_attrs[key])["n_bytes"])
    return sizes


def within(
    trials: Sequence[FrozenTrial], sizes: Mapping[int, int], directions: Sequence[str]
) -> list[FrozenTrial]:
    """The best trials whose logits have room together."""
    inside, room = [], _LOGITS_BYTES
    for trial in ranking.ranked(trials, directions):
        n_bytes = sizes.get(trial.number, 0)
        if n_bytes > room:
            break
        if n_bytes:
            inside.append(trial)
            room -= n_bytes
    return inside


# ------------------------------------------------------------------------------------------------ arriving


@dataclass(frozen=True)
class Download:
    """A file that an artifact store has, and what is done with it."""

    name: str
    n_bytes: int
    place: Callable[[Path], None] = field(repr=False)


class Arrival:
    """Brings the folder of a study up to date with what other machines have sent.

    What is here stays: a second time costs next to nothing. Two may do it at once, and either may be killed.
    """

    def __init__(self, files: StudyFiles, storage: BaseStorage, artifacts: str | None = None) -> None:
        self._files = files
        self._study = optuna.load_study(
            study_name=files.read_name(), storage=storage, sampler=optuna.samplers.RandomSampler()
        )
        begun = origin.read(storage, self._study._study_id)
        self._id = begun.get("id", "")
        place = artifacts or begun.get("artifacts")
        self._place = place
        self._outcome = Outcome.of(self._study)
        self.trials = outcome.shown(self._outcome.trials)
        self._attributes = storage.get_study_system_attrs(self._study._study_id)
        self._best = self._outcome.best

    def bring(self, admit: Callable[[int], bool], shown: Callable[[int], object] = lambda n: None) -> None:
        """Bring all of it.

        Args:
            admit: is asked whether so many bytes may be downloaded.
            shown: is told how many bytes more there are.
        """
        self.bring_texts()
        if self._place is None:
            return
        downloads = list(self._downloads(artifacts := Artifacts(self._place)))
        if downloads and admit(sum(each.n_bytes for each in downloads)):
            with locked(self._files.arrivals):
                self._download(artifacts, downloads, shown)

    def bring_texts(self) -> None:
        """Bring what stands in the study itself."""
        missing, texts = self._missing(), unpack(self._attributes.get(FILES))
        self._files.write_plan(texts)  # first: it says what the others are
        if missing or not self._is_told():
            with locked(self._files.arrivals):
                self._bring_trials(missing)
                with locked(self._files.lock):
                    self._files.write_results(self._outcome, kept=self._kept)
        self._files.write_texts(texts)
        if self._is_one and not self._files.holds_best(self._best_texts()):
            with locked(self._files.lock):
                self._files.put_best(self._best_texts())

    # -------------------------------------------------------------------------------------- the small files

    @property
    def _kept(self) -> set[int] | None:
        """Of a certificate, the trials that keep their weights; None for a search."""
        plan = Plan.read(self._files)
        return None if plan is None else plan.kept(self.trials, outcome.directions(self._study))

    def _missing(self) -> list[FrozenTrial]:
        """The trials whose records other machines have, and this one has not."""
        shared: dict[Path, bool] = {}
        return [t for t in self.trials if FILES in t.system_attrs and not self._is_here(t, shared)]

    def _is_here(self, trial: FrozenTrial, shared: dict[Path, bool]) -> bool:
        if TrialFiles(self._files.folder / str(trial.number)).is_marked:
            return True
        folder = trial.user_attrs.get("folder")
        if not isinstance(folder, str):
            return False
        above = Path(folder).parent
        if above not in shared:
            study = StudyFiles(above)
            shared[above] = study.is_of(self._study.study_name, self._id)
        return shared[above] and TrialFiles(Path(folder)).is_of(trial.number)

    def _bring_trials(self, trials: Sequence[FrozenTrial]) -> None:
        filesystem.remove_folder(self._files.arriving)  # of somebody who was killed
        for trial in trials:
            files = TrialFiles(self._files.folder / str(trial.number))
            texts = unpack(trial.system_attrs[FILES])
            if not files.arrive(trial.number, texts, self._files.arriving):
                log.warning(
                    "%s is in the way of trial %d, whose record stays away", files.folder, trial.number
                )
        filesystem.remove_folder(self._files.arriving)

    def _is_told(self) -> bool:
        """Whether the results say what there is."""
        if not self._files.results.exists():
            return False
        if not self._files.has_old_results and living(self._files.heartbeats):  # who is about to write them
            return True
        try:
            found = filesystem.read_yaml(self._files.results)
        except Fault:
            return False
        n_ended = sum(n for state, n in found.get("trials", {}).items() if TrialState[state].is_finished())
        return bool(n_ended == sum(trial.state.is_finished() for trial in self.trials))

    @property
    def _is_one(self) -> bool:
        """Whether there is one best run, of sweeper itself."""
        is_search = not self._files.is_certificate and len(self._study.directions) == 1
        return is_search and bool(self._best_texts())

    def _best_texts(self) -> dict[str, str]:
        """The small files of ``best/``: as the search has left them, else as the best trial did."""
        if not self._best:
            return {}
        if self._holds_sent():
            return unpack(self._sent["files"])
        found = unpack(self._best[0].system_attrs.get(FILES))
        return found if "run.json" in found else {}

    @property
    def _sent(self) -> dict[str, Any]:
        found = self._attributes.get(BEST)
        return found if isinstance(found, dict) and "files" in found else {}

    def _holds_sent(self) -> bool:
        """Whether what was sent of ``best/`` is of the trial that is best now, or was chosen."""
        if not self._sent:
            return False
        texts = unpack(self._sent["files"])
        if "choice.json" in texts:
            return record.is_chosen(texts["choice.json"], self.trials)
        return bool(texts) and self._sent.get("trial") == self._best[0].number

    # -------------------------------------------------------------------------------------- the large files

    def _downloads(self, artifacts: Artifacts) -> Iterator[Download]:
        """What the store has and this folder has not."""
        directions, kept = outcome.directions(self._study), self._kept
        if kept is not None or len(directions) > 1:
            for trial in self._best if kept is None else [t for t in self.trials if t.number in kept]:
                run = self._files.trial(trial).run
                if run.is_ours and not run.has_model:
                    yield from self._there(artifacts, _model(self._id, trial.number), run.unzip_model)
        elif self._is_one and (not self._files.best.has_model or self._lacks_arrays()):
            name = _best(self._id) if self._holds_sent() else _model(self._id, self._best[0].number)
            yield from self._there(artifacts, name, self._put_best)
        sizes = logits_sizes(self.trials, self._id, artifacts)
        for trial in within(self.trials, sizes, directions):
            run = self._files.trial(trial).run
            if run.is_ours and not run.val_logits.exists():
                name = _logits(self._id, trial.number)
                yield Download(name, sizes[trial.number], run.take_val_logits)

    def _lacks_arrays(self) -> bool:
        """Whether the search has sent more with its best model than is here."""
        names = self._sent.get("arrays") if self._holds_sent() else None
        return isinstance(names, list) and not set(names) <= set(self._files.best.array_names())

    def _there(self, artifacts: Artifacts, name: str, place: Callable[[Path], None]) -> Iterator[Download]:
        if (n_bytes := artifacts.size(name)) is not None:
            yield Download(name, n_bytes, place)

    def _put_best(self, path: Path) -> None:
        with locked(self._files.lock):
            self._files.put_best(self._best_texts(), path)

    def _download(
        self, artifacts: Artifacts, downloads: Sequence[Download], shown: Callable[[int], object]
    ) -> None:
        is_stopped = Event()

        def go_on(n_bytes: int) -> None:
            if is_stopped.is_set():
                raise InterruptedError
            shown(n_bytes)

        def get(download: Download) -> None:
            path = self._files.arriving / download.name
            if artifacts.get(download.name, path, go_on):
                download.place(path)

        try:
            with ThreadPoolExecutor(min(_AT_ONCE, len(downloads))) as pool:
                try:
                    list(pool.map(get, downloads))
                except BaseException:  # also Ctrl-C, which the threads do not hear
                    is_stopped.set()
                    raise
        finally:
            filesystem.remove_folder(self._files.arriving)
