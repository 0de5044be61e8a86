"""A study on a machine that reaches its storage, and sees nothing of its folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from PIL import Image

import sweeper as api
from sweeper import filesystem, origin
from sweeper.commands.arrival import find_study
from sweeper.errors import BadInput
from sweeper.record.study_files import StudyFiles
from tests import s3
from tests.conftest import Said
from tests.foreign_app import App
from tests.program import IN_PROCESS, finish, run, start, sweeper, until
from tests.server import Postgres
from tests.test_travel import Host, away

Sweeper = Callable[..., str]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine whose folder is away, with three trials; this one works in an empty folder."""
    host = Host(tmp_path, "there", tmp_path / "store" / "artifacts")
    for value in (0.1, 0.3, 0.2):
        host.train(value)
    away(host)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return host


def test_a_study_is_found_by_its_storage(there: Host, tmp_path: Path) -> None:
    """By its name, or as the newest; afterwards the name is enough."""
    assert api.open_study("s", storage=str(there.journal)).best.number == 1
    assert api.open_study("s").best.result["trial"] == 1
    shutil.rmtree(tmp_path / "here" / "outputs")
    assert api.open_study(storage=str(there.journal)).name == "s"


def test_a_study_that_goes_on_elsewhere_is_brought_up_to_date(there: Host) -> None:
    """Whoever reads again sees what has ended since."""
    study = api.open_study("s", storage=str(there.journal))
    shutil.move(there.files.folder.with_name("away"), there.files.folder)
    there.train(0.9)
    away(there)
    assert study.best.number == 1
    assert api.open_study("s").best.number == 3
    assert study.run(3).history


def test_a_storage_that_is_away_leaves_what_is_here(there: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A laptop without a network still shows what it has, and says that there may be more."""
    api.open_study("s", storage=str(there.journal))
    there.journal.rename(there.journal.with_name("away"))
    assert api.open_study("s").best.number == 1
    assert "outputs/s is as this machine knows it" in caplog.text


def test_a_folder_that_is_seen_is_read_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one disk nothing is copied: another working folder reads that of the search."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert api.open_study("s", storage=str(host.journal)).folder == host.files.folder
    assert not list(Path.cwd().iterdir())


def test_a_copy_of_a_study_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the folder remembers another storage than the one that was typed, it is said which is shown."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    monkeypatch.chdir(tmp_path)
    assert api.open_study("s", storage=str(host.journal)).name == "s"
    assert not caplog.text
    copy = shutil.copy(host.journal, tmp_path / "copy.journal")
    assert api.open_study("s", storage=str(copy)).folder == host.files.folder
    assert f"has it in {host.journal}, which is what is shown" in caplog.text


def test_a_study_with_its_folder_elsewhere_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that sets ``hydra.sweep.dir`` has its trials there, and its study in the default journal."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    outputs = tmp_path / "here" / "outputs"
    outputs.mkdir(parents=True)
    host.journal.rename(outputs / host.journal.name)
    monkeypatch.chdir(tmp_path / "here")
    for name in ("s", None):
        assert find_study(name).folder == host.files.folder
    with pytest.raises(BadInput, match="STUDY=other: there is no such study"):
        find_study("other")
    shutil.rmtree(host.files.folder)
    with pytest.raises(BadInput, match="there is no study in"):
        find_study(None)


def test_a_command_that_came_from_a_storage_is_not_run_unasked(there: Host, said: Said) -> None:
    """Whoever can write the storage could start anything; it is shown, and --trust runs it."""
    begun = origin.read(there.study._storage, there.study._study_id)
    space = {"x": distribution_to_json(FloatDistribution(0, 1))}
    begun |= {"command": ["python", "-m", "timeit", "-n1", "open('bad', 'w')"], "space": space}
    there.study._storage.set_study_system_attr(there.study._study_id, origin.KEY, begun)
    code, text = said("certify", "s", "--storage", str(there.journal))
    assert code == 2
    assert "a command that stands in the storage: python -m timeit -n1 'open('\"'\"'bad" in text
    assert "write --trust too if you would type it yourself" in text
    assert not Path("bad").exists()


def test_a_folder_of_another_study_of_that_name_is_refused(there: Host) -> None:
    """One that was deleted from the storage, say, is not mixed with its successor."""
    files = StudyFiles(Path("outputs/s").absolute())
    files.mark("s", str(there.journal), "another id", travels=True)
    with pytest.raises(BadInput, match="is the folder of another study of that name"):
        api.open_study("s", storage=str(there.journal))


def test_a_folder_of_something_else_is_refused(there: Host) -> None:
    """A person's own files are not mixed with a study."""
    Path("outputs/s").mkdir(parents=True)
    Path("outputs/s/mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="outputs/s holds something else"):
        api.open_study("s", storage=str(there.journal))


@pytest.mark.parametrize(
    ("arguments", "said_it"),
    [
        (("best", "nobody"), "STUDY=nobody: there is no such study in that storage"),
        (("best", "s", "--storage", "nowhere.journal"), "there is no such file"),
        (
            ("best", "s", "--storage", "postgresql:me:secret@host/db"),
            "is neither a path nor a URL; write a URL",
        ),
        (("best", "s", "--artifacts", "nowhere"), "there is no such folder"),
        (("predict", "s", "p.png", "--artifacts", "empty"), "the weights of its best trial are"),
    ],
)
def test_what_cannot_be_found_is_one_line(
    there: Host, said: Said, arguments: tuple[str, ...], said_it: str
) -> None:
    """With exit code 2, and no traceback."""
    Path("empty").mkdir()
    Image.new("L", (8, 8)).save("p.png")
    storage = () if "--storage" in arguments else ("--storage", str(there.journal))
    code, printed = said(*arguments, *storage)
    assert said_it in printed
    assert code == 2
    assert "Traceback" not in printed


def test_without_artifacts_best_says_who_has_the_weights(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host, its folder, and how all would have them."""
    host = Host(tmp_path, "there")
    host.train(0.1)
    away(host)
    code, printed = said("best", "s", "--storage", str(host.journal))
    assert code == 0
    assert f"Weights:   on there, in {host.files.folder / '0'}; hydra.sweeper.artifacts=" in printed


@pytest.mark.slow
def test_large_weights_are_only_downloaded_after_a_yes(there: Host, tmp_path: Path, said: Said) -> None:
    """Where nobody can be asked, the line says what to write; best shows the rest meanwhile."""
    shutil.move(there.files.folder.with_name("away"), there.files.folder)
    there.train(0.9, bytes(101 * 10**6))
    away(there)
    storage = ("--storage", str(there.journal))
    code, printed = said("best", "s", *storage)
    assert (code, "The model is not here: 101.0 MB would be downloaded" in printed) == (0, True)
    Image.new("L", (8, 8)).save(tmp_path / "p.png")
    code, printed = said("predict", "s", "p.png", *storage)
    assert code == 2
    assert "101.0 MB would be downloaded, and nobody can be asked; write --yes too" in printed
    assert said("best", "s", "--yes")[0] == 0
    assert filesystem.size(tmp_path / "outputs" / "s" / "best" / "weights.safetensors") == 101 * 10**6


@pytest.mark.slow
@pytest.mark.timeout(600)  # ten commands, of which three train
def test_every_reader_says_the_same_on_another_machine(postgres: Postgres, tmp_path: Path) -> None:
    """Of a search and its certificate, with PostgreSQL and S3: best and report to the last byte, reproduce to
    the last bit; predict, export and choose work, and the last to delete leaves nothing in the store, and no
    half of a file.
    """
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    with s3.serving():
        words = (
            "-m",
            "optimizer=adam",
            "study=mine",
            "training.epochs=1",
            "hydra.sweeper.n_trials=2",
            *IN_PROCESS,
        )
        sweeper(a, *words, f"hydra.sweeper.storage={postgres.url}", "hydra.sweeper.artifacts=s3://models/x")
        sweeper(a, "certify", "mine", "--top", "2", "--seeds", "2", "--no-baseline")
        best = sweeper(a, "best", "mine")
        (a / "outputs").rename(tmp_path / "away")
        assert sweeper(b, "best", "mine", "--storage", postgres.url) == best
        sweeper(b, "report", "mine")
        reports = [place / "mine" / "report.html" for place in (tmp_path / "away", b / "outputs")]
        made = re.compile(rb"written [-\d]+ [:\d]+")  # by the minute, which may have passed
        assert len({made.sub(b"", report.read_bytes(), count=1) for report in reports}) == 1
        assert "to the last bit" in sweeper(b, "reproduce", "mine")
        Image.new("L", (8, 8)).save(b / "p.png")
        assert "p.png" in sweeper(b, "predict", "mine", "p.png")
        assert "to the last bit" in sweeper(b, "export", "mine", "--format", "safetensors")
        assert "Chosen:" in sweeper(b, "certify", "mine", "--choose")
        assert "2 studies" in sweeper(b, "studies")
        s3.leave_half_of(next(name for name in s3.names() if name.endswith("best.zip")))
        for name in ("mine", "mine-certificate"):
            sweeper(b, "studies", "--delete", name, "--yes")
        assert s3.names() == []
        assert s3.halves() == []


@pytest.mark.slow
def test_a_store_that_cannot_be_written_ends_a_search_before_it_begins(tmp_path: Path) -> None:
    """No bucket, no credentials, no folder: one line, exit code 2, no secret, and nothing was begun."""
    with s3.serving() as keys:
        secret = keys["AWS_SECRET_ACCESS_KEY"]
        none = {name: "" for name in keys if "KEY" in name} | {"AWS_EC2_METADATA_DISABLED": "true"}
        (tmp_path / "file").touch()
        cases: list[tuple[str, Mapping[str, str], str]] = [
            ("s3://nobody", {}, "create the bucket, or write another"),
            ("s3://models", none, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            ("s3://models", {"AWS_PROFILE": "nobody"}, "or AWS_PROFILE"),
            ("s3://models", {"AWS_ENDPOINT_URL": f"http://u:{secret}@127.0.0.1:1"}, "AWS_ENDPOINT_URL"),
            (str(tmp_path / "file" / "x"), {}, "write a folder that can be written to"),
        ]
        app = App(tmp_path)
        for place, environment, remedy in cases:
            words = ("app.py", "-m", f"hydra.sweeper.artifacts={place}")
            done = run(tmp_path, *words, env=environment, limit_s=60)
            assert done.returncode == 2, done.stdout + done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert remedy in done.stderr
            assert secret not in done.stdout + done.stderr
            assert not app.out.exists()


@pytest.mark.slow
def test_a_store_that_goes_away_does_not_stop_a_search(tmp_path: Path) -> None:
    """The log says what stayed, all trials are done, and the next end sends the best model after all."""
    folder, store = tmp_path / "a", tmp_path / "store"
    folder.mkdir()
    search = ("-m", "optimizer=adam", "study=mine", "training.epochs=1", *IN_PROCESS)
    words = (*search, f"hydra.sweeper.artifacts={store}", f"hydra.sweeper.storage={tmp_path}/s.journal")
    process = start(folder, "-m", "sweeper", *words, "hydra.sweeper.n_trials=2", env={"OMP_NUM_THREADS": "1"})
    until(StudyFiles(folder / "outputs" / "mine").sweep_config.exists, limit_s=60)
    shutil.rmtree(store)
    store.write_text("full")
    done = finish(process, limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what trial 0 has learned stays in" in done.stdout + done.stderr
    store.unlink()
    sweeper(folder, *words, "hydra.sweeper.n_trials=2")
    shutil.move(folder / "outputs", tmp_path / "away")
    assert "Use it:" in sweeper(folder, "best", "mine", "--storage", f"{tmp_path}/s.journal")
