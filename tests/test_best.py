"""``best``: the best trial of a study, from its files."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import sweeper as sweeper_api
from sweeper import filesystem
from sweeper.record.best_files import Choice
from sweeper.record.study_files import StudyFiles
from sweeper.results.belief import from_json, lines
from sweeper.words import number
from tests.conftest import Said
from tests.foreign_app import App
from tests.journal import best_of, load_study
from tests.program import IN_PROCESS, sweeper
from tests.studied import certificate_of, on_disk, trial

QUICK = ("training.epochs=2", "training.n_threads=1", "device=cpu", *IN_PROCESS)
TWO = ("study=s", "hydra.sweeper.n_trials=2", *QUICK)
"""A short search of our own."""


def test_best_prints_the_best_trial(searched: Path) -> None:
    """``best`` without a name takes the newest study, and shows score, parameters and test accuracy."""
    study = load_study(searched, "digits")
    shown = sweeper(searched, "best")
    assert f"Best trial: number {best_of(study).number}, val_accuracy {number(study.best_value)}\n" in shown
    assert "optimizer.lr" in shown
    assert "test_accuracy" in shown
    assert shown == sweeper(searched, "best", "outputs/digits")


def test_best_leads_to_using_the_model(searched: Path, tmp_path: Path) -> None:
    """``best`` names the commands that predict and export; without weights it names neither."""
    shutil.copytree(searched / "outputs", tmp_path / "outputs")  # others read the study, too
    shown = sweeper(tmp_path, "best", "digits")
    assert re.search(r"^Use it: +.*sweeper predict digits picture\.jpg$", shown, re.MULTILINE), shown
    assert re.search(r"^Export it: .*sweeper export digits --format pt2$", shown, re.MULTILINE), shown
    (tmp_path / "outputs/digits/best/weights.safetensors").unlink()
    assert not re.search("predict|export", sweeper(tmp_path, "best", "digits"))


@pytest.mark.slow
def test_a_study_of_another_app_is_shown_too(tmp_path: Path) -> None:
    """By the folder where the app put it: counts, number, value and parameters."""
    app = App(tmp_path, "if number == 0:\n    raise optuna.TrialPruned\nreturn cfg.x")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=3").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    best = app.study().best_trial
    assert best.value is not None
    assert shown.startswith("Study s: ")
    assert "2 done, 1 pruned, 0 failed" in shown
    assert f"Best trial: number {best.number}, value {number(best.value)}" in shown
    assert f"{best.params['x']:.5g}" in shown
    assert "reproduce" not in shown  # it has no run of ours


@pytest.mark.slow
def test_several_objectives_show_the_front(tmp_path: Path) -> None:
    """One table for each solution that no other beats, with what the app calls its scores."""
    app = App(tmp_path, "return cfg.x, -cfg.x")
    two = ("hydra.sweeper.direction=[minimize,minimize]", "hydra.sweeper.metric_names=[loss,size]")
    assert app.run(*IN_PROCESS, *two, "hydra.sweeper.n_trials=3").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    for each in app.trials():
        first, second = map(number, each.values)
        assert f"Best trial: number {each.number}, loss {first}, size {second}" in shown


@pytest.mark.slow
def test_a_study_without_a_completed_trial_says_so(tmp_path: Path) -> None:
    """No table, no error."""
    app = App(tmp_path, "raise optuna.TrialPruned")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2").returncode == 0
    shown = sweeper(tmp_path, "best", "out")
    assert "Study s: 0 done, 2 pruned, 0 failed" in shown
    assert "No trial is done yet." in shown


@pytest.mark.slow
def test_the_dashboard_of_a_study_is_told_by_its_name(tmp_path: Path) -> None:
    """Its folder remembers the storage, whose URL may hold a password."""
    app = App(tmp_path, "return cfg.x")
    assert app.run(*IN_PROCESS, "hydra.sweeper.storage=sqlite:///s.db").returncode == 0
    assert sweeper(tmp_path, "best", "out").endswith(" dashboard out\n")


def test_a_certificate_is_shown_as_one(said: Said, tmp_path: Path) -> None:
    """Its words, a row for each candidate, and no best value; the search shows its words, too."""
    on_disk(tmp_path, trial(0.98), trial(0.97))
    certificate_of(tmp_path, {"trial 0": [0.9, 0.91, 0.92], "trial 1": [0.89, 0.91, 0.93]}, {"trial 0": 0.98})
    code, shown = said("best", "s-certificate")
    assert code == 0
    assert shown.startswith("Study s-certificate, certificate of s: 6 done")
    assert re.search(r"^Trial \d is expected to reach score 0\.91\d? ± 0\.\d+", shown, re.MULTILINE), shown
    assert re.search(r"^trial 0 +0\.91\d? ± 0\.\d+ +0\.98\d* +3 ", shown, re.MULTILINE), shown
    assert "Best trial" not in shown
    code, of_search = said("best", "s")
    assert code == 0
    assert re.search(r"^Certified: .*is expected to reach", of_search, re.MULTILINE), of_search
    assert "certify" not in of_search


def test_a_chosen_run_is_not_taken_for_the_best_trial(said: Said, tmp_path: Path) -> None:
    """Its scores are told as its own, also where its number is that of the best trial."""
    search = on_disk(tmp_path, trial(0.98), trial(0.97))
    certificate_of(tmp_path, {"trial 0": [0.9, 0.91], "trial 1": [0.89, 0.91]})
    search.best.mark()
    filesystem.write_json(search.best.result, {"study": "s-certificate", "trial": 0, "test_accuracy": 0.75})
    filesystem.write_json(
        search.best.choice, asdict(Choice("s-certificate", "trial 1", trial=0, of_search=1))
    )
    search.write_belief(0, {"value": 0.98})
    assert "belief" not in search.best.read_result()
    code, shown = said("best", "s")
    assert code == 0
    assert shown.count("0.75") == 1
    told = re.search(r"^Chosen: +(.*)$", shown, re.MULTILINE)
    assert told is not None
    assert told[1] == "trial 1, trained again: test_accuracy 0.75000  (outputs/s/best)"
    assert "What follows is of it" in shown[told.end() :]
    search.certified_by.certificate.unlink()
    assert "Chosen: " in said("best", "s")[1]


def test_a_search_says_how_sure_its_best_trial_is(searched: Path) -> None:
    """Its end prints it below the best trial, and keeps it beside the result; ``best`` says it again."""
    printed = (searched / "stdout.txt").read_text()
    files = StudyFiles(searched / "outputs" / "digits")
    found = from_json(files.read_belief())
    assert found is not None
    assert from_json(files.best.read_result()["belief"]) == found
    assert found.trial == files.best.read_result()["trial"]
    assert found.value == load_study(searched, "digits").best_value
    first, second = lines(found)
    assert re.search(r"^  folder: .*\nHow sure:  val_accuracy ", printed, re.MULTILINE)
    assert f"How sure:  {first}\n           {second}\n" in printed
    assert first.startswith("val_accuracy 0.")
    shown = sweeper(searched, "best", "digits")
    assert f"How sure:  {first}\n" in shown
    if found.not_worse:
        assert f"Not worse: trial{'s' * (len(found.not_worse) > 1)} {found.not_worse[0]}" in shown


@pytest.mark.slow
def test_without_logits_what_is_known_is_said(tmp_path: Path) -> None:
    """``training.keep_logits=false``: the value without an interval, ties, and no word on luck."""
    sweeper(tmp_path, "-m", *TWO, "training.keep_logits=false")
    shown = sweeper(tmp_path, "best", "s")
    told = re.search(r"^How sure:  (.*)$", shown, re.MULTILINE)
    assert told is not None
    assert "±" not in told[1]
    assert "of it is luck" not in shown
    assert "not worse" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it", None])
def test_damaged_logits_cost_the_comparison_alone(tmp_path: Path, content: bytes | None) -> None:
    """Also where they are gone: what was said of the same trials before still is, and so is the report."""
    first = sweeper(tmp_path, "-m", *TWO)
    files = StudyFiles(tmp_path / "outputs" / "s")
    for path in files.folder.glob("*/val_logits.npz"):
        path.unlink() if content is None else path.write_bytes(content)
    again = sweeper(tmp_path, "-m", *TWO)
    told = re.search(r"^How sure:  val_accuracy 0\.\d+ ± .*$", first, re.MULTILINE)
    assert told is not None, first
    assert told[0] in again.splitlines()
    assert "How sure:  val_accuracy" in sweeper(tmp_path, "best", "s")
    assert "Left out" not in files.report.read_text()


@pytest.mark.slow
def test_of_another_app_what_is_known_is_kept_in_its_mark(tmp_path: Path) -> None:
    """Its trials have values and no logits; its folder is its own."""
    app = App(tmp_path, "return 1.0")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    assert "How sure:  value 1.000; measured once: nothing says how much it varies\n" in done.stdout
    assert "3 trials reached it" in done.stdout
    assert "Make sure: sweeper certify out" in done.stdout
    files = StudyFiles(tmp_path / "out")
    assert files.read_belief() == filesystem.read_json(files.folder / ".sweeper" / "belief.json")
    assert "3 trials reached it" in sweeper(tmp_path, "best", "out")
    sweeper(tmp_path, "report", "out")
    assert "3 trials reached it" in files.report.read_text()


@pytest.mark.slow
def test_of_several_objectives_the_best_of_each_is_told(tmp_path: Path) -> None:
    """There is no winner, and no luck of one."""
    asked = ("objective=[val_accuracy,seconds]", "hydra/sweeper/pruner=none", "study=front")
    printed = sweeper(tmp_path, "-m", *asked, "hydra.sweeper.n_trials=3", *QUICK)
    told = re.search(r"^How sure:  best of each: val_accuracy .*; seconds .*$", printed, re.MULTILINE)
    assert told is not None, printed
    assert told[0] in sweeper(tmp_path, "best", "front")
    assert "Left out" not in (tmp_path / "outputs/front/report.html").read_text()


def test_python_has_it_with_its_types(said: Said, tmp_path: Path) -> None:
    """``study.belief``; None of a certificate, and while no trial is done; the study is shown as before."""
    on_disk(tmp_path, trial(0.98), trial(0.98))
    on_disk(tmp_path, name="empty")
    certificate_of(tmp_path, {"trial 0": [0.9, 0.91], "trial 1": [0.89, 0.91]})
    study = sweeper_api.open_study(tmp_path / "outputs" / "s")
    found = study.belief
    assert found is not None
    assert (found.trial, found.value, found.tied, found.low) == (0, 0.98, (1,), None)
    assert repr(study) == "<Study s: 2 done, 0 pruned, 0 failed, best 0.98000>"
    assert sweeper_api.open_study(tmp_path / "outputs" / "s-certificate").belief is None
    assert sweeper_api.open_study(tmp_path / "outputs" / "empty").belief is None
