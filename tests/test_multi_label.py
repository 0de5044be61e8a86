"""Pictures with several labels each, end to end: a table of files, the loss for it, and metrics that fit."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import optuna
import pytest
from PIL import Image, ImageDraw

from sweeper.record.run_files import RunFiles
from tests.journal import load_study
from tests.program import sweeper

INKS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (60, 70, 240)}
CHANCES = {"red": 0.6, "green": 0.4, "blue": 0.2}
COMMON = ("dataset=csv", "dataset.path=pictures.csv", "dataset.image_size=16", "loss=bce_with_logits")
QUICK = ("optimizer=adam", "optimizer.lr=0.003", "training.epochs=6", "model.dropout=0.3")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 gray pictures with squares in up to three colours, and the table that says in which."""
    folder, rng = tmp_path_factory.mktemp("pictures"), random.Random(0)
    (folder / "images").mkdir()
    with (folder / "pictures.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", *INKS])
        for number in range(300):
            image = Image.new("RGB", (24, 24), (128, 128, 128))
            has = {name: rng.random() < chance for name, chance in CHANCES.items()}
            for name in [name for name in INKS if has[name]]:
                x, y = rng.randrange(18), rng.randrange(18)
                ImageDraw.Draw(image).rectangle((x, y, x + 6, y + 6), INKS[name])
            image.save(folder / "images" / f"{number}.png")
            table.writerow([f"images/{number}.png", *map(int, has.values())])
    return folder


@pytest.mark.slow
def test_a_run_learns_several_labels(pictures: Path) -> None:
    """One run says loss, mean average precision and F1 for each part, no accuracy, and finds the colours."""
    printed = sweeper(pictures, *COMMON, *QUICK, "loss.pos_weight=balanced", "study=one")
    folder = pictures / "outputs" / "one"
    result = json.loads(RunFiles(folder).result.read_text())
    assert {name for name in result if name.startswith(("val_", "test_"))} == {
        *("val_loss", "val_mean_average_precision", "val_f1"),
        *("test_loss", "test_mean_average_precision", "test_f1"),
    }
    assert result["test_mean_average_precision"] > 0.9
    assert result["test_f1"] > 0.7
    assert f"Test mean average precision: {result['test_mean_average_precision']:.4f}" in printed
    history = RunFiles(folder).read_history()
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert not any("accuracy" in column for column in history[0])
    scores = result["per_class"]["test"]
    assert list(scores) == list(INKS)
    precisions = [row["average_precision"] for row in scores.values()]
    assert sum(precisions) / 3 == pytest.approx(result["test_mean_average_precision"], abs=1e-6)


@pytest.mark.slow
def test_all_metrics_of_several_labels(pictures: Path) -> None:
    """Each by its name; macro_f1 is the f1 that is there anyway; top5_accuracy is refused."""
    names = ("macro_f1", "balanced_accuracy", "auroc", "cohen_kappa", "calibration_error")
    asked = (f"training.metrics=[{','.join(names)}]", "training.epochs=1", "study=metrics")
    sweeper(pictures, *COMMON, *QUICK[:2], *asked)
    folder = RunFiles(pictures / "outputs" / "metrics")
    (row,) = folder.read_history()
    assert {f"val_{name}" for name in names} <= row.keys()
    assert row["val_macro_f1"] == row["val_f1"]
    line = (
        "training.metrics=top5_accuracy: is not measured where images have several labels; write one of mean_"
    )
    assert sweeper(pictures, *COMMON, "training.metrics=[top5_accuracy]", code=2).startswith(line)


@pytest.mark.slow
def test_a_search_over_several_labels(pictures: Path) -> None:
    """The objective follows the loss, is maximised, and the best trial is reproduced to the last bit."""
    drawn = ("loss.pos_weight=null,balanced", "hydra.sweeper.n_trials=4", "training.epochs=2")
    printed = sweeper(pictures, "-m", *COMMON, *QUICK[:2], *drawn, "study=labels")
    study = load_study(pictures, "labels")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.metric_names == ["val_mean_average_precision"]
    assert study.best_trial.user_attrs["val_mean_average_precision"] == study.best_value
    assert "Test mean average precision of the best trial" in printed
    assert "identical: 2 epochs" in sweeper(pictures, "reproduce", "labels")


@pytest.mark.slow
def test_the_loss_must_suit_the_labels(pictures: Path) -> None:
    """Cross entropy, or accuracy, for several labels is refused in one line that says what to write."""
    printed = sweeper(pictures, *COMMON[:3], "study=no", code=2)
    assert printed.strip() == (
        "loss=cross_entropy: the images have several labels each; write loss=bce_with_logits"
    )
    printed = sweeper(pictures, "-m", *COMMON, "objective=val_accuracy", "study=no", code=2)
    assert printed.strip().startswith("objective=val_accuracy: is not measured where images have several")
    assert not (pictures / "outputs" / "no").exists()
