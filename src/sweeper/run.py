"""One composed config → objects → ``fit`` → a score. The Hydra task function; below it there is no config."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sweeper import schema
from sweeper.errors import BadInput, bad_override
from sweeper.results import record
from sweeper.search.trial import Trial, trial

if TYPE_CHECKING:
    import optuna

    from sweeper.training.fit import Epoch, Fitted


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
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)  # not an Exception: Hydra would print more about that


def to_run(config: DictConfig | dict[str, Any]) -> schema.Run:
    """The config as dataclasses, checked.

    Raises:
        BadInput: for a key that does not exist, a wrong type, or a value out of its range.
    """
    keys = {item for item in schema.Run.__dataclass_fields__}
    try:
        known = {key: value for key, value in OmegaConf.create(config).items() if key in keys}  # type: ignore[arg-type]
        run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Run), known))
    except Exception as error:
        raise bad_override(error, []) from error
    assert isinstance(run, schema.Run)
    schema.validate(run)
    return run


def check(config: DictConfig) -> None:
    """What the search asks before it starts anything: can this config run, and is its data there?"""
    from sweeper.training import images

    run = to_run(config)
    key = repr(run.dataset)
    if key not in _checked:
        images.split(images.read(run.dataset), run.dataset)
        _checked.add(key)


_checked: set[str] = set()


def train(run: schema.Run, folder: Path, current: Trial) -> float | list[float]:
    """Train, report each epoch to ``current``, and leave the files of one run in ``folder``."""
    import torch

    from sweeper.training import data
    from sweeper.training.fit import fit, resolve_device

    run = settle(run, current)
    loaded = data.load(run.dataset, resolve_device(run.device))
    record.write_whole(folder / record.CONFIG, _yaml(run))
    record.write_json(folder / record.ENVIRONMENT, environment(run, loaded.fingerprint))
    rows: list[dict[str, Any]] = []

    def on_epoch(epoch: Epoch) -> None:
        rows.append(asdict(epoch))
        record.write_history(folder, rows)
        show.epoch(epoch)
        diverged = not (isfinite(epoch.train_loss) and isfinite(epoch.val_loss))
        current.report(nan if diverged else _score(run, rows, epoch.epoch)[0], epoch.epoch)

    with _show(run, current) as show:
        fitted = fit(run, loaded, on_epoch)
    if fitted.diverged:
        return [nan] * len(schema.objectives(run.objective)) if isinstance(run.objective, list) else nan
    scores = _score(run, rows, fitted.best_epoch)
    result = _result(run, rows, fitted, current)
    torch.save(fitted.model.state_dict(), _prepared(folder / record.WEIGHTS))
    if current.number is None:
        result |= _tested(fitted.model, run, loaded)
        show.result(result, folder)
    record.write_json(folder / record.RESULT, result)
    for name in ("val_accuracy", "val_loss", "best_epoch", "epochs", "seconds", "images_per_second", "peak_memory_mb"):
        current.set(name, result[name])
    return scores if isinstance(run.objective, list) else scores[0]


def settle(run: schema.Run, current: Trial) -> schema.Run:
    """The run with nothing left to the machine or the moment: what ``trial.yaml`` holds."""
    from sweeper.training.fit import resolve_device

    device = resolve_device(run.device)
    n_threads = run.training.n_threads or int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
    precision = run.training.precision
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


def _score(run: schema.Run, rows: list[dict[str, Any]], epoch: int) -> list[float]:
    """The objectives' values after an epoch; what a run costs counts up to its end."""
    totals = {"seconds": sum(row["seconds"] for row in rows)}
    return [float((totals | rows[epoch - 1] | totals)[name]) for name in schema.objectives(run.objective)]


def _result(run: schema.Run, rows: list[dict[str, Any]], fitted: Fitted, current: Trial) -> dict[str, Any]:
    best = rows[fitted.best_epoch - 1]
    return {
        "study": run.study,
        "trial": current.number,
        "objective": run.objective,
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": fitted.best_epoch,
        "epochs": len(rows),
        "stopped_early": fitted.stopped_early,
        "seconds": sum(row["seconds"] for row in rows),
        "images_per_second": sum(row["images_per_second"] for row in rows) / len(rows),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
    }


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
    return {"test_loss": loss, "test_accuracy": accuracy}


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
    if "test_accuracy" not in result:
        run = to_run(record.read_yaml(folder / record.CONFIG))
        device = resolve_device(run.device)
        loaded = data.load(run.dataset, device)
        _, channels, _, side = loaded.train_x.shape
        model = build(run.model, channels, side, len(loaded.classes)).to(device)
        model.load_state_dict(torch.load(folder / record.WEIGHTS, map_location=device, weights_only=True))
        result |= _tested(model, run, loaded)
        record.write_json(folder / record.RESULT, result)
    print(f"Test accuracy of the best trial: {result['test_accuracy']:.4f}  ({folder})")


def _prepared(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _show(run: schema.Run, current: Trial) -> Any:
    from sweeper.results.show import Silent, SingleRun

    return SingleRun(run) if current.number is None else Silent()


main.check = check  # type: ignore[attr-defined]  # what the search looks for on a task function
main.finish = finish  # type: ignore[attr-defined]
