"""One study, opened or resumed: its sampler and pruner, its budget, and the trials of the dead."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import BadInput
from sweeper.results import record
from sweeper.search.lock import LifeSign, is_alive, locked
from sweeper.search.space import Parameter, Space
from sweeper.search.trial import seed_of

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states that the budget counts."""

ALLOWED_TARGETS = ("optuna.", "sweeper.")
"""What ``_target_`` may name; the person running the sweep adds prefixes in ``SWEEPER_ALLOW``."""


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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held around every decision about the budget, so that the workers of a machine decide one by one."""
        with locked(record.study_lock(self.folder)):
            yield

    @property
    def queue(self) -> RetryQueue:
        return RetryQueue(self.folder, self.max_retries)

    def is_grid(self) -> bool:
        return bool(self.sampler["_target_"] == "optuna.samplers.GridSampler")


class Worker:
    """A process that runs trials: its name, and the sign of life that others see."""

    def __init__(self, search: Search) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._life_sign = LifeSign(record.life_folder(search.folder), self.name)

    def end(self) -> None:
        self._life_sign.end()


# --- opening ------------------------------------------------------------------------------------------------


def open_study(search: Search, storage: BaseStorage, space: Space, fixed: Sequence[str]) -> optuna.Study:
    """Create the study, or go on with it where it exists.

    Raises:
        BadInput: if it was begun with another direction, metric or other choices.
    """
    begun = {
        "folder": str(search.folder),
        "directions": list(search.directions),
        "metrics": list(search.metrics or ()),
        "space": {name: distribution_to_json(p.distribution) for name, p in space.parameters().items()},
        "fixed": list(fixed),
        "max_retries": search.max_retries,
    }
    with search.lock():
        names = [study.study_name for study in storage.get_all_studies()]
        if search.study_name in names:
            study = load_study(search, storage)
            _check_same(search, study, begun)
            search.queue.reap(study)
        else:
            study = optuna.create_study(
                study_name=search.study_name,
                storage=storage,
                directions=[StudyDirection[name.upper()] for name in search.directions],
            )
            if search.metrics:
                with warnings.catch_warnings():  # metric names are still called experimental
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(list(search.metrics))
        study.set_user_attr("sweeper", begun)
        record.write_storage(search.folder, search.storage)
        record.write_results(study, search.folder)
    return study


def in_its_folder(search: Search, storage: BaseStorage) -> Search:
    """The search in the folder where the study was begun, also if the app's folders are named by the time."""
    for study in storage.get_all_studies():
        if study.study_name == search.study_name and not record.life_folder(search.folder).exists():
            begun = Path(study.user_attrs.get("sweeper", {}).get("folder", search.folder))
            return replace(search, folder=begun) if begun.is_dir() else search
    return search


def load_study(search: Search, storage: BaseStorage) -> optuna.Study:
    """The study with its own pruner; without one, Optuna would prune by the median."""
    return optuna.load_study(
        study_name=search.study_name,
        storage=storage,
        sampler=RandomSampler(),  # takes no part: each trial gets its own in `ask`
        pruner=build_pruner(search.pruner),
    )


def _check_same(search: Search, study: optuna.Study, now: dict[str, Any]) -> None:
    directions = [direction.name.lower() for direction in study.directions]
    before = study.user_attrs.get("sweeper", {})
    remedy = f"write it as before, or begin another study than {search.study_name}"
    if directions != now["directions"]:
        was = f"the study was begun with {', '.join(directions)}"
        raise BadInput("hydra.sweeper.direction", ", ".join(now["directions"]), was, remedy)
    if before.get("metrics") and before["metrics"] != now["metrics"]:
        was = f"the study was begun with {', '.join(before['metrics'])}"
        raise BadInput("objective", ", ".join(now["metrics"]), was, remedy)
    space = before.get("space", now["space"])
    for name in {**space, **now["space"]}:
        _check_same_range(name, space.get(name), now["space"].get(name), remedy)
    if before.get("fixed", now["fixed"]) != now["fixed"]:
        log.warning(
            "%s goes on with other values: %s, before: %s", study.study_name, now["fixed"], before["fixed"]
        )


def _check_same_range(name: str, before: str | None, now: str | None, remedy: str) -> None:
    if before is None:
        raise BadInput(name, _show(now), "the study was begun without searching it", remedy)
    if now is None:
        raise BadInput(name, "not searched", f"the study was begun with {_show(before)}", remedy)
    if before == now:
        return
    a, b = json_to_distribution(before), json_to_distribution(now)
    if (
        type(a) is not type(b)
        or isinstance(a, CategoricalDistribution)
        or getattr(a, "log", 0) != getattr(b, "log", 0)
    ):
        raise BadInput(name, _show(now), f"the study was begun with {_show(before)}", remedy)
    log.warning("%s: the bounds are now %s, before: %s", name, _show(now), _show(before))


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


# --- asking and telling -------------------------------------------------------------------------------------


def ask(search: Search, study: optuna.Study, space: Space, worker: Worker) -> optuna.Trial | None:
    """The next trial to run, or None when the budget is spent, taken or out of time."""
    with search.lock():
        trials = study.get_trials(deepcopy=False)
        if not has_room(search, trials):
            return None
        if search.is_grid() and not _queue_next_point(study, space, trials):
            return None
        queued = [t.number for t in trials if t.state == TrialState.WAITING]
        study.sampler = build_sampler(search, space, number=min(queued, default=len(trials)))
        trial = study.ask()
        trial.set_user_attr("worker", worker.name)
        return trial


def has_room(search: Search, trials: Sequence[FrozenTrial]) -> bool:
    """Whether another trial may begin: counting those that run, n_trials would not be passed."""
    n_taken = sum(t.state in (*FINISHED, TrialState.RUNNING) for t in trials)
    return search.n_trials is None or n_taken < search.n_trials


def is_over(search: Search, study: optuna.Study) -> bool:
    """Whether no trial should begin any more: out of time, or too many failed."""
    if search.deadline is not None and time.time() >= search.deadline:
        return True
    return has_failed(search, study.get_trials(deepcopy=False))


def failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count against max_failure_rate.

    Not those that somebody interrupted or that died with the whole sweep: it is not known that they would
    fail. Nor those whose parameters are tried again: the last try counts.
    """
    tried_again = {t.user_attrs.get("retry_of") for t in trials}
    return [
        t
        for t in trials
        if t.state == TrialState.FAIL
        and t.number not in tried_again
        and not (t.user_attrs.get("interrupted") or t.user_attrs.get("lost"))
    ]


def has_failed(search: Search, trials: Sequence[FrozenTrial]) -> bool:
    """Whether more trials failed than ``max_failure_rate`` of the whole study admits."""
    n_failed = len(failed(trials))
    if search.n_trials is None:
        return n_failed > search.max_failure_rate * max(10, len(trials))
    return n_failed > search.max_failure_rate * search.n_trials


def tell(
    search: Search,
    study: optuna.Study,
    number: int,
    state: TrialState,
    values: list[float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """End a trial and bring the files of the study up to date."""
    for name, value in (attributes or {}).items():
        _set_attribute(study, number, name, value)
    with search.lock():
        study.tell(number, values, state=state)
        record.write_results(study, search.folder, ended=number)


def tell_interrupted(search: Search, study: optuna.Study, number: int, reason: str) -> None:
    """End a trial that was asked to stop, and queue its parameters for whoever goes on."""
    with search.lock():
        _set_attribute(study, number, "interrupted", True)
        search.queue.fail_and_queue(study, study.get_trials(deepcopy=False)[number], reason, is_retry=False)


@dataclass(frozen=True)
class RetryQueue:
    """What happens to the trials of the dead in one study, whose lock must be held."""

    folder: Path
    max_retries: int

    def reap(
        self, study: optuna.Study, reasons: Mapping[str, str] | None = None, spared: Collection[str] = ()
    ) -> list[int]:
        """Fail the trials whose process is gone, and queue their parameters again.

        Args:
            reasons: why a worker died, by its name, where somebody knows.
            spared: workers whose pool will say it when they die.

        Returns:
            the numbers of the trials.
        """
        reaped = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            # Without a name it was being asked for, under this lock, by a process that no longer holds it.
            if worker in spared or (worker is not None and is_alive(record.life_folder(self.folder), worker)):
                continue
            reason = (reasons or {}).get(worker or "")
            if reason is None:
                reason = "its process is gone (killed, or the machine went down)"
                _set_attribute(study, trial.number, "lost", True)
            self.fail_and_queue(study, trial, reason, is_retry=True)
            reaped.append(trial.number)
        return reaped

    def fail_and_queue(self, study: optuna.Study, trial: FrozenTrial, reason: str, is_retry: bool) -> None:
        """Queue first, then fail: killed in between, the next one finds it RUNNING and its queued copy."""
        n_retries = trial.user_attrs.get("n_retries", 0) + is_retry
        copies = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("retry_of") == trial.number]
        # A trial that was itself queued may have died before it drew all of its parameters.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if n_retries <= self.max_retries and params and not copies:
            study.enqueue_trial(params, user_attrs={"retry_of": trial.number, "n_retries": n_retries})
        _set_attribute(study, trial.number, "reason", reason)
        study.tell(trial.number, state=TrialState.FAIL)


def reap_all(storage: BaseStorage) -> None:
    """Let no trial of a dead process look as if it were running, in any study of this program."""
    for summary in storage.get_all_studies():
        begun = summary.user_attrs.get("sweeper")
        if begun is None or not Path(begun["folder"]).is_dir():
            continue
        study = optuna.load_study(study_name=summary.study_name, storage=storage, sampler=RandomSampler())
        folder = Path(begun["folder"])
        with locked(record.study_lock(folder)):
            if RetryQueue(folder, begun["max_retries"]).reap(study):
                record.write_results(study, folder)


def _set_attribute(study: optuna.Study, number: int, name: str, value: Any) -> None:
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_user_attr(trial_id, name, value)


def _queue_next_point(study: optuna.Study, space: Space, trials: Sequence[FrozenTrial]) -> bool:
    """Queue the first point of the grid that no trial has, or had; False when there is none left."""
    if any(t.state == TrialState.WAITING for t in trials):
        return True
    # A trial that was just asked for has its point as fixed_params before it has drawn it.
    taken = {
        _point_key(t.system_attrs.get("fixed_params", t.params))
        for t in trials
        if not t.user_attrs.get("interrupted")
    }
    for point in space.points():
        if _point_key(point) not in taken:
            study.enqueue_trial(point)
            return True
    return False


def _point_key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


# --- samplers and pruners -----------------------------------------------------------------------------------


def build_sampler(search: Search, space: Space, number: int) -> BaseSampler:
    """The sampler of one trial. Seed and number decide what it draws, whichever worker asks."""
    arguments = {name: value for name, value in search.sampler.items() if name != "_target_"}
    seed = arguments.pop("seed", search.seed)
    if seed is not None and not (isinstance(seed, int) and seed >= 0):
        raise BadInput(
            "hydra.sweeper.seed", seed, "is no seed", "write 0, another whole number above it, or null"
        )
    target = search.sampler["_target_"]
    if target == "optuna.samplers.GridSampler":
        return RandomSampler(seed=number)  # takes no part: the points are queued
    if target == "optuna.samplers.QMCSampler":
        return QuasiRandomSampler(space.parameters(), number, seed=seed or 0, **arguments)
    if seed is not None:
        arguments["seed"] = seed_of(seed, number)
    sampler: BaseSampler = build("hydra.sweeper.sampler", target, arguments, BaseSampler)
    return sampler


class QuasiRandomSampler(BaseSampler):
    """A Sobol or Halton sequence in which the trial's number is the index of its point.

    Optuna's own counts points in the storage as they are asked for and knows only the parameters of its
    first trial. Here every parameter that some trial may have is a dimension, so that conditional ranges
    are covered as evenly as the others, and any number of workers draw the same points.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        number: int,
        seed: int,
        qmc_type: str = "sobol",
        scramble: bool = False,
    ) -> None:
        from scipy.stats import qmc

        engines = {"sobol": qmc.Sobol, "halton": qmc.Halton}
        if qmc_type not in engines:
            raise BadInput(
                "hydra.sweeper.sampler.qmc_type",
                qmc_type,
                "there is no such sequence",
                "write sobol or halton",
            )
        self._others = RandomSampler(seed=seed_of(seed, number))
        self._names = sorted(parameters)
        engine = engines[qmc_type](max(1, len(self._names)), scramble=scramble, rng=seed)
        if number:
            engine.fast_forward(number)
        self._point = engine.random(1)[0]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name not in self._names:  # custom_search_space has suggested it
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        return at(param_distribution, float(self._point[self._names.index(param_name)]))


def at(distribution: BaseDistribution, fraction: float) -> Any:
    """The value at a fraction (0 ≤ fraction < 1) of a distribution."""
    import numpy as np

    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[int(fraction * len(choices))]
        case IntDistribution(low=low, high=high, step=step, log=False):
            return low + step * int(fraction * ((high - low) // step + 1))
        case IntDistribution(low=low, high=high):
            # Each integer has the width that it has under the logarithm.
            value = np.exp(np.log(low - 0.5) + fraction * (np.log(high + 0.5) - np.log(low - 0.5)))
            return int(min(max(round(float(value)), low), high))
        case FloatDistribution(low=low, high=high, log=True):
            return float(min(max(np.exp(np.log(low) + fraction * (np.log(high) - np.log(low))), low), high))
        case FloatDistribution(low=low, high=high, step=None):
            return low + fraction * (high - low)
        case FloatDistribution(low=low, high=high, step=float(step)):
            return min(low + step * int(fraction * (round((high - low) / step) + 1)), high)
    raise TypeError(distribution)


def build_pruner(settings: Mapping[str, Any]) -> BasePruner:
    """Raises BadInput for a pruner or an argument that does not exist."""
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    if isinstance(arguments.get("wrapped_pruner"), Mapping):
        arguments["wrapped_pruner"] = build_pruner(arguments["wrapped_pruner"])
    pruner: BasePruner = build("hydra.sweeper.pruner", settings["_target_"], arguments, BasePruner)
    return pruner


def build(key: str, target: str, arguments: Mapping[str, Any], kind: type) -> Any:
    """Make an object of the class that ``target`` names, if it is on the allow-list.

    Raises:
        BadInput: if it is not, does not exist, is of another kind, or does not take the arguments.
    """
    cls = resolve(f"{key}._target_", target)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_", target, f"is no {kind.__name__}", "name a class that is one")
    try:
        signature = inspect.signature(cls)
        signature.bind(**arguments)
        for name, parameter in signature.parameters.items():
            if isinstance(parameter.default, int | float) and isinstance(arguments.get(name), str):
                raise TypeError(f"{name} is no text")  # Optuna would notice in the middle of the search
        with warnings.catch_warnings():  # the person chose it by name
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return cls(**arguments)
    except (TypeError, ValueError) as error:
        known = ", ".join(inspect.signature(cls).parameters) or "no arguments"
        raise BadInput(key, dict(arguments), str(error), f"{target} takes {known}") from error


def resolve(key: str, target: str) -> Any:
    """The object that a dotted path names, if it is on the allow-list."""
    allowed = (*ALLOWED_TARGETS, *(f"{name.rstrip('.')}." for name in os.environ.get("SWEEPER_ALLOW", "").split(",") if name))
    if not target.startswith(allowed):
        raise BadInput(
            key,
            target,
            f"only names under {', '.join(allowed)} are allowed",
            f"set SWEEPER_ALLOW={target.partition('.')[0]}. in the environment if you trust it",
        )
    return find(key, target)


def find(key: str, path: str) -> Any:
    """The object that a dotted path names, wherever it is.

    Raises:
        BadInput: if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(key, path, f"cannot be found ({error})", "write the full path, module.name") from error
