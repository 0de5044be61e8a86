"""What each job of a launcher does: it starts the app's own command again, which joins the study.

It is a fresh interpreter that knows of the app only strings: its command, its folder and its environment. So
nothing of the app is pickled, whatever its script holds.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from sweeper import caller
from sweeper.errors import MAX_CHARACTERS, shortened
from sweeper.search import engine
from sweeper.search.engine import Order
from sweeper.search.process import handling
from sweeper.secret import hide_secrets
from sweeper.words import one_line

STORAGE = "SWEEPER_STORAGE"
"""The variable by which the storage's URL, which may hold a password, reaches jobs that inherit variables."""
_KEPT_BYTES, _LAST_WORDS_S = 8192, 2
_TO_STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@dataclass(frozen=True)
class Orders:
    """What every job of a launcher is told."""

    batch: str
    """Names the jobs, with a number behind it."""
    words: tuple[str, ...]
    """The app's own command."""
    folder: str
    """Where it was started."""
    environment: dict[str, str]
    machine: str
    """Of the opening command, by ``engine.machine``."""
    slurm_job: str
    """In which the opening command itself was typed, mostly none."""
    n_jobs: int
    stops: int = 0
    deadline: float | None = None
    timeout_min: float | None = None
    signal_delay_s: float = 0
    """How long before its end the engine asks a job to stop."""
    gpus: tuple[str, ...] = ()
    """Those of the opening command's machine."""
    gpus_per_job: int | None = None
    storage: str | None = field(default=None, repr=False)

    def job(self, number: int | str) -> str:
        return f"{self.batch}-{number}"

    @staticmethod
    def batch_of(job: str) -> str:
        return job.rpartition("-")[0]


# ---------------------------------------------------------------------------------------------- in each job


def run_pool(orders: Orders, config: object = None) -> dict[str, Any]:
    """Start the app's own command, which joins the study as a pool, and wait for its end.

    Returns:
        how it ended: the ``job``, the exit ``code``, whether it ended because its time was short, so that
        another one may go on (``again``), the ``error`` that it told, and of what it wrote to its standard
        error the ``last`` line that names one.
    """
    job = orders.job(_number())
    with _heeding() as heard, tempfile.TemporaryFile() as file:
        child = subprocess.Popen(
            [sys.executable, *orders.words],
            cwd=orders.folder,
            env=_environment(orders, job) | {caller.VARIABLE: caller.told_by(file.fileno(), "same")},
            pass_fds=[file.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with _passed_on(child.stderr) as end:
            code = _wait(child, heard)
        said = caller.heard(file.fileno())
    error = said.get("error")
    if error is not None:
        print(error, file=sys.stderr, flush=True)
    _let_the_engine_have_its_turn(heard)
    is_short = engine.OUT_OF_TIME in said or bool({signal.SIGUSR1, signal.SIGUSR2} & set(heard))
    told = None if error is None else caller.written(error)
    return {"job": job, "code": code, "again": is_short, "error": told, "last": _telling(bytes(end))}


def _number() -> int | str:
    """The job's among those of the launcher; some launchers do not tell."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import MissingMandatoryValue

    with suppress(ValueError, MissingMandatoryValue):  # there is no config, or nothing in it
        return HydraConfig.get().job.num
    return uuid.uuid4().hex[:8]


@contextmanager
def _passed_on(stream: IO[bytes] | None) -> Iterator[bytearray]:
    """The end of what comes by a stream; all of it goes on to where this process's errors go."""
    assert stream is not None
    end, file = bytearray(), stream.fileno()

    def pass_on() -> None:
        with stream:
            while piece := os.read(file, _KEPT_BYTES):
                end[:] = (end + piece)[-_KEPT_BYTES:]
                with suppress(OSError):  # nobody reads it, and the child must not wait
                    os.write(2, piece)

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    yield end
    reader.join(_LAST_WORDS_S)  # a process that outlives the child may hold the other end


def _telling(end: bytes) -> str | None:
    """The line that says why a program ended, as Python and Hydra write it."""
    lines = end.decode(errors="replace").splitlines()
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    told = named or [line for line in lines if line.strip()]
    return hide_secrets(shortened(one_line(told[-1]), MAX_CHARACTERS)) if told else None


def _wait(child: subprocess.Popen[bytes], heard: list[int]) -> int:
    n_told = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.2)
        while n_told < len(heard):
            child.send_signal(heard[n_told])
            n_told += 1


@contextmanager
def _heeding() -> Iterator[list[int]]:
    """Collect the engine's signals, and put its own handlers back."""
    heard: list[int] = []
    # In another thread the engine sends no signals, or to the child alone.
    signums = _TO_STOP if threading.current_thread() is threading.main_thread() else ()
    with handling(lambda signum, _: heard.append(signum), *signums):
        yield heard


def _let_the_engine_have_its_turn(heard: Sequence[int]) -> None:
    """Call what the engine does at these signals, now that the pool has ended: submitit queues the job again.

    Slurm also may ask by SIGTERM alone, long before it ends what it takes the place of, and queues only those
    again that it had to end.
    """
    signums = [signal.Signals(n) for n in dict.fromkeys(heard)]
    if signal.SIGTERM in signums and signal.SIGUSR2 not in signums and _is_preempted():
        signums.append(signal.SIGUSR2)
    for told in signums:
        handler = signal.getsignal(told)
        if callable(handler) and handler is not signal.default_int_handler:
            try:
                handler(told, None)
            except Exception as error:  # it does not queue it again, and says why
                print(error, file=sys.stderr, flush=True)


def _is_preempted() -> bool:
    """Whether Slurm takes the node for another job, which leaves this one some time."""
    if (number := os.environ.get("SLURM_JOB_ID")) is None:
        return False
    said = engine.ask_slurm("scontrol", "show", "job", "-o", number) or ""
    times = [word.partition("=")[2] for word in said.split() if word.startswith("PreemptTime=")]
    return bool(times) and times[0] not in ("None", "Unknown", "N/A")


def _environment(orders: Orders, job: str) -> dict[str, str]:
    """The engine's variables, those of the opening command that matter, and what the pool is told."""
    environment = {**os.environ, **orders.environment}
    if (storage := orders.storage or os.environ.get(STORAGE)) is not None:
        environment[STORAGE] = storage  # a word of the command may refer to it
    if "PYTHONPATH" not in orders.environment:
        environment.pop("PYTHONPATH", None)  # the launching process had the app's whole path
    n_cores, gpus, end = _given(orders, job)
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if _of_ray() is not None and "OMP_NUM_THREADS" not in orders.environment:
        environment.pop("OMP_NUM_THREADS", None)  # it is Ray's, for one process
    told = Order(
        job=job,
        stops=orders.stops,
        n_cores=n_cores,
        ends_at=end,
        deadline=orders.deadline,
        storage=storage,
    )
    return environment | {engine.VARIABLE: told.written()}


def _given(orders: Orders, job: str) -> tuple[int | None, Sequence[str] | None, float | None]:
    """The cores, the GPUs and the end that the engine gives; None for what the command finds out itself."""
    end = engine.ends_at() or _end_of(orders)
    end = None if end is None else end - orders.signal_delay_s
    if (resources := _of_ray()) is not None:
        return max(1, int(resources.get("CPU", 1))), None if resources.get("GPU") else (), end
    is_slurms = os.environ.get("SLURM_JOB_ID", "") != orders.slurm_job
    if is_slurms or engine.machine() != orders.machine:
        return None, None, end
    # An engine of this machine says nothing: its jobs share what is here.
    number = int(job.rpartition("-")[2]) if job.rpartition("-")[2].isdecimal() else 0
    return max(1, engine.n_cores() // orders.n_jobs), _dealt(orders, number), end


def _dealt(orders: Orders, number: int) -> Sequence[str]:
    """The GPUs of a job, where all jobs share those of one machine."""
    n = len(orders.gpus)
    if n == 0:
        return ()
    if orders.gpus_per_job:
        first = number * orders.gpus_per_job
        return list(dict.fromkeys(orders.gpus[(first + k) % n] for k in range(orders.gpus_per_job)))
    return orders.gpus[number % n :: orders.n_jobs]


def _end_of(orders: Orders) -> float | None:
    """What the launcher was set to, where its engine tells its jobs nothing."""
    limit_s = os.environ.get("SUBMITIT_LOCAL_TIMEOUT_S", "")
    if limit_s.isdecimal():
        return time.time() + int(limit_s)
    return None if orders.timeout_min is None else time.time() + 60 * orders.timeout_min


def _of_ray() -> Mapping[str, float] | None:
    """What Ray gave to this task; None where Ray did not start it."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    resources: Mapping[str, float] = ray.get_runtime_context().get_assigned_resources()
    return resources
