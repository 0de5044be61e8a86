"""What started this process, and what it gave: cores, GPUs, time and signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sweeper.search import engine
from sweeper.search.engine import Order, ends_at, job, n_cores, order, stop_signals, visible_gpus


@pytest.fixture(autouse=True)
def _without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without any, wherever the tests run."""
    for name in os.environ:
        if name.startswith(("SLURM_", "SWEEPER_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        *[("", []), ("-1", []), ("0", ["0"]), ("3,5", ["3", "5"]), ("GPU-ab,1", ["GPU-ab", "1"])],
        ("NoDevFiles", []),  # of a Slurm job without
    ],
)
def test_the_gpus_are_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str, gpus: list[str]
) -> None:
    """As ``CUDA_VISIBLE_DEVICES`` names them; none where it hides all."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_cores_are_those_this_process_may_use() -> None:
    """One at least, and no more than the machine has."""
    assert 1 <= n_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("said", "n"),
    [
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "8"}, 1),
        ({"SLURM_CPUS_ON_NODE": "1"}, 1),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}, 1),
    ],
)
def test_a_slurm_job_has_the_cores_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], n: int
) -> None:
    """Also where Slurm does not bind its tasks to them."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert n_cores() == n


def test_a_slurm_cluster_that_is_only_near_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a person sets for sbatch are no job."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert n_cores() == len(os.sched_getaffinity(0))
    assert (job(), ends_at(), stop_signals()) == (None, None, (signal.SIGTERM,))


@pytest.mark.parametrize(("quota", "n"), [("150000 100000", 1), ("50000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, n: int
) -> None:
    """Whole ones, and one at least."""
    (tmp_path / "cpu.max").write_text(quota)
    for version in ("cpu", "cpu,cpuacct"):  # the same by the older control groups
        (tmp_path / version).mkdir()
        (tmp_path / version / "cpu.cfs_quota_us").write_text(quota.split()[0])
        (tmp_path / version / "cpu.cfs_period_us").write_text(quota.split()[1])
    monkeypatch.setattr(engine, "_CGROUPS", tmp_path)
    assert n_cores() == n


def test_a_job_is_told_what_its_engine_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its cores, its end, and how often the study had been stopped."""
    told = Order(job="ray-1", stops=2, n_cores=1, ends_at=12.5)
    monkeypatch.setenv(engine.VARIABLE, told.written())
    assert order() == told
    assert (job(), n_cores(), ends_at()) == ("ray-1", 1, 12.5)
    assert stop_signals() == (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_a_variable_that_is_no_order_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Somebody else's text joins no study."""
    monkeypatch.setenv(engine.VARIABLE, text)
    assert order() is None


def test_a_slurm_job_knows_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm says it in the environment; a task of an array has its own name."""
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(end := int(time.time()) + 60))
    assert (job(), ends_at()) == ("slurm-8", end)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job() == "slurm-7_3"
