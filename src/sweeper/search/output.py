"""What workers and their trials print goes to files, without passwords."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sweeper import filesystem
from sweeper.fault import Fault, disk
from sweeper.secret import hide_known_secrets, knows_secrets


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Everything that is printed meanwhile, by C code too, goes to a file."""
    before = [(stream, os.dup(stream)) for stream in (1, 2)]
    try:
        with secrets_hidden_in(path):
            redirect_to(path)
            yield
    finally:
        for stream, saved in before:
            os.dup2(saved, stream)
            os.close(saved)


def redirect_to(path: Path) -> None:
    """From now on everything goes to that file."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            _flush()
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)


@contextlib.contextmanager
def secrets_hidden_in(path: Path) -> Iterator[None]:
    """An app may print its config, or a driver's words, where a password is."""
    try:
        yield
    finally:
        _flush()
        _hide_secrets_in(path)


def _hide_secrets_in(path: Path) -> None:
    with contextlib.suppress(OSError, Fault):
        printed = path.read_bytes() if knows_secrets() else b""
        if (hidden := hide_known_secrets(text := os.fsdecode(printed))) != text:
            with filesystem.whole(path) as temporary:
                temporary.write_bytes(os.fsencode(hidden))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the app may have closed or replaced it
            stream.flush()
