"""The tensors of a trained network as they are kept: in a file of safetensors, which holds nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from xxhash import xxh3_128

from sweeper.card import Card
from sweeper.fault import Fault, disk
from sweeper.filesystem import whole
from sweeper.record.run_files import RunFiles


def of(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and buffers on the CPU, each with memory of its own.

    Tied ones are there under each of their names, and equal: safetensors keeps no memory that is shared.
    """
    return {
        name: torch.clone(tensor.detach().cpu(), memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def unkept(model: nn.Module) -> tuple[str, str] | None:
    """What of a network could not be written, or not be put back: its name, and what it is."""
    for name, value in model.state_dict().items():
        if name.rpartition(".")[2] == "_extra_state":
            return name, "which the network makes by itself (get_extra_state)"
        if value.layout != torch.strided or value.is_quantized:
            return name, "a sparse or quantized tensor"
        try:
            save({name: torch.empty(0, dtype=value.dtype)})
        except (KeyError, ValueError, SafetensorError):
            return name, f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    return None


def digest(state: Mapping[str, Tensor]) -> str:
    """32 hex digits that change with any name, type, shape or bit of a state."""
    found = xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode(errors="surrogatepass"))
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def keep(files: RunFiles, state: Mapping[str, Tensor], card: Card) -> None:
    """Write a state of ``of`` and its card in the place of others.

    Killed at any moment, it leaves no card beside other weights.

    Raises:
        Fault: if the disk fails.
    """
    with disk(files.folder):
        files.card.unlink(missing_ok=True)
    write(files.weights, state)
    card.write(files)
    with disk(files.folder):
        files.old_weights.unlink(missing_ok=True)


def write(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state of ``of``, whole or not at all.

    Raises:
        Fault: if the disk fails.
    """
    with whole(path) as temporary, temporary.open("wb") as file:
        # Not save_file, which puts a file of its own, with rights of its own, in the place of this one.
        file.write(save(dict(state)))


def read(path: Path, expected: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file that ``write`` wrote.

    Args:
        expected: the digest that its card has.

    Raises:
        Fault: if it cannot be read, is damaged, or holds other tensors than those of the digest.
    """
    with disk(path):
        with path.open("rb"):  # which says why it cannot be read
            pass
        try:
            found = load_file(path)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            again = "restore an intact copy, or train the model again"
            raise Fault(path, "cannot be read as safetensors: the file is damaged", again) from error
    if expected is not None and digest(found) != expected:
        again = "restore both from one run, or train the model again"
        raise Fault(path, "holds other weights than those that the model.json beside it describes", again)
    return found


def put(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let a network have these values, under exactly its own names.

    Not load_state_dict: for some networks (MNASNet) it needs a version, which is not a tensor.
    """
    for name, tensor in model.state_dict().items():
        # One value that an expanded tensor repeats can be written once.
        once = tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())
        tensor[once].copy_(state[name][once])
