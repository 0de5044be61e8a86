"""One study: seeds, samplers and pruners, resuming, the budget, and the trials of the dead."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.trial import TrialState

from sweeper import origin
from sweeper.errors import BadInput
from sweeper.record.study_files import StudyFiles
from sweeper.search.engine import VARIABLE, Order
from sweeper.search.journal import JournalBackend
from sweeper.search.ledger import POOL
from sweeper.search.locked_study import Worker
from sweeper.search.look import seen
from sweeper.search.parameter import suggest
from sweeper.search.search import Search
from sweeper.search.space import Space
from sweeper.search.study import Study
from tests.program import finish, run, start_holding

MakeSpace = Callable[..., Space]
MakeSearch = Callable[..., Search]


@pytest.fixture
def make_search(tmp_path: Path) -> MakeSearch:
    """The settings of a sweep, with the given ones changed."""

    def make(**changed: Any) -> Search:
        settings: dict[str, Any] = {
            "study_name": "name",
            "storage": "memory",
            "folder": tmp_path / changed.get("study_name", "name"),
            "directions": ("minimize",),
            "metrics": None,
            "sampler": {"_target_": "optuna.samplers.RandomSampler"},
            "pruner": {"_target_": "optuna.pruners.NopPruner"},
            "seed": 0,
            "n_trials": 4,
            "deadline": None,
            "max_retries": 1,
            "max_failure_rate": 0.25,
            "custom_search_space": None,
        }
        return Search(**{**settings, **changed})

    return make


@pytest.fixture(scope="module")
def conditional(make_space: MakeSpace) -> Space:
    """momentum exists where sgd does."""
    files = {
        "config": {
            "defaults": ["_self_", {"optimizer": "adam"}, {"override hydra/sweeper": "sweeper_optuna"}],
            "optimizer": {"lr": 0.1},
        },
        "optimizer/adam": {"name": "adam"},
        "optimizer/sgd": "# @package _global_\n"
        "optimizer: {name: sgd, momentum: 0.9}\n"
        "hydra: {sweeper: {params: {optimizer.momentum: 'interval(0.5, 0.9)'}}}\n",
    }
    return make_space(files, "optimizer=adam,sgd", "optimizer.lr=tag(log,interval(1e-4,1))")


def begin(search: Search, space: Space, storage: BaseStorage | None = None) -> Study:
    return Study.open(search, storage or InMemoryStorage(), space, list(space.fixed))


def run_next(study: Study, space: Space, worker: Worker) -> dict[str, Any] | None:
    """Ask, draw and tell; what was drawn, or None when there is nothing more to do."""
    trial = study.ask(space, worker)
    if trial is None:
        return None
    params = space.draw(suggest(trial)).params
    study.tell(trial.number, TrialState.COMPLETE, [0.0])
    return params


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.trials()]


@pytest.fixture
def worker(make_search: MakeSearch) -> Iterator[Worker]:
    """This process as a worker."""
    worker = Worker(make_search())
    yield worker
    worker.end()


DIE = """
import sys
from pathlib import Path
from sweeper.lock import Heartbeat
Heartbeat(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def dead(make_search: MakeSearch, tmp_path: Path) -> Worker:
    """A worker whose process has ended, leaving its file."""
    return make_dead(make_search(), tmp_path, socket.gethostname())


def make_dead(search: Search, tmp_path: Path, host: str) -> Worker:
    """A worker of that host, which has ended."""
    folder = StudyFiles(search.folder).heartbeats
    worker = Worker(search)
    worker.end()
    worker.name = f"{host}-1-dead"
    assert run(tmp_path, "-c", DIE, folder, worker.name).returncode == 0
    assert (folder / f"{worker.name}.alive").exists()
    return worker


# --- seeds --------------------------------------------------------------------------------------------------


def drawn(search: Search, space: Space, turns: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What each trial draws where workers take turns: a worker ends its trial, and asks for the next."""
    storage = InMemoryStorage()
    begin(search, space, storage)
    workers = {turn: Worker(search) for turn in set(turns)}
    own_studies = {turn: Study.load(search, storage) for turn in turns}
    running: dict[int, optuna.Trial] = {}
    points = {}
    for turn in turns:
        if turn in running:
            number = running[turn].number
            own_studies[turn].tell(number, TrialState.COMPLETE, [float(number)])
        trial = own_studies[turn].ask(space, workers[turn])
        assert trial is not None
        points[trial.number] = space.draw(suggest(trial)).params
        running[turn] = trial
    for worker in workers.values():
        worker.end()
    return points


@pytest.mark.parametrize("target", ["RandomSampler", "QMCSampler"])
def test_seed_and_number_decide_the_point(
    make_search: MakeSearch, conditional: Space, tmp_path: Path, target: str
) -> None:
    """A (quasi-)random search draws the same points with 1 worker and with 3, in whatever order they run."""
    search = make_search(n_trials=8, sampler={"_target_": f"optuna.samplers.{target}"})
    one = drawn(search, conditional, [0] * 8)
    three = drawn(replace(search, folder=tmp_path / "b"), conditional, [0, 1, 2, 2, 0, 2, 1, 0])
    assert one == three
    assert len({str(params) for params in one.values()}) == 8


def test_another_seed_draws_other_points(make_search: MakeSearch, plain: Space, tmp_path: Path) -> None:
    """The seed changes the points of a random search; none at all draws afresh each time."""
    found = [
        drawn(make_search(n_trials=3, seed=seed, folder=tmp_path / str(i)), plain, [0] * 3)
        for i, seed in enumerate([0, 1, None, None])
    ]
    assert len({str(params) for params in found}) == 4


def test_quasi_random_covers_conditional_ranges(make_search: MakeSearch, conditional: Space) -> None:
    """32 points hit every part of every range, also of the range that only half of the trials have."""
    search = make_search(n_trials=32, sampler={"_target_": "optuna.samplers.QMCSampler", "scramble": True})
    points = list(drawn(search, conditional, [0] * 32).values())
    momenta = [params["optimizer.momentum"] for params in points if params["optimizer"] == "sgd"]
    assert len(momenta) == 16
    assert {int((momentum - 0.5) / 0.4 * 4) for momentum in momenta} == {0, 1, 2, 3}
    decades = {math.floor(math.log10(params["optimizer.lr"])) for params in points}
    assert decades == {-4, -3, -2, -1}


# --- resuming -----------------------------------------------------------------------------------------------


def resumed(
    search: Search, make_space: MakeSpace, before: list[str], after: list[str], **changed: Any
) -> None:
    files = {"config": {"x": 0.0, "n": 1, "c": "a", "y": 0.0}}
    storage = InMemoryStorage()
    begin(search, make_space(files, *before), storage)
    begin(replace(search, **changed), make_space(files, *after), storage)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            ["c=a,b"],
            ["c=a,b,d"],
            r"^c=choice\(a, b, d\): the study was started with choice\(a, b\); write it as before",
        ),
        (
            ["x=interval(0,1)"],
            ["x=0.1,0.2"],
            r"^x=choice\(0\.1, 0\.2\): the study was started with interval\(0\.0, 1\.0\)",
        ),
        (
            ["x=interval(1,2)"],
            ["x=tag(log,interval(1,2))"],
            r"^x=tag\(log, interval\(1\.0, 2\.0\)\): .* interval\(1\.0",
        ),
        (
            ["n=range(3)"],
            ["n=interval(0,3)"],
            r"^n=interval\(0\.0, 3\.0\): the study was started with range\(0",
        ),
        (
            ["c=a,b"],
            ["c=a,b", "y=interval(0,1)"],
            r"^y=interval\(0\.0, 1\.0\): the study was started without",
        ),
        (
            ["c=a,b", "y=interval(0,1)"],
            ["c=a,b", "y=0.5"],
            r"^y=not searched: the study was started with interval",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_resume_with_another_search_is_bad_input(
    make_search: MakeSearch,
    make_space: MakeSpace,
    caplog: pytest.LogCaptureFixture,
    before: list[str],
    after: list[str],
    message: str,
) -> None:
    """Other choices, another kind of range, a parameter more or less: the error names both, and is all that
    is said, whatever else differs.
    """
    with caplog.at_level(logging.WARNING), pytest.raises(BadInput, match=message):
        resumed(make_search(), make_space, ["+a=interval(0,1)", *before], ["+a=interval(0,2)", *after])
    assert caplog.messages == []


def test_a_resume_in_another_direction_is_bad_input(make_search: MakeSearch, make_space: MakeSpace) -> None:
    """The direction of a study cannot change."""
    message = (
        r"^hydra\.sweeper\.direction=maximize: the study was started with minimize; .*another study than name"
    )
    with pytest.raises(BadInput, match=message):
        resumed(make_search(), make_space, ["c=a,b"], ["c=a,b"], directions=("maximize",))


def test_a_resume_with_another_metric_is_bad_input(make_search: MakeSearch, make_space: MakeSpace) -> None:
    """What the values are called cannot change, where it was said."""
    with pytest.raises(
        BadInput, match=r"^hydra\.sweeper\.metric_names=accuracy: the study was started with loss"
    ):
        resumed(make_search(metrics=("loss",)), make_space, ["c=a,b"], ["c=a,b"], metrics=("accuracy",))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "x=interval(0,1)",
            "x=interval(0,5)",
            "x: the bounds are now interval(0.0, 5.0), before: interval(0.0, 1.0)",
        ),
        (
            "n=range(3)",
            "n=range(8)",
            "n: the bounds are now range(0 … 7, step=1), before: range(0 … 2, step=1)",
        ),
        ("y=0.5", "y=0.75", "name goes on with other values: y=0.75; before: y=0.5"),
    ],
)
def test_a_resume_with_other_numbers_is_logged(
    make_search: MakeSearch,
    make_space: MakeSpace,
    caplog: pytest.LogCaptureFixture,
    before: str,
    after: str,
    message: str,
) -> None:
    """Numeric bounds and plain values may change, and the log says so."""
    with caplog.at_level(logging.WARNING):
        resumed(make_search(), make_space, [before], [after])
    assert message in caplog.messages


def test_a_resume_goes_on(make_search: MakeSearch, plain: Space, worker: Worker) -> None:
    """The same study opened again has its trials, the next number and the rest of the budget."""
    search, storage = make_search(n_trials=3), InMemoryStorage()
    study = begin(search, plain, storage)
    run_next(study, plain, worker)
    again = begin(search, plain, storage)
    while run_next(again, plain, worker):
        pass
    assert [trial.number for trial in again.trials()] == [0, 1, 2]


def test_a_study_of_an_earlier_version_goes_on(make_search: MakeSearch, make_space: MakeSpace) -> None:
    """A study that says in one JSON attribute how it was begun goes on, checked as ever."""
    space, other = (make_space({"config": {"c": "a"}}, f"c={choices}") for choices in ("a,b", "a,d"))
    search, new, old = make_search(), InMemoryStorage(), InMemoryStorage()
    begun = origin.read(new, begin(search, space, new).optuna._study_id)
    study = optuna.create_study(study_name="name", storage=old)
    study.set_user_attr("sweeper", begun)
    study.tell(study.ask(), 1.0)
    with pytest.raises(BadInput, match=r"^c=choice\(a, d\): the study was started with choice\(a, b\)"):
        begin(search, other, old)
    assert len(begin(search, space, old).trials()) == 1
    assert study.user_attrs["searched c"] == "a, b"


def test_a_study_keeps_its_folder(make_search: MakeSearch, plain: Space, tmp_path: Path) -> None:
    """Resumed under an output folder named by the time, a study goes on in the folder where it was begun."""
    search, storage = make_search(), InMemoryStorage()
    begin(search, plain, storage)
    later = replace(search, folder=tmp_path / "another-time")
    assert later.in_its_folder(storage).folder == search.folder
    assert replace(later, study_name="new").in_its_folder(storage).folder == later.folder


# --- budget -------------------------------------------------------------------------------------------------


def test_the_budget_counts_complete_and_pruned(make_search: MakeSearch, plain: Space, worker: Worker) -> None:
    """COMPLETE, PRUNED and running trials take up the budget; failed ones are replaced."""
    search = make_search(n_trials=2, max_failure_rate=1.0)
    study = begin(search, plain)
    for state, values in [(TrialState.FAIL, None), (TrialState.PRUNED, None)]:
        trial = study.ask(plain, worker)
        assert trial is not None
        study.tell(trial.number, state, values)
    running = study.ask(plain, worker)
    assert running is not None
    assert study.ask(plain, worker) is None
    study.tell(running.number, TrialState.FAIL)
    assert run_next(study, plain, worker) is not None
    assert study.ask(plain, worker) is None
    assert states(study) == ["FAIL", "PRUNED", "FAIL", "COMPLETE"]


def test_no_limit_is_no_limit(make_search: MakeSearch, plain: Space, worker: Worker) -> None:
    """With n_trials=null there is always room."""
    search = make_search(n_trials=None)
    study = begin(search, plain)
    for _ in range(5):
        assert run_next(study, plain, worker) is not None


def test_a_study_out_of_time_is_over(make_search: MakeSearch, plain: Space) -> None:
    """After the deadline nothing begins."""
    study = begin(make_search(), plain)
    assert Study(make_search(deadline=1.0), study.optuna).is_over()
    assert not Study(make_search(deadline=1e12), study.optuna).is_over()


@pytest.mark.parametrize(("n_failed", "is_over"), [(2, False), (3, True)])
def test_too_many_failures_end_a_study(
    make_search: MakeSearch, plain: Space, worker: Worker, n_failed: int, is_over: bool
) -> None:
    """More than max_failure_rate failed: over; what was interrupted, or killed early, does not count."""
    search = make_search(n_trials=8)
    study = begin(search, plain)
    for _ in range(n_failed):
        trial = study.ask(plain, worker)
        assert trial is not None
        study.tell(trial.number, TrialState.FAIL, attributes={"traceback": "broken"})
    for _ in range(4):
        trial = study.ask(plain, worker)
        assert trial is not None
        study.tell_interrupted(trial.number, "Ctrl-C")
    for _ in range(4):
        trial = study.ask(plain, worker)
        assert trial is not None
        study.tell(trial.number, TrialState.FAIL, attributes={"reason": "its worker was ended by SIGKILL"})
    assert study.is_over() is is_over


def test_a_grid_ends_after_its_points(make_search: MakeSearch, countable: Space, worker: Worker) -> None:
    """A grid tries each point once, whatever n_trials would still allow, and then ends."""
    search = make_search(n_trials=100, sampler={"_target_": "optuna.samplers.GridSampler"})
    study = begin(search, countable)
    found = []
    while params := run_next(study, countable, worker):
        found.append(params)
    assert found == list(countable.points())


class CountingBackend(JournalBackend):
    """Counts the lines that are written and read."""

    n_lines = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.n_lines += len(logs)
        super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for log in super().read_logs(log_number_from):
            self.n_lines += 1
            yield log


def test_a_trial_does_not_get_dearer(make_search: MakeSearch, plain: Space, worker: Worker) -> None:
    """The fiftieth trial reads and writes as many lines of the journal, and as much text, as the fifth."""
    search = make_search(n_trials=50)
    path = search.folder / "studies.journal"
    backend = CountingBackend(path)
    study = begin(search, plain, JournalStorage(backend))
    n_lines, sizes = [], []
    while run_next(study, plain, worker) is not None:
        n_lines.append(backend.n_lines)
        sizes.append((path.stat().st_size, study.files.results.stat().st_size))
    assert len(n_lines) == 50
    assert n_lines[49] - n_lines[48] == n_lines[4] - n_lines[3]
    assert sizes[49][0] - sizes[48][0] <= 1.1 * (sizes[4][0] - sizes[3][0])
    assert sizes[49][1] <= 1.1 * sizes[4][1]


def test_a_grid_loses_no_point_of_the_dead_or_interrupted(
    make_search: MakeSearch, countable: Space, worker: Worker, dead: Worker
) -> None:
    """Points whose trials were interrupted, or died before they drew anything, are tried again, once."""
    search = make_search(n_trials=100, sampler={"_target_": "optuna.samplers.GridSampler"})
    study = begin(search, countable)
    assert study.ask(countable, dead) is not None
    with study.locked() as locked:
        assert locked.reap() == [0]
    trial = study.ask(countable, worker)
    assert trial is not None
    study.tell_interrupted(trial.number, "Ctrl-C")
    found = []
    while params := run_next(study, countable, worker):
        found.append(params)
    assert sorted(map(str, found)) == sorted(map(str, countable.points()))


# --- the trials of the dead ---------------------------------------------------------------------------------


def test_the_trial_of_a_dead_worker_is_failed_and_queued(
    make_search: MakeSearch, plain: Space, worker: Worker, dead: Worker
) -> None:
    """Reaping tells the trial FAIL with the reason, and the next trial has its parameters."""
    search = make_search()
    study = begin(search, plain)
    trial = study.ask(plain, dead)
    assert trial is not None
    params = plain.draw(suggest(trial)).params
    with study.locked() as locked:
        assert locked.reap({dead.name: "its worker was ended by SIGKILL"}) == [0]
    assert study.trials()[0].state == TrialState.FAIL
    assert study.trials()[0].user_attrs["reason"] == "its worker was ended by SIGKILL"
    assert run_next(study, plain, worker) == params
    assert study.trials()[1].user_attrs["retry_of"] == 0


def test_the_trial_of_a_living_worker_is_left_alone(
    make_search: MakeSearch, plain: Space, tmp_path: Path
) -> None:
    """Whoever opens a study while others work on it does not touch their trials."""
    search = make_search()
    study = begin(search, plain)
    code = DIE.replace("Heartbeat(Path", "sign = Heartbeat(Path") + "print('ready', flush=True)\ninput()\n"
    name = f"{socket.gethostname()}-1-0123abcd"
    process = start_holding(code, study.files.heartbeats, name)
    study.optuna.ask().set_user_attr("worker", name)
    with study.locked() as locked:
        assert locked.reap() == []
        process.kill()
        finish(process)
        assert locked.reap() == [0]


@pytest.mark.parametrize("max_retries", [0, 1, 2])
def test_parameters_are_tried_again_max_retries_times(
    make_search: MakeSearch, plain: Space, dead: Worker, max_retries: int
) -> None:
    """Parameters that kill their worker again and again are given up after max_retries."""
    search = make_search(max_retries=max_retries, n_trials=None)
    study = begin(search, plain)
    for _ in range(max_retries + 2):
        trial = study.ask(plain, dead)
        assert trial is not None
        plain.draw(suggest(trial))
        with study.locked() as locked:
            locked.reap()
    points = [trial.params for trial in study.trials()]
    assert points[: max_retries + 1] == [points[0]] * (max_retries + 1)
    assert points[max_retries + 1] != points[0]


def test_killed_between_queueing_and_failing_nothing_is_queued_twice(
    make_search: MakeSearch, plain: Space, dead: Worker
) -> None:
    """The queued copy of a trial that still looks RUNNING is found, and not made again."""
    search = make_search()
    study = begin(search, plain)
    trial = study.ask(plain, dead)
    assert trial is not None
    plain.draw(suggest(trial))
    study.optuna.enqueue_trial(
        trial.params, user_attrs={"retry_of": 0, "n_retries": 1}
    )  # and here the reaper was killed
    begin(search, plain, study.optuna._storage)
    assert states(study) == ["FAIL", "WAITING"]


def take(study: Study, worker: Worker) -> None:
    """Do with the first trial, which waits, what a worker does before it can give its name."""
    storage, trial_id = study.optuna._storage, study.optuna.trials[0]._trial_id
    storage.set_trial_system_attr(trial_id, POOL, worker.pool)
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)


def test_a_trial_killed_while_it_was_taken_from_the_queue_is_queued_again(
    make_search: MakeSearch, plain: Space, worker: Worker
) -> None:
    """Its worker had no time to give its name; that of its pool is there before the trial runs."""
    study = begin(make_search(), plain)
    study.optuna.enqueue_trial({"x": 0.5})
    take(study, worker)
    begin(make_search(), plain, study.optuna._storage)
    assert states(study) == ["FAIL", "WAITING"]


@pytest.mark.parametrize("is_queued", [False, True])
def test_a_trial_of_another_program_is_left_alone(
    make_search: MakeSearch, plain: Space, is_queued: bool
) -> None:
    """A script of plain Optuna asks and tells in the study, and may take from its queue, undisturbed."""
    study = begin(make_search(), plain)
    if is_queued:
        study.optuna.enqueue_trial({"x": 0.5})
    theirs = study.optuna.ask({"x": FloatDistribution(0, 1)})
    begin(make_search(), plain, study.optuna._storage)
    assert [t.state for t in seen(study.trials(), study.files, study.trials)] == [TrialState.RUNNING]
    assert [t.number for t in study.unseen()] == [0]
    study.optuna.tell(theirs, 1.0)
    assert study.unseen() == []
    assert study.ledger.n_finished == 1


def test_a_trial_beyond_the_budget_is_not_waited_for(make_search: MakeSearch, plain: Space) -> None:
    """Another program may ask for as many as it likes; those do not keep the search from its end."""
    study = begin(make_search(n_trials=1), plain)
    for _ in range(2):
        study.optuna.ask()
    assert [t.number for t in study.unseen()] == [0]
    study.optuna.tell(0, 1.0)
    assert study.unseen() == []
    assert study.awaited() == []


def test_a_queued_trial_for_which_another_program_was_faster_is_left_alone(
    make_search: MakeSearch, plain: Space, worker: Worker
) -> None:
    """The worker that came too late says that its pool has not taken it."""
    study = begin(make_search(), plain)
    study.optuna.enqueue_trial({"x": 0.5})
    study.trials()
    theirs = study.optuna.ask()
    assert not study._under_lock()._pop(study.ledger.trials[0], worker)
    begin(make_search(), plain, study.optuna._storage)
    assert states(study) == ["RUNNING"]
    study.optuna.tell(theirs, 1.0)


def test_take_over_repeats_what_another_program_has_left(make_search: MakeSearch, plain: Space) -> None:
    """Only a person can know that it is gone; its parameters are tried again."""
    study = begin(make_search(), plain)
    theirs = study.optuna.ask({"x": FloatDistribution(0, 1)})
    begin(make_search(take_over=True), plain, study.optuna._storage)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials()[0].user_attrs["reason"] == "another program ran it, and is said to be gone"
    assert study.trials()[1].system_attrs["fixed_params"] == theirs.params


def test_take_over_leaves_those_alone_who_are_heard(
    make_search: MakeSearch, plain: Space, tmp_path: Path
) -> None:
    """A third host that tells the study that it lives keeps its trials."""
    study = begin(make_search(), plain)
    lives, gone = (make_dead(study.search, tmp_path, host) for host in ("one", "other"))
    for each in (lives, gone):
        trial = study.ask(plain, each)
        assert trial is not None
        plain.draw(suggest(trial))
    with study.locked() as locked:
        assert locked.reap(take_over=True, living={lives.pool}) == [1]
    assert states(study) == ["RUNNING", "FAIL", "WAITING"]


def ask_elsewhere(search: Search, space: Space, tmp_path: Path) -> Study:
    """A study whose trial another host is running, for all that this one can tell."""
    study = begin(search, space)
    trial = study.ask(space, make_dead(search, tmp_path, "elsewhere"))
    assert trial is not None
    space.draw(suggest(trial))
    return study


def test_a_study_that_another_host_runs_is_left_alone(
    make_search: MakeSearch, plain: Space, tmp_path: Path
) -> None:
    """Nobody reaps its trials, a reader sees them running, and a second host's search goes on beside it."""
    search = make_search()
    study = ask_elsewhere(search, plain, tmp_path)
    with study.locked() as locked:
        assert locked.reap() == []
    assert [t.state for t in seen(study.trials(), study.files, study.trials)] == [TrialState.RUNNING]
    begin(search, plain, study.optuna._storage)
    assert states(study) == ["RUNNING"]


def test_take_over_goes_on_with_what_another_host_left(
    make_search: MakeSearch, plain: Space, tmp_path: Path
) -> None:
    """A container that came back under another name takes its trials for lost, and tries them again."""
    study = ask_elsewhere(make_search(), plain, tmp_path)
    begin(make_search(take_over=True), plain, study.optuna._storage)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials()[0].user_attrs["lost"]


def test_interrupted_parameters_are_queued_without_being_a_retry(
    make_search: MakeSearch, plain: Space, worker: Worker
) -> None:
    """A person may interrupt a trial as often as they like: its parameters stay in the queue."""
    search = make_search(max_retries=0)
    study = begin(search, plain)
    points = []
    for _ in range(3):
        trial = study.ask(plain, worker)
        assert trial is not None
        points.append(plain.draw(suggest(trial)).params)
        study.tell_interrupted(trial.number, "Ctrl-C")
    assert points == [points[0]] * 3
    assert states(study) == ["FAIL"] * 3 + ["WAITING"]


def test_whoever_looks_sees_the_dead_and_changes_nothing(
    make_search: MakeSearch, plain: Space, dead: Worker
) -> None:
    """A trial whose process is gone is shown as lost, and the study stays as it is."""
    search, storage = make_search(), InMemoryStorage()
    study = begin(search, plain, storage)
    trial = study.ask(plain, dead)
    assert trial is not None
    plain.draw(suggest(trial))
    (shown,) = seen(study.trials(), study.files, study.trials)
    assert (shown.state, shown.user_attrs["lost"]) == (TrialState.FAIL, True)
    assert states(study) == ["RUNNING"]
    assert "lost" not in study.trials()[0].user_attrs


def test_a_trial_that_is_being_asked_for_is_not_lost(
    make_search: MakeSearch, plain: Space, worker: Worker
) -> None:
    """Who asks holds the study's lock until the trial has a worker's name; without the lock it is lost."""
    study = begin(make_search(), plain)
    study.optuna.enqueue_trial({"x": 0.5})
    take(study, worker)
    with study.locked():
        (shown,) = seen(study.trials(), study.files, study.trials)
        assert shown.state == TrialState.RUNNING
    (shown,) = seen(study.trials(), study.files, study.trials)
    assert shown.state == TrialState.FAIL


def test_no_trial_begins_that_the_job_s_time_would_not_hold(
    make_search: MakeSearch, plain: Space, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an engine ends the job, the time that trials of this study took must be left."""

    def left(seconds: float) -> None:
        order = Order(job="a", ends_at=time.time() + seconds)
        monkeypatch.setenv(VARIABLE, order.written())

    study = begin(make_search(n_trials=100), plain)
    assert study.has_time()
    left(5)
    assert study.has_time()
    for seconds in [1] * 8 + [60, 600]:
        ended = optuna.trial.create_trial(value=0.0)
        ended.datetime_start = datetime(2026, 1, 1)
        ended.datetime_complete = ended.datetime_start + timedelta(seconds=seconds)
        study.optuna.add_trial(ended)
    study.trials()
    assert not study.has_time()
    assert study.is_over()
    left(61)
    assert study.has_time()
    left(-1)
    assert not study.has_time()
