"""A table as it comes: its columns and rows as text, whatever it is written in.

The kind of a file is known by its first bytes, never by its name.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.errors import BadInput
from sweeper.words import composed, counted

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", " ": "spaces"}
"""Spaces only count where the header has none of the others: they stand in names, too."""
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GZIP, PARQUET, ZIP, OLE = b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
INDEX = re.compile(r"Unnamed: \d+(\.\d+)*|__index_level_\d+__")
"""How pandas calls a column of row numbers that it has read; when it wrote them, the first has no name."""
N_NAMED = 8
PICTURE = re.compile(r".*\.(jpe?g|png|bmp|gif|webp|tiff?|ppm|pgm|dcm)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Columns and rows as text, without those that hold nothing or row numbers.

    ``row`` is how rows are told, ``line`` or ``row``; ``numbers`` are theirs in the file.
    ``kinds`` names the type of columns whose values are no text or number.
    """

    columns: tuple[str, ...]
    numbers: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    row: str = "line"
    kinds: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def values(self, column: str) -> list[str]:
        at = self.columns.index(column)
        return [values[at] for values in self.rows]

    def place(self, i: int, column: str) -> str:
        """``line 3, column label``."""
        return f"{self.row} {self.numbers[i]}, column {column}"


def read(file: Path, shown: str, is_path: Callable[[str], bool]) -> Table:
    """The table in a file of text, or in Parquet; each may be packed with gzip.

    Args:
        shown: the path as the person wrote it.
        is_path: whether a column may be that of the files, which tells what separates the columns.

    Raises:
        BadInput: on ``dataset.path``, naming line and reason.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise bad(shown, f"cannot be read: {error.strerror}", "make it readable") from error
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise bad(shown, f"cannot be unpacked: {error}", "write or download it again") from error
    if content.startswith((ZIP, OLE)):
        what = "a zip archive or a spreadsheet" if content.startswith(ZIP) else "a spreadsheet"
        raise bad(shown, f"is {what}, not text", "save it as a csv file in UTF-8")
    if content.startswith(PARQUET):
        return _checked(_from_parquet(content, shown), shown)
    return _checked(_from_text(_text(content, shown), shown, is_path), shown)


def bad(shown: str | None, reason: str, remedy: str) -> BadInput:
    # A quoted value may hold line breaks; an error is one line.
    return BadInput("dataset.path", shown, " ".join(reason.split()), remedy)


def listed(names: Sequence[str]) -> str:
    """``a, b, c``; of many the first, and their number."""
    if len(names) <= N_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:N_NAMED])}, … ({len(names)})"


# -------------------------------------------------------------------------------------------------- text


def _text(content: bytes, shown: str) -> str:
    bom, encoding = next(
        ((bom, encoding) for bom, encoding in BOMS.items() if content.startswith(bom)), (b"", "utf-8")
    )
    content = content if encoding in ("utf-16", "utf-32") else content.removeprefix(bom)
    name = encoding.upper()
    remedy = "save it as a csv file in UTF-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(content[: error.start].splitlines()) or 1
        if error.start and content[error.start - 1 : error.start] in (b"\n", b"\r"):
            line += 1
        if not bom:  # which of the many encodings of one byte a letter it is, no file says
            remedy += ", for example by: iconv -f CP1252 -t UTF-8 OLD > NEW"
        raise bad(shown, f"line {line} is not {name}", remedy) from error
    if not bom and "\0" in text:
        raise bad(shown, f"line {text[: text.index(chr(0))].count(chr(10)) + 1} is not text", remedy)
    return text


@dataclass(frozen=True)
class _Reading:
    """A text as read with one delimiter; ``fault`` is the first row that does not fit, and the remedy."""

    delimiter: str
    header: list[str]
    numbers: list[int]
    rows: list[list[str]]
    fault: tuple[str, str] | None


def _from_text(text: str, shown: str, is_path: Callable[[str], bool]) -> Table:
    if told := re.match(r"sep=(.)\r?\n", text):  # by Excel, for Excel
        read_by = [_read_by(told[1], "\n" + text[told.end() :])]
    else:
        read_by = [_read_by(delimiter, text) for delimiter in DELIMITERS]
    if text.lstrip().startswith(("{", "[{")):
        raise bad(shown, "is JSON, not a table", "save it as a csv file with columns path and label")
    reading = _sure(read_by, shown, is_path)
    if not reading.header:
        remedy = "write a header with path and label, and a row for each image"
        raise bad(shown, reading.fault[0] if reading.fault else "is empty", remedy)
    if reading.fault:
        raise bad(shown, *reading.fault)
    return Table(tuple(reading.header), tuple(reading.numbers), tuple(map(tuple, reading.rows)))


def _sure(readings: list[_Reading], shown: str, is_path: Callable[[str], bool]) -> _Reading:
    """The one reading that header and rows allow.

    Raises:
        BadInput: if they allow several.
    """
    left = [reading for reading in readings if len(reading.header) > 1]
    left = [reading for reading in left if reading.delimiter != " "] or left
    left = [reading for reading in left if any(map(is_path, reading.header))] or left
    left = [reading for reading in left if reading.fault is None] or left
    if len(left) > 1:
        reason = " or ".join(f"{DELIMITERS[r.delimiter]} ({' | '.join(r.header)})" for r in left)
        remedy = "write it with one of them, values that hold it in quotes"
        raise bad(shown, f"line 1 may be separated by {reason}", remedy)
    return left[0] if left else readings[0]


def _read_by(delimiter: str, text: str) -> _Reading:
    header: list[str] = []
    numbers, rows, fault = list[int](), list[list[str]](), None
    for number, values in _records(delimiter, text):
        if isinstance(values, str):
            fault = (f"line {number}: {values}", "write it as a csv file")
        elif not header:
            header = [composed(name) for name in values]
            if len(header) < 2 and delimiter != ",":
                break  # it separates nothing
        else:
            numbers.append(number)
            rows.append(values)
    width = _width(header)
    if not any(any(values[width:]) for values in rows):  # a delimiter at the end of each line
        header, rows = header[:width], [values[:width] for values in rows]
    if rows and all(len(values) == width + 1 for values in rows) and _counts(v[0] for v in rows):
        header = ["", *header]  # R's write.table gives row numbers no name, nor a place for one
    for number, values in zip(numbers, rows, strict=True):
        if fault is None and len(values) != len(header):
            wanted = counted(len(header), "value")
            reason = f"line {number} must have {wanted}, as the header has, but has {len(values)}"
            by = DELIMITERS.get(delimiter, delimiter)
            is_short = len(values) < len(header)
            fault = (
                reason,
                f"separate its values by {by}" if is_short else f"put values with {by} in quotes",
            )
    return _Reading(delimiter, header, numbers, rows, fault)


def _width(header: Sequence[str]) -> int:
    """The number of columns up to the last with a name."""
    return max((i + 1 for i, name in enumerate(header) if name), default=0)


def _records(delimiter: str, text: str) -> Iterator[tuple[int, list[str] | str]]:
    """The number of each line that holds something, and its values, or why it has none.

    Quoted values may span lines. Lines end as on any system.
    """
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    line = 1
    try:
        for values in lines:
            values = [value.strip() for value in values]
            if delimiter == " ":
                values = values[:-1] if values and not values[-1] else values
            if any(values):
                yield line, values
            line = lines.line_num + 1
    except csv.Error as error:
        yield line, str(error)


# ----------------------------------------------------------------------------------------------- Parquet


def _from_parquet(content: bytes, shown: str) -> Table:
    columns = _columns(content, shown)
    kinds = {}
    for name, values in columns.items():
        odd = {type(v).__name__ for v in values if isinstance(v, bytes | dict | list | tuple | set)}
        if odd:
            kinds[name] = " and ".join(sorted(odd))
    texts = [_texts(values) for values in columns.values()]
    rows = tuple(zip(*texts, strict=True))
    names = tuple(composed(name.strip()) for name in columns)
    return Table(names, tuple(range(1, len(rows) + 1)), rows, "row", kinds)


def _columns(content: bytes, shown: str) -> dict[str, list[Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        return _columns_of_pandas(content, shown)
    try:
        table: Any = parquet.read_table(io.BytesIO(content))
    except (ArrowException, OSError, ValueError) as error:
        raise _damaged(shown, error) from error
    names = list(table.column_names)
    if len(set(names)) < len(names):
        raise bad(shown, f"has a column twice: {listed(names)}", "give each column its own name")
    return {name: table.column(i).to_pylist() for i, name in enumerate(names)}


def _columns_of_pandas(content: bytes, shown: str) -> dict[str, list[Any]]:
    remedy = "write: python -m pip install pyarrow"
    try:
        import pandas
    except ImportError as error:
        raise bad(shown, "is Parquet, which needs pyarrow or pandas", remedy) from error
    try:
        frame = pandas.read_parquet(io.BytesIO(content))
    except ImportError as error:
        raise bad(shown, "is Parquet, which pandas cannot read alone", remedy) from error
    except Exception as error:  # each of its engines raises its own
        raise _damaged(shown, error) from error
    return {str(name): frame[name].tolist() for name in frame.columns}


def _damaged(shown: str, error: Exception) -> BadInput:
    return bad(shown, f"cannot be read as Parquet: {error}", "write or download it again")


def _texts(values: Sequence[Any]) -> list[str]:
    """Of one column: nothing where there is nothing, whole numbers without a point."""
    there = [value for value in values if not _is_missing(value)]
    # Whole numbers with gaps are floats in pandas.
    whole = all(isinstance(value, float) and value.is_integer() for value in there)
    return ["" if _is_missing(v) else str(int(v) if whole else v).strip() for v in values]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("<NA>", "NaT")


# ------------------------------------------------------------------------------------------- its columns


def _checked(table: Table, shown: str) -> Table:
    """With a name for each column, each once; row numbers are no column."""
    if table.row == "line" and any(PICTURE.fullmatch(name) for name in table.columns):
        reason = f"line 1 is no header, but {listed(table.columns)}"
        raise bad(shown, reason, "write the names of the columns above it, such as path,label")
    numbers = [
        i
        for i, name in enumerate(table.columns)
        if (INDEX.fullmatch(name) or (not name and i == 0)) and _counts(values[i] for values in table.rows)
    ]
    dropped = [table.columns[i] or "without a name" for i in numbers]
    columns = [name for i, name in enumerate(table.columns) if i not in numbers]
    for name in columns:
        if not name or columns.count(name) > 1:
            line = "line 1 has" if table.row == "line" else "has"
            reason = f"{line} column {name} twice" if name else f"{line} a column without a name"
            raise bad(shown, reason, "give each column its own name")
    if not numbers:
        return table
    rows = tuple(tuple(v for i, v in enumerate(values) if i not in numbers) for values in table.rows)
    remark = f"column {listed(dropped)} holds row numbers: not used"
    return Table(tuple(columns), table.numbers, rows, table.row, table.kinds, (remark,))


def _counts(values: Iterator[str]) -> bool:
    """Whether it numbers rows: a table that was divided or shuffled keeps the numbers that it had."""
    found = list(values)
    return all(v.isascii() and v.isdigit() for v in found) and len(set(found)) == len(found) > 0
