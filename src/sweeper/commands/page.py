"""The page of ``sweeper --help``, and what is wrong with a command before Hydra sees it."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import takewhile, zip_longest
from typing import Any

import click
import yaml
from click.formatting import wrap_text
from click.shell_completion import CompletionItem

from sweeper import __version__, schema
from sweeper.conf import conf_folder
from sweeper.errors import BadInput, nearest
from sweeper.program import program

RUN = "train"
"""The verb that is meant where a command begins with none."""


class _Formatter(click.HelpFormatter):
    """Headings and first columns stand out, on a terminal."""

    def write_heading(self, heading: str) -> None:
        for line in wrap_text(f"{heading}:", self.width).splitlines():
            self.write(click.style(line, bold=True) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(click.style(name, fg="cyan"), said) for name, said in rows], col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


class Verb(click.Command):
    context_class = _Context


class Verbs(click.Group):
    context_class = _Context
    command_class = Verb

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs first, then groups, keys, and Hydra's own options."""
        name, options = program(), [*self.commands[RUN].get_params(ctx), *self.params]
        told = [o.get_help_record(ctx) for o in options if isinstance(o, click.Option)]
        sections = {
            "Usage": {
                f"{name} -m OVERRIDES": "search, as with -m optimizer=adam,sgd",
                f"{name} OVERRIDES": "train once, as with training.epochs=5",
                f"{name} VERB …": "one of these",
            },
            "Verbs (VERB --help says more)": {
                verb: command.get_short_help_str(limit=1000) for verb, command in self.commands.items()
            },
            "Groups (GROUP=OPTION, to search GROUP=OPTION,OPTION; default: the first)": {
                group: ", ".join(options) for group, options in _groups_by_default().items()
            },
            "Keys (KEY=VALUE, to search KEY=VALUE,VALUE or 'KEY=interval(LOW, HIGH)')": {
                "--cfg job": "shows all, with their values",
                "--cfg hydra -p hydra.sweeper": "shows those of a search: sampler, n_trials, n_jobs, …",
            },
            "Options": dict(record for record in told if record),
        }
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(list(rows.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The first word is a verb, or what may follow the verb that is meant without one."""
        run = self.commands[RUN]
        (argument,) = (p for p in run.get_params(ctx) if isinstance(p, click.Argument))
        more = run if incomplete.startswith("-") else argument
        return super().shell_complete(ctx, incomplete) + more.shell_complete(ctx, incomplete)


def with_verb(group: click.Group, arguments: Sequence[str]) -> list[str]:
    """The arguments, with the verb that is meant where they name none.

    Raises:
        BadInput: for one that is empty, as a variable that is not set, and for a misspelt verb.
    """
    if not arguments:
        return ["--help"]
    for before, argument in zip(["sweeper", *arguments], arguments, strict=False):
        is_option = argument.startswith("--") and argument.endswith("=")
        if not argument.strip() or is_option:
            name = argument.rstrip("=") if is_option else f"argument behind {before}"
            raise BadInput(name, "", "is empty", "write what is meant, or leave it out")
    is_said = arguments[0] in group.commands or arguments[0] in ("-h", "--help", "--version")
    if not is_said and not arguments[0].startswith("-"):  # before an option of a misspelt verb is looked at
        _check_words(list(takewhile(lambda word: not word.startswith("-"), arguments)), list(group.commands))
    return [*([] if is_said else [RUN]), *arguments]


def groups() -> Mapping[str, list[str]]:
    """The options of each group in ``conf/``."""
    folders = sorted(path for path in conf_folder().iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def _groups_by_default() -> Mapping[str, list[str]]:
    """The same in the order of the defaults list, the default first."""
    there = groups()
    listed = yaml.safe_load(conf_folder().joinpath("config.yaml").read_text(encoding="utf-8"))["defaults"]
    defaults = {
        group: option for entry in listed if isinstance(entry, dict) for group, option in entry.items()
    }
    return {
        group: [option or "(none)", *(name for name in there[group] if name != option)]
        for group, option in defaults.items()
        if group in there
    }


def check_words(ctx: click.Context, argument: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no override: a misspelt verb, most likely.

    Raises:
        BadInput: naming the nearest verb, or how to write an override.
    """
    _check_words(words, list(ctx.find_root().command.commands))  # type: ignore[attr-defined]
    return words


def _check_words(words: Sequence[str], verbs: Sequence[str]) -> None:
    for i, (word, behind) in enumerate(zip_longest(words, words[1:], fillvalue="")):
        is_value = word.endswith("=") and "=" not in behind and not behind.startswith("~")
        if behind and (word.endswith(",") or behind[0] in "=," or is_value):
            whole = re.sub(r"\s*([=,])\s*", r"\1", " ".join(words[i:])).split()[0]
            raise BadInput("override", f"{word} {behind}", "has spaces", f"write {shlex.quote(whole)}")
        if word == "" or ("=" not in word and not word.startswith("~")):  # `~KEY` deletes
            raise _no_override(word, verbs, is_first=i == 0)


def _no_override(word: str, verbs: Sequence[str], is_first: bool) -> BadInput:
    key = word.lstrip("+")
    if word in verbs and not is_first:
        return BadInput("VERB", word, "stands behind an override", f"write {program()} {word} … instead")
    if options := groups().get(key):
        return BadInput(word, "", "has no value", f"write one of {', '.join(options)}")
    if key.startswith("hydra") or key in dict(schema.flatten(schema.Run())):
        return BadInput(word, "", "has no value", f"write {word}=VALUE")
    if near := nearest(word, verbs):
        return BadInput("VERB", word, "there is no such verb", f"did you mean {near}?")
    reason = "is neither a verb nor an override"
    return BadInput("VERB", word, reason, f"write KEY=VALUE, or see {program()} --help")


def in_one_line(error: click.UsageError) -> str:
    """What click has refused, with what to write instead."""
    path = error.ctx.command_path if error.ctx else program()
    see = f"{path} --help shows what there is"
    if isinstance(error, click.NoSuchOption):
        near = nearest(error.option_name, _visible_options(error.ctx))
        return f"{error.option_name}: there is no such option; {f'did you mean {near}?' if near else see}"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; {see}"


def bad_usage(error: click.UsageError) -> BadInput:
    """The same for a program that has started this command."""
    reason, remedy = in_one_line(error).rsplit("; ", 1)
    if isinstance(error, click.NoSuchOption):
        return BadInput("overrides", error.option_name, "there is no such option", remedy)
    return BadInput("overrides", "…", reason, remedy)


def _visible_options(ctx: click.Context | None) -> list[str]:
    """What may stand where an option was misspelt: those of the verb, and without one those of all."""
    contexts = [ctx, ctx.parent if ctx.info_name == RUN else None] if ctx else []
    parameters = [p for each in contexts if each for p in each.command.get_params(each)]
    return [o for p in parameters if isinstance(p, click.Option) and not p.hidden for o in p.opts]


def show_version(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """What to say in a report of a fault."""
    if value and not ctx.resilient_parsing:
        names = {"Hydra": "hydra-core", "Optuna": "optuna", "PyTorch": "torch"}
        others = ", ".join(f"{name} {version(package)}" for name, package in names.items())
        click.echo(f"sweeper {__version__} ({others}, Python {platform.python_version()})")
        ctx.exit()
