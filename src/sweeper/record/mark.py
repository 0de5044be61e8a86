"""What is ours carries a mark, ``.sweeper/``, because the folders are the app's.

What has no mark is neither read nor removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import BadInput

FORMAT = 1
"""The version of a study's attributes and files; another one is refused."""

MARK = ".sweeper"
OUTPUTS = "outputs"
"""The folder of all studies, in that where a command is typed."""
_JOURNAL = "studies.journal"


def check_format(key: str, value: object, mark: Mapping[str, Any]) -> None:
    """Raises BadInput unless the mark of a study says that we can read it."""
    if mark.get("format") != FORMAT:
        reason = f"was written by another version of sweeper (format {mark.get('format', 0)}, not {FORMAT})"
        raise BadInput(key, value, reason, "use that version, or start another study")


def default_journal() -> Path:
    """The storage of those that name none: one file for all studies here."""
    return Path(OUTPUTS, _JOURNAL).absolute()


def study_folders(top: str | Path = OUTPUTS) -> list[Path]:
    """All marked ones, also that of ``a/b``; what trials keep in their folders is not walked through."""
    found = []
    for folder, names, _ in os.walk(top):
        marks = Path(folder, MARK)
        if (marks / "storage").exists():
            found.append(Path(folder))
        is_trials = (marks / "trial.json").exists() or (marks / "run.json").exists()
        names[:] = [] if is_trials else [name for name in names if not name.startswith(".")]
    return sorted(found)
