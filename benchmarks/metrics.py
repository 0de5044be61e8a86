"""Metrics: what an epoch costs with all of them, and without.

    python benchmarks/metrics.py                     # 20,000 images of CIFAR-10's size and the digits
    python benchmarks/metrics.py --images 5000 --turns 2     # a look

Both trainings are the same, `fit` on a small CNN with a fifth of the images for validation, and take turns;
one measures loss and accuracy, the other all that there is for images with one label. The first epoch of each
turn does not count. Other programs disturb an epoch by more than the difference, so beside the ratios of the
medians stands what the metrics of these validation images take by themselves, as a share of the epoch without
them: of the CPU's time, which waits for nobody, or on a GPU of the clock's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

import torch

from common import share_cores
from sweeper import schema
from sweeper.training import data, metric
from sweeper.training.fit import Epoch, fit

TARGET = 0.02
"""At most this share of an epoch, on a task of realistic size."""
ALL = tuple(name for name, kind in schema.METRICS.items() if kind.one_label)


@dataclass
class Side:
    """The epochs of one of the two, in seconds of the clock and of the CPU."""

    metrics: tuple[str, ...]
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def train(self, loaded: data.Data, options: argparse.Namespace) -> None:
        training = schema.Training(
            epochs=1 + options.epochs,
            batch_size=64,
            precision="float32",
            n_threads=options.threads,
            early_stopping=schema.EarlyStopping(patience=None),
            metrics=list(self.metrics),
        )
        ends: list[tuple[float, float]] = []

        def on_epoch(epoch: Epoch) -> None:
            ends.append((time.perf_counter(), time.process_time()))

        fit(schema.Run(device=options.device, training=training), loaded, on_epoch)
        for before, after in pairwise(ends):
            self.wall_s.append(after[0] - before[0])
            self.cpu_s.append(after[1] - before[1])


def main() -> None:
    options = _parser().parse_args()
    share_cores(options.device)
    torch.set_num_threads(options.threads)
    metric.load(ALL)
    print(f"torch {torch.__version__}, {options.threads} threads")
    share = _compare(f"{options.images:,} images at 32 pixels", _of_cifars_size(options), options)
    _compare("digits", data.load(schema.Dataset(), torch.device(options.device)), options)
    print(f"target of at most {TARGET:.0%}: {'met' if share <= TARGET else 'not met'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="An epoch with all metrics and without.")
    parser.add_argument("--images", type=int, default=20_000, help="a fifth of them validates")
    parser.add_argument("--turns", type=int, default=5, help="of both sides")
    parser.add_argument("--epochs", type=int, default=2, help="of each turn that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser


def _of_cifars_size(options: argparse.Namespace) -> data.Data:
    """Noise with a faint pattern for each of ten classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (options.images,), generator=generator)
    patterns = torch.randint(0, 40, (10, 3, 32, 32), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 200, (options.images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    pixels, n_val = (noise + patterns[labels]).to(options.device), options.images // 5
    labels = labels.to(options.device)
    digits = data.load(schema.Dataset(), torch.device(options.device))
    return replace(
        digits,
        train_x=pixels[n_val:],
        train_y=labels[n_val:],
        val_x=pixels[:n_val],
        val_y=labels[:n_val],
        mean=torch.full((3,), 0.47, device=options.device),
        std=torch.full((3,), 0.23, device=options.device),
    )


def _compare(case: str, loaded: data.Data, options: argparse.Namespace) -> float:
    """Print both sides; returns the metrics' own time as a share of an epoch without them."""
    without, with_all = Side(()), Side(ALL)
    for turn in range(options.turns):
        for side in (without, with_all) if turn % 2 == 0 else (with_all, without):
            side.train(loaded, options)
    print(f"{case}, {len(loaded.val_y):,} of them to validate; medians of {len(without.wall_s)} epochs")
    for name, side in (("loss and accuracy", without), ("all metrics", with_all)):
        print(f"  {name:<20}{median(side.wall_s):8.3f} s{median(side.cpu_s):8.3f} s of the CPU")
    wall = median(with_all.wall_s) / median(without.wall_s) - 1
    cpu = median(with_all.cpu_s) / median(without.cpu_s) - 1
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    own_s = _own_time(loaded, clock)
    share = own_s / median(without.cpu_s if options.device == "cpu" else without.wall_s)
    print(f"  with all {wall:+.1%}, of the CPU's time {cpu:+.1%}")
    print(f"  by themselves {own_s * 1e3:.1f} ms, {share:.2%} of an epoch")
    return share


def _own_time(loaded: data.Data, clock: Callable[[], float], repeats: int = 15) -> float:
    """Seconds that all metrics take more than loss and accuracy, of logits that agree a little."""
    n_classes = len(loaded.classes)
    logits = torch.randn(len(loaded.val_y), n_classes, generator=torch.Generator().manual_seed(0))
    logits = logits.to(loaded.device) + torch.nn.functional.one_hot(loaded.val_y, n_classes)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as in a training
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for has_all, own in seconds.items():
            started = clock()
            metric.measure(logits, loaded.val_y, ALL if has_all else None)
            own.append(clock() - started)
    return median(seconds[True]) - median(seconds[False])


if __name__ == "__main__":
    main()
