"""torchvision's datasets: read from files as torchvision keeps them, downloaded from a server of the test."""

from __future__ import annotations

import gc
import gzip
import hashlib
import os
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torchvision.datasets as sets
from numpy.typing import NDArray

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import cache, decode, images
from sweeper.training.dataset import TEST, TO_SPLIT
from tests.program import run

N_TRAIN, N_TEST = 60, 20
MNIST_LIKE = [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100"]
FOLDERS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


def idx(values: NDArray[np.uint8]) -> bytes:
    """MNIST's file format: http://yann.lecun.com/exdb/mnist/ says how it is made."""
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def write_mnist(root: Path, folder: str) -> None:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        pixels = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        pixels[:, 0, 0] = labels
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, n_classes, key = {
        "cifar10": (sets.CIFAR10, 10, "labels"),
        "cifar100": (sets.CIFAR100, 100, "fine_labels"),
    }[name]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for files in (kind.train_list, kind.test_list):
        for number, (file, _) in enumerate(files):
            labels = list(range(n_classes))
            pixels = np.random.default_rng(number).integers(0, 256, (n_classes, 3, 32, 32), dtype=np.uint8)
            pixels[:, :, 0, 0] = np.array(labels)[:, None] + [0, 1, 2]
            batch = {"data": pixels.reshape(n_classes, -1), key: labels}
            (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    classes = [f"class {i}" for i in range(n_classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: classes}))
    expect_checksums(kind, folder, monkeypatch)


def expect_checksums(kind: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torchvision reads CIFAR's pickles only where their checksums are the published ones. Those of the whole
    # dataset cannot be had by small files, so torchvision is told these files' own.
    for files in ("train_list", "test_list"):
        known = [[name, md5(folder / name)] for name, _ in getattr(kind, files)]
        monkeypatch.setattr(kind, files, known)
    meta = kind.meta | {"md5": md5(folder / kind.meta["filename"])}
    monkeypatch.setattr(kind, "meta", meta)


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def write(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("cifar"):
        write_cifar(root, name, monkeypatch)
    else:
        write_mnist(root, FOLDERS[name])


@pytest.mark.parametrize(("name", "folder"), MNIST_LIKE)
def test_mnist_and_fashion_mnist(tmp_path: Path, name: str, folder: str) -> None:
    """Grey images of 28 × 28 pixels, each with its label; the test images are the test part."""
    write_mnist(tmp_path, folder)
    found = images.read(Dataset(name=name, root=str(tmp_path)))
    assert found.pixels.shape == (N_TRAIN + N_TEST, 28, 28, 1)
    assert found.pixels[:, 0, 0, 0].tolist() == found.labels.tolist()
    assert (found.pixels.dtype, found.labels.dtype) == (np.uint8, np.int64)
    assert found.classes == tuple(getattr(sets, folder).classes)
    assert found.part is not None
    assert found.part.tolist() == [TO_SPLIT] * N_TRAIN + [TEST] * N_TEST


@pytest.mark.parametrize(("name", "n_classes", "n_train"), [("cifar10", 10, 50), ("cifar100", 100, 100)])
def test_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_classes: int, n_train: int
) -> None:
    """Colour images of 32 × 32 pixels, channels last, with the classes of their own list of names."""
    write_cifar(tmp_path, name, monkeypatch)
    found = images.read(Dataset(name=name, root=str(tmp_path)))
    assert found.pixels.shape == (n_train + n_classes, 32, 32, 3)
    assert found.pixels.flags.c_contiguous
    np.testing.assert_array_equal(found.pixels[:, 0, 0], found.labels[:, None] + [0, 1, 2])
    assert found.classes == tuple(f"class {i}" for i in range(n_classes))
    assert found.part is not None
    assert np.count_nonzero(found.part == TEST) == n_classes


def test_validation_is_split_from_training_images(tmp_path: Path) -> None:
    """``val_fraction`` divides torchvision's training images; its test images stay all the test there is."""
    write_mnist(tmp_path, "MNIST")
    dataset = Dataset(name="mnist", root=str(tmp_path))
    train, val, test = images.split(images.read(dataset), dataset)
    assert [len(train), len(val), len(test)] == [50, 10, N_TEST]
    assert test.tolist() == list(range(N_TRAIN, N_TRAIN + N_TEST))


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("cifar10", 3)])
def test_image_size_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int) -> None:
    """Another ``image_size`` scales the images and leaves labels and parts."""
    write(tmp_path, name, monkeypatch)
    plain = images.read(Dataset(name=name, root=str(tmp_path)))
    scaled = images.read(Dataset(name=name, root=str(tmp_path), image_size=16))
    assert scaled.pixels.shape == (len(plain.pixels), 16, 16, channels)
    np.testing.assert_allclose(scaled.pixels.mean((1, 2, 3)), plain.pixels.mean((1, 2, 3)), atol=6)
    assert scaled.labels.tolist() == plain.labels.tolist()
    assert scaled.part is not None


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_large_images_are_scaled_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """What becomes large is mapped from the cache, channel by channel; without room there it is in memory."""
    write(tmp_path, name, monkeypatch)
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    dataset = Dataset(name=name, root=str(tmp_path), image_size=12, margin=1.25)
    plain = images.read(dataset).pixels
    assert plain.shape[1] == 15
    assert cache.entries() == []
    monkeypatch.setattr(decode, "COPIED_BYTES", plain.nbytes)
    for _ in range(2):
        found = images.read(dataset).pixels
        assert isinstance(found, np.memmap)
        assert found.transpose(0, 3, 1, 2).flags.c_contiguous
        np.testing.assert_array_equal(found, plain)
    (entry,) = cache.entries()
    assert entry.about == f"{len(plain)} images of {name} at 15 × 15"
    cache.clear()
    monkeypatch.setenv("SWEEPER_CACHE_GB", "0")
    np.testing.assert_array_equal(images.read(dataset).pixels, plain)
    assert cache.entries() == []
    assert f"images of {name} at 15 × 15: not kept on disk" in caplog.text


def test_other_images_are_scaled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pixel in the set's files is another set, and another size is another too."""
    write_mnist(tmp_path, "MNIST")
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode, "COPIED_BYTES", 0)
    dataset = Dataset(name="mnist", root=str(tmp_path), image_size=56)
    before = images.read(dataset).pixels
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    after = images.read(dataset).pixels
    assert after[-1, -1, -1] == 7
    np.testing.assert_array_equal(before[:-1], after[:-1])
    images.read(replace(dataset, image_size=57))
    assert len(cache.entries()) == 3


@pytest.mark.parametrize("name", NAMES)
def test_absent_set_is_an_error_with_a_remedy(tmp_path: Path, name: str) -> None:
    """Without the files and without ``download`` one line says what to write, and no folder appears."""
    with pytest.raises(BadInput, match=rf"dataset\.root=.*: {name} is not there; .*download=true") as caught:
        images.read(Dataset(name=name, root=str(tmp_path / "none")))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_absent_set_needs_no_torch(tmp_path: Path) -> None:
    """That nothing is there is said without importing torch."""
    code = (
        "import sys; from sweeper.training import images; from sweeper.schema import Dataset\n"
        f"try: images.read(Dataset(name='mnist', root={str(tmp_path)!r}))\n"
        "except images.BadInput: assert 'torch' not in sys.modules\n"
        "else: sys.exit('it was read')"
    )
    done = run(tmp_path, "-c", code, limit_s=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage"])
def test_damaged_files_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    """A file that is cut off, lost or other than published is an error on ``dataset.root``."""
    write(tmp_path, name, monkeypatch)
    file = sorted(path for path in tmp_path.rglob("*") if path.is_file())[-1]
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    else:
        file.write_bytes(b"none of this")
    with pytest.raises(BadInput, match=rf"dataset\.root=.*{name} is damaged or incomplete"):
        images.read(Dataset(name=name, root=str(tmp_path)))


@pytest.mark.parametrize("labels", [np.arange(N_TRAIN - 1) % 10, np.arange(N_TRAIN) % 12, np.zeros(N_TRAIN)])
def test_labels_that_do_not_fit_are_an_error(tmp_path: Path, labels: NDArray[np.int64]) -> None:
    """Too few labels, unknown ones or ones that never occur are noticed, though torchvision reads them."""
    write_mnist(tmp_path, "MNIST")
    for part, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        content = idx(labels[: n if part == "t10k" else None].astype(np.uint8))
        (tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(BadInput, match=r"mnist is damaged or incomplete"):
        images.read(Dataset(name="mnist", root=str(tmp_path)))


@pytest.mark.parametrize("name", NAMES)
def test_stamp_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file written anew changes the stamp; looking does not."""
    write(tmp_path, name, monkeypatch)
    dataset = Dataset(name=name, root=str(tmp_path))
    first = images.stamp(dataset)
    assert images.stamp(dataset) == first != ""
    os.utime(next(path for path in tmp_path.rglob("*") if path.is_file()), ns=(1, 1))
    assert images.stamp(dataset) != first


# --------------------------------------------------------------------------------------------- download


class Quiet(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    """For which files."""

    def log_message(self, *_: object) -> None:
        """The tests' output is no log."""
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL at which it can be downloaded from."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()  # what torchvision left open goes before the next test, where it would be a warning


def serve(folder: Path, url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the archives there, and tell torchvision where they are and their checksums."""
    write(folder / "plain", name, monkeypatch)
    if name == "mnist":
        known = []
        for file in sorted((folder / "plain" / "MNIST" / "raw").iterdir()):
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            known.append((f"{file.name}.gz", md5(folder / f"{file.name}.gz")))
        monkeypatch.setattr(sets.MNIST, "resources", known)
        monkeypatch.setattr(sets.MNIST, "mirrors", [url])
    else:
        archive = folder / sets.CIFAR10.filename
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder / "plain" / sets.CIFAR10.base_folder, sets.CIFAR10.base_folder)
        monkeypatch.setattr(sets.CIFAR10, "url", url + sets.CIFAR10.filename)
        monkeypatch.setattr(sets.CIFAR10, "tgz_md5", md5(archive))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[Path, str], name: str
) -> None:
    """What is downloaded is read, lies in ``dataset.root`` alone, and is not downloaded again."""
    serve(*served, name, monkeypatch)
    root = tmp_path / "new" / "data"
    found = images.read(Dataset(name=name, root=str(root), download=True))
    assert [path.name for path in root.iterdir()] == [FOLDERS[name]]
    assert list(root.rglob("*.gz")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"new", "served"}
    for file in served[0].glob("*.gz"):
        file.unlink()
    for download in (True, False):
        again = images.read(Dataset(name=name, root=str(root), download=download))
        assert images.fingerprint(again) == images.fingerprint(found)


def test_several_that_want_a_dataset_download_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[Path, str]
) -> None:
    """Jobs of one machine that start together: one downloads, the others wait for it."""
    serve(*served, "mnist", monkeypatch)
    asked = []
    for n in (1, 3):
        Quiet.asked.clear()
        dataset = Dataset(name="mnist", root=str(tmp_path / f"data{n}"), download=True)
        with ThreadPoolExecutor(n) as jobs:
            found = list(jobs.map(images.read, [dataset] * n))
        assert [len(each.labels) for each in found] == [N_TRAIN + N_TEST] * n
        asked.append(list(Quiet.asked))
    assert asked[0] == asked[1]


def test_download_repairs_damaged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[Path, str]
) -> None:
    """``download`` replaces files that cannot be read."""
    serve(*served, "mnist", monkeypatch)
    write_mnist(tmp_path / "data", "MNIST")
    (tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"garbage")
    found = images.read(Dataset(name="mnist", root=str(tmp_path / "data"), download=True))
    assert len(found.labels) == N_TRAIN + N_TEST


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_archives_that_are_there_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[Path, str], name: str
) -> None:
    """Archives downloaded by hand serve where torchvision looks for them, and stay."""
    serve(*served, name, monkeypatch)
    place = tmp_path / "data" / ("MNIST/raw" if name == "mnist" else "")
    place.mkdir(parents=True)
    for file in served[0].glob("*.gz"):
        file.rename(place / file.name)
    assert len(images.read(Dataset(name=name, root=str(tmp_path / "data"), download=True)).labels) > 0
    assert list(place.glob("*.gz")) != []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision leaves a server's 404 open
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("trouble", ["offline", "absent", "broken"])
def test_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    served: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    name: str,
    trouble: str,
) -> None:
    """No network, no such file or a damaged one: an error on ``dataset.download``, and nothing is left."""
    folder, url = served
    serve(folder, url, name, monkeypatch)
    if trouble == "offline":
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setattr(sets.MNIST, "mirrors", [nowhere])
        monkeypatch.setattr(sets.CIFAR10, "url", nowhere + sets.CIFAR10.filename)
    for file in sorted(folder.glob("*.gz"))[-1:]:
        if trouble == "absent":
            file.unlink()
        elif trouble == "broken":
            file.write_bytes(file.read_bytes()[:-9])
    cause = {"offline": "refused", "absent": "404", "broken": "corrupted"}[trouble]
    with pytest.raises(BadInput, match=rf"download=True: {name} cannot be downloaded: .*{cause}") as caught:
        images.read(Dataset(name=name, root=str(tmp_path / "data"), download=True))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
