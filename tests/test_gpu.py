"""A real GPU, by ``pytest -m gpu``. Without one, the same tests run on the CPU wherever they can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweeper import check, filesystem
from sweeper import run as runs
from sweeper.record.run_files import RunFiles
from sweeper.schema import Augmentation, Dataset, EarlyStopping, Freezing, Model, Optimizer, Run, Training
from sweeper.search.trial import trial
from sweeper.training import fit, step
from sweeper.training.data import load
from sweeper.training.source import batches_of
from tests.device import CPU, ON_BOTH
from tests.foreign_app import App, assert_exactly
from tests.program import sweeper

LIGHT = Augmentation("light", rotation_deg=10, crop_scale=[0.8, 1.0])


def settings(device: str, epochs: int = 2, batch_size: int = 64, precision: str = "float32") -> Run:
    stopping = EarlyStopping(patience=None)
    training = Training(epochs, batch_size, precision=precision, early_stopping=stopping)
    model = Model(filters=[8, 16], dropout=0.2)
    return Run(device=device, model=model, optimizer=Optimizer(name="adam", lr=3e-3), training=training)


def losses(fitted: fit.Fitted) -> list[tuple[float, float]]:
    return [(epoch.train_loss, epoch.val_loss) for epoch in fitted.history]


# ------------------------------------------------------------------------------------------------ workers


TASK = """
started()
wait_for(*(f"started-{i}" for i in range(cfg.n_workers)))  # all workers hold a trial, and its GPU, at once
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
product = torch.ones(512, 512, device=device) @ torch.ones(512, 512, device=device)
attributes = {
    "visible": os.environ["CUDA_VISIBLE_DEVICES"],
    "gpus": [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())],
    "product": product.sum().item(),
    "pid": os.getpid(),
    "server": os.getppid(),
}
for name, value in attributes.items():
    sweeper.trial().set_user_attr(name, value)
return cfg.x
"""


@pytest.mark.parametrize("device", ON_BOTH)
def test_each_worker_has_its_gpu(tmp_path: Path, device: str) -> None:
    """Two workers share each GPU, at the same time; each sees that one alone and computes on it, although it
    was forked from a process that has imported torch."""
    gpus = [str(i) for i in range(torch.cuda.device_count())] if device == "cuda" else ["3", "5"]
    n_workers = 2 * len(gpus)
    app = App(tmp_path, TASK, top="import torch")
    app.decorate('sweeper.hooks(preload=["torch"])')
    app.configure("x: 0.0\n", f"x: 0.0\nn_workers: {n_workers}\n")
    given = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    budget = ["hydra.sweeper.workers_per_gpu=2", "hydra.sweeper.n_jobs=auto"]
    done = app.run(*budget, f"hydra.sweeper.n_trials={n_workers}", env=given, limit_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spawned" not in done.stdout + done.stderr
    attributes = [trial.user_attrs for trial in assert_exactly(app, n_workers)]
    assert sorted(a["visible"] for a in attributes) == sorted(gpus * 2)
    assert {a["product"] for a in attributes} == {512.0**3}
    assert len({a["pid"] for a in attributes}) == n_workers
    assert len({a["server"] for a in attributes}) == 1
    if device == "cuda":
        assert all(len(a["gpus"]) == 1 for a in attributes)
        assert len({a["gpus"][0] for a in attributes}) == len(gpus)


@pytest.fixture(scope="module", params=ON_BOTH)
def searched_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A device, and the folder in which two workers searched on it."""
    folder, device = tmp_path_factory.mktemp("searched"), str(request.param)
    workers = "hydra.sweeper.n_jobs=2"
    budget = ["hydra.sweeper.n_trials=4", "training.epochs=3", "augmentation=light", "study=found"]
    printed = sweeper(folder, "-m", "optimizer=adam,sgd", f"device={device}", workers, *budget)
    assert "4 done" in printed or "pruned" in printed
    return device, folder


def test_a_search_says_what_it_ran_on(searched_on: tuple[str, Path]) -> None:
    """Every trial names its device, and the memory that it took there."""
    device, folder = searched_on
    run = RunFiles(folder / "outputs" / "found" / "best")
    assert run.read_result()["peak_memory_mb"] > 0
    if device == "cuda":
        assert run.read_environment()["device"] == torch.cuda.get_device_name(0)


def test_the_best_trial_is_reproduced_to_the_last_bit(searched_on: tuple[str, Path]) -> None:
    """In another process, where another one shared the GPU before."""
    assert "identical: " in sweeper(searched_on[1], "reproduce", "found")


# ----------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("device", ON_BOTH)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_repeats_to_the_last_bit(device: str, precision: str) -> None:
    """With augmentation, dropout and batch norm, in both precisions."""
    data = load(Dataset(), torch.device(device))
    run = replace(settings(device, precision=precision), augmentation=LIGHT)
    run = replace(run, model=replace(run.model, batch_norm=True))
    first, second = fit.fit(run, data), fit.fit(run, data)
    assert losses(first) == losses(second)


@pytest.mark.parametrize("device", ON_BOTH)
def test_batches_are_copied_whole(device: str) -> None:
    """What is copied while the device computes is what was asked for, in its order, however busy it is."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    chosen = list(torch.randint(2_000, (60, 100), generator=generator))
    work = torch.ones(1_000, 1_000, device=device)
    for rows, batch in zip(chosen, batches_of(pixels, chosen, torch.device(device)), strict=True):
        assert batch.device.type == device
        if device == "cuda":
            for _ in range(5):
                work = (work @ work).clamp(0, 1)
        assert torch.equal(batch.cpu(), pixels[rows])


@pytest.mark.parametrize("device", ON_BOTH)
def test_images_in_main_memory_train_the_same(device: str) -> None:
    """Whether the images fit the device changes the speed alone."""
    ways = []
    for on_device in ("true", "false"):
        data = load(Dataset(on_device=on_device), torch.device(device))
        assert data.train_x.device.type == (device if on_device == "true" else "cpu")
        ways.append(losses(fit.fit(replace(settings(device), augmentation=LIGHT), data)))
    assert ways[0] == ways[1]


@pytest.mark.parametrize("device", ON_BOTH)
def test_devices_learn_alike(device: str) -> None:
    """In float32 another device changes the loss by rounding alone, at first."""
    run = settings(device, epochs=1)
    run = replace(run, model=replace(run.model, dropout=0.0))
    on_cpu = losses(fit.fit(replace(run, device="cpu"), load(Dataset(), CPU)))
    there = losses(fit.fit(run, load(Dataset(), torch.device(device))))
    torch.testing.assert_close(there, on_cpu, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("device", ON_BOTH)
def test_frozen_stages_run_once_there(device: str) -> None:
    """Features that were computed on a device, and kept on disk, train its head to the last bit again."""
    data = load(Dataset(), torch.device(device))
    run = replace(settings(device), freezing=Freezing("head"))
    first, second = fit.fit(run, data), fit.fit(run, data)
    assert losses(first) == losses(second)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TensorFloat32")  # torch advises to use it; the setting is the person's
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_training_learns_the_same(precision: str) -> None:
    """``training.compile`` changes the speed, up to rounding."""
    data = load(Dataset(), torch.device("cuda"))
    plain = settings("cuda", precision=precision)
    plain = replace(plain, model=replace(plain.model, dropout=0.0))
    compiled = replace(plain, training=replace(plain.training, compile=True))
    tolerance = 1e-2 if precision == "float32" else 1e-1
    torch.testing.assert_close(
        losses(fit.fit(compiled, data)), losses(fit.fit(plain, data)), rtol=tolerance, atol=tolerance
    )


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of which this process may take 700 MB."""
    monkeypatch.setattr(step, "_found", {})
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(700 * 2**20 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.usefixtures("small_gpu")
def test_a_batch_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits is found and saved, and trains the same again to the last bit, without finding it again."""
    run = settings("cuda", batch_size=1024)
    model = Model(filters=[64, 64], dropout=0.0)  # some 3 MB for each image of 64 pixels
    run = replace(run, study="full", model=model, dataset=Dataset(image_size=64, on_device="false"))
    runs.train(run, tmp_path, trial())
    saved = check.to_run(filesystem.read_yaml(RunFiles(tmp_path).config))
    size = saved.training.micro_batch_size
    assert size is not None
    assert 1 < size < 1024
    assert saved.training.batch_size == 1024
    rows = RunFiles(tmp_path).read_history()
    monkeypatch.setattr(step, "_found", {})
    again = fit.fit(saved, load(saved.dataset, torch.device("cuda")))
    assert losses(again) == [(row["train_loss"], row["val_loss"]) for row in rows]
    assert step._found == {}
