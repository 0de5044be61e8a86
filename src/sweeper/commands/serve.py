"""``sweeper serve``: studies for machines that reach only a port of this one, by Optuna's gRPC proxy."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import shlex
import socket
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from ipaddress import ip_address
from threading import Lock
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper.commands.arrival import find_study
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.program import program
from sweeper.secret import hide_secrets
from sweeper.words import counted

_N_THREADS = 10
"""As many requests at a time as Optuna's own server answers; each has a connection to the database."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers would share a port, and each have half of the requests
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients ask whether it is still there
    ("grpc.keepalive_permit_without_calls", 1),
)
"""Source: https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h."""


def serve(study: str | None, storage_url: str | None, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        study: whose storage is served, where no URL is given; without either the default journal.

    Raises:
        BadInput: if the storage cannot be opened or served, or the port is taken.
        Fault: if the disk fails.
    """
    from sweeper.search.patience import PatientStorage
    from sweeper.search.storage import open_storage

    url = _storage_url(study, storage_url)
    n_threads = 1 if url.startswith("sqlite") else _N_THREADS
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    server = _take_port(n_threads, host, port)
    storage = open_storage(url, n_connections=n_threads)
    n_studies = len(storage.get_all_studies())
    assert isinstance(storage, PatientStorage)
    storage.wait_s = 0  # whoever asks waits, and knows how long
    _answer(server, storage)
    try:
        for line in _warned(url, host):
            print(line, file=sys.stderr, flush=True)
        print(*_told(url, n_studies, host, port), sep="\n", flush=True)
        server.wait_for_termination()
    except KeyboardInterrupt:
        print()
        server.stop(grace=1).wait()


def _storage_url(study: str | None, url: str | None) -> str:
    from sweeper.search.storage import absolute

    key, named = "--storage", url
    if study and not url:
        key, named = "STUDY", find_study(study).read_storage()
    remedy = "write --storage with a path for a journal, or postgresql+psycopg://…"
    if named == "memory":
        raise BadInput(key, url or study, "is the memory of one process", remedy)
    if named is not None and named.startswith("grpc:"):
        raise BadInput(key, url or study, "is a proxy already", remedy)
    return absolute(named)


def _take_port(n_threads: int, host: str, port: int) -> Any:
    """A server that has its port, and does not answer yet."""
    from sweeper.search.proxy import PORT, address

    if not 0 < port < 1 << 16:
        raise BadInput("--port", port, "no machine has such a port", f"write --port {PORT}")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what is wrong is told here
    try:
        for package in ("google.protobuf", "grpc"):
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed"
        raise BadInput("sweeper", "serve", reason, 'python -m pip install "sweeper[grpc]"') from error
    import grpc

    _tell_in_one_line(logging.getLogger("grpc"))
    server = grpc.server(ThreadPoolExecutor(n_threads), options=_OPTIONS)
    try:
        server.add_insecure_port(address(host, port))
    except RuntimeError as error:
        raise _not_taken(host, port) from error
    return server


def _not_taken(host: str, port: int) -> BadInput:
    """What keeps a server from taking a port, which gRPC does not tell."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        reason, remedy = f"cannot be used ({error.strerror})".lower(), "write an address of this machine"
        return BadInput("--host", host, reason, remedy)
    reason = "cannot be used"
    with socket.socket(family, kind) as probe:
        try:
            probe.bind(place)
        except OSError as error:
            reason = f"cannot be used ({error.strerror})".lower()
            if error.errno == errno.EADDRNOTAVAIL:
                return BadInput("--host", host, reason, "write an address of this machine")
    return BadInput("--port", port, reason, f"write another, as --port {port % 65535 + 1}")


def _answer(server: Any, storage: BaseStorage) -> None:
    from optuna.storages._grpc.auto_generated import api_pb2_grpc

    service = _service(storage)
    api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    server.add_generic_rpc_handlers((_own_methods(service),))
    server.start()


def _own_methods(service: Any) -> Any:
    """What Optuna's clients do not ask for."""
    import grpc
    from optuna.storages._grpc.auto_generated import api_pb2

    from sweeper.search.proxy import ENDS, SERVICE

    answer = grpc.unary_unary_rpc_method_handler(
        service.GetEnds,
        request_deserializer=api_pb2.GetTrialsRequest.FromString,
        response_serializer=api_pb2.GetTrialsReply.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {ENDS: answer})


# ------------------------------------------------------------------------------------------------- answering


def _service(storage: BaseStorage) -> Any:
    """Optuna's own, in which a server that is away is no fault of this one, and long studies cost little."""
    import grpc
    from optuna.storages._grpc.auto_generated import api_pb2, api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService, _to_proto_trial

    from sweeper.search.ledger import has_begun
    from sweeper.search.storage_error import Away

    read = _Reading(storage)

    class Service(OptunaStorageProxyService):
        def GetTrials(self, request: Any, context: Any) -> Any:
            try:
                trials = read.trials(
                    request.study_id, request.trial_id_greater_than, request.included_trial_ids
                )
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            return api_pb2.GetTrialsReply(trials=[_to_proto_trial(trial) for trial in trials])

        def GetEnds(self, request: Any, context: Any) -> Any:
            """As GetTrials, without those of the included that still run."""
            known = set(request.included_trial_ids)
            try:
                trials = read.trials(request.study_id, request.trial_id_greater_than, [*known], has_begun)
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            news = [t for t in trials if t._trial_id not in known or t.state is not TrialState.RUNNING]
            return api_pb2.GetTrialsReply(trials=[_to_proto_trial(trial) for trial in news])

    def told(answer: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with faults told as what the one who asked understands: to wait, or to end."""

        @wraps(answer)
        def call(self: Any, request: Any, context: Any) -> Any:
            try:
                return answer(self, request, context)
            except Fault as fault:
                code = grpc.StatusCode.UNAVAILABLE if isinstance(fault, Away) else grpc.StatusCode.INTERNAL
                context.abort(code=code, details=hide_secrets(fault.reason))

        return call

    for name in [*vars(api_pb2_grpc.StorageServiceServicer), "GetEnds"]:
        if not name.startswith("_"):
            setattr(Service, name, told(getattr(Service, name)))
    return Service(storage)


class _Reading:
    """The trials that a client may not know, found without looking at all, as Optuna's server does."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._lock = Lock()
        self._ids: dict[int, list[int]] = {}
        """Of each study, the numbers of its trials in the storage; they rise."""

    def trials(
        self, study_id: int, after: int, included: list[int], is_settled: Callable[[Any], bool] | None = None
    ) -> list[Any]:
        """Those with an id above ``after``, and those whose ids are included.

        Args:
            is_settled: see ``changed_trials``.
        """
        from sweeper.search.change import changed_trials

        with self._lock:
            ids = self._ids.setdefault(study_id, [])
            n_known = bisect_right(ids, after)
            there = (bisect_left(ids, trial_id) for trial_id in included if trial_id <= after)
            numbers = [number for number in there if number < n_known]
        _, found = changed_trials(self._storage, study_id, n_known, numbers, is_settled)
        with self._lock:
            for trial in found:
                if trial.number == len(ids):
                    ids.append(trial._trial_id)
        wanted = {*included}
        return [trial for trial in found if trial._trial_id > after or trial._trial_id in wanted]


# --------------------------------------------------------------------------------------------------- telling


def _told(url: str, n_studies: int, host: str, port: int) -> list[str]:
    from sweeper.search.proxy import address

    here = address(host if _is_this_machine(host) else _reached_as(host), port)
    lines = [
        f"Storage: {hide_secrets(url)} ({counted(n_studies, 'study', 'studies')})",
        f"Serving it at grpc://{here}  (Ctrl-C ends it)",
        f"Join a study: {program()} -m study=NAME hydra.sweeper.join=true hydra.sweeper.storage=grpc://{here}",
    ]
    if _is_this_machine(host):
        tunnel = f"ssh -N -L {port}:{here} {shlex.quote(socket.gethostname())}"
        lines.append(f"Another machine reaches it by a tunnel: {tunnel}")
    return lines


def _warned(url: str, host: str) -> Iterator[str]:
    if not _is_this_machine(host):
        reason = (
            "it has no password and no encryption, and whoever reaches it can read and delete every study"
        )
        yield f"Warning: keep this port to machines that you trust: {reason}."
    if url.startswith("sqlite"):
        reason = "it answers one machine at a time, and may give the number of a deleted study again"
        yield f"Warning: SQLite is slow here: {reason}; a journal or PostgreSQL is better."


def _is_this_machine(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _reached_as(host: str) -> str:
    """How another machine names this one."""
    try:
        return socket.gethostname() if ip_address(host.strip("[]")).is_unspecified else host
    except ValueError:
        return host


def _tell_in_one_line(log: logging.Logger) -> None:
    """What goes wrong in a request is told without its traceback."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("serve: %(message)s"))
    log.addHandler(handler)
    log.propagate = False


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.exc_info = record.exc_text = None
        return hide_secrets(" ".join(super().format(record).split()))
