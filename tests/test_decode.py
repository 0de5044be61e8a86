"""Decoding of image files of every kind: the colours and positions that were drawn are those read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sweeper.errors import BadInput
from sweeper.schema import Dataset
from sweeper.training.decode import read_files, scale

SIDE = 16
QUARTERS = np.array([[(220, 40, 40), (40, 200, 40)], [(40, 40, 210), (230, 220, 30)]], dtype=np.uint8)
GREYS = np.array([[250, 60], [130, 0]], dtype=np.uint8)
COLOURS = np.kron(QUARTERS, np.ones((SIDE // 2, SIDE // 2, 1), dtype=np.uint8))
"""Four quarters, each of its own colour, so that every mirror image and every turn is another picture."""
GREY = np.kron(GREYS, np.ones((SIDE // 2, SIDE // 2), dtype=np.uint8))
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)


def read_one(file: Path, size: int = SIDE) -> NDArray[np.uint8]:
    pixels, readable = read_files([file], Dataset(name="image_folder", path="here", image_size=size))
    assert readable.tolist() == [0]
    one: NDArray[np.uint8] = pixels[0]
    return one


def assert_shows(file: Path, drawn: NDArray[np.uint8], atol: int = 2) -> None:
    np.testing.assert_allclose(read_one(file).astype(int), drawn.astype(int), atol=atol)


def colours(mode: str) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(COLOURS).convert(mode).save(file)


def greys(mode: str) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(GREY).convert(mode).save(file)


def sixteen_bits(file: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(file)


def big_endian(file: Path) -> None:
    Image.frombytes("I;16B", (SIDE, SIDE), (GREY.astype(">u2") * 257).tobytes()).save(file)


def floats(file: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / 255).save(file)


def sixteen_bit_pgm(file: Path) -> None:
    file.write_bytes(b"P5 %d %d 65535\n" % (SIDE, SIDE) + (GREY.astype(">u2") * 257).tobytes())


def twelve_bit_pgm(file: Path) -> None:
    values = np.rint(GREY * (4095 / 255)).astype(">u2")
    file.write_bytes(b"P5 %d %d 4095\n" % (SIDE, SIDE) + values.tobytes())


def sixteen_bit_colours(file: Path) -> None:
    """Pillow reads such files but cannot write them."""
    lines = b"".join(b"\0" + line.tobytes() for line in COLOURS.astype(">u2") * 257)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    data = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [*chunks, (b"IEND", b"")]
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("png", colours("RGB")),
        ("bmp", colours("RGB")),
        ("ppm", colours("RGB")),
        ("webp", lambda file: Image.fromarray(COLOURS).save(file, lossless=True)),
        ("tiff", colours("RGB")),
        ("png", lambda file: Image.fromarray(COLOURS).quantize(8).save(file)),
        ("png", colours("RGBA")),
        ("png", sixteen_bit_colours),
        ("tiff", colours("CMYK")),
    ],
    ids=["png", "bmp", "ppm", "webp", "tiff", "palette", "alpha", "16-bit", "cmyk"],
)
def test_colours_are_those_drawn(tmp_path: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Colour images of every mode show the colours that were drawn."""
    write(tmp_path / f"drawn.{suffix}")
    assert_shows(tmp_path / f"drawn.{suffix}", COLOURS)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("png", greys("L")),
        ("png", greys("LA")),
        ("png", greys("P")),
        ("png", sixteen_bits),
        ("tiff", sixteen_bits),
        ("tiff", big_endian),
        ("pgm", sixteen_bit_pgm),
        ("pgm", twelve_bit_pgm),
        ("tiff", floats),
    ],
    ids=["L", "LA", "P", "I;16 png", "I;16 tiff", "I;16B tiff", "16-bit pgm", "12-bit pgm", "F tiff"],
)
def test_greys_are_those_drawn(tmp_path: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Grey images of every depth are as bright as they were drawn, in all three channels."""
    write(tmp_path / f"drawn.{suffix}")
    assert_shows(tmp_path / f"drawn.{suffix}", GREY_RGB)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_black_and_white_is_kept(tmp_path: Path, suffix: str) -> None:
    """Images of one bit a pixel are black and white, not nearly black."""
    drawn = np.where(GREY_RGB > 128, 255, 0).astype(np.uint8)
    Image.fromarray(drawn).convert("1").save(tmp_path / f"drawn.{suffix}")
    assert_shows(tmp_path / f"drawn.{suffix}", drawn, atol=0)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpegs_of_every_mode(tmp_path: Path, mode: str) -> None:
    """JPEGs in YCbCr, in CMYK and in grey show the colours that were drawn, also where they are large."""
    drawn = GREY_RGB if mode == "L" else COLOURS
    for factor in (1, 16):
        large = Image.fromarray(drawn).resize((SIDE * factor, SIDE * factor), Image.Resampling.NEAREST)
        large.convert(mode).save(tmp_path / "drawn.jpg", quality=98, subsampling=0)
        shown = read_one(tmp_path / "drawn.jpg").astype(int)
        quarters = (slice(2, 6), slice(10, 14))
        for rows in quarters:
            for columns in quarters:
                np.testing.assert_allclose(
                    shown[rows, columns], drawn[rows, columns].astype(int), atol=6, err_msg=f"{factor}"
                )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_every_exif_orientation_stands_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """However the camera was held, the image is turned and mirrored back, and then its middle cut out."""
    wide = Image.fromarray(COLOURS).resize((8 * SIDE, 4 * SIDE), Image.Resampling.NEAREST)
    turns = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],  # the camera's; the viewer turns it by 270 degrees
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = wide
    for turn in turns[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"photo.{suffix}", exif=exif, quality=98)  # which a PNG ignores
    upright = np.asarray(ImageOps.fit(wide, (SIDE, SIDE), Image.Resampling.BILINEAR)).astype(int)
    shown = read_one(tmp_path / f"photo.{suffix}").astype(int)
    inner = np.r_[1:6, 10:15]
    np.testing.assert_allclose(shown[np.ix_(inner, inner)], upright[np.ix_(inner, inner)], atol=8)


def half_clear(mode: str, file: Path) -> NDArray[np.uint8]:
    """A picture whose left half is transparent, and what was drawn."""
    alpha = np.where(np.arange(SIDE) < SIDE // 2, 0, 255)[None].repeat(SIDE, 0).astype(np.uint8)
    grey = mode in ("LA", "L", "1")
    drawn = (
        np.where(GREY_RGB > 128, 255, 0).astype(np.uint8) if mode == "1" else GREY_RGB if grey else COLOURS
    )
    drawn = np.where(alpha[..., None] == 0, 7 if grey and mode != "1" else 0, drawn).astype(np.uint8)
    image = Image.fromarray(drawn)
    if mode == "P":
        image = image.quantize(8)
        clear = image.getpixel((0, 0))
        clears = bytes(0 if i == clear else 255 for i in range(8))
        image.save(file, transparency=clear if file.suffix == ".gif" else clears)
    elif mode in ("RGB", "L", "1"):  # one colour is called transparent
        image.convert(mode).save(file, transparency={"RGB": (0, 0, 0), "L": 7, "1": 0}[mode])
    else:
        image = image.convert(mode)
        image.putalpha(Image.fromarray(alpha))
        image.save(file, lossless=True)  # of which a PNG takes no notice
    return drawn


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, "png") for mode in ("RGBA", "LA", "P", "RGB", "L")],
        *[("RGBA", "webp"), ("RGBA", "tiff"), ("P", "gif")],
    ],
)
@pytest.mark.parametrize(
    ("background", "colour"), [("white", 255), ("#102030", (16, 32, 48)), ([1, 2, 3], (1, 2, 3))]
)
def test_transparency_is_laid_over_the_background(
    tmp_path: Path, mode: str, suffix: str, background: object, colour: int | tuple[int, int, int]
) -> None:
    """Through transparent pixels the background is seen, whichever way the file says transparent."""
    file = tmp_path / f"drawn.{suffix}"
    drawn = half_clear(mode, file)
    drawn[:, : SIDE // 2] = colour
    dataset = Dataset(name="image_folder", path="here", image_size=SIDE, background=background)
    pixels, _ = read_files([file], dataset)
    np.testing.assert_allclose(pixels[0].astype(int), drawn.astype(int), atol=2)


def test_what_is_half_transparent_is_mixed(tmp_path: Path) -> None:
    """Black that lets half of the light through is grey on white."""
    Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128)).save(tmp_path / "drawn.png")
    assert np.abs(read_one(tmp_path / "drawn.png").astype(int) - 127).max() <= 1


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    """Of an animated GIF the first picture is read."""
    frames = [Image.fromarray(COLOURS), Image.new("RGB", (SIDE, SIDE), (9, 9, 9))]
    frames[0].save(tmp_path / "drawn.gif", save_all=True, append_images=frames[1:], duration=100)
    assert_shows(tmp_path / "drawn.gif", COLOURS)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GREY.astype(np.int32) * 2**16, "32-bit integers, whose white is unknown"),
        (GREY.astype(np.float32), "floating-point values outside of 0 to 1"),
        (np.where(GREY > 200, np.nan, 0.5).astype(np.float32), "floating-point values outside of 0 to 1"),
    ],
    ids=["32-bit", "float to 255", "nan"],
)
def test_unknown_white_is_refused(tmp_path: Path, values: NDArray[np.generic], reason: str) -> None:
    """Values that do not say how bright they are mean an error that says so, never a black or white image."""
    Image.fromarray(values).save(tmp_path / "drawn.tiff")
    with pytest.raises(BadInput, match=rf"1 file is not a readable image: .*drawn\.tiff \({reason}"):
        read_one(tmp_path / "drawn.tiff")


@pytest.mark.parametrize("size", [5, 8, 24])
@pytest.mark.parametrize("channels", [1, 3])
def test_scaling_shows_the_same_picture(size: int, channels: int) -> None:
    """Scaled pixels keep their place and colour; their own size leaves them as they are."""
    pixels = np.stack([COLOURS, COLOURS[::-1], 255 - COLOURS])[..., :channels]
    scaled = scale(pixels, Dataset(image_size=size))
    assert scaled.shape == (3, size, size, channels)
    for x in (0, -1):
        np.testing.assert_allclose(
            scaled[:, x, x].astype(int), pixels[:, x, x].astype(int), atol=1, err_msg=f"corner {x}"
        )
    assert scale(pixels, Dataset(image_size=SIDE)) is pixels
    assert scale(pixels, Dataset()) is pixels


def test_middle_is_cut_out(tmp_path: Path) -> None:
    """The shorter side is scaled to the size and the middle of the longer one kept."""
    strip = np.zeros((10, 30, 3), dtype=np.uint8)
    strip[:, 10:20] = 255
    Image.fromarray(strip).save(tmp_path / "strip.png")
    assert read_one(tmp_path / "strip.png", 10).min() == 255


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    """A fine checkerboard shrinks to even grey, not to stripes."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    middle = read_one(tmp_path / "board.png", 8)[1:-1, 1:-1].astype(int)
    assert np.abs(middle - 127).max() <= 2
