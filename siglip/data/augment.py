"""One picture and a random generator -> uint8 pixels [size, size, 3]: crop, squash, flip, recolour, RandAugment.

Everything is drawn from the generator given, so equal generators give equal pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageEnhance, ImageOps

from siglip.fields import bounded, checked
from siglip.processing import ImageInput, SiglipImageProcessor, read_image

Pixels = UInt8[np.ndarray, "size size 3"]

_CROP_TRIES = 10
_ASPECT = (3 / 4, 4 / 3)
# in levels from 0 to 255: what still counts as white, as grey, and as colours that can be told apart
_WHITE_FROM, _GREY_SPREAD, _CONTRAST = 200, 24, 90
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# share of the picture that must be white around the drawing
_LEAST_BACKGROUND = 0.05


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """What is done to a picture when it is visited; by default only what the checkpoint always does (squash).

    `crop_area`: smallest share of the area that a random crop keeps (1: no crop; 0.08 in the Inception paper). `flip`,
    `recolour`: chances from 0 to 1; see `recoloured`. `randaugment`: so many operations in a row, each at `strength`
    (0 to 1; 1 is magnitude 10 of the RandAugment paper, arXiv 1909.13719).
    """

    crop_area: float = 1.0
    flip: float = 0.0
    recolour: float = 0.0
    randaugment: int = 0
    strength: float = 0.5

    def __post_init__(self) -> None:
        bounded(self, "flip", "recolour", "strength", at_least=0, at_most=1)
        bounded(self, "crop_area", above=0, at_most=1)
        bounded(self, "randaugment", at_least=0)

    def pixels(
        self, image: ImageInput, processor: SiglipImageProcessor, random: Random, *, reduced: bool = False
    ) -> Pixels:
        """The augmented picture as the checkpoint's square of bytes. Raises UnreadableImage.

        `reduced`: JPEG files much larger than the square are decoded at a smaller scale, as in SiglipImageProcessor.
        """
        if self.crop_area < 1:
            # the sides of the smallest crop are still twice the square, as in the processor
            needed = math.ceil(2 * processor.settings.image_size / math.sqrt(self.crop_area * _ASPECT[0]))
            picture = read_image(image, at_least_px=needed if reduced else None)
            pixels = processor.pixels(picture.crop(crop_box(picture.size, self.crop_area, random)))
        else:
            pixels = processor.pixels(image, reduced=reduced)
        if random.random() < self.flip:
            pixels = pixels[:, ::-1]
        if random.random() < self.recolour:
            pixels = recoloured(pixels, random)
        if self.randaugment:
            pixels = randaugmented(pixels, self.randaugment, self.strength, random)
        return np.ascontiguousarray(pixels)


def crop_box(size: tuple[int, int], smallest_area: float, random: Random) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop with a share of the area from `smallest_area` to 1, and sides 3:4 to 4:3.

    The crop of the Inception paper (arXiv 1409.4842); the whole picture where ten tries do not fit.
    """
    width, height = size
    for _ in range(_CROP_TRIES):
        area = width * height * (smallest_area + (1 - smallest_area) * random.random())
        aspect = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** random.random()
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(random.random() * (width - across + 1))
            top = int(random.random() * (height - down + 1))
            return left, top, left + across, top + down
    return 0, 0, width, height


def recoloured(pixels: Pixels, random: Random) -> Pixels:
    """Other colours for drawings on white; a photograph that fills its frame comes back as it is.

    A grey drawing, such as a black icon, gets two random colours that can be told apart, either of them darker. Of
    others only the background is tinted: what is white and reaches an edge of the picture in a straight line.
    """
    background = white_around(pixels)
    if background.mean() < _LEAST_BACKGROUND:
        return pixels
    paper = _colour(random)
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if (spread > _GREY_SPREAD).mean() > 0.01:
        # multiplied, and one pixel into the drawing, whose soft edge is part white
        background[1:] |= background[:-1]
        background[:-1] |= background[1:]
        background[:, 1:] |= background[:, :-1]
        background[:, :-1] |= background[:, 1:]
        tinted = pixels * (paper / 255)
        return np.where(background[:, :, None], tinted, pixels).astype(np.uint8)
    ink = _colour(random)
    while abs((ink - paper) @ _LUMA) < _CONTRAST:
        ink = _colour(random)
    lightness = green[:, :, None] / np.float32(255)
    return (ink + (paper - ink) * lightness).astype(np.uint8)


def white_around(pixels: Pixels) -> Bool[np.ndarray, "size size"]:
    """Which pixels are white and see an edge of the picture along their row or column through white only."""
    white = np.minimum(np.minimum(pixels[:, :, 0], pixels[:, :, 1]), pixels[:, :, 2]) >= _WHITE_FROM
    seen = np.logical_and.accumulate
    from_top, from_left = seen(white, axis=0), seen(white, axis=1)
    from_bottom, from_right = seen(white[::-1], axis=0)[::-1], seen(white[:, ::-1], axis=1)[:, ::-1]
    return from_top | from_bottom | from_left | from_right


def randaugmented(pixels: Pixels, operations: int, strength: float, random: Random) -> Pixels:
    """`operations` of the fourteen of RandAugment, drawn with repetition. New corners get the colour of the old one."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    for _ in range(operations):
        operation = OPERATIONS[int(random.random() * len(OPERATIONS))]
        picture = operation(picture, strength, -1.0 if random.random() < 0.5 else 1.0)
    return np.asarray(picture)


# an operation takes a picture, the strength from 0 to 1, and a sign for those that go two ways
_Operation = Callable[[Image.Image, float, float], Image.Image]


def _affine(matrix: Callable[[float, int], Sequence[float]]) -> _Operation:
    def apply(picture: Image.Image, strength: float, sign: float) -> Image.Image:
        corner = picture.getpixel((0, 0))
        data = matrix(strength * sign, picture.width)
        return picture.transform(
            picture.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=corner
        )

    return apply


def _enhanced(kind: Callable[[Image.Image], Any]) -> _Operation:
    return lambda picture, strength, sign: kind(picture).enhance(1 + 0.9 * strength * sign)


OPERATIONS: tuple[_Operation, ...] = (
    lambda picture, strength, sign: picture,
    lambda picture, strength, sign: ImageOps.autocontrast(picture),
    lambda picture, strength, sign: ImageOps.equalize(picture),
    lambda picture, strength, sign: ImageOps.posterize(picture, 8 - round(4 * strength)),
    lambda picture, strength, sign: ImageOps.solarize(picture, round(256 * (1 - strength))),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    lambda picture, strength, sign: picture.rotate(
        30 * strength * sign, Image.Resampling.BILINEAR, fillcolor=picture.getpixel((0, 0))
    ),
    _affine(lambda by, size: (1, 0.3 * by, -0.15 * by * size, 0, 1, 0)),
    _affine(lambda by, size: (1, 0, 0, 0.3 * by, 1, -0.15 * by * size)),
    _affine(lambda by, size: (1, 0, 0.45 * by * size, 0, 1, 0)),
    _affine(lambda by, size: (1, 0, 0, 0, 1, 0.45 * by * size)),
)


def _colour(random: Random) -> Float32[np.ndarray, "3"]:
    return np.array([256 * random.random() for _ in range(3)], np.float32).clip(0, 255)
