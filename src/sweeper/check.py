"""What can be said before anything starts: device, data, network and direction."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, Node, OmegaConf

from sweeper import limit, memory, outputs, provenance, saved, schema
from sweeper.errors import NO_SUCH_KEY, BadInput, bad_override, no_such_key
from sweeper.search import keys

if TYPE_CHECKING:
    from sweeper.training.summary import Summary

log = logging.getLogger(__name__)

T = TypeVar("T")


def to_run(config: DictConfig | dict[str, Any]) -> schema.Run:
    """The config as dataclasses, checked.

    Raises:
        BadInput: for a key that does not exist, a wrong type, or a value out of its range.
    """
    known = schema.Run.__dataclass_fields__
    refuse_unread(config)
    try:
        whole = config if isinstance(config, DictConfig) else OmegaConf.create(config)
        ours = {key: _resolved(whole, key) for key in whole if key in known}
        run = OmegaConf.to_object(OmegaConf.merge(_structured(), ours))
    except Exception as error:
        raise bad_override(error, []) from error
    assert isinstance(run, schema.Run)
    schema.validate(run)
    limit.check_study_name(run.study)
    return run


def _resolved(config: DictConfig, key: Any) -> Any:
    """A part of a config, with what its interpolations elsewhere give."""
    if OmegaConf.is_missing(config, key):
        return "???"
    return keys.plain(config[key])


@cache
def _structured() -> DictConfig:
    structured: DictConfig = OmegaConf.structured(schema.Run)
    return structured


def before_run(config: DictConfig) -> None:
    """Check the composed config of a single run while there is nothing of it yet; the data are read later.

    Raises:
        BadInput: for the first thing that cannot work.
    """
    to_run(config)
    check_hydras(config)
    keys.read(config.hydra.sweeper)  # a run does not use them, but the person meant something
    if (reason := limit.path_fault(str(config.hydra.run.dir))) is not None:
        raise BadInput("hydra.run.dir", config.hydra.run.dir, reason, "write the path of a folder")
    outputs.refuse_folder_of_others(Path(config.hydra.run.dir), is_search=False)


_HYDRAS = {
    "hydra.job.name": limit.part("leave it out: it names the log"),
    "hydra.output_subdir": limit.or_null(limit.part("write the name of a folder, as .hydra, or null")),
}


def check_hydras(config: DictConfig) -> None:
    """Raises BadInput for names of Hydra's that would put our files into folders of others."""
    for key, may_be in _HYDRAS.items():
        may_be.check(key, OmegaConf.select(config, key))
    if (subdir := _raw(config.hydra.sweep, "subdir")) != "${hydra.job.num}":
        reason = "the folder of a trial is called by its number"
        raise BadInput("hydra.sweep.subdir", subdir, reason, "leave it out, or set hydra.sweep.dir")


def refuse_unread(config: DictConfig | dict[str, Any]) -> None:
    """Raises BadInput for a key that no run has and that no interpolation anywhere in the config uses."""
    app = {key: _raw(config, key) for key in config if key != "hydra"}
    unknown = list(_unknown(app, schema.Run()))
    if "hydra" in config:
        hydras = _unknown(_raw(config, "hydra"), HydraConf(), "hydra.")
        unknown += [(key, value) for key, value in hydras if key != "hydra.env"]  # a group without a field
    if not unknown:
        return
    of_hydra: Any = config if "hydra" in config else HydraConfig.instance().cfg
    used = _used({**app, "hydra": None if of_hydra is None else _raw(of_hydra, "hydra")})
    known = [*schema.Run.__dataclass_fields__, *(key for key, _ in schema.flatten(schema.Run()))]
    for key, value in unknown:
        if not any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in used):
            otherwise = "leave it out; --cfg job shows the keys there are"
            error = no_such_key(key, value, known, otherwise)
            raise BadInput(key, value, f"{NO_SUCH_KEY}, nothing reads it", error.remedy)


def _raw(config: DictConfig | dict[str, Any], key: Any) -> Any:
    """A part of a config as plain dicts and lists, with its interpolations as they were written."""
    node = config._get_node(key) if isinstance(config, DictConfig) else config[key]
    if isinstance(node, DictConfig | ListConfig):
        return node._value() if not node else OmegaConf.to_container(node, resolve=False)
    return node._value() if isinstance(node, Node) else node


def _unknown(node: dict[Any, Any], known: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a node that its dataclass does not have, with their values."""
    for key, value in node.items():
        if key not in known.__dataclass_fields__:
            yield f"{prefix}{key}", value
        elif is_dataclass(inner := getattr(known, key)) and isinstance(value, dict):
            yield from _unknown(value, inner, f"{prefix}{key}.")


_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_TAKE_KEYS = ("oc.select", "oc.dict.keys", "oc.dict.values", "oc.deprecated")
"""Resolvers whose first argument is a key."""


def _used(node: Any, prefix: str = "") -> set[str]:
    """The keys that interpolations in a node name, from the root; of ``a.${b}`` those are a and b."""
    if isinstance(node, dict):
        return set().union(*(_used(value, f"{prefix}{key}.") for key, value in node.items()))
    if isinstance(node, list):
        return set().union(*(_used(value, f"{prefix}{i}.") for i, value in enumerate(node)))
    found = set[str]()
    text = node if isinstance(node, str) else ""
    while innermost := _INNERMOST.search(text):
        name, colon, arguments = innermost[1].partition(":")
        if colon:
            name = arguments.partition(",")[0] if name.strip() in _TAKE_KEYS else ""
        found.add(_from_root(name.strip().strip("'\""), prefix))
        text = f"{text[: innermost.start()]}*{text[innermost.end() :]}"
    return found - {""}


def _from_root(name: str, prefix: str) -> str:
    """A key from the root, without what is behind a ``*`` in it. Brackets are another way to write dots."""
    path = name.replace("[", ".").replace("]", "") if "[" in name else name
    n_up = len(path) - len(path.lstrip("."))
    if n_up and not name.startswith("["):
        parents = prefix.rstrip(".").split(".")[:-n_up]
        path = ".".join([*parents, path.lstrip(".")])
    known, star, _ = path.lstrip(".").partition("*")
    return known.rpartition(".")[0] if star else known


def check(config: DictConfig) -> None:
    """Check one composed config before a search starts anything.

    Raises:
        BadInput: for the first thing that cannot work.
    """
    from sweeper.screen import log_any_name

    log_any_name()
    run = to_run(config)
    check_hydras(config)
    check_direction(run, config)
    found = inspect(run)
    if found.summary is not None:
        _tell_once(found.summary, OmegaConf.select(config, "hydra.sweep.dir"))
    if found.seen is not None:
        _warn(found.seen)
    _warn_of_changed(run.dataset, str(OmegaConf.select(config, "hydra.sweep.dir")))


def inspect(run: schema.Run) -> Found:
    """Check that device, data and network exist and fit together, without training.

    Raises:
        BadInput: where one of them is not there, or does not suit the others.
    """
    if run.device not in ("auto", "cpu"):
        from sweeper.training.machine import resolve_device

        resolve_device(run.device)
    found = find(run.dataset, Path.cwd())
    check_memory(run, found)
    schema.check_task(run, found.n_classes, found.multi_label)
    schema.check_defined(run, found.val_counts, found.n_val, found.multi_label)
    check_model(run.model, (found.channels, found.side, found.n_classes), Path.cwd())
    told = provenance.remark(run, np.frombuffer(found.held_out, dtype=np.uint64))
    return replace(found, seen=told)


def check_direction(run: schema.Run, config: DictConfig) -> None:
    """Raises BadInput where ``hydra.sweeper.direction`` is not the objective's."""
    wanted, given = schema.direction(run.objective), keys.plain(config.hydra.sweeper.direction)
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
    summary: Summary | None = None
    """What is told of it."""
    seen: str | None = None
    """What is told where ``model.weights`` have seen pictures of val or test."""
    held_out: bytes = field(default=b"", repr=False, compare=False)
    """The digests of the pictures in val and test, 8 bytes each."""
    val_counts: tuple[int, ...] = ()
    """The validation images of each class."""


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
def _warn(told: str) -> None:
    """Once in a search, whose configs all have the same to tell."""
    log.warning(told)


@_once
def _warn_of_changed(dataset: schema.Dataset, study: str) -> None:
    if (told := provenance.remark_changed(dataset, Path(study))) is not None:
        _warn(told)


@_once
def find(dataset: schema.Dataset, cwd: Path) -> Found:
    """Read and split it as a trial will, and keep the counts."""
    from numpy import bincount

    from sweeper.training import images
    from sweeper.training.summary import summarise

    everything = images.read(dataset)
    train, val, test = images.split(everything, dataset)
    mean, _ = images.statistics(dataset.normalization, everything.pixels, train)
    labels, n_classes = everything.labels[val], len(everything.classes)
    counts = labels.sum(0, dtype=int) if everything.multi_label else bincount(labels, minlength=n_classes)
    return Found(
        name=dataset.name,
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        n_classes=n_classes,
        multi_label=everything.multi_label,
        channels=len(mean),
        side=everything.side,
        summary=summarise(everything, (train, val, test), dataset),
        held_out=images.held_out(everything, (train, val, test)).tobytes(),
        val_counts=tuple(counts.tolist()),
    )


@_once
def _tell_once(summary: Summary, search: str | None) -> None:
    """Show what was found before a search begins, each dataset of it once."""
    from sweeper.screen import Screen, whoever_reads
    from sweeper.training.summary import lines

    # Of several splits of one dataset only the first shows each class.
    is_first, screen = _is_first(summary.name, summary.classes, search), Screen()
    with whoever_reads():
        screen.tell(lines(summary, with_classes=is_first, width=screen.width))


def _is_first(*what: Any) -> bool:
    """Whether nothing was told of it yet."""
    key = repr(what)
    is_first = key not in _told
    _told.add(key)
    return is_first


_told: set[str] = set()


def check_model(model: schema.Model, shape: tuple[int, int, int], cwd: Path) -> None:
    """Outline the network, and compare its weights: so they are downloaded once, before the workers start.

    Raises:
        BadInput: if they do not fit, or a saved run may not import its network.
    """
    saved.check_import(model)  # each time: what is known to work may not be asked for by everybody
    _check_model(model, shape, cwd)


@_once
def _check_model(model: schema.Model, shape: tuple[int, int, int], cwd: Path) -> None:
    if model.source == "sweeper" and model.weights is None:
        return  # fits any image; and the parent of a search need not import torch
    from sweeper.training import weights

    weights.check(model, *shape)


_N_COPIES = 2
"""Of each weight at least: itself and its gradient."""
_FLOAT = 4


def check_memory(run: schema.Run, found: Found) -> None:
    """Raises BadInput for a network of ours, or a batch, that the whole machine has no room for.

    Only what is sure to be too large is refused, by a count of numbers: nothing is allocated.
    """
    sizes, per_image = {"filters": 0, "hidden_units": 0}, found.channels * found.side**2
    if run.model.source == "sweeper":
        sizes, per_image = _cnn_sizes(run.model, found)
        largest = max(sizes, key=lambda name: sizes[name])
        n_bytes = sum(sizes.values()) * _FLOAT * _N_COPIES
        value = getattr(run.model, largest)
        memory.check_fits(f"model.{largest}", value, n_bytes, "such a network", "write smaller numbers")
    batch = min(run.training.batch_size, found.n_train)
    at_once = min(run.training.micro_batch_size or batch, batch)
    if at_once * per_image * _FLOAT > memory.total() and not _splits_batches(run):
        what, remedy = f"{at_once:,} images in this network", "write a smaller one"
        key, n_bytes = "training.batch_size", at_once * per_image * _FLOAT
        memory.check_fits(key, run.training.batch_size, n_bytes, what, remedy)


def _cnn_sizes(model: schema.Model, found: Found) -> tuple[dict[str, int], int]:
    """Of ``training.model.build_cnn``: the weights that each key decides on, and the numbers of an image."""
    n_inputs, side = found.channels, found.side
    sizes, per_image = {"filters": 0, "hidden_units": 0}, n_inputs * side**2
    for n_filters in model.filters:
        sizes["filters"] += n_filters * (n_inputs * model.kernel_size**2 + 1)
        per_image += n_filters * side**2
        side = side // 2 if side >= 4 else side
        n_inputs = n_filters
    n_inputs *= side**2
    for n_units in [*model.hidden_units, found.n_classes]:
        sizes["hidden_units"] += n_units * (n_inputs + 1)
        per_image += n_units
        n_inputs = n_units
    return sizes, per_image


def _splits_batches(run: schema.Run) -> bool:
    """Whether it may run on a GPU, where a batch that does not fit is split."""
    from sweeper.search.engine import visible_gpus

    return run.device != "cpu" and bool(visible_gpus())
