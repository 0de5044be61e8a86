"""The rows of the table of libraries: networks, sizes and names of weights."""

from __future__ import annotations

import pytest
import torch

from sweeper.errors import BadInput
from sweeper.schema import LIMITS, Model
from sweeper.training.network_library import LIBRARIES, bad_size

SMALL = {"torchvision": "squeezenet1_1", "timm": "convnext_atto"}


@pytest.fixture(params=sorted(LIBRARIES))
def model(request: pytest.FixtureRequest) -> Model:
    """A small network of each library."""
    pytest.importorskip(request.param)
    return Model(source=request.param, name=SMALL[request.param])


def test_every_source_but_our_own_is_a_library() -> None:
    """``model.source`` admits the libraries, ``sweeper`` and one's own, and nothing else."""
    assert LIMITS["model.source"].remedy == f"write one of sweeper, {', '.join(LIBRARIES)}, custom"


def test_body_gives_its_features(model: Model) -> None:
    """The network of a row has no classifier: it gives ``n_features`` numbers for each image."""
    torch.manual_seed(0)
    body = LIBRARIES[model.source].body(model, 64)
    with torch.no_grad():
        features = body.network.eval()(torch.rand(2, 3, 64, 64))
    assert features.flatten(1).shape == (2, body.n_features)
    assert body.takes_any_size


def test_unknown_network_is_refused_with_the_nearest_name(model: Model) -> None:
    """A misspelt name is answered with the one that was meant."""
    misspelt = Model(source=model.source, name=f"{model.name}x")
    with pytest.raises(BadInput, match=rf"model\.name={model.name}x.*did you mean {model.name}"):
        LIBRARIES[model.source].body(misspelt, 64)


def test_unknown_weights_are_refused(model: Model) -> None:
    """Weights that the library does not have are refused before anything is downloaded."""
    model.weights = "NO_SUCH_WEIGHTS"
    with pytest.raises(BadInput, match=r"model\.weights=NO_SUCH_WEIGHTS"):
        LIBRARIES[model.source].weights_name(model)


def test_default_weights_have_a_full_name(model: Model) -> None:
    """``DEFAULT`` is recorded by a name that stays the same when the library's default changes."""
    model.weights = "DEFAULT"
    name = LIBRARIES[model.source].weights_name(model)
    assert "DEFAULT" not in name
    assert (
        name
        == {
            "torchvision": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
            "timm": "timm/convnext_atto.d2_in1k",
        }[model.source]
    )


def test_size_that_a_network_refuses_is_named_with_its_own(model: Model) -> None:
    """The remedy is the size that the network was made for."""
    own = LIBRARIES[model.source].own_size(model)
    error = bad_size(model, 8, ValueError("too small!"))
    assert (error.key, error.value) == ("dataset.image_size", 8)
    assert "too small" in error.reason
    assert error.remedy == f"write dataset.image_size={own}"
