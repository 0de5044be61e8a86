"""What a person sees of a running sweep: a line per worker and a total; log lines without a terminal."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from sweeper.record import WORDS, best_trials
from sweeper.search.study import FINISHED, Study

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Progress:
    """Draws from the trials alone, so that it does not matter who runs them."""

    def __init__(self, study: Study) -> None:
        self._search = study.search
        self._study = study
        self._console = Console()
        self._live: Live | None = None
        trials = study.trials()
        self._seen = {t.number for t in trials if t.state.is_finished()}
        self._error: str | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        n_trials = self._search.n_trials
        of = "without limit" if n_trials is None else f"of {counted(n_trials, 'trial')}"
        n_before = sum(t.state in FINISHED for t in self._study.trials())
        went_on = f", {n_before} of them done before" if n_before else ""
        self._print(f"Study {self._search.study_name}: a search {of}{went_on}, in {self._search.folder}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._error:
            print(self._error, file=sys.stderr)

    def fail(self, message: str) -> None:
        """Say at the end why no more workers are started."""
        self._error = message

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how the study stands."""
        best = best_trials(self._study.optuna)
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._seen:
                self._seen.add(trial.number)
                self._print(_line(trial, is_best=trial.number in {b.number for b in best}))
        if self._live is not None:
            self._live.update(self._picture(trials, best), refresh=True)

    def _print(self, line: str) -> None:
        """One line on a terminal, however narrow; the whole line elsewhere."""
        if self._console.is_terminal:
            self._console.print(Text(line, no_wrap=True, overflow="ellipsis"))
        else:
            print(line, flush=True)

    def _picture(self, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial]) -> Group:
        running = [t for t in trials if t.state == TrialState.RUNNING]
        rows = Table.grid(padding=(0, 2))
        for trial in sorted(running, key=lambda t: t.user_attrs.get("worker", "")):
            rows.add_row(*_running_row(trial, self._search.pruner.get("max_resource")))
        n_finished = sum(t.state in FINISHED for t in trials)
        bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rest]}"),
        )
        rest = _counts(trials)
        if best:
            rest.append(f"best {_score(best[0])}")
        if left := self._time_left(trials, n_finished, len(running)):
            rest.append(f"{left} left")
        bars.add_task(
            self._search.study_name, total=self._search.n_trials, completed=n_finished, rest=" · ".join(rest)
        )
        return Group(rows, bars)

    def _time_left(self, trials: Sequence[FrozenTrial], n_finished: int, n_running: int) -> str | None:
        durations = [t.duration.total_seconds() for t in trials if t.state in FINISHED and t.duration]
        if not durations or self._search.n_trials is None:
            return None
        seconds = statistics.mean(durations) * (self._search.n_trials - n_finished) / max(1, n_running)
        return str(timedelta(seconds=round(seconds)))


def counted(n: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _running_row(trial: FrozenTrial, max_resource: Any) -> list[Text]:
    step = trial.last_step
    of = f" of {max_resource}" if isinstance(max_resource, int) else ""
    began = trial.datetime_start or datetime.now()
    seconds = (datetime.now() - began).total_seconds()
    return [
        Text(f"trial {trial.number}", style="cyan"),
        Text(f"step {step}{of}" if step is not None else "starting"),
        Text("" if step is None else f"{trial.intermediate_values[step]:.4g}"),
        Text(f"{seconds:.0f} s"),
        Text(describe(trial.params), style="dim", no_wrap=True, overflow="ellipsis"),
    ]


def _line(trial: FrozenTrial, is_best: bool) -> str:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    score = _score(trial) if trial.values else trial.user_attrs.get("reason", "")
    diverged = " (diverged)" if trial.user_attrs.get("diverged") else ""
    mark = "best so far  " if is_best else ""
    word = _word(trial)
    params = describe(trial.params)
    return f"trial {trial.number:>3} {word:<6} {score}{diverged}  {mark}{seconds:.1f} s  {params}"


def _word(trial: FrozenTrial) -> str:
    """What became of an ended trial; one that somebody stopped has not failed."""
    return "stopped" if trial.user_attrs.get("interrupted") else WORDS[trial.state.name]


def _counts(trials: Sequence[FrozenTrial]) -> list[str]:
    ended = Counter(_word(trial) for trial in trials if trial.state in _ENDED)
    words = [WORDS[state.name] for state in _ENDED] + ["stopped"] * bool(ended["stopped"])
    return [f"{ended[word]} {word}" for word in words]


def _score(trial: FrozenTrial) -> str:
    return ", ".join(f"{value:.5g}" for value in trial.values or [])


def describe(params: dict[str, Any]) -> str:
    """Parameters in one line, by the last part of their names where that is enough."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: tail if last[tail := name.rpartition(".")[2]] == 1 else name for name in params}
    return " ".join(
        f"{short[name]}={value:.4g}" if isinstance(value, float) else f"{short[name]}={value}"
        for name, value in params.items()
    )


def summarize(study: Study) -> None:
    """The best trial and its parameters, or the Pareto front."""
    print(f"\nStudy {study.search.study_name}: {', '.join(_counts(study.trials()))}.")
    for trial in best_trials(study.optuna):
        metrics = study.search.metrics or tuple(["value"] * len(trial.values))
        scores = ", ".join(f"{name} {value:.5g}" for name, value in zip(metrics, trial.values, strict=True))
        print(f"Best trial: number {trial.number}, {scores}")
        for name, value in trial.params.items():
            print(f"  {name} = {value}")
        print(f"  folder: {trial.user_attrs.get('folder')}", flush=True)
