"""``sweeper report [STUDY…]``: one HTML file of a study, or of several side by side."""

from __future__ import annotations

import logging
import os
import shlex
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import saved
from sweeper.commands.arrival import HERE, Source, find
from sweeper.errors import BadInput
from sweeper.program import program, use
from sweeper.record.mark import OUTPUTS
from sweeper.record.study_files import StudyFiles, is_report
from sweeper.record.target import check_out
from sweeper.results.study_record import StudyRecord
from sweeper.words import expanded, near

if TYPE_CHECKING:
    from sweeper.results.certificate import Certificate

log = logging.getLogger(__name__)

SEVERAL = "report.html"
"""The file of several studies, under ``outputs/``."""


def show(
    names: Sequence[str | None], out: str | None, with_images: bool, opens: bool, source: Source = HERE
) -> None:
    """Write the report of the studies, the newest if none is named, and say where it is.

    Raises:
        BadInput: if there is no such study.
        Fault: if it cannot be read, or the report not be written.
    """
    found = [find(name, source) for name in names or (None,)]
    files = list({each.folder.absolute(): each for each in found}.values())
    path = place(files, out)
    write(files, path, with_images)
    print(f"Report:    {near(path)}")
    if opens:
        webbrowser.open(path.absolute().as_uri())
    else:
        print(f"Open it:   {_opener()} {shlex.quote(near(path))}")


def place(files: Sequence[StudyFiles], out: str | None) -> Path:
    """Where the report of the studies goes.

    Raises:
        BadInput: where that is a folder, or something else than a report has the place.
    """
    if out is None:
        path = files[0].report if len(files) == 1 else Path(OUTPUTS, SEVERAL)
        if path.exists() and not is_report(path):
            remedy = "write another, as --out FILE"
            raise BadInput("--out", near(path), "is there, and is no report of this program's", remedy)
        return path
    path = expanded(out)
    check_out(path, "--out", SEVERAL)
    return path


def _opener() -> str:
    """What opens a file in the person's browser."""
    return "open" if os.uname().sysname == "Darwin" else "xdg-open"


def write(files: Sequence[StudyFiles], path: Path, with_images: bool = True) -> None:
    """Write the report of these studies.

    Raises:
        BadInput: if a study's storage is gone.
        Fault: if it cannot be read, or the report not be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from sweeper.search.look import read

    records = [read(each) for each in files]
    from sweeper.results import report  # with plotly

    found = {each.folder: certificate for each in files if (certificate := certificate_of(each)) is not None}
    report.write(path, [(seen, _commands(seen)) for seen in records], with_images, found)


def certificate_of(files: StudyFiles) -> Certificate | None:
    """What a study's certificate says now, or the study itself, if it is one; None where there is none."""
    own = files if files.is_certificate else files.certified_by
    if not own.is_certificate and not own.certificate.exists():
        return None
    from sweeper.results import certificate, verdict  # with scipy
    from sweeper.results.plan import Plan
    from sweeper.search.look import read

    try:
        if (plan := Plan.read(own)) is not None:
            return certificate.of(read(own), plan)
    except Exception as error:  # its storage, or a file: what was written last can still be shown
        log.debug("%s", error)
    return verdict.of_folder(own)


def write_after_search(files: StudyFiles) -> None:
    """Write the report of a search that has ended; whatever goes wrong with that is one line in the log."""
    try:
        write([files], files.report)
    except Exception as error:  # the trials are safe, and the exit code is theirs
        log.warning("there is no report: %s", next(iter(str(error).splitlines()), repr(error)))
        log.debug("", exc_info=True)
    else:
        print(f"Report:    {near(files.report.absolute())}", flush=True)


def _commands(seen: StudyRecord) -> list[tuple[str, str]]:
    """What a person may want to type next."""
    name = seen.files.typed
    found, best = list[tuple[str, str]](), seen.files.best
    if best.is_complete:
        trust = saved.trust_option_of(best.config)
        config = f"--config-dir {shlex.quote(near(best.folder))} --config-name {best.config.stem}{trust}"
        if best.has_model:
            found.append(("Let the best model say what a picture shows", use(name, trust)))
        found += [
            (
                "Train the best trial again, and compare to the last bit",
                f"{program()} reproduce {name}{trust}",
            ),
            ("Change it, and train once", f"{program()} {config} training.epochs=50"),
        ]
    found += _certificate_commands(seen) if seen.files.is_certificate else _search_commands(seen)
    found.append(("Browse the trials", browse(seen.files)))
    found.append(("Write this report again", f"{program()} report {name}"))
    return found


def browse(files: StudyFiles) -> str:
    """The command that opens the dashboard; a folder that another storage belongs to remembers it."""
    is_elsewhere = files.can_be_read_again and not files.is_in_default_journal
    return f"{program()} dashboard{f' {files.typed}' if is_elsewhere else ''}"


def _search_commands(seen: StudyRecord) -> list[tuple[str, str]]:
    found = list[tuple[str, str]]()
    n_trials = f"hydra.sweeper.n_trials={2 * seen.n_trials}" if seen.n_trials else ""
    if (again := seen.again(*filter(None, [n_trials]))) is not None:
        found.append(("Go on with the search" + (", with twice the trials" if n_trials else ""), again))
    if (anew := seen.anew()) is not None:
        found.append(("Search the same again, as another study", anew))
    return found


def _certificate_commands(seen: StudyRecord) -> list[tuple[str, str]]:
    """No search goes on in the study of a certificate: its own verb does."""
    search = seen.files.certifies
    if search is None:
        return []
    return [
        ("Go on with the certificate, or see it again", f"{program()} certify {search.typed}"),
        ("See the search", f"{program()} best {search.typed}"),
    ]
