"""Signs: how often a run with a known cause shows one of its signs, and a healthy run none.

    python benchmarks/signs.py --fresh 1 --runs one.jsonl           # draws and trains runs, tells no sign
    python benchmarks/signs.py --fresh 1 --runs one.jsonl --photographs skimage/data --weights lite0.pt
    python benchmarks/signs.py --judge one.jsonl                    # trains nothing
    python benchmarks/signs.py --judge zero.jsonl one.jsonl --wrong     # and tells which are judged wrongly

Each run is trained by the product, in this process, with settings and on pictures that the seed draws. What
the rules read of it goes into a line of the file; runs that are in the file are not trained again. To change
a rule, look at the runs of one seed, then judge once by those of another.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
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
    """Why a run is not as it should be."""

    shows: str
    """The sign that says so."""
    equal: frozenset[str]
    """Signs that say the same of it; why is beside each."""
    may: frozenset[str]
    """What is true besides, though it does not name the cause: no hit, and no false alarm."""
    keys: frozenset[str]
    """What the next command should change; an option ``optimizer`` changes the rate."""

    @property
    def accepted(self) -> frozenset[str]:
        return self.equal | {self.shows} if self.shows else frozenset()


def _cause(shows: str, equal: str = "", may: str = "", keys: str = "") -> Cause:
    return Cause(shows, *(frozenset(words.split()) for words in (equal, may, keys)))


LR, STEPS, DECAY = "optimizer.lr", "optimizer.lr optimizer.momentum optimizer", "optimizer.weight_decay"
LARGE = "diverged oscillating chance_level"
"""Steps that are too large throw the network away from what it learned: for good, again and again, or to
where it says the same of each picture. It depends on luck which, and all three advise smaller steps."""

CAUSES = {
    "healthy": _cause(""),
    # Nothing learned yet is the far end of too slow; both advise a higher rate.
    "lr too small": _cause(
        "too_slow", "chance_level", "still_improving few_steps", f"{STEPS} training.epochs"
    ),
    "lr too large": _cause("chance_level", LARGE, "dead_units plateaued", LR),
    "lr somewhat too large": _cause("oscillating", "diverged", "dead_units plateaued chance_level", LR),
    "lr far too large": _cause("diverged", "", "dead_units", LR),
    # Less than four epochs show no speed; of more of them the loss may be so high that it says too slow.
    "epochs too few": _cause(
        "still_improving", "too_slow", "few_steps", f"{STEPS} training.epochs training.batch_size"
    ),
    # Validation that gets worse after its best epoch is past a plateau; both advise to stop there.
    "epochs too many": _cause("plateaued", "overfitting", "", "training.early_stopping.patience"),
    "batch too large": _cause(
        "few_steps", "", "too_slow still_improving chance_level", f"training.batch_size {STEPS}"
    ),
    "batch too small for its rate": _cause("chance_level", LARGE, "dead_units plateaued", LR),
    "momentum too large": _cause(
        "diverged", LARGE, "dead_units plateaued", "optimizer.momentum optimizer.lr"
    ),
    "momentum too small": _cause("too_slow", "chance_level", "still_improving few_steps", STEPS),
    # Of what holds so much back that nothing is learned, chance_level names the same knob.
    "weight decay too large": _cause("underfitting", "chance_level", "dead_units plateaued", DECAY),
    "dropout too large": _cause("underfitting", "chance_level", "too_slow still_improving", "model.dropout"),
    "filters too few": _cause(
        "underfitting", "chance_level", "dead_units still_improving", "'model.filters 'model.hidden_units"
    ),
    "augmentation too strong": _cause("underfitting", "chance_level", "dead_units", "augmentation"),
    "nothing regularised": _cause(
        "overfitting", "", "plateaued", f"model.dropout augmentation training.batch_size {DECAY}"
    ),
    "filters too many": _cause(
        "overfitting", "", "plateaued", f"model.dropout augmentation training.batch_size {DECAY}"
    ),
    # A rate that fell before anything was learned.
    "scheduler too early": _cause("plateaued", "chance_level", "", "scheduler optimizer.lr"),
    # In a warm-up nothing is wrong but speed.
    "warm-up too long": _cause(
        "too_slow", "chance_level", "still_improving few_steps", "scheduler.warmup_epochs"
    ),
    "classes unequal": _cause(
        "imbalanced", "", "overfitting plateaued still_improving", "loss.class_weights"
    ),
    "units dead": _cause(
        "dead_units", "", f"{LARGE} underfitting plateaued overfitting", "model.activation optimizer.lr"
    ),
}


@dataclass(frozen=True)
class Wanted:
    """A run to be made."""

    cause: str
    where: str
    """The data."""
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Wanted:
        cause, _, rest = name.partition(" | ")
        where, *overrides = rest.split()
        return cls(cause, where, tuple(overrides))

    @property
    def name(self) -> str:
        return " ".join([self.cause, "|", self.where, *self.overrides])


def drawn(template: str, rng: random.Random) -> str:
    """A template with numbers in place of its ranges ``{low..high}``, all magnitudes being as likely."""

    def number(found: re.Match[str]) -> str:
        low, high = (float(found[i]) for i in (1, 2))
        value = low * (high / low) ** rng.random()
        return str(round(value)) if found[1].isdigit() else f"{value:.3g}"

    return re.sub(r"\{([^{}]+?)\.\.([^{}]+?)\}", number, template)


ADAM = "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={12..18}"
HEAD = "freezing=head optimizer=adamw training.epochs={12..18}"
NO_END = "training.early_stopping.patience=null"
BOTH, SMALL = "digits shapes", "digits40 shapes40"

KINDS: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    (
        "healthy",
        BOTH,
        2,
        (
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={25..35}",
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={25..35} scheduler=cosine"
            " model.dropout={0.2..0.4}",
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={25..35} scheduler=plateau"
            " training.batch_size={32..64}",
            "optimizer.lr={0.02..0.04} training.epochs={25..35} scheduler=cosine",
            "optimizer=adamw optimizer.lr={0.0015..0.003} optimizer.weight_decay={1e-4..1e-2}"
            " training.epochs={22..30} scheduler=cosine",
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={25..35}"
            " loss.label_smoothing={0.05..0.1}",
            "optimizer=rmsprop optimizer.lr={0.0003..0.0006} training.epochs={25..35}"
            " model.activation=leaky_relu",
        ),
    ),
    (
        "healthy",
        "pair40",
        5,
        (
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={35..50}",
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={40..60} scheduler=cosine"
            " training.batch_size={8..16}",
            "optimizer=adam optimizer.lr={0.001..0.002} training.epochs={50..70} augmentation=light",
        ),
    ),
    (
        "healthy",
        "real",
        6,
        (
            f"{HEAD} optimizer.lr={{0.002..0.005}} training.epochs={{25..35}}",
            f"{HEAD} optimizer.lr={{0.002..0.005}} training.epochs={{20..30}} scheduler=cosine",
            f"{HEAD} optimizer.lr={{0.002..0.004}} training.epochs={{25..40}} training.batch_size={{16..32}}"
            " model.dropout={0.2..0.4}",
        ),
    ),
    (
        "healthy",
        "real",
        2,
        (
            "freezing=last_block optimizer=adamw optimizer.lr={3e-4..1e-3} training.epochs={8..12}"
            " scheduler=cosine",
        ),
    ),
    (
        "lr too small",
        BOTH,
        2,
        (
            "optimizer=adam optimizer.lr={1e-6..1.5e-5} training.epochs={8..14}",
            "optimizer.lr={1e-6..1e-4} training.epochs={8..14}",
            "optimizer.lr={3e-5..1e-4} training.epochs={8..14} scheduler=cosine",
        ),
    ),
    ("lr too small", SMALL, 2, ("optimizer=adam optimizer.lr={1e-6..1e-5}", "optimizer.lr={1e-6..1e-5}")),
    (
        "lr too small",
        "real",
        2,
        (
            f"{HEAD} optimizer.lr={{1e-6..3e-5}}",
            "freezing=head optimizer=sgd optimizer.lr={1e-6..5e-5} training.epochs={12..18}",
        ),
    ),
    ("lr too small", "real40", 2, (f"{HEAD} optimizer.lr={{1e-6..1e-5}}",)),
    (
        "lr too small",
        "real",
        2,
        ("freezing=last_block optimizer.lr={1e-8..1e-7} optimizer=adam training.epochs=5",),
    ),
    (
        "lr too large",
        BOTH,
        1,
        (
            "optimizer.lr={0.5..1}",
            "optimizer=adam optimizer.lr={0.1..0.3}",
            "optimizer=rmsprop optimizer.lr={0.03..0.1}",
        ),
    ),
    ("lr too large", SMALL, 1, ("optimizer.lr={0.7..3} training.batch_size=8",)),
    ("lr too large", "real", 3, (f"{HEAD} optimizer.lr={{1..3}}",)),
    (
        "lr far too large",
        f"{BOTH} shapes40",
        2,
        (
            "optimizer.lr={1e3..1e6} training.epochs=8",
            "optimizer=adam optimizer.lr={1e8..1e12} training.epochs=8",
        ),
    ),
    (
        "lr somewhat too large",
        BOTH,
        3,
        (
            f"optimizer=adam optimizer.lr={{0.02..0.03}} model.activation=leaky_relu"
            f" training.epochs={{10..14}} {NO_END}",
            f"optimizer=rmsprop optimizer.lr={{0.003..0.006}} model.activation=leaky_relu"
            f" training.epochs={{10..14}} {NO_END}",
        ),
    ),
    (
        "epochs too few",
        BOTH,
        2,
        (
            "optimizer=adam optimizer.lr={0.0007..0.0015} training.epochs={1..2}",
            "optimizer.lr={0.007..0.012} training.epochs={2..3}",
            "optimizer=adam optimizer.lr={0.0004..0.0007} training.epochs={3..5}",
        ),
    ),
    (
        "epochs too few",
        "real real40",
        3,
        (f"{HEAD} optimizer.lr={{0.0007..0.0015}} training.epochs={{2..4}}",),
    ),
    (
        "epochs too many",
        BOTH,
        1,
        (
            f"optimizer=adam optimizer.lr={{0.002..0.004}} training.epochs={{45..60}} {NO_END}",
            f"optimizer.lr={{0.015..0.03}} training.epochs={{45..60}} {NO_END} scheduler=cosine",
        ),
    ),
    (
        "epochs too many",
        "pair40",
        4,
        (f"optimizer=adam optimizer.lr={{0.002..0.004}} training.epochs={{120..160}} {NO_END}",),
    ),
    (
        "epochs too many",
        "real",
        4,
        (f"{HEAD} optimizer.lr={{0.005..0.01}} training.epochs={{70..100}} {NO_END}",),
    ),
    (
        "batch too large",
        BOTH,
        3,
        (
            "optimizer=adam optimizer.lr={0.0003..0.001}"
            " training.batch_size={512..1024} training.epochs={7..11}",
            "optimizer.lr={0.003..0.01} training.batch_size={512..1024} training.epochs={7..11}",
        ),
    ),
    (
        "batch too large",
        "real",
        3,
        (f"{HEAD} optimizer.lr={{0.0007..0.001}} training.batch_size=512 training.epochs={{6..10}}",),
    ),
    (
        "batch too large",
        "shapes40",
        3,
        ("optimizer=adam optimizer.lr={0.0007..0.0015} training.batch_size=40 training.epochs={8..12}",),
    ),
    (
        "batch too small for its rate",
        "noisy shapes40",
        2,
        (
            "optimizer.lr={0.1..0.2} training.batch_size=2 training.epochs=6",
            "optimizer=adam optimizer.lr={0.03..0.06} training.batch_size=2 training.epochs=6",
        ),
    ),
    (
        "momentum too large",
        BOTH,
        2,
        (
            "optimizer.lr={0.02..0.05} optimizer.momentum=0.999",
            "optimizer.lr={0.08..0.2} optimizer.momentum=0.99",
        ),
    ),
    (
        "momentum too small",
        BOTH,
        2,
        ("optimizer.lr={0.0007..0.001} optimizer.momentum={0.01..0.5} training.epochs={8..12}",),
    ),
    (
        "weight decay too large",
        BOTH,
        1,
        (
            f"{ADAM} optimizer.weight_decay={{0.05..0.3}}",
            "optimizer.lr={0.01..0.03} optimizer.weight_decay={0.05..0.15} training.epochs={12..18}",
            "optimizer=adamw optimizer.lr={0.002..0.004}"
            " optimizer.weight_decay={30..60} training.epochs={12..18}",
        ),
    ),
    (
        "weight decay too large",
        "real",
        2,
        (f"{HEAD} optimizer.lr={{0.002..0.004}} optimizer.weight_decay={{60..100}}",),
    ),
    ("dropout too large", BOTH, 2, (f"{ADAM} model.dropout={{0.96..0.985}}",)),
    (
        "dropout too large",
        "real",
        2,
        (f"{HEAD} optimizer.lr={{0.002..0.004}} model.dropout={{0.985..0.995}}",),
    ),
    (
        "filters too few",
        BOTH,
        2,
        (
            f"{ADAM} model.filters=[1] model.hidden_units=[{{2..3}}] model.dropout=0",
            f"{ADAM} model.filters=[1,1] model.hidden_units=[{{3..4}}] model.dropout=0"
            " model.activation=leaky_relu",
        ),
    ),
    (
        "augmentation too strong",
        BOTH,
        2,
        (
            f"{ADAM} augmentation=strong augmentation.rotation_deg=180"
            f" augmentation.crop_scale=[0.02,{{0.05..0.1}}]",
            f"{ADAM} augmentation=strong augmentation.erasing=1"
            f" augmentation.erasing_scale=[0.6,{{0.85..0.95}}]",
        ),
    ),
    (
        "nothing regularised",
        SMALL,
        2,
        (
            f"optimizer=adam optimizer.lr={{0.0015..0.004}} model.dropout=0"
            f" training.epochs={{40..60}} {NO_END}",
            f"optimizer=adam optimizer.lr={{0.001..0.002}} model.dropout=0 training.epochs={{40..60}}"
            f" training.batch_size=8 {NO_END}",
        ),
    ),
    (
        "nothing regularised",
        "noisy",
        2,
        (
            f"optimizer=adam optimizer.lr={{0.001..0.003}} model.dropout=0"
            f" training.epochs={{18..25}} {NO_END}",
            "optimizer.lr={0.02..0.03} model.dropout=0 training.epochs={18..25}",
        ),
    ),
    (
        "nothing regularised",
        "scratch40",
        3,
        (
            f"optimizer=adam optimizer.lr={{0.001..0.002}} model.dropout=0"
            f" training.epochs={{35..50}} {NO_END}",
        ),
    ),
    (
        "filters too many",
        "noisy shapes40",
        2,
        (
            "optimizer=adam model.filters=[{48..64},{96..128}]"
            " model.hidden_units=[256] model.dropout=0 training.epochs={12..18}",
        ),
    ),
    (
        "scheduler too early",
        BOTH,
        2,
        (
            "optimizer.lr={0.002..0.004} scheduler=step scheduler.step_size=1 training.epochs={10..16}",
            "optimizer=adam optimizer.lr={0.0002..0.0004} scheduler=step scheduler.step_size=1"
            " training.epochs={10..16}",
        ),
    ),
    (
        "scheduler too early",
        "real",
        2,
        (f"{HEAD} optimizer.lr={{0.0007..0.0015}} scheduler=step scheduler.step_size=1",),
    ),
    (
        "warm-up too long",
        BOTH,
        3,
        ("optimizer.lr={0.002..0.004} scheduler.warmup_epochs={40..100} training.epochs={6..12}",),
    ),
    (
        "classes unequal",
        "unequal",
        4,
        (
            "optimizer=adam optimizer.lr={0.001..0.002} training.epochs={10..15}",
            "optimizer=adam optimizer.lr={0.002..0.004} training.epochs={15..20} scheduler=cosine",
            "optimizer.lr={0.01..0.015} training.epochs={12..18}",
        ),
    ),
    (
        "units dead",
        BOTH,
        3,
        ("optimizer=adam optimizer.lr={0.03..0.05}", "optimizer.lr={0.25..0.4} model.dropout=0.1"),
    ),
)
"""Causes, data, runs of each template there, and templates: the bounds within which a cause holds."""


def wanted_of(seed: int) -> list[Wanted]:
    """Runs with settings drawn by a seed, in an order drawn by it, so that any first part of them is fair."""
    rng = random.Random(seed)
    runs = [
        Wanted(cause, where, (*drawn(template, rng).split(), f"seed={rng.randrange(10_000)}"))
        for cause, wheres, n, templates in KINDS
        for where in wheres.split()
        for template in templates
        for _ in range(n)
    ]
    rng.shuffle(runs)
    return runs


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


def draw(
    folder: Path, counts: dict[str, int], noise: float, side: int, rng: random.Random, wrong: float = 0
) -> None:
    """A folder of shapes; ``wrong`` is the share of them in another class's folder."""
    for shape, count in counts.items():
        for i in range(count):
            told = rng.choice(list(counts)) if rng.random() < wrong else shape
            (folder / told).mkdir(parents=True, exist_ok=True)
            draw_shape(shape, side, noise, rng).save(folder / told / f"{shape}{i}.png")


def write_digits(folder: Path, n: int, rng: random.Random) -> None:
    """Some of scikit-learn's digits, as files: as many of each class."""
    digits = load_digits()
    found = [rng.sample([i for i, t in enumerate(digits.target) if t == k], n // 10) for k in range(10)]
    for i in (each for some in found for each in some):
        (folder / str(digits.target[i])).mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15.9).astype("uint8")).save(
            folder / str(digits.target[i]) / f"{i}.png"
        )


PICTURES = "astronaut.png brick.png chelsea.png coffee.png grass.png gravel.png hubble_deep_field.jpg ihc.png"
PICTURES += " motorcycle_left.png retina.jpg rocket.jpg moon.png coins.png camera.png"


def cut(photographs: Path, folder: Path, side: int, rng: random.Random) -> None:
    """Gray patches of scikit-image's photographs, a class each; those of train and test do not overlap."""
    for name in PICTURES.split():
        image = Image.open(photographs / name).convert("L").convert("RGB")
        width, height = image.size
        middle = int(width * 0.6)
        for part, (low, high), n in (("train", (0, middle), 40), ("test", (middle, width), 25)):
            place = folder / part / name.partition(".")[0]
            place.mkdir(parents=True)
            for i in range(n):
                size = rng.randint(min(40, height - 1), min(110, height, high - low))
                x, y = rng.randint(low, high - size), rng.randint(0, height - size)
                patch = image.crop((x, y, x + size, y + size)).rotate(rng.choice([0, 90, 180, 270]))
                patch.resize((side, side)).save(place / f"{i}.jpg", quality=85)


def place(folder: Path, seed: int, photographs: Path | None, weights: Path | None) -> dict[str, list[str]]:
    """The overrides of each of the data, which are drawn by a seed and written into a folder."""
    rng = random.Random(f"data {seed}")
    side = rng.choice([14, 18, 20])
    write_digits(folder / "digits40", 40, rng)
    draw(folder / "shapes", dict.fromkeys(SHAPES, 167), 0.35, side, rng)
    draw(folder / "shapes40", dict.fromkeys(SHAPES[:5], 8), 0.4, side, rng)
    draw(folder / "pair40", dict.fromkeys(("circle", "cross"), 20), 0.05, side, rng)
    draw(folder / "noisy", dict.fromkeys(SHAPES, 80), 0.5, side, rng, wrong=0.25)
    unequal = {"circle": 500, "ring": 400, "square": 25, "triangle": 25, "cross": 20}
    draw(folder / "unequal", unequal, 0.5, side, rng)
    shapes = ("shapes", "shapes40", "pair40", "noisy", "unequal")
    unturned = ("dataset.allow_hflip=false", "dataset.allow_vflip=false")
    places = {
        "digits": ["dataset=digits"],
        "digits40": _folder(folder / "digits40", 8, *unturned),
        **{name: _folder(folder / name, side) for name in shapes},
    }
    if photographs is None or weights is None:
        return places
    side = rng.choice([64, 96])
    cut(photographs, folder / "real", side, rng)
    for group in rng.sample(sorted((folder / "real" / "train").iterdir()), 5):
        for path in sorted(group.glob("*.jpg"))[:8]:
            (folder / "real40" / group.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "real40" / group.name / path.name)
    network = ("model=timm", "model.name=tf_efficientnet_lite0", f"model.weights={weights.absolute()}")
    normal = "dataset.normalization={mean:[0.5,0.5,0.5],std:[0.5,0.5,0.5]}"
    for name in ("real", "real40"):
        places[name] = _folder(folder / name, side, *network, normal, "dataset.duplicates=drop")
    places["scratch40"] = _folder(folder / "real40", 32, "dataset.duplicates=drop")
    return places


def _folder(path: Path, side: int, *more: str) -> list[str]:
    return ["dataset=image_folder", f"dataset.path={path}", f"dataset.image_size={side}", *more]


# --------------------------------------------------------------------------------------------- the runs


def train(wanted: Wanted, overrides: Sequence[str]) -> dict[str, Any]:
    """What the rules read of a run."""
    config = compose("config", [*overrides, *wanted.overrides, "training.n_threads=1", "device=cpu"])
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
        return bool(self.cause.accepted & set(self.signs))

    @property
    def is_treated(self) -> bool:
        """Whether the first command changes what caused it."""
        changed = {word.partition("=")[0] for word in self.command.removeprefix(AGAIN).split()}
        return bool(changed & self.cause.keys)

    @property
    def is_false_alarm(self) -> bool:
        return bool(set(self.signs) - self.cause.accepted - self.cause.may)


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


def judge(known: Sequence[Judged], tells_wrong: bool) -> None:
    by_cause: dict[str, list[Judged]] = defaultdict(list)
    for one in known:
        by_cause[one.wanted.cause].append(one)
    print("| cause | accepted | runs | recognised | other signs | first command treats it | told first |")
    print("|---|---|---|---|---|---|---|")
    for name, cause in CAUSES.items():
        runs = by_cause[name]
        first = Counter(one.signs[0] if one.signs else "nothing" for one in runs)
        told = ", ".join(f"{sign} {n}" for sign, n in first.most_common(4))
        hits, treated = str(sum(one.is_hit for one in runs)), str(sum(one.is_treated for one in runs))
        if name == "healthy":
            hits = treated = ""
        accepted = " ".join([cause.shows, *sorted(cause.accepted - {cause.shows})])
        wrong = sum(one.is_false_alarm for one in runs)
        print(f"| {name} | {accepted} | {len(runs)} | {hits} | {wrong} | {treated} | {told} |")
    print()
    print(
        "| sign | runs of its causes | it or an equal sign is told | it is told |"
        " told in all | accepted there |"
    )
    print("|---|---|---|---|---|---|")
    for rule in RULES:
        should = [one for one in known if rule.sign == one.cause.shows]
        told_in = [one for one in known if rule.sign in one.signs]
        right = [rule.sign in one.cause.accepted | one.cause.may for one in told_in]
        recall, itself = share([o.is_hit for o in should]), share([rule.sign in o.signs for o in should])
        print(f"| {rule.sign} | {len(should)} | {recall} | {itself} | {len(told_in)} | {share(right)} |")
    print()
    for kind, some in kinds_of(known).items():
        healthy = [one.is_false_alarm for one in some if one.wanted.cause == "healthy"]
        sick = [one.is_hit for one in some if one.wanted.cause != "healthy"]
        print(f"{kind}: cause recognised in {share(sick)} of {len(sick)}", end="; ")
        print(f"a false alarm in {share(healthy)} of {len(healthy)} healthy runs")
    if tells_wrong:
        for one in known:
            if one.is_false_alarm or (one.cause.shows and not one.is_hit):
                print(f"{one.signs} {one.wanted.name}")
            elif one.cause.shows and not one.is_treated:
                print(f"not treated: {one.signs} {one.command.removeprefix(AGAIN)} {one.wanted.name}")


def kinds_of(known: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All runs, and those on each kind of data."""
    kinds = {"all": list(known)}
    for one in known:
        where = one.wanted.where
        n = "40 pictures" if where.endswith("40") else "many pictures"
        kind = (
            "real" if where.startswith(("real", "scratch")) else "digits" if "digits" in where else "shapes"
        )
        kinds.setdefault(f"{kind}, {n}", []).append(one)
    return kinds


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
    if options.fresh is not None:
        with tempfile.TemporaryDirectory() as name:
            places = place(Path(name), options.fresh, options.photographs, options.weights)
            wanted = [one for one in wanted_of(options.fresh) if one.where in places]
            make(wanted, places, options.runs)
    if options.judge:
        rows = [row for path in options.judge for row in read(path).values()]
        known = [Judged(wanted, row) for row in rows if (wanted := Wanted.of(row["name"])).cause in CAUSES]
        judge(healthy_enough(known), options.wrong)


def make(wanted: Sequence[Wanted], places: dict[str, list[str]], path: Path) -> None:
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE), path.open("a") as file:
        for i, one in enumerate(wanted):
            if one.name in read(path):  # another process may make some of them
                continue
            row = train(one, places[one.where])
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{i + 1}/{len(wanted)} {row['s']:.1f} s: {one.name}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How often signs are right.")
    parser.add_argument(
        "--fresh", type=int, metavar="SEED", help="draw settings and pictures, and train runs"
    )
    parser.add_argument("--runs", type=Path, help="file that gets a line of JSON for each of these runs")
    parser.add_argument("--photographs", type=Path, help="skimage/data of a wheel of scikit-image")
    parser.add_argument("--weights", type=Path, help="weights of tf_efficientnet_lite0")
    parser.add_argument("--judge", type=Path, nargs="+", metavar="RUNS", help="judge the runs of these files")
    parser.add_argument("--wrong", action="store_true", help="tell which runs are judged wrongly")
    return parser


if __name__ == "__main__":
    main()
