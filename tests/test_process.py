"""How a worker's process ended."""

from __future__ import annotations

from contextlib import closing

import pytest

from sweeper.search import process


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [(-9, "SIGKILL (out of memory, or kill -9)"), (-11, "SIGSEGV"), (3, "exit code 3")],
)
def test_how_a_worker_ended(exitcode: int, words: str) -> None:
    """A signal by its name, with what it usually means."""
    assert words in process.ending(exitcode)


@pytest.mark.parametrize("is_forked", [True, False])
def test_a_worker_leaves_its_last_words(is_forked: bool) -> None:
    """The pool reads them once, whatever characters a path has in them, and however long they are."""
    with closing(process.Board(2, is_forked)) as board:
        board.say(1, "outputs/\udcff: " + "é" * 2000)
        assert board.take(0) == ""
        said = board.take(1)
        assert said.startswith("outputs/?: é")
        assert len(said.encode()) <= 2000
        assert board.take(1) == ""
