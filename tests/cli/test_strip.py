"""Pictures in a terminal: each way of drawing is read back and compared with the picture that went in."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from siglip.cli import strip

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def flags() -> list[Image.Image]:
    """Red over blue, and the other way round; both fill their place."""
    place = strip._WIDE * strip._CELL_PX[0], strip._HIGH * strip._CELL_PX[1]  # pyright: ignore[reportPrivateUsage]
    flag = Image.new("RGB", place, RED)
    flag.paste(BLUE, (0, place[1] // 2, *place))
    return [flag, flag.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """Colours at the top and the bottom of both flags."""
    x = [round(picture.width * share) for share in (0.2, 0.7)]
    rgb = picture.convert("RGB")
    return [rgb.getpixel((place, y)) for place in x for y in (5, picture.height - 5)]  # pyright: ignore[reportReturnType]


def test_kitty_and_iterm_get_the_picture_as_png(flags: list[Image.Image]):
    kitty = strip.strip(flags, "kitty")
    parts = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b", kitty)
    assert parts[0][0].startswith("a=T,f=100,c=40,r=9,")
    assert [part[0][-3:] for part in parts] == ["m=1"] * (len(parts) - 1) + ["m=0"] or len(parts) == 1
    iterm = re.search(":([A-Za-z0-9+/=]+)\x07", strip.strip(flags, "iterm"))
    assert iterm is not None
    for data in ("".join(part[1] for part in parts), iterm.group(1)):
        with Image.open(io.BytesIO(base64.b64decode(data))) as drawn:
            assert corners(drawn) == [RED, BLUE, BLUE, RED]


def test_sixels_say_what_colour_each_point_has(flags: list[Image.Image]):
    drawn = strip.strip(flags, "sixel")
    body = drawn[drawn.index("q") + 1 : drawn.index("\x1b\\\n")]
    width, height = (int(number) for number in re.findall(r"\d+", body)[2:4])
    table = {
        int(number): tuple(round(int(part) * 2.55) for part in rgb)
        for number, *rgb in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", body)
    }
    canvas = np.zeros((height + 6, width, 3), np.uint8)
    bands = body[body.rindex(";") :].split("-")[:-1]
    for top, band in enumerate(bands):
        for colour, letters in re.findall(r"#(\d+)([?-~]+)", band):
            for x, letter in enumerate(letters):
                for bit in range(6):
                    if (ord(letter) - 63) >> bit & 1:
                        canvas[6 * top + bit, x] = table[int(colour)]
    assert corners(Image.fromarray(canvas[:height])) == [RED, BLUE, BLUE, RED]


def test_half_blocks_and_numbers_stand_below_one_another(flags: list[Image.Image]):
    *lines, numbers = strip.strip(flags, "blocks").splitlines()
    assert numbers.split() == ["1", "2"] and numbers.index("2") == 20
    assert len(lines) == 9
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m\u2580")
    assert lines[-1].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m\u2580")


def test_the_terminal_is_known_by_its_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("KITTY_WINDOW_ID", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    for term, program, kind in (("xterm-kitty", "", "kitty"), ("xterm", "iTerm.app", "iterm")):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("TERM_PROGRAM", program)
        assert strip.kind_of_terminal() == kind
    assert not strip.wanted()  # nothing is drawn into a pipe
