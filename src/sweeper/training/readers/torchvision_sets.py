"""The small well-known datasets that torchvision downloads and reads."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.lock import locked_on_machine
from sweeper.training.dataset import TEST, TRAIN, Images, digests_of, left_to_split, same
from sweeper.training.decode import scale
from sweeper.words import expanded

DOWNLOAD_TIMEOUT_S = 60
"""Longest silence of a server."""


@dataclass(frozen=True)
class Set:
    """torchvision's class, the folder below ``dataset.root`` that it reads, and the archives it unpacks."""

    kind: str
    folder: str
    archives: str


SETS = {
    "mnist": Set("MNIST", "MNIST", "MNIST/raw/*.gz"),
    "fashion_mnist": Set("FashionMNIST", "FashionMNIST", "FashionMNIST/raw/*.gz"),
    "cifar10": Set("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": Set("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
}


def read(dataset: schema.Dataset) -> Images:
    """torchvision's training images, to be split, and its test images.

    Raises:
        BadInput: on ``dataset.root`` if it is missing or damaged, on ``dataset.download`` if that fails.
    """
    if not dataset.download and not files(dataset):
        where = f"the folder that has {SETS[dataset.name].folder}"
        raise _bad_root(dataset, f"{dataset.name} is not there", f"write dataset.download=true, or {where}")
    try:
        images = _load(dataset, _root(dataset))
    except Exception as error:  # on damaged files torchvision raises nearly everything
        if not dataset.download:
            reason = f"{dataset.name} is damaged or incomplete there"
            raise _bad_root(dataset, reason, "write dataset.download=true to get it anew") from error
        images = _download_alone(dataset)
    digests = digests_of(images.pixels)
    return replace(
        images,
        pixels=scale(images.pixels, dataset),
        image_size=dataset.image_size,
        digests=digests,
        pictures=same(digests),
    )


def files(dataset: schema.Dataset) -> list[Path]:
    """All files in the set's folder."""
    folder = _root(dataset) / SETS[dataset.name].folder
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _root(dataset: schema.Dataset) -> Path:
    return expanded(dataset.root)


def _load(dataset: schema.Dataset, root: Path, download: bool = False) -> Images:
    from torchvision import datasets

    kind = getattr(datasets, SETS[dataset.name].kind)
    train, test = kind(root, train=True, download=download), kind(root, train=False)
    if any(len(part.data) != len(part.targets) for part in (train, test)):
        raise ValueError("there is not one label for each image")
    pixels = np.concatenate([np.asarray(part.data) for part in (train, test)])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in (train, test)])
    _check(pixels, labels, len(train.classes))
    part = np.repeat(np.array([TRAIN, TEST], dtype=np.int8), [len(train.data), len(test.data)])
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    return Images(np.ascontiguousarray(pixels), labels, tuple(train.classes), left_to_split(part))


def _check(pixels: NDArray[Any], labels: NDArray[np.int64], n_classes: int) -> None:
    """Raises ValueError for wrong shapes or unknown labels, which torchvision does not notice."""
    if pixels.dtype != np.uint8 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError("the images are not square ones of 8 bits")
    if not np.array_equal(np.unique(labels), np.arange(n_classes)):
        raise ValueError("a class is unknown or has no image")


def _download_alone(dataset: schema.Dataset) -> Images:
    """Download it, unless another process of this machine has done so meanwhile."""
    with locked_on_machine(f"{dataset.name} in {_root(dataset).absolute()}"):
        with suppress(Exception):  # on damaged files torchvision raises nearly everything
            return _load(dataset, _root(dataset))
        return _download(dataset)


def _download(dataset: schema.Dataset) -> Images:
    """Download into a folder beside it, so that an interrupted download never looks like data."""
    root, files_of = _root(dataset), SETS[dataset.name]
    beside = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    try:
        with TemporaryDirectory(prefix=f".{dataset.name}-", dir=beside) as name:
            for archive in root.glob(files_of.archives):  # downloaded by hand, or by torchvision
                _put(archive, Path(name) / archive.relative_to(root), shutil.copy2)
            with _timeout():
                images = _load(dataset, Path(name), download=True)
            for file in (Path(name) / files_of.folder).rglob("*"):
                if file.is_file() and file.suffix != ".gz":
                    _put(file, root / file.relative_to(name), shutil.move)
    except Exception as error:  # the network's errors, the disk's, and those of damaged archives
        reason = f"{dataset.name} cannot be downloaded: {_cause(error)}"
        remedy = f"try again, or copy {files_of.folder} into {dataset.root}"
        raise BadInput("dataset.download", True, reason, remedy) from error
    return images


def _put(source: Path, target: Path, how: Any) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    how(source, target)


@contextmanager
def _timeout() -> Iterator[None]:
    """A timeout for torchvision's downloads, which would otherwise wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cause(error: Exception) -> str:
    """One line: torchvision's error ends with the one of the last mirror that it tried."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("<urlopen error ").removesuffix(">")


def _bad_root(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return BadInput("dataset.root", dataset.root, reason, remedy)
