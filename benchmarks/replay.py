"""Replays of searches and certificates from the tables of ``believe.py``: whether a race keeps its promises.

    python benchmarks/believe.py --replay TABLES                    # 1,000 searches in each space, 3 minutes
    python benchmarks/believe.py --replay TABLES --seeds odd        # from the trainings with odd seeds alone

A search draws one training of each configuration and ranks them. Its certificate races the five best and the
defaults (configuration 0) with ``results/race.py``, and draws trainings of the table **with replacement**: so
the table's mean is exactly the mean of fresh trainings, and what differs there truly differs. A configuration
counts as *clearly* worse where its mean is more than two standard errors of the table below, of which one
could say it after some forty trainings, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sweeper.results.race import ALPHA, MAXIMIZE, PRIOR_DF, WORSE, Race, Training, next_candidate

LEVELS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03)
"""Of a comparison of a fixed plan."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The trainings of one space, those that diverged as NaN: (configurations, seeds)."""

    space: str
    scores: Floats
    losses: Floats
    seconds: Floats
    resolution: float

    @property
    def means(self) -> Floats:
        return np.asarray(self.scores.mean(1))

    @property
    def errors(self) -> Floats:
        """Standard errors of the means."""
        return np.asarray(self.scores.std(1, ddof=1) / np.sqrt(self.scores.shape[1]))

    def clearly_below(self, one: int, other: int) -> bool:
        return bool(self.means[other] - self.means[one] > 2 * np.hypot(self.errors[one], self.errors[other]))


def read(folder: Path, of_seed: Callable[[int], bool]) -> Table:
    """Of the seeds that all configurations have."""
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    n = max(row["configuration"] for row in rows) + 1
    counted = Counter(row["seed"] for row in rows)
    seeds = sorted(seed for seed, count in counted.items() if count == n and of_seed(seed))
    found = {name: np.full((n, len(seeds)), np.nan) for name in ("val_accuracy", "val_loss", "seconds")}
    for row in rows:
        if row["seed"] in seeds and not row["diverged"]:
            for name, array in found.items():
                array[row["configuration"], seeds.index(row["seed"])] = row[name]
    n_pictures = len(np.load(next(folder.glob("*.npz")))["labels"])
    return Table(folder.name, found["val_accuracy"], found["val_loss"], found["seconds"], 1 / n_pictures)


# ----------------------------------------------------------------------------------------------- one of each


def search(table: Table, rng: np.random.Generator) -> list[int]:
    """The configurations, best first, by one training of each: by its score, then by its loss."""
    n, n_seeds = table.scores.shape
    drawn = (np.arange(n), rng.integers(n_seeds, size=n))
    ranked: list[int] = np.lexsort((table.losses[drawn], -table.scores[drawn])).tolist()
    return ranked


def raced(ranked: Sequence[int], top: int) -> list[int]:
    """The best ones and the defaults."""
    return [*[one for one in ranked if one != 0][:top], 0]


def certify(table: Table, configurations: Sequence[int], n_seeds: int, rng: np.random.Generator) -> Race:
    """The whole race, one training after the other; candidate i is the i-th of the configurations."""
    names = tuple(str(i) for i in range(len(configurations)))
    budget = n_seeds * len(names)
    trainings: list[Training] = []
    while one := next_candidate(names, trainings, Counter(), budget, MAXIMIZE):
        drawn = rng.integers(table.scores.shape[1])
        trainings.append(Training(one, float(table.scores[configurations[int(one)], drawn])))
    return Race(names, tuple(trainings), MAXIMIZE, names[-1])


# ----------------------------------------------------------------------------------------------- what is told


@dataclass
class Tally:
    """Sums over the replays of a space."""

    replays: int = 0
    trainings: int = 0
    intervals: int = 0
    covered: int = 0
    covered_chosen: int = 0
    covered_leader: int = 0
    best_out: int = 0
    doubles_differ: int = 0
    doubles_parted: int = 0
    pairs: int = 0
    pairs_differ: int = 0
    worse: int = 0
    found: int = 0
    before: int = 0
    before_clearly: int = 0
    after: int = 0
    after_clearly: int = 0
    over_winner: float = 0.0
    over_defaults: float = 0.0
    wide: float = 0.0

    def share(self, name: str, of: str = "replays") -> float:
        return float(getattr(self, name)) / max(int(getattr(self, of)), 1)


def replay(
    table: Table, n: int, top: int, n_seeds: int, rng: np.random.Generator
) -> tuple[Tally, list[list[int]]]:
    """A tally, and the configurations of each race."""
    tally, races = Tally(), []
    for _ in range(n):
        ranked = search(table, rng)
        configurations = raced(ranked, top)
        races.append(configurations)
        _count(tally, table, ranked[0], configurations, certify(table, configurations, n_seeds, rng))
        _count_doubles(tally, table, configurations, n_seeds, rng)
    return tally, races


def _count(tally: Tally, table: Table, winner: int, configurations: Sequence[int], race: Race) -> None:
    means = table.means[list(configurations)]
    best = int(np.argmax(means))
    called = set(race.candidates) - set(race.not_worse)
    tally.replays += 1
    tally.trainings += len(race.trainings)
    tally.best_out += str(best) in called
    for i, one in enumerate(race.candidates):
        known = race.mean(one)
        if known is None:
            continue
        tally.intervals += 1
        tally.covered += known.low <= means[i] <= known.high
        truly = table.clearly_below(configurations[i], configurations[best])
        tally.worse += truly
        tally.found += truly and one in called
    costs = {str(i): float(np.nanmean(table.seconds[one])) for i, one in enumerate(configurations)}
    chosen = race.choice(costs)
    assert chosen is not None
    known = race.mean(chosen)
    assert known is not None
    tally.covered_chosen += known.low <= means[int(chosen)] <= known.high
    leader = race.mean(race.leader or chosen)
    assert leader is not None
    tally.covered_leader += leader.low <= means[int(leader.candidate)] <= leader.high
    tally.wide += (known.high - known.low) / 2
    tally.before += table.means[winner] < table.means[0]
    tally.before_clearly += table.clearly_below(winner, 0)
    tally.after += means[int(chosen)] < table.means[0]
    tally.after_clearly += table.clearly_below(configurations[int(chosen)], 0)
    tally.over_winner += means[int(chosen)] - table.means[winner]
    tally.over_defaults += means[int(chosen)] - table.means[0]
    known_ones = [one for one in race.candidates if race.mean(one) is not None]
    for i, one in enumerate(known_ones):
        for other in known_ones[i + 1 :]:
            tally.pairs += 1
            tally.pairs_differ += race.difference(one, other).told_apart


def _count_doubles(
    tally: Tally, table: Table, configurations: list[int], n_seeds: int, rng: np.random.Generator
) -> None:
    """A race in which the search's best configuration takes part twice, under two names."""
    race = certify(table, [configurations[0], *configurations], n_seeds, rng)
    out = [race.out[one].reason == WORSE if one in race.out else False for one in "01"]
    tally.doubles_parted += out[0] != out[1]
    tally.doubles_differ += race.difference("0", "1").told_apart


# -------------------------------------------------------------------------------------------- the fixed plan


def fixed(
    table: Table, races: Sequence[Sequence[int]], n: int, at_level: float, rng: np.random.Generator
) -> Tally:
    """What n trainings of each tell, looked at once: by Welch's t, then with variances drawn to that of those
    not called worse, as the race does it."""
    of = np.asarray(races)
    drawn = rng.integers(table.scores.shape[1], size=(*of.shape, n))
    scores = table.scores[of[..., None], drawn]
    means, variances = scores.mean(2), scores.var(2, ddof=1).clip(table.resolution**2)
    df = np.full(of.shape, n - 1.0)
    called = _called(means, variances / n, df, at_level)
    common = (variances * ~called).sum(1, keepdims=True) / (~called).sum(1, keepdims=True)
    prior = np.where(called, 0.0, PRIOR_DF)
    called |= _called(means, (df * variances + prior * common) / (df + prior) / n, df + prior, at_level)
    rows = np.arange(len(of))
    truth = table.means[of]
    best = truth.argmax(1)
    errors = np.hypot(table.errors[of], table.errors[of[rows, best]][:, None])
    worse = truth[rows, best][:, None] - truth > 2 * errors
    return Tally(
        replays=len(of),
        trainings=n * of.size,
        best_out=int(called[rows, best].sum()),
        worse=int(worse.sum()),
        found=int((called & worse).sum()),
    )


def _called(means: Floats, squared_errors: Floats, df: Floats, at_level: float) -> NDArray[np.bool_]:
    """Who is worse than the best mean."""
    rows = np.arange(len(means))
    best = means.argmax(1)
    both = squared_errors + squared_errors[rows, best][:, None]
    parts = squared_errors**2 / df
    joint = both**2 / (parts + parts[rows, best][:, None])
    t = (means[rows, best][:, None] - means) / np.sqrt(both)
    called: NDArray[np.bool_] = stats.t.sf(t, joint) < at_level
    called[rows, best] = False
    return called


def least_fixed(
    tables: Sequence[Table],
    races: Sequence[Sequence[Sequence[int]]],
    wanted: Tally,
    levels: Sequence[float],
    rng: np.random.Generator,
) -> float:
    """The fewest trainings of each, interpolated, at any of the levels, that find as many of those that are
    clearly worse, and lose the best one no more often where there are levels to choose from; inf above 60."""
    found = [_least(tables, races, wanted, at_level, len(levels) > 1, rng) for at_level in levels]
    return min(found)


def _least(
    tables: Sequence[Table],
    races: Sequence[Sequence[Sequence[int]]],
    wanted: Tally,
    at_level: float,
    as_safe: bool,
    rng: np.random.Generator,
) -> float:
    before, n_before = 0, 1
    for n in (*range(2, 12), *range(12, 61, 4)):
        tallies = [fixed(table, of, n, at_level, rng) for table, of in zip(tables, races, strict=True)]
        now = sum(tally.found for tally in tallies)
        if now >= wanted.found:
            if as_safe and sum(tally.best_out for tally in tallies) > wanted.best_out:
                return float("inf")
            if n == 2:
                return 2.0
            return float(n_before + (n - n_before) * (wanted.found - before) / max(now - before, 1))
        before, n_before = now, n
    return float("inf")


# -------------------------------------------------------------------------------------------------- the table

COLUMNS = (
    "space",
    "seeds",
    "covered %",
    "of chosen %",
    "of leader %",
    "±",
    "doubles differ %",
    "parted %",
    "pairs differ %",
    "best lost %",
    "before < defaults %",
    "clearly",
    "after < defaults %",
    "clearly",
    "over winner",
    "over defaults",
    "found %",
    "trainings",
    "fixed plan",
    "share %",
)


def report(tables: Path, seeds: str, n: int, top: int, n_seeds: int) -> None:
    """A table in Markdown: each space, and all."""
    rng = np.random.default_rng(15)
    wanted = {"even": lambda seed: seed % 2 == 0, "odd": lambda seed: seed % 2 == 1}.get(
        seeds, lambda _: True
    )
    of_all = [read(folder, wanted) for folder in sorted(tables.iterdir()) if folder.is_dir()]
    print(f"{n} searches in each space, the best {top} and the defaults, {n_seeds} of each, seeds: {seeds}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    level = ALPHA / top
    tallies, races = [], []
    for table in of_all:
        tally, of = replay(table, n, top, n_seeds, rng)
        tallies.append(tally)
        races.append(of)
        plan = least_fixed([table], [of], tally, [level], rng) * (top + 1)
        print(_row(table.space, table.scores.shape[1], tally, plan), flush=True)
    whole = Tally(**{name: sum(getattr(tally, name) for tally in tallies) for name in vars(Tally())})
    print(_row("all", 0, whole, least_fixed(of_all, races, whole, [level], rng) * (top + 1)))
    spent = whole.share("trainings")
    safe = least_fixed(of_all, races, whole, LEVELS, rng) * (top + 1)
    print(f"\nThe best fixed plan that loses the best one no more often: {safe:.1f} ({spent / safe:.0%}).")
    plain = [fixed(table, of, n_seeds, level, rng) for table, of in zip(of_all, races, strict=True)]
    found = sum(tally.found for tally in plain) / whole.worse
    lost = sum(tally.best_out for tally in plain) / whole.replays
    budget = n_seeds * (top + 1)
    print(f"All {budget} trainings ({spent / budget:.0%}) find {found:.1%} and lose the best in {lost:.1%}.")


def _row(space: str, n_seeds: int, tally: Tally, plan: float) -> str:
    spent = tally.share("trainings")
    cells = [
        space,
        str(n_seeds or ""),
        f"{100 * tally.share('covered', 'intervals'):.1f}",
        f"{100 * tally.share('covered_chosen'):.1f}",
        f"{100 * tally.share('covered_leader'):.1f}",
        f"{tally.share('wide'):.4f}",
        f"{100 * tally.share('doubles_differ'):.1f}",
        f"{100 * tally.share('doubles_parted'):.1f}",
        f"{100 * tally.share('pairs_differ', 'pairs'):.1f}",
        f"{100 * tally.share('best_out'):.1f}",
        f"{100 * tally.share('before'):.1f}",
        f"{100 * tally.share('before_clearly'):.1f}",
        f"{100 * tally.share('after'):.1f}",
        f"{100 * tally.share('after_clearly'):.1f}",
        f"{tally.share('over_winner'):+.4f}",
        f"{tally.share('over_defaults'):+.4f}",
        f"{100 * tally.share('found', 'worse'):.1f}",
        f"{spent:.1f}",
        f"{plan:.1f}",
        f"{100 * spent / plan:.0f}",
    ]
    return f"| {' | '.join(cells)} |"
