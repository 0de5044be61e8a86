"""Can the importance be believed? Studies of known importance, weighed by ours and by Optuna's evaluators.

    python benchmarks/importance.py                  # 100 studies of each kind: minutes
    python benchmarks/importance.py --n-studies 10   # a look

Six parameters as a search of the digits has them. The score is noise, or depends on the learning rate alone
(too small and too large are bad: smoothly, with edges, or outside a narrow peak; or all below an edge is), or
is a sum of three effects and noise. The true share of a parameter is what it explains by itself of the
variance of the ranks of 20,000 random trials. Idle is one whose share is zero.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from sweeper.record.study_files import StudyFiles
from sweeper.results.importance import importances
from sweeper.results.study_record import StudyRecord

SPACE: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
    "optimizer.weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "model.dropout": FloatDistribution(0.0, 0.6),
    "training.batch_size": CategoricalDistribution([16, 32, 64, 128]),
    "optimizer": CategoricalDistribution(["sgd", "adam", "rmsprop"]),
    "model.filters": CategoricalDistribution(["[6,16]", "[16,32]", "[16,32,64]"]),
}
N_RIVALS = 20
"""Studies that Optuna's evaluators weigh: fANOVA takes its time."""
MOST_FOR_RIVALS = 100
"""Trials of such a study."""
DRAWN = {"random": (7, 20, 40, 100, 300), "TPE": (40, 100)}
"""Trials of a study, by sampler."""

Point = Mapping[str, Any]
Score = Callable[[Point, np.random.Generator], float]


def draw(rng: np.random.Generator, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A point of a space: each parameter by itself, and uniform in its range."""
    point = dict[str, Any]()
    for name, distribution in space.items():
        match distribution:
            case CategoricalDistribution(choices=choices):
                point[name] = choices[rng.integers(len(choices))]
            case FloatDistribution(low=low, high=high, log=True):
                point[name] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            case FloatDistribution(low=low, high=high):
                point[name] = float(rng.uniform(low, high))
            case IntDistribution(low=low, high=high):
                point[name] = int(rng.integers(low, high + 1))
    return point


def rate(point: Point) -> float:
    """The place of the learning rate in its range, from 0 to 1."""
    return math.log10(point["optimizer.lr"]) / 2 + 2


def noise(point: Point, rng: np.random.Generator) -> float:
    return float(rng.normal())


def hump(point: Point, rng: np.random.Generator) -> float:
    return float(-9 * (rate(point) - 0.7) ** 2 + 0.3 * rng.normal())


def additive(point: Point, rng: np.random.Generator) -> float:
    size = 0.45 * (math.log2(point["training.batch_size"]) - 5.5)
    adam = 0.8 * (point["optimizer"] == "adam")
    return float(3.4 * (rate(point) - 0.5) + adam + size + 0.5 * rng.normal())


def cliff(point: Point, rng: np.random.Generator) -> float:
    """Good in a part of the range, with an edge on both sides."""
    return float((0.4 < rate(point) < 0.7) + 0.3 * rng.normal())


def peak(point: Point, rng: np.random.Generator) -> float:
    """Good in a narrow part of the range."""
    return float(math.exp(-(((rate(point) - 0.5) / 0.08) ** 2) / 2) + 0.1 * rng.normal())


def step(point: Point, rng: np.random.Generator) -> float:
    """Good at one end of the range, from an edge on."""
    return float((rate(point) > 0.8) + 0.3 * rng.normal())


def search(score: Score, n_trials: int, sampler: BaseSampler, seed: int) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rng = np.random.default_rng(seed)
    for _ in range(n_trials):
        trial = study.ask(SPACE)
        study.tell(trial, score(trial.params, rng))
    return study


@cache
def true_shares(score: Score, n: int = 20_000) -> dict[str, float]:
    """How much of the variance of the ranks each parameter explains by itself."""
    rng = np.random.default_rng(99)
    points = [draw(rng, SPACE) for _ in range(n)]
    ranks = np.argsort(np.argsort([score(point, rng) for point in points])).astype(float)
    found = {}
    for name, distribution in SPACE.items():
        values = [point[name] for point in points]
        is_float = isinstance(distribution, FloatDistribution)
        ordered = np.argsort(np.argsort(values)) * 50 // n
        places = ordered if is_float else np.unique(values, return_inverse=True)[1]
        n_at = np.bincount(places)
        means = np.bincount(places, ranks) / n_at
        within = float(((ranks - means[places]) ** 2).sum()) / (n - len(n_at))
        found[name] = max(0.0, 1 - within / float(ranks.var(ddof=1)))
    return found


def ours(study: optuna.Study) -> StudyRecord:
    return StudyRecord("s", StudyFiles(Path("s")), ("maximize",), ("score",), study.trials)


def top_is_idle(study: optuna.Study, evaluator: Any, idle: set[str]) -> bool:
    """Whether a parameter without effect comes first."""
    found = get_param_importances(study, evaluator=evaluator)
    return next(iter(found)) in idle


def weigh(score: Score, n_trials: int, sampler: str, n_studies: int) -> None:
    truth = true_shares(score)
    idle = {name for name, share in truth.items() if share < 0.005}
    called, held, found_lr, seconds = list[bool](), list[bool](), list[bool](), list[float]()
    first = {"PED-ANOVA": list[bool](), "fANOVA": list[bool]()}
    for seed in range(n_studies):
        drawn = TPESampler(seed=seed) if sampler == "TPE" else RandomSampler(seed=seed)
        study = search(score, n_trials, drawn, seed)
        begin = time.process_time()
        weighed = {one.name: one for one in importances(ours(study))}
        seconds.append(time.process_time() - begin)
        called += [weighed[name].matters for name in idle]
        # TPE gathers where it is good: the share of what it drew is another than that of the whole range.
        held += [
            weighed[name].low <= share <= weighed[name].high
            for name, share in truth.items()
            if share > 0.02 and sampler == "random"
        ]
        found_lr.append(weighed["optimizer.lr"].matters)
        if seed < N_RIVALS and score is not noise and n_trials <= MOST_FOR_RIVALS:
            first["PED-ANOVA"].append(top_is_idle(study, PedAnovaImportanceEvaluator(), idle))
            first["fANOVA"].append(top_is_idle(study, FanovaImportanceEvaluator(seed=seed), idle))
    is_noise = score is noise
    print(
        f"| {score.__name__} | {sampler} | {n_trials} | {np.mean(called):.1%} | "
        f"{f'{np.mean(held):.0%}' if held else '–'} | {'–' if is_noise else f'{np.mean(found_lr):.0%}'} | "
        + " | ".join(_first(wrong, is_noise) for wrong in first.values())
        + f" | {np.median(seconds):.2f} s |",
        flush=True,
    )


def _first(wrong: list[bool], is_noise: bool) -> str:
    return "always" if is_noise else f"{np.mean(wrong):.0%}" if wrong else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-studies", type=int, default=100)
    parser.add_argument("--only", help="one score, as cliff")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    print(
        "| score | drawn | trials | idle called important | true share held | lr found | "
        "idle first: PED-ANOVA | fANOVA | CPU |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    for score in (noise, hump, additive, cliff, peak, step):
        if asked.only not in (None, score.__name__):
            continue
        for sampler, sizes in DRAWN.items():
            for n_trials in sizes:
                weigh(score, n_trials, sampler, asked.n_studies)


if __name__ == "__main__":
    main()
