"""Samplers and pruners: what the config names becomes an object, one sampler for each trial."""

from __future__ import annotations

import binascii
import importlib
import inspect
import os
import warnings
from collections.abc import Mapping
from functools import partial, reduce
from itertools import accumulate
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from sweeper.errors import BadInput
from sweeper.search.parameter import Parameter
from sweeper.search.space import Space
from sweeper.search.trial import first_try, seed_of

ALLOWED_TARGETS = ("optuna.", "sweeper.")
"""What ``_target_`` may name; the person running the sweep adds prefixes in ``SWEEPER_ALLOW``."""


_GONE: dict[str, dict[str, Any]] = {
    "optuna.samplers.TPESampler": {"consider_prior": True},
    "optuna.samplers.CmaEsSampler": {"restart_strategy": None},
}
"""Arguments that Optuna still takes and ignores, and the value by which it goes: others are refused."""

_OFFICIAL = {
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler": "optuna.samplers.NSGAIISampler",
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaiii_sampler": "optuna.samplers.NSGAIIISampler",
    "hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed": "optuna.samplers.MOTPESampler",
}
"""What the official sweeper's own functions make, which its options name where it is installed as well."""

_UNUSED = ("inc_popsize", "warn_asynchronous_seeding")
"""Arguments without a meaning here: CMA-ES never restarts, and trials ask for their points by number."""

_EVERY_POINT = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")


def build_sampler(settings: Mapping[str, Any], seed: int | None, space: Space, number: int) -> BaseSampler:
    """The sampler of one trial. Seed and number decide what it draws, whichever worker asks.

    Raises:
        BadInput: for a sampler or an argument that does not exist.
    """
    import numpy as np

    key, target = "hydra.sweeper.sampler", _OFFICIAL.get(settings["_target_"], settings["_target_"])
    arguments = {n: value for n, value in settings.items() if not n.startswith("_") and n not in _UNUSED}
    given = arguments.pop("seed", None)
    seed = seed if given is None else given
    if seed is not None and not (isinstance(seed, int) and seed >= 0):
        raise BadInput(
            "hydra.sweeper.seed", seed, "is no seed", "write 0, another whole number above it, or null"
        )
    if target == "optuna.samplers.MOTPESampler":
        raise BadInput(
            "hydra/sweeper/sampler", "motpe", "Optuna has it no more", "write tpe, which does the same"
        )
    for name, value in _GONE.get(target, {}).items():
        if arguments.pop(name, None) not in (None, value):
            reason = "Optuna has no such choice any more"
            raise BadInput(f"{key}.{name}", settings[name], reason, "leave it out")
    if is_grid(settings):
        arguments.pop("avoid_premature_stop", None)
        for name, value in arguments.items():
            if value is not None:
                remedy = "leave it out and sweep those keys"
                raise BadInput(f"{key}.{name}", value, "the points are those of the swept keys", remedy)
        return RandomSampler(seed=number)  # takes no part: the study queues the points of the space
    if target == "optuna.samplers.QMCSampler":
        return QuasiRandomSampler(space.parameters(), number, seed=seed or 0, **_quasi_random(arguments))
    for name, value in arguments.items():
        if name.endswith("sampler") and isinstance(value, Mapping):  # it draws by seed and number too
            arguments[name] = build_sampler(value, seed, space, number)
    if isinstance(arguments.get("reference_points"), list):
        arguments["reference_points"] = np.asarray(arguments["reference_points"], dtype=float)
    takes_seed = "seed" in inspect.signature(resolve(f"{key}._target_", target)).parameters
    if seed is not None and (takes_seed or given is not None):
        arguments["seed"] = seed_of(seed, number)
    sampler: BaseSampler = build(key, target, arguments, BaseSampler)
    return sampler


def is_grid(settings: Mapping[str, Any]) -> bool:
    """Whether the points of the space are gone through one by one, instead of sampled."""
    return settings["_target_"] in _EVERY_POINT


def _quasi_random(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of Optuna's sampler that ours has; the others are about what it draws by itself."""
    taken = {name: value for name, value in arguments.items() if name in ("qmc_type", "scramble")}
    others = {n: v for n, v in arguments.items() if n not in taken and n != "warn_independent_sampling"}
    for name, value in others.items():
        if name != "independent_sampler" or value is not None:
            reason = "every parameter is a dimension of the sequence"
            raise BadInput(f"hydra.sweeper.sampler.{name}", value, reason, "leave it out")
    return taken


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
        seed: int,
        qmc_type: str = "sobol",
        scramble: bool = False,
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
        self._others = RandomSampler(seed=seed_of(seed, number))
        self._names = sorted(parameters)
        engine = engines[qmc_type](max(1, len(self._names)), scramble=scramble, rng=seed)
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
    """Hyperband whose brackets depend on the numbers of the trials alone.

    Optuna hashes the name of the study too, and a study that is named by the time would never repeat. A
    retry is in the bracket of its first try.
    """

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if not self._pruners:  # the largest step is not known yet
            return 0
        is_retry = "retry_of" in trial.user_attrs
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False) if is_retry else []
        place = binascii.crc32(str(first_try(trial, trials)).encode()) % self._total_trial_allocation_budget
        ends = accumulate(self._trial_allocation_budgets)
        return next(bracket for bracket, end in enumerate(ends) if place < end)


def build_pruner(settings: Mapping[str, Any]) -> BasePruner:
    """Raises BadInput for a pruner or an argument that does not exist."""
    arguments = {name: value for name, value in settings.items() if not name.startswith("_")}
    pruner: BasePruner = build("hydra.sweeper.pruner", settings["_target_"], arguments, BasePruner)
    return pruner


def build(key: str, target: str, arguments: Mapping[str, Any], kind: type) -> Any:
    """Make an object of the class that ``target`` names, if it is on the allow-list.

    Arguments that name a ``_target_`` themselves are made first, as ``hydra.utils.instantiate`` does.

    Raises:
        BadInput: if it is not, does not exist, is of another kind, or does not take the arguments.
    """
    cls = resolve(f"{key}._target_", target)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_", target, f"is no {kind.__name__}", "name a class that is one")
    return _call(key, target, cls, {name: _made(f"{key}.{name}", value) for name, value in arguments.items()})


def _made(key: str, value: Any) -> Any:
    """The value, with every node in it that names a ``_target_`` made into what it names."""
    if isinstance(value, list):
        return [_made(key, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    arguments = {
        name: _made(f"{key}.{name}", item)
        for name, item in value.items()
        if "_target_" not in value or not name.startswith("_")
    }
    if "_target_" not in value:
        return arguments
    if value["_target_"] in _LOOK_UP:
        return resolve(f"{key}.path", str(arguments.get("path")))
    found = resolve(f"{key}._target_", value["_target_"])
    made = partial(found, **arguments) if value.get("_partial_") else None
    return made or _call(key, value["_target_"], found, arguments)


def _call(key: str, target: str, called: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        signature = inspect.signature(called)
        signature.bind(**arguments)
        for name, parameter in signature.parameters.items():
            if isinstance(parameter.default, int | float) and isinstance(arguments.get(name), str):
                raise TypeError(f"{name} is no text")  # Optuna would notice in the middle of the search
        with warnings.catch_warnings():  # the person chose it by name
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, and works
            return _OURS.get(called, called)(**arguments)
    except (TypeError, ValueError) as error:
        known = ", ".join(inspect.signature(called).parameters) or "no arguments"
        raise BadInput(key, dict(arguments), str(error), f"{target} takes {known}") from error


_LOOK_UP = ("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object")
"""How a config names a function or a class itself."""

_OURS: dict[Any, Any] = {HyperbandPruner: Hyperband}
"""The class that stands in for one of Optuna's."""


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
    """The object that a dotted path names, wherever it is: in a module, or in a class of one.

    Raises:
        BadInput: if there is none.
    """
    module, _, rest = path.rpartition(".")
    names = [rest]
    try:
        while True:
            try:
                found = importlib.import_module(module)
                break
            except ModuleNotFoundError as error:
                if "." not in module or error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise
                module, _, name = module.rpartition(".")
                names.insert(0, name)
        return reduce(getattr, names, found)
    except Exception as error:  # whatever the module raises
        reason = f"cannot be found ({type(error).__name__}: {error})"
        raise BadInput(key, path, reason, "write the full path, module.name") from error
