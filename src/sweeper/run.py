"""One composed config → objects → ``fit`` → a score. The Hydra task function; below it there is no config."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from sweeper import schema
from sweeper.errors import BadInput, bad_override
from sweeper.results import record
from sweeper.search.hooks import Hooks
from sweeper.search.trial import Trial, trial

if TYPE_CHECKING:
    from sweeper.training.fit import Epoch


log = logging.getLogger(__name__)

T = TypeVar("T")


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
    """What the search asks before it starts anything: can this config run, and is its data there?

    Raises:
        BadInput: for the first thing that cannot work.
    """
    run = to_run(config)
    check_direction(run, config)
    inspect(run)


def inspect(run: schema.Run) -> Found:
    """Look at device, data and network, in so far as nothing need be trained; gives what the data is.

    Raises:
        BadInput: where one of them is not there, or does not suit the others.
    """
    if run.device not in ("auto", "cpu"):
        from sweeper.training.machine import resolve_device

        resolve_device(run.device)
    found = _find(run.dataset, Path.cwd())
    schema.check_task(run, found.n_classes, found.multi_label)
    _check_model(run.model, (found.channels, found.side, found.n_classes), Path.cwd())
    return found


def check_direction(run: schema.Run, config: DictConfig) -> None:
    """Raises BadInput where ``hydra.sweeper.direction`` is not the objective's."""
    wanted, given = schema.direction(run.objective), _plain(config.hydra.sweeper.direction)
    if wanted != given:
        reason = f"objective={run.objective} means {wanted}"
        remedy = "leave it out: it follows from the objective"
        raise BadInput("hydra.sweeper.direction", given, reason, remedy)


@dataclass(frozen=True)
class Found:
    """What a dataset turned out to be; ``side`` in pixels, of the images that a network sees."""

    name: str
    n_train: int
    n_val: int
    n_test: int
    n_classes: int
    multi_label: bool
    channels: int
    side: int


def _once(function: Callable[..., T]) -> Callable[..., T]:
    """Remember what it said: a search composes many configs with the same dataset and model."""
    said: dict[str, T] = {}

    def ask(*arguments: Any) -> T:
        key = repr(arguments)
        if key not in said:
            said[key] = function(*arguments)
        return said[key]

    return ask


@_once
def _find(dataset: schema.Dataset, cwd: Path) -> Found:
    """Read and split it as a trial will, and keep the counts."""
    from sweeper.training import images

    everything = images.read(dataset)
    train, val, test = images.split(everything, dataset)
    mean, _ = images.statistics(dataset.normalization, everything.pixels, train)
    return Found(
        name=dataset.name,
        n_train=len(train),
        n_val=len(val),
        n_test=len(test),
        n_classes=len(everything.classes),
        multi_label=everything.multi_label,
        channels=len(mean),
        side=everything.side,
    )


@_once
def _check_model(model: schema.Model, shape: tuple[int, int, int], cwd: Path) -> None:
    """Outline the network, and compare its weights: so they are downloaded once, before the workers start."""
    if model.source == "sweeper" and model.weights is None:
        return  # fits any image; and the parent of a search need not import torch
    from sweeper.training import weights

    weights.check(model, *shape)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def train(run: schema.Run, folder: Path, current: Trial) -> float | list[float]:
    """Train, report each epoch to ``current``, and leave the files of one run in ``folder``."""
    import torch

    from sweeper.training import data
    from sweeper.training.fit import fit
    from sweeper.training.machine import resolve_device
    from sweeper.training.step import fitting

    for warning in schema.without_effect(run):
        log.warning(warning)
    run = settle(run, current)
    loaded = data.load(run.dataset, resolve_device(run.device))
    schema.check_task(run, len(loaded.classes), loaded.multi_label)
    if current.number is None:  # a search has asked before it started
        shape = (loaded.channels, loaded.side, len(loaded.classes))
        _check_model(run.model, shape, Path.cwd())
    record.write_whole(folder / record.CONFIG, _yaml(run))
    record.write_json(folder / record.ENVIRONMENT, environment(run, loaded.fingerprint))
    rows: list[dict[str, Any]] = []

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == 1:  # it may be the second beginning, with smaller pieces of a batch
            rows.clear()
            if (smaller := fitting(run)) != run:
                record.write_whole(folder / record.CONFIG, _yaml(smaller))
        rows.append(epoch.row())
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

    from sweeper.training.backbone import is_path
    from sweeper.training.machine import resolve_device, resolve_precision

    device = resolve_device(run.device)
    n_threads = run.training.n_threads or torch.get_num_threads()  # in a worker, its share of the cores
    precision = resolve_precision(run.training.precision, device)
    path = run.dataset.path and _absolute(run.dataset.path)
    weights = run.model.weights
    return replace(
        run,
        seed=current.seed(run.seed),
        device=str(device),
        dataset=replace(run.dataset, path=path, root=_absolute(run.dataset.root)),
        model=replace(run.model, weights=_absolute(weights) if is_path(weights) else weights),
        training=replace(run.training, n_threads=n_threads, precision=precision),
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


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
    measured = {
        **{name: value for name, value in rows[best_epoch - 1].items() if name.startswith("val_")},
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

    from sweeper.training import weights

    is_cuda = run.device.startswith("cuda")
    return {
        "data": fingerprint,
        "weights": None if run.freezing.name == "none" else weights.fingerprint(run.model),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # without a second's import
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
    from sweeper.training import machine
    from sweeper.training.fit import evaluate
    from sweeper.training.step import fitting

    with machine.threads(run.training.n_threads):
        measured = evaluate(model, loaded, "test", fitting(run).training)
    return {f"test_{name}": value for name, value in measured.items()}


def test_best(folder: Path) -> None:
    """Add what the best model of a search reaches on the test images to its result, if that is not there."""
    best = folder / record.BEST
    result = record.read_json(best / record.RESULT) if (best / record.RESULT).exists() else {}
    if not result or _is_tested(result) or not (best / record.WEIGHTS).exists():
        return
    run = to_run(record.read_yaml(best / record.CONFIG))
    if _find(run.dataset, Path.cwd()).n_test == 0:
        return
    import torch

    from sweeper.training import data
    from sweeper.training.machine import resolve_device
    from sweeper.training.model import build

    device = resolve_device(run.device)
    loaded = data.load(run.dataset, device)
    model = build(run.model, loaded.channels, loaded.side, len(loaded.classes)).to(device)
    model.load_state_dict(torch.load(best / record.WEIGHTS, map_location=device, weights_only=True))
    record.write_json(best / record.RESULT, result | _tested(model, run, loaded))


def _is_tested(result: dict[str, Any]) -> bool:
    return any(name.startswith("test_") for name in result)


def finish(folder: Path) -> None:
    """After a search: say how its best model does on the test images, and how to go on."""
    from sweeper.results import best
    from sweeper.results.show import metrics

    test_best(folder)  # a worker has, unless it was killed, or none was needed
    path = folder / record.BEST
    if (path / record.RESULT).exists():
        result = record.read_json(path / record.RESULT)
        for name, value in metrics(result, "test_").items():
            print(f"Test {name} of the best trial: {value:.4f}  ({path})")
        if not _is_tested(result) and not (path / record.WEIGHTS).exists():
            print(f"{path} has lost its weights; python -m sweeper reproduce trains them again")
    best.show_commands(folder)


def _show(run: schema.Run, current: Trial) -> Any:
    from sweeper.results.show import Silent, SingleRun

    return SingleRun(run) if current.number is None else Silent()


PRELOAD = ("torch._dynamo", "sweeper.training.data", "sweeper.training.fit")
"""Nearly all that a trial imports; torch's optimizers would import torch._dynamo, 1.5 s, in every worker."""

Hooks(check=check, preload=PRELOAD, conclude=test_best, finish=finish)(main)
