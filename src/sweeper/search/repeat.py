"""What sets a training of a certificate apart from a trial of a search: its parameters are those of the plan,
and its repeat says which seed and fold. Both are the same for all candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.types import TaskFunction
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.errors import BadInput
from sweeper.results.plan import Candidate, Plan
from sweeper.search.hooks import Hooks
from sweeper.search.parameter import Suggest
from sweeper.search.settings import seed_key
from sweeper.search.space import Draw, Space
from sweeper.search.trial import seed_of

log = logging.getLogger(__name__)


def taken(candidate: Candidate, suggest: Suggest) -> Suggest:
    """Lets the candidate's own parameters be suggested, also where a range has other bounds by now."""
    return partial(_take, candidate.params or {}, suggest)


def repeated(task: TaskFunction, plan: Plan, space: Space, draw: Draw, repeat: int) -> Draw:
    """A draw with what the trainings of this number have in their configs: seed and fold, say."""
    key = None if Hooks.of(task).seeds_by_trial else seed_key(draw.config)
    seed = {} if key is None else {key: seed_in_config(plan, repeat)}
    return space.changed(draw, {**seed, **plan.overrides(repeat)})


def seeded_by(plan: Plan, repeat: int) -> tuple[int, int, int]:
    """What an app's own seed is mixed with, in place of the number of a search's trial.

    A search mixes it with one number; the last one here is not 0, which numpy's SeedSequence would not tell
    from nothing.
    """
    return repeat, plan.seed, 1


def seed_in_config(plan: Plan, repeat: int) -> int:
    """A seed for an app that reads it from its config. Below 2³¹: some libraries take no larger one."""
    return seed_of(plan.seed, repeat, 1) >> 1


def checked(task: TaskFunction, plan: Plan, space: Space, has_own_space: bool) -> Plan:
    """Compose what each candidate will run, before anything is started.

    Args:
        has_own_space: whether a function of the app suggests parameters that ``space`` does not know.

    Returns:
        the plan; without the defaults where the config leaves something open that is always searched.

    Raises:
        BadInput: for a candidate that the command cannot make.
    """
    checks = Hooks.of(task).check or (lambda config: None)
    for candidate in plan.candidates:
        if candidate.params is None:
            try:
                draw = space.defaults()
            except BadInput as error:
                log.warning("There is no baseline: %s", error)
                plan = plan.without_defaults()
                continue
        else:
            params = candidate.params
            draw = space.draw(taken(candidate, partial(_known, params)))
            if not has_own_space and (others := params.keys() - draw.params):
                name, reason = min(others), f"{candidate.name} has it, and this command does not search it"
                raise BadInput(name, params[name], reason, "write the search's own command")
        for repeat in range(max(1, len(plan.by_repeat))):
            checks(repeated(task, plan, space, draw, repeat).config)
    return plan


def _known(params: Mapping[str, Any], name: str, distribution: BaseDistribution) -> Any:
    return params[name]


def _take(params: Mapping[str, Any], suggest: Suggest, name: str, distribution: BaseDistribution) -> Any:
    if name not in params:
        remedy = "certify the search anew, from its own command"
        raise BadInput(name, "not in the plan", "the search has no value for it", remedy)
    return suggest(name, _widened(name, distribution, params[name]))


def _widened(name: str, distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """The distribution, or one like it that has the value, too."""
    match distribution:
        case CategoricalDistribution(choices=choices) if value not in choices:
            raise BadInput(name, value, "is no choice any more", "certify the search anew")
        case FloatDistribution(low=low, high=high, log=is_log) if not distribution._contains(value):
            return FloatDistribution(min(low, value), max(high, value), log=is_log)
        case IntDistribution(low=low, high=high, log=is_log) if not distribution._contains(value):
            return IntDistribution(min(low, value), max(high, value), log=is_log)
    return distribution
