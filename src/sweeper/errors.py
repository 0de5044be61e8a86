"""What the user got wrong, said in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import takewhile

from sweeper.secret import hide_secrets


class BadInput(Exception):
    """Something the user wrote cannot work. Shown as one line without a traceback; exit code 2.

    Args:
        key: what was set, as the user writes it (``training.batch_size``).
        value: what it was set to.
        reason: why that cannot work.
        remedy: what to write instead.
    """

    exit_code = 2

    def __init__(self, key: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(key, value, reason, remedy)
        self.key, self.value, self.reason, self.remedy = key, value, reason, remedy

    def __str__(self) -> str:
        shown = "null" if self.value is None else str(self.value)
        return hide_secrets(f"{self.key}={shown}: {self.reason}; {self.remedy}")


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
    cause = error.__cause__ or error
    full_key = str(getattr(cause, "full_key", None) or "")
    text, reason = " ".join(f"{error} {cause}".split()), first_line(error)
    override = getattr(error, "override", None) or _guilty(text, full_key, overrides)
    key, _, value = override.partition("=")
    shown = "--cfg job shows the keys there are"
    if key.startswith("hydra"):
        shown = "--cfg hydra shows the keys there are"
    if names := _available(str(error)):
        return BadInput(key, value, "there is no such option", f"write one of {', '.join(names)}")
    if "Ambiguous value" in text or "requires --multirun" in text:
        return BadInput(key, value, "several values need a search", f"write -m {override}")
    if "grammar" in text:
        return BadInput(key, value, reason, "write it in Hydra's override grammar (quotes protect strings)")
    if "is not in struct" in reason or "not in '" in reason:
        return BadInput(key, value, "there is no such key", _nearest(full_key or key, keys) or shown)
    if full_key:
        return BadInput(key, value, reason, "write a value of the type that is there; " + shown)
    return BadInput(key or "config", value, reason or type(error).__name__, shown)


def bad_option(error: ValueError, overrides: Sequence[str], options: Callable[[str], list[str]]) -> BadInput:
    """What Hydra refuses without saying where: an option that reads as a number, true, false or null.

    Args:
        options: gives the names of a group's options, none where there is no such group.

    Raises:
        ValueError: the error itself, where it is about something else.
    """
    for override in overrides:
        if override.startswith("="):
            raise BadInput("override", override, "has no key", "write KEY=VALUE") from error
    for override in overrides if "Config group override must be" in str(error) else ():
        key, _, value = override.partition("=")
        names = options(key.lstrip("+~").partition("@")[0])
        if names and value not in names:
            return BadInput(key, value, "there is no such option", f"write one of {', '.join(names)}")
    raise error


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


def _nearest(key: str, keys: Sequence[str]) -> str | None:
    group = key.partition(".")[0] + "."
    near = get_close_matches(key, keys, n=1) or [known for known in keys if known.startswith(group)]
    return f"did you mean {near[0]}?" if near else None
