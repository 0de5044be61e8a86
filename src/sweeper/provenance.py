"""What the weights that a run begins with were trained on, where an earlier run of ours left them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.literal import expanded
from sweeper.record import RunFiles
from sweeper.words import counted

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
    return files.read_trained_on() if files.weights.name == path.name else None


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
