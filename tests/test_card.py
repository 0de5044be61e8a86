"""``model.json``: all that a program must know to use weights, from whoever it comes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import filesystem
from sweeper.card import ONE, SEVERAL, Card, Network
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.schema import Model
from tests import program

CARD = Card(
    network=Network("sweeper", "cnn", filters=(16, 32), hidden_units=(128,)),
    classes=("cats", "dögs"),
    labels=ONE,
    thresholds=None,
    in_channels=3,
    pixel_channels=3,
    image_size=16,
    margin=1.25,
    mean=(0.1, 0.2, 1 / 3),
    std=(0.3, 0.2, 0.1),
    background=(255, 255, 255),
    max_megapixels=179.0,
    bits=12,
    temperature=1.5,
    scores={"val_loss": 0.1 + 0.2},
    study="mine",
    trial=None,
    weights_digest="0" * 32,
)
OF_SEVERAL = replace(CARD, labels=SEVERAL, thresholds=(0.5, 0.25), trial=3)


@pytest.mark.parametrize("card", [CARD, OF_SEVERAL])
def test_a_card_is_read_as_it_was_written(tmp_path: Path, card: Card) -> None:
    """To the last bit of each number, and letters of any language as they are."""
    files = RunFiles(tmp_path)
    card.write(files)
    assert Card.read(files.card) == card
    assert "dögs" in files.card.read_text(encoding="utf-8")


def test_a_network_is_built_from_the_same_settings() -> None:
    """All that says what the network is; how it began to train is no part of it."""
    settings = Model(
        source="custom", name="x", target="nets.Net", arguments={"a": [1, {"b": None}]}, head="fc"
    )
    network = replace(CARD, network=Network.of(settings))
    assert Card.from_json(network.to_json(), Path("model.json")).network.settings() == settings
    assert Network.of(replace(settings, init="xavier_uniform", weights="a.pt")).settings() == settings


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("classes", [], "classes=[] has 0 values"),
        ("classes", ["a", "a"], 'classes=["a", "a"] has a class twice'),
        ("classes", [1, 2], "classes=[1, 2] has a value that must be a text"),
        ("classes", ["\ud800"], r'classes=["\ud800"] has a value that contains a character that is not text'),
        ("classes", "ab", 'classes="ab" must be a list'),
        ("labels", "both", 'labels="both" there is no such option'),
        ("labels", {}, "labels={} there is no such option"),
        ("labels", SEVERAL, "thresholds=null needs 2 values"),
        ("thresholds", [0.5, 0.5], "thresholds=[0.5, 0.5] must be null for one label"),
        ("thresholds", [2], "thresholds=[2] has a value that must be at most 1"),
        ("in_channels", 4, "in_channels=4 must be 1 or 3"),
        ("in_channels", True, "in_channels=true must be 1 or 3"),
        ("in_channels", 1, "mean=[0.1, 0.2, 0.3333333333333333] must have in_channels=1 values"),
        ("image_size", 10**9, "image_size=1000000000 must be at most 4096"),
        ("image_size", 16.5, "image_size=16.5 must be a whole number"),
        ("margin", 1e300, "margin=1e+300 must be between 1 and 2"),
        ("mean", [0, 0], "mean=[0, 0] must have in_channels=3 values"),
        ("mean", [0, 0, float("nan")], "mean=[0, 0, NaN] has a value that must be at least 0 and finite"),
        ("std", [1, 0, 1], "std=[1, 0, 1] has a value that must be greater than 0"),
        ("background", [0, 0, 256], "background=[0, 0, 256] has a value that must be at most 255"),
        ("max_megapixels", None, "max_megapixels=null must be a number"),
        ("bits", 9, "bits=9 must be one of"),
        ("temperature", float("inf"), "temperature=Infinity must be at least 0.001 and finite"),
        ("temperature", 0, "temperature=0 must be at least 0.001"),
        ("temperature", 10**400, "is too large"),
        ("scores", {"val_loss": "0"}, 'scores={"val_loss": "0"} has a value that must be a number'),
        ("study", 5, "study=5 must be a text"),
        ("trial", -1, "trial=-1 must be at least 0"),
        ("weights_digest", None, "weights_digest=null must be a text"),
        ("network", [], "network=[] must hold values by their names"),
        ("network", {}, "lacks network.source"),
        ("network.source", 1, "network.source=1 is of another type"),
        ("network.source", "hub", 'network.source="hub" there is no such option'),
        ("network.source", "custom", "network.target=null must name the network"),
        ("network.name", "resnet", 'network.name="resnet" is none of our networks'),
        ("network.filters", 3, "network.filters=3 is of another type"),
        ("network.filters", [10**9], "network.filters=[1000000000] has 1,000,000,000 in it"),
        ("network.kernel_size", 4, "network.kernel_size=4 must be odd"),
        ("network.dropout", 1, "network.dropout=1 must be at least 0 and below 1"),
        ("network.arguments", "x", 'network.arguments="x" must hold values'),
        ("format", 0, "format=0 must be 1"),
        ("format", None, "format=null must be 1"),
        ("format", True, "format=true must be 1"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, key: str, value: Any, says: str) -> None:
    """One line with the file and the key, whatever stands there."""
    found = json.loads(CARD.to_json())
    section, _, name = key.rpartition(".")
    (found[section] if section else found)[name] = value
    path = tmp_path / "model.json"
    path.write_text(json.dumps(found))
    with pytest.raises(Fault, match=rf"^{re.escape(str(path))}: [^\n]*{re.escape(says)}[^\n]*$"):
        Card.read(path)


def test_every_key_is_needed(tmp_path: Path) -> None:
    """Also those of the network; a key that nobody knows does no harm."""
    path = tmp_path / "model.json"
    whole = json.loads(CARD.to_json())
    for section in ("", "network"):
        for key in whole[section] if section else whole:
            found = json.loads(CARD.to_json())
            del (found[section] if section else found)[key]
            path.write_text(json.dumps(found))
            said = "format=null must be 1" if key == "format" else rf"lacks (network\.)?{key}: "
            with pytest.raises(Fault, match=rf"model\.json: {said}"):
                Card.read(path)
    path.write_text(json.dumps(whole | {"more": 1}))
    assert Card.read(path) == CARD


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff", b'{"format": 1', b"[1]", b"[" * 10**6, b'{"format": ' + b"9" * 5000 + b"}"],
    ids=["empty", "binary", "half", "list", "deep", "long number"],
)
def test_what_is_no_card_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Half a file, another program's, and one that was made to do harm."""
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(Fault, match=r"model\.json: [^\n]+: the file is damaged; restore an intact copy, "):
        Card.read(path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    """It says which, and what to do."""
    path = tmp_path / "model.json"
    path.write_text(CARD.to_json().replace('"format": 1', '"format": 2'))
    expected = r"^model\.json=.*: was written by a later version of sweeper \(format 2, not 1\); install "
    with pytest.raises(BadInput, match=expected):
        Card.read(path)


def test_where_there_is_no_card_a_line_says_how_to_get_one(tmp_path: Path, monkeypatch: Any) -> None:
    """In anybody's folder, in that of a run that has lost its model, and of an earlier version."""
    monkeypatch.chdir(tmp_path)
    files = RunFiles(Path("outputs", "mine"))
    with pytest.raises(BadInput, match=r"^model=outputs/mine: has no model\.json; write the folder of a run"):
        Card.read(files.card)
    files.mark()
    filesystem.write_whole(files.config, "study: mine\n")
    again = r"train it again: .*sweeper --config-dir outputs/mine --config-name trial"
    with pytest.raises(BadInput, match=rf"has no model\.json; {again}$"):
        Card.read(files.card)
    files.old_weights.touch()
    with pytest.raises(BadInput, match=rf"an earlier version of sweeper wrote it; {again}$"):
        Card.read(files.card)
    StudyFiles(Path("outputs")).mark("study", "memory")
    with pytest.raises(BadInput, match=rf"wrote it; repeat the command of its search, .*, or {again}$"):
        Card.read(files.card)


def test_a_card_needs_neither_torch_nor_hydra_nor_optuna() -> None:
    """It is data: reading it imports nothing that it names, and none of these."""
    code = f"""if True:
        import sys
        from pathlib import Path
        from sweeper.card import Card
        Card.from_json({CARD.to_json()!r}, Path("model.json"))
        print([name for name in ("torch", "hydra", "omegaconf", "optuna") if name in sys.modules])"""
    done = program.run(Path.cwd(), "-c", code)
    assert done.stdout == "[]\n", done.stderr
