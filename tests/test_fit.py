"""Training: what it learns, when it stops, and that it can be repeated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sweeper.errors import BadInput
from sweeper.schema import (
    Augmentation,
    Dataset,
    EarlyStopping,
    Freezing,
    Loss,
    Model,
    Optimizer,
    Run,
    Scheduler,
    Training,
)
from sweeper.training.augment import Augment
from sweeper.training.data import Data, load
from sweeper.training.fit import Epoch, Fitted, _Best, build_model, evaluate, fit
from sweeper.training.machine import resolve_device
from tests.device import CPU
from tests.program import run

LIGHT = Augmentation(name="light", rotation_deg=10, crop_scale=[0.8, 1.0], crop_ratio=[0.75, 1.3333])


@pytest.fixture(scope="module")
def digits() -> Data:
    return load(Dataset(), CPU)


@pytest.fixture(scope="module")
def few(digits: Data) -> Data:
    """300 training images: for tests of behaviour, not of learning."""
    return replace(digits, train_x=digits.train_x[:300], train_y=digits.train_y[:300])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make short tests slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(epochs: int = 2, **given: Any) -> Run:
    given = {"device": "cpu"} | given
    run = Run(optimizer=Optimizer(name="adam", lr=3e-3), **given)
    # As exact as the numbers that tests work out, on every machine.
    run.training = replace(run.training, epochs=epochs, precision="float32")
    return run


def measured(fitted: Fitted) -> list[dict[str, float]]:
    """The history without what depends on the clock and the process."""
    of_the_machine = ("seconds", "images_per_second", "peak_memory_mb")
    return [{k: v for k, v in asdict(epoch).items() if k not in of_the_machine} for epoch in fitted.history]


def test_learns_the_digits(digits: Data) -> None:
    """The default network tells the digits apart after a few epochs, on images that it has never seen."""
    fitted = fit(settings(epochs=10), digits)
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss / 2
    measured_on_test = evaluate(fitted.model, digits, "test")
    assert measured_on_test["accuracy"] > 0.93
    assert measured_on_test["loss"] < 0.3


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimizer_learns(few: Data, name: str) -> None:
    """Each optimizer brings the training loss down."""
    momentum = 0.9 if name == "sgd" else None
    run = settings(epochs=4, augmentation=LIGHT)
    run.optimizer = Optimizer(
        name=name, lr=0.05 if name == "sgd" else 3e-3, momentum=momentum, weight_decay=1e-4
    )
    history = fit(run, few).history
    assert history[-1].train_loss < history[0].train_loss - 0.2


REPEAT = """
import json
from sweeper.schema import Dataset
from sweeper.training.data import load
from sweeper.training.fit import fit
from tests.device import CPU
from tests.test_fit import measured, repeated_run
print(json.dumps(measured(fit(repeated_run(), load(Dataset(), CPU)))))
"""


def repeated_run() -> Run:
    run = settings(epochs=3, seed=7, augmentation=replace(LIGHT, hflip=0.5), model=Model(batch_norm=True))
    run.training.n_threads = 1
    return run


@pytest.mark.slow
def test_same_seed_same_history(digits: Data, few: Data) -> None:
    """A run repeats to the last bit, after five other runs in the process and in a new one."""
    first = measured(fit(repeated_run(), digits))
    for seed in range(5):
        fit(settings(epochs=1, seed=seed, augmentation=LIGHT), few)
    assert measured(fit(repeated_run(), digits)) == first
    fresh = run(Path(__file__).parents[1], "-c", REPEAT, limit_s=120)
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == first


def test_seed_decides(few: Data) -> None:
    """Another seed gives another history."""
    assert measured(fit(settings(seed=1), few)) != measured(fit(settings(seed=2), few))


def test_data_stays_as_it_was(few: Data) -> None:
    """Training with every augmentation leaves the shared images untouched."""
    before = few.train_x.clone()
    fit(settings(epochs=1, augmentation=LIGHT), few)
    assert torch.equal(few.train_x, before)


def test_every_epoch_is_told(few: Data) -> None:
    """``on_epoch`` gets each epoch once, in order, as it stands in the history."""
    told: list[Epoch] = []
    fitted = fit(settings(epochs=3), few, told.append)
    assert told == fitted.history
    assert [epoch.epoch for epoch in told] == [1, 2, 3]
    for epoch in told:
        assert 0 <= epoch.train_accuracy <= 1
        assert 0 <= epoch.val_accuracy <= 1
        assert epoch.images_per_second * epoch.seconds >= 300
        assert epoch.peak_memory_mb > 10


def test_exception_of_on_epoch_leaves(few: Data) -> None:
    """What ``on_epoch`` raises ends the training there: that is how a trial is pruned."""
    told: list[int] = []

    def stop(epoch: Epoch) -> None:
        told.append(epoch.epoch)
        if epoch.epoch == 2:
            raise LookupError("pruned")

    with pytest.raises(LookupError, match="pruned"):
        fit(settings(epochs=5), few, stop)
    assert told == [1, 2]


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_stops_early(few: Data, monitor: str) -> None:
    """After ``patience`` epochs without an improvement of ``min_delta`` the training ends."""
    run = settings(epochs=20)
    run.training.early_stopping = replace(
        run.training.early_stopping, monitor=monitor, patience=2, min_delta=100.0
    )
    fitted = fit(run, few)
    assert len(fitted.history) == 3
    assert fitted.stopped_early


def test_patience_null_never_stops(few: Data) -> None:
    """Without patience all epochs run."""
    run = settings(epochs=8)
    run.optimizer.lr = 1e-9
    run.training.early_stopping.patience = None
    fitted = fit(run, few)
    assert (len(fitted.history), fitted.stopped_early) == (8, False)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_best_weights_are_kept(few: Data, monitor: str) -> None:
    """The model has the weights, and the running statistics, of the best epoch, not of the last."""
    run = settings(epochs=8, model=Model(batch_norm=True))
    run.optimizer.lr = 0.02
    run.training.early_stopping = replace(run.training.early_stopping, monitor=monitor, patience=None)
    fitted = fit(run, few)
    best = fitted.history[fitted.best_epoch - 1]
    values = [getattr(epoch, monitor) for epoch in fitted.history]
    assert getattr(best, monitor) == (min(values) if monitor == "val_loss" else max(values))
    assert evaluate(fitted.model, few, "val") == {
        "loss": best.val_loss,
        "accuracy": best.val_accuracy,
    }


def test_networks_whose_state_is_more_than_tensors_keep_their_best_weights(few: Data) -> None:
    """MNASNet's loading wants a version beside the tensors; its best epoch is kept all the same."""
    fitted = fit(settings(epochs=1, model=Model(source="torchvision", name="mnasnet0_5")), few)
    assert evaluate(fitted.model, few, "val")["loss"] == fitted.history[0].val_loss


def test_divergence_is_told_and_ends_the_training(few: Data) -> None:
    """An epoch with a loss that is no number is reported as it is, and is the last."""
    run = settings(epochs=9)
    run.optimizer = Optimizer(name="sgd", lr=1e30)
    told: list[Epoch] = []
    fitted = fit(run, few, told.append)
    assert fitted.diverged
    assert told[-1].diverged
    assert len(fitted.history) == len(told) < 9
    assert fitted.best_epoch == 1


@pytest.mark.parametrize("n", [1, 33, 64, 65])
def test_all_images_train(few: Data, n: int) -> None:
    """A last batch that is smaller trains too, and one of a single image does not break batch norm."""
    data = replace(few, train_x=few.train_x[:n], train_y=few.train_y[:n])
    fitted = fit(settings(epochs=1, model=Model(batch_norm=True)), data)
    assert math.isfinite(fitted.history[0].train_loss)


def test_each_image_trains_once_an_epoch(few: Data) -> None:
    """Whatever the batch size: the gradient of an epoch of tiny steps is that of all images together."""
    whole = way(few, optimizer=Optimizer(name="sgd", lr=1e-4))
    run = settings(epochs=1, model=Model(dropout=0.0))
    run.optimizer, run.training.batch_size = Optimizer(name="sgd", lr=1e-4 / 4), 75
    torch.manual_seed(run.seed)
    first = dict(build_model(run, few).named_parameters())
    for name, parameter in fit(run, few).model.named_parameters():
        moved = parameter.detach() - first[name].detach()
        torch.testing.assert_close(moved, whole[name], rtol=0.02, atol=1e-6)


def test_batch_size_decides_the_number_of_steps(few: Data) -> None:
    """An epoch is a step for each batch: half the size is twice the way, while the gradient is the same."""
    moved = []
    for batch_size in (60, 30):
        run = settings(epochs=1, model=Model(dropout=0.0))
        run.training.batch_size = batch_size
        run.optimizer = Optimizer(name="sgd", lr=1e-5)
        torch.manual_seed(run.seed)
        first = torch.cat([p.detach().flatten() for p in build_model(run, few).parameters()])
        last = torch.cat([p.detach().flatten() for p in fit(run, few).model.parameters()])
        moved.append((last - first).norm().item())
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.02)


def test_rate_follows_the_schedule(few: Data) -> None:
    """Each epoch tells the rate that it trained with."""
    history = fit(settings(epochs=4, scheduler=Scheduler(name="step", step_size=2, gamma=0.1)), few).history
    assert [epoch.lr for epoch in history] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_plateau_listens_to_the_monitor(few: Data, monitor: str) -> None:
    """``plateau`` lowers the rate when the monitored quantity, and not the other, stands still."""
    run = settings(epochs=14, scheduler=Scheduler(name="plateau", factor=0.5, patience=0))
    run.optimizer.lr = 0.01
    run.training.early_stopping = replace(run.training.early_stopping, monitor=monitor, patience=None)
    history = fit(run, few).history
    expected = {name: expected_rates(history, name) for name in ("val_loss", "val_accuracy")}
    assert expected["val_loss"] != expected["val_accuracy"]
    assert [epoch.lr for epoch in history] == pytest.approx(expected[monitor])


def expected_rates(history: list[Epoch], monitor: str) -> list[float]:
    """0.01, halved after each epoch that is not better than the best by torch's ten-thousandth."""
    rates, best = [0.01], None
    for epoch in history[:-1]:
        value = getattr(epoch, monitor)
        if monitor == "val_loss":
            is_better = best is None or value < best * (1 - 1e-4)
        else:
            is_better = best is None or value > best * (1 + 1e-4)
        best = value if is_better else best
        rates.append(rates[-1] * (1 if is_better else 0.5))
    return rates


def way(few: Data, **given: Any) -> dict[str, torch.Tensor]:
    """How far each weight moves in one step of plain SGD, from the same start."""
    given = {"optimizer": Optimizer(name="sgd", lr=0.01), "model": Model(dropout=0.0)} | given
    run = replace(settings(epochs=1), **given)
    run.training.batch_size = 1000
    torch.manual_seed(run.seed)
    first = {name: p.detach().clone() for name, p in build_model(run, few).named_parameters()}
    return {name: p.detach() - first[name] for name, p in fit(run, few).model.named_parameters()}


def test_stage_lr_decay_slows_the_first_stages(few: Data) -> None:
    """Half the rate is half the way, for the stage before the last; the last goes as far as ever."""
    plain = way(few)
    decayed = way(few, optimizer=Optimizer(name="sgd", lr=0.01, stage_lr_decay=0.5, head_lr_factor=3))
    torch.testing.assert_close(decayed["features.0.weight"], plain["features.0.weight"] / 2)
    torch.testing.assert_close(decayed["features.3.weight"], plain["features.3.weight"])
    torch.testing.assert_close(decayed["head.weight"], plain["head.weight"] * 3)


def test_augmentation_is_used(few: Data) -> None:
    """Other images give other steps."""
    plain, turned = way(few), way(few, augmentation=Augmentation(rotation_deg=30))
    assert not torch.allclose(plain["head.weight"], turned["head.weight"])


@pytest.mark.parametrize("loss", [Loss(label_smoothing=0.3), Loss(class_weights=[5.0] + 9 * [1.0])])
def test_the_loss_that_was_asked_for_is_trained_on(few: Data, loss: Loss) -> None:
    """The loss of the first step is that of the settings, for the network as it was drawn."""
    run = settings(epochs=1, loss=loss, model=Model(dropout=0.0))
    run.training.batch_size = 1000
    torch.manual_seed(run.seed)
    model = build_model(run, few)
    images = Augment(Augmentation(), few).normalize(few.train_x)
    weight = None if loss.class_weights is None else torch.tensor(loss.class_weights)
    expected = cross_entropy(model(images), few.train_y, weight, label_smoothing=loss.label_smoothing)
    assert fit(run, few).history[0].train_loss == pytest.approx(expected.item(), rel=1e-4)


LOSSES = [3.0, 2.0, 2.5, 2.5, 1.0, 1.5, 1.4, 1.3]


@pytest.mark.parametrize(
    ("patience", "min_delta", "unfrozen_in", "n_epochs"),
    [
        (2, 0.0, [], 4),  # 2.5 and 2.5 are no better than 2
        (3, 0.0, [], 8),  # 1.0 comes in time; then 1.5, 1.4 and 1.3 do not beat it
        (4, 0.0, [], None),
        (3, 1.5, [], 4),  # 3 to 2 is too little, too: nothing counts after the first
        (2, 0.0, [4], 7),  # a stage unfreezes in epoch 4: the wait begins anew; 1.0 comes in time
    ],
)
def test_patience_begins_anew_with_each_improvement(
    patience: int, min_delta: float, unfrozen_in: list[int], n_epochs: int | None
) -> None:
    """Training ends after ``patience`` epochs that did not beat the best by more than ``min_delta``."""
    best = _Best(EarlyStopping(patience=patience, min_delta=min_delta), nn.Linear(1, 1))
    ended = None
    for number, loss in enumerate(LOSSES, start=1):
        measurements = {"seconds": 1.0, "images_per_second": 1.0, "peak_memory_mb": 1.0, "lr": 1.0}
        epoch = Epoch(epoch=number, train_loss=loss, val_loss=loss, val_accuracy=0.0, **measurements)
        best.see(epoch, unfreezing=number in unfrozen_in)
        if best.is_long_ago and ended is None:
            ended = number
    assert ended == n_epochs


def test_gradual_is_not_stopped_before_all_is_unfrozen(few: Data) -> None:
    """A network that does not improve is given all its stages before early stopping begins to wait."""
    run = settings(epochs=20, freezing=Freezing("gradual", every=4), model=Model(weights=None))
    run.optimizer = Optimizer(name="sgd", lr=1e-12)
    run.training.early_stopping = replace(run.training.early_stopping, patience=2, min_delta=1.0)
    assert len(fit(run, few).history) == 11  # the first stage trains from epoch 9


def test_one_image_a_batch_is_refused_where_batch_norm_learns_nothing(few: Data) -> None:
    """A line that names the batch size, not torch's traceback."""
    run = settings(epochs=1, model=Model(source="torchvision", name="resnet18"))
    run.training.batch_size = 1
    with pytest.raises(BadInput, match=r"training\.batch_size=1: batch norm .*; write 2 or more"):
        fit(run, few)


def test_bfloat16_learns(few: Data) -> None:
    """Forced bfloat16 trains on the CPU too, and differs from float32."""
    plain, short = settings(epochs=4), settings(epochs=4)
    short.training.precision = "bfloat16"
    exact, rounded = measured(fit(plain, few)), measured(fit(short, few))
    assert exact != rounded
    assert rounded[-1]["train_loss"] < rounded[0]["train_loss"]


def test_threads_are_given_back(few: Data) -> None:
    """A run computes with its number of threads, and leaves the process as it was."""
    run, seen = settings(epochs=1), []
    run.training.n_threads = 2
    fit(run, few, lambda epoch: seen.append(torch.get_num_threads()))
    assert seen == [2]
    assert torch.get_num_threads() == 1


def test_evaluate_is_plain_cross_entropy(digits: Data) -> None:
    """Evaluation is the mean over all images of the part, with the model as it predicts."""
    run = settings(epochs=1, loss=Loss(label_smoothing=0.3, class_weights="balanced"))
    fitted = fit(run, digits)
    images = (digits.test_x / 255 - digits.mean.view(1, -1, 1, 1)) / digits.std.view(1, -1, 1, 1)
    logits = fitted.model.eval()(images)
    tested = evaluate(fitted.model, digits)
    assert tested["loss"] == pytest.approx(cross_entropy(logits, digits.test_y).item(), rel=1e-4)
    assert tested["accuracy"] == pytest.approx((logits.argmax(1) == digits.test_y).float().mean().item())


def test_evaluate_of_nothing_is_nothing(few: Data) -> None:
    """Without a test part there is no test loss."""
    model = fit(settings(epochs=1), few).model
    assert evaluate(model, replace(few, test_y=few.test_y[:0])) == {}


@pytest.mark.parametrize("weights", [[1.0, 2.0], "blanced"])
def test_weights_must_suit_the_classes(few: Data, weights: Any) -> None:
    """A weight too few is refused with the number that there must be."""
    with pytest.raises(BadInput, match=r"loss\.class_weights=.*for each of the 10 classes"):
        fit(settings(loss=Loss(class_weights=weights)), few)


def test_device_by_name() -> None:
    """``cpu`` is always there, and ``auto`` is what the machine has."""
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gpu", "there is no such device"), ("cuda:99", "this machine has"), ("meta", "is not supported")],
)
def test_missing_device_is_refused(name: str, reason: str) -> None:
    """A device that this machine lacks is refused by its key."""
    with pytest.raises(BadInput, match=rf"device={name}: .*{reason}"):
        resolve_device(name)


@pytest.mark.slow
def test_compiled_model_learns_the_same(few: Data) -> None:
    """``training.compile`` changes the speed, not what is learned."""
    plain, compiled = (
        settings(epochs=2, model=Model(dropout=0.0)),
        settings(epochs=2, model=Model(dropout=0.0)),
    )
    compiled.training = Training(epochs=2, compile=True, precision="float32")
    histories = fit(plain, few).history, fit(compiled, few).history
    assert histories[1][-1].val_loss == pytest.approx(histories[0][-1].val_loss, rel=1e-3)


@pytest.mark.gpu
def test_gpu_repeats_and_learns() -> None:
    """On a GPU a run repeats to the last bit too, and learns as on the CPU."""
    device = resolve_device("cuda")
    data = load(Dataset(), device)
    run = settings(epochs=10, device="cuda", augmentation=LIGHT, model=Model(batch_norm=True))
    first, second = fit(run, data), fit(run, data)
    assert measured(first) == measured(second)
    assert evaluate(first.model, data)["accuracy"] > 0.9
