"""``sweeper studies``: all studies at a glance, and one less."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from sweeper.outcome import Outcome
from sweeper.record.mark import FORMAT
from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.search import life
from sweeper.search.ledger import POOL
from sweeper.search.storage import open_storage
from tests.conftest import Said
from tests.program import end, start_holding
from tests.studied import certificate_of
from tests.test_record import leave

JOURNAL = "outputs/studies.journal"


def make(
    name: str, storage: str = JOURNAL, folder: str | None = None, values: tuple[float, ...] = (0.5,)
) -> Path:
    """A study with a trial for each value, and one that was pruned, as our own app leaves it."""
    path = Path(folder or f"outputs/{name}").absolute()
    url = storage if "://" in storage else str(Path(storage).absolute())
    study = optuna.create_study(study_name=name, storage=open_storage(url), direction="maximize")
    space = {"optimizer": CategoricalDistribution(["adam", "sgd"]), "optimizer.lr": FloatDistribution(0, 1)}
    texts = {key: distribution_to_json(distribution) for key, distribution in space.items()}
    study.set_user_attr("sweeper", {"format": FORMAT, "folder": str(path), "space": texts, "max_retries": 1})
    files = StudyFiles(path)
    files.mark(name, url)
    for value in (*values, None):
        trial = study.ask()
        files.begin(TrialFiles(path / str(trial.number)), trial.number)
        trial.set_user_attr("folder", str(path / str(trial.number)))
        if value is not None:
            leave(path, trial.number, value)
        study.tell(trial, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)
    files.write_results(Outcome.of(study))
    return path


def seen(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file and folder was changed last, and what is in it."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_each_study_is_a_line(said: Said) -> None:
    """Trials, best, when, size and what was searched; also of nested names, and of other storages."""
    make("first", values=(0.25, 0.75))
    make("a/b", storage="sqlite:///other.db")
    code, text = said("studies")
    assert code == 0
    head, first, nested, *_ = rows(text)
    assert head == ["study", "done", "pruned", "best", "when", "size", "storage", "searched"]
    assert first == ["first", "2", "1", "0.75000", "now", "0.0", "MB", JOURNAL, "optimizer=adam,sgd", "lr"]
    assert nested[:4] == ["a/b", "1", "1", "0.50000"]
    assert "sqlite:///other.db" in nested


def test_a_certificate_is_listed_as_one(said: Said, tmp_path: Path) -> None:
    """With its state and its verdict, and no best value, which is not what it is about."""
    files = certificate_of(tmp_path, {"trial 0": [0.9, 0.91, 0.92], "trial 1": [0.1, 0.11]})
    line = said("studies")[1].splitlines()[1]
    assert re.fullmatch(r"s-certificate +5 .*  certificate of s: (unfinished, )?trial 0, 0\.91\d* ± .*", line)
    assert "0.92" not in line
    files.certificate.unlink()
    assert said("studies")[1].splitlines()[1].endswith("  certificate")


def test_any_name_is_one_line(said: Said) -> None:
    """Other programs name studies in the same storage as they like; a terminal obeys none of it."""
    make("first")
    for name in ("[bold]", "two\nlines", "\x1b[31mred", "ſtudy 日本"):
        optuna.create_study(study_name=name, storage=open_storage(str(Path(JOURNAL).absolute())))
    code, text = said("studies")
    assert code == 0
    names = {line[:9].strip() for line in text.splitlines()[1:6]}
    assert names == {"first", "[bold]", "two lines", "[31mred", "ſtudy 日本"}


def test_no_study_yet_is_said_with_how_to_begin(said: Said) -> None:
    """No table, no error."""
    code, text = said("studies")
    assert code == 0
    assert "There are no studies in " in text
    assert "start one: sweeper -m " in text


def test_looking_changes_nothing(said: Said, tmp_path: Path) -> None:
    """Neither a byte nor a file, also where a storage is gone."""
    make("first")
    make("second", storage="sqlite:///gone.db")
    Path("gone.db").unlink()
    before = seen(tmp_path)
    _, text = said("studies")
    assert ["second", "1", "1", "0.50000"] in [row[:4] for row in rows(text)]  # as its folder says
    assert "(its storage is gone)" in text
    assert seen(tmp_path) == before


def test_a_storage_that_cannot_be_read_is_one_line_without_its_password(said: Said) -> None:
    """The other studies are shown all the same."""
    make("first")
    StudyFiles(make("second", storage="sqlite:///x.db")).mark(
        "second", "oracle://me:secret@host/db?password=secret"
    )
    code, text = said("studies")
    assert code == 0
    assert [row[0] for row in rows(text) if row[1:2] == ["1"]] == ["first", "second"]
    assert "oracle://host/db cannot be read: " in text
    assert "secret" not in text


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_study_is_one_line_at_any_width(said: Said, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Columns are left out rather than broken; the name, how many are done and the best always stay."""
    make("2026-11-28_14-58-03")
    make("a-name-that-is-longer-than-most-of-them-are", storage="sqlite:///other.db")
    monkeypatch.setenv("COLUMNS", str(columns))
    _, text = said("studies")
    head, first, second, count, *_ = text.splitlines()
    assert max(map(len, (head, first, second))) <= columns
    assert ("searched" in head) == (columns >= 80)
    assert first.startswith("2026-11-28_14-58-03 ")
    assert second.startswith("a-name-that-is-")
    assert second.split()[1:4] == ["1", "1", "0.50000"]
    assert count.startswith("2 studies, ")


def test_deleting_a_study_takes_it_from_its_storage_and_its_folder_away(said: Said) -> None:
    """Others stay, also one whose folder lies in its folder."""
    folder, inner = make("a"), make("a/b")
    (folder / ".sweeper" / "lost" / "0-1").mkdir(parents=True)
    code, text = said("studies", "--delete", "a", "--yes")
    assert (code, text) == (0, "Deleted a: 2 trials, 0.0 MB, in outputs/a\n")
    assert sorted(path.name for path in folder.iterdir()) == ["b"]
    assert (inner / "best" / "weights.safetensors").exists()
    assert optuna.get_all_study_names(open_storage(str(Path(JOURNAL).absolute()))) == ["a/b"]
    assert said("studies", "--delete", "a/b", "--yes")[0] == 0
    assert not folder.exists()


def test_what_the_app_wrote_is_left(said: Said) -> None:
    """Only marked files go; how many others are left is said."""
    folder = make("a")
    (folder / "0" / "mine.txt").touch()
    theirs = TrialFiles(folder / "1")  # the trial of an app that is not ours
    (theirs.folder / "weights.safetensors").touch()
    (folder / "7").mkdir()
    (folder / "7" / "trial.yaml").touch()
    _, text = said("studies", "--delete", "outputs/a", "--yes")
    assert text.endswith("Left in outputs/a: 3 files of the app\n")
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"0/mine.txt", "1/weights.safetensors", "7/trial.yaml"}


@pytest.mark.parametrize("state", ["files are gone", "study is gone"])
def test_a_deletion_that_was_killed_is_made_up_for(said: Said, state: str) -> None:
    """The same command ends it, wherever it was killed."""
    folder = make("a")
    StudyFiles(folder).remove_trials()
    if state == "study is gone":
        open_storage(str(Path(JOURNAL).absolute())).delete_study(0)
    assert said("studies", "--delete", "a", "--yes")[0] == 0
    assert not folder.exists()
    assert "There are no studies" in said("studies")[1]


def test_a_storage_that_was_named_and_cannot_be_read_is_an_error(said: Said) -> None:
    """Who asks for that one gets no empty list."""
    code, text = said("studies", "--storage", "oracle://host/db")
    assert code == 2
    assert text.startswith("--storage=oracle://host/db: cannot be opened")


def test_a_study_that_runs_is_not_deleted(said: Said) -> None:
    """Nothing of it is touched while one of its workers lives."""
    folder = make("a")
    hold = "import sys; from pathlib import Path; from sweeper.lock import Heartbeat; "
    hold += "life = Heartbeat(Path(sys.argv[1]), 'w'); print('ready', flush=True); input()"
    worker = start_holding(hold, folder / ".sweeper")
    code, text = said("studies", "--delete", "a", "--yes")
    end(worker)
    assert (code, text) == (2, "--delete=a: the study is running; stop it first\n")
    assert (folder / "best" / "weights.safetensors").exists()


def test_a_trial_whose_process_is_gone_is_shown_as_lost(said: Said, tmp_path: Path) -> None:
    """The study stays as it is, and may be deleted."""
    make("a")
    study = optuna.load_study(study_name="a", storage=open_storage(str(Path(JOURNAL).absolute())))
    study.ask().set_user_attr("worker", f"{socket.gethostname()}-17-0123abcd")
    before = seen(tmp_path)
    head, row, *_ = rows(said("studies")[1])
    assert head[:4] == ["study", "done", "pruned", "lost"]
    assert row[:4] == ["a", "1", "1", "1"]
    assert seen(tmp_path) == before
    assert said("studies", "--delete", "a", "--yes")[0] == 0


def test_a_study_that_runs_on_another_machine_is_not_deleted(said: Said) -> None:
    """Its workers are named after their machine."""
    make("a")
    study = optuna.load_study(study_name="a", storage=open_storage(str(Path(JOURNAL).absolute())))
    study.ask().set_user_attr("worker", "far-away-17-0123abcd")
    code, text = said("studies", "--delete", "a", "--yes")
    if_gone = "if it is gone, take it over: hydra.sweeper.take_over=true"
    assert (code, text) == (2, f"--delete=a: the study is running on far-away; stop it first; {if_gone}\n")


def test_a_study_is_deleted_when_no_other_machine_beats(said: Said) -> None:
    """A pool that counts up runs it, whether it has a trial or not; one that is silent has gone down."""
    make("a")
    study = optuna.load_study(study_name="a", storage=open_storage(str(Path(JOURNAL).absolute())))
    entry = life.Entry("far-away", "another place", heartbeat_s=0.2)
    life.register(study._storage, study._study_id, "silent", entry)
    trial = study.ask()
    trial.set_user_attr("worker", "far-away-17-0123abcd")
    study._storage.set_trial_system_attr(trial._trial_id, POOL, "silent")
    beats = iter(range(2, 10**6))
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.1):
            life.beat(study._storage, study._study_id, "silent", next(beats))

    pool = threading.Thread(target=go_on)
    pool.start()
    try:
        code, text = said("studies", "--delete", "a", "--yes")
    finally:
        ended.set()
        pool.join()
    assert (code, text.splitlines()[-1]) == (2, "--delete=a: the study is running on far-away; stop it first")
    code, text = said("studies", "--delete", "a", "--yes")
    assert code == 0
    assert text.startswith("Looking for up to 0 s whether far-away still runs it …\nDeleted a")


def test_a_study_whose_storage_is_gone_can_be_deleted(said: Said) -> None:
    """Its folder is all that is left of it."""
    folder = make("a", storage="sqlite:///gone.db")
    Path("gone.db").unlink()
    assert said("studies", "--delete", "a", "--yes")[0] == 0
    assert not folder.exists()
    assert not Path("gone.db").exists()


@pytest.mark.parametrize("command", ["--delete zzz", "--delete there", "--delete twice", "--delete first"])
def test_what_is_not_clear_is_not_deleted(said: Said, command: str) -> None:
    """One line, exit code 2, and nothing is gone."""
    make("first")
    make("twice")
    make("twice", storage="sqlite:///other.db", folder="outputs/o/twice")
    StudyFiles(make("there", storage="sqlite:///forgotten.db")).mark("there", "oracle://me:secret@host/db")
    before = seen(Path("outputs"))
    answers = {
        "--delete zzz": "there is no such study, and oracle://host/db cannot be read; sweeper studies lists",
        "--delete there": "--delete=there: oracle://host/db cannot be read (",
        "--delete twice": "2 studies have that name; write its folder: outputs/twice or outputs/o/twice",
        "--delete first": "cannot be confirmed without a terminal; write --yes too",
    }
    code, text = said("studies", *command.split(), *["--yes"] * (command != "--delete first"))
    assert code == 2
    (line,) = text.splitlines()
    assert answers[command] in line
    assert seen(Path("outputs")) == before


def test_a_misspelt_name_gets_the_nearest(said: Said) -> None:
    """Of the studies that there are."""
    make("first")
    answer = "--delete=firs: there is no such study; did you mean first?\n"
    assert said("studies", "--delete", "firs", "--yes") == (2, answer)


def test_a_storage_that_is_named_must_be_there(said: Said) -> None:
    """Looking begins no database."""
    answer = "--storage=sqlite:///no.db: there is none; sweeper studies lists those that are known\n"
    assert said("studies", "--storage", "sqlite:///no.db") == (2, answer)
    assert not Path("no.db").exists()
