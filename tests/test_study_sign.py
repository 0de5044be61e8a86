"""The signs of a study: each in a study that has it, and in one that has not."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.record.study_files import StudyFiles
from sweeper.results import study_record, study_sign
from sweeper.results.sign import Sign
from sweeper.results.study_record import StudyRecord
from sweeper.results.study_sign import Ladder, edges, signs_of, widened
from sweeper.search.look import read
from tests.foreign_app import App
from tests.program import IN_PROCESS, sweeper

LR = FloatDistribution(1e-4, 1e-2, log=True)
DECAY = FloatDistribution(1e-6, 1e-4, log=True)
OURS = ("python", "-m", "sweeper", "-m")
BEGUN = {"named_by": "study", "stored_by": "hydra.sweeper.storage", "folder_by": "name"}

Value = Callable[[Mapping[str, Any], int], float | Sequence[float] | None]


def ended(
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    values: Sequence[float] | None,
    state: TrialState | None = None,
    curve: Sequence[float] = (),
    seconds: float = 1.0,
    **attributes: Any,
) -> FrozenTrial:
    """A trial as a study has it after its end."""
    trial = create_trial(
        state=state or (TrialState.COMPLETE if values else TrialState.PRUNED),
        values=list(values) if values else None,
        params=dict(params),
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs=attributes,
    )
    trial.datetime_start = datetime(2026, 1, 1)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


def numbered(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    for number, trial in enumerate(trials):
        trial.number = number
    return list(trials)


def record_of(
    trials: Sequence[FrozenTrial],
    *words: str,
    folder: Path = Path("outputs/s"),
    directions: Sequence[str] = ("maximize",),
    metrics: Sequence[str] = ("value",),
    **attributes: Any,
) -> StudyRecord:
    """A study with these trials, begun by our own command with these words behind it."""
    return StudyRecord(
        name="s",
        files=StudyFiles(folder),
        directions=tuple(directions),
        metrics=tuple(metrics),
        trials=numbered(trials),
        command=(*OURS, *words),
        attributes={**BEGUN, "folder": str(folder), **attributes},
    )


def drawn(
    n: int, distributions: Mapping[str, BaseDistribution], value: Value, seed: int = 0, **settings: Any
) -> StudyRecord:
    """A study of random trials; those without a value are pruned."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    trials = []
    for number in range(n):
        asked = study.ask(dict(distributions))
        found = value(asked.params, number)
        values = None if found is None else list(found) if isinstance(found, Sequence) else [found]
        noisy = None if values is None else [value + 0.01 * rng.normal() for value in values]
        trials.append(ended(asked.params, distributions, noisy))
    return record_of(trials, **settings)


def names(seen: StudyRecord) -> list[str]:
    return [sign.sign for sign in signs_of(seen)]


def one(seen: StudyRecord, name: str) -> Sign:
    """The sign of that name, whose command is given and none of whose texts is empty."""
    found = next(sign for sign in signs_of(seen) if sign.sign == name)
    assert found.evidence
    assert found.advice
    return found


def place(distribution: FloatDistribution, value: float) -> float:
    return math.log(value / distribution.low) / math.log(distribution.high / distribution.low)


# ------------------------------------------------------------------------------------------------ …_at_edge

SPACE: dict[str, BaseDistribution] = {"optimizer.lr": LR, "optimizer.weight_decay": DECAY}


def rising(params: Mapping[str, Any], number: int) -> float:
    return 0.2 * place(LR, params["optimizer.lr"])


def test_a_best_trial_at_the_end_of_a_range_is_told() -> None:
    """The sign names the parameter, the end, the best values and the range to search next."""
    sign = one(drawn(24, SPACE, rising), "lr_at_edge")
    assert "trials have optimizer.lr 0.00" in sign.evidence
    assert (
        "at the upper end of 0.0001 … 0.01, and scores rise towards it (rank correlation 0." in sign.evidence
    )
    assert sign.advice == "Search around that end: 0.003 … 0.3."
    assert sign.command == ("python -m sweeper -m study=s-2 'optimizer.lr=tag(log, interval(3e-3, 0.3))'")


def test_the_end_of_a_range_takes_little_memory_in_a_large_study() -> None:
    """Of thousands of trials not each is compared with each other, and the sign is the same."""
    study = drawn(3000, SPACE, rising)
    tracemalloc.start()
    try:
        sign = one(study, "lr_at_edge")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sign.advice == "Search around that end: 0.003 … 0.3."
    assert peak < 60e6  # each with each other takes 190 MB


def test_the_lower_end_is_told_as_well() -> None:
    """Where scores fall with the rate, the next range lies below."""
    sign = one(drawn(24, SPACE, lambda params, number: -rising(params, number)), "lr_at_edge")
    assert "at the lower end" in sign.evidence
    assert "interval(3e-6, 3e-4)" in (sign.command or "")


@pytest.mark.parametrize("best", [0.3, 0.5, 0.7])
def test_a_best_trial_inside_a_range_is_none_at_its_end(best: float) -> None:
    """Scores that fall towards both ends need no other range."""
    peak = lambda params, number: -((place(LR, params["optimizer.lr"]) - best) ** 2)  # noqa: E731
    assert not edges(drawn(40, SPACE, peak))


def without_effect(seed: int, sampler: optuna.samplers.BaseSampler, n: int) -> StudyRecord:
    """A study whose scores have nothing to do with its parameters; some trials are pruned, as by chance."""
    rng, study = np.random.default_rng(seed), optuna.create_study(sampler=sampler, direction="maximize")
    space = {**SPACE, "model.dropout": FloatDistribution(0.1, 0.5), "n": IntDistribution(1, 64, log=True)}
    for _ in range(n):
        trial = study.ask(space)
        if rng.random() < 0.3:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(rng.normal()))
    return record_of(study.trials)


def test_scores_without_a_cause_are_no_edge() -> None:
    """Of 100 studies in which no parameter has an effect, at most 5 say that one lies at an end."""
    n_trials = (12, 24, 40, 60)
    studies = [without_effect(seed, RandomSampler(seed=seed), n_trials[seed % 4]) for seed in range(100)]
    assert sum(bool(edges(seen)) for seen in studies) <= 5


@pytest.mark.slow
def test_a_sampler_that_runs_after_luck_makes_no_edge() -> None:
    """The same of TPE, which draws ever more trials near those that were lucky."""
    studies = [without_effect(seed, TPESampler(seed=seed, multivariate=True), 40) for seed in range(100)]
    assert sum(bool(edges(seen)) for seen in studies) <= 5


@pytest.mark.slow
def test_what_another_parameter_gains_is_not_taken_for_an_edge() -> None:
    """TPE draws all parameters of late trials near those of good ones: of 40 studies, 2 may be misled."""
    misled = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        study = optuna.create_study(sampler=TPESampler(seed=seed, multivariate=True), direction="maximize")
        for _ in range(40):
            trial = study.ask(SPACE)
            study.tell(trial, rising(trial.params, 0) / 4 + 0.01 * rng.normal())
        found = {edge.name for edge in edges(record_of(study.trials))}
        misled += bool(found - {"optimizer.lr"})
    assert misled <= 2


def test_one_lucky_trial_at_an_end_is_no_edge() -> None:
    """The best few count, and whether scores rise towards the end."""

    def lucky(params: Mapping[str, Any], number: int) -> float:
        return 1.0 if number == np.argmax(places) else 0.0

    places = [trial.params["optimizer.lr"] for trial in drawn(24, SPACE, lambda params, number: 0.0).trials]
    assert not edges(drawn(24, SPACE, lucky))


def test_pruned_trials_count_as_worse_than_all_that_came_to_the_end() -> None:
    """A search prunes most of what is bad: what is left alone would not show a trend."""

    def pruned_below(params: Mapping[str, Any], number: int) -> float | None:
        return rising(params, number) if place(LR, params["optimizer.lr"]) > 0.7 else None

    assert names(drawn(40, SPACE, pruned_below))[0] == "lr_at_edge"


def test_pruned_trials_are_compared_at_equal_steps() -> None:
    """One that was pruned late has beaten those that were worse then, though they came to the end."""
    space = {"x": FloatDistribution(0, 1)}
    curves = [[0.1, 0.2, 0.9], [0.2, 0.5], [0.3, 0.4, 0.5], [0.05], []]
    trials = [ended({"x": 0.5}, space, curve[2:], curve=curve) for curve in curves]
    assert study_sign.beaten(record_of(trials), trials).tolist() == [1, 0, 2, 3, 2]


def test_where_a_range_ends_by_nature_there_is_no_edge() -> None:
    """Momentum is below 1 and dropout from 0 on: nothing could be searched beyond."""
    momentum, dropout = FloatDistribution(0.8, 0.99), FloatDistribution(0.0, 0.5)
    space = {"optimizer.momentum": momentum, "model.dropout": dropout}
    good = lambda params, number: params["optimizer.momentum"] - params["model.dropout"]  # noqa: E731
    assert not edges(drawn(40, space, good))


@pytest.mark.parametrize(
    ("key", "bounds", "is_upper", "expected"),
    [
        ("optimizer.lr", FloatDistribution(1e-4, 1e-3, log=True), True, (3e-4, 3e-2)),
        ("optimizer.lr", FloatDistribution(1e-6, 1e-5, log=True), True, (3e-6, 3e-4)),
        ("optimizer.lr", FloatDistribution(1e-6, 1e-5, log=True), False, (3e-8, 3e-6)),
        ("optimizer.momentum", FloatDistribution(0.8, 0.99), True, None),
        ("optimizer.momentum", FloatDistribution(0.5, 0.9), True, None),
        ("optimizer.momentum", FloatDistribution(0.8, 0.99), False, (0.61, 0.895)),
        ("model.dropout", FloatDistribution(0.0, 0.5), False, None),
        ("model.dropout", FloatDistribution(0.3, 0.5), True, (0.4, 0.7)),
        ("app.x", FloatDistribution(0.0, 1.0), True, None),
        ("app.x", FloatDistribution(0.0, 1.0), False, None),
        ("app.x", FloatDistribution(-2.0, 2.0), True, (0.0, 6.0)),
        ("app.depth", IntDistribution(1, 8), True, (5, 15)),
        ("app.depth", IntDistribution(1, 8), False, None),
        ("app.width", IntDistribution(16, 128, log=True), True, (90, 400)),
        ("app.width", IntDistribution(16, 128, step=16), True, (80, 240)),
        ("app.x", FloatDistribution(-5.0, 1.0), True, (-2.0, 7.0)),
        ("app.n", Ladder((16, 32, 64)), True, (64, 128)),
        ("app.n", Ladder((1, 2, 4)), False, None),
        ("training.batch_size", Ladder((16, 32, 64)), False, (8, 16)),
        ("app.share", Ladder((0.25, 0.5, 1.0)), True, None),
    ],
)
def test_a_range_is_widened_as_far_as_its_key_may_go(
    key: str,
    bounds: FloatDistribution | IntDistribution | Ladder,
    is_upper: bool,
    expected: tuple[float, float] | None,
) -> None:
    """By the limits of our own keys; of an app's, 0 and 1 are taken for natural ends."""
    found = widened(key, bounds, is_upper)
    assert found == (None if expected is None else pytest.approx(expected))


def test_choices_between_numbers_have_ends_too() -> None:
    """A search over 16, 32, 64 whose best has 64 goes on with the next powers of two."""
    sizes = CategoricalDistribution([16, 32, 64])
    better = lambda params, number: math.log2(params["training.batch_size"]) / 10  # noqa: E731
    seen = drawn(24, {"training.batch_size": sizes, **SPACE}, better)
    assert "training.batch_size=32,64,128" in (one(seen, "batch_size_at_edge").command or "")
    choices = CategoricalDistribution(["a", "b", "c"])
    named = drawn(24, {"kind": choices}, lambda params, number: float(params["kind"] == "c"))
    assert not edges(named)


def test_two_edges_are_two_studies() -> None:
    """Their commands may be typed one after the other."""

    def both(params: Mapping[str, Any], number: int) -> float:
        return rising(params, number) + 0.2 * place(DECAY, params["optimizer.weight_decay"])

    found = [sign.command or "" for sign in signs_of(drawn(200, SPACE, both)) if "_at_edge" in sign.sign]
    assert [shlex.split(command)[4] for command in found] == ["study=s-2", "study=s-3"]


def test_a_range_of_one_option_is_searched_with_that_option() -> None:
    """The command of a conditional range fixes its option, in the place of the choice that was typed."""
    name = "optimizer.lr[freezing=head]"
    space: dict[str, BaseDistribution] = {name: LR, "freezing": CategoricalDistribution(["head"])}
    seen = drawn(24, space, lambda params, number: 0.2 * place(LR, params[name]))
    seen = replace(seen, command=(*OURS, "freezing=head,full", "training.epochs=5", "study=s"))
    command = one(seen, "lr_at_edge").command or ""
    assert shlex.split(command)[4:] == [
        "training.epochs=5",
        "study=s-2",
        "freezing=head",
        "optimizer.lr=tag(log, interval(3e-3, 0.3))",
    ]


def test_two_parameters_of_one_name_are_told_apart() -> None:
    """Where the last part is not enough, the sign has the whole key."""
    space = {"a.lr": LR, "b.lr": LR}
    assert "a.lr_at_edge" in names(drawn(24, space, lambda params, number: 0.2 * place(LR, params["a.lr"])))


def test_several_objectives_share_an_edge() -> None:
    """Where the front lies at an end, as it helps one objective and hurts none."""
    two = lambda params, number: (rising(params, number), 0.0)  # noqa: E731
    seen = drawn(60, SPACE, two, directions=("maximize", "maximize"), metrics=("a", "b"))
    assert [edge.name for edge in edges(seen)] in ([], ["optimizer.lr"])
    against = lambda params, number: (rising(params, number), -rising(params, number))  # noqa: E731
    assert not edges(drawn(60, SPACE, against, directions=("maximize", "maximize"), metrics=("a", "b")))


# ------------------------------------------------------------------------------------------- too_few_trials


def test_few_trials_for_many_parameters_are_told() -> None:
    """With the command that goes on with this study, to ten trials for each parameter."""
    seen = drawn(9, SPACE, lambda params, number: 0.0)
    sign = one(seen, "too_few_trials")
    assert sign.evidence == "9 trials for 2 parameters; 9 completed."
    assert sign.command == "python -m sweeper -m study=s hydra.sweeper.n_trials=20"
    assert "too_few_trials" not in names(drawn(10, SPACE, lambda params, number: 0.0))


def test_a_search_that_runs_is_judged_by_its_budget() -> None:
    """While it goes on, what is still to come counts."""
    trials = [*drawn(3, SPACE, lambda params, number: 0.0).trials, create_trial(state=TrialState.RUNNING)]
    assert "too_few_trials" in names(record_of(trials))
    assert "too_few_trials" not in names(replace(record_of(trials), n_trials=40))


def test_what_was_tried_in_full_is_not_too_few() -> None:
    """A grid, and a space of few points that all were tried, have nothing left."""
    space = {"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(0, 1)}
    points = [{"a": a, "b": b} for a in ("x", "y") for b in (0, 1)]
    trials = [ended(point, space, [0.0]) for point in points]
    assert "too_few_trials" not in names(record_of(trials))
    assert "too_few_trials" in names(record_of(trials[:3]))
    assert "too_few_trials" not in names(record_of(trials[:3], sampler="optuna.samplers.GridSampler"))


# ---------------------------------------------------------------------------------- most_pruned_first_epoch


def pruned_early(n_pruned: int, is_fair: bool) -> StudyRecord:
    """20 trials of 12 epochs; some were pruned after the first, which may foresee the last."""
    trials = [ended({"x": 0.5}, {"x": FloatDistribution(0, 1)}, None, curve=[0.1]) for _ in range(n_pruned)]
    for n in range(20 - n_pruned):
        first = n if is_fair else -n
        curve = [first, *([n] * 11)]
        trials.append(ended({"x": 0.5}, {"x": FloatDistribution(0, 1)}, [float(n)], curve=curve))
    return record_of(trials)


def test_a_first_epoch_that_judges_badly_is_told() -> None:
    """Where most are pruned by it, and it says little of the last."""
    sign = one(pruned_early(12, is_fair=False), "most_pruned_first_epoch")
    assert sign.evidence.startswith("12 of 20 trials were pruned after step 1, and in those that went on")
    assert (sign.command or "").endswith("hydra/sweeper/pruner=hyperband hydra.sweeper.pruner.min_resource=3")


def test_a_first_epoch_that_judges_well_or_seldom_is_not_told() -> None:
    """A pruner is there to prune."""
    assert "most_pruned_first_epoch" not in names(pruned_early(12, is_fair=True))
    assert "most_pruned_first_epoch" not in names(pruned_early(6, is_fair=False))


# -------------------------------------------------------------------------------------------------- failures


def failed(reason: str, choice: str = "a", **attributes: Any) -> FrozenTrial:
    space = {"c": CategoricalDistribution(["a", "b"])}
    return ended({"c": choice}, space, None, TrialState.FAIL, reason=reason, **attributes)


def test_failures_are_told_with_their_common_reason() -> None:
    """Reasons that differ in numbers alone are one; a choice that only failures have is named."""
    done = [ended({"c": "b"}, {"c": CategoricalDistribution(["a", "b"])}, [0.5]) for _ in range(7)]
    few = [failed("ValueError: 1 of 2"), failed("ValueError: 3 of 4"), failed("KeyError: x")]
    sign = one(record_of([*done, *few]), "failures")
    assert sign.evidence == "3 of 10 trials failed, 2 of them with: ValueError: 1 of 2; all have c=a."
    assert sign.command == "python -m sweeper -m study=s"


def test_the_traceback_of_a_failure_is_shown_next(tmp_path: Path) -> None:
    """The command prints the file; it runs as it stands."""
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "sweeper_traceback.txt").write_text("it broke here\n")
    command = one(record_of([failed("E: x", folder=str(folder))]), "failures").command
    done = subprocess.run(shlex.split(command or ""), capture_output=True, text=True, check=True)
    assert done.stdout == "it broke here\n"


def test_what_was_stopped_or_tried_again_has_not_failed() -> None:
    """Ctrl-C is no failure, and of a retried trial the last try counts."""
    again = failed("died")
    again.state, again.values = TrialState.COMPLETE, [1.0]
    again.user_attrs = {"retry_of": 0}
    assert "failures" not in names(record_of([failed("died"), again, failed("x", interrupted=True)]))


# --------------------------------------------------------------------------------------------- all_at_chance


def learned(*signs: str, value: float | None = 0.1) -> FrozenTrial:
    given: dict[str, Any] = {"signs": list(signs)} if signs else {}
    values = None if value is None else [value]
    return ended({"optimizer.lr": 1e-3}, {"optimizer.lr": LR}, values, **given)


def test_a_study_in_which_nothing_learned_is_told() -> None:
    """At chance level, it is the data that should be looked at."""
    sign = one(record_of([learned("chance_level") for _ in range(4)], "optimizer=adam,sgd"), "all_at_chance")
    assert sign.evidence == "Of 4 trials, 4 stayed at chance level, and none learned anything."
    assert sign.command == "python -m sweeper describe -m optimizer=adam,sgd"


def test_where_all_diverged_lower_rates_are_searched() -> None:
    """Also in another app, whose trials have reported an infinite value."""
    ours = record_of([learned("diverged", value=None) for _ in range(4)])
    assert "interval(1e-6, 1e-4)" in (one(ours, "all_at_chance").command or "")
    theirs = [ended({"optimizer.lr": 1e-3}, {"optimizer.lr": LR}, None, diverged=True) for _ in range(4)]
    assert "4 diverged" in one(record_of(theirs), "all_at_chance").evidence


def test_one_trial_that_learned_is_enough() -> None:
    """Then it is a matter of parameters."""
    assert "all_at_chance" not in names(record_of([*[learned("chance_level") for _ in range(9)], learned()]))


# ----------------------------------------------------------------------------------------------- cheap_rival


def compared(rival: float, seconds: float, best_seconds: float = 60.0) -> StudyRecord:
    """Four trials whose score wavers by 0.004 at its end; the last is the rival of the first."""
    curve = [0.1, 0.5, 0.7, 0.8, 0.9, 0.904, 0.9, 0.904, 0.9, 0.904]
    space = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a b", None, True])}
    rows = [(0.904, best_seconds), (0.7, 60.0), (0.6, 60.0), (rival, seconds)]
    return record_of(
        [
            ended({"x": 0.25, "c": c}, space, [value], curve=curve, seconds=seconds)
            for (value, seconds), c in zip(rows, ("a b", None, True, "a b"), strict=True)
        ]
    )


def test_a_rival_at_a_fraction_of_the_cost_is_told() -> None:
    """Within the noise of the curve, with the command that trains it."""
    sign = one(compared(0.902, 10.0), "cheap_rival")
    assert sign.evidence == (
        "Trial 3 has value 0.902 in 10.0 s, and the best, trial 0, has 0.904 in 60.0 s; 0.0048 is noise."
    )
    assert shlex.split(sign.command or "") == ["python", "-m", "sweeper", "study=s-3", "x=0.25", "c='a b'"]


@pytest.mark.parametrize(
    "seen",
    [compared(0.89, 10.0), compared(0.902, 30.0), compared(0.902, 0.1, best_seconds=1.0)],
    ids=["worse", "not cheap", "nobody minds"],
)
def test_what_is_worse_or_hardly_cheaper_is_no_rival(seen: StudyRecord) -> None:
    """A third of the cost and no more, and a score that cannot be told apart."""
    assert "cheap_rival" not in names(seen)


def test_the_noise_of_an_accuracy_follows_from_the_number_of_images(tmp_path: Path) -> None:
    """1,000 images know an accuracy of 0.9 to 0.0095."""
    run = StudyFiles(tmp_path).run(0)
    run.mark()
    run.result.write_text(json.dumps({"task": {"n_val": 1000}}))
    space = {"x": FloatDistribution(0, 1)}
    scores = [(0.9, 60.0), (0.5, 60.0), (0.5, 60.0), (0.892, 10.0)]
    trials = [ended({"x": 0.5}, space, [value], seconds=seconds) for value, seconds in scores]
    seen = record_of(trials, folder=tmp_path, metrics=("val_accuracy",))
    assert "0.0095 is noise" in one(seen, "cheap_rival").evidence


# --------------------------------------------------------------------------------- studies that say little


def test_a_study_that_says_little_has_no_signs() -> None:
    """An empty one, one that only begins, and one of other kinds of parameters than ranges."""
    assert names(record_of([])) == []
    assert names(record_of([create_trial(state=TrialState.RUNNING)])) == []
    space = {"c": CategoricalDistribution(["a", "b"])}
    assert names(record_of([ended({"c": "ab"[n % 2]}, space, [n]) for n in range(20)])) == []
    assert names(record_of([ended({}, {}, [1.0])] * 20)) == []


def test_a_study_whose_command_nobody_knows_has_signs_without_commands() -> None:
    """As one begun by an older version, or by plain Optuna."""
    study = optuna.create_study(study_name="old", direction="maximize")
    study.add_trials(drawn(24, SPACE, rising).trials)
    seen = study_record.of(study, StudyFiles(Path("outputs/old")))
    assert (seen.metrics, seen.directions, seen.command) == (("value",), ("maximize",), ())
    assert [(sign.sign, sign.command) for sign in signs_of(seen)] == [("lr_at_edge", None)]


def test_a_rule_that_breaks_down_costs_its_sign_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a bug, which is logged; the others are still told."""

    def broken(seen: StudyRecord) -> None:
        raise ZeroDivisionError

    rules = (replace(study_sign.RULES[0], read=broken), *study_sign.RULES[1:])
    monkeypatch.setattr(study_sign, "RULES", rules)
    assert names(drawn(24, SPACE, rising)) == ["lr_at_edge"]
    assert "the sign failures could not be read" in caplog.text


# ------------------------------------------------------------------------------------------ names, commands


def test_the_next_study_has_the_next_free_name(tmp_path: Path) -> None:
    """s, s-2, s-3; and after s-2 comes s-3, but a name that ends in a number keeps it."""
    files = StudyFiles(tmp_path / "s")
    files.mark("s", "memory")
    seen = replace(record_of([], folder=files.folder), files=files)
    assert seen.anew() == "python -m sweeper -m study=s-2"
    StudyFiles(tmp_path / "s-2").mark("s-2", "memory")
    assert seen.anew() == "python -m sweeper -m study=s-3"
    second = replace(record_of([], folder=tmp_path / "s-2"), name="s-2")
    assert second.anew() == "python -m sweeper -m study=s-3"
    by_time = replace(record_of([], folder=tmp_path / "2026-11-28"), name="2026-11-28")
    assert by_time.anew() == "python -m sweeper -m study=2026-11-28-2"


@pytest.mark.parametrize("by", ["time", "nobody"])
def test_another_study_gets_a_folder_of_its_own(tmp_path: Path, by: str) -> None:
    """Where the app's folder does not bear the name of the study, as with runs/${now:%Y}, it is told."""
    files = StudyFiles(tmp_path / "2026")
    files.mark("s", "memory")
    attributes = {**BEGUN, "folder": str(files.folder), "folder_by": by}
    seen = replace(record_of([]), files=files, attributes=attributes)
    assert seen.anew() == f"python -m sweeper -m study=s-2 hydra.sweep.dir={tmp_path / '2026-2'}"


def test_several_values_without_names_are_told_apart(tmp_path: Path) -> None:
    """They are numbered, as the app returns them."""
    files = StudyFiles(tmp_path)
    study = optuna.create_study(directions=["minimize", "maximize"])
    assert study_record.of(study, files).metrics == ("value_0", "value_1")
    assert study_record.of(optuna.create_study(), files).metrics == ("value",)


def test_a_storage_with_a_password_is_left_out() -> None:
    """Its folder remembers it; another study begins in the journal. Another secret leaves no command."""
    seen = record_of([], "hydra.sweeper.storage=URL", "x=1")
    assert seen.again() == "python -m sweeper -m x=1 study=s"
    assert seen.anew() == "python -m sweeper -m x=1 study=s-2"
    kept = record_of([], "hydra.sweeper.storage=sqlite:///s.db")
    assert kept.anew() == "python -m sweeper -m hydra.sweeper.storage=sqlite:///s.db study=s-2"
    assert record_of([], "db.url=URL").again() is None


def test_another_pruner_takes_no_arguments_of_the_first() -> None:
    """Hydra would refuse the percentile of a pruner that has none."""
    words = ("hydra/sweeper/pruner=percentile", "hydra.sweeper.pruner.percentile=10", "x=1")
    changes = ("hydra/sweeper/pruner=hyperband", "hydra.sweeper.pruner.min_resource=2")
    changed = record_of([], *words).anew(*changes)
    assert changed == f"python -m sweeper -m x=1 study=s-2 {' '.join(changes)}"


def test_a_rising_curve_is_not_noise(tmp_path: Path) -> None:
    """What a score gains with each epoch says nothing of how it wavers."""
    steady = [0.5 + 0.02 * step for step in range(20)]
    slow = ended({}, {}, [0.9], curve=steady, seconds=100)
    others = [ended({}, {}, [value], curve=steady, seconds=10) for value in (0.86, 0.85, 0.84)]
    assert "cheap_rival" not in names(record_of([slow, *others], metrics=("f1",)))


def test_a_key_that_was_added_is_added_again() -> None:
    """What the config lacks keeps its plus, as Hydra refuses it without."""
    seen = record_of([], "+x=interval(0,1)", "++y=2")
    assert seen.anew("x=interval(1,2)", "y=3") == "python -m sweeper -m study=s-2 '+x=interval(1,2)' ++y=3"


def run_command(folder: Path, sign: Sign, *more: str) -> str:
    """Run a sign's command in a shell, as a person who copies it, with this Python."""
    words = [sys.executable if word == "python" else word for word in shlex.split(sign.command or "false")]
    done = subprocess.run(
        [*words, *more], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_another_app_run_as_they_stand(tmp_path: Path) -> None:
    """A range is searched around its end in another folder, few trials become more, one is run alone."""
    app = App(tmp_path, "return round(cfg.x, 1)")
    app.configure("x: interval(0, 2)", "x: interval(2, 4)\n      c: choice(a, b)\n    seed: 1")
    app.configure("x: 0.0", "x: 0.0\nc: a")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=9").returncode == 0
    seen = read(StudyFiles(app.out))
    assert (seen.name, seen.n_trials, seen.metrics) == ("s", 9, ("value",))
    few = one(seen, "too_few_trials")
    assert few.command == (
        "python app.py -m hydra.sweeper.n_jobs=1 hydra.sweeper.in_process=true hydra.sweeper.study_name=s "
        "hydra.sweeper.n_trials=20"
    )
    assert "Study s: 20 done" in run_command(tmp_path, few)
    seen = read(StudyFiles(app.out))
    edge = one(seen, "x_at_edge")
    assert "interval(1, 3)" in (edge.command or "")
    run_command(tmp_path, edge)
    assert StudyFiles(tmp_path / "out-2").read_name() == "s-2"
    alone = replace(edge, command=seen.alone(seen.trials[0]))
    run_command(tmp_path, alone)


@pytest.mark.slow
def test_our_own_commands_run_as_they_stand(tmp_path: Path) -> None:
    """A conditional range with its option, more trials, a later pruner, one trial alone, and the data."""
    begin = ("-m", "freezing=none", "optimizer=adam,sgd", "study=a", "training.epochs=2")
    sweeper(tmp_path, *begin, "hydra.sweeper.n_trials=2")
    seen = read(StudyFiles(tmp_path / "outputs" / "a"))
    files = StudyFiles(Path("outputs/a"))
    seen = replace(
        seen, files=files, attributes={**seen.attributes, "folder": str(tmp_path / "outputs" / "a")}
    )
    sign = Sign("x", "", "", None)
    ranged = "optimizer.lr=tag(log, interval(3e-3, 0.3))"
    later = ("hydra/sweeper/pruner=hyperband", "hydra.sweeper.pruner.min_resource=2")
    commands = [
        seen.anew("optimizer=sgd", ranged, *later),
        seen.again("hydra.sweeper.n_trials=3"),
        seen.alone(seen.trials[0]),
        seen.described(),
    ]
    for command in commands:
        run_command(tmp_path, replace(sign, command=command))
    assert len(read(StudyFiles(tmp_path / "outputs" / "a")).trials) == 3
    found = read(StudyFiles(tmp_path / "outputs" / "a-2")).trials
    assert all(trial.params["optimizer.lr"] >= 3e-3 and "optimizer" not in trial.params for trial in found)
    assert StudyFiles(tmp_path / "outputs" / "a").run(0).is_ours
