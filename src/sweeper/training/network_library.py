"""torchvision and timm: the networks and weights of each library, in one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.lock import locked_on_machine

USUAL_SIDE = 224
"""Side of the images that nearly all of these networks were made for."""

POSITIONS = "body.encoder.pos_embedding"
"""The one tensor of torchvision's vision transformers that depends on the size of the images."""

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
"""What reading a damaged or a forbidden file raises."""


@dataclass(frozen=True)
class Body:
    """A network from images (n, 3, side, side) to ``n_features`` features of each.

    ``classifiers`` names the layers that were removed, as the library's own weights call them.
    """

    network: nn.Module
    n_features: int
    classifiers: tuple[str, ...]
    takes_any_size: bool


@dataclass(frozen=True)
class Library:
    """Where networks and their weights come from."""

    body: Callable[[schema.Model, int], Body]
    """Builds the network for images of a size."""
    own_size: Callable[[schema.Model], int]
    """Side of the images that a network was made for."""
    weights_name: Callable[[schema.Model], str]
    """The library's full name of the weights that ``model.weights`` names."""
    download: Callable[[schema.Model, int], dict[str, Tensor]]
    """The weights under the library's names, from its cache or the network."""
    resize: Callable[[dict[str, Tensor], nn.Module, int], dict[str, Tensor]]
    """Weights under our names, for a body that takes images of a size."""


def bad_size(model: schema.Model, image_size: int, error: Exception) -> BadInput:
    """The error for a network that refuses the images' size, with the library's own reason."""
    why = str(error).strip().partition("\n")[0].rstrip(".!")
    own_size = LIBRARIES[model.source].own_size(model)
    if image_size == own_size:
        return BadInput("model.name", model.name, f"does not work ({why})", "write another network's name")
    reason = f"{model.name} cannot take images of this size" + (f" ({why})" if why else "")
    return BadInput("dataset.image_size", image_size, reason, f"write dataset.image_size={own_size}")


# ----------------------------------------------------------------------------------------- torchvision


def _torchvision_body(model: schema.Model, image_size: int) -> Body:
    from torchvision import models

    names = models.list_models(module=models)
    if model.name not in names:
        remedy = f"{_did_you_mean(model.name, names)}write one of {', '.join(names)}"
        raise BadInput("model.name", model.name, "torchvision has no such classification model", remedy)
    for_size = _size_arguments(model.name, image_size)
    try:
        # One class: the layer is thrown away.
        arguments = {"num_classes": 1, **for_size, **_inception_arguments(model)}
        network = models.get_model(model.name, weights=None, **arguments)
    except (AssertionError, ValueError) as error:
        if not for_size:
            raise
        raise bad_size(model, image_size, error) from error
    name, n_features = _take_out_classifier(network)
    return Body(network, n_features, (name,), takes_any_size=not for_size)


def _size_arguments(name: str, image_size: int) -> dict[str, Any]:
    """Arguments of the networks that are built for one image size."""
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _inception_arguments(model: schema.Model) -> dict[str, Any]:
    """No auxiliary classifiers, and PyTorch's own initialisation, which torchvision announces as its default.

    torchvision's weights expect images normalised to -1 … 1; with ``transform_input`` the network does that.
    """
    if model.name not in ("googlenet", "inception_v3"):
        return {}
    return {"aux_logits": False, "init_weights": False, "transform_input": True}


def _take_out_classifier(network: nn.Module) -> tuple[str, int]:
    """Replace the last linear layer, and a dropout directly before it; return its name and its inputs."""
    from torchvision.models import SqueezeNet

    if isinstance(network, SqueezeNet):  # classifies with a convolution, before it pools
        n_features: int = network.classifier[1].in_channels
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return "classifier", n_features
    layers = [
        (name, layer) for name, layer in network.named_modules() if next(layer.children(), None) is None
    ]
    last = max(i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear))
    (name, linear), (before, maybe_dropout) = layers[last], layers[last - 1]
    assert isinstance(linear, nn.Linear)
    network.set_submodule(name, nn.Identity())
    if isinstance(maybe_dropout, nn.Dropout):
        network.set_submodule(before, nn.Identity())
    return name, linear.in_features


def _torchvision_weights(settings: schema.Model) -> Any:
    """torchvision's weights of that name; the name of their class may stand before it."""
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
    """Read torchvision's weights from torch's cache; download them into it first if need be."""
    weights = _torchvision_weights(settings)
    file = _torchs_copy(weights.url)
    try:
        with _one_by_one_until(file):
            state = weights.get_state_dict(
                progress=True, check_hash=True, map_location="cpu", weights_only=True
            )
    except (*UNREADABLE, HTTPException) as error:
        reason = f"cannot be downloaded from {weights.url} ({_first_line(error)})"
        remedy = f"write the path of that file, or put it into {file.parent}"
        if file.exists():
            reason, remedy = "torch's copy of the file is damaged", f"remove {file}"
        raise BadInput("model.weights", settings.weights, reason, remedy) from error
    return dict(state)


def _torchs_copy(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def _one_by_one_until(file: Path) -> AbstractContextManager[None]:
    """While a file is not there, processes of this machine ask for it one by one: the first downloads it."""
    return nullcontext() if file.exists() else locked_on_machine(str(file))


def _resize_positions(state: dict[str, Tensor], body: nn.Module, image_size: int) -> dict[str, Tensor]:
    """Interpolate a vision transformer's position embeddings to the number of patches in the body."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if POSITIONS not in state:
        return state
    positions = {"encoder.pos_embedding": state[POSITIONS]}
    # Positions that form no square stay as they are, to be refused for their shape.
    with suppress(ValueError):
        interpolate_embeddings(image_size, cast(int, body.patch_size), positions)
    return state | {POSITIONS: positions["encoder.pos_embedding"]}


# ------------------------------------------------------------------------------------------------ timm


def _import_timm() -> ModuleType:
    """timm, which is an optional extra.

    Raises:
        BadInput: if it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        remedy = 'pip install "sweeper[timm]"'
        raise BadInput("model.source", "timm", "timm is not installed", remedy) from error
    return timm


def _create_timm(model: schema.Model, image_size: int, pretrained: bool) -> nn.Module:
    """timm's network without its classifier; timm downloads ``pretrained`` weights while it builds.

    Raises:
        BadInput: if timm has no such network, or cannot build it for images of that size.
    """
    timm, settings = _import_timm(), _timm_settings(model)
    for_size = {"img_size": image_size} if settings.fixed_input_size else {}
    arguments = {"num_classes": 0, "in_chans": 3, **for_size}
    try:
        network: nn.Module = timm.create_model(model.name, pretrained=pretrained, **arguments)
    except (AssertionError, TypeError, ValueError) as error:
        if not for_size:
            raise
        raise bad_size(model, image_size, error) from error
    return network


def _timm_body(model: schema.Model, image_size: int) -> Body:
    settings = _timm_settings(model)
    network: Any = _create_timm(model, image_size, pretrained=False)
    classifiers = settings.classifier or ()
    return Body(
        network,
        getattr(network, "head_hidden_size", network.num_features),
        (classifiers,) if isinstance(classifiers, str) else tuple(classifiers),
        takes_any_size=not settings.fixed_input_size,
    )


def _timm_settings(model: schema.Model) -> Any:
    """timm's record of a network: the name of its classifier, its image size, the place of its weights."""
    timm = _import_timm()
    architecture, _, tag = model.name.partition(".")
    names = timm.list_models()
    if architecture not in names:
        remedy = f"{_did_you_mean(architecture, names)}timm.list_models() gives all {len(names)}"
        raise BadInput("model.name", model.name, "timm has no such model", remedy)
    tagged = timm.list_models(architecture, include_tags=True)
    if tag and model.name not in tagged:
        remedy = f"write one of {', '.join([architecture, *tagged])}"
        raise BadInput(
            "model.name", model.name, f"timm has no weights of that name for {architecture}", remedy
        )
    return timm.get_pretrained_cfg(model.name)


def _timm_weights(settings: schema.Model) -> Any:
    """timm's record of the network's pretrained weights."""
    timm, weights, key = _import_timm(), settings.weights, "model.weights"
    if weights != "DEFAULT":
        remedy = "write model.weights=DEFAULT, with the weights' name behind the model's: model.name=NAME.TAG"
        raise BadInput(key, weights, "timm's weights are chosen by the name of the model", remedy)
    if not timm.is_model_pretrained(settings.name):
        remedy = "write null, a path, or a name that timm.list_pretrained() gives"
        raise BadInput(key, weights, f"timm has no weights of {settings.name}", remedy)
    return timm.get_pretrained_cfg(settings.name)


def _download_timm(settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """timm's weights, adapted by timm to images of that size and to a network without classifier."""
    source = _timm_weights(settings)
    try:
        # A second network, because only its constructor knows the names and sizes of the weights.
        is_locked = source.hf_hub_id or not source.url  # by the library of Hugging Face itself
        alone = nullcontext() if is_locked else _one_by_one_until(_torchs_copy(source.url))
        with alone, torch.random.fork_rng(devices=[]):
            return _create_timm(settings, image_size, pretrained=True).state_dict()
    except (OSError, HTTPException, RuntimeError) as error:
        address = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
        reason = f"cannot be downloaded from {address} ({_first_line(error)})"
        remedy = "write the path of its model.safetensors, or put it into the cache (HF_HOME says where)"
        raise BadInput("model.weights", settings.weights, reason, remedy) from error


# ------------------------------------------------------------------------------------------------ both


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _did_you_mean(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}? " if near else ""


LIBRARIES: Mapping[str, Library] = {
    "torchvision": Library(
        body=_torchvision_body,
        own_size=lambda model: USUAL_SIDE,
        weights_name=lambda model: repr(_torchvision_weights(model)),
        download=lambda model, image_size: _download_torchvision(model),
        resize=_resize_positions,
    ),
    "timm": Library(
        body=_timm_body,
        own_size=lambda model: int(_timm_settings(model).input_size[-1]),
        weights_name=lambda model: _timm_weights(model).hf_hub_id or cast(str, model.weights),
        download=_download_timm,
        resize=lambda state, body, image_size: state,  # done by its download
    ),
}
"""By ``model.source``; our own networks (``sweeper``) are in no library."""
