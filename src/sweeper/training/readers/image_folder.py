"""A folder with one folder of images per class, or with such folders in train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

import numpy as np

from sweeper import schema
from sweeper.errors import BadInput, shortened
from sweeper.training import layout
from sweeper.training.dataset import TRAIN, Images, left_to_split
from sweeper.training.decode import check_every_class_is_left, identify, read_files, seen_size, white_bits
from sweeper.training.picture import said
from sweeper.training.tree import Tree, walk
from sweeper.words import argument, counted, expanded, some

BESIDE = "beside the class folders"
NAMED = 80
"""Characters of a path in an error."""
UNREADABLE = "that cannot be read"


@dataclass(frozen=True)
class Entry:
    """One image file, with the class and the part of its folder; ``name`` is its path below the root."""

    file: Path
    class_name: str
    part: int
    name: str


@dataclass(frozen=True)
class Finding:
    """The image files, sorted by part, class and name, and what else is in the folder, by reason."""

    entries: list[Entry]
    left_out: Counter[str]


def read(dataset: schema.Dataset) -> Images:
    """The images of all class folders, in RGB.

    Raises:
        BadInput: on ``dataset.path``, if the folder does not hold images in class folders.
    """
    found = find(dataset)
    pixels, readable = read_files([entry.file for entry in found.entries], dataset)
    entries = [found.entries[i] for i in readable]
    check_every_class_is_left(dataset, _classes_of_train(found.entries), _classes_of_train(entries))
    classes = tuple(sorted({entry.class_name for entry in entries}))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[entry.class_name] for entry in entries], dtype=np.int64)
    part = np.array([entry.part for entry in entries], dtype=np.int8)
    files = [entry.file for entry in entries]
    digests, pictures = identify(files, pixels, dataset)
    return Images(
        pixels,
        labels,
        classes,
        left_to_split(part),
        files=tuple(map(str, files)),
        image_size=seen_size(dataset),
        names=tuple(entry.name for entry in entries),
        digests=digests,
        pictures=pictures,
        bits=white_bits(files, pixels, dataset),
        left_out=+(found.left_out + Counter({UNREADABLE: len(found.entries) - len(entries)})),
        remarks=_remarks(dataset, classes),
    )


def files(dataset: schema.Dataset) -> list[Path]:
    """Every image file."""
    return [entry.file for entry in find(dataset).entries]


def find(dataset: schema.Dataset) -> Finding:
    """What a folder holds: each file below it once, as an image or left out.

    The order is the same on every machine.

    Raises:
        BadInput: on ``dataset.path``, for what is no such folder, or may be understood in two ways.
    """
    root = _existing_folder(dataset)
    tree = walk(root)
    left_out = tree.top.all_left_out() + _faults(dataset, tree)
    try:
        parts = layout.recognise(tree.top, dataset.layout)
    except layout.RefusedError as error:
        if tree.faults:  # what is missing may be in there, and nothing of the layout is wrong
            raise _unread(dataset, tree) from error
        if not isinstance(error, layout.TooDeepError):
            raise _bad_path(dataset, error.reason, error.remedy) from error
        above = layout.path_above(root)
        remedy = error.remedy if above is None else f"write {argument('dataset.path', above)}"
        raise _bad_path(dataset, error.reason, remedy) from error
    entries = [
        Entry(
            folder.path / file,
            layout.class_name(class_folder),
            part,
            f"{place}/{layout.printable(file)}",
        )
        for part, part_folder in parts
        for class_folder in part_folder.folders
        for folder in class_folder.below()
        for place in ["/".join(map(layout.printable, folder.names))]
        for file in folder.pictures
    ]
    left_out[BESIDE] = tree.top.n_pictures - len(entries)
    entries.sort(key=lambda entry: (entry.part, entry.class_name))  # otherwise as they were walked
    return Finding(entries, +left_out)


def _classes_of_train(entries: Sequence[Entry]) -> list[tuple[int, str]]:
    return [(entry.part, entry.class_name) for entry in entries if entry.part == TRAIN]


def _existing_folder(dataset: schema.Dataset) -> Path:
    remedy = "write dataset.path=FOLDER with one folder per class"
    if dataset.path is None:
        raise _bad_path(dataset, "image_folder needs it", remedy)
    try:
        root = expanded(dataset.path)
        is_folder = S_ISDIR(root.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        reason = "is a link to nothing" if root.is_symlink() else "there is no such folder"
        raise _bad_path(dataset, reason, remedy) from error
    except OSError as error:
        why, do = said(error, root)
        raise _bad_path(dataset, f"it cannot be read: {why}", do) from error
    if not is_folder:
        if root.name.lower().endswith((".csv", ".tsv", ".txt", ".parquet", ".csv.gz")):
            remedy = "write dataset=csv to read a table, or a folder"
        elif root.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"):
            remedy = "unpack it, and write the folder"
        raise _bad_path(dataset, "is a file, not a folder", remedy)
    return root


def _faults(dataset: schema.Dataset, tree: Tree) -> Counter[str]:
    """What could not be read, counted; an error that names it unless ``dataset.skip_unreadable``."""
    if not tree.faults:
        return Counter()
    if dataset.skip_unreadable:
        return _by_reason(tree)
    raise _unread(dataset, tree, ", or write dataset.skip_unreadable=true to go on without")


def _unread(dataset: schema.Dataset, tree: Tree, otherwise: str = "") -> BadInput:
    """Names the first folder or link that could not be read."""
    path, why, do = tree.faults[0]
    rest = len(tree.faults) - 1
    reason = f"reading {_below(path, tree)} failed ({why})"
    reason += f", and {counted(rest, 'more file or folder', 'more files or folders')}" if rest else ""
    return _bad_path(dataset, reason, f"{do}{otherwise}")


def _by_reason(tree: Tree) -> Counter[str]:
    """What could not be read, counted by why, with some names of each."""
    names: dict[str, list[str]] = {}
    for path, why, _ in tree.faults:
        names.setdefault(why, []).append(_below(path, tree))
    return Counter({f"{UNREADABLE} ({why}: {some(which)})": len(which) for why, which in names.items()})


def _below(path: Path, tree: Tree) -> str:
    if path == tree.top.path:
        return "the folder"
    return shortened(layout.printable(str(path.relative_to(tree.top.path))), NAMED)


def _remarks(dataset: schema.Dataset, classes: Sequence[str]) -> tuple[str, ...]:
    by_letters: dict[str, list[str]] = {}
    for name in classes:
        by_letters.setdefault(name.casefold(), []).append(name)
    told = [f"{' and '.join(same)} are different classes" for same in by_letters.values() if len(same) > 1]
    root = expanded(str(dataset.path))
    if dataset.layout == "auto" and (beside := layout.parts_beside(root)):
        path = argument("dataset.path", str(root.absolute().parent))
        what = f"{', '.join(beside)} beside {layout.printable(root.name)}"
        told.append(f"{what} {'is' if len(beside) == 1 else 'are'} not read; {path} reads all")
    return tuple(told)


def _bad_path(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return BadInput("dataset.path", dataset.path, reason, remedy)
