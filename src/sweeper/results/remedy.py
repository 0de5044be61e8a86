"""What to change about a run next: each remedy in words, and as overrides that are typed in a shell.

No two of them undo each other: a rate is raised only up to the usual one or little more, and lowered no
further than to it; weight decay is raised only up to where it is never lowered.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2

from sweeper import schema
from sweeper.results import curve
from sweeper.results.course import AT_CHANCE, WITH_MOMENTUM, Course
from sweeper.results.run_record import RunRecord

Remedy = tuple[str, tuple[str, ...]]

DEAD = 0.47
"""Share of units that no image activates, from which on it is too many; healthy networks have up to 0.41."""

FILTERS = ([6, 16], [16, 32], [16, 32, 64], [32, 64, 128])

MOST_SPEED = 3.0
"""How many times the usual rate is advised at most."""


def brake(c: Course) -> Remedy | None:
    """What holds the network back from learning, by its settings."""
    run = c.run
    most = 1.0 if run.optimizer.name == "adamw" else 0.01  # adamw's bounds the weights by its inverse
    if run.optimizer.weight_decay > most:
        return less_decay(run)
    if run.model.dropout > 0.7:
        return f"Lower the dropout ({run.model.dropout:g} → 0.5)", ("model.dropout=0.5",)
    model, narrowest = run.model, min(run.model.hidden_units, default=None)
    if model.source == "sweeper":
        is_narrow = narrowest is not None and narrowest < c.seen.task.n_classes
        if is_narrow or max(model.filters) < min(max(filters) for filters in FILTERS) / 4:
            return widen(run)
    if run.augmentation.name == "strong" and c.n and c.train_is_plain and c.speed > 0.1:
        train, val = curve.last(c.train), curve.last(c.val)
        hard, apart = 0.7 if c.n >= 8 else AT_CHANCE, train / max(1e-9, val)
        if (
            train > AT_CHANCE
            or (train > hard and apart > 1.2)
            or (apart > 1.5 and not curve.is_falling(c.val))
        ):
            return "Vary the training images less", ("augmentation=light",)
    return None


def _value(key: str, value: float) -> str:
    return f"{key}={value:.3g}"


def _quoted(key: str, values: list[int]) -> str:
    return f"'{key}=[{','.join(map(str, values))}]'"


def _lower_lr(c: Course) -> tuple[str, ...]:
    """A tenth of the rate, though not below the usual one; of that or less a third."""
    run = c.run
    usual = run.optimizer.lr / c.speed
    lr = run.optimizer.lr / 3 if c.speed <= 1.1 else min(max(run.optimizer.lr / 10, usual), 3 * usual)
    lr = max(lr, 1e-12)
    keeps = run.scheduler.eta_min <= lr or run.scheduler.name != "cosine"
    return (_value("optimizer.lr", lr), *(() if keeps else ("scheduler.eta_min=0",)))


def calm(c: Course) -> Remedy:
    """What makes steps smaller."""
    run = c.run
    momentum = run.optimizer.momentum or 0.0
    lr = run.optimizer.lr
    if run.optimizer.name not in WITH_MOMENTUM or momentum <= 0.95:
        changes = _lower_lr(c)
        return f"Lower the learning rate ({lr:g} → {changes[0].partition('=')[2]})", changes
    told, change = f"momentum ({momentum:g} → 0.9)", "optimizer.momentum=0.9"
    calmer = Course(replace(c.seen, run=replace(run, optimizer=replace(run.optimizer, momentum=0.9))))
    if calmer.speed <= 2 * MOST_SPEED:
        return f"Lower the {told}", (change,)
    changes = _lower_lr(calmer)
    rates = f"({lr:g} → {changes[0].partition('=')[2]})"
    return f"Lower the learning rate {rates} and the {told}", (*changes, change)


def hasten(c: Course) -> Remedy:
    """What makes training faster."""
    run = c.run
    if run.scheduler.warmup_epochs > 0.3 * run.training.epochs:
        return "Shorten the warm-up, in which the rate only grows", ("scheduler.warmup_epochs=0",)
    if run.optimizer.name == "sgd" and (run.optimizer.momentum or 0) < 0.8:
        return "Give the optimizer its usual momentum", ("optimizer.momentum=0.9",)
    if run.optimizer.name == "sgd" and c.speed > 1.1:
        return "Try Adam, which sets its own step sizes", ("optimizer=adam",)
    if c.speed > 1.1:
        n = run.training.epochs
        return f"Train longer ({n} → {2 * n} epochs)", longer(run)
    usual = run.optimizer.lr / c.speed
    lr = min(max(run.optimizer.lr * 10, usual / 10), MOST_SPEED * usual, schema.MAX_LR)
    other = "" if run.optimizer.name.startswith("adam") else ", or try Adam"
    return f"Raise the learning rate ({run.optimizer.lr:g} → {lr:.3g}){other}", (_value("optimizer.lr", lr),)


def longer(run: schema.Run) -> tuple[str, ...]:
    """Twice the epochs; a cosine of so many epochs would rise again."""
    fixed = run.scheduler.name == "cosine" and run.scheduler.t_max is not None
    return (f"training.epochs={2 * run.training.epochs}", *(["scheduler.t_max=null"] if fixed else []))


def leave_chance(c: Course) -> Remedy:
    """What lets a network learn that learned nothing so far."""
    if (held := brake(c)) is not None:
        return held
    if c.rate_fell is not None:
        return "Let the scheduler reduce the rate more slowly", ("scheduler=cosine",)
    is_dead = (c.seen.dead_units or 0) > DEAD
    if c.falls_steadily and c.speed <= 5 and not is_dead:
        return hasten(c)
    return calm(c) if c.speed > 5 or is_dead else hasten(c)


def less_decay(run: schema.Run) -> Remedy:
    decay = 1e-4
    return (
        f"Lower the weight decay ({run.optimizer.weight_decay:g} → {decay:g}): too much of it underfits",
        (_value("optimizer.weight_decay", decay),),
    )


def smaller_batch(seen: RunRecord) -> int | None:
    """The power of two that gives some 32 steps an epoch, from 8 to 32; None if it is no smaller."""
    fits = 2 ** int(log2(max(8, min(32, seen.task.n_train / 32))))
    return fits if fits < seen.run.training.batch_size else None


def regularise(seen: RunRecord) -> Remedy:
    run, more = seen.run, []
    stop = ("training.early_stopping.patience=5",) if run.training.early_stopping.patience is None else ()
    if stop:
        more.append("stop when validation no longer improves")
    may_drop = run.model.source != "custom" and (run.model.source != "sweeper" or run.model.hidden_units)
    if run.model.dropout < 0.3 and run.freezing.name != "head" and may_drop:
        told, changes = "Use dropout (0.5)", ["model.dropout=0.5"]
    elif run.augmentation.name == "none" and run.dataset.name != "digits":
        told, changes = "Vary the training images (augmentation)", ["augmentation=light"]
    elif run.optimizer.weight_decay < (most := 1e-2 if run.optimizer.name == "adamw" else 1e-3):
        decay = min(most, max(1e-4, 10 * run.optimizer.weight_decay))
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


def give_room(run: schema.Run) -> Remedy:
    """What lets a network learn more, in words and as overrides."""
    if run.optimizer.weight_decay > 1e-3 and run.optimizer.name != "adamw":
        return less_decay(run)
    if run.augmentation.name in ("strong", "standard"):
        return "Vary the training images less", ("augmentation=light",)
    if run.freezing.name == "head":
        return "Train the last block of the network, too", ("freezing=last_block",)
    if run.freezing.name == "last_block":
        return "Train the whole network", ("freezing=full",)
    return widen(run) if run.model.source == "sweeper" else ("Try a larger network", ())


def widen(run: schema.Run) -> Remedy:
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
