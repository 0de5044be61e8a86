"""A config to copy: its copies differ from it in nothing, and share nothing that can be written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, Node, OmegaConf

from sweeper.search.template import Template


class Level(Enum):
    LOW = 1


def structured() -> DictConfig:
    """A config of all that OmegaConf knows, with classes that cannot be found by their name."""

    layer: Any = make_dataclass("Layer", [("size", int, MISSING), ("scale", float | None, None)])
    fields = {
        "layers": (list[layer], field(default_factory=lambda: [layer(3), layer()])),
        "named": (dict[str, layer], field(default_factory=lambda: {"a": layer(4)})),
        "level": (Level, Level.LOW),
        "path": (Path, Path("a/b")),
        "data": (bytes, b"\x00"),
        "either": (int | str, "1"),
        "nothing": (layer | None, None),
        "any": (Any, 1.0),
    }
    schema = make_dataclass("Schema", [(name, *rest) for name, rest in fields.items()])
    config = OmegaConf.create(
        {"app": schema, "free": {"x": "${app.either}", "y": [1, {"z": "???"}], 2: None}}
    )
    config.free = OmegaConf.create({"object": object(), **config.free}, flags={"allow_objects": True})
    OmegaConf.set_struct(config.app, True)
    OmegaConf.set_readonly(config.free, True)
    OmegaConf.get_cache(config)["resolver"] = {("a",): [1]}
    assert isinstance(config, DictConfig)
    return config


def anatomy(node: Node) -> Iterator[tuple[Any, ...]]:
    """Each node's class, metadata (types, flags, cache) and value, in order."""
    content = node.__dict__.get("_content", node._value())
    children = {"": content} if isinstance(content, Node) else content
    children = dict(enumerate(content)) if isinstance(content, list) else children
    has_children = isinstance(children, dict)
    yield type(node), node._metadata, list(children) if has_children else content
    for child in children.values() if has_children else []:
        assert child._get_parent() is node
        yield from anatomy(child)


def test_a_copy_is_what_deepcopy_makes() -> None:
    """Types, flags, missing values, objects of the app: a config's copies differ from it in nothing."""
    config = structured()
    made = list(anatomy(Template(config).copy()))
    assert made == list(anatomy(copy.deepcopy(config)))
    assert made == list(anatomy(config))


def test_copies_are_independent() -> None:
    """What a trial writes into its config, or resolves, no other trial sees."""
    config = structured()
    before = list(anatomy(copy.deepcopy(config)))
    template = Template(config)
    first, second = template.copy(), template.copy()
    first.app.layers[0].size = 5
    first.app.named["a"].size = 6
    OmegaConf.set_readonly(first.free, False)
    first.free.y.append(1)
    OmegaConf.get_cache(first)["resolver"]["b",] = 1
    OmegaConf.get_cache(first)["resolver"]["a",].append(2)
    assert list(anatomy(second)) == list(anatomy(template.copy())) == list(anatomy(config)) == before
