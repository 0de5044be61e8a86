"""The pool: checks a sweep, starts its worker processes, watches them, and replaces the dead."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
import optuna
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper import record
from sweeper.errors import BadInput
from sweeper.search import study as studies
from sweeper.search.hooks import Hooks
from sweeper.search.process import NotStarted, Process, ending, start
from sweeper.search.progress import Progress, summarize
from sweeper.search.sampler import build_sampler, is_grid
from sweeper.search.settings import check_objective, n_cores, read_settings
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Search
from sweeper.search.trial import Interrupted, Interruption
from sweeper.search.worker import Assignment, work

log = logging.getLogger(__name__)

_TICK_S = 0.25
_SAME_SIGTERM_S = 0.5
_MAX_STILLBORN = 3
"""Workers in a row that died before they asked for a trial: the fourth would die as well."""


def sweep(
    settings: Mapping[str, Any],
    context: HydraContext,
    task: TaskFunction,
    master: DictConfig,
    arguments: Sequence[str],
) -> optuna.Study:
    """Run a whole sweep: what Hydra calls for ``-m``. Exits with 2, 1 or 130 (143) as the README says."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        search, n_workers, devices = read_settings(settings, master)
        space = Space(master, arguments, context.config_loader)
        check(Hooks.of(task), space, search)
        storage = open_storage(search.storage)
        search = studies.in_its_folder(search, storage)
        fixed = [override for override in space.fixed if not override.startswith("study=")]
        study = studies.open_study(search, storage, space, fixed)
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    _save_master(search, master)
    assignment = Assignment(search, context, task, master, tuple(arguments), Singleton.get_state())
    progress = Progress(search, study)
    if settings["in_process"]:
        signum = _run_here(assignment, storage, space)
    else:
        with progress:
            signum = Pool(assignment, study, n_workers, devices, progress).run()
    _finish(search, study, task, master, signum)
    return study


def check(hooks: Hooks, space: Space, search: Search) -> None:
    """Compose each option and set each range's ends, before anything is written or started."""
    for draw in space.variations():
        if hooks.check is not None:
            check_objective(search, draw.config)
            hooks.check(draw.config)
    if "study" in space.parameters():
        raise BadInput("study", "several", "a search is one study", "write one name")
    build_sampler(search.sampler, search.seed, space, number=0)
    if is_grid(search.sampler):
        next(space.points())


def _save_master(search: Search, master: DictConfig) -> None:
    record.write_whole(search.folder / "multirun.yaml", OmegaConf.to_yaml(master))


# --- while --------------------------------------------------------------------------------------------------


class Pool:
    """The worker processes of one sweep on this machine."""

    def __init__(
        self, assignment: Assignment, study: optuna.Study, n_workers: int, gpus: list[str], progress: Progress
    ) -> None:
        self._search = assignment.search
        self._pickled = cloudpickle.dumps(assignment)
        self._preload = Hooks.of(assignment.task).preload
        self._study = study
        self._n_workers = n_workers
        self._gpus = gpus
        self._progress = progress
        self._processes: list[Process] = []
        self._signums: list[int] = []
        self._next_sigterm_s = 0.0
        self._n_stillborn = 0
        self._n_begun = 0
        self._has_left = False
        """Whether a worker found nothing more to do."""

    def run(self) -> int | None:
        """Keep workers going until the budget is spent.

        Returns:
            the signal that stopped it, or None.
        """
        with self._signals():
            try:
                while True:
                    self._bury()
                    trials = self._study.get_trials(deepcopy=False)
                    if not self._signums:
                        self._start_missing(trials)
                    self._tell_to_stop()
                    if not self._processes:
                        break
                    self._progress.update(trials)
                    wait([p.sentinel for p in self._processes], timeout=_TICK_S)
            finally:
                self._kill_all()
        self._progress.update(self._study.get_trials(deepcopy=False))
        return self._signums[0] if self._signums else None

    def _start_missing(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        if self._n_stillborn >= _MAX_STILLBORN or not self._has_work(trials):
            return
        n_finished = sum(t.state in studies.FINISHED for t in trials)
        n_left = float("inf") if self._search.n_trials is None else self._search.n_trials - n_finished
        taken = {p.index for p in self._processes}
        for index in range(self._n_workers):
            if len(self._processes) < n_left and index not in taken:
                try:
                    process = start(self._pickled, index, self._environment(index), self._preload)
                except NotStarted as error:
                    self._n_stillborn = _MAX_STILLBORN
                    self._progress.fail(f"no worker could be started: {error}")
                    return
                self._processes.append(process)

    def _has_work(self, trials: Sequence[optuna.trial.FrozenTrial]) -> bool:
        """Whether another worker would find a trial to run."""
        if studies.is_over(self._search, self._study) or not studies.has_room(self._search, trials):
            return False
        is_grid_used_up = is_grid(self._search.sampler) and self._has_left
        return not is_grid_used_up or any(t.state == TrialState.WAITING for t in trials)

    def _environment(self, index: int) -> dict[str, str]:
        """The worker's GPU, and its share of the cores."""
        n_threads = max(1, n_cores() // self._n_workers)
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(n_threads))}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[index % len(self._gpus)]
        return environment

    def _bury(self) -> None:
        """Take the processes that ended off the list; tell the trials that they left behind, and why."""
        ended = [p for p in self._processes if not p.is_alive()]
        if not ended:
            return
        self._processes = [p for p in self._processes if p not in ended]
        self._has_left = self._has_left or any(p.exitcode == 0 for p in ended)
        with self._search.lock():
            workers = {t.user_attrs.get("worker", "") for t in self._study.get_trials(deepcopy=False)}
            reasons = {name: ending(p.exitcode) for p in ended for name in workers if p.is_named(name)}
            spared = {name for p in self._processes for name in workers if p.is_named(name)}
            reaped = self._search.queue.reap(self._study, reasons, spared)
            record.write_results(self._study, self._search.folder)
        trials = self._study.get_trials(deepcopy=False)
        tried_again = {t.user_attrs.get("retry_of") for t in trials}
        for number in reaped:
            reason = trials[number].user_attrs["reason"]
            rest = "are queued again" if number in tried_again else "are not tried again"
            log.warning("Trial %d failed: %s. Its parameters %s.", number, reason, rest)
        self._count_stillborn([p for p in ended if p.exitcode != 0], trials)

    def _count_stillborn(self, died: list[Process], trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Workers that die one after the other before their first trial will not get better."""
        n_begun = sum(t.state != TrialState.WAITING for t in trials)
        if n_begun > self._n_begun or self._signums:
            self._n_stillborn = 0
        self._n_begun = n_begun
        workers = {t.user_attrs.get("worker", "") for t in trials}
        stillborn = [p for p in died if not any(p.is_named(worker) for worker in workers)]
        self._n_stillborn += len(stillborn)
        if stillborn and self._n_stillborn >= _MAX_STILLBORN:
            output = record.worker_log(self._search.folder, stillborn[0].index)
            reason = ending(stillborn[0].exitcode)
            place = f"; see {output}" if output.exists() else ""
            self._progress.fail(f"workers die before their first trial ({reason}){place}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks the workers to stop, the second kills them."""

        def stop(signum: int, frame: object) -> None:
            # Schedulers and `timeout` send SIGTERM to the process and to its group: that is one request.
            if signum == signal.SIGTERM and time.monotonic() < self._next_sigterm_s:
                return
            self._next_sigterm_s = time.monotonic() + _SAME_SIGTERM_S
            self._signums.append(signum)
            self._tell_to_stop()

        before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _tell_to_stop(self) -> None:
        """Pass the signals on to all workers, also to one that was just being started when they came."""
        for p in self._processes:
            if p.n_told < len(self._signums):
                p.n_told = len(self._signums)
                if p.n_told == 1:
                    p.terminate()
                else:
                    p.kill()

    def _kill_all(self) -> None:
        for p in self._processes:
            p.kill()
            p.join()


def _run_here(assignment: Assignment, storage: BaseStorage, space: Space) -> int | None:
    interruption = Interruption(second_kills=True)
    signums = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.getsignal(signum) for signum in signums}
    interruption.install(*signums)
    try:
        work(assignment, storage, interruption, is_own_process=False, space=space)
    except Interrupted as stop:
        return stop.signum
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return None


# --- after --------------------------------------------------------------------------------------------------


def _finish(
    search: Search, study: optuna.Study, task: TaskFunction, master: DictConfig, signum: int | None
) -> None:
    """Last words: the best trial and what to do next, or why it ended."""
    with search.lock():
        search.queue.reap(study)
        record.write_results(study, search.folder)
    trials = study.get_trials(deepcopy=False)
    summarize(search, study)
    if signum is not None:
        print(f"Stopped. To go on: {_command(search, master)}", flush=True)
        sys.exit(128 + signum)
    if studies.has_failed(search, trials):
        failures = studies.failed(trials)
        last = max(failures, key=lambda t: t.number)
        print(last.user_attrs.get("traceback") or last.user_attrs.get("reason"), file=sys.stderr)
        print(
            f"hydra.sweeper.max_failure_rate={search.max_failure_rate}: {len(failures)} trials failed, "
            f"the last is number {last.number}; "
            "mend the cause and begin another study, or allow more failures",
            file=sys.stderr,
        )
        sys.exit(1)
    # Trials that still run are another sweep's, which goes on with this study at the same time.
    is_short = search.n_trials is not None and studies.has_room(search, trials)
    if is_short and search.deadline is None and not is_grid(search.sampler):
        n_finished = sum(t.state in studies.FINISHED for t in trials)
        print(f"Only {n_finished} of {search.n_trials} trials could be run.", file=sys.stderr)
        sys.exit(1)
    on_finish = Hooks.of(task).on_finish
    if on_finish is not None and trials:
        on_finish(search.folder)


def _command(search: Search, master: DictConfig) -> str:
    """This command, as it was typed; with the name of the study, which may have been made of the time."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {spec.name.removesuffix('.__main__')}" if spec is not None else sys.argv[0]
    arguments = sys.argv[1:]
    if not any(argument.startswith(("study=", "hydra.sweeper.study_name=")) for argument in arguments):
        has_key = OmegaConf.select(master, "study") == search.study_name
        key = "study" if has_key else "hydra.sweeper.study_name"
        arguments = [*arguments, f"{key}={search.study_name}"]
    return " ".join(["python", program, *map(shlex.quote, arguments)])
