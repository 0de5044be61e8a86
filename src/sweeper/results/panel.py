"""A part of the report: a heading, what is said, and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Panel:
    """What the report shows under one heading.

    ``html`` is complete: everything that comes from a study is escaped in it. The report gives figures their
    colours (dark and light), their fonts and their size; a figure sets none of these.
    """

    title: str
    html: str = ""
    figure: go.Figure | None = None
    says: str = ""
    """What the figure shows, in a sentence, for who cannot see it; plain text."""
