"""What the folder ``best/`` of a study holds: the run of its best trial, or one that a person has chosen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.fault import Fault, disk
from sweeper.filesystem import (
    damaged,
    has_text,
    link,
    read_json,
    remove_trees,
    write_json,
)
from sweeper.outcome import n_finished
from sweeper.record.mark import FORMAT, MARK
from sweeper.record.run_files import CARD, RunFiles, same_history
from sweeper.structure import structured

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


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
class BestFiles(RunFiles):
    """The folder ``best/`` of a study; two renames replace what it holds. Call under the study's lock."""

    def keep(self, source: RunFiles, number: int) -> int:
        """Hold the files of the best trial; two renames replace those of another.

        Args:
            source: the files of that trial.
            number: its number.

        Returns:
            the trial that was held before.
        """
        try:
            before = int(self.read_result().get("trial", number))
        except (Fault, ValueError, TypeError):  # damaged: all of it is written again
            before = number
            remove_trees(self.folder)
        if self.is_theirs or not source.is_ours or not source.config.exists():
            return before
        if before == number and not self.choice.exists() and same_history(source, self):
            return before
        self._copy(source)
        return before

    @property
    def is_theirs(self) -> bool:
        """Whether somebody else has a folder of that name."""
        return self.folder.exists() and not self.is_ours

    def _copy(self, source: RunFiles, choice: Choice | None = None) -> None:
        new = RunFiles(self._study_marks / "best-new")
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
        self._swap(new)

    @property
    def _study_marks(self) -> Path:
        """What is ours beside it, in the folder of the study."""
        return self.folder.parent / MARK

    def _swap(self, new: RunFiles) -> None:
        old = RunFiles(self._study_marks / "best-old")
        remove_trees(old.folder)
        if self.folder.exists():
            self.folder.replace(old.folder)
        new.folder.replace(self.folder)
        remove_trees(old.folder)

    # ------------------------------------------------------------------------------- on another machine

    def put(self, texts: Mapping[str, str], model: Path | None = None) -> None:
        """Hold a run of another machine.

        Args:
            texts: its small files.
            model: what ``zip_model`` wrote of it; without one, weights that are here of the same run stay.
        """
        new = RunFiles(self._study_marks / "best-new")
        if self.is_theirs:
            return
        with disk(self.folder.parent):
            remove_trees(new.folder)
            new.write_texts(texts)
            new.mark()
            if self.is_ours and same_history(new, self):
                for name, path in self._arrays.items():
                    if path.exists():
                        link(path, new._arrays[name])
            if model is not None:
                new.unzip_model(model)
            if not new.weights.exists():
                new.card.unlink(missing_ok=True)
            elif not new.card.exists() and self.card.exists() and same_history(new, self):
                shutil.copy2(self.card, new.card)
            self._swap(new)

    def has_texts(self, texts: Mapping[str, str]) -> bool:
        """Whether it holds these small files."""
        places = self._texts
        return self.is_ours and all(
            has_text(places[name], text)
            for name, text in texts.items()
            if name in places and (name != CARD or self.weights.exists())
        )

    # ------------------------------------------------------------------------------------- the choice

    def choose(self, run: RunFiles, choice: Choice, trials: Sequence[FrozenTrial]) -> None:
        """Hold the files of a run of a certificate, until another trial of the search ends.

        Args:
            choice: whose run it is.
            trials: of the search.
        """
        with disk(self.folder.parent):
            self._copy(run, replace(choice, n_ended=n_finished(trials)))

    def read_choice(self) -> Choice | None:
        """Whose run was chosen; None where it is the best trial's.

        Raises:
            Fault: if the file is damaged.
        """
        if not self.choice.exists():
            return None
        try:
            return structured(Choice, read_json(self.choice))
        except ValueError as error:
            raise damaged(self.choice, "is no choice") from error

    def is_chosen(self, n_finished: int) -> bool:
        """Whether it is that of a choice, which the next trial that ends takes back."""
        try:
            choice = self.read_choice()
        except Fault:  # damaged: nobody has chosen
            return False
        return choice is not None and choice.n_ended == n_finished

    def holds(self, run: RunFiles) -> bool:
        """Whether it is that run's."""
        return self.is_ours and same_history(run, self)


def is_chosen(choice: str, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a choice, as it was written, stands."""
    try:
        return bool(json.loads(choice)["n_ended"] == n_finished(trials))
    except (ValueError, KeyError, TypeError):  # another program's
        return False
