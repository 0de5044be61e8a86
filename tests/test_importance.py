"""How much of the differences between trials goes with each parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from benchmarks.importance import SPACE, additive, cliff, draw, hump, noise, peak, rate, step, true_shares
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.record.study_files import StudyFiles
from sweeper.results import importance
from sweeper.results.importance import Importance, importances, panels, warning
from sweeper.results.study_record import StudyRecord
from sweeper.results.study_sign import signs_of

LR = FloatDistribution(1e-4, 1e-2, log=True)
DECAY = FloatDistribution(1e-6, 1e-2, log=True)
DROPOUT = FloatDistribution(0.0, 0.6)
MOMENTUM = FloatDistribution(0.8, 0.99)
Point = dict[str, Any]


def done(point: Point, *values: float, space: dict[str, BaseDistribution] = SPACE) -> FrozenTrial:
    return create_trial(params=point, distributions={name: space[name] for name in point}, values=values)


def pruned(point: Point, curve: Sequence[float], space: dict[str, BaseDistribution] = SPACE) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        params=point,
        distributions={name: space[name] for name in point},
        intermediate_values=dict(enumerate(curve, 1)),
    )


def of(trials: Sequence[FrozenTrial], directions: tuple[str, ...] = ("maximize",)) -> StudyRecord:
    metrics = ("val_accuracy", "val_loss")[: len(directions)]
    return StudyRecord("s", StudyFiles(Path("outputs/s")), directions, metrics, trials)


def study(
    score: Callable[[Point, np.random.Generator], float],
    n: int = 100,
    seed: int = 0,
    space: dict[str, BaseDistribution] = SPACE,
) -> StudyRecord:
    rng = np.random.default_rng(seed)
    points = [draw(rng, space) for _ in range(n)]
    return of([done(point, score(point, rng), space=space) for point in points])


def create_study(seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))


def by_name(found: Sequence[Importance]) -> dict[str, Importance]:
    return {one.name: one for one in found}


def where(distribution: FloatDistribution, value: float) -> float:
    """From 0 to 1, as it is drawn."""
    scale = np.log if distribution.log else float
    return float(
        (scale(value) - scale(distribution.low)) / (scale(distribution.high) - scale(distribution.low))
    )


def test_the_one_parameter_that_matters_is_named() -> None:
    """It comes first, with an interval around its true share; no other is called important."""
    found = importances(study(hump))
    truth = true_shares(hump, 5000)["optimizer.lr"]
    assert found[0].name == "optimizer.lr"
    assert found[0].low <= truth <= found[0].high
    assert found[0].says == f"the guide: five stars; your data: {found[0].low:.2f} … {found[0].high:.2f}"
    assert len(found) == len(SPACE)
    assert not any(one.matters for one in found[1:])


def test_the_shares_of_a_sum_are_found() -> None:
    """Three parameters come before all that does nothing, the heaviest first, each with its true share."""
    found = importances(study(additive, n=200, seed=1))
    truth = true_shares(additive, 5000)
    assert found[0].name == "optimizer.lr"
    assert {one.name for one in found[:3]} == {"optimizer.lr", "optimizer", "training.batch_size"}
    assert [one.matters for one in found] == [True, True, True, False, False, False]
    for one in found[:3]:
        assert one.low <= truth[one.name] <= one.high


def test_a_cliff_is_followed() -> None:
    """What is good in the middle of a range alone, with edges: the interval is around its true share."""
    found = importances(study(cliff, n=100))
    assert found[0].name == "optimizer.lr"
    assert found[0].low <= true_shares(cliff, 5000)["optimizer.lr"] <= found[0].high
    assert not any(one.matters for one in found[1:])


def test_of_noise_nothing_is_told() -> None:
    """No parameter is called important, in any of five studies."""
    found = [one for seed in range(5) for one in importances(study(noise, seed=seed))]
    assert not [one.says for one in found if one.matters]


def test_seven_trials_tell_nothing() -> None:
    """Not even of what decides everything: "weight decay 0.44 from 7 complete trials" cannot be."""
    found = importances(study(lambda point, _: rate(point), n=7))
    assert {one.name for one in found} == set(SPACE)
    assert by_name(found)["optimizer.lr"].says == "the guide: five stars; your data do not tell: 7 trials"
    assert by_name(found)["model.filters"].says == "your data do not tell: 7 trials"
    assert not any(one.is_told for one in found)


def test_very_many_trials_tell_what_does_little() -> None:
    """An interval that ends just above zero says something, and that is told."""
    record = study(hump, n=1000)
    begin = time.process_time()
    found = by_name(importances(record))
    assert time.process_time() - begin < 4
    assert found["model.dropout"].says == "the guide: two stars; your data: below 0.05 by itself"


def test_the_same_trials_give_the_same_numbers() -> None:
    """Nothing in them is left to chance."""
    assert importances(study(additive)) == importances(study(additive))


def test_a_smaller_loss_is_better_where_it_is_minimised() -> None:
    """The direction changes who wins, and no importance."""
    trials = study(hump).trials
    turned = [done(trial.params, -trial.values[0]) for trial in trials]
    assert importances(of(turned, ("minimize",))) == importances(of(trials))


def test_each_objective_has_its_own_importance() -> None:
    """One panel for each, with its name."""
    rng = np.random.default_rng(0)
    points = [draw(rng, SPACE) for _ in range(60)]
    trials = [done(p, hump(p, rng), float(p["model.dropout"])) for p in points]
    record = of(trials, ("maximize", "minimize"))
    assert importances(record, 0)[0].name == "optimizer.lr"
    assert importances(record, 1)[0].name == "model.dropout"
    assert [panel.title for panel in panels(record)] == [
        "What mattered for val_accuracy",
        "What mattered for val_loss",
    ]


# -------------------------------------------------------------------------------------- pruned, diverged


def test_pruned_trials_are_compared_at_equal_epochs() -> None:
    """Who was pruned at epoch 1 has a lower score than the others have at their end, which says nothing.

    Here who prunes looks at the dropout alone, and the learning rate decides the score at each epoch.
    """
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(80):
        point = draw(rng, SPACE)
        slope = rate(point) + 0.1 * float(rng.normal())
        curve = [epoch + slope for epoch in range(1, 11)]
        trials.append(pruned(point, curve[:1]) if point["model.dropout"] > 0.3 else pruned(point, curve))
    found = by_name(importances(of(trials)))
    assert found["optimizer.lr"].low > 0.7
    assert not found["model.dropout"].matters


def test_a_score_is_the_share_of_the_others_that_it_beats() -> None:
    """At the last epoch that both reached: counted by hand for done, pruned, early and diverged trials."""
    points = [{"model.dropout": 0.1 * i} for i in range(5)]
    long, early = pruned(points[0], [0.5, 0.6, 0.7]), pruned(points[1], [0.6])
    whole = create_trial(
        params=points[2],
        distributions={"model.dropout": DROPOUT},
        value=0.9,
        intermediate_values={1: 0.4, 2: 0.65, 3: 0.9},
    )
    lost = pruned(points[3], [0.99, float("nan")])
    short = create_trial(
        params=points[4],
        distributions={"model.dropout": DROPOUT},
        value=0.55,
        intermediate_values={1: 0.3, 2: 0.55},
    )
    scores = importance._scores([long, early, whole, lost, short], 0, True) * 4
    # early beats all others at epoch 1, long beats short at 2, whole beats long at 3 and short at the end.
    assert scores.tolist() == [2, 4, 3, 0, 1]


def test_what_diverged_is_the_worst() -> None:
    """A parameter that decides only who diverges is important."""
    rng = np.random.default_rng(0)
    points = [draw(rng, SPACE) for _ in range(60)]
    trials = [pruned(p, [float("nan")]) if rate(p) > 0.6 else done(p, float(rng.normal())) for p in points]
    assert [one.name for one in importances(of(trials)) if one.matters] == ["optimizer.lr"]


def test_failed_running_and_empty_trials_are_left_out() -> None:
    """They have no score; a study of nothing else has no importance."""
    point = draw(np.random.default_rng(0), SPACE)
    states = (TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING, TrialState.PRUNED)
    without = [create_trial(state=s, params=point, distributions=SPACE) for s in states]
    assert importances(of(without)) == []
    assert panels(of(without)) == []
    assert importances(of([])) == []
    record = study(hump, n=40)
    assert importances(of([*record.trials, *without])) == importances(record)


# -------------------------------------------------------------------------------- parameters of all kinds


def test_a_parameter_that_only_some_trials_have_is_weighed_there() -> None:
    """Momentum decides all among trials with SGD: it matters, the optimizer does not."""
    rng, space = np.random.default_rng(0), SPACE | {"optimizer.momentum": MOMENTUM}
    trials = []
    for _ in range(120):
        point = draw(rng, SPACE)
        value = 0.2 * float(rng.normal())
        if point["optimizer"] == "sgd":
            point |= draw(rng, {"optimizer.momentum": MOMENTUM})
            value += 4 * where(MOMENTUM, point["optimizer.momentum"]) - 2
        trials.append(done(point, value, space=space))
    found = by_name(importances(of(trials)))
    n_sgd = sum(trial.params["optimizer"] == "sgd" for trial in trials)
    assert found["optimizer.momentum"].n_trials == n_sgd
    assert found["optimizer.momentum"].low > 0.1
    assert found["optimizer.momentum"].says.endswith(f"({n_sgd} of 120 trials have it)")
    assert not found["optimizer"].matters


def test_having_a_parameter_is_the_optimizers_doing() -> None:
    """Where SGD is better, and its momentum does nothing, the optimizer matters and momentum does not."""
    rng, space = np.random.default_rng(0), SPACE | {"optimizer.momentum": MOMENTUM}
    trials = []
    for _ in range(100):
        point = draw(rng, SPACE)
        is_sgd = point["optimizer"] == "sgd"
        point |= draw(rng, {"optimizer.momentum": MOMENTUM}) if is_sgd else {}
        trials.append(done(point, 2 * is_sgd + float(rng.normal()), space=space))
    assert [one.name for one in importances(of(trials)) if one.matters] == ["optimizer"]


def test_ranges_of_one_key_are_weighed_together() -> None:
    """``optimizer.lr[freezing=head]`` and ``[freezing=full]`` are one row, with the stars of the key."""
    head, full = "optimizer.lr[freezing=head]", "optimizer.lr[freezing=full]"
    space = {
        "freezing": CategoricalDistribution(["head", "full"]),
        head: LR,
        full: DECAY,
        "model.dropout": DROPOUT,
    }
    rng, trials = np.random.default_rng(0), []
    for _ in range(60):
        point = draw(rng, {"freezing": space["freezing"], "model.dropout": DROPOUT})
        name, sign = (head, 1) if point["freezing"] == "head" else (full, -1)
        point |= draw(rng, {name: LR if name == head else DECAY})
        rate = where(LR if name == head else DECAY, point[name])
        trials.append(done(point, sign * rate + 0.1 * float(rng.normal()), space=space))
    found = importances(of(trials))
    assert [one.name for one in found] == ["freezing", "optimizer.lr", "model.dropout"]
    assert by_name(found)["optimizer.lr"].matters
    assert by_name(found)["optimizer.lr"].stars == 5
    assert by_name(found)["optimizer.lr"].n_trials == 60


@pytest.mark.parametrize(
    ("name", "distribution", "effect"),
    [
        ("a", FloatDistribution(1e-8, 1e8, log=True), lambda v: np.log10(v) / 5),
        ("a", IntDistribution(1, 4), float),
        ("a", IntDistribution(1, 1000, log=True), lambda v: np.log(v) / 2),
        ("a", CategoricalDistribution([True, False]), float),
        ("a", CategoricalDistribution([None, "b", 3]), lambda v: 2.0 * (v == 3)),
        ("layers[0]", CategoricalDistribution(["[6,16]", "[16,32]"]), len),
    ],
)
def test_parameters_of_all_kinds_are_weighed(
    name: str, distribution: BaseDistribution, effect: Callable[[Any], float]
) -> None:
    """Logarithms, whole numbers, truth values, None among choices, lists; names as another app has them."""
    space = {name: distribution, "b": DROPOUT}
    found = importances(study(lambda p, rng: effect(p[name]) + 0.3 * rng.normal(), n=60, space=space))
    assert [one.name for one in found if one.matters] == [name]
    assert found[0].stars is None
    assert found[0].says == f"your data: {found[0].low:.2f} … {found[0].high:.2f}"


def test_a_value_that_never_changed_is_no_parameter() -> None:
    """Where all trials have one value there is nothing to weigh."""
    rng = np.random.default_rng(0)
    points = [draw(rng, SPACE) | {"optimizer": "adam"} for _ in range(30)]
    assert "optimizer" not in by_name(importances(of([done(p, hump(p, rng)) for p in points])))


def test_equal_scores_tell_nothing() -> None:
    """Where no trial beats another nothing can matter."""
    assert not any(one.is_told for one in importances(study(lambda *_: 1.0, n=50)))


# ----------------------------------------------------------------------------------------- shown to people


def test_the_panel_shows_what_matters_and_names_what_is_silent() -> None:
    """A figure of intervals, most important on top; a table; a sentence with the rest. All is escaped."""
    space = {**SPACE, "<b>": DROPOUT}
    (panel,) = panels(study(additive, n=40, space=space))
    assert panel.title == "What mattered"
    assert panel.figure is not None
    shown = list(panel.figure.layout.yaxis.ticktext)
    assert shown[::-1] == [one.name for one in importances(study(additive, n=40, space=space)) if one.is_told]
    assert "Your data do not tell: " in panel.html
    assert "&lt;b&gt;" in panel.html
    assert "<b>" not in panel.html
    assert "five stars" in panel.html
    assert panel.says.startswith("optimizer.lr: the guide: five stars; your data: ")


@pytest.mark.parametrize("n", [7, 40])
def test_the_panel_hides_passwords(n: int) -> None:
    """A parameter's name may hold a URL; it is hidden in the table as in the sentences."""
    space: dict[str, BaseDistribution] = {
        "data.url=https://me:secret@host/": DROPOUT,
        "model.dropout": DROPOUT,
    }
    (panel,) = panels(study(lambda point, rng: float(rng.normal()), n=n, space=space))
    assert panel.html.count("***@host") == 2
    assert "secret" not in panel.html


def test_a_panel_of_few_trials_has_no_figure() -> None:
    """It says why."""
    (panel,) = panels(study(hump, n=7))
    assert panel.figure is None
    assert "Your data do not tell: optimizer.lr" in panel.html
    assert "(7 trials)." in panel.says


def test_the_dashboards_importance_is_warned_of_where_trials_are_few() -> None:
    """One sentence with the numbers; none where there are enough, or nothing to compare."""
    few = study(hump, n=7)
    assert warning(few) == (
        "Do not trust the hyperparameter importance shown here: it rests on 7 done trials, "
        "and 6 parameters take about 60."
    )
    assert warning(study(hump, n=60)) is None
    assert warning(of([])) is None
    cut = [pruned(trial.params, [0.1]) for trial in study(hump, n=60).trials]
    assert warning(of([*few.trials, *cut])) == (  # it knows only those that are done
        "Do not trust the hyperparameter importance shown here: it rests on 7 done trials, "
        "without 60 pruned, and 6 parameters take about 60."
    )


@pytest.mark.parametrize("n", [1, 6, 12, 19, 20, 25])
def test_the_sign_and_the_warning_ask_for_the_same(n: int) -> None:
    """Of the same parameters: a value that cannot change is none. Half as many are far too few: a sign."""
    space: dict[str, BaseDistribution] = {
        "model.dropout": DROPOUT,
        "optimizer.lr": LR,
        "seed": IntDistribution(1, 1),
    }
    record = study(noise, n=n, space=space)
    sign = next((one for one in signs_of(record) if one.sign == "too_few_trials"), None)
    said = warning(record)
    assert (sign is None, said is None) == (n >= 10, n >= 20)
    if sign is not None and said is not None:
        assert "for 2 parameters" in sign.evidence
        assert "to 20 trials" in sign.advice
        assert said.endswith("2 parameters take about 20.")


# --------------------------------------------------------------------------------------------- measured


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 40, 100])
def test_noise_is_called_important_in_few_cases(n: int) -> None:
    """At most 5 % of parameters without effect, beside others that have one, with uniform draws."""
    truth = true_shares(additive)
    called = [
        one.matters
        for score in (noise, additive)
        for seed in range(20)
        for one in importances(study(score, n=n, seed=seed))
        if score is noise or truth[one.name] < 0.005
    ]
    print(f"{n} trials: {np.mean(called):.2%} of {len(called)} parameters without effect")
    assert np.mean(called) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 100])
def test_what_tpe_gathers_is_not_called_important(n: int) -> None:
    """TPE draws closer with time, also where it does not matter: that is no effect."""
    called = []
    for seed in range(12):
        searched = create_study(seed)
        rng = np.random.default_rng(seed)
        for _ in range(n):
            trial = searched.ask(SPACE)
            searched.tell(trial, hump(trial.params, rng))
        found = importances(of(searched.trials))
        called += [one.matters for one in found if one.name != "optimizer.lr"]
        assert found[0].name == "optimizer.lr" or not found[0].matters
    print(f"TPE, {n} trials: {np.mean(called):.2%} of {len(called)} parameters without effect")
    assert np.mean(called) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 100, 300])
def test_nine_of_ten_intervals_hold_the_true_share(n: int) -> None:
    """As the report says, for what has an effect, smooth or not; hardly any of it is said to do little."""
    held, wrong = dict[str, list[bool]](), 0
    for score in (hump, additive, cliff, peak, step):
        truth = {name: share for name, share in true_shares(score).items() if share > 0.02}
        of_score = held.setdefault(score.__name__, [])
        for seed in range(16):
            found = by_name(importances(study(score, n=n, seed=seed)))
            of_score += [found[name].low <= share <= found[name].high for name, share in truth.items()]
            wrong += sum(
                found[name].says.endswith("by itself") for name, share in truth.items() if share > 0.05
            )
    every = [one for several in held.values() for one in several]
    print(f"{n} trials: {np.mean(every):.1%} of {len(every)} intervals hold the true share; {wrong} little")
    print({name: f"{np.mean(several):.1%} of {len(several)}" for name, several in held.items()})
    assert np.mean(every) >= 0.85
    assert min(np.mean(several) for several in held.values()) >= 0.75
    assert wrong <= 0.05 * len(every)


def test_a_hundred_trials_are_weighed_in_a_second() -> None:
    """Of ten parameters, on one core: the report has three."""
    space = SPACE | {f"x{i}": DROPOUT for i in range(4)}
    record = study(additive, space=space)
    begin = time.process_time()
    importances(record)
    assert time.process_time() - begin < 1
