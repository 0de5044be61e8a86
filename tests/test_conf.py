"""conf/: every file composes, and means what its name says."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from sweeper import schema
from sweeper.__main__ import conf_folder
from sweeper.run import to_run
from sweeper.training import model, optim

GROUPS = ("model", "dataset", "optimizer", "scheduler", "augmentation", "freezing", "loss", "experiment")
OPTIONS = [
    (group, path.stem) for group in GROUPS for path in sorted(Path(conf_folder(), group).glob("*.yaml"))
]


@pytest.fixture(scope="module", autouse=True)
def hydra_app():
    ConfigStore.instance().store(name="schema", node=schema.Run)
    OmegaConf.register_new_resolver("direction", schema.direction, replace=True)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def run_with(*overrides):
    return to_run(compose("config", list(overrides)))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group, option, tmp_path):
    """Each file of each group gives a config that can be trained, and its name is the option's."""
    where = [f"dataset.path={tmp_path}"] if option == "image_folder" else []
    run = run_with(f"{'+' if group == 'experiment' else ''}{group}={option}".lstrip("+"), *where)
    if group != "experiment":
        assert getattr(run, group).name == option


def test_every_experiment_begins_with_its_command():
    """Below the package, which Hydra wants first, stands what a person copies."""
    for path in Path(conf_folder(), "experiment").glob("*.yaml"):
        package, command, *_ = path.read_text().splitlines()
        assert package == "# @package _global_"
        assert command == f"# python -m sweeper -m experiment={path.stem}"


def test_the_schema_and_the_files_agree_on_the_defaults():
    """What a key is without any file is what config.yaml says; nobody finds two defaults."""
    composed, plain = run_with("study=x", "optimizer.momentum=null"), schema.Run(study="x")
    assert dict(schema.flatten(composed)) == dict(schema.flatten(plain))


def test_digits_are_never_flipped():
    """A mirrored 2 is no 2: the light augmentation flips only where the dataset allows it."""
    run = run_with("augmentation=light")
    assert run.augmentation.hflip > 0
    assert not run.dataset.allow_hflip
    assert not run.dataset.allow_vflip


def test_every_limit_belongs_to_a_key():
    """No limit and no unsupported key is misspelt."""
    keys = {key for key, _ in schema.flatten(schema.Run())}
    assert set(schema.LIMITS) <= keys
    assert set(schema.NOT_YET) <= keys


def test_what_may_be_named_is_what_is_there():
    """The names that validation admits are those of the registries and of the files."""
    admitted = {
        "model": set(model.registry),
        "optimizer": set(optim.OPTIMIZERS),
    }
    for group, names in admitted.items():
        assert all(schema.LIMITS[f"{group}.name"].holds(name) for name in names)
    for group, option in OPTIONS:
        if group != "experiment":
            assert schema.LIMITS[f"{group}.name"].holds(option)
            assert option in admitted.get(group, {option})


def test_hyperband_knows_the_number_of_epochs():
    """Every process must prune by the same largest step."""
    config = compose("config", ["training.epochs=13"], return_hydra_config=True)
    assert config.hydra.sweeper.pruner.max_resource == 13
