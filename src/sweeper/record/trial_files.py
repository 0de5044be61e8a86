"""What the search leaves in the folder of one trial, which is the app's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.fault import disk
from sweeper.filesystem import (
    read_json,
    read_texts,
    remove_empty,
    remove_trees,
    write_json,
    write_whole,
)
from sweeper.record.mark import FORMAT, MARK
from sweeper.record.run_files import RunFiles

LONG_OUTPUT = 10**6
"""Bytes above which what a trial printed takes room."""


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
        return self.folder / MARK / "trial.json"

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

    def mark(self, number: int) -> None:
        """Say that it holds the trial of that number."""
        write_json(self._mark, {"format": FORMAT, "trial": number})
