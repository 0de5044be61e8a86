"""The files of a study: written whole, kept true, found again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
import pytest

from sweeper import record
from sweeper.errors import BadInput


def leave(folder: Path, number: int, accuracy: float) -> None:
    """What a trial leaves in its folder."""
    trial = folder / str(number)
    record.write_whole(trial / record.CONFIG, "study: s\n")
    record.write_history(trial, [{"epoch": 1, "val_accuracy": accuracy}])
    record.write_json(trial / record.RESULT, {"trial": number, "val_accuracy": accuracy})
    (trial / record.WEIGHTS).write_bytes(bytes([number]))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", study_name="s")


def end(study: optuna.Study, folder: Path, value: float | None) -> None:
    """One trial, from asking to its files."""
    trial = study.ask()
    if value is not None:
        leave(folder, trial.number, value)
    study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
    record.write_results(study, folder, ended=trial.number)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A writer that fails in the middle leaves the old content, and no temporary file."""
    path = tmp_path / "a.json"
    record.write_json(path, {"n": 1})

    def write_half() -> None:
        with record.whole(path) as temporary:
            temporary.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert record.read_json(path) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_floats_survive_the_history_to_the_last_bit(tmp_path: Path) -> None:
    """A history read again equals the one that was written."""
    row = {"epoch": 1, "val_loss": 0.1 + 0.2, "lr": 1e-300, "train_loss": float("inf")}
    record.write_history(tmp_path, [row])
    assert record.read_history(tmp_path) == [row]


def test_best_follows_the_best_trial(tmp_path: Path, study: optuna.Study) -> None:
    """``best/`` always holds the best trial's files, and only that trial keeps its weights."""
    for value, best in [(0.5, 0), (0.4, 0), (0.9, 2), (None, 2), (0.8, 2)]:
        end(study, tmp_path, value)
        assert record.read_json(tmp_path / "best" / "result.json")["trial"] == best
        assert (tmp_path / "best" / "weights.pt").read_bytes() == bytes([best])
        assert [path.parent.name for path in tmp_path.glob("[0-9]*/weights.pt")] == [str(best)]
    summary = record.read_yaml(tmp_path / "optimization_results.yaml")
    assert summary["best_trial"] == 2
    assert summary["trials"] == {"COMPLETE": 4, "FAIL": 1}


def test_best_is_renewed_when_its_number_was_given_again(tmp_path: Path, study: optuna.Study) -> None:
    """A journal that lost its end gives a number twice; ``best/`` then holds the known one."""
    end(study, tmp_path, 0.5)
    leave(tmp_path, 0, 0.75)
    record.write_results(study, tmp_path)
    assert record.read_json(tmp_path / "best" / "result.json")["val_accuracy"] == 0.75


def test_a_swap_that_was_killed_is_made_up_for(tmp_path: Path, study: optuna.Study) -> None:
    """Killed between the two renames, ``best/`` is missing, and comes back with the next trial."""
    end(study, tmp_path, 0.5)
    (tmp_path / "best").rename(tmp_path / ".sweeper" / "best-old")
    end(study, tmp_path, 0.4)
    assert record.read_json(tmp_path / "best" / "result.json")["trial"] == 0


def test_a_study_does_not_begin_in_anothers_folder(tmp_path: Path, study: optuna.Study) -> None:
    """A name that exists in another storage, or a renamed folder, is refused: nothing is mixed or lost."""
    end(study, tmp_path, 0.5)
    record.write_storage(tmp_path, "/a/studies.journal")
    record.refuse_foreign_folder(tmp_path, "s", "/a/studies.journal")
    with pytest.raises(BadInput, match=r"storage=sqlite:///x.db: the study s is in another storage"):
        record.refuse_foreign_folder(tmp_path, "s", "sqlite:///x.db")
    with pytest.raises(BadInput, match=r"study=other: .* is the folder of the study s"):
        record.refuse_foreign_folder(tmp_path, "other", "/a/studies.journal")


def test_a_lost_trials_folder_is_moved_but_nobody_elses(tmp_path: Path) -> None:
    """A folder that Hydra made for a job makes room for the next of that number, and is kept."""
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").write_text("mine")
    record.clear_trial(tmp_path, 0)
    record.clear_trial(tmp_path, 1)
    assert not (tmp_path / "0").exists()
    assert len(list((tmp_path / ".sweeper" / "lost").glob("0-*/.hydra"))) == 1
    assert (tmp_path / "1" / "mine.txt").exists()


def test_the_newest_study_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the one that changed last; with a name or folder, that one; else all are told."""
    monkeypatch.chdir(tmp_path)
    for age_s, name in [(50, "old"), (10, "new"), (30, "middle")]:
        record.write_whole(tmp_path / "outputs" / name / record.RESULTS, "study: x\n")
        moment = time.time() - age_s
        os.utime(tmp_path / "outputs" / name / record.RESULTS, (moment, moment))
    assert record.find_study(None).name == "new"
    assert record.find_study("old").name == "old"
    assert record.find_study(str(tmp_path / "outputs" / "middle")).name == "middle"
    with pytest.raises(BadInput, match=r"STUDY=other: .*write one of old, middle, new"):
        record.find_study("other")


def test_the_dashboard_finds_every_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default journal comes first, then what else the studies' folders name; gone files are left out."""
    monkeypatch.chdir(tmp_path)
    assert record.find_storages() == [None]
    for name, url in [("a", "sqlite:////x.db"), ("b", str(tmp_path / "gone")), ("c", "sqlite:////x.db")]:
        record.write_whole(tmp_path / "outputs" / name / record.RESULTS, "study: x\n")
        record.write_storage(tmp_path / "outputs" / name, url)
    assert record.find_storages() == ["sqlite:////x.db"]
    (tmp_path / "outputs" / "studies.journal").touch()
    assert record.find_storages() == [str(tmp_path / "outputs" / "studies.journal"), "sqlite:////x.db"]
