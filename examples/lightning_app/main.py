"""A Hydra app that trains with PyTorch Lightning."""

from typing import Any

import hydra
import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import sweeper
from sweeper.lightning import PruningCallback


class Classifier(pl.LightningModule):
    def __init__(self, width: int, dropout: float, optimizer: DictConfig) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.network = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, labels = batch
        return nn.functional.cross_entropy(self.network(pictures), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self) -> Any:
        return hydra.utils.instantiate(self.optimizer, self.parameters())


def digits() -> list[Dataset[tuple[Tensor, ...]]]:
    from sklearn.datasets import load_digits  # here: some of what it loads starts threads

    pictures, labels = load_digits(return_X_y=True)
    dataset = TensorDataset(torch.tensor(pictures / 16).float(), torch.tensor(labels))
    return list(random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0)))


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
@sweeper.hooks(preload=["lightning.pytorch"])
def main(config: DictConfig) -> float:
    pl.seed_everything(sweeper.trial().seed(config.seed))
    train, val = digits()
    trainer = pl.Trainer(
        callbacks=[PruningCallback("val_loss")],  # tells the search, which ends bad trials early
        default_root_dir=HydraConfig.get().runtime.output_dir,
        **config.trainer,
    )
    model = Classifier(config.width, config.dropout, config.optimizer)
    trainer.fit(model, DataLoader(train, config.batch_size, shuffle=True), DataLoader(val, 360))
    return float(trainer.callback_metrics["val_loss"])


if __name__ == "__main__":
    main()
