"""How sure a search is, and what a certificate says: the report's figures. Only the report imports this.

All numbers come from ``belief`` and ``certificate``; here they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from sweeper.results import belief, standing, verdict
from sweeper.results.belief import Belief, Difference
from sweeper.results.certificate import Certificate, Certified, lines
from sweeper.results.chart import BEST, DONE, QUIET
from sweeper.results.markup import duration, paragraph, told
from sweeper.results.panel import Panel, Table
from sweeper.results.race import N_LEAST
from sweeper.results.study_record import StudyRecord
from sweeper.words import counted, some

MOST_ROWS = 12
"""Trials whose intervals are drawn: more are not told apart at a glance."""

_ROW = 26
"""Height of a row of a figure, in pixels."""

# ----------------------------------------------------------------------------------------------- a search


def believed(seen: StudyRecord, found: Belief | None) -> list[Panel]:
    """How sure the best trial of a search is, in words, and against the trials that come next."""
    if found is None:
        return []
    html = Markup().join(map(paragraph, belief.sentences(found)))
    for what, numbers in (("Reached the same value", found.tied), ("Not worse", found.not_worse)):
        html += paragraph(f"{what}: {belief.named(numbers)}.") if numbers else ""
    words = Panel("The best trial", html)
    figure = _against_best(seen, found)
    return [words] if figure is None else [words, figure]


def _against_best(seen: StudyRecord, found: Belief) -> Panel | None:
    """The difference of each of the next trials to the best one, with its interval; luck as a shaded part."""
    rows = _near(found, seen.directions[0])[: MOST_ROWS - 1]
    if not rows or found.not_worse is None:
        return None
    costs = {price.number: price.cost for price in standing.prices(seen, "seconds")}
    same, worse = ([row for row in rows if (row.trial in found.not_worse) == is_same] for is_same in (1, 0))
    place = {number: i for i, number in enumerate([found.trial, *(row.trial for row in rows)])}
    figure = go.Figure()
    for name, group, colour, symbol in (("not worse", same, DONE, "circle"), ("worse", worse, QUIET, "x")):
        if group:
            spans = [(row.value, row.low, row.high) for row in group]
            texts = [f"trial {row.trial}" for row in group]
            figure.add_trace(_spans(name, [place[row.trial] for row in group], spans, texts, colour, symbol))
    is_higher = seen.directions[0] == "maximize"
    _draw_best(figure, found, -1 if is_higher else 1)
    _rows(figure, [f"trial {number}{_cost(costs.get(number))}" for number in place])
    figure.update_xaxes(title=f"difference in {standing.cut(found.metric, 30)} to trial {found.trial}")
    html = paragraph(" ".join(_notes(found, len(found.differences) - len(rows), is_higher)))
    says = (
        f"The difference in {found.metric} to trial {found.trial} of the {counted(len(rows), 'next trial')}, "
        f"with 95 % intervals: {counted(len(same), 'trial')} not worse, {len(worse)} worse."
    )
    verdicts = {True: "not worse", False: "worse"}
    cells = [
        [str(row.trial), row.value, row.low, row.high, costs.get(row.trial), verdicts[row in same]]
        for row in rows
    ]
    table = Table(["trial", "difference", "from", "to", "seconds", ""], cells)
    return Panel("The best against the next", html, figure, says, table, _height(len(place)))


def _near(found: Belief, direction: str) -> list[Difference]:
    """Without trials so much worse that the others would not be told apart on one axis with them."""
    range_ = standing.scale([row.value for row in found.differences], direction)
    same = found.not_worse or ()
    return [
        row
        for row in found.differences
        if row.trial in same or (range_ is not None and range_[0] <= row.value <= range_[1])
    ]


def _draw_best(figure: go.Figure, found: Belief, worse: int) -> None:
    """The best trial, from which all others are measured, and how far luck has brought it.

    Args:
        worse: 1 where greater is worse, else -1.
    """
    marker = {"color": BEST, "size": 13, "symbol": "star"}
    text = f"trial {found.trial}<extra></extra>"
    figure.add_trace(go.Scatter(x=[0], y=[0], mode="markers", name="best", marker=marker, hovertemplate=text))
    figure.add_vline(x=0, line={"color": BEST, "width": 1, "dash": "dash"})
    if _has_luck(found):
        ends = sorted((0.0, worse * (found.luck or 0.0)))
        look = {"fillcolor": BEST, "opacity": 0.18, "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=ends[0], x1=ends[1], **look)
        square = {"color": BEST, "size": 12, "symbol": "square", "opacity": 0.25}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name="luck", marker=square))


def _has_luck(found: Belief) -> bool:
    return found.luck is not None and found.luck > 0


def _notes(found: Belief, n_left: int, is_higher: bool) -> list[str]:
    """How the figure is read."""
    side = "left" if is_higher else "right"
    notes = [
        f"Each dot is a trial's difference from the best one; further to the {side} is worse. Its line says "
        "where that may lie on other pictures of this kind (95 % sure, all lines together). A trial whose "
        "line reaches the dashed one may be just as good. Times stand beside the names.",
    ]
    if _has_luck(found):
        notes.append("The shaded part is luck: what the best is likely to lose when it is trained again.")
    are = "is" if n_left == 1 else "are"
    return notes + ([f"{counted(n_left, 'more trial')} {are} compared, and not drawn."] if n_left else [])


def _cost(seconds: float | None) -> str:
    return "" if seconds is None else f" · {duration(seconds)}"


def _spans(
    name: str,
    places: Sequence[int],
    spans: Sequence[tuple[float, float, float]],
    texts: Sequence[str],
    colour: str,
    symbol: str,
) -> go.Scatter:
    """Values with their intervals, one in a row."""
    values = [value for value, _, _ in spans]
    return go.Scatter(
        x=values,
        y=list(places),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, _, high in spans],
            "arrayminus": [value - low for value, low, _ in spans],
            "color": colour,
            "thickness": 2,
            "width": 4,
        },
        customdata=[[text, told(low), told(high)] for text, (_, low, high) in zip(texts, spans, strict=True)],
        mode="markers",
        name=name,
        marker={"color": colour, "size": 8, "symbol": symbol},
        hovertemplate="%{customdata[0]}: %{x:.4g}<br>%{customdata[1]} … %{customdata[2]}<extra></extra>",
    )


def _rows(figure: go.Figure, names: Sequence[str]) -> None:
    """Names beside the rows, the first on top."""
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=list(names), showgrid=False)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6])
    figure.update_xaxes(nticks=6)


def _height(n_rows: int) -> int:
    return 110 + _ROW * n_rows


# ------------------------------------------------------------------------------------------ a certificate


def certified(certificate: Certificate, chosen: str | None = None) -> list[Panel]:
    """What a certificate says: words, a row for each candidate, and its single trainings.

    Args:
        chosen: whose run the search has in ``best/``, by choice.
    """
    html = Markup().join(paragraph(line) for line in lines(certificate))
    html += paragraph(f"Chosen: {chosen}.") if chosen else ""
    panels = [Panel("What it says", html, table=verdict.table(certificate))]
    figures = [_trainings(certificate, i) for i in range(len(certificate.metrics))]
    return panels + [figure for figure in figures if figure is not None]


def _trainings(certificate: Certificate, objective: int) -> Panel | None:
    """Each candidate's mean with its interval, its single trainings, and what the search said of it."""
    metric, rows = certificate.metrics[objective], verdict.ordered(certificate)
    place = {candidate.name: i for i, candidate in enumerate(rows)}
    if all(candidate.expected[objective].value is None for candidate in rows):
        return None
    figure = go.Figure(_single(rows, place, objective))
    if searched := {c.name: value for c in rows if (value := c.expected[objective].searched) is not None}:
        figure.add_trace(_stars(searched, place))
    looks = ("mean", True, DONE, "circle"), ("mean, out of the race", False, QUIET, "x")
    for name, is_in, colour, symbol in looks:
        group = [c for c in rows if (c.out is None) == is_in and c.expected[objective].value is not None]
        if group:
            texts = [candidate.name for candidate in group]
            spans = [_span(candidate, objective) for candidate in group]
            figure.add_trace(_spans(name, [place[text] for text in texts], spans, texts, colour, symbol))
    _rows(figure, [_labelled(candidate) for candidate in rows])
    # The interval of two trainings may be far wider than all that was measured: it ends at the edge.
    wide = [each for c in rows if c.out is None and c.n >= N_LEAST for each in _span(c, objective)]
    seen = [*figure.data[0].x, *searched.values(), *wide]
    range_ = standing.scale(seen, certificate.directions[objective])
    figure.update_xaxes(title=standing.cut(metric, 40), range=range_)
    notes = [
        "Small dots are single trainings. The large mark is their mean, and its line says where the mean of "
        "many more would lie (95 % sure). A star is what the search measured: what it is off was luck.",
        *_off(rows, objective, range_),
    ]
    said = [f"{c.name} {c.expected[objective].told()}" for c in rows if c.expected[objective].told()]
    says = f"{metric} of each candidate when it is trained again: {some(said, 12)}."
    title = "Trained again" if len(certificate.metrics) == 1 else f"Trained again: {metric}"
    return Panel(title, paragraph(" ".join(notes)), figure, says, height=_height(len(rows)) + 20)


def _off(rows: Sequence[Certified], objective: int, range_: tuple[float, float] | None) -> list[str]:
    """Whose mean is not on the figure's scale."""
    values = {c.name: value for c in rows if (value := c.expected[objective].value) is not None}
    off = [
        f"{name} ({told(value)})"
        for name, value in values.items()
        if range_ and not range_[0] <= value <= range_[1]
    ]
    return [f"Off this scale: {some(off, 12)}."] if off else []


def _stars(searched: dict[str, float], place: dict[str, int]) -> go.Scatter:
    return go.Scatter(
        x=list(searched.values()),
        y=[place[name] for name in searched],
        mode="markers",
        name="in the search",
        marker={"color": BEST, "size": 11, "symbol": "star-open"},
        hovertemplate="in the search: %{x:.5g}<extra></extra>",
    )


def _single(rows: Sequence[Certified], place: dict[str, int], objective: int) -> go.Scatter:
    found: list[Any] = [
        (one.values[objective], place[candidate.name] + 0.22, f"{candidate.name}, training {number}")
        for candidate in rows
        for number, one in enumerate(candidate.trainings, start=1)
        if one.values is not None
    ]
    x, y, texts = zip(*found, strict=True)
    return go.Scatter(
        x=x,
        y=y,
        text=texts,
        mode="markers",
        name="single training",
        marker={"color": QUIET, "size": 6, "opacity": 0.7},
        hovertemplate="%{text}: %{x:.5g}<extra></extra>",
    )


def _span(candidate: Certified, objective: int) -> tuple[float, float, float]:
    """Mean and interval; the mean alone where one training says nothing of an interval."""
    expected = candidate.expected[objective]
    assert expected.value is not None
    low, high = expected.low, expected.high
    return expected.value, expected.value if low is None else low, expected.value if high is None else high


def _labelled(candidate: Certified) -> str:
    """With when it dropped out."""
    return candidate.name if candidate.out is None else f"{candidate.name} · out at {candidate.out.at}"
