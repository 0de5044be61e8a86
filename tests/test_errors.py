"""Bad input in one line: the key, the value, the reason and the remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sweeper.errors import BadInput, bad_option, bad_override, bad_setting, nearest
from sweeper.search.worker import to_values


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The config folder of an app with a group ``db``."""
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "mysql.yaml").write_text("port: 1\n")
    (tmp_path / "db" / "sqlite.yaml").write_text("port: 2\n")
    (tmp_path / "config.yaml").write_text("defaults: [_self_, db: mysql]\nx: 1\nlevel: {low: 0.5}\n")
    return tmp_path


def refusal(app: Path, *overrides: str) -> BadInput:
    """What is said to whoever writes these overrides."""
    with initialize_config_dir(str(app), version_base="1.3"), pytest.raises(Exception, match=r".") as error:
        compose("config", list(overrides))
    return bad_override(error.value, overrides, keys=("x", "level.low", "db.port"))


def test_it_names_key_value_reason_and_remedy() -> None:
    """In this order, in one line; ``None`` is written as in YAML."""
    assert str(BadInput("a.b", 3, "is odd", "write 2 or 4")) == "a.b=3: is odd; write 2 or 4"
    assert str(BadInput("a.b", None, "is missing", "write one")) == "a.b=null: is missing; write one"


@pytest.mark.parametrize("key", ["a.b", "k" * 5000])
@pytest.mark.parametrize("value", [1, "v" * 5000, "two\nlines", "\x1b[31mred\x07", "\udc80", "ключ"])
@pytest.mark.parametrize("reason", ["is odd", "r" * 5000, "is\nodd"])
@pytest.mark.parametrize("remedy", ["write 2", ", ".join(map(str, range(5000)))])
def test_it_is_one_short_line(key: str, value: object, reason: str, remedy: str) -> None:
    """300 characters at most, all of them to be seen; each part is there, and what fits is there whole."""
    said = str(BadInput(key, value, reason, remedy))
    assert len(said) <= 300
    assert said.isprintable()
    assert said.startswith(("a.b=", "k" * 20))
    assert said.endswith(("write 2", " 4999"))
    if len(f"{key}{value}{reason}{remedy}") < 200:
        assert "…" not in said


def test_a_password_is_hidden_before_a_value_is_cut() -> None:
    """No half of it is left in what remains of a long URL."""
    url = f"postgresql://me:{'secret' * 60}@host/db"
    said = str(BadInput("hydra.sweeper.storage", url, "cannot be opened", "start it"))
    assert "secret" not in said
    assert "postgresql://me:***@host/db" in said


def test_the_nearest_is_a_slip_away_or_is_not_named() -> None:
    """By itself, in its section, without it or in another; a word that is like no other has none."""
    keys = ["optimizer", "optimizer.lr", "optimizer.name", "training.epochs", "training.batch_size"]
    said = {
        "optimiser": "optimizer",
        "Optimizer": "optimizer",
        "optimizer.lrr": "optimizer.lr",
        "lr": "optimizer.lr",
        "epoch": "training.epochs",
        "batchsize": "training.batch_size",
        "training.lr": "optimizer.lr",
        "whatever": None,
        "": None,
    }
    assert {word: nearest(word, keys) for word in said} == said
    assert nearest("x", []) is None


def test_it_survives_the_way_between_processes() -> None:
    """A worker's bad input is told by the command as the worker said it."""
    error = BadInput("a.b", Path("x"), "is odd", "write 2")
    received = pickle.loads(pickle.dumps(error))
    assert str(received) == str(error)
    assert (received.key, received.value) == (error.key, error.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["x=2", "db=oracle"], "db=oracle: there is no such option; write one of mysql, sqlite"),
        (["levl.low=1"], "levl.low=1: there is no such key; did you mean level.low?"),
        (["level.lo=1", "x=2"], "level.lo=1: there is no such key; did you mean level.low?"),
        (["low=1"], "low=1: there is no such key; did you mean level.low?"),
        (["levle.port=1"], "levle.port=1: there is no such key; did you mean db.port?"),
        (["db=mysl"], "db=mysl: there is no such option; did you mean mysql? write one of mysql, sqlite"),
        (["+db=sqlite"], "db=sqlite: has an option already; write db=sqlite"),
        (["nothing=1"], "nothing=1: there is no such key; --cfg job shows the keys there are"),
        (["x=1,2"], "x=1,2: several values need a search; write -m x=1,2"),
        (["x=range(1, 2)"], "x=range(1, 2): several values need a search; write -m 'x=range(1, 2)'"),
        (["x=log(1,2)"], "x=log(1,2): Unknown function 'log'; write tag(log, interval(LOW, HIGH))"),
        (["hydra.nothing=1"], "hydra.nothing=1: there is no such key; --cfg hydra shows the keys there are"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_hydra_refuses_is_one_line(app: Path, overrides: list[str], line: str) -> None:
    """The override that is to blame is found among the others, with what to write instead."""
    assert str(error := refusal(app, *overrides)) == line
    assert not error.in_python.startswith(("write -m", "--"))  # which no program could follow


def test_grammar_is_told_with_the_override(app: Path) -> None:
    """What cannot be read as an override at all."""
    said = str(refusal(app, "x=[1"))
    assert said.startswith("x=[1: ")
    assert said.endswith("""write it in Hydra's override grammar, other text as 'x="…"'""")
    assert "\n" not in said
    assert "interval" in str(refusal(app, "x=intervall(1,2)")).partition("did you mean")[2]
    assert "Exception" not in str(refusal(app, "x=für"))


def test_bad_input_inside_of_another_error_is_told_as_it_is() -> None:
    """A resolver's own words reach the person, however deep they lie."""
    said = BadInput("objective", "best", "there is no such objective", "write val_loss")

    def resolve() -> str:
        raise said

    OmegaConf.register_new_resolver("refusing", resolve, replace=True)
    with pytest.raises(Exception, match="no such objective") as error:
        OmegaConf.to_container(OmegaConf.create({"a": "${refusing:}"}), resolve=True)
    assert bad_override(error.value, []) is said


def test_an_option_that_reads_as_a_number_is_named() -> None:
    """Hydra then says only that a group's override must be a string."""
    error = ValueError("Config group override must be a string or a list. Got int")
    options = {"db": ["mysql", "sqlite"]}
    said = bad_option(error, ["x=3", "db=18"], lambda group: options.get(group, []))
    assert str(said) == "db=18: there is no such option; write one of mysql, sqlite"
    others = ValueError("something else")
    assert bad_option(others, ["db=18"], lambda group: options.get(group, [])) is None


def test_what_hydra_does_not_check_of_its_own_is_bad_input() -> None:
    """An exception from within Hydra is told of what was typed for it; one of the training's is not."""
    said = bad_setting(AssertionError(), ["x=3", "hydra.verbose=5"])
    assert str(said) == "hydra.verbose=5: AssertionError; --cfg hydra shows what it is otherwise"
    assert bad_setting(AssertionError(), ["x=3"]) is None
    with pytest.raises(TypeError, match="return the score") as raised:
        to_values(None, n_objectives=1)
    assert bad_setting(raised.value, ["hydra.verbose=5"]) is None
