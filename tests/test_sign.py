"""How signs are written, ordered and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sweeper.commands.show import SingleRun
from sweeper.fault import Fault
from sweeper.record.study_files import StudyFiles
from sweeper.results import sign
from sweeper.results.sign import MOST_SHOWN, Sign
from sweeper.schema import Run
from sweeper.screen import Screen
from sweeper.search.progress import Progress
from tests.foreign_app import App
from tests.program import IN_PROCESS, Terminal, sweeper
from tests.test_progress import a_study, a_trial, add

WORDS = " ".join(["words"] * 30)
COMMAND = "python -m sweeper -m " + " ".join(f"key_{n}=value" for n in range(20))
NAMES = ("still_improving", "cheap_rival", "lr_at_edge", "diverged", "failures")

SHOW = """
import sys
from pathlib import Path
from sweeper.results.sign import Sign, show
from sweeper.screen import Screen
words, command, *names = sys.argv[1:]
show(Screen(), [Sign(name, words, words, command) for name in names], Path("signs.json"))
"""


def some_signs(*names: str) -> list[Sign]:
    return [Sign(name, f"evidence of {name}", f"advice for {name}", None) for name in names]


def test_signs_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A list of mappings with the four names that the documentation says."""
    path = tmp_path / "signs.json"
    signs = [Sign("too_slow", "1", "2", "3"), *some_signs("diverged")]
    assert sign.read(path) == []
    sign.write(path, signs)
    assert sign.read(path) == signs
    assert [list(row) for row in json.loads(path.read_text())] == 2 * [
        ["sign", "evidence", "advice", "command"]
    ]


@pytest.mark.parametrize(
    "row",
    [
        "{}",
        '{"sign": 1, "evidence": "", "advice": "", "command": null}',
        '{"sign": "a", "evidence": null, "advice": "", "command": "b"}',
        '{"sign": "a", "evidence": "", "advice": "", "command": ["b"]}',
    ],
)
def test_a_damaged_file_hides_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str) -> None:
    """Whoever shows signs logs that it is damaged, and shows none."""
    path = tmp_path / "signs.json"
    path.write_text(f"[{row}]")
    with pytest.raises(Fault, match="holds no signs"):
        sign.read(path)
    assert sign.read_whole(path) == []
    assert "holds no signs" in caplog.text


def test_the_most_helpful_signs_come_first() -> None:
    """What ruins all, then what may gain most, then what only warns; over those of a run and of a study."""
    found = [one.sign for one in sign.ordered(some_signs(*NAMES))]
    assert found == ["failures", "diverged", "lr_at_edge", "still_improving", "cheap_rival"]


def test_three_signs_are_shown_and_the_rest_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the file that has them all; without signs nothing is said."""
    path = tmp_path / "a b" / "signs.json"
    sign.write(path, some_signs(*NAMES))
    sign.show(Screen(), some_signs(*NAMES), path, tmp_path / "not_there.json")
    shown = capsys.readouterr().out
    assert [name for name in NAMES if f"{name}: Evidence" in shown] == ["lr_at_edge", "diverged", "failures"]
    assert f"2 more signs in '{path}'" in shown
    sign.show(Screen(), [])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", [80, pytest.param(140, marks=pytest.mark.slow)])
def test_a_terminal_wraps_texts_and_no_command(tmp_path: Path, columns: int) -> None:
    """Evidence and advice are as wide as the terminal; a command is one line that can be copied whole."""
    sign.write(tmp_path / "signs.json", [])
    terminal = Terminal(tmp_path, "-c", SHOW, WORDS, COMMAND, *NAMES, columns=columns)
    shown = terminal.finish()
    assert shown.count(f"  {COMMAND}") == MOST_SHOWN
    texts = [line.rstrip() for line in shown if COMMAND not in line]
    assert columns * 0.8 < max(map(len, texts)) <= columns
    assert " ".join(" ".join(texts).lower().split()).count(WORDS) == 2 * MOST_SHOWN
    assert any(line.startswith("failures: Words") for line in texts)
    assert "2 more signs in signs.json" in texts


def test_what_ruins_trials_is_told_once_while_a_search_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Which trial, and what to do; of running trials too, and of an app that reports an infinite value."""
    study = a_study("maximize")
    with Progress(study) as progress:
        add(study, a_trial(TrialState.RUNNING, signs=["chance_level", "too_slow"]))
        add(study, a_trial(TrialState.PRUNED, diverged=True))
        add(study, a_trial(TrialState.PRUNED, signs=["diverged", "chance_level"]))
        progress.update(study.trials())
        progress.update(study.trials())
    told = capsys.readouterr().out
    assert re.findall(r"trial (\d): (\w+)\. [A-Z].+\.\n", told) == [("0", "chance_level"), ("1", "diverged")]
    with Progress(study) as again:
        again.update(study.trials())
    assert "diverged. " not in capsys.readouterr().out  # it was told before


def test_a_single_run_tells_a_sign_as_soon_as_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole: evidence, advice and command."""
    SingleRun(Run()).sign(Sign("diverged", "the loss is infinite", "lower the rate", "python -m sweeper x=1"))
    expected = "\ndiverged: The loss is infinite.\n  Lower the rate.\n  python -m sweeper x=1\n\n"
    assert capsys.readouterr().out == expected


def test_a_search_shows_its_signs_and_best_shows_them_again(tmp_path: Path) -> None:
    """Another app's study keeps them hidden, as its folder is the app's; best can read the trials anew."""
    app = App(tmp_path, "return cfg.x")
    done = app.run(*IN_PROCESS, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    expected = "too_few_trials: 3 trials for 1 parameter; 3 completed"
    assert expected in done.stdout
    assert done.stdout.index("Best trial") < done.stdout.index(expected)
    files = StudyFiles(app.out)
    assert files.signs == app.out / ".sweeper" / "signs.json"
    assert not (app.out / "signs.json").exists()
    assert [one.sign for one in sign.read(files.signs)] == ["too_few_trials"]
    files.signs.write_text("[{}]")
    assert expected in sweeper(tmp_path, "best", "out")


def test_our_own_study_has_its_signs_beside_its_results(searched: Path) -> None:
    """Where whoever looks for files finds them."""
    files = StudyFiles(searched / "outputs" / "digits")
    assert files.signs == files.folder / "signs.json"
    assert isinstance(sign.read(files.signs), list)
