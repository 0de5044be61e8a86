"""The files of one training run.

Everything is written whole or not at all: to a temporary file beside, then renamed.
"""

from __future__ import annotations

import csv
import filecmp
import io
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import BadInput
from sweeper.fault import disk
from sweeper.filesystem import (
    DAMAGES,
    damaged,
    has_text,
    read_json,
    read_texts,
    refuse_stream,
    remove_empty,
    remove_trees,
    size,
    sweep_up,
    whole,
    write_json,
    write_whole,
)
from sweeper.lock import held
from sweeper.program import TRUST
from sweeper.record.mark import FORMAT, MARK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


JOB_NAME = "sweeper"
"""``hydra.job.name`` of our own app, by which Hydra names its log."""

CARD = "model.json"
"""Of a model; where one file holds all of it, the name of its part that is the card."""
PER_CLASS = "per_class"
"""In ``result.json``: the scores of each class, by the part of the data."""


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
        return self.folder / MARK / "trained_on.npy"

    @property
    def choice(self) -> Path:
        """Of a search's ``best/``: whose run it holds by choice. It comes and goes with that."""
        return self.folder / MARK / "choice.json"

    @property
    def _mark(self) -> Path:
        return self.folder / MARK / "run.json"

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

    def owns(self, path: Path) -> bool:
        """Whether a file of that name is one of the run's."""
        return self.is_ours and path in (*self._record, *self._weights, self.val_logits)

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
            (self.folder / MARK / "run.lock").unlink(missing_ok=True)
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
        with held(self.folder / MARK / "run.lock") as is_mine:
            if not is_mine:
                remedy = "wait for its end, or write another name, as study=NAME"
                raise BadInput("study", self.folder.name, "another run is writing into its folder", remedy)
            sweep_up(self.folder, depth=1)
            yield


def same_history(a: RunFiles, b: RunFiles) -> bool:
    """A number alone does not tell: a torn journal may have lost a trial, and another got its number."""
    histories = a.history, b.history
    return all(path.exists() for path in histories) and filecmp.cmp(*histories, shallow=False)


def remove_refused_run(folder: Path, job_name: str) -> None:
    """Take back what Hydra wrote for a run that was refused, where there is nothing else in its folder."""
    hydras = {".hydra", f"{job_name}.log"}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - hydras:
        return
    remove_trees(folder / ".hydra")
    (folder / f"{job_name}.log").unlink(missing_ok=True)
    remove_empty(folder)
