"""What a person sees of one training run: a bar, and a line for each epoch."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sweeper import saved, schema
from sweeper.program import program, use
from sweeper.record.run_files import RunFiles
from sweeper.results import sign
from sweeper.results.sign import Sign
from sweeper.run import Observer
from sweeper.screen import Bar, Screen, live
from sweeper.words import clock, near

if TYPE_CHECKING:
    from sweeper.training.fit import Epoch
    from sweeper.training.summary import Summary

SILENCE_S = 60.0
"""Without a terminal, an epoch that takes so long is told to be running."""

_MARK = "  best  "

_BESIDE = 42
"""Columns beside an epoch's number and its values: a short bar, the time so far and the time left."""


class SingleRun(Observer):
    """Shows a run on standard output.

    Args:
        silence_s: see ``SILENCE_S``.
    """

    def __init__(self, run: schema.Run, silence_s: float = SILENCE_S) -> None:
        self._n_epochs = run.training.epochs
        self._asked = (*schema.objectives(run.objective), run.training.early_stopping.monitor)
        self._monitor = run.training.early_stopping.monitor
        self._silence_s = silence_s
        self._trust = saved.trust_option(run.model)
        self._screen = Screen()
        self._stack = ExitStack()
        self._n_done = 0
        self._best = inf
        self._row: Mapping[str, float] = {}
        self._shown: dict[str, int] = {}
        """The columns of the table, and how wide they are."""
        self._told = threading.Event()
        self._is_over = False

    def __enter__(self) -> SingleRun:
        self._began_s = self._epoch_began_s = monotonic()
        if self._screen.is_live:
            self._stack.enter_context(live(self._screen, self._picture, by_itself=True))
        else:
            teller = threading.Thread(target=self._tell_that_it_lives, daemon=True)
            teller.start()
            self._stack.callback(self._end, teller)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def found(self, summary: Summary) -> None:
        from sweeper.training.summary import lines

        self._screen.tell(lines(summary, width=self._screen.width))

    def epoch(self, epoch: Epoch) -> None:
        self._n_done, self._row, self._epoch_began_s = epoch.epoch, epoch.row(), monotonic()
        if self._screen.is_terminal:
            if epoch.epoch == 1:
                self._shown = self._choose_columns()
                self._screen.say(self._head())
            self._screen.say(self._line(self.is_best(epoch)))
        else:
            self._screen.say(Text(f"epoch {epoch.epoch}/{self._n_epochs}: {_sentence(self._row)}"))
        self._told.set()

    def sign(self, found: Sign) -> None:
        sign.show(self._screen, [found])

    def result(self, result: dict[str, Any], folder: Path) -> None:
        print(f"Best epoch: {result['best_epoch']} of {result['epochs']} ({result['ending']})")
        for part, prefix in (("Validation", "val_"), ("Test", "test_")):
            for name, value in metrics(result, prefix).items():
                print(f"{part} {name}: {value:.4f}")
        files = RunFiles(folder)
        sign.show(self._screen, sign.read_whole(files.signs), files.signs)
        print(f"Folder: {near(folder)}")
        if files.has_model:
            print(f"Use it:    {use(shlex.quote(near(folder)), self._trust)}")
        print(f"Reproduce: {program()} reproduce {shlex.quote(near(folder))}{self._trust}")

    # --------------------------------------------------------------------------------------- on a terminal

    def is_best(self, epoch: Epoch) -> bool:
        """Whether training would go back to this one, so far: as ``fit`` decides it."""
        sign = -1 if schema.DIRECTIONS[self._monitor] == "maximize" else 1
        value = inf if epoch.diverged else sign * epoch.row()[self._monitor]
        is_best = epoch.epoch == 1 or value < self._best
        self._best = value if is_best else self._best
        return is_best

    def _choose_columns(self) -> dict[str, int]:
        """As many as there is room for, validation first."""
        shown, left = dict[str, int](), self._screen.width - self._width - len(_MARK)
        for name in _columns(self._row, self._asked):
            width = max(len(name), 8)
            if (left := left - width - 2) < -2:
                break
            shown[name] = width
        return shown

    def _head(self) -> Text:
        names = "  ".join(f"{name:>{width}}" for name, width in self._shown.items())
        return Text(f"{'epoch':<{self._width}}{' ' * len(_MARK)}{names}", style="bold")

    def _line(self, is_best: bool) -> Text:
        told = _columns(self._row, self._asked)
        values = "  ".join(f"{told[name]:>{width}}" for name, width in self._shown.items())
        mark = (_MARK, "bold green") if is_best else " " * len(_MARK)
        return Text.assemble(f"{f'{self._n_done}/{self._n_epochs}':>{self._width}}", mark, values)

    @property
    def _width(self) -> int:
        return max(len("epoch"), len(f"{self._n_epochs}/{self._n_epochs}"))

    def _picture(self) -> Bar:
        seconds = monotonic() - self._began_s
        left = (
            f"{clock(seconds / self._n_done * (self._n_epochs - self._n_done))} left" if self._n_done else ""
        )
        before = f"epoch {self._n_done:>{len(str(self._n_epochs))}}/{self._n_epochs}"
        names = [name for name in _ordered(self._row, self._asked) if name.startswith("val_")]
        values = [f"{name} {self._row[name]:.4f}" for name in names if name != "val_loss"]
        room = self._screen.width - len(before) - _BESIDE
        while len(values) > 1 and len(" ".join(values)) > room:
            values.pop()
        told = [part for part in (" ".join(values), clock(seconds), left) if part]
        return Bar(Text(before, style="bold"), self._n_done / self._n_epochs, Text(" · ".join(told)))

    # ------------------------------------------------------------------------------------ without a terminal

    def _tell_that_it_lives(self) -> None:
        while not self._is_over:
            if not self._told.wait(self._silence_s) and not self._is_over:
                seconds = monotonic() - self._epoch_began_s
                running = f"epoch {self._n_done + 1}/{self._n_epochs}: running for {seconds:.0f} s"
                self._screen.say(Text(running))
            self._told.clear()

    def _end(self, teller: threading.Thread) -> None:
        self._is_over = True
        self._told.set()
        teller.join()


def _columns(row: Mapping[str, float], asked: Collection[str]) -> dict[str, str]:
    """What is shown of an epoch, by the names in ``history.csv``."""
    told = {name: f"{row[name]:.4f}" for name in _ordered(row, asked)}
    return told | {"images/s": f"{row['images_per_second']:,.0f}"} if row else {}


def _ordered(row: Mapping[str, float], asked: Collection[str]) -> list[str]:
    """What was measured: on the validation images first, and of that what decides."""
    names = [name for name in row if name.startswith(("val_", "train_"))]
    return sorted(names, key=lambda name: (name.startswith("train_"), name != "val_loss", name not in asked))


def _sentence(row: Mapping[str, float]) -> str:
    parts = [f"{part} {_told(row, prefix)}" for part, prefix in (("train", "train_"), ("validation", "val_"))]
    return ", ".join([*parts, f"{row['images_per_second']:,.0f} images/s"])


def metrics(measured: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """What was measured on one part of the data besides the loss, in words."""
    names = [name for name in measured if name.startswith(prefix) and name != f"{prefix}loss"]
    return {name.removeprefix(prefix).replace("_", " "): measured[name] for name in names}


def _told(row: Mapping[str, float], prefix: str) -> str:
    told = {"loss": row[f"{prefix}loss"], **metrics(row, prefix)}
    return " ".join(f"{name} {value:.4f}" for name, value in told.items())
