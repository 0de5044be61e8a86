"""Every command and program of README.md and docs/ does what a page says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.documented import (
    OF_README,
    READERS,
    Command,
    Reader,
    Section,
    documented,
    here,
    named,
    prepare,
    searched,
    sections,
    steps,
)
from tests.page import ROOT
from tests.ray_cluster import ray_cluster
from tests.s3 import BUCKET, serving
from tests.server import Postgres
from tests.slurm import slurm

PAGES = [path for path in documented() if steps(path)]
ON_ENGINES = [section for page in PAGES for section in sections(page) if section.engines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_rule_says_what_is_run_for_each_command(page: Path) -> None:
    """A page cannot tell people to type what nobody tries."""
    for step in steps(page):
        if isinstance(step, Command):
            assert step.left_out or step.shortened


def test_each_study_that_a_page_names_was_begun_by_one_command() -> None:
    """Who reads page after page in one folder finds each study there, and no command refuses to go on."""
    readme = steps(ROOT / "README.md")
    searches = {name: what for step in readme for name, what in searched(step)}
    for page in PAGES:
        begun = dict(searches)
        for step in steps(page):
            for name, what in searched(step):
                assert begun.setdefault(name, what) == what, f"{page.name}: {name} is another search"
            missing = named(step) - begun.keys()
            assert not missing, f"{page.name}: nothing began {missing}"


def alone(page: Path) -> Any:
    """A page as a case that any process of the tests may take; those that one reader reads stay together."""
    group = next((name for name, pages in READERS.items() if page.name in pages), page.name)
    return pytest.param(page, group, id=str(page.relative_to(ROOT)), marks=pytest.mark.xdist_group(group))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reader]:
    """``readers(name)``: who reads one page, or several in one folder."""

    @cache
    def reader(name: str) -> Reader:
        prepare(folder := tmp_path_factory.mktemp("reader"))
        return Reader(folder)

    return reader


@pytest.mark.slow
@pytest.mark.timeout(900)  # a page has up to a dozen commands
@pytest.mark.parametrize(("page", "group"), [alone(page) for page in PAGES])
def test_a_page_does_what_it_says(page: Path, group: str, readers: Callable[[str], Reader]) -> None:
    """All of its commands and programs, one after the other in one folder, end with exit code 0.

    But for those that need an engine, of which each section is a test of its own.
    """
    reader = readers(group)
    if page.name in READERS[OF_README]:
        reader.do(next(step for step in steps(ROOT / "README.md") if any(searched(step))))
    for step in here(page):
        reader.do(step)


@pytest.fixture(scope="module")
def on_slurm() -> Iterator[dict[str, str]]:
    with slurm() as cluster:
        yield cluster.environment


@pytest.fixture(scope="module")
def on_ray() -> Iterator[dict[str, str]]:
    with ray_cluster() as cluster:
        yield {"RAY_ADDRESS": cluster.address}


@pytest.fixture(scope="module")
def on_s3() -> Iterator[dict[str, str]]:
    with serving() as variables:
        yield {**variables, "BUCKET": BUCKET}


@pytest.fixture
def on_postgresql(postgres: Postgres) -> dict[str, str]:
    return {"DATABASE": postgres.url}


@pytest.mark.slow
@pytest.mark.timeout(600)  # engines start slowly, and so do their jobs
@pytest.mark.parametrize(
    "section", [pytest.param(each, id=f"{each.page.name}: {each.title}") for each in ON_ENGINES]
)
def test_a_section_does_what_it_says_on_its_engines(
    section: Section, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On a real cluster, database or store: what is typed on another machine is typed in another folder."""
    env: dict[str, str] = {}
    for engine in section.engines:
        env |= request.getfixturevalue(engine)
    for step in section.steps:
        step.run(tmp_path, env)
