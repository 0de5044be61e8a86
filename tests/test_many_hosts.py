"""Hosts that share nothing but a storage: one budget, whoever dies, stops, comes late or is cut off."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import Plan
from sweeper.search import life
from tests import planned
from tests.foreign_app import FINISHED, App
from tests.program import Done, Program, finish, kill_group, run, start, until
from tests.server import Journal, Postgres, Proxy, opened
from tests.server import trials as stored

pytestmark = pytest.mark.slow

N_TRIALS = 30
N_WORKERS = 2
"""Of each host, as the app has it."""
LIMIT_S = 120

BODY = """
import socket
def note(what):
    with open(HERE.parent / "log", "a") as log:
        log.write(f"{number} {socket.gethostname()} {what} {os.getpid()}\\n")
note("began")
wait_for("../go")
time.sleep(0.1)
note("ended")
return cfg.x
"""

UNSHARE = "import os, sys; os.execvp('unshare', ['unshare', '--mount', '--uts', 'sh', '-c', sys.argv[1]])"
QUICK = ("hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=3")


@pytest.fixture
def hosts(tmp_path: Path, server: Postgres | Proxy) -> Iterator[Hosts]:
    """Two hosts with a folder of their own each, on PostgreSQL and behind a proxy."""
    yield from _hosts(tmp_path, server)


@pytest.fixture
def few(tmp_path: Path, postgres: Postgres) -> Iterator[Hosts]:
    """The same, on PostgreSQL alone."""
    yield from _hosts(tmp_path, postgres)


def _hosts(folder: Path, server: Postgres | Proxy) -> Iterator[Hosts]:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another host name needs unshare and root")
    hosts = Hosts(folder, server)
    yield hosts
    hosts.end()


class Hosts:
    """Machines, for all that a search can know: each with a name and a folder of its own, and one server."""

    def __init__(self, folder: Path, server: Postgres | Proxy | Journal) -> None:
        self.folder, self.server = folder, server
        self._started: list[Program] = []

    def app(self, host: str, body: str = BODY) -> App:
        """The app as it was installed on that host."""
        folder = self.folder / host
        if not (folder / "app.py").exists():
            folder.mkdir(exist_ok=True)
            app = App(folder, body)
            app.configure("study_name: s", "study_name: s\n    storage: ${oc.env:STORAGE}")
            app.configure("n_trials: 6", f"n_trials: {N_TRIALS}")
            app.configure("n_jobs: 2", f"n_jobs: {N_WORKERS}")
            return app
        return _installed(folder)

    def start(self, host: str, *arguments: str, folder: str | None = None, hides: bool = False) -> Program:
        """The app's search on a host of that name.

        Args:
            folder: the host whose folder it shares; its own by default.
            hides: whether the locks of the other hosts in that folder are out of its sight.
        """
        app = self.app(folder or host)
        steps = [f"hostname {host}"]
        for other in {self.folder / name for name in ("a", "b", "c")} - {app.folder}:  # out of its sight
            steps.append(f"mkdir -p {other} && mount -t tmpfs none {other}")
        if hides:
            steps.append(f"mkdir -p {app.out}/.sweeper && mount -t tmpfs none {app.out}/.sweeper")
        words = [sys.executable, "app.py", "-m", *QUICK, *arguments]
        command = " && ".join([*steps, f"exec {shlex.join(words)}"])
        env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "STORAGE": self.server.url}
        self._started.append(process := start(app.folder, "-c", UNSHARE, command, env=env))
        return process

    def end(self) -> None:
        """Nothing of them is left."""
        for process in self._started:
            kill_group(process, signal.SIGCONT)
            kill_group(process)
            with process:  # closes what it printed
                pass

    def go(self) -> None:
        (self.folder / "go").touch()

    def log(self, what: str) -> list[tuple[int, str]]:
        """The trials that began, or ended, and on which host, as the app itself has noted it."""
        path = self.folder / "log"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(number), host) for number, host, said, _ in lines if said == what]

    def wait_for_all(self, *names: str) -> None:
        """Until each of these hosts has begun a trial."""
        until(lambda: set(names) <= {host for _, host in self.log("began")}, limit_s=LIMIT_S)

    def wait_for_rest(self, *names: str) -> None:
        """Until each worker of these hosts is in a trial: before :meth:`go` none of them asks for another."""

        def busy() -> bool:
            n_begun = Counter(host for _, host in self.log("began"))
            return all(n_begun[name] == N_WORKERS for name in names)

        until(busy, limit_s=LIMIT_S)

    def wait_for_ended(self, n: int) -> None:
        until(lambda: len(self.log("ended")) >= n, limit_s=LIMIT_S)

    @property
    def _database(self) -> str:
        """Behind the proxy, where there is one."""
        return self.server.url if isinstance(self.server, Postgres) else self.server.database

    def trials(self, name: str = "s") -> list[FrozenTrial]:
        """As plain Optuna reads them."""
        return stored(self._database, name)

    def wait_for_failed(self, numbers: set[int]) -> None:
        """Until all of these trials were ended by others."""
        with opened(self._database) as storage:
            study_id = storage.get_study_id_from_name("s")

            def failed() -> set[int]:
                trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.FAIL,))
                return {t.number for t in trials}

            until(lambda: numbers <= failed(), limit_s=LIMIT_S)

    def ask_to_stop(self) -> None:
        """The mark in the storage, as the opening command's second Ctrl-C sets it."""
        with opened(self._database) as storage:
            life.stop(storage, storage.get_study_id_from_name("s"))


def _installed(folder: Path) -> App:
    app = App.__new__(App)
    app.folder = folder
    return app


def succeeded(*processes: Program) -> list[Done]:
    """All of them, to their end."""
    done = [finish(process, LIMIT_S) for process in processes]
    for one in done:
        assert one.returncode == 0, one.stdout + one.stderr
        assert "Traceback" not in one.stdout + one.stderr
    return done


def assert_spent(hosts: Hosts, n_trials: int = N_TRIALS, name: str = "s") -> list[FrozenTrial]:
    """Exactly so many finished, no parameters twice, nothing is open, and what was given back never ran.

    Returns:
        the trials that people see.
    """
    trials = hosts.trials(name)
    told = Counter(t.state.name for t in trials)
    done = [t for t in trials if t.state in FINISHED]
    assert len(done) == n_trials, told
    assert not [t.number for t in trials if not t.state.is_finished()], told
    assert [t.number for t in trials] == list(range(len(trials)))
    surplus = {t.number for t in trials if t.user_attrs.get("surplus")}
    assert not surplus & {number for number, _ in hosts.log("began")}
    assert all(t.state == TrialState.FAIL for t in trials if t.number in surplus)
    began = Counter(number for number, _ in hosts.log("began"))
    assert max(began.values()) == 1, "a trial ran twice"
    firsts = [_first(t, trials) for t in done]
    assert len(set(firsts)) == n_trials, "parameters were finished twice"
    return [t for t in trials if t.number not in surplus]


def _first(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    while (before := trial.user_attrs.get("retry_of")) is not None:
        trial = trials[before]
    return trial.number


def assert_shown_alike(hosts: Hosts, *names: str) -> None:
    """``best`` and ``report`` tell the same on all hosts."""
    told = [_best(hosts, name) for name in names]
    assert told[0] == told[1], told
    reports = [_report(hosts, name) for name in names]
    assert [pair for pair in zip(*reports, strict=True) if pair[0] != pair[1]] == []


def _tell(hosts: Hosts, host: str, *words: str) -> str:
    env = {"STORAGE": hosts.server.url, "OMP_NUM_THREADS": "1"}
    done = run(hosts.folder / host, "-m", "sweeper", *words, env=env, limit_s=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _best(hosts: Hosts, host: str) -> str:
    return _tell(hosts, host, "best", "out").replace(str(hosts.folder / host), "HERE")


def _report(hosts: Hosts, host: str) -> list[str]:
    """The numbers of the report, but for the time and the place at which it was written."""
    _tell(hosts, host, "report", "out")
    text = (hosts.folder / host / "out" / "report.html").read_text()
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", "TIME", text)
    # The folder in which it was begun is there on both: they are one machine in truth.
    text = re.sub(f"{re.escape(str(hosts.folder))}/[ab]", "HERE", text)
    return text.replace("<", "\n<").splitlines()


# --- two hosts ----------------------------------------------------------------------------------------------


def test_two_hosts_share_one_budget(hosts: Hosts) -> None:
    """They begin in the same second: 30 of 30, none twice, and best and report are the same from both."""
    both = [hosts.start("a"), hosts.start("b")]
    hosts.wait_for_all("a", "b")
    hosts.go()
    succeeded(*both)
    trials = assert_spent(hosts)
    assert len(trials) == N_TRIALS, "none failed"
    assert {host for _, host in hosts.log("ended")} == {"a", "b"}
    assert_shown_alike(hosts, "a", "b")


LATER = BODY.replace(
    'wait_for("../go")',
    'wait_for("../go" if not (HERE / f"ran-{os.getpid()}").exists() else "../never")\n'
    '(HERE / f"ran-{os.getpid()}").touch()',
)
"""Each worker ends one trial, and none after it."""


def test_what_may_happen_to_a_server_and_a_host(hosts: Hosts) -> None:
    """The server away for longer than the grace costs nothing, and all say so once. ``kill -9`` of all on one
    host, when the other has nothing else to do: that one repeats what ran there, and says where that was."""
    hosts.app("b", LATER)
    a, b = hosts.start("a"), hosts.start("b")
    hosts.wait_for_all("a", "b")
    hosts.server.stop()
    hosts.go()
    until_passed(5)
    hosts.server.start()
    hosts.wait_for_ended(N_TRIALS - 2)
    kill_group(b)
    (done,) = succeeded(a)
    assert done.stderr.count("trying again") + done.stdout.count("trying again") <= 1
    trials = assert_spent(hosts)
    lost = {t.number: t for t in trials if t.state == TrialState.FAIL}
    assert 1 <= len(lost) <= 2, "what the workers of b had, and nobody died of the server that was away"
    assert all("host b" in t.user_attrs["reason"] for t in lost.values())
    drawn = {number for number, t in lost.items() if t.params}  # else there is nothing to repeat
    assert {t.user_attrs.get("retry_of") for t in trials} == {None, *drawn}


def test_a_host_that_was_stopped_finds_its_trials_ended(few: Hosts) -> None:
    """For longer than the grace, and then goes on: it drops what it has, and takes part again."""
    a, b = few.start("a"), few.start("b")
    few.wait_for_rest("a", "b")
    held = {number for number, host in few.log("began") if host == "b"}
    kill_group(b, signal.SIGSTOP)
    few.wait_for_failed(held)
    kill_group(b, signal.SIGCONT)
    few.go()
    succeeded(a, b)
    trials = assert_spent(few)
    assert {t.number for t in trials if t.state == TrialState.FAIL} == held
    assert not any((few.folder / "b" / "out" / str(number) / "weights.pt").exists() for number in held)


def test_hosts_join_leave_and_are_stopped(few: Hosts) -> None:
    """None joins what nobody has begun. The mark stops all, Ctrl-C one of them: what ran is queued again, at
    no cost of a retry, and whoever goes on runs it."""
    assert finish(few.start("c", "hydra.sweeper.join=true"), LIMIT_S).returncode == 2
    a = few.start("a")
    few.wait_for_all("a")
    b = few.start("b", "hydra.sweeper.join=true")
    few.wait_for_rest("a", "b")
    few.ask_to_stop()
    for process in (a, b):
        assert finish(process, LIMIT_S).returncode == 143
    stopped = {t.number for t in few.trials() if t.state == TrialState.FAIL}
    assert stopped == {number for number, _ in few.log("began")}
    assert not [t for t in few.trials() if t.state == TrialState.RUNNING]
    (few.folder / "log").rename(few.folder / "log of the stopped")
    a, b = few.start("a"), few.start("b", "hydra.sweeper.join=true")
    few.wait_for_rest("a", "b")
    held = {number for number, host in few.log("began") if host == "a"}
    kill_group(a, signal.SIGINT)
    assert finish(a, LIMIT_S).returncode == 130
    few.go()
    succeeded(b)
    trials = assert_spent(few)
    assert {t.number for t in trials if t.state == TrialState.FAIL} == stopped | held
    assert all(trials[number].user_attrs["interrupted"] for number in stopped | held)
    assert {t.user_attrs.get("n_retries", 0) for t in trials} == {0}


def test_two_hosts_in_one_folder_go_through_a_grid_once(few: Hosts) -> None:
    """On a network's disk, whose locks reach nobody else: each point is tried by one of them, in a folder of
    its own."""
    grid = ("hydra/sweeper/sampler=grid", f"x=range(0,{N_TRIALS})", "hydra.sweeper.n_trials=100")
    few.app("a").configure("params:\n      x: interval(0, 2)", "params: null")
    both = [few.start("a", *grid), few.start("b", *grid, folder="a", hides=True)]
    few.wait_for_all("a", "b")
    few.go()
    succeeded(*both)
    trials = assert_spent(few)
    done = [t for t in trials if t.state in FINISHED]
    assert sorted(t.params["x"] for t in done) == list(range(N_TRIALS))
    assert len({t.user_attrs["folder"] for t in trials}) == len(trials) == N_TRIALS


def test_two_hosts_train_what_a_certificate_plans(few: Hosts) -> None:
    """None twice, none left out, until the race is over."""
    plan = planned.of_trials({"x": 0.5}, {"x": 1.5}, n_seeds=4)
    for host in ("a", "b"):
        few.app(host)
        put(few, host, plan)
    both = [few.start(host, *planned.ARGUMENTS) for host in ("a", "b")]
    few.wait_for_all("a", "b")
    few.go()
    succeeded(*both)
    trials = [t for t in few.trials(planned.NAME) if not t.user_attrs.get("surplus")]
    n_done = sum(t.state in FINISHED for t in trials)
    assert 3 <= n_done <= plan.n_trainings
    planned.assert_trained(trials, n_done)
    assert plan.next_training(trials, ["minimize"]) is None, "the race is over"
    assert {host for _, host in few.log("ended")} == {"a", "b"}


def put(hosts: Hosts, host: str, plan: Plan) -> None:
    files = StudyFiles(hosts.folder / host / planned.NAME)
    files.mark(planned.NAME, hosts.server.url)
    replace(plan, folder=str(hosts.folder / host / "out")).write(files)


def until_passed(seconds: float) -> None:
    """The time itself is what is waited for."""
    limit = time.monotonic() + seconds
    until(lambda: time.monotonic() > limit, limit_s=seconds + 5)
