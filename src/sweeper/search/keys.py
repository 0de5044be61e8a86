"""The keys of ``hydra.sweeper`` and what each may be.

Hydra does not check their types: it would say what is wrong in five lines and with another exit code, before
the search has a say. So all are checked here, and converted as Hydra would: an environment variable gives a
text where a number is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from omegaconf import BooleanNode, FloatNode, IntegerNode, OmegaConf, StringNode, ValueNode
from omegaconf.errors import OmegaConfBaseException

from sweeper import limit
from sweeper.errors import BadInput, no_such_key
from sweeper.limit import MAX_STEPS, SEED, Limit

_WRITE = "write for example hydra.sweeper."
_PROCESSES = "no machine has room for more processes"


@dataclass(frozen=True)
class Key:
    """What a key may be."""

    node: Callable[[Any], ValueNode] | None
    """Converts what is written."""
    limit: Limit

    def read(self, key: str, value: Any) -> Any:
        """The value, converted. Raises BadInput for one that it may not be."""
        read = plain(value)
        if self.node is not None:
            with suppress(OmegaConfBaseException):  # it is of another type, which the limit tells
                read = self.node(read)._value()
        self.limit.check(key, read)
        return read


def plain(value: Any) -> Any:
    """A part of a config as plain dicts and lists, with its interpolations filled in."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


_ANY = Limit(lambda value: None, "")
"""For what is checked where it is used, as it depends on other keys."""


def _node(kind: str) -> Limit:
    remedy = f"write hydra/sweeper/{kind}=NAME, or a node with a _target_"
    return Limit(
        lambda v: (
            None
            if isinstance(v, Mapping) and isinstance(v.get("_target_"), str) and v["_target_"] != "???"
            else f"is not a {kind}"
        ),
        remedy,
        admits=f"an option of `hydra/sweeper/{kind}`, or a node with a `_target_`",
    )


KEYS: dict[str, Key] = {
    "sampler": Key(None, _node("sampler")),
    "pruner": Key(None, _node("pruner")),
    "direction": Key(None, _ANY),
    "metric_names": Key(None, _ANY),
    "max_resource": Key(
        IntegerNode,
        limit.or_word("auto", limit.whole(1, MAX_STEPS, "write auto, or the last step of a trial")),
    ),
    "study_name": Key(StringNode, limit.or_null(limit.string("write a name, or null for date and time"))),
    "storage": Key(StringNode, limit.or_null(limit.text("write a URL or a path, or leave it out"))),
    "n_trials": Key(
        IntegerNode, limit.or_null(limit.whole(1, 10**9, f"{_WRITE}n_trials=20", "null is no limit"))
    ),
    "n_jobs": Key(
        IntegerNode, limit.or_word("auto", limit.whole(1, 1024, "write auto, or 1 or more", _PROCESSES))
    ),
    "workers_per_gpu": Key(IntegerNode, limit.whole(1, 64, f"{_WRITE}workers_per_gpu=2", _PROCESSES)),
    "in_process": Key(BooleanNode, limit.switch()),
    "timeout_s": Key(
        FloatNode, limit.or_null(limit.number(0, 10**9, f"{_WRITE}timeout_s=3600", "null is no limit"))
    ),
    "max_retries": Key(
        IntegerNode, limit.whole(0, 1000, f"{_WRITE}max_retries=1", "what died so often will die again")
    ),
    "workers_per_job": Key(
        IntegerNode,
        limit.or_word("auto", limit.whole(1, 1024, "write auto, or 1 or more", _PROCESSES)),
    ),
    "join": Key(BooleanNode, limit.switch()),
    "heartbeat_s": Key(
        FloatNode,
        limit.number(0.1, 3600, f"{_WRITE}heartbeat_s=30", "others must see in time that a worker is gone"),
    ),
    "grace_s": Key(
        FloatNode, limit.number(0.3, 10**6, f"{_WRITE}grace_s=120", "nobody waits for days for the dead")
    ),
    "artifacts": Key(
        StringNode, limit.or_null(limit.text("write a folder, s3://BUCKET/PREFIX, or leave it out"))
    ),
    "take_over": Key(BooleanNode, limit.switch()),
    "storage_wait_s": Key(
        FloatNode, limit.number(0, 10**6, f"{_WRITE}storage_wait_s=60", "nobody waits for days")
    ),
    "max_failure_rate": Key(
        FloatNode, limit.within(0, 1, "write the part of n_trials that may fail, for example 0.25")
    ),
    "seed": Key(IntegerNode, limit.or_null(SEED)),
    "custom_search_space": Key(
        StringNode, limit.or_null(limit.text("write the path of a function, module.name, or null"))
    ),
    "search_space": Key(None, _ANY),
    "params": Key(None, limit.or_null(limit.mapping("write {KEY: RANGE, …}"))),
}


def read(
    settings: Mapping[str, Any], kept_in: Callable[[str], str] = "hydra.sweeper.{}".format
) -> dict[str, Any]:
    """The keys of ``hydra.sweeper`` as plain values of their types.

    Args:
        settings: the node.
        kept_in: the key in which the app keeps a setting.

    Raises:
        BadInput: for one that there is not, or that has a value it may not have.
    """
    for name, value in settings.items():
        if name not in KEYS and not name.startswith("_"):
            keys = [f"hydra.sweeper.{known}" for known in KEYS]
            remedy = "--cfg hydra shows the keys there are"
            raise no_such_key(f"hydra.sweeper.{name}", value, keys, remedy)
    return {name: _read(name, value, kept_in(name)) for name, value in settings.items() if name in KEYS}


def _read(name: str, value: Any, source: str) -> Any:
    key = f"hydra.sweeper.{name}"
    try:
        return KEYS[name].read(key, value)
    except BadInput as error:
        if source == key:
            raise
        remedy = f"write another value: it is {key} of the search, too"
        raise BadInput(source, error.value, error.reason, remedy) from error


# --- the arguments of Optuna's samplers and pruners ---------------------------------------------------------


def _whole(
    low: int, high: int, why: str = "", remedy: str = "leave it out, or write a whole number"
) -> Limit:
    return limit.whole(low, high, remedy, why)


def _probability() -> Limit:
    return limit.within(0, 1, "leave it out, or write a probability")


_SWITCHES = (
    *(
        "consider_prior",
        "consider_magic_clip",
        "consider_endpoints",
        "multivariate",
        "group",
        "constant_liar",
    ),
    *("warn_independent_sampling", "warn_asynchronous_seeding", "scramble", "deterministic_objective"),
    *("consider_pruned_trials", "use_separable_cma", "with_margin", "lr_adapt"),
)

_STEPS = limit.or_word("auto", _whole(1, MAX_STEPS))
_TRIALS = "no study has so many trials"

ARGUMENTS: dict[str, Limit] = {
    **dict.fromkeys(_SWITCHES, limit.switch()),
    "seed": SEED,
    "n_startup_trials": _whole(0, 10**9, _TRIALS),
    "n_ei_candidates": _whole(1, 100_000, "they are drawn for each parameter of each trial"),
    "n_ehvi_candidates": _whole(1, 100_000, "they are drawn for each parameter of each trial"),
    "prior_weight": limit.number(0, 10**6, "leave it out, or write 1.0", above=True),
    "population_size": _whole(2, 100_000, _TRIALS),
    "mutation_prob": _probability(),
    "crossover_prob": _probability(),
    "swapping_prob": _probability(),
    "dividing_parameter": _whole(1, 100, "its power is the number of reference points"),
    "sigma0": limit.number(0, 10**9, "leave it out, or write for example 0.1", above=True),
    "popsize": _whole(2, 100_000, _TRIALS),
    "inc_popsize": _whole(1, 100),
    "min_resource": _STEPS,
    "max_resource": _STEPS,
    "reduction_factor": Limit(
        lambda v: (
            "a successive halving keeps one trial of that many"
            if isinstance(v, int) and v < 2
            else limit.whole(2, 1000, "").fault(v)
        ),
        "write 2 or more",
        admits=limit.whole(2, 1000, "").admits,
    ),
    "bootstrap_count": _whole(0, 10**6, _TRIALS),
    "min_early_stopping_rate": _whole(0, 100, "it is the exponent of a number of steps"),
    "n_warmup_steps": _whole(0, MAX_STEPS),
    "interval_steps": _whole(1, MAX_STEPS),
    "n_min_trials": _whole(1, 10**6, _TRIALS),
    "percentile": limit.within(0, 100, "write for example 25.0"),
    "patience": _whole(0, 10**6),
    "min_delta": limit.number(0, 10**9, "leave it out, or write for example 0.0"),
    "lower": limit.number(-3e38, 3e38, "leave it out, or write a number", "no float32 is larger"),
    "upper": limit.number(-3e38, 3e38, "leave it out, or write a number", "no float32 is larger"),
}
"""What Optuna would notice in the middle of a search, or never. null is right where it is the default."""
