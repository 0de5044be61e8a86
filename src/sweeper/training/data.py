"""The images of a dataset as tensors on the device, divided into parts, with their statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from sweeper import schema
from sweeper.training import images


@dataclass(frozen=True)
class Data:
    """Everything that training reads, in memory.

    Images are uint8 (n, channels, height, width); labels int64 (n,), or float32 (n, n_labels) of 0 and 1
    where an image may have several. ``mean`` and ``std`` are float32 (channels,) for pixel values in 0 … 1;
    three for images of one channel mean that normalising makes three of it. Trials of one process share the
    tensors: nobody writes to them.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    allow_hflip: bool = False
    allow_vflip: bool = False

    @property
    def device(self) -> torch.device:
        """Where to train. The images may be elsewhere, if they are too many to fit there."""
        return self.mean.device

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels, and not just one."""
        return self.train_y.ndim == 2

    @property
    def channels(self) -> int:
        """How many a network sees, after normalising."""
        return len(self.mean)

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Images and labels of ``train``, ``val`` or ``test``."""
        parts = {
            "train": (self.train_x, self.train_y),
            "val": (self.val_x, self.val_y),
            "test": (self.test_x, self.test_y),
        }
        return parts[name]


_last: dict[str, Data] = {}
"""At most one: hundreds of trials in a process read the same data, and two sets may not fit."""


def load(dataset: schema.Dataset, device: torch.device) -> Data:
    """The dataset, split and ready; read once per process while neither settings nor files change.

    The tensors are on ``device`` if ``on_device`` says so, or if it is ``auto`` and they take less than
    half of the memory that is free there.

    Raises:
        BadInput: where the files or the settings cannot be trained on.
    """
    key = f"{asdict(dataset)} {device} {images.stamp(dataset)}"
    if key not in _last:
        _last.clear()
        _last[key] = _load(dataset, device)
    return _last[key]


def _load(dataset: schema.Dataset, device: torch.device) -> Data:
    everything = images.read(dataset)
    train, val, test = images.split(everything, dataset)
    mean, std = images.statistics(dataset.normalization, everything.pixels[train])
    labels = everything.labels.astype(np.float32) if everything.multi_label else everything.labels
    place = _place(dataset.on_device, everything.pixels.nbytes, device)

    def part(indices: images.Indices) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(everything.pixels[indices]).permute(0, 3, 1, 2).contiguous()
        return pixels.to(place), torch.from_numpy(labels[indices]).to(place)

    return Data(
        *part(train),
        *part(val),
        *part(test),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        classes=everything.classes,
        fingerprint=images.fingerprint(everything),
        allow_hflip=dataset.allow_hflip,
        allow_vflip=dataset.allow_vflip,
    )


def _place(on_device: str, n_bytes: int, device: torch.device) -> torch.device:
    if device.type != "cuda" or on_device.lower() == "false":
        return torch.device("cpu")
    if on_device.lower() == "true":
        return device
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return device if n_bytes < free_bytes / 2 else torch.device("cpu")
