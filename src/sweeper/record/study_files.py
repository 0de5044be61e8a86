"""What a study leaves in its folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper.errors import BadInput
from sweeper.fault import Fault, disk
from sweeper.filesystem import (
    damaged,
    has_text,
    read_json,
    read_texts,
    remove_empty,
    remove_trees,
    size,
    whole,
    write_json,
    write_whole,
)
from sweeper.lock import locked
from sweeper.outcome import Outcome
from sweeper.program import program
from sweeper.record.best_files import BestFiles, Choice
from sweeper.record.mark import FORMAT, MARK, OUTPUTS, check_format, default_journal, study_folders
from sweeper.record.run_files import PER_CLASS, RunFiles
from sweeper.record.trial_files import TrialFiles

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


BELIEF = "belief"
"""In the ``result.json`` of ``best/``: how sure it is that this trial is the best."""
CERTIFICATE = "-certificate"
"""What the name of a search and the name of its folder have behind them in its certificate's."""
RESULTS_S = 1.0
"""How old the results of a running study may be, where its best trial is still the same."""

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a build of PyYAML may lack libyaml


@dataclass(frozen=True)
class StudyFiles:
    """What a study leaves in its folder."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "optimization_results.yaml"

    @property
    def sweep_config(self) -> Path:
        """The composed config of the sweep, named as Hydra names it."""
        return self.folder / "multirun.yaml"

    @property
    def best(self) -> BestFiles:
        return BestFiles(self.folder / "best")

    @property
    def signs(self) -> Path:
        """What the study says: a list of signs. The folder of another app's study is that app's."""
        return (self.folder if self.has_our_runs else self.folder / MARK) / "signs.json"

    @property
    def _belief(self) -> Path:
        """How sure the best trial is, where ``best/`` does not hold it: of another app, or a chosen one."""
        return self.folder / MARK / "belief.json"

    @property
    def typed(self) -> str:
        """The study as a person types it in this folder: its name, or its path."""
        folder = Path(os.path.relpath(self.folder))
        is_known = folder.parts[0] == OUTPUTS
        return shlex.quote(str(folder.relative_to(OUTPUTS) if is_known else folder))

    @property
    def has_our_runs(self) -> bool:
        """Whether a trial of the study is a training run of ours, in the study's folder."""
        return self.best.is_ours or any(self.folder.glob(f"*/{MARK}/run.json"))

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def has_report(self) -> bool:
        return is_report(self.report)

    def trial(self, trial: FrozenTrial) -> TrialFiles:
        """Where the app has the folder of a trial, which may have moved with the study."""
        return self.trial_at(trial.number, trial.user_attrs.get("folder"))

    def trial_at(self, number: int, folder: object) -> TrialFiles:
        """The same, by its number and what it says of its folder."""
        inside = TrialFiles(self.folder / str(number))
        if not isinstance(folder, str):  # none, or an app's own attribute of that name
            return inside
        is_moved = not os.path.exists(folder) and inside.is_of(number)  # noqa: PTH110 - no error where it is closed
        # Another machine's folder may have a name that means something else here.
        return inside if is_moved or inside.has_arrived else TrialFiles(Path(folder))

    def begin(self, trial: TrialFiles, number: int) -> None:
        """Mark the folder of a trial as that of this number.

        Where it is that of a trial of the same number, the storage has lost that one: it is moved away, and
        kept. An app may put several trials into one folder.
        """
        if trial.is_of(number) and trial.folder != self.folder:
            with disk(self.lost):
                self.lost.mkdir(parents=True, exist_ok=True)
                trial.folder.rename(self.lost / f"{number}-{time.time_ns()}")
        trial.mark(number)

    def run(self, number: int) -> RunFiles:
        """The run of a trial, where its folder has its number, as those of our own app."""
        return RunFiles(self.folder / str(number))

    def complete_runs(self) -> list[int]:
        """The numbers of the trials that can be trained again and compared."""
        with disk(self.folder):
            numbers = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return sorted(number for number in numbers if self.run(number).is_complete)

    @property
    def logits_count(self) -> Path:
        """What the logits of all trials took when they were last counted (see ``results.val_logits``)."""
        return self.folder / MARK / "val_logits.json"

    @property
    def plan(self) -> Path:
        """Of a certificate: whom it trains again, and how often."""
        return self.folder / MARK / "plan.json"

    @property
    def is_certificate(self) -> bool:
        """Whether it is no search, but the certificate of one."""
        return self.plan.exists()

    @property
    def certified_by(self) -> StudyFiles:
        """The certificate of this search, which need not be there: beside it, as ``STUDY-certificate``."""
        return StudyFiles(self.folder.with_name(f"{self.folder.name}{CERTIFICATE}"))

    @property
    def certifies(self) -> StudyFiles | None:
        """The search of this certificate, beside it; None where it is gone, and of a search."""
        search = StudyFiles(self.folder.with_name(self.folder.name.removesuffix(CERTIFICATE)))
        return search if self.is_certificate and search.is_ours and not search.is_certificate else None

    @property
    def certificate(self) -> Path:
        """What the trainings of a certificate say. The folder of another app's study is that app's."""
        return (self.folder if self.has_our_runs else self.folder / MARK) / "certificate.json"

    @property
    def lock(self) -> Path:
        return self.folder / MARK / "lock"

    @property
    def heartbeats(self) -> Path:
        """The folder of the workers' heartbeats."""
        return self.folder / MARK

    @property
    def lost(self) -> Path:
        """Where the folders of trials go that the storage has lost."""
        return self.folder / MARK / "lost"

    def worker_log(self, index: int) -> Path:
        """What a worker prints outside of its trials."""
        return self.folder / MARK / f"worker-{index}.log"

    @property
    def launcher_log(self) -> Path:
        """What Hydra's launcher and its engine print, where jobs are started by one."""
        return self.folder / MARK / "launcher.log"

    # ------------------------------------------------------------------------------------- whose it is

    @property
    def _mark(self) -> Path:
        return self.folder / MARK / "study.json"

    @property
    def _storage(self) -> Path:
        return self.folder / MARK / "storage"

    @property
    def is_ours(self) -> bool:
        return self._mark.exists() or self._storage.exists()

    def owns(self, path: Path) -> bool:
        """Whether a file of that name is one of the study's records."""
        return self.is_ours and path in (self.results, self.sweep_config, self.signs, self.certificate)

    def mark(
        self,
        study_name: str,
        storage: str,
        study_id: str | None = None,
        travels: bool = False,
        has_arrived: bool = False,
    ) -> None:
        """Say whose folder this is, and in which storage the study is.

        The URL may hold a password, so only its owner can read it.

        Args:
            study_id: tells the study from others that had, or will have, its name.
            travels: whether other machines take part that need not see this folder.
            has_arrived: whether all that is known of it stood in the storage, and nobody has typed its
                command here.
        """
        known = {} if study_id is None else {"id": study_id, "travels": travels}
        known |= {"arrived": True} if has_arrived else {}
        write_json(self._mark, {"format": FORMAT, "study": study_name, **known})
        with whole(self._storage, mode=0o600) as path:
            path.write_text(storage, encoding="utf-8")

    def read_storage(self) -> str | None:
        """The URL of the study's storage, if the folder is a study's and not another person's."""
        with disk(self._storage):
            try:
                url = self._storage.read_bytes().decode(errors="replace")
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return None
        if not url.isprintable() or not url:
            raise damaged(self._storage, "names no storage")
        return url

    @property
    def can_be_read_again(self) -> bool:
        """Whether its study is in a storage that outlives the process which began it."""
        return self.read_storage() not in (None, "memory")

    @property
    def is_in_default_journal(self) -> bool:
        """Whether the study is where those are that name no storage."""
        return self.read_storage() == str(default_journal())

    def read_name(self) -> str:
        """The name of the study whose folder this is.

        Raises:
            BadInput: where the study has another format.
        """
        mark = read_json(self._mark) if self._mark.exists() else {}
        check_format("STUDY", str(self.folder), mark)
        if "study" not in mark:
            raise damaged(self._mark, "names no study")
        return str(mark["study"])

    def read_id(self) -> str | None:
        """What tells the study from others of its name; None where an earlier version has marked it."""
        found = read_json(self._mark).get("id") if self._mark.exists() else None
        return found if isinstance(found, str) else None

    @property
    def travels(self) -> bool:
        """Whether trials of the study may have been trained where this folder is not."""
        return self._mark.exists() and read_json(self._mark).get("travels") is True

    @property
    def has_arrived(self) -> bool:
        """Whether all of it came from the storage: what stands there may be anybody's who can write it."""
        return self._mark.exists() and read_json(self._mark).get("arrived") is True

    def is_of(self, study_name: str, study_id: str | None) -> bool:
        """Whether it is the folder of that very study, however many have had the name."""
        try:
            return self.is_ours and (self.read_name(), self.read_id()) == (study_name, study_id)
        except (BadInput, Fault, OSError):  # closed, or damaged
            return False

    def refuse_others(self, study_name: str, storage: str) -> None:
        """Never mix two studies in one folder.

        Raises:
            BadInput: if the folder is that of another study, or of the same in another storage.
        """
        if not self.is_ours:
            return
        name, url = self.read_name(), self.read_storage() or storage
        if name != study_name:
            remedy = f"write the name {name} to go on with it, or take another folder (hydra.sweep.dir)"
            raise BadInput("study", study_name, f"{self.folder} is the folder of the study {name}", remedy)
        if url != storage:
            remedy = f"leave it out, or let it go on there: {program()} move {self.typed} --storage URL"
            reason = f"the study {name} is in another storage ({url})"
            raise BadInput("hydra.sweeper.storage", storage, reason, remedy)

    # ------------------------------------------------------------------------------------ making room

    def clean(self, trials: Sequence[FrozenTrial]) -> tuple[int, int]:
        """Remove what takes room and is no record: of these trials, and of those that the storage has lost.

        Call under the study's lock.

        Returns:
            how many trials gave room, and how many bytes.
        """
        n_trials = n_bytes = 0
        with disk(self.folder):
            for trial in trials:
                files = self.trial(trial)
                room = files.room() if files.is_of(trial.number) else []
                n_trials, n_bytes = n_trials + bool(room), n_bytes + sum(map(size, room))
                for path in room:
                    path.unlink()
            lost = list(self.lost.iterdir()) if self.lost.is_dir() else []
            n_bytes += size(self.lost)
            remove_trees(self.lost)
        return n_trials + len(lost), n_bytes

    def remove_trials(self, trials: Sequence[FrozenTrial] = ()) -> None:
        """Remove what is ours of these trials, of those whose folders are in the study's, and of the best."""
        with disk(self.folder):
            signs, certificate = self.signs, self.certificate
            for trial in trials:
                self.trial(trial).remove(trial.number)
            for path in sorted(self.folder.glob(f"*/{MARK}/trial.json")):
                if not StudyFiles(path.parents[1]).is_ours:  # that of a study named a/b lies in that of a
                    TrialFiles(path.parents[1]).remove(read_json(path).get("trial"))
            self.best.remove()
            for path in (
                self.results,
                self.sweep_config,
                signs,
                certificate,
                *([self.report] * self.has_report),
            ):
                path.unlink(missing_ok=True)

    def remove_mark(self) -> int:
        """Forget the study whose trials are removed, and remove its folder where nothing is left in it.

        Returns:
            how many files of somebody else are left.
        """
        n_left = 0
        with disk(self.folder):
            remove_trees(self.folder / MARK)
            inside = study_folders(self.folder)
            for folder, _, names in os.walk(self.folder, topdown=False):
                if not any(Path(folder).is_relative_to(study) for study in inside):
                    n_left += len(names)
                    remove_empty(Path(folder))
        return n_left

    # ------------------------------------------------------------------------------------- the results

    @property
    def results_s(self) -> float:
        """When the results were written, in seconds since the epoch; 0 where there are none."""
        try:
            return self.results.stat().st_mtime
        except OSError:  # just removed
            return 0.0

    @property
    def has_old_results(self) -> bool:
        """Whether they must be written again when something has changed."""
        return not 0 <= time.time() - self.results_s < RESULTS_S

    def write_results(
        self,
        found: Outcome,
        ended: int | None = None,
        kept: Collection[int] | None = None,
        is_due: bool = True,
    ) -> None:
        """Bring the results and ``best/`` up to date. Call under the study's lock.

        Args:
            ended: the trial that has just ended; None looks after the weights of all.
            kept: of a certificate, which has no ``best/``: the trials that keep their weights.
            is_due: whether the results must be as new as that; else they may be ``RESULTS_S`` old.
        """
        trials, best = found.trials, found.best
        if is_due or self.has_old_results:
            text = yaml.dump(found.told(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
            write_whole(self.results, text)
        keep = {trial.number for trial in best} if kept is None else set(kept)
        if ended is None or kept is not None:  # of a certificate others may drop out now
            ended_now = {t.number for t in trials if t.state.is_finished()}
        else:
            ended_now = {ended}
        with disk(self.folder):
            has_best = len(found.directions) == 1 and best and kept is None
            if has_best and not self.best.is_chosen(found.n_finished):
                ended_now.add(self.best.keep(self.trial(best[0]).run, best[0].number))
            for number in ended_now - keep:  # weights are large: only the best keep theirs
                if number < len(trials) and (run := self.trial(trials[number]).run).is_ours:
                    run.remove_weights()
                    if trials[number].state.name != "COMPLETE":  # killed, or of no value, after it wrote them
                        run.val_logits.unlink(missing_ok=True)

    def add_to_best(self, trial: int | None, added: Mapping[str, Any]) -> bool:
        """Add to the result in ``best/``, where it is that of this trial; what others add meanwhile stays.

        Call without the study's lock.

        Returns:
            whether it is that trial's.
        """
        with locked(self.lock):
            result = self.best.read_result()
            if not result or result.get("trial") != trial:
                return False
            result |= added
            if PER_CLASS in result:  # the long part comes last
                result[PER_CLASS] = result.pop(PER_CLASS)
            write_json(self.best.result, result)
        return True

    def write_belief(self, trial: int, belief: Mapping[str, Any]) -> None:
        """Keep how sure it is that this trial is the best. Call without the study's lock."""
        if not self.best.choice.exists() and self.add_to_best(trial, {BELIEF: belief}):
            self._belief.unlink(missing_ok=True)
        else:
            write_json(self._belief, belief)

    def read_belief(self) -> object:
        """What ``write_belief`` was given last; None where nobody knows.

        Raises:
            Fault: if a file is damaged.
        """
        found = self.best.read_result().get(BELIEF)
        is_beside = self.best.choice.exists() or not self.best.is_ours
        return read_json(self._belief) if found is None and is_beside and self._belief.exists() else found

    def choose(self, run: RunFiles, choice: Choice, trials: Sequence[FrozenTrial]) -> None:
        """Let ``best/`` hold the files of a run of a certificate, until another trial of the search ends.

        Call under the study's lock.

        Args:
            choice: whose run it is.
            trials: of the search.
        """
        belief = self.read_belief()  # of the search's best trial, whoever is in best/
        if isinstance(belief, dict):
            write_json(self._belief, belief)
        self.best.choose(run, choice, trials)

    # ------------------------------------------------------------------------------- on another machine

    @property
    def _texts(self) -> dict[str, Path]:
        """The small files of the study itself, by the names under which they go to other machines."""
        known = (self.signs, self._belief, self.certificate, self.plan, self.sweep_config)
        return {path.name: path for path in known}

    @property
    def arriving(self) -> Path:
        """Where the folders of trials from other machines are made."""
        return self.folder / MARK / "arriving"

    @property
    def arrivals(self) -> Path:
        """The lock of those who bring trials here."""
        return self.folder / MARK / "arrivals.lock"

    def read_texts(self) -> dict[str, str]:
        return read_texts(self._texts)

    def write_plan(self, texts: Mapping[str, str]) -> None:
        """Of these, that which makes it a certificate."""
        if isinstance(text := texts.get(self.plan.name), str) and not has_text(self.plan, text):
            write_whole(self.plan, text)

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Write those that have a name which we know, and that say something else than what is here."""
        for name, path in self._texts.items():
            if isinstance(text := texts.get(name), str) and not has_text(path, text):
                write_whole(path, text)


def is_report(path: Path) -> bool:
    """Whether a file is a report of ours, and not a page of somebody else."""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="sweeper' in file.read(2000)
    except OSError:
        return False
