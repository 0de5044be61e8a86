"""Which folders of a tree are parts and classes, or why that cannot be told, with what to do."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sweeper.training.dataset import PART_NAMES, TEST, TRAIN, VAL, part_named
from sweeper.training.tree import Folder, TooLargeError, walk
from sweeper.words import argument, composed, counted, expanded, near, some

AS_CLASSES, AS_PARTS = "dataset.layout=classes", "dataset.layout=parts"
MANY = 50_000
"""Files and folders above the path, among which is looked for what was meant."""
NO_COUNTER = 12
"""Names of files this long identify a picture; shorter ones may only number it."""
CLEARLY = 1.5
"""A folder with so many times the pictures of the next one is likely the part to train on."""

_WORDS = {
    TRAIN: "train training learn learning seen known fit",
    VAL: "val valid validation dev tune tuning",
    TEST: "test testing eval evaluation check unseen unknown new holdout private",
}
_MEANS = {word: part for part, words in _WORDS.items() for word in words.split()}
_BEGINNINGS = {"train": TRAIN, "valid": VAL, "test": TEST, "eval": TEST}
"""Of words such as trainset and testdata."""
_VARIANTS = (
    *("original", "originals", "raw", "rgb", "color", "colour", "colored", "coloured", "images", "image"),
    *("gray", "grey", "grayscale", "greyscale", "bw", "augmented", "aug", "resized", "cropped", "small"),
    *("large", "segmented", "segmentation", "segmentations", "mask", "masks", "edges", "depth", "thermal"),
)
_MASKS = frozenset(
    ("mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "label", "labels", "gt")
)
_IMAGES = frozenset(
    (
        *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures"),
        *("pics", "original", "originals", "raw", "rgb", "input", "inputs"),
    )
)
_MASKS_BESIDE = _MASKS | {"truth", "groundtruth", "trimaps", "seg"}
_PIECES = frozenset(
    (
        *("images", "imgs", "img", "photos", "pictures", "pics", "frames", "batch", "chunk", "shard"),
        *("download", "downloads", "fold", "archive", "zip"),
    )
)
"""What is in the names of folders that are pieces of one, each with its number."""
_DRIVES = re.compile(r"\d{8}T\d{6}Z-")
"""What Google Drive puts into the names of archives that it divides."""

Part = tuple[int, Folder]
"""A part of the data and the folder that holds the class folders of it."""


class RefusedError(Exception):
    """What was found is no dataset, or may be two different ones.

    Args:
        reason: what was found.
        remedy: what to do, which works.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy


class TooDeepError(RefusedError):
    """The path is one or two levels too deep."""


def recognise(top: Folder, layout: str = "auto") -> list[Part]:
    """The parts of a folder, train first; without parts, the folder itself counts as train.

    Args:
        layout: see ``schema.Dataset``.

    Raises:
        RefusedError: if the layout is ambiguous, or none of a dataset.
    """
    if not top.n_pictures:
        raise RefusedError(*_no_pictures(top))
    if layout == "classes":
        parts = [(TRAIN, top)]
    else:
        parts = _parts(top)
        if parts == [(TRAIN, top)]:
            _check_level(top)
    if layout == "parts" and parts == [(TRAIN, top)]:
        names = some(_names(top.filled))
        raise RefusedError(f"has no parts, but {names}", "name them train, val and test")
    for part, folder in parts:
        _check_classes(folder, part, is_part=folder is not top)
        if layout != "classes":
            _check_beside(folder, is_part=folder is not top)
        if folder is not top and layout == "auto":
            _check_inside(folder)
    _check_train_has_all(parts)
    return parts


def class_name(folder: Folder) -> str:
    """As it is shown and compared: composed letters, and what is no UTF-8 as Python writes it."""
    return printable(folder.name)


def printable(name: str) -> str:
    """See ``class_name``."""
    if name.isascii():
        return name
    return composed(os.fsencode(name).decode(errors="backslashreplace"))


def path_above(root: Path) -> str | None:
    """The folder above, of which this one is a class, alone or in a part; None where there is none."""
    here = root.absolute()
    up = [parent for parent in here.parents[:2] if parent not in (expanded("~"), Path(here.anchor))]
    steps = 2 if part_named(here.parent.name) is not None else 1
    for n in range(steps, 0, -1):
        if len(up) >= n and _holds_class(up[n - 1], here):
            return str(up[n - 1]) if root.is_absolute() else near(up[n - 1])
    return None


def parts_beside(root: Path) -> list[str]:
    """Where the folder is a part itself: the names of the parts that lie beside it."""
    here = root.absolute()
    mine = part_named(here.name)
    if mine is None:
        return []
    try:
        beside = sorted(entry.name for entry in os.scandir(here.parent) if entry.is_dir())
    except OSError:
        return []
    return [name for name in beside if part_named(name) not in (None, mine)]


# ---------------------------------------------------------------------------------------------- parts


def _parts(top: Folder) -> list[Part]:
    named = sorted(
        ((part, folder) for folder in top.folders if (part := part_named(folder.name)) is not None),
        key=lambda found: (found[0], found[1].name),
    )
    beside = [folder for folder in top.filled if part_named(folder.name) is None]
    found = {part for part, _ in named}
    # "train" beside "plane" and "car" is a class. Beside "val" or "test", or alone, it is a part.
    if not named or (beside and found == {TRAIN}):
        return [(TRAIN, top)]
    names = some(folder.name for _, folder in named)
    if beside:
        others = some(folder.name for folder in beside)
        largest = None if TRAIN in found else max(beside, key=lambda folder: folder.n_pictures)
        reason = f"holds the parts {names} and beside them {others}"
        if largest is not None and _has_parts(inner := _core(largest)):
            raise RefusedError(reason, f"{_write_path(inner)}, or {AS_CLASSES} if all are classes")
        renamed = (f"{f.name} to {'train' if f is largest else f'.{f.name}'}" for f in beside)
        remedy = f"rename {', '.join(renamed)}, or write {AS_CLASSES} if all are classes"
        raise RefusedError(reason, remedy)
    for part in found:
        same = [folder for number, folder in named if number == part]
        if len(same) > 1:
            reason = f"{some(folder.name for folder in same)} are both {PART_NAMES[part]}"
            name = same[1].name
            remedy = f"rename {name} to .{name} to leave it out, or write {AS_CLASSES} if all are classes"
            raise RefusedError(reason, remedy)
    if TRAIN not in found:
        first = named[0][1].name
        raise RefusedError(f"has {first}, but no train", "name the folder to train on 'train'")
    return named


def _check_train_has_all(parts: Sequence[Part]) -> None:
    in_train = {class_name(folder) for folder in parts[0][1].filled}
    folded = {name.casefold() for name in in_train}
    for _, part in parts[1:]:
        if not any(class_name(folder).casefold() in folded for folder in part.filled):
            there = some(_names(part.filled))
            reason = f"{part.name} has none of the classes of {parts[0][1].name}, but {there}"
            raise RefusedError(reason, _without_classes(part))
        for folder in part.filled:
            if (name := class_name(folder)) not in in_train:
                like = next((known for known in in_train if known.casefold() == name.casefold()), None)
                reason = f"{part.name} has the class {name}, which {parts[0][1].name} lacks"
                if like:
                    raise RefusedError(f"{reason}, but for {like}", f"rename {_moved(folder)} to {like}")
                raise RefusedError(
                    reason, f"add it to {parts[0][1].name}, or rename {_moved(folder)} to .{name}"
                )


# -------------------------------------------------------------------------------------------- classes


def _check_classes(folder: Folder, part: int, is_part: bool) -> None:
    where = _moved(folder) if is_part else str(folder.path)
    if not folder.n_pictures:
        raise RefusedError(*_no_pictures(folder))
    if not folder.filled and is_part and part != TRAIN:
        reason = f"{where} has no class folders, so nobody knows what its pictures show"
        raise RefusedError(reason, _without_classes(folder))
    if not folder.filled:
        kind = RefusedError if is_part else TooDeepError
        raise kind(
            f"{where} has no class folders",
            "write dataset.path=FOLDER with one folder of images per class, or a table with dataset=csv",
        )
    inner = folder.filled[0]
    if is_part and len(folder.filled) == 1 and not folder.pictures and inner.filled and not inner.pictures:
        reason = f"{where} holds one folder only, {inner.name}, and its class folders are in there"
        remedy = f"move them from {_moved(inner)} up into {_moved(folder)}, and remove {_moved(inner)}"
        raise RefusedError(reason, remedy)
    if part != TRAIN:
        return
    if len({class_name(one) for one in folder.folders}) < 2:
        reason = f"{where} has one class folder only ({inner.name})"
        raise (RefusedError if is_part else TooDeepError)(reason, "there must be at least 2")
    for empty in folder.folders:
        if not empty.n_pictures:
            raise RefusedError(*_no_pictures(empty))


def _check_beside(folder: Folder, is_part: bool) -> None:
    """Refuse class folders that hold the smaller part of the pictures: they may be something else."""
    n_beside = len(folder.pictures)
    n_inside = folder.n_pictures - n_beside
    if n_beside <= n_inside:
        return
    reason = (
        f"{counted(n_beside, 'picture')} lie beside the folders in {folder.name}, and {n_inside:,} in them"
    )
    remedy = "sort them into class folders, or move them out of it"
    if is_part:
        raise RefusedError(reason, remedy)
    raise TooDeepError(reason, f"{remedy}, or write {AS_CLASSES} to leave them out")


def _without_classes(part: Folder) -> str:
    return f"sort its pictures into class folders, or rename {_moved(part)} to .{part.name} to leave it out"


def _no_pictures(folder: Folder) -> tuple[str, str]:
    left_out = folder.all_left_out()
    ways = [reason.partition("; ")[2].rstrip(")") for reason, _ in left_out.most_common()]
    way = next(filter(None, ways), None)
    told = some(f"{n:,} {reason}" for reason, n in left_out.most_common())
    reason, fix = (
        "there are no image files in",
        "write dataset.path=FOLDER with one folder of images per class",
    )
    if folder.names:
        reason, fix = "there are no images in", f"fill that folder, remove it, or rename it to .{folder.name}"
    if way is not None:
        fix = way
    return f"{reason} {folder.path}{f', but {told}' if told else ''}", fix


# ---------------------------------------------------------------------------------- a level too high


def _check_level(top: Folder) -> None:
    """Refuse classes that may be something else, by what is in them."""
    filled = top.filled
    if len(filled) == 1:
        inner = _core(filled[0])
        if len(inner.filled) >= 2:
            recognise(inner)  # says what is wrong there
            reason = f"holds one folder of images only, {_moved(filled[0])}, and the classes are in there"
            raise RefusedError(reason, _write_path(inner))
    if len(filled) < 2:
        return
    cores = [_core(folder) for folder in filled]
    _check_names(filled, cores)
    _check_kinds(filled, cores, AS_CLASSES)
    _check_pieces(filled, AS_CLASSES)
    _check_neighbours(filled, cores)
    _check_parts_inside(filled, cores)
    repeated = _repeated(cores)
    if repeated:
        _refuse_repeated(filled, cores, repeated)


def _core(folder: Folder) -> Folder:
    """What a folder holds: of one that holds a single folder of images, that one's."""
    while len(folder.filled) == 1 and not folder.pictures:
        folder = folder.filled[0]
    return folder


def _above_classes(folder: Folder) -> Folder:
    """As ``_core``, but for a single folder of pictures alone, which is a class."""
    while len(folder.filled) == 1 and not folder.pictures and folder.filled[0].filled:
        folder = folder.filled[0]
    return folder


def _repeated(cores: Sequence[Folder]) -> dict[str, str]:
    """The folders that more than half of the others hold too, by their names without case."""
    names = [{inner.name.casefold(): inner.name for inner in core.filled} for core in cores]
    n = Counter(key for of_one in names for key in of_one)
    return {
        key: name
        for of_one in reversed(names)
        for key, name in of_one.items()
        if n[key] >= 2 and 2 * n[key] > len(cores)
    }


def _check_names(filled: Sequence[Folder], cores: Sequence[Folder]) -> None:
    """Refuse folders whose names have the words train and test in them."""
    meant = [_part_meant(folder.name) for folder in filled]
    known = [part for part in meant if part is not None]
    if TRAIN not in known or set(known) == {TRAIN}:
        return
    names = some(f.name for f, part in zip(filled, meant, strict=True) if part is not None)
    reason, otherwise = f"{names}: parts of other names?", f"or write {AS_CLASSES} if these are the classes"
    train = cores[meant.index(TRAIN)]
    if not train.filled:
        reason = f"{names} are no classes by their names, and {_moved(train)} has no class folders"
        raise RefusedError(reason, f"sort its pictures into class folders, {otherwise}")
    if len(set(known)) < len(known):
        raise RefusedError(reason, f"put what belongs together into train, val and test, {otherwise}")
    renamed = [
        f"{_moved(core)} to {PART_NAMES[part]}"
        if part is not None and core.filled
        else f"{_moved(folder)} to .{folder.name}"
        for folder, core, part in zip(filled, cores, meant, strict=True)
        if part is None or core is not folder or not core.filled or part_named(folder.name) != part
    ]
    raise RefusedError(reason, f"rename {', '.join(renamed)}, {otherwise}")


def _part_meant(name: str) -> int | None:
    found = {part for token in _tokens(name) if (part := part_named(token)) is not None}
    return found.pop() if len(found) == 1 else None


def _check_kinds(filled: Sequence[Folder], cores: Sequence[Folder], as_they_are: str) -> None:
    """Refuse images beside their masks, unless the images are a dataset of their own."""
    masks = [folder for folder in filled if _tokens(folder.name) & _MASKS_BESIDE]
    images = [
        (folder, core)
        for folder, core in zip(filled, cores, strict=True)
        if folder not in masks and _tokens(folder.name) & _IMAGES
    ]
    if not masks or not images or any(_works(core) for _, core in images):
        return
    names = some(map(_moved, [*(folder for folder, _ in images), *masks]))
    renamed = ", ".join(f"{_moved(folder)} to .{folder.name}" for folder in masks)
    remedy = f"sort those of {_moved(images[0][0])} into class folders and rename {renamed}"
    raise RefusedError(f"images and their masks, no classes? {names}", f"{remedy}, or write {as_they_are}")


def _check_pieces(filled: Sequence[Folder], as_they_are: str) -> None:
    """Refuse folders of one name and other numbers, as an archive in pieces leaves them."""
    names = {re.sub(r"\d+", "", folder.name.casefold()) for folder in filled}
    name = filled[0].name
    if len(filled) < 2 or len(names) > 1 or not (_tokens(name) & _PIECES or _DRIVES.search(name)):
        return
    reason = f"{some(map(_moved, filled))} differ by a number alone: pieces, not classes?"
    otherwise = f"write {as_they_are} if these are the classes"
    above = [_above_classes(folder) for folder in filled]
    if len({class_name(inner) for folder in above for inner in folder.filled}) > 1:
        first, others = _moved(above[0]), ", ".join(map(_moved, above[1:]))
        raise RefusedError(reason, f"move what is in {others} into {first}, or {otherwise}")
    remedy = "sort their pictures into class folders, or write a table of them with dataset=csv"
    raise RefusedError(reason, f"{remedy}, or {otherwise}")


def _check_neighbours(filled: Sequence[Folder], cores: Sequence[Folder]) -> None:
    """Refuse a folder that holds what lies beside it once more."""
    for folder, core in zip(filled, cores, strict=True):
        inside = {inner.name.casefold() for inner in core.filled}
        twice = [one.name for one in filled if one is not folder and one.name.casefold() in inside]
        if len(twice) >= 2:
            reason = f"{some(twice)} are in {_moved(core)}, and beside {folder.name} too"
            raise RefusedError(reason, f"rename {folder.name} to .{folder.name} to leave it out")


def _check_inside(part: Folder) -> None:
    """Refuse folders that repeat in the classes of a part."""
    filled = part.filled
    cores = [_core(folder) for folder in filled]
    _check_kinds(filled, cores, AS_PARTS)
    _check_pieces(filled, AS_PARTS)
    if not (repeated := list(_repeated(cores).values())):
        return
    reason = f"{some(repeated)} {_is(repeated)} in {some(_names(filled))} of {part.name}"
    otherwise = f"or write {AS_PARTS} to read all"
    hidden = _masks(repeated) or (repeated if any(core.pictures for core in cores) else [])
    if hidden:
        told = f"rename each {hidden[0]} to .{hidden[0]} to leave it out, {otherwise}"
        raise RefusedError(f"{reason}, beside other images", told)
    inner = next(folder for core in cores for folder in core.filled if folder.name in repeated)
    moved = f"rename {_moved(inner)} to {_moved(part)}/{inner.name}, and so on"
    otherwise = f"or write {AS_PARTS} if {some(_names(filled))} are"
    raise RefusedError(f"{reason}: no classes?", f"{moved} if these are the classes, {otherwise}")


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _check_parts_inside(filled: Sequence[Folder], cores: Sequence[Folder]) -> None:
    for folder, core in zip(filled, cores, strict=True):
        named = sorted(core.filled, key=lambda inner: part_named(inner.name) or TRAIN)
        parts = {part: inner for inner in named if (part := part_named(inner.name)) is not None}
        if TRAIN not in parts or not {VAL, TEST} & set(parts):
            continue
        if any(inner.filled for inner in parts.values()):
            recognise(core)  # says what is wrong there
            others = f"and {some(f.name for f in filled if f is not folder)} lie beside it"
            reason = f"{_moved(core)} has the parts {some(_names(parts.values()))}, {others}"
            raise RefusedError(reason, f"{_write_path(core)}, or {AS_CLASSES} if all are classes")
        train = parts[TRAIN]
        reason = f"the parts {some(_names(parts.values()))} are in the class {folder.name}, not above it"
        move = f"rename {_moved(train)} to {train.name}/{folder.name}, and so on"
        raise RefusedError(reason, f"{move}, or write {AS_CLASSES} to split anew")


def _refuse_repeated(filled: Sequence[Folder], cores: Sequence[Folder], repeated: dict[str, str]) -> None:
    having = [i for i, core in enumerate(cores) if any(f.name.casefold() in repeated for f in core.filled)]
    n_all, names = len(filled), list(repeated.values())
    filled, cores = [filled[i] for i in having], [cores[i] for i in having]
    reason = f"{some(names)} {_is(names)} in {some(_names(filled))}"
    if len(names) == 1 or any(core.pictures for core in cores) or _masks(names):
        hide = (_masks(names) or names)[0]
        remedy = f"rename each {hide} to .{hide} to leave it out, or write {AS_CLASSES} to read all"
        raise RefusedError(f"{reason}, beside other images", remedy)
    otherwise = f", or {AS_CLASSES} if these are the classes"
    if n_all == len(filled) and not _are_variants(cores) and (new_names := _as_parts(filled, cores)):
        renamed = some(f"{folder.name} to {name}" for folder, name in new_names)
        raise RefusedError(f"{reason}: parts of other names?", f"rename {renamed}{otherwise}")
    for _, core in sorted(zip(filled, cores, strict=True), key=lambda pair: _likeness(pair[0].name)):
        if _works(core) and (_are_variants(cores) or any(map(_is_variant, _names(cores)))):
            told = f"{reason}: each is a dataset of its own?"
            raise RefusedError(told, f"{_write_path(core)}{otherwise}")
        if _works(core):
            told = f"{reason}: no classes?"
            path = _write_path(core).removeprefix("write ")
            raise RefusedError(told, f"write {AS_CLASSES} if these are the classes, or {path}")
    inner = next((found for core in cores for found in core.below() if _works(found)), None)
    fix = f"{_write_path(inner)}, or {AS_CLASSES}" if inner else f"write {AS_CLASSES}"
    raise RefusedError(f"{reason}: no classes?", f"{fix} if these are the classes")


def _masks(names: Iterable[str]) -> list[str]:
    return [name for name in names if _tokens(name) & _MASKS]


def _are_variants(cores: Sequence[Folder]) -> bool:
    """Whether they hold the same pictures in other versions, by the names of their files."""
    stems = [
        {
            (*(name.casefold() for name in folder.names[len(core.names) :]), _stem(file))
            for folder in core.below()
            for file in folder.pictures
            if len(_stem(file)) >= NO_COUNTER
        }
        for core in cores
    ]
    if all(map(_is_variant, _names(cores))):
        return True
    if any(_tokens(core.name) & set(_MEANS) for core in cores):
        return False
    return 2 * len(stems[0] & stems[1]) > max(map(len, stems[:2])) > 0


def _stem(file: str) -> str:
    """A file's name without its suffix, and without what one version adds to it."""
    stem = file.rpartition(".")[0].casefold()
    return "_".join(token for token in re.split(r"[\W_]+", stem) if token not in _VARIANTS)


def _as_parts(filled: Sequence[Folder], cores: Sequence[Folder]) -> list[tuple[Folder, str]]:
    """Two or three folders with the part that each is by its name, or by how many pictures it has.

    None where neither tells: nobody is advised to train on what may be the test.
    """
    if not 2 <= len(filled) <= 3:
        return []
    means = [_parts_meant(folder.name) for folder in filled]
    parts = [next(iter(found)) if len(found) == 1 else None for found in means]
    free = [part for part in (TRAIN, TEST, VAL)[: len(filled)] if part not in parts]
    by_size = sorted(range(len(filled)), key=lambda i: (-filled[i].n_pictures, filled[i].name))
    largest, next_one = (filled[i].n_pictures for i in by_size[:2])
    if not any(means) and largest < CLEARLY * next_one:
        return []
    for i in by_size:
        if parts[i] is None:
            parts[i] = free.pop(0) if free else None
    known = [part for part in parts if part is not None]
    if len(set(known)) < len(filled) or TRAIN not in known:
        return []
    if any(core is not folder for core, folder in zip(cores, filled, strict=True)):
        return []
    in_train = {class_name(inner) for inner in filled[parts.index(TRAIN)].filled}
    if any(class_name(inner) not in in_train for folder in filled for inner in folder.filled):
        return []
    order = sorted(zip(known, filled, strict=True), key=lambda found: (found[0], found[1].name))
    return [(folder, PART_NAMES[part]) for part, folder in order]


def _parts_meant(name: str) -> set[int]:
    tokens = _tokens(name)
    begun = {part for word, part in _BEGINNINGS.items() if any(token.startswith(word) for token in tokens)}
    return begun | {_MEANS[token] for token in tokens if token in _MEANS}


def _works(folder: Folder) -> bool:
    try:
        recognise(folder)
    except RefusedError:
        return False
    return True


def _has_parts(folder: Folder) -> bool:
    try:
        return recognise(folder) != [(TRAIN, folder)]
    except RefusedError:
        return False


def _is_variant(name: str) -> bool:
    return bool(_tokens(name) & set(_VARIANTS))


def _likeness(name: str) -> tuple[int, str]:
    """The plainest version first."""
    found = [_VARIANTS.index(token) for token in _tokens(name) if token in _VARIANTS]
    return (max(found, default=len(_VARIANTS)), name)


def _tokens(name: str) -> set[str]:
    """The words in a name: of seg_train and Train-2 train is one."""
    return set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))


# ---------------------------------------------------------------------------------------- a level too deep


def _holds_class(above: Path, folder: Path) -> bool:
    """Whether the folder above is read well, with this one as a class folder."""
    try:
        top = walk(above, most=MANY, look_inside=False).top
        parts = recognise(top)
    except (RefusedError, TooLargeError, OSError):
        return False
    return any(one.path == folder for _, part in parts for one in part.filled)


# --------------------------------------------------------------------------------------------- wording


def _names(folders: Iterable[Folder]) -> list[str]:
    return [folder.name for folder in folders]


def _moved(folder: Folder) -> str:
    """A folder as seen from the path."""
    return "/".join(folder.names) or str(folder.path)


def _write_path(folder: Folder) -> str:
    return f"write {argument('dataset.path', str(folder.path))}"
