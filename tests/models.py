"""Models that were not trained: any network with a card of its own."""

from __future__ import annotations

from typing import Any

import torch

from sweeper.card import Card, Network
from sweeper.inference.classifier import Classifier
from sweeper.training import state
from sweeper.training.model import build

CNN = Network(source="sweeper", name="cnn", filters=(8, 16), hidden_units=(32,), batch_norm=True)


def made(network: Network = CNN, n_classes: int = 5, seed: int = 0, **changes: Any) -> Classifier:
    """A classifier with drawn weights, whose batch norms have seen a batch; ``changes`` are of its card."""
    in_channels, image_size = changes.get("in_channels", 3), changes.get("image_size", 32)
    several = changes.get("labels") == "several"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(network.settings(), in_channels, image_size, n_classes)
        with torch.no_grad():
            module.train()(torch.randn(8, in_channels, image_size, image_size))
    told: dict[str, Any] = {
        "network": network,
        "classes": tuple(f"class {i}" for i in range(n_classes)),
        "labels": "one",
        "thresholds": tuple(0.3 + 0.1 * i for i in range(n_classes)) if several else None,
        "in_channels": in_channels,
        "pixel_channels": in_channels,
        "image_size": image_size,
        "margin": 1.0,
        "mean": (0.4, 0.45, 0.5)[:in_channels],
        "std": (0.2, 0.25, 0.3)[:in_channels],
        "background": (0, 0, 0),
        "max_megapixels": 100.0,
        "bits": 8,
        "temperature": 1.3,
        "scores": {},
        "study": None,
        "trial": None,
        "weights_digest": state.digest(state.of(module)),
    }
    return Classifier(Card(**(told | changes)), module)
