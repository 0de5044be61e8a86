"""Reproduction: the saved config of a trial gives the same history, or the tool says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.pictures import write_classes
from tests.program import sweeper


@pytest.fixture
def copy(searched: Path, tmp_path: Path) -> Path:
    """The searched outputs, to be tampered with."""
    shutil.copytree(searched / "outputs", tmp_path / "outputs")
    return tmp_path


def test_the_best_trial_is_reproduced_to_the_last_bit(searched: Path) -> None:
    """A trial that one of two workers ran after many others is the same, run alone."""
    assert "identical: " in sweeper(searched, "reproduce", "digits")


@pytest.mark.slow
def test_a_pruned_trial_is_reproduced_as_far_as_it_went(searched: Path) -> None:
    """Any trial can be named, and is compared over the epochs that it has."""
    result = json.loads((searched / "outputs" / "digits" / "5" / "result.json").read_text())
    printed = sweeper(searched, "reproduce", "digits", "--trial", "5")
    assert printed.count(": same\n") == result["epochs"]
    assert f"identical: {result['epochs']} epoch" in printed


@pytest.mark.slow
def test_another_history_is_told_with_the_epoch_where_it_parts(copy: Path) -> None:
    """One changed digit: exit code 3; epoch, column and what differs in the environment are named."""
    folder = copy / "outputs" / "digits" / "best"
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"torch": "1.0"}))
    path = folder / "history.csv"
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[1] = repr(float(cells[1]) * (1 + 1e-15) + 1e-15)
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")

    shown = sweeper(copy, "reproduce", "digits", code=3)

    assert "different from epoch 2 on" in shown
    assert "train_loss" in shown
    assert "torch: then 1.0, now 2." in shown


@pytest.mark.slow
def test_changed_data_is_named_as_what_differs(tmp_path: Path) -> None:
    """Pictures changed since: exit code 3, and the data is what is said to differ."""
    write_classes(tmp_path / "pets", {"cat": 8, "dog": 8}, size=(16, 16))
    sweeper(
        *(tmp_path, "dataset=image_folder", "dataset.path=pets", "dataset.image_size=16", "study=once"),
        *("training.epochs=2", "optimizer=adam"),
    )
    assert "identical: 2 epochs" in sweeper(tmp_path, "reproduce", "outputs/once")
    write_classes(tmp_path / "pets", {"cat": 8}, size=(16, 16), seed=1)

    shown = sweeper(tmp_path, "reproduce", "outputs/once", code=3)

    assert "different from epoch 1 on" in shown
    assert "data: then " in shown
