"""A second host: what it may do with a study that the first one runs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.foreign_app import App, assert_exactly
from tests.program import Done, Program, finish, kill_group, start, until

HOLD = """
started()
if number in (0, 1):
    wait_for("go")
return cfg.x
"""


def on_host(name: str, app: App, *arguments: str, hides: bool = True) -> Program:
    """The app's search on a host of that name, where the first host's signs of life may be out of reach."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another host name needs unshare and root")
    folder = app.out / ".sweeper"
    steps = [f"hostname {name}"]
    if hides:
        steps += [f"mount -t tmpfs none {folder}", f"cp -r {app.folder}/marks/. {folder}"]
    command = " && ".join([*steps, f"exec {sys.executable} app.py -m {' '.join(arguments)}"])
    code = "import os, sys; os.execvp('unshare', ['unshare', '--mount', '--uts', 'sh', '-c', sys.argv[1]])"
    return start(app.folder, "-c", code, command)


def run_on_host(name: str, app: App, *arguments: str, hides: bool = True) -> Done:
    return finish(on_host(name, app, *arguments, hides=hides))


def hold(app: App) -> Program:
    """A search of the first host, in the middle of two trials; what marks its folder is copied aside."""
    process = app.start()
    until(lambda: app.has_started(0, 1))
    marks = shutil.ignore_patterns("*.alive")
    shutil.copytree(app.out / ".sweeper", app.folder / "marks", ignore=marks)
    return process


@pytest.mark.slow
def test_a_second_host_leaves_a_running_search_alone(tmp_path: Path) -> None:
    """Its search is refused in one line, and the first one goes on to its end as if nobody had come."""
    app = App(tmp_path, HOLD)
    process = hold(app)
    done = run_on_host("other", app)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "hydra.sweeper.take_over=true" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    app.touch("go")
    done = finish(process)
    assert done.returncode == 0, done.stderr
    assert all(t.state.name in ("COMPLETE", "PRUNED") for t in assert_exactly(app, 6))


@pytest.mark.slow
def test_a_container_that_came_back_under_another_name_goes_on(tmp_path: Path) -> None:
    """After a kill the study is refused under another host name, and taken over when the person says so."""
    app = App(tmp_path, HOLD)
    process = hold(app)
    kill_group(process, signal.SIGKILL)
    finish(process)
    app.touch("go")
    assert run_on_host("other", app, hides=False).returncode == 2
    done = run_on_host("other", app, "hydra.sweeper.take_over=true", hides=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)
