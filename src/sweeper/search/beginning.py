"""What a study is begun with, and what must be the same when it goes on."""

from __future__ import annotations

import json
import logging
import socket
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from sweeper import origin, outcome
from sweeper.errors import BadInput
from sweeper.record.mark import FORMAT, check_format
from sweeper.search import life
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.storage import check_many_machines
from sweeper.secret import hide_secrets

log = logging.getLogger(__name__)


def as_begun(search: Search, space: Space, fixed: Sequence[str]) -> dict[str, Any]:
    """What a study remembers of how it was begun; see ``origin``."""
    return {
        "format": FORMAT,
        "folder": str(search.folder),
        "directions": list(search.directions),
        "metrics": list(search.metrics or ()),
        "space": {name: distribution_to_json(p.distribution) for name, p in space.parameters().items()},
        "fixed": list(fixed),
        "max_retries": search.max_retries,
        "n_trials": search.n_trials,
        "sampler": search.sampler.get("_target_"),
        "command": list(search.command),
        "named_by": search.named_by,
        "stored_by": search.stored_by,
        "folder_by": search.folder_by,
        "id": uuid.uuid4().hex,
        "artifacts": search.artifacts,
        "travels": search.travels,
    }


def create(search: Search, storage: BaseStorage) -> None:
    study = optuna.create_study(
        study_name=search.study_name,
        storage=storage,
        directions=[StudyDirection[name.upper()] for name in search.directions],
    )
    if search.metrics:
        with warnings.catch_warnings():  # metric names are still called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(search.metrics))


def with_its_budget(search: Search, storage: BaseStorage) -> Search:
    """The search with the budget that the study has: all who take part must mean the same."""
    begun = origin.of(storage, search.study_name)
    joined = replace(
        search,
        n_trials=begun.get("n_trials", search.n_trials) if search.plan is None else search.n_trials,
        max_retries=begun.get("max_retries", search.max_retries),
    )
    if joined.n_trials != search.n_trials:
        log.warning("hydra.sweeper.n_trials is %s, as the study has it.", joined.n_trials)
    return joined


def nothing_to_join(search: Search) -> BadInput:
    reason = f"there is no such study in {search.storage}"
    remedy = "begin it without hydra.sweeper.join=true, or name the storage in which it is"
    return BadInput(search.named_by, search.study_name, hide_secrets(reason), remedy)


def check_hosts(search: Search, study: optuna.Study) -> None:
    """Raises BadInput where another host works on a study in a storage that is for one."""
    pools = life.read(study._storage, study._study_id).open.values()
    if not search.take_over and any(pool.host != socket.gethostname() for pool in pools):
        check_many_machines(search.storage)


def check_same(search: Search, study: optuna.Study, now: dict[str, Any]) -> None:
    directions = outcome.directions(study)
    # Plain Optuna, or the official sweeper, may have begun it.
    before = origin.read(study._storage, study._study_id) or now
    check_format("study", search.study_name, before)
    remedy = f"write it as before, or start another study than {search.study_name}"
    before = {**now, **before}  # of damaged entries nothing is known
    before["fixed"] = list(map(hide_secrets, before["fixed"]))  # an earlier version kept passwords
    if before["metrics"] and before["metrics"] != now["metrics"]:
        was = f"the study was started with {', '.join(before['metrics'])}"
        raise BadInput(search.metrics_key, ", ".join(now["metrics"]), was, remedy)
    if directions != now["directions"]:
        was = f"the study was started with {', '.join(directions)}"
        raise BadInput("hydra.sweeper.direction", ", ".join(now["directions"]), was, remedy)
    space = before["space"]
    ranges = {name: (space.get(name), now["space"].get(name)) for name in {**space, **now["space"]}}
    for name, (a, b) in ranges.items():
        _check_same_range(name, a, b, remedy)
    for name, (a, b) in ranges.items():
        if a != b:
            log.warning("%s: the bounds are now %s, before: %s", name, _show(b), _show(a))
    if before["fixed"] != now["fixed"]:
        values = (" ".join(fixed["fixed"]) or "none" for fixed in (now, before))
        log.warning("%s goes on with other values: %s; before: %s", study.study_name, *values)


def _check_same_range(name: str, before: str | None, now: str | None, remedy: str) -> None:
    if before is None:
        raise BadInput(name, _show(now), "the study was started without searching it", remedy)
    if now is None:
        raise BadInput(name, "not searched", f"the study was started with {_show(before)}", remedy)
    if before == now:
        return
    a, b = json_to_distribution(before), json_to_distribution(now)
    if (
        type(a) is not type(b)
        or isinstance(a, CategoricalDistribution)
        or getattr(a, "log", 0) != getattr(b, "log", 0)
    ):
        raise BadInput(name, _show(now), f"the study was started with {_show(before)}", remedy)


def _show(distribution_json: str | None) -> str:
    """A distribution as one writes it."""
    assert distribution_json is not None
    match json_to_distribution(distribution_json):
        case CategoricalDistribution(choices=choices):
            return f"choice({', '.join(json.dumps(c) if not isinstance(c, str) else c for c in choices)})"
        case FloatDistribution(low=low, high=high, log=log, step=step):
            text = f"interval({low}, {high})" if step is None else f"range({low} … {high}, step={step})"
            return f"tag(log, {text})" if log else text
        case IntDistribution(low=low, high=high, log=log, step=step):
            text = f"range({low} … {high}, step={step})"
            return f"tag(log, {text})" if log else text
        case other:
            return str(other)
