"""Hyperparameter search for image classifiers with Hydra and Optuna."""

from sweeper.search.hooks import Hooks
from sweeper.search.trial import trial

__version__ = "0.1.0"
__all__ = ["Hooks", "trial"]
