"""A table of image files: with one label each, or with several labels, each a column of 0 and 1."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import PARTS, TRAIN, Images, left_to_split
from sweeper.training.decode import check_every_class_is_left, identify, read_files, seen_size
from sweeper.words import counted

PATH, SPLIT = "path", "split"
"""The columns that are not labels."""


@dataclass(frozen=True)
class Row:
    """One image file with its part and its class or ``labels``, from its row of the table.

    ``name`` is the path as the table writes it.
    """

    line: int
    file: Path
    part: int
    labels: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Table:
    rows: list[Row]
    classes: tuple[str, ...]
    multi_label: bool


def read(dataset: schema.Dataset) -> Images:
    """The images that the table lists, in RGB.

    Raises:
        BadInput: on ``dataset.path``, naming line, column and value of a fault in the table.
    """
    table = parse(dataset)
    _check_files_exist(dataset, table.rows)
    pixels, readable = read_files([row.file for row in table.rows], dataset)
    rows = [table.rows[i] for i in readable]
    check_every_class_is_left(dataset, _classes_of_parts(table.rows), _classes_of_parts(rows))
    part = np.array([row.part for row in rows], dtype=np.int8)
    files = [row.file for row in rows]
    digests, pictures = identify(files, pixels, dataset)
    return Images(
        pixels,
        _labels(table, rows),
        table.classes,
        left_to_split(part),
        files=tuple(map(str, files)),
        image_size=seen_size(dataset),
        names=tuple(row.name for row in rows),
        digests=digests,
        pictures=pictures,
    )


def files(dataset: schema.Dataset) -> list[Path]:
    """The table, and every image file that it lists."""
    return [_path(dataset), *(row.file for row in parse(dataset).rows)]


def parse(dataset: schema.Dataset) -> Table:
    """The table, checked except for the image files, which may be missing.

    Raises:
        BadInput: on ``dataset.path``.
    """
    records = _records(dataset)
    _, header = next(records, (0, []))
    columns = _label_columns(dataset, header)
    folder = _path(dataset).parent
    rows = [
        _row(dataset, folder, columns, line, _by_column(dataset, header, line, values))
        for line, values in records
    ]
    if not rows:
        raise _bad(dataset, "has no rows below the header", "write a row for each image")
    _check_each_is_there_once(dataset, rows)
    _check_parts(dataset, rows, columns)
    found = sorted({name for row in rows for name in row.labels})
    if len(columns) == 1 and len(found) < 2:
        raise _bad(
            dataset, f"column {columns[0]} has one class only ({found[0]})", "there must be at least 2"
        )
    if len(columns) > 1 and (absent := [name for name in columns if name not in found]):
        raise _bad(dataset, f"no image has the label {absent[0]}", "write a 1 in that column or remove it")
    return Table(rows, tuple(found if len(columns) == 1 else columns), multi_label=len(columns) > 1)


# ------------------------------------------------------------------------------------------- the table


def _path(dataset: schema.Dataset) -> Path:
    remedy = "write dataset.path=FILE with columns path and label"
    if dataset.path is None:
        raise _bad(dataset, "csv needs it", remedy)
    file = Path(dataset.path).expanduser()
    if not file.exists():
        raise _bad(dataset, "there is no such file", remedy)
    if file.is_dir():
        raise _bad(dataset, "is a folder, not a file", remedy + ", or dataset=image_folder")
    return file


def _records(dataset: schema.Dataset) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not blank, and its values; quoted values may span lines."""
    reader = csv.reader(io.StringIO(_text(dataset), newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                yield line, [value.strip() for value in values]
            line = reader.line_num + 1
    except csv.Error as error:
        raise _bad(dataset, f"line {line}: {error}", "write it as a csv file") from error


def _text(dataset: schema.Dataset) -> str:
    try:
        data = _path(dataset).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _bad(dataset, f"cannot be read: {error.strerror}", "make it readable") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _bad(dataset, f"line {line} is not UTF-8", "save it as a csv file in UTF-8") from error


def _label_columns(dataset: schema.Dataset, header: list[str]) -> list[str]:
    if not header:
        raise _bad(dataset, "is empty", "write a header with path and label, and a row for each image")
    if PATH not in header:
        reason = f"line 1 has no column path, but {', '.join(header)}"
        raise _bad(dataset, reason, "write a header with path and label, separated by a comma")
    for column in header:
        if not column or header.count(column) > 1:
            reason = f"line 1 has column {column} twice" if column else "line 1 has a column without a name"
            raise _bad(dataset, reason, "give each column its own name")
    columns = [column for column in header if column not in (PATH, SPLIT)]
    if not columns:
        raise _bad(dataset, "line 1 has no column for labels", "write a header with path and label")
    return columns


def _by_column(dataset: schema.Dataset, header: list[str], line: int, values: list[str]) -> dict[str, str]:
    if len(values) != len(header):
        wanted = counted(len(header), "value")
        reason = f"line {line} must have {wanted}, as the header has, but has {len(values)}"
        raise _bad(dataset, reason, "put values with a comma in quotes")
    return dict(zip(header, values, strict=True))


def _row(
    dataset: schema.Dataset, folder: Path, columns: list[str], line: int, value_of: dict[str, str]
) -> Row:
    if not value_of[PATH]:
        raise _bad(dataset, f"line {line}, column path: is empty", "write the path of an image")
    split = value_of.get(SPLIT, "train")
    if split not in PARTS:
        reason = f"line {line}, column split: '{split}' is not a part of the data"
        raise _bad(dataset, reason, "write train, val or test")
    file = folder / Path(value_of[PATH]).expanduser()
    return Row(line, file, PARTS[split], _names(dataset, columns, line, value_of), value_of[PATH])


def _names(
    dataset: schema.Dataset, columns: list[str], line: int, value_of: dict[str, str]
) -> tuple[str, ...]:
    if len(columns) == 1:
        if not value_of[columns[0]]:
            raise _bad(dataset, f"line {line}, column {columns[0]}: is empty", "write the image's class")
        return (value_of[columns[0]],)
    for column in columns:
        if value_of[column] not in ("0", "1"):
            reason = f"line {line}, column {column}: '{value_of[column]}' is neither 0 nor 1"
            raise _bad(dataset, reason, "several columns beside path are labels: write 0 or 1, or remove it")
    return tuple(column for column in columns if value_of[column] == "1")


# ------------------------------------------------------------------------------------------ the images


def _check_each_is_there_once(dataset: schema.Dataset, rows: Sequence[Row]) -> None:
    """Refuse an image in two rows: it could be in both train and val."""
    line_of: dict[str, int] = {}
    for row in rows:
        file = os.path.normpath(row.file)
        if file in line_of:
            reason = f"line {row.line}, column path: {file} is in line {line_of[file]} too"
            remedy = "write one row for each image, and for several labels a column of 0 and 1 each"
            raise _bad(dataset, reason, remedy)
        line_of[file] = row.line


def _check_parts(dataset: schema.Dataset, rows: Sequence[Row], columns: Sequence[str]) -> None:
    classes: dict[int, set[str]] = {row.part: set() for row in rows}
    for row in rows:
        classes[row.part].update(row.labels)
    names = {part: name for name, part in reversed(PARTS.items())}  # the first one of each part
    if TRAIN not in classes:
        there = ", ".join(names[part] for part in sorted(classes))
        raise _bad(dataset, f"column split has {there}, but no train", "write train where it is to train on")
    for part in classes:
        if len(columns) == 1 and (odd := sorted(classes[part] ^ classes[TRAIN])):
            reason = f"the classes in {names[part]} and in train differ: {', '.join(odd)}"
            raise _bad(dataset, reason, "give both the same")


def _check_files_exist(dataset: schema.Dataset, rows: Sequence[Row]) -> None:
    missing = [row for row in rows if not row.file.is_file()]
    if missing:
        count = "1 image file is missing" if len(missing) == 1 else f"{len(missing)} image files are missing"
        reason = f"{count}, first in line {missing[0].line}, column path: {missing[0].file}"
        raise _bad(dataset, reason, "write paths relative to the csv file, or absolute ones")


def _classes_of_parts(rows: Sequence[Row]) -> list[tuple[int, str]]:
    return [(row.part, name) for row in rows for name in row.labels]


def _labels(table: Table, rows: Sequence[Row]) -> NDArray[np.int64] | NDArray[np.uint8]:
    number = {name: i for i, name in enumerate(table.classes)}
    if not table.multi_label:
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    labels = np.zeros((len(rows), len(table.classes)), dtype=np.uint8)
    for i, row in enumerate(rows):
        labels[i, [number[name] for name in row.labels]] = 1
    return labels


def _bad(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    # A quoted value may hold line breaks; an error is one line.
    return BadInput("dataset.path", dataset.path, " ".join(reason.split()), remedy)
