"""The device that every machine has."""

import torch

CPU = torch.device("cpu")
