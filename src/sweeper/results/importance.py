"""How much of the differences between trials goes with each parameter, as far as the trials tell.

The score of a trial is the share of the others that it beats; two trials are compared at the last epoch that
both reached, so that one that was pruned at epoch 3 competes with what the others had at epoch 3. The scores
are explained by a sum of one smooth function for each parameter, each with a variance that is found from the
scores (MacKay, Bayesian Interpolation, 1992): a parameter without effect falls to zero instead of
taking its part of the noise, and few trials with many parameters can be weighed.

The interval is a bootstrap of halves: half of the trials are drawn without replacement, again and again.
Doubled rows, which flatter any fit, do not arise, and an estimate from n/2 of n rows scatters as much as that
from n does (Politis and Romano, 1994). Forests with permuted columns, and fANOVA on them, were the
alternative: they shrink what is large, take ten times as long, and know only what all trials have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeper.results import markup
from sweeper.results.panel import Panel, Table
from sweeper.results.study_record import StudyRecord
from sweeper.words import counted, some

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STARS: Mapping[str, int] = {
    "optimizer.lr": 5,
    "optimizer.head_lr_factor": 5,
    "optimizer.stage_lr_decay": 5,
    "optimizer": 4,
    "freezing": 4,
    "optimizer.weight_decay": 3,
    "training.batch_size": 3,
    "scheduler": 3,
    "augmentation": 3,
    "training.epochs": 2,
    "model.dropout": 2,
}
"""The importance that the guide to transfer learning gives a key, of five stars."""

FEWEST = 10
"""Trials below which nothing is told of any parameter."""

FEWEST_WITH_IT = 5
"""Trials that have a parameter, below which nothing is told of it."""

NOTHING = 0.005
"""A share up to which an interval's lower end reads 0.00. Parameters without effect pass for important in
less than 1 % of cases, with uniform draws and with TPE's (``benchmarks/importance.py``)."""

LITTLE = 0.05
"""A share below which a parameter does little, which is something to tell."""

_LOW, _HIGH = 0.05, 0.95
_N_HALVES = 100
_N_STEPS = 40
"""Of the fixed-point iteration; the shares then change by less than 0.01."""
_MOST_TRIALS = 2000
"""That are compared with each other: all pairs are."""
_MOST_IN_HALF = 500
_MOST_COLUMNS = 200
"""Above which there are more functions than anybody has trials for."""
_DEGREE = 3
_NUMERALS = ("no", "one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Importance:
    """The share of the differences between trials that goes with one parameter by itself."""

    name: str
    """Its key; ``optimizer.lr`` also for ``optimizer.lr[freezing=head]`` and its like together."""
    low: float
    median: float
    high: float
    """From 0 to 1 where the trials are too few for any number."""
    n_trials: int
    """Trials that have the parameter and can be compared."""
    stars: int | None
    """What the guide gives it; None where the guide gives none."""
    says: str
    """``the guide: five stars; your data: 0.31 … 0.55``."""

    @property
    def is_told(self) -> bool:
        """Whether the interval says that the parameter matters, or how little it does."""
        return self.matters or self.high < LITTLE

    @property
    def matters(self) -> bool:
        return self.low > NOTHING


def importances(record: StudyRecord, objective: int = 0) -> list[Importance]:
    """The importance of each parameter that had more than one value; what matters most comes first.

    Args:
        objective: the place of the objective that is meant.
    """
    return _weigh(record, objective)[0]


def warning(record: StudyRecord) -> str | None:
    """A sentence where optuna-dashboard's importance, which has no interval, rests on too few trials."""
    trials = [trial for trial in record.trials if trial.state == TrialState.COMPLETE]
    n_parameters = len(_parameters(trials))
    needed = max(FEWEST, 10 * n_parameters)
    if not trials or n_parameters < 2 or len(trials) >= needed:
        return None
    return (
        "Do not trust the hyperparameter importance shown here: it rests on "
        f"{counted(len(trials), 'done trial')}, and {counted(n_parameters, 'parameter')} take about {needed}."
    )


# ---------------------------------------------------------------------------------------- shown to people


def panels(record: StudyRecord) -> list[Panel]:
    """A figure and a table for each objective; none where nothing was searched."""
    found = []
    for objective, metric in enumerate(record.metrics or ("value",)):
        weighed, rest = _weigh(record, objective)
        if weighed:
            title = "What mattered" if len(record.directions) == 1 else f"What mattered for {metric}"
            found.append(_panel(title, weighed, rest))
    return found


def _panel(title: str, weighed: Sequence[Importance], rest: tuple[float, float] | None) -> Panel:
    told = [one for one in weighed if one.is_told]
    silent = [one.name for one in weighed if not one.is_told]
    lines = []
    if told:
        lines.append(
            "How much of the differences between trials goes with each parameter by itself. Pruned trials "
            "are compared with others at the same epoch. About nine of ten intervals hold the true share."
        )
    if rest is not None and told:
        lines.append(f"The rest, {_span(*rest)}, is how parameters work together, and chance.")
    if silent:
        n_trials = max(one.n_trials for one in weighed)
        lines.append(f"Your data do not tell: {some(silent, 20)} ({counted(n_trials, 'trial')}).")
    table = Table(("parameter", "the guide", "your data"), [_row(one) for one in weighed])
    return Panel(
        title,
        Markup().join(map(markup.paragraph, lines)) + markup.table(table),  # in sight: the stars are there
        _figure(told),
        "; ".join(f"{one.name}: {one.says}" for one in told) or lines[-1],
        height=90 + 34 * len(told),
    )


def _row(one: Importance) -> tuple[str, str | None, str]:
    return one.name, _stars(one.stars) if one.stars else None, _data_say(one)


def _data_say(one: Importance) -> str:
    return one.says.rpartition("; ")[2].removeprefix("your data").removeprefix(":").strip()


def _figure(weighed: Sequence[Importance]) -> go.Figure | None:
    if not weighed:
        return None
    import plotly.graph_objects as go

    shown = weighed[::-1]  # plotly begins at the bottom
    points = go.Scatter(
        x=[one.median for one in shown],
        y=[one.name for one in shown],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.median for one in shown],
            "arrayminus": [one.median - one.low for one in shown],
        },
        mode="markers",
        hovertext=[one.says for one in shown],
        hoverinfo="text",
    )
    figure = go.Figure(points)
    figure.update_xaxes(title="share of the differences between trials", range=[0, 1])
    figure.update_yaxes(automargin=True)
    figure.update_layout(showlegend=False)
    return figure


def _says(stars: int | None, data: str) -> str:
    return f"the guide: {_stars(stars)}; {data}" if stars else data


def _stars(stars: int) -> str:
    return f"{_NUMERALS[stars]} {'star' if stars == 1 else 'stars'}"


def _span(low: float, high: float) -> str:
    return f"{low:.2f} … {high:.2f}"


# ----------------------------------------------------------------------------------------------- weighing


def _weigh(record: StudyRecord, objective: int) -> tuple[list[Importance], tuple[float, float] | None]:
    """The importances, and the interval of what no parameter explains by itself."""
    import numpy as np

    is_best_large = record.directions[objective] == "maximize"
    trials = _comparable(record.trials)
    names = _parameters(trials)
    if len(trials) > _MOST_TRIALS:
        chosen = np.random.default_rng(0).permutation(len(trials))[:_MOST_TRIALS]
        trials = [trials[index] for index in sorted(chosen)]
    n_with = {name: _n_with(trials, variants) for name, variants in names.items()}
    scores = _scores(trials, objective, is_best_large) if len(trials) >= FEWEST else np.zeros(1)
    if np.ptp(scores) == 0:
        return [_silent(name, n_with[name], len(trials)) for name in names], None
    blocks = {name: _columns(trials, variants) for name, variants in names.items()}
    weighable = {name: block for name, block in blocks.items() if block is not None}
    shares = _bootstrap(list(weighable.values()), scores) if _fits(weighable) else None
    found = []
    for name in names:
        if shares is None or name not in weighable:
            found.append(_silent(name, n_with[name], len(trials)))
        else:
            found.append(_told(name, shares[:, list(weighable).index(name)], n_with[name], len(trials)))
    found.sort(key=lambda one: (one.matters, one.is_told, one.median), reverse=True)
    return found, None if shares is None else _interval(shares[:, -1])[::2]


def _told(name: str, shares: Array, n_with: int, n_trials: int) -> Importance:
    low, median, high = _interval(shares)
    where = "" if n_with == n_trials else f" ({n_with} of {counted(n_trials, 'trial')} have it)"
    if low > NOTHING:
        data = f"your data: {_span(low, high)}{where}"
    elif high < LITTLE:
        data = f"your data: below {LITTLE} by itself{where}"
    else:
        return _silent(name, n_with, n_trials, (low, median, high))
    stars = STARS.get(name)
    return Importance(name, low, median, high, n_with, stars, _says(stars, data))


def _silent(
    name: str, n_with: int, n_trials: int, interval: tuple[float, float, float] = (0.0, 0.5, 1.0)
) -> Importance:
    where = (
        counted(n_with, "trial")
        if n_with == n_trials
        else f"{n_with} of {counted(n_trials, 'trial')} have it"
    )
    stars = STARS.get(name)
    return Importance(name, *interval, n_with, stars, _says(stars, f"your data do not tell: {where}"))


def _interval(shares: Array) -> tuple[float, float, float]:
    """Rounded, so that the last bits of another machine's arithmetic show nowhere."""
    import numpy as np

    low, median, high = (round(float(q), 4) for q in np.quantile(shares, [_LOW, 0.5, _HIGH]))
    return max(low, 0.0), max(median, 0.0), min(high, 1.0)


def _fits(blocks: Mapping[str, Array]) -> bool:
    n_columns: int = sum(block.shape[1] for block in blocks.values())
    return 0 < n_columns <= _MOST_COLUMNS


# ------------------------------------------------------------------------------------------------- scores


def _comparable(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that ended by themselves or by a pruner, and left a number or diverged."""
    return [
        trial
        for trial in trials
        if (trial.state == TrialState.COMPLETE and trial.values is not None)
        or (trial.state == TrialState.PRUNED and (trial.intermediate_values or _has_diverged(trial)))
    ]


def _has_diverged(trial: FrozenTrial) -> bool:
    """Whether that ended it."""
    is_finite = all(map(math.isfinite, trial.intermediate_values.values()))
    return trial.state == TrialState.PRUNED and ("diverged" in trial.user_attrs or not is_finite)


def _scores(trials: Sequence[FrozenTrial], objective: int, is_best_large: bool) -> Array:
    """For each trial the share of the others that it beats, half of one for each that is its equal.

    Two that are done are compared by their values; others at the last epoch that both reached, by their best
    until then, as pruners see it. What diverged loses to all that did not.
    """
    import numpy as np

    sign = 1.0 if is_best_large else -1.0
    is_done = np.array([trial.state == TrialState.COMPLETE for trial in trials], dtype=bool)
    last = [max(trial.intermediate_values, default=math.inf) for trial in trials]
    steps = np.array(sorted(set(last)))
    curves = np.array([_curve(trial, steps, objective, sign) for trial in trials])
    reached = np.searchsorted(steps, last)
    mine = np.take_along_axis(curves, np.minimum.outer(reached, reached), axis=1)
    ends = np.array([sign * trial.values[objective] if trial.values else 0.0 for trial in trials])
    mine = np.where(np.logical_and.outer(is_done, is_done), ends[:, None], mine)
    wins = (mine > mine.T) + 0.5 * (mine == mine.T)
    return np.asarray((wins.sum(1) - 0.5) / max(len(trials) - 1, 1))  # none is counted against itself


def _curve(trial: FrozenTrial, steps: Array, objective: int, sign: float) -> Array:
    """The best of a trial until each step; where it reported nothing, its value."""
    import numpy as np

    if _has_diverged(trial):
        return np.full(len(steps), -math.inf)
    reported = sorted(trial.intermediate_values.items())
    best = np.fmax.accumulate([sign * value for _, value in reported]) if reported else np.zeros(0)
    first = sign * trial.values[objective] if trial.values else best[0]
    place = np.searchsorted([step for step, _ in reported], steps, side="right")
    return np.concatenate([[first], best])[place]


# -------------------------------------------------------------------------------------------- parameters


def _parameters(trials: Iterable[FrozenTrial]) -> dict[str, list[str]]:
    """The keys that had several values, each with Optuna's names for it."""
    values: dict[str, dict[str, set[str]]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(_key(name), {}).setdefault(name, set()).add(repr(value))
    return {
        key: list(variants)
        for key, variants in values.items()
        if any(len(different) > 1 for different in variants.values())
    }


def _key(name: str) -> str:
    """``optimizer.lr`` of ``optimizer.lr[freezing=head]``."""
    key, bracket, rest = name.partition("[")
    return key if bracket and "=" in rest else name


def _n_with(trials: Iterable[FrozenTrial], variants: Iterable[str]) -> int:
    variants = set(variants)
    return sum(not variants.isdisjoint(trial.params) for trial in trials)


def _columns(trials: Sequence[FrozenTrial], variants: Iterable[str]) -> Array | None:
    """What a parameter may do, as columns of mean 0; 0 where a trial lacks it. None if too few have it.

    Ranges of its own in each option are functions of their own.
    """
    import numpy as np

    blocks = []
    for name in variants:
        rows = [index for index, trial in enumerate(trials) if name in trial.params]
        if len(rows) < FEWEST_WITH_IT or len({repr(trials[index].params[name]) for index in rows}) < 2:
            continue
        inside = _basis([trials[index].params[name] for index in rows], trials[rows[0]].distributions[name])
        block = np.zeros((len(trials), inside.shape[1]))
        block[rows] = inside
        blocks.append(block)
    return np.concatenate(blocks, axis=1) if blocks else None


def _basis(values: Sequence[Any], distribution: object) -> Array:
    """Numbers by their ranks, in polynomials: no scale is needed. All else has a column for each value."""
    import numpy as np

    is_choice = isinstance(distribution, CategoricalDistribution)
    if is_choice and not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        texts = [repr(value) for value in values]
        columns = np.array([[text == level for level in sorted(set(texts))] for text in texts], dtype=float)
        columns -= columns.mean(0)
        return columns * math.sqrt(columns.shape[1])
    levels, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - counts / 2)[place] / len(values) * 2 - 1
    powers = rank[:, None] ** np.arange(1, min(_DEGREE, len(levels) - 1) + 1)
    orthonormal, _ = np.linalg.qr(powers - powers.mean(0))
    return np.asarray(orthonormal) * math.sqrt(len(values))


# ----------------------------------------------------------------------------------------------- the fit


def _bootstrap(blocks: Sequence[Array], scores: Array) -> Array:
    """For each half of the trials the shares of the blocks, and last what none explains."""
    import numpy as np

    owner = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
    columns, rng = np.concatenate(blocks, axis=1), np.random.default_rng(0)
    n_rows = min(math.ceil(len(scores) / 2), _MOST_IN_HALF)
    n_halves = max(20, round(_N_HALVES * min(1.0, (60 / len(owner)) ** 3)))
    halves = np.stack([rng.permutation(len(scores))[:n_rows] for _ in range(n_halves)])
    return _shares(columns[halves], scores[halves], owner)


def _shares(columns: Array, scores: Array, owner: NDArray[np.int_]) -> Array:
    """Each block's share of the variance of the scores, for many samples at once.

    Coefficients of one block have one variance; the noise has one. Each is set to the mean square of
    what it should explain by the number of parameters that the data determine (MacKay 1992), again and again.

    Args:
        columns: sample × row × column.
        scores: sample × row.
        owner: the block of each column.
    """
    import numpy as np

    n_rows, n_columns = columns.shape[1:]
    diagonal = np.arange(n_columns)
    member = (owner[:, None] == np.arange(owner.max() + 1)).astype(float)
    columns = columns - columns.mean(1, keepdims=True)
    scores = scores - scores.mean(1, keepdims=True)
    gram = columns.transpose(0, 2, 1) @ columns
    toward = (columns.transpose(0, 2, 1) @ scores[:, :, None])[:, :, 0]
    total = np.maximum((scores**2).sum(1), 1e-12)
    one = total / (n_rows - 1)
    """The variance of the scores, which gives all others their scale."""
    size = np.maximum(gram[:, diagonal, diagonal] @ member, 1e-9) / (n_rows - 1)
    variance, noise = one[:, None] / (2 * member.shape[1] * size), one / 2
    for _ in range(_N_STEPS):
        precision = 1 / np.maximum(variance, 1e-12 * one[:, None])
        system = gram / noise[:, None, None]
        system[:, diagonal, diagonal] += precision @ member.T
        spread = np.linalg.inv(system)
        weight = (spread @ (toward / noise[:, None])[:, :, None])[:, :, 0]
        determined = member.sum(0) - precision * (spread[:, diagonal, diagonal] @ member)
        determined = np.maximum(determined, 1e-9)
        explained = (weight * (gram @ weight[:, :, None])[:, :, 0]).sum(1)
        left = total - 2 * (weight * toward).sum(1) + explained
        noise = np.maximum(left / np.maximum(n_rows - 1 - determined.sum(1), 1), 1e-4 * one)
        variance = (weight**2) @ member / determined
    # What a function is expected to explain: that of its mean, and its uncertainty.
    outer = weight[:, :, None] * weight[:, None, :] + spread
    by_column = (gram * outer * (member @ member.T)).sum(2)
    return np.concatenate([by_column @ member / total[:, None], (noise / one)[:, None]], axis=1)
