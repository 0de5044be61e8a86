"""One image file: opened with care, and shown upright, in RGB, with 8 bits a channel."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from xxhash import xxh3_64

from sweeper import schema

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners give a value, and that files of 16 bits hold."""
MISSING = "missing"
_SMALL = 2**26
_MIB = 2**20
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_CLOCK_TICK_NS = 20 * 10**6
"""The clock of file systems moves in steps of at most 10 ms."""


class UnreadableError(Exception):
    """A file is no picture that can be read: why, and what to do, if that is not to replace it.

    ``is_lasting`` says that the file would have to change for it to be read.
    """

    def __init__(self, why: str, remedy: str = "", is_lasting: bool = True) -> None:
        super().__init__(why, remedy)
        self.why, self.remedy, self.is_lasting = why, remedy, is_lasting


class TooManyError(UnreadableError):
    """Not the file is to blame but the process, which can open no more of them."""


class TooLargeError(UnreadableError):
    """It has more pixels than ``dataset.max_megapixels`` allows."""

    def __init__(self, megapixels: float, most: float) -> None:
        why = f"{megapixels:,.4g} megapixels, more than dataset.max_megapixels={most:g}"
        more = f"write dataset.max_megapixels={ceil(megapixels)}"
        super().__init__(why, more if megapixels <= schema.MAX_MEGAPIXELS else "remove it")
        self.megapixels = megapixels


class ReplacedError(Exception):
    """The file, which the message names, is no longer the one that was found."""


@dataclass(frozen=True)
class Look:
    """What is seen of a picture: ``background`` (red, green, blue) through its transparent pixels."""

    background: tuple[int, int, int]
    max_megapixels: float

    @classmethod
    def of(cls, dataset: schema.Dataset) -> Look:
        return cls(schema.colour(dataset.background), dataset.max_megapixels)


@dataclass(frozen=True)
class Seen:
    """A small picture, and what is known of the whole.

    ``size`` is the upright width and height. ``scaled`` says that the decoder made it smaller, which differs
    a little from the same picture in another format. ``bits`` is of the values in a file of 16 that does not
    say how many it uses, else 0; ``shown_bits`` are those that were taken for white.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    scaled: bool
    transparent: bool
    bits: int
    shown_bits: int


# --------------------------------------------------------------------------------------- files on disk


def stamp_of(file: Path) -> str:
    """A text that changes when the file does, or another takes its place.

    Archives restore sizes and times; nothing restores the time of change and the number on the disk. The
    disk's own number is left out: it differs from host to host, and changes with a restart.
    """
    try:
        return _stamp(os.stat(file))  # noqa: PTH116  # for each file of each trial
    except (OSError, ValueError):  # reading the file will report it
        return MISSING


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_ino}"


def let_the_clock_move(stamps: list[str]) -> None:
    """Wait, if a file changed just now, until another change would get another time."""
    newest = max((int(stamp.split("\0")[2]) for stamp in stamps if "\0" in stamp), default=0)
    left = newest + _CLOCK_TICK_NS - time.time_ns()
    if 0 < left <= _CLOCK_TICK_NS:
        time.sleep(left / 10**9)


@contextmanager
def reading(path: Path, stamp: str) -> Iterator[BinaryIO]:
    """The open file.

    Raises:
        UnreadableError: if it cannot be opened, or what is done with it fails.
        ReplacedError: if it has another stamp, or gets one meanwhile.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            found = os.fstat(file.fileno())
            try:
                if not stat.S_ISREG(found.st_mode):
                    raise UnreadableError("no file of pixels, but a pipe or a device", "move it away")
                # A small file is read at once, for its pixels and its digest.
                yield BytesIO(file.read()) if found.st_size <= _SMALL else file
            except Exception as error:
                _check_same(file, stamp)
                raise _told(error, path, stamp, found.st_size) from error
            _check_same(file, stamp)
    except OSError as error:
        raise _told(error, path, stamp) from error


@contextmanager
def reading_content(content: bytes) -> Iterator[BinaryIO]:
    """The same of a file that is in memory."""
    try:
        yield BytesIO(content)
    except Exception as error:
        raise _told(error, Path(), MISSING, len(content)) from error


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would wait for one for ever


def _check_same(file: BinaryIO, stamp: str) -> None:
    if _stamp(os.fstat(file.fileno())) != stamp:
        raise ReplacedError(file.name)


def digest_of(file: BinaryIO) -> int:
    """Of all bytes of a file."""
    file.seek(0)
    digest = xxh3_64()  # SHA-256 would take a twentieth of the time that a JPEG is decoded in
    while part := file.read(_MIB):
        digest.update(part)
    return digest.intdigest()


_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE)
_OF_THE_FILE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO)
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_TOLD = {
    **dict.fromkeys(_ABSENT, ("it is not there", "put it back")),
    errno.EACCES: ("no permission to read it", "give yourself the permission (chmod)"),
    errno.EPERM: ("no permission to read it", "give yourself the permission (chmod)"),
    errno.EISDIR: ("a folder, not a file", "move it away"),
    errno.ELOOP: ("a link to itself", "mend the link"),
    errno.EIO: ("the disk fails to read it", "check that disk (dmesg)"),
    errno.ESTALE: ("its disk is gone", "mount that disk again"),
    errno.ENODEV: ("its disk is gone", "mount that disk again"),
    errno.ENXIO: ("no file of pixels, but a pipe or a device", "move it away"),
    errno.EBUSY: ("in use by another program", "close that program"),
    errno.ETXTBSY: ("in use by another program", "close that program"),
    errno.EAGAIN: ("in use by another program", "close that program"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
}


def said(error: OSError, path: Path) -> tuple[str, str]:
    """Why the system could not read a file or folder, and what to do."""
    if error.errno in _ABSENT and path.is_symlink():
        return "a link to nothing", "mend the link"
    return _TOLD.get(error.errno or 0, ((error.strerror or str(error)).lower(), ""))


def _told(error: Exception, path: Path, stamp: str, n_bytes: int | None = None) -> Exception:
    """What went wrong with a file, in the words of its owner."""
    if isinstance(error, UnreadableError | ReplacedError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        kind = TooManyError if error.errno in _OF_THE_PROCESS else UnreadableError
        # The stamp is part of what a decoded file is kept under, and changes with the permission.
        is_lasting = stamp == MISSING or error.errno in _OF_THE_FILE
        return kind(*said(error, path), is_lasting)
    if n_bytes == 0:
        return UnreadableError("it is empty: 0 bytes")
    if isinstance(error, UnidentifiedImageError):
        return UnreadableError("it is no picture")
    if isinstance(error, MemoryError):
        return UnreadableError("it takes more memory than there is")
    is_cut = any(word in str(error).lower() for word in ("truncated", "unexpected end", "not enough", "eof"))
    return UnreadableError("it is cut short" if is_cut else "it is damaged")


# -------------------------------------------------------------------------------------- what it shows


def see(file: BinaryIO, size: int, look: Look, bits: int) -> Seen:
    """The picture, its shorter side resized to ``size``, then centre-cropped.

    Args:
        bits: of what is white in files of 16 bits, at least: more are seen where there are more.
    """
    with Image.open(file) as image:
        _check_size(image, look)
        whole = image.size
        # JPEG's own halving, down to twice the size: several times faster, without a visible difference.
        # The requested width and height are equal, so it may come before the rotation.
        image.draft("RGB", (2 * size, 2 * size))
        scaled = image.size != whole
        shown = _show(file, image, look, bits)
    upright = (whole[::-1] if shown.turned else whole) if scaled else shown.image.size
    return Seen(
        _small(shown.image, size),
        upright,
        scaled,
        shown.transparent,
        shown.bits,
        shown.shown_bits,
    )


def see_opened(image: Image.Image, size: int, look: Look, bits: int) -> NDArray[np.uint8]:
    """The same pixels of a picture in memory, which is left as it is.

    Raises:
        UnreadableError: if it cannot be shown.
    """
    with reading_content(b" ") as nothing:  # in the same words
        _check_size(image, look)
        return _small(_show(nothing, image.copy(), look, bits).image, size)


def _small(image: Image.Image, size: int) -> NDArray[np.uint8]:
    # Pillow's bilinear filter is antialiased: its support grows with the scale.
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def whole_digest(file: BinaryIO, look: Look, bits: int) -> bytes:
    """A digest of all pixels at full size."""
    with Image.open(file) as image:
        _check_size(image, look)
        shown = _show(file, image, look, bits).image
    return sha256(repr(shown.size).encode() + shown.tobytes()).digest()


@dataclass(frozen=True)
class _Shown:
    """In RGB and upright; the rest as of ``Seen``."""

    image: Image.Image
    turned: bool
    transparent: bool
    bits: int
    shown_bits: int


def _show(file: BinaryIO, image: Image.Image, look: Look, least: int) -> _Shown:
    file_format, raw_mode = image.format, _raw_mode(image)
    image.load()
    orientation = _orientation(image)  # before anything else, which may forget it
    bits, shown_bits = 0, 0
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        image, bits, shown_bits = _show_deep_grey(image, file_format, least)
    elif raw_mode in _LOW_BYTES:
        image, bits, shown_bits = _show_deep_colours(file, image, raw_mode, least)
    elif image.mode == "I":
        raise UnreadableError("32-bit integers, whose white is unknown: save it with 8 or 16 bits")
    elif image.mode == "F":
        image = Image.fromarray(_from_float(np.asarray(image)))
    image, transparent = _to_rgb(image, look)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return _Shown(image, orientation >= _FIRST_SIDEWAYS, transparent, bits, shown_bits)


def _check_size(image: Image.Image, look: Look) -> None:
    megapixels = image.size[0] * image.size[1] / 10**6
    if megapixels > look.max_megapixels:
        raise TooLargeError(megapixels, look.max_megapixels)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the orientation that its EXIF data tell."""
_FIRST_SIDEWAYS = 5


def _orientation(image: Image.Image) -> int:
    try:
        told = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data do not make a damaged picture
        return 1
    return told if isinstance(told, int) else 1


def _to_rgb(image: Image.Image, look: Look) -> tuple[Image.Image, bool]:
    """In RGB, laid over the background, and whether that is seen."""
    if image.mode.upper() in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] < 255:  # type: ignore[operator]  # of one band, two numbers
            behind = Image.new("RGB", image.size, look.background)
            behind.paste(image.convert("RGB"), mask=alpha)
            return behind, True
    return image.convert("RGB"), False


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    # scikit-image and torch write 0 … 1. Other ranges cannot be inferred from one image.
    if not np.all((values >= 0) & (values <= 1)):
        raise UnreadableError("floating-point values outside of 0 to 1: save it with 8 or 16 bits")
    return np.rint(values * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------ 16 bits


def _bits_of(largest: int) -> int:
    return next(bits for bits in DEPTHS if largest < 2**bits)


def _show_deep_grey(image: Image.Image, file_format: str | None, least: int) -> tuple[Image.Image, int, int]:
    """Pillow's own conversion would clip everything above 255 to white."""
    values, bits = np.asarray(image).astype(np.int64), 0
    if file_format in ("PPM", "JPEG2000"):  # these say what is white, and Pillow has scaled it
        shown = 16
    elif (said := _bits_per_sample(image)) in DEPTHS[:-1]:
        shown = said
    else:
        bits = _bits_of(int(values.max(initial=0)))
        shown = max(bits, least)
    grey = Image.fromarray((values >> (shown - 8)).clip(0, 255).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, alpha))
    return grey, bits, shown


def _bits_per_sample(image: Image.Image) -> int:
    """What a TIFF says of itself; 16 where there is nothing said."""
    said = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return int(said[0])


_NATIVE = {"little": ("16L", "16B"), "big": ("16B", "16L")}[sys.byteorder]
_LOW_BYTES = {
    **{f"{mode};16B": f"{mode};16L" for mode in ("RGB", "RGBA", "RGBX")},
    **{f"{mode};16L": f"{mode};16B" for mode in ("RGB", "RGBA", "RGBX")},
    **{f"{mode};16N": f"{mode};{_NATIVE[1]}" for mode in ("RGB", "RGBA", "RGBX")},
    "LA;16B": "RGBA",
}
"""Of how the decoder is told to take the high bytes of 16 bits for colours: how it takes the low ones."""


def _raw_mode(image: Image.Image) -> str:
    """How the decoder is told to read the file; it forgets that as it does."""
    tiles = getattr(image, "tile", None) or [("", None, 0, "")]
    arguments = tiles[0][3]
    return str(arguments if isinstance(arguments, str) else next(iter(arguments or [""])))


def _show_deep_colours(
    file: BinaryIO, image: Image.Image, raw_mode: str, least: int
) -> tuple[Image.Image, int, int]:
    """Pillow keeps the high bytes, which hold nearly nothing where 12 bits were written."""
    high = np.asarray(image)
    n_colours = 3
    bits = _bits_of(int(high[..., :n_colours].max(initial=0)) * 256 + 255)
    shown = max(bits, least)
    if shown == DEPTHS[-1]:
        return image, bits, shown
    values = high.astype(np.uint16) << 8 | _read_low(file, raw_mode)
    bits = _bits_of(int(values[..., :n_colours].max(initial=0)))
    shown = max(bits, least)
    small = (values >> (shown - 8)).clip(0, 255).astype(np.uint8)
    if values.shape[-1] > n_colours and values[..., n_colours:].max(initial=0) >= 2**shown:
        small[..., n_colours:] = high[..., n_colours:]  # alpha alone uses all bits
    return Image.fromarray(small, image.mode), bits, shown


def _read_low(file: BinaryIO, raw_mode: str) -> NDArray[np.uint8]:
    file.seek(0)
    with Image.open(file) as again:
        tiles = again.tile
        if raw_mode == "LA;16B":  # four bytes a pixel: high and low of each
            again._mode = "RGBA"
        again.tile = [_with_raw_mode(tile, _LOW_BYTES[raw_mode]) for tile in tiles]
        low = np.asarray(again)
    return low[..., [1, 1, 1, 3]] if raw_mode == "LA;16B" else low


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    is_text = isinstance(tile.args, str)
    return tile._replace(args=raw_mode if is_text else (raw_mode, *tuple(tile.args)[1:]))


# -------------------------------------------------------------------------------------- Pillow's words


_QUIET = threading.Lock()
_n_quiet = 0
_restore = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, log lines and limits of Pillow, in all threads: for a process, these are one.

    Whoever comes first switches them off, and whoever goes last on again.
    """
    global _n_quiet, _restore
    with _QUIET:
        if _n_quiet == 0:
            _restore = _switched_off()
        _n_quiet += 1
    try:
        yield
    finally:
        with _QUIET:
            _n_quiet -= 1
            if _n_quiet == 0:
                _restore.close()


def _switched_off() -> ExitStack:
    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    logger, limit = logging.getLogger("PIL"), Image.MAX_IMAGE_PIXELS
    stack.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.CRITICAL + 1)
    stack.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
    Image.MAX_IMAGE_PIXELS = None  # ours holds, for files of all formats
    return stack
