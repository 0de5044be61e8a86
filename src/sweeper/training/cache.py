"""Arrays on disk that all processes of this machine share: built once, then mapped into memory.

An entry is ``<kind>/<digest of its key>.npy`` with a small json file beside it. Its builder holds its lock,
writes to a ``.part`` file of its own and renames that at the end, so a ``.npy`` file is always complete. Lock
files stay when entries are removed, because another process may be waiting for one.

The folder may be shared by machines, as home folders are. Where its locks reach all of them, one builds for
all; where they end at the machine, or are refused, each machine builds once, and the first entry stays.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import is_refused, locked_here, open_locked, remove_unlocked
from sweeper.program import program
from sweeper.words import expanded

log = logging.getLogger(__name__)

GB = 10**9
DEFAULT_GB = 20
LEFT_FREE = 0.05
"""Fraction of the disk that always stays free, whatever the limit."""
DEAD_S = 86_400.0
"""Another machine's unfinished file that nobody has written to for so long is that of a dead builder."""


@dataclass(frozen=True)
class Entry:
    """One array on disk; ``used`` is in seconds since 1970."""

    kind: str
    about: str
    n_bytes: int
    used: float
    path: Path


class _NoRoomError(Exception):
    """The array cannot be put on disk; the message says why."""


# ----------------------------------------------------------------------------------- public functions


def array(
    kind: str,
    key: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    fill: Callable[[NDArray[Any]], None],
    about: str,
    notes: Mapping[str, str] | None = None,
) -> NDArray[Any] | None:
    """An array that all processes of this machine share, mapped read-only; ``fill`` writes it if it does not
    exist yet.

    Other processes that ask for it meanwhile wait. If ``fill`` raises, nothing is left on disk. Returns None,
    and logs the reason, if there is no room.

    Args:
        key: holds everything that the values depend on.
        about: describes the entry in the list of ``sweeper cache``.
        notes: values for ``remembered``; ``fill`` may add some.
    """
    path = (
        folder() / kind / f"{blake2b(key.encode(errors='surrogateescape'), digest_size=16).hexdigest()}.npy"
    )
    found = _open(path, shape, np.dtype(dtype))
    if found is not None:
        return found
    try:
        _check_writable(path.with_suffix(".lock"))
        with locked_here(path.with_suffix(".lock")):
            found = _open(path, shape, np.dtype(dtype))  # built by the last holder of the lock
            return found if found is not None else _build(path, shape, np.dtype(dtype), fill, about, notes)
    except _NoRoomError as reason:
        log.warning("%s: not kept on disk: %s", about, reason)
        return None


def remembered(array: NDArray[Any], name: str, compute: Callable[[], str]) -> str:
    """``compute()``'s result, stored beside the array's cache entry, or for as long as a kept array lives.

    Computed every time for other arrays. Views of an entry share its results, so the name must tell them
    apart.
    """
    if (in_memory := _kept.get(id(_owner(array)))) is not None:
        if name not in in_memory:
            in_memory[name] = compute()
        return in_memory[name]
    notes = Path(getattr(array, "filename", None) or "none").with_suffix(".json")
    known = _read(notes) if folder() in notes.parents else {}
    if not known:  # no entry, or one that is being filled or was removed
        return compute()
    if name in known:
        return str(known[name])
    value = compute()
    with suppress(OSError, Fault), locked_here(notes.with_suffix(".lock")):
        if now := _read(notes):
            _write(notes, {**now, name: value})
    return value


_kept: dict[int, dict[str, str]] = {}
"""Notes of arrays in memory, by the identity of what owns their values."""


def keep(array: NDArray[Any], notes: Mapping[str, str]) -> None:
    """Let ``remembered`` remember for an array that could not be put on disk."""
    owner = _owner(array)
    _kept[id(owner)] = dict(notes)
    weakref.finalize(owner, _kept.pop, id(owner), None)


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def folder() -> Path:
    """``$SWEEPER_CACHE``, or ``sweeper`` in the user's cache folder.

    Raises:
        BadInput: if the user has no home, as in some containers.
    """
    if chosen := os.environ.get("SWEEPER_CACHE"):
        return expanded(chosen).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sweeper"
    except RuntimeError as error:
        remedy = "write SWEEPER_CACHE=FOLDER before the command"
        raise BadInput("HOME", None, "is not set, and the user has no home", remedy) from error


def limit() -> int:
    """Bytes that all entries may take: ``$SWEEPER_CACHE_GB``, or less if the disk would become full.

    Raises:
        BadInput: if ``$SWEEPER_CACHE_GB`` is not a size.
    """
    there = next(path for path in (folder(), *folder().parents) if path.is_dir())
    disk = shutil.disk_usage(there)
    return max(0, min(_chosen_limit(), size() + disk.free - int(LEFT_FREE * disk.total)))


def size() -> int:
    """Bytes that all entries take."""
    return sum(entry.n_bytes for entry in entries())


def entries() -> list[Entry]:
    """All arrays, the last used first, and the unfinished ones of killed builders."""
    return sorted(_entries(), key=lambda entry: entry.used, reverse=True)


def clear() -> int:
    """Remove all entries, and return the bytes that they took. Mapped entries stay valid until unmapped.

    What another machine is building is left to it.
    """
    freed = 0
    for entry in entries():
        if entry.path.suffix == _PART and not _is_ours(entry.path) and not _is_old(entry.path, time.time()):
            continue
        entry.path.with_suffix(".json").unlink(missing_ok=True)
        entry.path.unlink(missing_ok=True)
        freed += entry.n_bytes
    for notes in folder().glob("*/*.json*"):  # of arrays that were cleared while being built
        notes.unlink(missing_ok=True)
    return freed


# ------------------------------------------------------------------------------------------ one entry


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The entry, if it exists and is intact; its time of last use becomes now."""
    found = _map(path, shape, dtype)
    if found is None or not _read(path.with_suffix(".json")):
        return None
    with suppress(OSError):  # another user's, or just removed
        os.utime(path)
    return found


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, truncated, or not an array
        return None
    return found if found.shape == shape and found.dtype == dtype else None


def _build(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Callable[[NDArray[Any]], None],
    about: str,
    notes: Mapping[str, str] | None,
) -> NDArray[Any]:
    with _part_of(path) as part:
        values = _reserve(part, path, shape, dtype)
        fill(values)
        values.flush()
        found = _open(path, shape, dtype)  # another machine may have been faster: others map its file
        if found is None:
            with suppress(OSError):  # it may have been cleared meanwhile; the mapping stays valid
                _write(path.with_suffix(".json"), {"about": about, "created": time.time(), **(notes or {})})
                part.replace(path)
            found = _open(path, shape, dtype)
    values.flags.writeable = False
    return values if found is None else found


_PART = ".part"


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """The name of an unfinished file that nobody else has; what is left of it at the end is removed."""
    part = path.with_name(f"{path.stem}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{_PART}")
    with ExitStack() as stack:
        try:
            stack.enter_context(open_locked(part, 0o666))  # so that this machine sees who builds it live
        except OSError as error:
            if not is_refused(error):
                raise _no_room(error) from error
        try:
            yield part
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _machine() -> str:
    """Its name, and what differs from one that has the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        boot = ""
    return f"{socket.gethostname()}-{boot.partition('-')[0]}"


def _is_ours(part: Path) -> bool:
    """Whether this machine began an unfinished file; earlier versions did not say who has."""
    _, _, rest = part.stem.partition(".")
    return not rest or rest.rsplit("-", 2)[0] == _machine()


def _is_old(part: Path, now_s: float) -> bool:
    return now_s - part.stat().st_mtime > DEAD_S


def _sweep(now_s: float) -> None:
    """Remove what dead builders have left: of this machine at once, of others when it is old.

    Args:
        now_s: by the clock of the file system, which is another machine's.
    """
    for part in folder().glob(f"*/*{_PART}"):
        with suppress(OSError):  # just renamed
            if _is_ours(part):
                remove_unlocked(part)
            if _is_old(part, now_s):
                part.unlink()


def _reserve(part: Path, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """An array on disk with its space reserved: writing to a mapping on a full disk would kill us."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        if _map(path, shape, dtype) is None:
            path.unlink(missing_ok=True)  # damaged
        room = folder() / "room.lock"
        with locked_here(room):  # otherwise two builders would take the same room
            os.utime(room)
            _sweep(room.stat().st_mtime)
            _check_room(n_bytes)
            values = open_memmap(part, mode="w+", dtype=dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                with part.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except (OSError, Fault) as error:
        raise _no_room(error) from error
    return values


def _no_room(error: OSError | Fault) -> _NoRoomError:
    why = error.strerror if isinstance(error, OSError) else f"{error.place}: {error.reason}"
    return _NoRoomError(f"{folder()}: {why}")


# ---------------------------------------------------------------------------------------- the folder


def _entries() -> Iterator[Entry]:
    for path in folder().glob("*/*"):
        if path.suffix not in (".npy", _PART):
            continue
        with suppress(OSError):  # just removed
            found = path.stat()
            about = (
                _read(path.with_suffix(".json")).get("about", "?") if path.suffix == ".npy" else "unfinished"
            )
            yield Entry(path.parent.name, about, found.st_size, found.st_mtime, path)


def _check_room(n_bytes: int) -> None:
    used, most = size(), limit()
    if used + n_bytes <= most:
        return
    what = "$SWEEPER_CACHE_GB" if most == _chosen_limit() else f"{LEFT_FREE:.0%} of the disk stay free"
    raise _NoRoomError(
        f"it takes {n_bytes / GB:.3g} GB, and {folder()} holds {used / GB:.3g} of at most {most / GB:.3g} GB "
        f"({what}); {program()} cache --clear makes room, a higher $SWEEPER_CACHE_GB allows more"
    )


def _check_writable(lock: Path) -> None:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.open("ab").close()  # fails if it is another user's
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}; set $SWEEPER_CACHE to a folder of yours"
        raise _NoRoomError(reason) from error


def _chosen_limit() -> int:
    text = os.environ.get("SWEEPER_CACHE_GB") or str(DEFAULT_GB)
    try:
        chosen = float(text)
    except ValueError:
        chosen = -1
    if not 0 <= chosen < float("inf"):
        raise BadInput(
            "SWEEPER_CACHE_GB", text, "is not a size", f"write a number of GB, such as {DEFAULT_GB}"
        )
    return int(chosen * GB)


def _read(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _write(path: Path, notes: dict[str, Any]) -> None:
    new = path.with_name(f"{path.stem}.{_machine()}-{os.getpid()}.json.new")
    new.write_text(json.dumps(notes), encoding="utf-8")
    new.replace(path)
