"""What README.md and docs/ tell people to type: found page by page, made short by one table, and run.

A block fenced as ``sh`` holds commands, one as ``python`` a program. A program whose first line is
``# NAME.py`` is that file; any other runs as it stands.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from sweeper.__main__ import verbs
from tests.page import DOCS, ROOT

LIMIT_S = 280
"""Of one command."""


_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>sh|python)\n(?P<lines>.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """What a test does with the commands, or programs, in which a pattern is found."""

    pattern: str
    replacement: str = r"\g<0>"
    """What stands in the place of the pattern."""
    left_out: str = ""
    """Why such a command is not run."""


ELSEWHERE = (
    Rule(r"^(pip install|python -m venv|source )", left_out="test_main.py installs the package"),
    Rule(r"^(pytest|ruff|mypy|mkdocs)\b", left_out=".ci/run does it"),
    Rule(r"^sweeper dashboard", left_out="it serves until Ctrl-C: test_dashboard.py"),
    Rule(r"^(uvicorn|fastapi|curl) ", left_out="a server: the tests of the examples"),
    Rule(r"^ssh ", left_out="it needs a second machine"),
    Rule(r"^sweeper serve", left_out="it serves until Ctrl-C: test_serve.py"),
    Rule(r"^python docs/pictures\.py", left_out="it takes minutes: test_pictures.py"),
)
SHORT = (
    Rule(r"\bmodel\.weights=DEFAULT", "model.weights=null dataset.image_size=32"),  # would be downloaded
    Rule(r"\bexperiment=transfer\b", r"\g<0> model.weights=null dataset.image_size=32"),
    Rule(r"\btraining\.epochs=\d+", "training.epochs=2"),
    Rule(r"\bhydra\.sweeper\.n_trials=\d+", "hydra.sweeper.n_trials=4"),
    Rule(r"\bhydra\.sweeper\.n_jobs=\d+", "hydra.sweeper.n_jobs=2"),
    Rule(r"\bpostgresql\+psycopg://me@db/studies", "$DATABASE"),
    Rule(r"\bs3://bucket\b", "s3://$BUCKET"),
    Rule(r"^sweeper certify (?!.*--top)\S+", r"\g<0> --top 2 --seeds 2"),
    Rule(r"\.certify\(top=5, seeds=5\)", ".certify(top=2, seeds=2)"),
    Rule(r"\bsweeper\.train\(\[", r'\g<0>"training.epochs=2", '),
    Rule(r"\bsweeper\.sweep\(\[", r'\g<0>"training.epochs=2", "hydra.sweeper.n_trials=2", '),
)
ENGINES = {
    "on_slurm": r"launcher=submitit_slurm|^(squeue|scancel|sbatch)\b",
    "on_ray": r"launcher=ray|^ray ",
    "on_postgresql": r"\bpostgresql\+",
    "on_s3": r"\bs3://",
}
"""Fixtures that a command needs, each with a pattern of such commands; they give variables of the shell."""
_BUDGET = re.compile(
    r"\+?hydra[./]launcher\b|hydra\.sweeper\.(n_trials|n_jobs|storage|join|artifacts)=|training\.epochs="
)
BUDGET = ("training.epochs=2", "hydra.sweeper.n_trials=3")
"""Of a run, and of a search, where the page says none."""
AS_THEY_STAND = {*verbs.commands, "--cfg", "--help", "--version"} - {"train"}
"""What may follow ``sweeper`` and takes no time that a rule could save."""
OF_README = "who begins with README.md"
READERS = {
    OF_README: (
        *("README.md", "first-search.md", "how-sure.md", "search.md"),
        *("transfer-learning.md", "what-a-search-tells.md"),
    ),
    "who has pets": ("own-images.md", "use-the-model.md"),
}
"""Pages that go on with a search that another page has begun: they are read one after the other."""

NOTEBOOKS = ("tour.md",)
"""Pages that are a notebook, which test_examples.py executes."""


class Step(Protocol):
    """One thing that a page tells the reader to do."""

    @property
    def engines(self) -> set[str]:
        """What it needs that a machine has not by itself, of ``ENGINES``."""

    def run(self, folder: Path, env: Mapping[str, str] | None = None) -> None: ...


@dataclass(frozen=True)
class Command:
    """A line for the shell."""

    typed: str

    @property
    def left_out(self) -> str:
        """Why it is not run; empty where it is."""
        return next((rule.left_out for rule in ELSEWHERE if re.search(rule.pattern, self.typed)), "")

    @property
    def shortened(self) -> str:
        """What is run in its place.

        Raises:
            ValueError: where no rule says what to do with it.
        """
        short = _replaced(self.typed)
        words = shlex.split(self.typed)
        if words[0] in ("cp", "python", "ray", "sbatch", "squeue"):
            return short
        if words[0] != "sweeper" or len(words) < 2:
            raise ValueError(f"no rule of tests/documented.py says how to run: {self.typed}")
        if words[1] in AS_THEY_STAND:
            return short
        budget = BUDGET if {"-m", "--multirun"} & set(words) else BUDGET[:1]
        return " ".join([short, *(more for more in budget if more.partition("=")[0] not in short)])

    @property
    def engines(self) -> set[str]:
        found = {name for name, pattern in ENGINES.items() if re.search(pattern, self.typed)}
        return set() if self.left_out else found

    @property
    def machine(self) -> str:
        """Where it is typed: a folder in that of the page stands for another machine."""
        if "hydra.sweeper.join=true" in self.typed:
            return "second"
        return "third" if " --storage " in self.typed and "sweeper move" not in self.typed else ""

    def run(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        if not self.left_out:
            (there := folder / self.machine).mkdir(exist_ok=True)
            _run(there, ["bash", "-euo", "pipefail", "-c", self.shortened], env)


@dataclass(frozen=True)
class Program:
    """A block of Python."""

    text: str

    @property
    def name(self) -> str:
        """Of the file that it is; empty where it runs as it stands."""
        found = re.match(r"# ([\w/]+\.py)\n", self.text)
        return found[1] if found else ""

    @property
    def engines(self) -> set[str]:
        return set()

    def run(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        if self.name:
            (folder / self.name).write_text(self.text, encoding="utf-8")
        else:
            _run(folder, [sys.executable, "-c", _replaced(self.text)], env)


@dataclass(frozen=True)
class Reader:
    """Who does in one folder what the pages say, but types no command twice."""

    folder: Path
    typed: set[str] = field(default_factory=set)

    def do(self, step: Step) -> None:
        if isinstance(step, Command) and not step.left_out:
            if step.shortened in self.typed:
                return
            self.typed.add(step.shortened)
        step.run(self.folder)


@dataclass(frozen=True)
class Section:
    """What stands below one heading of a page."""

    page: Path
    title: str
    steps: list[Step]

    @property
    def engines(self) -> list[str]:
        """What its commands need; they are one story then, which begins with the first."""
        return sorted({engine for step in self.steps for engine in step.engines})


def documented() -> list[Path]:
    """The pages for people who use the program."""
    return [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if path.name not in NOTEBOOKS)]


def steps(page: Path) -> list[Step]:
    """What a page tells to do, from top to bottom."""
    return _steps(page.read_text(encoding="utf-8"))


def sections(page: Path) -> list[Section]:
    """A page by its headings."""
    before, *rest = _HEADING.split(page.read_text(encoding="utf-8"))
    parts = [("", before), *zip(rest[::2], rest[1::2], strict=True)]
    return [Section(page, title, _steps(text)) for title, text in parts]


def here(page: Path) -> list[Step]:
    """What a page tells to do for which a machine alone is enough."""
    parts = sections(page)
    if not any(section.engines for section in parts):
        return steps(page)  # a program may go on below the next heading
    return [step for section in parts if not section.engines for step in section.steps]


def _steps(text: str) -> list[Step]:
    found = list[Step]()
    for block in _BLOCK.finditer(text):
        lines = re.sub(rf"^{block['indent']}", "", block["lines"], flags=re.M)
        if block["kind"] == "sh":
            found += _commands(lines)
        elif found and isinstance(before := found[-1], Program) and not before.name:
            found[-1] = Program(f"{before.text}\n{lines}")  # it goes on, in the same session
        else:
            found.append(Program(lines))
    return found


def searched(step: Step) -> Iterator[tuple[str, set[str]]]:
    """The study that a command begins or goes on with, and what it searches; budgets may differ."""
    words = shlex.split(step.typed) if isinstance(step, Command) else []
    names = [
        word.partition("=")[2] for word in words if re.match(r"(study|hydra\.sweeper\.study_name)=", word)
    ]
    if {"-m", "--multirun"} & set(words):
        yield from ((name, {word for word in words if not _BUDGET.match(word)}) for name in names)


def named(step: Step) -> set[str]:
    """The studies that a command needs."""
    typed = step.typed if isinstance(step, Command) else ""
    verb = re.match(
        r"sweeper (?:best|certify|clean|export|move|predict|report|reproduce) "
        r"(?P<studies>[\w-]+( [\w-]+)*)(?=\s|$)",
        typed,
    )
    studies = set(re.findall(r"outputs/([\w-]+)/best", typed))
    if verb:
        several = verb["studies"].split()
        studies |= (
            {word for word in several if not word.startswith("-")} if "report" in typed else {several[0]}
        )
    return studies


def _commands(lines: str) -> Iterator[Command]:
    for line in lines.replace("\\\n", " ").splitlines():
        typed = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
        yield from (Command(part) for part in typed.split(" && ") if part)


def prepare(folder: Path) -> None:
    """What the pages suppose: pictures of two kinds of pets, scans of patients, a table, and new pictures."""
    for i in range(40):
        pet = "cats" if i % 2 else "dogs"
        _picture(folder / "pets" / pet / f"{i}.png", i)
        _picture(folder / "scans" / ("ill" if i % 2 else "well") / f"patient{i // 4}_{i}.png", i + 100)
    for i, name in enumerate(("cat-0", "cat-1", "dog-0", "dog-1")):
        _picture(folder / "new" / f"{name}.jpg", i + 200)
    rows = [f"pets/{path.parent.name}/{path.name},{path.parent.name}" for path in folder.glob("pets/*/*.png")]
    (folder / "pets.csv").write_text("\n".join(["path,label", *sorted(rows)]) + "\n")


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _replaced(text: str) -> str:
    for rule in SHORT:
        text = re.sub(rule.pattern, rule.replacement, text)
    return text


def _run(folder: Path, command: list[str], env: Mapping[str, str] | None) -> None:
    """Raises AssertionError with all that it printed, where it fails."""
    bin_ = folder / ".bin"
    bin_.mkdir(exist_ok=True)
    for name, arguments in {"sweeper": "-m sweeper ", "python": ""}.items():
        (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (bin_ / name).chmod(0o755)
    path, shell = f"{bin_}:{os.environ['PATH']}", "/bin/bash"  # as who types the commands has them
    mine = {"HOME": str(folder), "PATH": path, "SHELL": shell, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **mine, **(env or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
