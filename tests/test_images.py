"""The images of a dataset as arrays: read from files, with fingerprint and stamp."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import images
from tests.pictures import write_picture
from tests.program import run

COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "owl": (30, 30, 200)}


def fill(
    root: Path, n: int = 5, suffix: str = "png", classes: tuple[str, ...] = ("cat", "dog", "owl")
) -> Path:
    """Pictures of the colours of their classes; no two are the same, as no two have the same size."""
    height = 12 + sum(map(ord, root.name)) % 50
    for name in classes:
        for i in range(n):
            write_picture(root / name / f"{i}.{suffix}", COLOURS[name], size=(20 + i, height))
    return root


def folder(path: Path, image_size: int | None = 8, **settings: object) -> Dataset:
    return Dataset(name="image_folder", path=str(path), image_size=image_size, **settings)  # type: ignore[arg-type]


def test_digits_have_their_own_size_and_full_contrast() -> None:
    """The digits are 1,797 grey images of 8 × 8 pixels from 0 to 255."""
    digits = images.read(Dataset())
    assert digits.pixels.shape == (1797, 8, 8, 1)
    assert digits.pixels.dtype == np.uint8
    assert (digits.pixels.min(), digits.pixels.max()) == (0, 255)
    assert digits.labels.dtype == np.int64
    assert digits.classes == tuple("0123456789")
    assert digits.part is None
    assert digits.files is None


@pytest.mark.parametrize("size", [4, 32])
def test_digits_are_scaled(size: int) -> None:
    """Digits of another size show the same picture: their mean brightness stays."""
    small, scaled = images.read(Dataset()), images.read(Dataset(image_size=size))
    assert scaled.pixels.shape == (1797, size, size, 1)
    means = small.pixels.mean((1, 2, 3)), scaled.pixels.mean((1, 2, 3))
    np.testing.assert_allclose(*means, atol=12)


def test_folder_of_classes(tmp_path: Path) -> None:
    """Each image has the class of its folder, however deep it lies, whatever its format."""
    fill(tmp_path, n=2)
    write_picture(tmp_path / "cat" / "deep" / "er" / "x.JPG", COLOURS["cat"])
    write_picture(tmp_path / "owl" / ".hidden.png")
    (tmp_path / "owl" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    found = images.read(folder(tmp_path))
    assert found.classes == ("cat", "dog", "owl")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert found.pixels.shape == (7, 8, 8, 3)
    for pixels, label in zip(found.pixels, found.labels, strict=True):
        assert np.abs(pixels.astype(int) - COLOURS[found.classes[label]]).max() < 6
    assert found.files is not None
    assert found.files[2].endswith("x.JPG")


def test_folder_size_defaults_to_64(tmp_path: Path) -> None:
    """Without ``image_size`` the images of a folder are 64 pixels wide and high."""
    assert images.read(folder(fill(tmp_path, n=1), image_size=None)).pixels.shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_parts_of_the_folder_stay(tmp_path: Path, name: str) -> None:
    """What lies in train, val and test is used as just that."""
    for part, n in (("train", 4), (name, 2), ("test", 3)):
        fill(tmp_path / part, n)
    found = images.read(folder(tmp_path))
    assert found.part is not None
    assert np.bincount(found.part).tolist() == [12, 6, 9]
    train, val, test = images.split(found, folder(tmp_path))
    assert [len(train), len(val), len(test)] == [12, 6, 9]
    assert found.files is not None
    assert all(f"/{name}/" in found.files[i] for i in val)


def test_missing_part_is_taken_from_train(tmp_path: Path) -> None:
    """Where a folder has train and test alone, validation is split from train, and test is untouched."""
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 2)
    found = images.read(folder(tmp_path))
    train, val, test = images.split(found, folder(tmp_path))
    assert [len(train), len(val), len(test)] == [12, 3, 6]
    assert found.files is not None
    assert all("/test/" in found.files[i] for i in test)
    assert not any("/test/" in found.files[i] for i in [*train, *val])


def test_class_may_be_called_train(tmp_path: Path) -> None:
    """A folder ``train`` beside other classes is a class of trains."""
    for name in ("car", "plane", "train"):
        write_picture(tmp_path / name / "0.png")
    assert images.read(folder(tmp_path)).classes == ("car", "plane", "train")


def test_parts_must_have_the_same_classes(tmp_path: Path) -> None:
    """A class that only val or test has is an error that names it; one that they lack is none."""
    fill(tmp_path / "train", classes=("cat", "dog"))
    fill(tmp_path / "test", classes=("cat",))
    assert images.read(folder(tmp_path)).classes == ("cat", "dog")
    fill(tmp_path / "val")
    with pytest.raises(BadInput, match=r"dataset\.path.*val has the class owl, which train lacks"):
        images.read(folder(tmp_path))


def test_parts_need_train(tmp_path: Path) -> None:
    """Parts without train cannot be trained on."""
    fill(tmp_path / "val")
    fill(tmp_path / "test")
    with pytest.raises(BadInput, match=r"has val, but no train"):
        images.read(folder(tmp_path))


def test_parts_and_classes_do_not_mix(tmp_path: Path) -> None:
    """Classes beside train and val are refused, not silently ignored."""
    for name in ("train", "val"):
        fill(tmp_path / name)
    fill(tmp_path, classes=("owl",))
    with pytest.raises(BadInput, match=r"holds the parts train, val and beside them owl"):
        images.read(folder(tmp_path))


def test_folder_must_exist(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a file, is an error on ``dataset.path``."""
    with pytest.raises(BadInput, match=r"dataset\.path=.*nowhere: there is no such folder"):
        images.read(folder(tmp_path / "nowhere"))
    write_picture(tmp_path / "file.png")
    with pytest.raises(BadInput, match=r"is a file, not a folder"):
        images.read(folder(tmp_path / "file.png"))
    with pytest.raises(BadInput, match=r"dataset\.path=null: image_folder needs it"):
        images.read(Dataset(name="image_folder"))


def test_folder_must_hold_classes(tmp_path: Path) -> None:
    """A folder without classes, with one, without images or with an empty class is refused by name."""
    write_picture(tmp_path / "flat" / "0.png")
    with pytest.raises(BadInput, match=r"flat has no class folders"):
        images.read(folder(tmp_path / "flat"))
    fill(tmp_path / "one", classes=("cat",))
    with pytest.raises(BadInput, match=r"one has one class folder only \(cat\)"):
        images.read(folder(tmp_path / "one"))
    for name in ("a", "b"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    with pytest.raises(BadInput, match=r"there are no image files in .*bare"):
        images.read(folder(tmp_path / "bare"))
    fill(tmp_path / "some", classes=("cat", "dog"))
    (tmp_path / "some" / "owl").mkdir()
    with pytest.raises(BadInput, match=r"there are no images in .*some/owl"):
        images.read(folder(tmp_path / "some"))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """Damaged files end the reading with their number and the first names, as many as one line holds."""
    fill(tmp_path, n=8, suffix="jpg")
    for i in range(7):
        (tmp_path / "dog" / f"{i}.jpg").write_bytes(b"no image")
    with pytest.raises(
        BadInput, match=r"7 files are not readable images: dog/0\.jpg.*; dog/3\.jpg"
    ) as caught:
        images.read(folder(tmp_path))
    assert "5.jpg" not in str(caught.value)
    assert "dataset.skip_unreadable=true" in str(caught.value)


def test_unreadable_files_are_skipped_if_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With ``skip_unreadable`` a truncated and an empty file are left out, and the log names them."""
    fill(tmp_path, n=3, suffix="jpg")
    truncated = tmp_path / "cat" / "1.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (tmp_path / "owl" / "0.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = images.read(folder(tmp_path, skip_unreadable=True))
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found.files is not None
    assert [Path(file).name for file in found.files[:2]] == ["0.jpg", "2.jpg"]
    assert "2 files are not readable images, skipped" in caplog.text
    assert str(truncated) in caplog.text


def test_class_without_readable_image_is_refused(tmp_path: Path) -> None:
    """Skipping never makes a class vanish."""
    fill(tmp_path, n=1)
    (tmp_path / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(BadInput, match=r"no image of class dog can be read"):
        images.read(folder(tmp_path, skip_unreadable=True))


def parts_by_name(dataset: Dataset) -> dict[str, int]:
    found = images.read(dataset)
    assert found.names is not None
    return {found.names[i]: k for k, part in enumerate(images.split(found, dataset)) for i in part}


def test_the_split_belongs_to_the_files(tmp_path: Path) -> None:
    """A renamed folder, a copy of it elsewhere and a link to it are split the same; a damaged picture is like
    one that was removed, and a table in another order is split as before."""
    pets, n = fill(tmp_path / "pets", n=9), 27
    first = parts_by_name(folder(pets))
    assert len(first) == n
    shutil.copytree(pets, tmp_path / "copy" / "other")
    (tmp_path / "link").symlink_to(pets)
    assert parts_by_name(folder(tmp_path / "copy" / "other")) == first
    assert parts_by_name(folder(tmp_path / "link")) == first

    rows = [f"{name},{Path(name).parent}" for name in first]
    tables = [pets / "a.csv", pets / "b.csv"]
    for table, lines in zip(tables, (rows, rows[::-1]), strict=True):
        table.write_text("\n".join(["path,label", *lines]))
    assert [parts_by_name(Dataset(name="csv", path=str(table), image_size=8)) for table in tables] == [
        first
    ] * 2
    for table in tables:
        table.unlink()

    (pets / "cat" / "3.png").write_bytes(b"damaged")
    skipped = parts_by_name(folder(pets, skip_unreadable=True))
    (pets / "cat" / "3.png").unlink()
    assert parts_by_name(folder(pets)) == skipped
    moved = [name for name in skipped if skipped[name] != first[name]]
    assert len(moved) <= 2
    assert all(name.startswith("cat/") for name in moved)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Equal data has one fingerprint; another pixel or class name gives another."""
    first = images.fingerprint(images.read(folder(fill(tmp_path / "a"))))
    assert first == images.fingerprint(images.read(folder(fill(tmp_path / "b"))))
    write_picture(tmp_path / "b" / "cat" / "0.png", (201, 30, 30))
    assert first != images.fingerprint(images.read(folder(tmp_path / "b")))
    (tmp_path / "a" / "cat").rename(tmp_path / "a" / "bat")
    assert first != images.fingerprint(images.read(folder(tmp_path / "a")))


def test_stamp_follows_the_files(tmp_path: Path) -> None:
    """A file that is added or written anew changes the stamp; looking does not."""
    fill(tmp_path)
    first = images.stamp(folder(tmp_path))
    assert images.stamp(folder(tmp_path)) == first
    os.utime(tmp_path / "cat" / "0.png", ns=(1, 1))
    second = images.stamp(folder(tmp_path))
    write_picture(tmp_path / "cat" / "new.png")
    assert len({first, second, images.stamp(folder(tmp_path))}) == 3


def test_labels_change_the_fingerprint() -> None:
    """Data with several labels has another fingerprint as soon as one image loses one."""
    pixels, labels = (
        np.zeros((3, 4, 4, 1), dtype=np.uint8),
        np.array([[0, 1], [1, 1], [1, 0]], dtype=np.uint8),
    )
    first = images.fingerprint(images.Images(pixels, labels, ("a", "b")))
    labels[2, 0] = 0
    assert images.fingerprint(images.Images(pixels, labels, ("a", "b"))) != first


def test_torch_is_not_imported(tmp_path: Path) -> None:
    """Reading and splitting the data never imports torch."""
    code = (
        "import sys; from sweeper.training import images; from sweeper.schema import Dataset;"
        f"d = Dataset(name='image_folder', path={str(fill(tmp_path))!r}); images.split(images.read(d), d);"
        "assert 'torch' not in sys.modules"
    )
    done = run(tmp_path, "-c", code, limit_s=60)
    assert done.returncode == 0, done.stderr
