"""What a value may be: both ends, no infinities, names that file systems take."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from sweeper import limit
from sweeper.errors import BadInput


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1, None),
        (10, None),
        (2.5, None),
        (0, "must be at least 1"),
        (11, "must be at most 10: of that"),
        (nan, "must be at least 1 and finite"),
        (inf, "must be at least 1 and finite"),
        (True, "must be a number"),
        ("1", "must be a number"),
        (None, "must be a number"),
        ([1], "must be a number"),
    ],
)
def test_a_number_has_two_ends(value: Any, reason: str | None) -> None:
    """What is beyond one is told which, and why; what is no number is told so."""
    bounds = limit.number(1, 10, "write 5", "of that")
    assert bounds.fault(value) == reason
    assert bounds.holds(value) == (reason is None)


def test_an_end_may_be_left_out() -> None:
    """Of what multiplies, 0 itself is too small."""
    assert limit.number(0, 1, "", above=True).fault(0) == "must be greater than 0"
    assert limit.number(0, 1, "", below=True).fault(1) == "must be below 1"


def test_an_option_is_told_with_the_nearest() -> None:
    """That first, then all there are."""
    with pytest.raises(BadInput, match=r"^k=adm: .*option; did you mean adam\? write one of adam, sgd$"):
        limit.option("adam", "sgd").check("k", "adm")


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "день", "a b", "2026-11-28_10-00-00", "x" * 255, "a:b", "/".join(["x" * 99] * 5)],
)
def test_a_study_may_have_the_name_of_a_folder(name: str) -> None:
    """Also a nested one, and in any letters."""
    limit.check_study_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "this one is empty"),
        (None, "this one is empty"),
        (" ", "is a folder below outputs/"),
        ("-1", "begins as an option does"),
        ("..", "is a folder below outputs/"),
        ("a/../b", "is a folder below outputs/"),
        ("/a", "is a folder below outputs/"),
        ("a//b", "is a folder below outputs/"),
        ("x" * 5000, "longer than 512 characters"),
        ("x" * 256, "a name of 256 bytes"),
        ("д" * 128, "a name of 256 bytes"),
        ("a\0b", "invisible character"),
        ("a\nb", "invisible character"),
        ("a\x1b[2Jb", "invisible character"),
        ("a\udc80", "is not text"),
    ],
)
def test_a_study_has_no_name_that_is_no_folder(name: str | None, reason: str) -> None:
    """What neither file systems nor databases would take, before either is asked."""
    with pytest.raises(BadInput, match=rf"^study=.*{reason}.*; write a name"):
        limit.check_study_name(name)


def test_a_path_is_one_that_the_system_takes() -> None:
    """However it is encoded; its parts and the whole have ends."""
    assert limit.path_fault("/a/ü/\udc80") is None  # a byte that is no UTF-8, as os.fsdecode gives it
    assert limit.path_fault("") == "is empty"
    assert limit.path_fault("a\0") is not None
    assert limit.path_fault("\ud800") is not None
    assert limit.path_fault("/".join(["x"] * 5000)) is not None
