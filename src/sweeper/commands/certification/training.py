"""The trainings: the search's own command, run as the certificate's."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from sweeper import caller, child
from sweeper.caller import Failed
from sweeper.commands.best import tell_certificate
from sweeper.commands.certification.pair import Pair, hydra_of
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import living
from sweeper.program import TRUST, program, start
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import Plan


def train(pair: Pair, plan: Plan, words: Sequence[str]) -> None:
    """Run the search's own command as the certificate's.

    Raises:
        BadInput, Fault, Failed: what has ended it.
        KeyboardInterrupt, SystemExit: if it was stopped; what is known is written and shown before.
    """
    plan.write(pair.files)  # first: a marked folder without a plan would be a search's
    pair.files.mark(pair.name, pair.seen.files.read_storage() or "")
    try:
        with _heeding_sigterm():
            child.run(words, hear=_pass_on)
    except (KeyboardInterrupt, SystemExit):
        if (certificate := pair.made(plan)) is not None:
            certificate.write(pair.files)
            tell_certificate(certificate)
        _forget_unbegun(pair)
        raise
    except (BadInput, Fault, Failed):
        if (certificate := pair.made(plan)) is not None:
            certificate.write(pair.files)
        _forget_unbegun(pair)
        raise


def refuse_others(pair: Pair) -> None:
    """Raises BadInput while another command makes it, or where its folder is gone and not its study."""
    if living(pair.files.heartbeats):
        reason = "the certificate is being made"
        raise BadInput("STUDY", pair.name, reason, "wait for its end, or stop it with Ctrl-C")
    from sweeper.search.storage import look_into_storage

    storage = look_into_storage(pair.seen.files.read_storage() or "")
    if not pair.files.is_ours and pair.name in (s.study_name for s in storage.get_all_studies()):
        remedy = f"remove it: {program()} studies --delete {shlex.quote(pair.name)}"
        raise BadInput("STUDY", pair.name, "is in the storage, and its folder is gone", remedy)


def words(pair: Pair) -> list[str]:
    """What runs the certificate, by this Python.

    Raises:
        BadInput: where the app is not found from here, or nobody here has ever typed the command.
    """
    found = pair.seen.elsewhere(pair.name, pair.files.folder)
    assert found is not None  # _check has said it
    (first, *rest), arguments = found
    if pair.seen.files.has_arrived and not pair.trust:
        reason = f"this would run a command that stands in the storage: {shlex.join(pair.seen.command)}"
        raise BadInput("STUDY", pair.seen.name, reason, f"write {TRUST} too if you would type it yourself")
    is_python = Path(first).name.startswith("python")
    if Path(first).name == "sweeper" or (is_python and rest == ["-m", "sweeper"]):
        return [*start(), *([TRUST] if pair.trust else []), *arguments]
    if not is_python or not rest:
        reason = f"its search was started by {first}, which sweeper does not run"
        raise BadInput("STUDY", pair.seen.name, reason, "start the search by python APP.py -m")
    is_there = Path(rest[0]).is_file() if len(rest) == 1 else _finds_module(rest[1])
    if not is_there:
        where = _started_in(pair.seen.files)
        remedy = f"repeat it in the folder where the search was started{f', {where}' if where else ''}"
        reason = f"its app, {rest[-1]}, is not found from here"
        raise BadInput("STUDY", pair.seen.name, reason, remedy)
    return [sys.executable, "-u", *rest, *arguments]


def _forget_unbegun(pair: Pair) -> None:
    """Leave no trace of a certificate whose study was never begun."""
    if pair.files.is_ours and pair.record() is None:
        pair.files.remove_mark()


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Let a SIGTERM end the trainings in order, as it does a search."""

    def stop(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    from sweeper.search.process import handling

    with handling(stop, signal.SIGTERM):
        yield


def _pass_on(said: Mapping[str, Any]) -> None:
    """What the command has said that is of interest to the program which has started this one."""
    if "networks" in said:
        caller.say(networks=said["networks"])


def _finds_module(name: str) -> bool:
    return PathFinder.find_spec(name.partition(".")[0], [str(Path.cwd()), *sys.path]) is not None


def _started_in(files: StudyFiles) -> str:
    """The folder where a search was started; empty where nobody knows."""
    return str(hydra_of(files).get("runtime", {}).get("cwd", ""))
