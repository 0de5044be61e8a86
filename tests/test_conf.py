"""conf/: every file composes, and means what its name says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose

from sweeper import schema
from sweeper.conf import conf_folder
from sweeper.training import loss, optim, readers
from tests.program import run

RunWith = Callable[..., schema.Run]

pytestmark = pytest.mark.usefixtures("run_with")

GROUPS = ("model", "dataset", "optimizer", "scheduler", "augmentation", "freezing", "loss", "experiment")
OPTIONS = [
    (group, path.stem) for group in GROUPS for path in sorted(Path(conf_folder(), group).glob("*.yaml"))
]


# What an option needs to be told before it can be trained.
NEEDS = {
    "image_folder": "dataset.path=.",
    "csv": "dataset.path=x.csv",
    "transfer": "dataset.path=.",
    "custom": "model.target=nets.net",
}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(run_with: RunWith, group: str, option: str) -> None:
    """Each file of each group gives a config that can be trained, and its name is the option's."""
    run = run_with(f"{group}={option}", *([NEEDS[option]] if option in NEEDS else []))
    if group == "model" and option in ("torchvision", "timm"):
        assert run.model.source == option
    elif group != "experiment":
        assert getattr(run, group).name == option


def test_every_experiment_begins_with_its_command() -> None:
    """Below the package, which Hydra wants first, stands what a person copies; then what it is."""
    for path in Path(conf_folder(), "experiment").glob("*.yaml"):
        package, command, what, *_ = path.read_text().splitlines()
        assert package == "# @package _global_"
        assert command.startswith(f"# sweeper -m experiment={path.stem}")
        assert what.startswith("# ")


LR, DECAY, BATCH = "optimizer.lr", "optimizer.weight_decay", "training.batch_size"
WAYS = ("head", "last_block", "gradual", "full")
PRETRAINED = "tag(log, interval(1e-6, 1e-4))"
RANGES = [
    ("", LR, "tag(log, interval(1e-4, 1e-2))"),
    ("freezing=head", LR, "tag(log, interval(1e-4, 1e-3))"),
    ("freezing=last_block", LR, "tag(log, interval(1e-5, 1e-3))"),
    ("freezing=gradual", LR, "tag(log, interval(1e-6, 1e-5))"),
    ("freezing=full", LR, "tag(log, interval(1e-6, 1e-5))"),
    ("optimizer=sgd", "optimizer.momentum", "interval(0.8, 0.99)"),
    ("optimizer=rmsprop", "optimizer.momentum", "interval(0.8, 0.99)"),
    ("", DECAY, "tag(log, interval(1e-4, 1e-2))"),
    *((f"freezing={option}", DECAY, PRETRAINED) for option in WAYS),
    ("", BATCH, "choice(16, 32, 64, 128)"),
    *(
        (f"freezing={option}", BATCH, "choice(16, 32, 64)")
        for option in ("head", "last_block", "gradual", "full")
    ),
    ("model=cnn", "model.dropout", "interval(0.3, 0.5)"),
    ("model=resnet18", "model.dropout", "interval(0.3, 0.5)"),
    ("experiment=cnn", "model.filters", "choice([6,16], [16,32], [16,32,64], [32,64,128])"),
    ("experiment=cnn", "model.kernel_size", "choice(3, 5, 7)"),
    ("experiment=cnn", "model.activation", "choice(relu, leaky_relu)"),
    ("experiment=cnn", "model.init", "choice(default, xavier_uniform, kaiming_uniform)"),
    ("experiment=cnn", "optimizer", "choice(sgd, adam, rmsprop)"),
    ("experiment=transfer", "freezing", "choice(head, last_block, gradual, full)"),
]


@pytest.mark.parametrize(("option", "key", "expected"), RANGES)
def test_the_documented_range_stands_with_its_option(option: str, key: str, expected: str) -> None:
    """What a search draws is what the guides say, for each option."""
    config = compose("config", [option] if option else [], return_hydra_config=True)
    assert config.hydra.sweeper.params[key] == expected


@pytest.mark.parametrize(
    ("option", "body", "head"),
    [
        ("head", None, (1e-4, 1e-3)),
        ("last_block", (1e-5, 1e-3), (1e-4, 1e-2)),
        ("gradual", (1e-6, 1e-5), (1e-4, 1e-3)),
        ("full", (1e-6, 1e-5), (1e-4, 1e-3)),
    ],
)
def test_body_and_head_learn_in_the_documented_ranges(
    option: str, body: tuple[float, float] | None, head: tuple[float, float]
) -> None:
    """The body stays in the span of 1e-6 … 1e-3, and the head learns by the factor that an option brings."""
    config = compose("config", [f"freezing={option}"], return_hydra_config=True)
    ends = [float(x) for x in re.findall(r"1e-\d", config.hydra.sweeper.params[LR])]
    assert [end * config.optimizer.head_lr_factor for end in ends] == pytest.approx(head)
    assert body is None or ends == list(body)
    assert ends[0] <= config.optimizer.lr <= ends[1]


def test_defaults_are_those_of_the_guides(run_with: RunWith) -> None:
    """Learning rate, momentum, batch size, dropout, kernel and filters before anybody tunes."""
    run = run_with()
    assert (run.optimizer.name, run.optimizer.lr, run.optimizer.momentum) == ("sgd", 1e-3, 0.9)
    assert (run.training.batch_size, run.model.dropout, run.model.kernel_size) == (32, 0.5, 3)
    assert (run.model.activation, run.model.init) == ("relu", "default")
    plateau = run_with("scheduler=plateau").scheduler
    assert (plateau.factor, plateau.patience) == (0.1, 3)


def test_transfer_leaves_momentum_alone() -> None:
    """Its guide gives momentum one value: 0.9 with sgd, none with the others."""
    for option, momentum in (("sgd", 0.9), ("adamw", None)):
        overrides = ["experiment=transfer", f"optimizer={option}"]
        config = compose("config", overrides, return_hydra_config=True)
        assert config.hydra.sweeper.params["optimizer.momentum"] == momentum


def test_transfer_prepares_images_as_the_weights_want_them(run_with: RunWith) -> None:
    """Scaled to 256, of which 224 are seen, and normalised as ImageNet's."""
    dataset = run_with("experiment=transfer", "dataset.path=.").dataset
    assert dataset.image_size == 224
    assert round(dataset.image_size * dataset.margin) == 256
    assert dataset.normalization == "imagenet"


def test_the_objective_of_several_labels_follows_the_loss() -> None:
    """With several labels an image there is no accuracy: the loss brings a metric, and its direction."""
    config = compose("config", ["loss=bce_with_logits"], return_hydra_config=True)
    assert config.objective == "val_mean_average_precision"
    assert config.hydra.sweeper.direction == "maximize"


def test_the_schema_and_the_files_agree_on_the_defaults(run_with: RunWith) -> None:
    """What a key is without any file is what config.yaml says; nobody finds two defaults."""
    composed, plain = run_with("study=x", "optimizer.momentum=null"), schema.Run(study="x")
    assert dict(schema.flatten(composed)) == dict(schema.flatten(plain))


def test_digits_are_never_flipped(run_with: RunWith) -> None:
    """A mirrored 2 is no 2: the light augmentation flips only where the dataset allows it."""
    run = run_with("augmentation=light")
    assert run.augmentation.hflip > 0
    assert not run.dataset.allow_hflip
    assert not run.dataset.allow_vflip


def test_what_may_be_named_is_what_is_there() -> None:
    """The names that validation admits are those of the registries and of the files."""
    admitted = {
        "dataset": set(readers.READERS),
        "optimizer": set(optim.OPTIMIZERS),
        "loss": set(loss.LOSSES),
    }
    for group, names in admitted.items():
        assert all(schema.LIMITS[f"{group}.name"].holds(name) for name in names)
    for group, option in OPTIONS:
        if group not in ("experiment", "model"):
            assert schema.LIMITS[f"{group}.name"].holds(option)
            assert option in admitted.get(group, {option})


def test_hyperband_knows_the_number_of_epochs() -> None:
    """Every process must prune by the same largest step."""
    config = compose("config", ["training.epochs=13"], return_hydra_config=True)
    assert config.hydra.sweeper.max_resource == 13


def test_what_only_some_options_read_belongs_to_keys_and_options() -> None:
    """The table of keys without effect names keys and options that there are."""
    keys = {key for key, _ in schema.flatten(schema.Run())}
    assert set(schema.USED_BY) <= keys
    assert set(schema.USED_BY.values()) <= set(OPTIONS)


def test_the_installed_package_brings_its_config_files(tmp_path: Path) -> None:
    """A wheel has all of conf/, and composes from it, away from any checkout."""
    pytest.importorskip("hatchling")
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site)
    done = run(tmp_path, *install, conf_folder().parent, limit_s=120)
    assert done.returncode == 0, done.stderr

    environment = {"PYTHONPATH": str(site)}
    where = "import sweeper.conf, hydra_plugins.sweeper_optuna as plugin; "
    where += "print(sweeper.conf.conf_folder(), plugin.__file__, sep='\\n')"
    done = run(tmp_path, "-c", where, env=environment)
    packaged, plugin = map(Path, done.stdout.splitlines())
    assert packaged.is_relative_to(site)
    assert plugin.is_relative_to(site)
    files = [
        {path.relative_to(conf): path.read_bytes() for path in conf.rglob("*.yaml")}
        for conf in (packaged, conf_folder())
    ]
    assert files[0] == files[1] != {}
    composed = run(tmp_path, "-m", "sweeper", "--cfg", "job", "optimizer=rmsprop", env=environment)
    assert composed.returncode == 0, composed.stderr
    assert "name: rmsprop" in composed.stdout
