"""What a curve or a study says: a sign, its evidence in numbers, advice, and the next command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sweeper import record
from sweeper.fault import Fault


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


def write(path: Path, signs: Sequence[Sign]) -> None:
    """Write ``signs.json``."""
    record.write_json(path, [asdict(sign) for sign in signs])


def read(path: Path) -> list[Sign]:
    """The signs of a ``signs.json``; none where there is no such file.

    Raises:
        Fault: if it is damaged.
    """
    if not path.exists():
        return []
    rows = record.read_json_list(path)
    try:
        return [Sign(**row) for row in rows]
    except TypeError as error:
        raise Fault(path, "holds no signs: the file is damaged", "remove it") from error
