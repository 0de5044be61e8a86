"""``python -m sweeper [-m] …``: how a run or a search ends, and what is refused before it begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.journal import best_of, load_study

Cli = Callable[..., tuple[int, str]]


def test_a_folder_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path) -> None:
    """A file where outputs/ should be: one line, and the file is left alone."""
    (tmp_path / "outputs").write_text("mine")
    code, error = cli("optimizer=adam")
    assert code == 2
    assert "cannot be written" in error
    assert len(error.strip().splitlines()) == 1
    assert (tmp_path / "outputs").read_text() == "mine"


def test_a_refused_run_leaves_an_earlier_one_alone(cli: Cli, tmp_path: Path) -> None:
    """Bad input under the name of a run that is there takes nothing of it away."""
    earlier = tmp_path / "outputs" / "one"
    (earlier / ".hydra").mkdir(parents=True)
    (earlier / "trial.yaml").write_text("study: one\n")
    (earlier / "sweeper.log").write_text("it went well\n")
    code, _ = cli("study=one", "training.batch_size=0")
    assert code == 2
    assert (earlier / "trial.yaml").read_text() == "study: one\n"
    assert "it went well" in (earlier / "sweeper.log").read_text()


def test_the_search_ends_with_the_best_trial_and_the_next_commands(searched: Path) -> None:
    """What a person needs after a search stands at the end of its output."""
    study = load_study(searched, "digits")
    end = (searched / "stdout.txt").read_text().split("\nStudy digits: ")[-1]
    assert f"Best trial: number {best_of(study).number}, val_accuracy {study.best_value:.5g}" in end
    assert "optimizer.lr = " in end
    assert re.search(r"^Test accuracy of the best trial: (0\.9|1\.0)", end, re.M)
    assert " -m sweeper dashboard" in end
    assert " -m sweeper reproduce digits" in end
