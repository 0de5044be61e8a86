"""The inputs of each epoch: images for the whole network, or features for its trainable part."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from sweeper import schema
from sweeper.training import custom, features
from sweeper.training.augment import Augment, Variations
from sweeper.training.data import Data, Pixels, Rows, place
from sweeper.training.freeze import Stage
from sweeper.training.machine import autocast_in, usually_at_once

READ_AHEAD = 2
"""Batches that wait in memory while a GPU computes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """The inputs of an epoch and the network for them: images and all of it, or features and the rest of it.

    The first ``n_frozen`` stages are frozen in these epochs. ``train`` holds ``n_views`` variations of all
    images, one after another.
    """

    train: Pixels
    val: Pixels
    network: nn.Module
    prepare: Callable[[Tensor, Variations], Tensor]
    n_frozen: int = 0
    n_views: int = 1

    def draw(self, generator: torch.Generator) -> Pixels:
        """The training inputs of an epoch: one view of each image."""
        if self.n_views == 1:
            return self.train
        assert isinstance(self.train, Tensor)
        n = len(self.train) // self.n_views
        views = torch.randint(self.n_views, (n,), generator=generator)
        return Rows(self.train, (views * n + torch.arange(n)).to(self.train.device))


def of_images(data: Data, augment: Augment, network: nn.Module) -> Source:
    """Augmented images, and the whole network."""
    return Source(data.train_x, data.val_x, network, augment.apply)


def of_features(
    run: schema.Run, data: Data, augment: Augment, model: nn.Module, stages: Sequence[Stage], n_frozen: int
) -> Source | None:
    """Features from the frozen stages, cached on disk; None if the network cannot be split or cached."""
    parts = features.cut(model, stages, n_frozen) if n_frozen else None
    if parts is None:
        return None
    frozen = parts.frozen.eval()
    statistics = data.mean.tolist(), data.std.tolist()
    at_once = n_at_once(data, run.training.micro_batch_size)
    machine = run.training.precision, run.training.n_threads, str(data.device), at_once
    code = custom.fingerprint(run.model)  # layers are traced no further
    key = features.digest(frozen, data.fingerprint, data.split, statistics, machine, code)
    about = f"{run.model.name}, {run.dataset.name}, behind {stages[n_frozen - 1].name}"

    def compute(pixels: Pixels, n_views: int, variations: Variations, name: str) -> Tensor | None:
        def batch(start: int, stop: int) -> Tensor:
            rows = torch.arange(start, stop) % len(pixels)
            some = pixels.index_select(0, rows.to(pixels.device)).to(data.device, non_blocking=True)
            return augment.apply(some, variations[start:stop])

        n = len(pixels) * n_views
        with autocast_in(run.training.precision, data.device)():
            return features.compute(frozen, n, batch, at_once, f"{key} {name}", f"{about}, {name}")

    n_views, views, name = 1, Variations(), "train"
    if augment.varies:
        n_views = run.training.feature_views
        views = augment.draw(len(data.train_x) * n_views, torch.Generator().manual_seed(0)).to(data.device)
        name = f"train, {n_views} views, {run.augmentation} {data.allow_hflip} {data.allow_vflip}"
    train, val = compute(data.train_x, n_views, views, name), compute(data.val_x, 1, Variations(), "val")
    if train is None or val is None:
        return None
    home = place(run.dataset.on_device, train.nbytes + val.nbytes, data.device)

    def prepare(batch: Tensor, _: Variations) -> Tensor:
        return features.channels_first(batch)

    return Source(train.to(home), val.to(home), parts.trained, prepare, n_frozen, n_views)


def n_at_once(data: Data, micro_batch_size: int | None = None) -> int:
    """Images per forward-only batch.

    At most twice the micro-batch size, if memory is that short: without gradients images take less of it.
    """
    usual = usually_at_once(data.device, data.side)
    return usual if micro_batch_size is None else min(usual, 2 * micro_batch_size)


# -------------------------------------------------------------------------------------------- batches


def batches_of(pixels: Pixels, chosen: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copies of the chosen rows, batch after batch, on the device.

    Rows in main memory for a GPU are gathered into pinned memory by another thread, and copied by a stream of
    their own, both while the GPU computes.
    """

    def read(rows: Tensor) -> Tensor:
        return pixels.index_select(0, rows.to(pixels.device))

    if pixels.device == device or device.type != "cuda":
        yield from map(read, chosen)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in ahead(lambda rows: read(rows).pin_memory(), chosen):
        with torch.cuda.stream(stream):
            moved = batch.to(device, non_blocking=True)
        torch.cuda.current_stream(device).wait_stream(stream)
        moved.record_stream(torch.cuda.current_stream(device))
        yield moved


def ahead(read: Callable[[T], Tensor], items: Iterable[T]) -> Iterator[Tensor]:
    """``read(item)`` for each item, in order; another thread reads the next ones meanwhile."""
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        waiting = deque[Future[Tensor]]()
        try:
            for item in items:
                waiting.append(thread.submit(read, item))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the consumer may stop early
            thread.shutdown(cancel_futures=True)
