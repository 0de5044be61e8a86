"""Pretrained weights: from a file or by a library's name, into the body of a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.backbone import Backbone, is_path
from sweeper.training.model import outline
from sweeper.training.network_library import LIBRARIES, Library, bad_size

N_NAMED = 3
"""Number of misfitting tensors that an error names at most."""

# Names in weights hosted by torchvision that have changed in its networks since.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


def load(model: nn.Module, settings: schema.Model, image_size: int) -> None:
    """Load the pretrained weights into the body of a network from ``build``; its head stays new.

    Raises:
        BadInput: if the weights do not exist, cannot be read, or belong to another network.
    """
    if settings.weights is None:
        return
    state = model.state_dict()
    for name, tensor in _body_state(model, settings, image_size).items():
        state[name].copy_(tensor)


def check(settings: schema.Model, in_channels: int, image_size: int, n_classes: int) -> None:
    """Refuse a network or weights that cannot work, without allocating the network.

    Missing weights are downloaded.

    Raises:
        BadInput: if ``build``, ``load`` or the network would fail with these settings.
    """
    network = outline(settings, in_channels, image_size, n_classes).eval()
    if isinstance(network, Backbone):  # our own networks take any size
        images = torch.empty(1, in_channels, image_size, image_size, device="meta")
        try:
            with torch.no_grad():
                network(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise bad_size(settings, image_size, error) from error
    if settings.weights is not None:
        _body_state(network, settings, image_size)


def fingerprint(settings: schema.Model) -> str | None:
    """Identifies the weights: 16 hex digits of the file's digest, or the library's full name for them."""
    if settings.weights is None:
        return None
    if is_path(settings.weights):
        return _digest(settings.weights)
    return _library(settings).weights_name(settings)


# --------------------------------------------------------------------------------------------- reading


def _fetch(settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights under the names of their file or library."""
    weights = cast(str, settings.weights)
    if is_path(weights):
        return _read(weights)
    return _library(settings).download(settings, image_size)


def _library(settings: schema.Model) -> Library:
    """The library that knows ``model.weights`` by name. Raises BadInput for our own networks."""
    if settings.source not in LIBRARIES:
        reason = "our own networks have no weights to download"
        raise BadInput("model.weights", settings.weights, reason, "write null, or the path of a weights.pt")
    return LIBRARIES[settings.source]


def _read(path: str) -> dict[str, Tensor]:
    remedy = "write the path of a state dict: .pt, .pth or .safetensors"
    try:
        if path.endswith(".safetensors"):
            return load_file(Path(path).expanduser())
        # weights_only, because a pickle may run any code.
        loaded = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput("model.weights", path, "there is no such file", remedy) from error
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput("model.weights", path, f"cannot be read ({error.strerror})", remedy) from error
    except Exception as error:  # whatever unpickling a file of any kind raises
        reason = "is damaged, or holds more than tensors (which is not loaded, as it could run code)"
        raise BadInput("model.weights", path, reason, remedy) from error
    return _state_dict(path, loaded, remedy)


def _state_dict(path: str, loaded: object, remedy: str) -> dict[str, Tensor]:
    """The tensors by name, unwrapped from the formats in which other programs save them."""
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    is_one = isinstance(loaded, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
    )
    if not is_one or not loaded:
        raise BadInput("model.weights", path, "is not a state dict (tensors by name)", remedy)
    state = cast(Mapping[str, Tensor], loaded)
    if all(name.startswith("module.") for name in state):  # as DataParallel saves them
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _digest(path: str) -> str:
    digest = blake2b(digest_size=8)
    try:
        with Path(path).expanduser().open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(
            "model.weights", path, f"cannot be read ({error.strerror})", "write the path of a file"
        ) from error
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------- matching


def _body_state(model: nn.Module, settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights of the body under the network's names.

    Raises:
        BadInput: naming tensors that are missing, have no place, or have another shape.
    """
    offered = _fetch(settings, image_size)
    if isinstance(model, Backbone):
        resize = LIBRARIES[settings.source].resize
        offered = resize(_in_our_names(offered, model), model.body, image_size)
    wanted, offered = _without_head(model.state_dict()), _without_head(offered)
    if misfits := list(_misfits(wanted, offered)):
        raise _bad_fit(settings, misfits)
    return offered


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def _in_our_names(state: dict[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """Weights of our own runs unchanged; a library's weights renamed, and without its classifiers."""
    body = model.body.state_dict()
    n_ours, n_theirs = sum(f"body.{name}" in state for name in body), sum(name in state for name in body)
    if n_ours > n_theirs:
        return state
    classifiers = tuple(f"{name}." for name in model.left_out)
    return {
        f"body.{_renamed(name)}": tensor for name, tensor in state.items() if not name.startswith(classifiers)
    }


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _misfits(wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        shown, shape = name.removeprefix("body."), list(tensor.shape)
        if name not in offered:
            # Missing in weights saved before PyTorch 0.4.1, and nothing depends on it.
            if not name.endswith(".num_batches_tracked"):
                yield f"{shown} {shape} is missing"
        elif list(offered[name].shape) != shape:
            yield f"{shown} is {list(offered[name].shape)} there, {shape} in the network"
        elif not offered[name].isfinite().all():
            yield f"{shown} has values that are not finite"
    for name, tensor in offered.items():
        if name not in wanted:
            yield f"{name.removeprefix('body.')} {list(tensor.shape)} has no place"


def _bad_fit(settings: schema.Model, misfits: list[str]) -> BadInput:
    named, n_more = "; ".join(misfits[:N_NAMED]), len(misfits) - N_NAMED
    reason = f"does not fit {settings.name}: {named}" + (f"; and {n_more} more" if n_more > 0 else "")
    keys = "model.name" if settings.source in LIBRARIES else "model.filters, model.hidden_units, …"
    remedy = f"write the {keys} and dataset.image_size that the weights are of"
    return BadInput("model.weights", settings.weights, reason, remedy)
