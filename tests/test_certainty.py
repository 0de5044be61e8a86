"""The report's figures of how sure a search is, and of what a certificate says."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from sweeper.results import certainty
from sweeper.results.belief import Belief, Difference, Estimate
from sweeper.results.certificate import Certificate
from sweeper.results.panel import Panel
from sweeper.results.study_record import StudyRecord
from tests.studied import certificate_of, many, record_of, trial

BELIEF = Belief(
    best=(Estimate("score", 1, 0.9, 0.88, 0.92),),
    n_pictures=360,
    tied=(4,),
    tie_broken_by="val_loss",
    not_worse=(0, 4),
    differences=tuple(
        Difference(number, value, value - 0.02, value + 0.02)
        for number, value in ((4, 0.0), (0, -0.01), (2, -0.1), (3, -0.2))
    ),
    n_compared=4,
    n_others=5,
    cheapest=0,
    cheapest_cost=0.5,
    luck=0.004,
)


@pytest.fixture
def seen(tmp_path: Path) -> StudyRecord:
    """Six done trials, number 1 the best; their times differ."""
    values = (0.89, 0.9, 0.8, 0.7, 0.9, 0.6)
    return record_of(tmp_path, *many(6, lambda i: trial(values[i], seconds=1.0 + i)))


def figures(panels: list[Panel]) -> list[Any]:
    return [panel.figure for panel in panels if panel.figure is not None]


def named(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_those_not_worse_are_told_apart_from_the_worse(seen: StudyRecord) -> None:
    """By colour and by symbol; each with the interval of its difference, beside its name its time."""
    words, figure = certainty.believed(seen, BELIEF)
    assert "Not worse: trials 0, 4." in words.html
    assert "Reached the same value: trial 4." in words.html
    assert "about 0.004 of it is luck" in words.html
    found = named(figure.figure)
    assert list(found["not worse"].x) == [0.0, -0.01]
    assert list(found["worse"].x) == [-0.1, -0.2]
    assert found["worse"].marker.symbol != found["not worse"].marker.symbol
    assert found["worse"].error_x.array[0] == pytest.approx(0.02)
    assert figure.figure is not None
    ticks = figure.figure.layout.yaxis.ticktext
    assert list(ticks) == ["trial 1 · 2.0 s", "trial 4 · 5.0 s", "trial 0 · 1.0 s", *ticks[3:]]
    assert "2 trials not worse, 2 worse" in figure.says


@pytest.mark.parametrize(("direction", "span"), [("maximize", (-0.004, 0)), ("minimize", (0, 0.004))])
def test_luck_is_a_shaded_part_on_the_worse_side(
    tmp_path: Path, direction: str, span: tuple[float, float]
) -> None:
    """As wide as the luck; without luck there is none."""
    seen = record_of(tmp_path, *many(6, lambda i: trial(0.5)), directions=(direction,))
    (figure,) = figures(certainty.believed(seen, BELIEF))
    (shade,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (shade.x0, shade.x1) == span
    assert "luck" in named(figure)
    (without,) = figures(certainty.believed(seen, replace(BELIEF, luck=0.0)))
    assert [shape.type for shape in without.layout.shapes] == ["line"]


def test_what_cannot_be_said_is_not_drawn(seen: StudyRecord) -> None:
    """Without logits there are words and no figure; without a done trial there is nothing."""
    bare = replace(
        BELIEF,
        best=(Estimate("score", 1, 0.9, None, None),),
        n_pictures=None,
        not_worse=None,
        differences=(),
        n_compared=0,
        cheapest=None,
        cheapest_cost=None,
        luck=None,
    )
    (words,) = certainty.believed(seen, bare)
    assert "score 0.900" in words.html
    assert "±" not in words.html
    assert certainty.believed(seen, None) == []


def test_many_trials_are_drawn_as_far_as_a_glance_goes(tmp_path: Path) -> None:
    """The next eleven; the rest is counted."""
    seen = record_of(tmp_path, *many(40, lambda i: trial(0.9 - i / 100)))
    differences = tuple(Difference(i, -i / 100, -i / 100 - 0.02, 0.02 - i / 100) for i in range(1, 40))
    many_ = replace(BELIEF, best=(Estimate("score", 0, 0.9, 0.8, 1.0),), differences=differences, tied=())
    panels = certainty.believed(seen, replace(many_, not_worse=tuple(range(1, 30))))
    (figure,) = figures(panels)
    assert len(figure.layout.yaxis.ticktext) == 12
    assert "28 more trials are compared" in panels[1].html
    assert "trials 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 19 more" in panels[0].html


def test_a_certificates_trainings_are_dots_around_their_mean(tmp_path: Path) -> None:
    """Each training that did not diverge; who dropped out says when; a star is what the search had."""
    scores = {"trial 3": [0.9, 0.91, 0.92], "defaults": [0.5, 0.51, 0.5], "trial 7": [0.8, nan]}
    found = Certificate.read(certificate_of(tmp_path, scores, {"trial 3": 0.95, "trial 7": 0.96}))
    assert found is not None
    words, panel = certainty.certified(found)
    assert "expected to reach score 0.91" in words.html
    assert words.table is not None
    assert len(words.table.rows) == 3
    traces = named(panel.figure)
    assert sorted(traces["single training"].x) == [0.5, 0.5, 0.51, 0.8, 0.9, 0.91, 0.92]
    assert sorted(traces["in the search"].x) == [0.95, 0.96]
    assert list(traces["mean"].x) == [pytest.approx(0.91)]
    assert panel.figure is not None
    first, *others = panel.figure.layout.yaxis.ticktext
    assert first == "trial 3"
    assert all(" · out at " in label for label in others)


def test_each_objective_of_a_certificate_has_its_figure(tmp_path: Path) -> None:
    """And the table a column of each."""
    scores = {"trial 3": [0.9, 0.91], "defaults": [0.5, 0.51]}
    directions, metrics = ("maximize", "minimize"), ("accuracy", "seconds")
    files = certificate_of(tmp_path, scores, {"trial 3": 0.95}, directions=directions, metrics=metrics)
    found = Certificate.read(files)
    assert found is not None
    words, *panels = certainty.certified(found)
    assert [panel.title for panel in panels] == ["Trained again: accuracy", "Trained again: seconds"]
    assert words.table is not None
    assert words.table.head[1:3] == ["accuracy expected", "in the search"]


def test_a_certificate_without_a_score_has_words_alone(tmp_path: Path) -> None:
    """All trainings so far have diverged."""
    found = Certificate.read(certificate_of(tmp_path, {"trial 0": [nan], "defaults": [nan]}))
    assert found is not None
    (words,) = certainty.certified(found)
    assert "No training has ended with a score yet" in words.html


def test_a_hopeless_candidate_does_not_stretch_the_scale(tmp_path: Path) -> None:
    """Nor does the interval of two trainings; where its mean lies is told."""
    scores = {name: [0.9, 0.91, 0.92, 0.9] for name in ("trial 3", "trial 7", "trial 9")}
    found = Certificate.read(certificate_of(tmp_path, {**scores, "defaults": [0.1, 0.3]}))
    assert found is not None
    _, panel = certainty.certified(found)
    assert panel.figure is not None
    low, high = panel.figure.layout.xaxis.range
    assert 0.85 < low < 0.9
    assert 0.92 < high < 0.95
    assert "Off this scale: defaults (0.2)." in panel.html
