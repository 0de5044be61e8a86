"""One step of the optimizer: with gradient accumulation, compiled, or as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.loss import part_of
from sweeper.training.machine import autocast_in

log = logging.getLogger(__name__)

MOST_GRAPHS = 64
"""Graphs after which torch.compile gives up; its default of 8 is too few for a search over networks."""


class Step:
    """Learns from one batch after another.

    A batch of more than ``training.micro_batch_size`` images is split (gradient accumulation): the gradients
    add up to those of the whole batch's mean loss. Only layers that mix images differ: batch norm sees one
    piece at a time.

    CUDA graphs hold for the parameters that train when they are recorded: where others train, make another
    ``Step``.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        settings: schema.Training,
        device: torch.device,
    ) -> None:
        self._optimizer, self._loss_of = optimizer, loss_of
        self._at_once = settings.micro_batch_size
        self._autocast = autocast_in(settings.precision, device)
        # With gradient accumulation, each replay would overwrite the gradients of the one before.
        is_whole = self._at_once is None and not settings.compile
        as_graphs = settings.cuda_graphs and device.type == "cuda" and is_whole
        self._network = _Graphed(network, settings.precision) if as_graphs else network

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and predictions of the batch, both still on the device."""
        self._optimizer.zero_grad(set_to_none=True)
        losses, predictions = [], []
        for start, stop in batches(len(labels), self._at_once or len(labels)):
            some = labels[start:stop]
            with self._autocast():
                logits = self._network(inputs[start:stop])
            loss = self._loss_of(logits.float(), some)
            if len(some) < len(labels):
                loss = loss * part_of(self._loss_of, some, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            predictions.append(logits.detach().argmax(1))
        self._optimizer.step()
        return torch.stack(losses).sum(), torch.cat(predictions)


def batches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Starts and ends of the batches. A single last image joins the batch before: batch norm could learn no
    variance from it."""
    starts = list(range(0, n, batch_size))
    if n - starts[-1] == 1 and 1 < batch_size < n:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


# -------------------------------------------------------------------------------- gradient accumulation

_found: dict[str, int] = {}
"""Micro-batch sizes that this process found, by ``_key``, for batches too large for its GPU."""


def with_micro_batch_size(run: schema.Run) -> schema.Run:
    """The run with the ``training.micro_batch_size`` that this process found for such runs."""
    sizes = [size for size in (_found.get(_key(run)), run.training.micro_batch_size) if size is not None]
    return replace(run, training=replace(run.training, micro_batch_size=min(sizes, default=None)))


def halve_micro_batch_size(run: schema.Run) -> None:
    """Record that a batch did not fit: ``with_micro_batch_size`` gives half its size from now on.

    Raises:
        BadInput: if the batch was a single image.
    """
    settings = with_micro_batch_size(run).training
    tried = min(settings.batch_size, settings.micro_batch_size or settings.batch_size)
    if tried == 1:
        reason = "one image of it does not fit the GPU's memory"
        raise BadInput("model", run.model.name, reason, "take a smaller network or dataset.image_size")
    _found[_key(run)] = tried // 2
    log.warning(
        "%d images at once do not fit the GPU's memory: now %d, with the same batch size of %d",
        tried,
        tried // 2,
        settings.batch_size,
    )


def _key(run: schema.Run) -> str:
    """Everything a step's memory depends on; the dropout rate does not matter."""
    model, settings = replace(run.model, dropout=0.0, weights=None), run.training
    of_a_batch = settings.batch_size, settings.precision, settings.compile
    return repr((model, run.dataset, run.freezing, run.optimizer.name, run.device, of_a_batch))


# ----------------------------------------------------------------------------- how the network is called


class _Graphed(nn.Module):
    """A network whose forward and backward are CUDA graphs, recorded at the first batch.

    Batches of another shape run without graphs. Recording runs the network a few times, but leaves its
    weights and statistics and the random numbers unchanged.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self._in_bfloat16 = network, precision == "bfloat16"
        self._graphs: Callable[[Tensor], Tensor] | None = None
        self._shape = torch.Size()

    def forward(self, inputs: Tensor) -> Tensor:
        if self._graphs is None:
            self._graphs, self._shape = self._record(inputs), inputs.shape
        logits: Tensor = (self._graphs if inputs.shape == self._shape else self.network)(inputs)
        return logits

    def _record(self, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        state = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        # Wrapped, because make_graphed_callables replaces the forward of its argument.
        wrapped, device = nn.Sequential(self.network), inputs.device
        wrapped.training = True
        with (
            torch.random.fork_rng([device]),
            # Cached casts would freeze the weights as they are now.
            torch.autocast(device.type, torch.bfloat16, self._in_bfloat16, cache_enabled=False),
        ):
            graphs = torch.cuda.make_graphed_callables(wrapped, (inputs.clone(),), allow_unused_input=True)
        for name, tensor in self.network.state_dict().items():
            tensor.copy_(state[name])
        return cast(Callable[[Tensor], Tensor], graphs)


def compiled(model: nn.Module) -> nn.Module:
    """The network with ``torch.compile``; networks of the same architecture share a compiled graph.

    Changes the network: the dropout rate becomes a tensor, because each number would need a graph of its own.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout and 0 < child.p < 1:
                setattr(module, name, _Dropout(child.p).to(next(model.parameters()).device))
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return cast(nn.Module, torch.compile(model))


class _Dropout(nn.Module):
    """Dropout whose rate is a tensor."""

    keep_probability: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("keep_probability", torch.tensor(1 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.rand_like(x, dtype=torch.float32) < self.keep_probability
        return x * mask / self.keep_probability.to(x.dtype)
