"""``sweeper studies [--delete STUDY]``: all studies, and what they take; or one less.

Looking writes nothing.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeper import filesystem, origin, outcome, outputs
from sweeper.errors import BadInput, nearest
from sweeper.fault import Fault
from sweeper.lock import living, locked
from sweeper.outcome import WORDS
from sweeper.program import program
from sweeper.record.mark import OUTPUTS, study_folders
from sweeper.record.study_files import StudyFiles
from sweeper.secret import hide_secrets
from sweeper.words import counted, disk_space, number, one_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial

    from sweeper.search.life import Told

PIPED_WIDTH = 1000
"""Columns where there is no terminal: nothing is wrapped or cut."""

GAP = 2
DROPPED = {"": 40, "storage": 40, "objective": 16, "searched": 0, "when": 0, "size": 0}
"""The columns that are left out one by one where there is no room, each with how much must then be left for
what was searched."""
COUNTED = ("done", "pruned", "failed", "stopped", "lost", "running")


@dataclass(frozen=True)
class Listed:
    """A study, as its storage shows it, or its folder where that cannot."""

    name: str
    storage: str
    files: StudyFiles | None
    """None where its folder is gone."""
    counts: Mapping[str, int]
    best: str
    when: datetime | None
    """Of the last change."""
    objective: str = ""
    searched: str = ""
    running: tuple[str, ...] = ()
    """Where trials run about whose life no beat tells: the hosts, or another program."""
    is_in_storage: bool = True
    problem: str = ""
    """Why its storage cannot be read."""

    @cached_property
    def n_bytes(self) -> int:
        return filesystem.size(self.files.folder) if self.files else 0


# -------------------------------------------------------------------------------------------- finding them


def find(storage: str | None = None) -> tuple[list[Listed], dict[str, str]]:
    """All studies, the newest last, and by storage why it cannot be read.

    Args:
        storage: the URL of the only one to ask.

    Raises:
        BadInput: if there is no such storage, or it cannot be opened.
        Fault: if it cannot be reached.
    """
    found, problems = list[Listed](), dict[str, str]()
    folders = [] if storage else [StudyFiles(folder.absolute()) for folder in study_folders()]
    for url in [storage] if storage else outputs.find_storages():
        if url is None:
            continue
        if is_gone(url):  # its studies are those of their folders
            if storage:
                remedy = f"{program()} studies lists those that are known"
                raise BadInput("--storage", told_storage(url), "there is none", remedy)
            continue
        try:
            found += of_storage(url)
        except Exception as error:  # a driver may raise anything here
            if storage and isinstance(error, BadInput | Fault):
                raise
            problems[url] = _reason(error)
    known = {study.files.folder for study in found if study.files}
    found += [_of_folder(files, problems) for files in folders if files.folder not in known]
    return sorted(found, key=lambda study: study.when or datetime.min), problems


def is_gone(url: str) -> bool:
    """Whether the storage was a file, or the memory of a process, and is no more."""
    from sweeper.search.storage import file_of

    path = file_of(url)
    return url == "memory" or (path is not None and not path.is_file())


def of_storage(url: str) -> list[Listed]:
    """Those that a storage has."""
    import optuna

    from sweeper.search import life
    from sweeper.search.storage import look_into_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = look_into_storage(url)
    return [
        _listed(
            study,
            origin.read(storage, study._study_id),
            partial(storage.get_all_trials, study._study_id, deepcopy=False),
            partial(life.read, storage, study._study_id),
            url,
        )
        for study in storage.get_all_studies()
    ]


def _listed(
    study: FrozenStudy,
    begun: Mapping[str, Any],
    read_trials: Callable[[], list[FrozenTrial]],
    read_told: Callable[[], Told],
    url: str,
) -> Listed:
    from sweeper.search.life import ANOTHER
    from sweeper.search.look import seen

    trials = read_trials()
    files = _its_folder(begun, study.study_name, url)
    certifies = _certificate(files)
    told = read_told()
    shown = seen(trials, files, read_trials, lambda: told)
    running = [trial for trial in shown if trial.state.name == "RUNNING"]
    times = [time for t in trials for time in (t.datetime_complete, t.datetime_start) if time]
    if files and not times:
        times = [datetime.fromtimestamp(files.folder.stat().st_mtime)]
    if certifies:
        searched = certifies
    elif space := begun.get("space"):
        searched = _searched({name: json.loads(text) for name, text in space.items()})
    else:
        searched = _searched({name: {} for trial in trials for name in trial.params})
    return Listed(
        name=study.study_name,
        storage=url,
        files=files,
        counts=Counter(map(outcome.word, shown)),
        best="" if certifies else _best(study, trials),
        when=max(times, default=None),
        objective=", ".join(begun.get("metrics", ())),
        searched=searched,
        running=tuple(told.host_of(t) or ANOTHER for t in running if not told.counts(t)),
    )


def _certificate(files: StudyFiles | None) -> str:
    """What a certificate says, in a few words; nothing of a search."""
    if files is None or not files.is_certificate:
        return ""
    from sweeper.results import verdict  # with scipy

    found = verdict.of_folder(files)
    told = "" if found is None else verdict.short(found)
    return f"{verdict.whose(found)}{f': {told}' if told else ''}"


def _its_folder(begun: Mapping[str, Any], name: str, url: str) -> StudyFiles | None:
    """The folder where the study was begun, if it is still its own; else the one where it has arrived."""
    files = StudyFiles(Path(begun.get("folder") or "."))
    if (study_id := begun.get("id")) and not files.is_of(name, study_id):
        return outputs.find_arrived(study_id)
    try:
        is_its = files.is_ours and (files.read_name(), files.read_storage()) == (name, url)
    except (BadInput, Fault):
        return None
    return files if is_its else None


def _best(study: FrozenStudy, trials: Sequence[FrozenTrial]) -> str:
    values = [t.values for t in trials if t.state.name == "COMPLETE"]
    if not values:
        return ""
    if len(study.directions) > 1:
        return "several"
    pick = max if study.directions[0].name == "MAXIMIZE" else min
    return number(pick(value for (value,) in values))


def _searched(space: Mapping[str, Mapping[str, Any]]) -> str:
    """Parameters by the last part of their names, and the options of those that choose."""
    told = dict[str, str]()
    for name, distribution in space.items():
        short = re.sub(r"\[.*", "", name).rpartition(".")[2].rpartition("/")[2]
        choices = distribution.get("attributes", {}).get("choices", [])
        is_group = "." not in name and all(isinstance(choice, str) for choice in choices)
        told[short] = f"{short}={','.join(choices)}" if choices and is_group else short
    return " ".join(told.values())


def _of_folder(files: StudyFiles, problems: Mapping[str, str]) -> Listed:
    """A study whose storage does not show it: as its folder does."""
    url = files.read_storage() or ""
    name, counts, best, when, problem = str(files.folder), dict[str, int](), "", None, problems.get(url, "")
    try:
        name = files.read_name()
        results = filesystem.read_yaml(files.results) if files.results.exists() else {"trials": {}}
        when = datetime.fromtimestamp(files.folder.stat().st_mtime)
        counts = {WORDS[state]: n for state, n in results["trials"].items()}
        best = "" if results.get("best_value") is None else number(results["best_value"])
    except Exception as error:  # whatever damaged files lead to
        problem = problem or hide_secrets(str(error))
    return Listed(name, url, files, counts, best, when, is_in_storage=False, problem=problem)


def _reason(error: Exception) -> str:
    said = error.reason if isinstance(error, BadInput | Fault) else str(error) or type(error).__name__
    return hide_secrets(" ".join(said.split()))


# ------------------------------------------------------------------------------------------------ listing


def show(storage: str | None) -> None:
    """Print a line for each study, as wide as there is room."""
    found, problems = find(storage)
    is_told = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Names like optimizer.lr[freezing=head] are no markup.
    console = Console(highlight=False, markup=False, emoji=False, width=None if is_told else PIPED_WIDTH)
    if found:
        console.print(_fitting(found, console))
        n_bytes = sum(study.n_bytes for study in found)
        console.print(f"{counted(len(found), 'study', 'studies')}, {disk_space(n_bytes)}")
        console.print(f"Remove one: {program()} studies --delete STUDY", soft_wrap=True)
    elif not problems:
        where = told_storage(storage) if storage else Path(OUTPUTS).absolute()
        begin = f"start one: {program()} -m optimizer=adam,sgd"
        console.print(f"There are no studies in {where}; {begin}", soft_wrap=True)
    for url, reason in problems.items():
        console.print(f"{told_storage(url)} cannot be read: {reason}", style="yellow", soft_wrap=True)


def _fitting(found: Sequence[Listed], console: Console) -> Table:
    """The table with as many columns as there is room for; names and what was searched may be cut."""
    columns = _columns(found)
    widths = {name: max(map(cell_len, [name, *cells])) for name, cells in columns.items()}
    name_least = min(widths["study"], 20)
    for dropped, searched_least in DROPPED.items():
        columns.pop(dropped, None)
        others = sum(widths[name] + GAP for name in columns if name not in ("study", "searched"))
        room = console.width - others - (GAP if "searched" in columns else 0)
        if room >= name_least + min(widths["searched"], searched_least):
            break
    widths["study"] = max(1, min(widths["study"], room - min(widths["searched"], searched_least)))
    widths["searched"] = min(widths["searched"], room - widths["study"])
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in columns:
        side: Any = "right" if name in (*COUNTED, "best", "size") else "left"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=widths[name])
    for row in zip(*columns.values(), strict=True):
        # Other programs name studies, too, and a terminal would obey some characters.
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def _columns(found: Sequence[Listed]) -> dict[str, list[str]]:
    """By name, the cells of each study; what no study has is no column."""
    storages = {study.storage for study in found}
    counts = {
        word: [str(study.counts.get(word, 0)) for study in found]
        for word in COUNTED
        if word == "done" or any(study.counts.get(word) for study in found)
    }
    return {
        "study": [study.name for study in found],
        **counts,
        "best": [study.best for study in found],
        **({"objective": [study.objective for study in found]} if any(s.objective for s in found) else {}),
        "when": [_ago(study.when) for study in found],
        "size": [disk_space(study.n_bytes) for study in found],
        **({"storage": [told_storage(study.storage) for study in found]} if len(storages) > 1 else {}),
        "searched": [study.searched if study.is_in_storage else _lost(study) for study in found],
    }


def _lost(study: Listed) -> str:
    return f"({study.problem or 'its storage is gone'})"


def _ago(when: datetime | None) -> str:
    if when is None:
        return ""
    seconds = (datetime.now() - when).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            n = int(seconds // length)
            return f"{n} {unit} ago" if n <= 30 or unit != "d" else when.strftime("%Y-%m-%d")
    return "now"


def told_storage(url: str) -> str:
    """A path from here, or a URL without what may be secret in it."""
    scheme, separator, rest = url.rpartition("://")
    rest = rest.partition("?")[0].rpartition("@")[2] if separator else rest
    near = os.path.relpath(rest.removeprefix("/") if scheme == "sqlite" else rest) if rest else ""
    is_path = scheme in ("", "sqlite") and url != "memory" and not near.startswith("..")
    return f"{scheme}{separator}{'/' * bool(scheme)}{near}" if is_path else f"{scheme}{separator}{rest}"


# ----------------------------------------------------------------------------------------------- deleting


def delete(name: str, storage: str | None, is_sure: bool) -> None:
    """Remove a study from its storage, and its files; what is not ours is left, and said.

    Raises:
        BadInput: where it is not clear which is meant, while it runs, or where nobody can be asked.
    """
    study = _chosen(name, storage)
    where = os.path.relpath(study.files.folder) if study.files else told_storage(study.storage)
    n_trials = sum(study.counts.values())
    about = f"{study.name}: {counted(n_trials, 'trial')}, {disk_space(study.n_bytes)}, in {where}"
    check_ended(study, "--delete")
    if not is_sure:
        if not sys.stdin.isatty():
            raise BadInput("--delete", name, "cannot be confirmed without a terminal", "write --yes too")
        if not click.confirm(f"Delete {about}?"):
            return
    n_left = _remove(study)
    print(f"Deleted {about}")
    if n_left:
        print(f"Left in {where}: {counted(n_left, 'file')} of the app")


def _chosen(name: str, storage: str | None) -> Listed:
    """The study of that name, or in that folder."""
    found, problems = find(storage)
    there = [s for s in found if s.files and s.files.folder == Path(name).absolute()]
    there = there or [s for s in found if s.name == name or (s.files and _is_at(s.files, name))]
    if not there:
        near = nearest(name, [study.name for study in found])
        remedy = f"did you mean {near}?" if near else f"{program()} studies lists them"
        unread = "".join(f", and {told_storage(url)} cannot be read" for url in problems)
        raise BadInput("--delete", name, f"there is no such study{unread}", remedy)
    if len(there) > 1:
        folders = [os.path.relpath(study.files.folder) for study in there if study.files]
        is_told = len(folders) == len(there)
        remedy = f"write its folder: {' or '.join(folders)}" if is_told else "write --storage URL too"
        raise BadInput("--delete", name, f"{len(there)} studies have that name", remedy)
    (study,) = there
    if study.problem:
        reason = f"{told_storage(study.storage)} cannot be read ({study.problem})"
        raise BadInput("--delete", name, reason, "make it readable first")
    return study


def _is_at(files: StudyFiles, name: str) -> bool:
    return files.folder == Path(OUTPUTS, name).absolute()


def check_ended(study: Listed, key: str) -> None:
    """Raises BadInput, about this key, while the study runs here or on another machine."""
    _check_left(study, key)
    _check_silent(study, key)


def _check_left(study: Listed, key: str) -> None:
    """Raises BadInput while workers run its trials, for all that can be known without waiting."""
    from sweeper.search.life import ANOTHER

    workers = living(study.files.heartbeats) if study.files else []
    elsewhere = [where for where in study.running if where != socket.gethostname()]
    if workers or elsewhere:
        where = "" if workers else f"{' in' if elsewhere[0] == ANOTHER else ' on'} {elsewhere[0]}"
        if_gone = "" if workers else "; if it is gone, take it over: hydra.sweeper.take_over=true"
        raise BadInput(key, study.name, f"the study is running{where}", f"stop it first{if_gone}")


def _check_silent(study: Listed, key: str) -> None:
    """Raises BadInput while a pool of another machine tells the study that it lives."""
    from sweeper.search import life
    from sweeper.search.storage import look_into_storage

    if study.is_in_storage:
        storage = look_into_storage(study.storage)
        study_id = storage.get_study_id_from_name(study.name)
        if host := life.watch(storage, study_id, study.files, partial(print, flush=True)):
            raise BadInput(key, study.name, f"the study is running on {host}", "stop it first")


def _forget_artifacts(storage: BaseStorage, study_id: int) -> None:
    """Remove what was sent to an artifact store; where that cannot be, say where it is left."""
    from sweeper.search.sender import forget

    try:
        forget(storage, study_id)
    except (BadInput, Fault) as error:
        print(f"Left in {origin.read(storage, study_id).get('artifacts')}: {error}")


def _remove(study: Listed) -> int:
    """First its files, then it, then its folder's mark: who is killed in between can delete it again.

    Returns:
        how many files of the app are left in its folder.
    """
    from sweeper.search.storage import look_into_storage

    storage = look_into_storage(study.storage) if study.is_in_storage else None
    if storage is not None:
        _forget_artifacts(storage, storage.get_study_id_from_name(study.name))
    if study.files is None:
        assert storage is not None
        storage.delete_study(storage.get_study_id_from_name(study.name))
        return 0
    with locked(study.files.lock):
        _check_left(study, "--delete")
        trials: Sequence[FrozenTrial] = ()
        if storage is not None:
            study_id = storage.get_study_id_from_name(study.name)
            trials = storage.get_all_trials(study_id, deepcopy=False)
        study.files.remove_trials(trials)
        if storage is not None:
            storage.delete_study(study_id)
        return study.files.remove_mark()
