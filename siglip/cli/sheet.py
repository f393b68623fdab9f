"""`--sheet FILE.png`: pictures with what was found out about them -> one sheet to look at, in a PNG file."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import output
from siglip.errors import clip
from siglip.files import replacing

if TYPE_CHECKING:
    from PIL import Image

    from siglip.processing import Box

MOST = 400
_CELL_PX = 192
_FRAME = (225, 29, 72)


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sheet", type=png, metavar="FILE.png", help=f"also draw the first {MOST} pictures")


def png(word: str) -> Path:
    """The type of an argument that names a PNG file to be written."""
    if not word.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{clip(repr(word))} does not end in .png")
    return Path(word)


def save(picture: "Image.Image", file: Path) -> None:
    """Write a picture as PNG, complete or not at all."""
    with replacing(file) as temporary:
        picture.save(temporary, format="PNG")


def draw(
    captions: Sequence[tuple[str, list[str]]], file: Path, good: int, boxes: "Sequence[Sequence[Box]] | None" = None
) -> None:
    """Write the sheet, with `boxes` framed in each picture, and tell how many of the `good` pictures it shows."""
    from siglip.contact_sheet import contact_sheet

    cells = [(_thumbnail(name, boxes[place] if boxes else ()), lines) for place, (name, lines) in enumerate(captions)]
    save(contact_sheet(cells, cell_px=_CELL_PX), file)
    output.say(f"{file} shows {len(captions)} of {good} pictures")


def _thumbnail(name: str, boxes: "Sequence[Box]") -> "Image.Image":
    from PIL import ImageDraw

    from siglip.download import fetched
    from siglip.processing import read_image

    picture = read_image(fetched(name), at_least_px=None if boxes else _CELL_PX)
    shrink = min(1.0, _CELL_PX / max(picture.size))
    picture.thumbnail((_CELL_PX, _CELL_PX))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        left, right = sorted((box.left * shrink, box.right * shrink))
        top, bottom = sorted((box.top * shrink, box.bottom * shrink))
        pen.rectangle((left, top, right, bottom), outline=_FRAME, width=2)
    return picture
