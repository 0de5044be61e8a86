"""Samplers and pruners: what the config names becomes an object, one sampler for each trial."""

from __future__ import annotations

import binascii
import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import BadInput
from sweeper.search.parameter import Parameter, suggest
from sweeper.search.space import Space
from sweeper.search.trial import first_try, seed_of

ALLOWED_TARGETS = ("optuna.", "sweeper.")
"""What ``_target_`` may name; the person running the sweep adds prefixes in ``SWEEPER_ALLOW``."""

_SAMPLER, _PRUNER = "hydra.sweeper.sampler", "hydra.sweeper.pruner"

_GRIDS = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")

_HYDRAS_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")

_HYDRAS_GETTERS = tuple(f"hydra.utils.get_{kind}" for kind in ("method", "class", "object", "static_method"))

_GONE = {
    "optuna.samplers.MOTPESampler": "write hydra/sweeper/sampler=tpe, which searches for several objectives",
}
"""Samplers that Optuna no longer has, and what to write instead."""

_WITHOUT_EFFECT: dict[str, tuple[Any, str, str]] = {
    "consider_prior": (True, "Optuna 5 always considers the prior", "leave it out; prior_weight weighs it"),
    "restart_strategy": (None, "Optuna 5 no longer restarts CMA-ES", "leave it out, or set popsize"),
}
"""Arguments that Optuna still takes and then ignores: the value that agrees with what it does."""

_LEAST = {"n_startup_trials": 0, "n_ei_candidates": 1, "popsize": 2, "reduction_factor": 2}
"""What Optuna does not check, or only in the middle of a search."""


def build_sampler(settings: Mapping[str, Any], seed: int | None, space: Space, number: int) -> BaseSampler:
    """The sampler of one trial. Seed and number decide what it draws, whichever worker asks.

    Raises:
        BadInput: for a sampler or an argument that does not exist.
    """
    check_seed("hydra.sweeper.seed", seed)
    if is_grid(settings):
        if settings.get("search_space") is not None:
            reason = "the grid is made of the search's own parameters"
            remedy = "write its values in hydra.sweeper.params and leave it out"
            raise BadInput(f"{_SAMPLER}.search_space", settings["search_space"], reason, remedy)
        return RandomSampler(seed=number)  # takes no part: the study queues the points of the space
    sampler: BaseSampler = Builder(seed, number, space).build(_SAMPLER, settings, BaseSampler)
    return sampler


def check_sampler(settings: Mapping[str, Any], seed: int | None, space: Space, n_objectives: int) -> None:
    """Draw a few trials of a throw-away study, before anything is written or started.

    Raises:
        BadInput: for what Optuna would refuse in the middle of the search.
    """
    build_sampler(settings, seed, space, number=0)
    if is_grid(settings):
        return

    def draw(settings: Mapping[str, Any]) -> None:
        study = optuna.create_study(directions=["minimize"] * n_objectives)
        for number in range(8 if settings.keys() - {"_target_", "seed"} else 1):
            study.sampler = build_sampler(_hurried(settings), seed, space, number)
            trial = study.ask()
            space.draw(suggest(trial))
            study.tell(trial, [float(number)] * n_objectives)

    with tried(_SAMPLER, settings, draw):
        draw(settings)


def _hurried(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same sampler with so few trials before it begins that a short study gets there."""
    few = {"n_startup_trials": 1, "population_size": 4, "popsize": 4}
    hurried = {name: min(value, few[name]) for name, value in settings.items() if name in few and value}
    if (
        "population_size"
        in inspect.signature(resolve(f"{_SAMPLER}._target_", settings["_target_"])).parameters
    ):
        hurried.setdefault("population_size", few["population_size"])
    return {**settings, **hurried}


def is_grid(settings: Mapping[str, Any]) -> bool:
    """Whether the points of the space are gone through one by one, instead of sampled."""
    return settings["_target_"] in _GRIDS


def check_seed(key: str, seed: Any) -> None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise BadInput(key, seed, "is no seed", "write 0, another whole number above it, or null")


class QuasiRandomSampler(BaseSampler):
    """A Sobol or Halton sequence in which the trial's number is the index of its point.

    Optuna's own counts points in the storage as they are asked for and knows only the parameters of its
    first trial. Here every parameter that some trial may have is a dimension, so that conditional ranges
    are covered as evenly as the others, and any number of workers draw the same points.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        number: int,
        *,
        qmc_type: str = "sobol",
        scramble: bool = False,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        from scipy.stats import qmc

        engines = {"sobol": qmc.Sobol, "halton": qmc.Halton}
        if qmc_type not in engines:
            raise BadInput(
                "hydra.sweeper.sampler.qmc_type",
                qmc_type,
                "there is no such sequence",
                "write sobol or halton",
            )
        self._others = independent_sampler or RandomSampler(seed=seed_of(seed or 0, number))
        self._names = sorted(parameters)
        engine = engines[qmc_type](max(1, len(self._names)), scramble=scramble, rng=seed or 0)
        if number:
            engine.fast_forward(number)
        self._point = engine.random(1)[0]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name not in self._names:  # custom_search_space has suggested it
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        return at(param_distribution, float(self._point[self._names.index(param_name)]))


def at(distribution: BaseDistribution, fraction: float) -> Any:
    """The value at a fraction (0 ≤ fraction < 1) of a distribution."""
    import numpy as np

    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[int(fraction * len(choices))]
        case IntDistribution(low=low, high=high, step=step, log=False):
            return low + step * int(fraction * ((high - low) // step + 1))
        case IntDistribution(low=low, high=high):
            # Each integer has the width that it has under the logarithm.
            value = np.exp(np.log(low - 0.5) + fraction * (np.log(high + 0.5) - np.log(low - 0.5)))
            return int(min(max(round(float(value)), low), high))
        case FloatDistribution(low=low, high=high, log=True):
            return float(min(max(np.exp(np.log(low) + fraction * (np.log(high) - np.log(low))), low), high))
        case FloatDistribution(low=low, high=high, step=None):
            return low + fraction * (high - low)
        case FloatDistribution(low=low, high=high, step=float(step)):
            return min(low + step * int(fraction * (round((high - low) / step) + 1)), high)
    raise TypeError(distribution)


class Hyperband(HyperbandPruner):
    """Optuna's, with brackets that the seed and the number of a trial's first try decide.

    Optuna's own hashes the study's name, so that a study named by the time never repeats.
    """

    def __init__(self, sweep_seed: int | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sweep_seed = sweep_seed

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if not self._pruners:
            return 0
        number = trial.number
        if "retry_of" in trial.user_attrs:  # past the bracket's own list, which asks this very question
            number = first_try(number, study._storage.get_all_trials(study._study_id, deepcopy=False))
        share = binascii.crc32(f"{self._sweep_seed}_{number}".encode()) % self._total_trial_allocation_budget
        for bracket, budget in enumerate(self._trial_allocation_budgets):
            share -= budget
            if share < 0:
                return bracket
        raise AssertionError(share)


def read_pruner(node: Any, n_objectives: int) -> dict[str, Any]:
    """The pruner of a search: what the person chose, or the default one, which is off for several objectives.

    What the default option says refers to its own key ``standard``. A ``_target_`` that does not is the
    person's, and then nothing else of the option is meant.

    Raises:
        BadInput: for a chosen pruner where there are several objectives.
    """
    raw = read_node(_PRUNER, node)
    raw.pop("standard", None)
    of_default = {key for key, value in raw.items() if str(value).startswith("${.standard")}
    resolved = read_node(_PRUNER, node, resolve=True)
    pruner = {key: resolved[key] for key in raw if "_target_" in of_default or key not in of_default}
    if n_objectives == 1 or pruner["_target_"] == "optuna.pruners.NopPruner":
        return pruner
    if of_default == pruner.keys():
        return {"_target_": "optuna.pruners.NopPruner"}
    raise BadInput(
        "hydra/sweeper/pruner",
        str(pruner["_target_"]).rpartition(".")[2],
        f"a pruner compares one value, and there are {n_objectives} objectives",
        "write hydra/sweeper/pruner=none, or search for one objective",
    )


def read_node(key: str, node: Any, resolve: bool = False) -> dict[str, Any]:
    """What a config node says, without what is left to Optuna (``???``).

    Raises:
        BadInput: if it names no class.
    """
    plain = OmegaConf.to_container(node, resolve=resolve) if isinstance(node, DictConfig) else node
    if not isinstance(plain, Mapping) or not isinstance(plain.get("_target_"), str):
        group, remedy = key.replace(".", "/"), "none" if key == _PRUNER else "tpe"
        raise BadInput(key, plain, "names no class", f"write {group}={remedy}, or a node with a _target_")
    return {str(name): value for name, value in plain.items() if value != "???"}


def build_pruner(settings: Mapping[str, Any], seed: int | None = None) -> BasePruner:
    """Raises BadInput for a pruner or an argument that does not exist."""
    pruner: BasePruner = Builder(seed).build(_PRUNER, settings, BasePruner)
    return pruner


def check_pruner(settings: Mapping[str, Any], seed: int | None) -> None:
    """Let the pruner decide in a throw-away study; raises BadInput as ``check_sampler`` does."""
    build_pruner(settings, seed)

    def decide(settings: Mapping[str, Any]) -> None:
        study = optuna.create_study(pruner=build_pruner(settings, seed), sampler=RandomSampler(seed=0))
        for number in range(4):
            trial = study.ask()
            for step in range(1, 4):
                trial.report(float(number), step)
                trial.should_prune()
            study.tell(trial, float(number), state=TrialState.COMPLETE)

    with tried(_PRUNER, settings, decide):
        decide(settings)


@contextmanager
def tried(
    key: str, arguments: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], Any]
) -> Iterator[None]:
    """Whatever is raised inside becomes BadInput, about the argument without which ``attempt`` succeeds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        target = str(arguments["_target_"])
        own = [name for name in arguments if name not in _HYDRAS_KEYS]
        guilty = own if len(own) == 1 else [name for name in own if _succeeds(attempt, arguments, name)]
        known = f"{target} takes {_known(resolve(f'{key}._target_', target))}"
        if len(guilty) != 1:
            raise BadInput(key, {name: arguments[name] for name in own}, reason, known) from error
        raise BadInput(f"{key}.{guilty[0]}", arguments[guilty[0]], reason, known) from error


def _succeeds(
    attempt: Callable[[Mapping[str, Any]], Any], arguments: Mapping[str, Any], without: str
) -> bool:
    try:
        attempt({name: value for name, value in arguments.items() if name != without})
    except Exception:
        return False
    return True


def _known(cls: Any) -> str:
    return ", ".join(inspect.signature(cls).parameters) or "no arguments"


@dataclass(frozen=True)
class Builder:
    """Makes what config nodes name by ``_target_``, also nodes within nodes and lists.

    Each sampler among them draws by the seed and the trial's number.
    """

    seed: int | None
    number: int = 0
    space: Space | None = None

    def build(self, key: str, node: Mapping[str, Any], kind: type = object) -> Any:
        """Make an object of the class that ``node`` names, if it is on the allow-list.

        Raises:
            BadInput: if it is not, does not exist, is of another kind, or does not take the arguments.
        """
        target = str(node["_target_"])
        if target in _HYDRAS_GETTERS:
            return resolve(f"{key}.path", str(node.get("path")))
        if target in _GONE:
            raise BadInput(f"{key}._target_", target, "Optuna 5 no longer has it", _GONE[target])
        named = resolve(f"{key}._target_", target)
        if kind is not object and not (isinstance(named, type) and issubclass(named, kind)):
            raise BadInput(f"{key}._target_", target, f"is no {kind.__name__}", "name a class that is one")
        if not callable(named):
            raise BadInput(f"{key}._target_", target, "cannot be called", "name a class or a function")
        make, signature = self._in_place_of(named), inspect.signature(named)
        arguments = {
            name: self._value(f"{key}.{name}", value, signature.parameters.get(name))
            for name, value in node.items()
            if name not in _HYDRAS_KEYS and value != "???"
        }
        positional = self._value(f"{key}._args_", node.get("_args_", []), None)
        if isinstance(named, type) and issubclass(named, BaseSampler) and "seed" in signature.parameters:
            seed = arguments.get("seed", self.seed)
            check_seed(f"{key}.seed", seed)
            if seed is not None:
                arguments["seed"] = seed if named is QMCSampler else seed_of(seed, self.number)
        if node.get("_partial_") and kind is object:
            return partial(make, *positional, **arguments)
        given = {"_target_": target, **{name: node[name] for name in node if name not in _HYDRAS_KEYS}}
        with tried(key, given, lambda fewer: self.build(key, fewer, kind)):
            return make(*positional, **arguments)

    def _in_place_of(self, named: Any) -> Any:
        """Our own form of a class, where we have one."""
        if named is HyperbandPruner:
            return partial(Hyperband, self.seed)
        if named is QMCSampler:
            return partial(QuasiRandomSampler, self.space.parameters() if self.space else {}, self.number)
        return named

    def _value(self, key: str, value: Any, parameter: inspect.Parameter | None) -> Any:
        annotation = _annotation(parameter)
        if isinstance(value, Mapping):
            if "_target_" in value:
                return self.build(key, value)
            return {name: self._value(f"{key}.{name}", item, None) for name, item in value.items()}
        if isinstance(value, list):
            return [self._value(f"{key}[{i}]", item, None) for i, item in enumerate(value)]
        if isinstance(value, str) and "Callable" in annotation:
            return resolve(key, value)
        if parameter is not None and parameter.name != "seed":
            _check_value(key, value, parameter.name, annotation)
        return value


def _annotation(parameter: inspect.Parameter | None) -> str:
    if parameter is None or parameter.annotation is parameter.empty:
        return ""
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def _check_value(key: str, value: Any, name: str, annotation: str) -> None:
    """Refuse what Optuna would notice in the middle of the search, or never."""
    kinds = annotation.split(" | ")
    types = [one for kind in kinds for one in _TYPES.get(kind, (object,))]
    is_null = value is None and annotation not in ("", "Any") and "None" not in kinds
    if is_null or (annotation and object not in types and type(value) not in types):
        expected = " or ".join("null" if kind == "None" else kind for kind in kinds)
        raise BadInput(key, value, f"must be {expected}", "write such a value, or leave it out")
    if name in _WITHOUT_EFFECT and value is not None:
        agreeing, reason, remedy = _WITHOUT_EFFECT[name]
        if value != agreeing:
            raise BadInput(key, value, reason, remedy)
    if name in _LEAST and value is not None and value < _LEAST[name]:
        raise BadInput(key, value, "is too small", f"write {_LEAST[name]} or more")
    if name == "sigma0" and value is not None and not 0 < value < float("inf"):
        raise BadInput(key, value, "is no standard deviation", "write a number above 0")


def resolve(key: str, target: str) -> Any:
    """The object that a dotted path names, if it is on the allow-list."""
    own = [name.rstrip(".") for name in os.environ.get("SWEEPER_ALLOW", "").split(",") if name]
    allowed = (*ALLOWED_TARGETS, *(f"{name}." for name in own))
    if not target.startswith(allowed):
        raise BadInput(
            key,
            target,
            f"only names under {', '.join(allowed)} are allowed",
            f"set SWEEPER_ALLOW={target.partition('.')[0]}. in the environment if you trust it",
        )
    return find(key, target)


def find(key: str, path: str) -> Any:
    """The object that a dotted path names, wherever it is.

    Raises:
        BadInput: if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(key, path, f"cannot be found ({error})", "write the full path, module.name") from error
