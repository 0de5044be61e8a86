"""What the user got wrong, said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile


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
        return f"{self.key}={shown}: {self.reason}; {self.remedy}"


def bad_override(error: BaseException, overrides: Sequence[str]) -> BadInput:
    """What Hydra or OmegaConf refused, in one line that names the override it was about.

    Args:
        overrides: the command line's, among which the guilty one is looked for.
    """
    cause = error.__cause__ or error
    full_key = str(getattr(cause, "full_key", None) or "")
    text = " ".join(f"{error}".split()) or type(error).__name__
    override = getattr(error, "override", None) or _guilty(text, full_key, overrides)
    key, _, value = override.partition("=")
    if names := _available(str(error)):
        return BadInput(key, value, "there is no such option", f"write one of {', '.join(names)}")
    if "is not in struct" in str(cause) or "not in '" in str(cause):
        return BadInput(key, value, "there is no such key", _nearest(full_key or key))
    if cause is not error and "could not be converted" in str(cause):
        return BadInput(key, value, str(cause).splitlines()[0], "write a value of that type")
    reason = text if cause is error else f"{text} {str(cause).splitlines()[0]}"
    return BadInput(key or "command line", value, reason, "python -m sweeper --cfg job shows the keys there are")


def _guilty(text: str, full_key: str, overrides: Sequence[str]) -> str:
    """The override that an error text speaks of."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if override in text or (key and (key == full_key or f"'{key}" in text)):
            return override
    return full_key


def _available(text: str) -> list[str]:
    """The names that Hydra lists behind 'Available options', one a line."""
    _, found, rest = text.partition("Available options in ")
    lines = [line.strip() for line in rest.splitlines()[1:]]
    return list(takewhile(bool, lines)) if found else []


def _nearest(key: str) -> str:
    from sweeper.schema import Run, flatten

    keys = [name for name, _ in flatten(Run())]
    near = get_close_matches(key, keys, n=1) or [k for k in keys if k.startswith(key.partition(".")[0] + ".")]
    return f"did you mean {near[0]}?" if near else "python -m sweeper --cfg job shows the keys there are"
