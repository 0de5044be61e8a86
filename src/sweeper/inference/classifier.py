"""A trained model in use: ``load`` gives it, ``predict`` says what pictures show."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sweeper import outputs
from sweeper.card import Card
from sweeper.errors import BadInput, named, shortened
from sweeper.fault import Fault, disk
from sweeper.inference.picture import KEY, Transform, decoded, each
from sweeper.inference.pipeline import Scorer
from sweeper.record.run_files import CARD
from sweeper.training import machine, state
from sweeper.training.model import build, outline, outline_custom
from sweeper.training.picture import UnreadableError
from sweeper.trust import may_give, may_import
from sweeper.words import counted, expanded

_MOST_NAMED, _MOST_SHOWN = 5, 40
"""Pictures that an error names, and characters of each name."""
_PAUSES_S = (0, 0.01, 0.05)
"""Before a model that was just being replaced is read again."""
_ANY_SIZE = 1024
"""Which an argument may be, however small the weights are."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture."""

    name: str
    """The path of a file as it was given, and of other pictures their position among all."""
    classes: tuple[str, ...]
    """The likeliest; where a picture may have several labels, all that reach their thresholds."""
    probability: float
    """Of the likeliest."""
    probabilities: Mapping[str, float]
    """Of each class, the likeliest first."""

    def top(self, n: int) -> tuple[tuple[str, float], ...]:
        """The n likeliest classes with their probabilities."""
        return tuple(self.probabilities.items())[:n]


class Predictions(Sequence[Prediction]):
    """What the model says of pictures, in their order.

    ``probabilities`` is float32 (n, n_classes), its columns are ``classes``; ``names`` are those of the rows.
    ``unreadable`` tells of pictures left out: their names, and why.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        probabilities: NDArray[np.float32],
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None,
        unreadable: Mapping[str, str],
    ) -> None:
        self.names, self.probabilities, self.classes = names, probabilities, classes
        self.unreadable: Mapping[str, str] = dict(unreadable)
        self._thresholds = thresholds

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, which: int) -> Prediction: ...

    @overload
    def __getitem__(self, which: slice) -> Predictions: ...

    def __getitem__(self, which: int | slice) -> Prediction | Predictions:
        if isinstance(which, slice):
            some = self.names[which], self.probabilities[which]
            return Predictions(*some, self.classes, self._thresholds, self.unreadable)
        name, row = self.names[which], self.probabilities[which]
        order = np.argsort(-row, kind="stable")
        said = order[:1]
        if self._thresholds is not None:
            said = order[row[order] >= np.asarray(self._thresholds, np.float32)[order]]
        return Prediction(
            name=name,
            classes=tuple(self.classes[i] for i in said),
            probability=float(row[order[0]]),
            probabilities={self.classes[i]: float(row[i]) for i in order},
        )

    def __repr__(self) -> str:
        left_out = f", {len(self.unreadable):,} unreadable" if self.unreadable else ""
        return f"<Predictions: {counted(len(self), 'picture')}{left_out}>"


class Classifier:
    """A trained network with all that its pictures and its words need."""

    def __init__(self, card: Card, module: nn.Module) -> None:
        self.card, self.module = card, module
        self.transform = Transform.of(card)
        """One picture of any kind → uint8 (channels, side, side), as the network sees it."""
        self._scorer = Scorer(self.module, card)
        self._device = torch.device("cpu")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: str | torch.device) -> Classifier:
        """This model, moved to a device: ``auto`` is the first GPU, or else the CPU.

        Raises:
            BadInput: if this machine has no such device.
        """
        self._device = machine.resolve_device(str(device))
        self._scorer.to(self._device)
        return self

    def __repr__(self) -> str:
        network = self.card.network
        name = network.target if network.source == "custom" else network.name
        return f"<Classifier: {name}, {counted(len(self.classes), 'class', 'classes')}, on {self.device}>"

    def predict(
        self,
        pictures: object,
        *,
        batch_size: int | None = None,
        skip_unreadable: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Predictions:
        """What the model says of pictures: a path, a folder (all below it), a PIL image, an array (height,
        width), (height, width, channels) or (n, height, width, channels), a tensor (channels, height, width)
        or (n, channels, height, width), the content of a file as bytes, an open file, or several of these.

        Arrays and tensors hold uint8, or floats of 0 … 1. Pictures are decoded in threads and held a few
        batches at a time, so there may be any number, also from a generator.

        Args:
            batch_size: pictures at once in the network; None suits the device.
            skip_unreadable: leave out what cannot be read, and name it in ``unreadable``.
            progress: called now and then with the number of pictures that are done.

        Raises:
            BadInput: for what is no picture, and, unless they are skipped, naming pictures that cannot be
                read.
        """
        is_number = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)  # of NumPy's, too
        if batch_size is not None and (not is_number or batch_size < 1):
            raise BadInput("batch_size", batch_size, "is no number of pictures", "write 1 or more, or None")
        n = batch_size or machine.usually_at_once(self.device, self.card.image_size)
        names, said, unreadable = list[str](), list[NDArray[np.float32]](), dict[str, str]()
        self.module.eval()  # whoever trains it may have left it otherwise
        for batch, pixels in self._batches(pictures, n, unreadable):
            if unreadable and not skip_unreadable:
                continue  # the others are read, to name all
            names += batch
            said.append(self._probabilities(pixels))
            if progress is not None:
                progress(len(names) + len(unreadable))
        if unreadable and not skip_unreadable:
            raise _unreadable(unreadable, pictures)
        nothing = np.empty((0, len(self.classes)), np.float32)
        return Predictions(
            tuple(names), np.concatenate([nothing, *said]), self.classes, self.card.thresholds, unreadable
        )

    def _batches(
        self, pictures: object, n: int, unreadable: dict[str, str]
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Names and pixels of n pictures at once; those that cannot be read are told in ``unreadable``."""
        one_by_one = each(pictures, self.card.pixel_channels)
        names, pixels = list[str](), list[NDArray[np.uint8]]()
        for name, found in decoded(one_by_one, self.transform.decode, 2 * n):
            try:
                pixels.append(found.result())
            except UnreadableError as error:
                unreadable[name] = error.why
                continue
            names.append(name)
            if len(names) == n:
                yield names, torch.from_numpy(np.stack(pixels))
                names, pixels = [], []
        if names:
            yield names, torch.from_numpy(np.stack(pixels))

    def _probabilities(self, pixels: Tensor) -> NDArray[np.float32]:
        """In smaller pieces where the GPU has no room for all at once."""
        try:
            with torch.inference_mode():
                said: Tensor = self._scorer(pixels.to(self.device))
                return said.cpu().numpy()
        except RuntimeError as error:
            if not machine.is_full(error) or len(pixels) == 1:
                raise
        machine.release(self.device)
        half = (len(pixels) + 1) // 2
        return np.concatenate([self._probabilities(part) for part in torch.split(pixels, half)])


def _unreadable(told: Mapping[str, str], pictures: object) -> BadInput:
    """
    Args:
        pictures: what was given: where it is one file, there are no others.
    """
    names = [f"{shortened(name, _MOST_SHOWN)} ({why})" for name, why in told.items()]
    more = "; …" if len(names) > _MOST_NAMED else ""
    if len(told) == 1:
        ((name, why),) = told.items()
        remedy = "leave it out, or write skip_unreadable=True"
        if isinstance(pictures, str | PathLike) and not os.path.isdir(expanded(os.fspath(pictures))):  # noqa: PTH112
            remedy = "write the path of a picture, or of a folder of them"
        return BadInput(KEY, name, why, remedy)
    reason = f"cannot be read: {'; '.join(names[:_MOST_NAMED])}{more}"
    remedy = "leave them out, or write skip_unreadable=True"
    return BadInput(KEY, counted(len(told), "picture"), reason, remedy)


# ------------------------------------------------------------------------------------------------ loading


def load(path: str | PathLike[str], *, trust: bool = False, device: str | torch.device = "cpu") -> Classifier:
    """A trained model, ready to predict: the best of a study, or any that was kept.

    Args:
        path: the name or folder of a study, the folder of a model (``best/``, that of a trial or of a single
            run, or a copy), or a file that ``sweeper export --format safetensors`` wrote.
        trust: whether a network of one's own that the model names may be imported, from the working folder or
            from what is installed: its code runs.
        device: as of torch, or ``auto``: the first GPU, or else the CPU.

    Raises:
        BadInput: if there is no model, or it may not be loaded.
        Fault: if a file is damaged.
    """
    with named("model", "STUDY"):
        files, card, tensors = _found(path)
    network = card.network
    if network.source == "custom" and not (trust or may_import(network.target)):
        reason = "the model names it, and its code would run"
        remedy = "read that code, then add --trust (in Python: trust=True)"
        raise BadInput("model.target", network.target, reason, remedy)
    largest = max((max(tensor.shape, default=0) for tensor in tensors.values()), default=0)
    if network.source == "custom" and not (trust or may_give(network.arguments, max(largest, _ANY_SIZE))):
        reason = "the model asks for other weights, or for more than it has"
        remedy = "look at network.arguments in its model.json, then add --trust (in Python: trust=True)"
        raise BadInput("model.arguments", _told(network.arguments), reason, remedy)
    place = machine.resolve_device(str(device))
    settings, shape = network.settings(), (card.in_channels, card.image_size, len(card.classes))
    # What it begins with are nobody's draws, and a program may have set other defaults than a training has.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _float32():
        # A card may claim a network that no memory has room for.
        if network.source != "custom":
            _check_same(outline(settings, *shape), tensors, files.weights)
        elif not trust and (claimed := outline_custom(settings, *shape)) is not None:
            _check_same(claimed, tensors, files.weights)
        module = build(settings, *shape)
        _check_same(module, tensors, files.weights)
        state.put(module, tensors)
        model = Classifier(card, module)
    return model.to(place)


@contextmanager
def _float32() -> Iterator[None]:
    """As the type of new tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _told(arguments: Mapping[str, object]) -> str:
    return shortened(", ".join(f"{name}: {value}" for name, value in arguments.items()), _MOST_SHOWN)


def _found(path: str | PathLike[str]) -> tuple[outputs.ModelFiles, Card, dict[str, Tensor]]:
    """A search may put another best model in the place of this one meanwhile: it is then read anew."""
    for pause_s in _PAUSES_S:
        with suppress(BadInput, Fault):
            return (files := outputs.find_model(path)), *_read(files)
        time.sleep(pause_s)
    return (files := outputs.find_model(path)), *_read(files)


def _read(files: outputs.ModelFiles) -> tuple[Card, dict[str, Tensor]]:
    card = Card.read(files.card) if files.card is not None else _card_inside(files.weights)
    return card, state.read(files.weights, card.weights_digest)


def _card_inside(file: Path) -> Card:
    """The card that a file of safetensors holds beside its tensors."""
    with disk(file):
        try:
            with safe_open(file, "pt") as opened:
                told = (opened.metadata() or {}).get(CARD)
        except (SafetensorError, ValueError) as error:
            reason = "cannot be read as safetensors: the file is damaged"
            raise Fault(file, reason, "restore an intact copy") from error
    if told is None:
        reason, remedy = f"holds weights alone, and no {CARD}", "write the folder of the model"
        raise BadInput("model", file, reason, remedy)
    return Card.from_json(told, file)


def _check_same(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raises Fault for other tensors than those of the network: the code of one's own may have changed."""
    wanted = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    there = {name: list(tensor.shape) for name, tensor in tensors.items()}
    odd = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    if odd:
        name = odd[0]
        what = f"{name} is {there.get(name, 'missing')}, in the network {wanted.get(name, 'missing')}"
        more = f" (and {len(odd) - 1:,} more)" if len(odd) > 1 else ""
        raise Fault(file, f"does not fit its network: {what}{more}", "use the code that it was trained with")
