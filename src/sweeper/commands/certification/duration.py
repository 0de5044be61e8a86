"""How long the trainings of a plan take, and with which numbers it would be half of that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import ceil, floor

from rich.text import Text

from sweeper.commands.certification.pair import Pair, hydra_of
from sweeper.commands.certification.wish import Wish
from sweeper.program import program
from sweeper.record.study_files import StudyFiles
from sweeper.results.certificate import Certificate
from sweeper.results.plan import Plan
from sweeper.screen import Screen
from sweeper.words import counted, listed

_LEAST_SEEDS = 3
"""With fewer trainings of each, hardly anything can be told."""


def tell_time(pair: Pair, plan: Plan, known: Certificate | None) -> None:
    """How many trainings, of whom, and how long that takes; and the command for half of it."""
    n_done = 0 if known is None else known.n_trainings
    left = plan.n_trainings - n_done
    trials = [str(one.trial) for one in plan.searched]
    defaults = [] if plan.defaults is None else ["the defaults"]
    who = f"{'trials' if len(trials) > 1 else 'trial'} {listed([*trials, *defaults])}"
    n, unit = workers_of(pair.seen.files)
    n_side_by_side = max(1, min(n, left))
    seconds = _time_left(plan, known)
    about = "" if seconds is None else f", {about_time(seconds / n_side_by_side)}"
    done = f"{n_done} of {plan.n_trainings:,} trainings are done; {left:,} more of " if n_done else ""
    first = done or f"{counted(plan.n_trainings, 'training')} of "
    if about and unit == "job":
        about += " or less"  # a job may have several workers
    each = counted(len(plan.candidates), "candidate")
    Screen().wrap(Text(f"{first}{each} ({who}){about} on {counted(n_side_by_side, unit)}"))
    if not n_done and (half := half_of(plan)) is not None:
        print(f"Half of it: {program()} certify {pair.typed}{half.typed()}", flush=True)


def workers_of(files: StudyFiles) -> tuple[int, str]:
    """How many workers the search's command starts; or jobs, where their engine decides what each has."""
    from sweeper.search import opening
    from sweeper.search.engine import n_cores, visible_gpus
    from sweeper.search.settings import is_launcher

    hydra = hydra_of(files)
    sweeper = hydra.get("sweeper", {})
    n_jobs, per_gpu = sweeper.get("n_jobs"), sweeper.get("workers_per_gpu")
    if (launcher := hydra.get("launcher", {}).get("_target_")) is not None and is_launcher(launcher):
        n, each = opening.n_jobs(n_jobs), sweeper.get("workers_per_job")
        return (n * each, "worker") if isinstance(each, int) else (n, "job")
    if isinstance(n_jobs, int):
        return max(1, n_jobs), "worker"
    return len(visible_gpus()) * (per_gpu if isinstance(per_gpu, int) else 1) or n_cores(), "worker"


def _time_left(plan: Plan, known: Certificate | None) -> float | None:
    """Seconds that the trainings take which are left, one after the other, if nobody drops out."""
    return _seconds(plan, Counter() if known is None else Counter({c.name: c.n for c in known.candidates}))


def _seconds(plan: Plan, done: Counter[str]) -> float | None:
    each = [one.seconds for one in plan.candidates]
    if any(seconds is None for seconds in each):
        return None
    left = [max(0, plan.n_seeds - done[one.name]) for one in plan.candidates]
    return sum(n * (seconds or 0) for n, seconds in zip(left, each, strict=True))


def half_of(plan: Plan) -> Wish | None:
    """The numbers with which it takes half of the time, as near as there are; None where none are near."""
    whole = _seconds(plan, Counter()) or 0
    searched, defaults = plan.searched, () if plan.defaults is None else (plan.defaults,)
    tried: dict[Wish, float] = {}
    for top in range(len(searched), 0, -1):
        for seeds in _seeds_near_half(replace(plan, candidates=(*searched[:top], *defaults)), whole):
            smaller = replace(plan, candidates=(*searched[:top], *defaults), n_seeds=seeds)
            if len(smaller.candidates) > 1:
                wish = Wish(top, seeds, plan.n_folds, None if defaults else False)
                tried[wish] = (_seconds(smaller, Counter()) or 0) / whole if whole else 1.0
    best = min(tried, key=lambda wish: abs(tried[wish] - 0.5), default=None)
    return best if best is not None and 0.35 <= tried[best] <= 0.65 else None


def _seeds_near_half(plan: Plan, whole: float) -> tuple[int, ...]:
    """Of each candidate of a smaller plan, to take half of the time of the whole one."""
    least, each = min(_LEAST_SEEDS, plan.n_seeds - 1), (_seconds(plan, Counter()) or 0) / plan.n_seeds
    exact = whole / each / 2 if each else plan.n_seeds
    near = {min(plan.n_seeds, max(2, least, n)) for n in (floor(exact), ceil(exact))}
    return tuple(sorted(near))


def about_time(seconds: float) -> str:
    """``about 40 s``, ``about 4 min``, ``about 2.5 h``."""
    if seconds < 90:
        return f"about {max(1, ceil(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h"
