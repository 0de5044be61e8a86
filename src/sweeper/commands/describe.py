"""``sweeper describe [OVERRIDES]``: what a command would do, before it is run.

Nothing is written and nothing is downloaded.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import FloatDistribution, IntDistribution
from rich.console import Console
from rich.table import Table

from sweeper import check, schema
from sweeper.check import Found
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.errors import BadInput
from sweeper.literal import literal
from sweeper.program import TRUST, program
from sweeper.saved import Line, saved_run
from sweeper.search import opening, sweep
from sweeper.search.engine import n_cores
from sweeper.search.hooks import Hooks
from sweeper.search.parameter import Parameter, written
from sweeper.search.search import Search
from sweeper.search.settings import check_objective, launcher_name, read_settings, study_key
from sweeper.search.space import Draw, Space
from sweeper.secret import hide_secrets
from sweeper.training import freeze, summary, weights
from sweeper.training.backbone import is_path
from sweeper.training.machine import resolve_device
from sweeper.training.model import outline
from sweeper.training.optim import lr_factors
from sweeper.training.summary import Summary
from sweeper.words import counted, objectives, one_line

MOST_CLASSES = 1000
"""Of which each has its row."""
PIPED_WIDTH = 1000
"""Columns where there is no terminal: nothing is wrapped or cut."""

LR_KEYS = ("lr", "head_lr_factor", "stage_lr_decay")
"""What the stages' learning rates follow from, under ``optimizer``; they grow with each of these."""

SAME_STAGES: dict[str, Any] = {"dropout": 0.0, "activation": "relu", "init": "default", "weights": None}
"""Keys of a model that change neither its stages nor their sizes."""


@dataclass(frozen=True)
class Point:
    """One composition of the space: its run and its data."""

    run: schema.Run
    found: Found


@dataclass(frozen=True)
class Network:
    """The stages of a network by name, with how many parameters each has; the head is the last."""

    settings: schema.Model
    found: Found
    sizes: tuple[tuple[str, int], ...]


@dataclass
class Column:
    """A freezing option, with the longest training and the optimizers that trials have under it."""

    freezing: schema.Freezing
    n_epochs: int
    optimizers: list[schema.Optimizer]

    def first_epoch(self, distance: int) -> int | None:
        """That of a stage so far from the head; beyond ``n_epochs`` where training ends before."""
        return freeze.first_epoch(self.freezing, distance)

    def trains(self, distance: int) -> bool:
        first = self.first_epoch(distance)
        return first is not None and first <= self.n_epochs

    def lr(self, distance: int, n_stages: int) -> tuple[float, float]:
        """Its lowest and its highest, before the schedule, where all that it follows from is so."""
        ends = (
            replace(
                self.optimizers[0], **{key: pick(getattr(o, key) for o in self.optimizers) for key in LR_KEYS}
            )
            for pick in (min, max)
        )
        low, high = (o.lr * lr_factors(o, n_stages)[n_stages - 1 - distance] for o in ends)
        return low, high


def show(arguments: Sequence[str], trust: bool = False) -> None:
    """Print machine, data, networks, search space and the next command.

    Args:
        arguments: those of the command: overrides, and which config is run.
        trust: whether a saved run may import what it names.

    Raises:
        BadInput: for what the command would refuse, so far as that can be told without downloads.
    """
    with (
        saved_run(literal(arguments), trust) as line,
        composing(line.overrides),
        initialize_config_dir(str(conf_folder()), **VERSION_BASE),
    ):
        master, space = _compose(line)
        search, n_workers, gpus = read_settings(dict(master.hydra.sweeper.items()), master)
        # What it would ask our task is asked below, without downloads.
        if opening.is_chosen(master):
            opening.check(master, search, master.hydra.sweeper.in_process)
        sweep.check(Hooks(), space, search, study_key(master))
        draws = list(space.variations())
        points = _points(draws, search)
        networks, columns, console = _networks(points), _columns(points), _console()
        sections = [
            ("What it begins with", _machine(points, _workers(master, n_workers, gpus))),
            *((_title(n, networks), _network_table(n, columns)) for n in networks),
            (_space_title(space, master), _space_table(space, draws)),
            ("Search", _search_table(search, master)),
        ]
    for title, table in sections:
        console.print(title, table, "", sep="\n")
    begin = f"Search:    {program()} -m{f' {TRUST}' if trust else ''}"
    print(hide_secrets(" ".join([begin, *map(shlex.quote, arguments)])))


def _compose(line: Line) -> tuple[DictConfig, Space]:
    """The sweep's config and its space, as Hydra makes them for ``-m``, without a job."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    folder = [] if line.config_dir is None else [f"hydra.searchpath=[{written(line.config_dir)}]"]
    master = hydra.compose_config(line.config_name, [*line.overrides, *folder], RunMode.MULTIRUN)
    arguments: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
    return master, Space(master, arguments, hydra.config_loader)


def _points(draws: Iterable[Draw], search: Search) -> list[Point]:
    points = []
    for draw in draws:
        check_objective(search, draw.config)
        run = check.to_run(draw.config)
        check.check_direction(run, draw.config)
        points.append(Point(run, _inspect(run)))
    return points


def _inspect(run: schema.Run) -> Found:
    """As a search does before it starts, without downloads."""
    names_weights = run.model.weights is not None and not is_path(run.model.weights)
    model = replace(run.model, weights=None) if names_weights else run.model
    try:
        found = check.inspect(replace(run, dataset=replace(run.dataset, download=False), model=model))
    except BadInput as error:
        if not run.dataset.download or not error.key.startswith("dataset."):
            raise
        reason, remedy = f"{error.reason}, and describe downloads nothing", "run the command itself once"
        raise BadInput(error.key, error.value, reason, remedy) from error
    weights.fingerprint(run.model)  # refuses names that there are not
    return found


# -------------------------------------------------------------------------------- what it begins with


def _machine(points: Sequence[Point], workers: str) -> Table:
    table = _table(show_header=False)
    for name in dict.fromkeys(point.run.device for point in points):
        table.add_row("device", _device(resolve_device(name)))
    table.add_row("workers", workers)
    data = dict.fromkeys((replace(point.found, seen=None), point.run.dataset.path) for point in points)
    names = [_name_of(found) for found, _ in data]
    for found, path in data:
        parts = f"{found.n_train:,} train, {found.n_val:,} val, {found.n_test:,} test"
        name = _name_of(found)
        name = name if names.count(name) == 1 or path is None else f"{found.name} {one_line(path)}"
        table.add_row("data", f"{name}, {found.n_train + found.n_val + found.n_test:,} images: {parts}")
        kind = "labels, several to an image" if found.multi_label else "classes"
        channels = counted(found.channels, "channel")
        table.add_row("", f"{found.n_classes} {kind}; {found.side}×{found.side} pixels, {channels}")
        for title, text in _told_of(found.summary):
            table.add_row(title, text)
    begins = dict.fromkeys(
        ("random" if point.run.from_scratch else point.run.model.weights) or "random" for point in points
    )
    table.add_row("weights", ", ".join(begins))
    without_effect = [[*schema.unread_path(p.run), *schema.without_effect(p.run)] for p in points]
    for warning in without_effect[0]:
        if all(warning in told for told in without_effect):
            table.add_row("note", one_line(warning))
    for seen in dict.fromkeys(point.found.seen for point in points if point.found.seen):
        table.add_row("note", seen)
    return table


def _name_of(found: Found) -> str:
    return found.name if found.summary is None else one_line(found.summary.name)


def _told_of(told: Summary | None) -> Iterator[tuple[str, str]]:
    """Rows for what was found, where there is something to say."""
    if told is None:
        return
    yield "labels" if told.multi_label else "classes", "\n".join(summary.of_classes(told, most=MOST_CLASSES))
    if text := summary.left_out(told):
        yield "left out", one_line(text)
    yield from (("note", one_line(remark)) for remark in told.remarks)


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        n_gpus = torch.cuda.device_count()
        return f"{device}: {torch.cuda.get_device_name(device)}, {counted(n_gpus, 'GPU')}"
    n = n_cores()
    name = torch.backends.cpu.get_cpu_capability()
    return f"{device}: {name}, {counted(n, 'core')}"


def _workers(master: DictConfig, n_workers: int, gpus: Sequence[str]) -> str:
    if opening.is_chosen(master):
        return _jobs(master)
    n_jobs, share = master.hydra.sweeper.n_jobs, master.hydra.sweeper.workers_per_gpu
    said = f"hydra.sweeper.n_jobs={n_jobs}"
    if n_jobs == "auto":
        said += f": {share} for each GPU" if gpus else ": one for each core"
    return f"{n_workers} ({said})"


def _jobs(master: DictConfig) -> str:
    """What a launcher is asked for: how many workers a job has is known where its engine starts it."""
    sweeper = master.hydra.sweeper
    n, each = opening.n_jobs(sweeper.n_jobs), sweeper.workers_per_job
    asked = f"{counted(n, 'job')} of hydra/launcher={launcher_name(master)}"
    if each != "auto":
        return f"{asked}, {counted(each, 'worker')} each"
    return f"{asked}, a worker for each GPU or core that it gives"


# ------------------------------------------------------------------------------------------- networks


def _networks(points: Iterable[Point]) -> list[Network]:
    """The networks that trials may train, those with equal stages once."""
    asked: dict[str, Network] = {}
    for point in points:
        settings, found = replace(point.run.model, **SAME_STAGES), point.found
        shape = (found.channels, found.side, found.n_classes)
        key = repr((settings, shape))
        if key not in asked:
            weights.check(settings, *shape)
            stages = freeze.find_stages(outline(settings, *shape))
            sizes = ((stage.name, sum(p.numel() for p in stage.parameters)) for stage in stages)
            asked[key] = Network(settings, found, tuple(sizes))
    return list({repr((n.settings.source, n.settings.name, n.sizes)): n for n in asked.values()}.values())


def _columns(points: Iterable[Point]) -> list[Column]:
    """The freezing options that trials may have."""
    columns: dict[tuple[str, int | None], Column] = {}
    for point in points:
        freezing, n_epochs = point.run.freezing, point.run.training.epochs
        column = columns.setdefault(_freezing_key(freezing), Column(freezing, n_epochs, []))
        column.n_epochs = max(column.n_epochs, n_epochs)
        column.optimizers.append(point.run.optimizer)
    return list(columns.values())


def _freezing_key(freezing: schema.Freezing) -> tuple[str, int | None]:
    return freezing.name, freezing.every if freezing.name == "gradual" else None


def _title(network: Network, networks: Sequence[Network]) -> str:
    """Its name, and where there are several of that name what differs among them."""
    same = [_told(other) for other in networks if other.settings.name == network.settings.name]
    differing = {key: value for key, value in _told(network).items() if any(o[key] != value for o in same)}
    name = network.settings.target or network.settings.name
    return ", ".join([f"Network {name}", *(f"{k}={v}" for k, v in differing.items())])


def _told(network: Network) -> dict[str, Any]:
    model, found = dict(schema.flatten(network.settings, "model.")), network.found
    seen = {"dataset.image_size": found.side, "channels": found.channels, "classes": found.n_classes}
    return {**model, "dataset": found.name, **seen}


def _network_table(network: Network, columns: Sequence[Column]) -> Table:
    """A row for each stage, from the image to the head."""
    names, n_stages = [column.freezing.name for column in columns], len(network.sizes)
    table = _table("stage", show_footer=True)
    table.columns[0].footer = "total"
    n_all = sum(size for _, size in network.sizes)
    table.add_column("parameters", f"{n_all:,}", justify="right", no_wrap=True)
    for column in columns:
        every = f", every {column.freezing.every}" if names.count(column.freezing.name) > 1 else ""
        trained = f"{_n_trained(network, column):,} train"
        table.add_column(f"freezing:\n{column.freezing.name}{every}", trained, overflow="fold")
    for i, (name, size) in enumerate(network.sizes):
        cells = (_cell(column, n_stages - 1 - i, n_stages) if size else "fixed" for column in columns)
        table.add_row(name, f"{size:,}", *cells)
    return table


def _n_trained(network: Network, column: Column) -> int:
    """How many parameters ever train."""
    n_stages = len(network.sizes)
    return sum(size for i, (_, size) in enumerate(network.sizes) if column.trains(n_stages - 1 - i))


def _cell(column: Column, distance: int, n_stages: int) -> str:
    first = column.first_epoch(distance)
    if first is None:
        return "frozen"
    if first > column.n_epochs:
        return f"frozen, epoch {first} > {column.n_epochs}"
    low, high = (_number(lr, digits=3) for lr in column.lr(distance, n_stages))
    return f"from epoch {first}, lr {low if low == high else f'{low} … {high}'}"


# ------------------------------------------------------------------------------------------- the space


def _space_title(space: Space, master: DictConfig) -> str:
    if not space.parameters():
        return "Search space: everything is fixed"
    is_swept = len(space.fixed) < len(master.hydra.overrides.task)
    return (
        "Search space"
        if is_swept
        else "Search space (nothing is swept in the command: these are the ranges of conf/)"
    )


def _space_table(space: Space, draws: Sequence[Draw]) -> Table:
    conditions = _conditions(space, draws)
    table = _table("parameter", "range", *(["only with"] if conditions else []))
    for name, parameter in space.parameters().items():
        table.add_row(name, _range(parameter), *([conditions.get(name, "")] if conditions else []))
    return table


def _conditions(space: Space, draws: Sequence[Draw]) -> dict[str, str]:
    """By parameter, the options with which it exists; of those that do not always."""
    parameters, conditions = space.parameters(), dict[str, str]()
    for name in parameters:
        having, lacking = ([d for d in draws if (name in d.params) is has] for has in (True, False))
        # The draws show each option, so what none of them lacks always exists.
        if lacking:
            choices = having[0].config.hydra.runtime.choices
            groups = [parameters[p] for p in having[0].params if parameters[p].path in choices]
            conditions[name] = _told_by_draws(groups, having, lacking) or "some options"
    return conditions


def _told_by_draws(
    groups: Iterable[Parameter], having: Sequence[Draw], lacking: Sequence[Draw]
) -> str | None:
    """The options of the one group that alone tells the draws that have a parameter from the others."""
    for group in groups:
        options = {draw.params.get(group.name, ...) for draw in having}
        if options.isdisjoint(draw.params.get(group.name, ...) for draw in lacking):
            return _told_option(group, options)
    return None


def _told_option(group: Parameter, options: Collection[Any]) -> str:
    texts = [text for value, text in zip(group.values(), group.texts, strict=True) if value in options]
    return f"{group.path}={','.join(texts)}"


def _range(parameter: Parameter) -> str:
    distribution = parameter.distribution
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return ", ".join(text.partition("=")[2] for text in map(parameter.text, parameter.values()))
    said = [" … ".join(dict.fromkeys(map(_number, parameter.ends())))]
    if isinstance(distribution, IntDistribution):
        said.append("integers")
    if distribution.step not in (None, 1):
        said.append(f"step {_number(distribution.step)}")
    return ", ".join([*said, *(["log"] if distribution.log else [])])


def _search_table(search: Search, master: DictConfig) -> Table:
    table, choices, sweeper = _table(show_header=False), master.hydra.runtime.choices, master.hydra.sweeper
    names = objectives(search.metrics, len(search.directions))
    aims = [f"{name} ({direction})" for name, direction in zip(names, search.directions, strict=True)]
    seconds = "" if sweeper.timeout_s is None else f", none started after {_number(sweeper.timeout_s)} s"
    table.add_row("objective", ", ".join(aims))
    table.add_row(
        "budget", ("no limit" if search.n_trials is None else counted(search.n_trials, "trial")) + seconds
    )
    table.add_row("sampler", str(choices.get("hydra/sweeper/sampler")))
    pruner, cls = choices.get("hydra/sweeper/pruner"), search.pruner["_target_"].rpartition(".")[2]
    table.add_row("pruner", f"auto ({cls})" if pruner == "auto" else str(pruner))
    if search.custom_search_space is not None:
        table.add_row("more parameters", f"those that {search.custom_search_space} suggests")
    return table


# ----------------------------------------------------------------------------------------- how it looks


def _console() -> Console:
    is_told = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Names like optimizer.lr[freezing=head] are no markup.
    return Console(highlight=False, markup=False, emoji=False, width=None if is_told else PIPED_WIDTH)


def _table(*headers: str, **options: bool) -> Table:
    table = Table(**options)  # type: ignore[arg-type]
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _number(number: float, digits: int = 6) -> str:
    """Short, and without the zeros of an exponent: 1e-4."""
    if not 0 < abs(number) <= 0.01:
        return f"{number:.{digits}g}"
    mantissa, _, exponent = f"{number:.{digits - 1}e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
