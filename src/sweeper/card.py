"""What stands beside the weights of a model: all that a program must know to use them, in ``model.json``.

A card is data: nothing that it names is imported to read it. It needs neither the dataset, nor Hydra, nor
Optuna.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sweeper import schema
from sweeper.errors import BadInput, shortened, visible
from sweeper.fault import Fault, disk
from sweeper.filesystem import write_whole
from sweeper.limit import Limit, mapping, number, option, or_null, whole
from sweeper.program import program
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.words import near

FORMAT = 1
"""The version of ``model.json``; a later one is refused."""

ONE, SEVERAL = "one", "several"
"""Labels of a picture."""


@dataclass(frozen=True)
class Network:
    """The fields of ``schema.Model`` that say how to build the network, under the same names.

    ``source`` is ``sweeper``, ``torchvision``, ``timm`` or ``custom``.
    """

    source: str
    name: str
    filters: tuple[int, ...] = ()
    kernel_size: int = 3
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    hidden_units: tuple[int, ...] = ()
    target: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None

    @classmethod
    def of(cls, settings: schema.Model) -> Network:
        values: dict[str, Any] = {each.name: _frozen(getattr(settings, each.name)) for each in fields(cls)}
        return cls(**values)

    def settings(self) -> schema.Model:
        """What ``training.model.build`` makes it of; it has random weights then."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values |= {"filters": list(self.filters), "hidden_units": list(self.hidden_units)}
        return schema.Model(**values | {"arguments": dict(self.arguments)})


@dataclass(frozen=True)
class Card:
    """All but the weights.

    A picture is shown upright, transparent pixels over ``background``; its shorter side is resized to
    ``image_size * margin`` pixels and the middle cropped to a square of that side, of which the network sees
    the middle ``image_size`` pixels; gray where ``pixel_channels`` is 1. Values in 0 … 1 are normalised by
    ``mean`` and ``std``, (in_channels,) each: three for a gray picture make three channels of it.
    Logits divided by ``temperature`` give probabilities: by softmax where a picture has ``one`` label, by
    sigmoid where it may have ``several``; then each label has a threshold.
    """

    network: Network
    classes: tuple[str, ...]
    labels: str
    """``one`` or ``several``."""
    thresholds: tuple[float, ...] | None
    """For several labels: the probability from which on a picture has each of ``classes``; else None."""
    in_channels: int
    """Of the network: 1 or 3."""
    pixel_channels: int
    """Of the pictures: 1 or 3."""
    image_size: int
    margin: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, int, int]
    max_megapixels: float
    bits: int
    """Of what is white in files of 16 bits that do not say: as the training pictures had it; 8 to 16."""
    temperature: float
    """Fitted on the validation logits (Guo et al. 2017)."""
    scores: Mapping[str, float]
    """``val_…`` and, once they are known, ``test_…``."""
    study: str | None
    trial: int | None
    weights_digest: str
    """Of the tensors that it describes (``training.state.digest``): a card beside others is found out."""

    @property
    def several_labels(self) -> bool:
        return self.labels == SEVERAL

    @property
    def stored_side(self) -> int:
        """Pixels of the square to which a picture is resized; the network sees its middle."""
        return round(self.image_size * self.margin)

    def to_json(self) -> str:
        """What ``model.json`` holds."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    def write(self, files: RunFiles) -> None:
        """Write ``model.json``, whole or not at all.

        Raises:
            Fault: if the disk fails.
        """
        write_whole(files.card, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file, whoever wrote that.

        Raises:
            BadInput: if there is none, or one of a later version.
            Fault: if it cannot be read, or is damaged: naming the key.
        """
        if not path.exists():
            raise _missing(path)
        with disk(path):
            if path.stat().st_size > _MOST_BYTES:
                raise _damaged(path, f"is larger than {_MOST_BYTES // 10**6} MB")
            content = path.read_bytes()
        return cls.from_json(content, path)

    @classmethod
    def from_json(cls, content: bytes | str, place: Path) -> Card:
        """The card in the text of a file, which errors name.

        Raises:
            BadInput: for one of a later version.
            Fault: if it is damaged: naming the key.
        """
        try:
            found: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _damaged(place, "cannot be parsed") from error
        if not isinstance(found, dict):
            raise _damaged(place, "is not a mapping")
        if type(version := found.get("format")) is int and version > FORMAT:
            reason = f"was written by a later version of sweeper (format {version:.6g}, not {FORMAT})"
            raise BadInput(place.name, place, reason, "install that version, or take another model")
        if type(version) is not int or version != FORMAT:
            raise _bad(place, "format", version, f"must be {FORMAT}")
        _check(_LIMITS, found, place)
        network = found["network"]
        _check(_OF_NETWORK, network, place, "network.")
        values = {name: _frozen(found[name]) for name in _LIMITS}
        values["network"] = Network(**{name: _frozen(network[name]) for name in _OF_NETWORK})
        card = cls(**values)
        _check_together(card, place)
        return card


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ------------------------------------------------------------------------------- a file that is anybody's

_MOST_BYTES = 100 * 10**6
_MOST_CLASSES = 10**6
_MOST_SHOWN = 60


def _list_of(item: Limit, least: int = 1, most: int = _MOST_CLASSES) -> Limit:
    def fault(value: Any) -> str | None:
        if not isinstance(value, list):
            return "must be a list"
        if not least <= len(value) <= most:
            return f"has {len(value):,} values"
        return next((f"has a value that {why}" for each in value if (why := item.fault(each))), None)

    return Limit(fault, "")


def _mapping_of(item: Limit) -> Limit:
    def fault(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "must hold values by their names"
        return next((f"has a value that {why}" for each in value.values() if (why := item.fault(each))), None)

    return Limit(fault, "")


def _of_type(kind: type | tuple[type, ...], limit: Limit) -> Limit:
    """For limits that take a value's type for granted."""
    return Limit(lambda v: limit.fault(v) if isinstance(v, kind) else "is of another type", "")


def _text_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    is_half = any("\ud800" <= c <= "\udfff" for c in value)  # which nothing could print
    return "contains a character that is not text" if is_half else None


_ANY = Limit(lambda value: None, "")
_TEXT = Limit(_text_fault, "")
_FINITE = number(-1e300, 1e300, "")
_BYTE = whole(0, 255, "")
_CHANNELS = Limit(lambda v: None if type(v) is int and v in (1, 3) else "must be 1 or 3", "")
_BITS = (8, 10, 12, 14, 16)

_LIMITS: dict[str, Limit] = {
    "network": mapping(""),
    "classes": _list_of(_TEXT),
    "labels": option(ONE, SEVERAL),
    "thresholds": or_null(_list_of(number(0, 1, ""))),
    "in_channels": _CHANNELS,
    "pixel_channels": _CHANNELS,
    "image_size": whole(1, 4096, ""),
    "margin": schema.LIMITS["dataset.margin"],
    "mean": _list_of(number(0, 1, ""), 1, 3),
    "std": _list_of(number(0, 1000, "", above=True), 1, 3),
    "background": _list_of(_BYTE, 3, 3),
    "max_megapixels": schema.LIMITS["dataset.max_megapixels"],
    "bits": Limit(lambda v: None if type(v) is int and v in _BITS else f"must be one of {_BITS}", ""),
    "temperature": number(1e-3, 1e3, ""),
    "scores": _mapping_of(_FINITE),
    "study": or_null(_TEXT),
    "trial": or_null(whole(0, 10**12, "")),
    "weights_digest": _TEXT,
}
"""Every key of a card but its format."""

_OF_NETWORK: dict[str, Limit] = {
    "source": _of_type(str, schema.LIMITS["model.source"]),
    "name": _of_type(str, schema.LIMITS["model.name"]),
    "filters": _of_type(list, schema.LIMITS["model.filters"]),
    "kernel_size": _of_type(int, schema.LIMITS["model.kernel_size"]),
    "activation": _of_type(str, schema.LIMITS["model.activation"]),
    "batch_norm": _of_type(bool, _ANY),
    "dropout": _of_type((int, float), schema.LIMITS["model.dropout"]),
    "hidden_units": _of_type(list, schema.LIMITS["model.hidden_units"]),
    "target": or_null(_of_type(str, schema.LIMITS["model.target"])),
    "arguments": mapping(""),
    "head": or_null(_of_type(str, schema.LIMITS["model.head"])),
}


def _check(limits: Mapping[str, Limit], found: Mapping[str, Any], place: Path, section: str = "") -> None:
    """Raises Fault for a key that is missing, or whose value cannot be."""
    for key, limit in limits.items():
        if key not in found:
            raise _damaged(place, f"lacks {section}{key}")
        try:
            why = limit.fault(found[key])
        except OverflowError:  # a whole number beyond all floats
            why = "is too large"
        if why is not None:
            raise _bad(place, f"{section}{key}", found[key], why)


def _check_together(card: Card, place: Path) -> None:
    """Raises Fault for values that do not fit each other."""
    n_classes, network = len(card.classes), card.network
    if len(set(card.classes)) < n_classes:
        raise _bad(place, "classes", card.classes, "has a class twice")
    n_thresholds = n_classes if card.several_labels else None
    if (None if card.thresholds is None else len(card.thresholds)) != n_thresholds:
        needs = f"needs {n_classes:,} values" if card.several_labels else "must be null for one label"
        raise _bad(place, "thresholds", card.thresholds, needs)
    for key in ("mean", "std"):
        if len(values := getattr(card, key)) != card.in_channels:
            raise _bad(place, key, values, f"must have in_channels={card.in_channels} values")
    if card.pixel_channels > card.in_channels:
        raise _bad(place, "pixel_channels", card.pixel_channels, f"is above in_channels={card.in_channels}")
    if network.source == "custom" and network.target is None:
        raise _bad(place, "network.target", None, "must name the network")
    if network.source == "sweeper" and network.name != "cnn":
        raise _bad(place, "network.name", network.name, "is none of our networks")


def _bad(place: Path, key: str, value: Any, why: str) -> Fault:
    try:
        shown = shortened(json.dumps(value, ensure_ascii=False), 4 * _MOST_SHOWN)
    except ValueError:  # a number of more digits than Python writes
        shown = "…"
    return _damaged(place, f"{key}={shortened(visible(shown), _MOST_SHOWN)} {why}")


def _damaged(place: Path, what: str) -> Fault:
    return Fault(place, f"{what}: the file is damaged", "restore an intact copy, or train the model again")


def _missing(path: Path) -> BadInput:
    """For a folder without a card: of an earlier version, of a run that did not end, or of somebody else."""
    files = RunFiles(path.parent)
    reason, again = f"has no {path.name}", "write the folder of a run, or of the best/ of a study"
    if files.is_ours and files.config.exists():
        again = f"train it again: {program()} --config-dir {shlex.quote(near(path.parent))} --config-name "
        again += f"{files.config.stem}{files.trust_option}"
        if files.old_weights.exists():
            reason += ": an earlier version of sweeper wrote it"
            if StudyFiles(path.parent.parent).is_ours:
                again = f"repeat the command of its search, which adds it, or {again}"
    return BadInput("model", near(path.parent), reason, again)
