"""The report's figures: what they draw, and what is said of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from sweeper.results import chart
from sweeper.results.panel import Panel
from sweeper.results.study_record import StudyRecord
from tests.studied import many, record_of, trial

PRUNED, FAIL = TrialState.PRUNED, TrialState.FAIL


@pytest.fixture
def seen(tmp_path: Path) -> StudyRecord:
    """Three done trials, a pruned one and a failed one, by two workers."""
    return record_of(
        tmp_path,
        trial(
            0.5,
            params={"optimizer": "sgd", "optimizer.lr": 1e-4},
            curve=[0.4, 0.5],
            worker="a-1-x",
            seconds=2,
        ),
        trial(0.9, params={"optimizer": "adam", "optimizer.lr": 1e-2}, curve=[0.8, 0.9], worker="a-2-y"),
        trial(
            0.7,
            params={"optimizer": "adam", "optimizer.lr": 1e-3},
            curve=[0.7, 0.7],
            worker="a-2-y",
            begin_s=1,
        ),
        trial(
            state=PRUNED,
            params={"optimizer": "sgd", "optimizer.lr": 1e-5},
            curve=[0.1],
            worker="a-1-x",
            begin_s=2,
        ),
        trial(state=FAIL, reason="out of memory", worker="a-1-x", begin_s=3),
    )


def traces(panel: Panel | None) -> dict[str, Any]:
    assert panel is not None
    assert panel.figure is not None
    return {trace.name: trace for trace in panel.figure.data}


def test_learning_curves_tell_done_pruned_and_best_apart(seen: StudyRecord) -> None:
    """Each trial is a line, with a gap behind it; the best stands out."""
    found = traces(panel := chart.learning_curves(seen))
    assert list(found) == ["done", "pruned", "best"]
    assert list(found["done"].x) == [1, 2, None, 1, 2, None]
    assert list(found["best"].y) == [0.8, 0.9, None]
    assert set(found["best"].customdata) == {1}
    assert panel is not None
    assert "4 trials, 1 of them pruned" in panel.says
    assert "1 trial left no values" in panel.html


def test_without_any_value_there_are_no_learning_curves(tmp_path: Path) -> None:
    """An app that reports nothing has none."""
    assert chart.learning_curves(record_of(tmp_path, trial(0.5))) is None


def test_training_stands_against_validation() -> None:
    """The loss, and each metric that both have, with the numbers and the best epoch."""
    rows = [
        {
            "epoch": 1,
            "train_loss": 2.0,
            "train_accuracy": 0.1,
            "val_loss": 1.5,
            "val_accuracy": 0.3,
            "val_auroc": 0.6,
        },
        {
            "epoch": 2,
            "train_loss": math.inf,
            "train_accuracy": 0.4,
            "val_loss": 1.0,
            "val_accuracy": 0.5,
            "val_auroc": 0.7,
        },
    ]
    loss, accuracy = chart.training_curves(rows, best_epoch=2)
    assert list(traces(loss)["training"].y) == [2.0, None]
    assert list(traces(accuracy)["validation"].y) == [0.3, 0.5]
    assert accuracy.table is not None
    assert list(accuracy.table.rows) == [[1, 0.1, 0.3], [2, 0.4, 0.5]]
    assert "The best epoch is 2" in loss.says
    assert chart.training_curves([], None) == []


def test_each_parameter_stands_within_its_range(seen: StudyRecord) -> None:
    """The axis is what was searched; options say how many trials they had, their best and their median."""
    optimizer, lr = sorted(chart.slices(seen), key=lambda panel: panel.title, reverse=True)
    assert (optimizer.title, lr.title) == ("optimizer", "lr")
    assert lr.figure is not None
    low, high = lr.figure.layout.xaxis.range
    assert low == pytest.approx(-5, abs=0.2)
    assert high == pytest.approx(-1, abs=0.2)
    assert sorted(traces(lr)) == ["best", "done", "pruned"]
    assert list(traces(lr)["best"].x) == [1e-2]
    assert optimizer.table is not None
    assert list(optimizer.table.rows) == [["adam", 2, 0.9, 0.8], ["sgd", 1, 0.5, 0.5]]


def test_options_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    """Each has its place and a name of its own, however little of it there is room for."""
    options = [f"/data/images/of/a/long/path/{which}" for which in ("raw", "augmented")]
    space: dict[str, BaseDistribution] = {"folder": CategoricalDistribution(options)}
    trials = [trial(0.1 * i, params={"folder": options[i % 2]}, space=space) for i in range(4)]
    (panel,) = chart.slices(record_of(tmp_path, *trials))
    assert panel.figure is not None
    assert len(set(panel.figure.layout.xaxis.ticktext)) == 2
    assert {x for trace in panel.figure.data for x in trace.x} == {0, 1}


def test_what_looks_alike_without_red_and_green_differs_otherwise() -> None:
    """Of each two states whose colours a person may confuse, one has a pattern and dashes."""
    assert set(chart.PATTERNS) == set(chart.DASHES) == set(chart.COLOURS) - {"done", "pruned"}


def test_a_parameter_of_bad_trials_alone_has_a_scale_of_its_own(tmp_path: Path) -> None:
    """Where the common scale would show none of its trials, they are shown all the same."""
    good = many(20, lambda i: trial(0.9 + i / 1000, params={"optimizer.lr": 1e-3}))
    bad = many(3, lambda i: trial(0.1, params={"optimizer": "sgd"}))
    panel = {p.title: p for p in chart.slices(record_of(tmp_path, *good, *bad))}["optimizer"]
    assert panel.figure is not None
    low, high = panel.figure.layout.yaxis.range
    assert low < 0.1 < high < 0.5


def test_all_parameters_are_lines_from_axis_to_axis(seen: StudyRecord) -> None:
    """A trial's line passes its parameters in their ranges, and ends at its score."""
    best = traces(panel := chart.parallel(seen))["the best"]
    assert panel is not None
    assert panel.figure is not None
    axes = list(panel.figure.layout.xaxis.ticktext)
    heights = dict(zip(axes, best.y, strict=False))
    assert heights == pytest.approx({"optimizer": 0.25, "lr": 0.75, "score": heights["score"]})
    assert heights["score"] > 0.8


def test_a_parameter_that_only_some_have_stands_behind_the_score(tmp_path: Path) -> None:
    """The lines of the others end at the score."""
    space: dict[str, BaseDistribution] = {
        "a": FloatDistribution(0, 1),
        "b": FloatDistribution(0, 1),
        "c": CategoricalDistribution([None, True]),
    }
    drawn: list[dict[str, Any]] = [{"c": None, "a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4}]
    seen = record_of(tmp_path, *(trial(0.1 + i, params=p, space=space) for i, p in enumerate(drawn)))
    panel = chart.parallel(seen)
    assert panel is not None
    assert panel.figure is not None
    assert list(panel.figure.layout.xaxis.ticktext) == ["a", "b", "score", "c"]
    assert list(traces(panel)["the best"].y)[3] is None


def test_workers_are_bars_coloured_by_how_a_trial_ended(seen: StudyRecord) -> None:
    """Who looks sees who worked when, and on what."""
    found = traces(panel := chart.timeline(seen))
    assert list(found) == ["done", "pruned", "failed"]
    assert list(found["done"].y) == [1, 2, 2]
    assert list(found["done"].base) == [0, 0, 1]
    assert panel is not None
    assert "2 workers over 4.0 s: 3 done, 1 pruned, 1 failed" in panel.says


def test_cost_stands_against_score_with_its_front(tmp_path: Path) -> None:
    """Seconds, memory and parameters, where they differ; the front as numbers, too."""
    seen = record_of(
        tmp_path,
        trial(0.5, seconds=1, peak_memory_mb=10.0, n_parameters=7),
        trial(0.9, seconds=3, peak_memory_mb=30.0, n_parameters=7),
        trial(0.8, seconds=4, peak_memory_mb=20.0, n_parameters=7),
    )
    seconds, memory = chart.costs(seen)
    assert (seconds.title, memory.title) == ("Time against score", "Memory against score")
    assert seconds.table is not None
    assert list(seconds.table.rows) == [["0", 1.0, 0.5], ["1", 3.0, 0.9]]
    assert list(traces(memory)["best for its cost"].x) == [10, 20, 30]


def test_the_history_has_the_best_so_far(seen: StudyRecord) -> None:
    """Optuna's plot, without the heading that the page has itself."""
    (panel,) = chart.history(seen)
    assert list(traces(panel)["best so far"].y)[-1] == 0.9
    assert panel.figure is not None
    assert panel.figure.layout.title.text is None
    assert "The best is 0.9, the middle 0.7" in panel.says


def test_several_objectives_have_a_plot_of_their_front(tmp_path: Path) -> None:
    """Optuna's plot for each pair, and the front as numbers."""
    trials = [trial([0.9, 5.0, 1.0]), trial([0.8, 1.0, 2.0]), trial([0.1, 9.0, 3.0])]
    names = ["accuracy", "seconds", "loss"]
    seen = record_of(tmp_path, *trials, directions=["maximize", "minimize", "minimize"], metrics=names)
    panels = chart.pareto(seen)
    assert [p.title.partition(": ")[2] for p in panels] == [
        "accuracy and seconds",
        "accuracy and loss",
        "seconds and loss",
    ]
    assert list(traces(panels[0])) == ["trials", "Pareto front"]
    assert panels[0].table is not None
    assert list(panels[0].table.rows) == [["0", 0.9, 5.0, 1.0], ["1", 0.8, 1.0, 2.0]]


def test_studies_side_by_side_are_one_plot(seen: StudyRecord, tmp_path: Path) -> None:
    """The best so far of each, where they have the same objective."""
    other = record_of(tmp_path, trial(0.3), trial(0.4), name="t")
    assert {"s: trials", "t: best so far"} <= set(traces(chart.compared([seen, other])))
    assert chart.compared([seen, record_of(tmp_path, trial(0.3), metrics=["loss"])]) is None


def test_choices_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    """Files of one folder are places of their own, under labels that tell them apart."""
    files = [f"/data/models/resnet18_{name}.pt" for name in ("imagenet_v1", "imagenet_v2", "places")]
    either = CategoricalDistribution([*files, "none"])
    space: dict[str, BaseDistribution] = {"weights": either, "x": FloatDistribution(0, 1)}
    drawn = [{"weights": file, "x": 0.1 * i} for i, file in enumerate(either.choices)]
    trials = [trial(0.5 + i / 10, params=params, space=space) for i, params in enumerate(drawn)]
    record = record_of(tmp_path, *trials)
    panel = {each.title: each for each in chart.slices(record)}["weights"]
    places = [x for dots in traces(panel).values() for x in dots.x]
    assert sorted(places) == [0, 1, 2, 3]
    labels = list(panel.figure.layout.xaxis.ticktext) if panel.figure else []
    assert len(set(labels)) == 4
    assert labels[-1] == "none"
    together = chart.parallel(record)
    assert together is not None
    assert together.figure is not None
    texts = [note.text for note in together.figure.layout.annotations]
    assert len(texts) == len(set(texts))


def test_a_trial_that_diverged_is_counted(tmp_path: Path) -> None:
    """An option whose trials all diverged is not taken for one that nobody has tried."""
    space: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(["a", "b"])}
    good = many(3, lambda i: trial(0.1 + i, params={"kind": "a"}, space=space))
    bad = many(2, lambda i: trial(state=PRUNED, params={"kind": "b"}, space=space, curve=[math.inf]))
    (panel,) = chart.slices(record_of(tmp_path, *good, *bad))
    assert "2 trials without a finite value" in panel.html
