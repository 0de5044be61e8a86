"""Signs: how often a run with a known cause shows one of its signs, and a healthy run none.

    python benchmarks/signs.py --runs runs.jsonl                  # digits and drawn shapes
    python benchmarks/signs.py --runs runs.jsonl --patches patches --weights lite0.pt    # transfer, too
    python benchmarks/signs.py --runs runs.jsonl --judge          # trains nothing: judges what is there
    python benchmarks/signs.py --runs runs.jsonl --judge --half tune --wrong      # and tells which are wrong

Each run is trained by the product, in this process. What the rules read of it goes into a line of the file,
so that thresholds can be set again in seconds; runs that are in the file are not trained again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

from sweeper import check, schema
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.results.run_record import RunRecord, Task
from sweeper.results.run_sign import RULES, signs_of
from sweeper.run import task_of
from sweeper.training import data
from sweeper.training.fit import Epoch, fit

AGAIN = "sweeper --config-dir outputs/one --config-name trial"


# ------------------------------------------------------------------------------------------- known causes


@dataclass(frozen=True)
class Cause:
    """Why a run is not as it should be.

    A run of it is recognised if it shows one of ``shows``; those of ``may`` are no false alarm. Both were
    written before any threshold was set.
    """

    shows: frozenset[str]
    may: frozenset[str] = frozenset()


def _cause(shows: str, may: str = "") -> Cause:
    return Cause(frozenset(shows.split()), frozenset(may.split()))


CAUSES = {
    "healthy": _cause(""),
    "lr too small": _cause("too_slow chance_level", "still_improving few_steps"),
    "lr too large": _cause("diverged oscillating chance_level", "dead_units plateaued"),
    "lr somewhat too large": _cause("oscillating diverged", "dead_units plateaued chance_level"),
    "lr far too large": _cause("diverged", "dead_units"),
    "epochs too few": _cause("still_improving too_slow", "few_steps"),
    "epochs too many": _cause("plateaued overfitting"),
    "batch too large": _cause("few_steps", "too_slow still_improving chance_level"),
    "batch too small for its rate": _cause("diverged oscillating chance_level", "dead_units plateaued"),
    "momentum too large": _cause("diverged oscillating chance_level", "dead_units plateaued"),
    "momentum too small": _cause("too_slow still_improving chance_level", "few_steps"),
    "weight decay too large": _cause("underfitting chance_level", "dead_units plateaued"),
    "nothing regularised": _cause("overfitting", "plateaued"),
    "dropout too large": _cause("underfitting chance_level", "too_slow still_improving"),
    "filters too few": _cause("underfitting", "too_slow still_improving dead_units"),
    "filters too many": _cause("overfitting", "plateaued"),
    "augmentation too strong": _cause("underfitting too_slow still_improving chance_level"),
    "scheduler too early": _cause("too_slow underfitting plateaued chance_level"),
    "scheduler none at a high rate": _cause("plateaued oscillating overfitting", "dead_units"),
    "warm-up too long": _cause("still_improving too_slow chance_level", "few_steps"),
    "classes unequal": _cause("imbalanced", "overfitting plateaued still_improving"),
    "units dead": _cause(
        "dead_units", "oscillating chance_level diverged underfitting plateaued overfitting"
    ),
}


TREATS = {
    "lr too small": "optimizer.lr optimizer.momentum training.batch_size training.epochs",
    "lr too large": "optimizer.lr",
    "lr somewhat too large": "optimizer.lr",
    "lr far too large": "optimizer.lr",
    "epochs too few": "training.epochs optimizer.lr training.batch_size",
    "epochs too many": "training.early_stopping.patience",
    "batch too large": "training.batch_size",
    "batch too small for its rate": "optimizer.lr",
    "momentum too large": "optimizer.momentum optimizer.lr",
    "momentum too small": "optimizer.momentum optimizer.lr training.epochs",
    "weight decay too large": "optimizer.weight_decay",
    "nothing regularised": "model.dropout augmentation optimizer.weight_decay",
    "dropout too large": "model.dropout",
    "filters too few": "'model.filters 'model.hidden_units",
    "filters too many": "model.dropout augmentation optimizer.weight_decay",
    "augmentation too strong": "augmentation",
    "scheduler too early": "scheduler optimizer.lr",
    "scheduler none at a high rate": "scheduler optimizer.lr training.early_stopping.patience",
    "warm-up too long": "scheduler.warmup_epochs",
    "classes unequal": "loss.class_weights",
    "units dead": "model.activation optimizer.lr",
}
"""The keys that the next command should change, by the cause; an option ``optimizer`` changes the rate."""


@dataclass(frozen=True)
class Wanted:
    """A run to be made."""

    cause: str
    where: str
    """The data."""
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return " ".join([self.cause, "|", self.where, *self.overrides, f"seed={self.seed}"])

    @property
    def is_of_tuning(self) -> bool:
        """Whether it belongs to the half on which thresholds were set."""
        return hashlib.sha256(self.name.encode()).digest()[0] % 2 == 0


def _of(cause: str, wheres: str, overrides: Sequence[str], seeds: int = 2) -> Iterator[Wanted]:
    for where in wheres.split():
        for written in overrides:
            for seed in range(seeds):
                yield Wanted(cause, where, tuple(written.split()), seed)


ADAM = "optimizer=adam optimizer.lr=0.003 training.epochs=20"
HEAD = "freezing=head optimizer=adamw training.epochs=15"
NO_END = "training.early_stopping.patience=null"


def _from_scratch() -> Iterator[Wanted]:
    both = "digits shapes"
    yield from _of(
        "healthy",
        both,
        [
            "optimizer=adam optimizer.lr=0.003 training.epochs=30",
            "optimizer=adam optimizer.lr=0.002 training.epochs=40 scheduler=cosine model.dropout=0.3",
            "optimizer=adam optimizer.lr=0.003 training.epochs=30 scheduler=plateau training.batch_size=64",
            "optimizer.lr=0.03 training.epochs=30 scheduler=cosine",
            "optimizer.lr=0.02 training.epochs=40 scheduler=plateau optimizer.weight_decay=0.0001",
            "optimizer=adamw optimizer.lr=0.002 optimizer.weight_decay=0.001 training.epochs=30"
            " model.filters=[16,32,64]",
            "optimizer=adam optimizer.lr=0.003 training.epochs=30 scheduler=cosine augmentation=light"
            " model.dropout=0.3",
            "optimizer=adam optimizer.lr=0.002 training.epochs=30 loss.label_smoothing=0.1",
            "optimizer=rmsprop optimizer.lr=0.0003 training.epochs=30 model.activation=leaky_relu",
            "optimizer=adam optimizer.lr=0.003 training.epochs=25 model.batch_norm=true scheduler=cosine"
            " training.early_stopping.monitor=val_accuracy",
        ],
    )
    yield from _of(
        "healthy",
        "pair40",
        [
            "optimizer=adam optimizer.lr=0.003 training.epochs=40",
            "optimizer=adam optimizer.lr=0.003 training.epochs=40 scheduler=cosine training.batch_size=16",
            "optimizer=adam optimizer.lr=0.001 training.epochs=60 augmentation=light",
        ],
        3,
    )
    yield from _of(
        "lr too small",
        both,
        [
            "optimizer=adam optimizer.lr=1e-5",
            "optimizer=adam optimizer.lr=1e-6",
            "optimizer.lr=1e-4",
            "optimizer.lr=1e-5",
            "optimizer.lr=1e-4 scheduler=cosine training.epochs=10",
        ],
    )
    yield from _of(
        "lr too small", "digits40 shapes40", ["optimizer=adam optimizer.lr=1e-5", "optimizer.lr=1e-5"]
    )
    yield from _of(
        "lr too large",
        both,
        [
            "optimizer.lr=0.5",
            "optimizer.lr=1",
            "optimizer=adam optimizer.lr=0.1",
            "optimizer=adam optimizer.lr=0.3",
            "optimizer=rmsprop optimizer.lr=0.03",
            "optimizer.lr=0.7 training.batch_size=64",
        ],
    )
    yield from _of("lr far too large", both, ["optimizer.lr=1e4", "optimizer=adam optimizer.lr=1e10"], 1)
    yield from _of(
        "lr far too large", "shapes40", ["optimizer.lr=1e6", "optimizer.lr=1e3 model.init=kaiming_uniform"]
    )
    yield from _of(
        "lr somewhat too large",
        both,
        [
            f"optimizer=adam optimizer.lr=0.02 model.activation=leaky_relu training.epochs=15 {NO_END}",
            f"optimizer=adam optimizer.lr=0.03 model.activation=leaky_relu training.epochs=12 {NO_END}",
            f"optimizer=rmsprop optimizer.lr=0.003 model.activation=leaky_relu training.epochs=12 {NO_END}",
        ],
    )
    yield from _of(
        "epochs too few",
        both,
        [
            "optimizer=adam optimizer.lr=0.001 training.epochs=1",
            "optimizer=adam optimizer.lr=0.001 training.epochs=2",
            "optimizer.lr=0.01 training.epochs=3",
            "optimizer.lr=0.01 training.epochs=2 model.dropout=0.3",
            "optimizer=adam optimizer.lr=0.0005 training.epochs=4",
        ],
    )
    yield from _of(
        "epochs too many",
        both,
        [
            f"optimizer=adam optimizer.lr=0.003 training.epochs=60 {NO_END}",
            f"optimizer=adam optimizer.lr=0.003 training.epochs=60 {NO_END} model.dropout=0",
            f"optimizer.lr=0.03 training.epochs=60 {NO_END}",
        ],
    )
    yield from _of(
        "epochs too many", "pair40", [f"optimizer=adam optimizer.lr=0.003 training.epochs=150 {NO_END}"]
    )
    yield from _of(
        "batch too large",
        both,
        [
            "optimizer=adam training.batch_size=1024 training.epochs=10",
            "optimizer.lr=0.01 training.batch_size=1024",
            "optimizer.lr=0.003 training.batch_size=512 training.epochs=10",
            "optimizer=adam optimizer.lr=0.0005 training.batch_size=512 training.epochs=10",
        ],
    )
    yield from _of(
        "batch too small for its rate",
        both,
        [
            "optimizer.lr=0.1 training.batch_size=2 training.epochs=5",
            "optimizer=adam optimizer.lr=0.03 training.batch_size=2 training.epochs=5",
        ],
    )
    yield from _of(
        "momentum too large",
        both,
        [
            "optimizer.lr=0.03 optimizer.momentum=0.999",
            "optimizer.lr=0.1 optimizer.momentum=0.99",
            "optimizer.lr=0.01 optimizer.momentum=0.9999",
        ],
    )
    yield from _of(
        "momentum too small",
        both,
        [
            "optimizer.lr=0.001 optimizer.momentum=0",
            "optimizer.lr=0.001 optimizer.momentum=0.5 training.epochs=10",
        ],
    )
    yield from _of(
        "weight decay too large",
        both,
        [
            f"{ADAM} optimizer.weight_decay=0.3",
            f"{ADAM} optimizer.weight_decay=0.05",
            "optimizer.lr=0.03 optimizer.weight_decay=0.1",
            "optimizer.lr=0.01 optimizer.weight_decay=0.05",
            "optimizer=adamw optimizer.lr=0.003 optimizer.weight_decay=30",
        ],
    )
    yield from _of(
        "nothing regularised",
        "shapes40 digits40",
        [
            f"optimizer=adam optimizer.lr=0.003 model.dropout=0 training.epochs=40 {NO_END}",
            f"optimizer=adam optimizer.lr=0.001 model.dropout=0 training.epochs=60"
            f" training.batch_size=8 {NO_END}",
            f"optimizer.lr=0.03 model.dropout=0 training.epochs=60 {NO_END}",
        ],
    )
    yield from _of(
        "nothing regularised",
        "noisy",
        [
            "optimizer=adam optimizer.lr=0.003 model.dropout=0",
            f"optimizer=adam optimizer.lr=0.001 model.dropout=0 training.epochs=25 {NO_END}",
            "optimizer.lr=0.03 model.dropout=0 training.epochs=25",
        ],
    )
    yield from _of(
        "filters too many",
        "noisy shapes40",
        ["optimizer=adam model.filters=[64,128] model.hidden_units=[256] model.dropout=0 training.epochs=15"],
    )
    yield from _of(
        "dropout too large",
        both,
        [f"{ADAM} model.dropout=0.97", f"{ADAM} model.dropout=0.98", "optimizer.lr=0.02 model.dropout=0.97"],
    )
    yield from _of(
        "filters too few",
        both,
        [
            f"{ADAM} model.filters=[1] model.hidden_units=[3] model.dropout=0",
            f"{ADAM} model.filters=[1,1] model.hidden_units=[4] model.dropout=0 model.activation=leaky_relu",
            f"{ADAM} model.filters=[1] model.hidden_units=[2] model.dropout=0 training.epochs=30",
        ],
    )
    yield from _of(
        "augmentation too strong",
        "digits shapes",
        [
            f"{ADAM} augmentation=strong augmentation.rotation_deg=180 augmentation.crop_scale=[0.02,0.1]",
            f"{ADAM} augmentation=strong augmentation.erasing=1 augmentation.erasing_scale=[0.6,0.9]",
        ],
    )
    yield from _of(
        "scheduler too early",
        both,
        [
            "optimizer.lr=0.003 scheduler=step scheduler.step_size=1",
            "optimizer=adam optimizer.lr=0.0003 scheduler=step scheduler.step_size=1",
            "optimizer.lr=0.005 scheduler=step scheduler.step_size=2 scheduler.gamma=0.03",
        ],
    )
    yield from _of(
        "scheduler none at a high rate",
        both,
        [
            f"optimizer=adam optimizer.lr=0.01 training.epochs=60 {NO_END}",
            f"optimizer.lr=0.05 training.epochs=60 {NO_END}",
        ],
    )
    yield from _of(
        "warm-up too long",
        both,
        [
            "optimizer.lr=0.003 scheduler.warmup_epochs=20 training.epochs=5",
            "optimizer.lr=0.003 scheduler.warmup_epochs=100 training.epochs=15",
        ],
    )
    yield from _of(
        "classes unequal",
        "unequal",
        [
            "optimizer=adam optimizer.lr=0.001 training.epochs=10",
            "optimizer=adam optimizer.lr=0.003 training.epochs=20",
            "optimizer.lr=0.01 training.epochs=15",
            "optimizer=adam optimizer.lr=0.002 training.epochs=20 scheduler=cosine",
        ],
    )
    yield from _of(
        "units dead",
        both,
        [
            "optimizer=adam optimizer.lr=0.04",
            "optimizer.lr=0.25 model.dropout=0.1",
            "optimizer=adam optimizer.lr=0.03",
        ],
    )


def _transfer() -> Iterator[Wanted]:
    yield from _of(
        "healthy",
        "real",
        [
            f"{HEAD} optimizer.lr=0.003 training.epochs=30",
            f"{HEAD} optimizer.lr=0.003 training.epochs=20 scheduler=cosine",
            f"{HEAD} optimizer.lr=0.003 training.epochs=30 scheduler=plateau optimizer.weight_decay=0.0001",
            f"{HEAD} optimizer.lr=0.002 training.epochs=40 training.batch_size=16 model.dropout=0.3",
        ],
        4,
    )
    yield from _of(
        "lr too small",
        "real real40",
        [f"{HEAD} optimizer.lr=1e-5", f"{HEAD} optimizer.lr=1e-6"],
        1,
    )
    yield from _of(
        "lr too small",
        "real",
        [f"{HEAD} optimizer.lr=3e-5", "freezing=head optimizer=sgd optimizer.lr=1e-4"],
        1,
    )
    yield from _of(
        "lr too large",
        "real",
        [
            f"{HEAD} optimizer.lr=1",
            f"{HEAD} optimizer.lr=3",
            "freezing=head optimizer=sgd optimizer.lr=10",
        ],
        1,
    )
    yield from _of(
        "epochs too few",
        "real real40",
        [f"{HEAD} optimizer.lr=0.001 training.epochs=2", f"{HEAD} optimizer.lr=0.001 training.epochs=4"],
    )
    yield from _of("epochs too many", "real", [f"{HEAD} optimizer.lr=0.01 training.epochs=100 {NO_END}"])
    yield from _of(
        "batch too large", "real", [f"{HEAD} optimizer.lr=0.001 training.batch_size=512 training.epochs=10"]
    )
    yield from _of(
        "weight decay too large", "real", [f"{HEAD} optimizer.lr=0.003 optimizer.weight_decay=100"], 2
    )
    yield from _of("dropout too large", "real", [f"{HEAD} optimizer.lr=0.003 model.dropout=0.99"], 2)
    yield from _of(
        "scheduler too early", "real", [f"{HEAD} optimizer.lr=0.001 scheduler=step scheduler.step_size=1"], 2
    )
    yield from _of(
        "nothing regularised",
        "scratch40",
        [f"optimizer=adam optimizer.lr=0.001 model.dropout=0 training.epochs=40 {NO_END}"],
        2,
    )


# ---------------------------------------------------------------------------------------------- the data

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bars")


def draw_shape(shape: str, side: int, noise: float, rng: random.Random) -> Image.Image:
    """A bright shape of any size and place on a dark ground, with noise; drawn large and scaled down."""
    large, back = side * 4, rng.choice([(30, 30, 40), (60, 20, 20), (15, 50, 20)])
    front = rng.choice([(230, 230, 220), (220, 190, 60), (120, 200, 220)])
    image = Image.new("RGB", (large, large), back)
    pen, r = ImageDraw.Draw(image), large * rng.uniform(0.28, 0.4)
    x, y = (large / 2 + rng.uniform(-0.1, 0.1) * large for _ in range(2))
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        pen.ellipse(box, fill=front)
    elif shape == "square":
        pen.rectangle(box, fill=front)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=front)
    elif shape == "cross":
        pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=front)
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=front)
    elif shape == "ring":
        pen.ellipse(box, outline=front, width=round(r / 3))
    else:
        for i in (-1, 0, 1):
            pen.rectangle((x - r, y + i * r * 0.7 - r / 5, x + r, y + i * r * 0.7 + r / 5), fill=front)
    image = image.rotate(rng.uniform(-10, 10), fillcolor=back).resize((side, side), Image.Resampling.BOX)
    grains = Image.effect_noise((side, side), 255 * noise).convert("RGB")
    return Image.blend(image.filter(ImageFilter.GaussianBlur(0.3)), grains, min(0.6, noise))


def draw(folder: Path, counts: dict[str, int], noise: float, side: int = 16, wrong: float = 0) -> None:
    """A folder of shapes; ``wrong`` is the share of them in another class's folder."""
    rng = random.Random(0)
    for shape, count in counts.items():
        for i in range(count):
            told = rng.choice(list(counts)) if rng.random() < wrong else shape
            (folder / told).mkdir(parents=True, exist_ok=True)
            draw_shape(shape, side, noise, rng).save(folder / told / f"{shape}{i}.png")


def write_digits(folder: Path, n: int) -> None:
    """The first n of scikit-learn's digits, as files."""
    digits = load_digits()
    for i in range(n):
        (folder / str(digits.target[i])).mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15.9).astype("uint8")).save(
            folder / str(digits.target[i]) / f"{i}.png"
        )


def place(folder: Path, patches: Path | None, weights: Path | None) -> dict[str, list[str]]:
    """The overrides of each of the data, which are written into a folder."""
    random.seed(0)
    small = [
        f"{folder}/digits40",
        "dataset.image_size=8",
        "dataset.allow_hflip=false",
        "dataset.allow_vflip=false",
    ]
    write_digits(folder / "digits40", 40)
    draw(folder / "shapes", dict.fromkeys(SHAPES, 167), 0.35)
    draw(folder / "shapes40", dict.fromkeys(SHAPES[:5], 8), 0.4)
    draw(folder / "pair40", dict.fromkeys(("circle", "cross"), 20), 0.05)
    draw(folder / "noisy", dict.fromkeys(SHAPES, 80), 0.5, wrong=0.25)
    draw(folder / "unequal", {"circle": 500, "ring": 400, "square": 25, "triangle": 25, "cross": 20}, 0.5)
    drawn = {
        name: ["dataset=image_folder", f"dataset.path={folder}/{name}", "dataset.image_size=16"]
        for name in ("shapes", "shapes40", "pair40", "noisy", "unequal")
    }
    places = {
        "digits": ["dataset=digits"],
        "digits40": ["dataset=image_folder", f"dataset.path={small[0]}", *small[1:]],
        **drawn,
    }
    if patches is None or weights is None:
        return places
    for group in sorted((patches / "train").iterdir())[:5]:
        (folder / "real40" / group.name).mkdir(parents=True)
        for path in sorted(group.glob("*.jpg"))[:8]:
            shutil.copy(path, folder / "real40" / group.name / path.name)
    network = ["model=timm", "model.name=tf_efficientnet_lite0", f"model.weights={weights.absolute()}"]
    normal = ["dataset.normalization={mean:[0.5,0.5,0.5],std:[0.5,0.5,0.5]}", "dataset.duplicates=drop"]
    real = {"real": patches.absolute(), "real40": folder / "real40"}
    for name, path in real.items():
        places[name] = [
            "dataset=image_folder",
            f"dataset.path={path}",
            "dataset.image_size=96",
            *network,
            *normal,
        ]
    places["scratch40"] = [
        "dataset=image_folder",
        f"dataset.path={folder / 'real40'}",
        "dataset.image_size=32",
        normal[1],
    ]
    return places


# --------------------------------------------------------------------------------------------- the runs


def train(wanted: Wanted, overrides: Sequence[str]) -> dict[str, Any]:
    """What the rules read of a run."""
    config = compose(
        "config", [*overrides, *wanted.overrides, f"seed={wanted.seed}", "training.n_threads=1", "device=cpu"]
    )
    run = check.to_run(config)
    loaded = data.load(run.dataset, torch.device("cpu"))
    rows: list[dict[str, float]] = []
    started = perf_counter()

    def keep(epoch: Epoch) -> None:
        rows.append(epoch.row())

    fitted = fit(run, loaded, keep)
    return {
        "name": wanted.name,
        "run": asdict(run),
        "history": rows,
        "task": asdict(task_of(loaded)),
        "dead_units": fitted.dead_units,
        "recall": {name: scores.get("recall") for name, scores in fitted.per_class.items()},
        "s": perf_counter() - started,
    }


class Judged:
    """A run, and the signs that it shows."""

    def __init__(self, wanted: Wanted, row: dict[str, Any]) -> None:
        self.wanted, self.row = wanted, row
        values = from_json(row["run"])
        self.record = RunRecord(
            values,
            row["history"],
            Task(**row["task"] | {"train_counts": tuple(row["task"]["train_counts"])}),
            is_over=True,
            again=AGAIN,
            dead_units=row["dead_units"],
            recall=row["recall"],
        )
        told = signs_of(self.record)
        self.signs = [sign.sign for sign in told]
        self.command = (told[0].command or "") if told else ""
        self.cause = CAUSES[wanted.cause]

    @property
    def accuracy(self) -> float:
        return max(row["val_accuracy"] for row in self.row["history"])

    @property
    def is_hit(self) -> bool:
        return bool(self.cause.shows & set(self.signs))

    @property
    def is_treated(self) -> bool:
        """Whether the first command changes what caused it."""
        changed = {word.partition("=")[0] for word in self.command.removeprefix(AGAIN).split()}
        return bool(changed & {*TREATS.get(self.wanted.cause, "").split()})

    @property
    def is_false_alarm(self) -> bool:
        return bool(set(self.signs) - self.cause.shows - self.cause.may)


def from_json(values: dict[str, Any]) -> schema.Run:
    run: schema.Run = check.to_run(values | {"study": "signs"})
    return run


NEAR = 0.03
"""A healthy run reaches the best validation accuracy of all runs on its data, less this or one picture."""


def healthy_enough(known: Sequence[Judged]) -> list[Judged]:
    """Without the runs of good settings that turned out worse than others on their data."""
    best: dict[str, float] = defaultdict(float)
    for one in known:
        best[one.wanted.where] = max(best[one.wanted.where], one.accuracy)

    def is_good(one: Judged) -> bool:
        n_val = one.row["task"]["n_val"]
        return one.accuracy >= best[one.wanted.where] - max(NEAR, 1.01 / n_val)

    out = [one for one in known if one.wanted.cause == "healthy" and not is_good(one)]
    for one in out:
        print(f"not healthy: {one.accuracy:.3f} of {best[one.wanted.where]:.3f}: {one.wanted.name}")
    return [one for one in known if one not in out]


def judge(known: Sequence[Judged], half: str, tells_wrong: bool) -> None:
    some = [one for one in known if one.wanted.is_of_tuning == (half == "tune")]
    print(f"{len(known)} runs, {len(some)} of them in the half '{half}'")
    by_cause: dict[str, list[Judged]] = defaultdict(list)
    for one in some:
        by_cause[one.wanted.cause].append(one)
    print("| cause | runs | recognised | other signs | first command treats it | what is told first |")
    print("|---|---|---|---|---|---|")
    for name in CAUSES:
        runs = by_cause[name]
        first = Counter(one.signs[0] if one.signs else "nothing" for one in runs)
        told = ", ".join(f"{sign} {n}" for sign, n in first.most_common(4))
        hits = "" if name == "healthy" else f"{sum(one.is_hit for one in runs)}"
        wrong, treated = sum(one.is_false_alarm for one in runs), sum(one.is_treated for one in runs)
        print(
            f"| {name} | {len(runs)} | {hits} | {wrong} | {'' if name == 'healthy' else treated} | {told} |"
        )
    print()
    print("| sign | runs that should show it or an equal one | do | told | of these accepted |")
    print("|---|---|---|---|---|")
    for rule in RULES:
        should = [one for one in some if rule.sign in one.cause.shows]
        told_in = [one for one in some if rule.sign in one.signs]
        right = [one for one in told_in if rule.sign in one.cause.shows | one.cause.may]
        found, accepted = share([one.is_hit for one in should]), share([one in right for one in told_in])
        print(f"| {rule.sign} | {len(should)} | {found} | {len(told_in)} | {accepted} |")
    healthy = by_cause["healthy"]
    print(
        f"healthy runs with a false alarm: {share([one.is_false_alarm for one in healthy])} of {len(healthy)}"
    )
    sick = [one for one in some if one.wanted.cause != "healthy"]
    print(f"runs with a cause recognised: {share([one.is_hit for one in sick])} of {len(sick)}")
    if tells_wrong:
        for one in some:
            if one.is_false_alarm or (one.cause.shows and not one.is_hit):
                print(f"{one.signs} {one.wanted.name}")
            elif one.cause.shows and not one.is_treated:
                print(f"not treated: {one.signs} {one.command.removeprefix(AGAIN)} {one.wanted.name}")


def share(those: Sequence[bool]) -> str:
    return f"{100 * sum(those) / len(those):.0f} % ({sum(those)})" if those else "-"


def read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {row["name"]: row for row in rows}


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    wanted = [*_from_scratch(), *(_transfer() if options.patches else [])]
    if not options.judge:
        random.Random(0).shuffle(wanted)
        with tempfile.TemporaryDirectory() as name:
            places = place(Path(name), options.patches, options.weights)
            make(wanted, places, options.runs)
    rows = read(options.runs)
    known = [Judged(one, rows[one.name]) for one in wanted if one.name in rows]
    judge(healthy_enough(known), options.half, options.wrong)


def make(wanted: Sequence[Wanted], places: dict[str, list[str]], path: Path) -> None:
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE), path.open("a") as file:
        for i, one in enumerate(wanted):
            if one.name in read(path):  # another process may make some of them
                continue
            row = train(one, places[one.where])
            file.write(json.dumps(row) + "\n")
            file.flush()
            last = row["history"][-1]
            last = f"{len(row['history'])} epochs, validation loss {row['history'][-1]['val_loss']:.3f}"
            print(f"{i + 1}/{len(wanted)} {row['s']:.1f} s {last}: {one.name}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How often signs are right.")
    parser.add_argument("--runs", type=Path, required=True, help="file of the runs: a line of JSON for each")
    parser.add_argument("--patches", type=Path, help="folder of the real pictures, with train and test")
    parser.add_argument("--weights", type=Path, help="weights of tf_efficientnet_lite0")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--half", choices=["tune", "other"], default="other")
    parser.add_argument("--wrong", action="store_true", help="tell which runs are judged wrongly")
    return parser


if __name__ == "__main__":
    main()
