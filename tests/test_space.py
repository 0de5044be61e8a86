"""The search space: the grammar of sweeps, ranges that depend on options, and the draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeper.errors import BadInput
from sweeper.search.parameter import Parameter, suggest
from sweeper.search.space import Draw, Space

pytestmark = pytest.mark.hydra

Files = dict[str, dict[str, Any] | str]
MakeSpace = Callable[..., Space]


def tuned(**params: Any) -> dict[str, Any]:
    """``hydra.sweeper.params``, as in a config file."""
    return {
        "hydra": {"sweeper": {"params": {key.replace("__", "."): value for key, value in params.items()}}}
    }


def option(package: str, content: dict[str, Any], **params: Any) -> str:
    """The file of an option that brings ranges of its own."""
    return "# @package _global_\n" + OmegaConf.to_yaml(
        OmegaConf.create({package: content, **tuned(**params)})
    )


def config(*groups: str, **content: Any) -> dict[str, Any]:
    """A config.yaml whose defaults list has these groups (``optimizer: sgd``) after ``_self_``."""
    defaults = ["_self_", *(dict([group.split(": ")]) for group in groups)]
    return {"defaults": [*defaults, {"override hydra/sweeper": "sweeper_optuna"}], **content}


def draw(space: Space, **chosen: Any) -> Draw:
    """The point with these values; what is not named stands at its first choice or lower end."""

    def take(name: str, distribution: BaseDistribution) -> Any:
        return chosen.get(name.replace(".", "__"), Parameter(name, name, distribution).ends()[0])

    return space.draw(take)


def second(name: str, distribution: BaseDistribution) -> Any:
    """Takes the second choice."""
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices[1]


def plain(config: DictConfig) -> dict[Any, Any]:
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    return content


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: parameter.distribution for name, parameter in space.parameters().items()}


def recomposed(space: Space, point: Draw) -> DictConfig:
    """What Hydra makes of the overrides of a draw."""
    hydra = space._master.hydra
    config = space._loader.load_configuration(
        hydra.job.config_name, [*hydra.overrides.hydra, *point.overrides], RunMode.RUN
    )
    OmegaConf.copy_cache(from_config=space._master, to_config=config)  # of ${now:…}
    return config


# --- the grammar --------------------------------------------------------------------------------------------

GROUP = {"db/mysql": {"port": 1}, "db/mssql": {"port": 2}, "db/sqlite": {"port": 3}}

GRAMMAR: list[tuple[str, str, BaseDistribution]] = [
    # choices
    ("x", "1,2,5", CategoricalDistribution([1, 2, 5])),
    ("x", "a,b", CategoricalDistribution(["a", "b"])),
    ("x", "choice(a,b)", CategoricalDistribution(["a", "b"])),
    ("x", "choice(1)", CategoricalDistribution([1])),
    ("x", "choice(1,1,2)", CategoricalDistribution([1, 2])),
    ("x", "true,false,null", CategoricalDistribution([True, False, None])),
    ("x", "'a,b',\"c d\"", CategoricalDistribution(["a,b", "c d"])),
    ("x", "[1,2],{a:1}", CategoricalDistribution(["[1,2]", "{a:1}"])),
    ("x", "int(1.5,2.5)", CategoricalDistribution([1, 2])),
    ("x", "float(1,2)", CategoricalDistribution([1.0, 2.0])),
    ("x", "str(1,2)", CategoricalDistribution(["1", "2"])),
    ("x", "shuffle(3,1,2)", CategoricalDistribution([3, 1, 2])),
    ("x", "shuffle(choice(3,1,2))", CategoricalDistribution([3, 1, 2])),
    ("x", "sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
    ("x", "sort(choice(3,1,2),reverse=true)", CategoricalDistribution([3, 2, 1])),
    # ranges: the stop is excluded
    ("x", "range(3)", IntDistribution(0, 2)),
    ("x", "range(1,10)", IntDistribution(1, 9)),
    ("x", "range(1,10,3)", IntDistribution(1, 7, step=3)),
    ("x", "range(1,11,3)", IntDistribution(1, 10, step=3)),
    ("x", "range(10,1,-3)", IntDistribution(4, 10, step=3)),
    ("x", "range(0,-5,-1)", IntDistribution(-4, 0)),
    ("x", "range(4,5)", IntDistribution(4, 4)),
    ("x", "range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
    ("x", "range(0.1,0.7,0.1)", FloatDistribution(0.1, 0.6, step=0.1)),
    ("x", "range(1,0,-0.5)", FloatDistribution(0.5, 1.0, step=0.5)),
    ("x", "float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0)),
    ("x", "int(range(0.5,3.5))", IntDistribution(0, 2)),
    ("x", "float(int(range(0.5,3.5)))", FloatDistribution(0.0, 2.0, step=1.0)),
    ("x", "float(sort(range(10,1,-3)))", FloatDistribution(4.0, 10.0, step=3.0)),
    ("x", "tag(log,float(range(1,100)))", FloatDistribution(1.0, 99.0, log=True)),
    ("x", "shuffle(range(1,10))", IntDistribution(1, 9)),
    ("x", "sort(range(10,1,-3))", IntDistribution(4, 10, step=3)),
    ("x", "tag(log,range(1,100))", IntDistribution(1, 99, log=True)),
    ("x", "tag(log,range(1.0,100.0))", FloatDistribution(1.0, 99.0, log=True)),
    # intervals: both ends included
    ("x", "interval(0,1)", FloatDistribution(0.0, 1.0)),
    ("x", "interval(-1e-3,1e-3)", FloatDistribution(-1e-3, 1e-3)),
    ("x", "interval(2,2)", FloatDistribution(2.0, 2.0)),
    ("x", "int(interval(1,8))", IntDistribution(1, 8)),
    ("x", "tag(log,interval(1e-5,1e-1))", FloatDistribution(1e-5, 1e-1, log=True)),
    ("x", "tag(log,int(interval(1,128)))", IntDistribution(1, 128, log=True)),
    ("x", "int(tag(log,interval(1,128)))", IntDistribution(1, 128, log=True)),
    # options of a config group
    ("db", "mysql,sqlite", CategoricalDistribution(["mysql", "sqlite"])),
    ("db", "glob(*)", CategoricalDistribution(["mssql", "mysql", "sqlite"])),
    ("db", "glob(m*)", CategoricalDistribution(["mssql", "mysql"])),
    ("db", "glob([my*,sq*])", CategoricalDistribution(["mysql", "sqlite"])),
    ("db", "glob(*,exclude=mssql)", CategoricalDistribution(["mysql", "sqlite"])),
    ("db", "glob([m*,s*],exclude=[*q*l])", CategoricalDistribution(["sqlite"])),
]
ROWS = [f"{key}={sweep}" for key, sweep, _ in GRAMMAR]


@pytest.fixture(scope="module")
def tables(make_space: MakeSpace) -> list[dict[str, BaseDistribution]]:
    """Two studies that search every row of the table at once: from the command line, and from the params."""
    sweeps = {
        f"+{key}@row{i}" if key == "db" else f"+row{i}": sweep for i, (key, sweep, _) in enumerate(GRAMMAR)
    }
    spaces = [
        make_space({"config": {}, **GROUP}, *(f"{key}={sweep}" for key, sweep in sweeps.items())),
        make_space({"config": tuned(**sweeps), **GROUP}),
    ]
    found: list[dict[str, BaseDistribution]] = []
    for space in spaces:
        searched: dict[str, BaseDistribution] = {}

        def take(name: str, distribution: BaseDistribution, searched: dict[str, Any] = searched) -> Any:
            searched[name.removeprefix("db@")] = distribution
            return Parameter(name, name, distribution).ends()[0]

        space.draw(take)
        found.append(searched)
    return found


@pytest.mark.parametrize("row", range(len(GRAMMAR)), ids=ROWS)
def test_grammar(tables: list[dict[str, BaseDistribution]], row: int) -> None:
    """Each sweep of Hydra's grammar is the same distribution on the command line and in the params."""
    on_the_command_line, in_the_params = tables
    assert on_the_command_line[f"row{row}"] == in_the_params[f"row{row}"] == GRAMMAR[row][2]


SENSELESS = [
    ("x=tag(log,interval(0,1))", "a logarithm needs a range above 0"),
    ("x=tag(log,interval(-1,1))", "a logarithm needs a range above 0"),
    ("x=tag(log,range(0,10))", "a logarithm needs a range above 0"),
    ("x=tag(log,int(interval(0.5,10)))", "a logarithm needs a range above 0"),
    ("x=tag(log,range(1,10,3))", "a logarithmic range has no step"),
    ("x=tag(log,choice(1,10))", "a choice has no scale"),
    ("x=tag(uniform,interval(0,1))", "there is no tag uniform"),
    ("x=tag(log,twice,range(1,9))", "there is no tag twice"),
    ("x=range(5,5)", "the range is empty"),
    ("x=range(5,1)", "the range is empty"),
    ("x=range(1,5,-1)", "the range is empty"),
    ("x=range(1,5,0)", "a step other than 0"),
    ("x=range(0,inf)", "a range needs finite ends"),
    ("x=range(0,1,nan)", "a range needs finite ends"),
    ("x=float(range(0,inf))", "a range needs finite ends"),
    ("x=int(range(0,3,0.5))", "a step other than 0|unevenly spaced"),
    ("x=interval(1,0)", "the interval ends before it starts"),
    ("x=interval(0,inf)", "an interval needs two finite ends"),
    ("x=interval(nan,1)", "an interval needs two finite ends"),
    ("x=interval(a,b)", "interval"),
    ("x=interval(1)", "interval"),
    ("x=choice()", "empty choice is not legal"),
    ("x=glob(*)", "nothing to choose from"),
    ("db=glob(z*)", "nothing to choose from"),
]


@pytest.fixture(scope="module")
def app(make_space: MakeSpace) -> Space:
    return make_space({"config": config("db: mysql", x=0), **GROUP})


@pytest.mark.parametrize(("argument", "reason"), SENSELESS, ids=[argument for argument, _ in SENSELESS])
def test_what_cannot_mean_anything_is_an_error(app: Space, argument: str, reason: str) -> None:
    """A sweep that cannot mean anything is one line that names the key and the reason."""
    with pytest.raises(BadInput, match=rf"^{argument.partition('=')[0]}=.*({reason})") as error:
        Space(app._master, [argument], app._loader)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sweep", ["tag(log,interval(0,1))", "choice()", "interval(1,0)"])
def test_senseless_params_are_the_same_errors(make_space: MakeSpace, sweep: str) -> None:
    """A range in hydra.sweeper.params is refused as on the command line."""
    with pytest.raises(BadInput, match=r"^x=.*(a logarithm needs|empty choice|ends before it starts)"):
        draw(make_space({"config": {"x": 0, **tuned(x=sweep)}}))


def test_a_cast_never_loses_a_scale(make_space: MakeSpace) -> None:
    """A range that is logarithmic inside a cast stays so, or is refused: Hydra 1.3 drops its tag."""
    try:
        found = str(distributions(make_space({"config": {"x": 0}}, "x=int(tag(log,range(1,100)))"))["x"])
    except BadInput as refusal:
        found = str(refusal)
    assert "log=True" in found or found.endswith("write tag(log, int(…))")


SURVIVORS: list[tuple[str, Any]] = [
    ("'a,b'", "a,b"),
    ('"a,b"', "a,b"),
    ("'it\\'s'", "it's"),
    ('"it\'s"', "it's"),
    ("'say \"yes\"'", 'say "yes"'),
    (r"'back\slash'", r"back\slash"),
    (r"'ends in \\'", "ends in \\"),
    (r"C:\\dir", r"C:\dir"),
    ("a b", "a b"),
    ("' padded '", " padded "),
    ("'a=b'", "a=b"),
    ("'(x)[y]{z}:'", "(x)[y]{z}:"),
    ("''", ""),
    ("'ü✓'", "ü✓"),
    ("null", None),
    ("'null'", "null"),
    ("true", True),
    ("'true'", "true"),
    ("1", 1),
    ("1.0", 1.0),
    ("'1'", "1"),
    ("'1.0'", "1.0"),
    ("0", 0),
    ("false", False),
    ("1e-5", 1e-5),
    ("inf", math.inf),
    ("[1,2]", [1, 2]),
    ("['1',a b,null]", ["1", "a b", None]),
    ("[]", []),
    ("{a:1,b:[true,'x,y']}", {"a": 1, "b": [True, "x,y"]}),
    ("{a:{b:'1'}}", {"a": {"b": "1"}}),
]


def test_values_survive_the_way_into_the_config(make_space: MakeSpace) -> None:
    """Every kind of value arrives in the config as it was written, and composes from the override again."""
    keys = {f"x{i}": (text, expected) for i, (text, expected) in enumerate(SURVIVORS)}
    space = make_space(
        {"config": dict.fromkeys(keys)},
        *(f"{key}=choice(' {key}',{text})" for key, (text, _) in keys.items() if text != "null"),
        *(f"{key}=0,null" for key, (text, _) in keys.items() if text == "null"),
    )
    point = space.draw(second)
    config = plain(point.config)
    for key, (_, expected) in keys.items():
        assert (config[key], type(config[key])) == (expected, type(expected))
    assert recomposed(space, point) == point.config


def test_look_alikes_are_told_apart(make_space: MakeSpace) -> None:
    """1, 1.0, '1', true and 'true' among the choices of one key each arrive as themselves."""
    space = make_space({"config": {"x": "nothing"}}, f"x={','.join(text for text, _ in SURVIVORS)}")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    (distribution,) = distributions(space).values()
    assert isinstance(distribution, CategoricalDistribution)
    for label, (_, expected) in zip(distribution.choices, SURVIVORS, strict=True):
        study.enqueue_trial({"x": label})
        value = plain(space.draw(suggest(study.ask())).config)["x"]
        assert (value, type(value)) == (expected, type(expected))


def test_nan_can_be_chosen(make_space: MakeSpace) -> None:
    """A NaN among the choices arrives as NaN."""
    space = make_space({"config": {"x": 0.0}}, "x=nan,1.0")
    values = [point.config.x for point in space.variations()]
    assert math.isnan(values[0])
    assert values[1:] == [1.0]


def test_yaml_values_are_plain_values(make_space: MakeSpace) -> None:
    """What is no sweep in hydra.sweeper.params is a plain override, of whatever YAML type."""
    params = tuned(a=3, b=True, c=None, d=[1, "x,y"], e="text", f=1e-5)
    space = make_space({"config": {**dict.fromkeys("abcdef"), **params}})
    point = draw(space)
    config = {key: plain(point.config)[key] for key in "abcdef"}
    assert config == {"a": 3, "b": True, "c": None, "d": [1, "x,y"], "e": "text", "f": 1e-5}
    assert recomposed(space, point) == point.config


# --- ranges that depend on options --------------------------------------------------------------------------

OPTIMIZERS: Files = {
    "config": config("optimizer: adam", optimizer={"lr": 0.1}, **tuned(optimizer__lr="interval(0, 1)")),
    "optimizer/adam": option("optimizer", {"name": "adam"}),
    "optimizer/sgd": option(
        "optimizer", {"name": "sgd", "momentum": 0.9}, optimizer__momentum="interval(0.8, 0.9)"
    ),
    "optimizer/rmsprop": option("optimizer", {"name": "rmsprop"}, optimizer__lr="interval(0, 0.1)"),
}


def test_momentum_only_where_sgd_is(make_space: MakeSpace) -> None:
    """A range in an option's file is drawn by the trials that drew the option, and only by them."""
    space = make_space(OPTIMIZERS, "optimizer=adam,sgd")
    assert draw(space, optimizer="adam").params == {"optimizer": "adam", "optimizer.lr": 0.0}
    assert draw(space, optimizer="sgd").params == {
        "optimizer": "sgd",
        "optimizer.lr": 0.0,
        "optimizer.momentum": 0.8,
    }


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("optimizer=adam,sgd", {"optimizer", "optimizer.lr", "optimizer.momentum"}),
        ("optimizer=rmsprop", {"optimizer.lr"}),
        ("optimizer=choice(rmsprop)", {"optimizer", "optimizer.lr"}),
        ("optimizer=adam,rmsprop", {"optimizer", "optimizer.lr", "optimizer.lr[optimizer=rmsprop]"}),
    ],
)
def test_a_name_says_whose_range_only_where_there_are_several(
    make_space: MakeSpace, argument: str, names: set[str]
) -> None:
    """``key[group=option]`` names a parameter where options of this study give the key different ranges."""
    assert set(make_space(OPTIMIZERS, argument).parameters()) == names


def test_options_that_agree_share_a_parameter(make_space: MakeSpace) -> None:
    """Two options with the same range, written with other spaces, have one parameter."""
    files = {
        **OPTIMIZERS,
        "optimizer/nag": option("optimizer", {"momentum": 0.9}, optimizer__momentum="interval(0.8,0.90)"),
    }
    space = make_space(files, "optimizer=sgd,nag")
    assert set(space.parameters()) == {"optimizer", "optimizer.lr", "optimizer.momentum"}


def test_an_option_replaces_the_range_of_the_config(make_space: MakeSpace) -> None:
    """The range in an option's file takes the place of the one in config.yaml."""
    space = make_space(OPTIMIZERS, "optimizer=rmsprop")
    assert distributions(space) == {"optimizer.lr": FloatDistribution(0.0, 0.1)}


def test_a_sweep_of_the_command_line_replaces_every_range_of_its_key(make_space: MakeSpace) -> None:
    """A sweep on the command line is the only range of its key, under its plain name."""
    space = make_space(OPTIMIZERS, "optimizer=adam,rmsprop", "optimizer.lr=interval(5, 6)")
    assert draw(space, optimizer="adam").params == {"optimizer": "adam", "optimizer.lr": 5.0}
    assert draw(space, optimizer="rmsprop").params == {"optimizer": "rmsprop", "optimizer.lr": 5.0}


def test_a_replaced_range_stays_conditional(make_space: MakeSpace) -> None:
    """A sweep on the command line over an option's range is drawn only with that option."""
    space = make_space(OPTIMIZERS, "optimizer=adam,sgd", "optimizer.momentum=0.1,0.2")
    assert "optimizer.momentum" not in draw(space, optimizer="adam").params
    assert draw(space, optimizer="sgd").config.optimizer.momentum == 0.1


def test_a_plain_value_of_the_command_line_fixes_its_key(make_space: MakeSpace) -> None:
    """A plain value on the command line takes the key out of the search."""
    space = make_space(OPTIMIZERS, "optimizer=sgd,rmsprop", "optimizer.lr=0.5")
    assert set(space.parameters()) == {"optimizer", "optimizer.momentum"}
    point = draw(space, optimizer="rmsprop")
    assert point.config.optimizer.lr == 0.5
    assert recomposed(space, point) == point.config


def test_options_may_be_chosen_in_the_params(make_space: MakeSpace) -> None:
    """A choice over a group in config.yaml is drawn first; the default's ranges belong to that option."""
    both = {**tuned(optimizer="choice(sgd, adam, rmsprop)", optimizer__lr="interval(0, 1)")}
    fast = option("optimizer", {"name": "sgd"}, optimizer__lr="interval(0, 9)")
    slow = option("optimizer", {"name": "rmsprop"}, optimizer__lr="interval(0, 9)")
    files = {
        **OPTIMIZERS,
        "config": config("optimizer: sgd", optimizer={"lr": 0.1}, **both),
        "optimizer/sgd": fast,
        "optimizer/rmsprop": slow,
    }
    found = {name: d for name, d in distributions(make_space(files)).items() if name != "optimizer"}
    assert len(found) == 3
    assert found["optimizer.lr"] == FloatDistribution(0, 1)
    assert found["optimizer.lr[optimizer=sgd]"] == FloatDistribution(0, 9)
    assert found["optimizer.lr[optimizer=rmsprop]"] == FloatDistribution(0, 9)


def test_the_command_line_overrules_a_choice_of_the_params(make_space: MakeSpace) -> None:
    """A value on the command line fixes a group that config.yaml would draw; a sweep narrows it."""
    files = {
        **OPTIMIZERS,
        "config": config("optimizer: adam", optimizer={"lr": 1}, **tuned(optimizer="adam,sgd,rmsprop")),
    }
    assert make_space(files, "optimizer=adam").parameters() == {}
    assert distributions(make_space(files, "optimizer=adam,rmsprop"))["optimizer"] == CategoricalDistribution(
        ["adam", "rmsprop"]
    )


def test_a_plain_option_of_the_params_brings_its_plain_values(make_space: MakeSpace) -> None:
    """An option fixed in hydra.sweeper.params may bring plain values and ranges of its own."""
    files = {
        "config": config("optimizer: adam", **tuned(optimizer="sgd")),
        "optimizer/adam": option("optimizer", {"name": "adam"}),
        "optimizer/sgd": option(
            "optimizer", {"lr": 0.1, "m": 0}, optimizer__lr="0.7", optimizer__m="range(3)"
        ),
    }
    space = make_space(files)
    point = draw(space)
    assert (point.config.optimizer.lr, point.params) == (0.7, {"optimizer.m": 0})
    assert recomposed(space, point) == point.config


NESTED: Files = {
    "config": config("optimizer: adam", "scheduler: none"),
    "optimizer/adam": option("optimizer", {"name": "adam"}),
    "optimizer/sgd": option(
        "optimizer", {"name": "sgd", "m": 0}, optimizer__m="1,2", scheduler="step,cosine"
    ),
    "scheduler/none": option("scheduler", {"name": "none"}),
    "scheduler/step": option("scheduler", {"name": "step", "gamma": 0}, scheduler__gamma="range(3)"),
    "scheduler/cosine": option("scheduler", {"name": "cosine"}),
}


def test_an_option_may_bring_a_choice_over_another_group(make_space: MakeSpace) -> None:
    """Options are drawn until a composition brings no new choice, then its ranges."""
    space = make_space(NESTED, "optimizer=adam,sgd")
    assert draw(space, optimizer="adam").config.scheduler.name == "none"
    point = draw(space, optimizer="sgd", scheduler="step", scheduler__gamma=2, optimizer__m=2)
    assert point.params == {"optimizer": "sgd", "scheduler": "step", "optimizer.m": 2, "scheduler.gamma": 2}
    assert OmegaConf.to_container(point.config.scheduler) == {"name": "step", "gamma": 2}
    assert recomposed(space, point) == point.config


def test_points_are_every_point_once(make_space: MakeSpace) -> None:
    """A conditional space that can be counted is counted: each point once, the last parameter fastest."""
    points = list(make_space(NESTED, "optimizer=adam,sgd", "optimizer.m=1,2").points())
    assert points == [
        {"optimizer": "adam"},
        *[
            {"optimizer": "sgd", "scheduler": "step", "optimizer.m": m, "scheduler.gamma": gamma}
            for m in (1, 2)
            for gamma in (0, 1, 2)
        ],
        *[{"optimizer": "sgd", "scheduler": "cosine", "optimizer.m": m} for m in (1, 2)],
    ]


def test_points_hold_the_values_of_float_ranges(make_space: MakeSpace) -> None:
    """The values of a float range are the decimals that were written, and counting down changes nothing."""
    assert [p["x"] for p in make_space({"config": {"x": 0}}, "x=range(0.1,0.5,0.1)").points()] == [
        0.1,
        0.2,
        0.3,
        0.4,
    ]
    assert [p["x"] for p in make_space({"config": {"x": 0}}, "x=range(5,0,-2)").points()] == [1, 3, 5]


def test_points_of_a_continuous_range_are_an_error(make_space: MakeSpace) -> None:
    """A grid over an interval is refused, and the key named."""
    with pytest.raises(BadInput, match=r"^x=interval\(0\.0, 1\.0\): a grid needs values that can be counted"):
        list(make_space({"config": {"x": 0}}, "x=interval(0,1)").points())


def test_variations_show_every_option_and_both_ends(make_space: MakeSpace) -> None:
    """Each option and both ends of each range stand in some variation, the conditional ones too."""
    space = make_space(NESTED, "optimizer=adam,sgd")
    drawn = [point.params for point in space.variations()]
    for name, values in {
        "optimizer": {"adam", "sgd"},
        "scheduler": {"step", "cosine"},
        "scheduler.gamma": {0, 2},
        "optimizer.m": {1, 2},
    }.items():
        assert {params[name] for params in drawn if name in params} == values


def test_a_range_hidden_by_another_option_is_found(make_space: MakeSpace) -> None:
    """Where options of two groups set one key, the parameters of every combination are known beforehand."""
    files = {
        "config": config("optimizer: adam", "freezing: head", optimizer={"lr": 0.1}),
        "optimizer/adam": option("optimizer", {}, optimizer__lr="interval(0, 1)"),
        "optimizer/sgd": option("optimizer", {}, optimizer__lr="interval(0, 2)"),
        "freezing/head": option("freezing", {}, optimizer__lr="interval(0, 3)"),
        "freezing/none": option("freezing", {}),
    }
    space = make_space(files, "optimizer=adam,sgd", "freezing=head,none")
    assert distributions(space) == {
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
        "freezing": CategoricalDistribution(["head", "none"]),
        "optimizer.lr[freezing=head]": FloatDistribution(0, 3),
        "optimizer.lr[optimizer=adam]": FloatDistribution(0, 1),
        "optimizer.lr[optimizer=sgd]": FloatDistribution(0, 2),
    }


@pytest.mark.slow
def test_a_default_option_of_a_group_that_is_sometimes_drawn_keeps_its_range(make_space: MakeSpace) -> None:
    """A group that only one option draws has its default's ranges elsewhere, under a name of their own."""
    files = {
        **NESTED,
        "scheduler/none": option("scheduler", {"x": 0}, scheduler__x="range(3)"),
        "scheduler/step": option("scheduler", {"x": 0}, scheduler__x="range(5)"),
        "scheduler/cosine": option("scheduler", {"x": 0}, scheduler__x="range(5)"),
    }
    space = make_space(files, "optimizer=adam,sgd")
    names = [name for name in space.parameters() if name.startswith("scheduler.x")]
    ranges = [distributions(space)[name] for name in names]
    assert ranges.count(IntDistribution(0, 2)) == 1
    assert IntDistribution(0, 4) in ranges


TWO_OWNERS: Files = {
    "config": config("optimizer: adam", "model: small", optimizer={"lr": 0.1}),
    "model/small": option("model", {"top": 1}),
    "model/large": option("model", {"top": 2}),
    "optimizer/adam": option("optimizer", {}, optimizer__lr="interval(0, ${model.top})"),
    "optimizer/sgd": option("optimizer", {}),
}


def test_a_range_that_depends_on_two_groups_is_an_error(make_space: MakeSpace) -> None:
    """Two ranges are never mixed in one parameter: what depends on two drawn groups is refused, and named."""
    space = make_space(TWO_OWNERS, "optimizer=adam,sgd", "model=small,large")
    with pytest.raises(BadInput, match=r"^optimizer\.lr=interval\(0, 2\).*depends on more than one option"):
        list(space.variations())


def test_a_range_may_refer_to_the_config(make_space: MakeSpace) -> None:
    """An interpolation in an option's range is resolved in the composed config."""
    space = make_space(TWO_OWNERS, "optimizer=adam,sgd", "model=large")
    assert distributions(space)["optimizer.lr"] == FloatDistribution(0, 2)


def test_one_group_in_two_packages_is_two_choices(make_space: MakeSpace) -> None:
    """``db@source`` and ``db@target`` are drawn independently."""
    files = {"config": config("db@source: mysql", "db@target: mysql"), **GROUP}
    space = make_space(files, "db@source=mysql,sqlite", "db@target=mysql,mssql")
    assert set(space.parameters()) == {"db@source", "db@target"}
    point = space.draw(second)
    assert (point.config.source.port, point.config.target.port) == (3, 2)
    assert recomposed(space, point) == point.config


# --- draws --------------------------------------------------------------------------------------------------


def test_the_overrides_compose_to_the_same_config(make_space: MakeSpace) -> None:
    """Each variation's override list, given to Hydra, makes the config that the draw has."""
    space = make_space(
        OPTIMIZERS,
        "optimizer=adam,sgd,rmsprop",
        "+new.key=1,'x y'",
        "++optimizer.extra=range(2)",
        "+fixed=[1,2]",
    )
    n_points = 0
    for point in space.variations():
        assert recomposed(space, point) == point.config
        n_points += 1
    assert n_points > 6


def test_every_plain_override_of_the_command_line_counts(make_space: MakeSpace) -> None:
    """Several overrides of one key are applied in order, as Hydra does; a deletion too."""
    space = make_space({"config": {"x": 0, "y": 1}}, "+d={a:1}", "+d={b:2}", "~y", "x=1,2")
    point = draw(space, x=2)
    assert OmegaConf.to_container(point.config.d) == {"a": 1, "b": 2}
    assert "y" not in point.config
    assert recomposed(space, point) == point.config


def test_a_sweep_over_no_key_is_an_error(make_space: MakeSpace) -> None:
    """A misspelt key is not added in silence, whether swept on the command line or in the params."""
    with pytest.raises(BadInput, match=r"^learning_rat=1: there is no such key"):
        list(make_space({"config": {"learning_rate": 0}}, "learning_rat=1,2").variations())
    with pytest.raises(BadInput, match=r"^learning_rat=interval\(0,1\): there is no such key"):
        list(make_space({"config": {"learning_rate": 0, **tuned(learning_rat="interval(0,1)")}}).variations())


def test_adding_a_key_that_is_there_is_an_error(make_space: MakeSpace) -> None:
    """``+key`` over a key that exists is refused as by Hydra, since its overrides would not compose."""
    with pytest.raises(BadInput, match=r"^\+x=1: "):
        list(make_space({"config": {"x": 0}}, "+x=1,2").variations())


def test_the_job_has_its_number_and_dirname(make_space: MakeSpace) -> None:
    """hydra.job gets the trial's number, and the dirname that Hydra would give these overrides."""
    settings = {
        "job": {"config": {"override_dirname": {"exclude_keys": ["seed"], "item_sep": ";", "kv_sep": "~"}}}
    }
    space = make_space({"config": {"x": 0, "hydra": settings}}, "x=1,2", "+seed=7")
    point = space.draw(lambda name, distribution: 2, {"num": 12, "id": "12"})
    assert point.overrides == ["+seed=7", "x=2"]
    assert list(point.config.hydra.overrides.task) == point.overrides
    assert (point.config.hydra.job.num, point.config.hydra.job.id) == (12, "12")
    assert point.config.hydra.job.override_dirname == "x~2"
    assert recomposed(space, point).hydra.job.override_dirname == "x~2"


def test_draws_share_nothing(make_space: MakeSpace) -> None:
    """What one trial does to its config does not reach the next."""
    space = make_space({"config": {"x": 0, "many": [1], "deep": {"a": 1}}}, "x=1,2")
    first = draw(space)
    first.config.many.append(2)
    first.config.deep.a = 5
    first.config.hydra.job.name = "other"
    second = draw(space)
    assert (second.config.many, second.config.deep.a, second.config.hydra.job.name) == ([1], 1, "app")
    assert recomposed(space, second) == second.config


def test_numbers_arrive_as_numbers(make_space: MakeSpace) -> None:
    """An int range gives ints and a float range floats, to the last digit, in config and override."""
    space = make_space({"config": {"n": 0, "f": 0.0}}, "n=range(1,5)", "f=tag(log,interval(1e-7,1))")
    for seed in range(5):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        point = space.draw(suggest(trial))
        assert type(point.config.n) is int
        assert (point.config.n, point.config.f) == (trial.params["n"], trial.params["f"])
        assert recomposed(space, point) == point.config


def test_a_space_without_anything_swept_has_one_point(make_space: MakeSpace) -> None:
    """A sweep over nothing runs the config as it is."""
    space = make_space({"config": {"x": 3}})
    assert list(space.points()) == [{}]
    assert draw(space).config.x == 3


def test_draws_are_independent(make_space: MakeSpace) -> None:
    """Two draws of one combination share nothing that can be written, an option that is a list included."""
    space = make_space({"config": {"x": [0], "y": {"z": 1}}}, "x=[1],[2]")
    first, second = draw(space), draw(space)
    first.config.x.append(3)
    first.config.y.z = 2
    assert second.config.x == draw(space).config.x == [1]
    assert second.config.y.z == draw(space).config.y.z == 1


def test_points_are_walked_once(make_space: MakeSpace) -> None:
    """A grid does not get dearer as it fills: who asks again gets the points that were made before."""
    space = make_space({"config": {"x": 0, "y": 0}}, "x=range(3)", "y=range(4)")
    some = space.points()
    first = [next(some) for _ in range(5)]
    points = list(space.points())
    assert len({str(point) for point in points}) == len(points) == 12
    assert all(a is b for a, b in zip(first + list(some), points, strict=True))
