"""Texts of a study as a page shows them: as text, whatever is in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from sweeper.results.panel import Table
from sweeper.secret import hide_secrets

JOINER = "\N{WORD JOINER}"
TAG = re.compile("<(?=[/A-Za-z])(?!br>|/?extra>)")
"""Plots obey some tags in names, links among them (https://plotly.com/javascript/reference/layout). With a
joiner, which nobody sees, they are text. ``br`` and ``extra`` are in Optuna's own plots."""


def as_text(value: Any) -> Any:
    """A figure's content, all the way down, of which a plot obeys no tag; without passwords."""
    if isinstance(value, str):
        return TAG.sub(f"<{JOINER}", hide_secrets(value))
    if isinstance(value, list | tuple):
        return [as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return value


def told(value: object) -> str:
    """A value with at most five significant digits, and with commas between thousands."""
    match value:
        case None:
            return "–"
        case bool() | str():
            return hide_secrets(str(value))
        case int():
            return f"{value:,}"
        case float():
            return _number(value)
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M")
        case _:
            return hide_secrets(str(value))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite" if value > 0 else "−infinite"
    rounded = float(f"{value:.5g}")
    text = f"{rounded:,.0f}" if 1e5 <= abs(rounded) < 1e15 else f"{rounded:,.5g}"
    return re.sub(r"e([+-])0*", lambda found: f"e{found[1].strip('+')}", text)  # 1e-5, as one types it


def duration(seconds: float) -> str:
    """``0.81 s``, ``1 min 33 s``, ``2 h 5 min``."""
    if seconds < 59.5:
        return f"{seconds:#.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def breakable(name: str) -> Markup:
    """A name that may go on in another line behind a dot or an underscore; a number may not."""
    return Markup("<wbr>").join(re.split(r"(?<=[_\[/])(?=.)|(?<=\.)(?=\D)", hide_secrets(name)))


def paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(hide_secrets(text))


def table(of: Table) -> Markup:
    """Rows whose first cell is their heading."""
    columns = list(zip(*of.rows, strict=True)) or [()] * len(of.head)
    head = Markup().join(_head(name, _kind(column)) for name, column in zip(of.head, columns, strict=False))
    kinds = [_kind(column) for column in columns]
    rows = Markup().join(_row(row, kinds) for row in of.rows)
    thead = Markup("<thead><tr>{}</tr></thead>").format(head) if any(of.head) else Markup()
    whole = Markup(
        '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>{}<tbody>{}</tbody>'
    )
    return whole.format(thead, rows) + Markup("</table></div>")


def _head(name: str, kind: str) -> Markup:
    return Markup('<th scope="col" class="{}">{}</th>').format(kind, breakable(name))


def _kind(column: Sequence[object]) -> str:
    """Numbers stand below each other at their ends; a column that also has texts begins at one line."""
    known = [cell for cell in column if cell is not None]
    is_number = known and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known)
    return "number" if is_number else "text"


def _row(row: Iterable[object], kinds: Sequence[str]) -> Markup:
    first, *others = row
    cells = [Markup('<th scope="row">{}</th>').format(breakable(told(first))), *map(_cell, others, kinds[1:])]
    return Markup("<tr>{}</tr>").format(Markup().join(cells))


def _cell(value: object, kind: str) -> Markup:
    text = breakable(value) if isinstance(value, str) else told(value)
    return Markup('<td class="{}">{}</td>').format(kind, text)


def command(line: str) -> Markup:
    """A command that can be copied."""
    html = Markup('<div class="command"><pre tabindex="0"><code>{}</code></pre></div>')
    return html.format(hide_secrets(line))


def facts(of: Mapping[str, object]) -> Markup:
    """Names and values, below each other."""
    rows = Markup().join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(n, told(v)) for n, v in of.items()
    )
    return Markup('<dl class="facts">{}</dl>').format(rows)
