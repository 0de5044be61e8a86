"""Write ``docs/keys.md`` from the schema, the limits and ``conf/``: ``python docs/keys.py``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import option

from hydra_plugins.sweeper_optuna import plugin
from sweeper import schema
from sweeper.limit import Limit
from sweeper.search import keys
from sweeper.words import counted

PAGE = Path(__file__).with_name("keys.md")

_HEAD = """\
# All keys

What may be written as `KEY=VALUE` behind `sweeper`, with the default, what is admitted, and what a search
tries where you write nothing: each option brings the ranges of its keys, in its file in `conf/`.
`sweeper --cfg job` shows all keys with the values that a command gives them.

A *source* says who recommends a key or its range: one of the two guides that this program follows, to small
CNNs and to transfer learning, or a paper. Where none is named, the default is our own choice.

<!-- Made from src/sweeper/schema.py, conf/ and the plugin by docs/keys.py: change them there. -->
"""

_TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "`true` or `false`"}


@dataclass(frozen=True)
class Key:
    """One key of a run or of the search, with all that is said of it."""

    name: str
    type: str
    default: Any
    words: str
    source: str
    admits: str


def page() -> str:
    """The whole page."""
    sections = {"study": "run", **{group: group for group in _sections()}}
    parts = [_HEAD]
    for section, title in ((None, "The run"), *((name, f"`{name}`") for name in sections if name != "study")):
        parts += [f"## {title}\n", *(_section(key) for key in run_keys() if _group(key.name) == section)]
    parts += ["## The search\n", *(_section(key, "hydra.sweeper.") for key in search_keys())]
    parts += [*_choices("sampler", plugin._SAMPLERS), *_choices("pruner", plugin._PRUNERS)]
    return "\n".join(parts).rstrip("\n") + "\n"


def run_keys() -> list[Key]:
    """Every key of a run, in the order of the schema."""
    words, types = _told(Path(schema.__file__)), dict(_types(schema.Run))
    made = [
        Key(name, _type(types[name]), default, *_split(words.get(_owner(name), "")), _admits(name))
        for name, default in schema.flatten(schema.Run())
    ]
    return [_with_default(key) for key in made]


def search_keys() -> list[Key]:
    """Every key of ``hydra.sweeper``."""
    words = _told(Path(plugin.__file__))
    chosen = {kind: name for entry in plugin.Settings().defaults for kind, name in entry.items()}
    made = []
    for item in fields(plugin.Settings):
        if item.name in keys.KEYS:
            default = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[misc]
            default = chosen.get(item.name, default)
            told = _split(words.get(("Settings", item.name), ""))
            made.append(Key(item.name, "", default, *told, keys.KEYS[item.name].limit.admits))
    return made


def _with_default(key: Key) -> Key:
    """What is so without any override: the default option of each group may set it."""
    set_by = {name: value for each in _defaults() for name, value in each.values.items()}
    return Key(**{**vars(key), "default": set_by.get(key.name, key.default)})


def _defaults() -> list[option.Option]:
    return [each for each in option.options() if each.is_default or not each.group]


def _section(key: Key, prefix: str = "") -> str:
    lines = [f"- **Default:** {_shown(key.default)}{_of_ours(key, prefix)}"]
    lines += [f"- **Type:** {key.type}"] if key.type else []
    lines += [f"- **Admitted:** {key.admits}"] if key.admits else []
    lines += [] if prefix else _set_by(key) + _searched(key)
    lines += [f"- **Source:** {key.source}"] if key.source else []
    return f"### `{prefix}{key.name}`\n\n{key.words}\n\n" + "\n".join(lines) + "\n"


def _set_by(key: Key) -> list[str]:
    """The options that set it to something else."""
    group = _group(key.name)
    if key.name == f"{group}.name":
        return []
    by: dict[str, list[str]] = {}
    for each in option.options():
        if key.name in each.values and each.values[key.name] != key.default:
            by.setdefault(_shown(each.values[key.name]), []).append(f"`{each}`")
    told = "; ".join(f"{value} by {_listed(who)}" for value, who in by.items())
    return [f"- **Set by options:** {told}"] if by else []


def _searched(key: Key) -> list[str]:
    """The ranges that options bring, those that are equal in one line."""
    group = _group(key.name)
    names = {key.name, group} if key.name == f"{group}.name" else {key.name}
    by: dict[str, list[str]] = {}
    for each in option.options():
        for name, found in each.ranges.items():
            if name in names:
                told = (
                    f"not at all ({found.source})"
                    if found.is_fixed
                    else f"`{'' if name == key.name else f'{name}='}{found.expression}` ({found.source})"
                )
                by.setdefault(told, []).append(f"`{each}`" if each.name else str(each))
    if not by:
        return []
    rows = [f"    - {told}: {_listed(who)}" for told, who in by.items()]
    return ["- **Searched:**", *rows]


def _of_ours(key: Key, prefix: str) -> str:
    """What our own app sets of the search's keys."""
    ours = option.main_config().values
    is_said = bool(prefix) and ours.get(prefix + key.name, key.default) != key.default
    return f"; {_shown(ours[prefix + key.name])} in `sweeper` itself" if is_said else ""


def _choices(kind: str, nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The options of ``hydra/sweeper/sampler`` or ``pruner``, with the arguments that each takes."""
    yield f"## Options of `hydra/sweeper/{kind}`\n"
    yield (
        f"Each takes the arguments of Optuna's class, as `hydra.sweeper.{kind}.ARGUMENT=VALUE`; what is left "
        "out keeps Optuna's default.\n"
    )
    for name, node in nodes.items():
        yield f"### `{name}`\n"
        target = str(node["_target_"])
        is_class = target.startswith("optuna.")
        yield f"`{target}`.\n" if is_class else "Hyperband; with several objectives none.\n"
        arguments = [argument for argument in node if not argument.startswith("_")]
        rows = [f"- `{argument}`{_argument(node[argument], argument)}" for argument in arguments]
        yield "\n".join(rows) + "\n" if rows else "It takes none.\n"


def _argument(default: Any, name: str) -> str:
    limit: Limit | None = keys.ARGUMENTS.get(name)
    told = [limit.admits] if limit is not None and limit.admits else []
    told += [] if default == "???" else [f"default: {_shown(default)}"]
    return f": {'; '.join(told)}" if told else ""


# --- what the sources say ---------------------------------------------------------------------------------


def _told(path: Path) -> dict[tuple[str, str], str]:
    """The text behind each field of each class of a module."""
    found = {}
    for owner in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(owner, ast.ClassDef):
            for item, text in zip(owner.body, owner.body[1:], strict=False):
                match item, text:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(said))):
                        found[owner.name, name] = " ".join(said.split())
    return found


def _split(words: str) -> tuple[str, str]:
    """What is said, and the source, as Markdown."""
    said, _, source = words.partition(" Source: ")
    return _markdown(said), _markdown(source.rstrip("."))


def _markdown(words: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", words)


def _types(owner: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    for item in fields(owner):
        nested = getattr(schema, str(item.type), None)
        if nested is not None and is_dataclass(nested):
            assert isinstance(nested, type)
            yield from _types(nested, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", str(item.type)


def _owner(name: str) -> tuple[str, str]:
    """The class and the field of a dotted key."""
    owner: type = schema.Run
    *path, last = name.split(".")
    for part in path:
        owner = getattr(schema, {item.name: str(item.type) for item in fields(owner)}[part])
    return owner.__name__, last


def _type(written: str) -> str:
    nullable = written.endswith(" | None")
    plain = written.removesuffix(" | None")
    if inner := re.fullmatch(r"list\[(\w+)\]", plain):
        told = f"list of {_TYPES[inner[1]]}s"
    elif plain.startswith("dict"):
        told = "values by their names"
    else:
        told = _TYPES.get(plain, "")
    return f"{told}, or `null`" if nullable else told


def _admits(name: str) -> str:
    if name in schema.LIMITS:
        return schema.LIMITS[name].admits
    lists = {
        "objective": ", ".join(f"`{each}`" for each in schema.DIRECTIONS),
        "training.metrics": ", ".join(f"`{each}`" for each in schema.METRICS),
    }
    return lists.get(name, "")


def _group(name: str) -> str | None:
    return name.partition(".")[0] if "." in name else None


def _sections() -> list[str]:
    return list(dict.fromkeys(group for name, _ in schema.flatten(schema.Run()) if (group := _group(name))))


def _shown(value: Any) -> str:
    return f"`{option.written(value)}`"


def _listed(names: list[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {counted(len(run_keys()) + len(search_keys()), 'key')}")
