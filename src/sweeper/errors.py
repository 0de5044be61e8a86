"""What the user got wrong, said in one line."""

from __future__ import annotations


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
