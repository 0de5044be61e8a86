"""What the best model says of the validation images: where it errs, how sure it is, and on which pictures.

``Predictions`` are kept in ``predictions.npz``, and ``panels`` is what the report shows of them.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from sweeper.errors import shortened, visible
from sweeper.fault import Fault
from sweeper.filesystem import arrays, whole
from sweeper.program import program
from sweeper.record.run_files import PER_CLASS, RunFiles
from sweeper.results import markup
from sweeper.results.answer import (
    Bin,
    Floats,
    Indices,
    Labels,
    Logits,
    Mistake,
    calibration_error,
    confusion,
    doubtful,
    first,
    most_confused,
    probabilities,
    reliability,
    wilson,
    worst,
)
from sweeper.results.panel import Panel, Table
from sweeper.results.study_record import StudyRecord
from sweeper.words import counted, near, some

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_CELLS = 20
"""Classes that a matrix, or the table of scores, has room for on a screen."""
MOST_PAIRS = 10


@dataclass(frozen=True)
class Predictions:
    """The logits of a model on the validation images, in their order, and thumbnails of some of these.

    ``labels`` are int64 (n,), or uint8 (n, n_labels) of 0 and 1 if images may have several.
    ``shown`` (k,) are the positions of the worst and the most doubtful images; ``thumbnails`` is uint8
    (k, side, side, 1 or 3), and ``names`` are those of their files within the dataset, empty where the data
    have none.
    """

    logits: Logits
    labels: Labels
    classes: tuple[str, ...]
    shown: Indices
    thumbnails: NDArray[np.uint8]
    names: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def probabilities(self) -> Floats:
        return probabilities(self.labels, self.logits)

    def write(self, files: RunFiles) -> None:
        """Write ``predictions.npz``, which can be read without the dataset.

        Logits are float32, as they were measured: float16 would make ties, and another accuracy.
        """
        with whole(files.predictions) as path, path.open("wb") as file:
            np.savez_compressed(
                file,
                logits=self.logits,
                labels=self.labels,
                classes=np.array(self.classes, dtype=np.str_),
                shown=self.shown,
                thumbnails=self.thumbnails,
                names=np.array(self.names, dtype=np.str_),
            )

    @classmethod
    def read(cls, files: RunFiles) -> Predictions | None:
        """Those of a run of ours; None where it has left none.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.is_ours or not files.predictions.exists():
            return None
        with arrays(files.predictions, "holds no predictions") as found:
            read = cls(
                logits=found["logits"],
                labels=found["labels"],
                classes=tuple(map(str, found["classes"])),
                shown=found["shown"],
                thumbnails=found["thumbnails"],
                names=tuple(map(str, found["names"])),
            )
            read._check()
        return read

    def _check(self) -> None:
        """Raises ValueError unless all parts fit together."""
        n, n_classes = self.logits.shape
        labels, shown, pixels = self.labels, self.shown, self.thumbnails
        fits = (
            self.logits.dtype.kind == "f"
            and all(array.dtype.kind in "iu" for array in (labels, shown))
            and labels.shape == ((n, n_classes) if self.multi_label else (n,))
            and len(self.classes) == n_classes > 0
            and len(shown) == len(pixels) == len(self.names)
            and pixels.ndim == 4
            and pixels.dtype == np.uint8
            and pixels.shape[-1] in (1, 3)
            and (pixels.size > 0 or len(pixels) == 0)
            and all(array.size == 0 or 0 <= array.min() <= array.max() for array in (labels, shown))
            and shown.max(initial=-1) < n
            and labels.max(initial=0) < (2 if self.multi_label else n_classes)
        )
        if not fits:
            raise ValueError("its parts do not fit together")


# --------------------------------------------------------------------------------------- what is shown


def panels(record: StudyRecord, with_images: bool = True) -> list[Panel]:
    """What the report shows of a study's best model; nothing where no trial is a training run of ours.

    Args:
        with_images: whether the pictures themselves are in it; their names are in any case.

    Raises:
        Fault: if ``result.json`` is damaged.
    """
    best = record.files.best
    if not best.is_ours and not any(record.run(trial).is_ours for trial in record.trials):
        return []
    scores = _score_panels(best)
    try:
        found = Predictions.read(best)
    except Fault as error:  # the scores of each class stand elsewhere
        return [_apology(f"{error}."), *scores]
    if found is None or len(found.labels) == 0:
        return [_apology(*_why_none(record)), *scores]
    if not np.isfinite(found.logits).all():
        return [_apology("Its training diverged: it says nothing of any image."), *scores]
    return [
        *_confusion_panels(found),
        *scores,
        _reliability_panel(found),
        *_picture_panels(found, with_images),
    ]


def _apology(why: str, command: str | None = None) -> Panel:
    html = markup.paragraph(why)
    return Panel("Mistakes and pictures", html if command is None else html + markup.command(command))


def _why_none(record: StudyRecord) -> tuple[str, str | None]:
    """Why nothing is known of the best model's answers, and the command that helps."""
    best = record.files.best
    if len(record.directions) > 1:
        why = "Several objectives have no single best model. The trials to choose from:"
        return why, f"{program()} best {shlex.quote(record.name)}"
    if any(not trial.state.is_finished() for trial in record.trials):
        return "What the best model says of the validation images is written when the search ends.", None
    if not best.is_ours:
        return "No trial has completed, so there is no best model.", None
    missing = "What the best model says of the validation images was not kept"
    if not best.has_weights:
        again = f"{program()} --config-dir {shlex.quote(near(best.folder))} --config-name {best.config.stem}"
        return f"{missing}, nor were its weights. This trains it again, in a folder of its own:", again
    if (command := record.again()) is None:
        return f"{missing}. The command that began the search, with its study=NAME, makes up for it.", None
    return f"{missing}. Its weights were, so this makes up for it without training again:", command


# ------------------------------------------------------------------------------------------- confusion


def _confusion_panels(found: Predictions) -> list[Panel]:
    mistakes = most_confused(found.labels, found.logits, found.classes)
    pairs = _mistakes_panel(mistakes, found)
    return [pairs] if found.multi_label else [_matrix_panel(found), pairs]


def _matrix_panel(found: Predictions) -> Panel:
    table = confusion(found.labels, found.logits)
    chosen = _most_involved(table)
    n, n_right = int(table.sum()), int(np.trace(table))
    wrong, n_shown = n - n_right, int(_off_diagonal(table)[np.ix_(chosen, chosen)].sum())
    told = f"The model is right on {n_right:,} of {counted(n, 'validation image')} ({n_right / n:.1%})."
    told += " Rows are the true classes, columns what is said; mistakes are red."
    if len(chosen) < len(table):
        told += (
            f" Shown are the {len(chosen)} classes of {len(table):,} that are confused most,"
            f" with {n_shown:,} of the {counted(wrong, 'mistake')}."
        )
    names = [visible(found.classes[i]) for i in chosen]
    says = (
        f"Confusion matrix: for each true class (row) the share of its images said to be each class. {told}"
    )
    shown = table[np.ix_(chosen, chosen)]
    rows = [(name, *row) for name, row in zip(names, shown.tolist(), strict=True)]
    return Panel(
        "Confusion matrix",
        markup.paragraph(told),
        _heatmap(shown, table.sum(1)[chosen], names),
        says,
        Table(("true, and said to be", *names), rows),
        height=_AROUND + _ROW * max(len(names), 8),
        is_small=len(names) <= 12,
    )


def _most_involved(table: Indices) -> Indices:
    """The classes, in their order, that are in most mistakes, where there are too many to show all."""
    if len(table) <= MOST_CELLS:
        return np.arange(len(table))
    wrong = _off_diagonal(table)
    return np.sort(first(-(wrong.sum(0) + wrong.sum(1)), MOST_CELLS))


def _off_diagonal(table: Indices) -> Indices:
    wrong: Indices = table * (1 - np.eye(len(table), dtype=np.int64))
    return wrong


def _heatmap(table: Indices, of: Indices, names: Sequence[str]) -> go.Figure:
    """Rows are true, columns said. A cell in which nothing is stays empty, so that mistakes stand out."""
    import plotly.graph_objects as go

    shares = np.where(table > 0, table / np.maximum(of, 1)[:, None], np.nan)
    labels = [escape(shortened(name, _TICK), quote=False) for name in names]
    whole = [escape(name, quote=False) for name in names]
    counts = [counted(int(n), "image") for n in of]
    hover = [
        [
            f"{true} said to be {said}:<br>{table[i, j]:,} of {counts[i]} ({shares[i, j]:.1%})"
            for j, said in enumerate(whole)
        ]
        for i, true in enumerate(whole)
    ]
    places = list(range(len(names)))
    cells = go.Heatmap(
        z=[
            [None if np.isnan(share) else float(share if i == j else -share) for j, share in enumerate(row)]
            for i, row in enumerate(shares)
        ],
        x=places,
        y=places,
        text=[[f"{n:,}" if n else "" for n in row] for row in table.tolist()],
        texttemplate="%{text}",
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        zmin=-1,
        zmax=1,
        xgap=1,
        ygap=1,
        colorscale=_SHADES,
        showscale=False,  # a phone has no room for it, and the numbers are there
    )
    axis = {"tickvals": places, "ticktext": labels, "showgrid": False, "zeroline": False}
    figure = go.Figure(cells)
    figure.update_xaxes(title="said", **axis)
    figure.update_yaxes(title="true", **axis, autorange="reversed")
    return figure


_SHADES = (
    (0, "rgba(214,51,108,.65)"),
    (0.4999, "rgba(214,51,108,.2)"),
    (0.5, "rgba(47,126,216,.1)"),
    (1, "rgba(47,126,216,.6)"),
)
"""Of mistakes and of what is right, by share; the page shines through, so that its text can be read."""
_AROUND, _ROW = 140, 26
"""Pixels of the figure around the cells, and of a row of them."""
_TICK = 12
"""Characters of a class's name beside an axis."""


def _mistakes_panel(mistakes: Sequence[Mistake], found: Predictions) -> Panel:
    title = "Most frequent mistakes"
    if not mistakes:
        told = f"None: it is right on all {counted(len(found.labels), 'validation image')}."
        return Panel(title, markup.paragraph(told), is_small=True)
    shown = mistakes[:MOST_PAIRS]
    rows = [
        (visible(each.true), visible(each.said), f"{each.n:,} of {each.of:,} ({each.n / each.of:.0%})")
        for each in shown
    ]
    n = sum(each.n for each in mistakes) - sum(each.n for each in shown)
    more = markup.paragraph(f"{counted(n, 'more mistake')} in rarer pairs.") if n else ""
    return Panel(title, more, table=Table(("true", "said to be", "images"), rows), is_small=True)


# ------------------------------------------------------------------------------------ scores and calibration


def _score_panels(best: RunFiles) -> list[Panel]:
    """The scores of each class as ``result.json`` has them; none of an older run, which has not."""
    scores = best.read_result().get(PER_CLASS, {}).get("val", {})
    if not scores:
        return []
    columns = [name for name in next(iter(scores.values())) if name != "n_images"]
    known = [(name, row) for name, row in scores.items() if row["f1"] is not None]
    known.sort(key=lambda item: item[1]["f1"])
    rows = [
        (visible(name), row["n_images"], *(_score(row[column]) for column in columns))
        for name, row in known[:MOST_CELLS]
    ]
    head = ("class", "images", *(_COLUMNS.get(name, name.replace("_", " ")) for name in columns))
    notes = ["On the validation images, the worst first."]
    if len(known) > MOST_CELLS:
        notes.append(f"{counted(len(known) - MOST_CELLS, 'more class', 'more classes')} at least as good.")
    if without := [name for name in scores if scores[name]["f1"] is None]:
        notes.append(f"No validation image is of {some(map(visible, without), 5)}.")
    html = markup.paragraph(" ".join(notes))
    return [Panel("Scores of each class", html, table=Table(head, rows), is_small=True)]


_COLUMNS = {"f1": "F1"}


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _reliability_panel(found: Predictions) -> Panel:
    bins = reliability(found.labels, found.logits)
    error, n = calibration_error(bins), sum(each.n for each in bins)
    sure, right = (sum(b.n * getattr(b, side) for b in bins) / n for side in ("said", "right"))
    if found.multi_label:
        told = f"On average a label's probability is {sure:.1%}, and {right:.1%} of the labels are there"
    else:
        told = f"On average it is {sure:.1%} sure, and right on {right:.1%}: {_way(sure - right, right, n)}"
    told = f"{told}. Calibration error {error:.3f}."
    note = (
        "Each point stands for answers of about the same probability. Bars are 95% intervals (Wilson):"
        " where one crosses the line, the difference may be chance."
    )
    says = f"Reliability diagram: share right against probability, in {counted(len(bins), 'bin')}. {told}"
    head = ("mean probability", "share right", "from", "to", "answers")
    rows = [(*(f"{x:.3f}" for x in (b.said, b.right, b.low, b.high)), b.n) for b in bins]
    html = markup.paragraph(told) + markup.paragraph(note)
    return Panel("How sure, how right", html, _diagram(bins), says, Table(head, rows), is_small=True)


def _way(surplus: float, right: float, n: int) -> str:
    """A difference that so few answers show by chance is none."""
    low, high = wilson(round(right * n), n)
    if abs(surplus) < _ALIKE or low <= right + surplus <= high:
        return "about as sure as it should be"
    return "surer than it should be" if surplus > 0 else "less sure than it could be"


_ALIKE = 0.01


def _diagram(bins: Sequence[Bin]) -> go.Figure:
    import plotly.graph_objects as go

    from sweeper.results.chart import DONE, QUIET

    dots = {"dash": "dot", "color": QUIET}
    line = go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=dots, hoverinfo="skip")
    points = go.Scatter(
        x=[each.said for each in bins],
        y=[each.right for each in bins],
        error_y={
            "array": [each.high - each.right for each in bins],
            "arrayminus": [each.right - each.low for each in bins],
        },
        customdata=[[each.n, each.low, each.high] for each in bins],
        hovertemplate=(
            "said with %{x:.3f}<br>right %{y:.3f} (%{customdata[1]:.3f} … %{customdata[2]:.3f})"
            "<br>%{customdata[0]:,} answers<extra></extra>"
        ),
        mode="markers",
        marker={"color": DONE},
    )
    figure = go.Figure([line, points])
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="mean probability", range=[-0.03, 1.03])
    figure.update_yaxes(title="share right", range=[-0.03, 1.03])
    return figure


# -------------------------------------------------------------------------------------------- pictures


def _picture_panels(found: Predictions, with_images: bool) -> Iterator[Panel]:
    labels, logits = found.labels, found.logits
    doubt = "a label's probability was near 0.5" if found.multi_label else "two answers were nearly as likely"
    kinds = (
        ("Worst pictures", "The highest losses first: look for wrong labels.", worst(labels, logits), _worst),
        ("Most doubtful pictures", f"Where {doubt}.", doubtful(labels, logits), _doubtful),
    )
    for title, told, chosen, tell in kinds:
        figures = Markup().join(_figure(found, int(i), tell(found, int(i)), with_images) for i in chosen)
        html = Markup('{}<div class="pictures" style="{}">{}</div>')
        yield Panel(title, html.format(markup.paragraph(told), _GRID, figures))


_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(7.2rem,1fr));gap:.75rem"
_SHOWN_SIDE = 96
"""In the page's pixels."""


def _figure(found: Predictions, image: int, told: str, with_images: bool) -> Markup:
    place = np.flatnonzero(found.shown == image)
    name = visible(found.names[place[0]]) if len(place) else ""
    shown = Markup("<code>{}</code>").format(markup.breakable(name)) if name else f"validation image {image}"
    caption = Markup('<figcaption style="font-size:13px">{}<br>{}</figcaption>').format(told, shown)
    picture = Markup()
    if with_images and len(place):
        pixels = found.thumbnails[place[0]]
        look = "image-rendering:pixelated" if len(pixels) < _SHOWN_SIDE // 3 else ""
        html = '<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}" style="{}">'
        alt = f"{told}; {name or shown}"
        picture = Markup(html).format(_png(pixels), alt, _SHOWN_SIDE, _SHOWN_SIDE, look)
    return Markup('<figure style="margin:0;overflow-wrap:anywhere">{}{}</figure>').format(picture, caption)


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    content = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, "PNG", optimize=True)
    return b64encode(content.getvalue()).decode()


def _worst(found: Predictions, image: int) -> str:
    """``true cats, said dogs with 0.97``; of several labels those that were missed or made up."""
    said = found.probabilities[image]
    if not found.multi_label:
        return _answer(found, image)
    has, wrong = found.labels[image] > 0, (said >= 0.5) != (found.labels[image] > 0)
    parts = [_true_labels(found, image)]
    for word, which in (("missed", has & wrong), ("made up", ~has & wrong)):
        if which.any():
            order = [i for i in np.argsort(-np.abs(said - 0.5), kind="stable") if which[i]]
            parts.append(f"{word} {_labels(found, image, order)}")
    return ", ".join(parts)


def _doubtful(found: Predictions, image: int) -> str:
    """``true cats, said dogs with 0.51, then cats with 0.48``; the labels whose probability is near 0.5."""
    said = found.probabilities[image]
    if found.multi_label:
        nearest = np.argsort(np.abs(said - 0.5), kind="stable")[:2]
        return f"{_true_labels(found, image)}, doubtful about {_labels(found, image, nearest)}"
    if len(said) < 2:
        return _answer(found, image)
    second = int(np.argsort(-said, kind="stable")[1])
    return f"{_answer(found, image)}, then {visible(found.classes[second])} with {said[second]:.2f}"


def _answer(found: Predictions, image: int) -> str:
    said, true = int(found.logits[image].argmax()), int(found.labels[image])
    name, how_sure = visible(found.classes[said]), f"with {found.probabilities[image, said]:.2f}"
    return (
        f"{name}, said {how_sure}"
        if said == true
        else f"true {visible(found.classes[true])}, said {name} {how_sure}"
    )


def _true_labels(found: Predictions, image: int) -> str:
    names = [visible(found.classes[i]) for i in np.flatnonzero(found.labels[image])]
    return f"true {some(names)}" if names else "true: no label"


def _labels(found: Predictions, image: int, which: Iterable[int]) -> str:
    return some(f"{visible(found.classes[i])} ({found.probabilities[image, i]:.2f})" for i in which)
