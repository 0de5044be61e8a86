"""Waiting for the server of a storage: it may be away for a while, and come back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from copy import copy
from random import SystemRandom
from typing import Any, TypeVar

from optuna.exceptions import (
    DuplicatedStudyError,
    UpdateFinishedTrialError,
)
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import TrialState

from sweeper.search.delegate import Delegate
from sweeper.search.proxy import Proxy
from sweeper.search.storage_error import Away, StudyDeleted, fault_of, is_away, named, reason_of, remedy_of
from sweeper.secret import hide_secrets

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
"""Between two attempts to reach a server: a thousand workers come back over this time, not at once."""


T = TypeVar("T")
_OF_A_STUDY = ("create_new_trial", "get_all_trials")
"""What is asked with the number of a study."""


class PatientStorage(Delegate):
    """A storage whose faults are one line each, and whose server is tried again while it cannot be reached.

    What Optuna itself raises (a parameter of another kind, a trial that has ended) passes. A server may have
    done what it was told when its answer was lost, so that all is done again in a way that does no harm:

    - Attributes, parameters and reported values are the same the second time.
    - A study is not created twice.
    - A trial that has ended just as it was told has been told; one that somebody else ended has not.
    - A trial may be created twice: who asked finds that it has one more than it knows, and gives it back.

    Raises:
        Fault: from every method, where the disk fails, the server stays away, or the study was deleted.
    """

    def __init__(self, storage: BaseStorage, url: str, wait_s: float) -> None:
        super().__init__(storage)
        self._url = url
        self.wait_s = wait_s
        """How long a server is tried again; may be changed at any time."""
        self._study_id = -1
        """That of the trials that were read or begun last."""

    def read(self, study_id: int, reading: Callable[[BaseStorage], T]) -> T:
        """What a reading of the storage itself finds about a study, begun again as often as it takes."""
        self._study_id = study_id
        found: T = self._patiently("", reading)
        return found

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        if name in _OF_A_STUDY:
            self._study_id = arguments[0]
        return self._patiently(name, lambda storage: getattr(storage, name)(*arguments, **named), *arguments)

    def _patiently(self, name: str, call: Callable[[BaseStorage], Any], *arguments: Any) -> Any:
        waiting, has_read = Waiting(self._url, lambda: self.wait_s), False
        while True:
            try:
                return call(self._storage)
            except UpdateFinishedTrialError:
                if waiting.has_begun and name == "set_trial_state_values" and self._is_told(*arguments):
                    return True
                raise
            except DuplicatedStudyError:
                if waiting.has_begun:
                    return self._call("get_study_id_from_name", arguments[1])
                raise
            except KeyError as error:
                if waiting.has_begun and name == "delete_study":
                    return None
                if has_read or name != "set_trial_param":
                    raise StudyDeleted(self._url) from error
                # A proxy that was restarted knows no trial whose study nobody has read since.
                has_read = bool(self._call("get_all_trials", self._study_id, deepcopy=False))
            except Exception as error:
                if is_away(error):
                    _connect_again(self._storage)  # also where nobody waits, for the next that is asked
                    waiting.go_on(error)
                elif (fault := fault_of(error, self._url)) is not None:
                    raise fault from error
                else:
                    raise

    def _is_told(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Whether a trial has ended with this state and these values."""
        trial = self.get_trial(trial_id)
        return trial.state == state and (values is None or list(values) == trial.values)


def patient(storage: BaseStorage, url: str, wait_s: float) -> BaseStorage:
    """The storage, whose server is tried again for so long."""
    return PatientStorage(storage, url, wait_s)  # type: ignore[abstract]  # its methods were made in a loop


def aside(storage: BaseStorage) -> BaseStorage:
    """The same storage for another thread of this process, which does not wait for a server that is away."""
    if not isinstance(storage, PatientStorage):
        return storage
    inner, url = storage._storage, storage._url
    # A channel is closed and opened again by whoever finds the server away.
    return patient(copy(inner) if isinstance(inner, GrpcStorageProxy) else inner, url, 0.0)


def _connect_again(storage: BaseStorage) -> None:
    """gRPC tries a server that was away again after ever longer pauses; a new channel tries at once."""
    if isinstance(storage, Proxy):
        storage.connect_again()


class Waiting:
    """Waits for a server that cannot be reached, says so once, and gives up in time.

    Args:
        wait_s: gives how long, which may become less meanwhile.
    """

    def __init__(self, url: str, wait_s: Callable[[], float], kind: type[Away] = Away) -> None:
        self._url, self._wait_s, self._kind = url, wait_s, kind
        self._began_s: float | None = None
        self._n_pauses = 0

    @property
    def has_begun(self) -> bool:
        return self._began_s is not None

    def go_on(self, error: Exception) -> None:
        """Wait a moment.

        Raises:
            Away: when that was long enough.
        """
        wait_s, now = self._wait_s(), time.monotonic()
        if self._began_s is None:
            self._began_s = now
            if wait_s:
                what = f"{named(self._url)} cannot be reached ({reason_of(error)})"
                log.warning("%s: trying again for up to %.0f s", hide_secrets(what), wait_s)
        if now - self._began_s >= wait_s:
            waited = f", for {wait_s:.0f} s" if wait_s else ""
            raise self._kind(
                named(self._url),
                f"cannot be reached{waited} ({reason_of(error)})",
                remedy_of(self._url, error) or "start it, or check its address and the network",
            ) from error
        self._pause(min(now + pause_s(self._n_pauses), self._began_s + wait_s))
        self._n_pauses += 1

    def _pause(self, end: float) -> None:
        """In short steps: a stop signal ends the patience."""
        while (left := end - time.monotonic()) > 0 and self._wait_s():
            time.sleep(min(left, _FIRST_PAUSE_S))


def pause_s(n_pauses: int) -> float:
    """How long to wait for a server after so many pauses: anything up to a limit that doubles each time.

    Workers that have lost their server in one moment so come back one by one. Source: M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """
    # Not the global generator, which an app seeds alike in all of its processes.
    return _random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(n_pauses, 16)))


_random = SystemRandom()
