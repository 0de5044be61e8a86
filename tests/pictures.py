"""Image files for datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]


def write_picture(file: Path, colour: Colour = (90, 90, 90), size: tuple[int, int] = (20, 12)) -> None:
    """A picture of one colour; ``size`` is width and height."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def write_classes(
    root: Path, n_images: Mapping[str, int], size: tuple[int, int] = (12, 12), seed: int = 0
) -> Path:
    """A folder for each class with so many pictures of noise; the seed decides every pixel."""
    rng = np.random.default_rng(seed)
    for name, n in n_images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root
