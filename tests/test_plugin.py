"""``hydra/sweeper: sweeper_optuna`` as Hydra composes it: the samplers, the pruners and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from omegaconf import DictConfig

from sweeper.search.space import Space

pytestmark = pytest.mark.hydra

MakeSpace = Callable[..., Space]

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "grid": "GridSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
}

PRUNERS = {
    "hyperband": "HyperbandPruner",
    "asha": "SuccessiveHalvingPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
    "none": "NopPruner",
}


def composed(make_space: MakeSpace, *overrides: str, **content: Any) -> DictConfig:
    """``hydra.sweeper`` of an app that has chosen the sweeper."""
    space = make_space({"config": {"x": 0, **content}}, *overrides)
    settings = space.draw(lambda name, distribution: 0).config.hydra.sweeper
    assert isinstance(settings, DictConfig)
    return settings


@pytest.mark.parametrize(("name", "cls"), SAMPLERS.items())
def test_a_sampler_is_an_option(make_space: MakeSpace, name: str, cls: str) -> None:
    """Each sampler that is promised is composed by its name, and is a class of Optuna's."""
    assert composed(make_space, f"hydra/sweeper/sampler={name}").sampler._target_ == f"optuna.samplers.{cls}"
    assert hasattr(optuna.samplers, cls)


@pytest.mark.parametrize(("name", "cls"), PRUNERS.items())
def test_a_pruner_is_an_option(make_space: MakeSpace, name: str, cls: str) -> None:
    """Each pruner that is promised is composed by its name, and is a class of Optuna's."""
    assert composed(make_space, f"hydra/sweeper/pruner={name}").pruner._target_ == f"optuna.pruners.{cls}"
    assert hasattr(optuna.pruners, cls)


def test_what_an_app_gets_that_sets_nothing(make_space: MakeSpace) -> None:
    """TPE and Hyperband, 20 trials that are minimised, and a worker for each GPU or core."""
    settings = composed(make_space)
    assert settings.sampler._target_ == "optuna.samplers.TPESampler"
    assert settings.pruner._target_ == "auto"
    assert (settings.n_trials, settings.direction, settings.n_jobs) == (20, "minimize", "auto")
