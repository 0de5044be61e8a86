"""Fixtures that more than one file of tests needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sweeper.search.lock import locked
from sweeper.search.space import Space

MakeSpace = Callable[..., Space]


@pytest.fixture(scope="session")
def make_space(tmp_path_factory: pytest.TempPathFactory) -> MakeSpace:
    """``make_space(files, *arguments)``: the space of ``app.py -m ARGUMENTS`` where conf/ holds these files.

    A file is a dict, or text where its comments matter; a ``config`` without defaults list gets the sweeper.
    """

    def make(files: dict[str, dict[str, Any] | str], *arguments: str) -> Space:
        conf = tmp_path_factory.mktemp("conf")
        for name, content in files.items():
            if name == "config" and isinstance(content, dict) and "defaults" not in content:
                content = {"defaults": ["_self_", {"override hydra/sweeper": "sweeper_optuna"}], **content}
            path = conf / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        with initialize_config_dir(str(conf), version_base="1.3", job_name="app"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            master = hydra.compose_config(
                "config", list(arguments), run_mode=RunMode.MULTIRUN, with_log_configuration=False
            )
        return Space(master, list(master.hydra.overrides.task), hydra.config_loader)

    return make


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's first command was run: 40 trials on the digits, study ``digits``.

    One run serves all processes of the tests: whoever comes first runs it.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, printed = root / "searched", root / "searched" / "stdout.txt"
    with locked(root / "searched.lock"):
        if not printed.exists():
            folder.mkdir()
            command = [sys.executable, "-m", "sweeper", "-m", "optimizer=adam,sgd", "study=digits"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout)
    return folder
