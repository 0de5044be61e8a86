"""How numbers, texts and paths are told, and what a person means by a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.words import expanded, near
from tests.page import ROOT


def test_a_path_is_seen_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below it, as a person would type it there; elsewhere whole."""
    monkeypatch.chdir(tmp_path)
    assert near(tmp_path / "outputs" / "mine") == "outputs/mine"
    assert near(tmp_path.parent) == str(tmp_path.parent)


def test_the_home_of_nobody_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves it as it stands, too."""
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/pets") == Path("/home/me/pets")
    assert expanded("~nobody-here/pets") == Path("~nobody-here/pets")


def test_only_one_function_expands_paths() -> None:
    """That of pathlib raises for the home of nobody."""
    files = (ROOT / "src").rglob("*.py")
    assert [path.name for path in files if "expanduser" in path.read_text(encoding="utf-8")] == ["words.py"]
