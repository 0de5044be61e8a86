"""What an app can give a search beyond its task function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sweeper.fault import find_fault

if TYPE_CHECKING:
    from hydra.types import TaskFunction
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

Task = TypeVar("Task", bound=Callable[..., object])

Preload = Sequence[str] | Callable[["DictConfig"], Sequence[str]]


@dataclass(frozen=True)
class Hooks:
    """The hooks of a task function; see ``hooks``."""

    check: Callable[[DictConfig], None] | None = None
    preload: Preload = ()
    on_last_worker: Callable[[Path], None] | None = None
    on_finish: Callable[[Path], None] | None = None
    seeds_by_trial: bool = False

    @classmethod
    def of(cls, task: TaskFunction) -> Hooks:
        """Those of a task function; without any, they do nothing."""
        found = getattr(task, "hooks", None)
        return found if isinstance(found, cls) else cls()

    def modules(self, config: DictConfig) -> Sequence[str]:
        """What to import once for all workers of a search with this config."""
        return self.preload(config) if callable(self.preload) else self.preload


def hooks(
    *,
    check: Callable[[DictConfig], None] | None = None,
    preload: Preload = (),
    on_last_worker: Callable[[Path], None] | None = None,
    on_finish: Callable[[Path], None] | None = None,
    seeds_by_trial: bool = False,
) -> Callable[[Task], Task]:
    """Decorate a task function, under ``hydra.main``: ``@sweeper.hooks(check=…)``.

    What ``on_last_worker`` and ``on_finish`` raise is logged, and the search ends as it would without them.

    Args:
        check: called with a config of each combination of options, before anything is written or started;
            it raises ``sweeper.BadInput`` for what cannot run.
        preload: modules to import once for all workers. None of them may use a GPU, or start a thread, when
            it is imported: the workers are forked from the process that imported them. Or a function that
            names them by the config which the search was started with, before anything has checked it.
        on_last_worker: called with the study's folder in the last worker to exit, which still has all that
            the trials loaded. Best-effort: a worker that is killed does not call it.
        on_finish: called with the study's folder in the command's own process, at the end of a search.
        seeds_by_trial: whether all that should differ between two trainings of one configuration follows
            from ``sweeper.trial().seed``: then a certificate leaves the seed in the config alone, by which
            an app may also split its data.
    """
    modules = preload if callable(preload) else tuple(preload)

    def decorate(task: Task) -> Task:
        task.hooks = Hooks(check, modules, on_last_worker, on_finish, seeds_by_trial)  # type: ignore[attr-defined]
        return task

    return decorate


def call_logged(hook: Callable[[Path], None], folder: Path) -> None:
    """Call a hook at the end of a search; what it raises is logged, as the trials are safe already.

    Raises:
        Fault: where a disk or a server failed.
    """
    try:
        hook(folder)
    except Exception as error:
        if (fault := find_fault(error)) is not None:
            raise fault from error
        log.exception("%s failed", getattr(hook, "__name__", hook))
