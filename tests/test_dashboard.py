"""The dashboard, seen in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import optuna
import pytest

from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from tests.conftest import Cli
from tests.journal import open_journal
from tests.program import dashboard, finish, free_port, start, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def address(searched: Path) -> Iterator[str]:
    """A running dashboard on everything that was searched."""
    with dashboard(searched) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The study's page."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.goto(address)
    page.get_by_role("link", name=re.compile("digits")).first.click()
    yield page
    page.close()


def test_the_study_opens_with_its_history(page: Page) -> None:
    """The list of studies leads to the study; its history names the objective."""
    assert page.title() == "Optuna Dashboard"
    page.get_by_text("History").locator("visible=true").first.wait_for()
    page.get_by_text("val_accuracy").locator("visible=true").first.wait_for()


@pytest.mark.slow
def test_learning_curves_are_drawn_from_the_reported_values(page: Page) -> None:
    """The intermediate values of the trials stand in a plot of their own."""
    title = re.compile("Intermediate values", re.IGNORECASE)
    page.get_by_text(title).locator("visible=true").first.wait_for()


@pytest.mark.slow
def test_a_trial_shows_accuracy_seconds_memory_and_folder(page: Page, searched: Path) -> None:
    """A person sees with each trial what it reached, what it cost and where its files are."""
    page.locator("a[href$='/trials']").first.click()
    for attribute in ("val_accuracy 0.", "seconds ", "peak_memory_mb ", f"folder {searched}"):
        page.get_by_text(attribute).first.wait_for(state="attached")


def test_the_note_says_how_to_reproduce_the_best_trial(page: Page) -> None:
    """The study's note holds the command."""
    page.locator("a[href$='/note']").first.click()
    page.get_by_text(" -m sweeper reproduce digits").first.wait_for()


def test_the_dashboard_answers_on_this_machine_only(address: str) -> None:
    """It has no authentication, so it binds the loopback address."""
    port = int(address.rpartition(":")[2])
    with urllib.request.urlopen(f"{address}/api/studies") as answer:
        assert b"digits" in answer.read()
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # would fail if the dashboard had taken every address


# ------------------------------------------------------------------------------------------ only looking


@pytest.fixture
def lost() -> Iterator[Path]:
    """Where a study was killed: its trial looks as if it were running. Others may look into it."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        begin_and_die(Path(folder))
        yield Path(folder)


def begin_and_die(folder: Path) -> None:
    files, journal = StudyFiles(folder / "outputs" / "killed"), folder / "outputs" / "studies.journal"
    files.mark("killed", str(journal))
    study = optuna.create_study(study_name="killed", storage=open_journal(journal))
    study.set_user_attr("sweeper", {"format": FORMAT, "folder": str(files.folder), "max_retries": 1})
    study.tell(study.ask(), 1.0)
    study.ask().set_user_attr("worker", f"{socket.gethostname()}-1-abcdef12")


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_only_looking_writes_nothing(browser: Browser, lost: Path) -> None:
    """A dead worker's trial is shown as failed, with the reason, and no file has changed or is new."""
    before = contents(lost)
    with dashboard(lost) as address:
        page = browser.new_page()
        page.goto(f"{address}/dashboard/studies/0/trials?numbers=1")
        page.get_by_text("its process is gone").first.wait_for(state="attached")
        for tab in ("", "/analytics", "/trialTable", "/note"):
            page.goto(f"{address}/dashboard/studies/0{tab}")
            page.wait_for_load_state("networkidle")
        page.close()
    assert contents(lost) == before


AS_SOMEBODY_ELSE = """
import os, sys
command = [sys.executable, "-m", "sweeper", *sys.argv[1:]]
if os.getuid() == 0:
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
os.execvp(command[0], command)
"""
"""Root may read and write everything, unless it gives that up."""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root may write everything")
def test_anothers_studies_can_be_browsed(lost: Path) -> None:
    """A journal and folders that one may only read are shown, a running trial among them; what cannot be
    written is said in one line, and the server goes on."""
    for path in lost.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.chown(path, 65534, 65534)
    (StudyFiles(lost / "outputs" / "killed").heartbeats / "storage").chmod(0o000)
    server = start(lost, "-c", AS_SOMEBODY_ELSE, "dashboard", "--port", port := free_port())
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(address) or server.poll() is not None, limit_s=60)
        assert server.poll() is None, finish(server).stderr
        with urllib.request.urlopen(f"{address}/api/studies/0") as answer:
            assert b"its process is gone" in answer.read()
        delete = urllib.request.Request(f"{address}/api/studies/0", method="DELETE")
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(delete)
        assert answers(address)
    finally:
        server.terminate()
        done = finish(server)
        for path in lost.rglob("*"):
            path.chmod(0o700)
    assert re.fullmatch(r"dashboard: .*permission denied; .*\n", done.stderr)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/studies") as answer:
            return b"killed" in answer.read()
    except OSError:
        return False


@pytest.mark.parametrize("url", ["not-there.journal", "sqlite:///not-there.db"])
def test_a_storage_that_is_not_there(cli: Cli, tmp_path: Path, url: str) -> None:
    """It is named in one line, and not created by looking for it."""
    code, error = cli("dashboard", "--port", "0", "--storage", url)
    assert code == 2
    assert re.search(rf"{url}.*there is no such file", error)
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken(cli: Cli, lost: Path) -> None:
    """One line names it and another."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        journal = str(lost / "outputs" / "studies.journal")
        code, error = cli("dashboard", "--port", str(port), "--storage", journal)
    assert code == 2
    assert re.fullmatch(rf"--port={port}: cannot be used \(.*\); write another, as --port \d+\n", error)
