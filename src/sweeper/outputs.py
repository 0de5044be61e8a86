"""Studies and models as people name them, and what lies under ``outputs/``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import BadInput, nearest
from sweeper.fault import Fault
from sweeper.filesystem import read_yaml
from sweeper.program import program
from sweeper.record.mark import OUTPUTS, default_journal, study_folders
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.words import expanded, near


def find_study(name: str | None) -> StudyFiles:
    """A study's files by its name or folder; None is the newest under ``outputs/``.

    Raises:
        BadInput: if there is none, or none that we can read.
    """
    with _named("STUDY", name, "write the name of a study, or its folder"):
        return _find_study(name)


@contextmanager
def _named(key: str, name: object, remedy: str) -> Iterator[None]:
    """What the disk says of a name that a person wrote, as BadInput."""
    try:
        yield
    except PermissionError as error:
        what = "give yourself the permission (chmod)"
        raise BadInput(key, name, "no permission to read it", what) from error
    except OSError as error:  # as a name that is too long
        raise BadInput(key, name, (error.strerror or "cannot be read").lower(), remedy) from error


def _find_study(name: str | None) -> StudyFiles:
    folders = (Path(OUTPUTS, name), Path(name)) if name is not None else ()
    for folder in folders:
        if (files := StudyFiles(folder)).is_ours:
            files.read_name()
            return files
    for folder in folders:
        if RunFiles(folder).is_ours:
            shown = shlex.quote(near(folder))
            remedy = f"look into {shown}/result.json and signs.json, or write the name of a study"
            raise BadInput("STUDY", name, "is one training run, not a search", remedy)
    known = sorted(_studies(), key=lambda files: files.results_s)
    if name is None and known:
        known[-1].read_name()
        return known[-1]
    elsewhere = "name one that is elsewhere by its folder, or with --storage URL"
    begin = f"{elsewhere}; start one: {program()} -m optimizer=adam,sgd"
    names = [str(files.folder.relative_to(OUTPUTS)) for files in reversed(known)]
    like = nearest(name or "", names)
    newest = f"{f'did you mean {like}? ' if like else ''}write one of {', '.join(names[:5])}; {elsewhere}"
    remedy = newest if known else begin
    if name is None:
        raise BadInput("STUDY", None, f"there is no study in {Path(OUTPUTS).absolute()}", remedy)
    raise BadInput("STUDY", name, f"there is no such study in {Path(OUTPUTS).absolute()}", remedy)


@dataclass(frozen=True)
class ModelFiles:
    """A trained model; ``card`` is None where the file of the weights holds it, too."""

    weights: Path
    card: Path | None


def find_model(name: str | os.PathLike[str]) -> ModelFiles:
    """The best model of a study, by its name or folder; that of a run's folder, or of a copy; or one file.

    A folder may lack its card, which reading it tells.

    Raises:
        BadInput: if there is none.
    """
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not isinstance(text, str):
        reason = "is no name of a study, and no path"
        raise BadInput("model", name, reason, "write the name of a study, or the folder of a model")
    with _named("model", name, "write the name of a study, or the folder of a model"):
        return _find_model(text)


_RUN_BY = {".onnx": "onnxruntime", ".pt2": "torch.export.load"}
"""What runs an exported file, which sweeper itself does not."""


def _find_model(text: str) -> ModelFiles:
    for place in (Path(OUTPUTS, text), expanded(text)):
        if StudyFiles(place).is_ours:
            return _best_model(StudyFiles(place))
        run = RunFiles(place.parent if place.is_file() else place)
        if place.is_file() and (place not in (run.weights, run.card) or not run.card.exists()):
            if place.suffix == run.weights.suffix:
                return ModelFiles(place, None)
            reason, remedy = (
                "is no file that holds a model",
                "write the name of a study, or the folder of a model",
            )
            if runs_it := _RUN_BY.get(place.suffix):
                reason = f"is for {runs_it}, which runs it without sweeper"
                remedy += "; --format safetensors exports one for sweeper"
            raise BadInput("model", text, reason, remedy)
        if run.card.exists() or run.is_ours:
            return _model_of(run)
    if place.is_dir():
        return _model_of(run)
    return _best_model(find_study(text))


def _best_model(study: StudyFiles) -> ModelFiles:
    if study.best.folder.is_dir():
        return _model_of(study.best)
    results, shown = read_yaml(study.results) if study.results.exists() else {}, near(study.folder)
    if solutions := results.get("solutions"):
        remedy = f"write the folder of one of its best trials, as {shown}/{solutions[0]['trial']}"
        raise BadInput("model", shown, "has several objectives, and no single best model", remedy)
    if (number := results.get("best_trial")) is not None:
        if (trial := study.run(number)).is_ours or trial.card.exists():
            raise BadInput(
                "model", shown, "has lost its best/", f"write another folder, as {near(trial.folder)}"
            )
        remedy = "load what that app has kept, or write another study"
        raise BadInput("model", shown, "has no model of sweeper's own: another app has trained it", remedy)
    raise BadInput("model", shown, "no trial of this study is done", "wait for the first, or resume it")


def _model_of(run: RunFiles) -> ModelFiles:
    for path in (run.card, run.weights):
        # Opening a pipe would wait for ever, and a device may have no end.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BadInput("model", near(path), "is a pipe or a device, and no file", "take an intact copy")
    if run.card.exists() and not run.weights.exists():
        remedy = f"put {run.weights.name} back, or write another model"
        raise BadInput("model", near(run.folder), f"has lost its weights ({run.weights.name})", remedy)
    return ModelFiles(run.weights, run.card)


def refuse_folder_of_others(folder: Path, is_search: bool) -> None:
    """What one command wrote is never mixed with what another writes.

    Args:
        is_search: whether it is a search that wants it, which goes on with a study of its own; a single run
            takes the place of an earlier one.

    Raises:
        BadInput: if it is a file, or belongs to a run, or to a study.
    """
    remedy, outputs = "write another name, as study=NAME", Path(OUTPUTS).absolute()
    for place in (folder.absolute(), *folder.absolute().parents):
        is_file = os.path.exists(place) and not os.path.isdir(place)  # noqa: PTH110, PTH112 - no error where it is closed
        if is_file and outputs in place.parents:  # else another name is no remedy
            raise BadInput("folder", near(place), "is a file", remedy)
        if not is_search and StudyFiles(place).is_ours:
            raise BadInput("folder", near(place), "belongs to a study", remedy)
    if is_search and RunFiles(folder).is_ours:
        raise BadInput("folder", near(folder.absolute()), "belongs to a run", remedy)


def study_names() -> list[str]:
    """The folders of the studies under ``outputs/``, as one writes them: ``a``, or ``a/b``."""
    return [str(files.folder.relative_to(OUTPUTS)) for files in _studies()]


def find_storages() -> list[str | None]:
    """Where the studies under ``outputs/`` are kept, the default journal first; [None] if there are none."""
    journal = default_journal()
    urls = [str(journal)] if journal.exists() else []
    urls += [files.read_storage() or "memory" for files in _studies()]
    found = [url for url in dict.fromkeys(urls) if "://" in url or Path(url).exists()]
    return [*found] or [None]


def studies_in(storages: Container[str | None]) -> list[str]:
    """A study of each of these storages, by which a command can name it: a URL may hold a password."""
    found = {files.read_storage() or "memory": str(files.folder.relative_to(OUTPUTS)) for files in _studies()}
    return [name for url, name in found.items() if url in storages]


def find_arrived(study_id: str) -> StudyFiles | None:
    """The folder under ``outputs/`` of the study with this ``id``, whichever machine began it."""
    for folder in study_folders():
        with suppress(Fault, OSError):
            if (files := StudyFiles(folder.absolute())).read_id() == study_id:
                return files
    return None


def _studies() -> list[StudyFiles]:
    return [files for files in map(StudyFiles, study_folders()) if files.results.exists()]
