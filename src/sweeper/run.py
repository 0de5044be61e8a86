"""One composed config → objects → ``fit`` → a score. The Hydra task function; below it there is no config."""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from math import isfinite, nan
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sweeper import caller, check, environment, filesystem, provenance, saved, schema
from sweeper.caller import Ended
from sweeper.card import ONE, SEVERAL, Card, Network
from sweeper.errors import BadInput
from sweeper.fault import Fault
from sweeper.record.run_files import PER_CLASS, RunFiles, remove_refused_run
from sweeper.record.study_files import StudyFiles
from sweeper.results import run_sign, sign
from sweeper.results.run_record import RunRecord, Task
from sweeper.results.sign import Sign
from sweeper.screen import log_any_name
from sweeper.search.trial import Trial, trial
from sweeper.words import expanded

if TYPE_CHECKING:
    from torch import Tensor

    from sweeper.training.data import Data
    from sweeper.training.fit import Epoch, Fitted
    from sweeper.training.summary import Summary


log = logging.getLogger(__name__)


class Observer:
    """Is told how a run goes, for people to see; this one shows nothing."""

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def found(self, summary: Summary) -> None: ...

    def epoch(self, epoch: Epoch) -> None: ...

    def sign(self, sign: Sign) -> None:
        """Told at once, while training goes on; those of the end are in ``signs.json``."""

    def result(self, result: dict[str, Any], folder: Path) -> None: ...


def main(
    config: DictConfig, observe: Callable[[schema.Run], Observer] = lambda run: Observer()
) -> float | list[float]:
    """Train once, as a trial of a sweep or alone.

    Writes ``trial.yaml``, ``history.csv``, ``result.json``, ``weights.safetensors`` and
    ``model.json`` into Hydra's output folder.

    Returns:
        the value of ``objective`` after the best epoch; a list if there are several.
    """
    from hydra.core.hydra_config import HydraConfig

    log_any_name()
    current = trial()
    folder = Path(HydraConfig.get().runtime.output_dir)
    if current.number is None:
        caller.say(run=str(folder))
    try:
        run = check.to_run(config)
        return train(run, folder, current, observe(run))
    except (BadInput, Fault) as error:
        if current.number is not None:
            raise
        if isinstance(error, BadInput):
            remove_refused_run(folder, HydraConfig.get().job.name)
        caller.print_last(str(error))
        raise Ended(error) from None  # not an Exception: Hydra would print more about that


def train(
    run: schema.Run, folder: Path, current: Trial, observer: Observer | None = None
) -> float | list[float]:
    """Train, report each epoch to ``current``, and leave the files of one run in ``folder``."""
    _import_libraries()
    from sweeper.training import data
    from sweeper.training.machine import resolve_device

    saved.named_by_command(run.model)
    for warning in [*schema.unread_path(run), *schema.without_effect(run)]:
        log.warning(warning)
    observer = observer or Observer()
    run, files = settle(run, current), RunFiles(folder)
    loaded = data.load(run.dataset, resolve_device(run.device))
    schema.check_task(run, len(loaded.classes), loaded.multi_label)
    schema.check_defined(run, *_counts(loaded.val_y, loaded), loaded.multi_label)
    _warn_of_undefined(run, loaded, "val")
    if current.number is None:  # a search has told and asked before it started
        _tell(loaded, observer)
        shape = (loaded.channels, loaded.side, len(loaded.classes))
        check.check_model(run.model, shape, Path.cwd())
        if loaded.held_out is not None and (told := provenance.remark(run, loaded.held_out)):
            log.warning(told)
    with files.held_alone() if current.number is None else nullcontext():
        return _train_into(files, run, loaded, current, observer)


def _tell(loaded: Data, observer: Observer) -> None:
    """Show what was found, and keep it in the log."""
    if loaded.summary is None:
        return
    from sweeper.training.summary import lines

    observer.found(loaded.summary)
    told = "\n".join(lines(loaded.summary))
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, told, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):  # the terminal has it without time and name
            handler.handle(record)


def _train_into(
    files: RunFiles, run: schema.Run, loaded: Data, current: Trial, observer: Observer
) -> float | list[float]:
    from sweeper.training.fit import fit
    from sweeper.training.step import with_micro_batch_size

    files.mark()
    files.forget_predictions()
    filesystem.write_whole(files.config, saved.to_yaml(run))
    filesystem.write_json(files.environment, environment.environment(run, loaded.fingerprint))
    digests = loaded.train_digests
    trained_on = None if digests is None else provenance.trained_on(run, digests)
    rows: list[dict[str, Any]] = []
    seen = RunRecord(run, rows, task_of(loaded), is_over=False, again=saved.command(files.config, run.model))
    told: list[str] = []

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == 1:  # also where a batch did not fit, and training began again
            rows.clear()
            told.clear()
            if (smaller := with_micro_batch_size(run)) != run:
                filesystem.write_whole(files.config, saved.to_yaml(smaller))
        rows.append(epoch.row())
        files.write_history(rows)
        show.epoch(epoch)
        for new in [each for each in run_sign.signs_of(seen) if each.sign not in told]:
            told.append(new.sign)
            current.set_user_attr("signs", told)
            show.sign(new)
        current.report(nan if epoch.diverged else _scores(run, rows, epoch.epoch)[0], epoch.epoch)

    try:
        with observer as show:
            fitted = fit(run, loaded, on_epoch)
    except Exception as error:  # pruned, or something broke: what was measured is kept
        if rows:
            _write_result(files, run, rows, len(rows), type(error).__name__, current, seen.task)
            _write_signs(files, replace(seen, is_over=True, was_cut=True), current, told)
        raise
    ending = "diverged" if fitted.diverged else "early stopping" if fitted.stopped_early else "all epochs"
    result = _write_result(files, run, rows, fitted.best_epoch, ending, current, seen.task, fitted)
    _write_signs(files, _over(seen, fitted, loaded), current, told)
    card = _write_weights(files, run, loaded, fitted, result)
    if trained_on is not None:
        files.write_trained_on(trained_on)
    if run.training.keep_logits and not fitted.diverged:
        _write_val_logits(files, fitted.val_logits, loaded)
    if current.number is None:
        result = _tested(fitted.model, run, loaded, result)
        filesystem.write_json(files.result, result)
        replace(card, scores=_card_scores(result)).write(files)
        show.result(result, files.folder)
        _write_predictions(files, fitted.val_logits, loaded)
    scores = [nan] if fitted.diverged else _scores(run, rows, fitted.best_epoch)
    return scores if isinstance(run.objective, list) else scores[0]


def settle(run: schema.Run, current: Trial) -> schema.Run:
    """The run with nothing left to the machine or the moment: what ``trial.yaml`` holds."""

    import torch

    from sweeper.training.backbone import is_path
    from sweeper.training.machine import resolve_device, resolve_precision

    device = resolve_device(run.device)
    n_threads = run.training.n_threads or torch.get_num_threads()  # in a worker, its share of the cores
    precision = resolve_precision(run.training.precision, device)
    path = run.dataset.path and _absolute(run.dataset.path)
    folder = run.dataset.folder
    if folder is not None and expanded(folder).is_dir():  # otherwise it is seen from the table
        folder = _absolute(folder)
    weights = run.model.weights
    return replace(
        run,
        seed=current.seed(run.seed),
        device=str(device),
        dataset=replace(run.dataset, path=path, folder=folder, root=_absolute(run.dataset.root)),
        model=replace(run.model, weights=_absolute(weights) if is_path(weights) else weights),
        training=replace(run.training, n_threads=n_threads, precision=precision),
    )


def _absolute(path: str) -> str:
    return str(expanded(path).absolute())


def _scores(run: schema.Run, rows: list[dict[str, Any]], epoch: int) -> list[float]:
    """The objectives' values after an epoch; seconds count up to the last."""
    values = rows[epoch - 1] | {"seconds": sum(row["seconds"] for row in rows)}
    return [float(values[name]) for name in schema.objectives(run.objective)]


def _write_result(
    files: RunFiles,
    run: schema.Run,
    rows: list[dict[str, Any]],
    best_epoch: int,
    ending: str,
    current: Trial,
    task: Task,
    fitted: Fitted | None = None,
) -> dict[str, Any]:
    """Write ``result.json`` and show it with the trial; ``ending`` says why there are no more epochs."""
    measured = {
        **{name: value for name, value in rows[best_epoch - 1].items() if name.startswith("val_")},
        "best_epoch": best_epoch,
        "epochs": len(rows),
        "ending": ending,
        "seconds": sum(row["seconds"] for row in rows),
        "images_per_second": sum(row["images_per_second"] for row in rows) / len(rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
        **({} if fitted is None else {"n_parameters": sum(p.numel() for p in fitted.model.parameters())}),
    }
    for name, value in measured.items():
        current.set_user_attr(name, value)
    result = {"study": run.study, "trial": current.number, "objective": run.objective, **measured}
    result["task"] = asdict(task)
    if fitted is not None:
        result |= {} if fitted.dead_units is None else {"dead_units": fitted.dead_units}
        result[PER_CLASS] = {"val": fitted.per_class}
    filesystem.write_json(files.result, result)
    return result


def task_of(loaded: Data) -> Task:
    """What the curves are judged against."""
    from sweeper.training.chance import chance_accuracy, chance_loss

    labels, n_classes = (loaded.train_y, loaded.val_y), len(loaded.classes)
    return Task(
        n_train=len(loaded.train_y),
        n_val=len(loaded.val_y),
        n_classes=n_classes,
        multi_label=loaded.multi_label,
        train_counts=tuple(_counts(loaded.train_y, loaded)[0]),
        chance_loss=chance_loss(*labels, n_classes),
        chance_accuracy=chance_accuracy(*labels, n_classes),
    )


def _over(seen: RunRecord, fitted: Fitted, loaded: Data) -> RunRecord:
    """The record of a run that went to its end, with what was measured there."""
    from sweeper.training import machine
    from sweeper.training.step import with_micro_batch_size

    in_pieces = with_micro_batch_size(seen.run) != seen.run
    return replace(
        seen,
        is_over=True,
        dead_units=fitted.dead_units,
        recall={name: scores["recall"] for name, scores in fitted.per_class.items()},
        gpu_memory_mb=machine.memory_mb(loaded.device),
        micro_batch_size=with_micro_batch_size(seen.run).training.micro_batch_size if in_pieces else None,
    )


def _write_signs(files: RunFiles, seen: RunRecord, current: Trial, told: Sequence[str]) -> None:
    """Write ``signs.json``, and tell the study which signs the trial has, in place of those told before."""
    signs = run_sign.signs_of(seen)
    sign.write(files.signs, signs)
    if signs or told:
        current.set_user_attr("signs", [each.sign for each in signs])


def _tested(model: Any, run: schema.Run, loaded: Data, result: dict[str, Any]) -> dict[str, Any]:
    """The result with what the model reaches on the test images, if there are any."""
    from sweeper.training import machine, metric
    from sweeper.training.fit import predict
    from sweeper.training.step import with_micro_batch_size

    if len(loaded.test_y) == 0:
        return result
    _warn_of_undefined(run, loaded, "test")
    with machine.threads(run.training.n_threads):
        logits, labels = predict(model, loaded, "test", with_micro_batch_size(run).training)
        measured = metric.measure(logits, labels, schema.metrics(run, loaded.multi_label))
        per_class = metric.by_class(logits, labels, loaded.classes)
    named = {f"test_{name}": value for name, value in measured.items()}
    # The long part comes last.
    return {**result, **named, PER_CLASS: {**result.pop(PER_CLASS, {}), "test": per_class}}


def _write_predictions(files: RunFiles, logits: Tensor, loaded: Data) -> None:
    """Keep what the model says of the validation images, for the report."""
    from sweeper.training.prediction import predictions

    predictions(logits, loaded.val_y, loaded).write(files)


def _write_val_logits(files: RunFiles, logits: Tensor, loaded: Data) -> None:
    """Keep what the model says of the validation images, for comparisons of trials."""
    from sweeper.training.prediction import val_logits

    val_logits(logits, loaded.val_y, loaded).write(files)


def _write_weights(
    files: RunFiles, run: schema.Run, loaded: Data, fitted: Fitted, result: dict[str, Any]
) -> Card:
    """Write the weights of the best epoch, and what a program must know to use them."""
    from sweeper.training import state

    tensors = state.of(fitted.model)
    card = _card(run, loaded, fitted.val_logits, result, state.digest(tensors))
    state.keep(files, tensors, card)
    return card


def _card(run: schema.Run, loaded: Data, val_logits: Tensor, result: dict[str, Any], digest: str) -> Card:
    """All that a program must know to use the weights."""
    from sweeper.training import temperature

    look, n_classes = run.dataset, len(loaded.classes)
    return Card(
        network=Network.of(run.model),
        classes=loaded.classes,
        labels=SEVERAL if loaded.multi_label else ONE,
        thresholds=(0.5,) * n_classes if loaded.multi_label else None,  # as the scores were measured
        in_channels=loaded.channels,
        pixel_channels=loaded.pixel_channels,
        image_size=loaded.side,
        margin=look.margin if loaded.image_size else 1.0,
        mean=tuple(loaded.mean.tolist()),
        std=tuple(loaded.std.tolist()),
        background=schema.colour(look.background),
        max_megapixels=look.max_megapixels,
        bits=loaded.bits,
        temperature=temperature.fit(val_logits, loaded.val_y),
        scores=_card_scores(result),
        study=result["study"],
        trial=result["trial"],
        weights_digest=digest,
    )


def _card_scores(result: dict[str, Any]) -> dict[str, float]:
    """What was measured on val and test; what a network that diverged leaves undefined is no number."""
    scores = {name: value for name, value in result.items() if name.startswith(("val_", "test_"))}
    return {name: value for name, value in scores.items() if isfinite(value)}


def _counts(labels: Tensor, loaded: Data) -> tuple[list[int], int]:
    from sweeper.training.metric import count

    return count(labels, len(loaded.classes)), len(labels)


def _warn_of_undefined(run: schema.Run, loaded: Data, part: str) -> None:
    """Say in a line each which metrics will not be there, and why."""
    counts, n = _counts(loaded.part(part)[1], loaded)
    for name in schema.metrics(run, loaded.multi_label):
        if (reason := schema.undefined(name, counts, n, loaded.multi_label)) is not None:
            log.warning("%s_%s is left out: it is undefined on these %d images: %s", part, name, n, reason)


def test_best(folder: Path) -> None:
    """Add what the best model of a search reaches on the test images to its result and its card, and keep
    what it says of the validation images, if that is not there.

    Weights of an earlier version, which wrote no card, get one.
    """
    study = StudyFiles(folder)
    best, result = study.best, study.best.read_result()
    is_done = best.predictions.exists() and best.card.exists()  # predictions are written last
    if not result or is_done or not best.has_weights:
        return
    run = check.to_run(filesystem.read_yaml(best.config))
    if not saved.may_test(run.model):
        what = f"{best.config} alone names its network, {run.model.target}"
        log.warning("the best model is not tested: %s; add --trust to run that code", what)
        return
    import torch

    from sweeper.training import checkpoint, data, machine, state
    from sweeper.training.fit import predict
    from sweeper.training.model import build
    from sweeper.training.step import with_micro_batch_size

    card = Card.read(best.card) if best.card.exists() else None
    try:
        device = machine.resolve_device(run.device)
        loaded = data.load(run.dataset, device)
    except BadInput as error:  # on another machine, or without its data
        log.warning("the best model is not tested: %s", error)
        return
    if best.weights.exists():
        tensors = state.read(best.weights, None if card is None else card.weights_digest)
    else:
        tensors = checkpoint.read(str(best.old_weights))
    machine.make_repeatable(device, run.seed, run.training.tf32)  # as it was trained
    model = build(run.model, loaded.channels, loaded.side, len(loaded.classes))
    state.put(model, tensors)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not is_tested(result):
        result = _tested(model, run, loaded, result)
        added = {name: result[name] for name in result if name.startswith("test_") or name == PER_CLASS}
        if not study.add_to_best(result.get("trial"), added):
            return  # another trial is the best now, and its files are there
    with machine.threads(run.training.n_threads):
        logits, _ = predict(model, loaded, "val", with_micro_batch_size(run).training)
    if card is None:
        kept = state.of(model)
        state.keep(best, kept, card := _card(run, loaded, logits, result, state.digest(kept)))
    replace(card, scores=_card_scores(result)).write(best)
    _write_predictions(best, logits, loaded)


def is_tested(result: dict[str, Any]) -> bool:
    return any(name.startswith("test_") for name in result)


PRELOAD = ("torch._dynamo", "sweeper.training.data", "sweeper.training.fit")
"""Nearly all that a trial imports; torch's optimizers would import torch._dynamo, 1.5 s, in every worker."""


def _import_libraries() -> None:
    """As for workers: what is imported stays, and looking for garbage would take a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        for name in PRELOAD:
            importlib.import_module(name)
    finally:
        if collects:
            gc.enable()


def preload(config: DictConfig) -> tuple[str, ...]:
    """What the trials of a search will import, by a config that nobody has checked yet."""
    keys = ["objective", "training.early_stopping.monitor", "training.metrics", "loss.name"]
    keys += ["hydra.overrides.task"]  # which may search among values of these
    named = " ".join(str(OmegaConf.select(config, key, throw_on_resolution_failure=False)) for key in keys)
    asks = any(name in named for name in (*schema.BY_LIBRARY, *schema.MULTI_LABEL_LOSSES))
    return (*PRELOAD, schema.METRIC_LIBRARY) if asks else PRELOAD
