"""Files of weights as people have them, and files that are none."""

from __future__ import annotations

import argparse
import gzip
import logging
import pickle
import types
import zipfile
from collections import OrderedDict, defaultdict, deque
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from sweeper.errors import BadInput
from sweeper.schema import Model
from sweeper.training.backbone import is_path
from sweeper.training.checkpoint import read
from sweeper.training.model import build
from sweeper.training.weights import check, load

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """The weights of a small network of ours."""
    torch.manual_seed(3)
    return dict(build(Model(), 1, 8, 10).state_dict())


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def begun(path: Path) -> State:
    """The body of a network of other classes that begins with the weights of a file."""
    settings = Model(weights=str(path))
    check(settings, 1, 8, 3)
    network = build(settings, 1, 8, 3)
    load(network, settings, 8)
    return body(dict(network.state_dict()))


def forms(state: State) -> dict[str, Any]:
    """What programs save, of one network's weights."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))])
    plain = {
        "best": np.float64(3.5),
        "curve": np.zeros(3),
        "hyper_parameters": argparse.Namespace(lr=0.1, root=Path("data")),
        "seen": defaultdict(list, {"a": [1]}),
        "last": deque([1, 2]),
        "took": timedelta(seconds=3),
        "more": types.SimpleNamespace(a=1),
    }
    wrappers = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "params", "weights")
    prefixes = ("module.", "model.", "_orig_mod.", "backbone.", "encoder.", "student.backbone.", "a.b.c.")
    return {
        **{f"wrapped in {key}": {key: state, "epoch": 3, "lr": 0.1, "best": None} for key in wrappers},
        **{f"under {prefix}": under(prefix, state) for prefix in prefixes},
        **{f"wrapped, under {prefix}": {"state_dict": under(prefix, state)} for prefix in prefixes},
        "nested": {"checkpoint": {"model": {"state_dict": state}}},
        "with an optimizer": {"model": state, "optimizer": optimizer.state_dict(), "epoch": 1},
        "Lightning": {"state_dict": under("model.", state), "hyper_parameters": {"lr": 0.1}, **plain},
        "with a criterion": state | {"criterion.weight": torch.ones(10), "queue": torch.ones(4, 5)},
        "with a teacher": under("student.", state) | under("teacher.", other(state)),
        "compiled within": {
            name.replace("features.", "features._orig_mod."): tensor for name, tensor in state.items()
        },
        "parallel within": {
            name.replace("features.", "features.module."): tensor for name, tensor in state.items()
        },
        "without a head": body(state),
        "with another head": body(state) | {"classifier.1.weight": torch.ones(7, 128)},
        "parameters": OrderedDict((name, nn.Parameter(tensor)) for name, tensor in state.items()),
        "of a list": {"models": [state]},
    }


def test_every_form_gives_the_same_body(state: State, tmp_path: Path) -> None:
    """Wrapped, nested, under any prefix, beside settings and other parts: equal to the last bit."""
    for name, content in forms(state).items():
        for is_zip in (True, False):
            path = tmp_path / "weights.ckpt"
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
            found = begun(path)
            assert all(torch.equal(found[key], state[key]) for key in body(state)), (name, is_zip)


@pytest.mark.parametrize(
    "name", ["w.bin", "w.pth.tar", "w.ckpt", "w.tar", "w.safetensors", "w.pt", "epoch=3"]
)
def test_the_extension_says_nothing(name: str, state: State, tmp_path: Path) -> None:
    """torch's two formats and safetensors are told apart by what is in the file."""
    path = tmp_path / name
    for save in (
        lambda: torch.save(state, path),
        lambda: torch.save(state, path, _use_new_zipfile_serialization=False),
        lambda: save_file(state, path),
    ):
        save()
        assert torch.equal(begun(path)["features.0.weight"], state["features.0.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    """They are converted to that of the network."""
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "w.pt")
    found = begun(tmp_path / "w.pt")["features.0.weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, state["features.0.weight"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("names", "taken", "not_taken"),
    [
        (("model", "ema"), "ema", "model"),
        (("ema", "model"), "ema", "model"),
        (("state_dict", "state_dict_ema"), "state_dict_ema", "state_dict"),
        (("student", "teacher"), "student", "teacher"),
        (("encoder_q", "encoder_k"), "encoder_q", "encoder_k"),
    ],
)
def test_one_of_several_is_taken_and_told(
    names: tuple[str, str],
    taken: str,
    not_taken: str,
    state: State,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of equals the average, or else the first; the log names it, and what else there was."""
    torch.save({name: state if name == taken else other(state) for name in names}, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO):
        found = begun(tmp_path / "w.pt")
    assert torch.equal(found["features.0.weight"], state["features.0.weight"])
    assert f"{taken} is taken, not {not_taken}" in caplog.text


def test_the_one_that_fits_best_is_taken(state: State, tmp_path: Path) -> None:
    """An average that lacks some tensors gives way to the weights that have all."""
    part = dict(list(other(state).items())[:-3])
    torch.save({"ema": part, "model": state}, tmp_path / "w.pt")
    assert torch.equal(begun(tmp_path / "w.pt")["features.0.weight"], state["features.0.weight"])


def test_a_mismatch_names_both_sides(state: State, tmp_path: Path) -> None:
    """Where nothing fits, some names of the network and of the file; where shapes differ, both shapes."""
    torch.save({"conv.weight": torch.ones(4, 1, 3, 3), "fc.weight": torch.ones(2, 4)}, tmp_path / "w.pt")
    with pytest.raises(BadInput) as nothing:
        begun(tmp_path / "w.pt")
    assert "features.0.weight [16, 1, 3, 3] is missing" in nothing.value.reason
    assert "it has conv.weight [4, 1, 3, 3]" in nothing.value.reason
    torch.save(under("net.", dict(build(Model(filters=[8, 32]), 1, 8, 10).state_dict())), tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"\[8, 1, 3, 3\] there, \[16, 1, 3, 3\] in the network"):
        begun(tmp_path / "w.pt")


def test_a_deeper_network_is_refused(tmp_path: Path) -> None:
    """Weights of which the network would use the first layers alone are those of another."""
    deeper = build(Model(filters=[16, 32, 64], hidden_units=[]), 1, 8, 10)
    torch.save(deeper.state_dict(), tmp_path / "w.pt")
    settings = Model(filters=[16, 32], hidden_units=[], weights=str(tmp_path / "w.pt"))
    with pytest.raises(BadInput, match=r"features\.6\.weight \[64, 32, 3, 3\] has no place"):
        check(settings, 1, 8, 10)


class Settings:
    """A class of somebody's own."""


def no_weights(folder: Path, state: State) -> dict[str, tuple[Any, str]]:
    """By file name: its content, and what the line says of it."""
    folder.mkdir()
    torch.save(state, folder / "zip")
    torch.save(state, folder / "old", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safe")
    Image.new("RGB", (4, 4)).save(folder / "picture", "PNG")
    with zipfile.ZipFile(folder / "archive", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile(folder / "script", "w") as archive:  # torch warns of writing one
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"net/{name}", "3")
    np.savez(folder / "arrays.npz", a=np.ones(3))
    torch.save(nn.Linear(2, 2), folder / "module")
    torch.save({"state_dict": state, "config": Settings()}, folder / "own")
    torch.save(state, folder / "protocol", pickle_protocol=4)
    (folder / "pickle").write_bytes(pickle.dumps(state))
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {
        "cut.pt": (content["zip"][:5000], "is cut off"),
        "cut_old.pt": (content["old"][:5000], "is damaged"),
        "cut.safetensors": (content["safe"][:500], "is damaged"),
        "empty.pt": (b"", "is empty"),
        "page.pth": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        "pointer.bin": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        "text.pt": (b"hello there", "is text"),
        "picture.pt": (content["picture"], "is a picture"),
        "script.pt": (content["script"], "is a TorchScript archive"),
        "module.pt": (content["module"], r"is a whole pickled network \(torch.nn.modules.linear.Linear\)"),
        "own.pt": (content["own"], r"holds more than tensors.*: tests.test_checkpoint.Settings"),
        "protocol.pt": (content["protocol"], "pickle_protocol=4"),
        "weights.pkl": (content["pickle"], "is a pickle that torch.save has not written"),
        "arrays.npz": (content["arrays.npz"], "arrays of NumPy"),
        "archive.zip": (content["archive"], "is a zip archive"),
        "packed.pth.gz": (gzip.compress(content["zip"]), "is a packed file"),
        "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        "network.onnx": (b"\x08\x07\x12\x07pytorch", "is an ONNX file"),
        "model.ckpt.index": (bytes(99), "of TensorFlow"),
        "model.ckpt.data-00000-of-00001": (b"\x01\x02" * 99, "of TensorFlow"),
        "noise.bin": (b"\xfe\xff\x00\x01" * 99, "is no file that torch.save or safetensors has written"),
    }


def test_a_file_that_is_no_weights_is_one_line(state: State, tmp_path: Path) -> None:
    """It says what the file is, and what to do."""
    for name, (content, said) in no_weights(tmp_path / "made", state).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadInput, match=said) as refused:
            read(str(path))
        line = str(refused.value)
        assert line.startswith("model.weights=")
        assert "\n" not in line


def test_what_is_not_there_is_one_line(state: State, tmp_path: Path) -> None:
    """A missing file with the one that was meant, a folder with a file in it, a link to nowhere, a device."""
    torch.save(state, tmp_path / "best.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    for name, said in (
        ("bset.pth", r"there is no such file; did you mean .*best\.pth\?"),
        ("none/best.pth", "there is no folder"),
        ("", r"is a folder; write the path of a file in it, as .*best\.pth"),
        ("link.pth", r"there is no such file: the link points to .*gone\.pth"),
        ("x" * 300 + ".pth", r"cannot be read \(File name too long\)"),
    ):
        with pytest.raises(BadInput, match=said):
            read(str(tmp_path / name))
    with pytest.raises(BadInput, match="a device"):
        read("/dev/null")


def test_nothing_of_a_file_runs(state: State, tmp_path: Path) -> None:
    """Neither what a pickle calls, nor what is called for settings that are let in."""
    made = tmp_path / "made"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"import pathlib; pathlib.Path({str(made)!r}).mkdir()",)

    torch.save({"state_dict": state, "root": Harmful()}, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"holds more than tensors.*builtins\.exec"):
        read(str(tmp_path / "w.pt"))
    assert not made.exists()


def test_what_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there, or looks like a path; the names of libraries are none, and DEFAULT never is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch3").touch()
    (tmp_path / "DEFAULT").touch()
    for path in ("epoch3", "a/b", "~/w", "w.pt", "w.pth.tar", "w.ckpt", "w.bin", "W.PT", "model.h5", "w.zip"):
        assert is_path(path), path
    for name in (
        None,
        "DEFAULT",
        "IMAGENET1K_V2",
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.DEFAULT",
    ):
        assert not is_path(name), name
