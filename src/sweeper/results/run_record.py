"""One training run, as the rules for signs see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeper import schema


@dataclass(frozen=True)
class Task:
    """What a run's curves are judged against; it stands in ``result.json`` as ``task``."""

    n_train: int
    n_val: int
    n_classes: int
    multi_label: bool
    train_counts: tuple[int, ...]
    """Images of each class, or with each label."""
    chance_loss: float
    """The validation loss of who knows nothing but how frequent the classes are in train."""
    chance_accuracy: float | None
    """The validation accuracy of who always says train's most frequent class; None for several labels."""


@dataclass(frozen=True)
class RunRecord:
    """A run, as far as it went."""

    run: schema.Run
    history: Sequence[Mapping[str, float]]
    """A row for each epoch, as in ``history.csv``."""
    task: Task
    is_over: bool
    """Whether training has ended; while it goes on, only some signs can be told."""
    again: str
    """The command that trains this run again, to which overrides can be added."""
    dead_units: float | None = None
    """The fraction of units of our own CNN that no validation image activates, after the last epoch."""
    gpu_memory_mb: float | None = None
    """All of the GPU's memory; None on a CPU."""
    micro_batch_size: int | None = None
    """Images that went through the GPU at once, where it had no room for a whole batch."""
    recall: Mapping[str, float | None] = field(default_factory=dict)
    """Of each class on the validation images, after the best epoch; empty while training goes on."""
    was_cut: bool = False
    """Whether training was ended before its time: it was pruned, or something broke."""
