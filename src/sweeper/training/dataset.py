"""What every reader gives: images, their labels, and the part that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST, TO_SPLIT = 0, 1, 2, -1
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
"""The names of folders, and of values in a table, that mean a part of the data."""

COPIED_BYTES = 64 * 10**6
"""Of all images: fewer are each process's own, copied where that helps; more stay where they are, on disk."""

Indices = NDArray[np.int64]
Parts = NDArray[np.int8]


@dataclass(frozen=True)
class Images:
    """A dataset, in memory or mapped from the cache's folder.

    ``pixels`` is uint8 (n, height, width, channels) and square, and not to be written to.
    ``labels`` is int64 (n,) into ``classes``, or, where an image may have several, uint8 (n, n_labels): 1
    where it has the label in ``classes``.
    ``image_size`` is the side of the middle that a network sees, None where that is all of the image.
    ``part`` is int8 (n,): 0 train, 1 val, 2 test where the data says so, -1 where it is to be split.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8]
    classes: tuple[str, ...]
    part: Parts | None = None
    files: tuple[str, ...] | None = None
    image_size: int | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels, and not just one."""
        return self.labels.ndim == 2

    @property
    def side(self) -> int:
        """Of the images that a network sees, in pixels."""
        return self.image_size or self.pixels.shape[1]


def left_to_split(part: Parts) -> Parts | None:
    """The parts, with train to be split where val or test is lacking; None where all is to be split."""
    if {VAL, TEST} <= set(part.tolist()):
        return part
    left = np.where(part == TRAIN, TO_SPLIT, part).astype(np.int8)
    return None if np.all(left == TO_SPLIT) else left
