"""A saved run (``trial.yaml``) as a config of ours: its values may be changed, and searched around.

The file is flat: every value of one run, and nothing else. Hydra alone would run it without our sweeper, our
output folder and our groups. So the file is also a source of configs, which Hydra asks before all others:

- the file itself is ``conf/config.yaml`` with the saved values in place of its own, and without its ranges:
  a saved value is a fixed one, and what is swept is what the command sweeps;
- in each group there is an option ``saved`` with the saved values of that group, which is chosen unless the
  command names another: then the values of that one take the place of all that was saved of the group, with
  those that the saved options of other groups bring to it (a way of freezing its learning rate).

The name of the study is not taken over: what is run is another study, or another run.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeper import schema
from sweeper.conf import conf_folder
from sweeper.errors import BadInput, bad_override, one_of

OPTION = "saved"
"""The option of each group that has what was saved of it."""

_BROUGHT = "brought-by-saved"
_Names = list[str]
_SCHEME = "sweeper-saved"


_HEAD = """\
# sweeper --config-dir FOLDER --config-name trial      (FOLDER holds this file)
# Behind it, training.epochs=50 changes a value, optimizer=sgd takes the values of that option instead of the
# saved ones, and -m 'optimizer.lr=interval(1e-3, 1e-2)' searches with everything else as it is here.
"""


def to_yaml(run: schema.Run) -> str:
    """What ``trial.yaml`` holds."""
    return _HEAD + OmegaConf.to_yaml(OmegaConf.create(asdict(run)))


@dataclass(frozen=True)
class Line:
    """What a command line says to Hydra."""

    config_name: str
    config_dir: str | None
    overrides: list[str]


@contextmanager
def saved_run(arguments: Sequence[str]) -> Iterator[Line]:
    """Let Hydra find the saved run that a command line names, where it names one.

    Raises:
        BadInput: for a file that cannot be read.
    """
    # Hydra's own parser knows all the ways to write them: -cd, --config-d, --config-dir=.
    options, _ = get_args_parser().parse_known_args(list(arguments))
    name = (options.config_name or "config").removesuffix(".yaml")
    path = Path(options.config_dir or "", f"{name}.yaml").absolute()
    is_given = options.config_dir is not None and options.config_path is None
    is_ours = (conf_folder() / f"{name}.yaml").exists()  # which Hydra takes first
    if options.config_path is None:
        _check_place(options.config_dir, path, is_ours)
    if is_given and path.is_file() and not is_ours and "defaults" not in (saved := _load(path)):
        _check(saved)
        plugins = Plugins.instance()
        plugins.register(SavedSource)
        plugins.register(SavedFirst)
        SavedFirst.file = name, path
    try:
        yield Line(name, options.config_dir, options.overrides)
    finally:
        SavedFirst.file = None


class SavedFirst(SearchPathPlugin):
    """Puts the saved run before all other sources."""

    file: ClassVar[tuple[str, Path] | None] = None
    """The name of the config, and its file."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.file is not None:
            name, path = self.file
            search_path.prepend(name, f"{_SCHEME}://{path}")


class SavedSource(ConfigSource):
    """The configs of one saved run. Hydra names it by the config, as its provider."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._configs = _configs(provider, _load(Path(self.path)))

    def _find(self, config_path: str) -> Any:
        name = config_path.removesuffix(".yaml")
        folder, _, options = name.rpartition("/")
        # What a saved option brings to another group holds where that group has another option.
        is_other = options.startswith(f"{OPTION}_") and options != f"{OPTION}_{OPTION}"
        return self._configs.get(name, self._configs.get(folder) if is_other else None)

    @staticmethod
    def scheme() -> str:
        return _SCHEME

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        if (found := self._find(config_path)) is None:
            raise ConfigLoadError(f"{self.path} has no {config_path}")
        package = "_global_" if config_path.removesuffix(".yaml") == self.provider else None
        config = OmegaConf.create(found)  # a new one: Hydra takes the defaults list out of it
        return ConfigResult(self.provider, self.full_path(), config, header={"package": package})

    def is_config(self, config_path: str) -> bool:
        return self._find(config_path) is not None

    def is_group(self, config_path: str) -> bool:
        return f"{config_path.rstrip('/')}/{OPTION}" in self._configs

    def list(self, config_path: str, results_filter: ObjectType | None) -> _Names:
        is_listed = self.is_group(config_path) and results_filter in (None, ObjectType.CONFIG)
        return [OPTION] if is_listed else []


def _configs(name: str, saved: dict[str, Any]) -> dict[str, Any]:
    """By name: the config of the run, an option of each group, and what these bring to other groups."""
    primary: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / "config.yaml"))
    listed = [key for default in primary["defaults"] if isinstance(default, dict) for key in default]
    groups = [key for key in listed if isinstance(saved.get(key), dict)]
    brought = {
        (group, other): {other: values}
        for group in groups
        for other, values in _option_file(group, saved[group]).items()
        if other in groups and other != group
    }
    defaults = [_default(default, groups) for default in primary["defaults"]]
    place = 1 + max((defaults.index({f"/{group}": OPTION}) for group in groups), default=0)
    defaults[place:place] = [
        {f"optional /{_BROUGHT}/{group}/{other}@_global_": f"${{{group}}}_${{{other}}}"}
        for group, other in brought
    ]
    primary["defaults"] = defaults
    primary["hydra"]["sweeper"]["params"] = {}
    rest = {key: value for key, value in saved.items() if key not in groups and key != "study"}
    return {
        name: OmegaConf.merge(primary, rest),
        **{f"{group}/{OPTION}": saved[group] for group in groups},
        **{f"{_BROUGHT}/{group}/{other}": values for (group, other), values in brought.items()},
    }


def _option_file(group: str, values: dict[str, Any]) -> dict[str, Any]:
    """The file of the option that was chosen, where the values tell which; any network has its library's."""
    files = {path.stem: path for path in conf_folder().joinpath(group).glob("*.yaml")}
    found = [files[name] for key in ("name", "source") if (name := values.get(key)) in files]
    return _load(found[0]) if found else {}


def _default(default: str | dict[str, Any], groups: Container[str]) -> str | dict[str, Any]:
    """An item of our defaults list, with the saved option of a group; absolute, wherever the file lies."""
    if isinstance(default, str):
        return default if default == "_self_" else f"/{default}"
    return {
        re.sub(r"([\w/]+)$", r"/\1", key): OPTION if key in groups else option
        for key, option in default.items()
    }


def _check_place(folder: str | None, path: Path, is_ours: bool) -> None:
    """Raises BadInput where there is no such folder, or no such config in it."""
    if folder is not None and not Path(folder).is_dir():
        raise BadInput("--config-dir", folder, "there is no such folder", "write the folder of a trial.yaml")
    if is_ours or path.is_file():
        return
    reason = f"there is no {path.name}{f' in {folder}' if folder else ''}"
    there = sorted(found.stem for found in Path(folder).glob("*.yaml")) if folder else []
    remedy = one_of(path.stem, there) if there else "write --config-dir FOLDER, where it lies"
    raise BadInput("--config-name", path.stem, reason, remedy)


def _load(path: Path) -> dict[str, Any]:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # what the libraries raise of a file that is no YAML, or no text
        raise _refused(path, " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise _refused(path, "it is a list")
    return content


def _check(saved: Mapping[str, Any]) -> None:
    """Raises BadInput for a key that is none of ours, or a value of another type."""
    values = OmegaConf.create({key: value for key, value in saved.items() if key != "hydra"})
    try:
        OmegaConf.merge(OmegaConf.structured(schema.Run), values)
    except OmegaConfBaseException as error:
        value = OmegaConf.select(values, error.full_key or "")
        keys = [key for key, _ in schema.flatten(schema.Run())]
        raise bad_override(error, [f"{error.full_key}={value}"], keys) from error


def _refused(path: Path, why: str) -> BadInput:
    remedy = "name a trial.yaml that a run has saved, or any config of Hydra's"
    return BadInput("--config-name", path, f"cannot be read ({why})", remedy)
