"""A file that a person has named for a command to write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sweeper.errors import BadInput
from sweeper.filesystem import check_replaceable, sweep_up_beside
from sweeper.record.mark import MARK
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles


def check_out(path: Path, key: str, example: str, inputs: Iterable[Path] = ()) -> None:
    """Make way for a file that a person has named: what killed commands have left of it is removed.

    Args:
        path: the file, which may be there: of any other kind it is replaced.
        example: the name of such a file.
        inputs: files that the command reads, also by other names.

    Raises:
        BadInput: for what it must not take the place of.
    """
    if os.path.isdir(path):  # noqa: PTH112  # no error where it is closed
        remedy = f"write the name of a file in it, as {path / example}"
        raise BadInput(key, path, "is a folder", remedy)
    check_replaceable(path, key)
    another = "write the name of another file"
    try:
        sweep_up_beside(path)
        if not path.exists():
            return
        if any(one.exists() and path.samefile(one) for one in inputs):
            raise BadInput(key, path, "is what it reads", another)
        if any(_is_record(each) for each in (path.absolute(), path.resolve())):
            raise BadInput(key, path, "belongs to a study or a run", another)
    except OSError:  # writing says why it cannot be
        return


def _is_record(path: Path) -> bool:
    return MARK in path.parts or RunFiles(path.parent).owns(path) or StudyFiles(path.parent).owns(path)
