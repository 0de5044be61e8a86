"""Which files are pictures: all that Pillow reads, whatever they are called."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageFile

from sweeper.training.picture import quiet

PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_jxl": None, "pillow_avif": None}
"""What teaches Pillow more formats, where it is installed: by being imported, or by a function of it."""

NEVER_DECODED = {"MPEG", "PDF"}
"""Formats of which Pillow reads the size alone, or which it only writes."""

_THEM = "Pillow cannot read them"
_NEEDS = {
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".hif": "pip install pillow-heif",
    ".jxl": "pip install pillow-jxl-plugin",
    ".avif": "pip install pillow-avif-plugin",
}
_RAW = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf"),
        *(".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),
    )
)
_VIDEO = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
_ARCHIVE = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")
_WHY = {
    **{suffix: f"{_THEM}; {command}" for suffix, command in _NEEDS.items()},
    **dict.fromkeys(_RAW, "raw of a camera; save them as .tif or .jpg"),
    **dict.fromkeys(_VIDEO, "videos; save their frames as .jpg"),
    **dict.fromkeys(_ARCHIVE, "archives; unpack them"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ps", ".ai", ".emf", ".wmf"), "drawings; save them as .png"),
    ".pdf": "documents; save their pages as .png",
    **dict.fromkeys((".dcm", ".dicom", ".nii"), f"{_THEM}; save them as .png"),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".mat"), "arrays; save their images as .png"),
}
_NAMED = frozenset((*_NEEDS, *_RAW, ".dcm", ".dicom", ".nii"))
"""Suffixes of pictures, though Pillow may not read them."""
_TGA_END = b"TRUEVISION-XFILE.\x00"
_SUFFIX = re.compile(r"\.[A-Za-z0-9_+~-]{1,12}")


def installed() -> list[str]:
    """The plug-ins that are there."""
    return [module for module in PLUGINS if find_spec(module) is not None]


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of files that Pillow decodes, in lower case, with those of installed plug-ins."""
    for module in installed():
        plugin = importlib.import_module(module)
        if (function := PLUGINS[module]) is not None:
            getattr(plugin, function)()
    Image.init()
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if _is_decoded(name))


def is_picture(file: str, suffix: str) -> bool:
    """Whether the content of a file is a picture. Only its head is read.

    Raises:
        OSError: where it cannot be read.
    """
    suffixes()
    with Path(file).open("rb") as content, quiet():
        try:
            with Image.open(content) as image:
                found = image.format
        except Exception:  # no picture, or one whose head is damaged: Pillow raises nearly everything
            return False
        content.seek(0, os.SEEK_END)
        content.seek(max(content.tell() - len(_TGA_END), 0))
        end = content.read()
    # Raw files are TIFF files, of which Pillow would read a thumbnail; TGA files begin as any file may.
    is_other = (suffix in _RAW and found == "TIFF") or (found == "TGA" and end != _TGA_END)
    return found is not None and _is_decoded(found) and not is_other


def why_not(suffix: str) -> str:
    """What files with this suffix are counted as, that are no pictures."""
    if not _SUFFIX.fullmatch(suffix):
        return "without a known suffix (no pictures)"
    return f"{suffix} ({_WHY.get(suffix, 'no pictures')})"


def is_foreign(file: str | os.PathLike[str]) -> bool:
    """Whether a file is named as pictures are that Pillow does not read, and as no other file."""
    suffix = _suffix_of(file)
    return suffix in _NAMED and suffix not in suffixes()


def why_foreign(file: str | os.PathLike[str]) -> str:
    """The same of one such file as ``why_not`` says of many."""
    return _WHY[_suffix_of(file)].replace("them", "it")


def _suffix_of(file: str | os.PathLike[str]) -> str:
    return os.path.splitext(file)[1].lower()  # noqa: PTH122  # for each file of a folder


def _is_decoded(name: str) -> bool:
    if name in NEVER_DECODED or name not in Image.OPEN:
        return False
    factory = Image.OPEN[name][0]
    if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile):
        return False
    return name != "EPS" or shutil.which("gs") is not None
