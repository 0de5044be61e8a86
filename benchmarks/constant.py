"""A task that does nothing: what a sweep of it takes is the sweeper's own time. See overhead.py."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path=".", config_name="constant")
def main(config: DictConfig) -> float:
    return 1.0


if __name__ == "__main__":
    main()
