"""What picture files hold beside their pixels, the rarer kinds of them, and what is warned about."""

import base64
import io
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from siglip.errors import UnreadableImage
from siglip.processing.decode import decode_picture, read_image
from tests.processing.damage import encoded
from tests.processing.test_decode import PICTURE, RGB, reason, same

# ---- warnings


def tiff_that_pil_warns_about() -> bytes:
    data = bytearray(encoded(PICTURE, "TIFF"))
    entry = data.index(b"\x01\x01\x04\x00\x01\x00\x00\x00")  # height, one number
    data[entry + 2 : entry + 8] = b"\x03\x00\x02\x00\x00\x00"  # two short ones
    return bytes(data)


def test_what_pil_warns_about_is_read_in_silence_and_other_threads_keep_their_warnings() -> None:
    data = tiff_that_pil_warns_about()
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(data)).close()
    decoding, heard = threading.Event(), []
    before = list(warnings.filters)

    def decode(_: int) -> bool:
        return same(data)

    with ThreadPoolExecutor(6) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        results = pool.map(decode, range(200))
        for _ in range(200):
            try:
                warnings.warn("mine", UserWarning, stacklevel=1)
            except UserWarning:
                heard.append(True)
        decoding.set()
        assert all(results)
    assert len(heard) == 200
    assert [entry for entry in warnings.filters if entry in before] == before
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


# ---- notes beside the pixels, files written out as text, further kinds


def test_a_png_with_notes_beyond_what_pil_unpacks_is_read_with_its_profile_and_orientation() -> None:
    packed_text, long_text, packet = PngInfo(), PngInfo(), PngInfo()
    packed_text.add_text("comment", "x" * 2_000_000, zip=True)
    long_text.add_text("comment", "x" * 70_000_000)
    for notes in (packed_text, long_text):
        data = encoded(PICTURE, "PNG", pnginfo=notes)
        with pytest.raises(ValueError, match="MAX_TEXT"):
            Image.open(io.BytesIO(data)).load()
        assert same(data)
    packet.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>' + " " * 2_000_000, zip=True)
    assert same(encoded(PICTURE, "PNG", pnginfo=packet), np.rot90(RGB, -1))
    profile = swapped_primaries()
    small = np.asarray(read_image(encoded(PICTURE, "PNG", icc_profile=profile)))
    assert not np.array_equal(small, RGB)
    assert same(encoded(PICTURE, "PNG", icc_profile=profile + bytes(2_000_000)), small)


@pytest.mark.parametrize("kind", [b"tEXt", b"gAMA", b"pHYs", b"eXIf", b"iCCP"])
def test_a_png_whose_notes_alone_are_damaged_is_read(kind: bytes) -> None:
    data = encoded(PICTURE, "PNG")
    behind_header = 8 + 25
    note = (9).to_bytes(4) + kind + b"a\0bcdefgh" + b"\1\2\3\4"  # a wrong checksum
    assert same(data[:behind_header] + note + data[behind_header:])
    assert "no picture" in reason(data[: behind_header - 4] + b"\1\2\3\4" + data[behind_header:])


def swapped_primaries() -> bytes:
    """An sRGB profile whose red is green and whose green is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(128 + 4, 128 + 4 + 12 * int.from_bytes(profile[128:132]), 12):
        tag = bytes(profile[place : place + 4])
        profile[place : place + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(tag, tag)
    return bytes(profile)


def test_a_png_whose_pixels_are_damaged_too_is_still_refused() -> None:
    notes = PngInfo()
    notes.add_text("comment", "x" * 2_000_000, zip=True)
    data = bytearray(encoded(PICTURE, "PNG", pnginfo=notes))
    start = data.rindex(b"IDAT") + 4
    data[start : start + 20] = bytes(20)
    assert "damaged or cut short" in reason(bytes(data))


def test_a_picture_written_out_as_a_data_uri_is_read_and_never_shown_whole() -> None:
    data = encoded(PICTURE, "PNG")
    text = base64.b64encode(data).decode()
    for uri in (
        f"data:image/png;base64,{text}",
        f"DATA:;base64,{text.rstrip('=')}",
        f"data:image/png;name=a.png;base64,{base64.urlsafe_b64encode(data).decode()}",
        "data:image/png;base64," + "\r\n ".join(text[start : start + 40] for start in range(0, len(text), 40)),
        f"data:image/png,{quote(data)}",
    ):
        assert same(uri)
    with pytest.raises(UnreadableImage) as caught:
        read_image("data:image/png;base64," + "A" * 100_000)
    assert len(str(caught.value)) < 300
    assert reason("data:image/png") == "has no comma between head and content; write data:image/png;base64,..."
    assert reason("data:image/png;base64,@@@@").startswith("is not valid base64")
    with pytest.raises(UnreadableImage) as caught:
        read_image("x" * 100_000)
    assert len(str(caught.value)) < 200


def test_a_data_uri_keeps_the_byte_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siglip.processing.decode.MAX_FILE_BYTES", 1000)
    assert "the limit is 1000" in reason("data:;base64," + "A" * 2000)


def test_pictures_of_phones_are_read_where_their_library_is_and_named_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smooth = Image.linear_gradient("L").convert("RGB").resize((64, 48))
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(smooth).save(stream, quality=95, exif=exif.tobytes())
    decoded = np.asarray(read_image(stream.getvalue())).astype(int)
    assert decoded.shape == (64, 48, 3)
    assert abs(decoded - np.rot90(np.asarray(smooth).astype(int), -1)).max() <= 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(stream.getvalue()).startswith("is a HEIC picture; pip install 'siglip[media]' to read it")


def test_kinds_that_are_not_read_are_named_and_jpegs_of_two_pictures_and_jpeg_2000_are_read() -> None:
    assert reason(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)).startswith("is a JPEG XL file, a kind that is not supported")
    assert reason(b"8BPS" + bytes(50)).startswith("is a Photoshop file")
    assert same(encoded(PICTURE, "JPEG2000", irreversible=False))
    two = encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180)])
    with Image.open(io.BytesIO(two)) as plain:
        assert plain.format == "MPO"
        assert same(two, np.asarray(plain.convert("RGB")))


# ---- what the file says of the picture


def test_frames_are_counted_without_moving_from_the_first(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "png", "webp", "tiff"):
        file = tmp_path / f"a.{suffix}"
        frames[0].save(
            file, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {})
        )
        decoded = decode_picture(file)
        assert decoded.num_frames == 3, suffix
        assert np.asarray(decoded.image)[0, 0].tolist() == [255, 0, 0], suffix
    assert decode_picture(RGB).num_frames == 1
    (tmp_path / "a.gif").write_bytes((tmp_path / "a.gif").read_bytes() + bytes(2**25))
    assert decode_picture(tmp_path / "a.gif").num_frames is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture_also_when_decoded_smaller(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (800, 808)), "JPEG", exif=exif)
    decoded = decode_picture(data, at_least_px=100)
    assert (decoded.width, decoded.height) == ((808, 800) if orientation > 4 else (800, 808))
    assert max(decoded.image.size) == 101


@pytest.mark.parametrize(
    "text", [None, "", "0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "2020:13:01 00:00:00"]
)
def test_a_date_that_is_none_is_none(text: str | None) -> None:
    exif = Image.Exif()
    if text is not None:
        exif.get_ifd(0x8769)[0x9003] = text
    assert decode_picture(encoded(PICTURE, "JPEG", exif=exif)).taken is None


def test_the_date_of_digitising_stands_in_for_that_of_taking() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9004] = "2001:02:03 04:05:06"
    assert decode_picture(encoded(PICTURE, "JPEG", exif=exif)).taken == datetime(2001, 2, 3, 4, 5, 6)
