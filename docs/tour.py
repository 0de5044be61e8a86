"""Runs examples/tour.ipynb, stores what it shows in it, and makes the page docs/tour.md of it.

python docs/tour.py           # a minute; needs nbclient and ipykernel
python docs/tour.py --page    # the page alone, of what is stored
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"
PAGE = Path(__file__).with_name("tour.md")
PICTURE = "pictures/tour.png"
"""The one that the notebook shows; beside the page."""

_NOT_SEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?=\n)|[^\n]*\r(?!\n)")
"""Of what is printed to a terminal: colours, and lines that are written over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--page", action="store_true", help="do not run the notebook")
    notebook = read()
    if not parser.parse_args().page:
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        NOTEBOOK.write_text(nbformat.writes(notebook, indent=1) + "\n")  # type: ignore[no-untyped-call]
    PAGE.write_text(page(notebook))
    (PAGE.parent / PICTURE).write_bytes(picture(notebook))


def read() -> Any:
    return nbformat.read(NOTEBOOK, 4)  # type: ignore[no-untyped-call]


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in a folder, as in an activated environment; an error of a cell is raised."""
    from nbclient import NotebookClient

    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's: jupyter brings what it looks for
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PATH": path, **quiet})
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in _code(notebook):
        cell.metadata.clear()  # when it was run
        _join_printed(cell)


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _join_printed(cell: Any) -> None:
    """Both streams as one text, as a terminal shows them in the end."""
    printed = [output for output in cell.outputs if output.output_type == "stream"]
    for output in printed[1:]:
        printed[0].text += output.text
        cell.outputs.remove(output)
    for output in printed[:1]:
        output.name, output.text = "stdout", _NOT_SEEN.sub("", output.text)


def page(notebook: Any) -> str:
    """The notebook as Markdown."""
    link = "This page is the notebook [examples/tour.ipynb](../examples/tour.ipynb), with what it has shown."
    first, *others = (_shown(cell) for cell in notebook.cells)
    return "\n\n".join([first, link, *others]) + "\n"


def _shown(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return str(cell.source)
    return "\n\n".join([f"```python\n{cell.source}\n```", *map(_output, cell.outputs)])


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.strip()}\n```"
    if "image/png" in output.data:
        return f"![A picture that the notebook shows]({PICTURE})"
    return f"```text\n{output.data['text/plain']}\n```"


def picture(notebook: Any) -> bytes:
    """The notebook's only one, as PNG."""
    (found,) = (
        output.data["image/png"]
        for cell in _code(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    )
    return base64.b64decode(found)


if __name__ == "__main__":
    main()
