"""A certificate in rows and in a few words, for whoever shows it: terminal, report, note."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sweeper.record.study_files import StudyFiles
from sweeper.results.certificate import Certificate, Certified, told_name
from sweeper.results.panel import Table
from sweeper.words import measured, number

log = logging.getLogger(__name__)


def of_folder(files: StudyFiles) -> Certificate | None:
    """The certificate that a folder holds; None where there is none, or a damaged one, which is logged."""
    try:
        return Certificate.read(files)
    except Exception as error:  # no damaged file may cost what else is shown
        log.warning("%s", error)
        return None


def chosen(files: StudyFiles) -> str | None:
    """Whose run a search has in ``best/`` by choice, and its test scores; None where nobody has chosen."""
    try:
        if (choice := files.best.read_choice()) is None:
            return None
        scores = files.best.read_test_scores()
    except Exception as error:
        log.warning("%s", error)
        return None
    told = ", ".join(f"{name} {number(value)}" for name, value in scores.items())
    return f"{told_name(choice.candidate)}, trained again{f': {told}' if told else ''}"


def short(certificate: Certificate) -> str:
    """State and verdict in a few words, for a line of a table: ``trial 12, 0.975 ± 0.003``."""
    told = [] if certificate.finished else ["unfinished"]
    if certificate.best is not None:
        told += [certificate.best, certificate[certificate.best].expected[0].told()]
    return ", ".join(told)


def ordered(certificate: Certificate) -> list[Certified]:
    """The candidates, the best mean first, those without a score last."""
    sign = -1 if certificate.directions[0] == "maximize" else 1

    def place(candidate: Certified) -> tuple[bool, float]:
        value = candidate.expected[0].value
        return value is None, 0.0 if value is None else sign * value

    return sorted(certificate.candidates, key=place)


def table(certificate: Certificate) -> Table:
    """A row for each candidate, the best first."""
    several = len(certificate.metrics) > 1
    head = ["candidate"]
    for metric in certificate.metrics:
        head += [f"{metric} expected" if several else "expected", "in the search"]
    # Of several objectives nobody drops out: all are trained equally often, and so many columns are too wide.
    head += ["seconds", "verdict"] if several else ["trainings", "seconds", "verdict"]
    return Table(head, [_row(one, several) for one in ordered(certificate)])


def _row(candidate: Certified, several: bool) -> Sequence[object]:
    cells: list[object] = [candidate.name]
    for expected in candidate.expected:
        cells += [expected.told() or None]
        cells += [None if expected.searched is None else measured(expected.searched, None)]
    seconds = None if candidate.seconds is None else f"{candidate.seconds:.1f}"
    cells += [seconds] if several else [str(len(candidate.trainings)), seconds]
    return [*cells, verdict(candidate)]


def verdict(candidate: Certified) -> str:
    """What became of it: ``not told apart``, ``worse than trial 7 by 0.021; out at training 14``."""
    told = candidate.verdict
    if (out := candidate.out) is None:
        return told
    if out.than is not None and out.by is not None:
        told += f" than {out.than} by {measured(abs(out.by), None)}"
    return f"{told}; out at training {out.at}"


def whose(certificate: Certificate | None) -> str:
    """Of which search it is."""
    return "certificate" if certificate is None else f"certificate of {certificate.study}"


def state(certificate: Certificate | None, is_running: bool) -> str:
    """Whether it is over: a race may end before all that was planned is trained."""
    if is_running:
        return "running"
    return "finished" if certificate is not None and certificate.finished else "unfinished"


def headline(certificate: Certificate) -> list[tuple[str, str, str]]:
    """The few numbers that matter: what it is called, the number, and a remark."""
    found = list[tuple[str, str, str]]()
    if certificate.best is not None:
        best = certificate[certificate.best]
        expected = best.expected[0]
        found.append((f"{expected.metric} expected", expected.told(), f"of {best.name}, the best"))
    n_out = sum(one.out is not None for one in certificate.candidates)
    n = len(certificate.candidates)
    found.append(("candidates", str(n), f"{n_out} out" if n_out else "all still in"))
    done, planned = certificate.n_trainings, certificate.n_planned
    remark = "all that were planned" if done >= planned else f"of {planned:,} planned"
    found.append(("trainings", f"{done:,}", remark))
    return found
