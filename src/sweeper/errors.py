"""What the user got wrong, said in one line."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from itertools import takewhile

from sweeper.secret import hide_secrets, remember_secrets

NO_SUCH_KEY = "there is no such key"

MAX_CHARACTERS = 300
"""Of an error's line."""

_LEAST = {"value": 30, "reason": 60, "remedy": 150, "key": 55}
"""What is left of each part of a line that is too long, in the order in which they are cut."""

_ALIKE = 0.6
"""From here on, of 0 … 1, a word is taken for a slip of another."""
_BEGINS, _SHORTEST = 0.9, 5
"""A word of so many letters with which another begins is an abbreviation of it."""
_SAME, _MOVED = 0.75, 0.8
"""A key of another section is less alike than one of the same, and its last part must be nearly right."""


_NO_CLASS = re.compile(r"^\w+Exception: ")
"""Python's name of an error, which says nothing to who wrote the override."""


_OPTION = re.compile(r"(?:^|(?<=; ))(?=--(?:cfg|help)\b)")
"""Where a remedy begins with an option that shows something: a program has no command before it."""


class BadInput(Exception):
    """Something the user wrote cannot work. Shown as one line without a traceback; exit code 2.

    Args:
        key: what was set, as the user writes it (``training.batch_size``).
        value: what it was set to.
        reason: why that cannot work.
        remedy: what to write instead.
        in_python: the same for who has called ``sweeper.train`` or ``sweeper.sweep``; None: as it is said
            of the command line.
    """

    exit_code = 2

    def __init__(
        self, key: str, value: object, reason: str, remedy: str, in_python: str | None = None
    ) -> None:
        super().__init__(key, value, reason, remedy)
        self.key, self.value, self.reason, self.remedy = key, value, reason, remedy
        self.in_python = _OPTION.sub("sweeper ", remedy) if in_python is None else in_python

    def __str__(self) -> str:
        shown = "null" if self.value is None else str(self.value)
        return one_line(self.key, shown, self.reason, self.remedy)


def one_line(key: str, value: str, reason: str, remedy: str) -> str:
    """``key=value: reason; remedy``: what is too long is cut in its middle, a reason at its end."""
    remember_secrets(value)
    # While all is whole: what is left of a password that was cut would not be known for one.
    key, _, value = hide_secrets(f"{key}={value}").partition("=")
    told = {"key": key, "value": value, "reason": hide_secrets(reason), "remedy": hide_secrets(remedy)}
    parts = {name: visible(part) for name, part in told.items()}
    excess = sum(map(len, parts.values())) + len("=: ; ") - MAX_CHARACTERS
    for name, least in _LEAST.items():
        if excess > 0:
            before = len(parts[name])
            n = max(least, before - excess)
            if before > n:
                parts[name] = f"{parts[name][: n - 1]}…" if name == "reason" else shortened(parts[name], n)
            excess -= before - len(parts[name])
    return "{key}={value}: {reason}; {remedy}".format(**parts)


def shortened(text: str, n: int) -> str:
    """At most ``n`` characters: of a longer text both ends, as a path's name and a list's last are there."""
    return (
        text if len(text) <= n else f"{text[: (n - 1) // 2 + (n - 1) % 2]}…{text[len(text) - (n - 1) // 2 :]}"
    )


def visible(text: str) -> str:
    """With what would break the line, or could not be printed, written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one that was probably meant, if there is one: a key may lack its section, or have another's."""
    mine = word.rpartition(".")[2]

    def likeness(known: str) -> float:
        last = known.rpartition(".")[2]
        likely = _likeness(mine, last)
        moved = likely >= (_SAME if mine == word else 1)
        return max(_likeness(word, known), moved * _MOVED * likely)

    best = max(dict.fromkeys(words), key=likeness, default=None)
    return best if best is not None and likeness(best) >= _ALIKE else None


def _likeness(a: str, b: str) -> float:
    a, b = a.lower(), b.lower()
    begins = len(a) >= _SHORTEST and b.startswith(a)
    return max(_BEGINS * begins, SequenceMatcher(None, a, b, autojunk=False).ratio())


def one_of(word: str, names: Iterable[str]) -> str:
    """The remedy for a word that is none of the names: the nearest of them, then all."""
    names = list(names)
    near = nearest(word, names) if word != "null" else None
    return f"{f'did you mean {near}? ' if near else ''}write one of {', '.join(names)}"


def no_such_key(key: str, value: object, keys: Iterable[str], otherwise: str) -> BadInput:
    """For a key that nobody knows, among all that there are.

    Args:
        otherwise: what to do where no other key is like it.
    """
    keys = list(keys)
    section, dot, _ = key.rpartition(".")
    beside = [known.removeprefix(f"{section}.") for known in keys if known.rpartition(".")[0] == section]
    if near := nearest(key, keys):
        remedy = f"did you mean {near}?"
    elif dot and beside:
        remedy = f"{section} has {', '.join(beside)}"
    else:
        remedy = otherwise
    return BadInput(key, value, NO_SUCH_KEY, remedy)


def several_values(key: str, value: str, reason: str, override: str, why: str = "") -> BadInput:
    """For what only a search takes.

    Args:
        override: what a search is to be given.
        why: what that does, where it is not plain.
    """
    remedy = f"write -m {shlex.quote(override)}{why}"
    return BadInput(key, value, reason, remedy, f"call {search_call([override])}{why}")


def search_call(overrides: Sequence[str]) -> str:
    """What searches with these overrides in Python."""
    return f"sweeper.sweep([{', '.join(map(_quoted, overrides))}])"


def _quoted(override: str) -> str:
    return repr(override) if '"' in override or "\\" in override else f'"{override}"'


@contextmanager
def named(name: str, *others: str) -> Iterator[None]:
    """Let bad input be called what it is called here: an argument of a command is not one of a function."""
    try:
        yield
    except BadInput as error:
        if error.key in others:
            raise BadInput(name, *error.args[1:]) from error
        raise


def bad_override(error: BaseException, overrides: Sequence[str], keys: Sequence[str] = ()) -> BadInput:
    """What Hydra or OmegaConf refused, in one line that names the override it was about.

    Args:
        overrides: the command line's, among which the guilty one is looked for.
        keys: those of the app, among which the nearest to a misspelt one is looked for.
    """
    if isinstance(known := _cause_of_type(error, BadInput), BadInput):
        return known
    if group := re.search(r"You must specify '(.+?)'", str(error)):
        options = ", ".join(str(error).partition("Available options:")[2].split())
        return BadInput(group[1], "???", "the defaults list leaves it open", f"write one of {options}")
    if group := re.search(r"Multiple values for (\S+?)\. ", str(error)):
        chosen = _guilty(f"'{group[1]}'", "", overrides)
        remedy = f"write {chosen.lstrip('+')}" if chosen else "leave one of them out"
        return BadInput(group[1], chosen.partition("=")[2], "has an option already", remedy)
    if file := re.match(r"In '(.+?)': \w+ raised while composing", str(error)):
        return _bad_file(file[1], _cause_with_key(error) or error, keys)
    cause = error.__cause__ or error
    full_key = str(getattr(cause, "full_key", None) or "")
    text, reason = " ".join(f"{error} {cause}".split()), first_line(error)
    override = getattr(error, "override", None) or _guilty(text, full_key, overrides)
    if not override and (name := re.search("Interpolation key '(.+?)' not found", reason)):
        override = next((o for o in overrides if f"${{{name[1]}" in o), "")
    if variable := re.search(r"Environment variable '(.+?)' not found", reason):
        override = next((o for o in overrides if f"oc.env:{variable[1]}" in o), override)
        key, _, value = (override or full_key).partition("=")
        written, told = f"${{oc.env:{variable[1]}}}", f"the environment variable {variable[1]} is not set"
        return BadInput(key or "config", value or written, told, f"export {variable[1]}=…")
    key, _, value = override.partition("=")
    shown = "--cfg job shows the keys there are"
    if key.startswith("hydra"):
        shown = "--cfg hydra shows the keys there are"
    if names := _available(str(error)):
        return BadInput(key, value, "there is no such option", one_of(value, names))
    if "Ambiguous value" in text or "requires --multirun" in text:
        return several_values(key, value, "several values need a search", override)
    if override.startswith("~"):
        return BadInput(key, value, "cannot be deleted", "leave it out, or write KEY=VALUE")
    if function := re.match(r"Unknown function '(.+?)'", reason):
        return BadInput(key, value, reason, _function_like(function[1]))
    if "grammar" in text:
        quoted = shlex.quote(f'{key}="…"')
        remedy = f"write it in Hydra's override grammar, other text as {quoted}"
        what = _NO_CLASS.sub("", reason)
        return BadInput(key, value, "cannot be read" if what == override else what, remedy)
    if "is not in struct" in reason or "not in '" in reason:
        inside = full_key if full_key.startswith(f"{key}.") else key  # of a whole node that was written
        return no_such_key(inside or full_key, value, keys, shown)
    if "is not a ListConfig" in reason and value:
        return BadInput(key, value, "must be a list", f"write {shlex.quote(f'{key}=[{value}]')}")
    if full_key:
        return BadInput(key, value, reason, "write a value of the type that is there; " + shown)
    return BadInput(key or "config", value, reason or type(error).__name__, shown)


def _function_like(name: str) -> str:
    """The remedy for a sweep that Hydra does not know."""
    if "log" in name:
        return "write tag(log, interval(LOW, HIGH))"
    return one_of(name, ("choice", "interval", "range", "int", "tag", "glob", "shuffle", "sort"))


def _bad_file(file: str, cause: BaseException, keys: Sequence[str]) -> BadInput:
    """What a config file of the person's has and may not have."""
    key, value = str(getattr(cause, "full_key", "")), getattr(cause, "value", None) or ""
    reason = next(iter(str(cause).splitlines()), type(cause).__name__)
    if "is not in struct" in reason or "not in '" in reason:
        error = no_such_key(key, value, keys, "leave it out")
        return BadInput(key, value, f"{NO_SUCH_KEY} (in {file}.yaml)", error.remedy)
    remedy = "write a value of the type that is there"
    return BadInput(key or file, value, f"{reason} (in {file}.yaml)", remedy)


def _cause_with_key(error: BaseException | None) -> BaseException | None:
    """What OmegaConf said, below what Hydra made of it."""
    while error is not None and not getattr(error, "full_key", None):
        error = error.__cause__ or error.__context__
    return error


def bad_option(
    error: Exception, overrides: Sequence[str], options: Callable[[str], list[str]]
) -> BadInput | None:
    """What Hydra refuses without saying where: an option that reads as a number, true, false or null.

    Args:
        options: gives the names of a group's options, none where there is no such group.

    Returns:
        None where it is about something else.
    """
    if not isinstance(error, ValueError):
        return None
    for override in overrides:
        if override.startswith("="):
            return BadInput("override", override, "has no key", "write KEY=VALUE")
    for override in overrides if "Config group override must be" in str(error) else ():
        key, _, value = override.partition("=")
        names = options(key.lstrip("+~").partition("@")[0])
        if names and value not in names:
            return BadInput(key, value, "there is no such option", one_of(value, names))
    return None


def bad_folder(error: Exception) -> BadInput | None:
    """A folder that Hydra cannot make, or write its log and its configs into, as logging tells it or not."""
    cause = _cause_of_type(error, OSError)
    if not isinstance(cause, PermissionError | NotADirectoryError | FileExistsError | FileNotFoundError):
        return None
    if _is_ours(_modules(error)):
        return None
    remedy = "run it in a folder that can be written to, or set hydra.run.dir"
    return BadInput("folder", cause.filename, f"cannot be written ({cause.strerror})", remedy)


def _modules(error: BaseException) -> list[str]:
    """Those through which an exception came, the innermost last."""
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]


def _is_ours(modules: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(_SEARCHES_OR_RUNS) for name in modules)


_SEARCHES_OR_RUNS = ("hydra_plugins.sweeper_optuna.", "sweeper.search.", "sweeper.run")


def bad_setting(error: Exception, overrides: Sequence[str]) -> BadInput | None:
    """What Hydra met before anything of ours ran, in a setting of its own that it does not check.

    Returns:
        None where nothing of Hydra's was typed, or where the search or the training raised it.
    """
    modules = _modules(error)
    if _is_ours(modules) or isinstance(error, BadInput):
        return None
    reason = first_line(error) or type(error).__name__
    if isinstance(error, ValueError) and modules[-1] in ("hydra.main", "hydra._internal.utils"):
        return BadInput("command", " ".join(sys.argv[1:]), reason, "--help shows what there is")
    typed = [override for override in overrides if override.lstrip("+~").startswith(("hydra.", "hydra/"))]
    key, _, value = " ".join(typed).partition("=")
    return BadInput(key, value, reason, "--cfg hydra shows what it is otherwise") if typed else None


def first_line(error: BaseException) -> str:
    """What Hydra says first of the reason; Hydra 1.4 counts the overrides before it does."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return next((line for line in lines if not line.startswith("Error when parsing index")), "")


def _cause_of_type(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _guilty(text: str, full_key: str, overrides: Sequence[str]) -> str:
    """The override that an error text speaks of."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if override in text or (key and (key == full_key or f"'{key}'" in text or f"'{key}/" in text)):
            return override
    if full_key:
        return full_key
    named = [o for o in overrides if o.startswith("hydra.") and o.partition("=")[0] in text.split()]
    return named[0] if named else ""


def _available(text: str) -> list[str]:
    """The names that Hydra lists behind 'Available options', one a line."""
    _, found, rest = text.partition("Available options in ")
    lines = [line.strip() for line in rest.splitlines()[1:]]
    return (
        list(takewhile(lambda line: line and not line.startswith("Config search path"), lines))
        if found
        else []
    )
