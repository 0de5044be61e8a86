"""What belongs together in one part: ``dataset.group``."""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import Images, Indices
from sweeper.words import composed, counted

LIMIT_S = 2.0
"""Seconds in which a pattern must be done with the name of an image; usual are millionths."""


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
        lacking, remedy = "no value in that column", "fill in a value of its own for each"
    else:
        found = _matched(images, dataset, chosen)
        lacking, remedy = "no name that it matches", "write a pattern for all, as (ONE|OTHER), or rename them"
    if without := [i for i, group in zip(chosen, found, strict=True) if not group]:
        has = "has" if len(without) == 1 else "have"
        reason = f"{len(without):,} of {counted(len(found), 'image')} {has} {lacking}"
        reason = f"{reason}: {name_of(images, without[0])}"
        raise _bad(dataset, reason, remedy)
    return [composed(group) for group in found if group]


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
    found: list[str | None] = []
    with _limited(dataset, found):
        for i in chosen:
            match = pattern.search(plain(images.names[i]))
            found.append(match and match[1])
    return found


@contextmanager
def _limited(dataset: schema.Dataset, found: list[str | None]) -> Iterator[None]:
    """Refuse a pattern that comes to no end with one name, as (a+)+ may: a search may not hang with it.

    Only the main thread of a process can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    n_before = -1

    def look(*_: object) -> None:
        nonlocal n_before
        if len(found) == n_before:
            reason = f"looks for a match in one name for over {LIMIT_S} s"
            remedy = r"write a simpler one, without repeats in repeats, as (patient\d+)"
            raise _bad(dataset, reason, remedy)
        n_before = len(found)

    handler = signal.signal(signal.SIGALRM, look)
    left, interval = signal.setitimer(signal.ITIMER_REAL, LIMIT_S, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)


def plain(name: str) -> str:
    """A name as it is on every system: some write é as one character, some as two."""
    return composed(name).replace("\\", "/")


def _pattern(dataset: schema.Dataset) -> re.Pattern[str]:
    of_table = "a column of the table, or " if dataset.name == "csv" else ""
    remedy = rf"""write {of_table}a pattern with one group: 'dataset.group="(patient\d+)"'"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(composed(str(dataset.group)))
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
