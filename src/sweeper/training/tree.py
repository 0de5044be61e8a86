"""What is below a folder: each file once, as a picture or counted by the reason why it is none."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from sweeper.training import image_format
from sweeper.training.picture import said

SYSTEM_FOLDERS = frozenset(
    name.casefold()
    for name in (
        *("__MACOSX", "Temporary Items", "Network Trash Folder", "TheVolumeSettingsFolder"),
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@tmp"),
        *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found", "__pycache__"),
    )
)
"""Those of macOS, of network storage, of Windows and of Linux, which hold thumbnails or what was deleted."""
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"))

HIDDEN, IN_HIDDEN = "hidden", "in hidden folders"
SPECIAL = "pipes, sockets or devices"
READ_ALREADY, ABOVE = "links to folders that are read already", "links to a folder above"


class TooLargeError(Exception):
    """There is more than was asked for."""


@dataclass
class Folder:
    """A folder without hidden ones, links to folders followed.

    ``path`` is where it is found, ``names`` lead from the top to it, and ``pictures`` are names of files,
    sorted. ``left_out`` counts what is directly in it, and all that is in its hidden folders, by reason;
    ``foreign`` are those of it that are pictures in a format that cannot be read.
    """

    path: Path
    names: tuple[str, ...] = ()
    folders: list[Folder] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    n_pictures: int = 0
    """In it and below it."""

    @property
    def name(self) -> str:
        return self.names[-1] if self.names else self.path.absolute().name

    @property
    def filled(self) -> list[Folder]:
        """The folders in it that hold pictures, at any depth."""
        return [folder for folder in self.folders if folder.n_pictures]

    def below(self) -> Iterator[Folder]:
        """This one and all folders in it, in the order of their names, before what is in them."""
        stack = [self]
        while stack:
            yield (folder := stack.pop())
            stack += reversed(folder.folders)

    def all_left_out(self) -> Counter[str]:
        """By reason, with those of all folders in it."""
        return sum((folder.left_out for folder in self.below()), Counter[str]())


@dataclass(frozen=True)
class Tree:
    """``faults`` are the folders and links that could not be read: path, why, and what to do about it."""

    top: Folder
    faults: list[tuple[Path, str, str]]


def walk(root: Path, most: int | None = None, look_inside: bool = True) -> Tree:
    """All that is below a folder, which exists.

    Links to folders are followed after all that are really there, so that each is read at its own place, and
    once, whichever way leads to it.

    Args:
        most: files and folders; beyond that it ends with ``TooLargeError``.
        look_inside: whether a file with an unknown suffix is opened, to see whether it is a picture.
    """
    top = Folder(root)
    tree, seen, links, n = Tree(top, []), set[tuple[int, int]](), deque[tuple[Folder, str]](), 0
    to_read = deque([top])
    while to_read or links:
        if not to_read:
            parent, name = links.popleft()
            path = parent.path / name
            if _leads_up(path, top.path):
                parent.left_out[ABOVE] += 1
                continue
            if _identity(path) in seen:
                parent.left_out[READ_ALREADY] += 1
                continue
            to_read.append(Folder(path, (*parent.names, name)))
            parent.folders.append(to_read[0])
        folder = to_read.popleft()
        try:
            identity = _identity(folder.path)
            if identity in seen:  # a folder that is mounted twice, or that a link led into
                folder.left_out[READ_ALREADY] += 1
                continue
            seen.add(identity)
            with os.scandir(folder.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            tree.faults.append((folder.path, *said(error, folder.path)))
            continue
        n += len(found)
        if most is not None and n > most:
            raise TooLargeError
        for entry in found:
            _sort(entry, folder, tree, to_read, links, look_inside)
    _count(top)
    return tree


def _sort(
    entry: os.DirEntry[str],
    folder: Folder,
    tree: Tree,
    to_read: deque[Folder],
    links: deque[tuple[Folder, str]],
    look_inside: bool,
) -> None:
    """Put one entry of a folder where it belongs."""
    name = entry.name
    is_hidden = name.startswith(".")
    if entry.is_dir(follow_symlinks=False):
        if is_hidden or name.casefold() in SYSTEM_FOLDERS:
            folder.left_out[IN_HIDDEN if is_hidden else f"in {name}"] += _n_files(entry.path)
        else:
            to_read.append(Folder(folder.path / name, (*folder.names, name)))
            folder.folders.append(to_read[-1])
        return
    if is_hidden or name.casefold() in SYSTEM_FILES | SYSTEM_FOLDERS:
        folder.left_out[HIDDEN if is_hidden else name.strip()] += 1
        return
    stem, dot, end = name.rpartition(".")
    suffix = f"{dot}{end.lower()}" if stem else ""
    is_known = suffix in image_format.suffixes()
    if entry.is_symlink():
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            if is_known:  # decoding says why it cannot be read
                folder.pictures.append(name)
            else:  # it may have been a class
                tree.faults.append((folder.path / name, *said(error, folder.path / name)))
            return
        if S_ISDIR(mode):
            links.append((folder, name))
            return
        is_file = S_ISREG(mode)
    else:
        is_file = entry.is_file(follow_symlinks=False)
    if not is_file:
        folder.left_out[SPECIAL] += 1
    elif is_known or (look_inside and _is_picture(entry.path, suffix)):
        folder.pictures.append(name)
    else:
        folder.left_out[image_format.why_not(suffix)] += 1
        if image_format.is_foreign(name):
            folder.foreign.append(name)


def _is_picture(file: str, suffix: str) -> bool:
    try:
        return image_format.is_picture(file, suffix)
    except OSError:  # decoding says why
        return True


def _leads_up(link: Path, top: Path) -> bool:
    """Whether a link leads to a folder that it is in itself, or that the whole tree is in."""
    target = link.resolve()
    return any(inside.resolve().is_relative_to(target) for inside in (link.parent, top))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _n_files(path: str) -> int:
    """Those in a folder that stays out; a folder that cannot be listed counts as one."""
    unlisted: list[OSError] = []
    n = sum(len(names) for _, _, names in os.walk(path, onerror=unlisted.append))
    return n + len(unlisted)


def _count(top: Folder) -> None:
    for folder in reversed(list(top.below())):
        folder.folders.sort(key=lambda inner: inner.name)
        folder.n_pictures = len(folder.pictures) + sum(inner.n_pictures for inner in folder.folders)
