"""Augmentation of batches: it agrees with torchvision, and varies as the settings say."""

from __future__ import annotations

from dataclasses import replace
from math import cos, pi, sin
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as tv

from sweeper.schema import Augmentation
from sweeper.training.augment import YIQ, Augment, Variations, affine_maps
from sweeper.training.data import Data

SIDE = 48
GEOMETRY = Augmentation(
    rotation_deg=20, crop_scale=[0.5, 1.0], crop_ratio=[0.75, 1.3333], hflip=0.5, vflip=0.5
)
COLOURS = Augmentation(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
EVERYTHING = replace(GEOMETRY, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, erasing=0.5)
IMAGENET = {"mean": torch.tensor([0.485, 0.456, 0.406]), "std": torch.tensor([0.229, 0.224, 0.225])}


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


def warp(augment: Augment, x: Tensor, maps: Tensor) -> Tensor:
    return augment.apply(x, Variations(maps=maps))


def recolour(
    x: Tensor, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> Tensor:
    """The images in other colours, 0 … 1."""
    colours = torch.tensor([[brightness, contrast, saturation, hue]]).expand(len(x), -1)
    return Augment(COLOURS, data(x)).apply(x, Variations(colours=colours))


def draw(settings: Augmentation, n: int, side: int = SIDE) -> Variations:
    return Augment(settings, data(smooth_images(1, side=side))).draw(n, generator())


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
    torch.testing.assert_close(warp(augment, x, maps(len(x))) * 255, x.float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("angle", [-170.0, -90.0, -10.0, 5.0, 30.0, 90.0])
def test_rotation_is_that_of_torchvision(angle: float) -> None:
    """A turn is counter-clockwise about the centre, and black where there was no image."""
    x = smooth_images()
    turned = warp(Augment(Augmentation(rotation_deg=180), data(x)), x, maps(len(x), angle_deg=angle))
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
    cropped = warp(Augment(Augmentation(crop_scale=[0.5, 1.0]), data(x)), x, maps(len(x), **crop))
    expected = tv.resized_crop(x.float(), top, left, height, width, [SIDE, SIDE], antialias=False) / 255
    assert (inner(cropped, 4) - inner(expected, 4)).abs().mean() < 1 / 255


def test_crop_then_turn_is_that_of_torchvision() -> None:
    """Crop and turn together are torchvision's one after the other, sampled once."""
    x = smooth_images()
    both = maps(len(x), angle_deg=20.0, width=0.5, height=0.75, centre_x=0.25, centre_y=-0.25)
    cropped = tv.resized_crop(x.float(), 0, 18, 36, 24, [SIDE, SIDE], antialias=False)
    expected = tv.rotate(cropped, 20.0, InterpolationMode.BILINEAR) / 255
    seen = warp(Augment(Augmentation(rotation_deg=20), data(x)), x, both)
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
    corner = warp(augment, x, maps(len(x), angle_deg=45.0))[..., 0, 0]
    torch.testing.assert_close(corner, torch.full_like(corner, -2.0))


@pytest.mark.parametrize(
    ("settings", "channels"),
    [(Augmentation(), 3), (Augmentation(), 1), (Augmentation(saturation=0.5, hue=0.1), 1)],
)
def test_nothing_asked_is_normalisation_alone(settings: Augmentation, channels: int) -> None:
    """Without a strength that has an effect the images come back as they are, and nothing random is drawn."""
    x, drawn = smooth_images(channels=channels), generator()
    augment, before = Augment(settings, data(x, mean=0.4, std=0.2)), generator().get_state()
    assert not augment.varies
    assert torch.equal(augment(x, drawn), augment.normalize(x))
    assert torch.equal(drawn.get_state(), before)


def test_flips_happen_only_where_the_dataset_allows_them() -> None:
    """A dataset that forbids mirroring is never mirrored, whatever the augmentation says."""
    x = smooth_images()
    augment = Augment(Augmentation(hflip=1.0, vflip=1.0), data(x, flips=False))
    assert torch.equal(augment(x, generator()), augment.normalize(x))


@pytest.mark.parametrize(
    "settings", [Augmentation(rotation_deg=30), COLOURS, Augmentation(erasing=1.0), EVERYTHING]
)
def test_every_image_has_its_own_parameters(settings: Augmentation) -> None:
    """The same image, many times in a batch, is varied differently each time, and anew in the next batch."""
    x = smooth_images(1).expand(32, -1, -1, -1)
    augment, drawn = Augment(settings, data(x, mean=0.4)), generator()
    seen = torch.cat([augment(x, drawn), augment(x, drawn)])
    assert len(torch.unique(seen.flatten(1), dim=0)) == 64
    assert torch.equal(seen[:32], augment(x, generator()))


def test_flips_come_as_often_as_asked() -> None:
    """A flip happens with its probability, each direction by itself."""
    drawn = draw(Augmentation(hflip=0.25, vflip=0.5), 20_000).maps
    left_right, up_down = drawn[:, 0, 0] < 0, drawn[:, 1, 1] < 0
    assert left_right.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert up_down.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (left_right & up_down).float().mean().item() == pytest.approx(0.125, abs=0.02)


def test_angles_are_uniform() -> None:
    """Angles are uniform within plus and minus ``rotation_deg``."""
    drawn = draw(Augmentation(rotation_deg=40), 20_000).maps
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
    drawn = draw(Augmentation(**settings), n).maps
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
    drawn = draw(settings, 5_000).maps
    assert (drawn[:, 0, 0] + drawn[:, 0, 2].abs()).max() <= 1.0001
    assert (drawn[:, 1, 1] + drawn[:, 1, 2].abs()).max() <= 1.0001


COLOUR_CHANGES = [
    ("brightness", 0.6),
    ("brightness", 1.8),
    ("contrast", 0.0),
    ("contrast", 0.5),
    ("contrast", 1.9),
    ("saturation", 0.0),
    ("saturation", 0.4),
    ("saturation", 2.0),
]


@pytest.mark.parametrize(("name", "factor"), COLOUR_CHANGES)
def test_colour_change_is_that_of_torchvision(name: str, factor: float) -> None:
    """Brightness, contrast and saturation are torchvision's, limits included."""
    x = smooth_images()
    expected = getattr(tv, f"adjust_{name}")(x / 255, factor)
    assert factor < 1.5 or (expected == 1).any()
    assert (recolour(x, **{name: factor}) - expected).abs().max() < 0.1 / 255


@pytest.mark.parametrize(("name", "factor"), COLOUR_CHANGES[:5])
def test_gray_images_change_as_torchvisions(name: str, factor: float) -> None:
    """Images of one channel have brightness and contrast."""
    x = smooth_images(channels=1)
    expected = getattr(tv, f"adjust_{name}")(x / 255, factor)
    assert (recolour(x, **{name: factor}) - expected).abs().max() < 0.1 / 255
    assert torch.equal(recolour(x, saturation=0.3, hue=0.2), recolour(x))


@pytest.mark.parametrize("turn", [-0.3, 0.01, 0.25, 0.5])
def test_hue_turns_by_the_published_matrix(turn: float) -> None:
    """The hue turns as https://beesbuzz.biz/code/16-hsv-color-transforms says, with fewer digits."""
    u, w = cos(2 * pi * turn), -sin(2 * pi * turn)
    matrix = torch.tensor(
        [
            [0.299 + 0.701 * u + 0.168 * w, 0.587 - 0.587 * u + 0.330 * w, 0.114 - 0.114 * u - 0.497 * w],
            [0.299 - 0.299 * u - 0.328 * w, 0.587 + 0.413 * u + 0.035 * w, 0.114 - 0.114 * u + 0.292 * w],
            [0.299 - 0.300 * u + 1.250 * w, 0.587 - 0.588 * u - 1.050 * w, 0.114 + 0.886 * u - 0.203 * w],
        ]
    )
    x = smooth_images()
    expected = torch.einsum("ij,njhw->nihw", matrix, x / 255).clamp(0, 1)
    assert (recolour(x, hue=turn) - expected).abs().max() < 2 / 255


@pytest.mark.parametrize("turn", [-0.03, 0.03])
def test_hue_turns_the_way_torchvisions_does(turn: float) -> None:
    """A small turn changes the colours in about the direction in which torchvision's shift does."""
    x = smooth_images() // 2 + 64
    theirs, ours = tv.adjust_hue(x / 255, turn) - x / 255, recolour(x, hue=turn) - x / 255
    alike = torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
    assert alike > 0.6


@pytest.mark.parametrize("turn", [-0.4, 0.1, 1 / 3])
def test_hue_keeps_luma_and_gray(turn: float) -> None:
    """A turn of the hue changes no brightness, and gray stays gray."""
    x, luma = smooth_images() // 4 + 96, torch.tensor(YIQ[0]).view(1, 3, 1, 1)
    kept = (recolour(x, hue=turn) * luma).sum(1)
    torch.testing.assert_close(kept, (x / 255 * luma).sum(1))
    gray = smooth_images(channels=1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(recolour(gray, saturation=1.7, hue=turn), gray / 255)


def test_whole_turn_of_the_hue_changes_nothing() -> None:
    """The hue's turn is a part of the whole circle."""
    x = smooth_images()
    torch.testing.assert_close(recolour(x, hue=1.0), x / 255, rtol=0, atol=1e-5)


def test_colour_changes_come_one_after_the_other() -> None:
    """Brightness, contrast, saturation and hue in one map are those four in this order."""
    x = smooth_images() // 2 + 48
    changed = tv.adjust_brightness(x / 255, 1.2)
    changed = tv.adjust_contrast(changed, 0.6)
    changed = tv.adjust_saturation(changed, 1.5)
    expected = recolour((changed * 255).round().to(torch.uint8), hue=0.1)
    assert 0 < changed.min() < changed.max() < 1
    assert (recolour(x, 1.2, 0.6, 1.5, 0.1) - expected).abs().mean() < 1 / 255


def test_each_image_has_its_own_colours() -> None:
    """Factors, and the mean that contrast pulls to, are those of each image."""
    x = smooth_images(2)
    colours = torch.tensor([[0.7, 0.5, 1.0, 0.0], [1.0, 1.3, 0.5, 0.1]])
    together = Augment(COLOURS, data(x)).apply(x, Variations(colours=colours))
    alone = [recolour(x[i : i + 1], *colours[i].tolist()) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_contrast_pulls_to_the_mean_of_what_is_seen() -> None:
    """The mean is taken after the crop."""
    x = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    x[..., 8:] = 200
    left = maps(1, width=0.5, height=0.5, centre_x=-0.5)
    drawn = Variations(maps=left, colours=torch.tensor([[1.0, 0.5, 1.0, 0.0]]))
    seen = Augment(replace(COLOURS, crop_scale=[0.2, 1.0]), data(x)).apply(x, drawn)
    assert seen[..., :14].abs().max() < 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_comes_after_the_colours(channels: int) -> None:
    """Colours are limited to 0 … 1, then normalised by each channel's statistics."""
    x = smooth_images(channels=channels)
    statistics = {name: values[:channels] for name, values in IMAGENET.items()}
    colours = torch.tensor([[1.6, 1.5, 0.5, 0.1]]).expand(len(x), -1)
    seen = Augment(COLOURS, replace(data(x), **statistics)).apply(x, Variations(colours=colours))
    plain = recolour(x, 1.6, 1.5, 0.5, 0.1)
    assert plain.max() == 1
    torch.testing.assert_close(seen, tv.normalize(plain, *statistics.values()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [Augmentation(), GEOMETRY, EVERYTHING])
def test_gray_pictures_become_coloured_ones_by_normalisation(settings: Augmentation) -> None:
    """Images of one channel with statistics of three are seen as three equal channels would be."""
    x = smooth_images(channels=1)
    in_colour = x.expand(-1, 3, -1, -1)
    gray, colour = (Augment(settings, replace(data(images), **IMAGENET)) for images in (x, in_colour))
    torch.testing.assert_close(gray(x, generator()), colour(in_colour, generator()), rtol=1e-4, atol=1e-4)
    assert torch.equal(gray.normalize(x), colour.normalize(in_colour))


def test_factors_are_uniform() -> None:
    """Factors are uniform within 1 plus and minus the strength, but not below 0; so are turns about 0."""
    colours = draw(Augmentation(brightness=0.2, contrast=1.0, saturation=0.5, hue=0.1), 40_000).colours
    low, high = torch.tensor([0.8, 0.0, 0.5, -0.1]), torch.tensor([1.2, 2.0, 1.5, 0.1])
    parts = (colours - low) / (high - low)
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    expected = levels.view(-1, 1).expand(-1, 4)
    torch.testing.assert_close(torch.quantile(parts, levels, dim=0), expected, rtol=0, atol=0.02)
    assert (torch.corrcoef(parts.T) - torch.eye(4)).abs().max() < 0.02


def test_strength_of_zero_leaves_its_factor_at_one() -> None:
    """What is not asked for does not change, while other colours do."""
    colours = draw(Augmentation(contrast=0.5), 100).colours
    assert torch.equal(colours[:, [0, 2, 3]], torch.tensor([1.0, 1.0, 0.0]).expand(100, -1))


def test_erasing_sets_its_box_to_zero() -> None:
    """What is in the box becomes the mean colour, all else stays."""
    x = smooth_images(3)
    augment = Augment(Augmentation(erasing=1.0), replace(data(x), **IMAGENET))
    boxes = torch.tensor([[1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 0.0, 0.0], [40.0, 0.0, 48.0, 48.0]])
    expected = augment.normalize(x)
    expected[0, :, 2:4, 1:5] = 0
    expected[2, :, :, 40:] = 0
    assert torch.equal(augment.apply(x, Variations(boxes=boxes)), expected)


BOXES: list[dict[str, Any]] = [
    {"erasing_scale": [0.02, 0.33], "erasing_ratio": [0.3, 3.3]},
    {"erasing_scale": [0.1, 0.2], "erasing_ratio": [2.0, 4.0]},
    {"erasing_scale": [0.9, 1.0], "erasing_ratio": [0.5, 1.5]},
]


@pytest.mark.parametrize("settings", BOXES, ids=str)
def test_boxes_are_distributed_as_torchvisions(settings: dict[str, Any]) -> None:
    """Areas, ratios and positions of the boxes have the quantiles of torchvision's RandomErasing."""
    n, side = 4_000, 200
    boxes = draw(Augmentation(erasing=1.0, **settings), n, side).boxes
    torch.manual_seed(0)
    blank = torch.empty(1, 1, 1).expand(1, side, side)
    params = torch.tensor([RandomErasing.get_params(blank, *settings.values(), [0.0])[:4] for _ in range(n)])
    # Where nothing fits, torchvision gives the whole image, unchanged.
    erased, tv_erased = boxes[:, 2] > 0, params[:, 2] < side
    assert erased.float().mean().item() == pytest.approx(tv_erased.float().mean().item(), abs=0.03)
    left, top, right, bottom = (boxes[erased] / side).unbind(1)
    tv_top, tv_left, tv_height, tv_width = (params[tv_erased] / side).unbind(1)
    width, height, levels = right - left, bottom - top, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    for ours, theirs in (
        (width * height, tv_width * tv_height),
        (torch.log(height / width), torch.log(tv_height / tv_width)),
        (left, tv_left),
        (top, tv_top),
    ):
        difference = torch.quantile(ours, levels) - torch.quantile(theirs, levels)
        assert difference.abs().max() < 0.07
    assert boxes.min() >= 0
    assert boxes.max() <= side
    assert torch.equal(boxes, boxes.round())


def test_erasing_comes_as_often_as_asked() -> None:
    """A box is erased with its probability."""
    boxes = draw(Augmentation(erasing=0.3), 20_000).boxes
    assert (boxes[:, 2] > 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_colours_change_no_geometry() -> None:
    """From the same seed come the same maps with other colours, and the same colours with erasing."""
    coloured, plain = draw(EVERYTHING, 50), draw(GEOMETRY, 50)
    assert torch.equal(coloured.maps, plain.maps)
    assert torch.equal(coloured.colours, draw(replace(EVERYTHING, erasing=0.0), 50).colours)
    assert plain.colours is None
    assert plain.boxes is None


def test_same_seed_varies_alike() -> None:
    """What happens to the images follows from the generator alone, and leaves the images untouched."""
    x = smooth_images()
    augment, before = Augment(EVERYTHING, data(x)), x.clone()
    assert torch.equal(augment(x, generator(1)), augment(x, generator(1)))
    assert not torch.equal(augment(x, generator(1)), augment(x, generator(2)))
    assert torch.equal(x, before)


@pytest.mark.parametrize("side", [24, 128])
def test_variations_of_many_serve_batches(side: int) -> None:
    """A part of what was drawn for an epoch does to a batch what the whole does to all, in parts or not."""
    x = smooth_images(20, side=side)
    augment = Augment(EVERYTHING, data(x, mean=0.4, std=0.2))
    drawn = augment.draw(len(x), generator())
    batches = [augment.apply(x[i : i + 7], drawn[i : i + 7]) for i in range(0, 20, 7)]
    torch.testing.assert_close(torch.cat(batches), augment.apply(x, drawn), rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------- with a margin


def middle(x: Tensor, side: int) -> Tensor:
    start = (x.shape[-1] - side) // 2
    return x[..., start : start + side, start : start + side]


def with_margin(settings: Augmentation, x: Tensor, side: int, **given: float) -> Augment:
    return Augment(settings, replace(data(x, **given), image_size=side))


@pytest.mark.parametrize("side", [1, 32, 35, 48])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_not_varied_is_the_middle(side: int, channels: int) -> None:
    """To the last bit, as if the middle had been cut out before; so are its colours and what is erased."""
    x = smooth_images(channels=channels)
    settings = replace(COLOURS, erasing=1.0)
    augment, cut_out = with_margin(settings, x, side, mean=0.4), Augment(settings, data(middle(x, side), 0.4))
    assert torch.equal(augment.normalize(x), cut_out.normalize(middle(x, side)))
    assert torch.equal(augment.apply(x, Variations()), augment.normalize(x))
    assert torch.equal(augment(x, generator()), cut_out(middle(x, side), generator()))


@pytest.mark.parametrize("side", [32, 35])
def test_flips_mirror_the_middle(side: int) -> None:
    """Without random crops the middle is seen at its own scale, to the pixel."""
    x = smooth_images()
    flipped = with_margin(Augmentation(hflip=1.0), x, side)(x, generator()) * 255
    torch.testing.assert_close(flipped, middle(x, side).flip(-1).float(), rtol=0, atol=2e-3)


def test_turns_look_at_the_margin() -> None:
    """The middle turned at its own scale, with what is around it in the corners."""
    x = smooth_images(16)
    augment = with_margin(Augmentation(rotation_deg=30), x, 32)
    drawn = augment.draw(len(x), generator())
    angles = torch.rad2deg(torch.atan2(drawn.maps[:, 1, 0], drawn.maps[:, 0, 0])).tolist()
    turned = [
        tv.rotate(image.float(), angle, InterpolationMode.BILINEAR) / 255
        for image, angle in zip(x, angles, strict=True)
    ]
    assert max(map(abs, angles)) > 10
    difference = augment.apply(x, drawn) - middle(torch.stack(turned), 32)
    assert difference.abs().mean() < 1 / 255


def test_crops_come_from_the_whole_image() -> None:
    """They reach each edge of what is kept, and the same are drawn as of images without a margin."""
    x = torch.zeros(400, 1, 24, 24, dtype=torch.uint8)
    x[..., [0, -1], :] = x[..., [0, -1]] = 255
    settings = Augmentation(crop_scale=[0.3, 1.0], crop_ratio=[0.75, 1.3333])
    augment = with_margin(settings, x, 16)
    seen = augment(x, generator())
    assert seen.shape == (400, 1, 16, 16)
    assert augment.normalize(x).max() == 0
    for edge in (seen[..., 0, :], seen[..., -1, :], seen[..., 0], seen[..., -1]):
        assert edge.max() > 0.5
    drawn = augment.draw(50, generator()).maps
    assert torch.equal(drawn, Augment(settings, data(x)).draw(50, generator()).maps)


def test_the_largest_crop_is_the_whole_image() -> None:
    """Scaled down to what a network sees."""
    x = smooth_images()
    seen = warp(with_margin(Augmentation(crop_scale=[0.5, 1.0]), x, 32), x, maps(len(x)))
    expected = tv.resize(x.float(), [32, 32], antialias=False) / 255
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-4)


def test_boxes_are_in_pixels_that_are_seen() -> None:
    """What is erased is a part of the image that a network sees."""
    x = smooth_images(1)
    boxes = with_margin(Augmentation(erasing=1.0), x, 32).draw(2_000, generator()).boxes
    assert torch.equal(boxes, draw(Augmentation(erasing=1.0), 2_000, side=32).boxes)


@pytest.mark.gpu
def test_gpu_varies_as_the_cpu_does() -> None:
    """The same seed gives the same images on every device, up to rounding."""
    x = smooth_images()
    on_cpu = data(x)
    statistics = {"mean": on_cpu.mean.cuda(), "std": on_cpu.std.cuda()}
    on_gpu = Augment(EVERYTHING, replace(on_cpu, **statistics))(x.cuda(), generator())
    assert (on_gpu.cpu() - Augment(EVERYTHING, on_cpu)(x, generator())).abs().mean() < 0.1 / 255
