"""One Hydra job, as Hydra itself runs it: the same files, callbacks, logging and ``HydraConfig``.

Hydra copies the whole config four times for a job and dumps it with pure Python. Here the config belongs to
the job already, one copy of the app's part is enough, and libyaml writes the files: per trial a third of the
time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import utils, version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, Node, OmegaConf, ValueNode, flag_override, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from sweeper.fault import disk, of_disk
from sweeper.filesystem import write_whole
from sweeper.search.fork import call_here
from sweeper.secret import hide_known_secrets_in


def run_job(task: TaskFunction, config: DictConfig, folder: Path, context: HydraContext) -> JobReturn:
    """Run the task in ``folder``.

    Args:
        config: the app's and Hydra's, composed; the job's own from here on.

    Returns:
        status, and the returned value or the exception (``_return_value``). What is no ``Exception`` passes.
    """
    job = JobReturn()
    hydra = config.hydra
    with flag_override(hydra, ["readonly", "struct"], [False, False]):
        hydra.runtime.output_dir = str(folder)
    with _execution_whitelist(context), _hydra_config(config):
        job.cfg, job.hydra_cfg = _app_part(config), config
        job.overrides = list(hydra.overrides.task)
        job.task_name = JobRuntime.instance().get("name")
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _working_directory(folder if _changes_folder(hydra) else Path.cwd()):
            job.working_dir = str(Path.cwd())
            _configure_log(hydra, folder)
            if hydra.output_subdir is not None:
                save(hydra, job.cfg, folder / hydra.output_subdir)
            with env_override(hydra.job.env_set):
                try:
                    context.callbacks.on_job_start(config=config, task_function=task)
                    job.return_value = call_here(task, job.cfg)
                    job.status = JobStatus.COMPLETED
                except Exception as error:  # the caller tells the trial, whatever it was
                    job.return_value = error
                    job.status = JobStatus.FAILED
            context.callbacks.on_job_end(config=config, job_return=job)
    return job


def _configure_log(hydra: DictConfig, folder: Path) -> None:
    try:
        configure_log(hydra.job_logging, hydra.verbose)
    except ValueError as error:  # what logging.config makes of any fault
        if isinstance(error.__cause__, OSError):
            raise of_disk(error.__cause__, error.__cause__.filename or folder) from error
        raise


def _app_part(config: DictConfig) -> DictConfig:
    """A copy without the ``hydra`` node, which is not even copied."""
    skipped = {id(config._get_node("hydra")): OmegaConf.create()}
    app: DictConfig = copy.deepcopy(config, skipped)
    with read_write(app), open_dict(app):
        del app["hydra"]
    return app


def save(hydra: DictConfig, app: DictConfig, folder: Path) -> None:
    """Write what Hydra writes of a job's config; read again, the files equal Hydra's own."""
    content = _plain(hydra)
    write_whole(folder / "config.yaml", to_yaml(app))
    write_whole(folder / "hydra.yaml", _hydra_yaml(content))
    write_whole(folder / "overrides.yaml", _dump(content["overrides"]["task"]))


def _plain(node: Any) -> Any:
    """``OmegaConf.to_container(node, enum_to_str=True)``, in a seventh of the time."""
    if isinstance(node, ValueNode):
        value = node._value()
        return value.name if isinstance(value, Enum) else value
    content = node.__dict__["_content"]
    if isinstance(content, dict):
        return {k.name if isinstance(k, Enum) else k: _plain(value) for k, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return _plain(content) if isinstance(content, Node) else content  # the value of a union


def _hydra_yaml(content: dict[str, Any]) -> str:
    """Most of Hydra's part is as it was in the trial before, and so is the text of it."""
    for key, value in content.items():
        shown = repr(value)  # which tells 1 from 1.0 and True
        if _sections.get(key, ("", ""))[0] != shown:
            _sections[key] = shown, _dump({"hydra": {key: value}}).removeprefix("hydra:\n")
    return "hydra:\n" + "".join(_sections[key][1] for key in content)


_sections: dict[str, tuple[str, str]] = {}


def to_yaml(config: DictConfig) -> str:
    """What ``OmegaConf.to_yaml`` writes, but for line breaks, the kind of quotes, and known passwords."""
    return _dump(_plain(config))


def _dump(content: Any) -> str:
    style: Any = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    return str(yaml.dump(hide_known_secrets_in(content), Dumper=dumper(), **style))


@cache
def dumper() -> Any:
    """OmegaConf's own, which quotes text that would be read as a number, on top of libyaml."""
    pure = get_omega_conf_dumper()
    if not yaml.__with_libyaml__:
        return pure
    return type("Dumper", (yaml.CDumper,), {"yaml_representers": pure.yaml_representers})


@contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """What ``HydraConfig.get()`` and the ``hydra:`` resolver see meanwhile."""
    before = HydraConfig.instance().cfg
    OmegaConf.set_readonly(config.hydra, True)
    HydraConfig.instance().cfg = config  # type: ignore[assignment]  # Hydra keeps a DictConfig there, too
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _execution_whitelist(context: HydraContext) -> AbstractContextManager[Any]:
    """Hydra 1.4 holds an app to the targets that its ``hydra.main`` allows."""
    whitelist: Any = getattr(utils, "execution_whitelist", None)
    return whitelist(context.execution_whitelist, reset=True) if whitelist else nullcontext()  # type: ignore[attr-defined]


def _changes_folder(hydra: DictConfig) -> bool:
    """As the app says; before Hydra 1.2, whose ways ``version_base`` may keep, also if it says nothing."""
    base_at_least: Any = getattr(version, "base_at_least", None)  # Hydra 1.4 has no older ways
    keeps_1_1 = base_at_least is not None and not base_at_least("1.2")
    return bool(keeps_1_1 if hydra.job.chdir is None else hydra.job.chdir)


@contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
