"""Files, whatever they are called: written whole or not at all, and read as what they should be."""

from __future__ import annotations

import glob
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper.errors import BadInput
from sweeper.fault import Fault, disk, find_fault, of_disk
from sweeper.lock import open_locked, remove_unlocked

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile


_TEMPORARY = ".sweeper-new"


def check_replaceable(path: Path, key: str = "file") -> None:
    """Raises BadInput for a device, which a file must never take the place of: root could rename it there."""
    try:
        # What the link /dev/stdout leads to may well be a file.
        is_stream = path.is_symlink() and path.parent.resolve() == Path("/dev")
        is_device = is_stream or (path.exists() and not path.is_file() and not path.is_dir())
    except OSError:  # writing says why it cannot be
        return
    if is_device:
        raise BadInput(key, path, "is a device, and no file", "write the name of a file")


@contextmanager
def whole(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Write a file so that readers, and a kill at any moment, find the old content or the new.

    Args:
        mode: who may do what with it, as far as the umask admits.

    Raises:
        BadInput: if it is a device.
        Fault: if the disk fails.
    """
    with disk(path):
        check_replaceable(path)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary(path, mode) as new:
                yield new
                new.replace(path)
        except BaseException as error:
            if isinstance(error, OSError):
                raise of_disk(error, path) from error  # nobody knows the other name
            if (fault := find_fault(error)) is not None:  # libraries raise others on top of it
                raise Fault(path, fault.reason, fault.remedy) from error
            raise


@contextmanager
def temporary(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A file beside another, for as long as this takes; ``sweep_up`` removes it if this process is killed."""
    new = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with open_locked(new, mode):  # so that nobody sweeps it up meanwhile
            yield new
    finally:
        with suppress(OSError):  # what failed first is what matters
            new.unlink(missing_ok=True)


def sweep_up(folder: Path, depth: int) -> None:
    """Remove what killed processes have not finished writing into a folder, and folders so far below it."""
    for level in range(depth + 1):
        for path in folder.glob("*/" * level + f".*{_TEMPORARY}"):
            remove_unlocked(path)


def sweep_up_beside(path: Path) -> None:
    """Remove what killed processes have not finished writing of one file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY}"):
        remove_unlocked(left)


def write_whole(path: Path, content: str) -> None:
    """A text, in which what UTF-8 lacks is escaped: JSON and YAML read the same from that."""
    with whole(path) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")


def read_texts(places: Mapping[str, Path]) -> dict[str, str]:
    """What stands in the files that are there."""
    found = {}
    for name, path in places.items():
        if path.is_file():
            with disk(path):
                found[name] = path.read_bytes().decode(errors="replace")
    return found


def has_text(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode(errors="backslashreplace")
    except OSError:
        return False


def link(source: Path, target: Path) -> None:
    """The same file in another folder, or a copy where the disk cannot do that: none is changed later."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A file of ours.

    Raises:
        Fault: if it cannot be read, or is damaged.
    """
    return _read(path, json.loads)


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A file of ours that holds a list of mappings.

    Raises:
        Fault: if it cannot be read, or is damaged.
    """
    parsed = _parsed(path, json.loads)
    if not isinstance(parsed, list) or not all(isinstance(item, dict) for item in parsed):
        raise damaged(path, "is not a list of mappings")
    return parsed


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of ours.

    Raises:
        Fault: if it cannot be read, or is damaged.
    """
    return _read(path, yaml.safe_load)


def refuse_stream(path: Path) -> None:
    """Raises Fault for what is no file, which might never end, or never begin."""
    with disk(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise damaged(path, "is a pipe or a device")


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    refuse_stream(path)
    with disk(path):
        content = path.read_bytes()
    try:
        return parse(content.decode())
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # half a file, or another program's
        raise damaged(path, "cannot be parsed") from error


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    parsed = _parsed(path, parse)
    if not isinstance(parsed, dict):
        raise damaged(path, "is not a mapping")
    return parsed


DAMAGES = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    MemoryError,
)
"""What numpy raises for a file that is none of ours, half of one, or one that claims to be huge."""


@contextmanager
def arrays(path: Path, what: str) -> Iterator[NpzFile]:
    """The arrays of a file of ours, by their names.

    Args:
        what: is said of it where it is damaged, as "holds no predictions".

    Raises:
        Fault: if it cannot be read; or is damaged, which the caller says by a ValueError.
    """
    import numpy as np

    refuse_stream(path)
    try:
        # numpy leaves one that is damaged open
        with disk(path), path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            yield found
    except DAMAGES as error:
        raise damaged(path, what) from error


def damaged(path: Path, what: str) -> Fault:
    return Fault(path, f"{what}: the file is damaged", "restore an intact copy, or remove it")


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, however they change meanwhile; 0 where there is none."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(size, path.iterdir()))
        return path.lstat().st_size
    except OSError:  # just removed, or nobody's business
        return 0


def remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing is, and those above it, up to the first that holds something."""
    while folder.is_dir() and not any(folder.iterdir()) and folder.absolute() != Path.cwd():
        folder.rmdir()
        folder = folder.parent


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours with all that is in it, if it is there.

    Raises:
        Fault: if the disk fails.
    """
    with disk(folder):
        remove_trees(folder)


def remove_trees(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
