"""``sweeper best [STUDY]``: the best trial so far, read from the files of the study."""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper import record
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.program import program
from sweeper.record import WORDS, StudyFiles

log = logging.getLogger(__name__)


def show(name: str | None) -> None:
    """Print the best trial of a study, or its Pareto front.

    Raises:
        BadInput: if there is no such study.
    """
    files = record.find_study(name)
    results = record.read_yaml(files.results)
    # optimizer.lr[freezing=head] is a name, not markup.
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"Study {results['study']}: {_counts(files, results['trials'])}")
    if "solutions" in results:
        for solution in results["solutions"]:
            values = ", ".join(f"{value:.5g}" for value in solution["values"])
            console.print(_table(f"trial {solution['trial']}: {values}", solution["params"]))
    elif results["best_trial"] is None:
        console.print("No trial has completed yet.")
    else:
        title = f"best trial: {results['best_trial']}, {results['best_value']:.5g}"
        console.print(_table(title, results["best_params"] | _measured(files)))
    show_commands(files)


def _counts(files: StudyFiles, written: dict[str, int]) -> str:
    """How many trials are in which state; as the files have it where the storage cannot be read."""
    from sweeper.search.study import look

    try:
        found = Counter(record.word(trial) for trial in look(files))
    except (BadInput, Fault) as error:
        log.debug("%s", error)
        found = Counter({WORDS[state]: n for state, n in written.items()})
    return ", ".join(f"{n} {word}" for word, n in found.items()) or "no trials"


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


def _storage_option(files: StudyFiles) -> str:
    """What the dashboard must be told where the study is not in the default journal."""
    storage = files.read_storage()
    if storage in (None, "memory", str(Path(record.OUTPUTS, record.JOURNAL).absolute())):
        return ""
    return f" --storage {'URL' if '@' in storage else shlex.quote(storage)}"  # not a password


def show_commands(files: StudyFiles) -> None:
    """The next commands a person may want."""
    near = Path(os.path.relpath(files.folder))
    study = shlex.quote(str(near.relative_to(record.OUTPUTS) if near.parts[0] == record.OUTPUTS else near))
    print(f"Browse:    {program()} dashboard{_storage_option(files)}")
    if files.best.is_complete:
        print(f"Reproduce: {program()} reproduce {study}")
        best = shlex.quote(os.path.relpath(files.best.folder))
        print(
            f"Change it: {program()} --config-dir {best} --config-name trial training.epochs=50",
            flush=True,
        )
