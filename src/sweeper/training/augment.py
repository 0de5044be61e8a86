"""Augmentation of whole batches on the device, with random parameters for each image.

Crop, flips and rotation are one affine map per image, and each image is sampled once. Brightness, contrast,
saturation and hue are one affine map of the colours, which includes the normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from sweeper import schema
from sweeper.training.data import Data

ATTEMPTS = 10
"""How often a crop or an erased rectangle that does not fit is drawn again; torchvision's number."""

PIXELS_PER_PART = 2**17
"""Pixels augmented at once on a CPU: intermediate results then fit in its cache, and their memory is reused.
This halves the time for 64 images of 224 pixels a side."""

YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Luma and two chroma axes from red, green and blue, as in the NTSC standard (FCC, 1953).

torchvision's gray is this luma, but with 0.2989 for red. Only weights that add up to 1 leave gray unchanged.
"""


@dataclass(frozen=True, eq=False)
class Variations:
    """The random parameters of n images; None for a kind of variation that is off.

    ``maps`` (n, 2, 3) lead from output to input positions, both -1 … 1 from edge to edge. ``colours`` (n, 4)
    are the factors of brightness, contrast and saturation, and the hue's shift as a fraction of the circle.
    ``boxes`` (n, 4) are the left, top, right and bottom of the erased rectangles, in whole pixels; right and
    bottom are exclusive, so zeros erase nothing.
    """

    maps: Tensor | None = None
    colours: Tensor | None = None
    boxes: Tensor | None = None

    def __getitem__(self, part: slice) -> Variations:
        """The parameters of some of the images."""
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> Variations:
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Variations:
        tensors = (self.maps, self.colours, self.boxes)
        return Variations(*(None if tensor is None else change(tensor) for tensor in tensors))


class Augment:
    """Turns uint8 images into normalised float32 images (n, channels, side, side), varied anew at every call;
    the side is ``data.side``.

    An image is cropped (as by torchvision's RandomResizedCrop, without rounding to whole pixels), mirrored
    and rotated about its centre; pixels from outside the image are black. Then its colours change as by
    torchvision's ColorJitter, with three differences: the order is always brightness, contrast, saturation,
    hue (torchvision shuffles them); values are clamped to 0 … 1 only at the end; and the hue shifts in YIQ
    instead of HSV. Finally a rectangle is filled with the mean colour, as by torchvision's RandomErasing with
    value 0 after normalisation.

    If the stored images are larger than ``data.side`` (a margin), random crops come from the whole image.
    Without random crops the network sees the centre at its own scale, and rotations bring in the margin.

    Images of one channel with statistics for three become three-channel images. They have no colour, so
    saturation and hue leave them unchanged.
    """

    def __init__(self, settings: schema.Augmentation, data: Data) -> None:
        self.settings = settings
        channels, side = data.train_x.shape[1], data.side
        self.hflip = settings.hflip if data.allow_hflip else 0.0
        self.vflip = settings.vflip if data.allow_vflip else 0.0
        self.crops = settings.crop_scale != [1.0, 1.0] or settings.crop_ratio != [1.0, 1.0]
        self.warps = bool(self.crops or self.hflip or self.vflip or settings.rotation_deg)
        self.coloured = channels == 3
        tints = self.coloured and (settings.saturation or settings.hue)
        self.recolours = bool(settings.brightness or settings.contrast or tints)
        self.varies = self.warps or self.recolours or settings.erasing > 0
        # A crop at the image's edge must not blend with black there; only rotations look beyond the edge.
        self._outside = "zeros" if settings.rotation_deg else "border"
        self._scale = (1 / (255 * data.std)).view(1, -1, 1, 1)
        self._offset = (-data.mean / data.std).view(1, -1, 1, 1)
        self._black = self._offset.flatten().tolist()
        self._white = ((1 - data.mean) / data.std).tolist()
        luma = torch.tensor(YIQ[0]) if self.coloured else torch.full((channels,), 1 / channels)
        self._luma = luma.to(data.device)
        self._turns = (colour_turns().to(data.device) * self._scale.view(-1, 1)).view(3, -1)
        self._side, self._along = side, torch.arange(side, dtype=torch.float32, device=data.device)
        self._stored = data.train_x.shape[-1]
        self._start = (self._stored - side) // 2
        self._centres = pixel_centres(side).to(data.device)

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """``generator`` is on the CPU, so that a seed gives the same variations on every device."""
        return self.apply(batch, self.draw(len(batch), generator).to(batch.device))

    def normalize(self, batch: Tensor) -> Tensor:
        """The images without augmentation, as float32 normalised by the data's ``mean`` and ``std``."""
        return torch.addcmul(self._offset, self._middle(batch), self._scale)

    def _middle(self, pixels: Tensor) -> Tensor:
        seen = slice(self._start, self._start + self._side)
        return pixels[..., seen, seen]

    # ------------------------------------------------------------------------------------------- drawing

    def draw(self, n: int, generator: torch.Generator) -> Variations:
        """Random parameters of n images, on the CPU. The maps do not depend on the colour settings."""
        return Variations(
            maps=self._draw_maps(n, generator) if self.warps else None,
            colours=self._draw_colours(n, generator) if self.recolours else None,
            boxes=self._draw_boxes(n, generator) if self.settings.erasing > 0 else None,
        )

    def _draw_maps(self, n: int, generator: torch.Generator) -> Tensor:
        width, height, centre_x, centre_y = self._draw_crops(n, generator)
        horizontal, vertical = _signs(self.hflip, n, generator), _signs(self.vflip, n, generator)
        angle = torch.rand(n, generator=generator) * 2 - 1
        return affine_maps(
            angle_deg=angle * self.settings.rotation_deg,
            width=width * horizontal,
            height=height * vertical,
            centre_x=centre_x,
            centre_y=centre_y,
        )

    def _draw_crops(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Widths and heights (n,) of crops and x and y of their centres, as ``affine_maps`` takes them."""
        if not self.crops:  # the exact centre
            part = torch.full((n,), self._side / self._stored)
            centre = torch.full((n,), (2 * self._start + self._side) / self._stored - 1)
            return part, part, centre, centre
        narrow, wide = self.settings.crop_ratio
        width, height = _draw_shapes(self.settings.crop_scale, self.settings.crop_ratio, n, generator)
        width, height, any_fits = _first((width <= 1) & (height <= 1), width, height)
        # If no attempt fits: the largest centre crop with an allowed ratio.
        width = torch.where(any_fits, width, min(1.0, wide))
        height = torch.where(any_fits, height, min(1.0, 1 / narrow))
        left_right, up_down = (torch.rand(2, n, generator=generator) * 2 - 1) * any_fits
        return width, height, left_right * (1 - width), up_down * (1 - height)

    def _draw_colours(self, n: int, generator: torch.Generator) -> Tensor:
        given = self.settings
        strengths = torch.tensor([given.brightness, given.contrast, given.saturation, given.hue])
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        low = torch.maximum(neutral - strengths, torch.tensor([0.0, 0.0, 0.0, -0.5]))
        return low + (neutral + strengths - low) * torch.rand(n, 4, generator=generator)

    def _draw_boxes(self, n: int, generator: torch.Generator) -> Tensor:
        # torchvision's ratio is height / width here.
        scale, ratio = self.settings.erasing_scale, self.settings.erasing_ratio
        chosen = torch.rand(n, generator=generator) < self.settings.erasing
        height, width = (torch.round(part * self._side) for part in _draw_shapes(scale, ratio, n, generator))
        width, height, any_fits = _first((width < self._side) & (height < self._side), width, height)
        sizes = torch.stack([width, height], dim=1)
        free = self._side - sizes
        # Rounding may raise the largest random number to free + 1.
        starts = torch.minimum(torch.floor(torch.rand(n, 2, generator=generator) * (free + 1)), free)
        return torch.cat([starts, starts + sizes], dim=1) * (chosen & any_fits).view(-1, 1)

    # ------------------------------------------------------------------------------------------ applying

    def apply(self, batch: Tensor, variations: Variations) -> Tensor:
        """The normalised images, varied by parameters from ``draw`` that are on the images' device."""
        images = self._offset.new_empty(len(batch), self._offset.shape[1], self._side, self._side)
        n = max(1, PIXELS_PER_PART // self._side**2) if batch.device.type == "cpu" else len(batch)
        for start in range(0, len(batch), n):
            part = slice(start, start + n)
            self._apply(batch[part], variations[part], images[part])
        return images

    def _apply(self, pixels: Tensor, variations: Variations, out: Tensor) -> None:
        maps = variations.maps
        pixels = self._middle(pixels) if maps is None else self._sample(pixels, maps)
        if variations.colours is not None:
            self._recolour(pixels, variations.colours, out)
        else:
            torch.addcmul(self._offset, pixels, self._scale, out=out)
        if variations.boxes is not None:
            out.mul_(self._outside_of(variations.boxes))

    def _sample(self, pixels: Tensor, maps: Tensor) -> Tensor:
        # One matrix product for all images: a batched one takes seven times as long on a CPU.
        positions = torch.mm(maps.reshape(-1, 3), self._centres)
        grid = positions.view(len(pixels), 2, self._side, self._side).permute(0, 2, 3, 1)
        return grid_sample(pixels.float(), grid, padding_mode=self._outside, align_corners=False)

    def _recolour(self, pixels: Tensor, colours: Tensor, out: Tensor) -> None:
        """Write the normalised pixels with their colours changed.

        Contrast blends with the mean luma of the sampled image. Saturation scales the chroma and hue rotates
        it, so both together are one rotation and one factor.
        """
        brightness, contrast, saturation, turn = colours.unbind(1)
        gain, angle = brightness * contrast, 2 * math.pi * turn
        lift = (brightness - gain) * (pixels.mean((2, 3), dtype=torch.float32) @ self._luma)
        offset = torch.addcmul(self._offset, lift.view(-1, 1, 1, 1), self._scale)
        if self.coloured:
            cos, sin = saturation * torch.cos(angle), saturation * torch.sin(angle)
            weights = gain.view(-1, 1) * torch.stack([torch.ones_like(cos), cos, sin], dim=1)
            matrices = (weights @ self._turns).view(-1, 3, 3)
            torch.baddbmm(offset.flatten(2), matrices, pixels.flatten(2).float(), out=out.flatten(2))
        else:
            torch.addcmul(offset, pixels, gain.view(-1, 1, 1, 1) * self._scale, out=out)
        # Channel by channel, because tensors as limits take three times as long on a CPU.
        for channel, black, white in zip(out.unbind(1), self._black, self._white, strict=True):
            channel.clamp_(black, white)

    def _outside_of(self, boxes: Tensor) -> Tensor:
        """Masks (n, 1, side, side): 0 in each image's box, 1 outside."""
        left, top, right, bottom = boxes.unsqueeze(2).unbind(1)
        columns = ((self._along >= left) & (self._along < right)).float()
        rows = ((self._along >= top) & (self._along < bottom)).float()
        return 1 - rows[:, None, :, None] * columns[:, None, None, :]


def affine_maps(
    angle_deg: Tensor, width: Tensor, height: Tensor, centre_x: Tensor, centre_y: Tensor
) -> Tensor:
    """Maps (n, 2, 3) that show a crop rotated counter-clockwise; a negative width or height mirrors it.

    Width and height are fractions of the image's side; the centre is -1 … 1 from edge to edge.
    """
    angle = torch.deg2rad(angle_deg)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x = torch.stack([width * cos, -width * sin, centre_x], dim=1)
    y = torch.stack([height * sin, height * cos, centre_y], dim=1)
    return torch.stack([x, y], dim=1)


def pixel_centres(side: int) -> Tensor:
    """x, y and 1 (3, side * side) of the centre of each pixel, with the image's edges at -1 and 1."""
    along = (2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).view(3, -1)


def colour_turns() -> Tensor:
    """Three matrices (3, 3, 3) on red, green and blue: to gray, to the difference from gray (chroma), and
    to the chroma rotated by 90 degrees.

    Their sum with weights 1, s cos a and s sin a multiplies the saturation by s and rotates the hue by a
    about the gray axis in YIQ, from red via green to blue. Gray and luma are unchanged. It is linear, unlike
    torchvision's hue shift in HSV; MXNet's HueJitterAug does the same. Source:
    https://beesbuzz.biz/code/hsv_color_transforms.php
    """
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    in_yiq = torch.zeros(3, 3, 3, dtype=torch.float64)
    in_yiq[0, 0, 0] = in_yiq[1, 1, 1] = in_yiq[1, 2, 2] = in_yiq[2, 1, 2] = 1
    in_yiq[2, 2, 1] = -1
    turns: Tensor = torch.linalg.inv(to_yiq) @ in_yiq @ to_yiq
    return turns.float()


def _signs(probability: float, n: int, generator: torch.Generator) -> Tensor:
    """-1 with this probability, otherwise 1."""
    return 1 - 2 * (torch.rand(n, generator=generator) < probability).float()


def _draw_shapes(
    scale: list[float], ratio: list[float], n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both sides (ATTEMPTS, n) of rectangles in a square of side 1, from ranges of area and aspect ratio."""
    area = scale[0] + (scale[1] - scale[0]) * torch.rand(ATTEMPTS, n, generator=generator)
    log_ratio = torch.rand(ATTEMPTS, n, generator=generator)
    by = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * log_ratio)
    return torch.sqrt(area * by), torch.sqrt(area / by)


def _first(fits: Tensor, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Width and height (n,) of the first attempt that fits, and whether any does."""
    first = fits.int().argmax(0, keepdim=True)
    return width.gather(0, first)[0], height.gather(0, first)[0], fits.any(0)
