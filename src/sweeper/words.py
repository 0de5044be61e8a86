"""How numbers, texts and paths are told in one line, and what a person means by a path."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from unicodedata import normalize


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def whole(n: int, noun: str) -> str:
    """``the trial``, ``both trials``, ``all 3 trials``."""
    return f"the {noun}" if n == 1 else f"both {noun}s" if n == 2 else f"all {n:,} {noun}s"


def objectives(names: Sequence[str] | None, n: int) -> tuple[str, ...]:
    """What the scores are called: ``value``, or ``value_0``, ``value_1``, where the app does not say."""
    if names and len(names) == n:
        return tuple(names)
    return ("value",) if n == 1 else tuple(f"value_{i}" for i in range(n))


def some(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def composed(text: str) -> str:
    """With each letter and its accents in one character (NFC), whichever way a system has written them."""
    return normalize("NFC", text)


def disk_space(n_bytes: float) -> str:
    """``1.5 MB``, ``2.0 GB``."""
    return f"{n_bytes / 10**9:,.1f} GB" if n_bytes >= 10**9 else f"{n_bytes / 10**6:,.1f} MB"


def measured(value: float, half: float | None) -> str:
    """``0.974 ± 0.004``, with as many digits as its interval gives reason for; None is an unknown one."""
    if half is None:
        return f"{value:.3f}"
    n = digits(half)
    return f"{value:.{n}f} ± {half:.{n}f}"


def digits(half: float | None) -> int:
    """How many stand behind the point of a value whose 95 % interval is so wide on each side."""
    return 3 if half is None or not half > 0 else min(8, max(3, -math.floor(math.log10(half))))


def number(value: float) -> str:
    """Five digits behind the point, so that values can stand below each other, and few of very small ones."""
    return f"{value:.5f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4e}"


def clock(seconds: float) -> str:
    """``0:01:33``."""
    return str(timedelta(seconds=round(seconds)))


def one_line(text: str) -> str:
    """Without what would begin another line or move the cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def argument(key: str, text: str) -> str:
    """``key=text`` as it is typed in a shell."""
    return shlex.quote(f"{key}={text}")


def near(path: Path) -> str:
    """A path as seen from the working directory, where it lies below that."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def expanded(path: str) -> Path:
    """The path that a person means: ``~`` is the home folder, ``~pets`` a folder if nobody is so called."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown user
