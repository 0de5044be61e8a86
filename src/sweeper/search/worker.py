"""A worker: ask → compose → run the Hydra job → tell, until the budget is spent."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import optuna
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper import filesystem
from sweeper.errors import BadInput
from sweeper.fault import Fault, disk, find_fault
from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.results.plan import CANDIDATE, REPEAT, Plan
from sweeper.search import repeat
from sweeper.search.fork import flush_files
from sweeper.search.hooks import Hooks, call_logged
from sweeper.search.job import run_job
from sweeper.search.locked_study import Worker
from sweeper.search.output import output_to, redirect_to, secrets_hidden_in
from sweeper.search.parameter import Suggest, suggest
from sweeper.search.process import Board, for_the_pool, is_heard
from sweeper.search.search import Search
from sweeper.search.settings import find_function
from sweeper.search.space import Draw, Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Study
from sweeper.search.trial import Interrupted, Interruption, StudyTrial, running
from sweeper.secret import hide_known_secrets

_MAX_CHARACTERS = 20_000
"""Of a traceback that goes into the storage; the file has all of it."""


@dataclass(frozen=True)
class App:
    """The Hydra app whose trials a worker runs, as its sweep found it."""

    context: HydraContext
    task: TaskFunction
    master: DictConfig
    """The sweep's own config."""
    arguments: tuple[str, ...]
    singletons: Any
    """Hydra's process-wide state, which a spawned process does not share."""


def main(app: App, board: Board, search: Search, index: int, environment: Mapping[str, str]) -> None:
    """The body of a worker process."""
    before = {signum: signal.getsignal(signum) for signum in for_the_pool()}
    os.register_at_fork(after_in_child=partial(_set_handlers, before))  # the app's own processes are its own
    interruption = Interruption(is_asked=board.is_asked_to_stop)
    _listen_to_the_pool(interruption)
    os.environ.update(environment)
    if "OMP_NUM_THREADS" in environment:
        _limit_loaded_libraries(int(environment["OMP_NUM_THREADS"]))
    if "numpy" in sys.modules:  # or all would draw the same numbers, as Python's own module knows
        sys.modules["numpy"].random.seed()
    Singleton.set_state(app.singletons)
    setup_globals()
    log_file = StudyFiles(search.folder).worker_log(index)
    try:
        redirect_to(log_file)  # to the very end: libraries have last words
        with secrets_hidden_in(log_file), _traceback_there(), contextlib.suppress(Interrupted):
            storage = open_storage(search.storage, search.storage_wait_s)
            work(app, search, storage, interruption, is_own_process=True)
    except Fault as fault:  # the pool says it: here it may not even be written
        board.say(index, str(fault))
        raise SystemExit(1) from None


def _listen_to_the_pool(interruption: Interruption) -> None:
    """What reaches the whole group is for the pool, which asks by SIGTERM."""
    others = [signum for signum in for_the_pool() if signum != signal.SIGTERM and is_heard(signum)]
    _set_handlers(dict.fromkeys(others, _ignore))
    interruption.install(signal.SIGTERM)


def _ignore(signum: int, frame: object) -> None:
    """Programs that the app starts do not inherit this, unlike ``SIG_IGN``."""


def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    for signum, handler in handlers.items():
        if handler is not None:  # else C code has set it
            signal.signal(signum, handler)


def _limit_loaded_libraries(n_threads: int) -> None:
    """Tell OpenMP and BLAS libraries, which have read their number of threads when they were loaded."""
    before = dict(os.environ)
    from threadpoolctl import threadpool_limits

    threadpool_limits(n_threads)
    for name in os.environ.keys() - before.keys():  # the import leaves a variable there
        del os.environ[name]


def work(
    app: App,
    search: Search,
    storage: BaseStorage,
    interruption: Interruption,
    is_own_process: bool,
    space: Space | None = None,
) -> None:
    """Run trials until there is nothing left to do.

    Raises:
        Interrupted: when a stop signal came; the running trial is told and queued again.
    """
    space = space or Space(app.master, app.arguments, app.context.config_loader)
    study = Study.load(search, storage)
    study.ledger.read_ends()
    optuna.logging.enable_propagation()  # so that Hydra's log files have Optuna's lines too
    optuna.logging.disable_default_handler()
    worker = Worker(search, search.pool)
    try:
        while (trial := _next_trial(study, space, worker, interruption)) is not None:
            _run_trial(app, study, space, trial, interruption, is_own_process)
            gc.collect()  # a trial's cycles may hold its model (optuna#5931)
            if is_own_process:
                flush_files()  # also those that are frozen now
            gc.freeze()  # what is left stays, so that the next collection need not look at it
        with interruption.allowed():
            _leave(app, study)
    finally:
        if not is_own_process:
            gc.unfreeze()
        worker.end()


def _next_trial(
    study: Study, space: Space, worker: Worker, interruption: Interruption
) -> optuna.Trial | None:
    interruption.check()
    return None if study.is_over() else study.ask(space, worker)


def _leave(app: App, study: Study) -> None:
    """The task's ``on_last_worker``, where this is the last one: with all it needs still loaded."""
    on_last_worker = Hooks.of(app.task).on_last_worker if study.search.plan is None else None
    study.ledger.read_ends()
    is_last = not study.ledger.running and not study.ledger.waiting
    if on_last_worker is not None and is_last and not study.has_failed():
        with contextlib.suppress(BadInput, Fault):  # the pool says it
            study.bring()
        call_logged(on_last_worker, study.files.folder)


def _run_trial(
    app: App,
    study: Study,
    space: Space,
    trial: optuna.Trial,
    interruption: Interruption,
    is_own_process: bool,
) -> None:
    files = TrialFiles(study.files.folder / str(trial.number))
    if is_own_process:
        _listen_to_the_pool(interruption)  # the trial before may have set handlers of its own
    try:
        config, files = _compose(app, study, space, trial)
        study.files.begin(files, trial.number)
        trial.set_user_attr("folder", str(files.folder))
        trial.set_user_attr("overrides", [hide_known_secrets(o) for o in config.hydra.overrides.task])
        output = output_to(files.output) if is_own_process else contextlib.nullcontext()
        plan = study.search.plan
        first = study.ledger.first_try(trial.number)
        seeded_by = (first,) if plan is None else repeat.seeded_by(plan, trial.user_attrs[REPEAT])
        with output, running(StudyTrial(trial, interruption, seeded_by)), interruption.allowed():
            job = run_job(app.task, config, files.folder, app.context)
    except Interrupted as stop:
        if not study.tell_interrupted(trial.number, f"interrupted ({signal.Signals(stop.signum).name})"):
            _drop(trial, files)
        raise
    except Fault as fault:
        _tell_fault(study, trial, fault)
        raise
    except BaseException as error:  # whatever the app does, the trial is told
        _tell_failed(study, trial, files, error)
    else:
        _tell_result(study, trial, files, job)


def _compose(app: App, study: Study, space: Space, trial: optuna.Trial) -> tuple[DictConfig, TrialFiles]:
    job = {"num": trial.number, "id": str(trial.number)}
    plan = study.search.plan
    if plan is None:
        config = _draw(study.search, space, trial, suggest(trial), job).config
    else:
        config = _draw_training(app, study.search, plan, space, trial, job).config
    hydra = config.hydra
    with flag_override(hydra, ["readonly", "struct"], [False, False]):
        hydra.sweep.dir = str(study.files.folder)
    folder = study.files.folder / str(OmegaConf.select(config, "hydra.sweep.subdir"))
    return config, TrialFiles(folder)


def _draw(search: Search, space: Space, trial: optuna.Trial, take: Suggest, job: Mapping[str, Any]) -> Draw:
    draw = space.draw(take, job)
    if search.custom_search_space is None:
        return draw
    return space.draw(take, job, _extend(search, draw, trial))


def _draw_training(
    app: App, search: Search, plan: Plan, space: Space, trial: optuna.Trial, job: Mapping[str, Any]
) -> Draw:
    """A training of a certificate: the candidate's own parameters, with what its repeat changes."""
    candidate = plan.named(trial.user_attrs[CANDIDATE])
    if candidate.params is None:
        draw = space.defaults(job)
    else:
        draw = _draw(search, space, trial, repeat.taken(candidate, suggest(trial)), job)
    return repeat.repeated(app.task, plan, space, draw, trial.user_attrs[REPEAT])


def _extend(search: Search, draw: Draw, trial: optuna.Trial) -> dict[str, Any]:
    """The parameters that the person's own ``custom_search_space`` function suggests, by their keys."""
    assert search.custom_search_space is not None
    find_function("hydra.sweeper.custom_search_space", search.custom_search_space)(draw.config, trial)
    return {name: value for name, value in trial.params.items() if name not in draw.params}


def _tell(
    study: Study,
    trial: optuna.Trial,
    files: TrialFiles,
    state: TrialState,
    values: list[float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    if not study.tell(trial.number, state, values, attributes):
        _drop(trial, files)


def _drop(trial: optuna.Trial, files: TrialFiles) -> None:
    """Leave a trial to others, who have ended it: this process was stopped, or cut off, for too long."""
    what = "Trial %d was ended by others, who heard nothing of this host: its result is dropped."
    logging.getLogger(__name__).warning(what, trial.number)
    if files.is_of(trial.number) and files.run.is_ours:
        with disk(files.folder):
            files.run.remove_weights()
            files.run.val_logits.unlink(missing_ok=True)


def _tell_fault(study: Study, trial: optuna.Trial, fault: Fault) -> None:
    """Queue the parameters again, where that can be stored; else the next search finds the trial."""
    with contextlib.suppress(Fault):
        study.tell_interrupted(trial.number, f"interrupted ({fault})")


def _tell_result(study: Study, trial: optuna.Trial, files: TrialFiles, job: JobReturn) -> None:
    if job.status == JobStatus.FAILED:
        error = job._return_value  # the property of that name prints, and raises it
        if isinstance(error, Fault):
            _tell_fault(study, trial, error)
            raise error
        if isinstance(error, optuna.TrialPruned):
            _tell(study, trial, files, TrialState.PRUNED)
        else:
            _tell_failed(study, trial, files, error)
        return
    try:
        values = to_values(job.return_value, len(study.optuna.directions))
    except TypeError as error:
        _tell_failed(study, trial, files, error)
        return
    if all(math.isfinite(value) for value in values):
        _tell(study, trial, files, TrialState.COMPLETE, values)
        return
    if len(values) == 1 and not study.optuna._storage.get_trial(trial._trial_id).intermediate_values:
        with contextlib.suppress(UpdateFinishedTrialError):
            trial.report(values[0], step=0)
    _tell(study, trial, files, TrialState.PRUNED, attributes={"diverged": True})


def to_values(returned: Any, n_objectives: int) -> list[float]:
    """What a task returned, as numbers: anything iterable but texts and mappings is several objectives.

    Raises:
        TypeError: saying what to return instead.
    """
    values = []
    for value in _items(returned, n_objectives):
        try:
            if isinstance(value, str | bytes | bytearray):  # float would read some
                raise TypeError
            values.append(float(value))
        except Exception as error:  # float() may call the app's own classes
            raise TypeError(
                f"the task function returned {_shown(returned)}; return the score to search for, a float, "
                "or as many as hydra.sweeper.direction has"
            ) from error
    if len(values) != n_objectives:
        more = "more" if len(values) > n_objectives else "fewer"
        raise TypeError(
            f"the task function returned {more} values than {n_objectives}; "
            "return as many as hydra.sweeper.direction has"
        )
    return values


def _items(returned: Any, n_objectives: int) -> list[Any]:
    """The items of an iterable, as many as it takes to see that there are too many; else the value itself."""
    if isinstance(returned, str | bytes | bytearray | Mapping):
        return [returned]
    try:
        return list(islice(returned, n_objectives + 1))
    except Exception:  # tensors without a dimension only look iterable
        return [returned]


def _shown(returned: Any) -> str:
    try:
        shown = repr(returned)
    except Exception:
        shown = ""
    return shown if 0 < len(shown) <= 80 else f"a {type(returned).__name__}"


def _tell_failed(study: Study, trial: optuna.Trial, files: TrialFiles, error: BaseException) -> None:
    if study.has_ended(trial.number):  # which may be all that has failed
        _drop(trial, files)
        return
    text = _storable("".join(traceback.format_exception(error)))
    filesystem.write_whole(files.traceback, text)
    reason = f"{type(error).__name__}: {_storable(_message(error))}"
    logging.getLogger(__name__).error("Trial %d failed: %s", trial.number, reason)
    attributes = {"reason": reason, "traceback": text[-_MAX_CHARACTERS:]}
    _tell(study, trial, files, TrialState.FAIL, attributes=attributes)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the app's own class
        return "(its message cannot be shown)"


def _storable(text: str) -> str:
    """Without what files or databases refuse, lone surrogates and zeros, and without passwords."""
    return hide_known_secrets(text).replace("\0", "\\0").encode(errors="backslashreplace").decode()


@contextlib.contextmanager
def _traceback_there() -> Iterator[None]:
    """What ends this worker is told where its output goes."""
    try:
        yield
    except Exception as error:
        if (fault := find_fault(error)) is not None:
            raise fault from None
        traceback.print_exc()
        raise SystemExit(1) from None
