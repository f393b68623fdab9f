"""Where a stored picture is not what it shows, pixels are what it shows: colours here are computed by hand.

These are the places where we differ on purpose from the published preparation, which clips 16-bit grey, ignores
orientation, profiles and the inks of CMYK, and drops transparency of pictures it opens itself.
"""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from transformers import SiglipImageProcessorPil as PublishedImageProcessor

from siglip.config import ImageSettings
from siglip.processing import SiglipImageProcessor, read_image
from tests.conftest import ROOT
from tests.processing.damage import encoded, png_chunk

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]], [[9, 9, 9], [200, 60, 90]]], np.uint8)


def shown(image: Any) -> np.ndarray:
    return np.asarray(read_image(image)).astype(int)


# ---- orientation

# what a viewer does with the stored rows for each EXIF value
TURNED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: np.rot90(CORNERS, 2).transpose(1, 0, 2),
    8: np.rot90(CORNERS),
}


@pytest.mark.parametrize("value", TURNED)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_pictures_are_turned_upright_by_their_exif_orientation(value: int, kind: str, options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(Image.fromarray(CORNERS), kind, exif=exif, **options)
    assert np.array_equal(shown(data), TURNED[value])
    assert np.array_equal(shown(Image.open(io.BytesIO(data))), TURNED[value])


def test_orientation_is_where_we_differ_from_the_published_preparation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = Image.open(io.BytesIO(encoded(Image.fromarray(CORNERS), "PNG", exif=exif)))
    published = PublishedImageProcessor(size={"height": 8, "width": 8})
    ours = SiglipImageProcessor(ImageSettings(image_size=8))
    upright = ours(Image.fromarray(TURNED[3].copy()), return_tensors="np").pixel_values
    assert np.array_equal(ours(picture, return_tensors="np").pixel_values, upright)
    assert not np.array_equal(published(picture, return_tensors="np")["pixel_values"], upright)


def test_an_orientation_that_does_not_exist_changes_nothing() -> None:
    for value in (0, 9, 400):
        exif = Image.Exif()
        exif[0x0112] = value
        assert np.array_equal(shown(encoded(Image.fromarray(CORNERS), "PNG", exif=exif)), CORNERS)


# ---- transparency


def over_white(colour: Any, alpha: Any) -> np.ndarray:
    return np.round(np.asarray(colour) * (np.asarray(alpha) / 255) + 255 - np.asarray(alpha, float))


def test_transparent_parts_lie_over_white_in_every_way_a_file_may_say_it() -> None:
    red = Image.new("RGB", (2, 1), (200, 40, 0))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([200, 40, 0, 10, 20, 30])
    rgba = red.convert("RGBA")
    rgba.putpixel((1, 0), (200, 40, 0, 100))
    grey = Image.new("LA", (2, 1), (60, 255))
    grey.putpixel((1, 0), (60, 51))
    one_colour = Image.new("RGB", (2, 1), (200, 40, 0))
    one_colour.putpixel((1, 0), (1, 2, 3))
    files = {
        "rgba": (encoded(rgba, "PNG"), [(200, 40, 0), over_white((200, 40, 0), 100)]),
        "rgba webp": (encoded(rgba, "WEBP", lossless=True, exact=True), [(200, 40, 0), over_white((200, 40, 0), 100)]),
        "grey": (encoded(grey, "PNG"), [(60, 60, 60), over_white((60, 60, 60), 51)]),
        "palette, bytes": (
            encoded(palette, "PNG", transparency=bytes([255, 128])),
            [(200, 40, 0), over_white((10, 20, 30), 128)],
        ),
        "palette, index": (encoded(palette, "GIF", transparency=1), [(200, 40, 0), (255, 255, 255)]),
        "key colour": (encoded(one_colour, "PNG", transparency=(1, 2, 3)), [(200, 40, 0), (255, 255, 255)]),
        "key grey": (
            encoded(Image.fromarray(np.array([[60, 7]], np.uint8)), "PNG", transparency=7),
            [(60, 60, 60), (255, 255, 255)],
        ),
        "key grey of 16 bits": (
            encoded(Image.fromarray(np.array([[60 * 257, 7]], np.uint16)), "PNG", transparency=7),
            [(60, 60, 60), (255, 255, 255)],
        ),
    }
    for name, (data, expected) in files.items():
        assert np.abs(shown(data)[0] - np.array(expected)).max() <= 1, name
        assert np.array_equal(shown(Image.open(io.BytesIO(data))), shown(data)), name


def test_a_transparent_picture_taller_than_one_strip_is_blended_whole() -> None:
    alpha = (np.arange(5000) % 256).astype(np.uint8)
    picture = np.zeros((5000, 1000, 4), np.uint8)
    picture[:, :, 3] = alpha[:, None]
    result = np.asarray(read_image(picture))
    assert np.array_equal(result[:, 0, 0], 255 - alpha)
    assert np.array_equal(result, np.broadcast_to(result[:, :1, :1], result.shape))


# ---- depth, animations, inks


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    samples = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    result = shown(encoded(Image.fromarray(samples), kind))
    assert np.abs(result - np.round(samples / 257)[:, :, None]).max() == 0
    assert result.max() == 255


def test_sixteen_bit_grey_in_the_other_byte_order_and_floating_point_grey_are_read_by_value() -> None:
    samples = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    big_endian = Image.frombytes("I;16B", (8, 8), samples.astype(">u2").tobytes())
    assert np.array_equal(shown(big_endian), shown(samples))
    fractions = Image.fromarray((np.arange(64, dtype=np.float32) / 63).reshape(8, 8))
    assert np.array_equal(shown(fractions)[:, :, 0], np.round(np.arange(64) / 63 * 255).reshape(8, 8))
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for mode in ("I", "F"):
        assert np.array_equal(shown(grey.convert(mode)), shown(grey))


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_the_first_frame_of_an_animation_is_read(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (shown(data) == (255, 0, 0)).all()


def test_cmyk_without_a_profile_multiplies_what_each_ink_lets_through() -> None:
    inks = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0], [51, 102, 153, 51]]], np.uint8)
    through = 1 - inks / 255
    expected = 255 * through[:, :, :3] * through[:, :, 3:]
    picture = Image.frombytes("CMYK", (5, 1), inks.tobytes())
    assert np.abs(shown(picture) - expected).max() <= 1
    assert np.abs(shown(encoded(picture, "TIFF")) - expected).max() <= 1
    blocks = picture.resize((80, 16), Image.Resampling.NEAREST)
    assert np.abs(shown(encoded(blocks, "JPEG", quality=100))[8, 8::16] - expected[0]).max() <= 4


# ---- colour profiles, built here from their definition (ICC.1:2010)

D50 = (0.9642, 1.0, 0.8249)
SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def icc_profile(space: bytes, tags: dict[bytes, bytes], *, kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"a\0" + bytes(78),
        b"cprt": b"text" + bytes(5),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + xyz_number(D50) + bytes(48)
    return header + table + body


def xyz_number(xyz: Any) -> bytes:
    return struct.pack(">iii", *(round(value * 65536) for value in xyz))


def xyz_tag(xyz: Any) -> bytes:
    return b"XYZ " + bytes(4) + xyz_number(xyz)


def gamma_tag(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(to_xyz: np.ndarray, gamma: float) -> bytes:
    tags = {b"wtpt": xyz_tag(D50)}
    for name, column in zip(b"rgb", to_xyz.T, strict=True):
        tags[bytes([name]) + b"XYZ"] = xyz_tag(column)
        tags[bytes([name]) + b"TRC"] = gamma_tag(gamma)
    return icc_profile(b"RGB ", tags)


def srgb_bytes(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# Adobe RGB (1998), adapted to D50
ADOBE_TO_XYZ = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_picture_with_a_profile_of_its_own_is_brought_to_srgb(kind: str) -> None:
    colours = np.array([[[128, 128, 128], [180, 90, 60], [200, 210, 90], [90, 140, 160], [255, 255, 255]]], np.uint8)
    stored = Image.fromarray(colours).resize((80, 16), Image.Resampling.NEAREST)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(stored, kind, icc_profile=rgb_profile(ADOBE_TO_XYZ, 2.19921875), **options)
    linear = (colours / 255) ** 2.19921875 @ ADOBE_TO_XYZ.T @ np.linalg.inv(SRGB_TO_XYZ).T
    moved = shown(data)[8, 8::16]
    assert np.abs(moved - srgb_bytes(linear)[0]).max() <= 3
    assert np.abs(moved - colours[0]).max() > 10
    assert np.array_equal(shown(Image.open(io.BytesIO(data))), shown(data))


def test_a_profile_that_swaps_the_primaries_swaps_the_channels_of_palettes_too() -> None:
    profile = rgb_profile(SRGB_TO_XYZ[:, [2, 1, 0]], 2.2)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert np.abs(shown(encoded(palette, "PNG", icc_profile=profile)) - [[(0, 0, 255), (255, 0, 0)]]).max() <= 2


def test_grey_of_another_gamma_is_brightened_with_and_without_transparency() -> None:
    profile = icc_profile(b"GRAY", {b"wtpt": xyz_tag(D50), b"kTRC": gamma_tag(1.5)})
    grey = Image.fromarray(np.arange(0, 256, 5, dtype=np.uint8)[None])
    expected = srgb_bytes((np.arange(0, 256, 5) / 255) ** 1.5)[None, :, None]
    assert np.abs(shown(encoded(grey, "PNG", icc_profile=profile)) - expected).max() <= 2
    assert np.abs(shown(encoded(grey.convert("LA"), "PNG", icc_profile=profile)) - expected).max() <= 2


def test_cmyk_with_a_profile_is_read_through_its_table() -> None:
    # one table of 2 x 2 x 2 x 2 colours in Lab: only black ink counts, and full black ink gives L* = 40
    lightness = np.where(np.indices((2, 2, 2, 2))[3].reshape(-1) == 1, 102, 255)
    table = np.stack([lightness, np.full(16, 128), np.full(16, 128)], axis=1).astype(np.uint8)
    same = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + same * 4 + table.tobytes() + same * 3
    profile = icc_profile(b"CMYK", {b"wtpt": xyz_tag(D50), b"A2B0": lut}, kind=b"prtr", connection=b"Lab ")
    inks = np.array([[[0, 0, 0, 255], [255, 0, 255, 255], [0, 0, 0, 0], [0, 200, 0, 128], [9, 9, 9, 60]]], np.uint8)
    data = encoded(Image.frombytes("CMYK", (5, 1), inks.tobytes()), "TIFF", icc_profile=profile)
    light = ((100 - 60 * (inks[0, :, 3] / 255) + 16) / 116) ** 3  # CIE L* above 8
    expected = srgb_bytes((light - light[0]) / (1 - light[0]))  # the darkest ink becomes black
    assert np.abs(shown(data)[0] - expected[:, None]).max() <= 2


def test_a_profile_applied_after_the_squash_or_before_it_differs_by_less_than_a_level_on_average() -> None:
    with Image.open(ROOT / "samples" / "cat.jpg") as photograph:
        data = encoded(photograph, "TIFF", icc_profile=rgb_profile(ADOBE_TO_XYZ, 2.2))
    processor = SiglipImageProcessor(ImageSettings(image_size=64))
    difference = np.abs(processor.pixels(data).astype(int) - processor.pixels(read_image(data)))
    assert 0 < difference.mean() < 0.5
    assert difference.max() <= 10


def test_profiles_that_say_srgb_are_broken_or_for_other_channels_change_no_pixel() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = icc_profile(b"GRAY", {b"wtpt": xyz_tag(D50), b"kTRC": gamma_tag(1.0)})
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for profile in (srgb, grey, srgb[:200], b"no profile", bytes(5_000_000)):
        assert np.array_equal(shown(encoded(Image.fromarray(colours), "TIFF", icc_profile=profile)), colours)


def test_a_png_that_says_nothing_about_colour_is_srgb_whatever_its_gamma_chunk() -> None:
    data = encoded(Image.fromarray(CORNERS), "PNG")
    with_gamma = data[:33] + png_chunk(b"gAMA", struct.pack(">I", 100_000)) + data[33:]
    assert np.array_equal(shown(with_gamma), CORNERS)
