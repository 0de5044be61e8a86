"""A disk that goes wrong at a given file operation of a program, or a kill just there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

KILL = 0
"""In the place of an errno: the program's whole process group is killed."""


class Shim:
    """Counts what programs do to the files whose paths begin with that of ``folder``, and lets one fail."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder, self._library = folder, library
        self.counter = folder.parent / f"{folder.name}.count"

    def env(self, at: int = 0, error: int = KILL) -> Mapping[str, str]:
        """The environment of a program whose operations from number ``at`` on fail; 0 only counts."""
        self.counter.write_bytes(bytes(8))
        return {
            "LD_PRELOAD": str(self._library),
            "SHIM_FOLDER": str(self._folder),
            "SHIM_COUNTER": str(self.counter),
            "SHIM_AT": str(at),
            "SHIM_ERRNO": str(error),
        }

    @property
    def n_operations(self) -> int:
        """How many there were since the last ``env``."""
        return int.from_bytes(self.counter.read_bytes(), "little")


def compile_shim(folder: Path) -> Path:
    """The shared library, compiled into a folder; skips the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed (Debian: apt-get install gcc libc6-dev)")
    library = folder / "shim.so"
    if not library.exists():
        source = Path(__file__).with_name("shim.c")
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return library
