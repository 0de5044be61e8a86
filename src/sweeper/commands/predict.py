"""``sweeper predict STUDY PATH…``: what a trained model says of pictures, as a table or a CSV file."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.table import Table
from rich.text import Text

from sweeper import filesystem, outputs
from sweeper.commands.arrival import HERE, Source, bring_model
from sweeper.errors import BadInput, named, visible
from sweeper.record.target import check_out
from sweeper.screen import Screen
from sweeper.words import counted, expanded, some

if TYPE_CHECKING:
    from sweeper.inference.classifier import Classifier, Prediction, Predictions
    from sweeper.inference.picture import Picture

STDOUT = "-"
"""In place of a file's name."""

BETWEEN_LABELS = "|"
"""In a CSV file, where a picture has several."""

_ALL_COLUMNS = 10**6
"""Of a table that no terminal shows: nobody breaks its lines."""


def show(
    study: str,
    paths: Sequence[str],
    csv_file: str | None,
    top: int | None,
    device: str,
    trust: bool,
    source: Source = HERE,
) -> int:
    """Print a table, or write a CSV file; pictures that cannot be read are named on standard error.

    Args:
        csv_file: ``-`` is standard output.
        top: how many of the likeliest classes to tell; None tells one in the table and all in a file.

    Returns:
        1 if a picture could not be read, else 0.

    Raises:
        BadInput: if there is no such model, or none of the paths is a picture or a folder with some.
    """
    file = None if csv_file in (None, STDOUT) else expanded(csv_file)
    pictures = _find(paths)
    study = bring_model(study, source)
    if file is not None:
        with named("STUDY", "model"):
            files, read = outputs.find_model(study), (picture.content for picture in pictures)
        inputs = (path for path in (files.weights, files.card, *read) if isinstance(path, Path))
        check_out(file, "--csv", "predictions.csv", inputs)
    model = _load(study, device, trust)
    with _progress(len(pictures)) as done:
        said = model.predict(pictures, skip_unreadable=True, progress=done)
    if file is not None:
        with (
            filesystem.whole(file) as path,
            path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened,
        ):
            _write_rows(opened, said, top)
        print(f"{counted(len(said), 'picture')}: {visible(str(file))}")
    elif csv_file == STDOUT:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
        _write_rows(sys.stdout, said, top)
    else:
        _print_table(said, top or 1, model.card.several_labels)
    sys.stdout.flush()
    for name, why in said.unreadable.items():
        print(f"{visible(name)}: {visible(why)}", file=sys.stderr)
    return 1 if said.unreadable else 0


def _find(paths: Sequence[str]) -> list[Picture]:
    """All pictures, also those that are known not to be readable, unless there are no others."""
    missing = [path for path in paths if not os.path.lexists(path)]
    if len(missing) == len(paths):
        reason = "there is no such file or folder" if len(paths) == 1 else "none of them is there"
        raise BadInput("PATH", some(paths), reason, "write paths of pictures, or of folders of them")

    from sweeper.inference.picture import each
    from sweeper.training.picture import UnreadableError

    pictures = list(each(paths, channels=3))
    errors = [picture.content for picture in pictures if isinstance(picture.content, UnreadableError)]
    if len(errors) == len(pictures):
        remedy = "write paths of pictures, or of folders of them"
        raise BadInput("PATH", some(picture.name for picture in pictures), errors[0].why, remedy)
    return pictures


def _load(study: str, device: str, trust: bool) -> Classifier:
    from sweeper.inference.classifier import load
    from sweeper.training.machine import resolve_device

    try:
        resolve_device(device)
    except BadInput as error:
        raise BadInput("--device", device, error.reason, "write --device auto or --device cpu") from error
    with named("STUDY", "model"):
        return load(study, trust=trust, device=device)


@contextmanager
def _progress(n: int) -> Iterator[Callable[[int], object] | None]:
    """A bar on a terminal, which is gone at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=n)
        yield lambda done: shown.update(task, completed=done)


# --------------------------------------------------------------------------------------------- the table


def _print_table(said: Predictions, top: int, several_labels: bool) -> None:
    if not said:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("picture", overflow="fold", ratio=None)
    table.add_column("labels" if several_labels else "class", overflow="fold")
    if not several_labels:
        table.add_column("probability", justify="right", no_wrap=True)
    if top > 1:
        table.add_column("likeliest" if several_labels else "then", overflow="fold")
    for one in said:
        table.add_row(*_row(one, top, several_labels))
    screen = Screen()
    screen.print(table, width=None if screen.is_terminal else _ALL_COLUMNS, crop=False)


def _row(one: Prediction, top: int, several_labels: bool) -> list[Text]:
    name, likeliest = Text(visible(one.name)), one.top(top)
    if several_labels:
        labels = _listed([(label, one.probabilities[label]) for label in one.classes])
        return [name, labels or Text("none", "dim"), *([_listed(likeliest)] if top > 1 else [])]
    cells = [name, Text(visible(one.classes[0])), Text(f"{one.probability:.3f}")]
    return [*cells, *([_listed(likeliest[1:])] if top > 1 else [])]


def _listed(classes: Sequence[tuple[str, float]]) -> Text:
    return Text(", ".join(f"{visible(name)} {probability:.3f}" for name, probability in classes))


# ---------------------------------------------------------------------------------------------- the file


def _write_rows(file: TextIO, said: Predictions, top: int | None) -> None:
    """Path, class and its probability, then the probability of each class, or the next of the likeliest."""
    writer = csv.writer(file, lineterminator="\n")
    more = [f"p_{name}" for name in said.classes]
    if top is not None:
        top = min(top, len(said.classes))
        more = [name for i in range(2, top + 1) for name in (f"class_{i}", f"probability_{i}")]
    writer.writerow(["path", "class", "probability", *more])
    for one, row in zip(said, said.probabilities, strict=True):
        values: list[Any] = list(row)
        if top is not None:
            values = [value for pair in one.top(top)[1:] for value in (pair[0], f"{pair[1]:.7g}")]
        label = BETWEEN_LABELS.join(one.classes)
        writer.writerow([one.name, label, row.max(), *values])
