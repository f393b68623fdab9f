"""Pictures with a few lines about each -> one page of HTML that holds all it shows, with links to the files."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from siglip.files import replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One picture: its file, a WebP thumbnail or None, and what stands below its name."""

    path: str
    thumb: bytes | None
    lines: Sequence[str]


def write_page(file: Path, *, title: str, below: str, sections: Sequence[tuple[str, Sequence[Cell]]]) -> None:
    """Write titled grids of pictures; a section without a title has none above it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [{"title": _text(name), "cells": [_shown(cell) for cell in cells]} for name, cells in sections]
    page = environment.get_template("page.html").render(title=_text(title), below=_text(below), sections=shown)
    with replacing(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shown(cell: Cell) -> dict[str, object]:
    return {
        "path": _text(cell.path),
        "name": _text(Path(cell.path).name),
        "link": Path(cell.path).as_uri(),
        "picture": base64.b64encode(cell.thumb).decode() if cell.thumb is not None else "",
        "lines": [_text(line) for line in cell.lines],
    }


def _text(text: str) -> str:
    """What UTF-8 can hold: names of files need not."""
    return os.fsencode(text).decode("utf-8", "replace")
