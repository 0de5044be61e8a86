"""The course of a run: what its curves show, in units of its task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, log, sqrt

import numpy as np

from sweeper import schema
from sweeper.results import curve
from sweeper.results.curve import Values
from sweeper.results.run_record import RunRecord

AT_CHANCE, SURELY_AT_CHANCE = 0.975, 0.985
"""Part of the loss at chance above which nothing was learned; the second one while it falls steadily."""

BY_HEART = 0.05
"""Part of the loss at chance below which the training images are known by heart."""

FAR_ABOVE = 1.5

WITH_MOMENTUM = ("sgd", "rmsprop")


def usual_lr(run: schema.Run) -> float:
    """A rate that nearly always trains with Adam: the upper end of what the guides give pretrained layers."""
    return 1e-4 if run.freezing.name in ("full", "gradual", "last_block") else 1e-3


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
        of_few = 0.1 / sqrt(max(1, task.n_val))  # the classes of few images are not as frequent as in train
        if curve.last(self.val) < (SURELY_AT_CHANCE if self.falls_steadily else AT_CHANCE) - of_few:
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
    def speed(self) -> float:
        """The learning rate as a part of the usual one, momentum included; of SGD that is 0.01 with 0.9."""
        optimizer = self.run.optimizer
        momentum = optimizer.momentum or 0.0 if optimizer.name in WITH_MOMENTUM else 0.0
        effective = optimizer.lr / max(1e-4, 1 - momentum)
        return effective / (100 if optimizer.name == "sgd" else 1) / usual_lr(self.run)

    @property
    def is_regularised(self) -> bool:
        """Whether anything keeps the network from learning its images by heart."""
        return self.run.model.dropout >= 0.3 or self.run.augmentation.name != "none"

    @property
    def is_learned_by_heart(self) -> bool:
        """Whether nothing is left to be learned from the training images, but much from others."""
        if not self.train_is_plain or self.is_regularised:
            return False
        train, val = curve.last(self.train), curve.last(self.val)
        return train < BY_HEART and val > max(2 * BY_HEART, 5 * train)

    @property
    def learns_by_heart(self) -> bool:
        """Whether it still learns the images that it is trained on, which is of no use on others."""
        still = curve.is_falling(self.train) and curve.fall(self.train) > 0.05 * curve.last(self.train)
        return still and curve.last(self.val) - curve.last(self.train) > 0.1

    @property
    def is_far_above(self) -> bool:
        """Whether the loss went up and away, on the images that are trained on as on the others."""
        last = slice(-2, None) if not self.seen.is_over else slice(-1, None)
        if self.n < 2:
            return self.seen.is_over and min(self.train[-1], self.val[-1]) > 2 * FAR_ABOVE * self.untaught
        level = (FAR_ABOVE if self.train_is_plain else 2 * FAR_ABOVE) * self.untaught
        return bool(min(self.train[last].min(), self.val[last].min()) > level)

    @property
    def climbs(self) -> bool:
        """Whether the training loss came down and went up again, for two epochs at least."""
        if self.n < 4 or self.run.freezing.name == "gradual" or not self.train_is_plain:
            return False
        lowest = float(self.train.min())
        return float(self.train[-2:].min()) > max(2 * lowest, lowest + 0.2)

    @property
    def overshoots(self) -> bool:
        """Whether the first steps led far away from where the network began.

        Our own CNN begins with all classes alike; the new head of a pretrained network may begin above.
        """
        is_own = self.run.model.source == "sweeper" and self.run.augmentation.name == "none"
        far = (1.1 if is_own else 2.0) * self.untaught
        return self.train_is_plain and self.steps_per_epoch >= 5 and float(self.train[0]) > far

    def swing(self, values: Values) -> tuple[float, int]:
        """The share of upward steps in all movement, and how many of them are large."""
        steps = np.diff(values[1:])
        if self.run.freezing.name == "gradual":  # what has just unfrozen may shake the rest
            steps = steps[
                [(epoch - 1) % (self.run.freezing.every or 1) != 0 for epoch in range(3, self.n + 1)]
            ]
        level, up = float(np.median(values)), np.maximum(steps, 0)
        share = float(up.sum() / max(1e-9, np.abs(steps).sum()))
        by_luck = 3 * level / sqrt(max(1, self.seen.task.n_train))
        return share if level > 0.05 else 0.0, int((up > max(0.05 * level + 0.01, by_luck)).sum())

    @property
    def has_more_to_learn(self) -> bool:
        """Whether the loss still falls, and is not only what is left at the end of a training."""
        if self.train_is_plain and curve.last(self.train) < 2 * BY_HEART:
            return False
        few = self.n * self.steps_per_epoch <= 32  # one epoch of 1,000 images in usual batches
        falls = self.n < 3 or curve.is_falling(self.val) or self.falls_steadily
        return falls and float(self.val[-1]) > (0.1 if few else 0.3)

    @property
    def slows_down(self) -> bool:
        """Whether the last quarter of the epochs brought much less than the best one before."""
        if self.n < 8:
            return False
        quarters = [float(part.mean()) for part in np.array_split(self.val, 4)]
        falls = -np.diff(quarters)
        return bool(falls[-1] < 0.3 * falls.max())

    @property
    def rate_fell(self) -> int | None:
        """The epoch in which a scheduler left a twentieth of the rate, with much still to be learned."""
        run = self.run
        if run.scheduler.name not in ("step", "plateau") or curve.last(self.val) < 0.2:
            return None
        small = [row["epoch"] for row in self.seen.history if row["lr"] < 0.05 * run.optimizer.lr]
        small = [epoch for epoch in small if epoch > run.scheduler.warmup_epochs]
        return int(small[0]) if small and small[0] <= 0.6 * self.n else None
