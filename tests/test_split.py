"""The split into train, val and test."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeper import check
from sweeper.errors import BadInput
from sweeper.filesystem import read_yaml
from sweeper.record.run_files import RunFiles
from sweeper.schema import Dataset
from sweeper.training import group, images
from sweeper.training.dataset import Images
from sweeper.training.split import remarks, split
from tests.program import IN_PROCESS, sweeper


@pytest.fixture(scope="module")
def digits() -> Images:
    return images.read(Dataset())


def of_classes(*counts: int) -> Images:
    """So many images of the classes cat, dog and owl."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Images(np.zeros((len(labels), 4, 4, 3), dtype=np.uint8), labels, ("cat", "dog", "owl"))


def test_split_is_disjoint_complete_and_stratified(digits: Images) -> None:
    """Every image is in one part, and every class in each part in proportion."""
    parts = split(digits, Dataset())
    assert sorted(np.concatenate(parts)) == list(range(1797))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        shares = np.bincount(digits.labels[part]) / np.bincount(digits.labels)
        np.testing.assert_allclose(shares, fraction, atol=0.01)


def test_split_depends_on_its_seed_alone(digits: Images) -> None:
    """One ``split_seed`` gives one split, another gives another."""
    first, again = split(digits, Dataset()), split(digits, Dataset())
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], split(digits, Dataset(split_seed=1))[1])


def test_split_without_test_part(digits: Images) -> None:
    """``test_fraction=0`` leaves the test part empty."""
    train, val, test = split(digits, Dataset(test_fraction=0.0))
    assert len(test) == 0
    assert len(train) + len(val) == 1797


@pytest.mark.parametrize("val_fraction", [0.01, 0.2, 0.79])
def test_smallest_class_is_in_every_part(val_fraction: float) -> None:
    """Three images of a class suffice for three parts, whatever the fractions."""
    found = of_classes(3, 3, 3)
    for part in split(found, Dataset(val_fraction=val_fraction)):
        assert found.labels[part].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("n", "in_parts"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
@pytest.mark.parametrize("fractions", [(0.01, 0.01), (0.2, 0.2), (0.79, 0.2), (0.05, 0.94)])
def test_a_small_class_is_in_train_first(n: int, in_parts: list[int], fractions: tuple[float, float]) -> None:
    """What few images a class has are trained on, then validated with, then tested with."""
    found = of_classes(10, n, 10)
    parts = split(found, Dataset(val_fraction=fractions[0], test_fraction=fractions[1]))
    assert [int(np.sum(found.labels[part] == 1)) for part in parts] == in_parts


def test_a_class_that_is_not_measured_is_told() -> None:
    """A class without images in val or test is named in a line for each part, and nothing else is said."""
    found = of_classes(10, 1, 2)
    assert told(found, Dataset()) == (
        "no image of class dog is in val: it is measured on the others",
        "no image of classes dog, owl is in test: it is measured on the others",
    )
    assert told(of_classes(3, 3, 3), Dataset()) == ()


def test_a_class_that_only_val_has_is_refused() -> None:
    """What nothing in train shows cannot be learnt: the class is named with its number of images."""
    found = replace(of_classes(4, 4, 4), part=np.array([0, 0, 1, 2, 0, 0, 1, 2, 1, 1, 1, 2], dtype=np.int8))
    with pytest.raises(BadInput, match=r"class owl has 4 images, and none is in train; add images of it"):
        split(found, Dataset())


def test_own_parts_may_lack_classes() -> None:
    """Where the data's own test lacks a class, the run goes on and says so."""
    found = replace(of_classes(4, 4, 4), part=np.array([0, 0, 1, 2, 0, 0, 1, 2, 0, 0, 0, 1], dtype=np.int8))
    assert told(found, Dataset()) == ("no image of class owl is in test: it is measured on the others",)


def test_nothing_for_val_is_refused() -> None:
    """Classes of one image each can be learnt, and nothing is left to validate with."""
    with pytest.raises(BadInput, match=r"dataset\.name=digits: of 3 images none is left for val; add images"):
        split(of_classes(1, 1, 1), Dataset())


def test_fractions_must_leave_something(digits: Images) -> None:
    """Fractions that add up to everything are refused."""
    with pytest.raises(BadInput, match=r"dataset\.val_fraction=0\.5: with dataset\.test_fraction=0\.5"):
        split(digits, Dataset(val_fraction=0.5, test_fraction=0.5))


def told(images: Images, dataset: Dataset) -> tuple[str, ...]:
    return remarks(images, dataset, split(images, dataset))


def several_labels(labels: NDArray[np.integer[Any]], part: Sequence[int] | None = None) -> Images:
    """Images with these labels (n, n_labels), and no more to see than their number."""
    n, n_labels = labels.shape
    pixels = np.zeros((n, 4, 4, 1), dtype=np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.divmod(np.arange(n), 256)
    names = tuple("abcdefghijklmnop"[:n_labels])
    parts = None if part is None else np.array(part, dtype=np.int8)
    return Images(pixels, labels.astype(np.uint8), names, parts)


def drawn(n: int, *probabilities: float) -> NDArray[np.uint8]:
    """Labels (n, n_labels) that are there independently with these probabilities."""
    return (np.random.default_rng(3).random((n, len(probabilities))) < probabilities).astype(np.uint8)


def table(**settings: Any) -> Dataset:
    return Dataset(name="csv", path="table.csv", **settings)


def test_split_of_several_labels_keeps_their_shares() -> None:
    """Every image is in one part, and each label, rare or frequent, in each part nearly in proportion."""
    labels = drawn(1000, 0.5, 0.2, 0.02, 0.9)
    parts = split(several_labels(labels), table())
    assert sorted(np.concatenate(parts)) == list(range(1000))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert len(part) == pytest.approx(1000 * fraction, abs=5)
        np.testing.assert_allclose(labels[part].sum(0) / labels.sum(0), fraction, atol=0.06)
        assert np.mean(labels[part, 2]) == pytest.approx(labels[:, 2].mean(), abs=0.003)  # the rarest


def test_images_without_any_label_are_in_every_part() -> None:
    """Images without a label are divided as a class of their own would be."""
    labels = np.vstack([drawn(90, 0.5, 1.0), np.zeros((10, 2), dtype=np.uint8)])
    assert [sum(part >= 90) for part in split(several_labels(labels), table())] == [6, 2, 2]


def test_split_of_several_labels_depends_on_its_seed_alone() -> None:
    """One ``split_seed`` gives one split, another gives another."""
    everything = several_labels(drawn(200, 0.5, 0.3))
    first, again = (split(everything, table()) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], split(everything, table(split_seed=1))[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_label_is_in_train_first(seed: int) -> None:
    """A label on one image is trained on, one on two is validated with too; what is not measured is told."""
    labels = np.zeros((60, 4), dtype=np.uint8)
    labels[:, 0] = 1
    labels[[5], 1], labels[[7, 8], 2], labels[[20, 30, 40], 3] = 1, 1, 1
    found, dataset = several_labels(labels), table(split_seed=seed)
    assert [labels[part].sum(0)[1:].tolist() for part in split(found, dataset)] == [
        [1, 1, 1],
        [0, 1, 1],
        [0, 0, 1],
    ]
    assert told(found, dataset) == (
        "no image of label b is in val: it is measured on the others",
        "no image of labels b, c is in test: it is measured on the others",
    )


def test_label_that_train_lacks_is_named() -> None:
    """A label without an image in train is an error with its name and number of images."""
    part = [0, 0, 0, 1, 1, 1, 2, 2]
    labels = np.ones((8, 2), dtype=np.uint8)
    labels[:3, 1] = 0
    message = (
        r"dataset\.path=table\.csv: label b has 5 images, and none is in train; add images of it to train"
    )
    with pytest.raises(BadInput, match=message):
        split(several_labels(labels, part), table())


def test_label_that_val_lacks_is_told() -> None:
    """A label without an image in val is not measured there, and named."""
    part = [0, 0, 0, 1, 1, 1, 2, 2]
    labels = np.ones((8, 2), dtype=np.uint8)
    labels[3:6, 1] = 0
    found = told(several_labels(labels, part), table())
    assert found == ("no image of label b is in val: it is measured on the others",)


def test_too_few_images_for_the_parts() -> None:
    """Two images of several labels are for train and val; test has none."""
    parts = split(several_labels(np.ones((2, 2), dtype=np.int64)), table())
    assert list(map(len, parts)) == [1, 1, 0]


# --- it belongs to the pictures -----------------------------------------------------------------------------


def named(*names: str, classes: int = 2, **more: Any) -> Images:
    """Images of these names, of classes by turns of a checksum of the name: so order does not decide."""
    labels = np.array([crc32(name.encode(errors="replace")) % classes for name in names], dtype=np.int64)
    pixels = np.zeros((len(names), 2, 2, 1), dtype=np.uint8)
    return Images(pixels, labels, tuple("abcdef"[:classes]), names=names, **more)


def of_folders(*names: str) -> Images:
    """Images whose class is the first letter of their name."""
    labels = np.array(["abcd".index(name[0]) for name in names], dtype=np.int64)
    return replace(named(*names, classes=4), labels=labels)


def where(images: Images, dataset: Dataset) -> dict[str, str]:
    """The part of each image by its name."""
    assert images.names is not None
    parts = zip(("train", "val", "test"), split(images, dataset), strict=True)
    return {images.names[i]: part for part, chosen in parts for i in chosen}


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [name for name in before.keys() & after.keys() if before[name] != after[name]]


@pytest.mark.parametrize("fractions", [(0.2, 0.2), (0.1, 0.0), (0.33, 0.5), (0.01, 0.98), (0.5, 0.49)])
def test_each_border_moves_by_at_most_one(fractions: tuple[float, float]) -> None:
    """One image more moves none from test to val but the last one, and none from val to train but one; for
    every number of images, and every fraction."""
    dataset = Dataset(val_fraction=fractions[0], test_fraction=fractions[1])
    sizes = [list(map(len, split(named(*map(str, range(n)), classes=1), dataset))) for n in range(2, 400)]
    for (_, val, test), (_, more_val, more_test) in pairwise(sizes):
        assert more_test - test in (0, 1)
        assert more_test + more_val - test - val in (0, 1)


@pytest.mark.parametrize("n", [6, 57, 300])
def test_one_picture_moves_at_most_one_across_each_border(n: int) -> None:
    """A picture that comes, or is left out, moves at most one other over each of the two borders."""
    names = [f"a/{i}.png" for i in range(n)]
    everything = where(named(*names, classes=1), Dataset())
    for i in range(n):
        without = where(named(*names[:i], *names[i + 1 :], classes=1), Dataset())
        steps = [(everything[name], without[name]) for name in moved(everything, without)]
        assert len([step for step in steps if "test" in step]) <= 1
        assert len([step for step in steps if "train" in step]) <= 1


@pytest.mark.parametrize("kind", ["added", "removed", "reordered"])
def test_random_changes_move_next_to_nothing(kind: str) -> None:
    """Of many pictures in four classes, a change of one moves at most one of its class over each border, and
    none of another class."""
    rng = np.random.default_rng(7)
    for _ in range(70):
        names = [f"{c}/{i:06}.png" for c in "abcd" for i in rng.choice(10**6, rng.integers(3, 90), False)]
        i = int(rng.integers(len(names)))
        less = names[:i] + names[i + 1 :]
        fewer, all_ = (where(of_folders(*some), Dataset()) for some in (less, names))
        if kind == "reordered":
            assert where(of_folders(*rng.permutation(names).tolist()), Dataset()) == all_
            continue
        before, after = (fewer, all_) if kind == "added" else (all_, fewer)
        went = [(name, before[name], after[name]) for name in moved(before, after)]
        assert all(name[0] == names[i][0] for name, *_ in went)
        assert len([1 for _, *step in went if "test" in step]) <= 1
        assert len([1 for _, *step in went if "train" in step]) <= 1


def test_order_moves_nothing() -> None:
    """The split is that of the names, in whatever order they come; also for several labels and arrays."""
    rng = np.random.default_rng(0)
    labels = drawn(120, 0.5, 0.2, 0.1)
    names = tuple(map(str, range(120)))
    one, several = named(*names, classes=3), replace(several_labels(labels), names=names)
    array = replace(one, names=None, pixels=rng.integers(0, 256, (120, 4, 4, 1), dtype=np.uint8))
    for found in (one, several, array):
        order = rng.permutation(120)
        other = replace(
            found,
            pixels=found.pixels[order],
            labels=found.labels[order],
            names=found.names and tuple(found.names[i] for i in order),
        )
        for part, again in zip(split(found, table()), split(other, table()), strict=True):
            assert sorted(part) == sorted(order[again])


def test_names_are_the_same_on_every_system() -> None:
    """Neither the way to write é, nor separators, nor a leading ./ decides on a part."""
    ours = [f"caf\u00e9/{i}.png" for i in range(50)]
    theirs = [f".\\cafe\u0301\\{i}.png" for i in range(50)]
    parts = where(named(*ours, classes=1), Dataset()), where(named(*theirs, classes=1), Dataset())
    assert list(map(parts[0].get, ours)) == list(map(parts[1].get, theirs))
    assert len(set(parts[0].values())) == 3


def test_names_that_are_no_unicode() -> None:
    """File names of any bytes have their rank too."""
    assert len(where(named(*(f"\udcff{i}" for i in range(9))), Dataset())) == 9


def test_two_of_the_same_name_are_told_apart_by_their_pictures() -> None:
    """Where two names are one, as é is written in two ways, order does not decide either."""
    names, digests = ["caf\u00e9", "cafe\u0301", "x"], np.array([1, 2, 3], dtype=np.uint64)
    one = where(named(*names, classes=1, digests=digests), Dataset())
    other = where(named(*names[::-1], classes=1, digests=digests[::-1].copy()), Dataset())
    assert one == other


# --- equal pictures and groups stay together ----------------------------------------------------------------


def test_equal_pictures_are_in_one_part() -> None:
    """Where we split, copies of one picture are never in two parts, and the shares stay."""
    pictures = np.arange(600) // 3
    found = named(*map(str, range(600)), pictures=pictures)
    parts = split(found, Dataset())
    of = np.zeros(600, dtype=int)
    for number, part in enumerate(parts):
        of[part] = number
    assert all(len(set(of[pictures == picture])) == 1 for picture in range(200))
    np.testing.assert_allclose([len(part) / 600 for part in parts], (0.6, 0.2, 0.2), atol=0.02)


def test_copies_of_one_picture_cannot_be_split() -> None:
    """Where all images of all classes are the same ones, the error says that they stay together."""
    found = named(*map(str, range(20)), pictures=np.zeros(20, dtype=np.int64), classes=1)
    with pytest.raises(
        BadInput, match=r"of 20 images \(1 apart: equal ones stay together.*none is left for val"
    ):
        split(found, Dataset())


def test_a_test_part_without_images_is_told() -> None:
    """Where copies leave none for it, nobody has to find out that there is no test accuracy."""
    found = named(*map(str, range(20)), pictures=np.arange(20) // 19, classes=1)
    assert "no image is left for test: nothing is tested" in told(found, Dataset())
    assert not any("is left for test" in line for line in told(found, Dataset(test_fraction=0)))


def test_copies_are_counted() -> None:
    """How many images are copies, and how many of them contradict: both labels are named."""
    pictures = np.arange(40)
    pictures[[5, 6, 9]] = [0, 0, 1]
    found = replace(named(*(f"{i}.png" for i in range(40)), pictures=pictures), labels=np.arange(40) % 2)
    assert told(found, Dataset()) == (
        "3 images are copies of others, 1 of them with another label: 0.png (a) = 5.png (b)",
    )
    labels = np.ones((40, 2), dtype=np.uint8)
    labels[5] = [0, 0]
    (said,) = told(replace(found, labels=labels), table())
    assert said.endswith("1 of them with another label: 0.png (a+b) = 5.png (no label)")


def patients(n: int, n_images: int = 5, **more: Any) -> Images:
    return named(*(f"patient{i % n:03}/{i}.png" for i in range(n * n_images)), **more)


def test_a_group_is_in_one_part() -> None:
    """What the pattern finds in a name decides: a patient's images are all in one part."""
    dataset = Dataset(name="image_folder", path="x", group=r"(patient\d+)")
    parts = where(patients(100), dataset)
    of = {name: {part for other, part in parts.items() if other[:10] == name[:10]} for name in parts}
    assert all(len(found) == 1 for found in of.values())
    shares = [list(parts.values()).count(part) / 500 for part in ("train", "val", "test")]
    np.testing.assert_allclose(shares, (0.6, 0.2, 0.2), atol=0.06)


def test_more_images_of_a_group_do_not_move_it() -> None:
    """A group's rank is its name's: new images of a patient go where its others are."""
    dataset = Dataset(name="image_folder", path="x", group=r"(patient\d+)")
    few, many = patients(60, 2, classes=1), patients(60, 4, classes=1)
    assert moved(where(few, dataset), where(many, dataset)) == []


def test_groups_that_share_a_picture_are_one() -> None:
    """Groups and equal pictures connect: what hangs together is in one part."""
    names = [f"g{i // 2}/{i}.png" for i in range(200)]
    pictures = np.arange(200)
    pictures[1::10] = pictures[2::10]  # g0 = g1, g5 = g6, …
    dataset = Dataset(name="image_folder", path="x", group=r"(g\d+)/")
    parts = where(named(*names, pictures=pictures), dataset)
    assert all(len({parts[names[i + k]] for k in range(4)}) == 1 for i in range(0, 200, 10))


def test_a_group_of_a_table_is_its_column() -> None:
    """Where the reader knows the groups, the key is a column's name and no pattern."""
    found = named(*map(str, range(100)), groups=tuple(str(i // 4) for i in range(100)))
    parts = where(found, table(group="patient("))
    assert all(len({parts[str(4 * i + k)] for k in range(4)}) == 1 for i in range(25))


def test_a_group_larger_than_val_and_test_is_trained_on() -> None:
    """A patient with most of the images does not become the test."""
    for n in range(20):  # whatever its rank
        names = [*(f"big{n}/{i}" for i in range(90)), *(f"small{i}/{i}" for i in range(10))]
        parts = where(named(*names, classes=1), Dataset(name="image_folder", path="x", group=r"(\w+)/"))
        assert parts[f"big{n}/0"] == "train"
        assert set(parts.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(patient", r"is no regular expression: missing \), unterminated subpattern at position 0"),
        (r"patient\d+", r"as a pattern it has no group; write a pattern with one group"),
        ("", r"as a pattern it has no group"),
        (r"(patient)(\d+)", r"as a pattern it has 2 groups"),
        (
            r"(patient00[0-4])",
            r"25 of 50 images have no name that it matches: patient005/5\.png; write a pattern for all",
        ),
        (r"(patient(?!009/9)\d+)", r"1 of 50 images has no name that it matches: patient009/9"),
        (r"(x)?", r"50 of 50 images have no name"),
        (r"(patient)", r"all 50 images are in one group, which cannot be split"),
        (r"(a{99999999999})", r"is no regular expression"),
    ],
)
def test_a_group_that_cannot_be_is_refused(group: str, message: str) -> None:
    """Patterns that are none, or do not suit the names, are one line with the key and what is wrong."""
    with pytest.raises(BadInput, match=rf"dataset\.group=.*: {message}"):
        split(patients(10), Dataset(name="image_folder", path="x", group=group))


def test_a_pattern_that_comes_to_no_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that tries all ways to divide a name is given up, and leaves no alarm behind."""
    monkeypatch.setattr(group, "LIMIT_S", 0.05)
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    found = named(*(f"{'a' * 50}{i}!" for i in range(40)))
    with pytest.raises(BadInput, match=r"^dataset\.group=.*for a match in one name for over .*; write a"):
        split(found, Dataset(name="image_folder", path="x", group=r"^((?:a+)+)$"))
    assert signal.getsignal(signal.SIGALRM) == before[0]
    assert signal.getitimer(signal.ITIMER_REAL) == pytest.approx(before[1], abs=10)


def test_arrays_have_no_names_for_a_pattern() -> None:
    """Grouping the digits is refused."""
    with pytest.raises(BadInput, match=r"dataset\.group=\(x\): the images of digits have no names"):
        split(of_classes(9, 9, 9), Dataset(group="(x)"))


def test_groups_of_one_image_are_told() -> None:
    """A pattern that puts each image into a group of its own does nothing, and that is said."""
    dataset = Dataset(name="image_folder", path="x", group=r"(\d+)\.png")
    assert told(patients(20), dataset) == (
        r"dataset.group=(\d+)\.png has no effect: each image is a group of its own",
    )


def test_large_groups_are_told() -> None:
    """Where few groups cannot make the parts that are asked for, the parts that there are are told."""
    (said,) = told(patients(3, 10, classes=1), Dataset(name="image_folder", path="x", group=r"(patient\d+)"))
    assert said == "groups are large for the parts asked for: 33% val instead of 20%, 33% test instead of 20%"


def test_own_parts_may_not_share_a_group() -> None:
    """Where a patient is in the data's train and test, the number and names of such are told."""
    part = np.array([0] * 25 + [2] * 25, dtype=np.int8)
    part[:2] = 1
    found = patients(10, part=part)
    with pytest.raises(
        BadInput, match=r"10 groups are in several parts of the data: patient000 in train and val"
    ):
        split(found, Dataset(name="image_folder", path="x", group=r"(patient\d+)"))
    with pytest.raises(
        BadInput, match=r"10 groups are in several parts of the data: patient000 in train and test"
    ):
        split(
            replace(found, part=np.where(part == 2, 2, -1)),
            Dataset(name="csv", path="x", group=r"(patient\d+)"),
        )


# --- pictures that own parts share --------------------------------------------------------------------------


def sharing() -> Images:
    """Own parts of 10 images each; two of train are in test, one in val, and one of val in test."""
    pictures = np.arange(30)
    pictures[[20, 21, 10, 22]] = [0, 1, 2, 11]
    part = np.repeat(np.array([0, 1, 2], dtype=np.int8), 10)
    found = named(*(f"{i}.png" for i in range(30)), pictures=pictures, part=part)
    return replace(found, labels=np.arange(30) % 2)


def test_own_parts_that_share_pictures_are_refused() -> None:
    """The error says how many, between which parts, two examples and what to write."""
    with pytest.raises(BadInput) as caught:
        split(sharing(), table())
    assert str(caught.value) == (
        "dataset.duplicates=error: 4 images are in another part too (1 of train in val, 2 of train in test, "
        "1 of val in test): 0.png = 20.png, 1.png = 21.png, …; "
        "write dataset.duplicates=drop to leave them out (of train first), or keep"
    )


def test_dropped_pictures_count_nowhere() -> None:
    """``drop`` leaves the shared pictures out of train, and out of val where test has them."""
    train, val, test = split(sharing(), table(duplicates="drop"))
    assert train.tolist() == list(range(3, 10))
    assert val.tolist() == [10, *range(12, 20)]
    assert test.tolist() == list(range(20, 30))
    (said,) = told(sharing(), table(duplicates="drop"))
    assert said.startswith(
        "dataset.duplicates=drop leaves out what is elsewhere: 4 images are in another part"
    )


def test_dropped_before_the_rest_is_split() -> None:
    """Where val is drawn from train, pictures that test has are neither ranked nor counted."""
    found = sharing()
    left = replace(found, part=np.where(found.part == 2, 2, -1).astype(np.int8))
    train, val, test = split(left, table(duplicates="drop"))
    kept = [i for i in range(20) if i not in (0, 1, 11)]
    assert sorted([*train, *val]) == kept
    assert len(test) == 10
    pictures = np.array([2 if i == 10 else i for i in kept])  # within train, copies stay
    without = named(*(f"{i}.png" for i in kept), pictures=pictures)
    _, alone, _ = split(replace(without, labels=found.labels[kept]), table(test_fraction=0.0))
    assert [kept[i] for i in alone] == val.tolist()


def test_kept_pictures_are_told() -> None:
    """``keep`` splits as the data say, and says what they share."""
    assert [len(part) for part in split(sharing(), table(duplicates="keep"))] == [10, 10, 10]
    shared, copies = told(sharing(), table(duplicates="keep"))
    assert shared.startswith("4 images are in another part too (1 of train in val, 2 of train in test,")
    assert copies.startswith("4 images are copies of others, 1 of them with another label: 11.png (b)")


def test_fixed_sets_only_warn() -> None:
    """What torchvision's sets share cannot be mended by the person: a remark says it, and how to drop it."""
    found = replace(sharing(), names=None)
    assert [len(part) for part in split(found, Dataset(name="mnist"))] == [10, 10, 10]
    said = told(found, Dataset(name="mnist"))[0]
    assert said.startswith("4 images are in another part too")
    assert said.endswith("image 0 = image 20, image 1 = image 21, …; dataset.duplicates=drop leaves them out")
    assert len(split(found, Dataset(name="mnist", duplicates="drop"))[0]) == 7


def test_a_class_that_drop_takes_away_is_named() -> None:
    """Where all that train has of a class is in test too, the error says why nothing is left."""
    found = sharing()
    pictures = np.arange(30)
    pictures[[20, 22, 24, 26, 28]] = [0, 2, 4, 6, 8]
    message = r"class a has 15 images \(5 left out by dataset\.duplicates=drop\), and none is in train"
    with pytest.raises(BadInput, match=message):
        split(replace(found, pictures=pictures), table(duplicates="drop"))


# --- folds --------------------------------------------------------------------------------------------------


def test_each_image_is_val_in_one_fold(digits: Images) -> None:
    """The folds are equal, disjoint and all that is not test, which is the same in each and without."""
    folds = [split(digits, Dataset(n_folds=5, fold=k)) for k in range(5)]
    tests = [test.tolist() for _, _, test in folds]
    assert tests == [split(digits, Dataset())[2].tolist()] * 5
    assert sorted(np.concatenate([val for _, val, _ in folds]).tolist() + tests[0]) == list(range(1797))
    for train, val, test in folds:
        assert sorted([*train, *val, *test]) == list(range(1797))
        n_of_class = np.bincount(digits.labels[np.concatenate([train, val])])
        np.testing.assert_allclose(np.bincount(digits.labels[val]), n_of_class / 5, atol=1)


def test_val_fraction_does_nothing_to_folds(digits: Images) -> None:
    """The number of folds decides on the size of val, and an other wish is told to have no effect."""
    dataset = Dataset(n_folds=3, fold=1, val_fraction=0.9)
    assert split(digits, dataset)[1].tolist() == split(digits, Dataset(n_folds=3, fold=1))[1].tolist()
    assert told(digits, dataset) == ("dataset.val_fraction=0.9 has no effect with dataset.n_folds",)


def test_one_picture_moves_at_most_one_across_each_border_of_folds() -> None:
    """Folds are stretches of the same ranks, and as stable."""
    names = [f"{i}.png" for i in range(97)]

    def fold_of(some: Sequence[str]) -> dict[str, int]:
        found = named(*some, classes=1)
        folds = [split(found, Dataset(n_folds=5, fold=k, test_fraction=0.0))[1] for k in range(5)]
        return {some[i]: k for k, val in enumerate(folds) for i in val}

    everything = fold_of(names)
    for i in range(0, 97, 7):
        without = fold_of([*names[:i], *names[i + 1 :]])
        steps = [(without[name], everything[name]) for name in without if without[name] != everything[name]]
        assert all(abs(a - b) == 1 for a, b in steps)
        assert len({min(step) for step in steps}) == len(steps)


def test_folds_keep_groups_together() -> None:
    """A patient is in one fold."""
    settings = {"name": "image_folder", "path": "x", "group": r"(patient\d+)", "test_fraction": 0.0}
    found, seen = patients(40), dict[str, int]()
    assert found.names is not None
    for fold in range(4):
        for i in split(found, Dataset(**settings, n_folds=4, fold=fold))[1]:  # type: ignore[arg-type]
            assert seen.setdefault(found.names[i][:10], fold) == fold
    assert len(seen) == 40


def test_a_small_class_always_trains() -> None:
    """A single image of a class is in no fold, two are never in the same, and the remark names the class."""
    found = of_classes(20, 1, 2)
    dataset = Dataset(n_folds=4, test_fraction=0.0)
    for fold in range(4):
        train, _, _ = split(found, replace(dataset, fold=fold))
        assert set(found.labels[train]) == {0, 1, 2}
    said = told(found, dataset)
    assert said[-1] == "dog has 1 image for 4 folds: some have none in val"


def test_folds_that_cannot_be_are_refused() -> None:
    """A fold beyond the last, and folds of data with an own val part."""
    with pytest.raises(BadInput, match=r"dataset\.fold=5: dataset\.n_folds=5 makes the folds 0 … 4"):
        split(of_classes(9, 9, 9), Dataset(n_folds=5, fold=5))
    own = replace(of_classes(9, 9, 9), part=np.array([-1, 1, -1] * 9, dtype=np.int8))
    with pytest.raises(BadInput, match=r"dataset\.n_folds=5: the data have a val part of their own"):
        split(own, Dataset(n_folds=5))
    assert "dataset.fold=2 has no effect: dataset.n_folds is null" in told(
        of_classes(9, 9, 9), Dataset(fold=2)
    )


@pytest.mark.slow
def test_folds_can_be_searched(tmp_path: Path) -> None:
    """A list of folds is a choice like any other: a grid trains each once, and each has its own val."""
    sweeper(
        tmp_path,
        *("-m", "study=folds", "dataset.n_folds=3", "dataset.fold=0,1,2", "hydra/sweeper/sampler=grid"),
        *("hydra.sweeper.params=null", "hydra/sweeper/pruner=none", "training.epochs=1", "device=cpu"),
        *IN_PROCESS,
    )
    runs = [RunFiles(tmp_path / "outputs" / "folds" / str(number)) for number in range(3)]
    settings = [check.to_run(read_yaml(run.config)).dataset for run in runs]
    assert sorted(dataset.fold for dataset in settings) == [0, 1, 2]
    found = images.read(settings[0])
    _, vals, tests = zip(*(split(found, dataset) for dataset in settings), strict=True)
    assert len(np.unique(np.concatenate(vals))) == sum(map(len, vals)) == 1797 - len(tests[0])
    assert all(np.array_equal(test, tests[0]) for test in tests)
