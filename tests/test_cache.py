"""What is kept on disk for all processes of the machine: arrays, and images decoded once."""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sweeper.__main__ import main
from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import cache, data, images
from sweeper.training.data import Rows, load
from tests.conftest import mostly_slow
from tests.device import CPU
from tests.pictures import write_classes, write_picture
from tests.program import Terminal, run
from tests.shim import Shim, compile_shim

MARGINS: list[dict[str, Any]] = [{"margin": 1.5}, {}, {"image_size": 12}]
"""Of photos seen at 8, 8 and 12 pixels."""

Builder = subprocess.Popen[bytes]

BUILDER = """
import os, sys
from sweeper.training import cache

def fill(values):
    with open("fills", "a") as fills:
        fills.write("x")
    values[:2] = 7
    print("filling", flush=True)
    sys.stdin.readline()
    values[:] = 7

print("asking", flush=True)
found = cache.array("kind", "key", (4, 5), "float32", fill, "four fives")
print(found.sum(), found.flags.writeable, flush=True)
"""
"""Says when it fills, and goes on when it is told."""

CROWD = """
import os
from sweeper.training import cache

def fill(values):
    with open("fills", "a") as fills:
        fills.write("x")
    values[:] = 7

def ask():
    os.close(end)
    os.read(begin, 1)  # until all are there
    found = cache.array("kind", "key", (4, 5), "float32", fill, "four fives")
    return 0 if found.sum() == 140 and not found.flags.writeable else 1

begin, end = os.pipe()
pids = [os.fork() or os._exit(ask()) for _ in range(16)]
os.close(end)
print({os.waitpid(pid, 0)[1] for pid in pids})
"""

READER = """
import json, torch
from sweeper.schema import Dataset
from sweeper.training import data, decode

decoded = []

def count(name):
    function = getattr(decode, name)

    def counted(images, *rest):
        decoded.append(len(images))
        return function(images, *rest)

    setattr(decode, name, counted)

def written_bytes():  # memory that no other process can share
    with open("/proc/self/smaps_rollup") as lines:
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

count("_decode")
count("_scale")
data.load(Dataset(), torch.device("cpu"))
before = written_bytes()
loaded = data.load(Dataset(**DATASET), torch.device("cpu"))
total = sum(int(loaded.train_x[i : i + 1].numpy().sum()) for i in range(len(loaded.train_x)))
grown = written_bytes() - before
print(json.dumps({"decoded": decoded, "grown": grown, "fingerprint": loaded.fingerprint, "total": total}))
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builders(tmp_path: Path) -> Iterator[list[Builder]]:
    """Two processes that want the same entry."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        for _ in range(2)
    ]
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def hosts(tmp_path: Path, own_folder: Path) -> Iterator[list[Builder]]:
    """The same on two machines that share the folder, but no lock in it."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another host name needs unshare and root")
    get()
    cache.clear()
    locks = list(own_folder.rglob("*.lock"))
    started = []
    for name in ("first", "second"):
        steps = [f"hostname {name}"]
        for i, path in enumerate(locks):
            own = tmp_path / f"{name}-{i}"
            own.touch()
            steps.append(f"mount --bind {own} {path}")
        command = " && ".join([*steps, f'exec {sys.executable} -c "$0"'])
        started.append(
            subprocess.Popen(
                ["unshare", "--mount", "--uts", "sh", "-c", command, BUILDER],
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        )
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    return pictures(tmp_path / "photos", n=6)


def pictures(root: Path, n: int, size: int = 8, **settings: Any) -> Dataset:
    write_classes(root, {"cat": n, "dog": n}, size=(11, 9))
    return Dataset(name="image_folder", path=str(root), image_size=size, **settings)


def sevens(values: NDArray[Any]) -> None:
    values[:] = 7


def get(key: str = "key", shape: tuple[int, ...] = (4, 5), fill: Any = sevens) -> NDArray[Any] | None:
    return cache.array("kind", key, shape, "float32", fill, "four fives")


def never(values: NDArray[Any]) -> None:
    raise AssertionError("it is there already")


def line(process: Builder) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def go_on(process: Builder) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


def who_fills(builders: list[Builder]) -> tuple[Builder, Builder]:
    """The builder that has the lock, and the one that waits."""
    assert [line(process) for process in builders] == ["asking", "asking"]
    ready, _, _ = select.select([process.stdout for process in builders if process.stdout], [], [], 60)
    first = next(process for process in builders if process.stdout in ready)
    assert line(first) == "filling"
    return first, next(process for process in builders if process is not first)


# ---------------------------------------------------------------------------------------------- arrays


def test_an_array_is_filled_once_and_then_mapped() -> None:
    """The second time nothing is computed, and nobody can write to what all share."""
    first, second = get(), get(fill=never)
    assert first is not None
    assert isinstance(second, np.memmap)
    np.testing.assert_array_equal(first, np.full((4, 5), 7, dtype=np.float32))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="read-only"):
        second[0] = 1


def test_two_processes_build_once(builders: list[Builder], tmp_path: Path) -> None:
    """Who comes second waits, and gets what the first has built."""
    first, second = who_fills(builders)
    go_on(first)
    assert line(first) == line(second) == "140.0 False"
    assert (tmp_path / "fills").read_text() == "x"


@pytest.mark.parametrize("has_locks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_of_sixteen_that_ask_at_once_one_builds(tmp_path: Path, own_folder: Path, has_locks: bool) -> None:
    """However many jobs start in the same second, also where the file system refuses locks."""
    env = {} if has_locks else Shim(own_folder, compile_shim(tmp_path)).env(at=1, error=errno.ENOLCK)
    done = run(tmp_path, "-c", CROWD, env=env)
    assert done.stdout == "{0}\n", done.stderr
    assert (tmp_path / "fills").read_text() == "x"
    assert {path.suffix for path in own_folder.rglob("*.*")} == {".json", ".lock", ".npy"}


@pytest.mark.slow
def test_two_machines_build_in_files_of_their_own(hosts: list[Builder], own_folder: Path) -> None:
    """Where locks end at the machine both build; what the first has put there stays, and both get it."""
    assert [line(process) for process in hosts] == ["asking", "asking"]
    assert [line(process) for process in hosts] == ["filling", "filling"]
    parts = sorted(own_folder.rglob("*.part"))
    assert [part.name.split(".")[1].partition("-")[0] for part in parts] == ["first", "second"]
    inodes = []
    for process in hosts:
        go_on(process)
        assert line(process) == "140.0 False"
        inodes.append([path.stat().st_ino for path in own_folder.rglob("*.npy")])
    assert inodes[0] == inodes[1]
    assert list(own_folder.rglob("*.part")) == []


@pytest.mark.slow
def test_what_a_dead_machine_has_begun_is_found_in_the_end(hosts: list[Builder], own_folder: Path) -> None:
    """Nobody removes what another machine may still build, until it has not changed for a day."""
    for process in hosts:
        assert [line(process), line(process)] == ["asking", "filling"]
        process.kill()
        process.wait()
    parts = list(own_folder.rglob("*.part"))
    assert len(parts) == 2
    cache.clear()
    get("another")
    assert sorted(own_folder.rglob("*.part")) == sorted(parts)
    os.utime(parts[0], (1, 1))
    get("and another")
    assert list(own_folder.rglob("*.part")) == parts[1:]


def test_a_killed_builder_leaves_nothing_whole(
    builders: list[Builder], tmp_path: Path, own_folder: Path
) -> None:
    """kill -9 half-way: nothing looks finished, and who waited builds it."""
    first, second = who_fills(builders)
    first.kill()
    first.wait()
    assert line(second) == "filling"
    assert list(own_folder.rglob("*.npy")) == []
    go_on(second)
    assert line(second) == "140.0 False"
    assert (tmp_path / "fills").read_text() == "xx"
    assert list(own_folder.rglob("*.part")) == []


def test_what_a_killed_builder_leaves_is_listed_and_cleared(
    builders: list[Builder], own_folder: Path
) -> None:
    """The unfinished file takes room: it can be seen, and removed."""
    for process in reversed(who_fills(builders)):  # else who waits would begin, and remove it
        process.kill()
        process.wait()
    assert [entry.about for entry in cache.entries()] == ["unfinished"]
    assert cache.clear() > 0
    assert [path.suffix for path in own_folder.rglob("*.*")] == [".lock", ".lock"]


@pytest.mark.parametrize("name", ["room.lock", "kind/{key}.npy"])
def test_what_others_left_in_the_folder_stops_nothing(
    own_folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Where a file of the cache cannot be taken, the array is not kept, and the line says so."""
    get()
    (entry,) = cache.entries()
    cache.clear()
    taken = own_folder / name.format(key=entry.path.stem)
    taken.unlink(missing_ok=True)
    taken.mkdir()
    assert get() is None
    assert "four fives: not kept on disk: " in caplog.text


def test_an_error_while_filling_passes_through(own_folder: Path) -> None:
    """Whatever breaks while an array is computed is raised as it is, and nothing stays."""

    def broken(values: NDArray[Any]) -> None:
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        get(fill=broken)
    assert cache.entries() == []
    assert get() is not None


def test_clearing_disturbs_nobody_who_builds(own_folder: Path) -> None:
    """An array that is cleared while it is filled is given to who filled it, and then forgotten."""

    def cleared(values: NDArray[Any]) -> None:
        values[:2] = 7
        assert cache.clear() > 0
        values[2:] = 7

    array = get(fill=cleared)
    assert array is not None
    assert array.sum() == 140
    assert not array.flags.writeable
    assert cache.entries() == []
    cache.clear()
    assert {path.suffix for path in own_folder.rglob("*.*")} == {".lock"}


@pytest.mark.parametrize("n_bytes", [0, 5, 130, 200])
def test_a_damaged_array_is_built_again(n_bytes: int) -> None:
    """A file that was cut off, in its header or later, is noticed."""
    get()
    (entry,) = cache.entries()
    os.truncate(entry.path, n_bytes)
    again = get()
    assert again is not None
    assert again.sum() == 140


@pytest.mark.parametrize("shape", [(5, 4), (4, 6)])
def test_another_shape_under_the_same_key_is_built_again(shape: tuple[int, int]) -> None:
    """What is given always has the shape that was asked for."""
    get()
    again = get(shape=shape)
    assert again is not None
    assert again.shape == shape


def test_no_room_is_said_with_a_way_out(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Beyond the limit there is no array, and the log names its size, the limit and how to make room."""
    monkeypatch.setenv("SWEEPER_CACHE_GB", "0.001")
    assert get(shape=(200, 1000)) is not None
    assert get("other", shape=(200, 1000), fill=never) is None
    assert "four fives: not kept on disk: it takes 0.0008 GB" in caplog.text
    assert "holds 0.0008 of at most 0.001 GB ($SWEEPER_CACHE_GB)" in caplog.text
    assert "sweeper cache --clear makes room, a higher $SWEEPER_CACHE_GB allows more" in caplog.text
    cache.clear()
    assert get("other", shape=(200, 1000)) is not None


def test_a_part_of_the_disk_stays_free(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """However high the limit, an array that the disk has no room for is not begun."""
    monkeypatch.setenv("SWEEPER_CACHE_GB", "1e9")
    assert get(shape=(10**9, 10**8), fill=never) is None
    assert "5% of the disk stay free" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Without a place for it there is no array, and the log says what to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "file" / "cache"))
    assert get(fill=never) is None
    assert "set $SWEEPER_CACHE" in caplog.text


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_must_be_a_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A limit that is none is refused in one line."""
    monkeypatch.setenv("SWEEPER_CACHE_GB", text)
    with pytest.raises(BadInput, match=rf"SWEEPER_CACHE_GB={text}: is not a size; write a number of GB"):
        get()


def test_the_folder_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """SWEEPER_CACHE, or else the user's folder for caches."""
    assert str(cache.folder()) == os.environ["SWEEPER_CACHE"]
    monkeypatch.delenv("SWEEPER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache.folder() == Path("/caches/sweeper")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.folder() == Path("/home/me/.cache/sweeper")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that the system does not know")
def test_a_user_without_a_home_is_told(tmp_path: Path) -> None:
    """As in some containers: the line names the variable that helps."""
    code = """
import os
from sweeper.training import cache
for name in ("HOME", "SWEEPER_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
os.setuid(54321)
try:
    cache.folder()
except cache.BadInput as error:
    print(error)
"""
    remedy = "write SWEEPER_CACHE=FOLDER before the command"
    assert run(tmp_path, "-c", code).stdout == f"HOME=null: is not set, and the user has no home; {remedy}\n"


def test_notes_stay_beside_their_array() -> None:
    """What was found out of an array is computed once, and again for the array that comes after it."""
    array = get()
    assert array is not None
    assert cache.remembered(array, "sum", lambda: "140") == "140"
    mapped = get()
    assert mapped is not None
    assert cache.remembered(mapped, "sum", lambda: "asked again") == "140"
    cache.clear()
    again = get()
    assert again is not None
    assert cache.remembered(again, "sum", lambda: "asked again") == "asked again"
    assert cache.remembered(np.zeros(3), "sum", lambda: "0") == "0"


# ------------------------------------------------------------------------------------------ the command


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweeper", "cache", *arguments])
    with pytest.raises(SystemExit, match="0"):
        main()


def test_the_list_says_what_is_there(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Kind, what it is, size, and the whole of it; the one used last comes first."""
    get(shape=(1000, 1000))
    cache.array("images", "key", (3,), "uint8", sevens, "photos[0]")
    os.utime(cache.entries()[1].path, (1, 1))
    command(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kind", "what", "size", "last", "used"]
    assert lines[1].split()[:4] == ["images", "photos[0]", "0.0", "MB"]
    assert lines[2].split()[:5] == ["kind", "four", "fives", "4.0", "MB"]
    assert lines[3] == f"4.0 MB of at most 20.0 GB in {cache.folder()}"
    assert lines[4] == "Remove it: sweeper cache --clear"


def test_clear_says_how_much_it_freed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Everything goes, what somebody has mapped stays readable, and an empty cache is said to be one."""
    mapped = get(shape=(1000, 1000))
    command(monkeypatch, "--clear")
    assert capsys.readouterr().out == f"4.0 MB freed: 1 entry in {cache.folder()}\n"
    assert mapped is not None
    assert mapped.sum() == 7_000_000
    command(monkeypatch)
    assert capsys.readouterr().out == f"Nothing is kept in {cache.folder()} (at most 20.0 GB).\n"
    command(monkeypatch, "--clear")
    assert capsys.readouterr().out == f"Nothing is kept in {cache.folder()}.\n"


# ----------------------------------------------------------------------------------------------- images


def without_cache(dataset: Dataset) -> images.Images:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_CACHE", "/dev/null/cache")
        return images.read(dataset)


def test_decoded_images_are_those_of_the_files(photos: Dataset) -> None:
    """Built, mapped, or in memory for lack of room: the same pixels, labels, statistics and fingerprint."""
    built, mapped, plain = images.read(photos), images.read(photos), without_cache(photos)
    assert isinstance(mapped.pixels, np.memmap)
    assert not isinstance(plain.pixels, np.memmap)
    for found in (built, mapped):
        np.testing.assert_array_equal(found.pixels, plain.pixels)
        np.testing.assert_array_equal(found.labels, plain.labels)
    for _ in range(2):  # the second time it is remembered
        assert images.fingerprint(mapped) == images.fingerprint(plain)
        some = np.arange(7)
        assert images.statistics("data", mapped.pixels, some) == images.statistics("data", plain.pixels[:7])


@pytest.mark.parametrize("how", ["time", "size"])
def test_a_changed_file_is_decoded_again(photos: Dataset, how: str) -> None:
    """Another time or another size of one file is another set of images."""
    file = Path(photos.path or "", "cat", "0.png")
    before, found = images.read(photos).pixels, file.stat()
    write_picture(file, (1, 2, 3), size=(9, 11))
    if how == "size":
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    else:
        file.write_bytes(file.read_bytes().ljust(found.st_size, b"\0")[: found.st_size])
        os.utime(file, ns=(1, 1))
    after = images.read(photos).pixels
    assert after[0, 0, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(before[1:], after[1:])
    assert len(cache.entries()) == 2


def test_images_with_a_margin_are_kept_beside_those_without(photos: Dataset) -> None:
    """Another margin is another size on disk; the same size on disk serves every margin that leads to it."""
    margin, plain, large = (images.read(replace(photos, **given)) for given in MARGINS)
    assert [found.pixels.shape[1] for found in (margin, plain, large)] == [12, 8, 12]
    assert [found.side for found in (margin, plain, large)] == [8, 8, 12]
    assert len(cache.entries()) == 2
    np.testing.assert_array_equal(margin.pixels, large.pixels)


def test_unreadable_files_are_remembered(photos: Dataset, caplog: Any) -> None:
    """Files left out are left out of the kept images too, and named or refused each time."""
    torn = Path(photos.path or "", "cat", "2.png")
    torn.write_bytes(b"\x89PNG no more")
    with pytest.raises(BadInput, match=r"1 file is not a readable image: .*2\.png"):
        images.read(photos)
    assert cache.entries() == []
    photos.skip_unreadable = True
    plain = without_cache(photos)
    for _ in range(2):
        caplog.clear()
        found = images.read(photos)
        assert isinstance(found.pixels, np.memmap)
        np.testing.assert_array_equal(found.pixels, plain.pixels)
        assert found.files == plain.files
        assert len(found.pixels) == 11
        assert "2.png" in caplog.text
    photos.skip_unreadable = False
    with pytest.raises(BadInput, match=r"1 file is not a readable image: .*2\.png"):
        images.read(photos)


def read_in_a_process(dataset: Dataset, tmp_path: Path) -> dict[str, Any]:
    settings = {"name": dataset.name, "path": dataset.path, "image_size": dataset.image_size}
    done = run(tmp_path, "-c", READER.replace("**DATASET", f"**{settings!r}"), limit_s=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "n"), mostly_slow([("image_folder", 100), ("digits", 1797)], 2))
@pytest.mark.slow
def test_a_second_process_decodes_nothing_and_copies_nothing(tmp_path: Path, name: str, n: int) -> None:
    """100 MB of images, decoded or scaled: made once, and a worker's own memory stays free of them."""
    large = Dataset(image_size=256)  # 118 MB
    if name == "image_folder":
        large = pictures(tmp_path / "large", n=50, size=592)  # 105 MB
    first, second = read_in_a_process(large, tmp_path), read_in_a_process(large, tmp_path)
    assert (first["decoded"], second["decoded"]) == ([n], [])
    assert (first["fingerprint"], first["total"]) == (second["fingerprint"], second["total"])
    assert second["grown"] < 30e6, second


def test_rows_of_large_sets_are_those_of_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images left on disk are selected and cut as tensors are, in every part."""
    small = load(pictures(tmp_path / "a", n=20), CPU)
    monkeypatch.setattr(data, "COPIED_BYTES", 0)
    large = load(pictures(tmp_path / "b", n=20), CPU)
    assert small.fingerprint == large.fingerprint
    for name in ("train", "val", "test"):
        (x, y), (rows, labels) = small.part(name), large.part(name)
        assert isinstance(x, torch.Tensor)
        assert isinstance(rows, Rows)
        assert (rows.shape, len(rows), rows.device) == (x.shape, len(x), CPU)
        assert torch.equal(rows[1:3], x[1:3])
        assert torch.equal(rows[:], x)
        chosen = torch.tensor([3, 0, 3])
        assert torch.equal(rows.index_select(0, chosen), x.index_select(0, chosen))
        assert rows[:].is_contiguous()
        assert torch.equal(labels, y)


@pytest.mark.parametrize("what", ["decoding", "scaling"])
def test_making_many_images_shows_a_bar_on_a_terminal(photos: Dataset, tmp_path: Path, what: str) -> None:
    """Whoever waits sees how far it is; what is there already is quiet."""
    dataset = photos if what == "decoding" else Dataset(image_size=16)
    program = (
        "from sweeper.schema import Dataset; from sweeper.training import decode, images\n"
        f"decode.MANY = 3; decode.COPIED_BYTES = 0; images.read({dataset!r})"
    )
    first, second = (Terminal(tmp_path, "-c", program, columns=80).finish() for _ in range(2))
    assert any(what in line and "100%" in line for line in first), first
    assert "".join(second) == ""


def test_the_log_is_quiet_where_all_goes_well(photos: Dataset, caplog: Any) -> None:
    """Decoding and keeping images says nothing."""
    with caplog.at_level(logging.INFO):
        images.read(photos)
    assert caplog.text == ""
