"""The pool: starts worker processes, watches them, and replaces the dead."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

import optuna
from optuna.storages import BaseStorage

from sweeper.fault import FaultElsewhere
from sweeper.screen import fall_silent, whoever_reads
from sweeper.search import engine, life
from sweeper.search.heart import Heart
from sweeper.search.ledger import was_composed
from sweeper.search.patience import PatientStorage
from sweeper.search.process import (
    LOST,
    Board,
    Crew,
    NotStarted,
    Process,
    ending,
    for_the_pool,
    handling,
    is_heard,
)
from sweeper.search.progress import TICK_S, Progress
from sweeper.search.sampler import is_grid
from sweeper.search.study import Study

log = logging.getLogger(__name__)


_SAME_SIGTERM_S = 0.5
_LAST_WORDS_S = 5.0
"""How long workers may take to tell their trials when the pool itself cannot go on."""
_MAX_STILLBORN = 3
"""Workers in a row that died before they asked for a trial: the fourth would die as well."""


class Pool:
    """The worker processes of one sweep on this machine."""

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        crew: Crew,
        board: Board,
        n_workers: int,
        gpus: Sequence[str],
        progress: Progress,
        heart: Heart,
    ) -> None:
        self._study = study
        self._storage = storage
        self._crew = crew
        self._board = board
        self._n_workers = n_workers
        self._gpus = gpus
        self._progress = progress
        self._heart = heart
        self._processes: list[Process] = []
        self._signums: list[int] = []
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        self._fault = ""
        """What a worker said last that met a disk or a server which failed."""
        self._next_sigterm_s = 0.0
        self._n_stillborn = 0
        self._n_begun = 0
        self._has_left = False
        """Whether a worker found nothing more to do."""
        self._waits_until_s: float | None = None
        """Until when this pool, which has no work, waits for trials of others that may fail."""

    def run(self) -> int | None:
        """Keep workers going until the budget is spent.

        Returns:
            the signal that stopped it, or None.

        Raises:
            Fault: if a disk or a server failed, here or in a worker.
        """
        with self._signals(), self._heart.heeding(_stop_this_process):
            try:
                while True:
                    self._bury()
                    self._progress.read(self._tick_s)
                    self._repeat_the_lost()
                    if not self._n_requests:
                        self._start_missing()
                    self._tell_to_stop()
                    if not self._processes and not self._may_get_work():
                        break
                    self._show()
                    wait({p.sentinel for p in self._processes}, timeout=self._tick_s)
            finally:
                self._end_all()
        if self._fault:
            raise FaultElsewhere(self._fault)
        self._study.ledger.read()
        self._show()
        return self._signums[0] if self._signums else None

    @property
    def _tick_s(self) -> float:
        """Many pools together look at the study as often as a few do."""
        return max(TICK_S, self._heart.look_s * TICK_S)

    def _repeat_the_lost(self) -> None:
        """Queue what pools ran that are dead: other hosts' when they were silent for too long."""
        told, dead = self._heart.told, self._heart.dead
        running = list(self._study.ledger.running.values())
        workers = {t.number: life.worker_of(t) for t in running}
        own = {name for name in workers.values() if any(p.is_named(name) for p in self._processes)}
        others = [t for t in running if workers.get(t.number) not in own]
        if any(life.is_lost(t, self._study.files, told, dead) for t in others):
            with self._study.locked() as study:
                self._tell_reaped(study.reap(spared=own, dead=self._heart.still_dead()))
        self._heart.bury()

    def _may_get_work(self) -> bool:
        """Whether a trial that others run may still fail, and is worth waiting for.

        A host that dies now is known to be dead when it has been silent for long enough; longer than that
        nobody waits beside a pool that beats: whoever runs the trial repeats it, too.
        """
        if self._n_requests or self._n_stillborn >= _MAX_STILLBORN or self._study.is_over():
            return False
        running = self._study.awaited()
        pools = set(map(life.pool_of, running))
        if not pools:
            return False
        now_s = time.monotonic()
        if self._waits_until_s is None:
            wait_s = max(map(self._heart.patience_s, pools)) + self._study.search.heartbeat_s
            self._waits_until_s = now_s + wait_s
            self._progress.tell_wait(life.told_running(running, self._heart.told), wait_s)
        return now_s < self._waits_until_s or any(map(self._heart.is_silent, pools))

    @property
    def _n_requests(self) -> int:
        """How often the workers were, or should be, told to stop."""
        return max(len(self._signums), bool(self._fault))

    def _show(self) -> None:
        with whoever_reads():
            self._progress.update(self._study.ledger.trials)

    def _start_missing(self) -> None:
        is_full = len(self._processes) >= self._n_workers
        if is_full or self._n_stillborn >= _MAX_STILLBORN or not self._has_work():
            return
        n_trials = self._study.search.n_trials
        n_left = float("inf") if n_trials is None else n_trials - self._study.ledger.n_finished
        taken = {p.index for p in self._processes}
        for index in range(self._n_workers):
            if len(self._processes) < n_left and index not in taken:
                try:
                    with self._heart.paused():  # it may have to fork
                        process = self._crew.start(self._study.search, index, self._environment(index))
                except NotStarted as error:
                    self._n_stillborn = _MAX_STILLBORN
                    self._progress.fail(f"no worker could be started: {error}")
                    return
                self._processes.append(process)
                self._waits_until_s = None

    def _has_work(self) -> bool:
        """Whether another worker would find a trial to run."""
        if self._study.is_over() or not self._study.has_work():
            return False
        if not self._has_left or self._study.ledger.waiting:
            return True
        return not is_grid(self._study.search.sampler) and not self._study.is_decided()

    def _environment(self, index: int) -> dict[str, str]:
        """The worker's GPU, and its share of the cores."""
        environment = shared_cores(self._n_workers)
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
        said = [self._board.take(p.index) for p in ended]
        self._fault = self._fault or next(filter(None, said), "")
        self._study.ledger.read()
        workers = {life.worker_of(t) for t in self._study.ledger.running.values()}
        reasons = {name: ending(p.exitcode) for p in ended for name in workers if p.is_named(name)}
        spared = {name for p in self._processes for name in workers if p.is_named(name)}
        with self._study.locked() as study:
            reaped = study.reap(reasons, spared, is_interrupted=self._n_requests > 0)
        self._tell_reaped(reaped)
        if died := [p for p in ended if p.exitcode != 0]:
            self._count_stillborn(died, self._study.trials())

    def _tell_reaped(self, numbers: Sequence[int]) -> None:
        ledger = self._study.ledger
        for number in numbers:
            reason = ledger.trials[number].user_attrs["reason"]
            rest = "are queued again" if ledger.copies(number) else "are not tried again"
            log.warning("Trial %d failed: %s. Its parameters %s.", number, reason, rest)

    def _count_stillborn(self, died: list[Process], trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Workers that die one after the other before their first trial will not get better."""
        n_begun = sum(map(was_composed, trials))
        if n_begun > self._n_begun or self._n_requests:
            self._n_stillborn = 0
        self._n_begun = n_begun
        workers = {life.worker_of(t) for t in trials if was_composed(t)}
        stillborn = [p for p in died if not any(p.is_named(worker) for worker in workers)]
        at_once = [p for p in stillborn if p.exitcode == LOST]  # with the process that forks them
        self._n_stillborn += len(stillborn) - len(at_once) + bool(at_once)
        if stillborn and self._n_stillborn >= _MAX_STILLBORN:
            output = self._study.files.worker_log(stillborn[0].index)
            reason = ending(stillborn[0].exitcode)
            place = f"; see {output}" if output.exists() else ""
            self._progress.fail(f"workers die before their first trial ({reason}){place}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C, SIGTERM or SIGHUP, or an engine, asks the workers to stop; the second kills."""

        def stop(signum: int, frame: object) -> None:
            if signum == signal.SIGHUP:
                fall_silent(stream for stream in self._terminals if not os.isatty(stream))
                if self._signums:  # the system, the shell and ssh may all say that the terminal is gone
                    return
            # Schedulers and `timeout` send SIGTERM to the process and to its group: that is one request.
            if signum != signal.SIGINT and time.monotonic() < self._next_sigterm_s:
                return
            self._next_sigterm_s = time.monotonic() + _SAME_SIGTERM_S
            self._signums.append(signum)
            if isinstance(self._storage, PatientStorage):
                self._storage.wait_s = 0  # nobody wants to wait for a server any more
            self._tell_to_stop()

        with handling(stop, *requests()):
            yield

    def _tell_to_stop(self) -> None:
        """Pass the signals on to all workers, also to one that was just being started when they came."""
        n_requests = self._n_requests
        if n_requests:
            self._board.ask_to_stop()
        for p in self._processes:
            if p.n_told < n_requests:
                p.n_told = n_requests
                if p.n_told == 1:
                    p.terminate()
                else:
                    p.kill()

    def _end_all(self) -> None:
        """Let no worker be left, whatever has ended this pool; a quick one tells its trial first."""
        if self._processes:
            self._board.ask_to_stop()
        for p in self._processes:
            p.terminate()
        limit = time.monotonic() + _LAST_WORDS_S
        while any(p.is_alive() for p in self._processes) and time.monotonic() < limit:
            wait({p.sentinel for p in self._processes if p.is_alive()}, timeout=TICK_S)
        for p in self._processes:
            p.kill()
            p.join()


def _stop_this_process() -> None:
    """What the heart does, in its thread, when all pools are asked to stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def requests() -> list[signal.Signals]:
    """The signals that ask a search to stop."""
    return [signum for signum in for_the_pool() if is_heard(signum)]


def shared_cores(n_workers: int) -> dict[str, str]:
    """Each worker's share of the cores, unless the person has said how many threads to use."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, engine.n_cores() // n_workers))}
