"""The result of every reader: images, their labels, and the part that each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

TRAIN, VAL, TEST, TO_SPLIT = 0, 1, 2, -1
PARTS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing", "eval"), TEST),
}
"""The parts by the names that folders, and values in a table, may have: in any case (``part_named``)."""
PART_NAMES = ("train", "val", "test")
"""What we call the parts, by their numbers."""

COPIED_BYTES = 64 * 10**6
"""Smaller datasets are copied into each process; larger ones stay memory-mapped."""

Indices = NDArray[np.int64]
Parts = NDArray[np.int8]


@dataclass(frozen=True)
class Images:
    """A dataset, in memory or mapped from the cache folder.

    ``pixels`` is uint8 (n, height, width, channels), square and read-only.
    ``labels`` is int64 (n,), indices into ``classes``; or, if images may have several labels, uint8
    (n, n_labels), with 1 for each label of ``classes`` that an image has.
    ``image_size`` is the side of the centre that a network sees; None means the whole image.
    ``part`` is int8 (n,): 0 train, 1 val, 2 test, -1 for images that are still to be split.
    ``names`` are those of the images within the data, which decide on their parts: paths below
    ``dataset.path``, or as the table writes them; None for arrays.
    ``digests`` is uint64 (n,): of each file's bytes, or of an array's pixels, to know a picture again in
    other runs and datasets.
    ``pictures`` is int64 (n,): equal numbers for images with the same pixels at full size.
    ``bits`` is of what was taken for white in files of 16 bits that do not say: 8 where there are none.
    ``groups`` says what belongs together, where ``dataset.group`` is a column of a table.
    ``left_out`` counts the files that are no images of this dataset, by reason.
    ``remarks`` are what a person should know of how the data were found, a line each.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8]
    classes: tuple[str, ...]
    part: Parts | None = None
    files: tuple[str, ...] | None = None
    image_size: int | None = None
    names: tuple[str, ...] | None = None
    digests: NDArray[np.uint64] | None = None
    pictures: NDArray[np.int64] | None = None
    groups: tuple[str, ...] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    bits: int = 8

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels, instead of exactly one."""
        return self.labels.ndim == 2

    @property
    def side(self) -> int:
        """Side, in pixels, of the images that a network sees."""
        return self.image_size or self.pixels.shape[1]


def part_named(name: str) -> int | None:
    """The part that a folder, or a value in a table, names; None for other names."""
    return PARTS.get(name.strip().casefold())


def left_to_split(part: Parts) -> Parts | None:
    """The parts, with train to be split if val or test is missing; None if everything is to be split."""
    if {VAL, TEST} <= set(part.tolist()):
        return part
    left = np.where(part == TRAIN, TO_SPLIT, part).astype(np.int8)
    return None if np.all(left == TO_SPLIT) else left


def digests_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The digest (n,) of each image of an array (n, …)."""
    rows = np.ascontiguousarray(pixels)
    return np.array([xxh3_64_intdigest(row.data) for row in rows], dtype=np.uint64)


def same(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each image (n,) the position of the first with the same digest."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)
