"""The README is true: its example app runs as printed, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from sweeper.__main__ import verbs
from sweeper.conf import conf_folder
from tests.program import run

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_app_searches_as_printed(tmp_path: Path) -> None:
    """The app, with the command below it, finds a good x; alone it runs once."""
    app = re.search(r"```python\n# app.py\n(.*?)```", README, re.DOTALL)
    assert app is not None
    (tmp_path / "app.py").write_text(app[1])
    (command,) = re.findall(r"^ *python (app\.py -m .*)$", README, re.MULTILINE)

    for arguments in (shlex.split(command), ["app.py"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr

    (path,) = tmp_path.glob("outputs/*/optimization_results.yaml")
    results = yaml.safe_load(path.read_text())
    assert sum(results["trials"].values()) == 20
    assert results["best_value"] < 1


def test_every_group_and_option_is_named() -> None:
    """The list of groups is the list of files."""
    listed = dict(re.findall(r"`(\w+)` \(([\w, \n]+)\)", README[README.index("Groups:") :].split("## ")[0]))
    there = {
        group.name: {path.stem for path in group.glob("*.yaml")}
        for group in conf_folder().iterdir()
        if group.is_dir()
    }
    assert {group: {name.strip() for name in names.split(",")} for group, names in listed.items()} == there


def test_every_verb_is_named() -> None:
    """Each verb stands in the table of commands."""
    assert all(f"`sweeper {verb}" in README for verb in verbs.commands)
