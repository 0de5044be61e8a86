"""A storage that stands before another one."""

from __future__ import annotations

import abc
from typing import Any

from optuna.storages import BaseStorage


class Delegate(BaseStorage):
    """What a class of this kind does not answer itself is asked of the storage behind it, by ``_call``."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self._storage, name)(*arguments, **named)


def _method(name: str) -> Any:
    def call(self: Delegate, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    return call


for _name in [name for name in vars(BaseStorage) if not name.startswith("_")]:
    setattr(Delegate, _name, _method(_name))
abc.update_abstractmethods(Delegate)  # type: ignore[type-abstract]
