"""SVG, or any picture -> RGB picture on white, its longest side 64 px; and -> the bytes of a small file."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LONGEST_PX = 64
_LARGEST_SVG = 3_000_000
# a drawing that is much longer than wide leaves nothing to see at 64 px
_LONGEST_ASPECT = 8
_COLOURS = 64
_JPEG_QUALITY = 80
# levels from 0 to 255 by which a pixel must differ from white to be part of the drawing
_INK = 8


def drawn(drawing: str | Path | Image.Image, *, crop: bool = False) -> Image.Image | None:
    """SVG text, the path of an SVG or picture file, or a picture, on white; `crop` cuts the empty margin off.

    None: it is missing, cannot be drawn, or is next to nothing.
    """
    if isinstance(drawing, Path):
        if not drawing.exists():
            return None
        drawing = drawing.read_text("utf-8", "replace") if drawing.suffix == ".svg" else Image.open(drawing)
    picture = _from_svg(drawing) if isinstance(drawing, str) else _flat(drawing)
    if picture is not None and crop:
        box = drawn_box(picture)
        picture = picture.crop(box) if box and max(_sides(box)) <= _LONGEST_ASPECT * min(_sides(box)) else None
    if picture is None:
        return None
    picture = fitted(picture, enlarge=isinstance(drawing, str))
    return None if _is_blank(picture) else picture


def _from_svg(svg: str) -> Image.Image | None:
    """At several times the size; black where it says currentColor."""
    import resvg_py  # here, so that what needs no SVG runs without it

    if len(svg) > _LARGEST_SVG:
        return None
    text = svg.replace("currentColor", "#000")

    def rendered(**size: int) -> Image.Image:
        # without dpi, sizes in pt and mm are refused; looking for fonts takes longer than drawing
        png = resvg_py.svg_to_bytes(svg_string=text, skip_system_fonts="<text" not in text, dpi=96, **size)
        return Image.open(io.BytesIO(bytes(png)))

    try:
        picture = rendered(width=3 * LONGEST_PX)
        return _flat(picture if picture.width >= picture.height else rendered(height=3 * LONGEST_PX))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the renderer is no Exception
        return None


def _flat(picture: Image.Image) -> Image.Image:
    """Upright and on white."""
    picture.draft("RGB", (3 * LONGEST_PX, 3 * LONGEST_PX))  # JPEG is decoded at reduced scale, several times faster
    upright = ImageOps.exif_transpose(picture)
    canvas = Image.new("RGBA", upright.size, "white")
    canvas.alpha_composite(upright.convert("RGBA"))
    return canvas.convert("RGB")


def fitted(picture: Image.Image, *, enlarge: bool = False) -> Image.Image:
    """The longest side becomes 64 px; smaller pictures stay as they are unless `enlarge`."""
    scale = LONGEST_PX / max(picture.size)
    if scale == 1 or (scale > 1 and not enlarge):
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def drawn_box(picture: Image.Image, *, margin: float = 0.04) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is not white, and a margin round it as a share of its longer side."""
    ink = 255 - np.asarray(picture).min(axis=2) > _INK
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    rim = int(margin * max(right - left, bottom - top)) + 1 if margin else 0
    return max(0, left - rim), max(0, top - rim), min(picture.width, right + rim), min(picture.height, bottom + rim)


def _sides(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _is_blank(picture: Image.Image) -> bool:
    """Nearly one colour, or under 0.4 % of it is drawn upon."""
    pixels = np.asarray(picture)
    inked = 255 - pixels.min(axis=2) > 2 * _INK
    return int(pixels.max()) - int(pixels.min()) < 3 * _INK or float(inked.mean()) < 0.004


def encoded(picture: Image.Image, *, photo: bool) -> tuple[str, bytes]:
    """Suffix and bytes: JPEG for photos, PNG with at most 64 colours for drawings."""
    output = io.BytesIO()
    if photo:
        picture.save(output, "JPEG", quality=_JPEG_QUALITY)
        return "jpg", output.getvalue()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(output, "PNG", optimize=True)
    return "png", output.getvalue()
