"""Freezing: what is frozen stays to the last bit, what trains changes, each stage from its epoch on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sweeper.schema import Dataset, Freezing, Model, Optimizer, Run, Scheduler, Training
from sweeper.training import model as models
from sweeper.training.data import Data, load
from sweeper.training.fit import build_model, fit
from sweeper.training.freeze import Stage, begin_epoch, find_stages, first_epoch, plan
from sweeper.training.optim import build_optimizer, lr_in
from tests.device import CPU

SMALL = Model(filters=[4, 6, 8], hidden_units=[16], batch_norm=True, dropout=0.5)
RESNET = Model(source="torchvision", name="resnet18")


@pytest.fixture(scope="module")
def few() -> Data:
    """200 digits of 16 pixels."""
    digits = load(Dataset(image_size=16), CPU)
    return replace(digits, train_x=digits.train_x[:200], train_y=digits.train_y[:200])


def network(settings: Model = SMALL) -> nn.Module:
    torch.manual_seed(0)
    return models.build(settings, 1, 16, 10)


def names(stages: Sequence[Stage]) -> list[str]:
    return [stage.name for stage in stages]


# --------------------------------------------------------------------------------------------- stages


STAGES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": [
        "features.conv0",
        "features.denseblock1",
        "features.transition1 … denseblock2",
        "features.transition2 … denseblock3",
        "features.transition3 … denseblock4",
    ],
    "mobilenet_v3_small": [
        "features.0",
        "features.1",
        "features.2 … 3",
        "features.4 … 8",
        "features.9 … classifier",
    ],
    "efficientnet_b0": ["features.0 … 1", "features.2", "features.3", "features.4 … 5", "features.6 … 8"],
    "convnext_tiny": ["features.0 … 1", "features.2 … 3", "features.4 … 5", "features.6 … 7"],
    "swin_t": ["features.0 … 1", "features.2 … 3", "features.4 … 5", "features.6 … 7"],
    "vgg11": ["features.0", "features.3", "features.6 … 8", "features.11 … 13", "features.16 … classifier"],
    "vit_b_32": ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in range(1, 5))],
    "shufflenet_v2_x0_5": ["conv1", "stage2", "stage3", "stage4 … conv5"],
    "maxvit_t": ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3 … classifier"],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_each_family(name: str) -> None:
    """A stage is what works at one resolution, in a transformer each block; the head is the last."""
    model = models.outline(Model(source="torchvision", name=name), 3, 224, 7)
    assert names(find_stages(model)) == [*STAGES[name], "head"]


@pytest.mark.parametrize("settings", [SMALL, RESNET, replace(RESNET, name="vit_b_32")])
def test_each_parameter_is_in_one_stage(settings: Model) -> None:
    """No parameter is forgotten, and none is trained twice; a class token goes in with the image."""
    model = models.outline(settings, 3, 32, 7)
    stages = find_stages(model)
    found = [id(parameter) for stage in stages for parameter in stage.parameters]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    if settings.name == "vit_b_32":
        assert any(p is model.get_parameter("body.class_token") for p in stages[0].parameters)


def test_stages_of_the_small_network() -> None:
    """A stage for each halving of the side; fully connected layers belong to the last."""
    assert names(find_stages(network())) == ["features.0", "features.4", "features.8 … hidden", "head"]


def test_looking_for_stages_changes_nothing() -> None:
    """Neither the weights and statistics nor the mode of any layer, nor what is drawn next."""
    model = network(replace(RESNET, dropout=0.3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    find_stages(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Freezing("none"), [1, 1, 1, 1]),
        (Freezing("full"), [1, 1, 1, 1]),
        (Freezing("head"), [None, None, None, 1]),
        (Freezing("last_block"), [None, None, 1, 1]),
        (Freezing("gradual", every=1), [4, 3, 2, 1]),
        (Freezing("gradual", every=3), [10, 7, 4, 1]),
    ],
)
def test_each_stage_has_its_first_epoch(settings: Freezing, expected: list[int | None]) -> None:
    """Gradual: the head first, then one stage more every ``every`` epochs, from the last backwards."""
    assert [first_epoch(settings, distance) for distance in (3, 2, 1, 0)] == expected
    assert [stage.first_epoch for stage in plan(settings, network(), by_stage=True)] == expected


# ------------------------------------------------------------------------------------- while training


def pretrained(tmp_path: Path, settings: Model) -> Model:
    """The settings with weights of a file, whose batch norm has statistics of its own."""
    model = network(settings)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            tensor.uniform_(*((0.5, 1.5) if "var" in name else (-0.1, 0.1)))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return replace(settings, weights=str(tmp_path / "weights.pt"))


def changed(model: nn.Module, path: str | None) -> dict[str, bool]:
    """Which tensors, statistics included, are not what they were to the last bit."""
    before: dict[str, Tensor] = torch.load(str(path), weights_only=True)
    return {name: not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()}


def fitted(few: Data, model: Model, freezing: Freezing, epochs: int) -> nn.Module:
    training = Training(epochs=epochs, batch_size=50, n_threads=1)
    training.early_stopping.patience = None
    run = Run(device="cpu", model=model, freezing=freezing, training=training)
    run.optimizer = Optimizer(name="adam", lr=1e-2, weight_decay=0.1, stage_lr_decay=0.9)
    return fit(run, few).model


@pytest.mark.parametrize("settings", [SMALL, RESNET])
@pytest.mark.parametrize(
    ("freezing", "epochs", "n_trained"),
    [
        (Freezing("head"), 1, 1),
        (Freezing("last_block"), 1, 2),
        (Freezing("gradual", every=2), 2, 1),
        (Freezing("full"), 1, None),
    ],
)
def test_what_is_frozen_stays_and_the_rest_trains(
    few: Data, tmp_path: Path, settings: Model, freezing: Freezing, epochs: int, n_trained: int | None
) -> None:
    """Frozen weights and batch norm's statistics are bit-equal to the file; all that trains has changed."""
    model = pretrained(tmp_path, settings)
    result = fitted(few, model, freezing, epochs)
    differs = changed(result, model.weights)
    stages = find_stages(result)
    trained = stages if n_trained is None else stages[-n_trained:]
    trains = {id(parameter) for stage in trained for parameter in stage.parameters}
    owners = dict(result.named_modules())
    for name, tensor in result.named_parameters():
        assert differs[name] == (id(tensor) in trains), name
    for name, _ in result.named_buffers():
        owner = owners[name.rpartition(".")[0]]
        assert differs[name] == any(id(p) in trains for p in owner.parameters()), name


def test_gradual_trains_a_stage_more_with_time(few: Data, tmp_path: Path) -> None:
    """With ``every=1`` the stages follow one another, and the head alone trains in the first epoch."""
    model = pretrained(tmp_path, replace(SMALL, dropout=0.0))
    for epochs, n_trained in ((1, 1), (2, 2), (3, 3), (4, 4)):
        training = Training(epochs=epochs, batch_size=50, n_threads=1)
        training.early_stopping.patience = None
        run = Run(device="cpu", model=model, freezing=Freezing("gradual", every=1), training=training)
        run.optimizer = Optimizer(name="adam", lr=3e-3)
        result = fit(run, few)
        assert result.best_epoch == epochs, "what is looked at must be the last epoch's weights"
        differs = changed(result.model, model.weights)
        first_weights = ["features.0.weight", "features.4.weight", "features.8.weight", "head.weight"]
        assert [differs[name] for name in reversed(first_weights)] == [
            i < n_trained for i in range(len(first_weights))
        ]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimizer_takes_in_what_unfreezes(few: Data, name: str) -> None:
    """Stages that unfreeze one after another, with momentum, each change from their epoch on."""
    model = network()
    stages = plan(Freezing("gradual", every=1), model)
    momentum = 0.9 if name in ("sgd", "rmsprop") else None
    optimizer = build_optimizer(Optimizer(name=name, lr=1e-3, momentum=momentum), stages)
    images = few.train_x[:20].float()
    for number in range(1, 7):
        begin_epoch(model, stages, number)
        before = [stage.parameters[0].detach().clone() for stage in stages]
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            model(images).logsumexp(1).sum().backward()
            optimizer.step()
        differs = [
            not torch.equal(old, stage.parameters[0]) for old, stage in zip(before, stages, strict=True)
        ]
        assert differs == [stage.trains_in(number) for stage in stages]


def test_frozen_dropout_is_off() -> None:
    """A frozen body answers the same every time; one that trains does not."""
    model, images = network(), torch.rand(4, 1, 16, 16)
    for freezing, is_same in ((Freezing("head"), True), (Freezing("full"), False)):
        begin_epoch(model, plan(freezing, model), 1)
        assert torch.equal(model(images), model(images)) == is_same


def test_dropout_of_the_head_stays_on() -> None:
    """Feature extraction trains the head with dropout, whatever is frozen before it."""
    model = network(replace(RESNET, dropout=0.5))
    begin_epoch(model, plan(Freezing("head"), model), 1)
    assert [m.training for m in model.get_submodule("head").modules()] == [True, True, True]
    assert not any(module.training for module in model.get_submodule("body").modules())


def test_from_scratch_means_random_weights(few: Data, tmp_path: Path) -> None:
    """``none`` begins with random weights, so that a search can compare it with the others."""
    model = pretrained(tmp_path, SMALL)
    for freezing, is_random in ((Freezing("none"), True), (Freezing("full"), False)):
        run = Run(seed=5, device="cpu", model=model, freezing=freezing)
        torch.manual_seed(run.seed)
        differs = changed(build_model(run, few), model.weights)
        assert differs["features.0.weight"] == is_random


# ------------------------------------------------------------------------------------ learning rates

# lr 0.01, the head ten times that, each stage half the next one's; the rate falls to a tenth after 2 epochs,
# and a stage unfreezes every epoch. Rows: epochs; columns: from the image to the head; 0: frozen.
TABLE = [
    [0, 0, 0, 0.1],
    [0, 0, 0.01, 0.1],
    [0, 0.0005, 0.001, 0.01],
    [0.00025, 0.0005, 0.001, 0.01],
    [0.000025, 0.00005, 0.0001, 0.001],
]


def test_learning_rate_of_each_stage_in_each_epoch() -> None:
    """A step of plain SGD on a gradient of 1 moves each weight by its rate in the table, or not at all.

    So the groups fall together, and a stage that unfreezes joins the schedule where it stands.
    """
    model = network()
    stages = plan(Freezing("gradual", every=1), model, by_stage=True)
    settings = Optimizer(lr=0.01, head_lr_factor=10, stage_lr_decay=0.5)
    run = Run(optimizer=settings, scheduler=Scheduler(name="step", step_size=2, gamma=0.1))
    optimizer = build_optimizer(settings, stages)
    for number, rates in enumerate(TABLE, start=1):
        begin_epoch(model, stages, number)
        for group in optimizer.param_groups:
            group["lr"] = lr_in(number, group["peak_lr"], run, n_reductions=0)
        before = [[p.detach().clone() for p in stage.parameters] for stage in stages]
        optimizer.zero_grad(set_to_none=True)
        torch.stack([p.sum() for p in model.parameters()]).sum().backward()
        optimizer.step()
        for stage, old, rate in zip(stages, before, rates, strict=True):
            for parameter, was in zip(stage.parameters, old, strict=True):
                torch.testing.assert_close(was - parameter, torch.full_like(was, rate), rtol=0.01, atol=1e-7)
