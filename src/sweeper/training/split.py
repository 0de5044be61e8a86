"""The split into train, val and test: by a hash of each image's name, so that it belongs to the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import PART_NAMES, TEST, TO_SPLIT, TRAIN, VAL, Images, Indices, Parts
from sweeper.training.duplicate import (
    check_shared,
    find_shared,
    remark_copies,
    remark_shared,
)
from sweeper.training.group import check_groups, find_groups
from sweeper.training.unit import Units, find_units
from sweeper.words import counted, some

DROPPED = -2
N_NAMED = 5
FAR = 0.05
"""From here on, a share of the images is told that groups have made another one than asked for."""


@dataclass(frozen=True)
class Shares:
    """The fractions of the images for val and test; of folds, ``val`` is one of so many of the rest."""

    val: float
    test: float
    n_folds: int | None = None
    fold: int = 0


def split(images: Images, dataset: schema.Dataset) -> tuple[Indices, Indices, Indices]:
    """The indices of train, val and test: disjoint, and stratified by class.

    Parts that the data define are kept, but for pictures that ``dataset.duplicates=drop`` leaves out; missing
    parts are drawn from its training images. With ``test_fraction=0`` the test part is empty unless the data
    have one.

    Each class is ranked by a hash (see ``unit``): first by rank are test, next val, the rest train. So the
    order of the images decides nothing, and one that comes or goes moves at most one other across each
    border. Equal pictures and groups stay together, and move together.

    Images with several labels are stratified by the rarest label of each. Their order decides nothing either,
    but which label is rarest depends on the counts: where one image more makes two labels change places,
    those that have both are ranked among others, and more may move.

    Raises:
        BadInput: if the parts of the data share pictures or groups, a class has no image to train on, or
            nothing is left for val.
    """
    part = _own_parts(images)
    shared = find_shared(images, part)
    check_shared(images, dataset, part, shared)
    if dataset.duplicates == "drop":
        part[shared.images] = DROPPED
    shares = _shares(part, dataset)
    _check_own_groups(images, dataset, part)
    units = find_units(images, dataset, np.flatnonzero(part == TO_SPLIT))
    _check_several_groups(dataset, units)
    of_unit = np.full(len(units.sizes), TRAIN, dtype=np.int8)
    for stratum in _strata(images, units):
        of_unit[stratum] = _divide(units.sizes[stratum], shares)
    part[units.images] = of_unit[units.of]
    _check_train(images, dataset, part)
    _check_val(dataset, part, units)
    return np.flatnonzero(part == TRAIN), np.flatnonzero(part == VAL), np.flatnonzero(part == TEST)


def remarks(
    images: Images, dataset: schema.Dataset, parts: tuple[Indices, Indices, Indices]
) -> tuple[str, ...]:
    """What a person should know of the split, a line each: shown once, before anything trains."""
    own = _own_parts(images)
    found = [
        *_remarks_of_classes(images, parts),
        _remark_of_no_test(dataset, own, parts[2]),
        remark_shared(images, dataset, own, find_shared(images, own)),
        remark_copies(images, np.sort(np.concatenate(parts))),
        *_remarks_of_groups(images, dataset, own, parts),
        *_remarks_of_folds(images, dataset, parts),
    ]
    return tuple(remark for remark in found if remark is not None)


# --------------------------------------------------------------------------------------- what is asked for


def _own_parts(images: Images) -> Parts:
    if images.part is None:
        return np.full(len(images.labels), TO_SPLIT, dtype=np.int8)
    return images.part.copy()


def _shares(part: Parts, dataset: schema.Dataset) -> Shares:
    test = 0.0 if TEST in part else dataset.test_fraction
    if (n_folds := dataset.n_folds) is not None:
        if VAL in part:
            remedy = "leave it out, or call that part train"
            raise BadInput("dataset.n_folds", n_folds, "the data have a val part of their own", remedy)
        if dataset.fold >= n_folds:
            reason = f"dataset.n_folds={n_folds} makes the folds 0 … {n_folds - 1}"
            raise BadInput("dataset.fold", dataset.fold, reason, "write one of them")
        return Shares((1 - test) / n_folds, test, n_folds, dataset.fold)
    val = 0.0 if VAL in part else dataset.val_fraction
    if val + test >= 1:
        reason = f"with dataset.test_fraction={test} it leaves nothing to train on"
        raise BadInput("dataset.val_fraction", val, reason, "let both add up to less than 1")
    return Shares(val, test)


def _bad_data(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    key = "path" if dataset.path is not None else "name"
    return BadInput(f"dataset.{key}", getattr(dataset, key), reason, remedy)


# ---------------------------------------------------------------------------------------------- dividing


def _strata(images: Images, units: Units) -> list[Indices]:
    """The units (by rank) of each class: those of which most images are of it."""
    labels = images.labels[units.images]
    of_unit = _most_frequent(_rarest(labels) if images.multi_label else labels.astype(np.int64), units.of)
    by_label = np.argsort(of_unit, kind="stable")
    return np.split(by_label, np.flatnonzero(np.diff(of_unit[by_label])) + 1) if len(by_label) else []


def _rarest(labels: NDArray[np.integer]) -> Indices:
    """The rarest label of each row of labels (n, n_labels); ``n_labels`` for rows without any."""
    has = labels.astype(bool)
    counts = has.sum(0)
    rarest: Indices = np.where(has, counts, len(has) + 1).argmin(1).astype(np.int64)
    rarest[~has.any(1)] = labels.shape[1]
    return rarest


def _most_frequent(label: Indices, unit: Indices) -> Indices:
    """The label that most images of each unit have; of several the one that fewer images have in all."""
    n_labels = int(label.max(initial=0)) + 1
    pairs, counts = np.unique(unit * n_labels + label, return_counts=True)
    units, labels = np.divmod(pairs, n_labels)
    order = np.lexsort((labels, np.bincount(label, minlength=n_labels)[labels], -counts, units))
    _, first = np.unique(units[order], return_index=True)
    found: Indices = labels[order[first]]
    return found


def _divide(sizes: Indices, shares: Shares) -> Parts:
    """The part (n,) of each unit of a stratum, by rank: the one in which its middle lies.

    Each part has a unit where there are enough, train before val before test. A unit that is larger than val
    and test together is taken last, as if its rank were so.
    """
    n, n_units = int(sizes.sum()), len(sizes)
    ends = round(n * shares.test), round(n * (shares.test + shares.val))
    order = np.argsort(sizes > max(1, ends[1]), kind="stable")
    ordered = sizes[order]
    twice_middle = 2 * np.cumsum(ordered) - ordered
    n_test, n_held_out = (int(np.count_nonzero(twice_middle < 2 * end)) for end in ends)
    has_val, has_test = int(shares.val > 0), int(shares.test > 0)
    n_test = min(max(has_test, n_test), max(n_units - 1 - has_val, 0)) if has_test else 0
    n_held_out = min(max(n_test + has_val, n_held_out), max(n_units - 1, 0)) if has_val else n_test
    found = np.full(n_units, TRAIN, dtype=np.int8)
    found[order[:n_test]] = TEST
    if shares.n_folds is None:
        found[order[n_test:n_held_out]] = VAL
    else:
        rest = order[n_test:]
        found[rest[_folds(sizes[rest], shares.n_folds) == shares.fold]] = VAL
    return found


def _folds(sizes: Indices, n_folds: int) -> Indices:
    """The fold (n,) of each unit: the one of equal stretches in which its middle lies.

    A single unit is in none, as each fold needs something to train on.
    """
    if len(sizes) < 2:
        return np.full(len(sizes), -1, dtype=np.int64)
    twice_middle = 2 * np.cumsum(sizes) - sizes
    return twice_middle * n_folds // (2 * int(sizes.sum()))


# -------------------------------------------------------------------------------------------- what is left


def _counts(images: Images, chosen: Indices | slice = slice(None)) -> Indices:
    """How many of the chosen images each class has."""
    labels = images.labels[chosen]
    if images.multi_label:
        counts: Indices = labels.sum(0, dtype=np.int64)
        return counts
    return np.bincount(labels, minlength=len(images.classes))


def _check_own_groups(images: Images, dataset: schema.Dataset, part: Parts) -> None:
    """Raises BadInput where parts of the data share a group."""
    own = np.where(part == TO_SPLIT, TRAIN, part)
    parts = [(name, np.flatnonzero(own == number)) for number, name in enumerate(PART_NAMES)]
    if dataset.group is not None and np.count_nonzero([len(chosen) for _, chosen in parts]) > 1:
        check_groups(images, dataset, parts)


def _check_several_groups(dataset: schema.Dataset, units: Units) -> None:
    if dataset.group is not None and len(units.sizes) == 1 < len(units.images):
        reason = f"all {len(units.images):,} images are in one group, which cannot be split"
        raise BadInput("dataset.group", dataset.group, reason, "write one that tells them apart")


def _check_train(images: Images, dataset: schema.Dataset, part: Parts) -> None:
    """Raises BadInput for a class without images in train, which would not be learnt."""
    lacking = np.flatnonzero(_counts(images, np.flatnonzero(part == TRAIN)) == 0)
    if not len(lacking):
        return
    label, kind = int(lacking[0]), "label" if images.multi_label else "class"
    n = _counts(images)[label]
    n_dropped = _counts(images, np.flatnonzero(part == DROPPED))[label]
    dropped = f" ({n_dropped:,} left out by dataset.duplicates=drop)" if n_dropped else ""
    reason = f"{kind} {images.classes[label]} has {counted(n, 'image')}{dropped}, and none is in train"
    to_split = np.flatnonzero(_own_parts(images) == TO_SPLIT)
    again = ", or write another dataset.split_seed" if _counts(images, to_split)[label] > n_dropped else ""
    raise _bad_data(dataset, reason, f"add images of it to train, leave the {kind} out{again}")


def _check_val(dataset: schema.Dataset, part: Parts, units: Units) -> None:
    """Raises BadInput where nothing is left to validate with."""
    if VAL in part:
        return
    what = counted(len(part), "image")
    if n_dropped := int(np.count_nonzero(part == DROPPED)):
        what = f"{what} ({n_dropped:,} left out by dataset.duplicates=drop)"
    if len(units.sizes) < len(units.images):
        what = f"{what} ({len(units.sizes):,} apart: equal ones stay together, as groups do)"
    if dataset.n_folds is not None:
        reason = f"of {what} none is in this fold"
        raise BadInput("dataset.fold", dataset.fold, reason, "write a smaller dataset.n_folds")
    raise _bad_data(dataset, f"of {what} none is left for val", "add images")


def _remarks_of_classes(images: Images, parts: tuple[Indices, Indices, Indices]) -> Iterator[str]:
    """The classes that are not measured, as val or test has no image of them."""
    kind = ("label", "labels") if images.multi_label else ("class", "classes")
    for name, chosen in (("val", parts[1]), ("test", parts[2])):
        lacking = [images.classes[label] for label in np.flatnonzero(_counts(images, chosen) == 0)]
        if lacking and len(chosen):
            named = f"{kind[len(lacking) > 1]} {some(lacking, N_NAMED)}"
            yield f"no image of {named} is in {name}: it is measured on the others"


def _remark_of_no_test(dataset: schema.Dataset, own: Parts, test: Indices) -> str | None:
    if len(test) or not (dataset.test_fraction or TEST in own):
        return None
    return "no image is left for test: nothing is tested"


def _remarks_of_groups(
    images: Images, dataset: schema.Dataset, own: Parts, parts: tuple[Indices, Indices, Indices]
) -> Iterator[str]:
    to_split = np.flatnonzero(own == TO_SPLIT)
    if dataset.group is None or not len(to_split):
        return
    groups = find_groups(images, dataset, to_split) or []
    if len(set(groups)) == len(groups):
        yield f"dataset.group={dataset.group} has no effect: each image is a group of its own"
    shares = _shares(own, dataset)
    wanted = {"val": shares.val, "test": shares.test}
    got = {"val": len(parts[1]) / len(to_split), "test": len(parts[2]) / len(to_split)}
    far = [
        f"{got[name]:.0%} {name} instead of {share:.0%}"
        for name, share in wanted.items()
        if share > 0 and abs(got[name] - share) > FAR
    ]
    if far:
        yield f"groups are large for the parts asked for: {', '.join(far)}"


def _remarks_of_folds(
    images: Images, dataset: schema.Dataset, parts: tuple[Indices, Indices, Indices]
) -> Iterator[str]:
    if dataset.n_folds is None:
        if dataset.fold:
            yield f"dataset.fold={dataset.fold} has no effect: dataset.n_folds is null"
        return
    if dataset.val_fraction != schema.Dataset.val_fraction:
        yield f"dataset.val_fraction={dataset.val_fraction} has no effect with dataset.n_folds"
    counts = _counts(images, np.concatenate(parts[:2]))
    least = int(np.argmin(counts))
    if counts[least] < dataset.n_folds:
        has = counted(counts[least], "image")
        yield f"{images.classes[least]} has {has} for {dataset.n_folds} folds: some have none in val"
