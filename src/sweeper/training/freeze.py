"""The stages of a network, from input to head, and the first epoch in which each trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor, nn

from sweeper import schema

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


_PARTS = "_sweeper_parts"
"""Where a network of somebody else says what is its head, and on which images its stages show."""


def mark(model: nn.Module, head: str, probe: tuple[int, int]) -> None:
    """Name the head of a network of somebody else, and the channels and side of an image for its stages.

    Our own networks say so by their attributes ``head`` and ``probe``, which others may use otherwise.
    """
    model.__dict__[_PARTS] = head, probe


def _probe(model: nn.Module) -> tuple[int, int]:
    """Channels and side of an image on which the stages of a network show."""
    channels, side = model.__dict__.get(_PARTS, (None, None))[1] or model.probe  # type: ignore[misc]
    return channels, side


def head_name(model: nn.Module) -> str:
    """What a network calls its head."""
    name: str = model.__dict__.get(_PARTS, ("head",))[0]
    return name


@dataclass(frozen=True)
class Stage:
    """A part of a network that is frozen or trains as a whole; each parameter belongs to one stage, but for
    those that the network itself keeps fixed, such as positions (``requires_grad=False``).

    ``first_epoch``, counted from 1, is the first epoch in which it trains; None if never.
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]
    first_epoch: int | None = 1

    def trains_in(self, epoch: int) -> bool:
        return self.first_epoch is not None and self.first_epoch <= epoch


def plan(settings: schema.Freezing, model: nn.Module, by_stage: bool = False) -> list[Stage]:
    """The stages of a network, from input to head, with their first epochs.

    The body is one stage unless the way of freezing, or ``by_stage``, needs more.
    """
    needs_stages = by_stage or settings.name not in ("none", "head", "full")
    stages = find_stages(model) if needs_stages else [_body(model), _head(model)]
    return [
        replace(stage, first_epoch=first_epoch(settings, len(stages) - 1 - i))
        for i, stage in enumerate(stages)
    ]


def first_epoch(settings: schema.Freezing, distance: int) -> int | None:
    """First epoch in which the stage ``distance`` before the head trains; None if never."""
    if settings.name == "head":
        return 1 if distance == 0 else None
    if settings.name == "last_block":
        return 1 if distance <= 1 else None
    if settings.name == "gradual":
        return 1 + distance * (settings.every or 1)
    return 1


def begin_epoch(model: nn.Module, stages: Sequence[Stage], epoch: int) -> None:
    """Put the network into training mode, and its frozen stages into evaluation mode.

    So frozen batch norm keeps its statistics, and frozen dropout is off.
    """
    model.train()
    for stage in stages:
        trains = stage.trains_in(epoch)
        for parameter in stage.parameters:
            parameter.requires_grad_(trains)
        if not trains:
            for module in stage.modules:
                module.eval()
    frozen = {id(p) for stage in stages if not stage.trains_in(epoch) for p in stage.parameters}
    for module in model.modules():  # those outside the stages' modules, in which nothing trains
        parameters = list(module.parameters())
        if parameters and all(id(parameter) in frozen for parameter in parameters):
            module.training = False  # its parts by themselves


# --------------------------------------------------------------------------------------------- stages


@dataclass
class _Draft:
    """A stage under construction: its units by name, and the side of its feature maps in pixels."""

    units: list[str]
    side: float


def find_stages(model: nn.Module) -> list[Stage]:
    """The parts of a network that work at one resolution each, and finally its head.

    A stage starts where a unit halves the side of the feature maps (precisely: reduces it to two thirds or
    less), as papers on convolutional networks count stages. Units that output a sequence of tokens, such as
    the blocks of a vision transformer, are one stage each. Final layers that output vectors, and final
    normalisation, belong to the last stage. All this is seen by running the network once on an image of the
    size ``model.probe``.
    """
    units = dict(_units(model))
    drafts: list[_Draft] = []
    for name, output in _trace(model, units):
        begins = not drafts or _begins_stage(units[name], output, drafts[-1])
        if begins and _has_parameters(units[name]):
            drafts.append(_Draft([], _side(output) or inf))
        if drafts:
            drafts[-1].units.append(name)
    if not drafts:  # its parameters, if any, belong to no layer
        return [_body(model), _head(model)]
    return [*_stages(model, units, drafts), _head(model)]


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers and blocks of the body that stages consist of, by name."""
    n_body, head = sum(parameter.numel() for parameter in _body(model).parameters), head_name(model)

    def unfold(name: str, module: nn.Module, depth: int) -> Iterator[tuple[str, nn.Module]]:
        if name == head:
            return
        inner = list(module.named_children())
        has_blocks = type(module) is nn.Sequential and (
            depth <= 1 or any(list(child.children()) for _, child in inner)
        )
        # A ModuleList is never called.
        has_blocks = has_blocks or type(module) is nn.ModuleList
        holds_most = sum(parameter.numel() for parameter in module.parameters()) > n_body / 2
        if inner and (has_blocks or holds_most or head.startswith(f"{name}.")):
            for child_name, child in inner:
                yield from unfold(f"{name}.{child_name}", child, depth + 1)
        else:
            yield name, module

    for name, module in model.named_children():
        if name == "body":  # a library's network: its stages consist of its own parts
            for child_name, child in module.named_children():
                yield from unfold(f"body.{child_name}", child, 1)
        else:
            yield from unfold(name, module, 1)


def _trace(model: nn.Module, units: dict[str, nn.Module]) -> list[tuple[str, Any]]:
    """The units in the order of their calls, each with its output for the probe."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.setdefault(name, output)

    hooks = [unit.register_forward_hook(keep(name)) for name, unit in units.items()]
    channels, side = _probe(model)
    first = next(model.parameters())
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.inference_mode():
            model.eval()  # apart, as some networks' own return nothing
            model(torch.zeros(1, channels, side, side, device=first.device, dtype=first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return list(seen.items())


def _begins_stage(unit: nn.Module, output: Any, last: _Draft) -> bool:
    if isinstance(unit, NORMS):
        return False
    if isinstance(output, Tensor) and output.ndim == 3:
        return True
    side = _side(output)
    return side is not None and side > 1 and side <= last.side * 2 / 3


def _side(output: Any) -> int | None:
    """Side of square feature maps, with channels first or last; None for anything else."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    sizes = list(output.shape[1:])
    return next((size for size in sizes if sizes.count(size) > 1), None)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _stages(model: nn.Module, units: dict[str, nn.Module], drafts: Sequence[_Draft]) -> list[Stage]:
    place = {unit: i for i, draft in enumerate(drafts) for unit in draft.units}
    parameters: list[list[nn.Parameter]] = [[] for _ in drafts]
    of_head = {id(parameter) for parameter in model.get_submodule(head_name(model)).parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in of_head and parameter.requires_grad:
            owner = next((unit for unit in place if name.startswith(f"{unit}.")), None)
            # A parameter outside all units, such as a transformer's class token, is in the first stage.
            parameters[place[owner] if owner else 0].append(parameter)
    stages = []
    for draft, of_draft in zip(drafts, parameters, strict=True):
        weighty = [unit for unit in draft.units if _has_parameters(units[unit])]
        own = [unit for unit in weighty if not isinstance(units[unit], NORMS)] or weighty
        others = [head_name(model), *(unit for unit in place if unit not in draft.units)]
        ours = "" if _PARTS in model.__dict__ else "body."  # which says nothing to a person
        names = ([unit.removeprefix(ours) for unit in units_of] for units_of in (own, others))
        stages.append(Stage(_name(*names), tuple(units[u] for u in draft.units), tuple(of_draft)))
    return stages


def _name(own: Sequence[str], others: Sequence[str]) -> str:
    """The name that only this stage's units share (``layer1``), or their range (``features.4 … 5``)."""
    paths = [unit.split(".") for unit in own]

    def shortest(path: Sequence[str]) -> str | None:
        """The shortest prefix of the path that no other stage shares."""
        names = [".".join(path[: n + 1]) for n in range(len(path))]
        return next((n for n in names if not any(unit.startswith(f"{n}.") for unit in others)), None)

    common = commonprefix(paths)  # noqa: RUF071  # of lists of names, not of strings
    if name := shortest(common):
        return name
    if common:
        return f"{'.'.join(common)}.{paths[0][len(common)]} … {paths[-1][len(common)]}"
    return f"{shortest(paths[0])} … {shortest(paths[-1])}"


def _body(model: nn.Module) -> Stage:
    """All but the head, which may be within a module of others."""
    name = head_name(model)

    def outside(prefix: str, module: nn.Module) -> Iterator[nn.Module]:
        for child_name, child in module.named_children():
            path = f"{prefix}{child_name}"
            if name.startswith(f"{path}."):
                yield from outside(f"{path}.", child)
            elif path != name:
                yield child

    of_head = {id(parameter) for parameter in model.get_submodule(name).parameters()}
    parameters = tuple(p for p in model.parameters() if id(p) not in of_head and p.requires_grad)
    return Stage("body", tuple(outside("", model)), parameters)


def _head(model: nn.Module) -> Stage:
    head, name = model.get_submodule(head_name(model)), head_name(model)
    shown = f"{name} (head)" if _PARTS in model.__dict__ else "head"
    return Stage(shown, (head,), tuple(p for p in head.parameters() if p.requires_grad))
