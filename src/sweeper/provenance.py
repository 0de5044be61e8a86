"""What was trained on before: by the weights that a run begins with, and by the trials of a study."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.fault import Fault
from sweeper.filesystem import read_yaml
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.words import counted, expanded

Digests = NDArray[np.uint64]


def seen(run: schema.Run) -> Digests | None:
    """The digests of the pictures that ``model.weights`` have seen; None where no record of ours lies beside.

    Raises:
        Fault: if that record is damaged.
    """
    if run.model.weights is None or run.from_scratch:
        return None
    path = expanded(run.model.weights)
    path = path.resolve() if path.is_symlink() else path
    files = RunFiles(path.parent)
    is_kept = path.name in (files.weights.name, files.old_weights.name)
    return files.read_trained_on() if is_kept else None


def trained_on(run: schema.Run, train: Digests) -> Digests:
    """What the weights of this run will have seen: its training pictures, and those of the runs before it."""
    before = seen(run)
    return train if before is None else np.union1d(before, train)


def remark(run: schema.Run, held_out: Digests) -> str | None:
    """That weights were trained on pictures which are now to judge them, and how many.

    Args:
        held_out: the digests of the pictures in val and test.
    """
    before = seen(run)
    n = 0 if before is None else int(np.isin(held_out, before).sum())
    if n == 0:
        return None
    pictures = counted(n, "picture")
    return (
        f"model.weights={run.model.weights} was trained on {pictures} of {len(held_out):,} in val and test:"
        " scores there are too good"
    )


_LATEST = 20
"""Trials among which one of the same dataset is looked for."""
_OF_PIXELS = ("name", "image_size", "margin", "background", "max_megapixels", "skip_unreadable", "layout")


def remark_changed(dataset: schema.Dataset, study: Path) -> str | None:
    """That the data are no longer those of the trials which a study has already, where it has any."""
    files = StudyFiles(study)
    if not files.is_ours:
        return None
    now: str | None = None
    for number in reversed(files.complete_runs()[-_LATEST:]):
        with suppress(Fault):  # what is damaged is told where it is needed
            run = files.run(number)
            before = read_yaml(run.config).get("dataset")
            if not isinstance(before, dict) or _key(before) != _key(asdict(dataset)):
                continue
            now = now or _fingerprint(dataset)
            if run.read_environment().get("data", now) != now:
                return (
                    f"the data have changed since trial {number} of {study.name}: values from before and "
                    "after are not comparable; another study=NAME begins anew"
                )
    return None


def _key(dataset: Mapping[str, Any]) -> list[Any]:
    """Which files, and how they are shown; a run saves its path as it is from anywhere."""
    path = dataset.get("path")
    return [path and str(expanded(path).absolute()), *(dataset.get(name) for name in _OF_PIXELS)]


def _fingerprint(dataset: schema.Dataset) -> str:
    from sweeper.training import images

    return images.fingerprint(images.read(dataset))
