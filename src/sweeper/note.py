"""The note on a study that optuna-dashboard shows: its best trial, and how to reproduce it."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import record
from sweeper.program import program

if TYPE_CHECKING:
    import optuna

    from sweeper.record import StudyFiles

_OURS = "sweeper:notes"
"""The system attribute with the digests of the last two notes that we wrote, of which a kill may have left
either: a note that a person has changed is theirs."""

_VERSION = "dashboard:note_ver"
_PIECE = "dashboard:note_str:"
_PIECE_LENGTH = 2045
"""How optuna-dashboard keeps a note. Importing it for that would take seconds."""


def write_note(study: optuna.Study, files: StudyFiles) -> None:
    """Bring the study's note up to date, unless a person has written one."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    before, note = _read(attributes), _compose(study, files)
    is_ours = before == "" or _digest(before) in attributes.get(_OURS, [])
    if not is_ours or note == before:
        return
    pieces = [note[start : start + _PIECE_LENGTH] for start in range(0, len(note), _PIECE_LENGTH)]
    n_before = sum(key.startswith(_PIECE) for key in attributes)
    pieces += [""] * (n_before - len(pieces))
    changed = {_OURS: [_digest(before), _digest(note)], _VERSION: attributes.get(_VERSION, 0) + 1}
    changed |= {f"{_PIECE}{index}": piece for index, piece in enumerate(pieces)}
    for key, value in changed.items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()


def _read(attributes: dict[str, Any]) -> str:
    n_pieces = sum(key.startswith(_PIECE) for key in attributes)
    return "".join(attributes[f"{_PIECE}{index}"] for index in range(n_pieces))


def _compose(study: optuna.Study, files: StudyFiles) -> str:
    best = record.best_trials(study)
    folder = Path(os.path.relpath(files.folder))
    name = folder.name if folder.parent == Path(record.OUTPUTS) else str(folder)
    lines = []
    for trial in best:
        values = ", ".join(f"{value:.5g}" for value in trial.values)
        lines += [f"**Best trial: {trial.number}** ({values})", ""]
        if files.trial(trial).run.is_complete:
            number = f" --trial {trial.number}" if len(best) > 1 else ""
            lines += ["```", f"{program()} reproduce {shlex.quote(name)}{number}", "```", ""]
    return "\n".join(lines)
