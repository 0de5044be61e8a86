"""What is searched: the settings of a sweep, checked, which every worker is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from sweeper import origin
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import Plan
from sweeper.search.storage import WAIT_S
from sweeper.search.travel import travels


@dataclass(frozen=True)
class Search:
    """The settings of a sweep, checked; what every worker is given."""

    study_name: str
    storage: str
    folder: Path
    """Of the study, absolute."""
    directions: tuple[str, ...]
    metrics: tuple[str, ...] | None
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    seed: int | None
    n_trials: int | None
    deadline: float | None
    """Seconds since the epoch after which no new trial starts."""
    max_retries: int
    max_failure_rate: float
    custom_search_space: str | None
    metrics_key: str = "hydra.sweeper.metric_names"
    """Where the app names the metrics."""
    is_unnamed: bool = False
    """Whether nobody wrote the name: then it is never that of another study."""
    take_over: bool = False
    """Whether trials that another host may still run are taken for lost when the study is opened."""
    storage_wait_s: float = WAIT_S
    """How long the storage's server is tried again while it cannot be reached."""
    command: tuple[str, ...] = ()
    """The words of the command, without secrets: what the next commands are made of."""
    named_by: str = "hydra.sweeper.study_name"
    """The key that names the study."""
    stored_by: str = "hydra.sweeper.storage"
    """The key that names the storage."""
    folder_by: str = "name"
    """What names the study's folder: its ``name``, the ``time``, or ``nobody``."""
    plan: Plan | None = None
    """Whom to train again, where this is a certificate and no search."""
    is_joined: bool = False
    """Whether it takes part in a study that exists, and begins none."""
    heartbeat_s: float = 30.0
    """How often a pool tells the storage that its workers live."""
    grace_s: float = 120.0
    """How long a pool of another machine may be silent before its trials are repeated."""
    artifacts: str | None = None
    """The folder, absolute, or ``s3://bucket/prefix``, where the weights of the best trials go."""
    pool: str = ""
    """The name of the pool whose workers run it, as the study knows it."""

    @property
    def travels(self) -> bool:
        """Whether others may read the study who do not see its folder."""
        return travels(self.storage, self.folder, self.artifacts)

    def of_plan(self, plan: Plan) -> Search:
        """The certificate in place of the search: nothing is sampled, and the budget is the plan's."""
        sampler = {"_target_": "optuna.samplers.RandomSampler"}  # takes no part
        return replace(self, plan=plan, sampler=sampler, n_trials=plan.n_trainings, deadline=None)

    def with_its_artifacts(self, storage: BaseStorage) -> Search:
        """With the artifact store that the study was begun with, where none is named now."""
        if self.artifacts is not None:
            return self
        return replace(self, artifacts=origin.of(storage, self.study_name).get("artifacts"))

    def in_its_folder(self, storage: BaseStorage) -> Search:
        """In the folder where the study was begun, also if the app's folders are named by the time."""
        if StudyFiles(self.folder).is_ours:
            return self
        folder = origin.folder(origin.of(storage, self.study_name))
        moved = self if folder is None else replace(self, folder=folder)
        plan = Plan.read(StudyFiles(moved.folder))
        return moved if plan is None else moved.of_plan(plan)
