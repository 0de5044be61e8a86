"""Equal pictures: the same pixels at full size are found in whatever file they are, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from sweeper.schema import Dataset
from sweeper.training import cache, picture
from sweeper.training.decode import identify, read_files

SIDES = (300, 200)


def photo(seed: int, size: tuple[int, int] = SIDES) -> Image.Image:
    """Something smooth, as photographs are, with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8))


def numbers(files: list[Path], **settings: Any) -> list[int]:
    dataset = Dataset(name="image_folder", path="here", image_size=16, **settings)
    pixels, _ = read_files(files, dataset)
    found: list[int] = identify(files, pixels, dataset)[1].tolist()
    return found


def same_as_png(tmp_path: Path, write: Callable[[Path], Path]) -> bool:
    """Whether what is written is found to be the same as a PNG of what it shows; others are not."""
    file = write(tmp_path)
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.save(tmp_path / "same.png")
    changed = np.asarray(upright).copy()
    changed[-1, -1, 0] ^= 1
    Image.fromarray(changed).save(tmp_path / "other.png")
    photo(99).save(tmp_path / "stranger.png")
    found = numbers([file, *(tmp_path / name for name in ("other.png", "stranger.png", "same.png"))])
    assert found[1:3] == [1, 2]
    return found[3] == 0


def jpeg(folder: Path, **settings: Any) -> Path:
    photo(0).save(folder / "photo.jpg", quality=90, **settings)
    return folder / "photo.jpg"


def turned(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(folder, exif=exif)


def grey(folder: Path) -> Path:
    photo(0).convert("L").save(folder / "grey.png")
    return folder / "grey.png"


def palette(folder: Path) -> Path:
    photo(0).quantize(16).save(folder / "palette.png")
    return folder / "palette.png"


def opaque(folder: Path) -> Path:
    photo(0).convert("RGBA").save(folder / "opaque.webp", lossless=True)
    return folder / "opaque.webp"


@pytest.mark.parametrize("write", [jpeg, turned, grey, palette, opaque])
def test_the_same_pixels_in_another_format_are_the_same(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    """A JPEG, one turned by its EXIF data, grey, a palette, an alpha channel that hides nothing: a lossless
    copy is found, and a copy of which one pixel differs by one step is another picture."""
    assert same_as_png(tmp_path, write)


def test_copies_with_other_metadata_are_the_same(tmp_path: Path) -> None:
    """Equal files, a text in one, another compression: all are the first."""
    text = PngImagePlugin.PngInfo()
    text.add_text("owner", "me")
    files = [tmp_path / f"{name}.png" for name in "abcde"]
    photo(1).save(files[0])
    files[1].write_bytes(files[0].read_bytes())
    photo(1).save(files[2], pnginfo=text)
    photo(1).save(files[3], compress_level=1)
    photo(2).save(files[4])
    assert numbers(files) == [0, 0, 0, 0, 4]


def test_the_background_decides_what_is_the_same(tmp_path: Path) -> None:
    """What is transparent is the same as the background that is seen through it."""
    files = [tmp_path / "clear.png", tmp_path / "black.png"]
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(files[0])
    Image.new("RGB", (20, 20), "black").save(files[1])
    assert numbers(files) == [0, 1]
    assert numbers(files, background="black") == [0, 0]


def test_only_what_may_be_equal_is_decoded_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many pictures in two formats, those with a copy; and the next time none at all."""
    whole: list[tuple[int, int]] = []
    digest = picture.whole_digest

    def count(file: Any, *rest: Any) -> bytes:
        whole.append(Image.open(file).size)
        file.seek(0)
        return digest(file, *rest)

    monkeypatch.setattr(picture, "whole_digest", count)
    files = [tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}" for i in range(40)]
    for i, file in enumerate(files):
        photo(i, (300, 200 if i == 1 else 201)).save(file)
    with Image.open(files[1]) as image:
        image.save(tmp_path / "copy.png")
    files.append(tmp_path / "copy.png")
    assert [i for i, number in enumerate(numbers(files)) if i != number] == [40]
    assert whole == [(300, 200), (300, 200)]
    assert numbers(files)[40] == 1
    assert len(whole) == 2


@pytest.mark.parametrize("kept", [True, False], ids=["on disk", "in memory"])
def test_files_left_out_move_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """Numbers and digests are those of the files that can be read."""
    if not kept:
        monkeypatch.setenv("SWEEPER_CACHE", "/dev/null/cache")
    files = [tmp_path / f"{name}.png" for name in "abcd"]
    for file, seed in zip(files, (1, 0, 2, 1), strict=True):
        photo(seed).save(file)
    files[1].write_bytes(b"nothing")
    dataset = Dataset(name="image_folder", path="here", image_size=16, skip_unreadable=True)
    pixels, readable = read_files(files, dataset)
    digests, found = identify([files[i] for i in readable], pixels, dataset)
    assert readable.tolist() == [0, 2, 3]
    assert found.tolist() == [0, 1, 0]
    assert (digests[0] == digests[2], digests[0] == digests[1]) == (True, False)
    cache.clear()
    again = identify([files[i] for i in readable], pixels, dataset)
    np.testing.assert_array_equal(digests, again[0])
    np.testing.assert_array_equal(found, again[1])


def hard(kind: str) -> NDArray[np.uint8]:
    """Pictures that shrink badly."""
    rows = np.indices((512, 384))[0]
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (512, 384, 3), dtype=np.uint8)
    drawn = rows % 2 if kind == "lines" else rows // 3 % 2
    return np.repeat((drawn * 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("size", [4, 16, 50, 64, 150])
@pytest.mark.parametrize("kind", ["photo", "noise", "lines", "stripes"])
def test_a_picture_is_found_at_every_size(tmp_path: Path, kind: str, size: int) -> None:
    """However much smaller the decoder made it, a JPEG has the lossless copy beside it."""
    image = photo(5, (700, 500)) if kind == "photo" else Image.fromarray(hard(kind))
    image.save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as opened:
        opened.save(tmp_path / "b.png")
    dataset = Dataset(name="image_folder", path="here", image_size=size)
    files = [tmp_path / "a.jpg", tmp_path / "b.png"]
    pixels, _ = read_files(files, dataset)
    assert identify(files, pixels, dataset)[1].tolist() == [0, 0]
