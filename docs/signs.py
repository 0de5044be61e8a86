"""Write ``docs/signs.md`` from the tables of the rules: ``python docs/signs.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.results import run_sign, study_sign
from sweeper.results.sign import MOST_SHOWN, Rule

PAGE = Path(__file__).with_name("signs.md")

_HEAD = f"""\
# What the signs mean

A run and a search are read by rules. Each names a *sign*, its *evidence* in numbers, *advice*, and often the
next *command*, which runs as it stands. Thresholds are relative to the task: to what a guess would reach, and
to how much a curve wavers by itself.

Signs are shown after a run, after a search and by `sweeper best`: {MOST_SHOWN} at most, the most helpful
first. All of them are in `signs.json`, in the folder of the run or of the study; where the study is another
Hydra app's, in its `.sweeper/`.

<!-- Made from the tables in src/sweeper/results/ by docs/signs.py: change them there. -->
"""


def page() -> str:
    """The whole page."""
    runs = ("Signs of a run", run_sign.RULES)
    studies = ("Signs of a study", study_sign.RULES)
    return "\n".join([_HEAD, *_part(*runs), *_part(*studies)])


def _part(title: str, rules: Iterable[Rule[Any]]) -> list[str]:
    return [f"## {title}\n", *(_section(rule) for rule in rules)]


def _section(rule: Rule[Any]) -> str:
    example = f"- **For example:** {rule.example}\n" if rule.example else ""
    return (
        f"### `{rule.sign}`\n\n{rule.meaning}\n\n"
        f"- **What to do:** {rule.advice}\n{example}- **Source:** {rule.source}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
