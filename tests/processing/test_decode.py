"""Every form of a picture gives the same pixels; whatever is wrong with one, the error names it and says what to do."""

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from siglip.errors import BrokenSample, UnreadableImage
from siglip.processing.decode import FORMATS, decode_picture, image_name, read_image
from tests.processing.damage import encoded, good_files

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
PICTURE = Image.fromarray(RGB)


def same(image: Any, expected: np.ndarray = RGB) -> bool:
    return np.array_equal(np.asarray(read_image(image)), expected)


def reason(image: Any) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(image)
    assert str(caught.value) == f"{caught.value.name}: {caught.value.reason}"
    return caught.value.reason


# ---- forms


def test_a_path_bytes_a_file_and_a_pil_picture_are_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    written = io.BytesIO()
    PICTURE.save(written, "PNG")  # stands at its end now
    assert same(path)
    assert same(str(path))
    assert same(path.read_bytes())
    assert same(written)
    with path.open("rb") as stream, Image.open(path) as lazy:
        assert same(stream)
        assert same(lazy)
    assert same(PICTURE)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as reading, os.fdopen(sink, "wb") as writing:
        writing.write(encoded(PICTURE, "PNG"))
        writing.close()
        assert same(reading)


def test_arrays_hold_their_channels_last_and_tensors_first_and_the_other_way_where_only_that_makes_sense() -> None:
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    assert same(RGB)
    assert same(planes)
    assert same(torch.from_numpy(planes))
    assert same(torch.from_numpy(RGB))
    square = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    assert same(square, square)
    assert same(torch.from_numpy(square), square.transpose(1, 2, 0))


def test_grey_and_transparent_arrays_are_pictures_too() -> None:
    grey = RGB[:, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    for image in (grey, grey[:, :, None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None]):
        assert same(image, expected)
    assert same(grey > 127, np.where(expected > 127, 255, 0))
    clear = np.concatenate([RGB, np.zeros((5, 7, 1), np.uint8)], axis=2)
    assert same(clear, np.full_like(RGB, 255))


def test_floats_from_0_to_1_give_back_the_bytes_they_were_made_of() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for kind in (np.float32, np.float64):
        assert same(every.astype(kind) / 255, every)
        assert same(every.astype(kind), every)  # 0 to 255
    assert same((torch.from_numpy(every).permute(2, 0, 1).float() / 255).requires_grad_(), every)
    assert same(every.astype(np.int64), every)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.uint16, (3, 4)))
def test_sixteen_bits_are_scaled_to_the_nearest_byte(samples: np.ndarray) -> None:
    exact = np.round(samples.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert same(samples, np.repeat(exact[:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 7, 2), np.uint8), r"has the shape [5, 7, 2], expected [height, width]"),
        (np.zeros((0, 7, 3), np.uint8), "has the shape [0, 7, 3]"),
        (np.zeros(7, np.uint8), "has the shape [7]"),
        (torch.zeros(2, 3, 4, 4), "has the shape [2, 3, 4, 4]"),
        (torch.full((3, 4, 4), -1.0), "has samples of type float32 from -1.0 to -1.0"),
        (np.full((4, 4), np.nan), "has samples of type float64 from nan to nan"),
        (np.full((4, 4), 70000), "has samples of type int64 from 70000 to 70000"),
        (np.full((4, 4), "a"), "has samples of type <U1"),
        (np.full((4, 4), 1j), "has samples of type complex128, expected uint8, uint16 or floats"),
    ],
)
def test_arrays_that_are_no_picture_are_told_apart(image: Any, message: str) -> None:
    assert message in reason(image)


def test_what_was_read_can_be_read_again_unchanged() -> None:
    for name, data in good_files().items():
        once = read_image(data)
        assert same(once, np.asarray(once)), name
    assert read_image(PICTURE) is PICTURE


def test_names_come_from_the_path_the_file_or_the_position(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    assert image_name("https://example.org/a.png") == "https://example.org/a.png"
    with (tmp_path / "a.png").open("rb") as stream, Image.open(tmp_path / "a.png") as lazy:
        names = [image_name(image, 4) for image in (tmp_path / "a.png", str(tmp_path / "a.png"), stream, lazy)]
    assert names == [str(tmp_path / "a.png")] * 4
    assert [image_name(image, 4) for image in (b"", RGB, torch.zeros(1), PICTURE, io.BytesIO())] == ["image 4"] * 5
    assert image_name(b"") == "image"


# ---- what cannot be read


def test_the_error_travels_between_processes_with_its_name_and_reason() -> None:
    for kind in (UnreadableImage, BrokenSample):
        error = pickle.loads(pickle.dumps(kind("a.png", "is torn")))
        assert (type(error), error.name, error.reason, str(error)) == (kind, "a.png", "is torn", "a.png: is torn")


def test_paths_that_hold_no_file_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "gone.png") == (
        "cannot be opened (No such file or directory); check the path and its permissions"
    )
    assert reason(tmp_path) == "is a folder, expected a picture file; name the files in it"
    assert "is not a regular file" in reason(tmp_path / "pipe")
    assert "is not a regular file" in reason("/dev/zero")
    assert "File name too long" in reason("x" * 5000)
    assert "null byte" in reason("a\0b")
    assert "No such file" in reason("file:///etc/passwd")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"<html></html>", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"II*\x00"]
)
def test_bytes_that_are_no_picture_are_refused_naming_what_would_be(data: bytes) -> None:
    assert reason(data) == f"no picture, or one whose first bytes are damaged; expected one of {', '.join(FORMATS)}"


def test_formats_that_run_other_programs_or_guess_are_not_opened() -> None:
    for kind in ("EPS", "TGA", "PCX"):
        assert reason(encoded(PICTURE, kind)).startswith("no picture"), kind


def test_a_picture_cut_short_says_so_in_every_format() -> None:
    for name, data in good_files().items():
        if not name.startswith(("apng", "mpo", "gif", "webp-animated")):  # the first frame may be whole
            assert "cut short" in reason(data[: len(data) * 3 // 4]) or name.startswith("tiff"), name


def test_a_file_beyond_the_byte_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.webp").open("wb") as stream:
        stream.truncate(2**29 + 1)  # sparse
    assert reason(tmp_path / "huge.webp") == "holds 536870913 bytes or more, the limit is 536870912; make it smaller"


def test_more_pixels_than_pil_allows_are_refused_by_number_also_in_a_lazy_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(PICTURE, "PNG")
    lazy = Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 34)
    for image in (data, lazy):
        message = reason(image)
        assert "7 x 5 pixels, the limit is 34;" in message
        assert "PIL.Image.MAX_IMAGE_PIXELS" in message
    assert same(PICTURE)  # in memory already
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 35)
    assert same(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert same(data)


def test_broken_metadata_does_not_make_a_good_picture_unreadable() -> None:
    for exif in (b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00garbage", b"Exif\x00\x00"):
        data = encoded(PICTURE, "JPEG", exif=exif)
        assert same(data, np.asarray(Image.open(io.BytesIO(encoded(PICTURE, "JPEG")))))


# ---- a thousand damaged files, in a process of their own


def test_a_thousand_damaged_files_neither_crash_hang_nor_take_memory_and_every_good_file_is_read() -> None:
    script = Path(__file__).with_name("damage.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout)
    assert result["damaged"] == 1000
    assert result["escaped"] == []
    assert result["good_files_changed"] == []
    assert result["refused"] > 400
    assert result["refused"] + result["read"] == 1000
    # their pixels are whole, and what is packed beside them stays packed
    assert result["bombs_read"] == ["png text", "png profile"]
    assert result["nothing"].startswith("is of type NoneType, expected a path, bytes")
    assert result["peak_growth_bytes"] < 200e6
    assert "Warning" not in run.stderr


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
    assert reason(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)).startswith("is a JPEG XL file, which is not read")
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
