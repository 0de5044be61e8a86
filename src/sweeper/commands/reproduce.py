"""``sweeper reproduce [STUDY] [--trial N]``: train again, and compare bit by bit."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sweeper import check, filesystem
from sweeper import saved as saved_run
from sweeper.commands.arrival import HERE, Source, find
from sweeper.environment import environment
from sweeper.errors import BadInput
from sweeper.record.mark import OUTPUTS
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.words import counted, near

IDENTICAL, DIFFERENT = 0, 3
"""Exit codes."""

_MEASURED = ("seconds", "images_per_second", "peak_memory_mb")
"""Columns that differ from run to run."""


class _Enough(Exception):
    """The saved history has no more epochs to compare with."""


def reproduce(name: str | None, number: int | None, trust: bool = False, source: Source = HERE) -> int:
    """Train the best trial of a study (or trial ``number``, or a single run's folder) again and compare.

    Nothing is written.

    Args:
        trust: whether the saved run may import what it names.

    Raises:
        BadInput: if there is no such study or trial, or it has no history, or may not be run.
    """
    from sweeper.training import data
    from sweeper.training.fit import Epoch, fit
    from sweeper.training.machine import resolve_device

    files = _find_run(name, number, source)
    saved = files.read_rows()
    run = check.to_run(filesystem.read_yaml(files.config))
    if not trust:
        saved_run.refuse_import(run.model, near(files.config))
    loaded = data.load(run.dataset, resolve_device(run.device))
    with_what = f"{counted(run.training.n_threads or 1, 'thread')} on {run.device}"
    print(f"Training {files.folder} again: {counted(len(saved), 'epoch')} with {with_what}")
    again: list[dict[str, str]] = []

    def on_epoch(epoch: Epoch) -> None:
        again.append({column: repr(value) for column, value in epoch.row().items()})
        print(
            f"epoch {epoch.epoch}/{len(saved)}: {_difference(saved[len(again) - 1], again[-1]) or 'same'}",
            flush=True,
        )
        if len(again) == len(saved):
            raise _Enough

    with contextlib.suppress(_Enough):
        fit(run, loaded, on_epoch)
    now = environment(run, loaded.fingerprint)
    return _verdict(saved, again, files.read_environment(), now)


def _find_run(name: str | None, number: int | None, source: Source) -> RunFiles:
    is_run = name is not None and number is None and source.storage is None
    for folder in (Path(OUTPUTS, name), Path(name)) if name is not None and is_run else ():
        if RunFiles(folder).is_complete and not StudyFiles(folder).is_ours:
            return RunFiles(folder)
    study = find(name, source)
    files = study.best if number is None else study.run(number)
    if not files.is_complete:
        what = "the best trial" if number is None else f"trial {number}"
        there = study.complete_runs()
        if not there:
            reason, remedy = "no trial of it is a run of sweeper's own", "write a study of sweeper -m"
            raise BadInput("STUDY", near(study.folder), reason, remedy)
        known = f"write --trial N, one of {', '.join(map(str, there))}"
        raise BadInput("--trial", number, f"{near(study.folder)} has no saved run of {what}", known)
    return files


def _difference(saved: dict[str, str], again: dict[str, str]) -> str:
    parts = [
        f"{column} {saved[column]} → {again.get(column)}"
        for column in saved
        if column not in _MEASURED and saved[column] != again.get(column)
    ]
    return ", ".join(parts)


def _verdict(
    saved: list[dict[str, str]], again: list[dict[str, str]], before: dict[str, Any], now: dict[str, Any]
) -> int:
    parts = [i for i, (a, b) in enumerate(zip(saved, again, strict=False), start=1) if _difference(a, b)]
    is_same = not parts and len(saved) == len(again)
    changed = {key: (before[key], now[key]) for key in before if before[key] != now.get(key)}
    if is_same and "data" not in changed:
        print(f"identical: {counted(len(saved), 'epoch')} to the last bit")
        return IDENTICAL
    first = parts[0] if parts else len(again) + 1
    print("the history is the same, but not the data" if is_same else f"different from epoch {first} on")
    for key, (old, new) in changed.items():
        print(f"  {key}: then {old}, now {new}")
    if not changed:
        print("  nothing that was recorded of the environment differs")
    return DIFFERENT
