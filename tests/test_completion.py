"""``sweeper completion``: real shells complete what they are given, after one command."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said
from tests.program import run


def _shell(name: str, *marks: pytest.MarkDecorator) -> Any:
    missing = pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} is installed")
    return pytest.param(name, marks=[missing, *marks])


SHELLS = [_shell("bash"), _shell("zsh", pytest.mark.slow), _shell("fish", pytest.mark.slow)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with ``sweeper`` on the PATH as pip installs it, and a study ``pets/first``."""
    program = tmp_path / "bin" / "sweeper"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sweeper.__main__ import main\nmain()\n")
    program.chmod(0o755)
    mark = tmp_path / "outputs" / "pets" / "first" / ".sweeper" / "storage"
    mark.parent.mkdir(parents=True)
    mark.touch()
    (mark.parents[1] / "optimization_results.yaml").touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Shell:
    """An interactive shell on a terminal, as a person has it open."""

    def __init__(self, shell: str, home: Path) -> None:
        self._screen, keyboard = pty.openpty()
        environment = {**os.environ, "TERM": "xterm" if shell == "fish" else "dumb", "SHELL": f"/bin/{shell}"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, shell, "-i"],
            cwd=home,
            env=environment,
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            start_new_session=True,
        )
        os.close(keyboard)
        self.printed = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def until(self, text: str, limit_s: float = 30) -> None:
        """Wait until the terminal has shown this since the last call."""
        limit = time.monotonic() + limit_s
        while text not in self.printed:
            assert time.monotonic() < limit, f"no {text!r} in {self.printed!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                self.printed += os.read(self._screen, 65536).decode(errors="replace")
        self.printed = ""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


@contextmanager
def opened(shell: str, home: Path) -> Iterator[Shell]:
    terminal = Shell(shell, home)
    try:
        terminal.type("echo rea''dy\r")
        terminal.until("ready")
        yield terminal
    finally:
        terminal.end()


LINES = [
    # what is typed before Tab          what the shell then adds
    ("sweeper dashb", "oard "),
    ("sweeper describe scheduler=pl", "ateau "),
    ("sweeper -m optimizer=adam,rm", "sprop "),
    ("sweeper optimizer=sgd training.batch", "_size="),
    ("sweeper hydra/sweeper/sampler=nsgaiii seed=1 hydra.sweeper.n_j", "obs="),
    ("sweeper objective=val_ma", "cro_f1 "),
    ("sweeper dashboard --po", "rt "),
    ("sweeper best pe", "ts/first "),
]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_after_one_command(shell: str, home: Path) -> None:
    """Verbs, options of groups (also of several), keys, options and studies; what goes on gets no space."""
    with opened(shell, home) as terminal:
        terminal.type("sweeper completion\r")  # it finds out which shell this is
        terminal.until(f"Begin a new {shell}")
    with opened(shell, home) as terminal:
        for typed, added in LINES:
            terminal.type(f"{typed}\t")
            terminal.until(typed.split()[-1] + added)
            terminal.type("\x15")  # Ctrl-U: a new line


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("training.metrics=mac", ["training.metrics=[macro_f1]"]),
        ("training.metrics=[auroc,co", ["training.metrics=[auroc,cohen_kappa]"]),
        ("objective=[val_loss,val_au", ["objective=[val_loss,val_auroc]"]),
        ("training.early_stopping.monitor=val_b", ["training.early_stopping.monitor=val_balanced_accuracy"]),
        ("dataset.duplicates=", [f"dataset.duplicates={name}" for name in ("error", "drop", "keep")]),
    ],
)
def test_names_that_a_key_may_have_are_completed(home: Path, typed: str, completed: list[str]) -> None:
    """Objectives, metrics and options; in a list the last one, and the list is closed."""
    asked = {"_SWEEPER_LINE": f"sweeper {typed}", "_SWEEPER_COMPLETE": "bash_complete"}
    done = run(home, "-m", "sweeper", env=asked)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installing_twice_is_installing_once(said: Said, home: Path, shell: str) -> None:
    """And removing leaves all as it was before; each says which files."""
    startup = home / f".{shell}rc"
    startup.write_text("# mine, without an end of line")
    startup.chmod(0o600)
    code, text = said("completion", shell)
    assert code == 0
    first = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert said("completion", shell)[0] == 0
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == first
    written = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("Wrote ")]
    assert [Path(path) for path in written if Path(path) in first] == [Path(written[0])]
    assert (f"Added to {startup}" in text) == (shell != "fish")

    assert said("completion", shell, "--remove")[0] == 0
    assert not Path(written[0]).exists()
    assert startup.read_text().rstrip("\n") == "# mine, without an end of line"
    assert startup.stat().st_mode & 0o777 == 0o600
    assert said("completion", shell, "--remove")[0] == 0


def test_a_start_up_file_may_be_a_link(said: Said, home: Path) -> None:
    """People keep these in a folder of their own: it stays a link."""
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "bashrc").touch()
    (home / ".bashrc").symlink_to(home / "dotfiles" / "bashrc")
    said("completion", "bash")
    said("completion", "bash", "--remove")
    assert (home / ".bashrc").is_symlink()
    assert (home / "dotfiles" / "bashrc").read_text() == ""


def test_what_cannot_be_written_is_said(said: Said, home: Path) -> None:
    """One line with the file, exit code 1."""
    (home / ".local").touch()
    code, text = said("completion", "bash")
    assert code == 1
    (line,) = text.splitlines()
    assert line.startswith(f"{home}/.local")


@pytest.mark.parametrize(
    ("shell", "told"),
    [("", "SHELL=null: the variable is not set"), ("/bin/tcsh", "SHELL=tcsh: is none of bash")],
)
def test_who_has_no_shell_of_these_is_told_what_to_write(home: Path, shell: str, told: str) -> None:
    """A container may set no shell at all."""
    done = run(home, "-m", "sweeper", "completion", env={"SHELL": shell})
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert done.stderr.rstrip().endswith("sweeper completion bash")
