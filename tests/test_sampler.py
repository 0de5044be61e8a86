"""Samplers and pruners: what the config names is built, and seed and number decide what it draws."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, PatientPruner
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from hydra_plugins.sweeper_optuna.plugin import _PRUNERS, _SAMPLERS
from sweeper.errors import BadInput
from sweeper.search.parameter import suggest
from sweeper.search.sampler import Hyperband, at, build_pruner, build_sampler, find, is_grid, resolve, try_out
from sweeper.search.space import Space

MakeSpace = Callable[..., Space]


@pytest.mark.parametrize("target", ["RandomSampler", "QMCSampler"])
def test_custom_parameters_can_be_drawn(plain: Space, target: str) -> None:
    """A parameter that only custom_search_space suggests is drawn too, the same by each worker."""
    values = []
    for _ in range(2):
        study = optuna.create_study(
            sampler=build_sampler({"_target_": f"optuna.samplers.{target}"}, 0, plain, number=3)
        )
        values.append(study.ask().suggest_float("of_their_own", 0, 1))
    assert values[0] == values[1]


def test_quasi_random_needs_no_parameters(make_space: MakeSpace) -> None:
    """A study that searches nothing (yet) has a quasi-random sampler as well."""
    space = make_space({"config": {"x": 1}})
    build_sampler({"_target_": "optuna.samplers.QMCSampler"}, 0, space, number=5)


def test_an_unknown_sequence_is_bad_input(plain: Space) -> None:
    """A qmc_type that does not exist is named, with those that do."""
    settings = {"_target_": "optuna.samplers.QMCSampler", "qmc_type": "sobel"}
    with pytest.raises(BadInput, match=r"^hydra\.sweeper\.sampler\.qmc_type=sobel: .* sobol or halton"):
        build_sampler(settings, 0, plain, number=0)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(["a", None, 3]), ["a", None, 3]),
        (IntDistribution(3, 3), [3]),
        (IntDistribution(-2, 4), list(range(-2, 5))),
        (IntDistribution(0, 10, step=5), [0, 5, 10]),
        (IntDistribution(1, 9, log=True), list(range(1, 10))),
        (FloatDistribution(0.0, 1.0, step=0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (FloatDistribution(2.0, 2.0), [2.0]),
    ],
    ids=str,
)
def test_at_hits_every_value(distribution: BaseDistribution, values: list[Any]) -> None:
    """The fractions from 0 to 1 give every value of a distribution, in order, and nothing else."""
    found = [at(distribution, i / 1000) for i in range(1000)] + [at(distribution, 1 - 2**-53)]
    assert list(dict.fromkeys(found)) == values
    assert {type(value) for value in found} == {type(value) for value in values}


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-1.0, 3.0),
        FloatDistribution(1e-5, 1e-1, log=True),
        FloatDistribution(0.1, 0.7, step=0.1),
    ],
    ids=str,
)
def test_at_stays_within_the_ends(distribution: FloatDistribution) -> None:
    """The lower end is at fraction 0, no value is past the upper end, and fractions do not fall back."""
    found = [at(distribution, i / 1000) for i in range(1000)] + [at(distribution, 1 - 2**-53)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(distribution.low, rel=1e-12)
    assert found[-1] == pytest.approx(distribution.high, rel=1e-12)
    assert all(distribution.low <= value <= distribution.high for value in found)


SAMPLER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 3},
    "random": {"seed": 3},
    "qmc": {"qmc_type": "halton"},
    "gp": {"n_startup_trials": 3},
    "cmaes": {"popsize": 5},
    "grid": {"seed": 3},
    "nsgaii": {"population_size": 7},
    "nsgaiii": {"reference_points": [[0.5, 0.5], [1.0, 0.0]]},
}

OPTUNA = "optuna.samplers."

OFFICIAL_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    (
        "tpe",
        {
            "seed": None,
            "consider_prior": True,
            "prior_weight": 1.0,
            "consider_magic_clip": True,
            "consider_endpoints": False,
            "n_startup_trials": 10,
            "n_ei_candidates": 24,
            "group": False,
            "multivariate": False,
            "warn_independent_sampling": True,
            "constraints_func": None,
        },
    ),
    ("random", {"seed": None}),
    (
        "cmaes",
        {
            "seed": None,
            "x0": None,
            "sigma0": None,
            "independent_sampler": None,
            "inc_popsize": 2,
            "warn_independent_sampling": True,
            "consider_pruned_trials": False,
            "restart_strategy": None,
            "use_separable_cma": False,
            "source_trials": None,
            "n_startup_trials": 1,
            "popsize": None,
        },
    ),
    ("cmaes", {"x0": {"x": 0.5}, "sigma0": 0.1, "independent_sampler": {"_target_": OPTUNA + "TPESampler"}}),
    (
        "nsgaii",
        {
            "seed": None,
            "population_size": 50,
            "mutation_prob": None,
            "crossover_prob": 0.9,
            "swapping_prob": 0.5,
            "constraints_func": None,
            "mutation": None,
            "crossover": None,
        },
    ),
    ("nsgaii", {"crossover": {"_target_": OPTUNA + "nsgaii.SBXCrossover", "eta": 2.0}}),
    ("nsgaiii", {"dividing_parameter": 3, "reference_points": None}),
    ("gp", {"independent_sampler": None, "deterministic_objective": True, "warn_independent_sampling": True}),
    ("qmc", {"independent_sampler": None, "warn_asynchronous_seeding": True, "scramble": True}),
    ("grid", {"_partial_": True, "search_space": None}),
]

PRUNER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "hyperband": {"max_resource": 9, "reduction_factor": 2},
    "asha": {"min_resource": 2},
    "median": {"n_startup_trials": 2},
    "percentile": {"percentile": 10.0},
    "patient": {"patience": 2},
    "threshold": {"upper": 1.0},
    "none": {},
}


def given(node: Any) -> dict[str, Any]:
    """What a config node says, without what is left to Optuna."""
    return {key: value for key, value in dict(node).items() if value != "???"}


@pytest.mark.parametrize("name", SAMPLER_ARGUMENTS)
def test_a_sampler_draws_by_default_and_with_an_argument(countable: Space, name: str) -> None:
    """Every sampler option builds as it is and with an argument, and draws a point of a small study."""
    for arguments in [{}, SAMPLER_ARGUMENTS[name]]:
        sampler = build_sampler({**given(_SAMPLERS[name]), **arguments}, 0, countable, number=0)
        drawn = countable.draw(suggest(optuna.create_study(sampler=sampler).ask()))
        assert drawn.params in list(countable.points())


@pytest.mark.parametrize(("name", "arguments"), OFFICIAL_ARGUMENTS)
def test_arguments_of_the_official_sampler_files_are_taken(
    plain: Space, name: str, arguments: dict[str, Any]
) -> None:
    """Each argument that the official sweeper documents is a key of the option, and its default works."""
    assert set(arguments) <= set(_SAMPLERS[name])
    build_sampler({**given(_SAMPLERS[name]), **arguments}, 0, plain, number=0)


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("motpe", {}, r"^hydra/sweeper/sampler=motpe: .*write tpe"),
        ("tpe", {"consider_prior": False}, r"^hydra\.sweeper\.sampler\.consider_prior=False: .*leave it out"),
        ("cmaes", {"restart_strategy": "ipop"}, r"sampler\.restart_strategy=ipop: .*leave it out"),
        (
            "grid",
            {"search_space": {"x": [1]}},
            r"sampler\.search_space=.*: the points are those of the swept",
        ),
        (
            "qmc",
            {"independent_sampler": {"_target_": "x"}},
            r"sampler\.independent_sampler=.*: every parameter",
        ),
        (
            "tpe",
            {"constraints_func": {"_target_": "app.limits"}},
            r"constraints_func\._target_=app\.limits: only",
        ),
        (
            "tpe",
            {"constraints_func": {"_target_": "hydra.utils.get_method", "path": "os.system"}},
            r"constraints_func\.path=os\.system: only .*SWEEPER_ALLOW=os\.",
        ),
    ],
)
def test_what_optuna_has_no_more_is_refused(
    plain: Space, name: str, arguments: dict[str, Any], line: str
) -> None:
    """An argument that would be ignored, or code that the config names without leave, is told in one line."""
    with pytest.raises(BadInput, match=line):
        build_sampler({**given(_SAMPLERS[name]), **arguments}, 0, plain, number=0)


def test_options_of_the_installed_official_sweeper_are_taken(plain: Space) -> None:
    """Where both sweepers are installed, options with the same name are the official one's."""
    official = "hydra_plugins.hydra_optuna_sweeper"
    for name, cls in [("nsgaii", "NSGAIISampler"), ("nsgaiii", "NSGAIIISampler")]:
        settings = {"_target_": f"{official}._impl.create_{name}_sampler", "seed": None, "mutation": None}
        assert type(build_sampler(settings, 0, plain, number=0)).__name__ == cls
    build_sampler({"_target_": OPTUNA + "TPESampler", "consider_prior": None}, 0, plain, number=0)
    with pytest.raises(BadInput, match=r"^hydra/sweeper/sampler=motpe"):
        build_sampler({"_target_": f"{official}.config.raise_motpe_removed"}, 0, plain, number=0)


def test_nodes_within_a_sampler_are_made(plain: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``instantiate`` does: an object, a function that a path names, and a partial one."""
    monkeypatch.setenv("SWEEPER_ALLOW", "math")
    limits = {"_target_": "hydra.utils.get_method", "path": "math.floor"}
    sampler = build_sampler({"_target_": OPTUNA + "TPESampler", "constraints_func": limits}, 0, plain, 0)
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert sampler._constraints_func is math.floor  # type: ignore[comparison-overlap]
    limits = {"_target_": "math.pow", "_partial_": True}  # type: ignore[dict-item]
    sampler = build_sampler({"_target_": OPTUNA + "TPESampler", "constraints_func": limits}, 0, plain, 0)
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert isinstance(sampler._constraints_func, partial)


def test_a_sampler_within_another_draws_by_the_number(plain: Space) -> None:
    """Each trial has samplers of its own, and their seeds differ: else all would draw the same."""
    inner = {"_target_": OPTUNA + "RandomSampler", "seed": 3}
    fixed = {"_target_": OPTUNA + "PartialFixedSampler", "fixed_params": {"c": "b"}, "base_sampler": inner}
    drawn = []
    for number in (0, 1, 0):
        study = optuna.create_study(sampler=build_sampler(fixed, 0, plain, number))
        drawn.append(plain.draw(suggest(study.ask())).params)
    assert drawn[0] == drawn[2] != drawn[1]
    assert {params["c"] for params in drawn} == {"b"}


def test_brute_force_is_a_grid(countable: Space) -> None:
    """Both samplers of Optuna that go through every point are the walk over the grid."""
    assert is_grid({"_target_": OPTUNA + "BruteForceSampler"})
    build_sampler({"_target_": OPTUNA + "BruteForceSampler", "avoid_premature_stop": True}, 0, countable, 0)


@pytest.mark.parametrize("path", ["os.path.join", "pathlib.Path.cwd", "collections.abc.Mapping.get"])
def test_a_path_may_lead_into_a_class(path: str) -> None:
    """Of a function in a module, or a method of one of its classes."""
    assert callable(find("key", path))


@pytest.mark.parametrize("path", ["nowhere.f", "os.nothing", "f", "", ".f", "os.path.join.nothing"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    """The line names key and path."""
    with pytest.raises(BadInput, match=f"^key={re.escape(path)}: cannot be found"):
        find("key", path)


def test_an_argument_that_is_not_set_keeps_optunas_default(plain: Space) -> None:
    """A sampler is made with what was set and nothing else."""
    sampler = build_sampler({**given(_SAMPLERS["tpe"]), "n_startup_trials": 3}, None, plain, 0)
    own = optuna.samplers.TPESampler(n_startup_trials=3)
    keys = ["_n_startup_trials", "_n_ei_candidates", "_multivariate", "_group", "_constant_liar"]
    assert [getattr(sampler, key) for key in keys] == [getattr(own, key) for key in keys]


@pytest.mark.parametrize("name", PRUNER_ARGUMENTS)
def test_a_pruner_decides_by_default_and_with_an_argument(name: str) -> None:
    """Every pruner option builds with an argument, and as it is if Optuna asks for none; and it decides."""
    settings = {"max_resource": "auto", "pruner": dict(_PRUNERS[name])}
    defaults = OmegaConf.to_container(OmegaConf.create({"hydra": {"sweeper": settings}}), resolve=True)
    defaults = defaults["hydra"]["sweeper"]["pruner"]  # type: ignore[call-overload, index]
    assert isinstance(defaults, dict)
    for arguments in [PRUNER_ARGUMENTS[name]] + [{}] * (name != "threshold"):
        pruner = build_pruner({**given(defaults), **arguments})
        assert isinstance(pruner, BasePruner)
        trial = optuna.create_study(pruner=pruner).ask()
        trial.report(0.5, 1)
        assert trial.should_prune() is False


def test_a_pruner_may_be_patient_with_another() -> None:
    """``wrapped_pruner`` is a pruner's node of its own."""
    inner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}
    pruner = build_pruner(
        {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": inner}
    )
    assert isinstance(pruner, optuna.pruners.PatientPruner)
    assert isinstance(pruner._wrapped_pruner, optuna.pruners.MedianPruner)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"_target_": "optuna.pruners.ThresholdPruner"},
            r"^hydra\.sweeper\.pruner=.*lower or upper.*takes lower",
        ),
        (
            {"_target_": "optuna.pruners.MedianPruner", "patience": 3},
            "unexpected keyword argument 'patience'",
        ),
        ({"_target_": "optuna.pruners.PercentilePruner", "percentile": 300.0}, "between 0 and 100"),
        ({"_target_": "optuna.pruners.MeanPruner"}, r"^hydra\.sweeper\.pruner\._target_=.*cannot be found"),
        ({"_target_": "optuna.samplers.RandomSampler"}, "is not a BasePruner"),
        ({"_target_": "optuna.create_study"}, "is not a BasePruner"),
    ],
    ids=str,
)
def test_a_wrong_pruner_is_bad_input(settings: dict[str, Any], message: str) -> None:
    """A pruner that does not exist, or does not take its arguments, is one line that says which and why."""
    with pytest.raises(BadInput, match=message):
        build_pruner(settings)


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "subprocess.Popen", "optunax.X", "eval", ".eval", ""]
)
def test_only_allowed_names_are_called(target: str) -> None:
    """A ``_target_`` outside of Optuna and this project is refused, with the way to trust it."""
    with pytest.raises(
        BadInput, match=r"^key=.*only names under optuna\., sweeper\. are allowed; set SWEEPER_ALLOW="
    ):
        resolve("key", target)


@pytest.mark.parametrize("target", ["optuna.logging.os.system", "optuna.nothing.X", "optuna.", "sweeper.x y"])
def test_a_name_is_no_way_around(target: str) -> None:
    """A path through the imports of an allowed module, or to nothing, is refused."""
    with pytest.raises(BadInput, match=r"^key=.*cannot be found"):
        resolve("key", target)


def test_the_person_may_allow_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes in the environment variable SWEEPER_ALLOW are allowed too."""
    monkeypatch.setenv("SWEEPER_ALLOW", "fractions.,")
    assert resolve("key", "fractions.Fraction").__name__ == "Fraction"
    with pytest.raises(BadInput, match="only names under"):
        resolve("key", "os.system")


# --- the same seed gives the same search --------------------------------------------------------------------


def searched(space: Space, name: str, sampler: str, n_trials: int, n_objectives: int = 1) -> list[Any]:
    """What the trials of a study draw, and whether they were pruned, with the default pruner."""
    pruner = build_pruner({"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 9})
    study = optuna.create_study(
        study_name=name, directions=["minimize"] * n_objectives, pruner=pruner, storage=InMemoryStorage()
    )
    for number in range(n_trials):
        study.sampler = build_sampler(given(_SAMPLERS[sampler]), 0, space, number)
        trial = study.ask()
        values = space.draw(suggest(trial)).params
        loss = float(values["x"]) + "abd".index(values["c"])
        if n_objectives > 1:
            study.tell(trial, [loss, -loss])
            continue
        for step in range(1, 10):
            trial.report(loss / step, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, loss)
    return [(t.state.name, t.params) for t in study.trials]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "nsgaii", "gp"])
def test_the_same_seed_gives_the_same_search(plain: Space, name: str) -> None:
    """With one worker, sampler and default pruner decide the same whatever the study is called."""
    first, second = (searched(plain, study, name, 16) for study in ("2026-11-25_17-00-00", "other"))
    assert first == second
    assert {state for state, _ in first} == {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize(("name", "n_trials"), [("tpe", 20), ("nsgaii", 55)])
def test_the_same_seed_gives_the_same_search_for_several_objectives(
    plain: Space, name: str, n_trials: int
) -> None:
    """So do the samplers that know several objectives."""
    first, second = (searched(plain, study, name, n_trials, n_objectives=2) for study in ("one", "other"))
    assert first == second


def test_brackets_follow_the_number() -> None:
    """Hyperband draws a trial's bracket from its number; a retry is in that of its first try."""
    brackets = []
    for name in ("one", "other"):
        pruner = build_pruner({"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 9})
        assert isinstance(pruner, HyperbandPruner)
        study = optuna.create_study(study_name=name, pruner=pruner, storage=InMemoryStorage())
        study.ask()
        assert pruner._get_bracket_id(study, study.trials[0]) == 0
        pruner._try_initialization(study)
        for number in range(1, 30):
            study.enqueue_trial({}, user_attrs={"retry_of": number - 20} if number >= 20 else {})
            study.ask()
        brackets.append([pruner._get_bracket_id(study, trial) for trial in study.trials])
    assert brackets[0] == brackets[1]
    assert brackets[0][20:] == brackets[0][:10]
    assert set(brackets[0]) == {0, 1, 2}


def test_a_wrapped_hyperband_follows_the_number_too() -> None:
    """Where another pruner holds Hyperband, its brackets are the same."""
    hyperband = {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 9}
    pruner = build_pruner(
        {"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": hyperband, "patience": 1}
    )
    assert isinstance(pruner, PatientPruner)
    assert type(pruner._wrapped_pruner) is Hyperband


# --- what is tried before a search begins -------------------------------------------------------------------

QUIET = {"_target_": "optuna.pruners.NopPruner"}
RANDOM = {"_target_": OPTUNA + "RandomSampler"}


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("tpe", {"n_ei_candidates": 0}, r"sampler\.n_ei_candidates=0: must be at least 1"),
        ("tpe", {"n_startup_trials": -1}, r"sampler\.n_startup_trials=-1: must be at least 0"),
        ("tpe", {"n_startup_trials": math.nan}, r"sampler\.n_startup_trials=nan: must be a whole number"),
        ("tpe", {"n_startup_trials": None}, r"sampler\.n_startup_trials=null: must have a value"),
        ("tpe", {"n_startup": 3}, r"sampler\.n_startup=3: .*did you mean n_startup_trials\?"),
        ("qmc", {"scramble": 3}, r"sampler\.scramble=3: is neither true nor false"),
        ("cmaes", {"x0": {"y": 0.5}}, r"sampler\.x0=.*: AssertionError"),
        ("cmaes", {"inc_popsize": "big"}, r"sampler\.inc_popsize=big: "),
        ("cmaes", {"independent_sampler": {"a": 1}}, r"sampler\.independent_sampler=.*: AttributeError"),
        ("nsgaii", {"crossover_prob": 2}, r"sampler\.crossover_prob=2: must be between 0 and 1"),
        ("nsgaiii", {"reference_points": [["a"]]}, r"sampler\.reference_points=.*: ValueError"),
        ("random", {"seed": 2**40}, r"sampler\.seed=1099511627776: must be at most 4,294,967,295"),
    ],
)
def test_a_sampler_that_would_fail_in_the_search_fails_before(
    plain: Space, name: str, arguments: dict[str, Any], line: str
) -> None:
    """A toy study draws with it, past its first trials; the line names the argument to blame."""
    with pytest.raises(BadInput, match=rf"^hydra\.sweeper\.{line}"):
        try_out({**given(_SAMPLERS[name]), **arguments}, QUIET, 0, ["minimize"], plain)


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("hyperband", {"max_resource": 0}, r"pruner\.max_resource=0: must be at least 1"),
        ("hyperband", {"reduction_factor": math.nan}, r"pruner\.reduction_factor=nan: .*write 2 or more"),
        ("hyperband", {"bootstrap_count": -1}, r"pruner\.bootstrap_count=-1: must be at least 0"),
        ("hyperband", {"min_resource": 0}, r"pruner\.min_resource=0: must be at least 1"),
        ("hyperband", {"min_resource": math.nan}, r"pruner\.min_resource=nan: must be a whole number"),
        ("hyperband", {"min_resource": "auto"}, r"pruner\.min_resource=auto: "),
        ("asha", {"min_resource": "auto", "bootstrap_count": 3}, r"pruner.*: ValueError: bootstrap_count"),
        ("median", {"interval_steps": 0}, r"pruner\.interval_steps=0: must be at least 1"),
        ("patient", {"wrapped_pruner": "median"}, r"pruner\.wrapped_pruner=median: AttributeError"),
    ],
)
def test_a_pruner_that_would_fail_in_the_search_fails_before(
    plain: Space, name: str, arguments: dict[str, Any], line: str
) -> None:
    """A toy study reports to it, in each bracket; the line names the argument to blame."""
    node = {**given(_PRUNERS[name]), **arguments}
    with pytest.raises(BadInput, match=rf"^hydra\.sweeper\.{line}"):
        try_out(RANDOM, node, 0, ["minimize"], plain)


@pytest.mark.parametrize("name", SAMPLER_ARGUMENTS)
def test_a_good_sampler_passes_its_trial(plain: Space, countable: Space, name: str) -> None:
    """With the arguments that people set, for one objective and for two."""
    own = {"grid": {}, "nsgaiii": {"dividing_parameter": 3}}.get(name, SAMPLER_ARGUMENTS[name])
    node = {**given(_SAMPLERS[name]), **own}
    for directions in (["minimize"], ["minimize", "maximize"]):
        if name != "cmaes" or len(directions) == 1:
            try_out(node, QUIET, None, directions, countable if name == "grid" else plain)


def test_a_function_of_the_persons_is_called_before_the_search(
    plain: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises is told in one line, with the argument that names it."""
    monkeypatch.setenv("SWEEPER_ALLOW", "math")
    limits = {"_target_": "hydra.utils.get_method", "path": "math.floor"}
    node = {"_target_": OPTUNA + "TPESampler", "constraints_func": limits}
    with pytest.raises(BadInput, match=r"^hydra\.sweeper\.sampler\.constraints_func=.*: TypeError"):
        try_out(node, QUIET, 0, ["minimize"], plain)


def test_what_nobody_set_is_not_tried(plain: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default start is as quick as it was: no toy study is made."""
    monkeypatch.setattr(optuna, "create_study", lambda **_: pytest.fail("a study was made"))
    hyperband = {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 20}
    try_out(given(_SAMPLERS["tpe"]), hyperband, 0, ["minimize"], plain)


def test_a_trial_of_a_sampler_is_quick(plain: Space) -> None:
    """Also where it asks for as much as it may."""
    nodes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"_target_": OPTUNA + "TPESampler", "n_startup_trials": 10**9}, QUIET),
        ({"_target_": OPTUNA + "NSGAIISampler", "population_size": 100_000}, QUIET),
        (RANDOM, {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 10**12, "min_resource": 1}),
    ]
    for sampler, pruner in nodes:
        begun = time.monotonic()
        try_out(sampler, pruner, 0, ["minimize"], plain)
        assert time.monotonic() - begun < 2  # 0.1 s where nothing else runs
