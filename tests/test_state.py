"""The tensors of a trained network on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sweeper.fault import Fault
from sweeper.record.run_files import RunFiles
from sweeper.schema import Model
from sweeper.training import checkpoint, state
from sweeper.training.model import build
from tests import program
from tests.shim import Shim, compile_shim
from tests.test_card import CARD


class Odd(nn.Module):
    """Tied weights, and buffers that share memory, repeat it, or lie in it in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        pool = torch.rand(6)
        self.register_buffer("first", pool[:4])
        self.register_buffer("second", pool[2:])
        self.register_buffer("turned", torch.rand(3, 2).T)
        self.register_buffer("repeated", torch.rand(1, 2).expand(3, 2))
        self.register_buffer("scalar", torch.tensor(7))
        self.register_buffer("none", torch.empty(0, 3))
        self.register_buffer("of_bfloat16", torch.rand(3).bfloat16())
        self.register_buffer("switches", torch.tensor([True, False]))


def mnasnet() -> nn.Module:
    return build(Model(source="torchvision", name="mnasnet0_5"), 3, 32, 2)


def last(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: build(Model(batch_norm=True), 1, 8, 10),
    "channels last": lambda: last(build(Model(), 3, 8, 10)),
    "odd": Odd,
    "mnasnet": mnasnet,  # which load_state_dict would refuse
}


SLOW = {"mnasnet": pytest.mark.slow}


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=SLOW.get(name, ())) for name, make in NETWORKS.items()]
)
def test_a_network_has_its_values_again(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    """To the last bit, of every type, however they lie in memory; the digest says that they are the same."""
    network, path = make(), tmp_path / "weights.safetensors"
    kept = state.of(network)
    state.write(path, kept)
    again = make()
    state.put(again, state.read(path, state.digest(kept)))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert state.digest(again.state_dict()) == state.digest(kept)
    assert set(checkpoint.read(str(path))) == set(kept)  # as any file of weights, too


def test_anybody_may_read_it_who_may_read_the_rest(tmp_path: Path) -> None:
    """The rights are those of every other file."""
    state.write(tmp_path / "a", {"x": torch.zeros(1)})
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_digest_changes_with_anything(tmp_path: Path) -> None:
    """With a name, a type, a shape, one bit; not with the order."""
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.tensor([0, 0, 0, -0.0]), "b": torch.ones(2)},
        {"a": torch.zeros(4)},
    ]
    digests = [state.digest(each) for each in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert state.digest(dict(reversed(base.items()))) == digests[0]


def damaged(content: bytes) -> dict[str, bytes]:
    changed = bytearray(content)
    changed[-1] ^= 1
    return {
        "cut": content[:-1],
        "half": content[: len(content) // 2],
        "empty": b"",
        "changed": bytes(changed),
        "pickle": b"\x80\x02}q\x00.",
    }


@pytest.mark.parametrize("how", ["cut", "half", "empty", "changed", "pickle"])
def test_damaged_weights_are_one_line(tmp_path: Path, how: str) -> None:
    """Also where one bit of a number has changed, which the digest tells."""
    path, kept = tmp_path / "weights.safetensors", {"a": torch.rand(100)}
    state.write(path, kept)
    path.write_bytes(damaged(path.read_bytes())[how])
    with pytest.raises(
        Fault, match=rf"^{re.escape(str(path))}: [^\n]*(is damaged|holds other weights)[^\n]*$"
    ):
        state.read(path, state.digest(kept))


def test_weights_of_another_card_are_refused(tmp_path: Path) -> None:
    """One file of each of two runs is no model."""
    state.write(tmp_path / "weights.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(
        Fault, match=r"holds other weights than those that the model\.json beside it describes"
    ):
        state.read(tmp_path / "weights.safetensors", CARD.weights_digest)


def test_new_weights_replace_those_of_an_earlier_version(tmp_path: Path) -> None:
    """A folder never holds two models."""
    files = RunFiles(tmp_path)
    files.old_weights.touch()
    state.keep(files, kept := {"a": torch.zeros(1)}, replace(CARD, weights_digest=state.digest(kept)))
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "model.json"}


KILLED = """
import mmap, os, sys
from dataclasses import replace
from pathlib import Path
import torch
from sweeper.card import Card
from sweeper.record.run_files import RunFiles
from sweeper.training import state
from tests.test_card import CARD

files, far = RunFiles(Path(sys.argv[1])), 10**6
with open(sys.argv[2], "r+b") as file:
    counter = mmap.mmap(file.fileno(), 8)
files.mark()
for at in range(1, 1000):
    kept = {"a": torch.full((1000,), float(at))}
    child = os.fork()
    if child == 0:
        os.setsid()
        counter[:] = (far - at).to_bytes(8, "little")
        state.keep(files, kept, replace(CARD, weights_digest=state.digest(kept)))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if files.card.exists():
        state.read(files.weights, Card.read(files.card).weights_digest)
    if code == 0:
        print(at - 1, "kills")
        break
"""


@pytest.mark.slow
def test_a_kill_leaves_no_card_beside_other_weights(tmp_path: Path) -> None:
    """At each file operation with which a model takes the place of another."""
    folder, library = tmp_path / "run", compile_shim(tmp_path)
    folder.mkdir()
    shim = Shim(folder, library)
    done = program.run(Path.cwd(), "-c", KILLED, str(folder), str(shim.counter), env=shim.env(10**6))
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 6
