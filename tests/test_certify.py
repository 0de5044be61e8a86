"""``sweeper certify``: of our own studies and of other apps', through the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState

import sweeper as product
from sweeper.commands.certification.duration import about_time, half_of, workers_of
from sweeper.commands.certification.wish import Wish
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import CANDIDATE, Candidate, Plan
from tests import planned
from tests.foreign_app import FINISHED, App
from tests.program import IN_PROCESS, Program, finish, kill_group, run, start, sweeper, until
from tests.studied import on_disk, record_of, trial

NOISY = """
import random
return cfg.x + random.Random(cfg.seed).gauss(0, 0.01)
"""

HOLD = """
import random
if "certificate" in sweeper_study() and number >= 3:
    started()
    wait_for("go")
return cfg.x + random.Random(cfg.seed).gauss(0, 0.01)
"""

STUDY_OF = """
def sweeper_study():
    from hydra.core.hydra_config import HydraConfig
    return HydraConfig.get().runtime.output_dir
"""


def noisy(folder: Path, body: str = NOISY, top: str = "", words: tuple[str, ...] = IN_PROCESS) -> App:
    """An app whose score the seed decides, and a search of it in ``out``."""
    app = App(folder, body, top)
    app.configure("x: 0.0", "x: 1.0\nseed: 3")
    done = app.run("hydra.sweeper.n_trials=4", *words)
    assert done.returncode == 0, done.stderr
    return app


def certificate_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "certificate.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_search_of_another_app_is_certified(tmp_path: Path) -> None:
    """By its own command, with new seeds: the words and the file say what was found."""
    app = noisy(tmp_path)
    said = sweeper(app.folder, "certify", "out", "--top", "2", "--seeds", "3")
    assert re.search(
        r"^9 trainings of 3 candidates \(trials \d, \d and the defaults\), about \d+ s on 1 worker\n", said
    )
    trials = planned.trials(app)
    assert Counter(t.user_attrs[CANDIDATE] for t in trials)["defaults"] >= 2
    found = certificate_of(app.folder / "out-certificate" / ".sweeper")
    assert found["finished"]
    assert found["study"] == "s"
    assert [len(one["expected"]) for one in found["candidates"]] == [1, 1, 1]
    assert re.search(r"(is|are) expected to reach value", said)  # the defaults may be the best of them
    assert "Report:    " in said
    assert "--choose" not in said


@pytest.mark.slow
def test_more_seeds_and_candidates_extend_it_and_fewer_lose_nothing(tmp_path: Path) -> None:
    """The trainings that are there count."""
    app = noisy(tmp_path)
    sweeper(app.folder, "certify", "out", "--top", "1", "--seeds", "2")
    before = [t.user_attrs for t in planned.trials(app)]
    sweeper(app.folder, "certify", "out", "--top", "2", "--seeds", "3")
    trials = planned.trials(app)
    assert [t.user_attrs for t in trials][: len(before)] == before
    assert len({t.user_attrs[CANDIDATE] for t in trials}) == 3
    said = sweeper(app.folder, "certify", "out-certificate", "--top", "1", "--seeds", "2")
    assert "expected to" in said
    assert re.search(r"Trained before, and kept: trial \d+\.", said)
    assert len(planned.trials(app)) == len(trials)


@pytest.mark.slow
def test_a_certificate_whose_trainings_all_fail_ends_in_one_line(tmp_path: Path) -> None:
    """The app's own output says why; that of the command is no traceback of ours."""
    app = noisy(tmp_path)
    app.write("raise ValueError(number)")
    done = run(app.folder, "-m", "sweeper", "certify", "out", "--top", "2", "--seeds", "3", limit_s=60)
    assert done.returncode == 1
    assert "commands/certify.py" not in done.stderr
    assert re.search(r"^sweeper: it ended with exit code 1; .*\n\Z", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_who_joins_later_is_trained_too(tmp_path: Path) -> None:
    """What others have been trained beyond their share is not taken from those who are new."""
    app = noisy(tmp_path)
    sweeper(app.folder, "certify", "out", "--top", "1", "--seeds", "6", "--no-baseline")
    sweeper(app.folder, "certify", "out", "--top", "2", "--seeds", "2")
    found = certificate_of(app.folder / "out-certificate" / ".sweeper")
    assert min(len(one["trainings"]) for one in found["candidates"]) >= 2


def begin(app: App) -> Program:
    """A certificate whose fourth training is held."""
    process = start(app.folder, "-m", "sweeper", "certify", "out", "--top", "2", "--seeds", "3")
    until(lambda: app.has_started(3) or process.poll() is not None, limit_s=30)
    assert process.poll() is None, finish(process)
    return process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_goes_on(tmp_path: Path) -> None:
    """kill -9 of all of it: done trainings stay, none is made twice, and the certificate is written then."""
    app = noisy(tmp_path, HOLD, STUDY_OF, ())
    process = begin(app)
    (pool,) = children(process.pid)
    os.killpg(pool, signal.SIGKILL)
    kill_group(process)
    finish(process)
    done = [t.number for t in planned.trials(app) if t.state in FINISHED]
    assert not (app.folder / "out-certificate" / ".sweeper" / "certificate.json").exists()
    app.touch("go")
    sweeper(app.folder, "certify", "out", "--top", "2", "--seeds", "3")
    trials = planned.trials(app)
    ended = [t for t in trials if t.state in FINISHED]
    assert set(done) < {t.number for t in ended}
    planned.assert_trained(trials, len(ended))
    assert certificate_of(app.folder / "out-certificate" / ".sweeper")["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_leaves_what_is_known(tmp_path: Path, signum: signal.Signals) -> None:
    """Exit code 130 or 143; the certificate is written and marked as unfinished; the same command goes on."""
    app = noisy(tmp_path, HOLD, STUDY_OF, ())
    process = begin(app)
    os.killpg(process.pid, signum)  # as a terminal does
    done = finish(process, 60)
    assert done.returncode == 128 + signum, done.stderr
    assert "To go on: " in done.stdout
    assert "Unfinished: " in done.stdout
    assert "Traceback" not in done.stderr
    assert not certificate_of(app.folder / "out-certificate" / ".sweeper")["finished"]


REFUSED = {
    "it is running": (
        [trial(0.5), trial(state=TrialState.RUNNING, worker="elsewhere-1-a")],
        {"command": ["python", "app.py"]},
        "trial 1 of it is running",
    ),
    "nothing is done": (
        [trial(state=TrialState.FAIL)],
        {"command": ["python", "app.py"]},
        "no trial of it is done",
    ),
    "another program": ([trial(0.5)], None, "nobody knows the command of its search"),
    "the app is gone": (
        [trial(0.5)],
        {"command": ["python", "app.py", "-m"]},
        r"its app, app\.py, is not found",
    ),
    "a module is gone": (
        [trial(0.5)],
        {"command": ["python", "-m", "my.app"]},
        r"its app, my\.app, is not found",
    ),
    "a password": ([trial(0.5)], {"command": ["python", "app.py", "x=URL"]}, "holds a password"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_certified_is_one_line(said: Any, tmp_path: Path, case: str) -> None:
    """Exit code 2, and nothing is left of the attempt."""
    trials, begun, reason = REFUSED[case]
    on_disk(tmp_path, *trials, attributes=begun)
    code, text = said("certify", "s")
    assert code == 2
    assert re.search(reason, text.splitlines()[-1])
    assert not (tmp_path / "outputs" / "s-certificate").exists()


def test_what_does_not_go_together_is_one_line(said: Any, tmp_path: Path) -> None:
    """Choosing where nothing can be chosen, folds of another app, a number that is too small."""
    (tmp_path / "app.py").touch()
    on_disk(tmp_path, trial(0.5), attributes={"command": ["python", "app.py", "-m"]})
    for words, reason in {
        ("--choose",): "another app has trained",
        ("--folds", "3"): "is a matter of sweeper's own data",
        ("--seeds", "1"): "1 is not in the range",
    }.items():
        code, text = said("certify", "s", *words)
        assert code == 2
        assert reason in text.splitlines()[-1]


def test_the_command_of_the_search_is_run_without_its_storage_and_its_trust(tmp_path: Path) -> None:
    """A password stays in the folder, and whom to trust is for the person who certifies to say."""
    words = ["python", "app.py", "-m", "x=1,2", "hydra.sweeper.storage=URL", "--trust", "+study=s"]
    words += ["hydra.sweeper.timeout_s=60", "hydra.sweep.dir=out"]
    seen = record_of(tmp_path, attributes={"command": words, "named_by": "study", "folder_by": "nobody"})
    found = seen.elsewhere("s-certificate", Path("/a (b)"))
    assert found is not None
    program, arguments = found
    assert list(program) == ["python", "app.py"]
    assert arguments == ["-m", "x=1,2", "+study=s-certificate", "hydra.sweep.dir='/a (b)'"]


@pytest.mark.parametrize("name", ["ä/ü", "a b", "a,b=c", "it's", "名"])
def test_hydra_reads_the_name_of_any_study(tmp_path: Path, name: str) -> None:
    """Its certificate's name and folder come through its grammar as they are."""
    words = ["python", "app.py", "-m", f"study={name}"]
    seen = record_of(tmp_path, attributes={"command": words, "named_by": "study", "folder_by": "nobody"})
    found = seen.elsewhere(f"{name}-certificate", tmp_path / name)
    assert found is not None
    read = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(found[1][1:])}
    assert read == {"study": f"{name}-certificate", "hydra.sweep.dir": str(tmp_path / name)}


def plan_of(n: int, n_seeds: int, baseline: bool = True) -> Plan:
    searched = [Candidate(i, {}, (0.5,), 10.0 + i) for i in range(n)]
    return Plan(
        "s", "", (*searched, *([Candidate(None, None, None, 12.0)] if baseline else [])), n_seeds, None, 1
    )


def seconds(plan: Plan) -> float:
    return sum(one.seconds or 0 for one in plan.candidates) * plan.n_seeds


@pytest.mark.parametrize(("n", "seeds"), [(5, 5), (3, 10), (10, 3), (1, 5), (20, 20), (5, 2), (5, 10**6)])
@pytest.mark.parametrize("baseline", [True, False])
def test_the_command_for_half_takes_about_half(n: int, seeds: int, baseline: bool) -> None:
    """Where there is one, it takes 35 to 65 % of the time, and trains two candidates at least."""
    half = half_of(plan_of(n, seeds, baseline))
    if half is None:
        assert n + baseline < 3 or seeds == 2
        return
    assert half.top is not None
    assert half.seeds is not None
    share = seconds(plan_of(half.top, half.seeds, baseline)) / seconds(plan_of(n, seeds, baseline))
    assert 0.35 <= share <= 0.65
    assert half.top + baseline >= 2


def test_numbers_are_told_as_they_are_typed() -> None:
    """What stands behind the name, and a time as one says it."""
    assert Wish(4, 3, None, False).typed() == " --top 4 --seeds 3 --no-baseline"
    assert [about_time(s) for s in (0.2, 40, 240, 9000)] == [
        "about 1 s",
        "about 40 s",
        "about 4 min",
        "about 2.5 h",
    ]


MINE = (
    *("dataset=digits", "training.epochs=2", "study=mine"),
    *("optimizer=adam", "optimizer.lr=0.001,0.003,0.01", "optimizer.weight_decay=0.001"),
    *("training.batch_size=64", "model.dropout=0.4"),
)
"""A search of ours over three learning rates."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of ours: three trials of the digits, two epochs each."""
    folder = tmp_path_factory.mktemp("digits")
    search = ("hydra/sweeper/sampler=grid", "hydra/sweeper/pruner=none", "hydra.sweeper.n_jobs=2")
    sweeper(folder, "-m", *MINE, *search)
    sweeper(folder, "certify", "mine", "--top", "2", "--seeds", "3")
    return folder


@pytest.fixture
def copy(digits: Path, tmp_path: Path) -> Path:
    """The same, to be changed: its storage is where the copy is."""
    shutil.copytree(digits / "outputs", tmp_path / "outputs")
    for name in ("mine", "mine-certificate"):
        (tmp_path / "outputs" / name / ".sweeper" / "storage").write_text(
            str(tmp_path / "outputs" / "studies.journal")
        )
    return tmp_path


@pytest.mark.slow
def test_the_chosen_one_is_the_best_of_the_search(digits: Path) -> None:
    """With weights and test score, for best, export and reproduce; repeated, nothing is measured again."""
    best = digits / "outputs" / "mine" / "best"
    found = certificate_of(digits / "outputs" / "mine-certificate")
    (chosen,) = [one for one in found["candidates"] if one["name"] == found["choice"]]
    said = sweeper(digits, "certify", "mine", "--choose")
    assert "trainings are done" not in said
    choice = json.loads((digits / "outputs" / "mine" / "best" / ".sweeper" / "choice.json").read_text())
    assert choice["trial"] in [one["trial"] for one in chosen["trainings"]]
    result = json.loads((best / "result.json").read_text())
    assert result["trial"] == choice["trial"]
    assert 0 < result["test_accuracy"] <= 1
    assert {"weights.safetensors", "model.json", "trial.yaml", "history.csv"} <= {
        p.name for p in best.iterdir()
    }
    before = {path: path.stat().st_mtime_ns for path in best.rglob("*") if path.is_file()}
    assert "Chosen: " in sweeper(digits, "certify", "mine", "--choose")
    assert {path: path.stat().st_mtime_ns for path in best.rglob("*") if path.is_file()} == before
    assert "identical: " in sweeper(digits, "reproduce", "mine")
    assert "Chosen: " in sweeper(digits, "best", "mine")
    sweeper(digits, "export", "mine", "--format", "safetensors", "--out", "it.safetensors")
    model = json.loads((best / "model.json").read_text())
    assert product.load(digits / "it.safetensors").classes == tuple(model["classes"])


@pytest.mark.slow
def test_a_trial_that_ends_takes_the_choice_back(digits: Path) -> None:
    """The search that goes on says so before, and best/ is the best trial's again."""
    sweeper(digits, "certify", "mine", "--choose")
    choice = digits / "outputs" / "mine" / "best" / ".sweeper" / "choice.json"
    multirun = (digits / "outputs" / "mine" / "multirun.yaml").read_text()
    assert "n_trials" in multirun
    search = ("hydra/sweeper/pruner=none", "hydra.sweeper.n_jobs=2")
    said = sweeper(digits, "-m", *MINE, *search, "hydra.sweeper.n_trials=4")
    assert "best/ holds what sweeper certify has chosen" in said
    assert not choice.exists()
    result = json.loads((digits / "outputs" / "mine" / "best" / "result.json").read_text())
    assert result["study"] == "mine"


@pytest.mark.slow
def test_a_reader_that_has_enough_does_not_end_a_certificate(copy: Path) -> None:
    """With ``| head`` the rest is trained, and chosen, all the same."""
    shutil.rmtree(copy / "outputs" / "mine-certificate")
    sweeper(copy, "studies", "--delete", "mine-certificate", "--yes")
    command = f"{shlex.quote(sys.executable)} -m sweeper certify mine --top 1 --seeds 2 --choose"
    subprocess.run(["bash", "-c", f"{command} | head -n 1"], cwd=copy, check=True, timeout=60)
    assert certificate_of(copy / "outputs" / "mine-certificate")["finished"]
    assert (copy / "outputs" / "mine" / "best" / ".sweeper" / "choice.json").exists()


@pytest.mark.slow
def test_python_gets_the_same_certificate(digits: Path) -> None:
    """``study.certify()`` shows what the command shows, and gives it in numbers."""
    script = """
import sweeper
certificate = sweeper.open_study("mine").certify()
print("best", certificate.best, certificate["defaults"].expected[0].value, certificate.finished)
try:
    sweeper.open_study("mine").certify(folds=3)
except sweeper.BadInput as error:
    print(error.key, error.value)
"""
    done = run(digits, "-c", script, limit_s=60)
    assert done.returncode == 0, done.stderr
    found = certificate_of(digits / "outputs" / "mine-certificate")
    (defaults,) = [one for one in found["candidates"] if one["name"] == "defaults"]
    assert f"best {found['best']} {defaults['expected'][0]['value']} True" in done.stdout
    assert "folds 3" in done.stdout


@pytest.mark.slow
def test_folds_are_trained_in_place_of_seeds(copy: Path) -> None:
    """Each candidate sees each fold as validation part once, and the test part stays closed."""
    shutil.rmtree(copy / "outputs" / "mine-certificate")
    sweeper(copy, "studies", "--delete", "mine-certificate", "--yes")
    said = sweeper(copy, "certify", "mine", "--top", "1", "--folds", "3")
    assert "6 trainings of 2 candidates" in said
    found = certificate_of(copy / "outputs" / "mine-certificate")
    for one in found["candidates"]:
        assert sorted(each["fold"] for each in one["trainings"])[:2] == [0, 1]
    results = (copy / "outputs" / "mine-certificate").glob("*/result.json")
    assert not any("test_accuracy" in path.read_text() for path in results)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_jobs": 3, "workers_per_job": "auto"}, (3, "job")),
        ({"n_jobs": "auto", "workers_per_job": "auto"}, (1, "job")),
        ({"n_jobs": 3, "workers_per_job": 2}, (6, "worker")),
    ],
)
def test_a_launcher_has_jobs(tmp_path: Path, settings: dict[str, Any], told: tuple[int, str]) -> None:
    """What n_jobs counts then; their workers are known only where somebody wrote them."""
    files = StudyFiles(tmp_path)
    hydra = {"launcher": {"_target_": "a.Launcher"}, "sweeper": settings}
    files.sweep_config.write_text(json.dumps({"hydra": hydra}))
    assert workers_of(files) == told
