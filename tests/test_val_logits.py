"""What each trial says of the validation pictures: the same answers in half the digits, and bounded room."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.study import StudyDirection
from optuna.trial import TrialState

from sweeper import filesystem, schema
from sweeper.fault import Fault
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results.answer import losses
from sweeper.results.val_logits import LOGITS_BYTES, ValLogits, rounded
from sweeper.run import train
from sweeper.search.locked_study import LockedStudy
from sweeper.search.trial import Trial
from sweeper.training import metric
from sweeper.training.data import load
from tests import program
from tests.conftest import Said
from tests.device import CPU
from tests.journal import load_study
from tests.page import ROOT
from tests.pictures import write_classes
from tests.shim import Shim, compile_shim
from tests.test_record import leave
from tests.test_studies import make

MB = 10**6


def some(n: int = 6, n_classes: int = 2) -> ValLogits:
    logits = np.random.default_rng(n).normal(size=(n, n_classes)).astype(np.float32)
    return ValLogits(rounded(logits, False), np.arange(n) % n_classes, "f" * 16)


# ------------------------------------------------------------------------------------------- the rounding


def drawn(n_classes: int, scale: float) -> Any:
    """Logits (400, n_classes) of a size; some rows have equal values, also of the highest, and zeros."""
    draw = np.random.default_rng([n_classes, int(abs(np.log10(scale)))])
    with np.errstate(over="ignore"):
        logits = (draw.normal(size=(400, n_classes)) * scale).astype(np.float32)
    logits[100:200] = np.round(logits[100:200] / np.float32(scale)) * np.float32(scale)
    logits[200:210] = 0
    logits[210:250] = np.nextafter(logits[210:250, :1], np.float32(np.inf))
    logits[210:250, -1] = np.nextafter(logits[210:250, 0], np.float32(np.inf))  # by the last bit
    return logits


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-7, 1.0, 30.0, 1e4, 1e9, 1e38])
@pytest.mark.parametrize("n_classes", [1, 2, 10, 300])
def test_answers_are_those_of_all_digits(n_classes: int, scale: float) -> None:
    """Whatever the size of logits: the same classes share the maximum, the same labels are at least 0."""
    logits = drawn(n_classes, scale)
    of_one, of_several = rounded(logits, False), rounded(logits, True)
    assert of_one.dtype == of_several.dtype == np.float16
    assert np.isfinite(of_one).all()
    highest = logits == logits.max(1, keepdims=True)
    np.testing.assert_array_equal(of_one == of_one.max(1, keepdims=True), highest)
    np.testing.assert_array_equal(of_one.argmax(1), logits.argmax(1))
    np.testing.assert_array_equal(of_several >= 0, logits >= 0)


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_keeps_its_answer() -> None:
    """Infinite logits are bounded, and NaN stays, so that it can be seen."""
    inf, nan = np.inf, np.nan
    rows = [(1, inf, 0), (-inf, -inf, -inf), (-inf, 3, 2), (inf, inf, -inf), (nan, 1, 2), (2, nan, inf)]
    logits = np.array([*rows, (nan, nan, nan)], dtype=np.float32)
    of_one, of_several = rounded(logits, False), rounded(logits, True)
    np.testing.assert_array_equal(of_one.argmax(1), logits.argmax(1))
    np.testing.assert_array_equal(of_several >= 0, logits >= 0)
    for found in (of_one, of_several):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(logits))
        assert not np.isinf(found).any()


def test_the_loss_hardly_changes() -> None:
    """Of logits as networks give them, by less than a thousandth."""
    logits = drawn(10, 3.0)
    labels = np.arange(400) % 10
    kept = rounded(logits, False).astype(np.float32)
    np.testing.assert_allclose(losses(labels, kept), losses(labels, logits), rtol=2e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("several", [False, True])
def test_what_is_written_is_read_again(tmp_path: Path, several: bool) -> None:
    """With either kind of labels; another app's file of that name is not read."""
    files, written = RunFiles(tmp_path), some()
    if several:
        written = replace(written, labels=(np.arange(12) % 2).astype(np.uint8).reshape(6, 2))
    written.write(files)
    assert ValLogits.read(files) is None
    files.mark()
    read = ValLogits.read(files)
    assert read is not None
    assert read.pictures == written.pictures
    assert read.multi_label == several
    for name in ("logits", "labels"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert files.room() == [files.val_logits]
    files.remove()
    assert ValLogits.read(files) is None
    assert not files.val_logits.exists()


def content(**changes: Any) -> bytes:
    file, whole = io.BytesIO(), some()
    np.savez(file, **{"logits": whole.logits, "labels": whole.labels, "pictures": np.array("f"), **changes})
    return file.getvalue()


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda: b"",
        lambda: content()[:200],
        lambda: b"PK\x03\x04 and then nothing",
        lambda: content(logits=np.zeros((6, 2), np.float32)),
        lambda: content(logits=np.zeros(6, np.float16)),
        lambda: content(logits=np.zeros((6, 0), np.float16)),
        lambda: content(labels=np.zeros(5, np.int64)),
        lambda: content(labels=np.zeros(6)),
        lambda: content(labels=np.full(6, 2)),
        lambda: content(labels=np.full(6, -1)),
        lambda: content(labels=np.full((6, 2), 2, np.uint8)),
        lambda: content(labels=np.array([object()] * 6)),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, spoilt: Callable[[], bytes]) -> None:
    """Half a file, another program's, or one made to run code: one line that names it."""
    files = RunFiles(tmp_path)
    files.mark()
    files.val_logits.write_bytes(spoilt())
    with pytest.raises(Fault, match=r"val_logits\.npz: holds no logits: the file is damaged; restore"):
        ValLogits.read(files)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [LOGITS_BYTES // 2000 + 100, 2 * LOGITS_BYTES // 2000 + 1])
def test_what_is_too_large_alone_is_not_kept(tmp_path: Path, n_rows: int) -> None:
    """No file, and no half of one."""
    bits = np.random.default_rng(0).integers(0, 1 << 16, (n_rows, 1000), np.uint16)
    ValLogits(bits.view(np.float16), np.zeros(n_rows, np.int64), "").write(RunFiles(tmp_path))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- which pictures


def dataset(**changes: Any) -> schema.Dataset:
    return schema.Dataset(**changes)


def test_the_same_pictures_are_known_at_any_size() -> None:
    """Another split has others, whatever it has in common."""
    same = load(dataset(), CPU).val_pictures
    assert len(same) == 16
    assert load(dataset(image_size=16), CPU).val_pictures == same
    assert load(dataset(normalization="none"), CPU).val_pictures == same
    others = (dataset(split_seed=1), dataset(val_fraction=0.3))
    assert len({same, *(load(other, CPU).val_pictures for other in others)}) == 3


def test_other_labels_are_other_pictures(tmp_path: Path) -> None:
    """A picture that moves to another class, and a class of another name, can be told."""
    write_classes(tmp_path / "a", {"cats": 12, "dogs": 12})
    of_files = dataset(name="image_folder", path=str(tmp_path / "a"), image_size=16)
    before = load(of_files, CPU)
    (tmp_path / "a" / "cats").rename(tmp_path / "a" / "zebras")
    renamed = load(of_files, CPU)
    assert renamed.val_pictures != before.val_pictures
    assert load(replace(of_files, image_size=32), CPU).val_pictures == renamed.val_pictures


# ------------------------------------------------------------------------------------------ who keeps them


def test_each_trial_that_is_done_keeps_them(searched: Path) -> None:
    """They score what the trial reached, to the last picture; ``best/`` and what was pruned have none."""
    study = StudyFiles(searched / "outputs" / "digits")
    done = [t for t in load_study(searched, "digits").trials if t.state == TrialState.COMPLETE]
    kept = {path.parent.name for path in study.folder.rglob("val_logits.npz")}
    assert kept == {str(trial.number) for trial in done}
    pictures = load(dataset(), CPU).val_pictures
    for trial in done:
        found = ValLogits.read(study.run(trial.number))
        assert found is not None
        assert found.pictures == pictures
        logits, labels = torch.from_numpy(found.logits.astype(np.float32)), torch.from_numpy(found.labels)
        assert metric.measure(logits, labels, ["accuracy"])["accuracy"] == trial.value
    counted = filesystem.read_json(study.folder / ".sweeper" / "val_logits.json")
    assert (counted["bytes"], counted["n_done"]) == (room_in(study.folder), len(done))


def quick(**changes: Any) -> schema.Run:
    training = schema.Training(epochs=1, n_threads=1, batch_size=256, **changes)
    model = schema.Model(filters=[2], hidden_units=[4])
    return schema.Run(device="cpu", training=training, model=model)


def test_a_single_run_keeps_its_own(tmp_path: Path) -> None:
    """Not those of the run that was in its folder before; and none where it is asked to."""
    files = RunFiles(tmp_path)
    train(quick(), tmp_path, Trial())
    found = ValLogits.read(files)
    assert found is not None
    assert len(found.logits) == len(found.labels) == int(files.read_result()["task"]["n_val"])
    train(quick(keep_logits=False), tmp_path, Trial())
    assert files.predictions.exists()
    assert not files.val_logits.exists()


def test_a_training_that_diverged_keeps_none(tmp_path: Path) -> None:
    """It says nothing of any picture."""
    run = quick()
    run.optimizer.lr = 1e30
    assert np.isnan(train(run, tmp_path, Trial()))
    assert RunFiles(tmp_path).result.exists()
    assert not RunFiles(tmp_path).val_logits.exists()


# -------------------------------------------------------------------------------------------- bounded room


def end(
    study: optuna.Study,
    folder: Path,
    value: float | list[float],
    n_bytes: int,
    state: TrialState = TrialState.COMPLETE,
) -> int:
    """A trial that leaves logits of that size, which take no room on this disk."""
    trial = study.ask()
    leave(folder, trial.number, 0.5)
    with RunFiles(folder / str(trial.number)).val_logits.open("wb") as file:
        file.truncate(n_bytes)
    study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    LockedStudy(study, StudyFiles(folder), 0).write_results(ended=trial.number)
    return trial.number


def kept_in(folder: Path) -> list[int]:
    return sorted(int(path.parent.name) for path in folder.glob("*/val_logits.npz"))


def room_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/val_logits.npz"))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_worst_make_room_first(tmp_path: Path, direction: str) -> None:
    """A study never holds more than 64 MB, of the best trials without a gap."""
    study = optuna.create_study(direction=StudyDirection[direction.upper()])
    sign = 1 if direction == "maximize" else -1
    for value, kept in [
        (0.5, [0]),
        (0.4, [0, 1]),
        (0.6, [0, 1, 2]),
        (0.3, [0, 1, 2]),  # has no room itself
        (0.7, [0, 2, 4]),
        (0.9, [2, 4, 5]),
        (0.8, [4, 5, 6]),
    ]:
        end(study, tmp_path, sign * value, 20 * MB)
        assert kept_in(tmp_path) == kept
        assert room_in(tmp_path) <= LOGITS_BYTES
    end(study, tmp_path, sign * 1.0, 45 * MB)
    assert kept_in(tmp_path) == [7]  # a smaller one that is worse does not stay for that
    end(study, tmp_path, sign * 2.0, 65 * MB)
    assert kept_in(tmp_path) == [7]  # what has no room alone takes none from others


@pytest.mark.slow
def test_many_small_ones_leave_some_room_ahead(tmp_path: Path) -> None:
    """Where 64 MB are full of small files, they are counted once in a while, and never hold more."""
    study, counts = optuna.create_study(direction="maximize"), []
    for number in range(400):
        end(study, tmp_path, 1 / (1 + number), 200_000)
        assert room_in(tmp_path) <= LOGITS_BYTES
        counts.append((tmp_path / ".sweeper" / "val_logits.json").stat().st_mtime_ns)
    assert kept_in(tmp_path)[:300] == list(range(300))
    assert room_in(tmp_path) > LOGITS_BYTES - 2 * MB - 250_000
    assert len(set(counts[320:])) < 40


def test_several_objectives_keep_their_front(tmp_path: Path) -> None:
    """It goes before all others."""
    study = optuna.create_study(directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE])
    for values in ([0.5, 5.0], [0.9, 9.0], [0.4, 6.0], [0.8, 4.0]):
        end(study, tmp_path, values, 30 * MB)
    assert kept_in(tmp_path) == [1, 3]


def test_what_is_not_done_keeps_none(tmp_path: Path) -> None:
    """As a trial whose worker was killed after it had written them."""
    study = optuna.create_study()
    end(study, tmp_path, 0.0, MB, TrialState.FAIL)
    killed = study.ask()
    leave(tmp_path, killed.number, 0.5)
    RunFiles(tmp_path / "1").val_logits.touch()
    study.tell(killed, state=TrialState.FAIL)
    LockedStudy(study, StudyFiles(tmp_path), 0).write_results()
    assert kept_in(tmp_path) == []


def test_what_was_never_counted_is_counted_when_a_command_begins_or_ends(tmp_path: Path) -> None:
    """A worker may be killed between its trial's end and that; while there is room nobody looks at all."""
    study, files = optuna.create_study(direction="maximize"), StudyFiles(tmp_path)
    for value in (0.5, 0.6):
        end(study, tmp_path, value, 10 * MB)
    with files.run(0).val_logits.open("wb") as file:
        file.truncate(60 * MB)
    end(study, tmp_path, 0.7, 10 * MB)
    assert kept_in(tmp_path) == [0, 1, 2]
    LockedStudy(study, files, 0).write_results()
    assert kept_in(tmp_path) == [1, 2]
    (tmp_path / ".sweeper" / "val_logits.json").write_text("half")
    end(study, tmp_path, 0.4, 10 * MB)
    assert filesystem.read_json(tmp_path / ".sweeper" / "val_logits.json")["bytes"] == 30 * MB


def test_the_files_of_another_app_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    """Nor does a study without logits get anything of ours for them."""
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.9):
        trial = study.ask()
        (tmp_path / str(trial.number)).mkdir()
        with (tmp_path / str(trial.number) / "val_logits.npz").open("wb") as file:
            file.truncate(50 * MB)
        study.tell(trial, value)
        LockedStudy(study, StudyFiles(tmp_path), 0).write_results(ended=trial.number)
    LockedStudy(study, StudyFiles(tmp_path), 0).write_results()
    assert kept_in(tmp_path) == [0, 1]
    assert not (tmp_path / ".sweeper").exists()


def test_clean_and_delete_know_them(said: Said) -> None:
    """They take room, and are no record: the best keep theirs; with a study all go."""
    folder = make("a", values=(0.5, 0.25, 0.75))
    for number in (0, 1, 2):
        some().write(RunFiles(folder / str(number)))
    said("clean", "a", "--keep-top", "2")
    assert kept_in(folder) == [0, 2]
    assert said("studies", "--delete", "a", "--yes")[0] == 0
    assert not folder.exists()


SCRIPT = """
import sys
from pathlib import Path
import optuna
from tests.test_record import leave
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.search.locked_study import LockedStudy
folder = Path(sys.argv[1])
study = optuna.create_study(direction="maximize", storage=sys.argv[2], study_name="s", load_if_exists=True)
for value in (0.5, 0.9, 0.4, 0.7) if sys.argv[3] == "search" else ():
    trial = study.ask()
    leave(folder, trial.number, value)
    with RunFiles(folder / str(trial.number)).val_logits.open("wb") as file:
        file.truncate(30_000_000)
    study.tell(trial, value)
    LockedStudy(study, StudyFiles(folder), 0).write_results(ended=trial.number)
LockedStudy(study, StudyFiles(folder), 0).write_results()
"""

WRITE = """
import sys
from pathlib import Path
import numpy as np
from sweeper.record.run_files import RunFiles
from sweeper.results.val_logits import ValLogits
ValLogits(np.zeros((6, 2), np.float16), np.zeros(6, np.int64), "f").write(RunFiles(Path(sys.argv[1])))
"""


def in_checkout(env: Mapping[str, str]) -> Mapping[str, str]:
    """For a program in another folder that imports from the tests."""
    return {**env, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_a_kill_at_any_write_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    """Whatever operation it is; what is half written is swept up with the rest."""
    library, folder = compile_shim(tmp_path), tmp_path / "run"
    RunFiles(folder).mark()
    shim, files = Shim(folder, library), RunFiles(folder)
    assert program.run(tmp_path, "-c", WRITE, folder, env=in_checkout(shim.env())).returncode == 0
    n_all = shim.n_operations
    assert n_all >= 4
    for at in range(1, n_all + 1):
        files.val_logits.unlink(missing_ok=True)
        assert program.run(tmp_path, "-c", WRITE, folder, env=in_checkout(shim.env(at))).returncode != 0
        found = ValLogits.read(files)
        assert found is None or len(found.logits) == 6
        filesystem.sweep_up(folder, depth=0)
        assert {p.name for p in folder.iterdir()} <= {".sweeper", files.val_logits.name}


@pytest.mark.slow
def test_a_kill_while_room_is_made_is_made_up_for(tmp_path: Path) -> None:
    """At some operations on the study's files: the next command keeps the best, and no more than fit."""
    library, folder = compile_shim(tmp_path), tmp_path / "study"
    folder.mkdir()
    shim = Shim(folder, library)

    def run(storage: str, what: str, at: int = 0) -> int:
        arguments = ("-c", SCRIPT, folder, f"sqlite:///{tmp_path / storage}", what)
        return program.run(tmp_path, *arguments, env=in_checkout(shim.env(at))).returncode

    assert run("all.db", "search") == 0
    assert kept_in(folder) == [1, 3]
    n_all = shim.n_operations
    for at in range(n_all // 6, n_all, n_all // 6):
        filesystem.remove_trees(folder)
        folder.mkdir()
        assert run(f"{at}.db", "search", at) != 0
        assert run(f"{at}.db", "heal") == 0
        assert room_in(folder) <= LOGITS_BYTES
