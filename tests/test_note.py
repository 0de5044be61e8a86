"""The note on a study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from sweeper.note import write_note
from sweeper.record import StudyFiles
from sweeper.search.storage import open_storage


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(str(tmp_path / "journal")), direction="maximize")


def test_the_dashboard_reads_the_note(study: optuna.Study, tmp_path: Path) -> None:
    """It is in optuna-dashboard's own format, and follows the best trial; without one there is none."""
    files = StudyFiles(tmp_path)
    write_note(study, files)
    assert get_note(study) == ""
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
        write_note(study, files)
    assert get_note(study) == "**Best trial: 1** (2)\n"


def test_a_persons_note_is_theirs(study: optuna.Study, tmp_path: Path) -> None:
    """What a person has written, or changed, is not written over."""
    files = StudyFiles(tmp_path)
    study.tell(study.ask(), 1.0)
    write_note(study, files)
    save_note(study, f"{get_note(study)} Mine.")
    study.tell(study.ask(), 2.0)
    write_note(study, files)
    assert get_note(study).endswith("Mine.")


def test_a_long_note_becomes_short(tmp_path: Path) -> None:
    """A Pareto front's note is kept in pieces; nothing is left of a longer one."""
    storage = open_storage(str(tmp_path / "journal"))
    study = optuna.create_study(storage=storage, directions=["minimize", "minimize"])
    files = StudyFiles(tmp_path)
    for x in range(200):
        study.tell(study.ask(), [x, -x])
    write_note(study, files)
    long = get_note(study)
    assert "**Best trial: 199** (199, -199)" in long
    assert len(long) > 2 * 2045
    study.tell(study.ask(), [-1, -1000])
    write_note(study, files)
    assert get_note(study) == "**Best trial: 200** (-1, -1000)\n"


def test_killed_while_writing(study: optuna.Study, tmp_path: Path) -> None:
    """Whichever of its attributes was the last to be written, the next search writes the whole note."""
    files = StudyFiles(tmp_path)
    study.tell(study.ask(), 1.0)
    write_note(study, files)
    journal = tmp_path / "journal"
    study.tell(study.ask(), 2.0)
    n_lines = len(journal.read_text().splitlines())
    write_note(study, files)
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) > n_lines + 2
    for n in range(n_lines, len(lines)):
        torn = tmp_path / f"torn-{n}"
        torn.write_text("".join(lines[:n]))
        again = optuna.load_study(study_name=study.study_name, storage=open_storage(str(torn)))
        write_note(again, files)
        assert get_note(again) == "**Best trial: 1** (2)\n"
