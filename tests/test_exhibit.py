"""What the dashboard shows beside what stands in the storage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note

from sweeper import filesystem, origin
from sweeper.record.mark import FORMAT
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results import sign
from sweeper.results.sign import Sign
from tests.journal import open_journal
from tests.program import dashboard

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPORT = """<!doctype html><meta charset="utf-8"><meta name="generator" content="sweeper">
<title>Report</title>
<p id="seen">no script</p><script>
const url = new URL("/api/studies", document.baseURI)
const tries = [fetch(url), fetch(url + "/0", {method: "DELETE"}), fetch(url + "/0", {method: "DELETE",
  mode: "no-cors"}), fetch(url, {method: "POST", mode: "no-cors",
  body: '{"study_name":"foreign","directions":["minimize"]}'}),
  fetch("https://foreign.example/", {mode: "no-cors"})]
Promise.allSettled(tries).then(all => {
  window.seen = {origin: self.origin, sums: new Function("return 1 + 1")(), told: all.map(one => one.status)}
})
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of ours with its report; one that an earlier version began; one of an app of somebody else."""
    folder = tmp_path_factory.mktemp("exhibited")
    begin(folder, "ours")
    begin(folder, "older")
    begin(folder, "theirs")
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with dashboard(folder) as address:
        yield int(address.rpartition(":")[2])


def journal(folder: Path) -> Path:
    return folder / "outputs" / "studies.journal"


def begin(folder: Path, name: str) -> optuna.Study:
    """A study with a complete trial, one that a person has noted something on, and one that failed."""
    files = StudyFiles(folder / "outputs" / name)
    files.mark(name, str(journal(folder)))
    study = optuna.create_study(study_name=name, storage=open_journal(journal(folder)), direction="maximize")
    begun = {
        "format": FORMAT,
        "folder": str(files.folder),
        "directions": ["maximize"],
        "metrics": ["val_accuracy"],
        "space": {"x": distribution_to_json(FloatDistribution(1e-4, 1, log=True))},
        "fixed": [],
        "max_retries": 1,
    }
    if name == "older":
        study.set_user_attr("sweeper", begun)
    else:
        origin.write(study._storage, study._study_id, begun)
    for number, state in enumerate([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]):
        trial = study.ask()
        trial.set_user_attr("worker", "here-1-aa")
        trial.set_user_attr("folder", str(files.run(number).folder))
        trial.set_user_attr("overrides", ["x=0.1234567890123"])
        if state == TrialState.FAIL:
            trial.set_user_attr("reason", "ValueError: <b>no</b>")
            trial.set_user_attr("traceback", "Traceback\n  line 1\nValueError: <b>no</b>")
        elif name != "theirs":
            trial.set_user_attr("val_accuracy", 0.9876543210123)
            trial.set_user_attr("version", "1.10")
            trial.set_user_attr("signs", ["overfitting", "few_steps"])
            write_run(files.run(number), number)
        study.tell(trial, None if state == TrialState.FAIL else 0.5, state=state)
        if number == 1:
            save_note(trial, "Mine.")
    if name == "ours":
        write_run(files.best, 0)
        files.report.write_text(REPORT)
    save_note(study, "# The note")
    return study


def write_run(run: RunFiles, number: int) -> None:
    run.mark()
    rows = [{"epoch": n, "train_loss": 2.0 / n, "val_loss": 2.5 / n} for n in range(1, 13)]
    run.write_history(rows)
    filesystem.write_json(run.result, {"trial": number, "best_epoch": 11})
    advice = Sign("overfitting", "val_loss rose from 1.2 to 1.5.", "Regularise.", "sweeper model.dropout=0.5")
    sign.write(run.signs, [advice, Sign("few_steps", "12 steps.", "Take smaller batches.", None)])


def ask(port: int, method: str, target: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to exactly this request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, target, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def shown(port: int, name: str) -> dict[str, Any]:
    number = ["ours", "older", "theirs"].index(name)
    study: dict[str, Any] = json.loads(ask(port, "GET", f"/api/studies/{number}")[2])
    return study


# -------------------------------------------------------------------------------------------- attributes


@pytest.mark.parametrize("name", ["ours", "older", "theirs"])
def test_a_study_has_rows_and_no_json(port: int, folder: Path, name: str) -> None:
    """Whichever version began it, what was searched stands in rows, in the study and in the list."""
    rows = {row["key"]: row["value"] for row in shown(port, name)["user_attrs"]}
    assert rows == {
        "objective": "maximize val_accuracy",
        "folder": str(folder / "outputs" / name),
        "searched x": "0.0001 … 1, log",
    }
    assert b"FloatDistribution" not in ask(port, "GET", "/api/studies")[2]


def test_attributes_of_a_trial_are_readable(port: int) -> None:
    """Signs come first, by name, numbers have five digits, and nothing is told twice."""
    study = shown(port, "ours")
    told = [(row["key"], row["value"]) for row in study["trials"][0]["user_attrs"]]
    assert told[:3] == [("signs", "overfitting, few_steps"), ("val_accuracy", "0.98765"), ("version", "1.10")]
    assert [key for key, _ in told[3:]] == ["folder", "worker"]
    assert not {"overrides", "traceback"} & {row["key"] for row in study["union_user_attrs"]}


# ------------------------------------------------------------------------------------------------- notes


@pytest.mark.parametrize("name", ["ours", "older"])
def test_a_trial_shows_its_curves_and_signs(port: int, name: str) -> None:
    """A note that nobody has written is the picture of the losses, and the signs with what to do."""
    trial = shown(port, name)["trials"][0]
    picture = re.search(r"^!\[[^]]+\]\((/artifacts/[^)]+)\)\n", trial["note"]["body"])
    assert picture is not None
    status, headers, content = ask(port, "GET", picture[1])
    assert (status, headers["Content-Type"], content[:4]) == (200, "image/svg+xml", b"<svg")
    assert "**overfitting**: val\\_loss rose from 1.2 to 1.5. Regularise." in trial["note"]["body"]
    assert "```sh\nsweeper model.dropout=0.5\n```" in trial["note"]["body"]


def test_a_persons_note_on_a_trial_is_theirs(port: int) -> None:
    """What somebody has written on a trial is all that is shown as its note."""
    assert shown(port, "ours")["trials"][1]["note"]["body"] == "Mine."


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_a_failed_trial_says_why(port: int, name: str) -> None:
    """The traceback of any app stands in the note as it was printed, and not in a line of attributes."""
    trial = shown(port, name)["trials"][2]
    assert "```text\nTraceback\n  line 1\nValueError: <b>no</b>\n```" in trial["note"]["body"]
    assert "traceback" not in [row["key"] for row in trial["user_attrs"]]
    assert trial["artifacts"] == []


def test_links_are_no_part_of_the_note(port: int, folder: Path) -> None:
    """The note begins with links to report and picture, and who edits it saves only the note."""
    note = shown(port, "ours")["note"]
    links = note["body"].removesuffix("\n\n# The note")
    assert re.findall(r"\[([^]]+)\]\(/artifacts/0/([^)]+)\)", links) == [
        ("Open the report", "report.html"),
        ("Loss of the best trial by epoch", "best_trial_loss_by_epoch.svg"),
    ]
    edited = {"version": note["version"] + 1, "body": f"{note['body']}, edited"}
    assert ask(port, "PUT", "/api/studies/0/note", edited)[0] == 204
    study = optuna.load_study(study_name="ours", storage=open_journal(journal(folder)))
    assert get_note(study) == "# The note, edited"
    assert shown(port, "theirs")["note"]["body"] == "# The note"  # there is no report


@pytest.mark.parametrize("body", [[], {"body": 1, "version": 1}, {"version": 1}, "text"])
def test_a_note_that_is_none(port: int, body: object) -> None:
    """What cannot be saved is refused, and breaks nothing."""
    assert ask(port, "PUT", "/api/studies/0/note", body)[0] >= 400
    assert ask(port, "GET", "/api/studies/0")[0] == 200


# ------------------------------------------------------------------------------------------------- files


def test_artifacts_open(port: int) -> None:
    """Each artifact that is listed is there, with the type that is told."""
    study = shown(port, "ours")
    listed = [(f"/artifacts/0/{each['artifact_id']}", each["mimetype"]) for each in study["artifacts"]]
    trial = study["trials"][0]
    listed += [
        (f"/artifacts/0/{trial['trial_id']}/{e['artifact_id']}", e["mimetype"]) for e in trial["artifacts"]
    ]
    assert len(listed) == 5
    for target, mimetype in listed:
        status, headers, content = ask(port, "GET", target)
        assert (status, headers["Content-Type"].partition(";")[0], bool(content)) == (200, mimetype, True)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert ask(port, "HEAD", target)[::2] == (200, b"")


def test_the_losses_as_a_table(port: int) -> None:
    """An epoch a row, in numbers that can be read."""
    _, _, content = ask(port, "GET", "/artifacts/0/0/loss_by_epoch.csv")
    assert content.decode().splitlines()[:4] == [
        "epoch,train_loss,val_loss",
        "1,2,2.5",
        "2,1,1.25",
        "3,0.66667,0.83333",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "/artifacts/0/0/result.json",
        "/artifacts/0/0/..%2F0%2Floss_by_epoch.csv",
        "/artifacts/0/0/../0/loss_by_epoch.csv",
        "/artifacts/0/..%2freport.html",
        "/artifacts/0/%2e%2e/%2e%2e/studies.journal",
        "/artifacts/0/../../../../etc/passwd",
        "/artifacts/0//etc/passwd",
        "/artifacts/0/loss_by_epoch.csv",
        "/artifacts/0/0/report.html",
        "/artifacts/0/2/loss_by_epoch.csv",
        "/artifacts/0/99/loss_by_epoch.csv",
        "/artifacts/99/report.html",
        "/artifacts/1/report.html",
        "/artifacts/2/6/loss_by_epoch.csv",
        "/artifacts/-1/report.html",
        "/artifacts/0/0aaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
    ],
)
def test_other_files_are_not_there(port: int, target: str) -> None:
    """Nothing is served but the few names that there are, of folders that are ours."""
    status, _, content = ask(port, "GET", target)
    assert status == 404
    assert b"root:" not in content


def test_a_folder_that_is_not_ours_is_not_looked_into(port: int, folder: Path) -> None:
    """A storage may come from somebody else, and name any folder."""
    files = StudyFiles(folder / "outputs" / "theirs")
    files.run(0).folder.mkdir()
    files.run(0).history.write_text("epoch,train_loss\n1,2\n")
    assert shown(port, "theirs")["trials"][0]["artifacts"] == []
    (trial,) = (t for t in shown(port, "theirs")["trials"] if t["number"] == 0)
    assert ask(port, "GET", f"/artifacts/2/{trial['trial_id']}/loss_by_epoch.csv")[0] == 404


@pytest.mark.parametrize(
    "begun",
    [
        {"format": FORMAT},
        {"format": FORMAT, "folder": "x" * 5000, "space": 5, "directions": None},
        {
            "format": FORMAT,
            "folder": ["\0"],
            "space": {"x": "no json"},
            "directions": [],
            "metrics": [],
            "fixed": [],
        },
        {"format": "another"},
    ],
)
def test_a_study_that_says_nonsense_is_shown(port: int, folder: Path, begun: dict[str, Any]) -> None:
    """A storage of somebody else may hold anything, and names no folder can have."""
    study = optuna.create_study(storage=open_journal(journal(folder)))
    study._storage.set_study_system_attr(study._study_id, origin.KEY, begun)
    trial = study.ask()
    trial.set_user_attr("folder", "x" * 5000)
    trial.set_user_attr("signs", begun.get("space", "no json"))
    status, _, content = ask(port, "GET", f"/api/studies/{study._study_id}")
    assert (status, json.loads(content)["artifacts"]) == (200, [])
    assert ask(port, "GET", f"/artifacts/{study._study_id}/report.html")[0] == 404
    assert ask(port, "GET", f"/artifacts/{study._study_id}/{trial._trial_id}/loss_by_epoch.csv")[0] == 404
    optuna.delete_study(study_name=study.study_name, storage=study._storage)


@pytest.mark.parametrize("history", ["epoch,val_loss\n1,-\n", "", "root:x:0:0:/root\nnobody\n"])
def test_a_damaged_history_is_not_there(port: int, folder: Path, history: str) -> None:
    """The page has no picture then, and the terminal no error."""
    study = optuna.load_study(study_name="older", storage=open_journal(journal(folder)))
    path = StudyFiles(folder / "outputs" / "older").run(1).history
    before = path.read_text()
    path.write_text(history)
    for name in ("loss_by_epoch.csv", "loss_by_epoch.svg"):
        target = f"/artifacts/{study._study_id}/{study.trials[1]._trial_id}/{name}"
        assert ask(port, "GET", target)[0] == 404
    path.write_text(before)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("target", ["0/report.html", "0/0/loss_by_epoch.csv", "0", "0/0"])
def test_files_are_neither_added_nor_deleted(port: int, folder: Path, method: str, target: str) -> None:
    """The buttons of the page for that say in a line why they do nothing."""
    status, _, content = ask(port, method, f"/api/artifacts/{target}", {"file": "data:,x", "filename": "x"})
    assert (status, "only shown here" in json.loads(content)["reason"]) == (403, True)
    assert StudyFiles(folder / "outputs" / "ours").report.read_text() == REPORT


def test_looking_writes_nothing(port: int, folder: Path) -> None:
    """All that is added is added on its way to the page."""
    before = journal(folder).read_bytes()
    for name in ("ours", "older", "theirs"):
        shown(port, name)
    assert journal(folder).read_bytes() == before


def test_renaming_and_deleting(port: int, folder: Path) -> None:
    """A renamed study says how it was begun, nothing that was only shown is in it, and who deletes a study in
    the page keeps its files."""
    begin(folder, "renamed")
    number = next(
        s._study_id for s in open_journal(journal(folder)).get_all_studies() if s.study_name == "renamed"
    )
    status, _, content = ask(port, "POST", f"/api/studies/{number}/rename", {"study_name": "other"})
    assert status == 201
    number, storage = json.loads(content)["study_id"], open_journal(journal(folder))
    study = optuna.load_study(study_name="other", storage=storage)
    assert origin.read(storage, study._study_id)["metrics"] == ["val_accuracy"]
    assert get_note(study) == "# The note"
    assert "artifacts" not in json.dumps(storage.get_study_system_attrs(study._study_id))
    assert study.trials[0].user_attrs["signs"] == ["overfitting", "few_steps"]
    assert ask(port, "DELETE", f"/api/studies/{number}")[0] == 204
    assert StudyFiles(folder / "outputs" / "renamed").run(0).history.exists()


# -------------------------------------------------------------------------------------------- its page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    yield page
    page.close()


@pytest.mark.slow
def test_the_report_opens_by_a_click_and_can_do_nothing(page: Page, port: int, folder: Path) -> None:
    """Its script runs, in an origin of its own, and can ask neither the dashboard nor anybody else."""
    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/0/note")
    page.get_by_role("link", name="Open the report").click()
    page.wait_for_function("window.seen")
    assert page.title() == "Report"
    assert page.evaluate("window.seen") == {"origin": "null", "sums": 2, "told": ["rejected"] * 5}
    names = [study.study_name for study in open_journal(journal(folder)).get_all_studies()]
    assert "ours" in names
    assert "foreign" not in names
    page.go_back()
    page.get_by_role("heading", name="The note").wait_for()


@pytest.mark.slow
def test_a_trial_with_its_curve_and_table_in_the_page(page: Page, port: int) -> None:
    """Who clicks on a trial sees its losses as a picture and the signs; its history opens as a table."""
    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/0/trials?numbers=0")
    page.get_by_text("val_loss rose from 1.2 to 1.5").first.wait_for()
    picture = page.get_by_alt_text("Training and validation loss by epoch").first
    assert picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 300
    page.get_by_label("show artifact table").first.click()
    page.get_by_role("cell", name="train_loss").or_(page.get_by_text("train_loss")).first.wait_for()


@pytest.mark.slow
def test_the_page_says_that_nothing_is_uploaded(page: Page, port: int, tmp_path: Path) -> None:
    """Who drops a file there reads that it is not kept."""
    (tmp_path / "file.txt").write_text("x")
    page.goto(f"http://127.0.0.1:{port}/dashboard/studies/0")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "file.txt")
    page.get_by_text("Failed to upload anything: the files of a search are only shown here").first.wait_for()


def test_long_commands_do_not_widen_the_page(port: int) -> None:
    """In notes they go on in another line; the page is whole all the same."""
    status, headers, body = ask(port, "GET", "/dashboard/studies/0/note")
    assert (status, int(headers["Content-Length"])) == (200, len(body))
    assert b"white-space: pre-wrap !important" in body
    assert body.rstrip().endswith(b"</html>")
