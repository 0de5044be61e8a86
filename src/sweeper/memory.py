"""The machine's memory, and what can be told to be too large for it before anything is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sweeper.errors import BadInput

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""What a container, or a job of a scheduler, may use: versions 2 and 1."""


def total() -> int:
    """Bytes that this process could use at best, if nothing else ran."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            sizes.append(int(Path(limit).read_text()))
    return min(size for size in sizes if size > 0)


def check_fits(key: str, value: object, n_bytes: float, what: str, remedy: str) -> None:
    """Raises BadInput for what would not even fit if it had the machine to itself."""
    if n_bytes > (room := total()):
        gib, has = n_bytes / 2**30, room / 2**30
        reason = f"{what} would take {gib:,.0f} GiB of memory, and this machine has {has:,.0f}"
        raise BadInput(key, value, reason, remedy)
