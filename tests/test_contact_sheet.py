"""A sheet shows each picture whole, in its place, with its captions below it and nothing outside of its column."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip.contact_sheet import contact_sheet
from siglip.errors import InputError, UnreadableImage

RED, BLUE = Image.new("RGB", (50, 50), "red"), Image.new("RGB", (80, 40), "blue")
CELL, GAP = 96, 12


def pixels(*arguments: object, **options: object) -> np.ndarray:
    return np.asarray(contact_sheet(*arguments, cell_px=CELL, **options)).astype(int)  # type: ignore[arg-type]


def test_pictures_stand_side_by_side_enlarged_to_their_square_and_centred() -> None:
    sheet = pixels([(RED, []), (BLUE, [])], columns=2)
    assert sheet.shape == (CELL + 2 * GAP, 2 * CELL + 3 * GAP, 3)
    middle = GAP + CELL // 2
    assert tuple(sheet[middle, middle]) == (255, 0, 0)
    assert tuple(sheet[GAP + 5, GAP + 5]) == (255, 0, 0)
    right = GAP + CELL + GAP
    assert tuple(sheet[middle, right + 2]) == (0, 0, 255)
    assert tuple(sheet[GAP + 20, right + CELL // 2]) == (255, 255, 255)  # above the wide picture
    blue = (sheet == (0, 0, 255)).all(axis=2)[:, right + CELL // 2]
    assert blue.sum() == CELL // 2
    assert (sheet[:GAP] == 255).all()
    assert (sheet[:, -GAP:] == 255).all()


def test_captions_stand_below_their_picture_the_first_darker() -> None:
    plain = pixels([(RED, [])], columns=1)
    sheet = pixels([(RED, ["best", "second"])], columns=1)
    assert sheet.shape[0] > plain.shape[0] + 20
    text = sheet[GAP + CELL :].min(axis=(1, 2))
    inked = np.flatnonzero(text < 250)
    breaks = np.flatnonzero(np.diff(inked) > 2)
    first, second = inked[: breaks[0] + 1], inked[breaks[-1] + 1 :]
    assert text[first].min() < text[second].min() < 200


@pytest.mark.parametrize(
    "caption",
    ["a very long caption " * 20, "x" * 300, "\u041a\u043e\u0448\u043a\u0430 \u732b" * 30, "W" * 11, "word " * 100_000],
)
def test_a_long_caption_is_wrapped_and_cut_to_its_column_and_two_lines(caption: str) -> None:
    sheet = pixels([(RED, [caption]), (RED, [])], columns=2)
    beyond = sheet[GAP + CELL :, GAP + CELL + 1 :]
    assert (beyond == 255).all()
    two_lines = pixels([(RED, ["word " * 20]), (RED, [])], columns=2)
    assert sheet.shape[0] <= two_lines.shape[0]


def test_accents_are_dropped_and_letters_the_font_lacks_are_marked() -> None:
    assert np.array_equal(pixels([(RED, ["caf\u00e9"])]), pixels([(RED, ["cafe"])]))
    assert np.array_equal(pixels([(RED, ["\u732b"])]), pixels([(RED, ["?"])]))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (6, 3), (16, 6), (17, 6), (40, 8)])
def test_the_sheet_chooses_columns_that_make_it_a_little_wider_than_high(count: int, columns: int) -> None:
    sheet = pixels([(RED, [])] * count)
    assert sheet.shape[1] == columns * (CELL + GAP) + GAP
    assert sheet.shape[0] == -(-count // columns) * (CELL + GAP) + GAP


def test_transparent_pictures_lie_over_white_and_paths_are_opened_upright(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert (pixels([(clear, [])])[GAP + 1 : GAP + CELL - 1, GAP + 1 : GAP + CELL - 1] == 255).all()
    stored = Image.new("RGB", (10, 10), "red")
    stored.paste((0, 0, 255), (0, 5, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 3
    stored.save(tmp_path / "a.png", exif=exif)
    sheet = pixels([(tmp_path / "a.png", []), (str(tmp_path / "a.png"), [])], columns=1)
    assert tuple(sheet[GAP + 10, GAP + 10]) == (0, 0, 255)
    assert tuple(sheet[GAP + CELL - 10, GAP + 10]) == (255, 0, 0)


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableImage, match=r"fake\.png: cannot be drawn"):
        contact_sheet([(tmp_path / "fake.png", [])])
    for pictures, options in (([], {}), ([(RED, [])], {"columns": 0}), ([(RED, [])], {"cell_px": 4})):
        with pytest.raises(InputError, match="needs pictures, columns >= 1 and cell_px >= 16"):
            contact_sheet(pictures, **options)
