"""S3 on this machine, by moto's server: a process of its own, with one bucket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.program import kill_group, start, until

BUCKET = "models"


@contextmanager
def serving() -> Iterator[Mapping[str, str]]:
    """The environment in which programs find it."""
    pytest.importorskip("moto", reason="S3 needs moto")
    pytest.importorskip("flask", reason="moto's server needs moto[server]")
    boto3 = pytest.importorskip("boto3", reason="S3 needs boto3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(Path.cwd(), "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
    keys = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        until(lambda: _answers(port), limit_s=60)
        before = {name: os.environ.get(name) for name in keys}
        os.environ.update(keys)
        try:
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield keys
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    finally:
        kill_group(server)
        server.communicate()


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def names() -> list[str]:
    """What the bucket holds."""
    boto3 = pytest.importorskip("boto3")
    return [each["Key"] for each in boto3.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]
