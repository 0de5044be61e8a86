"""Where the files go that are too large for a study's storage: Optuna's artifact stores, a folder or S3."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import BadInput
from sweeper.fault import Fault, of_disk
from sweeper.filesystem import size, sweep_up_beside, whole
from sweeper.secret import hide_secrets
from sweeper.words import expanded

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "hydra.sweeper.artifacts"

_S3 = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_WITHOUT_SLASHES = re.compile(r"(?i)(s3|gs|https?):")
"""Of a store on which somebody has forgotten slashes; no folder is called so."""
_PREFIX = re.compile(r"[\w!.*'()/-]*", re.ASCII)
_REMEDY = "write a folder that can be written to, or s3://BUCKET/PREFIX"
_PIECE = 1 << 20
_WAIT_S, _TRIES = 10, 3
"""For an answer of S3, and how often it is asked: a search does not wait longer for a copy of its weights."""


def absolute(place: str, key: str = KEY) -> str:
    """The same place, wherever a process runs.

    Args:
        key: what named it.

    Raises:
        BadInput: for what is no place.
    """
    if "://" not in place and not _WITHOUT_SLASHES.match(place):
        return str(expanded(place).absolute())
    bucket, _, prefix = place.removeprefix(_S3).partition("/")
    if not place.startswith(_S3):
        raise BadInput(key, place, "is neither a folder nor on S3", _REMEDY)
    if "@" in place or "?" in place:
        remedy = "write s3://BUCKET/PREFIX; credentials come from the environment, as AWS_ACCESS_KEY_ID"
        raise BadInput(key, place, "has more than a bucket and a prefix in it", remedy)
    if not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise BadInput(key, place, "is no bucket with a prefix", _REMEDY)
    return place.rstrip("/")


class Artifacts:
    """An artifact store; what is written is there whole, or not at all.

    Raises:
        Fault: from every method, where the disk fails, or S3 does not answer or refuses.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        is_s3 = place.startswith(_S3)
        bucket, _, prefix = place.removeprefix(_S3).partition("/")
        self._prefix = f"{prefix}/" if is_s3 and prefix else ""
        self._folder = None if is_s3 else Path(place)
        self._s3: Any = _client() if is_s3 else None
        self._bucket = bucket

    def id_of(self, name: str) -> str:
        """What ``FileSystemArtifactStore(folder)`` and ``Boto3ArtifactStore(bucket)`` call it."""
        return f"{self._prefix}{name}"

    def put(self, name: str, path: Path) -> None:
        with self._told():
            if self._folder is None:
                with path.open("rb") as file:
                    self._store.write(self.id_of(name), file)
            else:
                sweep_up_beside(self._folder / name)
                with whole(self._folder / name) as new:
                    _copy(path, new)

    def get(self, name: str, path: Path, done: Callable[[int], object] = lambda n: None) -> bool:
        """Write it to a path; whether it was there.

        Args:
            done: is told how many bytes more there are.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound

        with self._told():
            try:
                reader = self._store.open_reader(self.id_of(name))
            except ArtifactNotFound:
                return False
            with reader, whole(path) as new, new.open("wb") as file:
                while piece := reader.read(_PIECE):
                    file.write(piece)
                    done(len(piece))
        return True

    def size(self, name: str) -> int | None:
        """Its bytes; None where there is none."""
        if self._folder is not None:
            path = self._folder / name
            return size(path) if path.is_file() else None
        with self._told():
            try:
                return int(self._s3.head_object(Bucket=self._bucket, Key=self.id_of(name))["ContentLength"])
            except self._s3.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                    return None
                raise

    def remove(self, *names: str) -> None:
        """Remove them, where they are there, and what killed processes have sent of them by halves."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        with self._told():
            for name in names:
                with suppress(ArtifactNotFound):
                    self._store.remove(self.id_of(name))
                if self._folder is not None:
                    sweep_up_beside(self._folder / name)
            if self._folder is None and names:
                self._abort({self.id_of(name) for name in names})

    def _abort(self, ids: Collection[str]) -> None:
        """Give up the parts of uploads to S3, which it keeps, shows to nobody, and wants to be paid for."""
        with suppress(self._s3.exceptions.ClientError):  # these credentials must not, or it knows no parts
            pages = self._s3.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for upload in (each for page in pages for each in page.get("Uploads", ())):
                if upload["Key"] in ids:
                    self._s3.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    @property
    def _store(self) -> Any:
        if self._folder is not None:
            from optuna.artifacts import FileSystemArtifactStore

            return FileSystemArtifactStore(self._folder)
        from optuna.artifacts import Boto3ArtifactStore

        return Boto3ArtifactStore(self._bucket, self._s3)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Fault:
            raise
        except OSError as error:
            raise of_disk(error, error.filename or self.place) from error
        except Exception as error:
            if not _is_s3s(error):
                raise
            raise Fault(f"{KEY}={self.place}", _reason(error), _remedy(error)) from error


def check(place: str) -> None:
    """See whether it can be written to, before anything starts.

    Raises:
        BadInput: if it cannot.
    """
    import tempfile

    try:
        artifacts = Artifacts(place)
        name = f".sweeper-{os.getpid()}"
        with tempfile.NamedTemporaryFile() as file:
            artifacts.put(name, Path(file.name))
        artifacts.remove(name)
    except Fault as fault:
        remedy = fault.remedy if place.startswith(_S3) else _REMEDY
        raise BadInput(KEY, place, f"cannot be written ({fault.reason})", remedy) from fault


def check_readable(place: str, key: str) -> None:
    """Raises BadInput where there is no such store, or it does not let itself be read."""
    try:
        artifacts = Artifacts(place)
        if not place.startswith(_S3) and not Path(place).is_dir():
            raise BadInput(key, place, "there is no such folder", "write that of the search")
        artifacts.size(".sweeper")
    except Fault as fault:
        raise BadInput(key, place, f"cannot be read ({fault.reason})", fault.remedy) from fault


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        while piece := read.read(_PIECE):
            written.write(piece)


def _client() -> Any:
    """Endpoint, region and credentials are those of the environment, as every program of AWS reads them.

    Raises:
        BadInput: where boto3 is not installed.
    """
    try:
        boto3, config_of = import_module("boto3"), import_module("botocore.config").Config
    except ImportError as error:
        raise BadInput(KEY, "s3://…", "needs boto3", "pip install 'sweeper[s3]'") from error
    config = config_of(
        connect_timeout=_WAIT_S,
        read_timeout=_WAIT_S,
        retries={"total_max_attempts": _TRIES, "mode": "standard"},
    )
    for package in ("boto3", "botocore", "s3transfer", "urllib3"):  # where credentials were found, and such
        logging.getLogger(package).setLevel(logging.WARNING)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    try:
        return boto3.client("s3", config=config, region_name=region)
    except Exception as error:  # of a profile that is not there, an endpoint that is no URL
        raise Fault(KEY, _reason(error), _remedy(error)) from error


def _is_s3s(error: Exception) -> bool:
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(packages & {"boto3", "botocore", "s3transfer", "urllib3"})


def _reason(error: Exception) -> str:
    """What S3 said, in one line."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        told = answer.get("Error", {})
        return hide_secrets(f"{told.get('Code')}: {told.get('Message') or 'refused'}")
    told = hide_secrets(" ".join(str(error).split()))
    return _CODES.get(_code(told) or "", told) or type(error).__name__


_CODES = {
    "403": "no permission to write there",
    "404": "there is no such bucket",
    "AccessDenied": "no permission to write there",
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


def _code(told: str) -> str | None:
    """The code in what boto3's transfers make of an answer."""
    found = re.search(r"\((\w+)\) when calling", told)
    return found[1] if found else None


def _remedy(error: Exception) -> str:
    told = f"{type(error).__name__} {error}"
    if any(word in told for word in ("Credentials", "AccessKey", "Signature", "ProfileNotFound")):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "NoSuchBucket" in told or "404" in told:
        return "create the bucket, or write another"
    if "AccessDenied" in told or "403" in told:
        return "let these credentials write there, or write another place"
    return "see whether AWS_ENDPOINT_URL and the network are right"
