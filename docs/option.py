"""The options of ``conf/`` as its files describe them: for the pages that are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sweeper.conf import conf_folder

_SOURCE = re.compile(r"^\s+(?P<key>[\w.]+):.*\s# source: (?P<source>.+)$", re.MULTILINE)
"""What stands behind a range under ``hydra.sweeper.params``."""


@dataclass(frozen=True)
class Range:
    """What is searched of one key."""

    expression: str
    source: str

    @property
    def is_fixed(self) -> bool:
        """Whether it takes the range of another file away: the key keeps its value."""
        return self.expression.startswith("${")


@dataclass(frozen=True)
class Option:
    """One file of a group; of ``config.yaml`` the group and name are empty."""

    group: str
    name: str
    command: str
    """How to run it, where its file says so."""
    words: str
    """What it is."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The keys that it sets."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """The options that it chooses of other groups."""
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        return defaults().get(self.group) == self.name

    def __str__(self) -> str:
        return f"{self.group}={self.name}" if self.name else "every search"


@cache
def main_config() -> Option:
    """``conf/config.yaml``."""
    return _read(conf_folder() / "config.yaml", "", "")


@cache
def groups() -> dict[str, list[Option]]:
    """The options of each group, in the order of the defaults list, its default first."""
    return {group: _options(group, default) for group, default in defaults().items()}


@cache
def options() -> list[Option]:
    """All of them, the main config first."""
    return [main_config(), *(option for group in groups().values() for option in group)]


@cache
def defaults() -> dict[str, str]:
    """The option of each group that is taken where none is named; empty where none is."""
    listed = _content(conf_folder() / "config.yaml")["defaults"]
    entries = [entry for entry in listed if isinstance(entry, dict)]
    return {
        group: option or "" for each in entries for group, option in each.items() if "override" not in group
    }


def written(value: Any) -> str:
    """A value, as it is written in a file and on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else str(value)


def _options(group: str, default: str) -> list[Option]:
    paths = sorted((conf_folder() / group).glob("*.yaml"), key=lambda path: (path.stem != default, path.stem))
    return [_read(path, group, path.stem) for path in paths]


def _read(path: Path, group: str, name: str) -> Option:
    text, content = path.read_text(encoding="utf-8"), _content(path)
    is_global = not group or "# @package _global_" in text
    hydra = content.pop("hydra", {})
    params = hydra.get("sweeper", {}).pop("params", {})
    sources = {found["key"]: found["source"].strip() for found in _SOURCE.finditer(text)}
    listed = content.pop("defaults", [])
    chosen = {
        other.removeprefix("override /"): option
        for entry in listed
        if isinstance(entry, dict) and group
        for other, option in entry.items()
    }
    command, words = _head(text)
    return Option(
        *(group, name, command, words),
        {**dict(_flat(content if is_global else {group: content})), **dict(_flat(hydra, "hydra."))},
        chosen,
        {key: Range(str(expression), sources.get(key, "")) for key, expression in params.items()},
    )


def _head(text: str) -> tuple[str, str]:
    """The command and the words in the comment that a file begins with."""
    lines = [line.removeprefix("#").strip() for line in re.match(r"(?:#.*\n)*", text)[0].splitlines()]  # type: ignore[index]
    lines = [line for line in lines if not line.startswith("@package")]
    commands = [line for line in lines if re.match(r"(pip install .*&& )?sweeper( |$)", line)]
    return (commands or [""])[0], " ".join(line for line in lines if line not in commands)


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
