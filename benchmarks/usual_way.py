"""The search as Optuna's and PyTorch's tutorials write it: one file, a DataLoader, torchvision's transforms.

    python benchmarks/usual_way.py --num-workers 2

What search_digits.py compares ours with. Images, split, network, ranges and sampler are those of the default
search; so are pruner and early stopping with --prune.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sweeper import schema
from sweeper.training import images

IMAGE_SIZE = 32
PATIENCE = 5


class Digits(Dataset[tuple[Tensor, int]]):
    """Pillow images in memory, already at their size; each is transformed when it is asked for."""

    def __init__(self, pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], transform: Any) -> None:
        self.images = [Image.fromarray(image[..., 0]) for image in pixels]
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


class Cnn(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(32 * (IMAGE_SIZE // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout(x))  # type: ignore[no-any-return]


def load() -> tuple[Dataset[tuple[Tensor, int]], Dataset[tuple[Tensor, int]]]:
    """The training and the validation images: the same that ours trains and validates on."""
    settings = schema.Dataset(image_size=IMAGE_SIZE)
    digits = images.read(settings)
    train, val, _ = images.split(digits, settings)
    mean, std = digits.pixels[train].mean() / 255, digits.pixels[train].std() / 255
    normalize = [transforms.ToTensor(), transforms.Normalize([mean], [std])]
    augment = [
        transforms.RandomRotation(10),
        transforms.RandomResizedCrop(IMAGE_SIZE, scale=(0.8, 1.0), ratio=(0.75, 1.3333)),
    ]
    return (
        Digits(digits.pixels[train], digits.labels[train], transforms.Compose([*augment, *normalize])),
        Digits(digits.pixels[val], digits.labels[val], transforms.Compose(normalize)),
    )


def suggest_optimizer(trial: optuna.Trial, model: nn.Module) -> torch.optim.Optimizer:
    name = trial.suggest_categorical("optimizer", ["adam", "sgd"])
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    weight_decay = trial.suggest_float("weight_decay", 1e-4, 1e-2, log=True)
    if name == "adam":
        return torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    momentum = trial.suggest_float("momentum", 0.8, 0.99)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def train(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer, device: torch.device
) -> float:
    model.train()
    total, n = 0.0, 0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, n = total + loss.item() * len(labels), n + len(labels)
    return total / n


def validate(model: nn.Module, loader: DataLoader[Any], device: torch.device) -> tuple[float, float]:
    """Loss and accuracy."""
    model.eval()
    loss, n_correct, n = 0.0, 0, 0
    with torch.no_grad():
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            outputs = model(inputs)
            loss += cross_entropy(outputs, labels, reduction="sum").item()
            n_correct += (outputs.argmax(1) == labels).sum().item()
            n += len(labels)
    return loss / n, n_correct / n


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train_set, val_set = load()
    # A competent user keeps the loader's processes over the epochs of a trial: starting them takes 0.1 s.
    common = {"num_workers": options.num_workers, "persistent_workers": options.num_workers > 0}
    n_epochs = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal n_epochs
        batch_size = trial.suggest_categorical("batch_size", [16, 32, 64, 128])
        model = Cnn(trial.suggest_float("dropout", 0.3, 0.5)).to(device)
        optimizer = suggest_optimizer(trial, model)
        train_loader = DataLoader(train_set, batch_size, shuffle=True, **common)
        val_loader = DataLoader(val_set, 256, **common)
        best_loss, best_accuracy, n_waited = float("inf"), 0.0, 0
        for epoch in range(1, options.epochs + 1):
            train(model, train_loader, optimizer, device)
            loss, accuracy = validate(model, val_loader, device)
            n_epochs += 1
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
            if loss < best_loss:
                best_loss, best_accuracy, n_waited = loss, accuracy, 0
            else:
                n_waited += 1
            if options.prune and n_waited == PATIENCE:
                break
        return best_accuracy

    hyperband = optuna.pruners.HyperbandPruner(max_resource=options.epochs)
    study = optuna.create_study(
        study_name=f"digits-{options.seed}",  # Hyperband deals trials to its brackets by the name
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=options.seed),
        pruner=hyperband if options.prune else optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=options.n_trials)
    result = {"n_epochs": n_epochs, "best_accuracy": study.best_value}
    print(json.dumps(result))
    if options.result is not None:
        options.result.write_text(json.dumps(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Search the digits the usual way.")
    parser.add_argument("--n-trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--prune", action="store_true", help="by Hyperband, and stop early")
    parser.add_argument("--num-workers", type=int, default=0, help="of the DataLoader")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice, one for each core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--result", type=Path, help="a file to write the result to, as JSON")
    return parser


if __name__ == "__main__":
    main()
