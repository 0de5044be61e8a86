"""What a training takes from the machine, and gives back."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from sweeper.training import machine

CPU = torch.device("cpu")
N_FLOATS = 2**24
PAGE_BYTES = resource.getpagesize()
N_PAGES = 4 * N_FLOATS // PAGE_BYTES

HOLD_AND_RELEASE = """
import torch
from pathlib import Path
from sweeper.training import machine

def resident_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

before = resident_mb()
with machine.memory(torch.device("cpu")):
    tensors = [torch.ones(2**20) for _ in range(64)]
    kept = tensors[::2]
    del tensors
    within = resident_mb()
del kept
machine.release(torch.device("cpu"))
print(within - before, resident_mb() - before)
"""


def page_faults(n_steps: int) -> int:
    """How many there are while a tensor of 64 MiB comes and goes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_steps):
        torch.ones(N_FLOATS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


needs_glibc = pytest.mark.skipif(machine._glibc() is None, reason="malloc is not glibc's")


@needs_glibc
def test_memory_is_kept_from_step_to_step() -> None:
    """Within ``memory`` a tensor finds the pages of the one before; outside each has new ones."""
    with machine.memory(CPU):
        page_faults(1)
        assert page_faults(5) < N_PAGES / 10
    assert page_faults(5) > N_PAGES * 4


@needs_glibc
def test_memory_is_released_in_the_end() -> None:
    """The process is as small as before, though half of what was freed lay between what was not."""
    done = subprocess.run(
        [sys.executable, "-c", HOLD_AND_RELEASE], capture_output=True, text=True, check=True
    )
    within, after = map(float, done.stdout.split())
    assert within > 200
    assert after < 30


def test_threads_are_as_before() -> None:
    """Also where the training fails."""
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), machine.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
