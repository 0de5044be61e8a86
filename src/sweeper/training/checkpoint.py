"""A file of weights, whoever wrote it: its tensors by name, or what it is instead, in one line.

Nothing in a file ever runs. torch reads it with ``weights_only=True``; of the plain values that programs keep
beside weights (NumPy's numbers, settings) an empty stand-in is made, and never the thing itself.
"""

from __future__ import annotations

import _compat_pickle
import contextlib
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sweeper.errors import BadInput, nearest
from sweeper.words import counted, expanded

KEY = "model.weights"

_HEAD_BYTES = 4096
"""Of a file, to see what it is."""

_A_PATH = "write the path of a file of torch.save or safetensors"
_SAVE = "write the path of a state dict: torch.save(network.state_dict(), FILE)"


def read(path: str) -> dict[str, Tensor]:
    """The tensors of a file under their full names: dictionaries within dictionaries are joined with dots.

    Numbers, texts and settings beside them are left out. Recognised by its content, whatever its extension.

    Raises:
        BadInput: for a file that is not there, cannot be read, holds code, or is no weights.
    """
    file = expanded(path)
    try:
        head = _first_bytes(path, file)
        _refuse_others(path, file, head)
        loaded: Any = load_file(file) if _is_safetensors(head) else _load(path, file, head)
    except BadInput:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # whatever unpickling a file of any kind raises
        raise BadInput(KEY, path, "is damaged, or cut off", f"fetch it anew, or {_A_PATH}") from error
    tensors = dict(_flat(loaded))
    if not tensors:
        held = counted(len(loaded), "value") if isinstance(loaded, list | dict) else ""
        what = f"a {type(loaded).__name__}{f' of {held}' if held else ''}"
        raise BadInput(KEY, path, f"is not a state dict (tensors by name): it holds {what}", _SAVE)
    return tensors


def _flat(node: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors within dictionaries and lists, by their path. A list alone is none of names."""
    if isinstance(node, Mapping) and depth < _MAX_DEPTH:
        for name, value in node.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            else:
                yield from _flat(value, f"{prefix}{name}.", depth + 1)
    elif isinstance(node, list | tuple) and depth < _MAX_DEPTH:
        for i, value in enumerate(node):
            yield from _flat(value, f"{prefix}{i}.", depth + 1)


_MAX_DEPTH = 8


# --------------------------------------------------------------------------------------- what is no weights


def _first_bytes(path: str, file: Path) -> bytes:
    if file.is_dir():
        inside = sorted(p.name for p in file.iterdir() if p.is_file() and _SUFFIXES.search(p.name.lower()))
        first = next(iter(sorted(inside, key=_likely)), None)
        remedy = f"write the path of a file in it, as {file / first}" if first else _A_PATH
        raise BadInput(KEY, path, "cannot be read: it is a folder", remedy)
    if not file.exists():
        raise _missing(path, file)
    if not file.is_file():
        raise BadInput(KEY, path, "cannot be read: it is no file, but a device or a pipe", _A_PATH)
    with file.open("rb") as opened:
        return opened.read(_HEAD_BYTES)


_SUFFIXES = re.compile(r"\.(pt|pth|safetensors|bin|ckpt|tar)$")


def _likely(name: str) -> tuple[bool, str]:
    return not re.search("best|model|weights", name.lower()), name


def _missing(path: str, file: Path) -> BadInput:
    """For a path where nothing is, with the file that was probably meant."""
    if "://" in path:
        return BadInput(KEY, path, "is an address, and no file", _DOWNLOAD)
    if file.is_symlink():
        return BadInput(KEY, path, f"there is no such file: the link points to {file.readlink()}", _A_PATH)
    if file.with_name(f"{file.name}.index").exists():
        return BadInput(KEY, path, "is a checkpoint of TensorFlow, and none of PyTorch", _CONVERT)
    folder, names = file.parent, list[str]()
    with contextlib.suppress(OSError):  # it may be forbidden, or none
        names = [path.name for path in folder.iterdir()]
    near = nearest(file.name, names)
    where = "" if folder.is_dir() else f": there is no folder {folder}"
    remedy = f"did you mean {folder / near}? {_A_PATH}" if near else _A_PATH
    return BadInput(KEY, path, f"there is no such file{where}", remedy)


def _unreadable(path: str, error: OSError) -> BadInput:
    remedy = "allow it to be read (chmod +r), or write the path of another file"
    if not isinstance(error, PermissionError):
        remedy = _A_PATH
    return BadInput(KEY, path, f"cannot be read ({error.strerror or error})", remedy)


@dataclass(frozen=True)
class _Kind:
    """A kind of file that is no weights of torch."""

    is_it: Callable[[bytes, str], bool]
    """By its first bytes and its name."""
    what: str
    remedy: str = _A_PATH


def _begins(*magic: bytes) -> Callable[[bytes, str], bool]:
    return lambda head, name: head.startswith(magic)


def _text(*words: bytes) -> Callable[[bytes, str], bool]:
    return lambda head, name: head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(words)


_DOWNLOAD = "fetch the file itself, and write the path of that"
_CONVERT = "convert it to PyTorch, and write the path of the state dict"
_UNPACK = "unpack it, and write the path of the weights in it"

_KINDS = (
    _Kind(lambda head, name: not head, "is damaged: it is empty", f"fetch it anew, or {_A_PATH}"),
    _Kind(
        _begins(b"version https://git-lfs", b"oid sha256:"),
        "is a pointer of Git LFS, not the file itself",
        "run git lfs pull, or write the path of another file",
    ),
    _Kind(
        lambda head, name: head.startswith(b"/annex/objects/") or b".git/annex/objects/" in head[:200],
        "is a pointer of git-annex, not the file itself",
        "run git annex get, or write the path of another file",
    ),
    _Kind(
        _text(b"<!doctype", b"<html", b"<head", b"<body"),
        "is a web page, as a failed download leaves it",
        _DOWNLOAD,
    ),
    _Kind(_text(b"<?xml"), "is XML, as a failed download leaves it", _DOWNLOAD),
    _Kind(
        _begins(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"), "is a picture, no weights"
    ),
    _Kind(lambda head, name: head[:4] == b"RIFF" and head[8:12] == b"WEBP", "is a picture, no weights"),
    _Kind(_begins(b"%PDF"), "is a PDF, no weights"),
    _Kind(_begins(b"\x89HDF\r\n"), "is an HDF5 file, as Keras writes it, and none of PyTorch", _CONVERT),
    _Kind(
        lambda head, name: name.endswith(".onnx") or (head[:1] == b"\x08" and head[2:3] == b"\x12"),
        "is an ONNX file, and none of PyTorch",
        _CONVERT,
    ),
    _Kind(
        lambda head, name: re.search(r"\.(index|meta|data-\d+-of-\d+|pb)$", name) is not None,
        "is a file of TensorFlow, and none of PyTorch",
        _CONVERT,
    ),
    _Kind(_text(b"model_checkpoint_path"), "is a list of checkpoints of TensorFlow, no weights", _CONVERT),
    _Kind(lambda head, name: head[4:8] == b"TFL3", "is a TensorFlow Lite file", _CONVERT),
    _Kind(_begins(b"GGUF"), "is a GGUF file, and none of PyTorch", _CONVERT),
    _Kind(_begins(b"\x93NUMPY"), "is an array of NumPy, no weights", _CONVERT),
    _Kind(
        _begins(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
        "is a packed file",
        _UNPACK,
    ),
    _Kind(lambda head, name: head[257:262] == b"ustar", "is a tar archive", _UNPACK),
    _Kind(_begins(b"\x7fELF", b"MZ"), "is a program, no weights"),
    _Kind(
        lambda head, name: name.endswith(".json") and b"weight_map" in head,
        "is an index of weights in several files",
        "join them to one, and write the path of that",
    ),
)


def _refuse_others(path: str, file: Path, head: bytes) -> None:
    """Raises BadInput for what can be told to be no weights of torch."""
    for kind in _KINDS:
        if kind.is_it(head, file.name.lower()):
            raise BadInput(KEY, path, kind.what, kind.remedy)
    if head.startswith(b"PK"):
        _refuse_archive(path, file)
    elif not _is_safetensors(head) and not head.startswith(b"\x80"):
        try:
            head.decode()
            reason = "is text, no weights; or it is damaged"
        except UnicodeDecodeError:
            reason = "is no file that torch.save or safetensors has written, or it is damaged"
        raise BadInput(KEY, path, reason.replace("; or", ", or"), _A_PATH)


def _refuse_archive(path: str, file: Path) -> None:
    """Raises BadInput for a zip archive that torch.save has not written."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        reason = "is damaged: it is cut off, as a download that did not end"
        raise BadInput(KEY, path, reason, f"fetch it anew, or {_A_PATH}") from error
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        reason = "is a TorchScript archive, whose code is not loaded"
        remedy = "write the path of a state dict: torch.save(torch.jit.load(OLD).state_dict(), NEW)"
        raise BadInput(KEY, path, reason, remedy)
    if "data.pkl" in inside:
        return
    if "model.weights.h5" in names:
        raise BadInput(KEY, path, "is a file of Keras, and none of PyTorch", _CONVERT)
    if names and all(name.endswith(".npy") for name in names):
        raise BadInput(KEY, path, "holds arrays of NumPy, and no tensors", _CONVERT)
    raise BadInput(KEY, path, "is a zip archive", _UNPACK)


def _is_safetensors(head: bytes) -> bool:
    """Whether it begins with the length of a header in JSON, which follows."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


# ------------------------------------------------------------------------------------------------- pickles


class _StandIn:
    """What is made of a value beside the weights: nothing of it."""

    def __new__(cls, *arguments: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Dictionary:
    """What is made of a dictionary of another kind, which torch fills: a plain one."""

    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()


class _List:
    def __new__(cls, *arguments: Any) -> Any:
        return []


_PLAIN = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|pathlib(\._local)?\.\w+|datetime\.\w+|enum\.\w+|typing\.\w+"
    r"|uuid\.(UUID|SafeUUID)|decimal\.Decimal|fractions\.Fraction|collections\.(defaultdict|deque|OrderedDict)"
    r"|builtins\.(dict|list|set|frozenset|tuple|int|float|str|bool|bytes|complex|object|slice|range|long)"
    r"|numpy(\._?core)?\.(multiarray\.(scalar|_reconstruct)|dtype|ndarray|numeric\._frombuffer)"
    r"|numpy\.(bool|int|uint|float|str|bytes|longlong)\w*|numpy\.dtypes\.\w+"
    r"|(omegaconf|(pytorch_)?lightning|lightning_fabric|lightning_utilities|ml_collections|mmengine|mmcv)(\.\w+)+"
    r"|easydict\.EasyDict|(yacs|fvcore\.common)\.config\.CfgNode|addict(\.\w+)*\.Dict|box(\.\w+)*\.Box"
    r"|munch(\.\w+)*\.Munch|torch\.optim(\.\w+)+|torch\.torch_version\.TorchVersion)"
)
"""Values that programs keep beside weights. Of each a stand-in is made, so that none of these runs either."""

_DICTIONARIES = re.compile(r".*\.(defaultdict|EasyDict|CfgNode|AttributeDict|Dict|ConfigDict|Box|Munch)")

_OF_TORCH = re.compile(
    r"torch\..*|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
)
"""What ``weights_only`` makes itself, or refuses."""

_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""At the beginning of what torch.save wrote before version 1.6."""


def _load(path: str, file: Path, head: bytes) -> Any:
    is_zip = head.startswith(b"PK")
    if not is_zip and _LEGACY not in head[:16]:
        reason = "is a pickle that torch.save has not written, not loaded, as it could run code"
        raise BadInput(KEY, path, reason, _SAVE)
    protocol, names = _globals(file, is_zip)
    if protocol > _PROTOCOL:
        reason = f"was saved with pickle_protocol={protocol}, which torch does not load without running code"
        raise BadInput(KEY, path, reason, f"save it anew without, and {_A_PATH}")
    if any(name.startswith("torch.nn.modules.") for name in names):
        top = next((name for name in names if not _OF_TORCH.fullmatch(name) or ".modules." in name), "")
        reason = f"is a whole pickled network ({top}), not loaded, as it could run code"
        raise BadInput(KEY, path, reason, _SAVE)
    others = [name for name in names if _PLAIN.fullmatch(name) or not _OF_TORCH.fullmatch(name)]
    if strange := [name for name in others if not _PLAIN.fullmatch(name)]:
        reason = f"holds more than tensors, not loaded, as it could run code: {', '.join(strange[:3])}"
        remedy = "save its state dict alone in the program it is of, and write the path of that"
        raise BadInput(KEY, path, reason, remedy)
    stand_ins: Any = [(_stand_in(name), name) for name in others]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")
        with file.open("rb") as opened:  # of a path, torch would look at the extension
            return torch.load(opened, map_location="cpu", weights_only=True)


_PROTOCOL = 2
"""Of pickle: that of torch.save, and the only one that ``weights_only`` reads whole."""


def _stand_in(name: str) -> type:
    kind = _Dictionary if _DICTIONARIES.fullmatch(name) else _List if name.endswith(".deque") else _StandIn
    return type(name, (kind,), {})


def _globals(file: Path, is_zip: bool) -> tuple[int, list[str]]:
    """The highest protocol, and the names in Python that a file of torch.save refers to, as they come."""
    protocol, names = 0, dict[str, None]()
    with contextlib.ExitStack() as stack:
        if is_zip:
            archive = stack.enter_context(zipfile.ZipFile(file))
            record = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
            opened, n_pickles = archive.open(record), 1
        else:
            opened, n_pickles = file.open("rb"), 4  # magic number, version, system, and the object
        stack.enter_context(opened)
        for _ in range(n_pickles):
            for operation, argument, _ in pickletools.genops(opened):
                if operation.name == "PROTO":
                    protocol = max(protocol, int(str(argument)))
                elif operation.name == "GLOBAL":
                    names[_in_python_3(*str(argument).split(" ", 1))] = None
    return protocol, list(names)


def _in_python_3(module: str, name: str) -> str:
    """As torch reads it, too: protocol 2 writes the names of Python 2."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"
