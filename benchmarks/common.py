"""What the benchmarks share: the cores, the commands, and the judgement."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from scipy.stats import ttest_ind

from sweeper.record.run_files import RunFiles


@dataclass(frozen=True)
class Compared:
    """What ours and the usual way reached in one case, how many times as fast ours was, and whether the
    accuracies agree."""

    ours: str
    usual: str
    ratio: float
    accuracy: str


def share_cores(device: str) -> None:
    """The same two cores for everybody, where no GPU computes; processes that are started inherit this."""
    if device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def run_python(arguments: Sequence[str], folder: Path) -> float:
    """Run Python as from a terminal, and return its wall time in seconds."""
    started = perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    seconds = perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return seconds


def count_epochs(outputs: Path, n_trials: int) -> int:
    """Of all trials of one of our searches."""
    histories = [RunFiles(path).read_history() for path in outputs.iterdir() if path.name.isdigit()]
    if len(histories) != n_trials:
        sys.exit(f"ours ran {len(histories)} of {n_trials} trials")
    return sum(map(len, histories))


def agreement(ours: Sequence[float], usual: Sequence[float]) -> str:
    """``agree`` where Welch's t-test does not tell the means over the seeds apart at 5 %, else which side is
    higher. Prints both sides."""
    if len(ours) < 2 or len(usual) < 2:
        return f"not compared ({mean(ours):.4f} and {mean(usual):.4f}): one seed shows no noise"
    difference = mean(ours) - mean(usual)
    p_value = float(ttest_ind(ours, usual, equal_var=False).pvalue) if stdev([*ours, *usual]) else 1.0
    print(
        f"validation accuracy, mean ± sample standard deviation of {len(ours)} seeds:"
        f" ours {mean(ours):.4f} ± {stdev(ours):.4f}, usual way {mean(usual):.4f} ± {stdev(usual):.4f};"
        f" difference {difference:+.4f}, p = {p_value:.2f}"
    )
    if p_value >= 0.05:
        return "agree"
    return f"differ, ours {'higher' if difference > 0 else 'lower'}"


def print_verdict(case: str, compared: Compared, target: float) -> None:
    met = "met" if compared.ratio >= target else "not met"
    print(f"{case}: ratio {compared.ratio:.2f} (target ≥ {target:g}): {met}; accuracies {compared.accuracy}")
