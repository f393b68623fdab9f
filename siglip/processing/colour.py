"""A decoded PIL picture, as its file stores it -> plain RGB: 8 bits, sRGB, opaque, upright.

PIL itself clips 16-bit grey, ignores orientation and colour profiles, and drops transparency.
"""

import functools
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 2**22
ORIENTATION = 0x0112  # EXIF tag

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# turns that swap width and height
SIDEWAYS = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
_FROM_16_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # v * 255 / 65535, rounded
_STRIP_PIXELS = 2**22


class Refused(ValueError):
    """Input that is not a picture we can use; the message says what was got, what was expected, and what to do."""


class Plain(NamedTuple):
    """An upright, opaque picture of 8 bits, and what takes its colours to sRGB (None: it is RGB or grey already)."""

    picture: Image.Image
    to_srgb: ImageCms.ImageCmsTransform | None

    def rgb(self) -> Image.Image:
        """The picture in sRGB; the same object if there is nothing to do."""
        if self.to_srgb is not None:
            return self.to_srgb.apply(self.picture)
        return self.picture if self.picture.mode == "RGB" else self.picture.convert("RGB")


def plain(picture: Image.Image) -> Plain:
    """Make a loaded picture plain, but for its colours: those are cheaper to change once it is small."""
    turn = turn_of(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _grey(picture)
    elif picture.has_transparency_data:
        picture = _over_white(picture)
    elif picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    to_srgb = _transform_to_srgb(profile, picture.mode) if profile and len(profile) <= MAX_PROFILE_BYTES else None
    if picture.mode == "CMYK" and to_srgb is None:
        picture = picture.convert("RGB")
    return Plain(picture.transpose(turn) if turn is not None else picture, to_srgb)


def eight_bits(samples: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Samples of any type as bytes.

    Floats count from 0 to 1, or from 0 to 255 where any is above 1; uint16, and other whole numbers above 255, from
    0 to 65535. Raises Refused for samples outside of these.
    """
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind not in "iuf":
        raise Refused(f"has samples of type {samples.dtype}, expected uint8, uint16 or floats; convert it")
    low, high = samples.min(), samples.max()
    if samples.dtype.kind in "iu" and low >= 0 and high <= 65535:
        wide = samples.dtype.kind == "u" and samples.dtype.itemsize == 2
        return _FROM_16_BITS[samples] if wide or high > 255 else samples.astype(np.uint8)
    if samples.dtype.kind == "f" and low >= 0 and high <= 255:
        return np.rint(samples * 255 if high <= 1 else samples).astype(np.uint8)
    raise Refused(
        f"has samples of type {samples.dtype} from {low} to {high}, expected uint8, uint16, or floats from 0 to 1 or "
        "from 0 to 255; undo any normalisation"
    )


def turn_of(picture: Image.Image) -> Image.Transpose | None:
    """What puts the picture upright, None if it is."""
    try:
        return _UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # broken metadata does not make a good picture unreadable
        return None


def _grey(picture: Image.Image) -> Image.Image:
    samples = np.asarray(picture)
    grey = eight_bits(samples)
    if isinstance(key := picture.info.get("transparency"), int):
        grey = np.where(samples == key, np.uint8(255), grey)
    return Image.fromarray(grey)


def _over_white(picture: Image.Image) -> Image.Image:
    """Blend over white, in strips: the blend needs three more copies of what it works on."""
    flat = Image.new("L" if picture.mode in ("1", "L", "LA") else "RGB", picture.size)
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        flat.paste(Image.alpha_composite(white, strip), (0, top))
    return flat


@functools.lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None if the profile is sRGB itself; and if it is broken or meant for other channels, as in browsers.

    Files say "sRGB" in many ways, so the profile is asked what it does to a grid of colours: where none moves by more
    than two levels, the pixels stay exactly as stored.
    """
    try:
        transform = ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB")
        grid = (np.indices((9, 9, 9)).reshape(3, 27, 27).T * 255 // 8).astype(np.uint8)
        before = Image.fromarray(np.ascontiguousarray(grid)).convert(mode)
        moved = np.asarray(transform.apply(before), np.int16) - np.asarray(before.convert("RGB"), np.int16)
    except Exception:  # what lcms raises for a bad profile is not one family
        return None
    return transform if np.abs(moved).max() > 2 else None
