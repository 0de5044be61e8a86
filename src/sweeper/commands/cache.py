"""``sweeper cache [--clear]``: what is kept on disk so that it need not be computed again."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.table import Table

from sweeper.program import program
from sweeper.training import cache
from sweeper.words import counted, disk_space


def show() -> None:
    """Print a line for each entry, and how much there may be.

    Raises:
        BadInput: where ``$SWEEPER_CACHE_GB`` is not a size.
    """
    most, entries = cache.limit(), cache.entries()
    used = sum(entry.n_bytes for entry in entries)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not entries:
        console.print(f"Nothing is kept in {cache.folder()} (at most {disk_space(most)}).")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "what", "size", "last used"):
        table.add_column(name, justify="right" if name == "size" else "left", no_wrap=name != "what")
    for entry in entries:
        day = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.kind, entry.about, disk_space(entry.n_bytes), day)
    console.print(table)
    console.print(f"{disk_space(used)} of at most {disk_space(most)} in {cache.folder()}")
    console.print(f"Remove it: {program()} cache --clear")


def clear() -> None:
    """Remove everything, and print how much room that made."""
    before, freed = len(cache.entries()), cache.clear()
    if n := before - len(cache.entries()):
        print(f"{disk_space(freed)} freed: {counted(n, 'entry', 'entries')} in {cache.folder()}")
    else:
        print(f"Nothing is kept in {cache.folder()}.")
