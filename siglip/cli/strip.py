"""Pictures -> one strip of them for the terminal: as a picture where it can show one, else as coloured half blocks."""

import base64
import io
import os
import re
import select
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["kitty", "iterm", "sixel", "blocks"]

# one picture takes so many terminal cells, and a cell is taken for so many pixels
_WIDE, _HIGH, _GAP = 18, 9, 2
_CELL_PX = (10, 20)
_ANSWER_S = 0.2


def wanted() -> bool:
    """Whether stdout is a terminal whose user wants more than plain text."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def room() -> int:
    """How many pictures fit side by side."""
    return max(1, shutil.get_terminal_size().columns // (_WIDE + _GAP))


def kind_of_terminal() -> Kind:
    """What this terminal draws: told by its environment, else asked (sixel, as VT340 and later answer)."""
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in os.environ or "kitty" in term or "ghostty" in term:
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty"):
        return "iterm"
    return "sixel" if "4" in re.findall(r"\d+", _attributes()) else "blocks"


def strip(pictures: "Sequence[Image.Image]", kind: Kind) -> str:
    """What to write to the terminal for these pictures in one row, and a line with their numbers from 1."""
    from PIL import Image, ImageOps

    cells = len(pictures) * (_WIDE + _GAP)
    row = Image.new("RGBA", (cells * _CELL_PX[0], _HIGH * _CELL_PX[1]))
    for index, picture in enumerate(pictures):
        small = ImageOps.contain(picture.convert("RGBA"), (_WIDE * _CELL_PX[0], _HIGH * _CELL_PX[1]))
        row.paste(small, (index * (_WIDE + _GAP) * _CELL_PX[0], (row.height - small.height) // 2))
    numbers = "".join(f"{number:<{_WIDE + _GAP}}" for number in range(1, len(pictures) + 1)).rstrip()
    if kind == "blocks":
        drawn = _blocks(row.resize((cells, 2 * _HIGH)))
    elif kind == "sixel":
        drawn = _sixel(row)
    else:
        buffer = io.BytesIO()
        row.save(buffer, "PNG")
        drawn = (_kitty if kind == "kitty" else _iterm)(base64.b64encode(buffer.getvalue()).decode(), cells)
    return f"{drawn}\n{numbers}\n"


def _kitty(data: str, cells: int) -> str:
    """The graphics protocol of kitty takes at most 4,096 letters at a time."""
    parts = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    heads = [f"a=T,f=100,c={cells},r={_HIGH}," if index == 0 else "" for index in range(len(parts))]
    return "".join(
        f"\x1b_G{head}m={int(index + 1 < len(parts))};{part}\x1b\\"
        for index, (head, part) in enumerate(zip(heads, parts, strict=True))
    )


def _iterm(data: str, cells: int) -> str:
    return f"\x1b]1337;File=inline=1;width={cells};height={_HIGH};preserveAspectRatio=0:{data}\x07"


def _sixel(row: "Image.Image") -> str:
    """255 colours; six pixels one above the other are one letter, and each colour of such a band is a pass over it."""
    import numpy as np

    seen = np.asarray(row)[:, :, 3] > 127
    palette = row.convert("RGB").quantize(255)
    colours = np.asarray(palette)
    table = np.asarray(palette.getpalette() or [], np.int64).reshape(-1, 3) * 100 // 255
    out = [f'\x1bP0;1q"1;1;{row.width};{row.height}']
    out += [f"#{number};2;{red};{green};{blue}" for number, (red, green, blue) in enumerate(table.tolist())]
    for top in range(0, row.height, 6):
        band, there = colours[top : top + 6], seen[top : top + 6]
        bits = 1 << np.arange(len(band))[:, None]
        passes: list[str] = []
        for number in np.unique(band[there]).tolist():
            letters = (((band == number) & there) * bits).sum(axis=0) + 63
            passes.append(f"#{number}" + "".join(map(chr, letters.tolist())))
        out.append("$".join(passes) + "-")
    return "".join(out) + "\x1b\\"


def _blocks(row: "Image.Image") -> str:
    """Two pixels a cell, one above the other."""
    lines: list[str] = []
    for y in range(0, row.height, 2):
        line = ""
        for x in range(row.width):
            above, below = (row.getpixel((x, y + step)) for step in (0, 1))
            assert isinstance(above, tuple) and isinstance(below, tuple)
            line += _block(above, below)
        lines.append(line + "\x1b[0m")
    return "\n".join(lines)


def _block(above: tuple[int, ...], below: tuple[int, ...]) -> str:
    upper, lower = (";".join(map(str, pixel[:3])) for pixel in (above, below))
    if above[3] > 127 and below[3] > 127:
        return f"\x1b[38;2;{upper};48;2;{lower}m\u2580"
    if above[3] > 127:
        return f"\x1b[0;38;2;{upper}m\u2580"
    return f"\x1b[0;38;2;{lower}m\u2584" if below[3] > 127 else "\x1b[0m "


def _attributes() -> str:
    """The terminal's answer to the question what it is; nothing where it does not answer at once."""
    try:
        import termios
        import tty

        with open(os.ctermid(), "r+b", buffering=0) as terminal:  # noqa: PTH123 (a device)
            before = termios.tcgetattr(terminal.fileno())
            try:
                tty.setcbreak(terminal.fileno())
                terminal.write(b"\x1b[c")
                answer = b""
                while not answer.endswith(b"c") and select.select([terminal], [], [], _ANSWER_S)[0]:
                    answer += os.read(terminal.fileno(), 64)
                return answer.decode("ascii", "replace")
            finally:
                termios.tcsetattr(terminal.fileno(), termios.TCSADRAIN, before)
    except (ImportError, OSError, ValueError):
        return ""
