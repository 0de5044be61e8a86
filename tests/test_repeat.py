"""What a training of a certificate takes from the plan."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.errors import BadInput
from sweeper.search import repeat
from sweeper.search.trial import seed_of
from tests.planned import of_trials


def test_seeds_are_none_of_the_search() -> None:
    """Not for any trial's number, also where certificate and search have the same seed."""
    for seed in (0, 1, 7, 2**32 - 1):
        plan = of_trials(seed=seed)
        searched = {seed_of(base, number) for base in (0, 1, seed) for number in range(300)}
        mixed = [seed_of(base, *repeat.seeded_by(plan, n)) for base in (0, 1, seed) for n in range(20)]
        plain = [repeat.seed_in_config(plan, n) for n in range(20)]
        assert not searched & {*mixed, *plain}
        assert len(set(plain)) == 20
        assert max(plain) < 2**31


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (FloatDistribution(0.0, 1.0), 1.5),
        (FloatDistribution(1e-3, 1.0, log=True), 1e-4),
        (FloatDistribution(0.0, 1.0, step=0.5), 0.3),
        (IntDistribution(3, 9, step=2), 4),
        (IntDistribution(3, 9, log=True), 2),
        (CategoricalDistribution(["a", None]), None),
    ],
)
def test_parameters_are_taken_outside_of_new_bounds(distribution: BaseDistribution, value: Any) -> None:
    """A search may have gone on with other ranges: Optuna is given one that has the value."""

    def suggest(name: str, given: BaseDistribution) -> Any:
        assert given._contains(given.to_internal_repr(value))
        return name

    assert repeat.taken(of_trials({"x": value}).candidates[0], suggest)("x", distribution) == "x"


@pytest.mark.parametrize("params", [{"x": "b"}, {"y": "a"}])
def test_parameters_that_cannot_be_taken_are_named(params: dict[str, Any]) -> None:
    """No choice, or not in the plan."""
    take = repeat.taken(of_trials(params).candidates[0], lambda name, given: params[name])
    with pytest.raises(BadInput, match="x"):
        take("x", CategoricalDistribution(["a"]))
