"""Texts and numbers as the report shows them."""

from __future__ import annotations

import math

import pytest

from sweeper.results import markup
from sweeper.results.panel import Table


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.991666666, "0.99167"),
        (1234567.8, "1,234,600"),
        (22602, "22,602"),
        (0.00001, "1e-5"),
        (1e20, "1e20"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (math.nan, "NaN"),
        (-math.inf, "−infinite"),
        (None, "–"),
        (True, "True"),
        ("<b>", "<b>"),
    ],
)
def test_a_value_has_five_digits_at_most(value: object, told: str) -> None:
    """Thousands are told apart, and what is no number is said."""
    assert markup.told(value) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0412, "0.041 s"), (1.04, "1.0 s"), (42.4, "42 s"), (93, "1 min 33 s"), (7_500, "2 h 5 min")],
)
def test_a_duration_has_units(seconds: float, told: str) -> None:
    """As long as one needs it."""
    assert markup.duration(seconds) == told


def test_a_plot_obeys_no_tag_of_a_name() -> None:
    """But for line breaks, and what Optuna's own plots have."""
    figure = {"a": ["<b>x</b>", {"b": "1<br>2<extra></extra>"}], "c": ("3 < 4", 5)}
    joiner = "\N{WORD JOINER}"
    assert markup.as_text(figure) == {
        "a": [f"<{joiner}b>x<{joiner}/b>", {"b": "1<br>2<extra></extra>"}],
        "c": ["3 < 4", 5],
    }


def test_a_table_is_escaped_and_says_what_its_numbers_are() -> None:
    """Headings of rows and columns are marked as such, for who has them read out."""
    html = markup.table(Table(["<i>", "n"], [["a.b", 1234.5], ["&", None]]))
    assert '<th scope="col" class="number">n</th>' in html
    assert '<th scope="row">a.<wbr>b</th><td class="number">1,234.5</td>' in html
    assert '<th scope="row">&amp;</th><td class="number">–</td>' in html
    assert "&lt;i&gt;" in html


def test_a_command_is_shown_without_its_password() -> None:
    """A report is passed on."""
    assert "a:***@h" in markup.command("sweeper hydra.sweeper.storage=postgresql://a:sesame@h/d")


def test_a_number_is_never_broken() -> None:
    """Names may go on in another line behind a dot; what has digits behind it is a number."""
    assert markup.breakable("optimizer.lr 0.0001 … 0.01") == "optimizer.<wbr>lr 0.0001 … 0.01"
