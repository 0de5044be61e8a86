"""Workers that are spawned, because the command's process must not be forked."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.foreign_app import App, assert_exactly
from tests.program import finish, start

A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.slow
def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    """Its workers are spawned, which a line in the log says, and the search goes on as ever."""
    app = App(tmp_path, top=A_THREAD)
    done = app.run()
    assert done.returncode == 0, done.stderr
    assert "Workers are spawned, not forked from this process: it has 2 threads (Thread-1" in done.stdout
    assert_exactly(app, 6)


@pytest.mark.slow
def test_a_worker_that_dies_early_holds_nobody_up(tmp_path: Path) -> None:
    """However large the config is, the sweep ends when no worker can import the script."""
    app = App(tmp_path, top=A_THREAD + "if __name__ == '__mp_main__':\n    raise ImportError('not here')")
    app.configure("x: 0.0", f"x: 0.0\nlarge: {'y' * 200_000}")  # a pipe takes 65,536
    done = app.run()
    assert done.returncode == 1
    assert "workers die before their first trial" in done.stderr


IN_THE_SCRIPT = (
    A_THREAD
    + """
import pickle
lock, square = threading.Lock(), lambda value: value * value

class Item:
    def __init__(self, value):
        self.value = value

def double(item):
    return Item(2 * item.value)
"""
)

USES_THE_SCRIPT = """
with lock, multiprocessing.Pool(2) as pool:
    doubled = [item.value for item in pool.map(double, [Item(1), Item(2)])]
process = multiprocessing.Process(target=lambda: os._exit(square(3)))
process.start()
process.join()
assert (doubled, process.exitcode) == ([2, 4], 9)
assert pickle.loads(pickle.dumps(Item(3))).value == 3
assert sys.modules["__main__"].Item is Item
seen = multiprocessing.get_start_method(), multiprocessing.current_process().name
sweeper.trial().set_user_attr("seen", [*seen, multiprocessing.parent_process() is None])
return cfg.x
"""


@pytest.mark.slow
def test_what_stands_in_the_script_is_the_workers_own(tmp_path: Path) -> None:
    """A spawned worker runs the script's own task: its classes pickle, pools start as ever, locks work."""
    app = App(tmp_path, USES_THE_SCRIPT, IN_THE_SCRIPT)
    done = app.run("hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    seen = [multiprocessing.get_start_method(), "MainProcess", True]
    assert [trial.user_attrs["seen"] for trial in assert_exactly(app, 2)] == [seen] * 2


def test_a_script_without_guard_is_refused(tmp_path: Path) -> None:
    """Where workers must be spawned it would begin the search again: one line, and nothing is written."""
    app = App(tmp_path, top=A_THREAD)
    app.drop_guard()
    done = app.run()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    said = (
        "hydra.sweeper.in_process=false: app.py would start the search again in each worker; workers must be"
    )
    assert line.startswith(f"{said} spawned, as it has 2 threads")
    assert "write if __name__ == '__main__': before" in line
    assert not app.out.exists()


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    """A script of standard input goes by value, and a lock in it cannot: one line, and nothing is written."""
    app = App(tmp_path, "with lock:\n    return cfg.x", A_THREAD + "lock = threading.Lock()")
    text = (tmp_path / "app.py").read_text().replace("Path(__file__).parent", "Path.cwd()")
    text = text.replace('config_path="."', f"config_path={str(tmp_path)!r}")
    done = finish(start(tmp_path, "-", "-m"), stdin=text)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot pickle '_thread.lock' object)" in line
    assert "move that into a module that the script imports" in line
    assert not app.out.exists()
