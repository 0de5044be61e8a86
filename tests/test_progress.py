"""What a person sees while a search runs."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console

from sweeper.search.progress import Progress, describe
from sweeper.search.study import Search, Study


@pytest.fixture
def search(tmp_path):
    return Search(
        study_name="mine",
        storage="memory",
        folder=tmp_path,
        directions=("maximize",),
        metrics=("val_accuracy",),
        sampler={"_target_": "optuna.samplers.TPESampler"},
        pruner={"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 20},
        seed=None,
        n_trials=10,
        deadline=None,
        max_retries=1,
        max_failure_rate=0.5,
        custom_search_space=None,
    )


@pytest.fixture
def study():
    """Two finished trials, and one that runs at step 3."""
    study = optuna.create_study(direction="maximize")
    distributions = {
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
        "optimizer.lr": FloatDistribution(0, 1),
    }
    for state, value in [(TrialState.COMPLETE, 0.75), (TrialState.PRUNED, 0.25)]:
        params = {"optimizer": "adam", "optimizer.lr": 0.5}
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=params,
                distributions=distributions,
                intermediate_values={1: value},
            )
        )
    study.ask(distributions).report(0.5, 3)
    return study


def test_a_terminal_shows_each_worker_and_a_total(search, study):
    """A line for what runs (number, step of how many, value) and one for all (done, pruned, failed, best)."""
    progress = Progress(Study(search, study))
    console = Console(width=200)
    with console.capture() as capture:
        trials = study.get_trials()
        console.print(progress._picture(trials, [trials[0]]))
    running, total = capture.get().strip().splitlines()
    assert "trial 2" in running
    assert "step 3 of 20" in running
    assert "0.5" in running
    assert "2/10" in total
    assert "1 done · 1 pruned · 0 failed · best 0.75" in total


def test_without_a_terminal_each_ended_trial_is_a_line(search, study, capsys):
    """A log gets one line for each trial when it has ended, and nothing twice."""
    empty = optuna.create_study(direction="maximize")
    progress = Progress(Study(search, empty))
    progress._study = Study(search, study)
    progress.update(study.get_trials())
    progress.update(study.get_trials())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("trial   0 done   0.75  best so far")
    assert lines[0].endswith("optimizer=adam lr=0.5")
    assert lines[1].startswith("trial   1 pruned 0.25  ")


def test_names_are_shortened_where_they_stay_distinct():
    """``optimizer.lr`` is lr, unless another key ends so as well."""
    assert describe({"optimizer.lr": 0.00123456, "training.batch_size": 32}) == "lr=0.001235 batch_size=32"
    assert describe({"a.x": 1, "b.x": 2, "c.y": 3}) == "a.x=1 b.x=2 y=3"
