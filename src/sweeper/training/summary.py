"""What was found in a dataset, in a few lines: parts, classes, images, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.cells import cell_len, chop_cells, set_cell_size

from sweeper import schema
from sweeper.errors import shortened
from sweeper.training.dataset import PART_NAMES, Images, Indices
from sweeper.training.split import remarks
from sweeper.words import counted, one_line

MOST_ROWS = 10
"""Classes that are shown one by one."""
MOST_REASONS = 8
WIDTH = 80
SHOWN = 3
"""Names of the classes with the fewest images."""
NAME, SHORT_NAME = 30, 13
"""Characters of a class's name in a row of its own, and among others."""


@dataclass(frozen=True)
class Summary:
    """``counts`` has the images of each class for each part: train, val, test.

    ``left_out`` are reasons with how many files each; ``remarks`` are what a person should know, a line each.
    """

    name: str
    n_images: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    multi_label: bool
    left_out: tuple[tuple[str, int], ...]
    remarks: tuple[str, ...]


def summarise(images: Images, parts: tuple[Indices, Indices, Indices], dataset: schema.Dataset) -> Summary:
    """What is told of a dataset with its split, from what a reader found."""
    n_classes = len(images.classes)
    of_parts = (images.labels[part] for part in parts)
    counts = (
        labels.sum(0, dtype=np.int64) if images.multi_label else np.bincount(labels, minlength=n_classes)
        for labels in of_parts
    )
    train, val, test = map(len, parts)
    is_read = dataset.path is not None and dataset.name in schema.FILES
    path = [Path(str(dataset.path)).name or str(dataset.path)] if is_read else []
    return Summary(
        " ".join([dataset.name, *path]),
        (train, val, test),
        images.classes,
        tuple(tuple(map(int, count)) for count in counts),
        images.multi_label,
        tuple(sorted(images.left_out.items(), key=lambda item: (-item[1], item[0]))),
        (*images.remarks, *remarks(images, dataset, parts)),
    )


def lines(summary: Summary, with_classes: bool = True, width: int = WIDTH) -> list[str]:
    """All of it, as a run or a search shows it first; the first line in two where it is too wide."""
    parts = ", ".join(f"{n:,} {name}" for n, name in zip(summary.n_images, PART_NAMES, strict=True))
    what = counted(len(summary.classes), "label" if summary.multi_label else "class", _plural(summary))
    rest = [left_out(summary), *(f"Note: {remark}" for remark in summary.remarks)]
    head = f"Data: {_short(summary.name)}, {sum(summary.n_images):,} images of {what}:"
    return [
        *([f"{head} {parts}"] if len(head) + len(parts) < min(width, WIDTH) else [head, f"  {parts}"]),
        *(f"  {row}" for row in of_classes(summary) if with_classes),
        *(one_line(line) for line in rest if line),
    ]


def of_classes(summary: Summary, most: int = MOST_ROWS) -> list[str]:
    """The images of each class in each part: a table, or of more than ``most`` classes fewest and most."""
    shown = [i for i, n in enumerate(summary.n_images) if n]
    if len(summary.classes) > most:
        return [_range(summary, part) for part in shown]
    names = [_short(name) for name in summary.classes]
    width = max(map(cell_len, names), default=0)
    cells = [[PART_NAMES[part], *(f"{n:,}" for n in summary.counts[part])] for part in shown]
    widths = [max(map(len, column)) for column in cells]
    return [
        "  ".join(
            [set_cell_size(name, width), *(f"{c[row]:>{w}}" for c, w in zip(cells, widths, strict=True))]
        )
        for row, name in enumerate(["", *names])
    ]


def left_out(summary: Summary) -> str:
    """``3 files left out: 2 .txt (no pictures), 1 hidden``; nothing where none was."""
    if not summary.left_out:
        return ""
    n = sum(count for _, count in summary.left_out)
    shown, rest = summary.left_out[:MOST_REASONS], summary.left_out[MOST_REASONS:]
    told = [f"{count:,} {reason}" for reason, count in shown]
    if rest:
        told.append(f"{sum(count for _, count in rest):,} others")
    return f"{counted(n, 'file')} left out: {', '.join(told)}"


def _range(summary: Summary, part: int) -> str:
    counts = summary.counts[part]
    fewest, most = min(counts), max(counts)
    if fewest == most:
        return f"{PART_NAMES[part]}: {fewest:,} of each"
    order = sorted(range(len(counts)), key=lambda i: counts[i])[:SHOWN]
    names = ", ".join(_short(summary.classes[i], SHORT_NAME) for i in order)
    return f"{PART_NAMES[part]}: {fewest:,} … {most:,} of each; fewest of {names}"


def _short(name: str, most: int = NAME) -> str:
    text = shortened(one_line(name), most)
    # Letters of some scripts are two columns wide.
    return text if cell_len(text) <= most else f"{chop_cells(text, most - 1)[0]}…"


def _plural(summary: Summary) -> str:
    return "labels" if summary.multi_label else "classes"
