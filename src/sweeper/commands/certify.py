"""``sweeper certify [STUDY]``: the best of a search are trained again, with new seeds or over new folds.

The trainings are a study of their own beside the search's, whose folder holds the plan. What runs it is the
search's own command, as a process of its own.
"""

from __future__ import annotations

from pathlib import Path

from sweeper import caller
from sweeper.caller import Failed
from sweeper.commands.arrival import HERE, Source, find
from sweeper.commands.best import tell_certificate
from sweeper.commands.certification import choice, duration, training
from sweeper.commands.certification.pair import Pair
from sweeper.commands.certification.wish import Wish, plan_of
from sweeper.commands.renew import renew
from sweeper.errors import BadInput
from sweeper.lock import living
from sweeper.program import TRUST, program, typed_besides
from sweeper.record.study_files import StudyFiles
from sweeper.results import certificate as certificate_of
from sweeper.results.certificate import Certificate
from sweeper.results.plan import Plan
from sweeper.results.study_record import StudyRecord
from sweeper.screen import whoever_reads
from sweeper.words import listed, near


def certify(
    name: str | None, wish: Wish, chooses: bool = False, trust: bool = False, source: Source = HERE
) -> int:
    """Train what a search has found again, until its plan is done or the race decided, and say what is known.

    Args:
        chooses: whether the choice of the certificate becomes ``best/`` of the search.
        trust: whether the search's command may import what a saved run names, and is run where it came from a
            storage, and nobody has typed it here.

    Raises:
        BadInput: for what cannot be certified.
        Fault: if a disk or a server fails.
        Failed: if the trainings come to no good end.
        KeyboardInterrupt: if it is interrupted; what is known so far is written and shown.
    """
    typed_besides[:] = [TRUST] if trust else []  # whoever tests the chosen model asks for it
    pair = _open(name, trust, source)
    plan = plan_of(pair, wish)
    if chooses:
        choice.check_choosable(pair, plan)
    certificate = pair.known(plan)
    if certificate is None or not certificate.finished:
        words = training.words(pair)
        training.refuse_others(pair)
        with whoever_reads():
            duration.tell_time(pair, plan, certificate)
        training.train(pair, plan, words)
        certificate = pair.made(plan)
        if certificate is None:
            what = f"study {pair.name}"
            raise Failed(what, "its trainings left nothing", "its output says why", pair.files.folder)
    certificate.write(pair.files)
    caller.say(certificate=str(pair.files.folder))
    with whoever_reads():
        tell_certificate(certificate)
    if chooses:
        choice.choose(pair, certificate)
    for files in (pair.files, pair.search):
        renew(files)
    _show_commands(pair, certificate, has_chosen=chooses)
    return 0


def _open(name: str | None, trust: bool, source: Source) -> Pair:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = _search_of(find(name, source))
    if not search.can_be_read_again:
        reason, remedy = "its trials were in the memory of a process", "search with a storage that stays"
        raise BadInput("STUDY", search.read_name(), reason, remedy)
    from sweeper.search.look import read

    seen = read(search)
    _check(seen)
    return Pair(seen, trust)


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
    if living(seen.files.heartbeats):
        raise BadInput("STUDY", name, "the search is running", "wait for its end, or stop it with Ctrl-C")
    if running:
        numbers = listed([str(trial.number) for trial in running])
        reason = (
            f"trial{'s' * (len(running) > 1)} {numbers} of it {'is' if len(running) == 1 else 'are'} running"
        )
        remedy = "wait; if that is gone, go on with the search and hydra.sweeper.take_over=true"
        raise BadInput("STUDY", name, reason, remedy)
    if seen.command and seen.elsewhere(name, seen.files.folder) is None:
        reason = "its command holds a password, which nobody has kept"
        raise BadInput("STUDY", name, reason, "search with the password in the environment")
    if not seen.command:
        reason = "nobody knows the command of its search: another program has begun it"
        raise BadInput("STUDY", name, reason, "go on with it by sweeper -m once, or write another study")


def _show_commands(pair: Pair, certificate: Certificate, has_chosen: bool) -> None:
    written = near(pair.files.report) if pair.files.has_report else ""
    print(f"Report:    {written or f'{program()} report {pair.files.typed}'}")
    name = certificate.choice if pair.is_ours and len(certificate.candidates) > 1 else None
    if not has_chosen and name is not None:
        whom = certificate_of.told_name(name)
        print(f"Choose:    {program()} certify {pair.typed} --choose  ({whom})", flush=True)
