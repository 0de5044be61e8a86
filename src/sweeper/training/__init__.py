"""Image-classifier training in plain PyTorch. Never imports Hydra or Optuna."""
