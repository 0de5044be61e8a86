"""What somebody sees of a study who only looks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.search.ledger import POOL
from sweeper.search.storage import open_storage
from sweeper.search.view import view
from tests.program import end, run, start_holding

ALIVE, DEAD, ELSEWHERE = (
    f"{host}-{n}-0123abcd"
    for n, host in enumerate((socket.gethostname(), socket.gethostname(), "other-host"))
)

LIVE = """
import sys
from pathlib import Path
from sweeper.lock import Heartbeat
sign = Heartbeat(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
input()
"""

HOLD = """
import sys
from pathlib import Path
from sweeper.lock import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    input()
"""


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    url = {"journal": str(tmp_path / "j"), "sqlite": f"sqlite:///{tmp_path / 's.db'}"}[request.param]
    return open_storage(url)


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    (tmp_path / "study").mkdir()
    return StudyFiles(tmp_path / "study")


@pytest.fixture
def alive(files: StudyFiles, tmp_path: Path) -> Iterator[str]:
    """The name of a worker that lives; another one has died."""
    assert run(tmp_path, "-c", LIVE, files.heartbeats, DEAD).returncode != 0  # no input: it ends by an error
    process = start_holding(LIVE, files.heartbeats, ALIVE)
    yield ALIVE
    end(process)


def begin(storage: BaseStorage, files: StudyFiles, *workers: str | None) -> optuna.Study:
    """A study with a running trial of each worker, after one that is complete."""
    study = optuna.create_study(study_name="study", storage=storage)
    study.set_user_attr("sweeper", {"format": FORMAT, "folder": str(files.folder)})
    study.tell(study.ask(), 1.0)
    for worker in workers:
        trial = study.ask()
        if worker is not None:
            trial.set_user_attr("worker", worker)
    return study


def seen(study: optuna.Study) -> list[str]:
    looked = optuna.load_study(study_name=study.study_name, storage=view(study._storage))
    return [trial.state.name for trial in looked.get_trials(deepcopy=False)]


def test_trials_of_the_dead_look_failed_and_stay_as_they_are(
    storage: BaseStorage, files: StudyFiles, alive: str
) -> None:
    """Who looks sees which trials have lost their process, and the study is as it was."""
    study = begin(storage, files, alive, DEAD, ELSEWHERE)
    assert seen(study) == ["COMPLETE", "RUNNING", "FAIL", "RUNNING"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "RUNNING", "RUNNING"]
    shown = optuna.load_study(study_name="study", storage=view(storage))
    [lost] = shown.get_trials(states=[TrialState.FAIL])
    assert "its process is gone" in lost.user_attrs["reason"]
    assert len(shown.get_trials(states=[TrialState.RUNNING])) == 2
    lost._validate()  # or a study with it could not be renamed
    assert "reason" not in study.trials[lost.number].user_attrs


def test_a_trial_without_a_worker_yet(storage: BaseStorage, files: StudyFiles) -> None:
    """Who takes one from the queue holds the study's lock: until then it has a pool, and no worker's name."""
    study = begin(storage, files, None)
    storage.set_trial_system_attr(study.trials[1]._trial_id, POOL, ALIVE)
    asks = start_holding(HOLD, files.lock)
    assert seen(study) == ["COMPLETE", "RUNNING"]
    end(asks)
    assert seen(study) == ["COMPLETE", "FAIL"]


def test_only_our_studies_are_judged(storage: BaseStorage, files: StudyFiles) -> None:
    """A study of plain Optuna, and one whose folder is not here, keep their running trials."""
    study = begin(storage, files, None, DEAD)
    study.set_user_attr("sweeper", {"format": FORMAT, "folder": "/not/here"})
    assert seen(study) == ["COMPLETE", "RUNNING", "RUNNING"]
    study.set_user_attr("sweeper", {})
    assert seen(study) == ["COMPLETE", "RUNNING", "RUNNING"]


def test_what_is_written_goes_to_the_storage(storage: BaseStorage, files: StudyFiles) -> None:
    """A click in the dashboard does what it says, also to a trial that was lost."""
    study = begin(storage, files, DEAD)
    shown = view(storage)
    study_id = shown.get_study_id_from_name("study")
    shown.set_study_user_attr(study_id, "seen", True)
    shown.set_trial_state_values(shown.get_all_trials(study_id)[1]._trial_id, TrialState.FAIL)
    assert study.user_attrs["seen"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"]
    shown.delete_study(study_id)
    assert storage.get_all_studies() == []
