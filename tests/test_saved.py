"""A saved run is a config of ours: it runs again, changes by key and by group, and is searched around."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sweeper import check, saved, schema
from sweeper.check import to_run
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.errors import BadInput
from sweeper.record.study_files import StudyFiles
from sweeper.run import test_best as try_best
from sweeper.search.space import Draw, Space
from tests.conftest import mostly_slow
from tests.program import sweeper

pytestmark = pytest.mark.hydra

GROUPS = ("dataset", "model", "optimizer", "scheduler", "augmentation", "freezing", "loss")

RUN = schema.Run(
    study="mine",
    seed=7,
    device="cpu",
    dataset=schema.Dataset(val_fraction=0.3, root="/data"),
    model=schema.Model(filters=[5], dropout=0.31),
    optimizer=schema.Optimizer("adam", lr=3.3e-5, weight_decay=0.002, head_lr_factor=3.0),
    scheduler=schema.Scheduler("cosine", t_max=7, eta_min=1e-6, warmup_epochs=1),
    augmentation=schema.Augmentation("light", rotation_deg=3.0, hflip=0.2),
    freezing=schema.Freezing("gradual", every=3),
    loss=schema.Loss(label_smoothing=0.07),
    training=schema.Training(epochs=9, batch_size=48, precision="float32", n_threads=1),
)
OPTIONS = [f"{group}={getattr(RUN, group).name}" for group in GROUPS]
"""Those that the run had."""


@contextmanager
def composed(*arguments: str) -> Iterator[tuple[DictConfig, ConfigLoader]]:
    """The config of a command line, and what has loaded it."""
    with (
        saved.saved_run(arguments) as line,
        composing(line.overrides),
        initialize_config_dir(str(conf_folder()), **VERSION_BASE),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra.compose_config(line.config_name, line.overrides, RunMode.MULTIRUN), hydra.config_loader


def compose(*arguments: str) -> DictConfig:
    with composed(*arguments) as (config, _):
        return config


def draws(*arguments: str) -> list[Draw]:
    """What ``-m`` would try first: each option, and both ends of each range."""
    with composed(*arguments) as (config, loader):
        return list(Space(config, list(config.hydra.overrides.task), loader).variations())


def swept(*arguments: str) -> set[str]:
    return {name for draw in draws(*arguments) for name in draw.params}


@pytest.fixture
def best(tmp_path: Path) -> list[str]:
    """How a command line names a run that was saved."""
    (tmp_path / "trial.yaml").write_text(saved.to_yaml(RUN))
    return ["--config-dir", str(tmp_path), "--config-name", "trial"]


def test_it_is_the_run_that_was_saved(best: list[str]) -> None:
    """Every value is the saved one, but the study is another; sweeper and folders are ours."""
    config = compose(*best)
    study = str(config.study)
    assert to_run(config) == replace(RUN, study=study)
    assert study != "mine"
    assert config.hydra.run.dir == config.hydra.sweep.dir == f"outputs/{study}"
    assert config.hydra.sweeper.direction == "maximize"
    assert config.hydra.sweeper.seed == 7
    assert swept(*best) == set()


def test_a_key_changes_one_value(best: list[str]) -> None:
    """All others stay; a misspelt one is an error that names the nearest."""
    config = compose(*best, "training.epochs=50", "study=other")
    training = replace(RUN.training, epochs=50)
    assert to_run(config) == replace(RUN, study="other", training=training)
    with pytest.raises(
        BadInput, match=r"training\.epoch=50: there is no such key; did you mean training\.ep"
    ):
        compose(*best, "training.epoch=50")
    with pytest.raises(BadInput, match=r"optimizer=sgdd: .*did you mean sgd\? write one of adam, .*sgd"):
        compose(*best, "optimizer=sgdd")


@pytest.mark.slow
@pytest.mark.parametrize("group", mostly_slow(GROUPS, 3))
def test_an_option_replaces_all_that_was_saved_of_its_group(best: list[str], group: str) -> None:
    """With any option of any group, the group is as if the command had named it beside the saved ones."""
    options = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    assert options
    for option in options:
        config = compose(*best, f"{group}={option}")
        usual = compose(*OPTIONS, f"{group}={option}")
        assert config[group] == usual[group]
        kept = [other for other in ("scheduler", "augmentation", "loss") if other != group]
        assert [config[other] for other in kept] == [OmegaConf.structured(RUN)[other] for other in kept]
        assert config.training.batch_size == 48


def test_what_a_saved_option_brings_to_an_option_holds(tmp_path: Path) -> None:
    """Another optimizer learns at the rate of fine-tuning; other images are normalized for the network."""
    run = replace(RUN, freezing=schema.Freezing("full"), model=schema.Model("torchvision", "densenet121"))
    (tmp_path / "trial.yaml").write_text(saved.to_yaml(run))
    best = ["--config-dir", str(tmp_path), "--config-name", "trial"]
    options = ("optimizer=sgd", "dataset=cifar10")
    config, usual = compose(*best, *options), compose("freezing=full", "model=torchvision", *options)
    assert (config.optimizer, config.dataset) == (usual.optimizer, usual.dataset)
    assert (config.optimizer.lr, config.dataset.normalization) == (1e-5, "imagenet")
    assert compose(*best, "optimizer=sgd", "freezing=none").optimizer == compose("optimizer=sgd").optimizer
    assert swept(*best, *options) == {"optimizer.momentum"}
    assert {draw.config.optimizer.lr for draw in draws(*best, "optimizer=sgd,adam")} == {1e-5}


def test_what_an_option_brings_to_other_groups_holds_too(best: list[str]) -> None:
    """Full fine-tuning comes with its learning rate, but leaves the saved optimizer and weight decay."""
    run = to_run(compose(*best, "freezing=full", "model=resnet18"))
    assert run.optimizer == replace(RUN.optimizer, lr=1e-5, head_lr_factor=100.0)
    assert run.dataset == replace(RUN.dataset, normalization="imagenet")


def test_an_experiment_is_taken_as_a_whole(best: list[str]) -> None:
    """What it sets takes the place of saved values, as it does of the defaults."""
    config = compose(*best, "experiment=quick")
    assert (config.training.epochs, config.hydra.sweeper.n_trials) == (5, 6)


@pytest.mark.slow
def test_a_search_varies_only_what_is_swept(best: list[str]) -> None:
    """No default range is searched, but those that a swept or named option brings for its own keys are."""
    assert swept(*best, "optimizer.lr=interval(1e-3,1e-2)") == {"optimizer.lr"}
    assert swept(*best, "optimizer=sgd") == {"optimizer.momentum"}
    tried = draws(*best, "optimizer=saved,sgd", "training.epochs=5,6")
    assert {n for draw in tried for n in draw.params} == {
        "optimizer",
        "optimizer.momentum",
        "training.epochs",
    }
    assert {(o.name, o.lr) for draw in tried for o in [draw.config.optimizer]} == {
        ("adam", 3.3e-5),
        ("sgd", 1e-5),
    }


def test_any_way_to_name_the_file_will_do(best: list[str], tmp_path: Path) -> None:
    """Short options, an extension, a folder in the name; a copy elsewhere, and one without its comments."""
    config = compose(*best, "study=x")
    copy = tmp_path / "elsewhere" / "saved_run.yaml"
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "trial.yaml").read_text())))
    for named in (
        ["-cd", str(tmp_path), "-cn", "trial"],
        [f"--config-dir={tmp_path}", "--config-name=trial.yaml"],
        ["--config-dir", str(copy.parent), "--config-name", "saved_run"],
        ["--config-dir", str(tmp_path), "--config-name", "elsewhere/saved_run"],
    ):
        assert to_run(compose("study=x", *named)) == to_run(config)


def test_other_configs_are_hydras(tmp_path: Path) -> None:
    """One with a defaults list of its own, and one of the name of ours, are left to Hydra."""
    (tmp_path / "own.yaml").write_text("defaults: [config, _self_]\noptimizer: {lr: 0.5}\n")
    (tmp_path / "config.yaml").write_text("optimizer: {lr: 0.5}\n")
    for name in ("own", "config"):
        with saved.saved_run(["--config-dir", str(tmp_path), "--config-name", name]):
            assert saved.SavedFirst.file is None


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The line names the folder and what is in it."""
    (tmp_path / "own.yaml").write_text("defaults: [config, _self_]\n")
    with (
        pytest.raises(BadInput, match=r"^--config-name=nothing: there is no nothing\.yaml in .*write .*own"),
        saved.saved_run(["--config-dir", str(tmp_path), "--config-name", "nothing"]),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer: {lrr: 1}", r"^optimizer\.lrr=1: there is no such key; did you mean optimizer\.lr\?"),
        ("optimizer: {lr: fast}", r"^optimizer\.lr=fast: .*Float"),
        ("whatever: 1", "^whatever=1: there is no such key"),
        ("[1", "^--config-name=.*trial.yaml: cannot be read"),
        ("[1]", "^--config-name=.*trial.yaml: cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(best: list[str], tmp_path: Path, text: str, said: str) -> None:
    """A key that is none, a value of another type, or no mapping is refused, and named."""
    (tmp_path / "trial.yaml").write_text(text + "\n")
    with pytest.raises(BadInput, match=said) as refused:
        compose(*best)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_it_trains_under_its_own_name(searched: Path, tmp_path: Path) -> None:
    """As printed, it is a single run, tested and stored: the same history, in a folder of its own."""
    shutil.copytree(searched / "outputs" / "digits", tmp_path / "outputs" / "digits")
    folder = tmp_path / "outputs" / "digits" / "best"
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    command = ("--config-dir", "outputs/digits/best", "--config-name", "trial")

    assert re.search(r"^Test accuracy: (0\.9|1\.0)", sweeper(tmp_path, *command), re.M)

    (again,) = (path for path in (tmp_path / "outputs").iterdir() if path.name != "digits")
    assert {path: path.read_bytes() for path in before} == before
    assert _bits(again) == _bits(folder)
    result = json.loads((again / "result.json").read_text())
    assert (result["study"], result["trial"]) == (again.name, None)


@pytest.mark.slow
def test_it_is_searched_around(searched: Path, tmp_path: Path) -> None:
    """A study of its own, in which only the swept key varies, and whose best model alone is tested."""
    best = str(searched / "outputs" / "digits" / "best")
    command = ("--config-dir", best, "--config-name", "trial", "-m", "optimizer.lr=interval(1e-3,1e-2)")
    sweeper(tmp_path, *command, "study=around", "training.epochs=1", "hydra.sweeper.n_trials=2")
    folder = tmp_path / "outputs" / "around"
    results = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert list(results["best_params"]) == ["optimizer.lr"]
    tested = ["test_accuracy" in json.loads((folder / n / "result.json").read_text()) for n in ("0", "1")]
    assert tested == [False, False]
    assert "test_accuracy" in json.loads((folder / "best" / "result.json").read_text())
    first, again = (yaml.safe_load(Path(f, "trial.yaml").read_text()) for f in (best, folder / "best"))
    assert first["model"] == again["model"]
    assert first["optimizer"] | {"lr": 0} == again["optimizer"] | {"lr": 0}


def _bits(folder: Path) -> list[list[str]]:
    """The history without what is measured in time or memory."""
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {"seconds", "images_per_second", "peak_memory_mb"}
    return [[cell for name, cell in row.items() if name not in measured] for row in rows]


# ------------------------------------------------------------------------------------- what it may import

OWN = replace(RUN, model=schema.Model("custom", "custom", target="trap.net", arguments={"width": 3}))


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved run that names a network of the working folder, whose import leaves a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trial.yaml").write_text(saved.to_yaml(OWN))
    (tmp_path / "trap.py").write_text(
        "open('sprung', 'w').close()\nfrom torch import nn\n"
        "def net(n_classes, width):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    return tmp_path / "sprung"


def inspect(*arguments: str, trust: bool = False) -> None:
    """What is checked before a run or a search starts."""
    with (
        saved.saved_run(arguments, trust) as line,
        composing(line.overrides),
        initialize_config_dir(str(conf_folder()), **VERSION_BASE),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        run = to_run(hydra.compose_config(line.config_name, line.overrides, RunMode.MULTIRUN))
        check.inspect(replace(run, dataset=schema.Dataset()))


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ([], False),
        (["model=saved"], False),
        (["model.arguments.width=5"], False),
        (["model.target=trap.net"], True),
        (["model=custom", "model.target=trap.net", "model.arguments.width=2"], True),
    ],
)
def test_a_saved_run_imports_only_what_was_typed(
    best: list[str], trap: Path, typed: list[str], runs: bool
) -> None:
    """What the file alone names is refused before it is imported."""
    if runs:
        inspect(*best, *typed)
    else:
        with pytest.raises(
            BadInput, match=r"^model\.target=trap\.net: a saved run names it .*; .*add --trust$"
        ):
            inspect(*best, *typed)
    assert trap.exists() == runs


def test_trust_lets_a_saved_run_import(best: list[str], trap: Path) -> None:
    """With --trust it is as if it had been typed; with another network nothing of it is imported."""
    inspect(*best, "model=cnn")
    assert not trap.exists()
    inspect(*best, trust=True)
    assert trap.exists()


def test_a_saved_run_sets_no_key_of_hydras(best: list[str], tmp_path: Path) -> None:
    """A callback or a sampler of anybody's could run any code."""
    hydras = "hydra:\n  callbacks:\n    x: {_target_: os.getcwd}\n"
    (tmp_path / "trial.yaml").write_text(saved.to_yaml(RUN) + hydras)
    with (
        pytest.raises(BadInput, match=r"^hydra=….*may run any code; .*add --trust"),
        saved.saved_run(best),
    ):
        pass
    with saved.saved_run(best, trust=True):
        pass


CALLS = "callbacks: {x: {_target_: trap.net}}"


@pytest.mark.parametrize(
    "files",
    [
        {"trial.yaml": f"defaults: [config, _self_]\nhydra: {{{CALLS}}}"},
        {"trial.yaml": "defaults: [config, _self_]\nhydra: ${other}"},
        {"trial.yaml": "defaults: [config, _self_]\nhydra: {sweeper: {_target_: trap.net}}"},
        {"trial.yaml": "defaults: [config, _self_]\nhydra: {searchpath: ['file:///tmp']}"},
        {"trial.yaml": f"# @package hydra\ndefaults: [/config, _self_]\n{CALLS}"},
        {"trial.yaml": "defaults: [config, more, _self_]", "more.yaml": "seed: 1"},
        {"trial.yaml": "defaults: [config, {override model: mine}, _self_]", "model/mine.yaml": "seed: 1"},
        {"trial.yaml": "defaults: [config, {model@hydra.callbacks: cnn}, _self_]"},
        {"trial.yaml": "defaults: [config, {override model: '${freezing}'}, _self_]"},
        {"trial.yaml": "defaults: [config, {override hydra/callbacks: x}]", "hydra/callbacks/x.yaml": CALLS},
        {"trial.yaml": "defaults: [config, _self_]\nhydra: {sweeper: {custom_search_space: trap.net}}"},
        {"trial.yaml": "defaults: [config, _self_]\nhydra: {sweeper: {params: {+hydra.callbacks: a}}}"},
        {"trial.yaml": "SAVED", "hydra/config.yaml": CALLS},
        {"trial.yaml": "SAVED", "schema.yaml": f"hydra: {{{CALLS}}}"},
        {"trial.yaml": "SAVED", "brought-by-saved/freezing/optimizer/saved_saved.yaml": CALLS},
    ],
    ids=lambda files: " and ".join(files.values())[:60],
)
def test_nothing_beside_a_saved_run_is_taken(best: list[str], tmp_path: Path, files: dict[str, str]) -> None:
    """A defaults list, or a file beside it in place of ours, may bring any code: only with --trust."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(saved.to_yaml(RUN) if text == "SAVED" else f"{text}\n")
    with pytest.raises(BadInput, match=r"may run any code; .*add --trust"), saved.saved_run(best):
        pass
    with saved.saved_run(best, trust=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("typed", [["seed=1"], ["model=cnn"]])
def test_a_defaults_list_imports_nothing_either(best: list[str], trap: Path, typed: list[str]) -> None:
    """Whatever option was typed: a config of a folder with such a list has the last word on its values."""
    (trap.parent / "trial.yaml").write_text(
        "defaults: [config, _self_]\nmodel: {source: custom, name: custom, target: trap.net}\n"
    )
    refused = sweeper(trap.parent, *best, *typed, code=2)
    assert "model.target=trap.net: a saved run names it (trial.yaml)" in refused
    assert not trap.exists()


def test_a_resumed_search_imports_nothing_that_is_saved(trap: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The best model of a study whose folder is anybody's is not tested; that of an own search is."""
    best = StudyFiles(trap.parent / "study").best
    best.folder.mkdir(parents=True)
    best.mark()
    shutil.copy(trap.parent / "trial.yaml", best.config)
    best.result.write_text(json.dumps({"val_accuracy": 1}))
    best.weights.write_bytes(b"")
    with saved.saved_run([]):
        try_best(trap.parent / "study")
    assert not trap.exists()
    assert "alone names its network, trap.net; add --trust" in caplog.text


def test_own_configs_may_do_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the folder conf of the working folder is the person's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "own.yaml").write_text(f"defaults: [config, _self_]\nhydra: {{{CALLS}}}\n")
    with saved.saved_run(["--config-dir", "conf", "--config-name", "own"]):
        pass
