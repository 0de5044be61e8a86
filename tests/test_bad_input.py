"""What a person may type for each key, and what is said of it before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.sweeper_optuna.plugin import _PRUNERS, _SAMPLERS, Settings
from sweeper import check, schema
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.errors import BadInput, bad_override
from sweeper.search.keys import ARGUMENTS, KEYS
from sweeper.search.sampler import try_out
from sweeper.search.settings import find_function, read_settings
from sweeper.search.space import Space
from sweeper.search.storage import open_storage
from sweeper.search.template import Template
from tests.program import run

LONG = "x" * 5000
HUGE = "1" + "0" * 300

VALUES = {
    "wrong type": "[a,{b:1}]",
    "negative": "-1",
    "zero": "0",
    "nan": "nan",
    "inf": "inf",
    "minus inf": "-inf",
    "huge": HUGE,
    "huge float": "1e300",
    "empty": "''",
    "null": "null",
    "unicode": "'ключ😀'",
    "control characters": "'a\u0007\u202e\nb'",
    "very long": LONG,
}


def _keys(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key of a dataclass with the type that it is declared with."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", str(item.type)


RUN_KEYS = dict(_keys(schema.Run()))
SEARCH_KEYS = {key: "" for key in KEYS if key not in ("sampler", "pruner", "search_space")}

OPTIONS: dict[str, list[str]] = {}
"""Each argument of a sampler or a pruner, with an option that has it."""
for _kind, _table in (("sampler", _SAMPLERS), ("pruner", _PRUNERS)):
    for _option, _node in _table.items():
        for _name in _node:
            if _name in ARGUMENTS and _option not in ("motpe", "grid"):
                OPTIONS.setdefault(f"hydra.sweeper.{_kind}.{_name}", [f"hydra/sweeper/{_kind}={_option}"])
for _name, _other, _end in (("lower", "upper", 9), ("upper", "lower", -9)):  # one of them must be there
    OPTIONS[f"hydra.sweeper.pruner.{_name}"].append(f"hydra.sweeper.pruner.{_other}={_end}")

QUICK = ("wrong type", "nan", "empty")
"""The kinds that every run of the tests tries, on all keys; the others are slow."""

CASES = [
    pytest.param(
        *(key, kind, f"{key}={value}"),
        id=f"{key}-{kind}",
        marks=[] if kind in QUICK else pytest.mark.slow,
    )
    for key in [*RUN_KEYS, *(f"hydra.sweeper.{name}" for name in SEARCH_KEYS), *OPTIONS]
    for kind, value in VALUES.items()
]


def _accepted() -> dict[str, set[str]]:
    """What is right to be accepted, and why."""
    accepted: dict[str, set[str]] = {}

    def may(keys: str, *kinds: str) -> None:
        for key in keys.split():
            accepted.setdefault(key, set()).update(kinds)

    # 0 is a number like others, or means none.
    may("seed dataset.split_seed dataset.test_fraction model.dropout optimizer.momentum", "zero")
    may("optimizer.weight_decay scheduler.patience scheduler.eta_min scheduler.warmup_epochs", "zero")
    may("loss.label_smoothing training.feature_views training.early_stopping.min_delta", "zero")
    for name in ("rotation_deg", "hflip", "vflip", "brightness", "contrast", "saturation", "hue", "erasing"):
        may(f"augmentation.{name}", "zero")
    for name in ("timeout_s", "max_retries", "storage_wait_s", "max_failure_rate", "seed"):
        may(f"hydra.sweeper.{name}", "zero")
    for name in ("n_startup_trials", "seed", "mutation_prob", "crossover_prob", "swapping_prob"):
        may(f"hydra.sweeper.sampler.{name}", "zero")
    for name in ("n_startup_trials", "n_warmup_steps", "bootstrap_count", "min_early_stopping_rate"):
        may(f"hydra.sweeper.pruner.{name}", "zero")
    may("hydra.sweeper.pruner.percentile hydra.sweeper.pruner.patience", "zero")
    may("hydra.sweeper.pruner.min_delta", "zero")
    # Scores may be below 0, and so may the thresholds for them.
    may("hydra.sweeper.pruner.lower hydra.sweeper.pruner.upper", "zero", "negative", "null")
    # null is what the key says it may be: none, no limit, or found out.
    may("dataset.path dataset.image_size model.weights optimizer.momentum scheduler.step_size", "null")
    may("scheduler.t_max freezing.every loss.class_weights loss.pos_weight", "null")
    may("training.micro_batch_size training.n_threads training.early_stopping.patience", "null")
    for name in ("metric_names", "study_name", "storage", "n_trials", "timeout_s", "seed", "params"):
        may(f"hydra.sweeper.{name}", "null")
    may("hydra.sweeper.custom_search_space", "null")
    # Where it is Optuna's own default.
    for name in (
        "consider_prior",
        "consider_magic_clip",
        "consider_endpoints",
        "prior_weight",
        "multivariate",
    ):
        may(f"hydra.sweeper.sampler.{name}", "null")
    for name in ("warn_independent_sampling", "seed", "sigma0", "popsize", "mutation_prob"):
        may(f"hydra.sweeper.sampler.{name}", "null")
    # A text that looks like a number is a name like others, and so is one in other letters.
    names = ("zero", "nan", "inf", "huge float", "unicode")
    may("study hydra.sweeper.study_name", *names)  # none that begins as an option does
    texts = (*names, "negative", "minus inf")
    may("hydra.sweeper.storage", *texts)
    may("hydra.sweeper.artifacts", *texts, "null")
    may("hydra.sweeper.metric_names", "unicode")
    # Of datasets that have no such folder.
    may("dataset.path dataset.root", *texts)
    for name in ("path_column", "label_column", "split_column", "folder", "suffix", "label_separator"):
        may(f"dataset.{name}", *texts, "null")
    may("dataset.group dataset.n_folds model.target model.head", "null")
    may("dataset.fold", "zero")
    # Of networks that are none of one's own.
    may("model.target model.head", *texts)
    # Every number but 0 is true for Hydra, as for Python.
    switches = [key for key, kind in RUN_KEYS.items() if kind == "bool"]
    may(" ".join([*switches, "hydra.sweeper.take_over", "hydra.sweeper.join"]), "zero", "negative", "huge")
    may("hydra.sweeper.in_process", "zero")  # 1 needs n_jobs=1
    return accepted


ACCEPTED = _accepted()


class Composed:
    """Our config, composed once; an override is applied to a copy of it as Hydra does to the original."""

    def __init__(self, *options: str) -> None:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        self.loader = hydra.config_loader
        self.config = {
            mode: Template(hydra.compose_config("config", list(options), mode, with_log_configuration=False))
            for mode in (RunMode.RUN, RunMode.MULTIRUN)
        }
        self.space = Space(self.config[RunMode.MULTIRUN].copy(), [], self.loader)

    def with_override(self, override: str, mode: RunMode) -> DictConfig:
        config = self.config[mode].copy()
        parsed = OverridesParser.create(self.loader).parse_overrides([override])
        ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
        return config


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[..., Composed]]:
    """``composed(*options)``: our config with these options."""
    made: dict[tuple[str, ...], Composed] = {}
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE):

        def compose(*options: str) -> Composed:
            if options not in made:
                made[options] = Composed(*options)
            return made[options]

        yield compose


def answer(base: Composed, override: str) -> str | None:
    """What is said to whoever types it, in a single run and in a search; None if it is accepted."""
    is_of_search = override.startswith(("hydra.sweeper.", "hydra.sweep.dir="))
    try:
        config = base.with_override(override, RunMode.MULTIRUN if is_of_search else RunMode.RUN)
        if is_of_search:
            search, *_ = read_settings(dict(config.hydra.sweeper.items()), config)
            if search.custom_search_space is not None:
                find_function("hydra.sweeper.custom_search_space", search.custom_search_space)
            try_out(search.sampler, search.pruner, search.seed, search.directions, base.space)
        else:
            check.before_run(config)
            check.check(config)
    except BadInput as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:  # as `composing` does
        return str(bad_override(error, [override]))
    return None


def assert_answers(said: str | None, key: str) -> None:
    """Three lines of 300 characters at most that name key and remedy."""
    assert said is not None, "it was accepted"
    assert len(said) <= 300
    assert said.isprintable(), said
    assert said.startswith(f"{key}="), said
    assert "; " in said


@pytest.mark.parametrize(("key", "kind", "override"), CASES)
def test_every_key_refuses_what_it_cannot_be(
    composed: Callable[..., Composed], key: str, kind: str, override: str
) -> None:
    """One short line that names the key, before anything starts; or the value is listed as right."""
    said = answer(composed(*OPTIONS.get(key, [])), override)
    if kind in ACCEPTED.get(key, ()):
        assert said is None, said
    else:
        assert_answers(said, key)


def test_every_key_has_limits() -> None:
    """No number and no text of a run is without them, nor is a key of the search."""
    types = {key: kind for key, kind in RUN_KEYS.items() if kind not in ("bool", "Any")}
    # The name has a check of its own, as the metrics have; arguments are those of somebody's function.
    assert types.keys() - schema.LIMITS.keys() == {"study", "training.metrics", "model.arguments"}
    settings = {item.name for item in fields(Settings)} - {"_target_", "_recursive_", "defaults"}
    assert settings == KEYS.keys()


OTHERS = [
    "device=cpu:7",
    "hydra.job.name=a/b",
    "hydra.output_subdir=../x",
    "hydra.output_subdir=/etc",
    "hydra.sweep.subdir=x",
    "hydra.sweeper.metric_names=[val_accuracy,val_accuracy]",
    "hydra.sweeper.storage=sqlite://",
    "hydra.sweeper.storage=sqlite:///:memory:",
    "hydra.sweeper.storage='sqlite:///file:x?mode=memory'",
    "hydra.sweeper.storage='postgresql:ann:hunter2@host/db'",
    "hydra.sweep.dir=",
    "hydra.sweep.dir=' '",
]


@pytest.mark.parametrize("override", OTHERS)
def test_what_only_seems_right_is_refused(composed: Callable[..., Composed], override: str) -> None:
    """Of the right type, and known to Hydra, torch or SQLAlchemy: it would not do what was meant."""
    key = override.partition("=")[0]
    options = ["objective=[val_accuracy,seconds]"] if "metric" in key else []
    assert_answers(answer(composed(*options), override), key)


@pytest.mark.parametrize("url", ["grpc://", "grpc://:1", "grpc://localhost:99999", "grpc://localhost:x"])
def test_a_server_that_cannot_be_is_not_waited_for(url: str) -> None:
    """Without a host, or with a port that no machine has."""
    with pytest.raises(BadInput, match=r"^hydra\.sweeper\.storage=grpc://"):
        open_storage(url)


def test_a_rung_above_the_last_step_is_refused(composed: Callable[..., Composed]) -> None:
    """Optuna would never prune, and say nothing."""
    options = ("hydra.sweeper.max_resource=5",)
    assert_answers(
        answer(composed(*options), "hydra.sweeper.pruner.min_resource=10"),
        "hydra.sweeper.pruner.min_resource",
    )


COMMANDS = [
    "training.n_threads=100000",
    "-m model.filters=[1000000000]",
    "dataset.split_seed=-1",
    "model.weights=/etc/passwd",
    "-m hydra.sweeper.pruner.max_resource=0",
    "-m hydra.sweeper.pruner.reduction_factor=nan",
    "-m hydra.sweeper.pruner.bootstrap_count=-1",
    "-m hydra.sweeper.sampler.n_startup_trials=-1",
    "-m hydra.sweeper.sampler.n_ei_candidates=0",
    "-m hydra/sweeper/sampler=null",
    "-m hydra.sweeper.sampler=null",
    f"-m study={LONG}",
    f"study={LONG}",
    "optimizer.lr=1e300",
    "-m optimizer.lr=interval(1,1e300)",
    "-m hydra.sweeper.timeout_s=nan",
    "hydra.sweeper.n_trials=many",
    "+optimizer.beta1=0.9",
    "-m +whatever=1,2",
    f"hydra.run.dir={LONG}",
    "describe ++training.epoch=1",
    "optimiser=adam",
    "hydra.verbose=5",
    "-m hydra/job_logging=null",
    "-m optimizer=[adam,sgd]",
    "optimizer=../model/cnn",
    "-m hydra/sweeper/sampler=[tpe,random]",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=[command[:40] for command in COMMANDS])
def test_the_command_refuses_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    """Exit code 2, three short lines at most, and not even a folder, for each kind of bad input."""
    done = run(tmp_path, "-m", "sweeper", *command.split(), limit_s=120)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert 0 < len(lines) <= 3
    assert all(len(line) <= 300 for line in lines)
    assert list(tmp_path.iterdir()) == []
