"""Image files to square RGB pixels, and pixels to another size."""

from __future__ import annotations

import json
import logging
import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import inf, prod
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.memory import check_fits
from sweeper.training import cache, image_format, picture, twin
from sweeper.training.dataset import COPIED_BYTES, Indices
from sweeper.training.picture import (
    DEPTHS,
    Look,
    ReplacedError,
    TooLargeError,
    TooManyError,
    UnreadableError,
    let_the_clock_move,
    reading,
    stamp_of,
)
from sweeper.training.twin import Traits
from sweeper.words import counted, expanded

T = TypeVar("T")

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it when a change decodes the same file to other pixels."""
DEFAULT_SIZE = 64
MANY = 2000
"""Images from which a progress bar is worth it."""
SCALED_AT_ONCE = 1024
"""Images per task of a thread: handing over a single small image takes longer than scaling it."""


_NOTE = "files"
_ATTEMPTS = 3
"""Times that files are read which are replaced meanwhile."""


@dataclass(frozen=True)
class Known:
    """What was found out of files while they were decoded.

    ``unreadable`` tells, by their positions, of the files left out: name, reason, remedy. ``digests`` and
    ``pictures`` are of the others (see ``Images``); a picture that is the first with its pixels is left out
    of ``pictures``. ``bits`` is of the values in files of 16 that do not say how many they use, else 0.
    Where transparent pixels are, ``background`` is what is seen through them. ``megapixels`` are those of the
    largest file that was read and of the smallest that was refused.
    """

    unreadable: dict[str, tuple[str, str, str]]
    digests: str
    pictures: dict[str, int]
    bits: int
    background: tuple[int, int, int] | None
    megapixels: tuple[float, float]
    is_lasting: bool = True
    """Whether the errors are in the files, and no fault of a disk that may be mended."""

    @classmethod
    def of(cls, text: str) -> Known:
        return cls(**json.loads(text))

    def suits(self, look: Look) -> bool:
        """Whether files would look the same with these settings."""
        low, high = self.megapixels
        same_colour = self.background is None or tuple(self.background) == look.background
        return same_colour and low <= look.max_megapixels < high


def read_files(files: Sequence[Path], dataset: schema.Dataset) -> tuple[NDArray[np.uint8], Indices]:
    """Pixels (n, size, size, 3) of the readable files, and the positions (n,) of these files.

    The size is ``seen_size`` with the margin. Files are decoded once per machine, and mapped from the cache
    folder if it has room. The memory layout has the channels first, as torch wants it.

    Raises:
        BadInput: naming unreadable files, unless ``dataset.skip_unreadable``.
        Fault: if no more files can be opened.
    """
    for _ in range(_ATTEMPTS):
        try:
            pixels = _read(files, dataset)
            known = _known(pixels, files, dataset)
            break
        except ReplacedError as error:
            replaced = error
    else:
        reason = f"{replaced} is written to while it is read"
        raise BadInput("dataset.path", dataset.path, reason, "wait until it is whole, and start again")
    if known.unreadable and not dataset.skip_unreadable:
        raise _unreadable(dataset, known)
    if known.unreadable:
        log.warning("%s, skipped: %s", *_told(known))
    if 0 < known.bits < DEPTHS[-1]:
        white = 2**known.bits - 1
        log.warning(
            "files of 16 bits hold values of %d bits at most: %s is shown as white", known.bits, f"{white:,}"
        )
    readable = np.delete(np.arange(len(files)), [int(position) for position in known.unreadable])
    return pixels[: len(readable)].transpose(0, 2, 3, 1), readable


def identify(
    files: Sequence[Path], pixels: NDArray[np.uint8], dataset: schema.Dataset
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """``digests`` and ``pictures`` (see ``Images``) of files that ``read_files`` has read to ``pixels``."""
    known = _known(pixels, files, dataset)
    digests = np.frombuffer(b64decode(known.digests), dtype="<u8").astype(np.uint64)
    pictures = np.arange(len(files))
    pictures[[int(position) for position in known.pictures]] = list(known.pictures.values())
    return digests, pictures


def white_bits(files: Sequence[Path], pixels: NDArray[np.uint8], dataset: schema.Dataset) -> int:
    """``bits`` (see ``Images``) of files that ``read_files`` has read to ``pixels``."""
    return max(DEPTHS[0], _known(pixels, files, dataset).bits)


def _read(files: Sequence[Path], dataset: schema.Dataset) -> NDArray[np.uint8]:
    """Pixels (n, 3, size, size), the readable files first; what is known of the files is noted with them."""
    size, look = _with_margin(seen_size(dataset), dataset), Look.of(dataset)
    stamps = [stamp_of(file) for file in files]
    let_the_clock_move(stamps)
    shape, notes = (len(files), 3, size, size), dict[str, str]()

    def fill(pixels: NDArray[np.uint8]) -> None:
        known = _decode(files, pixels, stamps, look)
        if known.unreadable and not dataset.skip_unreadable:
            raise _unreadable(dataset, known)
        if not known.is_lasting:
            raise _NotLastingError
        notes[_NOTE] = _text(known)

    about = f"{counted(len(files), 'image')} of {dataset.path} at {size} × {size}"
    key = _key(files, stamps, size)
    try:
        for of_settings in ("", f"\0{look}"):  # most files look the same with all settings
            pixels = cache.array("images", key + of_settings, shape, np.uint8, fill, about, notes)
            if pixels is None or _known(pixels, files, dataset).suits(look):
                break
    except _NotLastingError:
        pixels = None
    if pixels is None:
        pixels = _allocate(shape, dataset)
        cache.keep(pixels, {_NOTE: _text(_decode(files, pixels, stamps, look))})
    return pixels


class _NotLastingError(Exception):
    """A disk failed: what was left out is not to be left out for ever."""


def _known(pixels: NDArray[np.uint8], files: Sequence[Path], dataset: schema.Dataset) -> Known:
    def again() -> str:  # the entry was mapped, and has been cleared since
        size, stamps = max(pixels.shape[1:3]), [stamp_of(file) for file in files]
        return _text(
            _decode(files, np.empty((len(files), 3, size, size), np.uint8), stamps, Look.of(dataset))
        )

    return Known.of(cache.remembered(pixels, _NOTE, again))


def _text(known: Known) -> str:
    return json.dumps(asdict(known))


def seen_size(dataset: schema.Dataset) -> int:
    """Side at which a network sees image files, which have no common size of their own."""
    return dataset.image_size or DEFAULT_SIZE


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
    return f"{VERSION}\0{PIL.__version__}\0{','.join(image_format.installed())}\0{size}"


def _key(files: Sequence[Path], stamps: Sequence[str], size: int) -> str:
    """Everything that the pixels depend on, but for what few files show: ``Known.suits``."""
    each = (f"{file.absolute()}\0{stamp}" for file, stamp in zip(files, stamps, strict=True))
    return "\0".join([_version(size), *each])


def _unreadable(dataset: schema.Dataset, known: Known) -> BadInput:
    path = expanded(str(dataset.path))
    count, names = _told(known, path.parent if path.is_file() else path)
    remedies = dict.fromkeys(remedy for _, _, remedy in known.unreadable.values() if remedy)
    skip = "write dataset.skip_unreadable=true to go on without"
    return BadInput(
        "dataset.path", dataset.path, f"{count}: {names}", ", or ".join([*list(remedies)[:1], skip])
    )


def _told(known: Known, within: Path | None = None) -> tuple[str, str]:
    """How many files cannot be read, and which; their names as seen from a folder."""
    errors = [f"{name.removeprefix(f'{within}/')} ({why})" for name, why, _ in known.unreadable.values()]
    names = "; ".join(errors[:5]) + ("; ..." if len(errors) > 5 else "")
    if len(errors) == 1:
        return "1 file is not a readable image", names
    return f"{len(errors)} files are not readable images", names


def _decode(files: Sequence[Path], pixels: NDArray[np.uint8], stamps: Sequence[str], look: Look) -> Known:
    """Write the readable files to the front of ``pixels`` (n, 3, size, size), in order.

    Raises:
        ReplacedError: if a file has no longer its stamp.
        Fault: if no more files can be opened.
    """
    n, size, bits = len(files), pixels.shape[-1], DEPTHS[0]
    errors: dict[int, UnreadableError] = {}
    digests, sizes = np.zeros(n, dtype=np.uint64), np.zeros((n, 2), dtype=np.int64)
    scaled = np.zeros(n, dtype=bool)
    own_bits, shown_bits, transparent = np.zeros(n, np.int8), np.zeros(n, np.int8), np.zeros(n, dtype=bool)

    def decode(i: int) -> None:
        nonlocal bits
        try:
            with reading(files[i], stamps[i]) as file:
                seen = picture.see(file, size, look, bits)
                digests[i] = picture.digest_of(file)
        except TooManyError as error:
            raise Fault(files[i], f"cannot be read: {error.why}", error.remedy) from error
        except UnreadableError as error:
            errors[i] = error
            return
        pixels[i] = seen.pixels.transpose(2, 0, 1)
        sizes[i], scaled[i] = seen.size, seen.scaled
        own_bits[i], shown_bits[i], transparent[i] = seen.bits, seen.shown_bits, seen.transparent
        bits = max(bits, seen.bits)

    def whole(i: int) -> bytes:
        try:
            with reading(files[i], stamps[i]) as file:
                return picture.whole_digest(file, look, bits)
        except UnreadableError as error:  # it was readable
            raise ReplacedError(str(files[i])) from error

    image_format.suffixes()  # lets plug-ins in, in this process too
    with picture.quiet(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        for _ in _shown(threads.map(decode, range(n)), n, "decoding"):
            pass
        bits = max(DEPTHS[0], *own_bits.tolist(), 0)
        # Of all these files together, the largest value says what is white: most have been decoded so.
        again = np.flatnonzero((own_bits > 0) & (shown_bits != bits)).tolist()
        for _ in _shown(threads.map(decode, again), len(again), "decoding"):
            pass
        left = np.array([i for i in range(n) if i not in errors], dtype=np.int64)
        for target, source in enumerate(left.tolist() if errors else []):
            pixels[target] = pixels[source]

        def some(positions: list[int]) -> list[bytes]:
            chosen = left[positions].tolist()
            return list(_shown(threads.map(whole, chosen), len(chosen), "comparing"))

        traits = Traits(digests[left], sizes[left], pixels[: len(left)], scaled[left])
        first = twin.pictures(traits, some)
    repeated = np.flatnonzero(first != np.arange(len(first))).tolist()
    refused = [error.megapixels for error in errors.values() if isinstance(error, TooLargeError)]
    return Known(
        unreadable={str(i): (str(files[i]), errors[i].why, errors[i].remedy) for i in sorted(errors)},
        digests=b64encode(digests[left].astype("<u8").tobytes()).decode(),
        pictures={str(i): int(first[i]) for i in repeated},
        bits=int(own_bits.max(initial=0)),
        background=look.background if transparent.any() else None,
        megapixels=(float(sizes.prod(1).max(initial=0)) / 10**6, min(refused, default=inf)),
        is_lasting=all(error.is_lasting for error in errors.values()),
    )


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


def _shown(done: Iterable[T], n: int, what: str, at_once: int = 1) -> Iterable[T]:
    """With a progress bar, if there are many images and stderr is a terminal."""
    if n < MANY or not sys.stderr.isatty():
        return done
    from rich.console import Console
    from rich.progress import track

    return track(done, what, total=-(-n // at_once), console=Console(stderr=True))
