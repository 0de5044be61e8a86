"""Passwords: hidden in whatever is said."""

from __future__ import annotations

import pytest
import yaml

from sweeper.errors import BadInput
from sweeper.secret import hide_known_secrets, hide_known_secrets_in, hide_secrets, remember_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://ann:hunter2@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("postgresql://ann:p@ss/w:rd@host/db", "postgresql://ann:***@host/db"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("mysql://host/db?user=ann&password=hunter2&ssl=1", "mysql://host/db?user=ann&password=***&ssl=1"),
        ("host=a password=hunter2 dbname=b", "host=a password=*** dbname=b"),
        ("'postgresql://ann:hunter2@host/db', x", "'postgresql://ann:***@host/db', x"),
        ("postgresql://ann@site:hunter2@host/db", "postgresql://ann@site:***@host/db"),
        ("postgresql://ann:hunter2", "postgresql://ann:***"),
        ("postgresql://ann:$hunter/db", "postgresql://ann:***/db"),
        ("postgresql://ann@host:5432/db http://[::1]:80", "postgresql://ann@host:5432/db http://[::1]:80"),
        ("at postgresql://host:5432, is away", "at postgresql://host:5432, is away"),
        ("sqlite:////tmp/a@b:c.db", "sqlite:////tmp/a@b:c.db"),
        ("grpc://host:13000 user@host", "grpc://host:13000 user@host"),
        ("grpc://host:port", "grpc://host:port"),
        ("model.n_tokens=512 key=1", "model.n_tokens=512 key=1"),
    ],
)
def test_a_password_is_hidden_and_nothing_else(text: str, shown: str) -> None:
    """In a URL, a query or a connection string; what only looks like one stays."""
    assert hide_secrets(text) == shown


def test_a_known_password_is_hidden_in_every_form() -> None:
    """Drivers repeat a password without its URL, quoted or not."""
    remember_secrets("postgresql://ann:s%40crets@host/db")
    assert hide_secrets("FATAL: s@crets is wrong (s%40crets)") == "FATAL: *** is wrong (***)"
    assert (
        hide_known_secrets("url: postgresql://ann:s%40crets@host/db") == "url: postgresql://ann:***@host/db"
    )
    assert hide_known_secrets("url: postgresql://bob:other@host/db") == "url: postgresql://bob:other@host/db"


def test_content_without_a_password_can_still_be_read() -> None:
    """Each value by itself: YAML takes *** for something of its own."""
    remember_secrets("postgresql://ann:4711@host/db")
    content = {"password": "4711", "pin": 4711, "overrides": ["password=4711"], "n": 3, "rest": [True, None]}
    hidden = {"password": "***", "pin": "***", "overrides": ["password=***"], "n": 3, "rest": [True, None]}
    assert yaml.safe_load(yaml.safe_dump(hide_known_secrets_in(content))) == hidden


def test_a_password_that_is_a_common_word_hides_no_other_text() -> None:
    """In its URL it is hidden; elsewhere nobody could tell it from the user or the driver."""
    remember_secrets("postgresql://optuna:optuna@host/db")
    said = "optuna.samplers: postgresql://optuna:optuna@host/db"
    assert hide_secrets(said) == "optuna.samplers: postgresql://optuna:***@host/db"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:hunter two@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:hun'ter@host/db", "postgresql://ann:***@host/db"),
        ("postgresql:ann:hunter2@host/db", "postgresql:ann:***@host/db"),
        ("postgresql:/ann:hunter2@host/db", "postgresql:/ann:***@host/db"),
        ("postgresql://ann:hunter2", "postgresql://ann:***"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("{a:b}", "{a:b}"),
    ],
)
def test_a_password_in_a_value_is_hidden_however_it_is_written(url: str, shown: str) -> None:
    """Where the whole value is the URL, also one with spaces, quotes, or without slashes or host."""
    assert str(BadInput("storage", url, f"no {url}", "write")) == f"storage={shown}: no {shown}; write"
