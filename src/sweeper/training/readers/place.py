"""Where the files of a table are: on whichever system, and in whichever form of Unicode, it was written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sweeper.training.picture import said
from sweeper.words import composed, expanded

Form = Callable[[str], str]
MOST_FOLDERS = 2000
"""That are looked through for files which are not where they were looked for."""


@dataclass(frozen=True)
class Place:
    """A folder, and what follows the names that a table has for the files in it."""

    folder: Path
    suffix: str = ""
    _listed: dict[tuple[str, Form], dict[str, list[str]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def find(self, value: str) -> tuple[Path, bool]:
        """The file that a value of the table names, and whether there is one.

        A name that is there as it is written comes before all other readings of it.
        """
        for path in self._readings(value):
            if is_file(path):
                return Path(path), True
        for path in self._readings(value):
            if (alike := self._alike(path, composed)) and is_file(alike):
                return Path(alike), True
        return Path(next(self._readings(value))), False

    def name(self, value: str, file: Path) -> str:
        """What the file is called within the data, the same on every system."""
        here = self.folder.absolute() if file.is_absolute() else self.folder
        path, folder = os.path.normpath(file), os.path.normpath(here)
        inside = "" if folder == "." else f"{folder}/"
        return composed(
            path.removeprefix(inside) if path.startswith(inside) else os.path.normpath(_slashes(value))
        )

    def near(self, value: str) -> str | None:
        """The file whose name differs from the value in upper and lower case only."""
        for path in self._readings(value):
            if (alike := self._alike(path, _casefolded)) and is_file(alike):
                return alike
        return None

    def why_not(self, value: str) -> tuple[str, str] | None:
        """Why the file cannot be read and what to do, where there may be one; None where there is none."""
        path = Path(next(self._readings(value)))
        try:
            path.stat()
        except OSError as error:
            return (
                None if isinstance(error, FileNotFoundError) and not path.is_symlink() else said(error, path)
            )
        except ValueError:
            return None
        return None

    def suggestions(self, values: Sequence[str]) -> list[Place]:
        """Other folders and suffixes with which every value names a file: at most two, which are not sure.

        Looked for in this folder and all below it, then in those above, then in those beside: there are other
        people's data, with names that may be the same, so only one that is alone is told.
        """
        here = self.folder.absolute()
        below = self._fitting([self.folder, *islice(_walk(self.folder), MOST_FOLDERS)], values)
        above = below or self._fitting(here.parents, values)
        beside = above or self._fitting(_beside(here), values)
        return above or (beside if len(beside) == 1 else [])

    def prefix(self, values: Sequence[str]) -> str | None:
        """What all values begin with, of another machine, and without which each names a file."""
        ends = [found.end() for found in re.finditer(r"[/\\]+", values[0])]
        for end in ends:
            start = values[0][:end]
            if all(value.startswith(start) and self.find(value[end:])[1] for value in values):
                return start
        return None

    def elsewhere(self, value: str) -> Path | None:
        """A file below this folder that the value names, where no folder has those of all values."""
        found = self._fitting(islice(_walk(self.folder), MOST_FOLDERS), [value])
        return found[0].find(value)[0] if found else None

    def _fitting(self, folders: Iterable[Path], values: Sequence[str]) -> list[Place]:
        found = (
            place
            for folder in folders
            for suffix in self._suffixes(folder, values[0])
            if all((place := Place(folder, suffix, self._listed)).find(value)[1] for value in values)
        )
        return list(islice(found, 2))

    def _readings(self, value: str) -> Iterator[str]:
        """The paths that a value may mean, the likeliest first."""
        written = (value, _slashes(value)) if "\\" in value else (value,)
        names = [name + self.suffix for name in written]
        if self.suffix and value.casefold().endswith(self.suffix.casefold()):
            names += written
        for name in names:
            yield os.path.join(self.folder, str(expanded(name)) if name.startswith("~") else name)  # noqa: PTH118
        for name in names:
            if name.startswith("/"):  # from the root of the disk, or of the data
                yield os.path.join(self.folder, name.lstrip("/"))  # noqa: PTH118  # for each row: Path is slow

    def _alike(self, path: str, form: Form) -> str | None:
        """The only path there is whose parts are the same in a form."""
        parent, name = os.path.split(path)
        if not name or parent == path:
            return None
        if not _is_folder(parent):
            found = self._alike(parent, form)
            if found is None:
                return None
            parent = found
        there = self._entries(parent, form).get(form(name), [])
        exact = [entry for entry in there if entry == name]
        return str(Path(parent, (exact or there)[0])) if len(exact or there) == 1 else None

    def _entries(self, folder: str, form: Form) -> dict[str, list[str]]:
        """The names in a folder by what they are in a form; listed once."""
        if (folder, form) not in self._listed:
            found = self._listed[folder, form] = {}
            try:
                for entry in Path(folder).iterdir():
                    found.setdefault(form(entry.name), []).append(entry.name)
            except (OSError, ValueError):
                pass
        return self._listed[folder, form]

    def _suffixes(self, folder: Path, value: str) -> Iterator[str]:
        """With which a value names a file in the folder: none, then those that its name lacks."""
        yield self.suffix
        path = os.path.normpath(folder / _slashes(value).lstrip("/"))
        parent, name = os.path.split(path)
        for entry in self._entries(parent, str):
            suffix = entry[len(name) :]
            if entry.startswith(name) and suffix.startswith(".") and suffix != self.suffix:
                yield suffix


def is_file(path: str) -> bool:
    """As ``Path.is_file``, which raises for a name that is too long or a folder that may not be searched."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in folders)


def _beside(folder: Path) -> Iterator[Path]:
    try:
        found = sorted(f for f in folder.parent.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError:
        return
    yield from (f for f in found[:MOST_FOLDERS] if f != folder)


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _casefolded(text: str) -> str:
    return composed(text).casefold()
