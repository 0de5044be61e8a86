"""One study, as those see it who read it: rules for signs, the report, the dashboard's note."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count, islice
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from sweeper import origin, outcome
from sweeper.outcome import shown
from sweeper.program import TRUST
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.words import near, objectives

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

HIDDEN = "URL"
"""What stands in a command for a value with a password in it."""

TRIALS_EACH = 10
"""Trials for each parameter, below which a search has seen too little, and importance says little (Loeppky,
Sacks, Welch, Choosing the Sample Size of a Computer Experiment, 2009)."""

_STORAGE = "hydra.sweeper.storage"


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study; the trials are as ``search.look`` shows them, dead ones as lost."""

    name: str
    files: StudyFiles
    directions: tuple[str, ...]
    """``minimize`` or ``maximize``, for each objective."""
    metrics: tuple[str, ...]
    """What the objectives are called; ``value`` where the app does not say."""
    trials: Sequence[FrozenTrial]
    """By number; some numbers may be missing, see ``trial``."""
    command: tuple[str, ...] = ()
    """The words of the command that began it, as they were typed; empty where nobody knows."""
    n_trials: int | None = None
    """The budget."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the search wrote of itself, as ``origin`` reads it."""
    read_at: datetime = field(default_factory=datetime.now)
    """Until when its trials have run that still do."""

    def trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.trials if trial.number == number)

    def run(self, trial: FrozenTrial) -> RunFiles:
        """The files of a trial; ``is_ours`` says whether it is a training run of ours."""
        return self.files.trial(trial).run

    # ------------------------------------------------------------------------------------- the next command

    def again(self, *changes: str) -> str | None:
        """The command that goes on with this study, with other overrides; None where nobody knows it."""
        names = [override(self._named_by, self.name)]
        if self.attributes.get("folder_by") == "time":
            names.append(override("hydra.sweep.dir", str(self._folder)))
        # The folder remembers the storage.
        return self._command(without={_STORAGE, *self._storage_keys}, changes=[*names, *changes])

    def elsewhere(self, name: str, folder: Path) -> tuple[Sequence[str], list[str]] | None:
        """The command of this search, for a study of another name in a folder that knows its storage.

        Whatever it trusted, this one trusts nobody yet.

        Returns:
            the words that start the program, and its arguments; None where nobody knows them.
        """
        changes = [override(self._named_by, name), override("hydra.sweep.dir", str(folder))]
        without = {_STORAGE, *self._storage_keys, TRUST, "hydra.sweeper.timeout_s"}
        words = self._arguments(changes, without)
        return None if words is None else (self._split[0], words)

    def anew(self, *changes: str, n_before: int = 0) -> str | None:
        """The command that begins another study like this one, with other overrides.

        Args:
            n_before: how many such commands are told beside it: each begins a study of its own.
        """
        name, folder = self._next("", n_before)
        names = [override(self._named_by, name)]
        if self.attributes.get("folder_by", "name") != "name":
            names.append(override("hydra.sweep.dir", str(folder)))
        return self._command(changes=[*names, *changes])

    def alone(self, trial: FrozenTrial) -> str | None:
        """The command that runs once with a trial's parameters, without a search."""
        words = self._split[1]
        without = {
            key for word in words if (key := key_of(word)).startswith(("hydra.sweeper", "hydra/sweeper"))
        }
        changes = [override(path_of(name), value) for name, value in trial.params.items()]
        if self._named_by == "study":
            changes.insert(0, f"study={self._next(f'-{trial.number}')[0]}")
        else:
            without.add(self._named_by)
        without |= {"-m", "--multirun", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir"}
        return self._command(without=without, changes=changes)

    def described(self) -> str | None:
        """The command that shows data and network of our own app, as the search had them."""
        if self._named_by != "study":
            return None
        program, words = self._split
        return replace(self, command=(*program, "describe", *words))._command((), without={"study"})

    def shown(self, path: Path) -> str:
        """The command that prints a file."""
        return f"cat {shlex.quote(near(path))}"

    def _command(self, changes: Sequence[str], without: Iterable[str] = ()) -> str | None:
        words = self._arguments(changes, without)
        return None if words is None else " ".join(map(shlex.quote, [*self._split[0], *words]))

    def _arguments(self, changes: Sequence[str], without: Iterable[str]) -> list[str] | None:
        program, words = self._split
        if not program:
            return None
        left_out = {*without, "hydra.sweeper.take_over", *map(key_of, changes)}
        left_out |= {key_of(word) for word in words if word == f"{_STORAGE}={HIDDEN}"}
        # Another option of a group has other arguments: those of a pruner, say.
        groups = tuple(key.replace("/", ".") + "." for key in left_out if key.startswith("hydra/"))
        kept = [
            word for word in words if key_of(word) not in left_out and not key_of(word).startswith(groups)
        ]
        if any(word.endswith(f"={HIDDEN}") for word in kept):
            return None  # it would not run without the password
        added = {key_of(word): word[: -len(word.lstrip("+"))] for word in words if word.startswith("+")}
        return [*kept, *(f"{added.get(key_of(change), '')}{change}" for change in changes)]

    @property
    def _split(self) -> tuple[Sequence[str], Sequence[str]]:
        """The words that start the program, and its arguments."""
        if not self.command:
            return (), ()
        is_python = Path(self.command[0]).name.startswith("python")
        n = 1 if not is_python else 3 if self.command[1:2] == ("-m",) else 2
        return self.command[:n], self.command[n:]

    @property
    def _named_by(self) -> str:
        return str(self.attributes.get("named_by", "hydra.sweeper.study_name"))

    @property
    def _storage_keys(self) -> set[str]:
        return {str(self.attributes.get("stored_by", _STORAGE))}

    @property
    def _folder(self) -> Path:
        """Where the study was begun; where that was on another machine, its folder here."""
        begun = Path(self.attributes.get("folder", self.files.folder))
        return begun if begun.is_dir() else self.files.folder

    def _next(self, suffix: str, n_before: int = 0) -> tuple[str, Path]:
        """A free name like this one, and the folder that goes with it: the first, or one behind it."""
        folder = self._folder
        name, found = self.name, re.fullmatch(r"(.+)-(\d+)", self.name)
        if found and folder.name.endswith(f"-{found[2]}"):
            before = folder.with_name(folder.name.removesuffix(f"-{found[2]}"))
            if StudyFiles(before).is_ours:  # this one is itself the next of that
                name, folder = found[1], before
        tails = (f"{suffix}{f'-{n}' if n > 1 or not suffix else ''}" for n in count(1 if suffix else 2))
        free = (tail for tail in tails if not folder.with_name(f"{folder.name}{tail}").exists())
        tail = next(islice(free, n_before, None))
        return f"{name}{tail}", folder.with_name(f"{folder.name}{tail}")


def of(study: optuna.Study, files: StudyFiles, trials: Sequence[FrozenTrial] | None = None) -> StudyRecord:
    """The record of a study that is open.

    Args:
        trials: as ``search.look`` shows them; the study's own, where nobody has looked.
    """
    begun = origin.read(study._storage, study._study_id)
    directions = tuple(outcome.directions(study))
    return StudyRecord(
        name=study.study_name,
        files=files,
        directions=directions,
        metrics=objectives(begun.get("metrics") or study.metric_names, len(directions)),
        trials=list(map(_readable, shown(study.get_trials(deepcopy=False) if trials is None else trials))),
        command=tuple(begun.get("command", ())),
        n_trials=begun.get("n_trials"),
        attributes=begun,
    )


_KINDS: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("folder", "worker", "reason", "traceback"), str),
    **dict.fromkeys(("epochs", "retry_of"), int),
    **dict.fromkeys(("seconds", "peak_memory_mb", "n_parameters"), int | float),
    "signs": list,
}
"""Of the attributes that are read of a trial. An app may set others of the same names."""


def _readable(trial: FrozenTrial) -> FrozenTrial:
    """The trial without attributes that have our names but are none of ours."""
    others = {name for name, value in trial.user_attrs.items() if not _is_ours(name, value)}
    if not others:
        return trial
    shown = copy(trial)
    shown.user_attrs = {name: value for name, value in trial.user_attrs.items() if name not in others}
    return shown


def _is_ours(name: str, value: Any) -> bool:
    kind = _KINDS.get(name)
    if kind is None:
        return True
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return not isinstance(value, int) or abs(value) < _MOST


_MOST = 1 << 63
"""Of a whole number; larger ones are no floats."""


def key_of(word: str) -> str:
    """What an override sets: ``a.b`` of ``++a.b=1``; an option is itself."""
    return word.partition("=")[0].lstrip("+~") if not word.startswith("-") else word


def path_of(name: str) -> str:
    """The key of a parameter: ``optimizer.lr`` of ``optimizer.lr[freezing=head]``."""
    return name.partition("[")[0]


def n_searched(trials: Iterable[FrozenTrial]) -> int:
    """Parameters that could have several values; one with a range in each option counts once."""
    return len(
        {
            path_of(name)
            for trial in trials
            for name, distribution in trial.distributions.items()
            if not distribution.single()
        }
    )


def wanted(trials: Iterable[FrozenTrial]) -> int:
    """How many trials so many parameters take."""
    return TRIALS_EACH * n_searched(trials)


def options_of(name: str) -> list[str]:
    """The options with which a parameter has its range: ``freezing=head``."""
    inside = name.partition("[")[2].removesuffix("]")
    return [option.strip() for option in inside.split(",") if "=" in option]


_BARE = re.compile(r"[\w./+\-]+|\[.*\]|\{.*\}|'.*'", re.ASCII)
"""What Hydra's grammar takes without quotes: of letters only those of ASCII."""


def override(key: str, value: object) -> str:
    """An override that sets a key to a drawn value."""
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    if isinstance(value, str) and not re.fullmatch(_BARE, value):
        escaped = value.replace("'", r"\'")
        return f"{key}='{escaped}'"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"
