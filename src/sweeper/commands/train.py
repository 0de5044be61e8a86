"""``sweeper [-m] …``: trains once, or searches."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sweeper import caller, check, run, saved
from sweeper.commands import best, report
from sweeper.commands.show import SingleRun, metrics
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.errors import BadInput
from sweeper.literal import literal
from sweeper.program import program
from sweeper.record.study_files import StudyFiles
from sweeper.saved import saved_run
from sweeper.search.hooks import hooks
from sweeper.search.trial import trial
from sweeper.words import near


def run_app(arguments: Sequence[str], trust: bool = False) -> None:
    """Run our Hydra app. It reads ``sys.argv``, where texts get the quotes that Hydra's grammar wants.

    Args:
        trust: whether a saved run may import what it names.

    Raises:
        BadInput: for what Hydra, the search or the training refuses.
    """
    sys.argv[1:] = arguments = literal(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the error is told in one line
    app = hydra.main(config_path=str(conf_folder()), config_name="config", **VERSION_BASE)(task)
    try:
        with saved_run(arguments, trust) as line, composing(line.overrides, check.before_run):
            try:
                app()
            finally:
                caller.say(networks=saved.named_networks())
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        if _is_there_unreadable(error.filename):
            remedy = "give yourself the permission (chmod)"
            raise BadInput("file", error.filename, "no permission to read it", remedy) from error
        remedy = "run it in a folder that can be written to, or set hydra.run.dir"
        raise BadInput("folder", error.filename, f"cannot be written ({error.strerror})", remedy) from error


def _is_there_unreadable(path: object) -> bool:
    """Whether reading failed: an output folder that cannot be written to can be read, or is not there."""
    return isinstance(path, str) and os.access(path, os.F_OK) and not os.access(path, os.R_OK)


def finish(folder: Path) -> None:
    """After a search: say how its best model does on the test images, and how to go on."""
    run.test_best(folder)  # a worker has, unless it was killed, or none was needed
    files = StudyFiles(folder)
    result, best_folder = files.best.read_result(), near(files.best.folder)
    for name, value in metrics(result, "test_").items():
        print(f"Test {name} of the best trial: {value:.4f}  ({best_folder})")
    if result and not run.is_tested(result) and not files.best.has_weights:
        print(f"{best_folder} has lost its weights; {program()} reproduce trains them again")
    best.show_commands(files)
    report.write_after_search(files)


@hooks(
    check=check.check,
    preload=run.preload,
    on_last_worker=run.test_best,
    on_finish=finish,
    seeds_by_trial=True,
)
def task(config: DictConfig) -> float | list[float]:
    """What Hydra runs: a single run is shown; in a search the pool speaks for its trials."""
    return run.main(config, SingleRun) if trial().number is None else run.main(config)
