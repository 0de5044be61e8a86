"""Which pictures have the same pixels at full size, without decoding all of them at full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sweeper.training.dataset import Indices, same

DIFFERENCE = 8
"""The same picture as a JPEG, which was decoded smaller, and in a lossless format: means over its cells
differ by at most 1 in photographs, and by at most 5 in stripes and checkerboards."""
CELLS = 4
"""Of such a picture in a row: finer ones differ more."""
_AT_ONCE = 512


@dataclass(frozen=True)
class Traits:
    """What is known of all pictures: digests (n,) of their files, ``sizes`` (n, 2) in full, small ``pixels``
    (n, 3, side, side), and whether their decoder made them smaller: ``scaled`` (n,).
    """

    digests: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    scaled: NDArray[np.bool_]


def pictures(traits: Traits, whole: Callable[[list[int]], list[bytes]]) -> Indices:
    """For each picture (n,) the position of the first with the same pixels.

    Args:
        whole: digests of all pixels at full size, for some positions.
    """
    first = same(traits.digests)
    chosen = candidates(traits, np.flatnonzero(first == np.arange(len(first))))
    seen: dict[bytes, int] = {}
    for position, pixels in zip(chosen.tolist(), whole(chosen.tolist()), strict=True):
        first[position] = seen.setdefault(pixels, position)
    return first[first]


def candidates(traits: Traits, positions: Indices) -> Indices:
    """The pictures among ``positions``, of files that differ, that may be the same as another of them."""
    sizes, scaled = traits.sizes[positions], traits.scaled[positions]
    sums = [crc32(traits.pixels[position].data) for position in positions.tolist()]
    # One number for each, which is quicker; two that meet by accident are compared in full.
    keys = (np.array(sums, dtype=np.int64) << 31) ^ (sizes[:, 0] * 65537 + sizes[:, 1])
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    is_one: NDArray[np.bool_] = counts[inverse] > 1
    for size in _sizes_of_both(sizes, scaled):
        beside = np.flatnonzero((sizes == size).all(1))
        cells, is_scaled = _cells(traits.pixels, positions[beside]), scaled[beside]
        is_one[beside[is_scaled]] |= _has_near(cells[is_scaled], cells[~is_scaled])
        is_one[beside[~is_scaled]] |= _has_near(cells[~is_scaled], cells[is_scaled])
    chosen: Indices = positions[is_one]
    return chosen


def _sizes_of_both(sizes: NDArray[np.int64], scaled: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Sizes of pictures that were decoded smaller, and of others too: of one kind, the same are alike."""
    kinds = [set(map(tuple, np.unique(sizes[chosen], axis=0).tolist())) for chosen in (scaled, ~scaled)]
    return sorted(kinds[0] & kinds[1])


def _cells(pixels: NDArray[np.uint8], chosen: Indices) -> NDArray[np.float32]:
    """Means (n, 3 · CELLS²) over the cells of the chosen pictures."""
    side = pixels.shape[-1]
    cell = np.arange(side) * CELLS // side
    mean = (cell[:, None] == np.arange(CELLS)).astype(np.float32)
    mean /= mean.sum(0)
    means = np.empty((len(chosen), 3 * CELLS**2), dtype=np.float32)
    for start in range(0, len(chosen), _AT_ONCE):
        some = pixels[chosen[start : start + _AT_ONCE]].astype(np.float32)
        means[start : start + _AT_ONCE] = (mean.T @ (some @ mean)).reshape(len(some), -1)
    return means


def _has_near(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether there is one of the others near a point; no pairs are listed, however many there are."""
    from scipy.spatial import cKDTree  # a quarter of a second, which few trainings need

    distances, _ = cKDTree(others).query(points, p=np.inf, distance_upper_bound=DIFFERENCE, workers=-1)
    found: NDArray[np.bool_] = np.isfinite(distances)
    return found
