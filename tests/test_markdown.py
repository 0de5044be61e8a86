"""Markdown of texts that come from elsewhere."""

from __future__ import annotations

import pytest

from sweeper.markdown import block, code, table, text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("optimizer.lr", "`optimizer.lr`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("two\nlines", "`two lines`"),
        ("", ""),
    ],
)
def test_a_name_stays_code(name: str, shown: str) -> None:
    """No backtick within it ends it, and no line break."""
    assert code(name) == shown


def test_a_sentence_is_only_text() -> None:
    """No link, heading, emphasis or HTML comes out of it."""
    assert text("# a *b* [c](d) <e>\n`f` https://g.h i@j www.k") == (
        r"\# a \*b\* \[c\]\(d\) \<e\> \`f\` https:~//g.h i@~j www.~k".replace("~", "\N{WORD JOINER}")
    )


def test_a_block_ends_where_it_should() -> None:
    """A command that holds a fence is within a longer one."""
    assert block("a\n```\n# b") == ["````sh", "a\n```\n# b", "````", ""]


def test_a_table_keeps_its_cells() -> None:
    """A bar in a name is no end of a cell, also behind a backslash; numbers have five digits."""
    assert table(["name", "a|b"], [("x|y", 0.123456789), ("\\|", 64), ("z", True)]) == [
        "| name | a\\|b |",
        "|:---|:---|",
        "| `x\\|y` | 0.12346 |",
        "| `\\\N{WORD JOINER}\\|` | 64 |",
        "| `z` | `True` |",
        "",
    ]
    assert table(["name"], []) == []
