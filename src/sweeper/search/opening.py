"""Pools on other machines: any Hydra launcher starts jobs, each of which runs the app's own command again.

The opening command, which a person typed with a launcher, opens the study, and starts a process of its own
that hands the jobs to the launcher's engine (``launch.py``). From then on all of them meet in the study: the
opening command only shows how it stands, and may end. Which jobs were asked for stands there too, so that the
same command, started again, adds those that are missing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from optuna.storages import BaseStorage

from sweeper import caller
from sweeper.caller import VARIABLE as CALLER
from sweeper.errors import BadInput
from sweeper.lock import is_alive
from sweeper.record.study_files import StudyFiles
from sweeper.screen import fall_silent, whoever_reads
from sweeper.search import engine, life
from sweeper.search.engine import order
from sweeper.search.launch import BEGIN_S, JOB, Job, Launch, asked_queue
from sweeper.search.launched import STORAGE, Orders
from sweeper.search.life import Told
from sweeper.search.process import FOR_THE_POOL, handling, is_heard
from sweeper.search.progress import Progress, not_begun
from sweeper.search.search import Search
from sweeper.search.settings import has_launcher, launcher_name
from sweeper.search.storage import check_many_machines
from sweeper.search.study import Study
from sweeper.words import counted, near

_HERE = ("hydra_submitit_launcher.submitit_launcher.LocalLauncher", "hydra_joblib_launcher")
"""Launchers whose jobs run on this machine."""
_NOT_INSTALLED = "sweeper_optuna.plugin.NotInstalled"
_TICK_S = 0.5
_ASK_AGAIN_S = 5
"""How old the answer of Slurm's queue may be."""


def is_chosen(master: DictConfig) -> bool:
    """Whether this command hands jobs to a launcher; a job of one was started by the same words."""
    return has_launcher(master) and order() is None and not master.hydra.sweeper.join


def n_jobs(told: int | str) -> int:
    """How many jobs a launcher is asked for: ``auto`` is one, which has all that its engine gives."""
    return told if isinstance(told, int) else 1


def check(master: DictConfig, search: Search, is_in_process: bool) -> None:
    """Refuse what the jobs of the launcher could not do.

    Raises:
        BadInput: naming the key.
    """
    name = launcher_name(master)
    target = str(OmegaConf.select(master, "hydra.launcher._target_"))
    if target.endswith(_NOT_INSTALLED):
        raise BadInput("hydra/launcher", name, "is not installed", master.hydra.launcher.install)
    if is_in_process:
        reason = f"the jobs of hydra/launcher={name} are processes of their own"
        raise BadInput("hydra.sweeper.in_process", True, reason, "leave it out, or the launcher")
    if not any(place in target for place in _HERE):
        check_many_machines(search.storage)


class Jobs:
    """The jobs of a study, as this process sees them."""

    def __init__(self, study: Study, storage: BaseStorage) -> None:
        self._study, self._storage, self._id = study, storage, study.optuna._study_id
        search = study.search
        self._grace_s = search.grace_s
        self._observer = life.Observer(search.heartbeat_s, search.grace_s)
        self._first_seen_s: dict[str, float] = {}
        self._living: set[str] = set()
        """The pools that lived when this process looked last."""
        self._queue: tuple[float, Counter[str] | None] = (-_ASK_AGAIN_S, None)
        self.has_seen_dead = False
        """Whether one of them was found to be dead, of which nobody could say it before."""
        self.n_stops = 0
        self.alive: set[str] = set()
        """Those that have a pool which lives."""
        self.waiting: set[str] = set()
        """Those that have not begun."""

    def read(self) -> dict[str, Job]:
        said = self._storage.get_study_system_attrs(self._id)
        found = {name[len(JOB) :]: Job.read(each) for name, each in said.items() if name.startswith(JOB)}
        return {name: job for name, job in found.items() if job is not None}

    def look(self) -> set[str]:
        """Take in how the study stands; gives the jobs that run, wait in a queue, or are on their way."""
        jobs, now_s = self.read(), time.monotonic()
        told = life.read(self._storage, self._id)
        self.n_stops = told.n_stops
        self._see_pools(told, self._observer.see(told, now_s))
        began = {entry.job for entry in told.entries.values() if entry.job}
        queue = self._queued() if any(job.is_slurms for job in jobs.values()) else None
        present = {name for name in jobs if name in self.alive}
        for name, job in jobs.items():
            if name in present or job.stops < told.n_stops:
                continue
            waited_s = now_s - self._first_seen_s.setdefault(name, now_s)
            if job.is_slurms and queue is not None:  # it knows also those that will be started again
                n_others = sum(jobs[other].batch == job.batch for other in present)
                is_new = name not in began and job.ended is None and waited_s < BEGIN_S
                is_there = n_others < queue[job.batch] or is_new
            elif name in began or job.ended is not None:
                is_there = False
            else:
                is_there = self._launches(job) or waited_s < self._grace_s
            present |= {name} if is_there else set()
        # Launchers that tell a job no number: which of theirs have begun is not known.
        untold = {Orders.batch_of(name) for name in began - jobs.keys()}
        self.waiting = {name for name in present - began if jobs[name].batch not in untold}
        return present

    def _see_pools(self, told: Told, dead: Collection[str]) -> None:
        """Note whose pools live, and whether one has died since the last look."""
        self.alive = {entry.job for name, entry in told.open.items() if entry.job and name not in dead}
        living = told.open.keys() - dead
        died = {name for name in self._living - living if not told.has_ended(name)}
        self.has_seen_dead |= any(told.entries[name].job for name in died if name in told.entries)
        self._living = living

    def is_launching(self) -> bool:
        """Whether a process of this machine may still start jobs."""
        return any(self._launches(job) for job in self.read().values())

    def _launches(self, job: Job) -> bool:
        files = self._study.files
        return job.place == life.place_of(files) and is_alive(files.heartbeats, job.launcher)

    def _queued(self) -> Counter[str] | None:
        """How many jobs of each batch Slurm has; None where it cannot be asked."""
        asked_s, known = self._queue
        if time.monotonic() - asked_s < _ASK_AGAIN_S:
            return known
        known = asked_queue()
        self._queue = (time.monotonic(), known)
        return known


def run(study: Study, storage: BaseStorage, master: DictConfig, n_jobs: int) -> int | None:
    """Start the jobs that are missing, and show the study until they have ended.

    Returns:
        the signal by which somebody asked all of them to stop, or None.

    Raises:
        BadInput: if the launcher cannot start its jobs, or they cannot run.
        Fault: if a disk or a server fails.
    """
    return Opening(study, storage, master, n_jobs).run()


class Opening:
    """The command that a person typed with a launcher."""

    def __init__(self, study: Study, storage: BaseStorage, master: DictConfig, n_jobs: int) -> None:
        self._study, self._storage, self._master, self._n_jobs = study, storage, master, n_jobs
        self._jobs = Jobs(study, storage)
        self._launched: dict[str, Launch] = {}
        """What this command has launched, by batch."""
        self._signums: list[int] = []
        self._next_s = 0.0
        self._is_stopping = False
        self._choice = launcher_name(master)
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def run(self) -> int | None:
        with self._signals():
            self._add_missing()
            with Progress(self._study) as progress:
                self._watch(progress)
        self._raise_for_jobs()
        return signal.SIGINT if self._is_stopping else None

    def _watch(self, progress: Progress) -> None:
        """Show how the study stands until no job is left that might change it."""
        began_s = heard_s = time.monotonic()
        while True:
            progress.read(_TICK_S)
            now_s = time.monotonic()
            with whoever_reads():
                progress.update(self._study.ledger.trials)
            present = self._jobs.look()
            self._answer()
            progress.n_jobs_waiting = len(self._jobs.waiting)
            is_early = now_s - began_s < 2 * self._study.search.grace_s
            if self._jobs.has_seen_dead and is_early and not self._is_stopping:
                self._jobs.has_seen_dead = False
                self._add_missing()
            is_running = bool(self._study.ledger.running)
            if present or is_running:
                heard_s = now_s
            is_done = self._has_no_work() and not is_running
            is_stopped = self._is_stopping and not is_running
            is_left = not present and (is_stopped or self._is_left(now_s - heard_s))
            is_at_work = bool(self._jobs.alive)  # a pool may be writing its last results
            if is_left or (is_done and not is_at_work):
                break
            time.sleep(_TICK_S)
        with whoever_reads():
            progress.update(self._study.trials())

    def _is_left(self, silent_s: float) -> bool:
        """Whether no more jobs will begin, as nobody launches them, or for so long none has."""
        return not self._jobs.is_launching() or silent_s > BEGIN_S

    def _has_no_work(self) -> bool:
        study = self._study
        return study.is_over() or not study.has_work() or study.is_decided()

    def _add_missing(self) -> None:
        there = len(self._jobs.look())
        if (n_missing := self._n_jobs - there) > 0 and not self._has_no_work():
            launch = Launch.of(self._study, self._master, n_missing, self._jobs.n_stops)
            register(self._study, self._storage, launch, range(n_missing))
            self._launched[launch.orders.batch] = launch
            _start(launch, self._study.files)
            more = "more " if there else ""
            told = f"{self._choice} is asked for {counted(n_missing, f'{more}job')}"
        elif n_missing <= 0:
            told = f"{counted(there, 'job')} of {self._choice} {_is_or_are(there)} there"
        else:
            return
        with whoever_reads():
            print(f"{told}; they go on without this command", flush=True)

    # ------------------------------------------------------------------------------------------- its signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def hear(signum: int, frame: object) -> None:
            if signum == signal.SIGHUP:
                fall_silent(stream for stream in self._terminals if not os.isatty(stream))
            if signum != signal.SIGINT:  # the jobs go on
                os._exit(128 + signum)
            self._signums.append(signum)

        with handling(hear, *filter(is_heard, FOR_THE_POOL)):
            yield

    def _answer(self) -> None:
        """At the first Ctrl-C say what the second one does; at the second one ask all hosts to stop."""
        n_asked = len(self._signums)
        if n_asked >= 1 and not self._next_s:
            self._next_s = time.monotonic()
            name = self._study.search.study_name
            with whoever_reads():
                said = f"The jobs of study {name} go on, also if the terminal is closed."
                print(f"{said} Ctrl-C once more stops the study on all machines.", flush=True)
        if n_asked >= 2 and not self._is_stopping:
            self._is_stopping, n_waiting = True, len(self._jobs.waiting)
            life.stop(self._storage, self._study.optuna._study_id)
            with whoever_reads():
                print("All pools of the study are asked to stop; their trials are queued again.", flush=True)
                if n_waiting:
                    print(f"{not_begun(n_waiting)}, and will end at once when they do.", flush=True)

    # ---------------------------------------------------------------------------------------- how they ended

    def _raise_for_jobs(self) -> None:
        """Say why none of the jobs that this command started has run a trial."""
        jobs = {name: job for name, job in self._jobs.read().items() if job.batch in self._launched}
        told = life.read(self._storage, self._study.optuna._study_id)
        began = {Orders.batch_of(entry.job) for entry in told.entries.values() if entry.job}
        if not jobs or self._is_stopping or began & self._launched.keys():
            return
        log_file = near(self._study.files.launcher_log)
        ends = [job.ended for job in jobs.values() if job.ended]
        if error := next((end["error"] for end in ends if end.get("error")), None):
            raise caller.read(error)
        if raised := next((end["raised"] for end in ends if end.get("raised")), None):
            raise BadInput("hydra/launcher", self._choice, raised, f"see {log_file}")
        codes = [end["code"] for end in ends if end.get("code")]
        if codes or not ends:
            code = _told_code(codes[0]) if codes else "gave no sign of life"
            reason = f"its jobs {code} before they joined the study"
            if last := next((end["last"] for end in ends if end.get("last")), None):
                outputs = near(next(iter(self._launched.values())).outputs)
                raise BadInput("hydra/launcher", self._choice, f"{reason}: {last}", f"see {outputs}")
            folder = self._study.search.folder
            remedy = f"see {log_file}; the jobs must see {folder}, or find the study in a server"
            raise BadInput("hydra/launcher", self._choice, reason, remedy)


def _told_code(code: int) -> str:
    """How a process ended, by what subprocess gives for it: a signal is a negative number."""
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):  # one that this system does not have
        return f"were ended by {signal.Signals(-code).name}"
    return f"were ended by signal {-code}"


def _is_or_are(n: int) -> str:
    return "is" if n == 1 else "are"


def register(study: Study, storage: BaseStorage, launch: Launch, numbers: Sequence[int]) -> None:
    """Say in the study that these jobs are asked for, before they are."""
    job = launch.job(study.files)
    for number in numbers:
        name = f"{JOB}{launch.orders.job(number)}"
        storage.set_study_system_attr(study.optuna._study_id, name, asdict(job))


def _start(launch: Launch, files: StudyFiles) -> None:
    """Start the process that launches, so that it outlives this command and the terminal."""
    variables = {name: value for name, value in os.environ.items() if name not in (CALLER, engine.VARIABLE)}
    own = [path for path in launch.sys_path if not Path(path).is_relative_to(sys.base_prefix)]
    variables["PYTHONPATH"] = os.pathsep.join(own)
    if launch.orders.storage is None:
        variables[STORAGE] = launch.storage
    code = "from sweeper.search.launch import main; main()"
    with files.launcher_log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )
    assert process.stdin is not None
    with process.stdin, suppress(BrokenPipeError):
        process.stdin.write(launch.written())
    while not is_alive(files.heartbeats, launch.name) and process.poll() is None:
        time.sleep(0.02)
