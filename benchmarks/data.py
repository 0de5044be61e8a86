"""What it costs to find image files and to know equal ones, beside decoding them.

    python benchmarks/data.py [--n-files 10000] [--repeats 5]

Both are measured in turns in one process, without a cache: the same files are decoded with digests, checksums
and the comparison of what may be equal, and without. One file in 100 is a copy of another, one in 1,000 a
copy with other metadata, which is only known by its pixels at full size.
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
from time import perf_counter, process_time
from unittest.mock import patch

import numpy as np
from PIL import Image

from common import share_cores
from sweeper.schema import Dataset
from sweeper.training import decode, picture, twin
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
        patch.object(decode, "crc32", lambda pixels: 0),
        patch.object(twin, "pictures", lambda traits, whole: np.arange(len(traits.digests))),
    ):
        yield


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and those of all cores."""
    started = perf_counter(), process_time()
    work()
    return perf_counter() - started[0], process_time() - started[1]


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


def compare(kind: str, folder: Path, repeats: int) -> None:
    dataset = Dataset(name="image_folder", path=str(folder))
    files = image_folder.files(dataset)

    def read() -> None:
        decode.read_files(files, dataset)

    def find() -> None:
        for file in image_folder.files(dataset):
            picture.stamp_of(file)

    found, plain, whole = (
        list[tuple[float, float]](),
        list[tuple[float, float]](),
        list[tuple[float, float]](),
    )
    for _ in range(repeats):
        found.append(measure(find))
        with without_comparing():
            plain.append(measure(read))
        whole.append(measure(read))
    for clock, name in enumerate(("wall", "cpu")):
        finding, decoding, both = (median(times[clock] for times in runs) for runs in (found, plain, whole))
        hashing = median(b[clock] - a[clock] for a, b in zip(plain, whole, strict=True))
        share = (finding + hashing) / decoding
        print(
            f"{kind}, {len(files)} files, {name} time: finding {finding:.2f} s, decoding {decoding:.2f} s, "
            f"with equal pictures {both:.2f} s (median difference {hashing:+.2f} s): {share:.1%} of decoding "
            f"(target ≤ {TARGET:.0%}): {'met' if share <= TARGET else 'not met'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
