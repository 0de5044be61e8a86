"""What goes with a study to machines that do not see its folder.

The small files of a trial are put into the study itself, as a system attribute of the trial. What is too
large for that goes to an artifact store, where the person has named one: the model of the best trial, what
``best/`` holds besides, and what the trials say of the validation pictures.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweeper import ranking
from sweeper.results.val_logits import LOGITS_BYTES
from sweeper.search.artifact import Artifacts
from sweeper.search.storage import file_of
from sweeper.secret import hide_known_secrets

log = logging.getLogger(__name__)

FILES = "sweeper:files"
"""The system attribute of a trial, or of a study, with its small files."""
BEST = "sweeper:best"
"""The system attribute of a study with what ``best/`` holds at the end, which a trial did not leave."""

MOST = 60_000
"""Characters of such an attribute: MySQL has room for 65,535, and every process that opens the study reads
it. Measured: 4,900 of 20 epochs on the digits, 24,000 of 200 epochs, 29,000 of 500 classes, 47,000 of
both."""
_MOST_UNPACKED = 8 * 10**6
"""Bytes: what claims to be larger was not written by a trial."""

LOGITS_ROOM = LOGITS_BYTES - 4 * 10**6
"""Of the logits that a study sends, those that a folder has room for (see ``results.val_logits``)."""


def travels(storage: str, folder: Path, artifacts: str | None) -> bool:
    """Whether others may read the study without seeing its folder: not where both are on one disk."""
    if storage == "memory":
        return False
    path = file_of(storage)
    return artifacts is not None or path is None or _disk(path) != _disk(folder)


def _disk(path: Path) -> int:
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    return there.stat().st_dev


# ---------------------------------------------------------------------------------------------- attributes


def pack(texts: Mapping[str, str]) -> str:
    """Texts by their names, in few characters; of those that are too long only the names are left."""
    kept: dict[str, str | None] = {name: hide_known_secrets(text) for name, text in texts.items()}
    while len(packed := _packed(kept)) > MOST:
        longest = max(kept, key=lambda name: len(kept[name] or ""))
        kept[longest] = None
    return packed


def _packed(texts: Mapping[str, str | None]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(texts).encode(), 9)).decode()


def unpack(packed: object) -> dict[str, str]:
    """The texts that ``pack`` was given, without those that were too long; nothing of what is none of it."""
    return {name: text for name, text in _unpacked(packed).items() if isinstance(text, str)}


def left_out(packed: object) -> list[str]:
    """The names of those that were too long."""
    return [name for name, text in _unpacked(packed).items() if text is None]


def _unpacked(packed: object) -> dict[str, Any]:
    if not isinstance(packed, str) or len(packed) > 2 * MOST:
        return {}
    with suppress(ValueError, binascii.Error, zlib.error, RecursionError):
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(packed, validate=True), _MOST_UNPACKED)
        found = json.loads(content) if not unzip.unconsumed_tail else None
        return found if isinstance(found, dict) else {}
    return {}


# ----------------------------------------------------------------------------------------------- artifacts


_ARTIFACT = "artifacts:"
"""What Optuna's tools look for among system attributes."""


def attribute(artifacts: Artifacts, name: str) -> str:
    """The system attribute of a trial that says what an artifact of it is."""
    return f"{_ARTIFACT}{artifacts.id_of(name)}"


def model_name(study_id: str, number: int) -> str:
    return f"{study_id}-trial-{number}.zip"


def logits_name(study_id: str, number: int) -> str:
    return f"{study_id}-trial-{number}-val_logits.npz"


def best_name(study_id: str) -> str:
    return f"{study_id}-best.zip"


def filename(name: str) -> str:
    """``trial-3.zip``."""
    return name.partition("-")[2]


def logits_sizes(trials: Iterable[FrozenTrial], study_id: str, artifacts: Artifacts) -> dict[int, int]:
    """Of the trials that have sent their logits, by their numbers, the bytes."""
    sizes = {}
    for trial in trials:
        key = attribute(artifacts, logits_name(study_id, trial.number))
        if trial.state == TrialState.COMPLETE and key in trial.system_attrs:
            with suppress(ValueError, TypeError, KeyError):
                sizes[trial.number] = int(json.loads(trial.system_attrs[key])["n_bytes"])
    return sizes


def within(
    trials: Sequence[FrozenTrial], sizes: Mapping[int, int], directions: Sequence[str]
) -> list[FrozenTrial]:
    """The best trials whose logits have room together."""
    inside, room = [], LOGITS_ROOM
    for trial in ranking.ranked(trials, directions):
        n_bytes = sizes.get(trial.number, 0)
        if n_bytes > room:
            break
        if n_bytes:
            inside.append(trial)
            room -= n_bytes
    return inside
