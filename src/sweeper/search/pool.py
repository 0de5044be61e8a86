"""The pool: checks a sweep, starts its worker processes, watches them, and replaces the dead."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import optuna
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeper import caller, filesystem, record
from sweeper.caller import Ended, Failed
from sweeper.errors import BadInput
from sweeper.fault import Fault, FaultElsewhere, find_told
from sweeper.note import write_note
from sweeper.outcome import shown
from sweeper.program import program, python, typed_besides
from sweeper.record import StudyFiles
from sweeper.results import belief, sign, study_sign
from sweeper.results.study_record import HIDDEN, override
from sweeper.screen import Screen, fall_silent, whoever_reads
from sweeper.search import artifact, engine, keys, life, opening, repeat
from sweeper.search.fork import ForkingCrew, why_not_fork
from sweeper.search.heart import Heart
from sweeper.search.hooks import Hooks, call_logged
from sweeper.search.job import to_yaml
from sweeper.search.ledger import POOL, was_composed
from sweeper.search.life import Entry
from sweeper.search.process import LOST, Board, Crew, NotStarted, Process, ending, for_the_pool, is_heard
from sweeper.search.progress import Progress, summarize, tell_belief, tell_how_to_make_sure
from sweeper.search.sampler import is_grid, try_out
from sweeper.search.search import Search
from sweeper.search.settings import (
    check_objective,
    find_function,
    is_named_by_time,
    key_of,
    read_settings,
    rename,
    source_key,
    study_key,
)
from sweeper.search.space import Space
from sweeper.search.spawn import SpawningCrew
from sweeper.search.storage import PatientStorage, look_into_storage, open_storage
from sweeper.search.study import NameTaken, Study
from sweeper.search.trial import Interrupted, Interruption
from sweeper.search.worker import App, main, work
from sweeper.secret import hide_known_secrets, hide_secrets
from sweeper.words import counted, near, sentence

log = logging.getLogger(__name__)

_TICK_S = 0.25
_SHOWN_AT_ONCE = 20
"""So many running trials are read whole at each tick; the reports of more take many rows of a database."""
_SAME_SIGTERM_S = 0.5
_LAST_WORDS_S = 5.0
"""How long workers may take to tell their trials when the pool itself cannot go on."""
_RACE = "sweeper.results.race"
"""What the workers of a certificate ask who is next: it imports scipy."""
_DATABASE = "sweeper.search.database"
"""What workers need for a storage in a database: it imports SQLAlchemy, which takes half a second."""
_MAX_STILLBORN = 3
"""Workers in a row that died before they asked for a trial: the fourth would die as well."""


def sweep(
    settings: Mapping[str, Any],
    context: HydraContext,
    task: TaskFunction,
    master: DictConfig,
    arguments: Sequence[str],
) -> optuna.Study:
    """Run a whole sweep: what Hydra calls for ``-m``. Exits with 2, 1 or 130 (143) as docs/files.md says."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    app = App(context, task, master, tuple(arguments), Singleton.get_state())
    search: Search | None = None
    try:
        search, n_workers, gpus = read_settings(settings, master)
        is_here, n_jobs = (keys.read(settings)[name] for name in ("in_process", "n_jobs"))
        is_launched = opening.is_chosen(master)
        if is_launched:
            opening.check(master, search, is_here)
        # While nothing is open yet.
        has_none = is_here or is_launched
        crew = contextlib.nullcontext() if has_none else _open_crew(app, n_workers, search)
        with crew as workers:
            with _ended_by_ctrl_c():
                app, study, storage, space = _begin(app, search)
                search = study.search
            if is_launched:
                signum = opening.run(study, storage, master, opening.n_jobs(n_jobs))
            else:
                signum = _run_pool(app, study, storage, space, workers, n_workers, gpus)
        _finish(study, task, master, signum)
    except KeyboardInterrupt:  # nothing has begun
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if (told := find_told(error)) is None:
            raise
        to_go_on = f"; to go on: {_to_go_on(search, master)}" if isinstance(told, Fault) else ""
        caller.print_last(f"{told}{to_go_on}")
        raise Ended(told) from error
    return study.optuna


def _run_pool(
    app: App,
    study: Study,
    storage: BaseStorage,
    space: Space,
    workers: tuple[Crew, Board] | None,
    n_workers: int,
    gpus: Sequence[str],
) -> int | None:
    """Run the trials in worker processes of this machine, or here where there are none."""
    with _heart(study, storage, n_workers, is_here=workers is None) as heart:
        study.search = replace(study.search, pool=heart.name)
        if workers is None:
            return _run_here(app, study, storage, space)
        with Progress(study) as progress:
            return Pool(study, storage, *workers, n_workers, gpus, progress, heart).run()


def _begin(app: App, search: Search) -> tuple[App, Study, BaseStorage, Space]:
    """Check everything, then open the study."""
    named_by, arguments = study_key(app.master), list(app.arguments)
    for n in count(2):
        space = Space(app.master, arguments, app.context.config_loader)
        check(Hooks.of(app.task), space, search, named_by)
        if search.plan is not None:
            has_own_space = search.custom_search_space is not None
            search = search.of_plan(repeat.checked(app.task, search.plan, space, has_own_space))
        if search.artifacts is not None:
            artifact.check(search.artifacts)
        opened = look_into_storage if search.is_joined else open_storage
        storage = opened(search.storage, search.storage_wait_s)
        if search.artifacts is None and (search := search.with_its_artifacts(storage)).artifacts is not None:
            artifact.check(search.artifacts)
        search = replace(search.in_its_folder(storage), command=tuple(_words()))
        fixed = [hide_secrets(o) for o in space.fixed if o.partition("=")[0] != named_by]
        try:
            study = Study.open(search, storage, space, fixed)
        except NameTaken:  # two searches began in one second
            search, arguments = rename(search, app.master, app.arguments, n)
            continue
        caller.say(study=str(study.files.folder))
        if search.plan is not None:
            search.plan.write(study.files)
        if not (search.is_joined and study.files.sweep_config.exists()):
            filesystem.write_whole(study.files.sweep_config, to_yaml(app.master))
        break
    return replace(app, arguments=tuple(arguments)), study, storage, space


def _heart(study: Study, storage: BaseStorage, n_workers: int, is_here: bool) -> Heart:
    """What tells the study of this pool; a search in its own process has no beat: the task may hold it up."""
    search = study.search
    entry = Entry.here(study.files, n_workers, None if is_here else search.heartbeat_s, engine.job())
    ordered = engine.order()
    n_stops = None if ordered is None else ordered.stops
    return Heart(storage, study.optuna._study_id, life.new_name(), entry, search.grace_s, n_stops)


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """While nothing has begun, a Ctrl-C ends the process at once: within a composition it might be lost."""
    before = signal.signal(signal.SIGINT, lambda signum, frame: os._exit(128 + signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _open_crew(app: App, n_workers: int, search: Search) -> Iterator[tuple[Crew, Board]]:
    """Fork the server of the workers, or say in the log why they are spawned."""
    reason = why_not_fork()
    with contextlib.closing(Board(n_workers, is_forked=reason is None)) as board:
        body = partial(main, app, board)
        crew: Crew
        if reason is None:
            modules = [*Hooks.of(app.task).modules(app.master), *_own_modules(search)]
            crew = ForkingCrew(body, modules, _shared_cores(n_workers))
        else:
            log.info("Workers are spawned, not forked from this process: %s. They start later.", reason)
            crew = SpawningCrew(body, reason)
        with contextlib.closing(crew):
            yield crew, board


def _own_modules(search: Search) -> list[str]:
    """What each worker would import itself."""
    is_database = "://" in search.storage and not search.storage.startswith("grpc://")
    return [*([_RACE] if search.plan is not None else []), *([_DATABASE] if is_database else [])]


def _shared_cores(n_workers: int) -> dict[str, str]:
    """Each worker's share of the cores, unless the person has said how many threads to use."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, engine.n_cores() // n_workers))}


def check(hooks: Hooks, space: Space, search: Search, named_by: str) -> None:
    """Compose each option and set each range's ends, before anything is written or started.

    Args:
        named_by: the key that names the study.
    """
    for draw in space.variations():
        if hooks.check is not None and search.plan is None:  # of a certificate only what it will train
            check_objective(search, draw.config)
            hooks.check(draw.config)
    if search.custom_search_space is not None:
        find_function("hydra.sweeper.custom_search_space", search.custom_search_space)
    if named_by in space.parameters():
        raise BadInput(named_by, "several", "a search is one study", "write one name")
    try_out(search.sampler, search.pruner, search.seed, search.directions, space)
    if is_grid(search.sampler):
        next(space.points())


class Pool:
    """The worker processes of one sweep on this machine."""

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        crew: Crew,
        board: Board,
        n_workers: int,
        gpus: Sequence[str],
        progress: Progress,
        heart: Heart,
    ) -> None:
        self._study = study
        self._storage = storage
        self._crew = crew
        self._board = board
        self._n_workers = n_workers
        self._gpus = gpus
        self._progress = progress
        self._heart = heart
        self._processes: list[Process] = []
        self._signums: list[int] = []
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        self._fault = ""
        """What a worker said last that met a disk or a server which failed."""
        self._next_sigterm_s = 0.0
        self._next_reports_s = 0.0
        self._n_stillborn = 0
        self._n_begun = 0
        self._has_left = False
        """Whether a worker found nothing more to do."""
        self._waits_until_s: float | None = None
        """Until when this pool, which has no work, waits for trials of others that may fail."""

    def run(self) -> int | None:
        """Keep workers going until the budget is spent.

        Returns:
            the signal that stopped it, or None.

        Raises:
            Fault: if a disk or a server failed, here or in a worker.
        """
        with self._signals(), self._heart.heeding(_stop_this_process):
            try:
                while True:
                    self._bury()
                    self._read()
                    self._repeat_the_lost()
                    if not self._n_requests:
                        self._start_missing()
                    self._tell_to_stop()
                    if not self._processes and not self._may_get_work():
                        break
                    self._show()
                    wait({p.sentinel for p in self._processes}, timeout=self._tick_s)
            finally:
                self._end_all()
        if self._fault:
            raise FaultElsewhere(self._fault)
        self._study.ledger.read()
        self._show()
        return self._signums[0] if self._signums else None

    def _read(self) -> None:
        """Read what has ended; what running trials report less often where they are many."""
        ledger, now_s = self._study.ledger, time.monotonic()
        if now_s < self._next_reports_s:
            ledger.read_ends()
            return
        ledger.read()
        self._next_reports_s = now_s + self._tick_s * (len(ledger.running) // _SHOWN_AT_ONCE)

    @property
    def _tick_s(self) -> float:
        """Many pools together look at the study as often as a few do."""
        return max(_TICK_S, self._heart.look_s * _TICK_S)

    def _repeat_the_lost(self) -> None:
        """Queue what pools ran that are dead: other hosts' when they were silent for too long."""
        told, dead = self._heart.told, self._heart.dead
        running = list(self._study.ledger.running.values())
        workers = {t.number: t.user_attrs.get("worker", "") for t in running}
        own = {name for name in workers.values() if any(p.is_named(name) for p in self._processes)}
        others = [t for t in running if workers.get(t.number) not in own]
        if any(life.is_lost(t, self._study.files, told, dead) for t in others):
            with self._study.locked() as study:
                self._tell_reaped(study.reap(spared=own, dead=self._heart.still_dead()))
        self._heart.bury()

    def _may_get_work(self) -> bool:
        """Whether a trial that others run may still fail, and is worth waiting for.

        A host that dies now is known to be dead when it has been silent for long enough; longer than that
        nobody waits beside a pool that beats: whoever runs the trial repeats it, too.
        """
        if self._n_requests or self._n_stillborn >= _MAX_STILLBORN or self._study.is_over():
            return False
        pools = {t.system_attrs.get(POOL, "") for t in self._study.ledger.running.values()}
        if not pools:
            return False
        now_s = time.monotonic()
        if self._waits_until_s is None:
            patience_s = max(map(self._heart.patience_s, pools))
            self._waits_until_s = now_s + patience_s + self._study.search.heartbeat_s * (patience_s > 0)
        return now_s < self._waits_until_s or any(map(self._heart.is_silent, pools))

    @property
    def _n_requests(self) -> int:
        """How often the workers were, or should be, told to stop."""
        return max(len(self._signums), bool(self._fault))

    def _show(self) -> None:
        with whoever_reads():
            self._progress.update(self._study.ledger.trials)

    def _start_missing(self) -> None:
        is_full = len(self._processes) >= self._n_workers
        if is_full or self._n_stillborn >= _MAX_STILLBORN or not self._has_work():
            return
        n_trials = self._study.search.n_trials
        n_left = float("inf") if n_trials is None else n_trials - self._study.ledger.n_finished
        taken = {p.index for p in self._processes}
        for index in range(self._n_workers):
            if len(self._processes) < n_left and index not in taken:
                try:
                    with self._heart.paused():  # it may have to fork
                        process = self._crew.start(self._study.search, index, self._environment(index))
                except NotStarted as error:
                    self._n_stillborn = _MAX_STILLBORN
                    self._progress.fail(f"no worker could be started: {error}")
                    return
                self._processes.append(process)
                self._waits_until_s = None

    def _has_work(self) -> bool:
        """Whether another worker would find a trial to run."""
        if self._study.is_over() or not self._study.has_work():
            return False
        if not self._has_left or self._study.ledger.waiting:
            return True
        return not is_grid(self._study.search.sampler) and not self._study.is_decided()

    def _environment(self, index: int) -> dict[str, str]:
        """The worker's GPU, and its share of the cores."""
        environment = _shared_cores(self._n_workers)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[index % len(self._gpus)]
        return environment

    def _bury(self) -> None:
        """Take the processes that ended off the list; tell the trials that they left behind, and why."""
        ended = [p for p in self._processes if not p.is_alive()]
        if not ended:
            return
        self._processes = [p for p in self._processes if p not in ended]
        self._has_left = self._has_left or any(p.exitcode == 0 for p in ended)
        said = [self._board.take(p.index) for p in ended]
        self._fault = self._fault or next(filter(None, said), "")
        self._study.ledger.read()
        workers = {t.user_attrs.get("worker", "") for t in self._study.ledger.running.values()}
        reasons = {name: ending(p.exitcode) for p in ended for name in workers if p.is_named(name)}
        spared = {name for p in self._processes for name in workers if p.is_named(name)}
        with self._study.locked() as study:
            reaped = study.reap(reasons, spared, is_interrupted=self._n_requests > 0)
        self._tell_reaped(reaped)
        if died := [p for p in ended if p.exitcode != 0]:
            self._count_stillborn(died, self._study.trials())

    def _tell_reaped(self, numbers: Sequence[int]) -> None:
        ledger = self._study.ledger
        for number in numbers:
            reason = ledger.trials[number].user_attrs["reason"]
            rest = "are queued again" if ledger.copies(number) else "are not tried again"
            log.warning("Trial %d failed: %s. Its parameters %s.", number, reason, rest)

    def _count_stillborn(self, died: list[Process], trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Workers that die one after the other before their first trial will not get better."""
        n_begun = sum(map(was_composed, trials))
        if n_begun > self._n_begun or self._n_requests:
            self._n_stillborn = 0
        self._n_begun = n_begun
        workers = {t.user_attrs.get("worker", "") for t in trials if was_composed(t)}
        stillborn = [p for p in died if not any(p.is_named(worker) for worker in workers)]
        at_once = [p for p in stillborn if p.exitcode == LOST]  # with the process that forks them
        self._n_stillborn += len(stillborn) - len(at_once) + bool(at_once)
        if stillborn and self._n_stillborn >= _MAX_STILLBORN:
            output = self._study.files.worker_log(stillborn[0].index)
            reason = ending(stillborn[0].exitcode)
            place = f"; see {output}" if output.exists() else ""
            self._progress.fail(f"workers die before their first trial ({reason}){place}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C, SIGTERM or SIGHUP, or an engine, asks the workers to stop; the second kills."""

        def stop(signum: int, frame: object) -> None:
            if signum == signal.SIGHUP:
                fall_silent(stream for stream in self._terminals if not os.isatty(stream))
                if self._signums:  # the system, the shell and ssh may all say that the terminal is gone
                    return
            # Schedulers and `timeout` send SIGTERM to the process and to its group: that is one request.
            if signum != signal.SIGINT and time.monotonic() < self._next_sigterm_s:
                return
            self._next_sigterm_s = time.monotonic() + _SAME_SIGTERM_S
            self._signums.append(signum)
            if isinstance(self._storage, PatientStorage):
                self._storage.wait_s = 0  # nobody wants to wait for a server any more
            self._tell_to_stop()

        before = {signum: signal.signal(signum, stop) for signum in _requests()}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _tell_to_stop(self) -> None:
        """Pass the signals on to all workers, also to one that was just being started when they came."""
        n_requests = self._n_requests
        if n_requests:
            self._board.ask_to_stop()
        for p in self._processes:
            if p.n_told < n_requests:
                p.n_told = n_requests
                if p.n_told == 1:
                    p.terminate()
                else:
                    p.kill()

    def _end_all(self) -> None:
        """Let no worker be left, whatever has ended this pool; a quick one tells its trial first."""
        if self._processes:
            self._board.ask_to_stop()
        for p in self._processes:
            p.terminate()
        limit = time.monotonic() + _LAST_WORDS_S
        while any(p.is_alive() for p in self._processes) and time.monotonic() < limit:
            wait({p.sentinel for p in self._processes if p.is_alive()}, timeout=_TICK_S)
        for p in self._processes:
            p.kill()
            p.join()


def _stop_this_process() -> None:
    """What the heart does, in its thread, when all pools are asked to stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def _requests() -> list[signal.Signals]:
    """The signals that ask a search to stop."""
    return [signum for signum in for_the_pool() if is_heard(signum)]


def _run_here(app: App, study: Study, storage: BaseStorage, space: Space) -> int | None:
    interruption = Interruption(second_kills=True)
    signums = _requests()
    before = {signum: signal.getsignal(signum) for signum in signums}
    interruption.install(*signums)
    try:
        work(app, study.search, storage, interruption, is_own_process=False, space=space)
    except Interrupted as stop:
        return stop.signum
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return None


def _finish(study: Study, task: TaskFunction, master: DictConfig, signum: int | None) -> None:
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
            print(f"Stopped. To go on: {_to_go_on(search, master)}", flush=True)
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
            caller.print_last(f"{sentence(reason)}\nTo ask for more jobs: {_to_go_on(search, master)}")
        else:
            caller.print_last(sentence(reason))
        raise Ended(Failed(f"study {search.study_name}", reason, "its output says why"))
    on_finish = Hooks.of(task).on_finish if search.plan is None else None
    if on_finish is not None and trials:
        call_logged(on_finish, study.files.folder)
        _note(study, master)  # with what the app has only now added: its report, its test scores
        _send(study)
    elif search.plan is None and _can_certify(study, trials):
        with whoever_reads():
            tell_how_to_make_sure(study.files)


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


def _can_certify(study: Study, trials: Sequence[optuna.trial.FrozenTrial]) -> bool:
    """Whether there is a trial to train again, in a storage that stays, and nobody has yet."""
    is_done = any(t.state == TrialState.COMPLETE for t in trials)
    stays = study.files.read_storage() not in (None, "memory")
    return is_done and stays and not study.files.certified_by.is_certificate


def _note(study: Study, master: DictConfig) -> None:
    with study.locked():
        write_note(study.optuna, study.files, _command(study.search, master))


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


def _to_go_on(search: Search | None, master: DictConfig) -> str:
    """The command that goes on with a search, or with a certificate, whose own one nobody has typed."""
    if search is None or search.plan is None:
        return _command(search, master)
    folder = Path(search.plan.folder)
    is_found = Path(record.OUTPUTS, search.plan.study).absolute() == folder
    return f"{program()} certify {shlex.quote(search.plan.study if is_found else near(folder))}"


def _command(search: Search | None, master: DictConfig) -> str:
    """This command, as it was typed; with the name of the study, which may have been made of the time.

    Where the settings of the search could not be read there was none yet: it is the same command.

    The folder remembers the storage, whose URL may hold a password; so it is the folder that is named where
    the app would take another one the next time. Until it does, the storage is told, but for a password.
    """
    arguments = _arguments()
    storage_keys = {"hydra.sweeper.storage", source_key(master, "storage")}
    if search and _is_remembered(search):
        arguments = [a for a in arguments if key_of(a) not in storage_keys]
    named_by, typed = study_key(master), {key_of(a) for a in arguments}
    if search and not {named_by, "hydra.sweeper.study_name"} & typed:
        arguments = [*arguments, override(named_by, search.study_name)]
    if search and "hydra.sweep.dir" not in typed and is_named_by_time(master):
        arguments = [*arguments, override("hydra.sweep.dir", str(search.folder))]
    return " ".join([_started_by(), *map(shlex.quote, arguments)])


def _words() -> list[str]:
    """Of this command, as it was typed, but for passwords."""
    return [*shlex.split(_started_by()), *_arguments()]


def _arguments() -> list[str]:
    arguments = [*sys.argv[1:], *typed_besides]
    is_open = {a: hide_known_secrets(a) == a == hide_secrets(a) for a in arguments}
    return [a if is_open[a] else f"{key_of(a)}={HIDDEN}" for a in arguments]


def _is_remembered(search: Search) -> bool:
    with contextlib.suppress(Fault):
        return StudyFiles(search.folder).read_storage() == search.storage
    return True  # the disk fails: its folder is there


def _started_by() -> str:
    """The first words of this command."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else ""
    if module == "sweeper" or Path(sys.argv[0]).name == "sweeper":
        return program()
    return f"{python()} -m {module}" if module else f"{python()} {shlex.quote(sys.argv[0])}"
