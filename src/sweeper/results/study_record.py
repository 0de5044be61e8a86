"""One study, as those see it who read it: rules for signs, the report, the dashboard's note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optuna.trial import FrozenTrial

from sweeper.record import RunFiles, StudyFiles


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study; the trials are as ``search.study.look`` shows them, dead ones as lost."""

    name: str
    files: StudyFiles
    directions: tuple[str, ...]
    """``minimize`` or ``maximize``, for each objective."""
    metrics: tuple[str, ...]
    """What the objectives are called; ``value`` where the app does not say."""
    trials: Sequence[FrozenTrial]
    command: tuple[str, ...] = ()
    """The words of the command that began it, as they were typed; empty where nobody knows."""
    n_trials: int | None = None
    """The budget."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """What the search wrote of itself: the study's attribute ``sweeper``."""

    read_at: datetime = field(default_factory=datetime.now)
    """Until when its trials have run that still do."""

    def run(self, trial: FrozenTrial) -> RunFiles:
        """The files of a trial; ``is_ours`` says whether it is a training run of ours."""
        return self.files.trial(trial).run
