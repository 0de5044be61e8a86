"""What a study leaves on disk. The only module that knows the names of the files.

Everything is written whole or not at all: to a temporary file beside, then renamed.
"""

from __future__ import annotations

import csv
import filecmp
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper.errors import BadInput

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

OUTPUTS = "outputs"
JOURNAL = "studies.journal"
RESULTS = "optimization_results.yaml"
CONFIG = "trial.yaml"
HISTORY = "history.csv"
RESULT = "result.json"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.pt"
TRACEBACK = "traceback.txt"
OUTPUT = "output.log"
BEST = "best"
_HIDDEN = ".sweeper"

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a build of PyYAML may lack libyaml


def check_study_name(study: str | None) -> None:
    """A study's name is a folder below ``outputs/``.

    Raises:
        BadInput: for a name that is none.
    """
    parts = (study or "").split("/")
    if any(part.strip() in ("", ".", "..") for part in parts):
        reason = "the name of a study is a folder below outputs/"
        raise BadInput("study", study, reason, "write a name, or leave it out: then it is date and time")


def study_lock(folder: Path) -> Path:
    return folder / _HIDDEN / "lock"


def life_folder(folder: Path) -> Path:
    return folder / _HIDDEN


def write_storage(folder: Path, url: str) -> None:
    """Remember which storage the study is in. The URL may hold a password, so only its owner can read it."""
    with whole(folder / _HIDDEN / "storage") as path:
        path.touch(mode=0o600)
        path.write_text(url)


def read_storage(folder: Path) -> str | None:
    """The storage of a study, if its folder tells."""
    path = folder / _HIDDEN / "storage"
    return path.read_text() if path.exists() else None


def find_storages() -> list[str | None]:
    """Where the studies under ``outputs/`` are kept, the default journal first; [None] if there are none."""
    journal = Path(OUTPUTS, JOURNAL).absolute()
    urls = [str(journal)] if journal.exists() else []
    urls += [read_storage(path.parent) or "memory" for path in sorted(Path(OUTPUTS).glob(f"*/{RESULTS}"))]
    found = [url for url in dict.fromkeys(urls) if "://" in url or Path(url).exists()]
    return [*found] or [None]


def refuse_foreign_folder(folder: Path, study_name: str, storage: str) -> None:
    """Never mix two studies in one folder.

    Raises:
        BadInput: if the folder is that of another study, or of the same in another storage.
    """
    if not (folder / RESULTS).exists():
        return
    name, url = read_yaml(folder / RESULTS)["study"], read_storage(folder) or storage
    if name != study_name:
        remedy = f"write the name {name} to go on with it, or take another folder (hydra.sweep.dir)"
        raise BadInput("study", study_name, f"{folder} is the folder of the study {name}", remedy)
    if url != storage:
        remedy = f"write hydra.sweeper.storage={url}, or another name"
        raise BadInput("hydra.sweeper.storage", storage, f"the study {name} is in another storage", remedy)


def worker_log(folder: Path, index: int) -> Path:
    """What a worker prints outside of its trials."""
    return folder / _HIDDEN / f"worker-{index}.log"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file so that readers, and a kill at any moment, find the old content or the new."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(content)


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row an epoch. Floats are written with all their digits, so that they compare to the last bit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: repr(value) for name, value in row.items()} for row in rows)
    write_whole(folder / HISTORY, text.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    with (folder / HISTORY).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def find_study(name: str | None) -> Path:
    """The folder of a study, by its name or path; None is the newest under ``outputs/``.

    Raises:
        BadInput: if there is none.
    """
    if name is not None:
        for folder in (Path(OUTPUTS, name), Path(name)):
            if (folder / RESULTS).exists():
                return folder
    known = sorted(Path(OUTPUTS).glob(f"*/{RESULTS}"), key=lambda path: path.stat().st_mtime)
    if name is None and known:
        return known[-1].parent
    begin = "begin one: python -m sweeper -m optimizer=adam,sgd"
    names = ", ".join(path.parent.name for path in known[-5:])
    remedy = f"write one of {names}" if known else begin
    raise BadInput("STUDY", name, f"there is no such study in {Path(OUTPUTS).absolute()}", remedy)


def write_results(study: optuna.Study, folder: Path, ended: int | None = None) -> None:
    """Bring ``optimization_results.yaml`` and ``best/`` up to date. Call under the study's lock.

    Args:
        ended: the trial that has just ended; None looks after the weights of all.
    """
    trials = study.get_trials(deepcopy=False)
    best = best_trials(study)
    counts = {state.name: n for state, n in Counter(trial.state for trial in trials).items()}
    summary: dict[str, Any] = {"name": "optuna", "study": study.study_name, "trials": counts}
    if len(study.directions) == 1:
        summary |= {
            "best_trial": best[0].number if best else None,
            "best_value": best[0].value if best else None,
            "best_params": best[0].params if best else {},
        }
    else:
        summary["solutions"] = [{"trial": t.number, "values": t.values, "params": t.params} for t in best]
    write_whole(folder / RESULTS, yaml.dump(summary, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
    keep = {trial.number for trial in best}
    lost = {t.number for t in trials if t.state.is_finished()} if ended is None else {ended}
    if len(study.directions) == 1 and best:
        lost.add(_keep_best(folder, best[0].number))
    for number in lost - keep:  # weights are large: only the best keep theirs
        (folder / str(number) / WEIGHTS).unlink(missing_ok=True)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best completed trial, or all on the Pareto front; empty while none has completed."""
    if len(study.directions) > 1:
        return study.best_trials
    try:
        return [study.best_trial]
    except ValueError:  # none has completed
        return []


def _keep_best(folder: Path, number: int) -> int:
    """Let ``best/`` hold the files of the best trial; a new one takes the place of the old in two renames.

    Returns:
        the trial that ``best/`` held before.
    """
    source, target = folder / str(number), folder / BEST
    before = read_json(target / RESULT)["trial"] if (target / RESULT).exists() else number
    if not (source / CONFIG).exists() or (before == number and _same_run(source, target)):
        return int(before)
    new, old = folder / _HIDDEN / "best-new", folder / _HIDDEN / "best-old"
    _remove(new, old)
    new.mkdir(parents=True)
    for name in (CONFIG, ENVIRONMENT, HISTORY, RESULT, WEIGHTS):
        if (source / name).exists():
            shutil.copy2(source / name, new / name)
    if target.exists():
        target.replace(old)
    new.replace(target)
    _remove(old)
    return int(before)


def _same_run(a: Path, b: Path) -> bool:
    """A number alone does not tell: a torn journal may have lost a trial, and another got its number."""
    histories = a / HISTORY, b / HISTORY
    return all(path.exists() for path in histories) and filecmp.cmp(*histories, shallow=False)


def remove_refused_run(folder: Path) -> None:
    """Take back what Hydra wrote for a run that was refused, unless another run has its files there."""
    if (folder / CONFIG).exists() or (folder / RESULTS).exists():
        return
    _remove(folder / ".hydra")
    for log in folder.glob("*.log"):
        log.unlink()
    while folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
        folder.rmdir()
        folder = folder.parent


def clear_trial(folder: Path, number: int) -> None:
    """Make room for a trial whose number another had that the storage has lost; that one's files are kept."""
    if (folder / str(number) / ".hydra").exists():  # else it is no job's folder, and not ours to move
        lost = folder / _HIDDEN / "lost"
        lost.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).rename(lost / f"{number}-{time.time_ns()}")


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
