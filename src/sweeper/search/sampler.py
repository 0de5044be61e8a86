"""Samplers and pruners: what the config names becomes an object, one sampler for each trial."""

from __future__ import annotations

import binascii
import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweeper.errors import BadInput, nearest
from sweeper.limit import SEED, or_null
from sweeper.search.keys import ARGUMENTS
from sweeper.search.parameter import Parameter, suggest
from sweeper.search.space import Space
from sweeper.search.trial import first_try, seed_of

SAMPLER, PRUNER = "hydra.sweeper.sampler", "hydra.sweeper.pruner"

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

    key, target = SAMPLER, _OFFICIAL.get(settings["_target_"], settings["_target_"])
    arguments = {name: value for name, value in settings.items() if not name.startswith("_")}
    given = arguments.pop("seed", None)
    or_null(SEED).check(f"{key}.seed", given)
    or_null(SEED).check("hydra.sweeper.seed", seed)
    seed = seed if given is None else given
    if target == "optuna.samplers.MOTPESampler":
        raise BadInput(
            "hydra/sweeper/sampler", "motpe", "Optuna has it no more", "write tpe, which does the same"
        )
    cls = _class(key, target, BaseSampler)
    _check_arguments(key, target, cls, arguments)
    for name in _UNUSED:
        arguments.pop(name, None)
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
        if name.endswith("sampler") and isinstance(value, Mapping) and "_target_" in value:
            arguments[name] = build_sampler(value, seed, space, number)  # it draws by seed and number too
    if isinstance(arguments.get("reference_points"), list):
        arguments["reference_points"] = np.asarray(arguments["reference_points"], dtype=float)
    takes_seed = "seed" in inspect.signature(cls).parameters
    if seed is not None and (takes_seed or given is not None):
        arguments["seed"] = seed_of(seed, number)
    sampler: BaseSampler = build(key, target, arguments, BaseSampler)
    return sampler


def is_grid(settings: Mapping[str, Any]) -> bool:
    """Whether the points of the space are gone through one by one, instead of sampled."""
    return settings.get("_target_") in _EVERY_POINT


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
        first = first_try(trial, study._storage, study._study_id)
        place = binascii.crc32(str(first).encode()) % self._total_trial_allocation_budget
        ends = accumulate(self._trial_allocation_budgets)
        return next(bracket for bracket, end in enumerate(ends) if place < end)


def build_pruner(settings: Mapping[str, Any]) -> BasePruner:
    """Raises BadInput for a pruner or an argument that does not exist."""
    arguments = {name: value for name, value in settings.items() if not name.startswith("_")}
    pruner: BasePruner = build(PRUNER, settings["_target_"], arguments, BasePruner)
    low, high = arguments.get("min_resource"), arguments.get("max_resource")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        remedy = f"write {high} or less: a trial that reports no such step is never pruned"
        raise BadInput(f"{PRUNER}.min_resource", low, f"is above max_resource={high}", remedy)
    return pruner


# --- trying them -------------------------------------------------------------------------------------------

_TOY_TRIALS, _TOY_STEPS, _TOY_PARAMETERS = 12, 9, 20
_TOY_STARTUP = {"n_startup_trials": 4, "population_size": 4, "n_warmup_steps": 2, "patience": 2}
"""What lasts longer than the toy study is over in it after so many trials."""
_SLOW = ("optuna.samplers.GPSampler",)
"""Samplers that import torch to draw: of these only the first trials are tried."""


def try_out(
    sampler: Mapping[str, Any],
    pruner: Mapping[str, Any],
    seed: int | None,
    directions: Sequence[str],
    space: Space,
) -> None:
    """Run a toy study in memory with what the person has set of sampler and pruner.

    What Optuna would notice only in the middle of a search is noticed here.

    Raises:
        BadInput: naming the argument that is to blame, if one alone is.
    """
    quiet = {"_target_": "optuna.samplers.RandomSampler"}
    for key, settings in ((SAMPLER, sampler), (PRUNER, pruner)):
        own = {name: value for name, value in settings.items() if not name.startswith("_")}
        if not own.keys() - {"max_resource"} or is_grid(settings):  # the app sets that, and it is checked
            build_sampler(sampler, seed, space, number=0) if key == SAMPLER else build_pruner(pruner)
            continue

        def run(given: Mapping[str, Any], key: str = key, target: str = settings["_target_"]) -> None:
            node = {"_target_": target, **given}
            if key == SAMPLER:
                build_sampler(node, seed, space, number=0)
                _run_toy(_short(key, node, BaseSampler), {}, seed, directions, space)
            else:
                build_pruner(node)
                _run_toy(quiet, _short(key, node, BasePruner), seed, directions[:1], space)

        try:
            run(own)
        except BadInput:
            raise
        except Exception as error:  # whatever Optuna, or a function of the person's, does with it
            remedy = "leave it out, or write what Optuna's documentation says of it"
            raise _blamed(key, own, error, run, remedy) from error


def _short(key: str, node: dict[str, Any], kind: type) -> dict[str, Any]:
    """With a startup phase that ends within the toy study."""
    if node["_target_"] in _SLOW:
        return {**node, "n_startup_trials": _TOY_TRIALS}
    cls = _class(key, _OFFICIAL.get(node["_target_"], node["_target_"]), kind)
    taken = inspect.signature(cls).parameters
    short = {name: n for name, n in _TOY_STARTUP.items() if name in taken}
    return {**node, **{name: min(n, node.get(name, n)) for name, n in short.items()}}


def _run_toy(
    sampler: Mapping[str, Any],
    pruner: Mapping[str, Any],
    seed: int | None,
    directions: Sequence[str],
    space: Space,
) -> None:
    parameters = list(space.parameters().values())[:_TOY_PARAMETERS]
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            directions=[StudyDirection[name.upper()] for name in directions],
            pruner=build_pruner(pruner) if pruner else optuna.pruners.NopPruner(),
        )
        for number in range(_TOY_TRIALS):
            study.sampler = build_sampler(sampler, seed or 0, space, number)
            trial = study.ask()
            for parameter in parameters:
                suggest(trial)(parameter.name, parameter.distribution)
            for step in range(1, _TOY_STEPS + 1) if pruner else ():
                trial.report(number + step * (-1) ** number, step)  # some get better, others worse
                trial.should_prune()
            study.tell(trial, [number / _TOY_TRIALS] * len(directions))


@contextmanager
def _silent() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


# --- making them -------------------------------------------------------------------------------------------


def build(key: str, target: str, arguments: Mapping[str, Any], kind: type) -> Any:
    """Make an object of the class that ``target`` names, if it is on the allow-list.

    Arguments that name a ``_target_`` themselves are made first, as ``hydra.utils.instantiate`` does.

    Raises:
        BadInput: if it is not, does not exist, is of another kind, or does not take the arguments.
    """
    cls = _class(key, target, kind)
    return _call(key, target, cls, {name: _made(f"{key}.{name}", value) for name, value in arguments.items()})


def _class(key: str, target: str, kind: type) -> Any:
    cls = resolve(f"{key}._target_", target)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_", target, f"is not a {kind.__name__}", "name a class that is one")
    return cls


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
    known = inspect.signature(called).parameters
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for name, value in arguments.items() if not is_open else ():
        if name not in known:
            reason = f"{target} got an unexpected keyword argument {name!r}"
            near = nearest(name, known)
            raise BadInput(f"{key}.{name}", value, reason, _takes(known, near))
    _check_arguments(key, target, called, arguments)

    def make(given: Mapping[str, Any]) -> Any:
        with warnings.catch_warnings():  # the person chose it by name
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, and works
            return _OURS.get(called, called)(**given)

    try:
        return make(arguments)
    except (TypeError, ValueError) as error:
        raise _blamed(key, arguments, error, make, f"{target} {_takes(known)}") from error


def _check_arguments(key: str, target: str, called: Any, arguments: Mapping[str, Any]) -> None:
    """Raises BadInput for an argument of a class of Optuna's with a value that cannot be meant."""
    if not target.startswith("optuna."):
        return
    known, gone = inspect.signature(called).parameters, _GONE.get(target, {})
    for name, value in arguments.items():
        if name not in ARGUMENTS or name not in known:
            continue
        if value is not None:
            ARGUMENTS[name].check(f"{key}.{name}", value)
        elif known[name].default is not None and name not in gone:
            raise BadInput(f"{key}.{name}", value, "must have a value", "leave it out for Optuna's own")


def _takes(known: Iterable[str], near: str | None = None) -> str:
    return f"{f'did you mean {near}? ' if near else ''}takes {', '.join(known) or 'no arguments'}"


def _blamed(
    key: str,
    arguments: Mapping[str, Any],
    error: Exception,
    make: Callable[[Mapping[str, Any]], Any],
    remedy: str,
) -> BadInput:
    """The error on the one argument without which there is none, or else on all of them."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    for name, value in arguments.items():
        others = {n: v for n, v in arguments.items() if n != name}
        for rest in (others, {**others, name: None}):  # some have no default
            with suppress(Exception):
                make(rest)
                return BadInput(f"{key}.{name}", value, reason, remedy)
    return BadInput(key, dict(arguments), reason, remedy)


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
