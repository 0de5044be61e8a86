"""Workers that are spawned, because the command's process must not be forked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign_app import App, assert_exactly

A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    """Its workers are spawned, which a line in the log says, and the search goes on as ever."""
    app = App(tmp_path, top=A_THREAD)
    done = app.run()
    assert done.returncode == 0, done.stderr
    assert "Workers are spawned, not forked from this process: it has 2 threads." in done.stdout
    assert_exactly(app, 6)


def test_a_worker_that_dies_early_holds_nobody_up(tmp_path: Path) -> None:
    """However large the config is, the sweep ends when no worker can import the script."""
    app = App(tmp_path, top=A_THREAD + "if __name__ == '__mp_main__':\n    raise ImportError('not here')")
    app.configure("x: 0.0", f"x: 0.0\nlarge: {'y' * 200_000}")  # a pipe takes 65,536
    done = app.run()
    assert done.returncode == 1
    assert "workers die before their first trial" in done.stderr


@pytest.mark.parametrize(
    ("top", "body", "line"),
    [
        ("guard = None", "return cfg.x", "write if __name__ == '__main__': before the call"),
        (
            "lock = threading.Lock()",
            "with lock:\n    return cfg.x",
            "move what cannot be pickled into a module",
        ),
    ],
)
def test_what_cannot_be_spawned_is_told(tmp_path: Path, top: str, body: str, line: str) -> None:
    """Where workers must be spawned, a script without guard, or with a lock, is told what to write."""
    app = App(tmp_path, body, A_THREAD + top)
    if "guard" in top:
        app.drop_guard()
    done = app.run()
    assert done.returncode == 1
    assert sum(line in shown for shown in done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not app.trials()
