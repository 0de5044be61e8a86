"""How a study stands: its best trials, what it searched, what it cost. Data for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper import outcome, ranking
from sweeper.fault import Fault
from sweeper.ranking import seconds_of
from sweeper.record.run_files import RunFiles
from sweeper.results.markup import told
from sweeper.results.study_record import StudyRecord
from sweeper.secret import hide_secrets

_IDLE = 0.05
"""The part of the busy time above which a stretch without any trial is left out of the time axis."""


def as_study(seen: StudyRecord) -> optuna.Study:
    """The study in memory, for Optuna's own plots; numbers stay the same."""
    directions = [StudyDirection[name.upper()] for name in seen.directions]
    study = optuna.create_study(
        study_name=seen.name, directions=directions, storage=optuna.storages.InMemoryStorage()
    )
    study.add_trials(map(_bare, seen.trials))
    return study


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """Without parameters and attributes: plots would repeat them for each trial, tracebacks and all."""
    bare = optuna.trial.create_trial(
        state=trial.state, values=trial.values if trial.state == TrialState.COMPLETE else None
    )
    bare.datetime_start, bare.datetime_complete = trial.datetime_start, trial.datetime_complete
    return bare


def best_trials(seen: StudyRecord) -> list[FrozenTrial]:
    """The best trial, or all on the Pareto front (see ``ranking``); empty while none has completed."""
    return ranking.best(seen.trials, seen.directions)


def best_run(seen: StudyRecord) -> RunFiles | None:
    """The files of the best trial, if it is a training run of ours."""
    best = best_trials(seen)
    is_chosen = seen.files.best.choice.exists()  # best/ is a certificate's then
    files, numbers = seen.files.best, {trial.number for trial in best}
    if not is_chosen and files.is_ours and files.read_result().get("trial") in numbers:
        return files
    runs = (seen.run(trial) for trial in best)
    return next((run for run in runs if run.is_ours), None)


def completed(seen: StudyRecord) -> list[FrozenTrial]:
    return [trial for trial in seen.trials if trial.state == TrialState.COMPLETE]


def score(trial: FrozenTrial, objective: int = 0) -> float | None:
    """What a trial reached: of a pruned one, what it reported last; None where there is no finite value."""
    if trial.values:
        value: float | None = trial.values[objective]
    else:
        value = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
    return value if value is not None and math.isfinite(value) else None


def ticks(low: float, high: float) -> list[float]:
    """Where an axis of powers is marked: at each power within it, or at its ends where there are too few."""
    powers = [
        10.0**n for n in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    ]
    every = math.ceil(len(powers) / 6)
    return powers[::every] if len(powers) > 1 else sorted({low, high, *powers})


def scale(values: Iterable[float], direction: str) -> tuple[float, float] | None:
    """The part of an axis on which values can be told apart: trials that went astray do not stretch it."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return None
    low, high = ordered[0], ordered[-1]
    lower, upper = (ordered[round(part * (len(ordered) - 1))] for part in (0.25, 0.75))
    reach = 3 * (upper - lower)
    if reach > 0 and direction == "minimize":
        high = max(value for value in ordered if value <= upper + reach)
    elif reach > 0:
        low = min(value for value in ordered if value >= lower - reach)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


# ----------------------------------------------------------------------------------------- what was searched


def short(name: str, most: int = 30) -> str:
    """A parameter by the last part of its name, and whose it is."""
    key, bracket, whose = name.partition("[")
    return cut(key.rpartition(".")[2] + (f" [{whose}" if bracket else ""), most)


def cut(text: str, most: int) -> str:
    """A text of which no more than so many characters are shown."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def told_apart(texts: Sequence[str], most: int) -> list[str]:
    """Texts of which no more than so many characters are shown, and those that differ: where their beginnings
    are alike, the middle is left out, and where that is not enough, they are counted.
    """
    found = [cut(text, most) for text in texts]
    if len(set(found)) < len(texts):
        found = [
            text if len(text) <= most else f"{text[: most // 3]}…{text[most // 3 + 1 - most :]}"
            for text in texts
        ]
    if len(set(found)) < len(texts):
        found = [f"{i}: {cut(text, most - 4)}" for i, text in enumerate(texts, start=1)]
    return found


def shorts(names: Sequence[str]) -> dict[str, str]:
    """Short names, whole where two would be the same."""
    found = [short(name) for name in names]
    return {name: text if found.count(text) == 1 else name for name, text in zip(names, found, strict=True)}


def space(seen: StudyRecord) -> dict[str, BaseDistribution]:
    """What was searched, by parameter: as wide as any trial had it."""
    found: dict[str, BaseDistribution] = {}
    begun = seen.attributes.get("space", {})
    for name, text in begun.items() if isinstance(begun, Mapping) else ():
        found[name] = json_to_distribution(text)
    for trial in seen.trials:
        for name, distribution in trial.distributions.items():
            found[name] = _wider(found.get(name), distribution)
    return found


def _wider(a: BaseDistribution | None, b: BaseDistribution) -> BaseDistribution:
    if a is None or a == b:
        return b if a is None else a
    if isinstance(a, FloatDistribution) and isinstance(b, FloatDistribution):
        return FloatDistribution(min(a.low, b.low), max(a.high, b.high), log=a.log)
    if isinstance(a, IntDistribution) and isinstance(b, IntDistribution):
        return IntDistribution(min(a.low, b.low), max(a.high, b.high), log=a.log)
    return a


def option(value: object) -> str:
    """One of several choices, as it is typed."""
    return told("null" if value is None else str(value).lower() if isinstance(value, bool) else value)


def told_range(distribution: BaseDistribution) -> str:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return ", ".join(map(option, choices))
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            step = getattr(distribution, "step", None)
            steps = f", in steps of {told(step)}" if step not in (None, 1) else ""
            return f"{told(low)} … {told(high)}{steps}{' (log)' if getattr(distribution, 'log', 0) else ''}"
        case other:
            return str(other)


def fixed(seen: StudyRecord) -> dict[str, str]:
    """The overrides with one value, as far as the study says."""
    written = seen.attributes.get("fixed", ())
    pairs = (
        (hide_secrets(str(item)).partition("=") for item in written) if isinstance(written, Sequence) else ()
    )
    return {key: value for key, _, value in pairs}


# --------------------------------------------------------------------------------------------- what it cost


class Span(NamedTuple):
    """A trial's time, in seconds since the first began, without idle stretches."""

    number: int
    lane: int
    word: str
    begin_s: float
    end_s: float


class Pause(NamedTuple):
    """A stretch without any trial, which is left out."""

    at_s: float
    seconds: float


@dataclass(frozen=True)
class Times:
    spans: Sequence[Span]
    pauses: Sequence[Pause]
    lanes: Sequence[str]
    """Workers, in the order in which they began; lanes where nobody knows them."""
    wall_s: float

    @property
    def trial_s(self) -> float:
        return sum(span.end_s - span.begin_s for span in self.spans)


def times(seen: StudyRecord) -> Times:
    """When each trial ran, and on which worker; a trial that runs does so until now."""
    begun = sorted((t for t in seen.trials if t.datetime_start), key=lambda t: (t.datetime_start, t.number))
    if not begun:
        return Times((), (), (), 0.0)
    ends = [t.datetime_complete or seen.read_at for t in begun]
    first = begun[0].datetime_start
    assert first is not None
    stretches = [
        ((t.datetime_start - first).total_seconds(), (max(t.datetime_start, end) - first).total_seconds())
        for t, end in zip(begun, ends, strict=True)  # two clocks may have told these
        if t.datetime_start is not None
    ]
    pauses = _pauses(stretches)
    lanes, names = _lanes(begun, stretches)

    def moved(second: float) -> float:
        """Pauses say where they are on the shortened axis."""
        left_out = 0.0
        for pause in pauses:
            if second >= pause.at_s + left_out + pause.seconds:
                left_out += pause.seconds
        return second - left_out

    spans = [
        Span(t.number, lane, outcome.word(t), moved(begin), moved(max(begin, end)))
        for t, lane, (begin, end) in zip(begun, lanes, stretches, strict=True)
    ]
    return Times(spans, pauses, names, max(span.end_s for span in spans))


def _pauses(stretches: Sequence[tuple[float, float]]) -> list[Pause]:
    """Long gaps between the stretches, which are sorted by their begin."""
    gaps, busy, until = list[tuple[float, float]](), 0.0, 0.0
    for begin, end in stretches:
        if begin > until:
            gaps.append((until, begin))
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    found, left_out = list[Pause](), 0.0
    for begin, end in gaps:
        if end - begin > max(60.0, _IDLE * busy):
            found.append(Pause(begin - left_out, end - begin))
            left_out += end - begin
    return found


def _lanes(
    trials: Sequence[FrozenTrial], stretches: Sequence[tuple[float, float]]
) -> tuple[list[int], list[str]]:
    """The lane of each trial, and what the lanes are called.

    A worker has a lane, and the next one that begins after its end goes on in it: a search that
    was resumed has no more workers at once. Where nobody knows the worker, each trial counts as one.
    """
    workers: list[Any] = [t.user_attrs.get("worker") for t in trials]
    if None in workers:
        workers = [t.number for t in trials]
    ends = dict[Any, float]()
    for worker, (_, end) in zip(workers, stretches, strict=True):
        ends[worker] = max(end, ends.get(worker, end))
    lane_of, taken = dict[Any, int](), list[list[Any]]()
    for worker, (begin, _) in zip(workers, stretches, strict=True):
        if worker not in lane_of:
            free = (i for i, had in enumerate(taken) if ends[had[-1]] <= begin)
            lane_of[worker] = lane = next(free, len(taken))
            taken[lane : lane + 1] = [[*(taken[lane] if lane < len(taken) else []), worker]]
    is_known = None not in {t.user_attrs.get("worker") for t in trials}
    names = [
        str(had[0]) if is_known and len(had) == 1 else f"lane {i}" for i, had in enumerate(taken, start=1)
    ]
    return [lane_of[worker] for worker in workers], names


def n_steps(seen: StudyRecord) -> tuple[int, str]:
    """How many epochs all trials had together; or steps, of what an app reported."""
    n = sum(int(t.user_attrs.get("epochs", len(t.intermediate_values))) for t in seen.trials)
    return n, "epoch" if any("epochs" in t.user_attrs for t in seen.trials) else "step"


class Price(NamedTuple):
    """What a trial cost, and what it reached."""

    number: int
    cost: float
    score: float


PRICES = {"seconds": "seconds", "peak_memory_mb": "peak memory, MB", "n_parameters": "parameters"}
"""What a trial can cost, by the attribute that says it."""


def prices(seen: StudyRecord, attribute: str) -> list[Price]:
    """What each completed trial cost; seconds are known of all."""
    found = []
    for trial in completed(seen):
        cost, reached = trial.user_attrs.get(attribute), score(trial)
        if cost is None and attribute == "seconds":
            cost = seconds_of(trial)
        if isinstance(cost, int | float) and math.isfinite(cost) and reached is not None:
            found.append(Price(trial.number, float(cost), reached))
    return found


def front(paid: Sequence[Price], direction: str) -> list[Price]:
    """Those than which none is both cheaper and better, the cheapest first."""
    sign = 1 if direction == "minimize" else -1
    found = list[Price]()
    for price in sorted(paid, key=lambda p: (p.cost, sign * p.score)):
        if not found or sign * price.score < sign * found[-1].score:
            found.append(price)
    return found


# ----------------------------------------------------------------------------------------- how it was learned


@dataclass(frozen=True)
class Curve:
    number: int
    word: str
    steps: Sequence[int]
    values: Sequence[float]


MOST_POINTS = 10_000
"""Of all curves together: more make the file large, and nobody sees them."""
MOST_CURVES = 200
"""More cover each other."""


def curves(seen: StudyRecord, objective: int = 0) -> list[Curve]:
    """The objective of each trial, step by step; where nothing was reported, as our histories have it."""
    found = (_reported(t) or _from_history(seen, t, objective) for t in seen.trials)
    return [curve for curve in found if curve is not None]


def _reported(trial: FrozenTrial) -> Curve | None:
    points = sorted((s, v) for s, v in trial.intermediate_values.items() if math.isfinite(v))
    return Curve(trial.number, outcome.word(trial), *zip(*points, strict=True)) if points else None


def _from_history(seen: StudyRecord, trial: FrozenTrial, objective: int) -> Curve | None:
    run, name = seen.run(trial), seen.metrics[objective]
    if not run.is_ours or not run.history.exists():
        return None
    try:
        rows = run.read_history()
    except Fault:  # the others can be shown
        return None
    points = [(int(row["epoch"]), row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    return Curve(trial.number, outcome.word(trial), *zip(*points, strict=True)) if points else None


def thinned(
    of: Sequence[Curve], kept: Iterable[int] = (), most: int = MOST_CURVES, most_points: int = MOST_POINTS
) -> tuple[list[Curve], int]:
    """So many curves, with every n-th of their points and their last one; and n.

    Args:
        kept: the numbers of trials whose curves are among them.
    """
    whole = {*kept, *(curve.number for curve in of[:: math.ceil(len(of) / most) or 1])}
    some = [curve for curve in of if curve.number in whole]
    every = max(1, math.ceil(sum(len(curve.steps) for curve in some) / most_points))
    return [_every(curve, every) for curve in some], every


def _every(curve: Curve, every: int) -> Curve:
    kept = sorted({*range(0, len(curve.steps), every), len(curve.steps) - 1})
    steps, values = ([of[i] for i in kept] for of in (curve.steps, curve.values))
    return Curve(curve.number, curve.word, steps, values)


class Point(NamedTuple):
    """A trial in a plot of one parameter."""

    number: int
    word: str
    value: Any
    score: float


def points(seen: StudyRecord, name: str, objective: int = 0) -> list[Point]:
    """What the completed and the pruned trials reached by this parameter."""
    found = []
    for trial in seen.trials:
        reached = score(trial, objective)
        if name in trial.params and reached is not None and trial.state.is_finished():
            found.append(Point(trial.number, outcome.word(trial), trial.params[name], reached))
    return found
