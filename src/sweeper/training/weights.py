"""Pretrained weights: from a file or by a library's name, into the body of a network."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import cast

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import MAX_CHARACTERS, BadInput
from sweeper.training import checkpoint, custom
from sweeper.training.backbone import Backbone, is_path
from sweeper.training.freeze import head_name
from sweeper.training.model import outline
from sweeper.training.network_library import LIBRARIES, Library, bad_size
from sweeper.words import counted, expanded

log = logging.getLogger(__name__)

N_NAMED = ((3, 3), (2, 2), (2, 1), (1, 1))
"""How many tensors of the network, and of the file, an error names: as many as a line has room for."""

# Names in weights hosted by torchvision that have changed in its networks since.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)

AVERAGED = re.compile(r"(^|[._])ema([._]|$)")
"""In the names of weights that are an average over the training: the ones that their program evaluates."""


def load(model: nn.Module, settings: schema.Model, image_size: int) -> None:
    """Load the pretrained weights into the body of a network from ``build``; its head stays new.

    Raises:
        BadInput: if the weights do not exist, cannot be read, or belong to another network.
    """
    if settings.weights is None:
        return
    state = model.state_dict()
    for name, tensor in _body_state(model, settings, image_size).items():
        state[name].copy_(tensor)


def check(settings: schema.Model, in_channels: int, image_size: int, n_classes: int) -> None:
    """Refuse a network or weights that cannot work; only a network of one's own is allocated for that.

    Missing weights are downloaded.

    Raises:
        BadInput: if ``build``, ``load`` or the network would fail with these settings.
    """
    network = outline(settings, in_channels, image_size, n_classes)
    if settings.source == "custom":
        custom.check(settings, network, in_channels, image_size, n_classes)
    if isinstance(network, Backbone):  # our own networks take any size
        images = torch.empty(1, in_channels, image_size, image_size, device="meta")
        network.eval()
        try:
            with torch.no_grad():
                network(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise bad_size(settings, image_size, error) from error
    if settings.weights is not None:
        _body_state(network, settings, image_size)


def fingerprint(settings: schema.Model) -> str | None:
    """Identifies the weights: 16 hex digits of the file's digest, or the library's full name for them."""
    if settings.weights is None:
        return None
    if is_path(settings.weights):
        return _digest(settings.weights)
    return _library(settings).weights_name(settings)


# --------------------------------------------------------------------------------------------- reading


def _fetch(settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights under the names of their file or library."""
    weights = cast(str, settings.weights)
    if is_path(weights):
        return checkpoint.read(weights)
    return _library(settings).download(settings, image_size)


def _library(settings: schema.Model) -> Library:
    """The library that knows ``model.weights`` by name. Raises BadInput for our own networks."""
    if settings.source not in LIBRARIES:
        whose = "a network of one's own has" if settings.source == "custom" else "our own networks have"
        reason = f"{whose} no weights to download"
        raise BadInput(
            "model.weights", settings.weights, reason, "write null, or the path of a weights.safetensors"
        )
    return LIBRARIES[settings.source]


def _digest(path: str) -> str:
    digest = blake2b(digest_size=8)
    try:
        with expanded(path).open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(
            "model.weights", path, f"cannot be read ({error.strerror})", "write the path of a file"
        ) from error
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class _Match:
    """Where in a file the tensors of a network are."""

    prefix: str
    """What the file has before the network's names."""
    own: str
    """What the network has before the file's names, as our ``body.``."""

    @property
    def place(self) -> tuple[str, str]:
        """The same for two matches of the same tensors."""
        is_both = self.own and self.prefix.endswith(self.own)
        return (self.prefix.removesuffix(self.own), "") if is_both else (self.prefix, self.own)

    @property
    def shown(self) -> str:
        return self.prefix.rstrip(".") or "the names without a prefix"


def _body_state(model: nn.Module, settings: schema.Model, image_size: int) -> dict[str, Tensor]:
    """The weights of the body under the network's names.

    Raises:
        BadInput: naming tensors that are missing, have no place, or have another shape.
    """
    wanted = _without(model.state_dict(), head_name(model))
    there = _in_our_words(_fetch(settings, image_size), wanted, is_library=isinstance(model, Backbone))
    match, *others = _matches(wanted, there) or [_Match("", "")]
    whole = {
        f"{match.own}{name.removeprefix(match.prefix)}": tensor
        for name, tensor in there.items()
        if name.startswith(match.prefix)
    }
    offered = whole
    for head in _heads(model):
        offered = _without(offered, head)
    if isinstance(model, Backbone):
        offered = LIBRARIES[settings.source].resize(offered, model.body, image_size)
    ours = "body." if isinstance(model, Backbone) else ""
    lacking = list(_lacking(wanted, offered, ours))
    strange = _strange(wanted, whole, offered)
    if lacking or strange:
        unused = {name: tensor for name, tensor in offered.items() if name not in wanted}
        besides = [f"{name.removeprefix(ours)} {list(unused[name].shape)}" for name in strange or unused]
        raise _bad_fit(settings, lacking, besides)
    _refuse_values(wanted, offered, settings.weights, ours)
    if is_path(settings.weights):
        used = {f"{match.prefix}{name.removeprefix(match.own)}" for name in wanted}
        _tell(settings.weights, match, others, [name for name in there if name not in used])
    return {name: offered[name] for name in wanted if name in offered}


def _without(state: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """All tensors but those of a module."""
    return {name: tensor for name, tensor in state.items() if not f"{name}.".startswith(f"{module}.")}


def _heads(model: nn.Module) -> list[str]:
    """The modules that are no part of the body: our head, and those of the library in its place."""
    left_out = model.left_out if isinstance(model, Backbone) else ()
    return [head_name(model), *(f"body.{name}" for name in left_out)]


WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules that torch puts around others, anywhere in a network: compiled, parallel, sharded, checkpointed."""


def _in_our_words(
    there: Mapping[str, Tensor], wanted: Mapping[str, Tensor], is_library: bool
) -> dict[str, Tensor]:
    """The tensors without wrappers that the network lacks, and under the names of today's torchvision."""
    wrappers = set(WRAPPERS) - {part for name in wanted for part in name.split(".")}
    result = dict[str, Tensor]()
    for name, tensor in there.items():
        ours = ".".join(part for part in name.split(".") if part not in wrappers)
        ours = _renamed(ours) if is_library else ours
        result[name if ours in result else ours] = tensor
    return result


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _matches(wanted: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[_Match]:
    """Where most of the network's tensors are, by their names from behind; the best match first.

    The best are those in which the most shapes agree, then the most names; of equals an average comes first,
    then what the file has first. Others follow if they have half as much.
    """
    names, shapes = Counter[_Match](), Counter[_Match]()
    for own in _own_prefixes(wanted):
        inside = {name.removeprefix(own): tensor.shape for name, tensor in wanted.items()}
        for name, tensor in there.items():
            parts = name.split(".")
            for n in range(len(parts)):
                if (suffix := ".".join(parts[n:])) in inside:
                    match = _Match(name.removesuffix(suffix), own)
                    names[match] += 1
                    shapes[match] += tensor.shape == inside[suffix]
    first = dict[tuple[str, str], _Match]()
    for match in sorted(names, key=lambda m: (-shapes[m], -names[m], AVERAGED.search(m.prefix) is None)):
        first.setdefault(match.place, match)
    matches = list(first.values())
    return [match for match in matches if 2 * names[match] >= names[matches[0]]]


def _own_prefixes(wanted: Mapping[str, Tensor]) -> list[str]:
    """What all names of the network begin with: from nothing to all of that."""
    first, *others = [name.split(".")[:-1] for name in wanted] or [[]]
    prefixes = [""]
    for i, part in enumerate(first):
        if any(other[i : i + 1] != [part] for other in others):
            break
        prefixes.append(f"{prefixes[-1]}{part}.")
    return prefixes


def _lacking(wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor], ours: str) -> Iterator[str]:
    """What the network wants and the file has not, or has otherwise.

    Args:
        ours: a prefix of ours, which says nothing to a person.
    """
    for name, tensor in wanted.items():
        shown, shape = name.removeprefix(ours), list(tensor.shape)
        if name not in offered:
            # Missing in weights saved before PyTorch 0.4.1, and nothing depends on it.
            if not name.endswith(".num_batches_tracked"):
                yield f"{shown} {shape} is missing"
        elif list(offered[name].shape) != shape:
            yield f"{shown} is {list(offered[name].shape)} there, {shape} in the network"


def _refuse_values(
    wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor], path: str | None, ours: str
) -> None:
    """Raises BadInput for tensors of the right names and shapes whose values cannot be weights."""
    for name, tensor in wanted.items():
        if name in offered and (why := _no_numbers(offered[name], tensor)):
            reason = f"{name.removeprefix(ours)} has values that are {why}"
            raise BadInput("model.weights", path, reason, "write the path of other weights")


def _no_numbers(tensor: Tensor, wanted: Tensor) -> str | None:
    """Why the values cannot be weights."""
    if tensor.is_meta:
        return "not in the file"
    if wanted.is_floating_point() and not tensor.is_floating_point():
        return f"{str(tensor.dtype).removeprefix('torch.')}, as of a quantized network"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return "quantized or sparse"
    return None if tensor.isfinite().all() else "not finite"


def _strange(
    wanted: Mapping[str, Tensor], whole: Mapping[str, Tensor], offered: Mapping[str, Tensor]
) -> list[str]:
    """What the file has within the modules of the body that the network lacks: it is of another network.

    What it has outside of these (a head, a criterion, a whole other network) does not matter. Nor does a last
    linear layer among the body's, if the file shows no other head.
    """
    common = _own_prefixes(wanted)[-1]
    modules = {_kind(name.removeprefix(common)) for name in wanted}
    strange = [
        name
        for name in offered
        if name not in wanted and name.startswith(common) and _kind(name.removeprefix(common)) in modules
    ]
    layers = {name.rpartition(".")[0] for name in strange}
    has_head = any(t.ndim >= 2 for n, t in whole.items() if n not in wanted and n not in strange)
    is_head = len(layers) == 1 and not has_head and any(offered[name].ndim == 2 for name in strange)
    return [] if is_head else strange


def _kind(name: str) -> str:
    """The outermost module, any of a list of them: ``layer1.0.weight`` and ``layer4.0.weight`` are alike."""
    first, dot, _ = name.partition(".")
    return re.sub(r"[0-9]+$", "#", first) + dot


def _bad_fit(settings: schema.Model, lacking: list[str], there: list[str]) -> BadInput:
    """For weights of another network: what this one wants, and what the file has."""
    keys = "model.name" if settings.source in LIBRARIES else "model.filters, model.hidden_units, …"
    keys = "model.target, model.arguments" if settings.source == "custom" else keys
    name = settings.target if settings.source == "custom" else settings.name
    remedy = f"write the {keys} and dataset.image_size that they are of"
    for n_lacking, n_there in N_NAMED:
        if lacking:
            parts = lacking[:n_lacking] + [f"it has {', '.join(there[:n_there])}"] * bool(there)
        else:
            parts = [f"{one} has no place" for one in there[:n_there]]
        n_more = len(lacking) - n_lacking if lacking else len(there) - n_there
        parts += [f"and {n_more} more"] if n_more > 0 else []
        error = BadInput(
            "model.weights", settings.weights, f"does not fit {name}: {'; '.join(parts)}", remedy
        )
        if sum(len(str(part)) for part in error.args) + len("=: ; ") <= MAX_CHARACTERS:
            break
    return error


_told = set[str]()


def _tell(path: str, match: _Match, others: list[_Match], unused: list[str]) -> None:
    """Say once, what was taken of a file that holds more than the body, and what was not."""
    lines = list[str]()
    if others:
        beside = ", ".join(other.shown for other in others[:3])
        lines.append(f"model.weights={path}: {match.shown} is taken, not {beside}")
    if unused:
        named = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
        lines.append(
            f"model.weights={path}: {counted(len(unused), 'tensor')} of other parts not taken: {named}"
        )
    for line in lines:
        if line not in _told:  # it is read for the check, and for the training
            _told.add(line)
            log.info(line)
