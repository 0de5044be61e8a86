"""What the last bit of a history depends on: it changes where that changes, and only there."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweeper.environment import environment
from sweeper.schema import Freezing, Model, Run, Training
from sweeper.training.model import build

RUN = Run(study="x", device="cpu", training=Training(n_threads=2))


def test_it_names_machine_versions_and_data() -> None:
    """All that a person needs to look at when a history cannot be reproduced."""
    found = environment(RUN, "the data")
    assert found["data"] == "the data"
    assert (found["python"], found["torch"]) == (platform.python_version(), torch.__version__)
    assert found["n_threads"] == 2
    assert found["system"].startswith(platform.system())
    assert found["device"] != "cpu"  # by the name that its maker gave it
    assert found == environment(RUN, "the data")


def test_weights_count_where_training_begins_with_them(tmp_path: Path) -> None:
    """Their content, not the name of their file; from scratch they do not matter."""
    path = tmp_path / "weights.pt"
    run = replace(RUN, model=Model(weights=str(path)), freezing=Freezing("full"))
    told = []
    for factor in (1.0, 1.5, 1.0):
        state = {
            name: torch.full_like(tensor, factor)
            for name, tensor in build(Model(), 1, 8, 10).state_dict().items()
        }
        torch.save(state, path)
        told.append(environment(run, "data")["weights"])
    assert told[0] == told[2] != told[1]
    assert environment(replace(run, freezing=Freezing("none")), "data")["weights"] is None


@pytest.mark.gpu
def test_a_gpu_goes_by_its_name() -> None:
    """Another card may give other bits."""
    assert environment(replace(RUN, device="cuda:0"), "")["device"] == torch.cuda.get_device_name(0)
