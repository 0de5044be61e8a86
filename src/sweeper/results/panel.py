"""A part of the report: a heading, what is said, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Table:
    """Numbers and texts in rows; whoever shows it formats the numbers and escapes the texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Panel:
    """What the report shows under one heading.

    ``html`` is complete: everything that comes from a study is escaped in it. The report gives figures their
    colours (dark and light), their fonts and their width; a figure sets none of these.
    """

    title: str
    html: str = ""
    figure: go.Figure | None = None
    says: str = ""
    """What the figure shows, in a sentence, for who cannot see it; plain text."""
    table: Table | None = None
    """The numbers, which are shown on demand where there is a figure, too."""
    height: int = 320
    """Of the figure, in pixels."""
    is_small: bool = False
    """Whether it may stand beside others like it."""
