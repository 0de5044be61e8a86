"""``sweeper dashboard``: optuna-dashboard on everything under ``outputs/``."""

from __future__ import annotations

import logging
import shlex
import sys
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna

from sweeper import outputs
from sweeper.commands.arrival import HERE, Source, find
from sweeper.commands.exhibit import exhibiting
from sweeper.commands.guard import guarded
from sweeper.errors import BadInput
from sweeper.program import program
from sweeper.record.mark import default_journal
from sweeper.secret import hide_secrets
from sweeper.words import near

HOST = "127.0.0.1"
"""optuna-dashboard has no authentication, and routes that delete."""


def serve(port: int, study: str | None, source: Source = HERE) -> None:
    """Serve until Ctrl-C. Nothing is written but what the person clicks.

    Args:
        study: whose storage is shown, where no URL is given; what other machines have sent of it comes here.

    Raises:
        BadInput: if there are no studies, or the port is taken.
        Fault: if their storage cannot be read.
    """
    from sweeper.search.storage import look_into_storage
    from sweeper.search.view import view

    storage_url = source.storage
    if study:
        storage_url = find(study, source).read_storage()
    storage_url, *others = [storage_url] if storage_url else outputs.find_storages()
    if storage_url is None:
        journal = near(default_journal())
        remedy = f"run {program()} -m optimizer=adam,sgd, or write --storage URL"
        raise BadInput("outputs", journal, "there are no studies yet", remedy)
    with _listen(port) as server:
        storage = view(look_into_storage(storage_url))
        for name in outputs.studies_in(others):
            print(f"More studies: {program()} dashboard {shlex.quote(name)}")
        server.set_app(guarded(exhibiting(_app(storage), storage)))
        print(f"Dashboard: http://{HOST}:{server.server_port}  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _app(storage: optuna.storages.BaseStorage) -> Any:
    """optuna-dashboard, which tells its errors in one line."""
    from optuna_dashboard import wsgi

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("dashboard: %(message)s"))
    log = logging.getLogger("optuna_dashboard")
    log.addHandler(handler)
    log.propagate = False
    app = wsgi(storage)
    app.catchall = False  # Bottle would print a traceback
    return app


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record).partition("\n")[0])


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request: browsers open connections ahead on which they ask for nothing."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):  # the browser has gone away
            print(hide_secrets(f"dashboard: {error!r}"), file=sys.stderr)


class _Handler(WSGIRequestHandler):
    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Who looks at what is nobody's concern."""


def _listen(port: int) -> _Server:
    """Take the port."""
    try:
        return _Server((HOST, port), _Handler)
    except (OSError, OverflowError) as error:
        raise BadInput(
            "--port", port, f"cannot be used ({error})", f"write another, as --port {(port + 1) % 65536}"
        ) from error
