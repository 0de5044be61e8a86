"""The pictures of README and docs, made by the product itself.

    python docs/pictures.py                      # into docs/pictures, in four minutes
    python docs/pictures.py --out DIR --quick    # the same pictures of a search of 6 trials: a look

A search of the README, and its certificate, run on a terminal of their own, in a temporary folder; what that
terminal shows becomes SVG. The report and the dashboard are looked at by a real browser (Debian: apt-get
install chromium), and become WebP.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import io
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS, LINES = 110, 40
WIDE, NARROW = (1280, 800), (390, 844)
"""Pixels of a laptop's window and of a phone's."""
SURE, TRAINED = (1280, 526), (1280, 450)
"""Of a figure with the words above it."""
MOST_BYTES = 1_500_000
"""Of all pictures together: everybody who clones the repository takes them along."""
LIMIT_S = 600
_CODE = re.compile(r"\x1b\[(?P<number>[0-9;?]*)(?P<code>[A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\x1b]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pictures"))
    parser.add_argument("--quick", action="store_true", help="of a short search")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with project() as folder:
        search = [
            "-m",
            "study=digits",
            *(["experiment=quick"] if arguments.quick else []),
            "optimizer=adam,sgd",
        ]
        photograph(folder, search, out)
        photograph_certificate(folder, ["--top", "2", "--seeds", "3"] if arguments.quick else [], out)
    written = sorted(out.iterdir())
    for path in written:
        print(f"{path.stat().st_size / 1000:7.0f} kB  {path}")
    total = sum(path.stat().st_size for path in written)
    if total > MOST_BYTES:
        raise SystemExit(f"{total:,} bytes are more than {MOST_BYTES:,}: take fewer or smaller ones")


@contextmanager
def project() -> Iterator[Path]:
    """An empty folder whose name may be seen; another where somebody has one of that name."""
    folder = Path(tempfile.gettempdir(), "my-project")
    try:
        folder.mkdir()
    except FileExistsError:
        folder = Path(tempfile.mkdtemp())
        print(f"{folder} may be seen in the pictures: remove {folder.with_name('my-project')} for good ones")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def photograph(folder: Path, search: Sequence[str], out: Path) -> None:
    """Run the search in a folder, and look at all that it shows and leaves."""
    title = f"sweeper {' '.join(search)}".replace(" study=digits", "")
    during, after = run(folder, search)
    write_svg(during[-12:], out / "search.svg", title)
    write_svg(after[first(after, r"^Study \w+: \d+ done") :], out / "search-end.svg", title)
    write_svg(run(folder, ["best", "digits"])[1], out / "best.svg", "sweeper best digits")
    run(folder, ["report", "digits"])
    with browser() as open_page, dashboard(folder) as address:
        report = (folder / "outputs" / "digits" / "report.html").as_uri()
        for scheme in ("light", "dark"):
            with open_page(WIDE, scheme) as page:
                page.goto(report)
                shoot(page, out / f"report-{scheme}.webp", WIDE)
        with open_page(NARROW, "light") as page:
            page.goto(report)
            shoot(page, out / "report-phone.webp", NARROW)
        with open_page(WIDE, "light") as page:
            page.goto(report)
            shoot_part(page, "What mattered", out / "importance.webp")
            shoot_part(page, "The best against the next", out / "how-sure.webp", SURE)
            page.goto(address)
            link = page.get_by_role("link", name=re.compile("digits")).first
            link.wait_for()
            shoot(page, out / "dashboard.webp", WIDE)
            link.click()
            page.locator(".scatterlayer path.point").first.wait_for()  # the history has its trials
            shoot(page, out / "dashboard-study.webp", WIDE)
            page.locator("a[href$='/note']").first.click()
            page.get_by_text("reproduce digits").first.wait_for()
            shoot(page, out / "dashboard-note.webp", WIDE)


def photograph_certificate(folder: Path, options: Sequence[str], out: Path) -> None:
    """Certify the search, and look at what is said of it in the end."""
    words = ["certify", "digits", *options]
    after = run(folder, words)[1]
    told = after[first(after, r" expected to reach ") :]
    write_svg(told, out / "certificate.svg", f"sweeper {' '.join(words)}")
    run(folder, ["report", "digits"])
    with browser() as open_page, open_page(WIDE, "light") as page:
        page.goto((folder / "outputs" / "digits" / "report.html").as_uri())
        shoot_part(page, "Trained again", out / "certificate.webp", TRAINED)
    print("\n".join(map(plain, after)))


# -------------------------------------------------------------------------------------------- the terminal


def shown_at_once(lines: Sequence[str]) -> int:
    """How much of a search is to be seen: trials in the middle, and up to nine lines of those that ended.

    Nothing, while the terminal is being written: a trial then shows twice.
    """
    ended = [found[1] for line in lines if (found := re.match(r"trial +(\d+) +(?:done|pruned) ", line))]
    middle = [found[1] for line in lines if (found := re.match(r"trial +(\d+) +step +\d+ of ", line))]
    return 0 if set(ended) & set(middle) else min(len(ended), 9) * (1 + len(middle))


def first(lines: Sequence[str], pattern: str) -> int:
    return next(index for index, line in enumerate(lines) if re.search(pattern, plain(line)))


def run(folder: Path, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """``sweeper ARGUMENTS`` on a terminal, to its end.

    Returns:
        The lines, with their colours, when most of a search was shown at once, and those at the end.
    """
    end, keyboard = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, **environment_of(folder), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment,
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        start_new_session=True,
    )
    os.close(keyboard)
    try:
        shown, during, most, limit = Screen(), list[str](), -1, time.monotonic() + LIMIT_S
        while piece := read(end, limit):
            shown.show(piece)
            if (much := shown_at_once([plain(line) for line in shown.lines()[-LINES:]])) > most:
                during, most = shown.lines(), much
        lines = shown.lines()
        if code := process.wait(LIMIT_S):
            raise SystemExit(f"sweeper {' '.join(arguments)} ended with {code}:\n" + "\n".join(lines))
        return during, lines
    finally:
        os.close(end)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def read(end: int, limit: float) -> bytes:
    """The next piece that was printed; empty at the end."""
    if not select.select([end], [], [], max(0.0, limit - time.monotonic()))[0]:
        raise SystemExit(f"it took more than {LIMIT_S} s")
    try:
        return os.read(end, 65536)
    except OSError:  # nobody has the other end any more
        return b""


class Screen:
    """An endless terminal. It knows the codes that are printed here: up, erase, colour."""

    def __init__(self) -> None:
        self._lines: list[list[tuple[str, str]]] = [[]]
        """The style and the character of each cell."""
        self._line = self._column = 0
        self._style = self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def show(self, printed: bytes) -> None:
        text, end = self._rest + self._decoder.decode(printed), 0
        for found in _CODE.finditer(text):
            end = found.end()
            if found["code"]:
                self._obey(found["code"], found["number"], found[0])
            elif found[0] == "\r":
                self._column = 0
            elif found[0] == "\n":
                self._down()
            elif not found[0].startswith("\x1b"):
                self._write(found[0])
        self._rest = text[end:]  # the beginning of a code

    def _obey(self, code: str, number: str, whole: str) -> None:
        row = self._lines[self._line]
        match code:
            case "m":
                self._style = "" if number in ("", "0") else self._style + whole
            case "A":
                self._line = max(0, self._line - int(number or 1))
            case "K":
                del row[0 if number == "2" else self._column :]

    def _write(self, character: str) -> None:
        if self._column == COLUMNS:
            self._down()
            self._column = 0
        row = self._lines[self._line]
        row += [("", " ")] * (self._column + 1 - len(row))
        row[self._column] = self._style, character
        self._column += 1

    def _down(self) -> None:
        self._line += 1
        self._lines += [[] for _ in range(self._line + 1 - len(self._lines))]

    def lines(self) -> list[str]:
        """What is to be seen, with its colours."""
        lines = ["".join(map(painted, groupby(row, key=itemgetter(0)))) for row in self._lines]
        while lines and not plain(lines[-1]).strip():
            lines.pop()
        return lines


def painted(piece: tuple[str, Iterable[tuple[str, str]]]) -> str:
    style, cells = piece
    text = "".join(character for _, character in cells)
    return f"{style}{text}\x1b[0m" if style else text


def plain(line: str) -> str:
    return Text.from_ansi(line).plain


def write_svg(lines: Sequence[str], path: Path, title: str) -> None:
    """A window of a terminal with these lines. It loads no font from a network: it takes the reader's own."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop", crop=True)
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    )
    svg = console.export_svg(title=title, theme=MONOKAI, code_format=form, unique_id=path.stem)
    if tempfile.gettempdir() in svg:
        raise SystemExit(f"{path.name} shows a folder of this machine")
    path.write_text(svg, encoding="utf-8")


def command(*arguments: str) -> list[str]:
    """As a person types it, where the package is installed beside this Python."""
    installed = Path(sys.executable).with_name("sweeper")
    return [*([str(installed)] if installed.exists() else [sys.executable, "-m", "sweeper"]), *arguments]


def environment_of(folder: Path) -> dict[str, str]:
    """In which ``sweeper`` is found by its name, and decodes into the folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"PATH": path, "SWEEPER_CACHE": str(folder / "cache")}


# --------------------------------------------------------------------------------------------- the browser


@contextmanager
def browser() -> Iterator[Any]:
    """``open_page(size, scheme)``: a page of a real browser without a window."""
    from playwright.sync_api import sync_playwright

    found = [
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    ]
    if not found:
        raise SystemExit("no browser is installed (Debian: apt-get install chromium)")
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        chromium: Any = play.chromium.launch(executable_path=found[0], args=arguments)

        @contextmanager
        def open_page(size: tuple[int, int], scheme: str) -> Iterator[Any]:
            viewport = dict(zip(("width", "height"), size, strict=True))
            page = chromium.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
            try:
                yield page
            finally:
                page.close()

        yield open_page
        chromium.close()


@contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """The address of ``sweeper dashboard`` on the studies of a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **environment_of(folder)}
    asked = command("dashboard", "--port", str(port))
    server = subprocess.Popen(
        asked, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        while (line := server.stdout.readline()) and not line.startswith("Dashboard: "):
            pass
        if not line:
            raise SystemExit("the dashboard did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def shoot_part(page: Any, heading: str, path: Path, size: tuple[int, int] = WIDE) -> None:
    """What the window shows of the part of a report with this heading."""
    found = page.get_by_role("heading", name=heading).first
    if found.count():
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        found.evaluate("heading => { heading.scrollIntoView(); window.scrollBy(0, -40) }")
        shoot(page, path, size)
        page.set_viewport_size(dict(zip(("width", "height"), WIDE, strict=True)))


def shoot(page: Any, path: Path, size: tuple[int, int]) -> None:
    """What the window shows when all is drawn, as a small file."""
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => document.fonts.status === 'loaded'")
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as image:
        assert image.size == size
        image.convert("RGB").save(path, quality=82, method=6)


if __name__ == "__main__":
    main()
