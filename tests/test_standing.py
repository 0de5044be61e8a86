"""How a study stands: the data of tables and figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from sweeper import origin
from sweeper.record.run_files import RunFiles
from sweeper.results import overview, report, standing, study_sign
from sweeper.results.standing import Pause, Price, Span
from tests.studied import record_of, trial

PRUNED, FAIL, RUNNING, WAITING = TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING


def test_the_best_is_the_first_of_the_best_values(tmp_path: Path) -> None:
    """Of those that took as long, in both directions; a trial that is not done is never the best."""
    trials = [trial(0.5), trial(0.9, params={"optimizer": "sgd"}), trial(0.9), trial(state=FAIL)]
    assert [t.number for t in standing.best_trials(record_of(tmp_path, *trials))] == [1]
    assert [
        t.number for t in standing.best_trials(record_of(tmp_path, *trials, directions=["minimize"]))
    ] == [0]
    assert standing.best_trials(record_of(tmp_path, trial(state=FAIL))) == []


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    """The best trials are those that no other beats in all."""
    trials = [trial([0.9, 5.0]), trial([0.8, 1.0]), trial([0.7, 3.0])]
    seen = record_of(tmp_path, *trials, directions=["maximize", "minimize"], metrics=["accuracy", "seconds"])
    assert [t.number for t in standing.best_trials(seen)] == [0, 1]


def test_a_pruned_trial_counts_with_its_last_value(tmp_path: Path) -> None:
    """What is no number counts for nothing."""
    seen = record_of(
        tmp_path, trial(0.5), trial(state=PRUNED, curve=[0.1, 0.2]), trial(state=PRUNED, curve=[math.nan])
    )
    assert [standing.score(t) for t in seen.trials] == [0.5, 0.2, None]


@pytest.mark.parametrize(("direction", "sign"), [("maximize", -1), ("minimize", 1)])
def test_trials_that_went_astray_do_not_stretch_a_scale(direction: str, sign: int) -> None:
    """Of near values and a far one, the far one is left out if it is bad, and never if it is good."""
    near = [1 + i / 1000 for i in range(9)]
    bad, good = (standing.scale([*near, side * sign * 50.0], direction) or (0, 0) for side in (1, -1))
    assert 0.9 < bad[0] < bad[1] < 1.1
    assert good[0] <= -sign * 50 <= good[1]


def test_a_scale_has_room_for_one_value_and_none_for_no_number() -> None:
    """One value stands in the middle; without any there is no scale."""
    low, high = standing.scale([2.0], "maximize") or (0, 0)
    assert low < 2 < high
    assert standing.scale([math.nan, math.inf], "maximize") is None


def test_a_range_is_as_wide_as_any_trial_had_it(tmp_path: Path) -> None:
    """A study that went on with other bounds shows both."""
    narrow, wide = {"x": FloatDistribution(1, 2)}, {"x": FloatDistribution(0.5, 1.5)}
    seen = record_of(
        tmp_path, trial(0.1, params={"x": 1.1}, space=narrow), trial(0.1, params={"x": 0.7}, space=wide)
    )
    assert standing.space(seen) == {"x": FloatDistribution(0.5, 2)}


@pytest.mark.parametrize(
    ("distribution", "told"),
    [
        (FloatDistribution(1e-5, 1e-1, log=True), "1e-5 … 0.1 (log)"),
        (IntDistribution(16, 128, step=16), "16 … 128, in steps of 16"),
        (IntDistribution(1, 20_000), "1 … 20,000"),
        (CategoricalDistribution(["adam", None, True, 0.5]), "adam, null, true, 0.5"),
    ],
)
def test_a_range_is_told_as_one_reads_it(distribution: FloatDistribution, told: str) -> None:
    """Ends, steps, whether it is logarithmic; options by their names."""
    assert standing.told_range(distribution) == told


def test_names_are_short_unless_two_would_be_the_same() -> None:
    """The last part of a key says enough."""
    assert standing.shorts(["optimizer.lr", "model.dropout"]) == {
        "optimizer.lr": "lr",
        "model.dropout": "dropout",
    }
    assert standing.shorts(["a.lr", "b.lr"]) == {"a.lr": "a.lr", "b.lr": "b.lr"}
    assert standing.short("optimizer.lr[freezing=head]") == "lr [freezing=head]"


def test_each_worker_has_a_lane(tmp_path: Path) -> None:
    """Trials stand where their worker was, in the order of time."""
    seen = record_of(
        tmp_path,
        trial(0.1, begin_s=0, seconds=5, worker="host-1-a"),
        trial(state=PRUNED, begin_s=1, seconds=1, worker="host-2-b"),
        trial(0.1, begin_s=5, seconds=2, worker="host-1-a"),
    )
    times = standing.times(seen)
    assert times.lanes == ["host-1-a", "host-2-b"]
    assert times.spans == [Span(0, 0, "done", 0, 5), Span(1, 1, "pruned", 1, 2), Span(2, 0, "done", 5, 7)]
    assert (times.wall_s, times.trial_s) == (7, 8)


def test_no_trial_ends_before_it_began(tmp_path: Path) -> None:
    """Also where a clock went back, or that of another host has told its end."""
    seen = record_of(tmp_path, trial(0.1, seconds=5), trial(0.1, begin_s=3600, seconds=-3595))
    assert [span.end_s - span.begin_s for span in standing.times(seen).spans] == [5, 0]
    assert [price.cost for price in standing.prices(seen, "seconds")] == [5]


def test_without_workers_the_first_free_lane_is_taken(tmp_path: Path) -> None:
    """A study of plain Optuna names none: trials that overlap stand below each other."""
    seen = record_of(tmp_path, *(trial(0.1, begin_s=b, seconds=2) for b in (0, 1, 2)))
    assert [span.lane for span in standing.times(seen).spans] == [0, 1, 0]


def test_a_night_between_two_searches_is_left_out(tmp_path: Path) -> None:
    """Who goes on the next day sees the trials side by side, and how long nothing ran."""
    seen = record_of(tmp_path, trial(0.1, seconds=10), trial(0.2, begin_s=50_010, seconds=10))
    times = standing.times(seen)
    assert times.pauses == [Pause(10, 50_000)]
    assert [(span.begin_s, span.end_s) for span in times.spans] == [(0, 10), (10, 20)]
    assert times.wall_s == 20


def test_a_running_trial_lasts_until_now_and_a_waiting_one_has_no_time(tmp_path: Path) -> None:
    """Nothing is known of a trial that has not begun."""
    seen = record_of(tmp_path, trial(state=RUNNING), trial(state=WAITING))
    (span,) = standing.times(seen).spans
    assert span.word == "running"
    assert span.end_s > 1000


def test_the_front_has_what_nothing_cheaper_beats() -> None:
    """Cheapest first, each better than all before it."""
    paid = [Price(0, 3, 0.9), Price(1, 1, 0.5), Price(2, 2, 0.4), Price(3, 3, 0.8), Price(4, 9, 0.9)]
    assert [p.number for p in standing.front(paid, "maximize")] == [1, 0]
    assert [p.number for p in standing.front(paid, "minimize")] == [1, 2]


def test_what_a_trial_cost_is_an_attribute_or_its_time(tmp_path: Path) -> None:
    """Our runs say it; of others the seconds are known, and nothing else."""
    seen = record_of(
        tmp_path, trial(0.1, seconds=4, peak_memory_mb=7.5), trial(0.2, seconds=9, n_parameters=3)
    )
    assert standing.prices(seen, "seconds") == [Price(0, 4, 0.1), Price(1, 9, 0.2)]
    assert standing.prices(seen, "peak_memory_mb") == [Price(0, 7.5, 0.1)]
    assert standing.prices(seen, "n_parameters") == [Price(1, 3, 0.2)]


def test_a_curve_is_what_was_reported(tmp_path: Path) -> None:
    """Step by step, without what is no number."""
    seen = record_of(
        tmp_path, trial(0.2, curve=[0.1, math.nan, 0.2]), trial(0.3), trial(state=PRUNED, curve=[math.inf])
    )
    (curve,) = standing.curves(seen)
    assert (curve.number, curve.word, list(curve.steps), list(curve.values)) == (
        0,
        "done",
        [1, 3],
        [0.1, 0.2],
    )


def test_a_run_of_ours_has_its_curve_in_its_history(tmp_path: Path) -> None:
    """Several objectives are never reported, but each epoch has them."""
    run = RunFiles(tmp_path / "0")
    run.mark()
    run.write_history(
        [
            {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.1},
            {"epoch": 2, "val_loss": 0.25, "val_accuracy": 0.2},
        ]
    )
    directions, metrics = ["minimize", "maximize"], ["val_loss", "val_accuracy"]
    seen = record_of(tmp_path, trial([0.25, 0.2]), directions=directions, metrics=metrics)
    assert [list(standing.curves(seen, i)[0].values) for i in (0, 1)] == [[0.5, 0.25], [0.1, 0.2]]


def test_many_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    """The file stays small, and where a curve ends can be seen."""
    seen = record_of(tmp_path, *(trial(0.5, curve=[i / 50 for i in range(50)]) for _ in range(10)))
    kept, every = standing.thinned(standing.curves(seen), most_points=100)
    assert every == 5
    assert all((curve.steps[0], curve.steps[-1]) == (1, 50) for curve in kept)
    assert sum(len(curve.steps) for curve in kept) <= 110
    some, every = standing.thinned(standing.curves(seen), kept=[7], most=3)
    assert ([curve.number for curve in some], every) == ([0, 4, 7, 8], 1)


def test_an_axis_of_powers_is_marked_at_powers() -> None:
    """At most seven, and at its ends where it is too short for two."""
    assert standing.ticks(1e-4, 1e-2) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert standing.ticks(2e-4, 9e-4) == [2e-4, 9e-4]
    assert len(standing.ticks(1e-12, 1)) <= 7


NONSENSE = [5.5, "text", [1], {"a": 1}, None, True, pytest.param(10**400, id="huge")]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_an_app_may_call_its_attributes_as_we_do(tmp_path: Path, nonsense: object) -> None:
    """They are not read as if they were ours, and cost no part of a report."""
    names = ("folder", "worker", "epochs", "signs", "reason", "traceback", "n_parameters", "peak_memory_mb")
    attributes: Any = dict.fromkeys(names, nonsense)
    failed = trial(state=TrialState.FAIL, begin_s=1, **attributes)
    seen = record_of(tmp_path, trial(0.5, **attributes), failed)
    assert seen.run(seen.trials[0]).folder in (tmp_path / "0", Path("text"))
    assert standing.n_steps(seen)[0] == 0
    assert len(standing.times(seen).lanes) == 1
    assert [paid.cost for paid in standing.prices(seen, "peak_memory_mb")] in ([], [5.5])
    overview.failures(seen)


def test_passwords_are_shown_nowhere(tmp_path: Path) -> None:
    """Neither one that was typed as an override, nor one in the reason why trials fail."""
    password, reason = "hunter2hunter2", "ValueError: no postgresql://me:{}@host/db"
    attributes = {"fixed": [f"db.password={password}", "a=1"], "command": ["python", "a.py", "-m"]}
    failed = [trial(state=TrialState.FAIL, reason=reason.format(password)) for _ in range(5)]
    seen = record_of(tmp_path, trial(0.5), *failed, attributes=attributes)
    assert standing.fixed(seen) == {"db.password": "***", "a": "1"}
    told = [str(each) for each in study_sign.signs_of(seen)]
    assert any("failures" in each for each in told)
    shown = origin.rows({**seen.attributes, "directions": ["maximize"], "space": {}})
    assert password not in " ".join([*told, *shown.values(), report.page([(seen, [])])])


def test_shortened_texts_differ_where_the_whole_ones_do() -> None:
    """By their ends, or by a number in front."""
    assert standing.told_apart(["adam", "sgd"], 4) == ["adam", "sgd"]
    assert standing.told_apart(["category_1", "category_2"], 7) == ["ca…ry_1", "ca…ry_2"]
    assert len(set(standing.told_apart(["a" * 9 + "b" + "a" * 9, "a" * 19], 8))) == 2


def test_a_scale_ends_at_a_value() -> None:
    """What went astray leaves no gap between the scale's end and the worst that is shown."""
    low, high = standing.scale([0.1, 0.9, 0.92, 0.94, 0.96, 0.98], "maximize") or (0.0, 0.0)
    assert 0.88 < low < 0.9
    assert 0.98 < high < 1


def test_a_resumed_search_has_no_more_workers(tmp_path: Path) -> None:
    """Workers that follow one another share a lane; those at the same time have their own."""
    names = ["a", "b", "c", "d"]
    begins = [0, 0, 20, 20]
    trials = [trial(0.5, begin_s=begin, worker=name) for begin, name in zip(begins, names, strict=True)]
    times = standing.times(record_of(tmp_path, *trials))
    assert [span.lane for span in times.spans] == [0, 1, 0, 1]
    assert times.lanes == ["lane 1", "lane 2"]
