"""What started this process, and what it gave: cores, GPUs, time, and the signals that ask for an end.

A launcher's engine (Slurm, Ray, a pool of processes) starts jobs, and each job the app's own command, which
the environment tells to join the study (``VARIABLE``). What the engine said to the job stands there too, as
the command cannot ask it again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

VARIABLE = "SWEEPER_JOB"
"""What a job tells the app's command that it starts: an ``Order``, as JSON."""

OUT_OF_TIME = "out_of_time"
"""What a pool says to its job where work is left for which the job has no time."""

_CGROUPS = Path("/sys/fs/cgroup")
_ASK_S = 10
"""How long Slurm's controller may take to answer; a busy one is not waited for."""


@dataclass(frozen=True)
class Order:
    """What makes the app's own command the pool of a job."""

    job: str
    """Its name, under which the study knows it."""
    stops: int = 0
    """How often the study had been stopped when the job was asked for; later it must not begin."""
    n_cores: int | None = None
    ends_at: float | None = None
    """Seconds since the epoch; None where the engine sets no limit."""
    deadline: float | None = None
    """Seconds since the epoch after which the search starts no trial any more (``timeout_s``)."""
    storage: str | None = None
    """Of the study; None where the words of the command, or the folder, say it."""

    def written(self) -> str:
        return json.dumps(asdict(self))


def order() -> Order | None:
    """What the job that started this command has told it; None where nobody has."""
    with suppress(ValueError, TypeError, AttributeError):
        said = json.loads(os.environ.get(VARIABLE, ""))
        known = {name: said[name] for name in Order.__dataclass_fields__ if said.get(name) is not None}
        return Order(**known)
    return None


def job() -> str | None:
    """The name of the job in which this process runs, or None."""
    if (ordered := order()) is not None:
        return ordered.job
    return f"slurm-{_slurm_job()}" if _slurm_job() else None


def stop_signals() -> tuple[signal.Signals, ...]:
    """What asks for an end where an engine may send it: at a preemption, or before the time is over."""
    if job() is None:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@cache
def machine() -> str:
    """Names this machine, since it was started: clones and containers may share its name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode()} {socket.gethostname()}"


def n_cores() -> int:
    """The cores that this process may use: those of the job, never more than the system lets it have."""
    # sched_getaffinity is not on macOS.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ordered = order()
    given = [n for n in (ordered and ordered.n_cores, _slurm_cores(), *_quotas()) if n]
    return max(1, int(min([allowed, *given])))


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` may name here, asked without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    there = listing.stdout.split() if listing.returncode == 0 else []
    named = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
    return [gpu for gpu in there if gpu in named.split(",")] or there


def ends_at() -> float | None:
    """When the engine ends this job, in seconds since the epoch; None where it has no limit."""
    if (ordered := order()) is not None and ordered.ends_at is not None:
        return ordered.ends_at
    if not (slurm_job := _slurm_job()):
        return None
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(end) if end.isdecimal() else _asked_end(slurm_job)


# ------------------------------------------------------------------------------------------------- engines


def _slurm_job() -> str:
    """Its number, of an array ``12_3``; empty outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _slurm_cores() -> int | None:
    """Those of this task; where nobody asked for some, the job's on this node, shared by its tasks there."""
    if not _slurm_job():
        return None
    if (per_task := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        return int(per_task)
    on_node = os.environ.get("SLURM_CPUS_ON_NODE", "")
    n_tasks = re.match(r"\d+", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    return max(1, int(on_node) // max(1, int(n_tasks[0]))) if on_node.isdecimal() and n_tasks else None


@cache
def _asked_end(slurm_job: str) -> float | None:
    """What the controller says; older versions of Slurm do not tell the job itself."""
    with suppress(ValueError, IndexError):
        said = ask_slurm("squeue", "-h", "-j", slurm_job, "-o", "%e") or ""
        return datetime.fromisoformat(said.split()[0]).timestamp()
    return None


def ask_slurm(*command: str) -> str | None:
    """What a command of Slurm prints; None where there is none, or its controller does not answer in time."""
    with suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ASK_S)
        return said.stdout if said.returncode == 0 else None
    return None


def _quotas() -> Iterator[float]:
    """The cores that control groups let this process use, of each group that it is in."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2
                yield from _group_quotas(_CGROUPS, path, _quota)
            elif "cpu" in controllers.split(","):
                yield from _group_quotas(_CGROUPS / controllers, path, _old_quota)


def _group_quotas(root: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Of a group and of those that hold it; in a container its own group is the root."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        with suppress(OSError, ValueError):
            if (quota := read(folder)) is not None:
                yield quota


def _quota(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _old_quota(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return None if quota < 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
