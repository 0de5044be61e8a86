"""What stands on a terminal."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from sweeper.screen import Bar, log_any_name


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_an_echoed_ctrl_c_begins_no_line(columns: int) -> None:
    """A terminal writes ^C behind the last line of a picture: there must be room for it."""
    console = Console(file=StringIO(), width=columns)
    (line,) = console.render_lines(Bar(Text("7/40"), 0.5, Text("done " * 40)), pad=False)
    assert sum(segment.cell_length for segment in line) == columns - 2


def test_a_name_in_the_log_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file is called, it is told in one line, and a terminal does nothing that it says."""
    handler = logging.StreamHandler(StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    log_any_name()
    log_any_name()
    logging.getLogger("sweeper.training").warning("%s, skipped: %d", "a\x1b[2Jb\nc\udcff%s", 7)
    logging.getLogger("app").warning("two\nlines of %s", "others")
    assert handler.stream.getvalue() == "a\\x1b[2Jb\\nc\\udcff%s, skipped: 7\ntwo\nlines of others\n"
