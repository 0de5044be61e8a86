"""One image file: replaced, unreadable, deep or large, it is read rightly, or named with the reason."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sweeper.errors import BadInput
from sweeper.schema import LIMITS, Dataset
from sweeper.training import cache, decode, images, picture
from sweeper.training.decode import read_files
from tests.conftest import mostly_slow
from tests.pictures import write_picture
from tests.program import run

RED, BLUE = (200, 30, 30), (30, 30, 200)
SIDE = 8


def dataset(**settings: Any) -> Dataset:
    return Dataset(name="image_folder", path="here", image_size=SIDE, **settings)


def bitmap(file: Path, colour: tuple[int, int, int]) -> Path:
    """All of them have the same size on disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), colour).save(file)
    return file


def colour_of(file: Path) -> tuple[int, ...]:
    pixels, _ = read_files([file], dataset())
    return tuple(pixels[0, 0, 0].tolist())


# -------------------------------------------------------------------------------------------- replaced


def write_in_place(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


def swap(file: Path, other: Path) -> None:
    third = file.with_name("third")
    file.rename(third)
    other.rename(file)
    third.rename(other)


def copy_as_archives_do(file: Path, other: Path) -> None:
    shutil.copy2(other, file.with_name(".part"))
    file.with_name(".part").replace(file)


def unpack(file: Path, other: Path) -> None:
    packed = file.parent / "packed"
    packed.mkdir()
    shutil.copy2(other, packed / file.name)
    subprocess.run(["tar", "-cf", "all.tar", "-C", "packed", file.name], cwd=file.parent, check=True)
    subprocess.run(["tar", "-xf", "all.tar"], cwd=file.parent, check=True)


@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
@pytest.mark.parametrize(
    "replace",
    [write_in_place, lambda file, other: other.replace(file), swap, copy_as_archives_do, unpack],
    ids=["write", "rename", "swap", "cp -p", "tar -x"],
)
def test_a_replaced_file_is_decoded_again(
    tmp_path: Path, replace: Callable[[Path, Path], None], linked: bool
) -> None:
    """However it was replaced, and with size and times restored: the new pixels are read, and those of
    before where they were kept."""
    file, other = bitmap(tmp_path / "a.bmp", RED), bitmap(tmp_path / "b.bmp", BLUE)
    for each in (file, other):
        os.utime(each, ns=(10**18, 10**18))
    seen = file
    if linked:
        seen = tmp_path / "link.bmp"
        seen.symlink_to(file)
    assert colour_of(seen) == RED
    replace(file, other)
    os.utime(file, ns=(10**18, 10**18))
    assert colour_of(seen) == BLUE


def test_a_link_that_leads_elsewhere_is_another_file(tmp_path: Path) -> None:
    """Also of a folder above it."""
    bitmap(tmp_path / "old" / "a.bmp", RED)
    bitmap(tmp_path / "new" / "a.bmp", BLUE)
    for each in tmp_path.rglob("*.bmp"):
        os.utime(each, ns=(10**18, 10**18))
    (tmp_path / "now").symlink_to("old")
    assert colour_of(tmp_path / "now" / "a.bmp") == RED
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to("new")
    assert colour_of(tmp_path / "now" / "a.bmp") == BLUE


def test_a_file_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was read of the old file is kept for the new one."""
    file, see, n_seen = bitmap(tmp_path / "a.bmp", RED), picture.see, list[int]()

    def replaced(*arguments: Any) -> Any:
        seen = see(*arguments)
        if not n_seen:
            bitmap(file, BLUE)
        n_seen.append(1)
        return seen

    monkeypatch.setattr(picture, "see", replaced)
    assert colour_of(file) == BLUE
    assert len(n_seen) == 2


def test_a_file_that_never_rests_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to all the time is named."""
    file, see = bitmap(tmp_path / "a.bmp", RED), picture.see

    def replaced(*arguments: Any) -> Any:
        bitmap(file, BLUE)
        return see(*arguments)

    monkeypatch.setattr(picture, "see", replaced)
    with pytest.raises(BadInput, match=r"a\.bmp is written to while it is read; wait until it is whole"):
        colour_of(file)


# ------------------------------------------------------------------------------------------ unreadable


def loop(file: Path) -> None:
    file.symlink_to(file.name)


def listen(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))


def cut(file: Path) -> None:
    Image.effect_noise((90, 90), 50).save(file)
    file.write_bytes(file.read_bytes()[:-500])


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "link": (lambda file: file.symlink_to("nothing"), "a link to nothing"),
    "loop": (loop, "a link to itself"),
    "missing": (lambda file: None, "it is not there"),
    "folder": (lambda file: file.mkdir(), "a folder, not a file"),
    "pipe": (lambda file: os.mkfifo(file), "no file of pixels, but a pipe or a device"),
    "socket": (listen, "no file of pixels, but a pipe or a device"),
    "empty": (lambda file: file.touch(), "it is empty: 0 bytes"),
    "text": (lambda file: file.write_text("a letter"), "it is no picture"),
    "cut": (cut, "it is cut short"),
}


@pytest.mark.parametrize("kept", [True, False], ids=["on disk", "in memory"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, kind: str, kept: bool
) -> None:
    """In one line and in a person's words; with skip_unreadable it is left out, each time, in the same."""
    if not kept:
        monkeypatch.setenv("SWEEPER_CACHE", "/dev/null/cache")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make, why = UNREADABLE[kind]
    make(Path("x.png"))
    files = [tmp_path / "x.png", tmp_path / "good.png"]
    write_picture(files[1])
    with pytest.raises(BadInput) as caught:
        read_files(files, dataset())
    assert f"1 file is not a readable image: {tmp_path}/x.png ({why})" in caught.value.reason
    assert caught.value.remedy.endswith("write dataset.skip_unreadable=true to go on without")
    for _ in range(2):
        caplog.clear()
        pixels, readable = read_files(files, dataset(skip_unreadable=True))
        assert (len(pixels), readable.tolist()) == (1, [1])
        assert f"skipped: {tmp_path}/x.png ({why})" in caplog.text


POWERS = "-dac_override,-dac_read_search"
"""By which root reads and writes what it has no permission for."""


def as_a_person(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` of somebody who is bound by permissions."""
    command = [sys.executable, *arguments]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not there to become somebody without root's powers")
        command = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}", *command]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", mostly_slow(["pets/cat/3.png", "pets"], 2))
@pytest.mark.parametrize("search", mostly_slow([[], ["-m", "hydra.sweeper.n_trials=1"]], 2))
def test_no_permission_is_told_of_the_data(tmp_path: Path, what: str, search: list[str]) -> None:
    """What cannot be read is named, and not the output folder; nothing is left of the run."""
    for name in ("cat", "dog"):
        for i in range(5):
            write_picture(tmp_path / "pets" / name / f"{i}.png", (i * 20, 9, 200 if name == "cat" else 9))
    (tmp_path / what).chmod(0)
    words = [*search, "dataset=image_folder", "dataset.path=pets", "device=cpu"]
    done = as_a_person(tmp_path, "-m", "sweeper", *words)
    (tmp_path / what).chmod(0o700)
    told = done.stderr.strip().splitlines()
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert re.match(r"dataset\.path=(.*/)?pets: ", told[0])
    assert "no permission to read it" in told[0]
    assert what.removeprefix("pets/") in told[0]
    assert "give yourself the permission (chmod)" in told[0]
    assert not list(tmp_path.glob("outputs/**/weights.*"))


def test_no_permission_to_write_is_told_of_the_output(tmp_path: Path) -> None:
    """A folder in which nothing can be made is named as one that cannot be written."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here").chmod(0o500)
    done = as_a_person(tmp_path / "here", "-m", "sweeper", "device=cpu", "training.epochs=1")
    assert done.returncode == 2, done.stderr
    assert "cannot be written (Permission denied); run it in a folder" in done.stderr
    assert done.stderr.count("\n") == 1


def test_too_many_open_files_are_no_fault_of_the_file(tmp_path: Path) -> None:
    """It is not left out, and the line says how to raise the limit."""
    write_picture(tmp_path / "a.png")
    program = (
        "import os, resource\n"
        "from pathlib import Path\n"
        "from sweeper.fault import Fault\n"
        "from sweeper.schema import Dataset\n"
        "from sweeper.training import decode, image_format, picture\n"
        "image_format.suffixes()\n"
        "dataset = Dataset(name='image_folder', path='.', image_size=8, skip_unreadable=True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
        "look, file = picture.Look.of(dataset), Path('a.png')\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(os.open('.', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "import numpy\n"
        "try: decode._decode([file], numpy.empty((1, 3, 8, 8), 'uint8'), [picture.stamp_of(file)], look)\n"
        "except Fault as fault: print(fault)\n"
    )
    done = run(tmp_path, "-c", program, limit_s=60)
    expected = "a.png: cannot be read: too many files are open; raise the limit (ulimit -n)"
    assert done.stdout.strip() == expected, done.stderr


# ----------------------------------------------------------------------------------- depth and size


GREY = np.array([[3000, 1000], [2000, 0]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)
"""Of 12 bits."""


def png16(file: Path, values: NDArray[Any], colour_type: int) -> None:
    """Pillow cannot write those with colours."""
    height, width = values.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def deep(file: Path, values: NDArray[np.uint16], how: str) -> Path:
    if how in ("png", "tiff"):
        Image.fromarray(values).save(file, how.upper())
    elif how == "tiff, big":
        Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()).save(file, "TIFF")
    elif how == "rgb":
        png16(file, np.repeat(values[..., None], 3, 2), 2)
    else:
        opaque = np.full_like(values, 65535)
        channels = [values, opaque] if how == "la" else [values, values, values, opaque]
        png16(file, np.stack(channels, 2), 4 if how == "la" else 6)
    return file


@pytest.mark.parametrize("how", ["png", "tiff", "tiff, big", "rgb", "rgba", "la"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_white_is_what_all_deep_files_hold(tmp_path: Path, caplog: Any, how: str, bits: int) -> None:
    """Values of 10, 12 or 14 bits in files of 16 are as bright as they were meant; a dark picture among them
    stays dark, one of 8 bits is as it was; and a line says so."""
    values = (GREY.astype(np.int64) * 2**bits // 2**12).astype(np.uint16)
    bright = deep(tmp_path / "bright", values, how)
    dark = deep(tmp_path / "dark", (values // 10).astype(np.uint16), how)
    usual = bitmap(tmp_path / "usual.bmp", RED)
    for order in ([dark, bright, usual], [bright, usual, dark]):
        caplog.clear()
        pixels, _ = read_files(order, dataset())
        shown = {file.name: pixels[i].astype(int) for i, file in enumerate(order)}
        expected = GREY[..., None].astype(int) * 255 // 4095
        np.testing.assert_allclose(shown["bright"], np.broadcast_to(expected, (8, 8, 3)), atol=1)
        np.testing.assert_allclose(shown["dark"], np.broadcast_to(expected // 10, (8, 8, 3)), atol=1)
        assert shown["usual.bmp"][0, 0].tolist() == list(RED)
        told = f"files of 16 bits hold values of {bits} bits at most: {2**bits - 1:,} is shown as white"
        assert (told in caplog.text) == (bits < 16)


def test_larger_files_are_refused_by_name(tmp_path: Path) -> None:
    """The line has the key that lets them in, with a value that does; another limit reads them anew."""
    write_picture(tmp_path / "large.png", RED, size=(1200, 1000))
    write_picture(tmp_path / "small.png", RED, size=(10, 10))
    files = [tmp_path / "small.png", tmp_path / "large.png"]
    with pytest.raises(BadInput, match=r"large\.png \(1\.2 megapixels, more than") as caught:
        read_files(files, dataset(max_megapixels=1))
    assert caught.value.remedy.startswith("write dataset.max_megapixels=2, or write dataset.skip")
    for most, readable in ((2, [0, 1]), (1, [0]), (1.2, [0, 1])):
        assert read_files(files, dataset(max_megapixels=most, skip_unreadable=True))[1].tolist() == readable
    assert len(cache.entries()) >= 2


@pytest.mark.slow
def test_pillows_own_limit_holds_no_more(tmp_path: Path) -> None:
    """A file that Pillow takes for a bomb is read where the limit lets it in."""
    Image.new("1", (20000, 9500)).save(tmp_path / "large.png")
    pixels, _ = read_files([tmp_path / "large.png"], dataset(max_megapixels=190))
    assert pixels.shape == (1, SIDE, SIDE, 3)
    with pytest.raises(BadInput, match="190 megapixels, more than dataset"):
        read_files([tmp_path / "large.png"], dataset())


@pytest.mark.slow
def test_pillow_says_nothing(tmp_path: Path, caplog: Any, capfd: Any) -> None:
    """No warning and no line of its log, from any thread; afterwards all filters are as before, however
    many read at once."""
    palette = Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).convert("P")
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"
    Image.new("RGB", (9, 9)).save(tmp_path / "exif.jpg", exif=exif)
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    files = sorted(tmp_path.iterdir())
    before = (warnings.filters[:], logging.getLogger("PIL").level, Image.MAX_IMAGE_PIXELS)
    with caplog.at_level(logging.DEBUG), ThreadPoolExecutor(4) as threads:
        done = threads.map(lambda size: read_files(files, Dataset(image_size=size, path="x")), range(8, 12))
        assert [len(pixels) for pixels, _ in done] == [3] * 4
    assert (warnings.filters[:], logging.getLogger("PIL").level, Image.MAX_IMAGE_PIXELS) == before
    assert [record for record in caplog.records if record.name.startswith("PIL")] == []
    assert capfd.readouterr().err == ""


def test_another_background_decodes_only_what_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that hide nothing are those that were kept."""
    write_picture(tmp_path / "solid.png")
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    counted: list[int] = []
    inner = decode._decode

    def count(*arguments: Any) -> Any:
        counted.append(len(arguments[0]))
        return inner(*arguments)

    monkeypatch.setattr(decode, "_decode", count)
    for _ in range(2):
        for background in ("white", "black", [1, 2, 3]):
            read_files([tmp_path / "solid.png"], dataset(background=background))
            shown = read_files([tmp_path / "clear.png"], dataset(background=background))[0]
            wanted = {"white": [255] * 3, "black": [0] * 3}.get(str(background), [1, 2, 3])
            assert shown[0, 0, 0].tolist() == wanted
    assert len(counted) == 4


@pytest.mark.parametrize(
    "value", ["", "purpel", "#12", [1, 2], [1, 2, 256], [0.5, 0, 0], 5, None, {}, "#11223344"]
)
def test_what_is_no_colour_is_refused(value: Any) -> None:
    """A background that is none, in one line."""
    with pytest.raises(BadInput, match=r"dataset\.background=.*: is not a colour; write for example white"):
        LIMITS["dataset.background"].check("dataset.background", value)


def test_the_fingerprint_is_of_the_pixels_read(tmp_path: Path) -> None:
    """A replaced file with size and times of before gives another fingerprint, and so another environment."""
    for name in ("a", "b"):
        bitmap(tmp_path / "pets" / name / "0.bmp", RED)
        bitmap(tmp_path / "pets" / name / "1.bmp", BLUE)
    pets = Dataset(name="image_folder", path=str(tmp_path / "pets"), image_size=SIDE)
    before, stamp = images.fingerprint(images.read(pets)), images.stamp(pets)
    file = tmp_path / "pets" / "a" / "0.bmp"
    found = file.stat()
    bitmap(file, (1, 2, 3))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert images.stamp(pets) != stamp
    assert images.fingerprint(images.read(pets)) != before
