"""The report's words and tables."""

from __future__ import annotations

import re
from pathlib import Path

from optuna.trial import TrialState

from sweeper import filesystem, words
from sweeper.record.run_files import RunFiles
from sweeper.results import overview, sign
from sweeper.results.panel import Panel
from sweeper.results.sign import Sign
from tests.studied import many, record_of, trial

FAIL = TrialState.FAIL


def text(panel: Panel | None) -> str:
    """What one reads of it."""
    assert panel is not None
    return " ".join(re.sub(r"<[^>]+>", " ", panel.html.replace("<wbr>", "")).split())


def best_run(folder: Path) -> RunFiles:
    run = RunFiles(folder / "best")
    run.mark()
    measured = {"val_loss": 0.25, "val_accuracy": 0.9, "test_accuracy": 0.875, "best_epoch": 3, "epochs": 5}
    filesystem.write_json(
        run.result, {"trial": 0, "ending": "all epochs", "seconds": 93.0, "n_parameters": 22602, **measured}
    )
    filesystem.write_json(run.environment, {"torch": "2.11", "device": "a GPU"})
    return run


def test_the_result_is_a_few_numbers(tmp_path: Path) -> None:
    """The score, what it is on the test images, how many trials, and how long they took."""
    best_run(tmp_path)
    seen = record_of(tmp_path, trial(0.9, seconds=90, epochs=5), trial(state=FAIL), metrics=["val_accuracy"])
    assert overview.headline(seen) == [
        ("val_accuracy", "0.9", "trial 0, the highest of 1 done"),
        ("test accuracy", "0.875", "of the best trial"),
        ("trials", "2", "1 done, 0 pruned, 1 failed"),
        ("time", "1 min 30 s", "1 min 31 s of work, 5 epochs"),
    ]


def test_the_best_trial_is_told_with_its_scores_and_its_cost(tmp_path: Path) -> None:
    """Validation beside test; epochs, time and size below."""
    best_run(tmp_path)
    told = text(overview.found(record_of(tmp_path, trial(0.9), metrics=["val_accuracy"])))
    assert told.startswith("score validation test accuracy 0.9 0.875 loss 0.25 –")
    assert "best epoch 3 of 5 (all epochs) time 1 min 33 s parameters 22,602" in told


def test_what_was_searched_has_ranges_and_fixed_values(tmp_path: Path) -> None:
    """Also what the best trial has of each."""
    attributes = {"fixed": ["training.epochs=5"]}
    seen = record_of(tmp_path, trial(0.9, params={"optimizer.lr": 0.001}), attributes=attributes)
    told = text(overview.searched(seen))
    assert "optimizer.lr 1e-5 … 0.1 (log) 0.001" in told
    assert "training.epochs=5" in told


def test_a_study_without_trials_says_so(tmp_path: Path) -> None:
    """An empty study is no error."""
    seen = record_of(tmp_path)
    assert overview.headline(seen) == []
    assert text(overview.found(seen)) == "The study has no trials yet."
    assert overview.failures(seen) is overview.trials(seen) is overview.environment(seen) is None


def test_signs_have_their_commands(tmp_path: Path) -> None:
    """Evidence, advice, and a command that can be copied."""
    run = best_run(tmp_path)
    sign.write(
        run.signs, [Sign("still_improving", "It still fell.", "train longer", "sweeper training.epochs=20")]
    )
    told = text(overview.signs(record_of(tmp_path, trial(0.9))))
    assert "still_improving (best trial): It still fell. Train longer. sweeper training.epochs=20" in told


def test_failures_are_counted_by_their_reason(tmp_path: Path) -> None:
    """The most common first; of a traceback, its last line."""
    traceback = "Traceback (most recent call last):\n  …\nValueError: no such file\n"
    failed = [trial(state=FAIL, reason="killed"), *many(2, lambda i: trial(state=FAIL, traceback=traceback))]
    assert text(overview.failures(record_of(tmp_path, *failed))).endswith(
        "ValueError: no such file 2 killed 1"
    )


def test_trials_stand_in_a_table_the_best_first(tmp_path: Path) -> None:
    """At most so many that the page stays small."""
    seen = record_of(tmp_path, *many(300, lambda i: trial(i / 1000, params={"optimizer.lr": 0.001})))
    told = text(overview.trials(seen))
    assert told.startswith(
        "The best 200 of 300 trials, the best first trial state score optimizer.lr seconds 299 done"
    )


def test_studies_differ_in_overrides_and_scores(tmp_path: Path) -> None:
    """Only what differs is told, and by how much the scores do."""
    first = record_of(
        tmp_path, trial(0.5, params={"optimizer.lr": 0.1}), attributes={"fixed": ["a=1", "b=2"]}
    )
    second = record_of(tmp_path, trial(0.75), name="t", attributes={"fixed": ["a=1", "b=3"]})
    assert text(overview.differences([first, second])) == "override s t b 2 3 optimizer.lr 1e-5 … 0.1 (log) –"
    told = text(overview.scores([first, second]))
    assert "s 0.5 0 1 done" in told
    assert "t 0.75 0.25 1 done" in told
    assert "not comparable" in text(
        overview.scores([first, record_of(tmp_path, trial(0.1), metrics=["loss"])])
    )


def test_objectives_without_names_are_told_apart(tmp_path: Path) -> None:
    """Several are counted; one is the value."""
    assert words.objectives(None, 1) == ("value",)
    assert words.objectives((), 2) == ("value_0", "value_1")
    assert words.objectives(("a", "b"), 1) == ("value",)  # somebody else's study has got our attributes
    assert words.objectives(["recall"], 1) == ("recall",)


def test_the_reason_that_a_sign_gives_is_not_given_again(tmp_path: Path) -> None:
    """A table of reasons stands there where there are several."""
    one = many(6, lambda i: trial(state=TrialState.FAIL, reason="no memory"))
    assert overview.failures(record_of(tmp_path, *one)) is None
    assert overview.failures(record_of(tmp_path, *one, trial(state=TrialState.FAIL, reason="no disk")))
    assert "No trial is done.<" in overview.found(record_of(tmp_path, *one)).html
