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
