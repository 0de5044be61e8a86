"""What was asked for, and the plan that it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sweeper.errors import BadInput
from sweeper.results.plan import CANDIDATE, Candidate, Plan
from sweeper.screen import Screen
from sweeper.words import listed, near

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

from sweeper.commands.certification.pair import Pair

TOP, SEEDS = 5, 5


@dataclass(frozen=True)
class Wish:
    """What was asked for; None: as the certificate was begun, else the default."""

    top: int | None = None
    seeds: int | None = None
    folds: int | None = None
    baseline: bool | None = None

    def typed(self) -> str:
        """The options, each behind a space."""
        numbers = {"--top": self.top, "--seeds": self.seeds, "--folds": self.folds}
        told = "".join(f" {name} {n}" for name, n in numbers.items() if n is not None)
        return told + (" --no-baseline" if self.baseline is False else "")


def plan_of(pair: Pair, wish: Wish) -> Plan:
    """The plan that is there, as far as it goes, with what was asked for.

    No training is lost: who was trained stays.

    Raises:
        BadInput: for what does not go together with the trainings that are there.
    """
    before = _before(pair)
    if wish.folds is not None and not pair.is_ours:
        reason = "is a matter of sweeper's own data, and another app has trained"
        raise BadInput("--folds", wish.folds, reason, "leave it out: the app gets new seeds")
    if before is None:
        return _begun(pair, wish)
    trained = _trained(pair)
    _check_same(pair, before, wish, bool(trained))
    n_top = len(before.searched) if wish.top is None else wish.top
    baseline = before.defaults is not None if wish.baseline is None else wish.baseline
    candidates = _grown(pair, before, n_top, baseline, trained)
    folds = wish.folds or before.n_folds
    plan = replace(
        before,
        folder=str(pair.seen.files.folder),
        candidates=candidates,
        n_seeds=_n_seeds(wish.seeds or wish.folds or before.n_seeds, candidates, trained),
        n_folds=folds,
        by_repeat=_folds(folds),
    )
    _tell_others(pair, plan, n_top)
    _tell_kept(plan.searched[n_top:], has_defaults=plan.defaults is not None and not baseline)
    return plan


def _trained(pair: Pair) -> Counter[str]:
    """The trainings that are done or running, by their candidates."""
    seen = pair.record()
    trials = [] if seen is None else seen.trials
    return Counter(str(trial.user_attrs.get(CANDIDATE)) for trial in trials if _counts(trial))


def _grown(
    pair: Pair, before: Plan, n_top: int, baseline: bool, trained: Counter[str]
) -> tuple[Candidate, ...]:
    """The candidates that were asked for; whoever was trained stays."""
    known = {one.trial for one in before.searched}
    new = [one for one in pair.best(n_top) if one.trial not in known]
    best = [*before.searched, *new[: max(0, n_top - len(known))]]
    defaults = pair.defaults()
    kept = [one for i, one in enumerate(best) if i < n_top or one.name in trained]
    return (*kept, *([defaults] if baseline or defaults.name in trained else []))


def _begun(pair: Pair, wish: Wish) -> Plan:
    baseline = [] if wish.baseline is False else [pair.defaults()]
    seen = pair.seen
    return Plan(
        study=seen.name,
        folder=str(seen.files.folder),
        candidates=(*pair.best(wish.top or TOP), *baseline),
        n_seeds=wish.seeds or wish.folds or SEEDS,
        n_folds=wish.folds,
        seed=int(sha256(seen.name.encode()).hexdigest()[:7], 16),
        by_repeat=_folds(wish.folds),
    )


def _before(pair: Pair) -> Plan | None:
    """The plan that is there.

    Raises:
        BadInput: where another study has the name, or it is about another search.
    """
    if not pair.files.is_ours:
        return None
    plan = Plan.read(pair.files)
    if plan is None:
        reason, remedy = "is a search of its own", "rename one of the two studies"
        raise BadInput("STUDY", pair.name, f"{near(pair.files.folder)} {reason}", remedy)
    trials = {trial.number: trial for trial in pair.seen.trials}
    for one in plan.searched:
        trial = trials.get(one.trial) if one.trial is not None else None
        if trial is None or dict(trial.params) != dict(one.params or {}):
            reason = f"is about another search that was called {pair.seen.name}"
            raise BadInput("STUDY", pair.name, reason, f"remove it: {pair.to_begin_anew}")
    return plan


def _check_same(pair: Pair, before: Plan, wish: Wish, is_begun: bool) -> None:
    if is_begun and wish.folds is not None and wish.folds != before.n_folds:
        was = "with new seeds" if before.n_folds is None else f"with --folds {before.n_folds}"
        raise BadInput("--folds", wish.folds, f"the certificate was begun {was}", _anew(pair))


def _anew(pair: Pair) -> str:
    return f"leave it out, or begin anew: {pair.to_begin_anew}"


def _tell_others(pair: Pair, plan: Plan, n_top: int) -> None:
    """Say it where the best of the search are others by now."""
    now = [one.trial for one in pair.best(n_top)]
    if set(now) - {one.trial for one in plan.searched}:
        numbers = [str(n) for n in now]
        who = f"{'trials' if len(now) > 1 else 'trial'} {listed(numbers)}"
        Screen().wrap(Text(f"The search has gone on, and its best are now {who}. To certify these:"))
        print(f"Begin anew: {pair.to_begin_anew}", flush=True)


def _tell_kept(trials: Sequence[Candidate], has_defaults: bool) -> None:
    """Say who stays, though it was not asked for: its trainings would be lost."""
    names = [one.name for one in trials] + ["the defaults"] * has_defaults
    if names:
        Screen().wrap(Text(f"Trained before, and kept: {listed(names)}."))


def _n_seeds(asked: int, candidates: Sequence[Candidate], trained: Counter[str]) -> int:
    """Trainings of each that leave room for those who are new: all share one budget, of which some is spent
    on others.
    """
    least = max(asked, trained.total() // len(candidates))
    n_new = sum(one.name not in trained for one in candidates)
    return max(least, ceil((trained.total() + n_new * least) / len(candidates))) if n_new else least


def _folds(n: int | None) -> tuple[Mapping[str, Any], ...]:
    """What the trainings of a candidate have in their configs, one fold after the other."""
    return tuple({"dataset.n_folds": n, "dataset.fold": fold} for fold in range(n or 0))


def _counts(trial: FrozenTrial) -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED", "RUNNING")
