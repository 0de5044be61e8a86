"""The inputs of each epoch: images or features, in batches that are read ahead."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sweeper.schema import Augmentation, Dataset, Freezing, Model, Run, Training
from sweeper.training import machine, source
from sweeper.training.augment import Augment, Variations
from sweeper.training.data import Data, load
from sweeper.training.freeze import plan
from sweeper.training.model import build
from tests.device import CPU

MODEL = Model(filters=[4, 6], hidden_units=[16])


@pytest.fixture(scope="module")
def digits() -> Data:
    return load(Dataset(), CPU)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No features of another test."""
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path))


def features_of(
    digits: Data, augmentation: Augmentation, feature_views: int = 0
) -> tuple[source.Source, Tensor]:
    """Features behind the first two stages, and the logits of the whole network for the validation images."""
    run = Run(
        model=MODEL,
        augmentation=augmentation,
        freezing=Freezing("head"),
        training=Training(
            precision="float32", n_threads=torch.get_num_threads(), feature_views=feature_views
        ),
    )
    torch.manual_seed(0)
    model = build(MODEL, 1, 8, 10).eval()
    augment, stages = Augment(augmentation, digits), plan(run.freezing, model, by_stage=True)
    found = source.of_features(run, digits, augment, model, stages, n_frozen=2)
    assert found is not None
    with torch.no_grad():
        return found, model(augment.normalize(digits.val_x[:]))


# ------------------------------------------------------------------------------------------------ sources


def test_features_and_the_rest_are_the_whole_network(digits: Data) -> None:
    """The trainable part gives for the features what the whole network gives for the images."""
    found, logits = features_of(digits, Augmentation())
    assert (found.n_frozen, found.n_views) == (2, 1)
    assert len(found.train) == len(digits.train_x)
    with torch.no_grad():
        ours = found.network.eval()(found.prepare(found.val[:], Variations()))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-5)


def test_each_epoch_draws_one_view_of_each_image(digits: Data) -> None:
    """With ``feature_views`` an epoch has one input per image, in order, and other views than the last."""
    found, _ = features_of(digits, Augmentation("some", brightness=0.5), feature_views=3)
    n, generator = len(digits.train_x), torch.Generator().manual_seed(0)
    assert len(found.train) == 3 * n
    views = torch.stack([found.train[i * n : (i + 1) * n] for i in range(3)])
    first, second = (found.draw(generator)[:] for _ in range(2))
    for drawn in (first, second):
        assert torch.all((drawn == views).flatten(2).all(2).any(0))
    assert not torch.equal(first, second)


def test_one_view_is_not_drawn(digits: Data) -> None:
    """Images are read as they are stored, and no random number is used for that."""
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    images = source.of_images(digits, Augment(Augmentation(), digits), build(MODEL, 1, 8, 10))
    assert images.draw(generator) is digits.train_x
    assert torch.equal(generator.get_state(), state)


def test_nothing_frozen_has_no_features(digits: Data) -> None:
    """Without frozen stages there is nothing to compute once."""
    model = build(MODEL, 1, 8, 10)
    stages = plan(Freezing("full"), model)
    assert source.of_features(Run(), digits, Augment(Augmentation(), digits), model, stages, 0) is None


def test_no_room_in_the_cache_is_no_error(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that cannot be cached are not used: the network then reads images."""
    monkeypatch.setenv("SWEEPER_CACHE_GB", "0")
    model = build(MODEL, 1, 8, 10)
    stages = plan(Freezing("head"), model)
    run = Run(model=MODEL, training=Training(precision="float32"))
    assert source.of_features(run, digits, Augment(Augmentation(), digits), model, stages, 1) is None


def test_forward_only_batches_follow_the_micro_batch_size(digits: Data) -> None:
    """Where memory is short for training, at most twice as many images are validated at once."""
    usual = source.n_at_once(digits)
    assert usual >= machine.AT_LEAST
    assert source.n_at_once(digits, 4) == 8
    assert source.n_at_once(digits, usual) == usual


# ------------------------------------------------------------------------------------------------ batches


def test_batches_are_the_chosen_rows_in_order(digits: Data) -> None:
    """Each batch has the images that were asked for, whether they are a tensor or rows of one."""
    chosen = [torch.tensor([5, 2]), torch.tensor([7]), torch.tensor([0, 1, 2])]
    for batch, rows in zip(source.batches_of(digits.val_x, chosen, CPU), chosen, strict=True):
        assert torch.equal(batch, digits.val_x[:][rows])


def test_reads_ahead_in_order() -> None:
    """While the first is looked at, others have been read, by another thread, but not all."""
    read, reader = list[int](), set[str]()
    enough = threading.Event()

    def slow(item: int) -> Tensor:
        read.append(item)
        reader.add(threading.current_thread().name)
        if len(read) == 1 + source.READ_AHEAD:
            enough.set()
        return torch.tensor(item)

    batches = source.ahead(slow, range(10))
    first = next(batches)
    assert enough.wait(30)
    assert first == 0
    assert len(read) <= 2 + source.READ_AHEAD
    assert [int(batch) for batch in batches] == list(range(1, 10))
    assert threading.current_thread().name not in reader


def test_reading_ahead_ends_with_its_reader() -> None:
    """Whether it breaks off or something breaks: no thread is left, and the error comes through."""
    batches = source.ahead(lambda item: torch.tensor(item), range(1000))
    next(batches)
    batches.close()  # type: ignore[attr-defined]

    def broken(item: int) -> Tensor:
        raise ValueError(f"cannot read {item}")

    with pytest.raises(ValueError, match="cannot read 0"):
        list(source.ahead(broken, range(3)))
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_batches_are_copies(digits: Data) -> None:
    """A layer may work in place, and what is mapped cannot be written to."""
    before = digits.val_x[:4].clone()
    (batch,) = source.batches_of(digits.val_x, [torch.arange(4)], CPU)
    batch.zero_()
    assert torch.equal(digits.val_x[:4], before)
    assert before.any()
