"""What is imported, pyproject.toml installs: for people what ``src`` needs, with ``dev`` all the rest."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from tests.page import ROOT

NEVER_INSTALLED = {"_typeshed", "benchmarks", "hydra_plugins", "sweeper", "tests"}
"""Ours, and what only type checkers know."""
OPTIONAL = {"pandas", "pillow-heif", "pyarrow", "pytorch-lightning"}
"""Used where a person has them, and named in an error where they are missing."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def distribution(requirement: str) -> str:
    """The name in a requirement, as pip compares it."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def declared(project: dict[str, Any], *extras: str) -> set[str]:
    """What an installation with these extras is asked for by name."""
    found = set(project["dependencies"])
    for extra in extras:
        found |= set(project["optional-dependencies"][extra])
    return {distribution(requirement) for requirement in found}


def needed(*folders: str) -> Iterator[tuple[str, set[str]]]:
    """Each package of others that is imported below these folders, with the distributions that bring it."""
    beside = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    known = packages_distributions()
    for package in sorted(set().union(*map(packages_in, folders))):
        if package not in sys.stdlib_module_names and package not in NEVER_INSTALLED | beside:
            yield package, {distribution(name) for name in known.get(package, [package])}


def packages_in(folder: str) -> set[str]:
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def test_the_product_imports_what_it_installs(project: dict[str, Any]) -> None:
    """By its own name: a package that another one happens to bring may go with that."""
    extras = set(project["optional-dependencies"]) - {"dev"}
    there = declared(project, *extras) | OPTIONAL
    assert [package for package, brought_by in needed("src") if not brought_by & there] == []


def test_a_checkout_imports_what_dev_installs(project: dict[str, Any]) -> None:
    """``pip install -e ".[dev]"`` is all that its tests, examples and pages need."""
    extras = set(project["optional-dependencies"])
    there = declared(project, *extras)
    missing = [name for name, brought_by in needed("tests", "docs", "examples") if not brought_by & there]
    assert missing == []


def test_dev_brings_every_extra(project: dict[str, Any]) -> None:
    """Each is tested."""
    extras = project["optional-dependencies"]
    assert f"sweeper[{','.join(sorted(set(extras) - {'dev'}))}]" in extras["dev"]
