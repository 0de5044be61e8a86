"""The client of Optuna's gRPC proxy, which ``sweeper serve`` is."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_READY_S = 1.0
"""How long one attempt waits for a gRPC proxy to answer."""
PORT = 13000
"""Of Optuna's gRPC proxy, where nobody says another."""


_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
"""A machine that is gone without a word is missed within a minute, a proxy of the web is none of studies, and
a new channel connects at once: else it would share the others' connection, with its ever longer pauses.
Source: https://github.com/grpc/grpc/blob/master/doc/keepalive.md.
"""


SERVICE, ENDS = "sweeper.Storage", "GetEnds"
"""What ``sweeper serve`` answers besides Optuna's own: what ended, without all that still runs."""


class Proxy(GrpcStorageProxy):
    """Optuna's client of a gRPC proxy, which notices a server that is gone, and keeps what it has read."""

    def _setup(self) -> None:
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.client import GrpcClientCache

        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=_CHANNEL)
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        if hasattr(self, "_cache"):
            self._cache.grpc_client = self._stub
        else:
            self._cache = GrpcClientCache(self._stub)

    tells_ends = True
    """Whether the proxy is one of ours, for all that is known."""

    def ends(self, study_id: int, running: list[int], until: int) -> list[FrozenTrial] | None:
        """The trials after one, and which of the running ones have ended; None if it cannot tell them."""
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2

        ask = self._channel.unary_unary(
            f"/{SERVICE}/{ENDS}",
            request_serializer=api_pb2.GetTrialsRequest.SerializeToString,
            response_deserializer=api_pb2.GetTrialsReply.FromString,
        )
        try:
            return _asked(ask, study_id, running, until)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self.tells_ends = False
                return None
            raise

    def whole(self, study_id: int, included: list[int], until: int) -> list[FrozenTrial]:
        """These trials, and those after one, as Optuna's own proxy tells them, too."""
        return _asked(self._stub.GetTrials, study_id, included, until)

    def connect_again(self) -> None:
        self.close()
        self._setup()


def _asked(ask: Callable[[Any], Any], study_id: int, included: list[int], until: int) -> list[FrozenTrial]:
    import grpc
    from optuna.storages._grpc.auto_generated import api_pb2
    from optuna.storages._grpc.servicer import _from_proto_trial

    request = api_pb2.GetTrialsRequest(
        study_id=study_id, included_trial_ids=included, trial_id_greater_than=until
    )
    try:
        reply = ask(request)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise KeyError(study_id) from error
        raise
    return [_from_proto_trial(trial) for trial in reply.trials]


def open_proxy(url: str) -> BaseStorage:
    host, port = host_and_port(url)
    with warnings.catch_warnings():  # gRPC storages are still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = Proxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=_READY_S)
    except ConnectionError as error:
        storage.close()
        raise ConnectionError(_why_not_ready(host, port)) from error
    return storage


def host_and_port(url: str) -> tuple[str, int]:
    """Of ``grpc://HOST:PORT``; an address of IPv6 stands in brackets.

    Raises:
        ValueError: if no machine has them.
    """
    host, colon, port = url.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not colon or port.endswith("]"):
        host, port = f"{host}{colon}{port}", str(PORT)
    if not host or not 0 < (number := int(port)) < 1 << 16:
        raise ValueError("there is no such host or port")
    return host, number


def address(host: str, port: int) -> str:
    """``HOST:PORT``, as ``host_and_port`` reads it."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _why_not_ready(host: str, port: int) -> str:
    """What keeps a gRPC proxy from answering, which gRPC does not say."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=_READY_S):
            return "what listens there does not answer as a gRPC proxy"
    except OSError as error:
        return (error.strerror or str(error)).lower()
