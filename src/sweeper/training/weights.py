"""Pretrained weights: from a file or by a library's name, into the body of a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.backbone import Backbone, bad_size, create_timm, import_timm, is_path
from sweeper.training.model import outline

POSITIONS = "body.encoder.pos_embedding"
"""Of torchvision's vision transformers: the one tensor that depends on the size of the images."""

N_NAMED = 3
"""How many of the tensors that do not fit an error names."""

# What reading a damaged or a forbidden file raises.
UNREADABLE = (
    OSError,
    RuntimeError,
    UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    SafetensorError,
)

# Names in weights that torchvision hosts, where its networks have other ones since.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


def load(model: nn.Module, settings: schema.Model, image_size: int) -> None:
    """Put the pretrained weights into the body of a network that ``build`` gave; its head stays new.

    Raises:
        BadInput: where the weights are not there, cannot be read, or are of another network.
    """
    if settings.weights is None:
        return
    state = model.state_dict()
    for name, tensor in _fitting(model, settings, image_size).items():
        state[name].copy_(tensor)


def check(settings: schema.Model, in_channels: int, image_size: int, n_classes: int) -> None:
    """Refuse a network or weights that cannot work, without building the network.

    Weights that are not here yet are downloaded.

    Raises:
        BadInput: where ``build``, ``load`` or the network would fail with these settings.
    """
    network = outline(settings, in_channels, image_size, n_classes).eval()
    images = torch.empty(1, in_channels, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            network(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise bad_size(settings, image_size, error) from error
    if settings.weights is not None:
        _fitting(network, settings, image_size)


def fingerprint(settings: schema.Model) -> str | None:
    """What tells the weights from others: 16 hex digits of the file, or the library's full name for them."""
    if settings.weights is None:
        return None
    if is_path(settings.weights):
        return _digest(settings.weights)
    if settings.source == "torchvision":
        return repr(_torchvision_weights(settings))
    if settings.source == "timm":
        return _timm_weights(settings).hf_hub_id or settings.weights
    raise _not_by_name(settings)


# ----------------------------------------------------------------------------------------- where they are


def _fetch(settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights under the names that they have where they come from."""
    weights = cast(str, settings.weights)
    if is_path(weights):
        return _read(weights)
    if settings.source == "torchvision":
        return _download_torchvision(settings)
    if settings.source == "timm":
        return _download_timm(settings, image_size)
    raise _not_by_name(settings)


def _not_by_name(settings: schema.Model) -> BadInput:
    reason = "our own networks have no weights to download"
    return BadInput("model.weights", settings.weights, reason, "write null, or the path of a weights.pt")


def _read(path: str) -> dict[str, Tensor]:
    remedy = "write the path of a state dict: .pt, .pth or .safetensors"
    try:
        if path.endswith(".safetensors"):
            return load_file(Path(path).expanduser())
        # weights_only: a pickle may run any code.
        loaded = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput("model.weights", path, "there is no such file", remedy) from error
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput("model.weights", path, f"cannot be read ({error.strerror})", remedy) from error
    except UNREADABLE as error:
        reason = "is damaged, or holds more than tensors (which is not loaded, as it could run code)"
        raise BadInput("model.weights", path, reason, remedy) from error
    return _state_dict(path, loaded, remedy)


def _state_dict(path: str, loaded: object, remedy: str) -> dict[str, Tensor]:
    """The tensors by name, taken out of what other people's programs save them in."""
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    is_one = isinstance(loaded, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
    )
    if not is_one or not loaded:
        raise BadInput("model.weights", path, "is no state dict (tensors by name)", remedy)
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


def _torchvision_weights(settings: schema.Model) -> Any:
    """torchvision's weights of that name, with or without the class that they belong to."""
    from torchvision.models import get_model_weights

    there, weights = get_model_weights(settings.name), cast(str, settings.weights)
    name = weights.removeprefix(f"{there.__name__}.")
    if name not in there.__members__:
        remedy = f"write one of {', '.join(there.__members__)}, or a path"
        raise BadInput(
            "model.weights", weights, f"torchvision has no such weights of {settings.name}", remedy
        )
    return there[name]


def _download_torchvision(settings: schema.Model) -> dict[str, Tensor]:
    """From torch's cache, or else from the network into it."""
    weights = _torchvision_weights(settings)
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (*UNREADABLE, HTTPException) as error:
        reason = f"cannot be downloaded from {weights.url} ({_first_line(error)})"
        remedy = f"write the path of that file, or put it into {file.parent}"
        if file.exists():
            reason, remedy = "torch's copy of the file is damaged", f"remove {file}"
        raise BadInput("model.weights", settings.weights, reason, remedy) from error
    return dict(state)


def _timm_weights(settings: schema.Model) -> Any:
    """What timm knows of the network's weights."""
    timm, weights, key = import_timm(), settings.weights, "model.weights"
    if weights != "DEFAULT":
        remedy = "write model.weights=DEFAULT, with the weights' name behind the model's: model.name=NAME.TAG"
        raise BadInput(key, weights, "timm's weights are chosen by the name of the model", remedy)
    if not timm.is_model_pretrained(settings.name):
        remedy = "write null, a path, or a name that timm.list_pretrained() gives"
        raise BadInput(key, weights, f"timm has no weights of {settings.name}", remedy)
    return timm.get_pretrained_cfg(settings.name)


def _download_timm(settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """As timm adapts them to a network without classifier for images of that size."""
    source = _timm_weights(settings)
    try:
        # A second network: the weights' own names and sizes are known to its constructor only.
        with torch.random.fork_rng(devices=[]):
            return create_timm(settings, image_size, pretrained=True).state_dict()
    except (OSError, HTTPException, RuntimeError) as error:
        address = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
        reason = f"cannot be downloaded from {address} ({_first_line(error)})"
        remedy = "write the path of its model.safetensors, or put it into the cache (HF_HOME says where)"
        raise BadInput("model.weights", settings.weights, reason, remedy) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# ------------------------------------------------------------------------------------- whether they fit


def _fitting(model: nn.Module, settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights under the network's names, all but the head's.

    Raises:
        BadInput: naming those that are missing, have no place, or another shape.
    """
    fetched = _fetch(settings, image_size)
    offered = _without_head(_in_our_names(fetched, model) if isinstance(model, Backbone) else fetched)
    if POSITIONS in offered and settings.source == "torchvision":
        offered[POSITIONS] = _resized(offered[POSITIONS], cast(Backbone, model).body, image_size)
    wanted = _without_head(model.state_dict())
    if misfits := list(_misfits(wanted, offered)):
        raise _bad_fit(settings, misfits)
    return offered


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def _in_our_names(state: dict[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """Weights of our own runs as they are; a library's without its classifiers, as ours would be named."""
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


def _resized(positions: Tensor, transformer: nn.Module, image_size: int) -> Tensor:
    """What a vision transformer knows of the patches' places, for as many patches as it has now."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    state = {"encoder.pos_embedding": positions}
    # What is no square of patches stays, to be refused for its shape.
    with suppress(ValueError):
        interpolate_embeddings(image_size, cast(int, transformer.patch_size), state)
    return state["encoder.pos_embedding"]


def _misfits(wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        shown, shape = name.removeprefix("body."), list(tensor.shape)
        if name not in offered:
            # Weights that were saved before PyTorch 0.4.1 lack it, and nothing depends on it.
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
    keys = "model.filters, model.hidden_units, …" if settings.source == "sweeper" else "model.name"
    remedy = f"write the {keys} and dataset.image_size that the weights are of"
    return BadInput("model.weights", settings.weights, reason, remedy)
