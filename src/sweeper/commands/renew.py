"""What shows a study beside the command line is brought up to date: its note in the dashboard, its report."""

from __future__ import annotations

import logging

from sweeper.commands import report
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import locked
from sweeper.note import write_note
from sweeper.record.study_files import StudyFiles

log = logging.getLogger(__name__)


def renew(files: StudyFiles) -> None:
    """Write the note of a study anew, and its report if it has one; what goes wrong is logged."""
    import optuna

    from sweeper.search.look import read
    from sweeper.search.sender import Sender
    from sweeper.search.storage import open_storage

    try:
        seen = read(files)
        storage = open_storage(files.read_storage() or "memory")
        study = optuna.load_study(study_name=seen.name, storage=storage)
        with locked(files.lock):
            write_note(study, files, seen.again())
        if files.has_report or files.is_certificate:
            report.write([files], files.report)
        if (sender := Sender.of(study, files)) is not None:
            sender.send_study()
    except (BadInput, Fault, OSError) as error:
        log.warning("note and report of %s are as they were: %s", files.folder.name, error)
        log.debug("", exc_info=True)
