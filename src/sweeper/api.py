"""sweeper in Python: train once, search, and look at what was found, in scripts and notebooks.

import sweeper

run = sweeper.train(["optimizer=adam"], study="one", **{"training.epochs": 5})
study = sweeper.sweep(["optimizer=adam,sgd"], study="mine")
study.best.model.predict("cat.jpg")
"""

from __future__ import annotations

import html
import importlib.util
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import child, filesystem, outcome
from sweeper.errors import BadInput, named, search_call
from sweeper.fault import Fault
from sweeper.limit import MAX_AGAIN, MAX_FOLDS
from sweeper.literal import written
from sweeper.program import TRUST
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results import sign
from sweeper.results.sign import Sign
from sweeper.words import near, objectives
from sweeper.words import number as told

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

    from sweeper.inference.classifier import Classifier
    from sweeper.results.belief import Belief
    from sweeper.results.certificate import Certificate

_KEY = re.compile(r"\+{0,2}[\w.]+(/[\w.]+)*(@[\w.]*)?")
_MOST_BYTES = 100_000
"""Of a word: Linux admits 128 KiB."""
_SEARCHES = ("-m", "--multirun")

_networks = set[str]()
"""Networks of the person's own that commands of this process were told to import."""


def train(overrides: str | Iterable[str] = (), /, **keys: Any) -> Run:
    """Train once, as ``sweeper OVERRIDES`` does.

    It runs as a process of its own, which shows its progress as on the command line. Ctrl-C, or a notebook's
    interrupt, ends it and raises ``KeyboardInterrupt``.

    Args:
        overrides: as on the command line: ``["optimizer=adam", "training.epochs=5"]``, also ``--config-dir``
            and ``--config-name`` with what follows them, and ``--trust``.
        keys: the same for plain values: ``optimizer="adam", seed=3, **{"training.epochs": 5}``. A value is a
            number, a text, a path, True, False, None, or a list or dict of them; commas, spaces and quotes
            in a text mean themselves. An interpolation (``${oc.env:NAME}``) is filled in.

    Returns:
        The run, whose files are under ``outputs/``.

    Raises:
        sweeper.BadInput: for what cannot work, with key, value, reason and remedy.
        sweeper.Fault: if a disk or a server fails.
        sweeper.Failed: if the training raises, or is killed.
        KeyboardInterrupt: if it is interrupted.

    Example:
        ```python
        run = sweeper.train(["optimizer=adam"], study="one", **{"training.epochs": 5})
        run.result["val_accuracy"]
        ```
    """
    words = _words(overrides, keys)
    for word in words:
        if word in _SEARCHES or word.lstrip("+").startswith("hydra.mode="):
            search = search_call([other for other in words if other is not word])
            raise BadInput("overrides", word, "is for a search", f"call {search}, or leave it out")
    return Run(Path(_call(["train", *words], "run")))


def sweep(overrides: str | Iterable[str] = (), /, **keys: Any) -> Study:
    """Search, as ``sweeper -m OVERRIDES`` does: with workers, pruning, and whatever the overrides ask for.

    It runs as a process of its own, which shows its progress as on the command line. With the name of a study
    that is there, the search goes on: the same folder, the next number, the rest of the budget.

    Ctrl-C, or a notebook's interrupt, tells the running trials, queues them again, and raises
    ``KeyboardInterrupt``; the same call goes on. A second one kills them. If this process is killed, the
    search stops in the same orderly way (on Linux).

    Args:
        overrides: as on the command line: ``["optimizer=adam,sgd", "optimizer.lr=interval(1e-4, 1e-2)"]``.
            ``-m`` may be left out.
        keys: plain values, as of ``train``: ``study="mine", **{"hydra.sweeper.n_trials": 50}``. A list is a
            value; what is searched is written as an override.

    Returns:
        The study, whose files are under ``outputs/``.

    Raises:
        sweeper.BadInput: for what cannot work, with key, value, reason and remedy.
        sweeper.Fault: if a disk or a server fails; the same call goes on later.
        sweeper.Failed: if too many trials fail; ``folder`` is the study's, for ``open_study``.
        KeyboardInterrupt: if it is interrupted.

    Example:
        ```python
        study = sweeper.sweep(["optimizer=adam,sgd"], study="mine")
        study.best.params
        ```
    """
    words = [word for word in _words(overrides, keys) if word not in _SEARCHES]
    return Study(Path(_call(["train", "-m", *words], "study")))


def open_study(
    study: str | Path | None = None,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    large: bool = False,
) -> Study:
    """A study that is there, of this program or of any Hydra app with its sweeper; also while it runs.

    What other machines have sent of it is brought here first.

    Args:
        study: its name, or its folder; None opens the newest below ``outputs/``, or in ``storage``.
        storage: the URL of its storage, for a study that this machine has no folder of.
        artifacts: where its weights are; None: as the search had it.
        large: whether more than 100 MB may be downloaded.

    Raises:
        sweeper.BadInput: if there is none.

    Example:
        ```python
        sweeper.open_study("mine").dataframe()
        ```
    """
    from sweeper.commands.arrival import Source, find

    source = Source(storage, artifacts, _flag("large", large))
    with named("study", "STUDY"), named("storage", "--storage"), named("artifacts", "--artifacts"):
        return Study(find(None if study is None else str(study), source).folder)


def _words(overrides: str | Iterable[str], keys: Mapping[str, Any]) -> list[str]:
    is_list = isinstance(overrides, Iterable) and not isinstance(overrides, Mapping | bytes)
    if not is_list:
        raise BadInput("overrides", overrides, "is no list of texts", "write a list, as ['optimizer=adam']")
    words = [overrides] if isinstance(overrides, str) else list(overrides)
    for word in words:
        if not isinstance(word, str):
            raise BadInput("overrides", word, "is no text", "write a list, as ['optimizer=adam']")
        if "\0" in word:
            raise BadInput("overrides", word, "has a zero character in it", "leave it out")
    words += (_override(key, value) for key, value in keys.items())
    for word in words:
        if any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in word):
            raise BadInput("overrides", word, "has a character that is no text", "leave it out")
        if len(os.fsencode(word)) > _MOST_BYTES:
            raise BadInput("overrides", f"{word[:40]}…", "is too long for a command", "write it shorter")
    return words


def _override(key: str, value: Any) -> str:
    if not _KEY.fullmatch(key):
        raise BadInput(key, value, "is no key", 'write one as **{"training.epochs": 5}')
    return f"{key}={written(key, value)}"


def _call(words: Sequence[str], kind: str) -> str:
    """Run the command, and give the folder of the run or the study that it has left."""
    said = child.call(words, hear=lambda said: _networks.update(said.get("networks", ())))
    if kind not in said:  # --help, --cfg job
        reason = "the command has neither trained nor searched"
        raise BadInput("overrides", " ".join(words), reason, "write keys with their values alone")
    return str(said[kind])


@dataclass(frozen=True, repr=False)
class Run:
    """A training run: one by itself, a trial of a study, or the best one.

    Its files are read when they are asked for. A trial of somebody else's app has a number, parameters and
    values, and no more.
    """

    folder: Path
    """Where its files are."""
    number: int | None = None
    """Of the trial; None for a run by itself."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the search has drawn for it; empty where nobody knows it any more."""
    values: tuple[float, ...] = ()
    """What it has reached, one for each objective; empty for a run by itself, and if it is not complete."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "folder", Path(self.folder).absolute()
        )  # whatever the working folder becomes

    @property
    def history(self) -> list[dict[str, float]]:
        """What was measured, a dict for each epoch, whose number is ``epoch``.

        Raises:
            sweeper.BadInput: if the folder has none: it is a trial that has not begun, or of another app.
            sweeper.Fault: if the file is damaged.
        """
        if not self._files.is_ours or not self._files.history.exists():
            remedy = "write the folder of a run that has trained for an epoch, of sweeper's own"
            raise BadInput("folder", near(self.folder), "holds no history of a training run", remedy)
        return [{**row, "epoch": int(row["epoch"])} for row in self._files.read_history()]

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds: scores, best epoch, seconds, memory; empty while there is none."""
        return self._files.read_result()

    @property
    def signs(self) -> list[Sign]:
        """What its curves say, each with evidence, advice and the next command."""
        return sign.read(self._files.signs) if self._files.is_ours else []

    @property
    def model(self) -> Classifier:
        """The trained model, as ``sweeper.load`` gives it. Of a study, the best trial has kept one.

        A network of one's own is imported where this process has trained it or searched with it; for another
        call ``sweeper.load(run.folder, trust=True)``, which runs its code.

        Raises:
            sweeper.BadInput: if there is none, or it may not be imported.
        """
        from sweeper.card import Card
        from sweeper.inference.classifier import load

        card = self._files.card
        return load(self.folder, trust=card.exists() and Card.read(card).network.target in _networks)

    @property
    def _files(self) -> RunFiles:
        return RunFiles(self.folder)

    def __repr__(self) -> str:
        scores = [f"{name} {told(value)}" for name, value in self._scores().items()]
        parts = [*([] if self.number is None else [f"trial {self.number}"]), *scores]
        return f"<Run {near(self.folder)}{': ' if parts else ''}{', '.join(parts)}>"

    def _repr_html_(self) -> str:
        rows = {"trial": self.number, **self.params, **self._scores(), "folder": near(self.folder)}
        return _table({name: value for name, value in rows.items() if value is not None})

    def _scores(self) -> dict[str, float]:
        """What was reached, by name; nothing of what cannot be read."""
        try:
            result = self.result
        except (BadInput, Fault):
            return {}
        names = result.get("objective")
        if self.values:
            listed = [names] if isinstance(names, str) else names
            return dict(zip(objectives(listed, len(self.values)), self.values, strict=True))
        return {name: result[name] for name in ("val_accuracy", "test_accuracy") if name in result}


class Study:
    """A study: the trials of a search, of this program or of any Hydra app with its sweeper.

    What it says is read anew each time, so that it may be asked while the search runs. Trials whose process
    is dead are shown as failed, and nothing is changed by looking.
    """

    def __init__(self, folder: str | Path) -> None:
        """The study whose folder this is; ``open_study`` finds one by its name."""
        self._files = StudyFiles(Path(folder).absolute())
        self._name = self._files.read_name()

    @property
    def name(self) -> str:
        """Its name, which with ``study=NAME`` goes on with it."""
        return self._name

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._files.folder

    @property
    def best(self) -> Run:
        """The best complete trial so far: its model, and what it scored on the test images.

        After ``certify(choose=True)`` it is the one that was chosen, in the files of its new training; the
        defaults have no number, and no values.

        Raises:
            sweeper.BadInput: if none is complete, or there are several objectives.
        """
        results = self._results()
        if "solutions" in results:
            raise BadInput("study", self.name, "has several objectives, and no best trial", "see .solutions")
        if results["best_trial"] is None:
            raise BadInput("study", self.name, "no trial of it is complete", "wait, or see .trials")
        number, kept = results["best_trial"], self._files.best
        if (choice := self._files.best.read_choice()) is not None:
            return self._chosen(choice.of_search)
        is_kept = kept.is_ours and kept.read_result().get("trial") == number
        folder = kept.folder if is_kept else self._folder_of(number)
        return Run(folder, number, results["best_params"], (results["best_value"],))

    def _chosen(self, number: int | None) -> Run:
        """What ``best/`` holds: a new training of a trial, or of the defaults."""
        folder = self._files.best.folder
        if number is None:
            return Run(folder)
        trial = next(trial for trial in self.trials if trial.number == number)
        return Run(folder, number, trial.params, tuple(trial.values))

    @property
    def solutions(self) -> list[Run]:
        """The Pareto front of several objectives; of one, the best trial.

        Those are the trials than which none is better in every objective; without a complete trial, none.
        """
        results = self._results()
        if "solutions" in results:
            return [
                Run(self._folder_of(each["trial"]), each["trial"], each["params"], tuple(each["values"]))
                for each in results["solutions"]
            ]
        return [] if results["best_trial"] is None else [self.best]

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number, as Optuna's own records.

        Raises:
            sweeper.BadInput: if they were in the memory of a process, or the storage is gone.
            sweeper.Fault: if the storage cannot be read.
        """
        with _quiet():
            from sweeper.search.look import look

            return look(self._files)

    def run(self, number: int) -> Run:
        """The run of a trial.

        Raises:
            sweeper.BadInput: if there is no trial of that number.
        """
        try:
            trials = self.trials
        except (BadInput, Fault):
            files = self._files.run(number)
            if not files.is_ours:
                raise
            return Run(files.folder, number)  # what its files say can still be said
        trial = next((trial for trial in trials if trial.number == number), None)
        if trial is None:
            there = f"write one of 0 … {trials[-1].number}" if trials else "wait for the first"
            raise BadInput("number", number, f"{self.name} has no such trial", there)
        values = tuple(trial.values) if trial.state.name == "COMPLETE" else ()
        return Run(self._files.trial(trial).folder, number, trial.params, values)

    def dataframe(self) -> pd.DataFrame:
        """A row for each trial, with Optuna's own names of the columns; needs pandas.

        Raises:
            sweeper.BadInput: where pandas is not installed, or as ``trials`` does.
            sweeper.Fault: if the storage cannot be read.
        """
        if importlib.util.find_spec("pandas") is None:
            raise BadInput("dataframe", "pandas", "pandas is not installed", "python -m pip install pandas")
        with _quiet():
            from sweeper.search.view import frame

            return frame(self._files)

    @property
    def signs(self) -> list[Sign]:
        """What the study says as a whole, each with evidence, advice and the next command."""
        with _quiet():
            from sweeper.commands.best import current_signs

            return current_signs(self._files)

    @property
    def belief(self) -> Belief | None:
        """How sure the best trial is: its interval, which trials are not worse, ties, and how much is luck.

        None while no trial is complete, and of a certificate, which has better words.
        """
        with _quiet():
            from sweeper.commands.best import current_belief

            return None if self._files.is_certificate else current_belief(self._files)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report, one HTML file that needs no network, and say where it is.

        Args:
            out: the file; default: ``report.html`` in the study's folder.

        Raises:
            sweeper.BadInput: if the storage is gone, or something else than a report has the place.
            sweeper.Fault: if it cannot be read or written.
        """
        with _quiet():
            from sweeper.commands import report

            path = report.place([self._files], None if out is None else str(out))
            report.write([self._files], path)
            return path.absolute()

    def certify(
        self,
        top: int | None = None,
        seeds: int | None = None,
        folds: int | None = None,
        baseline: bool | None = None,
        choose: bool = False,
        trust: bool = False,
    ) -> Certificate:
        """Train the best trials again, as ``sweeper certify`` does, and say how good they are.

        It runs as a process of its own, as ``sweep`` does, and is a study of its own beside this one. The
        same call goes on where it was stopped.

        Args:
            top: how many of the best trials; default: 5.
            seeds: how often each is trained; default: 5.
            folds: train over so many folds of the train and validation parts, in place of new seeds.
            baseline: whether the defaults are trained, too, as they would run without a search; default: yes.
            choose: whether the cheapest of those about as good as the best becomes ``best``.
            trust: whether the search's own command may import a network that a saved run names; and whether
                that command is run at all, where it came from a storage and nobody has typed it here.

        Returns:
            What is known, the same as ``certificate.json``. Each of the numbers has another default where
            the certificate was begun before: what it was begun with.

        Raises:
            sweeper.BadInput: for what cannot be certified, or not be chosen.
            sweeper.Fault: if a disk or a server fails; the same call goes on later.
            sweeper.Failed: if too many trainings fail.
            KeyboardInterrupt: if it is interrupted.

        Example:
            ```python
            certificate = study.certify(top=5, seeds=5)
            certificate["defaults"].expected[0].value
            ```
        """
        from sweeper.results.certificate import Certificate

        words = ["certify", str(self.folder)]
        ranges = {"top": (1, MAX_AGAIN), "seeds": (2, MAX_AGAIN), "folds": (2, MAX_FOLDS)}
        for (name, ends), value in zip(ranges.items(), (top, seeds, folds), strict=True):
            if value is not None:
                words += [f"--{name}", str(_whole(name, value, *ends))]
        if baseline is not None:
            words.append("--baseline" if _flag("baseline", baseline) else "--no-baseline")
        words += ["--choose"] * _flag("choose", choose) + [TRUST] * _flag("trust", trust)
        with named("study", "STUDY"), named("folds", "--folds"), named("choose", "--choose"):
            said = child.call(words, hear=lambda said: _networks.update(said.get("networks", ())))
        found = Certificate.read(StudyFiles(Path(said["certificate"])))
        assert found is not None  # the command has written it
        return found

    def _results(self) -> dict[str, Any]:
        return filesystem.read_yaml(self._files.results)

    def _folder_of(self, number: int) -> Path:
        """Of a trial: an app may name the folders of its trials as it likes."""
        try:
            return self.run(number).folder
        except (BadInput, Fault):
            return self._files.run(number).folder

    def __repr__(self) -> str:
        return f"<Study {self.name}{self._told()}>"

    def _repr_html_(self) -> str:
        try:
            best = self.best._repr_html_()
        except (BadInput, Fault):
            best = ""
        return f"<p>{html.escape(f'Study {self.name}{self._told()}')}</p>{best}"

    def _told(self) -> str:
        """How far it is; nothing where that cannot be read."""
        try:
            results = self._results()
            states = Counter({outcome.WORDS[state]: n for state, n in results["trials"].items()})
            best = [] if results.get("best_trial") is None else [f"best {told(results['best_value'])}"]
        except (BadInput, Fault, KeyError, TypeError):
            return ""
        return f": {', '.join([outcome.told_counts(states.elements()), *best])}"


def _whole(name: str, value: object, least: int, most: int) -> int:
    """A number of any library, which must be one of those."""
    with suppress(TypeError):
        if not isinstance(value, bool) and least <= (n := index(value)) <= most:  # type: ignore[arg-type]
            return n
    raise BadInput(name, value, f"is no whole number from {least} to {most:,}", "write for example 5")


def _flag(name: str, value: object) -> bool:
    """What is yes or no: of a text, as of an empty list, nobody knows which is meant."""
    if not isinstance(value, bool):
        raise BadInput(name, value, "is neither True nor False", "write one of them")
    return value


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna, as loud afterwards as it was, and without a word on what else a notebook might have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm
        import optuna
    verbosity = optuna.logging.get_verbosity()
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _table(rows: Mapping[str, Any]) -> str:
    def cell(value: Any) -> str:
        return html.escape(f"{value:.5g}" if isinstance(value, float) else str(value))

    return (
        f"<table>{''.join(f'<tr><th>{cell(k)}</th><td>{cell(v)}</td></tr>' for k, v in rows.items())}</table>"
    )
