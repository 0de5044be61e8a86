"""What a trial costs beyond its training: our sweeper beside the official hydra-optuna-sweeper.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --samplers --long 100 3900 9900     # only how ours grows

Every contestant runs constant.py with one worker. A trial's cost is the wall time of a long sweep less that
of a short one, divided by the trials between: so starting Python and importing Hydra cancel out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from optuna.storages.journal._storage import JournalOperation

APP = Path(__file__).with_name("constant.py")
TARGET = 1 / 3
"""At most this part of what the official sweeper takes."""
TARGET_MS = 20
TARGET_GROWTH = 2
"""What a late trial costs, up to number 10,000, at most so many times what trial 100 does."""


@dataclass(frozen=True)
class Release:
    """A release of the official plugin, and what must be installed with it for it to run."""

    name: str
    requirements: tuple[str, ...]


# The stable release. It asks for optuna>=2.10,<3. Its `hydra-core>=1.1.0.dev7` would let pip take a release
# candidate of Hydra, and Optuna 2.10 cannot open SQLite with SQLAlchemy 2 (its table of versions stays empty:
# an AssertionError without a message), so both are held back. Installed and run on Python 3.11.
STABLE = Release("1.3.0", ("hydra-optuna-sweeper==1.3.0", "hydra-core==1.3.*", "sqlalchemy<2"))

# The candidate for the next one, with the Optuna that we use: only Hydra and the sweepers differ.
CANDIDATE = Release("1.4.0rc3", ("hydra-optuna-sweeper==1.4.0rc3", f"optuna=={version('optuna')}"))


@dataclass(frozen=True)
class Contestant:
    """A way to run the app: an interpreter and the overrides that choose sweeper and storage."""

    name: str
    release: Release | None
    """None is ours, in the environment of this script."""
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """Of a trial, or of a sweep. The CPU time of all its processes depends less on what else is running."""

    wall_ms: float
    cpu_ms: float


OURS = Contestant("ours, journal file", None, ("hydra/sweeper=sweeper_optuna",))

# Memory is its default: nothing but Hydra's folders is written. A file can only be SQLite: `storage` takes a
# URL and does not instantiate a journal, which Optuna 2.10 has not got anyway.
_OFFICIAL, _SQLITE = "hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///studies.db"
CONTESTANTS = [
    OURS,
    Contestant("official 1.3.0, memory", STABLE, (_OFFICIAL,)),
    Contestant("official 1.3.0, SQLite file", STABLE, (_OFFICIAL, _SQLITE)),
    Contestant("official 1.4.0rc3, memory", CANDIDATE, (_OFFICIAL,)),
    Contestant("official 1.4.0rc3, SQLite file", CANDIDATE, (_OFFICIAL, _SQLITE)),
]


def main() -> None:
    options = _parser().parse_args()
    compared = CONTESTANTS if options.samplers else [OURS]
    pythons = {c.name: _python(c.release, options.env) for c in compared}
    for sampler in options.samplers:
        costs = {c.name: list[Cost]() for c in CONTESTANTS}
        for _ in range(options.repeats):
            for contestant in CONTESTANTS:  # in turn, so that a busy moment of the machine hits all alike
                few, many = options.n_trials
                cost = _cost(contestant, pythons[contestant.name], sampler, few, many)
                costs[contestant.name].append(cost)
        _print_table(f"{sampler}, wall time", {name: [c.wall_ms for c in cs] for name, cs in costs.items()})
        _print_table(f"{sampler}, CPU time", {name: [c.cpu_ms for c in cs] for name, cs in costs.items()})
    if options.long:
        _print_growth(pythons[OURS.name], options.turns, options.long)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Overhead per trial, ours and the official sweeper's.")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the median is printed")
    parser.add_argument("--n-trials", type=int, nargs=2, default=[20, 120], metavar=("FEW", "MANY"))
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe"], metavar="SAMPLER")
    parser.add_argument(
        "--long", type=int, nargs="+", metavar="NUMBER", help="also what our trials of these numbers cost"
    )
    parser.add_argument("--turns", type=int, default=10, help="of each of these (default: %(default)s)")
    parser.add_argument(
        "--env",
        type=Path,
        default=Path(tempfile.gettempdir(), "official-optuna-sweeper"),
        help="where the official plugin is installed, if it is not there yet (default: %(default)s)",
    )
    return parser


# --- environments -------------------------------------------------------------------------------------------


def _python(release: Release | None, folder: Path) -> Path:
    """An interpreter that has the release installed; the first call makes it."""
    if release is None:
        return Path(sys.executable)
    home = folder.absolute() / release.name
    python, installed = home / "bin" / "python", home / "installed.txt"
    if not installed.exists() or installed.read_text().splitlines() != list(release.requirements):
        print(f"Installing {' '.join(release.requirements)} into {home}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *release.requirements], check=True)
        installed.write_text("\n".join(release.requirements))
    return python


# --- measuring ----------------------------------------------------------------------------------------------


def _cost(contestant: Contestant, python: Path, sampler: str, few: int, many: int) -> Cost:
    """Of each of the trials by which the two sweeps differ."""
    with tempfile.TemporaryDirectory() as folder:
        short = _sweep(contestant, python, sampler, few, Path(folder, "short"))
        long = _sweep(contestant, python, sampler, many, Path(folder, "long"))
    n = many - few
    return Cost((long.wall_ms - short.wall_ms) / n, (long.cpu_ms - short.cpu_ms) / n)


def _print_growth(python: Path, turns: int, numbers: list[int], each: int = 50) -> None:
    """What a trial of ours takes after so many others, in studies that go on by turns."""
    found: dict[int, list[float]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as folder:
        places = {number: Path(folder, str(number)) for number in numbers}
        for number, place in places.items():
            _sweep(OURS, python, "random", 1, place)
            _repeat(place, number)
        for turn in range(turns):
            for number, place in places.items():
                last = number + (turn + 1) * each
                _sweep(OURS, python, "random", last, place)
                begun = sorted(_begun(place, last - each))
                found[number].append(1000 * median(b - a for a, b in pairwise(begun)))
    first = found[numbers[0]]
    for number, costs in found.items():
        low, middle, high = quantiles([cost / of for cost, of in zip(costs, first, strict=True)])
        told = f"{median(costs):.1f} ms a trial, {middle:.2f} times the first ({low:.2f}–{high:.2f})"
        print(f"ours, random, after {number:,} trials: {told}")
    print(f"target ≤ {TARGET_GROWTH}")


def _repeat(place: Path, n: int) -> None:
    """Let the one trial of a study be ``n``, as if so many had been run."""
    journal = place / "outputs" / "studies.journal"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    of_it = [line for line in lines if "trial_id" in line or line["op_code"] == JournalOperation.CREATE_TRIAL]
    with journal.open("a") as file:
        for number in range(1, n):
            (place / "sweep" / str(number)).mkdir()
            for line in of_it:
                file.write(json.dumps({**line, "trial_id": number} if "trial_id" in line else line) + "\n")


def _begun(folder: Path, since: int) -> Iterator[float]:
    """When each trial from this number on began: the moment at which Hydra wrote its overrides."""
    for path in folder.glob("sweep/*/.hydra/overrides.yaml"):
        if int(path.parents[1].name) >= since:
            yield path.stat().st_mtime


def _sweep(contestant: Contestant, python: Path, sampler: str, n_trials: int, folder: Path) -> Cost:
    """Run a whole sweep as from a terminal, in ``folder``, and return what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    overrides = [
        *contestant.overrides,
        f"hydra/sweeper/sampler={sampler}",
        f"hydra.sweeper.n_trials={n_trials}",
        "hydra.sweeper.study_name=constant",
        "hydra.sweep.dir=sweep",
    ]
    command = [str(python), str(APP), "-m", *overrides]
    started, cpu_before = perf_counter(), _cpu_of_children_s()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=_environment())
    cost = Cost(1000 * (perf_counter() - started), 1000 * (_cpu_of_children_s() - cpu_before))
    n_run = sum(path.name.isdigit() for path in Path(folder, "sweep").glob("*"))
    if done.returncode != 0 or n_run != n_trials:
        sys.exit(f"{contestant.name}: {n_run} of {n_trials} trials were run\n{done.stdout}{done.stderr}")
    return cost


def _cpu_of_children_s() -> float:
    """Of all processes that have ended and been waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _environment() -> dict[str, str]:
    """What a terminal has, without what would let one environment see another's packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _print_table(title: str, costs: dict[str, list[float]]) -> None:
    ours = median(costs[OURS.name])
    print(f"\n{title:<34} {'ms per trial':>12}  {'from … to':>15}  {'ours / it':>9}  target")
    for name, values in costs.items():
        spread = f"{min(values):.1f} … {max(values):.1f}"
        verdict = (
            f"  {'':>9}  ≤ {TARGET_MS} ms with random, wall time"
            if name == OURS.name
            else f"  {ours / median(values):>9.2f}  ≤ {TARGET:.2f}"
        )
        print(f"{name:<34} {median(values):>12.1f}  {spread:>15}{verdict}", flush=True)


if __name__ == "__main__":
    main()
