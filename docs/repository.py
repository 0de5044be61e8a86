"""A hook of MkDocs: what a page links to in the repository comes along, so that the link works there as here.

A page writes ``[serve.py](../examples/serve.py)``, as it reads in the repository; the site keeps a copy of
that file, as text that a browser shows.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = "repository"
"""Of the copies, on the site."""

_LINK = re.compile(r"(?<=\]\()(?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page, with links out of ``docs/`` pointing to the copies."""
    from mkdocs.structure.files import File

    def to_copy(link: re.Match[str]) -> str:
        source = Path(os.path.normpath(ROOT / "docs" / Path(page.file.src_uri).parent / link["path"]))
        if not source.is_file() or not source.is_relative_to(ROOT):
            return link[0]  # MkDocs says that there is no such file
        name = f"{FOLDER}/{source.relative_to(ROOT).as_posix()}"
        uri = name if source.suffix == ".ipynb" else f"{name}.txt"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(source)))
        return os.path.relpath(uri, Path(page.file.src_uri).parent)

    return _LINK.sub(to_copy, markdown)
