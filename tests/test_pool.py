"""The pool: the budget, the workers' environment, resume, signals, and bad input."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import mostly_slow
from tests.foreign_app import FINISHED, App, assert_exactly, worker_pid
from tests.journal import open_journal
from tests.program import IN_PROCESS, Terminal, finish, is_running, kill_group, run, start, until

A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
"""A process with another thread is not forked: its workers are spawned."""

HOLD = """
started()
if number >= 2:
    wait_for("go")
return cfg.x
"""


# --- budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", mostly_slow(["auto", "1", "4"], 3))
def test_exactly_n_trials_finish(tmp_path: Path, n_jobs: str) -> None:
    """With any number of workers, COMPLETE and PRUNED together are n_trials; failures come on top."""
    app = App(
        tmp_path,
        """
if number % 3 == 0:
    raise optuna.TrialPruned
if number == 1:
    raise ValueError("once")
return cfg.x
""",
    )
    done = app.run(f"hydra.sweeper.n_jobs={n_jobs}", "hydra.sweeper.n_trials=7")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 7)
    assert len(trials) == 8
    assert [t.state == TrialState.PRUNED for t in trials] == [t.number % 3 == 0 for t in trials]


def test_in_process_search_in_memory(tmp_path: Path) -> None:
    """One process, for a debugger: the study lives in memory, and the process prints its result."""
    app = App(
        tmp_path,
        "print('here', os.getpid(), 'torch' in sys.modules)\nreturn cfg.x",
        after="print('main', os.getpid())",
    )
    done = app.run(*IN_PROCESS, "hydra.sweeper.storage=memory", "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (main,) = [line.split()[1] for line in lines if line.startswith("main")]
    assert [line for line in lines if line.startswith("here")] == [f"here {main} False"] * 3
    assert "3 done" in done.stdout
    assert not app.journal.exists()


def test_slow_trial_holds_nobody_up(tmp_path: Path) -> None:
    """While one worker is in its trial, the other one runs all the rest."""
    app = App(tmp_path, "if number == 0:\n    wait_for('started-6')\nstarted()\nreturn cfg.x")
    done = app.run("hydra.sweeper.n_trials=7")
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 7)
    assert sum(worker_pid(t) == worker_pid(trials[0]) for t in trials) <= 2


@pytest.mark.slow
def test_two_sweeps_share_one_study(tmp_path: Path) -> None:
    """The same command twice at once: together they spend the budget, and neither is in the other's way."""
    app = App(tmp_path, "sweeper.trial().report(cfg.x, 0)\nreturn cfg.x")
    processes = [app.start("hydra.sweeper.n_trials=12") for _ in range(2)]
    for process in processes:
        done = finish(process)
        assert done.returncode == 0, done.stderr
    assert_exactly(app, 12)


def test_sqlite_serves_two_workers(tmp_path: Path) -> None:
    """A relative sqlite URL is a file beside the app, and two workers share it."""
    app = App(tmp_path, "sweeper.trial().report(cfg.x, 0)\nreturn cfg.x")
    done = app.run("hydra.sweeper.storage=sqlite:///studies.db")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/studies.db")
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 6


def test_grid_runs_each_point_once(tmp_path: Path) -> None:
    """Two workers share a grid that is smaller than the budget, and the sweep ends by itself."""
    app = App(
        tmp_path,
        "if number == 1:\n    raise ValueError\nreturn cfg.x",
    )
    app.configure("x: 0.0\n", "x: 0.0\ny: 0\n")
    done = app.run("hydra/sweeper/sampler=grid", "x=1,2", "y=range(0,3)", "hydra.sweeper.n_trials=20")
    assert done.returncode == 0, done.stderr
    points = [(t.params["x"], t.params["y"]) for t in app.trials()]
    assert sorted(points) == [(x, y) for x in (1, 2) for y in (0, 1, 2)]
    assert not app.trials(TrialState.RUNNING, TrialState.WAITING)


@pytest.mark.parametrize(
    ("settings", "timeout_s"), [(IN_PROCESS, 2), pytest.param((), 8, marks=pytest.mark.slow)]
)
def test_timeout_starts_no_new_trial(tmp_path: Path, settings: tuple[str, ...], timeout_s: int) -> None:
    """After timeout_s the sweep ends with what it has, and that is no failure."""
    app = App(tmp_path)
    done = app.run(*settings, f"hydra.sweeper.timeout_s={timeout_s}", "hydra.sweeper.n_trials=null")
    assert done.returncode == 0, done.stderr
    trials = app.trials()
    assert len(trials) > 1
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    begun = [t.datetime_start for t in trials if t.datetime_start]
    assert (max(begun) - min(begun)).total_seconds() < timeout_s


# --- the workers' environment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        (["hydra.sweeper.n_jobs=3"], ["3", "3", "5"]),
        pytest.param(
            ["hydra.sweeper.n_jobs=auto", "hydra.sweeper.workers_per_gpu=2"],
            ["3", "3", "5", "5"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_workers_share_the_gpus_in_turn(tmp_path: Path, settings: list[str], seen: list[str]) -> None:
    """Each worker sees one GPU and its share of the cores; nothing of the search imports torch."""
    n_workers = len(seen)
    barrier = ", ".join(f"'started-{i}'" for i in range(n_workers))
    app = App(
        tmp_path,
        f"""
started()
if number < {n_workers}:
    wait_for({barrier})
for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
    sweeper.trial().set_user_attr(name, os.environ[name])
sweeper.trial().set_user_attr("torch", "torch" in sys.modules)
return cfg.x
""",
        after="print('torch:', 'torch' in sys.modules, os.environ['CUDA_VISIBLE_DEVICES'])",
    )
    done = app.run(*settings, env={"CUDA_VISIBLE_DEVICES": "3,5"})
    assert done.returncode == 0, done.stderr
    assert "torch: False 3,5" in done.stdout
    attributes = [t.user_attrs for t in assert_exactly(app, 6)]
    assert sorted(a["CUDA_VISIBLE_DEVICES"] for a in attributes[:n_workers]) == seen
    share = max(1, len(os.sched_getaffinity(0)) // n_workers)
    assert {a["OMP_NUM_THREADS"] for a in attributes} == {str(share)}
    assert not any(a["torch"] for a in attributes)


@pytest.mark.slow
def test_app_that_cannot_be_imported_in_a_worker(tmp_path: Path) -> None:
    """Spawned workers that die while they start are tried a few times; then the sweep ends and says so."""
    app = App(tmp_path, top=A_THREAD + "if __name__ == '__mp_main__':\n    raise ImportError('not here')")
    done = app.run()
    assert done.returncode == 1
    assert "workers die before their first trial" in done.stderr
    assert "not here" in done.stderr
    assert not app.trials()


# --- failures -----------------------------------------------------------------------------------------------


def test_failing_trials_end_the_sweep_at_max_failure_rate(tmp_path: Path) -> None:
    """Some failures are no reason to stop; too many end the sweep with code 1 and the last traceback."""
    app = App(
        tmp_path, "if number in (1, 3, 4):\n    raise ValueError(f'trial {number} is broken')\nreturn cfg.x"
    )
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=8")
    assert done.returncode == 1
    assert "ValueError: trial 4 is broken" in done.stderr
    assert "raise ValueError" in done.stderr
    assert "max_failure_rate" in done.stderr
    trials = app.trials()
    assert [t.state for t in trials] == [
        TrialState.FAIL if n in (1, 3, 4) else TrialState.COMPLETE for n in range(5)
    ]
    for number in (1, 3, 4):
        text = (app.out / str(number) / "sweeper_traceback.txt").read_text()
        assert f"ValueError: trial {number} is broken" in text
        assert trials[number].user_attrs["traceback"] == text


# --- resume -------------------------------------------------------------------------------------------------


def test_resume_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    """The same command with a larger budget runs the rest: same folder, next number."""
    app = App(tmp_path)
    assert app.run("hydra.sweeper.n_trials=2").returncode == 0
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert [t.user_attrs["folder"] for t in assert_exactly(app, 4)] == [
        str(app.out / str(n)) for n in range(4)
    ]


@pytest.mark.slow
def test_resume_finds_a_folder_that_was_named_by_the_time(tmp_path: Path) -> None:
    """An app whose sweep folder holds date and time goes on in the folder where the study was begun."""
    app = App(tmp_path)
    app.configure("dir: out", "dir: multirun/${now:%H-%M-%S-%f}")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2").returncode == 0
    (folder,) = (tmp_path / "multirun").iterdir()
    done = app.run("hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert [t.user_attrs["folder"] for t in assert_exactly(app, 4)] == [
        str(folder / str(n)) for n in range(4)
    ]
    assert list((tmp_path / "multirun").iterdir()) == [folder]


@pytest.mark.slow
def test_resume_of_a_finished_study_runs_nothing(tmp_path: Path) -> None:
    """A spent budget stays spent."""
    app = App(tmp_path)
    for _ in range(2):
        done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2")
        assert done.returncode == 0, done.stderr
        assert len(assert_exactly(app, 2)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    mostly_slow(
        [
            ("hydra.sweeper.direction=maximize", ["hydra.sweeper.direction=maximize", "minimize"]),
            ("x=1,2", ["x=choice(1, 2)", "interval(0.0, 2.0)"]),
            ("y=1,2", ["y=choice(1, 2)", "without"]),
        ],
        3,
    ),
)
def test_resume_with_another_search_is_refused(tmp_path: Path, change: str, says: list[str]) -> None:
    """A changed direction or changed choices end with code 2 and one line that says what changed."""
    app = App(tmp_path)
    app.configure("x: 0.0\n", "x: 0.0\ny: 0\n")
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=1").returncode == 0
    before = app.journal.read_bytes()
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=2", change)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(text in line for text in says)
    assert app.journal.read_bytes() == before


@pytest.mark.slow
def test_resume_with_other_bounds_goes_on(tmp_path: Path) -> None:
    """Numeric bounds may change between runs; the change is logged."""
    app = App(tmp_path)
    assert app.run(*IN_PROCESS, "hydra.sweeper.n_trials=1").returncode == 0
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=3", "x=interval(10, 20)")
    assert done.returncode == 0, done.stderr
    assert "interval(10.0, 20.0)" in done.stdout + done.stderr
    assert all(10 <= t.params["x"] <= 20 for t in assert_exactly(app, 3)[1:])


# --- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", mostly_slow([signal.SIGINT, signal.SIGTERM], 2))
@pytest.mark.parametrize("settings", [(), IN_PROCESS], ids=["pool", "in_process"])
def test_stopped_sweep_goes_on_with_the_printed_command(
    tmp_path: Path, signum: signal.Signals, settings: tuple[str, ...]
) -> None:
    """Ctrl-C and SIGTERM end the running trials, queue them again, and print the best and how to go on."""
    app = App(tmp_path, HOLD)
    process = app.start(*settings)
    held = (2,) if settings else (2, 3)
    until(lambda: app.has_started(*held))
    kill_group(process, signum)
    done = finish(process)
    assert done.returncode == 128 + signum, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Best trial: number" in done.stdout
    trials = app.trials()
    assert not app.trials(TrialState.RUNNING)
    for number in held:
        assert trials[number].state == TrialState.FAIL
        assert "interrupted" in trials[number].user_attrs["reason"]
    queued = [t.system_attrs["fixed_params"]["x"] for t in app.trials(TrialState.WAITING)]
    assert sorted(queued) == sorted(trials[n].params["x"] for n in held)

    (command,) = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("Stopped")]
    python, script, *arguments = shlex.split(command)
    assert (python, script, arguments[0]) == ("python", "app.py", "-m")
    app.touch("go")
    resumed = app.run(*arguments[1:], *IN_PROCESS)
    assert resumed.returncode == 0, resumed.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_printed_command_names_a_study_that_was_named_by_the_time(tmp_path: Path) -> None:
    """Where nobody named the study, the command to go on names it: typed again it would begin another."""
    app = App(tmp_path, HOLD)
    app.configure("study_name: s\n", "study_name: null\n")
    app.configure("dir: out", "dir: multirun/${now:%H-%M-%S-%f}")
    process = app.start(*IN_PROCESS)
    until(lambda: app.has_started(2))
    kill_group(process, signal.SIGINT)
    done = finish(process)
    (command,) = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("Stopped")]
    app.touch("go")
    resumed = app.run(*shlex.split(command)[3:])
    assert resumed.returncode == 0, resumed.stderr
    storage = open_journal(app.journal)
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert sum(t.state in FINISHED for t in trials) == 6


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), IN_PROCESS], ids=["pool", "in_process"])
def test_second_signal_kills(tmp_path: Path, settings: tuple[str, ...]) -> None:
    """A task that will not stop is killed by the second Ctrl-C, and its process is gone."""
    stubborn = """
try:
    started()
    wait_for("go")
except BaseException:
    (HERE / f"stubborn-{number}").touch()
    wait_for("go")
"""
    app = App(tmp_path, stubborn)
    process = app.start(*settings)
    numbers = (0,) if settings else (0, 1)
    until(lambda: app.has_started(*numbers))
    pids = [worker_pid(t) for t in app.trials(TrialState.RUNNING)]
    kill_group(process, signal.SIGINT)
    until(lambda: all((tmp_path / f"stubborn-{n}").exists() for n in numbers))
    kill_group(process, signal.SIGINT)
    done = finish(process)
    assert done.returncode in (130, -signal.SIGINT)
    assert not any(is_running(pid) for pid in pids)
    if not settings:
        assert not app.trials(TrialState.RUNNING)
        assert len(app.trials(TrialState.WAITING)) == 2


def test_signal_while_workers_start(tmp_path: Path) -> None:
    """A Ctrl-C before the first trial ends at once, without a traceback."""
    (tmp_path / "slow.py").write_text(
        "from __main__ import HERE, wait_for\n(HERE / 'importing').touch()\nwait_for('never')\n"
    )
    app = App(tmp_path, top="preload = sweeper.hooks(preload=['slow'])")
    app.decorate("preload")
    process = app.start()
    until((tmp_path / "importing").exists)
    kill_group(process, signal.SIGINT)
    done = finish(process, 10)
    assert done.returncode == 130
    assert "Traceback" not in done.stdout + done.stderr
    assert not app.trials()


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_by_others_is_replaced(tmp_path: Path) -> None:
    """SIGTERM for one worker, which the pool did not send, is its death: the trial is tried again."""
    app = App(tmp_path, "started()\nif number == 0:\n    wait_for('go')\nreturn cfg.x")
    process = app.start("hydra.sweeper.n_jobs=1")
    until(lambda: app.has_started(0))
    os.kill(worker_pid(app.trials()[0]), signal.SIGTERM)
    done = finish(process)
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert trials[1].params == trials[0].params
    assert "SIGTERM" in trials[0].user_attrs["reason"]


@pytest.mark.slow
def test_parameters_whose_app_stops_its_worker_are_not_tried_for_ever(tmp_path: Path) -> None:
    """An app that sends SIGTERM to its own process is tried again ``max_retries`` times, and then left."""
    app = App(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)")
    done = app.run("hydra.sweeper.n_jobs=1", "hydra.sweeper.max_retries=2", "hydra.sweeper.n_trials=1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 trial failed" in done.stderr
    assert [t.user_attrs.get("n_retries", 0) for t in app.trials(TrialState.FAIL)] == [0, 1, 2]


@pytest.mark.slow
def test_the_end_of_the_terminal_stops_a_search(tmp_path: Path) -> None:
    """SIGHUP for the whole group, as when a terminal closes or ssh drops, is a request to stop."""
    app = App(tmp_path, HOLD)
    terminal = Terminal(tmp_path, "app.py", "-m", columns=100)
    until(lambda: app.has_started(2, 3))
    terminal.hang_up()
    until(lambda: terminal.process.poll() is not None, limit_s=20)
    assert terminal.process.returncode == 128 + signal.SIGHUP
    assert len(app.trials(TrialState.WAITING)) == 2
    assert not app.trials(TrialState.RUNNING)
    app.touch("go")
    done = app.run()
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_a_search_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    """Where SIGHUP was ignored from the start, it ends neither the search nor its workers."""
    app = App(tmp_path, HOLD)
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, "
    process = start(tmp_path, "-c", f"{code}[sys.executable, 'app.py', '-m'])")
    until(lambda: app.has_started(2, 3))
    kill_group(process, signal.SIGHUP)
    app.touch("go")
    done = finish(process)
    assert done.returncode == 0, done.stderr
    assert not [t for t in assert_exactly(app, 6) if t.state == TrialState.FAIL]


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["true", "grep -m1 -q 'trial .* done'", "grep -m1 -q 'Best trial'"])
def test_a_reader_that_is_gone_costs_neither_trials_nor_results(tmp_path: Path, reader: str) -> None:
    """Whenever the other end of a pipe closes, the search ends as without one, and without a traceback."""
    app = App(tmp_path, "time.sleep(0.3)\nreturn cfg.x")
    command = f"{shlex.quote(sys.executable)} app.py -m 2>err | {reader}"
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, check=False)
    assert (done.returncode, (tmp_path / "err").read_text()) == (0, "")
    assert_exactly(app, 6)
    assert list(tmp_path.glob("**/.sweeper/belief.json"))


@pytest.mark.slow
def test_a_reader_that_has_enough_does_not_end_the_search(tmp_path: Path) -> None:
    """With ``| head`` the first lines are read, and the search goes on to its end all the same."""
    app = App(tmp_path, HOLD)
    process = app.start()
    until(lambda: app.has_started(0, 1))
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    app.touch("go")
    done = finish(process)
    assert done.returncode == 0, done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_two_searches_that_nobody_named_are_two(tmp_path: Path) -> None:
    """Begun in the same moment, and so with the same name, each has its own study and folder."""
    app = App(tmp_path, "started()\nwait_for('go')\nreturn cfg.x")
    app.configure("study_name: s\n", "study_name: ${name}\n")
    app.configure("x: 0.0", "x: 0.0\nname: ${now:%Y}")
    app.configure("dir: out", "dir: out/${name}")
    processes = [app.start("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2") for _ in range(2)]
    until(lambda: app.has_written_study("*-2"))
    app.touch("go")
    for process in processes:
        done = finish(process)
        assert done.returncode == 0, done.stdout + done.stderr
    storage = open_journal(app.journal)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    assert len(names) == 2
    assert sorted(path.name for path in app.out.iterdir()) == sorted(names)
    for name in names:
        trials = optuna.load_study(study_name=name, storage=storage).trials
        assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
        assert {str(Path(t.user_attrs["folder"]).parent) for t in trials} == {str(app.out / name)}


@pytest.mark.slow
def test_one_of_two_studies_that_begin_in_one_folder_is_refused(tmp_path: Path) -> None:
    """Begun in the same moment, they do not mix: one runs as if it were alone, the other is told."""
    app = App(tmp_path)
    processes = [app.start(f"hydra.sweeper.study_name={name}") for name in ("a", "b")]
    done = sorted((finish(process) for process in processes), key=lambda d: d.returncode)
    assert [d.returncode for d in done] == [0, 2], [d.stderr for d in done]
    assert "is the folder of the study" in done[1].stderr
    (summary,) = optuna.get_all_study_summaries(open_journal(app.journal))
    assert summary.n_trials == 6
    assert {p.name for p in app.out.iterdir() if p.is_dir()} == {".sweeper", *map(str, range(6))}


@pytest.mark.slow
@pytest.mark.parametrize("names", [("s", "s"), ("a", "b")], ids=["one study", "two studies"])
def test_two_searches_that_begin_on_an_empty_database_both_work(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Neither the tables nor the study are created twice; searches on one study share its budget."""
    app = App(tmp_path)
    app.configure("dir: out", "dir: out/${hydra.sweeper.study_name}")
    storage = f"hydra.sweeper.storage=sqlite:///{tmp_path}/studies.db"
    processes = [
        app.start(storage, f"hydra.sweeper.study_name={name}", "hydra.sweeper.n_jobs=1") for name in names
    ]
    for process in processes:
        done = finish(process, 60)
        assert done.returncode == 0, done.stdout + done.stderr
    database = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/studies.db")
    for name in set(names):
        trials = optuna.load_study(study_name=name, storage=database).trials
        assert sum(t.state in FINISHED for t in trials) == 6


# --- bad input ----------------------------------------------------------------------------------------------

BAD = [
    (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
    (["hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs=0"),
    (["hydra.sweeper.n_jobs=two"], "hydra.sweeper.n_jobs=two"),
    (["hydra.sweeper.max_failure_rate=2"], "hydra.sweeper.max_failure_rate=2"),
    (["hydra.sweeper.direction=up"], "hydra.sweeper.direction=up"),
    (["hydra.sweeper.direction=[]"], "hydra.sweeper.direction=[]"),
    (["hydra.sweeper.direction=[minimize,maximize]", "hydra/sweeper/pruner=median"], "hydra/sweeper/pruner"),
    (["hydra.sweeper.in_process=true"], "hydra.sweeper.in_process"),
    (["hydra.sweeper.storage=memory"], "hydra.sweeper.storage=memory"),
    (["hydra.sweeper.storage=sqlite:////proc/none/x.db"], "hydra.sweeper.storage=sqlite"),
    (["hydra.sweeper.storage=sqlite:///../not-a-folder/x.db"], "hydra.sweeper.storage=sqlite"),
    (["hydra.sweeper.storage=nosuch://x"], "hydra.sweeper.storage=nosuch"),
    (["hydra.sweeper.sampler._target_=os.system"], "SWEEPER_ALLOW"),
    (["hydra.sweeper.sampler.n_startup_trials=few"], "hydra.sweeper.sampler"),
    (["hydra/sweeper/sampler=qmc", "hydra.sweeper.sampler.qmc_type=sobel"], "qmc_type=sobel"),
    (["hydra/sweeper/pruner=percentile", "hydra.sweeper.pruner.percentile=101"], "hydra.sweeper.pruner"),
    (["hydra/sweeper/sampler=grid"], "x=interval(0.0, 2.0)"),
    (
        ["hydra.sweeper.custom_search_space=nowhere.extend"],
        "hydra.sweeper.custom_search_space=nowhere.extend",
    ),
    (["hydra.sweeper.seed=-1"], "hydra.sweeper.seed=-1"),
    (["hydra.sweeper.study_name=s", "hydra.sweeper.timeout_s=-1"], "hydra.sweeper.timeout_s=-1"),
]

DRIVER = """
import contextlib, io, json, os, pathlib, runpy, sys
here = pathlib.Path.cwd()
told = []
for number, arguments in enumerate(json.load(sys.stdin)):
    folder = here / f"case-{number}"
    folder.mkdir()
    os.chdir(folder)
    sys.argv = ["app.py", "-m", *arguments]
    stderr, code = io.StringIO(), 0
    with contextlib.redirect_stderr(stderr):
        try:
            runpy.run_path(str(here / "app.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
    told.append([code, stderr.getvalue(), [str(path) for path in folder.rglob("*")]])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """Exit code, standard error and files of each bad command line, from one process: a start costs 1 s."""
    app = App(tmp_path_factory.mktemp("bad"))
    (app.folder / "not-a-folder").touch()
    cases = json.dumps([arguments for arguments, _ in BAD])
    done = run(app.folder, "-c", DRIVER, stdin=cases, limit_s=60)
    assert done.returncode == 0, done.stderr
    return cast(list[tuple[int, str, list[str]]], json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "number", mostly_slow(range(len(BAD)), 4), ids=[" ".join(arguments) for arguments, _ in BAD]
)
def test_bad_setting_is_one_line_and_writes_nothing(
    told: list[tuple[int, str, list[str]]], number: int
) -> None:
    """A setting that cannot work ends with code 2 and one line naming the key; nothing is left behind."""
    code, stderr, files = told[number]
    assert code == 2, stderr
    (line,) = stderr.splitlines()
    assert BAD[number][1] in line
    assert files == []


def test_bad_setting_shows_no_traceback(tmp_path: Path) -> None:
    """The same on the command line itself: code 2, one line, nothing written."""
    app = App(tmp_path)
    done = app.run("hydra.sweeper.n_trials=0")
    assert done.returncode == 2
    assert (
        done.stderr
        == "hydra.sweeper.n_trials=0: must be at least 1; write for example hydra.sweeper.n_trials=20\n"
    )
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.py", "app.yaml"]
