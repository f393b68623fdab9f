"""Augmentation: the checkpoint's own pixels when nothing is asked for, and else a pure function of the generator."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from siglip.config import ImageSettings
from siglip.data.augment import OPERATIONS, Augment, crop_box, randaugmented, recoloured, white_around
from siglip.errors import ConfigError, UnreadableImage
from siglip.processing import SiglipImageProcessor

ANY_TIME = settings(deadline=None)
PROCESSOR = SiglipImageProcessor(ImageSettings(image_size=32))
EVERYTHING = Augment(crop_area=0.3, flip=0.5, recolour=0.5, randaugment=2, strength=0.7)


def photograph(width: int = 50, height: int = 40) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def drawing(colour: tuple[int, int, int], hole: bool = False) -> np.ndarray:
    picture = Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 24, 24), fill=colour)
    if hole:
        ImageDraw.Draw(picture).ellipse((13, 13, 19, 19), fill="white")
    return np.asarray(picture)


def test_by_default_the_pixels_are_those_of_the_checkpoint() -> None:
    expected = PROCESSOR.pixels(photograph())
    assert np.array_equal(Augment().pixels(photograph(), PROCESSOR, Random(0)), expected)


@ANY_TIME
@given(st.integers(0, 2**32))
def test_equal_generators_give_equal_pixels(seed: int) -> None:
    first, second = (EVERYTHING.pixels(photograph(), PROCESSOR, Random(seed)) for _ in range(2))
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)


def test_visits_differ() -> None:
    results = {EVERYTHING.pixels(photograph(), PROCESSOR, Random(seed)).tobytes() for seed in range(50)}
    assert len(results) == 50


def test_flip_is_the_mirror_image() -> None:
    expected = PROCESSOR.pixels(photograph())[:, ::-1]
    assert np.array_equal(Augment(flip=1.0).pixels(photograph(), PROCESSOR, Random(0)), expected)


def test_a_crop_is_squashed_like_a_whole_picture() -> None:
    box = crop_box((50, 40), 0.2, Random(5))
    expected = PROCESSOR.pixels(photograph().crop(box))
    assert np.array_equal(Augment(crop_area=0.2).pixels(photograph(), PROCESSOR, Random(5)), expected)


@ANY_TIME
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_a_crop_lies_inside_and_keeps_its_share(width: int, height: int, smallest: float, seed: int) -> None:
    left, top, right, bottom = crop_box((width, height), smallest, Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    across, down = right - left, bottom - top
    if (across, down) != (width, height):
        # both sides are rounded to whole pixels
        assert (across + 0.5) * (down + 0.5) >= smallest * width * height
        assert (across - 0.5) / (down + 0.5) <= 4 / 3
        assert (across + 0.5) / (down - 0.5) >= 3 / 4


def test_the_corners_of_crops_reach_everywhere() -> None:
    boxes = [crop_box((40, 30), 0.1, Random(seed)) for seed in range(500)]
    shares = [(right - left) * (bottom - top) / 1200 for left, top, right, bottom in boxes]
    assert min(shares) < 0.15
    assert max(shares) > 0.8
    assert {box[0] for box in boxes} >= set(range(20))
    assert max(box[2] for box in boxes) == 40


def test_a_black_icon_gets_two_colours_that_can_be_told_apart() -> None:
    grounds: set[bool] = set()
    for seed in range(40):
        result = recoloured(drawing((0, 0, 0)), Random(seed)).astype(float)
        ink, paper = result[16, 16], result[0, 0]
        weights = np.array([0.299, 0.587, 0.114])
        assert abs(ink @ weights - paper @ weights) > 88
        # what was black is ink, what was white is paper, the soft edge lies between
        assert (np.abs(result - ink).max(axis=2) < 1.5).sum() == (drawing((0, 0, 0)).max(axis=2) == 0).sum()
        grounds.add(bool(ink @ weights < paper @ weights))
    assert grounds == {True, False}, "dark on light and light on dark"


def test_a_coloured_drawing_keeps_its_colours_and_its_white_parts() -> None:
    before = drawing((200, 30, 30), hole=True)
    after = recoloured(before, Random(1))
    assert after[11, 16].tolist() == [200, 30, 30]
    assert after[16, 16].tolist() == [255, 255, 255], "the hole is not the background"
    assert after[0, 0].tolist() == after[31, 16].tolist() != [255, 255, 255]


def test_a_photograph_is_not_recoloured() -> None:
    pixels = np.asarray(photograph(32, 32))
    assert np.array_equal(recoloured(pixels, Random(0)), pixels)


@ANY_TIME
@given(st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_white_around_is_what_sees_an_edge(seed: int, white_share: float) -> None:
    white = np.random.default_rng(seed).random((9, 9)) < white_share
    pixels = np.where(white[:, :, None], 255, 90).astype(np.uint8).repeat(3, axis=2)
    expected = [
        [
            any(line.all() for line in (white[: y + 1, x], white[y:, x], white[y, : x + 1], white[y, x:]))
            for x in range(9)
        ]
        for y in range(9)
    ]
    assert white_around(pixels).tolist() == expected


@pytest.mark.parametrize("operation", range(len(OPERATIONS)))
def test_operations_without_strength_change_little_and_with_it_something(operation: int) -> None:
    picture = photograph(32, 32)
    stretches = operation in (1, 2)  # autocontrast and equalize know no strength
    for sign in (-1.0, 1.0):
        weak, strong = (np.asarray(OPERATIONS[operation](picture, strength, sign)) for strength in (0.0, 1.0))
        assert weak.shape == strong.shape == (32, 32, 3)
        if not stretches:
            assert np.array_equal(weak, picture)
        assert np.array_equal(strong, picture) == (operation == 0)


def test_randaugment_draws_every_operation() -> None:
    pixels = np.asarray(photograph(32, 32))
    results = {randaugmented(pixels, 1, 1.0, Random(seed)).tobytes() for seed in range(400)}
    # nine of the fourteen go two ways
    assert len(results) == len(OPERATIONS) + 9


def test_a_large_jpeg_may_be_decoded_smaller_but_never_below_the_crop(tmp_path: Path) -> None:
    picture = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    file = f"{tmp_path}/large.jpg"
    picture.save(file, quality=95)
    for augment in (Augment(), Augment(crop_area=0.25)):
        full = augment.pixels(file, PROCESSOR, Random(3)).astype(int)
        reduced = augment.pixels(file, PROCESSOR, Random(3), reduced=True).astype(int)
        assert np.abs(full - reduced).max() <= 8


def test_settings_out_of_range_and_broken_pictures_are_errors() -> None:
    for wrong in ({"flip": 1.5}, {"crop_area": 0.0}, {"recolour": -0.1}, {"strength": 2.0}, {"randaugment": -1}):
        with pytest.raises(ConfigError, match=rf"Augment\.{next(iter(wrong))} must be"):
            Augment(**wrong)
    with pytest.raises(UnreadableImage):
        EVERYTHING.pixels(b"no picture", PROCESSOR, Random(0))
