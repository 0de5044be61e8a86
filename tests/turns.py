"""Many hosts in one process: threads that take turns at each step on a storage, in the order of a seed."""

from __future__ import annotations

import abc
import copy
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage

_LIMIT_S = 60.0


class Killed(BaseException):
    """The host is gone: nothing more that it does reaches the storage."""


class Host(threading.Thread):
    """A thread that only runs when it is its turn."""

    def __init__(self, turns: Turns, name: str, body: Callable[[Host], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._turns, self._body = turns, body
        self.go = threading.Semaphore(0)
        self.is_dead = False
        self.dies_after: int | None = None
        """So many steps; None is never."""
        self.is_slow = False
        self.is_opening = False
        """Nobody else has a turn then: what is made but once, Python makes under one lock of all."""
        self.error: BaseException | None = None

    def run(self) -> None:
        self.go.acquire()
        try:
            self._body(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self._turns.leave(self)

    def step(self) -> None:
        """Let others have a turn."""
        if self.is_opening:
            return
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.is_dead = True
        if self.is_dead:
            raise Killed
        self._turns.next(self)


class Turns:
    """Who is next."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._hosts: list[Host] = []
        self._all_done = threading.Event()

    def add(self, name: str, body: Callable[[Host], None]) -> Host:
        host = Host(self, name, body)
        self._hosts.append(host)
        return host

    def run(self) -> None:
        """To the end of all."""
        for host in self._hosts:
            host.start()
        everybody = list(self._hosts)
        self._choose().go.release()
        assert self._all_done.wait(_LIMIT_S), "the hosts wait for each other"
        for host in everybody:
            if host.error is not None:
                raise host.error

    def _choose(self) -> Host:
        chosen = self.random.choice(self._hosts)
        if chosen.is_slow and self.random.random() < 0.9:
            chosen = self.random.choice(self._hosts)
        return chosen

    def next(self, host: Host) -> None:
        chosen = self._choose()
        if chosen is not host:
            chosen.go.release()
            assert host.go.acquire(timeout=_LIMIT_S)

    def leave(self, host: Host) -> None:
        self._hosts.remove(host)
        if self._hosts:
            self._choose().go.release()
        else:
            self._all_done.set()


class Server(InMemoryStorage):
    """What all hosts reach; as in PostgreSQL, an attribute may be written to a trial that has just ended."""

    def write_late(self, trial_id: int, kind: str, name: str, value: Any) -> None:
        trial = copy.copy(self._get_trial(trial_id))
        setattr(trial, kind, {**getattr(trial, kind), name: value})
        self._set_trial(trial_id, trial)


class Connection(BaseStorage):
    """A host's way to the server: others have their turn before each call, and answers may be lost.

    Args:
        loses: how often a call is made twice, because the answer to the first one was lost.
    """

    def __init__(self, server: Server, host: Host, random: Random, loses: float = 0.0) -> None:
        self._server, self._host, self._random, self._loses = server, host, random, loses

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        self._host.step()
        call = getattr(self._server, name)
        is_lost = self._random.random() < self._loses
        if is_lost and name in ("create_new_trial", "set_trial_state_values"):
            call(*arguments, **named)
            self._host.step()
            try:
                return call(*arguments, **named)
            except UpdateFinishedTrialError:
                return True  # as PatientStorage
        if name in ("set_trial_user_attr", "set_trial_system_attr") and self._random.random() < 0.2:
            trial_id, key, value = arguments
            call(trial_id, "seen", True)  # it runs
            self._host.step()
            kind = "user_attrs" if name == "set_trial_user_attr" else "system_attrs"
            self._server.write_late(trial_id, kind, key, value)
            return None
        return call(*arguments, **named)


def _method(name: str) -> Any:
    def call(self: Connection, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    return call


for _name in [name for name in vars(BaseStorage) if not name.startswith("_")]:
    setattr(Connection, _name, _method(_name))
abc.update_abstractmethods(Connection)  # type: ignore[type-abstract]
