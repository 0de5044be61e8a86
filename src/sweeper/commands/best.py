"""``sweeper best [STUDY]``: the best trial so far, read from the files of the study."""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeper import filesystem, outcome, saved
from sweeper.commands import report
from sweeper.commands.arrival import HERE, Source, find, show_whereabouts
from sweeper.commands.studies import PIPED_WIDTH
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.outcome import WORDS
from sweeper.program import program, use
from sweeper.record.study_files import StudyFiles
from sweeper.results import belief, sign
from sweeper.results.belief import Belief
from sweeper.results.sign import Sign
from sweeper.screen import Screen
from sweeper.words import near, objectives
from sweeper.words import number as told

if TYPE_CHECKING:
    from sweeper.results.certificate import Certificate

log = logging.getLogger(__name__)


def show(name: str | None, source: Source = HERE) -> None:
    """Print the best trial of a study, or its Pareto front.

    Raises:
        BadInput: if there is no such study.
    """
    files = find(name, source)
    if files.is_certificate:
        show_certificate(files)
        return
    results = filesystem.read_yaml(files.results)
    # optimizer.lr[freezing=head] is a name, not markup.
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"Study {results['study']}: {_counts(files, results['trials'])}")
    if "solutions" in results:
        for solution in results["solutions"]:
            title = _title(files, solution["trial"], solution["values"])
            console.print(_table(title, solution["params"]))
    elif results["best_trial"] is None:
        console.print("No trial is done yet.")
    else:
        title = _title(files, results["best_trial"], [results["best_value"]])
        measured = {} if files.best.choice.exists() else _measured(files)  # best/ holds another run
        console.print(_table(title, results["best_params"] | measured))
    show_belief(files)
    show_certificate_of(files)
    show_choice(files)
    show_signs(files)
    show_commands(files)


def show_belief(files: StudyFiles) -> None:
    """How sure the best trial is: its interval, who is not worse, ties, luck."""
    from sweeper.search.progress import tell_belief

    if (found := current_belief(files)) is None:
        return
    tell_belief(found)
    if found.tied:
        print(f"Tied:      {belief.named(found.tied)}")
    if found.not_worse:
        print(f"Not worse: {belief.named(found.not_worse)}")
    if (cheapest := found.cheapest) is not None and files.run(cheapest).is_complete:
        trust = saved.trust_option_of(files.run(cheapest).config)
        print(f"Cheapest:  {program()} reproduce {files.typed} --trial {cheapest}{trust}")


def current_belief(files: StudyFiles) -> Belief | None:
    """What can be said of the best trial as the study is now; as it was written where that says less."""
    from sweeper.search.look import read

    found = None
    try:
        found = belief.of(read(files))
    except Exception as error:  # whatever damaged files lead to
        log.debug("%s", error)
    if found is not None:
        return found
    try:
        return belief.from_json(files.read_belief())
    except Fault as fault:
        log.debug("%s", fault)
        return None


def show_certificate(files: StudyFiles) -> None:
    """What a certificate says, and a row for each candidate."""
    from sweeper.results import verdict

    console = Console(highlight=False, soft_wrap=True, markup=False)
    counts = _counts(files, filesystem.read_yaml(files.results)["trials"])
    found = report.certificate_of(files)
    console.print(f"Study {files.read_name()}, {verdict.whose(found)}: {counts}")
    if found is None:
        return
    tell_certificate(found)
    for what, command in certificate_commands(files, found):
        print(f"{what + ':':11} {command}")
    print(f"Report:     {program()} report {files.typed}")


def certificate_commands(files: StudyFiles, found: Certificate | None) -> list[tuple[str, str]]:
    """What goes on with a certificate, or shows its search, where that is still there; with what it is."""
    search = files.certifies
    if search is None:
        return []
    shows = ("The search", f"{program()} best {search.typed}")
    is_over = found is not None and found.finished
    return [shows] if is_over else [("Go on", f"{program()} certify {search.typed}"), shows]


def tell_certificate(found: Certificate) -> None:
    """What it says in words, and a row for each candidate."""
    from sweeper.results import certificate, verdict  # with scipy

    print()
    screen, of_all = Screen(), verdict.table(found)
    for line in certificate.lines(found):
        screen.wrap(Text(line))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    *columns, last = of_all.head
    for i, name in enumerate(columns):
        # No word of a head and no cell is broken: what is left is the verdict's.
        cells = ["" if row[i] is None else str(row[i]) for row in of_all.rows]
        width = max(map(len, [*(name.split() if len(found.metrics) > 1 else [name]), *cells]))
        table.add_column(name, width=width)
    table.add_column(last, overflow="fold")
    for row in of_all.rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    print()
    screen.print(table, width=None if screen.is_terminal else PIPED_WIDTH, crop=False)
    print()


def show_certificate_of(files: StudyFiles) -> None:
    """What the certificate of a search says, where there is one."""
    found = report.certificate_of(files)
    if found is None:
        return
    from sweeper.results import certificate  # with scipy

    Screen().label("Certified", certificate.lines(found))


def show_choice(files: StudyFiles) -> None:
    """Which run of a certificate is in ``best/``, where one was chosen: signs and commands are of it."""
    if not files.best.choice.exists():
        return
    from sweeper.results import verdict  # with scipy

    if (chosen := verdict.chosen(files)) is not None:
        of = "What follows is of it, and not of the best trial."
        Screen().label("Chosen", [f"{chosen}  ({near(files.best.folder)})", of])


def show_signs(files: StudyFiles) -> None:
    """What the study and its best trial say."""
    best = sign.read_whole(files.best.signs) if files.best.is_ours else []
    sign.show(Screen(), [*best, *current_signs(files)], files.signs, files.best.signs)


def current_signs(files: StudyFiles) -> list[Sign]:
    """The signs of the study as it is now; as they were written where the storage cannot be read."""
    from sweeper.results.study_sign import signs_of
    from sweeper.search.look import read

    try:
        return signs_of(read(files))
    except (BadInput, Fault) as error:
        log.debug("%s", error)
        return sign.read_whole(files.signs)


def _counts(files: StudyFiles, written: dict[str, int]) -> str:
    """How many trials are in which state; as the files have it where the storage cannot be read."""
    from sweeper.search.look import look

    try:
        return outcome.told_counts(map(outcome.word, look(files)))
    except (BadInput, Fault) as error:
        log.debug("%s", error)
        return outcome.told_counts(Counter({WORDS[state]: n for state, n in written.items()}).elements())


def _title(files: StudyFiles, number: int, values: Sequence[float]) -> str:
    """As a search names its best trial; what another app calls its values, only the study knows."""
    objective = files.run(number).read_result().get("objective") or _metrics(files, len(values))
    names = [objective] if isinstance(objective, str) else objective
    scores = ", ".join(f"{name} {told(value)}" for name, value in zip(names, values, strict=False))
    return f"Best trial: number {number}, {scores}"


@cache
def _metrics(files: StudyFiles, n: int) -> tuple[str, ...]:
    from sweeper.search.look import read

    try:
        return objectives(read(files).metrics, n)
    except (BadInput, Fault) as error:
        log.debug("%s", error)
        return objectives(None, n)


def _measured(files: StudyFiles) -> dict[str, Any]:
    result = files.best.read_result()
    names = [name for name in result if name.startswith(("val_", "test_"))]
    names += ["best_epoch", "epochs", "seconds", "peak_memory_mb"]
    return {name: result[name] for name in names if name in result}


def _table(title: str, rows: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, f"{value:.5g}" if isinstance(value, float) else str(value))
    return table


def _can_certify(files: StudyFiles) -> bool:
    """Whether there is a trial to train again, in a storage that is still there, and nobody has yet."""
    results = filesystem.read_yaml(files.results)
    is_done = results.get("best_trial") is not None or bool(results.get("solutions"))
    return is_done and files.can_be_read_again and not files.certified_by.is_certificate


def show_commands(files: StudyFiles) -> None:
    """The next commands a person may want."""
    from sweeper.search.progress import tell_how_to_make_sure

    study = files.typed
    if _can_certify(files):
        tell_how_to_make_sure(files)
    print(f"Browse:    {report.browse(files)}")
    if files.best.is_complete:
        trust = saved.trust_option_of(files.best.config)
        if files.travels and not files.best.has_model:
            show_whereabouts(files)
        if files.best.has_model:
            print(f"Use it:    {use(study, trust)}")
            print(f"Export it: {program()} export {study} --format pt2{trust}")
        print(f"Reproduce: {program()} reproduce {study}{trust}")
        best = shlex.quote(os.path.relpath(files.best.folder))
        print(
            f"Change it: {program()} --config-dir {best} --config-name trial{trust} training.epochs=50",
            flush=True,
        )
