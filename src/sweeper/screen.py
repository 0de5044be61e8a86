"""What a terminal can show: one line for one thing, however narrow it is; plain lines where there is none."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from sweeper.errors import visible

_BAR = 10, 40
"""The fewest and the most columns of a bar."""

_ECHO = 2
"""Columns that stay free behind it: a terminal writes ^C there, and must not begin another line."""


_LABEL = 11
"""Columns of a name in front of what is said of it."""


class Screen(Console):
    """Standard output. A terminal is as wide as it is now, whatever ``COLUMNS`` or ``TERM=dumb`` say."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # an old terminal shows ? for what it does not know
            sys.stdout.reconfigure(errors="replace")
        # Not rich's own idea of a terminal: FORCE_COLOR would draw bars into a file.
        super().__init__(force_terminal=sys.stdout.isatty(), highlight=False, markup=False, emoji=False)

    @property
    def is_live(self) -> bool:
        """Whether a line can be painted over."""
        return self.is_terminal and not self.is_dumb_terminal

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        try:
            columns, lines = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):  # it is no terminal, or no file at all
            columns = lines = 0
        return ConsoleDimensions(columns, lines) if columns and lines else super().size

    def tell(self, lines: Iterable[str]) -> None:
        """Lines that are shown whole, wherever the terminal breaks them."""
        for line in lines:
            print(line, flush=True)

    def wrap(self, text: Text, indent: int = 0, first: str = "") -> None:
        """A text, wrapped to the terminal between words; whole where there is none.

        Args:
            indent: columns before each line.
            first: what stands there in the first one.
        """
        width = max(20, self.width - indent)
        lines = text.wrap(self, width) if self.is_terminal else [text]
        for number, line in enumerate(lines):
            before = " " * indent if number else f"{first:{indent}}"
            if self.is_terminal:
                line.rstrip()
                self.print(Text(before) + line, no_wrap=True, overflow="ignore", crop=False)
            else:
                self.tell([before + line.plain])

    def label(self, name: str, lines: Iterable[str]) -> None:
        """Lines, each wrapped, in a column behind a name."""
        first = f"{name}:"
        for line in lines:
            self.wrap(Text(line), indent=_LABEL, first=first)
            first = ""

    def say(self, text: Text) -> None:
        """One line on a terminal; the whole text elsewhere."""
        if self.is_terminal:
            self.print(text, no_wrap=True, overflow="ellipsis")
        else:
            print(text.plain.rstrip(), flush=True)


@contextmanager
def whoever_reads() -> Iterator[None]:
    """A stretch that only says something: where nobody reads it any more, the rest of it is left out, and the
    process says nothing from then on. What it does besides goes on.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # a file of its own: not one of the standard streams
            raise
        fall_silent((1, 2))


def fall_silent(streams: Iterable[int]) -> None:
    """Let standard streams, by their numbers, lead nowhere: writing where nobody reads fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def log_any_name() -> None:
    """Let the log hold names that its encoding lacks, or that would move a cursor, as Python writes them."""
    for handler in logging.getLogger().handlers:
        if _let_be_seen not in handler.filters:
            handler.addFilter(_let_be_seen)
        stream = getattr(handler, "stream", None)
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")


def _let_be_seen(record: logging.LogRecord) -> bool:
    if record.name.partition(".")[0] == "sweeper":  # what an app logs is the app's
        if isinstance(record.args, tuple):
            record.args = tuple(visible(a) if isinstance(a, str) else a for a in record.args)
        record.msg, record.args = "\n".join(map(visible, record.getMessage().split("\n"))), ()
    return True


class Bar:
    """A line with a bar in it: what stands before it is shown first, then the bar, then what fits behind it.

    Args:
        done: the part that is done, 0 … 1; None leaves the bar out.
        width: columns of the bar; None takes what the texts leave.
    """

    def __init__(self, before: Text, done: float | None, behind: Text, width: int | None = None) -> None:
        self._before, self._done, self._behind, self._width = before, done, behind, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(1, options.max_width - _ECHO)
        line = Text.assemble(self._before, "  ", *self._bar(columns), self._behind)
        line.truncate(columns, overflow="ellipsis")
        line.no_wrap = True
        yield line

    def _bar(self, columns: int) -> Iterator[str | tuple[str, str]]:
        """Two characters, not two colours alone: a terminal may have none."""
        if self._done is None:
            return
        low, high = _BAR
        free = columns - self._before.cell_len - self._behind.cell_len - 4
        width = self._width or max(low, min(high, free))
        n_done = int(width * min(1.0, self._done))
        yield "━" * n_done, "green"
        yield "─" * (width - n_done), "dim"
        yield "  "


@contextmanager
def live(screen: Screen, picture: Callable[[], RenderableType], by_itself: bool) -> Iterator[Live]:
    """Keep a picture below all that is printed meanwhile; nothing of it stays.

    Args:
        by_itself: whether a thread paints it anew, four times a second; else ``refresh`` does.
    """
    shown = Live(console=screen, get_renderable=picture, transient=True, auto_refresh=by_itself)
    with shown, _logs_above():
        yield shown


@contextmanager
def _logs_above() -> Iterator[None]:
    """Log lines go where printed ones go: their handlers hold the streams that the picture is painted on."""
    streams = {sys.__stdout__: sys.stdout, sys.__stderr__: sys.stderr}
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    before = [(handler, handler.stream) for handler in handlers if handler.stream in streams]
    for handler, stream in before:
        handler.setStream(streams[stream])
    try:
        yield
    finally:
        for handler, stream in before:
            handler.setStream(stream)
