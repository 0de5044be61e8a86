"""Hyperparameter search for image classifiers with Hydra and Optuna."""

from sweeper.errors import BadInput
from sweeper.search.hooks import hooks
from sweeper.search.trial import trial

__version__ = "0.1.0"
__all__ = ["BadInput", "__version__", "hooks", "trial"]
