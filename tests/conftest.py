"""Fixtures that more than one file of tests needs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sweeper.conf import VERSION_BASE
from sweeper.lock import locked
from sweeper.search.space import Space

MakeSpace = Callable[..., Space]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this session, and the processes that it starts, decode to: never the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_CACHE", str(folder))
        patch.delenv("SWEEPER_CACHE_GB", raising=False)
        yield folder


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
        with initialize_config_dir(str(conf), job_name="app", **VERSION_BASE):
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


@contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """The address of a running ``python -m sweeper dashboard`` on the studies of a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sweeper", "dashboard", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:  # until it says that it listens
                if line.startswith("Listening on"):
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no browser is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
