"""One swept key: Hydra's sweep syntax becomes an Optuna distribution, and drawn values become overrides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.errors import BadInput

Suggest = Callable[[str, BaseDistribution], Any]
"""How a value for a parameter's name is come by: ``suggest(trial)``, or a script of values."""


@dataclass(frozen=True)
class Parameter:
    """One swept key with the distribution its values are drawn from."""

    key: str
    """As in an override, with its ``+`` where it has one."""
    name: str
    """Optuna's name: the key, or ``key[group=option]`` where options give the key different ranges."""
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()
    """For a choice: how each value is written in an override, in the order of the choices."""
    expression: str = field(default="", compare=False)
    """As the person wrote it."""

    @property
    def path(self) -> str:
        return self.key.lstrip("+")

    def text(self, value: Any) -> str:
        """The override that sets this parameter to a drawn value."""
        if isinstance(self.distribution, CategoricalDistribution):
            index = next(i for i, c in enumerate(self.distribution.choices) if _same(c, value))
            return f"{self.key}={self.texts[index]}"
        return f"{self.key}={value!r}"

    def values(self) -> list[Any]:
        """Every value there is.

        Raises:
            BadInput: for a continuous range, which has no list of values.
        """
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step):
                return list(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=float(step)):
                return [
                    float(Decimal(str(low)) + Decimal(str(step)) * i)
                    for i in range(round((high - low) / step) + 1)
                ]
        raise BadInput(
            self.path,
            f"interval({self.distribution.low}, {self.distribution.high})",  # type: ignore[attr-defined]
            "a grid needs values that can be counted",
            "write a choice or a range, or take another sampler",
        )

    def ends(self) -> list[Any]:
        """The values between which all others lie: every choice, or the two ends of a range."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.distribution.choices)
        return [self.distribution.low, self.distribution.high]  # type: ignore[attr-defined]


def parse(override: Override) -> Parameter:
    """Turn a sweep override into a parameter that is named by its key.

    Raises:
        BadInput: for a sweep that cannot mean anything.
    """
    sweep, key = override._value, override.get_key_element()
    path = key.lstrip("+")
    line = override.input_line.partition("=")[2] if override.input_line else ""

    def refuse(reason: str, remedy: str) -> BadInput:
        return BadInput(path, line, reason, remedy)

    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    if unknown := tags - {"log"}:
        raise refuse(f"there is no tag {', '.join(sorted(map(str, unknown)))}", "the only tag is log")
    log = "log" in tags
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        low, high = sweep.start, sweep.end
        if not (math.isfinite(low) and math.isfinite(high)):
            raise refuse("an interval needs two finite ends", "write for example interval(0, 1)")
        if low > high:
            raise refuse("the interval ends before it starts", f"write interval({high}, {low})")
        if log and low <= 0:
            raise refuse("a logarithm needs a range above 0", "write for example tag(log, interval(1e-4, 1))")
        if isinstance(low, int) and isinstance(high, int):
            return Parameter(key, path, IntDistribution(low, high, log=log))
        return Parameter(key, path, FloatDistribution(low, high, log=log))
    if isinstance(sweep, RangeSweep):
        if "tag(" in line and not tags:
            raise refuse("a cast drops the tags inside it", "write tag(log, int(…))")
        return Parameter(key, path, _range_distribution(sweep, log, refuse))
    if log:
        raise refuse(
            "a choice has no scale", "write tag(log, interval(LOW, HIGH)), or the choice without tag"
        )
    elements = _elements(override, refuse)
    texts = tuple(dict.fromkeys(map(written, elements)))
    return Parameter(
        key, path, CategoricalDistribution(_labels([_read(text) for text in texts], texts)), texts
    )


def _read(text: str) -> Any:
    return OverridesParser.create().parse_override(f"x={text}").value()


def written(element: Any) -> str:
    """An element as an override has it, with quotes where a string would be read as something else."""
    return Override._get_value_element_as_str(_quoted(element))


def _quoted(element: Any) -> Any:
    if isinstance(element, list):
        return [_quoted_item(item) for item in element]
    if isinstance(element, dict):
        return {key: _quoted_item(item) for key, item in element.items()}
    if not isinstance(element, str):
        return element
    try:
        is_read_back = _same(_read(Override._get_value_element_as_str(element)), element)
    except HydraException:
        is_read_back = False
    return element if is_read_back else QuotedString(element, Quote.single)


def _quoted_item(item: Any) -> Any:
    """Within a list or dict an empty text needs its quotes."""
    return QuotedString("", Quote.single) if item == "" and isinstance(item, str) else _quoted(item)


def _elements(override: Override, refuse: Callable[[str, str], BadInput]) -> list[Any]:
    if isinstance(override._value, ChoiceSweep):
        elements = list(override._value.list)
    else:
        try:
            elements = list(override.sweep_iterator())
        except HydraException as error:
            raise refuse(str(error), "write the choices themselves") from error
    if not elements:
        raise refuse("there is nothing to choose from", "write at least one choice")
    return elements


def _range_distribution(
    sweep: RangeSweep, log: bool, refuse: Callable[[str, str], BadInput]
) -> IntDistribution | FloatDistribution:
    """Hydra's range excludes its stop and may count down; Optuna's includes its high and counts up."""
    start, stop, step = (Decimal(str(v)) for v in (sweep.start, sweep.stop, sweep.step))
    if not all(v.is_finite() for v in (start, stop, step)) or step == 0:
        raise refuse("a range needs finite ends and a step other than 0", "write for example range(1, 10)")
    n_values = math.ceil((stop - start) / step)
    if n_values < 1:
        raise refuse("the range is empty (its stop is excluded)", "write for example range(1, 10)")
    first, last = _cast(sweep, start), _cast(sweep, start + (n_values - 1) * step)
    is_int = isinstance(first, int)
    if (is_int and step % 1) or not math.isclose(last - first, (n_values - 1) * step):
        raise refuse("int(…) leaves the values unevenly spaced", "write a range of whole numbers")
    low, high, step = min(first, last), max(first, last), abs(step)
    if log and low <= 0:
        raise refuse("a logarithm needs a range above 0", "write for example tag(log, range(1, 100))")
    if log and step != 1:
        raise refuse("a logarithmic range has no step", "write tag(log, interval(LOW, HIGH))")
    if is_int:
        return IntDistribution(int(low), int(high), log=log, step=int(step))
    if log:
        return FloatDistribution(float(low), float(high), log=True)
    return FloatDistribution(float(low), float(high), step=float(step))


def _cast(sweep: RangeSweep, value: Decimal) -> int | float:
    """A value of the range with its casts, which Hydra 1.4 keeps; Hydra 1.3 has cast the ends."""
    is_int = all(isinstance(v, int) for v in (sweep.start, sweep.stop, sweep.step))
    cast: int | float = int(value) if is_int else float(value)
    for transformer in getattr(sweep, "transformers", ()):
        cast = transformer(cast)
    return cast


def _labels(values: Sequence[Any], texts: Sequence[str]) -> list[CategoricalChoiceType]:
    """What Optuna shows for each value: itself where it can store it and tell it apart, else its text."""
    labels: list[CategoricalChoiceType] = []
    for value, text in zip(values, texts, strict=True):
        is_plain = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        plain = value is None or (is_plain and value not in labels)
        label = value if plain else text
        labels.append(label if label not in labels else f"'{text}'")
    return labels


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


def suggest(trial: Any) -> Suggest:
    """Draw from an Optuna trial."""

    def draw(name: str, distribution: BaseDistribution) -> Any:
        match distribution:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(name, choices)
            case IntDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_int(name, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_float(name, low, high, step=step, log=log)
        raise TypeError(distribution)

    return draw
