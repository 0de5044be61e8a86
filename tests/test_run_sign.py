"""The signs of a run: what its curves say, and the commands that follow."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import replace
from math import inf, log, nan
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from sweeper import saved, schema
from sweeper.check import to_run
from sweeper.conf import VERSION_BASE, composing, conf_folder
from sweeper.record.run_files import RunFiles
from sweeper.results import sign
from sweeper.results.course import Course
from sweeper.results.remedy import calm, hasten
from sweeper.results.run_record import RunRecord, Task
from sweeper.results.run_sign import RULES, SILENCES, signs_of
from sweeper.results.sign import AT_ONCE, Sign
from sweeper.run import Observer, train
from sweeper.search.trial import Trial
from sweeper.training.fit import Epoch
from tests.program import sweeper

TASK = Task(
    n_train=600,
    n_val=200,
    n_classes=10,
    multi_label=False,
    train_counts=(60,) * 10,
    chance_loss=log(10),
    chance_accuracy=0.1,
)
ADAM = schema.Optimizer("adam", lr=0.003)
SGD = schema.Optimizer("sgd", lr=0.001, momentum=0.9)
PATIENT = schema.EarlyStopping(patience=None)


def rows(
    train: Sequence[float],
    val: Sequence[float],
    accuracy: Sequence[float] | None = None,
    lr: Sequence[float] | None = None,
    chance: float = TASK.chance_loss,
) -> list[dict[str, float]]:
    """A history whose losses are parts of that of chance; accuracies follow unless they are given."""
    accuracies = accuracy or [max(0.1, min(1.0, 1 - v)) if v == v else 0.1 for v in val]
    rates = lr or [0.003] * len(val)
    return [
        {
            "epoch": i + 1,
            "train_loss": t * chance,
            "train_accuracy": 0.5,
            "val_loss": v * chance,
            "val_accuracy": a,
            "lr": rate,
            "seconds": 1.0,
            "images_per_second": 1000.0,
            "peak_memory_mb": 900.0,
        }
        for i, (t, v, a, rate) in enumerate(zip(train, val, accuracies, rates, strict=True))
    ]


def seen(history: Sequence[dict[str, float]], **changes: Any) -> RunRecord:
    """A run of our own CNN that went through all of its epochs, unless changes say otherwise."""
    parts = {name: changes.pop(name) for name in list(changes) if name in schema.Run.__dataclass_fields__}
    training = schema.Training(epochs=len(history))
    run = schema.Run(**{"study": "one", "optimizer": ADAM, "training": training, **parts})
    record = RunRecord(run, history, TASK, is_over=True, again="sweeper --config-dir one --config-name trial")
    return replace(record, **changes)


def names(record: RunRecord) -> list[str]:
    return [each.sign for each in signs_of(record)]


def falling(start: float, end: float, n: int) -> list[float]:
    """From one loss to another by the same factor in each epoch."""
    return [start * (end / start) ** (i / (n - 1)) for i in range(n)]


GOOD = [*falling(0.8, 0.03, 12), 0.03, 0.031, 0.029, 0.03, 0.03, 0.031]
HEALTHY = seen(rows([0.9 * value for value in GOOD], GOOD))
FLAT = [0.9, 0.5, 0.3, 0.2, *[0.2, 0.202, 0.199, 0.201] * 6]
STUCK = [0.9, 0.6, 0.5, *[0.45, 0.452, 0.449, 0.451] * 4]
SLOW = falling(1.0, 0.6, 20)
JUMPY = [0.5, 0.3, 0.4, 0.25, 0.5, 0.3, 0.45, 0.28, 0.5, 0.33, 0.47, 0.3]
LEARNED_BY_HEART = (falling(0.9, 0.001, 20), [*falling(0.9, 0.5, 6), *falling(0.5, 0.9, 14)])
UNEQUAL = replace(TASK, train_counts=(300, 200, *[12] * 8))
NEGLECTED = {str(i): 0.95 if i < 2 else 0.3 for i in range(10)}
IN_FULL = schema.Training(epochs=20, precision="float32")

SICK: dict[str, RunRecord] = {
    "diverged": seen(rows([0.9, 0.5, nan], [0.8, 0.6, nan]), training=schema.Training(epochs=20)),
    "chance_level": seen(rows([1.0, 1.002, 0.999, 1.001] * 2, [1.0, 1.001, 1.002, 1.0] * 2, [0.1] * 8)),
    "oscillating": seen(rows(JUMPY, JUMPY)),
    "few_steps": seen(rows(SLOW, SLOW), training=schema.Training(epochs=20, batch_size=512)),
    "too_slow": seen(rows(SLOW, SLOW), optimizer=SGD),
    "still_improving": seen(rows(falling(0.8, 0.2, 10), falling(0.8, 0.2, 10))),
    "overfitting": seen(rows(*LEARNED_BY_HEART), model=schema.Model(dropout=0.0)),
    "underfitting": seen(rows(STUCK, STUCK)),
    "dead_units": replace(HEALTHY, dead_units=0.8),
    "imbalanced": replace(HEALTHY, task=UNEQUAL, recall=NEGLECTED),
    "memory_bound": replace(HEALTHY, gpu_memory_mb=8000.0, micro_batch_size=16),
    "plateaued": seen(rows(FLAT, FLAT), training=schema.Training(epochs=len(FLAT), early_stopping=PATIENT)),
}
"""A run with each of the signs, and nothing else that would be told before it."""

BARELY: dict[str, RunRecord] = {
    "diverged": seen(rows([1.3, 0.9, 0.7], [1.2, 0.8, 0.7])),
    "chance_level": seen(rows([1.0] * 8, [1.0, 0.99, 0.97, 0.95, 0.93, 0.92, 0.9, 0.88])),
    "oscillating": seen(rows(falling(0.9, 0.2, 12), JUMPY)),
    "few_steps": replace(HEALTHY, run=replace(HEALTHY.run, training=schema.Training(18, 512))),
    "too_slow": seen(rows(falling(0.9, 0.05, 20), falling(0.9, 0.05, 20)), optimizer=SGD),
    "still_improving": HEALTHY,
    "overfitting": seen(rows(falling(0.9, 0.02, 20), falling(0.9, 0.1, 20))),
    "underfitting": seen(rows(FLAT, FLAT)),
    "dead_units": replace(HEALTHY, dead_units=0.3),
    "imbalanced": replace(HEALTHY, task=UNEQUAL, recall={str(i): 0.95 for i in range(10)}),
    "memory_bound": replace(HEALTHY, gpu_memory_mb=8000.0),
    "plateaued": seen(rows(FLAT[:12], FLAT[:12]), training=schema.Training(epochs=30)),
}
"""A run that comes near, and has it not."""


@pytest.mark.parametrize("name", [rule.sign for rule in RULES])
def test_a_run_shows_its_sign(name: str) -> None:
    """Each sign is told of a run that has it, first, and with numbers; and not of one that has it not."""
    told = signs_of(SICK[name])
    assert told[0].sign == name
    assert any(character.isdigit() for character in told[0].evidence)
    assert told[0].evidence.endswith(".")
    assert told[0].advice.endswith(".")
    assert name not in names(BARELY[name])


def test_a_healthy_run_shows_none() -> None:
    """Nothing is told of a run that learned what there is to be learned."""
    assert names(HEALTHY) == []


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (SICK["too_slow"], "optimizer.lr=0.01"),
        (seen(rows(SLOW, SLOW), optimizer=replace(SGD, momentum=None)), "optimizer.momentum=0.9"),
        (seen(rows(SLOW, SLOW), optimizer=replace(SGD, lr=0.05)), "optimizer=adam"),
        (seen(rows(SLOW, SLOW), scheduler=schema.Scheduler(warmup_epochs=15)), "scheduler.warmup_epochs=0"),
        (SICK["still_improving"], "training.epochs=20"),
        (SICK["few_steps"], "training.batch_size=16"),
        (SICK["oscillating"], "optimizer.lr=0.001"),
        (seen(rows(JUMPY, JUMPY), optimizer=replace(SGD, momentum=0.99)), "optimizer.momentum=0.9"),
        (seen(rows([2.0, nan], [2.0, nan]), optimizer=replace(ADAM, lr=1e10)), "optimizer.lr=0.003"),
        (SICK["overfitting"], "model.dropout=0.5"),
        (seen(rows(*LEARNED_BY_HEART)), "optimizer.weight_decay=0.0001"),
        (SICK["underfitting"], "'model.filters=[16,32,64]'"),
        (
            seen(rows(STUCK, STUCK), optimizer=replace(ADAM, weight_decay=0.05)),
            "optimizer.weight_decay=0.0001",
        ),
        (seen(rows(STUCK, STUCK), model=schema.Model(dropout=0.9)), "model.dropout=0.5"),
        (SICK["dead_units"], "model.activation=leaky_relu"),
        (SICK["imbalanced"], "loss.class_weights=balanced"),
        (SICK["memory_bound"], "training.batch_size=16"),
        (SICK["plateaued"], "scheduler=plateau training.early_stopping.patience=5"),
    ],
)
def test_the_command_fits_the_case(record: RunRecord, change: str) -> None:
    """The next command changes what the guide names, from where this run is."""
    assert signs_of(record)[0].command == f"{record.again} {change}"


def test_adam_is_no_news_for_adam() -> None:
    """What a run has already is not advised."""
    (told,) = signs_of(seen(rows(SLOW, SLOW), optimizer=replace(ADAM, lr=1e-5)))
    assert "Adam" not in told.advice
    (told,) = signs_of(seen(rows(SLOW, SLOW), optimizer=SGD))
    assert "or try Adam" in told.advice


def test_more_dropout_is_no_help_for_a_frozen_network() -> None:
    """A head that learns alone gets other regularisation."""
    head = seen(
        rows(*LEARNED_BY_HEART),
        model=schema.Model("torchvision", "resnet18", weights="DEFAULT", dropout=0.0),
        freezing=schema.Freezing("head"),
    )
    assert signs_of(head)[0].command == f"{head.again} optimizer.weight_decay=0.0001"


def test_while_training_goes_on_little_is_told() -> None:
    """Of a run that is not over, only the two signs that cannot mend themselves, and these in time."""
    for name, record in SICK.items():
        told = names(replace(record, is_over=False))
        assert set(told) <= set(AT_ONCE)
        assert (name in told) == (name in AT_ONCE)
    early = seen(rows([1.0] * 3, [1.0] * 3, [0.1] * 3), training=schema.Training(epochs=20))
    assert names(replace(early, is_over=False)) == []
    warming = seen(rows([1.0] * 8, [1.0] * 8, [0.1] * 8), scheduler=schema.Scheduler(warmup_epochs=5))
    assert names(replace(warming, is_over=False)) == []


def test_what_was_pruned_is_not_told_to_go_on() -> None:
    """A run that was cut short is not blamed for what its later epochs would have brought."""
    for name in ("still_improving", "plateaued", "underfitting", "few_steps"):
        assert name not in names(replace(SICK[name], was_cut=True))
    assert names(replace(SICK["diverged"], was_cut=True)) == ["diverged"]


def test_one_epoch() -> None:
    """After one epoch only that there should be more."""
    assert names(seen(rows([0.9], [0.7]))) == ["still_improving"]
    assert names(seen(rows([0.9], [0.02]))) == []
    assert names(seen(rows([nan], [nan], [0.1]))) == ["diverged"]


def test_no_epoch() -> None:
    """A run without a history has no signs."""
    assert names(seen([], training=schema.Training())) == []


def test_a_collapse_is_told() -> None:
    """A network that had learned, and fell back to chance, is recognised by either sign."""
    back = [0.8, 0.5, 0.4, *[1.01, 1.0, 1.02, 1.01] * 2]
    assert names(seen(rows(back, back)))[0] in ("diverged", "chance_level")


def test_memorising_is_not_chance() -> None:
    """A network that learns by heart what does not help elsewhere is told to overfit."""
    told = names(seen(rows(falling(0.9, 0.01, 12), falling(0.99, 1.6, 12), [0.1] * 12)))
    assert told[0] == "overfitting"


def test_a_training_loss_of_another_kind_is_not_compared() -> None:
    """With class weights or smoothing, the training loss is no measure for the validation loss."""
    weighted = schema.Loss(class_weights="balanced")
    high = [3 * value for value in GOOD]
    assert names(seen(rows(high, GOOD), loss=weighted)) == []
    assert names(seen(rows(high, GOOD), loss=schema.Loss(label_smoothing=0.1))) == []


def test_a_hard_training_is_normal() -> None:
    """With dropout and augmentation the training loss lies above the validation loss."""
    hard = [2.5 * value for value in GOOD]
    assert names(seen(rows(hard, GOOD), augmentation=schema.Augmentation("standard"))) == []


def test_a_new_network_knows_nothing_of_unequal_classes() -> None:
    """Where one class is rare, a loss that begins high, as if they were alike, neither diverges nor jumps."""
    task = replace(TASK, n_classes=2, train_counts=(570, 30), chance_loss=0.2, chance_accuracy=0.95)
    from_even = [0.66 / 0.2, 0.53 / 0.2, 0.42 / 0.2, 0.36 / 0.2, 0.32 / 0.2, 0.3 / 0.2]
    history = rows(from_even, from_even, [0.95] * 6, chance=0.2)
    for n in range(1, 7):
        for is_over in (True, False):
            told = names(seen(history[:n], task=task, is_over=is_over))
            assert not {"diverged", "oscillating"} & set(told)
    away = [*from_even[:2], 8.0, 9.0]
    assert names(seen(rows(away, away, [0.95] * 4, chance=0.2), task=task))[0] == "diverged"


def test_a_network_that_learns_its_training_pictures_does_not_underfit() -> None:
    """Where the training loss still falls, and the validation loss does not, no more room is needed."""
    train = [1.2, 1.02, 0.99, 0.99, 0.98, 0.97, 0.95, 0.93, 0.885, 0.84, 0.79, 0.755]
    val = [1.02, 0.999, 0.998, 0.998, 0.996, 0.991, 0.989, 0.99, 0.988, 0.998, 1.02, 1.035]
    assert "underfitting" not in names(seen(rows(train, val, [0.15] * 12)))


def test_dead_units_do_not_revive_by_larger_steps() -> None:
    """A network at chance whose units are dead is never told to learn faster, however its loss creeps."""
    creeping = falling(1.001, 0.999, 6)
    record = replace(seen(rows(creeping, creeping, [0.1] * 6)), dead_units=0.7)
    assert all("Raise" not in each.advice for each in signs_of(record))


def test_unfreezing_may_shake_the_loss() -> None:
    """The jumps of gradual unfreezing, every other epoch, are no oscillation."""
    steps = [0.7, 0.5, 0.6, 0.4, 0.5, 0.3, 0.4, 0.25, 0.3, 0.15, 0.2, 0.1]
    gradual = seen(rows(steps, steps), freezing=schema.Freezing("gradual", every=2))
    assert "oscillating" not in names(gradual)


def test_what_is_known_by_heart_is_told_of_few_images() -> None:
    """Where 10 images validate, a training loss of nearly nothing says more than how validation wavers."""
    few = replace(TASK, n_train=30, n_val=10)
    train, val = falling(0.9, 0.001, 20), [*falling(0.95, 0.4, 12), *[0.41, 0.39] * 4]
    bare = schema.Model(dropout=0.0)
    assert names(seen(rows(train, val), task=few, model=bare)) == ["overfitting"]
    assert names(seen(rows(train, [0.2 * value for value in val]), task=few, model=bare)) != ["overfitting"]


def test_a_low_rate_is_blamed_before_the_batch() -> None:
    """With a rate far below the usual one, neither few steps nor the network are at fault."""
    tiny, few = replace(ADAM, lr=1e-5), replace(TASK, n_train=30, n_val=10)
    flat = [0.93, 0.925] * 6
    for history in (rows(SLOW, SLOW), rows(flat, flat, [0.5] * 12)):
        assert names(seen(history, task=few, optimizer=tiny)) == ["too_slow"]


def test_augmentation_that_hides_the_images_is_named() -> None:
    """A network that does much better without augmentation than with it is told to vary images less."""
    strong = schema.Augmentation("strong")
    record = seen(rows(falling(1.0, 0.85, 20), falling(0.98, 0.4, 20)), augmentation=strong)
    assert signs_of(record)[0].command == f"{record.again} augmentation=light"


def test_commands_do_not_lead_in_a_circle() -> None:
    """What is raised where training is slow is not lowered again where it shakes, and decay neither."""
    for name, low, high in (("sgd", 1e-3, 0.1), ("adam", 1e-4, 0.01), ("adamw", 3e-4, 0.03)):
        usual = replace(SGD if name == "sgd" else ADAM, name=name)
        slow = Course(seen(rows(SLOW, SLOW), optimizer=replace(usual, lr=low)))
        fast = Course(seen(rows(JUMPY, JUMPY), optimizer=replace(usual, lr=high)))
        raised, lowered = (float(told[1][0].partition("=")[2]) for told in (hasten(slow), calm(fast)))
        assert low < raised <= 3.01 * slow.run.optimizer.lr / slow.speed
        assert low < lowered < high
        assert Course(seen(rows(SLOW, SLOW), optimizer=replace(usual, lr=lowered))).speed > 0.99
    record = seen(rows(*LEARNED_BY_HEART))
    for _ in range(5):
        decay = record.run.optimizer.weight_decay
        told = [w for w in (signs_of(record)[0].command or "").split() if "weight_decay" in w]
        if told:
            decay = float(told[0].partition("=")[2])
        record = replace(record, run=replace(record.run, optimizer=replace(ADAM, weight_decay=decay)))
    stuck = replace(record, history=rows(STUCK, STUCK))
    assert "weight_decay" not in (signs_of(stuck)[0].command or "")


def test_several_labels() -> None:
    """Where images have several labels there is no accuracy, and signs are told from the loss."""
    task = replace(TASK, multi_label=True, chance_accuracy=None, chance_loss=0.4)

    def without_accuracy(history: list[dict[str, float]]) -> list[dict[str, float]]:
        gone = ("train_accuracy", "val_accuracy")
        return [{name: value for name, value in row.items() if name not in gone} for row in history]

    def told(train: Sequence[float], val: Sequence[float], **changes: Any) -> list[str]:
        history = without_accuracy(rows(train, val, chance=0.4))
        return names(seen(history, task=task, loss=schema.Loss("bce_with_logits"), **changes))

    assert told(SLOW, SLOW) == ["too_slow"]
    assert told([1.0] * 8, [1.0, 1.001] * 4) == ["chance_level"]
    assert told([0.9 * value for value in GOOD], GOOD) == []
    few = replace(task, train_counts=(400, *[10] * 9))
    recall = {str(i): 0.9 if i == 0 else 0.0 for i in range(10)}
    history = without_accuracy(rows(GOOD, GOOD, chance=0.4))
    rare = seen(history, task=few, recall=recall, loss=schema.Loss("bce_with_logits"))
    assert signs_of(rare)[0].command == f"{rare.again} loss.pos_weight=balanced"


def test_a_scheduler_that_stopped_learning() -> None:
    """A rate that fell too early is named, and one is advised that falls more slowly."""
    flat = [0.95, 0.9, *[0.89] * 8]
    step = schema.Scheduler("step", step_size=1)
    record = seen(rows(flat, flat, lr=[0.003 * 0.1**i for i in range(10)]), scheduler=step)
    assert signs_of(record)[0].command == f"{record.again} scheduler=cosine"


def test_early_stopping_is_not_blamed_for_a_plateau() -> None:
    """A run that stopped by itself where validation was flat did what is advised."""
    assert names(seen(rows(FLAT, FLAT), training=schema.Training(epochs=60))) == []


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_the_scale_of_losses_does_not_matter(factor: float) -> None:
    """Signs depend on losses as parts of that of chance, not on their size."""
    for record in [*SICK.values(), HEALTHY]:
        scaled = [
            {**row, **{name: row[name] * factor for name in ("train_loss", "val_loss")}}
            for row in record.history
        ]
        task = replace(record.task, chance_loss=record.task.chance_loss * factor)
        assert names(replace(record, history=scaled, task=task)) == names(record)


def test_no_sign_is_told_with_one_that_explains_it() -> None:
    """Whatever a run looks like: at most one of those that exclude each other, and none twice."""
    for record in made_up(400):
        told = names(record)
        assert len(set(told)) == len(told)
        for name in told:
            assert not SILENCES.get(name, frozenset()) & set(told)


def test_the_table_is_complete() -> None:
    """Each row has a meaning, general advice and a source, and no sign has two rows."""
    assert len({rule.sign for rule in RULES}) == len(RULES) == 12
    for rule in RULES:
        assert rule.meaning.endswith(".")
        assert rule.advice.endswith(".")
        assert rule.source


def test_it_costs_nothing_in_an_epoch() -> None:
    """Reading a run of 100 epochs while it goes on takes less than 5 ms, even on a busy machine."""
    record = seen(rows([1.0] * 100, [1.0] * 100, [0.1] * 100), is_over=False)
    times = []
    for _ in range(20):
        started = perf_counter()
        signs_of(record)
        times.append(perf_counter() - started)
    assert min(times) < 0.005


# ---------------------------------------------------------------------------------------- while it goes on


class Told(Trial, Observer):
    """What a run tells the study and who watches it, in order."""

    def __init__(self) -> None:
        self.attributes: list[list[str]] = []
        self.signs: list[tuple[int, str]] = []
        self._epoch = 0

    def set_user_attr(self, name: str, value: Any) -> None:
        if name == "signs":
            self.attributes.append(list(value))

    def epoch(self, epoch: Epoch) -> None:
        self._epoch = epoch.epoch

    def sign(self, sign: Sign) -> None:
        self.signs.append((self._epoch, sign.sign))


def test_a_sign_is_told_once_while_training_goes_on(tmp_path: Path) -> None:
    """A network that cannot learn is told after the epoch that shows it, and once; then it trains on."""
    training = schema.Training(epochs=8, batch_size=256, n_threads=1, early_stopping=PATIENT)
    told = Told()
    train(
        schema.Run("one", device="cpu", optimizer=replace(ADAM, lr=0.5), training=training),
        tmp_path,
        told,
        told,
    )
    assert [name for _, name in told.signs] == ["chance_level"]
    assert told.signs[0][0] < len(RunFiles(tmp_path).read_history())
    assert told.attributes[0] == ["chance_level"]
    ended = [each.sign for each in sign.read(RunFiles(tmp_path).signs)]
    assert told.attributes[-1] == ended
    assert RunFiles(tmp_path).read_result()["dead_units"] > 0.5


# ------------------------------------------------------------------------------------------ the commands


def made_up(n: int) -> list[RunRecord]:
    """Runs of all kinds of settings, with all kinds of curves."""
    rng = random.Random(0)
    records = []
    for _ in range(n):
        length = rng.choice([1, 2, 3, 5, 10, 25])
        curves = []
        for _ in range(2):
            start, end, shake = rng.uniform(0.5, 1.5), rng.uniform(0.001, 1.5), rng.choice([0, 0.02, 0.3])
            course = falling(start, end, length) if length > 1 else [start]
            curves.append([value * rng.uniform(1 - shake, 1 + shake) for value in course])
        if rng.random() < 0.1:
            curves[0][-1] = rng.choice([nan, inf])
        network = rng.choice([schema.Model(), schema.Model("torchvision", "resnet18", weights="DEFAULT")])
        optimizer = rng.choice(["sgd", "adam", "adamw", "rmsprop"])
        rate = 10 ** rng.uniform(-12, 4)
        scheduler = rng.choice(
            [
                schema.Scheduler(warmup_epochs=rng.choice([0, 10])),
                schema.Scheduler("step", step_size=1),
                schema.Scheduler("cosine", eta_min=rate / 2),
                schema.Scheduler("plateau"),
            ]
        )
        run = schema.Run(
            study="one",
            device="cpu",
            model=replace(
                network,
                dropout=rng.choice([0.0, 0.5, 0.95]),
                filters=rng.choice([[1], [6, 16], [32, 64, 128]]),
                hidden_units=rng.choice([[], [4], [128]]),
                activation=rng.choice(["relu", "leaky_relu"]),
            ),
            optimizer=schema.Optimizer(
                optimizer,
                rate,
                rng.choice([None, 0.5, 0.9, 0.999]) if optimizer in ("sgd", "rmsprop") else None,
                rng.choice([0.0, 1e-4, 0.01, 1.0]),
            ),
            scheduler=scheduler,
            augmentation=schema.Augmentation(rng.choice(["none", "light", "strong"])),
            freezing=schema.Freezing(
                "none"
                if network.source == "sweeper"
                else rng.choice(["head", "last_block", "gradual", "full"]),
                every=2,
            ),
            training=schema.Training(
                epochs=rng.choice([length, 2 * length]),
                batch_size=rng.choice([1, 8, 32, 512]),
                precision=rng.choice(["float32", "bfloat16"]),
                early_stopping=rng.choice([schema.EarlyStopping(), PATIENT]),
            ),
        )
        records.append(
            RunRecord(
                run,
                rows(curves[0], curves[1]),
                rng.choice([TASK, UNEQUAL]),
                is_over=rng.random() < 0.9,
                again="sweeper",
                dead_units=rng.choice([None, 0.9]),
                gpu_memory_mb=rng.choice([None, 950.0]),
                micro_batch_size=rng.choice([None, 4]),
                recall=NEGLECTED,
                was_cut=rng.random() < 0.2,
            )
        )
    return records


def composed(arguments: Sequence[str]) -> DictConfig:
    """The config of a command line."""
    with (
        saved.saved_run(arguments) as line,
        composing(line.overrides),
        initialize_config_dir(str(conf_folder()), **VERSION_BASE),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        return hydra.compose_config(line.config_name, line.overrides, RunMode.RUN)


def commands(records: Sequence[RunRecord]) -> list[tuple[RunRecord, str]]:
    """A command for each way in which one changes keys."""
    found: dict[tuple[str, ...], tuple[RunRecord, str]] = {}
    for record in records:
        for each in signs_of(record):
            if each.command is not None:
                changes = shlex.split(each.command)[len(shlex.split(record.again)) :]
                kind = tuple(c if "=0" not in c else c.partition("=")[0] for c in changes)
                kinds = tuple(k if not k[-1].isdigit() or "lr" in k else k.partition("=")[0] for k in kind)
                found.setdefault((each.sign, *kinds), (record, each.command))
    return list(found.values())


def trains(run: schema.Run, folder: Path) -> bool:
    """Whether a run goes through one epoch of a few small batches; its loss need not be a number."""
    training = replace(run.training, epochs=1, n_threads=1, batch_size=max(64, run.training.batch_size))
    train(replace(run, training=training, device="cpu"), folder, Told(), Told())
    return len(RunFiles(folder).read_history()) == 1


def accept(records: Sequence[RunRecord], folder: Path, and_trains: bool = False) -> int:
    """Compose their commands as the product does, and return how many there were.

    Those of our own CNN can be trained besides: no weights have to be fetched for it.
    """
    made, trained = commands(records), set[tuple[str, ...]]()
    for i, (record, command) in enumerate(made):
        files = RunFiles(folder / str(i))
        files.folder.mkdir()
        files.config.write_text(saved.to_yaml(record.run))
        again = saved.command(files.config, record.run.model)
        words = shlex.split(command.replace(record.again, again, 1))
        arguments = words[words.index("--config-dir") :]
        after = to_run(composed(arguments))
        assert after != record.run, command
        changed = tuple(word.partition("=")[0] for word in arguments[4:])
        if and_trains and after.model.source == "sweeper" and changed not in trained:
            trained.add(changed)
            assert trains(after, folder / f"trained {i}"), command
    return len(made)


def test_a_command_is_accepted(tmp_path: Path) -> None:
    """The product composes what the rules advise, and it changes the run."""
    assert accept([SICK["too_slow"], SICK["underfitting"], SICK["plateaued"]], tmp_path) == 3


@pytest.mark.slow
def test_all_commands_are_accepted(tmp_path: Path) -> None:
    """The same of runs of all kinds of settings and curves; and what a command makes trains one epoch."""
    assert accept([*SICK.values(), *made_up(1500)], tmp_path, and_trains=True) > 40


@pytest.mark.slow
def test_a_newcomer_is_led_to_a_good_network(tmp_path: Path) -> None:
    """The default run's loss still falls; the command of its first sign reaches 96 % on the test images."""
    sweeper(tmp_path, "study=first")
    first = RunFiles(tmp_path / "outputs" / "first")
    told = sign.read(first.signs)
    assert told[0].sign in ("too_slow", "still_improving")
    assert told[0].command is not None
    words = shlex.split(told[0].command)
    sweeper(tmp_path, *words[words.index("--config-dir") :], "study=second")
    second = RunFiles(tmp_path / "outputs" / "second")
    assert first.read_result()["test_accuracy"] < 0.9
    assert second.read_result()["test_accuracy"] > 0.96


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("optimizer.lr=1e4 training.epochs=4", {"diverged"}),
        ("optimizer=adam optimizer.lr=0.3 training.epochs=6", {"chance_level", "dead_units"}),
        ("optimizer=adam optimizer.lr=0.003 training.epochs=1", {"still_improving"}),
        ("optimizer=adam training.batch_size=1024 training.epochs=8", {"few_steps"}),
    ],
)
def test_real_runs_show_their_signs(tmp_path: Path, overrides: str, expected: set[str]) -> None:
    """A run with a known fault has its signs beside its result, and the command there runs as it stands."""
    sweeper(tmp_path, *overrides.split(), "study=one")
    told = sign.read(RunFiles(tmp_path / "outputs" / "one").signs)
    assert {each.sign for each in told} & expected
    assert told[0].command is not None
    words = shlex.split(told[0].command)
    sweeper(tmp_path, *words[words.index("--config-dir") :], "study=two", "training.epochs=1")
    assert RunFiles(tmp_path / "outputs" / "two").read_result()["epochs"] == 1


def test_a_rule_that_breaks_down_does_not_end_a_training(caplog: pytest.LogCaptureFixture) -> None:
    """A loss at chance of 0 is a bug for some rules, which is logged in a line each; the others are told."""
    healthy = seen(rows(SLOW, SLOW))
    broken = replace(healthy, task=replace(healthy.task, chance_loss=0.0))
    assert isinstance(signs_of(broken), list)
    assert "could not be read" in caplog.text
