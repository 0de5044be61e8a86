"""scikit-learn's 1,797 scanned digits, which come with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sweeper import schema
from sweeper.training.collection import Images
from sweeper.training.decode import scale


def read(dataset: schema.Dataset) -> Images:
    """Grey images of 8 × 8 pixels, or of ``dataset.image_size``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    classes = tuple(str(name) for name in digits.target_names)
    return Images(scale(pixels, dataset.image_size), digits.target.astype(np.int64), classes)


def files(dataset: schema.Dataset) -> list[Path]:
    """None: they change with scikit-learn only, and no process sees that."""
    return []
