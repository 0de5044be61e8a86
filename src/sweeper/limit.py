"""What the value of a key may be, and what is said of one that it may not be.

Every number has two ends: what lies beyond the upper one is a slip of the finger, and would end in the middle
of a search, without memory or with a network that computes infinities.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeper.errors import BadInput, one_of

MAX_SEED = 2**32 - 1
MAX_STEPS = 10**12
MAX_EPOCHS = 10**6
MAX_FOLDS = 1000
MAX_AGAIN = 10**6
"""Of trials that are trained again, and of how often each is."""
MAX_PART_BYTES = 255
"""Of one name in a path: what file systems keep."""
MAX_PATH_BYTES = 3072
"""Of a whole path: Linux takes 4096, and the search's own names come behind it."""
MAX_NAME_CHARACTERS = 512
"""Of a study's name: what Optuna's tables have room for."""


@dataclass(frozen=True)
class Limit:
    """A condition on a value, with the reason and the remedy for an error."""

    fault: Callable[[Any], str | None]
    """Why a value cannot be, or None if it can."""
    remedy: str
    names: tuple[str, ...] = ()
    """Where there are only these: the nearest of them is named first."""
    admits: str = ""
    """What it may be, in words for the page of all keys."""

    def holds(self, value: Any) -> bool:
        return self.fault(value) is None

    def check(self, key: str, value: Any) -> None:
        """Raises BadInput, naming the key, for a value that cannot be."""
        if (reason := self.fault(value)) is not None:
            remedy = one_of(str(value), self.names) if self.names else self.remedy
            raise BadInput(key, value, reason, remedy)


def number(
    low: float,
    high: float,
    remedy: str,
    why: str = "",
    above: bool = False,
    below: bool = False,
    whole: bool = False,
) -> Limit:
    """A finite number between two ends.

    Args:
        why: why there can be no larger one.
        above: whether ``low`` itself is too small.
        below: whether ``high`` itself is too large.
        whole: whether it has no fraction.
    """
    because = f": {why}" if why else ""

    def fault(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            return "must be a whole number" if whole else "must be a number"
        if not math.isfinite(value):
            return f"must be {_at_least(low, above)} and finite"
        if value < low or (above and value == low):
            return f"must be {_at_least(low, above)}"
        if value > high or (below and value == high):
            return f"must be {'below' if below else 'at most'} {_shown(high)}{because}"
        return None

    return Limit(fault, remedy, admits=_span(low, high, above, below))


def whole(low: int, high: int, remedy: str, why: str = "") -> Limit:
    """A number without a fraction, both ends included."""
    return number(low, high, remedy, why, whole=True)


def within(low: float, high: float, remedy: str) -> Limit:
    """A number in a range that everybody knows, both ends included: the error names both."""
    return Limit(
        lambda v: (
            None
            if _is_number(v) and low <= v <= high
            else f"must be between {_shown(low)} and {_shown(high)}"
        ),
        remedy,
        admits=_span(low, high),
    )


def between(low: float, high: float, remedy: str) -> Limit:
    """A number in such a range, both ends excluded."""
    return Limit(
        lambda v: (
            None if _is_number(v) and low < v < high else f"must be between {_shown(low)} and {_shown(high)}"
        ),
        remedy,
        admits=_span(low, high, above=True, below=True),
    )


def fraction(remedy: str) -> Limit:
    """A part of a whole, and never the whole."""
    return Limit(
        lambda v: None if _is_number(v) and 0 <= v < 1 else "must be at least 0 and below 1",
        remedy,
        admits=_span(0, 1, below=True),
    )


def pair(low: float, high: float, remedy: str) -> Limit:
    """Two numbers in growing order, the ends of a range from which something is drawn."""
    reason = f"must be two numbers in growing order, at least {_shown(low)} and at most {_shown(high)}"
    return Limit(
        lambda v: None if len(v) == 2 and all(map(_is_number, v)) and low <= v[0] <= v[1] <= high else reason,
        remedy,
        admits=f"two numbers in growing order, {_span(low, high)}",
    )


def numbers(n_least: int, n_most: int, high: int, remedy: str) -> Limit:
    """A list of whole numbers from 1 on."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, list) or not all(isinstance(n, int) and n >= 1 for n in value):
            return "must be a list of numbers, each at least 1"
        if len(value) < n_least:
            return "must be a list of numbers, each at least 1"
        if len(value) > n_most:
            return f"has {len(value):,} numbers, and may have {n_most} at most"
        if value and max(value) > high:
            return f"has {max(value):,} in it, and {_shown(high)} is the largest"
        return None

    return Limit(fault, remedy, admits=f"{n_least} … {n_most} numbers, {_span(1, high)} each")


def option(*names: str) -> Limit:
    """One of these names."""
    return Limit(
        lambda v: None if v in names else "there is no such option",
        f"write one of {', '.join(names)}",
        names,
        admits=", ".join(f"`{name}`" for name in names),
    )


def switch() -> Limit:
    """On or off."""
    return Limit(
        lambda v: None if isinstance(v, bool) else "is neither true nor false",
        "write true or false",
        admits="`true`, `false`",
    )


def string(remedy: str) -> Limit:
    """Any text."""
    return Limit(lambda v: None if isinstance(v, str) else "must be a text", remedy, admits="any text")


def text(remedy: str) -> Limit:
    """A name or a path: not empty, and such that the file system takes it."""
    return Limit(
        lambda v: path_fault(v) if isinstance(v, str) else "must be a text",
        remedy,
        admits="a text that is not empty",
    )


def part(remedy: str) -> Limit:
    """The name of one file or folder, without a path."""

    def fault(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a text"
        is_path = "/" in value or value in (".", "..")
        return "names a folder elsewhere" if is_path else path_fault(value)

    return Limit(fault, remedy, admits="the name of a file or folder")


def or_null(limit: Limit) -> Limit:
    """The same, or nothing at all."""
    return replace(
        limit, fault=lambda v: None if v is None else limit.fault(v), admits=f"{limit.admits}, or `null`"
    )


def or_word(word: str, limit: Limit) -> Limit:
    """The same, or a word that means something else."""
    return Limit(
        lambda v: None if v == word else limit.fault(v), limit.remedy, admits=f"`{word}`, or {limit.admits}"
    )


def mapping(remedy: str) -> Limit:
    """Values by their names."""
    return Limit(
        lambda v: None if isinstance(v, Mapping) else "must hold values by their names",
        remedy,
        admits="values by their names",
    )


def path_fault(path: str) -> str | None:
    """Why the file system would not take a path, whatever is there; None if it would."""
    if not path.strip():
        return "is empty"
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in path):
        return "contains an invisible character"
    try:
        n_bytes = max(len(os.fsencode(part)) for part in path.split("/"))
    except UnicodeError:
        return "contains a character that cannot be in a file name"
    if n_bytes > MAX_PART_BYTES:
        return f"has a name of {n_bytes:,} bytes in it, and {MAX_PART_BYTES} is the most for a file"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES:,} bytes"
    return None


def study_name_fault(name: str) -> str | None:
    """Why a study cannot have this name, or None: it names a folder below ``outputs/``."""
    if not name:
        return "the name of a study is a folder below outputs/, and this one is empty"
    if any(part.strip() in ("", ".", "..") for part in name.split("/")):
        return "the name of a study is a folder below outputs/"
    if name.startswith("-"):
        return "begins as an option does, so that no command could name it"
    if any(unicodedata.category(c) == "Cs" for c in name):
        return "contains a character that is not text"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    return path_fault(name)


def check_study_name(name: str | None, key: str = "study") -> None:
    """Raises BadInput for a name that no study can have."""
    if (reason := study_name_fault(name or "")) is not None:
        remedy = "write a name, or leave it out: then it is date and time"
        raise BadInput(key, name, reason, remedy)


def _at_least(low: float, above: bool) -> str:
    return f"greater than {_shown(low)}" if above else f"at least {_shown(low)}"


def _span(low: float, high: float, above: bool = False, below: bool = False) -> str:
    """``0 … 1``; an end that is excluded is said to be."""
    span = f"{_shown(low)} … {_shown(high)}"
    excluded = [_shown(end) for end, is_out in ((low, above), (high, below)) if is_out]
    return f"{span} without {' and '.join(excluded)}" if excluded else span


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(end: float) -> str:
    return f"{end:,}" if isinstance(end, int) and end > 9999 else f"{end:g}"


SEED = whole(0, MAX_SEED, "write 0, another whole number above it, or null", "numpy takes no larger seed")
