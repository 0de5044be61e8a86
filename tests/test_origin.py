"""How a study was begun: for the program, and in rows for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from sweeper import origin
from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.results import study_record
from sweeper.search.storage import open_storage
from tests.journal import open_journal

SPACE = {
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
    "model.dropout": FloatDistribution(0, 0.5, step=0.1),
    "training.batch_size": CategoricalDistribution([16, 32, None, True]),
    "model.width": IntDistribution(8, 64, log=True),
    "model.depth": IntDistribution(2, 8, step=2),
}
BEGUN = {
    "format": FORMAT,
    "folder": "/here/outputs/digits",
    "directions": ["maximize", "minimize"],
    "metrics": ["val_accuracy", "seconds"],
    "space": {name: distribution_to_json(distribution) for name, distribution in SPACE.items()},
    "fixed": ["training.epochs=3", "dataset=digits"],
    "max_retries": 1,
    "n_trials": 40,
    "command": ["sweeper", "-m", "optimizer=adam,sgd", "model.names=[a, b]"],
}
ROWS = {
    "command": "sweeper -m optimizer=adam,sgd 'model.names=[a, b]'",
    "objective": "maximize val_accuracy, minimize seconds",
    "budget": "40 trials",
    "folder": "/here/outputs/digits",
    "fixed": "training.epochs=3 dataset=digits",
    "searched optimizer": "adam, sgd",
    "searched optimizer.lr": "0.0001 … 0.01, log",
    "searched model.dropout": "0 … 0.5, in steps of 0.1",
    "searched training.batch_size": "16, 32, null, true",
    "searched model.width": "8 … 64, log",
    "searched model.depth": "2 … 8, in steps of 2",
}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(str(tmp_path / "journal")))


def test_people_see_rows_and_no_json(study: optuna.Study) -> None:
    """Each thing that a person asks of a study is a row of its own, and the program finds all of it again."""
    origin.write(study._storage, study._study_id, BEGUN)
    assert study.user_attrs == ROWS
    assert origin.read(study._storage, study._study_id) == BEGUN


def test_it_is_found_by_the_name_of_the_study(study: optuna.Study) -> None:
    """Of a study that is not there nothing is known."""
    origin.write(study._storage, study._study_id, BEGUN)
    assert origin.of(study._storage, study.study_name) == BEGUN
    assert origin.of(study._storage, "another") == {}


def test_what_nobody_said_is_no_row() -> None:
    """Without names, fixed values or a command there are no rows of them."""
    begun = {"folder": "/f", "directions": ["minimize"], "metrics": [], "space": {}, "fixed": []}
    assert origin.rows(begun) == {"objective": "minimize", "folder": "/f"}


def test_a_resume_writes_what_is_new(study: optuna.Study, tmp_path: Path) -> None:
    """Going on as before leaves the journal as it is; a changed range changes its row."""
    origin.write(study._storage, study._study_id, BEGUN)
    before = (tmp_path / "journal").read_bytes()
    origin.write(study._storage, study._study_id, BEGUN)
    assert (tmp_path / "journal").read_bytes() == before
    wider = FloatDistribution(1e-5, 1, log=True)
    space = {**BEGUN["space"], "optimizer.lr": distribution_to_json(wider)}  # type: ignore[dict-item]
    origin.write(study._storage, study._study_id, {**BEGUN, "space": space})
    assert study.user_attrs == {**ROWS, "searched optimizer.lr": "1e-05 … 1, log"}


def test_a_study_that_was_begun_before(study: optuna.Study, tmp_path: Path) -> None:
    """A study whose attribute is the JSON of earlier versions is read, and shows rows once it goes on."""
    study.set_user_attr("sweeper", BEGUN)
    assert origin.read(study._storage, study._study_id) == BEGUN
    origin.write(study._storage, study._study_id, BEGUN)
    again = optuna.load_study(study_name=study.study_name, storage=open_journal(tmp_path / "journal"))
    assert again.user_attrs == {"sweeper": {}, **ROWS}
    assert origin.read(again._storage, again._study_id) == BEGUN


@pytest.mark.parametrize("theirs", ["a text", ["a", "list"], {}])
def test_an_attribute_of_somebody_else(study: optuna.Study, theirs: object) -> None:
    """A study that another program has begun says nothing of ours."""
    study.set_user_attr("sweeper", theirs)
    assert origin.read(study._storage, study._study_id) == {}


@pytest.mark.parametrize("nonsense", [5, "text", [1], {"a": [1]}, None, True, [[]]])
def test_what_somebody_else_has_put_there_is_left_out(study: optuna.Study, nonsense: object) -> None:
    """Whoever reads it can rely on the kind of each entry."""
    begun: dict[str, Any] = dict.fromkeys(BEGUN, nonsense) | {"space": {"x": nonsense}, "format": FORMAT}
    study._storage.set_study_system_attr(study._study_id, origin.KEY, begun)
    read = origin.read(study._storage, study._study_id)
    assert "space" not in read
    for name, value in read.items():
        assert value is None or type(value) is type(BEGUN[name])
    assert study_record.of(study, StudyFiles(Path("s"))).metrics == ("value",)


@pytest.mark.parametrize("told", [{"id": "../other"}, {"id": ""}, {"id": "a\0b"}, {"artifacts": "a\0b"}])
def test_what_cannot_be_of_a_name_is_left_out(study: optuna.Study, told: dict[str, str]) -> None:
    """Files are named by it: it leads nowhere else."""
    begun: dict[str, Any] = {**BEGUN, **told}
    study._storage.set_study_system_attr(study._study_id, origin.KEY, begun)
    assert not told.keys() & origin.read(study._storage, study._study_id).keys()
