"""The opening command and its jobs: how they start, go on without it, end, and are added again.

The launchers are real: processes of submitit and joblib on this machine, a Slurm cluster of two nodes, a Ray
cluster of two. Each job is a pool of the app's own command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState

from sweeper.search import launch, opening
from sweeper.search.search import Search
from tests.foreign_app import App, assert_exactly
from tests.program import Done, Program, finish, until
from tests.ray_cluster import RayCluster, ray_cluster
from tests.server import PASSWORD, Postgres
from tests.slurm import Slurm, slurm

TOP = """
class Own:
    \"\"\"No pickle can hold it.\"\"\"

    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        raise TypeError("this cannot be pickled")


BEFORE = Own(1)
"""

BODY = """
sweeper.trial().set_user_attr("node", os.environ.get("SLURMD_NODENAME") or os.environ.get("SWEEPER_JOB", ""))
started()
if (HERE / "hold").exists():
    wait_for("go")
return Own(cfg.x).x
"""

QUICK = ("hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=10")
LOCAL = ("hydra/launcher=submitit_local", "hydra.sweeper.n_jobs=2", "hydra.sweeper.workers_per_job=1", *QUICK)


def app_of(folder: Path, holds: bool = False) -> App:
    app = App(folder, BODY, TOP)
    if holds:
        app.touch("hold")
    return app


def jobs_of(app: App) -> Counter[str]:
    """How many trials each job ran, by what says where it was."""
    return Counter(t.user_attrs["node"] for t in app.trials(TrialState.COMPLETE))


def attributes(app: App, beginning: str) -> dict[str, object]:
    said = app.study()._storage.get_study_system_attrs(app.study()._study_id)
    return {name: value for name, value in said.items() if name.startswith(beginning)}


def living_pools(app: App) -> list[str]:
    return [name for name, beat in attributes(app, "sweeper:beat:").items() if beat is not None]


def n_running(app: App) -> int:
    return len(app.trials(TrialState.RUNNING))


def search_of(**changes: Any) -> Search:
    settings: dict[str, Any] = {
        "study_name": "s",
        "storage": "x.journal",
        "folder": Path("/out"),
        "directions": ("minimize",),
        "metrics": None,
        "sampler": {},
        "pruner": {},
        "seed": None,
        "n_trials": 6,
        "deadline": None,
        "max_retries": 1,
        "max_failure_rate": 0.25,
        "custom_search_space": None,
    }
    return Search(**settings | changes)


def read_text(path: Path) -> str:
    """Of a file of a process, which may have ended."""
    with suppress(OSError):
        return path.read_text()
    return ""


def processes_in(folder: Path) -> list[int]:
    """Those that were started in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink().is_relative_to(folder.resolve()):
                found.append(int(path.parent.name))
    return found


def read_until(process: Program, piece: str) -> None:
    """Read what a program prints up to this piece."""
    assert process.stdout is not None
    for line in process.stdout:
        if piece in line:
            return
    raise AssertionError(finish(process).stderr)


@pytest.fixture(autouse=True)
def _ends_what_was_started(tmp_path: Path) -> Iterator[None]:
    """Jobs outlive the command that asked for them, so also a test that fails.

    And without accounting Slurm tells submitit of no end, for which the launching process would wait.
    """
    yield
    for pid in processes_in(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# --- without any engine -------------------------------------------------------------------------------------


def test_a_queue_is_read_by_its_comments() -> None:
    """Jobs of others are none of ours."""
    listing = "sweeper ab12\nsweeper ab12\nmine\n(null)\n"
    assert list(launch._batches(listing)) == ["ab12", "ab12"]


def test_how_jobs_ended_is_said_in_words() -> None:
    """Who cancels a job reads no negative exit code."""
    ends = [opening._told_code(code) for code in (1, -15, -99)]
    assert ends == ["ended with exit code 1", "were ended by SIGTERM", "were ended by signal 99"]


def test_the_words_of_a_job_name_the_study_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be read by everybody; and a job takes over from nobody."""
    url = "postgresql+psycopg://me:geheim@db/x"
    typed = ["app.py", "-m", "x=1,2", f"db={url}", "hydra.sweeper.take_over=true"]
    monkeypatch.setattr(sys, "orig_argv", ["python", *typed, f"hydra.sweeper.storage={url}"])
    search = search_of(study_name="s-2", storage=url, stored_by="db", folder_by="time")
    words = launch._words(search)
    assert words[:3] == ["app.py", "-m", "x=1,2"]
    assert words[3] == "db='${oc.env:SWEEPER_STORAGE}'"
    assert words[4:] == ["hydra.sweeper.study_name=s-2", f"hydra.sweep.dir={search.folder}"]


def test_the_words_of_a_job_are_read_as_they_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's grammar takes neither spaces nor umlauts without quotes."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "app.py", "-m"])
    folder = Path("/home/jörg/it's (my) work/runs")
    words = launch._words(search_of(study_name="größer als 2", folder=folder, folder_by="time"))
    read = OverridesParser.create().parse_overrides(words[2:])
    assert {each.key_or_group: each.value() for each in read} == {
        "hydra.sweeper.study_name": "größer als 2",
        "hydra.sweep.dir": str(folder),
    }


def test_a_job_joins_the_study_whose_name_was_made_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a resolver said to the command is what its jobs are told, as they would hear something else."""
    typed = ["+study='at ${now:%f}'", "x='${now:%f}'"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "app.py", "-m", *typed])
    words = launch._words(search_of(study_name="at 898210", named_by="study"))
    assert words[2:] == ["+study='at 898210'", "x='${now:%f}'"]


def test_a_launcher_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    """It names the package to install, also in an app of somebody else."""
    app = App(tmp_path)
    done = app.run("hydra/launcher=rq", *QUICK)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("hydra/launcher=rq: ")
    assert "pip install hydra-rq-launcher" in line


# --- submitit_local, joblib ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submitit_local", "joblib"])
def test_jobs_of_this_machine_share_a_study(tmp_path: Path, name: str) -> None:
    """An app with a class that does not pickle: its own command runs in each, and no trial twice."""
    app = app_of(tmp_path)
    done = app.run(*LOCAL, f"hydra/launcher={name}", "hydra.sweeper.n_trials=8", limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 8)
    assert "Best trial: number" in done.stdout
    assert len(attributes(app, "sweeper:job:")) == 2


@pytest.mark.slow
def test_the_jobs_go_on_without_the_command_that_asked_for_them(tmp_path: Path) -> None:
    """A terminal that is gone ends it; started again it shows them, and adds none that are there."""
    app = app_of(tmp_path, holds=True)
    process = app.start(*LOCAL)
    until(lambda: n_running(app) == 2, limit_s=90)
    process.send_signal(signal.SIGHUP)
    finish(process)
    again = app.start(*LOCAL)
    read_until(again, "2 jobs of submitit_local are there")
    app.touch("go")
    done = finish(again, limit_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)
    assert len(attributes(app, "sweeper:job:")) == 2


@pytest.mark.slow
def test_a_second_ctrl_c_stops_the_study_everywhere(tmp_path: Path) -> None:
    """The first one says so; the trials that ran are queued again at no cost of a retry."""
    app = app_of(tmp_path, holds=True)
    process = app.start(*LOCAL)
    until(lambda: n_running(app) == 2, limit_s=90)
    process.send_signal(signal.SIGINT)
    read_until(process, "Ctrl-C once more")
    assert n_running(app) == 2
    process.send_signal(signal.SIGINT)
    done = finish(process, limit_s=60)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "To go on: python app.py -m " in done.stdout
    assert not living_pools(app)
    assert len(app.trials(TrialState.WAITING)) == 2
    assert not any(t.user_attrs.get("n_retries") for t in app.trials(TrialState.WAITING))
    app.touch("go")
    done = app.run(*LOCAL, limit_s=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)


@pytest.mark.slow
def test_no_password_is_left_where_others_can_read_it(tmp_path: Path, postgres: Postgres) -> None:
    """Jobs find the server; its password is in no file of others, nor in the words of a process."""
    app = app_of(tmp_path, holds=True)
    process = app.start(*LOCAL, f"hydra.sweeper.storage={postgres.url}")
    until(lambda: app.has_started(0, 1), limit_s=90)
    told = [pid for pid in processes_in(app.folder) if PASSWORD in read_text(Path(f"/proc/{pid}/cmdline"))]
    assert told == [process.pid]  # who typed it there
    app.touch("go")
    done = finish(process, limit_s=90)
    assert done.returncode == 0, done.stdout + done.stderr
    readable = [path for path in app.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o044]
    assert not [path for path in readable if PASSWORD.encode() in path.read_bytes()]


OWN_LAUNCHER = """
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher


@dataclass
class Conf:
    _target_: str = "hydra_plugins.own.launcher.Own"
    waits_for: str = "."


ConfigStore.instance().store(group="hydra/launcher", name="own", node=Conf)


class Own(Launcher):
    def __init__(self, waits_for):
        self.waits_for = Path(waits_for)

    def setup(self, *, hydra_context, task_function, config):
        self.task = task_function

    def launch(self, job_overrides, initial_job_idx):
        while not self.waits_for.exists():
            time.sleep(0.01)
        with ThreadPoolExecutor() as threads:
            return list(threads.map(self.run, job_overrides))

    def run(self, overrides):
        return JobReturn(status=JobStatus.COMPLETED, _return_value=self.task(None))
"""
"""A launcher as a person writes it: jobs in threads, which are told no number, begin when a path is there."""


def app_with_own_launcher(folder: Path, top: str = "") -> App:
    """In a folder that is not easily written, and with one for each sweep that the time names."""
    home = folder / "Jörg's Büro"
    plugin = home / "hydra_plugins" / "own"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "launcher.py").write_text(OWN_LAUNCHER)
    app = App(home, BODY, TOP + top)
    app.configure("dir: out", "dir: out/${now:%H-%M-%S-%f}")
    return app


OWN = ("hydra/launcher=own", "hydra.sweeper.n_jobs=2", "hydra.sweeper.workers_per_job=1", *QUICK)


@pytest.mark.slow
def test_jobs_that_have_not_begun_hold_nobody_up(tmp_path: Path) -> None:
    """A stop does not wait for them, who starts it again gets others, and they end as they begin."""
    app = app_with_own_launcher(tmp_path)
    process = app.start(*OWN, "hydra.launcher.waits_for=later")
    read_until(process, "own is asked for 2 jobs")
    process.send_signal(signal.SIGINT)
    read_until(process, "Ctrl-C once more")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "2 jobs have not begun" in done.stdout
    done = app.run(*OWN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)
    app.touch("later")
    until(lambda: not processes_in(tmp_path))
    assert_exactly(app, 6)


@pytest.mark.slow
def test_why_a_job_does_not_begin_is_told(tmp_path: Path) -> None:
    """Also where the app raised before the search was asked."""
    app = app_with_own_launcher(tmp_path, 'if "SWEEPER_JOB" in os.environ:\n    import not_on_the_nodes\n')
    done = app.run(*OWN)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "exit code 1 before they joined the study: ModuleNotFoundError: No module named" in line


# --- Slurm --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as started:
        yield started


SLURM = (
    *("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.launcher.cpus_per_task=2"),
    *("hydra.sweeper.workers_per_job=1", *QUICK),
)


N_30 = ["hydra.sweeper.n_trials=30"]


def on_slurm(app: App, cluster: Slurm, *arguments: str) -> Program:
    return app.start(*SLURM, *arguments, env=cluster.environment)


@pytest.mark.slow
def test_thirty_trials_run_on_two_nodes_of_slurm(tmp_path: Path, cluster: Slurm) -> None:
    """None twice, and a pool that is started by hand joins meanwhile."""
    app = app_of(tmp_path, holds=True)
    process = on_slurm(app, cluster, *N_30)
    until(lambda: n_running(app) == 2, limit_s=90)
    by_hand = app.start(
        "hydra.sweeper.n_trials=30", "hydra.sweeper.join=true", "hydra.sweeper.n_jobs=1", *QUICK
    )
    until(lambda: n_running(app) == 3, limit_s=60)
    app.touch("go")
    for each in (process, by_hand):
        done = finish(each, limit_s=90)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 30)
    assert {"n1", "n2", ""} <= jobs_of(app).keys()


@pytest.mark.slow
def test_a_cancelled_job_gives_its_trial_to_the_other(tmp_path: Path, cluster: Slurm) -> None:
    """At no cost of a retry, and nothing of it is left behind."""
    app = app_of(tmp_path, holds=True)
    process = on_slurm(app, cluster)
    until(lambda: n_running(app) == 2, limit_s=90)
    cancelled, *_ = cluster.queue("RUNNING")
    cluster.command("scancel", cancelled)
    until(lambda: len(app.trials(TrialState.FAIL)) == 1, limit_s=60)
    (stopped,) = app.trials(TrialState.FAIL)
    assert stopped.user_attrs["interrupted"]
    app.touch("go")
    done = finish(process, limit_s=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 6)
    assert len(jobs_of(app)) == 1


def finish_without_delay(cluster: Slurm, process: Program) -> Done:
    """Slurm lets two minutes pass before it starts a job again: say that it may at once."""

    def has_ended() -> bool:
        for job in cluster.queue("PENDING"):
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        return process.poll() is not None

    until(has_ended, limit_s=90)
    return finish(process)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a job of more weight", "its time is over"])
def test_a_job_that_has_to_go_comes_back(tmp_path: Path, cluster: Slurm, kind: str) -> None:
    """Its trial is queued again at no cost of a retry, and the job joins again."""
    app = app_of(tmp_path, holds=True)
    process = on_slurm(app, cluster)
    until(lambda: n_running(app) == 2, limit_s=90)
    if kind == "its time is over":
        for job in cluster.queue("RUNNING"):
            cluster.command("scancel", "--signal=USR2", job)  # as Slurm sends it before the end
        until(lambda: len(app.trials(TrialState.FAIL)) == 2, limit_s=60)
    else:
        both = ["-p", "high", "-N2", "-n2", "-c2"]
        cluster.command("sbatch", *both, "--output=/dev/null", "--wrap=true")
        until(lambda: len(app.trials(TrialState.FAIL)) == 2, limit_s=60)
    app.touch("go")
    done = finish_without_delay(cluster, process)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = assert_exactly(app, 6)
    assert all(t.user_attrs["interrupted"] for t in ended if t.state == TrialState.FAIL)
    assert not any(t.user_attrs.get("n_retries") for t in ended)


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(tmp_path: Path, cluster: Slurm) -> None:
    """A partition that there is not: nothing runs, and the exit code is 2."""
    app = app_of(tmp_path)
    done = finish(on_slurm(app, cluster, "hydra.launcher.partition=nowhere"), limit_s=90)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("hydra/launcher=submitit_slurm: ")
    assert "invalid partition" in line


# --- Ray ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rays() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        yield started


@pytest.mark.slow
def test_a_node_that_ray_loses_gives_its_trial_to_the_other(tmp_path: Path, rays: RayCluster) -> None:
    """Both nodes run trials; what ran on the one that goes down is tried again."""
    app = app_of(tmp_path, holds=True)
    process = app.start(
        *("hydra/launcher=ray", f"hydra.launcher.ray.init.address={rays.address}", "hydra.sweeper.n_jobs=2"),
        *("hydra.sweeper.n_trials=12", *QUICK),
    )
    until(lambda: n_running(app) == 2, limit_s=120)
    rays.remove(1)
    until(lambda: len(app.trials(TrialState.FAIL)) == 1, limit_s=60)
    app.touch("go")
    done = finish(process, limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_exactly(app, 12)
