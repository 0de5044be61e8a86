"""Memory: what the workers of a sweep hold of a folder of images, in units of its decoded size.

    python benchmarks/memory.py                      # 2,000 JPEGs at 224 pixels, 301 MB decoded
    python benchmarks/memory.py --images 1000        # a look; below 64 MB each worker has its copy

Each figure is the peak of a sum over all processes, read from /proc ten times a second: of what they map
from the cache, and of their own (anonymous) memory. Both are proportional shares (PSS): what several have
together, as forked workers have what was imported before, counts once. The same sweep over a tiny folder says
what processes take anyway, and that is subtracted; it has about as many steps, so that in both the workers'
own peaks meet. The usual way is a process for each worker that decodes the folder into an array of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

INTERVAL_S = 0.1
TINY = 120
"""Images of the folder that tells what processes take anyway; a fifth of them fills a batch of validation."""
TARGET_MAPPED, TARGET_OWN = 1.1, 0.1
"""At most so many decoded sizes: mapped by all workers together, and each worker's own."""

Way = Callable[[Path, int, argparse.Namespace], list[list[str]]]
"""Commands for so many workers on a folder."""


@dataclass(frozen=True)
class Memory:
    """Of several processes together, in MB."""

    mapped: float = 0
    own: float = 0

    def at_least(self, other: Memory) -> Memory:
        return Memory(max(self.mapped, other.mapped), max(self.own, other.own))

    def over(self, other: Memory, unit: float) -> Memory:
        return Memory((self.mapped - other.mapped) / unit, (self.own - other.own) / unit)


def main() -> None:
    options = _parser().parse_args()
    if options.hold:
        _hold(Path(options.hold), options.side)
        return
    from training import draw_folder  # which needs torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_folder(folder / "tiny", TINY)
        draw_folder(folder / "large", options.images)
        decoded_mb = _decoded_mb(options.images, options)
        print(f"{options.images} images at {options.side} pixels: {decoded_mb:.0f} MB decoded")
        print(
            "way, workers   peak MB: mapped (tiny folder)  own (tiny)    more, in decoded sizes: mapped, own"
        )
        for way in (_ours, _usual_way):
            more = [_measure(way, n_workers, folder, options) for n_workers in options.workers]
            if way is _ours:
                _judge(options.workers, more)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Memory of a sweep over an image folder.")
    parser.add_argument("--images", type=int, default=2000, help="JPEGs to draw; a fifth of them validates")
    parser.add_argument("--side", type=int, default=224, help="dataset.image_size")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="hydra.sweeper.n_jobs")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    return parser


def _decoded_mb(n_images: int, options: argparse.Namespace) -> float:
    return n_images * options.side**2 * 3 / 1e6


def _measure(way: Way, n_workers: int, folder: Path, options: argparse.Namespace) -> Memory:
    """Print a line, and give what the large folder takes more than the tiny one, in decoded sizes."""
    tiny, large = (
        _peak(way(folder / images, n_workers, options), folder / f"{way.__name__} {images} {n_workers}")
        for images in ("tiny", "large")
    )
    more = large.over(tiny, _decoded_mb(options.images - TINY, options))
    name = f"{way.__name__.strip('_').replace('_', ' ')}, {n_workers}"
    figures = f"{large.mapped:8.0f} ({tiny.mapped:.0f}){large.own:22.0f} ({tiny.own:.0f})"
    print(f"{name:<20}{figures:<46}{more.mapped:28.2f}{more.own:6.2f}", flush=True)
    return more


def _judge(workers: Sequence[int], more: Sequence[Memory]) -> None:
    print(f"mapped: at most {max(m.mapped for m in more):.2f} decoded sizes (target ≤ {TARGET_MAPPED})")
    most = max(memory.own / n for n, memory in zip(workers, more, strict=True))
    print(f"own: at most {most:.2f} for each worker (target ≤ {TARGET_OWN})")
    for (fewer, few), (n, many) in pairwise(zip(workers, more, strict=True)):
        growth = many.over(few, n - fewer)
        print(f"each more, from {fewer} to {n} workers: mapped {growth.mapped:+.2f}, own {growth.own:+.2f}")


# --------------------------------------------------------------------------------------- what is measured


def _ours(root: Path, n_workers: int, options: argparse.Namespace) -> list[list[str]]:
    """A trial for each worker."""
    n_epochs = options.images // TINY if root.name == "tiny" else 1
    overrides = [
        "dataset=image_folder",
        f"dataset.path={root}",
        f"dataset.image_size={options.side}",
        "dataset.test_fraction=0",
        "model.filters=[4,4,4,4]",
        "model.hidden_units=[16]",
        f"training.epochs={n_epochs}",
        "training.early_stopping.patience=null",
        "training.batch_size=16",
        "training.precision=float32",
        "device=cpu",
        "hydra/sweeper/sampler=random",
        "hydra/sweeper/pruner=none",
        f"hydra.sweeper.n_trials={n_workers}",
        f"hydra.sweeper.n_jobs={n_workers}",
    ]
    return [["-m", "sweeper", "-m", *overrides]]


def _usual_way(root: Path, n_workers: int, options: argparse.Namespace) -> list[list[str]]:
    return [[__file__, "--hold", str(root), "--side", str(options.side)]] * n_workers


def _hold(root: Path, side: int) -> None:
    """Decode all images into an array, and read them once, as an epoch does."""
    from torchvision import datasets, transforms

    square = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
    images = datasets.ImageFolder(str(root / "train")), datasets.ImageFolder(str(root / "val"))
    pixels = np.empty((sum(map(len, images)), side, side, 3), dtype=np.uint8)
    for target, (image, _) in zip(pixels, (one for part in images for one in part), strict=True):
        target[:] = square(image)
    print(sum(int(image.sum()) for image in pixels))


def _peak(commands: Sequence[Sequence[str]], folder: Path) -> Memory:
    """The most that the commands' processes hold together while they run, beginning with an empty cache."""
    folder.mkdir()
    cached = folder / "cache"
    environment = os.environ | {"SWEEPER_CACHE": str(cached)}
    with (folder / "output.txt").open("w+") as output:
        started = [
            subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for command in commands
        ]
        peak = Memory()
        while any(process.poll() is None for process in started):
            peak = peak.at_least(_held((pid for process in started for pid in _tree(process.pid)), cached))
            time.sleep(INTERVAL_S)
        if any(process.returncode != 0 for process in started):
            output.seek(0)
            sys.exit(output.read())
    return peak


def _tree(pid: int) -> Iterator[int]:
    """A process, those it started, and so on."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _held(pids: Iterator[int], cached: Path) -> Memory:
    mapped = own = 0.0
    for pid in pids:
        own += _value_mb("Pss_Anon:", _read(Path(f"/proc/{pid}/smaps_rollup")))
        _, *of_cache = _read(Path(f"/proc/{pid}/smaps")).split(str(cached))
        mapped += sum(_value_mb("Pss:", mapping) for mapping in of_cache)
    return Memory(mapped, own)


def _value_mb(name: str, text: str) -> float:
    """The first of that name, which is in what /proc calls kB."""
    _, _, rest = text.partition(name)
    return int(rest.split()[0]) * 1024 / 1e6 if rest else 0.0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process has ended
        return ""


if __name__ == "__main__":
    main()
