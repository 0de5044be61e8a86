"""What weights have seen before: remembered beside them, and told where it is now held out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeper import provenance, saved
from sweeper.fault import Fault
from sweeper.provenance import remark_changed
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.schema import Dataset, Freezing, Model, Run
from sweeper.training import images
from tests.pictures import write_classes, write_picture
from tests.program import IN_PROCESS, sweeper


def left_by_a_run(folder: Path, *digests: int) -> RunFiles:
    files = RunFiles(folder)
    files.mark()
    files.write_trained_on(np.array(digests, dtype=np.uint64))
    torch.save({}, files.weights)
    return files


def begun_with(weights: Path | str | None, freezing: str = "full") -> Run:
    return Run(model=Model(weights=None if weights is None else str(weights)), freezing=Freezing(freezing))


def test_what_weights_have_seen_is_read_beside_them(tmp_path: Path) -> None:
    """The number of held-out pictures among those that an earlier run of ours was trained on."""
    weights = left_by_a_run(tmp_path / "a", 1, 2, 3).weights
    held_out = np.array([2, 3, 4, 5], dtype=np.uint64)
    said = provenance.remark(begun_with(weights), held_out)
    assert said == (
        f"model.weights={weights} was trained on 2 pictures of 4 in val and test: scores there are too good"
    )
    assert provenance.remark(begun_with(weights), held_out[2:]) is None


def test_a_link_leads_to_the_record(tmp_path: Path) -> None:
    """Weights that are linked to are those of the run that left them."""
    (tmp_path / "mine.pt").symlink_to(left_by_a_run(tmp_path / "a", 1).weights)
    assert provenance.seen(begun_with(tmp_path / "mine.pt")) == [1]


@pytest.mark.parametrize("freezing", ["full", "none"])
def test_what_was_seen_is_handed_on(tmp_path: Path, freezing: str) -> None:
    """Weights trained from weights have seen what both runs trained on; not so where training is anew."""
    run = begun_with(left_by_a_run(tmp_path / "a", 1, 2).weights, freezing)
    wanted = [1, 2, 3] if freezing == "full" else [2, 3]
    assert provenance.trained_on(run, np.array([3, 2], dtype=np.uint64)).tolist() in (wanted, wanted[::-1])


def test_weights_of_others_have_no_record(tmp_path: Path) -> None:
    """Names, other files in a run's folder, and folders that are not ours tell nothing."""
    files = left_by_a_run(tmp_path / "a", 1)
    (tmp_path / "a" / "other.pt").write_bytes(b"")
    unmarked = tmp_path / "b" / "weights.safetensors"
    unmarked.parent.mkdir()
    for weights in (
        None,
        "DEFAULT",
        files.folder / "other.pt",
        unmarked,
        tmp_path / "no" / "weights.safetensors",
    ):
        assert provenance.seen(begun_with(weights)) is None


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """A record that is no array is one line with its path, whatever it holds."""
    files = left_by_a_run(tmp_path / "a", 1)
    for content in (b"", b"not an array", files.trained_on.read_bytes()[:40]):
        files.trained_on.write_bytes(content)
        with pytest.raises(Fault, match=r"trained_on\.npy: is no array: the file is damaged"):
            provenance.seen(begun_with(files.weights))


def test_the_record_goes_with_the_weights(tmp_path: Path) -> None:
    """It is removed with them, and with the run."""
    files = left_by_a_run(tmp_path / "a", 1)
    assert set(files.room()) == {files.weights, files.trained_on}
    files.remove_weights()
    assert files.room() == []
    files = left_by_a_run(tmp_path / "a", 1)
    files.remove()
    assert not list((tmp_path / "a").rglob("*"))


@pytest.mark.slow
def test_it_is_told_by_a_run_a_search_and_describe(tmp_path: Path) -> None:
    """Weights of an earlier run, on another split: told once each, and not by each trial."""
    cheap = ("device=cpu", "training.epochs=1", "dataset.image_size=8")
    sweeper(tmp_path, "study=first", *cheap)
    weights = RunFiles(tmp_path / "outputs" / "first").weights
    again = (f"model.weights={weights}", "freezing=full", "dataset.split_seed=1", *cheap)

    single = sweeper(tmp_path, "study=single", *again)
    search = sweeper(tmp_path, "-m", "study=search", "hydra.sweeper.n_trials=3", *IN_PROCESS, *again)
    described = sweeper(tmp_path, "describe", *again)

    for said in (single, search, described):
        assert said.count("was trained on") == 1, said
    handed_on = RunFiles(tmp_path / "outputs" / "search" / "best").read_trained_on()
    assert handed_on is not None
    assert len(handed_on) > 1300  # of both splits, each of which trains on 1,078


def test_a_resumed_search_tells_of_other_data(tmp_path: Path) -> None:
    """One pixel of one file was changed since the trials; with the same files, or none, nothing is said."""
    root = write_classes(tmp_path / "pets", {"cat": 5, "dog": 5})
    dataset, study = Dataset(name="image_folder", path=str(root)), tmp_path / "mine"
    assert remark_changed(dataset, study) is None
    StudyFiles(study).mark("mine", "memory")
    run = StudyFiles(study).run(3)
    run.mark()
    run.config.write_text(saved.to_yaml(Run(dataset=dataset)))
    run.history.write_text("epoch\n1\n")
    run.environment.write_text(json.dumps({"data": images.fingerprint(images.read(dataset))}))
    assert remark_changed(dataset, study) is None
    write_picture(root / "cat" / "0.png", size=(12, 12))
    assert "the data have changed since trial 3 of mine" in str(remark_changed(dataset, study))
    assert remark_changed(replace(dataset, image_size=16), study) is None
