"""What somebody would reach who has not seen the images: the level that a network must pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, nll_loss


def chance_loss(train_y: Tensor, val_y: Tensor, n_classes: int) -> float:
    """The loss on val of a network that always says how frequent the classes (or labels) are in train.

    Each is counted as if it had been seen once more (Laplace), so that none is impossible.
    """
    if train_y.ndim == 2:
        rates = (train_y.double().sum(0) + 1) / (len(train_y) + 2)
        return binary_cross_entropy(rates.expand_as(val_y), val_y.double()).item()
    counts = torch.bincount(train_y, minlength=n_classes).double() + 1
    return nll_loss((counts / counts.sum()).log().expand(len(val_y), -1), val_y).item()


def chance_accuracy(train_y: Tensor, val_y: Tensor, n_classes: int) -> float | None:
    """The accuracy on val of who always says the most frequent class of train; None for several labels."""
    if train_y.ndim == 2:
        return None
    most = torch.bincount(train_y, minlength=n_classes).argmax()
    return (val_y == most).double().mean().item()
