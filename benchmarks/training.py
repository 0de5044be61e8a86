"""Training: ours, and the usual way of usual_training.py, in one run on the same cores.

    python benchmarks/training.py everything        # ResNet-18 at 224 pixels, all of it trains, augmented
    python benchmarks/training.py cnn               # a small CNN on the digits at 32 pixels, augmented
    python benchmarks/training.py head              # a search over the head of ResNet-18, caches empty
    python benchmarks/training.py last_block        # one training of its last block and head, caches empty

`everything` and `cnn` count the images per second of the training part of an epoch, ours by `fit`. The other
two count the wall time of `python -m sweeper`, start-up, decoding and the test at the end included; the usual
way is timed over two epochs and scaled, without its start-up.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
import torchvision
from PIL import Image

import usual_training
import usual_way
from augmentation import standard, usual_transform
from sweeper import schema
from sweeper.results import record
from sweeper.training import data
from sweeper.training.fit import fit

SIDE = 224
CLASSES = ("columns", "rows", "spots")
TARGETS = {"everything": 2, "cnn": 2.5, "head": 40, "last_block": 5}
SEARCHES = {"head": (10, 1e-3), "last_block": (1, 1e-3)}
"""Trials, and the usual way's learning rate."""


def main() -> None:
    options = _parser().parse_args()
    # The same two cores for everybody; the processes that are started inherit this.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.case == "cnn":
            _compare_cnn(options)
            return
        draw_folder(Path(folder, "images"), options.images)
        if options.case == "everything":
            _compare_everything(Path(folder, "images"), options)
        else:
            _compare_frozen(Path(folder), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Training, ours and the usual way.")
    parser.add_argument("case", choices=TARGETS)
    parser.add_argument("--images", type=int, default=600, help="JPEGs to draw; a fifth of them validates")
    parser.add_argument("--epochs", type=int, default=10, help="of ours; the usual way of everything and cnn")
    parser.add_argument("--repeats", type=int, default=3, help="of everything and cnn, with other seeds")
    parser.add_argument("--threads", type=int, default=2, help="of torch, for both sides; there are 2 cores")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="of the usual way's DataLoader"
    )
    parser.add_argument("--usual-epochs", type=int, default=2, help="of head and last_block, then scaled")
    return parser


# --- images ---------------------------------------------------------------------------------------------


def draw_folder(root: Path, n_images: int) -> None:
    """JPEGs of 320 by 256 pixels in ``root/train`` and ``root/val``: noisy stripes or spots of any size."""
    rng = np.random.default_rng(0)
    for number in range(n_images):
        name = CLASSES[number % len(CLASSES)]
        folder = root / ("val" if number % 5 == 4 else "train") / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_draw(name, rng)).save(folder / f"{number}.jpg", quality=90)


def _draw(name: str, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:256, 0:320] / rng.uniform(4, 12)
    phase = rng.uniform(0, 6, 2)
    waves = {"columns": np.sin(x + phase[0]), "rows": np.sin(y + phase[1])}
    waves["spots"] = waves["columns"] * waves["rows"]
    colours = rng.uniform(30, 90, 3)
    picture = 128 + waves[name][..., None] * colours + rng.normal(0, 20, (256, 320, 3))
    return picture.clip(0, 255).astype(np.uint8)


def _folder_settings(root: Path) -> schema.Dataset:
    return schema.Dataset(
        name="image_folder",
        path=str(root),
        image_size=SIDE,
        test_fraction=0,
        normalization="imagenet",
        allow_hflip=True,
    )


# --- everything trains ----------------------------------------------------------------------------------


def _compare_everything(root: Path, options: argparse.Namespace) -> None:
    run = schema.Run(
        dataset=_folder_settings(root),
        model=schema.Model(source="torchvision", name="resnet18", dropout=0),
        optimizer=schema.Optimizer(lr=0.01, momentum=0.9),
        augmentation=standard(),
    )

    def usual(num_workers: int) -> usual_training.Trained:
        model = usual_training.resnet18(len(CLASSES), None, "everything")
        parts = usual_training.folders(root, SIDE, usual_transform(run.augmentation, SIDE))
        return usual_training.train(model, parts, options.epochs, num_workers, run.optimizer.lr)

    _compare_speed(run, usual, options)


def _compare_cnn(options: argparse.Namespace) -> None:
    # The settings of augmentation=light, which usual_way.py has too.
    light = schema.Augmentation("light", rotation_deg=10, crop_scale=[0.8, 1.0], crop_ratio=[0.75, 1.3333])
    run = schema.Run(
        dataset=schema.Dataset(image_size=usual_way.IMAGE_SIZE),
        optimizer=schema.Optimizer(lr=0.01, momentum=0.9),
        augmentation=light,
    )
    _compare_speed(
        run,
        lambda num_workers: usual_training.train(
            usual_way.Cnn(run.model.dropout), usual_way.load(), options.epochs, num_workers, run.optimizer.lr
        ),
        options,
    )


def _compare_speed(
    run: schema.Run, usual: Callable[[int], usual_training.Trained], options: argparse.Namespace
) -> None:
    sides = [f"ours, {precision}" for precision in ("bfloat16", "float32")]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    found |= {f"usual way, num_workers={n}": [] for n in options.workers}
    for seed in range(options.repeats):
        for name in found:  # in turn, so that a busy moment of the machine hits all alike
            cpu = _cpu_s()
            if name.startswith("ours"):
                speed, accuracy = _ours(run, name.rpartition(" ")[2], seed, options)
            else:
                torch.manual_seed(seed)
                trained = usual(int(name.rpartition("=")[2]))
                speed, accuracy = trained.images_per_second, trained.val_accuracy
            found[name].append((speed, accuracy, _cpu_s() - cpu))
    print(f"{options.epochs} epochs, {options.threads} threads, medians of {options.repeats} seeds")
    usual_ways = [name for name in found if name not in sides]
    fastest = max(median(speed for speed, *_ in found[name]) for name in usual_ways)
    least_cpu = min(median(cpu for *_, cpu in found[name]) for name in usual_ways)
    for name, values in found.items():
        speed, accuracy, cpu = (median(part) for part in zip(*values, strict=True))
        ratio = f"   {speed / fastest:.2f} × the faster usual way (target ≥ {TARGETS[options.case]})"
        ratio += f", CPU time {least_cpu / cpu:.2f} ×"
        print(
            f"{name:<28}{speed:8.0f} images/s   validation accuracy {accuracy:.4f}   {cpu:6.1f} s of CPU"
            f"{ratio if name in sides else ''}"
        )


def _ours(run: schema.Run, precision: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Images per second of the fastest epoch, and the last one's accuracy."""
    stopping = schema.EarlyStopping(patience=None)
    settings = schema.Training(
        epochs=options.epochs, precision=precision, n_threads=options.threads, early_stopping=stopping
    )
    loaded = data.load(run.dataset, torch.device("cpu"))
    history = fit(replace(run, seed=seed, training=settings), loaded).history
    return max(epoch.images_per_second for epoch in history), history[-1].val_accuracy or 0.0


def _cpu_s() -> float:
    """Of this process and of the loader's that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


# --- most is frozen -------------------------------------------------------------------------------------


def _compare_frozen(folder: Path, options: argparse.Namespace) -> None:
    weights = folder / "resnet18.pt"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    n_trials, lr = SEARCHES[options.case]
    n_epochs = n_trials * options.epochs
    root = folder / "images"
    wall_s, inside_s, accuracy = _sweeper(folder, weights, n_trials, options)
    print(f"{n_trials} trials × {options.epochs} epochs, {options.images} images")
    inside = f"{inside_s:.1f} s in epochs (a sum over trials)"
    print(f"ours       {wall_s:8.1f} s, {inside}; best validation accuracy {accuracy:.4f}", flush=True)
    usual = []
    for num_workers in options.workers:
        model = usual_training.resnet18(len(CLASSES), weights, options.case)
        parts = usual_training.folders(root, SIDE)
        trained = usual_training.train(model, parts, options.usual_epochs, num_workers, lr)
        usual.append(n_epochs * trained.epoch_s)
        print(
            f"usual way  {usual[-1]:8.1f} s, num_workers={num_workers}: {n_epochs} × the faster of"
            f" {options.usual_epochs} epochs; validation accuracy after them {trained.val_accuracy:.4f}",
            flush=True,
        )
    print(f"ratio {min(usual) / wall_s:.1f}  (target ≥ {TARGETS[options.case]})")


def _sweeper(
    folder: Path, weights: Path, n_trials: int, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Wall time of the command, seconds in epochs of all trials, and the best validation accuracy."""
    overrides = [
        "dataset=image_folder",
        f"dataset.path={folder / 'images'}",
        f"dataset.image_size={SIDE}",
        "dataset.test_fraction=0",
        "model=resnet18",
        f"model.weights={weights}",
        f"freezing={options.case}",
        f"training.epochs={options.epochs}",
        "training.batch_size=32",
        "training.early_stopping.patience=null",
        "device=cpu",
        "study=frozen",
    ]
    search = ["-m", "hydra/sweeper/pruner=none", f"hydra.sweeper.n_trials={n_trials}"]
    command = ["-m", "sweeper", *(search if n_trials > 1 else []), *overrides]
    environment = os.environ | {"SWEEPER_CACHE": str(folder / "cache")}
    wall_s = _run(command, folder, environment)
    outputs = folder / record.OUTPUTS / "frozen"
    runs = [outputs / str(number) for number in range(n_trials)] if n_trials > 1 else [outputs]
    results = [record.read_json(run / record.RESULT) for run in runs]
    best = max(result["val_accuracy"] for result in results)
    return wall_s, sum(result["seconds"] for result in results), best


def _run(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> float:
    started = perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return perf_counter() - started


if __name__ == "__main__":
    main()
