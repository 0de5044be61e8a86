"""One Hydra job, as Hydra itself runs it: the same files, callbacks, logging and ``HydraConfig``.

Hydra copies the whole config four times for a job and dumps it with pure Python. Here the config belongs to
the job already, one copy of the app's part is enough, and libyaml writes Hydra's part: per trial a third of
the time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sweeper.results.record import write_whole

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a build of PyYAML may lack libyaml


def run_job(task: TaskFunction, config: DictConfig, folder: Path, context: HydraContext) -> JobReturn:
    """Run the task in ``folder``.

    Args:
        config: the app's and Hydra's, composed; the job's own from here on.

    Returns:
        status, and the returned value or the exception (``_return_value``). What is no ``Exception`` passes.
    """
    job = JobReturn()
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = str(folder)
    with _hydra_config(config):
        job.cfg, job.hydra_cfg = _app_part(config), config
        job.overrides = list(config.hydra.overrides.task)
        job.task_name = JobRuntime.instance().get("name")
        folder.mkdir(parents=True, exist_ok=True)
        with _working_directory(folder if config.hydra.job.chdir else Path.cwd()):
            job.working_dir = str(Path.cwd())
            configure_log(config.hydra.job_logging, config.hydra.verbose)
            _save(config, job.cfg, folder)
            with env_override(config.hydra.job.env_set):
                context.callbacks.on_job_start(config=config, task_function=task)
                try:
                    job.return_value = task(job.cfg)
                    job.status = JobStatus.COMPLETED
                except Exception as error:  # the caller tells the trial, whatever it was
                    job.return_value = error
                    job.status = JobStatus.FAILED
            context.callbacks.on_job_end(config=config, job_return=job)
    return job


def _app_part(config: DictConfig) -> DictConfig:
    """A copy without the ``hydra`` node, which is not even copied."""
    skipped = {id(config._get_node("hydra")): OmegaConf.create()}
    app: DictConfig = copy.deepcopy(config, skipped)
    with read_write(app), open_dict(app):
        del app["hydra"]
    return app


def _save(config: DictConfig, app: DictConfig, folder: Path) -> None:
    if config.hydra.output_subdir is None:
        return
    saved = folder / config.hydra.output_subdir
    hydra = OmegaConf.to_container(config.hydra, enum_to_str=True)
    write_whole(saved / "config.yaml", OmegaConf.to_yaml(app))
    write_whole(saved / "hydra.yaml", yaml.dump({"hydra": hydra}, Dumper=_Dumper, sort_keys=False))
    write_whole(saved / "overrides.yaml", OmegaConf.to_yaml(config.hydra.overrides.task))


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


@contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
