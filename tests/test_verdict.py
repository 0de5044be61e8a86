"""A certificate in rows and in a few words."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import nan
from pathlib import Path

import pytest

from sweeper.commands.best import tell_certificate
from sweeper.filesystem import write_json
from sweeper.record.best_files import Choice
from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.results import verdict
from sweeper.results.certificate import Certificate, Compared, lines
from tests.studied import certificate_of

CLEAR = {"trial 3": [0.9, 0.91, 0.9, 0.905], "defaults": [0.5, 0.51, 0.5], "trial 7": [0.8, nan]}


@pytest.fixture
def found(tmp_path: Path) -> Certificate:
    """Of two trials and the defaults; one trial is clearly the best, and the other diverged once."""
    certificate = Certificate.read(certificate_of(tmp_path, CLEAR, {"trial 3": 0.95, "trial 7": 0.96}))
    assert certificate is not None
    return certificate


def test_each_candidate_is_a_row_the_best_first(found: Certificate) -> None:
    """It has the mean with its interval, the search's score, how often it was trained, and its verdict."""
    table = verdict.table(found)
    assert table.head == ["candidate", "expected", "in the search", "trainings", "seconds", "verdict"]
    best, *others = table.rows
    assert best[0] == "trial 3"
    assert str(best[1]).startswith("0.904 ± 0.")
    assert best[2:4] == ["0.950", "4"]
    assert best[5] == "best"
    verdicts = {str(row[0]): str(row[-1]) for row in others}
    assert verdicts["defaults"].startswith("worse than trial 3 by 0.40")
    assert "; out at training " in verdicts["defaults"]
    assert verdicts["trial 7"].startswith("diverged; out at training ")


def test_a_line_says_state_and_verdict(found: Certificate) -> None:
    """Of whom, the best with what it is expected to reach, and whether trainings are missing."""
    assert verdict.whose(found) == "certificate of s"
    told = found["trial 3"].expected[0].told()
    assert verdict.short(replace(found, finished=True)) == f"trial 3, {told}"
    assert verdict.short(replace(found, finished=False, best=None)) == "unfinished"


def test_the_headline_counts_candidates_and_trainings(found: Certificate) -> None:
    """The number that matters is what the best is expected to reach."""
    (name, value, remark), (_, n, out), (_, done, _) = verdict.headline(found)
    assert (name, remark) == ("score expected", "of trial 3, the best")
    assert value == found["trial 3"].expected[0].told()
    assert (n, out, done) == ("3", "2 out", "9")
    (_, _, remark) = verdict.headline(replace(found, n_planned=6))[2]
    assert remark == "all that were planned"


def test_two_objectives_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 80 columns no word and no value with its ± is broken."""
    two = ["val_accuracy", "seconds"]
    scores = {"trial 0": [0.9, 0.91, 0.92], "trial 1": [0.8, 0.79, 0.81], "defaults": [0.2, 0.1, 0.6]}
    searched = {"trial 0": 0.98, "trial 1": 0.97}
    files = certificate_of(tmp_path, scores, searched, directions=["maximize", "minimize"], metrics=two)
    certificate = verdict.of_folder(files)
    assert certificate is not None
    tell_certificate(certificate)
    told = capsys.readouterr().out
    table = told[told.index("val_accuracy   in the") :]
    assert max(map(len, table.splitlines())) <= 80
    assert table.count(" ± ") >= 2 * len(scores)
    assert {"candidate", "val_accuracy", "seconds", "verdict"} <= set(table.split())


def test_a_certificate_is_shown_in_a_line_and_printed_in_words(found: Certificate) -> None:
    """What a notebook shows of it is short."""
    assert len(repr(found)) < 120
    assert str(found).splitlines()[0] == lines(found)[0]


def test_a_damaged_certificate_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It costs nothing else that is shown; the log names it."""
    files = certificate_of(tmp_path, CLEAR)
    for content in ("[", "{}", '{"format": 1}'):
        caplog.clear()
        files.certificate.write_text(content)
        assert verdict.of_folder(files) is None
        assert "s-certificate" in caplog.text
    caplog.clear()
    files.certificate.unlink()
    assert verdict.of_folder(files) is None
    assert caplog.text == ""


@pytest.mark.parametrize("score", [None, "high", [0.5], 10**400, nan])
def test_a_damaged_score_costs_no_more_than_itself(tmp_path: Path, score: object) -> None:
    """Whose run was chosen is told all the same, with the scores that are numbers."""
    files = StudyFiles(tmp_path)
    files.best.folder.mkdir()
    files.best.mark()
    write_json(files.best.choice, asdict(Choice("s-certificate", "trial 3", 0, 3)) | {"format": FORMAT})
    write_json(files.best.result, {"test_loss": score, "test_accuracy": 0.5})
    assert verdict.chosen(files) == "trial 3, trained again: test_accuracy 0.50000"


def test_who_was_told_apart_is_told_without_an_interval_that_denies_it() -> None:
    """An earlier look may have told two apart, and this one alone would not."""
    clear = Compared("score", "trial 1", "defaults", 0.662, 0.5, 0.824, True, 0)
    assert clear.told() == "0.662 ± 0.162"
    assert replace(clear, low=-25.0, high=26.3).told() == "0.662"
    assert replace(clear, low=-25.0, high=26.3, told_apart=False).told() == "0.662 ± 25.650"
