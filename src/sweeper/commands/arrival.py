"""Studies that other machines have trained: what a command reads of one is brought here first."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import origin, outcome, outputs
from sweeper.errors import BadInput, nearest
from sweeper.fault import Fault
from sweeper.limit import check_study_name
from sweeper.program import program
from sweeper.record.mark import OUTPUTS, default_journal
from sweeper.record.study_files import CERTIFICATE, StudyFiles
from sweeper.secret import hide_secrets
from sweeper.words import disk_space, near

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a study is, beside its folder."""

    storage: str | None = None
    """The URL; None where the folder remembers it."""
    artifacts: str | None = None
    """The artifact store; None where the study remembers it."""
    is_sure: bool = False
    """Whether it is downloaded without asking, however large."""


HERE = Source()


def find(name: str | None, source: Source = HERE, needs_model: bool = False) -> StudyFiles:
    """The files of a study, with what other machines have sent of it.

    Args:
        needs_model: whether nothing can be done without the weights; else large ones stay away unasked.

    Raises:
        BadInput: if there is no such study, or no model of it that can be had.
        Fault: if its storage, or the artifact store, cannot be read.
    """
    if source.artifacts is not None:
        _check_artifacts(source.artifacts)
    if source.storage is None:
        files = find_study(name)
    else:
        with _named_storage():
            files = _from_storage(name, source.storage)
    bring(files, source, needs_model)
    return files


def find_study(name: str | None) -> StudyFiles:
    """``outputs.find_study``, also where an app has its trials elsewhere than under ``outputs/``.

    Raises:
        BadInput: if there is no such study.
    """
    try:
        return outputs.find_study(name)
    except BadInput:
        if (files := _begun_elsewhere(name)) is None:
            raise
        return files


def bring_model(name: str | None, source: Source = HERE) -> str:
    """Bring the best model of a study, where a study is named; gives what ``outputs.find_model`` finds it by.

    Raises:
        BadInput: as ``find``.
    """
    if name is None or source.storage is not None:
        return str(find(name, source, needs_model=True).folder)
    for folder in (Path(OUTPUTS, name), Path(name)):
        if (files := StudyFiles(folder)).is_ours:
            bring(files, source, needs_model=True)
            return name
    found = None if Path(name).exists() else _begun_elsewhere(name)
    return name if found is None else str(found.folder)


@contextmanager
def _named_storage() -> Iterator[None]:
    """What is wrong with a storage is said of the option that named it."""
    try:
        yield
    except BadInput as error:
        if error.key != "hydra.sweeper.storage":
            raise
        raise BadInput("--storage", error.value, error.reason, error.remedy) from error


def bring(files: StudyFiles, source: Source = HERE, needs_model: bool = False) -> None:
    """Bring the folder of a study up to date, and that of its certificate, or of its search.

    Where its storage cannot be read now, what is here is what there is.
    """
    if not (files.travels or source.storage):
        return
    try:
        _bring(files, source, needs_model)
    except (BadInput, Fault) as error:
        if (needs_model and not files.best.has_model) or not files.results.exists():
            raise
        log.warning("%s is as this machine knows it: %s", near(files.folder), error)
    if needs_model and files.best.is_ours and not files.best.has_model:
        raise _model_elsewhere(files)


def _bring(files: StudyFiles, source: Source, needs_model: bool) -> None:
    import optuna

    from sweeper.search.arrival import Arrival
    from sweeper.search.artifact import absolute
    from sweeper.search.storage import look_into_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = None if source.artifacts is None else absolute(source.artifacts, "--artifacts")
    storage = look_into_storage(files.read_storage() or "memory")
    with _progress() as shown:
        Arrival(files, storage, place).bring(_admit(files, source, needs_model), shown)
        for other in _related(files, storage):
            Arrival(other, storage, place).bring()


def _check_artifacts(place: str) -> None:
    from sweeper.search.artifact import absolute, check_readable

    check_readable(absolute(place, "--artifacts"), "--artifacts")


def _admit(files: StudyFiles, source: Source, needs_model: bool) -> Callable[[int], bool]:
    from sweeper.search.arrival import is_small

    def admit(n_bytes: int) -> bool:
        if is_small(n_bytes) or source.is_sure:
            return True
        what = f"{disk_space(n_bytes)} would be downloaded"
        if not needs_model:
            print(f"The model is not here: {what}; add --yes", file=sys.stderr)
            return False
        if not sys.stdin.isatty():
            raise BadInput("STUDY", files.read_name(), f"{what}, and nobody can be asked", "write --yes too")
        return click.confirm(f"Download {disk_space(n_bytes)}?")

    return admit


@contextmanager
def _progress() -> Iterator[Callable[[int], object]]:
    """How much has come, on a terminal; it is gone at the end."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("Downloading"), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda n: progress.advance(task, n)


def _model_elsewhere(files: StudyFiles) -> BadInput:
    """Says where the weights are, and how other machines get them."""
    host, folder, artifacts = whereabouts(files)
    if artifacts is not None:
        reason = f"the weights of its best trial are not in {artifacts}, but on {host}, in {folder}"
        return BadInput("STUDY", files.read_name(), reason, "copy them from there, or run this there")
    reason = f"the weights of its best trial are on {host}, in {folder}"
    remedy = "run this there; a search with hydra.sweeper.artifacts=s3://BUCKET/PREFIX lets all have them"
    return BadInput("STUDY", files.read_name(), reason, remedy)


def whereabouts(files: StudyFiles) -> tuple[str, str, str | None]:
    """The host and the folder that have the weights of the best trial, and the artifact store, if any."""
    from sweeper.search.life import host_of
    from sweeper.search.look import load

    study = load(files)
    begun = origin.read(study._storage, study._study_id)
    best = outcome.best_trials(study)
    if not best:
        return "another machine", str(begun.get("folder")), begun.get("artifacts")
    told = best[0].user_attrs
    host = host_of(str(told.get("worker", "")))
    return host or "another machine", str(told.get("folder")), begun.get("artifacts")


def show_whereabouts(files: StudyFiles) -> None:
    """Say where the weights of the best trial are, if this machine has none; nothing where nobody knows."""
    with suppress(BadInput, Fault):
        host, folder, artifacts = whereabouts(files)
        store = "" if artifacts else "; hydra.sweeper.artifacts=s3://BUCKET/PREFIX would let all have them"
        print(f"Weights:   on {host}, in {folder}{store}")


def _related(files: StudyFiles, storage: BaseStorage) -> list[StudyFiles]:
    """The certificate of a search, and the search of a certificate, beside it."""
    name = files.read_name()
    other = name.removesuffix(CERTIFICATE) if name.endswith(CERTIFICATE) else f"{name}{CERTIFICATE}"
    folder = files.folder.with_name(
        files.folder.name.removesuffix(CERTIFICATE)
        if name.endswith(CERTIFICATE)
        else f"{files.folder.name}{CERTIFICATE}"
    )
    found = StudyFiles(folder)
    if other in (study.study_name for study in storage.get_all_studies()):
        url = files.read_storage() or ""
        return [_home(other, storage, url, found)]
    return []


# ------------------------------------------------------------------------------------------ where it is put


def _from_storage(name: str | None, url: str) -> StudyFiles:
    """The folder of a study that is known by its storage, made where there is none."""
    from sweeper.search.storage import absolute, look_into_storage

    url = absolute(url)
    storage = look_into_storage(url)
    names = [study.study_name for study in storage.get_all_studies()]
    if name is None:
        name = _newest(storage)
    if name not in names:
        near_name = nearest(name or "", names)
        remedy = f"did you mean {near_name}? " if near_name else ""
        remedy += f"{program()} studies --storage URL lists them"
        raise BadInput("STUDY", name, "there is no such study in that storage", remedy)
    return _home(name, storage, url, StudyFiles(Path(OUTPUTS, name).absolute()))


def _begun_elsewhere(name: str | None) -> StudyFiles | None:
    """The folder of a study that the default journal knows by its name, or has as its newest."""
    from sweeper.search.storage import look_into_storage

    journal = default_journal()
    if not journal.exists():
        return None
    with suppress(BadInput, Fault):
        storage = look_into_storage(str(journal))
        name = name or _newest(storage)
        begun = origin.of(storage, name)
        if (there := origin.folder(begun)) is not None:
            files = StudyFiles(there)
            return files if files.is_of(name, begun.get("id")) else None
    return None


def _newest(storage: BaseStorage) -> str:
    def last(study_id: int) -> float:
        times = [t.datetime_start for t in storage.get_all_trials(study_id, deepcopy=False)]
        return max((time.timestamp() for time in times if time), default=0.0)

    studies = storage.get_all_studies()
    if not studies:
        begin = f"start one: {program()} -m optimizer=adam,sgd"
        raise BadInput("STUDY", None, "there is no study in that storage", begin)
    return max(studies, key=lambda study: last(study._study_id)).study_name


def _home(name: str, storage: BaseStorage, url: str, files: StudyFiles) -> StudyFiles:
    """The folder of a study: where it was begun, if that is here; else this one."""
    begun = origin.of(storage, name)
    study_id = begun.get("id")
    there = origin.folder(begun)
    if there is not None and (home := StudyFiles(there)).is_of(name, study_id):
        if (known := home.read_storage()) != url:  # a copy of the study, or another way to the same
            log.warning("%s has it in %s, which is what is shown", near(there), hide_secrets(str(known)))
        return home
    if files.is_ours:
        if files.read_name() != name or (study_id and files.read_id() not in (None, study_id)):
            what = "is the folder of another study of that name, which that storage does not hold"
            raise BadInput("STUDY", name, f"{near(files.folder)} {what}", "rename that folder, or remove it")
        if files.read_storage() != url:
            files.mark(name, url, study_id, travels=True, has_arrived=True)
        return files
    check_study_name(name, "STUDY")
    outputs.refuse_folder_of_others(files.folder, is_search=True)
    if files.folder.exists() and any(files.folder.iterdir()):
        raise BadInput("STUDY", name, f"{near(files.folder)} holds something else", "rename that folder")
    files.mark(name, url, study_id, travels=True, has_arrived=True)
    return files
