"""A folder with one folder of images per class, or with such folders in train, val and test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import PARTS, TRAIN, Images, left_to_split
from sweeper.training.decode import check_every_class_is_left, identify, read_files, seen_size

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Entry:
    """One image file, with the class and the part of its folder."""

    file: Path
    class_name: str
    part: int


def read(dataset: schema.Dataset) -> Images:
    """The images of all class folders, in RGB.

    Raises:
        BadInput: on ``dataset.path``, if the folder does not hold images in class folders.
    """
    found = find(dataset)
    pixels, readable = read_files([entry.file for entry in found], dataset)
    entries = [found[i] for i in readable]
    check_every_class_is_left(dataset, _classes_of_parts(found), _classes_of_parts(entries))
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
        names=tuple(file.relative_to(Path(str(dataset.path)).expanduser()).as_posix() for file in files),
        digests=digests,
        pictures=pictures,
    )


def files(dataset: schema.Dataset) -> list[Path]:
    """Every image file."""
    return [entry.file for entry in find(dataset)]


def find(dataset: schema.Dataset) -> list[Entry]:
    """The image files of a folder with one folder per class, or with such folders in train, val and test.

    Sorted by part, class and name, so that the order is the same on every machine.

    Raises:
        BadInput: on ``dataset.path``, for any other layout of the folders.
    """
    root = _existing_folder(dataset)
    entries: list[Entry] = []
    classes_of_train: set[str] | None = None
    for part, folder in _parts(dataset, root):
        found = [entry for class_folder in _subfolders(folder) for entry in _files(class_folder, part)]
        _check_classes(dataset, folder, found)
        classes = {entry.class_name for entry in found}
        classes_of_train = classes_of_train or classes
        if classes != classes_of_train:
            odd = ", ".join(sorted(classes ^ classes_of_train))
            raise _bad_path(
                dataset, f"the classes in {folder.name} and in train differ: {odd}", "give both the same"
            )
        entries += found
    return entries


def _classes_of_parts(entries: Sequence[Entry]) -> list[tuple[int, str]]:
    return [(entry.part, entry.class_name) for entry in entries]


def _existing_folder(dataset: schema.Dataset) -> Path:
    remedy = "write dataset.path=FOLDER with one folder per class"
    if dataset.path is None:
        raise _bad_path(dataset, "image_folder needs it", remedy)
    root = Path(dataset.path).expanduser()
    if not root.exists():
        raise _bad_path(dataset, "there is no such folder", remedy)
    if not root.is_dir():
        raise _bad_path(dataset, "is a file, not a folder", remedy)
    return root


def _parts(dataset: schema.Dataset, root: Path) -> list[tuple[int, Path]]:
    """The folders that hold class folders, train first; without parts, the root counts as train."""
    folders = _subfolders(root)
    named = sorted((PARTS[folder.name], folder) for folder in folders if folder.name in PARTS)
    beside = [folder.name for folder in folders if folder.name not in PARTS]
    # "train" beside "plane" and "car" is a class. Beside "val" or "test", or alone, it is a part.
    if not named or (beside and {part for part, _ in named} == {TRAIN}):
        return [(TRAIN, root)]
    if beside:
        reason = f"holds the parts {', '.join(f.name for _, f in named)} and beside them {', '.join(beside)}"
        raise _bad_path(dataset, reason, "move what is no part out of it")
    if named[0][0] != TRAIN:
        raise _bad_path(
            dataset, f"has {named[0][1].name}, but no train", "name the folder to train on 'train'"
        )
    return named


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(class_folder: Path, part: int) -> Iterator[Entry]:
    # Links are followed, as in torchvision's ImageFolder: large datasets are often collected by links.
    for folder, subfolders, names in os.walk(class_folder, followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Entry(Path(folder, name), class_folder.name, part)


def _check_classes(dataset: schema.Dataset, folder: Path, found: Sequence[Entry]) -> None:
    names = [class_folder.name for class_folder in _subfolders(folder)]
    one_per_class = "write dataset.path=FOLDER with one folder of images per class"
    if not names:
        raise _bad_path(dataset, f"{folder} has no class folders", one_per_class)
    if not found:
        raise _bad_path(dataset, f"there are no image files in {folder}", one_per_class)
    if len(names) < 2:
        raise _bad_path(
            dataset, f"{folder} has one class folder only ({names[0]})", "there must be at least 2"
        )
    empty = sorted(set(names) - {entry.class_name for entry in found})
    if empty:
        raise _bad_path(
            dataset, f"there are no images in {folder / empty[0]}", "fill that folder or remove it"
        )


def _bad_path(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return BadInput("dataset.path", dataset.path, reason, remedy)
