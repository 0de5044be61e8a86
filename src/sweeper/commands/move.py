"""``sweeper move [STUDY] --storage URL``: a study goes on in another storage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
from rich.console import Console
from rich.progress import Progress

from sweeper import origin, outcome
from sweeper.commands import studies
from sweeper.commands.arrival import find_study
from sweeper.commands.studies import told_storage
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import locked
from sweeper.program import program
from sweeper.record.study_files import StudyFiles
from sweeper.search import look
from sweeper.search.move import put
from sweeper.search.sender import Sender
from sweeper.search.storage import absolute, open_storage
from sweeper.search.travel import travels
from sweeper.words import counted, near

log = logging.getLogger(__name__)


def move(name: str | None, storage: str) -> None:
    """Move a study, and its certificate.

    Raises:
        BadInput: if there is no such study, if it runs, or if the other storage cannot have it.
        Fault: if a storage fails; the study is whole in the one or in the other.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    files = find_study(name)
    url = absolute(storage)
    if url == "memory":
        raise BadInput("--storage", url, "is the memory of one process", "write a URL, or a journal's path")
    searched = files.certifies or files
    certificate = searched.certified_by
    folders = [searched, *([certificate] if certificate.is_certificate else [])]
    if all(each.read_storage() == url for each in folders):
        raise BadInput("--storage", told_storage(url), "is where the study is", "write another one")
    for each in folders:
        if each.read_storage() != url:
            _move(each, url)
    again = look.read(searched).again()
    if again is not None:
        print(f"Go on:     {again}")
    print(f"Best:      {program()} best {searched.typed}")


def _move(files: StudyFiles, url: str) -> None:
    source, name, before = look.load(files), files.read_name(), files.read_storage() or ""
    listed = next(each for each in studies.of_storage(before) if each.name == name)
    studies.check_ended(listed, "STUDY")
    target = open_storage(url)
    begun = origin.read(source._storage, source._study_id)
    going = travels(url, files.folder, begun.get("artifacts"))
    n_trials = len(outcome.shown(source.get_trials(deepcopy=False)))
    with locked(files.lock):
        if files.read_storage() != before:
            raise BadInput("STUDY", name, "it has just been moved", f"{program()} studies shows where")
        with _progress(len(source.get_trials(deepcopy=False))) as advance:
            put(source, files, target, going, advance)
        files.mark(name, url, begun.get("id"), going, files.has_arrived)
    if going and (sender := Sender.of(look.load(files), files)) is not None:
        sender.send_study()
    print(f"Moved {name}: {counted(n_trials, 'trial')}, from {told_storage(before)} to {told_storage(url)}")
    try:
        source._storage.delete_study(source._study_id)
    except (BadInput, Fault) as error:
        log.warning("%s still has a copy of it in %s: %s", near(files.folder), told_storage(before), error)


@contextmanager
def _progress(n_trials: int) -> Iterator[Callable[[], object]]:
    """How far it is, on a terminal; it is gone at the end."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Moving", total=n_trials)
        yield lambda: progress.advance(task)
