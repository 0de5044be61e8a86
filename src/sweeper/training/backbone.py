"""Networks of torchvision and timm with a new head in place of their last layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

from torch import Tensor, fx, nn

from sweeper import schema
from sweeper.training.network_library import LIBRARIES, USUAL_SIDE
from sweeper.words import expanded

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Auxiliary classifiers of GoogLeNet and Inception v3: in their weights, but not in the networks here."""


class Backbone(nn.Module):
    """A network of torchvision or timm with a new ``head`` in place of its last layer.

    Args:
        body: from images (n, 3, side, side) to features (n, ...).
        head: from the flattened features to a logit for each class.
        probe: channels and side of an image on which the body's stages can be told apart.
        left_out: layers that the body lacks, as the library's own weights call them.
    """

    def __init__(
        self, body: nn.Module, head: nn.Sequential, probe: tuple[int, int], left_out: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.probe, self.left_out = probe, left_out

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(expand(images)).flatten(1))
        return logits


def expand(images: Tensor) -> Tensor:
    """Gray images (n, 1, side, side) with their channel repeated three times; other images unchanged."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


fx.wrap("expand")  # the number of channels cannot be traced


def build_backbone(model: schema.Model, image_size: int, n_classes: int) -> Backbone:
    """The library's network, with the library's random initialisation and a new head.

    Raises:
        BadInput: if the library has no such network, or cannot build it for images of that size.
    """
    body = LIBRARIES[model.source].body(model, image_size)
    head = nn.Sequential(nn.Dropout(model.dropout), nn.Linear(body.n_features, n_classes))
    side = USUAL_SIDE if body.takes_any_size else image_size
    return Backbone(body.network, head, (3, side), (*body.classifiers, *AUXILIARY))


def is_path(weights: str | None) -> TypeGuard[str]:
    """Whether ``model.weights`` is a path, rather than null or a name that the library knows.

    It is one if something is there, or if it looks like one: with a slash, or with an extension in small
    letters, which no library has in its names. ``DEFAULT`` is always a name.
    """
    if weights is None or weights == "DEFAULT":
        return False
    if "/" in weights or os.path.exists(expanded(weights)):  # noqa: PTH110  # which never raises
        return True
    suffix = Path(weights).suffix
    return suffix.islower() or suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
