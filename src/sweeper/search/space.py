"""The search space: the config under each combination of options, and the ranges that it leaves.

A trial first draws the options (choices over a config group), the config is composed with them, and the
ranges that it then holds in ``hydra.sweeper.params`` are drawn. This repeats until a composition brings
no new choice, so that an option may bring ranges, and choices, of its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Override,
)
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    FloatDistribution,
)

from sweeper.errors import NO_SUCH_KEY, BadInput, bad_option, bad_override, first_line
from sweeper.search.parameter import Parameter, Suggest, parse, written
from sweeper.search.template import Template


@dataclass(frozen=True)
class Composition:
    """The config under one combination of options, and what it leaves to be drawn."""

    config: Template
    fixed: tuple[str, ...]
    """The overrides that made it, without Hydra's own."""
    parameters: tuple[Parameter, ...]
    plain: tuple[str, ...]
    """The keys to which its params give a plain value."""


@dataclass(frozen=True)
class Draw:
    """One point of the space."""

    overrides: list[str]
    """What to write behind the command to get this config again."""
    config: DictConfig
    """Composed, with the ``hydra`` node; owned by the caller."""
    params: dict[str, Any]
    """Optuna's names and the drawn values."""


class Space:
    """What a sweep searches: the swept overrides of its command line and of ``hydra.sweeper.params``.

    Args:
        master: the sweep's own config, as Hydra composed it.
        arguments: the task overrides of the command line.
        loader: composes; one composition costs some 50 ms, so each combination of options is kept.
    """

    def __init__(self, master: DictConfig, arguments: Sequence[str], loader: ConfigLoader) -> None:
        self._master = master
        self._loader = loader
        self._parser = OverridesParser.create(loader)
        self._groups: dict[str, bool] = {}
        self._written: dict[str, Any] = {}
        """Parsed value of each choice, by its override text."""
        fixed: list[str] = []
        self._fixed_keys: set[str] = set()
        self._swept: dict[str, Parameter] = {}
        for override in self._parse(arguments):
            key = override.get_key_element().lstrip("+~")
            if override.is_sweep_override():
                typed = str(override.input_line).partition("=")[2]
                self._swept[key] = replace(parse(override), expression=typed)
            else:
                assert override.input_line is not None
                fixed.append(override.input_line)
                self._fixed_keys.add(key)
        self.fixed = tuple(fixed)
        """The plain overrides of the command line."""
        self._compositions: dict[tuple[str, ...], Composition] = {}
        self._meanings: dict[str, Parameter] = {}
        self._base: dict[str, str] = {}
        """The ranges of config.yaml and of the options that are the same in every trial."""
        self._always_drawn: set[str] = set()
        """The groups from which every trial draws an option."""
        self._mandatory: list[Parameter] = []
        """The groups that the defaults list leaves open: without an option nothing can be composed."""
        self._declared: dict[tuple[str, CategoricalChoiceType], dict[str, str]] = {}
        """The ranges that each other option brings by itself."""
        self._points: list[dict[str, Any]] = []
        """Those of a grid that were walked so far: whoever asks at trial 1,000 need not walk them again."""
        self._turn: list[int] | None = []
        """The place of each parameter's value in the next of them; None after the last."""
        self._declare()

    def draw(
        self,
        suggest: Suggest,
        job: Mapping[str, Any] | None = None,
        suggested: Mapping[str, Any] | None = None,
    ) -> Draw:
        """Draw one point.

        Args:
            job: merged into ``hydra.job`` (``num``, ``id``).
            suggested: further overrides, from ``custom_search_space``. Their options may bring ranges, too.

        Raises:
            BadInput: for an override that cannot be composed, or of a key that is fixed or searched already.
        """
        further = {key: self._parse_suggested(key, value) for key, value in (suggested or {}).items()}
        options = {
            override.get_key_element().lstrip("+"): str(override.input_line)
            for override in further.values()
            if self._is_group(override.get_key_element().lstrip("+"))
        }
        composition, values = self._walk(suggest, options)
        taken = {*self._fixed_keys, *composition.plain, *(p.path for p in values)}
        for key in further:
            if key.lstrip("+") in taken:
                reason = "hydra.sweeper.custom_search_space suggests it, and it is fixed or searched already"
                raise BadInput(key, (suggested or {})[key], reason, "leave one of them out")
        numbers = {p: v for p, v in values.items() if not self._is_group(p.path)}
        config = composition.config.copy()
        for parameter, value in numbers.items():
            self._set(config, parameter, value)
        others = [override for key, override in further.items() if key.lstrip("+") not in options]
        for override in others:
            self._update(config, override.get_key_element(), override.value(), str(override.input_line))
        overrides = [
            *composition.fixed,
            *(p.text(v) for p, v in numbers.items()),
            *(str(override.input_line) for override in others),
        ]
        _tell_job(config, overrides, job or {})
        return Draw(overrides, config, {p.name: v for p, v in values.items()})

    def defaults(self, job: Mapping[str, Any] | None = None) -> Draw:
        """What the command runs without anything swept: its plain overrides, and what the config says.

        Args:
            job: as that of ``draw``.

        Raises:
            BadInput: if the config says nothing for something that is swept.
        """
        reason, remedy = "the config has no value of its own for it", "write one there, or leave it searched"
        for parameter in self._mandatory:
            raise BadInput(parameter.path, parameter.expression, reason, remedy)
        composition = self._compose(())
        config = composition.config.copy()
        for parameter in composition.parameters:
            if not self._is_group(parameter.path) and _is_missing(config, parameter.path):
                raise BadInput(parameter.path, parameter.expression, reason, remedy)
        overrides = list(composition.fixed)
        _tell_job(config, overrides, job or {})
        return Draw(overrides, config, {})

    def changed(self, draw: Draw, values: Mapping[str, Any]) -> Draw:
        """A draw with other values of some keys, whoever has set them. Its config is taken over.

        Raises:
            BadInput: for a key that the config does not have, or a value of another type.
        """
        texts = {key: f"{key}={written(value)}" for key, value in values.items()}
        for key, value in values.items():
            self._update(draw.config, key, value, texts[key])
        kept = [line for line in draw.overrides if line.partition("=")[0].lstrip("+~") not in values]
        overrides = [*kept, *texts.values()]
        _tell_job(draw.config, overrides, {})
        return replace(draw, overrides=overrides)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of a space that can be counted, the last parameter changing fastest.

        Raises:
            BadInput: if a range is continuous.
        """
        position = 0
        while position < len(self._points) or self._turn is not None:
            if position == len(self._points):
                self._walk_next_point(self._turn or [])
            yield self._points[position]
            position += 1

    def _walk_next_point(self, turn: list[int]) -> None:
        """Keep the point of these places among each parameter's values, and turn to the next."""
        sizes: list[int] = []
        point: dict[str, Any] = {}

        def take(name: str, distribution: BaseDistribution) -> Any:
            values = Parameter(name, name, distribution).values()
            position = len(sizes)
            sizes.append(len(values))
            point[name] = values[turn[position] if position < len(turn) else 0]
            return point[name]

        self._walk(take)
        self._points.append(point)
        turn = [*turn, *[0] * (len(sizes) - len(turn))][: len(sizes)]
        while turn and turn[-1] + 1 == sizes[len(turn) - 1]:
            turn.pop()
        self._turn = [*turn[:-1], turn[-1] + 1] if turn else None

    def variations(self) -> Iterator[Draw]:
        """Points that show each option and both ends of each range at least once, one change at a time.

        Options of several groups that set a range of the same key are shown in all their combinations.
        """
        seen: dict[str, Parameter] = {}
        shown: set[str] = set()
        todo: list[dict[str, Any]] = [{}, *self._rivals()]
        while todo:
            script = todo.pop(0)

            def take(name: str, distribution: BaseDistribution, script: dict[str, Any] = script) -> Any:
                ends = Parameter(name, name, distribution).ends()
                return script[name] if script.get(name, script) in ends else ends[0]

            _, values = self._walk(take)
            if (point := repr({p.name: v for p, v in values.items()})) in shown:
                continue
            shown.add(point)
            yield self.draw(take)
            for parameter in values:
                if parameter.name not in seen:
                    seen[parameter.name] = parameter
                    todo += [{**script, parameter.name: end} for end in parameter.ends()[1:]]
        self._parameters = seen

    def _rivals(self) -> Iterator[dict[str, Any]]:
        """The combinations of options that set a range of the same key: one may hide the other's."""
        for path in {path: None for declared in self._declared.values() for path in declared}:
            groups = {group: None for (group, _), declared in self._declared.items() if path in declared}
            options = [[option for g, option in self._declared if g == group] for group in groups]
            if len(groups) > 1:
                yield from (dict(zip(groups, chosen, strict=True)) for chosen in product(*options))

    def parameters(self) -> dict[str, Parameter]:
        """All parameters that some trial may have, by Optuna's name."""
        if not hasattr(self, "_parameters"):
            for _ in self.variations():
                pass
        return self._parameters

    def _walk(
        self, suggest: Suggest, suggested: Mapping[str, str] | None = None
    ) -> tuple[Composition, dict[Parameter, Any]]:
        """Draw options and compose until there is no new option, then draw the ranges.

        Args:
            suggested: the overrides of groups whose option is not drawn but suggested.
        """
        values = {p: self._draw(p, suggest) for p in self._mandatory if p.path not in (suggested or {})}
        while True:
            options = {**{p.path: p.text(v) for p, v in values.items()}, **(suggested or {})}
            composition = self._compose(tuple(options.values()))
            pending = [p for p in composition.parameters if self._is_group(p.path) and p.path not in options]
            if not pending:
                break
            values.update((p, self._draw(p, suggest)) for p in pending)
        numbers = [p for p in composition.parameters if not self._is_group(p.path)]
        values.update((p, self._draw(p, suggest)) for p in numbers)
        return composition, values

    def _draw(self, parameter: Parameter, suggest: Suggest) -> Any:
        before = self._meanings.setdefault(parameter.name, parameter)
        if (before.distribution, before.texts) != (parameter.distribution, parameter.texts):
            raise BadInput(
                parameter.path,
                parameter.expression,
                f"its range also is {before.expression}, and it depends on more than one option",
                "let only one config group set the range of this key",
            )
        return suggest(parameter.name, parameter.distribution)

    def _compose(self, options: tuple[str, ...]) -> Composition:
        if options not in self._compositions:
            values: list[str] = []
            tried: list[list[str]] = []
            while values not in tried:  # a plain option among the params may bring others
                tried.append(values)
                # A plain value among the params is an override that the command line may overrule.
                fixed = [*values, *self.fixed, *options]
                config = self._load(fixed)
                values, parameters = self._ranges(config)
            self._compositions[options] = Composition(
                Template(config),
                tuple(fixed),
                parameters,
                tuple(v.partition("=")[0].lstrip("+") for v in values),
            )
        return self._compositions[options]

    def _load(self, overrides: list[str]) -> DictConfig:
        hydra = self._master.hydra
        own = OmegaConf.to_container(
            hydra.overrides.hydra, resolve=False
        )  # ${hydra.job.num} has no value yet
        assert isinstance(own, list)
        try:
            # Not load_sweep_config: that of Hydra 1.4 refuses options that add to hydra.sweeper.
            config = self._loader.load_configuration(hydra.job.config_name, [*own, *overrides], RunMode.RUN)
        except (HydraException, OmegaConfBaseException) as error:
            raise bad_override(error, overrides, self._keys()) from error
        except ValueError as error:
            if (told := bad_option(error, overrides, self._loader.get_group_options)) is None:
                raise
            raise told from error
        OmegaConf.copy_cache(from_config=self._master, to_config=config)  # the same ${now:…} in every trial
        return config

    def _ranges(self, config: DictConfig) -> tuple[list[str], tuple[Parameter, ...]]:
        """The plain values and the parameters of a composition; the command line's sweeps come first."""
        values: list[str] = []
        brought: dict[str, Parameter] = {}
        declared = _params(config, resolve=False)
        for key, expression in _params(config).items():
            path = key.lstrip("+")
            if path in self._fixed_keys:
                continue
            if path in self._swept:
                brought[path] = self._swept[path]
                continue
            override = self._parse_param(key, expression)
            if not override.is_sweep_override():
                values.append(f"{override.get_key_element()}={override.get_value_element_as_str()}")
                continue
            name = self._name(path, str(declared[key]), config.hydra.runtime.choices)
            brought[path] = replace(parse(override), name=name, expression=str(expression))
        optional = {key for declared in self._declared.values() for key in declared}
        own = {path: p for path, p in self._swept.items() if path not in brought and path not in optional}
        return values, (*own.values(), *brought.values())

    def _name(self, path: str, expression: str, choices: Mapping[str, Any]) -> str:
        """``path``, or ``path[group=option]`` where the options of this study give it different ranges."""
        ranges = {
            self._meaning(path, declared[path]) for declared in self._declared.values() if path in declared
        }
        owners = [
            f"{group}={option}"
            for (group, option), declared in self._declared.items()
            if choices.get(group) == option and declared.get(path) == expression
        ]
        if path in self._base and not self._always_declared(path):
            ranges.add(self._meaning(path, self._base[path]))
        return f"{path}[{owners[-1]}]" if owners and len(ranges) > 1 else path

    def _meaning(self, path: str, expression: str) -> Any:
        """Equal for expressions that mean the same, where that can be told before the config is composed."""
        if "${" in expression:
            return expression
        override = self._parse_param(path, expression)
        return parse(override).distribution if override.is_sweep_override() else repr(override.value())

    def _always_declared(self, path: str) -> bool:
        """Whether the range in config.yaml is hidden in every trial."""
        return any(
            all(path in declared for (g, _), declared in self._declared.items() if g == group)
            for group in self._always_drawn
        )

    def _declare(self) -> None:
        """Find out what each option that a trial may draw puts into ``hydra.sweeper.params`` by itself."""
        primary = self._master.hydra.job.config_name
        common = self._declared_by(primary) if primary else {}
        chosen = self._chosen(common)
        drawn = {p.path: p for p in self._swept.values() if self._is_group(p.path)}
        for p in drawn.values():
            if isinstance(p.distribution, FloatDistribution) and p.distribution.step is None:
                reason, remedy = "is a group of options", "write OPTION,OPTION, or glob(*) for all of them"
                raise BadInput(p.path, p.expression, reason, remedy)
        while new := [p for p in self._groups_in(self._merge(common, chosen, drawn)) if p.path not in drawn]:
            drawn[new[0].path] = new[0]
        self._always_drawn = set(drawn)
        self._mandatory = [p for p in drawn.values() if chosen.get(p.path) == "???"]
        groups = list(drawn.values())
        while groups:
            group = groups.pop()
            # Where only some trials draw from a group, the others have its default.
            default = [] if group.path in drawn else [chosen.get(group.path)]
            for option in [*group.values(), *default]:
                if (group.path, option) not in self._declared:
                    self._declared[group.path, option] = self._declared_by(f"{group.path}/{option}")
                    groups += self._groups_in(self._declared[group.path, option])
        self._base = self._merge(common, chosen, {group for group, _ in self._declared})

    def _chosen(self, common: dict[str, str]) -> dict[str, Any]:
        """The option of each group where it is not drawn."""
        choices: Any = OmegaConf.to_container(self._master.hydra.runtime.choices)
        for key, expression in common.items():
            if self._is_group(key) and key not in self._fixed_keys:
                override = self._parse_param(key, expression)
                choices.update({} if override.is_sweep_override() else {key: override.value()})
        return {group: option for group, option in choices.items() if not group.startswith("hydra/")}

    def _merge(self, common: dict[str, str], chosen: dict[str, Any], drawn: Container[str]) -> dict[str, str]:
        merged = dict(common)
        for group, option in chosen.items():
            if group not in drawn:
                merged.update(self._declared_by(f"{group}/{option}"))
        return merged

    def _groups_in(self, params: dict[str, str]) -> list[Parameter]:
        paths = [
            p for p in params if self._is_group(p) and p not in self._fixed_keys and p not in self._swept
        ]
        overrides = [self._parse_param(path, params[path]) for path in paths]
        return [parse(override) for override in overrides if override.is_sweep_override()]

    def _declared_by(self, config_path: str) -> dict[str, str]:
        """The params in one config file, by path; ``group@package/option`` is the group's file."""
        group, slash, option = config_path.rpartition("/")
        file = f"{group.partition('@')[0]}{slash}{option}"
        for source in self._loader.get_sources():
            if source.is_config(file):
                result = source.load_config(file)
                if slash and result.header.get("package") != "_global_":
                    return {}
                return {
                    key.lstrip("+"): str(value)
                    for key, value in _params(result.config, resolve=False).items()
                }
        return {}

    def _is_group(self, path: str) -> bool:
        if path not in self._groups:  # Hydra takes 6 ms to answer
            self._groups[path] = bool(self._loader.get_group_options(path.partition("@")[0]))
        return self._groups[path]

    def _parse(self, lines: Sequence[str]) -> list[Override]:
        try:
            return self._parser.parse_overrides(list(lines))
        except HydraException as error:
            line = getattr(error, "override", " ".join(lines))
            key, _, value = line.partition("=")
            raise BadInput(
                key, value, first_line(error), "docs/search.md has the grammar of sweeps"
            ) from error

    def _parse_param(self, key: str, expression: Any) -> Override:
        text = expression if isinstance(expression, str) else written(expression)
        return self._parse([f"{key}={text}"])[0]

    def _parse_suggested(self, key: str, value: Any) -> Override:
        """As an override on the command line would be read, so that ``"[1,2]"`` is a list; else as a text."""
        if isinstance(value, str):
            with suppress(HydraException):
                override = self._parser.parse_override(f"{key}={value}")
                if not override.is_sweep_override():
                    return override
        return self._parse([f"{key}={written(value)}"])[0]

    def _set(self, config: DictConfig, parameter: Parameter, value: Any) -> None:
        text = parameter.text(value)
        if parameter.texts:
            if text not in self._written:  # parsing takes 1 ms
                self._written[text] = self._parser.parse_override(text).value()
            value = self._written[text]
        typed = None if parameter.texts else parameter.expression  # a choice was typed as it is drawn
        self._update(config, parameter.key, value, text, typed)

    def _update(self, config: DictConfig, key: str, value: Any, text: str, typed: str | None = None) -> None:
        path = key.lstrip("+")
        is_added = key.startswith("+") and not key.startswith("++")
        is_there = OmegaConf.select(config, path, throw_on_missing=False) is not None
        if is_added and is_there and not isinstance(value, dict | list):
            raise BadInput(key, value, "there already is such a key", f"write {path}=… to change it")
        try:
            OmegaConf.update(config, path, value, merge=True, force_add=key.startswith("+"))
        except OmegaConfBaseException as error:
            said = bad_override(error, [text], self._keys())
            if typed is not None and said.reason == NO_SUCH_KEY:  # then it is not about the value drawn
                said = BadInput(said.key, typed, said.reason, said.remedy)
            raise said from error

    def _keys(self) -> list[str]:
        """The keys of the app, as its command line sees them."""
        app = OmegaConf.masked_copy(self._master, [str(key) for key in self._master if key != "hydra"])
        return [*self._loader.list_groups(""), *(str(key) for key, _ in _flat(app, resolve=False))]


def _tell_job(config: DictConfig, overrides: list[str], job: Mapping[str, Any]) -> None:
    """Let Hydra's part of a config say which overrides have made it."""
    hydra = config.hydra
    with flag_override(hydra, ["readonly", "struct"], [False, False]):
        hydra.overrides.task = overrides
        if not OmegaConf.is_interpolation(hydra.job, "override_dirname"):  # Hydra 1.4 resolves it late
            hydra.job.override_dirname = _override_dirname(overrides, hydra.job.config.override_dirname)
        hydra.job.update(job)


def _is_missing(config: DictConfig, path: str) -> bool:
    parent, _, last = path.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and OmegaConf.is_missing(node, last)


def _params(config: Any, resolve: bool = True) -> dict[str, Any]:
    """``hydra.sweeper.params`` of a composed config or of one config file, with nested keys joined."""
    node = OmegaConf.select(config, "hydra.sweeper.params")
    return dict(_flat(node, resolve)) if node is not None else {}


def _flat(node: DictConfig, resolve: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items_ex(resolve=resolve):
        if isinstance(value, DictConfig):
            yield from _flat(value, resolve, f"{prefix}{key!s}.")
        else:
            yield f"{prefix}{key!s}", OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _override_dirname(overrides: list[str], settings: Any) -> str:
    keys = [line.partition("=")[0].lstrip("+~").partition("@")[0] for line in overrides]
    excluded = set(settings.exclude_keys)
    lines = sorted(line for key, line in zip(keys, overrides, strict=True) if key not in excluded)
    return str(settings.item_sep).join(lines).replace("=", settings.kv_sep)
