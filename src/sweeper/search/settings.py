"""``hydra.sweeper``, checked: what the person wrote becomes a ``Search`` and the workers it gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweeper import record
from sweeper.errors import BadInput
from sweeper.search.sampler import check_pruner, find, read_node, read_pruner
from sweeper.search.study import Search

_HYDRAS_FOLDER = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"
"""What ``hydra.sweep.dir`` is where nobody set it."""


def read_settings(settings: Mapping[str, Any], master: DictConfig) -> tuple[Search, int, list[str]]:
    """Check ``hydra.sweeper``, and make its paths absolute.

    Returns:
        the search, the number of workers, and the GPUs they share (empty without).

    Raises:
        BadInput: naming the key.
    """
    plain = {key: _plain(value) for key, value in settings.items()}
    name = (
        datetime.now().strftime("%Y-%m-%d_%H-%M-%S") if plain["study_name"] is None else plain["study_name"]
    )
    record.check_study_name(name)
    folder = Path(_folder(name, master)).absolute()
    directions = _directions(plain["direction"])
    pruner = read_pruner(master.hydra.sweeper.pruner, len(directions))
    for key, low in [("n_trials", 1), ("timeout_s", 0), ("max_retries", 0), ("workers_per_gpu", 1)]:
        if plain[key] is not None and plain[key] < low:
            reason = f"must be at least {low}"
            raise BadInput(f"hydra.sweeper.{key}", plain[key], reason, "write a larger number")
    if not 0 <= plain["max_failure_rate"] <= 1:
        raise BadInput(
            "hydra.sweeper.max_failure_rate",
            plain["max_failure_rate"],
            "is a part of n_trials",
            "write 0 … 1",
        )
    search = Search(
        study_name=name,
        storage=_storage_url(plain["storage"]),
        folder=folder,
        directions=directions,
        metrics=_metrics(master, len(directions)),
        sampler=read_node("hydra.sweeper.sampler", plain["sampler"]),
        pruner=pruner,
        seed=plain["seed"],
        n_trials=plain["n_trials"],
        deadline=None if plain["timeout_s"] is None else time.time() + plain["timeout_s"],
        max_retries=plain["max_retries"],
        max_failure_rate=plain["max_failure_rate"],
        custom_search_space=plain["custom_search_space"],
    )
    check_pruner(search.pruner, search.seed)
    if search.custom_search_space is not None:
        find("hydra.sweeper.custom_search_space", search.custom_search_space)
    return search, *_workers(plain, search)


def _folder(study_name: str, master: DictConfig) -> str:
    """Where the app says; an app that says nothing has its studies where ours are."""
    sweep = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    is_hydras = isinstance(sweep, dict) and sweep["dir"] == _HYDRAS_FOLDER
    return f"{record.OUTPUTS}/{study_name}" if is_hydras else str(master.hydra.sweep.dir)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _directions(direction: Any) -> tuple[str, ...]:
    one_or_more = direction if isinstance(direction, list) else [getattr(direction, "name", direction)]
    directions = tuple(str(one) for one in one_or_more)
    remedy = "write minimize or maximize, or a list of them"
    if not directions:
        raise BadInput("hydra.sweeper.direction", direction, "names no objective", remedy)
    for one in directions:
        if one not in ("minimize", "maximize"):
            raise BadInput("hydra.sweeper.direction", one, "there is no such direction", remedy)
    return directions


def check_objective(search: Search, config: DictConfig) -> None:
    """Raises BadInput where an option or a range of a study would give its trials another objective."""
    directions = _directions(_plain(config.hydra.sweeper.direction))
    if directions != search.directions or _metrics(config, len(directions)) != search.metrics:
        remedy = "write objective=[val_accuracy,val_loss] for several at once"
        raise BadInput("objective", "several", "all trials of a search have the same", remedy)


def _metrics(master: DictConfig, n_objectives: int) -> tuple[str, ...] | None:
    """What the values are called, where the app says so with a key ``objective``."""
    objective = _plain(OmegaConf.select(master, "objective"))
    names = (objective,) if isinstance(objective, str) else tuple(objective or ())
    return names if len(names) == n_objectives and all(isinstance(n, str) for n in names) else None


def _storage_url(storage: str | None) -> str:
    """Paths become absolute: a worker may run elsewhere."""
    if storage is None:
        return str(Path(record.OUTPUTS, record.JOURNAL).absolute())
    if storage.startswith("sqlite:///") and not storage.startswith("sqlite:////"):
        return f"sqlite:///{Path(storage.removeprefix('sqlite:///')).absolute()}"
    if storage == "memory" or "://" in storage:
        return storage
    return str(Path(storage).absolute())


def _workers(plain: Mapping[str, Any], search: Search) -> tuple[int, list[str]]:
    gpus = visible_gpus()
    n_jobs = plain["n_jobs"]
    if n_jobs == "auto":
        n_workers = len(gpus) * plain["workers_per_gpu"] if gpus else n_cores()
    elif isinstance(n_jobs, int) and not isinstance(n_jobs, bool) and n_jobs >= 1:
        n_workers = n_jobs
    else:
        raise BadInput("hydra.sweeper.n_jobs", n_jobs, "is no number of workers", "write auto, or 1 or more")
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
    return n_workers, gpus


def n_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` may name here, asked without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listing.stdout.split() if listing.returncode == 0 else []
