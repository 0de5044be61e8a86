"""Tables of image files: one label each, several, and everything that may be wrong with them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import images
from tests.pictures import write_picture

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder of a table, with pictures 0.png … 8.png in red, green and blue by turns."""
    for i in range(9):
        write_picture(tmp_path / "pictures" / f"{i}.png", (RED, GREEN, BLUE)[i % 3], size=(20 + i, 12))
    return tmp_path


def table(folder: Path, text: str | bytes, **settings: Any) -> Dataset:
    file = folder / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Dataset(name="csv", path=str(file), **{"image_size": 8, **settings})


def rows(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def single(n: int = 9, header: str = "path,label") -> str:
    return rows(header, *(f"pictures/{i}.png,{('red', 'green', 'blue')[i % 3]}" for i in range(n)))


def test_one_label_each(pictures: Path) -> None:
    """Every image has the class that its row says; classes are in the order of the alphabet."""
    found = images.read(table(pictures, single()))
    assert found.classes == ("blue", "green", "red")
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [2, 1, 0] * 3)
    assert not found.multi_label
    assert found.part is None
    assert found.pixels.shape == (9, 8, 8, 3)
    for pixels, colour in zip(found.pixels, (RED, GREEN, BLUE) * 3, strict=True):
        assert np.abs(pixels.astype(int) - colour).max() == 0
    assert found.files is not None
    assert found.files[1] == str(pictures / "pictures" / "1.png")


@pytest.mark.parametrize(
    "text",
    [
        single(header="path,colour"),
        single().replace("\n", "\r\n"),
        single().replace("path,label\n", " path , label\n\n").replace(",red", ", red "),
        b"\xef\xbb\xbf" + single().encode(),
        single().replace("pictures/3.png", '"pictures/3.png"').removesuffix("\n"),
        single().replace("pictures/3.png", "pictures/../pictures/3.png"),
        "label,path\n"
        + "".join(f"{row.split(',')[1]},{row.split(',')[0]}\n" for row in single().split()[1:]),
    ],
    ids=["other name", "crlf", "spaces", "bom", "quotes", "dots", "other order"],
)
def test_one_label_however_it_is_written(pictures: Path, text: str | bytes) -> None:
    """The second column's name, spaces, blank lines, quotes and marks of other systems change nothing."""
    expected = images.read(table(pictures, single()))
    assert images.fingerprint(images.read(table(pictures, text))) == images.fingerprint(expected)


def test_labels_are_text(pictures: Path) -> None:
    """Numbers are names of classes: 0 is another one than 00."""
    found = images.read(
        table(pictures, rows("path,label", "pictures/0.png,00", "pictures/1.png,0", "pictures/2.png,1"))
    )
    assert found.classes == ("0", "00", "1")


def test_absolute_paths(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A table may lie elsewhere and name whole paths."""
    text = single().replace("pictures/", f"{pictures}/pictures/")
    assert len(images.read(table(tmp_path_factory.mktemp("elsewhere"), text)).labels) == 9


MULTI = rows(
    "path,round,striped,big",
    "pictures/0.png,1,0,1",
    "pictures/1.png,0,0,0",
    "pictures/2.png,1,1,1",
)


def test_several_labels_each(pictures: Path) -> None:
    """Two or more columns beside ``path`` are labels, in their order; an image may have none."""
    found = images.read(table(pictures, MULTI))
    assert found.multi_label
    assert found.classes == ("round", "striped", "big")
    assert found.labels.dtype == np.uint8
    assert found.labels.tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 1]]


def test_parts_of_the_table_stay(pictures: Path) -> None:
    """Where ``split`` names train, val and test, each image is in the part of its row."""
    parts = ["train"] * 3 + ["valid"] * 3 + ["test"] * 3
    lines = [f"{row},{part}" for row, part in zip(single().split(), ["split", *parts], strict=True)]
    dataset = table(pictures, rows(*lines))
    train, val, test = images.split(images.read(dataset), dataset)
    assert (train.tolist(), val.tolist(), test.tolist()) == ([0, 1, 2], [3, 4, 5], [6, 7, 8])


def test_missing_part_is_taken_from_train(pictures: Path) -> None:
    """Where ``split`` has no val, it is taken from train, and test is untouched."""
    parts = ["train"] * 6 + ["test"] * 3
    lines = [f"{row},{part}" for row, part in zip(single().split(), ["split", *parts], strict=True)]
    dataset = table(pictures, rows(*lines))
    train, val, test = images.split(images.read(dataset), dataset)
    assert [len(train), len(val), test.tolist()] == [3, 3, [6, 7, 8]]


def test_parts_with_several_labels(pictures: Path) -> None:
    """``split`` is no label, and parts hold for images with several."""
    lines = ["a,path,split,b"]
    lines += [f"{i % 2},pictures/{i}.png,{('train', 'val', 'test')[i // 3]},1" for i in range(9)]
    dataset = table(pictures, rows(*lines))
    found = images.read(dataset)
    assert found.classes == ("a", "b")
    assert [part.tolist() for part in images.split(found, dataset)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


P = [f"pictures/{i}.png" for i in range(9)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty; write a header"),
        ("path,label\n", r"has no rows below the header"),
        (rows("bild,label", f"{P[0]},a"), r"which column is the files'\? line 1 has bild, label: none"),
        (rows("image,photo,label", f"{P[0]},{P[0]},a"), r"which column .* is it image or photo\?"),
        (rows(f"{P[0]},a", f"{P[1]},b"), r"line 1 is no header, but pictures/0\.png, a; .*path,label"),
        (rows("a,b;c", f"{P[0]},x;y"), r"line 1 may be separated by a comma .* or a semicolon"),
        (rows("path", P[0]), r"line 1 has no column for labels"),
        (rows("path,split", f"{P[0]},train"), r"line 1 has no column for labels"),
        (rows("path,a,a", f"{P[0]},1,1"), r"line 1 has column a twice"),
        (rows("path,a,", f"{P[0]},1,1"), r"line 1 has a column without a name"),
        (rows("path,label", f"{P[0]},a", f"{P[1]},a"), r"column label has one class only \(a\)"),
        (rows("path,label", f"{P[0]},a", "", f"{P[1]},"), r"line 4, column label: is empty"),
        (rows("path,a,b", f"{P[0]},1,0", f'{P[1]},"x\ny",0'), r"line 3, column a: 'x y' is neither 0 nor 1"),
        (rows("path,label", ",a"), r"line 2, column path: is empty"),
        (
            rows("path,label", f"{P[0]},a,b"),
            r"line 2 must have 2 values, as the header has, but has 3; .*quotes",
        ),
        (rows("path,label", f"{P[0]},a", P[1]), r"line 3 must have 2 values, as the header has, but has 1"),
        (rows("path,a,b", f"{P[0]},1,0", f"{P[1]},0,2"), r"line 3, column b: '2' is neither 0 nor 1"),
        (rows("path,a,b", f"{P[0]},1,", f"{P[1]},0,1"), r"line 2, column b: '' is neither 0 nor 1"),
        (rows("path,a,b", f"{P[0]},1,0", f"{P[1]},1,0"), r"no image has the label b"),
        (rows("path,label", "x.png,a", "y.png,b"), r"2 image files are missing, first in line 2.*x\.png"),
        (rows("path,label", f"{P[0]},a", "y.png,b"), r"1 image file is missing, first in line 3.*/y\.png"),
        (rows("path,label", f"{P[0]},a", "pictures,b"), r"1 image file is missing, first in line 3"),
        (rows("path,label", f"{P[0]},a", "\0.png,b"), r"line 3 is not text"),
        (rows("path,label", f"{P[0]},a", f"./{P[0]},b"), r"line 3, column path: .*0\.png is in line 2 too"),
        (rows("path,label,split", f"{P[0]},a,1"), r"line 2, column split: '1' is not a part of the data"),
        (rows("path,label,split", f"{P[0]},a,train", f"{P[1]},b,unlabeled"), r"line 3.*'unlabeled' is not"),
        (
            rows("path,label,split", f"{P[0]},a,more"),
            r"line 2, column split: 'more' is not a part of the data",
        ),
        (rows("path,label,split", f"{P[0]},a,"), r"line 2, column split: '' is not a part"),
        (
            rows("path,label,split", f"{P[0]},a,val", f"{P[1]},b,test"),
            r"column split has val, test, but no train",
        ),
        (
            rows("path,label,split", f"{P[0]},a,train", f"{P[1]},b,train", f"{P[2]},c,val"),
            r"class c is in val \(1 image\), but not in train",
        ),
        (rows("path,label", f'"{P[0]},a'), r"line 2: unexpected end of data"),
        (b"path,label\n" + P[0].encode() + b",K\xe4se\n", r"line 2 is not UTF-8"),
        (b"\xff\xfea", r"line 1 is not UTF-16"),
        ("path,label\n".encode("utf-16-le"), r"line 1 is not text"),
        (b"PK\x03\x04", r"is a zip archive or a spreadsheet, not text; save it as a csv file"),
        (b"\x1f\x8b\x08", r"cannot be unpacked"),
        (b"PAR1", r"cannot be read as Parquet"),
        (b"\xef\xbb\xbfpath,label\n" + P[0].encode() + b",a\n\xe4", r"line 3 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(pictures: Path, text: str | bytes, message: str) -> None:
    """Every fault is named with file, line, column and value, on ``dataset.path``, and says what to write."""
    with pytest.raises(BadInput, match=rf"^dataset\.path=.*table\.csv: {message}") as caught:
        images.read(table(pictures, text))
    assert "\n" not in str(caught.value)


def test_file_must_be_there(tmp_path: Path) -> None:
    """A path that is not given, leads nowhere or to a folder is refused."""
    with pytest.raises(BadInput, match=r"dataset\.path=null: csv needs it"):
        images.read(Dataset(name="csv"))
    with pytest.raises(BadInput, match=r"none\.csv: there is no such file"):
        images.read(Dataset(name="csv", path=str(tmp_path / "none.csv")))
    with pytest.raises(BadInput, match=r"is a folder, not a file; .*dataset=image_folder"):
        images.read(Dataset(name="csv", path=str(tmp_path)))


def test_unreadable_pictures_are_named(pictures: Path) -> None:
    """A damaged picture is an error that names it and the way around."""
    (pictures / P[4]).write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"1 file is not a readable image: .*4\.png .*skip_unreadable=true"):
        images.read(table(pictures, single()))


def test_unreadable_pictures_are_skipped_if_asked(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With ``skip_unreadable`` the other images keep their labels, of both kinds, and the log says so."""
    (pictures / P[1]).write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        found = images.read(table(pictures, single(), skip_unreadable=True))
    assert found.labels.tolist() == [2, 0, 2, 1, 0, 2, 1, 0]
    assert "1 file is not a readable image, skipped" in caplog.text
    found = images.read(table(pictures, MULTI, skip_unreadable=True))
    assert found.labels.tolist() == [[1, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(("text", "gone"), [(single(3), "blue"), (MULTI, "striped")])
def test_class_without_readable_image_is_refused(pictures: Path, text: str, gone: str) -> None:
    """Skipping never makes a class or a label vanish."""
    (pictures / P[2]).write_bytes(b"")
    with pytest.raises(BadInput, match=rf"no image of class {gone} can be read"):
        images.read(table(pictures, text, skip_unreadable=True))


def test_stamp_follows_the_table_and_its_pictures(pictures: Path) -> None:
    """Another table, another picture or a lost one changes the stamp; looking does not."""
    dataset = table(pictures, single())
    stamps = [images.stamp(dataset)]
    assert images.stamp(dataset) == stamps[0]
    os.utime(pictures / P[5], ns=(1, 1))
    stamps.append(images.stamp(dataset))
    (pictures / P[5]).unlink()
    stamps.append(images.stamp(dataset))
    stamps.append(images.stamp(table(pictures, single(8))))
    assert len(set(stamps)) == 4
