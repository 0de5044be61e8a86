"""Which folders are parts and classes: what is not sure is refused, with what to do, and that works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweeper.errors import BadInput
from sweeper.literal import literal
from sweeper.schema import Dataset
from sweeper.training.dataset import TEST, TRAIN, VAL
from sweeper.training.readers.image_folder import Finding, find
from tests.pictures import write_picture

BOTH = ("cat", "dog")


def fill(root: Path, folders: Mapping[str, int]) -> Path:
    """So many pictures in each folder."""
    write_picture(root.parent / "one.png")
    content = (root.parent / "one.png").read_bytes()
    for folder, n in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (root / folder / f"{i}.png").write_bytes(content)
    return root


def look(root: Path, layout: str = "auto") -> Finding:
    return find(Dataset(name="image_folder", path=str(root), layout=layout))


def in_each(parts: Mapping[str, int], classes: tuple[str, ...] = BOTH) -> dict[str, int]:
    return {f"{part}/{name}": n for part, n in parts.items() for name in classes}


def counts(found: Finding) -> dict[tuple[int, str], int]:
    keys = [(entry.part, entry.class_name) for entry in found.entries]
    return {key: keys.count(key) for key in dict.fromkeys(keys)}


# --- parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("TRAINING", "Validation", "Testing"),
        ("training", "valid", "eval"),
        ("Train", "dev", "TEST"),
    ],
    ids=" ".join,
)
def test_parts_have_the_usual_names_in_any_case(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """Training/ beside Testing/ are parts, not classes."""
    root = fill(tmp_path / "data", in_each(dict(zip(names, (3, 1, 2), strict=True))))
    assert counts(look(root)) == {
        (part, name): n for part, n in ((TRAIN, 3), (VAL, 1), (TEST, 2)) for name in BOTH
    }


@pytest.mark.parametrize("beside", [{}, {"annotations": 0}, {".cache": 2}], ids=str)
def test_a_folder_without_pictures_may_lie_beside_parts(tmp_path: Path, beside: dict[str, int]) -> None:
    """It holds no images that could be forgotten."""
    root = fill(tmp_path / "data", {**in_each({"train": 2, "test": 1}), **beside})
    assert len(look(root).entries) == 6


def test_a_class_may_be_missing_in_val_and_test(tmp_path: Path) -> None:
    """Only training must have all."""
    root = fill(tmp_path / "data", {**in_each({"train": 2}), "val/cat": 1, "test/dog": 1, "test/cat": 0})
    assert counts(look(root)) == {
        **{(TRAIN, name): 2 for name in BOTH},
        (VAL, "cat"): 1,
        (TEST, "dog"): 1,
    }


def test_class_names_are_compared_with_composed_letters(tmp_path: Path) -> None:
    """A folder that a Mac named is the same class as one that Linux did."""
    root = fill(tmp_path / "data", {"train/caf\u00e9": 1, "train/tee": 1, "test/cafe\u0301": 1})
    assert counts(look(root)) == {(TRAIN, "caf\u00e9"): 1, (TRAIN, "tee"): 1, (TEST, "caf\u00e9"): 1}


# --- what is refused, and the remedy ------------------------------------------------------------------------

MASKS = in_each({"images": 2, "masks": 2})
REFUSED: dict[str, tuple[dict[str, int], str, str]] = {
    "two for one part": (
        {**in_each({"train": 2, "val": 1, "validation": 1})},
        "",
        r"val, validation are both val",
    ),
    "one part twice by case": ({**in_each({"train": 2, "Train": 1, "test": 1})}, "", r"are both train"),
    "parts beside others": (
        {**in_each({"train": 2, "test": 1, "more": 1})},
        "",
        r"parts train, test and beside them more",
    ),
    "only one more part": ({**in_each({"test": 2, "more": 1})}, "", r"parts test and beside them more"),
    "no train": ({**in_each({"valid": 2, "test": 1})}, "", r"has valid, but no train"),
    "one folder around": (
        {"pets/cat": 2, "pets/dog": 2},
        "",
        r"holds one folder of images only, pets, and the classes",
    ),
    "two folders around": ({"a/b c/cat": 2, "a/b c/dog": 2}, "", r"one folder of images only, a,"),
    "one around parts": (
        {f"pets/{k}": n for k, n in in_each({"train": 2, "test": 1}).items()},
        "",
        r"one folder of images only, pets",
    ),
    "around, beside a picture": ({"pets/cat": 2, "pets/dog": 2, "": 1}, "", r"one folder of images only"),
    "two sets with parts": (
        {f"{s}/{k}": n for s in ("pets", "birds") for k, n in in_each({"train": 2, "test": 1}).items()},
        "",
        r"has the parts train, test",
    ),
    "one set with parts": (
        {**{f"pets/{k}": n for k, n in in_each({"train": 2, "val": 1}).items()}, "misc": 3},
        "",
        r"pets has the parts train, val, and misc lie",
    ),
    "sets two levels down": (
        {f"{y}/{s}/{c}": 2 for y in ("2019", "2020", "2021", "2022") for s in ("n", "s") for c in BOTH},
        "",
        r"n, s are in 2019, 2020, 2021 and 1 more",
    ),
    "Set1 and Set2": (in_each({"Set1": 4, "Set2": 2}), "", r"cat, dog are in Set1, Set2: parts"),
    "any case": ({"A/cat": 4, "A/dog": 4, "B/CAT": 1, "B/DOG": 1}, "", r"are in A, B"),
    "seen and unseen": (in_each({"seen": 2, "unseen": 4}), "", r"are in seen, unseen: parts"),
    "learn and check": (in_each({"learn": 2, "check": 2}), "", r"are in check, learn: parts"),
    "training and holdout": (in_each({"training": 2, "holdout": 1}), "", r"are in holdout, training: parts"),
    "seg_train and seg_test": (
        in_each({"seg_train": 2, "seg_test": 2, "seg_pred": 1}),
        "",
        r"seg_test, seg_train: parts of other names",
    ),
    "in themselves, and one without classes": (
        {**in_each({"a_train/a_train": 2, "a_val": 1}), "a_test/a_test": 2},
        "",
        r"a_test, a_train, a_val: parts of other names",
    ),
    "all once more": ({"cat": 2, "dog": 2, **in_each({"pets": 2})}, "", r"cat, dog are in pets, and beside"),
    "five sites": (
        in_each({f"site{i}": 2 for i in range(5)}),
        "",
        r"site0, site1, site2 and 2 more: no classes",
    ),
    "trainset and testset": (in_each({"trainset": 2, "testset": 2}), "", r"are in testset, trainset: parts"),
    "traindata and testdata": (in_each({"testdata": 3, "traindata": 2}), "", r"traindata: parts of other"),
    "sites in parts": (
        {f"{p}/{s}/{c}": 2 for p in ("train", "test") for s in ("camera1", "camera2") for c in BOTH},
        "",
        r"cat, dog are in camera1, camera2 of train: no classes\?",
    ),
    "a test beside a set with parts": (
        {**in_each({"all/all/train": 2, "all/all/val": 1}), "test/test": 3},
        "",
        r"holds the parts test and beside them all",
    ),
    "variants": (
        in_each({"grayscale": 3, "color": 3, "segmented": 3}),
        "",
        r"color, grayscale, segmented: each is a dataset",
    ),
    "images and masks above": (MASKS, "", r"images, masks: each is a dataset"),
    "masks in each class": (
        {"cat/images": 2, "cat/masks": 2, "dog/images": 2, "dog/masks": 2},
        "",
        r"images, masks are in cat, dog, beside other",
    ),
    "masks beside pictures": ({"cat": 2, "cat/mask": 2, "dog": 2, "dog/mask": 1}, "", r"mask is in cat, dog"),
    "masks in parts": (
        {f"{p}/{c}{m}": 2 for p in ("train", "test") for c in BOTH for m in ("", "/masks")},
        "",
        r"masks is in cat, dog of train",
    ),
    "parts below classes": (
        {f"{c}/{p}": 2 for c in BOTH for p in ("train", "test")},
        "",
        r"the parts train, test are in the class cat, not above it",
    ),
    "a class": ({"cat": 2, "dog": 2}, "cat", r"cat has no class folders"),
    "a class with a folder": ({"cat": 2, "cat/more": 2, "dog": 2}, "cat", r"one class folder only \(more\)"),
    "a class with folders": (
        {"cat": 5, "cat/a": 1, "cat/b": 2, "dog": 2},
        "cat",
        r"5 pictures lie beside the fol",
    ),
    "a class of a part": (in_each({"train": 2, "test": 1}), "train/cat", r"cat has no class folders"),
    "a test without classes": (
        {**in_each({"train": 2}), "test": 4},
        "",
        r"test has no class folders, so nobody knows",
    ),
    "a test of another name": (
        {**in_each({"train": 2}), "test1": 4},
        "",
        r"test1, train: parts of other names",
    ),
    "a test of one folder": (
        {**in_each({"train": 2}), "test/unknown": 4},
        "",
        r"test has none of the classes of train, but unknown",
    ),
    "parts in themselves": (
        {f"{p}/{p}/{c}": 2 for p in ("train", "test") for c in BOTH},
        "",
        r"train holds one folder only, train",
    ),
    "a class that train lacks": (
        {**in_each({"train": 2}), "test/owl": 1, "test/cat": 1},
        "",
        r"test has the class owl, which train lacks",
    ),
    "a class in another case": (
        {**in_each({"train": 2}), "test/Cat": 1},
        "",
        r"test has the class Cat, which train lacks, but for cat",
    ),
    "an empty class": ({"cat": 2, "dog": 2, "owl": 0}, "", r"there are no images in .*owl"),
    "an empty class of train": ({**in_each({"train": 2}), "train/owl": 0}, "", r"no images in .*owl"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_two_things_is_refused_and_the_remedy_works(tmp_path: Path, case: str) -> None:
    """The line says what was found; what it says to do, done, gives a dataset of two classes."""
    folders, below, reason = REFUSED[case]
    root = fill(tmp_path / "my data", folders)
    with pytest.raises(BadInput, match=rf"^dataset\.path=.*{reason}") as caught:
        look(root / below)
    if AS_CLASSES in caught.value.remedy:
        as_classes = look(root / below, layout="classes")
        classes = {entry.class_name for entry in as_classes.entries}
        assert classes == {path.name for path in (root / below).iterdir() if path.is_dir()}
    assert caught.value.remedy in str(caught.value)
    found = look(do(caught.value.remedy, root / below))
    assert {entry.class_name.casefold() for entry in found.entries} == {"cat", "dog"}


AS_CLASSES = "dataset.layout=classes"


def do(remedy: str, root: Path) -> Path:
    """Do what a remedy says, and give the path to write then."""
    if argument := re.search(r"(?:write|or) ('?dataset\.path=.*?)(, or |$)", remedy):
        (typed,) = literal(shlex.split(argument[1]))
        return Path(str(OverridesParser.create().parse_override(typed).value()))
    if up := re.match(r"move them from (\S+) up into (\S+), and remove", remedy):
        for part in ("train", "test"):
            above, inner = root / up[2].replace("train", part), root / up[1].replace("train", part)
            for folder in list(inner.iterdir()):
                folder.rename(above / folder.name)
            inner.rmdir()
    elif itself := re.search(r"or rename it to (\S+)", remedy):
        (empty,) = (path for path in root.rglob(itself[1][1:]))
        empty.rename(empty.with_name(itself[1]))
    elif each := re.search(r"rename each (\S+) to (\S+) to leave", remedy):
        for folder in list(root.rglob(each[1])):
            folder.rename(folder.with_name(each[2]))
    elif up := re.search(r"rename (\S+) to (\S+), and so on if these are the classes", remedy):
        assert Path(up[1]).name == Path(up[2]).name
        for folder in list(root.glob("*/*/*")):  # all of a class into one folder, under names of their own
            for file in list(folder.iterdir()):
                target = folder.parents[1] / folder.name / f"{folder.parent.name}-{file.name}"
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
            folder.rmdir()
        for folder in [path for path in root.glob("*/*") if not any(path.iterdir())]:
            folder.rmdir()
    elif re.search(r"and so on", remedy):
        for folder in list(root.glob("*/*")):
            (root / folder.name).mkdir(exist_ok=True)
            folder.rename(root / folder.name / folder.parent.name)
    elif remedy.startswith("name the folder"):
        (root / "valid").rename(root / "train")
    else:
        renamed = re.findall(r"([\w/]+) to (\.?\w+)", remedy.rpartition("rename ")[2])
        assert renamed, remedy
        for old, new in renamed:
            where = next(path for path in root.rglob("*") if path.name == Path(old).name)
            where = where if "/" not in old else root / old
            where.rename(where.with_name(new) if new[0] == "." or new in (*BOTH, "Cat") else root / new)
    return root


@pytest.mark.parametrize(
    ("folders", "n_classes"),
    [
        ({f"{c}/{s}": 2 for c in ("bird", "cat", "dog") for s in ("front", "side")}, 3),
        ({f"{c}/p{i}": 2 for c in BOTH for i in range(5)}, 2),
    ],
    ids=["views", "patients"],
)
def test_nobody_is_advised_to_train_on_what_may_be_the_test(
    tmp_path: Path, folders: dict[str, int], n_classes: int
) -> None:
    """Where neither names nor sizes tell parts, the way to read the folders as classes comes first."""
    root = fill(tmp_path / "data", folders)
    with pytest.raises(BadInput) as caught:
        look(root)
    assert caught.value.remedy.startswith("write dataset.layout=classes if ")
    assert "rename" not in caught.value.remedy
    assert len({entry.class_name for entry in look(root, layout="classes").entries}) == n_classes


def test_classes_of_parts_may_hold_the_same_folders(tmp_path: Path) -> None:
    """``dataset.layout=parts`` takes each folder below a part for a class, whatever is in it."""
    views = {f"{p}/{c}/{v}": 1 for p in ("train", "test") for c in BOTH for v in ("front", "side")}
    root = fill(tmp_path / "data", views)
    with pytest.raises(
        BadInput, match=r"front, side are in cat, dog of train.*dataset\.layout=parts if cat, dog"
    ):
        look(root)
    assert counts(look(root, layout="parts")) == {(p, c): 2 for p in (TRAIN, TEST) for c in BOTH}
    with pytest.raises(BadInput, match="has no parts, but front, side; name them train"):
        look(root / "train" / "cat", layout="parts")


@pytest.mark.parametrize(
    "folders",
    [
        {"cat/images": 2, "dog/images": 2, "owl/images": 2},
        {"cat/a": 1, "dog/b": 2},
        {"cat/in": 1, "cat/out": 1, "dog": 2, "owl": 2, "hen": 2},
        {"cat": 2, "dog": 2, "train": 1},
        {"learn": 2, "check": 2},
        {"images": 2, "texts": 2},
        {"masks": 2, "gloves": 2},
        {"class 1": 2, "class 2": 2},
        {"1": 2, "2": 2},
        {"image 1": 2, "photo 2": 2},
        {"animals/cat": 1, "animals/dog": 1, "plants/rose": 1, "plants/oak": 1},
    ],
    ids=str,
)
def test_what_is_no_ambiguity_is_read(tmp_path: Path, folders: dict[str, int]) -> None:
    """One folder in each class and nothing beside it, folders of some classes, a class of trains."""
    found = look(fill(tmp_path / "data", folders))
    assert len(found.entries) == sum(folders.values())
    assert {entry.class_name for entry in found.entries} == {name.partition("/")[0] for name in folders}


def test_pictures_beside_classes_may_be_left_out(tmp_path: Path) -> None:
    """Where they are more than those in folders, only if that is said."""
    root = fill(tmp_path / "data", {"": 5, "cat": 1, "dog": 1})
    with pytest.raises(BadInput, match=r"5 pictures lie beside .*dataset\.layout=classes to leave them out"):
        look(root)
    found = look(root, layout="classes")
    assert found.left_out == {"beside the class folders": 5}
    assert len(found.entries) == 2


@pytest.mark.parametrize(
    ("here", "path", "written"),
    [
        ("pets", "cat", "."),
        ("", "pets/cat", "pets"),
        ("pets/cat", ".", "{}/pets"),
        ("", "{}/pets/cat", "{}/pets"),
        ("dogs/train", "a", "{}/dogs"),
        ("dogs", "train/a", "."),
    ],
)
def test_the_path_above_is_told_as_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, path: str, written: str
) -> None:
    """A relative one where it lies below the working folder."""
    fill(tmp_path / "pets", {"cat": 1, "dog": 1})
    fill(tmp_path / "dogs", in_each({"train": 1, "test": 1}, ("a", "b")))
    monkeypatch.chdir(tmp_path / here)
    with pytest.raises(BadInput, match=r"no class folders") as caught:
        find(Dataset(name="image_folder", path=path.format(tmp_path)))
    assert caught.value.remedy == f"write dataset.path={written.format(tmp_path)}"
    find(Dataset(name="image_folder", path=written.format(tmp_path)))


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        ({"train": 4, "test1": 2}, r"test1, train are no classes by their names, and train has no class"),
        (
            in_each({"train_1": 2, "train_2": 2, "test_1": 1}),
            r"put what belongs together into train, val and",
        ),
    ],
    ids=str,
)
def test_parts_of_other_names_that_renaming_does_not_mend(
    tmp_path: Path, folders: dict[str, int], reason: str
) -> None:
    """They are refused as well, and may be classes for who means that."""
    root = fill(tmp_path / "data", folders)
    with pytest.raises(BadInput, match=reason):
        look(root)
    assert len(look(root, layout="classes").entries) == sum(folders.values())


MASKS_BESIDE = (
    ("images", "masks"),
    ("imgs", "labels"),
    ("images", "annotations/trimaps"),
    ("Original Images", "Ground Truth"),
    ("JPEGImages", "SegmentationClass", "SegmentationObject"),
    ("images/train", "images/val", "annotations/train"),
    ("photos", "photo_masks", "more"),
)


@pytest.mark.parametrize("names", MASKS_BESIDE, ids=" ".join)
def test_images_beside_their_masks_are_no_two_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Their names say what kind of pictures they hold, not what these show."""
    root = fill(tmp_path / "data", dict.fromkeys(names, 3))
    first = names[0].partition("/")[0]
    with pytest.raises(BadInput, match=r"images and their masks, no classes\? ") as caught:
        look(root)
    assert f"sort those of {first} into class folders and rename " in caught.value.remedy
    found = look(root, layout="classes")
    assert {entry.class_name for entry in found.entries} == {name.partition("/")[0] for name in names}
    assert caught.value.remedy in str(caught.value)
    renamed = caught.value.remedy.rpartition("and rename ")[2].partition(", or write")[0]
    for name in re.findall(r"(\w[\w ]*) to \.", renamed):
        (root / name).rename(root / f".{name}")
    with pytest.raises(BadInput, match=r"no class folders|one class folder only|are in the class|beside"):
        look(root / first)


@pytest.mark.parametrize("names", [("images", "masks"), ("batch1", "batch2")], ids=" ".join)
def test_in_parts_they_are_no_classes_either(tmp_path: Path, names: tuple[str, str]) -> None:
    """Unless that is said."""
    root = fill(tmp_path / "data", in_each({"train": 3, "test": 2}, names))
    with pytest.raises(BadInput, match=rf"train/{names[0]}.*or write dataset\.layout=parts"):
        look(root)
    assert len(look(root, layout="parts").entries) == 10


@pytest.mark.parametrize("name", ["HAM_images_part_{}", "images_00{}", "batch{}", "fold {}", "img-{}"])
def test_numbered_pieces_are_no_classes(tmp_path: Path, name: str) -> None:
    """An archive in pieces leaves a folder for each."""
    root = fill(tmp_path / "data", {name.format(i): 2 for i in range(3)})
    with pytest.raises(BadInput, match=r"differ by a number alone: pieces, not classes\?") as caught:
        look(root)
    assert re.search(
        r"into class folders, or .* with dataset=csv, or write dataset\.layout=classes", str(caught.value)
    )
    assert len(look(root, layout="classes").entries) == 6


@pytest.mark.parametrize(
    "folders",
    [
        {"drive-download-1/cat": 1, "drive-download-2/dog": 2},
        {f"pets-20240101T000000Z-00{i}/pets/{c}": i for i in (1, 2) for c in BOTH},
        {f"fold_{i}/{c}": 1 for i in range(4) for c in BOTH},
        {f"pets download {i}/{p}/{c}": 1 for i in (1, 2) for p in ("train", "test") for c in BOTH},
    ],
    ids=lambda folders: next(iter(folders)),
)
def test_numbered_pieces_with_class_folders_belong_together(tmp_path: Path, folders: dict[str, int]) -> None:
    """One after the other is moved into the first, and then all is read."""
    root = fill(tmp_path / "data", folders)
    with pytest.raises(BadInput, match=r"differ by a number alone: pieces, not classes\?") as caught:
        look(root)
    told = re.match(r"move what is in (.+?) into (.+?), or write", caught.value.remedy)
    assert told
    others, first = told[1].split(", "), told[2]
    assert set(others) < {path.name for path in root.iterdir()} | {
        path.name + "/pets" for path in root.iterdir()
    }
    for other in sorted(path for path in root.iterdir() if path.name != first.partition("/")[0]):
        for file in other.rglob("*.png"):
            place = root / first / file.relative_to(other / "pets" if "/" in first else other)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place.with_name(f"{other.name}-{file.name}"))
        other.rename(root / f".{other.name}")
    found = look(root / first)
    assert len(found.entries) == sum(folders.values())
    assert {entry.class_name for entry in found.entries} == set(BOTH)


def test_a_part_of_the_right_name_need_not_be_renamed(tmp_path: Path) -> None:
    """``train`` beside ``test1``: what is right already is not told."""
    root = fill(tmp_path / "data", {**in_each({"train": 2}), "test1": 4})
    with pytest.raises(BadInput, match=r"rename test1 to \.test1, or write"):
        look(root)


def test_a_level_too_deep_is_refused_where_nothing_fits_above(tmp_path: Path) -> None:
    """A folder of pictures alone: there is no path to print."""
    root = fill(tmp_path / "data" / "pictures", {"": 3})
    with pytest.raises(BadInput, match=r"pictures has no class folders; write dataset\.path=FOLDER with one"):
        look(root)
