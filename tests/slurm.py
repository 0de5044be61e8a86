"""A real Slurm cluster of two nodes on this machine, for as long as a test needs it.

All that it needs lies in a folder of its own, sockets and ports included, so that several may run at once.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.program import free_port, until

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 MaxTime=60
PartitionName=high Nodes=n1,n2 PriorityTier=2 MaxTime=60
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """By which Slurm's commands find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def command(self, *words: str) -> str:
        """What one of Slurm's commands prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **self.environment}
        return subprocess.run(words, env=variables, capture_output=True, text=True, check=False, timeout=30)

    def queue(self, *states: str) -> list[str]:
        """The jobs in these states, by their numbers; without states all that have not ended."""
        wanted = ["-t", ",".join(states)] if states else []
        return self.command("squeue", "-h", "-r", "-o", "%i", *wanted).split()


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Start it, wait until both nodes take jobs, and stop it; skips the test where it cannot be had."""
    if missing := [name for name in _PROGRAMS if _found(name) is None]:
        pytest.skip(f"needs Slurm (apt-get install slurm-wlm munge): there is no {missing[0]}")
    if os.geteuid() != 0:
        pytest.skip("this Slurm cluster needs root")
    with ExitStack() as stack:
        # The path of a socket must be short.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        config = folder / "slurm.conf"
        ports = [free_port() for _ in range(3)]
        config.write_text(_CONFIG.format(host=socket.gethostname(), folder=folder, ports=ports))
        cluster = Slurm(folder)
        munge = [f"--{name}={folder}/munge.{ending}" for name, ending in _MUNGE_FILES.items()]
        stack.enter_context(_running(folder, "munged", "-F", "-f", *munge))
        until(lambda: (folder / "munge.socket").exists())
        stack.enter_context(_running(folder, "slurmctld", "-D", "-f", str(config)))
        for node in ("n1", "n2"):
            stack.enter_context(_running(folder, "slurmd", "-D", "-N", node, "-f", str(config)))
        until(lambda: _is_idle(cluster), limit_s=40)
        stack.callback(_end_jobs, cluster)
        yield cluster


_MUNGE_FILES = {
    "socket": "socket",
    "key-file": "key",
    "log-file": "log",
    "pid-file": "pid",
    "seed-file": "seed",
}


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def _running(folder: Path, name: str, *words: str) -> Iterator[None]:
    command = [str(_found(name)), *words]
    with (folder / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_idle(cluster: Slurm) -> bool:
    said = cluster.run("sinfo", "-h", "-N", "-p", "low", "-o", "%N %t")
    return said.stdout.split() == ["n1", "idle", "n2", "idle"]


def _end_jobs(cluster: Slurm) -> None:
    cluster.run("scancel", "-u", "root")
    until(lambda: not cluster.queue(), limit_s=30)
