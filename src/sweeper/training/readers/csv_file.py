"""A table of image files: with one label each, or with several labels, each a column of 0 and 1."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training.dataset import PART_NAMES, TRAIN, Images, left_to_split
from sweeper.training.decode import check_every_class_is_left, identify, read_files, seen_size, white_bits
from sweeper.training.picture import stamp_of
from sweeper.training.readers import column, table
from sweeper.training.readers.column import MISSING, Columns
from sweeper.training.readers.place import Place
from sweeper.training.readers.table import Table, bad
from sweeper.words import argument, composed, counted, expanded, near

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz")
UNLABELLED, ABSENT, UNREADABLE = "without a label", "missing", "that cannot be read"
"""What is left out with ``dataset.skip_unreadable``."""
MANY = 10
"""Rows from which on a column of another value in each is no label."""


@dataclass(frozen=True)
class Row:
    """One image file with its part and its class or ``labels``, from its row of the table.

    ``value`` is the path as the table writes it, ``name`` what the file is called within the data; ``place``
    says where in the table it stands.
    """

    place: str
    value: str
    file: Path
    is_there: bool
    name: str
    part: int
    labels: tuple[str, ...]
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a table says: its rows, with what was left out of them, and what a person should know of it."""

    rows: list[Row]
    classes: tuple[str, ...]
    multi_label: bool
    left_out: dict[str, int]
    remarks: tuple[str, ...]


def read(dataset: schema.Dataset) -> Images:
    """The images that the table lists, in RGB.

    Raises:
        BadInput: on ``dataset.path``, naming line, column and value of a fault in the table; or on the key
            of a column, folder or suffix that is not there.
    """
    listing = parse(dataset)
    listing = _without_missing(dataset, listing)
    pixels, readable = read_files([row.file for row in listing.rows], dataset)
    rows = [listing.rows[i] for i in readable]
    check_every_class_is_left(dataset, _classes_to_learn(listing.rows), _classes_to_learn(rows))
    part = np.array([row.part for row in rows], dtype=np.int8)
    files = [row.file for row in rows]
    digests, pictures = identify(files, pixels, dataset)
    unreadable = {UNREADABLE: len(listing.rows) - len(rows)} if len(rows) < len(listing.rows) else {}
    groups = [row.group for row in rows if row.group is not None]
    return Images(
        pixels,
        _labels(listing, rows),
        listing.classes,
        left_to_split(part),
        files=tuple(map(str, files)),
        image_size=seen_size(dataset),
        names=tuple(row.name for row in rows),
        digests=digests,
        pictures=pictures,
        bits=white_bits(files, pixels, dataset),
        groups=tuple(groups) if groups else None,
        left_out={**listing.left_out, **unreadable},
        remarks=listing.remarks,
    )


def files(dataset: schema.Dataset) -> list[Path]:
    """The table, and every image file that it lists."""
    return [_path(dataset), *(row.file for row in parse(dataset).rows)]


_last: dict[str, Listing] = {}
"""The last table, by all that it depends on: every trial of a worker asks for it."""


def parse(dataset: schema.Dataset) -> Listing:
    """What the table says, checked except for the image files, which may be missing.

    Read once per process unless it or its settings change, or files were missing.

    Raises:
        BadInput: on the key that has to change.
    """
    file = _path(dataset)
    key = f"{dataset!r}\0{Path.cwd()}\0{stamp_of(file)}"
    if key not in _last:
        _last.clear()
        listing = _parse(dataset, file)
        if not all(row.is_there for row in listing.rows):
            return listing
        _last[key] = listing
    return _last[key]


def _parse(dataset: schema.Dataset, file: Path) -> Listing:
    found = table.read(file, str(dataset.path), lambda name: column.may_be_path(name, dataset))
    if not found.rows:
        raise _bad(dataset, "has no rows below the header", "write a row for each image")
    columns = column.find(found, dataset)
    place = Place(_folder(dataset, file), dataset.suffix or "")
    labels = _labels_of_rows(dataset, found, columns)
    rows = [
        _row(dataset, found, columns, place, i, labels_of_row)
        for i, labels_of_row in enumerate(labels)
        if labels_of_row is not None
    ]
    n_without = len(found.rows) - len(rows)
    rows, repeated = _once(dataset, rows)
    classes = _classes(dataset, columns, rows)
    _check_parts(dataset, rows, columns)
    remarks = [*found.remarks, *columns.remarks, *repeated]
    if len(columns.labels) == 1 and dataset.label_separator is None:
        values = [row.labels[0] for row in rows]
        remarks += filter(None, [column.remark_joined(dataset, columns.labels[0], values)])
    remarks += _alike(classes)
    several = dataset.label_separator is not None or (len(columns.labels) > 1 and not columns.one_hot)
    left_out = {UNLABELLED: n_without} if n_without else {}
    return Listing(rows, classes, several, left_out, tuple(remarks))


# ------------------------------------------------------------------------------------- where everything is


def _path(dataset: schema.Dataset) -> Path:
    remedy = "write dataset.path=FILE with columns path and label"
    if dataset.path is None:
        raise _bad(dataset, "csv needs it", remedy)
    file = expanded(dataset.path)
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _bad(dataset, "there is no such file", remedy) from error
    except OSError as error:
        raise _bad(dataset, f"cannot be read: {error.strerror}", "make it readable") from error
    if file.is_dir():
        tables = _tables(file)
        if tables:
            remedy = f"write {argument('dataset.path', near(tables[0]))}"
        if len(tables) > 1:
            remedy += f", or one of {table.listed([one.name for one in tables[1:]])}"
        raise _bad(dataset, "is a folder, not a file", remedy + ", or dataset=image_folder")
    return file


def _tables(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.name.casefold().endswith(SUFFIXES))
    except OSError:
        return []


def _folder(dataset: schema.Dataset, file: Path) -> Path:
    """What the table's paths are relative to: ``dataset.folder`` is looked for here, and beside the table.

    Raises:
        BadInput: on ``dataset.folder``, if it is in neither place, or in both and not the same.
    """
    if dataset.folder is None:
        return file.parent
    here = expanded(dataset.folder)
    beside = file.parent / here
    found = [folder for folder in (here, beside) if folder.is_dir()]
    if not found:
        reason = "is a file, not a folder" if here.is_file() else "there is no such folder"
        raise BadInput("dataset.folder", dataset.folder, reason, "write what the table's paths are in")
    if len(found) == 2 and not here.samefile(beside):
        reason = f"may be {here.absolute()} or {beside.absolute()}"
        raise BadInput("dataset.folder", dataset.folder, reason, "write one of these")
    return found[0]


def _without_missing(dataset: schema.Dataset, listing: Listing) -> Listing:
    """The rows whose files are there.

    Raises:
        BadInput: where some are not, unless ``dataset.skip_unreadable``; and where none is.
    """
    rows = [row for row in listing.rows if row.is_there]
    n_missing = len(listing.rows) - len(rows)
    if n_missing and not (dataset.skip_unreadable and rows):
        raise _missing(dataset, listing.rows)
    check_every_class_is_left(dataset, _classes_to_learn(listing.rows), _classes_to_learn(rows))
    left_out = {ABSENT: n_missing} if n_missing else {}
    return replace(listing, rows=rows, left_out={**listing.left_out, **left_out})


def _missing(dataset: schema.Dataset, rows: Sequence[Row]) -> BadInput:
    missing = [row for row in rows if not row.is_there]
    first, n = missing[0], len(missing)
    place = Place(_folder(dataset, _path(dataset)), dataset.suffix or "")
    count = "1 image file is missing" if n == 1 else f"{n:,} image files are missing"
    why_not = place.why_not(first.value)
    told = f" ({why_not[0]})" if why_not else ""
    reason = f"{count}{told}, first in {first.place}: {first.file}"
    remedy = "write paths relative to the csv file, or absolute ones"
    if why_not:
        remedy = f"{why_not[1]}, or write dataset.skip_unreadable=true to go on without"
    elif alike := place.near(first.value):
        remedy = f"write it as on disk: {alike}"
    else:
        found = place.suggestions([row.value for row in rows])
        if found:
            remedy = f"write {' or '.join(_keys(place, other) for other in found)}"
        elif prefix := place.prefix([row.value for row in rows]):
            remedy = f"remove '{prefix}' from the start of each path in it"
        elif (one := place.elsewhere(first.value)) is not None:
            remedy = f"put all files into one folder: that one is {near(one)}, but not all others are with it"
        elif n < len(rows):
            remedy += "; dataset.skip_unreadable=true goes on without"
    return _bad(dataset, reason, remedy)


def _keys(place: Place, other: Place) -> str:
    """What to write to look elsewhere."""
    keys = (
        ("dataset.folder", near(place.folder), near(other.folder)),
        ("dataset.suffix", place.suffix, other.suffix),
    )
    return " ".join(argument(key, value) for key, now, value in keys if value != now)


# ------------------------------------------------------------------------------------------------ the rows


def _labels_of_rows(dataset: schema.Dataset, found: Table, columns: Columns) -> list[tuple[str, ...] | None]:
    """Of each row; None for one that has none and is left out."""
    if len(columns.labels) > 1:
        if dataset.label_separator is not None:
            shown, reason = (
                f"'{dataset.label_separator}'",
                f"is it for one of {table.listed(columns.labels)}?",
            )
            remedy = "write dataset.label_column=COLUMN, or leave it out"
            raise BadInput("dataset.label_separator", shown, reason, remedy)
        values = [found.values(name) for name in columns.labels]
        names = [composed(name) for name in columns.labels]
        return [
            tuple(name for name, value in zip(names, of_row, strict=True) if column.is_yes(value))
            for of_row in zip(*values, strict=True)
        ]
    name, separator = columns.labels[0], dataset.label_separator
    labels: list[tuple[str, ...] | None] = []
    for i, value in enumerate(map(composed, found.values(name))):
        if value not in MISSING and (separator is None or column.several(value, separator)):
            labels.append((value,) if separator is None else column.several(value, separator))
        elif dataset.skip_unreadable:
            labels.append(None)
        else:
            n = sum(value in MISSING for value in found.values(name))
            more = f", as {counted(n - 1, 'more row')}" if n > 1 else ""
            told = f" ('{value}')" if value else ""
            remedy = "write the image's class, or dataset.skip_unreadable=true to go on without"
            raise _bad(dataset, f"{found.place(i, name)}: is empty{told}{more}", remedy)
    _check_labels(dataset, found, columns, labels)
    return labels


_LIST = re.compile(r"[\[({].*[\])}]", re.DOTALL)
"""How Python and JSON write several labels, of which none is called so."""


def _check_labels(
    dataset: schema.Dataset, found: Table, columns: Columns, labels: Sequence[tuple[str, ...] | None]
) -> None:
    separator, name = dataset.label_separator, columns.labels[0]
    values = [value for value in found.values(name) if value not in MISSING]
    if len(values) > 1 and all(map(_LIST.fullmatch, values)):
        reason = f"column {name} holds lists, such as {values[0]}"
        raise _bad(dataset, reason, "write each as a|b, without quotes, and dataset.label_separator='|'")
    of_images = [of_row for of_row in labels if of_row is not None]
    if separator is not None and all(len(of_row) < 2 for of_row in of_images):
        reason = f"no value in column {name} has it" if of_images else f"column {name} has no values"
        shown = f"'{separator}'"
        raise BadInput("dataset.label_separator", shown, reason, "leave it out, for one label each")
    if separator is None and len(of_images) >= MANY and len(set(of_images)) == len(of_images):
        reason = f"column {name} has another value in each row, so it names no classes"
        others = [other for other in found.columns if other not in (name, columns.path)]
        remedy = f"write dataset.label_column=COLUMN, one of {table.listed(others)}"
        raise _bad(dataset, reason, remedy if others else "write each image's class in it")


def _row(
    dataset: schema.Dataset,
    found: Table,
    columns: Columns,
    place: Place,
    i: int,
    labels: tuple[str, ...],
) -> Row:
    value_of = dict(zip(found.columns, found.rows[i], strict=True))
    where, value = found.place(i, columns.path), value_of[columns.path]
    if value in MISSING:
        raise _bad(dataset, f"{where}: is empty", "write the path of an image")
    part = TRAIN
    if columns.split is not None:
        named = column.part_of(columns.split, value_of[columns.split])
        if named is None:
            reason = f"{found.place(i, columns.split)}: '{value_of[columns.split]}' is not a part of the data"
            other = "dataset.split_column=COLUMN" if dataset.split_column else "rename that column"
            remedy = f"write train, val or test; {other}, if it is no split"
            raise _bad(dataset, reason, remedy)
        part = named
    file, is_there = place.find(value)
    group = None if columns.group is None else composed(value_of[columns.group])
    return Row(where, value, file, is_there, place.name(value, file), part, labels, group)


def _once(dataset: schema.Dataset, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Each image file once, and a line on rows that say the same twice.

    Raises:
        BadInput: for an image in two rows that differ: it could be in both train and val.
    """
    row_of: dict[str, Row] = {}
    n_repeated = 0
    for row in rows:
        file = os.path.normpath(row.file)
        other = row_of.setdefault(file, row)
        if other is row:
            continue
        if (row.part, row.labels, row.group) != (other.part, other.labels, other.group):
            where = other.place.partition(",")[0]
            reason = f"{row.place}: {file} is in {where} too"
            remedy = "write one row for each image, and for several labels a column of 0 and 1 each"
            raise _bad(dataset, reason, remedy)
        n_repeated += 1
    told = "1 row says" if n_repeated == 1 else f"{n_repeated:,} rows say"
    what = f"{told} the same of an image as another: each image is used once"
    return list(row_of.values()), [what] if n_repeated else []


# --------------------------------------------------------------------------------------------- the classes


def _classes(dataset: schema.Dataset, columns: Columns, rows: Sequence[Row]) -> tuple[str, ...]:
    found = sorted({name for row in rows for name in row.labels})
    if len(columns.labels) == 1:
        if not found:
            raise _bad(dataset, f"column {columns.labels[0]} has no values", "write each image's class")
        if len(found) < 2:
            reason = f"column {columns.labels[0]} has one class only ({found[0]})"
            raise _bad(dataset, reason, "there must be at least 2")
        return tuple(found)
    names = [composed(name) for name in columns.labels]
    if absent := [name for name in names if name not in found]:
        raise _bad(dataset, f"no image has the label {absent[0]}", "write a 1 in that column or remove it")
    return tuple(names)


def _check_parts(dataset: schema.Dataset, rows: Sequence[Row], columns: Columns) -> None:
    """Raises BadInput for a class, or all of them, that train lacks; what val and test lack is told later."""
    classes: dict[int, Counter[str]] = {row.part: Counter() for row in rows}
    for row in rows:
        classes[row.part].update(row.labels)
    if TRAIN not in classes:
        there = ", ".join(PART_NAMES[part] for part in sorted(classes))
        reason = f"column {columns.split} has {there}, but no train"
        raise _bad(dataset, reason, "write train where it is to train on")
    for part in sorted(classes):
        if odd := sorted(set(classes[part]) - set(classes[TRAIN])):
            n = sum(classes[part][name] for name in odd)
            what = f"class {odd[0]} is" if len(odd) == 1 else f"classes {table.listed(odd)} are"
            reason = f"{what} in {PART_NAMES[part]} ({counted(n, 'image')}), but not in train"
            raise _bad(dataset, reason, "write train for some of its images, or leave them out")


def _alike(classes: Sequence[str]) -> list[str]:
    """A line where classes differ in upper and lower case only: they are read as they are written."""
    of_form: dict[str, list[str]] = {}
    for name in classes:
        of_form.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(names) for names in of_form.values() if len(names) > 1]
    return [f"classes that differ in upper and lower case only: {table.listed(alike)}"] if alike else []


def _classes_to_learn(rows: Sequence[Row]) -> list[tuple[int, str]]:
    return [(row.part, name) for row in rows if row.part == TRAIN for name in row.labels]


def _labels(listing: Listing, rows: Sequence[Row]) -> NDArray[np.int64] | NDArray[np.uint8]:
    number = {name: i for i, name in enumerate(listing.classes)}
    if not listing.multi_label:
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    labels = np.zeros((len(rows), len(listing.classes)), dtype=np.uint8)
    for i, row in enumerate(rows):
        labels[i, [number[name] for name in row.labels]] = 1
    return labels


def _bad(dataset: schema.Dataset, reason: str, remedy: str) -> BadInput:
    return bad(dataset.path, reason, remedy)
