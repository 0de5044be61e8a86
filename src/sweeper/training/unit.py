"""What goes into one part as a whole, and its rank: a hash, which neither order nor number decides on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from posixpath import normpath

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.training.dataset import Images, Indices, digests_of
from sweeper.training.group import find_groups, numbers, plain


@dataclass(frozen=True)
class Units:
    """Images that are equal, or of one group, in units; most are a unit of their own.

    ``images`` (n,) are those that are divided, ``of`` (n,) says the unit of each, and ``sizes`` (n_units,)
    how many images a unit has. Units are numbered by rank.
    """

    images: Indices
    of: Indices
    sizes: Indices


def find_units(images: Images, dataset: schema.Dataset, chosen: Indices) -> Units:
    """The units of the chosen images.

    An image's rank is a hash of ``split_seed`` and of the value of its group; or of its name within the data;
    or, in an array, of its pixels. A unit has the lowest of its images.

    Raises:
        BadInput: on ``dataset.group``, where that does not suit the images.
    """
    groups = find_groups(images, dataset, chosen)
    digests = _digests(images, chosen)
    if groups is not None:
        texts: Iterable[bytes] = (group.encode(errors="surrogatepass") for group in groups)
    elif images.names is not None:
        names = (normpath(plain(images.names[i])) for i in chosen)
        texts = (name.encode(errors="surrogatepass") for name in names)
    else:
        texts = (int(value).to_bytes(8, "little") for value in digests)
    of = _joined(
        None if images.pictures is None else images.pictures[chosen],
        None if groups is None else numbers(groups),
        len(chosen),
    )
    ranks = _hashes(dataset.split_seed, texts)
    by_rank = of[np.lexsort((digests, ranks))]  # the digest decides between two of the same name
    units, first = np.unique(by_rank, return_index=True)
    rank = np.argsort(np.argsort(first))
    return Units(chosen, rank[of], np.bincount(rank[of], minlength=len(units)))


def _digests(images: Images, chosen: Indices) -> NDArray[np.uint64]:
    if images.digests is not None:
        return images.digests[chosen]
    if images.names is not None:  # then they are hardly needed
        return np.zeros(len(chosen), dtype=np.uint64)
    return digests_of(images.pixels[chosen])


def _hashes(seed: int, texts: Iterable[bytes]) -> NDArray[np.uint64]:
    """64 bits of the seed and each text."""
    begun = blake2b(f"{seed}\0".encode(), digest_size=8)

    def of(text: bytes) -> bytes:
        hashed = begun.copy()
        hashed.update(text)
        return hashed.digest()

    return np.frombuffer(b"".join(map(of, texts)), dtype="<u8").astype(np.uint64)


def _joined(pictures: Indices | None, groups: Indices | None, n: int) -> Indices:
    """The number of each image's unit, from 0: all that equal pictures and groups connect."""
    keys = [np.unique(key, return_inverse=True)[1] for key in (pictures, groups) if key is not None]
    if not keys:
        return np.arange(n)
    if len(keys) == 1 or n == 0:
        return keys[0].astype(np.int64)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_pictures = int(keys[0].max()) + 1
    size = n_pictures + int(keys[1].max()) + 1
    edges = coo_array((np.ones(n, dtype=np.int8), (keys[0], n_pictures + keys[1])), shape=(size, size))
    _, labels = connected_components(edges, directed=False)
    of: Indices = np.unique(labels[keys[0]], return_inverse=True)[1].astype(np.int64)
    return of
