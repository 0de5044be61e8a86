"""What is said of a winner, read from studies on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from sweeper.record.run_files import RunFiles
from sweeper.results import belief, score
from sweeper.results.belief import Belief, Difference, Estimate
from sweeper.results.study_record import StudyRecord
from sweeper.results.val_logits import ValLogits
from tests.studied import record_of, trial

SAID = Belief(
    best=(Estimate("val_accuracy", 5, 0.983, 0.976, 0.99),),
    n_pictures=360,
    tied=(3, 9),
    tie_broken_by="val_loss",
    not_worse=(7, 3, 9),
    differences=(Difference(7, -0.01, -0.03, 0.01),),
    n_compared=39,
    n_others=39,
    cheapest=7,
    cheapest_cost=0.4,
    luck=0.006,
)


def keep(
    folder: Path, number: int, right: Sequence[bool] | np.ndarray, pictures: str = "a", sure: float = 3.0
) -> float:
    """Leave a trial that answers these pictures, of two classes, right or wrong; give its accuracy."""
    files = RunFiles(folder / str(number))
    files.folder.mkdir(parents=True)
    files.mark()
    labels = np.arange(len(right), dtype=np.int64) % 2
    says = np.where(right, labels, 1 - labels)
    logits = np.where(says[:, None] == np.arange(2), 0, -sure).astype(np.float16)
    ValLogits(logits, labels, pictures).write(files)
    return float(np.mean(right))


def searched(
    folder: Path, answers: Sequence[np.ndarray], *others: FrozenTrial, seconds: Sequence[float] = ()
) -> StudyRecord:
    """A study whose trials answer so."""
    values = [keep(folder, i, right) for i, right in enumerate(answers)]
    took = seconds or [1.0] * len(values)
    done = [
        trial(value, val_loss=1 - value, seconds=float(s), folder=str(folder / str(i)))
        for i, (value, s) in enumerate(zip(values, took, strict=True))
    ]
    return record_of(folder, *done, *others, metrics=["val_accuracy"])


def right_but(n: int, *wrong: int) -> np.ndarray:
    found = np.ones(n, dtype=bool)
    found[list(wrong)] = False
    return found


def told(record: StudyRecord) -> Belief:
    found = belief.of(record)
    assert found is not None
    return found


def test_what_was_said_stays_when_the_logits_are_gone(tmp_path: Path) -> None:
    """``sweeper clean`` costs no word of it; but of other trials, or of another value, it says nothing."""
    answers = [right_but(40, 1, 2), right_but(40, 3, 4, 5)]
    seen = searched(tmp_path, answers)
    said = told(seen)
    seen.files.write_belief(said.trial, said.to_json())
    for number in range(2):
        RunFiles(tmp_path / str(number)).val_logits.unlink()
        assert told(seen) == said
    more = record_of(tmp_path, *seen.trials, trial(0.5), metrics=["val_accuracy"])
    assert told(more).low is None
    seen.files.write_belief(said.trial, {**said.to_json(), "n_others": "x"})
    assert told(seen).low is None


def test_a_winner_has_its_interval_its_equals_and_its_luck(tmp_path: Path) -> None:
    """Value, Wilson's interval, who is not worse, the cheapest of them, and luck are those of the answers."""
    rng = np.random.default_rng(1)
    good = [rng.random(300) < 0.95 for _ in range(10)]
    bad = [rng.random(300) < 0.5 for _ in range(5)]
    found = told(searched(tmp_path, good + bad, seconds=[10, 8, 4, *[9] * 7, *[1] * 5]))
    accuracies = [right.mean() for right in good]
    best = int(np.argmax(accuracies))
    assert found.trial == best
    assert found.value == max(accuracies)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.95 * 0.05 / 300), rel=0.25)
    assert sorted(found.not_worse or ()) == [i for i in range(10) if i != best]
    assert (found.n_compared, found.n_others, found.n_pictures) == (14, 14, 300)
    assert found.cheapest == 2
    assert found.cheapest_cost == pytest.approx(4 / 9)
    assert found.luck == pytest.approx(max(accuracies) - np.mean(accuracies), abs=0.006)
    assert [one.trial for one in found.differences[:9]] == list(found.not_worse or ())
    assert all(one.high < 0 for one in found.differences[9:])


def test_a_tie_is_told_with_what_broke_it(tmp_path: Path) -> None:
    """Who reached the same value is named, and by what the best of them was chosen."""
    record = searched(tmp_path, [right_but(100, 1, 2), right_but(100, 3), right_but(100, 4)])
    record.trials[2].user_attrs["val_loss"] = 0.001
    found = told(record)
    assert (found.trial, found.tied, found.tie_broken_by) == (2, (1,), "val_loss")
    assert "2 trials reached it; trial 2 has the lowest validation loss" in belief.lines(found)[1]


def test_all_right_is_not_sure(tmp_path: Path) -> None:
    """Of 60 pictures, all right, the interval says that some would be wrong."""
    found = told(searched(tmp_path, [right_but(60), right_but(60, 1)]))
    assert found.high == 1
    assert found.low == pytest.approx(60 / (60 + 1.96**2), abs=1e-4)


def test_other_pictures_are_not_compared(tmp_path: Path) -> None:
    """Trials that were validated on other pictures, or whose answers are gone, are counted and left out."""
    record = searched(tmp_path, [right_but(100, 1), right_but(100, 1, 2), right_but(100, *range(9))])
    keep(tmp_path, 3, right_but(100, 1, 2, 3), pictures="b")
    gone = trial(0.97, folder=str(tmp_path / "4"))
    other = trial(0.96, folder=str(tmp_path / "3"))
    damaged = trial(0.95, folder=str(tmp_path / "5"))
    keep(tmp_path, 5, right_but(100))
    RunFiles(tmp_path / "5").val_logits.write_bytes(b"PK")
    stopped = trial(0.99, TrialState.PRUNED)
    found = told(record_of(tmp_path, *record.trials, other, gone, damaged, stopped, metrics=["val_accuracy"]))
    assert (found.n_compared, found.n_others) == (2, 5)
    assert "3 could not be compared" in belief.lines(found)[-1]


@pytest.mark.parametrize("metric", ["val_accuracy", "score"])
def test_a_search_without_answers_has_ties_alone(tmp_path: Path, metric: str) -> None:
    """Of another app's search, and of one that kept no logits, only the value and ties are told."""
    record = record_of(tmp_path, trial(0.9), trial(0.9, val_loss=0.1), metrics=[metric])
    found = told(record)
    assert (found.low, found.not_worse, found.luck, found.n_pictures) == (None, None, None, None)
    assert belief.lines(found) == [
        f"{metric} 0.900; measured once: nothing says how much it varies",
        "2 trials reached it; trial 1 has the lowest validation loss",
    ]


def test_nothing_is_said_of_nobody(tmp_path: Path) -> None:
    """While no trial has completed, there is no belief."""
    assert belief.of(record_of(tmp_path, trial(0.5, TrialState.PRUNED))) is None


def test_one_trial_has_an_interval_alone(tmp_path: Path) -> None:
    """A search of one trial chose nobody."""
    found = told(searched(tmp_path, [right_but(100, 1)]))
    assert found.low is not None
    assert (found.not_worse, found.luck, found.n_others) == (None, None, 0)
    assert len(belief.lines(found)) == 1


def test_several_objectives_have_intervals_and_no_winner(tmp_path: Path) -> None:
    """Of each objective the best value is told, with its interval where pictures say it."""
    values = [keep(tmp_path, 0, right_but(100, 1)), keep(tmp_path, 1, right_but(100, *range(20)))]
    trials = [
        trial([value, cost], folder=str(tmp_path / str(i)))
        for i, (value, cost) in enumerate(zip(values, [9.0, 3.0], strict=True))
    ]
    record = record_of(
        tmp_path, *trials, directions=["maximize", "minimize"], metrics=["val_accuracy", "seconds"]
    )
    found = told(record)
    assert not found.has_winner
    assert [(one.metric, one.trial) for one in found.best] == [("val_accuracy", 0), ("seconds", 1)]
    assert found.best[0].low is not None
    assert found.best[1].low is None
    assert found.luck is None
    assert belief.lines(found)[0].startswith("best of each: val_accuracy 0.990 ± 0.02")


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    """A trial whose logits are NaN has no loss that could be compared."""
    record = searched(tmp_path, [right_but(100, 1), right_but(100, 1, 2), right_but(100, 1, 2, 3)])
    files = RunFiles(tmp_path / "1")
    kept = ValLogits.read(files)
    assert kept is not None
    ValLogits(np.full_like(kept.logits, np.nan), kept.labels, kept.pictures).write(files)
    found = told(replace(record, metrics=("val_loss",), directions=("minimize",)))
    assert found.trial == 2
    found = told(replace(record, metrics=("val_macro_f1",)))
    assert found.n_compared <= 2


def test_lower_may_be_better(tmp_path: Path) -> None:
    """Of a loss, the lowest wins, luck is above 0, and who has a higher one is worse."""
    rng = np.random.default_rng(2)
    for i in range(12):
        keep(tmp_path, i, rng.random(300) < (0.9 if i < 8 else 0.4))
    values = []
    for i in range(12):
        kept = ValLogits.read(RunFiles(tmp_path / str(i)))
        assert kept is not None
        values.append(float(score.each("loss", kept.labels, kept.logits.astype(np.float32)).mean()))
    trials = [trial(value, folder=str(tmp_path / str(i))) for i, value in enumerate(values)]
    found = told(record_of(tmp_path, *trials, directions=["minimize"], metrics=["val_loss"]))
    assert found.trial == int(np.argmin(values))
    assert sorted(found.not_worse or ()) == [i for i in range(8) if i != found.trial]
    assert found.luck == pytest.approx(np.mean(values[:8]) - min(values), rel=0.4)
    assert all(one.low > 0 for one in found.differences[7:])


def test_it_is_told_in_two_lines() -> None:
    """The words say value, pictures, luck, ties, equals and cost; ± is explained."""
    assert belief.lines(SAID) == [
        "val_accuracy 0.983 ± 0.007 (360 pictures; ± is half of a 95 % interval); about 0.006 of it is luck",
        "3 trials reached it; trial 5 has the lowest validation loss; 3 other trials are not worse (paired "
        "over the pictures, 95 %, corrected for looking at all of them); the cheapest of them is trial 7, at "
        "40 % of the time",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"not_worse": (7,)}, "1 other trial, 7, is not worse (.*); it takes 40 % of the time"),
        ({"not_worse": (), "cheapest": None}, "all 39 other trials are worse"),
        ({"not_worse": (), "n_compared": 1, "n_others": 1}, "the other trial is worse"),
        ({"luck": 0.0001}, "less than 0.001 of it is luck"),
        ({"cheapest": None, "cheapest_cost": None}, "for looking at all of them\\)$"),
    ],
)
def test_words_fit_the_numbers(changes: dict[str, object], expected: str) -> None:
    """One, none and all have sentences of their own."""
    assert re.search(expected, "\n".join(belief.lines(replace(SAID, **changes))))  # type: ignore[arg-type]


def test_what_is_written_is_read() -> None:
    """A belief comes back from JSON, and anything else is none."""
    written = json.loads(json.dumps(SAID.to_json()))
    assert written == SAID.to_json()
    assert belief.from_json(written) == SAID
    others: list[object] = [None, 3, {}, {"best": []}, {**SAID.to_json(), "best": [{"metric": 1}]}]
    for other in others:
        assert belief.from_json(other) is None


@pytest.mark.slow
def test_it_takes_no_time(tmp_path: Path) -> None:
    """40 trials on the digits are compared in 2 % of their time, and 300 on 10,000 pictures in seconds."""
    rng = np.random.default_rng(3)
    record = searched(tmp_path / "few", [rng.random(360) < 0.97 for _ in range(40)])
    told(record)
    started = perf_counter()
    told(record)
    assert perf_counter() - started < 0.4
    record = searched(tmp_path / "many", [rng.random(10_000) < 0.97 for _ in range(300)])
    started = perf_counter()
    told(record)
    assert perf_counter() - started < 10
