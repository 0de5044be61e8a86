"""How much of the differences between trials goes with each parameter, as far as the trials tell.

The score of a trial is the share of the others that it beats; two trials are compared at the last epoch that
both reached, so that one that was pruned at epoch 3 competes with what the others had at epoch 3. The scores
are explained by a sum of one function for each parameter and noise. A function is made of waves over the
ranks of the parameter, the longer the likelier, the more the more trials there are: so a cliff or a narrow
peak is followed as well as a slope. How strong it is, and how rough, is found from the scores, and nothing is
among the answers: a parameter without effect does not take its part of the noise, and few trials with many
parameters can be weighed (George and McCulloch, Variable Selection via Gibbs Sampling, 1993).

The interval is a bootstrap: two thirds of the trials are drawn without replacement, again and again, and with
each sample functions that it allows. Doubled rows, which flatter any fit, do not arise (Politis and Romano,
1994). Samples alone, each with its best fit, told too little of a cliff from 40 trials; functions alone, for
all trials, trusted too much that noise is normal and effects add up. Forests with permuted columns, and
fANOVA on them, were the alternative: they shrink what is large, take ten times as long, and know only what
all trials have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeper.results import markup, study_record
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
_SAMPLE = 0.65
"""The part of the trials that is drawn; a larger one holds the true share less often."""
_N_SAMPLES = 100
_MOST_IN_SAMPLE = 1000
_MOST_TRIALS = 2000
"""That are compared with each other: all pairs are."""
_MOST_COLUMNS = 400
"""Above which there are more functions than anybody has trials for."""
_FEWEST_WAVES, _MOST_WAVES = 3, 32
_N_WARM, _N_DRAWN = 50, 20
"""Rounds through all functions until they fit their sample, and those that are kept."""
_IDLE = 0.3
"""How likely a parameter does nothing, before its scores are seen."""
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
    """A sentence where optuna-dashboard's importance, which has no interval, rests on too few trials.

    It knows only those that are done. Where those that were pruned make enough of them, the search has no
    sign ``too_few_trials``, and the sentence says what is left out.
    """
    trials = [trial for trial in record.trials if trial.state == TrialState.COMPLETE]
    n_parameters, wanted = study_record.n_searched(record.trials), study_record.wanted(record.trials)
    if not trials or n_parameters < 2 or len(trials) >= wanted:
        return None
    n_pruned = sum(trial.state == TrialState.PRUNED for trial in record.trials)
    without = f", without {n_pruned:,} pruned" if n_pruned else ""
    return (
        "Do not trust the hyperparameter importance shown here: it rests on "
        f"{counted(len(trials), 'done trial')}{without}, "
        f"and {counted(n_parameters, 'parameter')} take about {wanted}."
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
        y=list(range(len(shown))),
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
    figure.update_xaxes(title="share of the differences", range=[-0.02, 1.02])
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=[one.name for one in shown])
    figure.update_yaxes(range=[-0.6, len(shown) - 0.4])
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
    from threadpoolctl import threadpool_limits

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
    most = min(_MOST_WAVES, _MOST_COLUMNS // (sum(map(len, names.values())) or 1))
    functions = {name: _functions(trials, variants, most) for name, variants in names.items()}
    weighable = {name: several for name, several in functions.items() if several}
    with threadpool_limits(1):  # for such small matrices, several threads take up to ten times as long
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


def _fits(functions: Mapping[str, Sequence[_Function]]) -> bool:
    n_columns: int = sum(one.columns.shape[1] for several in functions.values() for one in several)
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


@dataclass(frozen=True)
class _Function:
    """What a parameter may do: weighted columns, of mean 0; all 0 where a trial lacks it."""

    columns: Array
    has_it: NDArray[np.bool_]
    is_ordered: bool
    """Whether the columns are waves, the longest first."""


def _functions(trials: Sequence[FrozenTrial], variants: Iterable[str], most: int) -> list[_Function]:
    """One for each range of a parameter that has enough trials, for several options may have one each."""
    import numpy as np

    found = []
    for name in variants:
        rows = [index for index, trial in enumerate(trials) if name in trial.params]
        if len(rows) < FEWEST_WITH_IT or len({repr(trials[index].params[name]) for index in rows}) < 2:
            continue
        values = [trials[index].params[name] for index in rows]
        is_ordered = _is_ordered(values, trials[rows[0]].distributions[name])
        inside = _waves(values, most) if is_ordered else _levels(values)
        columns, has_it = np.zeros((len(trials), inside.shape[1])), np.zeros(len(trials), dtype=bool)
        columns[rows], has_it[rows] = inside, True
        found.append(_Function(columns, has_it, is_ordered))
    return found


def _is_ordered(values: Iterable[Any], distribution: object) -> bool:
    is_choice = isinstance(distribution, CategoricalDistribution)
    return not is_choice or all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _levels(values: Iterable[Any]) -> Array:
    """A column for each value but the commonest, the rarest last."""
    import numpy as np

    texts = list(map(repr, values))
    levels = sorted(set(texts), key=lambda text: (-texts.count(text), text))
    return np.asarray([[text == level for level in levels[1:]] for text in texts], dtype=float)


def _waves(values: Sequence[Any], most: int) -> Array:
    """Cosines over the ranks: no scale is needed."""
    import numpy as np

    levels, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - counts / 2)[place] / len(values)
    affordable = max(_FEWEST_WAVES, min(len(values) // 3, 10 + len(values) // 10, most))
    return np.asarray(np.cos(np.pi * rank[:, None] * np.arange(1, min(affordable, len(levels) - 1) + 1)))


# ----------------------------------------------------------------------------------------------- the fit


def _bootstrap(parameters: Sequence[Sequence[_Function]], scores: Array) -> Array:
    """Drawn shares of the parameters, and last of what none explains."""
    import numpy as np

    functions = [one for several in parameters for one in several]
    owner = np.repeat(np.arange(len(parameters)), [len(several) for several in parameters])
    member = (owner[:, None] == np.arange(len(parameters))).astype(float)
    n_columns = sum(one.columns.shape[1] for one in functions)
    n_rows = min(math.ceil(_SAMPLE * len(scores)), _MOST_IN_SAMPLE)
    n_samples = _N_SAMPLES if n_rows * n_columns <= 60_000 and n_columns <= 250 else _N_SAMPLES // 2
    rng = np.random.default_rng(0)
    samples = np.stack([rng.permutation(len(scores))[:n_rows] for _ in range(n_samples)])
    gram, toward = np.zeros((n_samples, n_columns, n_columns)), np.zeros((n_samples, n_columns))
    for index, rows in enumerate(samples):  # one by one, for the memory
        columns = np.concatenate([_orthonormal(one, rows) for one in functions], axis=1)
        gram[index], toward[index] = columns.T @ columns, columns.T @ scores[rows]
    explained, noise = _drawn(functions, gram, toward, scores[samples].var(1), n_rows, rng)
    total = explained.sum(1) + noise
    return np.asarray(np.concatenate([explained @ member, noise[:, None]], axis=1) / total[:, None])


def _orthonormal(function: _Function, rows: NDArray[np.int_]) -> Array:
    """Its columns on some rows, each of variance 1 and free of those before; 0 where nothing is left."""
    import numpy as np

    columns, has_it = function.columns[rows], function.has_it[rows, None]
    columns = np.where(has_it, columns - columns.sum(0) / max(int(has_it.sum()), 1), 0.0)
    direction, size = np.linalg.qr(columns)
    size = np.diagonal(size)
    kept = np.zeros_like(columns)
    kept[:, : len(size)] = direction * np.sign(size) * (np.abs(size) > 1e-6)
    return np.asarray(kept * math.sqrt(len(rows)))


def _prior(n_columns: int, is_ordered: bool) -> tuple[Array, Array]:
    """Variances that the columns of a function may have, in those of the noise, and their log probabilities.

    None; or together from 0.03 to 300, and then alike, or less for shorter waves: as of a function with jumps
    and edges, or of a smooth one.
    """
    import numpy as np

    wave = np.arange(1, n_columns + 1.0)
    shapes = np.array([wave**-2, wave**-4] if is_ordered and n_columns > 1 else [np.ones(n_columns)])
    shapes /= shapes.sum(1, keepdims=True)
    sizes = np.geomspace(0.03, 300, 13)
    variances = (sizes[:, None, None] * shapes).reshape(-1, n_columns)
    probability = np.full(len(variances), (1 - _IDLE) / len(variances))
    return np.vstack([np.zeros(n_columns), variances]), np.log([_IDLE, *probability])


def _drawn(
    functions: Sequence[_Function],
    gram: Array,
    toward: Array,
    variance: Array,
    n_rows: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """The variance of each function, and of the noise, in fits that the samples allow (Gibbs sampling).

    A function's size and shape are drawn first, for all weights that it may have, and then its weights.

    Args:
        gram: sample × column × column, of columns that are orthonormal within a function.
        toward: sample × column, the product of columns and scores.
        variance: of the scores of each sample.
    """
    import numpy as np

    ends = np.cumsum([one.columns.shape[1] for one in functions])
    places = [slice(end - one.columns.shape[1], end) for one, end in zip(functions, ends, strict=True)]
    priors = [_prior(one.columns.shape[1], one.is_ordered) for one in functions]
    n_samples, n_columns = toward.shape
    is_there = (gram[:, np.arange(n_columns), np.arange(n_columns)] > n_rows / 2).astype(float)
    weights, fitted, noise = np.zeros_like(toward), np.zeros_like(toward), variance.copy()
    explained, left = [], []
    for turn in range(_N_WARM + _N_DRAWN):
        penalty, n_used = np.zeros(n_samples), np.zeros(n_samples)
        for place, (variances, probability) in zip(places, priors, strict=True):
            there, old = is_there[:, place], weights[:, place]
            rest = toward[:, place] - fitted[:, place] + n_rows * there * old  # what others do not explain
            spread = variances / (1 + variances * n_rows)
            fit = probability - 0.5 * there @ np.log1p(variances * n_rows).T
            fit = fit + 0.5 * (rest**2 / noise[:, None]) @ spread.T
            chosen = np.argmax(fit + rng.gumbel(size=fit.shape), axis=1)
            mean, chance = spread[chosen] * rest, np.sqrt(noise[:, None] * spread[chosen])
            new = there * (mean + chance * rng.standard_normal(rest.shape))
            fitted += (gram[:, :, place] @ (new - old)[:, :, None])[:, :, 0]
            weights[:, place] = new
            used = there * (variances[chosen] > 0)
            penalty += (used * new**2 / np.where(used > 0, variances[chosen], 1)).sum(1)
            n_used += used.sum(1)
        off = variance * n_rows - 2 * (weights * toward).sum(1) + (weights * fitted).sum(1)
        spare = 2 * rng.standard_gamma((n_rows - 1 + n_used) / 2)
        noise = np.maximum((np.maximum(off, 0) + penalty) / spare, 1e-5 * variance + 1e-12)
        if turn >= _N_WARM:
            explained.append(np.stack([(weights[:, place] ** 2).sum(1) for place in places], axis=1))
            left.append(noise)
    return np.concatenate(explained), np.concatenate(left)
