"""What stands on a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from sweeper.screen import Bar


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_an_echoed_ctrl_c_begins_no_line(columns: int) -> None:
    """A terminal writes ^C behind the last line of a picture: there must be room for it."""
    console = Console(file=StringIO(), width=columns)
    (line,) = console.render_lines(Bar(Text("7/40"), 0.5, Text("done " * 40)), pad=False)
    assert sum(segment.cell_length for segment in line) == columns - 2
