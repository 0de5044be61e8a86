"""What a model says of the validation images, with thumbnails of those that a person should look at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from sweeper.results.answer import Labels, picked
from sweeper.results.prediction import Predictions
from sweeper.results.val_logits import ValLogits, rounded
from sweeper.training.data import Data

MOST_SIDE = 64
MOST_BYTES = 100_000
"""Of all thumbnails of a run: 16 of 45 × 45 pixels in RGB, or of 64 × 64 in gray."""


def predictions(logits: Tensor, labels: Tensor, data: Data) -> Predictions:
    """What ``fit.predict`` gave for the validation part, to be kept."""
    said, true = _in_numpy(logits, labels)
    shown = picked(true, said)
    names = data.val_names
    return Predictions(
        logits=said,
        labels=true,
        classes=data.classes,
        shown=shown,
        thumbnails=thumbnails(data, shown),
        names=tuple("" if names is None else names[i] for i in shown),
    )


def val_logits(logits: Tensor, labels: Tensor, data: Data) -> ValLogits:
    """The same in less room, for comparisons with other trials."""
    said, true = _in_numpy(logits, labels)
    return ValLogits(rounded(said, data.multi_label), true, data.val_pictures)


def _in_numpy(logits: Tensor, labels: Tensor) -> tuple[NDArray[np.float32], Labels]:
    said = logits.float().cpu().numpy()
    return said, labels.to(torch.uint8 if labels.ndim == 2 else torch.int64).cpu().numpy()


def thumbnails(data: Data, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What the network sees of these validation images, smaller where they would take much room: uint8
    (n, side, side, channels).
    """
    pixels = data.val_x.index_select(0, torch.from_numpy(chosen).to(data.val_x.device)).cpu()
    first, n_channels = (pixels.shape[-1] - data.side) // 2, pixels.shape[1]
    seen = pixels[:, :, first : first + data.side, first : first + data.side]
    side = min(data.side, MOST_SIDE, int((MOST_BYTES / (max(1, len(chosen)) * n_channels)) ** 0.5))
    if side < data.side:
        smaller = interpolate(seen.float(), size=(side, side), mode="bilinear", antialias=True)
        seen = smaller.round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(seen.permute(0, 2, 3, 1).numpy())
