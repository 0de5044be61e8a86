"""How a search ends: its last words, and what its exit code says."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from hydra.types import TaskFunction
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from sweeper import caller
from sweeper.caller import Ended, Failed
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.note import write_note
from sweeper.outcome import shown
from sweeper.results import belief, sign, study_sign
from sweeper.screen import Screen, whoever_reads
from sweeper.search import command, engine, life, opening
from sweeper.search.hooks import Hooks, call_logged
from sweeper.search.progress import summarize, tell_belief, tell_how_to_make_sure
from sweeper.search.sampler import is_grid
from sweeper.search.study import Study
from sweeper.words import counted, near, sentence

log = logging.getLogger(__name__)


def finish(study: Study, task: TaskFunction, master: DictConfig, signum: int | None) -> None:
    """Last words: the best trial and what to do next, or why it ended."""
    _bring(study)
    with study.locked() as locked:
        locked.reap()
        locked.write_results()  # a worker may have been killed before it did
    search, trials = study.search, shown(study.trials())
    if search.plan is None:  # who certifies says what the trainings show
        with whoever_reads():
            summarize(study)
        _show_belief(study)
        call_logged(partial(_show_signs, study), study.files.folder)
        _note(study, master)
        _send(study)
    if signum is not None:
        with whoever_reads():
            print(f"Stopped. To go on: {command.to_go_on(search, master)}", flush=True)
        sys.exit(128 + signum)
    if study.has_failed():
        _raise_for_failures(study)
    # Trials that still run are another sweep's, which goes on with this study at the same time.
    is_short = search.n_trials is not None and study.has_work() and not study.is_decided()
    if is_short and not study.has_time():
        caller.say(**{engine.OUT_OF_TIME: True})
        with whoever_reads():
            print("The time that is left to this job holds no other trial.", flush=True)
        return
    if is_short and search.deadline is None and not is_grid(search.sampler):
        n_finished = study.ledger.n_finished
        reason = f"only {n_finished} of {counted(search.n_trials or 0, 'trial')} could be run"
        if opening.is_chosen(master):  # whose jobs may be over, lost, or ended by somebody
            reason += f" before the jobs ended; see {near(study.files.launcher_log)}"
            caller.print_last(f"{sentence(reason)}\nTo ask for more jobs: {command.to_go_on(search, master)}")
        else:
            caller.print_last(sentence(reason))
        raise Ended(Failed(f"study {search.study_name}", reason, "its output says why"))
    if unseen := _unseen_at_the_end(study):
        _raise_for_unseen(study, master, unseen)
    on_finish = Hooks.of(task).on_finish if search.plan is None else None
    if on_finish is not None and trials:
        call_logged(on_finish, study.files.folder)
        _note(study, master)  # with what the app has only now added: its report, its test scores
        _send(study)
    elif search.plan is None and _can_certify(study, trials):
        with whoever_reads():
            tell_how_to_make_sure(study.files)


def _unseen_at_the_end(study: Study) -> list[FrozenTrial]:
    """The trials for which this search has left its budget unspent, and which maybe nobody runs any more."""
    n_trials = study.search.n_trials
    is_spent = n_trials is not None and study.ledger.n_finished >= n_trials
    return [] if is_spent or study.is_over() or study.is_decided() else study.unseen()


def _raise_for_unseen(study: Study, master: DictConfig, unseen: Sequence[FrozenTrial]) -> NoReturn:
    """Name the trials that may be lost, and the command that repeats them."""
    search = study.search
    noun = "trial" if search.plan is None else "training"
    of = "" if search.n_trials is None else f"of {counted(search.n_trials, noun)} "
    still = life.told_unseen(unseen, study.told(), noun)
    reason = f"only {study.ledger.n_finished} {of}ended: {still}"
    them = "it" if len(unseen) == 1 else "them"
    remedy = f"wait for {them}, or repeat what is gone: {command.to_take_over(search, master)}"
    caller.print_last(f"{reason[:1].upper()}{reason[1:]}; {remedy}")
    raise Ended(Failed(f"study {search.study_name}", reason, remedy))


def _raise_for_failures(study: Study) -> NoReturn:
    """Show the last failure, and end as a search of which too many trials failed."""
    failures, search = study.ledger.failed, study.search
    last = failures[max(failures)]
    with whoever_reads():
        print(last.user_attrs.get("traceback") or last.user_attrs.get("reason"), file=sys.stderr)
    reason = f"{counted(len(failures), 'trial')} failed, the last is number {last.number}"
    remedy = "fix the cause and start another study, or allow more failures"
    rate = f"hydra.sweeper.max_failure_rate={search.max_failure_rate}"
    caller.print_last(f"{rate}: {reason}; {remedy}")
    raise Ended(Failed(f"study {search.study_name}", reason, f"{remedy} ({rate})"))


def _can_certify(study: Study, trials: Sequence[FrozenTrial]) -> bool:
    """Whether there is a trial to train again, in a storage that stays, and nobody has yet."""
    is_done = any(t.state == TrialState.COMPLETE for t in trials)
    return is_done and study.files.can_be_read_again and not study.files.certified_by.is_certificate


def _note(study: Study, master: DictConfig) -> None:
    with study.locked():
        write_note(study.optuna, study.files, command.typed(study.search, master))


def _bring(study: Study) -> None:
    """Bring what other machines have sent, so that all say the same; what fails costs no result."""
    try:
        study.bring()
    except (BadInput, Fault) as error:
        log.warning("what other machines have trained is not here: %s", error)


def _send(study: Study) -> None:
    """Let other machines have what was found at the end; what fails costs no result."""

    def send(folder: Path) -> None:
        if study.sender is not None:
            study.sender.send_study()

    call_logged(send, study.files.folder)


def _show_belief(study: Study) -> None:
    """Say how sure the best trial is, and keep it for whoever reads the study; what fails costs no result."""
    try:
        if (found := belief.of(study.record())) is not None:
            study.files.write_belief(found.trial, found.to_json())
            with whoever_reads():
                tell_belief(found)
    except Exception as error:
        log.warning("how sure the best trial is cannot be said: %s", error)
        log.debug("", exc_info=True)


def _show_signs(study: Study, folder: Path) -> None:
    """Write what the study says, and show it with what its best trial says."""
    files, signs = study.files, study_sign.signs_of(study.record())
    sign.write(files.signs, signs)
    best = sign.read_whole(files.best.signs) if files.best.is_ours else []
    with whoever_reads():
        sign.show(screen := Screen(), shown := [*best, *signs], files.signs, files.best.signs)
        if not shown:  # else they stand apart from what follows
            screen.tell([""])
