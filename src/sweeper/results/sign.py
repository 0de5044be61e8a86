"""What a curve or a study says: a sign, its evidence in numbers, advice, and the next command."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.text import Text

from sweeper import filesystem
from sweeper.fault import Fault
from sweeper.screen import Screen
from sweeper.words import counted, near, sentence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sign:
    """What is shown of one sign; whoever shows it only formats it."""

    sign: str
    evidence: str
    """One sentence with the numbers."""
    advice: str
    command: str | None
    """What to type next; it runs as it stands. None where no command can help."""


@dataclass(frozen=True)
class Finding:
    """What a rule found: the evidence, and what it says for this case."""

    evidence: str
    advice: str
    changes: tuple[str, ...] = ()
    """Overrides of the next command, as they are typed in a shell; none where no command can help."""
    command: str | None = None
    """The next command, where it is another one than the run's with these changes."""
    about: str = ""
    """What stands in the sign's name for the … of its rule."""
    others: tuple[Finding, ...] = ()
    """What the rule found besides; each is a sign of its own."""

    @classmethod
    def of_several(cls, findings: Sequence[Finding]) -> Finding:
        """One that brings the others with it."""
        return replace(findings[0], others=tuple(findings[1:]))


Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Rule(Generic[Seen]):
    """A row of the table of signs."""

    sign: str
    meaning: str
    """What the sign means, in a sentence or two, for people who never trained a network."""
    advice: str
    """What is advised in general."""
    source: str
    """Where the guides, or who else, tell people to watch for it."""
    read: Callable[[Seen], Finding | None]
    """A pure function of a ``RunRecord`` or a ``StudyRecord``."""
    example: str = ""
    """Of evidence, for the page that explains the signs."""


def found(rules: Iterable[Rule[Seen]], seen: Seen) -> Iterator[tuple[Rule[Seen], Finding]]:
    """What the rules find. One that breaks down is logged: nothing is lost by it but its sign."""
    for rule in rules:
        try:
            finding = rule.read(seen)
        except Exception as error:
            log.warning("the sign %s could not be read: %r", rule.sign, error)
            log.debug("", exc_info=True)
            continue
        if finding is not None:
            yield from ((rule, one) for one in (finding, *finding.others))


MOST_SHOWN = 3
"""Signs in a terminal; the rest is counted."""

AT_ONCE = ("diverged", "chance_level")
"""What is told while a search runs."""

_FIRST = ("failures", "all_at_chance", "diverged", "chance_level")
_EDGE = "_at_edge"
_LAST = ("plateaued", "too_few_trials", "most_pruned_first_epoch", "cheap_rival", "imbalanced")


def ordered(signs: Iterable[Sign]) -> list[Sign]:
    """Signs of a run and of its study, the most helpful first: what ruins all comes before what may gain."""

    def place(sign: Sign) -> int:
        names = (*_FIRST, _EDGE, "", *_LAST)
        name = _EDGE if sign.sign.endswith(_EDGE) else sign.sign
        return names.index(name if name in names else "")

    return sorted(signs, key=place)


def show(screen: Screen, signs: Iterable[Sign], *files: Path) -> None:
    """Print the most helpful signs, and how many more there are in the files.

    Texts are wrapped to the terminal, and left whole where there is none. A command is one line, whatever the
    width, so that it can be copied.
    """
    shown = ordered(signs)
    if shown:
        screen.tell([""])
    for sign in shown[:MOST_SHOWN]:
        screen.wrap(Text.assemble((sign.sign, "bold"), ": ", sentence(sign.evidence)))
        screen.wrap(Text(sentence(sign.advice)), indent=2)
        if sign.command is not None:
            screen.tell([f"  {sign.command}"])
    if (n_more := len(shown) - MOST_SHOWN) > 0:
        places = " and ".join(shlex.quote(near(path)) for path in files if path.exists())
        screen.wrap(Text(f"{counted(n_more, 'more sign')}{f' in {places}' if places else ''}"))
    if shown:
        screen.tell([""])


def tell(screen: Screen, sign: str, advice: str, number: int) -> None:
    """Say while a search runs that a trial has a sign."""
    screen.wrap(Text.assemble(f"trial {number}: ", (sign, "bold"), f". {sentence(advice)}"))


def write(path: Path, signs: Sequence[Sign]) -> None:
    """Write ``signs.json``."""
    filesystem.write_json(path, [asdict(sign) for sign in signs])


def read(path: Path) -> list[Sign]:
    """The signs of a ``signs.json``; none where there is no such file.

    Raises:
        Fault: if it is damaged.
    """
    if not path.exists():
        return []
    rows = filesystem.read_json_list(path)
    if not all(map(_is_sign, rows)):
        raise Fault(path, "holds no signs: the file is damaged", "remove it")
    return [Sign(**row) for row in rows]


def _is_sign(row: Mapping[str, Any]) -> bool:
    command = row.get("command")
    texts = [value for value in row.values() if isinstance(value, str)]
    return row.keys() == _PARTS and len(texts) + (command is None) == len(_PARTS)


_PARTS = {field.name for field in fields(Sign)}


def read_whole(path: Path) -> list[Sign]:
    """The signs of a ``signs.json``; of a damaged one none, which is logged: no result is lost by it."""
    try:
        return read(path)
    except Fault as fault:
        log.warning("%s", fault)
        return []
