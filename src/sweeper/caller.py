"""What a command says to the Python program that has started it: ``sweeper.train`` and ``sweeper.sweep``.

The program hands an open file down, and names it in the environment. The command writes a line of JSON into
it for each thing that there is to say: its folder, the networks that it was told to import, and what has
ended it. Without such a program nothing is said.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweeper.errors import MAX_CHARACTERS, BadInput, shortened
from sweeper.fault import Fault, FaultElsewhere
from sweeper.secret import hide_secrets, remember_secrets

VARIABLE = "SWEEPER_CALLER"
"""``FILE:PID:GROUP``: the number of the open file, the process of the program, and ``own`` or ``same``."""

_PR_SET_PDEATHSIG = 1
"""From prctl(2)."""

_file: int | None = None
"""The open file, in a command that a program has started."""


class Failed(Exception):
    """A search or a run was begun and came to no good end: trials failed, the code raised, it was killed.

    What it printed says more, as do the folders of its trials.

    Args:
        what: the study, as ``study mine``, or the command.
        reason: how it ended.
        remedy: what to do.
        folder: of the study or the run, where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, reason: str, remedy: str, folder: Path | None = None) -> None:
        super().__init__(what, reason, remedy, folder)
        self.what, self.reason, self.remedy, self.folder = what, reason, remedy, folder

    def __str__(self) -> str:
        return hide_secrets(" ".join(f"{self.what}: {self.reason}; {self.remedy}".split()))


class Ended(SystemExit):
    """The command ends and has printed why; ``told`` says it to the program that has started it."""

    def __init__(self, told: BadInput | Fault | Failed) -> None:
        super().__init__(told.exit_code)
        self.told = told


# ------------------------------------------------------------------------------------------ in the command


def meet() -> None:
    """Get to know the program that has started this command, if one has, and end with it.

    The system then sends a SIGTERM, at which a search tells its trials and can go on later.
    """
    global _file
    told = os.environ.pop(VARIABLE, "")  # workers, and other commands that they start, have no part in it
    if not told:
        return
    file, pid, group = told.split(":")
    _file = int(file)
    os.set_inheritable(_file, False)
    if group == "own":  # what is typed at a terminal then reaches the program alone, which passes it on
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it may write there all the same
    end_with(int(pid), signal.SIGTERM)


def end_with(parent: int, signum: signal.Signals) -> None:
    """Let the system send this process a signal when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def say(**said: Any) -> None:
    """Tell the program something, by name."""
    if _file is not None:
        os.write(_file, f"{json.dumps(said)}\n".encode())


def say_error(error: BaseException) -> None:
    """Tell the program what ends this command, without passwords."""
    say(error=written(error))


def print_last(line: str) -> None:
    """Print why this command ends; a program that has started it raises that instead."""
    if _file is None:
        with suppress(OSError):  # the terminal may be gone
            print(line, file=sys.stderr, flush=True)


def written(error: BaseException) -> dict[str, Any]:
    """What ended a command as plain values, without passwords; ``read`` makes an exception of it again."""
    match error:
        case BadInput():
            remember_secrets(str(error.value))
            key, _, value = hide_secrets(f"{error.key}={error.value}").partition("=")
            is_plain = error.value is None or isinstance(error.value, bool | int | float)
            told = error.value if is_plain else value
            parts = [key, told, *_hidden(error.reason, error.in_python)]
            return {"kind": BadInput.__name__, "parts": parts}
        case FaultElsewhere():
            return {"kind": FaultElsewhere.__name__, "parts": _hidden(error)}
        case Fault():
            return {"kind": Fault.__name__, "parts": _hidden(error.place, error.reason, error.remedy)}
        case Failed():
            return {"kind": Failed.__name__, "parts": _hidden(error.what, error.reason, error.remedy)}
        case _:
            raised = "".join(traceback.format_exception_only(error)).strip()
            parts = _hidden("sweeper", shortened(raised, MAX_CHARACTERS), "its output says where")
            return {"kind": Failed.__name__, "parts": parts}


def _hidden(*parts: object) -> list[Any]:
    return [hide_secrets(str(part)) for part in parts]


# ------------------------------------------------------------------------------------------ in the program


def told_by(file: int, group: str) -> str:
    """What the environment of a command has to say, for it to find the open file of this program."""
    return f"{file}:{os.getpid()}:{group}"


def heard(file: int) -> dict[str, Any]:
    """All that a command has said into the open file; the error as an exception."""
    said: dict[str, Any] = {}
    for line in os.pread(file, os.fstat(file).st_size, 0).splitlines():
        with suppress(ValueError):  # it was killed while it wrote
            said |= json.loads(line)
    return said | ({"error": read(said["error"])} if "error" in said else {})


def read(written: Mapping[str, Any]) -> Exception:
    kinds: dict[str, Callable[..., Exception]] = {
        kind.__name__: kind for kind in (BadInput, Fault, FaultElsewhere, Failed)
    }
    return kinds[written["kind"]](*written["parts"])
