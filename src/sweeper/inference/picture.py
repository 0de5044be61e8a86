"""Pictures of any kind → the pixels that a network sees of them, decoded as in training."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from sweeper.card import Card
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.training import image_format, tree
from sweeper.training.picture import (
    Look,
    ReplacedError,
    TooManyError,
    UnreadableError,
    quiet,
    reading,
    reading_content,
    see,
    see_opened,
    stamp_of,
)
from sweeper.words import expanded

T = TypeVar("T")

KEY = "pictures"
"""What errors are about: the argument of ``Classifier.predict``."""

KINDS = "a path, a folder, a PIL image, an array, a tensor, bytes, a file, or several of these"
_CHANNELS = (1, 2, 3, 4)
"""Gray, gray with transparency, RGB, RGB with transparency."""
_MOST_THREADS = 16


@dataclass(frozen=True)
class Picture:
    """One picture that was not decoded yet, or why it cannot be.

    ``name`` is the path of a file as it was given, and of other pictures their position among all.
    """

    name: str
    content: Path | bytes | Image.Image | NDArray[Any] | UnreadableError


@dataclass(frozen=True)
class Transform:
    """Turns one picture of any kind into what the network sees: uint8 (channels, side, side).

    ``whole`` is the side to which it is resized, of which the network sees the middle. ``bits`` are those of
    white in files of 16 bits that do not say (see ``training.picture.see``).
    """

    channels: int
    side: int
    whole: int
    look: Look
    bits: int

    @classmethod
    def of(cls, card: Card) -> Transform:
        look = Look(card.background, card.max_megapixels)
        return cls(card.pixel_channels, card.image_size, card.stored_side, look, card.bits)

    def __call__(self, picture: object) -> Tensor:
        """
        Raises:
            BadInput: if it is not one picture, or cannot be read.
        """
        found = list(each(picture, self.channels))
        if len(found) != 1:
            raise BadInput(KEY, _told(picture), f"holds {len(found)} pictures", "give one, or call predict")
        try:
            with quiet():
                return torch.from_numpy(self.decode(found[0]))
        except UnreadableError as error:
            raise BadInput(KEY, found[0].name, error.why, error.remedy or "give another") from error

    def decode(self, picture: Picture) -> NDArray[np.uint8]:
        """Pixels (channels, side, side).

        Raises:
            UnreadableError: if it is no picture that can be read.
            Fault: if no more files can be opened.
        """
        pixels = self._see(picture)
        if self.channels == 1:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        start = (self.whole - self.side) // 2
        middle = slice(start, start + self.side)
        return np.ascontiguousarray(pixels[middle, middle].transpose(2, 0, 1))

    def _see(self, picture: Picture) -> NDArray[np.uint8]:
        content = picture.content
        if isinstance(content, UnreadableError):
            raise content
        if isinstance(content, Image.Image):
            return see_opened(content, self.whole, self.look, self.bits)
        if isinstance(content, np.ndarray):
            return see_opened(_image(content, picture.name), self.whole, self.look, self.bits)
        if isinstance(content, bytes):
            with reading_content(content) as file:
                return see(file, self.whole, self.look, self.bits).pixels
        try:
            with reading(content, stamp_of(content)) as file:
                return see(file, self.whole, self.look, self.bits).pixels
        except ReplacedError as error:
            raise UnreadableError("it is written to while it is read", is_lasting=False) from error
        except TooManyError as error:
            raise Fault(content, f"cannot be read: {error.why}", error.remedy) from error


def decoded(
    pictures: Iterable[Picture], decode: Callable[[Picture], T], n_ahead: int
) -> Iterator[tuple[str, Future[T]]]:
    """Names and what becomes of each picture, in order; threads are at most so many pictures ahead.

    Of pictures that are in memory at full size already, only a few wait.
    """
    image_format.suffixes()  # lets plug-ins in
    n_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with quiet(), ThreadPoolExecutor(n_threads, "decode") as threads:
        waiting = deque[tuple[str, Future[T]]]()
        try:
            for picture in pictures:
                waiting.append((picture.name, threads.submit(decode, picture)))
                most = n_ahead if isinstance(picture.content, Path) else min(n_ahead, 2 * n_threads)
                while len(waiting) > most:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:  # the consumer may stop early
            threads.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------------------ what is given

_Found = tuple[str | None, Any]
"""A name, where it has one, and a content."""


def each(pictures: object, channels: int) -> Iterator[Picture]:
    """The pictures one by one, of folders all that are below them.

    Files and opened images that nobody has decoded are read when it is their turn.

    Args:
        channels: of what the network sees: several gray pictures are (n, height, width) only where it is 1.

    Raises:
        BadInput: for what is no picture.
    """
    for number, (name, content) in enumerate(_each(pictures, channels)):
        yield Picture(str(number) if name is None else name, content)


def _each(pictures: object, channels: int) -> Iterator[_Found]:
    if isinstance(pictures, str | os.PathLike):
        yield from _of_path(pictures)
    elif isinstance(pictures, bytes | bytearray | memoryview):
        yield None, bytes(pictures)
    elif isinstance(pictures, Image.Image):
        yield getattr(pictures, "filename", None) or None, _content_of(pictures)
    elif isinstance(pictures, Tensor):
        yield from ((None, one) for one in _of_tensor(pictures, channels))
    elif callable(getattr(pictures, "read", None)):
        yield _of_file(pictures)
    elif hasattr(pictures, "__array__") and (array := np.asarray(pictures)).dtype.kind not in "OUST":
        yield from ((None, one) for one in _of_array(array, channels))
    elif hasattr(pictures, "columns"):  # of which pandas and polars give the names, one by one
        raise BadInput(KEY, _told(pictures), "is a table", 'give the column of paths: table["path"]')
    elif isinstance(pictures, Iterable) and not isinstance(pictures, Mapping):
        for one in pictures:
            if isinstance(one, Picture):  # found before
                yield one.name, one.content
                continue
            if isinstance(one, tuple):  # of a dataset
                remedy = "give the pictures alone: (picture for picture, label in …)"
                raise BadInput(KEY, _told(one), "is no picture", remedy)
            yield from _each(one, channels)
    else:
        raise BadInput(KEY, _told(pictures), "is no picture", f"give {KINDS}")


def _told(value: object) -> str:
    """What was given, in a word or two."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    shape = getattr(value, "shape", None)
    if isinstance(value, tuple):
        return f"({', '.join(map(_told, value))})"
    return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)}"


def _of_path(path: str | os.PathLike[str]) -> Iterator[_Found]:
    """The file, or all pictures below a folder, sorted, without hidden ones; as they are seen from here."""
    name = os.fspath(path)
    place = expanded(name)
    if "\0" in name or not _is_encodable(name):
        yield name, UnreadableError("it is not there")
    elif not os.path.isdir(place):  # noqa: PTH112  # no error where it is closed
        yield name, _of_file_named(place)
    else:
        found = tree.walk(place)
        folders = list(found.top.below())
        there = [folder.path / file for folder in folders for file in folder.pictures]
        faults = {where: UnreadableError(why, remedy) for where, why, remedy in found.faults}
        foreign = [folder.path / file for folder in folders for file in folder.foreign]
        faults |= {file: UnreadableError(image_format.why_foreign(file)) for file in foreign}
        if not there and not faults:
            yield name, UnreadableError("it is a folder without pictures")
        for one in sorted([*there, *faults]):
            yield str(one), faults.get(one, one)


def _of_file_named(place: Path) -> Path | UnreadableError:
    if not image_format.is_foreign(place):
        return place
    try:
        is_picture = image_format.is_picture(str(place), place.suffix.lower())
    except OSError:  # decoding says why
        is_picture = True
    return place if is_picture else UnreadableError(image_format.why_foreign(place))


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _content_of(image: Image.Image) -> Image.Image | bytes | UnreadableError:
    """An opened file that nobody has decoded is read as that file: its decoder may halve it."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return image
    try:
        if getattr(image, "n_frames", 1) > 1 and image.tell() > 0:
            return image.copy()
        file: Any = image.fp
        place = file.tell()
        file.seek(0)
        content: bytes = file.read()
        file.seek(place)
    except (AttributeError, OSError, ValueError):  # it is closed
        return UnreadableError("its file is closed", "call its load() before that")
    return content


def _of_file(file: Any) -> _Found:
    name = getattr(file, "name", None)
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        return name if isinstance(name, str) else None, UnreadableError(f"it cannot be read: {error}")
    if not isinstance(content, bytes | bytearray):
        if hasattr(content, "close"):
            content.close()  # of an asynchronous file, so that Python does not warn
        remedy = "open it with mode 'rb', or give what it holds as bytes"
        raise BadInput(KEY, _told(file), f"its read() gives {type(content).__name__}, no bytes", remedy)
    return name if isinstance(name, str) else None, bytes(content)


def _of_array(array: NDArray[Any], channels: int) -> Iterator[NDArray[Any]]:
    """Pictures (height, width) or (height, width, channels)."""
    is_gray = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] not in _CHANNELS and channels == 1)
    if array.ndim < 2 or array.ndim > 4 or (not is_gray and array.shape[-1] not in _CHANNELS):
        remedy = "give arrays of (height, width), (height, width, channels) or (n, height, width, channels)"
        if array.ndim == 4 and array.shape[1] in _CHANNELS:
            remedy = "write .transpose(0, 2, 3, 1)"
        elif array.ndim == 3 and array.shape[0] in _CHANNELS:
            remedy = "write .transpose(1, 2, 0); of several gray pictures, pictures[..., None]"
        elif array.ndim == 3:
            remedy = "of several gray pictures, write pictures[..., None]"
        raise BadInput(KEY, _told(array), "has no 1, 3 or 4 channels at its end", remedy)
    several = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] not in _CHANNELS)
    yield from array if several else [array]


def _of_tensor(tensor: Tensor, channels: int) -> Iterator[NDArray[Any]]:
    """The same of tensors, which have the channels first."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise BadInput(KEY, _told(tensor), "is no dense tensor with values", "give uint8, or floats of 0 … 1")
    several_gray = tensor.ndim == 3 and tensor.shape[0] not in _CHANNELS and channels == 1
    if tensor.ndim == 2 or several_gray:
        tensor = tensor[..., None, :, :]
    if tensor.ndim < 2:
        remedy = "give the pictures alone: (pictures for pictures, labels in …)"
        raise BadInput(KEY, _told(tensor), "is no picture", remedy)
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in _CHANNELS:
        remedy = "give tensors of (channels, height, width) or (n, channels, height, width)"
        if tensor.ndim in (3, 4) and tensor.shape[-1] in _CHANNELS:
            remedy = f"write .permute({'2, 0, 1' if tensor.ndim == 3 else '0, 3, 1, 2'})"
        elif tensor.ndim == 3:
            remedy = "of several gray pictures, write pictures[:, None]"
        raise BadInput(KEY, _told(tensor), "has no 1, 3 or 4 channels before height and width", remedy)
    for one in tensor if tensor.ndim == 4 else [tensor]:
        small = one.float() if one.dtype in (torch.bfloat16, torch.float16) else one
        yield small.movedim(0, -1).cpu().numpy()


def _image(array: NDArray[Any], name: str) -> Image.Image:
    """An array as Pillow has it.

    Raises:
        BadInput: if its values do not say what is white.
    """
    if 0 in array.shape:
        raise UnreadableError("it has no pixels")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = _from_float(array, name)
    is_deep = array.dtype == np.uint16 and array.ndim == 2
    if array.dtype != np.uint8 and not is_deep:
        remedy = "write .astype('uint8') for values of 0 … 255, or floats of 0 … 1"
        raise BadInput(KEY, name, f"is an array of {array.dtype}", remedy)
    return Image.fromarray(np.ascontiguousarray(array))


def _from_float(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = float(array.min()), float(array.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also where one is no number
        remedy = "give values of 0 … 1 before any normalisation, or uint8 of 0 … 255"
        raise BadInput(KEY, name, f"has floating-point values of {low:g} … {high:g}", remedy)
    small: NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
    return small


_ROUNDING = 1e-3
"""How far interpolation may lead beyond 0 … 1; less than half a step of 256."""
