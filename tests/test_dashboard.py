"""The dashboard, seen in a real browser."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.program import dashboard

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


def test_learning_curves_are_drawn_from_the_reported_values(page: Page) -> None:
    """The intermediate values of the trials stand in a plot of their own."""
    title = re.compile("Intermediate values", re.IGNORECASE)
    page.get_by_text(title).locator("visible=true").first.wait_for()


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
