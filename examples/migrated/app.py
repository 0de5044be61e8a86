"""A Hydra app that was written for the official Optuna sweeper; nothing in it speaks of a search."""

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="after", version_base="1.3")
def main(config: DictConfig) -> float:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    pictures, labels = load_digits(return_X_y=True)
    machine = SVC(C=config.svm.C, gamma=config.svm.gamma, kernel=config.svm.kernel)
    return float(cross_val_score(machine, pictures[:500], labels[:500], cv=3).mean())


if __name__ == "__main__":
    main()
