"""Augmentation of batches: it agrees with torchvision, and varies as the settings say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tv

from sweeper.schema import Augmentation
from sweeper.training.augment import Augment, affine_maps
from sweeper.training.data import Data

SIDE = 48


def smooth_images(n: int = 4, channels: int = 3, side: int = SIDE) -> Tensor:
    """Random uint8 images without hard edges."""
    coarse = torch.rand(n, channels, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)


def data(x: Tensor, mean: float = 0.0, std: float = 1.0, flips: bool = True) -> Data:
    y, channels = torch.zeros(len(x), dtype=torch.int64), x.shape[1]
    statistics = (torch.full((channels,), mean), torch.full((channels,), std))
    return Data(x, y, x, y, x, y, *statistics, ("a", "b"), "", flips, flips)


def maps(n: int, **given: float) -> Tensor:
    neutral = {"angle_deg": 0.0, "width": 1.0, "height": 1.0, "centre_x": 0.0, "centre_y": 0.0}
    return affine_maps(**{name: torch.full((n,), value) for name, value in (neutral | given).items()})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inner(images: Tensor, border: int = 12) -> Tensor:
    return images[..., border:-border, border:-border]


@pytest.mark.parametrize("side", [8, 33, 48])
@pytest.mark.parametrize("rotation_deg", [0.0, 10.0])
def test_identity_changes_nothing(side: int, rotation_deg: float) -> None:
    """A map that neither crops nor turns gives every pixel back, up to the edges."""
    x = smooth_images(side=side)
    augment = Augment(Augmentation(rotation_deg=rotation_deg), data(x))
    torch.testing.assert_close(augment.warp(x, maps(len(x))) * 255, x.float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("angle", [-170.0, -90.0, -10.0, 5.0, 30.0, 90.0])
def test_rotation_is_that_of_torchvision(angle: float) -> None:
    """A turn is counter-clockwise about the centre, and black where there was no image."""
    x = smooth_images()
    turned = Augment(Augmentation(rotation_deg=180), data(x)).warp(x, maps(len(x), angle_deg=angle))
    expected = tv.rotate(x.float(), angle, InterpolationMode.BILINEAR) / 255
    assert (inner(turned) - inner(expected)).abs().mean() < 1 / 255
    if angle == 30:
        assert turned[..., 0, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(0, 0, 48, 48), (3, 7, 30, 40), (20, 0, 28, 12)]
)
def test_crop_is_that_of_torchvision(top: int, left: int, height: int, width: int) -> None:
    """A crop fills the image with its part of it."""
    x = smooth_images()
    crop = {
        "width": width / SIDE,
        "height": height / SIDE,
        "centre_x": (2 * left + width) / SIDE - 1,
        "centre_y": (2 * top + height) / SIDE - 1,
    }
    cropped = Augment(Augmentation(crop_scale=[0.5, 1.0]), data(x)).warp(x, maps(len(x), **crop))
    expected = tv.resized_crop(x.float(), top, left, height, width, [SIDE, SIDE], antialias=False) / 255
    assert (inner(cropped, 4) - inner(expected, 4)).abs().mean() < 1 / 255


def test_crop_then_turn_is_that_of_torchvision() -> None:
    """Crop and turn together are torchvision's one after the other, sampled once."""
    x = smooth_images()
    both = maps(len(x), angle_deg=20.0, width=0.5, height=0.75, centre_x=0.25, centre_y=-0.25)
    cropped = tv.resized_crop(x.float(), 0, 18, 36, 24, [SIDE, SIDE], antialias=False)
    expected = tv.rotate(cropped, 20.0, InterpolationMode.BILINEAR) / 255
    seen = Augment(Augmentation(rotation_deg=20), data(x)).warp(x, both)
    assert (inner(seen) - inner(expected)).abs().mean() < 1 / 255


@pytest.mark.parametrize(("given", "axis"), [({"hflip": 1.0}, -1), ({"vflip": 1.0}, -2)])
def test_flip_mirrors(given: dict[str, float], axis: int) -> None:
    """A flip with probability 1 is the mirrored image."""
    x = smooth_images()
    flipped = Augment(Augmentation(**given), data(x))(x, generator()) * 255
    torch.testing.assert_close(flipped, x.flip(axis).float(), rtol=0, atol=2e-3)


def test_crop_at_the_edge_stays_bright() -> None:
    """A crop that ends at the image's edge does not blend with black."""
    x = torch.full((64, 1, 16, 16), 255, dtype=torch.uint8)
    seen = Augment(Augmentation(crop_scale=[0.3, 1.0], crop_ratio=[0.5, 2.0]), data(x))(x, generator())
    torch.testing.assert_close(seen, torch.ones_like(seen))


def test_normalisation_is_that_of_torchvision() -> None:
    """Values in 0 … 1, less the mean, by the standard deviation; so is the black beyond the image."""
    x = smooth_images()
    augment = Augment(Augmentation(rotation_deg=45), data(x, mean=0.4, std=0.2))
    torch.testing.assert_close(augment.normalize(x), tv.normalize(x / 255, [0.4] * 3, [0.2] * 3))
    corner = augment.warp(x, maps(len(x), angle_deg=45.0))[..., 0, 0]
    torch.testing.assert_close(corner, torch.full_like(corner, -2.0))


def test_nothing_asked_is_normalisation_alone() -> None:
    """Without any strength the images come back as they are, and no random number is drawn."""
    x, drawn = smooth_images(), generator()
    augment, before = Augment(Augmentation(), data(x)), generator().get_state()
    assert not augment.warps
    assert torch.equal(augment(x, drawn), augment.normalize(x))
    assert torch.equal(drawn.get_state(), before)


def test_flips_happen_only_where_the_dataset_allows_them() -> None:
    """A dataset that forbids mirroring is never mirrored, whatever the augmentation says."""
    x = smooth_images()
    augment = Augment(Augmentation(hflip=1.0, vflip=1.0), data(x, flips=False))
    assert torch.equal(augment(x, generator()), augment.normalize(x))


def test_every_image_has_its_own_parameters() -> None:
    """The same image, many times in a batch, is varied differently each time, and anew in the next batch."""
    x = smooth_images(1).expand(32, -1, -1, -1)
    augment, drawn = Augment(Augmentation(rotation_deg=30), data(x)), generator()
    seen = torch.cat([augment(x, drawn), augment(x, drawn)])
    assert len(torch.unique(seen.flatten(1), dim=0)) == 64
    assert torch.equal(seen[:32], augment(x, generator()))


def test_flips_come_as_often_as_asked() -> None:
    """A flip happens with its probability, each direction by itself."""
    drawn = Augment(Augmentation(hflip=0.25, vflip=0.5), data(smooth_images())).draw(20_000, generator())
    left_right, up_down = drawn[:, 0, 0] < 0, drawn[:, 1, 1] < 0
    assert left_right.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert up_down.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (left_right & up_down).float().mean().item() == pytest.approx(0.125, abs=0.02)


def test_angles_are_uniform() -> None:
    """Angles are uniform within plus and minus ``rotation_deg``."""
    drawn = Augment(Augmentation(rotation_deg=40), data(smooth_images())).draw(20_000, generator())
    angles = torch.rad2deg(torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert angles.abs().max() <= 40.001
    quantiles = torch.quantile(angles, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(quantiles, torch.tensor([-40.0, -20.0, 0.0, 20.0, 40.0]), rtol=0, atol=1.0)


CROPS: list[dict[str, Any]] = [
    {"crop_scale": [0.8, 1.0], "crop_ratio": [0.75, 4 / 3]},
    {"crop_scale": [0.08, 1.0], "crop_ratio": [0.75, 4 / 3]},
    {"crop_scale": [0.2, 0.5], "crop_ratio": [1.0, 1.0]},
    {"crop_scale": [0.9, 1.0], "crop_ratio": [2.0, 3.0]},
    {"crop_scale": [0.9, 1.0], "crop_ratio": [0.25, 0.5]},
]


@pytest.mark.parametrize("settings", CROPS, ids=str)
def test_crops_are_distributed_as_torchvisions(settings: dict[str, Any]) -> None:
    """Areas, ratios and positions of the crops have the quantiles of torchvision's RandomResizedCrop."""
    n, side = 4_000, 1_000
    drawn = Augment(Augmentation(**settings), data(smooth_images())).draw(n, generator())
    width, height, x, y = drawn[:, 0, 0], drawn[:, 1, 1], drawn[:, 0, 2], drawn[:, 1, 2]
    torch.manual_seed(0)
    blank = torch.empty(1, 1, 1).expand(1, side, side)
    params = [RandomResizedCrop.get_params(blank, *settings.values()) for _ in range(n)]
    top, left, tv_height, tv_width = (torch.tensor(params) / side).unbind(1)
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    for ours, theirs in (
        (width * height, tv_width * tv_height),
        (torch.log(width / height), torch.log(tv_width / tv_height)),
        (x, 2 * left + tv_width - 1),
        (y, 2 * top + tv_height - 1),
    ):
        difference = torch.quantile(ours, levels) - torch.quantile(theirs, levels)
        assert difference.abs().max() < 0.06


def test_crops_stay_inside() -> None:
    """No crop reaches beyond the image."""
    settings = Augmentation(crop_scale=[0.05, 1.0], crop_ratio=[0.2, 5.0])
    drawn = Augment(settings, data(smooth_images())).draw(5_000, generator())
    assert (drawn[:, 0, 0] + drawn[:, 0, 2].abs()).max() <= 1.0001
    assert (drawn[:, 1, 1] + drawn[:, 1, 2].abs()).max() <= 1.0001
