"""Where our config files are, and what they need of Hydra."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import BadInput, bad_folder, bad_option, bad_override, bad_setting, one_of, several_values
from sweeper.fault import find_told
from sweeper.secret import hide_secrets, remember_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_folder() -> Path:
    """``conf/``: within the installed package, or at the top of the checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


IS_HYDRA_1_3 = version("hydra-core").startswith("1.3.")  # not of the module: help imports no Hydra

VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
"""An argument of ``hydra.main`` and ``initialize``: Hydra 1.3 warns without it, Hydra 1.4 with it."""

_REPLACING: dict[str, Any] = {} if IS_HYDRA_1_3 else {"replace": True}
"""An argument of ``ConfigStore.store``: Hydra 1.3 always replaces, Hydra 1.4 warns unless it is told to."""


@contextmanager
def composing(
    overrides: Sequence[str], before_run: Callable[[DictConfig], object] = lambda config: None
) -> Iterator[None]:
    """Register our schema and resolvers with Hydra; what Hydra then refuses is bad input.

    Args:
        before_run: is given the config of a single run before Hydra makes its folder, and may refuse it; a
            search has its own checks.

    Raises:
        BadInput: naming the override that is to blame.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from sweeper import schema

    run: Any = OmegaConf.structured(schema.Run)
    OmegaConf.set_struct(run.model.arguments, False)  # whose keys are those of a person's function
    ConfigStore.instance().store(name="schema", node=run, **_REPLACING)
    register: Any = OmegaConf.register_new_resolver if IS_HYDRA_1_3 else OmegaConf.register_resolver
    register("direction", schema.direction, replace=True)
    for override in overrides:
        _refuse_mixture(override)
    try:
        with _before_runs(before_run):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        raise bad_override(error, overrides, _keys()) from error
    except Exception as error:
        if find_told(error) is not None:
            raise
        if (denied := bad_folder(error)) is not None:
            raise denied from error
        if isinstance(error, OSError):
            raise
        if (told := bad_option(error, overrides, _options) or bad_setting(error, overrides)) is None:
            raise
        raise told from error


def _refuse_mixture(override: str) -> None:
    """Raises BadInput for several options of a group at once, or one of another group: Hydra takes both."""
    key, _, value = override.partition("=")
    group, names = key.lstrip("+"), re.sub(r"[\[\]]", "", value)
    if value.startswith("[") and (options := _options(group)):
        reason = "takes one option at a time"
        if group.startswith("hydra/"):
            raise BadInput(group, value, reason, one_of(names, options))
        raise several_values(group, value, reason, f"{group}={names}", " to compare them")
    if ".." in value.split("/") and (options := _options(group)):
        raise BadInput(group, value, "there is no such option", one_of(value, options))


def _options(group: str) -> list[str]:
    """The options of a group: of ours, or of one that Hydra or a plugin has registered."""
    from hydra.core.config_store import ConfigStore

    ours = sorted(path.stem for path in conf_folder().joinpath(group).glob("*.yaml")) if group else []
    if ours or not group:
        return ours
    node: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        node = node.get(part, {}) if isinstance(node, dict) else {}
    return sorted(name.removesuffix(".yaml") for name in node if name.endswith(".yaml"))


def _keys() -> list[str]:
    """All that may stand before an equals sign: groups, sections, keys, and what the search has."""
    from sweeper import schema
    from sweeper.search.keys import ARGUMENTS, KEYS

    ours = [key for key, _ in schema.flatten(schema.Run())]
    groups = sorted(path.name for path in conf_folder().iterdir() if path.is_dir())
    hydras = ["hydra/sweeper", "hydra/sweeper/sampler", "hydra/sweeper/pruner", "hydra/launcher"]
    search = [f"hydra.sweeper.{key}" for key in KEYS]
    arguments = [f"hydra.sweeper.{kind}.{name}" for kind in ("sampler", "pruner") for name in ARGUMENTS]
    return [*groups, *ours, *hydras, "hydra.run.dir", "hydra.sweep.dir", *search, *arguments]


@contextmanager
def _before_runs(check: Callable[[DictConfig], object]) -> Iterator[None]:
    """Check each single run before Hydra makes its folder.

    A callback named in the config would do the same, but Hydra 1.4 warns of each that it finds there.
    """
    from hydra._internal.callbacks import Callbacks

    def on_run_start(self: Callbacks, config: DictConfig, **kwargs: Any) -> None:
        check(config)
        _forget_secrets(config)
        hydras(self, config, **kwargs)

    hydras = Callbacks.on_run_start
    Callbacks.on_run_start = on_run_start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Callbacks.on_run_start = hydras  # type: ignore[method-assign]


def _forget_secrets(config: DictConfig) -> None:
    """Hydra keeps what was typed in files that everybody may read; a single run uses no storage."""
    from omegaconf import OmegaConf, flag_override

    hydra_part = config.hydra
    storage = hydra_part.sweeper._get_node("storage")._value()
    remember_secrets(str(storage))
    with flag_override(hydra_part, ["readonly", "struct"], [False, False]):
        if isinstance(storage, str):
            hydra_part.sweeper.storage = hide_secrets(storage)
        for name in ("task", "hydra"):
            typed: Any = OmegaConf.to_container(hydra_part.overrides[name], resolve=False)
            hydra_part.overrides[name] = [hide_secrets(override) for override in typed]
