"""Which column of a table says what: found by its name, or given by a key; never by chance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sweeper import schema
from sweeper.errors import BadInput, nearest
from sweeper.training.dataset import TEST, TRAIN, VAL, part_named
from sweeper.training.readers.table import PICTURE, Table, bad, listed
from sweeper.words import argument, composed, counted


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PATHS = (
    _words("path"),
    _words(
        """filepath imagepath imgpath picturepath relativepath relpath fullpath abspath
        file filename fname imagefile imagefilename imgfile imgfilename imagefilepath
        image images img imgs imagename imgname picture pictures photo
        paths filepaths filenames imagepaths imagenames"""
    ),
    _words("imageid imgid imageindex idcode id name pictureid photoid"),
)
"""How columns of files are called, the surest first. An ``image`` beside an ``id`` is the file."""
LABELS = (
    _words("label"),
    _words(
        """labels class classes classname classlabel classid target targets category categories categoryid
        categoryname labelname labelid species breed diagnosis dx tag tags findinglabels
        disease variety genre genres groundtruth"""
    ),
)
SPLITS = (
    _words("split"),
    _words("set part subset partition dataset datasplit datasetsplit splitname usage phase datasettype"),
)
FLAGS = {"isvalid": VAL, "isval": VAL, "isvalidation": VAL, "istest": TEST}
"""Columns of yes and no, and the part that yes means; no is train."""
NO_LABELS = _words("foldid cvfold kfold istrain width height index")
"""What columns beside the labels are called that hold no labels, though they may hold 0 and 1."""
FOLDS = _words("fold folds kfold cv")
"""Words in the names of columns that say to which fold an image belongs."""
YES, NO = _words("1 1.0 true"), _words("0 0.0 false")
MISSING = frozenset({"", "nan", "NaN", "NAN", "<NA>", "NA", "N/A", "#N/A", "null", "NULL"})
"""What pandas, R and spreadsheets write where there is nothing."""
SEPARATORS, SURE_SEPARATORS = "|;, ", "|;"
PLURALS = _words("tags labels classes categories targets genres findings findinglabels")
N_PARTS = 3


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    Args:
        labels: one; or several of 0 and 1.
        one_hot: whether each row has its one 1 in one of ``labels``, which is its only label.
    """

    path: str
    labels: tuple[str, ...]
    split: str | None = None
    group: str | None = None
    one_hot: bool = False
    remarks: tuple[str, ...] = ()


def find(table: Table, dataset: schema.Dataset) -> Columns:
    """The columns that the table's names and ``dataset``'s keys tell.

    Raises:
        BadInput: listing the columns, where there is none or more than one that it could be.
    """
    path = _path(table, dataset)
    group = _alike(table, dataset.group)
    split = _split(table, dataset, (path, group))
    beside = [name for name in table.columns if name not in (path, split, group)]
    labels = _labels(table, dataset, path, beside)
    for name in (path, *labels):
        if name in table.kinds:
            reason = f"column {name} holds {table.kinds[name]}, not text"
            raise bad(dataset.path, reason, "write a path, and one label or text, for each image")
    one_hot = len(labels) > 1 and _one_hot(table, labels)
    remarks = []
    if unused := [name for name in beside if name not in labels]:
        what = "column is" if len(unused) == 1 else "columns are"
        read = f"the label is {labels[0]}" if len(labels) == 1 else f"the labels are {listed(labels)}"
        remarks.append(f"{len(unused):,} {what} not used, as {read}: {listed(unused)}")
    if one_hot:
        what = f"each row has exactly one 1 in the columns {listed(labels)}"
        remarks.append(f"{what}: read as one label for each image, of {len(labels)} classes")
    return Columns(path, labels, split, group, one_hot, tuple(remarks))


def may_be_path(name: str, dataset: schema.Dataset) -> bool:
    """Whether a column called so may be that of the files."""
    given = (dataset.path_column or "").casefold()
    return name.casefold() == given or any(_plain(name) in names for names in PATHS)


def is_yes(value: str) -> bool:
    """Whether it says that there is a label, where 0 says that there is none."""
    return value.casefold() in YES


def several(value: str, separator: str) -> tuple[str, ...]:
    """The labels in one value, each once."""
    found = value.split() if separator.isspace() else [part.strip() for part in value.split(separator)]
    return tuple(dict.fromkeys(part for part in found if part))


# -------------------------------------------------------------------------------------- the single columns


def _path(table: Table, dataset: schema.Dataset) -> str:
    if dataset.path_column is not None:
        return _given(table, "path_column", dataset.path_column)
    given = [_alike(table, key) for key in (dataset.label_column, dataset.split_column)]
    found = _named([name for name in table.columns if name not in given], PATHS)
    if len(found) != 1:
        what = f"is it {_either(found)}?" if found else "none is called path, image, file or the like"
        likely = found or [name for name in table.columns if _names_pictures(table.values(name))]
        remedy = f"write {argument('dataset.path_column', likely[0] if likely else 'COLUMN')}"
        if table.row == "line" and not found:
            remedy += ", or a header with path and label"
        raise bad(dataset.path, f"which column is the files'? {_there(table)}: {what}", remedy)
    return found[0]


def _names_pictures(values: Sequence[str]) -> bool:
    return bool(values) and all(map(PICTURE.fullmatch, values))


def _split(table: Table, dataset: schema.Dataset, taken: Sequence[str | None]) -> str | None:
    if dataset.split_column is not None:
        return _given(table, "split_column", dataset.split_column)
    left = [name for name in table.columns if name not in (*taken, dataset.label_column)]
    found = _named(left, SPLITS[:1])
    found = found or [name for name in _named(left, SPLITS[1:]) if _is_split(table.values(name))]
    if not any(_plain(name) == "split" for name in found):
        found += [name for name in left if _plain(name) in FLAGS and _is_flag(table.values(name))]
    if len(found) > 1:
        reason = f"which column is the split? {_there(table)}: is it {_either(found)}?"
        raise bad(dataset.path, reason, f"write {argument('dataset.split_column', found[0])}")
    return found[0] if found else None


def part_of(column: str, value: str) -> int | None:
    """The part that a value of the split's column names; None if it is none."""
    flag = FLAGS.get(_plain(column))
    if flag is not None and value.casefold() in YES | NO:
        return flag if is_yes(value) else TRAIN
    return part_named(value)


def _is_no_label(name: str) -> bool:
    words = re.findall(r"[a-z]+", name.casefold())
    return _plain(name) in (*NO_LABELS, *FLAGS) or not FOLDS.isdisjoint(words)


def _is_split(values: Sequence[str]) -> bool:
    """Whether a column that may be the split is meant so: it names a part, or numbers them."""
    found = set(values)
    return any(part_named(value) is not None for value in found) or all(
        re.fullmatch(r"\d+(\.0)?|", value) for value in found
    )


def _is_flag(values: Sequence[str]) -> bool:
    return {value.casefold() for value in values} <= YES | NO


def _given(table: Table, key: str, column: str | None) -> str:
    """The column that a key names, in any case if no other is written so."""
    if (found := _alike(table, column)) is not None:
        return found
    near = nearest(str(column), table.columns)
    remedy = f"did you mean {near}? " if near else ""
    remedy += f"the table has {listed(table.columns)}"
    raise BadInput(f"dataset.{key}", column, "there is no such column", remedy)


def _alike(table: Table, column: str | None) -> str | None:
    """The column that is called so, in any case if no other is written so."""
    wanted = composed(column or "").strip()
    alike = [name for name in table.columns if name.casefold() == wanted.casefold()]
    exact = [name for name in alike if name == wanted]
    return next(iter(exact), alike[0] if len(alike) == 1 else None)


def _named(columns: Sequence[str], names: Sequence[frozenset[str]]) -> list[str]:
    """The columns of the surest names that are there; one that is written exactly so before all others."""
    for alike in names:
        found = [column for column in columns if _plain(column) in alike]
        exact = [column for column in found if len(alike) == 1 and column in alike]
        if found:
            return exact or found
    return []


def _plain(name: str) -> str:
    """In any case, and however its words are joined."""
    return re.sub(r"[\s_\-.]+", "", name).casefold()


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _there(table: Table) -> str:
    return f"{'line 1 has' if table.row == 'line' else 'there are'} {listed(table.columns)}"


# --------------------------------------------------------------------------------------------- the labels


def _labels(table: Table, dataset: schema.Dataset, path: str, beside: Sequence[str]) -> tuple[str, ...]:
    if dataset.label_column is not None:
        return (_given(table, "label_column", dataset.label_column),)
    left = [name for name in beside if not _is_no_label(name)]
    named = _named(left, LABELS)
    if len(named) > 1:
        raise _which(table, dataset, f"is it {_either(named)}?", named[0])
    if named:
        flags = [name for name in left if _is_flag(table.values(name))]
        others = [name for name in flags if name != named[0]]
        if others and named[0] in flags and _plain(named[0]) != "label":
            raise _which(table, dataset, f"{named[0]}, {others[0]} hold 0 and 1", named[0])
        return (named[0],)
    if len(left) == 1:
        if _is_measure(table.values(left[0])):
            raise _which(table, dataset, f"{left[0]} holds numbers or times", left[0])
        return (left[0],)
    if not left:
        reason = "has no column for labels" if table.row == "row" else "line 1 has no column for labels"
        remedy = "write a header with path and label"
        if others := [name for name in table.columns if name != path]:
            remedy += f", or {argument('dataset.label_column', others[0])}"
        raise bad(dataset.path, reason, remedy)
    return _flags(table, dataset, left)


def _flags(table: Table, dataset: schema.Dataset, left: Sequence[str]) -> tuple[str, ...]:
    """Of the columns whose names say nothing, those of 0 and 1.

    A column without any 0 or 1 is none of them. One with some is refused if there are others like it: it may
    be one with a fault.
    """
    says = {name: [value.casefold() in YES | NO for value in table.values(name)] for name in left}
    partly = [name for name in left if any(says[name])]
    if len(partly) > 1:
        for name in partly:
            if not all(says[name]):
                i = says[name].index(False)
                reason = f"{table.place(i, name)}: '{table.values(name)[i]}' is neither 0 nor 1"
                remedy = (
                    "where several columns are labels, write 0 or 1 or remove this one; where one is, write"
                )
                raise bad(dataset.path, reason, f"{remedy} dataset.label_column=COLUMN")
        return tuple(partly)
    signs = [name for name in left if set(table.values(name)) <= {"-1", "1"}]
    negative = [name for name in signs if "-1" in table.values(name)]
    if len(signs) > 1 and negative:
        i = table.values(negative[0]).index("-1")
        reason = f"{table.place(i, negative[0])}: '-1' is neither 0 nor 1"
        raise bad(dataset.path, reason, "write 0 for -1 in the columns of labels")
    raise _which(table, dataset, "none is called label", "COLUMN")


def _one_hot(table: Table, labels: Sequence[str]) -> bool:
    at = [table.columns.index(name) for name in labels]
    return all(sum(is_yes(values[i]) for i in at) == 1 for values in table.rows)


_DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d\d?[./]\d\d?[./]\d{2,4}.*")
_FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*(e[+-]?\d+)?", re.IGNORECASE)


def _is_measure(values: Sequence[str]) -> bool:
    """Whether a column of no telling name holds what no class is called: fractions, dates."""
    found = set(values) - MISSING
    return any(_FRACTION.fullmatch(value) or _DATE.fullmatch(value) for value in found)


def _which(table: Table, dataset: schema.Dataset, why: str, column: str) -> BadInput:
    reason = f"which column is the label? {_there(table)}: {why}"
    return bad(dataset.path, reason, f"write {argument('dataset.label_column', column)}")


@dataclass(frozen=True)
class Joined:
    """What seems to stand between several labels in one column, and the values that hold it."""

    separator: str
    values: list[str]
    is_sure: bool


def joined(column: str, values: Sequence[str]) -> Joined | None:
    """What the values of a column seem to be joined by.

    No class is called ``a|b``, or ``16 0``. Words and commas stand in names, too: sure is what a column says
    that is called by a plural; likely are labels that occur elsewhere, one of them alone, or all with others.
    """
    is_plural = _plain(column) in PLURALS
    for separator in SEPARATORS:
        parts = {value: several(value, separator) for value in values}
        n_values = Counter(part for found in parts.values() for part in found)
        held = [value for value, found in parts.items() if len(found) > 1]
        of_held = [part for value in held for part in parts[value]]
        is_sure = is_plural or separator in SURE_SEPARATORS or all(part.isdigit() for part in of_held)
        is_likely = any(part in parts for part in of_held) or (
            len(held) > 1 and all(n_values[part] > 1 for part in of_held)
        )
        if held and (is_sure or is_likely):
            return Joined(separator, held, is_sure)
    return None


def remark_joined(dataset: schema.Dataset, column: str, values: Sequence[str]) -> str | None:
    """A line where one column seems to hold several labels, which are read as one.

    Raises:
        BadInput: if it surely does, and one of the values has too few images for all parts.
    """
    n_images = Counter(values)
    if (found := joined(column, list(n_images))) is None:
        return None
    held = found.values
    write = f"write {argument('dataset.label_separator', found.separator)}"
    what = f"column {column}: {counted(len(held), 'value')} {'hold' if len(held) > 1 else 'holds'}"
    what = f"{what} '{found.separator}', such as '{held[0]}'"
    if found.is_sure and min(n_images[value] for value in held) < N_PARTS:
        raise bad(dataset.path, f"{what}: are these several labels?", f"{write}; or rename them, if not")
    return f"{what}: each is read as one label; for several {write}"
