"""The main job, end to end: a search over real images, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState
from safetensors.torch import load_file

from sweeper import filesystem, run, schema
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.record.run_files import RunFiles
from tests.journal import best_of, load_study
from tests.pictures import write_classes
from tests.program import IN_PROCESS, sweeper


@pytest.fixture(scope="module")
def study(searched: Path) -> optuna.Study:
    """The searched study, opened by plain Optuna."""
    return load_study(searched, "digits")


def test_the_default_search_finds_a_good_model(study: optuna.Study) -> None:
    """40 trials over the default ranges reach 97 % validation accuracy, and bad ones are pruned."""
    states = [trial.state for trial in study.trials]
    assert len(states) == 40
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_value >= 0.97


def test_the_default_search_draws_from_the_documented_ranges(study: optuna.Study) -> None:
    """Learning rate, weight decay, batch size and dropout for all; momentum where there is one."""
    for trial in study.trials:
        params = dict(trial.params)
        assert params.pop("optimizer") in ("adam", "sgd")
        assert 1e-4 <= params.pop("optimizer.lr") <= 1e-2
        assert 1e-4 <= params.pop("optimizer.weight_decay") <= 1e-2
        assert params.pop("training.batch_size") in (16, 32, 64, 128)
        assert 0.3 <= params.pop("model.dropout") <= 0.5
        if trial.params["optimizer"] == "sgd":
            assert 0.8 <= params.pop("optimizer.momentum") <= 0.99
        assert params == {}


def test_each_trial_leaves_its_config_history_and_result(searched: Path, study: optuna.Study) -> None:
    """Every trial's folder has the complete config, one row an epoch as reported, and the result."""
    for trial in study.trials:
        folder = searched / "outputs" / "digits" / str(trial.number)
        assert trial.user_attrs["folder"] == str(folder)
        history = RunFiles(folder).read_history()
        assert {int(row["epoch"]): row["val_accuracy"] for row in history} == trial.intermediate_values
        config = yaml.safe_load((folder / "trial.yaml").read_text())
        assert config["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert config["training"]["batch_size"] == trial.params["training.batch_size"]
        result = json.loads((folder / "result.json").read_text())
        assert result["trial"] == trial.number
        assert result["epochs"] == len(history)
        assert trial.user_attrs["val_accuracy"] == result["val_accuracy"]
        assert {"seconds", "peak_memory_mb", "images_per_second"} <= trial.user_attrs.keys()
        assert (folder / ".hydra" / "config.yaml").exists()


def test_the_best_model_is_kept_and_tested_once(searched: Path, study: optuna.Study) -> None:
    """``best/`` holds the best trial's files and the test accuracy of that model; no other has weights."""
    folder = searched / "outputs" / "digits"
    result = json.loads((folder / "best" / "result.json").read_text())
    assert result["trial"] == best_of(study).number
    assert result["val_accuracy"] == study.best_value
    assert 0.9 < result["test_accuracy"] <= 1
    tested = [path for path in folder.glob("*/result.json") if "test_accuracy" in path.read_text()]
    assert tested == [folder / "best" / "result.json"]
    scores = result["per_class"]
    assert [list(scores[part]) for part in ("val", "test")] == [[str(i) for i in range(10)]] * 2
    rows = scores["test"].values()
    mean = sum(row["recall"] * row["n_images"] for row in rows) / sum(row["n_images"] for row in rows)
    assert mean == pytest.approx(result["test_accuracy"])
    weights = load_file(folder / "best" / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert {path.parent.name for path in folder.glob("*/weights.safetensors")} == {
        "best",
        str(best_of(study).number),
    }


def test_the_summary_file_names_the_best_trial(searched: Path, study: optuna.Study) -> None:
    """``optimization_results.yaml`` has the best trial's number, value and parameters, and the counts."""
    summary = yaml.safe_load((searched / "outputs" / "digits" / "optimization_results.yaml").read_text())
    assert summary["best_trial"] == best_of(study).number
    assert summary["best_value"] == study.best_value
    assert summary["best_params"] == study.best_params
    assert sum(summary["trials"].values()) == 40


def test_the_overrides_of_a_trial_give_its_config(searched: Path, study: optuna.Study) -> None:
    """The override list that is kept with a trial composes the config it ran with."""
    trial = best_of(study)
    composed = yaml.safe_load(sweeper(searched, *trial.user_attrs["overrides"], "--cfg", "job"))
    ran = yaml.safe_load(
        (searched / "outputs" / "digits" / str(trial.number) / ".hydra" / "config.yaml").read_text()
    )
    assert composed == ran


@pytest.mark.slow
def test_several_objectives_are_searched_without_a_pruner(tmp_path: Path) -> None:
    """Accuracy and seconds together: a front of solutions, and each direction follows from its objective."""
    shown = sweeper(
        *(tmp_path, "-m", "objective=[val_accuracy,seconds]", "hydra/sweeper/pruner=none", "study=front"),
        *("hydra.sweeper.n_trials=3", "training.epochs=2", "optimizer=adam"),
        *IN_PROCESS,
    )
    assert "val_accuracy" in shown
    assert "seconds" in shown
    summary = yaml.safe_load((tmp_path / "outputs" / "front" / "optimization_results.yaml").read_text())
    assert summary["solutions"]
    assert all(len(solution["values"]) == 2 for solution in summary["solutions"])
    assert "Best trial: number" in sweeper(tmp_path, "best", "front")


@pytest.mark.slow
def test_a_diverging_trial_is_pruned_and_marked(tmp_path: Path) -> None:
    """An infinite loss ends the trial as PRUNED and diverged, and the search goes on."""
    sweeper(
        *(
            tmp_path,
            "-m",
            "study=wild",
            "optimizer.lr=1e30,1e-3",
            "hydra/sweeper/sampler=grid",
            "training.epochs=2",
        ),
        *("optimizer.weight_decay=0", "training.batch_size=32", "model.dropout=0.5", "optimizer=adam"),
        *("hydra/sweeper/pruner=none", *IN_PROCESS),
    )
    trials = load_study(tmp_path, "wild").trials
    by_lr = {trial.params["optimizer.lr"]: trial for trial in trials}
    assert by_lr[1e30].state == TrialState.PRUNED
    assert by_lr[1e30].user_attrs["diverged"] is True
    assert by_lr[1e-3].state == TrialState.COMPLETE


@pytest.mark.slow
def test_80_trials_do_not_grow_the_worker(tmp_path: Path) -> None:
    """After each trial the memory is back where it was, though networks, batches and optimizers change."""
    search = [
        "-m",
        "optimizer=adam,sgd,rmsprop",
        "model.filters=choice([4],[8,8])",
        "hydra/sweeper/sampler=random",
    ]
    settings = ["training.epochs=1", "training.n_threads=1", "hydra/sweeper/pruner=none", "study=grow"]
    sweeper(tmp_path, *search, *settings, "hydra.sweeper.n_trials=80", "hydra.sweeper.n_jobs=1")
    folder = tmp_path / "outputs" / "grow"
    peak_mb = [filesystem.read_json(RunFiles(folder / str(n)).result)["peak_memory_mb"] for n in range(80)]
    assert peak_mb[0] > 100  # of the one process that ran them all
    assert peak_mb[-1] - peak_mb[20] < 0.02 * peak_mb[20]


METRICS = ("balanced_accuracy", "macro_f1", "auroc", "mean_average_precision")
NAMED = (f"training.metrics=[{','.join(METRICS)}]", "training.early_stopping.monitor=val_cohen_kappa")
QUICK = ("optimizer=adam", "optimizer.lr=0.01", "training.epochs=2", "training.n_threads=1")


@pytest.mark.slow
def test_named_metrics_are_everywhere(tmp_path: Path) -> None:
    """What is listed, monitored or the objective has a column in the history, its values in the result, with
    scores for each class, and is reproduced to the last bit.
    """
    sweeper(tmp_path, *QUICK, *NAMED, "objective=val_calibration_error", "study=one")
    files = RunFiles(tmp_path / "outputs" / "one")
    result, rows = files.read_result(), files.read_history()
    names = {"loss", "accuracy", *METRICS, "cohen_kappa", "calibration_error"}
    assert {column for column in rows[0] if column.startswith("val_")} == {f"val_{name}" for name in names}
    parts = {name for name in result if name.startswith(("val_", "test_"))}
    assert parts == {f"{part}_{name}" for part in ("val", "test") for name in names}
    kappas = [row["val_cohen_kappa"] for row in rows]
    assert result["best_epoch"] == kappas.index(max(kappas)) + 1
    for part in ("val", "test"):
        scores = result["per_class"][part].values()
        assert 350 < sum(score["n_images"] for score in scores) < 370
        for name, score in (("macro_f1", "f1"), ("balanced_accuracy", "recall")):
            mean = sum(row[score] for row in scores) / 10
            assert mean == pytest.approx(result[f"{part}_{name}"], abs=1e-6)
    assert "identical: 2 epochs" in sweeper(tmp_path, "reproduce", "outputs/one")


@pytest.mark.slow
def test_a_search_for_a_metric(tmp_path: Path) -> None:
    """Its direction follows, and trials are pruned and told by it; one that is minimised, too."""
    for metric, direction in (("auroc", "MAXIMIZE"), ("calibration_error", "MINIMIZE")):
        asked = (f"objective=val_{metric}", "hydra.sweeper.n_trials=3", f"study={metric}")
        printed = sweeper(tmp_path, "-m", *QUICK, "optimizer.lr=0.01,0.001", *asked)
        study = load_study(tmp_path, metric)
        assert study.direction.name == direction
        assert study.metric_names == [f"val_{metric}"]
        assert study.best_trial.user_attrs[f"val_{metric}"] == study.best_value
        assert "per_class" not in study.best_trial.user_attrs
        assert f"Test {metric.replace('_', ' ')} of the best trial: " in printed


def of_cats_and_dogs(folder: Path) -> Path:
    """A table of cats or dogs in train, and of both on each image in the other parts."""
    write_classes(folder, {"pets": 24})
    parts = ["train", "val", "test", "train"] * 6
    has = [(1, 1) if part != "train" else (n % 4 // 3, 1 - n % 4 // 3) for n, part in enumerate(parts)]
    rows = [f"pets/{n}.png,{cat},{dog},{parts[n]}" for n, (cat, dog) in enumerate(has)]
    (folder / "pets.csv").write_text("\n".join(["path,cat,dog,split", *rows, ""]))
    return folder / "pets.csv"


@pytest.mark.slow
def test_what_is_undefined_is_said_in_a_line(tmp_path: Path) -> None:
    """Where all validation images have the same labels: a metric that is only listed is left out, and the run
    goes on; one that decides is refused before anything starts, in a run and in a search.
    """
    table = of_cats_and_dogs(tmp_path)
    data = ("dataset=csv", f"dataset.path={table}", "dataset.image_size=8", "loss=bce_with_logits")
    printed = sweeper(tmp_path, *data, *QUICK, "training.metrics=[auroc,macro_f1]", "study=one")
    why = "each label is on all or none of them"
    for part in ("val", "test"):
        line = f"{part}_auroc is left out: it is undefined on these 6 images: {why}"
        assert printed.count(line) == 1
    assert "val_macro_f1" in RunFiles(tmp_path / "outputs" / "one").read_history()[0]
    assert "auroc" not in RunFiles(tmp_path / "outputs" / "one").result.read_text()
    for how in ((), ("-m",)):
        refused = sweeper(tmp_path, *how, *data, *QUICK, "objective=val_auroc", "study=two", code=2)
        line = f"objective=val_auroc: is undefined on the validation images: {why}; write val_loss"
        assert refused.startswith(line)
        assert not (tmp_path / "outputs" / "two").exists()


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[..., DictConfig]]:
    """``composed(*overrides)``: what our own conf/ gives with them, before anything has checked it."""
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE):
        yield lambda *overrides: compose("config", list(overrides))


@pytest.mark.parametrize(
    ("asks", "is_needed"),
    [
        ((), False),
        (("objective=val_loss", "training.metrics=[accuracy]"), False),
        (("objective=[val_accuracy,val_auroc]",), True),
        (("training.early_stopping.monitor=val_macro_f1",), True),
        (("training.metrics=[cohen_kappa]",), True),
        (("loss=bce_with_logits", "objective=val_loss"), True),
    ],
)
def test_workers_share_the_library_of_metrics(
    composed: Callable[..., DictConfig], asks: tuple[str, ...], is_needed: bool
) -> None:
    """It is imported before they are forked, where a metric of it is named anywhere."""
    modules = run.preload(composed(*asks))
    assert set(run.PRELOAD) <= set(modules)
    assert (schema.METRIC_LIBRARY in modules) == is_needed


def test_metrics_that_are_searched_are_imported_before_the_workers() -> None:
    """A sweep among them stands in the command alone; each worker would import their library by itself."""
    command = OmegaConf.create({"hydra": {"overrides": {"task": ["training.metrics=[auroc],[macro_f1]"]}}})
    assert schema.METRIC_LIBRARY in run.preload(command)
    assert schema.METRIC_LIBRARY not in run.preload(OmegaConf.create({"objective": "val_accuracy"}))
