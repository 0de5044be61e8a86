"""Where our config files are, and what they need of Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import bad_option, bad_override


def conf_folder() -> Path:
    """``conf/``: within the installed package, or at the top of the checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


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

    ConfigStore.instance().store(name="schema", node=schema.Run)
    OmegaConf.register_new_resolver("direction", schema.direction, replace=True)
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise bad_override(error, overrides, [key for key, _ in schema.flatten(schema.Run())]) from error
    except ValueError as error:
        raise bad_option(error, overrides, _options) from error


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in conf_folder().joinpath(group).glob("*.yaml")) if group else []
