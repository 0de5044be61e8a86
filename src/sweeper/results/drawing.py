"""A run's loss by epoch as a small picture (SVG): drawn at a click, in a millisecond, by nothing but text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 100, 30, 56
_LINES = (("train_loss", "training", "#1f5fa8", "7 3"), ("val_loss", "validation", "#b4460f", "none"))
"""Column, name, colour and dashes: told apart by who sees no colours, too."""

_LINE_HEIGHT = 18

_LOG_FROM = 30
"""The largest loss by the smallest, from which equal steps would hide the small ones."""


def loss_by_epoch(history: Sequence[Mapping[str, float]], best_epoch: int | None = None) -> str:
    """Training and validation loss; what is no number leaves a gap."""
    columns = {name: [row.get(name, math.nan) for row in history] for name, *_ in _LINES}
    finite = [value for values in columns.values() for value in values if math.isfinite(value)]
    if not finite:
        return _svg([_text(_WIDTH / 2, _HEIGHT / 2, "No epoch has a finite loss.", "middle")])
    frame = _Frame.around(len(history), finite)
    shapes = _axes(frame, best_epoch)
    labels = list[tuple[float, str, str]]()
    for name, told, colour, dashes in _LINES:
        points = [(frame.x(epoch), value) for epoch, value in enumerate(columns[name], 1)]
        for is_finite, run in groupby(points, key=lambda point: math.isfinite(point[1])):
            if is_finite:
                shapes.append(_curve([(x, frame.y(value)) for x, value in run], colour, dashes))
        ends = [(x, frame.y(value)) for x, value in points if math.isfinite(value)]
        labels += [(ends[-1][1], told, colour)] if ends else []
    labels.sort()
    room = labels[-1][0] - labels[0][0] - _LINE_HEIGHT if len(labels) > 1 else 0
    for i, (y, told, colour) in enumerate(labels):
        moved = min(0, room) * (0.5 - i)  # curves that end together have their names below each other
        shapes.append(_text(_WIDTH - _RIGHT + 14, y + 5 + moved, told, colour=colour))
    return _svg(shapes)


@dataclass(frozen=True)
class _Frame:
    """Where epochs and losses lie on the picture."""

    n_epochs: int
    ticks: tuple[float, ...]
    is_log: bool
    low: float
    high: float

    @classmethod
    def around(cls, n_epochs: int, losses: Sequence[float]) -> _Frame:
        low, high = min(losses), max(losses)
        if low > 0 and high / low > _LOG_FROM:
            exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            ticks = [10.0**exponent for exponent in exponents]
            return cls(n_epochs, tuple(ticks), True, math.log10(ticks[0]), math.log10(ticks[-1]))
        step = _even((high - min(low, 0)) / 4 or 1)
        first, last = math.floor(min(low, 0) / step), math.ceil(high / step)
        ticks = [i * step for i in range(first, max(last, first + 1) + 1)]
        return cls(n_epochs, tuple(ticks), False, ticks[0], ticks[-1])

    def x(self, epoch: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(1, self.n_epochs - 1)

    def y(self, loss: float) -> float:
        share = ((math.log10(loss) if self.is_log else loss) - self.low) / (self.high - self.low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _even(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, …, also below 1."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _axes(frame: _Frame, best_epoch: int | None) -> list[str]:
    shapes = [_text(_LEFT, _TOP - 8, "loss (logarithmic)" if frame.is_log else "loss")]
    for tick in frame.ticks:
        shapes.append(_line(_LEFT, frame.y(tick), _WIDTH - _RIGHT, frame.y(tick), "#d5d5d5"))
        shapes.append(_text(_LEFT - 8, frame.y(tick) + 5, f"{tick:.4g}", "end"))
    step = max(1, round(_even(frame.n_epochs / 8)))
    for epoch in [1, *range(step + (step == 1), frame.n_epochs + 1, step)]:
        shapes.append(_text(frame.x(epoch), _HEIGHT - _BOTTOM + 20, str(epoch), "middle"))
    told = "epoch"
    if best_epoch is not None and 1 <= best_epoch <= frame.n_epochs:
        at, told = frame.x(best_epoch), f"epoch (dotted: the best, {best_epoch})"
        shapes.append(_line(at, _TOP, at, _HEIGHT - _BOTTOM, "#555555", "2 3"))
    shapes.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, told, "middle"))
    return shapes


def _curve(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    style = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"'
    return f'<polyline points="{told}" {style}/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "none") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _text(x: float, y: float, told: str, anchor: str = "start", colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{told}</text>'


def _svg(shapes: Sequence[str]) -> str:
    # A ground of its own, because the page around it may be dark.
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    font = 'font-family="sans-serif" font-size="15"'
    return "\n".join([f'{head} height="{_HEIGHT}" {font}>', ground, *shapes, "</svg>", ""])
