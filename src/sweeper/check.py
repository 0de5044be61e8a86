"""What can be said before anything starts: device, data, network and direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from sweeper import record, schema
from sweeper.errors import BadInput, bad_override

T = TypeVar("T")


def to_run(config: DictConfig | dict[str, Any]) -> schema.Run:
    """The config as dataclasses, checked.

    Raises:
        BadInput: for a key that does not exist, a wrong type, or a value out of its range.
    """
    keys = schema.Run.__dataclass_fields__
    try:
        known = {key: value for key, value in OmegaConf.create(config).items() if key in keys}
        run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Run), known))
    except Exception as error:
        raise bad_override(error, []) from error
    assert isinstance(run, schema.Run)
    schema.validate(run)
    record.check_study_name(run.study)
    return run


def check(config: DictConfig) -> None:
    """Check one composed config before a search starts anything.

    Raises:
        BadInput: for the first thing that cannot work.
    """
    run = to_run(config)
    check_direction(run, config)
    inspect(run)


def inspect(run: schema.Run) -> Found:
    """Check that device, data and network exist and fit together, without training.

    Raises:
        BadInput: where one of them is not there, or does not suit the others.
    """
    if run.device not in ("auto", "cpu"):
        from sweeper.training.machine import resolve_device

        resolve_device(run.device)
    found = find(run.dataset, Path.cwd())
    schema.check_task(run, found.n_classes, found.multi_label)
    check_model(run.model, (found.channels, found.side, found.n_classes), Path.cwd())
    return found


def check_direction(run: schema.Run, config: DictConfig) -> None:
    """Raises BadInput where ``hydra.sweeper.direction`` is not the objective's."""
    wanted, given = schema.direction(run.objective), _plain(config.hydra.sweeper.direction)
    if wanted != given:
        reason = f"objective={run.objective} means {wanted}"
        remedy = "leave it out: it follows from the objective"
        raise BadInput("hydra.sweeper.direction", given, reason, remedy)


@dataclass(frozen=True)
class Found:
    """Sizes found in a dataset; ``side`` is the network's input size in pixels."""

    name: str
    n_train: int
    n_val: int
    n_test: int
    n_classes: int
    multi_label: bool
    channels: int
    side: int


def _once(function: Callable[..., T]) -> Callable[..., T]:
    """Remember what it said: a search composes many configs with the same dataset and model."""
    said: dict[str, T] = {}

    def ask(*arguments: Any) -> T:
        key = repr(arguments)
        if key not in said:
            said[key] = function(*arguments)
        return said[key]

    return ask


@_once
def find(dataset: schema.Dataset, cwd: Path) -> Found:
    """Read and split it as a trial will, and keep the counts."""
    from sweeper.training import images

    everything = images.read(dataset)
    train, val, test = images.split(everything, dataset)
    mean, _ = images.statistics(dataset.normalization, everything.pixels, train)
    return Found(
        name=dataset.name,
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        n_classes=len(everything.classes),
        multi_label=everything.multi_label,
        channels=len(mean),
        side=everything.side,
    )


@_once
def check_model(model: schema.Model, shape: tuple[int, int, int], cwd: Path) -> None:
    """Outline the network, and compare its weights: so they are downloaded once, before the workers start."""
    if model.source == "sweeper" and model.weights is None:
        return  # fits any image; and the parent of a search need not import torch
    from sweeper.training import weights

    weights.check(model, *shape)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
