"""``hydra.sweeper``, checked: what the person wrote becomes a ``Search`` and the workers it gets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override

from sweeper import outputs
from sweeper.errors import BadInput
from sweeper.limit import check_study_name, path_fault, text
from sweeper.record.mark import OUTPUTS
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import Plan
from sweeper.search import artifact, keys
from sweeper.search.engine import n_cores, order, visible_gpus
from sweeper.search.life import MIN_GRACE
from sweeper.search.parameter import written
from sweeper.search.sampler import build_pruner, find
from sweeper.search.search import Search
from sweeper.search.storage import absolute

log = logging.getLogger(__name__)

_HYDRAS_FOLDER = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"
"""What ``hydra.sweep.dir`` is where nobody set it."""

_BASIC_LAUNCHER = "BasicLauncher"


_HYPERBAND = "optuna.pruners.HyperbandPruner"


def read_settings(settings: Mapping[str, Any], master: DictConfig) -> tuple[Search, int, list[str]]:
    """Check ``hydra.sweeper``, and make its paths absolute.

    Returns:
        the search, the number of workers, and the GPUs they share (empty without).

    Raises:
        BadInput: naming the key.
    """
    _check_sweeper(settings, master)
    plain = keys.read(settings, lambda name: source_key(master, name))
    _check_launcher(master)
    _refuse_search_space(plain["search_space"])
    name = (
        datetime.now().strftime("%Y-%m-%d_%H-%M-%S") if plain["study_name"] is None else plain["study_name"]
    )
    check_study_name(name, study_key(master))
    is_unnamed = plain["study_name"] is None or "${now:" in _raw(master, study_key(master))
    written_folder = _folder(name, master)
    folder = Path(written_folder).absolute()
    if (reason := path_fault(written_folder) or path_fault(str(folder))) is not None:
        raise BadInput("hydra.sweep.dir", written_folder, reason, "write the path of a folder")
    outputs.refuse_folder_of_others(folder, is_search=True)
    directions = _directions(plain["direction"])
    metrics_key = source_key(master, "metric_names")
    pruner = _pruner(_without_missing(plain["pruner"]), plain["max_resource"], len(directions))
    search = Search(
        study_name=name,
        storage=_storage(plain["storage"], master, folder, is_unnamed),
        folder=folder,
        directions=directions,
        metrics=_metrics(plain["metric_names"], len(directions), metrics_key),
        metrics_key=metrics_key,
        sampler=_without_missing(plain["sampler"]),
        pruner=pruner,
        seed=plain["seed"],
        n_trials=plain["n_trials"],
        deadline=_deadline(plain["timeout_s"]),
        max_retries=plain["max_retries"],
        max_failure_rate=plain["max_failure_rate"],
        custom_search_space=plain["custom_search_space"],
        is_unnamed=is_unnamed,
        take_over=plain["take_over"],
        storage_wait_s=plain["storage_wait_s"],
        is_joined=plain["join"] or order() is not None,
        heartbeat_s=plain["heartbeat_s"],
        grace_s=plain["grace_s"],
        artifacts=None if plain["artifacts"] is None else artifact.absolute(plain["artifacts"]),
        named_by=study_key(master),
        stored_by=source_key(master, "storage"),
        folder_by=_folder_by(master),
    )
    _check_grace(search)
    build_pruner(search.pruner)
    if (plan := Plan.read(StudyFiles(folder))) is not None:
        search = search.of_plan(plan)
    return search, *_workers(plain, search)


def _check_sweeper(plain: Mapping[str, Any], master: DictConfig) -> None:
    """A ``_target_`` alone does not bring the settings, and a list would mix those of several options."""
    for override in _typed(master, "hydra"):
        group, _, options = override.lstrip("+").partition("=")
        if group.startswith("hydra/sweeper") and options.startswith("["):
            raise BadInput(group, options, "takes one option at a time", "write one of them")
    if missing := {"sampler", "pruner", "study_name", "search_space"} - plain.keys():
        raise BadInput(
            "hydra/sweeper",
            master.hydra.runtime.choices.get("hydra/sweeper"),
            f"brings no {', '.join(sorted(missing))}",
            "write override hydra/sweeper: sweeper_optuna in the defaults list",
        )


def _check_launcher(master: DictConfig) -> None:
    """Say that Hydra's own launcher, which somebody asked for, has no effect."""
    is_typed = any(o.startswith("hydra/launcher=") for o in _typed(master, "hydra"))
    if not has_launcher(master) and is_typed:
        launcher = launcher_name(master)
        remedy = "the search starts its own workers; hydra.sweeper.n_jobs says how many"
        log.warning("hydra/launcher=%s: has no effect; %s", launcher, remedy)


def _check_grace(search: Search) -> None:
    """Say that a grace has no effect which is shorter than two heartbeats: one of them may be late."""
    least_s = MIN_GRACE * search.heartbeat_s
    if search.grace_s < least_s and order() is None:
        remedy = f"no pool is taken for dead before two heartbeats, {least_s:g} s; lower that, too"
        heartbeat = f"hydra.sweeper.heartbeat_s={search.heartbeat_s:g}"
        log.warning("hydra.sweeper.grace_s=%g: with %s %s", search.grace_s, heartbeat, remedy)


def launcher_name(master: DictConfig) -> str:
    """The launcher that was chosen, in the group ``hydra/launcher``."""
    return str(master.hydra.runtime.choices.get("hydra/launcher"))


def has_launcher(master: DictConfig) -> bool:
    """Whether another launcher than Hydra's own was chosen, which runs one job after the other."""
    return is_launcher(OmegaConf.select(master, "hydra.launcher._target_"))


def is_launcher(target: Any) -> bool:
    """Whether the class is another launcher than Hydra's own."""
    return str(target).rpartition(".")[2] != _BASIC_LAUNCHER


def _refuse_search_space(search_space: Any) -> None:
    if search_space:
        params = {key: _as_override(node) for key, node in search_space.items()}
        raise BadInput(
            "hydra.sweeper.search_space",
            ", ".join(search_space),
            "is called params since Hydra 1.2",
            "write params: {" + ", ".join(f"{key}: '{value}'" for key, value in params.items()) + "}",
        )


def _as_override(node: Any) -> str:
    """A range of the old ``search_space`` in Hydra's grammar of sweeps."""
    if not isinstance(node, Mapping):
        return str(node)
    kind = getattr(node.get("type"), "name", node.get("type"))
    if kind == "categorical":
        return f"choice({', '.join(written(choice) for choice in node.get('choices') or ())})"
    cast = int if kind == "int" else float
    low, high = cast(node["low"]), cast(node["high"])
    if node.get("step") is not None and not node.get("log"):  # Hydra's range excludes its stop
        step = cast(node["step"])
        return f"range({low}, {Decimal(str(high)) + Decimal(str(step))}, step={step})"
    interval = f"int(interval({low}, {high}))" if kind == "int" else f"interval({low}, {high})"
    return f"tag(log, {interval})" if node.get("log") else interval


def find_function(key: str, path: str) -> Callable[..., Any]:
    """The function that a dotted path names, imported as the app's own modules are.

    Raises:
        BadInput: if there is none, or its module cannot be imported.
    """
    found = find(key, path)
    if not callable(found):
        remedy = "write the full path, module.name, of a function (config, trial)"
        raise BadInput(key, path, "is not a function", remedy)
    return found  # type: ignore[no-any-return]


def _folder(study_name: str, master: DictConfig) -> str:
    """Where the app says; an app that says nothing has its studies where ours are."""
    sweep = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    is_hydras = isinstance(sweep, dict) and sweep["dir"] == _HYDRAS_FOLDER
    return f"{OUTPUTS}/{study_name}" if is_hydras else str(master.hydra.sweep.dir)


def _without_missing(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if value != "???"}


def source_key(config: DictConfig, name: str) -> str:
    """The key in which an app keeps a setting: ``study`` where its study_name is ``${study}``."""
    return _source(config, f"hydra.sweeper.{name}")


def _source(config: DictConfig, key: str) -> str:
    """The key whose value this one takes over, directly or through others; else itself."""
    while True:
        parent, _, last = key.rpartition(".")
        holder = OmegaConf.select(config, parent) if parent else config
        node = holder._get_node(last, validate_access=False) if isinstance(holder, DictConfig) else None
        source = re.fullmatch(r"\$\{([\w./@-]+)\}", str(node._value())) if node is not None else None
        if source is None or source[1].startswith("."):
            return key
        key = source[1]


def seed_key(config: DictConfig) -> str | None:
    """Where an app has its seed: the source of ``hydra.sweeper.seed``, else ``seed``. None without one."""
    key = source_key(config, "seed")
    if key.startswith("hydra."):
        key = _source(config, "seed")
    value = OmegaConf.select(config, key, default="", throw_on_resolution_failure=False)
    return key if value is None or (isinstance(value, int) and not isinstance(value, bool)) else None


def study_key(master: DictConfig) -> str:
    """The key that names the study."""
    return source_key(master, "study_name")


def rename(search: Search, master: DictConfig, arguments: Sequence[str], n: int) -> tuple[Search, list[str]]:
    """The search under another name, as the one that was made of the time is taken.

    Returns:
        the search, and the sweep's arguments with the name in them. ``master`` has it, too.
    """
    key, name = study_key(master), f"{search.study_name}-{n}"
    renamed = list(arguments)
    with flag_override(master, ["readonly", "struct"], [False, False]):
        if not key.startswith("hydra."):
            OmegaConf.update(master, key, name)
            renamed.append(f"{key}={name}")
        folder = Path(_folder(name, master)).absolute()
    return replace(search, study_name=name, folder=folder), renamed


def is_named_by_time(master: DictConfig) -> bool:
    """Whether the app has the folders of its sweeps named by the time, so that none is found again."""
    sweep = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    directory = str(sweep["dir"]) if isinstance(sweep, dict) else ""
    return "${now:" in directory and directory != _HYDRAS_FOLDER


def _folder_by(master: DictConfig) -> str:
    """What names the folder of a study: its ``name``, the ``time``, or ``nobody``."""
    if is_named_by_time(master):
        return "time"
    other = deepcopy(master)
    place, _, last = study_key(master).rpartition(".")
    parent = OmegaConf.select(other, place) if place else other
    with flag_override(parent, ["readonly", "struct"], [False, False]):  # Hydra 1.4 locks its own nodes
        OmegaConf.update(parent, last, "another")
    return "nobody" if _folder("another", other) == _folder("", master) else "name"


def _raw(config: DictConfig, key: str) -> str:
    """The value of a key as it is written, interpolations and all."""
    parent, _, last = key.rpartition(".")
    node = (OmegaConf.select(config, parent) if parent else config)._get_node(last)
    return str(node._value()) if node is not None else ""


def _pruner(pruner: dict[str, Any], max_resource: Any, n_objectives: int) -> dict[str, Any]:
    """The pruner that was chosen; with several objectives the one that nobody chose is off."""
    if pruner == {"_target_": "auto"} and n_objectives > 1:
        return {"_target_": "optuna.pruners.NopPruner"}
    if pruner["_target_"] == "auto":
        pruner = {**pruner, "_target_": _HYPERBAND}
    if n_objectives > 1 and not str(pruner["_target_"]).endswith(".NopPruner"):
        raise BadInput(
            "hydra/sweeper/pruner",
            str(pruner["_target_"]).rpartition(".")[2],
            f"a pruner compares one value, and there are {n_objectives} objectives",
            "leave it out, write hydra/sweeper/pruner=none, or search for one objective",
        )
    # Every process must know the largest step: "auto" is inferred, and not by all at once.
    return {"max_resource": max_resource, **pruner} if pruner["_target_"] == _HYPERBAND else pruner


def _directions(direction: Any) -> tuple[str, ...]:
    one_or_more = direction if isinstance(direction, list) else [direction]
    directions = tuple(str(getattr(one, "name", one)).lower() for one in one_or_more)
    remedy = "write minimize or maximize, or a list of them"
    if not directions:
        raise BadInput("hydra.sweeper.direction", direction, "names no objective", remedy)
    for one in directions:
        if one not in ("minimize", "maximize"):
            raise BadInput("hydra.sweeper.direction", one, "there is no such direction", remedy)
    return directions


def check_objective(search: Search, config: DictConfig) -> None:
    """Raises BadInput where an option or a range of a study would give its trials another objective."""
    key, reason = source_key(config, "metric_names"), "all trials of a search have the same"
    directions = _directions(keys.plain(config.hydra.sweeper.direction))
    metrics = _metrics(keys.plain(config.hydra.sweeper.metric_names), len(directions), key)
    if metrics != search.metrics:
        names = dict.fromkeys([*(search.metrics or ()), *(metrics or ())])
        raise BadInput(key, "several", reason, f"write {key}=[{','.join(names)}] for several at once")
    if directions != search.directions:
        raise BadInput("hydra.sweeper.direction", "several", reason, "write a list for several objectives")


def _metrics(metric_names: Any, n_objectives: int, key: str) -> tuple[str, ...] | None:
    """What the values are called, where the app says so."""
    if metric_names is None:
        return None
    names = metric_names if isinstance(metric_names, list) else [metric_names]
    remedy = "write a name, or a list of them"
    if not all(isinstance(name, str) for name in names):
        raise BadInput(key, metric_names, "a metric's name is a text", remedy)
    for name in names:
        text(remedy).check(key, name)
    if len(names) != n_objectives:
        reason = f"hydra.sweeper.direction has {n_objectives}, so that they cannot be told apart"
        raise BadInput(key, ", ".join(names), reason, "write a name for each direction")
    if len(set(names)) < len(names):
        raise BadInput(key, ", ".join(names), "names one twice", "write each once")
    return tuple(names)


def _storage(url: str | None, master: DictConfig, folder: Path, is_unnamed: bool) -> str:
    """What was typed; else where the study in this folder is; else what the config says."""
    if (ordered := order()) is not None and ordered.storage is not None:
        return ordered.storage
    storage_keys = {"hydra.sweeper.storage", source_key(master, "storage")}
    is_typed = any(key_of(o) in storage_keys for o in [*_typed(master, "hydra"), *_typed(master, "task")])
    remembered = None if is_typed or is_unnamed else StudyFiles(folder).read_storage()
    return remembered if remembered not in (None, "memory") else absolute(url)


def _typed(master: DictConfig, whose: str) -> list[str]:
    """The overrides of the command line, unresolved: one may use what only the trials have."""
    overrides: Any = OmegaConf.to_container(master.hydra.overrides, resolve=False)
    return list(overrides[whose])


def key_of(override: str) -> str:
    """What an override sets: ``a.b`` of ``++a.b=1``."""
    return override.partition("=")[0].lstrip("+~")


def _deadline(timeout_s: float | None) -> float | None:
    """When the search ends; for a job what the command said that asked for it."""
    if (ordered := order()) is not None:
        return ordered.deadline
    return None if timeout_s is None else time.time() + timeout_s


def _workers(plain: Mapping[str, Any], search: Search) -> tuple[int, list[str]]:
    """The workers of this pool, and its GPUs: in a job n_jobs is the number of jobs."""
    gpus = visible_gpus()
    n_jobs = plain["n_jobs"] if order() is None else plain["workers_per_job"]
    auto = len(gpus) * plain["workers_per_gpu"] if gpus else n_cores()
    n_workers: int = auto if n_jobs == "auto" else n_jobs
    if plain["in_process"] and n_jobs != 1:
        raise BadInput(
            "hydra.sweeper.in_process",
            True,
            "one process runs one trial at a time",
            "write hydra.sweeper.n_jobs=1 too",
        )
    if search.storage == "memory" and not plain["in_process"]:
        raise BadInput(
            "hydra.sweeper.storage",
            "memory",
            "worker processes do not share this process's memory",
            "write hydra.sweeper.n_jobs=1 hydra.sweeper.in_process=true, or leave the storage out",
        )
    return min(n_workers, search.n_trials or n_workers), gpus
