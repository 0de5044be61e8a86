"""What it costs to find image files and to know equal ones, beside decoding them.

    python benchmarks/data.py [--n-files 10000] [--repeats 5]

Without a cache, in one process: the CPU time of finding, hashing and comparing, beside that of decoding. The
same files are decoded without hashing and comparing too; that difference is smaller than what varies on a
busy machine. One file in 100 is a copy of another, one in 1,000 a copy with other metadata, which is only
known by its pixels at full size.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import process_time, thread_time
from typing import BinaryIO
from unittest.mock import patch

import numpy as np
from PIL import Image

from common import share_cores
from sweeper.schema import Dataset
from sweeper.training import decode, picture, twin
from sweeper.training.dataset import Indices
from sweeper.training.readers import image_folder

TARGET = 0.05
SIZE = (400, 300)
N_CLASSES = 10


def draw(file: Path, seed: int) -> None:
    """Something smooth with fine noise: a JPEG of about 35 KB, a PNG of about 300 KB."""
    is_copy, has_other_metadata = seed % 100 == 2, seed % 1000 == 4
    rng = np.random.default_rng(seed - 2 if is_copy or has_other_metadata else seed)
    small = Image.fromarray(rng.integers(0, 256, (10, 13, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = smooth + rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
        file, quality=90, dpi=(73 if has_other_metadata else 72, 72)
    )


def write(folder: Path, n: int, suffix: Callable[[int], str]) -> None:
    for number in range(N_CLASSES):
        (folder / str(number)).mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        files = [folder / str(i % N_CLASSES) / f"{i}.{suffix(i)}" for i in range(n)]
        list(threads.map(draw, files, range(n)))


@contextmanager
def without_comparing() -> Iterator[None]:
    with (
        patch.object(picture, "digest_of", lambda file: 0),
        patch.object(twin, "pictures", lambda traits, whole: np.arange(len(traits.digests))),
    ):
        yield


@contextmanager
def timed() -> Iterator[list[float]]:
    """CPU seconds of each digest and of each comparison."""
    seconds: list[float] = []
    digest_of, pictures = picture.digest_of, twin.pictures

    def digest(file: BinaryIO) -> int:
        started = thread_time()
        found = digest_of(file)
        seconds.append(thread_time() - started)
        return found

    def compare(traits: twin.Traits, whole: Callable[[list[int]], list[bytes]]) -> Indices:
        started = process_time()
        found = pictures(traits, whole)
        seconds.append(process_time() - started)
        return found

    with patch.object(picture, "digest_of", digest), patch.object(twin, "pictures", compare):
        yield seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-files", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["JPEG", "PNG", "both"])
    arguments = parser.parse_args()
    share_cores("cpu")
    logging.getLogger("sweeper").setLevel(logging.ERROR)
    os.environ["SWEEPER_CACHE"] = "/dev/null/cache"
    kinds: dict[str, Callable[[int], str]] = {
        "JPEG": lambda i: "jpg",
        "PNG": lambda i: "png",
        "both": lambda i: "jpg" if i % 2 else "png",
    }
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), arguments.n_files, kinds[kind])
            compare(kind, Path(name), arguments.repeats)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = process_time()
    work()
    return process_time() - started


def compare(kind: str, folder: Path, repeats: int) -> None:
    dataset = Dataset(name="image_folder", path=str(folder))
    files = image_folder.files(dataset)

    def find() -> None:
        for file in image_folder.files(dataset):
            picture.stamp_of(file)

    rows: list[tuple[float, float, float, float]] = []
    for _ in range(repeats):
        with without_comparing():
            plain = cpu_seconds(lambda: decode.read_files(files, dataset))
        with timed() as seconds:
            whole = cpu_seconds(lambda: decode.read_files(files, dataset))
        rows.append((cpu_seconds(find), sum(seconds), plain, whole))
    finding, hashing, plain, whole = (median(values) for values in zip(*rows, strict=True))
    share = median((row[0] + row[1]) / row[2] for row in rows)
    print(
        f"{kind}, {len(files)} files, CPU time: finding {finding:.2f} s, hashing and comparing "
        f"{hashing:.2f} s, decoding without them {plain:.2f} s, with them {whole:.2f} s: they take "
        f"{share:.1%} of decoding (target ≤ {TARGET:.0%}): {'met' if share <= TARGET else 'not met'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
