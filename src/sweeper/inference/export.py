"""A model as one file: a program in ONNX or of torch.export, which needs nothing of ours, or its weights.

What is written was compared with PyTorch first, on pictures of several sizes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sweeper.card import Card
from sweeper.errors import BadInput, one_of
from sweeper.fault import find_fault
from sweeper.filesystem import whole
from sweeper.inference.classifier import Classifier
from sweeper.inference.pipeline import Pipeline, Scorer
from sweeper.record.run_files import CARD
from sweeper.record.target import check_out
from sweeper.training import state
from sweeper.words import disk_space, one_line

FORMATS = ("onnx", "pt2", "safetensors")
MOST_DIFFERENCE = 1e-4
"""Of two probabilities that are called equal."""
PICTURES, PROBABILITIES = "pictures", "probabilities"
"""What an exported model takes and gives."""

_KEY = "--format"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_ONNX_BYTES = 2 * 10**9
"""Protocol Buffers hold no more, so that weights would go to a second file."""
_REMEDY = "write --format safetensors, which needs its code"

Pixels = NDArray[np.uint8]
Runs = Callable[[Pixels], NDArray[np.float32]]
"""From pictures (n, channels, height, width) to probabilities."""


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest difference from PyTorch on so many pictures."""

    file: Path
    n_bytes: int
    n_pictures: int
    difference: float


def export(model: Classifier, format: str, out: Path, real: Pixels | None = None) -> Exported:
    """Write a model to one file, whole or not at all.

    ONNX and pt2 take ``pictures``, uint8 (n, channels, height, width) of any number and size as they are
    decoded, and give ``probabilities`` (n, n_classes). They hold the card, the classes and, for several
    labels, the thresholds as JSON.

    Args:
        format: one of ``FORMATS``.
        real: pictures (k, height, width, channels) on which it is compared; None takes made ones.

    Raises:
        BadInput: if there is no such format, or a package for it is missing; if the weights are not finite;
            if the network cannot be traced, or says something else afterwards.
        Fault: if the file cannot be written.
    """
    check_format(format)
    check_out(out, "--out", f"model.{format}")
    tensors = state.of(model.module)
    _check_finite(tensors)
    with whole(out) as path, _quiet():
        if format == "safetensors":
            n_pictures, difference = _write_safetensors(model.card, tensors, path)
        else:
            n_pictures, difference = _write_program(model, format, path, real)
        n_bytes = path.stat().st_size
    return Exported(out, n_bytes, n_pictures, difference)


def check_format(format: str) -> None:
    """Raises BadInput for a format that there is not, or that needs a package which is missing."""
    if format not in FORMATS:
        raise BadInput(_KEY, format, "there is no such format", one_of(format, FORMATS))
    missing = [name for name in _PACKAGES if find_spec(name) is None] if format == "onnx" else []
    if missing:
        reason = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise BadInput(_KEY, format, reason, 'pip install "sweeper[onnx]"')


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            reason = "has weights that are no numbers: its training diverged"
            raise BadInput("model", name, reason, "export another trial, by its folder")


# ------------------------------------------------------------------------------------------ its own weights


def _write_safetensors(card: Card, tensors: dict[str, Tensor], path: Path) -> tuple[int, float]:
    """The weights with their card, which ``load`` reads; they are the same to the last bit."""
    digest = state.digest(tensors)
    path.write_bytes(save(tensors, {CARD: replace(card, weights_digest=digest).to_json()}))
    state.read(path, digest)
    return 0, 0.0


# --------------------------------------------------------------------------------- programs without our code


def _write_program(model: Classifier, format: str, path: Path, real: Pixels | None) -> tuple[int, float]:
    """How many pictures were compared, and how far the file is from PyTorch."""
    network = copy.deepcopy(model.module).cpu().eval().requires_grad_(False)  # else .numpy() would fail
    pipeline = Pipeline(Scorer(network, model.card), model.card).eval()
    program = _traced(pipeline, model.card, format)
    try:
        _WRITERS[format](program, model.card, path)
        runs = _RUNNERS[format](path)
        differences = [
            _difference(runs(pictures), pipeline.scorer, pictures, model)
            for pictures in _cases(model.card, real)
        ]
    except Exception as error:
        if isinstance(error, BadInput) or find_fault(error) is not None:
            raise
        reason = f"its network cannot be written in this format ({_first_line(error)})"
        raise BadInput(_KEY, format, reason, _REMEDY) from error
    difference = max(far for far, _ in differences)
    if not difference <= MOST_DIFFERENCE:
        reason = f"its probabilities differ from PyTorch's by {difference:.1e}, more than {MOST_DIFFERENCE}"
        raise BadInput(_KEY, format, reason, _REMEDY)
    return sum(n for _, n in differences), difference


def _traced(pipeline: Pipeline, card: Card, format: str) -> ExportedProgram:
    """The program of any number of pictures of any size.

    Raises:
        BadInput: if the network's code depends on what it sees, or on how many pictures there are.
    """
    side = pipeline.resize.stored
    # No two sizes are equal: those would be taken for one.
    example = torch.zeros(2, 3, side + 3, side + 8, dtype=torch.uint8)
    shapes = {0: Dim("n"), 2: Dim("height"), 3: Dim("width")}
    if card.pixel_channels == 1:
        shapes[1] = Dim("channels", min=1, max=3)
    # What torch.cond has compiled of a model before holds for the sizes of that one alone.
    torch.compiler.reset()
    try:
        with torch.no_grad():
            return torch.export.export(pipeline, (example,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:
        if find_fault(error) is not None:
            raise
        reason = f"its network cannot be traced ({_first_line(error)})"
        raise BadInput(_KEY, format, reason, _REMEDY) from error


def _difference(
    said: NDArray[np.float32], scorer: nn.Module, pictures: Pixels, model: Classifier
) -> tuple[float, int]:
    """The largest between the file's probabilities and PyTorch's for pictures that Pillow resizes."""
    seen = torch.stack([model.transform(picture.transpose(1, 2, 0)) for picture in pictures])
    with torch.inference_mode():
        expected = scorer(seen).numpy()
    return float(np.abs(said - expected).max()), len(pictures)


def _cases(card: Card, real: Pixels | None) -> Iterator[Pixels]:
    """Pictures (n, channels, height, width): one that is tall, two that are wide, and a larger number."""
    pool = _made() if real is None or not len(real) else real
    side = card.stored_side
    for n, width, height in ((1, side, 2 * side + 3), (2, 3 * side + 1, side + 2), (17, side + 1, side + 4)):
        chosen = [Image.fromarray(pool[i % len(pool)].squeeze()) for i in range(n)]
        mode = "L" if card.pixel_channels == 1 else "RGB"
        resized = [np.asarray(image.convert(mode).resize((width, height))) for image in chosen]
        yield np.stack(resized).reshape(n, height, width, -1).transpose(0, 3, 1, 2).copy()


def _made() -> Pixels:
    """Blots of colour, from soft to sharp."""
    rng, side = np.random.default_rng(0), 64
    drawn = [rng.integers(0, 256, (2 + i, 2 + i, 3), dtype=np.uint8) for i in range(17)]
    return np.stack([np.asarray(Image.fromarray(blots).resize((side, side))) for blots in drawn])


# ------------------------------------------------------------------------------------------------ formats


def _texts(card: Card) -> dict[str, str]:
    """What stands beside the program, as JSON by its name."""
    texts = {CARD: card.to_json(), "classes": json.dumps(card.classes, ensure_ascii=False)}
    return texts if card.thresholds is None else {**texts, "thresholds": json.dumps(card.thresholds)}


def _write_pt2(program: ExportedProgram, card: Card, path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files=_texts(card))


def _run_pt2(path: Path) -> Runs:
    with path.open("rb") as file:
        program = torch.export.load(file).module()

    def run(pictures: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(program(torch.from_numpy(pictures)).numpy())

    return run


def _write_onnx(program: ExportedProgram, card: Card, path: Path) -> None:
    n_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if n_bytes > _ONNX_BYTES:
        reason = f"the weights take {disk_space(n_bytes)}, and one file of ONNX holds 2 GB"
        raise BadInput(_KEY, "onnx", reason, "write --format pt2")
    sizes = {0: "n", 2: "height", 3: "width", **({1: "channels"} if card.pixel_channels == 1 else {})}
    made = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=[PICTURES],
        output_names=[PROBABILITIES],
        dynamic_shapes=(sizes,),  # for their names
    )
    assert made is not None
    made.model.metadata_props.update(_texts(card))
    made.save(path, external_data=False)


def _run_onnx(path: Path) -> Runs:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda pictures: np.asarray(session.run([PROBABILITIES], {PICTURES: pictures})[0])


_WRITERS: dict[str, Callable[[ExportedProgram, Card, Path], None]] = {"onnx": _write_onnx, "pt2": _write_pt2}
_RUNNERS: dict[str, Callable[[Path], Runs]] = {"onnx": _run_onnx, "pt2": _run_pt2}


# ------------------------------------------------------------------------------------------- torch's words


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and its exporters print, log and warn of meanwhile."""
    level, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _first_line(error: Exception) -> str:
    lines = (one_line(line) for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
