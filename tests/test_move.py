"""``sweeper move``: what one machine has begun goes on in a storage that many reach."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from sweeper import origin
from sweeper.record.study_files import StudyFiles
from sweeper.search import look
from sweeper.search.move import put
from sweeper.search.storage import open_storage
from sweeper.search.travel import FILES
from tests import planned
from tests.conftest import Said
from tests.foreign_app import FINISHED, App
from tests.program import run
from tests.server import Postgres, opened
from tests.server import trials as stored
from tests.test_studies import make
from tests.test_travel import Host

SEEN = ("number", "state", "values", "params", "user_attrs", "datetime_start", "datetime_complete")


def trials(url: str, name: str = "a") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=open_storage(url)).get_trials()


def told(found: list[FrozenTrial]) -> list[list[object]]:
    return [[getattr(trial, name) for name in SEEN] for trial in found]


def test_it_goes_on_where_it_was_moved(said: Said) -> None:
    """All trials are there as they were; the folder remembers it, and the old storage has none any more."""
    folder = make("a", values=(0.25, 0.75))
    make("b")
    before = told(trials("outputs/studies.journal"))
    code, text = said("move", "a", "--storage", "sqlite:///new.db")
    assert code == 0
    assert text.splitlines()[0] == "Moved a: 3 trials, from outputs/studies.journal to sqlite:///new.db"
    assert told(trials("sqlite:///new.db")) == before
    assert StudyFiles(folder).read_storage() == f"sqlite:///{Path('new.db').absolute()}"
    left = open_storage("outputs/studies.journal").get_all_studies()
    assert [study.study_name for study in left] == ["b"]
    assert "number 1, " in said("best", "a")[1]
    code, text = said("studies")
    assert [line.split()[0] for line in text.splitlines()[1:3]] == ["a", "b"]


def test_a_certificate_goes_along(said: Said) -> None:
    """Whichever of the two is named."""
    make("a")
    make("a-certificate")
    plan = planned.of_trials({"optimizer.lr": 0.5}, folder=str(Path("outputs/a").absolute()))
    plan.write(StudyFiles(Path("outputs/a-certificate").absolute()))
    code, text = said("move", "a-certificate", "--storage", "new.journal")
    assert code == 0, text
    assert [line.split(":")[0] for line in text.splitlines()][:2] == ["Moved a", "Moved a-certificate"]
    assert len(trials("new.journal")) == len(trials("new.journal", "a-certificate")) == 2


REFUSED = [
    (
        ["a", "--storage", "memory"],
        "--storage=memory: is the memory of one process; write a URL",
    ),
    (["a", "--storage", "outputs/studies.journal"], "is where the study is; write another one"),
    (["c", "--storage", "new.journal"], "STUDY=c: there is no such study"),
    (["a", "--storage", "oracle://me@db"], "--storage=oracle://me@db: "),
    (["a", "--storage", "other.db"], "cannot be opened (it is not an Optuna journal)"),
    (["a", "--storage", "taken.journal"], "that storage has another study of that name, of 2 trials; delete"),
]


@pytest.mark.parametrize(("words", "reason"), REFUSED)
def test_what_cannot_be_is_one_line(said: Said, words: list[str], reason: str) -> None:
    """The study stays where it is."""
    make("a")
    make("a", storage="taken.journal", folder="elsewhere")
    Path("other.db").write_bytes(b"no journal")
    code, text = said("move", *words)
    assert code == 2
    assert reason in text
    assert text.count("\n") == 1
    assert len(trials("outputs/studies.journal")) == 2
    assert Path("other.db").read_bytes() == b"no journal"


def test_a_search_that_runs_is_not_moved(said: Said) -> None:
    """Its workers would go on in the old storage."""
    make("a")
    study = optuna.load_study(study_name="a", storage=open_storage("outputs/studies.journal"))
    study.ask().set_user_attr("worker", "far-away-17-0123abcd")
    if_gone = "if it is gone, take it over: hydra.sweeper.take_over=true"
    code, text = said("move", "a", "--storage", "new.journal")
    assert (code, text) == (2, f"STUDY=a: the study is running on far-away; stop it first; {if_gone}\n")
    assert not Path("new.journal").exists()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Its folder, with three trials, is seen from here."""
    host = Host(tmp_path, "there")
    for value in (0.1, 0.3, 0.2):
        host.train(value)
    monkeypatch.chdir(tmp_path / "there")
    return host


def fails_after(n: int) -> Callable[[], None]:
    calls = count(1)

    def shown() -> None:
        if next(calls) == n:
            raise KeyboardInterrupt

    return shown


@pytest.mark.parametrize("n", [1, 3])
def test_a_move_that_was_broken_off_can_be_done_again(host: Host, said: Said, n: int) -> None:
    """Nothing is lost or doubled: until all is there, the folder belongs to the old storage."""
    before = told(host.study.get_trials())
    with pytest.raises(KeyboardInterrupt):
        put(look.load(host.files), host.files, open_storage("new.journal"), True, fails_after(n))
    assert host.files.read_storage() == str(host.journal)
    assert said("move", str(host.files.folder), "--storage", "new.journal")[0] == 0
    assert told(trials("new.journal", "s")) == before


def test_a_copy_that_optuna_has_made_is_taken_as_it_is(host: Host, said: Said) -> None:
    """``optuna.copy_study``, and then more trials there: it is the same study."""
    new = open_storage("new.journal")
    optuna.copy_study(from_study_name="s", from_storage=host.study._storage, to_storage=new)
    optuna.load_study(study_name="s", storage=new).add_trial(optuna.create_trial(value=0.9))
    code, text = said("move", str(host.files.folder), "--storage", "new.journal")
    assert code == 0, text
    assert [trial.value for trial in trials("new.journal", "s")] == [0.1, 0.3, 0.2, 0.9]
    assert host.files.read_storage() == str(Path("new.journal").absolute())


@pytest.mark.slow
def test_a_search_outgrows_its_machine(tmp_path: Path, postgres: Postgres) -> None:
    """Begun in the journal of one, moved to a server, it goes on there: to the trial, with all records."""
    (tmp_path / "one").mkdir()
    app = App(tmp_path / "one")
    assert app.run().returncode == 0
    done = run(app.folder, "-m", "sweeper", "move", str(app.out), "--storage", postgres.url)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    again = next(line for line in done.stdout.splitlines() if line.startswith("Go on:"))
    assert "storage" not in again
    assert app.run("hydra.sweeper.n_trials=8").returncode == 0, "the folder remembers"
    shutil.move(tmp_path / "one", tmp_path / "away")
    (tmp_path / "two").mkdir()
    other = App(tmp_path / "two")
    more = other.run("hydra.sweeper.n_trials=12", f"hydra.sweeper.storage={postgres.url}")
    assert more.returncode == 0, more.stderr
    found = stored(postgres.url)
    assert sum(t.state in FINISHED for t in found) == 12
    assert [t.number for t in found] == list(range(12))
    shutil.move(tmp_path / "two", tmp_path / "away-too")
    (tmp_path / "three").mkdir()
    best = run(tmp_path / "three", "-m", "sweeper", "best", "s", "--storage", postgres.url)
    assert "12 done" in best.stdout, best.stderr
    arrived = (tmp_path / "three" / "outputs" / "s").glob("*/.hydra/config.yaml")
    assert len(list(arrived)) == 12
    assert all(FILES in t.system_attrs for t in found)
    with opened(postgres.url) as storage:
        assert origin.of(storage, "s")["travels"]
