"""S3 on this machine, by moto's server: a process of its own, with one bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.program import free_port, kill_group, listens, start, until

BUCKET = "models"


@contextmanager
def serving() -> Iterator[Mapping[str, str]]:
    """The environment in which programs find it."""
    pytest.importorskip("moto", reason="S3 needs moto")
    pytest.importorskip("flask", reason="moto's server needs moto[server]")
    boto3 = pytest.importorskip("boto3", reason="S3 needs boto3")
    port = free_port()
    server = start(Path.cwd(), "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
    keys = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        until(lambda: listens(port), limit_s=60)
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


def names() -> list[str]:
    """What the bucket holds."""
    boto3 = pytest.importorskip("boto3")
    return [each["Key"] for each in boto3.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def leave_half_of(name: str) -> None:
    """What a killed process leaves that was sending a large file."""
    boto3 = pytest.importorskip("boto3")
    boto3.client("s3").create_multipart_upload(Bucket=BUCKET, Key=name)


def halves() -> list[str]:
    """What was begun to be sent, and is not there."""
    boto3 = pytest.importorskip("boto3")
    return [
        each["Key"] for each in boto3.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    ]
