"""Forked workers: copies of the command's process, and of the server that forks them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sweeper import run
from sweeper.schema import METRIC_LIBRARY
from tests import program
from tests.foreign_app import CLEAN, App, assert_exactly, worker_pid
from tests.journal import load_study
from tests.program import finish, is_running, parent_pid, until

BOTH_AT_ONCE = """
started()
wait_for("started-0", "started-1")
"""


def preloads(folder: Path, body: str, module: str) -> App:
    """An app whose search imports ``module`` once for all workers."""
    app = App(folder, body, f"preload = sweeper.hooks(preload=[{module!r}])")
    app.decorate("preload")
    return app


def test_a_preloaded_module_is_imported_once(tmp_path: Path) -> None:
    """All workers find it as it was imported, in the process that they were forked from."""
    (tmp_path / "heavy.py").write_text("import os\npid = os.getpid()\n")
    body = (
        "import heavy\nsweeper.trial().set_user_attr('imported_in', heavy.pid)\n"
        + BOTH_AT_ONCE
        + "return cfg.x"
    )
    app = preloads(tmp_path, body, "heavy")
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 4)
    assert len({worker_pid(t) for t in trials}) == 2
    assert len({t.user_attrs["imported_in"] for t in trials}) == 1
    assert trials[0].user_attrs["imported_in"] not in {worker_pid(t) for t in trials}


def test_workers_draw_different_numbers(tmp_path: Path) -> None:
    """Numpy's global generator is not the fork server's in all of them."""
    body = (
        "import numpy\n"
        + BOTH_AT_ONCE
        + "sweeper.trial().set_user_attr('drawn', numpy.random.random())\nreturn cfg.x"
    )
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    first, second = assert_exactly(app, 2)
    assert first.user_attrs["drawn"] != second.user_attrs["drawn"]


def test_workers_have_the_environment_of_the_sweep(tmp_path: Path) -> None:
    """Theirs is that of the command; what is set for the fork server alone does not reach them."""
    seen = "{k: os.environ.get(k) for k in ('MINE', 'PYTHONPATH')}"
    body = f"sweeper.trial().set_user_attr('seen', {seen})\nreturn cfg.x"
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_trials=1", env={"MINE": "here", "PYTHONPATH": "some/where"})
    assert done.returncode == 0, done.stderr
    assert app.trials()[0].user_attrs["seen"] == {"MINE": "here", "PYTHONPATH": "some/where"}


@pytest.mark.slow
def test_killed_fork_server_costs_its_trials(tmp_path: Path) -> None:
    """kill -9 of the server: its workers are killed too, before others run their trials again."""
    app = App(tmp_path, "started()\nif number < 2:\n    wait_for('never')\nreturn cfg.x")
    sweep = app.start()
    until(lambda: app.has_started(0, 1))
    victims = [worker_pid(t) for t in app.trials()]
    (server,) = {parent_pid(pid) for pid in victims}
    assert server != sweep.pid
    os.kill(server, signal.SIGKILL)
    done = finish(sweep)
    assert done.returncode == 0, done.stderr
    assert not any(is_running(pid) for pid in victims)
    trials = app.trials()
    assert [t.state for t in trials[:2]] == [TrialState.FAIL] * 2
    assert {t.params["x"] for t in trials[2:4]} == {t.params["x"] for t in trials[:2]}
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 6
    assert not set(victims) & {worker_pid(t) for t in trials[2:]}


@pytest.mark.slow
def test_fork_server_ends_with_the_sweep(tmp_path: Path) -> None:
    """Neither the end of a search nor kill -9 of its process leaves the server behind."""
    app = App(tmp_path, "started()\nif number >= 2:\n    wait_for('go')\nreturn cfg.x")
    sweep = app.start()
    until(lambda: app.has_started(2, 3))
    server = parent_pid(worker_pid(app.trials(TrialState.RUNNING)[0]))
    sweep.kill()
    sweep.communicate()
    until(lambda: not is_running(server))
    sweep = app.start()
    until(lambda: app.has_started(4, 5))
    server = parent_pid(worker_pid(app.trials(TrialState.RUNNING)[0]))
    app.touch("go")
    assert finish(sweep).returncode == 0
    until(lambda: not is_running(server))


def test_what_is_preloaded_may_follow_from_the_config(tmp_path: Path) -> None:
    """A function names the modules, by the config that the search was started with."""
    (tmp_path / "heavy.py").write_text("import os\npid = os.getpid()\n")
    body = "sweeper.trial().set_user_attr('imported_here', sys.modules['heavy'].pid == os.getpid())\nreturn 1"
    app = App(tmp_path, body, "preload = sweeper.hooks(preload=lambda cfg: [cfg.module])")
    app.decorate("preload")
    done = app.run("hydra.sweeper.n_trials=1", "+module=heavy")
    assert done.returncode == 0, done.stderr
    assert not assert_exactly(app, 1)[0].user_attrs["imported_here"]


def test_preloading_that_ends_the_server_is_told(tmp_path: Path) -> None:
    """A module that cannot be imported there ends the search with a reason, not with a traceback of ours."""
    (tmp_path / "broken.py").write_text("import os\nif __name__ == 'broken':\n    os._exit(7)\n")
    app = preloads(tmp_path, "return cfg.x", "broken")
    done = app.run()
    assert done.returncode == 1
    assert "forked from ended: killed, or by what it imports" in done.stderr
    assert "Traceback" not in done.stderr
    assert not app.trials()


NO_GPU_WHILE_IMPORTING = """
import importlib, sys

def watch(frame, event, argument):
    if event == "c_call" and "cuda" in argument.__name__.lower():
        print(argument.__name__)

sys.setprofile(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
sys.setprofile(None)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "asks"), [((*run.PRELOAD, METRIC_LIBRARY), False), (["asks_for_gpu"], True)]
)
def test_what_is_preloaded_asks_for_no_gpu(tmp_path: Path, modules: Sequence[str], asks: bool) -> None:
    """CUDA works only where it was first used after the fork: torch's C functions for it are not called."""
    (tmp_path / "asks_for_gpu.py").write_text("import torch\ntorch.cuda.is_available()\n")
    done = program.run(tmp_path, "-c", NO_GPU_WHILE_IMPORTING, *modules)
    assert done.returncode == 0, done.stderr
    asked = {line for line in done.stdout.split() if line.startswith("_cuda")}
    assert bool(asked - {"_cuda_version"}) == asks  # that of torchvision: what it was built with


# --- a worker is the app ------------------------------------------------------------------------------------

SEEN = """
def seen():
    processes = multiprocessing.current_process(), multiprocessing.parent_process()
    kept = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSTOP}
    signums = sorted(signal.valid_signals() - kept)
    own = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    return {
        "start method": multiprocessing.get_start_method(),
        "main": [sys.modules["__main__"].__file__, __name__, repr(sys.modules["__main__"].__spec__)],
        "sys.path": sys.path,
        "folder": os.getcwd(),
        "environment": {k: v for k, v in os.environ.items() if k not in own},
        "handlers": [repr(signal.getsignal(signum)).partition(" at 0x")[0] for signum in signums],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "threads": [thread.name for thread in threading.enumerate()],
        "tasks": len(os.listdir("/proc/self/task")),
        "process": [processes[0].name, processes[0].daemon, processes[1]],
        "children": multiprocessing.active_children(),
        "collects": [gc.isenabled(), gc.get_threshold()],
        "native id": threading.main_thread().native_id == os.getpid(),
        "stdin": os.fstat(0).st_ino,
        "files": len(os.listdir("/proc/self/fd")),
    }

signal.signal(signal.SIGUSR1, lambda *_: None)
os.environ["SET_AT_THE_TOP"] = "1"
sys.path.append("/at/the/top")
helper = multiprocessing.Process(target=time.sleep, args=(60,), daemon=True)
"""


def test_in_a_worker_all_is_as_when_the_app_runs_alone(tmp_path: Path) -> None:
    """Start method, __main__, path, folder, environment, signals, threads, children and standard input."""
    body = "import json\n(HERE / f'seen-{number}').write_text(json.dumps(seen()))\nreturn cfg.x"
    app = App(tmp_path, body, f"import gc, threading\n{SEEN}")
    done = app.run("hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    alone = program.run(tmp_path, "app.py", env=CLEAN)
    assert alone.returncode == 0, alone.stderr
    worker, by_itself = (json.loads((tmp_path / f"seen-{n}").read_text()) for n in (0, None))
    n_files = worker.pop("files"), by_itself.pop("files")
    assert n_files[0] <= n_files[1] + 12  # the journal, its lock, the heartbeat, and logs
    worker.pop("stdin"), by_itself.pop("stdin")
    for what in worker:
        assert worker[what] == by_itself[what], what
    assert worker == by_itself


def test_arguments_are_those_of_the_command(tmp_path: Path) -> None:
    """``sys.argv`` in a worker is what the person typed."""
    app = App(tmp_path, "sweeper.trial().set_user_attr('argv', sys.argv)\nreturn cfg.x")
    done = app.run("hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    assert app.trials()[0].user_attrs["argv"] == ["app.py", "-m", "hydra.sweeper.n_trials=1"]


OWN_PROCESSES = """
class Item:
    def __init__(self, value):
        self.value = value

def double(item):
    return Item(2 * item.value)

def put(queue):
    queue.put(Item(os.getppid()))
"""

USES_PROCESSES = """
import pickle
with multiprocessing.Pool(2) as pool:
    doubled = [item.value for item in pool.map(double, [Item(1), Item(2)])]
queue = multiprocessing.Queue()
process = multiprocessing.Process(target=put, args=(queue,))
process.start()
parent = queue.get().value
process.join()
assert (doubled, parent, process.exitcode) == ([2, 4], os.getpid(), 0)
assert pickle.loads(pickle.dumps(Item(3))).value == 3
return cfg.x
"""


@pytest.mark.slow
def test_an_app_has_processes_of_its_own(tmp_path: Path) -> None:
    """Pools, queues and pickles of classes that stand in the script work in a worker."""
    app = App(tmp_path, USES_PROCESSES, OWN_PROCESSES)
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert [t.state for t in assert_exactly(app, 4)] == [TrialState.COMPLETE] * 4


@pytest.mark.slow
def test_loaders_read_a_dataset_of_the_script(tmp_path: Path) -> None:
    """The most usual training script: its dataset stands in it, and two loader processes read that."""
    (tmp_path / "app.yaml").write_text(
        "defaults:\n  - override hydra/sweeper: sweeper_optuna\n  - override hydra/sweeper/pruner: none\n"
        "  - _self_\nlr: 0.1\nhydra:\n  sweep:\n    dir: out\n  sweeper:\n    study_name: s\n"
        "    n_trials: 4\n    n_jobs: 2\n    params:\n      lr: interval(0.01, 0.1)\n"
    )
    (tmp_path / "app.py").write_text(TRAINING_SCRIPT)
    done = program.run(tmp_path, "app.py", "-m", limit_s=120)
    assert done.returncode == 0, done.stderr
    trials = load_study(tmp_path, "s").trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert max(t.user_attrs["loading_s"] for t in trials) < 3  # it took 6 to 10 s when workers were pickled


TRAINING_SCRIPT = """
import logging, threading, time

import hydra
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sweeper

torch.backends.cudnn.benchmark = True
lock = threading.Lock()
log = logging.getLogger(__name__)


class Points(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, i):
        with lock:
            x = torch.tensor([i / 256, 1.0])
        return x, (x[0] > 0.5).float()


def collate(items):
    return [torch.stack(column) for column in zip(*items)]


@hydra.main(version_base=None, config_path=".", config_name="app")
def main(cfg):
    torch.manual_seed(0)
    model, loss_of = nn.Linear(2, 1), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr)
    started = time.monotonic()
    loader = DataLoader(Points(), 32, True, num_workers=2, collate_fn=collate, persistent_workers=True)
    for epoch in range(1, 4):
        for x, y in loader:
            if epoch == 1:
                sweeper.trial().set_user_attr("loading_s", time.monotonic() - started)
            optimizer.zero_grad()
            loss = loss_of(model(x).squeeze(1), y)
            loss.backward()
            optimizer.step()
        log.info("epoch %d: %.3f", epoch, loss)
        sweeper.trial().report(loss.item(), epoch)
    return loss.item()


if __name__ == "__main__":
    main()
"""

NOT_TO_BE_PICKLED = """
import logging, sqlite3, threading
lock, log, connection = threading.Lock(), logging.getLogger("mine"), sqlite3.connect(":memory:")
generator, opened, add = (i for i in range(9)), open(__file__), lambda a, b: a + b
with (HERE / "ran").open("a") as ran:
    ran.write("once\\n")
import atexit
atexit.register(lambda: (HERE / "left").open("a").write("once\\n"))
"""

USES_THEM = """
with lock:
    log.info("hello")
assert connection.execute("select 1").fetchone() == (1,)
return add(cfg.x, 0 * next(generator)) + 0 * len(opened.name)
"""


@pytest.mark.slow
def test_a_script_may_hold_anything_and_runs_once(tmp_path: Path) -> None:
    """A lock, a connection, a generator, an open file, a lambda at top level; what it does, it does once."""
    app = App(tmp_path, USES_THEM, NOT_TO_BE_PICKLED)
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert [t.state for t in assert_exactly(app, 4)] == [TrialState.COMPLETE] * 4
    assert (tmp_path / "ran").read_text() == "once\n"
    assert (tmp_path / "left").read_text() == "once\n"


def test_files_that_a_script_leaves_open_are_written(tmp_path: Path) -> None:
    """What was written to them before the fork is there once, and so is what the trials write."""
    top = "table = open('table.csv', 'w')\ntable.write('x\\n')\nkept = []"
    body = """
table.write(f"{cfg.x}\\n")
kept.append(open(HERE / f"{number}.txt", "w"))
kept[-1].write("hello")
return cfg.x
"""
    app = App(tmp_path, body, top)
    done = app.run("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2")
    assert done.returncode == 0, done.stderr
    head, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert head == "x"
    assert sorted(map(float, rows)) == sorted(t.values[0] for t in assert_exactly(app, 4))
    assert [(tmp_path / f"{number}.txt").read_text() for number in range(4)] == ["hello"] * 4


def test_what_a_trial_registers_for_the_exit_is_done(tmp_path: Path) -> None:
    """``atexit`` in a worker runs at the worker's end, once for each trial that registered it."""
    body = "import atexit\natexit.register((HERE / f'left-{number}').touch)\nreturn cfg.x"
    app = App(tmp_path, body)
    done = app.run("hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("left-*"))) == 3


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """``main()`` at the end of a script is enough."""
    app = App(tmp_path)
    app.drop_guard()
    done = app.run()
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_a_script_may_come_by_standard_input(tmp_path: Path) -> None:
    """``python - < app.py`` searches too."""
    app = App(tmp_path)
    text = (tmp_path / "app.py").read_text().replace("Path(__file__).parent", "Path.cwd()")
    text = text.replace('config_path="."', f"config_path={str(tmp_path)!r}")
    done = finish(program.start(tmp_path, "-", "-m"), stdin=text)
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_threads_that_end_at_a_fork_do_not_count(tmp_path: Path) -> None:
    """OpenBLAS has threads as soon as numpy is imported, and ends them by itself."""
    top = "import numpy\nnumpy.ones((300, 300)) @ numpy.ones((300, 300))"
    app = App(
        tmp_path,
        "sweeper.trial().set_user_attr('tasks', len(os.listdir('/proc/self/task')))\nreturn cfg.x",
        top,
    )
    done = app.run("hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert "spawned" not in done.stdout
