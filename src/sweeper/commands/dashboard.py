"""``sweeper dashboard``: optuna-dashboard on everything under ``outputs/``."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path

import optuna

from sweeper import record
from sweeper.errors import BadInput
from sweeper.program import program

HOST = "127.0.0.1"
"""optuna-dashboard has no authentication, and routes that delete."""


def serve(port: int, storage_url: str | None) -> None:
    """Serve until Ctrl-C.

    Raises:
        BadInput: if there are no studies, or the port is taken.
    """
    from sweeper.search.storage import open_storage

    storage_url, *others = [storage_url] if storage_url else record.find_storages()
    if storage_url is None:
        journal = Path(record.OUTPUTS, record.JOURNAL)
        remedy = f"run {program()} -m optimizer=adam,sgd, or write --storage URL"
        raise BadInput("outputs", journal, "there are no studies yet", remedy)
    _check_port(port)
    storage = open_storage(storage_url)
    for other in others:
        shown = "URL" if "@" in str(other) else shlex.quote(str(other))  # not a password
        print(f"More studies: {program()} dashboard --storage {shown}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for summary in storage.get_all_studies():
        _write_note(optuna.load_study(study_name=summary.study_name, storage=storage))
    from optuna_dashboard import run_server

    print(f"Dashboard: http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
    try:
        run_server(storage, host=HOST, port=port)
    except KeyboardInterrupt:
        print()


def _write_note(study: optuna.Study) -> None:
    """A note on the study saying how to reproduce its best trial. Not written by the search: importing this
    takes seconds."""
    from optuna_dashboard import get_note, save_note

    begun = study.user_attrs.get("sweeper")
    best = record.best_trials(study)
    if begun is None or not best:
        return
    folder = Path(os.path.relpath(begun["folder"]))
    name = folder.name if folder.parent == Path(record.OUTPUTS) else str(folder)
    lines = []
    for trial in best:
        values = ", ".join(f"{value:.5g}" for value in trial.values)
        lines += [f"**Best trial: {trial.number}** ({values})", ""]
        if record.StudyFiles(folder).trial(trial).run.is_complete:
            number = f" --trial {trial.number}" if len(best) > 1 else ""
            lines += ["```", f"{program()} reproduce {shlex.quote(name)}{number}", "```", ""]
    note = "\n".join(lines)
    if get_note(study) != note:
        save_note(study, note)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise BadInput(
                "--port", port, f"cannot be used ({error})", f"write another, as --port {(port + 1) % 65536}"
            ) from error
