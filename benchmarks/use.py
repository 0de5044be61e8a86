"""A model in use: whether `.predict`, `sweeper predict`, pt2 and ONNX say the same, and what each costs.

    python benchmarks/use.py patches --weights lite0.pt     # a folder for each class; EfficientNet-Lite0
    python benchmarks/use.py patches --only cnn gray        # a look

Eight models are trained for an epoch or a few, as from a terminal. Then 100 of the pictures, evenly spread,
are given to each model as they are and, as PNGs, larger and not square: `.predict` reads files, arrays and
tensors, `sweeper predict --csv` files, pt2 and ONNX take decoded bytes. Told are the largest differences of a
probability from `.predict` of the files, and on how many pictures something else is said. Larger JPEGs come
last: for `.predict` of a file their decoder halves them, which decoded bytes cannot repeat.

The ways are timed in turn, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from common import run_python, share_cores
from sweeper import schema
from sweeper.inference.classifier import Classifier, load
from sweeper.inference.export import export
from sweeper.results.answer import calibration_error, reliability
from sweeper.training import data
from sweeper.words import counted

N_PICTURES = 100
SIZES = ((301, 200), (150, 403))
"""Width and height of the larger pictures: one half of them is wide, the other more than twice as tall."""
MOST_DIFFERENCE, MOST_IMPORT_S = 1e-4, 0.2
BATCHES = (1, 32)

NETWORK_FILE = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, n_classes, in_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(32, n_classes)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.head((nn.functional.adaptive_avg_pool2d(x, (2, 1)) + 0.1).flatten(1).sqrt())
"""

Bytes = NDArray[np.uint8]
Scores = NDArray[np.float32]
Say = Callable[[list[Bytes]], Scores]
"""From decoded pictures (height, width) or (height, width, 3) of one size to probabilities."""


@dataclass(frozen=True)
class Case:
    """A model: what trains it, and whether its 100 pictures are the digits, which are gray, or yours."""

    overrides: Sequence[str]
    kind: str = "colour"
    is_timed: bool = False


def cases(folder: Path, weights: Path | None) -> dict[str, Case]:
    pictures = ["dataset=image_folder", f"dataset.path={folder / 'pictures'}", "dataset.duplicates=drop"]
    short, side = ["training.epochs=1"], ["dataset.image_size=96"]
    lite = ["model=timm", "model.name=tf_efficientnet_lite0", f"model.weights={weights}", "freezing=head"]
    table = ["dataset=csv", f"dataset.path={folder / 'labels.csv'}", "dataset.label_separator='|'"]
    found = {
        "cnn": Case([*pictures, "training.epochs=6"], is_timed=True),
        "resnet18": Case([*pictures, *short, *side, "model=resnet18", "model.weights=null"], is_timed=True),
        "lite0, head": Case([*pictures, *side, *lite, "training.epochs=10"], is_timed=True),
        "custom": Case([*pictures, *short, "model=custom", "model.target=nets.Net"], is_timed=True),
        "digits": Case(["training.epochs=3"], kind="digits"),
        "margin": Case([*pictures, *short, "dataset.margin=1.143", "augmentation=light"]),
        "labels": Case([*table, *short, "dataset.duplicates=drop", "loss=bce_with_logits"]),
        "gray": Case(["training.epochs=3", "dataset.normalization=imagenet"], kind="digits"),
    }
    return found if weights is not None else {name: found[name] for name in found if "lite0" not in name}


def main() -> None:
    options = parser().parse_args()
    share_cores("cpu")
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the processes that are started
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["SWEEPER_CACHE"] = str(folder / "cache")
        prepare(folder, options.pictures.resolve())
        weights = options.weights and options.weights.resolve()
        chosen = {
            name: case
            for name, case in cases(folder, weights).items()
            if not options.only or name.split(",")[0] in options.only
        }
        versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
        print(f"{versions}, {counted(options.threads, 'thread')}")
        time_import(folder, options.repeats)
        os.chdir(folder)
        for name, case in chosen.items():
            study_case(name, case, folder, options.repeats)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="A model in use: whether all ways agree, and what each costs."
    )
    parser.add_argument("pictures", type=Path, help="a folder of pictures, one for each class")
    parser.add_argument(
        "--weights", type=Path, help="of timm's tf_efficientnet_lite0; without, it is left out"
    )
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="the first word of its name")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="fewer where the machine has other work")
    return parser


def prepare(folder: Path, pictures: Path) -> None:
    """The pictures, a table of their labels, and a network of one's own."""
    (folder / "pictures").symlink_to(pictures)
    (folder / "nets.py").write_text(NETWORK_FILE)
    rows = []
    for path in found_in(pictures):
        kind = path.parent.name
        rows.append(f"{path},{kind}|{'a to g' if kind[0] < 'h' else 'h to z'}")
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def found_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))


# ------------------------------------------------------------------------------------------- start-up


def time_import(folder: Path, repeats: int) -> None:
    """Of Python with `import sweeper`, less Python alone; and what that imports."""
    heavy = (
        "[name for name in ('torch', 'hydra', 'omegaconf', 'optuna', 'numpy', 'PIL') if name in sys.modules]"
    )
    told = subprocess.check_output([sys.executable, "-c", f"import sys, sweeper; print({heavy})"], text=True)
    both = [
        (run_python(["-c", "pass"], folder), run_python(["-c", "import sweeper"], folder))
        for _ in range(repeats)
    ]
    alone, with_ours = (median(column) for column in zip(*both, strict=True))
    met = "met" if with_ours - alone < MOST_IMPORT_S else "not met"
    print(
        f"import sweeper: {with_ours - alone:.3f} s (python alone {alone:.3f} s, medians of {repeats};"
        f" target < {MOST_IMPORT_S} s): {met}; of the heavy packages it imports {told.strip()}"
    )


def time_load(model: str, picture: Path) -> None:
    """In a fresh process: importing torch, the rest until the model is there, and the first picture."""
    predict = f"model.predict({str(picture)!r}); times.append(now());"
    code = (
        "from time import perf_counter as now; times = [now()]; import torch; times.append(now());"
        f" import sweeper; model = sweeper.load({model!r}, trust=True); times.append(now());"
        f" {predict} {predict}"
        f" sweeper.load({model!r}, trust=True); times.append(now());"
        " print(*(b - a for a, b in zip(times, times[1:])))"
    )
    runs = [
        [float(word) for word in subprocess.check_output([sys.executable, "-c", code], text=True).split()]
        for _ in range(3)
    ]
    torch_s, load_s, first_s, second_s, again_s = (median(column) for column in zip(*runs, strict=True))
    print(
        f"  import torch {torch_s:.2f} s, then load {load_s:.2f} s (again {again_s:.3f} s),"
        f" first picture {first_s * 1000:.0f} ms, second {second_s * 1000:.1f} ms (medians of 3 processes)"
    )


# ----------------------------------------------------------------------------------------- one model


def study_case(name: str, case: Case, folder: Path, repeats: int) -> None:
    study = name.split(",")[0]
    seconds = run_python(["-m", "sweeper", *case.overrides, f"study={study}"], folder)
    place = f"outputs/{study}"
    model = load(place, trust=True)
    print(f"\n{name}: trained in {seconds:.0f} s, temperature {model.card.temperature:.3f}")
    sets = pictures_of(case, folder)
    ways = {"arrays": by_arrays(model), "tensors": by_tensors(model)}
    for format in ("pt2", "onnx"):
        started, file = perf_counter(), folder / f"{study}.{format}"
        written = export(model, format, file)
        ways[format] = {"pt2": by_pt2, "onnx": by_onnx}[format](file)
        print(f"  export to {format}: {perf_counter() - started:.1f} s, {written.n_bytes / 1e6:.2f} MB")
    compare(model, place, sets, ways, folder)
    if case.is_timed:
        time_ways(model, sets["as they are"], ways, repeats)
        time_load(place, sets["as they are"][0])
    if name in ("cnn", "lite0, head"):
        weigh_temperature(model, folder / "pictures")


def pictures_of(case: Case, folder: Path) -> dict[str, list[Path]]:
    """100 files as they are, larger PNGs of them, and larger JPEGs."""
    if case.kind == "digits":
        pixels = data.load(schema.Dataset(name="digits"), torch.device("cpu")).val_x[:N_PICTURES]
        originals = [Image.fromarray(image[0].numpy()) for image in pixels]
        files = [folder / "digits" / f"{i:03}.png" for i in range(len(originals))]
        files[0].parent.mkdir(exist_ok=True)
        for file, image in zip(files, originals, strict=True):
            image.save(file)
    else:
        files = found_in(folder / "pictures")
        files = [files[i] for i in np.linspace(0, len(files) - 1, N_PICTURES).round().astype(int)]
    sets = {"as they are": files, "larger": list[Path](), "larger JPEGs": list[Path]()}
    for i, file in enumerate(files):
        width, height = SIZES[2 * i // len(files)]
        for which, suffix, times in (("larger", ".png", 1), ("larger JPEGs", ".jpg", 3)):
            image = Image.open(file).resize((times * width, times * height), Image.Resampling.BICUBIC)
            copy = folder / f"{which} {case.kind}" / f"{i:03}{suffix}"
            copy.parent.mkdir(exist_ok=True)
            image.save(copy, quality=95)
            sets[which].append(copy)
    return sets


def compare(
    model: Classifier, place: str, sets: dict[str, list[Path]], ways: dict[str, Say], folder: Path
) -> None:
    for which, files in sets.items():
        expected = model.predict(files).probabilities
        said = {"csv": by_csv(place, files, folder)}
        decoded = [np.asarray(Image.open(file)) for file in files]
        said |= {way: in_groups(say, decoded) for way, say in ways.items()}
        far = {way: float(np.abs(scores - expected).max()) for way, scores in said.items()}
        answers = {way: changed(model, scores, expected) for way, scores in said.items()}
        target = "" if "JPEG" in which else ": met" if max(far.values()) <= MOST_DIFFERENCE else ": not met"
        told = ", ".join(f"{way} {far[way]:.1e} ({answers[way]} other)" for way in said)
        print(f"  {len(files)} {which}: {told}{target}")


def changed(model: Classifier, scores: Scores, expected: Scores) -> int:
    """Of how many pictures something else is said."""
    if model.card.thresholds is None:
        return int((scores.argmax(1) != expected.argmax(1)).sum())
    least = np.asarray(model.card.thresholds, np.float32)
    return int(((scores >= least) != (expected >= least)).any(1).sum())


def in_groups(say: Say, pictures: list[Bytes]) -> Scores:
    """Of one size each, at most 32 at once."""
    said: list[Scores] = []
    while len(said) < len(pictures):
        start = len(said)
        group = [image for image in pictures[start : start + 32] if image.shape == pictures[start].shape]
        said += list(say(group))
    return np.stack(said)


# ------------------------------------------------------------------------------------------------ ways


def by_arrays(model: Classifier) -> Say:
    return lambda pictures: model.predict(pictures).probabilities


def by_tensors(model: Classifier) -> Say:
    return lambda pictures: model.predict(torch.from_numpy(stacked(pictures))).probabilities


def by_pt2(file: Path) -> Say:
    program: Any = torch.export.load(file).module()

    def say(pictures: list[Bytes]) -> Scores:
        with torch.inference_mode():
            return np.asarray(program(torch.from_numpy(stacked(pictures))).numpy())

    return say


def by_onnx(file: Path) -> Say:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, settings)
    return lambda pictures: np.asarray(session.run(None, {"pictures": stacked(pictures)})[0])


def stacked(pictures: list[Bytes]) -> Bytes:
    """(n, channels, height, width)."""
    stack = np.stack(pictures)
    return stack[:, None] if stack.ndim == 3 else np.ascontiguousarray(stack.transpose(0, 3, 1, 2))


def by_csv(place: str, files: Sequence[Path], folder: Path) -> Scores:
    table = folder / "said.csv"
    words = ["-m", "sweeper", "predict", place, *map(str, files), "--csv", str(table), "--trust"]
    run_python(words, folder)
    with table.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    if [row[0] for row in rows] != [str(file) for file in files]:
        sys.exit("the table has other rows")
    return np.array([row[3:] for row in rows], np.float32)


# ----------------------------------------------------------------------------------------------- speed


def time_ways(model: Classifier, files: Sequence[Path], ways: dict[str, Say], repeats: int) -> None:
    """Pictures a second of each way, and how many times those of `.predict` of arrays."""
    for n in BATCHES:
        paths = files[:n]
        pictures = [np.asarray(Image.open(file)) for file in paths]
        runs: dict[str, Callable[[], object]] = {"paths": lambda paths=paths: model.predict(paths)}
        for way, say in ways.items():
            runs[way] = lambda say=say, pictures=pictures: say(pictures)
        seconds = {way: median(times) for way, times in timed(runs, repeats)}
        told = (f"{way} {n / each:,.0f} ({seconds['arrays'] / each:.2f})" for way, each in seconds.items())
        print(f"  pictures a second in batches of {n} (of arrays'): {', '.join(told)}")


def timed(runs: dict[str, Callable[[], object]], repeats: int) -> Iterator[tuple[str, list[float]]]:
    """In turn, after two rounds that do not count."""
    times: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(repeats + 2):
        for way, run in runs.items():
            started = perf_counter()
            run()
            times[way].append(perf_counter() - started)
    yield from ((way, each[2:]) for way, each in times.items())


# ----------------------------------------------------------------------------------------- temperature


def weigh_temperature(model: Classifier, pictures: Path) -> None:
    """Loss and calibration error on the test pictures, with the temperature and without."""
    dataset = schema.Dataset(
        name="image_folder", path=str(pictures), image_size=model.card.image_size, duplicates="drop"
    )
    read = data.load(dataset, torch.device("cpu"))
    pixels, labels = read.part("test")
    told = []
    for temperature in (1.0, model.card.temperature):
        card = replace(model.card, temperature=temperature)
        said = Classifier(card, model.module).predict(pixels[:]).probabilities.astype(np.float64)
        loss = -np.log(np.maximum(said[np.arange(len(said)), labels.numpy()], 1e-30)).mean()
        bins = reliability(labels.numpy(), np.log(np.maximum(said, 1e-30)).astype(np.float32))
        told.append(f"loss {loss:.4f}, calibration error {calibration_error(bins):.4f}")
    print(f"  {len(labels)} test pictures without the temperature: {told[0]}; with it: {told[1]}")


if __name__ == "__main__":
    main()
