"""How a study was begun: what the program reads of it again, and the rows in which people see it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.fault import Fault
from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.secret import hide_secrets
from sweeper.words import counted

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

KEY = "sweeper:begun"
"""A system attribute, which no dashboard shows."""

OLD = "sweeper"
"""The user attribute in which studies said the same at first, and which cannot be removed."""

_KEY_LENGTH = 512
"""What Optuna's tables have room for, also of a parameter's name."""


_TEXTS = ("folder", "sampler", "named_by", "stored_by", "folder_by", "artifacts")
_LISTS = ("metrics", "directions", "fixed", "command")
_NUMBERS = ("n_trials", "max_retries")


def read(storage: BaseStorage, study_id: int) -> dict[str, Any]:
    """How the study was begun; empty where another program has done it.

    Each entry is of the kind that is written: what another program or another format has put there is left
    out.
    """
    begun = storage.get_study_system_attrs(study_id).get(KEY)
    if begun is None:
        begun = storage.get_study_user_attrs(study_id).get(OLD)
    if not isinstance(begun, dict):  # another program's attribute may have the name
        return {}
    return {name: value for name, value in begun.items() if _is_ours(name, value)}


def of(storage: BaseStorage, study_name: str) -> dict[str, Any]:
    """How the study of that name was begun, as ``read`` says it; empty where there is none."""
    with suppress(KeyError):
        return read(storage, storage.get_study_id_from_name(study_name))
    return {}


def _is_ours(name: str, value: Any) -> bool:
    """Whether a value is of the kind that this entry has."""
    if value is None:
        return name in ("metrics", "n_trials", "sampler", "artifacts")
    if name == "id":  # files have it in their names
        return isinstance(value, str) and value.isalnum()
    if name in _TEXTS:
        return isinstance(value, str) and "\0" not in value
    if name in _LISTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name == "travels":
        return isinstance(value, bool)
    if name in _NUMBERS:
        return isinstance(value, int) and not isinstance(value, bool)
    return name != "space" or (isinstance(value, dict) and all(map(_is_range, value.values())))


def _is_range(text: Any) -> bool:
    from optuna.distributions import json_to_distribution

    try:
        json_to_distribution(text)
    except (ValueError, TypeError, KeyError, AttributeError):  # Optuna's, for what it did not write
        return False
    return True


def folder(begun: Mapping[str, Any]) -> Path | None:
    """The folder of the study, where it is one of ours and its folder is here.

    On another machine the same path may be that of another study, which has another ``id``.
    """
    path, known = begun.get("folder"), begun.get("id")
    if begun.get("format") == FORMAT and isinstance(path, str):
        with suppress(OSError, Fault):  # of a storage of somebody else, in which any text may stand
            found = StudyFiles(Path(path))
            is_its = found.folder.is_dir() and (known is None or found.read_id() in (None, known))
            return found.folder if is_its else None
    return None


def write(storage: BaseStorage, study_id: int, begun: Mapping[str, Any]) -> None:
    """Say how the study is begun, or how it goes on."""
    before = storage.get_study_user_attrs(study_id)
    if storage.get_study_system_attrs(study_id).get(KEY) != begun:
        storage.set_study_system_attr(study_id, KEY, dict(begun))
    shown: dict[str, Any] = rows(begun)
    if OLD in before:
        shown[OLD] = {}
    for name, value in shown.items():
        if before.get(name) != value:
            storage.set_study_user_attr(study_id, name, value)


def rows(begun: Mapping[str, Any]) -> dict[str, str]:
    """What a person wants to know of it, the first rows first: the dashboard shows five at a time."""
    names = begun["metrics"] or [""] * len(begun["directions"])
    objectives = zip(begun["directions"], names, strict=True)
    ranges = {
        f"searched {name}"[:_KEY_LENGTH]: _range(**json.loads(text)["attributes"])
        for name, text in begun["space"].items()
    }
    told = {
        "command": shlex.join(begun.get("command", ())),
        "objective": ", ".join(f"{direction} {name}".rstrip() for direction, name in objectives),
        **ranges,
        "fixed": " ".join(map(hide_secrets, begun["fixed"])),
        "budget": counted(begun["n_trials"], "trial") if begun.get("n_trials") else "",
        "folder": begun["folder"],
    }
    return {name: value for name, value in told.items() if value}


def _range(
    choices: list[Any] | None = None,
    low: float = 0,
    high: float = 0,
    log: bool = False,
    step: float | None = None,
) -> str:
    """A distribution, by Optuna's own names, as people write it."""
    if choices is not None:
        return ", ".join(choice if isinstance(choice, str) else json.dumps(choice) for choice in choices)
    is_told = step is not None and (step != 1 or isinstance(step, float))  # of whole numbers 1 is meant
    steps = f", in steps of {step:g}" if is_told else ""
    return f"{low:g} … {high:g}{', log' if log else ''}{steps}"
