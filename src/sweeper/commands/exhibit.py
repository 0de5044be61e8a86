"""What the dashboard shows beside what stands in the storage: our files, and attributes as people read them.

optuna-dashboard asks its storage, and answers its page in JSON. That JSON is completed here, so that a study
has its report and a trial its curves and signs without anything being written for it, and without the storage
holding what people should see rather than what is so: a study that is renamed is copied from the storage.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import origin, outputs
from sweeper.commands.guard import Answer, call, say
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.markdown import block, text
from sweeper.note import told_signs
from sweeper.record.mark import FORMAT
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results import sign
from sweeper.results.drawing import loss_by_epoch
from sweeper.results.sign import Sign

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from optuna.storages import BaseStorage

_STUDY = re.compile(r"/api/studies/(\d+)")
_RENAME = re.compile(r"/api/studies/(\d+)/rename")
_NOTE = re.compile(r"/api/studies/(\d+)/note")
_FILE = re.compile(r"/artifacts/(\d+)(?:/(\d+))?/([^/]+)")

_REPORT, _CURVE, _TABLE = "report.html", "loss_by_epoch.svg", "loss_by_epoch.csv"
_BEST = {f"best_trial_{name}": name for name in (_CURVE, _TABLE)}
"""Names in a study, of what its best trial has."""

_OPENED = {_REPORT: "Open the report", f"best_trial_{_CURVE}": "Loss of the best trial by epoch"}

_TYPES = {"html": "text/html; charset=utf-8", "svg": "image/svg+xml", "csv": "text/csv; charset=utf-8"}

_ALONE = (
    "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)
"""The policy of a report. Its script runs in an origin of its own, from which nothing can be asked of the
dashboard, nor of anybody else; its plots compile shaders' code (``unsafe-eval``)."""

_READ_ONLY = "anything: the files of a search are only shown here"
"""Behind the page's *Failed to upload* and *Failed to delete*."""

_REPEATED = ("overrides", "traceback")
"""Attributes of trials that are shown elsewhere: as parameters, and in the note."""

_FIRST, _LAST = ("signs", "reason"), ("folder", "worker")
_LONG = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")


def exhibiting(app: WSGIApplication, storage: BaseStorage) -> WSGIApplication:
    """The app, with what our files say."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = _answer(app, storage, environ)
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    return answer


def _answer(app: WSGIApplication, storage: BaseStorage, environ: WSGIEnvironment) -> Answer:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].rstrip("/")
    is_read = method in ("GET", "HEAD")
    if is_read and (found := _FILE.fullmatch(path)):
        return _file(storage, *found.groups())
    if is_read and path.startswith("/dashboard"):
        return _wrapping(call(app, environ))
    if path.startswith("/api/artifacts/"):
        return _say_json("403 Forbidden", {"reason": _READ_ONLY})
    if is_read and path == "/api/meta":
        return _changed(call(app, environ), lambda meta: meta | {"artifact_is_available": True})
    if is_read and path == "/api/studies":
        return _changed(call(app, environ), _listed)
    if is_read and (found := _STUDY.fullmatch(path)):
        return _changed(call(app, environ), partial(_shown, storage, int(found[1])))
    if method == "PUT" and (found := _NOTE.fullmatch(path)):
        _take_links_out(environ, int(found[1]))
    if method == "POST" and (found := _RENAME.fullmatch(path)):
        begun = origin.read(storage, int(found[1]))
        return _changed(call(app, environ), partial(_begun_as_before, storage, begun))
    return call(app, environ)


def _wrapping(answer: Answer) -> Answer:
    """The page, in whose notes long commands go on in another line, instead of widening it."""
    status, headers, body = answer
    page = b"".join(body).replace(b"</head>", _WRAP + b"</head>", 1)
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return status, [*kept, ("Content-Length", str(len(page)))], [page]


_WRAP = b"<style>pre, pre * { white-space: pre-wrap !important } code { overflow-wrap: anywhere }</style>"


def _changed(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    """An answer of JSON, changed, unless it tells an error."""
    status, _, body = answer
    return _say_json(status, change(json.loads(b"".join(body)))) if status.startswith("2") else answer


def _say_json(status: str, content: Any) -> Answer:
    body = json.dumps(content).encode()
    return status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], [body]


# ------------------------------------------------------------------------------------------------- files


def _file(storage: BaseStorage, study: str, trial: str | None, name: str) -> Answer:
    """A file of a study or of a trial, by one of the names that there are."""
    with suppress(KeyError, OSError, Fault):
        files = _study_files(origin.read(storage, int(study)))
        content = _of_trial(storage, files, int(trial), name) if trial else _of_study(files, name)
        headers = [("Content-Type", _type(name)), ("Content-Length", str(len(content)))]
        return (
            "200 OK",
            [*headers, *([("Content-Security-Policy", _ALONE)] if name == _REPORT else [])],
            [content],
        )
    return say("404 Not Found", "There is no such file.")


def _of_study(files: StudyFiles | None, name: str) -> bytes:
    if files is None or (name == _REPORT and not files.has_report):
        raise KeyError(name)
    return files.report.read_bytes() if name == _REPORT else _of_run(files.best, _BEST[name])


def _of_trial(storage: BaseStorage, files: StudyFiles | None, trial_id: int, name: str) -> bytes:
    trial = storage.get_trial(trial_id)
    return _of_run(_run(files, trial.number, trial.user_attrs["folder"]), name)


def _run(files: StudyFiles | None, number: int, folder: str) -> RunFiles:
    """The run of a trial, where this machine has it."""
    return RunFiles(Path(folder)) if files is None else files.trial_at(number, folder).run


def _of_run(run: RunFiles, name: str) -> bytes:
    if not run.is_ours or name not in (_CURVE, _TABLE):
        raise KeyError(name)
    if name == _TABLE:
        return _table(run.read_history()).encode()
    return loss_by_epoch(run.read_history(), run.read_best_epoch()).encode()


def _table(history: Sequence[Mapping[str, float]]) -> str:
    """What is measured of each epoch, in five digits; the file beside it has all of them."""
    names = [name for name in history[0] if name == "epoch" or name.startswith(("train_", "val_", "lr"))]
    rows = [names, *([f"{row[name]:.5g}" for name in names] for row in history)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _study_files(begun: Mapping[str, Any]) -> StudyFiles | None:
    folder, study_id = origin.folder(begun), begun.get("id")
    files = StudyFiles(folder) if folder else outputs.find_arrived(study_id) if study_id else None
    return files if files is not None and _is_there(lambda: files.is_ours) else None


def _type(name: str) -> str:
    return _TYPES[name.rpartition(".")[2]]


def _artifacts(*names: str) -> list[dict[str, Any]]:
    return [
        {"artifact_id": name, "filename": name, "mimetype": _type(name).partition(";")[0], "encoding": None}
        for name in names
    ]


# ---------------------------------------------------------------------------------------------- its page


def _listed(listed: dict[str, Any]) -> dict[str, Any]:
    for study in listed["study_summaries"]:
        study["user_attrs"] = [row for row in study["user_attrs"] if row["key"] != origin.OLD]
    return listed


def _shown(storage: BaseStorage, study_id: int, study: dict[str, Any]) -> dict[str, Any]:
    begun = origin.read(storage, study_id)
    files = _study_files(begun)
    if files is not None and files.travels:
        _bring(files, storage)
    study["user_attrs"] = _rows(study["user_attrs"], begun)
    study["union_user_attrs"] = [row for row in study["union_user_attrs"] if row["key"] not in _REPEATED]
    study["artifacts"] = []
    if files is not None:
        names = [_REPORT] * files.has_report + list(_BEST) * _has_history(files.best)
        study["artifacts"] = _artifacts(*names)
        study["note"]["body"] = _links(study_id, names) + study["note"]["body"]
    for trial in [*study["trials"], *study["best_trials"]]:
        _complete(trial, files)
    return study


def _bring(files: StudyFiles, storage: BaseStorage) -> None:
    """Let what other machines have sent since be there, too; what fails leaves what is here."""
    from sweeper.search.arrival import Arrival

    with suppress(BadInput, Fault):
        Arrival(files, storage).bring_texts()


def _rows(shown: list[dict[str, str]], begun: dict[str, Any]) -> list[dict[str, str]]:
    """A study's attributes: in rows also where an earlier version has begun it."""
    there = {row["key"]: row["value"] for row in shown if row["key"] != origin.OLD}
    with suppress(KeyError, ValueError, TypeError, AttributeError):  # of a storage of somebody else
        there = {**origin.rows(begun), **there}
    return [{"key": key, "value": value} for key, value in there.items()]


def _links(study_id: int, names: Iterable[str]) -> str:
    """A line that opens report and picture: the page only lets an artifact be downloaded."""
    links = [f"[{_OPENED[name]}](/artifacts/{study_id}/{name})" for name in names if name in _OPENED]
    return f"{' · '.join(links)}\n\n" if links else ""


def _take_links_out(environ: WSGIEnvironment, study_id: int) -> None:
    """The line of links is no part of the note that a person edits."""
    content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    with suppress(ValueError, TypeError, KeyError, AttributeError):  # optuna-dashboard says what is wrong
        sent = json.loads(content)
        for names in (_OPENED, *([name] for name in _OPENED)):
            sent["body"] = sent["body"].removeprefix(_links(study_id, names))
        content = json.dumps(sent).encode()
    environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}


def _begun_as_before(storage: BaseStorage, begun: dict[str, Any], renamed: dict[str, Any]) -> dict[str, Any]:
    """optuna-dashboard copies a study to rename it, but not how it was begun."""
    if begun.get("format") == FORMAT:
        origin.write(storage, renamed["study_id"], begun)
    return renamed


# ---------------------------------------------------------------------------------------------- a trial


def _complete(trial: dict[str, Any], files: StudyFiles | None) -> None:
    attributes = {row["key"]: row["value"] for row in trial["user_attrs"]}
    run = _run(files, trial["number"], attributes["folder"]) if "folder" in attributes else None
    has_curve = run is not None and _has_history(run)
    trial["artifacts"] = _artifacts(_CURVE, _TABLE) if has_curve else []
    if trial["note"]["version"] == 0:  # nobody has written one
        picture = f"/artifacts/{trial['study_id']}/{trial['trial_id']}/{_CURVE}"
        lines = [f"![Training and validation loss by epoch]({picture})", ""] if has_curve else []
        lines += _told(attributes, run)
        trial["note"]["body"] = "\n".join(lines)
    trial["user_attrs"] = [
        {"key": key, "value": _readable(key, attributes[key])}
        for key in sorted(attributes, key=_place)
        if key not in _REPEATED
    ]


def _has_history(run: RunFiles) -> bool:
    return _is_there(lambda: run.is_ours and run.history.exists())


def _is_there(look: Callable[[], bool]) -> bool:
    """Whether it is there for us: the folders of somebody else may be closed, and their names no names."""
    with suppress(OSError):
        return look()
    return False


def _told(attributes: Mapping[str, str], run: RunFiles | None) -> Iterator[str]:
    """Why a trial has failed, and its signs."""
    if "traceback" in attributes:
        yield from [
            f"**Failed**: {text(attributes.get('reason', ''))}",
            "",
            *block(attributes["traceback"], "text"),
        ]
    if run is not None and "signs" in attributes:
        with suppress(Fault, OSError):  # their names stand with the attributes
            yield from told_signs(_signs(run.signs, run.signs.stat().st_mtime_ns))


@lru_cache(maxsize=4096)
def _signs(path: Path, written_ns: int) -> list[Sign]:
    """Signs as they were written then: a page asks for them every few seconds."""
    return sign.read(path)


def _place(key: str) -> int:
    return _FIRST.index(key) - len(_FIRST) if key in _FIRST else _LAST.index(key) + 1 if key in _LAST else 0


def _readable(key: str, value: str) -> str:
    if key == "signs":
        with suppress(ValueError):
            named = json.loads(value)
            return ", ".join(map(str, named)) if isinstance(named, list) else value
    return f"{float(value):.5g}" if _LONG.fullmatch(value) else value
