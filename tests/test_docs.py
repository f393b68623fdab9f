"""What the documentation shows is true: every example is run, and prints what stands below it."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip.cli.main import COMMANDS, HELP
from tests.conftest import ROOT
from tests.examples import PAGES, Example, desk, examples_of, run_examples, same
from tests.update_examples import SHEET, small_sheet


def test_every_example_of_the_documentation_and_the_help_pages_prints_what_is_shown(tmp_path: Path) -> None:
    desks = {page: desk(tmp_path / page.stem) for page in PAGES}
    documented = [example for page, folder in desks.items() for example in examples_of(page, folder)]
    assert len(documented) > 20
    # the help pages show commands alone; some are for data of one's own or a model not built in, or do not end
    own = ("data", "train", "detect", "serve")
    help_desk = str(desk(tmp_path / "help"))
    pages = {name: str(importlib.import_module(f"siglip.cli.{name}").__doc__) for name in COMMANDS} | {"siglip": HELP}
    taught = [
        Example(f"siglip {name} --help", help_desk, line.strip(), "")
        for name, page in pages.items()
        if name not in own
        for line in page.split("for example:\n")[1].split("\n\n")[0].splitlines()
        if f"siglip {name} photos" not in line
    ]
    assert len(taught) >= 3 * (len(COMMANDS) - len(own))
    printed = run_examples(documented + taught, tmp_path)
    wrong = [
        f"{example.where}: {example.code}\nprints\n{found}\nand the page says\n{example.shown}"
        for example, found in zip(documented, printed, strict=False)
        if not same(example.shown, found)
    ]
    assert not wrong, "\n".join([*wrong, "run `make docs` if what is printed is right"])
    found, expected = (np.asarray(picture.convert("L").reduce(8), float) for picture in _sheets(desks[PAGES[0]]))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2, "docs/img shows another sheet; run `make docs`"


def _sheets(folder: Path) -> list[Image.Image]:
    with Image.open(SHEET) as shown:
        return [small_sheet(folder / "sheet.png"), shown.copy()]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("penguin  0.133\n", "penguin 0.1334", True),
        ("penguin  0.133\n", "penguin  0.134\r", True),
        ("penguin  0.133", "penguin  0.135", False),
        ("1.50e-05", "1.49e-05", True),
        ("1.50e-05", "1.47e-05", False),
        ("16 pictures", "17 pictures", False),
        ("penguin 0.1", "pig 0.1", False),
        ("", "x", False),
    ],
)
def test_numbers_are_compared_to_the_digits_that_are_shown(shown: str, printed: str, expected: bool) -> None:
    assert same(shown, printed) is expected


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert (ROOT / "docs" / "img").is_dir()
