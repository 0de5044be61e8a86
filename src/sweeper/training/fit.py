"""Training: one loop from data to a history of epochs and the best weights."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from time import perf_counter

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training import (
    custom,
    dead_unit,
    features,
    freeze,
    machine,
    metric,
    source,
    state,
    step,
    weights,
)
from sweeper.training.augment import Augment, Variations
from sweeper.training.data import Data, Pixels
from sweeper.training.loss import build_loss
from sweeper.training.model import build
from sweeper.training.optim import Plateau, build_optimizer, lr_in
from sweeper.training.source import Source, batches_of

PLAIN = schema.Training(precision="float32")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The results of one pass over the training images. Losses are means per image, metrics at most 1.

    ``val_loss`` is the plain loss, without smoothing or weights, so that trials compare. Metrics that nobody
    asked for, or that the images leave undefined, are None (see ``metric.measure``). ``lr`` is the scheduled
    value of ``optimizer.lr``; some stages learn at a multiple of it.
    ``images_per_second`` covers training only, ``seconds`` validation too. ``peak_memory_mb`` is this run's
    peak on the GPU, or on a CPU the peak of the process since its start.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None = None
    val_loss: float
    val_accuracy: float | None = None
    val_mean_average_precision: float | None = None
    val_f1: float | None = None
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    val_auroc: float | None = None
    val_top5_accuracy: float | None = None
    val_cohen_kappa: float | None = None
    val_calibration_error: float | None = None
    lr: float
    seconds: float
    images_per_second: float
    peak_memory_mb: float

    def row(self) -> dict[str, float]:
        """The measured values, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def diverged(self) -> bool:
        """Whether a loss is infinite or NaN."""
        return not (isfinite(self.train_loss) and isfinite(self.val_loss))


@dataclass
class Fitted:
    """A finished training; ``model`` has the weights of the best epoch by ``early_stopping.monitor``,
    ``val_logits`` are its logits on the validation images, and ``per_class`` is what ``metric.by_class`` says
    of these.

    ``diverged`` means that a loss became infinite or NaN, which ended the training. If no epoch had a finite
    loss, the best one is the first.
    """

    history: list[Epoch]
    best_epoch: int
    stopped_early: bool
    model: nn.Module
    val_logits: Tensor
    diverged: bool = False
    per_class: metric.PerClass = field(default_factory=dict)
    dead_units: float | None = None
    """After the last epoch; see ``dead_unit.dead_units``."""


def fit(run: schema.Run, data: Data, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Fitted:
    """Train a new model, on the device that the data was loaded for.

    ``run.seed`` determines the weights, the order of the images, their augmentation and dropout: the same run
    gives the same history to the last bit, on the same machine with the same number of threads.
    ``on_epoch`` is called after every epoch; an exception from it ends the training and passes through. If a
    GPU has no room for a batch, training starts again, at epoch 1, with smaller micro-batches (gradient
    accumulation).

    Raises:
        BadInput: if the settings do not fit the data or the machine.
    """
    custom.load(run.model)
    with machine.threads(run.training.n_threads), machine.memory(data.device):
        while True:
            try:
                return _fit(step.with_micro_batch_size(run), data, on_epoch)
            except Exception as error:
                if "Expected more than 1 value per channel" in str(error):
                    reason = "batch norm cannot learn from one image whose features are one pixel"
                    key, value = _batch_of(step.with_micro_batch_size(run).training)
                    raise BadInput(key, value, reason, "write 2 or more") from error
                if not machine.is_full(error):
                    raise
            gc.collect()  # frees the network that did not fit
            machine.release(data.device)
            step.halve_micro_batch_size(run)


def _batch_of(settings: schema.Training) -> tuple[str, int]:
    """The key for the number of images that go through a network at once, and its value."""
    if settings.micro_batch_size is None:
        return "training.batch_size", settings.batch_size
    return "training.micro_batch_size", settings.micro_batch_size


def _fit(run: schema.Run, data: Data, on_epoch: Callable[[Epoch], None]) -> Fitted:
    device, settings = data.device, run.training
    machine.make_repeatable(device, run.seed, settings.tf32)
    generator = torch.Generator().manual_seed(run.seed)
    model = build_model(run, data)
    forward = step.compiled(model) if settings.compile else model
    stages = freeze.plan(run.freezing, model, by_stage=run.optimizer.stage_lr_decay != 1)
    optimizer = build_optimizer(run.optimizer, stages)
    monitor = settings.early_stopping.monitor
    metrics = schema.metrics(run, data.val_y.ndim > 1)
    metric.load(metrics)
    plateau = Plateau(run.scheduler, monitor)
    loss_of = build_loss(run.loss, data.train_y, len(data.classes), device)
    augment = Augment(run.augmentation, data)
    whole = reads = source.of_images(data, augment, forward)
    sees_the_same = not augment.varies or settings.feature_views > 0
    may_share = run.model.weights is not None and sees_the_same and not settings.compile
    parts = step.batches(len(data.train_y), settings.batch_size)
    best, history = _Best(settings.early_stopping, model), list[Epoch]()

    for number in range(1, settings.epochs + 1):
        started = perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr_in(number, group["peak_lr"], run, plateau.n_reductions)
        if may_share and (n := features.n_frozen(stages, number)) != reads.n_frozen:
            reads = source.of_features(run, data, augment, model, stages, n) or replace(whole, n_frozen=n)
        freeze.begin_epoch(model, stages, number)
        if any(stage.first_epoch == number for stage in stages):  # in epoch 1 at least the head
            learn = step.Step(reads.network, optimizer, loss_of, settings, device)
        order = torch.randperm(len(data.train_y), generator=generator).to(data.train_y.device)
        # Drawn once per epoch, which is cheaper than in every step, and on the CPU, whatever the device.
        variations = augment.draw(len(order), generator).to(device)
        chosen = [order[start:stop] for start, stop in parts]
        losses, predictions = [], []
        batches = batches_of(reads.draw(generator), chosen, device)
        for (start, stop), rows, batch in zip(parts, chosen, batches, strict=True):
            inputs = reads.prepare(batch, variations[start:stop])
            labels = data.train_y.index_select(0, rows).to(device, non_blocking=True)
            loss, predicted = learn(inputs, labels)
            losses.append(loss)
            predictions.append(predicted)

        # The training's first and only synchronisation with the device in an epoch.
        train_loss, train_accuracy = _summarise(losses, predictions, data.train_y[order], parts)
        trained = perf_counter()
        logits = _validate(reads, data, settings)
        measured = metric.measure(logits, data.val_y.to(device), metrics)
        epoch = Epoch(
            epoch=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **{f"val_{name}": value for name, value in measured.items()},
            lr=lr_in(number, run.optimizer.lr, run, plateau.n_reductions),
            seconds=perf_counter() - started,
            images_per_second=len(data.train_y) / (trained - started),
            peak_memory_mb=machine.peak_memory_mb(device),
        )
        history.append(epoch)
        if best.see(epoch, unfreezing=any((stage.first_epoch or 0) >= number for stage in stages)):
            best_logits = logits
        on_epoch(epoch)
        if epoch.diverged or best.is_long_ago:
            break
        plateau.see(number, getattr(epoch, monitor))
    per_class = metric.by_class(best_logits, data.val_y.to(device), data.classes)
    is_early = not epoch.diverged and number < settings.epochs
    dead = dead_unit.dead_units(model, data)  # of the last epoch, not of the best
    model = best.restore(model)
    return Fitted(history, best.epoch, is_early, model, best_logits, epoch.diverged, per_class, dead)


def build_model(run: schema.Run, data: Data) -> nn.Module:
    """A new network on the data's device; its body has the weights of ``model.weights``, or random ones if
    the run is from scratch.
    """
    model = build(run.model, data.channels, data.side, len(data.classes))
    if not run.from_scratch:
        weights.load(model, run.model, data.side)
    # On a CPU, pooling is up to ten times as fast with channels_last.
    return model.to(data.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def evaluate(
    model: nn.Module,
    data: Data,
    part: str = "test",
    settings: schema.Training = PLAIN,
    metrics: Collection[str] | None = None,
) -> dict[str, float]:
    """The results of ``metric.measure`` on the part ``train``, ``val`` or ``test``; none if it is empty.

    Args:
        settings: for precision and micro-batch size; float32 by default.
        metrics: their names; by default the usual ones.
    """
    logits, labels = predict(model, data, part, settings)
    return metric.measure(logits, labels, metrics) if len(labels) else {}


def predict(
    model: nn.Module, data: Data, part: str = "test", settings: schema.Training = PLAIN
) -> tuple[Tensor, Tensor]:
    """The logits (n, n_classes) of a part's images, and their labels; as ``evaluate`` has them."""
    inputs, labels = data.part(part)
    normalize = Augment(schema.Augmentation(), data).normalize
    return _predict(model, inputs, normalize, data, settings), labels.to(data.device)


def _validate(reads: Source, data: Data, settings: schema.Training) -> Tensor:
    nothing = Variations()
    return _predict(reads.network, reads.val, lambda batch: reads.prepare(batch, nothing), data, settings)


def _predict(
    network: nn.Module,
    inputs: Pixels,
    prepare: Callable[[Tensor], Tensor],
    data: Data,
    settings: schema.Training,
) -> Tensor:
    autocast = machine.autocast_in(settings.precision, data.device)
    starts = range(0, len(inputs), n := source.n_at_once(data, settings.micro_batch_size))
    rows = [torch.arange(start, min(start + n, len(inputs))) for start in starts]
    network.eval()
    with torch.inference_mode():
        logits = [torch.empty(0, len(data.classes), device=data.device)]
        for batch in batches_of(inputs, rows, data.device):
            with autocast():
                logits.append(network(prepare(batch)).float())
        return torch.cat(logits)


# ---------------------------------------------------------------------------------- the parts of the loop


def _summarise(
    losses: list[Tensor], predictions: list[Tensor], labels: Tensor, batches: list[tuple[int, int]]
) -> tuple[float, float | None]:
    """Mean loss per image over an epoch's steps, and the accuracy if each image has one label."""
    sizes = torch.tensor([stop - start for start, stop in batches], dtype=torch.float64)
    loss = torch.dot(torch.stack(losses).cpu().double(), sizes).item() / len(labels)
    if labels.ndim > 1:
        return loss, None
    predicted = torch.cat(predictions)
    n_correct = (predicted == labels.to(predicted.device)).sum()
    return loss, n_correct.item() / len(labels)


@dataclass
class _Best:
    """The best epoch so far, its weights, and the number of epochs since an improvement by ``min_delta``."""

    settings: schema.EarlyStopping
    model: nn.Module
    epoch: int = 1
    _value: float = inf
    _to_beat: float = inf
    _n_waited: int = 0
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, epoch: Epoch, unfreezing: bool = False) -> bool:
        """Take in an epoch, and say whether it is the best so far.

        Args:
            unfreezing: a stage unfreezes in this epoch or later, so patience does not count yet.
        """
        value = getattr(epoch, self.settings.monitor)
        value = -value if schema.DIRECTIONS[self.settings.monitor] == "maximize" else value
        value = inf if epoch.diverged else value
        is_best = value < self._value or not self._weights
        if is_best:
            self.epoch, self._value = epoch.epoch, value
            self._weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        improves = value < self._to_beat - self.settings.min_delta
        self._to_beat = value if improves else self._to_beat
        self._n_waited = 0 if improves or unfreezing else self._n_waited + 1
        return is_best

    @property
    def is_long_ago(self) -> bool:
        return self.settings.patience is not None and self._n_waited >= self.settings.patience

    def restore(self, model: nn.Module) -> nn.Module:
        state.put(model, self._weights)
        return model
