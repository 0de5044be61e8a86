"""Files and arrays: the images of a dataset, their labels, and which of them train, validate and test.

Never imports torch: the parent process of a sweep checks the data with this module and stays light.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sweeper import schema
from sweeper.errors import BadInput

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
TRAIN, VAL, TEST, TO_SPLIT = 0, 1, 2, -1
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
"""The folder names that mean a part of the data, not a class."""
DEFAULT_FOLDER_SIZE = 64

Indices = NDArray[np.int64]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Images:
    """A dataset in memory.

    ``pixels`` is uint8 (n, height, width, channels) and square, ``labels`` int64 (n,) into ``classes``;
    ``part`` is int8 (n,): 0 train, 1 val, 2 test where the folder says so, -1 where it is to be split.
    """

    pixels: NDArray[np.uint8]
    labels: Indices
    classes: tuple[str, ...]
    part: NDArray[np.int8] | None = None
    files: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Entry:
    """One image file, and what its folder says of it."""

    file: Path
    class_name: str
    part: int


def read(dataset: schema.Dataset) -> Images:
    """All images of the dataset.

    Raises:
        BadInput: on ``dataset.path``, where the folder does not hold images in class folders.
    """
    return READERS[dataset.name](dataset)


def fingerprint(images: Images) -> str:
    """16 hexadecimal digits that change with any pixel, label or class name."""
    digest = blake2b(digest_size=8)
    digest.update(repr((images.pixels.shape, images.classes)).encode())
    digest.update(np.ascontiguousarray(images.pixels).data)
    digest.update(np.ascontiguousarray(images.labels).data)
    return digest.hexdigest()


def stamp(dataset: schema.Dataset) -> str:
    """What changes when a file of the dataset does, told from names, sizes and times without reading any."""
    if dataset.name != "image_folder":
        return ""
    digest = blake2b(digest_size=8)
    for entry in find(dataset):
        found = entry.file.stat()
        digest.update(
            f"{entry.file}\0{found.st_size}\0{found.st_mtime_ns}\0".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- digits


def _read_digits(dataset: schema.Dataset) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    if dataset.image_size is not None:
        size = (dataset.image_size, dataset.image_size)
        scaled = [Image.fromarray(image).resize(size, Image.Resampling.BILINEAR) for image in pixels]
        pixels = np.stack([np.asarray(image) for image in scaled])
    classes = tuple(str(name) for name in digits.target_names)
    return Images(pixels[..., None], digits.target.astype(np.int64), classes)


# ---------------------------------------------------------------------------------------------- folders


def _read_folder(dataset: schema.Dataset) -> Images:
    entries = find(dataset)
    pixels, errors = _decode([entry.file for entry in entries], dataset.image_size or DEFAULT_FOLDER_SIZE)
    if errors:
        _judge_unreadable(dataset, errors)
        readable = [entry for i, entry in enumerate(entries) if i not in errors]
        _check_every_class_is_left(dataset, entries, readable)
        pixels, entries = np.delete(pixels, list(errors), axis=0), readable
    classes = tuple(sorted({entry.class_name for entry in entries}))
    labels = np.array([classes.index(entry.class_name) for entry in entries], dtype=np.int64)
    part = np.array([entry.part for entry in entries], dtype=np.int8)
    if not {VAL, TEST} <= set(part.tolist()):
        part[part == TRAIN] = TO_SPLIT
    files = tuple(str(entry.file) for entry in entries)
    return Images(pixels, labels, classes, None if np.all(part == TO_SPLIT) else part, files)


READERS = {"digits": _read_digits, "image_folder": _read_folder}


def find(dataset: schema.Dataset) -> list[Entry]:
    """The image files of a folder with one folder per class, or with such folders in train, val and test.

    Sorted by part, class and name, so that every machine sees the same order.

    Raises:
        BadInput: on ``dataset.path``, where the folders are not as they must be.
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
    """The folders that hold class folders, train first; a folder without parts is one to be split."""
    folders = _subfolders(root)
    named = sorted((PARTS[folder.name], folder) for folder in folders if folder.name in PARTS)
    beside = [folder.name for folder in folders if folder.name not in PARTS]
    # "train" beside "plane" and "car" is a class; it takes "val" or "test", or nothing else, to be a part.
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
    # Links are followed, as torchvision's ImageFolder does: large datasets are often gathered by linking.
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


def _check_every_class_is_left(dataset: schema.Dataset, before: list[Entry], after: list[Entry]) -> None:
    left = {(entry.part, entry.class_name) for entry in after}
    for entry in before:
        if (entry.part, entry.class_name) not in left:
            raise _bad_path(dataset, f"no image of class {entry.class_name} can be read", "replace its files")


def _judge_unreadable(dataset: schema.Dataset, errors: dict[int, str]) -> None:
    names = "; ".join(list(errors.values())[:5]) + ("; ..." if len(errors) > 5 else "")
    count = (
        "1 file is no readable image" if len(errors) == 1 else f"{len(errors)} files are no readable images"
    )
    if not dataset.skip_unreadable:
        raise _bad_path(dataset, f"{count}: {names}", "write dataset.skip_unreadable=true to go on without")
    log.warning("%s, skipped: %s", count, names)


def _decode(files: Sequence[Path], size: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Pixels (n, size, size, 3), and for the position of each file that cannot be read its name and why."""
    pixels = np.zeros((len(files), size, size, 3), dtype=np.uint8)
    errors: dict[int, str] = {}

    def decode(i: int) -> None:
        try:
            with Image.open(files[i]) as image:
                pixels[i] = _square(image, size)
        except Exception as error:  # Pillow's decoders raise nearly everything on a damaged file
            errors[i] = f"{files[i]} ({type(error).__name__})"

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        list(threads.map(decode, range(len(files))))
    return pixels, dict(sorted(errors.items()))


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The image upright, in RGB, its shorter side scaled to ``size`` and its middle cut out."""
    # JPEG's own halving, down to twice the size: several times faster, and no difference is seen.
    image.draft("RGB", (2 * size, 2 * size))
    image = _to_rgb(ImageOps.exif_transpose(image))
    # Pillow's bilinear filter widens with the scale, so it does not alias.
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion would cut everything above 255 to white.
        return Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _bad_path(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return BadInput("dataset.path", dataset.path, reason, remedy)


# ------------------------------------------------------------------------------------------------ split


def split(images: Images, dataset: schema.Dataset) -> tuple[Indices, Indices, Indices]:
    """The indices that train, validate and test: disjoint, together all, each class in proportion.

    What the folder says stays; parts that it lacks are taken from its training images, with
    ``split_seed``. ``test_fraction=0`` leaves the test part empty unless there is a folder for it.

    Raises:
        BadInput: where a class has too few images to be in every part, or the fractions leave none to train.
    """
    part = np.full(len(images.labels), TO_SPLIT, dtype=np.int8) if images.part is None else images.part.copy()
    val_fraction = 0.0 if VAL in part else dataset.val_fraction
    test_fraction = 0.0 if TEST in part else dataset.test_fraction
    if val_fraction + test_fraction >= 1:
        reason = f"with dataset.test_fraction={test_fraction} it leaves nothing to train on"
        raise BadInput("dataset.val_fraction", val_fraction, reason, "let both add up to less than 1")
    rng = np.random.default_rng(dataset.split_seed)
    for label, class_name in enumerate(images.classes):
        members = rng.permutation(np.flatnonzero((images.labels == label) & (part == TO_SPLIT)))
        if len(members) == 0:
            continue
        n_val, n_test = _sizes(len(members), val_fraction, test_fraction, class_name, dataset)
        part[members[:n_val]] = VAL
        part[members[n_val : n_val + n_test]] = TEST
        part[members[n_val + n_test :]] = TRAIN
    return np.flatnonzero(part == TRAIN), np.flatnonzero(part == VAL), np.flatnonzero(part == TEST)


def _sizes(
    n: int, val_fraction: float, test_fraction: float, name: str, dataset: schema.Dataset
) -> tuple[int, int]:
    """How many of a class's ``n`` images validate and test: its share, but one at least in every part.

    scikit-learn's stratified split may round a small class down to none, so the counting is done here.
    """
    parts = (("train", 1), ("val", val_fraction), ("test", test_fraction))
    wanted = [part for part, asked in parts if asked > 0]
    if n < len(wanted):
        key = "path" if dataset.name == "image_folder" else "name"
        images = "1 image" if n == 1 else f"{n} images"
        reason = f"class {name} has {images}, but {', '.join(wanted)} need one each"
        raise BadInput(
            f"dataset.{key}", getattr(dataset, key), reason, "add images of that class or leave it out"
        )
    n_test = min(max(1, round(n * test_fraction)), n - len(wanted) + 1) if test_fraction > 0 else 0
    n_val = min(max(1, round(n * val_fraction)), n - n_test - 1) if val_fraction > 0 else 0
    return n_val, n_test


def statistics(
    normalization: Any, pixels: np.ndarray[Any, np.dtype[np.uint8]]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, for pixel values in 0 … 1.

    Raises:
        BadInput: for a setting that is none, or does not fit the channels.
    """
    n_channels = pixels.shape[-1]
    if normalization == "data":
        return _measure(pixels)
    if normalization == "none":
        return [0.0] * n_channels, [1.0] * n_channels
    if normalization == "imagenet":
        mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    elif isinstance(normalization, Mapping) and set(normalization) == {"mean", "std"}:
        mean, std = list(normalization["mean"]), list(normalization["std"])
        if not all(isinstance(number, int | float) for number in [*mean, *std]):
            raise _bad_normalization(normalization, "mean and std must be numbers")
    else:
        raise _bad_normalization(normalization, "there is no such option")
    if len(mean) != n_channels or len(std) != n_channels:
        raise _bad_normalization(normalization, f"it has {len(mean)} channels, the images have {n_channels}")
    if min(std) <= 0:
        raise _bad_normalization(normalization, "the standard deviations must be greater than 0")
    return mean, std


def _measure(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[list[float], list[float]]:
    # From the counts of the 256 values: exact, and without a float copy of the whole dataset.
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(pixels.shape[-1]):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        average = np.average(values, weights=counts)
        deviation = np.sqrt(np.average((values - average) ** 2, weights=counts))
        mean.append(float(average))
        std.append(float(max(deviation, 1 / 255)))  # a channel of one value must not become NaN
    return mean, std


def _bad_normalization(value: object, reason: str) -> BadInput:
    remedy = "write data, imagenet, none, or {mean: [...], std: [...]} with a number for each channel"
    return BadInput("dataset.normalization", value, reason, remedy)
