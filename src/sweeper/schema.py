"""The keys of one run's config: their types, defaults and limits. ``conf/`` holds the alternatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from sweeper import limit
from sweeper.errors import BadInput, one_of
from sweeper.limit import Limit
from sweeper.words import counted


@dataclass
class Dataset:
    name: str = "digits"
    """What is read; ``dataset=`` chooses it."""
    path: str | None = None
    """The folder of ``image_folder``, or the file of ``csv``."""
    root: str = "data"
    """Folder of torchvision's datasets, which are downloaded into it."""
    download: bool = False
    """Whether torchvision may download what is not below ``root``."""
    image_size: int | None = None
    """Side of the square images in pixels; null keeps the data's own size."""
    margin: float = 1.0
    """Images are stored this many times as large. Random crops and rotations use all of that, everything else
    the centre. 1.143 with 224 pixels is the usual resize to 256 and centre crop to 224."""
    val_fraction: float = 0.2
    """How much of each class is validated on, where the data do not say."""
    test_fraction: float = 0.2
    """How much of each class is kept for the one test at the end, where the data do not say."""
    split_seed: int = 0
    """Another one splits the images differently. It is apart from ``seed``, so that runs share a split."""
    skip_unreadable: bool = False
    """Whether to go on without files that cannot be read; they are counted."""
    normalization: Any = "data"
    """``data`` (mean and standard deviation of the training images), ``imagenet``, ``none``, or
    ``{mean: [...], std: [...]}`` for pixel values in 0 … 1. Source: guide to transfer learning."""
    on_device: str = "auto"
    """Whether the images stay in the GPU's memory; ``auto``: where they take less than half of what is
    free."""
    allow_hflip: bool = False
    """Whether a mirrored image still shows its class; otherwise augmentation never flips."""
    allow_vflip: bool = False
    """The same, for an image that stands on its head."""
    layout: str = "auto"
    """How a folder is read: ``auto`` recognises classes and parts, and refuses what may mean two things;
    ``classes`` takes each folder below ``path`` for a class, ``parts`` each below ``path/train`` and so on,
    whatever is in it."""
    duplicates: str = "error"
    """What is done where the data's own parts share a picture: ``error``; ``drop`` keeps test's copy, then
    val's; ``keep`` keeps all."""
    group: str | None = None
    """What belongs together in one part: a column of the table, or a pattern with one group for the path of
    each image below ``path``, such as ``(patient\\d+)``."""
    n_folds: int | None = None
    """Parts of equal size into which all images but those of test are divided, each of them val once."""
    fold: int = 0
    """Which of the ``n_folds`` parts is val."""
    max_megapixels: float = 179.0
    """Larger image files are not decoded."""
    background: Any = "white"
    """What is seen through transparent pixels: a colour's name, ``#rrggbb``, or ``[red, green, blue]``."""
    path_column: str | None = None
    """Of a table: the column of the image files; null finds it by its name."""
    label_column: str | None = None
    """That of the labels; null finds it by its name."""
    split_column: str | None = None
    """That of the parts (train, val, test); null finds it by its name, where there is one."""
    folder: str | None = None
    """Of a table: what its paths are relative to; null means the folder of the table."""
    suffix: str | None = None
    """Of a table: what follows its paths in the files' names, such as ``.jpg``."""
    label_separator: str | None = None
    """Of a table: what stands between several labels in one column."""


@dataclass
class Model:
    source: str = "sweeper"
    """Where the network comes from: ``sweeper`` (cnn), ``torchvision``, ``timm`` (an optional extra), or
    ``custom``."""
    name: str = "cnn"
    """``cnn``, or the network's name in torchvision or timm."""
    filters: list[int] = field(default_factory=lambda: [16, 32])
    """Of ``cnn``: how many filters each convolution has; each halves the image's side, while 2 pixels remain.
    Source: guide to small CNNs."""
    kernel_size: int = 3
    """Of ``cnn``: the side of each filter, in pixels. Source: guide to small CNNs."""
    activation: str = "relu"
    """Of ``cnn``: with ``leaky_relu`` no unit dies. Source: guide to small CNNs."""
    batch_norm: bool = False
    """Of ``cnn``: whether each convolution is followed by batch normalisation. Source: Ioffe and Szegedy
    2015."""
    dropout: float = 0.5
    """Rate after each hidden fully connected layer of ``cnn``; before the last layer of other networks.
    Source: guide to small CNNs (0.5), guide to transfer learning (0.3 … 0.5)."""
    hidden_units: list[int] = field(default_factory=lambda: [128])
    """Of ``cnn``: the units of each hidden fully connected layer; ``[]`` is none."""
    init: str = "default"
    """Random weights of ``cnn``: PyTorch's, Xavier uniform or He uniform. Source: guide to small CNNs; Glorot
    and Bengio 2010; He et al. 2015."""
    weights: str | None = None
    """Initial weights: null (random), a name that the library knows (``DEFAULT``), or the path of a state
    dict (``.pt``, ``.pth``, ``.safetensors``). The head is always new."""
    target: str | None = None
    """Of ``custom``: the function or class that makes the network, as ``package.module.name``; it is found
    from the working folder."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of ``custom``: what it is called with, besides those of ``n_classes``, ``in_channels`` and
    ``image_size`` that it takes."""
    head: str | None = None
    """Of ``custom``: the name of its head; null means its last linear layer."""


@dataclass
class Optimizer:
    name: str = "sgd"
    """Which optimizer; ``optimizer=`` chooses it."""
    lr: float = 1e-3
    """The learning rate. Source: guide to small CNNs, guide to transfer learning."""
    momentum: float | None = None
    """Of ``sgd`` and ``rmsprop``; null is none. Source: guide to small CNNs; 0.9 in both guides."""
    weight_decay: float = 0.0
    """Pulls weights to 0: as L2 of the loss, in ``adamw`` decoupled from the gradient. Source: guide to small
    CNNs, guide to transfer learning; Loshchilov and Hutter 2019."""
    head_lr_factor: float = 1.0
    """Factor on ``lr`` for the head. Source: guide to transfer learning, whose example is 1e-5 for the body
    and 1e-3 for the head."""
    stage_lr_decay: float = 1.0
    """The last stage of the body learns at ``lr``, each earlier one at this times the rate of the next.
    Source: Howard and Ruder 2018."""
    decay_norm_and_bias: bool = True
    """Whether weight decay applies to biases and the parameters of normalisation layers too. Source:
    He et al. 2019, who leave them out."""


@dataclass
class Scheduler:
    name: str = "none"
    """How the learning rate falls; ``scheduler=`` chooses it."""
    step_size: int | None = None
    """Of ``step``: epochs from one fall of the rate to the next."""
    gamma: float = 0.1
    """Of ``step``: the rate is multiplied by it every ``step_size`` epochs."""
    factor: float = 0.1
    """Of ``plateau``: the rate is multiplied by it when nothing has improved for ``patience`` epochs.
    Source: guide to transfer learning."""
    patience: int = 3
    """Of ``plateau``: epochs without improvement before the rate falls. Source: guide to transfer
    learning."""
    t_max: int | None = None
    """Of ``cosine``: epochs until the lowest rate; null means all epochs after the warm-up. Source:
    Loshchilov and Hutter 2017."""
    eta_min: float = 0.0
    """Of ``cosine``: the lowest rate."""
    warmup_epochs: int = 0
    """Epochs in which the learning rate grows linearly to ``lr``, before the schedule starts. Source: Goyal
    et al. 2017."""


@dataclass
class Augmentation:
    name: str = "none"
    """How strongly training images are varied; ``augmentation=`` chooses it, and with it the keys below."""
    rotation_deg: float = 0.0
    """Each image is rotated by a uniform angle between minus and plus this. Source: guide to
    transfer learning."""
    crop_scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Area of the crop as a fraction of the image with its margin, uniform between the two. Source: guide to
    transfer learning; Szegedy et al. 2015."""
    crop_ratio: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Aspect ratio (width / height) of the crop, log-uniform between the two. Source: Szegedy et al. 2015."""
    hflip: float = 0.0
    """The probability that an image is mirrored; only where ``dataset.allow_hflip``. Source: guide to
    transfer learning."""
    vflip: float = 0.0
    """The probability that it is turned upside down; only where ``dataset.allow_vflip``. Source: guide to
    transfer learning."""
    brightness: float = 0.0
    """The factor is uniform between 1 minus this and 1 plus this, as for ``contrast`` and ``saturation``.
    Source: guide to transfer learning."""
    contrast: float = 0.0
    """As ``brightness``. Source: guide to transfer learning."""
    saturation: float = 0.0
    """As ``brightness``; without effect on gray images. Source: guide to transfer learning."""
    hue: float = 0.0
    """The hue shifts by a uniform fraction of the colour circle between minus and plus this; at most 0.5.
    Source: guide to transfer learning."""
    erasing: float = 0.0
    """The probability that a rectangle of the image takes the images' mean colour. Source: Zhong et al.
    2020."""
    erasing_scale: list[float] = field(default_factory=lambda: [0.02, 0.33])
    """Area of the erased rectangle as a fraction of the image. Source: Zhong et al. 2020."""
    erasing_ratio: list[float] = field(default_factory=lambda: [0.3, 3.3])
    """Height / width of that rectangle (torchvision's order), log-uniform between the two. Source: Zhong et
    al. 2020."""


@dataclass
class Freezing:
    name: str = "none"
    """``none`` trains everything from scratch. The others start from ``model.weights``: ``full`` trains
    everything, ``head`` only the head, ``last_block`` the last stage too, and ``gradual`` unfreezes one more
    stage every ``every`` epochs, from the last to the first; early stopping waits until all are unfrozen.
    Source: guide to transfer learning."""
    every: int | None = None
    """Of ``gradual``: after so many epochs one more stage trains. Source: guide to transfer learning; Howard
    and Ruder 2018."""


@dataclass
class Loss:
    name: str = "cross_entropy"
    """``cross_entropy`` for one label per image, ``bce_with_logits`` for several. Source: guide to transfer
    learning."""
    label_smoothing: float = 0.0
    """Of ``cross_entropy``: how much of each label is spread over all classes. Source: Szegedy et al.
    2016."""
    class_weights: Any = None
    """Of ``cross_entropy``: ``balanced``, a list of one weight per class, or null. Source: guide to transfer
    learning."""
    pos_weight: Any = None
    """For ``bce_with_logits``: ``balanced`` (images without the label / images with it), a list, or null.
    Source: guide to transfer learning."""


@dataclass
class EarlyStopping:
    monitor: str = "val_loss"
    """What must improve, or training ends: ``val_loss``, or ``val_`` and a metric. Source: guide to transfer
    learning."""
    patience: int | None = 5
    """Epochs without improvement after which training ends; null never stops early. Source: guide to transfer
    learning."""
    min_delta: float = 0.0
    """A smaller change is no improvement."""


@dataclass
class Training:
    epochs: int = 20
    """At most so many; early stopping and pruning end a training before. Source: guide to small CNNs (5, then
    10, 20, 30), guide to transfer learning (5 … 20 for the head, 20 … 50 for all)."""
    batch_size: int = 32
    """Images of one step of the optimizer. Source: guide to small CNNs, guide to transfer learning."""
    precision: str = "auto"
    """``auto`` computes in bfloat16 where the hardware has it, in float32 elsewhere."""
    micro_batch_size: int | None = None
    """Images that go through the network at once, where a batch is split (gradient accumulation). null splits
    a batch only if the GPU has no room for all of it."""
    compile: bool = False
    """Whether networks are compiled (``torch.compile``), once for all trials of a worker."""
    cuda_graphs: bool = False
    """On a GPU: launch the forward and backward of a batch as CUDA graphs, which speeds up small networks."""
    tf32: bool = False
    """On a GPU: multiply float32 matrices in TF32, in augmentation too."""
    feature_views: int = 0
    """With frozen stages and augmentation: number of variations of each image whose features are cached; each
    epoch draws one of them. An approximation, as the network sees no others; 0 always augments anew."""
    n_threads: int | None = None
    """CPU threads; null means the worker's share of the cores. The last bit of sums depends on it."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    metrics: list[str] = field(default_factory=list)
    """Measured after each epoch besides the loss and those of the kind of labels."""
    keep_logits: bool = True
    """Whether a finished trial keeps what it says of each validation image, so that trials can be compared
    image by image; 64 MB a study at most, best trials first."""


@dataclass
class Run:
    """Everything that determines one training run."""

    study: str | None = None
    """The name of the run or study, and of its folder below ``outputs/``."""
    seed: int = 0
    """Random numbers of weights, order, augmentation, dropout and of the search."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one; or ``cpu``, ``cuda``, ``cuda:1``."""
    objective: Any = "val_accuracy"
    """What a search improves: ``val_loss``, ``val_`` and a metric, ``seconds``, ``peak_memory_mb``, or a list
    of them. Whether higher or lower is better follows from it."""
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


class Needs(Enum):
    """What a part of the data must have for a metric to be defined on it."""

    IMAGES = "any"
    CLASS = "of a class"
    CONTRAST = "of a class, and others that are not of it"


@dataclass(frozen=True)
class Metric:
    """One of what ``training.metric`` measures besides the loss, on images that are not trained on."""

    one_label: Needs | None
    """What it needs where images have one label each; None where it is not measured for them."""
    several_labels: Needs | None
    minimize: bool = False
    above_classes: int = 0
    """It says something only where there are more classes."""


METRICS = {
    "accuracy": Metric(Needs.IMAGES, None),
    "mean_average_precision": Metric(Needs.CLASS, Needs.CLASS),
    "f1": Metric(None, Needs.CLASS),
    "balanced_accuracy": Metric(Needs.CLASS, Needs.CONTRAST),
    "macro_f1": Metric(Needs.CLASS, Needs.CLASS),
    "auroc": Metric(Needs.CONTRAST, Needs.CONTRAST),
    "top5_accuracy": Metric(Needs.IMAGES, None, above_classes=5),
    "cohen_kappa": Metric(Needs.CONTRAST, Needs.CONTRAST),
    "calibration_error": Metric(Needs.IMAGES, Needs.IMAGES, minimize=True),
}
"""The metrics, in the order in which they are told; ``training.metric`` says what they are."""

BY_LIBRARY = tuple(name for name in METRICS if name != "accuracy")
METRIC_LIBRARY = "torchmetrics.functional.classification"
"""What measures these, and takes a second to import."""

USUAL = {False: ("accuracy",), True: ("mean_average_precision", "f1")}
"""The metrics that are measured without being asked for, where images have several labels and where not."""

DIRECTIONS = {
    "val_loss": "minimize",
    **{f"val_{name}": "minimize" if metric.minimize else "maximize" for name, metric in METRICS.items()},
    "seconds": "minimize",
    "peak_memory_mb": "minimize",
}
"""The objectives, and whether higher or lower is better."""

LOSS_KEYS = {
    "cross_entropy": ("class_weights", "label_smoothing"),
    "bce_with_logits": ("pos_weight",),
}
"""The losses, and the keys that belong to each of them only."""
MULTI_LABEL_LOSSES = frozenset({"bce_with_logits"})
"""Losses for images with several labels each."""


_NUMBER_OF_LAYERS = 64
_WIDTH = 65_536
_LONGEST_SEPARATOR = 16
MAX_LR = 1e30
_UNLIKELY = "float32 has no numbers for the steps of a larger one"
_EPOCHS = "nobody waits for more epochs"
_IMAGES = "no memory has room for more images at once"


def _epochs(least: int, key: str, example: int) -> Limit:
    return limit.whole(least, limit.MAX_EPOCHS, f"write for example {key}={example}", _EPOCHS)


def _fraction(key: str, example: float) -> Limit:
    return limit.fraction(f"write for example {key}={example}")


def _within(low: float, high: float, key: str, example: float) -> Limit:
    return limit.within(low, high, f"write for example {key}={example}")


def _factor(low: float, high: float, key: str, example: float, why: str = "") -> Limit:
    """A number above 0 that multiplies a learning rate, or is one."""
    return Limit(
        lambda v: (
            limit.number(0, high, "", why, above=True).fault(v) or limit.number(low, high, "", why).fault(v)
        ),
        f"write for example {key}={example}",
        admits=limit.number(low, high, "").admits,
    )


def colour(value: Any) -> tuple[int, int, int]:
    """Red, green and blue, 0 … 255, of a name, ``#rrggbb`` or a list. Raises ValueError for no colour."""
    from PIL import ImageColor

    found = ImageColor.getrgb(value.strip()) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or len(found) != 3:
        raise ValueError("must be red, green and blue")
    if not all(type(part) is int and 0 <= part <= 255 for part in found):
        raise ValueError("must be whole numbers from 0 to 255")
    return (found[0], found[1], found[2])


def _colour_fault(value: Any) -> str | None:
    try:
        colour(value)
    except ValueError:
        return "is not a colour"
    return None


MAX_MEGAPIXELS = 1e6

LIMITS: dict[str, Limit] = {
    "seed": limit.within(0, limit.MAX_SEED, "write for example seed=0"),
    "device": replace(
        limit.text("write auto, cpu, cuda or cuda:0"),
        admits="`auto`, or a device of torch: `cpu`, `cuda`, `cuda:1`",
    ),
    "dataset.name": limit.option(
        "digits", "image_folder", "csv", "mnist", "fashion_mnist", "cifar10", "cifar100"
    ),
    "dataset.path": limit.text("write the path of a folder or file"),
    "dataset.root": limit.text("write the path of a folder"),
    "dataset.image_size": _within(4, 4096, "dataset.image_size", 32),
    "dataset.margin": _within(1, 2, "dataset.margin", 1.143),
    "dataset.val_fraction": limit.between(0, 1, "write for example dataset.val_fraction=0.2"),
    "dataset.test_fraction": _fraction("dataset.test_fraction", 0.2),
    "dataset.layout": limit.option("auto", "classes", "parts"),
    "dataset.duplicates": limit.option("error", "drop", "keep"),
    "dataset.group": limit.text("write a column, or a pattern with one group, such as (patient\\d+)"),
    "dataset.n_folds": limit.whole(
        2, limit.MAX_FOLDS, "write for example dataset.n_folds=5", "each fold is a training of its own"
    ),
    "dataset.fold": limit.whole(0, limit.MAX_FOLDS - 1, "write 0 … dataset.n_folds - 1"),
    "dataset.max_megapixels": limit.number(
        0.000001,
        MAX_MEGAPIXELS,
        "write for example dataset.max_megapixels=200",
        "no memory has room for a larger one",
    ),
    "dataset.background": Limit(
        _colour_fault,
        "write for example white or [32,160,255]",
        admits="a colour's name, `#rrggbb`, or `[red, green, blue]`",
    ),
    "dataset.path_column": limit.text("write the name of a column"),
    "dataset.label_column": limit.text("write the name of a column"),
    "dataset.split_column": limit.text("write the name of a column"),
    "dataset.folder": limit.text("write the path of a folder"),
    "dataset.suffix": limit.text("write for example dataset.suffix=.jpg"),
    "dataset.label_separator": Limit(
        lambda v: (
            "is empty"
            if not v
            else "is longer than what stands between two labels"
            if len(v) > _LONGEST_SEPARATOR
            else limit.path_fault(f"a{v}b")  # a space is none
        ),
        "write for example dataset.label_separator='|'",
        admits=f"a text of at most {_LONGEST_SEPARATOR} characters",
    ),
    "dataset.split_seed": limit.within(0, limit.MAX_SEED, "write for example dataset.split_seed=0"),
    "dataset.on_device": Limit(
        lambda v: None if v.lower() in ("auto", "true", "false") else "there is no such option",
        "write auto, true or false",
        admits="`auto`, `true`, `false`",
    ),
    "model.source": limit.option("sweeper", "torchvision", "timm", "custom"),
    "model.target": limit.text("write package.module.function, as Python imports it"),
    "model.head": limit.text("write the name of a layer, as named_modules() tells it"),
    "model.name": limit.text("write the name of a network, for example model.name=resnet18"),
    "model.weights": limit.text("write null, DEFAULT, or the path of a file"),
    "model.filters": limit.numbers(1, _NUMBER_OF_LAYERS, _WIDTH, "write for example [16,32]"),
    "model.hidden_units": limit.numbers(
        0, _NUMBER_OF_LAYERS, _WIDTH, "write for example [128], or [] for none"
    ),
    "model.kernel_size": Limit(
        lambda v: (
            "must be odd and at least 1, so that the image keeps its size"
            if v < 1 or v % 2 == 0
            else limit.whole(1, 31, "", "larger kernels see the padding alone").fault(v)
        ),
        "write 3, 5 or 7",
        admits="odd numbers, 1 … 31",
    ),
    "model.activation": limit.option("relu", "leaky_relu"),
    "model.init": limit.option("default", "xavier_uniform", "kaiming_uniform"),
    "model.dropout": _fraction("model.dropout", 0.5),
    "optimizer.name": limit.option("sgd", "adam", "adamw", "rmsprop"),
    "optimizer.lr": _factor(1e-12, MAX_LR, "optimizer.lr", 0.001, _UNLIKELY),
    "optimizer.momentum": _fraction("optimizer.momentum", 0.9),
    "optimizer.weight_decay": limit.number(
        0, 100, "write for example optimizer.weight_decay=0.0001", "nothing is left of the weights"
    ),
    "optimizer.head_lr_factor": _factor(1e-6, 1e6, "optimizer.head_lr_factor", 100, _UNLIKELY),
    "optimizer.stage_lr_decay": Limit(
        lambda v: "must be above 0 and at most 1" if not 0 < v <= 1 else limit.number(0.001, 1, "").fault(v),
        "write for example optimizer.stage_lr_decay=0.8",
        admits=limit.number(0.001, 1, "").admits,
    ),
    "scheduler.name": limit.option("none", "step", "plateau", "cosine"),
    "scheduler.step_size": _epochs(1, "scheduler.step_size", 10),
    "scheduler.gamma": _factor(1e-6, 10, "scheduler.gamma", 0.1, "each step multiplies the rate by it"),
    "scheduler.factor": limit.between(0, 1, "write for example scheduler.factor=0.1"),
    "scheduler.patience": _epochs(0, "scheduler.patience", 3),
    "scheduler.t_max": _epochs(1, "scheduler.t_max", 20),
    "scheduler.eta_min": limit.number(0, MAX_LR, "write for example scheduler.eta_min=0", _UNLIKELY),
    "scheduler.warmup_epochs": _epochs(0, "scheduler.warmup_epochs", 0),
    "augmentation.name": limit.option("none", "light", "standard", "strong"),
    "augmentation.rotation_deg": _within(0, 180, "augmentation.rotation_deg", 10),
    "augmentation.crop_scale": limit.pair(0.001, 1, "write for example augmentation.crop_scale=[0.8,1.0]"),
    "augmentation.crop_ratio": limit.pair(0.1, 10, "write for example augmentation.crop_ratio=[0.75,1.333]"),
    "augmentation.hflip": _within(0, 1, "augmentation.hflip", 0.5),
    "augmentation.vflip": _within(0, 1, "augmentation.vflip", 0.5),
    "augmentation.brightness": _within(0, 1, "augmentation.brightness", 0.2),
    "augmentation.contrast": _within(0, 1, "augmentation.contrast", 0.2),
    "augmentation.saturation": _within(0, 1, "augmentation.saturation", 0.2),
    "augmentation.hue": _within(0, 0.5, "augmentation.hue", 0.05),
    "augmentation.erasing": _within(0, 1, "augmentation.erasing", 0.25),
    "augmentation.erasing_scale": limit.pair(
        0.0001, 1, "write for example augmentation.erasing_scale=[0.02,0.33]"
    ),
    "augmentation.erasing_ratio": limit.pair(
        0.1, 10, "write for example augmentation.erasing_ratio=[0.3,3.3]"
    ),
    "freezing.name": limit.option("none", "head", "last_block", "gradual", "full"),
    "freezing.every": _epochs(1, "freezing.every", 2),
    "loss.name": limit.option(*LOSS_KEYS),
    "loss.label_smoothing": _fraction("loss.label_smoothing", 0.1),
    "training.epochs": _epochs(1, "training.epochs", 20),
    "training.batch_size": limit.whole(1, 2**20, "write for example training.batch_size=32", _IMAGES),
    "training.micro_batch_size": limit.whole(
        1, 2**20, "write for example training.micro_batch_size=16", _IMAGES
    ),
    "training.precision": limit.option("auto", "float32", "bfloat16"),
    "training.feature_views": limit.whole(
        0, 1000, "write for example training.feature_views=8", "no disk has room for more"
    ),
    "training.n_threads": limit.whole(
        1, 1024, "write for example training.n_threads=1", "no CPU has so many cores"
    ),
    "training.early_stopping.monitor": limit.option("val_loss", *(f"val_{name}" for name in METRICS)),
    "training.early_stopping.patience": _epochs(1, "training.early_stopping.patience", 5),
    "training.early_stopping.min_delta": limit.number(
        0, 1000, "write for example training.early_stopping.min_delta=0", "no metric changes by so much"
    ),
}
"""Every key but those of any type, and the switches, whose type says it all."""


def validate(run: Run) -> None:
    """Refuse a run that cannot be trained.

    Raises:
        BadInput: naming the first key whose value is out of range.
    """
    for key, value in flatten(run):
        if value is not None and key in LIMITS:
            LIMITS[key].check(key, value)
    if run.dataset.background is None:  # of any type, so that it may be null as far as Hydra knows
        LIMITS["dataset.background"].check("dataset.background", None)
    objectives(run.objective)
    for name in run.training.metrics:
        if name not in METRICS:
            raise BadInput("training.metrics", name, "there is no such metric", one_of(name, METRICS))
    _check_needs(run)
    _check_has_effect(run.loss)
    if run.scheduler.name == "cosine" and run.scheduler.eta_min > run.optimizer.lr:
        reason = f"is above optimizer.lr={run.optimizer.lr}, from which the rate falls"
        raise BadInput("scheduler.eta_min", run.scheduler.eta_min, reason, "write a smaller one")


def _check_needs(run: Run) -> None:
    """Refuse options that lack a key which they need and which has no default."""
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
    if run.model.source == "custom" and run.model.target is None:
        remedy = "write model.target=package.module.function, found from the working folder"
        raise BadInput("model.target", None, "custom needs it", remedy)
    if run.model.source == "sweeper" and run.model.name != "cnn":
        remedy = f"write model=cnn, or model=torchvision model.name={run.model.name}"
        raise BadInput("model.name", run.model.name, "there is no such network of ours", remedy)


def _check_has_effect(loss: Loss) -> None:
    """Refuse a key of another loss, instead of ignoring it."""
    for owner, keys in LOSS_KEYS.items():
        for name in keys:
            if name not in LOSS_KEYS[loss.name] and (value := getattr(loss, name)):
                reason = f"loss={loss.name} has no such thing"
                raise BadInput(f"loss.{name}", value, reason, f"leave it out, or write loss={owner}")


def check_task(run: Run, n_classes: int, multi_label: bool) -> None:
    """Raises BadInput if loss, weights, objective or a metric do not suit the kind of labels."""
    kind = "several labels" if multi_label else "one label"
    if (run.loss.name in MULTI_LABEL_LOSSES) != multi_label:
        suitable = [name for name in LOSS_KEYS if (name in MULTI_LABEL_LOSSES) == multi_label]
        remedy = f"write loss={' or '.join(suitable)}"
        raise BadInput("loss", run.loss.name, f"the images have {kind} each", remedy)
    suiting = [name for name in METRICS if _needs(name, multi_label) is not None]
    known = [name for name in suiting if METRICS[name].above_classes < n_classes]
    for key, told, name in _asked(run):
        if name not in known:
            few = f"needs more than {METRICS[name].above_classes} classes, and there are {n_classes}"
            reason = few if name in suiting else f"is not measured where images have {kind}"
            there = known if told == name else [f"val_{metric}" for metric in ("loss", *known)]
            raise BadInput(key, told, reason, f"write one of {', '.join(there)}")
    check_weights("class_weights", run.loss.class_weights, n_classes)
    check_weights("pos_weight", run.loss.pos_weight, n_classes)


def _needs(name: str, multi_label: bool) -> Needs | None:
    return METRICS[name].several_labels if multi_label else METRICS[name].one_label


def _asked(run: Run) -> Iterator[tuple[str, str, str]]:
    """The metrics that a run names: the key, what is written there, and the metric's name."""
    named = [("objective", name) for name in objectives(run.objective)]
    for key, told in [*named, ("training.early_stopping.monitor", run.training.early_stopping.monitor)]:
        if (name := told.removeprefix("val_")) in METRICS:
            yield key, told, name
    for name in run.training.metrics:
        yield "training.metrics", name, name


def metrics(run: Run, multi_label: bool) -> list[str]:
    """What is measured besides the loss: what is usual for the kind of labels, and all that the run names."""
    named = {*USUAL[multi_label], *(name for _, _, name in _asked(run))}
    return [name for name in METRICS if name in named]


def check_defined(run: Run, counts: Sequence[int], n: int, multi_label: bool) -> None:
    """Refuse an objective, or what is monitored, that the validation images leave undefined.

    Args:
        counts: of the validation images, those of each class.
        n: all of them.

    Raises:
        BadInput: naming the first one.
    """
    for key, told, name in _asked(run):
        reason = undefined(name, counts, n, multi_label)
        if told != name and reason is not None:
            remedy = "write val_loss, or validate on other images"
            raise BadInput(key, told, f"is undefined on the validation images: {reason}", remedy)


def undefined(name: str, counts: Sequence[int], n: int, multi_label: bool) -> str | None:
    """Why a metric is undefined on a part of the data, or None if it is defined; see ``check_defined``."""
    needs = _needs(name, multi_label)
    if needs is Needs.CONTRAST and not any(0 < count < n for count in counts):
        return "each label is on all or none of them" if multi_label else "all are of one class"
    if needs is not Needs.IMAGES and not any(counts):
        return "none has a label"
    return None


def check_weights(name: str, weights: Any, n_classes: int) -> None:
    """Raises BadInput unless there is one weight per class, or ``balanced``."""
    if weights is None or weights == "balanced":
        return
    is_list = isinstance(weights, list) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and 0 < w <= MAX_WEIGHT for w in weights
    )
    if not is_list or len(weights) != n_classes:
        reason = f"there must be a weight above 0 for each of the {n_classes} classes, at most {MAX_WEIGHT:g}"
        raise BadInput(f"loss.{name}", weights, reason, "write balanced, null or such a list")


MAX_WEIGHT = 1e6
"""Of a class in the loss: what is above outweighs all others to the last bit of float32."""

FILES = ("image_folder", "csv")
"""Datasets of image files; the others have a fixed image size."""

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
    **{
        f"dataset.{name}": ("dataset", "csv")
        for name in (
            "path_column",
            "label_column",
            "split_column",
            "folder",
            "suffix",
            "label_separator",
        )
    },
    **{f"model.{name}": ("model", "custom") for name in ("target", "arguments", "head")},
}
"""Keys that only some options of a group read."""


def without_effect(run: Run) -> list[str]:
    """One warning per key that is set but unused; not an error, because searches combine options."""
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
        told.append(f"the warm-up of {counted(run.scheduler.warmup_epochs, 'epoch')} never ends")
    return told


def unread_path(run: Run) -> list[str]:
    """A warning where a path is given and nothing reads it: the data are not those that were meant."""
    if run.dataset.path is None or run.dataset.name in FILES:
        return []
    effect = f"dataset.path={run.dataset.path} is not read with dataset={run.dataset.name}"
    return [f"{effect}: write {' or '.join(f'dataset={name}' for name in FILES)} for files of your own"]


def flatten(config: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dataclasses with their dotted keys, in the order of definition."""
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def direction(objective: Any) -> str | list[str]:
    """``maximize`` or ``minimize`` for each objective: derived, so that it cannot be wrong silently."""
    is_one = isinstance(objective, str) or not isinstance(objective, Sequence)
    directions = [DIRECTIONS[name] for name in objectives(objective if is_one else list(objective))]
    return directions[0] if is_one else directions


def objectives(objective: object) -> list[str]:
    """The names of the objectives, one or several.

    Raises:
        BadInput: for a name that is not in ``DIRECTIONS``.
    """
    names = [objective] if isinstance(objective, str) else objective
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not isinstance(names, list) or not is_list or not names or set(names) - set(DIRECTIONS):
        wrong = [name for name in names if name not in list(DIRECTIONS)] if isinstance(names, list) else []
        value = wrong[0] if wrong else objective
        raise BadInput("objective", value, "there is no such objective", one_of(str(value), DIRECTIONS))
    if len(set(names)) < len(names):
        raise BadInput("objective", objective, "names one twice", "write each once")
    return names
