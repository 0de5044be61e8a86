"""``sweeper certify [STUDY]``: the best of a search are trained again, with new seeds or over new folds.

The trainings are a study of their own beside the search's, whose folder holds the plan. What runs it is the
search's own command, as a process of its own.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.machinery import PathFinder
from itertools import islice
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sweeper import caller, child, filesystem, ranking, record
from sweeper.caller import Failed
from sweeper.commands.arrival import HERE, Source, find
from sweeper.commands.best import tell_certificate
from sweeper.commands.renew import renew
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import living, locked
from sweeper.program import TRUST, program, start, typed_besides
from sweeper.ranking import seconds_of
from sweeper.record import Choice, StudyFiles
from sweeper.results import certificate as certificate_of
from sweeper.results.certificate import Certificate, Certified
from sweeper.results.plan import CANDIDATE, Candidate, Plan
from sweeper.results.study_record import StudyRecord
from sweeper.screen import Screen, whoever_reads
from sweeper.words import counted, listed, near

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TOP, SEEDS = 5, 5

_LEAST_SEEDS = 3
"""With fewer trainings of each, hardly anything can be told."""


@dataclass(frozen=True)
class Wish:
    """What was asked for; None: as the certificate was begun, else the default."""

    top: int | None = None
    seeds: int | None = None
    folds: int | None = None
    baseline: bool | None = None

    def typed(self) -> str:
        """The options, each behind a space."""
        numbers = {"--top": self.top, "--seeds": self.seeds, "--folds": self.folds}
        told = "".join(f" {name} {n}" for name, n in numbers.items() if n is not None)
        return told + (" --no-baseline" if self.baseline is False else "")


def certify(
    name: str | None, wish: Wish, chooses: bool = False, trust: bool = False, source: Source = HERE
) -> int:
    """Train what a search has found again, until its plan is done or the race decided, and say what is known.

    Args:
        chooses: whether the choice of the certificate becomes ``best/`` of the search.
        trust: whether the search's command may import what a saved run names.

    Raises:
        BadInput: for what cannot be certified.
        Fault: if a disk or a server fails.
        Failed: if the trainings come to no good end.
        KeyboardInterrupt: if it is interrupted; what is known so far is written and shown.
    """
    typed_besides[:] = [TRUST] if trust else []  # whoever tests the chosen model asks for it
    certifying = _open(name, trust, source)
    plan = certifying.plan(wish)
    if chooses:
        certifying.check_choosable(plan)
    certificate = certifying.known(plan)
    if certificate is None or not certificate.finished:
        words = certifying.words()
        certifying.refuse_others()
        with whoever_reads():
            certifying.tell_time(plan, certificate)
        certifying.train(plan, words)
        certificate = certifying.made(plan)
        if certificate is None:
            what = f"study {certifying.name}"
            raise Failed(what, "its trainings left nothing", "its output says why", certifying.files.folder)
    certificate.write(certifying.files)
    caller.say(certificate=str(certifying.files.folder))
    with whoever_reads():
        tell_certificate(certificate)
    if chooses:
        certifying.choose(certificate)
    for files in (certifying.files, certifying.search):
        renew(files)
    certifying.show_commands(certificate, has_chosen=chooses)
    return 0


# ------------------------------------------------------------------------------------------ what is certified


def _open(name: str | None, trust: bool, source: Source) -> Certifying:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = _search_of(find(name, source))
    if (search.read_storage() or "memory") == "memory":
        reason, remedy = "its trials were in the memory of a process", "search with a storage that stays"
        raise BadInput("STUDY", search.read_name(), reason, remedy)
    from sweeper.search.look import read

    seen = read(search)
    _check(seen)
    return Certifying(seen, trust)


def _search_of(files: StudyFiles) -> StudyFiles:
    """The search, also by the name of its certificate."""
    plan = Plan.read(files)
    if plan is None:
        return StudyFiles(files.folder.absolute())
    search = StudyFiles(Path(plan.folder))
    if not search.is_ours:
        beside = StudyFiles(files.folder.absolute()).certifies
        if beside is not None and beside.read_name() == plan.study:  # all of it was moved
            return beside
        reason = f"is the certificate of {plan.study}, which is gone"
        raise BadInput("STUDY", files.read_name(), reason, "write the name of a search")
    return search


def _check(seen: StudyRecord) -> None:
    """Raises BadInput for a study that cannot be certified."""
    name = seen.name
    if not any(trial.state.name == "COMPLETE" for trial in seen.trials):
        raise BadInput("STUDY", name, "no trial of it is done", "let it search first")
    running = [trial for trial in seen.trials if trial.state.name == "RUNNING"]
    if running or living(seen.files.heartbeats):
        raise BadInput("STUDY", name, "the search is running", "wait for its end, or stop it with Ctrl-C")
    if seen.command and seen.elsewhere(name, seen.files.folder) is None:
        reason = "its command holds a password, which nobody has kept"
        raise BadInput("STUDY", name, reason, "search with the password in the environment")
    if not seen.command:
        reason = "nobody knows the command of its search: another program has begun it"
        raise BadInput("STUDY", name, reason, "go on with it by sweeper -m once, or write another study")


class Certifying:
    """A search and its certificate."""

    def __init__(self, seen: StudyRecord, trust: bool) -> None:
        self._seen = seen
        self._trust = trust
        self.name = f"{seen.name}{record.CERTIFICATE}"
        self.files = seen.files.certified_by

    @property
    def search(self) -> StudyFiles:
        return self._seen.files

    @property
    def is_ours(self) -> bool:
        """Whether sweeper itself has trained, and no other app."""
        return self._seen.files.has_our_runs

    @property
    def _typed(self) -> str:
        return self._seen.files.typed

    @property
    def _to_begin_anew(self) -> str:
        return f"{program()} studies --delete {self.files.typed}"

    # ---------------------------------------------------------------------------------------------- the plan

    def plan(self, wish: Wish) -> Plan:
        """The plan that is there, as far as it goes, with what was asked for.

        No training is lost: who was trained stays.

        Raises:
            BadInput: for what does not go together with the trainings that are there.
        """
        before = self._before()
        if wish.folds is not None and not self.is_ours:
            reason = "is a matter of sweeper's own data, and another app has trained"
            raise BadInput("--folds", wish.folds, reason, "leave it out: the app gets new seeds")
        if before is None:
            return self._begun(wish)
        trained = self._trained()
        self._check_same(before, wish, bool(trained))
        n_top = len(before.searched) if wish.top is None else wish.top
        baseline = before.defaults is not None if wish.baseline is None else wish.baseline
        candidates = self._grown(before, n_top, baseline, trained)
        folds = wish.folds or before.n_folds
        plan = replace(
            before,
            folder=str(self._seen.files.folder),
            candidates=candidates,
            n_seeds=_n_seeds(wish.seeds or wish.folds or before.n_seeds, candidates, trained),
            n_folds=folds,
            by_repeat=_folds(folds),
        )
        self._tell_others(plan, n_top)
        _tell_kept(plan.searched[n_top:], has_defaults=plan.defaults is not None and not baseline)
        return plan

    def _trained(self) -> Counter[str]:
        """The trainings that are done or running, by their candidates."""
        seen = self._record()
        trials = [] if seen is None else seen.trials
        return Counter(str(trial.user_attrs.get(CANDIDATE)) for trial in trials if _counts(trial))

    def _grown(
        self, before: Plan, n_top: int, baseline: bool, trained: Counter[str]
    ) -> tuple[Candidate, ...]:
        """The candidates that were asked for; whoever was trained stays."""
        known = {one.trial for one in before.searched}
        new = [one for one in self._best(n_top) if one.trial not in known]
        best = [*before.searched, *new[: max(0, n_top - len(known))]]
        defaults = self._defaults()
        kept = [one for i, one in enumerate(best) if i < n_top or one.name in trained]
        return (*kept, *([defaults] if baseline or defaults.name in trained else []))

    def _begun(self, wish: Wish) -> Plan:
        baseline = [] if wish.baseline is False else [self._defaults()]
        seen = self._seen
        return Plan(
            study=seen.name,
            folder=str(seen.files.folder),
            candidates=(*self._best(wish.top or TOP), *baseline),
            n_seeds=wish.seeds or wish.folds or SEEDS,
            n_folds=wish.folds,
            seed=int(sha256(seen.name.encode()).hexdigest()[:7], 16),
            by_repeat=_folds(wish.folds),
        )

    def _before(self) -> Plan | None:
        """The plan that is there.

        Raises:
            BadInput: where another study has the name, or it is about another search.
        """
        if not self.files.is_ours:
            return None
        plan = Plan.read(self.files)
        if plan is None:
            reason, remedy = "is a search of its own", "rename one of the two studies"
            raise BadInput("STUDY", self.name, f"{near(self.files.folder)} {reason}", remedy)
        trials = {trial.number: trial for trial in self._seen.trials}
        for one in plan.searched:
            trial = trials.get(one.trial) if one.trial is not None else None
            if trial is None or dict(trial.params) != dict(one.params or {}):
                reason = f"is about another search that was called {self._seen.name}"
                raise BadInput("STUDY", self.name, reason, f"remove it: {self._to_begin_anew}")
        return plan

    def _check_same(self, before: Plan, wish: Wish, is_begun: bool) -> None:
        if is_begun and wish.folds is not None and wish.folds != before.n_folds:
            was = "with new seeds" if before.n_folds is None else f"with --folds {before.n_folds}"
            raise BadInput("--folds", wish.folds, f"the certificate was begun {was}", self._anew())

    def _anew(self) -> str:
        return f"leave it out, or begin anew: {self._to_begin_anew}"

    def _tell_others(self, plan: Plan, n_top: int) -> None:
        """Say it where the best of the search are others by now."""
        now = [one.trial for one in self._best(n_top)]
        if set(now) - {one.trial for one in plan.searched}:
            numbers = [str(n) for n in now]
            who = f"{'trials' if len(now) > 1 else 'trial'} {listed(numbers)}"
            Screen().wrap(Text(f"The search has gone on, and its best are now {who}. To certify these:"))
            print(f"Begin anew: {self._to_begin_anew}", flush=True)

    def _best(self, n: int) -> list[Candidate]:
        """The best n of the search, by its own order; those with the same parameters are one."""
        seen = self._seen
        pick = ranking.best if len(seen.directions) > 1 else ranking.ranked
        distinct: dict[str, FrozenTrial] = {}
        for trial in pick(seen.trials, seen.directions):
            distinct.setdefault(json.dumps(trial.params, sort_keys=True, default=str), trial)
        return [
            Candidate(trial.number, dict(trial.params), tuple(trial.values), seconds_of(trial))
            for trial in islice(distinct.values(), n)
        ]

    def _defaults(self) -> Candidate:
        """As long as a trial takes in the middle."""
        known = [seconds_of(trial) for trial in self._seen.trials if trial.state.name == "COMPLETE"]
        times = [seconds for seconds in known if seconds is not None]
        return Candidate(None, None, None, median(times) if times else None)

    def _record(self) -> StudyRecord | None:
        """Of the certificate's study; None while there is none."""
        from sweeper.search.look import read

        try:
            return read(self.files) if self.files.is_ours else None
        except KeyError:  # it is not in the storage, and the file of the error says so at greater length
            return None

    def known(self, plan: Plan) -> Certificate | None:
        """What the trainings say by now; None while there are none."""
        seen = self._record()
        return None if seen is None else certificate_of.of(seen, plan)

    def made(self, plan: Plan) -> Certificate | None:
        """What the trainings say, after they began: defaults that cannot run are not in the plan any more."""
        return self.known(Plan.read(self.files) or plan)

    # ---------------------------------------------------------------------------------------------- the time

    def tell_time(self, plan: Plan, known: Certificate | None) -> None:
        """How many trainings, of whom, and how long that takes; and the command for half of it."""
        n_done = 0 if known is None else known.n_trainings
        left = plan.n_trainings - n_done
        trials = [str(one.trial) for one in plan.searched]
        defaults = [] if plan.defaults is None else ["the defaults"]
        who = f"{'trials' if len(trials) > 1 else 'trial'} {listed([*trials, *defaults])}"
        n, unit = workers_of(self._seen.files)
        n_side_by_side = max(1, min(n, left))
        seconds = _time_left(plan, known)
        about = "" if seconds is None else f", {about_time(seconds / n_side_by_side)}"
        done = f"{n_done} of {plan.n_trainings:,} trainings are done; {left:,} more of " if n_done else ""
        first = done or f"{counted(plan.n_trainings, 'training')} of "
        if about and unit == "job":
            about += " or less"  # a job may have several workers
        each = counted(len(plan.candidates), "candidate")
        Screen().wrap(Text(f"{first}{each} ({who}){about} on {counted(n_side_by_side, unit)}"))
        if not n_done and (half := half_of(plan)) is not None:
            print(f"Half of it: {program()} certify {self._typed}{half.typed()}", flush=True)

    # ------------------------------------------------------------------------------------------ the trainings

    def train(self, plan: Plan, words: Sequence[str]) -> None:
        """Run the search's own command as the certificate's.

        Raises:
            BadInput, Fault, Failed: what has ended it.
            KeyboardInterrupt, SystemExit: if it was stopped; what is known is written and shown before.
        """
        plan.write(self.files)  # first: a marked folder without a plan would be a search's
        self.files.mark(self.name, self._seen.files.read_storage() or "")
        try:
            with _heeding_sigterm():
                child.run(words, hear=_pass_on)
        except (KeyboardInterrupt, SystemExit):
            if (certificate := self.made(plan)) is not None:
                certificate.write(self.files)
                tell_certificate(certificate)
            self._forget_unbegun()
            raise
        except (BadInput, Fault, Failed):
            if (certificate := self.made(plan)) is not None:
                certificate.write(self.files)
            self._forget_unbegun()
            raise

    def refuse_others(self) -> None:
        """Raises BadInput while another command makes it, or where its folder is gone and not its study."""
        if living(self.files.heartbeats):
            reason = "the certificate is being made"
            raise BadInput("STUDY", self.name, reason, "wait for its end, or stop it with Ctrl-C")
        from sweeper.search.storage import look_into_storage

        storage = look_into_storage(self._seen.files.read_storage() or "")
        if not self.files.is_ours and self.name in (s.study_name for s in storage.get_all_studies()):
            remedy = f"remove it: {program()} studies --delete {shlex.quote(self.name)}"
            raise BadInput("STUDY", self.name, "is in the storage, and its folder is gone", remedy)

    def words(self) -> list[str]:
        """What runs the certificate, by this Python.

        Raises:
            BadInput: where the app is not found from here.
        """
        options = [TRUST] if self._trust else []
        found = self._seen.elsewhere(self.name, self.files.folder, *options)
        assert found is not None  # _check has said it
        (first, *rest), arguments = found
        is_python = Path(first).name.startswith("python")
        if Path(first).name == "sweeper" or (is_python and rest == ["-m", "sweeper"]):
            return [*start(), *arguments]
        if not is_python or not rest:
            reason = f"its search was started by {first}, which sweeper does not run"
            raise BadInput("STUDY", self._seen.name, reason, "start the search by python APP.py -m")
        is_there = Path(rest[0]).is_file() if len(rest) == 1 else _finds_module(rest[1])
        if not is_there:
            where = _started_in(self._seen.files)
            remedy = f"repeat it in the folder where the search was started{f', {where}' if where else ''}"
            reason = f"its app, {rest[-1]}, is not found from here"
            raise BadInput("STUDY", self._seen.name, reason, remedy)
        return [sys.executable, "-u", *rest, *arguments]

    def _forget_unbegun(self) -> None:
        """Leave no trace of a certificate whose study was never begun."""
        if self.files.is_ours and self._record() is None:
            self.files.remove_mark()

    # --------------------------------------------------------------------------------------------- the choice

    def check_choosable(self, plan: Plan) -> None:
        """Raises BadInput where nothing can be chosen, before anything is trained."""
        name, seen = self._seen.name, self._seen
        if len(seen.directions) > 1:
            remedy = "leave it out, and choose by what the certificate says"
            raise BadInput("--choose", name, "has several objectives, and no single best", remedy)
        best = seen.files.best
        if not self.is_ours or (best.folder.exists() and not best.is_ours):
            reason = "another app has trained, and there is no best/ of ours"
            raise BadInput("--choose", name, reason, "leave it out, and choose by what the certificate says")
        first = self._best(1)[0]
        if first.name not in plan.names:
            reason = f"the search has gone on: {first.name}, its best now, is not in the certificate"
            raise BadInput("--choose", name, reason, f"begin anew: {self._to_begin_anew}")
        if len(plan.candidates) < 2:
            reason = "there is one candidate, and nothing to choose from"
            raise BadInput("--choose", name, reason, "write --top 2 or more")

    def choose(self, certificate: Certificate) -> None:
        """Let ``best/`` of the search hold the choice of the certificate, and test it once.

        Raises:
            BadInput: if the certificate is unfinished, or its weights are gone.
        """
        name, target = certificate.cheapest, self._seen.files.best
        if not certificate.finished or name is None:
            done = f"{certificate.n_trainings} of {counted(certificate.n_planned, 'training')} ended"
            reason = f"the certificate is unfinished: {done}" if name else "no candidate has a score"
            raise BadInput("--choose", self._seen.name, reason, "repeat the command")
        chosen, seen = certificate[name], self._record()
        assert seen is not None  # the certificate is made of it
        if not self._is_chosen(chosen, seen):
            self._put_into_best(chosen, seen)
        from sweeper import run
        from sweeper.commands.show import metrics

        run.test_best(self._seen.files.folder)
        with whoever_reads():
            print(f"Chosen: {_who_and_why(chosen, certificate)}")
            for metric, value in metrics(target.read_result(), "test_").items():
                print(f"Test {metric}: {value:.4f}  ({near(target.folder)})", flush=True)

    def _is_chosen(self, chosen: Certified, seen: StudyRecord) -> bool:
        try:
            choice = self._seen.files.read_choice()
        except Fault:  # damaged: it is written anew
            return False
        trials = {again.trial: seen.trial(again.trial) for again in chosen.trainings}
        if choice is None or choice.study != self.name or (trial := trials.get(choice.trial)) is None:
            return False
        return self._seen.files.holds(seen.run(trial))

    def _put_into_best(self, chosen: Certified, seen: StudyRecord) -> None:
        runs = {each.trial: seen.run(seen.trial(each.trial)) for each in chosen.trainings}
        number = next((number for number, run in runs.items() if run.is_ours and run.has_model), None)
        if number is None:
            reason = f"no training of {certificate_of.told_name(chosen.name)} has weights any more"
            raise BadInput("--choose", self._seen.name, reason, f"begin anew: {self._to_begin_anew}")
        with locked(self._seen.files.lock):
            self._seen.files.choose(
                runs[number],
                Choice(self.name, chosen.name, number, chosen.trial),
                self._seen.trials,
            )

    # ------------------------------------------------------------------------------------------------ the end

    def show_commands(self, certificate: Certificate, has_chosen: bool) -> None:
        written = near(self.files.report) if self.files.has_report else ""
        print(f"Report:    {written or f'{program()} report {self.files.typed}'}")
        name = certificate.cheapest if self.is_ours and len(certificate.candidates) > 1 else None
        if not has_chosen and name is not None:
            whom = certificate_of.told_name(name)
            print(f"Choose:    {program()} certify {self._typed} --choose  ({whom})", flush=True)


def _who_and_why(chosen: Certified, certificate: Certificate) -> str:
    """Whom ``--choose`` takes: that need not be the one with the best mean, of which most is said."""
    has_defaults = any(one.trial is None for one in certificate.candidates)
    why = f"the cheapest of those about as good{' that beat the defaults' if has_defaults else ''}"
    why = why if chosen.trial is not None else "as no trial beats them by more than a standard error"
    if chosen.trial is not None and certificate.not_worse == (chosen.name,):
        why = "the best"
    return f"{certificate_of.told_name(chosen.name)}, {why}"


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Let a SIGTERM end the trainings in order, as it does a search."""

    def stop(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_kept(trials: Sequence[Candidate], has_defaults: bool) -> None:
    """Say who stays, though it was not asked for: its trainings would be lost."""
    names = [one.name for one in trials] + ["the defaults"] * has_defaults
    if names:
        Screen().wrap(Text(f"Trained before, and kept: {listed(names)}."))


def _n_seeds(asked: int, candidates: Sequence[Candidate], trained: Counter[str]) -> int:
    """Trainings of each that leave room for those who are new: all share one budget, of which some is spent
    on others.
    """
    least = max(asked, trained.total() // len(candidates))
    n_new = sum(one.name not in trained for one in candidates)
    return max(least, ceil((trained.total() + n_new * least) / len(candidates))) if n_new else least


def _folds(n: int | None) -> tuple[Mapping[str, Any], ...]:
    """What the trainings of a candidate have in their configs, one fold after the other."""
    return tuple({"dataset.n_folds": n, "dataset.fold": fold} for fold in range(n or 0))


def _counts(trial: FrozenTrial) -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED", "RUNNING")


def _pass_on(said: Mapping[str, Any]) -> None:
    """What the command has said that is of interest to the program which has started this one."""
    if "networks" in said:
        caller.say(networks=said["networks"])


def _finds_module(name: str) -> bool:
    return PathFinder.find_spec(name.partition(".")[0], [str(Path.cwd()), *sys.path]) is not None


def _started_in(files: StudyFiles) -> str:
    """The folder where a search was started; empty where nobody knows."""
    return str(_hydra(files).get("runtime", {}).get("cwd", ""))


def _hydra(files: StudyFiles) -> Mapping[str, Any]:
    """Hydra's part of the config of the sweep; empty where it cannot be read."""
    try:
        found = filesystem.read_yaml(files.sweep_config).get("hydra")
    except (BadInput, Fault):
        return {}
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------------------------------------- the time


def workers_of(files: StudyFiles) -> tuple[int, str]:
    """How many workers the search's command starts; or jobs, where their engine decides what each has."""
    from sweeper.search import opening
    from sweeper.search.engine import n_cores, visible_gpus
    from sweeper.search.settings import is_launcher

    hydra = _hydra(files)
    sweeper = hydra.get("sweeper", {})
    n_jobs, per_gpu = sweeper.get("n_jobs"), sweeper.get("workers_per_gpu")
    if (launcher := hydra.get("launcher", {}).get("_target_")) is not None and is_launcher(launcher):
        n, each = opening.n_jobs(n_jobs), sweeper.get("workers_per_job")
        return (n * each, "worker") if isinstance(each, int) else (n, "job")
    if isinstance(n_jobs, int):
        return max(1, n_jobs), "worker"
    return len(visible_gpus()) * (per_gpu if isinstance(per_gpu, int) else 1) or n_cores(), "worker"


def _time_left(plan: Plan, known: Certificate | None) -> float | None:
    """Seconds that the trainings take which are left, one after the other, if nobody drops out."""
    return _seconds(plan, Counter() if known is None else Counter({c.name: c.n for c in known.candidates}))


def _seconds(plan: Plan, done: Counter[str]) -> float | None:
    each = [one.seconds for one in plan.candidates]
    if any(seconds is None for seconds in each):
        return None
    left = [max(0, plan.n_seeds - done[one.name]) for one in plan.candidates]
    return sum(n * (seconds or 0) for n, seconds in zip(left, each, strict=True))


def half_of(plan: Plan) -> Wish | None:
    """The numbers with which it takes half of the time, as near as there are; None where none are near."""
    whole = _seconds(plan, Counter()) or 0
    searched, defaults = plan.searched, () if plan.defaults is None else (plan.defaults,)
    tried: dict[Wish, float] = {}
    for top in range(len(searched), 0, -1):
        for seeds in _seeds_near_half(replace(plan, candidates=(*searched[:top], *defaults)), whole):
            smaller = replace(plan, candidates=(*searched[:top], *defaults), n_seeds=seeds)
            if len(smaller.candidates) > 1:
                wish = Wish(top, seeds, plan.n_folds, None if defaults else False)
                tried[wish] = (_seconds(smaller, Counter()) or 0) / whole if whole else 1.0
    best = min(tried, key=lambda wish: abs(tried[wish] - 0.5), default=None)
    return best if best is not None and 0.35 <= tried[best] <= 0.65 else None


def _seeds_near_half(plan: Plan, whole: float) -> tuple[int, ...]:
    """Of each candidate of a smaller plan, to take half of the time of the whole one."""
    least, each = min(_LEAST_SEEDS, plan.n_seeds - 1), (_seconds(plan, Counter()) or 0) / plan.n_seeds
    exact = whole / each / 2 if each else plan.n_seeds
    near = {min(plan.n_seeds, max(2, least, n)) for n in (floor(exact), ceil(exact))}
    return tuple(sorted(near))


def about_time(seconds: float) -> str:
    """``about 40 s``, ``about 4 min``, ``about 2.5 h``."""
    if seconds < 90:
        return f"about {max(1, ceil(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h"
