"""The images of a dataset as arrays, their labels, and their split into train, val and test.

Imports torch only to read torchvision's datasets: the parent process of a sweep checks the data with this
module and must stay light.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training import cache, picture
from sweeper.training.dataset import Images, Indices, digests_of
from sweeper.training.picture import stamp_of
from sweeper.training.readers import READERS
from sweeper.training.split import remarks, split
from sweeper.words import counted

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Images",
    "Indices",
    "fingerprint",
    "held_out",
    "pictures",
    "read",
    "remarks",
    "split",
    "stamp",
    "statistics",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_STD, MOST_STD = 0.001, 255
"""No images deviate by a quarter of one of the 256 steps of gray, nor by more than there are."""
READ_AT_ONCE = 128
"""Images per piece: mapped ones may not all fit into memory."""


def read(dataset: schema.Dataset) -> Images:
    """All images of the dataset.

    Raises:
        BadInput: on the key of the dataset's location, if that does not hold such a dataset.
    """
    with _reading(dataset):
        return READERS[dataset.name].read(dataset)


@contextmanager
def _reading(dataset: schema.Dataset) -> Iterator[None]:
    """Raises BadInput where the system does not let us read the data."""
    try:
        yield
    except OSError as error:
        key = "root" if dataset.path is None else "path"
        value = getattr(dataset, key)
        file = Path(error.filename or value)
        why, remedy = picture.said(error, file)
        raise BadInput(
            f"dataset.{key}", value, f"{file} cannot be read: {why}", remedy or "mend that"
        ) from error


def fingerprint(images: Images) -> str:
    """16 hexadecimal digits that change with any pixel, label or class name."""
    header, labels = repr((images.pixels.shape, images.classes)).encode(), images.labels.tobytes()

    def of_everything() -> str:
        digest = blake2b(digest_size=8)
        digest.update(header)
        for start in range(0, len(images.pixels), READ_AT_ONCE):
            digest.update(np.ascontiguousarray(images.pixels[start : start + READ_AT_ONCE]).data)
        digest.update(labels)
        return digest.hexdigest()

    name = f"fingerprint {_digest(header, labels)}"
    return cache.remembered(images.pixels, name, of_everything)


def pictures(images: Images, chosen: Indices) -> str:
    """16 hexadecimal digits that change with the chosen pictures, their order, labels or class names."""
    known = digests_of(images.pixels[chosen]) if images.digests is None else images.digests[chosen]
    return _digest(repr(images.classes).encode(), images.labels[chosen].tobytes(), known.tobytes())


def held_out(images: Images, parts: tuple[Indices, Indices, Indices]) -> NDArray[np.uint64]:
    """The digests of the pictures in val and test, where they are known."""
    _, val, test = parts
    return np.empty(0, np.uint64) if images.digests is None else images.digests[np.concatenate([val, test])]


def stamp(dataset: schema.Dataset) -> str:
    """A text that changes when a file of the dataset does, or another takes its place."""
    digest = blake2b(digest_size=8)
    with _reading(dataset):
        files = list(READERS[dataset.name].files(dataset))
    for file in files:
        digest.update(f"{file}\0{stamp_of(file)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest() if files else ""


def _digest(*parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=8).hexdigest()


def statistics(
    normalization: Any, pixels: NDArray[np.uint8], chosen: Indices | None = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, for pixel values in 0 … 1, over all or the chosen images.

    Three of each for gray images mean that the network sees them as RGB with three equal channels.

    Raises:
        BadInput: if the setting does not exist, or does not fit the channels.
    """
    n_channels = pixels.shape[-1]
    if normalization == "data":
        chosen = np.arange(len(pixels)) if chosen is None else chosen
        name = f"statistics {_digest(chosen.tobytes())}"
        mean, std = json.loads(cache.remembered(pixels, name, lambda: json.dumps(_measure(pixels, chosen))))
        return mean, std
    if normalization == "none":
        return [0.0] * n_channels, [1.0] * n_channels
    if normalization == "imagenet":
        mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    elif isinstance(normalization, Mapping) and set(normalization) == {"mean", "std"}:
        mean, std = normalization["mean"], normalization["std"]
        if not isinstance(mean, list) or not isinstance(std, list):
            raise _bad_normalization(normalization, "mean and std must be lists")
        if not all(isinstance(number, int | float) for number in [*mean, *std]):
            raise _bad_normalization(normalization, "mean and std must be numbers")
    else:
        raise _bad_normalization(normalization, "there is no such option")
    if len(mean) != len(std):
        what = f"{counted(len(mean), 'mean')}, but {counted(len(std), 'deviation')}"
        raise _bad_normalization(normalization, f"it has {what}")
    if len(mean) not in (n_channels, 3):
        what = counted(len(mean), "channel")
        raise _bad_normalization(normalization, f"it has {what}, the images have {n_channels}")
    if not all(0 <= number <= 1 for number in mean) or not all(
        LEAST_STD <= number <= MOST_STD for number in std
    ):
        deviations = f"deviations above 0, {LEAST_STD} … {MOST_STD}"
        reason = f"means must be 0 … 1 and {deviations}, as for pixel values in 0 … 1"
        raise _bad_normalization(normalization, reason)
    return mean, std


def _measure(pixels: NDArray[np.uint8], chosen: Indices) -> tuple[list[float], list[float]]:
    # From the counts of the 256 values: exact, and without a float copy of the dataset.
    values = np.arange(256) / 255
    mean, std = [], []
    for counts in _counts(pixels, chosen):
        average = np.average(values, weights=counts)
        deviation = np.sqrt(np.average((values - average) ** 2, weights=counts))
        mean.append(float(average))
        std.append(float(max(deviation, 1 / 255)))  # a constant channel must not become NaN
    return mean, std


def _counts(pixels: NDArray[np.uint8], chosen: Indices) -> Indices:
    """Counts (channels, 256) of each value in each channel.

    In pieces, because bincount needs 8 bytes per pixel.
    """
    counts = np.zeros((pixels.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(chosen), READ_AT_ONCE):
        some = pixels[chosen[start : start + READ_AT_ONCE]]
        for channel, of_channel in enumerate(counts):
            of_channel += np.bincount(some[..., channel].ravel(), minlength=256)
    return counts


def _bad_normalization(value: object, reason: str) -> BadInput:
    remedy = "write data, imagenet, none, or {mean: [...], std: [...]} with a number for each channel"
    return BadInput("dataset.normalization", value, reason, remedy)
