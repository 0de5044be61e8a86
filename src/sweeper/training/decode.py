"""Image files to square RGB pixels, and pixels to another size."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.memory import check_fits
from sweeper.training import cache
from sweeper.training.dataset import COPIED_BYTES, Indices, digest, same
from sweeper.words import counted

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when a change decodes the same file to other pixels."""
DEFAULT_SIZE = 64
MANY = 2000
"""Images from which a progress bar is worth it."""
UNREADABLE = "unreadable"
SCALED_AT_ONCE = 1024
"""Images per task of a thread: handing over a single small image takes longer than scaling it."""


class UnknownRangeError(Exception):
    """The file does not say which of its values is white. The message is shown after the file's name."""


def read_files(files: Sequence[Path], dataset: schema.Dataset) -> tuple[NDArray[np.uint8], Indices]:
    """Pixels (n, size, size, 3) of the readable files, and the positions (n,) of these files.

    The size is ``seen_size`` with the margin. Files are decoded once per machine, and mapped from the cache
    folder if it has room. The memory layout has the channels first, as torch wants it.

    Raises:
        BadInput: naming unreadable files, unless ``dataset.skip_unreadable``.
    """
    size = _with_margin(seen_size(dataset), dataset)
    shape, notes = (len(files), 3, size, size), dict[str, str]()

    def fill(pixels: NDArray[np.uint8]) -> None:
        errors = _decode(files, pixels)
        if errors and not dataset.skip_unreadable:
            raise _unreadable(dataset, errors)
        notes[UNREADABLE] = json.dumps(errors)

    def unreadable() -> str:
        if UNREADABLE not in notes:  # the entry was mapped, and has been cleared since
            fill(np.empty(shape, dtype=np.uint8))
        return notes[UNREADABLE]

    about = f"{counted(len(files), 'image')} of {dataset.path} at {size} × {size}"
    pixels = cache.array("images", _key(files, size), shape, np.uint8, fill, about, notes)
    if pixels is None:
        pixels = _allocate(shape, dataset)
        fill(pixels)
    errors = json.loads(cache.remembered(pixels, UNREADABLE, unreadable))
    if errors and not dataset.skip_unreadable:  # decoded by a run that skips them
        raise _unreadable(dataset, errors)
    if errors:
        log.warning("%s, skipped: %s", *_told(errors))
    readable = np.delete(np.arange(len(files)), [int(position) for position in errors])
    return pixels[: len(readable)].transpose(0, 2, 3, 1), readable


def identify(
    files: Sequence[Path], pixels: NDArray[np.uint8], dataset: schema.Dataset
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """``digests`` and ``pictures`` (see ``Images``) of files that ``read_files`` has read to ``pixels``."""
    digests = np.array([digest(file.read_bytes()) for file in files], dtype=np.uint64)
    return digests, same(digests)


def seen_size(dataset: schema.Dataset) -> int:
    """Side at which a network sees image files, which have no common size of their own."""
    return dataset.image_size or DEFAULT_SIZE


def size_and_time(file: Path) -> str:
    """A text that changes when the file does."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # reading the file will report it
        return "missing"
    return f"{found.st_size}\0{found.st_mtime_ns}"


def check_every_class_is_left(
    dataset: schema.Dataset, before: Iterable[tuple[int, str]], after: Iterable[tuple[int, str]]
) -> None:
    """Raises BadInput if skipping files removed a class from a part; both arguments hold (part, class)."""
    left = set(after)
    for part, class_name in before:
        if (part, class_name) not in left:
            reason = f"no image of class {class_name} can be read"
            raise BadInput("dataset.path", dataset.path, reason, "replace its files")


def scale(pixels: NDArray[np.uint8], dataset: schema.Dataset) -> NDArray[np.uint8]:
    """Square images (n, side, side, 1 or 3) resized to ``dataset.image_size`` with its margin, by Pillow's
    bilinear filter; unchanged if ``image_size`` is null.

    Large results are computed once per machine and mapped from the cache folder, as for files.
    """
    n, side, _, channels = pixels.shape
    size = _with_margin(dataset.image_size, dataset) if dataset.image_size else side
    if size == side:
        return pixels
    shape, scaled = (n, channels, size, size), None
    if prod(shape) >= COPIED_BYTES:
        # The key is the pixels themselves, as scikit-learn's come from no file of ours.
        digest = blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()
        key = f"{_version(size)}\0{pixels.shape}\0{digest}"
        about = f"{counted(n, 'image')} of {dataset.name} at {size} × {size}"
        scaled = cache.array("images", key, shape, np.uint8, lambda out: _scale(pixels, out), about)
    if scaled is None:
        scaled = _allocate(shape, dataset)
        _scale(pixels, scaled)
    return scaled.transpose(0, 2, 3, 1)


def _allocate(shape: tuple[int, int, int, int], dataset: schema.Dataset) -> NDArray[np.uint8]:
    """Room in memory for images that are not kept on disk. Raises BadInput where there cannot be enough."""
    what = f"{shape[0]:,} images of {shape[-1]} × {shape[-1]} pixels"
    remedy = "write a smaller one, or give the cache folder more room (SWEEPER_CACHE, SWEEPER_CACHE_GB)"
    check_fits("dataset.image_size", dataset.image_size, prod(shape), what, remedy)
    return np.empty(shape, dtype=np.uint8)


def _with_margin(size: int, dataset: schema.Dataset) -> int:
    return round(size * dataset.margin)


def _version(size: int) -> str:
    return f"{VERSION}\0{PIL.__version__}\0{size}"


def _key(files: Sequence[Path], size: int) -> str:
    """Everything that the pixels depend on."""
    return "\0".join([_version(size), *(f"{file.absolute()}\0{size_and_time(file)}" for file in files)])


def _unreadable(dataset: schema.Dataset, errors: Mapping[Any, str]) -> BadInput:
    folder = Path(str(dataset.path)).parent if Path(str(dataset.path)).is_file() else dataset.path
    count, names = _told({key: error.removeprefix(f"{folder}/") for key, error in errors.items()})
    remedy = "write dataset.skip_unreadable=true to go on without"
    return BadInput("dataset.path", dataset.path, f"{count}: {names}", remedy)


def _told(errors: Mapping[Any, str]) -> tuple[str, str]:
    names = "; ".join(list(errors.values())[:5]) + ("; ..." if len(errors) > 5 else "")
    if len(errors) == 1:
        return "1 file is not a readable image", names
    return f"{len(errors)} files are not readable images", names


def _decode(files: Sequence[Path], pixels: NDArray[np.uint8]) -> dict[int, str]:
    """Write the readable files to the front of ``pixels`` (n, 3, size, size), in order.

    Returns, by the position of each unreadable file, its name and the reason.
    """
    errors: dict[int, str] = {}

    def decode(i: int) -> None:
        try:
            with Image.open(files[i]) as image:
                pixels[i] = _square(image, pixels.shape[-1]).transpose(2, 0, 1)
        except UnknownRangeError as error:
            errors[i] = f"{files[i]} ({error})"
        except Exception as error:  # Pillow's decoders raise nearly everything on a damaged file
            errors[i] = f"{files[i]} ({type(error).__name__})"

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        for _ in _shown(threads.map(decode, range(len(files))), len(files), "decoding"):
            pass
    for target, source in enumerate(i for i in range(len(files)) if errors and i not in errors):
        pixels[target] = pixels[source]
    return dict(sorted(errors.items()))


def _scale(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Write images (n, side, side, channels) to ``out`` (n, channels, size, size)."""
    n, size = len(out), out.shape[-1]

    def scale_some(start: int) -> None:
        for i in range(start, min(start + SCALED_AT_ONCE, n)):
            image = Image.fromarray(pixels[i, ..., 0] if out.shape[1] == 1 else pixels[i])
            resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
            out[i] = resized.reshape(size, size, -1).transpose(2, 0, 1)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        done = threads.map(scale_some, range(0, n, SCALED_AT_ONCE))
        for _ in _shown(done, n, "scaling", SCALED_AT_ONCE):
            pass


def _shown(done: Iterable[None], n: int, what: str, at_once: int = 1) -> Iterable[None]:
    """With a progress bar, if there are many images and stderr is a terminal."""
    if n < MANY or not sys.stderr.isatty():
        return done
    from rich.console import Console
    from rich.progress import track

    return track(done, what, total=-(-n // at_once), console=Console(stderr=True))


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The image upright and in RGB, its shorter side resized to ``size``, then centre-cropped."""
    # JPEG's own halving, down to twice the size: several times faster, without a visible difference.
    # The requested width and height are equal, so it may come before the rotation.
    image.draft("RGB", (2 * size, 2 * size))
    image = _to_rgb(image.format, ImageOps.exif_transpose(image))
    # Pillow's bilinear filter is antialiased: its support grows with the scale.
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def _to_rgb(file_format: str | None, image: Image.Image) -> Image.Image:
    """In RGB; transparency is dropped and the colour below it shown, as by torchvision's ImageFolder."""
    if image.mode == "F":
        return _grey(_from_float(np.asarray(image)))
    if image.mode == "I" and file_format not in ("PNG", "PPM"):  # in these it means 16 bits, in TIFF 32
        raise UnknownRangeError("32-bit integers, whose white is unknown: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # 16 bits per pixel: Pillow's own conversion would clip everything above 255 to white.
        return _grey((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    # scikit-image and torch write 0 … 1. Other ranges cannot be inferred from one image.
    if not np.all((values >= 0) & (values <= 1)):
        raise UnknownRangeError("floating-point values outside of 0 to 1: save it with 8 or 16 bits")
    return np.rint(values * 255).astype(np.uint8)
