"""Apps that train with PyTorch Lightning: their validation metric reaches the pruner."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch.utils.data import DataLoader, TensorDataset

from sweeper import BadInput
from sweeper.search.trial import Interruption, StudyTrial, running
from tests.foreign_app import App, assert_exactly
from tests.program import finish, kill_group, run, until

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of torch and of small data

APP = """
import logging
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
from sweeper.lightning import PruningCallback

class Model(pl.LightningModule):
    def __init__(self, x):
        super().__init__()
        self.x, self.layer = x, torch.nn.Linear(1, 1)

    def training_step(self, batch):
        (HERE / f"in-{sweeper.trial().number}").touch()
        return self.layer(batch).sum()

    def validation_step(self, batch):
        self.log("val_loss", self.x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def trained(x, epochs, n_workers=0):
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[PruningCallback()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )
    loader = DataLoader(torch.ones(4, 1), 2, num_workers=n_workers)
    trainer.fit(Model(x), loader, loader)
    return float(trainer.callback_metrics["val_loss"])
"""


@pytest.fixture(scope="module", params=["lightning.pytorch", "pytorch_lightning"])
def library(request: pytest.FixtureRequest) -> Any:
    """Lightning, under either name of its package."""
    return pytest.importorskip(request.param)


class Fit:
    """A trainer of ``library`` with our callback, and a model that logs ``val_loss``: 1, 2, 3, …"""

    def __init__(self, library: Any, monitor: str = "val_loss", **settings: Any) -> None:
        from sweeper.lightning import PruningCallback

        class Model(library.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.n_seen = torch.nn.Linear(1, 1), 0

            def training_step(self, batch: list[torch.Tensor]) -> Any:
                return self.layer(batch[0]).sum()

            def validation_step(self, batch: list[torch.Tensor]) -> None:
                self.n_seen += not self.trainer.sanity_checking
                self.log("val_loss", float(self.n_seen))

            def configure_optimizers(self) -> None:
                return None

        quiet = dict.fromkeys(
            ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
        )
        callbacks = [PruningCallback(monitor)]
        settings = {"max_epochs": 3, **settings}
        self.trainer = library.Trainer(callbacks=callbacks, accelerator="cpu", **quiet, **settings)
        self.model = Model()
        self.loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
            TensorDataset(torch.ones(2, 1)), batch_size=2
        )

    def run(self) -> None:
        self.trainer.fit(self.model, self.loader, self.loader)


@contextmanager
def a_trial(pruner: optuna.pruners.BasePruner | None = None) -> Iterator[optuna.Study]:
    """A study of which one trial is running."""
    study = optuna.create_study(pruner=pruner or optuna.pruners.NopPruner())
    with running(StudyTrial(study.ask(), Interruption())):
        yield study


def test_each_epoch_is_reported(library: Any) -> None:
    """Steps are epochs from 1; neither the sanity check nor a validation after the training is one."""
    fit = Fit(library)
    with a_trial() as study:
        fit.run()
        fit.trainer.validate(fit.model, fit.loader, verbose=False)
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 2.0, 3: 3.0}


def test_pruning_leaves_the_trainer_as_it_is(library: Any) -> None:
    """``optuna.TrialPruned`` comes out of ``fit``, and the handlers of signals are what they were."""
    fit, before = Fit(library), signal.getsignal(signal.SIGTERM)
    pruner = optuna.pruners.ThresholdPruner(upper=1.5)
    with a_trial(pruner) as study, pytest.raises(optuna.TrialPruned, match=r"after step 2 with 2\.0"):
        fit.run()
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 2.0}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_metric_that_is_not_logged_is_refused(library: Any) -> None:
    """The line names those that are."""
    with a_trial(), pytest.raises(BadInput, match=r"^monitor=val_acc: .* logs no such .*one of: val_loss$"):
        Fit(library, monitor="val_acc").run()


SEVERAL = """
import sys
sys.path.insert(0, sys.argv[1])
import lightning.pytorch
from tests.test_lightning import Fit, a_trial
with a_trial():
    Fit(lightning.pytorch, devices=2, strategy="ddp_fork", num_sanity_val_steps=0).run()
"""


@pytest.mark.slow
def test_a_trial_of_several_processes_is_refused(tmp_path: Path) -> None:
    """The others would wait for ever for the one that is pruned. What has trained may not be forked: so it is
    tried in a process of its own."""
    pytest.importorskip("lightning.pytorch")
    done = run(tmp_path, "-c", SEVERAL, str(Path(__file__).parents[1]), limit_s=90)
    assert done.returncode == 1
    assert re.search(r"BadInput: devices=2: .*; write devices=1", done.stderr), done.stderr


def test_outside_a_sweep_nothing_happens(library: Any) -> None:
    """The same script trains alone, whatever it monitors."""
    fit = Fit(library, monitor="val_acc")
    fit.run()
    assert fit.trainer.current_epoch == 3


@pytest.mark.slow
def test_the_search_is_told_which_trials_are_pruned(tmp_path: Path) -> None:
    """In worker processes, with loader processes of their own."""
    app = App(tmp_path, "return trained(cfg.x, 3, n_workers=1)", APP)
    done = app.run(
        *("hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.upper=1", "hydra.sweeper.sampler.seed=1"),
        limit_s=120,
    )
    assert done.returncode == 0, done.stderr
    trials = assert_exactly(app, 6)
    assert {t.state for t in trials} == {TrialState.PRUNED, TrialState.COMPLETE}
    for trial in trials:
        is_pruned = trial.params["x"] > 1
        assert trial.state == (TrialState.PRUNED if is_pruned else TrialState.COMPLETE)
        assert list(trial.intermediate_values) == ([1] if is_pruned else [1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("where", [[], ["hydra.sweeper.in_process=true"]], ids=["workers", "in process"])
def test_ctrl_c_stops_a_training(tmp_path: Path, where: list[str]) -> None:
    """Lightning's handlers of signals stand in nobody's way: the trial is queued again, the exit code 130."""
    app = App(tmp_path, "return trained(cfg.x, 10**9)", APP)
    process = app.start("hydra.sweeper.n_jobs=1", "hydra/sweeper/pruner=none", *where)
    until(lambda: (tmp_path / "in-0").exists(), limit_s=60)
    kill_group(process, signal.SIGINT)
    done = finish(process, limit_s=60)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert [t.state for t in app.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_without_lightning_the_extra_is_named(tmp_path: Path) -> None:
    """The error of the import is one line with the command to write."""
    missing = "import sys; sys.modules.update(dict.fromkeys(['lightning', 'pytorch_lightning']))"
    done = run(tmp_path, "-c", f"{missing}\nimport sweeper.lightning")
    line = done.stderr.splitlines()[-1]
    assert line == 'ModuleNotFoundError: PyTorch Lightning is not installed; pip install "sweeper[lightning]"'


def test_lightning_itself_is_still_found() -> None:
    """Our module of the same name hides nothing."""
    import lightning

    import sweeper.lightning

    assert lightning is sys.modules["lightning"]
    assert lightning is not sweeper.lightning
