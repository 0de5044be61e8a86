"""One number that makes probabilities mean what they say."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sweeper.results.answer import calibration_error, reliability
from sweeper.training import temperature

N = 4000


def drawn(n_classes: int, several: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels that are drawn by just the probabilities that these say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(N, n_classes, generator=generator)
    if several:
        return logits, torch.bernoulli(logits.sigmoid(), generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def judged(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    loss = binary_cross_entropy_with_logits if labels.ndim == 2 else cross_entropy
    error = calibration_error(reliability(labels.numpy(), logits.numpy()))
    return float(loss(logits.double(), labels.double() if labels.ndim == 2 else labels)), error


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_a_model_too_sure_or_not_sure_enough_is_put_right(factor: float, several: bool) -> None:
    """Logits that are so many times too large give that number back, within what the pictures tell."""
    logits, labels = drawn(5, several)
    found = temperature.fit(logits * factor, labels)
    assert found == pytest.approx(factor, rel=0.06)
    before, after = judged(logits * factor, labels), judged(logits * factor / found, labels)
    assert after[0] <= before[0]
    assert factor == 1 or after[1] < before[1]


@pytest.mark.parametrize("several", [False, True])
def test_it_is_where_the_loss_is_least(several: bool) -> None:
    """No temperature beside it has a smaller loss."""
    logits, labels = drawn(3, several, seed=1)
    logits = 3 * logits
    found = temperature.fit(logits, labels)
    least = judged(logits / found, labels)[0]
    for factor in (0.99, 0.999, 1.001, 1.01):
        assert judged(logits / (found * factor), labels)[0] > least


def test_a_few_pictures_never_make_it_worse() -> None:
    """The loss on what it was fitted on is at most that of before, and it is bounded."""
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        n, several = 1 + seed % 30, seed % 2 == 1
        logits = torch.randn(n, 4, generator=generator) * 10 ** (seed % 5 - 2)
        labels = torch.randint(4, (n,), generator=generator)
        if several:
            labels = torch.randint(2, (n, 4), generator=generator).float()
        found = temperature.fit(logits, labels)
        assert temperature.LOWEST <= found <= temperature.HIGHEST
        assert judged(logits / found, labels)[0] <= judged(logits, labels)[0] + 1e-6, seed


@pytest.mark.parametrize("several", [False, True])
def test_it_is_one_where_there_is_none(several: bool) -> None:
    """Of no pictures, of a network that diverged, and where all is right: no temperature is the best."""
    logits, labels = drawn(4, several)
    right = logits.argmax(1) if labels.ndim == 1 else (logits > 0).float()
    assert temperature.fit(logits, right) == 1
    assert temperature.fit(logits[:0], labels[:0]) == 1
    assert temperature.fit(torch.full_like(logits, torch.nan), labels) == 1
    assert temperature.fit(torch.full_like(logits, torch.inf), labels) == 1
    assert temperature.fit(torch.zeros_like(logits), labels) == 1


@pytest.mark.slow
def test_many_pictures_of_many_classes_cost_little() -> None:
    """Of a large validation part as many are taken as one number needs."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 1000, generator=generator)
    labels = torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator)[:, 0]
    started = time.process_time()
    assert temperature.fit(logits, labels) == pytest.approx(1.5, rel=0.05)
    assert time.process_time() - started < 10


def test_logits_of_half_a_float_are_enough() -> None:
    """What bfloat16 gave is fitted in float64, and so are logits beyond what exp can take."""
    logits, labels = drawn(5, several=False)
    assert temperature.fit(logits.bfloat16(), labels) == pytest.approx(1, rel=0.06)
    assert temperature.fit(logits * 1e6, labels) == pytest.approx(temperature.HIGHEST)
