"""The run of a certificate that becomes ``best/`` of its search."""

from __future__ import annotations

from sweeper.commands.certification.pair import Pair
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.lock import locked
from sweeper.record.best_files import Choice
from sweeper.results import certificate as certificate_of
from sweeper.results.certificate import Certificate, Certified
from sweeper.results.plan import Plan
from sweeper.results.study_record import StudyRecord
from sweeper.screen import whoever_reads
from sweeper.words import counted, near


def check_choosable(pair: Pair, plan: Plan) -> None:
    """Raises BadInput where nothing can be chosen, before anything is trained."""
    name, seen = pair.seen.name, pair.seen
    if len(seen.directions) > 1:
        remedy = "leave it out, and choose by what the certificate says"
        raise BadInput("--choose", name, "has several objectives, and no single best", remedy)
    best = seen.files.best
    if not pair.is_ours or (best.folder.exists() and not best.is_ours):
        reason = "another app has trained, and there is no best/ of ours"
        raise BadInput("--choose", name, reason, "leave it out, and choose by what the certificate says")
    first = pair.best(1)[0]
    if first.name not in plan.names:
        reason = f"the search has gone on: {first.name}, its best now, is not in the certificate"
        raise BadInput("--choose", name, reason, f"begin anew: {pair.to_begin_anew}")
    if len(plan.candidates) < 2:
        reason = "there is one candidate, and nothing to choose from"
        raise BadInput("--choose", name, reason, "write --top 2 or more")


def choose(pair: Pair, certificate: Certificate) -> None:
    """Let ``best/`` of the search hold the choice of the certificate, and test it once.

    Raises:
        BadInput: if the certificate is unfinished, or its weights are gone.
    """
    name, target = certificate.choice, pair.seen.files.best
    if not certificate.finished or name is None:
        done = f"{certificate.n_trainings} of {counted(certificate.n_planned, 'training')} ended"
        reason = f"the certificate is unfinished: {done}" if name else "no candidate has a score"
        raise BadInput("--choose", pair.seen.name, reason, "repeat the command")
    chosen, seen = certificate[name], pair.record()
    assert seen is not None  # the certificate is made of it
    if not _is_chosen(pair, chosen, seen):
        _put_into_best(pair, chosen, seen)
    from sweeper import run
    from sweeper.commands.show import metrics

    run.test_best(pair.seen.files.folder)
    with whoever_reads():
        print(f"Chosen: {_who_and_why(chosen, certificate)}")
        for metric, value in metrics(target.read_result(), "test_").items():
            print(f"Test {metric}: {value:.4f}  ({near(target.folder)})", flush=True)


def _is_chosen(pair: Pair, chosen: Certified, seen: StudyRecord) -> bool:
    try:
        choice = pair.seen.files.best.read_choice()
    except Fault:  # damaged: it is written anew
        return False
    trials = {again.trial: seen.trial(again.trial) for again in chosen.trainings}
    if choice is None or choice.study != pair.name or (trial := trials.get(choice.trial)) is None:
        return False
    return pair.seen.files.best.holds(seen.run(trial))


def _put_into_best(pair: Pair, chosen: Certified, seen: StudyRecord) -> None:
    runs = {each.trial: seen.run(seen.trial(each.trial)) for each in chosen.trainings}
    number = next((number for number, run in runs.items() if run.is_ours and run.has_model), None)
    if number is None:
        reason = f"no training of {certificate_of.told_name(chosen.name)} has weights any more"
        raise BadInput("--choose", pair.seen.name, reason, f"begin anew: {pair.to_begin_anew}")
    with locked(pair.seen.files.lock):
        pair.seen.files.choose(
            runs[number],
            Choice(pair.name, chosen.name, number, chosen.trial),
            pair.seen.trials,
        )


def _who_and_why(chosen: Certified, certificate: Certificate) -> str:
    """Whom ``--choose`` takes: that need not be the one with the best mean, of which most is said."""
    has_defaults = any(one.trial is None for one in certificate.candidates)
    why = f"the cheapest of those about as good{' that beat the defaults' if has_defaults else ''}"
    why = why if chosen.trial is not None else "as no trial beats them by more than a standard error"
    if chosen.trial is not None and certificate.not_worse == (chosen.name,):
        why = "the best"
    return f"{certificate_of.told_name(chosen.name)}, {why}"
