"""What a person sees of one training run: a progress bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from sweeper.program import program
from sweeper.run import Observer

if TYPE_CHECKING:
    from sweeper.schema import Run
    from sweeper.training.fit import Epoch


class SingleRun(Observer):
    def __init__(self, run: Run) -> None:
        self._n_epochs = run.training.epochs
        self._console = Console()
        self._bar = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> SingleRun:
        self._task = self._bar.add_task("", total=self._n_epochs)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def epoch(self, epoch: Epoch) -> None:
        row = epoch.row()
        parts = [
            f"{part} {_told(row, prefix)}" for part, prefix in (("train", "train_"), ("validation", "val_"))
        ]
        line = ", ".join([*parts, f"{epoch.images_per_second:,.0f} images/s"])
        self._bar.update(self._task, advance=1, description=line)
        if not self._console.is_terminal:
            print(f"epoch {epoch.epoch}/{self._n_epochs}: {line}", flush=True)

    def result(self, result: dict[str, Any], folder: Path) -> None:
        print(f"Best epoch: {result['best_epoch']} of {result['epochs']} ({result['ending']})")
        for part, prefix in (("Validation", "val_"), ("Test", "test_")):
            for name, value in metrics(result, prefix).items():
                print(f"{part} {name}: {value:.4f}")
        print(f"Folder: {folder}")
        print(f"To train it again: {program()} reproduce {shlex.quote(str(folder))}")


def metrics(measured: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """What was measured on one part of the data besides the loss, in words."""
    names = [name for name in measured if name.startswith(prefix) and name != f"{prefix}loss"]
    return {name.removeprefix(prefix).replace("_", " "): measured[name] for name in names}


def _told(row: Mapping[str, float], prefix: str) -> str:
    told = {"loss": row[f"{prefix}loss"], **metrics(row, prefix)}
    return " ".join(f"{name} {value:.4f}" for name, value in told.items())
