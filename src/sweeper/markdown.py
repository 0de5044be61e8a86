"""Markdown of texts that come from elsewhere, in which nothing is obeyed: no link, no heading, no HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sweeper.words import one_line

_OBEYED = re.compile(r"[\\`*_{}\[\]<>()#+!|~&$]")
_LINKED = re.compile(r"https?:|www\.|@", re.IGNORECASE)
"""What becomes a link without any brackets."""

_JOINER = "\N{WORD JOINER}"
"""Nobody sees it, and it takes a pair of characters apart."""


def text(sentence: str) -> str:
    """A sentence."""
    escaped = _OBEYED.sub(lambda found: f"\\{found[0]}", one_line(sentence))
    return _LINKED.sub(lambda found: f"{found[0]}{_JOINER}", escaped)


def code(name: str) -> str:
    """A name, as it is."""
    name = one_line(name)
    ticks = _longer_ticks(name)
    space = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{ticks}{space}{name}{space}{ticks}" if name else ""


def block(lines: str, language: str = "sh") -> list[str]:
    """A command, or what a program printed, in lines of its own."""
    ticks = max(_longer_ticks(lines), "```")
    return [f"{ticks}{language}", lines, ticks, ""]


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], write: Callable[[str], str] | None = None
) -> list[str]:
    """A table, where there are rows; floats have five digits.

    Args:
        write: how texts are written: as code, if nothing else is said.
    """
    lines = [_row(_cell(cell, write or code) for cell in cells) for cells in rows]
    return [_row(map(text, head)), "|:---" * len(head) + "|", *lines, ""] if lines else []


def _cell(value: Any, write: Callable[[str], str]) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.5g}" if isinstance(value, float) else str(value)
    # Behind a backslash a bar would not be escaped by another one.
    return write(str(value)).replace("\\|", f"\\{_JOINER}|").replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _longer_ticks(within: str) -> str:
    """Backticks that nothing within can end."""
    return "`" * (max([0, *map(len, re.findall("`+", within))]) + 1)
