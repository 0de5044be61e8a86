"""``sweeper clean``: room on disk, and the same record."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.record.run_files import RunFiles
from sweeper.record.trial_files import LONG_OUTPUT
from tests.conftest import Said
from tests.test_studies import make


def with_weights(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.rglob("weights.safetensors")}


def give_weights(folder: Path, *numbers: int) -> None:
    for number in numbers:
        RunFiles(folder / str(number)).weights.write_bytes(bytes(2_000_000))
        RunFiles(folder / str(number)).card.write_bytes(bytes(2_000))


@pytest.mark.parametrize(("keep_top", "best"), [(0, ""), (1, "2"), (2, "02"), (9, "012")])
def test_the_best_keep_their_weights(said: Said, keep_top: int, best: str) -> None:
    """And ``best/`` keeps its own; how much was freed is said."""
    folder = make("a", values=(0.5, 0.25, 0.75))
    give_weights(folder, 0, 1, 2)
    code, text = said("clean", "a", "--keep-top", str(keep_top))
    assert code == 0
    n = 3 - len(best)
    freed = f"{2 * n}.0 MB freed, of {n} trial{'s' * (n > 1)} in outputs/a"
    assert text.strip() == (freed if n else "Nothing to free in outputs/a")
    assert with_weights(folder) == {"best", *best}
    assert {path.parent.name for path in folder.rglob("model.json")} == set(best)


def test_the_record_stays(said: Said) -> None:
    """Config, history, result and marks of all trials; what a killed writer left and the lost trials go."""
    folder = make("a", values=(0.5, 0.25))
    before = {path for path in folder.rglob("*") if path.is_file() and path.name != "weights.safetensors"}
    give_weights(folder, 1)
    (folder / "1" / ".weights.safetensors.4711").write_bytes(bytes(10))
    (folder / ".sweeper" / "lost" / "1-2" / "model").mkdir(parents=True)
    (folder / "1" / "sweeper_output.log").write_bytes(bytes(LONG_OUTPUT + 1))
    _, text = said("clean", "--keep-top", "1")  # the newest
    assert text == "3.0 MB freed, of 2 trials in outputs/a\n"
    after = {path for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if path.name not in ("weights.safetensors", "lock")} == before
    assert not (folder / ".sweeper" / "lost").exists()


def test_files_of_another_app_are_not_touched(said: Said) -> None:
    """What has the names of ours, but no mark, is theirs."""
    folder = make("a")
    theirs = folder / "1" / "weights.safetensors"  # a trial that has no run of ours
    theirs.write_bytes(b"theirs")
    assert "Nothing to free" in said("clean", "a")[1]
    assert theirs.read_bytes() == b"theirs"


def test_without_its_storage_nothing_is_removed(said: Said) -> None:
    """Nobody then knows which trials are best."""
    folder = make("a", storage="sqlite:///gone.db")
    Path("gone.db").unlink()
    code, text = said("clean", "a", "--keep-top", "0")
    assert code == 2
    assert text.startswith("STUDY=a: its storage sqlite:///gone.db is gone, so the best trials are unknown")
    assert with_weights(folder) == {"0", "best"}
