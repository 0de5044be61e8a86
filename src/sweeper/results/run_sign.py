"""The signs of one run: rules that read its curves.

Thresholds are relative: losses are parts of the loss at chance, and changes are compared with the noise of
the curve itself. ``benchmarks/signs.py`` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, log, log2, sqrt
from statistics import mean

import numpy as np

from sweeper import schema
from sweeper.results import curve
from sweeper.results.curve import Values
from sweeper.results.run_record import RunRecord
from sweeper.results.sign import Finding, Rule, Sign
from sweeper.words import counted

CNN_GUIDE = "guide to small CNNs"
TRANSFER_GUIDE = "guide to transfer learning"

# ------------------------------------------------------------------------------------------- what is seen


@dataclass(frozen=True)
class Course:
    """The curves of a run in units of its task: a loss of 1 is that of chance."""

    seen: RunRecord

    @property
    def run(self) -> schema.Run:
        return self.seen.run

    @property
    def n(self) -> int:
        return len(self.seen.history)

    def _column(self, name: str) -> Values | None:
        if not self.n or any(name not in row for row in self.seen.history):
            return None
        return np.array([row[name] for row in self.seen.history], dtype=float)

    @cached_property
    def train(self) -> Values:
        """The training loss; see ``train_is_plain``."""
        column = self._column("train_loss")
        return np.empty(0) if column is None else column / self.seen.task.chance_loss

    @cached_property
    def val(self) -> Values:
        column = self._column("val_loss")
        return np.empty(0) if column is None else column / self.seen.task.chance_loss

    @cached_property
    def train_accuracy(self) -> Values | None:
        return self._column("train_accuracy")

    @cached_property
    def val_accuracy(self) -> Values | None:
        return self._column("val_accuracy")

    @property
    def untaught(self) -> float:
        """The loss of a new network, to which all classes are alike; far above chance where they are not."""
        task = self.seen.task
        return max(1.0, log(2 if task.multi_label else max(2, task.n_classes)) / task.chance_loss)

    @property
    def train_is_plain(self) -> bool:
        """Whether the training loss is one of the same kind as the validation loss."""
        loss = self.run.loss
        return not loss.label_smoothing and loss.class_weights is None and loss.pos_weight is None

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.train).all() and np.isfinite(self.val).all())

    @property
    def steps_per_epoch(self) -> int:
        return max(1, ceil(self.seen.task.n_train / self.run.training.batch_size))

    @property
    def is_whole(self) -> bool:
        """Whether training went to its own end."""
        return self.seen.is_over and not self.seen.was_cut

    @property
    def used_all_epochs(self) -> bool:
        return self.is_whole and self.n >= self.run.training.epochs

    @cached_property
    def is_at_chance(self) -> bool:
        """Whether neither loss nor accuracy are better than those of chance, in the last quarter."""
        if not self.n or not self.is_finite:
            return False
        task, accuracy = self.seen.task, self.val_accuracy
        if curve.last(self.val) < (SURELY_AT_CHANCE if self.falls_steadily else AT_CHANCE):
            return False
        if self.train_is_plain and curve.last(self.train) < 0.93:
            return False  # it learned something, though nothing that helps on other images
        if accuracy is None or task.chance_accuracy is None:
            return True
        p = max(task.chance_accuracy, 1 / max(1, task.n_classes))
        by_luck = 3 * sqrt(p * (1 - p) / max(1, task.n_val))
        return float(np.median(accuracy[-max(1, self.n // 4) :])) <= p + by_luck

    @cached_property
    def falls_steadily(self) -> bool:
        """Whether nearly every epoch's validation loss is lower than that before."""
        if self.n < 4:
            return False
        course = self.val if self.n < 8 else curve.smooth(self.val)
        steps = np.diff(course)
        return bool((steps < 0).mean() >= 0.8)

    @property
    def effective_lr(self) -> float:
        """The learning rate that steps in one direction add up to; momentum multiplies it."""
        optimizer = self.run.optimizer
        momentum = optimizer.momentum or 0.0 if optimizer.name in WITH_MOMENTUM else 0.0
        return optimizer.lr / max(1e-4, 1 - momentum)

    @property
    def brake(self) -> tuple[str, tuple[str, ...]] | None:
        """What holds the network back from learning, by its settings: what to do, and the overrides."""
        run = self.run
        most = 1.0 if run.optimizer.name == "adamw" else 0.01  # adamw's bounds the weights by its inverse
        if run.optimizer.weight_decay > most:
            return _less_decay(run)
        if run.model.dropout > 0.7:
            return f"Lower the dropout ({run.model.dropout:g} → 0.5)", ("model.dropout=0.5",)
        model, narrowest = run.model, min(run.model.hidden_units, default=None)
        if model.source == "sweeper":
            is_narrow = narrowest is not None and narrowest < self.seen.task.n_classes
            if is_narrow or max(model.filters) < min(max(filters) for filters in FILTERS) / 4:
                return _widen(run)
        if run.augmentation.name == "strong" and self.n and self.train_is_plain:
            train, val = curve.last(self.train), curve.last(self.val)
            if train > AT_CHANCE or (train > 1.5 * val and not curve.is_falling(self.val)):
                return "Vary the training images less", ("augmentation=light",)
        return None


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


AT_CHANCE, SURELY_AT_CHANCE = 0.975, 0.985
"""Part of the loss at chance above which nothing was learned; the second one while it falls steadily."""

WITH_MOMENTUM = ("sgd", "rmsprop")

# ---------------------------------------------------------------------------------------------- changes


def _value(key: str, value: float) -> str:
    return f"{key}={value:.3g}"


def _quoted(key: str, values: list[int]) -> str:
    return f"'{key}=[{','.join(map(str, values))}]'"


def _usual_lr(run: schema.Run) -> float:
    """A rate that nearly always trains: the guides' defaults."""
    if run.freezing.name in ("full", "gradual"):
        return 1e-5
    if run.freezing.name == "last_block":
        return 1e-4
    return 1e-3


def _lower_lr(run: schema.Run) -> tuple[str, ...]:
    """A tenth of the rate, or the usual one if that is still lower; and what must be lower then, too."""
    highest = _usual_lr(run) * (10 if run.optimizer.name == "sgd" else 1)
    lr = run.optimizer.lr / 10
    lr = max(min(lr, highest), 1e-12)
    keeps = run.scheduler.eta_min <= lr or run.scheduler.name != "cosine"
    return (_value("optimizer.lr", lr), *(() if keeps else ("scheduler.eta_min=0",)))


def _calm(run: schema.Run) -> tuple[str, tuple[str, ...]]:
    """What makes steps smaller, in words and as overrides."""
    momentum = run.optimizer.momentum or 0.0
    lr = run.optimizer.lr
    if run.optimizer.name in WITH_MOMENTUM and momentum > 0.95 and lr <= 0.01:
        return f"Lower the momentum ({momentum:g} → 0.9)", ("optimizer.momentum=0.9",)
    changes = _lower_lr(run)
    told = f"Lower the learning rate ({lr:g} → {changes[0].partition('=')[2]})"
    if run.optimizer.name in WITH_MOMENTUM and momentum > 0.95:
        return f"{told} and the momentum ({momentum:g} → 0.9)", (*changes, "optimizer.momentum=0.9")
    return told, changes


def _hasten(run: schema.Run) -> tuple[str, tuple[str, ...]]:
    """What makes training faster, in words and as overrides."""
    if run.scheduler.warmup_epochs > 0.3 * run.training.epochs:
        return "Shorten the warm-up, in which the rate only grows", ("scheduler.warmup_epochs=0",)
    if run.optimizer.name == "sgd" and (run.optimizer.momentum or 0) < 0.8:
        return "Give the optimizer its usual momentum", ("optimizer.momentum=0.9",)
    lr = min(run.optimizer.lr * 10, schema._MAX_LR)
    if run.optimizer.name == "sgd" and lr > 0.1:
        return "Try Adam, which sets its own step sizes", ("optimizer=adam",)
    lr = max(lr, _usual_lr(run) / 10)
    other = "" if run.optimizer.name.startswith("adam") else ", or try Adam"
    return f"Raise the learning rate ({run.optimizer.lr:g} → {lr:.3g}){other}", (_value("optimizer.lr", lr),)


# ------------------------------------------------------------------------------------------------ rules


def _diverged(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.n:
        return None
    if not c.is_finite:
        bad = next(
            i for i, row in enumerate(seen.history) if not isfinite(row["train_loss"] + row["val_loss"])
        )
        evidence = f"The loss is no longer a number after epoch {bad + 1}."
    elif _is_far_above(c):
        times = float(c.train[-1])
        evidence = f"The training loss is {times:.3g} times that of chance after epoch {c.n}."
    elif _climbs(c):
        low, end = (value * seen.task.chance_loss for value in (c.train.min(), c.train[-1]))
        evidence = f"The training loss fell to {low:.3g}, but has risen to {end:.3g} since."
    else:
        return None
    told, changes = _calm(seen.run)
    return Finding(evidence, f"{told}: the steps are too large.", changes)


FAR_ABOVE = 1.5


def _is_far_above(c: Course) -> bool:
    """Whether the loss went up and away, on the images that are trained on as on the others."""
    last = slice(-2, None) if not c.seen.is_over else slice(-1, None)
    if c.n < 2:
        return c.seen.is_over and min(c.train[-1], c.val[-1]) > 2 * FAR_ABOVE * c.untaught
    level = (FAR_ABOVE if c.train_is_plain else 2 * FAR_ABOVE) * c.untaught
    return bool(min(c.train[last].min(), c.val[last].min()) > level)


def _climbs(c: Course) -> bool:
    """Whether the training loss came down and went up again, for two epochs at least."""
    if c.n < 4 or c.run.freezing.name == "gradual" or not c.train_is_plain:
        return False
    lowest = float(c.train.min())
    return float(c.train[-2:].min()) > max(2 * lowest, lowest + 0.2)


def _chance_level(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.n or not c.is_at_chance or c.n < 3:
        return None
    if not seen.is_over:
        known = max(5, ceil(seen.run.training.epochs / 3)) + seen.run.scheduler.warmup_epochs
        if c.n < known or c.falls_steadily:
            return None
    level = percent(float(c.val.min()))
    evidence = f"After {counted(c.n, 'epoch')} the best validation loss is {level} of that of chance"
    if c.val_accuracy is not None and seen.task.chance_accuracy is not None:
        best, chance = float(c.val_accuracy.max()), seen.task.chance_accuracy
        evidence += f", and the best accuracy {best:.3f}, where always saying one class gives {chance:.3f}"
    told, changes = _leave_chance(c)
    return Finding(f"{evidence}.", f"Nothing was learned yet. {told}.", changes)


def _leave_chance(c: Course) -> tuple[str, tuple[str, ...]]:
    run = c.run
    if c.brake is not None:
        return c.brake
    if _rate_fell(c) is not None:
        return "Let the scheduler reduce the rate more slowly", ("scheduler=cosine",)
    is_dead = (c.seen.dead_units or 0) > DEAD
    if c.falls_steadily and not is_dead:
        return _hasten(run)
    lr = c.effective_lr / (10 if run.optimizer.name == "sgd" else 1)
    is_high = lr > 5 * _usual_lr(run) or is_dead
    return _calm(run) if is_high else _hasten(run)


def _less_decay(run: schema.Run) -> tuple[str, tuple[str, ...]]:
    decay = 1e-4
    return (
        f"Lower the weight decay ({run.optimizer.weight_decay:g} → {decay:g}): too much of it underfits",
        (_value("optimizer.weight_decay", decay),),
    )


def _oscillating(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not seen.is_over:
        return None
    (swing, n_rises), (of_val, _) = _swing(c, c.train), _swing(c, c.val)
    told, changes = _calm(seen.run)
    if _overshoots(c):
        evidence = f"In the first epoch the training loss was {c.train[0]:.3g} times that of chance."
        return Finding(evidence, f"{told}: the first steps are too large.", changes)
    if min(swing, of_val) < SWING or n_rises < 2:
        return None
    worst = float(curve.rises(c.train).max() * seen.task.chance_loss)
    evidence = (
        f"The training loss rose in {n_rises} of {c.n - 1} epochs, by up to {worst:.3g}, "
        f"and ends {percent(float(c.train[-1] / max(1e-12, c.train.min())))} of its best."
    )
    return Finding(evidence, f"{told}: the steps are too large.", changes)


SWING = 0.25
"""Share of upward steps in all movement of the training loss, at a level that matters, in an oscillation."""


def _overshoots(c: Course) -> bool:
    """Whether the first steps led far away from where the network began, which is near chance."""
    is_high = c.train_is_plain and float(c.train[0]) > OVERSHOT * c.untaught
    return is_high and c.brake is None and c.steps_per_epoch >= 5


OVERSHOT = 2.0


def _swing(c: Course, values: Values) -> tuple[float, int]:
    """The share of upward steps in all movement, and how many of them are large."""
    steps = np.diff(values[1:])
    if c.run.freezing.name == "gradual":  # what has just unfrozen may shake the rest
        steps = steps[[(epoch - 1) % (c.run.freezing.every or 1) != 0 for epoch in range(3, c.n + 1)]]
    level, up = float(np.median(values)), np.maximum(steps, 0)
    share = float(up.sum() / max(1e-9, np.abs(steps).sum()))
    by_luck = 3 * level / sqrt(max(1, c.seen.task.n_train))
    return share if level > 0.05 else 0.0, int((up > max(0.05 * level + 0.01, by_luck)).sum())


FEW_STEPS = 250


def _few_steps(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    run, n_steps = seen.run, c.steps_per_epoch
    total = n_steps * c.n
    if not c.n or not c.used_all_epochs or not c.is_finite or total > FEW_STEPS or n_steps > 12:
        return None
    if run.training.batch_size <= 8 or not _has_more_to_learn(c):
        return None
    smaller = _smaller_batch(seen)
    if smaller is None:
        return None
    evidence = (
        f"A batch of {run.training.batch_size} makes {counted(n_steps, 'step')} an epoch, {total:,} in all, "
        f"and the validation loss is still {percent(float(c.val[-1]))} of that of chance."
    )
    return Finding(
        evidence,
        f"Take smaller batches ({run.training.batch_size} → {smaller}): each epoch then has more steps.",
        (f"training.batch_size={smaller}",),
    )


def _smaller_batch(seen: RunRecord) -> int | None:
    """The power of two that gives some 32 steps an epoch, from 8 to 32; None if it is no smaller."""
    fits = 2 ** int(log2(max(8, min(32, seen.task.n_train / 32))))
    return fits if fits < seen.run.training.batch_size else None


def _has_more_to_learn(c: Course) -> bool:
    return float(c.val[-1]) > 0.3 and (c.n < 3 or curve.is_falling(c.val) or c.falls_steadily)


def _too_slow(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not seen.is_over:
        return None
    level = float(c.val[-1])
    if c.brake is not None:
        return None  # more speed would not help
    begun = curve.first_below(c.val, 0.9)
    late = begun is None or begun > 0.25 * c.n
    if _slows_down(c) or _rate_fell(c) is not None:
        return None
    if level < SLOW or not (curve.is_falling(c.val) or c.falls_steadily):
        return None
    if not late and curve.ahead(c.val) < 0.6 * level:
        return None
    evidence = (
        f"The validation loss falls steadily, but after {counted(c.n, 'epoch')} it is still "
        f"{percent(level)} of that of chance."
    )
    told, changes = _hasten(seen.run)
    return Finding(evidence, f"{told}.", changes)


SLOW = 0.3


def _slows_down(c: Course) -> bool:
    """Whether the last quarter of the epochs brought much less than the best one before."""
    if c.n < 8:
        return False
    quarters = [float(part.mean()) for part in np.array_split(c.val, 4)]
    falls = -np.diff(quarters)
    return bool(falls[-1] < 0.3 * falls.max())


def _still_improving(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.n or not c.used_all_epochs or not c.is_finite:
        return None
    n = seen.run.training.epochs
    level = float(curve.last(c.val, 0.1))
    if level < 0.05:
        return None
    if c.n == 1:
        evidence = f"There was one epoch, and the validation loss is {percent(level)} of that of chance."
    else:
        values = np.concatenate([c.train[:1], c.val]) if c.n < 4 and c.train_is_plain else c.val
        drop = curve.fall(values) / level
        if not curve.is_falling(values) or drop < STILL:
            return None
        evidence = (
            f"In the last quarter of {n} epochs the validation loss still fell by "
            f"{percent(drop / (1 + drop))}, to {level * seen.task.chance_loss:.3g}."
        )
    return Finding(evidence, f"Train longer ({n} → {2 * n} epochs).", (f"training.epochs={2 * n}",))


STILL = 0.1


def _overfitting(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not seen.is_over:
        return None
    best = int(np.argmin(curve.smooth(c.val)))
    lowest, end = float(curve.smooth(c.val)[best]), curve.last(c.val)
    train = curve.last(c.train)
    gap = end - train if c.train_is_plain else 0.0
    by_luck = 3 * end / sqrt(max(1, seen.task.n_val))
    is_apart = gap > max(APART, by_luck) and train < 0.5 * end and not curve.is_falling(c.val)
    rise = max(RISE, 2 * curve.noise(c.val))
    if not is_apart and (end - lowest < rise or gap < GAP or curve.is_falling(c.val)):
        return None
    lowest, end, train = (seen.task.chance_loss * value for value in (lowest, end, train))
    evidence = (
        f"Since epoch {best + 1} the validation loss rose from {lowest:.3g} to {end:.3g}, "
        f"while the training loss fell to {train:.3g}."
        if end > 1.02 * lowest
        else f"The training loss fell to {train:.3g}, but the validation loss stays at {end:.3g}."
    )
    told, changes = _regularise(seen)
    return Finding(evidence, told, changes)


RISE, GAP, APART = 0.05, 0.2, 0.3
"""Parts of the loss at chance: how far validation rose, and how far it lies above training."""


def _regularise(seen: RunRecord) -> tuple[str, tuple[str, ...]]:
    run, more = seen.run, []
    stop = ("training.early_stopping.patience=5",) if run.training.early_stopping.patience is None else ()
    if stop:
        more.append("stop when validation no longer improves")
    if run.model.dropout < 0.3 and run.freezing.name != "head":
        told, changes = "Use dropout (0.5)", ["model.dropout=0.5"]
    elif run.augmentation.name == "none" and run.dataset.name != "digits":
        told, changes = "Vary the training images (augmentation)", ["augmentation=light"]
    elif run.optimizer.weight_decay < 1e-2:
        decay = min(1e-2, max(1e-4, 10 * run.optimizer.weight_decay))
        told = f"Use more weight decay ({run.optimizer.weight_decay:g} → {decay:g})"
        changes = [_value("optimizer.weight_decay", decay)]
    elif run.training.batch_size > 16:
        told, changes = "Take smaller batches, which generalise better", ["training.batch_size=16"]
    elif not stop:
        return "More pictures would help most; the weights of the best epoch are kept.", ()
    else:
        told, changes = "", []
    parts = [part for part in (told, *more) if part]
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]}.", (*changes, *stop)


def _underfitting(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not c.is_whole or _rate_fell(c) is not None:
        return None
    level = min(curve.last(c.val), curve.last(c.train)) if c.train_is_plain else curve.last(c.val)
    if c.brake is None:
        if c.train_is_plain and (curve.last(c.train) < 0.6 * curve.last(c.val) or _learns_by_heart(c)):
            return None
        if level < UNDER or curve.fall(c.val) / level > STILL / 2:
            return None
    elif (curve.last(c.train) if c.train_is_plain else level) < BRAKED:
        return None
    evidence = (
        f"Training and validation loss end at {percent(curve.last(c.train))} and "
        f"{percent(curve.last(c.val))} of that of chance."
    )
    told, changes = c.brake or _give_room(seen.run)
    return Finding(evidence, f"{told}.", changes)


UNDER, BRAKED = 0.25, 0.06


def _learns_by_heart(c: Course) -> bool:
    """Whether it still learns the images that it is trained on, which is of no use on others."""
    still = curve.is_falling(c.train) and curve.fall(c.train) > STILL / 2 * curve.last(c.train)
    return still and curve.last(c.val) - curve.last(c.train) > GAP / 2


FILTERS = ([6, 16], [16, 32], [16, 32, 64], [32, 64, 128])


def _give_room(run: schema.Run) -> tuple[str, tuple[str, ...]]:
    """What lets a network learn more, in words and as overrides."""
    if run.optimizer.weight_decay > 1e-3 and run.optimizer.name != "adamw":
        return _less_decay(run)
    if run.augmentation.name in ("strong", "standard"):
        return "Vary the training images less", ("augmentation=light",)
    if run.freezing.name == "head":
        return "Train the last block of the network, too", ("freezing=last_block",)
    if run.freezing.name == "last_block":
        return "Train the whole network", ("freezing=full",)
    return _widen(run) if run.model.source == "sweeper" else ("Try a larger network", ())


def _widen(run: schema.Run) -> tuple[str, tuple[str, ...]]:
    """More filters and units of our own CNN, in words and as overrides."""
    wider = [filters for filters in FILTERS if sum(filters) > sum(run.model.filters)]
    changes = [_quoted("model.filters", wider[0])] if wider else []
    if run.model.hidden_units and min(run.model.hidden_units) < 64:
        changes.append(_quoted("model.hidden_units", [128]))
    return (
        ("Give the network more filters or units", tuple(changes))
        if changes
        else ("Try a larger network", ())
    )


DEAD = 0.5


def _dead_units(seen: RunRecord) -> Finding | None:
    if seen.dead_units is None or seen.dead_units < DEAD or seen.run.model.activation != "relu":
        return None
    evidence = f"{100 * seen.dead_units:.0f} % of the network's units are not activated by any image."
    advice = "Use LeakyReLU, which always passes a gradient"
    changes: tuple[str, ...] = ("model.activation=leaky_relu",)
    c = Course(seen)
    if not c.is_finite:
        return None
    if c.effective_lr / (10 if seen.run.optimizer.name == "sgd" else 1) > 5 * _usual_lr(seen.run):
        told, more = _calm(seen.run)
        advice, changes = f"{advice}. {told}", (*changes, *more)
    return Finding(evidence, f"{advice}.", changes)


def _imbalanced(seen: RunRecord) -> Finding | None:
    counts, loss = seen.task.train_counts, seen.run.loss
    if not counts or not seen.recall or loss.class_weights is not None or loss.pos_weight is not None:
        return None
    if len(seen.recall) != len(counts) or not Course(seen).is_finite:
        return None
    most = max(counts)
    rare = [name for name, n in zip(seen.recall, counts, strict=True) if _is_rare(n, most)]
    common = [name for name in seen.recall if name not in rare]
    if not rare:
        return None
    recall = {name: value for name, value in seen.recall.items() if value is not None}
    found = {name: recall[name] for name in rare if name in recall}
    others = mean([recall[name] for name in common if name in recall] or [0])
    if not found or mean(found.values()) > others - NEGLECTED:
        return None
    worst = min(found, key=lambda name: found[name])
    n_worst = counts[list(seen.recall).index(worst)]
    evidence = (
        f"The classes have {min(counts):,} to {most:,} training images; of {worst} ({n_worst:,}) "
        f"{percent(found[worst])} are recognised, of the common ones {percent(others)}."
    )
    key = "pos_weight" if seen.task.multi_label else "class_weights"
    return Finding(evidence, "Weigh rare classes more in the loss.", (f"loss.{key}=balanced",))


UNEQUAL, NEGLECTED = 4, 0.15


def _is_rare(n: int, most: int) -> bool:
    """Whether a class has so much fewer images than the largest that it cannot be by chance."""
    return n <= most / UNEQUAL and most - n > 3 * sqrt(most + n)


def _memory_bound(seen: RunRecord) -> Finding | None:
    run, batch = seen.run, seen.run.training.batch_size
    if seen.gpu_memory_mb is None or not seen.history:
        return None
    used = max(row["peak_memory_mb"] for row in seen.history) / seen.gpu_memory_mb
    if seen.micro_batch_size is not None and seen.micro_batch_size < batch:
        evidence = (
            f"A batch of {batch} did not fit the GPU's {seen.gpu_memory_mb:,.0f} MB: "
            f"{seen.micro_batch_size} images went through at once."
        )
    elif used > FULL:
        evidence = f"Training took {100 * used:.0f} % of the GPU's {seen.gpu_memory_mb:,.0f} MB."
    else:
        return None
    if run.training.precision == "float32":
        return Finding(
            evidence, "Compute in bfloat16, which takes half of it.", ("training.precision=bfloat16",)
        )
    if batch < 2:
        return Finding(evidence, "Take smaller images or a smaller network.")
    return Finding(
        evidence, f"Take smaller batches ({batch} → {batch // 2}).", (f"training.batch_size={batch // 2}",)
    )


FULL = 0.9


def _rate_fell(c: Course) -> int | None:
    """The epoch in which a scheduler left a twentieth of the rate or less, with much still to be learned."""
    if c.run.scheduler.name not in ("step", "plateau") or curve.last(c.val) < 0.2:
        return None
    small = [row["epoch"] for row in c.seen.history if row["lr"] < 0.05 * c.run.optimizer.lr]
    small = [epoch for epoch in small if epoch > c.run.scheduler.warmup_epochs]
    return int(small[0]) if small and small[0] <= 0.6 * c.n else None


def _plateaued(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.is_whole or not c.is_finite or c.n < 8:
        return None
    run = seen.run
    learned = max(1e-9, float(c.val[0]) - float(c.val.min()))
    since = curve.flat_since(c.val, max(2 * curve.noise(c.val), 0.02 * learned, 0.02 * float(c.val.min())))
    n_flat = c.n - since
    early = _rate_fell(c)
    if c.n < run.training.epochs and early is None:
        return None  # early stopping did what is advised
    if run.training.early_stopping.patience is not None and curve.last(c.val) < 0.1:
        return None  # nearly all is learned, and it would have stopped
    if n_flat < (3 if early else max(6, 0.5 * c.n)):
        return None
    evidence = (
        f"The validation loss has been flat since epoch {since} of {c.n}, at "
        f"{curve.last(c.val) * seen.task.chance_loss:.3g}."
    )
    advice, changes = [], []
    if early is not None:
        advice.append(
            f"The scheduler had all but stopped learning in epoch {early}: let the rate fall more slowly"
        )
        changes.append("scheduler=cosine")
    elif run.scheduler.name == "none":
        advice.append("Reduce the learning rate on plateau")
        changes.append("scheduler=plateau")
    if run.training.early_stopping.patience is None:
        advice.append("stop early" if advice else "Stop early")
        changes.append("training.early_stopping.patience=5")
    if not changes:
        return None
    return Finding(evidence, f"{', and '.join(advice)}.", tuple(changes))


# ------------------------------------------------------------------------------------------------ table

RULES: tuple[Rule[RunRecord], ...] = (
    Rule(
        "diverged",
        "The loss grew instead of falling, up to numbers that a computer cannot hold: each step overshoots.",
        "Lower the learning rate, or the momentum.",
        CNN_GUIDE,
        _diverged,
    ),
    Rule(
        "chance_level",
        "The network does no better than somebody who has not seen the pictures.",
        "Lower the learning rate if the loss jumps, raise it if it creeps.",
        CNN_GUIDE,
        _chance_level,
    ),
    Rule(
        "oscillating",
        "The training loss goes up and down instead of falling: the steps are too large.",
        "Lower the learning rate, or the momentum.",
        CNN_GUIDE,
        _oscillating,
    ),
    Rule(
        "few_steps",
        "Large batches leave few steps in an epoch, so that the network hardly moves.",
        "Take smaller batches, or a higher learning rate.",
        CNN_GUIDE,
        _few_steps,
    ),
    Rule(
        "too_slow",
        "The loss falls, but so slowly that it would take many times as many epochs.",
        "Raise the learning rate (0.001 → 0.01), or try Adam.",
        CNN_GUIDE,
        _too_slow,
    ),
    Rule(
        "still_improving",
        "The validation loss was still falling when the epochs ran out.",
        "Train longer: 10, 20, 30 epochs.",
        CNN_GUIDE,
        _still_improving,
    ),
    Rule(
        "overfitting",
        "The network learns its training pictures by heart: on others it becomes worse.",
        "Dropout, weight decay, augmentation, smaller batches, early stopping.",
        TRANSFER_GUIDE,
        _overfitting,
    ),
    Rule(
        "underfitting",
        "The network cannot even learn its training pictures.",
        "Less weight decay, more filters, more of a pretrained network.",
        CNN_GUIDE,
        _underfitting,
    ),
    Rule(
        "dead_units",
        "Many units of the network never answer, whatever the picture, and so cannot learn any more.",
        "LeakyReLU, and a lower learning rate.",
        CNN_GUIDE,
        _dead_units,
    ),
    Rule(
        "imbalanced",
        "Some classes have far fewer pictures than others, and the network neglects them.",
        "Class weights in the loss.",
        TRANSFER_GUIDE,
        _imbalanced,
    ),
    Rule(
        "memory_bound",
        "The GPU's memory is full, so that batches are split or nearly did not fit.",
        "Smaller batches, half the precision, smaller images.",
        TRANSFER_GUIDE,
        _memory_bound,
    ),
    Rule(
        "plateaued",
        "Validation stopped improving long before the end.",
        "Early stopping; reduce the learning rate on plateau.",
        TRANSFER_GUIDE,
        _plateaued,
    ),
)
"""The rules, the most helpful first."""

_OF_CURVES = frozenset(
    {
        *("chance_level", "oscillating", "few_steps", "too_slow", "still_improving", "overfitting"),
        *("underfitting", "plateaued"),
    }
)
SILENCES: dict[str, frozenset[str]] = {
    "diverged": _OF_CURVES | {"imbalanced"},
    "chance_level": _OF_CURVES - {"chance_level", "few_steps"} | {"imbalanced"},
    "oscillating": frozenset({"still_improving", "underfitting", "plateaued", "too_slow", "few_steps"}),
    "few_steps": frozenset({"too_slow", "still_improving", "underfitting", "plateaued"}),
    "too_slow": frozenset({"still_improving", "underfitting", "plateaued"}),
    "still_improving": frozenset({"plateaued"}),
    "overfitting": frozenset({"underfitting", "plateaued"}),
    "underfitting": frozenset({"plateaued", "still_improving"}),
}
"""What a sign explains, and so keeps from being told besides."""

LIVE = frozenset({"diverged", "chance_level"})
"""The signs that can be told while training goes on."""


def signs_of(seen: RunRecord) -> list[Sign]:
    """The signs of a run, the most helpful first."""
    rules = [rule for rule in RULES if seen.is_over or rule.sign in LIVE]
    found = {rule.sign: finding for rule in rules if (finding := rule.read(seen)) is not None}
    silent = set[str]().union(*(SILENCES.get(name, frozenset()) for name in found))
    return [
        Sign(
            name,
            finding.evidence,
            finding.advice,
            " ".join([seen.again, *finding.changes]) if finding.changes else None,
        )
        for name, finding in found.items()
        if name not in silent
    ]
