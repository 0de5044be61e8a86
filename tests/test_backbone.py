"""The networks of torchvision and timm, with a new head."""

from __future__ import annotations

import sys
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from sweeper.errors import BadInput
from sweeper.schema import Model
from sweeper.training.backbone import Backbone, expand
from sweeper.training.model import build, outline
from sweeper.training.weights import check
from tests.conftest import mostly_slow

NAMES = models.list_models(module=models)
TIMM_NAMES = [
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "mobilenetv3_small_100",
    "swin_tiny_patch4_window7_224",
]
HYBRID = "vit_small_r26_s32_224"  # its constructor runs its first layers


@cache
def outlined(name: str, library: str = "torchvision") -> Backbone:
    network = outline(Model(source=library, name=name, dropout=0.25), 3, 224, 7)
    assert isinstance(network, Backbone)
    return network


def logits(network: nn.Module, *shape: int) -> Tensor:
    with torch.no_grad():
        return network.eval()(torch.empty(shape, device="meta"))


def leaves(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if not list(layer.children())]


def assert_head_is_new(network: Backbone) -> None:
    dropout, linear = network.head
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.25
    assert isinstance(linear, nn.Linear)
    assert linear.out_features == 7
    assert not [p.shape for p in network.parameters() if 1000 in p.shape]


def assert_no_other_dropout_before_the_head(network: Backbone) -> None:
    layers = leaves(network.body)
    last = max(i for i, layer in enumerate(layers) if list(layer.parameters()))
    assert not [layer for layer in layers[last + 1 :] if isinstance(layer, nn.Dropout) and layer.p > 0]


def test_there_are_eighty_networks() -> None:
    """Every classification model of torchvision is tested here."""
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", mostly_slow(NAMES, 8))
def test_every_network_of_torchvision_gets_a_head(name: str) -> None:
    """Any torchvision network has the dropout and the classes that were asked for, and no others."""
    network = outlined(name)
    assert_head_is_new(network)
    assert_no_other_dropout_before_the_head(network)
    assert network.probe == (3, 224)
    assert logits(network, 2, 3, 224, 224).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "vit_b_32", "inception_v3"])
def test_gray_images_are_taken(name: str) -> None:
    """Images with one channel go into a network for three."""
    assert logits(outlined(name), 2, 1, 224, 224).shape == (2, 7)


def test_gray_is_three_equal_channels() -> None:
    """Gray images are seen as colour images without colour; colour images as they are."""
    gray, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.equal(expand(gray), torch.cat([gray] * 3, dim=1))
    assert expand(colour) is colour


def test_nothing_is_allocated() -> None:
    """An outline is on the meta device, buffers too, and leaves the global generator as it was."""
    state = torch.get_rng_state()
    network = outline(Model(source="torchvision", name="swin_t"), 3, 224, 7)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_outline_is_what_is_built(name: str) -> None:
    """An outline has the layers and shapes of the network that trains."""
    settings = Model(source="torchvision", name=name)
    built, outlined = build(settings, 3, 64, 5), outline(settings, 3, 64, 5)
    assert str(built) == str(outlined)
    shapes = {key: tensor.shape for key, tensor in built.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in outlined.state_dict().items()}


def test_seed_decides_the_weights_of_body_and_head() -> None:
    """The same seed of torch gives the same network, another one another."""
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build(Model(source="torchvision", name="squeezenet1_1"), 3, 64, 5).state_dict())
    first, second, other = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.1.weight"], other["head.1.weight"])
    assert not torch.equal(first["body.features.0.weight"], other["body.features.0.weight"])


def test_head_is_drawn_as_asked() -> None:
    """``model.init`` holds for the new head alone."""
    states = []
    for init in ("default", "xavier_uniform"):
        torch.manual_seed(0)
        network = build(Model(source="torchvision", name="squeezenet1_1", init=init), 3, 64, 5)
        states.append(network.state_dict())
    default, drawn = states
    assert default["head.1.bias"].any()
    assert not drawn["head.1.bias"].any()
    assert drawn["head.1.weight"].abs().max().item() == pytest.approx((6 / (512 + 5)) ** 0.5, rel=0.02)
    assert all(torch.equal(default[name], drawn[name]) for name in default if name.startswith("body."))


def test_dropout_works_in_training_only() -> None:
    """The head drops the given fraction of the features while training, and none while evaluating."""
    network = build(Model(source="torchvision", name="squeezenet1_1", dropout=0.4), 3, 64, 5)
    features = torch.ones(200, 512)
    dropped = network.train().head[0](features)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert torch.equal(network.eval().head[0](features), features)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "inception_v3"])
def test_every_weight_learns(name: str) -> None:
    """In training, too, the network gives plain logits, and each of its parameters has a gradient."""
    network = build(Model(source="torchvision", name=name), 1, 96, 5).train()
    answer = network(torch.rand(2, 1, 96, 96))
    assert answer.shape == (2, 5)
    answer.square().sum().backward()
    assert not [key for key, parameter in network.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("alexnet", 32, "Output size is too small"),
        ("inception_v3", 64, "Kernel size"),
        ("vit_b_16", 40, "indivisible by patch size"),
        ("maxvit_t", 64, "not divisible by partition size 7"),
    ],
)
def test_size_that_a_network_cannot_take_is_refused(name: str, size: int, reason: str) -> None:
    """Too small images are found before training, with the size to write."""
    expected = rf"^dataset\.image_size={size}: {name} cannot.*{reason}.*; write dataset\.image_size=224$"
    with pytest.raises(BadInput, match=expected):
        check(Model(source="torchvision", name=name), 3, size, 7)


@pytest.mark.parametrize(
    ("name", "size"), [("vit_b_16", 64), ("maxvit_t", 448), ("swin_t", 50), ("resnet18", 8)]
)
def test_other_sizes_are_taken(name: str, size: int) -> None:
    """Networks are built for the size of the images where they are built for one; else the size is free."""
    check(Model(source="torchvision", name=name), 3, size, 7)
    side = size if name in ("vit_b_16", "maxvit_t") else 224
    assert outline(Model(source="torchvision", name=name), 3, size, 7).probe == (3, side)


def test_misspelt_name_gets_the_nearest() -> None:
    """An unknown network is an error that names the nearest one and all others."""
    expected = (
        r"^model\.name=resnet19: torchvision has .*did you mean resnet18\? write one of alexnet, .*vit_l_32"
    )
    with pytest.raises(BadInput, match=expected):
        build(Model(source="torchvision", name="resnet19"), 3, 224, 7)


def test_detectors_are_no_classifiers() -> None:
    """Only classification models are among the names."""
    with pytest.raises(BadInput, match="no such classification model"):
        build(Model(source="torchvision", name="fasterrcnn_resnet50_fpn"), 3, 224, 7)


def test_images_are_rescaled_for_weights_that_want_it() -> None:
    """GoogLeNet and Inception normalise as torchvision's weights want it, wherever these come from."""
    for weights in ("DEFAULT", None, "own.pt"):
        network = outline(Model(source="torchvision", name="googlenet", weights=weights), 3, 224, 7)
        assert network.body.transform_input


@pytest.mark.parametrize("name", [*TIMM_NAMES, HYBRID])
def test_networks_of_timm_get_a_head(name: str) -> None:
    """timm's networks of several families have the dropout and the classes that were asked for."""
    pytest.importorskip("timm")
    network = outlined(name, "timm")
    assert_head_is_new(network)
    assert_no_other_dropout_before_the_head(network)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert logits(network, 2, 1, 224, 224).shape == (2, 7)


def test_timm_builds_for_the_size_of_the_images() -> None:
    """A transformer of timm is made for the images' size, other networks take any."""
    pytest.importorskip("timm")
    check(Model(source="timm", name="vit_tiny_patch16_224"), 3, 64, 7)
    assert outline(Model(source="timm", name="vit_tiny_patch16_224"), 3, 64, 7).probe == (3, 64)
    assert outline(Model(source="timm", name="convnext_atto"), 3, 64, 7).probe == (3, 224)
    expected = r"^dataset\.image_size=100: maxvit_tiny_tf_224 .*divisible.*; write dataset\.image_size=224$"
    with pytest.raises(BadInput, match=expected):
        check(Model(source="timm", name="maxvit_tiny_tf_224"), 3, 100, 7)


def test_misspelt_names_of_timm_get_the_nearest() -> None:
    """An unknown network of timm, or an unknown tag of a known one, is an error that helps."""
    pytest.importorskip("timm")
    with pytest.raises(BadInput, match=r"timm has no such model; did you mean mobilenetv3_small_100\?"):
        build(Model(source="timm", name="mobilenetv3_smal_100"), 3, 224, 7)
    with pytest.raises(
        BadInput, match=r"no weights of that name for resnet18; write one of .*resnet18\.a1_in1k"
    ):
        build(Model(source="timm", name="resnet18.a9"), 3, 224, 7)


def test_timm_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        BadInput, match=r'^model\.source=timm: timm is not installed; pip install "sweeper\[timm\]"'
    ):
        build(Model(source="timm", name="resnet18"), 3, 224, 7)


@pytest.mark.slow
def test_one_in_thirty_of_timm() -> None:
    """Nearly every network that timm has is built and gives logits."""
    timm = pytest.importorskip("timm")
    failed, names = [], timm.list_models()[::30]
    for name in names:
        side = timm.get_pretrained_cfg(name).input_size[-1]
        try:
            check(Model(source="timm", name=name), 3, side, 7)
        except BadInput as error:
            failed.append(str(error))
    assert len(failed) <= len(names) / 40, failed
