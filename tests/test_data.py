"""Data as tensors: parts, statistics, and when it is read again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper.errors import BadInput
from sweeper.schema import Dataset, Run, Training
from sweeper.training.data import load
from sweeper.training.fit import evaluate, fit
from tests.device import CPU
from tests.pictures import write_picture


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    for label, name in enumerate(("cat", "dog")):
        for i in range(5):
            write_picture(tmp_path / name / f"{i}.png", (20 * i, 100 + label, 255), size=(8, 8))
    return Dataset(name="image_folder", path=str(tmp_path), image_size=8, allow_hflip=True)


def test_parts_are_uint8_channels_first() -> None:
    """Images are uint8 (n, channels, height, width) with an int64 label each, in three parts."""
    data = load(Dataset(), CPU)
    n = [len(data.part(name)[1]) for name in ("train", "val", "test")]
    assert sum(n) == 1797
    for name in ("train", "val", "test"):
        x, y = data.part(name)
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert x.shape == (len(y), 1, 8, 8)
        assert x.is_contiguous()
    assert data.device == CPU


def test_statistics_are_those_of_the_training_part() -> None:
    """``data`` normalises by the training images' own mean and standard deviation."""
    data = load(Dataset(), CPU)
    pixels = data.train_x.double() / 255
    torch.testing.assert_close(data.mean.double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.std.double(), pixels.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("normalization", "mean", "std"),
    [
        ("none", [0, 0, 0], [1, 1, 1]),
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, [0.1, 0.2, 0.3], [1, 2, 3]),
    ],
)
def test_normalization_as_asked(
    photos: Dataset, normalization: Any, mean: list[float], std: list[float]
) -> None:
    """The mean and standard deviation are those that the setting names."""
    photos.normalization = normalization
    data = load(photos, CPU)
    torch.testing.assert_close(data.mean, torch.tensor(mean, dtype=torch.float32))
    torch.testing.assert_close(data.std, torch.tensor(std, dtype=torch.float32))


def test_channel_of_one_value_stays_finite(photos: Dataset) -> None:
    """A channel without any variation gets no standard deviation of zero."""
    data = load(photos, CPU)
    assert data.mean[2] == 1
    assert data.std[2] > 0


@pytest.mark.parametrize(
    ("normalization", "reason"),
    [
        ({"mean": [0.5, 0.5], "std": [1, 1]}, "it has 2 channels, the images have 1"),
        ({"mean": [0.5, 0.5, 0.5], "std": [1]}, "it has 3 means, but 1 deviation"),
        ("imagenett", "there is no such option"),
        ({"mean": [0.5]}, "there is no such option"),
        ({"mean": [0.5], "std": [0.0]}, "deviations above 0"),
        ({"mean": [128], "std": [60]}, "must be 0 … 1"),
        ({"mean": 0.5, "std": 0.2}, "must be lists"),
    ],
)
def test_normalization_must_suit_the_images(normalization: Any, reason: str) -> None:
    """A normalisation that does not suit the images is refused by its key."""
    with pytest.raises(BadInput, match=rf"dataset\.normalization=.*{reason}"):
        load(Dataset(normalization=normalization), CPU)


def test_one_mean_does_not_suit_colours(photos: Dataset) -> None:
    """A mean for one channel is refused where the images have three."""
    photos.normalization = {"mean": [0.5], "std": [1]}
    with pytest.raises(BadInput, match=r"it has 1 channel, the images have 3"):
        load(photos, CPU)


@pytest.mark.parametrize("normalization", ["imagenet", {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}])
def test_grey_images_are_seen_as_rgb(normalization: Any) -> None:
    """Three means for grey images: one channel is kept in memory, three are seen."""
    data = load(Dataset(normalization=normalization), CPU)
    assert (data.train_x.shape[1], data.channels, len(data.std)) == (1, 3, 3)
    seen = (data.train_x[:2] / 255 - data.mean.view(1, -1, 1, 1)) / data.std.view(1, -1, 1, 1)
    assert seen.shape == (2, 3, 8, 8)
    assert load(Dataset(), CPU).channels == 1


def test_several_labels_are_floats(tmp_path: Path) -> None:
    """Images with several labels have float32 (n, n_labels) of 0 and 1; the others one int64 each."""
    lines = ["path,red,green"]
    for i in range(30):
        red, green = i % 2, i % 3 // 2
        write_picture(tmp_path / f"{i}.png", (255 * red, 255 * green, 0), size=(8 + i, 8))
        lines.append(f"{i}.png,{red},{green}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    data = load(Dataset(name="csv", path=str(tmp_path / "table.csv"), image_size=8), CPU)
    assert data.multi_label
    assert data.classes == ("red", "green")
    for name in ("train", "val", "test"):
        x, y = data.part(name)
        assert (y.dtype, y.shape) == (torch.float32, (len(x), 2))
        assert torch.equal(y, x[:, :2, 4, 4] / 255)
    assert not load(Dataset(), CPU).multi_label


def test_trials_share_the_data() -> None:
    """The same settings give the very same tensors, without reading again."""
    first = load(Dataset(), CPU)
    assert load(Dataset(), CPU) is first
    assert load(Dataset(split_seed=1), CPU) is not first


def test_changed_file_is_noticed(photos: Dataset) -> None:
    """A file written anew, in the same size, is read again."""
    first = load(photos, CPU)
    assert load(photos, CPU) is first
    file = Path(photos.path or "", "cat", "0.png")
    write_picture(file, (7, 7, 7), size=(8, 8))
    os.utime(file, ns=(1, 1))
    second = load(photos, CPU)
    assert second is not first
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize("image_size", [8, None])
def test_a_network_sees_the_middle_of_images_with_a_margin(photos: Dataset, image_size: int | None) -> None:
    """What is kept is larger than what is seen, which is of the size that is asked for."""
    data = load(replace(photos, margin=1.5, image_size=image_size), CPU)
    side = image_size or 64
    assert (data.side, data.train_x.shape[-1]) == (side, side * 3 // 2)
    assert load(photos, CPU).side == 8
    digits = load(Dataset(margin=1.5), CPU)
    assert digits.side == digits.train_x.shape[-1] == 8


def test_training_sees_the_middle_too(photos: Dataset) -> None:
    """Without augmentation, training and testing on a margin is that on the middle cut out by hand."""
    with_margin = load(replace(photos, margin=1.6, val_fraction=0.4), CPU)
    assert with_margin.train_x.shape[-1] == 13
    x = {name: with_margin.part(name)[0][..., 2:10, 2:10] for name in ("train", "val", "test")}
    cut_out = replace(with_margin, train_x=x["train"], val_x=x["val"], test_x=x["test"], image_size=None)
    run = Run(training=Training(epochs=2, n_threads=1, precision="float32"))
    seen, expected = (fit(run, data) for data in (with_margin, cut_out))
    assert [epoch.train_loss for epoch in seen.history] == [epoch.train_loss for epoch in expected.history]
    assert evaluate(seen.model, with_margin) == evaluate(expected.model, cut_out)


def test_what_is_seen_tells_data_apart(photos: Dataset) -> None:
    """The same pixels and parts, of which another side is seen, are another division."""
    margin, large = load(replace(photos, margin=1.5), CPU), load(replace(photos, image_size=12), CPU)
    assert margin.fingerprint == large.fingerprint
    assert margin.split != large.split


def test_flips_follow_the_dataset(photos: Dataset) -> None:
    """What the dataset says of mirrored images is known to those who augment them."""
    data = load(photos, CPU)
    assert (data.allow_hflip, data.allow_vflip) == (True, False)


def test_labels_belong_to_their_images(photos: Dataset) -> None:
    """Every image keeps its own label through the split."""
    data = load(photos, CPU)
    for name in ("train", "val", "test"):
        x, y = data.part(name)
        assert torch.equal(x[:, 1, 0, 0].long() - 100, y)
