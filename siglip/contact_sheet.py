"""Pictures with captions -> one white sheet to look at. PIL only, with its built-in font."""

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from siglip.errors import InputError, UnreadableImage

_INK = (24, 24, 27)
_GREY = (113, 113, 122)
_RULE = (228, 228, 231)
_MAX_LINES = 2
_MAX_LETTERS = 300  # far more than two lines hold, since letters grow with the square


def contact_sheet(
    pictures: Sequence[tuple[Image.Image | str | Path, Sequence[str]]],
    *,
    columns: int | None = None,
    cell_px: int = 192,
) -> Image.Image:
    """Draw each picture whole in a square of `cell_px` pixels, with its captions below it; returns an RGB picture.

    The first caption is dark, the others are smaller and grey. A caption wider than the square goes over two lines and
    is cut after that; the font knows ASCII only, so accents are dropped and other letters become "?". Without
    `columns` the sheet is a little wider than high. Raises UnreadableImage for a path that holds no picture,
    InputError if there is nothing to draw.
    """
    if not pictures or cell_px < 16 or (columns is not None and columns < 1):
        raise InputError(
            f"a contact sheet needs pictures, columns >= 1 and cell_px >= 16, "
            f"got {len(pictures)} pictures, columns={columns} and cell_px={cell_px}"
        )
    if columns is None:
        columns = math.ceil(len(pictures) / max(1, round(math.sqrt(len(pictures) / 1.5))))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    blocks = [[_Caption(captions, cell_px) for _, captions in row] for row in rows]
    gap = cell_px // 8
    heights = [cell_px + max(block.height for block in row) + gap for row in blocks]
    sheet = Image.new("RGB", (columns * (cell_px + gap) + gap, sum(heights) + gap), "white")
    top = gap
    for row, captions, height in zip(rows, blocks, heights, strict=True):
        for column, ((picture, _), caption) in enumerate(zip(row, captions, strict=True)):
            left = gap + column * (cell_px + gap)
            _draw_picture(sheet, picture, (left, top), cell_px)
            caption.draw(sheet, (left, top + cell_px))
        top += height
    return sheet


class _Caption:
    """Lines of text fitted to a width; `height` in pixels includes the space above them."""

    def __init__(self, captions: Sequence[str], width: int) -> None:
        self.lines: list[tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont, int, tuple[int, int, int]]] = []
        self.height = 0
        for index, caption in enumerate(captions):
            size = max(11.0, width / 12) if index == 0 else max(10.0, width / 14)
            font = ImageFont.load_default(size)
            self.height += round(size / 2)
            for line in _wrap(caption, font, width):
                self.lines.append((line, font, self.height, _INK if index == 0 else _GREY))
                self.height += round(1.25 * size)

    def draw(self, sheet: Image.Image, corner: tuple[int, int]) -> None:
        """Write the lines below `corner`, left to right."""
        pen = ImageDraw.Draw(sheet)
        for line, font, offset, colour in self.lines:
            pen.text((corner[0], corner[1] + offset), line, fill=colour, font=font)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    plain = unicodedata.normalize("NFKD", text[:_MAX_LETTERS])
    letters = [letter if letter.isascii() else "?" for letter in plain if not unicodedata.combining(letter)]
    lines = [""]
    for word in "".join(letters).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], " ".join(lines[_MAX_LINES - 1 :])]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip() + "..."


def _draw_picture(sheet: Image.Image, picture: Image.Image | str | Path, corner: tuple[int, int], size: int) -> None:
    whole = _fitted(picture, size)
    left, top = corner[0] + (size - whole.width) // 2, corner[1] + (size - whole.height) // 2
    sheet.paste(whole, (left, top), whole)
    box = (corner[0], corner[1], corner[0] + size - 1, corner[1] + size - 1)
    ImageDraw.Draw(sheet).rectangle(box, outline=_RULE)


def _fitted(picture: Image.Image | str | Path, size: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return ImageOps.contain(picture.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
    try:
        with Image.open(picture) as opened:
            return _fitted(ImageOps.exif_transpose(opened), size)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(str(picture), f"cannot be drawn ({error}); leave it out") from error
