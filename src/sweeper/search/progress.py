"""What a person sees of a running sweep: a line per worker and a total; log lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.live import Live
from rich.text import Text

from sweeper import ranking
from sweeper.outcome import best_trials, is_surplus, shown, told_counts, word
from sweeper.program import program
from sweeper.record.study_files import StudyFiles
from sweeper.results import belief, sign
from sweeper.results.belief import Belief
from sweeper.results.plan import CANDIDATE, DEFAULTS, REPEAT, Plan
from sweeper.screen import Bar, Screen, live, whoever_reads
from sweeper.search.life import ANOTHER, host_of, pool_of, worker_of
from sweeper.search.study import Study
from sweeper.words import clock, counted, near, number, objectives, one_line

TICK_S = 0.25
"""Between two pictures."""
_SHOWN_AT_ONCE = 20
"""So many running trials are read whole at each picture; the reports of more take many rows of a database."""
SILENCE_S = 60.0
"""Without a terminal, a worker whose trial has not ended for so long is told to be alive."""

_ON_THE_WAY_S = 10.0
"""Without a terminal, jobs that have not begun after so long are told to wait."""

_STYLES = {"done": "green", "pruned": "yellow", "failed": "red", "lost": "red", "stopped": "magenta"}
_BAR = 10
_ADVICE = {
    "diverged": "its loss grew instead of falling; if that happens often, search lower learning rates",
    "chance_level": "it learns nothing, and is as good as a guess; if most trials are so, look at labels and "
    "learning rates",
}


class Progress:
    """Draws from the trials alone, so that it does not matter who runs them.

    Args:
        silence_s: see ``SILENCE_S``.
        now_s: the time in seconds, from any beginning.
    """

    def __init__(
        self, study: Study, silence_s: float = SILENCE_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._search = study.search
        self._study = study
        self._noun = "trial" if study.search.plan is None else "training"
        self._silence_s, self._now_s = silence_s, now_s
        self._next_reports_s = float("-inf")
        self._screen = Screen()
        self._stack = ExitStack()
        self._live: Live | None = None
        study.trials()
        self._ledger = study.ledger
        trials = shown(study.ledger.trials)
        self._n_known = len(study.ledger.trials)
        self._unfinished = {*study.ledger.running, *study.ledger.waiting}
        """The numbers of those that had not ended when this looked last."""
        self._told_s: dict[int, float] = {}
        """When a running trial was first seen, or last told of."""
        self._error: str | None = None
        self.n_jobs_waiting = 0
        """Of a launcher: they are in its queue, or on their way."""
        self._queued_s: float | None = None
        """Since when there are such."""
        self._has_told_queue = False
        self._score_widths = [7] * len(self._search.directions)
        self._best = list(study.ledger.best)
        self._told_out: set[str] = set()
        if self._search.plan is not None and self._n_known > len(self._unfinished):
            self._told_out |= self._search.plan.race(trials, self._search.directions).out.keys()
        self._told_signs = {name for trial in trials for name in _signs(trial)}
        self._widen(trials)

    def __enter__(self) -> Progress:
        n_before = self._ledger.n_finished
        went_on = f", {n_before} of them ended before" if n_before else ""
        told = f"Study {self._search.study_name}: {self._purpose()}{went_on}, in {near(self._search.folder)}"
        with whoever_reads():
            self._screen.say(Text(told))
        if self._screen.is_live:
            self._live = self._stack.enter_context(live(self._screen, self._picture, by_itself=False))
        return self

    def _purpose(self) -> str:
        n_trials, plan = self._search.n_trials, self._search.plan
        if plan is None:
            return "a search " + ("without limit" if n_trials is None else f"of {counted(n_trials, 'trial')}")
        trainings = counted(plan.n_trainings, "training")
        return f"a certificate of {plan.study}: {trainings} of {counted(len(plan.candidates), 'candidate')}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with whoever_reads():
            self._stack.close()
            if self._error:
                print(self._error, file=sys.stderr)

    def fail(self, message: str) -> None:
        """Say at the end why no more workers are started."""
        self._error = message

    def tell_wait(self, running: str, wait_s: float) -> None:
        """Say for which trials of others this search waits, as it has no work left."""
        told = f"Waiting up to {wait_s:.0f} s for {running}: what fails is repeated here"
        with whoever_reads():
            self._screen.say(Text(told, style="dim"))

    def read(self, tick_s: float = TICK_S) -> None:
        """Read what has ended; what running trials report less often where they are many.

        Args:
            tick_s: how long it is until the next time.
        """
        if self._now_s() < self._next_reports_s:
            self._ledger.read_ends()
            return
        self._ledger.read()
        self._next_reports_s = self._now_s() + tick_s * (len(self._ledger.running) // _SHOWN_AT_ONCE)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how the study stands; what that takes depends on how many trials run, not on all.

        Args:
            trials: all, by number, as the study's ledger has just read them.
        """
        looked_at = self._changed(trials)
        new = [trial for trial in looked_at if trial.state.is_finished() and not is_surplus(trial)]
        self._widen(new)
        for trial in sorted(new, key=_ended):
            is_best = self._take_in(trial)
            self._screen.say(self._ended_line(trial, is_best and self._search.plan is None))
        if self._search.plan is None:
            self._tell_signs(looked_at)
        elif new:
            self._tell_who_is_out(self._search.plan)
        if self._live is not None:
            self._live.refresh()
        else:
            self._tell_who_waits()
            self._tell_who_lives()

    def _changed(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials that are new, or had not ended the last time."""
        numbers = [*sorted(self._unfinished), *range(self._n_known, len(trials))]
        found = [trials[number] for number in numbers if number < len(trials)]  # a journal may lose its end
        self._n_known = len(trials)
        self._unfinished = {trial.number for trial in found if not trial.state.is_finished()}
        return found

    def _tell_signs(self, trials: Sequence[FrozenTrial]) -> None:
        """Say what ruins trials as soon as one of them has it, each once."""
        for trial in trials:
            for name in _signs(trial):
                if name not in self._told_signs:
                    self._told_signs.add(name)
                    sign.tell(self._screen, name, _ADVICE[name], trial.number)

    def _tell_who_is_out(self, plan: Plan) -> None:
        """Say which candidates get no more trainings, and why, each once."""
        trials = shown(self._ledger.trials)  # of a certificate, whose budget is small
        for name, out in plan.race(trials, self._search.directions).out.items():
            if name not in self._told_out:
                self._told_out.add(name)
                reason = "a training of it diverged" if out.than is None else f"worse than {out.than}"
                by = "" if out.by is None else f" by {number(out.by)}"
                who = "the defaults are" if name == DEFAULTS else f"{name} is"
                self._screen.say(Text(f"{who} out: {reason}{by}", style="bold"))

    def _tell_who_waits(self) -> None:
        """Say once in a log that jobs have to wait in a queue, and are not only on their way."""
        if not self.n_jobs_waiting or self._has_told_queue:
            return
        now_s = self._now_s()
        if self._queued_s is None:
            self._queued_s = now_s
        if now_s - self._queued_s >= _ON_THE_WAY_S:
            self._has_told_queue = True
            self._screen.say(Text(not_begun(self.n_jobs_waiting)))

    def _tell_who_lives(self) -> None:
        now_s, running = self._now_s(), self._running()
        numbers = {trial.number for trial in running}
        self._told_s = {number: told for number, told in self._told_s.items() if number in numbers}
        for trial in running:
            if now_s - self._told_s.setdefault(trial.number, now_s) >= self._silence_s:
                self._told_s[trial.number] = now_s
                self._screen.say(self._line(trial, _reported(trial), Text(self._step(trial) or "")))

    # ------------------------------------------------------------------------------------- a line for a trial

    def _ended_line(self, trial: FrozenTrial, is_best: bool) -> Text:
        if is_best:
            note = Text("best so far", style="bold green")
        elif trial.user_attrs.get("diverged"):
            note = Text("diverged")
        else:
            is_told = trial.state == TrialState.FAIL and not trial.user_attrs.get("interrupted")
            note = Text(one_line(trial.user_attrs.get("reason", "")) if is_told else "")
        return self._line(trial, trial.values or (), note)

    def _line(self, trial: FrozenTrial, values: Sequence[float], note: Text) -> Text:
        """What matters first, each part below that of other trials; a narrow terminal cuts the parameters."""
        told = word(trial)
        width = max(3, len(str(self._search.n_trials or len(self._ledger.trials))))
        parts = [
            Text.assemble(f"{self._noun} {trial.number:>{width}} ", (f"{told:<7}", _STYLES.get(told, ""))),
            Text(f" {self._scores(values)} {_seconds(trial):>5.1f} s"),
            *([Text("  ").append(note)] if note.plain else []),
            Text(f"  {self._describe(trial)}", style="dim"),
        ]
        return Text.assemble(*parts)

    def _describe(self, trial: FrozenTrial) -> str:
        """Its parameters; in a certificate whom it trains."""
        plan, attributes = self._search.plan, trial.user_attrs
        if plan is None or CANDIDATE not in attributes:
            return describe(trial.params)
        n = attributes[REPEAT] + 1
        of = f" of {plan.n_seeds}" if n <= plan.n_seeds else ""  # who stays in may get more than planned
        return f"{attributes[CANDIDATE]}, {n}{of}"

    def _scores(self, values: Sequence[float]) -> str:
        """The values with their names, or room for them."""
        told = list(map(number, values))
        told += [""] * (len(self._search.directions) - len(told))
        scores = []
        for name, value, width in zip(metric_names(self._study), told, self._score_widths, strict=True):
            scores.append(f"{name} {value:>{width}}" if value else " " * (len(name) + 1 + width))
        return "  ".join(scores)

    def _widen(self, trials: Sequence[FrozenTrial]) -> None:
        """Make room for the longest of their values."""
        for values in (trial.values for trial in trials if trial.values):
            told = map(len, map(number, values))
            self._score_widths = list(map(max, self._score_widths, told))

    def _take_in(self, trial: FrozenTrial) -> bool:
        """Compare an ended trial with those before it; whether it is the best, or one of the front."""
        self._best = ranking.best([*self._best, trial], self._search.directions)
        return trial in self._best

    # ------------------------------------------------------------------------------------- the live picture

    def _running(self) -> list[FrozenTrial]:
        running = shown(list(self._ledger.running.values()))
        return sorted(running, key=worker_of)

    def _picture(self) -> Group:
        running = self._running()
        n_rows = max(1, self._screen.size.height - 4)  # what is higher than the screen cannot be painted over
        hidden = [Text(f"… {len(running) - n_rows} more")] if len(running) > n_rows else []
        shown = running[:n_rows]
        steps = [self._step(trial) or word(trial) for trial in shown]
        width = max(map(len, steps), default=0)
        several = len({_host(trial) for trial in running}) > 1
        rows = [
            self._row(trial, step.ljust(width), f"{_host(trial)}  " if several else "")
            for trial, step in zip(shown, steps, strict=True)
        ]
        waiting = [Text(not_begun(self.n_jobs_waiting), style="dim")] if self.n_jobs_waiting else []
        return Group(*rows, *hidden, *waiting, self._total(running))

    def _row(self, trial: FrozenTrial, step: str, host: str) -> Bar:
        resource = self._max_resource()
        value = "".join(map(number, _reported(trial)))
        before = Text.assemble((f"{self._noun} {trial.number:<3}", "cyan"), f" {step}")
        told = (f"{host}{self._describe(trial)}", "dim")
        behind = Text.assemble(f"{value:>7} {_seconds(trial):>5.0f} s  ", told)
        done = None if resource is None else (trial.last_step or 0) / resource
        return Bar(before, done, behind, width=_BAR)

    def _total(self, running: Sequence[FrozenTrial]) -> Bar:
        n_trials, n_finished = self._search.n_trials, self._ledger.n_finished
        of = counted(n_finished, self._noun) if n_trials is None else f"{n_finished}/{n_trials}"
        rest = told_counts(self._ledger.words).split(", ")
        if left := self._time_left(n_finished, len(running)):
            rest.insert(0, f"{left} left")
        if self._best and len(self._search.directions) == 1 and self._search.plan is None:
            rest.insert(0, f"best {number(self._best[0].values[0])}")
        if (n_hosts := len({_host(trial) for trial in running} - {ANOTHER})) > 1:
            rest.append(f"{n_hosts} hosts")
        done = None if n_trials is None else n_finished / n_trials
        return Bar(Text(of, style="bold"), done, Text(" · ".join(rest)))

    def _time_left(self, n_finished: int, n_running: int) -> str | None:
        n_trials, n_timed = self._search.n_trials, len(self._ledger.durations_s)
        if n_timed == 0 or n_trials is None:
            return None
        mean_s = self._ledger.total_s / n_timed
        return clock(mean_s * max(0, n_trials - n_finished) / max(1, n_running))

    def _max_resource(self) -> int | None:
        resource = self._search.pruner.get("max_resource")
        return resource if isinstance(resource, int) and resource > 0 else None

    def _step(self, trial: FrozenTrial) -> str | None:
        if trial.last_step is None:
            return None
        resource = self._max_resource()
        if resource is None:
            return f"step {trial.last_step}"
        return f"step {trial.last_step:>{len(str(resource))}} of {resource}"


def _signs(trial: FrozenTrial) -> list[str]:
    """What is told at once of a trial; an app that reports an infinite value says no more of it."""
    named = trial.user_attrs.get("signs")
    found = list(named) if isinstance(named, list) else []
    if trial.user_attrs.get("diverged"):
        found.append("diverged")
    return [name for name in sign.AT_ONCE if name in found]


def _ended(trial: FrozenTrial) -> tuple[Any, int]:
    return trial.datetime_complete, trial.number


def _seconds(trial: FrozenTrial) -> float:
    """How long it took, or has taken."""
    began, now = trial.datetime_start or datetime.now(), datetime.now()
    ended = trial.datetime_complete or now
    return max(0.0, (ended - began).total_seconds())  # they may be of two hosts' clocks


def _reported(trial: FrozenTrial) -> list[float]:
    """The value that it reported last."""
    return [] if trial.last_step is None else [trial.intermediate_values[trial.last_step]]


def _host(trial: FrozenTrial) -> str:
    """The machine of its worker, or that it is another program's."""
    return host_of(worker_of(trial) or pool_of(trial)) or ANOTHER


def describe(params: dict[str, Any]) -> str:
    """Parameters in one line, by the last part of their names where that is enough."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: tail if last[tail := name.rpartition(".")[2]] == 1 else name for name in params}
    told = (
        f"{short[name]}={value:.4g}" if isinstance(value, float) else f"{short[name]}={value}"
        for name, value in params.items()
    )
    return one_line(" ".join(told))


def not_begun(n: int) -> str:
    """What is said of jobs that wait in a queue."""
    return f"{counted(n, 'job')} {'has' if n == 1 else 'have'} not begun"


def metric_names(study: Study) -> Sequence[str]:
    return objectives(study.search.metrics, len(study.search.directions))


def summarize(study: Study) -> None:
    """The best trial and its parameters, or the Pareto front."""
    study.trials()
    print(f"\nStudy {study.search.study_name}: {told_counts(study.ledger.words)}.")
    best = best_trials(study.optuna)
    told = [[number(value) for value in trial.values] for trial in best]
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    for trial, values in zip(best, told, strict=True):
        scores = zip(metric_names(study), values, widths, strict=True)
        print(f"Best trial: number {trial.number}, {', '.join(f'{n} {v:>{w}}' for n, v, w in scores)}")
        for name, value in trial.params.items():
            print(f"  {name} = {value}")
        if folder := trial.user_attrs.get("folder"):
            print(f"  folder: {near(Path(folder))}", flush=True)


def tell_belief(found: Belief) -> None:
    """How sure the best trial is."""
    Screen().label("How sure", belief.lines(found))


def tell_how_to_make_sure(files: StudyFiles) -> None:
    """The command whose certificate says more than one training of each trial can."""
    what = "is it really the best?"
    print(f"Make sure: {program()} certify {files.typed}  ({what})", flush=True)
