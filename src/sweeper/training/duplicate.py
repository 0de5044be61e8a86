"""Equal pictures: those that the data's own parts share, and copies anywhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import PART_NAMES, TO_SPLIT, TRAIN, Images, Indices, Parts
from sweeper.training.group import name_of
from sweeper.words import counted

N_EXAMPLES = 2


@dataclass(frozen=True)
class Shared:
    """The images (n,) that an other part has too, and one of each there: test's stay, then val's."""

    images: Indices
    others: Indices

    def told(self, images: Images, part: Parts) -> str:
        """How many there are, between which parts, and examples."""
        own = np.where(part == TO_SPLIT, TRAIN, part)
        pairs = [(int(own[i]), int(own[other])) for i, other in zip(self.images, self.others, strict=True)]
        where = Counter(pairs).items()
        counts = ", ".join(f"{n:,} of {PART_NAMES[a]} in {PART_NAMES[b]}" for (a, b), n in sorted(where))
        some = zip(self.images[:N_EXAMPLES], self.others[:N_EXAMPLES], strict=True)
        examples = ", ".join(f"{name_of(images, i)} = {name_of(images, other)}" for i, other in some)
        more = ", …" if len(self.images) > N_EXAMPLES else ""
        n = counted(len(self.images), "image is in another part too", "images are in another part too")
        return f"{n} ({counts}): {examples}{more}"


def find_shared(images: Images, part: Parts) -> Shared:
    """The pictures that are in several of the parts which the data define."""
    if images.pictures is None or len(np.unique(np.where(part == TO_SPLIT, TRAIN, part))) < 2:
        return Shared(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    level = np.where(part == TO_SPLIT, TRAIN, part)
    _, picture = np.unique(images.pictures, return_inverse=True)
    by_level = np.lexsort((-np.arange(len(level)), level))
    last = np.zeros(picture.max() + 1, dtype=np.int64)
    last[picture[by_level]] = by_level  # the first image of the highest level is written last
    shared = np.flatnonzero(level < level[last[picture]])
    return Shared(shared, last[picture[shared]])


def check_shared(images: Images, dataset: schema.Dataset, part: Parts, shared: Shared) -> None:
    """Raises BadInput where parts share pictures and nothing says what to do; fixed sets are as they are."""
    if dataset.duplicates == "error" and len(shared.images) and dataset.name in schema.FILES:
        remedy = "write dataset.duplicates=drop to leave them out (of train first), or keep"
        reason = shared.told(images, part)
        raise BadInput("dataset.duplicates", dataset.duplicates, reason, remedy)


def remark_shared(images: Images, dataset: schema.Dataset, part: Parts, shared: Shared) -> str | None:
    if not len(shared.images):
        return None
    told = shared.told(images, part)
    if dataset.duplicates == "drop":
        return f"dataset.duplicates=drop leaves out what is elsewhere: {told}"
    advice = "" if dataset.duplicates == "keep" else "; dataset.duplicates=drop leaves them out"
    return f"{told}{advice}"


def remark_copies(images: Images, chosen: Indices) -> str | None:
    """How many of the chosen images are copies of others, and how many of them have another label."""
    if images.pictures is None:
        return None
    _, first, inverse = np.unique(images.pictures[chosen], return_index=True, return_inverse=True)
    n_copies = len(chosen) - len(first)
    if n_copies == 0:
        return None
    told = counted(n_copies, "image is a copy of another", "images are copies of others")
    labels = images.labels[chosen]
    differs = labels != labels[first[inverse]]
    odd = np.flatnonzero(differs.any(1) if images.multi_label else differs)
    if not len(odd):
        return told
    i, other = chosen[odd[0]], chosen[first[inverse[odd[0]]]]
    pair = " = ".join(f"{name_of(images, k)} ({_label(images, k)})" for k in (other, i))
    return f"{told}, {len(odd):,} of them with another label: {pair}"


def _label(images: Images, i: int) -> str:
    if not images.multi_label:
        return images.classes[int(images.labels[i])]
    return "+".join(np.array(images.classes)[images.labels[i] == 1].tolist()) or "no label"
