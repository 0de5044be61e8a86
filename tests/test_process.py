"""How a worker's process ended."""

from __future__ import annotations

import pytest

from sweeper.search import process


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [(-9, "SIGKILL (out of memory, or kill -9)"), (-11, "SIGSEGV"), (3, "exit code 3")],
)
def test_how_a_worker_ended(exitcode: int, words: str) -> None:
    """A signal by its name, with what it usually means."""
    assert words in process.ending(exitcode)
