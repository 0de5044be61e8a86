"""What a person types to start this program: the first word of every command that it prints."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """``sweeper``, or ``python -m sweeper`` where that is how this process was started.

    Always something that works as it stands in the shell of the person: a path where the PATH finds none, or
    another. Workers say the same, as it follows from what they share with the command.
    """
    started = Path(sys.argv[0])
    if started.name == "sweeper":
        return _found(str(started))
    is_module = started.parts[-2:] == ("sweeper", "__main__.py")
    if not is_module and _here("sweeper"):  # an app of somebody else
        return "sweeper"
    return f"{python()} -m sweeper"


def python() -> str:
    """This Python, as it is typed."""
    names = [name for name in ("python", "python3") if _here(name)]
    return names[0] if names else _found(sys.executable)


def start() -> list[str]:
    """What runs this program from another one, so that it prints the commands which a person would type."""
    script = [str(Path(sys.executable).parent / "sweeper")] if _here("sweeper") else ["-m", "sweeper"]
    return [sys.executable, "-u", *script]  # unbuffered, or lines of the two outputs would change places


def _here(name: str) -> bool:
    """Whether the PATH finds this name beside this Python."""
    return shutil.which(name) == str(Path(sys.executable).parent / name)


def _found(path: str) -> str:
    """A path as short as the PATH and the working directory allow."""
    name = Path(path).name
    if path == name or shutil.which(name) == path:
        return name
    near = os.path.relpath(path)
    return shlex.quote(path if near.startswith("..") else near)


def use(model: str, trust: str = "") -> str:
    """The command that says what a picture shows, for a person to name their own.

    Args:
        model: as it is typed, quotes included.
        trust: what stands at the end, with a space before it.
    """
    return f"{program()} predict {model} picture.jpg{trust}"


TRUST = "--trust"
"""The option with which a saved run may import what it names."""

storage_option: list[str] = []
"""``--storage``, where this option has named a storage, which else is named by a key."""

typed_besides: list[str] = []
"""What was typed of this command and is kept from Hydra, which has no such options."""
