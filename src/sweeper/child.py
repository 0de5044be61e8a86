"""Runs the command line, or the app of a search, for another program, as a process of its own.

So workers are forked from a clean process, nothing of Hydra or logging stays behind in the program, and a
search resumes, prunes and survives a kill exactly as that of a terminal does.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from sweeper import caller
from sweeper.caller import Failed
from sweeper.program import start

_TICK_S = 0.25
"""How often a command is asked whether it has ended, of which another process may hold the output open."""

_Command = subprocess.Popen[bytes]


def call(words: Sequence[str], hear: Callable[[Mapping[str, Any]], object]) -> Mapping[str, Any]:
    """Run ``sweeper WORDS`` to its end; see ``run``."""
    return run([*start(), *words], hear)


def run(words: Sequence[str], hear: Callable[[Mapping[str, Any]], object]) -> Mapping[str, Any]:
    """Run a command that says what ends it (``caller``) to its end.

    Where this program prints to files or terminals, so does the command; else its output is passed on line
    by line. A SIGINT is passed on, too, and the command's orderly end waited for; a second one kills its
    workers.

    Args:
        hear: is given what the command has said, however it has ended.

    Returns:
        the same, where it has ended well.

    Raises:
        BadInput, Fault, Failed: what has ended it.
        KeyboardInterrupt: if it was interrupted.
    """
    with tempfile.TemporaryFile() as file, _heeding_signals() as heed:
        command, shown = _start(words, file.fileno())
        try:
            heed(command)
            _follow(command, shown)
        finally:
            _end(command)
            hear(said := caller.heard(file.fileno()))
    _raise_for(command.returncode, said)
    return said


def _raise_for(code: int, said: Mapping[str, Any]) -> None:
    signum = -code if code < 0 else code - 128
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    folder = next((Path(said[kind]) for kind in ("study", "run") if kind in said), None)
    if isinstance(error := said.get("error"), Failed):
        error.folder = folder
    if error is not None:
        raise error
    if code:
        reason = f"it was stopped by {_name(signum)}" if signum > 0 else f"it ended with exit code {code}"
        raise Failed("sweeper", reason, "repeat the call: a search that has a name goes on", folder)


def _name(signum: int) -> str:
    try:
        name = signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
    return f"{name} (out of memory, or kill -9)" if signum == signal.SIGKILL else name


# ------------------------------------------------------------------------------------- starting and ending


def _start(words: Sequence[str], file: int) -> tuple[_Command, dict[IO[bytes], TextIO]]:
    """The command, and what is to be passed on of its output, and to where."""
    inherited = [_inherited(sys.stdout), _inherited(sys.stderr)]
    # A thread is never interrupted: its command stays in the group, which a terminal interrupts as a whole.
    group = "own" if _is_main_thread() else "same"
    command = subprocess.Popen(
        words,
        process_group=0 if group == "own" else None,
        stdin=subprocess.DEVNULL,
        stdout=inherited[0],
        stderr=inherited[1],
        env={**os.environ, caller.VARIABLE: caller.told_by(file, group)},
        pass_fds=[file],
    )
    pairs = ((command.stdout, sys.stdout), (command.stderr, sys.stderr))
    return command, {pipe: stream for pipe, stream in pairs if pipe is not None}


def _inherited(stream: Any) -> int:
    """What a command gets in the place of an output of this program: the same file, or a pipe."""
    if stream is None:  # as under pythonw
        return subprocess.DEVNULL
    if not isinstance(stream, io.TextIOWrapper):  # a notebook's has a number, and it is that of a log
        return subprocess.PIPE
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return subprocess.PIPE


def _end(command: _Command) -> None:
    """Let no command be left, whatever has ended this call: its output may have met an error."""
    for pipe in (command.stdout, command.stderr):
        if pipe is not None:
            pipe.close()
    if command.poll() is None:
        command.terminate()
        command.wait()


# ---------------------------------------------------------------------------------------------- its output


def _follow(command: _Command, shown: dict[IO[bytes], TextIO]) -> None:
    """Pass the output on, in this thread, until the command has ended.

    What it has started may outlive it, and hold its output open: that is not waited for.
    """
    with selectors.DefaultSelector() as selector:
        for pipe, stream in shown.items():
            selector.register(pipe, selectors.EVENT_READ, _Lines(stream))
        while selector.get_map():
            has_ended = command.poll() is not None
            ready = selector.select(0 if has_ended else _TICK_S)
            if has_ended and not ready:
                break
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                key.data.write(piece)
                if not piece:
                    selector.unregister(key.fileobj)
        for key in selector.get_map().values():
            key.data.write(b"")
    command.wait()


class _Lines:
    """Writes bytes as whole lines of text, as they come; nothing says that there are no more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(locale.getpreferredencoding(False))(errors="replace")
        self._begun = ""

    def write(self, piece: bytes) -> None:
        text = self._begun + self._decoder.decode(piece, final=not piece)
        n = text.rfind("\n") + 1 if piece else len(text)
        whole, self._begun = text[:n], text[n:]
        if whole:
            self._stream.write(whole)
            self._stream.flush()


# ------------------------------------------------------------------------------------------------- signals


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _heeding_signals() -> Iterator[Callable[[_Command], None]]:
    """While a command runs, it gets each SIGINT once, and is stopped and continued with this program.

    It has a process group of its own, so that neither a terminal nor a notebook, which may signal a whole
    group, tells it the same again.

    Yields:
        what to call with the command, once it is there.

    Raises:
        KeyboardInterrupt: at the end, if there was a SIGINT.
    """
    if not _is_main_thread():  # which alone has signals
        yield lambda command: None
        return
    n_interrupts = n_passed_on = 0
    commands = list[_Command]()

    def interrupt(signum: int, frame: object) -> None:
        nonlocal n_interrupts
        n_interrupts += 1
        pass_on()

    def pass_on() -> None:
        nonlocal n_passed_on
        while commands and n_passed_on < n_interrupts:
            n_passed_on += 1
            commands[0].send_signal(signal.SIGINT)

    def stop(signum: int, frame: object) -> None:
        for command in commands:
            _signal_group(command, signal.SIGSTOP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # until somebody continues it
        signal.signal(signal.SIGTSTP, stop)
        for command in commands:
            _signal_group(command, signal.SIGCONT)

    def heed(command: _Command) -> None:
        commands.append(command)
        pass_on()

    before: dict[int, Any] = {}
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):  # C code's could not be given back
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, stop)
    try:
        yield heed
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)
    if n_interrupts:
        signal.raise_signal(signal.SIGINT)  # for the program's own handler, if it has one
        raise KeyboardInterrupt


def _signal_group(command: _Command, signum: signal.Signals) -> None:
    try:
        os.killpg(command.pid, signum)
    except ProcessLookupError:  # it has just begun, or has ended
        return
