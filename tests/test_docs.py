"""The pages are current, complete, and lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sweeper
from tests.page import DOCS, ROOT, pages, script, slugs, without_code
from tests.program import run


@pytest.mark.parametrize("name", ["keys", "commands", "signs"])
def test_a_made_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python docs/NAME.py`` was run after the last change of what it tells."""
    made = script(name, monkeypatch).page()
    assert made == (DOCS / f"{name}.md").read_text(encoding="utf-8"), f"run python docs/{name}.py"


def test_every_key_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of a run or of the search is without words, and hardly one without its limits."""
    keys = script("keys", monkeypatch)
    every = [*keys.run_keys(), *keys.search_keys()]
    assert len(every) > 100
    assert [key.name for key in every if not key.words] == []
    assert [key.name for key in every if not hasattr(key, "default")] == []
    unlimited = {key.name for key in every if not key.admits and key.type != "`true` or `false`"}
    # What these may be stands in their words.
    assert unlimited == {
        *("study", "dataset.normalization", "model.arguments", "loss.class_weights", "loss.pos_weight"),
        *("direction", "metric_names", "search_space"),
    }


def test_every_range_says_who_recommends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each range under ``hydra.sweeper.params`` in ``conf/`` ends in ``# source: …``."""
    option = script("option", monkeypatch)
    ranges = [(str(each), key, found) for each in option.options() for key, found in each.ranges.items()]
    assert len(ranges) > 20
    assert [(who, key) for who, key, found in ranges if not found.source] == []


def test_the_page_about_python_has_every_public_name() -> None:
    """What ``sweeper`` offers stands in the page made from its docstrings, and nothing else does."""
    told = re.findall(r"^::: sweeper\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert set(told) == set(sweeper.__all__) - {"__version__"}


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_within_the_repository_leads_somewhere(path: Path) -> None:
    """Files and headings that a page links to are there; what it says of the network is not looked at."""
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and target.suffix == ".md" and anchor not in slugs(target)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_navigation() -> None:
    """Each page of docs/ stands in mkdocs.yml once, and each that stands there is there."""
    listed = re.findall(r"^ +- ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.slow
def test_the_site_asks_nobody(tmp_path: Path) -> None:
    """It is built without a warning; no font, script, style or picture of a page comes from a network."""
    done = run(ROOT, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path, limit_s=120)
    assert done.returncode == 0, done.stderr
    made = sorted(tmp_path.glob("*.html"))
    assert len(made) > 20
    fetched = [
        (path.name, tag)
        for path in made
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", path.read_text(encoding="utf-8"))
        if re.search(r"(?:src|href)=.?(?:https?:)?//", tag)
    ]
    assert fetched == []
    assert (tmp_path / "search" / "search_index.js").is_file()  # the search, without a server
