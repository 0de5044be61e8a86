"""Training: ours, and the usual way of usual_training.py, in one run on the same cores.

    python benchmarks/training.py everything        # ResNet-18 at 224 pixels, all of it trains, augmented
    python benchmarks/training.py cnn               # a small CNN on the digits at 32 pixels, augmented
    python benchmarks/training.py head              # a search over the head of ResNet-18, caches empty
    python benchmarks/training.py last_block        # one training of its last block and head, caches empty

In every case both sides train with the same settings, number of epochs and seeds, ours by `fit`, and the
last epochs' validation accuracies are compared. `everything` and `cnn` also count these trainings' images per
second. `head` and `last_block` count the wall time of `python -m sweeper`, start-up, decoding and the test at
the end included; the usual way's is its start-up, and its epochs' time scaled to the same number.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader

import usual_training
import usual_way
from augmentation import standard, usual_transform
from common import Compared, agreement, count_epochs, print_verdict, run_python, share_cores
from sweeper import schema
from sweeper.record.mark import OUTPUTS
from sweeper.record.run_files import RunFiles
from sweeper.training import cache, data
from sweeper.training.fit import fit
from sweeper.training.machine import resolve_precision
from usual_training import Trained

SIDE = 224
CLASSES = ("columns", "rows", "spots")
TARGETS = {"everything": 2, "cnn": 2.5, "head": 40, "last_block": 5}
N_TRIALS = {"head": 10, "last_block": 1}
"""What the command that is timed runs."""
LR = {"everything": 0.01, "cnn": 0.01, "head": 0.01, "last_block": 1e-3}
MOMENTUM = 0.9


@dataclass(frozen=True)
class Case:
    """One training, as ours has it and as the usual way does it with some loader workers and epochs."""

    run: schema.Run
    usual: Callable[[int, int], Trained]


def main() -> None:
    options = parser().parse_args()
    print_verdict(options.case, compare(options), TARGETS[options.case])


def compare(options: argparse.Namespace) -> Compared:
    share_cores(options.device)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SWEEPER_CACHE"] = str(folder / "cache")  # of the processes that are started, too
        precision = resolve_precision(options.precision, torch.device(options.device))
        print(f"{options.case}, ours in {precision}, torch {torch.__version__}, {options.threads} threads")
        if options.case in N_TRIALS:
            return _compare_wall_times(folder, options)
        return _compare_speeds(folder, options)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Training, ours and the usual way.")
    parser.add_argument("case", choices=TARGETS)
    parser.add_argument("--images", type=int, default=600, help="JPEGs to draw; a fifth of them validates")
    parser.add_argument("--epochs", type=int, default=10, help="of each training, and of each timed trial")
    parser.add_argument(
        "--accuracy-epochs",
        type=int,
        help="of head and last_block: of the trainings whose accuracies are compared; default: --epochs",
    )
    parser.add_argument("--repeats", type=int, default=3, help="with the seeds 0, 1, …")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cuda-graphs", action="store_true", help="ours as CUDA graphs")
    parser.add_argument("--precision", default="auto", help="of ours: auto, float32, bfloat16")
    parser.add_argument("--threads", type=int, default=2, help="of torch, for both sides; there are 2 cores")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="of the usual way's DataLoader; tried first"
    )
    parser.add_argument("--usual-epochs", type=int, default=2, help="to find the faster number of workers")
    return parser


# --- cases ----------------------------------------------------------------------------------------------


def _cnn(device: str) -> Case:
    # The settings of augmentation=light, which usual_way.py has too.
    light = schema.Augmentation("light", rotation_deg=10, crop_scale=[0.8, 1.0], crop_ratio=[0.75, 1.3333])
    run = schema.Run(
        device=device,
        dataset=schema.Dataset(image_size=usual_way.IMAGE_SIZE),
        optimizer=schema.Optimizer(lr=LR["cnn"], momentum=MOMENTUM),
        augmentation=light,
    )

    def usual(num_workers: int, epochs: int) -> Trained:
        model, parts = usual_way.Cnn(run.model.dropout), usual_way.load()
        return _train_usual(run, model, parts, num_workers, epochs)

    return Case(run, usual)


def _resnet18(trains: str, folder: Path, n_images: int, device: str) -> Case:
    """``trains`` is ``everything``, from scratch, or what follows frozen stages with weights of a file."""
    root, from_scratch = folder / "images", trains == "everything"
    draw_folder(root, n_images)
    weights = None if from_scratch else _draw_weights(folder / "resnet18.pt", root)
    run = schema.Run(
        device=device,
        dataset=schema.Dataset(
            name="image_folder",
            path=str(root),
            image_size=SIDE,
            test_fraction=0,
            normalization="imagenet",
            allow_hflip=True,
        ),
        model=schema.Model("torchvision", "resnet18", dropout=0, weights=str(weights) if weights else None),
        optimizer=schema.Optimizer(lr=LR[trains], momentum=MOMENTUM),
        augmentation=standard() if from_scratch else schema.Augmentation(),
        freezing=schema.Freezing("none" if from_scratch else trains),
    )
    transform = usual_transform(run.augmentation, SIDE) if from_scratch else None

    def usual(num_workers: int, epochs: int) -> Trained:
        model = usual_training.resnet18(len(CLASSES), weights, trains)
        return _train_usual(run, model, usual_training.folders(root, SIDE, transform), num_workers, epochs)

    return Case(run, usual)


def _train_usual(
    run: schema.Run, model: torch.nn.Module, parts: tuple[object, object], num_workers: int, epochs: int
) -> Trained:
    optimizer, batch_size = run.optimizer, run.training.batch_size
    device = torch.device(run.device)
    return usual_training.train(model, parts, epochs, num_workers, optimizer.lr, MOMENTUM, batch_size, device)


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


def _draw_weights(path: Path, root: Path) -> Path:
    """Random ones, but with batch norm statistics of the images, as pretrained weights have them.

    Frozen batch norm uses these on our side, and the batch's in the tutorials' loop.
    """
    torch.manual_seed(0)
    model = torchvision.models.resnet18().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    images, _ = usual_training.folders(root, SIDE)
    with torch.no_grad():
        for inputs, _ in DataLoader(images, 32, shuffle=True):
            model(inputs)
    torch.save(model.state_dict(), path)
    return path


# --- both sides train -----------------------------------------------------------------------------------


def _train_both(
    case: Case, epochs: int, options: argparse.Namespace, first: Callable[[int], None] = lambda seed: None
) -> tuple[list[Trained], list[Trained]]:
    """Ours and the usual way's trainings, one for each seed, for which ``first`` is called before them."""
    num_workers = _faster_workers(case, options)
    ours, usual = [], []
    for seed in range(options.repeats):  # in turn, so that a busy moment of the machine hits all alike
        first(seed)
        ours.append(_ours(case.run, epochs, seed, options))
        print(_line("ours", seed, ours[-1]), flush=True)
        usual.append(_usual(case, num_workers, epochs, seed))
        print(_line(f"usual way, num_workers={num_workers}", seed, usual[-1]), flush=True)
    return ours, usual


def _faster_workers(case: Case, options: argparse.Namespace) -> int:
    """The number of loader workers with which the usual way is faster, over few epochs."""
    epoch_s = {}
    for num_workers in options.workers:
        trained = _usual(case, num_workers, options.usual_epochs, seed=0)
        epoch_s[num_workers] = min(trained.epoch_s)
        print(_line(f"usual way, num_workers={num_workers}, a try", 0, trained), flush=True)
    return min(epoch_s, key=epoch_s.__getitem__)


def _usual(case: Case, num_workers: int, epochs: int, seed: int) -> Trained:
    torch.use_deterministic_algorithms(False)  # which ours turns on, with the next three
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(seed)
    return case.usual(num_workers, epochs)


def _ours(run: schema.Run, epochs: int, seed: int, options: argparse.Namespace) -> Trained:
    settings = replace(
        run.training,
        epochs=epochs,
        precision=options.precision,
        n_threads=options.threads,
        cuda_graphs=options.cuda_graphs,
        early_stopping=schema.EarlyStopping(patience=None),
    )
    loaded = data.load(run.dataset, torch.device(run.device))
    history = fit(replace(run, seed=seed, training=settings), loaded).history
    n_images = len(loaded.train_y)
    train_s = [n_images / epoch.images_per_second for epoch in history]
    val_s = [epoch.seconds - seconds for epoch, seconds in zip(history, train_s, strict=True)]
    return Trained(n_images, train_s, val_s, history[-1].val_accuracy or 0.0)


def _line(name: str, seed: int, trained: Trained) -> str:
    return (
        f"seed {seed}  {name:<36}{trained.images_per_second:8.0f} images/s"
        f"   validation accuracy {trained.val_accuracy:.4f} after {len(trained.train_s)} epochs"
    )


def _accuracies(trainings: Sequence[Trained]) -> list[float]:
    return [trained.val_accuracy for trained in trainings]


# --- what is compared -----------------------------------------------------------------------------------


def _case(folder: Path, options: argparse.Namespace) -> Case:
    if options.case == "cnn":
        return _cnn(options.device)
    return _resnet18(options.case, folder, options.images, options.device)


def _compare_speeds(folder: Path, options: argparse.Namespace) -> Compared:
    """By the images per second of the trainings."""
    case = _case(folder, options)
    ours, usual = _train_both(case, options.epochs, options)
    our_speeds, usual_speeds = ([trained.images_per_second for trained in side] for side in (ours, usual))
    ratios = [a / b for a, b in zip(our_speeds, usual_speeds, strict=True)]
    our, their = median(our_speeds), median(usual_speeds)
    print(
        f"medians: ours {our:.0f}, usual way {their:.0f} images/s;"
        f" ratios of the seeds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
    )
    accuracy = agreement(_accuracies(ours), _accuracies(usual))
    return Compared(f"{our:,.0f} images/s", f"{their:,.0f} images/s", our / their, accuracy)


def _compare_wall_times(folder: Path, options: argparse.Namespace) -> Compared:
    """By the wall time of our command, and of the usual way."""
    case = _case(folder, options)
    n_trials = N_TRIALS[options.case]
    wall_s = []

    def time_command(seed: int) -> None:
        cache.clear()
        wall_s.append(_time_command(case.run, n_trials, seed, options, folder))

    ours, usual = _train_both(case, options.accuracy_epochs or options.epochs, options, first=time_command)
    n_epochs = n_trials * options.epochs
    start_s = run_python(["-c", "import torch, torchvision; torchvision.models.resnet18()"], folder)
    usual_s = [start_s + n_epochs * median(trained.epoch_s) for trained in usual]
    print(
        f"{n_trials} trials × {options.epochs} epochs: ours, caches empty, {median(wall_s):.1f} s, usual way"
        f" {median(usual_s):.1f} s, scaled: {start_s:.1f} s to start and {n_epochs} times its median epoch of"
        f" {len(usual[0].epoch_s)}, training and validation"
    )
    ratios = [their / our for our, their in zip(wall_s, usual_s, strict=True)]
    print(f"ratios of the seeds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    accuracy, our, their = agreement(_accuracies(ours), _accuracies(usual)), median(wall_s), median(usual_s)
    return Compared(f"{our:.1f} s", f"{their:.1f} s", their / our, accuracy)


def _time_command(
    run: schema.Run, n_trials: int, seed: int, options: argparse.Namespace, folder: Path
) -> float:
    """The wall time of `python -m sweeper`, which must have finished all epochs."""
    study = f"{options.case}-{seed}"
    seconds = run_python([*_command(run, n_trials, seed, options), f"study={study}"], folder)
    outputs = folder / OUTPUTS / study
    n_epochs = count_epochs(outputs, n_trials) if n_trials > 1 else len(RunFiles(outputs).read_history())
    print(f"seed {seed}  our command {seconds:.1f} s, {n_epochs} epochs", flush=True)
    return seconds


def _command(run: schema.Run, n_trials: int, seed: int, options: argparse.Namespace) -> list[str]:
    """A search over the default ranges but for the batch size, or the very training of ``run``."""
    search = ["-m", "hydra/sweeper/pruner=none", f"hydra.sweeper.n_trials={n_trials}"]
    fixed = [
        f"optimizer.lr={run.optimizer.lr}",
        "optimizer.head_lr_factor=1",
        "model.dropout=0",
        f"training.n_threads={options.threads}",
    ]
    return [
        *("-m", "sweeper", *(search if n_trials > 1 else fixed)),
        "dataset=image_folder",
        f"dataset.path={run.dataset.path}",
        f"dataset.image_size={SIDE}",
        "dataset.test_fraction=0",
        "model=resnet18",
        f"model.weights={run.model.weights}",
        f"freezing={run.freezing.name}",
        f"training.epochs={options.epochs}",
        f"training.batch_size={run.training.batch_size}",
        f"training.precision={options.precision}",
        "training.early_stopping.patience=null",
        f"device={options.device}",
        f"seed={seed}",
    ]


if __name__ == "__main__":
    main()
