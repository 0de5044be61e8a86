"""The report: one page that opens without a network, in a real browser."""

from __future__ import annotations

import logging
import math
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeper.commands.report import write_after_search
from sweeper.filesystem import write_json
from sweeper.record.study_files import StudyFiles
from sweeper.results import report, standing
from sweeper.results.study_record import StudyRecord
from tests.conftest import Cli, Said
from tests.foreign_app import App
from tests.program import IN_PROCESS, sweeper, until
from tests.studied import certificate_of, many, on_disk, record_of, trial

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PRUNED, FAIL, RUNNING = TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING

EVIL = (
    "<script>document.title='hit'</script><img src=x onerror=\"document.title='hit'\"><a href='javascript:1'>"
)
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}


@contextmanager
def opened(browser: Browser, path: Path, size: str = "desktop", scheme: Any = "light") -> Iterator[Page]:
    """The page as a browser shows it that fails on any request, message or fault of it."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, faults = context.new_page(), list[str]()
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else faults.append(r.url))
    page.goto(path.absolute().as_uri())
    yield page
    assert faults == []
    context.close()


def draw_all(page: Page) -> None:
    """Have all figures drawn, as scrolling through the page does."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": min(height, 15_000)})  # type: ignore[index]
    drawn = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('svg'))"
    until(lambda: page.evaluate(drawn), 30)


def assert_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found] == []


def evil_trials() -> list[FrozenTrial]:
    """Of an app whose names would be markup, where they are not text."""
    space: dict[str, BaseDistribution] = {
        EVIL: CategoricalDistribution([EVIL, "<b>b</b>"]),
        "y</script>": FloatDistribution(0, 1),
    }
    return [
        trial(
            0.1 * i,
            params={EVIL: EVIL if i % 2 else "<b>b</b>", "y</script>": i / 9},
            space=space,
            worker=EVIL,
        )
        for i in range(1, 6)
    ] + [trial(state=FAIL, reason=EVIL), trial(state=FAIL, traceback=EVIL)]


@pytest.mark.slow
def test_whatever_a_study_holds_is_text(browser: Browser, tmp_path: Path) -> None:
    """Names, options, reasons and commands cannot become markup, in tables or in figures."""
    seen = record_of(tmp_path, *evil_trials(), name=EVIL, metrics=[EVIL], attributes={"fixed": [f"a={EVIL}"]})
    report.write(seen.files.report, [(seen, [(EVIL, f"echo {EVIL}")])])
    with opened(browser, seen.files.report) as page:
        draw_all(page)
        assert page.title().startswith("<script>")
        assert page.locator("h1").inner_text() == EVIL
        assert page.locator("svg a, img, .plot b").count() == 0
        assert_accessible(page)


def rich(folder: Path, n: int) -> StudyRecord:
    """A study with all that can be in one: curves, options, numbers, states, two workers, a night."""
    space: dict[str, BaseDistribution] = {
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
        "optimizer.lr[freezing=head]": FloatDistribution(1e-5, 1e-1, log=True),
        "model.dropout": FloatDistribution(0.3, 0.5),
    }
    draw = random.Random(0)

    def make(i: int) -> FrozenTrial:
        lr = 10 ** draw.uniform(-5, -1)
        top = 0.99 - 0.1 * abs(math.log10(lr) + 3) + draw.gauss(0, 0.01)
        curve = [top * (1 - math.exp(-(epoch + 1) / 4)) for epoch in range(20)]
        names = {
            "optimizer": draw.choice(["adam", "sgd"]),
            "optimizer.lr[freezing=head]": lr,
            "model.dropout": 0.4,
        }
        begin = i * 5 + (50_000 if i > n / 2 else 0)
        made = partial(trial, params=names, space=space, begin_s=begin, seconds=4 + 4 * draw.random())
        worker = f"host-{i % 2}-x"
        if i % 3 == 2:
            return made(state=PRUNED, curve=curve[:3], worker=worker)
        if i % 17 == 16:
            return made(state=FAIL, reason="the worker was killed", worker=worker)
        memory, size = 500 + 40 * draw.random(), draw.choice([20_000, 1_200_000])
        return made(
            curve[-1], curve=curve, epochs=20, worker=worker, peak_memory_mb=memory, n_parameters=size
        )

    return record_of(
        folder, *many(n, make), metrics=["val_accuracy"], attributes={"fixed": ["training.epochs=20"]}
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_page_suits_each_screen(browser: Browser, tmp_path: Path, size: str, scheme: str) -> None:
    """No violation of axe's rules, nothing wider than the screen, and a text for each figure."""
    seen = rich(tmp_path, 60)
    report.write(seen.files.report, [(seen, [("Go on", "sweeper -m study=s")])])
    with opened(browser, seen.files.report, size, scheme) as page:
        draw_all(page)
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
        texts = page.locator(".plot").evaluate_all(
            "plots => plots.map(plot => plot.getAttribute('aria-label'))"
        )
        assert len(texts) >= 9
        assert min(map(len, texts)) > 40


@pytest.mark.slow
def test_a_page_of_ours_is_accessible_too(browser: Browser, searched: Path, tmp_path: Path) -> None:
    """With all that a search of our own leaves: signs, importance, the best model's mistakes and pictures."""
    out = tmp_path / "r.html"
    sweeper(searched, "report", "digits", "digits", "--out", str(out))
    for size in SIZES:
        with opened(browser, out, size, "dark" if size == "tablet" else "light") as page:
            draw_all(page)
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]


@pytest.mark.slow
def test_figures_follow_the_colours_of_the_system(browser: Browser, tmp_path: Path) -> None:
    """Also while the page is open; on paper they are dark on white, and all are there."""
    seen = rich(tmp_path, 30)
    report.write(seen.files.report, [(seen, [])])
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    with opened(browser, seen.files.report, scheme="dark") as page:
        draw_all(page)
        dark = page.evaluate(colour)
        page.emulate_media(color_scheme="light")
        until(lambda: page.evaluate(colour) != dark)
        light = page.evaluate(colour)
        page.emulate_media(color_scheme="dark")
        until(lambda: page.evaluate(colour) == dark)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(colour) == light
        assert (
            page.evaluate("Math.max(...[...document.querySelectorAll('.plot svg')].map(s => s.clientWidth))")
            <= 680
        )
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(colour) == dark


@pytest.mark.slow
def test_a_command_can_be_copied(browser: Browser, tmp_path: Path) -> None:
    """A button puts it on the clipboard, without a network."""
    seen = record_of(tmp_path, trial(0.5))
    report.write(seen.files.report, [(seen, [("Go on", "sweeper -m 'a=interval(1, 2)'")])])
    with opened(browser, seen.files.report) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "sweeper -m 'a=interval(1, 2)'"


@pytest.mark.slow
def test_a_thousand_trials_stay_light(browser: Browser, tmp_path: Path) -> None:
    """The file has at most 8 MB, is written within 10 seconds, and drawn within 15."""
    seen = rich(tmp_path, 1000)
    begin = time.monotonic()
    report.write(seen.files.report, [(seen, [])])
    seconds, n_bytes = time.monotonic() - begin, seen.files.report.stat().st_size
    with opened(browser, seen.files.report) as page:
        begin_drawing = time.monotonic()
        draw_all(page)
        drawn = time.monotonic() - begin_drawing
        print(f"1,000 trials: written in {seconds:.2f} s, {n_bytes / 1e6:.2f} MB, drawn in {drawn:.2f} s")
    assert n_bytes < 8_000_000
    assert seconds < 10
    assert drawn < 15


@pytest.mark.slow
def test_a_hundred_trials_are_written_within_three_seconds(tmp_path: Path) -> None:
    """The import of the libraries included; the file has at most 8 MB."""
    on_disk(tmp_path, *rich(tmp_path, 100).trials, attributes={"metrics": ["val_accuracy"], "space": {}})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sweeper(tmp_path, "report")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor: others may have it meanwhile.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert (tmp_path / "outputs" / "s" / "report.html").stat().st_size < 8_000_000


# -------------------------------------------------------------------------------------------------- any study


def page_of(*trials: FrozenTrial, folder: Path, **about: Any) -> str:
    """The page without its scripts, none of whose parts was left out."""
    seen = record_of(folder, *trials, **about)
    page = report.page([(seen, [])])
    assert "Left out" not in page
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.slow
def test_a_certificate_has_a_chapter_of_its_own(browser: Browser, said: Said, tmp_path: Path) -> None:
    """Words, table, and the single trainings; so does the page of its search, under its own heading."""
    on_disk(tmp_path, trial(0.98, seconds=2), trial(0.97))
    scores = {"trial 0": [0.9, 0.91, 0.92], "trial 1": [0.5, 0.51, 0.5], "defaults": [0.89, 0.9, 0.93]}
    files = certificate_of(tmp_path, scores, {"trial 0": 0.98, "trial 1": 0.97})
    for name, heading in (("s-certificate", "s-certificate"), ("s", "s")):
        assert said("report", name)[0] == 0
        with opened(browser, files.folder.with_name(name) / "report.html", "phone", "dark") as page:
            draw_all(page)
            assert page.locator("h1").inner_text() == heading
            section = page.locator("section", has=page.locator("h2", has_text=re.compile("^Certificate$")))
            assert "is expected to reach score 0.91" in section.inner_text()
            assert section.locator("tbody tr").count() == len(scores)
            assert section.locator(".plot svg.main-svg").count() > 0
            assert "out at" in section.locator(".plot").inner_text()
            assert_accessible(page)


def test_the_page_of_a_certificate_has_no_commands_of_a_search(said: Said, tmp_path: Path) -> None:
    """It goes on by its own verb, and is finished when the race is, with less trained than planned."""
    on_disk(tmp_path, trial(0.98, seconds=2), trial(0.97))
    scores = {"trial 0": [0.9, 0.91, 0.92], "trial 1": [0.91, 0.9, 0.92], "defaults": [0.1, 0.11]}
    files = certificate_of(tmp_path, scores, {"trial 0": 0.98, "trial 1": 0.97})
    assert said("report", "s-certificate")[0] == 0
    page = (files.folder / "report.html").read_text()
    assert "certificate of s, finished" in page
    assert "sweeper certify s<" in page
    assert "sweeper best s<" in page
    assert "n_trials=" not in page


def test_studies_of_any_kind_have_a_page(tmp_path: Path) -> None:
    """Empty, running, failed, with one trial, infinite values or several objectives: none is an error."""
    assert "The study has no trials yet." in page_of(folder=tmp_path)
    assert "No trial is done yet." in page_of(trial(state=RUNNING, worker="w"), folder=tmp_path)
    assert "the disk is full" in page_of(trial(state=FAIL, reason="the disk is full"), folder=tmp_path)
    assert "trial 0, the highest of 1 done" in page_of(
        trial(0.5, params={"optimizer": "sgd"}), folder=tmp_path
    )
    odd = [trial(math.inf, curve=[math.nan, math.inf]), trial(-math.inf), trial(0.5, curve=[0.1, math.nan])]
    assert "infinite" in page_of(*odd, folder=tmp_path)
    several = page_of(
        *(trial([i / 9, 1 - i / 9], params={"optimizer.lr": 1e-3}) for i in range(4)),
        folder=tmp_path,
        directions=["maximize", "maximize"],
        metrics=["recall", "precision"],
    )
    assert "Pareto front: recall and precision" in several


@pytest.mark.slow
def test_many_parameters_with_long_names_have_a_page(tmp_path: Path) -> None:
    """Fifty are drawn one by one; together as many as there is room for, which is said."""
    space: dict[str, BaseDistribution] = {f"{'long_' * 20}{i}": FloatDistribution(0, 1) for i in range(50)}
    trials = many(12, lambda i: trial(i / 12, params=dict.fromkeys(space, i / 12), space=space))
    page = page_of(*trials, folder=tmp_path)
    assert page.count('class="panel small"') >= 50
    assert "38 parameters more would not fit." in page


def test_a_part_that_cannot_be_made_takes_no_other_with_it(tmp_path: Path) -> None:
    """A damaged history is told where its figure would stand."""
    seen = record_of(tmp_path, trial(0.5), trial(0.6))
    seen.files.best.mark()
    write_json(seen.files.best.result, {"trial": standing.best_trials(seen)[0].number})
    seen.files.best.history.write_text("epoch,val_loss\n1\n")
    page = report.page([(seen, [])])
    assert "This part could not be made: Fault" in page
    assert "score by trial" in page or "Score by trial" in page


@pytest.mark.slow
def test_the_page_tells_whether_it_holds_pictures(searched: Path, tmp_path: Path) -> None:
    """Who passes it on knows; without them it holds none."""
    with_, without = tmp_path / "a.html", tmp_path / "b.html"
    said = sweeper(searched, "report", "digits", "--out", str(with_))
    assert f"Report:    {with_}" in said
    sweeper(searched, "report", "--no-images", "--out", str(without))
    assert "holds pictures of the data" in with_.read_text()
    assert "holds pictures" not in without.read_text()
    assert "<img" not in re.sub(r"<script>.*?</script>", "", without.read_text(), flags=re.DOTALL)


def test_no_password_is_in_the_page(tmp_path: Path) -> None:
    """Neither of an override, nor of a reason, nor in a figure."""
    url = "postgresql://me:sesame@host/db"
    space: dict[str, BaseDistribution] = {"url": CategoricalDistribution([url, "b"])}
    trials = [trial(0.1, params={"url": url}, space=space), trial(0.2, params={"url": "b"}, space=space)]
    page = page_of(
        *trials, trial(state=FAIL, reason=url), folder=tmp_path, attributes={"fixed": [f"db={url}"]}
    )
    assert "me:***@host" in page
    assert "sesame" not in page


# --------------------------------------------------------------------------------------------------- the verb


def test_a_search_writes_its_report(searched: Path) -> None:
    """After its result is printed, in one line; the trials' folders are as before."""
    *_, last = (searched / "stdout.txt").read_text().splitlines()
    assert last == "Report:    outputs/digits/report.html"
    assert (searched / "outputs" / "digits" / "report.html").stat().st_size < 8_000_000


def test_starting_a_search_loads_no_plots() -> None:
    """What draws is imported when there is something to draw."""
    code = "import sys, sweeper.commands.train, sweeper.search.sweep; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_report_that_cannot_be_written_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The search has ended well, and says so."""
    files = on_disk(tmp_path, trial(0.5))
    files.report.mkdir()
    with caplog.at_level(logging.WARNING):
        write_after_search(files)
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("sweeper")]
    assert line.startswith("there is no report: ")


def test_several_studies_stand_side_by_side(said: Said, tmp_path: Path) -> None:
    """In one file under outputs/, with what differs and by how much the scores do."""
    for name, value in (("a", 0.5), ("b", 0.75)):
        on_disk(tmp_path, trial(value), trial(0.1), name=name)
    code, told = said("report", "a", "b")
    assert (code, told.splitlines()[0]) == (0, "Report:    outputs/report.html")
    page = (tmp_path / "outputs" / "report.html").read_text()
    assert "Scores side by side" in page
    assert page.index("Comparison") < page.index(">a</h1>") < page.index(">b</h1>")


def test_a_study_elsewhere_is_found_by_its_folder(said: Said, tmp_path: Path) -> None:
    """The folder remembers the storage; the report goes into it, and looking changes nothing."""
    files = on_disk(tmp_path, trial(0.5), trial(state=RUNNING, worker="nohost-1-x"))
    files.folder.rename(tmp_path / "moved")
    assert said("report", "moved")[0] == 0
    assert StudyFiles(tmp_path / "moved").report.exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["report", "nine"], 2, "STUDY=nine"),
        (["report", "s", "nine"], 2, "STUDY=nine"),
        (["report", "s", "--out", "outputs"], 2, "--out=outputs"),
        (["report", "s", "--out", "outputs/studies.journal/r.html"], 1, "outputs/studies.journal"),
        (["report", "--imges"], 2, "did you mean --no-images?"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    cli: Cli, tmp_path: Path, words: list[str], code: int, told: str
) -> None:
    """No such study, one of several missing, a file that cannot be written."""
    on_disk(tmp_path, trial(0.5))
    exit_code, error = cli(*words)
    assert exit_code == code, error
    assert told in error
    assert error.count("\n") == 1


def test_a_report_goes_to_the_home_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell leaves ``--out=~/r.html`` as it stands."""
    on_disk(tmp_path, trial(0.5))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cli("report", "--out=~/r.html")[0] == 0
    assert (tmp_path / "home" / "r.html").exists()


def test_a_folder_that_cannot_be_written_is_one_line(cli: Cli, tmp_path: Path) -> None:
    """The remedy is another file."""
    files = on_disk(tmp_path, trial(0.5))
    if os.getuid() == 0:
        pytest.skip("root may write anywhere")
    files.folder.chmod(0o500)
    exit_code, error = cli("report", "s")
    files.folder.chmod(0o700)
    assert (exit_code, error.count("\n")) == (1, 1)


def test_a_page_of_an_app_is_not_replaced(tmp_path: Path) -> None:
    """Its folder is its own: a report goes elsewhere, and one line says how."""
    app = App(tmp_path, "return cfg.x")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2").returncode == 0
    page = app.out / "report.html"
    page.write_text("<html>theirs</html>")
    said = sweeper(tmp_path, "report", "out", code=2)
    assert "is no report of this program's; write another, as --out FILE" in said
    assert page.read_text() == "<html>theirs</html>"
