"""One step: the same whether a batch goes through whole or in pieces, compiled or as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweeper import check, filesystem
from sweeper import run as runs
from sweeper.errors import BadInput
from sweeper.record.run_files import RunFiles
from sweeper.schema import Dataset, EarlyStopping, Freezing, Loss, Model, Optimizer, Run, Training
from sweeper.search.trial import trial
from sweeper.training import fit, step
from sweeper.training.data import Data, load
from sweeper.training.loss import build_loss
from sweeper.training.machine import make_repeatable
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


def losses(fitted: fit.Fitted) -> list[tuple[float, float]]:
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
    pieces = fit.fit(settings(micro_batch_size=10), few)
    torch.testing.assert_close(losses(pieces), losses(fit.fit(settings(), few)), rtol=1e-4, atol=1e-5)
    normed = [
        replace(run, model=replace(run.model, batch_norm=True))
        for run in (settings(), settings(micro_batch_size=10))
    ]
    one, other = (losses(fit.fit(run, few))[0][0] for run in normed)
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
        build_model = fit.build_model

        def build(run: Run, data: Data) -> nn.Module:
            model = build_model(run, data)
            model.register_forward_pre_hook(self._check)
            return model

        monkeypatch.setattr(fit, "build_model", build)

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
    plain = losses(fit.fit(settings(), few))
    gpu = Small(monkeypatch, holds=10)
    fitted = fit.fit(settings(), few)
    assert gpu.tried[:3] == [32, 16, 8]
    assert max(gpu.tried[3:]) == 8
    torch.testing.assert_close(losses(fitted), plain, rtol=1e-4, atol=1e-5)
    assert (
        "32 images at once do not fit the GPU's memory: now 16, with the same batch size of 32" in caplog.text
    )
    gpu.tried.clear()
    dropout = replace(settings(), model=replace(settings().model, dropout=0.1))
    fit.fit(dropout, few)
    assert max(gpu.tried) == 8
    gpu.tried.clear()
    fit.fit(settings(batch_size=4), few)
    assert max(gpu.tried) == 4  # another batch size has its own


@pytest.mark.slow
def test_one_image_that_does_not_fit_is_an_error(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    Small(monkeypatch, holds=0)
    with pytest.raises(BadInput, match=r"model.*one image of it does not fit.*image_size"):
        fit.fit(settings(), few)


@pytest.mark.parametrize("text", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory"])
def test_other_ways_to_say_full(few: Data, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    gpu = Small(monkeypatch, holds=20, error=RuntimeError(text))
    assert len(fit.fit(settings(), few).history) == 2
    assert max(gpu.tried[1:]) == 16


def test_other_errors_pass(few: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Run, data: Data) -> nn.Module:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(fit, "build_model", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit.fit(settings(), few)


def test_pieces_of_one_image_are_refused_where_batch_norm_learns_nothing(few: Data) -> None:
    run = replace(settings(micro_batch_size=1), model=Model(source="torchvision", name="resnet18"))
    with pytest.raises(BadInput, match=r"training\.micro_batch_size=1: batch norm cannot learn"):
        fit.fit(run, few)


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
    saved = check.to_run(filesystem.read_yaml(RunFiles(tmp_path).config))
    assert saved.training.micro_batch_size == 16
    assert asdict(saved.training) | {"micro_batch_size": None, "n_threads": None} == asdict(run.training)
    monkeypatch.setattr(step, "_found", {})
    gpu.tried.clear()
    again = fit.fit(saved, load(saved.dataset, CPU))
    assert [epoch.train_loss for epoch in again.history] == [row["train_loss"] for row in history]
    assert max(gpu.tried) == 16


# ------------------------------------------------------------------------------- how the network is called


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_graphs_learn_the_same(precision: str) -> None:
    """On a GPU, graphs change weights and statistics as plain steps do, also around a smaller batch."""
    gpu = torch.device("cuda")
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 4, generator=generator).to(gpu) for n in (16, 16, 5, 16)]
    labels = [torch.randint(3, (len(batch),), generator=generator).to(gpu) for batch in batches]
    ways = []
    for as_graphs in (False, True):
        make_repeatable(gpu, seed=0, tf32=False)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).to(gpu)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        training = Training(precision=precision, cuda_graphs=as_graphs)
        learn = step.Step(network, optimizer, nn.CrossEntropyLoss(), training, gpu)
        steps = [learn(inputs, wanted) for inputs, wanted in zip(batches, labels, strict=True)]
        assert isinstance(learn._network, step._Graphed) == as_graphs
        ways.append((torch.stack([loss for loss, _ in steps]), network.state_dict()))
    (plain_losses, plain), (graphed_losses, graphed) = ways
    tolerance = 1e-4 if precision == "float32" else 2e-2
    torch.testing.assert_close(graphed_losses, plain_losses, rtol=tolerance, atol=tolerance)
    for name, tensor in plain.items():
        torch.testing.assert_close(graphed[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_cuda_graphs_train_the_stages_that_unfreeze() -> None:
    """On a GPU, a training as graphs has the plain one's history, with stages that unfreeze one by one."""
    digits = load(Dataset(), torch.device("cuda"))
    few = replace(digits, train_x=digits.train_x[:100], train_y=digits.train_y[:100])
    plain, graphed = (
        losses(fit.fit(replace(run, device="cuda", freezing=Freezing("gradual", every=1)), few))
        for run in (settings(epochs=4), settings(epochs=4, cuda_graphs=True))
    )
    torch.testing.assert_close(graphed, plain, rtol=1e-3, atol=1e-4)


def test_graphs_are_for_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, with a stand-in that calls the network as torch does when it records: the first batch's
    shape becomes graphs, others run without; recording leaves the network unchanged."""
    recorded, replayed = list[tuple[int, ...]](), list[tuple[int, ...]]()

    def record_graphs(wrapped: nn.Module, samples: tuple[Tensor], allow_unused_input: bool) -> Any:
        recorded.append(tuple(samples[0].shape))
        for _ in range(3):  # as torch does, to warm up
            wrapped(samples[0]).sum().backward()

        def replay(inputs: Tensor) -> Tensor:
            replayed.append(tuple(inputs.shape))
            return wrapped(inputs)  # type: ignore[no-any-return]

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record_graphs)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    graphs, inputs = step._Graphed(network, "float32"), torch.randn(8, 4)
    graphs(inputs)
    assert network.state_dict()["1.num_batches_tracked"] == 1
    assert torch.equal(network.state_dict()["0.weight"], before["0.weight"])
    graphs(inputs[:5])
    graphs(inputs)
    assert recorded == [(8, 4)]
    assert replayed == [(8, 4), (8, 4)]


def test_no_graphs_on_a_cpu(few: Data) -> None:
    """The setting is for GPUs, and changes nothing elsewhere."""
    assert losses(fit.fit(settings(cuda_graphs=True), few)) == losses(fit.fit(settings(), few))


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
        fit.fit(replace(run, model=model, optimizer=Optimizer(lr=dropout / 100)), few)
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
