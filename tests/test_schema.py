"""The keys of a run: limits, what needs what, what has no effect, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from sweeper import schema
from sweeper.errors import BadInput

RunWith = Callable[..., schema.Run]


@pytest.mark.parametrize("margin", ["0.9", "2.1", "nan"])
def test_a_margin_has_limits(run_with: RunWith, margin: str) -> None:
    """Images are never kept smaller than they are seen, nor more than twice as large."""
    expected = r"dataset\.margin=.*: must be between 1 and 2; write for example dataset\.margin=1\.143"
    with pytest.raises(BadInput, match=expected):
        run_with(f"dataset.margin={margin}")


def test_every_limit_belongs_to_a_key() -> None:
    """No limit is on a misspelt key."""
    keys = {key for key, _ in schema.flatten(schema.Run())}
    assert set(schema.LIMITS) <= keys


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("scheduler.gamma=1",), "scheduler.gamma=1.0 has no effect with scheduler=none: only step has it"),
        (("freezing.every=3",), "freezing.every=3 has no effect with freezing=none: only gradual has it"),
        (("freezing=full",), "freezing=full begins with random weights: model.weights is null"),
        (
            ("dataset.margin=1.5",),
            "dataset.margin=1.5 has no effect with dataset.image_size=null: digits then keeps its own size",
        ),
        (("scheduler.warmup_epochs=4",), "the warm-up of 4 epochs never ends"),
        ((), None),
        (("dataset.margin=1.5", "dataset.image_size=32"), None),
        (("dataset=image_folder", "dataset.path=.", "dataset.margin=2", "dataset.image_size=null"), None),
        (("scheduler=step", "scheduler.step_size=1", "scheduler.warmup_epochs=1"), None),
    ],
)
def test_what_has_no_effect_is_told(run_with: RunWith, overrides: tuple[str, ...], told: str | None) -> None:
    """A key that nothing reads is not refused, as searches cross options, but neither ignored silently."""
    assert schema.without_effect(run_with("training.epochs=2", *overrides)) == ([told] if told else [])


def test_the_direction_follows_from_the_objective() -> None:
    """Accuracy is maximised, loss and cost are minimised; several objectives have several directions."""
    assert schema.direction("val_accuracy") == "maximize"
    assert schema.direction("val_loss") == "minimize"
    assert schema.direction(["val_accuracy", "seconds"]) == ["maximize", "minimize"]
    assert schema.direction(["val_auroc", "val_calibration_error"]) == ["maximize", "minimize"]


def asking(metric: str) -> list[tuple[str, schema.Run]]:
    """Runs that ask for a metric, each by another key, and how it is written there."""
    stopping = schema.EarlyStopping(monitor=f"val_{metric}")
    return [
        (f"objective=val_{metric}", schema.Run(objective=f"val_{metric}")),
        (f"objective=val_{metric}", schema.Run(objective=["val_loss", f"val_{metric}"])),
        (
            f"training.early_stopping.monitor=val_{metric}",
            schema.Run(training=schema.Training(early_stopping=stopping)),
        ),
        (f"training.metrics={metric}", schema.Run(training=schema.Training(metrics=[metric, metric]))),
    ]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("metric", schema.METRICS)
def test_what_is_named_anywhere_is_measured(metric: str, multi_label: bool) -> None:
    """Once, whether listed, monitored or an objective, or refused where it is not for such labels."""
    suits = {"f1": multi_label, "accuracy": not multi_label, "top5_accuracy": not multi_label}
    for written, run in asking(metric):
        if multi_label:
            run.loss = schema.Loss("bce_with_logits")
            run.objective = run.objective if written.startswith("objective") else "val_loss"
        if suits.get(metric, True):
            schema.check_task(run, 10, multi_label)
            assert schema.metrics(run, multi_label).count(metric) == 1
        else:
            with pytest.raises(BadInput, match=rf"^{written}: is not measured where images have "):
                schema.check_task(run, 10, multi_label)


def test_five_of_five_classes_are_always_right() -> None:
    """So top5_accuracy is refused with its number of classes, and not offered."""
    for written, run in asking("top5_accuracy"):
        with pytest.raises(
            BadInput, match=rf"^{written}: needs more than 5 classes, and there are 5; "
        ) as told:
            schema.check_task(run, 5, False)
        assert "top5" not in told.value.remedy
        schema.check_task(run, 6, False)


def test_what_decides_must_be_defined_on_the_validation_images() -> None:
    """An objective or what is monitored is refused in a line; what is only listed is left out later."""
    for written, run in asking("auroc"):
        schema.check_defined(run, [3, 0, 1], 4, False)
        if written.startswith("training.metrics"):
            schema.check_defined(run, [4, 0, 0], 4, False)
            continue
        line = rf"^{written}: is undefined on the validation images: all are of one class; write val_loss, "
        with pytest.raises(BadInput, match=line):
            schema.check_defined(run, [4, 0, 0], 4, False)


def test_the_defaults_are_a_run() -> None:
    """None is out of its own limits, and none is without effect."""
    run = schema.Run(study="x")
    schema.validate(run)
    assert schema.without_effect(run) == []


@pytest.mark.parametrize("weights", [[1, 2], [1, 2, 0], [1, 2, inf], [1, 2, True], ["a", 1, 2], "heavy", 3])
def test_weights_are_one_for_each_class(weights: object) -> None:
    """A number above 0 for each class, or the word that gives them."""
    with pytest.raises(
        BadInput, match=r"^loss\.class_weights=.* each of the 3 classes, at most .*; write balanced"
    ):
        schema.check_weights("class_weights", weights, 3)
    for good in (None, "balanced", [1, 0.5, 2]):
        schema.check_weights("class_weights", good, 3)


def test_flatten_gives_dotted_keys_in_order() -> None:
    """As a person writes them, nested ones too."""
    keys = [key for key, _ in schema.flatten(schema.Run())]
    assert keys[:3] == ["study", "seed", "device"]
    assert "training.early_stopping.patience" in keys
    assert len(set(keys)) == len(keys)
