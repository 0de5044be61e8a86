"""Texts on the command line that Hydra's grammar reads as something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweeper.literal import literal
from tests.pictures import write_classes
from tests.program import sweeper

ORDINARY = ["pets", "pets.v1", "a b", "pets:2", "100%", "-pets", "*", "inf", "back\\slash", "0x10"]
ODD = [
    *("2024_01", "1e5", "007", "1_000.5", "true", "pets (2)", "=üñí", "é", "#", "x=y", "~pets", "it's"),
    *('"q"', "'q'", "a;b", "[x]", "{a: b}", "pets ", " pets", "(", "x'\"", "a\\'b", "end\\", "日本 (1)"),
]
GRAMMAR = ["a,b", "choice(a, b)", "choice(a", "null", "${study}", '"quoted"', "tag(a, b)", "glob(*)"]


def read_by_hydra(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("key", ["dataset.path", "study", "+model.weights", "hydra.run.dir"])
@pytest.mark.parametrize("text", [t for t in [*ORDINARY, *ODD] if t not in ('"q"', "'q'", "[x]", "{a: b}")])
def test_a_text_is_what_was_typed(key: str, text: str) -> None:
    """Whatever a folder is called, Hydra reads its name and nothing else."""
    (override,) = literal([f"{key}={text}"])
    assert override.startswith(f"{key}=")
    assert read_by_hydra(override) == text


@pytest.mark.parametrize("text", [*ORDINARY, *ODD, "a,b", "choice(a)", "${study", "$x"])
def test_a_path_that_is_there_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Where a folder of that name exists, its name is no grammar."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).mkdir()
    (override,) = literal([f"dataset.path={text}"])
    assert read_by_hydra(override) == text


@pytest.mark.parametrize("text", [*GRAMMAR, ""])
@pytest.mark.parametrize("key", ["dataset.path", "study"])
def test_what_hydras_grammar_offers_stays(key: str, text: str) -> None:
    """Sweeps, null, quotes and interpolations of texts are as Hydra documents them."""
    assert literal([f"{key}={text}"]) == [f"{key}={text}"]


@pytest.mark.parametrize("text", [" ", ",", "|", ";", "  "])
def test_what_separates_labels_is_a_text(text: str) -> None:
    """A space and a comma may be meant, too."""
    (override,) = literal([f"dataset.label_separator={text}"])
    assert read_by_hydra(override) == text


def test_each_of_several_texts_is_one() -> None:
    """A search over folders has names that look like numbers, too."""
    assert literal(["dataset.path=old,2024_01,1e5,null"]) == ["dataset.path=old,'2024_01','1e5',null"]


@pytest.mark.parametrize("override", ["training.epochs=1e5", "optimizer=adam,sgd", "~study", "-m", "dataset"])
def test_other_words_stay(override: str) -> None:
    """Only the values of keys that are texts are touched."""
    assert literal([override]) == [override]


@pytest.mark.parametrize("name", ["2024_01", "pets (2)", "=üñí", "~pets", "it's, #1"])
@pytest.mark.slow
def test_a_folder_of_any_name_is_trained_on(tmp_path: Path, name: str) -> None:
    """A run on it works, and so does the command that it prints."""
    write_classes(tmp_path / name, {"cats": 8, "dogs": 8})
    printed = sweeper(
        tmp_path, "dataset=image_folder", f"dataset.path={name}", "training.epochs=1", "study=s"
    )
    assert "Best epoch: 1" in printed
    assert "identical" in sweeper(tmp_path, "reproduce", "outputs/s")
