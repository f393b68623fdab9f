"""Pixels are those of the published preparation, bit for bit, whatever form the picture comes in."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import SiglipImageProcessorPil as PublishedImageProcessor

from siglip.config import ImageSettings
from siglip.errors import PreparationError, ShapeError, UnreadableImage
from siglip.processing import SiglipImageProcessor
from tests.conftest import ROOT

MODES = ("1", "L", "P", "RGB", "RGBX", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB")
SIZES = ((1, 1), (1, 7), (300, 1), (1, 2000), (2, 2), (17, 31), (64, 64), (30, 30), (640, 20), (3, 999))
PROCESSOR = SiglipImageProcessor(ImageSettings(image_size=32))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def odd_picture(mode: str, width: int, height: int) -> Image.Image:
    picture = noise(width, height, seed=width + 7 * height)
    if mode in ("P", "PA"):
        return picture.quantize(40).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(noise(width, height, seed=1).convert("L"))
        return picture.convert(mode)
    if mode in ("CMYK", "RGBX"):
        return Image.frombytes(mode, (width, height), np.random.default_rng(2).bytes(4 * width * height))
    if mode in ("YCbCr", "HSV", "LAB"):
        return Image.frombytes(mode, (width, height), picture.tobytes())
    return picture.convert(mode)


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [64, 30])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_a_hundred_and_twenty_odd_pictures_equal_the_published_preparation_bit_for_bit(
    resample: str, size: int
) -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    published = PublishedImageProcessor(
        size={"height": size, "width": size},
        resample=Image.Resampling[resample.upper()],
        image_mean=list(mean),
        image_std=list(std),
    )
    ours = SiglipImageProcessor(ImageSettings(image_size=size, resample=resample, image_mean=mean, image_std=std))
    for mode in MODES:
        for width, height in SIZES:
            picture = odd_picture(mode, width, height)
            expected = published(picture, return_tensors="pt")["pixel_values"]
            assert torch.equal(ours(picture, return_tensors="pt").pixel_values, expected), (mode, width, height)


numbers = st.floats(0.015625, 1.0, width=32)


@settings(max_examples=30, deadline=None)
@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_every_byte_is_normalised_as_published_for_any_mean_and_deviation(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    every_byte = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    ours = SiglipImageProcessor(ImageSettings(image_mean=mean, image_std=std)).normalize(torch.from_numpy(every_byte))
    scaled = (every_byte[0].astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    assert np.array_equal(ours[0].numpy(), expected.transpose(2, 0, 1))


def test_the_sample_photographs_equal_the_published_preparation_from_file_to_pixel_values() -> None:
    published = PublishedImageProcessor(size={"height": 224, "width": 224})
    for path in sorted((ROOT / "samples").glob("*.jpg")):
        with Image.open(path) as picture:
            expected = published(picture, return_tensors="pt")["pixel_values"]
        assert torch.equal(SiglipImageProcessor()(path, return_tensors="pt").pixel_values, expected), path.name


def test_lists_tuples_and_four_dimensional_arrays_are_batches_in_order() -> None:
    pictures = [noise(20, 30, seed=seed) for seed in range(3)]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    expected = torch.cat([PROCESSOR(picture, return_tensors="pt").pixel_values for picture in pictures])
    assert expected.shape == (3, 3, 32, 32)
    assert expected.dtype == torch.float32
    planes = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for batch in (pictures, tuple(pictures), arrays, list(arrays), planes, list(planes)):
        assert torch.equal(PROCESSOR.preprocess(batch, return_tensors="pt").pixel_values, expected)
    assert PROCESSOR([], return_tensors="pt").pixel_values.shape == (0, 3, 32, 32)


def test_the_result_is_a_tensor_an_array_or_a_list_of_arrays_as_asked() -> None:
    picture = noise(20, 30)
    tensor = PROCESSOR(picture, return_tensors="pt")["pixel_values"]
    array = PROCESSOR(picture, return_tensors="np").pixel_values
    (alone,) = PROCESSOR(picture).pixel_values
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, tensor.numpy())
    assert np.array_equal(alone, array[0])


def test_options_and_shapes_that_make_no_sense_say_what_does() -> None:
    unchecked: Callable[..., object] = PROCESSOR.preprocess.__wrapped__.__get__(PROCESSOR)  # without the type hook
    with pytest.raises(PreparationError, match="'pt', 'np' or None, got 'tf'"):
        unchecked(noise(2, 2), return_tensors="tf")
    normalize: Callable[..., object] = PROCESSOR.normalize.__wrapped__.__get__(PROCESSOR)
    with pytest.raises(ShapeError, match=r"torch.float32 \[1, 3, 8, 8\]"):
        normalize(torch.zeros(1, 3, 8, 8))


def test_the_broken_picture_of_a_batch_is_named_by_its_path_or_else_by_its_position(tmp_path: Path) -> None:
    (tmp_path / "fake.jpg").write_text("<html>not found</html>")
    with pytest.raises(UnreadableImage, match=r"fake\.jpg: no picture") as caught:
        PROCESSOR([noise(2, 2), tmp_path / "fake.jpg"])
    assert caught.value.name == str(tmp_path / "fake.jpg")
    with pytest.raises(UnreadableImage, match="image 2: no picture"):
        PROCESSOR([noise(2, 2), noise(2, 2), b"nothing"])


# ---- decoding at reduced scale


def test_only_a_jpeg_file_four_times_larger_is_read_at_reduced_scale() -> None:
    smooth = noise(8, 8).resize((300, 260), Image.Resampling.BICUBIC)
    large = jpeg(smooth)
    assert not np.array_equal(PROCESSOR.pixels(large, reduced=True), PROCESSOR.pixels(large))
    buffer = io.BytesIO()
    smooth.save(buffer, "PNG")
    for same in (jpeg(smooth.crop((0, 0, 127, 260))), buffer.getvalue(), smooth, np.asarray(smooth)):
        assert np.array_equal(PROCESSOR.pixels(same, reduced=True), PROCESSOR.pixels(same))


def test_reduced_pixels_stay_close_and_upright_and_a_callers_lazy_picture_is_not_touched() -> None:
    smooth = noise(6, 5).resize((1000, 700), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(smooth, quality=95, exif=exif)
    difference = np.abs(PROCESSOR.pixels(data, reduced=True).astype(int) - PROCESSOR.pixels(data))
    assert difference.mean() < 1
    assert 0 < difference.max() <= 10
    lazy = Image.open(io.BytesIO(data))
    assert np.array_equal(PROCESSOR.pixels(lazy, reduced=True), PROCESSOR.pixels(data))
    assert lazy.size == (1000, 700)


# ---- threads


def test_threads_read_one_lazy_picture_and_many_files_as_one_thread_does() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    files = [jpeg(noise(70 + seed, 90, seed), exif=exif) for seed in range(6)]
    expected = [PROCESSOR.pixels(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            lazy = Image.open(io.BytesIO(files[0]))
            shared = list(pool.map(PROCESSOR.pixels, [lazy] * 16))
            assert all(np.array_equal(pixels, expected[0]) for pixels in shared)
        many = list(pool.map(PROCESSOR.pixels, files * 20))
    assert all(np.array_equal(pixels, expected[index % 6]) for index, pixels in enumerate(many))
