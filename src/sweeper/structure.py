"""A dataclass from what ``asdict`` and JSON have made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def structured(kind: type[T], found: object) -> T:
    """An instance of a dataclass; keys that are no fields of it are left out.

    A field's type is one of ``str``, ``int``, ``bool``, ``float``, ``Path`` and ``Any``, or a dataclass, a
    ``tuple[X, ...]`` or a ``Mapping`` of such, or one of these or None.

    Raises:
        ValueError: if a field is missing, or of another type.
    """
    made: T = _made(kind, found)
    return made


def _made(kind: Any, found: Any) -> Any:
    if kind is Any:
        return found
    if is_dataclass(kind) and isinstance(found, Mapping):
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        if missing := set(names) - found.keys():
            raise ValueError(f"lacks {min(missing)}")
        return kind(**{name: _made(hints[name], found[name]) for name in names})  # type: ignore[operator]
    arguments = get_args(kind)
    if NoneType in arguments:
        (other,) = set(arguments) - {NoneType}
        return None if found is None else _made(other, found)
    if get_origin(kind) is tuple and isinstance(found, list):
        return tuple(_made(arguments[0], one) for one in found)
    if get_origin(kind) is Mapping and isinstance(found, Mapping):
        return {name: _made(arguments[1], one) for name, one in found.items()}
    if kind is Path and isinstance(found, str):
        return Path(found)
    if kind is float and type(found) in (int, float):
        return _float(found)
    if type(found) is not kind:
        raise ValueError(f"{type(found).__name__} in place of {kind}")
    return found


def _float(found: int | float) -> float:
    try:
        return float(found)
    except OverflowError as error:
        raise ValueError("a number is too large") from error
