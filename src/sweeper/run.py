"""One composed config → objects → ``fit`` → a score. The Hydra task function; below it there is no config."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, replace
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sweeper import schema
from sweeper.errors import BadInput, bad_override
from sweeper.results import record
from sweeper.search.trial import Trial, trial

if TYPE_CHECKING:
    import optuna

    from sweeper.training.fit import Epoch


def main(config: DictConfig) -> float | list[float]:
    """Train once, as a trial of a sweep or alone.

    Writes ``trial.yaml``, ``history.csv``, ``result.json`` and ``weights.pt`` into Hydra's output folder.

    Returns:
        the value of ``objective`` after the best epoch; a list if there are several.
    """
    from hydra.core.hydra_config import HydraConfig

    current = trial()
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return train(to_run(config), folder, current)
    except BadInput as error:
        if current.number is not None:
            raise
        record.remove_refused_run(folder)
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)  # not an Exception: Hydra would print more about that


def to_run(config: DictConfig | dict[str, Any]) -> schema.Run:
    """The config as dataclasses, checked.

    Raises:
        BadInput: for a key that does not exist, a wrong type, or a value out of its range.
    """
    keys = schema.Run.__dataclass_fields__
    try:
        known = {key: value for key, value in OmegaConf.create(config).items() if key in keys}
        run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Run), known))
    except Exception as error:
        raise bad_override(error, []) from error
    assert isinstance(run, schema.Run)
    schema.validate(run)
    record.check_study_name(run.study)
    return run


def check(config: DictConfig) -> None:
    """What the search asks before it starts anything: can this config run, and is its data there?"""
    run = to_run(config)
    wanted, given = schema.direction(run.objective), _plain(config.hydra.sweeper.direction)
    if wanted != given:
        reason = f"objective={run.objective} means {wanted}"
        raise BadInput(
            "hydra.sweeper.direction", given, reason, "leave it out: it follows from the objective"
        )
    if run.device not in ("auto", "cpu"):
        from sweeper.training.fit import resolve_device

        resolve_device(run.device)
    key = repr(run.dataset)
    if key not in _n_classes:
        _n_classes[key] = _check_data(run.dataset)
    schema.check_class_weights(run.loss.class_weights, _n_classes[key])


_n_classes: dict[str, int] = {}
"""Of the datasets that were checked: a search composes many configs with the same one."""


def _check_data(dataset: schema.Dataset) -> int:
    """Read and split it as a trial will; gives the number of classes."""
    from sweeper.training import images

    everything = images.read(dataset)
    train, _, _ = images.split(everything, dataset)
    images.statistics(dataset.normalization, everything.pixels[train])
    return len(everything.classes)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def train(run: schema.Run, folder: Path, current: Trial) -> float | list[float]:
    """Train, report each epoch to ``current``, and leave the files of one run in ``folder``."""
    import torch

    from sweeper.training import data
    from sweeper.training.fit import fit, resolve_device

    run = settle(run, current)
    loaded = data.load(run.dataset, resolve_device(run.device))
    schema.check_class_weights(run.loss.class_weights, len(loaded.classes))
    record.write_whole(folder / record.CONFIG, _yaml(run))
    record.write_json(folder / record.ENVIRONMENT, environment(run, loaded.fingerprint))
    rows: list[dict[str, Any]] = []

    def on_epoch(epoch: Epoch) -> None:
        rows.append(asdict(epoch))
        record.write_history(folder, rows)
        show.epoch(epoch)
        current.report(nan if epoch.diverged else _scores(run, rows, epoch.epoch)[0], epoch.epoch)

    try:
        with _show(run, current) as show:
            fitted = fit(run, loaded, on_epoch)
    except Exception as error:  # pruned, or something broke: what was measured is kept
        if rows:
            _write_result(folder, run, rows, len(rows), type(error).__name__, current)
        raise
    ending = "diverged" if fitted.diverged else "early stopping" if fitted.stopped_early else "all epochs"
    result = _write_result(folder, run, rows, fitted.best_epoch, ending, current)
    with record.whole(folder / record.WEIGHTS) as path:
        torch.save(fitted.model.state_dict(), path)
    if current.number is None:
        result |= _tested(fitted.model, run, loaded)
        record.write_json(folder / record.RESULT, result)
        show.result(result, folder)
    scores = [nan] if fitted.diverged else _scores(run, rows, fitted.best_epoch)
    return scores if isinstance(run.objective, list) else scores[0]


def settle(run: schema.Run, current: Trial) -> schema.Run:
    """The run with nothing left to the machine or the moment: what ``trial.yaml`` holds."""

    import torch

    from sweeper.training.fit import resolve_device, resolve_precision

    device = resolve_device(run.device)
    n_threads = run.training.n_threads or torch.get_num_threads()  # in a worker, its share of the cores
    precision = resolve_precision(run.training.precision, device)
    path = run.dataset.path and str(Path(run.dataset.path).absolute())
    return replace(
        run,
        seed=current.seed(run.seed),
        device=str(device),
        dataset=replace(run.dataset, path=path),
        training=replace(run.training, n_threads=n_threads, precision=precision),
    )


def _yaml(run: schema.Run) -> str:
    head = "# python -m sweeper --config-dir FOLDER --config-name trial   (FOLDER holds this file)\n"
    return head + OmegaConf.to_yaml(OmegaConf.create(asdict(run)))


def _scores(run: schema.Run, rows: list[dict[str, Any]], epoch: int) -> list[float]:
    """The objectives' values after an epoch; seconds count up to the last."""
    values = rows[epoch - 1] | {"seconds": sum(row["seconds"] for row in rows)}
    return [float(values[name]) for name in schema.objectives(run.objective)]


def _write_result(
    folder: Path, run: schema.Run, rows: list[dict[str, Any]], best_epoch: int, ending: str, current: Trial
) -> dict[str, Any]:
    """Write ``result.json`` and show it with the trial; ``ending`` says why there are no more epochs."""
    best = rows[best_epoch - 1]
    measured = {
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": best_epoch,
        "epochs": len(rows),
        "ending": ending,
        "seconds": sum(row["seconds"] for row in rows),
        "images_per_second": sum(row["images_per_second"] for row in rows) / len(rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
    }
    for name, value in measured.items():
        current.set(name, value)
    result = {"study": run.study, "trial": current.number, "objective": run.objective, **measured}
    record.write_json(folder / record.RESULT, result)
    return result


def environment(run: schema.Run, fingerprint: str) -> dict[str, Any]:
    """What the last bit of a history depends on besides the config."""
    import torch
    import torchvision

    is_cuda = run.device.startswith("cuda")
    return {
        "data": fingerprint,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": torch.cuda.get_device_name(run.device) if is_cuda else _cpu_name(),
        "n_threads": run.training.n_threads,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _tested(model: Any, run: schema.Run, loaded: Any) -> dict[str, float]:
    from sweeper.training.fit import evaluate

    loss, accuracy = evaluate(model, loaded, "test", precision=run.training.precision)
    return {} if isnan(accuracy) else {"test_loss": loss, "test_accuracy": accuracy}


def finish(folder: Path, study: optuna.Study) -> None:
    """After a sweep: look at the test images once, with the best model, and say how to go on."""
    from sweeper.results import best, dashboard

    if (folder / record.BEST / record.RESULT).exists():
        test_best(folder / record.BEST)
    dashboard.write_note(study)
    best.show_commands(folder)


def test_best(folder: Path) -> None:
    """Add the test accuracy of the weights in ``folder`` to its result, if it is not there yet."""
    import torch

    from sweeper.training import data
    from sweeper.training.fit import resolve_device
    from sweeper.training.model import build

    result = record.read_json(folder / record.RESULT)
    if "test_accuracy" not in result and not (folder / record.WEIGHTS).exists():
        print(f"{folder} has lost its weights; python -m sweeper reproduce trains them again")
        return
    if "test_accuracy" not in result:
        run = to_run(record.read_yaml(folder / record.CONFIG))
        device = resolve_device(run.device)
        loaded = data.load(run.dataset, device)
        _, channels, _, side = loaded.train_x.shape
        model = build(run.model, channels, side, len(loaded.classes)).to(device)
        model.load_state_dict(torch.load(folder / record.WEIGHTS, map_location=device, weights_only=True))
        result |= _tested(model, run, loaded)
        record.write_json(folder / record.RESULT, result)
    if "test_accuracy" in result:
        print(f"Test accuracy of the best trial: {result['test_accuracy']:.4f}  ({folder})")


def _show(run: schema.Run, current: Trial) -> Any:
    from sweeper.results.show import Silent, SingleRun

    return SingleRun(run) if current.number is None else Silent()


main.check = check  # type: ignore[attr-defined]  # what the search looks for on a task function
main.finish = finish  # type: ignore[attr-defined]
