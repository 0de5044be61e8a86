"""Pruning for apps that train with PyTorch Lightning: ``Trainer(callbacks=[PruningCallback()])``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeper.errors import BadInput
from sweeper.search.trial import trial

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:  # either name of the package: a trainer calls the hooks of a callback, whichever class it is of
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError as error:
            remedy = 'pip install "sweeper[lightning]"'
            raise ModuleNotFoundError(f"PyTorch Lightning is not installed; {remedy}") from error

__all__ = ["PruningCallback"]


class PruningCallback(Callback):
    """Tells the search how a trial stands after each validation epoch, and ends the trial when it is pruned.

    Outside a sweep it does nothing. Of several validations in one epoch the first counts.

    Args:
        monitor: a metric that is logged during validation; what is better is ``hydra.sweeper.direction``.

    Raises:
        optuna.TrialPruned: in ``Trainer.fit``, when the trial should stop; let it pass.
        BadInput: if no such metric is logged, or a trial trains in several processes: the search runs its
            trials side by side instead, each on a GPU of its own.
    """

    def __init__(self, monitor: str = "val_loss") -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        current, logged = trial(), trainer.callback_metrics
        if current.number is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.world_size > 1:  # the other processes would wait for the one that is pruned
            reason = "a trial that may be pruned trains in one process"
            raise BadInput("devices", trainer.world_size, reason, "write devices=1")
        if self.monitor not in logged:
            remedy = f"log it in validation_step, or monitor one of: {', '.join(sorted(logged)) or '(none)'}"
            raise BadInput("monitor", self.monitor, "the model logs no such metric", remedy)
        current.report(float(logged[self.monitor]), trainer.current_epoch + 1)
