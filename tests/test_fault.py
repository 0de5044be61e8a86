"""Faults of disks and servers: one line, what to do, the command to go on; and nothing is lost."""

from __future__ import annotations

import errno
import random
import re
import signal
from pathlib import Path

import pytest

from tests.foreign_app import App, assert_exactly
from tests.program import Done
from tests.shim import KILL, Shim, compile_shim

STEPS = """
for step in range(4):
    sweeper.trial().report(cfg.x + step, step)
return cfg.x
"""

N_KILLS = 60


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def app(tmp_path: Path) -> App:
    folder = tmp_path / "app"
    folder.mkdir()
    return App(folder, STEPS)


def assert_one_line(done: Done, *said: str) -> None:
    """Exit code 1, and one line that says all of that, without a traceback."""
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert "Traceback" not in printed
    lines = [line for line in done.stderr.splitlines() if "to go on:" in line]
    assert len(lines) == 1, done.stderr
    assert re.search(r"to go on: python app\.py -m", lines[0])
    assert all(text in lines[0] for text in said), lines[0]


def assert_nothing_is_left_over(app: App) -> None:
    """No temporary file, no sign of life of a process that is gone."""
    names = [path.name for path in app.folder.rglob("*") if path.is_file()]
    assert [name for name in names if name.endswith((".sweeper-new", ".alive"))] == []


def assert_goes_on(app: App) -> None:
    """The same command, with a sound disk, runs the study to its end."""
    done = app.run(limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)
    assert_nothing_is_left_over(app)


def n_operations(app: App, shim: Shim) -> int:
    """How many file operations a whole search takes; the study is removed again."""
    done = app.run(env=shim.env(), limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    app.remove_outputs()
    return shim.n_operations


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kill_at_any_write_loses_nothing(app: App, library: Path) -> None:
    """Killed whole at 60 random file operations, a search goes on each time to exactly its budget."""
    shim = Shim(app.out, library)
    n_all = n_operations(app, shim)
    assert n_all > 200
    for at in sorted(random.Random(11).sample(range(1, n_all), N_KILLS)):
        done = app.run(env=shim.env(at, KILL), limit_s=60)
        if done.returncode == 0:  # a shorter way to the end
            continue
        assert done.returncode == -signal.SIGKILL, f"at {at}: {done.stdout}{done.stderr}"
        assert_goes_on(app)
        app.remove_outputs()


FAULTS = [
    (errno.ENOSPC, "no space left"),
    (errno.EIO, "input/output error"),
    (errno.EROFS, "read-only"),
    (errno.EFBIG, "file too large"),
    (errno.EMFILE, "too many open files"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("error", "said"), FAULTS)
def test_a_disk_that_fails_at_any_operation_is_one_line(
    app: App, library: Path, error: int, said: str
) -> None:
    """From a random operation on nothing can be written: one line with the remedy, and the study goes on."""
    shim = Shim(app.out, library)
    n_all = n_operations(app, shim)
    for at in [1, 2, *random.Random(error).sample(range(3, n_all), 8)]:
        done = app.run(env=shim.env(at, error), limit_s=60)
        if done.returncode != 0:  # else what was left to write could be done without
            assert_one_line(done, said)
        assert_goes_on(app)
        app.remove_outputs()


def test_a_full_disk_is_one_line_and_the_study_goes_on(app: App, library: Path) -> None:
    """In the middle of a search the disk is full: exit code 1, one line, and nothing is lost."""
    shim = Shim(app.out, library)
    done = app.run(env=shim.env(250, errno.ENOSPC), limit_s=60)
    assert_one_line(done, "no space left", "make room")
    assert_goes_on(app)
