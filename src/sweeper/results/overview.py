"""The parts of the report that are words and tables: the result, the signs, the trials, the commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from sweeper import outcome
from sweeper.ranking import seconds_of
from sweeper.results import sign, standing, study_sign
from sweeper.results.markup import command, duration, facts, paragraph, table, told
from sweeper.results.panel import Panel, Table
from sweeper.results.sign import Sign
from sweeper.results.study_record import StudyRecord
from sweeper.secret import hide_secrets
from sweeper.words import counted, one_line, sentence, some

MOST_ROWS = 200
"""Of the table of all trials."""

MOST_CHARACTERS = 300
"""Of a reason why a trial failed."""


def state(seen: StudyRecord) -> str:
    """Whether it is over; how its trials ended stands in the headline."""
    if not seen.trials:
        return "no trial yet"
    if any(t.state == TrialState.RUNNING for t in seen.trials):
        return "running"
    done = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in seen.trials)
    return "unfinished" if seen.n_trials and done < seen.n_trials else "finished"


def headline(seen: StudyRecord) -> list[tuple[str, str, str]]:
    """The few numbers that matter: what it is called, the number, and a remark."""
    best, found = standing.best_trials(seen), list[tuple[str, str, str]]()
    if len(seen.directions) > 1 and best:
        found.append(("on the Pareto front", told(len(best)), f"{some(seen.metrics, 4)}"))
    elif best:
        n_done = len(standing.completed(seen))
        remark = f"trial {best[0].number}, the {_superlative(seen)} of {n_done:,} done"
        found.append((seen.metrics[0], told(best[0].values[0]), remark))
        run = standing.best_run(seen)
        tested = _metrics(run.read_result() if run else {}, "test_")
        tested = {name: tested[name] for name in tested if name != "loss"} or tested
        found += [
            (f"test {name}", told(value), "of the best trial") for name, value in list(tested.items())[:2]
        ]
    if seen.trials:
        times = standing.times(seen)
        steps, unit = standing.n_steps(seen)
        n_wanted = f" of {seen.n_trials:,}" if seen.n_trials and len(seen.trials) < seen.n_trials else ""
        found.append(
            ("trials", f"{len(seen.trials):,}{n_wanted}", outcome.told_counts(map(outcome.word, seen.trials)))
        )
        work = f"{duration(times.trial_s)} of work" + (f", {counted(steps, unit)}" if steps else "")
        found.append(("time", duration(times.wall_s), work))
    return found


def _superlative(seen: StudyRecord) -> str:
    return "lowest" if seen.directions[0] == "minimize" else "highest"


def _metrics(result: dict[str, Any], prefix: str) -> dict[str, float]:
    """What was measured on a part of the data, the loss last."""
    found = {n.removeprefix(prefix): v for n, v in result.items() if n.startswith(prefix)}
    return {name.replace("_", " "): found[name] for name in sorted(found, key=lambda n: n == "loss")}


def found(seen: StudyRecord) -> Panel:
    """The best trial: its scores on validation and test images, what it cost."""
    best = standing.best_trials(seen)
    if not best:
        is_over = seen.trials and all(t.state.is_finished() for t in seen.trials)
        said = "No trial is done." if is_over else "No trial is done yet."
        said = said if seen.trials else "The study has no trials yet."
        return Panel("Found", paragraph(said), is_small=True)
    if len(seen.directions) > 1:
        rows = [[str(t.number), *t.values] for t in best]
        return Panel("Found", table(Table(["trial", *seen.metrics], rows)), is_small=True)
    (trial,) = best
    run = standing.best_run(seen)
    result = run.read_result() if run else {}
    scores = {part: _metrics(result, prefix) for part, prefix in (("validation", "val_"), ("test", "test_"))}
    names = list(dict.fromkeys(name for of in scores.values() for name in of))
    there = [part for part, of in scores.items() if of]
    html = Markup()
    if there:
        rows = [[name, *(scores[part].get(name) for part in there)] for name in names]
        html += table(Table(["score", *there], rows))
    about: dict[str, object] = {} if there else {seen.metrics[0]: trial.values[0]}
    about["trial"] = str(trial.number)
    if "best_epoch" in result:
        about["best epoch"] = f"{result['best_epoch']} of {result['epochs']} ({result.get('ending', '')})"
    seconds = result.get("seconds", seconds_of(trial))
    about |= {"time": duration(seconds)} if seconds is not None else {}
    for attribute, name in (("peak_memory_mb", "peak memory, MB"), ("n_parameters", "parameters")):
        if attribute in result:
            about[name] = result[attribute]
    return Panel("Found", html + facts(about), is_small=True)


def searched(seen: StudyRecord) -> Panel:
    """Each parameter with its range, and what the best has of it; and the overrides with one value."""
    best = standing.best_trials(seen)
    is_one = len(seen.directions) == 1 and bool(best)
    rows = [
        [name, standing.told_range(distribution), *([best[0].params.get(name)] if is_one else [])]
        for name, distribution in standing.space(seen).items()
    ]
    if not rows:
        return Panel("Searched", paragraph("Nothing was searched yet."), is_small=True)
    head = ["parameter", "range", *(["best"] if is_one else [])]
    html = table(Table(head, rows))
    if fixed := standing.fixed(seen):
        html += paragraph(f"Fixed: {' '.join(f'{key}={value}' for key, value in fixed.items())}")
    return Panel("Searched", html, is_small=True)


def signs(seen: StudyRecord) -> Panel | None:
    """What the study and its best trial say, the most helpful first, with the commands to type next."""
    run = standing.best_run(seen)
    of_best = sign.read_whole(run.signs) if run else []
    found = sign.ordered([*of_best, *study_sign.signs_of(seen)])
    if not found:
        return None
    html = Markup().join(_sign(one, " (best trial)" if one in of_best else "") for one in found)
    return Panel("Signs", html)


def _sign(of: Sign, whose: str) -> Markup:
    html = Markup('<div class="sign"><p><strong>{}</strong>{}: {}</p><p>{}</p>{}</div>')
    line = command(of.command) if of.command else Markup()
    texts = map(hide_secrets, (_ended(of.evidence), sentence(of.advice)))
    return html.format(of.sign, whose, *texts, line)


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def failures(seen: StudyRecord) -> Panel | None:
    """Why trials failed, the most common reason first; nothing where the sign above says it all."""
    reasons = Counter(_reason(t) for t in seen.trials if t.state == TrialState.FAIL)
    if not reasons or (
        len(reasons) == 1 and any(one.sign == "failures" for one in study_sign.signs_of(seen))
    ):
        return None
    rows = [[reason, n] for reason, n in reasons.most_common(10)]
    more = len(reasons) - len(rows)
    note = paragraph(f"{counted(more, 'other reason')}.") if more else Markup()
    return Panel("Failures", table(Table(["reason", "trials"], rows)) + note)


def _reason(trial: FrozenTrial) -> str:
    """The last line of a traceback, or what the search says."""
    attributes = trial.user_attrs
    last = [*str(attributes.get("traceback") or "").strip().splitlines(), ""][
        -1 if "traceback" not in attributes else -2
    ]
    said = one_line(str(attributes.get("reason") or last or "no reason is known"))
    return said if len(said) <= MOST_CHARACTERS else f"{said[:MOST_CHARACTERS]}…"


def trials(seen: StudyRecord) -> Panel | None:
    """A row for each trial, the best first: what all figures show, as numbers."""
    if not seen.trials:
        return None
    sign = 1 if seen.directions[0] == "minimize" else -1
    order = {word: i for i, word in enumerate(("done", "running", "pruned"))}

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        reached = standing.score(trial)
        return order.get(outcome.word(trial), 9), 0.0 if reached is None else sign * reached, trial.number

    ordered = sorted(seen.trials, key=rank)[:MOST_ROWS]
    names = list(standing.space(seen))
    head = ["trial", "state", *seen.metrics, *names, "seconds"]
    rows = [
        [
            str(t.number),
            outcome.word(t),
            *(t.values if t.state == TrialState.COMPLETE else [None] * len(seen.metrics)),
            *(t.params.get(name) for name in names),
            seconds_of(t),
        ]
        for t in ordered
    ]
    n_left = len(seen.trials) - len(rows)
    title = f"The best {len(rows)} of {len(seen.trials):,} trials" if n_left else "All trials"
    html = Markup("<details><summary>{}</summary>{}</details>")
    return Panel("Trials", html.format(f"{title}, the best first", table(Table(head, rows))))


def commands(of: Sequence[tuple[str, str]]) -> Panel | None:
    """What to type next: labels and commands."""
    parts = [Markup("<h4>{}</h4>{}").format(label, command(line)) for label, line in of]
    return Panel("Commands", Markup().join(parts)) if parts else None


def environment(seen: StudyRecord) -> Panel | None:
    """What the best run depends on besides its config."""
    run = standing.best_run(seen)
    found = run.read_environment() if run else {}
    return Panel("Environment of the best trial", facts(found)) if found else None


# ------------------------------------------------------------------------------------ several, side by side


def scores(records: Sequence[StudyRecord]) -> Panel:
    """What each study reached, and by how much that differs from the first."""
    is_same = len({(seen.directions, seen.metrics) for seen in records}) == 1 and len(records[0].metrics) == 1
    rows, first = list[list[object]](), None
    tests = [_test_scores(seen) for seen in records]
    names = list(dict.fromkeys(name for of in tests for name in of))[:2]
    for seen, tested in zip(records, tests, strict=True):
        best = standing.best_trials(seen)
        value = best[0].values[0] if best and len(seen.metrics) == 1 else None
        first = value if first is None else first
        row: list[object] = [seen.name, value]
        if is_same:
            row.append(value - first if value is not None and first is not None else None)
        times = standing.times(seen)
        row += [tested.get(name) for name in names]
        row += [
            outcome.told_counts(map(outcome.word, seen.trials)),
            duration(times.wall_s),
            duration(times.trial_s),
        ]
        rows.append(row)
    head = ["study", records[0].metrics[0] if is_same else "score", *(["difference"] if is_same else [])]
    head += [f"test {name}" for name in names] + ["trials", "time", "work"]
    note = Markup() if is_same else paragraph("Their objectives differ: the scores are not comparable.")
    return Panel("Scores side by side", table(Table(head, rows)) + note)


def _test_scores(seen: StudyRecord) -> dict[str, float]:
    run = standing.best_run(seen)
    return _metrics(run.read_result() if run else {}, "test_")


def differences(records: Sequence[StudyRecord]) -> Panel:
    """The overrides and ranges in which the studies differ."""
    written = [
        standing.fixed(seen) | {n: standing.told_range(d) for n, d in standing.space(seen).items()}
        for seen in records
    ]
    keys = list(dict.fromkeys(key for of in written for key in of))
    rows = [
        [key, *(of.get(key) for of in written)] for key in keys if len({of.get(key) for of in written}) > 1
    ]
    if not rows:
        return Panel("What differs", paragraph("They searched the same, with the same values."))
    return Panel("What differs", table(Table(["override", *(seen.name for seen in records)], rows)))
