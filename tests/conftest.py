"""Fixtures that more than one file of tests needs."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sweeper import schema, secret
from sweeper.__main__ import main
from sweeper.check import to_run
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.lock import locked
from sweeper.program import storage_option
from sweeper.search.space import Space
from tests.program import run
from tests.server import Postgres, Proxy, postgres_server

MakeSpace = Callable[..., Space]
RunWith = Callable[..., schema.Run]
Cli = Callable[..., tuple[int, str]]
Said = Callable[..., tuple[int, str]]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


gc.disable()  # until all is imported, which stays: looking for garbage takes a fifth of that time


def pytest_configure(config: pytest.Config) -> None:
    """Give the processes their tests in our order: xdist would begin with the groups of most tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, but for those of a group; skip those that need a missing GPU.

    The groups that take longest come first: what is long and comes last is waited for by all.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    seconds = _seconds(items)
    items.sort(key=lambda item: -seconds[_group(item)])
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU that torch can use"))


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among the tests and libraries."""
    gc.freeze()
    gc.enable()


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.kwargs.get("name") or mark.args[0])


def _seconds(items: list[pytest.Item]) -> Mapping[str, float]:
    """About how long each group takes."""
    seconds, cases = Counter[str](), Counter[tuple[Path, str]]()
    for item in items:
        test = item.path, item.name.partition("[")[0]
        cases[test] += 1
        if (limit := item.get_closest_marker("timeout")) is not None:
            seconds[_group(item)] += limit.args[0] // 10
        elif item.get_closest_marker("slow") and cases[test] <= 6:  # where there are more, each is short
            seconds[_group(item)] += 5
    return seconds


torch.set_num_threads(1)
"""Several processes run the tests: each using all cores of a machine would wait for the others."""


def mostly_slow(cases: Iterable[Any], every: int) -> list[Any]:
    """Cases to try, of which the default run takes one in so many; CI takes all."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] if n % every else []
        )
        for n, case in enumerate(cases)
    ]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this session, and the processes that it starts, decode to: never the user's own cache.

    These processes compute with one thread each, too, unless a test lets a search decide.
    """
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_CACHE", str(folder))
        patch.delenv("SWEEPER_CACHE_GB", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process knows passwords that it has met, and what was typed; a test nothing of the test before."""
    monkeypatch.setattr(secret, "_known", {})
    storage_option.clear()


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


@pytest.fixture(scope="module")
def run_with() -> Iterator[RunWith]:
    """``run_with(*overrides)``: the run that our own conf/ gives with them."""
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE):
        yield lambda *overrides: to_run(compose("config", list(overrides)))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in an empty folder; gives exit code and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # restored afterwards; the program sets it

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweeper", *arguments])
        with pytest.raises(SystemExit, match=r"^\d+$") as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs the command line in an empty folder, without a terminal; gives exit code and all it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweeper", *arguments])
        with pytest.raises(SystemExit, match=r"^\d+$") as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        captured = capsys.readouterr()
        return exit_.value.code, captured.out + captured.err

    return run


@pytest.fixture(scope="module")
def plain(make_space: MakeSpace) -> Space:
    """A range and a choice."""
    return make_space({"config": {"x": 0.0, "c": "a"}}, "x=interval(0,1)", "c=a,b,d")


@pytest.fixture(scope="module")
def countable(make_space: MakeSpace) -> Space:
    """Four points."""
    return make_space({"config": {"x": 0, "c": "a"}}, "x=range(2)", "c=a,b")


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
            done = run(folder, "-m", "sweeper", "-m", "optimizer=adam,sgd", "study=digits", limit_s=280)
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, which a test may stop."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres(running_postgres: Postgres) -> Postgres:
    """A running PostgreSQL server with an empty database."""
    running_postgres.start()
    running_postgres.empty()
    return running_postgres


@pytest.fixture
def proxy(postgres: Postgres, tmp_path: Path) -> Iterator[Proxy]:
    """A running gRPC proxy of an empty database in PostgreSQL."""
    yield from _started(Proxy(tmp_path, postgres.url))


@pytest.fixture
def journal_proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A running gRPC proxy of a new journal."""
    yield from _started(Proxy(tmp_path, str(tmp_path / "proxied.journal")))


def _started(proxy: Proxy) -> Iterator[Proxy]:
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(params=["postgres", "proxy"])
def server(request: pytest.FixtureRequest) -> Postgres | Proxy:
    """A running server with no study, of each kind: its ``url`` is what a search is told."""
    found: Postgres | Proxy = request.getfixturevalue(request.param)
    return found


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
