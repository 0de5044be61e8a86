"""The split of the images into train, val and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import TEST, TO_SPLIT, TRAIN, VAL, Images, Indices, Parts
from sweeper.words import counted


@dataclass(frozen=True)
class Shares:
    """The fractions of the images for val and test, and the key to name in errors."""

    val: float
    test: float
    key: str
    value: object

    @property
    def wanted(self) -> list[str]:
        parts = (("train", 1.0), ("val", self.val), ("test", self.test))
        return [part for part, share in parts if share > 0]


def split(images: Images, dataset: schema.Dataset) -> tuple[Indices, Indices, Indices]:
    """The indices of train, val and test: disjoint, complete, and stratified by class.

    Parts that the data defines are kept; missing ones are drawn from its training images with ``split_seed``.
    With ``test_fraction=0`` the test part is empty unless the data has one. Images with several labels are
    stratified by the rarest label of each.

    Raises:
        BadInput: if a class has too few images for every part, or the fractions leave none for training.
    """
    part = np.full(len(images.labels), TO_SPLIT, dtype=np.int8) if images.part is None else images.part.copy()
    shares = _shares(part, dataset)
    rng = np.random.default_rng(dataset.split_seed)
    for name, members in _strata(images, part, shares):
        _divide(part, rng.permutation(members), shares, name)
    if images.multi_label:
        _check_labels(images, part, shares)
    return np.flatnonzero(part == TRAIN), np.flatnonzero(part == VAL), np.flatnonzero(part == TEST)


def remarks(
    images: Images, dataset: schema.Dataset, parts: tuple[Indices, Indices, Indices]
) -> tuple[str, ...]:
    """What a person should know of the split, a line each: shown once, before anything trains."""
    return ()


def _shares(part: Parts, dataset: schema.Dataset) -> Shares:
    val = 0.0 if VAL in part else dataset.val_fraction
    test = 0.0 if TEST in part else dataset.test_fraction
    if val + test >= 1:
        reason = f"with dataset.test_fraction={test} it leaves nothing to train on"
        raise BadInput("dataset.val_fraction", val, reason, "let both add up to less than 1")
    key = "path" if dataset.path is not None else "name"
    return Shares(val, test, f"dataset.{key}", getattr(dataset, key))


def _strata(images: Images, part: Parts, shares: Shares) -> list[tuple[str, Indices]]:
    """The groups of images to split, which are divided one by one, each with its name for errors."""
    to_split = np.flatnonzero(part == TO_SPLIT)
    if images.multi_label:
        groups = _pool(_by_rarest_label(images.labels[to_split]), len(shares.wanted))
        return [("the dataset", to_split[group]) for group in groups]
    labels = images.labels[to_split]
    groups = [np.flatnonzero(labels == label) for label in range(len(images.classes))]
    names = [f"class {name}" for name in images.classes]
    return [(name, to_split[group]) for name, group in zip(names, groups, strict=True) if len(group)]


def _by_rarest_label(labels: NDArray[Any]) -> list[Indices]:
    """The rows of labels (n, n_labels), grouped by their rarest label; rows without labels come last."""
    has = labels.astype(bool)
    counts = has.sum(0)
    rarest = np.where(has, counts, len(has) + 1).argmin(1)
    rarest[~has.any(1)] = labels.shape[1]
    groups = [np.flatnonzero(rarest == label) for label in range(labels.shape[1] + 1)]
    return [group for group in groups if len(group)]


def _pool(groups: list[Indices], least: int) -> list[Indices]:
    """The groups, with those of fewer than ``least`` members merged, and with the next smallest if needed."""
    ordered = sorted(groups, key=len)
    pooled: list[Indices] = []
    while ordered and (len(ordered[0]) < least or 0 < sum(map(len, pooled)) < least):
        pooled.append(ordered.pop(0))
    return [*([np.concatenate(pooled)] if pooled else []), *ordered]


def _divide(part: Parts, members: Indices, shares: Shares, name: str) -> None:
    n_val, n_test = _sizes(len(members), shares, name)
    part[members[:n_val]] = VAL
    part[members[n_val : n_val + n_test]] = TEST
    part[members[n_val + n_test :]] = TRAIN


def _sizes(n: int, shares: Shares, name: str) -> tuple[int, int]:
    """Sizes of val and test among ``n`` images: their share, but at least one image in every part.

    scikit-learn's stratified split may round a small class down to none.
    """
    n_parts = len(shares.wanted)
    if n < n_parts:
        reason = f"{name} has {counted(n, 'image')}, but {', '.join(shares.wanted)} need one each"
        remedy = "add images of that class or leave it out" if name.startswith("class") else "add images"
        raise BadInput(shares.key, shares.value, reason, remedy)
    n_test = min(max(1, round(n * shares.test)), n - n_parts + 1) if shares.test > 0 else 0
    n_val = min(max(1, round(n * shares.val)), n - n_test - 1) if shares.val > 0 else 0
    return n_val, n_test


def _check_labels(images: Images, part: Parts, shares: Shares) -> None:
    """Raises BadInput for a label without images in train (it would not be learnt) or val (not measured)."""
    for label, name in enumerate(images.classes):
        has = images.labels[:, label] == 1
        for wanted, number in (("train", TRAIN), ("val", VAL)):
            if not np.any(has & (part == number)):
                n = int(has.sum())
                reason = f"label {name} has {counted(n, 'image')}, and none is in {wanted}"
                remedy = "add images with it, leave the label out, or write another dataset.split_seed"
                raise BadInput(shares.key, shares.value, reason, remedy)
