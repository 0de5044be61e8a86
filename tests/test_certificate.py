"""What a certificate says, of trainings that are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sweeper.fault import Fault
from sweeper.record.study_files import StudyFiles
from sweeper.results import certificate
from sweeper.results.certificate import Certificate, lines
from sweeper.results.plan import Candidate, Plan
from tests.studied import record_of, trial

DIVERGED = (float("inf"),)
NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def plan_of(values: Sequence[float], baseline: bool = True, n_seeds: int = 5) -> Plan:
    """Trials 3, 7, 11 … that reached these values in the search, each a second quicker than the last."""
    searched = [Candidate(3 + 4 * i, {}, (value,), 10.0 - i) for i, value in enumerate(values)]
    defaults = [Candidate(None, None, None, 5.0)] if baseline else []
    return Plan("mine", "/mine", (*searched, *defaults), n_seeds, None, 1)


def of(
    plan: Plan,
    scores: Mapping[str, Sequence[Sequence[float]]],
    directions: Sequence[str] = ("maximize",),
    metrics: Sequence[str] = ("val_accuracy",),
    folder: Path = Path("mine-certificate"),
) -> Certificate:
    """The certificate with these scores, by candidate; they were trained in turns."""
    n = max(map(len, scores.values()))
    seconds = {one.name: one.seconds or 1.0 for one in plan.candidates}
    trainings = [
        trial(
            None if all_scores[i] == DIVERGED else list(all_scores[i]),
            TrialState.PRUNED if all_scores[i] == DIVERGED else TrialState.COMPLETE,
            begin_s=100.0 * i,
            seconds=seconds[name],
            candidate=name,
            repeat=i,
        )
        for i in range(n)
        for name, all_scores in scores.items()
        if i < len(all_scores)
    ]
    seen = record_of(folder, *trainings, directions=directions, metrics=metrics)
    return certificate.of(seen, plan)


def around(mean: float, n: int = 5) -> list[tuple[float]]:
    return [(mean + NOISE[i],) for i in range(n)]


def test_the_words_of_a_whole_certificate() -> None:
    """What is expected, against the defaults, who is not worse, the cheapest, luck, what is missing."""
    plan = plan_of((0.983, 0.982, 0.981))
    made = of(
        plan,
        {
            "trial 3": around(0.974),
            "trial 7": around(0.973),
            "trial 11": around(0.9735),
            "defaults": around(0.82, 3),
        },
    )
    assert made.best == "trial 3"
    assert made.not_worse == ("trial 3", "trial 7", "trial 11")
    assert made.choice == "trial 11"
    expected = made["trial 3"].expected[0]
    assert expected.value == pytest.approx(0.974)
    assert expected.luck == pytest.approx(0.009)
    told = lines(made)
    assert told[0].startswith("Trial 3 is expected to reach val_accuracy 0.974 ± 0.00")
    assert told[0].endswith(" (± is half of a 95 % interval).")
    assert told[1].startswith("It is better than the defaults by 0.154 ± 0.0")
    others = "It is not told apart from trials 7 and 11"
    assert told[2] == f"{others}, of which 11 is the cheapest of those about as good."
    assert told[3] == "0.009 of the search's 0.983 was luck."
    assert told[4].startswith("It would take ")
    assert told[4].endswith(" more trainings to tell 3 from 11.")


def test_who_is_out_is_told_apart_from_the_best_whoever_beat_it() -> None:
    """The defaults lost against one that another has overtaken since: they are no less worse for that."""
    scores = {
        "trial 3": [(0.98333,), (0.99167,), (0.98611,)],
        "trial 7": [(0.99444,), (0.98611,), (0.98889,), (0.99722,)],
        "trial 11": [(0.98889,), (0.99167,), (0.98889,)],
        "trial 15": [(0.98611,), (0.98889,), (0.98889,)],
        "trial 19": [(0.98611,), (0.98889,), (0.98889,)],
        "defaults": [(0.84444,), (0.85278,)],
    }
    made = of(plan_of((0.992, 0.994, 0.989, 0.989, 0.986)), scores)
    assert made["defaults"].out is not None
    assert made["defaults"].out.than == "trial 11"
    assert made.best == "trial 7"
    assert any(line.startswith("It is better than the defaults by 0.14") for line in lines(made))


def test_an_early_end_is_told() -> None:
    """The trainings that are left would hardly have told anybody apart."""
    made = of(plan_of((0.983,)), {"trial 3": around(0.974, 4), "defaults": around(0.9741, 4)})
    assert made.finished
    told = "It ended after 8 of 10 trainings: more of them would hardly tell the defaults from 3."
    assert lines(made)[-1] == told
    assert made.choice == "defaults"


def test_erratic_defaults_that_are_out_are_worse_in_every_sentence() -> None:
    """What is said to be better has an interval that says so, too."""
    plan = plan_of((0.983, 0.982))
    erratic = [(0.27,), (0.62,), (0.16,)]
    made = of(plan, {"trial 3": around(0.975), "trial 7": around(0.974), "defaults": erratic})
    assert made["defaults"].verdict == "worse"
    gap = made.compare("trial 3", "defaults")
    assert gap is not None
    assert gap.low is not None
    assert gap.low > 0
    assert lines(made)[1] == f"It is better than the defaults by {gap.told()}."


def test_luck_is_told_of_the_search_s_best_also_where_another_one_is_better() -> None:
    """Who won by luck is named."""
    made = of(plan_of((0.983, 0.982), baseline=False), {"trial 3": around(0.9), "trial 7": around(0.974)})
    assert made.best == "trial 7"
    assert "0.083 of trial 3's 0.983 in the search was luck." in lines(made)
    assert "The other trial is worse." in lines(made)


def test_defaults_that_fell_behind_another_are_worse() -> None:
    """Defaults that are out are never said to be not told apart, whoever leads in the end."""
    made = of(
        plan_of((0.975, 0.972)),
        {
            "trial 3": [(0.9778,), (0.9778,), (0.9694,), (0.9722,)],
            "trial 7": [(0.9722,), (0.9806,), (0.9722,)],
            "defaults": [(0.5056,), (0.5361,)],
        },
    )
    assert made.best == "trial 7"
    assert made["defaults"].out is not None
    told = lines(made)
    assert any(line.startswith("It is better than the defaults by 0.45") for line in told)
    assert not any("not told apart from the defaults" in line for line in told)


def test_the_defaults_may_be_the_best() -> None:
    """Then it is said that no trial of the search is better."""
    made = of(plan_of((0.983,)), {"trial 3": around(0.9), "defaults": around(0.95)})
    assert made.best == made.choice == "defaults"
    told = lines(made)
    assert told[0].startswith("The defaults are expected to reach val_accuracy 0.950 ±")
    assert told[1] == "The trial of the search is worse."


def test_the_lower_value_is_better_where_it_is_minimized() -> None:
    """A loss: luck is what it was too low."""
    made = of(
        plan_of((0.1, 0.2)),
        {"trial 3": around(0.15), "trial 7": around(0.3), "defaults": around(0.5)},
        directions=("minimize",),
        metrics=("val_loss",),
    )
    assert made.best == "trial 3"
    assert made["trial 3"].expected[0].luck == pytest.approx(0.05)
    assert any(line.startswith("It is better than the defaults by 0.350 ±") for line in lines(made))


def test_of_those_as_quick_the_best_is_the_cheapest() -> None:
    """A few hundredths of a second, or a worker's first training, decide nothing."""
    plan = Plan(
        "mine",
        "/mine",
        (Candidate(3, {}, (0.98,), 10.0), Candidate(7, {}, (0.97,), 9.9)),
        5,
        None,
        1,
    )
    made = of(plan, {"trial 3": around(0.974), "trial 7": around(0.973)})
    assert made.not_worse == ("trial 3", "trial 7")
    assert made.choice == "trial 3"
    told = "It is not told apart from trial 7, and is the cheapest of those about as good."
    assert told in lines(made)


def test_a_race_that_ended_early_says_what_was_left() -> None:
    """Why less was trained than planned: nothing is claimed of trainings beyond the plan."""
    same = [(0.97 + noise,) for noise in (0.004, -0.004, 0.0)]
    made = of(plan_of((0.97, 0.97), baseline=False), {"trial 3": same, "trial 7": same[::-1]})
    assert made.finished
    told = "It ended after 6 of 10 trainings: more of them would hardly tell trial 3 from 7."
    assert lines(made)[-1] == told


def test_an_unfinished_certificate_says_so() -> None:
    """With what is known so far: of one training, that nothing says how much it varies."""
    made = of(plan_of((0.983,)), {"trial 3": around(0.97, 1)})
    assert not made.finished
    assert lines(made) == [
        "Unfinished: 1 of 10 trainings ended so far.",
        "Trial 3 is expected to reach val_accuracy 0.970; how much that varies takes more trainings to say.",
    ]
    assert made["defaults"].verdict == "not trained yet"


def test_who_has_diverged_is_not_said_to_be_as_good_or_worse() -> None:
    """Of the defaults and of trials that are out for a diverged training nothing else is told."""
    scores = {"trial 3": [(0.9,)] * 5, "trial 7": [(0.9,), DIVERGED], "defaults": [(0.5,), DIVERGED]}
    told = lines(of(plan_of([0.9, 0.9]), scores))
    assert told == [
        "Trial 3 is expected to reach val_accuracy 0.900.",
        "Trial 7 is out: a training diverged.",
        "The defaults are out: a training diverged.",
        "No two trainings of one candidate differ, so there is no ±: does the app use its seed?",
    ]


def test_a_diverged_training_is_out() -> None:
    """Its candidate is no choice, whatever its other trainings scored."""
    plan = plan_of((0.983, 0.982), baseline=False, n_seeds=2)
    made = of(plan, {"trial 3": [DIVERGED, (0.99,)], "trial 7": around(0.97, 2)})
    assert made["trial 3"].verdict == "diverged"
    assert made["trial 3"].trainings[0].values is None
    assert "Trial 3 is out: a training diverged." in lines(made)
    assert made.choice == "trial 7"


def test_scores_that_never_vary_are_told() -> None:
    """An app that does not use the seed makes the interval worthless, and nothing hides that."""
    made = of(plan_of((0.983,)), {"trial 3": [(0.9,)] * 3, "defaults": [(0.8,)] * 3})
    assert not made.varies
    assert lines(made)[-1].startswith("No two trainings of one candidate differ, so there is no ±:")
    assert not any("±" in line for line in lines(made)[:-1])
    assert not any("trainings more" in line for line in lines(made))
    assert made["trial 3"].expected[0].half is None


def test_each_of_several_objectives_has_its_line() -> None:
    """There is no single best, and nobody drops out."""
    plan = Plan(
        "mine", "/mine", (Candidate(3, {}, (0.9, 0.5), 1.0), Candidate(7, {}, (0.8, 0.1), 1.0)), 5, None, 1
    )
    a = [(0.9 + noise, 0.5 + noise) for noise in NOISE]
    b = [(0.8 + noise, 0.1 + noise) for noise in NOISE]
    made = of(plan, {"trial 3": a, "trial 7": b}, ("maximize", "minimize"), ("val_accuracy", "val_loss"))
    assert made.best is None
    assert made.choice is None
    told = lines(made)
    assert told[0].startswith("val_accuracy: trial 3 is expected to reach 0.900 ±")
    assert told[1].startswith("val_loss: trial 7 is expected to reach 0.100 ±")


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All of it, also where the choice had its former name; a damaged one is told in one line."""
    files = StudyFiles(tmp_path / "mine-certificate")
    assert Certificate.read(files) is None
    made = of(plan_of((0.983,)), {"trial 3": around(0.97), "defaults": around(0.8, 2)}, folder=files.folder)
    made.write(files)
    assert Certificate.read(files) == made
    assert made.compare("defaults", "trial 3").value == pytest.approx(-0.168)  # type: ignore[union-attr]
    files.certificate.write_text(files.certificate.read_text().replace('"choice":', '"cheapest":'))
    assert Certificate.read(files) == made
    files.certificate.write_text('{"format": 1, "study": "mine"}')
    with pytest.raises(Fault, match="is no certificate: the file is damaged"):
        Certificate.read(files)
