"""Training as PyTorch's tutorials write it: ImageFolder, a DataLoader, transforms per image, float32.

What training.py compares ours with; search_digits.py's is usual_way.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from sweeper.training.images import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Trained:
    """What a training did: the seconds of each epoch's training and validation, and the last accuracy."""

    n_images: int
    train_s: Sequence[float]
    val_s: Sequence[float]
    val_accuracy: float

    @property
    def images_per_second(self) -> float:
        """Of the median epoch, validation not counted."""
        return self.n_images / median(self.train_s)

    @property
    def epoch_s(self) -> list[float]:
        return [train_s + val_s for train_s, val_s in zip(self.train_s, self.val_s, strict=True)]


def folders(root: Path, side: int, augment: Any = None) -> tuple[ImageFolder, ImageFolder]:
    """The training and the validation images, as the transfer learning tutorial reads them."""
    as_tensor = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    plain = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), *as_tensor])
    return ImageFolder(root / "train", augment or plain), ImageFolder(root / "val", plain)


def resnet18(n_classes: int, weights: Path | None, trains: str) -> nn.Module:
    """``trains`` is ``everything``, ``head`` or ``last_block``."""
    model = torchvision.models.resnet18()
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    for parameter in model.parameters():
        parameter.requires_grad = trains == "everything"
    for parameter in model.layer4.parameters():
        parameter.requires_grad = trains != "head"
    model.fc = nn.Linear(model.fc.in_features, n_classes)
    return model


def train(
    model: nn.Module,
    parts: tuple[Any, Any],
    epochs: int,
    num_workers: int,
    lr: float,
    momentum: float,
    batch_size: int,
    device: torch.device,
) -> Trained:
    model.to(device)
    keep = {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": device.type == "cuda",
    }
    train_loader = DataLoader(parts[0], batch_size, shuffle=True, **keep)
    val_loader = DataLoader(parts[1], batch_size, **keep)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=momentum)
    loss_of = nn.CrossEntropyLoss()
    train_s, val_s, accuracy = [], [], 0.0
    for _ in range(epochs):
        started = perf_counter()
        model.train()
        running_loss = 0.0
        for inputs, labels in train_loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = loss_of(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(labels)
        trained_at = perf_counter()
        model.eval()
        n_correct = 0
        with torch.no_grad():
            for inputs, labels in val_loader:
                inputs, labels = inputs.to(device), labels.to(device)
                n_correct += (model(inputs).argmax(1) == labels).sum().item()
        accuracy = n_correct / len(parts[1])
        train_s.append(trained_at - started)
        val_s.append(perf_counter() - trained_at)
    return Trained(len(parts[0]), train_s, val_s, accuracy)
