"""What belongs together in one part: ``dataset.group``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from unicodedata import normalize

import numpy as np

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import Images, Indices
from sweeper.words import counted


def name_of(images: Images, i: int) -> str:
    """How an image is called where a person reads it."""
    return images.names[i] if images.names is not None else f"image {i:,}"


def find_groups(images: Images, dataset: schema.Dataset, chosen: Indices) -> list[str] | None:
    """The group of each chosen image; None where ``dataset.group`` is null.

    Raises:
        BadInput: on ``dataset.group``, where an image has none.
    """
    if dataset.group is None:
        return None
    if images.groups is not None:
        found: list[str | None] = [images.groups[i] for i in chosen]
        lacking = "no value in that column"
    else:
        found, lacking = _matched(images, dataset, chosen), "nothing in their names that it matches"
    if without := [i for i, group in zip(chosen, found, strict=True) if not group]:
        reason = f"{counted(len(without), 'image')} of {len(found):,} have {lacking}"
        reason = f"{reason}: {name_of(images, without[0])}"
        raise _bad(dataset, reason, "let each image have one")
    return [normalize("NFC", group) for group in found if group]


def check_groups(images: Images, dataset: schema.Dataset, parts: Sequence[tuple[str, Indices]]) -> None:
    """Raises BadInput where parts that the data define share a group."""
    found: dict[str, list[str]] = {}
    for name, chosen in parts:
        for group in sorted(set(find_groups(images, dataset, chosen) or [])):
            found.setdefault(group, []).append(name)
    shared = [f"{group} in {' and '.join(names)}" for group, names in found.items() if len(names) > 1]
    if shared:
        more = ", …" if len(shared) > 3 else ""
        what = "1 group is" if len(shared) == 1 else f"{len(shared):,} groups are"
        reason = f"{what} in several parts of the data: {', '.join(shared[:3])}{more}"
        raise _bad(dataset, reason, "give each group to one part, or leave dataset.group out")


def _matched(images: Images, dataset: schema.Dataset, chosen: Indices) -> list[str | None]:
    """What the pattern's one group finds in each image's name."""
    pattern = _pattern(dataset)
    if images.names is None:
        remedy = "leave it out: it is for image files"
        raise _bad(dataset, f"the images of {dataset.name} have no names", remedy)
    matches = (pattern.search(plain(images.names[i])) for i in chosen)
    return [match and match[1] for match in matches]


def plain(name: str) -> str:
    """A name as it is on every system: some write é as one character, some as two."""
    return normalize("NFC", name).replace("\\", "/")


def _pattern(dataset: schema.Dataset) -> re.Pattern[str]:
    of_table = "a column of the table, or " if dataset.name == "csv" else ""
    remedy = rf"""write {of_table}a pattern with one group: 'dataset.group="(patient\d+)"'"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(normalize("NFC", str(dataset.group)))
    except (re.error, OverflowError, RecursionError) as error:
        raise _bad(dataset, f"is no regular expression: {error}", remedy) from error
    if pattern.groups != 1:
        has = "no group" if pattern.groups == 0 else f"{pattern.groups} groups"
        more = "; (?:…) groups without counting" if pattern.groups > 1 else ""
        raise _bad(dataset, f"as a pattern it has {has}", remedy + more)
    return pattern


def _bad(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return BadInput("dataset.group", dataset.group, reason, remedy)


def numbers(values: Sequence[str]) -> Indices:
    """Equal numbers (n,) for equal values."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)
