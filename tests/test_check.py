"""What can be said before anything starts: keys, device, data, network and direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from sweeper import schema
from sweeper.check import check, check_direction, inspect, to_run
from sweeper.errors import BadInput
from tests.pictures import write_classes


def pets(folder: Path, **changed: Any) -> schema.Run:
    """A run on 6 cats and 9 dogs."""
    path = write_classes(folder / "pets", {"cat": 6, "dog": 9})
    dataset = schema.Dataset(name="image_folder", path=str(path), image_size=8)
    return schema.Run(study="x", device="cpu", dataset=dataset, **changed)


def test_a_config_becomes_dataclasses_with_all_defaults() -> None:
    """What is not named has its default, and what is no key of a run is Hydra's or the app's affair."""
    run = to_run({"study": "x", "optimizer": {"lr": 1}, "hydra": {"job": 1}})
    assert run == schema.Run(study="x", optimizer=schema.Optimizer(lr=1.0))
    assert isinstance(run.optimizer.lr, float)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"optimizer": {"lrr": 1}}, r"^optimizer\.lrr=: there is no such key"),
        ({"training": {"epochs": "many"}}, r"^training\.epochs=.*could not be converted to Integer"),
        ({"training": {"epochs": 0}}, r"^training\.epochs=0: must be at least 1"),
        ({"study": "../up"}, r"^study=\.\./up: the name of a study is a folder"),
    ],
)
def test_what_is_no_run_is_refused(config: dict[str, Any], line: str) -> None:
    """A misspelt key, another type, a value out of its limits, a name that is no folder."""
    with pytest.raises(BadInput, match=line):
        to_run({"study": "x", **config})


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
    config = OmegaConf.merge({"hydra": {"sweeper": {"direction": "maximize"}}}, OmegaConf.to_container(run))
    assert isinstance(config, DictConfig)
    check(config)
    config.dataset.path = str(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"^dataset\.path=.*nowhere: there is no such folder"):
        check(config)
