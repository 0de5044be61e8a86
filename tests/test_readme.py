"""The README and the pages are true: the app in them runs as printed, and what they name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sweeper.__main__ import verbs
from sweeper.conf import conf_folder
from tests.page import DOCS, ROOT, script
from tests.program import run

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}


def test_the_example_app_searches_as_printed(tmp_path: Path) -> None:
    """The app, with the command below it, finds a good x; alone it runs once."""
    page = PAGES["own-app.md"]
    app = re.search(r"```python\n# app.py\n(.*?)```", page, re.DOTALL)
    assert app is not None
    (tmp_path / "app.py").write_text(app[1])
    (command,) = re.findall(r"^python (app\.py -m (?:.*\\\n)*.*)$", page, re.MULTILINE)

    for arguments in (shlex.split(command.replace("\\\n", "")), ["app.py"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr

    (path,) = tmp_path.glob("outputs/*/optimization_results.yaml")
    results = yaml.safe_load(path.read_text())
    assert sum(results["trials"].values()) == 20
    assert results["best_value"] < 1


def test_every_group_and_option_is_named() -> None:
    """The list of groups is the list of files."""
    page = PAGES["search.md"]
    groups = page[page.index("## Groups") :].split("## ")[1]
    listed = dict(re.findall(r"`(\w+)` \(([\w, \n]+)\)", groups))
    there = {
        group.name: {path.stem for path in group.glob("*.yaml")}
        for group in conf_folder().iterdir()
        if group.is_dir()
    }
    assert {group: {name.strip() for name in names.split(",")} for group, names in listed.items()} == there


def test_every_verb_is_shown() -> None:
    """Each verb stands in the README or in a page that a person wrote."""
    written = README + "".join(text for name, text in PAGES.items() if name != "commands.md")
    assert [verb for verb in verbs.commands if f"sweeper {verb}" not in written] == []


def test_the_readme_is_short() -> None:
    """A newcomer reads it to its end: fewer than 150 lines."""
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("name", ["serve.py", "onnx_predict.py"])
def test_an_example_stands_in_the_page_as_it_runs(name: str) -> None:
    """What the page about using a model prints is the file that a test runs."""
    assert (
        f"```python\n{(ROOT / 'examples' / name).read_text(encoding='utf-8')}```" in PAGES["use-the-model.md"]
    )


def test_the_drawings_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python docs/drawings.py`` was run after its last change, and draws text as text, from no network."""
    drawings = script("drawings", monkeypatch)
    for name, draw in drawings.DRAWINGS.items():
        drawn = draw()
        assert drawn == (drawings.PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert "<text" in drawn
        assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
