"""Networks of torchvision and timm whose last layer makes room for one that knows the classes at hand."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, fx, nn

from sweeper import schema
from sweeper.training.library import LIBRARIES, USUAL_SIDE

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Second classifiers of GoogLeNet and Inception v3: in their weights, but never in the networks here."""


class Backbone(nn.Module):
    """A network of torchvision or timm without its last layer, and a new ``head`` in its place.

    Args:
        body: from images (n, 3, side, side) to features (n, ...).
        head: from the flattened features to a logit for each class.
        probe: channels and side of an image with which the body's stages can be told apart.
        left_out: names in the library's own weights of the layers that the body lacks.
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
    """Gray images (n, 1, side, side) as ones with three equal channels; others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


fx.wrap("expand")  # a tracer of the network must not look at the number of channels


def build_backbone(model: schema.Model, image_size: int, n_classes: int) -> Backbone:
    """The library's network with weights drawn as the library draws them, and a new head.

    Raises:
        BadInput: where the library has no such network, or builds none for images of that size.
    """
    body = LIBRARIES[model.source].body(model, image_size)
    head = nn.Sequential(nn.Dropout(model.dropout), nn.Linear(body.n_features, n_classes))
    side = USUAL_SIDE if body.takes_any_size else image_size
    return Backbone(body.network, head, (3, side), (*body.classifiers, *AUXILIARY))


def is_path(weights: str | None) -> TypeGuard[str]:
    """Whether ``model.weights`` is a path, not null or a name that the library knows."""
    return weights is not None and ("/" in weights or weights.endswith((".pt", ".pth", ".safetensors")))
