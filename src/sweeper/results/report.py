"""The report: one page that opens without a network, made from the records of studies alone."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from sweeper import __version__, filesystem
from sweeper.results import belief as belief_of
from sweeper.results import certainty, chart, importance, markup, overview, prediction, standing, verdict
from sweeper.results.certificate import Certificate
from sweeper.results.panel import Panel
from sweeper.results.study_record import StudyRecord

log = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).parent / "template"

Made: TypeAlias = "Panel | list[Panel] | None"
Commands: TypeAlias = Sequence[tuple[str, str]]
"""What each does, and the command."""


@dataclass(frozen=True)
class Section:
    """Panels under one heading; without panels it is left out, or says why in a sentence."""

    title: str
    panels: Sequence[Panel]
    empty: str = ""
    intro: str = ""
    """Shown above figures."""

    @property
    def has_figures(self) -> bool:
        return any(panel.figure is not None for panel in self.panels)

    @property
    def rows(self) -> list[list[Panel]]:
        """The panels, with small ones that follow each other in one row."""
        return [list(group) for _, group in groupby(self.panels, key=lambda panel: panel.is_small)]


@dataclass(frozen=True)
class Chapter:
    """One study in the page, or the comparison of several."""

    name: str
    state: str
    headline: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]


def write(
    path: Path,
    studies: Sequence[tuple[StudyRecord, Commands]],
    with_images: bool = True,
    certificates: Mapping[Path, Certificate] = MappingProxyType({}),
) -> None:
    """Write the report of one study, or of several side by side.

    Args:
        studies: what is known of each, and the commands that belong to it.
        with_images: whether it may hold pictures of the data; it says so where it does.
        certificates: by the folder of a study, the one that it is, or that belongs to it.

    Raises:
        Fault: if the disk fails.
    """
    filesystem.write_whole(path, page(studies, with_images, certificates))


def page(
    studies: Sequence[tuple[StudyRecord, Commands]],
    with_images: bool = True,
    certificates: Mapping[Path, Certificate] = MappingProxyType({}),
) -> str:
    """The whole page as HTML."""
    searches = [seen for seen, _ in studies if not seen.files.is_certificate]
    chapters = [_compared(searches)] if len(searches) > 1 else []
    chapters += [
        _certificate(seen, commands, certificates.get(seen.files.folder))
        if seen.files.is_certificate
        else _study(seen, commands, with_images, certificates.get(seen.files.folder))
        for seen, commands in studies
    ]
    figures: list[str] = []

    def place(panel: Panel) -> int:
        """The number by which the page's script finds a figure."""
        assert panel.figure is not None
        figures.append(_to_json(panel.figure))
        return len(figures) - 1

    names = [seen.name for seen, _ in studies]
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["told"] = markup.told
    scripts = {name: _script(text) for name, text in _scripts().items()}
    return environment.get_template("report.html").render(
        title=" · ".join(names),
        chapters=chapters,
        place=place,
        table=markup.table,
        css=Markup((_TEMPLATE / "report.css").read_text(encoding="utf-8")),
        holds_images=any(
            "<img" in panel.html
            for chapter in chapters
            for section in chapter.sections
            for panel in section.panels
        ),
        made=datetime.now(),
        version=__version__,
        policy=_policy(_scripts().values()),
        figures=figures,
        scripts=scripts,
        Markup=Markup,
    )


def _scripts() -> dict[str, str]:
    return {
        "plotly": get_plotlyjs().replace("\r", ""),
        "report": (_TEMPLATE / "report.js").read_text(encoding="utf-8"),
    }


def _script(text: str) -> Markup:
    return Markup("<script>{}</script>").format(Markup(text))


def _policy(scripts: Iterable[str]) -> str:
    """Nothing is fetched, and no script runs but these: whatever a name holds that should have been text."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _to_json(figure: Any) -> str:
    """As JSON that cannot end the script in which it stands."""
    content = json.loads(to_json_plotly(figure.to_plotly_json()))
    return json.dumps(markup.as_text(content), separators=(",", ":")).replace("<", "\\u003c")


# ------------------------------------------------------------------------------------------------ the parts


def _study(
    seen: StudyRecord, commands: Commands, with_images: bool, certificate: Certificate | None = None
) -> Chapter:
    """The sections of one study."""
    sections = [
        Section(
            "Result",
            _made(
                lambda: overview.found(seen),
                lambda: overview.searched(seen),
                lambda: overview.signs(seen),
                lambda: overview.failures(seen),
            ),
        ),
        Section("How sure is it?", _made(lambda: certainty.believed(seen, belief_of.of(seen)))),
        Section("Certificate", _made(lambda: _certified(certificate, verdict.chosen(seen.files)))),
        Section(
            "Scores and learning curves",
            _made(
                lambda: chart.pareto(seen),
                lambda: [chart.learning_curves(seen, i) for i in range(len(seen.metrics))],
                lambda: _best_curves(seen),
                lambda: chart.history(seen),
            ),
            "No trial has left any value yet.",
        ),
        Section(
            "Parameters",
            _made(
                lambda: [panel for i in range(len(seen.metrics)) for panel in chart.slices(seen, i)],
                lambda: chart.parallel(seen),
                lambda: overview.trials(seen),
            ),
            "There is nothing to compare before two trials are done.",
            "Each mark is a trial: a dot is done, a cross was pruned, the star is the best.",
        ),
        Section("Importance", _made(lambda: importance.panels(seen))),
        Section(
            "Workers and cost",
            _made(lambda: chart.timeline(seen), lambda: chart.costs(seen)),
            "No trial has begun yet.",
        ),
        Section("Best model", _made(lambda: prediction.panels(seen, with_images))),
        Section(
            "Commands and environment",
            _made(lambda: overview.commands(commands), lambda: overview.environment(seen)),
        ),
    ]
    shown = [section for section in sections if section.panels or section.empty]
    return Chapter(seen.name, overview.state(seen), _headline(seen), shown)


def _certificate(seen: StudyRecord, commands: Commands, certificate: Certificate | None) -> Chapter:
    """The sections of a study that is a certificate."""
    sections = [
        Section(
            "Certificate",
            _made(lambda: _certified(certificate)),
            "There is no certificate yet.",
        ),
        Section("Trainings", _made(lambda: overview.failures(seen), lambda: overview.trials(seen))),
        Section("Workers and cost", _made(lambda: chart.timeline(seen))),
        Section("Commands", _made(lambda: overview.commands(commands))),
    ]
    shown = [section for section in sections if section.panels or section.empty]
    headline = [] if certificate is None else verdict.headline(certificate)
    state = verdict.state(certificate, any(trial.state.name == "RUNNING" for trial in seen.trials))
    return Chapter(seen.name, f"{verdict.whose(certificate)}, {state}", headline, shown)


def _certified(certificate: Certificate | None, chosen: str | None = None) -> list[Panel]:
    return [] if certificate is None else certainty.certified(certificate, chosen)


def _headline(seen: StudyRecord) -> Sequence[tuple[str, str, str]]:
    try:
        return overview.headline(seen)
    except Exception as error:  # the rest can be shown
        log.warning("the report of %s has no headline: %r", seen.name, error)
        return []


def _best_curves(seen: StudyRecord) -> list[Panel]:
    run = standing.best_run(seen)
    if run is None or not run.history.exists():
        return []
    return chart.training_curves(run.read_history(), run.read_best_epoch())


def _compared(records: Sequence[StudyRecord]) -> Chapter:
    section = Section(
        "Side by side",
        _made(
            lambda: overview.scores(records),
            lambda: overview.differences(records),
            lambda: chart.compared(records),
        ),
    )
    return Chapter("Comparison", f"{len(records)} studies", [], [section])


def _made(*parts: Callable[[], Made | Sequence[Panel | None]]) -> list[Panel]:
    """The panels of all parts; one that cannot be made says so, and does not take the others with it."""
    panels = list[Panel]()
    for part in parts:
        try:
            made = part()
        except Exception as error:  # whatever a damaged file or a strange study leads to
            log.warning("a part of the report is left out: %s: %s", type(error).__name__, error)
            log.debug("", exc_info=True)
            said = f"This part could not be made: {type(error).__name__}: {error}"
            made = Panel("Left out", markup.paragraph(said))
        found = [made] if isinstance(made, Panel) or made is None else made
        panels += [panel for panel in found if panel is not None]
    return panels
