"""``hydra/sweeper: sweeper_optuna``: its settings, samplers and pruners, and the class that Hydra calls."""

# No `from __future__ import annotations` here: Hydra executes this module without entering it in
# sys.modules, where a dataclass would look its string annotations up.
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig, OmegaConf

_GROUP = "hydra/sweeper"


@dataclass
class Settings:
    """The keys of ``hydra.sweeper``.

    They are of any type here, and checked in ``sweeper.search.keys``: of a wrong type Hydra itself would
    speak in five lines, with exit code 1. Only ``params`` has one, so that keys may be added to it.
    """

    _target_: str = "hydra_plugins.sweeper_optuna.plugin.OptunaSweeper"
    _recursive_: bool = False
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "auto"}])

    sampler: Any = MISSING
    """How parameters are drawn; ``hydra/sweeper/sampler=`` chooses it. Source: Bergstra et al. 2011
    (``tpe``)."""
    pruner: Any = MISSING
    """Which trials end early; ``hydra/sweeper/pruner=`` chooses it. ``auto`` is Hyperband, and none with
    several objectives. Source: Li et al. 2018."""
    direction: Any = "minimize"
    """``minimize`` or ``maximize``, or a list of them for several objectives."""
    metric_names: Any = None
    """What the value is called, or a list of names for several objectives."""
    max_resource: Any = "auto"
    """The largest step that a trial reports, for Hyperband; ``auto`` finds it out."""
    study_name: Any = None
    """Default: date and time. The name of an existing study continues it."""
    storage: Any = None
    """``memory``, a path or a URL. null: one journal file beside the folders of the studies."""
    n_trials: Any = 20
    """How many trials end COMPLETE or PRUNED, earlier runs of the study counted in; null: no limit."""
    n_jobs: Any = "auto"
    """Worker processes; ``auto`` is one for each visible GPU, or one for each core without. With
    ``hydra/launcher=`` the jobs that it starts; ``auto`` is one then."""
    workers_per_gpu: Any = 1
    """Workers that share each GPU."""
    workers_per_job: Any = "auto"
    """Worker processes of each job, where a launcher starts ``n_jobs`` jobs; ``auto`` is one for each GPU of
    the job, or one for each of its cores without."""
    join: Any = False
    """Take part in a study that runs already, on this machine or another; begin none."""
    heartbeat_s: Any = 30.0
    """How often the pool of a machine tells the storage that its workers live."""
    grace_s: Any = 120.0
    """After so long without a sign of life, other machines take a pool for dead and repeat its trials; never
    before two heartbeats."""
    artifacts: Any = None
    """Where the weights of the best trials go for other machines: a folder, or ``s3://bucket/prefix``."""
    in_process: Any = False
    """Run the trials in this process, for a debugger; needs n_jobs=1."""
    timeout_s: Any = None
    """After so many seconds no new trial starts."""
    max_retries: Any = 1
    """How often the same parameters are tried again after a worker died."""
    take_over: Any = False
    """Repeat the trials of which nobody here can tell who lives: their host is gone or had another name, or
    another program asked for them. Hosts that are heard keep theirs; looking on takes two heartbeats."""
    storage_wait_s: Any = 60.0
    """How long the storage's server is tried again while it cannot be reached."""
    max_failure_rate: Any = 0.25
    """The sweep ends when more than this part of n_trials has failed."""
    seed: Any = None
    """Random numbers of the sampler; null: other ones each time."""
    custom_search_space: Any = None
    """Dotted path of a function ``(config, trial)`` that suggests further parameters."""
    search_space: Any = None
    """What ``params`` was called before Hydra 1.2: the search says how to write it today."""
    params: dict[str, Any] | None = field(default_factory=dict)
    """What is searched where the command line does not say: sweeps by their keys, ``x: interval(0, 1)``."""


class OptunaSweeper(Sweeper):
    """Runs the trials of a study in worker processes that meet only in the storage."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self._task = task_function

    def sweep(self, arguments: list[str]) -> Any:
        try:
            from sweeper import caller
            from sweeper.search.sweep import sweep
        except KeyboardInterrupt:  # nothing has begun
            sys.exit(130)

        assert self.hydra_context is not None
        assert self.config is not None
        caller.meet()  # our own app has; another one may have been started by `sweeper certify`
        return sweep(self._settings, self.hydra_context, self._task, self.config, arguments)


_OFFICIAL = "hydra_plugins.hydra_optuna_sweeper"
_STANDS_IN = PathFinder.find_spec(_OFFICIAL, sys.modules["hydra_plugins"].__path__) is None
"""Where the official sweeper is not installed, its names mean this one: an app need not change them."""

if _STANDS_IN:
    _package, _module = ModuleType(_OFFICIAL), ModuleType(f"{_OFFICIAL}.optuna_sweeper")
    # Hydra finds a plugin by the names of its class, and imports it by them.
    _official = type("OptunaSweeper", (OptunaSweeper,), {"__module__": _module.__name__})
    vars(_module)["OptunaSweeper"], vars(_package)["optuna_sweeper"] = _official, _module
    sys.modules.update({_package.__name__: _package, _module.__name__: _module})


class NotInstalled(Launcher):
    """Stands in for a launcher whose package is missing, so that a search can say which one in a line."""

    def __init__(self, install: str, **settings: Any) -> None:
        self._install = install

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        raise RuntimeError(f"this launcher is not installed: {self._install}")

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        raise NotImplementedError


_LAUNCHERS = {
    "submitit_slurm": ("hydra_submitit_launcher", '"sweeper[slurm]"'),
    "submitit_local": ("hydra_submitit_launcher", '"sweeper[slurm]"'),
    "ray": ("hydra_ray_launcher", '"sweeper[ray]"'),
    "joblib": ("hydra_joblib_launcher", "hydra-joblib-launcher"),
    "rq": ("hydra_rq_launcher", "hydra-rq-launcher"),
}
"""The options of ``hydra/launcher`` that other packages bring: their modules, and what installs them."""


def _optuna(target: str, *arguments: str, **given: Any) -> Mapping[str, Any]:
    """A node that names an Optuna class. What stays missing (``???``) keeps Optuna's own default."""
    return {"_target_": f"optuna.{target}", **dict.fromkeys(arguments, MISSING), **given}


_GENETIC = (
    *("population_size", "mutation", "mutation_prob", "crossover", "crossover_prob", "swapping_prob"),
    *("constraints_func", "seed"),
)

# Every argument of the official sweeper's files, and of Optuna's.
_SAMPLERS = {
    "tpe": _optuna(
        "samplers.TPESampler",
        *("consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"),
        *("n_startup_trials", "n_ei_candidates", "multivariate", "group", "warn_independent_sampling"),
        *("constant_liar", "constraints_func", "seed"),
    ),
    "random": _optuna("samplers.RandomSampler", "seed"),
    "qmc": _optuna(
        "samplers.QMCSampler",
        *("qmc_type", "scramble", "independent_sampler"),
        *("warn_asynchronous_seeding", "warn_independent_sampling", "seed"),
    ),
    "gp": _optuna(
        "samplers.GPSampler",
        *("independent_sampler", "n_startup_trials", "deterministic_objective"),
        *("constraints_func", "warn_independent_sampling", "seed"),
    ),
    "cmaes": _optuna(
        "samplers.CmaEsSampler",
        *("x0", "sigma0", "n_startup_trials", "independent_sampler", "warn_independent_sampling"),
        *("consider_pruned_trials", "restart_strategy", "popsize", "inc_popsize", "use_separable_cma"),
        *("with_margin", "lr_adapt", "source_trials", "seed"),
    ),
    "grid": _optuna("samplers.GridSampler", "search_space", "seed", _partial_=True),
    "nsgaii": _optuna("samplers.NSGAIISampler", *_GENETIC),
    "nsgaiii": _optuna("samplers.NSGAIIISampler", *_GENETIC, "reference_points", "dividing_parameter"),
    "motpe": _optuna(
        "samplers.MOTPESampler",  # no more in Optuna: the search says what to write
        *("consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"),
        *("n_startup_trials", "n_ehvi_candidates", "seed"),
    ),
}

_HYPERBAND = ("min_resource", "max_resource", "reduction_factor", "bootstrap_count")

_PRUNERS: dict[str, Mapping[str, Any]] = {
    # Hyperband, or none with several objectives. An app's own _target_ takes the place of the mark, and what
    # stays missing is dropped.
    "auto": {"_target_": "auto", **dict.fromkeys(_HYPERBAND, MISSING)},
    "hyperband": _optuna("pruners.HyperbandPruner", *_HYPERBAND),
    "asha": _optuna(
        "pruners.SuccessiveHalvingPruner",
        *("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count"),
    ),
    "median": _optuna(
        "pruners.MedianPruner", "n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials"
    ),
    "percentile": _optuna(
        "pruners.PercentilePruner",
        *("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials"),
        percentile=25.0,
    ),
    "patient": _optuna("pruners.PatientPruner", "min_delta", wrapped_pruner=None, patience=5),
    "threshold": _optuna("pruners.ThresholdPruner", "lower", "upper", "n_warmup_steps", "interval_steps"),
    "none": _optuna("pruners.NopPruner"),
}

_store = ConfigStore.instance()
for _name, (_module_name, _install) in _LAUNCHERS.items():
    if PathFinder.find_spec(f"hydra_plugins.{_module_name}", sys.modules["hydra_plugins"].__path__) is None:
        _missing = {"_target_": f"{__name__}.NotInstalled", "install": f"pip install {_install}"}
        # It takes whatever keys are typed: the real one would have them.
        _any = OmegaConf.create(_missing, flags={"struct": False})
        _store.store(group="hydra/launcher", name=_name, node=_any, provider="sweeper")
_store.store(group=_GROUP, name="sweeper_optuna", node=Settings, provider="sweeper")
if _STANDS_IN:
    _store.store(group=_GROUP, name="optuna", node=Settings, provider="sweeper")
_others = {} if _STANDS_IN else _store.repo.get("hydra", {}).get("sweeper", {}).get("sampler", {})
for _name, _node in _SAMPLERS.items():
    if f"{_name}.yaml" not in _others:  # the official sweeper could not do with our missing values
        _store.store(group=f"{_GROUP}/sampler", name=_name, node=_node, provider="sweeper")
for _name, _node in _PRUNERS.items():
    _store.store(group=f"{_GROUP}/pruner", name=_name, node=_node, provider="sweeper")
