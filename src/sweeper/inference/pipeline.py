"""From the bytes of decoded pictures to probabilities, as one network that torch.export can trace.

The picture is resized as Pillow does it, to the last bit, by products of matrices: so a file that is exported
needs no Pillow, and says what the model says.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from sweeper.card import Card

_ONE = 2.0**22
"""Pillow's weights are whole numbers of this one's parts (``PRECISION_BITS`` of its Resample.c). Sums of them
times 255 are exact in float64, whatever the order."""

_LUMA = (65536, 19595, 38470, 7471)
"""Parts of 65536: of a gray picture itself; of red, green and blue, as Pillow makes gray of them."""


class Scorer(nn.Module):
    """From what the network sees, uint8 (n, pixel_channels, image_size, image_size), to probabilities
    (n, n_classes).

    Args:
        network: from normalised images to logits.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network, self.temperature, self.several_labels = network, card.temperature, card.several_labels
        mean, std = (torch.tensor(each, dtype=torch.float32) for each in (card.mean, card.std))
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("offset", (-mean / std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        # As augment.Augment normalises: to the last bit what the training has seen.
        logits: Tensor = self.network(torch.addcmul(self.offset, pixels.float(), self.scale))
        logits = logits.float() / self.temperature
        return logits.sigmoid() if self.several_labels else logits.softmax(1)


class Pipeline(nn.Module):
    """From decoded pictures, uint8 (n, channels, height, width) of any number and size, to probabilities
    (n, n_classes).

    Channels are red, green and blue; a model of gray pictures also takes those of one.
    """

    def __init__(self, scorer: Scorer, card: Card) -> None:
        super().__init__()
        self.resize = Resize(card.image_size, card.stored_side, takes_columns_first())
        self.scorer, self.is_gray = scorer, card.pixel_channels == 1

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = self.resize(pictures)
        probabilities: Tensor = self.scorer(_gray(pixels) if self.is_gray else pixels)
        return probabilities


def _gray(pixels: Tensor) -> Tensor:
    """Of one channel or three; of any other number an index that is not there is an error, in all formats."""
    n = pixels.shape[1]
    chosen = torch.arange(n, device=pixels.device) + (n - 1) // 2 + 100 * (n - 1) * (3 - n)
    parts = torch.tensor(_LUMA, dtype=torch.int32, device=pixels.device)[chosen].view(1, -1, 1, 1)
    luma = (pixels.to(torch.int32) * parts).sum(1, keepdim=True, dtype=torch.int32)
    return ((luma + 32768) // 65536).to(torch.uint8)


# ---------------------------------------------------------------------------------------------- resizing


class Resize(nn.Module):
    """The middle ``side`` pixels of what ``ImageOps.fit(picture, (stored, stored), BILINEAR)`` gives.

    Pillow rounds to 8 bits between its passes, so that their order matters.

    Args:
        columns_first: whether Pillow begins with the columns of a picture that is much taller than wide.
    """

    def __init__(self, side: int, stored: int, columns_first: bool) -> None:
        super().__init__()
        self.side, self.stored, self.columns_first = side, stored, columns_first

    def forward(self, pictures: Tensor) -> Tensor:
        # Sizes as numbers of the graph: each picture computes its own weights.
        (_, _, n_rows, n_columns), device = pictures.shape, pictures.device
        height = torch.full((), n_rows, dtype=torch.float64, device=device)
        width = torch.full((), n_columns, dtype=torch.float64, device=device)
        shorter = torch.minimum(height, width)
        down = self._weights(_count(n_rows, device), height, shorter)
        along = self._weights(_count(n_columns, device), width, shorter)
        values = (pictures.double(), down, along)
        if not self.columns_first:
            return _rows_first(*values)
        is_tall = (height > self.stored) & (height - self.stored > 2 * (width - self.stored))
        if torch.compiler.is_exporting():
            resized: Tensor = torch.cond(is_tall, _columns_first, _rows_first, values)
            return resized
        return _columns_first(*values) if is_tall else _rows_first(*values)

    def _weights(self, positions: Tensor, size: Tensor, shorter: Tensor) -> Tensor:
        """Of each pixel of an axis (side, size) in the results, as Pillow's ``precompute_coeffs`` has them: a
        triangle that is at least as wide as a pixel of either picture.
        """
        scale = shorter / self.stored
        results = _count(self.side, positions.device) + (self.stored - self.side) // 2
        centres = (size - shorter) * 0.5 + (results + 0.5) * scale
        distances = (positions - centres[:, None] + 0.5) * (1 / scale.clamp(min=1.0))
        weights = (1 - distances.abs()).clamp(min=0.0)
        weights = weights / weights.sum(1, keepdim=True)
        return (weights * _ONE + 0.5).floor()


def _count(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, dtype=torch.float64, device=device)


def _rows_first(values: Tensor, down: Tensor, along: Tensor) -> Tensor:
    return _rounded(down @ _rounded(values @ along.mT)).to(torch.uint8)


def _columns_first(values: Tensor, down: Tensor, along: Tensor) -> Tensor:
    return _rounded(_rounded(down @ values) @ along.mT).to(torch.uint8)


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + _ONE / 2) / _ONE).floor().clamp(0, 255)


@cache
def takes_columns_first() -> bool:
    """Whether the Pillow that is installed does so (version 13 does): seen on a picture that shows it."""
    tall = (np.arange(60) * 37 % 256).astype(np.uint8).reshape(15, 4)
    small = ImageOps.fit(Image.fromarray(tall), (3, 3), Image.Resampling.BILINEAR)
    ours = Resize(3, 3, columns_first=False)(torch.from_numpy(tall)[None, None])
    return not np.array_equal(ours[0, 0].numpy(), np.asarray(small))
