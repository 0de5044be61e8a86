"""``import sweeper`` in scripts and notebooks: what it takes, what is refused, and what a study says."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState

import sweeper
from sweeper.api import _override
from sweeper.fault import Fault, FaultElsewhere
from sweeper.outcome import Outcome
from sweeper.record.study_files import StudyFiles, is_report
from tests.foreign_app import App
from tests.program import run
from tests.studied import on_disk, trial

ROOT = Path(__file__).parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------ the import


def test_the_import_takes_a_moment() -> None:
    """``import sweeper`` takes less than 0.2 s, and neither torch nor Hydra nor Optuna."""
    code = """
import sys, time
began = time.perf_counter()
import sweeper
seconds = time.perf_counter() - began
dir(sweeper), sweeper.BadInput, sweeper.Fault, sweeper.Failed, sweeper.hooks, sweeper.trial().number
heavy = [name for name in ("torch", "hydra", "omegaconf", "optuna", "numpy") if name in sys.modules]
print(seconds if not heavy else heavy)
"""
    seconds = [float(run(Path.cwd(), "-c", code).stdout) for _ in range(2)]
    assert min(seconds) < 0.2


def test_every_public_name_is_there_whatever_was_imported_before() -> None:
    """Each name gives what it says, and no module of the package has the name of one."""
    modules = {module.name for module in pkgutil.iter_modules(sweeper.__path__)}
    assert not modules & set(sweeper.__all__)
    assert all(getattr(sweeper, name) is not None for name in sweeper.__all__)
    assert {*sweeper.__all__, "search"} <= set(dir(sweeper))
    assert sweeper.search.__name__ == "sweeper.search"
    with pytest.raises(AttributeError, match="module 'sweeper' has no attribute 'trian'"):
        sweeper.trian  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_the_types_are_those_that_users_rely_on(tmp_path: Path) -> None:
    """The API as its users write it passes mypy's strictest checks, and a slip does not."""
    (tmp_path / "slip.py").write_text("import sweeper\nsweeper.trian()\nsweeper.train(1)\n")
    files = [ROOT / "tests" / "typing" / "api.py", tmp_path / "slip.py"]
    options = ["--strict", "--config-file", ROOT / "pyproject.toml", "--no-error-summary"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, [*options, *files])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = done.stdout.splitlines()
    assert len(wrong) == 2, done.stdout + done.stderr
    assert all("slip.py" in line for line in wrong)


# ------------------------------------------------------------------------------------------------- keywords


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -1, 0.001, 1e-05, 1e300, math.inf, -math.inf, math.nan),
        *("adam", "", " ", "a b", "a,b", "null", "True", "1", "1e3", "2024_01", "inf", "it's", '"x"', "'x'"),
        *("a=b", "x[0]", "{a: 1}", "(1)", "choice(1,2)", "${study}", "\n", "üñí", "#", "~", "-x", "[1"),
        *("\\", "a\\", "a\\'", "a\\\\'b", "\\'\"", "C:\\x y\\"),
        *([], [1, 2.0, "x", None, True], [[1], ["a, b", "]"]], {}, {"a": 1, "b": {"c": ["x,y"]}}),
    ],
)  # fmt: skip
def test_a_keyword_means_the_value_that_was_given(value: Any) -> None:
    """Hydra reads of every plain value the same value, with its type, whatever stands in a text."""
    override = OverridesParser.create().parse_override(_override("training.epochs", value))
    assert not override.is_sweep_override()
    assert repr(override.value()) == repr(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        *((np.float64(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.float32(0.5), 0.5)),
        *(((8, 16), [8, 16]), (Path("a b"), "a b"), ({1: "x"}, {1: "x"})),
    ],
)
def test_a_keyword_may_be_what_others_use_for_a_plain_value(value: Any, plain: Any) -> None:
    """Numbers of numpy, tuples and paths are numbers, lists and texts."""
    assert repr(OverridesParser.create().parse_override(_override("key", value)).value()) == repr(plain)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seed": object()}, r"^seed=<object .*: is a object, and no plain value; write a number"),
        ({"model.arguments": {"a b'": 1}}, r"^model.arguments=.*: cannot be written in Hydra's grammar; "),
        ({"a b": 1}, r"^a b=1: is no key; write one as \*\*\{"),
        ({"--trust": True}, r"^--trust=True: is no key"),
    ],
)
def test_a_keyword_that_cannot_be_written_is_refused(keys: dict[str, Any], said: str) -> None:
    """Before anything starts, with the key and what may be written."""
    with pytest.raises(sweeper.BadInput, match=said):
        sweeper.train(**keys)


@pytest.mark.parametrize("word", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_a_search_is_no_training(word: str) -> None:
    """``train`` says which call searches."""
    with pytest.raises(sweeper.BadInput) as told:
        sweeper.train([word, "optimizer=adam,sgd", "model.names='a\"b'"])
    assert told.value.remedy.startswith(
        "call sweeper.sweep([\"optimizer=adam,sgd\", 'model.names=\\'a\"b\\''])"
    )


@pytest.mark.slow
def test_a_remedy_is_in_the_words_of_who_asks(here: Path) -> None:
    """What a shell would be told with ``-m``, a program with ``sweeper.sweep``; what shows keys is a whole
    command."""
    with pytest.raises(sweeper.BadInput, match=r'; call sweeper.sweep\(\["optimizer=adam,sgd"\]\)$'):
        sweeper.train(["optimizer=adam,sgd"])
    with pytest.raises(
        sweeper.BadInput, match=r'; call sweeper.sweep\(\["optimizer=adam,sgd"\]\) to compare'
    ):
        sweeper.sweep(optimizer=["adam", "sgd"])
    with pytest.raises(sweeper.BadInput, match="; sweeper --cfg job shows the keys"):
        sweeper.train(["xyzzy=1"])


@pytest.mark.parametrize("words", [[1], ["optimizer=adam", None], ["study=\0"]])
def test_an_override_is_a_text(words: list[Any]) -> None:
    """Anything else is refused before anything starts."""
    with pytest.raises(sweeper.BadInput, match=r"^overrides="):
        sweeper.sweep(words)


# --------------------------------------------------------------------------------------------------- errors


def test_bad_input_comes_in_parts(here: Path) -> None:
    """What the command refuses is raised here, once, and neither printed nor an exit."""
    with contextlib.redirect_stderr(io.StringIO()) as printed, pytest.raises(sweeper.BadInput) as raised:
        sweeper.train("optimizer=adm", study="one")
    error = raised.value
    assert (error.key, error.value, error.reason) == ("optimizer", "adm", "there is no such option")
    assert error.remedy == "did you mean adam? write one of adam, adamw, rmsprop, sgd"
    assert printed.getvalue() == ""
    assert list(here.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["training.batch_size=0"], "training.batch_size", 0),
        (["-m", "model.dropout=interval(0.1,1.5)"], "model.dropout", 1.5),
        (["--prot"], "overrides", "--prot"),
        (["--cfg", "job"], "command", "-m --cfg job"),
        (["best"], "VERB", "best"),
    ],
)
def test_bad_input_comes_from_wherever_it_is_met(here: Path, words: list[str], key: str, value: Any) -> None:
    """Of a run, of a search, of the command line itself, or where nothing was to be done."""
    call = sweeper.train if words[0].startswith("training") else sweeper.sweep
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(sweeper.BadInput) as raised:
        call(words)
    assert (raised.value.key, raised.value.value) == (key, value)


@pytest.mark.slow
def test_no_password_comes_back(here: Path) -> None:
    """Neither in an error nor in its parts."""
    url = "postgresql://me:verysecret@127.0.0.1:1/x"
    with pytest.raises((sweeper.BadInput, sweeper.Fault)) as raised:
        sweeper.sweep(
            "optimizer=adam,sgd", **{"hydra.sweeper.storage": url, "hydra.sweeper.storage_wait_s": 0}
        )
    assert "verysecret" not in f"{raised.value} {raised.value.args} {vars(raised.value)}"
    assert "127.0.0.1" in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        sweeper.BadInput("a", None, "b", "c"),
        Fault("place", "reason", "remedy"),
        FaultElsewhere("outputs/x: no space left on device; make room on that disk"),
        sweeper.Failed("study s", "2 trials failed", "fix the cause"),
    ],
)
def test_an_error_arrives_as_it_was(error: Exception) -> None:
    """Of the same kind, with the same words."""
    from sweeper import caller

    written = json.loads(json.dumps(caller.written(error)))
    again = caller.read(written)
    assert type(again) is type(error)
    assert str(again) == str(error)


# -------------------------------------------------------------------------------------------------- a study


def test_a_study_says_what_its_trials_say(here: Path) -> None:
    """Best trial, trials, data frame and runs, by name or folder, as Optuna has them."""
    space = {"optimizer": "adam", "optimizer.lr": 0.01}
    trials = [trial(0.5), trial(0.9, params=space), trial(None, TrialState.FAIL), trial(0.7)]
    on_disk(here, *trials, name="mine")

    for study in (sweeper.open_study("mine"), sweeper.open_study(Path("outputs/mine")), sweeper.open_study()):
        assert (study.name, study.folder) == ("mine", here / "outputs" / "mine")
    assert repr(study) == "<Study mine: 3 done, 0 pruned, 1 failed, best 0.90000>"
    best = study.best
    assert (best.number, best.params, best.values) == (1, space, (0.9,))
    assert study.solutions == [best]
    assert [each.value for each in study.trials] == [0.5, 0.9, None, 0.7]
    assert study.run(1).params == space
    assert study.run(2).values == ()
    frame = study.dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["state"]) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert frame["params_optimizer"][1] == "adam"
    assert [sign.sign for sign in study.signs] == ["failures", "too_few_trials"]
    assert "<th>optimizer</th><td>adam</td>" in study._repr_html_()
    with pytest.raises(sweeper.BadInput, match=r"^number=4: mine has no such trial; write one of 0 … 3$"):
        study.run(4)


def test_a_study_of_several_objectives_has_solutions(here: Path) -> None:
    """Where there is no best trial, one line says where to look."""
    on_disk(here, trial([1.0, 2.0]), trial([2.0, 1.0]), name="two", directions=["minimize", "minimize"])
    study = sweeper.open_study("two")
    assert sorted(run.values for run in study.solutions) == [(1.0, 2.0), (2.0, 1.0)]
    with pytest.raises(sweeper.BadInput, match=r"^study=two: has several objectives.*; see \.solutions$"):
        study.best  # noqa: B018
    assert repr(study) == "<Study two: 2 done, 0 pruned, 0 failed>"
    assert "2 done" in study._repr_html_()


def test_a_study_without_a_complete_trial_says_so(here: Path) -> None:
    """It has no best trial yet."""
    on_disk(here, trial(None, TrialState.FAIL), name="none")
    study = sweeper.open_study("none")
    assert study.solutions == []
    with pytest.raises(sweeper.BadInput, match=r"^study=none: no trial of it is complete; "):
        study.best  # noqa: B018


def test_what_was_in_a_memory_is_said_by_its_files(here: Path) -> None:
    """Of a search in the memory of a process the best trial is known; trials and data frame are gone."""
    files = on_disk(here, trial(0.9, params={"optimizer": "adam"}), name="mine")
    files.mark("mine", "memory")
    study = sweeper.open_study("mine")
    assert study.best.params == {"optimizer": "adam"}
    assert repr(study) == "<Study mine: 1 done, 0 pruned, 0 failed, best 0.90000>"
    assert study.signs == []
    for ask in (lambda: study.trials, study.dataframe, study.report, lambda: study.run(0)):
        with pytest.raises(sweeper.BadInput, match="it is gone with the process whose memory it was"):
            ask()


@pytest.mark.slow
def test_a_study_of_another_app_is_a_study(tmp_path: Path) -> None:
    """It has a best trial with parameters, value and folder; one line says that it is no training run."""
    app = App(tmp_path, "return cfg.x")
    assert app.run("hydra.sweeper.n_trials=3").returncode == 0
    study = sweeper.open_study(app.out)
    best = study.best
    assert best.values == (min(each.value for each in app.trials() if each.value is not None),)
    assert best.folder == app.out / str(best.number)
    assert list(best.params) == ["x"]
    assert (best.result, best.signs) == ({}, [])
    assert len(study.trials) == len(study.dataframe()) == 3
    with pytest.raises(sweeper.BadInput, match="holds no history of a training run"):
        best.history  # noqa: B018
    with pytest.raises(sweeper.BadInput, match="model"):
        best.model  # noqa: B018


@pytest.mark.slow
def test_a_study_in_sqlite_is_a_study(here: Path) -> None:
    """Its folder remembers where it is."""
    files, url = StudyFiles(here / "outputs" / "mine"), f"sqlite:///{here}/s.db"
    study = optuna.create_study(study_name="mine", storage=url)
    study.add_trial(trial(0.5))
    files.mark("mine", url)
    files.write_results(Outcome.of(study))
    assert [each.value for each in sweeper.open_study("mine").trials] == [0.5]
    assert len(sweeper.open_study("mine").dataframe()) == 1


def test_no_study_is_bad_input(here: Path) -> None:
    """The remedy names those that there are."""
    on_disk(here, trial(0.5), name="mine")
    with pytest.raises(sweeper.BadInput, match=r"^study=mien: .*did you mean mine\?"):
        sweeper.open_study("mien")
    with pytest.raises(sweeper.BadInput, match="file name too long"):
        sweeper.open_study("a" * 5000)


def test_a_list_that_holds_itself_is_bad_input() -> None:
    """Python nests it without end."""
    endless: list[object] = []
    endless.append(endless)
    for value in (endless, {"a": endless}):
        with pytest.raises(sweeper.BadInput, match="is nested too deeply"):
            sweeper.train(optimizer=value)


def test_a_data_frame_needs_pandas(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, one line says how to get it."""
    on_disk(here, trial(0.5), name="mine")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(sweeper.BadInput, match=r"pandas is not installed; python -m pip install pandas$"):
        sweeper.open_study("mine").dataframe()


@pytest.mark.slow
def test_looking_leaves_optuna_as_loud_as_it_was(here: Path) -> None:
    """Nobody's logging is changed by a look, or by a report."""
    on_disk(here, trial(0.5), name="mine")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        assert sweeper.open_study("mine").report("r.html") == here / "r.html"
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert is_report(here / "r.html")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (None, "is no list of texts; write a list"),
        (5, "overrides=5: is no list of texts"),
        ({"optimizer": "adam"}, "is no list of texts"),
        (["\ud800=1"], r"overrides=.*: has a character that is no text"),
        (["x" * 200_000], "is too long for a command"),
    ],
)
def test_overrides_that_no_command_could_get_are_bad_input(overrides: Any, told: str) -> None:
    """Before any process is started."""
    with pytest.raises(sweeper.BadInput, match=told):
        sweeper.train(overrides)


@pytest.mark.parametrize(
    "given",
    [
        *({"choose": "no"}, {"choose": None}, {"baseline": "yes"}, {"baseline": []}, {"trust": [1]}),
        *({"top": True}, {"seeds": 2.0}, {"folds": np.array([2, 3])}, {"top": np.array(0)}),
    ],
)
def test_what_a_certificate_is_asked_for_is_checked_by_type(here: Path, given: dict[str, Any]) -> None:
    """Nothing is guessed of another type: ``choose="no"`` would have opened the test part."""
    on_disk(here, trial(0.5), name="mine")
    with pytest.raises(sweeper.BadInput, match=rf"^{next(iter(given))}=.* is n"):
        sweeper.open_study("mine").certify(**given)
