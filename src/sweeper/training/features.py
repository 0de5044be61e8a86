"""The outputs (features) of frozen stages: computed once, and shared by all trials of the machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from sweeper.training import cache
from sweeper.training.data import tensor
from sweeper.training.freeze import Stage

log = logging.getLogger(__name__)

VERSION = 2
"""Increase it when the computation changes: all features are then computed anew."""


@dataclass(frozen=True)
class Cut:
    """A network split into its frozen and its trained part. Both use the network's own layers."""

    frozen: fx.GraphModule
    trained: fx.GraphModule


def n_frozen(stages: Sequence[Stage], epoch: int) -> int:
    """Number of frozen stages in an epoch, from the input to the first stage that trains."""
    return next((i for i, stage in enumerate(stages) if stage.trains_in(epoch)), len(stages))


def cut(model: nn.Module, stages: Sequence[Stage], n: int) -> Cut | None:
    """Split the network after its first n stages; None if several tensors cross."""
    leaves = [module for stage in stages for module in stage.modules]
    try:
        graph, trained = (_traced(model, leaves, in_training) for in_training in (False, True))
    except Exception as error:  # a network may run any code
        log.info("frozen stages are not computed once: the network cannot be traced (%s)", error)
        return None
    if str(graph) != str(trained):  # as with dropout(x, training=self.training)
        log.info("frozen stages are not computed once: the network asks by itself whether it trains")
        return None
    frozen_modules = {id(module) for stage in stages[:n] for module in stage.modules}
    before: set[fx.Node] = set()
    for node in graph.nodes:
        is_frozen = node.op != "call_module" or id(model.get_submodule(str(node.target))) in frozen_modules
        if node.op != "output" and is_frozen and all(source in before for source in node.all_input_nodes):
            before.add(node)
    crossing = [node for node in before if any(user not in before for user in node.users)]
    if len(crossing) != 1:
        return None
    return Cut(_part(model, graph, before, crossing[0]), _rest(model, graph, before, crossing[0]))


def _traced(model: nn.Module, leaves: Sequence[nn.Module], in_training: bool) -> fx.Graph:
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(in_training)  # apart, as some networks' own return nothing
        return _Tracer(leaves).trace(model)
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Tracer(fx.Tracer):
    """Traces a network down to the given modules, but not into them."""

    def __init__(self, leaves: Sequence[nn.Module]) -> None:
        super().__init__()
        self._leaves = {id(module) for module in leaves}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self._leaves or super().is_leaf_module(m, module_qualified_name)


def _part(model: nn.Module, graph: fx.Graph, before: set[fx.Node], end: fx.Node) -> fx.GraphModule:
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node in before:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    return fx.GraphModule(model, part)


def _rest(model: nn.Module, graph: fx.Graph, before: set[fx.Node], start: fx.Node) -> fx.GraphModule:
    rest = fx.Graph()
    copies = {start: rest.placeholder("features")}
    for node in graph.nodes:
        if node not in before:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, rest)


def digest(module: nn.Module, *others: object) -> str:
    """16 hexadecimal digits that change with any weight or statistic, the computation, or ``others``."""
    code = blake2b(digest_size=8)
    code.update(repr((VERSION, torch.__version__, getattr(module, "code", ""), others)).encode())
    for name, weight in module.state_dict().items():
        code.update(name.encode())
        code.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return code.hexdigest()


def compute(
    frozen: nn.Module,
    n_images: int,
    batch: Callable[[int, int], Tensor],
    batch_size: int,
    key: str,
    about: str,
) -> Tensor | None:
    """The features (n_images, ...) of all images, on the CPU; from the cache if they are there.

    Feature maps are stored with their channels last; ``channels_first`` restores the order.

    Args:
        frozen: in evaluation mode.
        batch: gives the network's input for the images from a start to an end.

    Returns:
        None if the cache has no room for them.
    """
    with torch.inference_mode():
        first = channels_last(frozen(batch(0, min(2, n_images))))
    dtype = first.dtype

    def fill(out: NDArray[Any]) -> None:
        with torch.inference_mode():
            for start in range(0, n_images, batch_size):
                stop = min(start + batch_size, n_images)
                out[start:stop] = _to_numpy(channels_last(frozen(batch(start, stop))).cpu())

    shape, stored = (n_images, *first.shape[1:]), _to_numpy(first[:1].cpu()).dtype
    array = cache.array("features", f"{key} {shape} {dtype}", shape, stored, fill, about)
    return None if array is None else tensor(array).view(dtype)


def channels_last(features: Tensor) -> Tensor:
    """Feature maps as (n, height, width, channels), as convolutions want them; other features unchanged."""
    return features.movedim(1, -1) if features.ndim == 4 else features


def channels_first(features: Tensor) -> Tensor:
    """Feature maps back as (n, channels, height, width); other features unchanged."""
    return features.movedim(-1, 1) if features.ndim == 4 else features


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    """As a numpy array; bfloat16, which numpy lacks, as its bits."""
    array: NDArray[Any] = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return np.ascontiguousarray(array)
