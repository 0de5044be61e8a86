"""Pools on other machines: any Hydra launcher starts jobs, each of which runs the app's own command again.

The opening command opens the study, and starts a process of its own that hands the jobs to the launcher's
engine. From then on all of them meet in the study: the opening command only shows how it stands, and may end.
Which jobs were asked for stands there too, so that the same command, started again, adds those that are
missing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper import caller
from sweeper.caller import VARIABLE as CALLER
from sweeper.errors import BadInput
from sweeper.lock import Heartbeat, is_alive
from sweeper.record import StudyFiles
from sweeper.screen import fall_silent, whoever_reads
from sweeper.search import engine, life
from sweeper.search.engine import order
from sweeper.search.launched import STORAGE, Orders, run_pool
from sweeper.search.ledger import FINISHED
from sweeper.search.process import is_heard
from sweeper.search.progress import Progress
from sweeper.search.storage import check_many_machines, look_into_storage
from sweeper.search.study import Search, Study
from sweeper.secret import hide_secrets, remember_secrets
from sweeper.words import counted, near, one_line

log = logging.getLogger(__name__)

JOB = "sweeper:job:"
"""A system attribute of the study for each job that was asked for, with the job's name behind it."""

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Hydra's own launcher, which runs one job after the other: with it the search starts its own workers."""

_TICK_S = 0.5
_ASK_S = 10
"""How long Slurm's controller may take to answer."""
_ASK_AGAIN_S = 5
_BEGIN_S = 60
"""How long jobs that the engine has let go of may be on their way to their first word."""
_EMPTY_QUEUES, _SILENT_QUEUES = 3, 60
"""So often, a minute apart, Slurm's queue has none of the jobs any more, or does not answer, before they are
given up."""

_HERE = ("hydra_submitit_launcher.submitit_launcher.LocalLauncher", "hydra_joblib_launcher")
_SLURM = "submitit_launcher.SlurmLauncher"
_COMMENT = "sweeper "
"""Begins that of our jobs in Slurm's queue; their batch follows."""
_NOT_INSTALLED = "sweeper_optuna.plugin.NotInstalled"
_RAY = "hydra_ray_launcher"
"""Its jobs inherit no variables from the process that launches them; it sends all through memory."""

_GOES_ALONG = re.compile(r"(SWEEPER|HYDRA|TORCH|HF|PYTHON)_?\w*|XDG_CACHE_HOME|OMP_NUM_THREADS")
"""Variables of the opening command that matter to jobs which inherit none."""


# ------------------------------------------------------------------------------------------------- settings


def is_chosen(master: DictConfig) -> bool:
    """Whether this command hands jobs to a launcher; a job of one was started by the same words."""
    target = str(OmegaConf.select(master, "hydra.launcher._target_"))
    return target != BASIC and order() is None and not master.hydra.sweeper.join


def choice(master: DictConfig) -> str:
    """The launcher's name in the group ``hydra/launcher``."""
    return str(master.hydra.runtime.choices.get("hydra/launcher"))


def n_jobs(told: int | str) -> int:
    """How many jobs a launcher is asked for: ``auto`` is one, which has all that its engine gives."""
    return told if isinstance(told, int) else 1


def check(master: DictConfig, search: Search, is_in_process: bool) -> None:
    """Refuse what the jobs of the launcher could not do.

    Raises:
        BadInput: naming the key.
    """
    name = choice(master)
    target = str(OmegaConf.select(master, "hydra.launcher._target_"))
    if target.endswith(_NOT_INSTALLED):
        raise BadInput("hydra/launcher", name, "is not installed", master.hydra.launcher.install)
    if is_in_process:
        reason = f"the jobs of hydra/launcher={name} are processes of their own"
        raise BadInput("hydra.sweeper.in_process", True, reason, "leave it out, or the launcher")
    if search.storage.startswith("sqlite") and not any(place in target for place in _HERE):
        reason = f"SQLite is for one machine, and the jobs of hydra/launcher={name} may run on several"
        remedy = "write the path of a journal on a file system that they share, or postgresql+psycopg://…"
        raise BadInput("hydra.sweeper.storage", search.storage, reason, remedy)
    if not any(place in target for place in _HERE):
        check_many_machines(search.storage)


@dataclass(frozen=True)
class Launch:
    """What the launching process is told, by its standard input."""

    orders: Orders
    name: str
    """Of the process, by which others see that it lives."""
    study: str
    study_folder: str
    storage: str
    choice: str
    """The launcher, as it was chosen."""
    node: dict[str, Any]
    """Its settings, with all that they refer to filled in."""
    sys_path: list[str]

    @classmethod
    def of(cls, study: Study, master: DictConfig, n_jobs: int, stops: int) -> Launch:
        search, node = study.search, _node(master, study.search)
        batch = uuid.uuid4().hex[:8]
        is_rays = _RAY in node["_target_"]
        delay_s = node.get("signal_delay_s") or (30 if "submitit" in node["_target_"] else 0)
        if _SLURM in node["_target_"] and not node.get("comment"):
            node["comment"] = f"{_COMMENT}{batch}"  # by which the queue is asked for its jobs
        orders = Orders(
            batch=batch,
            words=tuple(_words(search)),
            folder=str(Path.cwd()),
            environment=_environment(master, is_rays),
            machine=engine.machine(),
            slurm_job=os.environ.get("SLURM_JOB_ID", ""),
            n_jobs=n_jobs,
            stops=stops,
            deadline=search.deadline,
            timeout_min=node.get("timeout_min"),
            signal_delay_s=delay_s,
            gpus=tuple(engine.visible_gpus()),
            gpus_per_job=node.get("gpus_per_node"),
            storage=search.storage if is_rays else None,
        )
        return cls(
            orders=orders,
            name=f"launcher-{life.new_name()}",
            study=search.study_name,
            study_folder=str(search.folder),
            storage=search.storage,
            choice=choice(master),
            node=node,
            sys_path=[str(Path(entry).absolute()) for entry in sys.path],
        )

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, text: bytes) -> Launch:
        said = json.loads(text)
        return cls(**{**said, "orders": Orders(**said["orders"])})


def _node(master: DictConfig, search: Search) -> dict[str, Any]:
    """The launcher's settings; its own files lie in the study's folder, whatever that is called."""
    config = master.copy()
    with flag_override(config, ["readonly", "struct"], [False, False]):
        config.hydra.sweep.dir = str(search.folder)
    node = OmegaConf.to_container(config.hydra.launcher, resolve=True, enum_to_str=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _words(search: Search) -> list[str]:
    """The app's command as it was typed, with the name that the study has; its storage is told otherwise.

    A job takes over from nobody: it cannot know better than the command which of them lives.
    """
    without = {"hydra.sweeper.take_over", "hydra.sweeper.storage"}
    words = [word for word in sys.orig_argv[1:] if _key(word) not in without]
    words = [
        f"{_key(word)}='${{oc.env:{STORAGE}}}'"
        if _key(word) == search.stored_by and hide_secrets(word) != word
        else word
        for word in words
    ]
    if search.named_by not in {_key(word) for word in words}:
        words.append(f"{search.named_by}={search.study_name}")
    if search.folder_by == "time":
        words.append(f"hydra.sweep.dir={search.folder}")
    return words


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~") if "=" in word else ""


def _environment(master: DictConfig, is_rays: bool) -> dict[str, str]:
    """The variables of this command that its jobs do not get otherwise."""
    if not is_rays:
        return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    raw = json.dumps(OmegaConf.to_container(master, resolve=False), default=str)
    named = set(re.findall(r"oc\.env:\s*(\w+)", raw))
    return {
        name: value
        for name, value in os.environ.items()
        if (name in named or _GOES_ALONG.fullmatch(name)) and name not in (CALLER, engine.VARIABLE)
    }


# ------------------------------------------------------------------------------------- which jobs there are


@dataclass(frozen=True)
class Job:
    """A job that was asked for, as the study knows it."""

    batch: str
    launcher: str
    """The process that launched it."""
    place: str
    """Of that process's lock: who has the same machine and folder sees whether it lives."""
    is_slurms: bool = False
    ended: dict[str, Any] | None = None
    """What ``run_pool`` gave, or the launcher raised, once that is known."""

    @classmethod
    def read(cls, said: Any) -> Job | None:
        try:
            return cls(**said)
        except TypeError:
            return None


class Jobs:
    """The jobs of a study, as this process sees them."""

    def __init__(self, study: Study, storage: BaseStorage) -> None:
        self._study, self._storage, self._id = study, storage, study.optuna._study_id
        search = study.search
        self._grace_s = search.grace_s
        self._observer = life.Observer(search.heartbeat_s, search.grace_s)
        self._first_seen_s: dict[str, float] = {}
        self._queue: tuple[float, Counter[str] | None] = (-_ASK_AGAIN_S, None)
        self.has_seen_dead = False
        """Whether one of them was found to be dead, of which nobody could say it before."""
        self.n_stops = 0
        self.alive: set[str] = set()
        """Those that have a pool which lives."""

    def read(self) -> dict[str, Job]:
        said = self._storage.get_study_system_attrs(self._id)
        found = {name[len(JOB) :]: Job.read(each) for name, each in said.items() if name.startswith(JOB)}
        return {name: job for name, job in found.items() if job is not None}

    def present(self) -> set[str]:
        """The jobs that run, wait in the queue of their engine, or are on their way."""
        jobs, now_s = self.read(), time.monotonic()
        told = life.read(self._storage, self._id)
        self.n_stops = told.n_stops
        dead = self._observer.see(told, now_s)
        began = {entry.job for entry in told.entries.values() if entry.job}
        alive = {entry.job for name, entry in told.open.items() if entry.job and name not in dead}
        self.alive = alive
        self.has_seen_dead = self.has_seen_dead or any(told.open[name].job for name in dead)
        queue = self._queued() if any(job.is_slurms for job in jobs.values()) else None
        present = {name for name, job in jobs.items() if name in alive}
        for name, job in jobs.items():
            if name in present:
                continue
            waited_s = now_s - self._first_seen_s.setdefault(name, now_s)
            if job.is_slurms and queue is not None:  # it knows also those that will be started again
                n_others = sum(jobs[other].batch == job.batch for other in present)
                is_new = name not in began and job.ended is None and waited_s < _BEGIN_S
                is_there = n_others < queue[job.batch] or is_new
            elif name in began or job.ended is not None:
                is_there = False
            else:
                is_there = self._launches(job) or waited_s < self._grace_s
            present |= {name} if is_there else set()
        return present

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
        known = _asked_queue()
        self._queue = (time.monotonic(), known)
        return known


def _asked_queue() -> Counter[str] | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        command = ["squeue", "-h", "-r", "-o", "%k"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ASK_S)
        if said.returncode == 0:
            return Counter(_batches(said.stdout))
    return None


def _batches(listing: str) -> Iterator[str]:
    """The batches of the jobs that a queue lists by their comments; it lists none that have ended."""
    for comment in listing.splitlines():
        if comment.startswith(_COMMENT):
            yield comment.removeprefix(_COMMENT).strip()


# -------------------------------------------------------------------------------------- the opening command


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
        self._batches: set[str] = set()
        self._signums: list[int] = []
        self._next_s = 0.0
        self._is_stopping = False
        self._choice = choice(master)
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
            trials, now_s = self._study.trials(), time.monotonic()
            with whoever_reads():
                progress.update(trials)
            self._answer()
            present = self._jobs.present()
            if self._jobs.has_seen_dead and now_s - began_s < 2 * self._study.search.grace_s:
                self._jobs.has_seen_dead = False
                self._add_missing()
            is_running = any(trial.state == TrialState.RUNNING for trial in trials)
            if present or is_running:
                heard_s = now_s
            is_done = self._has_no_work() and not is_running
            if (is_done and not self._is_alive()) or (not present and self._is_left(now_s - heard_s)):
                break
            time.sleep(_TICK_S)
        with whoever_reads():
            progress.update(self._study.trials())

    def _is_left(self, silent_s: float) -> bool:
        """Whether no more jobs will begin, as nobody launches them, or for so long none has."""
        return not self._jobs.is_launching() or silent_s > _BEGIN_S

    def _is_alive(self) -> bool:
        """Whether a pool is still at work, which may be writing its last results."""
        return bool(self._jobs.alive)

    def _has_no_work(self) -> bool:
        study = self._study
        return study.is_over() or not study.has_work() or study.is_decided()

    def _add_missing(self) -> None:
        there = len(self._jobs.present())
        if (n_missing := self._n_jobs - there) > 0 and not self._has_no_work():
            launch = Launch.of(self._study, self._master, n_missing, self._jobs.n_stops)
            register(self._study, self._storage, launch, range(n_missing))
            self._batches.add(launch.orders.batch)
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

        signums = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_heard(n)]
        before = {signum: signal.signal(signum, hear) for signum in signums}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

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
            self._is_stopping = True
            life.stop(self._storage, self._study.optuna._study_id)
            with whoever_reads():
                print("All pools of the study are asked to stop; their trials are queued again.", flush=True)

    # ---------------------------------------------------------------------------------------- how they ended

    def _raise_for_jobs(self) -> None:
        """Say why none of the jobs that this command started has run a trial."""
        jobs = {name: job for name, job in self._jobs.read().items() if job.batch in self._batches}
        told = life.read(self._storage, self._study.optuna._study_id)
        if not jobs or self._is_stopping or any(entry.job in jobs for entry in told.entries.values()):
            return
        log_file = near(self._study.files.launcher_log)
        ends = [job.ended for job in jobs.values() if job.ended is not None]
        if error := next((end["error"] for end in ends if end.get("error")), None):
            raise caller.read(error)
        if raised := next((end["raised"] for end in ends if end.get("raised")), None):
            raise BadInput("hydra/launcher", self._choice, raised, f"see {log_file}")
        codes = [end["code"] for end in ends if end.get("code")]
        if codes or not ends:
            code = _told_code(codes[0]) if codes else "gave no sign of life"
            reason = f"its jobs {code} before they joined the study"
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
    is_slurms = _SLURM in launch.node["_target_"]
    job = Job(launch.orders.batch, launch.name, life.place_of(study.files), is_slurms)
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


# ------------------------------------------------------------------------------------ the launching process


def main() -> None:
    """Hand jobs to the launcher until no work is left. All that it needs to know comes by standard input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    launch = Launch.read(sys.stdin.buffer.read())
    remember_secrets(launch.storage)
    files = StudyFiles(Path(launch.study_folder))
    heartbeat = Heartbeat(files.heartbeats, launch.name)
    if _SLURM in launch.node["_target_"]:
        threading.Thread(target=_end_with_the_queue, args=(launch.orders.batch,), daemon=True).start()
    try:
        _launch(launch, files)
    finally:
        heartbeat.end()


def _end_with_the_queue(batch: str) -> None:
    """Without accounting nobody tells submitit of a job that was killed, and it would wait for ever."""
    has_seen, n_empty, n_silent = False, 0, 0
    while n_empty < _EMPTY_QUEUES and n_silent < _SILENT_QUEUES:
        time.sleep(_BEGIN_S)
        queue = _asked_queue()
        n_silent = n_silent + 1 if queue is None else 0
        if queue is not None:
            has_seen = has_seen or batch in queue
            n_empty = n_empty + 1 if has_seen and batch not in queue else 0
    os._exit(0)


def _launch(launch: Launch, files: StudyFiles) -> None:
    storage = look_into_storage(launch.storage)
    optuna_study = optuna.load_study(study_name=launch.study, storage=storage, sampler=RandomSampler())
    study_id = optuna_study._study_id
    n_jobs, first, n_before = launch.orders.n_jobs, 0, -1
    launcher: Any = None
    # Jobs whose time holds no trial at all would follow each other for ever.
    while n_jobs and n_before < (n_before := _n_finished(optuna_study)):
        ends: dict[str, dict[str, Any]] = {}
        try:
            launcher = launcher or _launcher(launch)
            for returned in launcher.launch([[]] * n_jobs, first):
                end = returned.return_value
                ends[end["job"]] = end
        except Exception as error:
            print(hide_secrets(traceback.format_exc()), flush=True)
            ends = {launch.orders.job(first + n): {"raised": _line(error)} for n in range(n_jobs)}
        job = Job(launch.orders.batch, launch.name, life.place_of(files), _SLURM in launch.node["_target_"])
        for name, end in ends.items():
            storage.set_study_system_attr(study_id, f"{JOB}{name}", asdict(replace(job, ended=end)))
        first += n_jobs
        n_jobs = sum(bool(end.get("again")) for end in ends.values())
        if life.read(storage, study_id).n_stops > launch.orders.stops:
            return
        for number in range(first, first + n_jobs):
            storage.set_study_system_attr(study_id, f"{JOB}{launch.orders.job(number)}", asdict(job))


def _n_finished(study: optuna.Study) -> int:
    return sum(trial.state in FINISHED for trial in study.get_trials(deepcopy=False))


def _line(error: Exception) -> str:
    return one_line(hide_secrets(str(error)) or type(error).__name__)


def _launcher(launch: Launch) -> Any:
    """The launcher, on a config that holds nothing of the app."""
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.plugins import Plugins
    from hydra.core.utils import setup_globals
    from hydra.types import HydraContext

    setup_globals()
    plugins = Plugins.instance()
    loader = ConfigLoaderImpl(config_search_path=create_config_search_path(None))
    quoted = json.dumps(launch.study_folder)
    overrides = [
        f"hydra.sweep.dir={quoted}",
        "hydra.sweep.subdir=.sweeper",
        "hydra.output_subdir=null",
        "hydra.job.name=sweeper",
        "hydra.job.chdir=false",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    config = loader.load_configuration(None, overrides, run_mode=RunMode.MULTIRUN)
    with flag_override(config, ["readonly", "struct"], [False, False]):
        config.hydra.launcher = _typed_node(launch)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    task: Callable[..., Any] = partial(run_pool, launch.orders)
    return plugins.instantiate_launcher(hydra_context=context, task_function=task, config=config)


def _typed_node(launch: Launch) -> DictConfig:
    """The node with the types that the launcher's plugin has given it, where it has."""
    from hydra.core.config_store import ConfigStore

    node = dict(launch.node)
    if _RAY in node["_target_"]:
        _let_ray_connect(node)
    known: Mapping[str, Any] = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    stored = known.get(f"{launch.choice}.yaml")
    typed = OmegaConf.create(node)
    if stored is not None and OmegaConf.select(stored.node, "_target_") == node["_target_"]:
        with suppress(Exception):
            merged = OmegaConf.merge(stored.node, typed)
            assert isinstance(merged, DictConfig)
            return merged
    return typed


def _let_ray_connect(node: dict[str, Any]) -> None:
    """hydra-ray-launcher names a size of memory, which Ray refuses where a cluster is there already."""
    init = node.get("ray", {}).get("init", {})
    if init.get("address") or os.environ.get("RAY_ADDRESS"):
        init.setdefault("object_store_memory", None)
