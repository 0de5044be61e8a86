"""What a training takes from the machine, and gives back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sweeper.training import machine
from tests.program import run

IN_A_PROCESS = """
import json, resource, torch
from pathlib import Path
from sweeper.training import machine

def page_faults(n_steps, n=2**24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_steps):
        torch.ones(n)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

cpu, seen = torch.device("cpu"), {"pages": 2**26 // resource.getpagesize()}
before = resident_mb()
with machine.memory(cpu):
    page_faults(20)  # malloc takes some to find that what is free will do
    seen["kept"] = page_faults(5)
    tensors = [torch.ones(2**20) for _ in range(64)]
    others = tensors[::2]
    del tensors
    seen["held_mb"] = resident_mb() - before
seen["not kept"] = page_faults(3, 2**27)  # too large for a block that was freed before
del others
machine.release(cpu)
seen["left_mb"] = resident_mb() - before
print(json.dumps(seen))
"""


@pytest.mark.skipif(machine._glibc() is None, reason="malloc is not glibc's")
@pytest.mark.slow
def test_memory_is_kept_from_step_to_step_and_released(tmp_path: Path) -> None:
    """Within ``memory`` a tensor of 64 MiB finds the pages of the one before; outside each has new ones.

    In the end the process is as small as before, though what was freed lay between what was not.
    """
    done = run(tmp_path, "-c", IN_A_PROCESS)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kept"] < seen["pages"] / 10
    assert seen["not kept"] > 2 * 8 * seen["pages"]
    assert seen["held_mb"] > 200
    assert seen["left_mb"] < 30


def test_threads_are_as_before() -> None:
    """Also where the training fails."""
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), machine.threads(before + 1):
        _ = 1 / (before + 1 - torch.get_num_threads())
    assert torch.get_num_threads() == before
