"""The signs of one run: rules that read its curves.

Thresholds are relative: losses are parts of the loss at chance, and changes are compared with the noise of
the curve itself. ``benchmarks/signs.py`` measures them.
"""

from __future__ import annotations

from math import ceil, isfinite, sqrt
from statistics import mean

import numpy as np

from sweeper.results import curve, remedy
from sweeper.results.course import Course
from sweeper.results.run_record import RunRecord
from sweeper.results.sign import AT_ONCE, Finding, Rule, Sign
from sweeper.results.sign import found as findings
from sweeper.words import counted

CNN_GUIDE = "guide to small CNNs"
TRANSFER_GUIDE = "guide to transfer learning"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


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
    elif c.is_far_above:
        times = float(c.train[-1])
        evidence = f"The training loss is {times:.3g} times that of chance after epoch {c.n}."
    elif c.climbs:
        low, end = (value * seen.task.chance_loss for value in (c.train.min(), c.train[-1]))
        evidence = f"The training loss fell to {low:.3g}, but has risen to {end:.3g} since."
    else:
        return None
    told, changes = remedy.calm(c)
    return Finding(evidence, f"{told}: the steps are too large.", changes)


def _chance_level(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.n or not c.is_at_chance or c.n < 3:
        return None
    if not seen.is_over:
        known = max(5, ceil(seen.run.training.epochs / 3)) + seen.run.scheduler.warmup_epochs
        if c.n < known or c.falls_steadily:
            return None
    elif not c.is_whole and c.n < 3 + seen.run.scheduler.warmup_epochs:
        return None  # it was pruned before it could show anything
    level = percent(float(c.val.min()))
    evidence = f"After {counted(c.n, 'epoch')} the best validation loss is {level} of that of chance"
    if c.val_accuracy is not None and seen.task.chance_accuracy is not None:
        best, chance = float(c.val_accuracy.max()), seen.task.chance_accuracy
        evidence += f", and the best accuracy {best:.3f}, where always saying one class gives {chance:.3f}"
    told, changes = remedy.leave_chance(c)
    return Finding(f"{evidence}.", f"Nothing was learned yet. {told}.", changes)


def _oscillating(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not seen.is_over:
        return None
    (swing, n_rises), (of_val, _) = c.swing(c.train), c.swing(c.val)
    told, changes = remedy.calm(c)
    if c.overshoots and remedy.brake(c) is None:
        evidence = f"In the first epoch the training loss was {c.train[0]:.3g} times that of chance."
        return Finding(evidence, f"{told}: the first steps are too large.", changes)
    if min(swing, of_val) < SWING or n_rises < 2:
        return None
    worst = float(curve.rises(c.train).max() * seen.task.chance_loss)
    evidence = (
        f"The training loss rose in {n_rises} of {c.n - 1} epochs, by up to {worst:.3g}, "
        f"and ends at {percent(float(c.train[-1] / max(1e-12, c.train.min())))} of its best."
    )
    return Finding(evidence, f"{told}: the steps are too large.", changes)


SWING = 0.25
"""Share of upward steps in all movement of the training loss, at a level that matters, in an oscillation."""


FEW_STEPS = 250


def _few_steps(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    run, n_steps = seen.run, c.steps_per_epoch
    total = n_steps * c.n
    if not c.n or not c.used_all_epochs or not c.is_finite or total > FEW_STEPS or n_steps > 12:
        return None
    if run.training.batch_size <= 8 or not c.has_more_to_learn or c.speed < SLOW_RATE:
        return None
    smaller = remedy.smaller_batch(seen)
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


def _too_slow(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 3 or not c.is_finite or not seen.is_over or remedy.brake(c) is not None:
        return None  # against a brake more speed would not help
    level, is_slow_rate = float(c.val[-1]), c.speed < SLOW_RATE
    if c.rate_fell is not None:
        return None
    if not (is_slow_rate and level > BEGUN):  # else it has hardly begun, whatever its course
        falls = curve.is_falling(c.val) or c.falls_steadily
        if c.n < 4 or c.slows_down or not falls or level < (SLOW / 2 if is_slow_rate else SLOW):
            return None
        if not c.used_all_epochs and not is_slow_rate:
            return None  # it stopped because validation did not improve
        begun = curve.first_below(c.val, BEGUN)
        late = begun is None or begun > 0.25 * c.n
        if not late and not is_slow_rate and curve.ahead(c.val) < 0.6 * level:
            return None
    falls_told = "falls steadily" if c.falls_steadily else "hardly falls"
    evidence = (
        f"The validation loss {falls_told}, but after {counted(c.n, 'epoch')} it is still "
        f"{percent(level)} of that of chance."
    )
    told, changes = remedy.hasten(c)
    return Finding(evidence, f"{told}.", changes)


BEGUN = 0.9
"""Part of the loss at chance below which learning has begun."""

SLOW_RATE = 0.04
"""Part of the usual learning rate below which slowness is blamed on it."""

SLOW = 0.3


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
        if not curve.is_falling(values) or drop < STILL * min(1, c.n / 8):
            return None
        when = "In the last epoch" if c.n < 8 else f"In the last quarter of {n} epochs"
        evidence = (
            f"{when} the validation loss still fell by "
            f"{percent(drop / (1 + drop))}, to {level * seen.task.chance_loss:.3g}."
        )
    return Finding(evidence, f"Train longer ({n} → {2 * n} epochs).", remedy.longer(seen.run))


STILL = 0.1


def _overfitting(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not seen.is_over or (c.overshoots and c.val[-1] > 1):
        return None
    best = int(np.argmin(curve.smooth(c.val)))
    lowest, end = float(curve.smooth(c.val)[best]), curve.last(c.val)
    train = curve.last(c.train)
    if not c.is_learned_by_heart:
        gap = end - train if c.train_is_plain else 0.0
        if gap < 3 * end / sqrt(max(1, seen.task.n_val)) or curve.is_falling(c.val):
            return None
        rise = max(RISE, 2 * curve.noise(c.val))
        is_apart = gap > APART and train < 0.5 * end
        if not is_apart and (end - lowest < rise or gap < GAP):
            return None
    lowest, end, train = (seen.task.chance_loss * value for value in (lowest, end, train))
    evidence = (
        f"Since epoch {best + 1} the validation loss rose from {lowest:.3g} to {end:.3g}, "
        f"while the training loss fell to {train:.3g}."
        if end > 1.02 * lowest
        else f"The training loss fell to {train:.3g}, but the validation loss stays at {end:.3g}."
    )
    told, changes = remedy.regularise(seen)
    return Finding(evidence, told, changes)


RISE, GAP, APART = 0.05, 0.2, 0.3
"""Parts of the loss at chance: how far validation rose, and how far it lies above training."""


def _underfitting(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if c.n < 4 or not c.is_finite or not c.is_whole or c.rate_fell is not None:
        return None
    level = min(curve.last(c.val), curve.last(c.train)) if c.train_is_plain else curve.last(c.val)
    held = remedy.brake(c)
    if held is None:
        if c.train_is_plain and (curve.last(c.train) < 0.6 * curve.last(c.val) or c.learns_by_heart):
            return None
        if c.speed < SLOW_RATE or level < UNDER or curve.fall(c.val) / level > STILL / 2:
            return None
    elif (curve.last(c.train) if c.train_is_plain else level) < BRAKED:
        return None
    evidence = (
        f"Training and validation loss end at {percent(curve.last(c.train))} and "
        f"{percent(curve.last(c.val))} of that of chance."
    )
    told, changes = held or remedy.give_room(seen.run)
    return Finding(evidence, f"{told}.", changes)


UNDER, BRAKED = 0.25, 0.06


def _dead_units(seen: RunRecord) -> Finding | None:
    if seen.dead_units is None or seen.dead_units < remedy.DEAD or seen.run.model.activation != "relu":
        return None
    evidence = f"{100 * seen.dead_units:.0f}% of the network's units are not activated by any image."
    advice = "Use LeakyReLU, which always passes a gradient"
    changes: tuple[str, ...] = ("model.activation=leaky_relu",)
    c = Course(seen)
    if not c.is_finite:
        return None
    if c.speed > 5:
        told, more = remedy.calm(c)
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
        evidence = f"Training took {100 * used:.0f}% of the GPU's {seen.gpu_memory_mb:,.0f} MB."
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


def _plateaued(seen: RunRecord) -> Finding | None:
    c = Course(seen)
    if not c.is_whole or not c.is_finite or c.n < 8:
        return None
    run = seen.run
    learned = max(1e-9, float(c.val[0]) - float(c.val.min()))
    since = curve.flat_since(c.val, max(2 * curve.noise(c.val), 0.02 * learned, 0.02 * float(c.val.min())))
    n_flat = c.n - since
    early = c.rate_fell
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
    "few_steps": frozenset({"too_slow", "underfitting", "plateaued"}),
    "too_slow": frozenset({"still_improving", "underfitting", "plateaued"}),
    "still_improving": frozenset({"plateaued"}),
    "overfitting": frozenset({"underfitting", "plateaued", "still_improving"}),
    "underfitting": frozenset({"plateaued", "still_improving"}),
}
"""What a sign explains, and so keeps from being told besides."""


def signs_of(seen: RunRecord) -> list[Sign]:
    """The signs of a run, the most helpful first."""
    rules = [rule for rule in RULES if seen.is_over or rule.sign in AT_ONCE]
    found = {rule.sign: finding for rule, finding in findings(rules, seen)}
    told = list[str]()
    for name in found:  # what is itself explained by another one explains nothing
        if not any(name in SILENCES.get(one, frozenset()) for one in told):
            told.append(name)
    silent = set(found).difference(told).union(*(SILENCES.get(name, frozenset()) for name in told))
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
