"""Belief: whether what a search and a certificate say of their best is so.

    python benchmarks/believe.py --train TABLES                      # 2,880 trainings, by several processes
    python benchmarks/believe.py --train TABLES --pictures patches --weights lite0.pt
    python benchmarks/believe.py --replay TABLES                     # 1,000 searches and certificates of each
    python benchmarks/believe.py --luck TABLES                       # 1,000 searches of each kind in each

``--train`` trains twelve configurations with forty seeds each in six spaces, by the product, in this process.
Each training becomes a line of ``TABLES/SPACE/scores.jsonl``, with the logits of its validation pictures
beside it. Trainings that are there are not made again, so that several processes may share the work.

``--luck`` replays searches from the tables: each draws of the twelve configurations one, two or four seeds,
as if those were neighbours, and takes the best. What is told of its luck is compared with what it was: the
winner's value, less the mean of its configuration's trainings that were not drawn.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import replay
from signs import SHAPES, draw, write_digits
from sweeper import check
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.results import comparison, luck
from sweeper.training import data
from sweeper.training.fit import fit

N_SEEDS = 40

# ------------------------------------------------------------------------------------------------- the spaces

DEFAULTS = ""
"""The configuration of whoever does not search; the first of each space."""

SCRATCH = (
    DEFAULTS,
    # As a search draws them at first: anywhere in its ranges.
    "optimizer.lr=0.0003 optimizer.momentum=0.82 training.batch_size=64",
    "optimizer.lr=0.003 optimizer.momentum=0.95 training.batch_size=32 optimizer.weight_decay=0.005",
    "optimizer.lr=0.008 optimizer.momentum=0.9 training.batch_size=64 optimizer.weight_decay=0.0003",
    "optimizer=adam optimizer.lr=0.0004 training.batch_size=32 model.dropout=0.35",
    "optimizer=adam optimizer.lr=0.009 training.batch_size=32 model.dropout=0.45"
    " optimizer.weight_decay=0.002",
    "optimizer=adam optimizer.lr=0.0015 training.batch_size=128 model.dropout=0.4",
    # As it draws them later: close to what was good.
    "optimizer=adam optimizer.lr=0.0025 training.batch_size=32 model.dropout=0.4",
    "optimizer=adam optimizer.lr=0.0028 training.batch_size=32 model.dropout=0.38",
    "optimizer=adam optimizer.lr=0.0032 training.batch_size=32 model.dropout=0.42",
    "optimizer=adam optimizer.lr=0.003 training.batch_size=64 model.dropout=0.35",
    "optimizer=adam optimizer.lr=0.002 training.batch_size=32 model.dropout=0.33"
    " optimizer.weight_decay=0.0005",
)
HEAD = (
    DEFAULTS,
    "optimizer.lr=0.0001 training.batch_size=64",
    "optimizer.lr=0.0003 training.batch_size=32",
    "optimizer.lr=0.0006 training.batch_size=64",
    "optimizer.lr=0.0009 training.batch_size=32",
    "optimizer.lr=0.0009 training.batch_size=16",
    "optimizer=adam optimizer.lr=0.001 training.batch_size=16",
    "optimizer=adam optimizer.lr=0.0008 training.batch_size=16 optimizer.weight_decay=0.0001",
    "optimizer=adam optimizer.lr=0.002 training.batch_size=32",
    "optimizer=adam optimizer.lr=0.003 training.batch_size=32",
    "optimizer=adam optimizer.lr=0.0035 training.batch_size=64",
    "optimizer=adam optimizer.lr=0.01 training.batch_size=64",
)


@dataclass(frozen=True)
class Space:
    """Pictures, what all trainings on them share, and the configurations."""

    name: str
    overrides: tuple[str, ...]
    configurations: tuple[str, ...] = SCRATCH


def spaces(folder: Path, pictures: Path | None, weights: Path | None) -> Iterator[Space]:
    """The six, five of them where there are no real pictures; what they need is written into the folder."""
    rng = random.Random("believe")
    _write_wrong_digits(folder / "wrong", 0.2, rng)
    write_digits(folder / "few", 300, rng)
    draw(folder / "shapes", dict.fromkeys(SHAPES, 120), 0.45, 16, rng)
    _write_noise(folder / "noise", 600, rng)
    yield Space("digits", ("dataset=digits", "training.epochs=8"))
    yield Space("digits-wrong", (*_folder(folder / "wrong", 8), "training.epochs=8"))
    yield Space("digits-300", (*_folder(folder / "few", 8), "training.epochs=15"))
    yield Space("shapes", (*_folder(folder / "shapes", 16), "training.epochs=8"))
    yield Space("noise", (*_folder(folder / "noise", 8), "training.epochs=6"))
    if pictures is not None and weights is not None:
        network = ("model=timm", "model.name=tf_efficientnet_lite0", f"model.weights={weights.absolute()}")
        normal = "dataset.normalization={mean:[0.5,0.5,0.5],std:[0.5,0.5,0.5]}"
        place = (*_folder(pictures.absolute(), 64), "dataset.duplicates=drop", normal)
        yield Space("real", (*place, *network, "freezing=head", "training.epochs=10"), HEAD)


def _folder(path: Path, side: int) -> tuple[str, ...]:
    unturned = ("dataset.allow_hflip=false", "dataset.allow_vflip=false")
    return ("dataset=image_folder", f"dataset.path={path}", f"dataset.image_size={side}", *unturned)


def _write_wrong_digits(folder: Path, wrong: float, rng: random.Random) -> None:
    digits = load_digits()
    for i, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        told = rng.randrange(10) if rng.random() < wrong * 10 / 9 else int(target)
        (folder / str(told)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).save(folder / str(told) / f"{i}.png")


def _write_noise(folder: Path, n: int, rng: random.Random) -> None:
    drawn = np.random.default_rng(rng.randrange(2**32))
    for i in range(n):
        (folder / str(i % 10)).mkdir(parents=True, exist_ok=True)
        pixels = drawn.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(i % 10) / f"{i}.png")


# ------------------------------------------------------------------------------------------------ the tables


def train_all(tables: Path, pictures: Path | None, weights: Path | None) -> None:
    """Make the trainings that are not there yet, seed by seed, so that an unfinished table is of use, too."""
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as name,
        composing([]),
        initialize_config_dir(str(conf_folder()), **VERSION_BASE),
    ):
        of_all = list(spaces(Path(name), pictures, weights))
        for seed in range(N_SEEDS):
            for space in of_all:
                for index in range(len(space.configurations)):
                    if _take(tables / space.name, f"{index}-{seed}"):
                        _train(space, index, seed, tables / space.name)
            print(f"seed {seed + 1} of {N_SEEDS}", flush=True)


def _take(folder: Path, name: str) -> bool:
    """Whether this process is the one that makes this training."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "taken").open("a+") as file:
        flock(file, LOCK_EX)
        file.seek(0)
        if name in file.read().splitlines():
            return False
        file.write(f"{name}\n")
        return True


def _train(space: Space, index: int, seed: int, folder: Path) -> None:
    more = space.configurations[index].split()
    config = compose(
        "config", [*space.overrides, *more, f"seed={1000 + seed}", "training.n_threads=1", "device=cpu"]
    )
    run = check.to_run(config)
    loaded = data.load(run.dataset, torch.device("cpu"))
    started = perf_counter()
    fitted = fit(run, loaded)
    best = fitted.history[fitted.best_epoch - 1]
    logits = fitted.val_logits.float().numpy()
    np.savez_compressed(
        folder / f"{index}-{seed}.npz",
        logits=(logits - logits.max(1, keepdims=True)).astype(np.float16),
        labels=loaded.val_y.numpy().astype(np.uint8),
    )
    row = {
        "configuration": index,
        "seed": seed,
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "seconds": perf_counter() - started,
        "diverged": fitted.diverged,
    }
    with (folder / "scores.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


# --------------------------------------------------------------------------------------------------- luck

UNSEEN = range(17, N_SEEDS, 2)
"""Seeds that nobody had looked at when the method was chosen; searches are replayed from them alone."""


@dataclass(frozen=True)
class Trained:
    """A training of a table."""

    accuracy: float
    loss: float
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]


Table = dict[int, dict[int, Trained]]
"""The trainings of each configuration, by their seeds."""


def read_table(folder: Path) -> Table:
    found = Table()
    for line in (folder / "scores.jsonl").read_text().splitlines():
        row = json.loads(line)
        index, seed = row["configuration"], row["seed"]
        with np.load(folder / f"{index}-{seed}.npz") as file:
            labels, logits = file["labels"].astype(np.int64), file["logits"].astype(np.float32)
        found.setdefault(index, {})[seed] = Trained(row["val_accuracy"], row["val_loss"], labels, logits)
    return found


def show_luck(tables: Path, n_searches: int) -> None:
    """What is told of the luck of a winner less what it was, in points of accuracy, in the mean."""
    print(f"{'space':14} {'trials':>6} {'luck':>6} {'told':>6} {'bias':>6} {'±':>5} {'plain':>6}  seed noise")
    biases = list[float]()
    for folder in sorted(path for path in tables.iterdir() if (path / "scores.jsonl").exists()):
        table = {
            index: {seed: one for seed, one in row.items() if seed in UNSEEN}
            for index, row in read_table(folder).items()
        }
        for n_seeds in (1, 2, 4):
            rows = 100 * np.array(list(_searches(table, n_searches, n_seeds)))
            was, told, plain = rows.mean(0)
            error = float((rows[:, 1] - rows[:, 0]).std() / len(rows) ** 0.5)
            biases.append(float(told - was))
            print(
                f"{folder.name:14} {12 * n_seeds:6} {was:6.2f} {told:6.2f} {told - was:+6.2f} {error:5.2f} "
                f"{plain - was:+6.2f}  {_noise_ratio(table) if n_seeds == 1 else ''}",
                flush=True,
            )
    print(f"bias in all {np.mean(biases):+.2f}; its size in the mean {np.mean(np.abs(biases)):.2f}")


def _searches(table: Table, n: int, n_seeds: int) -> Iterator[tuple[float, float, float]]:
    """The luck of the winner of each search: what it was, what is told, and what a plain bootstrap tells."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        drawn = [
            (index, int(seed))
            for index, row in table.items()
            for seed in rng.choice(list(row), n_seeds, replace=False)
        ]
        trials = [table[index][seed] for index, seed in drawn]
        best = min(range(len(trials)), key=lambda i: (-trials[i].accuracy, trials[i].loss))
        of_best = table[drawn[best][0]]
        fresh = [one.accuracy for seed, one in of_best.items() if (drawn[best][0], seed) not in drawn]
        logits = (one.logits for one in trials)
        found = comparison.compared("accuracy", trials[0].labels, logits, len(trials))
        told = luck.expected(found.values, found.noise(best))
        yield trials[best].accuracy - float(np.mean(fresh)), told, _plain(found, rng)


def _plain(found: comparison.Comparison, rng: np.random.Generator, n: int = 200) -> float:
    """The optimism of choosing anew in each sample of the pictures, taking the values for the truth."""
    sampled = found.values + rng.standard_normal((n, found.deviations.shape[1])) @ found.deviations.T
    best = sampled.argmax(1)
    return float(np.mean(sampled[np.arange(n), best] - found.values[best]))


def _noise_ratio(table: Table) -> str:
    """Of the five best configurations, the noise of seeds against that of pictures flipping one by one."""
    rows = sorted(table.values(), key=lambda row: -np.mean([one.accuracy for one in row.values()]))[:5]
    real, independent = [], []
    for row in rows:
        right = np.array([one.logits.argmax(1) == one.labels for one in row.values()], dtype=float)
        real.append(right.mean(1).var(ddof=1))
        independent.append(right.var(0, ddof=1).sum() / right.shape[1] ** 2)
    told = 100 * np.sqrt(np.mean(independent))
    return f"{100 * np.sqrt(np.mean(real)):.2f}, by flips {told:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether what is said of the best is so.")
    parser.add_argument("--train", type=Path, metavar="TABLES", help="train what these tables lack")
    parser.add_argument("--replay", type=Path, metavar="TABLES", help="replay searches and certificates")
    parser.add_argument(
        "--seeds", choices=("all", "even", "odd"), default="all", help="trainings to draw from"
    )
    parser.add_argument("--top", type=int, default=5, help="how many a certificate trains again")
    parser.add_argument("--repeats", type=int, default=5, help="how often it trains each")
    parser.add_argument("--n", type=int, default=1000, help="searches in each space")
    parser.add_argument("--pictures", type=Path, help="the real task: a folder with train/ and test/")
    parser.add_argument("--weights", type=Path, help="weights of tf_efficientnet_lite0")
    parser.add_argument("--luck", type=Path, metavar="TABLES", help="what is told of a winner's luck")
    options = parser.parse_args()
    if options.luck is not None:
        show_luck(options.luck, options.n)
    if options.train is not None:
        train_all(options.train, options.pictures, options.weights)
    if options.replay is not None:
        replay.report(options.replay, options.seeds, options.n, options.top, options.repeats)


if __name__ == "__main__":
    main()
