"""The split into train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training import images
from sweeper.training.dataset import Images
from sweeper.training.split import split


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


def test_class_that_is_too_small_is_named() -> None:
    """A class that cannot be in every part is an error with its name and number of images."""
    found = of_classes(3, 2, 3)
    with pytest.raises(BadInput, match=r"class dog has 2 images, but train, val, test need one each"):
        split(found, Dataset())
    assert len(split(found, Dataset(test_fraction=0.0))[1]) == 3


def test_fractions_must_leave_something(digits: Images) -> None:
    """Fractions that add up to everything are refused."""
    with pytest.raises(BadInput, match=r"dataset\.val_fraction=0\.5: with dataset\.test_fraction=0\.5"):
        split(digits, Dataset(val_fraction=0.5, test_fraction=0.5))


def several_labels(labels: NDArray[np.integer[Any]], part: Sequence[int] | None = None) -> Images:
    """Images with these labels (n, n_labels), and no more to see than their number."""
    n, n_labels = labels.shape
    pixels = np.zeros((n, 4, 4, 1), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n) % 256
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


def test_rare_combinations_are_split_together() -> None:
    """Groups too small for every part are pooled, so that single images do not end the split."""
    labels = np.ones((61, 7), dtype=np.uint8)
    labels[:, 1:] = 0
    for label in range(1, 7):  # each of six labels on one image only, which all the others have beside them
        labels[label * 2 : label * 2 + 2, label] = 1
    parts = split(several_labels(labels), table(split_seed=2, test_fraction=0.0, val_fraction=0.5))
    assert sorted(np.concatenate(parts)) == list(range(61))
    assert all(labels[part].any(0).all() for part in parts[:2])


@pytest.mark.parametrize("missing", ["train", "val"])
def test_label_that_a_part_lacks_is_named(missing: str) -> None:
    """A label without an image in train or in val is an error with its name and number of images."""
    part = [0, 0, 0, 1, 1, 1, 2, 2]
    labels = np.ones((8, 2), dtype=np.uint8)
    labels[[i for i, p in enumerate(part) if p == ("train", "val").index(missing)], 1] = 0
    message = rf"dataset\.path=table\.csv: label b has 5 images, and none is in {missing}; .*split_seed"
    with pytest.raises(BadInput, match=message):
        split(several_labels(labels, part), table())


def test_single_image_of_a_label_is_too_few() -> None:
    """A label on one image cannot be in both train and val: the split says so."""
    labels = drawn(50, 1.0, 0.0)
    labels[7, 1] = 1
    with pytest.raises(BadInput, match=r"label b has 1 image, and none is in (train|val)"):
        split(several_labels(labels), table())


def test_too_few_images_for_the_parts() -> None:
    """Fewer images than parts are refused, whatever their labels."""
    with pytest.raises(BadInput, match=r"the dataset has 2 images, but train, val, test need one each"):
        split(several_labels(np.ones((2, 2), dtype=np.int64)), table())
