"""Hyperparameter search for image classifiers with Hydra and Optuna.

All names are imported when they are first used: ``import sweeper`` takes a moment, and neither torch nor
Hydra nor Optuna.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see
    from sweeper import search as search
    from sweeper.api import Run, Study, open_study, sweep, train
    from sweeper.caller import Failed
    from sweeper.errors import BadInput
    from sweeper.fault import Fault
    from sweeper.inference.classifier import Classifier, Prediction, Predictions, load
    from sweeper.results.belief import Belief
    from sweeper.results.certificate import Certificate
    from sweeper.search.hooks import hooks
    from sweeper.search.trial import trial
else:
    _MODULES = {
        **dict.fromkeys(("Run", "Study", "open_study", "sweep", "train"), "api"),
        "Belief": "results.belief",
        "Certificate": "results.certificate",
        "Failed": "caller",
        "BadInput": "errors",
        "Fault": "fault",
        **dict.fromkeys(("Classifier", "Prediction", "Predictions", "load"), "inference.classifier"),
        "hooks": "search.hooks",
        "trial": "search.trial",
    }

    def __getattr__(name: str) -> Any:
        if name == "search":
            return import_module(f"{__name__}.search")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "search"})


__all__ = [
    "BadInput",
    "Belief",
    "Certificate",
    "Classifier",
    "Failed",
    "Fault",
    "Prediction",
    "Predictions",
    "Run",
    "Study",
    "__version__",
    "hooks",
    "load",
    "open_study",
    "sweep",
    "train",
    "trial",
]
