"""The note on a study that optuna-dashboard shows: what was found, what it says, and what to do next."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import outcome
from sweeper.fault import Fault
from sweeper.markdown import block, code, table, text
from sweeper.program import program, use
from sweeper.results import belief, importance, sign, study_record
from sweeper.secret import hide_secrets
from sweeper.words import counted, near, sentence

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from sweeper.record.study_files import StudyFiles
    from sweeper.results.sign import Sign
    from sweeper.results.study_record import StudyRecord

log = logging.getLogger(__name__)

_OURS = "sweeper:notes"
"""The system attribute with the digests of the last two notes that we wrote, of which a kill may have left
either: a note that a person has changed is theirs."""

_VERSION = "dashboard:note_ver"
_PIECE = "dashboard:note_str:"
_PIECE_LENGTH = 2045
"""How optuna-dashboard keeps a note. Importing it for that would take seconds."""

_MOST = 50
"""Trials of a Pareto front that are listed."""


def write_note(study: optuna.Study, files: StudyFiles, to_go_on: str | None = None) -> None:
    """Bring the study's note up to date, unless a person has written one.

    Args:
        to_go_on: the command that goes on with the search.
    """
    attributes = study._storage.get_study_system_attrs(study._study_id)
    before, note = _read(attributes), hide_secrets("\n".join(_compose(study, files, to_go_on)))
    version, ours = attributes.get(_VERSION, 0), attributes.get(_OURS, [])
    if before is None or not isinstance(version, int) or not isinstance(ours, list):
        log.warning("the note of %s is left as it is: optuna-dashboard has not written it", study.study_name)
        return
    is_ours = before == "" or _digest(before) in ours
    if not is_ours or note == before:
        return
    pieces = [note[start : start + _PIECE_LENGTH] for start in range(0, len(note), _PIECE_LENGTH)]
    n_before = sum(key.startswith(_PIECE) for key in attributes)
    pieces += [""] * (n_before - len(pieces))
    changed: dict[str, Any] = {_OURS: [_digest(before), _digest(note)], _VERSION: version + 1}
    changed |= {f"{_PIECE}{index}": piece for index, piece in enumerate(pieces)}
    for key, value in changed.items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()


def _read(attributes: dict[str, Any]) -> str | None:
    """The note, empty where there is none; None where its pieces are no note."""
    n_pieces = sum(key.startswith(_PIECE) for key in attributes)
    pieces = [attributes.get(f"{_PIECE}{index}") for index in range(n_pieces)]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    return "".join(texts) if len(texts) == n_pieces else None


# ------------------------------------------------------------------------------------------ what it says


def _compose(study: optuna.Study, files: StudyFiles, to_go_on: str | None) -> Iterator[str]:
    if files.is_certificate:
        yield from _certificate(files)
        return
    seen, best = study_record.of(study, files), outcome.best_trials(study)
    of_best = sign.read_whole(files.best.signs) if files.best.is_ours else []
    signs = [*of_best, *sign.read_whole(files.signs)]
    if best:
        is_one = len(seen.directions) == 1
        yield from _one(best[0], seen) if is_one else _several(best, seen.metrics)
        yield from _belief(best[0], files)
    yield from _certified(files)
    yield from told_signs(signs)
    if (doubt := importance.warning(seen)) is not None:
        yield from [f"**{text(doubt)}**", ""]
    if best or signs:
        yield from _commands(best, files, to_go_on)


def _one(best: FrozenTrial, seen: StudyRecord) -> Iterator[str]:
    yield from [f"# Best trial: number {best.number}, {code(seen.metrics[0])} {best.value:.5g}", ""]
    try:
        result = seen.files.best.read_result()
    except Fault as error:  # a damaged file must not cost the note
        log.warning("%s", error)
        result = {}
    if result.get("trial") == best.number and not seen.files.best.choice.exists():
        scores = [f"{code(name)} {told:.5g}" for name, told in result.items() if name.startswith("test_")]
        yield from ["On the test images: " + ", ".join(scores), ""] if scores else []
    yield from table(["searched", "best trial"], best.params.items())


def _belief(best: FrozenTrial, files: StudyFiles) -> Iterator[str]:
    """How sure that is, as the end of the search has found it."""
    try:
        found = belief.from_json(files.read_belief())
    except Fault as error:
        log.warning("%s", error)
        return
    if found is not None and (found.trial == best.number or not found.has_winner):
        yield from ["## How sure is it?", "", *_paragraphs(belief.sentences(found))]


def _certified(search: StudyFiles) -> Iterator[str]:
    """What a search's certificate says, where there is one, and whose run was chosen."""
    files = search.certified_by
    if not files.certificate.exists():
        return
    from sweeper.results import certificate, verdict  # with scipy

    if (found := verdict.of_folder(files)) is not None:
        yield from ["## Certificate", "", *_paragraphs(certificate.lines(found))]
    if (chosen := verdict.chosen(search)) is not None:
        yield from [f"**Chosen**: {text(chosen)}", ""]


def _certificate(files: StudyFiles) -> Iterator[str]:
    """The note on a study that is a certificate."""
    from sweeper.results import certificate, verdict  # with scipy

    if (found := verdict.of_folder(files)) is None:
        return
    yield from [f"# Certificate of {code(found.study)}", "", *_paragraphs(certificate.lines(found))]
    rows = verdict.table(found)
    yield from table(rows.head, (["" if cell is None else cell for cell in row] for row in rows.rows), text)
    yield from [f"## Commands, in the folder {code(str(Path.cwd()))}", ""]
    yield from ["See everything in one page:", ""]
    yield from block(f"{program()} report {files.typed}")


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from [text(line), ""]


def _several(best: Sequence[FrozenTrial], names: Sequence[str]) -> Iterator[str]:
    yield from [f"# {counted(len(best), 'best trial')}: none is better in every objective", ""]
    shown = ((trial.number, *trial.values) for trial in best[:_MOST])
    yield from table(["trial", *names], shown)
    if len(best) > _MOST:
        yield from [f"And {len(best) - _MOST:,} more.", ""]


def told_signs(signs: Sequence[Sign]) -> Iterator[str]:
    """Signs with what to do about them, the most helpful first, in Markdown."""
    if signs:
        yield from ["## Signs", ""]
    for each in sign.ordered(signs):
        told = f"{each.evidence[:1]}{sentence(each.evidence)[1:]} {sentence(each.advice)}"
        yield from [f"**{text(each.sign)}**: {text(told)}", ""]
        if each.command:
            yield from block(each.command)


def _commands(best: Sequence[FrozenTrial], files: StudyFiles, to_go_on: str | None) -> Iterator[str]:
    name = files.typed
    yield from [f"## Commands, in the folder {code(str(Path.cwd()))}", ""]
    runs = [trial.number for trial in best if files.trial(trial).run.is_complete]
    trust = files.trial(best[0]).run.trust_option if runs else ""
    if runs:
        is_one = len(best) == 1
        yield from [f"Reproduce {'the best trial' if is_one else 'one of them, by its number'}:", ""]
        yield from block(f"{program()} reproduce {name}{'' if is_one else f' --trial {runs[0]}'}{trust}")
    if runs and files.best.is_complete:
        config = shlex.quote(os.path.relpath(files.best.folder))
        if files.best.has_model:
            yield from ["Let the best model say what a picture shows:", ""]
            yield from block(use(name, trust))
        yield from ["Train it again with changes:", ""]
        yield from block(f"{program()} --config-dir {config} --config-name trial{trust} training.epochs=50")
    if to_go_on:
        yield from ["Resume the search; `hydra.sweeper.n_trials=N` adds trials:", ""]
        yield from block(to_go_on)
    where = f", in {code(near(files.report))} now" if files.has_report else ""
    yield from [f"See everything in one page{where}:", ""]
    yield from block(f"{program()} report {name}")
