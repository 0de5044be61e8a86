"""A worker: ask → compose → run the Hydra job → tell, until the budget is spent."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import optuna
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper import record
from sweeper.search import study as studies
from sweeper.search.hooks import Hooks
from sweeper.search.job import run_job
from sweeper.search.parameter import suggest
from sweeper.search.sampler import find
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Search, Worker
from sweeper.search.trial import Interrupted, Interruption, StudyTrial, running


@dataclass(frozen=True)
class Assignment:
    """What a worker is given: the app, its config, and the search. All else it reads from the storage."""

    search: Search
    context: HydraContext
    task: TaskFunction
    master: DictConfig
    arguments: tuple[str, ...]
    singletons: Any
    """Hydra's process-wide state, which a spawned process does not share."""


def main(pickled: bytes, index: int, environment: Mapping[str, str]) -> None:
    """The body of a worker process, which was forked from one that has imported all this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the pool speaks for it
    interruption = Interruption()
    interruption.install(signal.SIGTERM)
    _die_with_parent()
    gc.freeze()  # what all workers share stays shared: a collection would write to it
    np.random.seed()  # or all would draw the same numbers
    os.environ.clear()
    os.environ.update(environment)
    assignment: Assignment = cloudpickle.loads(pickled)
    Singleton.set_state(assignment.singletons)
    setup_globals()
    with _output_to(record.worker_log(assignment.search.folder, index)), contextlib.suppress(Interrupted):
        work(assignment, open_storage(assignment.search.storage), interruption, is_own_process=True)


def work(
    assignment: Assignment,
    storage: BaseStorage,
    interruption: Interruption,
    is_own_process: bool,
    space: Space | None = None,
) -> None:
    """Run trials until there is nothing left to do.

    Raises:
        Interrupted: when a stop signal came; the running trial is told and queued again.
    """
    search = assignment.search
    space = space or Space(assignment.master, assignment.arguments, assignment.context.config_loader)
    study = studies.load_study(search, storage)
    optuna.logging.enable_propagation()  # so that Hydra's log files have Optuna's lines too
    optuna.logging.disable_default_handler()
    worker = Worker(search)
    try:
        while (trial := _next_trial(search, study, space, worker, interruption)) is not None:
            _run_trial(assignment, study, space, trial, interruption, is_own_process)
            gc.collect()  # a trial's cycles may hold its model (optuna#5931)
            gc.freeze()  # what is left stays, so that the next collection need not look at it
        with interruption.allowed():
            _conclude(assignment, study)
    finally:
        gc.unfreeze()
        worker.end()


def _next_trial(
    search: Search, study: optuna.Study, space: Space, worker: Worker, interruption: Interruption
) -> optuna.Trial | None:
    interruption.check()
    return None if studies.is_over(search, study) else studies.ask(search, study, space, worker)


def _conclude(assignment: Assignment, study: optuna.Study) -> None:
    """The task's ``conclude``, where this is the last worker to leave: with all it needs still loaded."""
    on_last_worker = Hooks.of(assignment.task).on_last_worker
    trials = study.get_trials(deepcopy=False)
    is_last = not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)
    if on_last_worker is not None and is_last and not studies.has_failed(assignment.search, trials):
        with contextlib.suppress(Exception):
            on_last_worker(assignment.search.folder)


def _run_trial(
    assignment: Assignment,
    study: optuna.Study,
    space: Space,
    trial: optuna.Trial,
    interruption: Interruption,
    captures_output: bool,
) -> None:
    search = assignment.search
    folder = search.folder / str(trial.number)
    try:
        config, folder = _compose(assignment, space, trial)
        record.clear_trial(search.folder, trial.number)
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr("overrides", list(OmegaConf.to_container(config.hydra.overrides.task)))  # type: ignore[arg-type]
        output = _output_to(folder / record.OUTPUT) if captures_output else contextlib.nullcontext()
        with output, running(StudyTrial(trial, interruption)), interruption.allowed():
            job = run_job(assignment.task, config, folder, assignment.context)
    except Interrupted as stop:
        reason = f"interrupted ({signal.Signals(stop.signum).name})"
        studies.tell_interrupted(search, study, trial.number, reason)
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever the app does, the trial is told
        _tell_failed(search, study, trial, folder, error)
    else:
        _tell_result(search, study, trial, folder, job)


def _compose(assignment: Assignment, space: Space, trial: optuna.Trial) -> tuple[DictConfig, Path]:
    draw = space.draw(suggest(trial), {"num": trial.number, "id": str(trial.number)})
    config = draw.config
    extra = _extend(assignment.search, config, trial, set(draw.params))
    hydra = config.hydra
    with flag_override(hydra, ["readonly", "struct"], [False, False]):
        hydra.sweep.dir = str(assignment.search.folder)
        if extra:
            hydra.overrides.task = [*draw.overrides, *(f"{key}={value}" for key, value in extra.items())]
    for key, value in extra.items():
        OmegaConf.update(config, key, value, merge=True)
    return config, assignment.search.folder / str(OmegaConf.select(config, "hydra.sweep.subdir"))


def _extend(search: Search, config: DictConfig, trial: optuna.Trial, drawn: set[str]) -> dict[str, Any]:
    """The parameters that the person's own ``custom_search_space`` function suggests."""
    if search.custom_search_space is None:
        return {}
    extend = find("hydra.sweeper.custom_search_space", search.custom_search_space)
    extend(config, trial)
    return {name: value for name, value in trial.params.items() if name not in drawn}


def _tell_result(
    search: Search, study: optuna.Study, trial: optuna.Trial, folder: Path, job: JobReturn
) -> None:
    if job.status == JobStatus.FAILED:
        error = job._return_value  # the property of that name prints, and raises it
        if isinstance(error, optuna.TrialPruned):
            studies.tell(search, study, trial.number, TrialState.PRUNED)
        else:
            _tell_failed(search, study, trial, folder, error)
        return
    try:
        values = _values(job.return_value, len(study.directions))
    except TypeError as error:
        _tell_failed(search, study, trial, folder, error)
        return
    if all(math.isfinite(value) for value in values):
        studies.tell(search, study, trial.number, TrialState.COMPLETE, values)
        return
    if len(values) == 1 and not study.get_trials(deepcopy=False)[trial.number].intermediate_values:
        trial.report(values[0], step=0)
    studies.tell(search, study, trial.number, TrialState.PRUNED, attributes={"diverged": True})


def _values(returned: Any, n_objectives: int) -> list[float]:
    several = isinstance(returned, Sequence) and not isinstance(returned, str)
    try:
        values = [_number(value) for value in (returned if several else [returned])]
    except (TypeError, ValueError):
        raise TypeError(
            f"the task function returned {returned!r}; return the score to search for, a float"
        ) from None
    if len(values) != n_objectives:
        raise TypeError(
            f"the task function returned {len(values)} values for {n_objectives} objectives; "
            "return as many as hydra.sweeper.direction has"
        )
    return values


def _number(value: Any) -> float:
    if isinstance(value, str):  # float would read some
        raise TypeError(value)
    return float(value)


def _tell_failed(
    search: Search, study: optuna.Study, trial: optuna.Trial, folder: Path, error: BaseException
) -> None:
    text = "".join(traceback.format_exception(error))
    record.write_whole(folder / record.TRACEBACK, text)
    reason = f"{type(error).__name__}: {error}"
    logging.getLogger(__name__).error("Trial %d failed: %s", trial.number, reason)
    attributes = {"reason": reason, "traceback": text}
    studies.tell(search, study, trial.number, TrialState.FAIL, attributes=attributes)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Everything the process prints, C code's last words included, goes to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        before = [(stream, os.dup(stream)) for stream in (1, 2)]
        for stream, _ in before:
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, saved in before:
            os.dup2(saved, stream)
            os.close(saved)


def _die_with_parent() -> None:
    """A worker whose pool was killed has nobody to stop it: it goes too, and its trial is found dead."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
