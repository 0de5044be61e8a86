"""The certificate of a search: what its best configurations score when they are trained again.

All of it follows from the trials of a study that has a plan; nothing is trained here. The way of the data::

    commands/certify    the best of a search, and the defaults       -> .sweeper/plan.json
    search/study        whose turn is it: Plan.next_training         <- results/race, of the scores so far
    search/repeat       the candidate's parameters, the repeat's seed and fold
    search/worker       trains, and tells the score of a trial with its ``candidate`` and ``repeat``
    of(), here          all trials of the study and the plan         -> certificate.json, and its words
    verdict, certainty  the same in rows, and in the report's figures
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from sweeper import filesystem
from sweeper.fault import Fault
from sweeper.ranking import seconds_of
from sweeper.record.mark import FORMAT, check_format
from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import CANDIDATE, DEFAULTS, REPEAT, Candidate, Plan, scores
from sweeper.results.race import ALPHA, DIVERGED, MANY, WORSE, Race
from sweeper.results.study_record import StudyRecord
from sweeper.structure import structured
from sweeper.words import counted, digits, listed, measured, sentence, whole

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TEST = {
    "name": "t tests of the means after 2, 3, 4, … trainings of each, which spend alpha over all of them",
    "source": "Lan, DeMets 1983, doi 10.1093/biomet/70.3.659; Marcus, Peritz, Gabriel 1976,"
    " doi 10.1093/biomet/63.3.655",
    "alpha": ALPHA,
}
"""What says who is worse: valid at any look, as all looks together spend no more than ``alpha``."""

BEST, NOT_WORSE, UNKNOWN = "best", "not told apart", "not trained yet"
"""Verdicts, beside ``race.WORSE`` and ``race.DIVERGED``."""


@dataclass(frozen=True)
class Again:
    """One training of a candidate."""

    trial: int
    """Its number in the certificate's own study."""
    repeat: int
    fold: int | None
    values: tuple[float, ...] | None
    """For each objective; None if it diverged."""
    seconds: float | None


@dataclass(frozen=True)
class Expected:
    """What a fresh training of a candidate is expected to reach in one objective; None is not known."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    """Of the 95 % interval of the mean of fresh trainings."""
    searched: float | None
    """What the search measured of it."""
    luck: float | None
    """By how much that is better than the mean of fresh trainings; negative if it is worse."""

    @property
    def half(self) -> float | None:
        """What stands behind ±."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def told(self) -> str:
        """``0.974 ± 0.004``."""
        return "" if self.value is None else measured(self.value, self.half)


@dataclass(frozen=True)
class Compared:
    """The means of two candidates in one objective: positive if ``of`` has the higher one."""

    metric: str
    of: str
    to: str
    value: float
    low: float | None
    high: float | None
    """Holds at any look, for all pairs of a candidate at once, in 95 %; None if nothing says it yet."""
    told_apart: bool
    n_more: int | None
    """About how many trainings more, of both together, would tell them apart; None: too many to say."""

    def told(self) -> str:
        """``0.15 ± 0.04``, without the sign; without ± where only an earlier look has told them apart."""
        half = None if self.low is None or self.high is None else (self.high - self.low) / 2
        if self.told_apart and half is not None and half >= abs(self.value):
            half = None
        return measured(abs(self.value), half)


@dataclass(frozen=True)
class Fallen:
    """Why a candidate gets no more trainings."""

    reason: str
    """``worse`` or ``diverged``."""
    at: int
    """After how many trainings of all candidates together."""
    than: str | None
    by: float | None


@dataclass(frozen=True)
class Certified:
    """A candidate, and what is known of it."""

    name: str
    """``trial 7``, or ``defaults``."""
    trial: int | None
    """Its number in the search; None for the defaults."""
    params: Mapping[str, Any] | None
    seconds: float | None
    """Of one training, in the median."""
    verdict: str
    """``best``, ``not told apart`` (from the best), ``worse``, ``diverged``, or ``not trained yet``."""
    out: Fallen | None
    """None if it is still in."""
    expected: tuple[Expected, ...]
    """For each objective."""
    trainings: tuple[Again, ...]
    """In the order in which they ended."""

    @property
    def n(self) -> int:
        """Trainings that did not diverge."""
        return sum(each.values is not None for each in self.trainings)


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the trainings of a certificate say of the best configurations of a search.

    ``print`` shows it in words.
    """

    study: str
    """The name of the search."""
    folder: Path
    """Of the certificate's own study, which is named ``STUDY-certificate``."""
    finished: bool
    """Whether no training is missing; else it says what is known so far."""
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    """``minimize`` or ``maximize``, for each objective."""
    n_trainings: int
    n_planned: int
    n_seeds: int
    n_folds: int | None
    candidates: tuple[Certified, ...]
    """The best of the search first, the defaults last."""
    best: str | None
    """The candidate with the best mean; None of several objectives, and while nothing is known."""
    not_worse: tuple[str, ...]
    """It, and those that are not told apart from it."""
    choice: str | None
    """What ``--choose`` takes: of those within one standard error of the best, and above the defaults by more
    than that, the one that takes the least time; where there is none, the defaults."""
    compared: tuple[Compared, ...]
    """Each pair of candidates that have scores, in each objective."""
    varies: bool
    """Whether any two trainings of one candidate differ; if none do, there are no intervals."""

    def __repr__(self) -> str:
        """Short, as a cell of a notebook ends with it."""
        state = "finished" if self.finished else "unfinished"
        return f"<Certificate of {self.study}: {state}, best {self.best}, choice {self.choice}>"

    def __str__(self) -> str:
        return "\n".join(lines(self))

    def __getitem__(self, name: str) -> Certified:
        """A candidate by its name.

        Raises:
            KeyError: if there is none.
        """
        for each in self.candidates:
            if each.name == name:
                return each
        raise KeyError(name)

    def compare(self, of: str, to: str, objective: int = 0) -> Compared | None:
        """Two candidates by their names; None if one of them has no score."""
        metric = self.metrics[objective]
        for each in self.compared:
            if each.metric == metric and {each.of, each.to} == {of, to}:
                return each if each.of == of else _turned(each)
        return None

    def write(self, files: StudyFiles) -> None:
        versions = {name: version(name) for name in ("optuna", "hydra-core", "numpy", "scipy")}
        content = {"format": FORMAT, **asdict(self), "folder": str(self.folder)}
        filesystem.write_json(files.certificate, {**content, "test": TEST, "versions": versions})

    @classmethod
    def read(cls, files: StudyFiles) -> Certificate | None:
        """What was written last; None where none was.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.certificate.exists():
            return None
        found = filesystem.read_json(files.certificate)
        check_format("STUDY", str(files.folder), found)
        if "cheapest" in found:  # as it was called before
            found["choice"] = found.pop("cheapest")
        try:
            certificate = structured(cls, found)
            certificate._check()
        except ValueError as error:
            remedy = "repeat sweeper certify, which writes it anew"
            raise Fault(files.certificate, "is no certificate: the file is damaged", remedy) from error
        return certificate

    def _check(self) -> None:
        """Raises ValueError unless its parts go together."""
        names = {each.name for each in self.candidates}
        told = {self.best, self.choice} - {None} | {*self.not_worse}
        told |= {name for each in self.compared for name in (each.of, each.to)}
        n = len(self.metrics)
        is_whole = 0 < n == len(self.directions) and all(len(c.expected) == n for c in self.candidates)
        if not is_whole or not names or told - names:
            raise ValueError("a part is missing")


def _turned(one: Compared) -> Compared:
    low, high = (None if end is None else -end for end in (one.high, one.low))
    return Compared(one.metric, one.to, one.of, -one.value, low, high, one.told_apart, one.n_more)


# -------------------------------------------------------------------------------------------- what is known


def of(seen: StudyRecord, plan: Plan) -> Certificate:
    """What the study of a certificate says so far, by its plan."""
    done = [(trial.user_attrs[CANDIDATE], _again(trial, plan)) for trial in plan.trained(seen.trials)]
    races = plan.races(seen.trials, seen.directions)
    varies = _varies(done)
    race, is_one = races[0], len(races) == 1
    running = sum(trial.state.name == "RUNNING" for trial in seen.trials)
    following = plan.next_training(seen.trials, seen.directions)
    seconds = {one.name: _seconds(one, done) for one in plan.candidates}
    costs = {name: cost for name, cost in seconds.items() if cost is not None}
    return Certificate(
        study=plan.study,
        folder=seen.files.folder,
        finished=following is None and not running,
        metrics=seen.metrics,
        directions=seen.directions,
        n_trainings=len(done),
        n_planned=plan.n_trainings,
        n_seeds=plan.n_seeds,
        n_folds=plan.n_folds,
        candidates=tuple(
            _certified(one, done, races, seen.metrics, seconds[one.name], varies) for one in plan.candidates
        ),
        best=race.leader if is_one else None,
        not_worse=race.not_worse if is_one else (),
        choice=race.choice(costs) if is_one else None,
        compared=tuple(
            each
            for race, metric in zip(races, seen.metrics, strict=True)
            for each in _compared(race, metric, varies)
        ),
        varies=varies,
    )


def _again(trial: FrozenTrial, plan: Plan) -> Again:
    return Again(
        trial=trial.number,
        repeat=trial.user_attrs[REPEAT],
        fold=plan.fold(trial),
        values=scores(trial),
        seconds=seconds_of(trial),
    )


def _seconds(candidate: Candidate, done: Sequence[tuple[str, Again]]) -> float | None:
    """Of one in the middle: a worker's first takes longer. Before any, as the search measured it."""
    own = [each.seconds for name, each in done if name == candidate.name and each.values and each.seconds]
    return median(own) if own else candidate.seconds


def _certified(
    candidate: Candidate,
    done: Sequence[tuple[str, Again]],
    races: Sequence[Race],
    metrics: Sequence[str],
    seconds: float | None,
    varies: bool,
) -> Certified:
    name = candidate.name
    fallen = races[0].out.get(name) if len(races) == 1 else None
    return Certified(
        name=name,
        trial=candidate.trial,
        params=candidate.params,
        seconds=seconds,
        verdict=_verdict(name, races),
        out=None if fallen is None else Fallen(fallen.reason, fallen.at, fallen.than, fallen.by),
        expected=tuple(
            _expected(candidate, i, race, metric, varies)
            for i, (race, metric) in enumerate(zip(races, metrics, strict=True))
        ),
        trainings=tuple(each for owner, each in done if owner == name),
    )


def _verdict(name: str, races: Sequence[Race]) -> str:
    race = races[0]
    if name in race.out and (len(races) == 1 or race.out[name].reason == DIVERGED):
        return race.out[name].reason
    if race.mean(name) is None:
        return UNKNOWN
    if len(races) > 1:
        best = [race.leader == name for race in races]
        return BEST if any(best) else NOT_WORSE if any(name in race.not_worse for race in races) else WORSE
    return BEST if race.leader == name else NOT_WORSE if name in race.not_worse else WORSE


def _expected(candidate: Candidate, objective: int, race: Race, metric: str, varies: bool) -> Expected:
    searched = None if candidate.values is None else candidate.values[objective]
    mean = race.mean(candidate.name)
    if mean is None:
        return Expected(metric, None, None, None, searched, None)
    luck = None if searched is None else race.luck(candidate.name, searched)
    low, high = (_finite(end) if varies else None for end in (mean.low, mean.high))
    return Expected(metric, mean.value, low, high, searched, luck)


def _compared(race: Race, metric: str, varies: bool) -> Iterator[Compared]:
    known = [name for name in race.candidates if race.mean(name) is not None]
    for of_, to in combinations(known, 2):
        found = race.difference(of_, to)
        low, high = (_finite(end) if varies else None for end in (found.low, found.high))
        yield Compared(metric, of_, to, found.value, low, high, found.told_apart, found.n_more)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _varies(done: Sequence[tuple[str, Again]]) -> bool:
    """Whether two trainings of a candidate have other values; True where nobody was trained twice."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for name, each in done:
        if each.values is not None:
            found.setdefault(name, []).append(each.values)
    twice = [values for values in found.values() if len(values) > 1]
    return not twice or any(len(set(values)) > 1 for values in twice)


# ------------------------------------------------------------------------------------------------ in words


def lines(certificate: Certificate) -> list[str]:
    """What is known, a sentence or two a line."""
    told = [] if certificate.finished else [_unfinished(certificate)]
    if not any(candidate.n for candidate in certificate.candidates):
        return [*told, "No training has ended with a score yet."]
    if len(certificate.metrics) == 1:
        told += _of_one(certificate)
    else:
        for i, metric in enumerate(certificate.metrics):
            told += _of_several(certificate, i, metric)
    told += [f"{_the(c.name)} {_is(c.name)} out: a training diverged." for c in _out(certificate, DIVERGED)]
    if not certificate.varies:
        told.append("No two trainings of one candidate differ, so there is no ±: does the app use its seed?")
    elif certificate.finished and certificate.n_trainings < certificate.n_planned:
        told.append(_ended_early(certificate))
    return told


def _done(certificate: Certificate) -> str:
    return f"{certificate.n_trainings:,} of {counted(certificate.n_planned, 'training')}"


def _unfinished(certificate: Certificate) -> str:
    return f"Unfinished: {_done(certificate)} ended so far."


def _out(certificate: Certificate, reason: str) -> list[Certified]:
    return [c for c in certificate.candidates if c.out is not None and c.out.reason == reason]


def _of_one(certificate: Certificate) -> Iterator[str]:
    best = certificate.best
    if best is None:
        yield "Each candidate has diverged."
        return
    expected = certificate[best].expected[0]
    explained = _explained(expected) if certificate.varies else ""
    yield f"{_expects(best)} to reach {expected.metric} {expected.told()}{explained}."
    yield from _against_defaults(certificate)
    yield from _against_others(certificate)
    yield from _luck(certificate, 0)
    yield from _more(certificate)


def _expects(name: str) -> str:
    return f"{_the(name)} {_is(name)} expected"


def _explained(expected: Expected) -> str:
    if expected.half is None:
        return "; how much that varies takes more trainings to say"
    return " (± is half of a 95 % interval)"


def _against_defaults(certificate: Certificate, objective: int = 0) -> Iterator[str]:
    best = certificate.best
    name = next((c.name for c in certificate.candidates if c.trial is None), None)
    if best is None or name is None:
        return
    if best == name:
        others = [n for n in certificate.not_worse if n != name]
        if not others:
            n = len(certificate.candidates) - 1
            yield sentence(f"{whole(n, 'trial')} of the search {_be(n)} worse")
        return
    gap, out = certificate.compare(best, name), certificate[name].out
    if gap is None or (out is not None and out.reason == DIVERGED):  # which is told by itself
        return
    if gap.told_apart:
        yield f"It is better than the defaults by {gap.told()}."
    elif out is not None and out.than is not None and out.by is not None:
        # Trained less often, and shown to be worse than another one: this difference is hardly known.
        by = measured(abs(out.by), None)
        yield f"It stayed in when the defaults dropped out, worse than {out.than} by {by}."
    elif gap.high is None:
        yield "It is not told apart from the defaults yet."
    else:
        so = ", so the defaults are the choice" if certificate.choice == name else ""
        yield f"It is not told apart from the defaults (the difference is {gap.told()}){so}."


def _against_others(certificate: Certificate) -> Iterator[str]:
    best, choice = certificate.best, certificate.choice
    it, be = ("They", "are") if best is not None and _is(best) == "are" else ("It", "is")
    diverged = {c.name for c in _out(certificate, DIVERGED)}  # of those that is told, and no more
    searched = [c.name for c in certificate.candidates if c.trial is not None]
    trials = [name for name in searched if name not in {best, *diverged}]
    others = [name for name in trials if name in certificate.not_worse]
    if not others:
        if best is not None and certificate[best].trial is not None and len(trials) > 0:
            yield "The other trials are worse." if len(trials) > 1 else "The other trial is worse."
        return
    if choice is not None and choice in others:
        of_them = f"of which {_short(choice)} is" if len(others) > 1 else "which is"
        tail = f", {of_them} the cheapest of those about as good"
    else:
        tail = f", and {be} the cheapest of those about as good" if choice == best else ""
    yield f"{it} {be} not told apart from {_names(others)}{tail}."


def _luck(certificate: Certificate, objective: int) -> Iterator[str]:
    """Of the search's best, whether or not it is the best here."""
    first = certificate.candidates[0]
    expected = first.expected[objective]
    if expected.luck is None or expected.searched is None:
        return
    if expected.half is None:  # of one training nobody knows how lucky that was
        return
    n = digits(expected.half)
    luck, searched = f"{expected.luck:.{n}f}", f"{expected.searched:.{n}f}"
    is_best = first.name == certificate.best
    reached = f"the search's {searched}" if is_best else f"{first.name}'s {searched} in the search"
    yield f"{luck if expected.luck > 0 and float(luck) > 0 else 'None'} of {reached} was luck."


def _more(certificate: Certificate) -> Iterator[str]:
    """What it would take to tell the best from the one that matters most."""
    best = certificate.best
    others = [name for name in certificate.not_worse if name != best]
    if best is None or not others:
        return
    defaults = [name for name in others if certificate[name].trial is None]
    chosen = [name for name in others if name == certificate.choice]
    other = (defaults or chosen or others)[0]
    gap = certificate.compare(best, other)
    if gap is None or gap.high is None:
        return
    them = f"{_short(best)} from {_short(other)}"
    n = f"over {MANY:,}" if gap.n_more is None else f"about {_rounded(gap.n_more)}"
    yield f"It would take {n} more trainings to tell {them}."


def _ended_early(certificate: Certificate) -> str:
    best, others = certificate.best, [name for name in certificate.not_worse if name != certificate.best]
    if best is None or not others:
        return f"It ended after {_done(certificate)}: nobody is left to compare."
    them = f"{told_name(best)} from {listed([_short(name) for name in others])}"
    return f"It ended after {_done(certificate)}: more of them would hardly tell {them}."


def _rounded(n: int) -> int:
    return n if n < 20 else round(n, -1)


def _of_several(certificate: Certificate, objective: int, metric: str) -> Iterator[str]:
    """One line for an objective: who is the best in it, and from whom it is not told apart."""
    sign = 1 if certificate.directions[objective] == "maximize" else -1
    values = {
        c.name: sign * value
        for c in certificate.candidates
        if c.verdict != DIVERGED and (value := c.expected[objective].value) is not None
    }
    if not values:
        return
    best = max(values, key=lambda name: values[name])
    gaps = {name: certificate.compare(best, name, objective) for name in values if name != best}
    reached = certificate[best].expected[objective].told()
    told = [f"{metric}: {told_name(best)} {_is(best)} expected to reach {reached}"]
    if same := [name for name, gap in gaps.items() if gap is not None and not gap.told_apart]:
        told.append(f"not told apart from {_names(same)}")
    for name, gap in gaps.items():
        if certificate[name].trial is None and gap is not None and gap.told_apart:
            told.append(f"better than the defaults by {gap.told()}")
    yield f"{'; '.join(told)}."


def told_name(name: str) -> str:
    return "the defaults" if name == DEFAULTS else name


def _the(name: str) -> str:
    """At the beginning of a sentence."""
    return sentence(told_name(name)).rstrip(".")


def _is(name: str) -> str:
    return "are" if name == DEFAULTS else "is"


def _be(n: int) -> str:
    return "is" if n == 1 else "are"


def _short(name: str) -> str:
    return "the defaults" if name == DEFAULTS else name.removeprefix("trial ")


def _names(names: Sequence[str]) -> str:
    """``trial 7``, ``trials 7 and 12``, ``trials 7, 12 and 3 and the defaults``."""
    numbers = [_short(name) for name in names if name != DEFAULTS]
    trials = [f"trial{'s' * (len(numbers) > 1)} {listed(numbers)}"] if numbers else []
    return " and ".join([*trials, *(["the defaults"] if DEFAULTS in names else [])])
