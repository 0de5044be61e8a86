"""The same search twice: by ours, and by Optuna, a DataLoader and torchvision's transforms (usual_way.py).

    python benchmarks/search_digits.py              # 20 trials of 20 epochs
    python benchmarks/search_digits.py --prune      # at most 20; Hyperband and early stopping

Digits at 32 pixels, turned and cropped at random. Counted are the images that were trained on, over the wall
time of the whole command, start-up included. Without --prune both sides finish the same epochs, so that their
ratio is that of the wall times.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from common import Compared, agreement, count_epochs, print_verdict, run_python, share_cores
from sweeper import filesystem, schema
from sweeper.record.mark import OUTPUTS
from sweeper.record.study_files import StudyFiles
from sweeper.training import images

USUAL_WAY = Path(__file__).with_name("usual_way.py")
IMAGE_SIZE = 32
OURS = "ours, 2 workers"
USUAL = {
    f"usual way, num_workers={num_workers}, {n_threads or 2} torch threads": (num_workers, n_threads)
    for num_workers in (0, 2)
    for n_threads in (None, 1)
}
"""Workers of the DataLoader, and threads of torch (None is its own choice: one for each core)."""
TARGET, TARGET_PRUNED = 4, 2.5
"""At least so many times the images per second of the usual way."""


@dataclass(frozen=True)
class Searched:
    """What a search did, and how long it took."""

    seconds: float
    n_epochs: int
    n_images: int
    best_accuracy: float

    @property
    def images_per_second(self) -> float:
        return self.n_images / self.seconds


def main() -> None:
    options = parser().parse_args()
    target = TARGET_PRUNED if options.prune else TARGET
    print_verdict("search, pruned" if options.prune else "search", compare(options), target)


def compare(options: argparse.Namespace) -> Compared:
    share_cores(options.device)
    found: dict[str, list[Searched]] = {OURS: [], **{name: [] for name in USUAL}}
    usual = [
        name
        for name, (num_workers, n_threads) in USUAL.items()
        if num_workers in options.workers and (n_threads or 2) in options.threads
    ]
    for seed in range(options.repeats):
        for name in (OURS, *usual):
            search = _search(name, options, seed)
            found[name].append(search)
            print(f"seed {seed}  {_line(name, [search])}", flush=True)
        # All of the usual ways compete in the first search; the fastest goes on.
        fastest = max(usual, key=lambda name: _speed(found[name]))
        usual = [fastest]
    at_most = "at most " if options.prune else ""
    print(f"\n{options.n_trials} trials of {at_most}{options.epochs} epochs, medians of {options.repeats}")
    for name in (OURS, fastest):
        print(_line(name, found[name]))
    ratios = [
        ours.images_per_second / usual.images_per_second
        for ours, usual in zip(found[OURS], found[fastest], strict=True)
    ]
    print(f"ratios of the seeds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    accuracy = agreement(*([search.best_accuracy for search in found[name]] for name in (OURS, fastest)))
    ours, usual_way = _speed(found[OURS]), _speed(found[fastest])
    return Compared(f"{ours:,.0f} images/s", f"{usual_way:,.0f} images/s", ours / usual_way, accuracy)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The same search by ours and the usual way.")
    parser.add_argument("--repeats", type=int, default=3, help="searches of each, with the seeds 0, 1, …")
    parser.add_argument("--n-trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="of a trial; what ours has by default")
    parser.add_argument("--prune", action="store_true", help="by Hyperband, and stop early, on both sides")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader, to try")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="of its torch, to try")
    parser.add_argument("--device", default="cpu")
    return parser


def _search(name: str, options: argparse.Namespace, seed: int) -> Searched:
    with tempfile.TemporaryDirectory() as folder:
        if name == OURS:
            return _search_with_ours(Path(folder), options, seed)
        return _search_the_usual_way(Path(folder), options, seed, *USUAL[name])


def _search_with_ours(folder: Path, options: argparse.Namespace, seed: int) -> Searched:
    study = f"digits-{seed}"
    to_the_end = ["hydra/sweeper/pruner=none", "training.early_stopping.patience=null"]
    overrides = [
        *([] if options.prune else to_the_end),
        "optimizer=adam,sgd",
        f"dataset.image_size={IMAGE_SIZE}",
        "augmentation=light",
        f"training.epochs={options.epochs}",
        f"hydra.sweeper.n_trials={options.n_trials}",
        "hydra.sweeper.n_jobs=2",
        f"device={options.device}",
        f"seed={seed}",
        f"study={study}",
    ]
    seconds = run_python(["-m", "sweeper", "-m", *overrides], folder)
    outputs = folder / OUTPUTS / study
    best_accuracy = filesystem.read_yaml(StudyFiles(outputs).results)["best_value"]
    return _searched(seconds, count_epochs(outputs, options.n_trials), best_accuracy)


def _search_the_usual_way(
    folder: Path, options: argparse.Namespace, seed: int, num_workers: int, n_threads: int | None
) -> Searched:
    result = folder / "result.json"
    arguments: dict[str, object] = {
        "--n-trials": options.n_trials,
        "--epochs": options.epochs,
        "--num-workers": num_workers,
        "--device": options.device,
        "--seed": seed,
        "--result": result,
    }
    if n_threads is not None:
        arguments["--threads"] = n_threads
    prune = ["--prune"] if options.prune else []
    given = [str(part) for pair in arguments.items() for part in pair]
    seconds = run_python([str(USUAL_WAY), *prune, *given], folder)
    content = filesystem.read_json(result)
    return _searched(seconds, content["n_epochs"], content["best_accuracy"])


def _searched(seconds: float, n_epochs: int, best_accuracy: float) -> Searched:
    dataset = schema.Dataset(image_size=IMAGE_SIZE)
    train, _, _ = images.split(images.read(dataset), dataset)
    return Searched(seconds, n_epochs, n_epochs * len(train), best_accuracy)


def _speed(searches: Sequence[Searched]) -> float:
    return median(search.images_per_second for search in searches)


def _line(name: str, searches: Sequence[Searched]) -> str:
    return (
        f"{name:<44}"
        f"{median(s.seconds for s in searches):8.1f} s"
        f"{median(s.n_epochs for s in searches):6.0f} epochs"
        f"{_speed(searches):9.0f} images/s"
        f"   best validation accuracy {median(s.best_accuracy for s in searches):.4f}"
    )


if __name__ == "__main__":
    main()
