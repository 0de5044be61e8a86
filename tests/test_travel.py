"""What goes with a study to machines that do not see its folder, and how it arrives there."""

from __future__ import annotations

import base64
import resource
import shutil
import signal
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper import filesystem, origin, outcome
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.filesystem import sweep_up
from sweeper.record.best_files import Choice
from sweeper.record.mark import FORMAT
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.record.trial_files import TrialFiles
from sweeper.search import artifact
from sweeper.search.arrival import Arrival
from sweeper.search.sender import Sender, forget
from sweeper.search.travel import FILES, MOST, left_out, pack, travels, unpack
from tests.journal import open_journal

ID = "5a" * 16


class Host:
    """A machine with a folder of its own for a study that others share: its trials are made up."""

    def __init__(
        self, top: Path, name: str, artifacts: Path | None = None, directions: Sequence[str] = ("maximize",)
    ) -> None:
        self.journal = top / "store" / "studies.journal"
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        self.files = StudyFiles(top / name / "outputs" / "s")
        self.study = optuna.create_study(
            study_name="s",
            storage=open_journal(self.journal),
            directions=[StudyDirection[each.upper()] for each in directions],
            load_if_exists=True,
        )
        begun: dict[str, Any] = {
            "format": FORMAT,
            "folder": str(self.files.folder),
            "id": ID,
            "travels": True,
        }
        begun["artifacts"] = None if artifacts is None else str(artifacts)
        if not origin.read(self.study._storage, self.study._study_id):
            self.study._storage.set_study_system_attr(self.study._study_id, origin.KEY, begun)
        self.files.mark("s", str(self.journal), ID, travels=True)
        sender = Sender.of(self.study, self.files)
        assert sender is not None
        self.sender = sender

    def begin(self, weights: bytes = b"weights", logits: bytes = b"logits", n_epochs: int = 2) -> int:
        """Train a trial up to the point where it is told."""
        trial = self.study.ask()
        files = TrialFiles(self.files.folder / str(trial.number))
        self.files.begin(files, trial.number)
        trial.set_user_attr("folder", str(files.folder))
        trial.set_user_attr("worker", "there-1-abcdef12")
        run = files.run
        run.mark()
        filesystem.write_whole(run.config, f"seed: {trial.number}\n")
        run.write_history([{"epoch": i, "val_loss": trial.number / 3 + i} for i in range(1, n_epochs + 1)])
        filesystem.write_json(run.result, {"trial": trial.number, "objective": "score"})
        filesystem.write_json(run.signs, [])
        for path, content in ((run.weights, weights), (run.card, b"{}"), (run.val_logits, logits)):
            path.write_bytes(content)
        return trial.number

    def end(self, number: int, values: float | Sequence[float]) -> None:
        """Tell a trial, as a worker does."""
        told = [values] if isinstance(values, float) else list(values)
        ended = self.study.get_trials(deepcopy=False)
        is_sent = self.send(number, told, ended)
        self.study.tell(number, told)
        self.files.write_results(outcome.Outcome.of(self.study), ended=number)
        if is_sent:
            self.sender.tidy(self.study.get_trials(deepcopy=False))

    def send(self, number: int, values: Sequence[float], ended: Sequence[FrozenTrial] = ()) -> bool:
        return self.sender.send(self.study.get_trials(deepcopy=False)[number], values, ended)

    def train(self, values: float | Sequence[float], weights: bytes = b"weights", n_epochs: int = 2) -> int:
        number = self.begin(weights, n_epochs=n_epochs)
        self.end(number, values)
        return number


def arrival(top: Path, name: str = "here") -> Arrival:
    """Of the study in another folder, on a machine that knows its storage."""
    journal = top / "store" / "studies.journal"
    files = StudyFiles(top / name / "outputs" / "s")
    files.mark("s", str(journal), ID, travels=True)
    return Arrival(files, open_journal(journal))


def bring(top: Path, name: str = "here") -> StudyFiles:
    arrival(top, name).bring(lambda n_bytes: True)
    return StudyFiles(top / name / "outputs" / "s")


def contents(folder: Path) -> Mapping[str, bytes]:
    """All files below a folder, but for those of the search itself."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".sweeper/")}


def away(host: Host) -> None:
    """Its disk cannot be seen any more."""
    shutil.move(host.files.folder, host.files.folder.with_name("away"))


# ---------------------------------------------------------------------------------------------- small files


def test_the_record_of_each_trial_arrives_on_another_machine(tmp_path: Path) -> None:
    """Config, history, result and signs are the same to the last byte, and the best trial's are in best/."""
    host = Host(tmp_path, "there")
    for value in (0.1, 0.3, 0.2):
        host.train(value)
    heavy = ("weights", "model.json", "val_logits")
    sent = {
        name: text for name, text in contents(host.files.folder).items() if not any(h in name for h in heavy)
    }
    away(host)
    files = bring(tmp_path)
    found = contents(files.folder)
    assert {name: text for name, text in found.items() if not name.endswith("trial.json")} == {
        name: text for name, text in sent.items() if not name.endswith("trial.json")
    }
    assert files.best.read_result()["trial"] == 1
    assert files.complete_runs() == [0, 1, 2]


def test_a_second_time_writes_nothing(tmp_path: Path) -> None:
    """Whoever reads again finds all of it there."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    host.train(0.1)
    host.sender.send_study()
    away(host)
    files = bring(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files.folder.rglob("*") if path.is_file()}
    bring(tmp_path)
    marks = {files.folder / ".sweeper" / "study.json", files.folder / ".sweeper" / "storage"}  # by the test
    after = {path: path.stat().st_mtime_ns for path in files.folder.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p not in marks} == {
        p: t for p, t in before.items() if p not in marks
    }


def test_nothing_is_copied_where_the_folder_is_seen(tmp_path: Path) -> None:
    """A trial whose folder is on this disk, and of this very study, stays where it is."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    files = bring(tmp_path)
    assert not files.run(0).folder.exists()


def test_folders_of_several_hosts_merge_by_trial_number(tmp_path: Path) -> None:
    """Each has the others' trials beside its own, which keep what only they have."""
    a, b = Host(tmp_path, "a"), Host(tmp_path, "b")
    first, second = a.begin(), b.begin()
    a.end(first, 0.1)
    b.end(second, 0.2)
    away(b)
    bring(tmp_path, "a")
    assert [TrialFiles(a.files.folder / str(n)).has_arrived for n in (first, second)] == [False, True]
    assert a.files.best.read_result()["trial"] == second
    assert (
        a.files.run(second).read_history()
        == RunFiles(b.files.folder.with_name("away") / str(second)).read_history()
    )


def test_what_a_killed_reader_left_is_made_whole(tmp_path: Path) -> None:
    """Half a folder in the making is thrown away, and what is missing in a trial's is added."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    away(host)
    files = StudyFiles(tmp_path / "here" / "outputs" / "s")
    (files.arriving / "0").mkdir(parents=True)
    (files.arriving / "0" / "history.csv").write_text("epo")
    bring(tmp_path)
    assert files.run(0).is_complete
    assert not files.arriving.exists()


def test_two_readers_at_once_bring_the_same(tmp_path: Path) -> None:
    """Neither sees half of what the other writes."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    for i in range(6):
        host.train(i / 20)
    host.sender.send_study()
    away(host)
    arrivals = [arrival(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: each.bring(lambda n: True), arrivals))
    files = StudyFiles(tmp_path / "here" / "outputs" / "s")
    assert files.complete_runs() == list(range(6))
    assert files.best.has_model


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where something has the name of a trial's folder, the record stays away, and the log says so."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    away(host)
    theirs = tmp_path / "here" / "outputs" / "s" / "0" / "mine.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    files = bring(tmp_path)
    assert contents(files.run(0).folder) == {"mine.txt": b"mine"}
    assert "is in the way of trial 0" in caplog.text


def test_the_config_of_another_app_arrives(tmp_path: Path) -> None:
    """Of an app that is not sweeper's own it is what Hydra has written, and there is no best/."""
    host = Host(tmp_path, "there")
    trial = host.study.ask()
    files = TrialFiles(host.files.folder / "0")
    host.files.begin(files, 0)
    trial.set_user_attr("folder", str(files.folder))
    filesystem.write_whole(files.folder / ".hydra" / "config.yaml", "x: 1\n")
    host.end(0, 0.5)
    away(host)
    found = bring(tmp_path)
    assert (found.run(0).folder / ".hydra" / "config.yaml").read_text() == "x: 1\n"
    assert not found.best.folder.exists()
    assert filesystem.read_yaml(found.results)["best_trial"] == 0


def test_what_the_search_found_arrives(tmp_path: Path) -> None:
    """Signs, how sure the best is, and what it was tested to be: also before its weights are here."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    filesystem.write_json(host.files.signs, [{"sign": "of the study"}])
    host.files.add_to_best(0, {"test_accuracy": 0.5})
    host.sender.send_study()
    away(host)
    files = bring(tmp_path)
    assert filesystem.read_json_list(files.signs) == [{"sign": "of the study"}]
    assert files.best.read_test_scores() == {"test_accuracy": 0.5}
    assert not files.best.card.exists()


def test_what_was_tested_is_not_said_of_a_later_best(tmp_path: Path) -> None:
    """Where the search goes on, best/ is the new best trial's, without the scores of the former."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    host.files.add_to_best(0, {"test_accuracy": 0.5})
    host.sender.send_study()
    host.train(0.2)
    away(host)
    assert bring(tmp_path).best.read_result() == {"trial": 1, "objective": "score"}


def test_a_trial_that_others_have_ended_sends_nothing(tmp_path: Path) -> None:
    """A worker that comes back after its trial was taken for lost learns it at once."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts)
    number = host.begin()
    host.study.tell(number, state=TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError, match="finished"):
        host.send(number, [0.5])
    assert not artifacts.exists()


def test_long_texts_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The storage stays small: the longest go first, the log says so, and the rest arrives."""
    host = Host(tmp_path, "there")
    number = host.begin(n_epochs=20_000)
    host.end(number, 0.5)
    packed = host.study.trials[0].system_attrs[FILES]
    assert len(packed) <= MOST
    assert left_out(packed) == ["history.csv"]
    assert "trial 0: history.csv is too long to go with the study" in caplog.text
    away(host)
    assert {path.name for path in bring(tmp_path).run(0).folder.iterdir() if path.is_file()} == {
        "trial.yaml",
        "result.json",
        "signs.json",
    }


def test_texts_come_back_as_they_were() -> None:
    """Whatever characters are in them."""
    texts = {"trial.yaml": "ä: '\u2028'\n", "history.csv": "\0\r\n", "result.json": ""}
    assert unpack(pack(texts)) == texts


BOMB = base64.b64encode(zlib.compress(b'{"history.csv": "' + b"0" * 10**8 + b'"}', 9)).decode()


@pytest.mark.parametrize(
    "packed",
    [None, 3, "", "no base64", base64.b64encode(b"no zlib").decode(), BOMB, pack({})[:-8], {"a": "b"}],
    ids=["none", "number", "empty", "text", "bytes", "bomb", "torn", "dict"],
)
def test_what_another_program_has_put_there_is_nothing(packed: object) -> None:
    """No attribute makes a reader raise, or fill its memory."""
    assert unpack(packed) == {}


def test_no_name_in_a_storage_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Only the files that a trial has are written, whatever else the attribute holds."""
    host = Host(tmp_path, "there")
    trial = host.study.ask()
    names = ("../out.txt", "/out.txt", "weights.safetensors", ".sweeper/trial.json", "extra.py")
    texts = dict.fromkeys(names, "x") | {"trial.yaml": "seed: 1\n"}
    host.study._storage.set_trial_system_attr(trial._trial_id, FILES, pack(texts))
    host.study.tell(trial, 0.5)
    found = contents(bring(tmp_path).folder)
    assert set(found) == {"0/trial.yaml", "0/.sweeper/trial.json", "optimization_results.yaml"}


# ---------------------------------------------------------------------------------------------- large files


def test_the_model_of_the_best_trial_arrives(tmp_path: Path) -> None:
    """Weights and card are in best/, and those of a later best take their place."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    host.train(0.1, b"first")
    shutil.copytree(host.files.folder, tmp_path / "copy")
    host.train(0.2, b"second")
    away(host)
    files = bring(tmp_path)
    assert files.best.weights.read_bytes() == b"second"
    assert files.best.has_model
    assert [files.run(n).has_weights for n in (0, 1)] == [False, False]
    assert [files.run(n).val_logits.read_bytes() for n in (0, 1)] == [b"logits", b"logits"]


def test_the_store_keeps_the_model_of_the_best_alone(tmp_path: Path) -> None:
    """Each better trial takes the place of the former; a worse one sends none."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts)
    for value in (0.2, 0.1, 0.3, 0.25):
        host.train(value)
    assert [path.name for path in artifacts.glob("*.zip")] == [f"{ID}-trial-2.zip"]


def test_two_that_end_at_once_leave_one_model(tmp_path: Path) -> None:
    """Whoever is told last removes the other's, though neither knew of the other when it was sent."""
    artifacts = tmp_path / "store" / "artifacts"
    hosts = Host(tmp_path, "a", artifacts), Host(tmp_path, "b", artifacts)
    numbers = [host.begin() for host in hosts]
    for host, number, value in zip(hosts, numbers, (0.2, 0.1), strict=True):
        assert host.send(number, [value])
    for host, number, value in zip(hosts, numbers, (0.2, 0.1), strict=True):
        host.study.tell(number, value)
        host.sender.tidy(host.study.get_trials(deepcopy=False))
    assert [path.name for path in artifacts.glob("*.zip")] == [f"{ID}-trial-0.zip"]


def test_the_next_removes_what_a_killed_worker_has_sent(tmp_path: Path) -> None:
    """A trial that failed after its model was sent leaves none for ever."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts)
    number = host.begin()
    host.send(number, [0.9])
    host.study.tell(number, state=TrialState.FAIL)
    host.train(0.1)
    assert [path.name for path in artifacts.glob("*.zip")] == [f"{ID}-trial-1.zip"]


@pytest.mark.parametrize("which", ["weights", "logits"])
def test_half_of_what_a_killed_worker_was_sending_is_removed(tmp_path: Path, which: str) -> None:
    """In the store and beside the study, whatever it was sending; and no other machine is given it."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts)
    large = bytes(3 * 10**6)
    number = host.begin(weights=large) if which == "weights" else host.begin(logits=large)
    worker = get_context("fork").Process(target=_send_and_die, args=(host, number))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGXFSZ
    left = [path for folder in (artifacts, host.files.heartbeats) for path in folder.glob(".*.sweeper-new")]
    assert [path.stat().st_size for path in left] == [2 * 10**6]
    host.study.tell(number, state=TrialState.FAIL)
    host.sender.send_study()
    sweep_up(host.files.folder, depth=1)  # as whoever opens the study
    assert not any(path.exists() for path in left)
    assert not list(artifacts.iterdir())


def _send_and_die(host: Host, number: int) -> None:
    """The system ends this process in the midst of a large file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 10**6, 2 * 10**6))
    host.send(number, [0.9])


def test_the_models_of_a_front_arrive_with_their_trials(tmp_path: Path) -> None:
    """Of several objectives there is no best/: each trial of the front has its own weights."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts, ("maximize", "minimize"))
    for values in ((0.1, 3.0), (0.2, 4.0), (0.05, 5.0), (0.3, 4.0)):
        host.train(values)
    assert sorted(path.name for path in artifacts.glob("*.zip")) == [f"{ID}-trial-{n}.zip" for n in (0, 3)]
    away(host)
    files = bring(tmp_path)
    assert [n for n in range(4) if files.run(n).has_model] == [0, 3]
    assert not files.best.folder.exists()


def test_a_chosen_model_arrives_as_the_choice(tmp_path: Path) -> None:
    """What certify has put into best/ is there on other machines, until another trial ends."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    host.train(0.1)
    chosen = Host(tmp_path, "certificate").begin(b"chosen")
    run = RunFiles(tmp_path / "certificate" / "outputs" / "s" / str(chosen))
    choice = Choice("s-certificate", "trial 0", chosen, 0)
    trials = host.study.get_trials(deepcopy=False)
    host.files.choose(run, choice, trials)
    host.sender.send_study()
    away(host)
    files = bring(tmp_path)
    assert files.best.weights.read_bytes() == b"chosen"
    assert files.best.read_choice() == Choice("s-certificate", "trial 0", chosen, 0, n_ended=1)
    host.study.tell(chosen, 0.05)
    files = bring(tmp_path)
    assert files.best.read_choice() is None
    assert files.best.weights.read_bytes() == b"weights"


def test_optunas_own_tools_find_a_model(tmp_path: Path) -> None:
    """Who has only Optuna downloads it by the attributes of the trial."""
    artifacts = tmp_path / "store" / "artifacts"
    host = Host(tmp_path, "there", artifacts)
    host.train(0.1)
    metas = get_all_artifact_meta(host.study.trials[0], storage=host.study._storage)
    (meta,) = [meta for meta in metas if meta.filename == "trial-0.zip"]
    path = tmp_path / "model.zip"
    download_artifact(
        artifact_store=FileSystemArtifactStore(artifacts), artifact_id=meta.artifact_id, file_path=str(path)
    )
    with zipfile.ZipFile(path) as file:
        assert file.read("weights.safetensors") == b"weights"


def test_who_is_asked_is_told_how_much_it_is(tmp_path: Path) -> None:
    """Nothing large is there before somebody has said yes."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    host.train(0.1, bytes(10**6))
    away(host)
    asked: list[int] = []

    def refuse(n_bytes: int) -> bool:
        asked.append(n_bytes)
        return False

    arrival(tmp_path).bring(refuse)
    files = StudyFiles(tmp_path / "here" / "outputs" / "s")
    assert not files.best.has_weights
    assert 10**6 < asked[0] < 10**6 + 10_000


def test_a_store_that_fails_costs_no_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says where the weights are, the record goes with the study, and the end sends them."""
    artifacts = tmp_path / "store" / "artifacts"
    artifacts.parent.mkdir(parents=True)
    artifacts.write_text("not a folder")
    host = Host(tmp_path, "there", artifacts)
    host.train(0.1)
    assert f"what trial 0 has learned stays in {host.files.folder / '0'}" in caplog.text
    assert FILES in host.study.trials[0].system_attrs
    artifacts.unlink()
    host.sender.send_study()
    away(host)
    assert bring(tmp_path).best.has_model


def test_a_model_of_another_program_is_refused(tmp_path: Path) -> None:
    """A file with other names, with a bomb, or half a file: one line, and best/ is as it was."""
    host = Host(tmp_path, "there", artifacts := tmp_path / "store" / "artifacts")
    host.train(0.1)
    away(host)
    (model,) = artifacts.glob("*.zip")
    whole = model.read_bytes()
    with zipfile.ZipFile(model, "w") as file:
        file.writestr("../../out.txt", "x")
    with pytest.raises(Fault, match="holds what no model has"):
        bring(tmp_path)
    with zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("weights.safetensors", bytes(10**7))
    with pytest.raises(Fault, match="holds what no model has"):
        bring(tmp_path)
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Fault, match="holds no model"):
        bring(tmp_path)
    files = StudyFiles(tmp_path / "here" / "outputs" / "s")
    assert files.best.is_complete
    assert not files.best.has_weights
    assert not (tmp_path / "here" / "out.txt").exists()
    model.write_bytes(whole)
    assert bring(tmp_path).best.has_model


def test_a_deleted_study_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    """Whichever machine deletes it."""
    host = Host(tmp_path, "there", artifacts := tmp_path / "store" / "artifacts")
    for value in (0.1, 0.2):
        host.train(value)
    host.sender.send_study()
    assert list(artifacts.iterdir())
    forget(host.study._storage, host.study._study_id)
    assert not list(artifacts.iterdir())


# --------------------------------------------------------------------------------------------- where it goes


def test_a_study_travels_unless_all_of_it_is_on_one_disk(tmp_path: Path) -> None:
    """Whoever sees the file of the storage sees the folder beside it, too."""
    beside = tmp_path / "outputs" / "s"
    assert not travels(str(tmp_path / "outputs" / "studies.journal"), beside, None)
    assert not travels(f"sqlite:///{tmp_path}/studies.db", beside, None)
    assert not travels("memory", beside, None)
    assert travels("postgresql+psycopg://h/d", beside, None)
    assert travels("grpc://h:1", beside, None)
    assert travels("/proc/studies.journal", beside, None)
    assert travels(str(tmp_path / "outputs" / "studies.journal"), beside, "s3://models")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3://", "is no bucket with a prefix"),
        ("s3://A_bucket", "is no bucket with a prefix"),
        ("s3://models/a b", "is no bucket with a prefix"),
        ("s3:/models", "is neither a folder nor on S3"),
        ("gs://models", "is neither a folder nor on S3"),
        ("s3://key:hunter2hunter2@models", "has more than a bucket and a prefix in it"),
    ],
)
def test_a_store_that_cannot_be_is_refused(place: str, reason: str) -> None:
    """In one line that says what to write, and no secret."""
    with pytest.raises(BadInput, match=reason) as raised:
        artifact.absolute(place)
    assert "hunter2hunter2" not in str(raised.value)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Before anything starts; one that can be is made, and left empty."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        artifact.check(str(tmp_path / "file" / "artifacts"))
    artifact.check(str(tmp_path / "new" / "artifacts"))
    assert not list((tmp_path / "new" / "artifacts").iterdir())
