"""Networks, built from the settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.backbone import build_backbone
from sweeper.training.custom import build_custom, only_made
from sweeper.training.network_library import LIBRARIES

ACTIVATIONS: dict[str, type[nn.ReLU | nn.LeakyReLU]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class Cnn(nn.Module):
    """Convolutions, then fully connected layers; the last one, ``head``, gives a logit for each class.

    Args:
        features: from images (n, channels, side, side) to any shape (n, ...).
        hidden: from the flattened features to the head's input.
        probe: channels and side of the images.
    """

    def __init__(
        self, features: nn.Sequential, hidden: nn.Sequential, head: nn.Linear, probe: tuple[int, int]
    ) -> None:
        super().__init__()
        self.features, self.hidden, self.head = features, hidden, head
        self.probe = probe

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.features(images).flatten(1)))
        return logits


def build(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> nn.Module:
    """A new network from images (n, in_channels, image_size, image_size) to logits (n, n_classes).

    Its weights are drawn from torch's global generator; ``model.weights`` are not loaded. Its attribute
    ``head`` holds its last layers; all others are its body. Its attribute ``probe`` holds the channels and
    side of an image on which the stages of the body can be told apart. A network of somebody else keeps its
    own attributes: ``freeze.mark`` notes both.

    Raises:
        BadInput: if a library has no such network, or none for images of that size; for ``custom``, if the
            person's code does not make such a network.
    """
    if model.source == "custom":
        return build_custom(model, in_channels, image_size, n_classes)
    if model.source not in LIBRARIES:
        return registry[model.name](model, in_channels, image_size, n_classes)
    backbone = build_backbone(model, image_size, n_classes)
    initialise(backbone.head, model.init, follows="linear")
    return backbone


def outline(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> nn.Module:
    """The network of ``build`` on the meta device: layers and shapes without values.

    A network of somebody else, whose code may ask for values, has them. Leaves torch's global generator
    unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        if model.source == "custom":
            return build(model, in_channels, image_size, n_classes)
        try:
            with _WithoutMemory():
                network = build(model, in_channels, image_size, n_classes)
        except RuntimeError:
            # Some constructors of timm run their first layers to find the shape of the output.
            network = build(model, in_channels, image_size, n_classes)
    return network.to("meta")


def outline_custom(
    model: schema.Model, in_channels: int, image_size: int, n_classes: int
) -> nn.Module | None:
    """The same of a library's network that ``model.target`` names; None if it is none then."""
    with suppress(BadInput), torch.random.fork_rng(devices=[]), _WithoutMemory():
        network = only_made(model, in_channels, image_size, n_classes)
        return network if isinstance(network, nn.Module) else None
    return None


class _WithoutMemory(TorchFunctionMode):
    """Puts tensors of ``torch.empty``, as weights are, on the meta device, but no others.

    torch.device("meta") would take all tensors, but some constructors (RegNet, Swin) compute with theirs.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def build_cnn(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> Cnn:
    """A small convolutional network: a block for each of ``filters``, a layer for each of ``hidden_units``.

    A block halves the side of its feature maps while at least 2 pixels remain; later blocks keep it, so any
    number of filters fits any image.
    """
    activation, probe = ACTIVATIONS[model.activation], (in_channels, image_size)
    features, side = nn.Sequential(), image_size
    for n_filters in model.filters:
        features.append(nn.Conv2d(in_channels, n_filters, model.kernel_size, padding="same"))
        if model.batch_norm:
            features.append(nn.BatchNorm2d(n_filters))
        if side >= 4:
            # Before the activation: the same result, as that is monotonic, for a quarter of the work.
            features.append(nn.MaxPool2d(2))
            side //= 2
        features.append(activation(inplace=True))
        in_channels = n_filters

    hidden, n_inputs = nn.Sequential(), in_channels * side * side
    for n_units in model.hidden_units:
        hidden.extend([nn.Linear(n_inputs, n_units), activation(inplace=True), nn.Dropout(model.dropout)])
        n_inputs = n_units

    cnn = Cnn(features, hidden, nn.Linear(n_inputs, n_classes), probe)
    initialise(cnn.features, model.init, follows=model.activation)
    initialise(cnn.hidden, model.init, follows=model.activation)
    initialise(cnn.head, model.init, follows="linear")
    return cnn


def initialise(layers: nn.Module, init: str, follows: str) -> None:
    """Draw the weights anew with the gain of the activation that ``follows`` them, and zero the biases.

    ``default`` keeps PyTorch's own weights. No activation follows a head: ``linear``.
    """
    if init == "default":
        return
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            INITS[init](layer.weight, follows)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _xavier_uniform(weight: Tensor, activation: str) -> None:
    nn.init.xavier_uniform_(weight, nn.init.calculate_gain(activation))  # type: ignore[arg-type]


def _kaiming_uniform(weight: Tensor, activation: str) -> None:
    nn.init.kaiming_uniform_(weight, a=0.01, nonlinearity=activation)  # type: ignore[arg-type]


INITS: dict[str, Callable[[Tensor, str], None]] = {
    "xavier_uniform": _xavier_uniform,
    "kaiming_uniform": _kaiming_uniform,
}

registry: dict[str, Callable[[schema.Model, int, int, int], nn.Module]] = {"cnn": build_cnn}
"""Our own networks by ``model.name``; a new one is a new entry. The others come from libraries."""
