"""Every form of a picture gives the same pixels; whatever is wrong with one, the error names it and says what to do."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from siglip.errors import BrokenSample, UnreadableImage
from siglip.processing.decode import FORMATS, image_name, read_image
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
