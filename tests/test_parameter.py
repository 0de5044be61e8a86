"""One swept key: its distribution, its values, and how they are written in an override."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweeper.errors import BadInput
from sweeper.search.parameter import Parameter, parse, suggest, written

PARSER = OverridesParser.create()

COUNTABLE: list[tuple[str, list[Any]]] = [
    ("x=7,2.5,a,null,true", [7, 2.5, "a", None, True]),
    ("x=range(3)", [0, 1, 2]),
    ("x=range(1,8,3)", [1, 4, 7]),
    ("x=range(5,0,-2)", [1, 3, 5]),
    ("x=range(0.1,0.5,0.1)", [0.1, 0.2, 0.3, 0.4]),
    ("x=int(interval(1,3))", [1, 2, 3]),
]
SWEEPS = [sweep for sweep, _ in COUNTABLE] + ["x=interval(0,1)", "+x=tag(log,interval(1e-5,1))"]


def swept(override: str) -> Parameter:
    return parse(PARSER.parse_override(override))


@pytest.mark.parametrize(("sweep", "values"), COUNTABLE)
def test_values_are_all_there_are(sweep: str, values: list[Any]) -> None:
    """The decimals that were written, the stop left out, in rising order; their ends are among them."""
    parameter = swept(sweep)
    assert parameter.values() == values
    assert list(map(type, parameter.values())) == list(map(type, values))
    assert parameter.ends() == (values if "," in sweep and "(" not in sweep else [values[0], values[-1]])


def test_an_interval_has_no_list_of_values() -> None:
    """What a grid would need: the line says what to write instead."""
    with pytest.raises(
        BadInput, match=r"^x=interval\(0\.0, 1\.0\): a grid needs .*; write a choice or a range"
    ):
        swept("+x=interval(0,1)").values()


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_drawn_value_is_read_back_from_its_override(sweep: str) -> None:
    """Each end, written as an override, is that value again to the last bit and of its type."""
    parameter = swept(sweep)
    for value in parameter.ends():
        override = PARSER.parse_override(parameter.text(value))
        assert override.get_key_element() == parameter.key
        assert (override.value(), type(override.value())) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["1", "1.0", "true", "null", "a,b", "it's", " a ", "{a}", "inf", "a=b", "[1"]
)
def test_a_text_is_written_so_that_it_stays_one(text: str) -> None:
    """A string that would be read as something else is quoted, also within lists and dicts."""
    for element in (text, [text, [text]], {"key": text}):
        assert PARSER.parse_override(f"x={written(element)}").value() == element


def test_an_empty_text_within_a_list_stays_one() -> None:
    """``['',a]`` is a list of two texts, and so is what is written for it."""
    assert PARSER.parse_override(f"x={written(['', 'a'])}").value() == ["", "a"]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_trial_suggests_from_the_whole_distribution(sweep: str) -> None:
    """Optuna is asked for exactly the distribution that was written: its steps, ends and logarithm."""
    parameter = swept(sweep)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    value = suggest(trial)(parameter.name, parameter.distribution)
    assert trial.distributions == {"x": parameter.distribution}
    assert trial.params == {"x": value}
