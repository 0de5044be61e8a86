"""Dataclasses read back from JSON: what was written comes back, and anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeper.structure import structured


@dataclass(frozen=True)
class _Part:
    name: str
    n: int | None


@dataclass(frozen=True)
class _Whole:
    place: Path
    share: float
    is_done: bool
    parts: tuple[_Part, ...]
    values: tuple[float, ...] | None
    params: Mapping[str, Any]


WHOLE = _Whole(Path("a"), 0.5, True, (_Part("b", 3), _Part("c", None)), (1.0, 2.5), {"x": [1, "y"]})


def _written(whole: _Whole) -> dict[str, Any]:
    found = json.loads(json.dumps(asdict(whole), default=str))
    assert isinstance(found, dict)
    return found


def test_what_was_written_comes_back() -> None:
    """Tuples, paths, parts and None; whole numbers count as floats, and unknown keys are left out."""
    assert structured(_Whole, _written(WHOLE)) == WHOLE
    assert structured(_Whole, {**_written(WHOLE), "share": 1, "other": 2}).share == 1.0


WRONG: Mapping[str, Sequence[object]] = {
    "place": (None, 3, ["a"]),
    "share": (None, "0.5", True, [0.5], 10**400),
    "is_done": (None, 1, "true"),
    "parts": (None, {}, "b", [3], [{"name": "b"}], [{"name": "b", "n": True}], [{"name": "b", "n": 0.5}]),
    "values": (1.0, {}, ["x"], [None], [[1.0]]),
    "params": (None, [], "x"),
}


def _damaged() -> Iterator[object]:
    """Each field missing, and of other types."""
    yield from (None, 3, [], "x", {})
    for name, values in WRONG.items():
        yield {key: value for key, value in _written(WHOLE).items() if key != name}
        yield from ({**_written(WHOLE), name: value} for value in values)


@pytest.mark.parametrize("other", list(_damaged()))
def test_whatever_is_not_of_its_type_is_refused(other: object) -> None:
    """A missing field, another type, or a number that no float holds."""
    with pytest.raises(ValueError, match=r"lacks|in place of|too large"):
        structured(_Whole, other)
