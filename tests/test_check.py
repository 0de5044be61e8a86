"""What can be said before anything starts: keys, device, data, network and direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from sweeper import schema
from sweeper.check import (
    Found,
    _cnn_sizes,
    check,
    check_direction,
    check_memory,
    inspect,
    refuse_unread,
    to_run,
)
from sweeper.errors import BadInput
from sweeper.training.model import build
from tests.pictures import write_classes


def pets(folder: Path, **changed: Any) -> schema.Run:
    """A run on 6 cats and 9 dogs."""
    path = write_classes(folder / "pets", {"cat": 6, "dog": 9})
    dataset = schema.Dataset(name="image_folder", path=str(path), image_size=8)
    return schema.Run(study="x", device="cpu", dataset=dataset, **changed)


def test_a_config_becomes_dataclasses_with_all_defaults() -> None:
    """What is not named has its default, and Hydra's own part is its affair."""
    run = to_run({"study": "x", "optimizer": {"lr": 1}, "hydra": {"job": 1}})
    assert run == schema.Run(study="x", optimizer=schema.Optimizer(lr=1.0))
    assert isinstance(run.optimizer.lr, float)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"optimizer": {"lrr": 1}}, r"^optimizer\.lrr=1: there is no such key"),
        ({"training": {"epochs": "many"}}, r"^training\.epochs=.*could not be converted to Integer"),
        ({"training": {"epochs": 0}}, r"^training\.epochs=0: must be at least 1"),
        ({"study": "../up"}, r"^study=\.\./up: the name of a study is a folder"),
    ],
)
def test_what_is_no_run_is_refused(config: dict[str, Any], line: str) -> None:
    """A misspelt key, another type, a value out of its limits, a name that is no folder."""
    with pytest.raises(BadInput, match=line):
        to_run({"study": "x", **config})


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"optimizer": {"beta1": 0.9}},
            r"^optimizer\.beta1=0\.9: there is no such key, nothing reads it; ",
        ),
        ({"training": {"epoch": 1}}, r"^training\.epoch=1: .*; did you mean training\.epochs\?$"),
        ({"optimiser": "adam"}, r"^optimiser=adam: .*; did you mean optimizer\?$"),
        ({"whatever": 1}, r"^whatever=1: .*; leave it out; --cfg job"),
        ({"whatever": None}, r"^whatever=null: "),
        ({"whatever": {}}, r"^whatever=\{\}: "),
        ({"from_scratch": True}, r"^from_scratch=True: "),
        ({"a": 1, "b": "${a}"}, r"^b=\$\{a\}: "),
        ({"now": 1, "hydra": {"run": {"dir": "${now:%Y}"}}}, r"^now=1: "),
        ({"size": 1, "hydra": {"run": {"dir": "size"}}}, r"^size=1: "),
        ({"size": 1, "model": {"init": "${.size}"}}, r"^size=1: "),
        ({"hydra": {"foo": 1}}, r"^hydra\.foo=1: "),
        ({"hydra": {"run": {"folder": 1}}}, r"^hydra\.run\.folder=1: "),
    ],
    ids=str,
)
def test_a_key_that_nothing_reads_is_refused(config: dict[str, Any], line: str) -> None:
    """Wherever it comes from: the line names the nearest key, where there is one."""
    with pytest.raises(BadInput, match=line):
        refuse_unread({"study": "x", **config})
    with pytest.raises(BadInput, match=line):
        refuse_unread(OmegaConf.create({"study": "x", **config}))


@pytest.mark.parametrize(
    "config",
    [
        {"size": 8, "dataset": {"image_size": "${size}"}},
        {"size": 8, "dataset": {"image_size": "${oc.select:size,4}"}},
        {"size": {"small": 8}, "dataset": {"image_size": "${size.small}"}},
        {"size": {"small": 8}, "dataset": {"image_size": "${size[small]}"}},
        {"sizes": {"s": 8}, "which": "s", "dataset": {"image_size": "${sizes.${which}}"}},
        {"size": {"a": {"b": 8}}, "optimizer": {"lr": "${size.a}"}},
        {"model": {"width": 8, "filters": ["${model.width}", "${..width}"]}},
        {"model": {"width": 8, "filters": ["${..width}"]}},
        {"dataset": {"side": 8, "image_size": "${.side}"}},
        {"name": "a", "hydra": {"run": {"dir": "outputs/${name}"}}},
        {"top": 1, "hydra": {"sweeper": {"params": {"optimizer.lr": "interval(0, ${top})"}}}},
        {"one": 1, "study": "${f:${one},2}"},
    ],
    ids=str,
)
def test_a_key_that_an_interpolation_uses_is_read(config: dict[str, Any]) -> None:
    """From the root, from its neighbours, through another, as a resolver's argument; in Hydra's part too."""
    refuse_unread({"study": "x", **config})
    refuse_unread(OmegaConf.create({"study": "x", **config}))


@pytest.mark.parametrize(
    ("model", "training", "line"),
    [
        ({"filters": [65536] * 64}, {}, r"^model\.filters=.* GiB of memory, and this machine has"),
        ({"hidden_units": [65536] * 64}, {}, r"^model\.hidden_units=.* GiB of memory"),
        (
            {"filters": [4096], "hidden_units": []},
            {"batch_size": 2**20},
            r"^training\.batch_size=1048576: .* GiB of memory",
        ),
    ],
)
def test_what_cannot_fit_into_memory_is_refused_by_a_count(
    model: dict[str, Any], training: dict[str, Any], line: str
) -> None:
    """A network or a batch larger than the machine's memory: nothing of it is ever allocated."""
    run = schema.Run(
        study="x",
        device="cpu",
        model=schema.Model(**{"filters": [16], **model}),
        training=schema.Training(**training),
    )
    found = Found("many", 10**6, 1, 1, 10, False, 3, 64)
    check_memory(schema.Run(study="x", device="cpu"), found)
    with pytest.raises(BadInput, match=line):
        check_memory(run, found)


def test_the_count_of_a_network_is_its_number_of_weights() -> None:
    """What is counted before it is built is what the network then has."""
    model = schema.Model(filters=[4, 8, 8, 8], kernel_size=5, hidden_units=[16, 3])
    sizes, _ = _cnn_sizes(model, Found("digits", 1, 1, 1, 10, False, 1, 8))
    assert sum(sizes.values()) == sum(p.numel() for p in build(model, 1, 8, 10).parameters())


def test_a_dataset_is_counted_and_trains_nothing(tmp_path: Path) -> None:
    """The sizes of its parts, its classes, and what the network will see."""
    found = inspect(pets(tmp_path))
    assert (found.name, found.n_classes, found.multi_label) == ("image_folder", 2, False)
    assert found.n_train + found.n_val + found.n_test == 15
    assert min(found.n_train, found.n_val, found.n_test) >= 2
    assert (found.channels, found.side) == (3, 8)


def test_loss_and_network_must_suit_the_data(tmp_path: Path) -> None:
    """A loss for several labels, and weights that are not there, are refused after a look at the data."""
    run = pets(tmp_path)
    with pytest.raises(BadInput, match=r"^loss=bce_with_logits: the images have one label each"):
        inspect(schema.Run(**{**vars(run), "loss": schema.Loss(name="bce_with_logits")}))
    with pytest.raises(BadInput, match=r"^model\.weights=.*no\.pt: there is no such file"):
        inspect(schema.Run(**{**vars(run), "model": schema.Model(weights=str(tmp_path / "no.pt"))}))


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        ("val_accuracy", "minimize"),
        ("val_loss", "maximize"),
        (["val_loss", "seconds"], ["minimize", "maximize"]),
    ],
)
def test_a_direction_that_is_not_the_objectives_is_refused(objective: Any, direction: Any) -> None:
    """It follows from the objective, and saying the opposite is a mistake."""
    run = schema.Run(study="x", objective=objective)
    config = OmegaConf.create({"hydra": {"sweeper": {"direction": direction}}})
    with pytest.raises(BadInput, match=r"^hydra\.sweeper\.direction=.*leave it out"):
        check_direction(run, config)
    config.hydra.sweeper.direction = schema.direction(objective)
    check_direction(run, config)


def test_a_whole_config_is_checked(tmp_path: Path) -> None:
    """Keys, direction and data of one composed config, as a search hands it in."""
    run = OmegaConf.structured(pets(tmp_path))
    names = {"job": {"name": "app"}, "output_subdir": None, "sweep": {"subdir": "${hydra.job.num}"}}
    hydra = {"sweeper": {"direction": "maximize"}, **names}
    config = OmegaConf.merge({"hydra": hydra}, OmegaConf.to_container(run))
    assert isinstance(config, DictConfig)
    check(config)
    config.dataset.path = str(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"^dataset\.path=.*nowhere: there is no such folder"):
        check(config)
