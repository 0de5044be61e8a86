"""The folder of a study, brought up to date with what has travelled with it (see ``travel``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper import filesystem, origin, outcome
from sweeper.fault import Fault
from sweeper.lock import living, locked
from sweeper.outcome import Outcome
from sweeper.record.best_files import is_chosen
from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.results.plan import Plan
from sweeper.search.artifact import Artifacts
from sweeper.search.travel import (
    BEST,
    FILES,
    best_name,
    logits_name,
    logits_sizes,
    model_name,
    unpack,
    within,
)

log = logging.getLogger(__name__)

_ASK_BYTES = 100 * 10**6
"""From here on somebody is asked before it is downloaded."""
_AT_ONCE = 8
"""Downloads of small files, each of which mostly waits for an answer."""


def is_small(n_bytes: int) -> bool:
    """Whether so much is downloaded unasked."""
    return n_bytes <= _ASK_BYTES


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

    def bring(
        self, admit: Callable[[int], bool] = is_small, shown: Callable[[int], object] = lambda n: None
    ) -> None:
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
        if self._is_one and not self._files.best.has_texts(self._best_texts()):
            with locked(self._files.lock):
                self._files.best.put(self._best_texts())

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
            return is_chosen(texts["choice.json"], self.trials)
        return bool(texts) and self._sent.get("trial") == self._best[0].number

    # -------------------------------------------------------------------------------------- the large files

    def _downloads(self, artifacts: Artifacts) -> Iterator[Download]:
        """What the store has and this folder has not."""
        directions, kept = outcome.directions(self._study), self._kept
        if kept is not None or len(directions) > 1:
            for trial in self._best if kept is None else [t for t in self.trials if t.number in kept]:
                run = self._files.trial(trial).run
                if run.is_ours and not run.has_model:
                    yield from self._there(artifacts, model_name(self._id, trial.number), run.unzip_model)
        elif self._is_one and (not self._files.best.has_model or self._lacks_arrays()):
            name = best_name(self._id) if self._holds_sent() else model_name(self._id, self._best[0].number)
            yield from self._there(artifacts, name, self._put_best)
        sizes = logits_sizes(self.trials, self._id, artifacts)
        for trial in within(self.trials, sizes, directions):
            run = self._files.trial(trial).run
            if run.is_ours and not run.val_logits.exists():
                name = logits_name(self._id, trial.number)
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
            self._files.best.put(self._best_texts(), path)

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
