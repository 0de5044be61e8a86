"""The README is true: its example app runs as printed, and what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from sweeper.__main__ import VERBS
from sweeper.conf import conf_folder

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_app_searches_as_printed(tmp_path):
    """The app of twenty lines, with the command below it, finds a good x and prunes."""
    app = re.search(r"```python\n# app.py\n(.*?)```", README, re.DOTALL)
    assert app is not None
    (tmp_path / "app.py").write_text(app[1])
    command = [sys.executable, "app.py", "-m", "x=interval(-5, 5)", "kind=square,absolute"]
    command.append("hydra.sweeper.study_name=first")
    assert (
        "python app.py -m 'x=interval(-5, 5)' kind=square,absolute hydra.sweeper.study_name=first" in README
    )

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    results = yaml.safe_load((tmp_path / "outputs" / "first" / "optimization_results.yaml").read_text())
    assert sum(results["trials"].values()) == 20
    assert results["best_value"] < 1
    alone = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr


def test_every_group_and_option_is_named():
    """The list of groups is the list of files."""
    listed = dict(re.findall(r"`(\w+)` \(([\w, \n]+)\)", README[README.index("Groups:") :].split("## ")[0]))
    there = {
        group.name: {path.stem for path in group.glob("*.yaml")}
        for group in conf_folder().iterdir()
        if group.is_dir()
    }
    assert {group: {name.strip() for name in names.split(",")} for group, names in listed.items()} == there


def test_every_verb_is_named():
    """Each verb stands in the table of commands."""
    assert all(f"`python -m sweeper {verb}" in README for verb in VERBS)
