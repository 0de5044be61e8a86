"""Hydra 1.3 and 1.4: whichever is installed finds the plugin once, and nobody sees a warning."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest

from sweeper.conf import IS_HYDRA_1_3

pytestmark = pytest.mark.hydra

ROOT = Path(__file__).parents[1]

ENTRY_POINTS = """\
[hydra.plugins]
sweeper_optuna = hydra_plugins.sweeper_optuna.plugin:OptunaSweeper
"""

PLUGINS = """\
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
print(*(f"{sweeper.__module__}.{sweeper.__name__}" for sweeper in Plugins.instance().discover(Sweeper)))
"""

APP = """\
import hydra
from hydra.utils import instantiate

@hydra.main(config_path=".", config_name="app"{arguments})
def main(cfg):
    {body}
    return cfg.x

if __name__ == "__main__":
    main()
"""

OURS = """\
defaults: [_self_, db: mysql, override hydra/sweeper: sweeper_optuna]
x: 0.0
counter:
  _target_: collections.Counter
hydra:
  sweep:
    dir: out
  sweeper:
    study_name: s
    n_trials: 2
    n_jobs: 1
    params:
      x: interval(0, 1)
"""

OPTION = """\
# @package _global_
port: 1
hydra:
  sweeper:
    params:
      port: range(1, 9)
"""

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["entry point", "namespace"])
def python(request: pytest.FixtureRequest, tmp_path: Path) -> Python:
    """Runs Python where we are installed in one of the two ways, with each warning an error."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(site.getsitepackages()[0]).iterdir():
        if "sweeper" not in path.name:
            (packages / path.name).symlink_to(path)
    if request.param == "entry point":
        metadata = packages / "sweeper-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sweeper\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    python_path = os.pathsep.join([str(Path(hydra.__file__).parents[1]), str(ROOT / "src"), str(packages)])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-W", "error", *arguments]
        environment = {**os.environ, "PYTHONPATH": python_path}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def write_app(folder: Path, config: str, body: str = "pass", arguments: str = "") -> None:
    arguments += ', version_base="1.3"' if IS_HYDRA_1_3 else ""
    (folder / "app.py").write_text(APP.format(arguments=arguments, body=body))
    (folder / "app.yaml").write_text(config)


def warnings_in(folder: Path) -> list[str]:
    """The lines of a study's files that speak of a warning."""
    logs = [path for path in folder.rglob("*.log") if path.is_file()]
    return [line for log in logs for line in log.read_text().splitlines() if "arning" in line]


def test_the_entry_point_is_the_one_that_is_published() -> None:
    """What the tests below install is what pyproject.toml declares."""
    assert ENTRY_POINTS.splitlines()[1].replace("= ", '= "') in (ROOT / "pyproject.toml").read_text()


def test_the_plugin_is_found_exactly_once(python: Python) -> None:
    """By entry point or namespace, Hydra knows our sweeper once, and no other twice."""
    done = python("-c", PLUGINS)
    sweepers = done.stdout.split()
    assert sweepers.count("hydra_plugins.sweeper_optuna.plugin.OptunaSweeper") == 1
    assert (len(sweepers), done.stderr) == (len(set(sweepers)), "")


def test_an_app_without_our_sweeper_starts_in_silence(python: Python, tmp_path: Path) -> None:
    """Where we are merely installed, other apps see nothing of it."""
    write_app(tmp_path, "x: 0\n", body="print(cfg.x)")
    done = python("app.py", "x=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.slow
def test_an_app_searches_in_silence(python: Python, tmp_path: Path) -> None:
    """Options that bring ranges of their own are searched, with no warning in the command or a worker."""
    write_app(tmp_path, OURS)
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "mysql.yaml").write_text(OPTION)
    done = python("app.py", "-m", "db=choice(mysql)")
    assert (done.returncode, done.stderr) == (0, "")
    assert "port" in (tmp_path / "out" / "0" / ".hydra" / "overrides.yaml").read_text()
    assert warnings_in(tmp_path / "out") == []


@pytest.mark.skipif(IS_HYDRA_1_3, reason="Hydra 1.3 has no execution whitelist")
@pytest.mark.parametrize("in_process", ["true", "false"])
@pytest.mark.parametrize(("target", "code"), [("collections.Counter", 0), ("collections.OrderedDict", 1)])
def test_a_worker_keeps_to_the_execution_whitelist(
    tmp_path: Path, in_process: str, target: str, code: int
) -> None:
    """What the app's hydra.main does not allow its config to name, no trial runs."""
    body, arguments = "instantiate(cfg.counter)", ', execution_whitelist=["collections.Counter"]'
    write_app(tmp_path, OURS.replace("db: mysql, ", ""), body, arguments)
    command = [sys.executable, "-W", "error", "app.py", "-m", f"counter._target_={target}"]
    command.append(f"hydra.sweeper.in_process={in_process}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("is not in the Hydra execution whitelist" in done.stderr) == bool(code)


SEARCH = ["-m", "optimizer=adam,sgd", "study=s", "hydra.sweeper.n_trials=2", "training.epochs=1"]
LOOKS = [["--help"], ["--cfg", "job"], ["describe", "optimizer=adam,sgd"], ["best"], ["reproduce"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "commands"),
    [
        ("always", [SEARCH, *LOOKS]),
        ("error", [SEARCH, ["training.epochs=1"]]),  # of what is thrown away, too, such as last words
    ],
)
def test_our_commands_are_silent(tmp_path: Path, action: str, commands: list[list[str]]) -> None:
    """No warning reaches the person, neither as an error nor as a line, nor into the files of a trial."""
    for arguments in commands:
        command = [sys.executable, "-W", action, "-m", "sweeper", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert "Warning" not in done.stdout
    assert warnings_in(tmp_path / "outputs") == []
