"""Models that nobody trained, in folders as a run leaves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sweeper.card import ONE, SEVERAL, Card, Network
from sweeper.record.run_files import RunFiles
from sweeper.training import state
from sweeper.training.model import build

CNN = Network("sweeper", "cnn", filters=(4,), hidden_units=(8,))
CLASSES = ("cat", "dog", "fish")


def card_of(**values: Any) -> Card:
    """Of a model of 12 × 12 RGB pixels, but for these values; its weights have no digest yet."""
    thresholds = (0.5,) * len(values.get("classes", CLASSES)) if values.get("labels") == SEVERAL else None
    card = Card(
        network=CNN,
        classes=CLASSES,
        labels=ONE,
        thresholds=thresholds,
        in_channels=3,
        pixel_channels=3,
        image_size=12,
        margin=1.0,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.25),
        background=(255, 255, 255),
        max_megapixels=100,
        bits=8,
        temperature=1.5,
        scores={"val_accuracy": 0.5},
        study=None,
        trial=None,
        weights_digest="",
    )
    return replace(card, **values)


def write_model(folder: Path, **values: Any) -> Card:
    """``model.json`` and ``weights.safetensors`` of such a model, with weights that are always the same."""
    card, files = card_of(**values), RunFiles(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(card.network.settings(), card.in_channels, card.image_size, len(card.classes))
    tensors = {name: 3 * tensor for name, tensor in state.of(network).items()}  # so that pictures differ
    card = replace(card, weights_digest=state.digest(tensors))
    folder.mkdir(parents=True, exist_ok=True)
    state.write(files.weights, tensors)
    card.write(files)
    return card
