"""Certificates as a search's own command runs them: a plan by hand, in the folder beside the search's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeper.record.study_files import StudyFiles
from sweeper.results.plan import CANDIDATE, REPEAT, Candidate, Plan
from tests.foreign_app import FINISHED, App
from tests.journal import load_study

NAME = "s-certificate"


def of_trials(*params: Mapping[str, Any], n_seeds: int = 3, **others: Any) -> Plan:
    """A plan of trials 0, 1 … of a search named s, with these parameters, and of the defaults."""
    trials = [Candidate(trial=n, params=one, values=None, seconds=None) for n, one in enumerate(params)]
    defaults = Candidate(trial=None, params=None, values=None, seconds=None)
    given = {"study": "s", "folder": "", "n_folds": None, "seed": 7, **others}
    return Plan(candidates=(*trials, defaults), n_seeds=n_seeds, **given)


def put(app: App, plan: Plan) -> StudyFiles:
    """Make a folder that of a certificate."""
    files = StudyFiles(app.folder / NAME)
    files.mark(NAME, str(app.journal))
    replace(plan, folder=str(app.out)).write(files)
    return files


ARGUMENTS = (f"hydra.sweeper.study_name={NAME}", f"hydra.sweep.dir={NAME}")
"""What makes the search's command that of the certificate."""


def study(folder: Path) -> optuna.Study:
    """Loaded by plain Optuna."""
    return load_study(folder, NAME)


def trials(app: App) -> list[FrozenTrial]:
    """Of the certificate, or none while there is none."""
    try:
        return study(app.folder).get_trials() if app.journal.exists() else []
    except KeyError:
        return []


def assert_trained(found: list[FrozenTrial], n: int) -> Counter[str]:
    """Exactly so many trainings were made, none twice, and none is open; gives how many of each candidate."""
    assert not [t.number for t in found if not t.state.is_finished()]
    done = [t for t in found if t.state in FINISHED]
    assert len(done) == n
    trainings = [(t.user_attrs[CANDIDATE], t.user_attrs[REPEAT]) for t in done]
    assert len(set(trainings)) == n
    assert all(t.state == TrialState.COMPLETE or t.user_attrs["diverged"] for t in done)
    return Counter(name for name, _ in trainings)
