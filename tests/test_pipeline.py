"""``inference.pipeline``: what Pillow and the training do to pictures, inside of one network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sweeper.inference.pipeline import Pipeline, Resize, Scorer, takes_columns_first
from tests.models import made

SIZES = [
    *((96, 96), (32, 32), (33, 31), (1, 1), (1, 200), (200, 1), (640, 480), (480, 640), (2, 3)),
    *((75, 74), (300, 20), (20, 300), (129, 64), (128, 64), (31, 32), (32, 33), (1000, 31)),
]
"""Height and width: upright and wide, odd and even, larger and smaller than what becomes of them."""


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Every second one is of black and white alone, where filters round most."""
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return drawn if seed % 2 else np.where(drawn > 127, 255, 0).astype(np.uint8)


def by_pillow(picture: NDArray[np.uint8], side: int, stored: int) -> NDArray[np.uint8]:
    whole = ImageOps.fit(Image.fromarray(picture), (stored, stored), Image.Resampling.BILINEAR)
    start = (stored - side) // 2
    return np.asarray(whole)[start : start + side, start : start + side]


def resized(picture: NDArray[np.uint8], side: int, stored: int) -> NDArray[np.uint8]:
    ours = Resize(side, stored, takes_columns_first())(torch.from_numpy(picture).permute(2, 0, 1)[None])
    return np.asarray(ours[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("side", "stored"), [(32, 32), (28, 32), (31, 32), (1, 1), (64, 74)])
def test_pictures_are_resized_as_by_pillow(side: int, stored: int) -> None:
    """To the last bit, whatever their size and shape, also with a margin."""
    for number, (height, width) in enumerate(SIZES):
        picture = pixels(height, width, number)
        assert np.array_equal(resized(picture, side, stored), by_pillow(picture, side, stored)), (
            height,
            width,
        )


@pytest.mark.slow
def test_any_size_is_resized_as_by_pillow() -> None:
    """A thousand drawn sizes, to the last bit."""
    rng = np.random.default_rng(1)
    for number in range(1000):
        height, width = (int(n) for n in np.exp(rng.uniform(0, np.log(400), 2)))
        side = int(rng.integers(1, 260))
        picture = pixels(height, width, number)
        assert np.array_equal(resized(picture, side, side), by_pillow(picture, side, side)), (
            height,
            width,
            side,
        )


def test_the_order_of_the_passes_matters() -> None:
    """On the picture by which Pillow is asked for its order, one and the other give other pixels."""
    tall = torch.from_numpy((np.arange(60) * 37 % 256).astype(np.uint8)).view(1, 1, 15, 4)
    assert not torch.equal(Resize(3, 3, True)(tall), Resize(3, 3, False)(tall))


def test_gray_of_colours_is_pillows() -> None:
    """A model of gray pictures makes gray of RGB, and takes gray as it is."""
    model = made(pixel_channels=1, in_channels=1, image_size=16)
    pipeline = Pipeline(Scorer(model.module, model.card), model.card).eval()
    picture = pixels(40, 30, 1)
    gray = np.array(Image.fromarray(picture).convert("L"))
    with torch.inference_mode():
        of_colours = pipeline(torch.from_numpy(picture).permute(2, 0, 1)[None])
        of_gray = pipeline(torch.from_numpy(gray)[None, None])
    assert np.allclose(of_colours.numpy(), model.predict(picture).probabilities, atol=1e-6)
    assert np.allclose(of_gray.numpy(), model.predict(gray).probabilities, atol=1e-6)


@pytest.mark.parametrize("n_channels", [2, 4])
def test_transparency_is_refused(n_channels: int) -> None:
    """Other numbers of channels than one or three are an error, and not wrong colours."""
    model = made(pixel_channels=1, in_channels=1, image_size=16)
    pipeline = Pipeline(Scorer(model.module, model.card), model.card)
    with pytest.raises(IndexError, match="out of bounds"):
        pipeline(torch.zeros(1, n_channels, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize("labels", ["one", "several"])
def test_it_says_what_predict_says(labels: str) -> None:
    """Normalisation, temperature, and softmax or sigmoid are those of the model."""
    model = made(labels=labels, margin=1.143, temperature=1.7)
    pictures = [pixels(height, width, height) for height, width in SIZES]
    pipeline = Pipeline(Scorer(model.module, model.card), model.card).eval()
    with torch.inference_mode():
        said = [pipeline(torch.from_numpy(picture).permute(2, 0, 1)[None])[0] for picture in pictures]
    assert np.allclose(torch.stack(said).numpy(), model.predict(pictures).probabilities, atol=1e-6)
