"""Image files to square RGB pixels, and pixels to another size."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.collection import Indices

log = logging.getLogger(__name__)

DEFAULT_SIZE = 64
SCALED_AT_ONCE = 1024
"""By one thread: a small image takes less time than handing it over."""


class UnknownRangeError(Exception):
    """The file does not say which of its values is white. Its text stands behind the file's name."""


def read_files(files: Sequence[Path], dataset: schema.Dataset) -> tuple[NDArray[np.uint8], Indices]:
    """Pixels (n, size, size, 3) of the files that can be read, and the positions (n,) of these.

    Raises:
        BadInput: naming files that cannot be read, unless ``dataset.skip_unreadable``.
    """
    pixels, errors = _decode(files, dataset.image_size or DEFAULT_SIZE)
    if not errors:
        return pixels, np.arange(len(files))
    _judge_unreadable(dataset, errors)
    return np.delete(pixels, list(errors), axis=0), np.delete(np.arange(len(files)), list(errors))


def check_every_class_is_left(
    dataset: schema.Dataset, before: Iterable[tuple[int, str]], after: Iterable[tuple[int, str]]
) -> None:
    """Raises BadInput where leaving out files made a class vanish from a part; both are (part, class)."""
    left = set(after)
    for part, class_name in before:
        if (part, class_name) not in left:
            reason = f"no image of class {class_name} can be read"
            raise BadInput("dataset.path", dataset.path, reason, "replace its files")


def scale(pixels: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Square images (n, side, side, 1 or 3) with another side, by Pillow's bilinear filter; None keeps it."""
    n, side, _, channels = pixels.shape
    if size is None or size == side:
        return pixels
    scaled = np.empty((n, size, size, channels), dtype=np.uint8)

    def scale_some(start: int) -> None:
        for i in range(start, min(start + SCALED_AT_ONCE, n)):
            image = Image.fromarray(pixels[i, ..., 0] if channels == 1 else pixels[i])
            resized = image.resize((size, size), Image.Resampling.BILINEAR)
            scaled[i] = np.asarray(resized).reshape(size, size, channels)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        list(threads.map(scale_some, range(0, n, SCALED_AT_ONCE)))
    return scaled


def _judge_unreadable(dataset: schema.Dataset, errors: dict[int, str]) -> None:
    names = "; ".join(list(errors.values())[:5]) + ("; ..." if len(errors) > 5 else "")
    count = (
        "1 file is no readable image" if len(errors) == 1 else f"{len(errors)} files are no readable images"
    )
    if not dataset.skip_unreadable:
        remedy = "write dataset.skip_unreadable=true to go on without"
        raise BadInput("dataset.path", dataset.path, f"{count}: {names}", remedy)
    log.warning("%s, skipped: %s", count, names)


def _decode(files: Sequence[Path], size: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Pixels (n, size, size, 3), and for the position of each file that cannot be read its name and why."""
    pixels = np.zeros((len(files), size, size, 3), dtype=np.uint8)
    errors: dict[int, str] = {}

    def decode(i: int) -> None:
        try:
            with Image.open(files[i]) as image:
                pixels[i] = _square(image, size)
        except UnknownRangeError as error:
            errors[i] = f"{files[i]} ({error})"
        except Exception as error:  # Pillow's decoders raise nearly everything on a damaged file
            errors[i] = f"{files[i]} ({type(error).__name__})"

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        list(threads.map(decode, range(len(files))))
    return pixels, dict(sorted(errors.items()))


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The image upright, in RGB, its shorter side scaled to ``size`` and its middle cut out."""
    # JPEG's own halving, down to twice the size: several times faster, and no difference is seen.
    # Both sides are asked for alike, so it may come before the turning.
    image.draft("RGB", (2 * size, 2 * size))
    image = _to_rgb(image.format, ImageOps.exif_transpose(image))
    # Pillow's bilinear filter widens with the scale, so it does not alias.
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def _to_rgb(file_format: str | None, image: Image.Image) -> Image.Image:
    """Transparency is left out and the colour below it shown, as by torchvision's ImageFolder."""
    if image.mode == "F":
        return _grey(_from_float(np.asarray(image)))
    if image.mode == "I" and file_format not in ("PNG", "PPM"):  # these mean 16 bits by it, TIFF 32
        raise UnknownRangeError("32-bit integers, whose white is unknown: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion would cut everything above 255 to white.
        return _grey((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    # 0 … 1 is what scikit-image and torch write. Other ranges cannot be told from one image alone.
    if not np.all((values >= 0) & (values <= 1)):
        raise UnknownRangeError("floating-point values outside of 0 to 1: save it with 8 or 16 bits")
    return np.rint(values * 255).astype(np.uint8)
