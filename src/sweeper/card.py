"""What stands beside the weights of a model: all that a program must know to use them, in ``model.json``.

A card is data: nothing that it names is imported to read it. It needs neither the dataset, nor Hydra, nor
Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
"""The version of ``model.json``; a later one is refused."""

ONE, SEVERAL = "one", "several"
"""Labels of a picture."""


@dataclass(frozen=True)
class Network:
    """The fields of ``schema.Model`` that say how to build the network, under the same names.

    ``source`` is ``sweeper``, ``torchvision``, ``timm`` or ``custom``.
    """

    source: str
    name: str
    filters: tuple[int, ...] = ()
    kernel_size: int = 3
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    hidden_units: tuple[int, ...] = ()
    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None


@dataclass(frozen=True)
class Card:
    """All but the weights.

    A picture is shown upright, transparent pixels over ``background``; its shorter side is resized to
    ``image_size * margin`` pixels and the middle cropped to a square of that side, of which the network sees
    the middle ``image_size`` pixels; gray where ``pixel_channels`` is 1. Values in 0 … 1 are normalised by
    ``mean`` and ``std``, (in_channels,) each: three for a gray picture make three channels of it.
    Logits divided by ``temperature`` give probabilities: by softmax where a picture has ``one`` label, by
    sigmoid where it may have ``several``; then each label has a threshold.
    """

    network: Network
    classes: tuple[str, ...]
    labels: str
    """``one`` or ``several``."""
    thresholds: tuple[float, ...] | None
    """For several labels: the probability from which on a picture has each of ``classes``; else None."""
    in_channels: int
    """Of the network: 1 or 3."""
    pixel_channels: int
    """Of the pictures: 1 or 3."""
    image_size: int
    margin: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, int, int]
    max_megapixels: float
    bits: int
    """Of what is white in files of 16 bits that do not say: as the training pictures had it; 8 to 16."""
    temperature: float
    """Fitted on the validation logits (Guo et al. 2017)."""
    scores: Mapping[str, float]
    """``val_…`` and, once they are known, ``test_…``."""
    study: str | None
    trial: int | None

    @property
    def several_labels(self) -> bool:
        return self.labels == SEVERAL
