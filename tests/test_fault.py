"""Faults of disks and servers: one line, what to do, the command to go on; and nothing is lost."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import program
from tests.conftest import Cli
from tests.foreign_app import FINISHED, App, assert_exactly
from tests.journal import load_study
from tests.program import Done, finish, until
from tests.shim import KILL, Shim, compile_shim

STEPS = """
for step in range(4):
    sweeper.trial().report(cfg.x + step, step)
return cfg.x
"""

N_KILLS = 32


def test_a_system_may_lack_an_error(tmp_path: Path) -> None:
    """macOS has no EREMOTEIO: the command starts all the same."""
    code = "import errno; del errno.EREMOTEIO; from sweeper.fault import find_fault; "
    code += "print(find_fault(OSError(errno.ENOSPC, 'no space left')))"
    done = program.run(tmp_path, "-c", code)
    assert done.stdout == "a file: no space left; make room on that disk\n", done.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def app(tmp_path: Path) -> App:
    folder = tmp_path / "app"
    folder.mkdir()
    return App(folder, STEPS)


def assert_one_line(done: Done, *said: str) -> None:
    """One line that says all of that, without a traceback, and its exit code."""
    printed = done.stdout + done.stderr
    # Where the storage itself cannot be written from the beginning on, it was the wrong one.
    codes = (1, 2) if "read-only" in said else (1,)
    assert done.returncode in codes, printed
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


def moments(n_all: int, n: int, seed: int) -> list[int]:
    """So many random numbers from 1 to ``n_all``, spread over all of it, in random order."""
    dice = random.Random(seed)
    found = [1 + int((i + dice.random()) * n_all / n) for i in range(n)]
    dice.shuffle(found)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_at_any_write_loses_nothing(app: App, library: Path) -> None:
    """Killed whole at 32 random file operations, a search goes on each time to exactly its budget.

    Three times out of four it is killed again as it goes on, so that this is tried as often as a beginning.
    """
    shim = Shim(app.out, library)
    n_all = n_operations(app, shim)
    assert n_all > 200
    for n, at in enumerate(moments(n_all, N_KILLS, 11), 1):
        done = app.run(env=shim.env(at, KILL), limit_s=60)
        # Who goes on may need fewer operations, and be there before the kill.
        assert done.returncode in (-signal.SIGKILL, 0), f"at {at}: {done.stdout}{done.stderr}"
        if n % 4 == 0 or done.returncode == 0:
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
def test_a_disk_that_fails_at_any_operation_is_one_line(app: App, library: Path) -> None:
    """From a random operation on nothing can be written: one line with the remedy, and the study goes on.

    Each error in turn, at operations from the first to the last.
    """
    shim = Shim(app.out, library)
    n_all = n_operations(app, shim)
    n_told = dict.fromkeys(FAULTS, 0)
    for n, at in enumerate([1, 1, 1, 1, 1, *moments(n_all, 15, 28)]):
        error, said = fault = FAULTS[n % len(FAULTS)]
        done = app.run(env=shim.env(at, error), limit_s=60)
        if done.returncode != 0:  # else what was left to write could be done without
            assert_one_line(done, said)
            n_told[fault] += 1
        assert_goes_on(app)
        app.remove_outputs()
    assert min(n_told.values()) >= 2, n_told


def test_a_full_disk_is_one_line_and_the_study_goes_on(app: App, library: Path) -> None:
    """In the middle of a search the disk is full: exit code 1, one line, and nothing is lost."""
    shim = Shim(app.out, library)
    done = app.run(env=shim.env(250, errno.ENOSPC), limit_s=60)
    assert_one_line(done, "no space left", "make room")
    assert_goes_on(app)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_our_own_search_goes_on_after_a_full_disk(small_disk: Path) -> None:
    """The trials' files fill the disk: one line, exit code 1; with more room, the same command goes on."""
    command = ["-m", "sweeper", "-m", "study=full", "training.epochs=1", "hydra.sweeper.n_trials=12"]
    command += ["model.hidden_units=[256]"]
    done = program.run(small_disk, *command, limit_s=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "no space left on device; make room on that disk; to go on: " in line
    single = program.run(small_disk, "-m", "sweeper", "study=single", "training.epochs=1", limit_s=120)
    assert single.returncode == 1, single.stdout + single.stderr
    (line,) = single.stderr.splitlines()
    assert "no space left on device" in line
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    done = program.run(small_disk, *command, limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = load_study(small_disk, "full").trials
    assert sum(t.state in FINISHED for t in trials) == 12
    assert not [t for t in trials if not t.state.is_finished()]


@pytest.mark.slow
def test_readers_of_a_study_on_a_failing_disk_say_so_in_one_line(searched: Path, library: Path) -> None:
    """``best``, ``studies``, ``reproduce`` and the others: exit code 1, the file, and what to do."""
    shim = Shim(searched / "outputs", library)
    for verb in ("best", "studies", "clean", "reproduce"):
        done = program.run(searched, "-m", "sweeper", verb, env=shim.env(1, errno.EMFILE), limit_s=60)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("outputs/digits/.sweeper/")
        assert "too many open files; raise the limit" in line


@pytest.mark.slow
@pytest.mark.parametrize("what", ["everything", "study"])
def test_a_folder_that_is_removed_meanwhile_is_one_line(app: App, what: str) -> None:
    """The study's folder, or all of ``outputs/`` with the journal in it, goes while trials run."""
    app.write("started()\nif number in (0, 1):\n    wait_for('go')\nreturn cfg.x")
    process = app.start()
    until(lambda: app.has_started(0, 1))
    shutil.rmtree(app.out)
    if what == "everything":
        shutil.rmtree(app.journal.parent)
    app.touch("go")
    assert_one_line(finish(process), "was removed")
    app.write(STEPS)
    assert app.run(limit_s=60).returncode == 0
    assert_exactly(app, 6)


@pytest.mark.slow
def test_the_command_to_go_on_has_the_storage_until_a_folder_remembers_it(cli: Cli, tmp_path: Path) -> None:
    """A search that never reached its server has no folder: without the storage it would begin elsewhere."""
    storage = "hydra.sweeper.storage=grpc://localhost:1"
    code, error = cli("-m", storage, "hydra.sweeper.storage_wait_s=0", "study=s")
    assert code == 2  # nothing has begun
    assert error.count("\n") == 1
    assert f"-m {storage} " in error.partition("; to go on: ")[2]
    assert list(tmp_path.iterdir()) == []
