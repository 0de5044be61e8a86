"""Tables as people have them: in the forms of well-known datasets and programs, and at random."""

from __future__ import annotations

import gzip
import io
import random
import re
import shlex
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from sweeper.errors import BadInput
from sweeper.schema import Dataset, Run, without_effect
from sweeper.training import images
from tests.conftest import Said, mostly_slow
from tests.pictures import Colour, write_picture
from tests.program import somebody

N = 6


def colour_of(i: int) -> Colour:
    """Another one for each picture, so that pixels tell which file was read."""
    return (10 * i % 256, 50 + i, 200 - i)


Form = Literal["NFC", "NFD"]
FORMS: tuple[Form, Form] = ("NFC", "NFD")


def lines(header: str, row: str, n: int = N, **values: Sequence[Any]) -> str:
    """A header and ``n`` rows; in ``row`` stand ``{i}``, and names of ``values``, which are taken in turn."""
    told = ({name: of[i % len(of)] for name, of in values.items()} for i in range(n))
    return "".join(f"{line}\n" for line in [header, *(row.format(i=i, **t) for i, t in enumerate(told))])


def read(where: Path, text: str | bytes, name: str = "train.csv", **settings: Any) -> images.Images:
    file = where / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return images.read(Dataset(name="csv", path=str(file), **{"image_size": 8, **settings}))


def refused(where: Path, text: str | bytes, name: str = "train.csv", **settings: Any) -> str:
    """What is said of a table that is refused: one line."""
    with pytest.raises(BadInput, match=r".") as caught:
        read(where, text, name, **settings)
    said = str(caught.value)
    assert "\n" not in said
    return said


def labels_of(found: images.Images) -> list[Any]:
    """Of each image, the names of its class or labels."""
    if found.multi_label:
        return [[found.classes[j] for j in np.flatnonzero(of_image)] for of_image in found.labels]
    return [found.classes[label] for label in found.labels]


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """A folder with the pictures ``0.jpg`` … ``5.jpg`` in it, and in ``img`` as ``0.png`` …"""
    for i in range(N):
        write_picture(tmp_path / f"{i}.jpg", colour_of(i))
        write_picture(tmp_path / "img" / f"{i}.png", colour_of(i))
    return tmp_path


# ------------------------------------------------------------------------- the forms of well-known datasets

AB = ("a", "b")
ONE_LABEL = {
    "cassava": (lines("image_id,label", "{i}.jpg,{x}", x=AB), {}),
    "dog breed": (lines("id,breed", "{i},{x}", x=AB), {"suffix": ".jpg"}),
    "aptos": (lines("id_code,diagnosis", "{i},{x}", x=AB), {"folder": "img", "suffix": ".png"}),
    "humpback": (lines("Image,Id", "{i}.jpg,{x}", x=AB), {}),
    "gtsrb": (lines("Filename;Width;Height;Roi.X1;ClassId", "{i}.jpg;29;30;5;{x}", x=AB), {}),
    "gtsrb on kaggle": (lines("Width,ClassId,Path", "29,{x},img/{i}.png", x=AB), {}),
    "ham10000": (
        lines("lesion_id,image_id,dx,dx_type,age", "HAM_{i},{i},{x},histo,8{i}.0", x=AB),
        {"suffix": ".jpg"},
    ),
    "isic": (lines("image,a,b", "{i},{x}", x=("1.0,0.0", "0.0,1.0")), {"suffix": ".jpg"}),
    "plant pathology": (lines("image_id,a,b", "{i},{x}", x=("1,0", "0,1")), {"suffix": ".jpg"}),
    "visa": (lines("object,split,label,image,mask", "candle,train,{x},{i}.jpg,", x=AB), {}),
    "folds": (lines("path,label,fold", "{i}.jpg,{x},{i}", x=AB), {}),
    "folds of two": (lines("path,label,fold", "{i}.jpg,{x},{y}", x=AB, y=(0, 0, 1)), {}),
    "row numbers": (lines(",path,label", "{i},{i}.jpg,{x}", x=AB), {}),
    "row numbers of a part": (lines(",path,label", "7{i},{i}.jpg,{x}", x=AB), {}),
    "row numbers read and written": (lines("Unnamed: 0,path,label", "{i},{i}.jpg,{x}", x=AB), {}),
    "row numbers twice": (lines(",Unnamed: 0,path,label", "{i},{i},{i}.jpg,{x}", x=AB), {}),
    "R": (lines('"path" "label"', '"{i}" "{i}.jpg" "{x}"', x=AB), {}),
    "named id": (lines("id,path,label", "{i},{i}.jpg,{x}", x=AB), {}),
    "excel": ("sep=;\n" + lines("path;label", "{i}.jpg;{x}", x=AB), {}),
    "delimiters at the end": (lines("path,label,", "{i}.jpg,{x},", x=AB), {}),
    "more of them in the rows": (lines("path,label", "{i}.jpg,{x},,", x=AB), {}),
    "rows of delimiters": (lines("path,label", "{i}.jpg,{x}\n,", x=AB), {}),
    "tabs": (lines("path\tlabel", "{i}.jpg\t{x}", x=AB), {}),
    "bars": (lines("path|label", "{i}.jpg|{x}", x=AB), {}),
    "spaces": (lines("path  label", "{i}.jpg   {x} ", x=AB), {}),
    "a delimiter in names": (lines("image path;label", "./{i}.jpg;{x}", x=AB), {}),
    "mac": (lines("path,label", "{i}.jpg,{x}", x=AB).replace("\n", "\r"), {}),
    "windows": (lines("path,label", ".\\img\\{i}.png,{x}", x=AB), {}),
    "root": (lines("path,label", "/img/{i}.png,{x}", x=AB), {}),
    "another name for all": (
        lines("Bild,Art,Teil", "{i}.jpg,{x},train", x=AB),
        {"path_column": "bild", "label_column": "ART", "split_column": "Teil"},
    ),
    "a column of many": (
        lines("path,class,category", "{i}.jpg,z,{x}", x=AB),
        {"label_column": "category"},
    ),
    "name and suffix": (lines("path,label", "{i}.jpg,{x}", x=AB), {"suffix": ".jpg"}),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize(("text", "settings"), ONE_LABEL.values(), ids=ONE_LABEL)
def test_one_label_in_the_form_of(six: Path, text: str, settings: dict[str, Any]) -> None:
    """Each file has the class that its row says, whatever columns, delimiters and ends of lines there are."""
    found = read(six, text, **settings)
    assert labels_of(found) == ["a", "b"] * 3
    assert np.abs(found.pixels[:, 4, 4].astype(int) - [colour_of(i) for i in range(N)]).max() < 8
    assert found.left_out == {}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t"])
def test_any_encoding_that_tells_itself(six: Path, encoding: str, name: str) -> None:
    """A mark at its beginning tells how a table is written; packed or not; the file's name tells nothing."""
    content = lines("path,label", "{i}.jpg,{x}", x=("Käse", "b")).encode(encoding)
    found = read(six, gzip.compress(content) if name.endswith("gz") else content, name)
    assert labels_of(found) == ["Käse", "b"] * 3


SEVERAL = {
    "planet": (
        lines("image_name,tags", "{i},{x}", x=("haze primary", "clear primary")),
        {"suffix": ".jpg", "label_separator": " "},
        [["haze", "primary"], ["clear", "primary"]],
    ),
    "protein atlas": (
        lines("Id,Target", "{i},{x}", x=("16 0", "7")),
        {"suffix": ".jpg", "label_separator": " "},
        [["0", "16"], ["7"]],
    ),
    "chest x-ray": (
        lines("Image Index,Finding Labels,Follow-up #", "{i}.jpg,{x},0", x=("Mass|Hernia", "No Finding")),
        {"label_separator": "|"},
        [["Hernia", "Mass"], ["No Finding"]],
    ),
    "quoted": (
        lines("path,label", '{i}.jpg,"{x}"', x=("a, b", "b,")),
        {"label_separator": ","},
        [["a", "b"], ["b"]],
    ),
    "fastai": (
        lines("fname,labels,is_valid", "{i}.jpg,{x},False", x=("car person", "car")),
        {"label_separator": " "},
        [["car", "person"], ["car"]],
    ),
    "columns": (lines("path,b,a", "{i}.jpg,{x}", x=("1,1", "0,0")), {}, [["b", "a"], []]),
    "columns and numbered folds": (
        lines("path,Fold 1,b,a,val_fold", "{i}.jpg,{y},{x},0", x=("1,1", "0,0"), y=(0, 1)),
        {},
        [["b", "a"], []],
    ),
    "columns and folds": (lines("path,b,a,fold", "{i}.jpg,{x},1", x=("1,1", "0,0")), {}, [["b", "a"], []]),
    "columns and texts": (
        lines("path,b,age,a,view", "{i}.jpg,{x}", x=("1,80,1,PA", "0,81,0,AP")),
        {},
        [["b", "a"], []],
    ),
}


@pytest.mark.parametrize(("text", "settings", "labels"), SEVERAL.values(), ids=SEVERAL)
def test_several_labels_in_the_form_of(
    six: Path, text: str, settings: dict[str, Any], labels: list[list[str]]
) -> None:
    """Labels stand in one column with a separator, or each in a column of 0 and 1 beside those of others."""
    found = read(six, text, **settings)
    assert found.multi_label
    assert labels_of(found) == labels * 3


@pytest.mark.parametrize(
    ("text", "settings", "parts"),
    [
        (lines("path,label,Split", "{i}.jpg,{x},{y}", x=AB, y=("Training", "TRAIN", "Dev")), {}, [0, 0, 1]),
        (lines("path,label,subset", "{i}.jpg,a,{y}", y=("train", "eval", "testing")), {}, [0, 2, 2]),
        (lines("fname,label,is_valid", "{i}.jpg,a,{y}", y=("False", "True", "0")), {}, [0, 1, 0]),
        (
            lines("path,label,where", "{i}.jpg,a,{y}", y=("train", "valid", "test")),
            {"split_column": "where"},
            [0, 1, 2],
        ),
    ],
)
def test_parts_under_the_usual_names(
    six: Path, text: str, settings: dict[str, Any], parts: list[int]
) -> None:
    """The split is found by its column's name, and its parts by theirs, in any case."""
    text = text.replace("0.jpg,a", "0.jpg,b", 1) if ",b," not in text else text
    found = read(six, text, **settings)
    assert found.part is not None
    train_is_to_split = {-1: 0}
    assert [train_is_to_split.get(part, part) for part in found.part.tolist()] == parts * 2


# -------------------------------------------------------------------------------------- what is never guessed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lines("path,tumour,age", "{i}.jpg,{x},8{i}", x=(0, 1)), "which column is the label?"),
        (lines("path,class,target", "{i}.jpg,{x},{x}", x=(0, 1)), "is it class or target?"),
        (lines("path,target,smoker", "{i}.jpg,{x},{x}", x=(0, 1)), "target, smoker hold 0 and 1"),
        (lines("path,fold", "{i}.jpg,{x}", x=(0, 1)), "no column for labels"),
        (lines("path,score", "{i}.jpg,0.{x}", x=(1, 2)), "score holds numbers or times"),
        (lines("path,taken", "{i}.jpg,2020-01-0{x}", x=(1, 2)), "taken holds numbers or times"),
        (lines("path,a,b", "{i}.jpg,{x},1", x=("1.0", "", "-1.0")), "line 3, column a: '' is neither 0"),
        (lines("path,a,b", "{i}.jpg,{x},1", x=(1, -1)), "line 3, column a: '-1' is neither 0 nor 1"),
        (lines("image_id,label,partition", "{i}.jpg,{x},{x}", x=(0, 1)), "column partition: '0' is not a"),
        (lines("path,label,set", "{i}.jpg,{x},{x}", x=(0, 1)), "column set: '0' is not a part"),
        (lines("path,label,split,is_valid", "{i}.jpg,a,train,0"), "one class only"),
        (lines("path,label,set,subset", "{i}.jpg,a,train,test"), "dataset.split_column=set"),
        (lines("path,tags", "{i}.jpg,{x}", x=("a b", "b c", "c")), "dataset.label_separator="),
        (lines("path,label", "{i}.jpg,{x}", x=("a|b", "b|c", "c")), "dataset.label_separator="),
        (lines("Datei;Art", "{i}.jpg;{x}", x=AB), "write dataset.path_column=Datei"),
        (
            lines("path,label", "{i}.jpg,\"['{x}', 'c']\"", x=AB),
            "column label holds lists, such as ['a', 'c']",
        ),
        ('{"0.jpg": "a",\n "1.jpg": "b"}', "is JSON, not a table; save it as"),
        ('[{"path": "0.jpg", "label": "a"}]', "is JSON, not a table; save it as"),
        (lines("path,label", "{i}.jpg,{x}", x=AB).replace("a", "ä").encode("latin-1"), "is not UTF-8"),
    ],
)
def test_what_may_mean_two_things_is_refused(six: Path, text: str | bytes, said: str) -> None:
    """Where names and values leave open what a column is, a person is asked, with the key to write."""
    assert said in refused(six, text)


def test_label_of_ten_values_in_ten_rows_is_none(tmp_path: Path) -> None:
    """A column with another value in each row names no classes, whatever it is called."""
    assert "names no classes" in refused(tmp_path, lines("path,label", "{i}.jpg,{i}.5", n=10))


def test_what_is_read_in_one_of_two_ways_is_told(six: Path) -> None:
    """Columns that are not used, row numbers and one-hot labels are told in a line each."""
    found = read(six, lines(",path,label,fold,age", "{i},{i}.jpg,{x},{i},7", x=AB))
    told = found.remarks
    assert any("column without a name holds row numbers" in line for line in told)
    assert any("2 columns are not used, as the label is label: fold, age" in line for line in told)
    told = read(six, lines("path,a,b", "{i}.jpg,{x}", x=("1,0", "0,1"))).remarks
    assert told == (
        "each row has exactly one 1 in the columns a, b: read as one label for each image, of 2 classes",
    )
    told = read(six, lines("path,label", "{i}.jpg,{x}", x=("dog house", "dog"))).remarks
    assert "each is read as one label; for several write 'dataset.label_separator= '" in told[0]
    told = read(six, lines("path,label", "{i}.jpg,{x}", x=("Cat", "cat"))).remarks
    assert told == ("classes that differ in upper and lower case only: Cat and cat",)


def test_separator_that_separates_nothing_is_refused(six: Path) -> None:
    """``dataset.label_separator`` that no value holds is a slip, not a set of single labels."""
    said = refused(six, lines("path,label", "{i}.jpg,{x}", x=("a|b", "b")), label_separator=";")
    assert said.startswith("dataset.label_separator=';': no value in column label has it")
    said = refused(six, lines("path,a,b", "{i}.jpg,1,{x}", x=(0, 1)), label_separator=";")
    assert said.startswith("dataset.label_separator=';': is it for one of a, b?")


def test_relative_folder_is_kept_for_good(six: Path, said: Said) -> None:
    """What a trial remembers of ``dataset.folder`` leads there from anywhere."""
    (six / "t.csv").write_text(lines("id,label", "{i},{x}", x=AB))
    keys = ("dataset.folder=img", "dataset.suffix=.png", "dataset.image_size=8")
    parts = ("dataset.val_fraction=0.3", "dataset.test_fraction=0", "training.epochs=1", "study=s")
    code, printed = said("dataset=csv", "dataset.path=t.csv", *keys, *parts)
    assert code == 0, printed
    saved = yaml.safe_load((six / "outputs" / "s" / "trial.yaml").read_text())
    assert saved["dataset"]["folder"] == str(six / "img")


@pytest.mark.parametrize("key", ["path_column", "label_column", "split_column"])
def test_column_that_is_not_there_is_named(six: Path, key: str) -> None:
    """A key that names no column is told with the nearest one and all that there are."""
    said = refused(six, lines("path,label,split", "{i}.jpg,{x},train", x=AB), **{key: "lable"})
    assert said.startswith(f"dataset.{key}=lable: there is no such column; did you mean label?")
    assert "path, label, split" in said


@pytest.mark.parametrize(
    ("dataset", "told"), [("csv", []), ("digits", ["dataset.suffix=.jpg has no effect with dataset=digits"])]
)
def test_keys_of_tables_have_no_effect_elsewhere(dataset: str, told: list[str]) -> None:
    """A key that only tables have is told where another dataset is read."""
    run = Run()
    run.dataset = Dataset(name=dataset, path="t.csv", suffix=".jpg")
    assert [line.partition(":")[0] for line in without_effect(run)] == told


# ------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize(
    ("folder", "name", "written"),
    [
        ("train_images", "{i}.jpg", "{i}.jpg"),
        ("my pictures", "{i}.jpg", "{i}.jpg"),
        ("a/b", "{i}.JPG", "{i}"),
        ("it's", "x{i}.png", "x{i}"),
        (".", "{i}.png", "{i}"),
        ("../beside", "{i}.png", "{i}.png"),
        (".", "{i}.png", "data/{i}.png"),
    ],
)
def test_remedy_for_files_elsewhere_works(tmp_path: Path, folder: str, name: str, written: str) -> None:
    """Where all files are in one other folder, or lack one suffix, the line says what to write; it works."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(N):
        write_picture(data / folder / name.format(i=i), colour_of(i))
    text = lines("path,label", f"{written},{{x}}", x=AB)
    said = refused(data, text)
    assert "6 image files are missing, first in line 2, column path: " in said
    settings = dict(word.partition("=")[::2] for word in shlex.split(said.partition("; write ")[2]))
    settings = {key.removeprefix("dataset."): value for key, value in settings.items()}
    assert labels_of(read(data, text, **settings)) == ["a", "b"] * 3


def test_two_remedies_for_files_elsewhere_are_both_told(six: Path) -> None:
    """Where two suffixes or folders fit, the line names both, and chooses none."""
    text = lines("id,label", "{i},{x}", x=AB)
    for i in range(N):
        write_picture(six / f"{i}.png", colour_of(i))
    said = refused(six, text)
    assert "write dataset.suffix=." in said
    assert {".jpg", ".png"} <= set(said.replace("dataset.suffix=", "").split())
    assert "dataset.folder" not in said


@pytest.mark.parametrize("start", ["/content/drive/MyDrive/", "C:\\Users\\me\\pets\\", "pets/", "file:///"])
def test_what_paths_of_another_machine_begin_with_is_told(six: Path, start: str) -> None:
    """Where all paths are right but for their beginning, the line says what to remove; that works."""
    text = lines("path,label", start + "{i}.jpg,{x}", x=AB)
    said = refused(six, text)
    assert f"remove '{start}' from the start of each path" in said
    assert labels_of(read(six, text.replace(start, ""))) == ["a", "b"] * 3


def test_folder_with_several_tables_names_them(six: Path) -> None:
    """One of them is written out as it is typed."""
    for name in ("test.csv", "train labels.csv", "val.tsv"):
        (six / name).write_text("path,label\n")
    with pytest.raises(
        BadInput, match=r"dataset\.path=.*/test\.csv, or one of train labels\.csv, val\.tsv, or"
    ):
        images.read(Dataset(name="csv", path=str(six)))


def test_files_in_several_folders_are_told(tmp_path: Path) -> None:
    """Where no one folder has all files, the line says where the first is."""
    for i in range(N):
        write_picture(tmp_path / f"part_{i % 2}" / f"{i}.png", colour_of(i))
    said = refused(tmp_path, lines("id,label", "{i},{x}", x=AB))
    assert f"put all files into one folder: that one is {tmp_path}/part_0/0.png" in said


def test_name_in_other_case_is_told(six: Path) -> None:
    """Where a file is called so in other letters, small or capital, the line names it."""
    said = refused(six, lines("path,label", "IMG/{i}.PNG,{x}", x=AB))
    assert said.endswith(f"write it as on disk: {six}/img/0.png")


@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("written", FORMS)
def test_unicode_is_one_in_all_its_forms(tmp_path: Path, on_disk: Form, written: Form) -> None:
    """A letter in one piece or in two is the same in files, folders, classes and columns."""
    for i in range(N):
        name = unicodedata.normalize(on_disk, f"bücher/é{i}.png")
        write_picture(tmp_path / name, colour_of(i))
    text = lines("path,größe", "bücher/é{i}.png,{x}", x=("süß", "b"))
    found = read(tmp_path, unicodedata.normalize(written, text), label_column="größe")
    assert found.classes == ("b", "süß")
    assert found.names == tuple(f"bücher/é{i}.png" for i in range(N))


def test_exact_form_of_unicode_comes_first(tmp_path: Path) -> None:
    """Where both forms are there as files of their own, each row means its own."""
    for i, form in enumerate(FORMS):
        write_picture(tmp_path / unicodedata.normalize(form, "é.png"), colour_of(20 * i))
    forms = [unicodedata.normalize(form, "é.png") for form in FORMS]
    found = read(tmp_path, f"path,label\n{forms[1]},a\n{forms[0]},b\n")
    assert found.pixels[:, 4, 4].tolist() == [list(colour_of(20)), list(colour_of(0))]


def test_names_are_the_same_however_they_are_written(six: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides on the split is the file's place below the folder, whole path or not."""
    monkeypatch.chdir(six)
    whole = lines("path,label", f"{six}/img/{{i}}.png,{{x}}", x=AB)
    wanted = tuple(f"img/{i}.png" for i in range(N))
    for path in (
        "img/{i}.png",
        "./img/{i}.png",
        ".\\img\\{i}.png",
        f"{six}/img/{{i}}.png",
        "img/../img/{i}.png",
    ):
        assert read(six, lines("path,label", f"{path},{{x}}", x=AB)).names == wanted
    assert read(six, lines("id,label", "img/{i},{x}", x=AB), suffix=".png").names == wanted
    assert read(Path(), whole).names == wanted


def test_folder_is_looked_for_here_and_beside_the_table(
    six: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``dataset.folder`` may be written as seen from here or from the table; which of two is asked."""
    text = lines("path,label", "{i}.png,{x}", x=AB)
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    assert len(read(six, text, folder="img").labels) == N
    (here / "img").mkdir()
    assert "dataset.folder=img: may be" in refused(six, text, folder="img")
    assert "there is no such folder" in refused(six, text, folder="none")


def test_names_that_look_like_paths_are_read(tmp_path: Path) -> None:
    """A file may begin with ``~``, hold a backslash, a delimiter, a quote or a line break."""
    names = ["~nobody.png", "a\\b.png", "x,y;z|.png", 'q"r.png', "two\nlines.png", "#1.png"]
    for i, name in enumerate(names):
        write_picture(tmp_path / name, colour_of(i))
    out = io.StringIO()
    import csv

    csv.writer(out).writerows([("path", "label"), *((name, "ab"[i % 2]) for i, name in enumerate(names))])
    found = read(tmp_path, out.getvalue())
    assert found.pixels[:, 4, 4].tolist() == [list(colour_of(i)) for i in range(len(names))]


@pytest.mark.parametrize("n_bytes", [300, 5000])
def test_name_that_is_too_long_is_missing(six: Path, n_bytes: int) -> None:
    """What the system refuses to look for is one line, too."""
    assert "too long" in refused(six, lines("path,label", "{i}.jpg,{x}", x=AB) + f"{'x' * n_bytes},a\n")


def test_folder_with_one_table_names_it(six: Path) -> None:
    """Who gives the table's folder is told the table."""
    (six / "labels.csv").write_text("path,label\n")
    with pytest.raises(BadInput, match=r"is a folder, not a file; write dataset\.path=.*/labels\.csv, or"):
        images.read(Dataset(name="csv", path=str(six)))


# -------------------------------------------------------------------------------- what is left out is counted


def test_what_is_skipped_is_counted_by_reason(six: Path) -> None:
    """With ``skip_unreadable`` the files that are not there, not readable or without a label are counted."""
    (six / "1.jpg").write_bytes(b"no picture")
    text = lines("path,label", "{i}.jpg,{x}", n=9, x=AB).replace("3.jpg,b", "3.jpg,nan")
    found = read(six, text, skip_unreadable=True)
    assert found.left_out == {"without a label": 1, "missing": 3, "that cannot be read": 1}
    assert found.names == ("0.jpg", "2.jpg", "4.jpg", "5.jpg")
    text = text.replace("nan", "b")
    assert "3 image files are missing, first in line 8, column path" in refused(six, text)
    assert "3 image files are missing" in refused(six, text.replace("0.jpg,a", "0.jpg,c"))


def test_row_without_a_label_is_named(six: Path) -> None:
    """An empty label is told with its line, whatever a program wrote for nothing, and how many there are."""
    for nothing in ("", "NaN", "nan", "NA", "<NA>"):
        said = refused(six, lines("path,label", "{i}.jpg,{x}", x=("a", nothing)))
        assert "line 3, column label: is empty" in said
        assert "as 2 more rows" in said


def test_rows_that_say_the_same_are_one(six: Path) -> None:
    """A row that is there twice is used once, and told; two that differ are refused."""
    text = lines("path,label", "{i}.jpg,{x}", x=AB)
    found = read(six, text + "./0.jpg,a\n")
    assert len(found.labels) == N
    assert any("1 row says the same" in line for line in found.remarks)
    assert "line 8, column path" in refused(six, text + "./0.jpg,b\n")


def test_group_is_a_column_of_the_table(six: Path) -> None:
    """What belongs together is told by a column, which is no label."""
    text = lines("path,tumour,Patient_ID", "{i}.jpg,{x},p{y}", x=(0, 1), y=(1, 1, 2))
    found = read(six, text, group="patient_id")
    assert found.groups == ("p1", "p1", "p2") * 2
    assert labels_of(found) == ["0", "1"] * 3
    assert read(six, text.replace(",Patient_ID", ",label"), group=r"(\d)").groups is None


def test_only_train_needs_every_class(six: Path) -> None:
    """A class that val or test lacks is fine; one that train lacks is refused by name."""
    text = "path,label,split\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,a,val\n3.jpg,b,test\n"
    assert len(read(six, text).labels) == 4
    assert "class c is in test (1 image), but not in train" in refused(six, text + "4.jpg,c,test\n")


# -------------------------------------------------------------------------------------------------- Parquet


def parquet(columns: dict[str, list[Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def test_parquet_is_read_as_text_is(six: Path) -> None:
    """Rows, columns and rules are the same; whole numbers have no point, gaps or not; nothing is nothing."""
    paths = [f"{i}.jpg" for i in range(N)]
    content = parquet({"path": paths, "label": [0, 1, 2] * 2, "__index_level_0__": list(range(N))})
    found = read(six, content, "t.parquet")
    assert labels_of(found) == ["0", "1", "2"] * 2
    assert any("row numbers" in line for line in found.remarks)
    content = parquet({"path": paths, "label": [1.0, 2.0, None] * 2})
    assert "row 3, column label: is empty" in refused(six, content)
    assert labels_of(read(six, content, skip_unreadable=True)) == ["1", "2"] * 2
    several = parquet({"path": paths, "b": [True, False] * 3, "a": [True] * N})
    assert labels_of(read(six, several)) == [["b", "a"], ["a"]] * 3
    assert "column label holds list" in refused(six, parquet({"path": paths, "label": [["a"]] * N}))
    pictures: list[Any] = [{"bytes": b"x"}] * N
    assert "column image holds dict" in refused(six, parquet({"image": pictures, "label": [0, 1] * 3}))


def test_parquet_without_a_library_is_one_line(six: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither pyarrow nor pandas is installed, the line says how to install it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # Python's own way to say that it is not there
    monkeypatch.setitem(sys.modules, "pandas", None)
    said = refused(six, b"PAR1", "t.parquet")
    assert said.endswith("is Parquet, which needs pyarrow or pandas; write: python -m pip install pyarrow")


# -------------------------------------------------------------------------------------------------- at random

FAULTS = ("missing", "unlabelled", "unreadable", "repeated", "twice", "ragged", "part", "pathless")


@dataclass
class Case:
    """A table made at random, and what is known of it without reading it."""

    text: bytes
    settings: dict[str, Any]
    labels: dict[str, str]
    """Of each file that is there and can be read, by its path."""
    out: dict[str, str]
    """Of each file that must be counted, why."""
    faults: set[str]
    lines: dict[str, int] = field(default_factory=dict)
    """Of each fault, the line of the first row that has it."""


def quoted(value: str, delimiter: str, always: bool) -> str:
    if always or any(c in value for c in f'{delimiter}"\n\r'):
        return '"' + value.replace('"', '""') + '"'
    return value


def make(folder: Path, seed: int) -> Case:
    """Write the pictures of a case, and make its table."""
    draw = random.Random(seed)
    delimiter = draw.choice(",,;\t|")
    end, always = draw.choice(["\n", "\r\n", "\r"]), draw.random() < 0.3
    path, label = (
        draw.choice(["path", "Image", "file_name", "image_id"]),
        draw.choice(["label", "Class", "target"]),
    )
    suffix = draw.choice([None, None, ".png"])
    below = draw.choice(["", "img", "ünï/a b"])
    faults = set(draw.sample(FAULTS, draw.choice([0, 0, 1, 1, 2])))
    skip = draw.random() < 0.6
    header = [path, label]
    header += ["split"] if "part" in faults or draw.random() < 0.4 else []
    header += draw.sample(["fold", "age", "note"], draw.randint(0, 3))
    draw.shuffle(header)
    index = draw.choice([None, "", "Unnamed: 0"])
    n = draw.randint(14, 22)
    classes = draw.sample(["cat", "Käse", "1", "01", "big dog", 'the "x"', "a,b"], 3)
    if delimiter == "," and draw.random() < 0.5:
        classes[0] = "x, y z"
    case = Case(b"", {"skip_unreadable": skip, "label_column": label}, {}, {}, faults)
    in_folder = below != "" and draw.random() < 0.5
    rows, kinds = list[list[str]](), list[str]()
    for i in range(n):
        stem = draw.choice(["{}", "img {}", "é{}", "x,{}", "{}.v2"]).format(i)
        name, kind = f"{stem}.png", ""
        if i >= 9 and (open_ := sorted(faults - set(kinds))):
            kind = open_[0]
        on_disk = unicodedata.normalize(draw.choice(FORMS), name)
        file = folder / below / on_disk
        if kind != "missing":
            write_picture(file, colour_of(i))
        if kind == "unreadable":
            file.write_bytes(b"no picture")
        written = f"{stem}" if suffix else name
        written = f"{below}/{written}" if below and not in_folder else written
        if draw.random() < 0.2:
            written = written.replace("/", "\\")
        values = {
            path: "" if kind == "pathless" else written,
            label: "" if kind == "unlabelled" else classes[i % 3],
            "split": "nowhere" if kind == "part" else draw.choice(["Train", "train", "training"]),
            "fold": str(draw.randint(0, 1)),
            "age": str(draw.randint(0, 90)),
            "note": draw.choice(["", "fine", "two\nlines", 'said "no"', f"a{delimiter}b"]),
        }
        rows.append([values[column] for column in header] + (["one more"] if kind == "ragged" else []))
        kinds.append(kind)
        if kind in ("missing", "unlabelled", "unreadable"):
            case.out[str(file)] = kind
        elif kind != "pathless":
            case.labels[str(file)] = classes[i % 3]
        if kind in ("repeated", "twice"):
            again = list(rows[-1])
            again[header.index(label)] = classes[(i + (kind == "twice")) % 3]
            rows.append(again)
            kinds.append("again" if kind == "repeated" else kind)
    text = ""
    for i, row in enumerate([header, *rows]):
        number = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        if i:
            case.lines[kinds[i - 1]] = number  # of two rows that differ, the second
            row = [str(i - 1), *row] if index is not None else row
        elif index is not None:
            row = [index, *row]
        text += delimiter.join(quoted(value, delimiter, always) for value in row) + end
        text += end if draw.random() < 0.05 else ""
    if suffix:
        case.settings["suffix"] = suffix
    if in_folder:
        case.settings["folder"] = below
    encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16"])
    case.text = text.encode(encoding)
    return case


SKIPPED = {"missing": "missing", "unlabelled": "without a label", "unreadable": "that cannot be read"}


@pytest.mark.parametrize("seed", mostly_slow(range(120), every=10))
def test_every_row_of_a_random_table_is_used_counted_or_named(tmp_path: Path, seed: int) -> None:
    """Each file is used once with its label, or counted among what is left out, or the line names a fault."""
    case = make(tmp_path, seed)
    fatal = case.faults - {"repeated"} - (set(SKIPPED) if case.settings["skip_unreadable"] else set())
    if fatal:
        said = refused(tmp_path, case.text, "t.csv", **case.settings)
        named = [
            re.search(rf"line {case.lines[fault]}\b", said) is not None
            for fault in fatal
            if fault != "unreadable"
        ]
        unreadable = "unreadable" in fatal and "is not a readable image" in said
        assert any(named) or unreadable, (said, case.lines, fatal)
        return
    found = read(tmp_path, case.text, "t.csv", **case.settings)
    assert found.files is not None
    assert len(set(found.files)) == len(found.files)
    assert dict(zip(found.files, labels_of(found), strict=True)) == case.labels
    counts = {SKIPPED[kind]: list(case.out.values()).count(kind) for kind in set(case.out.values())}
    assert found.left_out == counts
    assert any("says the same" in line for line in found.remarks) == ("repeated" in case.faults)


def test_a_folder_that_may_not_be_entered_is_told() -> None:
    """Files that nobody can look for are not called missing from the wrong place."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_picture(folder / "img" / "0.png")
        (folder / "train.csv").write_text(lines("path,label", "img/{i}.png,{x}", x=AB))
        (folder / "img").chmod(0)
        with somebody(), pytest.raises(BadInput, match=r"\(no permission to read it\), first .*chmod"):
            images.read(Dataset(name="csv", path=f"{name}/train.csv"))
