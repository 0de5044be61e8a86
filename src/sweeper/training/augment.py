"""Augmentation of whole batches on the device, with random parameters for each image.

Crop, flips and rotation are one affine map per image, sampled once; normalisation is one multiply-add.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from sweeper import schema
from sweeper.training.data import Data

CROP_ATTEMPTS = 10
"""How often a crop that would not fit into the image is drawn again; torchvision's number."""


class Augment:
    """Turns uint8 images (n, c, side, side) into normalised float32 ones, varied anew at every call.

    An image is cropped (as by torchvision's RandomResizedCrop, without rounding to whole pixels), mirrored
    and turned about its centre. What a turn brings in from outside the image is black.
    """

    def __init__(self, settings: schema.Augmentation, data: Data) -> None:
        self.settings = settings
        self.hflip = settings.hflip if data.allow_hflip else 0.0
        self.vflip = settings.vflip if data.allow_vflip else 0.0
        self.crops = settings.crop_scale != [1.0, 1.0] or settings.crop_ratio != [1.0, 1.0]
        self.warps = bool(self.crops or self.hflip or self.vflip or settings.rotation_deg)
        # A crop that ends at the image's edge must not blend with black there; only turns look beyond it.
        self._outside = "zeros" if settings.rotation_deg else "border"
        self._scale = (1 / (255 * data.std)).view(1, -1, 1, 1)
        self._offset = (-data.mean / data.std).view(1, -1, 1, 1)
        self._centres = pixel_centres(data.train_x.shape[-1]).to(data.device)

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """``generator`` is one of the CPU: so the same seed varies images alike on every device."""
        if not self.warps:
            return self.normalize(batch)
        return self.warp(batch, self.draw(len(batch), generator).to(batch.device))

    def normalize(self, batch: Tensor) -> Tensor:
        """The images as they are, as float32 with the data's mean at 0 and its standard deviation 1."""
        return torch.addcmul(self._offset, batch, self._scale)

    def warp(self, batch: Tensor, maps: Tensor) -> Tensor:
        """The normalised images, each seen through its map (n, 2, 3) as ``draw`` gives it."""
        # One product for all images: a batched one would take seven times as long on a CPU.
        positions = torch.mm(maps.reshape(-1, 3), self._centres)
        grid = positions.view(len(batch), 2, *batch.shape[2:]).permute(0, 2, 3, 1)
        sampled = grid_sample(batch.float(), grid, padding_mode=self._outside, align_corners=False)
        return self.normalize(sampled)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Random maps (n, 2, 3) from output to input positions, both -1 … 1 from edge to edge, on the CPU."""
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
        """Widths and heights (n,) of crops and their centres' x and y, as ``affine_maps`` takes them."""
        if not self.crops:
            return torch.ones(n), torch.ones(n), torch.zeros(n), torch.zeros(n)
        (low, high), (narrow, wide) = self.settings.crop_scale, self.settings.crop_ratio
        area = low + (high - low) * torch.rand(CROP_ATTEMPTS, n, generator=generator)
        log_ratio = torch.rand(CROP_ATTEMPTS, n, generator=generator)
        ratio = torch.exp(math.log(narrow) + math.log(wide / narrow) * log_ratio)
        width, height = torch.sqrt(area * ratio), torch.sqrt(area / ratio)
        fits = (width <= 1) & (height <= 1)
        first, any_fits = fits.int().argmax(0, keepdim=True), fits.any(0)
        # Where no attempt fits: the largest crop whose ratio is allowed, from the middle.
        width = torch.where(any_fits, width.gather(0, first)[0], min(1.0, wide))
        height = torch.where(any_fits, height.gather(0, first)[0], min(1.0, 1 / narrow))
        left_right, up_down = (torch.rand(2, n, generator=generator) * 2 - 1) * any_fits
        return width, height, left_right * (1 - width), up_down * (1 - height)


def affine_maps(
    angle_deg: Tensor, width: Tensor, height: Tensor, centre_x: Tensor, centre_y: Tensor
) -> Tensor:
    """Maps (n, 2, 3) that show a crop turned counter-clockwise; a negative width or height mirrors it.

    Width and height are fractions of the image's side; the centre is -1 … 1 from edge to edge.
    """
    angle = torch.deg2rad(angle_deg)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x = torch.stack([width * cos, -width * sin, centre_x], dim=1)
    y = torch.stack([height * sin, height * cos, centre_y], dim=1)
    return torch.stack([x, y], dim=1)


def pixel_centres(side: int) -> Tensor:
    """The x, y and 1 (3, side * side) of the pixels' centres, where -1 and 1 are the image's edges."""
    along = (2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).view(3, -1)


def _signs(probability: float, n: int, generator: torch.Generator) -> Tensor:
    """-1 with the probability, else 1."""
    return 1 - 2 * (torch.rand(n, generator=generator) < probability).float()
