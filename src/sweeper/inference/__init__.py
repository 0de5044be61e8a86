"""Use of a trained model: pictures in, probabilities out. It needs neither the dataset, Hydra nor Optuna."""
