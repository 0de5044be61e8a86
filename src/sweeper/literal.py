"""What a person types for a text, in quotes where Hydra would read something else.

A folder called ``2024_01`` is no number, ``pets (2)`` no function, and ``=üñí`` no fault of grammar. What
Hydra's grammar offers beyond texts stays: sweeps, ``null``, interpolations, quotes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.words import expanded

PATHS = frozenset(
    {"dataset.path", "dataset.root", "dataset.folder", "model.weights", "hydra.run.dir", "hydra.sweep.dir"}
)
"""Keys whose value is meant as it stands wherever a file or folder of that name exists."""

_HYDRAS = frozenset({"hydra.run.dir", "hydra.sweep.dir", "hydra.sweeper.study_name"})
_OVERRIDE = re.compile(r"(\+{0,2}([\w.]+)=)(.*)", re.DOTALL)
_GRAMMAR = re.compile(r"[(\[{'\"$\\]")
"""Where one of these stands, a comma may do other things than divide a list of texts."""
_WORD = re.compile(r"(?!(null|true|false|inf|nan)$)[a-z]\w*", re.ASCII | re.IGNORECASE)
"""A text that needs no quotes; one with a dot or a digit first may be a number."""
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)


def literal(overrides: Sequence[str]) -> list[str]:
    """The words of a command line, with quotes around texts that need them."""
    return [_literal(override) for override in overrides]


def _literal(override: str) -> str:
    found = _OVERRIDE.fullmatch(override)
    if found is None or found[2] not in _texts():
        return override
    before, key, text = found.groups()
    is_list = "," in text.strip(",") and not _GRAMMAR.search(text) and not _is_there(key, text)
    return before + ",".join(_as_it_stands(key, piece) for piece in (text.split(",") if is_list else [text]))


def _is_there(key: str, text: str) -> bool:
    is_path = key in PATHS and text not in ("", "null")
    return is_path and os.path.lexists(expanded(text))


def _as_it_stands(key: str, text: str) -> str:
    """The text, quoted unless Hydra reads it back as it is, or it is more than a text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    is_there = _is_there(key, text)
    if not text or (not is_there and (_QUOTED.fullmatch(text) or "${" in text)):
        return text
    if text.isspace():  # of which Hydra reads nothing
        return quoted(text)
    try:
        read: Any = OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return text if not is_there and _calls_a_function(text) else quoted(text)
    value = read.value() if not read.is_sweep_override() else read
    is_meant = value is None or isinstance(value, QuotedString | list | dict) or read.is_sweep_override()
    return text if value == text or (is_meant and not is_there) else quoted(text)


def _calls_a_function(text: str) -> bool:
    """Whether it begins as a sweep or a cast does: what is wrong with that is told by who reads it."""
    from hydra.core.override_parser.overrides_parser import create_functions

    name, parenthesis, _ = text.partition("(")
    return bool(parenthesis) and name.strip() in create_functions().functions


def quoted(text: str) -> str:
    """In Hydra's quotes, whatever stands in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double if "'" in text else Quote.single).with_quotes()


def written(key: str, value: Any) -> str:
    """A plain value in Hydra's grammar, from which Hydra reads the same value.

    Raises:
        BadInput: for one that the grammar has no words for.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        plain = _plain(key, value)
        text = _written(plain)
    except RecursionError as error:
        remedy = "write a list or dict that does not hold itself"
        raise BadInput(key, type(value).__name__, "is nested too deeply", remedy) from error
    try:
        read = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        read = None
    if repr(read) != repr(plain):  # repr tells 1 from True, and takes nan for nan
        raise BadInput(key, value, "cannot be written in Hydra's grammar", "write other keys in the dict")
    return text


def _plain(key: str, value: Any) -> Any:
    """The value in Python's own types: a path is a text, numpy's number a number."""
    if value is None or isinstance(value, bool | int | float | str):
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(key, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain(key, value.item())
    what = f"is a {type(value).__name__}, and no plain value"
    raise BadInput(key, value, what, "write a number, a text, True, False, None, or a list or dict of them")


def _written(plain: Any) -> str:
    match plain:
        case None | True | False:
            return str(plain).lower().replace("none", "null")
        case dict():
            return f"{{{','.join(f'{name}:{_written(item)}' for name, item in plain.items())}}}"
        case list():
            return f"[{','.join(map(_written, plain))}]"
        case str() if not _WORD.fullmatch(plain):
            return quoted(plain)
        case _:
            return str(plain)


@cache
def _texts() -> frozenset[str]:
    """The keys whose values are texts."""
    return frozenset(_texts_of(schema.Run)) | _HYDRAS


def _texts_of(config: Any, prefix: str = "") -> list[str]:
    hints, found = get_type_hints(config), list[str]()
    for item in fields(config):
        kind = hints[item.name]
        if is_dataclass(kind):
            found += _texts_of(kind, f"{prefix}{item.name}.")
        elif kind in (str, str | None):
            found.append(f"{prefix}{item.name}")
    return found
