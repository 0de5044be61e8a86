"""The command of a search, as it was typed: what it is in the study, and what goes on with it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from sweeper.fault import Fault
from sweeper.program import program, python, typed_besides
from sweeper.record.mark import OUTPUTS
from sweeper.record.study_files import StudyFiles
from sweeper.results.study_record import HIDDEN, override
from sweeper.search.search import Search
from sweeper.search.settings import (
    is_named_by_time,
    key_of,
    source_key,
    study_key,
)
from sweeper.secret import hide_known_secrets, hide_secrets
from sweeper.words import near

_TAKE_OVER = "hydra.sweeper.take_over"


def to_go_on(search: Search | None, master: DictConfig) -> str:
    """The command that goes on with a search, or with a certificate, whose own one nobody has typed."""
    if search is None or search.plan is None:
        return typed(search, master)
    folder = Path(search.plan.folder)
    is_found = Path(OUTPUTS, search.plan.study).absolute() == folder
    return f"{program()} certify {shlex.quote(search.plan.study if is_found else near(folder))}"


def typed(search: Search | None, master: DictConfig, without: str = "") -> str:
    """This command, as it was typed; with the name of the study, which may have been made of the time.

    Where the settings of the search could not be read there was none yet: it is the same command.

    The folder remembers the storage, whose URL may hold a password; so it is the folder that is named where
    the app would take another one the next time. Until it does, the storage is told, but for a password.
    """
    arguments = [a for a in _arguments() if key_of(a) != without]
    storage_keys = {"hydra.sweeper.storage", source_key(master, "storage")}
    if search and _is_remembered(search):
        arguments = [a for a in arguments if key_of(a) not in storage_keys]
    named_by, given = study_key(master), {key_of(a) for a in arguments}
    if search and not {named_by, "hydra.sweeper.study_name"} & given:
        arguments = [*arguments, override(named_by, search.study_name)]
    if search and "hydra.sweep.dir" not in given and is_named_by_time(master):
        arguments = [*arguments, override("hydra.sweep.dir", str(search.folder))]
    return " ".join([_started_by(), *map(shlex.quote, arguments)])


def to_take_over(search: Search, master: DictConfig) -> str:
    """The command that goes on with a search, and repeats the trials of which nobody knows who lives."""
    return f"{typed(search, master, without=_TAKE_OVER)} {_TAKE_OVER}=true"


def words() -> list[str]:
    """Of this command, as it was typed, but for passwords."""
    return [*shlex.split(_started_by()), *_arguments()]


def _arguments() -> list[str]:
    arguments = [*sys.argv[1:], *typed_besides]
    is_open = {a: hide_known_secrets(a) == a == hide_secrets(a) for a in arguments}
    return [a if is_open[a] else f"{key_of(a)}={HIDDEN}" for a in arguments]


def _is_remembered(search: Search) -> bool:
    with contextlib.suppress(Fault):
        return StudyFiles(search.folder).read_storage() == search.storage
    return True  # the disk fails: its folder is there


def _started_by() -> str:
    """The first words of this command."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else ""
    if module == "sweeper" or Path(sys.argv[0]).name == "sweeper":
        return program()
    return f"{python()} -m {module}" if module else f"{python()} {shlex.quote(sys.argv[0])}"
