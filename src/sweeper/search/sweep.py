"""A sweep: checked, opened as a study, and run by a pool of workers, or by the jobs of a launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import optuna
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.storages import BaseStorage

from sweeper import caller, filesystem
from sweeper.caller import Ended
from sweeper.errors import BadInput
from sweeper.fault import Fault, find_told
from sweeper.search import artifact, command, engine, keys, life, opening, repeat
from sweeper.search.end import finish
from sweeper.search.fork import ForkingCrew, why_not_fork
from sweeper.search.heart import Heart
from sweeper.search.hooks import Hooks
from sweeper.search.job import to_yaml
from sweeper.search.life import Entry
from sweeper.search.pool import Pool, requests, shared_cores
from sweeper.search.process import Board, Crew, handling
from sweeper.search.progress import Progress
from sweeper.search.sampler import is_grid, try_out
from sweeper.search.search import Search
from sweeper.search.settings import (
    check_objective,
    find_function,
    read_settings,
    rename,
    study_key,
)
from sweeper.search.space import Space
from sweeper.search.spawn import SpawningCrew
from sweeper.search.storage import look_into_storage, open_storage
from sweeper.search.study import NameTaken, Study
from sweeper.search.trial import Interrupted, Interruption
from sweeper.search.worker import App, main, work
from sweeper.secret import hide_secrets

log = logging.getLogger(__name__)


_RACE = "sweeper.results.race"
"""What the workers of a certificate ask who is next: it imports scipy."""
_DATABASE = "sweeper.search.database"
"""What workers need for a storage in a database: it imports SQLAlchemy, which takes half a second."""


def sweep(
    settings: Mapping[str, Any],
    context: HydraContext,
    task: TaskFunction,
    master: DictConfig,
    arguments: Sequence[str],
) -> optuna.Study:
    """Run a whole sweep: what Hydra calls for ``-m``. Exits with 2, 1 or 130 (143) as docs/files.md says."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    app = App(context, task, master, tuple(arguments), Singleton.get_state())
    search: Search | None = None
    try:
        search, n_workers, gpus = read_settings(settings, master)
        is_here, n_jobs = (keys.read(settings)[name] for name in ("in_process", "n_jobs"))
        is_launched = opening.is_chosen(master)
        if is_launched:
            opening.check(master, search, is_here)
        # While nothing is open yet.
        has_none = is_here or is_launched
        crew = contextlib.nullcontext() if has_none else _open_crew(app, n_workers, search)
        with crew as workers:
            # A Ctrl-C ends the process at once: within a composition it might be lost.
            with handling(lambda signum, frame: os._exit(128 + signum), signal.SIGINT):
                app, study, storage, space = _begin(app, search)
                search = study.search
            if is_launched:
                signum = opening.run(study, storage, master, opening.n_jobs(n_jobs))
            else:
                signum = _run_pool(app, study, storage, space, workers, n_workers, gpus)
        finish(study, task, master, signum)
    except KeyboardInterrupt:  # nothing has begun
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if (told := find_told(error)) is None:
            raise
        to_go_on = f"; to go on: {command.to_go_on(search, master)}" if isinstance(told, Fault) else ""
        caller.print_last(f"{told}{to_go_on}")
        raise Ended(told) from error
    return study.optuna


def _run_pool(
    app: App,
    study: Study,
    storage: BaseStorage,
    space: Space,
    workers: tuple[Crew, Board] | None,
    n_workers: int,
    gpus: Sequence[str],
) -> int | None:
    """Run the trials in worker processes of this machine, or here where there are none."""
    with _heart(study, storage, n_workers, is_here=workers is None) as heart:
        study.search = replace(study.search, pool=heart.name)
        if workers is None:
            return _run_here(app, study, storage, space)
        with Progress(study) as progress:
            return Pool(study, storage, *workers, n_workers, gpus, progress, heart).run()


def _begin(app: App, search: Search) -> tuple[App, Study, BaseStorage, Space]:
    """Check everything, then open the study."""
    named_by, arguments = study_key(app.master), list(app.arguments)
    for n in count(2):
        space = Space(app.master, arguments, app.context.config_loader)
        check(Hooks.of(app.task), space, search, named_by)
        if search.plan is not None:
            has_own_space = search.custom_search_space is not None
            search = search.of_plan(repeat.checked(app.task, search.plan, space, has_own_space))
        if search.artifacts is not None:
            artifact.check(search.artifacts)
        opened = look_into_storage if search.is_joined else open_storage
        storage = opened(search.storage, search.storage_wait_s)
        if search.artifacts is None and (search := search.with_its_artifacts(storage)).artifacts is not None:
            artifact.check(search.artifacts)
        search = replace(search.in_its_folder(storage), command=tuple(command.words()))
        fixed = [hide_secrets(o) for o in space.fixed if o.partition("=")[0] != named_by]
        try:
            study = Study.open(search, storage, space, fixed)
        except NameTaken:  # two searches began in one second
            search, arguments = rename(search, app.master, app.arguments, n)
            continue
        caller.say(study=str(study.files.folder))
        if search.plan is not None:
            search.plan.write(study.files)
        if not (search.is_joined and study.files.sweep_config.exists()):
            filesystem.write_whole(study.files.sweep_config, to_yaml(app.master))
        break
    return replace(app, arguments=tuple(arguments)), study, storage, space


def _heart(study: Study, storage: BaseStorage, n_workers: int, is_here: bool) -> Heart:
    """What tells the study of this pool; a search in its own process has no beat: the task may hold it up."""
    search = study.search
    entry = Entry.here(study.files, n_workers, None if is_here else search.heartbeat_s, engine.job())
    ordered = engine.order()
    n_stops = None if ordered is None else ordered.stops
    return Heart(storage, study.optuna._study_id, life.new_name(), entry, search.grace_s, n_stops)


@contextmanager
def _open_crew(app: App, n_workers: int, search: Search) -> Iterator[tuple[Crew, Board]]:
    """Fork the server of the workers, or say in the log why they are spawned."""
    reason = why_not_fork()
    with contextlib.closing(Board(n_workers, is_forked=reason is None)) as board:
        body = partial(main, app, board)
        crew: Crew
        if reason is None:
            modules = [*Hooks.of(app.task).modules(app.master), *_own_modules(search)]
            crew = ForkingCrew(body, modules, shared_cores(n_workers))
        else:
            log.info("Workers are spawned, not forked from this process: %s. They start later.", reason)
            crew = SpawningCrew(body, reason)
        with contextlib.closing(crew):
            yield crew, board


def _own_modules(search: Search) -> list[str]:
    """What each worker would import itself."""
    is_database = "://" in search.storage and not search.storage.startswith("grpc://")
    return [*([_RACE] if search.plan is not None else []), *([_DATABASE] if is_database else [])]


def check(hooks: Hooks, space: Space, search: Search, named_by: str) -> None:
    """Compose each option and set each range's ends, before anything is written or started.

    Args:
        named_by: the key that names the study.
    """
    for draw in space.variations():
        if hooks.check is not None and search.plan is None:  # of a certificate only what it will train
            check_objective(search, draw.config)
            hooks.check(draw.config)
    if search.custom_search_space is not None:
        find_function("hydra.sweeper.custom_search_space", search.custom_search_space)
    if named_by in space.parameters():
        raise BadInput(named_by, "several", "a search is one study", "write one name")
    try_out(search.sampler, search.pruner, search.seed, search.directions, space)
    if is_grid(search.sampler):
        next(space.points())


def _run_here(app: App, study: Study, storage: BaseStorage, space: Space) -> int | None:
    interruption = Interruption(second_kills=True)
    try:
        with handling(interruption.hear, *requests()):
            work(app, study.search, storage, interruption, is_own_process=False, space=space)
    except Interrupted as stop:
        return stop.signum
    return None
