"""How many pictures change their part when a dataset changes a little, by rank and by permutation."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from sweeper import schema
from sweeper.training import images
from sweeper.training.dataset import Images, Indices
from sweeper.training.split import split

CLASSES = ("cat", "dog", "owl")
PART_NAMES = ("train", "val", "test")
TABLE = "table.csv"
Parts = tuple[Indices, Indices, Indices]


def permuted(found: Images, dataset: schema.Dataset) -> Parts:
    """The split as it was: a permutation of each class, whose length and order decide on everything."""
    rng = np.random.default_rng(dataset.split_seed)
    parts: list[list[int]] = [[], [], []]
    for label in range(len(found.classes)):
        members = rng.permutation(np.flatnonzero(found.labels == label))
        n_test, n_val = round(len(members) * 0.2), round(len(members) * 0.2)
        pieces = np.split(members, [len(members) - n_val - n_test, len(members) - n_test])
        for part, piece in zip(parts, pieces, strict=True):
            part.extend(piece.tolist())
    train, val, test = (np.array(part) for part in parts)
    return train, val, test


def where(found: Images, parts: Parts) -> dict[str, str]:
    """The part of each picture, by its name."""
    assert found.names is not None
    return {found.names[i]: name for name, chosen in zip(PART_NAMES, parts, strict=True) for i in chosen}


@dataclass
class Folder:
    """A folder of pictures with a table of them, which changes by one thing at a time."""

    path: Path
    rng: np.random.Generator
    n_added: int = 0

    def fill(self, n: int) -> None:
        for i in range(n):
            self._write(self.path / CLASSES[i % len(CLASSES)] / f"{i:05}.png")
        self.write_table(self.pictures())

    def pictures(self) -> list[Path]:
        return sorted(self.path.glob("*/*.png"))

    def write_table(self, order: Iterable[Path]) -> None:
        rows = (f"{picture.relative_to(self.path)},{picture.parent.name}" for picture in order)
        (self.path / TABLE).write_text("\n".join(["path,label", *rows]) + "\n")

    def some(self) -> Path:
        pictures = self.pictures()
        return pictures[self.rng.integers(len(pictures))]

    def add(self) -> None:
        self.n_added += 1
        name = f"{self.rng.integers(10**5):05}-{self.n_added}.png"
        self._write(self.path / CLASSES[self.rng.integers(len(CLASSES))] / name)

    def remove(self) -> None:
        self.some().unlink()

    def damage(self) -> None:
        self.some().write_bytes(b"damaged")

    def reorder(self) -> None:
        self.write_table(self.rng.permutation(np.array(self.pictures(), dtype=object)))

    def rename(self) -> None:
        self.path = self.path.rename(self.path.with_name(f"{self.path.name}x"))

    def _write(self, picture: Path) -> None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(picture)


CHANGES: dict[str, Callable[[Folder], None]] = {
    "one added": Folder.add,
    "one removed": Folder.remove,
    "one skipped (damaged)": Folder.damage,
    "table in another order": Folder.reorder,
    "folder renamed": Folder.rename,
}


def count_moved(n: int, kind: str, seed: int) -> tuple[int, int]:
    """How many of the pictures that stay change their part, by rank and by permutation."""
    with TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary, "pets"), np.random.default_rng([list(CHANGES).index(kind), seed]))
        folder.fill(n)
        before = _splits(folder, kind)
        CHANGES[kind](folder)
        after = _splits(folder, kind)
    ours, theirs = (
        sum(was[name] != now[name] for name in was.keys() & now.keys())
        for was, now in zip(before, after, strict=True)
    )
    return ours, theirs


def _splits(folder: Folder, kind: str) -> tuple[dict[str, str], dict[str, str]]:
    is_table = kind == "table in another order"
    dataset = schema.Dataset(
        name="csv" if is_table else "image_folder",
        path=str(folder.path / TABLE if is_table else folder.path),
        image_size=8,
        skip_unreadable=True,
    )
    if not is_table:
        (folder.path / TABLE).unlink(missing_ok=True)
    found = images.read(dataset)
    return where(found, split(found, dataset)), where(found, permuted(found, dataset))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="pictures, in three classes")
    parser.add_argument("--repeats", type=int, default=40, help="of each of the five changes")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # that files are skipped
    print(f"pictures moved of {arguments.n}, mean and most of {arguments.repeats} random changes each")
    print("| change | by rank | most | by permutation | most |\n|---|---|---|---|---|")
    with TemporaryDirectory() as cache:
        os.environ["SWEEPER_CACHE"] = cache
        for kind in CHANGES:
            ours, theirs = zip(
                *(count_moved(arguments.n, kind, seed) for seed in range(arguments.repeats)), strict=True
            )
            print(
                f"| {kind} | {mean(ours):.2f} | {max(ours)} | {mean(theirs):.1f} | {max(theirs)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
