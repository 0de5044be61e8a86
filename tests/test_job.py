"""The files of a Hydra job: what Hydra itself would have written, made faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from sweeper.search import job
from sweeper.search.space import Space

MakeSpace = Callable[..., Space]


class Level(Enum):
    LOW = 1


AWKWARD = {
    "numbers as text": [
        "1e-3",
        "1_000",
        "0x10",
        "0o7",
        "010",
        "1:30",
        ".5",
        "1.",
        "inf",
        ".nan",
        "-.inf",
        "1e5",
    ],
    "words as text": [
        "on",
        "Off",
        "yes",
        "NO",
        "y",
        "true",
        "null",
        "Null",
        "~",
        "",
        "none",
        "2026-11-21",
        "=",
    ],
    "marks": [
        "a: b",
        "- a",
        "#",
        "a #b",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "{",
        "[1",
        "'",
        '"',
        "\\",
        "?",
        ">",
    ],
    "of OmegaConf": ["${x}", "${oc.env:HOME,a}/b", "\\${x}", "???", "???x", "<<"],
    "space": [" a", "a ", "a\nb", "a\n", "\n", "a\n\n b", "\ta", "a\tb", "a\rb", "long " * 50, "x" * 200],
    "unicode": ["ü", "日本語", "🙂", "\x07", "\u2028", "\xa0", "\ufeff"],
    "plain": [1, -1, 1.0, 1e-3, 1e300, 0.1 + 0.2, float("inf"), True, False, None, [], {}, [[]], {"a": {}}],
    "kept": [b"\x00\xff", Path("a/b"), Level.LOW],
    "1e-3": {1: "int", 1.5: "float", False: "bool", "2": "text", "on": 1, "a: b": 2, Level.LOW: 3, "${x}": 4},
}


def read(text: str) -> Any:
    """As ``OmegaConf.load`` reads it; repr tells the types of numbers."""
    return repr(OmegaConf.to_container(OmegaConf.create(text)))


def assert_saved(hydra: DictConfig, app: DictConfig, folder: Path) -> None:
    job.save(hydra, app, folder)
    saved = {path.stem: path.read_text() for path in folder.iterdir()}
    assert read(saved["config"]) == read(OmegaConf.to_yaml(app))
    assert read(saved["hydra"]) == read(OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    assert read(saved["overrides"]) == read(OmegaConf.to_yaml(hydra.overrides.task))


def awkward() -> DictConfig:
    union = make_dataclass("Union", [("either", int | str, "1"), ("level", Level, Level.LOW)])
    config = OmegaConf.create({**AWKWARD, "x": "x", "typed": union})
    assert isinstance(config, DictConfig)
    return config


@pytest.fixture(scope="module")
def hydra(make_space: MakeSpace) -> DictConfig:
    space = make_space({"config": {"x": 0}}, "x=range(3)")
    node = space.draw(lambda name, distribution: 1, {"num": 1, "id": "1"}).config.hydra
    assert isinstance(node, DictConfig)
    return node


def test_awkward_values_read_back_as_omegaconf_writes_them(hydra: DictConfig, tmp_path: Path) -> None:
    """Text that looks like a number, control characters, enums: what is read from the files is what was."""
    assert_saved(hydra, awkward(), tmp_path)


def test_missing_parts_are_saved_as_omegaconf_writes_them(hydra: DictConfig, tmp_path: Path) -> None:
    """What is missing, None or an interpolation stays it, also in the place of a list or a dict."""
    app = OmegaConf.create({"a": {"b": 1}, "c": [1]})
    for number, value in enumerate(["???", "${c}", None]):
        app.a = app.c = value
        assert_saved(hydra, app, tmp_path / str(number))


def test_each_job_saves_its_own_part_of_hydra(hydra: DictConfig, tmp_path: Path) -> None:
    """Parts that stay are dumped once; a change of any, even from 1 to True, is in the next file."""
    OmegaConf.set_readonly(hydra, False)
    OmegaConf.set_struct(hydra, False)
    app = OmegaConf.create({})
    for number, value in enumerate([1, True, 1.0, "1", None, [1], {"a": "1e-3"}, 1]):
        hydra.job.num = number
        hydra.overrides.task = [f"x={value}"]
        hydra.help.template = value if isinstance(value, str) else "1e-3"
        hydra.sweeper.params = {"x": value}
        assert_saved(hydra, app, tmp_path / str(number))


def test_without_libyaml_omegaconf_dumps(
    hydra: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PyYAML that was built without libyaml writes the files all the same."""
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    job.dumper.cache_clear()
    assert job.dumper() is get_omega_conf_dumper()
    assert_saved(hydra, awkward(), tmp_path)
    job.dumper.cache_clear()
