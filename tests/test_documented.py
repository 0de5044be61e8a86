"""Every command and program of README.md and docs/ does what a page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documented import OF_FIRST, Command, documented, prepare, search, steps
from tests.page import ROOT

PAGES = [path for path in documented() if steps(path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_rule_says_what_is_run_for_each_command(page: Path) -> None:
    """A page cannot tell people to type what nobody tries."""
    for step in steps(page):
        if isinstance(step, Command):
            assert step.left_out or step.shortened


@pytest.fixture(scope="module")
def searched_first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search that is over, ``first``: one for all pages that speak of one."""
    folder = tmp_path_factory.mktemp("first")
    prepare(folder)
    search(folder, "first")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)  # a page has up to a dozen commands
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All of its commands and programs, one after the other in one folder, end with exit code 0."""
    if page.name in OF_FIRST:
        folder = request.getfixturevalue("searched_first")
    else:
        prepare(folder := tmp_path)
    for step in steps(page):
        step.run(folder)
