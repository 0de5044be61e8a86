"""A saved run (``trial.yaml``) as a config of ours: its values may be changed, and searched around.

The file is flat: every value of one run, and nothing else. Hydra alone would run it without our sweeper, our
output folder and our groups. So the file is also a source of configs, which Hydra asks before all others:

- the file itself is ``conf/config.yaml`` with the saved values in place of its own, and without its ranges:
  a saved value is a fixed one, and what is swept is what the command sweeps;
- in each group there is an option ``saved`` with the saved values of that group, which is chosen unless the
  command names another: then the values of that one take the place of all that was saved of the group, with
  those that the saved options of other groups bring to it (a way of freezing its learning rate).

The name of the study is not taken over: what is run is another study, or another run.

A saved run is data, whoever made it: what it names is imported only where ``may_import`` allows it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
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
from sweeper.program import TRUST, program, typed_besides
from sweeper.trust import may_import
from sweeper.words import near

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
    head = _HEAD.replace("--config-name trial", f"--config-name trial{trust_option(run.model)}")
    return head + OmegaConf.to_yaml(OmegaConf.create(asdict(run)))


# ------------------------------------------------------------------------------------- what it may import


def trust_option(model: schema.Model) -> str:
    """What a command on a saved run of this network has besides, in order to run as it stands."""
    return f" {TRUST}" if model.source == "custom" and not may_import(model.target) else ""


def trust_option_of(path: Path) -> str:
    """The same for the saved run in a file."""
    values = _load(path).get("model")
    model = values if isinstance(values, dict) else {}
    is_custom = model.get("source") == "custom" and not may_import(str(model.get("target")))
    return f" {TRUST}" if is_custom else ""


def command(config: Path, model: schema.Model) -> str:
    """The command that runs a saved run of ours again, to which overrides can be added."""
    folder = shlex.quote(near(config.parent))
    return f"{program()} --config-dir {folder} --config-name {config.stem}{trust_option(model)}"


def refuse_import(model: schema.Model, where: str = "") -> None:
    """Raises BadInput for a network that a saved run names, and that ``may_import`` does not allow."""
    if trust_option(model):
        what = f"a saved run names it{f' ({where})' if where else ''}, and its code would run"
        raise BadInput("model.target", model.target, what, f"read that code, then add {TRUST}")


def check_import(model: schema.Model) -> None:
    """Before anything is imported for a composed config.

    Raises:
        BadInput: if the network is that of the saved run which the command line names, without ``--trust``.
    """
    if SavedFirst.is_foreign(model):
        refuse_import(model, SavedFirst.named)
    named_by_command(model)


_named_by_command = set[str | None]()


def named_by_command(model: schema.Model) -> None:
    """Remember that the command, and no saved run alone, has this network."""
    _named_by_command.add(model.target)


def named_networks() -> list[str]:
    """The networks of somebody's own that the command has, and no saved run alone."""
    return sorted(filter(None, _named_by_command))


def may_test(model: schema.Model) -> bool:
    """Whether the network of a saved run may be made, as the command trusts it or has named it itself."""
    return not trust_option(model) or TRUST in typed_besides or model.target in _named_by_command


@dataclass(frozen=True)
class Line:
    """What a command line says to Hydra."""

    config_name: str
    config_dir: str | None
    overrides: list[str]


@contextmanager
def saved_run(arguments: Sequence[str], trust: bool = False) -> Iterator[Line]:
    """Let Hydra find the saved run that a command line names, where it names one.

    Args:
        trust: whether it may import what it names.

    Raises:
        BadInput: for a file that cannot be read.
    """
    # Hydra's own parser knows all the ways to write them: -cd, --config-d, --config-dir=.
    options, _ = get_args_parser().parse_known_args(list(arguments))
    _named_by_command.clear()
    name = (options.config_name or "config").removesuffix(".yaml")
    path = Path(options.config_dir or "", f"{name}.yaml").absolute()
    is_given = options.config_dir is not None and options.config_path is None
    is_ours = (conf_folder() / f"{name}.yaml").exists()  # which Hydra takes first
    if options.config_path is None:
        _check_place(options.config_dir, path, is_ours)
    if is_given and path.is_file() and not is_ours:
        saved = _load(path)
        if not trust and not path.is_relative_to(Path("conf").absolute()):
            _refuse_code(saved, path, Path(options.config_dir))
            SavedFirst.is_foreign, SavedFirst.named = _is_foreign(saved, options.overrides), path.name
        if "defaults" not in saved:
            _check(saved)
            plugins = Plugins.instance()
            plugins.register(SavedSource)
            plugins.register(SavedFirst)
            SavedFirst.file = name, path
    try:
        yield Line(name, options.config_dir, options.overrides)
    finally:
        SavedFirst.file, SavedFirst.is_foreign = None, _nothing_is


def _nothing_is(model: schema.Model) -> bool:
    return False


def _is_foreign(saved: Mapping[str, Any], overrides: Sequence[str]) -> Callable[[schema.Model], bool]:
    """Tells whether a network is one that a config of a folder names, and not the person.

    It is theirs where they typed its name, or took another option of ``model`` than the saved one. Behind a
    defaults list the values of the config may come last, whatever option was taken.
    """
    model = saved.get("model")
    values = dict[str, str](override.lstrip("+").partition("=")[::2] for override in overrides)
    typed = re.findall(r"[\w.]+", values.get("model.target", ""))
    is_replaced = "model" in values and OPTION not in re.findall(r"\w+", values["model"])
    named = model.get("target") if isinstance(model, dict) else "${"

    def is_foreign(composed: schema.Model) -> bool:
        if composed.target in typed:
            return False
        if "defaults" in saved:
            return True
        return not is_replaced and (composed.target == named or "${" in str(named))

    return is_foreign


_OF_A_SEARCH = {"sweeper", "run", "sweep", "mode", "verbose", "output_subdir"}
"""What a config may set of Hydra's that runs no code."""
_IN_PLACE_OF_OURS = ("hydra", "schema.yaml", _BROUGHT)
"""Names in a folder of configs that Hydra would take before its own and ours, which are in no file."""


def _refuse_code(config: Mapping[str, Any], path: Path, folder: Path) -> None:
    """Refuse a config of a folder that may be anybody's, if with it comes what could run any code.

    Hydra imports what some of its keys name, and a defaults list may put any file in their place. So of such
    a list only what is in our own conf/ is taken, and of Hydra's keys those of a search.

    Raises:
        BadInput: naming what it is.
    """
    own = f"put it into the folder conf, or read it and add {TRUST}"
    if "defaults" not in config and "hydra" in config:
        reason = f"{path.name} sets keys of Hydra's, as no saved run does, and these may run any code"
        raise BadInput("hydra", "…", reason, f"take them out, or read them and add {TRUST}")
    for name in _IN_PLACE_OF_OURS:
        if (folder / name).exists():
            reason = (
                f"Hydra would take {folder / name} in place of its own or ours, and that may run any code"
            )
            raise BadInput("--config-dir", folder, reason, f"remove that, or read it and add {TRUST}")
    hydras = config.get("hydra", {})
    is_plain = isinstance(hydras, dict) and set(hydras) <= _OF_A_SEARCH
    search = hydras.get("sweeper", {}) if is_plain else None
    if not isinstance(search, dict) or not _runs_no_code(search):
        reason = f"{path.name} sets other keys of Hydra's than those of a search, and these may run any code"
        raise BadInput("hydra", "…", reason, own)
    packages = re.findall(r"(?m)^\s*#\s*@package\s+(\S+)", path.read_text())
    defaults = config.get("defaults", [])
    strange = [f"@package {name}" for name in packages if name != "_global_"]
    items = defaults if isinstance(defaults, list) else [defaults]
    strange += [str(item) for item in items if not _is_ours(item)]
    if strange and "defaults" in config:
        reason = f"{path.name} takes more than what is ours ({strange[0]}), and that may run any code"
        raise BadInput("defaults", "…", reason, own)


def _runs_no_code(search: Mapping[str, Any]) -> bool:
    """Whether ``hydra.sweeper`` of a config names nothing that would be imported, nor may a sweep in it."""
    params = search.get("params") or {}
    is_plain = isinstance(params, dict) and not any("hydra" in str(key) for key in params)
    return is_plain and "_target_" not in search and not search.get("custom_search_space")


def _is_ours(default: object) -> bool:
    """Whether an item of a defaults list is a file of our conf/, or something of Hydra's or the search's."""
    key, option = next(iter(default.items())) if isinstance(default, dict) and default else ("", default)
    if option is None or default == "_self_":
        return True
    group = str(key).removeprefix("override ").removeprefix("optional ").strip("/ ")
    if group in ("hydra/sweeper/sampler", "hydra/sweeper/pruner"):
        return re.fullmatch(r"\w+", str(option)) is not None
    name = f"{group}/{option}".strip("/").removesuffix(".yaml")
    is_plain = re.fullmatch(r"[\w/]+", name) is not None
    return is_plain and (conf_folder() / f"{name}.yaml").is_file()


class SavedFirst(SearchPathPlugin):
    """Puts the saved run before all other sources."""

    file: ClassVar[tuple[str, Path] | None] = None
    """The name of the config, and its file."""
    is_foreign: ClassVar[Callable[[schema.Model], bool]] = staticmethod(_nothing_is)
    """Whether a network is one that the config of a folder names, by which it is ``named``."""
    named: ClassVar[str] = ""

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
