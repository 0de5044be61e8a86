"""The result of every reader: images, their labels, and the part that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST, TO_SPLIT = 0, 1, 2, -1
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
"""The parts by the names that folders, and values in a table, may have."""

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
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8]
    classes: tuple[str, ...]
    part: Parts | None = None
    files: tuple[str, ...] | None = None
    image_size: int | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels, instead of exactly one."""
        return self.labels.ndim == 2

    @property
    def side(self) -> int:
        """Side, in pixels, of the images that a network sees."""
        return self.image_size or self.pixels.shape[1]


def left_to_split(part: Parts) -> Parts | None:
    """The parts, with train to be split if val or test is missing; None if everything is to be split."""
    if {VAL, TEST} <= set(part.tolist()):
        return part
    left = np.where(part == TRAIN, TO_SPLIT, part).astype(np.int8)
    return None if np.all(left == TO_SPLIT) else left
