"""The signs of one study: rules that read its trials.

Scores are compared by how many trials beat them, so that all rules read one objective and several alike.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from sweeper import ranking, schema
from sweeper.ranking import seconds_of
from sweeper.results import curve
from sweeper.results.sign import Finding, Rule, Sign, found
from sweeper.results.study_record import (
    TRIALS_EACH,
    StudyRecord,
    n_searched,
    options_of,
    override,
    path_of,
    wanted,
)
from sweeper.secret import hide_secrets
from sweeper.words import counted, one_line, sentence

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ladder:
    """Choices between numbers, such as 16, 32, 64: a range with rungs."""

    rungs: tuple[float, ...]
    """From the lowest to the highest."""
    log: bool = False
    step: None = None

    @property
    def low(self) -> float:
        return self.rungs[0]

    @property
    def high(self) -> float:
        return self.rungs[-1]

    @property
    def is_whole(self) -> bool:
        return all(isinstance(rung, int) for rung in self.rungs)

    def beyond(self, is_upper: bool) -> float | None:
        """The rung that would come next, by the ratio of the last two, or their difference."""
        last, before = (self.rungs[-1], self.rungs[-2]) if is_upper else (self.rungs[0], self.rungs[1])
        after = last * last / before if self.low > 0 else 2 * last - before
        after = round(after) if self.is_whole else float(f"{after:.6g}")
        return None if after == last else after


Range = FloatDistribution | IntDistribution | Ladder


def _range_of(distribution: BaseDistribution | None) -> Range | None:
    """What has two ends and something between them."""
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return None if distribution.single() else distribution
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        if len(set(choices)) > 2 and all(type(choice) in (int, float) for choice in choices):
            return Ladder(tuple(sorted(set(choices))))  # type: ignore[arg-type]
    return None


AT_EDGE = "_at_edge"

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_FAILED_TO_LEARN = ("chance_level", "diverged")

_LEAST_RANKED = 8
"""Trials with a parameter below which nothing is said of its range."""
_LEAST_COMPLETE = 4
_EDGE = 0.8
"""Where the outer part of a range begins, from 0 at its other end to 1: there the best trial must lie."""
_NEAR = 0.6
"""Where the best few must lie at least, if not many trials lie further out."""
_LAST = 0.85
"""Where its last bit begins, in which scores must be better than in the bit before it."""
_P = 0.01
"""How probable a trend towards an end may be where there is none; two ends and a few parameters are looked
at, and the best trials must lie there as well."""

_MOST_COMPARED = 1024
"""Each trial with each other, at most: of more, evenly spaced ones say where the good ones lie as well."""

_FAR_TOO_FEW = 0.5
"""Part of the trials wanted, below which it is a sign. Importance says little from fewer than all of them."""

_PRUNED_AT_ONCE = 0.5
_FORESEEN = 0.5
"""The rank correlation of first and last scores from which the first is a fair judge."""

_CHEAPER = 3.0
_COSTLY_S = 10.0
"""Seconds of the best trial below which nobody minds the cost."""


def signs_of(seen: StudyRecord) -> list[Sign]:
    """The signs of a study, the most helpful first; without the passwords that an error may have told."""
    return [
        Sign(
            rule.sign.replace("…", finding.about),
            hide_secrets(sentence(finding.evidence)),
            hide_secrets(sentence(finding.advice)),
            finding.command,
        )
        for rule, finding in found(RULES, seen)
    ]


# --- what the rules see ------------------------------------------------------------------------------------


def finished(seen: StudyRecord) -> list[FrozenTrial]:
    """The trials that ended as they should: done or pruned."""
    return [trial for trial in seen.trials if trial.state in _FINISHED]


def complete(seen: StudyRecord) -> list[FrozenTrial]:
    return [trial for trial in seen.trials if trial.state == TrialState.COMPLETE and trial.values]


def beaten(seen: StudyRecord, trials: Sequence[FrozenTrial]) -> Array:
    """How many of these trials are better than each, in all objectives.

    Two that came to the end are compared by their values. One that was pruned is compared at its last step;
    where it has reported nothing, it is below all that came to the end.
    """
    n, signs = len(trials), [-1.0 if direction == "maximize" else 1.0 for direction in seen.directions]
    is_complete = np.array([trial.state == TrialState.COMPLETE and bool(trial.values) for trial in trials])
    worst = [math.inf] * len(signs)
    costs = np.array(
        [
            np.multiply(signs, trial.values) if ok else worst
            for trial, ok in zip(trials, is_complete, strict=True)
        ]
    ).reshape(n, len(signs))
    as_good = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    if len(signs) == 1:
        both = is_complete[:, None] & is_complete[None, :]
        early, late = _at_equal_steps(trials, signs[0])
        as_good = np.where(both | np.isnan(early) | np.isnan(late), as_good, early <= late)
    better = as_good & ~as_good.T
    return np.asarray(better.sum(axis=0), float)


def _at_equal_steps(trials: Sequence[FrozenTrial], sign: float) -> tuple[Array, Array]:
    """What the trials of each pair cost at the last step that both reached; NaN where there is none."""
    n = len(trials)
    steps = sorted({trial.last_step for trial in trials if trial.last_step is not None})
    if not steps:
        return np.full((n, n), np.nan), np.full((n, n), np.nan)
    costs, last = np.full((n, len(steps)), np.nan), np.zeros(n, int)
    for row, trial in enumerate(trials):
        told = sorted(trial.intermediate_values.items())
        if told:
            places = np.searchsorted([step for step, _ in told], steps, side="right") - 1
            values = np.array([value for _, value in told])
            values = np.where(np.isfinite(values), sign * values, np.inf)
            costs[row] = np.where(places >= 0, values[places], np.nan)
            last[row] = steps.index(told[-1][0])
    common = np.minimum(last[:, None], last[None, :])
    rows = np.arange(n)
    return costs[rows[:, None], common], costs[rows[None, :], common]


def _runs_on(seen: StudyRecord) -> bool:
    return any(trial.state == TrialState.RUNNING for trial in seen.trials)


def short(names: Sequence[str], name: str) -> str:
    """The last part of a parameter's key where no other one has the same: ``lr`` of ``optimizer.lr``."""
    last = path_of(name).rpartition(".")[2]
    others = {path_of(other) for other in names if path_of(other).rpartition(".")[2] == last}
    return last if len(others) < 2 else path_of(name)


# --- …_at_edge ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edge:
    """The end of a range at which the best trials lie."""

    name: str
    bounds: Range
    is_upper: bool
    best: tuple[float, ...]
    """The values of the best few trials."""
    n_trials: int
    correlation: float


def _at_edge(seen: StudyRecord) -> Finding | None:
    findings = [_told_edge(seen, edge, n) for n, edge in enumerate(edges(seen))]
    return None if not findings else Finding.of_several(findings)


def edges(seen: StudyRecord) -> list[Edge]:
    """The ends of ranges that hide something better, the clearest first."""
    found = [edge for name in _ranges(seen) if (edge := _edge(seen, name)) is not None]
    return sorted(found, key=lambda edge: -abs(edge.correlation))


def _ranges(seen: StudyRecord) -> dict[str, Range]:
    """The ranges that were searched, as the last trial has them; a range of one value is none."""
    ranges: dict[str, Range] = {}
    for trial in finished(seen):
        for name, distribution in trial.distributions.items():
            if (bounds := _range_of(distribution)) is not None:
                ranges[name] = bounds
    return ranges


def _edge(seen: StudyRecord, name: str) -> Edge | None:
    bounds = _ranges(seen)[name]
    trials = [trial for trial in finished(seen) if _range_of(trial.distributions.get(name)) == bounds]
    if len(trials) < _LEAST_RANKED or sum(t.state == TrialState.COMPLETE for t in trials) < _LEAST_COMPLETE:
        return None
    n_trials, trials = len(trials), trials[:: 1 + len(trials) // _MOST_COMPARED]
    places = np.array([_place(bounds, trial.params[name]) for trial in trials])
    rank = beaten(seen, trials)
    n_best = max(3, round(0.15 * len(trials)))
    best = np.argsort(rank, kind="stable")[:n_best]
    is_upper = bool(np.median(places[best]) > 0.5)
    towards = places if is_upper else 1 - places
    outermost = float(np.sort(towards)[-min(len(towards), 2 * n_best)])
    lie_there = np.median(towards[best]) >= min(_EDGE, max(_NEAR, outermost))
    if towards[best[0]] < _EDGE or not lie_there or widened(path_of(name), bounds, is_upper) is None:
        return None
    correlation, p = _trend(towards, -rank, _others(trials, name))
    next_to_last = 1 - 1 / (len(bounds.rungs) - 1) if isinstance(bounds, Ladder) else 2 * _LAST - 1
    if p > _P or not _still_rises(towards, -rank, next_to_last):
        return None
    values = tuple(trials[i].params[name] for i in best)
    return Edge(name, bounds, is_upper, values, n_trials, correlation)


def _still_rises(towards: Array, scores: Array, next_to_last: float) -> bool:
    """Whether scores are better in the last bit of a range than in that before it, where that begins.

    So it is told, too, where too few trials were in one of them.
    """
    last, before = towards >= _LAST, (towards >= next_to_last) & (towards < _LAST)
    if min(last.sum(), before.sum()) < 2:
        return bool(last.any())
    return bool(np.mean(scores[last]) > np.mean(scores[before]))


def _place(bounds: Range, value: float) -> float:
    """Where a value lies in its range, from 0 to 1."""
    if isinstance(bounds, Ladder):
        return bounds.rungs.index(value) / (len(bounds.rungs) - 1)
    if bounds.log:
        return math.log(value / bounds.low) / math.log(bounds.high / bounds.low)
    return (value - bounds.low) / (bounds.high - bounds.low)


def _others(trials: Sequence[FrozenTrial], name: str) -> Array:
    """What else differs between the trials, a column each: ranks of numbers, and a mark for each choice."""
    names = {other for trial in trials for other in trial.params} - {name}
    columns: list[Array] = []
    for other in sorted(names):
        values = [trial.params.get(other) for trial in trials]
        kinds = {type(trial.distributions[other]) for trial in trials if other in trial.distributions}
        if CategoricalDistribution in kinds or None in values:
            told = list(map(repr, values))
            columns += [np.array([text == one for text in told], float) for one in sorted(set(told))[1:]]
        else:
            columns.append(_ranks(np.array(values, float)))
    return np.array(columns, float).reshape(len(columns), len(trials))


def _trend(x: Array, y: Array, others: Array) -> tuple[float, float]:
    """The rank correlation of two rows, and how probable as large a one is where there is none.

    A sampler that learns draws all parameters of late trials near those of good ones, so that one which does
    nothing seems to help. What the others explain is taken out first, as far as there are trials for it.
    """
    n = len(x)
    rows = [_ranks(x), _ranks(y)]
    correlation = _correlated(*rows)
    known = np.ones((1, n))
    for column in sorted(others, key=lambda column: -abs(_correlated(column, rows[1]))):
        if len(known) < n / 4:
            known = np.vstack([known, column])
    left = [row - known.T @ np.linalg.lstsq(known.T, row, rcond=None)[0] for row in rows]
    partial, free = _correlated(*left), n - len(known) - 1
    worst = min(correlation, partial)
    if worst <= 0 or free < 3:
        return correlation, 1.0
    t = worst * math.sqrt(free / max(1e-12, 1 - worst**2))
    return correlation, _student_above(t, free)


def _ranks(values: Array) -> Array:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse.ravel()], float)


def _correlated(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 1e-9 else 0.0


def _student_above(t: float, free: int) -> float:
    """The probability that Student's t is above ``t``, integrated: scipy would take a second to import."""
    angle = np.linspace(math.atan(t / math.sqrt(free)), math.pi / 2, 2001)
    density = np.cos(angle) ** (free - 1)
    whole = math.sqrt(math.pi) * math.exp(math.lgamma(free / 2) - math.lgamma((free + 1) / 2))
    return float(np.trapezoid(density, angle)) / whole


def widened(key: str, bounds: Range, is_upper: bool) -> tuple[float, float] | None:
    """A range around the end of another one, most of it beyond; None where there is no room for it."""
    if isinstance(bounds, Ladder):
        edge, after = bounds.high if is_upper else bounds.low, bounds.beyond(is_upper)
        if after is None or not _may_be(key, after, bounds):
            return None
        return (edge, after) if is_upper else (after, edge)
    low, high = (math.log(bounds.low), math.log(bounds.high)) if bounds.log else (bounds.low, bounds.high)
    most = math.log(2 if isinstance(bounds, IntDistribution) else 10)
    width = min(high - low, most) if bounds.log else high - low
    out, sign = (1.5 * width if bounds.log else width), 1 if is_upper else -1
    end, inner = (high if is_upper else low), (high if is_upper else low) - sign * width / 2

    def value(place: float) -> float:
        rounded = _rounded(math.exp(place) if bounds.log else place, width / 20 if not bounds.log else None)
        return rounded if bounds.step is None or bounds.log else _on_grid(bounds, rounded)

    edge = bounds.high if is_upper else bounds.low
    for part in (1.0, 0.5, 0.25):  # as far as the key's limit admits
        outer = value(end + sign * out * part)
        if outer != edge and (outer > edge) == is_upper and _may_be(key, outer, bounds):
            near = value(inner)
            return (near, outer) if is_upper else (outer, near)
    return None


def _on_grid(bounds: Range, value: float) -> float:
    """The nearest value that lies a whole number of steps from the range's low end."""
    step = bounds.step or 1
    place = bounds.low + round((value - bounds.low) / step) * step
    return int(place) if isinstance(bounds, IntDistribution) else float(f"{place:.12g}")


def _may_be(key: str, value: float, bounds: Range) -> bool:
    """Whether a key may have a value beyond the end of a range.

    Of a key that nobody knows, shares stay within 0 … 1, and what was not negative stays above 0.
    """
    limit = schema.LIMITS.get(key)
    if limit is not None:
        return limit.holds(value)
    is_whole = isinstance(bounds, IntDistribution) or (isinstance(bounds, Ladder) and bounds.is_whole)
    if bounds.low >= 0 and bounds.high == 1 and not is_whole:
        return 0 <= value <= 1
    return bounds.low < 0 or value > 0


def _rounded(value: float, step: float | None) -> float:
    """With as few digits as tell it from its neighbours; under a logarithm one is enough."""
    if value == 0:
        return 0.0
    size = abs(value) if step is None else step
    digits = -math.floor(math.log10(size))
    rounded = round(value, digits)
    return float(f"{rounded:.12g}")


def _told_edge(seen: StudyRecord, edge: Edge, n_before: int) -> Finding:
    """Args:
    n_before: edges that were told before; each one's command begins a study of its own.
    """
    new = widened(path_of(edge.name), edge.bounds, edge.is_upper)
    assert new is not None
    searched = f"{_told(edge.bounds.low)} … {_told(edge.bounds.high)}"
    values = f"{_told(min(edge.best))} … {_told(max(edge.best))}"
    end = "upper" if edge.is_upper else "lower"
    evidence = (
        f"the best {len(edge.best)} of {edge.n_trials} trials have {edge.name} {values}, at the {end} end of "
        f"{searched}, and scores rise towards it (rank correlation {abs(edge.correlation):.2f})"
    )
    advice = f"search around that end: {_told(new[0])} … {_told(new[1])}"
    ranged = f"{path_of(edge.name)}={_expression(edge.bounds, *new)}"
    about = short([name for trial in seen.trials for name in trial.distributions], edge.name)
    return Finding(
        evidence, advice, about=about, command=seen.anew(*options_of(edge.name), ranged, n_before=n_before)
    )


def _told(value: float) -> str:
    return f"{value:.3g}"


def _expression(bounds: Range, low: float, high: float) -> str:
    """The range as one writes it on the command line."""
    if isinstance(bounds, Ladder):
        inner = bounds.rungs[-2] if low == bounds.high else bounds.rungs[1]
        return ",".join(f"{rung:.12g}" for rung in sorted({inner, low, high}))
    if isinstance(bounds, IntDistribution):
        step = f", {bounds.step}" if bounds.step != 1 else ""
        text = f"range({int(low)}, {int(high) + 1}{step})"
    elif bounds.step is not None:
        n_steps = max(1, round((high - low) / bounds.step))
        stop = low + (n_steps + 0.5) * bounds.step
        text = f"range({low:.12g}, {stop:.12g}, {bounds.step})"
    else:
        text = f"interval({_number(low)}, {_number(high)})"
    return f"tag(log, {text})" if bounds.log else text


def _number(value: float) -> str:
    """``1e-3``, ``0.5``, ``0.0003``."""
    return (
        f"{value:.12g}"
        if value == 0 or 1e-2 <= abs(value) < 1e5
        else f"{value:.6e}".replace("e-0", "e-").replace("e+0", "e").replace(".000000", "")
    )


# --- too_few_trials ----------------------------------------------------------------------------------------


def _too_few_trials(seen: StudyRecord) -> Finding | None:
    ended = finished(seen)
    n_parameters, n_wanted = n_searched(seen.trials), wanted(seen.trials)
    n_planned = seen.n_trials or 0 if _runs_on(seen) else 0
    n = max(len(ended), n_planned)
    if not ended or n >= _FAR_TOO_FEW * n_wanted or _is_counted_out(seen, ended):
        return None
    return Finding(
        f"{counted(n, 'trial')} for {counted(n_parameters, 'parameter')}; {len(complete(seen))} completed",
        f"let the search go on, to {n_wanted} trials: the best of so few may be luck",
        command=seen.again(f"hydra.sweeper.n_trials={n_wanted}"),
    )


def _is_counted_out(seen: StudyRecord, ended: Sequence[FrozenTrial]) -> bool:
    """Whether there is nothing left to try: a grid, or as many points as there are."""
    if "Grid" in str(seen.attributes.get("sampler")) or "BruteForce" in str(seen.attributes.get("sampler")):
        return True
    distributions: dict[str, BaseDistribution] = {}
    for trial in ended:
        distributions |= trial.distributions
    if any("[" in name for name in distributions) or any(set(t.params) != set(distributions) for t in ended):
        return False
    n_points = math.prod(_n_values(one) for one in distributions.values())
    return len({repr(sorted(trial.params.items())) for trial in ended}) >= n_points


def _n_values(distribution: BaseDistribution) -> float:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return len(choices)
        case IntDistribution(low=low, high=high, step=step):
            return (high - low) // step + 1
        case FloatDistribution(low=low, high=high, step=float(step)):
            return round((high - low) / step) + 1
    return 1 if distribution.single() else math.inf


# --- most_pruned_first_epoch -------------------------------------------------------------------------------


def _most_pruned_first_epoch(seen: StudyRecord) -> Finding | None:
    ended, steps = finished(seen), [step for t in seen.trials for step in t.intermediate_values]
    if len(ended) < _LEAST_RANKED or len(seen.directions) > 1 or not steps:
        return None
    first, last = min(steps), max(steps)
    pruned = [t for t in ended if t.state == TrialState.PRUNED and not t.user_attrs.get("diverged")]
    at_once = [trial for trial in pruned if trial.last_step == first]
    if last - first < 3 or len(at_once) <= _PRUNED_AT_ONCE * len(ended):
        return None
    whole = [trial for trial in complete(seen) if first in trial.intermediate_values]
    foreseen = (
        _correlated(
            _ranks(np.array([trial.intermediate_values[first] for trial in whole], float)),
            _ranks(np.array([trial.values[0] for trial in whole], float)),
        )
        if len(whole) >= _LEAST_COMPLETE
        else None
    )
    if foreseen is not None and foreseen >= _FORESEEN:
        return None
    judged = (
        f"only {counted(len(whole), 'trial')} completed"
        if foreseen is None
        else f"in those that went on, it hardly predicts the final score (rank correlation {foreseen:.2f})"
    )
    later = max(first + 1, min(last - 1, round(last / 4)))
    return Finding(
        f"{len(at_once)} of {counted(len(ended), 'trial')} were pruned after step {first}, and {judged}",
        f"judge trials after step {later} at the earliest",
        command=seen.anew("hydra/sweeper/pruner=hyperband", f"hydra.sweeper.pruner.min_resource={later}"),
    )


# --- failures ----------------------------------------------------------------------------------------------


def _failures(seen: StudyRecord) -> Finding | None:
    tried_again = {trial.user_attrs.get("retry_of") for trial in seen.trials}
    failed = [
        t
        for t in seen.trials
        if t.state == TrialState.FAIL and not t.user_attrs.get("interrupted") and t.number not in tried_again
    ]
    ended = [trial for trial in seen.trials if trial.state.is_finished()]
    if not failed:
        return None
    reasons = Counter(_reason(trial) for trial in failed)
    reason, n = reasons.most_common(1)[0]
    example = next(trial for trial in failed if _reason(trial) == reason)
    which = f", all {n}" if n == len(failed) > 1 else f", {n} of them" if n < len(failed) else ""
    said = one_line(str(example.user_attrs.get("reason") or "nobody knows why"))[:300]
    common = _common_choice(seen, failed)
    where = f"; all have {common}" if common else ""
    traceback = seen.files.trial(example).traceback
    return Finding(
        f"{len(failed)} of {counted(len(ended), 'trial')} failed{which} with: {said}{where}",
        f"read what trial {example.number} says, fix the cause, and go on"
        if traceback.exists()
        else "fix the cause, and go on with the search",
        command=seen.shown(traceback) if traceback.exists() else seen.again(),
    )


def _reason(trial: FrozenTrial) -> str:
    """Without numbers, which differ from trial to trial."""
    return re.sub(r"\d+(\.\d+)?", "#", one_line(str(trial.user_attrs.get("reason", ""))))


def _common_choice(seen: StudyRecord, failed: Sequence[FrozenTrial]) -> str | None:
    """A choice that all failed trials have, and no other."""
    if len(failed) < 3:
        return None
    others = finished(seen)
    for name, value in failed[0].params.items():
        is_choice = isinstance(failed[0].distributions[name], CategoricalDistribution)
        are_all = all(trial.params.get(name) == value for trial in failed)
        if is_choice and are_all and others and all(trial.params.get(name) != value for trial in others):
            return override(path_of(name), value)
    return None


# --- all_at_chance -----------------------------------------------------------------------------------------


def _all_at_chance(seen: StudyRecord) -> Finding | None:
    ended, done = finished(seen), complete(seen)
    told = {trial.number: _without_learning(trial) for trial in ended}
    at_chance = [trial for trial in ended if told[trial.number]]
    if len(at_chance) < 3 or any(not told[trial.number] for trial in done) or 2 * len(at_chance) < len(ended):
        return None
    kinds = Counter(told.values())
    n_diverged = kinds["diverged"]
    parts = [f"{n_diverged} diverged"] * bool(n_diverged)
    parts += [f"{kinds['chance_level']} stayed at chance level"] * bool(kinds["chance_level"])
    evidence = f"of {counted(len(ended), 'trial')}, {' and '.join(parts)}, and none learned anything"
    if 2 * n_diverged > len(at_chance) and (lower := _lower_rate(seen)) is not None:
        return Finding(evidence, "search lower learning rates", command=seen.anew(lower))
    advice = "look whether labels and pictures fit together; then search other learning rates"
    return Finding(evidence, advice, command=seen.described())


def _without_learning(trial: FrozenTrial) -> str | None:
    signs = trial.user_attrs.get("signs", [])
    named = [name for name in ("diverged", "chance_level") if isinstance(signs, list) and name in signs]
    return named[0] if named else "diverged" if trial.user_attrs.get("diverged") else None


def _lower_rate(seen: StudyRecord) -> str | None:
    """The range of the learning rate, two decades further down."""
    for name, bounds in _ranges(seen).items():
        if path_of(name).rpartition(".")[2] in ("lr", "learning_rate") and bounds.log and bounds.low > 0:
            return f"{path_of(name)}={_expression(bounds, bounds.low / 100, bounds.low)}"
    return None


# --- cheap_rival -------------------------------------------------------------------------------------------


def _cheap_rival(seen: StudyRecord) -> Finding | None:
    done = complete(seen)
    if (
        len(seen.directions) > 1
        or len(done) < _LEAST_COMPLETE
        or seen.metrics[0] in ("seconds", "peak_memory_mb")
    ):
        return None
    sign = -1 if seen.directions[0] == "maximize" else 1
    (best,) = ranking.best(done, seen.directions)
    cost, noise = _seconds(best), _noise(seen, best)
    if cost < _COSTLY_S or noise is None:
        return None
    near = [
        t for t in done if sign * (t.values[0] - best.values[0]) <= noise and _seconds(t) * _CHEAPER <= cost
    ]
    if not near:
        return None
    rival = min(near, key=_seconds)
    return Finding(
        f"trial {rival.number} has {seen.metrics[0]} {rival.values[0]:.5g} in {_seconds(rival):.1f} s, and "
        f"the best, trial {best.number}, has {best.values[0]:.5g} in {cost:.1f} s; {noise:.2g} is noise",
        f"train trial {rival.number} instead, at 1/{cost / _seconds(rival):.0f} of the cost",
        command=seen.alone(rival),
    )


def _seconds(trial: FrozenTrial) -> float:
    """What a trial took: in training, where it says so."""
    told = trial.user_attrs.get("seconds")
    if isinstance(told, int | float):
        return max(float(told), 1e-9)
    took_s = seconds_of(trial)
    return math.inf if took_s is None else max(took_s, 1e-9)


def _noise(seen: StudyRecord, best: FrozenTrial) -> float | None:
    """How far scores may differ by chance: by the number of images, else by how one wavers at its end."""
    n_val = _n_val(seen, best)
    score = best.values[0]
    if n_val and "accuracy" in seen.metrics[0] and 0 <= score <= 1:
        return math.sqrt(max(score * (1 - score), 1 / n_val) / n_val)
    told = [best.intermediate_values[step] for step in sorted(best.intermediate_values)]
    late = np.array(told[len(told) // 2 :], float)
    late = late[np.isfinite(late)]
    return curve.noise(late) if len(late) >= 4 else None


def _n_val(seen: StudyRecord, trial: FrozenTrial) -> int | None:
    task: Mapping[str, Any] = seen.run(trial).read_result().get("task", {})
    return task.get("n_val")


RULES: tuple[Rule[StudyRecord], ...] = (
    Rule(
        "failures",
        "Trials ended with an error instead of a score. What they tried is missing in the search.",
        "Read what the trial printed, fix the cause and go on: the same command resumes the search.",
        "Optuna: failed trials teach a sampler nothing; above max_failure_rate the search ends.",
        _failures,
        "3 of 40 trials failed, 2 of them with: ValueError: 1 of 2; all have optimizer=sgd",
    ),
    Rule(
        "all_at_chance",
        "No trial learned anything: each is as good as a guess, or its loss became infinite. Then nothing "
        "that was searched matters yet.",
        "Where losses became infinite, search lower learning rates. Otherwise look first whether the labels "
        "fit the pictures.",
        "Both guides: diverging, so lower the learning rate; the defaults first, then the learning rate.",
        _all_at_chance,
        "of 20 trials, 12 stayed at chance level, and none learned anything",
    ),
    Rule(
        f"…{AT_EDGE}",
        "The best trials lie at one end of a range, and scores rise towards it. Better values may lie "
        "beyond, where nobody has looked. The name begins with the parameter, as in lr_at_edge.",
        "Search again, in a range around that end.",
        "The guides' ranges are places to start from: on a real transfer task the best rates lay outside.",
        _at_edge,
        "the best 3 of 20 trials have optimizer.lr 0.000885 … 0.000914, at the upper end of "
        "0.0001 … 0.001, and scores rise towards it (rank correlation 0.79)",
    ),
    Rule(
        "too_few_trials",
        "The search saw few trials for so many parameters: its best trial may be luck.",
        f"Let it go on to {TRIALS_EACH} trials for each parameter; the sign is shown below half of that.",
        "Loeppky, Sacks, Welch 2009, Choosing the sample size of a computer experiment: ten for each input.",
        _too_few_trials,
        "6 trials for 5 parameters; 3 completed",
    ),
    Rule(
        "most_pruned_first_epoch",
        "Most trials were stopped after their first report, and that report does not tell who is good in the "
        "end. Slow starters, as with small learning rates or strong augmentation, never had their chance.",
        "Let the pruner judge later.",
        "Li et al. 2018, Hyperband: the least resource must be enough to tell good from bad.",
        _most_pruned_first_epoch,
        "27 of 40 trials were pruned after step 1, and in those that went on, it hardly predicts"
        " the final score (rank correlation 0.11)",
    ),
    Rule(
        "cheap_rival",
        "Another trial is as good as the best, as far as can be told, at a third of the cost or less.",
        "Take the cheaper one, or search around it.",
        "The guide for networks from scratch: watch speed and memory beside the score.",
        _cheap_rival,
        "trial 3 has val_accuracy 0.902 in 10.0 s, and the best, trial 0, has 0.904 in 60.0 s; "
        "0.0095 is noise",
    ),
)
"""The rules, the most helpful first."""
