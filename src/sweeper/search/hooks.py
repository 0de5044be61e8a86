"""What an app can give a search beyond its task function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hydra.types import TaskFunction
    from omegaconf import DictConfig

Task = TypeVar("Task", bound=Callable[..., object])


@dataclass(frozen=True)
class Hooks:
    """Given to a task function by decorating it, under ``hydra.main``: ``@sweeper.Hooks(check=…)``.

    Args:
        check: is called with a config of each combination of options, before anything is written or started;
            it raises ``sweeper.errors.BadInput`` for what cannot run.
        preload: modules that are imported once for all workers. None of them may use a GPU, or start a
            thread, when it is imported: the workers are forked from the process that has.
        conclude: is called with the study's folder by the worker that leaves last, if it can: a chance to use
            what is loaded there. What it raises is ignored.
        finish: is called with the study's folder in the process of the command, at the end of a search.
    """

    check: Callable[[DictConfig], None] | None = None
    preload: Sequence[str] = ()
    conclude: Callable[[Path], None] | None = None
    finish: Callable[[Path], None] | None = None

    def __call__(self, task: Task) -> Task:
        task.hooks = self  # type: ignore[attr-defined]
        return task

    @classmethod
    def of(cls, task: TaskFunction) -> Hooks:
        """Those of a task function; without any, they do nothing."""
        found = getattr(task, "hooks", None)
        return found if isinstance(found, cls) else cls()
