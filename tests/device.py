"""The devices of the tests."""

import pytest
import torch

CPU = torch.device("cpu")
"""The one that every machine has."""

ON_BOTH = [
    pytest.param("cpu", marks=pytest.mark.slow),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.slow]),
]
"""For a test that says the same of every device."""
