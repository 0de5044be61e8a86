"""The six drawings of ``how-it-works.md``: ``python docs/drawings.py`` writes them into docs/pictures.

SVG with text as text, in the reader's own font, on a ground of its own, so that they can be read on a light
and on a dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

PICTURES = Path(__file__).with_name("pictures")
WIDTH = 640

_STYLE = """\
:root { color-scheme: light dark }
text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; font-size: 16px;
  fill: #1b1f24 }
.small { font-size: 14px; fill: #57606a }
.code { font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 14px }
.bold { font-weight: 600 }
.middle { text-anchor: middle }
.end { text-anchor: end }
.ground { fill: #ffffff; stroke: #d0d7de }
.box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.5 }
.blue { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5 }
.green { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5 }
.red { fill: #ffebe9; stroke: #cf222e; stroke-width: 1.5 }
.idle { fill: none; stroke: #8c959f; stroke-dasharray: 4 4 }
.line { fill: none; stroke: #57606a; stroke-width: 1.5 }
.dashed { stroke-dasharray: 5 4 }
.head { fill: #57606a }
.stop { stroke: #cf222e; stroke-width: 2.5; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9da7b3 }
  .ground { fill: #161b22; stroke: #30363d }
  .box { fill: #21262d; stroke: #6e7681 }
  .blue { fill: #0c2d6b; stroke: #58a6ff }
  .green { fill: #0f3d1e; stroke: #3fb950 }
  .red { fill: #5d1014; stroke: #f85149 }
  .idle { stroke: #6e7681 }
  .line { stroke: #9da7b3 }
  .head { fill: #9da7b3 }
  .stop { stroke: #f85149 }
}"""


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}" xml:space="preserve">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, style: str = "box") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{style}"/>'


def named(x: float, y: float, width: float, height: float, name: str, *notes: str, style: str = "box") -> str:
    """A box with a name, and below it what it is."""
    middle = x + width / 2
    lines = [text(middle, y + 26 + 19 * (i + 1), note, "small middle") for i, note in enumerate(notes)]
    return "".join([box(x, y, width, height, style), text(middle, y + 26, name, "bold middle"), *lines])


def line(*points: tuple[float, float], style: str = "line", arrow: bool = True) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    head = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<polyline points="{path}" class="{style}"{head}/>'


def cross(x: float, y: float, size: float = 8) -> str:
    left, right, top, bottom = x - size, x + size, y - size, y + size
    return f'<path d="M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}" class="stop"/>'


def drawing(height: float, title: str, *parts: str) -> str:
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" role="img"
  viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
  orient="auto-start-reverse">
<path d="M0 0L8 4L0 8z" class="head"/></marker></defs>
<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="10" class="ground"/>
{chr(10).join(parts)}
</svg>
"""


# ------------------------------------------------------------------------------------------- the drawings


def way_of_the_data() -> str:
    above = [
        ("conf", "your command,", "options, ranges"),
        ("space", "what may be", "drawn"),
        ("study", "storage, sampler,", "pruner"),
        ("pool", "starts workers,", "replaces the dead"),
    ]
    below = [
        ("results", "report, signs,", "best model"),
        ("training", "images in,", "history out"),
        ("run", "one config in,", "one score out"),
        ("worker", "ask, compose,", "run, tell"),
    ]
    parts = []
    for column, (name, *notes) in enumerate(above):
        x = 14 + 156 * column
        parts.append(named(x, 20, 144, 84, name, *notes, style="blue" if name == "study" else "box"))
        if column:
            parts.append(line((x - 12, 62), (x - 1, 62)))
    for column, (name, *notes) in enumerate(below):
        x = 14 + 156 * column
        if name == "worker":
            parts += [box(x + 8, 188, 136, 84), box(x + 4, 184, 140, 84)]
            parts.append(named(x, 180, 144, 84, name, *notes))
        else:
            parts.append(named(x, 180, 144, 84, name, *notes, style="green" if name == "results" else "box"))
        if column < 3:
            parts.append(line((x + 156, 222), (x + 145, 222)))
    parts += [
        line((570, 104), (570, 179)),
        '<line x1="398" y1="105" x2="482" y2="205" class="line dashed" marker-start="url(#arrow)"/>',
        text(14, 146, "Workers meet only in the storage:", "small"),
        text(14, 165, "each asks, trains and tells by itself.", "small"),
    ]
    return drawing(
        290, "The way of the data: conf, space, study, pool, worker, run, training, results", *parts
    )


LENGTHS = (3, 8, 5, 2, 4, 9, 6, 3, 2, 7, 2, 4)
"""Minutes of each trial in the drawing."""
WORKERS = 3


def batches() -> list[tuple[int, float, float]]:
    """Worker, begin and end of each trial, if all of a batch wait for its slowest."""
    start, trials = 0.0, []
    for first in range(0, len(LENGTHS), WORKERS):
        batch = LENGTHS[first : first + WORKERS]
        trials += [(worker, start, start + length) for worker, length in enumerate(batch)]
        start += max(batch)
    return trials


def asynchronous() -> list[tuple[int, float, float]]:
    """The same, if whoever is free takes the next."""
    free, trials = [0.0] * WORKERS, []
    for length in LENGTHS:
        worker = free.index(min(free))
        trials.append((worker, free[worker], free[worker] + length))
        free[worker] += length
    return trials


def workers() -> str:
    scale, left = 17, 88
    longest = max(end for *_, end in batches())

    def panel(top: float, title: str, trials: Sequence[tuple[int, float, float]], style: str) -> list[str]:
        end = max(stop for *_, stop in trials)
        idle = 1 - sum(LENGTHS) / (WORKERS * end)
        parts = [
            text(14, top, title, "bold"),
            text(626, top, f"{end:g} minutes, {idle:.0%} idle", "small end"),
        ]
        for worker in range(WORKERS):
            y = top + 14 + 32 * worker
            parts.append(text(14, y + 18, f"worker {worker}", "small"))
            parts.append(box(left, y, scale * end, 26, "idle"))
        for number, (worker, begin, stop) in enumerate(trials):
            y = top + 14 + 32 * worker
            parts.append(box(left + scale * begin, y, scale * (stop - begin) - 2, 26, style))
            parts.append(text(left + scale * (begin + stop) / 2 - 1, y + 18, str(number), "small middle"))
        return parts

    parts = panel(32, "In batches: all wait for the slowest", batches(), "box")
    barriers = sorted({end for _, begin, _ in batches() if (end := begin)} | {longest})
    parts += [
        line((left + scale * at - 1, 40), (left + scale * at - 1, 146), style="stop", arrow=False)
        for at in barriers
    ]
    parts += panel(186, "Here: whoever is free takes the next", asynchronous(), "green")
    return drawing(306, "The same 12 trials on 3 workers, in batches and asynchronously", *parts)


def ranges() -> str:
    parts = [text(14, 30, "The files: options with the ranges of their own keys", "bold")]
    for x, name, rows in (
        (14, "conf/optimizer/adam.yaml", ["name: adam", "lr: 0.001"]),
        (
            328,
            "conf/optimizer/sgd.yaml",
            [
                "name: sgd",
                "lr: 0.001",
                "momentum: 0.9",
                "params:",
                "  optimizer.momentum:",
                "    interval(0.8, 0.99)",
            ],
        ),
    ):
        parts += [box(x, 44, 298, 164), text(x + 12, 66, name, "small")]
        parts += [text(x + 12, 90 + 22 * i, row, "code") for i, row in enumerate(rows)]
    parts.append(text(14, 244, "A trial", "bold"))
    steps = [
        ("draws the options", "optimizer = adam", "optimizer = sgd"),
        ("composes the config", "ranges: lr, …", "ranges: lr, …, momentum"),
        ("draws the ranges", "lr = 0.009, …", "lr = 0.0002, …, momentum = 0.97"),
    ]
    for row, (step, adam, sgd) in enumerate(steps):
        y = 258 + 52 * row
        parts += [text(14, y + 25, f"{row + 1}. {step}")]
        parts += [box(210, y, 140, 40, "blue"), text(280, y + 25, adam, "small middle")]
        parts += [box(358, y, 268, 40, "green"), text(492, y + 25, sgd, "small middle")]
        if row:
            parts += [line((280, y - 12), (280, y - 1)), line((492, y - 12), (492, y - 1))]
    return drawing(424, "A trial draws the options first, and then the ranges that these bring", *parts)


def once() -> str:
    parts = [
        named(14, 48, 132, 84, "files", "JPEG, PNG, …"),
        named(186, 48, 190, 84, "decoded pictures", "in the cache, mapped", "into memory", style="blue"),
        named(416, 48, 210, 84, "features", "outputs of frozen stages,", "in the cache", style="blue"),
        text(281, 32, "once per machine", "small middle"),
        text(521, 32, "once per network", "small middle"),
        line((146, 90), (185, 90)),
        line((376, 90), (415, 90)),
        text(14, 186, "All trials, workers and studies share them:", "bold"),
    ]
    for row, (name, source, what) in enumerate(
        [
            ("small CNN", 281.0, "augments batches, trains all of it"),
            ("freezing=full", 281.0, "the same, from pretrained weights"),
            ("freezing=last_block", 521.0, "trains the last stage and the head"),
            ("freezing=head", 521.0, "trains the head alone, in seconds"),
        ]
    ):
        y = 204 + 46 * row
        reads = "pictures" if source < 400 else "features"
        parts += [
            box(14, y, 612, 36, "green"),
            text(26, y + 23, name, "bold"),
            text(216, y + 23, f"reads {reads}", "small"),
            text(344, y + 23, what, "small"),
        ]
    return drawing(402, "Decoded pictures and features of frozen stages are computed once", *parts)


def kill() -> str:
    def trial(worker: int, begin: float, end: float, name: str, style: str, note: str = "") -> str:
        y = 54 + 78 * worker
        parts = [box(begin, y, end - begin, 36, style), text((begin + end) / 2, y + 23, name, "middle")]
        if style == "red":
            parts.append(cross(end, y + 18))
        if note:
            parts.append(text((begin + end) / 2, y + 53, note, "small middle"))
        return "".join(parts)

    parts = [
        text(14, 30, "A search of 6 trials, and 2 workers", "bold"),
        text(14, 77, "worker 0", "small"),
        text(14, 155, "worker 1", "small"),
        trial(0, 84, 160, "0", "green", "done"),
        trial(0, 166, 262, "2", "green", "done"),
        trial(0, 268, 336, "4", "red"),
        trial(1, 84, 140, "1", "red", "killed"),
        trial(1, 166, 262, "3", "green", "1 again"),
        trial(1, 268, 336, "5", "red"),
        trial(0, 440, 516, "6", "green", "4 again"),
        trial(0, 522, 612, "8", "green", "done"),
        trial(1, 440, 548, "7", "green", "5 again"),
        line((336, 44), (336, 196), style="stop", arrow=False),
        text(336, 222, "kill -9 of all", "middle"),
        line((426, 44), (426, 196), style="line dashed", arrow=False),
        text(430, 222, "the same command"),
        text(
            14,
            258,
            "A killed trial is marked as failed. Its parameters are tried again, under the",
            "small",
        ),
        text(
            14,
            278,
            "next number. Done are 0, 2, 3, 6, 7 and 8: exactly the 6 asked for.",
            "small",
        ),
    ]
    return drawing(296, "Killed workers and killed searches lose no study", *parts)


def machines() -> str:
    def pool(x: float, name: str, who: str, n_workers: int) -> list[str]:
        parts = [box(x, 152, 196, 108), text(x + 98, 178, name, "bold middle")]
        parts.append(text(x + 98, 198, who, "small middle"))
        for worker in range(n_workers):
            left = x + 98 + 62 * (worker - n_workers / 2)
            parts += [box(left + 2, 212, 58, 34, "green"), text(left + 31, 234, "worker", "small middle")]
        return parts

    parts = [
        named(14, 20, 176, 84, "your command", "shows progress,", "and may end"),
        named(232, 20, 176, 84, "launcher", "Slurm, Ray, another:", "starts jobs"),
        named(450, 20, 176, 84, "by hand", "the same command,", "with join=true"),
        line((190, 62), (231, 62)),
        line((290, 104), (112, 151)),
        line((320, 104), (320, 151)),
        line((538, 104), (538, 151)),
        *pool(14, "pool", "job on one machine", 2),
        *pool(222, "pool", "job on another", 2),
        *pool(430, "pool", "of a third", 3),
        *(line((x, 260), (x, 311)) for x in (112, 320, 528)),
        text(420, 292, "ask, tell, “I live”", "small middle"),
        box(14, 312, 612, 76, "blue"),
        text(320, 338, "storage", "bold middle"),
        text(320, 358, "trials, signs of life, and the small files of each trial;", "small middle"),
        text(320, 377, "beside it, if you want, the weights of the best", "small middle"),
    ]
    return drawing(
        406, "A command has a launcher start jobs; each runs a pool, and all meet in the storage", *parts
    )


DRAWINGS: dict[str, Callable[[], str]] = {
    "how-1-data": way_of_the_data,
    "how-2-workers": workers,
    "how-3-ranges": ranges,
    "how-4-once": once,
    "how-5-kill": kill,
    "how-6-machines": machines,
}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (PICTURES / f"{name}.svg").write_text(draw(), encoding="utf-8")
