"""The note on a study."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note

from sweeper.note import write_note
from sweeper.record.study_files import StudyFiles
from sweeper.results import sign
from sweeper.results.belief import Belief, Estimate
from sweeper.results.sign import Sign
from sweeper.search.storage import open_storage
from tests.studied import certificate_of, on_disk, trial


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
    assert get_note(study).startswith("# Best trial: number 1, `value` 2\n")


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
    write_note(study, files, to_go_on="x" * 5000)
    long = get_note(study)
    assert "# 200 best trials" in long
    assert "| 49 | 49 | -49 |\n\nAnd 150 more." in long
    assert len(long) > 2 * 2045
    study.tell(study.ask(), [-1, -1000])
    write_note(study, files)
    short = get_note(study)
    assert short.startswith("# 1 best trial: ")
    assert "| trial | value\\_0 | value\\_1 |\n|:---|:---|:---|\n| 200 | -1 | -1000 |\n" in short
    assert len(short) < 2045


def test_signs_and_commands(study: optuna.Study, tmp_path: Path) -> None:
    """The study's signs and the best trial's stand there with what to type; so does how to go on."""
    files = StudyFiles(tmp_path)
    files.best.mark()
    sign.write(files.signs, [Sign("lr_at_edge", "the best lies at 1e-2", "widen it", "run -m lr=1")])
    sign.write(files.best.signs, [Sign("overfitting", "val_loss rises.", "Regularise.", None)])
    study.tell(study.ask(), 1.0)
    write_note(study, files, "run -m x=1 study=a")
    note = get_note(study)
    for part in (
        "**lr\\_at\\_edge**: the best lies at 1e-2. Widen it.\n\n```sh\nrun -m lr=1\n```\n",
        "**overfitting**: val\\_loss rises. Regularise.\n\n",
        "```sh\nrun -m x=1 study=a\n```",
        f" report {shlex.quote(os.path.relpath(tmp_path))}\n",
    ):
        assert part in note


def test_signs_of_a_study_without_a_best_trial(study: optuna.Study, tmp_path: Path) -> None:
    """Where all trials have failed, the note says why."""
    study.tell(study.ask(), state=TrialState.FAIL)
    files = StudyFiles(tmp_path)
    sign.write(files.signs, [Sign("failures", "1 of 1 trials failed.", "Fix it.", None)])
    write_note(study, files)
    assert get_note(study).startswith("## Signs\n\n**failures**: 1 of 1 trials failed.")


def test_it_warns_of_an_importance_that_rests_on_little(study: optuna.Study, tmp_path: Path) -> None:
    """optuna-dashboard draws an importance from two trials, and the note says what that is worth."""
    for x in (1.0, 2.0):
        trial = study.ask({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
        study.tell(trial, x)
    write_note(study, StudyFiles(tmp_path))
    assert re.search(r"\*\*Do not trust the hyperparameter importance .* 2 done trials", get_note(study))


def test_damaged_signs_do_not_cost_the_note(
    study: optuna.Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read is told, and what cannot is logged."""
    files = StudyFiles(tmp_path)
    files.signs.parent.mkdir()
    files.signs.write_text("[{]")
    study.tell(study.ask(), 1.0)
    write_note(study, files)
    assert "# Best trial: number 0" in get_note(study)
    assert "signs.json" in caplog.text


@pytest.mark.parametrize("name", ["dashboard:note_ver", "dashboard:note_str:0", "dashboard:note_str:7"])
def test_a_note_in_another_form_is_left(study: optuna.Study, tmp_path: Path, name: str) -> None:
    """What another program keeps under these names stays, and a search ends as it would without it."""
    study.tell(study.ask(), 1.0)
    study._storage.set_study_system_attr(study._study_id, name, ["another"])
    before = study._storage.get_study_system_attrs(study._study_id)
    write_note(study, StudyFiles(tmp_path))
    assert study._storage.get_study_system_attrs(study._study_id) == before


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
        assert get_note(again) == get_note(study)


def test_it_says_how_sure_the_best_trial_is(study: optuna.Study, tmp_path: Path) -> None:
    """As the end of the search has found it; of another trial, or damaged, it says nothing."""
    files = StudyFiles(tmp_path)
    study.tell(study.ask(), 0.5)
    found = Belief(
        best=(Estimate("value", 0, 0.5, 0.4, 0.6),),
        n_pictures=100,
        tied=(),
        tie_broken_by=None,
        not_worse=(),
        differences=(),
        n_compared=0,
        n_others=0,
        cheapest=None,
        cheapest_cost=None,
        luck=0.01,
    )
    files.write_belief(0, found.to_json())
    write_note(study, files)
    assert "## How sure is it?\n\nvalue 0.500 ± 0.100 \\(100 pictures" in get_note(study)
    study.tell(study.ask(), 0.6)
    write_note(study, files)
    assert "How sure" not in get_note(study)
    files.write_belief(1, {"not": "ours"})
    write_note(study, files)
    assert get_note(study).startswith("# Best trial: number 1")


def test_a_certificates_note_has_its_words_and_its_table(tmp_path: Path) -> None:
    """In Markdown, for the certificate's own study; the note on the search has the words."""
    files = certificate_of(tmp_path, {"trial 0": [0.9, 0.91, 0.92], "defaults": [0.1, 0.11]})
    storage = open_storage(str(tmp_path / "outputs" / "studies.journal"))
    study = optuna.load_study(study_name="s-certificate", storage=storage)
    write_note(study, files)
    note = get_note(study)
    assert note.startswith("# Certificate of `s`\n\n")
    assert "Trial 0 is expected to reach score 0.91" in note
    assert "| candidate | expected | in the search | trainings | seconds | verdict |\n" in note
    assert re.search(r"^\| defaults \| 0\.10\d* ± ", note, re.MULTILINE), note
    search = on_disk(tmp_path, trial(0.95))
    study = optuna.load_study(study_name="s", storage=storage)
    write_note(study, search)
    assert "## Certificate\n\n" in get_note(study)
    assert "Trial 0 is expected to reach score 0.91" in get_note(study)
