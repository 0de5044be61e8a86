"""The readers of datasets, by ``dataset.name``. No reader imports torch before it reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from sweeper import schema
from sweeper.training.dataset import Images
from sweeper.training.readers import csv_file, digits, image_folder, torchvision_sets


class Reader(Protocol):
    """A module with these two functions."""

    def read(self, dataset: schema.Dataset) -> Images:
        """All images. Raises BadInput on the key of ``dataset`` that has to change."""

    def files(self, dataset: schema.Dataset) -> Iterable[Path]:
        """The files that ``read`` reads, always in the same order; they need not exist."""


READERS: dict[str, Reader] = {
    "digits": digits,
    "image_folder": image_folder,
    "csv": csv_file,
    "mnist": torchvision_sets,
    "fashion_mnist": torchvision_sets,
    "cifar10": torchvision_sets,
    "cifar100": torchvision_sets,
}
