"""The launching process, which hands jobs to a Hydra launcher's engine, and what it is told.

The opening command starts it (``opening.py``); each of its jobs runs the app's own command again
(``launched.py``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from optuna.samplers import RandomSampler

from sweeper.caller import VARIABLE as CALLER
from sweeper.lock import Heartbeat
from sweeper.outcome import n_finished
from sweeper.record.study_files import StudyFiles
from sweeper.results.study_record import override
from sweeper.search import engine, life
from sweeper.search.launched import STORAGE, Orders, run_pool
from sweeper.search.search import Search
from sweeper.search.settings import key_of, launcher_name
from sweeper.search.storage import look_into_storage
from sweeper.search.study import Study
from sweeper.secret import hide_secrets, remember_secrets
from sweeper.words import one_line

JOB = "sweeper:job:"
"""A system attribute of the study for each job that was asked for, with the job's name behind it."""

BEGIN_S = 60
"""How long jobs that the engine has let go of may be on their way to their first word."""
_EMPTY_QUEUES, _SILENT_QUEUES = 3, 60
"""So often, a minute apart, Slurm's queue has none of the jobs any more, or does not answer, before they are
given up."""

_SLURM = "submitit_launcher.SlurmLauncher"
_COMMENT = "sweeper "
"""Begins that of our jobs in Slurm's queue; their batch follows."""
_RAY = "hydra_ray_launcher"
"""Its jobs inherit no variables from the process that launches them; it sends all through memory."""

_GOES_ALONG = re.compile(r"(SWEEPER|HYDRA|TORCH|HF|PYTHON)_?\w*|XDG_CACHE_HOME|OMP_NUM_THREADS")
"""Variables of the opening command that matter to jobs which inherit none."""


# ----------------------------------------------------------------------------------------- what it is told


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
        if _is_slurms(node) and not node.get("comment"):
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
            choice=launcher_name(master),
            node=node,
            sys_path=[str(Path(entry).absolute()) for entry in sys.path],
        )

    @property
    def outputs(self) -> Path:
        """Where what its jobs print is found."""
        folder = str(self.node.get("submitit_folder") or "").partition("%")[0]
        return Path(folder) if folder else StudyFiles(Path(self.study_folder)).launcher_log

    @property
    def is_slurms(self) -> bool:
        """Whether Slurm runs its jobs, whose queue can be asked."""
        return _is_slurms(self.node)

    def job(self, files: StudyFiles) -> Job:
        """What the study is told of each job that it asks for."""
        orders = self.orders
        return Job(orders.batch, self.name, life.place_of(files), self.is_slurms, orders.stops)

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, text: bytes) -> Launch:
        said = json.loads(text)
        return cls(**{**said, "orders": Orders(**said["orders"])})


def _is_slurms(node: Mapping[str, Any]) -> bool:
    return _SLURM in node["_target_"]


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
    words = [_named(word, search) for word in words]
    words = [
        f"{_key(word)}='${{oc.env:{STORAGE}}}'"
        if _key(word) == search.stored_by and hide_secrets(word) != word
        else word
        for word in words
    ]
    if search.named_by not in {_key(word) for word in words}:
        words.append(override(search.named_by, search.study_name))
    if search.folder_by == "time":
        words.append(override("hydra.sweep.dir", str(search.folder)))
    return words


def _named(word: str, search: Search) -> str:
    """The word as it is; where it makes the study's name of the time, or by chance, with the name it made."""
    if _key(word) != search.named_by or "${" not in word:
        return word
    before = word.partition(search.named_by)[0]
    return f"{before}{override(search.named_by, search.study_name)}"


def _key(word: str) -> str:
    return key_of(word) if "=" in word else ""


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
    stops: int = 0
    """How often the study had been stopped when it was asked for: after one more it ends as it begins."""
    ended: dict[str, Any] | None = None
    """What ``run_pool`` gave, or the launcher raised, once that is known."""

    @classmethod
    def read(cls, said: Any) -> Job | None:
        try:
            return cls(**said)
        except TypeError:
            return None


def asked_queue() -> Counter[str] | None:
    said = engine.ask_slurm("squeue", "-h", "-r", "-o", "%k")
    return None if said is None else Counter(_batches(said))


def _batches(listing: str) -> Iterator[str]:
    """The batches of the jobs that a queue lists by their comments; it lists none that have ended."""
    for comment in listing.splitlines():
        if comment.startswith(_COMMENT):
            yield comment.removeprefix(_COMMENT).strip()


# ------------------------------------------------------------------------------------ the launching process


def main() -> None:
    """Hand jobs to the launcher until no work is left. All that it needs to know comes by standard input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    launch = Launch.read(sys.stdin.buffer.read())
    remember_secrets(launch.storage)
    files = StudyFiles(Path(launch.study_folder))
    heartbeat = Heartbeat(files.heartbeats, launch.name)
    if launch.is_slurms:
        threading.Thread(target=_end_with_the_queue, args=(launch.orders.batch,), daemon=True).start()
    try:
        _launch(launch, files)
    finally:
        heartbeat.end()


def _end_with_the_queue(batch: str) -> None:
    """Without accounting nobody tells submitit of a job that was killed, and it would wait for ever."""
    has_seen, n_empty, n_silent = False, 0, 0
    while n_empty < _EMPTY_QUEUES and n_silent < _SILENT_QUEUES:
        time.sleep(BEGIN_S)
        queue = asked_queue()
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
    while n_jobs and n_before < (n_before := n_finished(optuna_study.get_trials(deepcopy=False))):
        ends: dict[str, dict[str, Any]] = {}
        try:
            launcher = launcher or _launcher(launch)
            for returned in launcher.launch([[]] * n_jobs, first):
                end = returned.return_value
                ends[end["job"]] = end
        except Exception as error:
            print(hide_secrets(traceback.format_exc()), flush=True)
            ends = {launch.orders.job(first + n): {"raised": _line(error)} for n in range(n_jobs)}
        # Some launchers do not tell a job which one it is, and then it has a name of its own.
        job, asked = launch.job(files), map(launch.orders.job, range(first, first + n_jobs))
        for name, end in ({name: {} for name in asked} | ends).items():
            storage.set_study_system_attr(study_id, f"{JOB}{name}", asdict(replace(job, ended=end)))
        first += n_jobs
        n_jobs = sum(bool(end.get("again")) for end in ends.values())
        if life.read(storage, study_id).n_stops > launch.orders.stops:
            return
        for number in range(first, first + n_jobs):
            storage.set_study_system_attr(study_id, f"{JOB}{launch.orders.job(number)}", asdict(job))


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
