"""The images of a dataset as tensors on the device, divided into parts, with their statistics."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweeper import schema
from sweeper.training import images
from sweeper.training.dataset import COPIED_BYTES

GATHERED_AT_ONCE = 256


class Rows:
    """Some of the images of a tensor, read only when they are asked for; they may be on disk."""

    def __init__(self, images: Tensor, chosen: Tensor) -> None:
        self._images, self._chosen = images, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, some: slice) -> Tensor:
        return self._images.index_select(0, self._chosen[some])

    @property
    def shape(self) -> torch.Size:
        """That of the tensor they would be."""
        return torch.Size((len(self), *self._images.shape[1:]))

    @property
    def device(self) -> torch.device:
        return self._images.device

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """As of a tensor, along the first dimension."""
        if dim != 0:
            raise ValueError("rows are selected along dimension 0")
        return self._images.index_select(0, self._chosen.index_select(0, index))


Pixels = Tensor | Rows


@dataclass(frozen=True)
class Data:
    """Everything that training reads, in memory or mapped from the cache's folder.

    Images are uint8 (n, channels, height, width); labels int64 (n,), or float32 (n, n_labels) of 0 and 1
    where an image may have several. A network sees the images' middle, of the size ``side``, or what
    augmentation makes of them. ``mean`` and ``std`` are float32 (channels,) for pixel values in 0 … 1;
    three for images of one channel mean that normalising makes three of it. Trials of one process share the
    tensors: nobody writes to them.
    """

    train_x: Pixels
    train_y: Tensor
    val_x: Pixels
    val_y: Tensor
    test_x: Pixels
    test_y: Tensor
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    allow_hflip: bool = False
    allow_vflip: bool = False
    split: str = ""
    """Tells this division into parts, and the side that is seen, from others of the same images."""
    image_size: int | None = None
    """The side of the middle that a network sees; None where it sees all of the image."""

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

    @property
    def side(self) -> int:
        """Of the images that a network sees, in pixels."""
        return self.image_size or self.train_x.shape[-1]

    def part(self, name: str) -> tuple[Pixels, Tensor]:
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
    mean, std = images.statistics(dataset.normalization, everything.pixels, train)
    labels = everything.labels.astype(np.float32) if everything.multi_label else everything.labels
    division = b" ".join([str(everything.side).encode(), *(i.tobytes() for i in (train, val, test))])
    home = place(dataset.on_device, everything.pixels.nbytes, device)

    # Image files are decoded into this order: then nothing is copied.
    pixels = tensor(np.ascontiguousarray(everything.pixels.transpose(0, 3, 1, 2)))

    def part(indices: images.Indices) -> tuple[Pixels, Tensor]:
        rows = Rows(pixels, torch.from_numpy(indices))
        stays = home.type == "cpu" and everything.pixels.nbytes >= COPIED_BYTES
        return rows if stays else _gather(rows, home), torch.from_numpy(labels[indices]).to(home)

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
        split=blake2b(division, digest_size=8).hexdigest(),
        image_size=everything.image_size,
    )


def tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor that shares its memory. A mapped one must not be written to: it would crash."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _gather(rows: Rows, home: torch.device) -> Tensor:
    """In pieces: what goes to a GPU need not fit into memory before."""
    gathered = torch.empty(rows.shape, dtype=torch.uint8, device=home)
    for start in range(0, len(rows), GATHERED_AT_ONCE):
        gathered[start : start + GATHERED_AT_ONCE] = rows[start : start + GATHERED_AT_ONCE]
    return gathered


def place(on_device: str, n_bytes: int, device: torch.device) -> torch.device:
    """Where to keep so many bytes that are trained on: on the device if asked, or if they fit there well."""
    if device.type != "cuda" or on_device.lower() == "false":
        return torch.device("cpu")
    if on_device.lower() == "true":
        return device
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return device if n_bytes < free_bytes / 2 else torch.device("cpu")
