"""The keys of one run's config: their types, defaults and limits. ``conf/`` holds the alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf, isfinite
from typing import Any

from sweeper.errors import BadInput


@dataclass
class Dataset:
    name: str = "digits"
    path: str | None = None
    root: str = "data"
    """Where torchvision's datasets are, or are downloaded to."""
    download: bool = False
    image_size: int | None = None
    """Side of the square images in pixels; null keeps the size of the data."""
    margin: float = 1.0
    """Images are kept this many times as large: random crops and turns show all of that, everything else the
    middle. 1.143 with 224 pixels is the usual scaling to 256 and cutting to 224."""
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    split_seed: int = 0
    skip_unreadable: bool = False
    normalization: Any = "data"
    """``data`` (mean and standard deviation of the training part), ``imagenet``, ``none``, or
    ``{mean: [...], std: [...]}`` for pixel values in 0 … 1."""
    on_device: str = "auto"
    allow_hflip: bool = False
    """Whether a mirrored image still shows its class; augmentation flips only where it does."""
    allow_vflip: bool = False


@dataclass
class Model:
    source: str = "sweeper"
    """Who wrote the network: ``sweeper`` (cnn), ``torchvision``, or ``timm`` (an optional extra)."""
    name: str = "cnn"
    filters: list[int] = field(default_factory=lambda: [16, 32])
    kernel_size: int = 3
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.5
    """After each hidden fully connected layer of ``cnn``; before the last layer of any other network."""
    hidden_units: list[int] = field(default_factory=lambda: [128])
    init: str = "default"
    weights: str | None = None
    """What training begins with: null (random), a name that the library knows (``DEFAULT``), or the path of
    a state dict (``.pt``, ``.pth``, ``.safetensors``). The head is always new."""


@dataclass
class Optimizer:
    name: str = "sgd"
    lr: float = 1e-3
    momentum: float | None = None
    weight_decay: float = 0.0
    head_lr_factor: float = 1.0
    """The head learns at this times ``lr``."""
    stage_lr_decay: float = 1.0
    """The last stage of the body learns at ``lr``, each one before at this times the next one's."""
    decay_norm_and_bias: bool = True
    """Whether weight decay also holds for biases and the parameters of normalisation layers."""


@dataclass
class Scheduler:
    name: str = "none"
    step_size: int | None = None
    """In epochs."""
    gamma: float = 0.1
    factor: float = 0.1
    patience: int = 3
    """In epochs."""
    t_max: int | None = None
    """In epochs; null is all of ``training.epochs`` after the warm-up."""
    eta_min: float = 0.0
    warmup_epochs: int = 0
    """Epochs over which the rate grows linearly to its full height, before the schedule begins."""


@dataclass
class Augmentation:
    name: str = "none"
    rotation_deg: float = 0.0
    """Each image turns by a uniform angle within plus and minus this."""
    crop_scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Area of the crop as a fraction of the image's and its margin's, uniform between the two."""
    crop_ratio: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Width by height of the crop, log-uniform between the two."""
    hflip: float = 0.0
    """Probability, as is ``vflip`` and ``erasing``."""
    vflip: float = 0.0
    brightness: float = 0.0
    """The factor is uniform between 1 minus this and 1 plus this; so for ``contrast`` and ``saturation``."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Colours turn by a uniform part of the circle between minus and plus this; 0.5 is all of it."""
    erasing: float = 0.0
    erasing_scale: list[float] = field(default_factory=lambda: [0.02, 0.33])
    """Area of the erased rectangle as a fraction of the image's."""
    erasing_ratio: list[float] = field(default_factory=lambda: [0.3, 3.3])
    """Height by width of that rectangle, log-uniform between the two (torchvision's order)."""


@dataclass
class Freezing:
    name: str = "none"
    """``none`` trains everything from scratch. The others begin with ``model.weights``: ``full`` trains
    everything, ``head`` the head, ``last_block`` the last stage too,
    ``gradual`` one stage more every ``every`` epochs, from the last backwards. Early stopping begins to wait
    when the last one has thawed."""
    every: int | None = None


@dataclass
class Loss:
    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: Any = None
    """``balanced``, a list with a weight for each class, or null."""
    pos_weight: Any = None
    """Of ``bce_with_logits``, for each label: ``balanced`` (absent by present images), a list, or null."""


@dataclass
class EarlyStopping:
    monitor: str = "val_loss"
    patience: int | None = 5
    """In epochs; null never stops early."""
    min_delta: float = 0.0


@dataclass
class Training:
    epochs: int = 20
    batch_size: int = 32
    precision: str = "auto"
    micro_batch_size: int | None = None
    """Images that go through the network at once, where not the whole batch is to: gradients add up, so that
    the batch stays as large. null finds what a GPU has room for."""
    compile: bool = False
    cuda_graphs: bool = False
    """On a GPU: forward and backward of a batch are started at once, which pays with small networks."""
    tf32: bool = False
    """On a GPU: products of float32 in TF32, those of augmentation too."""
    feature_views: int = 0
    """Where frozen stages see augmented images: so many variations of each are kept, and each epoch takes one
    of them. An approximation, as these are all that the network ever sees; 0 augments anew always."""
    n_threads: int | None = None
    """CPU threads; null takes the worker's share of the cores. Sums depend on it in their last bit."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)


@dataclass
class Run:
    """Everything that decides what one training run does."""

    study: str | None = None
    seed: int = 0
    device: str = "auto"
    objective: Any = "val_accuracy"
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    augmentation: Augmentation = field(default_factory=Augmentation)
    freezing: Freezing = field(default_factory=Freezing)
    loss: Loss = field(default_factory=Loss)
    training: Training = field(default_factory=Training)

    @property
    def from_scratch(self) -> bool:
        """Whether everything trains from random weights, whatever ``model.weights`` says."""
        return self.freezing.name == "none"


DIRECTIONS = {
    "val_accuracy": "maximize",
    "val_loss": "minimize",
    "val_mean_average_precision": "maximize",
    "val_f1": "maximize",
    "seconds": "minimize",
    "peak_memory_mb": "minimize",
}
"""What can be searched for, and which way is better."""

LOSS_KEYS = {
    "cross_entropy": ("class_weights", "label_smoothing"),
    "bce_with_logits": ("pos_weight",),
}
"""The losses, and the keys that each of them alone has."""
MULTI_LABEL_LOSSES = frozenset({"bce_with_logits"})
"""Those for images with several labels each."""

METRICS = ("accuracy",)
"""What is measured besides the loss where an image has one label; where it has several:"""
MULTI_LABEL_METRICS = ("mean_average_precision", "f1")


@dataclass(frozen=True)
class Limit:
    """What a value must satisfy."""

    holds: Callable[[Any], bool]
    reason: str
    remedy: str


def _at_least(low: float, example: str) -> Limit:
    return Limit(
        lambda v: isfinite(v) and v >= low, f"must be at least {low:g}", f"write for example {example}"
    )


def _above_zero(example: str) -> Limit:
    return Limit(lambda v: isfinite(v) and v > 0, "must be greater than 0", f"write for example {example}")


def _within(low: float, high: float, example: str) -> Limit:
    return Limit(
        lambda v: low <= v <= high, f"must be between {low:g} and {high:g}", f"write for example {example}"
    )


def _fraction(example: str) -> Limit:
    return Limit(lambda v: 0 <= v < 1, "must be at least 0 and below 1", f"write for example {example}")


def _one_of(*names: str) -> Limit:
    return Limit(lambda v: v in names, "there is no such option", f"write one of {', '.join(names)}")


def _pair(low: float, high: float, example: str) -> Limit:
    return Limit(
        lambda v: len(v) == 2 and low < v[0] <= v[1] <= high,
        f"must be two numbers in growing order, above {low:g} and at most {high:g}",
        f"write for example {example}",
    )


_SIZES = Limit(
    lambda v: len(v) > 0 and all(n >= 1 for n in v),
    "must be a list of numbers, each at least 1",
    "write for example [16,32]",
)

LIMITS: dict[str, Limit] = {
    "seed": _within(0, 2**32 - 1, "seed=0"),
    "dataset.name": _one_of("digits", "image_folder", "csv", "mnist", "fashion_mnist", "cifar10", "cifar100"),
    "dataset.image_size": _within(4, 4096, "dataset.image_size=32"),
    "dataset.margin": _within(1, 2, "dataset.margin=1.143"),
    "dataset.val_fraction": Limit(
        lambda v: 0 < v < 1, "must be between 0 and 1", "write for example dataset.val_fraction=0.2"
    ),
    "dataset.test_fraction": _fraction("dataset.test_fraction=0.2"),
    "dataset.on_device": Limit(
        lambda v: v.lower() in ("auto", "true", "false"),
        "there is no such option",
        "write auto, true or false",
    ),
    "model.source": _one_of("sweeper", "torchvision", "timm"),
    "model.filters": _SIZES,
    "model.hidden_units": Limit(
        lambda v: all(n >= 1 for n in v),
        "must be a list of numbers, each at least 1",
        "write for example [128], or [] for none",
    ),
    "model.kernel_size": Limit(
        lambda v: v >= 1 and v % 2 == 1,
        "must be odd and at least 1, so that the image keeps its size",
        "write 3, 5 or 7",
    ),
    "model.activation": _one_of("relu", "leaky_relu"),
    "model.init": _one_of("default", "xavier_uniform", "kaiming_uniform"),
    "model.dropout": _fraction("model.dropout=0.5"),
    "optimizer.name": _one_of("sgd", "adam", "adamw", "rmsprop"),
    "optimizer.lr": _above_zero("optimizer.lr=0.001"),
    "optimizer.momentum": _fraction("optimizer.momentum=0.9"),
    "optimizer.weight_decay": _at_least(0, "optimizer.weight_decay=0.0001"),
    "optimizer.head_lr_factor": _above_zero("optimizer.head_lr_factor=100"),
    "optimizer.stage_lr_decay": Limit(
        lambda v: 0 < v <= 1,
        "must be above 0 and at most 1",
        "write for example optimizer.stage_lr_decay=0.8",
    ),
    "scheduler.name": _one_of("none", "step", "plateau", "cosine"),
    "scheduler.step_size": _at_least(1, "scheduler.step_size=10"),
    "scheduler.gamma": _above_zero("scheduler.gamma=0.1"),
    "scheduler.factor": Limit(
        lambda v: 0 < v < 1, "must be between 0 and 1", "write for example scheduler.factor=0.1"
    ),
    "scheduler.patience": _at_least(0, "scheduler.patience=3"),
    "scheduler.t_max": _at_least(1, "scheduler.t_max=20"),
    "scheduler.eta_min": _at_least(0, "scheduler.eta_min=0"),
    "scheduler.warmup_epochs": _at_least(0, "scheduler.warmup_epochs=0"),
    "augmentation.name": _one_of("none", "light", "standard", "strong"),
    "augmentation.rotation_deg": _within(0, 180, "augmentation.rotation_deg=10"),
    "augmentation.crop_scale": _pair(0, 1, "augmentation.crop_scale=[0.8,1.0]"),
    "augmentation.crop_ratio": _pair(0, 10, "augmentation.crop_ratio=[0.75,1.333]"),
    "augmentation.hflip": _within(0, 1, "augmentation.hflip=0.5"),
    "augmentation.vflip": _within(0, 1, "augmentation.vflip=0.5"),
    "augmentation.brightness": _within(0, 1, "augmentation.brightness=0.2"),
    "augmentation.contrast": _within(0, 1, "augmentation.contrast=0.2"),
    "augmentation.saturation": _within(0, 1, "augmentation.saturation=0.2"),
    "augmentation.hue": _within(0, 0.5, "augmentation.hue=0.05"),
    "augmentation.erasing": _within(0, 1, "augmentation.erasing=0.25"),
    "augmentation.erasing_scale": _pair(0, 1, "augmentation.erasing_scale=[0.02,0.33]"),
    "augmentation.erasing_ratio": _pair(0, 10, "augmentation.erasing_ratio=[0.3,3.3]"),
    "freezing.name": _one_of("none", "head", "last_block", "gradual", "full"),
    "freezing.every": _at_least(1, "freezing.every=2"),
    "loss.name": _one_of(*LOSS_KEYS),
    "loss.label_smoothing": _fraction("loss.label_smoothing=0.1"),
    "training.epochs": _at_least(1, "training.epochs=20"),
    "training.batch_size": _at_least(1, "training.batch_size=32"),
    "training.micro_batch_size": _at_least(1, "training.micro_batch_size=16"),
    "training.precision": _one_of("auto", "float32", "bfloat16"),
    "training.feature_views": _at_least(0, "training.feature_views=8"),
    "training.n_threads": _at_least(1, "training.n_threads=1"),
    "training.early_stopping.monitor": _one_of(
        "val_loss", "val_accuracy", "val_mean_average_precision", "val_f1"
    ),
    "training.early_stopping.patience": _at_least(1, "training.early_stopping.patience=5"),
    "training.early_stopping.min_delta": _at_least(0, "training.early_stopping.min_delta=0"),
}


def validate(run: Run) -> None:
    """Refuse what cannot be trained.

    Raises:
        BadInput: naming the first key whose value is out of its range.
    """
    for key, value in flatten(run):
        limit = LIMITS.get(key)
        if value is not None and limit is not None and not limit.holds(value):
            raise BadInput(key, value, limit.reason, limit.remedy)
    objectives(run.objective)
    _check_needs(run)
    _check_has_effect(run.loss)
    if run.scheduler.name == "cosine" and run.scheduler.eta_min > run.optimizer.lr:
        reason = f"is above optimizer.lr={run.optimizer.lr}, from which the rate falls"
        raise BadInput("scheduler.eta_min", run.scheduler.eta_min, reason, "write a smaller one")


def _check_needs(run: Run) -> None:
    """Some options cannot work without a key that has no default."""
    needs: list[tuple[str, str, object, str]] = [
        ("step", "scheduler.step_size", run.scheduler.step_size, "write for example scheduler.step_size=10"),
        ("gradual", "freezing.every", run.freezing.every, "write for example freezing.every=2"),
        ("image_folder", "dataset.path", run.dataset.path, "write dataset.path=FOLDER, a folder per class"),
        ("csv", "dataset.path", run.dataset.path, "write dataset.path=FILE with columns path and label"),
    ]
    for option, key, value, remedy in needs:
        group = key.partition(".")[0]
        if getattr(run, group).name == option and value is None:
            raise BadInput(key, value, f"{option} needs it", remedy)
    if run.model.source == "sweeper" and run.model.name != "cnn":
        remedy = f"write model=cnn, or model=torchvision model.name={run.model.name}"
        raise BadInput("model.name", run.model.name, "there is no such network of ours", remedy)


def _check_has_effect(loss: Loss) -> None:
    """A key of another loss is refused, never ignored."""
    for owner, keys in LOSS_KEYS.items():
        for name in keys:
            if name not in LOSS_KEYS[loss.name] and (value := getattr(loss, name)):
                reason = f"loss={loss.name} has no such thing"
                raise BadInput(f"loss.{name}", value, reason, f"leave it out, or write loss={owner}")


def check_task(run: Run, n_classes: int, multi_label: bool) -> None:
    """Raises BadInput where loss, weights, objective or monitored quantity do not suit the kind of labels."""
    kind = "several labels" if multi_label else "one label"
    if (run.loss.name in MULTI_LABEL_LOSSES) != multi_label:
        fitting = [name for name in LOSS_KEYS if (name in MULTI_LABEL_LOSSES) == multi_label]
        remedy = f"write loss={' or '.join(fitting)}"
        raise BadInput("loss", run.loss.name, f"the images have {kind} each", remedy)
    metrics = MULTI_LABEL_METRICS if multi_label else METRICS
    absent = {f"val_{name}" for name in {*METRICS, *MULTI_LABEL_METRICS} - set(metrics)}
    asked = [("objective", name) for name in objectives(run.objective)]
    for key, name in [*asked, ("training.early_stopping.monitor", run.training.early_stopping.monitor)]:
        if name in absent:
            there = ", ".join(f"val_{metric}" for metric in ("loss", *metrics))
            raise BadInput(key, name, f"is not measured where images have {kind}", f"write one of {there}")
    check_weights("class_weights", run.loss.class_weights, n_classes)
    check_weights("pos_weight", run.loss.pos_weight, n_classes)


def check_weights(name: str, weights: Any, n_classes: int) -> None:
    """Raises BadInput unless there is one weight for each class, or a word that gives them."""
    if weights is None or weights == "balanced":
        return
    is_list = isinstance(weights, list) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and 0 < w < inf for w in weights
    )
    if not is_list or len(weights) != n_classes:
        reason = f"there must be a weight above 0 for each of the {n_classes} classes"
        raise BadInput(f"loss.{name}", weights, reason, "write balanced, null or such a list")


FILES = ("image_folder", "csv")
"""The datasets of image files; the images of the others have a size of their own."""

USED_BY = {
    "scheduler.step_size": ("scheduler", "step"),
    "scheduler.gamma": ("scheduler", "step"),
    "scheduler.factor": ("scheduler", "plateau"),
    "scheduler.patience": ("scheduler", "plateau"),
    "scheduler.t_max": ("scheduler", "cosine"),
    "scheduler.eta_min": ("scheduler", "cosine"),
    "freezing.every": ("freezing", "gradual"),
    **{
        f"model.{name}": ("model", "cnn")
        for name in ("filters", "kernel_size", "activation", "batch_norm", "hidden_units")
    },
}
"""Keys that only some options of a group read."""


def without_effect(run: Run) -> list[str]:
    """What was set but nothing reads, a sentence each: refused it cannot be, as searches cross options."""
    values, defaults = dict(flatten(run)), dict(flatten(Run()))
    told = []
    for key, (group, option) in USED_BY.items():
        chosen = getattr(run, group).name
        if values[key] != defaults[key] and chosen != option:
            told.append(f"{key}={values[key]} has no effect with {group}={chosen}: only {option} has it")
    if run.dataset.margin != 1 and run.dataset.image_size is None and run.dataset.name not in FILES:
        why = f"{run.dataset.name} then keeps its own size"
        told.append(f"dataset.margin={run.dataset.margin} has no effect with dataset.image_size=null: {why}")
    if run.model.weights is not None and run.from_scratch:
        told.append("model.weights has no effect: freezing=none is from scratch, freezing=full fine-tunes")
    if run.model.weights is None and not run.from_scratch:
        told.append(f"freezing={run.freezing.name} begins with random weights: model.weights is null")
    if run.scheduler.warmup_epochs >= run.training.epochs:
        told.append(f"the warm-up of {run.scheduler.warmup_epochs} epochs never ends")
    return told


def flatten(config: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dataclasses with their dotted keys, in the order of definition."""
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def direction(objective: Any) -> str | list[str]:
    """Which way is better follows from the objective, so that it cannot be wrong silently."""
    if isinstance(objective, str):
        return DIRECTIONS[objectives(objective)[0]]
    return [DIRECTIONS[name] for name in objectives(list(objective))]


def objectives(objective: object) -> list[str]:
    """The names of the objectives, one or several.

    Raises:
        BadInput: for a name that is none of ``DIRECTIONS``.
    """
    names = [objective] if isinstance(objective, str) else objective
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not isinstance(names, list) or not is_list or not names or set(names) - set(DIRECTIONS):
        raise BadInput(
            "objective", objective, "there is no such objective", f"write one of {', '.join(DIRECTIONS)}"
        )
    if len(set(names)) < len(names):
        raise BadInput("objective", objective, "names one twice", "write each once")
    return names
