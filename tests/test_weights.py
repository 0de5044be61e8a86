"""Pretrained weights, from files and by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener, install_opener

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from sweeper.errors import BadInput
from sweeper.schema import Model
from sweeper.training.model import build
from sweeper.training.weights import check, fingerprint, load

State = dict[str, Tensor]

# The smallest of families that can be built and run within half a second, and the side of their images.
FAMILIES = {
    "efficientnet_b0": 32,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
}
LARGE_FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "regnet_y_400mf": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
    "vit_b_32": 224,
}


def library_network(name: str) -> nn.Module:
    """As torchvision saves it: with 1,000 classes and, where it has them, second classifiers."""
    torch.manual_seed(1)
    options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, **options).eval()
    return network


def settings_of(name: str, path: Path | str | None = None) -> Model:
    return Model(source="torchvision", name=name, weights=path and str(path))


def loaded(settings: Model, side: int = 32, n_classes: int = 7) -> nn.Module:
    network = build(settings, 3, side, n_classes)
    load(network, settings, side)
    return network.eval()


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def squeezenet() -> State:
    """A small network's weights under torchvision's names."""
    return dict(library_network("squeezenet1_1").state_dict())


def refuses(path: Path, expected: str, name: str = "squeezenet1_1") -> None:
    """Both what loads the weights and what checks them say so, in one line."""
    settings = settings_of(name, path)
    pattern = rf"^model\.weights={re.escape(str(path))}: .*{expected}.*; .*write the [^\n]*$"
    with pytest.raises(BadInput, match=pattern):
        check(settings, 3, 32, 7)
    with pytest.raises(BadInput, match=pattern):
        load(build(settings, 3, 32, 7), settings, 32)


# ------------------------------------------------------------------------------------- what is loaded


def assert_same_up_to_the_last_layer(name: str, side: int, folder: Path) -> None:
    library = library_network(name)
    if hasattr(library, "transform_input"):  # as torchvision sets it for its own weights
        library.transform_input = True
    path = saved(library.state_dict(), folder / "weights.pth")
    ours = loaded(settings_of(name, path), side)
    last = library.get_submodule(ours.left_out[0])
    assert ours.head[1].out_features == 7
    ours.head[1] = last
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), library(images), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "side"), FAMILIES.items())
def test_network_is_the_librarys_up_to_its_last_layer(name: str, side: int, tmp_path: Path) -> None:
    """With the library's weights and its last layer, the logits are the library's, to the last bit."""
    assert_same_up_to_the_last_layer(name, side, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), LARGE_FAMILIES.items())
def test_large_network_is_the_librarys_up_to_its_last_layer(name: str, side: int, tmp_path: Path) -> None:
    """The same for families that have no small network."""
    assert_same_up_to_the_last_layer(name, side, tmp_path)


def test_squeezenet_gives_its_pooled_features(tmp_path: Path, squeezenet: State) -> None:
    """SqueezeNet, which classifies before it pools, gives the features that it would classify, pooled."""
    ours = loaded(settings_of("squeezenet1_1", saved(squeezenet, tmp_path / "weights.pt")))
    images = torch.rand(2, 3, 32, 32)
    features = library_network("squeezenet1_1").features(images).mean((2, 3))
    torch.testing.assert_close(ours.body(images), features)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "parallel", "safetensors", "ours"])
def test_every_format_gives_the_same_body(wrap: str, tmp_path: Path, squeezenet: State) -> None:
    """Files of the library, of our runs, of other programs, and safetensors: equal to the last bit."""
    path = tmp_path / f"weights.{'safetensors' if wrap == 'safetensors' else 'pt'}"
    if wrap == "safetensors":
        save_file(squeezenet, path)
    elif wrap in ("state_dict", "model"):
        saved({wrap: squeezenet, "epoch": 3}, path)
    elif wrap == "parallel":
        saved({f"module.{name}": tensor for name, tensor in squeezenet.items()}, path)
    elif wrap == "ours":
        first = settings_of("squeezenet1_1", saved(squeezenet, tmp_path / "first.pt"))
        saved(loaded(first, n_classes=3).state_dict(), path)
    else:
        saved(squeezenet, path)
    settings = settings_of("squeezenet1_1", path)
    check(settings, 1, 32, 7)
    body = loaded(settings).body.state_dict()
    assert len(body) == len(squeezenet) - 2
    assert all(torch.equal(body[name], squeezenet[name]) for name in body)


def test_head_stays_new(tmp_path: Path) -> None:
    """Weights of a run with as many classes leave the head as it was drawn."""
    settings = settings_of("squeezenet1_1")
    path = saved(build(settings, 3, 32, 7).state_dict(), tmp_path / "weights.pt")
    network = build(settings, 3, 32, 7)
    before = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    load(network, settings_of("squeezenet1_1", path), 32)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.head.state_dict().items())


def test_without_weights_nothing_changes() -> None:
    """``weights=null`` leaves what was drawn."""
    network = build(Model(), 1, 8, 10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load(network, Model(), 8)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_from_before_batches_were_counted(tmp_path: Path) -> None:
    """``num_batches_tracked`` may be missing."""
    state = library_network("shufflenet_v2_x0_5").state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    body = loaded(settings_of("shufflenet_v2_x0_5", saved(old, tmp_path / "old.pt"))).body.state_dict()
    assert all(torch.equal(body[name], tensor) for name, tensor in old.items() if name in body)


def hosted(name: str) -> State:
    """The weights under the names that those have which torchvision hosts; of one number each."""
    names = {
        "densenet121": (r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."),
        "vit_b_32": (r"mlp\.([03])\.", lambda found: f"mlp.linear_{1 + int(found[1]) // 3}."),
    }
    with torch.device("meta"):
        state = models.get_model(name, weights=None).state_dict()
    return {
        re.sub(*names[name], key): torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in state.items()
    }


@pytest.mark.parametrize("name", ["densenet121", "vit_b_32"])
def test_names_that_torchvision_has_changed(name: str, tmp_path: Path) -> None:
    """The files that torchvision hosts fit, though its networks have other names since."""
    path = saved(hosted(name), tmp_path / "hosted.pth")
    check(settings_of(name, path), 3, 224, 7)


def test_positions_of_a_vision_transformer_are_resized(tmp_path: Path) -> None:
    """Weights for 224 pixels serve images of 64, their positions interpolated as torchvision does it."""
    state = hosted("vit_b_32")
    state["encoder.pos_embedding"] = torch.rand(1, 50, 768)
    settings = settings_of("vit_b_32", saved(state, tmp_path / "weights.pth"))
    network = loaded(settings, 64)
    expected = interpolate_embeddings(64, 32, state)["encoder.pos_embedding"]
    assert expected.shape == (1, 5, 768)
    assert torch.equal(network.body.encoder.pos_embedding, expected)


# ------------------------------------------------------------------------------------------- our own cnn


def test_cnn_begins_with_weights_of_an_earlier_run(tmp_path: Path) -> None:
    """Our own network takes filters and hidden layers from the weights of a run, for other classes."""
    first = build(Model(), 1, 8, 10)
    settings = Model(weights=str(saved(first.state_dict(), tmp_path / "weights.pt")))
    check(settings, 1, 8, 3)
    network = build(settings, 1, 8, 3)
    load(network, settings, 8)
    for part in ("features", "hidden"):
        there, here = first.get_submodule(part).state_dict(), network.get_submodule(part).state_dict()
        assert all(torch.equal(there[name], here[name]) for name in there)
    assert network.head.out_features == 3


def test_cnn_of_another_shape_is_named(tmp_path: Path) -> None:
    """Filters and hidden layers that differ are named with both shapes."""
    path = saved(build(Model(filters=[8, 32]), 1, 8, 10).state_dict(), tmp_path / "weights.pt")
    expected = (
        r"does not fit cnn: features\.0\.weight is \[8, 1, 3, 3\] there, \[16, 1, 3, 3\] in the network; "
        r".*; write the model\.filters, model\.hidden_units, … and dataset\.image_size that"
    )
    with pytest.raises(BadInput, match=expected):
        check(Model(weights=str(path)), 1, 8, 10)
    with pytest.raises(
        BadInput, match=r"hidden\.3\.weight \[5, 128\] is missing; hidden\.3\.bias \[5\] is missing"
    ):
        check(Model(weights=str(path), filters=[8, 32], hidden_units=[128, 5]), 1, 8, 10)


def test_cnn_has_no_weights_by_name() -> None:
    """Our own networks have no weights that could be downloaded."""
    with pytest.raises(BadInput, match=r"^model\.weights=DEFAULT: our own networks have no weights"):
        check(Model(weights="DEFAULT"), 1, 8, 10)


# ------------------------------------------------------------------------------------- what is refused


def test_weights_of_another_network_are_named(tmp_path: Path, squeezenet: State) -> None:
    """The first tensors that do not fit are named with their shapes, the others counted."""
    path = saved(squeezenet, tmp_path / "weights.pt")
    expected = r"does not fit resnet18: conv1\.weight \[64, 3, 7, 7\] is missing; .*; and \d+ more"
    refuses(path, expected, "resnet18")


def test_tensors_without_a_place_are_named(tmp_path: Path, squeezenet: State) -> None:
    """What the network has no layer for is an error, too."""
    path = saved(squeezenet | {"features.99.weight": torch.zeros(2, 3)}, tmp_path / "weights.pt")
    refuses(path, r"features\.99\.weight \[2, 3\] has no place")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, squeezenet: State) -> None:
    """NaN, as torchvision's IMAGENET1K_FEATURES hold in the layers that were never trained, is no weight."""
    bad = torch.full_like(squeezenet["features.0.bias"], torch.nan)
    path = saved(squeezenet | {"features.0.bias": bad}, tmp_path / "weights.pt")
    refuses(path, r"features\.0\.bias has values that are not finite")


def test_whole_numbers_are_no_weights(tmp_path: Path, squeezenet: State) -> None:
    """Those of a quantized network would be read as they are, without their scale."""
    bad = torch.ones_like(squeezenet["features.0.bias"], dtype=torch.int8)
    path = saved(squeezenet | {"features.0.bias": bad}, tmp_path / "weights.pt")
    refuses(path, r"features\.0\.bias has values that are int8, as of a quantized network")


def test_an_address_is_to_be_fetched() -> None:
    """It is no path, and nothing is fetched but what a library names."""
    with pytest.raises(BadInput, match=r"=https://host/net\.pth: is an address, and no file; fetch the file"):
        check(Model("torchvision", "squeezenet1_1", weights="https://host/net.pth"), 3, 32, 7)


class Harmful:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_file_that_would_run_code_is_refused(tmp_path: Path, squeezenet: State) -> None:
    """A file that holds more than tensors is not loaded: nothing in it runs."""
    path = saved({**squeezenet, "extra": Harmful(tmp_path / "harmed")}, tmp_path / "weights.pt")
    refuses(path, "holds more than tensors")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors"])
def test_damaged_file_is_refused(name: str, tmp_path: Path, squeezenet: State) -> None:
    """A file that was cut off, is empty, or is something else gets one line."""
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(squeezenet, path)
    for content in (path.read_bytes()[:5000], b"", b"This is a text."):
        path.write_bytes(content)
        refuses(path, "is damaged")


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3)], ids=["list", "dict", "none", "tensor"]
)
def test_file_without_weights_is_refused(content: object, tmp_path: Path) -> None:
    """A file that holds no tensors by name is none of weights."""
    refuses(saved(content, tmp_path / "weights.pt"), "is not a state dict")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path where nothing is gets an error that names it; a folder is no file."""
    refuses(tmp_path / "nothing.pt", "there is no such file")
    (tmp_path / "folder.pt").mkdir()
    refuses(tmp_path / "folder.pt", "cannot be read")


# ------------------------------------------------------------------------------------------------ by name


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of torch, and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    install_opener(build_opener(ProxyHandler({"https": "http://127.0.0.1:9"})))
    yield tmp_path
    install_opener(None)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"])
def test_named_weights_come_from_torchs_cache(weights: str, torch_home: Path, squeezenet: State) -> None:
    """The file that torchvision hosts is not downloaded again; a name may be short or full."""
    (torch_home / "hub" / "checkpoints").mkdir(parents=True)
    saved(squeezenet, torch_home / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    body = loaded(settings_of("squeezenet1_1", weights)).body.state_dict()
    assert all(torch.equal(body[name], squeezenet[name]) for name in body)


def test_weights_that_cannot_be_downloaded(torch_home: Path) -> None:
    """Without network, one line says where the file is, and where to put it."""
    expected = (
        r"^model\.weights=DEFAULT: cannot be downloaded from https://download\.pytorch\.org/\S+\.pth .*; "
        rf"write the path of that file, or put it into {re.escape(str(torch_home))}/hub/checkpoints$"
    )
    with pytest.raises(BadInput, match=expected):
        check(settings_of("squeezenet1_1", "DEFAULT"), 3, 32, 7)


def test_damaged_file_in_the_cache_is_named(torch_home: Path) -> None:
    """The file to remove is named."""
    (torch_home / "hub" / "checkpoints").mkdir(parents=True)
    (torch_home / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_text("no weights")
    with pytest.raises(BadInput, match=r"is damaged; remove .*/checkpoints/squeezenet1_1-b8a52dc0\.pth$"):
        check(settings_of("squeezenet1_1", "DEFAULT"), 3, 32, 7)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "ResNet50_Weights.IMAGENET1K_V1"])
def test_names_of_weights_that_are_not_there(weights: str) -> None:
    """A wrong name, or another network's, is an error that lists the right ones."""
    expected = (
        rf"^model\.weights={weights}: torchvision has no .* of resnet18; write one of IMAGENET1K_V1, DEFAULT"
    )
    with pytest.raises(BadInput, match=expected):
        check(settings_of("resnet18", weights), 3, 32, 7)


def test_timm_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network, timm's weights get the same kind of line."""
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    expected = (
        r"^model\.weights=DEFAULT: cannot be downloaded from https://huggingface\.co/timm/resnet18\.a1_in1k "
    )
    with pytest.raises(BadInput, match=expected):
        check(Model(source="timm", name="resnet18", weights="DEFAULT"), 3, 32, 7)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tresnet_m"])
def test_timm_weights_come_from_files(name: str, tmp_path: Path) -> None:
    """timm's own files fit its networks, also where a network calls its own layers ``body`` or ``head``."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    state = {key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for key, tensor in state.items()}
    check(Model(source="timm", name=name, weights=str(saved(state, tmp_path / "weights.pt"))), 3, 224, 7)


def test_timm_weights_are_named_by_the_model() -> None:
    """A name of timm's weights belongs to the model's name; a network without weights says so."""
    timm = pytest.importorskip("timm")
    with pytest.raises(BadInput, match=r"write model\.weights=DEFAULT, .*model\.name=NAME\.TAG"):
        check(Model(source="timm", name="resnet18", weights="a1_in1k"), 3, 32, 7)
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(BadInput, match=rf"timm has no weights of {untrained}"):
        fingerprint(Model(source="timm", name=untrained, weights="DEFAULT"))


# -------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    """The same content has the same 16 hex digits wherever it is; another one has others."""
    first, copy, other = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"
    first.write_bytes(b"1" * 3_000_000)
    copy.write_bytes(b"1" * 3_000_000)
    other.write_bytes(b"1" * 2_999_999 + b"2")
    digits = fingerprint(Model(weights=str(first)))
    assert re.fullmatch("[0-9a-f]{16}", str(digits))
    assert fingerprint(Model(weights=str(copy))) == digits
    assert fingerprint(Model(weights=str(other))) != digits
    with pytest.raises(BadInput, match=r"nothing\.pt: cannot be read"):
        fingerprint(Model(weights=str(tmp_path / "nothing.pt")))


def test_fingerprint_of_a_name_is_the_full_one() -> None:
    """``DEFAULT`` means other weights in another version of the library: what it means is said."""
    assert fingerprint(Model()) is None
    assert fingerprint(settings_of("resnet50", "DEFAULT")) == "ResNet50_Weights.IMAGENET1K_V2"
