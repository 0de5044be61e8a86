"""The 1,797 scanned digits that come with scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.training.dataset import Images, digests_of, same
from sweeper.training.decode import scale


def read(dataset: schema.Dataset) -> Images:
    """Gray images of 8 × 8 pixels, or of ``dataset.image_size``."""
    table = _table()
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    classes = tuple(str(digit) for digit in range(10))
    labels = table[:, -1].astype(np.int64)
    digests = digests_of(pixels)
    return Images(
        scale(pixels, dataset),
        labels,
        classes,
        image_size=dataset.image_size,
        digests=digests,
        pictures=same(digests),
    )


def _table() -> NDArray[np.float64]:
    """A row per image: 64 pixels of 0 … 16, then the digit."""
    found = find_spec("sklearn")
    folder = found.submodule_search_locations[0] if found and found.submodule_search_locations else ""
    file = Path(folder, "datasets", "data", "digits.csv.gz")
    if file.exists():  # as load_digits reads it, but without the second that its import takes
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


def files(dataset: schema.Dataset) -> list[Path]:
    """None: they only change with scikit-learn, which cannot happen within a process."""
    return []
