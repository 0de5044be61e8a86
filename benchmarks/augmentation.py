"""Augmenting a batch: ours, and torchvision's transforms image by image as PyTorch's tutorials write them.

    python benchmarks/augmentation.py

Both vary a batch of 64 by augmentation=standard in this one process, in turn, with one thread each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch
import yaml
from PIL import Image
from torchvision import transforms

from sweeper import schema
from sweeper.training.augment import Augment
from sweeper.training.data import Data
from sweeper.training.images import IMAGENET_MEAN, IMAGENET_STD

STANDARD = Path(__file__).parents[1] / "conf" / "augmentation" / "standard.yaml"
TARGETS = {32: 20, 64: 10, 224: 4}
"""At least so many times as fast, by the side in pixels."""


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    settings = standard()
    print(f"batch of {options.batch_size}, one thread, medians of {options.repeats}")
    print("side  torchvision    ours     ratio  CPU time's  target")
    for side in options.sides:
        print(_line(side, settings, options.batch_size, options.repeats), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Augmentation alone, ours and torchvision's.")
    parser.add_argument("--sides", type=int, nargs="+", default=list(TARGETS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    return parser


def standard() -> schema.Augmentation:
    """The settings of augmentation=standard."""
    return schema.Augmentation(**yaml.safe_load(STANDARD.read_text()))


def usual_transform(settings: schema.Augmentation, side: int) -> transforms.Compose:
    """The same, as the tutorials write it: for one Pillow image in colours."""
    low, high = settings.crop_scale
    narrow, wide = settings.crop_ratio
    colours = settings.brightness, settings.contrast, settings.saturation, settings.hue
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side, scale=(low, high), ratio=(narrow, wide)),
            transforms.RandomHorizontalFlip(settings.hflip),
            transforms.RandomRotation(settings.rotation_deg),
            transforms.ColorJitter(*colours),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def compare(
    side: int, settings: schema.Augmentation, batch_size: int, repeats: int, device: torch.device
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Wall and CPU milliseconds for a batch, of torchvision and of ours."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    usual, ours = _usual(pixels, settings, device), _ours(pixels, settings, device)
    # A batch of small images takes less time than the clock's noise: several at once.
    n = max(1, 150 // side)
    times: dict[str, list[tuple[float, float]]] = {"usual": [], "ours": []}
    for _ in range(repeats + 1):
        times["usual"].append(_time(usual, n))
        times["ours"].append(_time(ours, 4 * n))
    theirs, our = (
        (1000 * median(wall for wall, _ in runs[1:]), 1000 * median(cpu for _, cpu in runs[1:]))
        for runs in times.values()
    )
    return theirs, our


def _line(side: int, settings: schema.Augmentation, batch_size: int, repeats: int) -> str:
    (usual_wall, usual_cpu), (our_wall, our_cpu) = compare(
        side, settings, batch_size, repeats, torch.device("cpu")
    )
    return (
        f"{side:>4}  {usual_wall:>8.2f} ms  {our_wall:>6.2f} ms  {usual_wall / our_wall:>6.1f}"
        f"  {usual_cpu / our_cpu:>10.1f}  ≥ {TARGETS.get(side, '-')}"
    )


def _ours(
    pixels: np.ndarray, settings: schema.Augmentation, device: torch.device
) -> Callable[[], torch.Tensor]:
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.zeros(len(batch), dtype=torch.int64)
    data = Data(
        *(batch, labels) * 3,
        mean=torch.tensor(IMAGENET_MEAN, device=device),
        std=torch.tensor(IMAGENET_STD, device=device),
        classes=("0", "1"),
        fingerprint="",
        allow_hflip=True,
    )
    augment, generator = Augment(settings, data), torch.Generator().manual_seed(0)
    return lambda: augment.apply(batch, augment.draw(len(batch), generator).to(device))


def _usual(
    pixels: np.ndarray, settings: schema.Augmentation, device: torch.device
) -> Callable[[], torch.Tensor]:
    images = [Image.fromarray(image) for image in pixels]
    transform = usual_transform(settings, pixels.shape[1])
    return lambda: torch.stack([transform(image) for image in images]).to(device)


def _time(what: Callable[[], torch.Tensor], n: int) -> tuple[float, float]:
    """Wall and CPU seconds of one of n calls."""
    wall, cpu = perf_counter(), process_time()
    for _ in range(n):
        last = what()
    last[0, 0, 0, 0].item()  # waits for a GPU
    return (perf_counter() - wall) / n, (process_time() - cpu) / n


if __name__ == "__main__":
    main()
