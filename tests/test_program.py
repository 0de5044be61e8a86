"""Printed commands begin as the person began."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sweeper.program import program, python


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this Python and a ``sweeper`` lie, not on the PATH."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python3", "sweeper"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return folder


STARTED = [
    # sys.argv[0]                                   with the environment on the PATH   without
    ("{bin}/sweeper", "sweeper", "env/bin/sweeper"),
    ("/lib/python/sweeper/__main__.py", "python3 -m sweeper", "env/bin/python3 -m sweeper"),
    ("app.py", "sweeper", "env/bin/python3 -m sweeper"),
    ("-c", "sweeper", "env/bin/python3 -m sweeper"),
]


@pytest.mark.parametrize(("started", "active", "other"), STARTED, ids=[started for started, *_ in STARTED])
def test_a_command_begins_as_this_one_did(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, started: str, active: str, other: str
) -> None:
    """And it works in the person's shell: with a path where the PATH would find nothing."""
    monkeypatch.setattr(sys, "argv", [started.format(bin=bin_folder)])
    assert (program(), python()) == (other, "env/bin/python3")
    monkeypatch.setenv("PATH", str(bin_folder))
    assert (program(), python()) == (active, "python3")
