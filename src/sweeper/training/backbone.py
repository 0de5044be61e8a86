"""Networks of torchvision and timm whose last layer makes room for one that knows the classes at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import ModuleType
from typing import Any, TypeGuard

from torch import Tensor, fx, nn

from sweeper import schema
from sweeper.errors import BadInput

PROBE_SIDE = 224
"""Side of the images that nearly all of these networks were made for."""

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Second classifiers of GoogLeNet and Inception v3: in their weights, but never in the networks here."""


class Backbone(nn.Module):
    """A network of torchvision or timm without its last layer, and a new ``head`` in its place.

    Args:
        body: from images (n, 3, side, side) to features (n, ...).
        head: from the flattened features to a logit for each class.
        probe: channels and side of an image with which the body's stages can be told apart.
        left_out: names in the library's own weights of the layers that the body lacks.
    """

    def __init__(
        self, body: nn.Module, head: nn.Sequential, probe: tuple[int, int], left_out: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.probe, self.left_out = probe, left_out

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(expand(images)).flatten(1))
        return logits


def expand(images: Tensor) -> Tensor:
    """Gray images (n, 1, side, side) as ones with three equal channels; others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


fx.wrap("expand")  # a tracer of the network must not look at the number of channels


def build_backbone(model: schema.Model, image_size: int, n_classes: int) -> Backbone:
    """The library's network with weights drawn as the library draws them, and a new head.

    Raises:
        BadInput: where the library has no such network, or builds none for images of that size.
    """
    body = LIBRARIES[model.source](model, image_size)
    head = nn.Sequential(nn.Dropout(model.dropout), nn.Linear(body.n_features, n_classes))
    side = PROBE_SIDE if body.takes_any_size else image_size
    return Backbone(body.network, head, (3, side), (*body.classifiers, *AUXILIARY))


def is_path(weights: str | None) -> TypeGuard[str]:
    """Whether ``model.weights`` is a path, not null or a name that the library knows."""
    return weights is not None and ("/" in weights or weights.endswith((".pt", ".pth", ".safetensors")))


def bad_size(model: schema.Model, image_size: int, error: Exception) -> BadInput:
    """What to say where a network refuses the size of the images, with the library's own words for why."""
    why, own_size = str(error).strip().partition("\n")[0].rstrip(".!"), _own_size(model)
    if image_size == own_size:
        return BadInput("model.name", model.name, f"does not work ({why})", "write another network's name")
    reason = f"{model.name} cannot take images of this size" + (f" ({why})" if why else "")
    return BadInput("dataset.image_size", image_size, reason, f"write dataset.image_size={own_size}")


@dataclass(frozen=True)
class Body:
    """A network from images (n, 3, side, side) to ``n_features`` features of each, and what it was.

    ``classifiers`` are the names in the library's own weights of the layers that it lost.
    """

    network: nn.Module
    n_features: int
    classifiers: tuple[str, ...]
    takes_any_size: bool


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
    """Those of the networks that are built for one size."""
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _inception_arguments(model: schema.Model) -> dict[str, Any]:
    """Without second classifiers, and with PyTorch's own initialisation, as torchvision announces it.

    torchvision's weights want images that were normalised to -1 … 1: the network does that itself.
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


# ------------------------------------------------------------------------------------------------ timm


def import_timm() -> ModuleType:
    """timm, which only comes with an extra.

    Raises:
        BadInput: where it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        remedy = 'pip install "sweeper[timm]"'
        raise BadInput("model.source", "timm", "timm is not installed", remedy) from error
    return timm


def create_timm(model: schema.Model, image_size: int, pretrained: bool) -> nn.Module:
    """timm's network without its classifier; its constructor downloads ``pretrained`` weights.

    Raises:
        BadInput: where timm has no such network, or builds none for images of that size.
    """
    timm, settings = import_timm(), _timm_settings(model)
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
    network: Any = create_timm(model, image_size, pretrained=False)
    classifiers = settings.classifier or ()
    return Body(
        network,
        getattr(network, "head_hidden_size", network.num_features),
        (classifiers,) if isinstance(classifiers, str) else tuple(classifiers),
        takes_any_size=not settings.fixed_input_size,
    )


def _timm_settings(model: schema.Model) -> Any:
    """What timm knows of a network: its classifier's name, its images' size, where its weights are."""
    timm = import_timm()
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


# ------------------------------------------------------------------------------------------------ both

LIBRARIES: Mapping[str, Callable[[schema.Model, int], Body]] = {
    "torchvision": _torchvision_body,
    "timm": _timm_body,
}


def _own_size(model: schema.Model) -> int:
    """The side of the images that a network was made for."""
    return int(_timm_settings(model).input_size[-1]) if model.source == "timm" else PROBE_SIDE


def _did_you_mean(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}? " if near else ""
