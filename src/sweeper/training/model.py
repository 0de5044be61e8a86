"""Networks: what the settings say, built."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sweeper import schema

ACTIVATIONS: dict[str, type[nn.ReLU | nn.LeakyReLU]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class Cnn(nn.Module):
    """Convolutions, then fully connected layers; the last of these, ``head``, gives a logit for each class.

    Args:
        features: from images (n, channels, side, side) to any shape (n, ...).
        hidden: from the flattened features to the head's input.
    """

    def __init__(self, features: nn.Sequential, hidden: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.features, self.hidden, self.head = features, hidden, head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.features(images).flatten(1)))
        return logits


def build(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> nn.Module:
    """A new network from images (n, in_channels, image_size, image_size) to logits (n, n_classes).

    Its weights are drawn from torch's global generator. Its last linear layer is the attribute ``head``.
    """
    return registry[model.name](model, in_channels, image_size, n_classes)


def build_cnn(model: schema.Model, in_channels: int, image_size: int, n_classes: int) -> Cnn:
    """A small convolutional network: a block for each of ``filters``, a layer for each of ``hidden_units``.

    A block halves the side of its images while at least 2 pixels remain; from then on it keeps it, so any
    number of filters fits any image.
    """
    activation = ACTIVATIONS[model.activation]
    features, side = nn.Sequential(), image_size
    for n_filters in model.filters:
        features.append(nn.Conv2d(in_channels, n_filters, model.kernel_size, padding="same"))
        if model.batch_norm:
            features.append(nn.BatchNorm2d(n_filters))
        if side >= 4:
            # Before the activation: the same result, as both are monotonic, for a quarter of the work.
            features.append(nn.MaxPool2d(2))
            side //= 2
        features.append(activation(inplace=True))
        in_channels = n_filters

    hidden, n_inputs = nn.Sequential(), in_channels * side * side
    for n_units in model.hidden_units:
        hidden.extend([nn.Linear(n_inputs, n_units), activation(inplace=True), nn.Dropout(model.dropout)])
        n_inputs = n_units

    cnn = Cnn(features, hidden, nn.Linear(n_inputs, n_classes))
    initialise(cnn, model.init, model.activation)
    return cnn


def initialise(model: Cnn, init: str, activation: str) -> None:
    """Draw the weights anew with the gain that suits the activation, and set the biases to zero.

    ``default`` leaves what PyTorch drew. The head is followed by no activation: its gain is 1.
    """
    if init == "default":
        return
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            follows = "linear" if layer is model.head else activation
            INITS[init](layer.weight, follows)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _xavier_uniform(weight: Tensor, activation: str) -> None:
    nn.init.xavier_uniform_(weight, nn.init.calculate_gain(activation))  # type: ignore[arg-type]


def _kaiming_uniform(weight: Tensor, activation: str) -> None:
    nn.init.kaiming_uniform_(weight, a=0.01, nonlinearity=activation)  # type: ignore[arg-type]


INITS: dict[str, Callable[[Tensor, str], None]] = {
    "xavier_uniform": _xavier_uniform,
    "kaiming_uniform": _kaiming_uniform,
}

registry: dict[str, Callable[[schema.Model, int, int, int], nn.Module]] = {"cnn": build_cnn}
"""Every model by its ``model.name``; another one is another entry."""
