"""The examples run as their own pages say, each in a copy of its folder."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.journal import load_study
from tests.page import ROOT, script
from tests.program import run
from tests.slurm import slurm

EXAMPLES = ROOT / "examples"


@pytest.fixture
def tour(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``docs/tour.py``, which runs the notebook and makes a page of it."""
    return script("tour", monkeypatch)


def copied(name: str, folder: Path) -> Path:
    """An example in a folder of its own, without what somebody's search has left there."""
    left = shutil.ignore_patterns("outputs", "__pycache__")
    copy: Path = shutil.copytree(EXAMPLES / name, folder / name, ignore=left)
    return copy


def commands(name: str) -> list[list[str]]:
    """What the page of an example tells to type, in its order, but for the installing."""
    page = (EXAMPLES / name / "README.md").read_text()
    lines = re.findall(r"^    (?:\$ )?((?:python|sweeper|diff) .*?)(?: *#.*)?$", page, re.MULTILINE)
    typed = [shlex.split(command) for line in lines for command in line.split(" && ")]
    assert typed
    return typed


def type_in(folder: Path, command: list[str]) -> str:
    """What a command prints, as typed in a shell where this environment is activated."""
    if command[0] == "sweeper":
        command = ["python", "-m", *command]
    done = run(folder, *command[1:], limit_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def trials(folder: Path, name: str) -> list[FrozenTrial]:
    return load_study(folder, name).trials


def test_every_example_is_listed() -> None:
    """The page of the examples names each."""
    folders, files = (path.parent for path in EXAMPLES.glob("*/README.md")), EXAMPLES.glob("*.*")
    there = {path.name for path in [*folders, *files] if path.name != "README.md"}
    listed = re.findall(r"^\| \[([^\]]+)\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert {name.rstrip("/") for name in listed} == there


@pytest.mark.slow
def test_the_app_with_lightning(tmp_path: Path) -> None:
    """It trains once; it searches, prunes, goes on, and says what it found."""
    folder = copied("lightning_app", tmp_path)
    once, search, more, *looks = commands("lightning_app")
    type_in(folder, once)
    assert not (folder / "outputs" / "studies.journal").exists()

    printed = type_in(folder, search)
    assert "Workers are spawned" not in printed
    first = trials(folder, "digits")
    assert len(first) == 12
    assert {t.state for t in first} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(("optimizer.momentum" in str(t.params)) == (t.params["optimizer"] == "sgd") for t in first)
    complete = [t for t in first if t.state == TrialState.COMPLETE]
    assert all(list(t.intermediate_values) == list(range(1, 9)) for t in complete)
    assert min(t.value for t in complete if t.value is not None) < 0.3

    type_in(folder, more)
    assert len(trials(folder, "digits")) == 16
    best, report = (type_in(folder, look) for look in looks)
    assert "optimizer" in best
    assert "report.html" in report


@pytest.mark.slow
def test_the_app_of_the_official_sweeper(tmp_path: Path) -> None:
    """Before and after differ in the one line that its page shows, and draw the same points."""
    folder = copied("migrated", tmp_path)
    diff, after, before = commands("migrated")
    shown = subprocess.run(diff, cwd=folder, capture_output=True, text=True, check=False).stdout
    page = (folder / "README.md").read_text()
    assert "".join(f"    {line}\n" for line in shown.splitlines()) in page

    for command in (after, before):
        type_in(folder, command)
    studies = [path.parent.name for path in sorted(folder.glob("outputs/*/optimization_results.yaml"))]
    drawn = [[(t.params, t.value) for t in trials(folder, name)] for name in studies]
    assert [len(points) for points in drawn] == [20, 20]
    assert drawn[0] == drawn[1]
    assert max(value for _, value in drawn[0] if value is not None) > 0.9


def test_the_migrated_app_changes_one_line() -> None:
    """The two configs differ in the defaults list's line, and in nothing else."""
    before, after = (
        (EXAMPLES / "migrated" / "conf" / f"{name}.yaml").read_text() for name in ("before", "after")
    )
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    assert changed == ["-   - override hydra/sweeper: optuna", "+   - override hydra/sweeper: sweeper_optuna"]


@pytest.mark.slow
def test_the_job_array(tmp_path: Path) -> None:
    """Its jobs work on one study, to the exact budget, whichever of them begins it."""
    script_file = shutil.copy(EXAMPLES / "slurm_array.sh", tmp_path)
    bin_ = Path(sys.executable).parent
    words = ["experiment=quick", "optimizer=adam,sgd", "study=mine", "hydra.sweeper.n_trials=12"]
    with slurm() as cluster:
        done = subprocess.run(
            ["sbatch", "--wait", "--array=1-2", script_file, *words],
            cwd=tmp_path,
            env={**os.environ, **cluster.environment, "PATH": f"{bin_}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=200,
        )
    printed = "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert done.returncode == 0, done.stderr + printed
    ended = [t for t in trials(tmp_path, "mine") if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 12
    assert len(list(tmp_path.glob("slurm-*.out"))) == 2


@pytest.mark.slow
def test_the_tour(tour: Any, tmp_path: Path) -> None:
    """The notebook runs to its end, in a folder where nothing else is."""
    notebook = tour.read()
    tour.execute(notebook, tmp_path)
    page = tour.page(notebook)
    assert "pruned, 0 failed" in page
    assert "test accuracy: 0.9" in page
    assert "tensor([9])" in page
    assert str(tmp_path) not in page
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "tour.pt2"}


def test_the_tour_is_ten_cells_that_were_run(tour: Any) -> None:
    """What it shows is stored: small, of no machine, without an error."""
    notebook = tour.read()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, 11))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    text = tour.NOTEBOOK.read_text()
    assert len(text) < 50_000
    own = (str(Path.home()), sys.prefix, sysconfig.get_path("scripts"))
    assert not re.search("|".join(["/tmp/", "/home/", *map(re.escape, own)]), text)


def test_the_page_of_the_tour_is_current(tour: Any) -> None:
    """``python docs/tour.py`` was run after the last change of the notebook."""
    notebook = tour.read()
    assert tour.PAGE.read_text() == tour.page(notebook)
    assert (tour.PAGE.parent / tour.PICTURE).read_bytes() == tour.picture(notebook)
