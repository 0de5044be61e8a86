"""``sweeper export [STUDY] --format FORMAT``: a model as one file, for programs that know nothing of ours."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import outputs
from sweeper.commands.arrival import HERE, Source, bring_model
from sweeper.errors import named, visible
from sweeper.fault import Fault
from sweeper.program import TRUST, use
from sweeper.record.run_files import RunFiles
from sweeper.record.target import check_out
from sweeper.words import counted, disk_space, expanded

if TYPE_CHECKING:
    from sweeper.inference.export import Pixels

_CODE = {
    "onnx": "import numpy, onnxruntime, sys; from PIL import Image, ImageOps; model, picture = sys.argv[1:]; "
    'upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB"); '
    "pixels = numpy.array(upright).transpose(2, 0, 1)[None]; "
    'print(onnxruntime.InferenceSession(model).run(None, {"pictures": pixels})[0])',
    "pt2": "import sys, torch, torchvision; model, picture = sys.argv[1:]; "
    'pixels = torchvision.io.decode_image(picture, "RGB", apply_exif_orientation=True)[None]; '
    "print(torch.export.load(model).module()(pixels).detach())",
}
"""What a person may run then, with a picture of their own."""


def show(study: str | None, format: str, out: str | None, trust: bool, source: Source = HERE) -> None:
    """Write the best model of a study, or that of a folder, and say what was written.

    Args:
        out: the file; by default it has the study's name, and lies in the working folder.
        trust: whether a network of one's own that the model names may be imported.

    Raises:
        BadInput: if there is no such model, it may not be loaded, or cannot be written in this format.
        Fault: if the file cannot be written.
    """
    name = bring_model(study, source)
    with named("STUDY", "model"):
        files = outputs.find_model(name)
    weights = files.weights
    file = expanded(f"{_name(weights.absolute())}.{format}" if out is None else out)
    check_out(file, "--out", f"model.{format}", filter(None, (weights, files.card)))

    from sweeper.inference import export
    from sweeper.inference.classifier import load

    export.check_format(format)
    with _busy(f"{visible(name)} → {visible(str(file))}"):
        with named("STUDY", "model"):
            model = load(name, trust=trust)
        written = export.export(model, format, file, _real(weights.parent))
    n_classes = counted(len(model.classes), "class", "classes")
    print(f"{visible(str(file))}: {disk_space(written.n_bytes)}, {n_classes}")
    if written.n_pictures:
        pictures = counted(written.n_pictures, "picture")
        print(f"Compared: on {pictures}, its probabilities are PyTorch's to {written.difference:.0e}")
    else:
        print("Compared: the weights are the same to the last bit")
    print(f"Use it:   {_next(format, shlex.quote(str(file)), trust)}", flush=True)


def _next(format: str, file: str, trust: bool) -> str:
    """The command that says what a picture shows."""
    if format in _CODE:
        return f"python -c {shlex.quote(_CODE[format])} {file} picture.jpg"
    return use(file, f" {TRUST}" if trust else "")


def _name(weights: Path) -> str:
    """That of the study or the run, with the number of a trial that is not the best."""
    folder = weights.parent
    if weights != RunFiles(folder).weights:
        return weights.stem
    if folder.name == "best":
        return folder.parent.name
    return f"{folder.parent.name}-{folder.name}" if folder.name.isdecimal() else folder.name


def _real(folder: Path) -> Pixels | None:
    """Validation pictures of the run, where it has kept some."""
    from sweeper.results.prediction import Predictions

    with suppress(Fault):  # of no use but here: others do as well
        found = Predictions.read(RunFiles(folder))
        return None if found is None else found.thumbnails
    return None


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """A word on a terminal, which is gone at the end: it takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    # Its own stream: what is printed meanwhile goes nowhere.
    with Console(file=sys.stderr, markup=False).status(what):
        yield
