"""The figures of the report, each with what it shows in words and numbers. Only the report imports this."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial
from optuna.visualization import plot_optimization_history, plot_pareto_front

from sweeper import outcome, ranking
from sweeper.results import standing
from sweeper.results.markup import duration, paragraph, told
from sweeper.results.panel import Panel, Table
from sweeper.results.standing import Curve, Point, Price, option
from sweeper.results.study_record import StudyRecord
from sweeper.words import counted, some

BEST, DONE, QUIET = "#d9480f", "#2f7ed8", "#868e96"
"""Colours that stand out from white and from nearly black."""

COLOURS = {
    "done": DONE,
    "pruned": QUIET,
    "failed": "#d6336c",
    "stopped": "#9c5de0",
    "lost": "#9c5de0",
    "running": "#2b9a66",
}
"""By what people read of a trial."""

PATTERNS = {"failed": "x", "stopped": "/", "lost": "/", "running": "."}
DASHES = {"failed": "dash", "stopped": "dot", "lost": "dot", "running": "dashdot"}
"""What tells them apart for who sees no red and green; done, pruned and the best differ in any case."""

PALETTE = (DONE, BEST, "#2b9a66", "#9c5de0", "#b08a1e", "#d6336c")
"""Of studies side by side; each also has dashes and marks of its own."""


# ---------------------------------------------------------------------------------------------- the search


def history(seen: StudyRecord) -> list[Panel]:
    """The scores, trial by trial, and the best so far; Optuna's own plot, for each objective."""
    done = standing.completed(seen)
    if len(done) < 2:
        return []
    panels = []
    for index, name in enumerate(seen.metrics):
        figure = _history([seen], index)
        values = [trial.values[index] for trial in done]
        range_ = standing.scale(values, seen.directions[index])
        figure.update_yaxes(range=range_, title=standing.cut(name, 40))
        figure.update_xaxes(title="trial")
        pick = max if seen.directions[index] == "maximize" else min
        best = pick(values)
        says = (
            f"{name} of {counted(len(done), 'completed trial')}, in the order of their numbers. "
            f"The best is {told(best)}, the middle {told(statistics.median(values))}."
        )
        html = paragraph(f"{off[0]}.") if (off := _off(values, range_)) else ""
        panels.append(Panel(f"{_name(seen, name)} by trial", html, figure, says))
    return panels


def _history(records: Sequence[StudyRecord], objective: int = 0) -> go.Figure:
    """Optuna's plot; it has the best so far where there is one objective."""
    studies = [standing.as_study(seen) for seen in records]
    # A target takes away the best so far.
    target = None if len(records[0].metrics) == 1 else partial(_value, objective)
    figure = plot_optimization_history(studies, target=target, target_name=records[0].metrics[objective])
    figure.data = [trace for trace in figure.data if trace.x]
    _own(figure)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    for traces in (lines, [trace for trace in figure.data if trace.mode == "markers"]):
        looks = zip(cycle(PALETTE), cycle(("solid", "dash", "dot", "dashdot")), cycle(_MARKS), strict=False)
        for seen, trace, (colour, dash, symbol) in zip(records, traces, looks, strict=False):
            name = f"{standing.cut(seen.name, 30)}: " if len(records) > 1 else ""
            trace.name = name + ("best so far" if trace.mode == "lines" else "trials")
            of_one = BEST if len(records) == 1 else colour
            trace.line = {"color": of_one, "width": 2, "shape": "hv", "dash": dash}
            trace.marker = {"color": colour, "size": 6, "symbol": symbol}
    return figure


_MARKS = ("circle", "square", "diamond", "triangle-up", "cross")


def _value(objective: int, trial: FrozenTrial) -> float:
    return float(trial.values[objective])


def _name(seen: StudyRecord, metric: str) -> str:
    return "Score" if metric == "value" and len(seen.metrics) == 1 else metric


def _own(figure: go.Figure) -> None:
    """Take from one of Optuna's plots what the page says itself: heading, template, size."""
    figure.update_layout(title=None, template=None, width=None, height=None)


def learning_curves(seen: StudyRecord, objective: int = 0) -> Panel | None:
    """The objective of all trials, step by step."""
    found = standing.curves(seen, objective)
    if not found:
        return None
    name, direction = seen.metrics[objective], seen.directions[objective]
    best = {trial.number for trial in standing.best_trials(seen)}
    kept, every = standing.thinned(found, best)
    figure = go.Figure()
    groups = {word: [c for c in kept if c.word == word and c.number not in best] for word in COLOURS}
    opacity = 0.75 if len(kept) <= 50 else 0.45
    for word, group in groups.items():
        if group:
            line = {"color": COLOURS[word], "width": 1, "dash": DASHES.get(word, "solid")}
            figure.add_trace(_lines(group, word, line, opacity))
    if chosen := [c for c in kept if c.number in best]:
        figure.add_trace(_lines(chosen, "best", {"color": BEST, "width": 2.5}, opacity=1))
    last = [curve.values[-1] for curve in kept]
    range_ = standing.scale([*last, *(v for c in chosen for v in c.values)], direction)
    longest = max(curve.steps[-1] for curve in kept)
    figure.update_xaxes(title="epoch" if seen.run(seen.trial(kept[0].number)).is_ours else "step")
    figure.update_yaxes(title=standing.cut(name, 40), range=range_)
    if longest <= 12:
        figure.update_xaxes(dtick=1)
    pruned = sum(curve.word == "pruned" for curve in found)
    says = (
        f"{name} step by step, of {counted(len(found), 'trial')}, {pruned} of them pruned, over up to "
        f"{counted(longest, 'step')}. They end at {told(min(last))} … {told(max(last))}."
    )
    notes = [f"{len(kept)} of {len(found):,} curves are drawn."] if len(kept) < len(found) else []
    notes += [f"Of each, one point in {every} is drawn, and the last one."] if every > 1 else []
    notes += [f"{told_off}." for told_off in _off(last, range_)]
    missing = sum(trial.state.is_finished() for trial in seen.trials) - len(found)
    notes += [f"{counted(missing, 'trial')} left no values."] if missing > 0 else []
    html = paragraph(" ".join(notes)) if notes else ""
    return Panel(f"{_name(seen, name)} while training, all trials", html, figure, says, height=360)


def _lines(curves: Sequence[Curve], name: str, line: Mapping[str, Any], opacity: float) -> go.Scatter:
    """All curves in one trace, with a gap between them: a page with a thousand traces would be slow."""
    x, y, numbers = list[int | None](), list[float | None](), list[int]()
    for curve in curves:
        x += [*curve.steps, None]
        y += [*map(_rounded, curve.values), None]
        numbers += [curve.number] * (len(curve.steps) + 1)
    return go.Scatter(
        x=x,
        y=y,
        customdata=numbers,
        mode="lines" if any(len(curve.steps) > 1 for curve in curves) else "markers",
        name=name,
        opacity=opacity,
        line=line,
        hovertemplate="trial %{customdata}<br>step %{x}: %{y:.5g}<extra></extra>",
    )


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def training_curves(rows: Sequence[Mapping[str, float]], best_epoch: int | None) -> list[Panel]:
    """Training against validation of one run: the loss, and each metric that both have."""
    names = [n.removeprefix("val_") for n in rows[0] if n.startswith("val_")] if rows else []
    return [
        _against(name, rows, best_epoch) for name in names if name == "loss" or f"train_{name}" in rows[0]
    ]


def _against(name: str, rows: Sequence[Mapping[str, float]], best_epoch: int | None) -> Panel:
    figure, epochs = go.Figure(), [int(row["epoch"]) for row in rows]
    for part, key, colour in (("training", "train_", QUIET), ("validation", "val_", DONE)):
        values = [_rounded(row.get(f"{key}{name}", math.nan)) for row in rows]
        figure.add_trace(
            go.Scatter(
                x=epochs,
                y=[value if math.isfinite(value) else None for value in values],
                name=part,
                mode="lines+markers" if len(epochs) <= 40 else "lines",
                line={"color": colour, "width": 2, "dash": "dot" if part == "training" else "solid"},
                marker={"size": 5},
                hovertemplate="epoch %{x}: %{y:.5g}",
            )
        )
    first, last, said = rows[0], rows[-1], []
    for part, key in (("training", f"train_{name}"), ("validation", f"val_{name}")):
        said.append(f"{part} from {told(first.get(key))} to {told(last.get(key))}")
    says = f"The {name} over {counted(len(rows), 'epoch')}: {', '.join(said)}."
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line={"color": BEST, "width": 1, "dash": "dash"})
        says += f" The best epoch is {best_epoch}."
    figure.update_xaxes(title="epoch", dtick=1 if len(rows) <= 12 else None, nticks=8)
    figure.update_xaxes(range=[epochs[0] - 0.5, epochs[-1] + 0.5])
    figure.update_yaxes(title=name)
    table = Table(
        ["epoch", "training", "validation"],
        [
            [epoch, row.get(f"train_{name}"), row.get(f"val_{name}")]
            for epoch, row in zip(epochs, rows, strict=True)
        ],
    )
    note = "" if best_epoch is None else paragraph(f"The dashed line is the best epoch, {best_epoch}.")
    return Panel(
        f"{name.capitalize()} of the best trial", note, figure, says=says, table=table, is_small=True
    )


# ------------------------------------------------------------------------------------------ the parameters


def slices(seen: StudyRecord, objective: int = 0) -> list[Panel]:
    """Each parameter against the score, within its range."""
    space = standing.space(seen)
    by_name = {name: standing.points(seen, name, objective) for name in space}
    range_ = standing.scale(_shown_scores(seen, objective), seen.directions[objective])
    shorts = standing.shorts(list(space))
    best = {trial.number for trial in standing.best_trials(seen)}
    return [
        _slice(seen, name, shorts[name], space[name], points, range_, best, objective)
        for name, points in by_name.items()
        if len({point.number for point in points}) > 1
    ]


def _shown_scores(seen: StudyRecord, objective: int) -> list[float]:
    """Those that decide the scale: of the trials that are done, and of the better half of the pruned."""
    sign = 1 if seen.directions[objective] == "minimize" else -1
    scores = {"done": list[float](), "pruned": list[float]()}
    for trial in seen.trials:
        reached = standing.score(trial, objective)
        if reached is not None and (word := outcome.word(trial)) in scores:
            scores[word].append(reached)
    pruned = sorted(scores["pruned"], key=lambda value: sign * value)
    return scores["done"] + pruned[: (len(pruned) + 1) // 2]


def _off(values: Sequence[float], range_: tuple[float, float] | None) -> list[str]:
    """How many trials a scale leaves out, if any."""
    n = sum(not range_[0] <= value <= range_[1] for value in values) if range_ else 0
    return [f"{n} of {counted(len(values), 'trial')} off this scale"] if n else []


def _slice(
    seen: StudyRecord,
    name: str,
    title: str,
    distribution: BaseDistribution,
    points: Sequence[Point],
    range_: tuple[float, float] | None,
    best: set[int],
    objective: int,
) -> Panel:
    scores = [p.score for p in points]
    if range_ and not any(range_[0] <= value <= range_[1] for value in scores):
        range_ = standing.scale(scores, seen.directions[objective])  # none would be seen
    figure = go.Figure()
    for word, colour in (("pruned", QUIET), ("done", DONE)):
        some_ = [p for p in points if p.word == word and p.number not in best]
        if some_:
            figure.add_trace(_dots(some_, word, colour, distribution, size=6))
    if chosen := [p for p in points if p.number in best]:
        figure.add_trace(_dots(chosen, "best", BEST, distribution, size=12))
    figure.update_yaxes(title=standing.cut(seen.metrics[objective], 30), range=range_)
    done = [p for p in points if p.word == "done"]
    if isinstance(distribution, CategoricalDistribution):
        choices = standing.told_apart([option(choice) for choice in distribution.choices], 24)
        figure.update_xaxes(tickvals=list(range(len(choices))), ticktext=choices)
        figure.update_xaxes(range=[-0.5, len(choices) - 0.5])
        table, says = _by_choice(distribution, done, seen.directions[objective])
    else:
        figure.update_xaxes(**_axis(distribution))
        table = Table([], [])
        says = f"Searched within {standing.told_range(distribution)}."
        says += _where(distribution, [p.value for p in points if p.number in best])
    says = f"{name} against {seen.metrics[objective]}, {counted(len(points), 'trial')}. {says}"
    drew = {t.number for t in seen.trials if name in t.params and outcome.word(t) in ("done", "pruned")}
    n_without = len(drew - {p.number for p in points})
    without = [f"{counted(n_without, 'trial')} without a finite value"] if n_without else []
    html = paragraph(" · ".join([standing.told_range(distribution), *_off(scores, range_), *without]))
    figure.update_layout(showlegend=False)
    title = f"{title} against {seen.metrics[objective]}" if len(seen.metrics) > 1 else title
    return Panel(title, html, figure, says, table if table.rows else None, height=240, is_small=True)


def _dots(
    points: Sequence[Point], word: str, colour: str, distribution: BaseDistribution, size: int
) -> go.Scatter:
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else None
    texts = [told(p.value) if choices is None else option(p.value) for p in points]
    return go.Scatter(
        x=[p.value if choices is None else choices.index(p.value) for p in points],
        y=[_rounded(p.score) for p in points],
        customdata=[[p.number, text] for p, text in zip(points, texts, strict=True)],
        mode="markers",
        name=word,
        marker={
            "color": colour,
            "size": size,
            "symbol": {"pruned": "x-thin-open", "best": "star"}.get(word, "circle"),
            "opacity": 1 if word == "best" else 0.7,
        },
        hovertemplate="trial %{customdata[0]}<br>%{customdata[1]}: %{y:.5g}<extra></extra>",
    )


def _axis(distribution: Any) -> dict[str, Any]:
    """The range that was searched, with its ends where the axis ends."""
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log and low > 0:
        return {"type": "log", **_powers(low, high)}
    margin = 0.03 * (high - low) or 0.5
    return {"range": [low - margin, high + margin], "nticks": 6}


def _powers(low: float, high: float) -> dict[str, Any]:
    """The range of a logarithmic axis, and its marks as one types them."""
    marks = standing.ticks(low, high)
    low, high = math.log10(low), math.log10(high)
    margin = 0.03 * (high - low) or 0.5
    texts = [f"{mark:.0e}".replace("e-0", "e-").replace("e+0", "e") for mark in marks]
    texts = [told(mark) if 1e-2 < mark < 1e5 else text for mark, text in zip(marks, texts, strict=True)]
    return {"range": [low - margin, high + margin], "tickvals": marks, "ticktext": texts}


def _where(distribution: Any, values: Sequence[float]) -> str:
    return f" The best has {some([told(value) for value in values])}." if values else ""


def _by_choice(
    distribution: CategoricalDistribution, done: Sequence[Point], direction: str
) -> tuple[Table, str]:
    pick = max if direction == "maximize" else min
    rows, said = list[list[object]](), []
    for choice in distribution.choices:
        scores = [p.score for p in done if p.value == choice]
        best, middle = (pick(scores), statistics.median(scores)) if scores else (None, None)
        rows.append([option(choice), len(scores), best, middle])
        said.append(
            f"{option(choice)}: best {told(best)} of {len(scores)}"
            if scores
            else f"{option(choice)}: none done"
        )
    return Table(["option", "done", "best", "median"], rows), f"{some(said, 6)}."


MOST_AXES = 12
MOST_LINES = 200


def parallel(seen: StudyRecord, objective: int = 0) -> Panel | None:
    """A line for each completed trial through all that it drew, and its score."""
    done = [t for t in standing.completed(seen) if standing.score(t, objective) is not None]
    space = standing.space(seen)
    # What only some have stands behind the score, where the lines of the others end.
    common = [n for n in space if all(n in t.params for t in done)][:MOST_AXES]
    partly = [n for n in space if n not in common and any(n in t.params for t in done)]
    partly = partly[: MOST_AXES - len(common)]
    names = [*common, *partly]
    if len(done) < 2 or len(names) < 2:
        return None
    axes = [*common, seen.metrics[objective], *partly]
    sign = 1 if seen.directions[objective] == "minimize" else -1
    ranked = sorted(ranking.ranked(done, seen.directions), key=lambda t: sign * t.values[objective])
    shown = ranked[:MOST_LINES]
    scores = [trial.values[objective] for trial in shown]
    low, high = standing.scale(scores, seen.directions[objective]) or (0.0, 1.0)
    bounds = max(low, min(scores)), min(high, max(scores))
    quarter = max(1, len(shown) // 4)

    def places(trial: FrozenTrial) -> dict[str, tuple[float, str]]:
        """Where a trial's line passes each axis, and what it has there."""
        value = trial.values[objective]
        height = (value - bounds[0]) / (bounds[1] - bounds[0] or 1)
        drawn = {n: (_height(v, space[n]), option(v)) for n, v in trial.params.items() if n in space}
        return {seen.metrics[objective]: (min(1.0, max(0.0, height)), told(value))} | drawn

    groups = (
        ("the others", shown[quarter:], QUIET, 1.0, 0.55 if len(shown) <= 50 else 0.35),
        ("the best quarter", shown[1:quarter], DONE, 1.2, 0.8),
        ("the best", shown[:1], BEST, 3.0, 1.0),
    )
    figure = go.Figure(
        [
            _through(axes, {trial.number: places(trial) for trial in group}, name, colour, width, opacity)
            for name, group, colour, width, opacity in groups
            if group
        ]
    )
    _draw_axes(figure, axes, space, bounds)
    says = (
        f"A line for each of {counted(len(shown), 'completed trial')}, through {some(names, 12)} to "
        f"{seen.metrics[objective]}. The best quarter stands out."
    )
    notes = [f"The {MOST_LINES} best of {len(done):,} trials are drawn."] if len(done) > len(shown) else []
    n_left = len(space) - len(names)
    notes += [f"{counted(n_left, 'parameter')} more would not fit."] if n_left > 0 else []
    html = paragraph(" ".join(notes)) if notes else ""
    return Panel("All parameters together", html, figure, says, height=380)


def _through(
    axes: Sequence[str],
    places: Mapping[int, Mapping[str, tuple[float, str]]],
    name: str,
    colour: str,
    width: float,
    opacity: float,
) -> go.Scatter:
    """The lines of some trials from axis to axis, in one trace."""
    y, text = list[float | None](), list[str]()
    for number, at in places.items():
        y += [*(at[axis][0] if axis in at else None for axis in axes), None]
        text += [*(f"trial {number}<br>{axis}: {at[axis][1]}" if axis in at else "" for axis in axes), ""]
    return go.Scatter(
        x=[*range(len(axes)), None] * len(places),
        y=y,
        text=text,
        name=name,
        mode="lines",
        opacity=opacity,
        line={"color": colour, "width": width},
        hovertemplate="%{text}<extra></extra>",
    )


def _height(value: Any, distribution: Any) -> float:
    """Where a value is on its axis, 0 … 1."""
    if isinstance(distribution, CategoricalDistribution):
        n = len(distribution.choices)
        return (distribution.choices.index(value) + 0.5) / n
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log and low > 0:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return 0.5 if high == low else (value - low) / (high - low)


def _draw_axes(
    figure: go.Figure, names: Sequence[str], space: Mapping[str, Any], bounds: tuple[float, float]
) -> None:
    labels = standing.shorts(names)
    for i, name in enumerate(names):
        line = {"color": QUIET, "width": 1}
        figure.add_shape(type="line", x0=i, x1=i, y0=0, y1=1, line=line, layer="below")
        distribution = space.get(name)
        if isinstance(distribution, CategoricalDistribution):
            n = len(distribution.choices)
            told_ = standing.told_apart([option(choice) for choice in distribution.choices], 14)
            ticks = [((j + 0.5) / n, text) for j, text in enumerate(told_)] if n <= 8 else []
        else:
            low, high = bounds if distribution is None else (distribution.low, distribution.high)
            ticks = [(place, told(float(f"{end:.3g}"))) for place, end in ((0.0, low), (1.0, high))]
        for y, text in ticks:
            is_end = y in (0, 1)
            figure.add_annotation(
                x=i,
                y=y,
                text=text,
                showarrow=False,
                yshift=(9 if y else -9) if is_end else 0,
                xshift=0 if is_end else 4,
                xanchor="center" if is_end else "left",
            )
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[standing.cut(labels[name], 30) for name in names],
        range=[-0.4, len(names) - 0.6],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])


# ------------------------------------------------------------------------------------------- time and cost


def timeline(seen: StudyRecord) -> Panel | None:
    """Workers over time, each trial in the colour of its end."""
    times = standing.times(seen)
    if not times.spans:
        return None
    unit, length = _unit(times.wall_s)
    figure = go.Figure()
    n_lanes = len(times.lanes)
    for word, colour in COLOURS.items():
        spans = [span for span in times.spans if span.word == word]
        if spans:
            figure.add_trace(
                go.Bar(
                    orientation="h",
                    y=[span.lane + 1 for span in spans],
                    base=[_rounded(span.begin_s / length) for span in spans],
                    x=[_rounded((span.end_s - span.begin_s) / length) for span in spans],
                    customdata=[[span.number, duration(span.end_s - span.begin_s)] for span in spans],
                    name=word,
                    marker={
                        "color": colour,
                        "line": {"width": 0},
                        "pattern": {"shape": PATTERNS.get(word, "")},
                    },
                    width=0.72,
                    hovertemplate="trial %{customdata[0]}<br>%{customdata[1]}",
                )
            )
    for pause in times.pauses:
        figure.add_vline(x=pause.at_s / length, line={"color": QUIET, "width": 1, "dash": "dot"})
    figure.update_layout(barmode="overlay", bargap=0.2)
    figure.update_xaxes(title=f"{unit} since the first trial began", rangemode="tozero")
    ticks = list(range(1, n_lanes + 1)) if n_lanes <= 16 else None
    figure.update_yaxes(title="worker", tickvals=ticks, range=[n_lanes + 0.6, 0.4], showgrid=False)
    counts = {w: sum(span.word == w for span in times.spans) for w in COLOURS}
    told_counts = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    busy = times.trial_s / (n_lanes * times.wall_s) if times.wall_s else 0
    says = (
        f"{counted(n_lanes, 'worker')} over {duration(times.wall_s)}: {told_counts}. "
        f"They were busy for {busy:.0%} of the time."
    )
    notes = [f"Busy for {busy:.0%} of the time."]
    if times.pauses:
        idle = sum(pause.seconds for pause in times.pauses)
        notes.append(
            f"{counted(len(times.pauses), 'stretch', 'stretches')} without any trial, "
            f"{duration(idle)} in all, left out at the dotted lines."
        )
    height = 130 + 30 * min(n_lanes, 16)
    return Panel("Workers over time", paragraph(" ".join(notes)), figure, says, height=height)


def _unit(seconds: float) -> tuple[str, float]:
    return ("seconds", 1) if seconds < 180 else ("minutes", 60) if seconds < 3 * 3600 else ("hours", 3600)


def costs(seen: StudyRecord) -> list[Panel]:
    """What each completed trial cost against what it reached, with the Pareto front."""
    if len(seen.directions) > 1:
        return []
    panels = []
    for attribute, name in standing.PRICES.items():
        paid = standing.prices(seen, attribute)
        if len({price.cost for price in paid}) > 1:
            panels.append(_cost(seen, attribute, name, paid))
    return panels


def _cost(seen: StudyRecord, attribute: str, name: str, paid: Sequence[Price]) -> Panel:
    best = standing.front(paid, seen.directions[0])
    figure = go.Figure()
    marks = (("trials", paid, DONE, "markers", 6), ("best for its cost", best, BEST, "lines+markers", 8))
    for label, prices, colour, mode, size in marks:
        figure.add_trace(
            go.Scatter(
                x=[_rounded(p.cost) for p in prices],
                y=[_rounded(p.score) for p in prices],
                customdata=[p.number for p in prices],
                mode=mode,
                name=label,
                line={"color": colour, "width": 1.5, "shape": "hv"},
                marker={"color": colour, "size": size, "opacity": 0.75},
                hovertemplate="trial %{customdata}<br>%{x:,.5g}: %{y:.5g}<extra></extra>",
            )
        )
    values = [p.cost for p in paid]
    is_wide = min(values) > 0 and max(values) / min(values) > 30
    figure.update_xaxes(title=name, nticks=6)
    if is_wide:
        figure.update_xaxes(type="log", **_powers(min(values), max(values)))
    scores = [p.score for p in paid]
    range_ = standing.scale(scores, seen.directions[0])
    figure.update_yaxes(title=standing.cut(seen.metrics[0], 30), range=range_)
    table = Table(["trial", name, seen.metrics[0]], [[str(p.number), p.cost, p.score] for p in best])
    says = (
        f"{seen.metrics[0]} against {name} of {counted(len(paid), 'trial')}. On the Pareto front: "
        + some([f"{told(p.score)} for {told(p.cost)}" for p in best], 6)
        + "."
    )
    notes = _off(scores, range_)
    if attribute == "peak_memory_mb":
        notes.append("On a CPU, the peak of the worker's process since it started")
    title = {"seconds": "Time", "peak_memory_mb": "Memory", "n_parameters": "Size"}[attribute]
    html = paragraph(" · ".join(notes)) if notes else ""
    return Panel(f"{title} against score", html, figure, says, table, height=280, is_small=True)


def pareto(seen: StudyRecord) -> list[Panel]:
    """The Pareto front of several objectives, two by two; Optuna's own plot."""
    if len(seen.directions) < 2 or not standing.completed(seen):
        return []
    study, best, panels = standing.as_study(seen), standing.best_trials(seen), []
    for a in range(len(seen.metrics)):
        for b in range(a + 1, len(seen.metrics)):
            names = [seen.metrics[a], seen.metrics[b]]
            targets = None if len(seen.metrics) == 2 else partial(_pair, a, b)
            figure = plot_pareto_front(study, target_names=names, targets=targets)
            _own(figure)
            for axes, objective in ((figure.update_xaxes, a), (figure.update_yaxes, b)):
                axes(range=_whole([t.values[objective] for t in standing.completed(seen)]))
            looks = (("trials", DONE, 6), ("Pareto front", BEST, 9))
            for trace, (label, colour, size) in zip(figure.data, looks, strict=False):
                marker = {"color": colour, "size": size, "showscale": False}
                trace.update(name=label, showlegend=True, marker=marker)
            rows = [[str(t.number), *t.values] for t in best]
            says = f"{names[0]} against {names[1]}; {counted(len(best), 'trial')} on the Pareto front."
            title = f"Pareto front: {names[0]} and {names[1]}"
            panels.append(Panel(title, "", figure, says, Table(["trial", *seen.metrics], rows), height=360))
    return panels


def _whole(values: Sequence[float]) -> tuple[float, float] | None:
    """A range with all values: one that plotly seeks may change with its margins, to and fro."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    margin = 0.06 * (max(finite) - min(finite)) or 0.05 * abs(finite[0]) or 1.0
    return min(finite) - margin, max(finite) + margin


def _pair(a: int, b: int, trial: FrozenTrial) -> tuple[float, float]:
    return trial.values[a], trial.values[b]


def compared(records: Sequence[StudyRecord]) -> Panel | None:
    """The best so far of several studies with the same objective; Optuna's own plot."""
    records = [seen for seen in records if standing.completed(seen)]
    objectives = {(seen.directions, seen.metrics) for seen in records}
    if len(records) < 2 or len(objectives) > 1 or len(records[0].directions) > 1:
        return None
    name = records[0].metrics[0]
    figure = _history(records)
    values = [trial.values[0] for seen in records for trial in standing.completed(seen)]
    figure.update_yaxes(title=name, range=standing.scale(values, records[0].directions[0]))
    figure.update_xaxes(title="trial")
    n_studies = counted(len(records), "study", "studies")
    says = f"{name} of {n_studies}, trial by trial, with the best so far of each."
    return Panel(f"{name} by trial", figure=figure, says=says, height=380)
