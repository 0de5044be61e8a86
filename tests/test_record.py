"""The files of a study: written whole, kept true, found again."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from sweeper import filesystem, outcome, outputs
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.outcome import Outcome
from sweeper.record.best_files import Choice
from sweeper.record.run_files import PER_CLASS, RunFiles, remove_refused_run
from sweeper.record.study_files import StudyFiles
from sweeper.record.target import check_out
from sweeper.record.trial_files import TrialFiles
from sweeper.results import standing, study_record
from sweeper.results.val_logits import ValLogits
from tests.studied import trial


def leave(folder: Path, number: int, accuracy: float) -> None:
    """What a trial leaves in its folder."""
    run = RunFiles(folder / str(number))
    run.mark()
    filesystem.write_whole(run.config, "study: s\n")
    run.write_history([{"epoch": 1, "val_accuracy": accuracy}])
    filesystem.write_json(run.result, {"trial": number, "val_accuracy": accuracy})
    run.weights.write_bytes(bytes([number % 256]))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", study_name="s")


def end(study: optuna.Study, folder: Path, value: float | None) -> None:
    """One trial, from asking to its files."""
    trial = study.ask()
    if value is not None:
        leave(folder, trial.number, value)
    study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
    StudyFiles(folder).write_results(Outcome.of(study), ended=trial.number)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A writer that fails in the middle leaves the old content, and no temporary file."""
    path = tmp_path / "a.json"
    filesystem.write_json(path, {"n": 1})

    def write_half() -> None:
        with filesystem.whole(path) as temporary:
            temporary.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(Fault, match=r"a\.json.*full"):
        write_half()
    assert filesystem.read_json(path) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_library_hides_no_fault_of_the_disk(tmp_path: Path) -> None:
    """What is raised on top of a full disk, as torch.save does, is a full disk, and names the file."""

    def save() -> None:
        with filesystem.whole(tmp_path / "weights.pt"):
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                raise RuntimeError("unexpected pos 1728 vs 1632")

    with pytest.raises(Fault, match=r"weights\.pt: no space left on device; make room"):
        save()
    assert list(tmp_path.iterdir()) == []


def test_floats_survive_the_history_to_the_last_bit(tmp_path: Path) -> None:
    """A history read again equals the one that was written."""
    row = {"epoch": 1, "val_loss": 0.1 + 0.2, "lr": 1e-300, "train_loss": float("inf")}
    RunFiles(tmp_path).write_history([row])
    assert RunFiles(tmp_path).read_history() == [row]


def test_best_follows_the_best_trial(tmp_path: Path, study: optuna.Study) -> None:
    """``best/`` always holds the best trial's files, and only that trial keeps its weights."""
    for value, best in [(0.5, 0), (0.4, 0), (0.9, 2), (None, 2), (0.8, 2)]:
        end(study, tmp_path, value)
        assert filesystem.read_json(tmp_path / "best" / "result.json")["trial"] == best
        assert (tmp_path / "best" / "weights.safetensors").read_bytes() == bytes([best])
        assert [path.parent.name for path in tmp_path.glob("[0-9]*/weights.safetensors")] == [str(best)]
    summary = filesystem.read_yaml(tmp_path / "optimization_results.yaml")
    assert summary["best_trial"] == 2
    assert summary["trials"] == {"COMPLETE": 4, "FAIL": 1}


def test_a_tie_is_broken_by_loss_wherever_one_asks(tmp_path: Path, study: optuna.Study) -> None:
    """The results, ``best/`` and the functions that others call name the same trial."""
    for loss, best in [(0.3, 0), (0.2, 1), (0.4, 1)]:
        trial = study.ask()
        leave(tmp_path, trial.number, 0.5)
        trial.set_user_attr("val_loss", loss)
        study.tell(trial, 0.5)
        StudyFiles(tmp_path).write_results(Outcome.of(study), ended=trial.number)
        assert filesystem.read_yaml(tmp_path / "optimization_results.yaml")["best_trial"] == best
        assert (tmp_path / "best" / "weights.safetensors").read_bytes() == bytes([best])
        assert [trial.number for trial in outcome.best_trials(study)] == [best]
        seen = study_record.of(study, StudyFiles(tmp_path))
        assert [trial.number for trial in standing.best_trials(seen)] == [best]


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_model_comes_and_goes_as_a_whole(tmp_path: Path, study: optuna.Study, name: str) -> None:
    """The card with the weights, and weights of an earlier version as today's."""
    for number, value in enumerate((0.5, 0.9, 0.4)):
        run = RunFiles(tmp_path / str(number))
        trial = study.ask()
        leave(tmp_path, number, value)
        run.weights.rename(run.folder / name)
        run.card.write_text(str(number))
        study.tell(trial, value)
        StudyFiles(tmp_path).write_results(Outcome.of(study), ended=number)
    for file in (name, "model.json"):
        assert {path.parent.name for path in tmp_path.glob(f"*/{file}")} == {"1", "best"}
    assert (tmp_path / "best" / "model.json").read_text() == "1"
    assert RunFiles(tmp_path / "1").has_weights
    assert StudyFiles(tmp_path).best.has_weights
    StudyFiles(tmp_path).begin(TrialFiles(tmp_path / "1"), 1)
    assert {path.name for path in TrialFiles(tmp_path / "1").room()} == {name, "model.json"}
    StudyFiles(tmp_path).remove_trials()
    assert not list(tmp_path.glob(f"*/{name}"))
    assert not list(tmp_path.glob("*/model.json"))


def test_best_is_renewed_when_its_number_was_given_again(tmp_path: Path, study: optuna.Study) -> None:
    """A journal that lost its end gives a number twice; ``best/`` then holds the known one."""
    end(study, tmp_path, 0.5)
    leave(tmp_path, 0, 0.75)
    StudyFiles(tmp_path).write_results(Outcome.of(study))
    assert filesystem.read_json(tmp_path / "best" / "result.json")["val_accuracy"] == 0.75


def test_a_swap_that_was_killed_is_made_up_for(tmp_path: Path, study: optuna.Study) -> None:
    """Killed between the two renames, ``best/`` is missing, and comes back with the next trial."""
    end(study, tmp_path, 0.5)
    (tmp_path / "best").rename(tmp_path / ".sweeper" / "best-old")
    end(study, tmp_path, 0.4)
    assert filesystem.read_json(tmp_path / "best" / "result.json")["trial"] == 0


def test_a_study_does_not_begin_in_anothers_folder(tmp_path: Path, study: optuna.Study) -> None:
    """A name that exists in another storage, or a renamed folder, is refused: nothing is mixed or lost."""
    end(study, tmp_path, 0.5)
    files = StudyFiles(tmp_path)
    files.mark("s", "/a/studies.journal")
    files.refuse_others("s", "/a/studies.journal")
    with pytest.raises(BadInput, match=r"storage=sqlite:///x.db: the study s is in another storage"):
        files.refuse_others("s", "sqlite:///x.db")
    with pytest.raises(BadInput, match=r"study=other: .* is the folder of the study s"):
        files.refuse_others("other", "/a/studies.journal")


def test_a_lost_trials_folder_is_moved_but_nobody_elses(tmp_path: Path) -> None:
    """A folder that is marked as a trial's makes room for the next of that number, and is kept."""
    study = StudyFiles(tmp_path)
    study.begin(TrialFiles(tmp_path / "0"), 0)
    (tmp_path / "0" / "model.bin").touch()
    (tmp_path / "1" / ".hydra").mkdir(parents=True)  # of a sweep with another sweeper
    (tmp_path / "1" / "mine.txt").write_text("mine")
    study.begin(TrialFiles(tmp_path / "0"), 0)
    study.begin(TrialFiles(tmp_path / "1"), 1)
    assert not (tmp_path / "0" / "model.bin").exists()
    assert len(list(study.lost.glob("0-*/model.bin"))) == 1
    assert (tmp_path / "1" / "mine.txt").exists()


def test_an_app_may_put_its_trials_into_one_folder(tmp_path: Path) -> None:
    """Another trial that has the folder is no lost one: nothing is moved."""
    study = StudyFiles(tmp_path)
    study.begin(TrialFiles(tmp_path / "same"), 0)
    (tmp_path / "same" / "model.bin").touch()
    study.begin(TrialFiles(tmp_path / "same"), 1)
    assert (tmp_path / "same" / "model.bin").exists()


def test_files_of_the_app_are_neither_removed_nor_read(tmp_path: Path, study: optuna.Study) -> None:
    """Whatever an app calls its files, those of its trials stay, and no best/ is made of them."""
    names = (
        "weights.safetensors",
        "weights.pt",
        "model.json",
        "result.json",
        "trial.yaml",
        "history.csv",
        "environment.json",
    )
    for value in (0.5, 0.4, 0.9):
        trial = study.ask()
        folder = tmp_path / str(trial.number)
        folder.mkdir()
        for name in names:
            (folder / name).write_text("theirs")
        study.tell(trial, value)
        StudyFiles(tmp_path).write_results(Outcome.of(study), ended=trial.number)
    left = [path.read_text() for path in tmp_path.glob("[0-9]/*.*")]
    assert left == ["theirs"] * len(names) * 3
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("name", ["result", "history", "trained_on", "val_logits"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """It is a damaged file, whoever reads it."""
    run = RunFiles(tmp_path)
    run.mark()
    os.mkfifo(getattr(run, name))
    readers: dict[str, Callable[[], object]] = {
        "result": run.read_result,
        "history": run.read_history,
        "trained_on": run.read_trained_on,
        "val_logits": lambda: ValLogits.read(run),
    }
    with pytest.raises(Fault, match="is a pipe or a device: the file is damaged"):
        readers[name]()


def test_the_folders_of_a_moved_study_are_found(tmp_path: Path, study: optuna.Study) -> None:
    """Trials that moved with their study are found there; another number's folder is not taken for theirs."""
    before, after = StudyFiles(tmp_path / "before"), StudyFiles(tmp_path / "after")
    for number in range(2):
        asked = study.ask()
        asked.set_user_attr("folder", str(before.folder / str(number)))
        before.begin(TrialFiles(before.folder / str(number)), number)
        study.tell(asked, 0.5)
    first, second = study.get_trials()
    assert before.trial(first).folder == before.folder / "0"
    before.folder.rename(after.folder)
    assert after.trial(first).folder == after.folder / "0"
    (after.folder / "0").rename(after.folder / "other")
    (after.folder / "1").rename(after.folder / "0")
    assert after.trial(first).folder == before.folder / "0"
    assert after.trial(second).folder == before.folder / "1"


def _die_at(event: int, act: Callable[[], None]) -> bool:
    """A child process does it, and is killed as it renames, opens or removes a file for that time.

    Returns:
        whether it came so far.
    """
    if (pid := os.fork()) == 0:
        left = iter(range(event, -1, -1))

        def kill(name: str, _: object) -> None:
            if name in ("open", "os.rename", "os.remove", "os.rmdir") and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        act()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_a_choice_and_its_run_come_and_go_together(tmp_path: Path, study: optuna.Study) -> None:
    """Killed at any moment of choosing or of taking back, best/ is whole or away, and says whose it is."""
    end(study, tmp_path, 0.5)
    files, again = StudyFiles(tmp_path), tmp_path / "certificate"
    leave(again, 0, 0.7)  # its number is that of the best trial
    choice = Choice("s-certificate", "trial 0", trial=0, of_search=0)

    def choose() -> None:
        files.choose(RunFiles(again / "0"), choice, study.get_trials())

    def check() -> None:
        if files.best.is_ours:
            assert files.best.holds(RunFiles(again / "0")) == (files.best.read_choice() is not None)
            assert files.best.weights.exists()
        else:
            assert not files.best.folder.exists()

    n = 0
    while _die_at(n, choose):
        check()
        files.write_results(Outcome.of(study))  # as the next command does
        check()
        n += 1
    assert n > 10
    choose()
    assert files.best.read_choice() == replace(choice, n_ended=1)
    study.add_trial(trial(0.4))
    n = 0
    while _die_at(n, lambda: files.write_results(Outcome.of(study))):
        check()
        n += 1
    assert n > 10
    assert files.best.read_choice() is None
    assert files.best.read_result()["val_accuracy"] == 0.5


def test_a_folder_called_best_stays_theirs(tmp_path: Path, study: optuna.Study) -> None:
    """Where the app has a folder of that name, ours does not replace it."""
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.bin").write_text("theirs")
    end(study, tmp_path, 0.5)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["model.bin"]


def test_a_refused_run_takes_back_only_what_hydra_wrote(tmp_path: Path) -> None:
    """In a folder that holds anything else, nothing is removed."""
    for name in ("mine", "empty"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / "sweeper.log").touch()
    (tmp_path / "mine" / "other.log").touch()
    remove_refused_run(tmp_path / "mine", "sweeper")
    remove_refused_run(tmp_path / "empty", "sweeper")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        ".hydra",
        "other.log",
        "sweeper.log",
    ]
    assert not (tmp_path / "empty").exists()


def test_a_study_of_another_format_is_refused(tmp_path: Path) -> None:
    """What another version wrote is named in one line, and not read."""
    files = StudyFiles(tmp_path)
    files.mark("s", "/a/studies.journal")
    filesystem.write_json(tmp_path / ".sweeper" / "study.json", {"format": 0, "study": "s"})
    with pytest.raises(BadInput, match=r"written by another version of sweeper \(format 0, not 1\)"):
        outputs.find_study(str(tmp_path))
    (tmp_path / ".sweeper" / "study.json").unlink()  # as before there was a format
    with pytest.raises(BadInput, match=r"written by another version of sweeper"):
        files.refuse_others("s", "/a/studies.journal")


def test_the_newest_study_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the one that changed last; with a name or folder, that one; else all are told."""
    monkeypatch.chdir(tmp_path)
    for age_s, name in [(50, "old"), (10, "new"), (30, "middle")]:
        files = StudyFiles(tmp_path / "outputs" / name)
        files.mark(name, "memory")
        filesystem.write_whole(files.results, "study: x\n")
        moment = time.time() - age_s
        os.utime(files.results, (moment, moment))
    assert outputs.find_study(None).folder.name == "new"
    assert outputs.find_study("old").folder.name == "old"
    assert outputs.find_study(str(tmp_path / "outputs" / "middle")).folder.name == "middle"
    with pytest.raises(BadInput, match=r"STUDY=other: .*; write one of new, middle, old; name one"):
        outputs.find_study("other")
    with pytest.raises(BadInput, match=r"STUDY=midle: .*; did you mean middle\? write one of new, "):
        outputs.find_study("midle")


def test_the_dashboard_finds_every_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default journal comes first, then what else the studies' folders name; gone files are left out."""
    monkeypatch.chdir(tmp_path)
    assert outputs.find_storages() == [None]
    for name, url in [("a", "sqlite:////x.db"), ("b", str(tmp_path / "gone")), ("c", "sqlite:////x.db")]:
        files = StudyFiles(tmp_path / "outputs" / name)
        files.mark(name, url)
        filesystem.write_whole(files.results, "study: x\n")
    assert outputs.find_storages() == ["sqlite:////x.db"]
    (tmp_path / "outputs" / "studies.journal").touch()
    assert outputs.find_storages() == [str(tmp_path / "outputs" / "studies.journal"), "sqlite:////x.db"]
    assert outputs.studies_in(outputs.find_storages()) == ["c"]


def test_a_folder_belongs_to_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run never writes into a study, nor a search into a run, nor either below a file; each may go on."""
    monkeypatch.chdir(tmp_path)
    study, run = StudyFiles(Path("outputs", "study")), RunFiles(Path("outputs", "run"))
    study.mark("study", "memory")
    run.mark()
    Path("outputs", "file").touch()
    for name, is_search, whose in [
        ("study", False, "study: belongs to a study"),
        ("study/best", False, "study: belongs to a study"),
        ("run", True, "run: belongs to a run"),
        ("file/a", True, "file: is a file"),
        ("file", False, "file: is a file"),
    ]:
        with pytest.raises(BadInput, match=rf"^folder=outputs/{whose}; write another name, as study=NAME$"):
            outputs.refuse_folder_of_others(Path("outputs", name), is_search)
    outputs.refuse_folder_of_others(study.folder, is_search=True)
    outputs.refuse_folder_of_others(run.folder, is_search=False)
    outputs.refuse_folder_of_others(Path("outputs", "new"), is_search=True)


DAMAGE = {"half": b'{"format": 1, "stu', "no mapping": b"[1, 2]\n", "empty": b"", "binary": b"\xfd\x00\xff\n"}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("name", [".sweeper/study.json", "optimization_results.yaml"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    """Half a file, or another program's, is one line with its path and what to do."""
    files = StudyFiles(tmp_path)
    files.mark("s", "/tmp/s.journal")
    filesystem.write_whole(files.results, "study: s\n")
    (tmp_path / name).write_bytes(content)

    def read() -> None:
        files.read_name()
        filesystem.read_yaml(files.results)

    with pytest.raises(Fault, match=rf"{name}.*damaged; restore an intact copy") as fault:
        read()
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("content", [b"", b"\xfd\x00\xff\n"])
def test_a_storage_that_cannot_be_read_is_damaged(tmp_path: Path, content: bytes) -> None:
    """The file that remembers where the study is, too, is named."""
    files = StudyFiles(tmp_path)
    files.mark("s", "/tmp/s.journal")
    (tmp_path / ".sweeper" / "storage").write_bytes(content)
    with pytest.raises(Fault, match=r"\.sweeper/storage: names no storage"):
        files.read_storage()


def test_a_history_with_half_a_row_is_damaged(tmp_path: Path) -> None:
    """A copy that was cut off is not compared with."""
    files = RunFiles(tmp_path)
    files.write_history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    whole = files.history.read_text()
    files.history.write_text(whole[: whole.rindex(",")])
    with pytest.raises(Fault, match=r"history\.csv.*damaged"):
        files.read_history()


@pytest.mark.parametrize("rows", ["1,", "1,-", "x,0.5", "nan,0.5", "2,0.5", "1,0.5\n1,0.5"])
def test_a_history_of_no_numbers_is_damaged(tmp_path: Path, rows: str) -> None:
    """Whoever reads it gets numbers, epoch after epoch, or one line that names the file."""
    files = RunFiles(tmp_path)
    files.history.write_text(f"epoch,val_loss\n{rows}\n")
    with pytest.raises(Fault, match=r"history\.csv.*damaged"):
        files.read_history()


def test_only_one_run_writes_into_a_folder(tmp_path: Path) -> None:
    """A second run under the same name, also one of this second, is refused while the first one writes."""
    files = RunFiles(tmp_path / "mine")
    with files.held_alone(), pytest.raises(BadInput, match=r"study=mine: another run is writing"):
        files.held_alone().__enter__()
    with files.held_alone():
        pass


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    """Half-written files go at the next start, but not those that somebody is just writing."""
    (tmp_path / "1" / ".hydra").mkdir(parents=True)
    left = [tmp_path / ".a.yaml.1.sweeper-new", tmp_path / "1" / ".hydra" / ".config.yaml.2.sweeper-new"]
    for path in left:
        path.write_text("hal")
    with filesystem.whole(tmp_path / "b.yaml") as writing:
        writing.write_text("b: 1\n")
        filesystem.sweep_up(tmp_path, depth=2)
        assert writing.exists()
    assert not [path for path in left if path.exists()]
    assert (tmp_path / "b.yaml").read_text() == "b: 1\n"


def test_a_run_is_not_taken_for_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names the folder of a single run is told what it is, and where its results are."""
    monkeypatch.chdir(tmp_path)
    RunFiles(Path("outputs/one")).mark()
    for name in ("one", "outputs/one"):
        with pytest.raises(BadInput, match=r"one training run, not a search; look into outputs/one/result"):
            outputs.find_study(name)


def test_a_page_of_the_apps_is_no_report(tmp_path: Path) -> None:
    """A file named report.html that somebody else wrote is neither shown, replaced nor removed."""
    files = StudyFiles(tmp_path)
    files.report.write_text("<html>theirs</html>")
    assert not files.has_report
    files.remove_trials()
    assert files.report.exists()
    files.report.write_text('<meta name="generator" content="sweeper 1">')
    files.remove_trials()
    assert not files.report.exists()


def test_a_file_never_takes_the_place_of_a_device(tmp_path: Path) -> None:
    """Root could rename it over one; the standard streams are links, and may lead to files."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(BadInput, match=f"{name}: is a device, and no file; write the name of a file"):
            filesystem.write_whole(tmp_path / name, "x")
    for stream in ("/dev/stdout", "/dev/null"):
        with pytest.raises(BadInput, match=f"{stream}: is a device"):
            filesystem.check_replaceable(Path(stream))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_what_a_killed_command_left_of_a_file_is_removed(tmp_path: Path) -> None:
    """By the next one that writes it; of other files, and where somebody still writes, nothing is."""
    out = tmp_path / "said[1].csv"
    left, others = (tmp_path / f".{name}.4711.sweeper-new" for name in (out.name, "said1.csv"))
    left.touch()
    others.touch()
    with filesystem.whole(out) as written:
        check_out(out, "--csv", "said.csv")
        assert written.exists()
    assert sorted(tmp_path.iterdir()) == sorted([others, out])


def test_what_two_add_to_the_best_result_is_there_in_the_end(tmp_path: Path, study: optuna.Study) -> None:
    """A search says how sure it is while its last worker tests the model: nothing of either is lost."""
    files = StudyFiles(tmp_path)
    end(study, tmp_path, 0.5)
    filesystem.write_json(files.best.result, {**files.best.read_result(), PER_CLASS: {"val": {}}})
    before, n = files.best.read_result(), 50
    with ThreadPoolExecutor(2) as both:
        adding = both.map(
            lambda name: [files.add_to_best(0, {f"{name}_{i}": i}) for i in range(n)], ("test", "other")
        )
        assert [all(each) for each in adding] == [True, True]
    after = files.best.read_result()
    assert after == before | {f"{name}_{i}": i for name in ("test", "other") for i in range(n)}
    assert list(after)[-1] == PER_CLASS
    assert not files.add_to_best(1, {"test_accuracy": 1.0})
    assert files.best.read_result() == after


def test_belief_stands_beside_what_the_best_trial_measured(tmp_path: Path, study: optuna.Study) -> None:
    """It is in ``best/result.json``; a new best trial has none of it; of another app it is in its mark."""
    files = StudyFiles(tmp_path)
    assert files.read_belief() is None
    files.write_belief(0, {"value": 0.4})  # nothing of ours is there yet
    assert files.read_belief() == {"value": 0.4}
    end(study, tmp_path, 0.5)
    files.write_belief(0, {"value": 0.5})
    assert files.best.read_result()["belief"] == files.read_belief() == {"value": 0.5}
    end(study, tmp_path, 0.9)
    assert files.read_belief() is None


def test_a_choice_costs_no_belief(tmp_path: Path, study: optuna.Study) -> None:
    """What is known of the search's best trial outlives its place in best/; a new best trial ends it."""
    files = StudyFiles(tmp_path)
    end(study, tmp_path, 0.4)
    end(study, tmp_path, 0.5)
    files.write_belief(1, {"value": 0.5})
    for _ in range(2):
        files.choose(files.run(0), Choice("s-certificate", "trial 0", 0, 0), study.trials)
        assert "belief" not in files.best.read_result()
        assert files.read_belief() == {"value": 0.5}
    end(study, tmp_path, 0.9)
    assert files.read_belief() is None


def test_any_text_can_be_written(tmp_path: Path) -> None:
    """A name that is no UTF-8, as a folder's may be, ends nothing: JSON gives back the same."""
    path = tmp_path / "a.json"
    filesystem.write_json(path, {"folder": "m\udcff é"})
    assert filesystem.read_json(path) == {"folder": "m\udcff é"}
    filesystem.write_whole(path, "<p>\ud800</p>")
    assert path.read_text(encoding="utf-8") == "<p>\\ud800</p>"
