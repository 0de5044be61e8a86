"""``predict``: a table or a CSV file of what a model says, and what it does with what is no picture."""

from __future__ import annotations

import csv
import io
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.inference.classifier import load
from tests.conftest import Cli, Said
from tests.modelled import CNN, write_model
from tests.pictures import write_classes, write_picture
from tests.program import Terminal, finish, start, until


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    """With a model ``m`` and three pictures in ``pics``, which are no class of it."""
    write_model(tmp_path / "m")
    write_classes(tmp_path / "pics", {"a": 2, "b": 1})
    return tmp_path


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_says_what_pictures_show(said: Said, folder: Path) -> None:
    """A row for each: name as typed, class, probability; with ``--top`` the next ones."""
    code, printed = said("predict", "m", "pics")
    lines = [line.split() for line in printed.splitlines()]
    expected = load(folder / "m").predict(folder / "pics")
    rows = [
        ["pics/" + n, one.classes[0], f"{one.probability:.3f}"]
        for n, one in zip(("a/0.png", "a/1.png", "b/0.png"), expected, strict=True)
    ]
    assert (code, lines) == (0, [["picture", "class", "probability"], *rows])
    _, printed = said("predict", "m", "pics/b/0.png", "--top", "2")
    name, probability = expected[2].top(2)[1]
    assert printed.splitlines()[1].rstrip().endswith(f"{name} {probability:.3f}")


def test_a_csv_file_has_a_column_for_each_class(said: Said, folder: Path) -> None:
    """Or for the likeliest; on standard output nothing stands beside it."""
    assert said("predict", "m", "pics", "--csv", "said.csv") == (0, "3 pictures: said.csv\n")
    rows = _rows((folder / "said.csv").read_text())
    expected = load(folder / "m").predict(folder / "pics")
    assert list(rows[0]) == ["path", "class", "probability", "p_cat", "p_dog", "p_fish"]
    assert [row["path"] for row in rows] == ["pics/a/0.png", "pics/a/1.png", "pics/b/0.png"]
    told = np.array([[float(row[f"p_{name}"]) for name in expected.classes] for row in rows], np.float32)
    assert np.array_equal(told, expected.probabilities)
    code, printed = said("predict", "m", "pics", "--csv", "-", "--top", "2")
    (first, *_) = _rows(printed)
    assert (code, list(first)[3:]) == (0, ["class_2", "probability_2"])
    assert (first["class"], first["class_2"]) == tuple(name for name, _ in expected[0].top(2))


def test_several_labels_are_all_told(said: Said, folder: Path) -> None:
    """In a file joined as a table of labels has them, on a terminal each with its probability, or none."""
    write_model(folder / "all", labels="several", thresholds=(0.0, 0.0, 0.0))
    write_model(folder / "none", labels="several", thresholds=(1.0, 1.0, 1.0))
    expected = load(folder / "all").predict(folder / "pics" / "b")[0]
    (row,) = _rows(said("predict", "all", "pics/b", "--csv", "-")[1])
    assert row["class"] == "|".join(expected.classes)
    assert len(expected.classes) == 3
    _, printed = said("predict", "all", "pics/b")
    assert ", ".join(f"{name} {p:.3f}" for name, p in expected.probabilities.items()) in printed
    assert said("predict", "none", "pics/b")[1].splitlines()[1].split() == ["pics/b/0.png", "none"]


def test_files_go_to_the_home_folder_whatever_the_shell_does(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves ``--csv=~/said.csv`` as it stands; the home of nobody is a folder here."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert cli("predict", "m", "pics", "--csv=~/said.csv")[0] == 0
    assert cli("export", "m", "--format", "safetensors", "--out=~/m.safetensors")[0] == 0
    assert {path.name for path in (folder / "home").iterdir()} == {"said.csv", "m.safetensors"}
    assert cli("export", "m", "--format", "safetensors", "--out=~nobody-here/m.safetensors")[0] == 0
    assert (folder / "~nobody-here" / "m.safetensors").exists()


def test_what_cannot_be_read_is_named_and_the_rest_predicted(cli: Cli, folder: Path, capsys: Any) -> None:
    """On standard error, a line each; the exit code is 1, and the file has the others."""
    (folder / "pics" / "cut.png").write_bytes(b"\x89PNG")
    (folder / "none").mkdir()
    code, error = cli("predict", "m", "pics", "gone.png", "none", "--csv", "said.csv")
    assert code == 1
    told = ["pics/cut.png: it is no picture", "gone.png: it is not there"]
    assert error.splitlines() == [*told, "none: it is a folder without pictures"]
    assert len(_rows((folder / "said.csv").read_text())) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["m", "gone"], "PATH=gone: there is no such file or folder; write"),
        (["nothing", "gone", "lost"], "PATH=gone, lost: none of them is there; write"),
        (["m", "none"], "PATH=none: it is a folder without pictures; write"),
        (["nothing", "pics"], "STUDY=nothing: there is no such study in "),
        (["pics", "pics"], "STUDY=pics: has no model.json; write"),
        (["m", "pics", "--csv", "none"], "--csv=none: is a folder; write"),
        (["m", "pics", "--csv", "pipe"], "--csv=pipe: is a device, and no file; write"),
        (["m", "pics", "--top", "0"], "Invalid value for '--top'"),
        (["m", "pics", "--device", "cuda:99"], "--device=cuda:99: this machine has "),
        (["m"], "Missing argument 'PATH...'"),
    ],
)
def test_what_cannot_work_is_told_in_a_line(cli: Cli, folder: Path, arguments: list[str], told: str) -> None:
    """With what to write instead, and exit code 2."""
    (folder / "none").mkdir()
    os.mkfifo(folder / "pipe")
    code, error = cli("predict", *arguments)
    assert code == 2
    assert error.startswith(told)
    assert error.count("\n") == 1


@pytest.mark.parametrize("place", ["pics/a/0.png", "link", "m/model.json", "m/weights.safetensors"])
def test_what_is_read_is_never_replaced(cli: Cli, folder: Path, place: str) -> None:
    """A picture, a link to one and the model stay as they are, whichever has the name of the file."""
    (folder / "link").symlink_to("pics/a/0.png")
    before = (folder / place).read_bytes()
    told = f"--csv={place}: is what it reads; write the name of another file\n"
    assert cli("predict", "m", "pics", "--csv", place) == (2, told)
    assert (folder / place).read_bytes() == before


def test_a_network_of_ones_own_needs_trust(cli: Cli, said: Said, folder: Path) -> None:
    """Its code is found from the working folder, and runs only where the command says so."""
    layers = "nn.Flatten(), nn.Linear(432, n_classes)"
    made = f"from torch import nn\ndef make(n_classes):\n    return nn.Sequential({layers})"
    (folder / "mine_net.py").write_text(made)
    write_model(folder / "own", network=replace(CNN, source="custom", target="mine_net.make"))
    told = "model.target=mine_net.make: the model names it, and its code would run; read that code, then add"
    code, error = cli("predict", "own", "pics")
    assert (code, error.startswith(told)) == (2, True)
    assert said("predict", "own", "pics", "--trust")[0] == 0


def test_names_with_any_characters_stay_as_they_are(said: Said, folder: Path) -> None:
    """In a file to the last byte; on a terminal none moves the cursor or is taken for markup."""
    names = ["line\nbreak.png", "[red]é.png", "bad\udcff.png", "\x1b[2J.png", "=1+1,.png"]
    for name in names:
        write_picture(folder / "odd" / name)
    _, printed = said("predict", "m", "odd")
    assert sorted(line.split()[0] for line in printed.splitlines()[1:]) == sorted(
        [r"odd/line\nbreak.png", "odd/[red]é.png", r"odd/bad\udcff.png", r"odd/\x1b[2J.png", "odd/=1+1,.png"]
    )
    assert said("predict", "m", "odd", "--csv", "said.csv")[0] == 0
    text = (folder / "said.csv").read_bytes().decode(errors="surrogateescape")
    assert {row["path"] for row in _rows(text)} == {f"odd/{name}" for name in names}


@pytest.mark.slow
def test_a_terminal_of_80_columns_shows_each_path_whole(folder: Path) -> None:
    """With a bar meanwhile; long names go on in the next line."""
    name = "/".join(f"a folder with a long name, number {i}" for i in range(4)) + "/picture.png"
    write_picture(folder / "deep" / name)
    lines = Terminal(folder, "-m", "sweeper", "predict", "m", "deep", "--top", "3", columns=80).finish(120)
    assert all(len(line) <= 80 for line in lines)
    assert any("━" in line for line in lines)
    begin = next(i for i, line in enumerate(lines) if line.startswith("picture"))
    width = lines[begin].index("class")
    assert "".join(line[:width].strip(" ") for line in lines[begin + 1 :]).replace(" ", "") == (
        f"deep/{name}".replace(" ", "")
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(folder: Path, closed: str) -> None:
    """The file is written all the same."""
    command = [sys.executable, "-m", "sweeper", "predict", "m", "pics"]
    for more in ([], ["--csv", "said.csv"]):
        line = f"{shlex.join([*command, *more])} {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(_rows((folder / "said.csv").read_text())) == 3


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_a_file(folder: Path) -> None:
    """Exit code 130, no traceback, and no CSV file."""
    write_picture(folder / "large.png", size=(4000, 4000))
    program = start(folder, "-m", "sweeper", "predict", "m", *["large.png"] * 500, "--csv", "said.csv")
    until(lambda: "large.png" in _open_files(program.pid) or program.poll() is not None, limit_s=60)
    program.send_signal(signal.SIGINT)
    done = finish(program, limit_s=60)
    assert (done.returncode, done.stderr) == (130, "")
    assert not list(folder.glob("*said.csv*"))


def _open_files(pid: int) -> set[str]:
    found = set[str]()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.add(file.readlink().name)
    return found
