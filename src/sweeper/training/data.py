"""The images of a dataset as tensors on the device, split into parts, with their statistics."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from sweeper.training.summary import Summary, summarise

GATHERED_AT_ONCE = 256


class Rows:
    """Some rows of a tensor of images, which may be on disk; read only when they are selected."""

    def __init__(self, images: Tensor, chosen: Tensor) -> None:
        self._images, self._chosen = images, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, some: slice) -> Tensor:
        return self._images.index_select(0, self._chosen[some])

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor that holds these rows."""
        return torch.Size((len(self), *self._images.shape[1:]))

    @property
    def device(self) -> torch.device:
        return self._images.device

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """As for a tensor, along the first dimension."""
        if dim != 0:
            raise ValueError("rows are selected along dimension 0")
        return self._images.index_select(0, self._chosen.index_select(0, index))


Pixels = Tensor | Rows


@dataclass(frozen=True)
class Data:
    """Everything that training reads, in memory or mapped from the cache folder.

    Images are uint8 (n, channels, height, width); labels are int64 (n,), or float32 (n, n_labels) of 0 and 1
    if images may have several. A network sees the centre of the images, ``side`` pixels wide, or an augmented
    version. ``mean`` and ``std`` are float32 (channels,) for pixel values in 0 … 1; if there are three for
    images of one channel, normalisation makes three channels. All trials of a process share the tensors, so
    they are read-only.
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
    """Fingerprint of this split and image size."""
    image_size: int | None = None
    """Side of the centre that a network sees; None means the whole image."""
    summary: Summary | None = None
    """What is told of it."""
    train_digests: NDArray[np.uint64] | None = None
    """Those of the training pictures (see ``Images``), to know them again."""
    held_out: NDArray[np.uint64] | None = None
    """Those of the pictures in val and test."""
    val_names: Sequence[str] | None = None
    """Those of the validation images within the data (see ``Images``), to find their files."""
    bits: int = 8
    """Of what was taken for white (see ``Images``)."""
    val_pictures: str = ""
    """16 hexadecimal digits that change with the validation pictures, their order, labels or classes; but not
    with the size at which a network sees them."""

    @property
    def device(self) -> torch.device:
        """The device to train on. The images may be elsewhere, if they do not fit there."""
        return self.mean.device

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels, instead of exactly one."""
        return self.train_y.ndim == 2

    @property
    def channels(self) -> int:
        """Number of channels after normalisation, as a network sees them."""
        return len(self.mean)

    @property
    def pixel_channels(self) -> int:
        """Number of channels of the images."""
        return self.train_x.shape[1]

    @property
    def side(self) -> int:
        """Side, in pixels, of the images that a network sees."""
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
"""The last dataset, by its key: all trials of a process read the same one, and two may not fit in memory."""


def load(dataset: schema.Dataset, device: torch.device) -> Data:
    """The dataset, split and ready to train on; read once per process unless its settings or files change.

    The tensors are on ``device`` if ``on_device`` is true, or if it is ``auto`` and they take less than half
    of its free memory.

    Raises:
        BadInput: if the files or the settings cannot be used for training.
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

    # No copy for image files, which are decoded in this order.
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
        summary=summarise(everything, (train, val, test), dataset),
        train_digests=None if everything.digests is None else everything.digests[train],
        held_out=images.held_out(everything, (train, val, test)),
        val_names=None if everything.names is None else [everything.names[i] for i in val],
        bits=everything.bits,
        val_pictures=images.pictures(everything, val),
    )


def tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor that shares its memory. Never write to a mapped one: the process would crash."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _gather(rows: Rows, home: torch.device) -> Tensor:
    """Copy the rows in pieces, because rows for a GPU need not fit into main memory."""
    gathered = torch.empty(rows.shape, dtype=torch.uint8, device=home)
    for start in range(0, len(rows), GATHERED_AT_ONCE):
        gathered[start : start + GATHERED_AT_ONCE] = rows[start : start + GATHERED_AT_ONCE]
    return gathered


def place(on_device: str, n_bytes: int, device: torch.device) -> torch.device:
    """The device to keep training data on: ``device`` if asked for, or if they take less than half of it."""
    if device.type != "cuda" or on_device.lower() == "false":
        return torch.device("cpu")
    if on_device.lower() == "true":
        return device
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return device if n_bytes < free_bytes / 2 else torch.device("cpu")
