"""The result of a reader: what an image is, and what is left to split."""

from __future__ import annotations

import numpy as np
import pytest

from sweeper.training.dataset import PARTS, TEST, TO_SPLIT, TRAIN, VAL, Images, left_to_split

PIXELS = np.zeros((3, 8, 8, 1), dtype=np.uint8)


def test_labels_tell_the_kind_of_data() -> None:
    """A label for each image is one; a row of labels for each image is several."""
    one = Images(PIXELS, np.array([0, 1, 0]), ("a", "b"))
    several = Images(PIXELS, np.array([[0, 1], [1, 1], [0, 0]], dtype=np.uint8), ("a", "b"))
    assert not one.multi_label
    assert several.multi_label


@pytest.mark.parametrize(("image_size", "side"), [(None, 8), (6, 6)])
def test_side_is_what_a_network_sees(image_size: int | None, side: int) -> None:
    """The side is that of the centre where one is asked for, else that of the whole image."""
    assert Images(PIXELS, np.array([0, 1, 0]), ("a", "b"), image_size=image_size).side == side


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ([TRAIN, TRAIN, TRAIN], None),  # nothing is said: everything is to be split
        ([TRAIN, VAL, TEST], [TRAIN, VAL, TEST]),  # everything is said
        ([TRAIN, TRAIN, TEST], [TO_SPLIT, TO_SPLIT, TEST]),
        ([TRAIN, VAL, TRAIN], [TO_SPLIT, VAL, TO_SPLIT]),
    ],
)
def test_training_images_are_split_for_a_missing_part(part: list[int], left: list[int] | None) -> None:
    """Parts that the data has stay; for one that is missing, the training images are split."""
    found = left_to_split(np.array(part, dtype=np.int8))
    assert (None if found is None else found.tolist()) == left


def test_parts_have_one_number_each() -> None:
    """Validation has three names, and means the same under each."""
    assert {PARTS[name] for name in ("val", "valid", "validation")} == {VAL}
    assert set(PARTS.values()) == {TRAIN, VAL, TEST}
