"""The pages of ``docs/``, and the scripts beside them that write some."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``docs/NAME.py`` as a module; what it imports from beside it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def pages() -> list[Path]:
    """README.md, the other pages at the top, and those of docs/ and examples/."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    made: set[str] = set()
    for title in re.findall(r"^#+ +(.+)$", without_code(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title).strip().lower()
        slug = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))
        made.add(next(s for s in (slug, *(f"{slug}-{n}" for n in range(1, 999))) if s not in made))
    return made


def without_code(path: Path) -> str:
    """The page's text without fenced blocks."""
    return re.sub(r"^ *(```+)[^\n]*\n.*?^ *\1 *$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
