"""The dashboard and the web: who may ask it for what, and what a study's own texts can do there."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from tests.journal import open_journal
from tests.program import dashboard, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HTML = (
    '<img src=x onerror="window.obeyed=1"><b>bold</b><a href="javascript:window.obeyed=2">x</a>'
    '<a href="https://foreign.example/">y</a><script>window.obeyed=3</script><svg onload="window.obeyed=4">'
)
NOTE = f"""# a heading
{HTML}

[link](javascript:window.obeyed=5) ![image](x"onerror="window.obeyed=6) [data](data:text/html,<script>)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there is a journal with a study to keep, and one in which everything that has a name has HTML."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "outputs").mkdir()
    kept = optuna.create_study(study_name="kept", storage=open_journal(journal(folder)))
    kept.tell(kept.ask(), 1.0)
    study = optuna.create_study(study_name=f"nasty{HTML}", storage=kept._storage)
    with warnings.catch_warnings():  # metric names are still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"metric{HTML}"])
    study.set_user_attr(f"attribute{HTML}", f"value{HTML}")
    for number in range(6):
        trial = study.ask()
        x = trial.suggest_float(f"x{HTML}", 0, 1)
        trial.suggest_categorical(f"c{HTML}", [f"a{HTML}", f"b{HTML}"])
        trial.set_user_attr(f"attribute{HTML}", f"value{HTML}")
        trial.set_user_attr(f"number{HTML}", x)
        trial.report(x, 1)
        trial.report(x / 2, 2)
        save_note(trial, NOTE)
        study.tell(number, x)
    save_note(study, NOTE)
    return folder


def journal(folder: Path) -> Path:
    return folder / "outputs" / "studies.journal"


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with dashboard(folder) as address:
        yield int(address.rpartition(":")[2])


def names(folder: Path) -> list[str]:
    """The studies that are there, read from the journal."""
    return [s.study_name for s in open_journal(journal(folder)).get_all_studies()]


def ask(port: int, method: str, target: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
    """Status and text of the answer to exactly this request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    length = {"Content-Length": str(len(body.encode()))} if body else {}
    for name, value in {**headers, **length}.items():
        connection.putheader(name, value)
    connection.endheaders(body.encode())
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


# -------------------------------------------------------------------------------------------- its names


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "LocalHost:8080", "[::1]", "[::1]:80"])
def test_its_own_names(port: int, host: str) -> None:
    """It answers under its names at any port, so that a tunnel works, to browsers and programs."""
    status, text = ask(port, "GET", "/api/studies", {"Host": host})
    assert (status, "kept" in text) == (200, True)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "foreign.example",
        "foreign.example:8080",
        "localhost.",
        "localhost.foreign.example",
        "localhost@foreign.example",
        "me@localhost",
        "127.0.0.1.foreign.example",
        "127.0.0.2",
        "0.0.0.0",
        "::1",
        "[::ffff:127.0.0.1]",
        "localhost:",
        "localhost:8080:80",
        "localhost:8080/",
        "localhost, foreign.example",
    ],
)
def test_other_names(port: int, folder: Path, host: str | None) -> None:
    """A page whose name leads to 127.0.0.1 (DNS rebinding) learns nothing and changes nothing."""
    headers = {"X-Forwarded-Host": "localhost", **({} if host is None else {"Host": host})}
    for method in ("GET", "DELETE"):
        status, text = ask(port, method, "/api/studies/0", headers)
        assert status == 403
        assert re.fullmatch(r"[^\n]+ only to its own names: write localhost or 127\.0\.0\.1 [^\n]+\n", text)
    assert "kept" in names(folder)


def test_a_whole_url_in_the_request(port: int) -> None:
    """Its host would count, so it is refused, whatever the header says."""
    status, _ = ask(port, "GET", "http://foreign.example/api/studies", {"Host": "localhost"})
    assert status == 403


def test_where_it_redirects_to(port: int) -> None:
    """No header makes it send a browser elsewhere."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/", headers={"X-Forwarded-Host": "foreign.example"})
    answer = connection.getresponse()
    assert answer.status == 302
    assert answer.headers["Location"] == f"http://127.0.0.1:{port}/dashboard"
    connection.close()


# -------------------------------------------------------------------------------------------- its pages


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "NEW"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://foreign.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9001"},
        {"Origin": "https://localhost:9000"},
        {"Origin": "http://localhost:9000.foreign.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:9000", "Sec-Fetch-Site": "cross-site"},
        {"Referer": "http://foreign.example/localhost:9000/"},
        {"Referer": "http://localhost:90001/"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "Application/X-WWW-Form-urlencoded; charset=utf-8"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
    ids=str,
)
def test_changes_for_other_pages(port: int, folder: Path, method: str, headers: dict[str, str]) -> None:
    """What a page of another origin, or a form, asks to change is refused in one line."""
    target = "/api/studies" if method == "POST" else "/api/studies/0"
    body = json.dumps({"study_name": "foreign", "directions": ["minimize"]})
    headers = {"Host": "localhost:9000", "Content-Type": "application/json", **headers}
    status, text = ask(port, method, target, headers, body)
    assert (status, text.count("\n")) == (403, 1)
    assert "another origin may change nothing" in text
    assert names(folder)[0] == "kept"
    assert "foreign" not in names(folder)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {
            "Origin": "http://localhost:9000",
            "Sec-Fetch-Site": "same-origin",
            "Referer": "http://localhost:9000/dashboard",
        },
    ],
    ids=["a program", "its own page"],
)
def test_changes_by_its_page_and_by_programs(port: int, folder: Path, headers: dict[str, str]) -> None:
    """Its own page makes and deletes a study, through a tunnel too; so does curl."""
    headers = {"Host": "localhost:9000", "Content-Type": "application/json", **headers}
    body = json.dumps({"study_name": "made", "directions": ["minimize"]})
    status, text = ask(port, "POST", "/api/studies", headers, body)
    assert (status, "made" in names(folder)) == (201, True)
    number = json.loads(text)["study_summary"]["study_id"]
    del headers["Content-Type"]
    assert ask(port, "DELETE", f"/api/studies/{number}", headers)[0] == 204
    assert "made" not in names(folder)


class Foreign(BaseHTTPRequestHandler):
    """A page of another origin that tries what a page can."""

    def do_GET(self) -> None:
        port, own = self.path.removeprefix("/").split("/")
        text = f"""<iframe src="http://127.0.0.1:{port}/dashboard"></iframe>
          <form id=form action="http://127.0.0.1:{port}/api/studies" method=post enctype=text/plain
            target=sent><input name='{{"study_name":"foreign","directions":["minimize"],"x":"' value='"}}'>
          </form><iframe name=sent></iframe><img src="http://127.0.0.1:{port}/api/studies">
          <script>
            document.getElementById("form").submit()
            const url = "http://{own}:{port}/api/studies"
            const body = '{{"study_name":"foreign","directions":["minimize"]}}'
            const headers = {{"Content-Type": "application/json"}}
            const tries = [fetch(url), fetch(url + "/0", {{method: "DELETE"}}),
              fetch(url + "/0", {{method: "DELETE", mode: "no-cors"}}).catch(() => 0),
              fetch(url, {{method: "POST", body, mode: "no-cors"}}),
              fetch(url, {{method: "POST", body, headers}})]
            Promise.allSettled(tries).then(all => {{ window.seen = all.map(one => one.value?.ok ?? false) }})
          </script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal of the tests."""


@pytest.fixture
def foreign_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("own", ["127.0.0.1", "localhost"])
def test_a_foreign_page_in_a_browser(
    browser: Browser, port: int, folder: Path, foreign_port: int, own: str
) -> None:
    """A page of another port can neither read, nor change, nor show the dashboard within itself."""
    page = browser.new_page()
    page.goto(f"http://localhost:{foreign_port}/{port}/{own}")
    page.wait_for_function("window.seen")
    assert page.evaluate("window.seen") == [False] * 5
    assert all("Optuna" not in frame.content() for frame in page.frames[1:])
    assert names(folder)[0] == "kept"
    assert "foreign" not in names(folder)
    page.close()


@pytest.mark.parametrize(("length", "status"), [("99999999999999", 413), ("9" * 5000, 413), ("-1", 403)])
def test_a_length_that_no_body_has(port: int, length: str, status: int) -> None:
    """No room is made for what a header only promises, and nothing else is answered than a line."""
    headers = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": length}
    if status == 403:
        headers["Content-Type"] = "text/plain"
    answer, text = ask(port, "POST", "/api/studies", headers)
    assert (answer, text.count("\n")) == (status, 1)


# -------------------------------------------------------------------------------------------- its texts


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    yield page
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("tab", ["/trials", "", "/analytics", "/note", "/trialTable"])
def test_html_is_text(page: Page, port: int, tab: str) -> None:
    """HTML in names, notes, parameters and attributes does nothing, and is shown as it is; nothing is asked
    of other machines."""
    asked, errors = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/1{tab}")
    page.get_by_text(re.compile("<\N{WORD JOINER}?img src=x onerror")).locator(
        "visible=true"
    ).first.wait_for()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.obeyed") is None
    assert errors == []
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{port}/", "blob:", "data:"))] == []
    selector = (
        "img[src=x], script:not([src]), svg[onload], [onerror], a[href*='foreign'], a[href^='javascript']"
    )
    assert page.locator(selector).count() == 0
    for link in page.get_by_text("link", exact=True).all() + page.get_by_text("data", exact=True).all():
        link.click()
    assert page.evaluate("window.obeyed") is None


@pytest.mark.slow
def test_texts_come_back_as_they_were(page: Page, port: int, folder: Path) -> None:
    """A note that is edited in the page, and a study that is renamed there, keep every character."""
    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/1/note")
    page.get_by_role("heading", name="a heading").hover()
    page.locator("button").last.click()
    text = page.locator("textarea").first
    assert text.input_value() == NOTE
    text.fill(NOTE + "more <b>")
    page.get_by_role("button", name="Save").click()
    study = optuna.load_study(study_name=names(folder)[1], storage=open_journal(journal(folder)))
    until(lambda: get_note(study) == NOTE + "more <b>")
    headers = {"Host": "localhost", "Content-Type": "application/json"}
    _, listed = ask(port, "GET", "/api/studies", headers)
    shown = json.loads(listed)["study_summaries"][1]["study_name"]
    assert shown != f"nasty{HTML}"
    body = json.dumps({"study_name": f"{shown}!", "directions": ["minimize"]}, ensure_ascii=False)
    status, _ = ask(port, "POST", "/api/studies", headers, body)
    assert (status, names(folder)[-1]) == (201, f"nasty{HTML}!")


@pytest.mark.slow
def test_a_click_does_what_it_says(page: Page, port: int, folder: Path) -> None:
    """A person deletes a study in the list. (That the page of optuna-dashboard 0.21 then says that it failed
    is the page's error.)"""
    body = json.dumps({"study_name": "unwanted", "directions": ["minimize"]})
    ask(port, "POST", "/api/studies", {"Host": "localhost", "Content-Type": "application/json"}, body)
    before = names(folder)
    page.goto(f"http://localhost:{port}/dashboard")
    page.get_by_text("unwanted").first.wait_for()
    page.get_by_label("delete study").first.click()  # the newest is first
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    until(lambda: names(folder) == [name for name in before if name != "unwanted"])
