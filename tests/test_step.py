"""One step: the same whether a batch goes through whole or in pieces, compiled or as graphs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweeper import check, record
from sweeper import run as runs
from sweeper.errors import BadInput
from sweeper.record import RunFiles
from sweeper.schema import Dataset, EarlyStopping, Loss, Model, Optimizer, Run, Training
from sweeper.search.trial import trial
from sweeper.training import fit as fitting
from sweeper.training import source, step
from sweeper.training.data import Data, load
from sweeper.training.loss import build_loss
from tests.device import CPU


@pytest.fixture(scope="module")
def few() -> Data:
    """100 digits to train on."""
    digits = load(Dataset(), CPU)
    return replace(digits, train_x=digits.train_x[:100], train_y=digits.train_y[:100])


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(step, "_found", {})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(epochs: int = 2, batch_size: int = 32, **given: Any) -> Run:
    stopping = EarlyStopping(patience=None)
    training = Training(epochs, batch_size, precision="float32", early_stopping=stopping, **given)
    model = Model(filters=[4, 6], hidden_units=[16], dropout=0.0)
    return Run(device="cpu", model=model, optimizer=Optimizer(name="sgd", lr=0.05), training=training)


def losses(fitted: fitting.Fitted) -> list[tuple[float, float]]:
    return [(epoch.train_loss, epoch.val_loss) for epoch in fitted.history]


# ------------------------------------------------------------------------------------------- in pieces


@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(label_smoothing=0.2),
        Loss(class_weights=[0.1, 1.0, 7.0]),
        Loss(class_weights=[0.1, 1.0, 7.0], label_smoothing=0.2),
        Loss(name="bce_with_logits", pos_weight=[0.5, 1.0, 4.0]),
    ],
    ids=lambda loss: f"{loss.name} {loss.class_weights} {loss.label_smoothing}",
)
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_gradients_of_pieces_are_the_batchs(loss: Loss, at_once: int) -> None:
    """A batch of 11 in pieces learns what it learns as a whole, whatever its loss weighs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (11,), generator=generator)
    if loss.name == "bce_with_logits":
        labels = (torch.rand(11, 3, generator=generator) < 0.4).double()
    ways = []
    for size in (None, at_once):
        torch.manual_seed(0)
        network = nn.Linear(4, 3).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        loss_of = build_loss(loss, labels, 3, CPU)
        training = Training(micro_batch_size=size, precision="float32")
        learn = step.Step(network, optimizer, loss_of, training, CPU)
        mean, predictions = learn(inputs, labels)
        ways.append((mean, predictions, network.weight.detach(), network.bias.detach()))
    assert not torch.equal(ways[0][2], nn.Linear(4, 3).weight)
    for whole, pieces in zip(*ways, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-6)


def test_micro_batches_train_the_same(few: Data) -> None:
    """Without batch norm a training in pieces differs in the last bits alone; with it, it is another."""
    pieces = fitting.fit(settings(micro_batch_size=10), few)
    torch.testing.assert_close(losses(pieces), losses(fitting.fit(settings(), few)), rtol=1e-4, atol=1e-5)
    normed = [
        replace(run, model=replace(run.model, batch_norm=True))
        for run in (settings(), settings(micro_batch_size=10))
    ]
    one, other = (losses(fitting.fit(run, few))[0][0] for run in normed)
    assert abs(one - other) > 1e-4


class Small:
    """A GPU's memory: more images than ``holds`` do not fit."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        holds: int,
        from_call: int = 0,
        error: Exception | None = None,
    ) -> None:
        self.holds, self.from_call, self.tried = holds, from_call, list[int]()
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        build_model = fitting.build_model

        def build(run: Run, data: Data) -> nn.Module:
            model = build_model(run, data)
            model.register_forward_pre_hook(self._check)
            return model

        monkeypatch.setattr(fitting, "build_model", build)

    def _check(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if not module.training:
            return
        self.tried.append(len(inputs[0]))
        if self.tried[-1] > self.holds and len(self.tried) > self.from_call:
            raise self.error


def test_a_batch_that_does_not_fit_is_split(
    few: Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Halved until it fits, with the history of the whole batch; the next trial begins with the same size."""
    plain = losses(fitting.fit(settings(), few))
    gpu = Small(monkeypatch, holds=10)
    fitted = fitting.fit(settings(), few)
    assert gpu.tried[:3] == [32, 16, 8]
    assert max(gpu.tried[3:]) == 8
    torch.testing.assert_close(losses(fitted), plain, rtol=1e-4, atol=1e-5)
    assert (
        "32 images at once do not fit the GPU's memory: now 16, with the same batch size of 32" in caplog.text
    )
    gpu.tried.clear()
    dropout = replace(settings(), model=replace(settings().model, dropout=0.1))
    fitting.fit(dropout, few)
    assert max(gpu.tried) == 8
    gpu.tried.clear()
    fitting.fit(settings(batch_size=4), few)
    assert max(gpu.tried) == 4  # another batch size has its own


def test_one_image_that_does_not_fit_is_an_error(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    Small(monkeypatch, holds=0)
    with pytest.raises(BadInput, match=r"model.*one image of it does not fit.*image_size"):
        fitting.fit(settings(), few)


@pytest.mark.parametrize("text", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory"])
def test_other_ways_to_say_full(few: Data, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    gpu = Small(monkeypatch, holds=20, error=RuntimeError(text))
    assert len(fitting.fit(settings(), few).history) == 2
    assert max(gpu.tried[1:]) == 16


def test_other_errors_pass(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Run, data: Data) -> nn.Module:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(fitting, "build_model", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fitting.fit(settings(), few)


def test_pieces_of_one_image_are_refused_where_batch_norm_learns_nothing(few: Data) -> None:
    run = replace(settings(micro_batch_size=1), model=Model(source="torchvision", name="resnet18"))
    with pytest.raises(BadInput, match=r"training\.micro_batch_size=1: batch norm cannot learn"):
        fitting.fit(run, few)


def test_files_of_a_second_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that fills up in the second epoch: training begins again, and the files are as if it had begun
    so; from them it is trained again without a failure."""
    gpu = Small(monkeypatch, holds=20, from_call=50)
    run = replace(settings(epochs=3), study="full")
    runs.train(run, tmp_path, trial())
    assert 32 in gpu.tried[:50]
    assert max(gpu.tried[52:]) == 16
    history = RunFiles(tmp_path).read_history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    saved = check.to_run(record.read_yaml(RunFiles(tmp_path).config))
    assert saved.training.micro_batch_size == 16
    assert asdict(saved.training) | {"micro_batch_size": None, "n_threads": None} == asdict(run.training)
    monkeypatch.setattr(step, "_found", {})
    gpu.tried.clear()
    again = fitting.fit(saved, load(saved.dataset, CPU))
    assert [epoch.train_loss for epoch in again.history] == [row["train_loss"] for row in history]
    assert max(gpu.tried) == 16


# ------------------------------------------------------------------------------------------ read ahead


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


def test_batches_are_copies(few: Data) -> None:
    """A layer may work in place, and what is mapped cannot be written to."""
    before = few.val_x[:4].clone()
    (batch,) = source.batches_of(few.val_x, [torch.arange(4)], CPU)
    batch.zero_()
    assert torch.equal(few.val_x[:4], before)
    assert before.any()


# ------------------------------------------------------------------------------- how the network is called


def test_graphs_are_for_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch's shape becomes graphs, others go the plain way; the network stays as it was."""
    made = list[tuple[int, ...]]()
    replayed = list[tuple[int, ...]]()

    def make(whole: nn.Module, samples: tuple[Tensor], allow_unused_input: bool) -> Any:
        made.append(tuple(samples[0].shape))
        for _ in range(3):  # as torch does, to warm up
            whole(samples[0]).sum().backward()

        def replay(inputs: Tensor) -> Tensor:
            replayed.append(tuple(inputs.shape))
            return whole(inputs)  # type: ignore[no-any-return]

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    graphs = step._Graphed(network, "float32")
    inputs = torch.randn(8, 4)
    with torch.no_grad():
        graphs._record = lambda x, record=graphs._record: torch.enable_grad()(record)(x)  # type: ignore[method-assign, misc]
        graphs(inputs)
        after_one = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        graphs(inputs[:5])
    assert made == [(8, 4)]
    assert replayed == [(8, 4)]
    assert after_one["1.num_batches_tracked"] == 1
    assert torch.equal(after_one["0.weight"], before["0.weight"])


def test_no_graphs_on_a_cpu(few: Data) -> None:
    """The setting is for GPUs, and changes nothing elsewhere."""
    assert losses(fitting.fit(settings(cuda_graphs=True), few)) == losses(fitting.fit(settings(), few))


@pytest.mark.slow
def test_trials_share_a_compiled_graph(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other learning rates, dropouts and batch sizes compile nothing anew: only other layers do."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="aot_eager"))

    def graphs_after(dropout: float, batch_size: int, filters: int = 4) -> int:
        run = settings(batch_size=batch_size, compile=True)
        model = replace(run.model, dropout=dropout, filters=[filters, 6])
        fitting.fit(replace(run, model=model, optimizer=Optimizer(lr=dropout / 100)), few)
        return int(counters["stats"]["unique_graphs"])

    settled = [graphs_after(0.5, 32), graphs_after(0.4, 48)][-1]
    assert [graphs_after(rate, size) for rate, size in [(0.3, 32), (0.45, 64), (0.35, 16)]] == 3 * [settled]
    assert graphs_after(0.3, 32, filters=5) > settled


def test_compiled_dropout_is_dropouts(few: Data) -> None:
    """It silences as many and scales the others as torch's, and nothing in evaluation."""
    dropout = step._Dropout(0.3)
    x = torch.ones(100_000)
    torch.manual_seed(0)
    out = dropout(x)
    assert abs((out == 0).float().mean() - 0.3) < 0.01
    torch.testing.assert_close(out[out != 0].unique(), torch.tensor([1 / 0.7]))
    assert torch.equal(dropout.eval()(x), x)
    assert not dropout.state_dict()
