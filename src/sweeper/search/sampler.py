"""Samplers and pruners: what the config names becomes an object, one sampler for each trial."""

from __future__ import annotations

import binascii
import importlib
import inspect
import os
import warnings
from collections.abc import Mapping
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


def build_sampler(settings: Mapping[str, Any], seed: int | None, space: Space, number: int) -> BaseSampler:
    """The sampler of one trial. Seed and number decide what it draws, whichever worker asks.

    Raises:
        BadInput: for a sampler or an argument that does not exist.
    """
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    seed = arguments.pop("seed", seed)
    if seed is not None and not (isinstance(seed, int) and seed >= 0):
        raise BadInput(
            "hydra.sweeper.seed", seed, "is no seed", "write 0, another whole number above it, or null"
        )
    target = settings["_target_"]
    if is_grid(settings):
        return RandomSampler(seed=number)  # takes no part: the study queues the points of the space
    if target == "optuna.samplers.QMCSampler":
        return QuasiRandomSampler(space.parameters(), number, seed=seed or 0, **arguments)
    if seed is not None:
        arguments["seed"] = seed_of(seed, number)
    sampler: BaseSampler = build("hydra.sweeper.sampler", target, arguments, BaseSampler)
    return sampler


def is_grid(settings: Mapping[str, Any]) -> bool:
    """Whether the points of the space are gone through one by one, instead of sampled."""
    return bool(settings["_target_"] == "optuna.samplers.GridSampler")


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
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    if isinstance(arguments.get("wrapped_pruner"), Mapping):
        arguments["wrapped_pruner"] = build_pruner(arguments["wrapped_pruner"])
    pruner: BasePruner = build("hydra.sweeper.pruner", settings["_target_"], arguments, BasePruner)
    return pruner


def build(key: str, target: str, arguments: Mapping[str, Any], kind: type) -> Any:
    """Make an object of the class that ``target`` names, if it is on the allow-list.

    Raises:
        BadInput: if it is not, does not exist, is of another kind, or does not take the arguments.
    """
    cls = resolve(f"{key}._target_", target)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_", target, f"is no {kind.__name__}", "name a class that is one")
    try:
        signature = inspect.signature(cls)
        signature.bind(**arguments)
        for name, parameter in signature.parameters.items():
            if isinstance(parameter.default, int | float) and isinstance(arguments.get(name), str):
                raise TypeError(f"{name} is no text")  # Optuna would notice in the middle of the search
        with warnings.catch_warnings():  # the person chose it by name
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _OURS.get(cls, cls)(**arguments)
    except (TypeError, ValueError) as error:
        known = ", ".join(inspect.signature(cls).parameters) or "no arguments"
        raise BadInput(key, dict(arguments), str(error), f"{target} takes {known}") from error


_OURS: dict[type, type] = {HyperbandPruner: Hyperband}
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
    """The object that a dotted path names, wherever it is.

    Raises:
        BadInput: if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(key, path, f"cannot be found ({error})", "write the full path, module.name") from error
