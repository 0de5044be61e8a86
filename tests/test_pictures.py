"""``docs/pictures.py``: the pictures of README and docs, made by the product."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.conftest import CHROMIUM
from tests.program import run

PROJECT = Path(__file__).parent.parent
WIDE, NARROW = (1280, 800), (390, 844)
SIZES = {
    "report-light.webp": WIDE,
    "report-dark.webp": WIDE,
    "report-phone.webp": NARROW,
    "importance.webp": WIDE,
    "how-sure.webp": (1280, 526),
    "certificate.webp": (1280, 450),
    "dashboard.webp": WIDE,
    "dashboard-study.webp": WIDE,
    "dashboard-note.webp": WIDE,
}
TERMINALS = ("search.svg", "search-end.svg", "best.svg", "certificate.svg")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed (Debian: apt-get install chromium)")
def test_the_script_makes_every_picture(tmp_path: Path) -> None:
    """From a search of its own: each has its size and shows something, and the script says what it wrote."""
    pytest.importorskip("playwright")
    done = run(tmp_path, PROJECT / "docs" / "pictures.py", "--quick", "--out", tmp_path / "made", limit_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "made").iterdir()} == {*SIZES, *TERMINALS}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    for name, size in SIZES.items():
        assert f"made/{name}" in done.stdout
        look(tmp_path / "made" / name, size)
    assert "Study digits:" in read(tmp_path / "made" / "search-end.svg")
    assert "expected to reach val_accuracy" in read(tmp_path / "made" / "certificate.svg")


@pytest.mark.parametrize("name", SIZES)
def test_each_picture_of_the_docs_has_its_size(name: str) -> None:
    """None is missing or empty."""
    look(PROJECT / "docs" / "pictures" / name, SIZES[name])


@pytest.mark.parametrize("name", TERMINALS)
def test_a_picture_of_a_terminal_loads_nothing(name: str) -> None:
    """It is a whole SVG of text, which needs no font from a network."""
    text = read(PROJECT / "docs" / "pictures" / name)
    assert "sweeper" in text
    assert "font-face" not in (PROJECT / "docs" / "pictures" / name).read_text()


def test_the_pictures_are_small() -> None:
    """Everybody who clones the repository takes them along."""
    pictures = list((PROJECT / "docs" / "pictures").iterdir())
    assert {*SIZES, *TERMINALS} <= {path.name for path in pictures}
    assert sum(path.stat().st_size for path in pictures) < 1_500_000


def look(path: Path, size: tuple[int, int]) -> None:
    with Image.open(path) as image:
        assert image.size == size
        assert len(image.convert("L").getcolors() or []) > 20  # more than a blank page


def read(path: Path) -> str:
    return "".join(ElementTree.parse(path).getroot().itertext()).replace("\xa0", " ")
