"""What runs and studies leave on disk. The only module that knows the names of the files.

Everything is written whole or not at all: to a temporary file beside, then renamed. What is ours carries a
mark, ``.sweeper/``, because the folders are the app's: what has no mark is neither read nor removed.
"""

from __future__ import annotations

import csv
import filecmp
import io
import json
import os
import shlex
import shutil
import time
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper.errors import BadInput
from sweeper.fault import Fault, disk
from sweeper.filesystem import (
    DAMAGES,
    check_replaceable,
    damaged,
    has_text,
    link,
    read_json,
    read_texts,
    refuse_stream,
    remove_empty,
    remove_trees,
    size,
    sweep_up,
    sweep_up_beside,
    whole,
    write_json,
    write_whole,
)
from sweeper.lock import held, locked
from sweeper.outcome import Outcome, n_finished
from sweeper.program import TRUST
from sweeper.structure import structured

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial

FORMAT = 1
"""The version of a study's attributes and files; another one is refused."""


JOB_NAME = "sweeper"
"""``hydra.job.name`` of our own app, by which Hydra names its log."""

CARD = "model.json"
"""Of a model; where one file holds all of it, the name of its part that is the card."""
OUTPUTS = "outputs"
JOURNAL = "studies.journal"
PER_CLASS = "per_class"
"""In ``result.json``: the scores of each class, by the part of the data."""
BELIEF = "belief"
"""In the ``result.json`` of ``best/``: how sure it is that this trial is the best."""
CERTIFICATE = "-certificate"
"""What the name of a search and the name of its folder have behind them in its certificate's."""
RESULTS_S = 1.0
"""How old the results of a running study may be, where its best trial is still the same."""
LONG_OUTPUT = 10**6
"""Bytes above which what a trial printed takes room."""
_MARK = ".sweeper"

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a build of PyYAML may lack libyaml


@dataclass(frozen=True)
class Choice:
    """Which run of a certificate is in a search's ``best/``, in place of the best trial's."""

    study: str
    """The certificate's."""
    candidate: str
    trial: int
    """The run's number in the certificate."""
    of_search: int | None
    """The number of the trial that it trains again; None for the defaults."""
    n_ended: int = 0
    """How many trials of the search had ended when it was chosen; it stands until another one ends."""


@dataclass(frozen=True)
class RunFiles:
    """The files of one training run of ours: of a trial, of the best trial, or of a run by itself."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "trial.yaml"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def old_weights(self) -> Path:
        """Where they were before there were cards."""
        return self.folder / "weights.pt"

    @property
    def has_weights(self) -> bool:
        return self.weights.exists() or self.old_weights.exists()

    @property
    def has_model(self) -> bool:
        """Whether it can be used by itself."""
        return self.weights.exists() and self.card.exists()

    @property
    def card(self) -> Path:
        """What a program must know to use the weights: ``card.Card``."""
        return self.folder / CARD

    @property
    def signs(self) -> Path:
        """What the curves say: a list of signs."""
        return self.folder / "signs.json"

    @property
    def predictions(self) -> Path:
        """What the model says of the validation images, with thumbnails of some."""
        return self.folder / "predictions.npz"

    @property
    def val_logits(self) -> Path:
        """What the model says of the validation images, in half the digits, for comparisons of trials."""
        return self.folder / "val_logits.npz"

    @property
    def trained_on(self) -> Path:
        """Which pictures the weights have seen."""
        return self.folder / _MARK / "trained_on.npy"

    @property
    def choice(self) -> Path:
        """Of a search's ``best/``: whose run it holds by choice. It comes and goes with that."""
        return self.folder / _MARK / "choice.json"

    @property
    def _mark(self) -> Path:
        return self.folder / _MARK / "run.json"

    def mark(self) -> None:
        """Say that the files of these names are ours."""
        write_json(self._mark, {"format": FORMAT})

    @property
    def is_ours(self) -> bool:
        return self._mark.exists()

    @property
    def trust_option(self) -> str:
        """What commands on this run have behind them: its config says it in its first line."""
        if not self.config.exists():
            return ""
        with disk(self.config), self.config.open(encoding="utf-8", errors="replace") as file:
            return f" {TRUST}" if TRUST in file.readline().split() else ""

    @property
    def is_complete(self) -> bool:
        """Whether it can be trained again and compared."""
        return self.is_ours and self.config.exists() and self.history.exists()

    def read_result(self) -> dict[str, Any]:
        """What was measured; nothing where there is no result of ours."""
        return read_json(self.result) if self.is_ours and self.result.exists() else {}

    def read_test_scores(self) -> dict[str, float]:
        """What was measured on the test part; nothing that is no finite number, as in a damaged file."""
        found = {name: told for name, told in self.read_result().items() if name.startswith("test_")}
        return {name: told for name, told in found.items() if isinstance(told, float) and isfinite(told)}

    def read_best_epoch(self) -> int | None:
        """The epoch whose weights were kept; None where nothing of ours says so."""
        found = self.read_result().get("best_epoch")
        return found if isinstance(found, int) else None

    def read_environment(self) -> dict[str, Any]:
        return read_json(self.environment) if self.is_ours and self.environment.exists() else {}

    @property
    def _record(self) -> tuple[Path, ...]:
        return (self.config, self.history, self.result, self.environment, self.signs, self.predictions)

    def room(self) -> list[Path]:
        """What takes room and is no record: weights, logits, and what writers left that were killed."""
        if not self.is_ours:
            return []
        heavy = (*self._weights, self.val_logits)
        written = (*self._record, *heavy)
        unfinished = [path for file in written for path in file.parent.glob(f".{file.name}.*")]
        return [path for path in (*heavy, *unfinished) if path.is_file()]

    @property
    def _weights(self) -> tuple[Path, ...]:
        """They, and what is only of use beside them; the card comes first: no other weights get it."""
        return (self.card, self.weights, self.old_weights, self.trained_on)

    # ------------------------------------------------------------------------------- on another machine

    @property
    def _texts(self) -> dict[str, Path]:
        """The small files, by the names under which they go to other machines."""
        ours = (self.config, self.history, self.result, self.environment, self.signs, self.card)
        return {path.name: path for path in (*ours, self._mark, self.choice)}

    @property
    def _arrays(self) -> dict[str, Path]:
        """The large ones, by the names that they have in one file together."""
        return {path.name: path for path in (self.weights, self.predictions, self.trained_on)}

    def array_names(self) -> list[str]:
        """The large ones that are there."""
        return [name for name, path in self._arrays.items() if path.exists()]

    def read_texts(self) -> dict[str, str]:
        """The small files of a run of ours, the card left out: it is of use beside the weights alone."""
        texts = read_texts(self._texts) if self.is_ours else {}
        texts.pop(self.card.name, None)
        return texts

    def read_all_texts(self) -> dict[str, str]:
        """The small files of a run of ours, the card among them."""
        return read_texts(self._texts) if self.is_ours else {}

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Write those that have a name which we know; what has another one came from somebody else."""
        for name, path in self._texts.items():
            if isinstance(text := texts.get(name), str) and not has_text(path, text):
                write_whole(path, text)

    def zip_model(self, path: Path) -> None:
        """Write one file that holds all of a model and its record, for another machine.

        Weights hardly get smaller by compressing. What is not compressed cannot grow when it is read.
        """
        with disk(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for name, each in {**self._texts, **self._arrays}.items():
                if each.is_file() and name != self.choice.name:
                    file.write(each, name)

    def unzip_model(self, path: Path) -> None:
        """Put what such a file holds into this folder, where nothing of these names is yet.

        Raises:
            Fault: if it is damaged, or another program's.
        """
        places = {**self._texts, **self._arrays}
        try:
            with disk(path), zipfile.ZipFile(path) as file:
                for info in file.infolist():
                    if info.filename not in places or info.compress_type != zipfile.ZIP_STORED:
                        raise damaged(path, "holds what no model has")
                    if info.file_size > size(path):
                        raise damaged(path, "claims to be larger than it is")
                    place = places[info.filename]
                    if not place.exists():
                        with file.open(info) as source, whole(place) as new, new.open("wb") as target:
                            shutil.copyfileobj(source, target)
        except DAMAGES as error:
            raise damaged(path, "holds no model") from error

    def take_val_logits(self, path: Path) -> None:
        """Let those of another machine be this run's; the file is gone from where it was."""
        with disk(self.val_logits):
            path.replace(self.val_logits)

    def remove_weights(self) -> None:
        """Remove them, and what is only of use beside them."""
        for path in self._weights:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the run, but nothing that somebody else has put into its folder."""
        if self.is_ours:
            for path in (*self.room(), *self._record, self.folder / f"{JOB_NAME}.log"):
                path.unlink(missing_ok=True)
            remove_trees(self.folder / ".hydra")
            (self.folder / _MARK / "run.lock").unlink(missing_ok=True)
            self.choice.unlink(missing_ok=True)
            self._mark.unlink()
            remove_empty(self._mark.parent)

    def forget_predictions(self) -> None:
        """Remove those of a run that was here before: they are not of the one that begins."""
        for path in (self.predictions, self.val_logits):
            with disk(path):
                path.unlink(missing_ok=True)

    def write_trained_on(self, digests: NDArray[np.uint64]) -> None:
        """Remember the pictures that the weights have seen, by their digests."""
        import numpy as np

        with whole(self.trained_on) as path, path.open("wb") as file:
            np.save(file, digests, allow_pickle=False)

    def read_trained_on(self) -> NDArray[np.uint64] | None:
        """The digests of the pictures that the weights have seen; None where nothing of ours says so.

        Raises:
            Fault: if the file is damaged.
        """
        if not self.is_ours or not self.trained_on.exists():
            return None
        import numpy as np

        refuse_stream(self.trained_on)
        with disk(self.trained_on):
            content = self.trained_on.read_bytes()
        try:
            found = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise damaged(self.trained_on, "is no array") from error
        if found.dtype != np.uint64 or found.ndim != 1:
            raise damaged(self.trained_on, "holds no digests")
        return np.asarray(found)

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One row an epoch. Floats have all their digits, so that they compare to the last bit."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: repr(value) for name, value in row.items()} for row in rows)
        write_whole(self.history, text.getvalue())

    def read_rows(self) -> list[dict[str, str]]:
        """The history as it is written, an epoch a row.

        Raises:
            Fault: if it is damaged.
        """
        refuse_stream(self.history)
        with disk(self.history), self.history.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or any(None in row or None in row.values() for row in rows):
            raise damaged(self.history, "a row has other columns" if rows else "is empty")
        return rows

    def read_history(self) -> list[dict[str, float]]:
        """The history in numbers; its epochs are counted from 1.

        Raises:
            Fault: if it is damaged.
        """
        try:
            rows = [{name: float(value) for name, value in row.items()} for row in self.read_rows()]
        except ValueError as error:
            raise damaged(self.history, "holds something else than numbers") from error
        if [row.get("epoch") for row in rows] != list(range(1, len(rows) + 1)):
            raise damaged(self.history, "its epochs are not 1, 2, 3 …")
        return rows

    @contextmanager
    def held_alone(self) -> Iterator[None]:
        """While one process writes here, refuse others.

        Raises:
            BadInput: if another one does.
        """
        if not self._mark.parent.is_dir():
            with disk(self.folder):
                self._mark.parent.mkdir(parents=True, exist_ok=True)
        with held(self.folder / _MARK / "run.lock") as is_mine:
            if not is_mine:
                remedy = "wait for its end, or write another name, as study=NAME"
                raise BadInput("study", self.folder.name, "another run is writing into its folder", remedy)
            sweep_up(self.folder, depth=1)
            yield


@dataclass(frozen=True)
class TrialFiles:
    """What the search leaves in the folder of one trial, which is the app's."""

    folder: Path

    @property
    def output(self) -> Path:
        """What the trial printed."""
        return self.folder / "sweeper_output.log"

    @property
    def traceback(self) -> Path:
        return self.folder / "sweeper_traceback.txt"

    @property
    def run(self) -> RunFiles:
        return RunFiles(self.folder)

    @property
    def _mark(self) -> Path:
        return self.folder / _MARK / "trial.json"

    def is_of(self, number: int | None) -> bool:
        """Whether the folder holds the trial of that number."""
        return self._mark.exists() and read_json(self._mark).get("trial") == number

    @property
    def is_marked(self) -> bool:
        """Whether it holds a trial of some number."""
        return self._mark.exists()

    @property
    def has_arrived(self) -> bool:
        """Whether it was trained on another machine, and only its record is here."""
        return self._mark.exists() and read_json(self._mark).get("arrived") is True

    @property
    def _texts(self) -> dict[str, Path]:
        """What another machine gets of a trial of somebody else's app: its config, as Hydra writes it."""
        return {"config.yaml": self.folder / ".hydra" / "config.yaml"}

    def read_texts(self) -> dict[str, str]:
        """What other machines get of a trial, by the names of the files."""
        return self.run.read_texts() or read_texts(self._texts)

    def arrive(self, number: int, texts: Mapping[str, str], inside: Path) -> bool:
        """Make the folder of a trial that another machine has trained; add what is missing to one of its own.

        Args:
            inside: a folder of the same disk, where it is made before it is whole.

        Returns:
            whether it is there; not where somebody else has something of that name.
        """
        if self.is_marked:
            missing = {name: text for name, text in texts.items() if not self._has(name)}
            self.run.write_texts(missing)
            return True
        if os.path.lexists(self.folder):
            return False
        new = TrialFiles(inside / self.folder.name)
        remove_trees(new.folder)
        new.run.write_texts(texts)
        for name, path in new._texts.items():
            if isinstance(text := texts.get(name), str):
                write_whole(path, text)
        write_json(new._mark, {"format": FORMAT, "trial": number, "arrived": True})
        with disk(self.folder):
            new.folder.rename(self.folder)
        return True

    def _has(self, name: str) -> bool:
        places = {**self.run._texts, **self._texts}
        return name in places and places[name].exists()

    def room(self) -> list[Path]:
        """What takes room and is no record: also a very long output."""
        is_long = self.output.is_file() and self.output.stat().st_size > LONG_OUTPUT
        return [*self.run.room(), *([self.output] if is_long else [])]

    def remove(self, number: int | None) -> None:
        """Remove what is ours of a trial, and its folder where nothing else is in it."""
        if self.is_of(number):
            self.run.remove()
            self.output.unlink(missing_ok=True)
            self.traceback.unlink(missing_ok=True)
            self._mark.unlink()
            remove_empty(self._mark.parent)

    def begin(self, study: StudyFiles, number: int) -> None:
        """Mark the folder as this trial's.

        Where it is that of a trial of the same number, the storage has lost that one: it is moved away, and
        kept. An app may put several trials into one folder.
        """
        if self.is_of(number) and self.folder != study.folder:
            with disk(study.lost):
                study.lost.mkdir(parents=True, exist_ok=True)
                self.folder.rename(study.lost / f"{number}-{time.time_ns()}")
        write_json(self._mark, {"format": FORMAT, "trial": number})


@dataclass(frozen=True)
class StudyFiles:
    """What a study leaves in its folder."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "optimization_results.yaml"

    @property
    def sweep_config(self) -> Path:
        """The composed config of the sweep, named as Hydra names it."""
        return self.folder / "multirun.yaml"

    @property
    def best(self) -> RunFiles:
        return RunFiles(self.folder / "best")

    @property
    def signs(self) -> Path:
        """What the study says: a list of signs. The folder of another app's study is that app's."""
        return (self.folder if self.has_our_runs else self.folder / _MARK) / "signs.json"

    @property
    def _belief(self) -> Path:
        """How sure the best trial is, where ``best/`` does not hold it: of another app, or a chosen one."""
        return self.folder / _MARK / "belief.json"

    @property
    def typed(self) -> str:
        """The study as a person types it in this folder: its name, or its path."""
        folder = Path(os.path.relpath(self.folder))
        is_known = folder.parts[0] == OUTPUTS
        return shlex.quote(str(folder.relative_to(OUTPUTS) if is_known else folder))

    @property
    def has_our_runs(self) -> bool:
        """Whether a trial of the study is a training run of ours, in the study's folder."""
        return self.best.is_ours or any(self.folder.glob(f"*/{_MARK}/run.json"))

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def has_report(self) -> bool:
        return is_report(self.report)

    def trial(self, trial: FrozenTrial) -> TrialFiles:
        """Where the app has the folder of a trial, which may have moved with the study."""
        return self.trial_at(trial.number, trial.user_attrs.get("folder"))

    def trial_at(self, number: int, folder: object) -> TrialFiles:
        """The same, by its number and what it says of its folder."""
        inside = TrialFiles(self.folder / str(number))
        if not isinstance(folder, str):  # none, or an app's own attribute of that name
            return inside
        is_moved = not os.path.exists(folder) and inside.is_of(number)  # noqa: PTH110 - no error where it is closed
        # Another machine's folder may have a name that means something else here.
        return inside if is_moved or inside.has_arrived else TrialFiles(Path(folder))

    def run(self, number: int) -> RunFiles:
        """The run of a trial, where its folder has its number, as those of our own app."""
        return RunFiles(self.folder / str(number))

    def complete_runs(self) -> list[int]:
        """The numbers of the trials that can be trained again and compared."""
        with disk(self.folder):
            numbers = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return sorted(number for number in numbers if self.run(number).is_complete)

    @property
    def logits_count(self) -> Path:
        """What the logits of all trials took when they were last counted (see ``results.val_logits``)."""
        return self.folder / _MARK / "val_logits.json"

    @property
    def plan(self) -> Path:
        """Of a certificate: whom it trains again, and how often."""
        return self.folder / _MARK / "plan.json"

    @property
    def is_certificate(self) -> bool:
        """Whether it is no search, but the certificate of one."""
        return self.plan.exists()

    @property
    def certified_by(self) -> StudyFiles:
        """The certificate of this search, which need not be there: beside it, as ``STUDY-certificate``."""
        return StudyFiles(self.folder.with_name(f"{self.folder.name}{CERTIFICATE}"))

    @property
    def certifies(self) -> StudyFiles | None:
        """The search of this certificate, beside it; None where it is gone, and of a search."""
        search = StudyFiles(self.folder.with_name(self.folder.name.removesuffix(CERTIFICATE)))
        return search if self.is_certificate and search.is_ours and not search.is_certificate else None

    @property
    def certificate(self) -> Path:
        """What the trainings of a certificate say. The folder of another app's study is that app's."""
        return (self.folder if self.has_our_runs else self.folder / _MARK) / "certificate.json"

    @property
    def choice(self) -> Path:
        """Which run of a certificate was chosen for ``best/``, in place of the best trial's."""
        return self.best.choice

    @property
    def lock(self) -> Path:
        return self.folder / _MARK / "lock"

    @property
    def heartbeats(self) -> Path:
        """The folder of the workers' heartbeats."""
        return self.folder / _MARK

    @property
    def lost(self) -> Path:
        """Where the folders of trials go that the storage has lost."""
        return self.folder / _MARK / "lost"

    def worker_log(self, index: int) -> Path:
        """What a worker prints outside of its trials."""
        return self.folder / _MARK / f"worker-{index}.log"

    @property
    def launcher_log(self) -> Path:
        """What Hydra's launcher and its engine print, where jobs are started by one."""
        return self.folder / _MARK / "launcher.log"

    # ------------------------------------------------------------------------------------- whose it is

    @property
    def _mark(self) -> Path:
        return self.folder / _MARK / "study.json"

    @property
    def _storage(self) -> Path:
        return self.folder / _MARK / "storage"

    @property
    def is_ours(self) -> bool:
        return self._mark.exists() or self._storage.exists()

    def mark(self, study_name: str, storage: str, study_id: str | None = None, travels: bool = False) -> None:
        """Say whose folder this is, and in which storage the study is.

        The URL may hold a password, so only its owner can read it.

        Args:
            study_id: tells the study from others that had, or will have, its name.
            travels: whether other machines take part that need not see this folder.
        """
        known = {} if study_id is None else {"id": study_id, "travels": travels}
        write_json(self._mark, {"format": FORMAT, "study": study_name, **known})
        with whole(self._storage, mode=0o600) as path:
            path.write_text(storage, encoding="utf-8")

    def read_storage(self) -> str | None:
        """The URL of the study's storage, if the folder is a study's and not another person's."""
        with disk(self._storage):
            try:
                url = self._storage.read_bytes().decode(errors="replace")
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return None
        if not url.isprintable() or not url:
            raise damaged(self._storage, "names no storage")
        return url

    def read_name(self) -> str:
        """The name of the study whose folder this is.

        Raises:
            BadInput: where the study has another format.
        """
        mark = read_json(self._mark) if self._mark.exists() else {}
        check_format("STUDY", str(self.folder), mark)
        if "study" not in mark:
            raise damaged(self._mark, "names no study")
        return str(mark["study"])

    def read_id(self) -> str | None:
        """What tells the study from others of its name; None where an earlier version has marked it."""
        found = read_json(self._mark).get("id") if self._mark.exists() else None
        return found if isinstance(found, str) else None

    @property
    def travels(self) -> bool:
        """Whether trials of the study may have been trained where this folder is not."""
        return self._mark.exists() and read_json(self._mark).get("travels") is True

    def is_of(self, study_name: str, study_id: str | None) -> bool:
        """Whether it is the folder of that very study, however many have had the name."""
        try:
            return self.is_ours and (self.read_name(), self.read_id()) == (study_name, study_id)
        except (BadInput, Fault, OSError):  # closed, or damaged
            return False

    def refuse_others(self, study_name: str, storage: str) -> None:
        """Never mix two studies in one folder.

        Raises:
            BadInput: if the folder is that of another study, or of the same in another storage.
        """
        if not self.is_ours:
            return
        name, url = self.read_name(), self.read_storage() or storage
        if name != study_name:
            remedy = f"write the name {name} to go on with it, or take another folder (hydra.sweep.dir)"
            raise BadInput("study", study_name, f"{self.folder} is the folder of the study {name}", remedy)
        if url != storage:
            remedy = "leave it out, as the folder remembers it, or write another name"
            reason = f"the study {name} is in another storage ({url})"
            raise BadInput("hydra.sweeper.storage", storage, reason, remedy)

    # ------------------------------------------------------------------------------------ making room

    def clean(self, trials: Sequence[FrozenTrial]) -> tuple[int, int]:
        """Remove what takes room and is no record: of these trials, and of those that the storage has lost.

        Call under the study's lock.

        Returns:
            how many trials gave room, and how many bytes.
        """
        n_trials = n_bytes = 0
        with disk(self.folder):
            for trial in trials:
                files = self.trial(trial)
                room = files.room() if files.is_of(trial.number) else []
                n_trials, n_bytes = n_trials + bool(room), n_bytes + sum(map(size, room))
                for path in room:
                    path.unlink()
            lost = list(self.lost.iterdir()) if self.lost.is_dir() else []
            n_bytes += size(self.lost)
            remove_trees(self.lost)
        return n_trials + len(lost), n_bytes

    def remove_trials(self, trials: Sequence[FrozenTrial] = ()) -> None:
        """Remove what is ours of these trials, of those whose folders are in the study's, and of the best."""
        with disk(self.folder):
            signs, certificate = self.signs, self.certificate
            for trial in trials:
                self.trial(trial).remove(trial.number)
            for path in sorted(self.folder.glob(f"*/{_MARK}/trial.json")):
                if not StudyFiles(path.parents[1]).is_ours:  # that of a study named a/b lies in that of a
                    TrialFiles(path.parents[1]).remove(read_json(path).get("trial"))
            self.best.remove()
            for path in (
                self.results,
                self.sweep_config,
                signs,
                certificate,
                *([self.report] * self.has_report),
            ):
                path.unlink(missing_ok=True)

    def remove_mark(self) -> int:
        """Forget the study whose trials are removed, and remove its folder where nothing is left in it.

        Returns:
            how many files of somebody else are left.
        """
        n_left = 0
        with disk(self.folder):
            remove_trees(self.folder / _MARK)
            inside = study_folders(self.folder)
            for folder, _, names in os.walk(self.folder, topdown=False):
                if not any(Path(folder).is_relative_to(study) for study in inside):
                    n_left += len(names)
                    remove_empty(Path(folder))
        return n_left

    # ------------------------------------------------------------------------------------- the results

    @property
    def results_s(self) -> float:
        """When the results were written, in seconds since the epoch; 0 where there are none."""
        try:
            return self.results.stat().st_mtime
        except OSError:  # just removed
            return 0.0

    @property
    def has_old_results(self) -> bool:
        """Whether they must be written again when something has changed."""
        return not 0 <= time.time() - self.results_s < RESULTS_S

    def write_results(
        self,
        found: Outcome,
        ended: int | None = None,
        kept: Collection[int] | None = None,
        is_due: bool = True,
    ) -> None:
        """Bring the results and ``best/`` up to date. Call under the study's lock.

        Args:
            ended: the trial that has just ended; None looks after the weights of all.
            kept: of a certificate, which has no ``best/``: the trials that keep their weights.
            is_due: whether the results must be as new as that; else they may be ``RESULTS_S`` old.
        """
        trials, best = found.trials, found.best
        if is_due or self.has_old_results:
            text = yaml.dump(found.told(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
            write_whole(self.results, text)
        keep = {trial.number for trial in best} if kept is None else set(kept)
        if ended is None or kept is not None:  # of a certificate others may drop out now
            ended_now = {t.number for t in trials if t.state.is_finished()}
        else:
            ended_now = {ended}
        with disk(self.folder):
            has_best = len(found.directions) == 1 and best and kept is None
            if has_best and not self._is_chosen(found.n_finished):
                ended_now.add(self._keep_best(best[0]))
            for number in ended_now - keep:  # weights are large: only the best keep theirs
                if number < len(trials) and (run := self.trial(trials[number]).run).is_ours:
                    run.remove_weights()
                    if trials[number].state.name != "COMPLETE":  # killed, or of no value, after it wrote them
                        run.val_logits.unlink(missing_ok=True)

    def add_to_best(self, trial: int | None, added: Mapping[str, Any]) -> bool:
        """Add to the result in ``best/``, where it is that of this trial; what others add meanwhile stays.

        Call without the study's lock.

        Returns:
            whether it is that trial's.
        """
        with locked(self.lock):
            result = self.best.read_result()
            if not result or result.get("trial") != trial:
                return False
            result |= added
            if PER_CLASS in result:  # the long part comes last
                result[PER_CLASS] = result.pop(PER_CLASS)
            write_json(self.best.result, result)
        return True

    def write_belief(self, trial: int, belief: Mapping[str, Any]) -> None:
        """Keep how sure it is that this trial is the best. Call without the study's lock."""
        if not self.choice.exists() and self.add_to_best(trial, {BELIEF: belief}):
            self._belief.unlink(missing_ok=True)
        else:
            write_json(self._belief, belief)

    def read_belief(self) -> object:
        """What ``write_belief`` was given last; None where nobody knows.

        Raises:
            Fault: if a file is damaged.
        """
        found = self.best.read_result().get(BELIEF)
        is_beside = self.choice.exists() or not self.best.is_ours
        return read_json(self._belief) if found is None and is_beside and self._belief.exists() else found

    def _keep_best(self, trial: FrozenTrial) -> int:
        """Let ``best/`` hold the files of the best trial; two renames replace those of another.

        Returns:
            the trial that ``best/`` held before.
        """
        source, target = self.trial(trial).run, self.best
        try:
            before = int(target.read_result().get("trial", trial.number))
        except (Fault, ValueError, TypeError):  # damaged: all of it is written again
            before = trial.number
            remove_trees(target.folder)
        is_theirs = target.folder.exists() and not target.is_ours
        if is_theirs or not source.is_ours or not source.config.exists():
            return before
        if before == trial.number and not self.choice.exists() and _same_history(source, target):
            return before
        self._replace_best(source)
        return before

    def _replace_best(self, source: RunFiles, choice: Choice | None = None) -> None:
        new = RunFiles(self.folder / _MARK / "best-new")
        remove_trees(new.folder)
        new.mark()
        copied = (
            "card",
            "config",
            "environment",
            "history",
            "old_weights",
            "predictions",
            "result",
            "signs",
            "trained_on",
            "weights",
        )
        for name in copied:
            if (path := getattr(source, name)).exists():
                shutil.copy2(path, getattr(new, name))
        if choice is not None:
            write_json(new.choice, {"format": FORMAT, **asdict(choice)})
        self._swap_best(new)

    # ------------------------------------------------------------------------------- on another machine

    @property
    def _texts(self) -> dict[str, Path]:
        """The small files of the study itself, by the names under which they go to other machines."""
        known = (self.signs, self._belief, self.certificate, self.plan, self.sweep_config)
        return {path.name: path for path in known}

    @property
    def arriving(self) -> Path:
        """Where the folders of trials from other machines are made."""
        return self.folder / _MARK / "arriving"

    @property
    def arrivals(self) -> Path:
        """The lock of those who bring trials here."""
        return self.folder / _MARK / "arrivals.lock"

    def read_texts(self) -> dict[str, str]:
        return read_texts(self._texts)

    def write_plan(self, texts: Mapping[str, str]) -> None:
        """Of these, that which makes it a certificate."""
        if isinstance(text := texts.get(self.plan.name), str) and not has_text(self.plan, text):
            write_whole(self.plan, text)

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Write those that have a name which we know, and that say something else than what is here."""
        for name, path in self._texts.items():
            if isinstance(text := texts.get(name), str) and not has_text(path, text):
                write_whole(path, text)

    def put_best(self, texts: Mapping[str, str], model: Path | None = None) -> None:
        """Let ``best/`` hold a run of another machine. Call under the study's lock.

        Args:
            texts: its small files.
            model: what ``zip_model`` wrote of it; without one, weights that are here of the same run stay.
        """
        new, target = RunFiles(self.folder / _MARK / "best-new"), self.best
        if target.folder.exists() and not target.is_ours:
            return
        with disk(self.folder):
            remove_trees(new.folder)
            new.write_texts(texts)
            new.mark()
            if target.is_ours and _same_history(new, target):
                for name, path in target._arrays.items():
                    if path.exists():
                        link(path, new._arrays[name])
            if model is not None:
                new.unzip_model(model)
            if not new.weights.exists():
                new.card.unlink(missing_ok=True)
            elif not new.card.exists() and target.card.exists() and _same_history(new, target):
                shutil.copy2(target.card, new.card)
            self._swap_best(new)

    def holds_best(self, texts: Mapping[str, str]) -> bool:
        """Whether ``best/`` has these small files."""
        places = self.best._texts
        return self.best.is_ours and all(
            has_text(places[name], text)
            for name, text in texts.items()
            if name in places and (name != CARD or self.best.weights.exists())
        )

    def _swap_best(self, new: RunFiles) -> None:
        """Two renames replace what ``best/`` holds."""
        target, old = self.best, RunFiles(self.folder / _MARK / "best-old")
        remove_trees(old.folder)
        if target.folder.exists():
            target.folder.replace(old.folder)
        new.folder.replace(target.folder)
        remove_trees(old.folder)

    # ------------------------------------------------------------------------------------- the choice

    def choose(self, run: RunFiles, choice: Choice, trials: Sequence[FrozenTrial]) -> None:
        """Let ``best/`` hold the files of a run of a certificate, until another trial of the search ends.

        Call under the study's lock.

        Args:
            choice: whose run it is.
            trials: of the search.
        """
        belief = self.read_belief()  # of the search's best trial, whoever is in best/
        if isinstance(belief, dict):
            write_json(self._belief, belief)
        with disk(self.folder):
            self._replace_best(run, replace(choice, n_ended=n_finished(trials)))

    def read_choice(self) -> Choice | None:
        """Whose run was chosen for ``best/``; None where it is the best trial's.

        Raises:
            Fault: if the file is damaged.
        """
        if not self.choice.exists():
            return None
        try:
            return structured(Choice, read_json(self.choice))
        except ValueError as error:
            raise damaged(self.choice, "is no choice") from error

    def holds(self, run: RunFiles) -> bool:
        """Whether ``best/`` is that run's."""
        return self.best.is_ours and _same_history(run, self.best)

    def _is_chosen(self, n_finished: int) -> bool:
        """Whether ``best/`` is that of a choice, which the next trial that ends takes back."""
        try:
            choice = self.read_choice()
        except Fault:  # damaged: nobody has chosen
            return False
        return choice is not None and choice.n_ended == n_finished


def is_chosen(choice: str, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a choice, as it was written, stands."""
    try:
        return bool(json.loads(choice)["n_ended"] == n_finished(trials))
    except (ValueError, KeyError, TypeError):  # another program's
        return False


def is_report(path: Path) -> bool:
    """Whether a file is a report of ours, and not a page of somebody else."""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="sweeper' in file.read(2000)
    except OSError:
        return False


def check_format(key: str, value: object, mark: Mapping[str, Any]) -> None:
    """Raises BadInput unless the mark of a study says that we can read it."""
    if mark.get("format") != FORMAT:
        reason = f"was written by another version of sweeper (format {mark.get('format', 0)}, not {FORMAT})"
        raise BadInput(key, value, reason, "use that version, or start another study")


# ------------------------------------------------------------------------------------------ finding them


def study_folders(top: str | Path = OUTPUTS) -> list[Path]:
    """All marked ones, also that of ``a/b``; what trials keep in their folders is not walked through."""
    found = []
    for folder, names, _ in os.walk(top):
        marks = Path(folder, _MARK)
        if (marks / "storage").exists():
            found.append(Path(folder))
        is_trials = (marks / "trial.json").exists() or (marks / "run.json").exists()
        names[:] = [] if is_trials else [name for name in names if not name.startswith(".")]
    return sorted(found)


def check_out(path: Path, key: str, example: str, inputs: Iterable[Path] = ()) -> None:
    """Make way for a file that a person has named: what killed commands have left of it is removed.

    Args:
        path: the file, which may be there: of any other kind it is replaced.
        example: the name of such a file.
        inputs: files that the command reads, also by other names.

    Raises:
        BadInput: for what it must not take the place of.
    """
    if os.path.isdir(path):  # noqa: PTH112  # no error where it is closed
        remedy = f"write the name of a file in it, as {path / example}"
        raise BadInput(key, path, "is a folder", remedy)
    check_replaceable(path, key)
    another = "write the name of another file"
    try:
        sweep_up_beside(path)
        if not path.exists():
            return
        if any(one.exists() and path.samefile(one) for one in inputs):
            raise BadInput(key, path, "is what it reads", another)
        if any(_is_record(each) for each in (path.absolute(), path.resolve())):
            raise BadInput(key, path, "belongs to a study or a run", another)
    except OSError:  # writing says why it cannot be
        return


def _is_record(path: Path) -> bool:
    run, study = RunFiles(path.parent), StudyFiles(path.parent)
    of_run = (*run._record, *run._weights, run.val_logits)
    of_study = (study.results, study.sweep_config, study.signs, study.certificate)
    return _MARK in path.parts or (run.is_ours and path in of_run) or (study.is_ours and path in of_study)


def remove_refused_run(folder: Path, job_name: str) -> None:
    """Take back what Hydra wrote for a run that was refused, where there is nothing else in its folder."""
    hydras = {".hydra", f"{job_name}.log"}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - hydras:
        return
    remove_trees(folder / ".hydra")
    (folder / f"{job_name}.log").unlink(missing_ok=True)
    remove_empty(folder)


def _same_history(a: RunFiles, b: RunFiles) -> bool:
    """A number alone does not tell: a torn journal may have lost a trial, and another got its number."""
    histories = a.history, b.history
    return all(path.exists() for path in histories) and filecmp.cmp(*histories, shallow=False)
