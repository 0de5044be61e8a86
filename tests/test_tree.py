"""Each file below a folder is found once, or counted by the reason why it is left out."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import images
from sweeper.training.image_format import suffixes
from sweeper.training.readers.image_folder import find
from tests.conftest import mostly_slow
from tests.pictures import write_classes, write_picture
from tests.program import somebody

PLUGINS = {".heic": "pillow-heif", ".HEIF": "pillow-heif", ".jxl": "pillow-jxl-plugin"}


@pytest.fixture
def pets() -> Iterator[Path]:
    """A folder with three cats and three dogs, which others may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield write_classes(Path(folder) / "pets", {"cat": 3, "dog": 3})


def dataset(root: Path, **settings: object) -> Dataset:
    return Dataset(name="image_folder", path=str(root), image_size=8, **settings)  # type: ignore[arg-type]


def left_out(root: Path) -> dict[str, int]:
    found = find(dataset(root))
    assert len(found.entries) == 6
    return dict(found.left_out)


# --- what is no picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("cat/a.txt", ".txt (no pictures)"),
        *(
            pytest.param(
                f"cat/deep/er/a{suffix}",
                f"{suffix.lower()} (Pillow cannot read them; pip install {package})",
                marks=pytest.mark.skipif(suffix.lower() in suffixes(), reason=f"{package} is installed"),
            )
            for suffix, package in PLUGINS.items()
        ),
        ("cat/a.NEF", ".nef (raw of a camera; save them as .tif or .jpg)"),
        ("cat/a.mp4", ".mp4 (videos; save their frames as .jpg)"),
        ("cat/a.svg", ".svg (drawings; save them as .png)"),
        ("a.pdf", ".pdf (documents; save their pages as .png)"),
        ("a.csv", ".csv (no pictures)"),
        ("cat/a.h5", ".h5 (arrays; save their images as .png)"),
        ("cat/README", "without a known suffix (no pictures)"),
        ("cat/v. final version", "without a known suffix (no pictures)"),
        ("cat/.a.png", "hidden"),
        ("cat/._0.png", "hidden"),
        (".DS_Store", "hidden"),
        ("cat/Thumbs.db", "Thumbs.db"),
        ("desktop.ini", "desktop.ini"),
        (".ipynb_checkpoints/0.png", "in hidden folders"),
        ("cat/deep/.git/objects/0.png", "in hidden folders"),
        ("cat/@eaDir/0.png/thumb.jpg", "in @eaDir"),
        ("__MACOSX/cat/0.png", "in __MACOSX"),
        ("$Recycle.Bin/a/0.png", "in $Recycle.Bin"),
        ("System Volume Information/0.png", "in System Volume Information"),
        ("lost+found/0.png", "in lost+found"),
        ("sample.png", "beside the class folders"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(pets: Path, file: str, reason: str) -> None:
    """Files without a picture, those of the systems, and what lies in no class, at any depth."""
    (pets / file).parent.mkdir(parents=True, exist_ok=True)
    (pets / file).write_bytes(b"no picture")
    assert left_out(pets) == {reason: 1}


@pytest.mark.parametrize("name", ["x", "x.dat", "x.jfif", "x.JPE", "x.txt", "x.png.bak", "x.pdf", "x.7"])
def test_all_that_pillow_reads_is_a_picture(pets: Path, name: str) -> None:
    """Whatever its suffix says."""
    Image.new("RGB", (9, 9)).save(pets / "cat" / name, "JPEG")
    found = images.read(dataset(pets))
    assert len(found.labels) == 7
    assert found.left_out == {}


@pytest.mark.parametrize("kind", ["TIFF", "TGA", "PCX", "ICO", "PPM", "JPEG2000", "DDS", "SGI", "QOI"])
def test_formats_are_known_by_their_content(pets: Path, kind: str) -> None:
    """A file without a suffix, in a format that is seldom met."""
    Image.new("RGB", (16, 16)).save(pets / "cat" / "picture", kind)
    assert len(images.read(dataset(pets)).labels) == 7


def test_raw_files_are_no_pictures_although_pillow_reads_their_thumbnail(pets: Path) -> None:
    """A camera's raw file begins as a TIFF file."""
    Image.new("RGB", (16, 16)).save(pets / "cat" / "0.dng", "TIFF")
    assert left_out(pets) == {".dng (raw of a camera; save them as .tif or .jpg)": 1}


@pytest.mark.skipif(".heic" in suffixes(), reason="pillow-heif is installed")
def test_a_folder_without_any_picture_says_what_is_there(tmp_path: Path) -> None:
    """And what helps."""
    for i in range(3):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / f"{i}.heic").write_bytes(b"")
    with pytest.raises(BadInput, match=r"no image files in .*, but 3 \.heic \(P.*; pip install pillow-heif$"):
        find(dataset(tmp_path))


@pytest.mark.skipif(shutil.which("gs") is not None, reason="with Ghostscript, Pillow reads it")
def test_what_needs_another_program_is_no_picture(pets: Path) -> None:
    """Pillow knows PostScript, but cannot draw it by itself."""
    Image.new("RGB", (9, 9)).save(pets / "cat" / "0.eps")
    assert left_out(pets) == {".eps (drawings; save them as .png)": 1}


@pytest.mark.slow
def test_an_installed_plugin_is_used(pets: Path) -> None:
    """What the line of the files left out says to install then reads them."""
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 64), (200, 30, 30))).save(pets / "cat" / "0.heic")
    assert len(images.read(dataset(pets)).labels) == 7


# --- links and what is no file ------------------------------------------------------------------------------


def test_a_link_to_a_folder_is_followed_once(pets: Path) -> None:
    """What two links lead to is one class, a real folder keeps its own place, and no link leads up."""
    owls = write_classes(pets.parent / "more", {"owl": 2}) / "owl"
    (pets / "owl").symlink_to(owls)
    (pets / "cat" / "again").symlink_to(owls)
    (pets / "ant").symlink_to(pets / "dog")
    (pets / "cat" / "self").symlink_to(".")
    (pets / "cat" / "up").symlink_to("../..")
    (owls / "up").symlink_to(owls.parent)
    found = find(dataset(pets))
    assert [entry.class_name for entry in found.entries] == ["cat"] * 3 + ["dog"] * 3 + ["owl"] * 2
    assert found.left_out == {"links to folders that are read already": 2, "links to a folder above": 3}


def test_a_link_to_a_file_in_a_hidden_folder_is_read(pets: Path) -> None:
    """As git-annex keeps all contents."""
    (pets / ".git").mkdir()
    (pets / "cat" / "0.png").rename(pets / ".git" / "0123")
    (pets / "cat" / "0.png").symlink_to("../.git/0123")
    assert left_out(pets) == {"in hidden folders": 1}


def test_pipes_sockets_and_devices_are_never_opened(pets: Path) -> None:
    """To read a pipe would wait for ever; a link to a device is none either."""
    os.mkfifo(pets / "cat" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(pets / "cat" / "socket"))
        (pets / "dog" / "zero.png").symlink_to("/dev/zero")
        assert left_out(pets) == {"pipes, sockets or devices": 3}


def test_names_that_are_no_utf8_work(pets: Path) -> None:
    """A class and a file from an old archive: they are read, and their names can be printed."""
    (pets / os.fsdecode(b"caf\xe9")).mkdir()
    shutil.copy(pets / "cat" / "0.png", pets / os.fsdecode(b"caf\xe9/\xff.png"))
    found = images.read(dataset(pets))
    assert found.classes == ("caf\\xe9", "cat", "dog")
    assert found.names is not None
    assert found.names[0] == "caf\\xe9/\\xff.png"


# --- what cannot be read ------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_listed_is_named(pets: Path) -> None:
    """With what was tried and what to do; with skip_unreadable it is counted."""
    write_picture(pets / "cat" / "secret" / "0.png")
    (pets / "cat" / "secret").chmod(0)
    with somebody():
        line = r"reading cat/secret failed \(no permission to read it\); give .*chmod.*skip_unreadable=true"
        with pytest.raises(BadInput, match=rf"^dataset\.path=.*{line}"):
            find(dataset(pets))
        found = find(dataset(pets, skip_unreadable=True))
    assert len(found.entries) == 6
    assert found.left_out == {"that cannot be read (no permission to read it: cat/secret)": 1}


def test_a_class_that_cannot_be_listed_is_not_called_empty(pets: Path) -> None:
    """Even with skip_unreadable the permission is to blame, and not the layout."""
    (pets / "cat").chmod(0)
    with (
        somebody(),
        pytest.raises(BadInput, match=r"reading cat failed \(no permission to read it\); give .*\(chmod\)$"),
    ):
        find(dataset(pets, skip_unreadable=True))


def test_a_folder_may_be_listed_and_not_entered(pets: Path) -> None:
    """Then each thing in it is named, or counted."""
    write_picture(pets / "cat" / "deep" / "0.png")
    (pets / "cat" / "owls").symlink_to(pets)
    (pets / "cat").chmod(0o444)
    with somebody():
        with pytest.raises(
            BadInput, match=r"reading cat/owls failed \(no permission to read it\), and 1 more"
        ):
            find(dataset(pets))
        found = find(dataset(pets, skip_unreadable=True))
    assert found.left_out == {"that cannot be read (no permission to read it: cat/owls, cat/deep)": 2}


@pytest.mark.parametrize("name", [".Trash-0", "lost+found"])
def test_a_folder_that_stays_out_need_not_be_readable(pets: Path, name: str) -> None:
    """A disk's lost+found is root's."""
    (pets / name).mkdir(mode=0)
    with somebody():
        assert sum(left_out(pets).values()) == 1


def test_the_path_itself_may_be_unreadable(pets: Path) -> None:
    """It is named, and not the folder above or the output."""
    pets.chmod(0)
    with (
        somebody(),
        pytest.raises(BadInput, match=r"^dataset\.path=.*: reading the folder failed \(no perm"),
    ):
        find(dataset(pets))
    with somebody(), pytest.raises(BadInput, match=r"^dataset\.path=.*cat: it cannot be read: no permission"):
        find(dataset(pets / "cat"))


@pytest.mark.parametrize(("name", "named"), [("owl", "owl"), ("cat/notes", "cat/notes")])
def test_a_broken_link_that_may_be_a_class_is_named(pets: Path, name: str, named: str) -> None:
    """A class on a disk that is not there must not vanish."""
    (pets / name).symlink_to(pets / "nowhere" / "at" / "all")
    line = rf"reading {named} failed \(a link to nothing\); mend the link"
    with pytest.raises(BadInput, match=line):
        find(dataset(pets))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("gone", r"is a link to nothing"),
        ("pets.zip", r"is a file, not a folder; unpack it"),
        ("pets.csv", r"is a file, not a folder; write dataset=csv"),
        ("pets.zip/a", r"there is no such folder"),
        ("~nobody-of-this-name/pets", r"there is no such folder"),
        ("p\0", r"there is no such folder"),
    ],
)
def test_a_path_that_is_no_folder(pets: Path, path: str, line: str) -> None:
    """Says what it is, and what to write."""
    (pets / "gone").symlink_to(pets / "nowhere")
    for name in ("pets.zip", "pets.csv"):
        (pets / name).write_bytes(b"")
    with pytest.raises(BadInput, match=line):
        find(Dataset(name="image_folder", path=path if path[0] == "~" else f"{pets}/{path}"))


def test_a_part_is_told_of_those_beside_it(tmp_path: Path) -> None:
    """dataset.path=pets/train works, and says what it leaves."""
    for part in ("train", "test"):
        write_classes(tmp_path / "pets" / part, {"cat": 2, "dog": 2})
    assert images.read(dataset(tmp_path / "pets")).remarks == ()
    (remark,) = images.read(dataset(tmp_path / "pets" / "train")).remarks
    assert remark == f"test beside train is not read; dataset.path={tmp_path}/pets reads all"


def test_classes_that_differ_in_case_alone_are_told(pets: Path) -> None:
    """Probably they are one."""
    write_picture(pets / "Cat" / "0.png")
    write_picture(pets / "Cat" / "1.png", (1, 2, 3))
    assert images.read(dataset(pets)).remarks == ("Cat and cat are different classes",)


# --- any folder ---------------------------------------------------------------------------------------------

NAMES = (
    *("cat", "a b", "d\u00f6ner", "cafe\u0301", "=x", "#1", "1e5", "cat.jpg", "null", "x" * 60),
    os.fsdecode(b"\xff\xfe"),
)
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".JPEG": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".tga": "TGA",
    ".jfif": "JPEG",
    ".dat": "PNG",
    "": "JPEG",
    ".txt": "GIF",
}
OTHERS = (".txt", ".json", ".NEF", ".mp4", ".xml", "", ". 2", ".tar.gz", ".\u00fc")
STAYS_OUT = (".git", "@eaDir", "__MACOSX", ".ipynb_checkpoints", "Lost+Found")
SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", ".hidden.png")


class AnyFolder:
    """A random folder, which counts what it writes: ``n`` files, of them ``n_pictures`` in classes."""

    def __init__(self, home: Path, seed: int) -> None:
        self.random, self.home, self.root = random.Random(seed), home, home / "any data"
        self.n = self.n_pictures = self._n_names = 0
        self.fault = ""
        self.names = self.random.sample(NAMES, self.random.randint(2, 4))
        parts = self.random.choice(([""], [""], ["train", "TEST"], ["Training", "val", "eval"]))
        self.folders = [self.root / part / name for part in parts for name in self.names]
        for folder in self.folders:
            folder.mkdir(parents=True)
            self.picture(folder)
        steps: list[Callable[[Path], object]] = [
            *(self.picture,) * 6,
            *(self.other, self.system, self.stays_out, self.pipe, self.again, self.up, self.outside),
            *(self.annexed, self.same, self.empty),
        ]
        for _ in range(self.random.randint(5, 25)):
            self.random.choice(steps)(self.deep(self.random.choice(self.folders)))
        for _ in range(self.random.randint(0, 3)):
            self.random.choice((self.other, self.system, self.stays_out, self.pipe, self.up))(self.root)
        if self.random.random() < 0.3:
            self.picture(self.root)
            self.n_pictures -= 1
        if self.random.random() < 0.5:
            faults = (self.damaged, self.truncated, self.broken, self.lost, self.unlisted, self.unreadable)
            self.random.choice(faults)(self.random.choice(self.folders))

    def new(self, suffix: str) -> str:
        self._n_names += 1
        return f"{self._n_names}{suffix}"

    def deep(self, folder: Path) -> Path:
        """In it, or in new folders in it."""
        for _ in range(self.random.choice((0, 0, 1, 3))):
            folder = folder / self.new(self.random.choice(("", " in", ".d", "\u00e9")))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def picture(self, folder: Path) -> Path:
        suffix = self.random.choice(list(FORMATS))
        pixels = np.random.default_rng(self.n).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        file = folder / self.new(suffix)
        Image.fromarray(pixels).save(file, FORMATS[suffix])
        self.n, self.n_pictures = self.n + 1, self.n_pictures + 1
        return file

    def other(self, folder: Path) -> None:
        (folder / self.new(self.random.choice(OTHERS))).write_text("no: picture\n")
        self.n += 1

    def system(self, folder: Path) -> None:
        file = folder / self.random.choice(SYSTEM)
        self.n += not file.exists()
        file.write_bytes(b"")

    def stays_out(self, folder: Path) -> None:
        hidden = folder / self.random.choice(STAYS_OUT) / self.new("")
        hidden.mkdir(parents=True)
        self.picture(hidden)
        self.n_pictures -= 1

    def pipe(self, folder: Path) -> None:
        os.mkfifo(folder / self.new(".png"))
        self.n += 1

    def again(self, folder: Path) -> None:
        (folder / self.new("")).symlink_to(self.random.choice(self.folders))
        self.n += 1

    def up(self, folder: Path) -> None:
        (folder / self.new("")).symlink_to(self.random.choice((self.root, self.home, folder)))
        self.n += 1

    def outside(self, folder: Path) -> None:
        """A link that leads to pictures elsewhere, which only it leads to."""
        elsewhere = self.home / self.new("")
        elsewhere.mkdir()
        self.picture(elsewhere)
        (folder / self.new("")).symlink_to(elsewhere)

    def annexed(self, folder: Path) -> None:
        content = folder / ".annex" / self.new("")
        content.mkdir(parents=True)
        (folder / self.new(".png")).symlink_to(self.picture(content))
        self.n += 1

    def same(self, folder: Path) -> None:
        picture = self.picture(folder)
        (picture.parent / self.new(picture.suffix)).hardlink_to(picture)
        self.n, self.n_pictures = self.n + 1, self.n_pictures + 1

    def empty(self, folder: Path) -> None:
        (folder / self.new("")).mkdir()

    # Each of these is one more file, or folder, that cannot be read.

    def damaged(self, folder: Path) -> None:
        (folder / "fault.jpg").write_bytes(self.random.choice((b"", b"no picture")))
        self.n, self.fault = self.n + 1, "fault.jpg"

    def truncated(self, folder: Path) -> None:
        Image.effect_noise((64, 64), 50).save(folder / "fault.png")
        (folder / "fault.png").write_bytes((folder / "fault.png").read_bytes()[:900])
        self.n, self.fault = self.n + 1, "fault.png"

    def broken(self, folder: Path) -> None:
        (folder / "fault.jpg").symlink_to("nowhere.jpg")
        self.n, self.fault = self.n + 1, "fault.jpg"

    def lost(self, folder: Path) -> None:
        (self.root / "fault").symlink_to("/nowhere")
        self.n, self.fault = self.n + 1, "fault"

    def unlisted(self, folder: Path) -> None:
        (folder / "fault").mkdir(mode=0)
        self.n, self.fault = self.n + 1, "fault"

    def unreadable(self, folder: Path) -> None:
        write_picture(folder / "fault.png")
        (folder / "fault.png").chmod(0)
        self.n, self.fault = self.n + 1, "fault.png"


@pytest.mark.parametrize("seed", mostly_slow(range(100), every=8))
def test_every_file_is_used_once_or_counted_or_in_the_error(seed: int) -> None:
    """Any names, depths, formats, links and faults: nothing is read twice, nothing is lost unsaid."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        folder = AnyFolder(Path(home), seed)
        with somebody():
            if folder.fault:
                with pytest.raises(BadInput, match=rf"^dataset\.path=.*{folder.fault}.*; "):
                    images.read(dataset(folder.root))
            found = images.read(dataset(folder.root, skip_unreadable=bool(folder.fault)))
        assert found.files is not None
        assert len(set(found.files)) == len(found.files) == folder.n_pictures
        assert len(found.files) + sum(found.left_out.values()) == folder.n
