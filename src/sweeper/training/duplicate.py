"""Which pictures have the same pixels at full size, without decoding all of them at full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sweeper.training.dataset import Indices, same
from sweeper.training.picture import THUMB

DIFFERENCE = 8
"""The same picture as a JPEG, which was decoded smaller, and in a lossless format: means over the cells of
its thumbnail differ by at most 1 in photographs, and by at most 5 in stripes and checkerboards."""
CELLS = 4
"""Of such a thumbnail in a row: finer ones differ more."""


@dataclass(frozen=True)
class Traits:
    """What is known of all pictures: digests (n,) of their files, ``sizes`` (n, 2), ``thumbs`` (n, THUMB,
    THUMB, 3), and whether their decoder made them ``scaled`` (n,)."""

    digests: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    thumbs: NDArray[np.uint8]
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
    sizes, thumbs = traits.sizes[positions], traits.thumbs[positions].reshape(len(positions), THUMB**2 * 3)
    scaled = traits.scaled[positions]
    is_one = _is_repeated(np.concatenate([sizes.astype("<i8").view(np.uint8), thumbs], axis=1))
    for size in _sizes_of_both(sizes, scaled):
        beside = np.flatnonzero((sizes == size).all(1))
        points = _coarse(thumbs[beside])
        mine = scaled[beside]
        is_one[beside[mine]] |= _has_near(points[mine], points[~mine])
        is_one[beside[~mine]] |= _has_near(points[~mine], points[mine])
    return positions[is_one]


def _is_repeated(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a row is there twice."""
    whole = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    _, inverse, counts = np.unique(whole, return_inverse=True, return_counts=True)
    repeated: NDArray[np.bool_] = counts[inverse.reshape(-1)] > 1
    return repeated


def _sizes_of_both(sizes: NDArray[np.int64], scaled: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Sizes of pictures that were decoded smaller, and of others too: of one kind, the same are alike."""
    kinds = [set(map(tuple, np.unique(sizes[chosen], axis=0).tolist())) for chosen in (scaled, ~scaled)]
    return sorted(kinds[0] & kinds[1])


def _coarse(thumbs: NDArray[np.uint8]) -> NDArray[np.float64]:
    cell = THUMB // CELLS
    means: NDArray[np.float64] = thumbs.reshape(-1, CELLS, cell, CELLS, cell, 3).mean((2, 4))
    return means.reshape(len(thumbs), CELLS**2 * 3)


def _has_near(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether there is one of the others near a point; no pairs are listed, however many there are."""
    distances, _ = cKDTree(others).query(points, p=np.inf, distance_upper_bound=DIFFERENCE, workers=-1)
    found: NDArray[np.bool_] = np.isfinite(distances)
    return found
