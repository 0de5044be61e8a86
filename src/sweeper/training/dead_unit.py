"""Dead units of our own CNN: those that no image activates, so that no gradient reaches them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.training.augment import Augment
from sweeper.training.data import Data
from sweeper.training.model import Cnn

N_IMAGES = 256
"""A unit that none of so many images activates gets no gradient from nearly all others, too."""


def dead_units(model: nn.Module, data: Data) -> float | None:
    """The fraction of units behind a ReLU that no image of a batch activates; None for other networks.

    A unit is a feature map, or one of a fully connected layer. The batch holds validation images, and
    training images where these are few. Draws no random number and changes nothing.
    """
    if not isinstance(model, Cnn):
        return None
    layers = [layer for layer in (*model.features, *model.hidden) if isinstance(layer, nn.ReLU)]
    if not layers:
        return None
    alive: list[Tensor] = []

    def see(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        others = [dim for dim in range(output.ndim) if dim != 1]
        alive.append((output > 0).sum(others) > 0)

    hooks = [layer.register_forward_hook(see) for layer in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.inference_mode():
            model(_images(data))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return 1 - torch.cat(alive).double().mean().item()


def _images(data: Data) -> Tensor:
    n_val = min(len(data.val_x), N_IMAGES)
    some = [(data.val_x, n_val), (data.train_x, min(len(data.train_x), N_IMAGES - n_val))]
    pixels = [images.index_select(0, torch.arange(n, device=images.device)) for images, n in some if n]
    return Augment(schema.Augmentation(), data).normalize(torch.cat(pixels).to(data.device))
