"""Where our config files are, and what they need of Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra

from sweeper.errors import bad_option, bad_override


def conf_folder() -> Path:
    """``conf/``: within the installed package, or at the top of the checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")

VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
"""An argument of ``hydra.main`` and ``initialize``: Hydra 1.3 warns without it, Hydra 1.4 with it."""

_REPLACING: dict[str, Any] = {} if IS_HYDRA_1_3 else {"replace": True}
"""An argument of ``ConfigStore.store``: Hydra 1.3 always replaces, Hydra 1.4 warns unless it is told to."""


@contextmanager
def composing(overrides: Sequence[str]) -> Iterator[None]:
    """Register our schema and resolvers with Hydra; what Hydra then refuses is bad input.

    Raises:
        BadInput: naming the override that is to blame.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from sweeper import schema

    ConfigStore.instance().store(name="schema", node=schema.Run, **_REPLACING)
    register: Any = OmegaConf.register_new_resolver if IS_HYDRA_1_3 else OmegaConf.register_resolver
    register("direction", schema.direction, replace=True)
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise bad_override(error, overrides, [key for key, _ in schema.flatten(schema.Run())]) from error
    except ValueError as error:
        raise bad_option(error, overrides, _options) from error


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in conf_folder().joinpath(group).glob("*.yaml")) if group else []
