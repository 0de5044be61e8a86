"""Training: one loop from data to a history of epochs and the best weights."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from time import perf_counter
from typing import cast

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.training import features, freeze, weights
from sweeper.training.augment import Augment, Variations
from sweeper.training.data import Data, Pixels, Rows, place
from sweeper.training.freeze import Stage
from sweeper.training.loss import build_loss
from sweeper.training.metric import measure
from sweeper.training.model import build
from sweeper.training.optim import build_optimizer, build_scheduler, lr_of

log = logging.getLogger(__name__)

PIXELS_PER_VALIDATION_BATCH = 2**20


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training images brought. Losses are means per image, metrics 0 … 1.

    ``val_loss`` is the plain loss, without smoothing or weights, so that trials compare. What the kind of
    labels has no use for is None (see ``metric.measure``). ``lr`` is ``optimizer.lr`` as the schedule had it
    for this epoch; stages that learn at a multiple of it had theirs.
    ``images_per_second`` counts training alone, ``seconds`` validation too. ``peak_memory_mb`` is the most
    that this run held on the GPU, or else that the process held since its start.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None = None
    val_loss: float
    val_accuracy: float | None = None
    val_mean_average_precision: float | None = None
    val_f1: float | None = None
    lr: float
    seconds: float
    images_per_second: float
    peak_memory_mb: float

    def row(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def diverged(self) -> bool:
        """Whether a loss is infinite or NaN."""
        return not (isfinite(self.train_loss) and isfinite(self.val_loss))


@dataclass
class Fitted:
    """A finished training; ``model`` holds the weights of the best epoch by ``early_stopping.monitor``.

    ``diverged`` says that a loss became infinite or NaN, and that training ended there. The best epoch is the
    first where none was finite.
    """

    history: list[Epoch]
    best_epoch: int
    stopped_early: bool
    model: nn.Module
    diverged: bool = False


def fit(run: schema.Run, data: Data, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Fitted:
    """Train a new model, on the device that the data was loaded for.

    ``run.seed`` decides the weights, the order of the images, their augmentation and dropout: the same
    run gives the same history to the last bit, on the same machine and with the same number of threads.
    ``on_epoch`` is called after every epoch; what it raises ends the training and passes through.

    Raises:
        BadInput: where the settings do not fit the data or the machine.
    """
    with _threads(run.training.n_threads):
        try:
            return _fit(run, data, on_epoch)
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            reason = "batch norm cannot learn from one image whose features are one pixel"
            raise BadInput(
                "training.batch_size", run.training.batch_size, reason, "write 2 or more"
            ) from error


def _fit(run: schema.Run, data: Data, on_epoch: Callable[[Epoch], None]) -> Fitted:
    device, settings = data.device, run.training
    make_repeatable(device, run.seed, settings.tf32)
    generator = torch.Generator().manual_seed(run.seed)
    model = build_model(run, data)
    forward = cast(nn.Module, torch.compile(model)) if settings.compile else model
    stages = freeze.plan(run.freezing, model, by_stage=run.optimizer.stage_lr_decay != 1)
    optimizer = build_optimizer(run.optimizer, stages)
    monitor = settings.early_stopping.monitor
    schedule = build_scheduler(run.scheduler, optimizer, settings.epochs, monitor)
    loss_of = build_loss(run.loss, data.train_y, len(data.classes), device)
    augment = Augment(run.augmentation, data)
    autocast = _autocast(device, settings.precision)
    whole = source = _images(data, augment, forward)
    sees_the_same = not augment.varies or settings.feature_views > 0
    may_share = run.model.weights is not None and sees_the_same and not settings.compile
    batches = _batches(len(data.train_y), settings.batch_size)
    best, history = _Best(settings.early_stopping, model), list[Epoch]()

    for number in range(1, settings.epochs + 1):
        started, lr = perf_counter(), lr_of(optimizer)
        if may_share and (n := features.n_frozen(stages, number)) != source.n_frozen:
            source = _features(run, data, augment, model, stages, n) or replace(whole, n_frozen=n)
        freeze.begin_epoch(model, stages, number)
        order = torch.randperm(len(data.train_y), generator=generator).to(data.train_y.device)
        # Drawn at once, which is cheaper than in every step, and on the CPU: the same on every device.
        variations = augment.draw(len(order), generator).to(device)
        train = source.draw(generator)
        losses, predictions = [], []
        for start, stop in batches:
            chosen = order[start:stop]
            inputs = train.index_select(0, chosen.to(train.device)).to(device, non_blocking=True)
            labels = data.train_y.index_select(0, chosen).to(device, non_blocking=True)
            inputs = source.prepare(inputs, variations[start:stop])
            with autocast():
                logits = source.network(inputs)
            loss = loss_of(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
            predictions.append(logits.detach().argmax(1))

        # The epoch's first and only wait for the device.
        train_loss, train_accuracy = _summarise(losses, predictions, data.train_y[order], batches)
        trained = perf_counter()
        measured = source.evaluate(data, autocast)
        epoch = Epoch(
            epoch=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **{f"val_{name}": value for name, value in measured.items()},
            lr=lr,
            seconds=perf_counter() - started,
            images_per_second=len(data.train_y) / (trained - started),
            peak_memory_mb=peak_memory_mb(device),
        )
        history.append(epoch)
        best.see(epoch, thaws=any((stage.first_epoch or 0) >= number for stage in stages))
        on_epoch(epoch)
        if epoch.diverged:
            return Fitted(history, best.epoch, False, best.restore(model), diverged=True)
        if best.is_long_ago:
            return Fitted(history, best.epoch, number < settings.epochs, best.restore(model))
        schedule.step(getattr(epoch, monitor))
    return Fitted(history, best.epoch, False, best.restore(model))


def build_model(run: schema.Run, data: Data) -> nn.Module:
    """A new network on the data's device, its body with the weights that ``model.weights`` names.

    ``freezing=none`` is training from scratch: it begins with random weights whatever the others begin with.
    """
    model = build(run.model, data.channels, data.side, len(data.classes))
    if run.freezing.name != "none":
        weights.load(model, run.model, data.side)
    # On a CPU, pooling is up to ten times as fast with the channels last.
    return model.to(data.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def evaluate(
    model: nn.Module, data: Data, part: str = "test", precision: str = "float32"
) -> dict[str, float]:
    """What ``metric.measure`` says of the part ``train``, ``val`` or ``test``; nothing where it is empty."""
    inputs, labels = data.part(part)
    normalize = Augment(schema.Augmentation(), data).normalize
    return _evaluate(model, inputs, labels, normalize, data, _autocast(data.device, precision))


def _evaluate(
    network: nn.Module,
    inputs: Pixels,
    labels: Tensor,
    prepare: Callable[[Tensor], Tensor],
    data: Data,
    autocast: Callable[[], torch.autocast],
) -> dict[str, float]:
    if len(labels) == 0:
        return {}
    batch_size, logits = _at_once(data), []
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(labels), batch_size):
            batch = inputs[start : start + batch_size].to(data.device, non_blocking=True)
            with autocast():
                logits.append(network(prepare(batch)).float())
        return measure(torch.cat(logits), labels.to(data.device))


def _at_once(data: Data) -> int:
    """How many images go through a network together where nothing is learnt."""
    return max(1, PIXELS_PER_VALIDATION_BATCH // data.side**2)


# --------------------------------------------------------------------------------- what the loop reads


@dataclass(frozen=True)
class _Source:
    """What an epoch reads and what it goes through: images and the whole network, or features and the rest.

    ``n_frozen`` stages from the image on are frozen in the epochs that it is for. ``train`` holds ``n_views``
    variations of all images, one after another.
    """

    train: Pixels
    val: Pixels
    network: nn.Module
    prepare: Callable[[Tensor, Variations], Tensor]
    n_frozen: int = 0
    n_views: int = 1

    def draw(self, generator: torch.Generator) -> Pixels:
        """What an epoch trains on: of each image one of its views."""
        if self.n_views == 1:
            return self.train
        assert isinstance(self.train, Tensor)
        n = len(self.train) // self.n_views
        views = torch.randint(self.n_views, (n,), generator=generator)
        return Rows(self.train, (views * n + torch.arange(n)).to(self.train.device))

    def evaluate(self, data: Data, autocast: Callable[[], torch.autocast]) -> dict[str, float]:
        nothing = Variations()
        return _evaluate(
            self.network, self.val, data.val_y, lambda b: self.prepare(b, nothing), data, autocast
        )


def _images(data: Data, augment: Augment, network: nn.Module) -> _Source:
    return _Source(data.train_x, data.val_x, network, augment.apply)


def _features(
    run: schema.Run, data: Data, augment: Augment, model: nn.Module, stages: Sequence[Stage], n_frozen: int
) -> _Source | None:
    """What the frozen stages make of the images, from the cache or into it; None where that cannot be."""
    parts = features.cut(model, stages, n_frozen) if n_frozen else None
    if parts is None:
        return None
    frozen = parts.frozen.eval()
    statistics = data.mean.tolist(), data.std.tolist()
    machine = run.training.precision, run.training.n_threads, str(data.device), _at_once(data)
    key = features.digest(frozen, data.fingerprint, data.split, statistics, machine)
    about = f"{run.model.name}, {run.dataset.name}, behind {stages[n_frozen - 1].name}"

    def compute(pixels: Pixels, n_views: int, variations: Variations, name: str) -> Tensor | None:
        def batch(start: int, stop: int) -> Tensor:
            rows = torch.arange(start, stop) % len(pixels)
            some = pixels.index_select(0, rows.to(pixels.device)).to(data.device, non_blocking=True)
            return augment.apply(some, variations[start:stop])

        n = len(pixels) * n_views
        with _autocast(data.device, run.training.precision)():
            return features.compute(frozen, n, batch, _at_once(data), f"{key} {name}", f"{about}, {name}")

    n_views, views, name = 1, Variations(), "train"
    if augment.varies:
        n_views = run.training.feature_views
        views = augment.draw(len(data.train_x) * n_views, torch.Generator().manual_seed(0)).to(data.device)
        name = f"train, {n_views} views, {run.augmentation} {data.allow_hflip} {data.allow_vflip}"
    train, val = compute(data.train_x, n_views, views, name), compute(data.val_x, 1, Variations(), "val")
    if train is None or val is None:
        return None
    home = place(run.dataset.on_device, train.nbytes + val.nbytes, data.device)
    # A copy: what is mapped belongs to all, and a layer may work in place.
    return _Source(
        train.to(home), val.to(home), parts.trained, lambda batch, _: batch.clone(), n_frozen, n_views
    )


# ----------------------------------------------------------------------------------------- the machine


def resolve_device(name: str) -> torch.device:
    """The device by its name in torch; ``auto`` is the first GPU, or else the CPU.

    Raises:
        BadInput: where this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(
            "device", name, "there is no such device", "write auto, cpu, cuda or cuda:0"
        ) from error
    n_gpus = torch.cuda.device_count()
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < n_gpus):
        return device
    has = (
        f"this machine has {n_gpus} GPUs that torch can use"
        if device.type == "cuda"
        else "it is not supported"
    )
    raise BadInput("device", name, has, "write device=auto or device=cpu")


def make_repeatable(device: torch.device, seed: int, tf32: bool) -> None:
    """Seed torch and let it choose algorithms that give the same sums every time."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every new tensor is filled with NaN first, to catch reads that this code has none of.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far: on a GPU by this run's tensors, else by the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    in_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes / 2**20


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    """Compute with that many CPU threads, then again with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve_precision(precision: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on GPUs and CPUs that compute with it."""
    if precision != "auto":
        return precision
    has_bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether there are instructions for it; without them it takes longer than float32."""
    asks = [
        getattr(torch.cpu, f"_is_{name}_supported", lambda: False) for name in ("avx512_bf16", "amx_tile")
    ]
    return any(ask() for ask in asks)


def _autocast(device: torch.device, precision: str) -> Callable[[], torch.autocast]:
    enabled = resolve_precision(precision, device) == "bfloat16"
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


# ---------------------------------------------------------------------------------- the parts of the loop


def _batches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Starts and ends of the batches. A last one of a single image, of which batch norm could learn no
    variance, joins the one before."""
    starts = list(range(0, n, batch_size))
    if n - starts[-1] == 1 and 1 < batch_size < n:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _summarise(
    losses: list[Tensor], predictions: list[Tensor], labels: Tensor, batches: list[tuple[int, int]]
) -> tuple[float, float | None]:
    """Mean loss per image of an epoch's steps, and their accuracy where an image has one label."""
    sizes = torch.tensor([stop - start for start, stop in batches], dtype=torch.float64)
    loss = torch.dot(torch.stack(losses).cpu().double(), sizes).item() / len(labels)
    if labels.ndim > 1:
        return loss, None
    predicted = torch.cat(predictions)
    n_correct = (predicted == labels.to(predicted.device)).sum()
    return loss, n_correct.item() / len(labels)


@dataclass
class _Best:
    """The best epoch so far, its weights, and how long nothing has improved by ``min_delta``."""

    settings: schema.EarlyStopping
    model: nn.Module
    epoch: int = 1
    _value: float = inf
    _to_beat: float = inf
    _n_waited: int = 0
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, epoch: Epoch, thaws: bool = False) -> None:
        """``thaws``: more of the network trains now, or will, so that the waiting has not begun."""
        value = getattr(epoch, self.settings.monitor)
        value = -value if schema.DIRECTIONS[self.settings.monitor] == "maximize" else value
        value = inf if epoch.diverged else value
        if value < self._value or not self._weights:
            self.epoch, self._value = epoch.epoch, value
            self._weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        improves = value < self._to_beat - self.settings.min_delta
        self._to_beat = value if improves else self._to_beat
        self._n_waited = 0 if improves or thaws else self._n_waited + 1

    @property
    def is_long_ago(self) -> bool:
        return self.settings.patience is not None and self._n_waited >= self.settings.patience

    def restore(self, model: nn.Module) -> nn.Module:
        # Not load_state_dict: some networks (MNASNet) want a version there, which is no tensor.
        for name, tensor in model.state_dict().items():
            tensor.copy_(self._weights[name])
        return model
