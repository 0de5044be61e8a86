"""Imports go one way, as CONTRIBUTING.md says: read from the code, also those within functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.page import ROOT

SOURCE = ROOT / "src"

FLOORS = (
    {"__main__", "api"},
    {"commands"},
    {"child", "lightning", "run"},
    {"check", "environment"},
    {"provenance", "saved"},
    {"conf", "inference"},
    {"search", "training"},
    {"note"},
    {"results"},
    {"card", "literal", "origin", "outputs"},
    {"record", "schema"},
    {"filesystem", "outcome"},
    {"caller", "limit", "lock", "markdown", "memory", "program", "ranking", "screen", "trust"},
    {"fault"},
    {"errors"},
    {"secret", "structure", "words"},
)
"""From the top. Nobody imports another of the same floor: ``search`` and ``training`` meet above."""

FORBIDDEN = {
    "search": {"card", "schema", "timm", "torch", "torchvision"},
    "training": {"hydra", "omegaconf", "optuna"},
    "inference": {"hydra", "omegaconf", "optuna", "search"},
    "results": {"hydra", "omegaconf", "torch", "torchvision"},
    "card": {"hydra", "omegaconf", "optuna", "torch"},
    "schema": {"hydra", "omegaconf", "optuna", "torch"},
    "record": {"hydra", "omegaconf", "torch"},
}
"""Packages, and parts of ours, that a part must do without."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in (SOURCE / "sweeper").rglob("*.py")}
FILES.pop("sweeper")  # which only gives names


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}, line {node.lineno}: write the whole name"
            wholes = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (wholes & FILES.keys()) or {node.module}
    return found


def part_of(module: str) -> str:
    """The name in ``FLOORS`` of a module of ours; of another its package."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "sweeper" else first


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """What each module imports."""
    return {module: imports_of(path) for module, path in FILES.items()}


def test_no_part_imports_from_its_own_floor_or_above(imported: dict[str, set[str]]) -> None:
    """Whoever reads a module meets only what stands below it."""
    floors = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    assert {part_of(module) for module in FILES} == set(floors)
    wrong = [
        f"{module} imports {other}"
        for module, others in imported.items()
        for other in sorted(others & FILES.keys())
        if part_of(other) != part_of(module) and floors[part_of(other)] <= floors[part_of(module)]
    ]
    assert not wrong


def test_a_part_does_without_what_it_must_not_know(imported: dict[str, set[str]]) -> None:
    """Training needs no Hydra, a search neither torch nor our keys, a model in use no search."""
    wrong = [
        f"{module} imports {other}"
        for module, others in imported.items()
        for other in sorted(others)
        if part_of(other) in FORBIDDEN.get(part_of(module), set())
    ]
    assert not wrong


def test_no_modules_need_each_other(imported: dict[str, set[str]]) -> None:
    """Two that do are one; an import within a function does not hide that."""
    order = TopologicalSorter({module: others & FILES.keys() for module, others in imported.items()})
    assert set(order.static_order()) == FILES.keys()
