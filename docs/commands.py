"""Write ``docs/commands.md`` from the verbs and ``conf/``: ``python docs/commands.py``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

import click
import option

from sweeper.__main__ import verbs
from sweeper.words import counted

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """\
# Commands

`sweeper VERB --help` says the same on a terminal, and `sweeper --help` lists all. `python -m sweeper` is the
same program. Where a command begins with an override or an option instead of a verb, `train` is meant.

<!-- Made from src/sweeper/__main__.py and conf/ by docs/commands.py: change them there. -->

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | too many trials failed, pictures were unreadable, a disk or a server failed: one line says what to do |
| 2 | bad input: one line says what to write |
| 3 | not reproduced |
| 129, 130, 143 | stopped by the end of the terminal, Ctrl-C or SIGTERM; the command to go on is printed |

## Verbs
"""

_GROUPS = """\
## Groups

`GROUP=OPTION` chooses an option, `-m GROUP=OPTION,OPTION` compares some, `-m 'GROUP=glob(*)'` all of them.
Each option is a file in `conf/`: it sets keys, and brings the ranges that a search tries for its own.
[All keys](keys.md) says what they mean.
"""


def page() -> str:
    """The whole page."""
    told = [line for name, verb in verbs.commands.items() for line in _verb(name, verb)]
    chosen = [line for name, options in option.groups().items() for line in _group(name, options)]
    return "\n".join([_HEAD, *told, _GROUPS, *chosen]).rstrip("\n") + "\n"


def _verb(name: str, verb: click.Command) -> Iterator[str]:
    with click.Context(verb, info_name=f"sweeper {name}", help_option_names=["-h", "--help"]) as context:
        usage = " ".join(verb.collect_usage_pieces(context))
        records = [
            parameter.get_help_record(context)
            for parameter in verb.get_params(context)
            if isinstance(parameter, click.Option) and "--help" not in parameter.opts
        ]
        yield f"### `sweeper {name}`\n"
        yield f"```text\nsweeper {name} {usage}\n```\n"
        yield from _paragraphs(verb.help or "")
        yield from _options(record for record in records if record)


def _paragraphs(told: str) -> Iterator[str]:
    for paragraph in told.split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"


def _sentence(told: str) -> str:
    return re.sub(r"\s+", " ", told).replace("|", "&#124;")


def _group(name: str, options: list[option.Option]) -> Iterator[str]:
    yield f"### `{name}`\n"
    default = option.defaults()[name]
    yield f"{counted(len(options), 'option')}; default: {f'`{default}`' if default else 'none'}.\n"
    for each in options:
        yield f"#### `{each}`\n"
        if each.words:
            yield f"{each.words}\n"
        if each.command:
            yield f"```text\n{each.command}\n```\n"
        lines = list(_content(each))
        yield "\n".join(lines) + "\n" if lines else "It sets nothing else.\n"


def _content(each: option.Option) -> Iterator[str]:
    """What its file sets."""
    values = {key: option.written(value) for key, value in each.values.items() if key != f"{each.group}.name"}
    if each.chosen:
        yield f"- **Chooses:** {_listed(each.chosen)}"
    if values:
        yield f"- **Sets:** {_listed(values)}"
    free = {key: found for key, found in each.ranges.items() if not found.is_fixed}
    if free:
        yield "- **Searches:**"
        yield from (f"    - `{key}`: `{found.expression}`" for key, found in free.items())


def _listed(settings: Mapping[str, str]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in settings.items())


def _options(records: Iterable[tuple[str, str]]) -> list[str]:
    # As HTML, in which GitHub and MkDocs agree on a bar within a cell.
    lines = [
        f"| <code>{_sentence(escape(name))}</code> | {_sentence(escape(said))} |" for name, said in records
    ]
    return ["| option | what it does |", "|---|---|", *lines, ""] if lines else []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {counted(len(verbs.commands), 'verb')}")
